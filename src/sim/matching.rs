//! Which requests are meant: the conditions of a rule, of a search in the journal, of a verification.
//!
//! Pure. A [`Matcher`] is read once, with every mistake told by its place, and then compared with what was [`Seen`]. It
//! says not only whether that fits but which conditions fail, so that whoever wonders why nothing matched is told.

use globset::{GlobBuilder, GlobMatcher};
use http::{HeaderMap, HeaderName};
use regex::{Regex, RegexBuilder};
use serde_json::{Map, Value};

/// A request as conditions see it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seen<'a> {
    /// The operation's id; empty for what is none.
    pub(super) operation: &'a str,
    /// The model that it names; empty if it names none.
    pub(super) model: &'a str,
    /// The body as JSON, or the query as an object.
    pub(super) request: &'a Value,
    /// What it says in words.
    pub(super) prompt: &'a str,
    /// Its headers, the key aside.
    pub(super) headers: &'a HeaderMap,
}

/// Conditions, all of which must hold. Without any, everything fits.
#[derive(Debug, Default)]
pub(super) struct Matcher {
    written: Map<String, Value>,
    operation: Option<Glob>,
    model: Option<Glob>,
    prompt: Option<Words>,
    body: Vec<(String, Expected)>,
    headers: Vec<(HeaderName, Expected)>,
}

/// The names of conditions.
pub(super) const CONDITIONS: [&str; 5] = ["operation", "model", "prompt", "body", "header"];

/// A name with `*` and `?` in it.
#[derive(Debug)]
struct Glob {
    written: String,
    glob: GlobMatcher,
}

/// What a text has in it.
#[derive(Debug)]
enum Words {
    /// `/…/i`
    Regex(Regex),
    Part(String),
}

/// What a value is.
#[derive(Debug)]
enum Expected {
    /// A text that has it.
    Regex(Regex),
    /// Nothing: the value is absent or null.
    Absent,
    /// This value; of an object at least these members.
    Value(Value),
}

/// The longest regular expression, and the memory that one may take, in bytes.
const LONGEST_REGEX: usize = 4096;
const LARGEST_REGEX: usize = 1024 * 1024;

impl Matcher {
    /// Reads conditions as they are written in JSON: `{"operation": "veo.*", "prompt": "/storm/i", …}`. `at` is their place,
    /// for messages.
    ///
    /// # Errors
    /// The first that cannot be understood: where it stands, what is wrong and what there is.
    pub(super) fn read(at: &str, written: &Value) -> Result<Self, String> {
        let Value::Object(members) = written else {
            return Err(format!("{at}: {} is no object; it has {}", brief(written), CONDITIONS.join(", ")));
        };
        let mut matcher = Self { written: members.clone(), ..Self::default() };
        for (name, value) in members {
            let at = format!("{at}.{name}");
            match name.as_str() {
                "operation" => matcher.operation = Some(Glob::read(&at, value)?),
                "model" => matcher.model = Some(Glob::read(&at, value)?),
                "prompt" => matcher.prompt = Some(Words::read(&at, value)?),
                "body" => {
                    for (pointer, value) in
                        object(&at, value, "JSON pointers, as in {\"/aspectRatio\": \"9:16\"}")?
                    {
                        if !pointer.is_empty() && !pointer.starts_with('/') {
                            return Err(format!(
                                "{at}: \"{pointer}\" is no JSON pointer; write \"/{}\"",
                                pointer.replace('.', "/")
                            ));
                        }
                        let expected = Expected::read(&format!("{at}.{pointer}"), value)?;
                        matcher.body.push((pointer.clone(), expected));
                    }
                }
                "header" => {
                    for (header, value) in object(&at, value, "header names, as in {\"x-team\": \"video\"}")?
                    {
                        let name = HeaderName::try_from(header.as_str())
                            .map_err(|_| format!("{at}: \"{header}\" is no name of a header"))?;
                        if name == http::header::AUTHORIZATION {
                            return Err(format!(
                                "{at}.{header}: keys are not compared; a sandbox has only one"
                            ));
                        }
                        matcher.headers.push((name, Expected::read(&format!("{at}.{header}"), value)?));
                    }
                }
                _ => return Err(unknown(&at, name, &CONDITIONS)),
            }
        }
        Ok(matcher)
    }

    /// As it was written.
    pub(super) fn to_json(&self) -> Value {
        Value::Object(self.written.clone())
    }

