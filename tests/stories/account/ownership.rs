//! Nobody sees another's tasks: the matrix of tenants, operations and positions, and what is not in it.

use http::Method;
use kiegate::catalogue::{IdAt, IdKind, KnownBy, OperationIx};
use kiegate::store::Owner;

use super::*;

const MINE: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa1";
const THEIRS: &str = "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb2";
const NOBODYS: &str = "ccccccccccccccccccccccccccccccc3";

/// The example of an operation, or of a model of it, with `name` at the position.
fn naming(
    operation: OperationIx,
    model: Option<kiegate::catalogue::ModelIx>,
    at: &IdAt,
    name: &str,
) -> Value {
    let known = CATALOGUE.operation(operation);
    let mut request = match model {
        Some(model) => json!({"model": CATALOGUE.model(model).name, "input": CATALOGUE.model(model).example}),
        None => known.example.clone().unwrap_or_else(|| json!({})),
    };
    let (parent, field) = at.at.rsplit_once('/').unwrap();
    request.pointer_mut(parent).unwrap()[field] = name.into();
    request
}

/// What an id of that kind looks like that belongs to `tenant`.
async fn given_to(world: &Shared, tenant: &str, name: &str) {
    let owner = Owner { tenant: TenantId::new(tenant), key: Some("main".into()) };
    let now = Timestamp::from_millis(1_785_999_477_123);
    world.store.learn(&owner, &[name], now).await.unwrap();
}

/// Tenant × operation × position: a foreign id is answered as an unknown one, byte for byte, and nothing goes upstream.
#[tokio::test(start_paused = true)]
async fn what_belongs_to_another_looks_like_what_does_not_exist() {
    let (mut positions, mut declared) = (0, 0);
    for (operation, model, at) in CATALOGUE.id_positions() {
        let world = Shared::new(CALLED_BACK);
        let address = |name: &str| {
            if at.kind == IdKind::Url { format!("https://files.test/{name}.mp4") } else { name.to_owned() }
        };
        let (mine, theirs, nobodys) = (address(MINE), address(THEIRS), address(NOBODYS));
        given_to(&world, "acme", &mine).await;
        for other in CATALOGUE.ids_of(operation, model) {
            let there = naming(operation, model, at, &mine);
            if let Some(name) = there.pointer(&other.at).and_then(Value::as_str) {
                given_to(&world, "acme", name).await;
            }
        }
        given_to(&world, "bolt", &theirs).await;
        let id = &CATALOGUE.operation(operation).id;
        let place = format!("{id} {:?} {}", model.map(|model| &CATALOGUE.model(model).name), at.at);
        let acme = world.client("acme");
        let foreign = acme.call(id, &naming(operation, model, at, &theirs)).await;
        assert_eq!(world.upstream.arrived().len(), 0, "{place}: nothing goes upstream");
        if at.known_by == KnownBy::Declaration {
            acme.call(id, &naming(operation, model, at, &nobodys)).await;
            acme.call(id, &naming(operation, model, at, &mine)).await;
            assert_eq!(
                world.upstream.arrived().len(),
                2,
                "{place}: one's own does, and what nobody is known to own"
            );
            declared += 1;
            continue;
        }
        let unknown = acme.call(id, &naming(operation, model, at, &nobodys)).await;
        let comparable = |answer: &Answer, name: &str| {
            let mut text = answer.text().replace(name, "ID");
            // A create that is accepted and must fail names a task of its own.
            if let Some(task) = answer.json()["data"]["taskId"].as_str() {
                text = text.replace(task, "TASK");
            }
            (answer.status, text)
        };
        assert_eq!(comparable(&foreign, &theirs), comparable(&unknown, &nobodys), "{place}");
        assert_eq!(world.upstream.arrived().len(), 0, "{place}: nothing goes upstream");
        assert!(foreign.headers.get("x-kiegate-error").is_none(), "{place}: {}", foreign.text());
        acme.call(id, &naming(operation, model, at, &mine)).await;
        assert_eq!(world.upstream.arrived().len(), 1, "{place}: one's own does");
        positions += 1;
    }
    assert_eq!((positions, declared), (79, 18), "positions of ids in the catalogue");
}

