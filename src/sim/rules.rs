//! What a test has laid down: requests like these shall go like that.
//!
//! Pure but for counting. A rule is read once, with every mistake told by its place; then it is asked for each request of
//! its sandbox. Of the rules that fit, the one of the highest priority counts, and of those the newest.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::response::Response;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::matching::{Matcher, Seen, unknown};
use super::outcome::{Wish, WishedEnding, wishes};
use super::settings::parse_range;
use crate::catalogue::{Catalogue, ErrorEntry, Operation, OperationIx};
use crate::clock::{Draw, parse_duration};

/// More rules than this a sandbox does not have.
const MOST_RULES: usize = 1000;
/// So many requests that nearly fitted a rule are remembered with it.
const MOST_NEAR: usize = 5;
/// No answer is held back for longer.
const LONGEST_LATENCY: Duration = Duration::from_mins(10);

/// The rules of a sandbox.
#[derive(Debug, Default)]
pub(super) struct Rules {
    /// In the order in which they are asked.
    rules: Vec<Rule>,
    made: u64,
}

/// Requests like these shall go like that.
#[derive(Debug)]
struct Rule {
    id: Arc<str>,
    /// The how manieth of the sandbox.
    number: u64,
    matcher: Matcher,
    /// One for each match; the last one stays.
    effects: Vec<Arc<Effect>>,
    times: Option<u64>,
    chance: f64,
    priority: i64,
    then: Value,
    /// How often it fitted, and how often it was applied.
    fitted: u64,
    applied: u64,
    near: Vec<NearRequest>,
}

/// A request that nearly fitted a rule.
#[derive(Debug, Serialize, Deserialize)]
struct NearRequest {
    request: u64,
    misses: Vec<String>,
}

/// How a request goes.
#[derive(Debug, Default)]
pub(super) struct Effect {
    /// How it or its task ends.
    pub(super) wish: Wish,
    /// Whether it says how the call ends; else a directive may.
    pub(super) decides: bool,
    /// How long the answer takes, shortest and longest.
    pub(super) latency: Option<(Duration, Duration)>,
    /// The answer, word for word.
    pub(super) response: Option<Literal>,
}

/// An answer word for word.
#[derive(Debug)]
pub(super) struct Literal {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Vec<u8>,
}

/// The rule that was chosen for a request.
#[derive(Debug)]
pub(super) struct Chosen {
    pub(super) rule: Arc<str>,
    pub(super) effect: Arc<Effect>,
}

/// Why a rule was not applied to a request.
#[derive(Clone, Debug)]
pub(super) struct Near {
    pub(super) rule: Arc<str>,
    /// The conditions that do not hold, in words.
    pub(super) misses: Vec<String>,
}

const FIELDS: [&str; 6] = ["match", "then", "times", "chance", "priority", "id"];
const EFFECTS: [&str; 7] = ["outcome", "after", "latency", "response", "result", "text", "tool"];
const LITERAL: [&str; 3] = ["status", "headers", "body"];

impl Rules {
    /// Takes in the rule that is `written`; gives it as it will be shown.
    ///
    /// # Errors
    /// What cannot be understood: where it stands, what is wrong and what there is.
    pub(super) fn add(&mut self, catalogue: &Catalogue, written: &Value) -> Result<Value, String> {
        let number = self.made + 1;
        let rule = Rule::read(catalogue, written, number)?;
        if self.rules.iter().any(|other| other.id == rule.id) {
            return Err(format!("id: there is a rule \"{}\" already; delete it first", rule.id));
        }
        if self.rules.len() >= MOST_RULES {
            return Err(format!("there are {MOST_RULES} rules already, the most that a sandbox has"));
        }
        self.made = number;
        let shown = rule.to_json();
        // Behind those of a higher priority, before older ones of the same.
        let place = self.rules.partition_point(|other| other.priority > rule.priority);
        self.rules.insert(place, rule);
        Ok(shown)
    }

