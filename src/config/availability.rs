//! The settings that are understood and checked, and that nothing obeys yet.
//!
//! A setting without effect is refused, never silently ignored. Whoever makes one work deletes its line here.

use super::problem::{Problem, ProblemKind};
use super::reader::{Desk, KeyPath, walk};
use super::tree::{Node, Value};

/// When a setting is refused.
#[derive(Clone, Copy)]
enum When {
    /// Whenever it is set, be it to its default.
    Set,
    /// When it is one of these words.
    Is(&'static [&'static str]),
}

/// What is not available yet, and when.
const NOT_YET: &[(&str, When)] = &[
    ("mode", When::Is(&["record", "replay"])),
    ("tenant[].mode", When::Is(&["record", "replay"])),
    ("data_dir", When::Set),
    ("recording", When::Set),
    ("store.redis", When::Set),
    ("store.on_outage", When::Set),
    ("otel.endpoint", When::Set),
];

impl When {
    /// How a message says it, if it holds for `value`.
    fn holds(self, value: &Value) -> Option<String> {
        const NOT_YET: &str = "not available yet";
        match (self, value) {
            (Self::Set, _) => Some(NOT_YET.to_owned()),
            (Self::Is(words), Value::Text(text) | Value::Raw(text)) => {
                words.contains(&text.as_str()).then(|| format!("\"{text}\" is {NOT_YET}"))
            }
            _ => None,
        }
    }
}

/// Reports every setting of `tree` that nothing obeys yet.
pub(super) fn report(tree: &Node, desk: &Desk<'_>) {
    walk(tree, &KeyPath::default(), &mut |path, node| {
        let when = NOT_YET.iter().find(|(key, _)| *key == path.pattern).map(|(_, when)| when);
        if let Some(what) = when.and_then(|when| when.holds(&node.value)) {
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
