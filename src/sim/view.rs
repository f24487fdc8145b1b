//! A task as the bodies of the catalogue see it: every name that a template may use, looked up.

mod files;

use std::cell::OnceCell;
use std::time::Duration;

use serde_json::{Map, Value};

pub(super) use files::{File, shapes};

use super::plan::{Ending, State};
use super::task::{Lineage, SandboxId, Task, TaskKey, Worth, ending_name};
use crate::catalogue::{
    Catalogue, DrawKind, ErrorEntry, Found, Lifecycle, ModelChoice, ModelIx, Moment, OperationIx, ResultKind,
    Scope, TaskKind, Template,
};
use crate::clock::{Draw, Timestamp};
use crate::ids::Credits;

/// What every body needs to know beside the task.
#[derive(Clone, Copy)]
pub(super) struct Setting<'a> {
    pub(super) catalogue: &'a Catalogue,
    pub(super) sandbox: SandboxId,
    pub(super) now: Timestamp,
    /// Where result links lead: `http://127.0.0.1:8787`.
    pub(super) origin: &'a str,
    /// The request that is being answered, if there is one.
    pub(super) request: &'a Value,
}

/// The scope of a task's templates.
pub(super) struct View<'a> {
    setting: Setting<'a>,
    lineage: &'a Lineage,
    parent: Option<Box<View<'a>>>,
    id: String,
    state: State,
    input: OnceCell<Value>,
    files: OnceCell<Vec<File>>,
    record: OnceCell<Value>,
}

/// The body of `template` about a task. What a test has given values in the task's result has these, wherever it stands.
pub(super) fn written(view: &View<'_>, template: &Template) -> Vec<u8> {
    let body = template.to_json(view);
    let succeeded = matches!(view.state(), State::Ended(Ending::Success { .. }));
    let Some(given) = view.task().result.as_ref().filter(|_| succeeded) else { return body };
    let mut shown: Value = serde_json::from_slice(&body).unwrap_or_default();
    put_in(&mut shown, given);
    shown.to_string().into_bytes()
}

/// Gives the members of `value` that are called as in `given` the values there; also in texts that are JSON.
fn put_in(value: &mut Value, given: &Map<String, Value>) {
    match value {
        Value::Array(items) => items.iter_mut().for_each(|item| put_in(item, given)),
        Value::Object(members) => {
            for (name, value) in members.iter_mut() {
                match given.get(name) {
                    Some(wanted) => value.clone_from(wanted),
                    None => put_in(value, given),
                }
            }
        }
        Value::String(text) if text.starts_with(['{', '[']) => {
            if let Ok(mut inner) = serde_json::from_str(text) {
                put_in(&mut inner, given);
                *text = inner.to_string();
            }
        }
        _ => {}
    }
}

impl<'a> View<'a> {
    pub(super) fn new(setting: Setting<'a>, lineage: &'a Lineage) -> Self {
        Self {
            setting,
            lineage,
            parent: lineage.parent.as_deref().map(|parent| Box::new(Self::new(setting, parent))),
            id: lineage.key.to_string(),
            state: lineage.task.plan.state_at(setting.now),
            input: OnceCell::new(),
            files: OnceCell::new(),
            record: OnceCell::new(),
        }
    }

