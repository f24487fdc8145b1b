//! Creates: sent once, whatever happens; twins share one answer; what is lost is found again.

use futures_util::{StreamExt as _, stream};
use kiegate::store::TaskState;

use super::*;

#[tokio::test(start_paused = true)]
async fn a_create_goes_upstream_as_it_was_written_but_for_its_callback() {
    let world = Shared::new(CALLED_BACK);
    let text = "{ \"prompt\": \"A \\u0062oat\",\n \"callBackUrl\":\"https://hooks.example.com/a?b=c\",\"duration\":5 ,\
                \"quality\":\"720p\", \"aspectRatio\":\"16:9\", \"unknown\": 1.50}";
    let acme = world.client("acme");
    acme.send(http::Method::POST, "/api/v1/runway/generate", text).await.expect_code(200);
    let arrived = world.upstream.arrived().pop().unwrap();
    let body = String::from_utf8(arrived.body.to_vec()).unwrap();
    let (before, rest) = body.split_once("\"https://gateway.test/_relay/").unwrap();
    let (id, after) = rest.split_once('"').unwrap();
    assert!(id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit()), "{id}");
    assert_eq!([before, "\"https://hooks.example.com/a?b=c\"", after].concat(), text);
}

#[tokio::test(start_paused = true)]
async fn where_upstream_cannot_call_the_address_stays_behind() {
    let world = Shared::new(NOT_CALLED_BACK);
    let acme = world.client("acme");
    acme.post("/api/v1/runway/generate", &video_to("https://hooks.example.com/a")).await.expect_code(200);
    let sent: Value = serde_json::from_slice(&world.upstream.arrived()[0].body).unwrap();
    assert_eq!(sent, video());
    let song = json!({"prompt": "rain", "customMode": false, "instrumental": false, "model": "V5",
                      "callBackUrl": "https://hooks.example.com/a"});
    acme.post("/api/v1/generate", &song).await.expect_code(200);
    let sent: Value = serde_json::from_slice(&world.upstream.arrived()[1].body).unwrap();
    assert_eq!(sent["callBackUrl"], "https://callback.invalid/", "it must be there");
}

#[tokio::test(start_paused = true)]
async fn what_did_not_arrive_is_sent_again_and_what_may_have_is_not() {
    let world = Shared::new(CALLED_BACK);
    let acme = world.client("acme");
    world.upstream.meets([Misfortune::Unreachable, Misfortune::Unreachable]);
    acme.create().await.expect_code(200);
    assert_eq!(world.upstream.count("runway.generate"), 1);
    world.upstream.meets([Misfortune::Broken]);
    let lost = acme.create().await.expect_status(504);
    assert_eq!(lost.header("x-kiegate-error"), "upstream_timeout");
    assert_eq!(lost.header("x-kiegate-create").len(), 32);
    assert_eq!(world.upstream.count("runway.generate"), 2, "it was not sent again");
    world.upstream.meets([Misfortune::Unreachable, Misfortune::Unreachable, Misfortune::Unreachable]);
    let refused = acme.create().await.expect_status(502);
    assert_eq!(refused.header("x-kiegate-error"), "upstream_unreachable");
    assert_eq!(world.running("acme").await, 2, "what was never sent counts for nothing");
}

#[tokio::test(start_paused = true)]
async fn what_upstream_has_not_looked_at_is_sent_again() {
    let world = Shared::new(CALLED_BACK);
    let acme = world.client("acme");
    world.upstream.meets([Misfortune::Untaken, Misfortune::Untaken]);
    acme.create().await.expect_code(200);
    assert_eq!((world.running("acme").await, world.spent("acme").await), (1, 12));
    world.upstream.meets([Misfortune::Untaken, Misfortune::Untaken, Misfortune::Untaken]);
    let refused = acme.create().await.expect_status(502);
    assert_eq!(refused.header("x-kiegate-error"), "upstream_unreachable");
    assert_eq!((world.running("acme").await, world.spent("acme").await), (1, 12), "it was not made");
    // What nobody knows is sent again only so.
    let unknown = acme.with("content-length", "7");
    let unknown = async || unknown.post("/api/v9/new-thing", &json!({"a": 1})).await.status;
    world.upstream.meets([Misfortune::Untaken, Misfortune::Answers(200, json!({}))]);
    assert_eq!(unknown().await, 200);
    world.upstream.meets([Misfortune::Broken]);
    assert_eq!(unknown().await, 502);
    // What changes nothing by its method is sent again where a connection had been kept for too long, too.
    let unknown = async || acme.get("/api/v9/new-thing").await.status;
    world.upstream.meets([Misfortune::Stale, Misfortune::Answers(200, json!({}))]);
    assert_eq!(unknown().await, 200);
    world.upstream.meets([Misfortune::Stale, Misfortune::Stale]);
    assert_eq!(unknown().await, 502);
    for (misfortune, status) in [(Misfortune::Broken, 502), (Misfortune::Answers(503, json!({})), 503)] {
        world.upstream.meets([misfortune]);
        assert_eq!(unknown().await, status);
    }
    world.upstream.meets([Misfortune::Stale]);
    acme.create().await.expect_status(504); // it may have been made
}

