//! How an exchange with the live upstream ends when one side does not play its part. The upstream is a bare socket.

use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use super::live::{live_config, with_gateway};

/// Longer than anything here takes that is not a hang.
const PATIENCE: Duration = Duration::from_secs(10);

/// A listening upstream, and a gateway's configuration for it that is in no hurry.
async fn upstream() -> (TcpListener, kiegate::config::Config) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut config = live_config(&format!("http://{}", listener.local_addr().unwrap()), "");
    config.upstream.response_timeout = Duration::from_mins(1);
    (listener, config)
}

/// A client's connection, over which `rest` of a request was sent.
async fn ask(base: &str, rest: &str) -> TcpStream {
    let mut socket = TcpStream::connect(base.strip_prefix("http://").unwrap()).await.unwrap();
    let (line, rest) = rest.split_once("\r\n").unwrap();
    let head = format!("{line} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer kg_acme_fake\r\n{rest}");
    socket.write_all(head.as_bytes()).await.unwrap();
    socket
}

/// Reads until `end` has come.
async fn read_until(socket: &mut TcpStream, end: &str) -> String {
    let mut text = String::new();
    let mut buffer = [0; 4096];
    while !text.contains(end) {
        let read = tokio::time::timeout(PATIENCE, socket.read(&mut buffer)).await.expect("no hang").unwrap();
        assert_ne!(read, 0, "it ended before {end:?}: {text}");
        text.push_str(&String::from_utf8_lossy(&buffer[..read]));
    }
    text
}

/// Reads until the other side ends or breaks the connection; gives what came.
async fn read_to_end(socket: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    let read = socket.read_to_end(&mut bytes);
    // A reset is an end, too.
    let _ = tokio::time::timeout(PATIENCE, read).await.expect("no hang");
    String::from_utf8_lossy(&bytes).into_owned()
}

/// What a client gets when the upstream sends `answer` and ends the connection.
async fn answered(answer: &str) -> String {
    let (listener, config) = upstream().await;
    let mut got = String::new();
    with_gateway(config, async |base| {
        let mut client = ask(&base, "GET /x\r\nconnection: close\r\n\r\n").await;
        let (mut server, _) = listener.accept().await.unwrap();
        read_until(&mut server, "\r\n\r\n").await;
        server.write_all(answer.as_bytes()).await.unwrap();
        drop(server);
        got = read_to_end(&mut client).await;
    })
    .await;
    got
}

#[tokio::test]
async fn a_client_that_goes_away_ends_the_request_before_its_answer() {
    let (listener, config) = upstream().await;
    with_gateway(config, async |base| {
        let client = ask(&base, "GET /x\r\n\r\n").await;
        let (mut server, _) = listener.accept().await.unwrap();
        read_until(&mut server, "\r\n\r\n").await;
        drop(client);
        assert_eq!(read_to_end(&mut server).await, "");
    })
    .await;
}

#[tokio::test]
async fn a_client_that_goes_away_ends_the_request_in_the_middle_of_its_answer() {
    let (listener, config) = upstream().await;
    with_gateway(config, async |base| {
        let mut client = ask(&base, "GET /x\r\n\r\n").await;
        let (mut server, _) = listener.accept().await.unwrap();
        read_until(&mut server, "\r\n\r\n").await;
        server
            .write_all(
                b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n",
            )
            .await
            .unwrap();
        server.write_all(b"9\r\ndata: 1\n\n\r\n").await.unwrap();
        // The first event is here while the second has not been thought of.
        read_until(&mut client, "data: 1\n\n").await;
        drop(client);
        assert_eq!(read_to_end(&mut server).await, "");
    })
    .await;
}

#[tokio::test]
async fn an_upload_that_breaks_off_breaks_off_upstream() {
    let (listener, config) = upstream().await;
    with_gateway(config, async |base| {
        let rest = "POST /api/file-stream-upload\r\ncontent-length: 10\r\n\r\n01234";
        let client = ask(&base, rest).await;
        let (mut server, _) = listener.accept().await.unwrap();
        read_until(&mut server, "01234").await;
        drop(client);
        assert_eq!(read_to_end(&mut server).await, "", "nothing is made up for the rest");
    })
    .await;
}

/// It was once the upstream's fault (502) when the client's body broke the rules.
#[tokio::test]
async fn a_body_that_breaks_the_rules_is_the_clients_fault() {
    let (listener, config) = upstream().await;
    with_gateway(config, async |base| {
        let rest = "POST /x\r\ncontent-type: application/zip\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\nzz\r\n";
        let mut client = ask(&base, rest).await;
        let server = kiegate::background::spawn(async move {
            let (mut server, _) = listener.accept().await.unwrap();
            read_to_end(&mut server).await
        });
        let answer = read_to_end(&mut client).await;
        assert!(answer.starts_with("HTTP/1.1 400 ") && answer.contains("body_malformed"), "{answer}");
        assert!(!server.await.unwrap().ends_with("0\r\n\r\n"), "upstream it does not look whole");
    })
    .await;
}

#[tokio::test]
async fn an_answer_that_is_none_is_told_as_such() {
    for (answer, reason) in [
        ("", "broke before all of its answer"),
        ("HTTP/1.1 200 OK\r\ncontent-le", "broke before all of its answer"),
        ("SSH-2.0-nonsense\r\n\r\n", "makes no sense"),
        ("HTTP/1.1 200 OK\r\ncontent-length: two\r\n\r\nok", "makes no sense"),
        ("HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-length: 3\r\n\r\nok", "makes no sense"),
        ("HTTP/1.1 200 OK\r\ntransfer-encoding: gzip\r\n\r\nok", "makes no sense"),
        ("HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n", "makes no sense"),
    ] {
        let got = answered(answer).await;
        assert!(
            got.starts_with("HTTP/1.1 502 ") && got.contains("upstream_unreachable"),
            "{answer:?}: {got}"
        );
        assert!(got.contains(reason), "{answer:?}: {got}");
    }
}

#[tokio::test]
async fn an_answer_that_breaks_off_is_cut_off() {
    let got = answered("HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\n01234").await;
    assert!(got.contains("content-length: 10\r\n") && got.ends_with("\r\n\r\n01234"), "{got}");
    let got = answered("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n").await;
    assert!(got.contains("3\r\nabc\r\n") && !got.ends_with("0\r\n\r\n"), "{got}");
}

/// Its length was once passed on beside the chunks' own, and the client waited for bytes that never came.
#[tokio::test]
async fn an_answer_with_a_length_and_chunks_is_as_long_as_its_chunks() {
    let got = answered(
        "HTTP/1.1 200 OK\r\ncontent-length: 50\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
    )
    .await;
    assert!(!got.contains("content-length") && got.ends_with("2\r\nok\r\n0\r\n\r\n"), "{got}");
}
