//! Where two answers differ in what a client's code relies on.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::{Map, Value};

use super::twins::Twins;
use crate::record::Answer;

/// Something that is not alike.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// Of which answer or callback, with the entry of the recording.
    pub of: String,
    /// What: `HTTP status`, `code`, `message`, `order of states`, or the place of a member.
    pub what: String,
    /// As it was recorded.
    pub recorded: String,
    /// As the simulator has it.
    pub simulated: String,
}

impl Difference {
    pub(super) fn new(
        of: &str,
        what: &str,
        recorded: impl Into<String>,
        simulated: impl Into<String>,
    ) -> Self {
        let (recorded, simulated) = (recorded.into(), simulated.into());
        Self { of: of.to_owned(), what: what.to_owned(), recorded, simulated }
    }
}

/// Where two answers differ; `of` names them.
pub(super) fn answers(of: &str, recorded: &Answer, simulated: &Answer, twins: &Twins) -> Vec<Difference> {
    if recorded.status != simulated.status {
        return vec![Difference::new(
            of,
            "HTTP status",
            recorded.status.to_string(),
            simulated.status.to_string(),
        )];
    }
    let (Some(ours), Some(theirs)) = (&recorded.body, &simulated.body) else { return Vec::new() };
    let (ours, theirs) = (Said::read(ours), Said::read(theirs));
    match (&ours, &theirs) {
        (Said::Json(recorded), Said::Json(simulated)) => bodies(of, recorded, simulated, twins),
        (Said::Events(recorded), Said::Events(simulated)) => events(of, recorded, simulated),
        (Said::Text, Said::Text) => Vec::new(),
        _ => vec![Difference::new(of, "kind of body", ours.kind(), theirs.kind())],
    }
}

/// Where two JSON bodies differ.
pub(super) fn bodies(of: &str, recorded: &Value, simulated: &Value, twins: &Twins) -> Vec<Difference> {
    let mut differences = Vec::new();
    let shown = |value: Option<&Value>| value.map_or_else(|| "nothing".to_owned(), Value::to_string);
    for (what, place) in [("code", "/code"), ("message", "/msg"), ("message", "/error/message")] {
        let mut said = recorded.pointer(place).cloned();
        if let Some(Value::String(text)) = &mut said {
            *text = twins.put_into_text(text);
        }
        let twin = simulated.pointer(place);
        let is_value = |value: Option<&Value>| !value.is_some_and(Value::is_object);
        if said.as_ref() != twin && is_value(said.as_ref()) && is_value(twin) {
            differences.push(Difference::new(of, what, shown(said.as_ref()), shown(twin)));
        }
    }
    // Where already the code is another one, the rest is, too.
    if differences.iter().all(|difference| difference.what != "code") {
        shapes(of, "", recorded, simulated, &mut differences);
    }
    differences
}

/// Where the names or types of members differ.
fn shapes(of: &str, at: &str, recorded: &Value, simulated: &Value, differences: &mut Vec<Difference>) {
    match (recorded, simulated) {
        (Value::Object(recorded), Value::Object(simulated)) => {
            members(of, at, recorded, simulated, differences);
        }
        (Value::Array(recorded), Value::Array(simulated)) => {
            let Some(last) = simulated.last() else { return };
            for (index, item) in recorded.iter().enumerate() {
                let twin = simulated.get(index).unwrap_or(last);
                shapes(of, &format!("{at}[]"), item, twin, differences);
            }
        }
        (Value::String(recorded), Value::String(simulated)) => {
            let parsed = |text: &str| {
                let value = serde_json::from_str::<Value>(text).ok();
                value.filter(|value| value.is_object() || value.is_array())
            };
            if let (Some(recorded), Some(simulated)) = (parsed(recorded), parsed(simulated)) {
                shapes(of, &format!("{at}(JSON)"), &recorded, &simulated, differences);
            }
        }
        _ if type_of(recorded) == type_of(simulated) => {}
        _ => note(of, at, type_of(recorded), type_of(simulated), differences),
    }
}

fn members(
    of: &str,
    at: &str,
    recorded: &Map<String, Value>,
    simulated: &Map<String, Value>,
    differences: &mut Vec<Difference>,
) {
    let place = |name: &str| if at.is_empty() { name.to_owned() } else { format!("{at}.{name}") };
    for (name, value) in recorded {
        match simulated.get(name) {
            Some(twin) => shapes(of, &place(name), value, twin, differences),
            None => note(of, &place(name), type_of(value), "nothing", differences),
        }
    }
    for (name, value) in simulated.iter().filter(|(name, _)| !recorded.contains_key(*name)) {
        note(of, &place(name), "nothing", type_of(value), differences);
    }
}

/// Notes a difference once, though every item of a list may have it.
fn note(of: &str, at: &str, recorded: &str, simulated: &str, differences: &mut Vec<Difference>) {
    let difference = Difference::new(of, at, recorded, simulated);
    if !differences.contains(&difference) {
        differences.push(difference);
    }
}

