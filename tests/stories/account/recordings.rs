//! Recordings: what an account answered is written down without its secrets, and played again by the clock.

use std::path::{Path, PathBuf};

use kiegate::catalogue::Behaviour;
use kiegate::config::Mode;
use kiegate::record::Recording;
use kiegate::verify::{Report, verify};

use super::reading::every_task_in;
use super::*;
use crate::requests::acceptable;
use crate::support::World;

/// The tenant's key in these stories: long enough to be looked for.
const KEY: &str = "kg_acme_fake_key_of_stories";
const SIGNED_BY_THE_ACCOUNT: &str = "public_url = \"https://gateway.test\"\n[[upstream.key]]\n%main\n";

/// A gateway whose tenant has that mode, and what it writes or replays.
fn config(mode: &str, recording: &Path) -> Config {
    let hash = kiegate::clock::hex(&kiegate::tenants::hash(KEY));
    let recording = recording.display();
    let paid = if mode == "record" { SIGNED_BY_THE_ACCOUNT } else { "" };
    live(&format!(
        "mode = \"{mode}\"\nrecording = \"{recording}\"\n{paid}[[tenant]]\nid = \"acme\"\nkeys = [\"sha256:{hash}\"]\n"
    ))
}

fn recording(folder: &TempDir) -> PathBuf {
    folder.path().join("session.har")
}

fn picture(url: &str) -> Value {
    let input = json!({"prompt": "A paper boat", "image_size": "16:9", "output_format": "png"});
    json!({"model": "google/nano-banana", "callBackUrl": url, "input": input})
}

/// A session with the account: tasks that succeed and fail, with callbacks and without, questions, a chat.
async fn session(acme: &Client, receiver: &Receiver) {
    let first =
        acme.post("/api/v1/runway/generate", &video_to("https://hooks.example.com/a")).await.task_id();
    acme.until_ended(&first).await;
    let second = acme.create().await.task_id();
    acme.until_ended(&second).await;
    let failing = json!({"prompt": "No", "duration": 5, "quality": "720p", "aspectRatio": "16:9"});
    let failed =
        acme.wishing("fail:content_policy").post("/api/v1/runway/generate", &failing).await.task_id();
    acme.until_ended(&failed).await;
    acme.post("/api/v1/generate", &song("https://hooks.example.com/b")).await.expect_code(200);
    receiver.until(4).await;
    let picture =
        acme.post("/api/v1/jobs/createTask", &picture("https://hooks.example.com/c")).await.task_id();
    receiver.until(5).await;
    // Else the gateway itself would know, by the callback.
    acme.with("cache-control", "no-cache")
        .get(&format!("/api/v1/jobs/recordInfo?taskId={picture}"))
        .await
        .expect_code(200);
    acme.get("/api/v1/chat/credit").await.expect_code(200);
    acme.post("/api/v1/runway/generate", &json!({"prompt": ""})).await.expect_status(200);
    let question =
        json!({"model": "gpt-5-2", "stream": true, "messages": [{"role": "user", "content": "Which key?"}]});
    let echo = format!("text:The key is {KEY} or else {WEBHOOK_KEY} and that is all");
    let told = acme.wishing(&echo).post("/gpt-5-2/v1/chat/completions", &question).await.expect_status(200);
    assert!(told.text().contains("data: [DONE]"), "{}", told.text());
}

/// A recording of a session.
async fn recorded(folder: &TempDir) -> PathBuf {
    let path = recording(folder);
    let world = Shared::new_with(&config("record", &path));
    session(&world.client(KEY), &world.receiver).await;
    path
}

