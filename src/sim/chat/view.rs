//! A schema as one reads it: with references followed, alternatives chosen and combinations joined.
//!
//! Nothing is copied for that. A view is a pile of schemas; what one says goes before what those below it say.

use std::collections::HashMap;

use serde_json::{Map, Value};

use super::budget::Budget;

/// More references than this, one after the other, are not followed.
const MOST_HOPS: usize = 24;
/// More schemas than this are not joined.
const MOST_LAYERS: usize = 256;
/// No more alternatives than this are weighed.
const MOST_CHOICES: usize = 256;
/// Longer references than this, in bytes, lead nowhere.
const LONGEST_REFERENCE: usize = 1024;

pub(super) struct View<'a> {
    /// The strongest first.
    layers: Vec<&'a Map<String, Value>>,
}

/// What views are made with.
pub(super) struct Reader<'a, 'b> {
    /// Where references lead.
    pub(super) root: &'a Value,
    pub(super) budget: &'b Budget,
    /// Deep down, alternatives that lead no further are better.
    pub(super) deep: bool,
}

impl<'a> Reader<'a, '_> {
    pub(super) fn view(&self, schema: &'a Value) -> View<'a> {
        let mut view = View { layers: Vec::new() };
        self.gather(schema, 0, &mut view.layers);
        view
    }

    fn gather(&self, schema: &'a Value, hops: usize, layers: &mut Vec<&'a Map<String, Value>>) {
        let Some(members) = schema.as_object() else { return };
        if hops > MOST_HOPS || layers.len() >= MOST_LAYERS || !self.budget.step() {
            return;
        }
        let parts = members.get("allOf").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
        parts.iter().take(MOST_LAYERS).rev().for_each(|part| self.gather(part, hops + 1, layers));
        layers.push(members);
        let pointer = members.get("$ref").and_then(Value::as_str);
        let pointer = pointer.filter(|pointer| pointer.len() <= LONGEST_REFERENCE);
        let target = pointer.and_then(|pointer| self.root.pointer(pointer.strip_prefix('#')?));
        let alternatives = ["anyOf", "oneOf"].into_iter().filter_map(|word| members.get(word)?.as_array());
        let chosen = alternatives.filter_map(|choices| self.choose(choices));
        target.into_iter().chain(chosen).for_each(|below| self.gather(below, hops + 1, layers));
    }

    /// The first alternative that is something; deep down the one that leads no further.
    fn choose(&self, choices: &'a [Value]) -> Option<&'a Value> {
        let choices = &choices[..choices.len().min(MOST_CHOICES)];
        let is_null =
            |choice: &&Value| choice["type"].as_str().is_some_and(|kind| kind.eq_ignore_ascii_case("null"));
        let ends = |choice: &&Value| choice.get("$ref").is_none() && choice.get("properties").is_none();
        let deep = choices.iter().find(ends).filter(|_| self.deep);
        deep.or_else(|| choices.iter().find(|choice| !is_null(choice))).or_else(|| choices.first())
    }
}

impl<'a> View<'a> {
    pub(super) fn get(&self, word: &str) -> Option<&'a Value> {
        self.layers.iter().find_map(|layer| layer.get(word))
    }

    pub(super) fn number(&self, word: &str) -> Option<f64> {
        self.get(word).and_then(Value::as_f64)
    }

    pub(super) fn count(&self, word: &str) -> Option<u64> {
        self.get(word).and_then(Value::as_u64)
    }

    pub(super) fn text(&self, word: &str) -> Option<&'a str> {
        self.get(word).and_then(Value::as_str)
    }

    /// A list that has something in it.
    pub(super) fn list(&self, word: &str) -> Option<&'a [Value]> {
        self.get(word).and_then(Value::as_array).map(Vec::as_slice).filter(|list| !list.is_empty())
    }

    /// All properties, those of the weakest first.
    pub(super) fn properties(&self, budget: &Budget) -> Vec<(&'a str, &'a Value)> {
        let mut places = HashMap::new();
        let mut found = Vec::new();
        let layers = self.layers.iter().rev().filter_map(|layer| layer.get("properties")?.as_object());
        for (name, schema) in layers.flatten().take_while(|_| budget.pay(1)) {
            let place = *places.entry(name.as_str()).or_insert(found.len());
            if place == found.len() {
                found.push((name.as_str(), schema));
            } else {
                found[place].1 = schema;
            }
        }
        found
    }

    /// The names of all properties that must be there, those of the weakest first.
    pub(super) fn required(&self, budget: &Budget) -> Vec<&'a str> {
        let layers = self.layers.iter().rev().filter_map(|layer| layer.get("required")?.as_array());
        layers.flatten().take_while(|_| budget.pay(1)).filter_map(Value::as_str).collect()
    }

    /// The type that a value has; where several are listed the first but null.
    pub(super) fn kind(&self) -> &'static str {
        const KINDS: [&str; 7] = ["object", "array", "integer", "number", "boolean", "null", "string"];
        let named = match self.get("type") {
            Some(Value::Array(kinds)) => {
                let mut kinds = kinds.iter().take(KINDS.len()).filter_map(Value::as_str);
                kinds.find(|kind| !kind.eq_ignore_ascii_case("null"))
            }
            Some(kind) => kind.as_str(),
            None => None,
        };
        let known = named.and_then(|named| KINDS.into_iter().find(|kind| named.eq_ignore_ascii_case(kind)));
        let has = |words: [&str; 2]| words.iter().any(|word| self.get(word).is_some());
        known.unwrap_or(if has(["properties", "required"]) {
            "object"
        } else if has(["items", "prefixItems"]) {
            "array"
        } else if has(["minimum", "maximum"]) {
            "number"
        } else {
            "string"
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn schemas_are_joined_and_the_nearer_goes_before() {
        let schema = json!({
            "$defs": {"base": {"type": "object", "title": "base", "required": ["a"],
                "properties": {"a": {"title": "base"}, "b": {"title": "base"}}}},
            "$ref": "#/$defs/base", "title": "own", "required": ["c"],
            "properties": {"b": {"title": "own"}},
            "allOf": [{"title": "part", "properties": {"c": {}}}, {"oneOf": [{"type": "null"}, {"description": "x"}]}],
        });
        let budget = Budget::of(1000);
        let view = Reader { root: &schema, budget: &budget, deep: false }.view(&schema);
        assert_eq!((view.text("title"), view.text("description")), (Some("part"), Some("x")));
        assert_eq!((view.kind(), view.required(&budget)), ("object", vec!["a", "c"]));
        let properties = view.properties(&budget);
        let titles: Vec<_> =
            properties.iter().map(|(name, schema)| (*name, schema["title"].as_str())).collect();
        assert_eq!(titles, [("a", Some("base")), ("b", Some("own")), ("c", None)]);
    }
}
