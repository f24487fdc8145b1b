//! What the upstream's bodies say, read by the templates that say what they look like.
//!
//! Whoever passes bodies on learns from them what a task is called, how far it is, which callback this is; and makes of
//! one body another that says the same: a callback of a record, where the upstream cannot call back, and a record of a
//! callback, so that nobody has to ask for what was told already. Pure: texts in, texts out.

use std::borrow::Cow;
use std::cell::Cell;

use serde_json::Value;

use super::{
    Behaviour, Bindings, Catalogue, Follows, Found, Lifecycle, Lookup, ModelChoice, ModelIx, Operation,
    OperationIx, Scope, TaskKind, Template,
};
use crate::clock::Timestamp;
use crate::ids::Credits;

/// What a name in a request is the name of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IdKind {
    /// A task.
    Task,
    /// Something that came out of a task, such as one track of a song.
    Made,
    /// The address of a result.
    Url,
}

/// A place in a request where something is named that came out of a task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdAt<'c> {
    /// JSON pointer into the request; the query counts as an object of texts.
    pub at: Cow<'c, str>,
    /// What is named there.
    pub kind: IdKind,
}

/// How far a task is, by its record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Progress {
    /// The state as the record spells it.
    pub state: String,
    /// How it ended, if it did.
    pub ended: Option<EndedAs>,
}

/// How a task ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndedAs {
    /// The ending's name in the catalogue.
    pub ending: String,
    /// Whether there is a result.
    pub success: bool,
}

/// Which of a task's callbacks a body is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stage {
    /// Its place among the callbacks of its kind of task; one past the last for a body that looks like none of them.
    pub index: usize,
    /// How the task ended, if this callback tells of that.
    pub ended: Option<EndedAs>,
}

/// What is known of a task beside the body that is read.
#[derive(Clone, Copy, Debug)]
pub struct Known<'k> {
    /// The create's operation.
    pub operation: OperationIx,
    /// The Market model, if it has one.
    pub model: Option<ModelIx>,
    /// The create's request.
    pub request: &'k Value,
    /// The task's id.
    pub id: &'k str,
    /// When it was created.
    pub created: Timestamp,
    /// The present time.
    pub now: Timestamp,
}

