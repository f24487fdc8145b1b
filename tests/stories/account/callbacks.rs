//! The relay: callbacks come in, are checked, and are passed on; where none comes, the gateway looks itself.

use http::Method;

use super::*;

const SIGNED: &str = "mode = \"live\"\npublic_url = \"https://gateway.test\"\n[[upstream.key]]\n%main\n[[tenant]]\n%acme\n[tenant.callbacks]\nsecret = \"env:TENANT\"\n[[tenant]]\n%bolt\n";

/// Where upstream was told to call back about its last create.
fn relay_path(world: &Shared) -> String {
    let arrived = world.upstream.arrived();
    let created = arrived.iter().rev().find(|arrived| !arrived.body.is_empty()).unwrap();
    let body: Value = serde_json::from_slice(&created.body).unwrap();
    body["callBackUrl"].as_str().unwrap().strip_prefix("https://gateway.test").unwrap().to_owned()
}

fn signed(id: &str) -> HeaderMap {
    let mut headers = HeaderMap::new();
    kiegate::wire::sign(&mut headers, WEBHOOK_KEY, id, 1_785_999_477);
    headers
}

async fn call_back(world: &Shared, path: &str, headers: HeaderMap, body: &str) -> u16 {
    let mut request = Request::post(path).body(Body::from(body.to_owned())).unwrap();
    *request.headers_mut() = headers;
    world.plane.answer(request).await.status().as_u16()
}

#[tokio::test(start_paused = true)]
async fn a_callback_is_passed_on_byte_for_byte_and_signed_for_its_tenant() {
    let world = Shared::new(SIGNED);
    let acme = world.client("acme");
    let id =
        acme.post("/api/v1/runway/generate", &video_to("https://hooks.example.com/a?x=1")).await.task_id();
    let got = world.receiver.until(1).await;
    let callback = &got[0];
    assert_eq!((&*callback.tenant, &*callback.url), ("acme", "https://hooks.example.com/a?x=1"));
    assert_eq!(kiegate::wire::signature_is_valid(TENANT_KEY, &callback.headers, &callback.raw), Some(true));
    assert_eq!(callback.json()["data"]["task_id"], *id);
    assert_eq!(callback.headers["x-kiegate-attempt"], "1");
    assert_eq!((world.running("acme").await, world.spent("acme").await), (0, 12));
    tokio::time::sleep(Duration::from_hours(1)).await;
    assert_eq!(world.receiver.got().len(), 1);
    assert_eq!(
        world.metric("kiegate_callbacks_total{direction=\"in\",result=\"accepted\",tenant=\"acme\"}"),
        1
    );
    assert_eq!(
        world.metric("kiegate_callbacks_total{direction=\"out\",result=\"delivered\",tenant=\"acme\"}"),
        1
    );
    assert_eq!(world.metric("kiegate_callback_pending{tenant=\"acme\"}"), 0);
}

#[tokio::test(start_paused = true)]
async fn the_stages_of_a_song_arrive_in_order_each_once() {
    let world = Shared::new(SIGNED);
    world.receiver.answers(&[500]);
    world
        .client("acme")
        .post("/api/v1/generate", &song("https://hooks.example.com/a"))
        .await
        .expect_code(200);
    let got = world.receiver.until(4).await;
    let stages: Vec<_> = got.iter().map(|got| got.json()["data"]["callbackType"].clone()).collect();
    assert_eq!(stages, ["text", "text", "first", "complete"]);
    assert_eq!(got[1].headers["x-kiegate-attempt"], "2");
    assert_eq!(got[0].headers["x-kiegate-delivery"], got[1].headers["x-kiegate-delivery"]);
    tokio::time::sleep(Duration::from_hours(1)).await;
    assert_eq!(world.receiver.got().len(), 4);
}