    /// Takes out the rule of that id; whether there was one.
    pub(super) fn remove(&mut self, id: &str) -> bool {
        let before = self.rules.len();
        self.rules.retain(|rule| &*rule.id != id);
        self.rules.len() < before
    }

    /// Takes out all of them; gives their number.
    pub(super) fn clear(&mut self) -> usize {
        std::mem::take(&mut self.rules).len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// All rules in the order in which they are asked, with what became of them.
    pub(super) fn to_json(&self) -> Vec<Value> {
        self.rules.iter().map(Rule::to_json).collect()
    }

    /// The rule of that id.
    pub(super) fn find(&self, id: &str) -> Option<Value> {
        self.rules.iter().find(|rule| &*rule.id == id).map(Rule::to_json)
    }

    /// The rule for the request with that number in the journal, and which others nearly fitted it. `seed` decides about
    /// those that come by chance.
    pub(super) fn choose(
        &mut self,
        request: &Seen<'_>,
        number: u64,
        seed: u64,
    ) -> (Option<Chosen>, Vec<Near>) {
        let mut near = Vec::new();
        for rule in &mut self.rules {
            match rule.ask(request, seed) {
                Ok(effect) => {
                    let chosen = Chosen { rule: Arc::clone(&rule.id), effect };
                    return (Some(chosen), Vec::new());
                }
                // Of another operation is not near, nor is what no condition fits.
                Err(misses)
                    if rule.matcher.may_be(request.operation)
                        && misses.len() < rule.matcher.conditions().max(2) =>
                {
                    rule.remember(number, &misses);
                    near.push(Near { rule: Arc::clone(&rule.id), misses });
                }
                Err(_) => {}
            }
        }
        near.sort_by_key(|near| near.misses.len());
        near.truncate(3);
        (None, near)
    }

    /// As a snapshot keeps them: what was written, with the counts.
    pub(super) fn dump(&self) -> Value {
        let rules = self.rules.iter().map(|rule| {
            json!({
                "rule": rule.written(), "number": rule.number, "fitted": rule.fitted, "applied": rule.applied,
                "near": rule.near,
            })
        });
        json!({"made": self.made, "rules": rules.collect::<Vec<_>>()})
    }

    /// From a snapshot.
    ///
    /// # Errors
    /// What cannot be understood, by its place.
    pub(super) fn restore(catalogue: &Catalogue, dumped: &Value) -> Result<Self, String> {
        let count = |value: &Value, name: &str| value.get(name).and_then(Value::as_u64).unwrap_or(0);
        let mut rules = Self { made: count(dumped, "made"), ..Self::default() };
        for (index, entry) in dumped["rules"].as_array().into_iter().flatten().enumerate() {
            let rule = Rule::read(catalogue, &entry["rule"], count(entry, "number"));
            let rule = rule.map_err(|what| format!("rules.{index}.{what}"))?;
            rules.rules.push(Rule {
                fitted: count(entry, "fitted"),
                applied: count(entry, "applied"),
                near: serde_json::from_value(entry["near"].clone()).unwrap_or_default(),
                ..rule
            });
        }
        Ok(rules)
    }
}

impl Rule {
    fn read(catalogue: &Catalogue, written: &Value, number: u64) -> Result<Self, String> {
        let Value::Object(members) = written else {
            return Err("a rule is an object with match and then".to_owned());
        };
        if let Some(name) = members.keys().find(|name| !FIELDS.contains(&name.as_str())) {
            return Err(unknown(name, name, &FIELDS));
        }
        let matcher = Matcher::read("match", members.get("match").unwrap_or(&json!({})))?;
        if !catalogue.operations().any(|(_, operation)| matcher.may_be(&operation.id)) {
            return Err(format!(
                "match.operation: {}",
                no_operation(catalogue, &members["match"]["operation"])
            ));
        }
        let then =
            members.get("then").ok_or("then: say what shall happen, as in {\"outcome\": \"stall\"}")?;
        let listed = then.as_array().map_or(std::slice::from_ref(then), Vec::as_slice);
        if listed.is_empty() {
            return Err("then: the list is empty; it has one item for each match".to_owned());
        }
        let mut effects = Vec::new();
        for (index, effect) in listed.iter().enumerate() {
            let at = if then.is_array() { format!("then.{index}") } else { "then".to_owned() };
            let effect = Effect::read(&at, effect)?;
            check(catalogue, &matcher, &effect.wish).map_err(|what| format!("{at}.outcome: {what}"))?;
            effects.push(Arc::new(effect));
        }
        let times = members.get("times").filter(|times| !times.is_null());
        let times = times.map(|times| {
            let count = times.as_u64().filter(|count| *count > 0);
            count.ok_or_else(|| format!("times: {times} is not a whole number from 1"))
        });
        let chance = members.get("chance").filter(|chance| !chance.is_null()).map_or(Ok(1.0), |chance| {
            let share = chance.as_f64().filter(|share| *share > 0.0 && *share <= 1.0);
            share.ok_or_else(|| {
                format!("chance: {chance} is not a number above 0 and up to 1, as 0.5 for every other time")
            })
        })?;
        let priority =
            members.get("priority").filter(|priority| !priority.is_null()).map_or(Ok(0), |priority| {
                priority
                    .as_i64()
                    .ok_or_else(|| format!("priority: {priority} is not a whole number; the higher one wins"))
            })?;
        let id = match members.get("id") {
            None | Some(Value::Null) => format!("rule_{number}"),
            Some(Value::String(id)) if is_name(id) => id.clone(),
            Some(id) => return Err(format!("id: {id} is not 1 to 64 letters, digits, - and _")),
        };
        let (then, times) = (then.clone(), times.transpose()?);
        let (id, near) = (id.into(), Vec::new());
        Ok(Self { id, number, matcher, effects, times, chance, priority, then, fitted: 0, applied: 0, near })
    }

