//! One body of another: callbacks of a record, a record of a callback.
//!
//! The body that is there is read by its template, and what that tells is the scope in which the other's template is
//! filled in. Beside it stand the create's request, the task's name and, where a body needs them and the other has none,
//! the times as they are known from outside.

use serde_json::Value;

use super::{EndedAs, Stage};
use crate::catalogue::{
    Behaviour, Bindings, CallbackKind, Catalogue, Certainty, ErrorEntry, Follows, Found, Lifecycle,
    ModelChoice, ModelIx, OperationIx, Reply, Scope, TaskKind, Template,
};
use crate::clock::Timestamp;
use crate::ids::Credits;

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
    /// The callbacks that the upstream would have sent by the time that it told this record, each with its place among
    /// those of its kind of task, in their order. What the record does not say is null in them.
    pub fn callbacks_from_record(&self, known: Known<'_>, answer: &Value) -> Vec<(usize, Vec<u8>)> {
        let Some((task, lifecycle)) = self.kind_of(known.operation, known.model) else { return Vec::new() };
        let record =
            self.details_of(known.operation).and_then(|(details, _)| self.record_in(details, answer));
        let Some(record) = record else { return Vec::new() };
        let progress = self.progress_of_record(known.operation, known.model, record);
        let Some(progress) = progress else { return Vec::new() };
        let state = self.readings.operations[known.operation.position()].in_record.state.find(record);
        let mut scope = TaskScope::new(self, known, task);
        scope.state = state.cloned().unwrap_or_default();
        scope.ending = progress.ended.as_ref().map_or("running".into(), |ended| ended.ending.clone());
        scope.charged = self.charged(answer);
        scope.read(&task.record, record);
        let due = task.callbacks.iter().enumerate().filter_map(|(index, kind)| {
            let due = due(kind, lifecycle, &progress.state, progress.ended.as_ref())?;
            Some((index, kind, due))
        });
        let due: Vec<_> = due.collect();
        due.into_iter().map(|(index, kind, due)| (index, scope.at(due).say(&kind.body))).collect()
    }

    /// The callback of another version that is done, with its place among those of its kind, by what the upstream answered to
    /// whoever asked for the version again; `None` while it is not done.
    pub fn callback_of_version(&self, known: Known<'_>, answer: &Value) -> Option<(usize, Vec<u8>)> {
        let (task, lifecycle) = self.kind_of(known.operation, known.model)?;
        let Behaviour::Upgrade(upgrade) = &self.operation(known.operation).behaviour else { return None };
        if !upgrade.done.fits(answer) {
            return None;
        }
        let mut scope = TaskScope::new(self, known, task);
        scope.ending = "success".into();
        scope.state = lifecycle.ending(&scope.ending)?.state.clone();
        scope.read(&upgrade.done, answer);
        let index = task.callbacks.iter().position(|kind| kind.on.contains(&scope.ending))?;
        Some((index, scope.at(Due::End).say(&task.callbacks[index].body)))
    }

    /// Whether an answer to whoever asks for a version says that it is being made.
    pub fn is_version_under_way(&self, operation: OperationIx, answer: &Value) -> bool {
        let Behaviour::Upgrade(upgrade) = &self.operation(operation).behaviour else { return false };
        [&upgrade.started, &upgrade.running].into_iter().any(|reply| match reply {
            Reply::Body(body) => body.fits(answer),
            Reply::Error(error) => answer.get("code").is_some_and(|code| *code == self.error(*error).code),
        })
    }

    /// What its create was answered.
    pub fn answer_to_create(&self, known: Known<'_>) -> Option<Vec<u8>> {
        let (task, _) = self.kind_of(known.operation, known.model)?;
        let Behaviour::Create(_, usual) = &self.operation(known.operation).behaviour else { return None };
        let own = known.model.and_then(|model| self.model(model).answer.as_ref());
        let mut scope = TaskScope::new(self, known, task);
        scope.stance = Stance::Lenient;
        let answer = own.unwrap_or(usual);
        answer.is_known(&scope).then(|| answer.to_json(&scope))
    }

    /// The answer to the question for a task's details that says what its last callback says; `None` where the record
    /// says more than that.
    pub fn record_from_callback(&self, known: Known<'_>, body: &Value) -> Option<Vec<u8>> {
        let (task, lifecycle) = self.kind_of(known.operation, known.model)?;
        let Stage { index, ended, .. } = self.stage(known.operation, known.model, body);
        let (kind, ended) = (task.callbacks.get(index)?, ended?);
        let mut scope = TaskScope::new(self, known, task);
        scope.state = lifecycle.ending(&ended.ending)?.state.clone();
        scope.ending = ended.ending;
        scope.charged = self.charged(body);
        scope.read(&kind.body, body);
        if let Some(state) = scope.bindings.get(&[Box::from("state")]) {
            scope.state = state.value.clone();
        }
        scope.stance = Stance::Strict;
        let (details, _) = self.details_of(known.operation)?;
        let Behaviour::Details(_, answer) = &self.operation(details).behaviour else { return None };
        answer.is_known(&scope).then(|| answer.to_json(&scope))
    }
}