    pub(super) fn kind(&self) -> &'a TaskKind {
        self.lineage.task.kind(self.setting.catalogue)
    }

    pub(super) fn task(&self) -> &'a Task {
        &self.lineage.task
    }

    pub(super) fn key(&self) -> TaskKey {
        self.lineage.key
    }

    pub(super) fn parent(&self) -> Option<&View<'a>> {
        self.parent.as_deref()
    }

    pub(super) fn state(&self) -> State {
        self.state
    }

    /// The request that made the task, completed with defaults.
    pub(super) fn input(&self) -> &Value {
        self.input.get_or_init(|| serde_json::from_str(&self.task().input).unwrap_or_default())
    }

    /// The part of the input that the model's own tables look at.
    pub(super) fn model_input(&self) -> &Value {
        match &self.kind().model {
            ModelChoice::Market { input, .. } => self.input().get(input).unwrap_or(&Value::Null),
            _ => self.input(),
        }
    }

    /// The model's name, as the request spells it.
    pub(super) fn model(&self) -> &str {
        match &self.kind().model {
            ModelChoice::Name(name) => name,
            ModelChoice::At(pointer) | ModelChoice::Market { at: pointer, .. } => {
                self.input().pointer(pointer).and_then(Value::as_str).unwrap_or_default()
            }
        }
    }

    pub(super) fn lifecycle(&self) -> &'a Lifecycle {
        self.task().lifecycle(self.setting.catalogue)
    }

    pub(super) fn results(&self) -> &'a [(String, ResultKind)] {
        self.task().results(self.setting.catalogue)
    }

    fn draws(&self) -> &'a [(String, DrawKind)] {
        draws_of(self.setting.catalogue, self.task().operation, self.task().model)
    }

    /// Whether it has ended, and its files are there.
    pub(super) fn has_result(&self) -> bool {
        matches!(self.state, State::Ended(_)) && self.task().worth == Worth::Result && !self.expired()
    }

    /// Whether a file is there: those of some kinds are before the task has ended.
    pub(super) fn has_file(&self, file: &File) -> bool {
        let reached = |state: &String| match self.state {
            State::Running(phase) => {
                let phases = &self.lifecycle().phases;
                let ready = phases.iter().position(|phase| phase.state.as_str() == Some(state));
                self.task().worth == Worth::Result && ready.is_some_and(|ready| ready <= phase)
            }
            State::Ended(_) => false,
        };
        self.has_result() || file.ready_at.as_ref().is_some_and(reached)
    }

    /// The files that the task makes if it comes to a result.
    pub(super) fn files(&self) -> &[File] {
        self.files.get_or_init(|| files::of(self))
    }

    /// The value of a named draw, the same for the task's whole life.
    fn drawn(&self, name: &str) -> Found<'static> {
        let Some((_, kind)) = self.draws().iter().find(|(drawn, _)| drawn == name) else {
            return Found::Missing;
        };
        match kind.value(&mut self.draw(name)) {
            Value::String(text) => Found::Text(text),
            Value::Number(number) if number.is_i64() => number.as_i64().into(),
            other => Found::Value(other),
        }
    }

    /// A stream of random numbers for one purpose in this task's life.
    pub(super) fn draw(&self, purpose: &str) -> Draw {
        draw(self.lineage.key, purpose)
    }

    fn error(&self) -> Option<&'a ErrorEntry> {
        match self.state {
            State::Ended(Ending::Fail(error)) => Some(self.setting.catalogue.error(error)),
            _ => None,
        }
    }

    /// The name of the ending, or `running`.
    pub(super) fn ending(&self) -> &'a str {
        match self.state {
            State::Running(_) => "running",
            State::Ended(ending) => ending_name(self.setting.catalogue, ending),
        }
    }

    /// The state as the record spells it.
    pub(super) fn state_value(&self) -> &'a Value {
        let lifecycle = self.lifecycle();
        match self.state {
            State::Running(phase) => &lifecycle.phases[phase.min(lifecycle.phases.len() - 1)].state,
            State::Ended(_) => {
                let ending = lifecycle.ending(self.ending()).or_else(|| lifecycle.ending("fail"));
                ending.map_or(&Value::Null, |ending| &ending.state)
            }
        }
    }

    /// When it ended, unless it still runs or never counted as completed.
    pub(super) fn completed(&self) -> Option<Timestamp> {
        let plan = &self.task().plan;
        let ending = self.lifecycle().ending(self.ending());
        let stillborn = ending.is_some_and(|ending| ending.moment == Moment::AtOnce);
        matches!(self.state, State::Ended(_)).then(|| plan.ends()).flatten().filter(|_| !stillborn)
    }

    /// What has been taken from the balance for it, as of now.
    fn charged(&self) -> Credits {
        let gone = matches!(self.state, State::Ended(_)) && self.task().worth == Worth::Nothing;
        if gone { Credits::ZERO } else { self.task().price }
    }

    /// Whether its files have been deleted by now.
    pub(super) fn expired(&self) -> bool {
        let catalogue = self.setting.catalogue;
        let kept = catalogue.families()[catalogue.operation(self.task().operation).family].media_kept;
        let ended = self.task().plan.ends();
        kept.zip(ended).is_some_and(|(kept, ended)| self.setting.now > ended + kept)
    }

    pub(super) fn url(&self, file: &File) -> String {
        format!("{}/_media/{}/{}/{}", self.setting.origin, self.setting.sandbox, self.id, file.name)
    }

    fn about_task(&self, field: &str) -> Found<'_> {
        let plan = &self.task().plan;
        match field {
            "id" => Found::Str(&self.id),
            "created" => plan.created().into(),
            "completed" => self.completed().into(),
            "cost_seconds" => self.completed().map_or(Found::Null, |completed| {
                let took = completed.saturating_since(plan.created()).as_secs();
                Found::Integer(took.cast_signed())
            }),
            "progress" => Found::Number(plan.progress_at(self.setting.now)),
            "price" => self.task().price.into(),
            "charged" => self.charged().into(),
            "model" => Found::Str(self.model()),
            "expired" => Found::Integer(self.expired().into()),
            "chosen" => Found::Integer(self.task().chosen.into()),
            _ => Found::Missing,
        }
    }

    fn about_error(&self, field: &str) -> Found<'_> {
        self.error().map_or(Found::Missing, |error| error.field(field, self))
    }

    fn about_result(&self, slot: &str, field: &str) -> Found<'_> {
        let mut files = self.files().iter().filter(|file| file.slot == slot);
        match field {
            "urls" => Found::Texts(files.map(|file| self.url(file)).collect()),
            "notes" => files.next().map_or(Found::Missing, |file| Found::Value(file.notes(self))),
            "url" => files.next().map_or(Found::Missing, |file| Found::Text(self.url(file))),
            "size" => files
                .next()
                .map_or(Found::Missing, |file| Found::Text(format!("{}x{}", file.width, file.height))),
            "seconds" => files.next().map_or(Found::Missing, |file| whole_hundredths(file.duration)),
            _ => Found::Missing,
        }
    }

    fn about_record(&self, path: &[Box<str>]) -> Found<'_> {
        if path.is_empty() {
            return Found::Template(&self.kind().record);
        }
        let record = self
            .record
            .get_or_init(|| serde_json::from_slice(&self.kind().record.to_json(self)).unwrap_or_default());
        Found::below(record, path)
    }
}

