//! Every operation and every model of the catalogue, driven by its own example.

use kiegate::catalogue::{Behaviour, Class, ModelChoice, Operation};
use serde_json::{Value, json};

use crate::requests::{acceptable, acceptable_for};
use crate::support::{Answer, CATALOGUE, Client, World};

/// The ones that start tasks; those of the Market are driven model by model.
fn creates() -> impl Iterator<Item = &'static Operation> {
    CATALOGUE.operations().map(|(_, operation)| operation).filter(|operation| {
        let market = |operation: &Operation| {
            operation.task().is_some_and(|task| matches!(task.model, ModelChoice::Market { .. }))
        };
        matches!(operation.behaviour, Behaviour::Create(..)) && !market(operation)
    })
}

/// Sees that a create was accepted, comes to success, and that all its files are there and of their kind.
async fn comes_to_success(client: &Client, what: &str, answer: Answer) -> Value {
    let id = answer.expect_status(200).expect_code(200).id();
    let events = client.until_idle().await;
    let succeeded = |event: &&Value| event["task"] == id.as_str() && event["outcome"] == "success";
    assert!(events.iter().any(|event| succeeded(&event)), "{what}: {events:?}");
    let task = client.task(&id).await;
    for url in task["results"].as_array().unwrap() {
        is_what_its_name_says(client, what, url.as_str().unwrap()).await;
    }
    task
}

async fn is_what_its_name_says(client: &Client, what: &str, url: &str) {
    let path = url.strip_prefix("http://kie.test").unwrap_or_else(|| panic!("{what}: {url}"));
    let answer = client.get(path).await;
    assert_eq!(answer.status, 200, "{what}: {url}");
    let name = url.rsplit('/').next().unwrap();
    // A stream's address tells nothing of its form.
    let Some((_, extension)) = name.rsplit_once('.') else { return };
    let (content_type, magic): (&str, &[u8]) = match extension {
        "mp4" => ("video/mp4", b"ftyp"),
        "mov" => ("video/quicktime", b"ftyp"),
        "png" => ("image/png", b"PNG"),
        "jpeg" | "jpg" => ("image/jpeg", b"\xff\xd8\xff"),
        "webp" => ("image/webp", b"WEBP"),
        "gif" => ("image/gif", b"GIF8"),
        "mp3" => ("audio/mpeg", b""),
        "wav" => ("audio/wav", b"WAVE"),
        "mid" => ("audio/midi", b"MThd"),
        other => panic!("{what}: nobody knows .{other}"),
    };
    assert_eq!(answer.header("content-type"), content_type, "{what}: {url}");
    let start = &answer.raw[..answer.raw.len().min(16)];
    assert!(magic.is_empty() || start.windows(magic.len()).any(|at| at == magic), "{what}: {url}: {start:?}");
}

#[tokio::test(start_paused = true)]
async fn every_operation_s_example_ends_in_success() {
    let world = World::standard();
    let acme = world.client("acme");
    for operation in creates() {
        let request = acceptable(&acme, &operation.id).await;
        let answer = acme.call(&operation.id, &request).await;
        if operation.task().unwrap().lifecycle.as_ref().is_some_and(|lifecycle| lifecycle.inline) {
            let answer = answer.expect_code(200).json();
            assert!(answer["data"].is_object(), "{}: {answer}", operation.id);
            continue;
        }
        comes_to_success(&acme, &operation.id, answer).await;
    }
}

#[tokio::test(start_paused = true)]
async fn every_model_s_example_ends_in_success() {
    let world = World::standard();
    let acme = world.client("acme");
    for (_, model) in CATALOGUE.models() {
        acme.put("/_mock/credits", &json!({"credits": 100_000})).await.expect_status(200);
        let request = acceptable_for(&acme, model).await;
        let operation = &CATALOGUE.operation(model.operation).id;
        let price = acme
            .post(
                "/_mock/price",
                &json!({"path": CATALOGUE.operation(model.operation).path, "body": request}),
            )
            .await
            .expect_status(200)
            .json();
        assert_eq!(price["credits"].is_null(), model.price.is_none(), "{}: {price}", model.name);
        let answer = acme.call(operation, &request).await;
        if model.lifecycle.inline {
            let answer = answer.expect_code(200).json();
            assert!(answer["data"].is_object(), "{}: {answer}", model.name);
            continue;
        }
        let task = comes_to_success(&acme, &model.name, answer).await;
        let record = acme.call("jobs.details", &json!({"taskId": task["id"]})).await.json();
        let result = record["data"]["resultJson"].as_str().unwrap_or_else(|| panic!("{}", model.name));
        let result: Value = serde_json::from_str(result).unwrap();
        assert!(result.is_object(), "{}: {result}", model.name);
        assert!(no_hole(&result), "{}: {result}", model.name);
        let urls = result["resultUrls"].as_array().map_or(0, Vec::len);
        assert!(
            urls > 0 || result.as_object().is_some_and(|members| !members.is_empty()),
            "{}: {result}",
            model.name
        );
    }
}

/// Whether no list of addresses is empty and no address is missing.
fn no_hole(result: &Value) -> bool {
    match result {
        Value::Object(members) => members.iter().all(|(key, value)| {
            let address = key.to_lowercase().contains("url");
            !(address && (value.is_null() || value.as_array().is_some_and(Vec::is_empty))) && no_hole(value)
        }),
        Value::Array(items) => items.iter().all(no_hole),
        _ => true,
    }
}

#[test]
fn every_entry_says_where_it_comes_from_what_it_costs_and_how_long_it_takes() {
    for (_, model) in CATALOGUE.models() {
        assert!(!model.source.trim().is_empty(), "{} has no source", model.name);
        let longest: u32 = model.lifecycle.phases.iter().map(|phase| phase.stay.1).sum();
        assert!(longest > 0 || model.lifecycle.inline, "{} takes no time", model.name);
        if let Some(price) = &model.price {
            assert!(!price.rates.is_empty() && !price.source.is_empty(), "{}", model.name);
        }
    }
    for (_, operation) in CATALOGUE.operations() {
        assert!(!operation.summary.is_empty() && !operation.evidence.is_empty(), "{}", operation.id);
        let has_body = operation.request.is_some() && !operation.by_query;
        assert!(!has_body || operation.example.is_some(), "{} has no example", operation.id);
        if operation.class == Class::Create {
            let task = operation.task().unwrap_or_else(|| panic!("{} makes nothing", operation.id));
            assert!(!task.records.is_empty(), "{}", operation.id);
        }
    }
}