#[tokio::test(start_paused = true)]
async fn a_recording_has_what_passed_and_no_secret() {
    let folder = tempfile::tempdir().unwrap();
    let path = recorded(&folder).await;
    let text = std::fs::read_to_string(&path).unwrap();
    for secret in [KEY, "fake-main", WEBHOOK_KEY, "Bearer", "x-mock-outcome"] {
        assert!(!text.contains(secret), "{secret} is in\n{text}");
    }
    let har: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(har["log"]["version"], "1.2");
    let entries = har["log"]["entries"].as_array().unwrap();
    let callbacks: Vec<_> = entries.iter().filter(|entry| entry["_kiegate"]["kind"] == "callback").collect();
    assert_eq!(callbacks.len(), 5, "{text}");
    for callback in callbacks {
        let url = callback["request"]["url"].as_str().unwrap();
        assert_eq!(url, "https://gateway.test/_relay/REDACTED");
        assert!(callback["_kiegate"]["after_ms"].as_u64().unwrap() > 0, "{callback}");
        let headers = callback["request"]["headers"].as_array().unwrap();
        let signature = headers.iter().find(|header| header["name"] == "x-webhook-signature").unwrap();
        assert_eq!(signature["value"], "REDACTED");
    }
    let relays = text.matches("/_relay/").count();
    assert_eq!(relays, text.matches("/_relay/REDACTED").count());
    let create = &entries[0];
    assert_eq!(create["request"]["url"], "https://api.kie.ai/api/v1/runway/generate");
    assert_eq!(create["_kiegate"]["operation"], "runway.generate");
    assert_eq!((&create["_kiegate"]["lifecycle"], &create["_kiegate"]["after_ms"]), (&json!(1), &json!(0)));
    let chat =
        entries.iter().find(|entry| entry["request"]["url"].as_str().unwrap().contains("chat/completions"));
    let said = chat.unwrap()["response"]["content"]["text"].as_str().unwrap();
    assert!(said.contains("REDACTED") && said.contains("[DONE]"), "{said}");
}

#[tokio::test(start_paused = true)]
async fn a_recording_is_never_written_over_and_a_folder_gets_one_each_run() {
    let folder = tempfile::tempdir().unwrap();
    let path = recorded(&folder).await;
    let before = std::fs::read(&path).unwrap();
    let error = Shared::try_with(&config("record", &path), Settings::default()).err().unwrap().to_string();
    assert!(error.contains("it is there already"), "{error}");
    assert_eq!(std::fs::read(&path).unwrap(), before);
    let runs = tempfile::tempdir().unwrap();
    let world = Shared::new_with(&config("record", runs.path()));
    world.client(KEY).get("/api/v1/chat/credit").await.expect_code(200);
    let names: Vec<_> =
        std::fs::read_dir(runs.path()).unwrap().map(|file| file.unwrap().file_name()).collect();
    assert_eq!(names, ["kiegate-2026-08-06T06-57-57-123Z.har"]);
}

#[tokio::test(start_paused = true)]
async fn a_replayed_task_goes_by_the_clock_however_often_it_is_polled() {
    let folder = tempfile::tempdir().unwrap();
    let path = recorded(&folder).await;
    let world = Shared::new_with(&config("replay", &path));
    let acme = world.client(KEY);
    acme.freeze().await;
    let id = acme.create().await.expect_code(200).task_id();
    for _ in 0..50 {
        assert_eq!(acme.details(&id).await.json()["data"]["state"], "wait");
    }
    acme.advance("1h").await;
    let done = acme.details(&id).await.expect_status(200);
    assert_eq!(done.header("x-kiegate-mode"), "replay");
    assert_eq!(done.json()["data"]["state"], "success");
    assert_eq!(world.upstream.arrived().len(), 0, "nothing is asked, so nothing is spent");
    let polled = json!({"match": {"operation": "runway.details"}, "count": 51});
    let verified = acme.post("/_mock/verify", &polled).await;
    assert_eq!(verified.status, 200, "the journal has them: {}", verified.text());
}

