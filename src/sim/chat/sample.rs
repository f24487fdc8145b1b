//! A value that fits a JSON Schema: arguments of tools, structured answers.
//!
//! The schema's own examples, choices and defaults come first, then words and numbers of the prompt, then something
//! plain. Schemas of Google's kind (types in capitals, `nullable`) are understood too. What a schema asks for beyond
//! types, bounds, formats, patterns and combinations is not looked at.

use std::borrow::Cow;
use std::cell::Cell;

use regex_syntax::hir::{Class, Hir, HirKind};
use serde_json::{Map, Value, json};

use super::words::quote;

/// Beyond this depth only what a schema demands is filled in.
const SHALLOW: usize = 5;
/// Beyond this depth nothing is: a schema that demands itself has no value.
const DEEPEST: usize = 24;
/// More steps than this no value takes.
const MOST_STEPS: u32 = 20_000;
/// More items than this no list gets, whatever the schema demands.
const MOST_ITEMS: u64 = 1000;

/// A value that fits `schema`, made of words of `prompt` where it can be.
pub(super) fn sample(schema: &Value, prompt: &str) -> Value {
    Sampler { root: schema, prompt, steps: Cell::new(0) }.value("", schema, 0, 0)
}

struct Sampler<'a> {
    /// Where references lead.
    root: &'a Value,
    prompt: &'a str,
    /// How many have been taken: schemas that lead in circles come to an end.
    steps: Cell<u32>,
}

