//! Parts that several templates of a family have in common, written once.
//!
//! `{"$use": "track", "n": "first"}` stands for the part `track` of the family's `templates`, in which every string `@n`
//! is replaced by the value given here, and `@{n}` within a string by its text.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde_json::{Map, Value};

/// Parts by name, as the family's file has them.
pub(super) type Parts = BTreeMap<String, Value>;

/// Parts within parts go no deeper than this: one that uses itself is told.
const DEEPEST: usize = 8;

/// `source` with every part in its place.
///
/// # Errors
/// A part that does not exist, or uses itself, in words.
pub(super) fn expand<'v>(source: &'v Value, parts: &Parts) -> Result<Cow<'v, Value>, String> {
    if parts.is_empty() { Ok(Cow::Borrowed(source)) } else { expanded(source, parts, 0).map(Cow::Owned) }
}

fn expanded(source: &Value, parts: &Parts, depth: usize) -> Result<Value, String> {
    match source {
        Value::Array(items) => items.iter().map(|item| expanded(item, parts, depth)).collect(),
        Value::Object(members) if members.contains_key("$use") => used(members, parts, depth),
        Value::Object(members) => {
            let member = |(key, value): (&String, &Value)| Ok((key.clone(), expanded(value, parts, depth)?));
            members.iter().map(member).collect::<Result<Map<_, _>, _>>().map(Value::Object)
        }
        other => Ok(other.clone()),
    }
}

fn used(given: &Map<String, Value>, parts: &Parts, depth: usize) -> Result<Value, String> {
    let name = given["$use"].as_str().ok_or("$use takes the name of a part")?;
    let part = parts.get(name).ok_or_else(|| format!("there is no part \"{name}\" in templates"))?;
    if depth == DEEPEST {
        return Err(format!("the part \"{name}\" uses itself"));
    }
    expanded(&filled(part, given), parts, depth + 1)
}

fn filled(part: &Value, given: &Map<String, Value>) -> Value {
    match part {
        Value::String(text) => match text.strip_prefix('@').and_then(|name| given.get(name)) {
            Some(value) => value.clone(),
            None => Value::from(filled_text(text, given)),
        },
        Value::Array(items) => items.iter().map(|item| filled(item, given)).collect(),
        Value::Object(members) => {
            members.iter().map(|(key, value)| (key.clone(), filled(value, given))).collect()
        }
        other => other.clone(),
    }
}

fn filled_text(text: &str, given: &Map<String, Value>) -> String {
    given.iter().fold(text.to_owned(), |text, (name, value)| match value.as_str() {
        Some(value) => text.replace(&format!("@{{{name}}}"), value),
        None => text.replace(&format!("@{{{name}}}"), &value.to_string()),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn parts() -> Parts {
        let parts = json!({
            "track": {"id": "${draw.@{n}}", "kind": "@kind", "mail": "a@b"},
            "both": [{"$use": "track", "n": "one", "kind": 1}, {"$use": "track", "n": "two", "kind": "@kind"}],
            "loop": {"$use": "loop"},
        });
        serde_json::from_value(parts).unwrap()
    }

    #[test]
    fn a_part_is_filled_in_where_it_is_used() {
        let body = json!({"data": {"$use": "both", "kind": null}});
        let expected = json!({"data": [
            {"id": "${draw.one}", "kind": 1, "mail": "a@b"},
            {"id": "${draw.two}", "kind": null, "mail": "a@b"},
        ]});
        assert_eq!(*expand(&body, &parts()).unwrap(), expected);
    }

    #[test]
    fn mistakes_are_named() {
        let error = |body: Value| expand(&body, &parts()).unwrap_err();
        assert_eq!(error(json!([{"$use": "trakc"}])), "there is no part \"trakc\" in templates");
        assert_eq!(error(json!({"$use": "loop"})), "the part \"loop\" uses itself");
    }
}
