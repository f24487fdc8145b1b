//! Connections that misbehave, seen from the other end of a real socket; and callbacks that do.

use std::time::Duration;

use http::Method;
use kiegate::app::App;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::live::{config, run};
use crate::support::World;

/// A simulator on a socket: its address, and what lets it stop.
fn simulator() -> (String, tokio::sync::oneshot::Sender<()>) {
    let text = "listen = \"127.0.0.1:0\"\n[admin]\nlisten = \"127.0.0.1:0\"\n[mock]\npace = \"instant\"";
    let (base, stop) = run(App::start(config(text)).unwrap());
    (base.strip_prefix("http://").unwrap().to_owned(), stop)
}

fn create(fault: &str, prompt: &str) -> String {
    let body = json!({"prompt": prompt}).to_string();
    format!(
        "POST /api/v1/veo/generate HTTP/1.1\r\nhost: kie\r\nauthorization: Bearer demo\r\ncontent-type: application/json\r\n\
         x-mock-outcome: {fault}\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
}

/// What comes back, until the other end closes, resets or says no more for a while.
async fn ask(address: &str, request: &str) -> (Vec<u8>, Result<(), std::io::ErrorKind>) {
    let mut socket = TcpStream::connect(address).await.unwrap();
    socket.write_all(request.as_bytes()).await.unwrap();
    let mut came = Vec::new();
    let read = tokio::time::timeout(Duration::from_secs(1), socket.read_to_end(&mut came)).await;
    let ended = match read {
        Err(_) => Err(std::io::ErrorKind::TimedOut),
        Ok(read) => read.map(|_| ()).map_err(|error| error.kind()),
    };
    (came, ended)
}

#[tokio::test]
async fn faults_are_really_at_the_socket() {
    let (address, _stop) = simulator();
    let reset = ask(&address, &create("fault:reset", "reset")).await;
    assert_eq!(reset, (vec![], Err(std::io::ErrorKind::ConnectionReset)));
    let empty = ask(&address, &create("fault:empty", "empty")).await;
    assert_eq!(empty, (vec![], Ok(())));
    let hang = ask(&address, &create("fault:hang", "hang")).await;
    assert_eq!(hang, (vec![], Err(std::io::ErrorKind::TimedOut)));
    let (garbage, ended) = ask(&address, &create("fault:garbage", "garbage")).await;
    assert!(!garbage.is_empty() && !garbage.starts_with(b"HTTP/") && ended.is_ok(), "{garbage:?}");
    let (cut, ended) = ask(&address, &create("fault:truncate", "truncate")).await;
    let cut = String::from_utf8(cut).unwrap();
    let (head, body) = cut.split_once("\r\n\r\n").unwrap();
    let promised: usize =
        head.split("content-length: ").nth(1).unwrap().split("\r\n").next().unwrap().parse().unwrap();
    assert!(head.starts_with("HTTP/1.1 200") && body.len() == promised / 2 && ended.is_ok(), "{cut}");
    let began = tokio::time::Instant::now();
    let (slow, _) = ask(&address, &create("fault:slow:600ms", "slow")).await;
    assert!(began.elapsed() >= Duration::from_millis(600));
    assert!(String::from_utf8(slow).unwrap().contains("taskId"), "all of it comes");
    // The calls were done: their answers were lost.
    let get = |path: &str| {
        format!("GET {path} HTTP/1.1\r\nhost: kie\r\nauthorization: Bearer demo\r\nconnection: close\r\n\r\n")
    };
    let (tasks, _) = ask(&address, &get("/_mock/tasks")).await;
    assert!(String::from_utf8(tasks).unwrap().contains(r#""total":6"#));
    let (calls, _) = ask(&address, &get("/_mock/requests?last=6")).await;
    assert!(String::from_utf8(calls).unwrap().contains(r#""fault":"fault:reset""#));
}

#[tokio::test(start_paused = true)]
async fn a_rule_lets_every_other_answer_break() {
    let world = World::standard();
    let acme = world.client("acme");
    let rule = json!({"match": {"operation": "veo.details"}, "then": [{"outcome": "fault:truncate"}, {"latency": "1ms"}]});
    acme.post("/_mock/rules", &rule).await.expect_status(201);
    let task = acme.call("veo.generate", &json!({"prompt": "x"})).await.task_id();
    let details = http::Request::get(format!("/api/v1/veo/record-info?taskId={task}"))
        .header("authorization", "Bearer acme")
        .body(axum::body::Body::empty())
        .unwrap();
    let broken = world.answer(details).await;
    assert!(axum::body::to_bytes(broken.into_body(), usize::MAX).await.is_err());
    acme.call("veo.details", &json!({"taskId": task})).await.expect_code(200);
}

#[tokio::test(start_paused = true)]
async fn a_callback_may_come_before_the_create_is_answered() {
    let world = World::standard();
    let acme = world.client("acme");
    acme.freeze().await;
    world.receiver.is_slow("hook", Duration::from_secs(2));
    let hooked = json!({"prompt": "x", "callBackUrl": "https://app.example.com/hook"});
    let began = tokio::time::Instant::now();
    let task = acme.wishing("callback:early").call("veo.generate", &hooked).await.task_id();
    assert_eq!(began.elapsed(), Duration::from_secs(2), "the answer waits for the receiver");
    let received = world.receiver.received();
    assert_eq!(received.len(), 1);
    assert_eq!(received[0].body["data"]["taskId"], task.as_str());
    assert_eq!(acme.until_idle().await.len(), 0);
    // What is to come later is not waited for.
    acme.wishing("callback:early, callback:late:1h").call("veo.generate", &hooked).await.expect_code(200);
    acme.wishing("callback:early, stall").call("veo.generate", &hooked).await.expect_code(200);
    assert_eq!(world.receiver.received().len(), 1);
    acme.advance("1h").await;
    assert_eq!(world.receiver.received().len(), 2);
    acme.send(Method::POST, "/_mock/reset", "").await.expect_status(200);
}
