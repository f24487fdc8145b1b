//! Who may do what, and from where.

use std::task::Poll;

use http::Method;
use kiegate::gateway::Peer;

use super::*;

fn tenant(lines: &str) -> Shared {
    Shared::new(&format!(
        "trusted_proxies = [\"10.0.0.0/8\"]\nmode = \"live\"\n[[upstream.key]]\n%main\n[[tenant]]\n%acme\n{lines}\n"
    ))
}

#[tokio::test(start_paused = true)]
async fn operations_and_models_that_are_not_allowed_are_refused_in_the_familys_form() {
    let world = tenant(
        "allow = [\"runway.*\", \"jobs.*\", \"chat.*\", \"model:google/*\"]\ndeny = [\"runway.extend\", \"model:gpt-5*\"]",
    );
    let acme = world.client("acme");
    acme.create().await.expect_code(200);
    let forbidden = |answer: Answer| {
        let answer = answer.expect_status(403);
        assert_eq!(answer.header("x-kiegate-error"), "forbidden");
        answer.json()
    };
    let veo = forbidden(acme.post("/api/v1/veo/generate", &json!({"prompt": "x"})).await);
    assert_eq!((&veo["code"], &veo["data"]), (&json!(403), &Value::Null));
    forbidden(acme.post("/api/v1/runway/extend", &json!({})).await);
    forbidden(acme.get("/api/v1/chat/credit").await);
    let market = json!({"model": "nano-banana-2", "input": {"prompt": "x"}});
    let told = forbidden(acme.post("/api/v1/jobs/createTask", &market).await);
    assert!(told["msg"].as_str().unwrap().contains("nano-banana-2"), "{told}");
    let chat = json!({"messages": [{"role": "user", "content": "hi"}]});
    let told = forbidden(acme.post("/gpt-5-2/v1/chat/completions", &chat).await);
    assert!(told["error"]["message"].is_string(), "{told}");
    assert_eq!(world.upstream.arrived().len(), 1);
}

/// A pattern bound one operation, and another one of the family made dearer things.
#[tokio::test(start_paused = true)]
async fn a_pattern_of_models_binds_its_family() {
    let world = tenant("allow = [\"veo.*\", \"chat.*\", \"model:veo3_lite\"]");
    let acme = world.client("acme");
    let extend = json!({"taskId": "a", "prompt": "x", "model": "quality"});
    acme.post("/api/v1/veo/extend", &extend).await.expect_status(403);
    acme.post("/api/v1/veo/generate", &json!({"prompt": "x", "model": "veo3_lite"})).await.expect_status(200);
    let version = acme.post("/api/v1/veo/get-4k-video", &json!({"taskId": "a"})).await;
    assert_ne!(version.status, 403, "it chooses no model");
    let chat = json!({"messages": [{"role": "user", "content": "hi"}]});
    acme.post("/gpt-5-2/v1/chat/completions", &chat).await.expect_status(200);
    let world = tenant("allow = [\"chat.*\", \"model:gpt-5.2\"]");
    world.client("acme").post("/gpt-5-2/v1/chat/completions", &chat).await.expect_status(200);
    world.client("acme").post("/gemini-3-pro/v1/chat/completions", &chat).await.expect_status(403);
}

/// Whoever answers may be less strict than the rule.
#[tokio::test(start_paused = true)]
async fn a_model_that_is_spelt_so_that_a_rule_might_miss_it_is_denied() {
    let world = tenant("deny = [\"model:google/*\", \"model:veo3_fast\"]");
    let odd = [
        json!({"model": "Google/Nano-Banana"}),
        json!({"model": " google/nano-banana"}),
        json!({"model": "google/nano-banana\0"}),
        json!({"model": ["google/nano-banana"]}),
        json!({"model": {"name": "google/nano-banana"}}),
        json!({"MODEL": "google/nano-banana"}),
        json!({"model": "kling/v2-1-pro", "Model": "google/nano-banana"}),
    ];
    for mut body in odd {
        body["input"] = json!({"prompt": "x"});
        world.client("acme").post("/api/v1/jobs/createTask", &body).await.expect_status(403);
    }
    for model in [json!("VEO3_fast"), json!("veo3_fast "), json!(["veo3_fast"])] {
        let body = json!({"prompt": "x", "model": model});
        world.client("acme").post("/api/v1/veo/generate", &body).await.expect_status(403);
    }
    let by_query = "/api/v1/veo/generate?Model=veo3_fast";
    world.client("acme").post(by_query, &json!({"prompt": "x", "model": "veo3"})).await.expect_status(403);
    assert_eq!(world.upstream.arrived().len(), 0);
    let body = json!({"prompt": "x", "model": "veo3", "input": {"MODEL": "is not looked at"}});
    world.client("acme").post("/api/v1/veo/generate", &body).await;
    assert_eq!(world.upstream.arrived().len(), 1);
}

