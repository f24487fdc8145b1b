//! Tasks over time: states, credits, sandboxes, determinism, pace.

use serde_json::{Value, json};

use crate::support::World;

fn boat() -> Value {
    json!({"prompt": "A paper boat", "duration": 5, "quality": "720p", "aspectRatio": "9:16"})
}

async fn state(client: &crate::support::Client, id: &str) -> Value {
    client.call("runway.details", &json!({"taskId": id})).await.json()["data"]["state"].clone()
}

#[tokio::test(start_paused = true)]
async fn a_task_moves_through_its_states_by_itself() {
    let world = World::standard();
    let acme = world.client("acme");
    let id = acme.call("runway.generate", &boat()).await.expect_code(200).task_id();
    let mut seen = vec![];
    for _ in 0..40 {
        let now = state(&acme, &id).await;
        if seen.last() != Some(&now) {
            seen.push(now);
        }
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    assert_eq!(seen, ["wait", "queueing", "generating", "success"]);
}

#[tokio::test(start_paused = true)]
async fn instant_pace_is_done_at_once_and_realistic_pace_takes_its_time() {
    let world = World::standard();
    let acme = world.client("acme");
    acme.put("/_mock/settings", &json!({"pace": "instant"})).await.expect_status(200);
    let id = acme.call("runway.generate", &boat()).await.task_id();
    assert_eq!(state(&acme, &id).await, "success");
    acme.put("/_mock/settings", &json!({"pace": "realistic"})).await.expect_status(200);
    let id = acme.call("runway.generate", &boat()).await.task_id();
    acme.advance("36s").await;
    assert_eq!(state(&acme, &id).await, "generating");
    acme.advance("3m").await;
    assert_eq!(state(&acme, &id).await, "success");
}

#[tokio::test(start_paused = true)]
async fn a_delay_is_kept_to_the_millisecond() {
    let world = World::standard();
    let acme = world.client("acme");
    acme.freeze().await;
    let slow = acme.with("x-mock-delay", "90s").wishing("fail:nsfw");
    let id = slow.call("runway.generate", &boat()).await.task_id();
    acme.advance("89999ms").await;
    assert_eq!(state(&acme, &id).await, "generating");
    acme.advance("1ms").await;
    assert_eq!(state(&acme, &id).await, "fail");
}

#[tokio::test(start_paused = true)]
async fn two_keys_never_see_each_other() {
    let world = World::standard();
    let (acme, zeta) = (world.client("acme"), world.client("zeta"));
    let id = acme.call("runway.generate", &boat()).await.task_id();
    assert_ne!(id, zeta.call("runway.generate", &boat()).await.task_id());
    let unknown = zeta.call("runway.details", &json!({"taskId": "0000"})).await;
    let foreign = zeta.call("runway.details", &json!({"taskId": id})).await;
    assert_eq!(foreign.raw, unknown.raw);
    zeta.get(&format!("/_mock/tasks/{id}")).await.expect_status(404);
    assert_eq!(acme.get("/_mock/tasks").await.json()["total"], 1);
}

#[tokio::test(start_paused = true)]
async fn a_family_does_not_know_the_tasks_of_another() {
    let world = World::standard();
    let acme = world.client("acme");
    let id = acme.call("runway.generate", &boat()).await.task_id();
    acme.call("jobs.details", &json!({"taskId": id})).await.expect_refusal(422, "recordInfo is null");
    let aleph = acme.call("aleph.details", &json!({"taskId": id})).await.json();
    assert_eq!(aleph, json!({"code": 200, "msg": "success", "data": null}));
}

#[tokio::test(start_paused = true)]
async fn a_create_costs_its_price_and_a_failure_gives_it_back() {
    let world = World::standard();
    let acme = world.client("acme");
    acme.put("/_mock/credits", &json!({"credits": 50.5})).await.expect_status(200);
    acme.wishing("fail:nsfw").call("runway.generate", &boat()).await.expect_code(200);
    assert_eq!(acme.call("common.credit", &json!({})).await.json()["data"], 38.5);
    acme.until_idle().await;
    assert!((acme.credits().await - 50.5).abs() < 1e-9);
    let mut long = boat();
    long["duration"] = json!("10");
    acme.call("runway.generate", &long).await.expect_code(200);
    acme.until_idle().await;
    assert!((acme.credits().await - 20.5).abs() < 1e-9);
    acme.call("runway.generate", &long).await.expect_refusal(
        402,
        "Credits insufficient : Your current balance isn't enough to run this request. Please top up to continue.",
    );
    assert_eq!(acme.get("/_mock/tasks").await.json()["total"], 2, "a refused create makes no task");
}

#[tokio::test(start_paused = true)]
async fn prices_follow_model_and_options() {
    let world = World::standard();
    let acme = world.client("acme");
    for (operation, request, price) in [
        ("veo.generate", json!({"prompt": "x"}), 60.0),
        ("veo.generate", json!({"prompt": "x", "model": "veo3", "resolution": "4k"}), 370.0),
        ("aleph.generate", json!({"prompt": "x", "videoUrl": "https://example.com/v.mp4"}), 110.0),
        ("gpt4o-image.generate", json!({"prompt": "x", "size": "1:1", "nVariants": 4}), 8.0),
        (
            "jobs.create",
            json!({"model": "bytedance/seedream-v4-text-to-image", "input": {"prompt": "x", "max_images": 3}}),
            15.0,
        ),
        (
            "jobs.create",
            json!({"model": "nano-banana-2", "input": {"prompt": "x", "resolution": "4K"}}),
            12.0,
        ),
        ("jobs.create", json!({"model": "nano-banana-2", "input": {"prompt": "x"}}), 5.0),
        (
            "jobs.create",
            json!({"model": "seedream/5-pro-image-to-image", "input": {"prompt": "a boat", "image_urls": ["https://a.example/1.png", "https://a.example/2.png"], "aspect_ratio": "1:1", "quality": "high"}}),
            14.5,
        ),
        (
            "jobs.create",
            json!({"model": "kling-2.6/text-to-video", "input": {"prompt": "x", "sound": true, "aspect_ratio": "1:1", "duration": "10"}}),
            220.0,
        ),
    ] {
        let before = acme.credits().await;
        acme.call(operation, &request).await.expect_code(200);
        let paid = before - acme.credits().await;
        assert!((paid - price).abs() < 1e-9, "{operation} {request}: {paid}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_same_seed_and_requests_give_the_same_bytes() {
    let run = async |noise: bool| {
        let world = World::standard();
        let (acme, other) = (world.client("acme"), world.client("other"));
        acme.put("/_mock/clock", &json!({"now": 1_800_000_000_000_i64, "rate": 0})).await.expect_status(200);
        if noise {
            other.call("runway.generate", &boat()).await;
        }
        let mut bytes = Vec::new();
        let mut hooked = boat();
        hooked["callBackUrl"] = json!(if noise { "http://127.0.0.1:1/x" } else { "http://127.0.0.1:2/y" });
        for request in [boat(), boat(), hooked] {
            let created = acme.call("runway.generate", &request).await;
            bytes.extend_from_slice(&created.raw);
            if noise {
                other.call("runway.generate", &request).await;
            }
            acme.until_idle().await;
            let record = acme.call("runway.details", &json!({"taskId": created.task_id()})).await;
            bytes.extend_from_slice(&record.raw);
            let url = record.json()["data"]["videoInfo"]["videoUrl"].as_str().unwrap().to_owned();
            bytes.extend_from_slice(
                &acme.get(url.strip_prefix("http://kie.test").unwrap()).await.expect_status(200).raw,
            );
        }
        bytes
    };
    assert!(run(false).await == run(true).await);
}

#[tokio::test(start_paused = true)]
async fn another_seed_gives_other_tasks() {
    let world = World::standard();
    let acme = world.client("acme");
    let first = acme.call("runway.generate", &boat()).await.task_id();
    acme.post("/_mock/reset", &json!({})).await.expect_status(200);
    assert_eq!(acme.call("runway.generate", &boat()).await.task_id(), first);
    acme.post("/_mock/reset", &json!({})).await.expect_status(200);
    acme.put("/_mock/settings", &json!({"seed": 7})).await.expect_status(200);
    assert_ne!(acme.call("runway.generate", &boat()).await.task_id(), first);
}

#[tokio::test(start_paused = true)]
async fn chance_lets_the_asked_share_of_tasks_fail() {
    let world = World::standard();
    let acme = world.client("acme");
    acme.put("/_mock/settings", &json!({"pace": "instant", "failure_rate": 0.3})).await.expect_status(200);
    let mut failed = 0;
    for _ in 0..300 {
        let id = acme.call("runway.generate", &boat()).await.task_id();
        let record = acme.call("runway.details", &json!({"taskId": id})).await.json();
        if record["data"]["state"] == "fail" {
            failed += 1;
            assert!(!record["data"]["failMsg"].as_str().unwrap().is_empty());
        }
    }
    assert!((60..=120).contains(&failed), "{failed} of 300");
}

#[tokio::test(start_paused = true)]
async fn the_emulated_quota_is_twenty_creates_in_ten_seconds() {
    let world = World::standard();
    let acme = world.client("acme");
    acme.freeze().await;
    acme.put("/_mock/settings", &json!({"emulate_quota": true})).await.expect_status(200);
    for _ in 0..20 {
        acme.call("runway.generate", &boat()).await.expect_code(200);
    }
    let too_many = "Your call frequency is too high. Please try again later.";
    acme.call("veo.generate", &json!({"prompt": "x"})).await.expect_refusal(429, too_many);
    acme.advance("9999ms").await;
    acme.call("runway.generate", &boat()).await.expect_refusal(429, too_many);
    acme.advance("1ms").await;
    acme.call("runway.generate", &boat()).await.expect_code(200);
}

#[tokio::test(start_paused = true)]
async fn extensions_chain_and_grow() {
    let world = World::standard();
    let acme = world.client("acme");
    let mut id = acme.call("runway.generate", &boat()).await.task_id();
    for seconds in [10, 15] {
        acme.until_idle().await;
        let request = json!({"taskId": id, "prompt": "on", "quality": "720p"});
        id = acme.call("runway.extend", &request).await.expect_code(200).task_id();
        acme.until_idle().await;
        let record = acme.call("runway.details", &json!({"taskId": id})).await.json();
        assert_eq!(record["data"]["state"], "success", "{record}");
        let url = record["data"]["videoInfo"]["videoUrl"].as_str().unwrap().to_owned();
        let video = acme.get(url.strip_prefix("http://kie.test").unwrap()).await.expect_status(200);
        assert_eq!(crate::results::mp4_seconds(&video.raw), seconds);
    }
}

#[tokio::test(start_paused = true)]
async fn tasks_and_callbacks_are_counted() {
    let world = World::standard();
    let acme = world.client("acme");
    let mut request = boat();
    request["callBackUrl"] = json!("https://app.example.com/hook");
    acme.call("runway.generate", &request).await.expect_code(200);
    let page = world.metrics_page();
    assert!(page.contains("kiegate_tasks_running{tenant=\"other\"} 1"), "{page}");
    assert!(page.contains("kiegate_callback_pending{tenant=\"other\"} 1"), "{page}");
    acme.until_idle().await;
    let page = world.metrics_page();
    for line in [
        "kiegate_tasks_created_total{model=\"runway\",operation=\"runway.generate\",tenant=\"other\"} 1",
        "kiegate_tasks_finished_total{operation=\"runway.generate\",outcome=\"success\",tenant=\"other\"} 1",
        "kiegate_tasks_running{tenant=\"other\"} 0",
        "kiegate_callbacks_total{direction=\"out\",result=\"delivered\",tenant=\"other\"} 1",
        "kiegate_callback_pending{tenant=\"other\"} 0",
        "kiegate_requests_total{code=\"200\",mode=\"mock\",operation=\"runway.generate\",status=\"200\",tenant=\"other\"} 1",
    ] {
        assert!(page.contains(line), "{line}\n{page}");
    }
}

/// A chain of extensions once overflowed the stack of whoever looked at its end.
#[tokio::test(start_paused = true)]
async fn a_chain_of_extensions_may_be_long() {
    let world = World::standard();
    let acme = world.client("acme");
    acme.put("/_mock/settings", &json!({"pace": "instant"})).await.expect_status(200);
    acme.put("/_mock/credits", &json!({"credits": 1_000_000})).await.expect_status(200);
    let mut id = acme.call("veo.generate", &json!({"prompt": "x", "aspect_ratio": "9:16"})).await.task_id();
    for _ in 0..2000 {
        id = acme.call("veo.extend", &json!({"taskId": id, "prompt": "on"})).await.expect_code(200).task_id();
    }
    let record = acme.call("veo.details", &json!({"taskId": id})).await.json();
    assert_eq!(record["data"]["successFlag"], 1);
    let shown = acme.task(&id).await;
    assert_eq!(shown["results"].as_array().unwrap().len(), 2, "{shown}");
}

/// Two calls at once were once both answered as the first, and both charged.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upgrade_is_made_and_charged_once() {
    let world = World::standard();
    let acme = world.client("acme");
    acme.put("/_mock/settings", &json!({"pace": "instant"})).await.expect_status(200);
    acme.put("/_mock/credits", &json!({"credits": 100_000})).await.expect_status(200);
    for _ in 0..100 {
        let id = acme.call("veo.generate", &json!({"prompt": "x"})).await.task_id();
        let before = acme.credits().await;
        let calls: Vec<_> = (0..4)
            .map(|_| {
                let (acme, request) = (acme.clone(), json!({"taskId": id}));
                kiegate::background::spawn(async move {
                    acme.call("veo.get4k", &request).await.json()["code"].clone()
                })
            })
            .collect();
        let mut started = 0;
        for call in calls {
            started += u32::from(call.await.unwrap() == 200);
        }
        assert_eq!((started, before - acme.credits().await), (1, 120.0));
    }
}

#[tokio::test(start_paused = true)]
async fn an_upgrade_of_the_same_video_is_the_same_however_its_number_is_written() {
    let world = World::standard();
    let acme = world.client("acme");
    acme.put("/_mock/settings", &json!({"pace": "instant"})).await.expect_status(200);
    let id = acme.call("veo.generate", &json!({"prompt": "x"})).await.task_id();
    acme.call("veo.get1080p", &json!({"taskId": id})).await.expect_code(400);
    for index in [json!(0), json!("0"), json!("00")] {
        acme.call("veo.get1080p", &json!({"taskId": id, "index": index})).await.expect_code(200);
    }
    for index in [json!(1), json!("99")] {
        acme.call("veo.get1080p", &json!({"taskId": id, "index": index})).await.expect_code(422);
    }
}

#[tokio::test(start_paused = true)]
async fn another_seed_changes_nothing_that_exists() {
    let world = World::standard();
    let acme = world.client("acme");
    acme.freeze().await;
    let id = acme.call("runway.generate", &boat()).await.task_id();
    acme.until_idle().await;
    let before = acme.call("runway.details", &json!({"taskId": id})).await.raw;
    acme.put("/_mock/settings", &json!({"seed": 7})).await.expect_status(200);
    assert_eq!(acme.call("runway.details", &json!({"taskId": id})).await.raw, before);
}

#[tokio::test(start_paused = true)]
async fn fields_that_the_api_does_not_know_are_not_kept() {
    let world = World::standard();
    let acme = world.client("acme");
    let mut request = boat();
    request["junk"] = json!("x".repeat(10_000));
    let id = acme.call("runway.generate", &request).await.expect_code(200).task_id();
    assert_eq!(acme.task(&id).await["input"], boat());
}

#[tokio::test(start_paused = true)]
async fn a_request_that_cannot_work_is_accepted_and_fails() {
    let world = World::standard();
    let acme = world.client("acme");
    let cover = json!({
        "uploadUrl": "https://gone.invalid/song.mp3", "prompt": "p", "customMode": true, "instrumental": true,
        "model": "V5", "callBackUrl": "https://app.example.com/hook", "style": "s", "title": "t",
    });
    let veo = json!({"prompt": "一只猫在街上", "enableTranslation": false});
    for (operation, request, outcome) in [
        ("suno.upload-cover", cover, "fail:audio_failed"),
        ("veo.generate", veo.clone(), "fail:english_only"),
        ("veo.generate", json!({"prompt": "A café in the street", "enableTranslation": false}), "success"),
        ("veo.generate", json!({"prompt": "一只猫在街上"}), "success"),
    ] {
        acme.call(operation, &request).await.expect_code(200);
        let events = acme.until_idle().await;
        assert!(events.iter().any(|event| event["outcome"] == outcome), "{operation}: {events:?}");
    }
    // What a test asks for comes first.
    acme.wishing("success").call("veo.generate", &veo).await.expect_code(200);
    assert!(acme.until_idle().await.iter().any(|event| event["outcome"] == "success"));
}