impl Sampler<'_> {
    /// A value for the field `name`, the `nth` of its kind.
    fn value(&self, name: &str, schema: &Value, nth: u64, depth: usize) -> Value {
        if depth > DEEPEST || !self.goes_on() {
            return Value::Null;
        }
        let schema = self.resolved(schema, depth);
        let Some(members) = schema.as_object() else { return Value::from(self.guess(name)) };
        if let Some(fixed) = members.get("const") {
            return fixed.clone();
        }
        if let Some(given) = self.given(members, nth) {
            return given;
        }
        match kind(members) {
            "object" => self.object(members, depth),
            "array" => self.array(name, members, depth),
            "integer" => whole(self.number(members, nth, true)),
            "number" => {
                let number = self.number(members, nth, false);
                if number.fract() == 0.0 { whole(number) } else { json!(number) }
            }
            "boolean" => Value::Bool(nth.is_multiple_of(2)),
            "null" => Value::Null,
            _ => Value::from(self.text(name, members, nth)),
        }
    }

    /// Takes a step, if there are any left.
    fn goes_on(&self) -> bool {
        self.steps.set(self.steps.get() + 1);
        self.steps.get() <= MOST_STEPS
    }

    /// `schema` with references followed, alternatives chosen and combinations joined.
    fn resolved<'s>(&'s self, schema: &'s Value, depth: usize) -> Cow<'s, Value> {
        let mut schema = Cow::Borrowed(schema);
        for _ in 0..DEEPEST {
            let Some(members) = schema.as_object().filter(|_| depth <= DEEPEST && self.goes_on()) else {
                break;
            };
            if let Some(pointer) = members.get("$ref").and_then(Value::as_str) {
                let target = pointer.strip_prefix('#').and_then(|pointer| self.root.pointer(pointer));
                schema = Cow::Owned(joined(members, "$ref", target));
            } else if let Some(all) = members.get("allOf").and_then(Value::as_array) {
                let first = joined(members, "allOf", None);
                let joined =
                    all.iter().fold(first, |whole, part| merged(whole, &self.resolved(part, depth + 1)));
                schema = Cow::Owned(joined);
            } else if let Some((word, choices)) = alternatives(members) {
                schema = Cow::Owned(joined(members, word, choose(choices, depth)));
            } else {
                break;
            }
        }
        schema
    }

    /// What the schema itself proposes: an example, a choice that the prompt names, the default, the first choice.
    fn given(&self, schema: &Map<String, Value>, nth: u64) -> Option<Value> {
        let index = usize::try_from(nth).unwrap_or(0);
        let examples = schema.get("examples").and_then(Value::as_array);
        if let Some(examples) = examples.filter(|examples| !examples.is_empty()) {
            return Some(examples[index % examples.len()].clone());
        }
        let choices = schema.get("enum").and_then(Value::as_array).filter(|choices| !choices.is_empty());
        if let Some(choices) = choices {
            let lower = self.prompt.to_lowercase();
            let is_named = |choice: &&Value| {
                choice.as_str().is_some_and(|text| !text.is_empty() && lower.contains(&text.to_lowercase()))
            };
            let named = choices.iter().find(is_named);
            let first = named.or_else(|| schema.get("default").filter(|default| choices.contains(default)));
            let start =
                first.and_then(|first| choices.iter().position(|choice| choice == first)).unwrap_or(0);
            return Some(choices[(start + index) % choices.len()].clone());
        }
        let proposed = schema.get("example").or_else(|| schema.get("default"));
        proposed.filter(|proposed| nth == 0 && !proposed.is_null()).cloned()
    }

    fn object(&self, schema: &Map<String, Value>, depth: usize) -> Value {
        let required: Vec<&str> = schema
            .get("required")
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .collect();
        let mut object = Map::new();
        let properties = schema.get("properties").and_then(Value::as_object);
        for (name, schema) in properties.into_iter().flatten() {
            if depth < SHALLOW || required.contains(&name.as_str()) {
                object.insert(name.clone(), self.value(name, schema, 0, depth + 1));
            }
        }
        let others = schema.get("additionalProperties").filter(|schema| schema.is_object());
        let others = others.cloned().unwrap_or_else(|| json!({}));
        for name in required {
            if !object.contains_key(name) {
                object.insert(name.to_owned(), self.value(name, &others, 0, depth + 1));
            }
        }
        let least = schema.get("minProperties").and_then(Value::as_u64).unwrap_or(0).min(MOST_ITEMS);
        for number in 1..=least {
            if (object.len() as u64) < least {
                object.insert(format!("key{number}"), self.value("value", &others, 0, depth + 1));
            }
        }
        object.into()
    }

    fn array(&self, name: &str, schema: &Map<String, Value>, depth: usize) -> Value {
        let bound = |word: &str| schema.get(word).and_then(Value::as_u64);
        let first = schema.get("prefixItems").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
        let items = schema.get("items").filter(|items| **items != Value::Bool(false));
        let usual =
            if depth < SHALLOW && items.is_some() { first.len() as u64 + 1 } else { first.len() as u64 };
        let count = usual
            .max(bound("minItems").unwrap_or(0))
            .min(bound("maxItems").unwrap_or(u64::MAX))
            .min(MOST_ITEMS);
        let anything = json!({"type": "string"});
        let item = |nth: u64| {
            let own = usize::try_from(nth).ok().and_then(|nth| first.get(nth));
            self.value(singular(name), own.or(items).unwrap_or(&anything), nth, depth + 1)
        };
        (0..count).map(item).collect()
    }

    /// A number of the prompt that fits, or the smallest that is not less than 1.
    fn number(&self, schema: &Map<String, Value>, nth: u64, integer: bool) -> f64 {
        let bound = |word: &str| schema.get(word).and_then(Value::as_f64);
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
        let words = self.prompt.split(|sign: char| !sign.is_ascii_digit() && sign != '.' && sign != '-');
        let numbers = words.filter_map(|word| word.trim_end_matches('.').parse::<f64>().ok());
        let named =
            numbers.filter(|number| number.is_finite()).find(|number| fits(*number)).filter(|_| nth == 0);
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

    fn text(&self, name: &str, schema: &Map<String, Value>, nth: u64) -> String {
        let bound = |word: &str| {
            schema.get(word).and_then(Value::as_u64).and_then(|bound| usize::try_from(bound).ok())
        };
        let pattern = schema.get("pattern").and_then(Value::as_str);
        if let Some(text) = pattern.and_then(|pattern| matching(pattern, bound("minLength").unwrap_or(0))) {
            return text;
        }
        let format = schema.get("format").and_then(Value::as_str).unwrap_or_default();
        let formatted = self.of_format(format, nth);
        // The items of a list differ.
        let number = if nth > 0 && formatted.is_none() { format!(" {}", nth + 1) } else { String::new() };
        let mut text = formatted.unwrap_or_else(|| self.guess(name));
        let least = bound("minLength").unwrap_or(0);
        while text.chars().count() < least.min(1_000_000) {
            text.push_str(if text.is_empty() { "text" } else { " text" });
        }
        let most = bound("maxLength").unwrap_or(usize::MAX);
        let room = most.saturating_sub(number.len());
        text.chars().take(room).chain(number.chars()).take(most).collect()
    }

    fn of_format(&self, format: &str, nth: u64) -> Option<String> {
        let day = nth % 28 + 1;
        let word = |fits: fn(&str) -> bool| {
            let mut words = self
                .prompt
                .split_whitespace()
                .map(|word| word.trim_matches(|sign: char| "<>()\"',.;!?".contains(sign)));
            words.find(|word| fits(word)).map(str::to_owned)
        };
        let url = || word(|word| word.starts_with("http://") || word.starts_with("https://"));
        Some(match format {
            "date-time" => format!("2026-01-{day:02}T12:00:00Z"),
            "date" => format!("2026-01-{day:02}"),
            "time" => "12:00:00Z".into(),
            "duration" => "PT1H".into(),
            "email" | "idn-email" => {
                let is_address = |word: &str| {
                    word.split_once('@').is_some_and(|(name, host)| !name.is_empty() && host.contains('.'))
                };
                word(is_address).unwrap_or_else(|| "user@example.com".into())
            }
            "hostname" | "idn-hostname" => "example.com".into(),
            "ipv4" => format!("192.0.2.{}", nth % 250 + 1),
            "ipv6" => format!("2001:db8::{}", nth % 9 + 1),
            "uuid" => format!("00000000-0000-4000-8000-{:012}", nth + 1),
            "uri" | "url" | "iri" => url().unwrap_or_else(|| format!("https://example.com/{}", nth + 1)),
            _ => return None,
        })
    }

    /// What the prompt may mean by `name`.
    fn guess(&self, name: &str) -> String {
        const WHOLE: [&str; 14] = [
            "query",
            "question",
            "prompt",
            "text",
            "message",
            "input",
            "content",
            "topic",
            "title",
            "summary",
            "answer",
            "description",
            "expression",
            "request",
        ];
        let lower = name.to_lowercase();
        let whole = || quote(self.prompt, 80);
        let guess = if WHOLE.iter().any(|word| lower.contains(word)) || lower == "q" {
            whole()
        } else {
            proper_name(self.prompt).unwrap_or_else(whole)
        };
        if guess.is_empty() { if name.is_empty() { "text".into() } else { name.to_owned() } } else { guess }
    }
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "numbers without a fraction; out of range they are bounded"
)]
fn whole(number: f64) -> Value {
    Value::from(number as i64)
}

