//! A value that fits a JSON Schema: arguments of tools, structured answers.
//!
//! The schema's own examples, choices and defaults come first, then words and numbers of the prompt, then something
//! plain. Schemas of Google's kind (types in capitals, `nullable`) are understood too. What a schema asks for beyond
//! types, bounds, formats, patterns and combinations is not looked at.
//!
//! A short schema can ask for endlessly much. A [`Budget`] bounds what is made: when it is spent, texts are cut, lists
//! and objects end, and what is still to come is missing or null. The value is whole JSON then, but breaks its schema.
//! So do values for patterns that are too long or want too long a text.

use std::cell::RefCell;
use std::collections::{HashMap, HashSet};

use serde_json::{Map, Value, json};

use super::budget::Budget;
use super::hints::Hints;
use super::pattern::matching;
use super::view::{Reader, View};

/// Beyond this depth only what a schema demands is filled in.
const SHALLOW: usize = 5;
/// Beyond this depth nothing is: a schema that demands itself has no value.
const DEEPEST: usize = 24;
/// More items than this no list gets, whatever the schema demands.
const MOST_ITEMS: u64 = 1000;
/// No more of a field's name, in bytes, is looked at.
const LONGEST_NAME: usize = 256;
/// Where nothing is said of a value.
const ANYTHING: &Value = &Value::Null;

/// A value that fits `schema`, made of `hints` where it can be, and of no more JSON than `budget` has left.
pub(super) fn sample(schema: &Value, hints: &Hints, budget: &Budget) -> Value {
    let (patterns, named) = (RefCell::default(), RefCell::default());
    Sampler { root: schema, hints, budget, patterns, named }.value("", schema, 0, 0)
}

struct Sampler<'a> {
    /// Where references lead.
    root: &'a Value,
    hints: &'a Hints,
    budget: &'a Budget,
    /// Texts for patterns of so many characters, if there are any.
    patterns: RefCell<HashMap<(&'a str, usize), Option<String>>>,
    /// Where choices begin, by where they and their default are.
    named: RefCell<HashMap<(*const Value, Option<*const Value>), usize>>,
}

impl<'a> Sampler<'a> {
    /// A value for the field `name`, the `nth` of its kind.
    fn value(&self, name: &str, schema: &'a Value, nth: u64, depth: usize) -> Value {
        if depth > DEEPEST || !self.budget.step() {
            return Value::Null;
        }
        let name = &name[..name.floor_char_boundary(LONGEST_NAME)];
        let view = Reader { root: self.root, budget: self.budget, deep: depth >= SHALLOW }.view(schema);
        if let Some(given) = view.get("const").or_else(|| self.given(&view, nth)) {
            return self.budget.copy(given);
        }
        match view.kind() {
            "object" => self.object(&view, depth),
            "array" => self.array(name, &view, depth),
            "integer" => whole(self.number(&view, nth, true)),
            "number" => {
                let number = self.number(&view, nth, false);
                if number.fract() == 0.0 { whole(number) } else { json!(number) }
            }
            "boolean" => Value::Bool(nth.is_multiple_of(2)),
            "null" => Value::Null,
            _ => self.budget.text(&self.text(name, &view, nth)).into(),
        }
    }

