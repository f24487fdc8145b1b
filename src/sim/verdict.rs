//! How a client behaved, judged by what its sandbox remembers: things that go well in a test and cost money or results
//! against the real API.
//!
//! Pure: it reads the journal, the callbacks and the tasks, and changes nothing.

use std::collections::{HashMap, HashSet};
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use super::journal::{Answered, Entry};
use super::log::Attempt;
use super::task::{TaskKey, fingerprint};
use crate::catalogue::{Behaviour, Catalogue, Class};

/// A receiver that takes longer than this is late: the real sender waits for 15 s, and tries again.
const LATE: Duration = Duration::from_secs(5);
/// After a lost answer, the same create within this span is taken for an attempt to repeat it.
const REPEATED: Duration = Duration::from_mins(10);
/// How long to leave alone what answered 429 and did not say.
const BACK_OFF: Duration = Duration::from_secs(1);

/// What is judged: a name for machines, and what it means.
pub(super) const CHECKS: [(&str, &str); 6] = [
    ("polled_too_fast", "a task was asked for more often than once every min_poll"),
    ("resubmitted", "a create was sent again after its answer was lost, which makes and pays for two tasks"),
    ("ignored_429", "a call came too soon after one of its kind was answered 429"),
    ("callback_answered_badly", "a callback was answered late, or not with 2xx"),
    ("broke_on_duplicate", "a callback that came twice was answered well only once"),
    ("never_fetched", "the result of a task was never fetched; it expires"),
];

/// Something that a client should not have done.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Finding {
    /// One of [`CHECKS`].
    pub(super) check: &'static str,
    pub(super) task: Option<String>,
    pub(super) message: String,
    /// Numbers in the journal.
    pub(super) requests: Vec<u64>,
}

/// What is known of a sandbox.
pub(super) struct Evidence<'a> {
    pub(super) catalogue: &'a Catalogue,
    pub(super) calls: &'a [Arc<Entry>],
    pub(super) attempts: &'a [Arc<Attempt>],
    /// Tasks that have ended well and made files, and whether any of these was fetched.
    pub(super) results: &'a [(TaskKey, bool)],
    pub(super) min_poll: Duration,
}

