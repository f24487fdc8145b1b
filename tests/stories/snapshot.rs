//! A sandbox put away and put back; and two runs that are the same to the byte.

use http::Method;
use serde_json::{Value, json};

use crate::support::{Client, World};

const START: &str = "2026-11-01T12:00:00Z";

/// All that a sandbox shows of itself, what depends on real time aside.
async fn shown(client: &Client) -> Vec<Value> {
    let mut shown = Vec::new();
    for path in ["settings", "clock", "credits", "tasks", "rules", "requests", "callbacks", "inbox/a"] {
        shown.push(client.get(&format!("/_mock/{path}")).await.expect_status(200).json());
    }
    shown
}

/// Demands that both show the same, part by part.
fn same(one: &[Value], other: &[Value]) {
    for (one, other) in one.iter().zip(other) {
        assert_eq!(one, other);
    }
}

/// A sandbox with something of everything.
async fn furnish(client: &Client) -> Value {
    client.put("/_mock/clock", &json!({"now": START, "rate": 0})).await.expect_status(200);
    client.put("/_mock/settings", &json!({"seed": 7, "http_status": "real"})).await.expect_status(200);
    let rule = json!({"match": {"prompt": "storm"}, "then": [{"outcome": "stall"}, {"outcome": "reject:429"}], "times": 3});
    client.post("/_mock/rules", &rule).await.expect_status(201);
    client.put("/_mock/inbox/a", &json!({"answers": [500, 200]})).await.expect_status(200);
    let inbox = client.get("/_mock/inbox").await.json()["url"].as_str().unwrap().to_owned();
    client.call("veo.generate", &json!({"prompt": "storm"})).await.expect_code(200);
    let hooked = json!({"prompt": "done", "callBackUrl": format!("{inbox}/a")});
    client.call("veo.generate", &hooked).await.expect_code(200);
    client.wishing("fail:timeout").call("veo.generate", &json!({"prompt": "bad"})).await.expect_code(200);
    // Ended, and called back once in vain: the second attempt is due.
    client.advance("4s").await;
    let song = json!({"prompt": "x", "customMode": false, "instrumental": true, "model": "V5", "callBackUrl": format!("{inbox}/a")});
    client.wishing("callback:duplicate").call("suno.generate", &song).await.expect_code(200);
    let upload = json!({"base64Data": "SGVsbG8=", "uploadPath": "in", "fileName": "a.txt"});
    client.post("/api/file-base64-upload", &upload).await.json()
}

#[tokio::test(start_paused = true)]
async fn a_sandbox_comes_back_as_it_was() {
    let world = World::standard();
    let acme = world.client("acme");
    let upload = furnish(&acme).await;
    let before = shown(&acme).await;
    let snapshot = acme.get("/_mock/snapshot").await.expect_status(200);
    // What comes afterwards is undone.
    acme.call("veo.generate", &json!({"prompt": "storm"})).await.expect_code(429);
    acme.until_idle().await;
    acme.send(Method::DELETE, "/_mock/rules", "").await.expect_status(200);
    assert_ne!(shown(&acme).await, before);
    acme.send(Method::PUT, "/_mock/snapshot", snapshot.text()).await.expect_status(200);
    same(&shown(&acme).await, &before);
    assert_eq!(acme.get("/_mock/snapshot").await.json(), snapshot.json());
    let path =
        upload["data"]["downloadUrl"].as_str().unwrap().strip_prefix("http://kie.test").unwrap().to_owned();
    assert_eq!(acme.get(&path).await.expect_status(200).text(), "Hello");
    // And it goes on as it would have: the same ids, callbacks and ends.
    acme.call("veo.generate", &json!({"prompt": "storm"})).await.expect_code(429);
    let went_on = acme.until_idle().await;
    acme.send(Method::PUT, "/_mock/snapshot", snapshot.text()).await.expect_status(200);
    acme.call("veo.generate", &json!({"prompt": "storm"})).await.expect_code(429);
    assert_eq!(acme.until_idle().await, went_on);
    assert!(went_on.iter().any(|event| event["type"] == "callback" && event["attempt"] == 2), "{went_on:?}");
    let page = world.metrics_page();
    assert!(page.contains("kiegate_callback_pending{tenant=\"other\"} 0"), "{page}");
    assert!(page.contains("kiegate_tasks_running{tenant=\"other\"} 1"), "one stalls: {page}");
}

#[tokio::test(start_paused = true)]
async fn a_snapshot_goes_into_another_simulator() {
    let (one, other) = (World::standard(), World::standard());
    let acme = one.client("acme");
    furnish(&acme).await;
    let snapshot = acme.get("/_mock/snapshot").await.text();
    let there = other.client("acme");
    there.send(Method::PUT, "/_mock/snapshot", snapshot).await.expect_status(200);
    same(&shown(&there).await, &shown(&acme).await);
}

