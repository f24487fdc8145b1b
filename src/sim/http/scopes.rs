//! What bodies are made of that are about no task, or about more than one.

use axum::extract::Request;
use serde_json::Value;

use crate::catalogue::{Found, Scope};
use crate::clock::Timestamp;
use crate::ids::Credits;
use crate::sim::task::TaskKey;
use crate::sim::view::View;

/// What the text of a refusal may be made of.
pub(super) struct RefusalScope<'a> {
    pub(super) request: &'a Value,
    pub(super) field: Option<&'a str>,
    pub(super) task: Option<TaskKey>,
}

impl Scope for RefusalScope<'_> {
    fn lookup<'s>(&'s self, path: &[Box<str>]) -> Found<'s> {
        match path {
            [root, field] if &**root == "request" => {
                self.request.get(&**field).map_or(Found::Missing, Into::into)
            }
            [root, what] if &**root == "refusal" && &**what == "task" => {
                self.task.map_or(Found::Missing, |task| Found::Text(task.to_string()))
            }
            [root, _] if &**root == "refusal" => {
                self.field.filter(|field| !field.is_empty()).map_or(Found::Missing, Found::Str)
            }
            _ => Found::Missing,
        }
    }
}

/// What the answer to a create may be made of.
pub(super) struct AnswerScope<'a> {
    pub(super) view: &'a View<'a>,
    pub(super) balance: Credits,
}

impl Scope for AnswerScope<'_> {
    fn lookup<'s>(&'s self, path: &[Box<str>]) -> Found<'s> {
        match path.first().map(|root| &**root) {
            Some("account") => self.balance.into(),
            _ => self.view.lookup(path),
        }
    }
}

/// What an answer that is about no task may be made of.
pub(super) struct PlainScope<'a> {
    pub(super) balance: Credits,
    pub(super) link: Option<String>,
    pub(super) request: &'a Value,
}

impl Scope for PlainScope<'_> {
    fn lookup<'s>(&'s self, path: &[Box<str>]) -> Found<'s> {
        match path.first().map(|root| &**root) {
            Some("request") => {
                path.get(1).and_then(|name| self.request.get(&**name)).map_or(Found::Missing, Into::into)
            }
            Some("account") => self.balance.into(),
            Some("link") => self.link.as_deref().map_or(Found::Missing, Found::Str),
            _ => Found::Missing,
        }
    }
}

/// What an answer about the catalogue is made of.
pub(super) struct FoundScope<'a>(pub(super) &'a Value);

impl Scope for FoundScope<'_> {
    fn lookup<'s>(&'s self, path: &[Box<str>]) -> Found<'s> {
        match path {
            [root, rest @ ..] if &**root == "found" => Found::below(self.0, rest),
            _ => Found::Missing,
        }
    }
}

/// What the framework's own answers are made of.
pub(super) struct FrameworkScope<'a> {
    pub(super) request: &'a Request,
    pub(super) now: Timestamp,
}

impl Scope for FrameworkScope<'_> {
    fn lookup<'s>(&'s self, path: &[Box<str>]) -> Found<'s> {
        match path.get(1).map(|field| &**field) {
            Some("timestamp") => self.now.into(),
            Some("method") => Found::Str(self.request.method().as_str()),
            Some("path") => Found::Str(self.request.uri().path()),
            _ => Found::Missing,
        }
    }
}