impl Catalogue {
    /// The places where a request of `operation` names what came out of tasks.
    pub fn ids(&self, operation: OperationIx, request: &Value) -> Vec<IdAt<'_>> {
        let model = self.operation(operation).model_of(request);
        let model = model.and_then(|name| self.model_by_name(operation, name));
        self.ids_of(operation, model)
    }

    /// The same for a model of which there is no request yet.
    pub fn ids_of(&self, operation: OperationIx, model: Option<ModelIx>) -> Vec<IdAt<'_>> {
        let known = self.operation(operation);
        let task = |lookup: &'_ Lookup| Cow::Owned::<'_, str>(lookup.at.clone());
        let mut ids = Vec::new();
        let mut add = |at: Cow<'_, str>, kind| ids.push(IdAt { at: Cow::Owned(at.into_owned()), kind });
        match &known.behaviour {
            Behaviour::Details(lookup, _) => add(task(lookup), IdKind::Task),
            Behaviour::Upgrade(upgrade) => add(task(&upgrade.lookup), IdKind::Task),
            Behaviour::Link(link, _) => {
                link.lookup.iter().for_each(|lookup| add(task(lookup), IdKind::Task));
                add(link.url_at.as_str().into(), IdKind::Url);
            }
            _ => {}
        }
        let mut follow = |before: &str, follows: &Follows| {
            let place = |at: &String| Cow::Owned(format!("{before}{at}"));
            follows.at.iter().for_each(|at| add(place(at), IdKind::Task));
            follows.id_at.iter().for_each(|at| add(place(at), IdKind::Made));
        };
        if let Some(task) = known.task() {
            task.follows.iter().for_each(|follows| follow("", follows));
            if let (Some(model), ModelChoice::Market { input, .. }) = (model, &task.model) {
                self.model(model).follows.iter().for_each(|follows| follow(&format!("/{input}"), follows));
            }
        }
        ids
    }

    /// The places of all operations and models.
    pub fn id_positions(&self) -> impl Iterator<Item = (OperationIx, Option<ModelIx>, IdAt<'_>)> {
        let of_operations = self.operations().map(|(operation, _)| (operation, None));
        let of_models = self.models().map(|(model, known)| (known.operation, Some(model)));
        of_operations.chain(of_models).flat_map(|(operation, model)| {
            self.ids_of(operation, model).into_iter().map(move |at| (operation, model, at))
        })
    }

    /// The id in the answer to a create; `None` for one that was refused.
    pub fn task_id<'v>(&self, operation: OperationIx, answer: &'v Value) -> Option<&'v str> {
        let Behaviour::Create(_, template) = &self.operation(operation).behaviour else { return None };
        if answer.get("code").is_some_and(|code| code != 200) {
            return None;
        }
        template.at_hole(answer, "task.id")?.as_str().filter(|id| !id.is_empty())
    }

    /// Whether tasks of that kind are over when their create is answered.
    pub fn is_inline(&self, operation: OperationIx, model: Option<ModelIx>) -> bool {
        self.states(operation, model).is_some_and(|lifecycle| lifecycle.inline)
    }

    /// The operation that tells of the tasks that `create` starts, and the JSON pointer to the id in its request.
    pub fn details_of(&self, create: OperationIx) -> Option<(OperationIx, &str)> {
        let details = self.details[create.position()]?;
        match &self.operation(details).behaviour {
            Behaviour::Details(lookup, _) => Some((details, &lookup.at)),
            _ => None,
        }
    }

    /// Finds out what [`Catalogue::details_of`] tells.
    pub(super) fn find_details(operations: &[Operation]) -> Vec<Option<OperationIx>> {
        let tells_of = |records: &String| {
            let place = operations.iter().position(|operation| match &operation.behaviour {
                Behaviour::Details(lookup, _) => lookup.records.contains(records),
                _ => false,
            });
            place.map(|place| OperationIx(super::small(place)))
        };
        operations.iter().map(|operation| tells_of(&operation.task()?.records)).collect()
    }

    /// How far a task of that kind is, by an answer to the question for its details; `None` if it is no record.
    pub fn progress(
        &self,
        operation: OperationIx,
        model: Option<ModelIx>,
        answer: &Value,
    ) -> Option<Progress> {
        let (details, _) = self.details_of(operation)?;
        let record = self.record_in(details, answer)?;
        self.progress_of_record(operation, model, record)
    }

    /// Whether an answer of the details operation `details` tells of a task that still runs.
    pub fn is_running(&self, details: OperationIx, answer: &Value) -> bool {
        let Behaviour::Details(lookup, _) = &self.operation(details).behaviour else { return false };
        let Some(record) = self.record_in(details, answer) else { return false };
        let creates = self.operations().filter_map(|(index, operation)| Some((index, operation.task()?)));
        let mut states =
            creates.filter(|(_, task)| lookup.records.contains(&task.records)).filter_map(|(index, task)| {
                let name = task.record.at_hole(record, "task.model").and_then(Value::as_str);
                let model = name.and_then(|name| self.model_by_name(index, name));
                self.progress_of_record(index, model, record)
            });
        states.next().is_some_and(|progress| progress.ended.is_none())
    }

    fn record_in<'v>(&self, details: OperationIx, answer: &'v Value) -> Option<&'v Value> {
        let Behaviour::Details(_, template) = &self.operation(details).behaviour else { return None };
        template.at_hole(answer, "record").filter(|record| record.is_object())
    }

    fn progress_of_record(
        &self,
        operation: OperationIx,
        model: Option<ModelIx>,
        record: &Value,
    ) -> Option<Progress> {
        let lifecycle = self.states(operation, model)?;
        let template = &self.operation(operation).task()?.record;
        // What names no task is no record of one, whatever else it says.
        template.at_hole(record, "task.id").filter(|id| id.is_string())?;
        let Some(state) = template.at_hole(record, "state") else {
            return progress_by_looks(lifecycle, template, record);
        };
        let mut endings = lifecycle.endings.iter().filter(|(_, end)| end.state == *state);
        let is_phase = lifecycle.phases.iter().any(|phase| phase.state == *state);
        let ended = endings.next().filter(|_| !is_phase).map(|(ending, end)| EndedAs {
            ending: ending.clone(),
            success: ending == "success" || end.with_result,
        });
        if ended.is_none() && !is_phase {
            return None;
        }
        let state = state.as_str().map_or_else(|| state.to_string(), str::to_owned);
        Some(Progress { state, ended })
    }

    fn states(&self, operation: OperationIx, model: Option<ModelIx>) -> Option<&Lifecycle> {
        let own = model.map(|model| &self.model(model).lifecycle);
        own.or_else(|| self.operation(operation).task()?.lifecycle.as_ref())
    }

    /// What the upstream says that a task, or a chat, has cost.
    pub fn charged(&self, body: &Value) -> Option<Credits> {
        let places =
            ["/creditsConsumed", "/data/creditsConsumed", "/credits_consumed", "/data/credits_consumed"];
        places.into_iter().find_map(|at| body.pointer(at)?.as_f64()).and_then(Credits::from_f64)
    }

    /// Which callback of such a task `body` is.
    ///
    /// # Panics
    /// If the operation makes no tasks.
    pub fn stage(&self, operation: OperationIx, model: Option<ModelIx>, body: &Value) -> Stage {
        let task = self.operation(operation).task().expect("callbacks are about tasks");
        let went_well = body.get("code").is_none_or(|code| code == 200);
        let lifecycle = self.states(operation, model);
        let ended = |on: &[String]| {
            let mut endings = on.iter().filter_map(|on| Some((on, lifecycle?.ending(on)?)));
            let (ending, end) = endings.next()?;
            Some(EndedAs { ending: ending.clone(), success: ending == "success" || end.with_result })
        };
        let kinds = task.callbacks.iter().enumerate();
        let found = kinds.map(|(index, kind)| (index, kind, ended(&kind.on))).find(|(_, kind, ended)| {
            let is_failure = ended.as_ref().is_some_and(|ended| !ended.success);
            is_failure != went_well && kind.body.fits(body)
        });
        if let Some((index, _, ended)) = found {
            return Stage { index, ended };
        }
        // Whatever it is, it says whether all is well.
        let ending = if went_well { "success" } else { "fail" }.to_owned();
        Stage { index: task.callbacks.len(), ended: Some(EndedAs { ending, success: went_well }) }
    }

    /// The callbacks that the upstream would have sent by the time that it told this record, in their order.
    pub fn callbacks_from_record(&self, known: Known<'_>, answer: &Value) -> Vec<(usize, Vec<u8>)> {
        let Some((task, lifecycle)) = self.kind_of(known) else { return Vec::new() };
        let Some((details, _)) = self.details_of(known.operation) else { return Vec::new() };
        let Some(record) = self.record_in(details, answer) else { return Vec::new() };
        let Some(progress) = self.progress_of_record(known.operation, known.model, record) else {
            return Vec::new();
        };
        let mut scope = Bound::new(self, known, task);
        scope.state = task.record.at_hole(record, "state").cloned().unwrap_or_default();
        scope.ending = progress.ended.as_ref().map_or("running".into(), |ended| ended.ending.clone());
        scope.bind(&task.record, record);
        let reached = |on: &String| {
            let phase =
                |state: &str| lifecycle.phases.iter().position(|phase| phase.state.as_str() == Some(state));
            match (&progress.ended, phase(on)) {
                (Some(ended), None) => ended.ending == *on,
                (Some(ended), Some(_)) => ended.success,
                (None, on) => on.is_some_and(|on| phase(&progress.state).is_some_and(|now| on <= now)),
            }
        };
        let due = task.callbacks.iter().enumerate().filter(|(_, kind)| kind.on.iter().any(reached));
        due.map(|(index, kind)| (index, kind.body.to_json(&scope))).collect()
    }

    /// The answer to the question for a task's details that says what its callback says; `None` where the record says
    /// more than that.
    pub fn record_from_callback(&self, known: Known<'_>, body: &Value) -> Option<Vec<u8>> {
        let (task, lifecycle) = self.kind_of(known)?;
        let Stage { index, ended } = self.stage(known.operation, known.model, body);
        let (kind, ended) = (task.callbacks.get(index)?, ended?);
        let mut scope = Bound::new(self, known, task);
        scope.state = lifecycle.ending(&ended.ending)?.state.clone();
        scope.ending = ended.ending;
        scope.bind(&kind.body, body);
        let (details, _) = self.details_of(known.operation)?;
        let Behaviour::Details(_, answer) = &self.operation(details).behaviour else { return None };
        let answer = answer.to_json(&scope);
        (!scope.missed.get()).then_some(answer)
    }

    fn kind_of(&self, known: Known<'_>) -> Option<(&TaskKind, &Lifecycle)> {
        Some((self.operation(known.operation).task()?, self.states(known.operation, known.model)?))
    }
}