#[tokio::test(start_paused = true)]
async fn what_is_not_what_it_says_is_refused_and_counted() {
    let world = Shared::with(&live(SIGNED), Settings { pace: sim::Pace::Realistic, ..Settings::default() });
    let (acme, bolt) = (world.client("acme"), world.client("bolt"));
    let id = acme.post("/api/v1/runway/generate", &video_to("https://hooks.example.com/a")).await.task_id();
    let path = relay_path(&world);
    let theirs =
        bolt.post("/api/v1/runway/generate", &video_to("https://hooks.example.com/b")).await.task_id();
    let body = |id: &str| {
        json!({"code": 200, "msg": "All generated successfully.", "data": {"task_id": id, "video_id": "v",
               "video_url": "https://files.test/v.mp4", "image_url": "https://files.test/v.png"}})
        .to_string()
    };
    let unsigned = HeaderMap::new();
    assert_eq!(call_back(&world, &path, unsigned.clone(), &body(&id)).await, 401);
    assert_eq!(call_back(&world, &path, signed("other"), &body(&id)).await, 401);
    assert_eq!(call_back(&world, &path, signed(&theirs), &body(&theirs)).await, 409, "another's task");
    assert_eq!(
        call_back(&world, "/_relay/00000000000000000000000000000000", signed(&id), &body(&id)).await,
        404
    );
    assert_eq!(call_back(&world, "/_relay/guess", signed(&id), &body(&id)).await, 404);
    assert_eq!(call_back(&world, &path, signed(&id), "no json").await, 401);
    assert_eq!(world.receiver.got().len(), 0);
    let get = acme.send(Method::GET, &path, "").await;
    assert_eq!(get.status, 405);
    assert_eq!(call_back(&world, &path, signed(&id), &body(&id)).await, 200);
    assert_eq!(
        call_back(&world, &path, signed(&id), &body(&id)).await,
        200,
        "twice is no fault of upstream's"
    );
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(world.receiver.got().len(), 1);
    let count = |result: &str, tenant: &str| {
        world.metric(&format!(
            "kiegate_callbacks_total{{direction=\"in\",result=\"{result}\",tenant=\"{tenant}\"}}"
        ))
    };
    assert_eq!(
        [count("bad_signature", "acme"), count("other_task", "acme"), count("duplicate", "acme")],
        [3, 1, 1]
    );
    assert_eq!(count("unknown", "other"), 2);
}

/// All that no template knows was one stage once, and the second of them a repetition of the first.
#[tokio::test(start_paused = true)]
async fn callbacks_of_unknown_stages_are_told_apart_by_what_they_say() {
    let world = Shared::with(&live(SIGNED), Settings { pace: sim::Pace::Realistic, ..Settings::default() });
    let id =
        world.client("acme").post("/api/v1/generate", &song("https://hooks.example.com/a")).await.task_id();
    let path = relay_path(&world);
    for verse in ["one", "two", "one", "three"] {
        let body = json!({"code": 200, "msg": "x", "data": {"callbackType": verse, "task_id": id}});
        assert_eq!(call_back(&world, &path, signed(&id), &body.to_string()).await, 200);
    }
    let got = world.receiver.until(3).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let verses: Vec<_> = got.iter().map(|got| got.json()["data"]["callbackType"].clone()).collect();
    assert_eq!((verses, world.receiver.got().len()), (vec![json!("one"), json!("two"), json!("three")], 3));
    assert_ne!(got[0].headers["x-kiegate-delivery"], got[1].headers["x-kiegate-delivery"]);
    let duplicates = "kiegate_callbacks_total{direction=\"in\",result=\"duplicate\",tenant=\"acme\"}";
    assert_eq!(world.metric(duplicates), 1);
    for verse in 0..40 {
        let body = json!({"code": 200, "msg": "x", "data": {"callbackType": verse, "task_id": id}});
        assert_eq!(call_back(&world, &path, signed(&id), &body.to_string()).await, 200);
    }
    tokio::time::sleep(Duration::from_mins(1)).await;
    assert!((32..=36).contains(&world.receiver.got().len()), "so many and no more, whatever comes");
}

#[tokio::test(start_paused = true)]
async fn a_callback_answers_later_polls_where_it_says_all() {
    let world = Shared::new(CALLED_BACK);
    let acme = world.client("acme");
    let request = json!({"model": "nano-banana-2", "input": {"prompt": "a banana"},
                         "callBackUrl": "https://hooks.example.com/a"});
    let id = acme.post("/api/v1/jobs/createTask", &request).await.task_id();
    world.receiver.until(1).await;
    let record = acme.get(&format!("/api/v1/jobs/recordInfo?taskId={id}")).await;
    assert_eq!((record.header("x-cache"), world.upstream.count("jobs.details")), ("hit", 0));
    assert_eq!(record.json()["data"]["state"], "success");
    let fresh =
        acme.with("cache-control", "no-cache").get(&format!("/api/v1/jobs/recordInfo?taskId={id}")).await;
    let (mut kept, mut asked) = (record.json(), fresh.json());
    // The address of the callback is the tenant's in the one, and ours in the other.
    for record in [&mut kept, &mut asked] {
        record["data"]["param"] = Value::Null;
    }
    assert_eq!(kept, asked);
}

