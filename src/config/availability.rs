//! The settings that are understood and checked, and that nothing obeys yet.
//!
//! A setting without effect is refused, never silently ignored. Whoever makes one work deletes its line here.

use super::problem::{Problem, ProblemKind};
use super::reader::{Desk, KeyPath, walk};
use super::tree::Node;

/// What is not available yet; it is refused whenever it is set, be it to its default.
const NOT_YET: &[&str] = &["data_dir", "store.redis", "store.on_outage", "otel.endpoint"];

/// Reports every setting of `tree` that nothing obeys yet.
pub(super) fn report(tree: &Node, desk: &Desk<'_>) {
    walk(tree, &KeyPath::default(), &mut |path, node| {
        if NOT_YET.contains(&path.pattern.as_str()) {
            desk.report(Problem {
                place: node.place.clone(),
                key: path.shown.clone(),
                what: "not available yet".to_owned(),
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
    NOT_YET.iter().copied()
}