    /// What it does to a request, or why it does nothing.
    fn ask(&mut self, request: &Seen<'_>, seed: u64) -> Result<Arc<Effect>, Vec<String>> {
        if !self.matcher.fits(request) {
            return Err(self.matcher.misses(request));
        }
        if let Some(times) = self.times.filter(|times| self.applied >= *times) {
            return Err(vec![format!("times: it was applied {times} times already")]);
        }
        self.fitted += 1;
        let draw = [&seed.to_le_bytes()[..], b"rule", self.id.as_bytes(), &self.fitted.to_le_bytes()];
        if self.chance < 1.0 && Draw::new(&draw).fraction() >= self.chance {
            return Err(vec![format!("chance: not this time ({} of the time it is)", self.chance)]);
        }
        self.applied += 1;
        let turn = usize::try_from(self.applied - 1).unwrap_or(usize::MAX).min(self.effects.len() - 1);
        Ok(Arc::clone(&self.effects[turn]))
    }

    fn remember(&mut self, request: u64, misses: &[String]) {
        if self.near.len() == MOST_NEAR {
            self.near.remove(0);
        }
        self.near.push(NearRequest { request, misses: misses.to_vec() });
    }

    fn written(&self) -> Value {
        let mut written = json!({
            "id": &*self.id, "match": self.matcher.to_json(), "then": self.then, "priority": self.priority,
            "chance": self.chance,
        });
        if let Some(times) = self.times {
            written["times"] = times.into();
        }
        written
    }

