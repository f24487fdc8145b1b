//! JSON bodies with holes: what the catalogue says an answer looks like.
//!
//! A template is JSON. A string may hold expressions, `"${task.id}"`; one that is nothing but an expression takes
//! the value's own type, any other is text. Beside that:
//! - a key that ends in `?` is left out when its value is null or unknown;
//! - `{"$by": "ending", "success": …, "*": …}` takes the case that the expression's value names (no case: null);
//! - `{"$json": …}` is the inner value written as a string of JSON;
//! - `{"$each": "input.prompt | words", "of": …}` is a list: the inner value for each item of the expression's list,
//!   with `item` (or `item.field`) and `index` (from 0) to be had.
//!
//! An expression is one or more paths or literals with `??` between them (the first that is known and not null
//! counts), then filters: `${task.completed ?? task.created | civil}`.
//!
//! Pure: the values come from a [`Scope`]; which paths exist, the loader checks.

mod bind;
mod place;
mod shape;

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use serde_json::Value;

use crate::clock::Timestamp;
use crate::ids::Credits;

pub use bind::{Bindings, Bound, Certainty};
pub use place::Places;
pub use shape::Types;

/// A compiled template.
#[derive(Clone, Debug)]
pub struct Template(Node);

#[derive(Clone, Debug)]
enum Node {
    /// JSON text that never changes.
    Fixed(Box<str>),
    Expression(Expression),
    /// A string pieced together.
    Text(Sourced<Vec<Piece>>),
    Object(Vec<Member>),
    List(Sourced<Vec<Node>>),
    By {
        subject: Expression,
        cases: Vec<(Box<str>, Node)>,
        otherwise: Option<Box<Node>>,
    },
    /// A string that holds the inner value as JSON.
    Encoded(Sourced<Box<Node>>),
    /// The inner value once for each item of a list.
    Each {
        list: Expression,
        of: Box<Node>,
    },
}

/// What is compound, and the words that it is written with: the same words make the same in every body about a task.
#[derive(Clone, Debug)]
struct Sourced<T> {
    inner: T,
    source: Box<str>,
}

#[derive(Clone, Debug)]
enum Piece {
    Literal(Box<str>),
    Expression(Expression),
}

#[derive(Clone, Debug)]
struct Member {
    name: Box<str>,
    /// The name as JSON text, quotes and colon included.
    key: Box<str>,
    optional: bool,
    value: Node,
}

#[derive(Clone, Debug)]
struct Expression {
    terms: Vec<Term>,
    filters: Vec<Filter>,
    /// Its words, if it is more than one name or literal.
    source: Option<Box<str>>,
}

#[derive(Clone, Debug)]
enum Term {
    Path(Path),
    Literal(Value),
}

/// A dotted name, split: `input.prompt` is `["input", "prompt"]`.
pub type Path = Box<[Box<str>]>;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Filter {
    /// Milliseconds to `YYYY-MM-DD HH:MM:SS`, eight hours east of UTC, where the upstream keeps its clocks.
    Civil,
    /// Milliseconds to `YYYY-MM-DDTHH:MM:SSZ`.
    Iso,
    /// Milliseconds to `YYYY-MM-DDTHH:MM:SS.000Z`.
    IsoMillis,
    /// Milliseconds to whole seconds.
    Seconds,
    /// Milliseconds with the last three digits zero.
    WholeSeconds,
    /// A number as text with two decimals.
    TwoDecimals,
    /// Any value as text.
    Text,
    /// An object with its keys in alphabetical order.
    Sorted,
    /// A text's bytes as base64 without padding.
    Base64,
    /// The length of a list, or of a text in characters.
    Count,
    /// The words of a text as `{"text", "start", "end"}`, in seconds at the pace of speech.
    Words,
}

