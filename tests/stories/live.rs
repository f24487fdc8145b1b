//! The live upstream, played by a second simulator on a real socket.

use std::future::Future;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::routing::any;
use futures_util::stream;
use http::Method;
use http_body_util::BodyExt as _;
use kiegate::app::App;
use kiegate::config::{Config, Sources};
use kiegate::outbound::Client;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::oneshot;

pub(super) fn config(text: &str) -> Config {
    let environment = vec![("UPSTREAM_KEY_FOR_TEST".to_owned(), "fake-upstream-key".to_owned())];
    let file = Some(("test.toml".into(), text.to_owned()));
    Sources { file, environment, flags: Vec::new() }.read().unwrap_or_else(|error| panic!("{error}"))
}

/// Runs `app` until the returned sender is used or dropped.
pub(super) fn run(app: App) -> (String, oneshot::Sender<()>) {
    let base = format!("http://{}", app.data_address());
    let (stop, stopped) = oneshot::channel::<()>();
    kiegate::background::spawn(app.run(async {
        let _ = stopped.await;
    }));
    (base, stop)
}

pub(super) fn live_config(upstream: &str, more: &str) -> Config {
    let hash = kiegate::clock::hex(&kiegate::tenants::hash("kg_acme_fake"));
    config(&format!(
        r#"
        mode = "live"
        listen = "127.0.0.1:0"
        {more}
        [admin]
        listen = "127.0.0.1:0"
        [upstream]
        base_url = "{upstream}"
        upload_url = "{upstream}"
        response_timeout = "1s"
        [[upstream.key]]
        name = "main"
        secret = "env:UPSTREAM_KEY_FOR_TEST"
        [[tenant]]
        id = "acme"
        keys = ["sha256:{hash}"]
        "#
    ))
}

async fn call(method: Method, url: &str, key: Option<&str>, body: &str) -> (u16, http::HeaderMap, String) {
    let client = Client::new(Duration::from_secs(5), Duration::from_secs(5));
    let mut request = Request::builder().method(method).uri(url).header("x-mock-outcome", "stall");
    if let Some(key) = key {
        request = request.header("authorization", format!("Bearer {key}"));
    }
    let response = client.send(request.body(Body::from(body.to_owned())).unwrap()).await.unwrap();
    let (parts, body) = response.into_parts();
    let body = axum::body::to_bytes(body, usize::MAX).await.unwrap();
    (parts.status.as_u16(), parts.headers, String::from_utf8_lossy(&body).into_owned())
}

/// An upstream that answers with what it was sent.
async fn echo() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}", listener.local_addr().unwrap());
    let handler = async |request: Request| {
        let (parts, body) = request.into_parts();
        if parts.uri.path() == "/slow" {
            tokio::time::sleep(Duration::from_secs(5)).await;
        }
        let whole = body.collect().await.unwrap_or_default();
        let trailers = whole.trailers().cloned().unwrap_or_default();
        let trailers: Vec<_> = trailers.keys().map(|name| name.as_str().to_owned()).collect();
        let body = whole.to_bytes();
        let headers: Vec<String> = parts
            .headers
            .iter()
            .map(|(name, value)| format!("{name}: {}", value.to_str().unwrap()))
            .collect();
        let key = parts.headers.get("authorization").is_some_and(|key| key == "Bearer fake-upstream-key");
        let uri = parts.uri.to_string();
        let seen = json!({"code": 200, "uri": uri, "headers": headers, "length": body.len(), "upstream_key": key, "trailers": trailers});
        (http::StatusCode::ACCEPTED, [("x-from-upstream", "yes")], seen.to_string())
    };
    kiegate::background::spawn(
        async move { axum::serve(listener, Router::new().fallback(any(handler))).await },
    );
    base
}

pub(super) async fn with_gateway<F: Future<Output = ()>>(config: Config, then: impl FnOnce(String) -> F) {
    let app = App::start(config).unwrap();
    let (base, stop) = run(app);
    then(base).await;
    let _ = stop.send(());
}

#[tokio::test]
async fn the_key_is_swapped_and_everything_else_passes() {
    let upstream = echo().await;
    with_gateway(live_config(&upstream, ""), async |base| {
        let url = format!("{base}/api/v1/anything?a=1&key=kg_acme_fake&b=2");
        let (status, headers, body) = call(Method::POST, &url, Some("kg_acme_fake"), "{\"x\":1}").await;
        assert_eq!((status, headers["x-from-upstream"].to_str().unwrap()), (202, "yes"));
        assert_eq!(headers["x-kiegate-mode"], "live");
        let seen: Value = serde_json::from_str(&body).unwrap();
        assert_eq!((&seen["uri"], &seen["length"]), (&json!("/api/v1/anything?a=1&b=2"), &json!(7)));
        let headers = seen["headers"].to_string();
        assert_eq!(seen["upstream_key"], true, "{headers}");
        // An upstream that quotes what it was sent does not tell tenants the key.
        assert!(headers.contains("authorization: Bearer *****************"), "{headers}");
        assert!(!headers.contains("kg_acme_fake") && !headers.contains("x-mock"), "{headers}");
    })
    .await;
}