#[tokio::test(start_paused = true)]
async fn a_task_answers_to_whoever_made_it() {
    let world = Shared::new(CALLED_BACK);
    let (acme, bolt) = (world.client("acme"), world.client("bolt"));
    let id = acme.create().await.task_id();
    assert_eq!(bolt.details(&id).await.json(), json!({"code": 200, "msg": "success", "data": null}));
    assert_eq!(acme.details(&id).await.json()["data"]["taskId"], *id);
    let both = format!("/api/v1/runway/record-detail?taskId={}&taskId={id}", bolt.create().await.task_id());
    assert_eq!(
        bolt.get(&both).await.json()["data"],
        Value::Null,
        "one foreign id among one's own is foreign"
    );
    let hidden = format!("/api/v1/runway/record-detail?task%49d={id}");
    assert_eq!(bolt.get(&hidden).await.json()["data"], Value::Null);
}

/// A song of `client`'s that is done: its task and its first track.
async fn sung(world: &Shared, client: &Client) -> (String, String) {
    let request = song("https://hooks.example.com/a");
    let task = client.post("/api/v1/generate", &request).await.expect_code(200).task_id();
    let got = world.receiver.until(3).await;
    (task, got[2].json()["data"]["data"][0]["id"].as_str().unwrap().to_owned())
}

#[tokio::test(start_paused = true)]
async fn ids_that_came_out_of_tasks_are_learned_from_records_and_callbacks() {
    let world = Shared::new(CALLED_BACK);
    let (acme, bolt) = (world.client("acme"), world.client("bolt"));
    let (_, audio) = sung(&world, &acme).await;
    let extend = json!({"defaultParamFlag": false, "audioId": audio, "model": "V5",
                        "callBackUrl": "https://hooks.example.com/b"});
    let before = world.upstream.arrived().len();
    bolt.post("/api/v1/generate/extend", &extend).await;
    assert_eq!(world.upstream.arrived().len(), before, "another's track does not exist for bolt");
    acme.post("/api/v1/generate/extend", &extend).await.expect_code(200);
    assert_eq!(world.upstream.count("suno.extend"), 1);
}

/// A song that nobody is known to have made, be it that the gateway has begun anew, went upstream under its other name.
#[tokio::test(start_paused = true)]
async fn an_unknown_task_is_unknown_by_each_of_its_names() {
    let world = Shared::new(CALLED_BACK);
    let bolt = world.client("bolt");
    let unknown = |name: &str| json!({name: NOBODYS, "callBackUrl": "https://hooks.example.com/a"});
    let named = ["task_id", "sunoTaskId"];
    let mut answers = Vec::new();
    for name in named {
        answers.push(bolt.post("/api/v1/suno/recovery", &unknown(name)).await.json());
    }
    assert_eq!(answers[0], answers[1]);
    assert_eq!(world.upstream.arrived().len(), 0);
}

/// What is made at once, as a persona is, was once not learned: anybody could sing with it.
#[tokio::test(start_paused = true)]
async fn ids_that_come_out_of_follow_ups_are_learned() {
    let world = Shared::new(CALLED_BACK);
    let (acme, bolt) = (world.client("acme"), world.client("bolt"));
    let (task, audio) = sung(&world, &acme).await;
    let persona = json!({"taskId": task, "audioId": audio, "name": "Harbour", "description": "A low voice"});
    let made = acme.post("/api/v1/generate/generate-persona", &persona).await.expect_code(200);
    let persona = made.json()["data"]["personaId"].clone();
    let cover = json!({"prompt": "rain", "customMode": true, "style": "Waltz", "title": "Rain", "model": "V5",
                      "instrumental": false, "personaId": persona, "callBackUrl": "https://hooks.example.com/b"});
    let before = world.upstream.arrived().len();
    bolt.post("/api/v1/generate", &cover).await;
    assert_eq!(world.upstream.arrived().len(), before, "another's persona does not exist for bolt");
    acme.post("/api/v1/generate", &cover).await.expect_code(200);
    assert_eq!(world.upstream.arrived().len(), before + 1);
}

