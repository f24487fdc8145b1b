//! Secrets, which the configuration names and does not contain: `env:NAME` or `file:/path`.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use super::problem::Place;
use super::reader::Item;
use crate::ids::Secret;

/// Ways to write a secret, for messages.
const EXPECTED: &str = "\"env:NAME\" or \"file:/path\"";

/// The name of the variable that `text` refers to, if it does.
pub(super) fn variable(text: &str) -> Option<&str> {
    text.strip_prefix("env:")
}

/// The secret that `item` refers to. A literal one is taken from the environment only: that is no file that
/// gets committed, nor a command line that others can see.
pub(super) fn secret(item: &Item<'_>) -> Option<Secret> {
    let text = item.text(EXPECTED)?;
    if is_reference(text) || matches!(item.place, Place::Environment(_)) {
        return resolved(item, text);
    }
    item.wrong("a secret is not written down here", Some(format!("write {EXPECTED}")));
    None
}

/// Like [`secret`], for one that is public anyway: it may be written in the file.
pub(super) fn public_secret(item: &Item<'_>) -> Option<Secret> {
    resolved(item, item.text("text")?)
}

fn is_reference(text: &str) -> bool {
    text.starts_with("env:") || text.starts_with("file:")
}

/// What `text` refers to; `text` itself if it is no reference.
fn resolved(item: &Item<'_>, text: &str) -> Option<Secret> {
    let content = if let Some(name) = variable(text) {
        item.desk.environment.get(name).cloned().ok_or_else(|| "is not set".to_owned())
    } else if let Some(path) = text.strip_prefix("file:") {
        content(Path::new(path))
    } else {
        Ok(text.to_owned())
    };
    let source = if is_reference(text) { text } else { "the value" };
    content
        .and_then(checked)
        .map_err(|what| item.wrong(format!("{} {what}", source.escape_debug()), None))
        .ok()
}

/// The secret itself, if it can travel in a header; else why not, in words.
fn checked(mut value: String) -> Result<Secret, String> {
    let end =
        value.strip_suffix('\n').map_or(value.len(), |rest| rest.strip_suffix('\r').unwrap_or(rest).len());
    value.truncate(end);
    if value.is_empty() {
        return Err("is empty".to_owned());
    }
    if value.contains(char::is_control) {
        return Err("contains a line break or another control character".to_owned());
    }
    Ok(Secret::new(value))
}

/// The text of a small file; else why not, in words.
fn content(path: &Path) -> Result<String, String> {
    const LARGEST: u64 = 64 * 1024;
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(|error| format!("cannot be read: {error}"))?;
    file.take(LARGEST + 1).read_to_end(&mut bytes).map_err(|error| format!("cannot be read: {error}"))?;
    if bytes.len() as u64 > LARGEST {
        return Err("is larger than any secret (64 KiB)".to_owned());
    }
    String::from_utf8(bytes).map_err(|_| "is not UTF-8 text".to_owned())
}