    /// Whether there is no condition.
    pub(super) fn is_empty(&self) -> bool {
        self.written.is_empty()
    }

    /// Whether requests of `operation` can fit.
    pub(super) fn may_be(&self, operation: &str) -> bool {
        self.operation.as_ref().is_none_or(|glob| glob.glob.is_match(operation))
    }

    /// Whether all conditions hold.
    pub(super) fn fits(&self, seen: &Seen<'_>) -> bool {
        self.may_be(seen.operation)
            && self.model.as_ref().is_none_or(|glob| glob.glob.is_match(seen.model))
            && self.prompt.as_ref().is_none_or(|words| words.are_in(seen.prompt))
            && self.body.iter().all(|(at, expected)| expected.is(seen.request.pointer(at)))
            && self.headers.iter().all(|(name, expected)| expected.is_header(seen.headers, name))
    }

    /// The conditions that do not hold, each in words; none if it fits.
    pub(super) fn misses(&self, seen: &Seen<'_>) -> Vec<String> {
        let mut misses = Vec::new();
        let mut glob = |name: &str, glob: &Option<Glob>, value: &str| {
            if let Some(glob) = glob.as_ref().filter(|glob| !glob.glob.is_match(value)) {
                misses.push(format!("{name}: \"{value}\" is not {}", glob.written));
            }
        };
        glob("operation", &self.operation, seen.operation);
        glob("model", &self.model, seen.model);
        if let Some(words) = self.prompt.as_ref().filter(|words| !words.are_in(seen.prompt)) {
            misses.push(format!("prompt: {} has no {}", brief(&Value::from(seen.prompt)), words.shown()));
        }
        for (at, expected) in &self.body {
            let value = seen.request.pointer(at);
            if !expected.is(value) {
                misses.push(format!(
                    "body{at}: {} is not {}",
                    value.map_or("absent".into(), brief),
                    expected.shown()
                ));
            }
        }
        for (name, expected) in &self.headers {
            if !expected.is_header(seen.headers, name) {
                let value = seen.headers.get(name).map(|value| String::from_utf8_lossy(value.as_bytes()));
                let value = value.map_or("absent".to_owned(), |value| brief(&Value::from(value)));
                misses.push(format!("header {name}: {value} is not {}", expected.shown()));
            }
        }
        misses
    }

    /// How many conditions there are.
    pub(super) fn conditions(&self) -> usize {
        let one = |is: bool| usize::from(is);
        one(self.operation.is_some())
            + one(self.model.is_some())
            + one(self.prompt.is_some())
            + self.body.len()
            + self.headers.len()
    }
}

impl Glob {
    fn read(at: &str, value: &Value) -> Result<Self, String> {
        let written = text(at, value, "a name, in which * stands for anything, as in \"jobs.*\"")?;
        let glob = GlobBuilder::new(written).literal_separator(false).build();
        let glob = glob.map_err(|error| format!("{at}: \"{written}\" is no pattern: {}", error.kind()))?;
        Ok(Self { written: written.to_owned(), glob: glob.compile_matcher() })
    }
}

impl Words {
    fn read(at: &str, value: &Value) -> Result<Self, String> {
        let written =
            text(at, value, "text that the prompt has in it, or a regular expression such as \"/storm/i\"")?;
        Ok(match regex(at, written)? {
            Some(regex) => Self::Regex(regex),
            None => Self::Part(written.to_owned()),
        })
    }

    fn are_in(&self, prompt: &str) -> bool {
        match self {
            Self::Regex(regex) => regex.is_match(prompt),
            Self::Part(part) => prompt.contains(part.as_str()),
        }
    }

    fn shown(&self) -> String {
        match self {
            Self::Regex(regex) => format!("/{regex}/"),
            Self::Part(part) => brief(&Value::from(part.as_str())),
        }
    }
}

impl Expected {
    fn read(at: &str, value: &Value) -> Result<Self, String> {
        Ok(match value {
            Value::Null => Self::Absent,
            Value::String(written) => {
                regex(at, written)?.map_or_else(|| Self::Value(value.clone()), Self::Regex)
            }
            _ => Self::Value(value.clone()),
        })
    }

    fn is(&self, value: Option<&Value>) -> bool {
        match (self, value) {
            (Self::Absent, value) => value.is_none_or(Value::is_null),
            (Self::Regex(regex), Some(Value::String(text))) => regex.is_match(text),
            (Self::Regex(regex), Some(value @ (Value::Number(_) | Value::Bool(_)))) => {
                regex.is_match(&value.to_string())
            }
            (Self::Value(expected), Some(value)) => has(expected, value),
            _ => false,
        }
    }

