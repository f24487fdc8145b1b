//! Templates read backwards: what the holes of a body were filled with, and whether all holes of another can be filled.
//!
//! A body need not be one that the template made: what it has beside is passed over, what it lacks stays unknown. A hole
//! that is a bare name tells that name's value. Anything compound (filters, `??`, texts of several pieces, lists, strings
//! of JSON) tells what it makes as a whole, under the words of the template, and so much of its names as can be told.

use std::collections::HashMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use serde_json::{Map, Value};

use super::{Expression, Filter, Found, ItemScope, Member, Node, Piece, Scope, Template, Term};
use crate::clock::Timestamp;

/// What is known of the holes of templates, taken from a body.
#[derive(Clone, Debug, Default)]
pub struct Bindings {
    named: HashMap<String, Bound>,
    whole: HashMap<Box<str>, Value>,
}

/// A value, and how sure it is.
#[derive(Clone, Debug)]
pub struct Bound {
    /// As the body has it, before filters.
    pub value: Value,
    /// Whether it is that value.
    pub certainty: Certainty,
}

/// How sure a value is that was taken from a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Certainty {
    /// It may be another name's value.
    Guessed,
    /// A filter has made it coarser.
    Rounded,
    /// It stood there.
    Exact,
}

impl Bindings {
    /// What is known of the name `path`.
    pub fn get(&self, path: &[Box<str>]) -> Option<&Bound> {
        self.named.get(&path.join("."))
    }

    /// What the compound with these words in templates makes.
    pub fn whole(&self, source: &str) -> Option<&Value> {
        self.whole.get(source)
    }

    /// What is surer counts, then what is not null.
    fn note(&mut self, path: &[Box<str>], value: Value, certainty: Certainty) {
        let path = path.join(".");
        let stronger = self.named.get(&path).is_some_and(|known| {
            known.certainty > certainty || (known.certainty == certainty && value.is_null())
        });
        if !stronger {
            self.named.insert(path, Bound { value, certainty });
        }
    }

