//! What an operation answers, in every state that its task can be in, and every refusal that is known of it.

use std::collections::{BTreeMap, HashMap};

use serde_json::{Map, Value, json};

use super::components::{self, Names};
use super::kinds::{self, Kind};
use super::request;
use super::sample::{CREATED, Discovered, NoTask, Sample, Stage, Talk};
use crate::catalogue::{
    Behaviour, Catalogue, Class, ErrorEntry, Lookup, Model, Operation, OperationIx, Reply, Scope, Shape,
    Template, Upgrade, tell,
};

/// Named bodies, and what all of them look like.
#[derive(Default)]
pub(super) struct Bodies {
    shape: Shape,
    examples: Map<String, Value>,
}

impl Bodies {
    fn add(&mut self, name: &str, summary: &str, body: &Template, scope: &dyn Scope) {
        let value: Value = serde_json::from_slice(&body.to_json(scope)).unwrap_or_default();
        let mut key = name.to_owned();
        let mut number = 2;
        while self.examples.contains_key(&key) {
            key = format!("{name} {number}");
            number += 1;
        }
        self.examples.insert(key, json!({"summary": summary, "value": value}));
    }

    /// Refusals with these errors can come, too.
    fn refuse<'e>(&mut self, errors: impl IntoIterator<Item = &'e ErrorEntry>, names: &Names) {
        for error in errors {
            self.looks_like(names.form(error));
        }
    }

    fn looks_like(&mut self, shape: Shape) {
        self.shape = std::mem::take(&mut self.shape).or(shape);
    }

    /// As a media type.
    pub(super) fn into_content(self) -> Value {
        json!({"schema": self.shape.into_schema(), "examples": self.examples})
    }
}

/// The responses of the operation at `index`.
pub(super) fn responses(catalogue: &Catalogue, index: OperationIx, names: &Names) -> Value {
    let operation = catalogue.operation(index);
    let mut by_status: BTreeMap<u16, Bodies> = BTreeMap::new();
    let good = by_status.entry(200).or_default();
    answers(catalogue, operation, names, good);
    for (ix, error) in components::refusals(catalogue, index) {
        let bodies = by_status.entry(error.http).or_default();
        if error.form.is_none() && catalogue.wording(index).is_some() {
            // An error of all families, in the words of this one alone.
            let body: Value =
                serde_json::from_slice(&catalogue.refusal_body(index, ix, &NoTask)).unwrap_or_default();
            bodies.looks_like(Shape::of_form(&body));
            let told = json!({"value": body, "x-error": error.id, "x-evidence": error.evidence});
            bodies.examples.insert(error.id.clone(), told);
            continue;
        }
        bodies.looks_like(names.form(error));
        let reference = format!("#/components/examples/{}", names.error(ix));
        bodies.examples.insert(error.id.clone(), json!({"$ref": reference}));
    }
    let described = by_status.into_iter().map(|(status, bodies)| {
        let description = if status == 200 {
            "The answer. Refusals come with this status too: `code` in the body tells."
        } else {
            "A refusal."
        };
        let mut response =
            json!({"description": description, "content": {"application/json": bodies.into_content()}});
        if status == 200 && operation.class == Class::Chat && !operation.by_query {
            response["content"]["text/event-stream"] = json!({"schema": {"type": "string"}});
        }
        if status == 200 {
            let links = links(catalogue, index);
            if !links.is_empty() {
                response["links"] = links.into();
            }
        }
        (status.to_string(), response)
    });
    Value::Object(described.collect())
}