/// Places that no operation looks at, and an upstream might.
#[tokio::test(start_paused = true)]
async fn a_foreign_id_goes_nowhere_in_any_place() {
    let world = Shared::new(CALLED_BACK);
    given_to(&world, "acme", THEIRS).await;
    given_to(&world, "bolt", MINE).await;
    let in_text = json!({"model": "google/nano-banana", "input": {"prompt": "x", "meta": format!("{{\"id\":\"{THEIRS}\"}}")}});
    let places = [
        ("POST", "/api/v1/foo".to_owned(), "application/json", json!({"taskId": THEIRS}).to_string()),
        ("POST", "/api/v1/foo".to_owned(), "", json!({"deep": [{"ids": [THEIRS]}]}).to_string()),
        // What says nothing of itself may be anything.
        ("POST", "/api/v1/foo".to_owned(), "*/*", json!({"taskId": THEIRS}).to_string()),
        ("POST", "/api/v1/foo".to_owned(), ";", json!({"taskId": THEIRS}).to_string()),
        ("POST", "/api/v1/foo".to_owned(), "application/x-www-form-urlencoded", format!("a=1&task={THEIRS}")),
        (
            "PUT",
            "/api/v1/runway/extend".to_owned(),
            "application/json",
            json!({"taskId": THEIRS}).to_string(),
        ),
        ("GET", format!("/api/v1/foo?ids={MINE},{THEIRS}"), "", String::new()),
        ("GET", format!("/api/v1/foo?ids={MINE}%2C{THEIRS}"), "", String::new()),
        ("GET", format!("/api/v1/foo/{THEIRS}.json"), "", String::new()),
        (
            "POST",
            format!("/api/v1/runway/extend?taskId={THEIRS}"),
            "application/json",
            json!({"taskId": MINE, "prompt": "on", "quality": "720p"}).to_string(),
        ),
        (
            "GET",
            format!("/api/v1/runway/record-detail?taskId={MINE}"),
            "application/json",
            json!({"taskId": THEIRS}).to_string(),
        ),
        ("POST", "/api/v1/jobs/createTask".to_owned(), "application/json", in_text.to_string()),
    ];
    for (method, path, kind, body) in places {
        let request = |body: String| {
            let request = Request::builder().method(method).uri(&path).header("authorization", "Bearer bolt");
            let request = if kind.is_empty() { request } else { request.header("content-type", kind) };
            request.body(Body::from(body)).unwrap()
        };
        world.plane.answer(request(body.clone())).await;
        assert_eq!(world.upstream.arrived().len(), 0, "{method} {path} {body}");
    }
    let fine = Request::post("/api/v1/foo").header("authorization", "Bearer bolt");
    world.plane.answer(fine.body(Body::from(json!({"taskId": MINE}).to_string())).unwrap()).await;
    let arrived = world.upstream.arrived();
    assert_eq!(arrived.len(), 1, "what is bolt's own goes on");
}

/// Its address was once nobody's, so that no link to it could be had.
#[tokio::test(start_paused = true)]
async fn an_uploaded_file_is_its_tenants() {
    let world = Shared::new(CALLED_BACK);
    let (acme, bolt) = (world.client("acme"), world.client("bolt"));
    let file =
        json!({"base64Data": "data:text/plain;base64,aGVsbG8=", "uploadPath": "images", "fileName": "a.txt"});
    let uploaded = acme.post("/api/file-base64-upload", &file).await;
    let url = uploaded.json()["data"]["downloadUrl"].clone();
    assert!(url.is_string(), "{}", uploaded.text());
    let before = world.upstream.arrived().len();
    bolt.post("/api/v1/common/download-url", &json!({"url": url})).await;
    assert_eq!(world.upstream.arrived().len(), before);
    acme.post("/api/v1/common/download-url", &json!({"url": url})).await.expect_code(200);
    assert_eq!(world.upstream.arrived().len(), before + 1);
    // A link more does no harm: it is asked for again as other questions are.
    world.upstream.meets([Misfortune::Broken]);
    let fresh = acme.with("cache-control", "no-cache");
    fresh.post("/api/v1/common/download-url", &json!({"url": url})).await.expect_code(200);
    assert_eq!(world.upstream.arrived().len(), before + 3);
}