/// The progress by a record that does not name its state: by which of them it looks like.
fn progress_by_looks(lifecycle: &Lifecycle, template: &Template, record: &Value) -> Option<Progress> {
    let looks_like = |ending: &str| template.fits_where(record, "ending", ending);
    let ended = |ending: &str, success| {
        let (state, ending) = (ending.to_owned(), ending.to_owned());
        Some(Progress { state, ended: Some(EndedAs { ending, success }) })
    };
    if looks_like("success") {
        return ended("success", true);
    }
    if looks_like("running") {
        return Some(Progress { state: "running".to_owned(), ended: None });
    }
    let mut failures = lifecycle.endings.iter().filter(|(name, _)| name != "success");
    failures.find(|(name, _)| looks_like(name)).and_then(|(name, end)| ended(name, end.with_result))
}

/// The scope of a task that somebody else runs: what a body told, what was asked for, what is known from outside.
struct Bound<'a> {
    catalogue: &'a Catalogue,
    known: Known<'a>,
    task: &'a TaskKind,
    input: Value,
    state: Value,
    ending: String,
    bindings: Bindings,
    /// Something was asked for that only the upstream knows.
    missed: Cell<bool>,
}

impl<'a> Bound<'a> {
    fn new(catalogue: &'a Catalogue, known: Known<'a>, task: &'a TaskKind) -> Self {
        Self {
            catalogue,
            known,
            task,
            input: catalogue.operation(known.operation).completed(known.request),
            state: Value::Null,
            ending: String::new(),
            bindings: Bindings::default(),
            missed: Cell::new(false),
        }
    }