/// What a path leads to.
#[derive(Debug)]
pub enum Found<'a> {
    /// Nothing known by that name.
    Missing,
    /// JSON's null: known to be empty.
    Null,
    /// True or false.
    Bool(bool),
    /// A whole number.
    Integer(i64),
    /// A number with a fraction.
    Number(f64),
    /// Text that lives elsewhere.
    Str(&'a str),
    /// Text made for the occasion.
    Text(String),
    /// A list of texts.
    Texts(Vec<String>),
    /// Any JSON that lives elsewhere.
    Json(&'a Value),
    /// Any JSON made for the occasion.
    Value(Value),
    /// A body of its own, rendered with the same scope.
    Template(&'a Template),
}

impl From<Timestamp> for Found<'_> {
    fn from(time: Timestamp) -> Self {
        Self::Integer(time.millis())
    }
}

impl From<i64> for Found<'_> {
    fn from(number: i64) -> Self {
        Self::Integer(number)
    }
}

impl From<Credits> for Found<'_> {
    fn from(credits: Credits) -> Self {
        Self::Number(credits.as_f64())
    }
}

impl<'a, T: Into<Found<'a>>> From<Option<T>> for Found<'a> {
    fn from(value: Option<T>) -> Self {
        value.map_or(Self::Null, Into::into)
    }
}

impl<'a> From<&'a Value> for Found<'a> {
    fn from(value: &'a Value) -> Self {
        match value {
            Value::Null => Self::Null,
            Value::Bool(flag) => Self::Bool(*flag),
            Value::String(text) => Self::Str(text),
            other => Self::Json(other),
        }
    }
}

/// Where a template's values come from.
pub trait Scope {
    /// The value at `path`.
    fn lookup<'a>(&'a self, path: &[Box<str>]) -> Found<'a>;

    /// What the compound with these words makes, where that is known as a whole: see [`Bindings::whole`].
    fn whole<'a>(&'a self, _source: &str) -> Found<'a> {
        Found::Missing
    }
}

/// Why a template does not compile.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{what}, at {at}")]
pub struct TemplateError {
    /// JSON pointer into the template.
    pub at: String,
    /// What is wrong, in words.
    pub what: String,
}

impl Template {
    /// Compiles `source`.
    ///
    /// # Errors
    /// The first place where an expression or a directive cannot be understood.
    pub fn compile(source: &Value) -> Result<Self, TemplateError> {
        compile(source, "").map(Self)
    }

    /// All paths that the template asks for.
    pub fn paths(&self) -> Vec<&Path> {
        let mut paths = Vec::new();
        self.0.collect_paths(&mut paths);
        paths
    }

    /// Appends the body as compact JSON to `out`.
    pub fn render(&self, scope: &dyn Scope, out: &mut Vec<u8>) {
        self.0.render(scope, out);
    }

    /// The body as compact JSON.
    pub fn to_json(&self, scope: &dyn Scope) -> Vec<u8> {
        let mut out = Vec::with_capacity(512);
        self.render(scope, &mut out);
        out
    }

    /// The body as text: for templates of file names and messages. Anything but a string appears as JSON.
    pub fn to_text(&self, scope: &dyn Scope) -> String {
        match &self.0 {
            Node::Text(text) => text.inner.iter().map(|piece| piece.to_text(scope)).collect(),
            Node::Expression(expression) => expression.evaluate(scope).into_text(scope),
            other => {
                let mut json = Vec::new();
                other.render(scope, &mut json);
                serde_json::from_slice::<String>(&json)
                    .unwrap_or_else(|_| String::from_utf8_lossy(&json).into_owned())
            }
        }
    }
}

fn compile(source: &Value, at: &str) -> Result<Node, TemplateError> {
    match source {
        Value::String(text) => compile_text(text, at),
        Value::Array(items) => {
            let items = items.iter().enumerate().map(|(index, item)| compile(item, &format!("{at}/{index}")));
            let inner = items.collect::<Result<Vec<_>, _>>()?;
            Ok(Node::List(Sourced { inner, source: source.to_string().into() }).folded())
        }
        Value::Object(members) if members.contains_key("$by") => compile_by(members, at),
        Value::Object(members) if members.contains_key("$json") => {
            if members.len() > 1 {
                return Err(error(at, "$json stands alone in its object"));
            }
            let inner = compile(&members["$json"], &format!("{at}/$json"))?.into();
            Ok(Node::Encoded(Sourced { inner, source: source.to_string().into() }))
        }
        Value::Object(members) if members.contains_key("$each") => compile_each(members, at),
        Value::Object(members) => {
            let members = members.iter().map(|(key, value)| compile_member(key, value, at));
            members.collect::<Result<Vec<_>, _>>().map(Node::Object).map(Node::folded)
        }
        other => Ok(Node::Fixed(other.to_string().into())),
    }
}

