//! Templates read backwards: what the holes of a body were filled with.
//!
//! A body need not be one that the template made: what it has beside is passed over, what it lacks stays unknown.

use std::collections::HashMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use serde_json::{Map, Value};

use super::{Expression, Filter, Found, Node, Piece, Scope, Template, Term};
use crate::clock::Timestamp;

/// What is known by dotted names, taken from a body.
#[derive(Clone, Debug, Default)]
pub struct Bindings(HashMap<String, Value>);

impl Bindings {
    /// The value of `path`, if it is known.
    pub fn get(&self, path: &[Box<str>]) -> Option<&Value> {
        self.0.get(&path.join("."))
    }

    fn note(&mut self, path: &[Box<str>], value: Value) {
        if !value.is_null() {
            self.0.insert(path.join("."), value);
        }
    }
}

/// Members whose text is for people, and may be worded otherwise.
const WORDS: [&str; 2] = ["msg", "message"];

impl Template {
    /// Whether `body` may be one of these: where the template always says the same, the body says so, too. Texts for
    /// people do not count.
    pub fn fits(&self, body: &Value) -> bool {
        self.0.fits(body, None)
    }

    /// The same, where `name` is known to be `value`: then only that case of what depends on it counts.
    pub fn fits_where(&self, body: &Value, name: &str, value: &str) -> bool {
        self.0.fits(body, Some((name, value)))
    }

    /// What stands in `body` where the template has a hole that is nothing but `name`.
    pub fn at_hole<'v>(&self, body: &'v Value, name: &str) -> Option<&'v Value> {
        self.0.at_hole(body, name)
    }

    /// Notes in `bindings` what the holes of `body` were filled with. `scope` is asked which case of a `$by` holds, and
    /// what templates stand in others.
    pub fn bind(&self, body: &Value, scope: &dyn Scope, bindings: &mut Bindings) {
        self.0.bind(body, scope, bindings);
    }
}

fn fixed_fits(fixed: &Value, body: &Value) -> bool {
    match (fixed, body) {
        (Value::Object(fixed), Value::Object(body)) => fixed
            .iter()
            .filter(|(name, value)| !WORDS.contains(&name.as_str()) && !value.is_null())
            .all(|(name, value)| body.get(name).is_some_and(|body| fixed_fits(value, body))),
        (Value::Array(fixed), Value::Array(body)) => fixed.is_empty() || fixed.len() == body.len(),
        (Value::String(text), _) if text.is_empty() => true,
        _ => fixed == body,
    }
}

impl Node {
    /// `known` is a name and its value.
    fn fits(&self, body: &Value, known: Option<(&str, &str)>) -> bool {
        match self {
            Self::Fixed(text) => {
                let fixed: Value = serde_json::from_str(text).unwrap_or_default();
                fixed.is_null() || fixed_fits(&fixed, body)
            }
            Self::Expression(_) | Self::Text(_) | Self::Encoded(_) | Self::Each { .. } => true,
            Self::List(_) => body.is_array() || body.is_null(),
            Self::Object(members) => {
                body.is_null()
                    || members.iter().all(|member| {
                        let there = body.get(&*member.name).unwrap_or(&Value::Null);
                        WORDS.contains(&&*member.name) || member.value.fits_member(there, known)
                    })
            }
            Self::By { subject, cases, otherwise } => match known {
                Some((name, value)) if subject.is(name) => {
                    let case = cases.iter().find(|(case, _)| **case == *value).map(|(_, node)| node);
                    let case = case.or(otherwise.as_deref());
                    case.map_or(body.is_null(), |node| node.fits_member(body, known))
                }
                _ => {
                    let mut nodes = cases.iter().map(|(_, node)| node).chain(otherwise.as_deref());
                    nodes.any(|node| node.fits(body, known))
                }
            },
        }
    }

    /// As [`Node::fits`], but where something always stands it must stand.
    fn fits_member(&self, body: &Value, known: Option<(&str, &str)>) -> bool {
        match self {
            Self::Fixed(text) if &**text != "null" && &**text != "\"\"" && body.is_null() => false,
            _ => self.fits(body, known),
        }
    }