#[tokio::test(start_paused = true)]
async fn a_request_whose_client_leaves_is_counted_as_well() {
    let world = Shared::new(CALLED_BACK);
    let acme = world.client("acme");
    world.upstream.takes(Duration::from_secs(5));
    assert!(tokio::time::timeout(Duration::from_secs(1), acme.create()).await.is_err());
    let gone = "kiegate_requests_total{code=\"none\",mode=\"live\",operation=\"runway.generate\",status=\"499\",tenant=\"acme\"}";
    assert_eq!(world.metric(gone), 1);
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!((world.metric(gone), world.running("acme").await), (1, 1), "the create goes on");
}

#[tokio::test(start_paused = true)]
async fn a_lost_create_is_found_again_by_its_callback() {
    let world = Shared::new(CALLED_BACK);
    let acme = world.client("acme").with("idempotency-key", "order-1");
    world.upstream.meets([Misfortune::AnswerLost]);
    let lost = acme.post("/api/v1/runway/generate", &video_to("https://hooks.example.com/a")).await;
    let create = kiegate::store::CreateId::parse(lost.expect_status(504).header("x-kiegate-create")).unwrap();
    let task = world.store.by_create(create).await.unwrap().unwrap();
    assert_eq!((task.state, world.spent("acme").await), (TaskState::Indeterminate, 12));
    let running = "kiegate_tasks_running{tenant=\"acme\"}";
    let reserved = "kiegate_credits_total{kind=\"reserved\",model=\"runway\",tenant=\"acme\"}";
    assert_eq!((world.metric(running), world.metric(reserved)), (1, 12), "as far as anybody knows");
    let got = world.receiver.until(1).await;
    let id = got[0].json()["data"]["task_id"].as_str().unwrap().to_owned();
    let task = world.store.by_create(create).await.unwrap().unwrap();
    assert_eq!(task.id.as_deref(), Some(&*id));
    assert!(matches!(task.state, TaskState::Ended { success: true, .. }));
    assert_eq!((world.running("acme").await, world.spent("acme").await), (0, 12));
    assert_eq!((world.metric(running), world.metric(reserved)), (0, 12));
    assert_eq!(acme.details(&id).await.json()["data"]["state"], "success");
    let again =
        acme.post("/api/v1/runway/generate", &video_to("https://hooks.example.com/a")).await.expect_code(200);
    assert_eq!(again.task_id(), id, "whoever asks again hears what was lost");
    assert_eq!((again.header("idempotency-replayed"), world.upstream.count("runway.generate")), ("true", 1));
}

/// So many bodies that never end took a gigabyte and a half.
#[tokio::test(start_paused = true)]
async fn bodies_that_arrive_take_room_and_leave_half_of_it_to_others() {
    let world = Arc::new(Shared::new(CALLED_BACK));
    let nine = Bytes::from(vec![b' '; 9 << 20]);
    let arriving = |tenant: &'static str| {
        let (world, nine) = (Arc::clone(&world), nine.clone());
        kiegate::background::spawn(async move {
            let begun = stream::iter([Ok::<_, std::io::Error>(nine)]).chain(stream::pending());
            let body = Body::from_stream(begun);
            world.client(tenant).send(http::Method::POST, "/api/v1/jobs/createTask", body).await
        })
    };
    let under_way: Vec<_> = (0..14).map(|_| arriving("acme")).collect();
    let refused = arriving("acme").await.unwrap().expect_status(503);
    assert_eq!((refused.header("x-kiegate-error"), refused.header("retry-after")), ("overloaded", "1"));
    let of_bolt = arriving("bolt");
    world.client("acme").create().await.expect_code(200); // which is small
    assert!(under_way.iter().chain([&of_bolt]).all(|call| !call.is_finished()));
    for call in under_way {
        call.abort();
        assert!(call.await.unwrap_err().is_cancelled());
    }
    let again = arriving("acme");
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(!again.is_finished());
}

/// A create of a model that no file tells of, and its task as upstream names it.
fn of_new_model() -> (Value, Value) {
    let request = json!({"model": "acme/new-9", "input": {"prompt": "x"}, "callBackUrl": "https://hooks.example.com/a"});
    (request, json!({"code": 200, "msg": "success", "data": {"taskId": "task-of-new-model"}}))
}

/// What upstream tells of that task.
fn record_of_new_model(state: &str, result: &str) -> Value {
    let data = json!({"taskId": "task-of-new-model", "model": "acme/new-9", "state": state, "param": "{}",
                      "resultJson": result, "failCode": null, "failMsg": null, "costTime": 3,
                      "completeTime": 1_786_000_000_000_u64, "createTime": 1_785_999_477_000_u64});
    json!({"code": 200, "msg": "success", "data": data})
}

