//! Which value of the simulator's stands for which recorded one: ids, addresses of results, whatever an answer gave out
//! that a later request may name.

use std::collections::HashMap;

use serde_json::Value;

/// Shorter texts are words, not names of things.
const SHORTEST: usize = 8;

/// Recorded texts, and the simulator's in their places.
#[derive(Debug, Default)]
pub(super) struct Twins(HashMap<String, String>);

impl Twins {
    /// Learns from two bodies that say the same.
    pub(super) fn learn(&mut self, recorded: &Value, simulated: &Value) {
        match (recorded, simulated) {
            (Value::Object(recorded), Value::Object(simulated)) => {
                for (name, value) in recorded {
                    if let Some(twin) = simulated.get(name) {
                        self.learn(value, twin);
                    }
                }
            }
            (Value::Array(recorded), Value::Array(simulated)) => {
                recorded.iter().zip(simulated).for_each(|(value, twin)| self.learn(value, twin));
            }
            (Value::String(recorded), Value::String(simulated)) => self.learn_text(recorded, simulated),
            _ => {}
        }
    }

    fn learn_text(&mut self, recorded: &str, simulated: &str) {
        let parsed = |text: &str| {
            serde_json::from_str(text).ok().filter(|value: &Value| !value.is_string() && !value.is_number())
        };
        if let (Some(recorded), Some(simulated)) = (parsed(recorded), parsed(simulated)) {
            return self.learn(&recorded, &simulated);
        }
        let is_name = |text: &str| text.len() >= SHORTEST && !text.contains(char::is_whitespace);
        if recorded != simulated && is_name(recorded) && is_name(simulated) {
            self.0.insert(recorded.to_owned(), simulated.to_owned());
        }
    }

    /// `request` with the simulator's names.
    pub(super) fn put_into(&self, request: &mut Value) -> bool {
        match request {
            Value::String(text) => match self.0.get(text) {
                Some(twin) => {
                    twin.clone_into(text);
                    true
                }
                None => false,
            },
            Value::Array(items) => {
                items.iter_mut().fold(false, |changed, item| self.put_into(item) | changed)
            }
            Value::Object(members) => {
                members.iter_mut().fold(false, |changed, (_, member)| self.put_into(member) | changed)
            }
            _ => false,
        }
    }

    /// A path and query with the simulator's names in the place of whole parts of it.
    pub(super) fn put_into_target(&self, target: &str) -> String {
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let part = |part: &str| self.0.get(part).cloned().unwrap_or_else(|| part.to_owned());
        let path = path.split('/').map(part).collect::<Vec<_>>().join("/");
        if query.is_empty() {
            return path;
        }
        let pairs = form_urlencoded::parse(query.as_bytes()).map(|(name, value)| (name, part(&value)));
        format!("{path}?{}", form_urlencoded::Serializer::new(String::new()).extend_pairs(pairs).finish())
    }

    /// A recorded sentence with the simulator's names.
    pub(super) fn put_into_text(&self, text: &str) -> String {
        let said = self.0.iter().filter(|(recorded, _)| text.contains(recorded.as_str()));
        said.fold(text.to_owned(), |text, (recorded, twin)| text.replace(recorded.as_str(), twin))
    }
}
