//! One operation of the catalogue as the description tells it.

use std::time::Duration;

use serde_json::{Map, Value, json};

use super::components::{self, Names, object};
use super::kinds::Kind;
use super::{answers, price, request};
use crate::catalogue::{
    Behaviour, Catalogue, Consequence, DrawKind, ErrorEntry, Follows, Lifecycle, Model, ModelChoice,
    OperationIx,
};
use crate::wire::{SIGNATURE_HEADER, TIMESTAMP_HEADER};

/// The operation at `index`.
pub(super) fn describe(catalogue: &Catalogue, index: OperationIx, names: &Names) -> Value {
    let operation = catalogue.operation(index);
    let kind = Kind::of(catalogue, index);
    let market = kind.filter(|kind| matches!(kind.task.model, ModelChoice::Market { .. }));
    let mut told = Map::new();
    told.insert("tags".into(), json!([catalogue.families()[operation.family].id]));
    told.insert("operationId".into(), operation.id.clone().into());
    told.insert("summary".into(), operation.summary.clone().into());
    if !operation.notes.is_empty() {
        told.insert("description".into(), operation.notes.join("\n\n").into());
    }
    request::describe(operation, market, names, &mut told);
    told.insert("responses".into(), answers::responses(catalogue, index, names));
    if let Some(callbacks) = kind.and_then(callbacks) {
        told.insert("callbacks".into(), callbacks);
    }
    if let Some(security) = components::security(operation) {
        told.insert("security".into(), security);
    }
    told.insert("x-evidence".into(), operation.evidence.clone().into());
    if !operation.also.is_empty() {
        told.insert("x-also".into(), operation.also.clone().into());
    }
    let rules = components::rules(&operation.rules);
    if !rules.is_empty() {
        told.insert("x-rules".into(), rules.into());
    }
    told.extend(about_other_tasks(catalogue, index));
    if let Some(kind) = kind {
        told.extend(about_its_task(kind));
    }
    Value::Object(told)
}

/// Where the request names another task, or a file of one, and which operations make such tasks.
fn about_other_tasks(catalogue: &Catalogue, index: OperationIx) -> Map<String, Value> {
    let operation = catalogue.operation(index);
    let mut told = Map::new();
    let lookup = match &operation.behaviour {
        Behaviour::Details(lookup, _) => Some(lookup),
        Behaviour::Upgrade(upgrade) => Some(&upgrade.lookup),
        Behaviour::Link(link, _) => {
            told.insert("x-result-url".into(), json!({"at": link.url_at}));
            link.lookup.as_ref()
        }
        Behaviour::Create(..)
        | Behaviour::Discovery(..)
        | Behaviour::Upload(..)
        | Behaviour::Chat(..)
        | Behaviour::Plain(_) => None,
    };
    if let Some(lookup) = lookup {
        let mut other = other_task(Kind::within(catalogue, &lookup.records), lookup.failed.is_some(), false);
        other["at"] = lookup.at.clone().into();
        told.insert("x-task-id".into(), other);
    }
    let follows = operation.task().and_then(|task| task.follows.as_ref());
    told.extend(follows.map(|follows| ("x-task-id".to_owned(), followed(catalogue, follows))));
    told
}

/// Where a request names the task that it goes on from.
pub(super) fn followed(catalogue: &Catalogue, follows: &Follows) -> Value {
    let has = |kind: &Kind<'_>| follows.has.as_ref().is_none_or(|slot| kind.makes(slot));
    let makers = Kind::within(catalogue, &follows.records).filter(has);
    let refuses = |consequence: Option<Consequence>| matches!(consequence, Some(Consequence::Reject(_)));
    let mut told = other_task(makers, refuses(follows.failed), refuses(follows.succeeded));
    for (name, pointer) in [("at", &follows.at), ("id_at", &follows.id_at)] {
        object(&mut told).extend(pointer.clone().map(|pointer| (name.to_owned(), pointer.into())));
    }
    let kinds = Kind::within(catalogue, &follows.records);
    let models: Vec<&str> = kinds
        .flat_map(|kind| kind.models().collect::<Vec<_>>())
        .filter_map(|model| model_fits(model, follows).then_some(model.name.as_str()))
        .collect();
    if !models.is_empty() {
        told["models"] = models.into();
    }
    told
}