const RESULT: &str = "{\"resultUrls\":[\"https://files.test/new.png\"]}";

/// Such a create panicked: the client was told that its answer was lost, and the task, which was paid for, was forgotten.
#[tokio::test(start_paused = true)]
async fn tasks_of_models_that_nobody_knows_are_followed_like_others() {
    let world = Shared::new(NOT_CALLED_BACK);
    let acme = world.client("acme");
    let (request, created) = of_new_model();
    world.upstream.meets([
        Misfortune::Answers(200, created),
        Misfortune::Answers(200, record_of_new_model("generating", "")),
        Misfortune::Answers(200, record_of_new_model("success", RESULT)),
    ]);
    let id = acme.post("/api/v1/jobs/createTask", &request).await.expect_code(200).task_id();
    assert_eq!(world.running("acme").await, 1);
    let began = Instant::now();
    let got = world.receiver.until(1).await;
    assert!(began.elapsed() < Duration::from_mins(1), "{:?}", began.elapsed());
    assert_eq!((&got[0].json()["code"], &got[0].json()["data"]["taskId"]), (&json!(200), &json!(id)));
    assert_eq!(got[0].json()["data"]["resultJson"], RESULT);
    assert_eq!((world.running("acme").await, world.upstream.count("jobs.details")), (0, 2));
    let details = acme.get(&format!("/api/v1/jobs/recordInfo?taskId={id}")).await;
    assert_eq!((details.header("x-cache"), &details.json()["data"]["resultJson"]), ("hit", &json!(RESULT)));
}

#[tokio::test(start_paused = true)]
async fn callbacks_of_models_that_nobody_knows_are_passed_on() {
    let world = Shared::new(CALLED_BACK);
    let acme = world.client("acme");
    let (request, created) = of_new_model();
    world.upstream.meets([Misfortune::Answers(200, created)]);
    let id = acme.post("/api/v1/jobs/createTask", &request).await.expect_code(200).task_id();
    let sent: Value = serde_json::from_slice(&world.upstream.arrived()[0].body).unwrap();
    let path = sent["callBackUrl"].as_str().unwrap().strip_prefix("https://gateway.test").unwrap();
    let record = record_of_new_model("success", RESULT);
    let mut called = Request::post(path).body(Body::from(record.to_string())).unwrap();
    kiegate::wire::sign(called.headers_mut(), WEBHOOK_KEY, &id, 1_785_999_477);
    assert_eq!(world.plane.answer(called).await.status(), 200);
    let got = world.receiver.until(1).await;
    assert_eq!((got[0].json(), world.running("acme").await), (record, 0));
}

/// The answer to such a create is its result: there is no task, and it cannot be known that there is none.
#[tokio::test(start_paused = true)]
async fn a_result_of_a_model_that_nobody_knows_passes() {
    let world = Shared::new(CALLED_BACK);
    let answer = json!({"code": 200, "msg": "success", "data": {"words": ["la"]}});
    let refusal = json!({"code": 500_001, "msg": "of another kind", "data": null});
    for answer in [answer, refusal] {
        world.upstream.meets([Misfortune::Answers(200, answer.clone())]);
        let told = world.client("acme").post("/api/v1/jobs/createTask", &of_new_model().0).await;
        assert_eq!((told.expect_status(200).json(), world.running("acme").await), (answer, 0));
    }
    let finished =
        "kiegate_tasks_finished_total{operation=\"jobs.create\",outcome=\"success\",tenant=\"acme\"}";
    assert_eq!(world.metric(finished), 1, "the refusal is none");
}

/// A create that broke within the gateway was given back as if it had not been sent, and its key with it.
#[tokio::test(start_paused = true)]
async fn what_breaks_on_the_way_may_have_been_created() {
    let world = Shared::new(CALLED_BACK);
    let acme = world.client("acme").with("idempotency-key", "order-1");
    world.upstream.meets([Misfortune::Panic]);
    let lost = acme.create().await.expect_status(504);
    let create = kiegate::store::CreateId::parse(lost.header("x-kiegate-create")).unwrap();
    tokio::time::sleep(Duration::from_millis(10)).await;
    assert_eq!(world.store.by_create(create).await.unwrap().unwrap().state, TaskState::Indeterminate);
    assert_eq!((world.running("acme").await, world.spent("acme").await), (1, 12));
    assert_eq!(acme.create().await.expect_status(504).header("x-kiegate-create"), &create.to_string());
    assert_eq!(world.upstream.count("runway.generate"), 1, "it is not sent again");
}