/// The type that a value of `schema` has; for one that lists several the first but null.
fn kind(schema: &Map<String, Value>) -> &'static str {
    const KINDS: [&str; 7] = ["object", "array", "integer", "number", "boolean", "null", "string"];
    let named = match schema.get("type") {
        Some(Value::Array(kinds)) => {
            kinds.iter().filter_map(Value::as_str).find(|kind| !kind.eq_ignore_ascii_case("null"))
        }
        Some(kind) => kind.as_str(),
        None => None,
    };
    let known = named.and_then(|named| KINDS.into_iter().find(|kind| named.eq_ignore_ascii_case(kind)));
    let has = |word: &str| schema.contains_key(word);
    known.unwrap_or(if has("properties") || has("required") {
        "object"
    } else if has("items") || has("prefixItems") {
        "array"
    } else if has("minimum") || has("maximum") {
        "number"
    } else {
        "string"
    })
}

/// The members but `word`, joined with `target`.
fn joined(members: &Map<String, Value>, word: &str, target: Option<&Value>) -> Value {
    let rest: Map<_, _> = members
        .iter()
        .filter(|(name, _)| *name != word)
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect();
    target.map_or_else(
        || Value::Object(rest.clone()),
        |target| merged(target.clone(), &Value::Object(rest.clone())),
    )
}

/// Both at once: properties and what is required are put together, of anything else `more` wins.
fn merged(base: Value, more: &Value) -> Value {
    let (Value::Object(mut base), Value::Object(more)) = (base, more) else { return more.clone() };
    for (name, value) in more {
        match (base.get_mut(name), value) {
            (Some(Value::Object(there)), Value::Object(new)) if name == "properties" => {
                there.extend(new.clone());
            }
            (Some(Value::Array(there)), Value::Array(new)) if name == "required" => there.extend(new.clone()),
            _ => drop(base.insert(name.clone(), value.clone())),
        }
    }
    base.into()
}

fn alternatives(schema: &Map<String, Value>) -> Option<(&'static str, &[Value])> {
    ["anyOf", "oneOf"].into_iter().find_map(|word| Some((word, schema.get(word)?.as_array()?.as_slice())))
}