/// It once waited for the next look at upstream, though all was known.
#[tokio::test(start_paused = true)]
async fn a_callback_answers_those_who_wait_for_news() {
    let world = Shared::new(&format!("{CALLED_BACK}\n[cache]\nrunning = \"50s\"\n"));
    let acme = world.client("acme");
    let request = json!({"model": "nano-banana-2", "input": {"prompt": "a banana"},
                         "callBackUrl": "https://hooks.example.com/a"});
    let id = acme.post("/api/v1/jobs/createTask", &request).await.task_id();
    let details = format!("/api/v1/jobs/recordInfo?taskId={id}");
    let began = Instant::now();
    assert_ne!(acme.get(&details).await.json()["data"]["state"], "success");
    let record = acme.with("prefer", "wait=60").get(&details).await;
    assert_eq!(record.json()["data"]["state"], "success");
    assert!(began.elapsed() < Duration::from_secs(45), "{:?}", began.elapsed());
    assert_eq!((record.header("x-cache"), world.upstream.count("jobs.details")), ("hit", 1));
}

#[tokio::test(start_paused = true)]
async fn where_nobody_calls_the_gateway_looks_and_tells_the_same() {
    let called = Shared::new(CALLED_BACK);
    let alone = Shared::new(NOT_CALLED_BACK);
    for request in [song("https://hooks.example.com/a")] {
        for world in [&called, &alone] {
            world.client("acme").post("/api/v1/generate", &request).await.expect_code(200);
        }
    }
    let expected = called.receiver.until(3).await;
    let got = alone.receiver.until(3).await;
    for (expected, got) in expected.iter().zip(&got) {
        let stage = |got: &Got| got.json()["data"]["callbackType"].clone();
        assert_eq!(stage(expected), stage(got));
        let keys = |got: &Got| {
            got.json()["data"]["data"][0].as_object().map(|track| track.keys().cloned().collect::<Vec<_>>())
        };
        assert_eq!(keys(expected), keys(got));
    }
    assert_eq!(alone.running("acme").await, 0);
    let polls = alone.upstream.count("suno.details");
    assert!((1..=20).contains(&polls), "{polls} looks");
}

#[tokio::test(start_paused = true)]
async fn a_callback_that_does_not_come_is_made_up_for() {
    let world = Shared::new(CALLED_BACK);
    let mut request = video_to("https://hooks.example.com/a");
    request["prompt"] = "x [[mock:callback:drop]]".into();
    let id = world.client("acme").post("/api/v1/runway/generate", &request).await.task_id();
    let got = world.receiver.until(1).await;
    assert_eq!(got[0].json()["data"]["task_id"], *id);
    assert!(got[0].json()["data"]["video_url"].as_str().unwrap().starts_with("https://files.test/"));
    assert_eq!(world.running("acme").await, 0);
}

#[tokio::test(start_paused = true)]
async fn without_a_secret_a_callback_only_wakes_a_look() {
    let lines = CALLED_BACK.replace("%main", "name = \"main\"\nsecret = \"env:MAIN\"");
    let world = Shared::with(&live(&lines), Settings { pace: sim::Pace::Realistic, ..Settings::default() });
    let id = world
        .client("acme")
        .post("/api/v1/runway/generate", &video_to("https://hooks.example.com/a"))
        .await
        .task_id();
    let forged =
        json!({"code": 200, "msg": "ok", "data": {"task_id": id, "video_url": "https://evil.example/"}});
    assert_eq!(call_back(&world, &relay_path(&world), HeaderMap::new(), &forged.to_string()).await, 200);
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!((world.receiver.got().len(), world.upstream.count("runway.details")), (0, 1));
    let got = world.receiver.until(1).await;
    assert!(!got[0].raw.windows(4).any(|bytes| bytes == b"evil"));
}