/// What does not come from upstream itself was taken for a refusal: the reservation was given back, and the callback of the
/// task, which was paid for, was told that nobody knows its address.
#[tokio::test(start_paused = true)]
async fn what_is_no_clear_refusal_may_have_been_created() {
    let page = |status| Misfortune::Answers(status, json!("<html>a server on the way</html>"));
    let packed = Misfortune::Garbage(vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0]);
    let large = Misfortune::Garbage(vec![b'x'; 10 * 1024 * 1024]);
    let other = Misfortune::Answers(500, json!({"oops": true}));
    let nameless = Misfortune::Answers(200, json!({"code": 200, "msg": "success", "data": null}));
    for answer in
        [page(200), page(302), page(502), page(503), page(504), page(524), packed, large, other, nameless]
    {
        let world = Shared::new(CALLED_BACK);
        let acme = world.client("acme").with("idempotency-key", "order-1");
        let shown: String = format!("{answer:?}").chars().take(80).collect();
        world.upstream.meets([answer]);
        let request = video_to("https://hooks.example.com/a");
        let lost = acme.post("/api/v1/runway/generate", &request).await.expect_status(504);
        assert_eq!(
            (lost.header("x-kiegate-error"), lost.header("x-kiegate-create").len()),
            ("upstream_timeout", 32)
        );
        assert_eq!((world.running("acme").await, world.spent("acme").await), (1, 12), "{shown}");
        acme.post("/api/v1/runway/generate", &request).await.expect_status(504);
        let sent = world.upstream.arrived();
        let sent: Value = serde_json::from_slice(&sent.last().unwrap().body).unwrap();
        assert_eq!(world.upstream.arrived().len(), 1, "{shown}");
        let path = sent["callBackUrl"].as_str().unwrap().strip_prefix("https://gateway.test").unwrap();
        let body = json!({"code": 200, "msg": "All generated successfully.", "data": {"task_id": "a-task",
            "video_id": "v", "video_url": "https://files.test/v.mp4", "image_url": "https://files.test/v.png"}});
        let mut called = Request::post(path).body(Body::from(body.to_string())).unwrap();
        kiegate::wire::sign(called.headers_mut(), WEBHOOK_KEY, "a-task", 1_785_999_477);
        assert_eq!(world.plane.answer(called).await.status(), 200, "{shown}");
        assert_eq!(
            (world.receiver.until(1).await[0].json(), world.running("acme").await),
            (body, 0),
            "{shown}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn refusals_by_upstream_pass_and_reservations_do_not_stay() {
    let world = Shared::new(CALLED_BACK);
    let acme = world.client("acme");
    world.upstream.meets([
        Misfortune::Answers(200, json!({"code": 422, "msg": "no", "data": null})),
        Misfortune::Answers(500, json!({"code": 500, "msg": "Server exception"})),
        Misfortune::Answers(413, json!("<html>too large</html>")),
    ]);
    acme.create().await.expect_refusal(422, "no");
    assert_eq!(acme.create().await.expect_status(500).json()["msg"], "Server exception");
    assert_eq!(acme.create().await.expect_status(413).json(), "<html>too large</html>");
    assert_eq!((world.running("acme").await, world.spent("acme").await), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn the_same_key_gives_the_same_answer_and_spends_once() {
    let world = Shared::new(CALLED_BACK);
    let acme = world.client("acme").with("idempotency-key", "order-1");
    let first = acme.create().await.expect_code(200);
    let again = acme.create().await.expect_code(200);
    assert_eq!((first.raw.clone(), again.header("idempotency-replayed")), (again.raw.clone(), "true"));
    assert!(first.headers.get("idempotency-replayed").is_none());
    assert_eq!(world.upstream.count("runway.generate"), 1);
    let mut other = video();
    other["duration"] = 10.into();
    let conflict = acme.post("/api/v1/runway/generate", &other).await.expect_status(409);
    assert_eq!(conflict.header("x-kiegate-error"), "idempotency_conflict");
    let bolt = world.client("bolt").with("idempotency-key", "order-1");
    assert_ne!(bolt.create().await.expect_code(200).raw, first.raw, "keys are each tenant's own");
    tokio::time::sleep(Duration::from_secs(24 * 3600 + 1)).await;
    assert_ne!(acme.create().await.expect_code(200).raw, first.raw, "after a day it is another request");
}

#[tokio::test(start_paused = true)]
async fn twins_wait_for_the_first() {
    let world = Shared::new(CALLED_BACK);
    world.upstream.takes(Duration::from_secs(2));
    let acme = world.client("acme").with("idempotency-key", "order-1");
    let (first, second, third) = tokio::join!(acme.create(), acme.create(), acme.create());
    assert_eq!([&first.raw, &second.raw], [&third.raw, &third.raw]);
    assert_eq!(world.upstream.count("runway.generate"), 1);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_goes_away_after_sending_finds_its_answer_again() {
    let world = Shared::new(CALLED_BACK);
    world.upstream.takes(Duration::from_secs(5));
    let acme = world.client("acme").with("idempotency-key", "order-1");
    let gone = tokio::time::timeout(Duration::from_secs(1), acme.create()).await;
    assert!(gone.is_err());
    let answer = acme.create().await.expect_code(200);
    assert_eq!(answer.header("idempotency-replayed"), "true");
    assert_eq!(world.upstream.count("runway.generate"), 1);
    assert_eq!(acme.details(&answer.task_id()).await.json()["code"], 200);
}

#[tokio::test(start_paused = true)]
async fn a_lost_answer_is_not_a_reason_to_pay_twice() {
    let world = Shared::new(CALLED_BACK);
    world.upstream.meets([Misfortune::AnswerLost]);
    let acme = world.client("acme").with("idempotency-key", "order-1");
    let first = acme.create().await.expect_status(504);
    let again = acme.create().await.expect_status(504);
    assert_eq!(first.header("x-kiegate-create"), again.header("x-kiegate-create"));
    assert_eq!(world.upstream.count("runway.generate"), 1);
}

/// The network before the upstream says that it could not connect to it.
#[tokio::test(start_paused = true)]
async fn a_create_that_reached_nobody_costs_nothing_and_may_be_sent_again() {
    for status in [521, 523, 525, 526] {
        let world = Shared::new(CALLED_BACK);
        let acme = world.client("acme").with("idempotency-key", "order-1");
        world.upstream.meets([Misfortune::Answers(status, json!("<html>it is down</html>"))]);
        acme.create().await.expect_status(status);
        assert_eq!((world.running("acme").await, world.spent("acme").await), (0, 0), "{status}");
        acme.create().await.expect_code(200);
    }
}

#[tokio::test(start_paused = true)]
async fn a_body_that_can_be_read_in_two_ways_is_refused() {
    let world = Shared::new(CALLED_BACK);
    let text =
        "{\"prompt\":\"x\",\"callBackUrl\":\"https://a.example/\",\"callBackUrl\":\"https://b.example/\"}";
    let answer = world.client("acme").send(http::Method::POST, "/api/v1/runway/generate", text).await;
    assert_eq!(answer.expect_status(400).header("x-kiegate-error"), "body_malformed");
    assert_eq!(world.upstream.arrived().len(), 0);
}

/// All but the first once passed for repetitions, whatever became of that one.
#[tokio::test(start_paused = true)]
async fn wishes_for_the_same_version_at_the_same_time_wait_for_the_first() {
    let lines = CALLED_BACK.replace("%acme", "%acme\n[tenant.limits]\ncredits = { day = 400 }");
    let world = Shared::new(&lines);
    let acme = world.client("acme");
    let wish = json!({"taskId": finished_video(&world).await});
    world.upstream.takes(Duration::from_secs(1));
    world.upstream.meets([Misfortune::Answers(200, json!({"code": 500, "msg": "oops", "data": null}))]);
    let all = |count| (0..count).map(|_| acme.post("/api/v1/veo/get-4k-video", &wish));
    let answers = futures_util::future::join_all(all(4)).await;
    let codes: Vec<_> = answers.iter().map(|answer| answer.json()["code"].as_u64().unwrap()).collect();
    assert_eq!(codes.iter().filter(|code| **code == 500).count(), 1, "{codes:?}");
    assert_eq!(world.spent("acme").await, 370, "one was begun, and paid for once");
    for index in [json!(0), json!("0")] {
        acme.post("/api/v1/veo/get-4k-video", &json!({"taskId": wish["taskId"], "index": index})).await;
    }
    assert_eq!(world.spent("acme").await, 370, "it is the same");
    let second = json!({"taskId": wish["taskId"], "index": 1});
    let answers = (0..8).map(|_| acme.post("/api/v1/veo/get-4k-video", &second));
    for answer in futures_util::future::join_all(answers).await {
        answer.expect_status(402);
    }
    assert_eq!(world.upstream.count("veo.get4k"), 6);
}

#[tokio::test(start_paused = true)]
async fn another_version_is_paid_for_once_and_calls_back_by_the_relay() {
    let lines = CALLED_BACK.replace("%acme", "%acme\n[tenant.limits]\ncredits = { day = 400 }");
    let world = Shared::new(&lines);
    let acme = world.client("acme");
    let id = finished_video(&world).await;
    assert_eq!(world.spent("acme").await, 250);
    let wish = json!({"taskId": id, "callBackUrl": "https://hooks.example.com/4k"});
    acme.post("/api/v1/veo/get-4k-video", &wish).await.expect_code(200);
    acme.post("/api/v1/veo/get-4k-video", &wish).await.expect_code(422);
    assert_eq!((world.spent("acme").await, world.running("acme").await), (370, 0));
    let got = world.receiver.until(1).await;
    assert_eq!(
        (&*got[0].url, &got[0].json()["data"]["taskId"]),
        ("https://hooks.example.com/4k", &json!(id))
    );
    let sent: Value = serde_json::from_slice(&world.upstream.arrived().pop().unwrap().body).unwrap();
    assert_ne!(sent["callBackUrl"], "https://hooks.example.com/4k");
    let hd = format!("/api/v1/veo/get-1080p-video?taskId={id}");
    for _ in 0..3 {
        acme.get(&hd).await.expect_status(200);
        tokio::time::sleep(Duration::from_mins(2)).await;
    }
    assert_eq!(world.spent("acme").await, 375);
    acme.post("/api/v1/veo/generate", &json!({"prompt": "x", "model": "veo3"})).await.expect_status(402);
}

/// The record of a finished video was kept for a day, though it shows the other version later.
#[tokio::test(start_paused = true)]
async fn a_finished_record_is_asked_for_anew_when_another_version_comes() {
    let world = Shared::new(CALLED_BACK);
    let acme = world.client("acme");
    let id = finished_video(&world).await;
    let look = async || acme.get(&format!("/api/v1/veo/record-info?taskId={id}")).await;
    let kept = look().await;
    assert_eq!(kept.header("x-cache"), "hit");
    let wish = json!({"taskId": id, "callBackUrl": "https://hooks.example.com/4k"});
    acme.post("/api/v1/veo/get-4k-video", &wish).await.expect_code(200);
    assert_eq!(look().await.header("x-cache"), "miss");
    world.receiver.until(1).await;
    let replaced = look().await;
    assert_eq!(replaced.header("x-cache"), "miss");
    assert_ne!(replaced.json()["data"]["response"], kept.json()["data"]["response"]);
    tokio::time::sleep(Duration::from_hours(2)).await;
    look().await;
    tokio::time::sleep(Duration::from_mins(5)).await;
    assert_eq!(look().await.header("x-cache"), "hit", "it is the last one");
}

/// Of one without a callback nobody hears when it is done.
#[tokio::test(start_paused = true)]
async fn a_record_is_not_kept_for_long_while_another_version_may_come() {
    let world = Shared::new(CALLED_BACK);
    let acme = world.client("acme");
    let id = finished_video(&world).await;
    let look = async || acme.get(&format!("/api/v1/veo/record-info?taskId={id}")).await;
    let before = look().await;
    acme.post("/api/v1/veo/get-4k-video", &json!({"taskId": id})).await.expect_code(200);
    assert_eq!(look().await.header("x-cache"), "miss");
    assert_eq!(look().await.header("x-cache"), "hit");
    tokio::time::sleep(Duration::from_mins(1)).await;
    let later = look().await;
    assert_eq!(later.header("x-cache"), "miss");
    assert_ne!(later.json()["data"]["response"], before.json()["data"]["response"]);
}

/// Where the upstream cannot call, or does not, it is asked.
#[tokio::test(start_paused = true)]
async fn a_version_of_which_nobody_tells_is_asked_for() {
    for (lines, prompt) in [(NOT_CALLED_BACK, "x"), (CALLED_BACK, "x [[mock:callback:drop]]")] {
        let world = Shared::new(lines);
        let acme = world.client("acme");
        let wish = json!({"taskId": finished_video(&world).await, "callBackUrl": "https://hooks.example.com/4k", "prompt": prompt});
        acme.post("/api/v1/veo/get-4k-video", &wish).await.expect_code(200);
        let got = world.receiver.until(1).await;
        let expected = acme.post("/api/v1/veo/get-4k-video", &json!({"taskId": wish["taskId"]})).await.json();
        let told = got[0].json();
        assert_eq!((&told["code"], &told["data"]["taskId"]), (&json!(200), &wish["taskId"]));
        assert_eq!(told["data"]["info"]["resultUrls"], expected["data"]["resultUrls"]);
        let asked = world.upstream.count("veo.get4k");
        tokio::time::sleep(Duration::from_hours(2)).await;
        assert_eq!((world.receiver.got().len(), world.upstream.count("veo.get4k")), (1, asked), "once");
        assert_eq!(world.spent("acme").await, 370);
    }
}

/// That they are settled when they begin was taken for how long they take, and they were asked for more and more often.
#[tokio::test(start_paused = true)]
async fn versions_are_asked_for_by_how_long_they_take() {
    let world = Shared::new(NOT_CALLED_BACK);
    let acme = world.client("acme");
    let mut waited = Vec::new();
    for count in 1..=10 {
        let wish =
            json!({"taskId": finished_video(&world).await, "callBackUrl": "https://hooks.example.com/4k"});
        let began = Instant::now();
        acme.post("/api/v1/veo/get-4k-video", &wish).await.expect_code(200);
        world.receiver.until(count).await;
        waited.push(began.elapsed().as_secs());
    }
    assert_eq!(waited.first(), waited.last(), "{waited:?}");
}

/// What nobody vouches for was swallowed; it is looked whether it is true.
#[tokio::test(start_paused = true)]
async fn a_callback_of_another_version_makes_the_gateway_look_where_none_are_signed() {
    let world = Shared::new(&CALLED_BACK.replace("%main", "name = \"main\"\nsecret = \"env:MAIN\""));
    let acme = world.client("acme");
    let wish = json!({"taskId": finished_video(&world).await, "callBackUrl": "https://hooks.example.com/4k"});
    acme.post("/api/v1/veo/get-4k-video", &wish).await.expect_code(200);
    let sent: Value = serde_json::from_slice(&world.upstream.arrived().pop().unwrap().body).unwrap();
    let path = sent["callBackUrl"].as_str().unwrap().strip_prefix("https://gateway.test").unwrap();
    let forged = json!({"code": 200, "data": {"taskId": wish["taskId"], "info": {"resultUrls": ["https://evil.test/"]}}});
    let called = Request::post(path).body(Body::from(forged.to_string())).unwrap();
    assert_eq!(world.plane.answer(called).await.status(), 200);
    let got = world.receiver.until(1).await;
    assert!(!got[0].json().to_string().contains("evil"), "{}", got[0].json());
    assert_eq!(
        (&*got[0].url, &got[0].json()["data"]["taskId"]),
        ("https://hooks.example.com/4k", &wish["taskId"])
    );
    tokio::time::sleep(Duration::from_mins(5)).await;
    assert_eq!(world.receiver.until(1).await.len(), 1, "once");
}

/// It kept its place among the tasks for as long as it was remembered.
#[tokio::test(start_paused = true)]
async fn a_lost_version_takes_up_room_until_it_is_found_or_for_an_hour() {
    let world = Shared::new(&CALLED_BACK.replace("%main", "name = \"main\"\nsecret = \"env:MAIN\""));
    let acme = world.client("acme");
    let wish = json!({"taskId": finished_video(&world).await, "callBackUrl": "https://hooks.example.com/4k"});
    world.upstream.meets([Misfortune::AnswerLost]);
    acme.post("/api/v1/veo/get-4k-video", &wish).await.expect_status(504);
    assert_eq!(world.running("acme").await, 1);
    let got = world.receiver.until(1).await;
    assert_eq!(got[0].json()["data"]["taskId"], wish["taskId"], "the callback comes all the same");
    tokio::time::sleep(Duration::from_mins(1)).await;
    assert_eq!((world.running("acme").await, world.spent("acme").await), (0, 370));
    let other = json!({"taskId": wish["taskId"], "index": 1, "callBackUrl": "https://hooks.example.com/4k"});
    world.upstream.meets([Misfortune::Unreachable, Misfortune::Unreachable, Misfortune::Unreachable]);
    acme.post("/api/v1/veo/get-4k-video", &other).await.expect_status(502);
    world.upstream.meets([Misfortune::Broken]);
    acme.post("/api/v1/veo/get-4k-video", &other).await.expect_status(504);
    let asked = world.upstream.count("veo.get4k");
    tokio::time::sleep(Duration::from_hours(2)).await;
    assert_eq!(
        (world.running("acme").await, world.upstream.count("veo.get4k")),
        (0, asked),
        "nobody asks for it"
    );
}

/// Nothing but its success was looked for.
#[tokio::test(start_paused = true)]
async fn a_version_that_failed_is_told_where_no_callbacks_are_signed() {
    let world = Shared::new(&CALLED_BACK.replace("%main", "name = \"main\"\nsecret = \"env:MAIN\""));
    let acme = world.client("acme");
    let wish = json!({"taskId": finished_video(&world).await, "callBackUrl": "https://hooks.example.com/4k",
                      "prompt": "x [[mock:callback:drop]]"});
    acme.post("/api/v1/veo/get-4k-video", &wish).await.expect_code(200);
    let sent: Value = serde_json::from_slice(&world.upstream.arrived().pop().unwrap().body).unwrap();
    let path = sent["callBackUrl"].as_str().unwrap().strip_prefix("https://gateway.test").unwrap().to_owned();
    let failed = json!({"code": 501, "msg": "4K failed", "data": {"taskId": wish["taskId"]}});
    let call_back = async || {
        let called = Request::post(&path).body(Body::from(failed.to_string())).unwrap();
        assert_eq!(world.plane.answer(called).await.status(), 200);
        tokio::time::sleep(Duration::from_secs(5)).await;
    };
    let under_way = json!({"code": 200, "msg": "success", "data": {"taskId": wish["taskId"], "resultUrls": null, "imageUrls": null}});
    world.upstream.meets([Misfortune::Answers(200, under_way)]);
    call_back().await;
    assert!(world.receiver.got().is_empty(), "it is being made");
    world.upstream.meets([Misfortune::Answers(200, json!({"code": 501, "msg": "4K failed", "data": null}))]);
    call_back().await;
    assert_eq!(world.receiver.until(1).await[0].json(), failed);
    let asked = world.upstream.count("veo.get4k");
    tokio::time::sleep(Duration::from_hours(1)).await;
    assert_eq!((world.receiver.got().len(), world.upstream.count("veo.get4k")), (1, asked));
}

/// A finished video of acme's, of 250 credits.
async fn finished_video(world: &Shared) -> String {
    let acme = world.client("acme");
    let id = acme.post("/api/v1/veo/generate", &json!({"prompt": "x", "model": "veo3"})).await.task_id();
    let details = format!("/api/v1/veo/record-info?taskId={id}");
    while acme.get(&details).await.json()["data"]["successFlag"] != 1 {
        tokio::time::sleep(Duration::from_secs(3)).await;
    }
    id
}

/// Whoever left before the answer, or lost it, had the version for nothing, and paid for it when asking again.
#[tokio::test(start_paused = true)]
async fn a_version_whose_answer_nobody_hears_is_paid_for_once() {
    for is_lost in [false, true] {
        let world = Shared::new(CALLED_BACK);
        let acme = world.client("acme");
        let wish =
            json!({"taskId": finished_video(&world).await, "callBackUrl": "https://hooks.example.com/4k"});
        world.upstream.takes(Duration::from_secs(5));
        let asked = acme.post("/api/v1/veo/get-4k-video", &wish);
        if is_lost {
            world.upstream.meets([Misfortune::AnswerLost]);
            assert_eq!(asked.await.expect_status(504).header("x-kiegate-create").len(), 32);
        } else {
            assert!(tokio::time::timeout(Duration::from_secs(1), asked).await.is_err());
        }
        tokio::time::sleep(Duration::from_secs(5)).await;
        assert_eq!(world.spent("acme").await, 370, "lost: {is_lost}");
        acme.post("/api/v1/veo/get-4k-video", &wish).await.expect_code(422);
        let got = world.receiver.until(1).await;
        assert_eq!(&*got[0].url, "https://hooks.example.com/4k");
        tokio::time::sleep(Duration::from_hours(2)).await;
        assert_eq!((world.spent("acme").await, world.running("acme").await), (370, 0), "lost: {is_lost}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_version_that_upstream_does_not_hear_of_costs_nothing() {
    let world = Shared::new(CALLED_BACK);
    let acme = world.client("acme");
    let wish = json!({"taskId": finished_video(&world).await});
    let no = || Misfortune::Unreachable;
    world.upstream.meets([
        no(),
        no(),
        no(),
        Misfortune::Answers(200, json!({"code": 501, "msg": "no", "data": null})),
    ]);
    acme.post("/api/v1/veo/get-4k-video", &wish).await.expect_status(502);
    tokio::time::sleep(Duration::from_millis(10)).await;
    acme.post("/api/v1/veo/get-4k-video", &wish).await.expect_refusal(501, "no");
    tokio::time::sleep(Duration::from_millis(10)).await;
    assert_eq!(world.spent("acme").await, 250);
    acme.post("/api/v1/veo/get-4k-video", &wish).await.expect_code(200);
    assert_eq!(world.spent("acme").await, 370);
}

#[tokio::test(start_paused = true)]
async fn chats_are_let_in_while_something_is_left_and_cost_what_upstream_says() {
    let lines = CALLED_BACK.replace("%acme", "%acme\n[tenant.limits]\ncredits = { day = 1 }");
    let world = Shared::new(&lines);
    let acme = world.client("acme");
    let chat = json!({"messages": [{"role": "user", "content": "x".repeat(20_000)}], "stream": true});
    let mut answered = 0;
    loop {
        let answer = acme.post("/gemini-3-pro/v1/chat/completions", &chat).await;
        if answer.status == 402 {
            assert_eq!(answer.header("x-kiegate-error"), "budget_exceeded");
            break;
        }
        answered += 1;
        assert!(answer.expect_status(200).text().contains("credits_consumed") && answered < 20);
    }
    assert_eq!(world.upstream.arrived().len(), answered);
}

#[tokio::test(start_paused = true)]
async fn idempotency_keys_work_in_open_sandboxes_each_for_its_own() {
    let world = crate::support::World::standard();
    let (one, two) = (world.client("one"), world.client("two"));
    let with_key = |client: &Client| client.with("idempotency-key", "order-1");
    let first = with_key(&one).create().await.expect_code(200);
    let again = with_key(&one).create().await.expect_code(200);
    assert_eq!((&first.raw, again.header("idempotency-replayed")), (&again.raw, "true"));
    let other = with_key(&two).create().await.expect_code(200);
    assert!(other.headers.get("idempotency-replayed").is_none());
    assert_eq!(one.get("/_mock/tasks").await.json()["tasks"].as_array().unwrap().len(), 1);
}
