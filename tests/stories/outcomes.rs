//! Every outcome of every operation, by the name that the catalogue gives it.

use kiegate::catalogue::{Behaviour, Class, ErrorEntry, Found, Operation, OperationIx, Scope, TaskKind};
use serde_json::{Value, json};

use crate::requests::{acceptable, operation};
use crate::support::{CATALOGUE, Client, World};

/// The record of a task, as the details call that looks into its collection shows it; of an upgrade there may be none.
async fn record_of(client: &Client, operation: &str, id: &str) -> Option<Value> {
    let records = &CATALOGUE.operation(CATALOGUE.operation_by_id(operation).unwrap()).task().unwrap().records;
    let details = CATALOGUE.operations().find_map(|(_, operation)| match &operation.behaviour {
        Behaviour::Details(lookup, _) if operation.by_query && lookup.records.contains(records) => {
            Some((&operation.id, lookup.at.strip_prefix('/').unwrap()))
        }
        _ => None,
    });
    let (details, at) = details?;
    Some(client.call(details, &json!({at: id})).await.json())
}

/// A scope in which nothing is known.
struct NoValues;

impl Scope for NoValues {
    fn lookup<'a>(&'a self, _: &[Box<str>]) -> Found<'a> {
        Found::Missing
    }
}

/// The scope of a refused request for the task "x".
struct AskedForX;

impl Scope for AskedForX {
    fn lookup<'a>(&'a self, path: &[Box<str>]) -> Found<'a> {
        if &*path[0] == "request" { Found::Str("x") } else { Found::Missing }
    }
}

fn makers() -> impl Iterator<Item = (OperationIx, String)> {
    let makes = CATALOGUE.operations().filter(|(_, operation)| operation.task().is_some());
    makes.map(|(index, operation)| (index, operation.id.clone()))
}

#[tokio::test(start_paused = true)]
async fn every_failure_ends_in_the_failed_state_with_its_code_and_message() {
    let world = World::standard();
    let acme = world.client("acme");
    let mut tried = 0;
    for (index, id) in makers() {
        let once = is_made_once(operation(&id));
        let request = acceptable(&acme, &id).await;
        for (_, error) in CATALOGUE.errors_of(index).filter(|(_, error)| error.fails) {
            acme.put("/_mock/credits", &json!({"credits": 100_000})).await.expect_status(200);
            let mut request = if once { acceptable(&acme, &id).await } else { request.clone() };
            let kind = operation(&id).task().unwrap();
            request[kind.callback_at.strip_prefix('/').unwrap()] = json!("https://app.example.com/hook");
            fails_as_it_should(&world, &acme, &id, &request, error).await;
            tried += 1;
        }
    }
    assert!(tried > 200, "{tried}");
}

/// Whether the same request makes no second task, so that each try needs a base of its own.
fn is_made_once(operation: &Operation) -> bool {
    let once = |task: &TaskKind| task.follows.as_ref().is_some_and(|follows| follows.once.is_some());
    matches!(operation.behaviour, Behaviour::Upgrade(_)) || operation.task().is_some_and(once)
}

async fn fails_as_it_should(world: &World, acme: &Client, id: &str, request: &Value, error: &ErrorEntry) {
    let wish = format!("fail:{}", error.id);
    let before = world.receiver.received().len();
    let kind = operation(id).task().unwrap();
    let text = error.message.as_ref().map_or(Value::Null, |message| json!(message.to_text(&NoValues)));
    let answer = acme.wishing(&wish).call(id, request).await.expect_status(200);
    if kind.lifecycle.as_ref().is_some_and(|lifecycle| lifecycle.inline) {
        let body = answer.json();
        assert_eq!((&body["code"], &body["msg"]), (&json!(error.code), &text), "{id} {wish}");
        return;
    }
    let events = acme.until_idle().await;
    let ended = events.iter().find(|event| event["type"] == "task" && event["outcome"] == wish.as_str());
    let task = ended.unwrap_or_else(|| panic!("{id} {wish}: {events:?}"))["task"].as_str().unwrap();
    // A failure after the work calls back as a success does, if at all; the record tells.
    let lifecycle = kind.lifecycle.as_ref();
    let worked = lifecycle.and_then(|one| one.ending(&error.ending)).is_some_and(|end| end.with_result);
    let tells = kind.callbacks.iter().any(|callback| callback.on.contains(&error.ending));
    let received = world.receiver.received();
    assert!(!tells || received.len() > before, "{id} {wish}: nobody was told");
    if tells && !worked {
        told_of(&received.last().unwrap().body, error, &text, &format!("{id} {wish}"));
    }
    let Some(record) = record_of(acme, id, task).await else { return };
    let recorded = error.record_message.as_ref().map_or(text, |message| json!(message.to_text(&NoValues)));
    let shown = record.to_string();
    assert!(worked || shown.contains(&recorded.to_string()) || id == "veo.get4k", "{id} {wish}: {shown}");
}

