//! The control API: what a test can steer and ask.

use serde_json::{Value, json};

use crate::support::World;

#[tokio::test(start_paused = true)]
async fn the_clock_can_be_frozen_set_sped_up_and_moved() {
    let world = World::standard();
    let acme = world.client("acme");
    let set = json!({"now": "2026-12-24T18:00:00Z", "rate": 0});
    let shown = acme.put("/_mock/clock", &set).await.expect_status(200).json();
    assert_eq!(
        (shown["iso"].as_str().unwrap(), shown["rate"].as_f64()),
        ("2026-12-24T18:00:00.000Z", Some(0.0))
    );
    tokio::time::sleep(std::time::Duration::from_secs(5)).await;
    assert_eq!(acme.get("/_mock/clock").await.json()["iso"], "2026-12-24T18:00:00.000Z");
    acme.put("/_mock/clock", &json!({"rate": 60})).await.expect_status(200);
    tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    assert_eq!(acme.get("/_mock/clock").await.json()["iso"], "2026-12-24T18:01:00.000Z");
}

#[tokio::test(start_paused = true)]
async fn the_clock_does_not_go_back_under_a_task() {
    let world = World::standard();
    let acme = world.client("acme");
    acme.put("/_mock/clock", &json!({"now": 1000})).await.expect_status(200);
    acme.call("veo.generate", &json!({"prompt": "x"})).await.expect_code(200);
    let refused = acme.put("/_mock/clock", &json!({"now": 1000})).await.expect_status(200);
    assert_eq!(refused.json()["now"], 1000, "to where it is, it may go");
    acme.advance("1s").await;
    let refused = acme.put("/_mock/clock", &json!({"now": 1000})).await.expect_status(400);
    assert!(refused.text().contains("/_mock/reset"), "{}", refused.text());
}

#[tokio::test(start_paused = true)]
async fn advancing_tells_what_happened_in_its_order() {
    let world = World::standard();
    let acme = world.client("acme");
    acme.freeze().await;
    let hooked = json!({"prompt": "x", "callBackUrl": "https://app.example.com/hook"});
    let late = acme.with("x-mock-delay", "90s").call("veo.generate", &hooked).await.task_id();
    let early = acme
        .with("x-mock-delay", "30s")
        .wishing("fail:timeout")
        .call("veo.generate", &json!({"prompt": "x"}))
        .await
        .task_id();
    let events = acme.advance("80s").await;
    assert_eq!(events.len(), 1);
    assert_eq!((&events[0]["task"], &events[0]["outcome"]), (&json!(early), &json!("fail:timeout")));
    let events = acme.until_idle().await;
    let told: Vec<_> =
        events.iter().map(|event| (event["type"].as_str().unwrap(), event["task"].clone())).collect();
    assert_eq!(told, [("task", json!(late)), ("callback", json!(late))]);
    assert_eq!(events[1]["status"], 200);
}

#[tokio::test(start_paused = true)]
async fn a_reset_empties_the_sandbox_and_nothing_else() {
    let world = World::standard();
    let (acme, zeta) = (world.client("acme"), world.client("zeta"));
    for client in [&acme, &zeta] {
        let request = json!({"prompt": "x", "callBackUrl": "https://app.example.com/hook"});
        client.call("veo.generate", &request).await.expect_code(200);
    }
    acme.put("/_mock/settings", &json!({"pace": "instant"})).await;
    acme.post("/_mock/reset", &json!({})).await.expect_status(200);
    assert_eq!(acme.get("/_mock/tasks").await.json()["total"], 0);
    assert!((acme.credits().await - 10_000.0).abs() < 1e-9);
    assert_eq!(acme.get("/_mock/settings").await.json()["pace"], "fast");
    assert_eq!(zeta.get("/_mock/tasks").await.json()["total"], 1);
    tokio::time::sleep(std::time::Duration::from_mins(1)).await;
    assert_eq!(world.receiver.received().len(), 1, "only zeta's task calls back");
    let page = world.metrics_page();
    assert!(page.contains("kiegate_tasks_running{tenant=\"other\"} 0"), "{page}");
    assert!(page.contains("kiegate_callback_pending{tenant=\"other\"} 0"), "{page}");
}

