//! What the gateway understands of records and callbacks, over the whole catalogue: the simulator says what is right.

use std::collections::{BTreeMap, BTreeSet};

use kiegate::catalogue::{Behaviour, Known, Likeness, ModelChoice, ModelIx, OperationIx};
use kiegate::ids::Credits;

use super::*;
use crate::requests::{acceptable, acceptable_for};
use crate::support::World;

/// A task and what was told of it.
pub(super) struct Told {
    /// The operation's id, or the model's name.
    what: String,
    operation: OperationIx,
    model: Option<ModelIx>,
    request: Value,
    id: String,
    created: i64,
    ended: i64,
    /// Each phase's state with the answer to the question for details in it.
    phases: Vec<(Value, Value)>,
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

    /// The operation, as lists of exceptions name it.
    fn operation(&self) -> &'static str {
        &CATALOGUE.operation(self.operation).id
    }
}

/// Every task that the catalogue knows how to make and to ask for, called back, driven to that end.
async fn every_task(ending: &str) -> Vec<Told> {
    every_task_in(&World::standard(), ending).await
}

/// The same in that world.
pub(super) async fn every_task_in(world: &World, ending: &str) -> Vec<Told> {
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
        all.extend(told(world, &acme, ending, index, None, request).await);
    }
    for (index, model) in CATALOGUE.models() {
        acme.put("/_mock/credits", &json!({"credits": 100_000})).await.expect_status(200);
        let mut request = acceptable_for(&acme, model).await;
        request["callBackUrl"] = "https://hooks.example.com/a".into();
        all.extend(told(world, &acme, ending, model.operation, Some(index), request).await);
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
    let ask = async || acme.call(&CATALOGUE.operation(details).id, &ask).await.json();
    let plan = acme.task(&id).await["plan"].clone();
    let (created, ended) = (plan["created"].as_i64().unwrap(), plan["ends"].as_i64().unwrap());
    let (mut now, mut phases) = (created, Vec::new());
    for phase in plan["phases"].as_array().unwrap() {
        let begins = phase["from"].as_i64().unwrap();
        if begins >= ended {
            break;
        }
        if begins > now {
            acme.advance(&format!("{}ms", begins - now)).await;
            now = begins;
        }
        phases.push((acme.task(&id).await["state"].clone(), ask().await));
    }
    acme.until_idle().await;
    let details = ask().await;
    let callbacks = world.receiver.received()[before..].iter().map(|got| got.body.clone()).collect();
    Some(Told { what, operation, model, request, id, created, ended, phases, details, callbacks })
}

fn spelled(state: &Value) -> String {
    state.as_str().map_or_else(|| state.to_string(), str::to_owned)
}

/// Every state of the record and every callback must be understood.
fn understands(task: &Told, success: bool) {
    let Told { what, operation, model, details, callbacks, .. } = task;
    for (state, answer) in &task.phases {
        let Some(progress) = CATALOGUE.progress(*operation, *model, answer) else {
            panic!("{what} in {state}: {answer}")
        };
        let has_state = !answer["data"].is_null();
        assert!(
            !has_state || progress.state == spelled(state),
            "{what} in {state}: {progress:?} by {answer}"
        );
        assert_eq!(progress.ended, None, "{what} in {state}: {answer}");
        let (asked, _) = CATALOGUE.details_of(*operation).unwrap();
        assert!(CATALOGUE.is_running(asked, answer), "{what} in {state}: {answer}");
    }
    let progress = CATALOGUE.progress(*operation, *model, details);
    let progress = progress.unwrap_or_else(|| panic!("{what}: {details}"));
    assert!(progress.ended.is_some_and(|ended| ended.success == success), "{what}: {details}");
    let kinds = &CATALOGUE.operation(*operation).task().unwrap().callbacks;
    let lifecycle = CATALOGUE.lifecycle(*operation, *model);
    for (place, callback) in callbacks.iter().enumerate() {
        let stage = CATALOGUE.stage(*operation, *model, callback);
        assert_eq!(stage.by, Likeness::Template, "{what}: {callback}");
        assert_eq!(stage.task_id, Some(&*task.id), "{what}: {callback}");
        let ended = stage.ended.as_ref().map(|ended| ended.success);
        let is_last = place + 1 == callbacks.len();
        assert_eq!(ended, is_last.then_some(success), "{what}: {callback}");
        let on = &kinds[stage.index].on;
        let ends = on.iter().any(|on| lifecycle.ending(on).is_some());
        assert_eq!(ends, is_last, "{what} takes {callback} for {on:?}");
    }
    assert!(!callbacks.is_empty(), "{what} tells nobody of its end");
    for body in callbacks.iter().chain([details]) {
        assert!(CATALOGUE.charged(body).is_none_or(|charged| charged >= Credits::ZERO), "{what}: {body}");
    }
}

