//! What the gateway understands of records and callbacks, over the whole catalogue: the simulator says what is right.

use kiegate::catalogue::{Behaviour, Known, ModelChoice, ModelIx, OperationIx};
use kiegate::ids::Credits;

use super::*;
use crate::requests::{acceptable, acceptable_for};
use crate::support::World;

/// A task and what was told of it.
struct Told {
    what: String,
    operation: OperationIx,
    model: Option<ModelIx>,
    request: Value,
    id: String,
    created: i64,
    ended: i64,
    /// The last answer to the question for its details.
    details: Value,
    /// In the order in which they came.
    callbacks: Vec<Value>,
}

impl Told {
    fn known(&self) -> Known<'_> {
        Known {
            operation: self.operation,
            model: self.model,
            request: &self.request,
            id: &self.id,
            created: Timestamp::from_millis(self.created),
            now: Timestamp::from_millis(self.ended),
        }
    }
}

/// Every task that the catalogue knows how to make and to ask for, called back, driven to that end.
async fn every_task(ending: &str) -> Vec<Told> {
    let world = World::standard();
    let acme = world.client("acme");
    acme.freeze().await;
    let mut all = Vec::new();
    let operations = CATALOGUE.operations().filter(|(_, operation)| {
        let market = operation.task().is_some_and(|task| matches!(task.model, ModelChoice::Market { .. }));
        matches!(operation.behaviour, Behaviour::Create(..)) && !market
    });
    for (index, operation) in operations {
        acme.put("/_mock/credits", &json!({"credits": 100_000})).await.expect_status(200);
        let mut request = acceptable(&acme, &operation.id).await;
        request[operation.task().unwrap().callback_at.trim_start_matches('/')] =
            "https://hooks.example.com/a".into();
        all.extend(told(&world, &acme, ending, index, None, request).await);
    }
    for (index, model) in CATALOGUE.models() {
        acme.put("/_mock/credits", &json!({"credits": 100_000})).await.expect_status(200);
        let mut request = acceptable_for(&acme, model).await;
        request["callBackUrl"] = "https://hooks.example.com/a".into();
        all.extend(told(&world, &acme, ending, model.operation, Some(index), request).await);
    }
    all
}

/// The first way in which such a task can fail and have no result.
fn failure_of(operation: OperationIx, model: Option<ModelIx>) -> Option<String> {
    let lifecycle = CATALOGUE.lifecycle(operation, model);
    let has_result = |ending: &str| lifecycle.ending(ending).is_some_and(|ending| ending.with_result);
    let mut errors = CATALOGUE.errors_of(operation).map(|(_, error)| error);
    errors.find(|error| error.fails && !has_result(&error.ending)).map(|error| format!("fail:{}", error.id))
}

async fn told(
    world: &World,
    acme: &Client,
    ending: &str,
    operation: OperationIx,
    model: Option<ModelIx>,
    request: Value,
) -> Option<Told> {
    let known = CATALOGUE.operation(operation);
    let what = model.map_or(&known.id, |model| &CATALOGUE.model(model).name).clone();
    if CATALOGUE.is_inline(operation, model) {
        return None;
    }
    let (details, at) =
        CATALOGUE.details_of(operation).unwrap_or_else(|| panic!("{what} cannot be asked for"));
    let before = world.receiver.received().len();
    let wish = if ending == "failure" { failure_of(operation, model)? } else { ending.to_owned() };
    let answer = acme.wishing(&wish).call(&known.id, &request).await.expect_code(200);
    let id = CATALOGUE.task_id(operation, &answer.json()).unwrap_or_else(|| panic!("{what}")).to_owned();
    assert_eq!(id, answer.id());
    let ask = json!({at.trim_start_matches('/'): id});
    let running = acme.call(&CATALOGUE.operation(details).id, &ask).await.json();
    if let Some(progress) = CATALOGUE.progress(operation, model, &running) {
        assert_eq!(progress.ended, None, "{what} has just begun: {running}");
        assert!(CATALOGUE.is_running(details, &running), "{what}");
    }
    acme.until_idle().await;
    let plan = acme.task(&id).await["plan"].clone();
    let details = acme.call(&CATALOGUE.operation(details).id, &ask).await.json();
    let callbacks = world.receiver.received()[before..].iter().map(|got| got.body.clone()).collect();
    let (created, ended) = (plan["created"].as_i64().unwrap(), plan["ends"].as_i64().unwrap());
    Some(Told { what, operation, model, request, id, created, ended, details, callbacks })
}

