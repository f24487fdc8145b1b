//! Finds settings that no reader asked for, and the name that was probably meant.

use std::collections::BTreeSet;

use super::problem::{Place, Problem, ProblemKind};
use super::reader::{Desk, KeyPath, walk};
use super::tree::{Node, Value};

/// What the name of every variable of ours begins with.
pub(super) const PREFIX: &str = "KIEGATE_";

/// Reports every key of `tree` that was not asked for.
pub(super) fn report(tree: &Node, desk: &Desk<'_>) {
    let known = desk.known();
    walk(tree, &KeyPath::default(), &mut |path, node| {
        let is_item = path.pattern.ends_with(']');
        if is_item || known.contains(&path.pattern) {
            // A list's items are gone through, a table's keys only if it was read as one.
            return matches!(node.value, Value::List(_)) || desk.is_table(&path.pattern);
        }
        desk.report(Problem {
            place: node.place.clone(),
            key: path.shown.clone(),
            what: "unknown key".to_owned(),
            hint: match &node.place {
                Place::Environment(name) => nearest_variable(name, &known),
                _ => Some(nearest_key(path, &known)),
            },
            kind: ProblemKind::Invalid,
        });
        false
    });
}

/// A hint at the variable that was meant by `name`.
fn nearest_variable(name: &str, known: &BTreeSet<String>) -> Option<String> {
    let names: Vec<_> = known.iter().map(|path| variable(path)).collect();
    nearest(name, names.iter().map(String::as_str)).map(|name| format!("did you mean {name}?"))
}

/// The variable that sets the key at `path`; for a list of tables, that of its first item.
fn variable(path: &str) -> String {
    format!("{PREFIX}{}", path.replace("[]", ".0").replace('.', "__").to_ascii_uppercase())
}

/// A hint at the key that was meant by the one at `path`, or at those there are.
fn nearest_key(path: &KeyPath, known: &BTreeSet<String>) -> String {
    let key = path.pattern[path.parent.len()..].trim_start_matches('.');
    let siblings = known.iter().map(|known| split(known)).filter(|(parent, _)| *parent == path.parent);
    let siblings: Vec<_> = siblings.map(|(_, last)| last).collect();
    let near = nearest(key, siblings.iter().copied());
    // A slip of one letter is likelier than the wrong table, and that likelier than two slips.
    let slip = near.filter(|near| strsim::damerau_levenshtein(key, near) == 1);
    let elsewhere = known.iter().find(|known| split(known).1 == key);
    let meant = slip.or(elsewhere.map(String::as_str)).or(near);
    match meant {
        Some(meant) => format!("did you mean \"{meant}\"?"),
        None => format!("there are: {}", siblings.join(", ")),
    }
}

/// The table that the key at `path` is in, and its last name.
fn split(path: &str) -> (&str, &str) {
    path.rsplit_once('.').unwrap_or(("", path))
}

/// The candidate that `word` was probably meant to be: at most a third of its letters away.
pub(super) fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let length = word.strip_prefix(PREFIX).unwrap_or(word).chars().count();
    if length > 64 {
        return None;
    }
    let near = candidates.into_iter().map(|name| (strsim::damerau_levenshtein(word, name), name));
    near.min().filter(|(distance, _)| *distance <= length.div_ceil(3)).map(|(_, name)| name)
}
