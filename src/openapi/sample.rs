//! Example values for the holes of the catalogue's bodies: a made-up task at an instant of its life.
//!
//! Everything is derived from names in the catalogue, so that the same catalogue always gives the same examples.

use std::time::Duration;

use serde_json::{Value, json};

use super::kinds::Kind;
use super::request;
use crate::catalogue::{
    Chat, ChatModel, Dialect, ErrorEntry, Found, Lifecycle, Model, ModelChoice, Moment, ResultKind, Scope,
    Seconds, Size,
};
use crate::clock::{Draw, Timestamp, digest, hex};
use crate::ids::Credits;

/// When all example tasks were created: 2026-06-01, 09:30 UTC.
pub(super) const CREATED: Timestamp = Timestamp::from_millis(1_780_306_200_000);

/// Where the addresses of example files lead.
const FILES: &str = "https://example.com/_media";

/// Where a task stands.
#[derive(Clone, Copy)]
pub(super) enum Stage<'a> {
    /// In the phase of that number.
    Running(usize),
    /// It has ended.
    Ended {
        /// The name of the ending.
        name: &'a str,
        /// What it failed with.
        error: Option<&'a ErrorEntry>,
        /// Whether the backup model answered.
        fallback: bool,
    },
}

impl Stage<'_> {
    /// It went well.
    pub(super) const SUCCESS: Self = Self::Ended { name: "success", error: None, fallback: false };
}

/// A made-up task.
pub(super) struct Sample<'a> {
    kind: Kind<'a>,
    model: Option<&'a Model>,
    stage: Stage<'a>,
    id: String,
    input: Value,
    parent: Option<Box<Sample<'a>>>,
}

impl<'a> Sample<'a> {
    /// A task of that kind and, for Market creates, model.
    pub(super) fn new(kind: Kind<'a>, model: Option<&'a Model>, stage: Stage<'a>) -> Self {
        Self::with_parents(kind, model, stage, 2)
    }

    /// The same task at another stage.
    pub(super) fn at(kind: Kind<'a>, stage: Stage<'a>) -> Self {
        Self::new(kind, kind.models().next(), stage)
    }

    fn with_parents(kind: Kind<'a>, model: Option<&'a Model>, stage: Stage<'a>, generations: usize) -> Self {
        let request = match model {
            Some(model) => request::for_model(kind, model),
            None => request::fullest(kind.operation),
        };
        let parent = parent_of(kind).filter(|_| generations > 0);
        let parent = parent.map(|parent| {
            let model = parent.models().next();
            Box::new(Self::with_parents(parent, model, Stage::SUCCESS, generations - 1))
        });
        let name = model.map_or("", |model| &model.name);
        Self {
            id: hex(&digest(&[b"example", kind.operation.id.as_bytes(), name.as_bytes()])[..16]),
            input: kind.operation.completed(&request),
            kind,
            model,
            stage,
            parent,
        }
    }

    /// The task's id.
    pub(super) fn id(&self) -> &str {
        &self.id
    }