#[tokio::test(start_paused = true)]
async fn recorded_callbacks_are_sent_again_to_the_new_address_with_the_new_signature() {
    let folder = tempfile::tempdir().unwrap();
    let path = recorded(&folder).await;
    let world = Shared::new_with(&config("replay", &path));
    let acme = world.client(KEY);
    acme.freeze().await;
    let inbox = acme.get("/_mock/inbox").await.json()["url"].as_str().unwrap().to_owned();
    let id = acme.post("/api/v1/generate", &song(&format!("{inbox}/song"))).await.expect_code(200).task_id();
    let events = acme.until_idle().await;
    assert_eq!(events.len(), 3, "{events:#?}");
    assert!(events.iter().all(|event| event["task"] == *id && event["status"] == 200), "{events:#?}");
    let got = acme.get("/_mock/inbox/song").await.json()["received"].as_array().unwrap().clone();
    let stages: Vec<_> = got.iter().map(|got| &got["body"]["data"]["callbackType"]).collect();
    assert_eq!(stages, ["text", "first", "complete"]);
    assert!(got.iter().all(|got| got["signature_valid"] == true), "{got:#?}");
    assert!(got[0]["at"].as_u64() < got[1]["at"].as_u64() && got[1]["at"].as_u64() < got[2]["at"].as_u64());
    assert_eq!(got[2]["body"]["data"]["task_id"], *id);
    // Nobody asked how far the song is; a task without an address calls nobody.
    acme.post("/api/v1/runway/generate", &video()).await.expect_code(200);
    assert_eq!(acme.until_idle().await.len(), 0);
}

#[tokio::test(start_paused = true)]
async fn the_same_create_takes_the_next_recorded_task_and_then_the_last_under_new_names() {
    let folder = tempfile::tempdir().unwrap();
    let path = recorded(&folder).await;
    let world = Shared::new_with(&config("replay", &path));
    let acme = world.client(KEY);
    acme.freeze().await;
    let mut ids = Vec::new();
    for _ in 0..4 {
        ids.push(acme.create().await.expect_code(200).task_id());
    }
    assert_eq!(ids.iter().collect::<std::collections::HashSet<_>>().len(), 4, "{ids:?}");
    acme.advance("1h").await;
    for id in &ids {
        let record = acme.details(id).await.expect_code(200).json();
        assert_eq!((&record["data"]["taskId"], &record["data"]["state"]), (&json!(id), &json!("success")));
    }
    acme.post("/_mock/reset", &json!({})).await.expect_status(200);
    assert_eq!(acme.create().await.task_id(), ids[0], "it begins anew");
    assert_eq!(acme.details(&ids[1]).await.status, 404);
}

#[tokio::test(start_paused = true)]
async fn what_was_never_recorded_is_refused_with_what_comes_nearest() {
    let folder = tempfile::tempdir().unwrap();
    let path = recorded(&folder).await;
    let world = Shared::new_with(&config("replay", &path));
    let acme = world.client(KEY);
    acme.get("/api/v1/chat/credit").await.expect_code(200);
    let mut other = video();
    other["prompt"] = "Another boat".into();
    let refused = acme.post("/api/v1/runway/generate", &other).await.expect_status(404);
    assert_eq!(refused.header("x-kiegate-error"), "not_recorded");
    let body = refused.json();
    assert_eq!((&body["code"], &body["data"]), (&json!(404), &Value::Null));
    assert_eq!(
        body["msg"],
        "this call of runway.generate was not recorded; the nearest is session.har: entry 5, which differs at /prompt"
    );
    acme.get("/api/v1/veo/record-info?taskId=x").await.expect_status(404);
    let chat = json!({"model": "gpt-5-2", "messages": [{"role": "user", "content": "Hello"}]});
    let refused = acme.post("/gpt-5-2/v1/chat/completions", &chat).await.expect_status(404);
    assert!(refused.json()["error"]["message"].as_str().unwrap().contains("was not recorded"));
    let failing = json!({"prompt": "No", "duration": 5, "quality": "720p", "aspectRatio": "16:9"});
    acme.freeze().await;
    let failed = acme.post("/api/v1/runway/generate", &failing).await.task_id();
    acme.advance("1h").await;
    assert_eq!(acme.details(&failed).await.json()["data"]["state"], "fail");
}