    fn is_header(&self, headers: &HeaderMap, name: &HeaderName) -> bool {
        let text = |value: &http::HeaderValue| Value::from(String::from_utf8_lossy(value.as_bytes()));
        let mut values = headers.get_all(name).iter().peekable();
        if values.peek().is_none() {
            return self.is(None);
        }
        values.any(|value| self.is(Some(&text(value))))
    }

    fn shown(&self) -> String {
        match self {
            Self::Absent => "absent".to_owned(),
            Self::Regex(regex) => format!("/{regex}/"),
            Self::Value(value) => brief(value),
        }
    }
}

/// Whether `value` is as `expected`: objects may have more members, numbers are compared by what they are worth.
fn has(expected: &Value, value: &Value) -> bool {
    match (expected, value) {
        (Value::Object(expected), Value::Object(value)) => expected
            .iter()
            .all(|(name, expected)| value.get(name).map_or(expected.is_null(), |value| has(expected, value))),
        (Value::Array(expected), Value::Array(value)) => {
            expected.len() == value.len()
                && expected.iter().zip(value).all(|(expected, value)| has(expected, value))
        }
        (Value::Number(expected), Value::Number(value)) => expected.as_f64() == value.as_f64(),
        _ => expected == value,
    }
}

/// What a request says in words, for conditions on its prompt: the members called `prompt`, wherever they stand, or else
/// all of its texts.
pub(super) fn prompt_of(request: &Value) -> String {
    let (mut prompts, mut texts) = (Vec::new(), Vec::new());
    collect(request, false, &mut prompts, &mut texts);
    if prompts.is_empty() { texts } else { prompts }.join("\n")
}

fn collect<'v>(value: &'v Value, in_prompt: bool, prompts: &mut Vec<&'v str>, texts: &mut Vec<&'v str>) {
    match value {
        Value::String(text) if in_prompt => prompts.push(text),
        Value::String(text) => texts.push(text),
        Value::Array(items) => items.iter().for_each(|item| collect(item, in_prompt, prompts, texts)),
        Value::Object(members) => {
            for (name, value) in members.iter().filter(|(name, _)| *name != "callBackUrl") {
                collect(value, in_prompt || name == "prompt", prompts, texts);
            }
        }
        _ => {}
    }
}

/// The regular expression in `/…/flags`; `None` for other text. Flags are `i`, `m`, `s` and `x`.
fn regex(at: &str, written: &str) -> Result<Option<Regex>, String> {
    let Some((pattern, flags)) = written.strip_prefix('/').and_then(|rest| rest.rsplit_once('/')) else {
        return Ok(None);
    };
    // An absolute path is no expression.
    if !flags.chars().all(|flag| flag.is_ascii_lowercase()) || pattern.is_empty() || flags.len() > 4 {
        return Ok(None);
    }
    if let Some(unknown) = flags.chars().find(|flag| !"imsx".contains(*flag)) {
        return Err(format!("{at}: {written}: there is no flag \"{unknown}\"; there are i, m, s, x"));
    }
    if pattern.len() > LONGEST_REGEX {
        return Err(format!("{at}: a regular expression has {LONGEST_REGEX} characters at most"));
    }
    let has = |flag| flags.contains(flag);
    let regex = RegexBuilder::new(pattern)
        .case_insensitive(has('i'))
        .multi_line(has('m'))
        .dot_matches_new_line(has('s'))
        .ignore_whitespace(has('x'))
        .size_limit(LARGEST_REGEX)
        .build();
    let short = |error: regex::Error| error.to_string().lines().last().unwrap_or_default().trim().to_owned();
    regex.map(Some).map_err(|error| format!("{at}: {written} is no regular expression: {}", short(error)))
}

fn text<'v>(at: &str, value: &'v Value, expected: &str) -> Result<&'v str, String> {
    value.as_str().ok_or_else(|| format!("{at}: {} is not {expected}", brief(value)))
}

fn object<'v>(at: &str, value: &'v Value, expected: &str) -> Result<&'v Map<String, Value>, String> {
    value.as_object().ok_or_else(|| format!("{at}: {} is no object of {expected}", brief(value)))
}