fn compile_member(key: &str, value: &Value, at: &str) -> Result<Member, TemplateError> {
    let (name, optional) = key.strip_suffix('?').map_or((key, false), |name| (name, true));
    if name.starts_with('$') {
        return Err(error(at, &format!("unknown directive \"{name}\"; there are $by, $each and $json")));
    }
    let value = compile(value, &format!("{at}/{key}"))?;
    Ok(Member { name: name.into(), key: format!("{}:", Value::from(name)).into(), optional, value })
}

fn compile_by(members: &serde_json::Map<String, Value>, at: &str) -> Result<Node, TemplateError> {
    let subject = members["$by"].as_str().ok_or_else(|| error(at, "$by takes an expression as a string"))?;
    let subject = Expression::parse(subject).map_err(|what| error(at, &what))?;
    let mut cases = Vec::new();
    let mut otherwise = None;
    for (case, value) in members.iter().filter(|(case, _)| *case != "$by") {
        let node = compile(value, &format!("{at}/{case}"))?;
        if case == "*" {
            otherwise = Some(Box::new(node));
        } else {
            cases.extend(case.split('|').map(|name| (name.into(), node.clone())));
        }
    }
    Ok(Node::By { subject, cases, otherwise })
}

fn compile_each(members: &serde_json::Map<String, Value>, at: &str) -> Result<Node, TemplateError> {
    let list = members["$each"].as_str().ok_or_else(|| error(at, "$each takes an expression as a string"))?;
    let (Some(of), 2) = (members.get("of"), members.len()) else {
        return Err(error(at, "$each has \"of\" beside it and nothing else"));
    };
    let list = Expression::parse(list).map_err(|what| error(at, &what))?;
    compile(of, &format!("{at}/of")).map(|of| Node::Each { list, of: of.into() })
}

fn compile_text(text: &str, at: &str) -> Result<Node, TemplateError> {
    let mut pieces = Vec::new();
    let mut rest = text;
    while let Some(start) = rest.find("${") {
        let length = rest[start..].find('}').ok_or_else(|| error(at, "`${` without `}`"))?;
        if start > 0 {
            pieces.push(Piece::Literal(rest[..start].into()));
        }
        let inner = &rest[start + 2..start + length];
        pieces.push(Piece::Expression(Expression::parse(inner).map_err(|what| error(at, &what))?));
        rest = &rest[start + length + 1..];
    }
    if pieces.is_empty() {
        return Ok(Node::Fixed(Value::from(text).to_string().into()));
    }
    if !rest.is_empty() {
        pieces.push(Piece::Literal(rest.into()));
    }
    match <[Piece; 1]>::try_from(pieces) {
        Ok([Piece::Expression(expression)]) => Ok(Node::Expression(expression)),
        Ok(pieces) => Ok(Node::Text(Sourced { inner: pieces.into(), source: text.into() })),
        Err(inner) => Ok(Node::Text(Sourced { inner, source: text.into() })),
    }
}

fn error(at: &str, what: &str) -> TemplateError {
    TemplateError { at: if at.is_empty() { "/".into() } else { at.into() }, what: what.into() }
}

impl Expression {
    fn parse(text: &str) -> Result<Self, String> {
        let mut parts = text.split(" | ").map(str::trim);
        let terms = parts.next().unwrap_or_default().split("??").map(|term| Term::parse(term.trim()));
        let terms = terms.collect::<Result<Vec<_>, _>>()?;
        let filters = parts.map(Filter::parse).collect::<Result<Vec<_>, _>>()?;
        let is_compound = terms.len() > 1 || !filters.is_empty();
        // Blanks do not count.
        let source = is_compound.then(|| text.split_whitespace().collect::<Vec<_>>().join(" ").into());
        Ok(Self { terms, filters, source })
    }

    fn evaluate<'a>(&'a self, scope: &'a dyn Scope) -> Found<'a> {
        if let Some(source) = &self.source {
            let whole = scope.whole(source);
            if !matches!(whole, Found::Missing) {
                return whole;
            }
        }
        let found = self
            .terms
            .iter()
            .map(|term| match term {
                Term::Path(path) => scope.lookup(path),
                Term::Literal(value) => value.into(),
            })
            .find(|found| !found.is_empty())
            .unwrap_or(Found::Null);
        self.filters.iter().fold(found, |found, filter| filter.apply(found, scope))
    }
}

