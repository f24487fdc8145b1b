//! What strangers send: refused in the API's own words, and nothing worse.

use http::Method;
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::support::{CATALOGUE, World};

const UNAUTHORIZED: &str = "Unauthorized – Authentication failed. Please check that your Authorization and Content-Type headers are correctly set.";
const PARAMETERS: &str = "The request parameters are incorrect, please check the parameters.";
const REQUIRED: &str = "This field is required";

#[tokio::test(start_paused = true)]
async fn no_key_or_a_bad_one_is_the_upstreams_own_refusal() {
    let world = World::standard();
    for client in [world.stranger(), world.client(""), world.client("invalid-key")] {
        let answer = client.get("/api/v1/chat/credit").await.expect_status(200);
        assert_eq!(answer.json(), json!({"code": 401, "msg": UNAUTHORIZED}), "no data key");
        assert_eq!(answer.header("content-type"), "application/json;charset=utf-8");
    }
    let answer = world.stranger().with("apikey", "demo").get("/api/v1/chat/credit").await;
    answer.expect_code(401);
}

#[tokio::test(start_paused = true)]
async fn unknown_paths_and_wrong_methods_are_the_frameworks_answers() {
    let world = World::standard();
    let acme = world.client("acme");
    let answer = acme.get("/claude-haiku-4-5/v1/messages").await.expect_status(404);
    let body = answer.json();
    assert_eq!(
        body.as_object().unwrap().keys().collect::<Vec<_>>(),
        ["timestamp", "status", "error", "message", "path"]
    );
    assert_eq!(
        (&body["message"], &body["path"]),
        (&json!("No message available"), &json!("/claude-haiku-4-5/v1/messages"))
    );
    let answer = acme.get("/api/v1/jobs/createTask").await.expect_status(405);
    assert_eq!(answer.json()["message"], "Request method 'GET' not supported");
}

#[tokio::test(start_paused = true)]
#[expect(clippy::too_many_lines, reason = "a table")]
async fn wrong_requests_get_the_contracts_code_and_message() {
    let world = World::standard();
    let acme = world.client("acme");
    let runway = |change: Value| {
        let mut request = json!({"prompt": "x", "duration": 5, "quality": "720p", "aspectRatio": "16:9"});
        for (key, value) in change.as_object().unwrap() {
            match value {
                Value::Null => drop(request.as_object_mut().unwrap().remove(key)),
                value => request[key] = value.clone(),
            }
        }
        request
    };
    let nano = |input: Value| json!({"model": "nano-banana-2", "input": input});
    let model = "The model name you specified is not supported. Please verify your input and use one of the supported models provided by KIE.";
    for (operation, request, code, message) in [
        ("runway.generate", runway(json!({"prompt": null})), 422, PARAMETERS),
        ("runway.generate", runway(json!({"prompt": ""})), 422, PARAMETERS),
        ("runway.generate", runway(json!({"prompt": 7})), 422, PARAMETERS),
        ("runway.generate", runway(json!({"prompt": "x".repeat(1801)})), 422, PARAMETERS),
        ("runway.generate", runway(json!({"duration": 7})), 422, PARAMETERS),
        ("runway.generate", runway(json!({"duration": 10, "quality": "1080p"})), 422, PARAMETERS),
        ("runway.generate", runway(json!({"aspectRatio": null})), 422, PARAMETERS),
        ("runway.generate", json!([]), 422, PARAMETERS),
        ("runway.generate", json!("text"), 422, PARAMETERS),
        ("runway.details", json!({}), 422, PARAMETERS),
        ("aleph.generate", json!({"prompt": "x"}), 422, PARAMETERS),
        (
            "aleph.generate",
            json!({"prompt": "x", "videoUrl": "https://a.example/v.mp4", "aspectRatio": "5:4"}),
            422,
            PARAMETERS,
        ),
        ("veo.generate", json!({"prompt": "x", "model": "veo9"}), 422, "Invalid model"),
        ("veo.generate", json!({"prompt": "x", "seeds": 5}), 422, PARAMETERS),
        ("veo.generate", json!({"prompt": "x", "generationType": "REFERENCE_2_VIDEO"}), 422, PARAMETERS),
        (
            "veo.generate",
            json!({"prompt": "x", "model": "veo3", "generationType": "REFERENCE_2_VIDEO", "imageUrls": ["https://a.example/a.png"]}),
            422,
            PARAMETERS,
        ),
        (
            "veo.generate",
            json!({"prompt": "x", "model": "veo3_fast", "generationType": "REFERENCE_2_VIDEO", "imageUrls": ["https://a.example/a.png"], "duration": 4}),
            422,
            PARAMETERS,
        ),
        ("veo.extend", json!({"taskId": "unknown", "prompt": "x"}), 422, "Record does not exist"),
        ("veo.get1080p", json!({"taskId": "unknown"}), 422, "Record does not exist"),
        ("veo.get4k", json!({}), 422, PARAMETERS),
        (
            "gpt4o-image.generate",
            json!({"size": "1:1"}),
            422,
            "Validation Error - The request parameters failed validation checks",
        ),
        (
            "gpt4o-image.generate",
            json!({"prompt": "x", "size": "5:4"}),
            422,
            "Validation Error - The request parameters failed validation checks",
        ),
        ("gpt4o-image.details", json!({}), 422, "The record does not exist"),
        ("jobs.create", json!({"input": {"prompt": "x"}}), 422, model),
        ("jobs.create", json!({"model": "no-such/model", "input": {}}), 422, model),
        ("jobs.create", json!({"model": 7, "input": {}}), 422, model),
        ("jobs.create", json!({"model": "nano-banana-2"}), 500, REQUIRED),
        ("jobs.create", json!({"model": "nano-banana-2", "input": "x"}), 500, REQUIRED),
        ("jobs.create", nano(json!({})), 500, REQUIRED),
        (
            "jobs.create",
            nano(json!({"prompt": "x", "resolution": "8K"})),
            500,
            "resolution is not within the range of allowed options",
        ),
        (
            "jobs.create",
            nano(json!({"prompt": "x", "aspect_ratio": "7:7"})),
            500,
            "This aspect_ratio is not within the range of allowed options",
        ),
        (
            "jobs.create",
            nano(json!({"prompt": "x".repeat(20_001)})),
            500,
            "The text length cannot exceed the maximum limit",
        ),
        ("jobs.details", json!({}), 400, "taskId parameter is required"),
        ("jobs.details", json!({"taskId": ""}), 400, "taskId parameter is required"),
        ("common.download-url", json!({}), 422, "url is wrong"),
    ] {
        let answer = acme.call(operation, &request).await.expect_status(200);
        assert_eq!(
            answer.json(),
            json!({"code": code, "msg": message, "data": null}),
            "{operation} {request}"
        );
    }
    assert_eq!(acme.get("/_mock/tasks").await.json()["total"], 0);
}

