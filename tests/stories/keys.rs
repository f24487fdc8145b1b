//! Who may call, and what every answer carries.

use kiegate::config;
use kiegate::tenants;
use serde_json::json;

use crate::support::World;

fn tenant(id: &str, key: &str, expires: Option<i64>) -> config::Tenant {
    let text = format!(
        "[[tenant]]\nid = \"{id}\"\nkeys = [\"sha256:{}\"]\n",
        kiegate::clock::hex(&tenants::hash(key))
    );
    let sources = config::Sources { file: Some(("test.toml".into(), text)), ..config::Sources::default() };
    let mut tenant = sources.read().unwrap().tenants.remove(0);
    tenant.keys[0].expires = expires.map(kiegate::clock::Timestamp::from_millis);
    tenant
}

#[tokio::test(start_paused = true)]
async fn a_closed_simulator_knows_its_tenants_only() {
    let long_ago = Some(1_000);
    let world = World::build()
        .closed_but_for(vec![tenant("video", "kg_video_fake", None), tenant("old", "kg_old_fake", long_ago)])
        .start();
    world.client("kg_video_fake").get("/api/v1/chat/credit").await.expect_code(200);
    world.client("kg_video_fake").get("/_mock/tasks").await.expect_status(200);
    let mut bodies = Vec::new();
    for client in [world.client("kg_old_fake"), world.client("guess"), world.stranger()] {
        let answer = client.get("/api/v1/chat/credit").await.expect_status(401);
        assert_eq!(answer.header("x-kiegate-error"), "unauthorized");
        bodies.push(answer.raw);
        client.get("/_mock/tasks").await.expect_status(401);
    }
    assert!(bodies.windows(2).all(|pair| pair[0] == pair[1]), "unknown and expired keys answer alike");
    let page = world.metrics_page();
    assert!(page.contains(r#"tenant="video""#), "{page}");
    assert!(page.contains(r#"kiegate_refusals_total{reason="unauthorized",tenant="other"} 6"#), "{page}");
}

#[tokio::test(start_paused = true)]
async fn the_gateway_refuses_in_the_words_that_a_client_understands() {
    let world = World::build().closed_but_for(vec![tenant("video", "kg_video_fake", None)]).start();
    let guess = world.client("guess");
    for (path, pointer, expected) in [
        ("/api/v1/veo/generate", "/code", json!(401)),
        ("/api/file-url-upload", "/success", json!(false)),
        ("/gpt-5-2/v1/chat/completions", "/error/type", json!("authentication_error")),
        ("/codex/v1/responses", "/error/type", json!("authentication_error")),
        ("/claude/v1/messages", "/error/type", json!("authentication_error")),
        (
            "/gemini/v1/models/gemini-3-5-flash:streamGenerateContent",
            "/error/status",
            json!("UNAUTHENTICATED"),
        ),
    ] {
        let answer = guess.post(path, &json!({})).await.expect_status(401);
        assert_eq!(answer.header("x-kiegate-error"), "unauthorized");
        assert_eq!(answer.json().pointer(pointer), Some(&expected), "{path}: {}", answer.text());
    }
}

#[tokio::test(start_paused = true)]
async fn a_key_may_come_in_four_ways() {
    let world = World::standard();
    let id = world.client("acme").call("veo.generate", &json!({"prompt": "x"})).await.task_id();
    let path = format!("/api/v1/veo/record-info?taskId={id}");
    for client in
        [world.stranger().with("x-api-key", "acme"), world.stranger().with("x-goog-api-key", "acme")]
    {
        assert_eq!(client.get(&path).await.json()["data"]["taskId"], id.as_str());
    }
    let answer = world.stranger().get(&format!("{path}&key=acme")).await;
    assert_eq!(answer.json()["data"]["taskId"], id.as_str());
}

#[tokio::test(start_paused = true)]
async fn every_answer_has_a_request_id_and_the_mode() {
    let world = World::standard();
    let acme = world.client("acme");
    let answer = acme.with("x-request-id", "my-id-1").get("/api/v1/chat/credit").await;
    assert_eq!((answer.header("x-request-id"), answer.header("x-kiegate-mode")), ("my-id-1", "mock"));
    let too_long = "x".repeat(129);
    for id in ["", "with space", too_long.as_str()] {
        let answer = acme.with("x-request-id", id).get("/nowhere").await;
        assert_eq!(answer.header("x-request-id").len(), 24, "a new one instead of {id:?}");
    }
}

/// A bug once let any text become a label.
#[tokio::test(start_paused = true)]
async fn what_a_client_sends_does_not_grow_the_number_of_series() {
    let world = World::standard();
    let count =
        || world.metrics_page().lines().filter(|line| line.starts_with("kiegate_requests_total")).count();
    for number in 0..50 {
        let client = world.client(&format!("token-{number}"));
        client.get(&format!("/path/{number}")).await.expect_status(404);
        client
            .call("jobs.create", &json!({"model": format!("m{number}"), "input": {}}))
            .await
            .expect_code(422);
    }
    assert_eq!(count(), 2, "{}", world.metrics_page());
}
