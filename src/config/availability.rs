//! The settings that are understood and checked, and that nothing obeys yet.
//!
//! A setting without effect is refused, never silently ignored. Whoever makes one work deletes its line here.

use super::choices::Mode;
use super::problem::{Problem, ProblemKind};
use super::reader::{Desk, KeyPath, walk};
use super::tree::{Node, Value};

/// When a setting is refused.
#[derive(Clone, Copy)]
enum When {
    /// Whenever it is set, be it to its default.
    Set,
    /// When it is set in a mode that asks the paid API.
    SetWhenPaid,
    /// When it is one of these words.
    Is(&'static [&'static str]),
    /// When it is a list of more than this many.
    MoreThan(usize),
}

/// What is not available yet, and when.
const NOT_YET: &[(&str, When)] = &[
    ("mode", When::Is(&["record", "replay"])),
    ("public_url", When::SetWhenPaid),
    ("data_dir", When::Set),
    ("recording", When::Set),
    ("trusted_proxies", When::Set),
    ("store.redis", When::Set),
    ("store.on_outage", When::Set),
    ("upstream.key", When::MoreThan(1)),
    ("upstream.key[].webhook_secret", When::Set),
    ("upstream.key[].creates", When::Set),
    ("upstream.key[].max_concurrent_tasks", When::Set),
    ("upstream.key[].max_wait", When::Set),
    ("cache.max_bytes", When::Set),
    ("cache.finished", When::Set),
    ("cache.running", When::Set),
    ("cache.credits", When::Set),
    ("cache.download_url", When::Set),
    ("callbacks.retry", When::Set),
    ("tenant[].mode", When::Set),
    ("tenant[].upstream_keys", When::Set),
    ("tenant[].allow", When::Set),
    ("tenant[].deny", When::Set),
    ("tenant[].ip_allow", When::Set),
    ("tenant[].weight", When::Set),
    ("tenant[].limits.requests", When::Set),
    ("tenant[].limits.creates", When::Set),
    ("tenant[].limits.concurrent_tasks", When::Set),
    ("tenant[].limits.credits.hour", When::Set),
    ("tenant[].limits.credits.day", When::Set),
    ("tenant[].limits.credits.month", When::Set),
    ("tenant[].callbacks.secret", When::Set),
    ("tenant[].callbacks.allow_hosts", When::Set),
    ("otel.endpoint", When::Set),
];

impl When {
    /// How a message says it, if it holds for `value`.
    fn holds(self, value: &Value, mode: Mode) -> Option<String> {
        const NOT_YET: &str = "not available yet";
        match (self, value) {
            (Self::Set, _) => Some(NOT_YET.to_owned()),
            (Self::SetWhenPaid, _) => mode.is_paid().then(|| format!("{NOT_YET} in {} mode", mode.as_str())),
            (Self::Is(words), Value::Text(text) | Value::Raw(text)) => {
                words.contains(&text.as_str()).then(|| format!("\"{text}\" is {NOT_YET}"))
            }
            (Self::MoreThan(most), Value::List(items)) => {
                (items.len() > most).then(|| format!("more than {most} is {NOT_YET}"))
            }
            _ => None,
        }
    }
}

/// Reports every setting of `tree` that nothing obeys yet.
pub(super) fn report(tree: &Node, mode: Mode, desk: &Desk<'_>) {
    walk(tree, &KeyPath::default(), &mut |path, node| {
        let when = NOT_YET.iter().find(|(key, _)| *key == path.pattern).map(|(_, when)| when);
        if let Some(what) = when.and_then(|when| when.holds(&node.value, mode)) {
            desk.report(Problem {
                place: node.place.clone(),
                key: path.shown.clone(),
                what,
                hint: None,
                kind: ProblemKind::NotAvailableYet,
            });
        }
        true
    });
}

/// The keys of the table, to check that they exist.
#[cfg(test)]
pub(super) fn keys() -> impl Iterator<Item = &'static str> {
    NOT_YET.iter().map(|(key, _)| *key)
}