    fn lifecycle(&self) -> Option<&'a Lifecycle> {
        self.model.map(|model| &model.lifecycle).or(self.kind.task.lifecycle.as_ref())
    }

    /// The part of the input that the model's own tables look at.
    fn model_input(&self) -> &Value {
        match &self.kind.task.model {
            ModelChoice::Market { input, .. } => self.input.get(input).unwrap_or(&Value::Null),
            _ => &self.input,
        }
    }

    fn model_name(&self) -> &str {
        match &self.kind.task.model {
            ModelChoice::Name(name) => name,
            ModelChoice::At(pointer) | ModelChoice::Market { at: pointer, .. } => {
                self.input.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
            }
        }
    }

    fn ending(&self) -> &'a str {
        match self.stage {
            Stage::Running(_) => "running",
            Stage::Ended { name, .. } => name,
        }
    }

    fn state(&self) -> &'a Value {
        let state = self.lifecycle().and_then(|lifecycle| match self.stage {
            Stage::Running(phase) => lifecycle.phases.get(phase).map(|phase| &phase.state),
            Stage::Ended { name, .. } => lifecycle.ending(name).map(|ending| &ending.state),
        });
        state.unwrap_or(&Value::Null)
    }

    /// When it ended: after the middle of what each phase may take.
    fn completed(&self) -> Option<Timestamp> {
        let lifecycle = self.lifecycle()?;
        let ending = lifecycle.ending(self.ending())?;
        let took: u32 = lifecycle.phases.iter().map(|phase| phase.stay.0.midpoint(phase.stay.1)).sum();
        (ending.moment != Moment::AtOnce)
            .then(|| CREATED + Duration::from_secs(u64::from(took.div_ceil(1000))))
    }

    fn price(&self) -> Credits {
        let price = self.model.map_or(self.kind.task.price.as_ref(), |model| model.price.as_ref());
        price.and_then(|price| price.of(self.model_input())).unwrap_or_default()
    }

    fn has_result(&self) -> bool {
        let with_result = |name| {
            self.lifecycle()
                .and_then(|lifecycle| lifecycle.ending(name))
                .is_some_and(|ending| ending.with_result)
        };
        matches!(self.stage, Stage::Ended { name, .. } if name == "success" || with_result(name))
    }

    fn about_task(&self, field: &str) -> Found<'_> {
        match field {
            "id" => Found::Str(&self.id),
            "model" => Found::Str(self.model_name()),
            "created" => CREATED.into(),
            "completed" => self.completed().into(),
            "cost_seconds" => self.completed().map_or(Found::Null, |completed| {
                Found::Integer(completed.saturating_since(CREATED).as_secs().cast_signed())
            }),
            "progress" => Found::Number(if matches!(self.stage, Stage::Running(_)) { 0.48 } else { 1.0 }),
            "charged" if matches!(self.stage, Stage::Ended { .. }) && !self.has_result() => {
                Credits::ZERO.into()
            }
            "price" | "charged" => self.price().into(),
            "expired" | "chosen" => Found::Integer(0),
            _ => Found::Missing,
        }
    }

    fn about_error(&self, field: &str) -> Found<'_> {
        let Stage::Ended { error: Some(error), .. } = self.stage else { return Found::Missing };
        error.field(field, self)
    }

    fn about_result(&self, slot: &str, field: &str) -> Found<'_> {
        let results = self.model.map_or(&self.kind.task.results, |model| &model.results);
        let Some((_, kind)) = results.iter().find(|(name, _)| name == slot) else { return Found::Missing };
        match field {
            "urls" => Found::Texts((0..self.count(kind)).map(|index| self.url(kind, index)).collect()),
            "url" => Found::Text(self.url(kind, 0)),
            "size" => Found::Text(self.size(kind)),
            "seconds" => self.seconds(kind),
            "notes" => Found::Value(json!([
                {"pitch": 60, "start": 0.0, "end": 0.25, "velocity": 0.8},
                {"pitch": 64, "start": 0.25, "end": 0.5, "velocity": 0.8},
            ])),
            _ => Found::Missing,
        }
    }

    /// How many files there are; no more than an example needs.
    fn count(&self, kind: &ResultKind) -> i64 {
        let count = kind.count.as_ref().and_then(|count| count.number(self.model_input()));
        (1..=4).rev().find(|most| count.unwrap_or(1.0) >= f64::from(*most)).unwrap_or(1).into()
    }

    fn url(&self, kind: &ResultKind, index: i64) -> String {
        let format = kind.format.text(self.model_input()).unwrap_or_default();
        format!("{FILES}/{}", kind.file.to_text(&FileScope { task: self, index, format: &format }))
    }

    fn seconds(&self, kind: &ResultKind) -> Found<'static> {
        let seconds = match &kind.seconds {
            Some(Seconds::Pick(pick)) => pick.number(self.model_input()),
            Some(Seconds::Template(template)) => template.to_text(self).parse().ok(),
            None => None,
        };
        Found::Number(seconds.unwrap_or(5.0))
    }

    fn size(&self, kind: &ResultKind) -> String {
        let exact = match &kind.size {
            Size::Exact(table) => table.value(self.model_input()),
            _ => None,
        };
        let side = |index: usize| exact.as_ref().and_then(|sides| sides.get(index)).and_then(Value::as_u64);
        side(0).zip(side(1)).map_or("1280x720".into(), |(width, height)| format!("{width}x{height}"))
    }

    fn drawn(&self, name: &str) -> Found<'static> {
        let draws = self.model.map_or(&self.kind.task.draws, |model| &model.draws);
        let Some((_, kind)) = draws.iter().find(|(drawn, _)| drawn == name) else { return Found::Missing };
        match kind.value(&mut Draw::new(&[self.id.as_bytes(), name.as_bytes()])) {
            Value::String(text) => Found::Text(text),
            Value::Number(number) if number.is_i64() => number.as_i64().into(),
            other => Found::Value(other),
        }
    }

    fn about_record(&self, path: &[Box<str>]) -> Found<'_> {
        if path.is_empty() {
            return Found::Template(&self.kind.task.record);
        }
        let record: Value = serde_json::from_slice(&self.kind.task.record.to_json(self)).unwrap_or_default();
        let found = path.iter().try_fold(&record, |value, name| value.get(&**name));
        found.cloned().map_or(Found::Missing, Found::Value)
    }
}