/// A create that upstream would accept and let fail does so here, without upstream, down to its callback.
#[tokio::test(start_paused = true)]
async fn a_create_from_a_foreign_task_fails_as_one_from_an_unknown_task() {
    let world = Shared::new(CALLED_BACK);
    let (acme, bolt) = (world.client("acme"), world.client("bolt"));
    let id = acme.create().await.task_id();
    acme.until_ended(&id).await;
    let before = world.upstream.arrived().len();
    let extend = json!({"taskId": id, "prompt": "on", "quality": "720p",
                        "callBackUrl": "https://hooks.example.com/bolt"});
    let phantom = bolt.post("/api/v1/runway/extend", &extend).await.expect_code(200).task_id();
    let record = bolt.until_ended(&phantom).await;
    assert_eq!(record["data"]["state"], "fail");
    let got = world.receiver.until(1).await;
    assert_eq!((&*got[0].tenant, &got[0].json()["data"]["task_id"]), ("bolt", &json!(phantom)));
    assert_eq!(world.upstream.arrived().len(), before);
    assert_eq!((world.running("bolt").await, world.spent("bolt").await), (0, 0));
    assert_eq!(acme.details(&phantom).await.json()["data"], Value::Null);
}

/// It was reported as made, at an address that leads nowhere, and paid for; and its end was noticed when it was overdue.
#[tokio::test(start_paused = true)]
async fn nothing_is_made_of_what_does_not_exist() {
    let world = Shared::new(CALLED_BACK);
    let (acme, bolt) = (world.client("acme"), world.client("bolt"));
    let id = acme.create().await.task_id();
    let mut quoting = video();
    quoting["prompt"] = id.as_str().into();
    let phantom = bolt.post("/api/v1/runway/generate", &quoting).await.expect_code(200).task_id();
    assert_eq!((world.running("bolt").await, world.spent("bolt").await), (1, 12));
    while bolt.details(&phantom).await.json()["data"]["state"] != "fail" {
        tokio::time::sleep(Duration::from_secs(3)).await;
    }
    assert_eq!(
        (world.running("bolt").await, world.spent("bolt").await),
        (0, 0),
        "whoever reads it settles it"
    );
    assert_eq!(world.upstream.count("runway.generate"), 1);
}

/// A chat that quoted another's task had an answer that no model gave, and the account's balance was another.
#[tokio::test(start_paused = true)]
async fn what_is_said_to_a_model_or_asked_of_the_account_names_no_task() {
    let world = Shared::new(CALLED_BACK);
    let (acme, bolt) = (world.client("acme"), world.client("bolt"));
    let id = acme.create().await.task_id();
    let chat = json!({"messages": [{"role": "user", "content": json!({"taskId": id}).to_string()}]});
    bolt.post("/gpt-5-2/v1/chat/completions", &chat).await.expect_status(200);
    assert_eq!(world.upstream.count("chat.gpt-5-2"), 1);
    let balance = async |name: &str| bolt.get(&format!("/api/v1/chat/credit?x={name}")).await;
    let (foreign, unknown) = (balance(&id).await, balance(NOBODYS).await);
    assert_eq!(foreign.text(), unknown.text());
    assert_eq!((foreign.header("x-cache"), unknown.header("x-cache")), ("miss", "miss"));
    let file = json!({"base64Data": "aGVsbG8=", "uploadPath": "images", "fileName": id});
    bolt.post("/api/file-base64-upload", &file).await;
    assert_eq!(world.upstream.count("file-upload.base64"), 1, "a file may be called anything");
}