impl Term {
    fn parse(text: &str) -> Result<Self, String> {
        if let Ok(literal) = serde_json::from_str(text) {
            return Ok(Self::Literal(literal));
        }
        let is_name = |part: &str| {
            !part.is_empty() && part.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-')
        };
        if !text.split('.').all(is_name) {
            return Err(format!("\"{text}\" is neither a dotted name nor a JSON literal"));
        }
        Ok(Self::Path(text.split('.').map(Into::into).collect()))
    }
}

impl Filter {
    fn parse(name: &str) -> Result<Self, String> {
        Ok(match name {
            "civil" => Self::Civil,
            "iso" => Self::Iso,
            "iso_millis" => Self::IsoMillis,
            "seconds" => Self::Seconds,
            "whole_seconds" => Self::WholeSeconds,
            "two_decimals" => Self::TwoDecimals,
            "text" => Self::Text,
            "sorted" => Self::Sorted,
            "base64" => Self::Base64,
            "count" => Self::Count,
            "words" => Self::Words,
            _ => {
                return Err(format!(
                    "unknown filter \"{name}\"; there are civil, iso, iso_millis, seconds, whole_seconds, \
                     two_decimals, text, sorted, base64, count, words"
                ));
            }
        })
    }

    fn apply<'a>(self, found: Found<'a>, scope: &dyn Scope) -> Found<'a> {
        match (self, found) {
            (_, empty) if empty.is_empty() => Found::Null,
            (Self::Civil, Found::Integer(millis)) => Found::Text(Timestamp::from_millis(millis).to_civil(8)),
            (Self::Iso, Found::Integer(millis)) => {
                Found::Text(Timestamp::from_millis(millis).to_iso_seconds())
            }
            (Self::IsoMillis, Found::Integer(millis)) => {
                Found::Text(Timestamp::from_millis(millis).to_rfc3339())
            }
            (Self::Seconds, Found::Integer(millis)) => Found::Integer(millis.div_euclid(1000)),
            (Self::WholeSeconds, Found::Integer(millis)) => Found::Integer(millis.div_euclid(1000) * 1000),
            (Self::TwoDecimals, Found::Number(number)) => Found::Text(format!("{number:.2}")),
            (Self::Text, found) => Found::Text(found.into_text(scope)),
            (Self::Sorted, Found::Json(value)) => {
                let mut value = value.clone();
                value.sort_all_objects();
                Found::Value(value)
            }
            (Self::Base64, found) => Found::Text(STANDARD_NO_PAD.encode(found.into_text(scope))),
            (Self::Count, found) => Found::Value(match found.into_value(scope) {
                Value::Array(items) => items.len().into(),
                Value::String(text) => text.chars().count().into(),
                _ => Value::Null,
            }),
            (Self::Words, found) => Found::Value(spoken(&found.into_text(scope)).into()),
            (_, unfit) => unfit,
        }
    }
}

/// The words of `text` with the times at which they are spoken: fifteen characters a second, a pause before each.
fn spoken(text: &str) -> Vec<Value> {
    const PAUSE: usize = 80;
    const CHARACTER: usize = 1000 / 15;
    let mut clock = 0;
    let words = text.split_whitespace().map(|word| {
        let start = clock + PAUSE;
        clock = start + word.chars().count() * CHARACTER;
        #[expect(clippy::cast_precision_loss, reason = "no text takes weeks")]
        let seconds = |millis: usize| millis as f64 / 1000.0;
        serde_json::json!({"text": word, "start": seconds(start), "end": seconds(clock)})
    });
    words.collect()
}

impl<'a> Found<'a> {
    /// The value below `value` that the names of `path` lead to; `value` itself where there are none.
    pub fn below(value: &'a Value, path: &[Box<str>]) -> Self {
        path.iter().try_fold(value, |value, name| value.get(&**name)).map_or(Self::Missing, Into::into)
    }

    fn is_empty(&self) -> bool {
        matches!(self, Self::Missing | Self::Null)
    }