/// What streams is not looked at when it is replayed, so it is found by the rest.
#[tokio::test(start_paused = true)]
async fn what_is_no_operation_is_found_again() {
    let folder = tempfile::tempdir().unwrap();
    let path = recording(&folder);
    let world = Shared::new_with(&config("record", &path));
    world.client(KEY).get("/no/such/path").await.expect_status(404);
    let world = Shared::new_with(&config("replay", &path));
    let answer = world.client(KEY).get("/no/such/path").await.expect_status(404);
    assert_eq!(answer.json()["error"], "Not Found", "it is the API's answer: {}", answer.text());
}

#[tokio::test(start_paused = true)]
async fn a_tenant_of_a_live_gateway_can_be_replayed_or_recorded_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = recorded(&folder).await;
    let lines = format!(
        "mode = \"live\"\nrecording = \"{}\"\n[[upstream.key]]\n%main\n[[tenant]]\n%acme\nmode = \"replay\"\n[[tenant]]\n%bolt\n",
        path.display()
    );
    let world = Shared::new(&lines);
    let (ci, bolt) = (world.client("acme"), world.client("bolt"));
    assert!(world.gateway.serves(Mode::Replay) && !world.gateway.serves(Mode::Record));
    ci.create().await.expect_code(200);
    ci.post("/api/v1/runway/generate", &json!({"prompt": "never"})).await.expect_status(404);
    assert_eq!(world.upstream.arrived().len(), 0);
    bolt.create().await.expect_code(200);
    assert_eq!(world.upstream.count("runway.generate"), 1);
    let recorded_now = folder.path().join("bolt.har");
    let lines = lines
        .replace("session.har", "bolt.har")
        .replace("%acme\nmode = \"replay\"", "%acme\nmode = \"record\"");
    let world = Shared::new(&lines);
    world.client("bolt").get("/api/v1/chat/credit").await.expect_code(200);
    world.client("acme").create().await.expect_code(200);
    let har: Value = serde_json::from_str(&std::fs::read_to_string(recorded_now).unwrap()).unwrap();
    let entries = har["log"]["entries"].as_array().unwrap();
    assert_eq!(entries.len(), 1, "{har:#}");
    assert_eq!(entries[0]["_kiegate"]["operation"], "runway.generate");
}

#[tokio::test(start_paused = true)]
async fn where_the_account_could_not_call_back_the_callbacks_follow_from_what_was_polled() {
    let folder = tempfile::tempdir().unwrap();
    let path = recording(&folder);
    let mut config_of_a_laptop = config("record", &path);
    config_of_a_laptop.public_url = None;
    let world = Shared::new_with(&config_of_a_laptop);
    let acme = world.client(KEY);
    let id = acme.post("/api/v1/runway/generate", &video_to("https://hooks.example.com/a")).await.task_id();
    acme.until_ended(&id).await;
    let told = world.receiver.until(1).await;
    let replay = Shared::new_with(&config("replay", &path));
    let acme = replay.client(KEY);
    acme.freeze().await;
    let inbox = acme.get("/_mock/inbox").await.json()["url"].as_str().unwrap().to_owned();
    acme.post("/api/v1/runway/generate", &video_to(&format!("{inbox}/a"))).await.expect_code(200);
    assert_eq!(acme.until_idle().await.len(), 1);
    assert_eq!(acme.get("/_mock/inbox/a").await.json()["received"][0]["body"], told[0].json());
}

/// What a fresh simulator makes of a recording.
async fn verified(path: &Path) -> Report {
    let recording = Recording::read(&CATALOGUE, path).unwrap_or_else(|error| panic!("{error}"));
    verify(&CATALOGUE, "session.har".into(), &recording).await.unwrap()
}

/// Of a request without a body it was noted that its body had not been kept, where that would have streamed.
#[tokio::test(start_paused = true)]
async fn of_a_request_without_a_body_nothing_is_missing() {
    let folder = tempfile::tempdir().unwrap();
    let path = recording(&folder);
    let world = World::build().recorded(path.clone()).start();
    world.client("acme").get("/no/such/path").await.expect_status(404);
    drop(world);
    let har: Value = serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
    let entry = &har["log"]["entries"][0];
    assert_eq!(entry["_kiegate"]["omitted"], Value::Null, "{entry}");
    let report = verified(&path).await;
    assert!(report.is_ok() && report.calls[0].skipped.is_none(), "{report}");
}