/// Each was once a poll more, and whoever knows the address needs no key.
#[tokio::test(start_paused = true)]
async fn however_often_nobody_in_particular_calls_the_task_is_asked_for_now_and_then() {
    let lines = CALLED_BACK.replace("%main", "name = \"main\"\nsecret = \"env:MAIN\"");
    let world = Shared::with(&live(&lines), Settings { pace: sim::Pace::Realistic, ..Settings::default() });
    let created =
        world.client("acme").post("/api/v1/runway/generate", &video_to("https://hooks.example.com/a")).await;
    let body = json!({"code": 200, "msg": "ok", "data": {"task_id": created.task_id()}}).to_string();
    for _ in 0..100 {
        assert_eq!(call_back(&world, &relay_path(&world), HeaderMap::new(), &body).await, 200);
        tokio::time::sleep(Duration::from_millis(90)).await;
    }
    let asked = world.upstream.count("runway.details");
    assert!((4..=6).contains(&asked), "{asked} in 9 s");
}

/// The usual one, whose callbacks nobody vouches for.
fn unsigned() -> String {
    CALLED_BACK.replace(
        "%main",
        "name = \"main\"\nsecret = \"env:MAIN\"\nmax_concurrent_tasks = 1\nmax_wait = \"20s\"",
    )
}

/// Each was found out later than the one before.
#[tokio::test(start_paused = true)]
async fn ends_that_were_found_out_late_teach_nothing() {
    let world = Shared::new(CALLED_BACK);
    let mut request = video_to("https://hooks.example.com/a");
    request["prompt"] = "x [[mock:callback:drop]]".into();
    let mut waited = Vec::new();
    for count in 1..=5 {
        let began = Instant::now();
        world.client("acme").post("/api/v1/runway/generate", &request).await.expect_code(200);
        world.receiver.until(count).await;
        waited.push(began.elapsed().as_secs());
    }
    assert_eq!(waited.first(), waited.last(), "{waited:?}");
}

/// Nothing was learned from callbacks that nobody vouches for: each end was taken for one that had come long before.
#[tokio::test(start_paused = true)]
async fn how_long_tasks_take_is_learned_from_unsigned_callbacks_too() {
    let world = Shared::new(&unsigned());
    let acme = world.client("acme");
    let slow = async |drops: bool| {
        let mut request = video_to("https://hooks.example.com/a");
        request["prompt"] = if drops { "x [[mock:callback:drop]]" } else { "x" }.into();
        let began = Instant::now();
        acme.post("/api/v1/runway/generate", &request).await.expect_code(200);
        let got = world.receiver.got().len();
        world.receiver.until(got + 1).await;
        began.elapsed()
    };
    let before = slow(true).await;
    for _ in 0..12 {
        slow(false).await;
    }
    let after = slow(true).await;
    assert!(after < before / 2, "what is owed is looked for earlier: {before:?}, then {after:?}");
}