    fn to_json(&self) -> Value {
        let near = self.near.iter().map(|near| json!({"request": near.request, "misses": near.misses}));
        let mut shown = self.written();
        shown["matched"] = self.applied.into();
        shown["near"] = near.collect();
        shown
    }
}

impl Effect {
    fn read(at: &str, written: &Value) -> Result<Self, String> {
        let Value::Object(members) = written else {
            return Err(format!("{at}: {written} is no object; it has {}", EFFECTS.join(", ")));
        };
        if members.is_empty() {
            return Err(format!("{at}: nothing happens; say one of {}", EFFECTS.join(", ")));
        }
        let mut effect = Self::default();
        for (name, value) in members {
            let at = format!("{at}.{name}");
            let wrong = |expected: &str| format!("{at}: {value} is not {expected}");
            match name.as_str() {
                "outcome" => effect.read_outcome(&at, value)?,
                "after" => {
                    let delay = value.as_str().and_then(parse_duration);
                    effect.wish.delay = Some(delay.ok_or_else(|| wrong("a duration such as \"5s\""))?);
                }
                "latency" => {
                    let range = value.as_str().and_then(|text| parse_range(text, LONGEST_LATENCY));
                    let range = range.ok_or_else(|| {
                        wrong(
                            "a duration such as \"200ms\" or a range such as \"50ms..200ms\", 10 min at most",
                        )
                    })?;
                    effect.latency = Some(range);
                }
                "response" => {
                    effect.response = Some(Literal::read(&at, value)?);
                    effect.decides = true;
                }
                "result" => {
                    let members = value.as_object().filter(|members| !members.is_empty());
                    let members = members.ok_or_else(|| {
                        wrong("an object of members of the result, as in {\"resultUrls\": [\"https://…\"]}")
                    })?;
                    effect.wish.result = Some(Arc::new(members.clone()));
                }
                "text" => {
                    effect.wish.speech.text = Some(value.as_str().ok_or_else(|| wrong("text"))?.to_owned());
                    effect.decides = true;
                }
                "tool" => {
                    let one = value.as_str().map(|name| vec![name.to_owned()]);
                    let names = one.or_else(|| serde_json::from_value(value.clone()).ok());
                    effect.wish.speech.tools =
                        names.ok_or_else(|| wrong("the name of a tool, or a list of names"))?;
                    effect.decides = true;
                }
                _ => return Err(unknown(&at, name, &EFFECTS)),
            }
        }
        if effect.response.is_some() && effect.wish.changes_the_call() {
            return Err(format!(
                "{at}: a response is the whole answer; it goes with latency and fault:… only"
            ));
        }
        Ok(effect)
    }

    /// Reads `"fail:nsfw, callback:duplicate"`, or a list of such.
    fn read_outcome(&mut self, at: &str, value: &Value) -> Result<(), String> {
        let one = value.as_str().map(|text| vec![text.to_owned()]);
        let texts = one.or_else(|| serde_json::from_value(value.clone()).ok());
        let texts = texts
            .ok_or_else(|| format!("{at}: {value} is not an outcome such as \"fail:content_policy\""))?;
        let mut parts = texts.iter().flat_map(|text| wishes(text)).peekable();
        if parts.peek().is_none() {
            return Err(format!("{at}: it is empty; say one, such as \"stall\""));
        }
        for part in parts {
            self.wish.add(part).map_err(|what| format!("{at}: {what}"))?;
        }
        self.decides = true;
        Ok(())
    }
}

impl Literal {
    /// To be sent.
    pub(super) fn to_response(&self) -> Response {
        let mut response = Response::new(Body::from(self.body.clone()));
        *response.status_mut() = self.status;
        response.headers_mut().clone_from(&self.headers);
        response
    }