#[tokio::test(start_paused = true)]
async fn every_record_and_callback_of_a_success_is_understood() {
    let all = every_task("success").await;
    for task in &all {
        understands(task, true);
    }
    assert_eq!(counted(&all), UNDERSTOOD);
}

#[tokio::test(start_paused = true)]
async fn every_record_and_callback_of_a_failure_is_understood() {
    let all = every_task("failure").await;
    for task in &all {
        understands(task, false);
    }
    assert_eq!(counted(&all), UNDERSTOOD);
}

/// Tasks of operations of their own, and of models.
type Counts = (usize, usize);

fn counted<'t>(tasks: impl IntoIterator<Item = &'t Told>) -> Counts {
    let (models, own): (Vec<_>, Vec<_>) = tasks.into_iter().partition(|task| task.model.is_some());
    (own.len(), models.len())
}

const UNDERSTOOD: Counts = (31, 193);
/// Of how many a record can be made of the last callback, after a success.
const TOLD_ALL: Counts = (5, 193);
/// The same, after a failure.
const TOLD_ALL_OF_FAILURES: Counts = (4, 193);

/// What a callback made of a record says otherwise than the one that the simulator sent, and why.
const DIFFERENT: [(&str, &str, &str); 3] = [
    ("jobs.create", "/data/creditsConsumed", "records leave out what the task has cost"),
    (
        "midjourney.upscale",
        "/data/promptJson",
        "it tells the other task's prompt, which the record leaves out",
    ),
    ("midjourney.vary", "/data/promptJson", "the same"),
];

/// The paths at which `left` and `right` differ.
fn differences(left: &Value, right: &Value, path: &str, found: &mut BTreeSet<String>) {
    match (left, right) {
        (Value::Object(a), Value::Object(b)) => {
            let names: BTreeSet<_> = a.keys().chain(b.keys()).collect();
            for name in names {
                let (a, b) = (a.get(name).unwrap_or(&Value::Null), b.get(name).unwrap_or(&Value::Null));
                differences(a, b, &format!("{path}/{name}"), found);
            }
        }
        (Value::Array(a), Value::Array(b)) if a.len() == b.len() => {
            for (a, b) in a.iter().zip(b) {
                differences(a, b, &format!("{path}/*"), found);
            }
        }
        _ if left == right => {}
        _ => {
            found.insert(path.to_owned());
        }
    }
}

/// Compares all callbacks of all tasks; `(operation, path)` to what differs there.
fn bridge(all: &[Told]) -> BTreeMap<(String, String), String> {
    let mut different = BTreeMap::new();
    for task in all {
        let made = CATALOGUE.callbacks_from_record(task.known(), &task.details);
        let mut made: Vec<Value> =
            made.iter().map(|(_, body)| serde_json::from_slice(body).unwrap()).collect();
        // Of a failure the record does not say what it had come by before.
        let sent = &task.callbacks[task.callbacks.len() - made.len()..];
        for (made, sent) in made.drain(..).zip(sent) {
            let mut found = BTreeSet::new();
            differences(sent, &made, "", &mut found);
            for path in found {
                let told = format!("{}: sent {sent}\n made {made}\n of {}", task.what, task.details);
                different.insert((task.operation().to_owned(), path), told);
            }
        }
        assert!(!sent.is_empty(), "{}: {}", task.what, task.details);
    }
    different
}