const fn type_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a truth value",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

/// A body, as what it is.
enum Said {
    Json(Value),
    /// What the events of a stream say, by their kind.
    Events(BTreeMap<String, Vec<Value>>),
    Text,
}

impl Said {
    fn read(body: &[u8]) -> Self {
        if let Ok(value) = serde_json::from_slice(body) {
            return Self::Json(value);
        }
        let text = String::from_utf8_lossy(body);
        if !text.starts_with("data:") && !text.starts_with("event:") {
            return Self::Text;
        }
        let mut events: BTreeMap<String, Vec<Value>> = BTreeMap::new();
        for data in text.lines().filter_map(|line| line.strip_prefix("data:")) {
            let value: Value = serde_json::from_str(data.trim()).unwrap_or_else(|_| data.trim().into());
            let kind = value.get("type").and_then(Value::as_str).or(value.as_str()).unwrap_or("data");
            events.entry(kind.to_owned()).or_default().push(value);
        }
        Self::Events(events)
    }

    const fn kind(&self) -> &'static str {
        match self {
            Self::Json(_) => "JSON",
            Self::Events(_) => "a stream of events",
            Self::Text => "text",
        }
    }
}

/// Where two streams differ: in the kinds of their events, or in one that none of the other's is like.
fn events(
    of: &str,
    recorded: &BTreeMap<String, Vec<Value>>,
    simulated: &BTreeMap<String, Vec<Value>>,
) -> Vec<Difference> {
    let kinds = |events: &BTreeMap<String, Vec<Value>>| events.keys().cloned().collect::<Vec<_>>().join(", ");
    if !recorded.keys().eq(simulated.keys()) {
        return vec![Difference::new(of, "kinds of events", kinds(recorded), kinds(simulated))];
    }
    let mut differences = Vec::new();
    for (kind, said) in recorded {
        for event in said {
            let found = simulated[kind].iter().map(|twin| {
                let mut found = Vec::new();
                shapes(of, &format!("event {kind}"), event, twin, &mut found);
                found
            });
            let nearest = found.min_by_key(Vec::len).unwrap_or_default();
            differences.extend(
                nearest
                    .into_iter()
                    .filter(|difference| !differences.contains(difference))
                    .collect::<Vec<_>>(),
            );
        }
    }
    differences
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn found(recorded: &Value, simulated: &Value) -> Vec<(String, String, String)> {
        let differences = bodies("x", recorded, simulated, &Twins::default());
        differences.into_iter().map(|found| (found.what, found.recorded, found.simulated)).collect()
    }

    #[test]
    fn values_may_differ_names_and_types_may_not() {
        let check = |recorded: Value, simulated: Value, expected: &[(&str, &str, &str)]| {
            let expected: Vec<_> = expected
                .iter()
                .map(|(what, one, two)| ((*what).to_owned(), (*one).to_owned(), (*two).to_owned()))
                .collect();
            assert_eq!(found(&recorded, &simulated), expected, "{recorded} {simulated}");
        };
        check(json!({"code": 200, "data": {"a": 1}}), json!({"code": 200, "data": {"a": 2.5}}), &[]);
        check(json!({"code": 200, "data": 1}), json!({"code": 422}), &[("code", "200", "422")]);
        check(
            json!({"msg": "a", "b": 1}),
            json!({"msg": "c"}),
            &[("message", "\"a\"", "\"c\""), ("b", "a number", "nothing")],
        );
        check(
            json!({"data": [{"a": 1}, {"a": null}, {"a": null}]}),
            json!({"data": [{"a": 1, "b": "x"}]}),
            &[("data[].b", "nothing", "a text"), ("data[].a", "null", "a number")],
        );
        check(
            json!({"r": "{\"urls\":[\"x\"]}"}),
            json!({"r": "{\"urls\":[1]}"}),
            &[("r(JSON).urls[]", "a text", "a number")],
        );
        check(json!({"data": []}), json!({"data": [1]}), &[]);
    }

    #[test]
    fn streams_are_compared_by_kinds_of_events() {
        let answer =
            |body: &str| Answer { status: 200, headers: Vec::new(), body: Some(body.to_owned().into()) };
        let check = |recorded: &str, simulated: &str, count: usize| {
            let found = answers("x", &answer(recorded), &answer(simulated), &Twins::default());
            assert_eq!(found.len(), count, "{found:?}");
        };
        check(
            "data: {\"a\":1}\n\ndata: [DONE]\n\n",
            "data: {\"a\":2}\n\ndata: {\"a\":3}\n\ndata: [DONE]\n\n",
            0,
        );
        check("data: {\"a\":1}\n\n", "data: {\"a\":1}\n\ndata: [DONE]\n\n", 1);
        check("data: {\"a\":1,\"b\":1}\n\n", "data: {\"a\":1}\n\n", 1);
        check("data: {\"a\":1}\n\n", "{\"a\":1}", 1);
    }
}