/// A tenant's key went upstream in them.
#[tokio::test]
async fn trailers_travel_as_far_as_headers_do() {
    let upstream = echo().await;
    with_gateway(live_config(&upstream, ""), async |base| {
        let names = ["x-sum", "authorization", "x-note", "x-mock-outcome"];
        let values = ["42", "Bearer kg_acme_fake", "my key is kg_acme_fake", "stall"];
        let trailers = names
            .map(|name| name.parse().unwrap())
            .into_iter()
            .zip(values.map(|value| value.parse().unwrap()));
        let pieces = Body::from_stream(stream::iter(["a", "b"].map(Ok::<_, std::io::Error>)));
        let body = pieces.with_trailers(std::future::ready(Some(Ok(trailers.collect()))));
        let request = Request::post(format!("{base}/x/anything"))
            .header("authorization", "Bearer kg_acme_fake")
            .header("content-type", "application/octet-stream")
            .header("trailer", names.join(", "));
        let client = Client::new(Duration::from_secs(5), Duration::from_secs(5));
        let answer = client.send(request.body(Body::new(body)).unwrap()).await.unwrap();
        let seen: Value =
            serde_json::from_slice(&answer.into_body().collect().await.unwrap().to_bytes()).unwrap();
        assert_eq!((&seen["length"], &seen["trailers"]), (&json!(2), &json!(["x-sum"])));
    })
    .await;
}

#[tokio::test]
async fn a_large_body_streams_both_ways() {
    let upstream = echo().await;
    with_gateway(live_config(&upstream, ""), async |base| {
        let large = "x".repeat(12 * 1024 * 1024);
        let (status, _, body) =
            call(Method::POST, &format!("{base}/api/file-stream-upload"), Some("kg_acme_fake"), &large).await;
        assert_eq!(status, 202);
        assert_eq!(serde_json::from_str::<Value>(&body).unwrap()["length"], large.len());
    })
    .await;
}

#[tokio::test]
async fn uploads_go_to_their_own_host() {
    let (api, uploads) = (echo().await, echo().await);
    let mut config = live_config(&api, "");
    config.upstream.upload_url = uploads.parse().unwrap();
    let host = |base: &str| format!("host: {}", base.strip_prefix("http://").unwrap());
    with_gateway(config, async |base| {
        for (path, expected) in [
            ("/api/file-base64-upload", &uploads),
            ("/api/file-stream-upload", &uploads),
            ("/api/file-url-upload", &uploads),
            ("/api/v1/jobs/createTask", &api),
        ] {
            let url = format!("{base}{path}");
            let (status, _, body) = call(Method::POST, &url, Some("kg_acme_fake"), "{}").await;
            assert!(status == 202 && body.contains(&host(expected)), "{path}: {status} {body}");
        }
    })
    .await;
}

#[tokio::test]
async fn strangers_are_refused_and_nothing_goes_upstream() {
    let upstream = echo().await;
    with_gateway(live_config(&upstream, ""), async |base| {
        for key in [None, Some("guess")] {
            let (status, headers, body) =
                call(Method::GET, &format!("{base}/api/v1/chat/credit"), key, "").await;
            assert_eq!((status, headers["x-kiegate-error"].to_str().unwrap()), (401, "unauthorized"));
            assert!(headers.get("x-from-upstream").is_none() && body.contains("\"code\":401"), "{body}");
        }
        for key in [None, Some("kg_acme_fake")] {
            let (status, headers, _) = call(Method::GET, &format!("{base}/_mock/tasks"), key, "").await;
            assert_eq!(status, if key.is_some() { 404 } else { 401 }, "the simulator is not there");
            assert!(headers.get("x-from-upstream").is_none(), "and is not looked for upstream");
        }
    })
    .await;
}

#[tokio::test]
async fn an_upstream_that_is_gone_or_slow_is_told_as_such() {
    let nobody = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = nobody.local_addr().unwrap();
    drop(nobody);
    with_gateway(live_config(&format!("http://{address}"), ""), async |base| {
        let (status, headers, body) =
            call(Method::GET, &format!("{base}/api/v1/chat/credit"), Some("kg_acme_fake"), "").await;
        assert_eq!((status, headers["x-kiegate-error"].to_str().unwrap()), (502, "upstream_unreachable"));
        assert!(!body.contains("os error"), "{body}");
    })
    .await;
    let upstream = echo().await;
    with_gateway(live_config(&upstream, ""), async |base| {
        let (status, headers, _) = call(Method::GET, &format!("{base}/slow"), Some("kg_acme_fake"), "").await;
        assert_eq!((status, headers["x-kiegate-error"].to_str().unwrap()), (504, "upstream_timeout"));
    })
    .await;
}