/// All findings, in the order of [`CHECKS`].
pub(super) fn judge(evidence: &Evidence<'_>) -> Vec<Finding> {
    let checks: [fn(&Evidence<'_>) -> Vec<Finding>; 6] =
        [polled_too_fast, resubmitted, ignored_429, answered_badly, broke_on_duplicate, never_fetched];
    checks.iter().flat_map(|check| check(evidence)).collect()
}

/// The time between two calls: by the sandbox's clock or really, whichever is more, since a frozen clock stands still
/// between polls and a fast one leaps.
fn between(earlier: &Entry, later: &Entry) -> Duration {
    later.at.saturating_since(earlier.at).max(later.real.saturating_since(earlier.real))
}

fn polled_too_fast(evidence: &Evidence<'_>) -> Vec<Finding> {
    let mut last: HashMap<String, &Entry> = HashMap::new();
    let mut fast: Vec<(String, Vec<u64>, Duration)> = Vec::new();
    for call in evidence.calls {
        let Some(operation) = call.operation.map(|index| evidence.catalogue.operation(index)) else {
            continue;
        };
        let Behaviour::Details(lookup, _) = &operation.behaviour else { continue };
        let read = call.read(evidence.catalogue);
        let Some(task) = read.request().pointer(&lookup.at).and_then(Value::as_str) else { continue };
        let Some(earlier) = last.insert(task.to_owned(), call) else { continue };
        let gap = between(earlier, call);
        if gap >= evidence.min_poll {
            continue;
        }
        match fast.iter_mut().find(|(known, ..)| known == task) {
            Some((_, calls, shortest)) => {
                calls.push(call.number);
                *shortest = gap.min(*shortest);
            }
            None => fast.push((task.to_owned(), vec![call.number], gap)),
        }
    }
    let finding = |(task, requests, gap): (String, Vec<u64>, Duration)| Finding {
        check: "polled_too_fast",
        message: format!(
            "task {task} was asked for {} times sooner than {:?} after the time before, once after {gap:?}; wait longer between polls, or use a callback",
            requests.len(),
            evidence.min_poll
        ),
        task: Some(task),
        requests,
    };
    fast.into_iter().map(finding).collect()
}

/// Whether the client cannot know what became of a call.
fn is_lost(answer: Option<&Answered>) -> bool {
    answer.is_none_or(|answer| {
        answer.status.as_u16() >= 500
            || answer.fault.as_deref().is_some_and(|fault| !fault.starts_with("fault:slow"))
            || !answer.is_complete()
    })
}

fn resubmitted(evidence: &Evidence<'_>) -> Vec<Finding> {
    let mut lost: HashMap<String, &Entry> = HashMap::new();
    let mut findings = Vec::new();
    for call in evidence.calls {
        let Some(operation) = call.operation.map(|index| evidence.catalogue.operation(index)) else {
            continue;
        };
        let Behaviour::Create(kind, _) = &operation.behaviour else { continue };
        let read = call.read(evidence.catalogue);
        let print = format!("{} {}", operation.id, fingerprint(read.request(), &kind.callback_at));
        if let Some(earlier) = lost.get(&print).filter(|earlier| between(earlier, call) <= REPEATED) {
            findings.push(Finding {
                check: "resubmitted",
                task: None,
                message: format!(
                    "{} was sent again as request {} though the answer to request {} was lost: the first may have made a task, and both are paid for; look for it before, or send an Idempotency-Key through the gateway",
                    operation.id, call.number, earlier.number
                ),
                requests: vec![earlier.number, call.number],
            });
        }
        if is_lost(call.answered()) {
            lost.insert(print, call);
        } else {
            lost.remove(&print);
        }
    }
    findings
}

/// How long a 429 asks to be left alone.
fn back_off(answer: &Answered) -> Option<Duration> {
    let code = answer.json()["code"].as_u64();
    if answer.status.as_u16() != 429 && code != Some(429) {
        return None;
    }
    let told = answer.header("retry-after").and_then(|seconds| seconds.parse().ok()).map(Duration::from_secs);
    Some(told.unwrap_or(BACK_OFF))
}

fn ignored_429(evidence: &Evidence<'_>) -> Vec<Finding> {
    let mut refused: HashMap<&str, (&Entry, Duration)> = HashMap::new();
    let mut findings = Vec::new();
    for call in evidence.calls {
        let Some(operation) = call.operation.map(|index| evidence.catalogue.operation(index)) else {
            continue;
        };
        // The account's quota is one for all creates; any other limit is the operation's own.
        let kind = match operation.class {
            Class::Create => "creates",
            _ => operation.id.as_str(),
        };
        if let Some((earlier, pause)) = refused.remove(kind)
            && between(earlier, call) < pause
        {
            findings.push(Finding {
                check: "ignored_429",
                task: None,
                message: format!(
                    "request {} came {:?} after request {} was answered 429, which asks for {pause:?}; back off, longer each time",
                    call.number,
                    between(earlier, call),
                    earlier.number
                ),
                requests: vec![earlier.number, call.number],
            });
        }
        if let Some(pause) = call.answered().and_then(back_off) {
            refused.insert(kind, (call, pause));
        }
    }
    findings
}

/// The attempts that reached for the client itself: not an inbox, which answers as a test asked for, and not ones that a
/// fault kept back.
fn of_client<'a>(evidence: &'a Evidence<'_>) -> impl Iterator<Item = &'a Arc<Attempt>> {
    evidence
        .attempts
        .iter()
        .filter(|attempt| attempt.verdict != "dropped" && !attempt.url.contains("/_mock/inbox/"))
}

fn answered_badly(evidence: &Evidence<'_>) -> Vec<Finding> {
    let wrong = |attempt: &&Arc<Attempt>| {
        !attempt.bad_signature && (attempt.took > LATE || !matches!(attempt.result, Ok(200..=299)))
    };
    let finding = |attempt: &Arc<Attempt>| {
        let what = match &attempt.result {
            Ok(status @ 200..=299) => format!("answered {status}, but only after {:?}", attempt.took),
            Ok(status) => format!("was answered {status}"),
            Err(error) => format!("got no answer: {error}"),
        };
        Finding {
            check: "callback_answered_badly",
            task: Some(attempt.task.clone()),
            message: format!(
                "attempt {} to call {} back {what}; answer 200 at once and work afterwards",
                attempt.due.attempt + 1,
                attempt.url
            ),
            requests: Vec::new(),
        }
    };
    of_client(evidence).filter(wrong).map(finding).collect()
}

fn broke_on_duplicate(evidence: &Evidence<'_>) -> Vec<Finding> {
    let good = |attempt: &Attempt| matches!(attempt.result, Ok(200..=299));
    let stage = |attempt: &Attempt| (attempt.due.task, attempt.due.stage, attempt.url.clone());
    let mut taken = HashSet::new();
    let mut findings = Vec::new();
    for attempt in of_client(evidence) {
        if good(attempt) {
            taken.insert(stage(attempt));
        } else if taken.contains(&stage(attempt)) {
            findings.push(Finding {
                check: "broke_on_duplicate",
                task: Some(attempt.task.clone()),
                message: format!(
                    "{} took a callback and did not take the same one again; it may come more than once",
                    attempt.url
                ),
                requests: Vec::new(),
            });
        }
    }
    findings
}

fn never_fetched(evidence: &Evidence<'_>) -> Vec<Finding> {
    let finding = |(task, _): &(TaskKey, bool)| Finding {
        check: "never_fetched",
        task: Some(task.to_string()),
        message: format!(
            "task {task} has a result that nobody fetched; keep a copy before its address expires"
        ),
        requests: Vec::new(),
    };
    evidence.results.iter().filter(|(_, fetched)| !fetched).map(finding).collect()
}

impl Finding {
    /// As the control API shows it.
    pub(super) fn to_json(&self) -> Value {
        json!({"check": self.check, "task": self.task, "message": self.message, "requests": self.requests})
    }
}

/// The findings as a report in the form of `JUnit`: a test case for each of `checks`.
pub(super) fn junit(findings: &[Finding], checks: &[(&str, &str)]) -> String {
    let of = |check: &str| findings.iter().filter(|finding| finding.check == check).collect::<Vec<_>>();
    let failures = checks.iter().filter(|(check, _)| !of(check).is_empty()).count();
    let mut report = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites>\n<testsuite name=\"kiegate.verdict\" tests=\"{}\" failures=\"{failures}\" errors=\"0\" skipped=\"0\">\n",
        checks.len()
    );
    for (check, meaning) in checks {
        let found = of(check);
        let _ = write!(report, "<testcase classname=\"kiegate.verdict\" name=\"{check}\"");
        if found.is_empty() {
            report.push_str("/>\n");
            continue;
        }
        let told: Vec<&str> = found.iter().map(|finding| finding.message.as_str()).collect();
        let _ = write!(
            report,
            ">\n<failure message=\"{}\">{}</failure>\n</testcase>\n",
            escaped(meaning),
            escaped(&told.join("\n"))
        );
    }
    report.push_str("</testsuite>\n</testsuites>\n");
    report
}

/// As XML wants text: what it cannot hold at all is left out.
fn escaped(text: &str) -> String {
    let mut escaped = String::new();
    for sign in text.chars() {
        match sign {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\n' | '\t' => escaped.push(sign),
            _ if sign.is_control() => {}
            _ => escaped.push(sign),
        }
    }
    escaped
}