#[tokio::test(start_paused = true)]
async fn unknown_fields_are_ignored_as_the_real_api_does() {
    let world = World::standard();
    let acme = world.client("acme");
    let request = json!({"prompt": "x", "model": "veo3", "expandPrompt": true, "metadata": {"a": [1]}});
    acme.call("veo.generate", &request).await.expect_code(200);
    let request =
        json!({"model": "nano-banana-2", "extra": 1, "input": {"prompt": "x", "negative_prompt": "y"}});
    acme.call("jobs.create", &request).await.expect_code(200);
}

#[tokio::test(start_paused = true)]
async fn what_is_no_json_is_refused() {
    let world = World::standard();
    let acme = world.client("acme");
    for body in ["", "{", "{\"prompt\": }", "\u{0}", "[1,2", "{\"a\":1}{\"b\":2}"] {
        let answer = acme.send(Method::POST, "/api/v1/gpt4o-image/generate", body).await;
        answer.expect_refusal(400, "Format Error - The parameter is not in a valid JSON format");
    }
    let deep = "[".repeat(10_000);
    acme.send(Method::POST, "/api/v1/veo/generate", deep).await.expect_code(400);
    let invalid = vec![b'"', 0xff, 0xfe, b'"'];
    acme.send(Method::POST, "/api/v1/veo/generate", invalid).await.expect_code(400);
}

#[tokio::test(start_paused = true)]
async fn a_body_that_is_too_large_is_refused_by_the_gateway() {
    let world = World::standard();
    let acme = world.client("acme");
    let large = json!({"prompt": "x".repeat(70_000)}).to_string();
    let answer = acme.send(Method::POST, "/api/v1/veo/generate", large.clone()).await.expect_status(413);
    assert_eq!(answer.header("x-kiegate-error"), "body_too_large");
    assert_eq!(answer.json()["code"], 413);
    // The length is not told: it shows while the body is read.
    let chunks = futures_util::stream::iter(vec![Ok::<_, std::io::Error>(large.into_bytes())]);
    let body = axum::body::Body::from_stream(chunks);
    acme.send(Method::POST, "/api/v1/veo/generate", body).await.expect_status(413);
    let page = world.metrics_page();
    assert!(page.contains(r#"kiegate_refusals_total{reason="body_too_large",tenant="other"} 2"#), "{page}");
}

#[tokio::test(start_paused = true)]
async fn a_body_that_stops_coming_is_given_up() {
    let world = World::standard();
    let first = futures_util::stream::iter(vec![Ok::<_, std::io::Error>("{\"prompt\":")]);
    let stalled = futures_util::StreamExt::chain(first, futures_util::stream::pending());
    let body = axum::body::Body::from_stream(stalled);
    world.client("acme").send(Method::POST, "/api/v1/veo/generate", body).await.expect_status(408);
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        ".{0,12}".prop_map(Value::from),
        prop::sample::select(vec![
            "16:9",
            "720p",
            "veo3",
            "nano-banana-2",
            "REFERENCE_2_VIDEO",
            "[[mock:stall]]",
            "5"
        ])
        .prop_map(Value::from),
    ];
    let key = prop_oneof![
        prop::sample::select(vec![
            "prompt",
            "model",
            "input",
            "taskId",
            "duration",
            "quality",
            "size",
            "imageUrls",
            "callBackUrl",
            "index",
            "url",
            "seeds",
            "filesUrl"
        ])
        .prop_map(str::to_owned),
        ".{0,6}",
    ];
    leaf.prop_recursive(3, 24, 6, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::vec((key.clone(), inner), 0..8)
                .prop_map(|pairs| Value::Object(pairs.into_iter().collect())),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever comes, the answer is an envelope with a code and a message, and never a word of ours.
    #[test]
    fn nonsense_is_answered_with_an_envelope(request in any_json()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let world = World::standard();
            let acme = world.client("acme");
            for (_, operation) in CATALOGUE.operations().filter(|(_, operation)| operation.method == Method::POST) {
                let answer = acme.call(&operation.id, &request).await;
                assert!(answer.status == 200 || answer.status == 400, "{}", answer.status);
                let body = answer.json();
                assert!(body["code"].is_u64() && body.get("msg").is_some(), "{body}");
                let text = answer.text();
                assert!(!text.contains("panicked") && !text.contains("serde") && !text.contains("expected"), "{text}");
            }
            acme.until_idle().await;
        });
    }
}
