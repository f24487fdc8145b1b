//! Reads a tree of settings key by key, remembering which keys were asked for and every problem met.
//!
//! What was never asked for is unknown; so the code that reads a key is the only list of keys there is.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;

use super::problem::{Place, Problem, ProblemKind};
use super::tree::{Node, Value};
use super::values::{Parse, quoted};

/// What all readers of one tree share.
pub(super) struct Desk<'a> {
    /// The environment, for `env:` references.
    pub(super) environment: &'a BTreeMap<String, String>,
    problems: RefCell<Vec<Problem>>,
    known: RefCell<BTreeSet<String>>,
    tables: RefCell<BTreeSet<String>>,
}

impl<'a> Desk<'a> {
    pub(super) fn new(environment: &'a BTreeMap<String, String>) -> Self {
        Self {
            environment,
            problems: RefCell::default(),
            known: RefCell::default(),
            tables: RefCell::new(BTreeSet::from([String::new()])),
        }
    }

    /// The reader of the whole tree.
    pub(super) fn root<'d>(&'d self, tree: &Node) -> Table<'d> {
        let entries = match &tree.value {
            Value::Table(entries) => entries.clone(),
            _ => BTreeMap::new(),
        };
        Table { desk: self, entries, path: KeyPath::default(), place: tree.place.clone() }
    }

    /// Every key that was asked for, such as `tenant[].id`.
    pub(super) fn known(&self) -> BTreeSet<String> {
        self.known.borrow().clone()
    }

    /// Whether `pattern`, such as `tenant[].limits`, was read as a table, so that only keys asked for may be
    /// in it.
    pub(super) fn is_table(&self, pattern: &str) -> bool {
        self.tables.borrow().contains(pattern)
    }

    /// Whether there was a problem with a key that begins with `prefix`.
    pub(super) fn has_problem_at(&self, prefix: &str) -> bool {
        self.problems.borrow().iter().any(|problem| problem.key.starts_with(prefix))
    }

    pub(super) fn report(&self, problem: Problem) {
        self.problems.borrow_mut().push(problem);
    }

    pub(super) fn into_problems(self) -> Vec<Problem> {
        self.problems.into_inner()
    }
}

/// Where a key is in the tree, in two spellings.
#[derive(Clone, Debug, Default)]
pub(super) struct KeyPath {
    /// With the numbers of list items, for people: `tenant[0].id`.
    pub(super) shown: String,
    /// The same for all items, to compare: `tenant[].id`.
    pub(super) pattern: String,
    /// The pattern of the table or list around it.
    pub(super) parent: String,
}

impl KeyPath {
    pub(super) fn key(&self, key: &str) -> Self {
        let bare = |sign: char| sign.is_ascii_alphanumeric() || "-_".contains(sign);
        let plain = !key.is_empty() && key.chars().all(bare);
        let key = if plain { key.to_owned() } else { quoted(key) };
        let dot = if self.shown.is_empty() { "" } else { "." };
        let pattern = format!("{}{dot}{key}", self.pattern);
        Self { shown: format!("{}{dot}{key}", self.shown), pattern, parent: self.pattern.clone() }
    }

    pub(super) fn index(&self, index: usize) -> Self {
        let pattern = format!("{}[]", self.pattern);
        Self { shown: format!("{}[{index}]", self.shown), pattern, parent: self.pattern.clone() }
    }
}

/// A table being read; empty if it is not there.
#[derive(Clone)]
pub(super) struct Table<'a> {
    desk: &'a Desk<'a>,
    entries: BTreeMap<String, Node>,
    path: KeyPath,
    place: Place,
}