#[tokio::test(start_paused = true)]
async fn every_record_and_callback_of_a_success_is_understood() {
    let all = every_task("success").await;
    assert!(all.len() >= 200, "{}", all.len());
    for task in &all {
        let Told { what, operation, model, details, callbacks, .. } = task;
        let progress =
            CATALOGUE.progress(*operation, *model, details).unwrap_or_else(|| panic!("{what}: {details}"));
        assert!(progress.ended.is_some_and(|ended| ended.success), "{what}: {details}");
        for (index, callback) in callbacks.iter().enumerate() {
            let stage = CATALOGUE.stage(*operation, *model, callback);
            let is_last = index + 1 == callbacks.len();
            assert_eq!(
                stage.ended.as_ref().map(|ended| ended.success),
                is_last.then_some(true),
                "{what}: {callback}"
            );
            assert!(
                stage.index < CATALOGUE.operation(*operation).task().unwrap().callbacks.len(),
                "{what}: {callback}"
            );
        }
        if let Some(charged) = CATALOGUE.charged(details) {
            assert!(charged >= Credits::ZERO, "{what}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn every_record_and_callback_of_a_failure_is_understood() {
    let all = every_task("failure").await;
    assert!(all.len() >= 200, "{}", all.len());
    for task in &all {
        let Told { what, operation, model, details, callbacks, .. } = task;
        let progress = CATALOGUE.progress(*operation, *model, details);
        let progress = progress.unwrap_or_else(|| panic!("{what}: {details}"));
        assert!(progress.ended.is_some_and(|ended| !ended.success), "{what}: {details}");
        let last = callbacks.last().unwrap_or_else(|| panic!("{what} tells nobody of its failure"));
        let stage = CATALOGUE.stage(*operation, *model, last);
        assert!(stage.ended.is_some_and(|ended| !ended.success), "{what}: {last}");
    }
}

/// Where the two differ, and why: the record does not say what the callback says.
fn excused(path: &str) -> bool {
    // Words for people; times of which the record shows another; prices that records leave out.
    ["/msg", "/data/creditsConsumed", "/data/updateTime", "/data/promptJson", "/data/info/hasAudioList"].contains(&path)
        || path.ends_with("/createTime")
        // A text of several parts, which its record words in another way.
        || path.starts_with("/data/data/") && path.ends_with("/text")
}

/// The paths at which `left` and `right` differ.
fn differences(left: &Value, right: &Value, path: &str, found: &mut Vec<String>) {
    match (left, right) {
        (Value::Object(a), Value::Object(b)) => {
            let names: std::collections::BTreeSet<_> = a.keys().chain(b.keys()).collect();
            for name in names {
                let (a, b) = (a.get(name).unwrap_or(&Value::Null), b.get(name).unwrap_or(&Value::Null));
                differences(a, b, &format!("{path}/{name}"), found);
            }
        }
        (Value::Array(a), Value::Array(b)) if a.len() == b.len() => {
            for (index, (a, b)) in a.iter().zip(b).enumerate() {
                differences(a, b, &format!("{path}/{index}"), found);
            }
        }
        _ if left == right => {}
        // Numbers are written with and without decimals.
        (Value::Number(a), Value::Number(b)) if a.as_f64() == b.as_f64() => {}
        _ => found.push(path.to_owned()),
    }
}

#[tokio::test(start_paused = true)]
async fn a_callback_can_be_made_of_a_record() {
    let (mut same, mut other) = (0, Vec::new());
    for task in every_task("success").await {
        let made = CATALOGUE.callbacks_from_record(task.known(), &task.details);
        assert_eq!(made.len(), task.callbacks.len(), "{}: {made:?}", task.what);
        // The stages before the last say what the last record says, too; they are compared by the last alone.
        let Some(((_, made), sent)) = made.last().zip(task.callbacks.last()) else { continue };
        let made: Value = serde_json::from_slice(made).unwrap();
        let mut found = Vec::new();
        differences(sent, &made, "", &mut found);
        found.retain(|path| !excused(path));
        if found.is_empty() {
            same += 1;
        } else {
            other.push(format!("{}: {found:?}", task.what));
        }
    }
    assert!(other.is_empty(), "{same} are the same, but not:\n{}", other.join("\n"));
}

#[tokio::test(start_paused = true)]
async fn a_record_can_be_made_of_a_callback_that_says_all() {
    let (mut same, mut silent, mut other) = (0, Vec::new(), Vec::new());
    for task in every_task("success").await {
        let Some(callback) = task.callbacks.last() else { continue };
        let Some(made) = CATALOGUE.record_from_callback(task.known(), callback) else {
            silent.push(task.what);
            continue;
        };
        let mut found = Vec::new();
        differences(&task.details, &serde_json::from_slice(&made).unwrap(), "", &mut found);
        found.retain(|path| !excused(path));
        if found.is_empty() {
            same += 1;
        } else {
            other.push(format!("{}: {found:?}", task.what));
        }
    }
    assert!(
        other.is_empty(),
        "{same} are the same, {} say too little, but not:\n{}",
        silent.len(),
        other.join("\n")
    );
    assert!(same >= 150, "{same}; too little say {silent:?}");
}