/// The kind of task that one of this kind goes on from.
fn parent_of(kind: Kind<'_>) -> Option<Kind<'_>> {
    let collections = super::parents(kind.operation)?;
    Kind::within(kind.catalogue, collections).find(|parent| parent.operation.id != kind.operation.id)
}

impl Scope for Sample<'_> {
    fn lookup<'s>(&'s self, path: &[Box<str>]) -> Found<'s> {
        let Some((root, rest)) = path.split_first() else { return Found::Missing };
        match (&**root, rest) {
            ("task", [field]) => self.about_task(field),
            ("input" | "request", rest) => Found::below(&self.input, rest),
            ("state", []) => match self.state() {
                Value::Number(number) => number.as_i64().map_or(Found::Missing, Found::Integer),
                other => other.into(),
            },
            ("ending", []) => Found::Str(self.ending()),
            ("fallback", []) => Found::Bool(matches!(self.stage, Stage::Ended { fallback: true, .. })),
            ("error", [field]) => self.about_error(field),
            ("result", [slot, field]) => self.about_result(slot, field),
            ("draw", [name]) => self.drawn(name),
            ("account", _) => NoTask.lookup(path),
            ("record", rest) => self.about_record(rest),
            ("model", [_]) => self.model.map_or(Found::Missing, |model| Found::Template(&model.result)),
            ("parent", [id]) if &**id == "id" => {
                self.parent.as_ref().map_or(Found::Missing, |parent| Found::Str(&parent.id))
            }
            ("parent", rest) => self.parent.as_ref().map_or(Found::Missing, |parent| parent.lookup(rest)),
            _ => Found::Missing,
        }
    }
}

/// What a file's name may be made of, beside the task.
struct FileScope<'a, 't> {
    task: &'a Sample<'t>,
    index: i64,
    format: &'a str,
}

impl Scope for FileScope<'_, '_> {
    fn lookup<'s>(&'s self, path: &[Box<str>]) -> Found<'s> {
        match path.first().map(|name| &**name) {
            Some("index") => Found::Integer(self.index),
            Some("format") => Found::Str(self.format),
            _ => self.task.lookup(path),
        }
    }
}

/// What answers about the catalogue itself may be made of.
pub(super) struct Discovered(pub(super) Value);

impl Scope for Discovered {
    fn lookup<'s>(&'s self, path: &[Box<str>]) -> Found<'s> {
        match path.split_first() {
            Some((root, rest)) if &**root == "found" => Found::below(&self.0, rest),
            _ => NoTask.lookup(path),
        }
    }
}

/// What is told of a file that was brought.
fn uploaded(field: &str) -> Found<'static> {
    match field {
        "name" => Found::Str("picture.png"),
        "path" => Found::Str("uploads/picture.png"),
        "url" => Found::Text(format!("{FILES}/uploads/picture.png")),
        "size" => Found::Integer(154_832),
        "type" => Found::Str("image/png"),
        "at" => CREATED.into(),
        _ => Found::Missing,
    }
}

/// What answers and refusals that are about no task may be made of.
pub(super) struct NoTask;

impl Scope for NoTask {
    fn lookup<'s>(&'s self, path: &[Box<str>]) -> Found<'s> {
        match path.first().map(|root| &**root) {
            Some("account") => Found::Number(9876.5),
            Some("link") => Found::Text(format!("{FILES}/link/video.mp4")),
            Some("upload") => uploaded(path.last().map_or("", |name| name)),
            Some("refusal") if path.last().is_some_and(|name| **name == *"task") => {
                Found::Text(hex(&digest(&[b"example"])[..16]))
            }
            Some("refusal") => Found::Str("prompt"),
            Some("request") => path.last().map_or(Found::Missing, |name| Found::Text(format!("<{name}>"))),
            _ => Found::Missing,
        }
    }
}

/// An answer of a language model.
pub(super) struct Talk<'a>(pub(super) &'a Chat);

impl Scope for Talk<'_> {
    fn lookup<'s>(&'s self, path: &[Box<str>]) -> Found<'s> {
        let names: Vec<&str> = path.iter().map(|part| &**part).collect();
        let model = match &self.0.model {
            ChatModel::Name(name) => name.as_str(),
            ChatModel::At(_) => "<model>",
        };
        match names.as_slice() {
            ["chat", "model"] => Found::Str(model),
            ["chat", "id"] => Found::Str("<id>"),
            ["chat", "created"] => CREATED.into(),
            ["chat", "credits"] => Found::Number(0.01),
            ["chat", "ending"] => Found::Str("stop"),
            ["chat", "finish"] => Found::Str(match self.0.dialect {
                Dialect::Anthropic => "end_turn",
                Dialect::Responses => "completed",
                Dialect::OpenaiChat | Dialect::Gemini => "stop",
            }),
            ["chat", "said"] => Found::Value(match self.0.dialect {
                Dialect::OpenaiChat => json!([{"index": 0, "finish_reason": "stop", "content": "Hello!"}]),
                Dialect::Anthropic => json!([{"text": "Hello!", "type": "text"}]),
                Dialect::Responses => json!([{
                    "type": "message",
                    "role": "assistant",
                    "id": "<id>",
                    "content": [{"type": "output_text", "text": "Hello!"}],
                    "status": "completed",
                }]),
                Dialect::Gemini => {
                    json!([{"index": 0, "finishReason": "STOP", "parts": [{"text": "Hello!"}]}])
                }
            }),
            ["usage", "input"] => Found::Integer(4),
            ["usage", "spoken" | "output"] => Found::Integer(2),
            ["usage", "total"] => Found::Integer(6),
            _ => Found::Missing,
        }
    }
}
