//! What values look like, as JSON Schema: alternatives that can be joined, narrowed and written down.
//!
//! Pure. `template` says with it what a body's values can be; the description of the API is made of it.

use serde_json::{Map, Value, json};

/// A set of alternatives, each a JSON Schema. None at all stands for a value that nothing is known of.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Shape(Vec<Value>);

impl Shape {
    /// Any JSON.
    pub fn any() -> Self {
        Self(vec![json!({})])
    }

    /// Values of that type, as JSON Schema names it: `string`, `integer`, `null`.
    pub fn of_type(name: &str) -> Self {
        Self(vec![json!({"type": name})])
    }

    /// What `schema` describes.
    pub fn of_schema(schema: Value) -> Self {
        Self(vec![schema])
    }

    /// One of these values.
    pub fn one_of<'v>(values: impl IntoIterator<Item = &'v Value>) -> Self {
        values.into_iter().fold(Self::default(), |shape, value| shape.or(Self::of_value(value)))
    }

    /// Just this value; of objects and lists the form.
    pub fn of_value(value: &Value) -> Self {
        match value {
            Value::Object(members) => {
                Self::object(members.iter().map(|(name, value)| (name.clone(), false, Self::of_value(value))))
            }
            Value::Array(items) => Self::list(items.iter().map(Self::of_form)),
            scalar => Self(vec![json!({"const": scalar})]),
        }
    }

    /// Values of the form that this one has.
    pub fn of_form(value: &Value) -> Self {
        match value {
            Value::Null => Self::of_type("null"),
            Value::Bool(_) => Self::of_type("boolean"),
            Value::Number(_) => Self::of_type("number"),
            Value::String(_) => Self::of_type("string"),
            Value::Array(items) => Self::list(items.iter().map(Self::of_form)),
            Value::Object(members) => {
                Self::object(members.iter().map(|(name, value)| (name.clone(), false, Self::of_form(value))))
            }
        }
    }

    /// An object of these members: name, whether it may be absent, value.
    pub fn object(members: impl IntoIterator<Item = (String, bool, Self)>) -> Self {
        let mut properties = Map::new();
        let mut required = Vec::new();
        for (name, optional, shape) in members {
            if !optional {
                required.push(Value::from(name.as_str()));
            }
            properties.insert(name, shape.into_schema());
        }
        let mut schema = json!({"type": "object", "properties": properties});
        if !required.is_empty() {
            schema["required"] = required.into();
        }
        Self(vec![schema])
    }

    /// A list of such items.
    pub fn list(items: impl IntoIterator<Item = Self>) -> Self {
        let items = items.into_iter().fold(Self::default(), Self::or);
        let mut schema = json!({"type": "array"});
        if !items.0.is_empty() {
            schema["items"] = items.into_schema();
        }
        Self(vec![schema])
    }

    /// A string that holds such a value as JSON.
    pub fn encoded(inner: Self) -> Self {
        let inner = inner.into_schema();
        Self(vec![json!({"type": "string", "contentMediaType": "application/json", "contentSchema": inner})])
    }

    /// This or the other.
    #[must_use]
    pub fn or(mut self, other: Self) -> Self {
        for alternative in other.0 {
            if !self.0.contains(&alternative) {
                self.0.push(alternative);
            }
        }
        self
    }

    /// This or null.
    #[must_use]
    pub fn or_null(self) -> Self {
        self.or(Self::of_type("null"))
    }

    /// This, but not null.
    #[must_use]
    pub fn but_null(mut self) -> Self {
        self.0.retain(|alternative| !is_null(alternative));
        self
    }

    /// Whether null is among it.
    pub fn may_be_null(&self) -> bool {
        self.0.iter().any(|alternative| is_null(alternative) || is_any(alternative))
    }

    /// The whole as one schema.
    pub fn into_schema(self) -> Value {
        if self.0.is_empty() || self.0.iter().any(is_any) {
            return json!({});
        }
        let nullable = self.0.iter().any(is_null);
        let mut types: Vec<Value> = Vec::new();
        let mut constants: Vec<Value> = Vec::new();
        let mut others: Vec<Value> = Vec::new();
        for alternative in self.0.into_iter().filter(|alternative| !is_null(alternative)) {
            match (plain_type(&alternative), alternative.get("const"), alternative.get("enum")) {
                (Some(name), _, _) => types.push(name.into()),
                (None, Some(value), _) => constants.push(value.clone()),
                (None, None, Some(Value::Array(values)))
                    if alternative.as_object().is_some_and(|all| all.len() == 1) =>
                {
                    constants.extend(values.iter().cloned());
                }
                _ => others.push(alternative),
            }
        }
        constants
            .retain(|value| !types.iter().any(|name| has_type(value, name.as_str().unwrap_or_default())));
        written_down(types, constants, others, nullable)
    }
}