/// Asked on the way, the callbacks that were due by then come of it, as they were sent.
#[tokio::test(start_paused = true)]
async fn callbacks_on_the_way_can_be_made_of_a_record() {
    let mut made_of = BTreeMap::new();
    for task in every_task("success").await {
        for (state, answer) in &task.phases {
            let made = CATALOGUE.callbacks_from_record(task.known(), answer);
            for ((_, made), sent) in made.iter().zip(&task.callbacks) {
                let made: Value = serde_json::from_slice(made).unwrap();
                assert_eq!(made, *sent, "{} in {state}: {answer}", task.what);
                *made_of.entry(spelled(state)).or_insert(0) += 1;
            }
        }
    }
    let expected = [("FIRST_SUCCESS", 16), ("TEXT_SUCCESS", 8)];
    assert_eq!(made_of, expected.map(|(state, count)| (state.to_owned(), count)).into());
}

/// Another version of a result has no name of its own and is known by the task that it is a version of.
#[tokio::test(start_paused = true)]
async fn callbacks_about_other_versions_are_understood() {
    let world = World::standard();
    let acme = world.client("acme");
    acme.freeze().await;
    let mut understood = 0;
    for (index, operation) in CATALOGUE.operations() {
        let Behaviour::Upgrade(upgrade) = &operation.behaviour else { continue };
        if upgrade.task.callbacks.is_empty() {
            continue;
        }
        let mut request = acceptable(&acme, &operation.id).await;
        request[upgrade.task.callback_at.trim_start_matches('/')] = "https://hooks.example.com/a".into();
        let base = request.pointer(&upgrade.lookup.at).cloned().unwrap();
        acme.call(&operation.id, &request).await;
        acme.until_idle().await;
        let sent = world.receiver.received().pop().unwrap().body;
        let stage = CATALOGUE.stage(index, None, &sent);
        assert_eq!((stage.by, stage.task_id), (Likeness::Template, base.as_str()), "{sent}");
        assert!(stage.ended.is_some_and(|ended| ended.success), "{sent}");
        understood += 1;
    }
    assert_eq!(understood, 1);
}

#[tokio::test(start_paused = true)]
async fn callbacks_can_be_made_of_a_record() {
    let mut all = every_task("success").await;
    for task in &all {
        let made = CATALOGUE.callbacks_from_record(task.known(), &task.details);
        assert_eq!(made.len(), task.callbacks.len(), "{}", task.what);
    }
    all.extend(every_task("failure").await);
    let different = bridge(&all);
    let found: BTreeSet<(&str, &str)> = different.keys().map(|(id, path)| (&**id, &**path)).collect();
    let expected = DIFFERENT.iter().map(|(id, path, _)| (*id, *path)).collect();
    assert!(
        found == expected,
        "found {found:#?}\n{}",
        different.iter().map(|(at, told)| format!("{at:?}: {told}\n")).collect::<String>()
    );
}

/// Those whose record the last callback says as a whole: it must say the same.
fn recorded(all: &[Told]) -> Counts {
    let made = |task: &&Told| {
        let callback = task.callbacks.last().unwrap();
        let Some(made) = CATALOGUE.record_from_callback(task.known(), callback) else { return false };
        let made: Value = serde_json::from_slice(&made).unwrap();
        assert_eq!(made, task.details, "{} by {callback}", task.what);
        true
    };
    let made: Vec<_> = all.iter().filter(made).collect();
    let silent: BTreeSet<_> = all.iter().map(Told::operation).collect();
    let silent: Vec<_> =
        silent.iter().filter(|id| made.iter().all(|task| task.operation() != **id)).collect();
    println!("too little say the callbacks of {silent:?}");
    counted(made)
}

#[tokio::test(start_paused = true)]
async fn a_record_can_be_made_of_a_callback_that_says_all() {
    assert_eq!(recorded(&every_task("success").await), TOLD_ALL);
    assert_eq!(recorded(&every_task("failure").await), TOLD_ALL_OF_FAILURES);
}

#[test]
fn every_place_where_something_is_named_is_listed() {
    let mut kinds = BTreeMap::new();
    for (operation, model, at) in CATALOGUE.id_positions() {
        let listed = CATALOGUE.ids_of(operation, model);
        assert!(listed.contains(at), "{at:?}");
        *kinds.entry(format!("{:?}", at.kind)).or_insert(0) += 1;
    }
    let expected = [("Made", 29), ("MadeOrPreset", 4), ("Task", 62), ("Url", 2)];
    assert_eq!(kinds, expected.map(|(kind, count)| (kind.to_owned(), count)).into());
}
