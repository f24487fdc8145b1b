//! What the description's parts share: models, errors, ways to show a key; and the names they go by.

use std::collections::{HashMap, HashSet};

use serde_json::{Map, Value, json};

use super::kinds::Kind;
use super::{price, request, sample};
use crate::catalogue::{Catalogue, Class, ErrorEntry, ErrorIx, Model, Operation, OperationIx, Shape};

/// Names of components, which may hold letters, digits, `.`, `_` and `-` only.
pub(super) struct Names {
    models: HashMap<String, String>,
    errors: HashMap<ErrorIx, String>,
    /// What the bodies of refusals look like, each once.
    forms: Vec<Value>,
}

impl Names {
    pub(super) fn new(catalogue: &Catalogue) -> Self {
        let mut taken = HashSet::new();
        let models = catalogue.models().map(|(_, model)| (model.name.clone(), free(&model.name, &mut taken)));
        let models = models.collect();
        let mut taken = HashSet::new();
        let errors = catalogue.errors().map(|(index, error)| {
            let family = error.family.map_or("any", |family| &catalogue.families()[family].id);
            (index, free(&format!("{family}.{}", error.id), &mut taken))
        });
        let errors = errors.collect();
        let mut forms = Vec::new();
        for (_, error) in catalogue.errors() {
            let form = Shape::of_form(&refusal_body(error)).into_schema();
            if !forms.contains(&form) {
                forms.push(form);
            }
        }
        Self { models, errors, forms }
    }

    /// Of the schema of a create for `model`.
    pub(super) fn model(&self, model: &Model) -> String {
        format!("model.{}", self.models[&model.name])
    }

    /// A reference to what refusals with `error` look like.
    pub(super) fn form(&self, error: &ErrorEntry) -> Shape {
        let wanted = Shape::of_form(&refusal_body(error)).into_schema();
        let number = self.forms.iter().position(|form| *form == wanted).unwrap_or(0);
        Shape::of_schema(json!({"$ref": format!("#/components/schemas/refusal.{number}")}))
    }

    /// Of the example of a refusal.
    pub(super) fn error(&self, error: ErrorIx) -> &str {
        &self.errors[&error]
    }
}

/// A component's name as near to `wanted` as the rules and the names before it allow.
fn free(wanted: &str, taken: &mut HashSet<String>) -> String {
    let fits = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    let base: String = wanted.chars().map(|c| if fits(c) { c } else { '_' }).collect();
    let mut name = base.clone();
    let mut number = 2;
    while !taken.insert(name.clone()) {
        name = format!("{base}.{number}");
        number += 1;
    }
    name
}

/// The members of a value that is known to be an object.
pub(super) fn object(value: &mut Value) -> &mut Map<String, Value> {
    value.as_object_mut().expect("it was made as an object")
}

/// All components.
pub(super) fn all(catalogue: &Catalogue, names: &Names) -> Value {
    json!({
        "schemas": schemas(catalogue, names),
        "examples": errors(catalogue, names),
        "securitySchemes": {
            "bearer": {"type": "http", "scheme": "bearer", "description": "the account's API key"},
            "x-api-key": {"type": "apiKey", "in": "header", "name": "x-api-key"},
            "x-goog-api-key": {"type": "apiKey", "in": "header", "name": "x-goog-api-key"},
            "key": {"type": "apiKey", "in": "query", "name": "key"},
        },
    })
}

/// How a key is shown to `operation`, where that is not as everywhere.
pub(super) fn security(operation: &Operation) -> Option<Value> {
    let ways = ["bearer", "x-api-key", "x-goog-api-key", "key"];
    match operation.class {
        _ if operation.open => Some(json!([])),
        Class::Chat => Some(ways.iter().map(|way| json!({*way: []})).collect()),
        _ => None,
    }
}

fn schemas(catalogue: &Catalogue, names: &Names) -> Map<String, Value> {
    let mut schemas = Map::new();
    for (number, form) in names.forms.iter().enumerate() {
        let mut form = form.clone();
        object(&mut form).insert("title".into(), "refusal".into());
        schemas.insert(format!("refusal.{number}"), form);
    }
    let kinds = catalogue.operations().filter_map(|(index, _)| Kind::of(catalogue, index));
    for kind in kinds {
        for model in kind.models() {
            let mut schema = request::model_schema(kind, model);
            let members = object(&mut schema);
            if !model.notes.is_empty() {
                members.insert("description".into(), model.notes.join("\n\n").into());
            }
            let rules = rules(&model.rules);
            if !rules.is_empty() {
                members.insert("x-rules".into(), rules.into());
            }
            let follows = model.follows.as_ref();
            members
                .extend(follows.map(|follows| {
                    ("x-task-id".to_owned(), super::operations::followed(catalogue, follows))
                }));
            members.insert("x-price".into(), price::of(model.price.as_ref()));
            members.insert("x-phases".into(), super::operations::phases(&model.lifecycle));
            schemas.insert(names.model(model), schema);
        }
    }
    schemas
}

/// Requests that fit the schema and are refused all the same, as far as words tell of them.
pub(super) fn rules(rules: &[crate::catalogue::Rule]) -> Vec<Value> {
    let rule = |rule: &crate::catalogue::Rule| {
        let mut told = json!({"id": rule.id});
        if let Some(schema) = &rule.reject_when {
            told["not"] = schema.source().clone();
        }
        if let Some(note) = &rule.note {
            told["note"] = note.clone().into();
        }
        told
    };
    rules.iter().map(rule).collect()
}

fn errors(catalogue: &Catalogue, names: &Names) -> Map<String, Value> {
    let refusing = catalogue.errors().filter(|(_, error)| error.refuses);
    refusing.map(|(index, error)| (names.error(index).to_owned(), refusal(error))).collect()
}

fn refusal(error: &ErrorEntry) -> Value {
    let mut example =
        json!({"value": refusal_body(error), "x-error": error.id, "x-evidence": error.evidence});
    if let Some(note) = &error.note {
        example["description"] = note.clone().into();
    }
    if !error.headers.is_empty() {
        example["x-headers"] =
            error.headers.iter().cloned().map(|(name, value)| (name, Value::from(value))).collect();
    }
    example
}

/// The body of a call that is refused with `error`.
pub(super) fn refusal_body(error: &ErrorEntry) -> Value {
    serde_json::from_slice(&error.body(&sample::NoTask)).unwrap_or_default()
}

/// The errors that can refuse calls of the operation, one of each name, as its outcomes are named.
pub(super) fn refusals(catalogue: &Catalogue, index: OperationIx) -> Vec<(ErrorIx, &ErrorEntry)> {
    let mut seen = HashSet::new();
    let refusing = catalogue.errors_of(index).filter(|(_, error)| error.refuses);
    refusing.filter(|(_, error)| seen.insert(error.id.as_str())).collect()
}
