//! What an endpoint is: how it is reached, what a request to it must be, what it does.
//!
//! The parts of what it does stand in `task`, `call` and `chat`; its schema, its errors and its templates are named
//! here and kept elsewhere.

use http::Method;
use serde::Deserialize;
use serde_json::Value;

use super::{
    Chat, ErrorIx, IdAt, Link, Lookup, Pick, Schema, TaskKind, Tells, Template, Upgrade, UploadFrom,
    UploadKind,
};

/// What kind of call an operation is.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum Class {
    /// Starts a task.
    Create,
    /// Asks for a task's state.
    Details,
    /// Does something with a finished task.
    Action,
    /// Talks to a language model.
    Chat,
    /// Brings a file.
    Upload,
    /// About the account.
    Account,
}

/// One endpoint.
#[derive(Debug)]
pub struct Operation {
    /// `family.verb`.
    pub id: String,
    /// The family's position in [`families`](super::Catalogue::families).
    pub family: usize,
    /// What kind of call it is.
    pub class: Class,
    /// HTTP method.
    pub method: Method,
    /// Path, without the host; a part such as `{model}` stands for any text.
    pub path: String,
    /// Further paths that lead to it.
    pub also: Vec<String>,
    /// One line for people.
    pub summary: String,
    /// How sure its facts are.
    pub evidence: String,
    /// What else is worth knowing, for people.
    pub notes: Vec<String>,
    /// The request: a JSON body, or the query as an object of strings.
    pub request: Option<Schema>,
    /// A request that it accepts; ids in it stand for those of tasks.
    pub example: Option<Value>,
    /// Where it names what came out of tasks, beside what follows from what it does.
    pub ids: Vec<IdAt>,
    /// Anybody may call it, without a key.
    pub open: bool,
    /// Whether the request is the query rather than a body.
    pub by_query: bool,
    /// What a violation of the schema is answered with; the first that fits counts.
    pub refusals: Vec<Refusal>,
    /// Requests that satisfy the schema and are refused all the same.
    pub rules: Vec<Rule>,
    /// How the request is completed before it becomes a task's input.
    pub fill: Vec<Fill>,
    /// What it does.
    pub behaviour: Behaviour,
}

/// What an operation does.
#[derive(Debug)]
pub enum Behaviour {
    /// Starts a task and answers with its id.
    Create(Box<TaskKind>, Template),
    /// Tells of a task.
    Details(Lookup, Template),
    /// Makes another version of a finished task's result, the same one for every call.
    Upgrade(Box<Upgrade>),
    /// Turns a result's address into a short-lived link.
    Link(Link, Template),
    /// Tells of the catalogue itself; the error answers a model that is not known.
    Discovery(Tells, ErrorIx, Template),
    /// Takes a file in and tells where it can be had.
    Upload(Box<UploadKind>, Template),
    /// Talks in a language model's place.
    Chat(Box<Chat>, Template),
    /// Always the same answer, but for its holes.
    Plain(Template),
}

impl Operation {
    /// The task that it starts, if it starts one.
    pub fn task(&self) -> Option<&TaskKind> {
        match &self.behaviour {
            Behaviour::Create(task, _) => Some(task),
            Behaviour::Upgrade(upgrade) => Some(&upgrade.task),
            _ => None,
        }
    }

    /// Whether its body is a form with a file in it, of any size, rather than JSON.
    pub fn takes_form(&self) -> bool {
        matches!(&self.behaviour, Behaviour::Upload(kind, _) if matches!(kind.from, UploadFrom::Part(_)))
    }

    /// Whether its body is JSON with a file in it as base64.
    pub fn takes_base64(&self) -> bool {
        matches!(&self.behaviour, Behaviour::Upload(kind, _) if matches!(kind.from, UploadFrom::Base64(_)))
    }

    /// `request` completed with what the catalogue fills in: the input of the task that it starts.
    pub fn completed(&self, request: &Value) -> Value {
        let mut request = request.clone();
        // The upstream ignores fields that it does not know; a task does not keep them.
        if let (Some(schema), Some(members)) = (&self.request, request.as_object_mut()) {
            members.retain(|name, _| schema.names(name));
        }
        for fill in &self.fill {
            if fill.when.as_ref().is_some_and(|when| !when.accepts(&request)) {
                continue;
            }
            let Some(members) = request.as_object_mut() else { break };
            for (old, new) in &fill.rename {
                if let Some(value) = members.shift_remove(old) {
                    members.insert(new.clone(), value);
                }
            }
            for (name, value) in &fill.set {
                if members.get(name).is_none_or(Value::is_null) {
                    members.insert(name.clone(), value.clone());
                }
            }
        }
        request
    }

    /// How it talks, if it does.
    pub fn chat(&self) -> Option<&Chat> {
        match &self.behaviour {
            Behaviour::Chat(chat, _) => Some(chat),
            _ => None,
        }
    }
}

/// Which error answers which violation.
#[derive(Debug)]
pub struct Refusal {
    /// The schema keyword, or any.
    pub keyword: Option<String>,
    /// The field, or any.
    pub field: Option<String>,
    /// The answer.
    pub error: ErrorIx,
}

/// A cross-field rule.
#[derive(Debug)]
pub struct Rule {
    /// For people and tests.
    pub id: String,
    /// JSON pointer to a list, each item of which the rule looks at in the place of the request.
    pub for_each: Option<String>,
    /// A request that satisfies this is refused, if the rule has it.
    pub reject_when: Option<Schema>,
    /// A request in which the first is more than the second is refused, if the rule has it.
    pub exceeds: Option<(Pick, Pick)>,
    /// The answer.
    pub error: ErrorIx,
    /// For people.
    pub note: Option<String>,
}

impl Rule {
    /// Whether it refuses `request`: all that it asks for holds, of the request or of one item of its list.
    pub fn refuses(&self, request: &Value) -> bool {
        match &self.for_each {
            None => self.holds(request),
            Some(list) => {
                let items = request.pointer(list).and_then(Value::as_array);
                items.is_some_and(|items| items.iter().any(|item| self.holds(item)))
            }
        }
    }

    fn holds(&self, request: &Value) -> bool {
        let more = |(value, limit): &(Pick, Pick)| {
            value.number(request).zip(limit.number(request)).is_some_and(|(value, limit)| value > limit)
        };
        self.reject_when.as_ref().is_none_or(|schema| schema.accepts(request))
            && self.exceeds.as_ref().is_none_or(more)
    }
}

/// One step that completes a request.
#[derive(Debug)]
pub struct Fill {
    /// Only for requests that satisfy this.
    pub when: Option<Schema>,
    /// Fields under another name; the new name's own value, if there, gives way.
    pub rename: Vec<(String, String)>,
    /// Values for fields that are absent.
    pub set: Vec<(String, Value)>,
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_rule_for_each_item_refuses_what_has_one_bad_item() {
        let pick = |source| Pick::parse(&source).unwrap();
        let end = pick(json!({"from": "/end"}));
        let rule = Rule {
            id: "too_late".into(),
            for_each: Some("/parts".into()),
            reject_when: Some(Schema::new(json!({"required": ["end"]}))),
            exceeds: Some((end, pick(json!({"from": "/limit", "else": 8})))),
            error: ErrorIx(0),
            note: None,
        };
        assert!(rule.refuses(&json!({"parts": [{"end": 8}, {"end": 9}]})));
        for fine in [json!({"parts": [{"end": 8}, {"end": 9, "limit": 9}, {}]}), json!({"end": 9}), json!({})]
        {
            assert!(!rule.refuses(&fine), "{fine}");
        }
    }
}