    fn read(at: &str, written: &Value) -> Result<Self, String> {
        let Value::Object(members) = written else {
            return Err(format!("{at}: {written} is no object; it has {}", LITERAL.join(", ")));
        };
        if let Some(name) = members.keys().find(|name| !LITERAL.contains(&name.as_str())) {
            return Err(unknown(&format!("{at}.{name}"), name, &LITERAL));
        }
        let status = members.get("status").map_or(Ok(200), |status| {
            let code = status.as_u64().and_then(|code| u16::try_from(code).ok());
            let code = code.filter(|code| (200..600).contains(code));
            code.ok_or_else(|| format!("{at}.status: {status} is not a status from 200 to 599"))
        })?;
        let mut headers = HeaderMap::new();
        let is_text = members.get("body").is_some_and(Value::is_string);
        let kind = if is_text { "text/plain; charset=utf-8" } else { "application/json" };
        if members.contains_key("body") {
            headers.insert(http::header::CONTENT_TYPE, HeaderValue::from_static(kind));
        }
        let none = Map::new();
        let written = members.get("headers").map_or(Some(&none), Value::as_object);
        for (name, value) in written.ok_or_else(|| format!("{at}.headers: it is no object of texts"))? {
            let parsed = value.as_str().and_then(|value| HeaderValue::from_str(value).ok());
            let (Ok(name), Some(value)) = (HeaderName::try_from(name.as_str()), parsed) else {
                return Err(format!("{at}.headers.{name}: {value} cannot stand in a header"));
            };
            if [http::header::CONTENT_LENGTH, http::header::TRANSFER_ENCODING].contains(&name) {
                return Err(format!("{at}.headers.{name}: the body itself says how long it is"));
            }
            headers.insert(name, value);
        }
        let body = match members.get("body") {
            None => Vec::new(),
            Some(Value::String(text)) => text.clone().into_bytes(),
            Some(value) => value.to_string().into_bytes(),
        };
        Ok(Self { status: StatusCode::from_u16(status).unwrap_or(StatusCode::OK), headers, body })
    }
}

/// Whether a `wish` makes sense for one of the operations that a rule is about.
fn check(catalogue: &Catalogue, matcher: &Matcher, wish: &Wish) -> Result<(), String> {
    let meant: Vec<(OperationIx, &Operation)> =
        catalogue.operations().filter(|(_, operation)| matcher.may_be(&operation.id)).collect();
    let any = |fits: &dyn Fn(OperationIx, &Operation) -> bool| {
        meant.iter().any(|(index, operation)| fits(*index, operation))
    };
    let knows =
        |index, fits: &dyn Fn(&ErrorEntry) -> bool| catalogue.errors_of(index).any(|(_, error)| fits(error));
    let of = |what: &str, fits: &dyn Fn(&ErrorEntry) -> bool| {
        let mut names: Vec<&str> = meant
            .iter()
            .flat_map(|(index, _)| catalogue.errors_of(*index))
            .filter(|(_, error)| fits(error))
            .map(|(_, error)| error.id.as_str())
            .collect();
        names.sort_unstable();
        names.dedup();
        names.truncate(40);
        format!("{what}: no such error for these operations; there are {}", names.join(", "))
    };
    match &wish.ending {
        Some(WishedEnding::Fail(id))
            if !any(&|index, operation| {
                operation.task().is_some() && knows(index, &|error| error.fails && error.id == *id)
            }) =>
        {
            return Err(of(&format!("fail:{id}"), &|error| error.fails));
        }
        Some(WishedEnding::Fallback { .. })
            if !any(&|_, operation| operation.task().is_some_and(|task| task.fallback.is_some())) =>
        {
            return Err("fallback: none of these operations has a fallback".to_owned());
        }
        _ => {}
    }
    if let Some(id) = &wish.reject
        && !any(&|index, _| {
            knows(index, &|error| error.refuses && (error.id == *id || id.parse() == Ok(error.code)))
        })
    {
        return Err(of(&format!("reject:{id}"), &|error| error.refuses));
    }
    if wish.speech != super::outcome::Speech::default() && !any(&|_, operation| operation.chat().is_some()) {
        return Err("text and tool are for chats, where a model speaks".to_owned());
    }
    Ok(())
}

/// What to say where no operation is meant.
fn no_operation(catalogue: &Catalogue, written: &Value) -> String {
    let wanted = written.as_str().unwrap_or_default();
    let near = catalogue
        .operations()
        .map(|(_, operation)| (strsim::damerau_levenshtein(&operation.id, wanted), &operation.id))
        .min();
    let hint = near.map(|(_, id)| format!("; the nearest is {id}")).unwrap_or_default();
    format!("no operation is called {written}{hint}; GET /_mock/catalog lists all")
}

fn is_name(id: &str) -> bool {
    (1..=64).contains(&id.len())
        && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
}