/// A record shows the request that it was made from; whoever writes another's id into a request does not come by it.
#[tokio::test(start_paused = true)]
async fn an_id_is_not_had_by_writing_it_into_a_request() {
    let world = Shared::new(CALLED_BACK);
    let (acme, bolt) = (world.client("acme"), world.client("bolt"));
    let id = acme.create().await.task_id();
    let smuggle = json!({"model": "nano-banana-2", "input": {"prompt": "x"}, "taskId": id, "videoId": id});
    let before = world.upstream.arrived().len();
    bolt.post("/api/v1/jobs/createTask", &smuggle).await;
    assert_eq!(world.upstream.arrived().len(), before, "what is another's may stand nowhere");
    assert_eq!(bolt.details(&id).await.json()["data"], Value::Null);
}

#[tokio::test(start_paused = true)]
async fn paths_that_nobody_knows_do_not_lead_around_it() {
    let world = Shared::new(CALLED_BACK);
    let (acme, bolt) = (world.client("acme"), world.client("bolt"));
    let id = acme.create().await.task_id();
    let before = world.upstream.arrived().len();
    for (path, status) in [
        (format!("/api/v1//runway/record-detail?taskId={id}"), 403),
        (format!("/api/v1/runway/record-detail/?taskId={id}"), 403),
        (format!("/api/v1/runway/record%2Ddetail?x={id}"), 403),
        ("/%5fmock/state".to_owned(), 403),
        ("/%5Frelay/x".to_owned(), 403),
        (format!("/api/v1/else/{id}"), 404),
        (format!("/api/v1/else;id={id}"), 404),
    ] {
        let answer = bolt.get(&path).await;
        assert_eq!((answer.status, world.upstream.arrived().len()), (status, before), "{path}");
    }
    let gzip = Request::post("/api/v1/else")
        .header("authorization", "Bearer bolt")
        .header("content-type", "application/json")
        .header("content-encoding", "gzip");
    let packed = world.plane.answer(gzip.body(Body::from("packed")).unwrap()).await;
    assert_eq!((packed.status().as_u16(), world.upstream.arrived().len()), (400, before), "nobody can look");
    // Nor other names in a query that is known.
    for query in [format!("x=1;taskId={id}"), format!("TaskId={id}"), format!("taskId[]={id}")] {
        bolt.get(&format!("/api/v1/runway/record-detail?{query}")).await;
        assert_eq!(world.upstream.arrived().len(), before, "{query}");
    }
    acme.get(&format!("/api/v1/else/{id}")).await;
    assert_eq!(world.upstream.arrived().len(), before + 1, "one's own goes on");
}

#[tokio::test(start_paused = true)]
async fn a_task_is_asked_for_with_the_key_that_made_it() {
    let lines = "mode = \"live\"\n[[upstream.key]]\n%main\n[[upstream.key]]\n%spare\n[[tenant]]\n%acme\nupstream_keys = [\"spare\", \"main\"]\n[[tenant]]\n%bolt\n";
    let world = Shared::new(lines);
    let (acme, bolt) = (world.client("acme"), world.client("bolt"));
    let (theirs, ours) = (bolt.create().await.task_id(), acme.create().await.task_id());
    bolt.details(&theirs).await.expect_code(200);
    acme.details(&ours).await.expect_code(200);
    let keys: Vec<usize> = world.upstream.arrived().iter().map(|arrived| arrived.key).collect();
    assert_eq!(keys, [0, 1, 0, 1]);
}