    /// What the schema itself proposes: an example, a choice that the prompt names, the default, the first choice.
    fn given(&self, schema: &View<'a>, nth: u64) -> Option<&'a Value> {
        let index = usize::try_from(nth).unwrap_or(0);
        if let Some(examples) = schema.list("examples") {
            return Some(&examples[index % examples.len()]);
        }
        if let Some(choices) = schema.list("enum") {
            let start = self.first_choice(choices, schema.get("default"));
            return Some(&choices[(start + index) % choices.len()]);
        }
        let proposed = schema.get("example").or_else(|| schema.get("default"));
        proposed.filter(|proposed| nth == 0 && !proposed.is_null())
    }

    /// Which choice the prompt names, or else is the default.
    fn first_choice(&self, choices: &'a [Value], default: Option<&'a Value>) -> usize {
        let key = (choices.as_ptr(), default.map(std::ptr::from_ref));
        if let Some(start) = self.named.borrow().get(&key) {
            return *start;
        }
        let prompt = &self.hints.lower;
        let reading = 1 + prompt.len() / 64;
        let mut looked_at = choices.iter().take_while(|_| self.budget.pay(reading));
        let is_named = |choice: &Value| {
            let text = choice.as_str().filter(|text| !text.is_empty() && text.len() <= prompt.len());
            text.is_some_and(|text| prompt.contains(&text.to_lowercase()))
        };
        let is_default = |choice: &Value| self.budget.pay(1) && Some(choice) == default;
        let start = looked_at.position(is_named);
        let start = start.or_else(|| choices.iter().position(is_default).filter(|_| default.is_some()));
        *self.named.borrow_mut().entry(key).or_insert(start.unwrap_or(0))
    }

    fn object(&self, schema: &View<'a>, depth: usize) -> Value {
        let required = schema.required(self.budget);
        let demanded: HashSet<&str> = required.iter().copied().collect();
        let mut object = Map::new();
        for (name, schema) in schema.properties(self.budget) {
            if depth < SHALLOW || demanded.contains(name) {
                self.put(&mut object, name, (name, schema), depth);
            }
        }
        let others = schema.get("additionalProperties").unwrap_or(ANYTHING);
        for name in required {
            self.put(&mut object, name, (name, others), depth);
        }
        let least = schema.count("minProperties").unwrap_or(0).min(MOST_ITEMS);
        for number in 1..=least {
            if (object.len() as u64) < least {
                self.put(&mut object, &format!("key{number}"), ("value", others), depth);
            }
        }
        object.into()
    }

    /// Adds the member `key`, if it is not there and can be paid for: a value for the field `name` of a schema.
    fn put(
        &self,
        object: &mut Map<String, Value>,
        key: &str,
        (name, schema): (&str, &'a Value),
        depth: usize,
    ) {
        if !object.contains_key(key) && self.budget.member(key) {
            object.insert(key.to_owned(), self.value(name, schema, 0, depth + 1));
        }
    }

    fn array(&self, name: &str, schema: &View<'a>, depth: usize) -> Value {
        let first = schema.list("prefixItems").unwrap_or_default();
        let items = schema.get("items").filter(|items| **items != Value::Bool(false));
        let usual =
            if depth < SHALLOW && items.is_some() { first.len() as u64 + 1 } else { first.len() as u64 };
        let count = usual
            .max(schema.count("minItems").unwrap_or(0))
            .min(schema.count("maxItems").unwrap_or(u64::MAX))
            .min(MOST_ITEMS);
        let item = |nth: u64| {
            let own = usize::try_from(nth).ok().and_then(|nth| first.get(nth));
            self.value(singular(name), own.or(items).unwrap_or(ANYTHING), nth, depth + 1)
        };
        (0..count).take_while(|_| self.budget.value()).map(item).collect()
    }

    /// A number of the prompt that fits, or the smallest that is not less than 1.
    fn number(&self, schema: &View<'_>, nth: u64, integer: bool) -> f64 {
        let bound = |word: &str| schema.number(word);
        let step = bound("multipleOf").filter(|step| *step > 0.0).unwrap_or(if integer { 1.0 } else { 0.0 });
        let nudge = if step > 0.0 { step } else { 0.5 };
        let least = match (bound("minimum"), bound("exclusiveMinimum")) {
            (least, Some(above)) => Some(least.unwrap_or(f64::MIN).max(above + nudge)),
            (least, None) => least,
        };
        let most = match (bound("maximum"), bound("exclusiveMaximum")) {
            (most, Some(below)) => Some(most.unwrap_or(f64::MAX).min(below - nudge)),
            (most, None) => most,
        };
        let fits = |number: f64| {
            least.is_none_or(|least| number >= least)
                && most.is_none_or(|most| number <= most)
                && (step == 0.0 || (number / step).fract() == 0.0)
        };
        let named = self.hints.numbers.iter().copied().filter(|_| nth == 0).find(|number| fits(*number));
        named.unwrap_or_else(|| {
            let low = least.unwrap_or_else(|| most.map_or(1.0, |most| most.min(1.0)));
            let start = if least.is_none_or(|least| least < 1.0) && fits(1.0) { 1.0 } else { low };
            let start = if step > 0.0 { (start / step).ceil() * step } else { start };
            #[expect(clippy::cast_precision_loss, reason = "lists have a thousand items at most")]
            let next = start + nudge * nth as f64;
            if fits(next) || least.zip(most).is_some_and(|(least, most)| least >= most) {
                next
            } else {
                // Between two close bounds.
                least.zip(most).map_or(start, |(least, most)| f64::midpoint(least, most))
            }
        })
    }

    fn text(&self, name: &str, schema: &View<'a>, nth: u64) -> String {
        let bound = |word: &str| schema.count(word).and_then(|bound| usize::try_from(bound).ok());
        let least = bound("minLength").unwrap_or(0);
        if let Some(text) = schema.text("pattern").and_then(|pattern| self.matching(pattern, least)) {
            return text;
        }
        let formatted = self.of_format(schema.text("format").unwrap_or_default(), nth);
        // The items of a list differ.
        let number = if nth > 0 && formatted.is_none() { format!(" {}", nth + 1) } else { String::new() };
        let mut text = formatted.unwrap_or_else(|| self.hints.guess(name));
        let most = bound("maxLength").unwrap_or(usize::MAX);
        fill(&mut text, least.min(most).min(self.budget.left()));
        let room = most.saturating_sub(number.len());
        text.chars().take(room).chain(number.chars()).take(most).collect()
    }

    /// As the function of that name does it, once for each pattern.
    fn matching(&self, pattern: &'a str, least: usize) -> Option<String> {
        let mut known = self.patterns.borrow_mut();
        let text = known.entry((pattern, least)).or_insert_with(|| matching(pattern, least, self.budget));
        text.as_ref().filter(|text| text.len() <= self.budget.left()).cloned()
    }

    fn of_format(&self, format: &str, nth: u64) -> Option<String> {
        let day = nth % 28 + 1;
        Some(match format {
            "date-time" => format!("2026-01-{day:02}T12:00:00Z"),
            "date" => format!("2026-01-{day:02}"),
            "time" => "12:00:00Z".into(),
            "duration" => "PT1H".into(),
            "email" | "idn-email" => self.hints.address.clone().unwrap_or_else(|| "user@example.com".into()),
            "hostname" | "idn-hostname" => "example.com".into(),
            "ipv4" => format!("192.0.2.{}", nth % 250 + 1),
            "ipv6" => format!("2001:db8::{}", nth % 9 + 1),
            "uuid" => format!("00000000-0000-4000-8000-{:012}", nth + 1),
            "uri" | "url" | "iri" => {
                self.hints.url.clone().unwrap_or_else(|| format!("https://example.com/{}", nth + 1))
            }
            _ => return None,
        })
    }
}

/// Words are added until `text` has `least` characters.
fn fill(text: &mut String, least: usize) {
    const WORD: &str = " text";
    let missing = least.saturating_sub(text.chars().count());
    if missing == 0 {
        return;
    }
    let words = WORD.repeat((missing + 1).div_ceil(WORD.len()));
    text.push_str(if text.is_empty() { words.trim_start() } else { &words });
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "numbers without a fraction; out of range they are bounded"
)]
fn whole(number: f64) -> Value {
    Value::from(number as i64)
}

/// `cities` is a list of what is called `city`.
fn singular(name: &str) -> &str {
    name.strip_suffix('s').unwrap_or(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PROMPT: &str = "What is the weather in New York, please, in fahrenheit for 3 days?";

    fn sample(schema: &Value, prompt: &str) -> Value {
        super::sample(schema, &Hints::of(prompt), &Budget::of(1 << 20))
    }

    #[test]
    fn values_are_taken_from_the_schema_and_the_prompt() {
        let schema = json!({
            "type": "object",
            "required": ["location"],
            "properties": {
                "location": {"type": "string"},
                "unit": {"type": "string", "enum": ["celsius", "fahrenheit"]},
                "days": {"type": "integer", "minimum": 1, "maximum": 14},
                "lang": {"type": "string", "default": "en"},
                "region": {"type": "string", "examples": ["eu"]},
                "query": {"type": "string"},
            },
        });
        let expected = json!({
            "location": "New York", "unit": "fahrenheit", "days": 3, "lang": "en", "region": "eu", "query": PROMPT,
        });
        assert_eq!(sample(&schema, PROMPT), expected);
        let google = json!({"type": "OBJECT", "properties": {"city": {"type": "STRING", "nullable": true}}});
        assert_eq!(sample(&google, "weather in Beijing today"), json!({"city": "Beijing"}));
    }

    #[test]
    fn what_comes_out_fits() {
        let schemas = [
            json!({"type": "object", "additionalProperties": false, "required": ["a", "b"], "properties": {
                "a": {"type": ["null", "number"], "exclusiveMinimum": 0, "exclusiveMaximum": 1},
                "b": {"type": "array", "minItems": 3, "uniqueItems": true, "items": {"enum": ["x", "y", "z"]}},
                "c": {"type": "array", "minItems": 2, "uniqueItems": true, "items": {"type": "integer", "multipleOf": 5, "minimum": 7}},
                "d": {"type": "array", "minItems": 2, "uniqueItems": true, "items": {"type": "string", "minLength": 4, "maxLength": 90}},
            }}),
            json!({"$defs": {"node": {"type": "object", "required": ["name", "next"], "properties": {
                "name": {"type": "string", "maxLength": 3}, "next": {"anyOf": [{"$ref": "#/$defs/node"}, {"type": "null"}]},
            }}}, "$ref": "#/$defs/node"}),
            json!({"allOf": [{"type": "object", "required": ["a"], "properties": {"a": {"const": 7}}},
                {"required": ["b"], "properties": {"b": {"type": "boolean"}}}]}),
            json!({"type": "string", "pattern": "^[A-Z]{2}-[0-9]{3,5}(x|y)?$"}),
            json!({"type": "string", "pattern": "^\\d{4}-\\d{2}$", "minLength": 7}),
            json!({"type": "string", "format": "email", "minLength": 5}),
            json!({"type": "array", "prefixItems": [{"type": "integer"}, {"type": "string"}], "items": false}),
            json!({"type": "object", "minProperties": 2, "additionalProperties": {"type": "integer"}}),
            json!({"oneOf": [{"type": "null"}, {"type": "integer", "maximum": -5}]}),
            json!({"type": "number", "minimum": 2.5, "maximum": 2.75}),
            json!({"type": "integer", "minimum": -10, "maximum": -3}),
            json!({"properties": {"a": {"type": "array", "maxItems": 0, "items": {"type": "string"}}}}),
        ];
        for schema in schemas {
            let validator = jsonschema::draft202012::new(&schema).unwrap();
            for prompt in [PROMPT, "", "hello 0.7 and -4"] {
                let value = sample(&schema, prompt);
                assert!(validator.is_valid(&value), "{schema}\n{value}");
            }
        }
    }

    #[test]
    fn a_schema_that_demands_itself_comes_to_an_end() {
        let schema = json!({"type": "object", "required": ["a"], "properties": {"a": {"$ref": "#"}}});
        assert!(sample(&schema, "").to_string().len() < 2000);
        sample(&json!({"$ref": "#"}), "");
        sample(&json!({"allOf": [{"$ref": "#"}]}), "");
    }

    /// Found by a review: each of these small schemas took seconds, or gigabytes.
    #[test]
    fn a_schema_that_asks_for_too_much_gets_little() {
        let object = |properties: Vec<(String, Value)>| json!({"type": "object", "properties": properties.into_iter().collect::<Map<_, _>>()});
        let fields = |count: usize, field: &Value| {
            object((0..count).map(|number| (format!("f{number}"), field.clone())).collect())
        };
        let lists = |item: Value| {
            let list = json!({"type": "array", "minItems": 1000, "items": item});
            fields(4, &list)
        };
        let long = "x".repeat(300_000);
        let names: Vec<String> = (0..20_000).map(|number| format!("name{number}")).collect();
        let patterns = |form: fn(usize) -> String| {
            object((0..5000).map(|number| (format!("f{number}"), json!({"pattern": form(number)}))).collect())
        };
        let twice = json!([{"$ref": "#"}, {"$ref": "#"}]);
        let schemas = [
            lists(json!({"pattern": "((((a{1000}){1000}){1000}){1000})"})),
            lists(json!({"pattern": "((a{500}){500}){500}"})),
            lists(json!({"pattern": "a{1000}", "minLength": 1_000_000})),
            lists(json!({"pattern": "(?i)[^\\x00-\\x7f]*".repeat(40), "minLength": 10_000})),
            patterns(|number| format!("(?i)\\w{{5}}\\W{{5}}\\s{number}")),
            patterns(|number| format!("a*{}{number}", "\\w".repeat(300))),
            fields(5, &json!({"type": "string", "minLength": 1_000_000})),
            lists(json!({"type": "string", "minLength": 1_000_000})),
            lists(json!({"type": "string", "minLength": 1_000_000, "maxLength": 1})),
            lists(json!({"const": long})),
            lists(json!({"enum": [long, long.clone() + "y"]})),
            lists(json!({"examples": [[[long]]]})),
            lists(json!({"default": {"a": long}})),
            lists(json!({"enum": names})),
            lists(json!({"type": "object", "required": names})),
            lists(json!({"type": "array", "minItems": 1000, "items": {"type": "array", "minItems": 1000}})),
            fields(20_000, &json!({"type": "number", "minimum": 1_000_000_000})),
            fields(20_000, &json!({"format": "email"})),
            fields(200, &json!({"enum": &names[..1000]})),
            json!({"$defs": {"e": {"enum": names}},
                "type": "array", "minItems": 1000, "items": {"$ref": "#/$defs/e"}}),
            json!({"type": "object", "required": names}),
            json!({"type": "object", "required": names, "additionalProperties": {"$ref": "#"}}),
            json!({"type": "array", "minItems": 1000, "items": {"$ref": "#"}}),
            json!({"type": "array", "minItems": 1000, "items": {"$ref": format!("#/{long}")}}),
            json!({"allOf": twice, "anyOf": twice, "oneOf": twice}),
            lists(json!({"allOf": vec![json!({"type": "string"}); 5000]})),
            lists(json!({"anyOf": vec![json!({"type": "null"}); 20_000]})),
            object(vec![(long.clone(), json!({"type": "array", "minItems": 1000}))]),
        ];
        let prompt = "A lamp, 1 or 2, for Ann Lee. ".repeat(142);
        for (number, schema) in schemas.iter().enumerate() {
            let began = tokio::time::Instant::now();
            let value = sample(schema, &prompt).to_string();
            let took = began.elapsed();
            assert!(value.len() <= (1 << 20) + 2, "{number}: {} bytes", value.len());
            assert!(serde_json::from_str::<Value>(&value).is_ok(), "{number}");
            assert!(took < std::time::Duration::from_secs(2), "{number}: {took:?}");
        }
    }
}
