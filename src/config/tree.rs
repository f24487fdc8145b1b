//! The settings of all layers as one tree whose every node knows where it was written.
//!
//! The file gives the tree; environment and flags are laid over it as raw text, since only the reader knows
//! what type a key has. What a key means, and whether it exists, is not known here.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::problem::{Place, Problem, ProblemKind};

/// More levels than any key has. Keeps a variable of thousands of levels from exhausting the stack.
const DEEPEST: usize = 8;

/// A value and where it was written.
#[derive(Clone, Debug)]
pub(super) struct Node {
    pub(super) place: Place,
    pub(super) value: Value,
}

/// A value as written, before anything is known about its meaning.
#[derive(Clone, Debug)]
pub(super) enum Value {
    Text(String),
    /// From the environment or a flag: becomes whatever the reader asks for.
    Raw(String),
    Whole(i128),
    Fraction(f64),
    Flag(bool),
    Date(String),
    List(Vec<Node>),
    Table(BTreeMap<String, Node>),
}

impl Value {
    /// The kind of value, with its article, for messages.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::Text(_) | Self::Raw(_) => "text",
            Self::Whole(_) => "a whole number",
            Self::Fraction(_) => "a number",
            Self::Flag(_) => "true or false",
            Self::Date(_) => "a date",
            Self::List(_) => "a list",
            Self::Table(_) => "a table",
        }
    }
}

impl Node {
    /// A tree that says nothing.
    pub(super) fn empty() -> Self {
        Self { place: Place::Defaults, value: Value::Table(BTreeMap::new()) }
    }

    /// Reads TOML.
    ///
    /// # Errors
    /// Every syntax error in the text, each with its line.
    pub(super) fn from_toml(path: &Path, text: &str) -> Result<Self, Vec<Problem>> {
        let source = Source { path: path.into(), text };
        let (table, errors) = DeTable::parse_recoverable(text);
        if errors.is_empty() {
            let value = Value::Table(source.entries(table.get_ref()));
            return Ok(Self { place: Place::WholeFile(source.path), value });
        }
        let problem = |error: toml::de::Error| Problem {
            place: source.place(error.span().map_or(0, |span| span.start)),
            key: String::new(),
            what: error.message().replace('\n', ", "),
            hint: None,
            kind: ProblemKind::Invalid,
        };
        Err(errors.into_iter().map(problem).collect())
    }

    /// Puts `text` at the end of `path`, in front of whatever stood there. A number is an index: that of an
    /// item that is there, or the next one.
    ///
    /// # Errors
    /// In words, if `path` leads through something that has no such place.
    pub(super) fn set(&mut self, path: &[&str], place: &Place, text: &str) -> Result<(), String> {
        if path.len() > DEEPEST {
            return Err(format!("no key has more than {DEEPEST} levels"));
        }
        let mut here = self;
        for (depth, step) in path.iter().enumerate() {
            let as_list = path.get(depth + 1).is_some_and(|next| next.parse::<usize>().is_ok());
            here = here.child(step, place, as_list)?;
        }
        *here = Self { place: place.clone(), value: Value::Raw(text.to_owned()) };
        Ok(())
    }

    /// The child called `step`, made if it is not there: a list if `as_list`, else a table.
    fn child(&mut self, step: &str, place: &Place, as_list: bool) -> Result<&mut Self, String> {
        let make = || {
            let value = if as_list { Value::List(Vec::new()) } else { Value::Table(BTreeMap::new()) };
            Self { place: place.clone(), value }
        };
        match &mut self.value {
            Value::Table(entries) => Ok(entries.entry(step.to_owned()).or_insert_with(make)),
            Value::List(items) => {
                let length = items.len();
                let index = step.parse::<usize>().ok().filter(|index| *index <= length);
                let index = index.ok_or_else(|| {
                    format!("{step:?} is not one of the list's {length} items, nor the next, {length}")
                })?;
                if index == length {
                    items.push(make());
                }
                Ok(&mut items[index])
            }
            other => Err(format!("there is nothing below {}, written at {}", other.kind(), self.place)),
        }
    }

    /// Calls `found` for every text in the tree.
    pub(super) fn texts(&self, found: &mut impl FnMut(&str)) {
        match &self.value {
            Value::Text(text) | Value::Raw(text) => found(text),
            Value::List(items) => items.iter().for_each(|item| item.texts(found)),
            Value::Table(entries) => entries.values().for_each(|entry| entry.texts(found)),
            Value::Whole(_) | Value::Fraction(_) | Value::Flag(_) | Value::Date(_) => {}
        }
    }
}

/// A file's text, to find lines in.
struct Source<'a> {
    path: Arc<Path>,
    text: &'a str,
}

impl Source<'_> {
    /// The line and column of the byte at `offset`.
    fn place(&self, offset: usize) -> Place {
        let before = self.text.get(..offset).unwrap_or(self.text);
        let line = before.bytes().filter(|byte| *byte == b'\n').count() + 1;
        let column = before.rsplit('\n').next().map_or(0, |last| last.chars().count()) + 1;
        Place::File { path: self.path.clone(), line, column }
    }

    /// The entries of a table, each at the place of its key.
    fn entries(&self, table: &DeTable<'_>) -> BTreeMap<String, Node> {
        let entry = |(key, value): (&Spanned<_>, &Spanned<DeValue<'_>>)| {
            let key: &Spanned<std::borrow::Cow<'_, str>> = key;
            let node = Node { place: self.place(key.span().start), value: self.value(value.get_ref()) };
            (key.get_ref().to_string(), node)
        };
        table.iter().map(entry).collect()
    }

    fn value(&self, value: &DeValue<'_>) -> Value {
        match value {
            DeValue::String(text) => Value::Text(text.to_string()),
            // More digits than fit are out of every range, so the nearest number that fits will do.
            DeValue::Integer(number) => {
                Value::Whole(i128::from_str_radix(number.as_str(), number.radix()).unwrap_or(i128::MAX))
            }
            DeValue::Float(number) => Value::Fraction(number.as_str().parse().unwrap_or(f64::NAN)),
            DeValue::Boolean(flag) => Value::Flag(*flag),
            DeValue::Datetime(date) => Value::Date(date.to_string()),
            DeValue::Array(items) => Value::List(items.iter().map(|item| self.item(item)).collect()),
            DeValue::Table(table) => Value::Table(self.entries(table)),
        }
    }

    fn item(&self, item: &Spanned<DeValue<'_>>) -> Node {
        Node { place: self.place(item.span().start), value: self.value(item.get_ref()) }
    }
}