fn answers(catalogue: &Catalogue, operation: &Operation, names: &Names, bodies: &mut Bodies) {
    match &operation.behaviour {
        Behaviour::Create(task, answer) => {
            let kind = Kind { catalogue, operation, task };
            created(kind, answer, names, bodies);
        }
        Behaviour::Details(lookup, answer) => details(catalogue, operation, lookup, answer, bodies),
        Behaviour::Upgrade(upgrade) => {
            upgraded(Kind { catalogue, operation, task: &upgrade.task }, upgrade, names, bodies);
        }
        Behaviour::Link(link, answer) => {
            bodies.looks_like(answer.shape(&kinds::NoTask));
            bodies.add("success", "the link", answer, &NoTask);
            link.lookup.iter().for_each(|lookup| unknown_task(lookup, bodies));
        }
        Behaviour::Discovery(tells, _, answer) => {
            let request = request::smallest(operation);
            let mut found = tell(catalogue, *tells, &request, CREATED).unwrap_or_default();
            shorten(&mut found);
            bodies.looks_like(answer.shape(&kinds::NoTask));
            bodies.add("success", "the answer, its lists cut short", answer, &Discovered(found));
        }
        Behaviour::Upload(_, answer) => {
            bodies.looks_like(answer.shape(&kinds::NoTask));
            bodies.add("success", "the file is there", answer, &NoTask);
        }
        Behaviour::Chat(chat, answer) => {
            bodies.looks_like(answer.shape(&kinds::NoTask));
            bodies.add("success", "the answer in one piece", answer, &Talk(chat));
        }
        Behaviour::Plain(answer) => {
            bodies.looks_like(answer.shape(&kinds::NoTask));
            bodies.add("success", "the answer", answer, &NoTask);
        }
    }
}

/// Leaves two items of every list, which is enough to see what they are.
fn shorten(value: &mut Value) {
    match value {
        Value::Array(items) => {
            items.truncate(2);
            items.iter_mut().for_each(shorten);
        }
        Value::Object(members) => members.values_mut().for_each(shorten),
        _ => {}
    }
}

/// The answers to a create: its own, and those of models that have one of theirs.
fn created(kind: Kind<'_>, answer: &Template, names: &Names, bodies: &mut Bodies) {
    let models: Vec<&Model> = kind.models().collect();
    let own: Vec<(Option<&Model>, &Template)> =
        models.iter().filter_map(|model| Some((Some(*model), model.answer.as_ref()?))).collect();
    let common = models.iter().find(|model| model.answer.is_none()).copied();
    let common = (models.is_empty() || common.is_some()).then_some((common, answer));
    for (model, answer) in common.into_iter().chain(own) {
        let lifecycle = model.map(|model| &model.lifecycle).or(kind.task.lifecycle.as_ref());
        let inline = lifecycle.is_some_and(|lifecycle| lifecycle.inline);
        let (name, summary, stage) = if inline {
            bodies.refuse(task_errors(kind), names);
            ("done", "the work is done", Stage::SUCCESS)
        } else {
            ("accepted", "the task was created", Stage::Running(0))
        };
        let name = model.filter(|model| model.answer.is_some()).map_or(name, |model| &model.name);
        bodies.looks_like(answer.shape(&kind));
        bodies.add(name, summary, answer, &Sample::new(kind, model, stage));
    }
}

/// What is told of a task that does not exist, where that is no refusal.
fn unknown_task(lookup: &Lookup, bodies: &mut Bodies) {
    if let Reply::Body(body) = &lookup.unknown {
        bodies.looks_like(body.shape(&kinds::NoTask));
        bodies.add("unknown task", "there is no such task", body, &NoTask);
    }
}