    fn at_hole<'v>(&self, body: &'v Value, name: &str) -> Option<&'v Value> {
        match self {
            Self::Expression(expression) => expression.is(name).then_some(body),
            Self::Object(members) => {
                members.iter().find_map(|member| member.value.at_hole(body.get(&*member.name)?, name))
            }
            Self::List(items) => {
                items.iter().zip(body.as_array()?).find_map(|(node, item)| node.at_hole(item, name))
            }
            Self::By { cases, otherwise, .. } => cases
                .iter()
                .map(|(_, node)| node)
                .chain(otherwise.as_deref())
                .find_map(|node| node.at_hole(body, name)),
            Self::Fixed(_) | Self::Text(_) | Self::Encoded(_) | Self::Each { .. } => None,
        }
    }

    fn bind(&self, body: &Value, scope: &dyn Scope, bindings: &mut Bindings) {
        match self {
            Self::Fixed(_) => {}
            Self::Expression(expression) => expression.bind(body, scope, bindings),
            Self::Text(pieces) => bind_text(pieces, body, bindings),
            Self::List(items) => {
                let there = body.as_array().into_iter().flatten();
                items.iter().zip(there).for_each(|(node, item)| node.bind(item, scope, bindings));
            }
            Self::Object(members) => members.iter().for_each(|member| {
                if let Some(value) = body.get(&*member.name) {
                    member.value.bind(value, scope, bindings);
                }
            }),
            Self::By { .. } => {
                if let Some(node) = self.chosen(scope) {
                    node.bind(body, scope, bindings);
                }
            }
            Self::Encoded(inner) => {
                let text = body.as_str().unwrap_or_default();
                if let Ok(value) = serde_json::from_str::<Value>(text) {
                    inner.bind(&value, scope, bindings);
                }
            }
            Self::Each { list, of } => {
                let Some(items) = body.as_array() else { return };
                let items = items.iter().map(|item| of.bound_item(item, scope)).collect();
                list.bind(&Value::Array(items), scope, bindings);
            }
        }
    }

    /// The item of a list that `body` was made from, as far as it shows.
    fn bound_item(&self, body: &Value, scope: &dyn Scope) -> Value {
        let mut bindings = Bindings::default();
        self.bind(body, scope, &mut bindings);
        if let Some(whole) = bindings.0.remove("item") {
            return whole;
        }
        let fields = bindings
            .0
            .into_iter()
            .filter_map(|(path, value)| Some((path.strip_prefix("item.")?.to_owned(), value)));
        Value::Object(fields.collect::<Map<_, _>>())
    }
}

/// A text with one hole gives its value away.
fn bind_text(pieces: &[Piece], body: &Value, bindings: &mut Bindings) {
    let Some(text) = body.as_str() else { return };
    let literal = |piece: Option<&Piece>| match piece {
        Some(Piece::Literal(text)) => text.to_string(),
        _ => String::new(),
    };
    let holes = pieces.iter().enumerate().filter_map(|(place, piece)| match piece {
        Piece::Expression(expression) => Some((place, expression)),
        Piece::Literal(_) => None,
    });
    let holes: Vec<_> = holes.collect();
    let [(place, expression)] = holes[..] else { return };
    let before = literal(place.checked_sub(1).and_then(|place| pieces.get(place)));
    let after = literal(pieces.get(place + 1));
    if let Some(inner) = text.strip_prefix(&*before).and_then(|rest| rest.strip_suffix(&*after)) {
        expression.bind(&Value::from(inner), &super::Nothing, bindings);
    }
}

impl Expression {
    /// Whether it is nothing but that dotted name.
    fn is(&self, name: &str) -> bool {
        match (&self.terms[..], &self.filters[..]) {
            ([Term::Path(path)], []) => path.iter().map(|part| &**part).eq(name.split('.')),
            _ => false,
        }
    }

