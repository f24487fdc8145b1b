//! The description of the API: where it is had, by whom, and that what it says is so.

use http::Method;
use serde_json::Value;

use crate::support::{Answer, CATALOGUE, Client, World};

const PATH: &str = "/openapi.json";

async fn document(client: &Client) -> Value {
    client.get(PATH).await.expect_status(200).json()
}

#[tokio::test(start_paused = true)]
async fn anybody_gets_the_description_of_an_open_simulator() {
    let world = World::standard();
    let answer = world.stranger().get(PATH).await.expect_status(200);
    assert_eq!(answer.header("content-type"), "application/json");
    assert_eq!(answer.header("content-length"), answer.raw.len().to_string());
    assert_eq!(answer.header("x-kiegate-mode"), "mock");
    assert_eq!(answer.json()["openapi"], "3.1.0");
    assert_eq!(answer.raw, world.client("demo").get(PATH).await.raw);
    let metrics = world.metrics_page();
    assert!(metrics.contains("operation=\"openapi\""), "{metrics}");
}

/// It tells nothing secret, but a closed gateway answers nothing at all to those whom it does not know.
#[tokio::test(start_paused = true)]
async fn a_closed_gateway_describes_the_api_to_its_tenants_only() {
    let world = World::build().closed_but_for(Vec::new()).start();
    let refused = world.stranger().get(PATH).await.expect_status(401);
    assert_eq!(refused.header("x-kiegate-error"), "unauthorized");
}

#[tokio::test(start_paused = true)]
async fn a_description_that_is_known_is_not_sent_again() {
    let world = World::standard();
    let stranger = world.stranger();
    let etag = stranger.get(PATH).await.header("etag").to_owned();
    for sent in [etag.clone(), format!("W/{etag}"), format!("\"other\", {etag}"), "*".into()] {
        let answer = stranger.with("if-none-match", &sent).get(PATH).await.expect_status(304);
        assert!(answer.raw.is_empty(), "{sent}");
        assert_eq!(answer.header("etag"), etag);
    }
    stranger.with("if-none-match", "\"other\"").get(PATH).await.expect_status(200);
}

#[tokio::test(start_paused = true)]
async fn it_is_read_and_not_written() {
    let world = World::standard();
    let whole = world.stranger().get(PATH).await;
    let head = world.stranger().send(Method::HEAD, PATH, "").await.expect_status(200);
    assert!(head.raw.is_empty());
    assert_eq!(head.header("content-length"), whole.raw.len().to_string());
    let refused = world.stranger().send(Method::POST, PATH, "{}").await.expect_status(405);
    assert_eq!(refused.header("allow"), "GET, HEAD");
}

#[tokio::test(start_paused = true)]
async fn every_operation_and_every_model_is_described_once() {
    let world = World::standard();
    let document = document(&world.stranger()).await;
    let mut ids = Vec::new();
    for item in document["paths"].as_object().unwrap().values() {
        ids.extend(item.as_object().unwrap().values().map(|told| told["operationId"].as_str().unwrap()));
    }
    ids.sort_unstable();
    let mut known: Vec<&str> = CATALOGUE.operations().map(|(_, operation)| operation.id.as_str()).collect();
    known.sort_unstable();
    assert_eq!(ids, known);
    let schemas = document["components"]["schemas"].as_object().unwrap();
    let models = schemas.values().filter(|schema| schema["x-model"].is_string()).count();
    assert_eq!(models, CATALOGUE.models().count());
}

/// Each create's examples start a task when they are sent, unless they speak of another task.
#[tokio::test(start_paused = true)]
async fn every_example_of_a_create_starts_a_task() {
    let world = World::standard();
    let client = world.client("reader");
    client.put("/_mock/credits", &serde_json::json!({"credits": 1_000_000})).await.expect_status(200);
    let document = document(&client).await;
    let mut sent = 0;
    for (path, item) in document["paths"].as_object().unwrap() {
        let told = &item["post"];
        let independent = told["x-task-errors"].is_array() && told["x-task-id"].is_null();
        let examples = told.pointer("/requestBody/content/application~1json/examples");
        for (name, example) in
            examples.filter(|_| independent).and_then(Value::as_object).into_iter().flatten()
        {
            if follows_another(&document, told, name) {
                continue;
            }
            let answer: Answer = client.post(path, &example["value"]).await.expect_status(200);
            assert_eq!(answer.json()["code"], 200, "{path}, {name}: {}", answer.text());
            sent += 1;
        }
    }
    assert!(sent > CATALOGUE.models().count() / 2, "{sent}");
}

/// Whether the model of that name goes on from another task.
fn follows_another(document: &Value, told: &Value, model: &str) -> bool {
    let mapping = &told["requestBody"]["content"]["application/json"]["schema"]["discriminator"]["mapping"];
    let component =
        mapping[model].as_str().and_then(|reference| document.pointer(reference.strip_prefix('#')?));
    component.is_some_and(|schema| schema["x-task-id"].is_object())
}