    fn note_whole(&mut self, source: Option<&str>, value: &Value) {
        if let Some(source) = source {
            self.whole.insert(source.into(), value.clone());
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

    /// Notes in `bindings` what the holes of `body` were filled with. `scope` is asked which case of a `$by` holds (where
    /// it does not know, the case that the body looks like does), and what templates stand in others.
    pub fn bind(&self, body: &Value, scope: &dyn Scope, bindings: &mut Bindings) {
        self.0.bind(body, scope, bindings);
    }

    /// Whether `scope` knows all that a body needs: every hole in the cases that hold, but for members that may be left
    /// out. Null is known; what is [`Found::Missing`] is not.
    pub fn is_known(&self, scope: &dyn Scope) -> bool {
        self.0.is_known(scope)
    }
}

fn fixed_fits(fixed: &Value, body: &Value) -> bool {
    match (fixed, body) {
        (Value::Object(fixed), Value::Object(body)) if fixed.is_empty() => body.is_empty(),
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
            Self::Expression(_) | Self::Text(_) => true,
            Self::Encoded(_) => body.is_string() || body.is_null(),
            Self::List(_) | Self::Each { .. } => body.is_array() || body.is_null(),
            Self::Object(members) => {
                let fits = |member: &Member| {
                    let there = body.get(&*member.name).unwrap_or(&Value::Null);
                    WORDS.contains(&&*member.name) || member.value.fits_member(there, known)
                };
                body.is_null() || (body.is_object() && members.iter().all(fits))
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

    fn bind(&self, body: &Value, scope: &dyn Scope, bindings: &mut Bindings) {
        match self {
            Self::Fixed(_) => {}
            Self::Expression(expression) => expression.bind(body, scope, bindings),
            Self::Text(text) => {
                bindings.note_whole(Some(&text.source), body);
                bind_text(&text.inner, body, scope, bindings);
            }
            Self::List(list) => {
                bindings.note_whole(Some(&list.source), body);
                let there = body.as_array().into_iter().flatten();
                list.inner.iter().zip(there).for_each(|(node, item)| node.bind(item, scope, bindings));
            }
            Self::Object(members) => bind_members(members, body, scope, bindings),
            Self::By { .. } => self.bind_case(body, scope, bindings),
            Self::Encoded(encoded) => {
                bindings.note_whole(Some(&encoded.source), body);
                let text = body.as_str().unwrap_or_default();
                if let Ok(value) = serde_json::from_str::<Value>(text) {
                    encoded.inner.bind(&value, scope, bindings);
                }
            }
            Self::Each { list, of } => {
                let Some(items) = body.as_array() else { return };
                let items = items.iter().enumerate();
                let items = items.map(|(index, item)| of.bound_item(index, item, scope)).collect();
                list.bind(&Value::Array(items), scope, bindings);
            }
        }
    }

    fn bind_case(&self, body: &Value, scope: &dyn Scope, bindings: &mut Bindings) {
        let Self::By { subject, cases, otherwise } = self else { return };
        if subject.is_known(scope) {
            return self.chosen(scope).into_iter().for_each(|node| node.bind(body, scope, bindings));
        }
        let Some((name, node)) = cases.iter().find(|(_, node)| node.fits_member(body, None)) else {
            return otherwise.iter().for_each(|node| node.bind(body, scope, bindings));
        };
        if let ([Term::Path(path)], []) = (&subject.terms[..], &subject.filters[..]) {
            let value = serde_json::from_str(name).unwrap_or_else(|_| Value::from(&**name));
            bindings.note(path, value, Certainty::Guessed);
        }
        node.bind(body, scope, bindings);
    }

    /// The item of a list that `body` was made from, as far as it shows.
    fn bound_item(&self, index: usize, body: &Value, scope: &dyn Scope) -> Value {
        let mut bindings = Bindings::default();
        self.bind(body, &ItemScope { item: &Value::Null, index, beyond: scope }, &mut bindings);
        if let Some(whole) = bindings.named.remove("item") {
            return whole.value;
        }
        let fields = bindings
            .named
            .into_iter()
            .filter_map(|(path, known)| Some((path.strip_prefix("item.")?.to_owned(), known.value)));
        Value::Object(fields.collect::<Map<_, _>>())
    }

    fn is_known(&self, scope: &dyn Scope) -> bool {
        match self {
            Self::Fixed(_) => true,
            Self::Expression(expression) => expression.is_known(scope),
            Self::Text(text) => {
                scope.is_told(&text.source)
                    || text.inner.iter().all(|piece| match piece {
                        Piece::Literal(_) => true,
                        Piece::Expression(expression) => expression.is_known(scope),
                    })
            }
            Self::List(list) => {
                scope.is_told(&list.source) || list.inner.iter().all(|node| node.is_known(scope))
            }
            Self::Object(members) => {
                members.iter().all(|member| member.optional || member.value.is_known(scope))
            }
            Self::By { subject, .. } => {
                subject.is_known(scope) && self.chosen(scope).is_none_or(|node| node.is_known(scope))
            }
            Self::Encoded(encoded) => scope.is_told(&encoded.source) || encoded.inner.is_known(scope),
            Self::Each { list, of } => {
                let Value::Array(items) = list.evaluate(scope).into_value(scope) else {
                    return list.is_known(scope);
                };
                let mut items = items.iter().enumerate();
                items.all(|(index, item)| of.is_known(&ItemScope { item, index, beyond: scope }))
            }
        }
    }
}

impl dyn Scope + '_ {
    fn is_told(&self, source: &str) -> bool {
        !matches!(self.whole(source), Found::Missing)
    }
}

fn bind_members(members: &[Member], body: &Value, scope: &dyn Scope, bindings: &mut Bindings) {
    for member in members {
        if let Some(value) = body.get(&*member.name) {
            member.value.bind(value, scope, bindings);
        }
    }
}

/// A text with one hole gives its value away.
fn bind_text(pieces: &[Piece], body: &Value, scope: &dyn Scope, bindings: &mut Bindings) {
    let Some(text) = body.as_str() else { return };
    let (before, expression, after) = match pieces {
        [Piece::Literal(before), Piece::Expression(hole), Piece::Literal(after)] => {
            (&**before, hole, &**after)
        }
        [Piece::Literal(before), Piece::Expression(hole)] => (&**before, hole, ""),
        [Piece::Expression(hole), Piece::Literal(after)] => ("", hole, &**after),
        _ => return,
    };
    if let Some(inner) = text.strip_prefix(before).and_then(|rest| rest.strip_suffix(after)) {
        expression.bind(&Value::from(inner), scope, bindings);
    }
}

impl Expression {
    /// Notes what it makes as a whole, and the value of the name that gave it as it was before the filters.
    fn bind(&self, body: &Value, scope: &dyn Scope, bindings: &mut Bindings) {
        bindings.note_whole(self.source.as_deref(), body);
        let [Term::Path(path)] = &self.terms[..] else { return self.guess(body, scope, bindings) };
        if self.filters.is_empty() {
            if let Found::Template(template) = scope.lookup(path) {
                template.bind(body, scope, bindings);
            }
            return bindings.note(path, body.clone(), Certainty::Exact);
        }
        if body.is_null() {
            return bindings.note(path, Value::Null, Certainty::Exact);
        }
        let certainty = if *self.filters == [Filter::Sorted] { Certainty::Exact } else { Certainty::Rounded };
        if let Some(value) = self.undone(body) {
            bindings.note(path, value, certainty);
        }
    }

    /// Which of several names gave a value cannot be told: the first is likely, but for what the request would have said
    /// and did not.
    fn guess(&self, body: &Value, scope: &dyn Scope, bindings: &mut Bindings) {
        let is_literal = |term: &Term| matches!(term, Term::Literal(value) if value == body);
        if body.is_null() || self.terms.iter().any(is_literal) {
            return;
        }
        let of_request = |path: &[Box<str>]| path.first().is_some_and(|root| &**root == "input");
        let given = self.terms.iter().find_map(|term| match term {
            Term::Path(path) if !of_request(path) || !scope.lookup(path).is_empty() => Some(path),
            _ => None,
        });
        if let (Some(path), Some(value)) = (given, self.undone(body)) {
            bindings.note(path, value, Certainty::Guessed);
        }
    }

    /// What the filters made `body` of, if that can be told.
    fn undone(&self, body: &Value) -> Option<Value> {
        self.filters.iter().rev().try_fold(body.clone(), |value, filter| filter.undo(&value))
    }

    fn is_known(&self, scope: &dyn Scope) -> bool {
        if self.source.as_deref().is_some_and(|source| scope.is_told(source)) {
            return true;
        }
        for term in &self.terms {
            let Term::Path(path) = term else { return true };
            match scope.lookup(path) {
                Found::Missing => return false,
                Found::Null => {}
                Found::Template(template) => return template.is_known(scope),
                _ => return true,
            }
        }
        true
    }
}

impl Filter {
    fn undo(self, value: &Value) -> Option<Value> {
        let millis = |text: &str| Timestamp::parse_rfc3339(text).map(|time| Value::from(time.millis()));
        match self {
            Self::Civil => millis(&format!("{}+08:00", value.as_str()?.replacen(' ', "T", 1))),
            Self::Iso | Self::IsoMillis => millis(value.as_str()?),
            Self::Seconds => value.as_i64()?.checked_mul(1000).map(Value::from),
            Self::WholeSeconds | Self::Sorted => Some(value.clone()),
            Self::TwoDecimals => value.as_str()?.parse::<f64>().ok().map(Value::from),
            Self::Text => {
                let text = value.as_str()?;
                let number = serde_json::from_str(text).ok().filter(Value::is_number);
                Some(number.unwrap_or_else(|| Value::from(text)))
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

    /// Knows one name, and what was read.
    struct Known<'b>(&'static str, &'static str, &'b Bindings);

    impl Scope for Known<'_> {
        fn lookup<'a>(&'a self, path: &[Box<str>]) -> Found<'a> {
            if path.join(".") == self.0 {
                return Found::Str(self.1);
            }
            self.2.get(path).map_or(Found::Missing, |known| (&known.value).into())
        }

        fn whole<'a>(&'a self, source: &str) -> Found<'a> {
            self.2.whole(source).map_or(Found::Missing, Into::into)
        }
    }