/// What was sent and of which nobody awaited the answer was missing in the recording.
#[tokio::test(start_paused = true)]
async fn a_request_is_recorded_though_nobody_awaits_its_answer() {
    let folder = tempfile::tempdir().unwrap();
    let path = recording(&folder);
    let world = World::build().recorded(path.clone()).start();
    let acme = world.client("acme");
    acme.put("/_mock/settings", &json!({"latency": "10s"})).await.expect_status(200);
    let asked = acme.get("/api/v1/chat/credit");
    assert!(tokio::time::timeout(Duration::from_secs(1), asked).await.is_err());
    drop(world);
    let har: Value = serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
    let entry = &har["log"]["entries"][0];
    assert_eq!(entry["comment"], "nobody waited for the answer");
    let report = verified(&path).await;
    let skipped = report.broken[0].skipped.as_deref();
    assert_eq!(skipped, Some("it was not answered: nobody waited for the answer"));
    assert!(report.is_ok(), "{report}");
}

#[tokio::test(start_paused = true)]
async fn a_recording_of_the_simulator_shows_no_drift() {
    let folder = tempfile::tempdir().unwrap();
    let report = verified(&recorded(&folder).await).await;
    assert!(report.is_ok(), "{report}");
    assert_eq!((report.lifecycles.len(), report.calls.len()), (6, 2), "{report}");
    let shown = report.to_string();
    let song = "  ok      suno.generate V5 (entry ";
    assert!(shown.contains(song) && shown.contains(", 3 callbacks\n"), "{shown}");
    assert!(shown.ends_with("0 of 6 lifecycles and 0 of 2 other calls drift\n"), "{shown}");
    assert_eq!(report.lifecycles[2].wish.as_deref(), Some("fail:content_policy"));
}

/// Every operation that makes tasks and every model, each to a success and to a failure.
#[tokio::test(start_paused = true)]
async fn recordings_of_all_tasks_there_are_show_no_drift() {
    for ending in ["success", "failure"] {
        let folder = tempfile::tempdir().unwrap();
        let world = World::build().recorded(recording(&folder)).start();
        let made = every_task_in(&world, ending).await.len();
        let report = verified(&recording(&folder)).await;
        assert!(report.lifecycles.len() >= made && made > 100, "{made} of {}", report.lifecycles.len());
        assert!(report.is_ok(), "{report}");
    }
}

/// Every operation there is, also those that make no tasks: chats, lists, links, other versions of results, uploads.
#[tokio::test(start_paused = true)]
async fn recordings_of_all_operations_show_no_drift() {
    let folder = tempfile::tempdir().unwrap();
    let world = World::build().recorded(recording(&folder)).start();
    let acme = world.client("acme");
    acme.freeze().await;
    for (_, operation) in CATALOGUE.operations() {
        acme.put("/_mock/credits", &json!({"credits": 100_000})).await.expect_status(200);
        let request = acceptable(&acme, &operation.id).await;
        acme.call(&operation.id, &request).await;
        if matches!(operation.behaviour, Behaviour::Upgrade(_)) {
            acme.call(&operation.id, &request).await;
            acme.until_idle().await;
            acme.call(&operation.id, &request).await.expect_status(200);
        }
        acme.until_idle().await;
        acme.wishing("reject:402").call(&operation.id, &request).await;
        acme.call(&operation.id, &json!({})).await;
    }
    let report = verified(&recording(&folder)).await;
    assert!(report.is_ok(), "{report}");
    assert!(report.calls.len() > 100, "{report}");
    let skipped = report.lifecycles.iter().chain(&report.calls).filter(|checked| checked.skipped.is_some());
    assert!(skipped.count() <= 3, "only forms are not kept: {report}");
}