/// At which point of a task's life a callback is sent.
#[derive(Clone, Copy)]
enum Due<'c> {
    /// As this phase began.
    Phase(&'c Value),
    /// At its end.
    End,
}

/// Whether a callback has been due in such a state, and when it was. A task that failed is not known to have come by any
/// phase.
fn due<'c>(
    kind: &CallbackKind,
    lifecycle: &'c Lifecycle,
    state: &str,
    ended: Option<&EndedAs>,
) -> Option<Due<'c>> {
    let place = |name: &str| lifecycle.phases.iter().position(|phase| phase.state.as_str() == Some(name));
    kind.on.iter().find_map(|on| match (place(on), ended) {
        (None, Some(ended)) => (ended.ending == *on).then_some(Due::End),
        (None, None) => None,
        (Some(phase), Some(ended)) => ended.success.then(|| Due::Phase(&lifecycle.phases[phase].state)),
        (Some(phase), None) => {
            place(state).filter(|now| phase <= *now).map(|_| Due::Phase(&lifecycle.phases[phase].state))
        }
    })
}

/// What a scope says where the body that was read says nothing.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Stance {
    /// While a body is read: only what is sure.
    Reading,
    /// What is known from outside will do.
    Lenient,
    /// Only what the body said counts.
    Strict,
}

/// The scope of a task that somebody else runs: what a body told, what was asked for, what is known from outside.
struct TaskScope<'a> {
    catalogue: &'a Catalogue,
    known: Known<'a>,
    task: &'a TaskKind,
    input: Value,
    state: Value,
    ending: String,
    charged: Option<Credits>,
    bindings: Bindings,
    stance: Stance,
}

impl<'a> TaskScope<'a> {
    fn new(catalogue: &'a Catalogue, known: Known<'a>, task: &'a TaskKind) -> Self {
        Self {
            catalogue,
            known,
            task,
            input: catalogue.operation(known.operation).completed(known.request),
            state: Value::Null,
            ending: String::new(),
            charged: None,
            bindings: Bindings::default(),
            stance: Stance::Reading,
        }
    }

    /// Takes from `body` what it tells; twice, since some of it decides how the rest is to be read.
    fn read(&mut self, template: &Template, body: &Value) {
        for _ in 0..2 {
            let mut bindings = self.bindings.clone();
            template.bind(body, self, &mut bindings);
            self.bindings = bindings;
        }
        self.stance = Stance::Lenient;
    }

    /// The scope of a callback that was due then.
    fn at<'s>(&'s self, due: Due<'s>) -> DueScope<'s> {
        match due {
            Due::Phase(state) => DueScope { task: self, phase: Some(state) },
            Due::End => DueScope { task: self, phase: None },
        }
    }