    fn template(source: &Value) -> Template {
        Template::compile(source).unwrap()
    }

    fn read(from: &Value, body: &Value) -> Bindings {
        let mut bindings = Bindings::default();
        template(from).bind(body, &Known("ending", "success", &Bindings::default()), &mut bindings);
        bindings
    }

    #[test]
    fn holes_are_read_backwards() {
        let source = json!({
            "id": "${task.id}",
            "at": "${task.completed ?? task.created | civil}",
            "file": "x-${draw.name}.mp3",
            "info": {"$by": "ending", "success": {"urls": "${result.video.urls}"}, "*": null},
            "inner": {"$json": {"deep": "${draw.deep}"}},
            "code": "${error.code | text}",
            "list": {"$each": "draw.items", "of": {"n": "${item.name}"}}
        });
        let body = json!({
            "id": "abc", "at": "2026-04-16 15:18:35", "file": "x-song.mp3", "info": {"urls": ["a", "b"]},
            "inner": "{\"deep\": 5}", "code": "501", "list": [{"n": "one"}, {"n": "two"}], "more": 1
        });
        let bindings = read(&source, &body);
        let get = |path: &str| bindings.named.get(path).unwrap().value.clone();
        assert_eq!(get("task.id"), "abc");
        assert_eq!(get("task.completed"), json!(1_776_323_915_000_i64));
        assert_eq!(get("draw.name"), "song");
        assert_eq!(get("result.video.urls"), json!(["a", "b"]));
        assert_eq!(get("draw.deep"), 5);
        assert_eq!(get("error.code"), 501);
        assert_eq!(get("draw.items"), json!([{"name": "one"}, {"name": "two"}]));
    }

