//! `kiegate::testing`, as somebody else's tests use it: a simulator on a real socket, steered from the same process.

use std::net::TcpStream;
use std::thread;
use std::time::Duration;

use axum::body::{Body, to_bytes};
use http::{Method, Request};
use kiegate::outbound::Client;
use kiegate::testing::{Error, HttpStatus, Pace, Sandbox, Simulator};
use serde_json::{Value, json};
use tokio::sync::OnceCell;

const SECOND: Duration = Duration::from_secs(1);
const RUNWAY: &str = "/api/v1/runway/generate";

/// The code that somebody tests: it knows an address and a key, and calls the API over the network.
struct App {
    base_url: String,
    key: String,
}

impl App {
    fn of(sandbox: &Sandbox) -> Self {
        Self { base_url: sandbox.base_url().to_owned(), key: sandbox.token().to_owned() }
    }

    async fn send(&self, method: Method, path: &str, body: &Value) -> Value {
        let request = Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.base_url))
            .header("authorization", format!("Bearer {}", self.key))
            .header("content-type", "application/json")
            .body(Body::from(body.to_string()));
        let answer = Client::new(SECOND, SECOND).send(request.unwrap()).await.unwrap();
        serde_json::from_slice(&to_bytes(answer.into_body(), usize::MAX).await.unwrap()).unwrap()
    }

    /// Creates a video; gives the task's id.
    async fn create(&self, prompt: &str, callback: Option<&str>) -> String {
        let created = self.send(Method::POST, RUNWAY, &boat(prompt, callback)).await;
        created["data"]["taskId"].as_str().unwrap_or_else(|| panic!("no task: {created}")).to_owned()
    }

    async fn state(&self, id: &str) -> String {
        let path = format!("/api/v1/runway/record-detail?taskId={id}");
        let record = self.send(Method::GET, &path, &Value::Null).await;
        record["data"]["state"].as_str().unwrap().to_owned()
    }
}

fn boat(prompt: &str, callback: Option<&str>) -> Value {
    json!({"prompt": prompt, "duration": 5, "quality": "720p", "aspectRatio": "16:9", "callBackUrl": callback.unwrap_or("")})
}

