//! `/_mock/requests`, `/_mock/verify`, `/_mock/verdict`: what a client did, and whether that is as it should be.

use std::fmt::Write as _;

use axum::Json;
use axum::body::Bytes;
use axum::extract::{RawQuery, State};
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use http::header::CONTENT_TYPE;
use serde_json::{Map, Value, json};

use super::super::Sim;
use super::super::journal::{Search, nearest};
use super::super::matching::{CONDITIONS, Matcher};
use super::super::plan::{Ending, State as TaskState};
use super::super::task::{Lineage, TaskKey};
use super::super::verdict::{self, CHECKS, Evidence, Finding, judge};
use super::super::view::{Setting, View};
use super::{Answer, Caller, Fields};
use crate::error::ProblemDocument;

/// So many calls are shown to who does not say how many: the latest.
const MOST_SHOWN: usize = 1000;
/// So many near misses are told.
const MOST_NEAR: usize = 5;

pub(super) async fn requests(State(sim): State<Sim>, caller: Caller, RawQuery(query): RawQuery) -> Answer {
    const KNOWN: [&str; 8] = ["operation", "model", "prompt", "match", "unmatched", "after", "limit", "last"];
    let mut fields = Fields::read_query(query.as_deref(), &KNOWN)?;
    let after = fields.take_count("after")?.unwrap_or(0) as u64;
    let limit = fields.take_count("limit")?.unwrap_or(usize::MAX);
    let last = fields.take_count("last")?;
    let last = last.or_else(|| (limit == usize::MAX).then_some(MOST_SHOWN));
    let unmatched =
        fields.take("unmatched", "true or false", |value| value.as_str()?.parse::<bool>().ok())?;
    let matcher = matcher_of(&mut fields)?;
    let (all, dropped) = caller.with_world(&sim, |world, _| (world.journal.all(), world.journal.dropped()));
    let search = Search { matcher: matcher.as_ref(), after };
    let mut found = search.among(sim.catalogue(), &all);
    if let Some(unmatched) = unmatched {
        found.retain(|entry| entry.note.rule.is_none() == unmatched);
    }
    let total = found.len();
    if let Some(last) = last {
        found.drain(..total.saturating_sub(last));
    }
    let shown: Vec<Value> = found.iter().take(limit).map(|entry| entry.to_json(sim.catalogue())).collect();
    Ok(Json(json!({"requests": shown, "total": total, "dropped": dropped})))
}

/// The conditions in a query: `operation`, `model` and `prompt` by name, all of them as JSON in `match`.
fn matcher_of(fields: &mut Fields) -> Result<Option<Matcher>, ProblemDocument> {
    let mut written = fields
        .take("match", "an object as JSON, as in match={\"prompt\":\"storm\"}", |value| {
            serde_json::from_str::<Map<String, Value>>(value.as_str()?).ok()
        })?
        .unwrap_or_default();
    for name in ["operation", "model", "prompt"] {
        if let Some(value) = fields.take(name, "text", |value| value.as_str().map(Value::from))? {
            written.insert(name.to_owned(), value);
        }
    }
    if written.is_empty() {
        return Ok(None);
    }
    Matcher::read("match", &written.into()).map(Some).map_err(ProblemDocument::bad_request)
}

pub(super) async fn clear(State(sim): State<Sim>, caller: Caller) -> Json<Value> {
    caller.with_world(&sim, |world, _| world.journal.clear());
    Json(json!({"ok": true}))
}

/// How many calls are expected, both ends included.
struct Expected {
    min: u64,
    max: u64,
}

impl Expected {
    /// Reads `2`, `{"min": 1, "max": 3}` or either of the two alone.
    fn read(value: &Value) -> Option<Self> {
        if let Some(count) = value.as_u64() {
            return Some(Self { min: count, max: count });
        }
        let members = value.as_object()?;
        if members.is_empty() || members.keys().any(|name| !["min", "max"].contains(&name.as_str())) {
            return None;
        }
        let bound = |name: &str, otherwise| members.get(name).map_or(Some(otherwise), Value::as_u64);
        let (min, max) = (bound("min", 0)?, bound("max", u64::MAX)?);
        (min <= max).then_some(Self { min, max })
    }

    fn shown(&self) -> String {
        match (self.min, self.max) {
            (min, max) if min == max => format!("exactly {min}"),
            (min, u64::MAX) => format!("at least {min}"),
            (0, max) => format!("at most {max}"),
            (min, max) => format!("{min} to {max}"),
        }
    }
}

