//! What an operation is sent: parameters, bodies, and examples that it accepts.
//!
//! The schemas are the ones that requests are checked against. Examples are made of their `examples` and `default`s
//! and kept only if schema and rules accept them.

use serde_json::{Map, Value, json};

use super::components::{Names, object};
use super::kinds::Kind;
use crate::catalogue::{Model, ModelChoice, Operation, Schema};

/// Puts parameters and body of `operation` into its description.
pub(super) fn describe(
    operation: &Operation,
    market: Option<Kind<'_>>,
    names: &Names,
    into: &mut Map<String, Value>,
) {
    let parameters = parameters(operation);
    if !parameters.is_empty() {
        into.insert("parameters".into(), parameters.into());
    }
    if operation.request.is_some() && !operation.by_query {
        let content = match market {
            Some(kind) => market_body(kind, names),
            None => body(operation),
        };
        let content_type = if has_file(operation) { "multipart/form-data" } else { "application/json" };
        let content = Map::from_iter([(content_type.to_owned(), content)]);
        into.insert("requestBody".into(), json!({"required": true, "content": content}));
    }
}

/// Whether a field of the body is a file as it is, which JSON cannot hold.
fn has_file(operation: &Operation) -> bool {
    let schema = operation.request.as_ref().map_or(&Value::Null, Schema::source);
    let mut properties = schema["properties"].as_object().into_iter().flatten();
    properties.any(|(_, property)| property["contentEncoding"] == "binary")
}

/// The parts in braces of a path: `/tasks/{id}` has `id`.
fn path_names(path: &str) -> impl Iterator<Item = &str> {
    path.split('{').skip(1).filter_map(|part| Some(part.split_once('}')?.0))
}

fn parameters(operation: &Operation) -> Vec<Value> {
    let in_path: Vec<&str> = path_names(&operation.path).collect();
    let schema = operation.request.as_ref().filter(|_| operation.by_query).map(Schema::source);
    let properties = schema.and_then(|schema| schema.get("properties")).and_then(Value::as_object);
    let example = fullest(operation);
    let mut parameters: Vec<Value> = in_path
        .iter()
        .map(|name| {
            let schema = properties.and_then(|all| all.get(*name)).cloned();
            parameter(name, "path", true, schema.unwrap_or(json!({"type": "string"})), &example)
        })
        .collect();
    let required = schema.map_or(&Value::Null, |schema| &schema["required"]);
    for (name, property) in properties.into_iter().flatten() {
        if !in_path.contains(&name.as_str()) {
            let required = names_it(required, name);
            parameters.push(parameter(name, "query", required, property.clone(), &example));
        }
    }
    parameters
}

fn names_it(list: &Value, name: &str) -> bool {
    list.as_array().is_some_and(|names| names.iter().any(|one| one == name))
}

fn parameter(name: &str, place: &str, required: bool, mut schema: Value, example: &Value) -> Value {
    let members = schema.as_object_mut();
    let description = members.and_then(|members| {
        members.shift_remove("examples");
        members.shift_remove("description")
    });
    let mut parameter = json!({"name": name, "in": place, "required": required, "schema": schema});
    if let Some(description) = description {
        parameter["description"] = description;
    }
    if let Some(example) = example.get(name) {
        parameter["example"] = example.clone();
    }
    parameter
}

/// Schema and examples of a JSON body.
fn body(operation: &Operation) -> Value {
    let schema = operation.request.as_ref().map_or(&Value::Null, Schema::source);
    let (smallest, fullest) = (smallest(operation), fullest(operation));
    let told = operation.example.is_some();
    let (name, summary) =
        if told { ("usual", "a usual request") } else { ("smallest", "only what is needed") };
    let mut examples = json!({name: {"summary": summary, "value": smallest}});
    if smallest != fullest {
        examples["fullest"] = json!({"summary": "with what else can be said", "value": fullest});
    }
    json!({"schema": schema, "examples": examples})
}

/// A body that is one of the models' own.
fn market_body(kind: Kind<'_>, names: &Names) -> Value {
    let ModelChoice::Market { at, .. } = &kind.task.model else { return body(kind.operation) };
    let mut choices = Vec::new();
    let mut mapping = Map::new();
    let mut examples = Map::new();
    for model in kind.models() {
        let component = format!("#/components/schemas/{}", names.model(model));
        choices.push(json!({"$ref": component}));
        mapping.insert(model.name.clone(), component.into());
        let example = json!({"summary": model.title, "value": for_model(kind, model)});
        examples.insert(model.name.clone(), example);
    }
    json!({
        "schema": {
            "type": "object",
            "oneOf": choices,
            "discriminator": {"propertyName": at.trim_start_matches('/'), "mapping": mapping},
        },
        "examples": examples,
    })
}

/// The schema of a create's body for `model`: the operation's own, with the model's name and parameters in it.
pub(super) fn model_schema(kind: Kind<'_>, model: &Model) -> Value {
    let mut schema =
        kind.operation.request.as_ref().map_or(json!({"type": "object"}), |schema| schema.source().clone());
    if let ModelChoice::Market { at, input, .. } = &kind.task.model {
        schema["properties"][at.trim_start_matches('/')] = json!({"const": model.name});
        schema["properties"][input] = model.input.source().clone();
    }
    schema["title"] = model.title.clone().into();
    let more = json!({
        "x-model": model.name,
        "x-vendor": model.vendor,
        "x-kind": model.kind,
        "x-source": model.source,
    });
    object(&mut schema).extend(object(&mut more.clone()).clone());
    schema
}