fn draw(key: TaskKey, purpose: &str) -> Draw {
    Draw::new(&[key.bytes(), purpose.as_bytes()])
}

fn draws_of(catalogue: &Catalogue, operation: OperationIx, model: Option<ModelIx>) -> &[(String, DrawKind)] {
    match model {
        Some(model) => &catalogue.model(model).draws,
        None => catalogue.operation(operation).task().map_or(&[], |task| &task.draws),
    }
}

/// The ids by which other calls may name a task of that key, beside its own.
pub(super) fn ids(
    catalogue: &Catalogue,
    operation: OperationIx,
    model: Option<ModelIx>,
    key: TaskKey,
) -> Box<[Box<str>]> {
    let ids = draws_of(catalogue, operation, model).iter().filter(|(_, kind)| matches!(kind, DrawKind::Id));
    ids.map(|(name, _)| draw(key, name).uuid().into()).collect()
}

/// A length in seconds with at most two decimals, as bodies show it.
fn whole_hundredths(length: Duration) -> Found<'static> {
    Found::Number((length.as_secs_f64() * 100.0).round() / 100.0)
}

impl Scope for View<'_> {
    fn lookup<'s>(&'s self, path: &[Box<str>]) -> Found<'s> {
        let Some((root, rest)) = path.split_first() else { return Found::Missing };
        match (&**root, rest) {
            ("task", [field]) => self.about_task(field),
            ("input", rest) => Found::below(self.input(), rest),
            ("state", []) => match self.state_value() {
                Value::Number(number) => number.as_i64().map_or(Found::Missing, Found::Integer),
                other => other.into(),
            },
            ("ending", []) => Found::Str(self.ending()),
            ("fallback", []) => Found::Bool(self.state == State::Ended(Ending::Success { fallback: true })),
            ("error", [field]) => self.about_error(field),
            ("result", [slot, field]) => self.about_result(slot, field),
            ("draw", [name]) => self.drawn(name),
            ("record", rest) => self.about_record(rest),
            ("model", [_]) => {
                let model = self.task().model.map(|model| self.setting.catalogue.model(model));
                model.map_or(Found::Missing, |model| Found::Template(&model.result))
            }
            ("parent", [id]) if &**id == "id" => {
                self.parent().map_or(Found::Missing, |parent| Found::Str(&parent.id))
            }
            ("parent", rest) => self.parent().map_or(Found::Missing, |parent| parent.lookup(rest)),
            ("request", rest) => Found::below(self.setting.request, rest),
            _ => Found::Missing,
        }
    }
}