/// Sees that a callback speaks of the error.
fn told_of(callback: &Value, error: &ErrorEntry, text: &Value, what: &str) {
    let code = [&callback["code"], &callback["data"]["errorCode"]].contains(&&json!(error.code))
        || callback["data"]["failCode"].as_str() == Some(&error.code.to_string());
    assert!(code, "{what}: {callback}");
    assert!([&callback["msg"], &callback["data"]["failMsg"]].contains(&text), "{what}: {callback}");
}

#[tokio::test(start_paused = true)]
async fn every_refusal_has_its_code_and_message() {
    let world = World::standard();
    let acme = world.client("acme");
    for (index, operation) in CATALOGUE.operations() {
        for (_, error) in CATALOGUE.errors_of(index).filter(|(_, error)| error.refuses) {
            let answer = acme
                .wishing(&format!("reject:{}", error.id))
                .call(&operation.id, &json!({"taskId": "x"}))
                .await;
            let body = answer.json();
            assert_eq!(
                (answer.status, &body["code"]),
                (error.http, &json!(error.code)),
                "{} {}",
                operation.id,
                error.id
            );
            let without_data = error.without_data || CATALOGUE.wording(index).is_some();
            assert_eq!(body.get("data").is_none(), without_data, "{} {}", operation.id, error.id);
            let text =
                error.message.as_ref().map_or(Value::Null, |message| json!(message.to_text(&AskedForX)));
            assert_eq!(body["msg"], text, "{} {}", operation.id, error.id);
        }
    }
    assert_eq!(acme.get("/_mock/tasks").await.json()["total"], 0);
}

#[tokio::test(start_paused = true)]
async fn a_refusal_can_be_asked_for_by_its_code() {
    let world = World::standard();
    let acme = world.client("acme");
    for code in [401, 402, 404, 408, 422, 429, 433, 451, 455, 500, 501, 505] {
        let answer = acme.wishing(&format!("reject:{code}")).call("runway.generate", &json!({})).await;
        answer.expect_status(200).expect_code(code);
    }
    let answer = acme.wishing("reject:429").get("/api/v1/chat/credit").await;
    answer.expect_refusal(429, "Your call frequency is too high. Please try again later.");
}

#[tokio::test(start_paused = true)]
async fn http_statuses_can_be_the_real_ones() {
    let world = World::standard();
    let acme = world.client("acme");
    acme.put("/_mock/settings", &json!({"http_status": "real"})).await.expect_status(200);
    acme.wishing("reject:429").call("runway.generate", &json!({})).await.expect_status(429).expect_code(429);
    acme.call("runway.generate", &json!({})).await.expect_status(422).expect_code(422);
    acme.call("jobs.details", &json!({"taskId": "x"})).await.expect_status(422);
    acme.call("common.credit", &json!({})).await.expect_status(200);
}

#[tokio::test(start_paused = true)]
async fn a_directive_in_the_prompt_does_what_the_header_does() {
    let world = World::standard();
    let acme = world.client("acme");
    let request =
        json!({"model": "google/nano-banana", "input": {"prompt": "A boat [[mock:fail:content_policy]]"}});
    let id = acme.call("jobs.create", &request).await.expect_code(200).task_id();
    acme.until_idle().await;
    let record = acme.call("jobs.details", &json!({"taskId": id})).await.json();
    assert_eq!(record["data"]["failMsg"], "Invalid prompt: prompt contains prohibited content");
    assert_eq!(record["data"]["failCode"], "422");
    // The header wins.
    let id = acme.wishing("success").call("jobs.create", &request).await.task_id();
    acme.until_idle().await;
    assert_eq!(acme.call("jobs.details", &json!({"taskId": id})).await.json()["data"]["state"], "success");
}