/// What to say of a name that is not among `known`.
pub(super) fn unknown(at: &str, name: &str, known: &[&str]) -> String {
    let near = known.iter().map(|known| (strsim::damerau_levenshtein(known, name), known)).min();
    let hint =
        near.filter(|(distance, _)| *distance <= 2).map(|(_, known)| format!(", did you mean \"{known}\"?"));
    format!("{at}: unknown field \"{name}\"; there are {}{}", known.join(", "), hint.unwrap_or_default())
}

/// A value as a message shows it.
fn brief(value: &Value) -> String {
    let text = value.to_string();
    if text.chars().count() <= 80 { text } else { text.chars().take(79).chain(['…']).collect() }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn misses(condition: &Value, request: &Value) -> Vec<String> {
        let mut headers = HeaderMap::new();
        headers.insert("x-team", "video".parse().unwrap());
        let prompt = prompt_of(request);
        let seen = Seen {
            operation: "veo.generate",
            model: "veo3_fast",
            request,
            prompt: &prompt,
            headers: &headers,
        };
        let matcher = Matcher::read("match", condition).unwrap();
        assert_eq!(matcher.fits(&seen), matcher.misses(&seen).is_empty(), "{condition}");
        matcher.misses(&seen)
    }

    #[test]
    fn conditions_hold_or_say_why_not() {
        let request =
            json!({"prompt": "A storm\nat sea", "aspectRatio": "9:16", "input": {"seeds": [1, 2.0]}, "n": 4});
        let fits = [
            json!({}),
            json!({"operation": "veo.*", "model": "veo3*", "prompt": "/STORM/i"}),
            json!({"prompt": "storm", "body": {"/aspectRatio": "/^9:/", "/n": 4.0, "/none": null}}),
            json!({"body": {"": {"n": 4}, "/input": {"seeds": [1, 2]}, "/n": "/4/"}}),
            json!({"header": {"X-Team": "/^vid/", "x-other": null}}),
        ];
        for condition in fits {
            assert_eq!(misses(&condition, &request), Vec::<String>::new(), "{condition}");
        }
        let check = |condition: Value, miss: &str| assert_eq!(misses(&condition, &request), [miss]);
        check(json!({"operation": "runway.*"}), r#"operation: "veo.generate" is not runway.*"#);
        check(json!({"model": "veo3"}), r#"model: "veo3_fast" is not veo3"#);
        check(json!({"prompt": "/^sea$/"}), r#"prompt: "A storm\nat sea" has no /^sea$/"#);
        check(json!({"body": {"/aspectRatio": "16:9"}}), r#"body/aspectRatio: "9:16" is not "16:9""#);
        check(json!({"body": {"/none": 1}}), "body/none: absent is not 1");
        check(json!({"body": {"/n": null}}), "body/n: 4 is not absent");
        check(json!({"header": {"x-team": "audio"}}), r#"header x-team: "video" is not "audio""#);
    }

    #[test]
    fn what_cannot_be_understood_is_told_by_its_place() {
        let check = |condition, told: &str| {
            let error = Matcher::read("match", &condition).unwrap_err();
            assert!(error.starts_with(told), "{error}");
        };
        check(json!([]), "match: [] is no object");
        check(
            json!({"operaton": "x"}),
            r#"match.operaton: unknown field "operaton"; there are operation, model, prompt, body, header, did you mean "operation"?"#,
        );
        check(json!({"operation": "[a"}), r#"match.operation: "[a" is no pattern: "#);
        check(json!({"model": 5}), "match.model: 5 is not a name");
        check(json!({"prompt": "/(/"}), "match.prompt: /(/ is no regular expression: ");
        check(json!({"prompt": "/a/g"}), r#"match.prompt: /a/g: there is no flag "g""#);
        check(json!({"prompt": "/(a{1000}){1000}/"}), "match.prompt: ");
        check(
            json!({"body": {"input.prompt": 1}}),
            r#"match.body: "input.prompt" is no JSON pointer; write "/input/prompt""#,
        );
        check(json!({"header": {"a b": "x"}}), r#"match.header: "a b" is no name of a header"#);
    }

    #[test]
    fn a_prompt_is_what_is_called_so_or_all_texts() {
        assert_eq!(
            prompt_of(&json!({"model": "x", "input": {"prompt": "a", "shots": [{"prompt": "b"}]}})),
            "a\nb"
        );
        assert_eq!(prompt_of(&json!({"text": "say", "callBackUrl": "http://x"})), "say");
    }
}