    /// Takes from `body` what it tells; twice, since some of it decides how the rest is to be read.
    fn bind(&mut self, template: &Template, body: &Value) {
        for _ in 0..2 {
            let mut bindings = std::mem::take(&mut self.bindings);
            let before = bindings.clone();
            self.bindings = before;
            template.bind(body, self, &mut bindings);
            self.bindings = bindings;
        }
        self.missed.set(false);
    }

    /// How the task goes on from another, if it does.
    fn follows(&self) -> Option<&'a Follows> {
        let of_model = self.known.model.and_then(|model| self.catalogue.model(model).follows.as_ref());
        of_model.or(self.task.follows.as_ref())
    }

    /// The task that it goes on from, as the request names it.
    fn parent(&self) -> Option<&'a str> {
        let within = match (&self.task.model, self.known.model) {
            (ModelChoice::Market { input, .. }, Some(_)) => self.known.request.get(input)?,
            _ => self.known.request,
        };
        within.pointer(self.follows()?.at.as_ref()?)?.as_str()
    }

    /// What is known without any body.
    fn known_outside(&self, path: &[Box<str>]) -> Found<'_> {
        let Some((root, rest)) = path.split_first() else { return Found::Missing };
        match (&**root, rest) {
            ("task", [field]) => match &**field {
                "id" => Found::Str(self.known.id),
                "created" => self.known.created.into(),
                "completed" if self.ending != "running" => self.known.now.into(),
                "model" => self
                    .catalogue
                    .operation(self.known.operation)
                    .model_of(self.known.request)
                    .map_or(Found::Null, Found::Str),
                "cost_seconds" if self.ending != "running" => {
                    let took = self.known.now.saturating_since(self.known.created).as_secs();
                    Found::Integer(took.cast_signed())
                }
                "expired" => Found::Integer(0),
                "progress" if self.ending == "success" => Found::Number(1.0),
                _ => Found::Missing,
            },
            ("parent", [id]) if &**id == "id" => self.parent().map_or(Found::Missing, Found::Str),
            ("state", []) => match &self.state {
                Value::Number(number) => number.as_i64().map_or(Found::Missing, Found::Integer),
                other => other.into(),
            },
            ("ending", []) => Found::Str(&self.ending),
            ("fallback", []) => Found::Bool(false),
            ("record", []) => Found::Template(&self.task.record),
            ("model", [_]) => {
                let model = self.known.model.map(|model| self.catalogue.model(model));
                model.map_or(Found::Missing, |model| Found::Template(&model.result))
            }
            _ => Found::Missing,
        }
    }
}

impl Scope for Bound<'_> {
    fn lookup<'s>(&'s self, path: &[Box<str>]) -> Found<'s> {
        let root = path.first().map_or("", |root| root);
        if let ("input", [_, rest @ ..]) = (root, path) {
            let asked = Found::below(&self.input, rest);
            if !matches!(asked, Found::Missing) {
                return asked;
            }
        }
        if let Some(value) = self.bindings.get(path) {
            return match value {
                Value::Number(number) if number.is_i64() => {
                    Found::Integer(number.as_i64().unwrap_or_default())
                }
                other => other.into(),
            };
        }
        // The two wordings of an error stand for each other where only one was told.
        if let ("error", [_, field]) = (root, path) {
            let other: &str = if &**field == "message" { "record_message" } else { "message" };
            let other: [Box<str>; 2] = ["error".into(), other.into()];
            if let (true, Some(value)) = (field.ends_with("message"), self.bindings.get(&other)) {
                return value.into();
            }
        }
        let found = self.known_outside(path);
        let is_upstreams = matches!(root, "draw" | "result" | "model" | "error" | "task")
            || (root == "parent" && self.follows().is_some());
        if matches!(found, Found::Missing) && is_upstreams {
            self.missed.set(true);
        }
        found
    }
}