    /// How the task goes on from another, if it does.
    fn follows(&self) -> Option<&'a Follows> {
        let of_model = self.known.model.and_then(|model| self.catalogue.model(model).follows.as_ref());
        of_model.or(self.task.follows.as_ref())
    }

    /// The task that it goes on from, as the request names it; null if it goes on from none.
    fn parent(&self) -> Found<'_> {
        let Some(follows) = self.follows() else { return Found::Null };
        let within = match (&self.task.model, self.known.model) {
            (ModelChoice::Market { input, .. }, Some(_)) => self.known.request.get(input),
            _ => Some(self.known.request),
        };
        let named = |at: &Option<String>| within?.pointer(at.as_ref()?)?.as_str();
        match (named(&follows.at), named(&follows.id_at)) {
            (Some(task), _) => Found::Str(task),
            // It is known by something that it made.
            (None, Some(_)) => Found::Missing,
            (None, None) => Found::Null,
        }
    }

    /// What the body told, if it is good enough.
    fn told(&self, path: &[Box<str>]) -> Option<&Value> {
        let told = self.bindings.get(path)?;
        (told.certainty == Certainty::Exact || self.stance != Stance::Strict).then_some(&told.value)
    }

    fn told_time(&self, field: &str) -> Option<i64> {
        self.told(&["task".into(), field.into()])?.as_i64()
    }

    /// When it was created: as the body says, and to the millisecond where that agrees with what is known outside.
    fn created(&self) -> Found<'_> {
        let (outside, told) = (self.known.created, self.told_time("created"));
        match told {
            Some(told) if told != outside.seconds() * 1000 => Found::Integer(told),
            None if self.stance != Stance::Lenient => Found::Missing,
            _ => outside.into(),
        }
    }

    fn completed(&self) -> Found<'_> {
        match self.told(&["task".into(), "completed".into()]) {
            Some(told) => told.as_i64().into(),
            None if self.ending == "running" => Found::Null,
            None if self.stance == Stance::Lenient => self.known.now.into(),
            None => Found::Missing,
        }
    }

    fn took(&self) -> Found<'_> {
        match (self.created(), self.completed()) {
            (_, Found::Null) => Found::Null,
            (Found::Integer(created), Found::Integer(completed)) => {
                Found::Integer((completed - created).div_euclid(1000))
            }
            _ => Found::Missing,
        }
    }

    fn about_task(&self, field: &str) -> Found<'_> {
        let outside = |found| if self.stance == Stance::Lenient { found } else { Found::Missing };
        match field {
            "id" => Found::Str(self.known.id),
            "created" => self.created(),
            "completed" => self.completed(),
            "cost_seconds" => self.took(),
            "model" => {
                let operation = self.catalogue.operation(self.known.operation);
                operation.model_of(self.known.request).map_or(Found::Null, Found::Str)
            }
            "charged" => self.charged.map_or(Found::Missing, Into::into),
            "progress" if self.ending == "success" => Found::Number(1.0),
            // Its files are new.
            "expired" => outside(Found::Integer(0)),
            _ => Found::Missing,
        }
    }

    /// What an error's text or a result's address says in other words.
    fn in_other_words(&self, path: &[Box<str>]) -> Option<Found<'_>> {
        let instead = |field: &str| {
            let (_, before) = path.split_last()?;
            let path: Vec<Box<str>> = before.iter().cloned().chain([field.into()]).collect();
            self.told(&path)
        };
        match path {
            [root, _, field] if (&**root, &**field) == ("result", "url") => {
                instead("urls")?.get(0).map(Into::into)
            }
            [root, _, field]
                if (&**root, &**field) == ("result", "urls") && self.stance == Stance::Lenient =>
            {
                Some(Found::Texts(vec![instead("url")?.as_str()?.to_owned()]))
            }
            [root, field] if &**root == "error" && self.stance == Stance::Lenient => self.about_error(field),
            _ => None,
        }
    }

    /// What the body does not say of the error that the task ended with: as the catalogue has it for an error of which the
    /// body says the rest. If there is none, one wording will do for the other, and the ending's usual code for the code.
    fn about_error(&self, field: &str) -> Option<Found<'_>> {
        let told = |field: &str| self.told(&["error".into(), field.into()]);
        let says = |error: &ErrorEntry, field: &str| {
            told(field).is_none_or(|told| error.field(field, self).into_value(self) == *told)
        };
        let mut errors = self.catalogue.errors_of(self.known.operation).map(|(_, error)| error);
        let known = ["message", "record_message", "code"];
        let is_it = |error: &&ErrorEntry| error.fails && known.iter().all(|field| says(error, field));
        if known.iter().any(|field| told(field).is_some())
            && let Some(error) = errors.find(is_it)
        {
            return Some(error.field(field, self));
        }
        let mut errors = self.catalogue.errors_of(self.known.operation).map(|(_, error)| error);
        match field {
            "message" => told("record_message").map(Into::into),
            "record_message" => told("message").map(Into::into),
            _ => errors
                .find(|error| error.fails && error.ending == self.ending)
                .map(|error| error.field(field, self)),
        }
    }

    /// What is known without any body.
    fn known_outside(&self, path: &[Box<str>]) -> Found<'_> {
        let Some((root, rest)) = path.split_first() else { return Found::Missing };
        match (&**root, rest) {
            ("task", [field]) => self.about_task(field),
            ("parent", [id]) if &**id == "id" => self.parent(),
            // The request is all that there is.
            ("input", _) => Found::Null,
            ("parent", _) if self.follows().is_none() => Found::Null,
            ("fallback", []) if self.stance == Stance::Lenient || self.task.fallback.is_none() => {
                Found::Bool(false)
            }
            ("record", []) => Found::Template(&self.task.record),
            ("model", [_]) => {
                let model = self.known.model.map(|model| self.catalogue.model(model));
                model.map_or(Found::Missing, |model| Found::Template(&model.result))
            }
            _ => Found::Missing,
        }
    }
}