    #[test]
    fn compounds_are_said_again_as_they_were_heard() {
        let source = json!({
            "text": "${draw.a}, ${draw.b}",
            "words": "${draw.text | words}",
            "urls": ["${result.video.url}"],
            "param": {"$json": {"a": "${input.a}"}}
        });
        let body = json!({"text": "x, y, z", "words": [1, 2], "urls": ["u", "v"], "param": "{ \"a\": 1, \"b\": 2 }"});
        let bindings = read(&source, &body);
        let scope = Known("", "", &bindings);
        assert!(template(&source).is_known(&scope));
        let again: Value = serde_json::from_slice(&template(&source).to_json(&scope)).unwrap();
        assert_eq!(again, body);
    }

    #[test]
    fn what_a_body_does_not_say_is_not_known() {
        let bindings =
            read(&json!({"a": "${draw.a}", "b": "${task.completed}"}), &json!({"a": 1, "b": null}));
        let knows = |source: Value| template(&source).is_known(&Known("ending", "success", &bindings));
        assert!(knows(json!({"x": "${draw.a}", "y": "${task.completed}", "z?": "${draw.c}"})));
        assert!(!knows(json!({"z": "${draw.c}"})));
        assert!(!knows(json!("${draw.c ?? draw.a}")), "which of them it is cannot be told");
        assert!(knows(json!({"$by": "ending", "success": "${draw.a}", "*": "${draw.c}"})));
    }

    #[test]
    fn a_case_that_nothing_decides_is_the_one_that_the_body_looks_like() {
        let source = json!({"$by": "fallback", "true": {"b": true, "u": "${result.video.url}"}, "*": {"v": "${draw.v}"}});
        let bindings = read(&source, &json!({"b": true, "u": "address"}));
        let get = |path: &str| bindings.named.get(path).map(|known| known.value.clone());
        assert_eq!(get("fallback"), Some(json!(true)));
        assert_eq!(get("result.video.url"), Some(json!("address")));
        assert_eq!(read(&source, &json!({"v": 1})).named["draw.v"].value, 1);
    }

    #[test]
    fn what_is_always_the_same_tells_bodies_apart() {
        let stage = |kind: &str| {
            template(&json!({"code": 200, "msg": "x", "data": {"type": kind, "id": "${task.id}"}}))
        };
        let body = json!({"code": 200, "msg": "something else", "data": {"type": "first", "id": "a"}});
        assert!(stage("first").fits(&body) && !stage("text").fits(&body));
        assert!(!stage("first").fits(&json!({"code": 501, "msg": "x", "data": {"type": "first"}})));
    }
}