    fn into_text(self, scope: &dyn Scope) -> String {
        match self {
            Self::Str(text) => text.to_owned(),
            Self::Text(text) => text,
            other => {
                let mut json = Vec::new();
                other.render(scope, &mut json);
                String::from_utf8_lossy(&json).into_owned()
            }
        }
    }

    /// The value itself, a copy of one that lives elsewhere.
    pub fn into_value(self, scope: &dyn Scope) -> Value {
        match self {
            Self::Json(value) => value.clone(),
            Self::Value(value) => value,
            other => {
                let mut json = Vec::new();
                other.render(scope, &mut json);
                serde_json::from_slice(&json).unwrap_or_default()
            }
        }
    }

    fn render(&self, scope: &dyn Scope, out: &mut Vec<u8>) {
        match self {
            Self::Missing | Self::Null => out.extend_from_slice(b"null"),
            Self::Bool(flag) => write_json(flag, out),
            Self::Integer(number) => write_json(number, out),
            Self::Number(number) => write_json(number, out),
            Self::Str(text) => write_json(text, out),
            Self::Text(text) => write_json(text, out),
            Self::Texts(texts) => write_json(texts, out),
            Self::Json(value) => write_json(value, out),
            Self::Value(value) => write_json(value, out),
            Self::Template(template) => template.render(scope, out),
        }
    }
}

fn write_json<T: serde::Serialize + ?Sized>(value: &T, out: &mut Vec<u8>) {
    serde_json::to_writer(out, value).expect("JSON of plain values goes into memory without fail");
}

/// A scope in which nothing is known: for what has no holes.
struct Nothing;

impl Scope for Nothing {
    fn lookup<'a>(&'a self, _: &[Box<str>]) -> Found<'a> {
        Found::Missing
    }
}

/// A scope with an item of a list in front of it.
struct ItemScope<'a> {
    item: &'a Value,
    index: usize,
    beyond: &'a dyn Scope,
}

impl Scope for ItemScope<'_> {
    fn lookup<'s>(&'s self, path: &[Box<str>]) -> Found<'s> {
        match path {
            [root, rest @ ..] if &**root == "item" => Found::below(self.item, rest),
            [root] if &**root == "index" => Found::Integer(i64::try_from(self.index).unwrap_or(i64::MAX)),
            _ => self.beyond.lookup(path),
        }
    }
}

impl Piece {
    fn to_text(&self, scope: &dyn Scope) -> String {
        match self {
            Self::Literal(text) => text.to_string(),
            Self::Expression(expression) => match expression.evaluate(scope) {
                Found::Missing | Found::Null => String::new(),
                found => found.into_text(scope),
            },
        }
    }
}

impl<T> Sourced<T> {
    /// Writes it as it is known as a whole, else by its parts.
    fn render(&self, scope: &dyn Scope, out: &mut Vec<u8>, by_parts: impl FnOnce(&T, &mut Vec<u8>)) {
        match scope.whole(&self.source) {
            Found::Missing => by_parts(&self.inner, out),
            whole => whole.render(scope, out),
        }
    }
}

impl Node {
    /// An object or list without holes as fixed text, so that rendering it is one copy.
    fn folded(self) -> Self {
        let fixed = |node: &Self| matches!(node, Self::Fixed(_));
        let foldable = match &self {
            Self::List(list) => list.inner.iter().all(fixed),
            Self::Object(members) => members
                .iter()
                .all(|member| fixed(&member.value) && !(member.optional && member.value.is_null())),
            _ => false,
        };
        if !foldable {
            return self;
        }
        let mut json = Vec::new();
        self.render(&Nothing, &mut json);
        Self::Fixed(String::from_utf8_lossy(&json).into())
    }

    fn is_null(&self) -> bool {
        matches!(self, Self::Fixed(text) if &**text == "null")
    }