/// A create's body for `model` that is accepted.
pub(super) fn for_model(kind: Kind<'_>, model: &Model) -> Value {
    let mut request = smallest_of(kind.operation.request.as_ref());
    if let ModelChoice::Market { at, input, .. } = &kind.task.model {
        request[at.trim_start_matches('/')] = model.name.clone().into();
        request[input] = model.example.clone();
    }
    let callback_field = kind.task.callback_at.trim_start_matches('/');
    let callback =
        kind.operation.request.as_ref().and_then(|schema| schema.source()["properties"].get(callback_field));
    if let Some(callback) = callback {
        request[callback_field] = of_schema(callback_field, callback);
    }
    request
}

/// Whether schema and rules of `operation` let the request pass.
fn accepts(operation: &Operation, request: &Value) -> bool {
    operation.request.as_ref().is_none_or(|schema| schema.accepts(request))
        && !operation.rules.iter().any(|rule| rule.refuses(request))
}

/// The request that the catalogue gives as an example, or one with as few fields as `operation` accepts: the required
/// ones and up to two more.
pub(super) fn smallest(operation: &Operation) -> Value {
    if let Some(example) = &operation.example {
        return example.clone();
    }
    let request = smallest_of(operation.request.as_ref());
    if accepts(operation, &request) {
        return request;
    }
    let optional: Vec<_> = optional(operation, &request).collect();
    let with = |fields: &[&(String, Value)]| {
        let mut request = request.clone();
        object(&mut request).extend(fields.iter().map(|field| (*field).clone()));
        Some(request).filter(|request| accepts(operation, request))
    };
    let single = optional.iter().find_map(|one| with(&[one]));
    let pair = || optional.iter().find_map(|one| optional.iter().find_map(|other| with(&[one, other])));
    single.or_else(pair).unwrap_or(request)
}

/// The smallest request and every further field that has an example and is accepted.
pub(super) fn fullest(operation: &Operation) -> Value {
    let mut request = smallest(operation);
    for (name, value) in optional(operation, &request).collect::<Vec<_>>() {
        let schema =
            operation.request.as_ref().map_or(&Value::Null, |schema| &schema.source()["properties"][&name]);
        let worth = schema.get("examples").is_some() && schema["deprecated"] != true;
        if !worth || value == "" {
            continue;
        }
        object(&mut request).insert(name.clone(), value);
        if !accepts(operation, &request) {
            object(&mut request).shift_remove(&name);
        }
    }
    request
}

/// Fields that `request` lacks, with values for them.
fn optional(operation: &Operation, request: &Value) -> impl Iterator<Item = (String, Value)> {
    let properties =
        operation.request.as_ref().and_then(|schema| schema.source().get("properties")?.as_object());
    let lacking = properties.into_iter().flatten().filter(|(name, _)| request.get(name.as_str()).is_none());
    lacking.map(|(name, schema)| (name.clone(), of_schema(name, schema)))
}

fn smallest_of(schema: Option<&Schema>) -> Value {
    schema.map_or(json!({}), |schema| object_of(schema.source()))
}

/// An object with the required fields of `schema`.
fn object_of(schema: &Value) -> Value {
    let required = schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str);
    let member = |name: &str| (name.to_owned(), of_schema(name, &schema["properties"][name]));
    Value::Object(required.map(member).collect())
}

/// A value for the field `name` that its schema describes.
fn of_schema(name: &str, schema: &Value) -> Value {
    let told = schema["examples"].get(0).or_else(|| schema.get("const")).or_else(|| schema.get("default"));
    if let Some(value) = told.or_else(|| schema["enum"].get(0)) {
        return value.clone();
    }
    let alternative = ["anyOf", "oneOf"].iter().find_map(|keyword| schema[keyword].get(0));
    if let Some(alternative) = alternative {
        return of_schema(name, alternative);
    }
    let name_of_type = schema["type"].as_str().or_else(|| schema["type"].get(0)?.as_str());
    match name_of_type.unwrap_or("string") {
        "object" => object_of(schema),
        "array" => list_of(name, schema),
        "integer" | "number" => schema.get("minimum").cloned().unwrap_or(json!(1)),
        "boolean" => json!(true),
        "null" => Value::Null,
        _ => text_of(name, schema),
    }
}

fn list_of(name: &str, schema: &Value) -> Value {
    let count = schema["minItems"].as_u64().unwrap_or(1).clamp(1, 8);
    let mut items = schema["items"].clone();
    if items.get("x-media").is_none() {
        items["x-media"] = schema["x-media"].clone();
    }
    (0..count).map(|_| of_schema(name, &items)).collect()
}

fn text_of(name: &str, schema: &Value) -> Value {
    let kind = schema["x-media"]["kind"].as_str();
    let address = kind.is_some() || schema["format"] == "uri";
    if schema["contentEncoding"] == "binary" {
        return "picture.png".into();
    }
    if address {
        let file = match kind {
            Some("video") => "clip.mp4",
            Some("audio") => "track.mp3",
            Some(_) => "picture.png",
            None => "callback",
        };
        return format!("https://example.com/{file}").into();
    }
    let shortest = usize::try_from(schema["minLength"].as_u64().unwrap_or(0)).unwrap_or(0);
    format!("{name:x<shortest$}").into()
}