/// Bodies that the gateway cannot read, and others may, once went upstream without a look at what they named and cost.
#[tokio::test(start_paused = true)]
async fn a_body_that_cannot_be_read_goes_nowhere() {
    let world = Shared::new(CALLED_BACK);
    let (acme, bolt) = (world.client("acme"), world.client("bolt"));
    let id = acme.create().await.task_id();
    let before = world.upstream.arrived().len();
    let deep = format!("{}{}", "[".repeat(130), "]".repeat(130));
    for odd in [r#""\ud800""#, "1e999", "NaN", &deep, "1,"] {
        let body = format!(r#"{{"taskId":"{id}","prompt":"x","quality":"720p","z":{odd}}}"#);
        let with_mark = format!("\u{feff}{{\"taskId\":\"{id}\"}}");
        for body in [body, with_mark, format!("taskId={id}&prompt=x")] {
            let answer = bolt.send(Method::POST, "/api/v1/runway/extend", body).await.expect_status(400);
            assert_eq!(answer.header("x-kiegate-error"), "body_malformed");
        }
    }
    let mut not_utf8 = format!(r#"{{"taskId":"{id}","z":"?"}}"#).into_bytes();
    let place = not_utf8.iter().position(|byte| *byte == b'?').unwrap();
    not_utf8[place] = 0xff;
    bolt.send(Method::POST, "/api/v1/runway/extend", not_utf8).await.expect_status(400);
    assert_eq!(world.upstream.arrived().len(), before);
    assert_eq!(world.spent("bolt").await, 0);
}

/// They are read elsewhere, and looked through all the same.
#[tokio::test(start_paused = true)]
async fn large_bodies_are_looked_through_and_bounded() {
    let world = Shared::new(&CALLED_BACK.replace("%bolt", "%bolt\nmode = \"mock\""));
    let (acme, bolt) = (world.client("acme"), world.client("bolt"));
    given_to(&world, "bolt", THEIRS).await;
    let padded = |name: &str| json!({"model": "nano-banana-2", "input": {"prompt": "x".repeat(300 * 1024)}, "taskId": name});
    for path in ["/api/v1/jobs/createTask", "/api/v1/else"] {
        acme.post(path, &padded(THEIRS)).await;
        assert_eq!(world.upstream.arrived().len(), 0, "{path}");
    }
    acme.post("/api/v1/else", &padded(NOBODYS)).await;
    assert_eq!(world.upstream.arrived().len(), 1);
    let many = json!({"model": "nano-banana-2", "input": {"prompt": "x", "list": vec![0; 250_000]}});
    for client in [&acme, &bolt] {
        let refused = client.post("/api/v1/jobs/createTask", &many).await.expect_status(400);
        assert_eq!(refused.header("x-kiegate-error"), "body_malformed");
        assert!(refused.text().contains("more than 250000 values"), "{}", refused.text());
    }
    assert_eq!(world.upstream.arrived().len(), 1);
}

/// A record shows what was asked for. An id that stood in a prompt as JSON was once taken for one that came out of the task.
#[tokio::test(start_paused = true)]
async fn an_id_is_not_had_by_writing_it_into_a_prompt() {
    let world = Shared::new(CALLED_BACK);
    let acme = world.client("acme");
    // One that this gateway does not know: of before its start.
    let id = "0123456789abcdef0123456789abcdef";
    for prompt in [
        json!({"taskId": id}).to_string(),
        format!("  {}", json!({"taskId": id})),
        json!({"x": json!([{"audioId": id}]).to_string()}).to_string(),
        r#"{"taskId":"\u00301234\u003567\u0038\u00399abcdef0123456789abcdef"}"#.to_owned(),
        format!("https://a.example/{id}"),
    ] {
        let create = json!({"model": "nano-banana-2", "input": {"prompt": prompt, "output_format": "png"}});
        let own = acme.post("/api/v1/jobs/createTask", &create).await.expect_code(200).task_id();
        for _ in 0..100 {
            let record = acme.get(&format!("/api/v1/jobs/recordInfo?taskId={own}")).await.json();
            if record["data"]["state"] == "success" {
                break;
            }
            tokio::time::sleep(Duration::from_secs(5)).await;
        }
        let found = world.store.made_by(id).await.unwrap();
        assert!(found.is_none(), "{prompt}");
        let before = world.upstream.arrived().len();
        acme.details(id).await;
        assert_eq!(world.upstream.arrived().len(), before, "{prompt}");
    }
}