    fn render(&self, scope: &dyn Scope, out: &mut Vec<u8>) {
        match self {
            Self::Fixed(text) => out.extend_from_slice(text.as_bytes()),
            Self::Expression(expression) => expression.evaluate(scope).render(scope, out),
            Self::Text(text) => text.render(scope, out, |pieces, out| {
                let text: String = pieces.iter().map(|piece| piece.to_text(scope)).collect();
                write_json(&text, out);
            }),
            Self::List(list) => list.render(scope, out, |items, out| {
                render_list(items, out, |_, item, out| item.render(scope, out));
            }),
            Self::Object(members) => render_members(members, scope, out),
            Self::By { .. } => match self.chosen(scope) {
                Some(node) => node.render(scope, out),
                None => out.extend_from_slice(b"null"),
            },
            Self::Encoded(encoded) => encoded.render(scope, out, |inner, out| {
                let mut json = Vec::new();
                inner.render(scope, &mut json);
                write_json(&*String::from_utf8_lossy(&json), out);
            }),
            Self::Each { list, of } => render_each(list, of, scope, out),
        }
    }

    /// The case of a `$by` that holds now.
    fn chosen(&self, scope: &dyn Scope) -> Option<&Self> {
        let Self::By { subject, cases, otherwise } = self else { return Some(self) };
        let value = subject.evaluate(scope).into_text(scope);
        let case = cases.iter().find(|(name, _)| **name == *value).map(|(_, node)| node);
        case.or(otherwise.as_deref()).and_then(|node| node.chosen(scope))
    }

    /// Whether it would be written as null.
    fn is_empty(&self, scope: &dyn Scope) -> bool {
        match self.chosen(scope) {
            None => true,
            Some(Self::Expression(expression)) => expression.evaluate(scope).is_empty(),
            Some(node) => node.is_null(),
        }
    }

    fn collect_paths<'a>(&'a self, paths: &mut Vec<&'a Path>) {
        let mut of_expression = |expression: &'a Expression| {
            paths.extend(expression.terms.iter().filter_map(|term| match term {
                Term::Path(path) => Some(path),
                Term::Literal(_) => None,
            }));
        };
        match self {
            Self::Fixed(_) => {}
            Self::Expression(expression) => of_expression(expression),
            Self::Text(text) => text.inner.iter().for_each(|piece| {
                if let Piece::Expression(expression) = piece {
                    of_expression(expression);
                }
            }),
            Self::List(list) => list.inner.iter().for_each(|item| item.collect_paths(paths)),
            Self::Object(members) => members.iter().for_each(|member| member.value.collect_paths(paths)),
            Self::By { subject, cases, otherwise } => {
                of_expression(subject);
                cases.iter().map(|(_, node)| node).chain(otherwise.as_deref()).for_each(|node| {
                    node.collect_paths(paths);
                });
            }
            Self::Encoded(encoded) => encoded.inner.collect_paths(paths),
            Self::Each { list, of } => {
                of_expression(list);
                let mut within = Vec::new();
                of.collect_paths(&mut within);
                let of_item =
                    |path: &&Path| matches!(path.first().map(|root| &**root), Some("item" | "index"));
                paths.extend(within.into_iter().filter(|path| !of_item(path)));
            }
        }
    }
}

fn render_list<T>(items: &[T], out: &mut Vec<u8>, mut render: impl FnMut(usize, &T, &mut Vec<u8>)) {
    out.push(b'[');
    for (index, item) in items.iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        render(index, item, out);
    }
    out.push(b']');
}

fn render_each(list: &Expression, of: &Node, scope: &dyn Scope, out: &mut Vec<u8>) {
    let Value::Array(items) = list.evaluate(scope).into_value(scope) else {
        return out.extend_from_slice(b"null");
    };
    render_list(&items, out, |index, item, out| of.render(&ItemScope { item, index, beyond: scope }, out));
}

fn render_members(members: &[Member], scope: &dyn Scope, out: &mut Vec<u8>) {
    out.push(b'{');
    let mut first = true;
    for member in members {
        if member.optional && member.value.is_empty(scope) {
            continue;
        }
        if !first {
            out.push(b',');
        }
        first = false;
        out.extend_from_slice(member.key.as_bytes());
        member.value.render(scope, out);
    }
    out.push(b'}');
}