/// Every state of every kind of task that can be looked up.
fn details(
    catalogue: &Catalogue,
    operation: &Operation,
    lookup: &Lookup,
    answer: &Template,
    bodies: &mut Bodies,
) {
    let kinds: Vec<Kind<'_>> = Kind::within(catalogue, &lookup.records).collect();
    for kind in &kinds {
        bodies.looks_like(answer.shape(kind));
        for model in one_of_each_kind(*kind) {
            let stages = stages(*kind, model);
            for (stage, name) in stages {
                let mut title = name.clone();
                if kinds.len() > 1 {
                    title = format!("{}: {name}", kind.operation.id);
                }
                if let Some(model) = model {
                    title = format!("{}: {name}", model.kind);
                }
                let summary =
                    format!("{}, {}", model.map_or(&*kind.operation.id, |model| &model.name), told(stage));
                bodies.add(&title, &summary, answer, &Sample::new(*kind, model, stage));
            }
        }
    }
    for kind in replacing(catalogue, operation) {
        bodies.looks_like(answer.shape(&kind));
        let name = format!("{}: success", kind.operation.id);
        bodies.add(&name, "after this was done with it", answer, &Sample::at(kind, Stage::SUCCESS));
    }
    unknown_task(lookup, bodies);
}

/// Upgrades of the family whose record stands in the place of the base task's.
fn replacing<'a>(catalogue: &'a Catalogue, details: &'a Operation) -> impl Iterator<Item = Kind<'a>> {
    catalogue.operations().filter_map(|(index, operation)| {
        let replaces = matches!(&operation.behaviour, Behaviour::Upgrade(upgrade) if upgrade.replaces_record);
        Kind::of(catalogue, index).filter(|_| replaces && operation.family == details.family)
    })
}

/// The first model of each kind (image, video, …), or no model where there are none.
fn one_of_each_kind(kind: Kind<'_>) -> Vec<Option<&Model>> {
    let mut chosen: Vec<&Model> = Vec::new();
    for model in kind.models() {
        if chosen.iter().all(|other| other.kind != model.kind) {
            chosen.push(model);
        }
    }
    if chosen.is_empty() { vec![None] } else { chosen.into_iter().map(Some).collect() }
}

/// All stages of a task's life, each with a name.
fn stages<'a>(kind: Kind<'a>, model: Option<&'a Model>) -> Vec<(Stage<'a>, String)> {
    let lifecycle = model.map(|model| &model.lifecycle).or(kind.task.lifecycle.as_ref());
    let Some(lifecycle) = lifecycle else { return Vec::new() };
    let mut stages = Vec::new();
    let mut seen: Vec<&Value> = Vec::new();
    for (phase, is) in lifecycle.phases.iter().enumerate() {
        if !seen.contains(&&is.state) {
            seen.push(&is.state);
            let name =
                is.state.as_str().map_or_else(|| "running".to_owned(), |state| format!("running ({state})"));
            stages.push((Stage::Running(phase), name));
        }
    }
    stages.push((Stage::SUCCESS, "success".to_owned()));
    if kind.task.fallback.is_some() {
        stages.push((
            Stage::Ended { name: "success", error: None, fallback: true },
            "success by fallback".into(),
        ));
    }
    for (name, _) in lifecycle.endings.iter().filter(|(name, _)| name != "success") {
        stages.push((failed(kind, name), name.clone()));
    }
    stages
}

/// A failure that takes the ending of that name, with the first error that does.
fn failed<'a>(kind: Kind<'a>, ending: &'a str) -> Stage<'a> {
    let error = task_errors(kind).into_iter().find(|error| error.ending == ending);
    Stage::Ended { name: ending, error, fallback: false }
}

/// The errors that tasks of that kind can fail with, one of each name.
pub(super) fn task_errors(kind: Kind<'_>) -> Vec<&ErrorEntry> {
    let Some(index) = kind.catalogue.operation_by_id(&kind.operation.id) else { return Vec::new() };
    let mut errors: Vec<&ErrorEntry> = Vec::new();
    for (_, error) in kind.catalogue.errors_of(index).filter(|(_, error)| error.fails) {
        if errors.iter().all(|other| other.id != error.id) {
            errors.push(error);
        }
    }
    errors
}

fn told(stage: Stage<'_>) -> String {
    match stage {
        Stage::Running(_) => "while it runs".into(),
        Stage::Ended { error: Some(error), .. } => format!("ended with the error {}", error.id),
        Stage::Ended { fallback: true, .. } => "ended well by the backup model".into(),
        Stage::Ended { name: "success", .. } => "ended well".into(),
        Stage::Ended { name, .. } => format!("ended: {name}"),
    }
}