impl<'a> Table<'a> {
    /// What stands at `key`, if anything does.
    pub(super) fn item(&self, key: &str) -> Item<'a> {
        let path = self.path.key(key);
        self.desk.known.borrow_mut().insert(path.pattern.clone());
        let node = self.entries.get(key).cloned();
        let place = node.as_ref().map_or_else(|| self.place.clone(), |node| node.place.clone());
        Item { desk: self.desk, node, path, place }
    }

    /// The value at `key`, if there is a good one.
    pub(super) fn get<T: Parse>(&self, key: &str) -> Option<T> {
        self.item(key).parse()
    }

    /// The value at `key`, or `default`.
    pub(super) fn or<T: Parse>(&self, key: &str, default: T) -> T {
        self.get(key).unwrap_or(default)
    }

    /// The flag at `key`, or `default`.
    pub(super) fn flag_or(&self, key: &str, default: bool) -> bool {
        self.item(key).flag().unwrap_or(default)
    }

    /// The good values of the list at `key`; `None` if there is no list.
    pub(super) fn list<T: Parse>(&self, key: &str) -> Option<Vec<T>> {
        Some(self.item(key).items()?.iter().filter_map(Item::parse).collect())
    }

    /// The table at `key`.
    pub(super) fn table(&self, key: &str) -> Self {
        let item = self.item(key);
        item.table().unwrap_or_else(|| Self {
            desk: self.desk,
            entries: BTreeMap::new(),
            path: item.path.clone(),
            place: item.place,
        })
    }

    /// The tables of the list at `key`.
    pub(super) fn tables(&self, key: &str) -> Vec<Self> {
        let item = self.item(key);
        if item.is_table() {
            let hint = format!("write [[{}]]", item.path.pattern);
            item.wrong("expected a list of tables, found one table", Some(hint));
            return Vec::new();
        }
        item.items().unwrap_or_default().iter().filter_map(Item::table).collect()
    }

    /// Whether it says anything.
    pub(super) fn is_set(&self) -> bool {
        !self.entries.is_empty()
    }

    /// Whether it says anything at `key`, which need not be one that there is.
    pub(super) fn says(&self, key: &str) -> bool {
        self.entries.contains_key(key)
    }
}

/// One key being read, set or not.
#[derive(Clone)]
pub(super) struct Item<'a> {
    pub(super) desk: &'a Desk<'a>,
    node: Option<Node>,
    path: KeyPath,
    /// Of the value; of the table around it if there is none.
    pub(super) place: Place,
}

impl<'a> Item<'a> {
    /// Reports that something is wrong here.
    pub(super) fn wrong(&self, what: impl Into<String>, hint: Option<String>) {
        self.desk.report(Problem {
            place: self.place.clone(),
            key: self.path.shown.clone(),
            what: what.into(),
            hint,
            kind: ProblemKind::Invalid,
        });
    }

    /// Reports that something else was `expected` than is there.
    fn wrong_type(&self, expected: &str) {
        let found = self.node.as_ref().map_or("nothing", |node| node.value.kind());
        self.wrong(format!("expected {expected}, found {found}"), None);
    }

    /// Whether anything is there.
    pub(super) fn is_set(&self) -> bool {
        self.node.is_some()
    }

    /// This item, or a problem if nothing is there.
    pub(super) fn required(self) -> Self {
        if !self.is_set() {
            self.wrong("missing", None);
        }
        self
    }

    /// Whether a table is written here, rather than a single value.
    pub(super) fn is_table(&self) -> bool {
        matches!(self.node, Some(Node { value: Value::Table(_), .. }))
    }

    /// The text here; a date counts as text.
    pub(super) fn text(&self, expected: &str) -> Option<&str> {
        match &self.node.as_ref()?.value {
            Value::Text(text) | Value::Raw(text) | Value::Date(text) => Some(text),
            _ => {
                self.wrong_type(expected);
                None
            }
        }
    }

    /// The value here, if it is a good one.
    pub(super) fn parse<T: Parse>(&self) -> Option<T> {
        let text = self.text(T::EXPECTED)?;
        T::parse(text)
            .map_err(|hint| self.wrong(format!("{} is not {}", T::quote(text), T::EXPECTED), hint))
            .ok()
    }

