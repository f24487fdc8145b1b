//! Conditions on a request, as tables in the catalogue: which rate or case holds.

use serde_json::{Map, Value};

/// What must hold of a request: all of its parts.
///
/// In the files: an object of JSON pointers, each with what must be there: a value, a list of values (an absent field
/// counts as null), `{"given": true}` (a value that is not empty) or `{"from": 5, "to": 10}` (a number within bounds,
/// both included, either of which may be missing; text such as `"10"` counts).
#[derive(Debug, Clone, Default)]
pub struct Condition {
    source: Map<String, Value>,
    parts: Vec<(String, Expected)>,
}

#[derive(Debug, Clone)]
enum Expected {
    OneOf(Vec<Value>),
    Given(bool),
    Within(f64, f64),
}

impl Condition {
    /// Reads it from a file's JSON.
    ///
    /// # Errors
    /// What is wrong with it, in words.
    pub fn parse(source: &Map<String, Value>) -> Result<Self, String> {
        let part = |(pointer, expected): (&String, &Value)| {
            if !pointer.starts_with('/') {
                return Err(format!("\"{pointer}\" must be a JSON pointer such as \"/quality\""));
            }
            Ok((pointer.clone(), Expected::parse(expected)?))
        };
        let parts = source.iter().map(part).collect::<Result<_, _>>()?;
        Ok(Self { source: source.clone(), parts })
    }

    /// As it stands in the file.
    pub fn source(&self) -> &Map<String, Value> {
        &self.source
    }

    /// Whether it holds of `request`.
    pub fn holds(&self, request: &Value) -> bool {
        self.parts
            .iter()
            .all(|(pointer, expected)| expected.admits(request.pointer(pointer).unwrap_or(&Value::Null)))
    }
}

impl Expected {
    fn parse(source: &Value) -> Result<Self, String> {
        let members = match source {
            Value::Array(choices) => return Ok(Self::OneOf(choices.clone())),
            Value::Object(members) => members,
            one => return Ok(Self::OneOf(vec![one.clone()])),
        };
        let bound = |name: &str, absent: f64| match members.get(name) {
            None => Ok(absent),
            Some(bound) => bound.as_f64().ok_or_else(|| format!("\"{name}\" must be a number")),
        };
        let known = |names: &[&str]| members.keys().all(|key| names.contains(&key.as_str()));
        match members.get("given") {
            Some(Value::Bool(given)) if known(&["given"]) => Ok(Self::Given(*given)),
            None if known(&["from", "to"]) && !members.is_empty() => {
                Ok(Self::Within(bound("from", f64::NEG_INFINITY)?, bound("to", f64::INFINITY)?))
            }
            _ => Err("a condition is a value, a list of values, {\"given\": true} or \
                      {\"from\": 1, \"to\": 2}"
                .into()),
        }
    }

    fn admits(&self, found: &Value) -> bool {
        match self {
            Self::OneOf(choices) => choices.iter().any(|choice| same(choice, found)),
            Self::Given(given) => *given != is_empty(found),
            Self::Within(from, to) => number(found).is_some_and(|number| (*from..=*to).contains(&number)),
        }
    }
}

/// Whether two values are equal; 5 and 5.0 are.
fn same(one: &Value, other: &Value) -> bool {
    one == other || one.is_number() && other.is_number() && one.as_f64() == other.as_f64()
}

/// A number, be it written as one or as text.
pub(super) fn number(value: &Value) -> Option<f64> {
    value.as_f64().or_else(|| value.as_str()?.trim().parse().ok()).filter(|number| number.is_finite())
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn holds(condition: &Value, request: &Value) -> bool {
        Condition::parse(condition.as_object().unwrap()).unwrap().holds(request)
    }

    #[test]
    fn each_part_must_hold() {
        let request = json!({"quality": "high", "seconds": "10", "urls": [], "text": "x"});
        assert!(holds(&json!({"/quality": "high", "/seconds": [5, "10"]}), &request));
        assert!(!holds(&json!({"/quality": "high", "/seconds": 10}), &request));
        assert!(holds(&json!({"/other": [null, 1]}), &request));
        assert!(holds(&json!({"/n": 5}), &json!({"n": 5.0})));
        assert!(holds(&json!({"/seconds": {"from": 6, "to": 10}}), &request));
        assert!(!holds(&json!({"/seconds": {"from": 11}}), &request));
        assert!(!holds(&json!({"/other": {"to": 10}}), &request));
        assert!(holds(&json!({"/urls": {"given": false}, "/text": {"given": true}}), &request));
        assert!(!holds(&json!({"/other": {"given": true}}), &request));
    }

    #[test]
    fn mistakes_are_named() {
        let error = |condition: Value| Condition::parse(condition.as_object().unwrap()).unwrap_err();
        assert!(error(json!({"quality": 1})).contains("JSON pointer"));
        assert!(error(json!({"/a": {"given": 1}})).starts_with("a condition is"));
        assert!(error(json!({"/a": {"from": 1, "give": true}})).starts_with("a condition is"));
        assert_eq!(error(json!({"/a": {"from": "x"}})), "\"from\" must be a number");
    }
}