fn upgraded(kind: Kind<'_>, upgrade: &Upgrade, names: &Names, bodies: &mut Bodies) {
    for (name, reply, stage) in
        [("started", &upgrade.started, Stage::Running(0)), ("running", &upgrade.running, Stage::Running(0))]
    {
        let Reply::Body(body) = reply else { continue };
        bodies.looks_like(body.shape(&kind));
        bodies.add(name, "it is being made", body, &Sample::at(kind, stage));
    }
    bodies.looks_like(upgrade.done.shape(&kind));
    bodies.add("done", "it is there", &upgrade.done, &Sample::at(kind, Stage::SUCCESS));
    // A failed upgrade is told as a refusal, whatever the error.
    bodies.refuse(task_errors(kind), names);
    unknown_task(&upgrade.lookup, bodies);
}

/// Which operations tell of the task that a create's answer names.
fn links(catalogue: &Catalogue, index: OperationIx) -> Map<String, Value> {
    let operation = catalogue.operation(index);
    let Behaviour::Create(task, answer) = &operation.behaviour else { return Map::new() };
    let kind = Kind { catalogue, operation, task };
    let sample = Sample::at(kind, Stage::Running(0));
    let body: Value = serde_json::from_slice(&answer.to_json(&sample)).unwrap_or_default();
    let Some(pointer) = find(&body, sample.id(), "") else { return Map::new() };
    let mut links = Map::new();
    for (_, other) in catalogue.operations().filter(|(_, other)| other.by_query) {
        let Behaviour::Details(lookup, _) = &other.behaviour else { continue };
        if lookup.records.contains(&task.records) {
            let name = lookup.at.trim_start_matches('/');
            let parameters: Map<_, _> =
                HashMap::from([(name.to_owned(), Value::from(format!("$response.body#{pointer}")))])
                    .into_iter()
                    .collect();
            links.insert(other.id.clone(), json!({"operationId": other.id, "parameters": parameters}));
        }
    }
    links
}

/// The pointer to the first text in `value` that is `wanted`.
fn find(value: &Value, wanted: &str, at: &str) -> Option<String> {
    match value {
        Value::String(text) => (text == wanted).then(|| at.to_owned()),
        Value::Object(members) => {
            members.iter().find_map(|(name, value)| find(value, wanted, &format!("{at}/{name}")))
        }
        Value::Array(items) => {
            items.iter().enumerate().find_map(|(index, item)| find(item, wanted, &format!("{at}/{index}")))
        }
        _ => None,
    }
}

/// What a task of that kind sends to its callback address, by the stage that it is sent at.
pub(super) fn callbacks(kind: Kind<'_>) -> Bodies {
    let mut bodies = Bodies::default();
    for callback in &kind.task.callbacks {
        bodies.looks_like(callback.body.shape(&kind));
        for on in &callback.on {
            for model in one_of_each_kind(kind) {
                let Some(stage) = stage_called(kind, model, on) else { continue };
                let name = model.map_or_else(|| on.clone(), |model| format!("{}: {on}", model.kind));
                bodies.add(&name, &told(stage), &callback.body, &Sample::new(kind, model, stage));
            }
        }
    }
    bodies
}

/// The phase or ending that a callback calls `on`.
fn stage_called<'a>(kind: Kind<'a>, model: Option<&'a Model>, on: &'a str) -> Option<Stage<'a>> {
    let lifecycle = model.map(|model| &model.lifecycle).or(kind.task.lifecycle.as_ref())?;
    let phase = lifecycle.phases.iter().position(|phase| phase.state == on).map(Stage::Running);
    phase.or_else(|| {
        lifecycle.ending(on)?;
        Some(if on == "success" { Stage::SUCCESS } else { failed(kind, on) })
    })
}
