//! A simulator that was recorded does the same again: `kiegate verify` has beside every call what decided its answer.

use std::path::Path;
use std::time::Duration;

use axum::body::Body;
use http::{Method, Request};
use kiegate::record::Recording;
use kiegate::sim::{HttpStatus, Pace, Settings};
use kiegate::verify::{Report, Totals, verify};
use serde_json::{Value, json};

use crate::support::{CATALOGUE, Part, WEBHOOK_KEY, World};

const HOOK: &str = "https://hooks.example.com/done";

/// A world that is recorded with what steers it.
fn recorded(path: &Path) -> World {
    World::build().recorded_as_it_is(path.to_owned()).start()
}

/// What comes of a recording once it is played.
async fn played(path: &Path) -> Report {
    let recording = Recording::read(&CATALOGUE, path).unwrap_or_else(|error| panic!("{error}"));
    verify(&CATALOGUE, "run.har".into(), &recording).await.unwrap_or_else(|error| panic!("{error}"))
}

fn entries(path: &Path) -> Value {
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

fn video(prompt: &str) -> Value {
    json!({"prompt": prompt, "callBackUrl": HOOK})
}

/// What no recording shows by itself: wishes, rules, settings, a balance, a clock, a snapshot, other people's sandboxes.
async fn steered(world: &World) {
    let (acme, bolt) = (world.client("acme-of-stories"), world.client("bolt-of-stories"));
    let id = acme.call("veo.generate", &video("while time runs")).await.task_id();
    acme.freeze().await;
    acme.call("veo.details", &json!({"taskId": id})).await;
    bolt.call("veo.details", &json!({"taskId": id})).await;
    acme.wishing("reject:maintenance").call("suno.generate", &json!({})).await;
    acme.wishing("http:503").call("common.credit", &json!({})).await;
    acme.wishing("no such outcome").call("common.credit", &json!({})).await;
    acme.put("/_mock/settings", &json!({"http_status": "real", "seed": 7})).await.expect_status(200);
    let rule = json!({
        "match": {"prompt": "storm", "header": {"x-team": "blue"}},
        "then": [{"outcome": "fail:content_policy"}, {"response": {"status": 418, "body": {"tea": true}}}],
    });
    acme.post("/_mock/rules", &rule).await.expect_status(201);
    let blue = acme.with("x-team", "blue");
    let stormy = blue.call("veo.generate", &video("storm")).await.task_id();
    blue.call("veo.generate", &video("storm")).await.expect_status(418);
    acme.call("veo.get1080p", &json!({"taskId": stormy})).await;
    let kept = acme.get("/_mock/snapshot").await.text();
    world.receiver.answers(&[500]);
    acme.until_idle().await;
    acme.call("veo.details", &json!({"taskId": stormy})).await.expect_status(200);
    acme.send(Method::PUT, "/_mock/snapshot", kept).await.expect_status(200);
    acme.call("veo.details", &json!({"taskId": stormy})).await.expect_status(200);
    acme.put("/_mock/credits", &json!({"credits": 1})).await.expect_status(200);
    acme.call("veo.generate", &video("too dear")).await.expect_status(402);
    acme.post("/_mock/reset", &json!({})).await.expect_status(200);
    acme.call("veo.details", &json!({"taskId": stormy})).await;
    // No text: a form that has a file in it.
    let picture = [0x89, b'P', b'N', b'G', 0xff, 0xfe, 0];
    let form = [Part::File("file", "a.png", Some("image/png"), &picture), Part::Field("uploadPath", "in")];
    let path = "/api/file-stream-upload";
    let there = acme.send_form(path, &form).await.expect_status(200).json()["data"]["downloadUrl"].clone();
    let copy = json!({"fileUrl": there, "uploadPath": "copies"});
    acme.post("/api/file-url-upload", &copy).await.expect_code(200);
    acme.get("/no/such/path").await.expect_status(404);
    world.stranger().call("common.credit", &json!({})).await;
    // The clock runs, and what is due comes by itself.
    bolt.call("veo.generate", &video("by itself")).await.expect_code(200);
    tokio::time::sleep(Duration::from_mins(1)).await;
    bolt.call("common.credit", &json!({})).await.expect_code(200);
}

#[tokio::test(start_paused = true)]
async fn what_a_simulator_did_it_does_again() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run.har");
    let world = recorded(&path);
    steered(&world).await;
    let told = world.receiver.received().len();
    drop(world);
    let report = played(&path).await;
    assert!(report.is_ok(), "{report}");
    let totals = Totals::of(&[report]);
    assert_eq!((totals.drifting, totals.not_compared.len()), (0, 0), "{totals}");
    assert_eq!((totals.callbacks, told), (4, 4), "one of them in vain, {totals}");
    assert!(totals.controls >= 7, "{totals}");
}