/// What nobody here knows is denied by its name, too.
#[tokio::test(start_paused = true)]
async fn a_chat_with_an_unknown_model_is_denied_by_the_name_in_its_path() {
    let world = tenant("deny = [\"model:gemini-9*\"]");
    let chat = json!({"messages": [{"role": "user", "content": "hi"}]});
    for path in ["/gemini-9/v1/chat/completions", "/gemini%2D9-pro/v1/chat/completions"] {
        world.client("acme").post(path, &chat).await.expect_status(403);
    }
    assert_eq!(world.upstream.arrived().len(), 0);
    world.client("acme").post("/gemini-8/v1/chat/completions", &chat).await;
    assert_eq!(world.upstream.arrived().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_key_in_the_query_may_be_encoded() {
    let world = tenant("");
    for (query, status) in
        [("key=acme", 200), ("key=%61cm%65", 200), ("key=%61cme%2B", 401), ("key=%ff", 401)]
    {
        let request = Request::get(format!("/api/v1/chat/credit?{query}")).body(Body::empty()).unwrap();
        assert_eq!(world.plane.answer(request).await.status().as_u16(), status, "{query}");
    }
}

#[tokio::test(start_paused = true)]
async fn addresses_are_those_of_the_peer_or_of_a_proxy_that_is_believed() {
    let world = tenant("ip_allow = [\"192.0.2.0/24\"]");
    let from = async |peer: &str, forwarded: &str| {
        let mut request = Request::get("/api/v1/chat/credit").header("authorization", "Bearer acme");
        if !forwarded.is_empty() {
            request = request.header("x-forwarded-for", forwarded);
        }
        let request = request.body(Body::empty()).unwrap();
        world.plane.answer_from(Some(Peer(peer.parse().unwrap())), request).await.status().as_u16()
    };
    assert_eq!(from("192.0.2.7", "").await, 200);
    assert_eq!(from("198.51.100.1", "").await, 403);
    assert_eq!(from("198.51.100.1", "192.0.2.7").await, 403, "nobody believes a stranger");
    assert_eq!(from("10.0.0.1", "192.0.2.7").await, 200);
    assert_eq!(from("10.0.0.1", "192.0.2.7, 198.51.100.1").await, 403, "the last hop is the client");
    assert_eq!(from("10.0.0.1", "198.51.100.1, 192.0.2.7, 10.0.0.2").await, 200);
    assert_eq!(from("10.0.0.1", "192.0.2.7:5555").await, 200, "some proxies tell the port");
    assert_eq!(from("10.0.0.1", "[2001:db8::1]:99, 198.51.100.1:1").await, 403);
    assert_eq!(
        from("10.0.0.1", "192.0.2.7, [10.0.0.2],, ").await,
        200,
        "lists may have nothing between commas"
    );
    assert_eq!(from("10.0.0.1", "nonsense").await, 403);
    assert_eq!(from("10.0.0.1", "").await, 403);
}

#[tokio::test(start_paused = true)]
async fn a_key_comes_in_four_ways_and_strangers_are_all_alike() {
    let hash = |key: &str| kiegate::clock::hex(&kiegate::tenants::hash(key));
    let expired = format!("{{ hash = \"sha256:{}\", expires = \"2026-01-01\" }}", hash("old"));
    let world = Shared::new(&format!(
        "mode = \"live\"\n[[upstream.key]]\n%main\n[[tenant]]\nid = \"acme\"\nkeys = [\"sha256:{}\", {expired}]\n",
        hash("acme")
    ));
    let call = async |name: &str, value: &str, query: &str| {
        let request = Request::get(format!("/api/v1/chat/credit{query}")).header(name, value);
        let response = world.plane.answer(request.body(Body::empty()).unwrap()).await;
        let status = response.status().as_u16();
        (status, axum::body::to_bytes(response.into_body(), usize::MAX).await.unwrap())
    };
    for (name, value, query) in [
        ("authorization", "Bearer acme", ""),
        ("x-api-key", "acme", ""),
        ("x-goog-api-key", "acme", ""),
        ("x-other", "x", "?key=acme"),
    ] {
        assert_eq!(call(name, value, query).await.0, 200, "{name}");
    }
    let unknown = call("authorization", "Bearer nobody", "").await;
    assert_eq!((unknown.0, call("authorization", "Bearer old", "").await), (401, unknown));
    for arrived in world.upstream.arrived() {
        assert!(
            !arrived.path.contains("acme") || arrived.path.contains("key="),
            "the live upstream strips it"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_gateway_that_is_about_to_stop_takes_nothing_new() {
    let world = tenant("");
    world.gateway.drain();
    let refused = world.client("acme").send(Method::GET, "/api/v1/chat/credit", "").await.expect_status(503);
    assert_eq!((refused.header("x-kiegate-error"), refused.header("retry-after")), ("draining", "1"));
}

/// Ten megabytes of anybody were read before it was said that there is nothing there.
#[tokio::test(start_paused = true)]
async fn where_there_is_no_simulator_nothing_that_is_sent_to_it_is_read() {
    let world = tenant("");
    let unread = || {
        let never = futures_util::stream::poll_fn(|_| -> Poll<Option<std::io::Result<Bytes>>> {
            panic!("somebody reads it")
        });
        Body::from_stream(never)
    };
    for path in ["/_mock/inbox/87ed041204627c1d9292c5fe/a", "/_media/a/b/c.mp4"] {
        world.client("nobody").send(Method::POST, path, unread()).await.expect_status(404);
    }
    world.client("nobody").send(Method::PUT, "/_mock/rules", unread()).await.expect_status(401);
    world.client("acme").send(Method::PUT, "/_mock/rules", unread()).await.expect_status(404);
}

/// Paths that some servers take for another were once no operation here: nobody looked at what they named and cost.
#[tokio::test(start_paused = true)]
async fn another_spelling_of_a_path_is_refused() {
    let world = tenant("");
    let acme = world.client("acme");
    for path in [
        "/api/v1/runway/%65xtend",
        "//api/v1/runway/extend",
        "/api/v1/runway/extend/",
        "/api/v1/./runway/extend",
        "/api/v1/x/../runway/extend",
        "/api/v1/runway/extend;x=1",
        "/api/v1/runway/extend.json",
        "/api/v1/runway/extend%00",
    ] {
        let answer = acme.post(path, &json!({"taskId": "x", "prompt": "x"})).await.expect_status(403);
        assert_eq!(answer.header("x-kiegate-error"), "forbidden", "{path}");
        assert!(answer.text().contains("/api/v1/runway/extend"), "{}", answer.text());
    }
    let small = Method::from_bytes(b"post").unwrap();
    let answer = acme.send(small, "/api/v1/runway/extend", "{}").await.expect_status(403);
    assert!(answer.text().contains("post is another spelling of POST"), "{}", answer.text());
    assert_eq!(world.upstream.arrived().len(), 0);
    acme.post("/api/v1/runway/extended", &json!({})).await;
    assert_eq!(world.upstream.arrived().len(), 1, "what is not known at all goes its way");
}

/// Upstream may make of it what it makes of a GET, and some of these are paid for.
#[tokio::test(start_paused = true)]
async fn a_head_of_a_known_operation_is_not_passed_on() {
    let world = tenant("");
    for (path, status) in [("/api/v1/veo/get-1080p-video?taskId=x", 403), ("/api/v9/new-thing", 200)] {
        world.upstream.meets([Misfortune::Answers(200, json!({}))]);
        let head = Request::head(path).header("authorization", "Bearer acme").body(Body::empty()).unwrap();
        assert_eq!(world.plane.answer(head).await.status(), status, "{path}");
    }
    assert_eq!(world.upstream.arrived().len(), 1);
}