    /// The whole number here, if it lies in `range`.
    pub(super) fn whole(&self, range: RangeInclusive<u64>) -> Option<u64> {
        let number = match &self.node.as_ref()?.value {
            Value::Whole(number) => Some(*number),
            Value::Raw(text) => text.parse().ok(),
            _ => None,
        };
        let Some(number) = number else {
            self.wrong_type("a whole number");
            return None;
        };
        let fitting = u64::try_from(number).ok().filter(|number| range.contains(number));
        if fitting.is_none() {
            self.wrong(format!("{number} is not in the range {} to {}", range.start(), range.end()), None);
        }
        fitting
    }

    /// The number here, if it lies in `range`.
    pub(super) fn number(&self, range: &RangeInclusive<f64>) -> Option<f64> {
        let number = match &self.node.as_ref()?.value {
            #[expect(clippy::cast_precision_loss, reason = "what is lost is far outside of every range")]
            Value::Whole(number) => Some(*number as f64),
            Value::Fraction(number) => Some(*number),
            Value::Raw(text) => text.parse().ok(),
            _ => None,
        };
        let Some(number) = number else {
            self.wrong_type("a number");
            return None;
        };
        if !range.contains(&number) {
            self.wrong(format!("{number} is not in the range {} to {}", range.start(), range.end()), None);
            return None;
        }
        Some(number)
    }

    /// The truth value here.
    pub(super) fn flag(&self) -> Option<bool> {
        let flag = match &self.node.as_ref()?.value {
            Value::Flag(flag) => Some(*flag),
            Value::Raw(text) => text.parse().ok(),
            _ => None,
        };
        if flag.is_none() {
            self.wrong_type("true or false");
        }
        flag
    }

    /// The items of the list here. Text from the environment or a flag is split at its commas.
    pub(super) fn items(&self) -> Option<Vec<Self>> {
        let node = self.node.as_ref()?;
        let nodes = match &node.value {
            Value::List(items) => items.clone(),
            Value::Raw(text) => {
                let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
                let raw = |part: &str| Node { place: node.place.clone(), value: Value::Raw(part.to_owned()) };
                parts.map(raw).collect()
            }
            _ => {
                self.wrong_type("a list");
                return None;
            }
        };
        let item = |(index, node): (usize, Node)| Self {
            desk: self.desk,
            place: node.place.clone(),
            node: Some(node),
            path: self.path.index(index),
        };
        Some(nodes.into_iter().enumerate().map(item).collect())
    }

    /// The table here.
    pub(super) fn table(&self) -> Option<Table<'a>> {
        self.desk.tables.borrow_mut().insert(self.path.pattern.clone());
        let node = self.node.as_ref()?;
        let Value::Table(entries) = &node.value else {
            self.wrong_type("a table");
            return None;
        };
        let (entries, path) = (entries.clone(), self.path.clone());
        Some(Table { desk: self.desk, entries, path, place: self.place.clone() })
    }

    /// Notes in `seen` that `name` is used here, and reports it if it was used before.
    pub(super) fn claim(&self, name: &str, seen: &mut BTreeMap<String, Place>) {
        if let Some(first) = seen.get(name) {
            self.wrong(format!("used twice, first at {first}"), None);
        } else {
            seen.insert(name.to_owned(), self.place.clone());
        }
    }
}

/// Shows `visit` every key and list item of `tree`, each before what is in it; `visit` says whether to go in.
pub(super) fn walk(tree: &Node, path: &KeyPath, visit: &mut impl FnMut(&KeyPath, &Node) -> bool) {
    let mut step = |path: KeyPath, node: &Node| {
        if visit(&path, node) {
            walk(node, &path, visit);
        }
    };
    match &tree.value {
        Value::Table(entries) => entries.iter().for_each(|(key, node)| step(path.key(key), node)),
        Value::List(items) => {
            items.iter().enumerate().for_each(|(index, node)| step(path.index(index), node));
        }
        _ => {}
    }
}
