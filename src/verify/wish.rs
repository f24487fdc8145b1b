//! What the simulator is told, because a request alone does not say it: how a task ended, and why a call was refused that
//! was in order.

use serde_json::Value;

use crate::catalogue::{Catalogue, EndedAs, ErrorEntry, Found, OperationIx, Scope};
use crate::record::{Answer, Lifecycle};

/// So many endings are tried.
const MOST_TRIED: usize = 4;

/// Says nothing of a request.
struct Silent;

impl Scope for Silent {
    fn lookup<'s>(&'s self, _: &[Box<str>]) -> Found<'s> {
        Found::Missing
    }
}

/// The wishes that may bring about what was recorded of a task, the likeliest first.
pub(super) fn endings(catalogue: &Catalogue, lifecycle: &Lifecycle) -> Vec<String> {
    let Some(operation) = lifecycle.start.asked.operation else { return vec!["success".to_owned()] };
    let Some((ended, body)) = ended(catalogue, lifecycle, operation) else {
        return vec!["success".to_owned()];
    };
    let mut errors: Vec<(u32, &ErrorEntry)> = catalogue
        .errors_of(operation)
        .filter(|(_, error)| error.fails)
        .map(|(_, error)| (likeness(error, &ended, &body), error))
        .collect();
    // What is equally likely stays in the catalogue's order.
    errors.sort_by_key(|(likeness, _)| std::cmp::Reverse(*likeness));
    let failures = errors.iter().take(MOST_TRIED).map(|(_, error)| format!("fail:{}", error.id));
    let has_fallback = catalogue.operation(operation).task().is_some_and(|task| task.fallback.is_some());
    if ended.success && ended.ending == "success" {
        let fallback = has_fallback.then(|| "fallback:success".to_owned());
        return std::iter::once("success".to_owned()).chain(fallback).collect();
    }
    failures.chain(has_fallback.then(|| "fallback:fail".to_owned())).collect()
}

/// Whether the recording goes on to the end of a task.
pub(super) fn is_over(catalogue: &Catalogue, lifecycle: &Lifecycle) -> bool {
    lifecycle.start.asked.operation.is_some_and(|operation| ended(catalogue, lifecycle, operation).is_some())
}

/// How a task ended, by the last that was heard of it.
fn ended(catalogue: &Catalogue, lifecycle: &Lifecycle, operation: OperationIx) -> Option<(EndedAs, Value)> {
    let model = lifecycle.start.asked.model(catalogue);
    let by_record = lifecycle.looks.iter().rev().find_map(|seen| {
        let body = seen.call.answer.json();
        Some((catalogue.progress(operation, model, &body)?.ended?, body))
    });
    let by_callback = || {
        lifecycle.callbacks.iter().rev().find_map(|told| {
            let body: Value = serde_json::from_slice(&told.body).ok()?;
            Some((catalogue.stage(operation, model, &body).ended?, body))
        })
    };
    // A failed version is told by the call for it, with a code.
    by_record.or_else(by_callback)
}

/// How much speaks for `error` as the reason of that end.
fn likeness(error: &ErrorEntry, ended: &EndedAs, body: &Value) -> u32 {
    let text = |name: &str| match error.field(name, &Silent) {
        Found::Text(text) => Some(text),
        _ => None,
    };
    let said =
        |text: Option<String>| text.is_some_and(|text| !text.is_empty() && says(body, &Value::from(text)));
    let code = says(body, &Value::from(error.code)) || says(body, &Value::from(error.code.to_string()));
    4 * u32::from(said(text("message")))
        + 4 * u32::from(said(text("record_message")))
        + 2 * u32::from(error.ending == ended.ending)
        + u32::from(code)
}

/// Whether `wanted` is a value somewhere in `body`.
fn says(body: &Value, wanted: &Value) -> bool {
    match body {
        Value::Array(items) => items.iter().any(|item| says(item, wanted)),
        Value::Object(members) => members.values().any(|member| says(member, wanted)),
        value => value == wanted,
    }
}

/// The wishes that may bring a refusal about that has nothing to do with what was asked for, the likeliest first; none where
/// the request is at fault.
pub(super) fn refusals(catalogue: &Catalogue, operation: OperationIx, answer: &Answer) -> Vec<String> {
    let body = answer.json();
    if body.is_null() {
        return if answer.status >= 500 { vec![format!("http:{}", answer.status)] } else { Vec::new() };
    }
    let code = code(answer, &body);
    if !matches!(code, 401 | 402 | 408 | 429 | 430 | 433 | 451 | 455 | 500..) {
        return Vec::new();
    }
    let fitting = catalogue.errors_of(operation).filter(|(_, error)| error.refuses && error.code == code);
    let mut fitting: Vec<_> = fitting
        .map(|(_, error)| {
            let said = match error.field("message", &Silent) {
                Found::Text(text) => says(&body, &Value::from(text)),
                _ => false,
            };
            (!said, format!("reject:{}", error.id))
        })
        .collect();
    fitting.sort_by_key(|(is_other, _)| *is_other);
    fitting.into_iter().map(|(_, wish)| wish).take(MOST_TRIED).collect()
}

/// What an answer says became of the call.
pub(super) fn code(answer: &Answer, body: &Value) -> u16 {
    let said = |place: &str| u16::try_from(body.pointer(place)?.as_u64()?).ok();
    ["/code", "/error/code"].into_iter().find_map(said).unwrap_or(answer.status)
}