#[tokio::test(start_paused = true)]
async fn a_recording_of_a_simulator_has_no_secret() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run.har");
    let world = recorded(&path);
    steered(&world).await;
    let key = "acme-of-stories";
    world.client(key).wishing(&format!("text:{key}")).call("chat.gpt-5-2", &json!({})).await;
    drop(world);
    let text = std::fs::read_to_string(&path).unwrap();
    for secret in [key, "bolt-of-stories", WEBHOOK_KEY, "Bearer"] {
        assert!(!text.contains(secret), "{secret}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_simulator_begins_as_it_began() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run.har");
    let settings = Settings {
        http_status: HttpStatus::Real,
        pace: Pace::Instant,
        failure_rate: 0.5,
        ..Settings::default()
    };
    let world = World::build().settings(settings).room(10_000, 10_000);
    let world = world.recorded_as_it_is(path.clone()).start();
    let acme = world.client("acme");
    for _ in 0..20 {
        let id = acme.call("veo.generate", &video("either way")).await.task_id();
        acme.call("veo.details", &json!({"taskId": id})).await;
    }
    acme.call("veo.details", &json!({"taskId": "none"})).await;
    let large = json!({"base64Data": "A".repeat(12_000), "uploadPath": "in"});
    acme.post("/api/file-base64-upload", &large).await;
    drop(world);
    let report = played(&path).await;
    assert!(report.is_ok(), "{report}");
    let mut har = entries(&path);
    har["log"]["_kiegate"]["simulator"]["settings"]["failure_rate"] = 0.0.into();
    std::fs::write(&path, har.to_string()).unwrap();
    assert!(!played(&path).await.is_ok(), "it began in another way");
    har["log"]["_kiegate"]["simulator"]["settings"]["pace"] = "slow".into();
    std::fs::write(&path, har.to_string()).unwrap();
    let recording = Recording::read(&CATALOGUE, &path).unwrap();
    let error = verify(&CATALOGUE, "run.har".into(), &recording).await.unwrap_err().to_string();
    assert!(error.starts_with("run.har: log._kiegate.simulator: pace: \"slow\" is not one of"), "{error}");
}

/// A recording of a session, changed by hand.
async fn doctored(change: impl FnOnce(&mut Vec<Value>)) -> Report {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run.har");
    let world = recorded(&path);
    steered(&world).await;
    drop(world);
    let mut har = entries(&path);
    change(har["log"]["entries"].as_array_mut().unwrap());
    std::fs::write(&path, har.to_string()).unwrap();
    played(&path).await
}

fn found(report: &Report) -> Vec<String> {
    let beside = report.controls.iter().chain(&report.strays).chain(&report.broken);
    let all = report.lifecycles.iter().chain(&report.calls).chain(beside);
    let drift = all.flat_map(|checked| &checked.drift);
    drift.map(|found| format!("{}: {} / {}", found.what, found.recorded, found.simulated)).collect()
}

fn of(operation: &str) -> impl Fn(&&mut Value) -> bool {
    move |entry| entry["_kiegate"]["operation"] == operation && entry["_kiegate"]["kind"] == "exchange"
}

fn change_answer(entry: &mut Value, change: impl FnOnce(&mut Value)) {
    let content = &mut entry["response"]["content"]["text"];
    let mut body: Value = serde_json::from_str(content.as_str().unwrap()).unwrap();
    change(&mut body);
    *content = body.to_string().into();
}