#[tokio::test]
async fn unknown_paths_can_be_denied() {
    let upstream = echo().await;
    with_gateway(live_config(&upstream, "unknown_paths = \"deny\""), async |base| {
        let (status, headers, _) =
            call(Method::GET, &format!("{base}/api/v1/else"), Some("kg_acme_fake"), "").await;
        assert_eq!((status, headers["x-kiegate-error"].to_str().unwrap()), (403, "forbidden"));
        let (status, ..) =
            call(Method::GET, &format!("{base}/api/v1/chat/credit"), Some("kg_acme_fake"), "").await;
        assert_eq!(status, 202);
    })
    .await;
}

#[tokio::test]
async fn a_gateway_before_a_simulator_behaves_like_the_simulator() {
    let mock = App::start(config(
        "listen = \"127.0.0.1:0\"\n[admin]\nlisten = \"127.0.0.1:0\"\n[mock]\npace = \"instant\"\n",
    ))
    .unwrap();
    let (upstream, stop) = run(mock);
    with_gateway(live_config(&upstream, ""), async |base| {
        let key = Some("kg_acme_fake");
        let request = json!({"prompt": "x"}).to_string();
        let (_, _, created) = call(Method::POST, &format!("{base}/api/v1/veo/generate"), key, &request).await;
        let created: Value = serde_json::from_str(&created).unwrap();
        let id = created["data"]["taskId"].as_str().unwrap();
        let (_, _, record) =
            call(Method::GET, &format!("{base}/api/v1/veo/record-info?taskId={id}"), key, "").await;
        let record: Value = serde_json::from_str(&record).unwrap();
        assert_eq!(record["data"]["successFlag"], 1, "{record}: the wish to stall did not travel upstream");
    })
    .await;
    let _ = stop.send(());
}

/// A guard against heads that dawdle once took any frame of a busy HTTP/2 connection for the start of one.
#[tokio::test]
async fn a_long_answer_over_http_2_is_not_cut_off() {
    let text =
        "listen = \"127.0.0.1:0\"\n[admin]\nlisten = \"127.0.0.1:0\"\n[server]\nhead_timeout = \"1s\"\n";
    let (base, stop) = run(App::start(config(text)).unwrap());
    let socket = tokio::net::TcpStream::connect(base.strip_prefix("http://").unwrap()).await.unwrap();
    let executor = hyper_util::rt::TokioExecutor::new();
    let io = hyper_util::rt::TokioIo::new(socket);
    let (sender, connection) = hyper::client::conn::http2::handshake(executor, io).await.unwrap();
    kiegate::background::spawn(connection);
    let get = async |path: &str| {
        let request =
            Request::get(format!("{base}{path}")).header("authorization", "Bearer demo").body(Body::empty());
        let response = sender.clone().send_request(request.unwrap()).await.unwrap();
        let body = axum::body::to_bytes(Body::new(response.into_body()), usize::MAX).await.unwrap();
        String::from_utf8_lossy(&body).into_owned()
    };
    let (long, short) = tokio::join!(get("/_mock/inbox/a?count=1&wait=2500ms"), get("/api/v1/chat/credit"));
    assert!(long.contains(r#""complete":false"#) && short.contains("10000.0"), "{long} {short}");
    tokio::time::sleep(Duration::from_millis(1500)).await;
    assert!(get("/api/v1/chat/credit").await.contains("10000.0"), "idle for longer than a head may take");
    let _ = stop.send(());
}

/// An upstream that sends its answer piece by piece, each when told.
#[tokio::test]
async fn an_answer_streams_through_as_it_comes() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let upstream = format!("http://{}", listener.local_addr().unwrap());
    let (tell, told) = tokio::sync::mpsc::unbounded_channel::<&'static str>();
    let told = std::sync::Arc::new(std::sync::Mutex::new(Some(told)));
    let handler = move || {
        let told = told.lock().unwrap().take().unwrap();
        let pieces = stream::unfold(told, async |mut told| {
            told.recv().await.map(|piece| (Ok::<_, std::io::Error>(piece), told))
        });
        std::future::ready(Body::from_stream(pieces))
    };
    kiegate::background::spawn(
        async move { axum::serve(listener, Router::new().fallback(any(handler))).await },
    );
    with_gateway(live_config(&upstream, ""), async |base| {
        let client = Client::new(Duration::from_secs(5), Duration::from_secs(5));
        let request = Request::get(format!("{base}/stream")).header("authorization", "Bearer kg_acme_fake");
        let response = client.send(request.body(Body::empty()).unwrap()).await.unwrap();
        let mut body = response.into_body().into_data_stream();
        for piece in ["data: one\n\n", "data: two\n\n"] {
            tell.send(piece).unwrap();
            let got = futures_util::StreamExt::next(&mut body).await.unwrap().unwrap();
            assert_eq!(got, piece, "before the next one was sent");
        }
        drop(tell);
        assert!(futures_util::StreamExt::next(&mut body).await.is_none());
    })
    .await;
}