fn written_down(
    mut types: Vec<Value>,
    mut constants: Vec<Value>,
    mut others: Vec<Value>,
    mut nullable: bool,
) -> Value {
    if nullable && types.is_empty() && (!constants.is_empty() || others.is_empty()) {
        // An enum says it shortest.
        constants.push(Value::Null);
        nullable = false;
    }
    if nullable && types.is_empty() && others.len() == 1 && others[0]["type"].is_string() {
        // What a type's keywords say does not concern null.
        others[0]["type"] = json!([others[0]["type"], "null"]);
        nullable = false;
    }
    if nullable {
        types.push("null".into());
    }
    match types.len() {
        0 => {}
        1 => others.insert(0, json!({"type": types[0]})),
        _ => others.insert(0, json!({"type": types})),
    }
    match (constants.len(), constants.first()) {
        (1, Some(Value::Null)) => others.push(json!({"type": "null"})),
        (1, Some(value)) => others.push(json!({"const": value})),
        (0, _) => {}
        _ => others.push(json!({"enum": constants})),
    }
    if others.len() == 1 { others.remove(0) } else { json!({"anyOf": others}) }
}

fn is_any(schema: &Value) -> bool {
    schema.as_object().is_some_and(Map::is_empty)
}

fn is_null(schema: &Value) -> bool {
    schema.get("const").is_some_and(Value::is_null) || plain_type(schema) == Some("null")
}

/// The type, of a schema that says nothing else.
fn plain_type(schema: &Value) -> Option<&str> {
    schema.as_object().filter(|members| members.len() == 1)?.get("type")?.as_str()
}

fn has_type(value: &Value, name: &str) -> bool {
    match value {
        Value::Null => name == "null",
        Value::Bool(_) => name == "boolean",
        Value::Number(number) => name == "number" || name == "integer" && !number.is_f64(),
        Value::String(_) => name == "string",
        Value::Array(_) => name == "array",
        Value::Object(_) => name == "object",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn alternatives_are_written_as_short_as_can_be() {
        let text = || Shape::of_type("string");
        for (shape, expected) in [
            (Shape::default(), json!({})),
            (text().or(Shape::any()), json!({})),
            (text().or_null(), json!({"type": ["string", "null"]})),
            (text().or(Shape::of_value(&json!(""))), json!({"type": "string"})),
            (Shape::one_of(&[json!("a"), json!("b"), json!("a")]), json!({"enum": ["a", "b"]})),
            (Shape::of_value(&json!(1)).or_null(), json!({"enum": [1, null]})),
            (
                Shape::of_value(&json!(1)).or(text()).or_null().but_null(),
                json!({"anyOf": [{"type": "string"}, {"const": 1}]}),
            ),
            (Shape::of_value(&json!(null)), json!({"type": "null"})),
            (
                Shape::list([text()]).or_null(),
                json!({"type": ["array", "null"], "items": {"type": "string"}}),
            ),
            (Shape::of_value(&json!([])), json!({"type": "array"})),
            (
                Shape::object([("a".into(), true, text()), ("b".into(), false, Shape::any())]),
                json!({"type": "object", "properties": {"a": {"type": "string"}, "b": {}}, "required": ["b"]}),
            ),
        ] {
            assert_eq!(shape.into_schema(), expected);
        }
    }
}