pub(super) async fn verify(State(sim): State<Sim>, caller: Caller, body: Bytes) -> Answer {
    let mut fields = Fields::read(&body, &["match", "count"])?;
    let expected = fields.take("count", "a whole number, or {\"min\": 1, \"max\": 3}", Expected::read)?;
    let expected = expected.unwrap_or(Expected { min: 1, max: u64::MAX });
    let written = fields.take("match", "an object of conditions", |value| Some(value.clone()))?;
    let hint = || {
        let what = format!("match: say which requests are meant, by {}", CONDITIONS.join(", "));
        ProblemDocument::bad_request(what)
    };
    let matcher = Matcher::read("match", &written.ok_or_else(hint)?).map_err(ProblemDocument::bad_request)?;
    if matcher.is_empty() {
        return Err(hint());
    }
    let (all, dropped) = caller.with_world(&sim, |world, _| (world.journal.all(), world.journal.dropped()));
    let found = Search { matcher: Some(&matcher), after: 0 }.among(sim.catalogue(), &all);
    let numbers: Vec<u64> = found.iter().map(|entry| entry.number).collect();
    let count = numbers.len() as u64;
    if (expected.min..=expected.max).contains(&count) {
        return Ok(Json(json!({"ok": true, "count": count, "requests": numbers})));
    }
    let mut message = format!("expected {} of {}, found {count}", expected.shown(), matcher.to_json());
    if dropped > 0 {
        let _ = write!(message, "; {dropped} earlier calls are no longer known");
    }
    // Where there are too many, those that fit are of interest; where too few, those that nearly do.
    let near =
        if count < expected.min { nearest(sim.catalogue(), &all, &matcher, MOST_NEAR) } else { Vec::new() };
    let refusal = ProblemDocument::new(StatusCode::UNPROCESSABLE_ENTITY, message);
    let refusal = refusal.with("ok", false).with("count", count).with("expected", expected.shown());
    Err(refusal.with("requests", numbers).with("nearest", near).with("total", all.len()))
}

pub(super) async fn verdict(
    State(sim): State<Sim>,
    caller: Caller,
    RawQuery(query): RawQuery,
) -> Result<Response, ProblemDocument> {
    let mut fields = Fields::read_query(query.as_deref(), &["format", "ignore"])?;
    let as_junit = fields.take("format", "json or junit", |value| match value.as_str()? {
        "json" => Some(false),
        "junit" => Some(true),
        _ => None,
    })?;
    let names = CHECKS.map(|(name, _)| name);
    let ignored =
        fields.take("ignore", &format!("some of {}, separated by commas", names.join(", ")), |value| {
            let listed: Vec<String> = value.as_str()?.split(',').map(|name| name.trim().to_owned()).collect();
            listed.iter().all(|name| names.contains(&name.as_str())).then_some(listed)
        })?;
    let ignored = ignored.unwrap_or_default();
    let checks: Vec<_> =
        CHECKS.into_iter().filter(|(name, _)| !ignored.iter().any(|ignored| ignored == name)).collect();
    let mut findings = findings(&sim, &caller);
    findings.retain(|finding| checks.iter().any(|(check, _)| *check == finding.check));
    if as_junit == Some(true) {
        let report = verdict::junit(&findings, &checks);
        return Ok(([(CONTENT_TYPE, "application/xml; charset=utf-8")], report).into_response());
    }
    let shown: Vec<Value> = findings.iter().map(Finding::to_json).collect();
    let checked: Vec<&str> = checks.iter().map(|(check, _)| *check).collect();
    Ok(Json(json!({"ok": findings.is_empty(), "checked": checked, "findings": shown})).into_response())
}

/// What the caller's sandbox makes of its client.
fn findings(sim: &Sim, caller: &Caller) -> Vec<Finding> {
    let (calls, attempts, min_poll) = caller.with_world(sim, |world, _| {
        let attempts: Vec<_> = world.attempts.entries.iter().cloned().collect();
        (world.journal.all(), attempts, world.settings.min_poll)
    });
    let results = results(sim, caller);
    judge(&Evidence {
        catalogue: sim.catalogue(),
        calls: &calls,
        attempts: &attempts,
        results: &results,
        min_poll,
    })
}

/// The tasks that have ended well and made files, and whether any of these was fetched.
fn results(sim: &Sim, caller: &Caller) -> Vec<(TaskKey, bool)> {
    let (ended, now): (Vec<(Lineage, bool)>, _) = caller.with_world(sim, |world, now| {
        let good = |state| matches!(state, TaskState::Ended(Ending::Success { .. }));
        let keys = world.in_order().filter(|(_, task)| good(task.plan.state_at(now))).map(|(key, _)| key);
        let ended = keys.filter_map(|key| Some((world.lineage(key)?, world.fetched.contains(&key))));
        (ended.collect(), now)
    });
    let setting = Setting {
        catalogue: sim.catalogue(),
        sandbox: caller.sandbox.id,
        now,
        origin: "",
        request: &Value::Null,
    };
    let has_files = |lineage: &Lineage| {
        let view = View::new(setting, lineage);
        // What a test made up leads elsewhere.
        lineage.task.result.is_none() && view.files().iter().any(|file| view.has_file(file))
    };
    ended
        .iter()
        .filter(|(lineage, _)| has_files(lineage))
        .map(|(lineage, fetched)| (lineage.key, *fetched))
        .collect()
}