#[tokio::test(start_paused = true)]
async fn a_damaged_recording_names_the_entry_and_the_field() {
    let folder = tempfile::tempdir().unwrap();
    let path = recorded(&folder).await;
    let mut har: Value = serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
    har["log"]["entries"][6]["request"]["method"] = 7.into();
    std::fs::write(&path, har.to_string()).unwrap();
    let error = Shared::try_with(&config("replay", &path), Settings::default()).err().unwrap().to_string();
    let expected = format!("{}: entry 7: request.method: invalid type", path.display());
    assert!(error.starts_with(&expected), "{error}");
}

/// A recording of a session, changed by hand.
async fn doctored(change: impl FnOnce(&mut Vec<Value>)) -> Report {
    let folder = tempfile::tempdir().unwrap();
    let path = recorded(&folder).await;
    let mut har: Value = serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
    change(har["log"]["entries"].as_array_mut().unwrap());
    std::fs::write(&path, har.to_string()).unwrap();
    verified(&path).await
}

/// Changes the JSON in the answers of all entries of `operation`.
fn answers(entries: &mut [Value], operation: &str, change: impl Fn(&mut Value)) {
    for entry in entries.iter_mut().filter(|entry| entry["_kiegate"]["operation"] == operation) {
        let content = &mut entry["response"]["content"]["text"];
        let mut body: Value = serde_json::from_str(content.as_str().unwrap()).unwrap();
        change(&mut body);
        *content = body.to_string().into();
    }
}

fn drift(report: &Report) -> Vec<String> {
    let checked = report.lifecycles.iter().chain(&report.calls);
    let told = checked
        .flat_map(|checked| checked.drift.iter().map(|found| (checked.operation.clone(), found.clone())));
    told.map(|(operation, found)| {
        let of = found.of.split(" (").next().unwrap();
        format!("{operation}: {of}: {}: {} / {}", found.what, found.recorded, found.simulated)
    })
    .collect()
}

#[tokio::test(start_paused = true)]
async fn what_the_simulator_does_in_another_way_is_told_lifecycle_by_lifecycle() {
    let report = doctored(|entries| {
        answers(entries, "jobs.details", |body| {
            body["data"].as_object_mut().unwrap().insert("costMs".into(), 12.into());
            body["data"]["createTime"] = "yesterday".into();
        });
    })
    .await;
    assert_eq!(
        drift(&report),
        [
            "jobs.create: details in success: data.createTime: a text / a number",
            "jobs.create: details in success: data.costMs: a number / nothing"
        ]
    );
    let report =
        doctored(|entries| answers(entries, "common.credit", |body| body["code"] = 418.into())).await;
    assert_eq!(drift(&report).len(), 1, "{report}");
    let report = doctored(|entries| {
        answers(entries, "suno.generate", |body| body["msg"] = "OK".into());
        let is_callback =
            |entry: &Value| entry["_kiegate"]["lifecycle"] == 4 && entry["_kiegate"]["kind"] == "callback";
        let first = entries.iter().position(is_callback).unwrap();
        entries.remove(first);
    })
    .await;
    assert_eq!(
        drift(&report),
        [
            "suno.generate: create: message: \"OK\" / \"success\"",
            "suno.generate: callbacks: order of callbacks: no. 2, no. 3 / no. 1, no. 2, no. 3"
        ]
    );
    let report = doctored(|entries| {
        let is_look = |entry: &Value| {
            entry["_kiegate"]["operation"] == "runway.details" && entry["_kiegate"]["lifecycle"] == 2
        };
        let first = entries.iter().position(is_look).unwrap();
        let in_state = |state: &str| {
            let mut look = entries[first].clone();
            let mut body: Value =
                serde_json::from_str(look["response"]["content"]["text"].as_str().unwrap()).unwrap();
            body["data"]["state"] = state.into();
            look["response"]["content"]["text"] = body.to_string().into();
            look
        };
        let looks = [in_state("generating"), in_state("wait")];
        entries.splice(first..=first, looks);
    })
    .await;
    assert!(drift(&report).iter().any(|line| line.contains("order of states")), "{report}");
}
