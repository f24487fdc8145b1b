//! Callbacks as the real sender does them.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::{Client, WEBHOOK_KEY, World};

const HOOK: &str = "https://app.example.com/hook";

fn boat(url: &str) -> Value {
    json!({"prompt": "A paper boat", "duration": 5, "quality": "720p", "aspectRatio": "16:9", "callBackUrl": url})
}

async fn create(client: &Client, url: &str) -> String {
    client.call("runway.generate", &boat(url)).await.expect_code(200).task_id()
}

#[tokio::test(start_paused = true)]
async fn a_callback_comes_by_itself_signed_and_once() {
    let world = World::standard();
    let acme = world.client("acme");
    let id = create(&acme, HOOK).await;
    tokio::time::sleep(Duration::from_mins(1)).await;
    let received = world.receiver.received();
    assert_eq!(received.len(), 1);
    let callback = &received[0];
    assert_eq!(callback.url, HOOK);
    assert_eq!(callback.body["data"]["task_id"], id.as_str());
    assert_eq!(callback.headers["content-type"], "application/json");
    let seconds = callback.headers["x-webhook-timestamp"].to_str().unwrap();
    let expected = kiegate::wire::signature(WEBHOOK_KEY, &id, seconds);
    assert_eq!(callback.headers["x-webhook-signature"], expected.as_str());
    assert_eq!(kiegate::wire::signature_is_valid(WEBHOOK_KEY, &callback.headers, &callback.raw), Some(true));
}

#[tokio::test(start_paused = true)]
async fn the_record_is_final_before_its_callback_leaves() {
    let world = World::standard();
    let acme = world.client("acme");
    acme.put("/_mock/settings", &json!({"pace": "instant"})).await.expect_status(200);
    let id = create(&acme, HOOK).await;
    assert_eq!(world.receiver.received().len(), 0, "the answer to the create comes first");
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(world.receiver.received().len(), 1);
    let record = acme.call("runway.details", &json!({"taskId": id})).await.json();
    let callback = &world.receiver.received()[0].body;
    assert_eq!(record["data"]["videoInfo"]["videoUrl"], callback["data"]["video_url"]);
}

#[tokio::test(start_paused = true)]
async fn an_empty_address_counts_as_none() {
    let world = World::standard();
    let acme = world.client("acme");
    create(&acme, "").await;
    acme.until_idle().await;
    assert_eq!(world.receiver.received().len(), 0);
    assert_eq!(acme.get("/_mock/callbacks").await.json()["callbacks"], json!([]));
}

#[tokio::test(start_paused = true)]
async fn a_failed_delivery_is_tried_three_more_times_in_virtual_time() {
    let world = World::standard();
    let acme = world.client("acme");
    acme.freeze().await;
    world.receiver.answers(&[500, 302, 404]);
    world.receiver.is_down_once();
    create(&acme, HOOK).await;
    acme.until_idle().await;
    let log = acme.get("/_mock/callbacks").await.json()["callbacks"].clone();
    let attempts = log.as_array().unwrap();
    let field = |name: &str| attempts.iter().map(|attempt| attempt[name].clone()).collect::<Vec<_>>();
    assert_eq!(field("attempt"), [1, 2, 3, 4]);
    assert_eq!(field("result"), ["retried", "retried", "retried", "dead"]);
    assert_eq!(field("status"), [json!(500), json!(302), json!(404), Value::Null]);
    assert_eq!(attempts[3]["error"], "connection refused");
    let at: Vec<i64> = attempts.iter().map(|attempt| attempt["at"].as_i64().unwrap()).collect();
    assert_eq!([at[1] - at[0], at[2] - at[1], at[3] - at[2]], [5_000, 30_000, 120_000]);
    let signatures: std::collections::BTreeSet<_> = world
        .receiver
        .received()
        .iter()
        .map(|one| one.headers["x-webhook-signature"].clone().to_str().unwrap().to_owned())
        .collect();
    assert_eq!(signatures.len(), 4, "each attempt is signed afresh");
    acme.advance("10d").await;
    assert_eq!(world.receiver.received().len(), 4, "then no more");
}