#[tokio::test(start_paused = true)]
async fn the_catalogue_names_operations_models_and_outcomes() {
    let world = World::standard();
    let shown = world.client("acme").get("/_mock/catalog").await.expect_status(200).json();
    let operations = shown["operations"].as_array().unwrap();
    let veo = operations.iter().find(|operation| operation["id"] == "veo.generate").unwrap();
    assert!(
        veo["fail"]
            .as_array()
            .unwrap()
            .iter()
            .any(|error| error["id"] == "minor_upload" && error["code"] == 422)
    );
    assert!(shown["models"].as_array().unwrap().iter().any(|model| model["model"] == "nano-banana-2"));
    assert!(shown["outcomes"].as_array().unwrap().contains(&json!("stall")));
}

#[tokio::test(start_paused = true)]
async fn tasks_are_listed_page_by_page_with_their_plans() {
    let world = World::standard();
    let acme = world.client("acme");
    for _ in 0..5 {
        acme.call("veo.generate", &json!({"prompt": "x"})).await.expect_code(200);
    }
    let first = acme.get("/_mock/tasks?limit=3").await.json();
    assert_eq!((first["tasks"].as_array().unwrap().len(), &first["next_cursor"]), (3, &json!(3)));
    let rest = acme.get("/_mock/tasks?limit=3&cursor=3").await.json();
    assert_eq!((rest["tasks"].as_array().unwrap().len(), &rest["next_cursor"]), (2, &Value::Null));
    let task = &rest["tasks"][0];
    assert_eq!(
        (&task["operation"], &task["model"], &task["credits"]),
        (&json!("veo.generate"), &json!("veo3_fast"), &json!(60.0))
    );
    assert_eq!(task["plan"]["outcome"], "success");
    for (query, told) in [
        ("limit=many", r#"limit: "many" is not a whole number from 0"#),
        ("cursor=-1", r#"cursor: "-1" is not a whole number from 0"#),
        ("page=2", r#"query: unknown field "page"; there are limit, cursor, each at most once"#),
        ("limit=1&limit=2", r#"query: two values for "limit"; there are limit, cursor, each at most once"#),
    ] {
        let refused = acme.get(&format!("/_mock/tasks?{query}")).await.expect_status(400);
        assert_eq!(refused.json()["detail"], told);
    }
}

#[tokio::test(start_paused = true)]
async fn finishing_a_task_ends_it_now_and_calls_back() {
    let world = World::standard();
    let acme = world.client("acme");
    let request = json!({"prompt": "x", "callBackUrl": "https://app.example.com/hook"});
    let id = acme.call("veo.generate", &request).await.task_id();
    let finished =
        acme.post(&format!("/_mock/tasks/{id}/finish"), &json!({})).await.expect_status(200).json();
    assert_eq!(finished["ended"], true);
    tokio::time::sleep(std::time::Duration::from_mins(1)).await;
    assert_eq!(world.receiver.received().len(), 1);
    let page = world.metrics_page();
    assert!(
        page.contains("kiegate_callback_pending{tenant=\"other\"} 0"),
        "planned twice, withdrawn once: {page}"
    );
    let again = acme.post(&format!("/_mock/tasks/{id}/finish"), &json!({"outcome": "fail:timeout"})).await;
    assert_eq!(again.json()["plan"]["outcome"], "success", "what has ended stays as it is");
}

#[tokio::test(start_paused = true)]
async fn what_is_not_understood_is_refused_with_a_hint() {
    let world = World::standard();
    let acme = world.client("acme");
    for (path, body, hint) in [
        ("/_mock/settings", json!({"paec": "instant"}), "unknown field \\\"paec\\\""),
        ("/_mock/settings", json!({"pace": "quick"}), "instant"),
        ("/_mock/clock", json!({"rate": -1}), "rate"),
        ("/_mock/clock", json!({"now": "tomorrow"}), "2026-11-01T12:00:00Z"),
        ("/_mock/clock", json!({"speed": 1}), "unknown field"),
        ("/_mock/credits", json!({"credits": "many"}), "is not a number"),
        ("/_mock/inbox/a", json!({"answers": []}), "answers"),
        ("/_mock/inbox/a", json!({"delay": "1y"}), "delay"),
    ] {
        let answer = acme.put(path, &body).await.expect_status(400);
        assert_eq!(answer.header("content-type"), "application/problem+json");
        assert!(answer.text().contains(hint), "{path}: {}", answer.text());
    }
    acme.post("/_mock/clock/advance", &json!({"by": "1"})).await.expect_status(400);
    acme.post("/_mock/clock/advance", &json!({"by": "1s", "until": "idle"})).await.expect_status(400);
    acme.get("/_mock/nothing").await.expect_status(404);
    acme.get("/_mock/reset").await.expect_status(405);
    world.stranger().get("/_mock/tasks").await.expect_status(401);
}

/// Attempts under way, retries and stalled tasks of the old world once reached into the new one.
#[tokio::test(start_paused = true)]
async fn nothing_of_the_old_world_is_heard_of_after_a_reset() {
    let world = World::standard();
    let acme = world.client("acme");
    world.receiver.is_slow("slow", std::time::Duration::from_secs(2));
    world.receiver.answers(&[500]);
    let request = json!({"prompt": "x", "callBackUrl": "https://slow.example.com/hook"});
    let id = acme.call("veo.generate", &request).await.task_id();
    acme.wishing("stall").call("veo.generate", &json!({"prompt": "y"})).await.expect_code(200);
    tokio::time::sleep(std::time::Duration::from_secs(4)).await;
    assert_eq!(world.receiver.received().len(), 1, "the attempt is under way");
    acme.post("/_mock/reset", &json!({})).await.expect_status(200);
    assert_eq!(
        acme.wishing("stall").call("veo.generate", &request).await.task_id(),
        id,
        "the same request, the same id"
    );
    tokio::time::sleep(std::time::Duration::from_mins(10)).await;
    assert_eq!(world.receiver.received().len(), 1, "no retry");
    assert_eq!(acme.get("/_mock/callbacks").await.json()["callbacks"], json!([]));
    let page = world.metrics_page();
    assert!(page.contains("kiegate_tasks_running{tenant=\"other\"} 1"), "{page}");
    assert!(page.contains("kiegate_callback_pending{tenant=\"other\"} 0"), "{page}");
}

#[tokio::test(start_paused = true)]
async fn advancing_does_not_wait_for_what_was_due_later() {
    let world = World::standard();
    let acme = world.client("acme");
    world.receiver.is_slow("slow", std::time::Duration::from_secs(10));
    let hooked = |url: &str| json!({"prompt": url, "callBackUrl": url});
    acme.with("x-mock-delay", "1s")
        .call("veo.generate", &hooked("https://fast.example.com"))
        .await
        .expect_code(200);
    acme.with("x-mock-delay", "2s")
        .call("veo.generate", &hooked("https://slow.example.com"))
        .await
        .expect_code(200);
    acme.freeze().await;
    let events = acme.advance("1500ms").await;
    assert_eq!(events.iter().filter(|event| event["type"] == "callback").count(), 1, "{events:?}");
    acme.put("/_mock/clock", &json!({"rate": 1})).await.expect_status(200);
    tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    assert_eq!(world.receiver.received().len(), 2, "the slow one is under way");
    acme.freeze().await;
    let began = tokio::time::Instant::now();
    acme.advance("1ms").await;
    assert!(began.elapsed() > std::time::Duration::from_secs(8), "it was due, and is waited for");
}

#[tokio::test(start_paused = true)]
async fn the_price_of_a_create_can_be_asked_for() {
    let world = World::standard();
    let acme = world.client("acme");
    let ask =
        async |path: &str, body: Value| acme.post("/_mock/price", &json!({"path": path, "body": body})).await;
    let priced = ask("/api/v1/veo/generate", json!({"prompt": "x", "resolution": "4k"}))
        .await
        .expect_status(200)
        .json();
    assert_eq!(priced, json!({"operation": "veo.generate", "model": "veo3_fast", "credits": 180.0}));
    let market = json!({"model": "nano-banana-2", "input": {"prompt": "x", "resolution": "4K"}});
    assert_eq!(ask("/api/v1/jobs/createTask", market).await.json()["credits"], 12.0);
    let unknown = json!({"model": "bytedance/seedream", "input": {"prompt": "x"}});
    let priced = ask("/api/v1/jobs/createTask", unknown).await.json();
    assert_eq!((&priced["model"], &priced["credits"]), (&json!("bytedance/seedream"), &Value::Null));
    let refused = ask("/api/v1/veo/generate", json!({"prompt": "x", "model": "veo9"})).await.json();
    assert_eq!(refused["refused"], json!({"code": 422, "msg": "Invalid model", "data": null}));
    ask("/api/v1/veo/record-info", json!({})).await.expect_status(400);
    acme.post("/_mock/price", &json!({"body": {}})).await.expect_status(400);
    assert_eq!(acme.get("/_mock/tasks").await.json()["total"], 0, "asking makes no task");
    assert!((acme.credits().await - 10_000.0).abs() < 1e-9);
}