#[tokio::test(start_paused = true)]
async fn what_is_no_snapshot_is_refused_and_changes_nothing() {
    let world = World::standard();
    let acme = world.client("acme");
    furnish(&acme).await;
    let good = acme.get("/_mock/snapshot").await.json();
    let check = async |change: &dyn Fn(&mut Value), told: &str| {
        let mut changed = good.clone();
        change(&mut changed);
        let refused = acme.put("/_mock/snapshot", &changed).await.expect_status(400);
        let detail = refused.json()["detail"].as_str().unwrap().to_owned();
        assert!(detail.contains(told), "{detail}");
    };
    check(&|it| it["kiegate_snapshot"] = json!(9), "form 9 is not known").await;
    check(&|it| it["extra"] = json!(1), "unknown field `extra`").await;
    check(&|it| it["tasks"][1]["operation"] = json!("veo.nothing"), "tasks.1: operation: \"veo.nothing\"")
        .await;
    check(&|it| it["tasks"][0]["outcome"] = json!("fail:no_such"), "tasks.0: outcome: no error").await;
    check(&|it| it["due"][0]["stage"] = json!(99), "due.0: there is no such callback").await;
    check(&|it| it["settings"]["pace"] = json!("slow"), "settings.pace: \"slow\" is not").await;
    check(&|it| it["rules"]["rules"][0]["rule"]["chance"] = json!(7), "rules: rules.0.chance").await;
    // A task without a model, of an operation that has its states from models, ended the connection.
    check(&|it| it["tasks"][0]["operation"] = json!("jobs.create"), "model: ").await;
    acme.send(Method::PUT, "/_mock/snapshot", "nonsense").await.expect_status(400);
    assert_eq!(acme.get("/_mock/snapshot").await.json(), good);
}

/// One run of a suite: every body and every file, in order.
async fn suite(world: &World) -> Vec<Vec<u8>> {
    let acme = world.client("acme");
    acme.put("/_mock/clock", &json!({"now": START, "rate": 0})).await.expect_status(200);
    acme.put("/_mock/settings", &json!({"failure_rate": 0.3, "pace": "realistic"})).await.expect_status(200);
    acme.put("/_mock/credits", &json!({"credits": 100_000})).await.expect_status(200);
    let mut told = Vec::new();
    for round in 0..6 {
        for (create, details, request) in [
            ("veo.generate", "veo.details", json!({"prompt": format!("round {round}")})),
            ("jobs.create", "jobs.details", json!({"model": "nano-banana-2", "input": {"prompt": "a cat"}})),
            (
                "runway.generate",
                "runway.details",
                json!({"prompt": "a hill", "duration": 5, "quality": "720p", "aspectRatio": "16:9"}),
            ),
        ] {
            let answer = acme.call(create, &request).await;
            let id = answer.json()["data"]["taskId"].as_str().unwrap_or_default().to_owned();
            told.push(answer.raw.to_vec());
            acme.advance("40s").await;
            told.push(acme.call(details, &json!({"taskId": id})).await.raw.to_vec());
            tokio::task::yield_now().await;
        }
        let chat = json!({"messages": [{"role": "user", "content": "hello"}], "stream": round % 2 == 0});
        told.push(acme.post("/gpt-5-2/v1/chat/completions", &chat).await.raw.to_vec());
    }
    let events = acme.until_idle().await;
    told.push(json!(events).to_string().into_bytes());
    let tasks = acme.get("/_mock/tasks").await;
    for task in tasks.json()["tasks"].as_array().unwrap() {
        for url in task["results"].as_array().unwrap() {
            let path = url.as_str().unwrap().strip_prefix("http://kie.test").unwrap();
            told.push(acme.get(path).await.expect_status(200).raw.to_vec());
        }
    }
    told.push(tasks.raw.to_vec());
    told
}

#[tokio::test(start_paused = true)]
async fn the_same_requests_and_seed_give_the_same_bytes_whatever_others_do() {
    let quiet = suite(&World::standard()).await;
    let world = World::standard();
    let noise = async {
        for round in 0.. {
            let other = world.client(&format!("other-{}", round % 20));
            other.call("veo.generate", &json!({"prompt": format!("noise {round}")})).await;
            other.post("/_mock/clock/advance", &json!({"by": "1s"})).await.expect_status(200);
            tokio::time::sleep(std::time::Duration::from_millis(1)).await;
        }
    };
    let crowded = tokio::select! {
        told = suite(&world) => told,
        () = noise => unreachable!("it goes on for ever"),
    };
    assert_eq!(quiet.len(), crowded.len());
    for (at, (one, other)) in quiet.iter().zip(&crowded).enumerate() {
        assert!(
            one == other,
            "answer {at}: {} and {}",
            String::from_utf8_lossy(one),
            String::from_utf8_lossy(other)
        );
    }
    assert!(quiet.iter().map(Vec::len).sum::<usize>() > 100_000, "files are among them");
}