    /// Notes the value of the name that gave it, as it was before the filters; what they lose stays unknown. That is the
    /// first one, but for what the request would have said and did not.
    fn bind(&self, body: &Value, scope: &dyn Scope, bindings: &mut Bindings) {
        let of_request = |path: &[Box<str>]| path.first().is_some_and(|root| &**root == "input");
        let given = self.terms.iter().find(|term| match term {
            Term::Path(path) => !of_request(path) || !scope.lookup(path).is_empty(),
            Term::Literal(_) => true,
        });
        let Some(Term::Path(path)) = given else { return };
        let value = self.filters.iter().rev().try_fold(body.clone(), |value, filter| filter.undo(value));
        let Some(value) = value else { return };
        if self.filters.is_empty()
            && let Found::Template(template) = scope.lookup(path)
        {
            template.bind(body, scope, bindings);
        }
        bindings.note(path, value);
    }
}

impl Filter {
    /// What it made `value` of, if that can be told.
    fn undo(self, value: Value) -> Option<Value> {
        if value.is_null() {
            return None;
        }
        let millis = |text: &str| Timestamp::parse_rfc3339(text).map(|time| Value::from(time.millis()));
        match self {
            Self::Civil => millis(&format!("{}+08:00", value.as_str()?.replacen(' ', "T", 1))),
            Self::Iso | Self::IsoMillis => millis(value.as_str()?),
            Self::Seconds => value.as_i64()?.checked_mul(1000).map(Value::from),
            Self::WholeSeconds | Self::Sorted => Some(value),
            Self::TwoDecimals => value.as_str()?.parse::<f64>().ok().map(Value::from),
            Self::Text => {
                let text = value.as_str()?;
                Some(text.parse::<i64>().map_or_else(|_| Value::from(text), Value::from))
            }
            Self::Base64 => {
                let bytes = STANDARD_NO_PAD.decode(value.as_str()?).ok()?;
                String::from_utf8(bytes).ok().map(Value::from)
            }
            Self::Count | Self::Words => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    struct Known(&'static str, &'static str);

    impl Scope for Known {
        fn lookup<'a>(&'a self, path: &[Box<str>]) -> Found<'a> {
            if path.join(".") == self.0 { Found::Str(self.1) } else { Found::Missing }
        }
    }

    #[test]
    fn holes_are_read_backwards() {
        let template = Template::compile(&json!({
            "id": "${task.id}",
            "at": "${task.completed ?? task.created | civil}",
            "file": "x-${draw.name}.mp3",
            "info": {"$by": "ending", "success": {"urls": "${result.video.urls}"}, "*": null},
            "inner": {"$json": {"deep": "${draw.deep}"}},
            "code": "${error.code | text}",
            "list": {"$each": "draw.items", "of": {"n": "${item.name}"}}
        }))
        .unwrap();
        let body = json!({
            "id": "abc", "at": "2026-04-16 15:18:35", "file": "x-song.mp3", "info": {"urls": ["a", "b"]},
            "inner": "{\"deep\": 5}", "code": "501", "list": [{"n": "one"}, {"n": "two"}], "more": 1
        });
        let mut bindings = Bindings::default();
        template.bind(&body, &Known("ending", "success"), &mut bindings);
        let get = |path: &str| bindings.0.get(path).cloned().unwrap_or_default();
        assert_eq!(get("task.id"), "abc");
        assert_eq!(get("task.completed"), json!(1_776_323_915_000_i64));
        assert_eq!(get("draw.name"), "song");
        assert_eq!(get("result.video.urls"), json!(["a", "b"]));
        assert_eq!(get("draw.deep"), 5);
        assert_eq!(get("error.code"), 501);
        assert_eq!(get("draw.items"), json!([{"name": "one"}, {"name": "two"}]));
        assert_eq!(template.at_hole(&body, "task.id"), Some(&json!("abc")));
    }

    #[test]
    fn what_is_always_the_same_tells_bodies_apart() {
        let stage = |kind: &str| {
            Template::compile(&json!({"code": 200, "msg": "x", "data": {"type": kind, "id": "${task.id}"}}))
                .unwrap()
        };
        let body = json!({"code": 200, "msg": "something else", "data": {"type": "first", "id": "a"}});
        assert!(stage("first").fits(&body) && !stage("text").fits(&body));
        assert!(!stage("first").fits(&json!({"code": 501, "msg": "x", "data": {"type": "first"}})));
    }
}
