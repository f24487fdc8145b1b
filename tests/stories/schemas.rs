//! Every schema of the catalogue, broken one field at a time.

use kiegate::catalogue::{Behaviour, Class, ModelChoice, OperationIx, Schema};
use serde_json::{Value, json};

use crate::requests::acceptable;
use crate::support::{Answer, CATALOGUE, Client, World};

/// A way in which a request is wrong.
struct Broken {
    what: String,
    request: Value,
}

/// Every required field left out; every field of a wrong type, outside of its list, its bounds or its length.
fn broken(schema: &Schema, request: &Value) -> Vec<Broken> {
    let mut all = Vec::new();
    let mut add = |what: String, change: &dyn Fn(&mut serde_json::Map<String, Value>)| {
        let mut request = request.clone();
        change(request.as_object_mut().unwrap());
        all.push(Broken { what, request });
    };
    let source = schema.source();
    for name in source["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        add(format!("without {name}"), &|members| drop(members.shift_remove(name)));
    }
    for (name, property) in source["properties"].as_object().into_iter().flatten() {
        for (how, value) in unfit(property) {
            add(format!("{name} {how}: {}", short(&value)), &|members| {
                members.insert(name.clone(), value.clone());
            });
        }
    }
    all
}

fn short(value: &Value) -> String {
    value.to_string().chars().take(60).collect()
}

/// Values that break the property's own keywords.
fn unfit(property: &Value) -> Vec<(&'static str, Value)> {
    let mut values = Vec::new();
    let kind = property["type"].as_str();
    if kind.is_some_and(|kind| kind != "object") {
        values.push(("of a wrong type", json!({"wrong": true})));
    }
    if property["enum"].is_array() {
        let wrong = if kind == Some("string") { json!("no-such-choice") } else { json!(987_654) };
        values.push(("outside of its list", wrong));
    }
    if let Some(most) = property["maxLength"].as_u64() {
        values.push(("too long", json!("x".repeat(usize::try_from(most).unwrap() + 1))));
    }
    if let Some(most) = property["maximum"].as_f64() {
        values.push(("too large", json!(most + 1.0)));
    }
    if let Some(least) = property["minimum"].as_f64() {
        values.push(("too small", json!(least - 1.0)));
    }
    if let (Some(most), Some("array")) = (property["maxItems"].as_u64(), kind) {
        values.push((
            "with too many items",
            json!(vec!["https://example.com/a.png"; usize::try_from(most).unwrap() + 1]),
        ));
    }
    values
}

/// Sees that the answer is one of the refusals that the catalogue has for the operation, in their form.
fn is_a_known_refusal(index: OperationIx, answer: &Answer, what: &str) {
    let body = answer.json();
    let code = body["code"].as_u64().unwrap_or_else(|| panic!("{what}: {body}"));
    assert_ne!(code, 200, "{what} was accepted");
    let mut known = CATALOGUE.errors_of(index).filter(|(_, error)| error.refuses);
    assert!(
        known.any(|(_, error)| u64::from(error.code) == code && error.http == answer.status),
        "{what}: {body}"
    );
    assert!(
        body["msg"].as_str().is_some_and(|text| !text.is_empty() && !text.contains("${")),
        "{what}: {body}"
    );
}

/// Sees that nothing was made and nothing paid.
async fn nothing_happened(client: &Client, tasks: &Value) {
    assert_eq!(client.get("/_mock/tasks").await.json()["total"], *tasks);
}

#[tokio::test(start_paused = true)]
async fn a_broken_request_is_refused_by_every_operation() {
    let world = World::build().largest_json(8 * 1024 * 1024).start();
    let acme = world.client("acme");
    let mut tried = 0;
    for (index, operation) in CATALOGUE.operations() {
        let market = operation.task().is_some_and(|task| matches!(task.model, ModelChoice::Market { .. }));
        let sends_json = matches!(operation.class, Class::Create | Class::Action | Class::Details);
        let plain = matches!(operation.behaviour, Behaviour::Link(..) | Behaviour::Discovery(..));
        let Some(schema) =
            operation.request.as_ref().filter(|_| sends_json && !operation.by_query && !market && !plain)
        else {
            continue;
        };
        let request = acceptable(&acme, &operation.id).await;
        let tasks = acme.get("/_mock/tasks").await.json()["total"].clone();
        for Broken { what, request } in broken(schema, &request) {
            let answer = acme.call(&operation.id, &request).await;
            is_a_known_refusal(index, &answer, &format!("{}: {what}", operation.id));
            tried += 1;
        }
        nothing_happened(&acme, &tasks).await;
    }
    assert!(tried > 250, "{tried}");
}

#[tokio::test(start_paused = true)]
async fn a_broken_input_is_refused_for_every_model() {
    let world = World::build().largest_json(8 * 1024 * 1024).start();
    let acme = world.client("acme");
    for (_, model) in CATALOGUE.models() {
        let operation = CATALOGUE.operation(model.operation);
        for Broken { what, request } in broken(&model.input, &model.example) {
            let body = json!({"model": model.name, "input": request});
            let answer = acme.call(&operation.id, &body).await;
            is_a_known_refusal(model.operation, &answer, &format!("{}: {what}", model.name));
        }
    }
    nothing_happened(&acme, &json!(0)).await;
}

#[tokio::test(start_paused = true)]
async fn fields_that_nobody_knows_are_let_through() {
    let world = World::standard();
    let acme = world.client("acme");
    for (_, model) in CATALOGUE.models() {
        let closed = model.input.source()["additionalProperties"] == false;
        let mut input = model.example.clone();
        input["field_that_nobody_knows"] = json!({"a": [1]});
        let body = json!({"model": model.name, "input": input, "another": true});
        let path = &CATALOGUE.operation(model.operation).path;
        let price = acme.post("/_mock/price", &json!({"path": path, "body": body})).await.json();
        assert_eq!(price.get("refused").is_some(), closed, "{}: {price}", model.name);
    }
}