#[tokio::test]
async fn a_test_sees_a_task_from_its_creation_to_its_callback() {
    let simulator = Simulator::start().await.unwrap();
    let sandbox = simulator.sandbox("one");
    sandbox.freeze().await.unwrap();
    let done = sandbox.inbox("done");
    let app = App::of(&sandbox);
    let id = app.create("A paper boat", Some(done.url())).await;
    assert_eq!(app.state(&id).await, "wait");
    assert_eq!(done.arrivals(0, Duration::ZERO).await.unwrap(), [] as [Value; 0]);
    let events = sandbox.advance(Duration::from_mins(1)).await.unwrap();
    let kinds: Vec<_> = events.iter().map(|event| event["type"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["task", "callback"]);
    let arrived = done.arrivals(1, 5 * SECOND).await.unwrap();
    assert_eq!(arrived[0]["body"]["data"]["task_id"], id.as_str());
    assert_eq!(arrived[0]["signature_valid"], true);
    assert_eq!(app.state(&id).await, "success");
    assert_eq!(sandbox.callbacks().await.unwrap().len(), 1);
    assert_eq!(sandbox.task(&id).await.unwrap()["callbacks"][0]["result"], "delivered");
}

#[tokio::test]
async fn a_test_decides_how_tasks_end_and_what_they_cost() {
    let simulator = Simulator::builder().pace(Pace::Realistic).credits(30.0).start().await.unwrap();
    let sandbox = simulator.unnamed_sandbox();
    assert_eq!(sandbox.token(), "unnamed-1");
    sandbox.freeze().await.unwrap();
    let price = sandbox.price(RUNWAY, &boat("A paper boat", None)).await.unwrap();
    assert_eq!(price["credits"], 12.0);
    let app = App::of(&sandbox);
    let id = app.create("A paper boat", None).await;
    assert!((sandbox.credits().await.unwrap() - 18.0).abs() < 1e-9);
    let finished = sandbox.finish(&id, "fail:content_policy").await.unwrap();
    assert_eq!(finished["plan"]["outcome"], "fail:content_policy");
    assert_eq!(app.state(&id).await, "fail");
    sandbox.set_credits(3.0).await.unwrap();
    let refused = app.send(Method::POST, RUNWAY, &boat("Another", None)).await;
    assert_eq!(refused["code"], 402);
    assert_eq!(sandbox.tasks().await.unwrap().len(), 1);
    sandbox.reset().await.unwrap();
    assert_eq!(sandbox.tasks().await.unwrap().len(), 0);
    assert_eq!(sandbox.clock().await.unwrap()["rate"], 1.0);
}

#[tokio::test]
async fn a_test_has_its_callbacks_refused_and_sent_again() {
    let simulator = Simulator::start().await.unwrap();
    let sandbox = simulator.unnamed_sandbox();
    sandbox.freeze().await.unwrap();
    let flaky = sandbox.inbox("flaky");
    flaky.program(&[500, 200], Duration::ZERO).await.unwrap();
    App::of(&sandbox).create("A paper boat", Some(flaky.url())).await;
    sandbox.advance_until_idle().await.unwrap();
    let arrived = flaky.arrivals(2, 5 * SECOND).await.unwrap();
    let answered: Vec<_> = arrived.iter().map(|arrival| arrival["answered"].as_u64().unwrap()).collect();
    assert_eq!(answered, [500, 200]);
    let missing = flaky.arrivals(3, Duration::from_millis(10)).await.unwrap_err();
    assert_eq!(missing.to_string(), "inbox flaky: 3 arrivals were awaited, 2 came within 10ms");
}

#[tokio::test]
async fn settings_hold_for_all_sandboxes_or_for_one() {
    let builder = Simulator::builder().pace(Pace::Instant).seed(7).http_status(HttpStatus::Real);
    let simulator = builder.latency(Duration::from_millis(1)).failure_rate(0.5).start().await.unwrap();
    let (one, other) = (simulator.unnamed_sandbox(), simulator.unnamed_sandbox());
    let changed = one.set_settings(&json!({"failure_rate": 0})).await.unwrap();
    assert_eq!(changed["failure_rate"], 0.0);
    let settings = other.settings().await.unwrap();
    let expected = json!({"pace": "instant", "seed": 7, "latency": "1ms", "failure_rate": 0.5, "emulate_quota": false, "http_status": "real"});
    for (name, value) in expected.as_object().unwrap() {
        assert_eq!(&settings[name], value, "{name}");
    }
}

#[tokio::test]
async fn what_is_refused_is_told_with_call_status_and_reason() {
    let simulator = Simulator::start().await.unwrap();
    let sandbox = simulator.unnamed_sandbox();
    let told = |error: Error| {
        assert_eq!(format!("{error:?}"), error.to_string(), "tests show errors as Debug has them");
        error.to_string()
    };
    let error = told(sandbox.task("0123").await.unwrap_err());
    assert_eq!(error, "GET /_mock/tasks/0123: 404 Not Found: there is no task \"0123\" in this sandbox");
    let error = told(sandbox.set_settings(&json!({"speed": 2})).await.unwrap_err());
    assert!(
        error.starts_with("PUT /_mock/settings: 400 Bad Request: body: unknown field \"speed\""),
        "{error}"
    );
    let error = told(simulator.sandbox("invalid").credits().await.unwrap_err());
    assert!(error.starts_with("GET /_mock/credits: 401 Unauthorized: "), "{error}");
    let error = sandbox.task("not a path").await.unwrap_err();
    assert_eq!(
        format!("{error:?}"),
        "GET /_mock/tasks/not a path: no request can be made of that: invalid uri character"
    );
    let error = Simulator::builder().failure_rate(2.0).set("mock.sped", 1).start().await.unwrap_err();
    let error = told(error);
    assert!(error.contains("mock.failure_rate: ") && error.contains("mock.sped: "), "{error}");
}

#[tokio::test]
async fn rules_journal_verdict_and_snapshots_have_their_calls() {
    let simulator = Simulator::start().await.unwrap();
    let sandbox = simulator.unnamed_sandbox();
    sandbox.freeze().await.unwrap();
    let rule = json!({"id": "storms", "match": {"prompt": "storm"}, "then": {"outcome": "reject:402"}});
    assert_eq!(sandbox.rule(&rule).await.unwrap()["id"], "storms");
    let app = App::of(&sandbox);
    let refused = app.send(Method::POST, "/api/v1/veo/generate", &json!({"prompt": "a storm"})).await;
    assert_eq!(refused["code"], 402);
    assert_eq!(sandbox.rules().await.unwrap()[0]["matched"], 1);
    assert_eq!(sandbox.requests().await.unwrap()[0]["rule"], "storms");
    let stormy = json!({"operation": "veo.generate", "prompt": "storm"});
    sandbox.verify(&stormy, 1).await.unwrap();
    let error = sandbox.verify(&stormy, json!({"min": 2})).await.unwrap_err().to_string();
    assert!(
        error.starts_with("POST /_mock/verify: 422 Unprocessable Entity: expected at least 2 of "),
        "{error}"
    );
    assert!(error.contains("found 1") && error.contains("nearest: "), "{error}");
    assert_eq!(sandbox.verdict().await.unwrap()["ok"], true);
    let snapshot = sandbox.snapshot().await.unwrap();
    sandbox.clear_rules().await.unwrap();
    sandbox.clear_requests().await.unwrap();
    sandbox.restore(&snapshot).await.unwrap();
    assert_eq!(sandbox.snapshot().await.unwrap(), snapshot);
    sandbox.remove_rule("storms").await.unwrap();
}

#[tokio::test]
async fn a_simulator_ends_when_nobody_holds_it() {
    let simulator = Simulator::start().await.unwrap();
    let address = simulator.base_url().trim_start_matches("http://").to_owned();
    let sandbox = simulator.unnamed_sandbox();
    drop(simulator);
    assert_eq!(App::of(&sandbox).send(Method::GET, "/api/v1/chat/credit", &Value::Null).await["code"], 200);
    drop(sandbox);
    assert!(TcpStream::connect(address).is_err());
}

/// Each of these threads stands for a test with a runtime of its own.
#[test]
fn a_simulator_in_a_static_serves_all_tests_of_a_program() {
    static SIMULATOR: OnceCell<Simulator> = OnceCell::const_new();
    let test = |count: usize| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let simulator = SIMULATOR.get_or_try_init(Simulator::start).await.unwrap();
            let sandbox = simulator.unnamed_sandbox();
            for _ in 0..count {
                App::of(&sandbox).create("A paper boat", None).await;
            }
            assert_eq!(sandbox.tasks().await.unwrap().len(), count);
        });
    };
    thread::scope(|threads| {
        for count in 1..=4 {
            threads.spawn(move || test(count));
        }
    });
}