/// The first alternative that is something; deep down the one that leads no further.
fn choose(choices: &[Value], depth: usize) -> Option<&Value> {
    let is_null =
        |choice: &&Value| choice["type"].as_str().is_some_and(|kind| kind.eq_ignore_ascii_case("null"));
    let ends = |choice: &&Value| choice.get("$ref").is_none() && choice.get("properties").is_none();
    let deep = choices.iter().find(ends).filter(|_| depth >= SHALLOW);
    deep.or_else(|| choices.iter().find(|choice| !is_null(choice))).or_else(|| choices.first())
}

/// `cities` is a list of what is called `city`.
fn singular(name: &str) -> &str {
    name.strip_suffix('s').unwrap_or(name)
}

/// A name in `prompt`: the first words with capitals that do not begin a sentence.
fn proper_name(prompt: &str) -> Option<String> {
    let mut begins = true;
    let mut found: Vec<&str> = Vec::new();
    for word in prompt.split_whitespace() {
        let bare = word.trim_matches(|sign: char| !sign.is_alphanumeric());
        let is_name = bare.chars().next().is_some_and(char::is_uppercase) && bare.chars().count() > 1;
        if is_name && !begins {
            found.push(bare);
        } else if !found.is_empty() {
            break;
        }
        let ends = word.ends_with(['.', '!', '?', ':', ',']);
        if ends && !found.is_empty() {
            break;
        }
        begins = ends && !word.ends_with(',');
    }
    (!found.is_empty()).then(|| found.join(" "))
}

/// A text that matches `pattern`, of `least` characters where the pattern leaves it open.
fn matching(pattern: &str, least: usize) -> Option<String> {
    let hir = regex_syntax::parse(pattern).ok()?;
    let mut text = String::new();
    write_matching(&hir, least.min(10_000), &mut text)?;
    Some(text)
}

fn write_matching(hir: &Hir, least: usize, text: &mut String) -> Option<()> {
    match hir.kind() {
        HirKind::Empty | HirKind::Look(_) => {}
        HirKind::Literal(literal) => text.push_str(std::str::from_utf8(&literal.0).ok()?),
        HirKind::Class(class) => text.push(of_class(class)?),
        HirKind::Capture(capture) => write_matching(&capture.sub, least, text)?,
        HirKind::Concat(parts) => parts.iter().try_for_each(|part| write_matching(part, least, text))?,
        HirKind::Alternation(choices) => write_matching(choices.first()?, least, text)?,
        HirKind::Repetition(repetition) => {
            let usual = repetition.min.max(repetition.max.unwrap_or(1).min(1));
            let most = repetition.max.unwrap_or(u32::MAX);
            for count in 0..most.min(10_000) {
                if count >= usual && text.chars().count() >= least {
                    break;
                }
                write_matching(&repetition.sub, 0, text)?;
            }
        }
    }
    Some(())
}

/// A letter or digit of the class, or else any sign of it.
fn of_class(class: &Class) -> Option<char> {
    match class {
        Class::Unicode(class) => {
            let contains =
                |sign: char| class.iter().any(|range| (range.start()..=range.end()).contains(&sign));
            ['a', '1', 'A'].into_iter().find(|sign| contains(*sign)).or_else(|| {
                let ascii = (' '..='~').find(|sign| contains(*sign));
                ascii.or_else(|| class.iter().next().map(regex_syntax::hir::ClassUnicodeRange::start))
            })
        }
        Class::Bytes(class) => class.iter().next().map(|range| char::from(range.start())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PROMPT: &str = "What is the weather in New York, please, in fahrenheit for 3 days?";

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
    fn names_are_found_in_sentences() {
        let check = |prompt: &str, expected: Option<&str>| {
            assert_eq!(proper_name(prompt).as_deref(), expected, "{prompt}");
        };
        check("What is the weather in Beijing today?", Some("Beijing"));
        check("Weather. Now in San Francisco, CA!", Some("San Francisco"));
        check("tell me a joke", None);
    }

    #[test]
    fn a_schema_that_demands_itself_comes_to_an_end() {
        let schema = json!({"type": "object", "required": ["a"], "properties": {"a": {"$ref": "#"}}});
        assert!(sample(&schema, "").to_string().len() < 2000);
        sample(&json!({"$ref": "#"}), "");
        sample(&json!({"allOf": [{"$ref": "#"}]}), "");
    }
}