impl fmt::Display for Template {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "template with {} holes", self.paths().len())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    struct World(Value);

    impl Scope for World {
        fn lookup<'a>(&'a self, path: &[Box<str>]) -> Found<'a> {
            path.iter().try_fold(&self.0, |value, part| value.get(&**part)).map_or(Found::Missing, |value| {
                value.as_i64().map_or_else(
                    || value.as_f64().map_or_else(|| value.into(), Found::Number),
                    Found::Integer,
                )
            })
        }
    }

    #[track_caller]
    fn check(template: &Value, expected: &Value) {
        let world = World(json!({
            "task": {"id": "abc", "created": 1_776_323_915_587_i64, "completed": null, "progress": 0.476},
            "ending": "success",
            "input": {"prompt": "a \"cat\"", "nested": {"b": 1, "a": [2]}},
        }));
        let rendered = Template::compile(template).unwrap().to_json(&world);
        let rendered = String::from_utf8(rendered).unwrap();
        assert_eq!(rendered, expected.to_string());
    }

    #[test]
    fn holes_take_the_type_of_what_fills_them() {
        check(
            &json!({"id": "${task.id}", "at": "${task.created}"}),
            &json!({"id": "abc", "at": 1_776_323_915_587_i64}),
        );
        check(&json!("file ${task.id}.mp4"), &json!("file abc.mp4"));
        check(&json!("${input.prompt}"), &json!("a \"cat\""));
        check(&json!("${nobody.knows}"), &json!(null));
    }

    #[test]
    fn the_first_known_value_counts_and_filters_come_last() {
        check(&json!("${task.completed ?? task.created | civil}"), &json!("2026-04-16 15:18:35"));
        check(&json!("${task.completed ?? \"\"}"), &json!(""));
        check(&json!("${task.created | whole_seconds}"), &json!(1_776_323_915_000_i64));
        check(&json!("${task.created | iso}"), &json!("2026-04-16T07:18:35Z"));
        check(&json!("${task.progress | two_decimals}"), &json!("0.48"));
        check(&json!("${task.id | base64}.jpeg"), &json!("YWJj.jpeg"));
    }

    #[test]
    fn optional_keys_cases_and_nested_json() {
        check(&json!({"a?": "${task.completed}", "b?": "${task.id}"}), &json!({"b": "abc"}));
        check(&json!({"$by": "ending", "success|done": {"ok": true}, "*": null}), &json!({"ok": true}));
        check(&json!({"$by": "task.id", "x": 1}), &json!(null));
        check(&json!({"x?": {"$by": "ending", "fail": 1}}), &json!({}));
        check(
            &json!({"$json": {"input": {"$json": "${input.nested | sorted}"}}}),
            &json!(r#"{"input":"{\"a\":[2],\"b\":1}"}"#),
        );
    }

    #[test]
    fn a_list_is_made_item_by_item() {
        check(
            &json!({"$each": "input.nested.a", "of": {"n": "${item}", "at": "${index}", "of": "${task.id}"}}),
            &json!([{"n": 2, "at": 0, "of": "abc"}]),
        );
        check(&json!({"$each": "task.completed", "of": 1}), &json!(null));
        check(&json!("${input.nested.a | count}"), &json!(1));
        check(
            &json!({"$each": "\"Hi there\" | words", "of": ["${item.text}", "${item.start}", "${item.end}"]}),
            &json!([["Hi", 0.08, 0.212], ["there", 0.292, 0.622]]),
        );
    }

    #[test]
    fn mistakes_are_named_with_their_place() {
        let error = |template| Template::compile(&template).unwrap_err().to_string();
        assert_eq!(error(json!({"a": ["${x"]})), "`${` without `}`, at /a/0");
        assert_eq!(error(json!("${a b}")), "\"a b\" is neither a dotted name nor a JSON literal, at /");
        assert!(error(json!("${a | shout}")).starts_with("unknown filter \"shout\"; there are civil"));
        assert!(error(json!({"$each": "a"})).starts_with("$each has \"of\" beside it"));
        assert!(error(json!({"$when": 1})).starts_with("unknown directive \"$when\""));
    }

    #[test]
    fn it_tells_which_paths_it_needs() {
        let template =
            Template::compile(&json!({"a": "${x.y ?? z}", "b": {"$by": "w", "*": "-${v}"}})).unwrap();
        let paths: Vec<String> = template.paths().iter().map(|path| path.join(".")).collect();
        assert_eq!(paths, ["x.y", "z", "w", "v"]);
    }
}