#[tokio::test(start_paused = true)]
async fn a_stalled_task_never_ends_until_somebody_ends_it() {
    let world = World::standard();
    let acme = world.client("acme");
    let mut request = acceptable(&acme, "veo.generate").await;
    request["callBackUrl"] = json!("https://app.example.com/hook");
    let id = acme.wishing("stall").call("veo.generate", &request).await.task_id();
    assert_eq!(acme.until_idle().await.len(), 0);
    acme.advance("13d").await;
    let record = acme.call("veo.details", &json!({"taskId": id})).await.json();
    assert_eq!(record["data"]["successFlag"], 0);
    acme.post(&format!("/_mock/tasks/{id}/finish"), &json!({"outcome": "fail:video_failed"}))
        .await
        .expect_status(200);
    acme.until_idle().await;
    assert_eq!(acme.call("veo.details", &json!({"taskId": id})).await.json()["data"]["successFlag"], 3);
    assert_eq!(world.receiver.received().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_fallback_needs_all_that_the_api_asks_for() {
    let world = World::standard();
    let acme = world.client("acme");
    for (request, outcome, flag, fallback) in [
        (json!({"prompt": "x", "enableFallback": true}), "fail:minor_upload", 1, true),
        (json!({"prompt": "x", "enableFallback": true}), "fallback:success", 1, true),
        (json!({"prompt": "x", "enableFallback": true}), "fallback:fail", 3, false),
        (json!({"prompt": "x", "enableFallback": true}), "fail:timeout", 3, false),
        (
            json!({"prompt": "x", "enableFallback": true, "aspect_ratio": "9:16"}),
            "fail:minor_upload",
            3,
            false,
        ),
        (json!({"prompt": "x"}), "fail:minor_upload", 3, false),
        (json!({"prompt": "x"}), "fallback:success", 3, false),
    ] {
        let id = acme.wishing(outcome).call("veo.generate", &request).await.task_id();
        acme.until_idle().await;
        let record = acme.call("veo.details", &json!({"taskId": id})).await.json()["data"].clone();
        assert_eq!(
            (&record["successFlag"], &record["fallbackFlag"]),
            (&json!(flag), &json!(fallback)),
            "{request} {outcome}"
        );
        if fallback {
            assert_eq!(record["response"]["resolution"], "1080p");
            acme.call("veo.get1080p", &json!({"taskId": id}))
                .await
                .expect_refusal(422, "record result data is empty.");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_http_status_can_stand_for_a_broken_gateway() {
    let world = World::standard();
    let acme = world.client("acme");
    let answer = acme.wishing("http:502").call("runway.generate", &json!({})).await.expect_status(502);
    assert!(answer.header("content-type").starts_with("text/html"), "{answer:?}");
}

#[tokio::test(start_paused = true)]
async fn a_wish_that_cannot_be_granted_is_told_so() {
    let world = World::standard();
    let acme = world.client("acme");
    let request = acceptable(&acme, "runway.generate").await;
    let answer =
        acme.wishing("fail:contnt_policy").call("runway.generate", &request).await.expect_status(400);
    assert_eq!(answer.header("x-kiegate-error"), "bad_outcome");
    assert!(answer.text().contains("there are image_info, content_policy"), "{}", answer.text());
    for wish in ["explode", "reject:999", "fail:invalid_model", "http:1", "fallback:success"] {
        acme.wishing(wish).call("runway.generate", &request).await.expect_status(400);
    }
    acme.with("x-mock-delay", "soon").call("runway.generate", &request).await.expect_status(400);
    assert_eq!(acme.get("/_mock/tasks").await.json()["total"], 0);
    // In the words that clients of chats and uploads understand.
    let talk = json!({"model": "claude-sonnet-4-6", "messages": [{"role": "user", "content": "Hi"}]});
    let answer = acme.wishing("explode").post("/claude/v1/messages", &talk).await.expect_status(400);
    assert_eq!(answer.json()["error"]["type"], "invalid_request_error");
    let answer = acme.wishing("explode").post("/api/file-url-upload", &json!({})).await.expect_status(400);
    assert_eq!(answer.json()["success"], false);
}

#[test]
fn every_class_of_operation_is_there() {
    let has = |class| CATALOGUE.operations().any(|(_, operation)| operation.class == class);
    assert!([Class::Create, Class::Details, Class::Action, Class::Account].into_iter().all(has));
}