/// Whether a task of that Market model can be gone on from.
fn model_fits(model: &Model, follows: &Follows) -> bool {
    let has_id = model.draws.iter().any(|(_, kind)| matches!(kind, DrawKind::Id));
    follows.has.as_ref().is_none_or(|slot| model.results.iter().any(|(name, _)| name == slot))
        && (follows.models.is_empty() || follows.models.contains(&model.name))
        && (follows.id_at.is_none() || has_id)
}

/// Which creates make a task that a request may name, and how it must have ended.
fn other_task<'a>(makers: impl Iterator<Item = Kind<'a>>, not_failed: bool, not_succeeded: bool) -> Value {
    let makers: Value = makers.map(|kind| kind.operation.id.as_str()).collect();
    let endings = [("success", not_succeeded), ("fail", not_failed)];
    let endings: Value = endings.into_iter().filter(|(_, not)| !not).map(|(ending, _)| ending).collect();
    json!({"made_by": makers, "ended": endings})
}

/// What is known of the task that the operation starts.
fn about_its_task(kind: Kind<'_>) -> Map<String, Value> {
    let mut told = Map::new();
    if let Some(lifecycle) = &kind.task.lifecycle {
        told.insert("x-phases".into(), phases(lifecycle));
        told.insert("x-price".into(), price::of(kind.task.price.as_ref()));
    }
    let errors: Value = answers::task_errors(kind).into_iter().map(task_error).collect();
    told.insert("x-task-errors".into(), errors);
    told
}

/// What a task goes through, how long it stays there at least and at most, and how it ends.
pub(super) fn phases(lifecycle: &Lifecycle) -> Value {
    let phases = lifecycle
        .phases
        .iter()
        .map(|phase| json!({"state": phase.state, "ms": [phase.stay.0, phase.stay.1]}));
    let endings: Map<String, Value> =
        lifecycle.endings.iter().map(|(name, ending)| (name.clone(), ending.state.clone())).collect();
    json!({"phases": phases.collect::<Value>(), "endings": endings, "source": lifecycle.source})
}

fn task_error(error: &ErrorEntry) -> Value {
    let body = components::refusal_body(error);
    let mut told = json!({
        "id": error.id,
        "code": error.code,
        "message": body.get("msg").unwrap_or(&Value::Null),
        "ending": error.ending,
        "evidence": error.evidence,
    });
    if let Some(note) = &error.note {
        object(&mut told).insert("note".into(), note.clone().into());
    }
    told
}

/// The calls that a task makes to the address that its create names.
fn callbacks(kind: Kind<'_>) -> Option<Value> {
    if kind.task.callbacks.is_empty() {
        return None;
    }
    let shared = kind.catalogue.shared();
    let seconds = |span: &Duration| span.as_secs().to_string();
    let retries: Vec<String> = shared.callback_retries.iter().map(seconds).collect();
    let header = |name: &str, description: &str| json!({"name": name, "in": "header", "required": true, "schema": {"type": "string"}, "description": description});
    let call = json!({
        "operationId": format!("{}.callback", kind.operation.id),
        "tags": [kind.catalogue.families()[kind.operation.family].id],
        "summary": format!("what a task of {} tells", kind.operation.id),
        "security": [],
        "parameters": [
            header(TIMESTAMP_HEADER, "time of sending, in Unix seconds"),
            header(SIGNATURE_HEADER, "base64 of HMAC-SHA256 over `<task id>.<timestamp>` with the webhook key"),
        ],
        "requestBody": {"required": true, "content": {"application/json": answers::callbacks(kind).into_content()}},
        "responses": {"200": {"description": format!(
            "Taken. Anything but 2xx within {} s counts as failed and is tried again after {} s.",
            shared.callback_timeout.as_secs(),
            retries.join(", ")
        )}},
    });
    let address = format!("{{$request.body#{}}}", kind.task.callback_at);
    Some(json!({"task": {address: {"post": call}}}))
}