#[tokio::test(start_paused = true)]
async fn what_it_does_in_another_way_is_told() {
    let report = doctored(|entries| {
        let first = entries.iter_mut().find(of("veo.details")).unwrap();
        change_answer(first, |body| body["data"]["successFlag"] = 1.into());
    })
    .await;
    assert_eq!(found(&report), ["state: 1 / 0"], "{report}");
    let report = doctored(|entries| {
        let credit = entries.iter_mut().find(of("common.credit")).unwrap();
        credit["_kiegate"]["simulated"].as_object_mut().unwrap().remove("outcome");
    })
    .await;
    assert_eq!(found(&report), ["HTTP status: 503 / 200"], "{report}");
    let report = doctored(|entries| {
        let is_callback = |entry: &Value| entry["_kiegate"]["kind"] == "callback";
        let last = entries.iter().rposition(is_callback).unwrap();
        entries[last]["_kiegate"]["kind"] = "control".into();
        entries[last]["request"]["url"] = "https://x.test/_mock/nothing".into();
    })
    .await;
    assert_eq!(found(&report), ["number of callbacks: 0 / 1", "HTTP status: 200 / 404"], "{report}");
    let report = doctored(|entries| {
        let is_rule = |entry: &Value| entry["request"]["url"].as_str().unwrap().ends_with("/_mock/rules");
        entries.retain(|entry| !is_rule(entry));
    })
    .await;
    assert!(found(&report).contains(&"HTTP status: 418 / 200".to_owned()), "{report}");
}

/// The answer to a create with that fault, as far as it comes.
async fn befallen(world: &World, fault: &str) {
    let request = Request::post("/api/v1/veo/generate")
        .header("host", "kie.test")
        .header("authorization", "Bearer acme")
        .header("content-type", "application/json")
        .header("x-mock-outcome", format!("fault:{fault}"))
        .body(Body::from(video("a fault").to_string()))
        .unwrap();
    let answered = tokio::time::timeout(Duration::from_secs(1), world.answer(request)).await;
    if let Ok(response) = answered {
        // It may break off.
        let _ = axum::body::to_bytes(response.into_body(), usize::MAX).await;
    }
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_never_came_whole_is_compared_as_far_as_it_came() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run.har");
    let world = recorded(&path);
    let acme = world.client("acme");
    acme.freeze().await;
    for fault in ["reset", "empty", "garbage", "truncate", "hang", "slow:1s"] {
        befallen(&world, fault).await;
    }
    // Their tasks were made all the same.
    acme.call("common.credit", &json!({})).await.expect_code(200);
    drop(world);
    let report = played(&path).await;
    assert!(report.is_ok(), "{report}");
    let totals = Totals::of(&[report]);
    assert_eq!((totals.lifecycles, totals.broken), (5, 1), "{totals}");
    let mut har = entries(&path);
    for entry in har["log"]["entries"].as_array_mut().unwrap() {
        if entry["_kiegate"]["simulated"]["fault"] == "fault:hang" {
            entry["_kiegate"]["simulated"]["fault"] = "fault:reset".into();
        }
    }
    std::fs::write(&path, har.to_string()).unwrap();
    assert_eq!(found(&played(&path).await), ["fault: fault:reset / fault:hang"]);
}

/// Two who ask for the same at once: a recording cannot show who was the first, so both orders are right.
#[tokio::test(start_paused = true)]
async fn of_two_who_ask_for_the_same_at_once_either_may_be_the_first() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run.har");
    let world = recorded(&path);
    let acme = world.client("acme");
    acme.put("/_mock/settings", &json!({"pace": "instant"})).await.expect_status(200);
    let id = acme.call("veo.generate", &json!({"prompt": "x"})).await.task_id();
    let other = json!({"taskId": id});
    acme.call("veo.get4k", &other).await.expect_code(200);
    acme.call("veo.get4k", &other).await.expect_code(422);
    drop(world);
    let mut har = entries(&path);
    let list = har["log"]["entries"].as_array_mut().unwrap();
    let places: Vec<usize> = (0..list.len()).filter(|at| of("veo.get4k")(&&mut list[*at])).collect();
    let (first, second) = (list[places[0]]["response"].clone(), list[places[1]]["response"].clone());
    (list[places[0]]["response"], list[places[1]]["response"]) = (second, first);
    std::fs::write(&path, har.to_string()).unwrap();
    assert!(!played(&path).await.is_ok(), "one came after the other");
    let list = har["log"]["entries"].as_array_mut().unwrap();
    list[places[1]]["_kiegate"]["simulated"]["since"] =
        list[places[0]]["_kiegate"]["simulated"]["since"].clone();
    std::fs::write(&path, har.to_string()).unwrap();
    let report = played(&path).await;
    assert!(report.is_ok(), "{report}");
}