#[tokio::test(start_paused = true)]
async fn a_delivery_that_succeeds_later_is_not_repeated() {
    let world = World::standard();
    let acme = world.client("acme");
    world.receiver.answers(&[503, 200]);
    create(&acme, HOOK).await;
    acme.until_idle().await;
    acme.advance("1d").await;
    assert_eq!(world.receiver.received().len(), 2);
    let page = world.metrics_page();
    assert!(
        page.contains(r#"kiegate_callbacks_total{direction="out",result="retried",tenant="other"} 1"#),
        "{page}"
    );
    assert!(page.contains(r#"kiegate_callback_pending{tenant="other"} 0"#), "{page}");
}

#[tokio::test(start_paused = true)]
async fn a_slow_receiver_delays_nobody_and_times_out_after_fifteen_seconds() {
    let world = World::standard();
    let acme = world.client("acme");
    world.receiver.is_slow("slow", Duration::from_mins(1));
    create(&acme, "https://slow.example.com/hook").await;
    create(&acme, "https://fast.example.com/hook").await;
    tokio::time::sleep(Duration::from_secs(4)).await;
    let urls: Vec<_> = world.receiver.received().into_iter().map(|callback| callback.url).collect();
    assert!(urls.contains(&"https://fast.example.com/hook".to_owned()), "{urls:?}");
    let log = acme.get("/_mock/callbacks").await.json();
    assert_eq!(log["callbacks"].as_array().unwrap().len(), 1, "the slow one is still under way: {log}");
    tokio::time::sleep(Duration::from_secs(15)).await;
    let log = acme.get("/_mock/callbacks").await.json();
    let slow = log["callbacks"]
        .as_array()
        .unwrap()
        .iter()
        .find(|one| one["url"].as_str().unwrap().contains("slow"))
        .unwrap();
    assert_eq!(slow["error"], "no answer within 15 s");
}

#[tokio::test(start_paused = true)]
async fn callbacks_go_wrong_as_asked() {
    let world = World::standard();
    let acme = world.client("acme");
    acme.freeze().await;
    create(&acme.wishing("callback:drop"), HOOK).await;
    acme.until_idle().await;
    assert_eq!(world.receiver.received().len(), 0);
    assert_eq!(acme.get("/_mock/callbacks").await.json()["callbacks"][0]["result"], "dropped");
    create(&acme.wishing("callback:duplicate"), HOOK).await;
    acme.until_idle().await;
    assert_eq!(world.receiver.received().len(), 2);
    create(&acme.wishing("callback:badsig"), HOOK).await;
    acme.until_idle().await;
    let bad = world.receiver.received().pop().unwrap();
    assert_eq!(kiegate::wire::signature_is_valid(WEBHOOK_KEY, &bad.headers, &bad.raw), Some(false));
    let id = create(&acme.wishing("callback:late:10m, fail:nsfw"), HOOK).await;
    acme.advance("9m").await;
    assert_eq!(acme.call("runway.details", &json!({"taskId": id})).await.json()["data"]["state"], "fail");
    assert_eq!(world.receiver.received().len(), 3);
    acme.advance("2m").await;
    assert_eq!(world.receiver.received().len(), 4);
}

#[tokio::test(start_paused = true)]
async fn the_inbox_receives_checks_and_answers_as_programmed() {
    let world = World::standard();
    let acme = world.client("acme");
    acme.freeze().await;
    let inbox = acme.get("/_mock/inbox").await.json()["url"].as_str().unwrap().to_owned();
    acme.put("/_mock/inbox/videos", &json!({"answers": [500, 429, 200]})).await.expect_status(200);
    create(&acme, &format!("{inbox}/videos")).await;
    acme.until_idle().await;
    assert_eq!(world.receiver.received().len(), 0, "it does not leave the process");
    let arrived = acme.get("/_mock/inbox/videos").await.json()["received"].clone();
    let arrived = arrived.as_array().unwrap();
    assert_eq!(arrived.iter().map(|one| one["answered"].clone()).collect::<Vec<_>>(), [500, 429, 200]);
    assert_eq!(arrived.iter().map(|one| one["attempt"].clone()).collect::<Vec<_>>(), [1, 2, 3]);
    assert!(arrived.iter().all(|one| one["signature_valid"] == true));
    // A stranger may post to the address, unsigned.
    let path = inbox.strip_prefix("http://kie.test").unwrap().to_owned() + "/other";
    world.stranger().post(&path, &json!({"hello": 1})).await.expect_status(200);
    let arrived = acme.get("/_mock/inbox/other").await.json()["received"].clone();
    assert_eq!((&arrived[0]["body"], &arrived[0]["signature_valid"]), (&json!({"hello": 1}), &Value::Null));
    world.stranger().post("/_mock/inbox/000000000000000000000000/x", &json!({})).await.expect_status(404);
}

#[tokio::test(start_paused = true)]
async fn an_inbox_takes_no_more_than_a_callback_can_be() {
    let world = World::build().largest_json(10 * 1024 * 1024).start();
    let acme = world.client("acme");
    let inbox = acme.get("/_mock/inbox").await.json()["url"].as_str().unwrap().to_owned();
    acme.put("/_mock/inbox/a", &json!({"answers": [200]})).await.expect_status(200);
    let path = inbox.strip_prefix("http://kie.test").unwrap().to_owned() + "/a";
    let post = async |length: usize| world.stranger().post(&path, &"x".repeat(length).into()).await;
    let most = 1024 * 1024 - 2; // and its quotation marks
    post(most).await.expect_status(200);
    let refused = post(most + 1).await.expect_status(413);
    assert_eq!(refused.header("x-kiegate-error"), "body_too_large");
}

#[tokio::test(start_paused = true)]
async fn one_can_wait_for_the_inbox() {
    let world = World::standard();
    let acme = world.client("acme");
    let inbox = acme.get("/_mock/inbox").await.json()["url"].as_str().unwrap().to_owned();
    create(&acme, &format!("{inbox}/a")).await;
    let waited = acme.get("/_mock/inbox/a?count=1&wait=10s").await.json();
    assert_eq!((waited["complete"].clone(), waited["received"].as_array().unwrap().len()), (json!(true), 1));
    let waited = acme.get("/_mock/inbox/a?count=2&wait=1").await.json();
    assert_eq!(waited["complete"], false);
    acme.get("/_mock/inbox/a?count=2&wait=-1").await.expect_status(400);
}

#[tokio::test(start_paused = true)]
async fn many_callbacks_due_at_once_all_leave() {
    let world = World::standard();
    let acme = world.client("acme");
    acme.freeze().await;
    acme.put("/_mock/credits", &json!({"credits": 1_000_000})).await.expect_status(200);
    let exactly = acme.with("x-mock-delay", "30m");
    for _ in 0..500 {
        create(&exactly, HOOK).await;
    }
    let events = acme.advance("30m").await;
    assert_eq!(events.iter().filter(|event| event["type"] == "callback").count(), 500);
    assert_eq!(world.receiver.received().len(), 500);
}

/// A bug once sent all stages that a moved clock brought due at the same moment, in no order.
#[tokio::test(start_paused = true)]
async fn the_stages_of_a_task_arrive_in_their_order_however_the_clock_moves() {
    let song = json!({
        "customMode": false, "instrumental": true, "model": "V5", "prompt": "A waltz",
        "callBackUrl": "https://app.example.com/hook",
    });
    for answers in [vec![], vec![500, 200], vec![500, 500, 200, 500]] {
        let world = World::standard();
        world.receiver.is_slow("app.example.com", Duration::from_millis(20));
        world.receiver.answers(&answers);
        let acme = world.client("acme");
        acme.freeze().await;
        acme.put("/_mock/settings", &json!({"pace": "realistic"})).await.expect_status(200);
        acme.call("suno.generate", &song).await.expect_code(200);
        acme.until_idle().await;
        let stages: Vec<String> = world
            .receiver
            .received()
            .iter()
            .map(|received| received.body["data"]["callbackType"].as_str().unwrap().to_owned())
            .collect();
        let mut in_order = stages.clone();
        in_order.sort_by_key(|stage| ["text", "first", "complete"].iter().position(|known| known == stage));
        assert_eq!(stages, in_order, "{answers:?}");
        assert_eq!(stages.len(), 3 + answers.iter().filter(|answer| **answer == 500).count());
    }
}