impl Scope for TaskScope<'_> {
    fn lookup<'s>(&'s self, path: &[Box<str>]) -> Found<'s> {
        let root = path.first().map_or("", |root| root);
        match (root, path) {
            ("state", [_]) => return of_json(&self.state),
            ("ending", [_]) => return Found::Str(&self.ending),
            ("input", [_, rest @ ..]) => {
                let asked = Found::below(&self.input, rest);
                if !matches!(asked, Found::Missing) {
                    return asked;
                }
            }
            // Times have a way of their own; while a body is read, templates within others are read, too.
            ("task", [_, field]) if matches!(&**field, "created" | "completed") => {
                return self.about_task(field);
            }
            ("record" | "model", _) if self.stance == Stance::Reading => return self.known_outside(path),
            _ => {}
        }
        if let Some(told) = self.told(path) {
            return of_json(told);
        }
        self.in_other_words(path).unwrap_or_else(|| self.known_outside(path))
    }

    fn whole<'s>(&'s self, source: &str) -> Found<'s> {
        match self.bindings.whole(source) {
            Some(told) if self.stance != Stance::Reading => of_json(told),
            _ => Found::Missing,
        }
    }
}

/// A value as holes take it.
fn of_json(value: &Value) -> Found<'_> {
    match value {
        Value::Number(number) => match (number.as_i64(), number.as_f64()) {
            (Some(whole), _) => Found::Integer(whole),
            (None, Some(number)) => Found::Number(number),
            (None, None) => Found::Json(value),
        },
        other => other.into(),
    }
}

/// A task's scope at the moment at which one of its callbacks is due.
struct DueScope<'a> {
    task: &'a TaskScope<'a>,
    /// The state then, if that was before the end.
    phase: Option<&'a Value>,
}

impl DueScope<'_> {
    fn say(&self, template: &Template) -> Vec<u8> {
        template.to_json(self)
    }
}

impl Scope for DueScope<'_> {
    fn lookup<'s>(&'s self, path: &[Box<str>]) -> Found<'s> {
        if let Some(state) = self.phase {
            match path {
                [root] if &**root == "state" => return of_json(state),
                [root] if &**root == "ending" => return Found::Str("running"),
                [root, field] if &**root == "task" && matches!(&**field, "completed" | "cost_seconds") => {
                    return Found::Null;
                }
                _ => {}
            }
        }
        self.task.lookup(path)
    }

    fn whole<'s>(&'s self, source: &str) -> Found<'s> {
        // A time that the task had not come to yet may stand in it.
        if self.phase.is_some() && source.contains("task.completed") {
            return Found::Missing;
        }
        self.task.whole(source)
    }
}