/// Whoever knew the address of a lost create could post any id to it, and own that task: its tenant is told the address.
#[tokio::test(start_paused = true)]
async fn a_callback_that_nobody_vouches_for_gives_nobody_a_task() {
    let world = Shared::new(&unsigned());
    let acme = world.client("acme");
    let lost =
        |id: &str| (json!({"code": 200, "msg": "ok", "data": {"task_id": id}}).to_string(), id.to_owned());
    // Tasks of the account that were not made here: of one of them the record shows how it was asked for.
    let mut market = json!({"model": "nano-banana-2", "input": {"prompt": "a banana"}});
    market["callBackUrl"] = "https://elsewhere.example/".into();
    let theirs = [("/api/v1/runway/generate", video()), ("/api/v1/jobs/createTask", market)];
    for (path, request) in theirs {
        let (parts, body) = Request::post(path).body(Body::from(request.to_string())).unwrap().into_parts();
        let made = world.upstream.send(Request::from_parts(parts, body), About::default()).await.unwrap();
        let made = axum::body::to_bytes(made.into_body(), usize::MAX).await.unwrap();
        let made: Value = serde_json::from_slice(&made).unwrap();
        let (forged, id) = lost(made["data"]["taskId"].as_str().unwrap());
        let details = if path.contains("jobs") { "jobs/recordInfo" } else { "runway/record-detail" };
        let details = format!("/api/v1/{details}?taskId={id}");
        world.upstream.meets([Misfortune::AnswerLost]);
        let mut request = request.clone();
        request["callBackUrl"] = "https://hooks.example.com/a".into();
        request["prompt"] = "x [[mock:callback:drop]]".into();
        acme.post(path, &request).await.expect_status(504);
        for _ in 0..2 {
            assert_eq!(call_back(&world, &relay_path(&world), HeaderMap::new(), &forged).await, 200);
        }
        tokio::time::sleep(Duration::from_mins(10)).await;
        assert_eq!(acme.get(&details).await.json()["data"], Value::Null, "{path}");
        let asked = ["runway.details", "jobs.details"].map(|details| world.upstream.count(details));
        assert!((1..=4).contains(&asked[usize::from(path.contains("jobs"))]), "{path}: {asked:?}");
        let task = world.store.by_id(&id).await.unwrap();
        assert!(task.is_none() && world.receiver.got().is_empty(), "{path}");
        assert_eq!(world.running("acme").await, 1, "{path}: it is as lost as before");
        tokio::time::sleep(Duration::from_hours(1)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_lost_create_is_found_again_by_what_its_record_shows() {
    let world = Shared::new(&unsigned());
    let acme = world.client("acme");
    world.upstream.meets([Misfortune::AnswerLost]);
    let request = json!({"model": "nano-banana-2", "input": {"prompt": "a banana"},
                         "callBackUrl": "https://hooks.example.com/a"});
    acme.post("/api/v1/jobs/createTask", &request).await.expect_status(504);
    let got = world.receiver.until(1).await;
    let id = got[0].json()["data"]["taskId"].as_str().unwrap().to_owned();
    let record = acme.get(&format!("/api/v1/jobs/recordInfo?taskId={id}")).await;
    assert_eq!((record.json()["data"]["state"].clone(), world.running("acme").await), (json!("success"), 0));
}

/// The place among the account's tasks was taken when the answer came, and kept until the task was overdue.
#[tokio::test(start_paused = true)]
async fn a_callback_before_the_answer_leaves_no_place_taken() {
    for lines in
        [unsigned(), CALLED_BACK.replace("%main", "%main\nmax_concurrent_tasks = 1\nmax_wait = \"20s\"")]
    {
        let world = Shared::new(&lines);
        let acme = world.client("acme");
        let mut early = video_to("https://hooks.example.com/a");
        early["prompt"] = "x [[mock:callback:early]]".into();
        acme.post("/api/v1/runway/generate", &early).await.expect_code(200);
        let began = Instant::now();
        acme.create().await.expect_code(200);
        assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
        assert_eq!((world.receiver.until(1).await.len(), world.running("acme").await), (1, 1));
        tokio::time::sleep(Duration::from_hours(2)).await;
        assert_eq!((world.receiver.got().len(), world.running("acme").await), (1, 0));
    }
}

/// The task of the answer was nobody's, and fewer than no tasks were under way.
#[tokio::test(start_paused = true)]
async fn a_callback_that_names_another_task_than_the_answer_takes_nothing_away() {
    let world = Shared::new(SIGNED);
    let acme = world.client("acme");
    world.upstream.takes(Duration::from_secs(1));
    let wish = video_to("https://hooks.example.com/a");
    let create = acme.post("/api/v1/runway/generate", &wish);
    let early = async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        let body = json!({"code": 200, "msg": "All generated successfully.",
                          "data": {"task_id": "imp", "video_url": "https://files.test/v.mp4"}});
        call_back(&world, &relay_path(&world), signed("imp"), &body.to_string()).await
    };
    let (answer, called) = tokio::join!(create, early);
    let id = answer.expect_code(200).task_id();
    assert_eq!(called, 200);
    assert_eq!(acme.details(&id).await.json()["data"]["taskId"], *id);
    assert_eq!(world.client("bolt").details(&id).await.json()["data"], Value::Null);
    assert_eq!(world.running("acme").await, 0);
    assert_eq!(world.metric("kiegate_tasks_running{tenant=\"acme\"}"), 0);
}

#[tokio::test(start_paused = true)]
async fn whoever_cannot_be_called_reads_what_happened() {
    let world = Shared::new(CALLED_BACK);
    let acme = world.client("acme");
    let id = acme.post("/api/v1/runway/generate", &video_to("https://hooks.example.com/a")).await.task_id();
    world.receiver.until(1).await;
    let feed = acme.get("/_events").await.expect_status(200).json();
    assert_eq!((&feed["events"][0]["taskId"], feed["events"].as_array().unwrap().len()), (&json!(id), 1));
    assert_eq!(feed["events"][0]["body"]["data"]["task_id"], *id);
    let after = feed["cursor"].as_str().unwrap();
    let rest = acme.get(&format!("/_events?after={after}")).await.json();
    assert_eq!((rest["events"].as_array().unwrap().len(), &rest["cursor"]), (0, &feed["cursor"]));
    assert_eq!(world.client("bolt").get("/_events").await.json()["events"], json!([]));
    let anew = Shared::new(CALLED_BACK);
    tokio::time::sleep(Duration::from_secs(1)).await;
    let acme_anew = anew.client("acme");
    acme_anew
        .post("/api/v1/runway/generate", &video_to("https://hooks.example.com/a"))
        .await
        .expect_code(200);
    anew.receiver.until(1).await;
    let told = acme_anew.get(&format!("/_events?after={after}")).await.json();
    assert_eq!(
        told["events"].as_array().unwrap().len(),
        1,
        "a cursor of before a gateway began anew hides nothing"
    );
    acme.get("/_events?after=x").await.expect_status(400);
    let refused = acme.send(Method::DELETE, "/_events", Body::empty()).await.expect_status(405);
    assert_eq!(refused.header("allow"), "GET, HEAD");
}

#[tokio::test(start_paused = true)]
async fn addresses_that_must_not_be_called_are_refused() {
    let lines = CALLED_BACK.replace("%bolt", "%bolt\n[tenant.callbacks]\nallow_hosts = [\"127.0.0.1\"]");
    let world = Shared::new(&lines);
    let acme = world.client("acme");
    for url in
        ["http://example.com/", "https://127.0.0.1/", "https://[::1]/", "https://localhost/x", "nonsense"]
    {
        let refused = acme.post("/api/v1/runway/generate", &video_to(url)).await.expect_status(400);
        assert_eq!(refused.header("x-kiegate-error"), "forbidden_callback", "{url}");
    }
    let mut list = video_to("");
    list["callBackUrl"] = json!(["https://hooks.example.com/a"]);
    let refused = acme.post("/api/v1/runway/generate", &list).await.expect_status(400);
    assert_eq!(refused.header("x-kiegate-error"), "forbidden_callback");
    assert_eq!((world.upstream.arrived().len(), world.running("acme").await), (0, 0));
    acme.post("/api/v1/runway/generate", &video_to("")).await.expect_code(200);
    world
        .client("bolt")
        .post("/api/v1/runway/generate", &video_to("http://127.0.0.1:9/x"))
        .await
        .expect_code(200);
}

/// A tenant in mock mode once had its simulated callbacks posted to any address in the gateway's network, and could read
/// what came of it.
#[tokio::test(start_paused = true)]
async fn simulated_callbacks_beside_paid_tenants_go_to_public_places_only() {
    let world = Shared::new(
        "mode = \"live\"\n[[upstream.key]]\n%main\n[[tenant]]\n%acme\n[[tenant]]\n%bolt\nmode = \"mock\"\n",
    );
    let bolt = world.client("bolt");
    for (url, why) in [
        ("http://127.0.0.1:9/x", "must begin with https://"),
        ("https://169.254.169.254/latest", "not public"),
        ("https://[::1]/x", "not public"),
    ] {
        bolt.post("/api/v1/runway/generate", &video_to(url)).await.expect_code(200);
        bolt.post("/_mock/clock/advance", &json!({"until": "idle"})).await;
        let told = bolt.get("/_mock/callbacks").await.text();
        assert!(told.contains(why), "{url}: {told}");
        bolt.post("/_mock/reset", &json!({})).await;
    }
}

/// A wish in a prompt was once heard where a foreign id is answered as an unknown one.
#[tokio::test(start_paused = true)]
async fn wishes_in_prompts_are_for_the_simulator_alone() {
    let world = Shared::new(CALLED_BACK);
    let (acme, bolt) = (world.client("acme"), world.client("bolt"));
    let id = acme.create().await.task_id();
    for wish in ["http:503", "reject:insufficient_credits", "fault:reset", "nonsense"] {
        let extend = json!({"taskId": id, "prompt": format!("on [[mock:{wish}]]"), "quality": "720p"});
        bolt.post("/api/v1/runway/extend", &extend).await.expect_code(200);
    }
}

/// Whatever was sent to the relay was once read whole before anybody looked whether there is such a create.
#[tokio::test(start_paused = true)]
async fn what_comes_for_nobody_is_not_read() {
    let world = Shared::new(CALLED_BACK);
    let endless = futures_util::stream::pending::<Result<Bytes, std::io::Error>>();
    let request =
        Request::post("/_relay/kc_0123456789abcdef0123456789abcdef").body(Body::from_stream(endless));
    assert_eq!(world.plane.answer(request.unwrap()).await.status(), 404);
}
