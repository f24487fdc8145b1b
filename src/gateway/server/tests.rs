//! A plane, spoken to over sockets.

use std::future::poll_fn;
use std::sync::Mutex;

use axum::response::Response;
use futures_util::FutureExt as _;
use futures_util::future::{Either, ready};
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep, timeout};

use super::*;

/// Serves a plane that notes who asked; gives what `requests` are answered, each over a connection of its own,
/// and the notes.
async fn serve_and_ask(lanes: Option<Arc<Lanes>>, requests: &[&str]) -> (Vec<String>, Vec<Peer>) {
    let peers = Arc::new(Mutex::new(Vec::new()));
    let noted = Arc::clone(&peers);
    let answer: Answer = Arc::new(move |_, peer| {
        noted.lock().unwrap().push(peer);
        Either::Left(ready(Response::new(Body::from("hello"))))
    });
    let second = Duration::from_secs(1);
    let bounds = Bounds { head: 8192, head_timeout: second, idle_timeout: second };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let metrics = Arc::new(Metrics::new());
    let plane = Plane { name: "data", listener, tls: None, lanes, answer, bounds, metrics };
    let (stop, stopped) = oneshot::channel::<()>();
    let served = background::spawn(serve(plane, async { drop(stopped.await) }, second));
    let mut answers = Vec::new();
    for request in requests {
        let mut socket = TcpStream::connect(address).await.unwrap();
        socket.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        socket.read_to_string(&mut answer).await.unwrap();
        answers.push(answer);
    }
    stop.send(()).unwrap();
    served.await.unwrap();
    let peers = peers.lock().unwrap().clone();
    (answers, peers)
}

const PLAIN: &str = "GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";

#[tokio::test]
async fn whoever_answers_knows_who_asked() {
    let (answers, peers) = serve_and_ask(None, &[PLAIN]).await;
    assert!(answers[0].ends_with("hello"), "{}", answers[0]);
    assert_eq!(peers, [Peer([127, 0, 0, 1].into())]);
}

#[tokio::test]
async fn connections_are_served_on_lanes_too() {
    let lanes = Arc::new(Lanes::start(2).unwrap());
    let (answers, peers) = serve_and_ask(Some(Arc::clone(&lanes)), &[PLAIN; 5]).await;
    assert!(answers.iter().all(|answer| answer.ends_with("hello")) && peers.len() == 5, "{answers:?}");
    tokio::task::spawn_blocking(|| drop(lanes)).await.unwrap();
}

#[tokio::test]
async fn requests_that_nobody_may_send_are_turned_away() {
    let requests = [
        "GET / HTTP/1.1\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: x\r\nhost: y\r\n\r\n",
        "TRACE / HTTP/1.1\r\nhost: x\r\n\r\n",
        "CONNECT x:443 HTTP/1.1\r\nhost: x:443\r\n\r\n",
        "GET x HTTP/1.1\r\nhost: x\r\n\r\n",
        "POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        "POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    ];
    let (answers, peers) = serve_and_ask(None, &requests).await;
    let statuses: Vec<_> = answers.iter().map(|answer| &answer[9..12]).collect();
    assert_eq!(statuses, ["400", "400", "405", "405", "400", "501", "501"]);
    assert!(answers[2].contains("allow: GET, HEAD"), "{}", answers[2]);
    assert_eq!(peers, [], "none of them got through");
}

/// Serves "hello" with these bounds; gives a connection to it.
async fn connect(head_timeout: Duration, idle_timeout: Duration) -> TcpStream {
    let answer: Answer = Arc::new(|request: Request<Body>, _| {
        let answered = async move {
            let body = axum::body::to_bytes(request.into_body(), usize::MAX).await.unwrap();
            Response::new(Body::from(format!("hello {}", body.len())))
        };
        Either::Right(answered.boxed())
    });
    connect_to(answer, head_timeout, idle_timeout).await
}

/// Serves what `answer` gives; gives a connection to it.
async fn connect_to(answer: Answer, head_timeout: Duration, idle_timeout: Duration) -> TcpStream {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let bounds = Bounds { head: 8192, head_timeout, idle_timeout };
    let metrics = Arc::new(Metrics::new());
    let plane = Plane { name: "data", listener, tls: None, lanes: None, answer, bounds, metrics };
    drop(background::spawn(serve(plane, std::future::pending(), Duration::ZERO)));
    TcpStream::connect(address).await.unwrap()
}

/// Sends `request` and reads one answer, which ends in `last`.
async fn exchange(socket: &mut TcpStream, request: &str, last: &str) {
    socket.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(last.as_bytes()) {
        let read = timeout(Duration::from_secs(5), socket.read_buf(&mut answer)).await;
        assert!(read.expect("an answer").unwrap() > 0, "{}", String::from_utf8_lossy(&answer));
    }
}

const ASKING: &str = "GET / HTTP/1.1\r\nhost: x\r\n\r\n";

#[tokio::test]
async fn a_connection_that_was_silent_for_a_while_goes_on_as_before() {
    let mut socket = connect(Duration::from_secs(5), Duration::from_secs(5)).await;
    for _ in 0..3 {
        exchange(&mut socket, ASKING, "hello 0").await;
        exchange(&mut socket, "POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\nab", "hello 2").await;
        sleep(Duration::from_millis(1100)).await;
    }
    // In pieces, after a rest.
    for piece in ["GE", "T / HTTP/1.1\r\nho", "st: x\r\n"] {
        socket.write_all(piece.as_bytes()).await.unwrap();
        sleep(Duration::from_millis(600)).await;
    }
    exchange(&mut socket, "\r\n", "hello 0").await;
}

#[tokio::test]
async fn a_connection_that_stays_silent_ends_in_time() {
    let mut socket = connect(Duration::from_secs(5), Duration::from_secs(1)).await;
    exchange(&mut socket, ASKING, "hello 0").await;
    let began = Instant::now();
    let read = timeout(Duration::from_secs(5), socket.read(&mut [0; 10])).await.expect("it ends");
    assert_eq!(read.unwrap(), 0);
    let took = began.elapsed();
    assert!(took > Duration::from_millis(900) && took < Duration::from_secs(3), "{took:?}");
}

/// It lies in a buffer by then, where the socket cannot see it.
#[tokio::test]
async fn the_beginning_of_a_head_that_came_with_a_request_has_to_go_on_in_time() {
    let mut socket = connect(Duration::from_secs(1), Duration::from_mins(1)).await;
    exchange(&mut socket, &format!("{ASKING}GET /slow"), "hello 0").await;
    let read = timeout(Duration::from_secs(5), socket.read_to_end(&mut Vec::new())).await;
    read.expect("it ends").unwrap();
}

#[tokio::test]
async fn a_body_that_stops_coming_is_not_taken_for_silence() {
    let mut socket = connect(Duration::from_secs(5), Duration::from_mins(1)).await;
    socket.write_all(b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\na").await.unwrap();
    sleep(Duration::from_millis(1300)).await;
    exchange(&mut socket, "b", "hello 2").await;
}

/// Serves an answer that is there before anything of a body is read; gives a connection to it.
async fn connect_to_the_quick(text: &'static str) -> TcpStream {
    let answer: Answer = Arc::new(move |_, _| Either::Left(ready(Response::new(Body::from(text)))));
    connect_to(answer, Duration::from_secs(5), Duration::from_secs(5)).await
}

/// With a closed socket its bytes would be answered by a reset, which takes the answer away.
#[tokio::test]
async fn an_answer_is_heard_by_those_who_are_still_sending() {
    let mut socket = connect_to_the_quick("too large").await;
    let head = "POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 8000000\r\n\r\n";
    socket.write_all(head.as_bytes()).await.unwrap();
    for _ in 0..8 {
        sleep(Duration::from_millis(50)).await;
        socket.write_all(&vec![b'x'; 1_000_000]).await.expect("it is taken");
    }
    let mut answer = String::new();
    socket.read_to_string(&mut answer).await.expect("it is there");
    assert!(answer.contains("connection: close\r\n") && answer.ends_with("too large"), "{answer}");
}

/// Clients that are told in the midst of a body that nobody wants it do not look at the answer.
#[tokio::test]
async fn over_http_2_a_body_may_go_on_after_its_answer() {
    let socket = connect_to_the_quick("no").await;
    let (mut client, connection) = h2::client::handshake(socket).await.unwrap();
    background::spawn(async move { drop(connection.await) });
    let request = Request::post("http://x/").body(()).unwrap();
    let (answer, mut body) = client.send_request(request, false).unwrap();
    let mut answer = answer.await.unwrap().into_body();
    assert_eq!(answer.data().await.unwrap().unwrap(), "no");
    assert!(answer.data().await.is_none() && answer.is_end_stream());
    // What the server had to say of it comes before the answer to another request.
    let mut meet = async || {
        let request = Request::get("http://x/").body(()).unwrap();
        let (answer, _) = client.send_request(request, true).unwrap();
        answer.await.unwrap();
    };
    meet().await;
    assert!(poll_fn(|context| body.poll_reset(context)).now_or_never().is_none());
    body.send_data(Bytes::from_static(b"all of it"), true).unwrap();
    meet().await;
    assert!(poll_fn(|context| body.poll_reset(context)).now_or_never().is_none());
}

#[tokio::test]
async fn after_an_answer_to_a_short_body_the_next_request_is_taken() {
    let mut socket = connect_to_the_quick("hello").await;
    for _ in 0..2 {
        exchange(&mut socket, "POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 3\r\n\r\nabc", "hello").await;
        // It comes later than the answer.
        exchange(&mut socket, "POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 3\r\n\r\n", "hello").await;
        socket.write_all(b"abc").await.unwrap();
    }
}

/// Such bytes are not read until the request before them is answered, and what comes after them is not seen.
#[tokio::test]
async fn a_client_that_goes_is_missed_even_if_it_left_bytes_behind_its_request() {
    let waits = Arc::new(());
    let held = Arc::clone(&waits);
    let answer: Answer = Arc::new(move |_, _| {
        let held = Arc::clone(&held);
        let never = async move {
            std::future::pending::<()>().await;
            drop(held);
            unreachable!()
        };
        Either::Right(never.boxed())
    });
    let mut socket = connect_to(answer, Duration::from_secs(5), Duration::from_secs(5)).await;
    socket.write_all(format!("{ASKING}\r\n").as_bytes()).await.unwrap();
    let until = async |count| {
        while Arc::strong_count(&waits) != count {
            sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(Duration::from_secs(5), until(3)).await.expect("somebody waits");
    sleep(Duration::from_millis(700)).await;
    assert_eq!(Arc::strong_count(&waits), 3, "a look finds it there");
    drop(socket);
    timeout(Duration::from_secs(5), until(2)).await.expect("nobody does");
}

/// What does not fit into the socket at once is still to come when the connection has no more to do.
#[tokio::test]
async fn an_early_answer_is_sent_to_its_end() {
    let text: &'static str = "x".repeat(8_000_000).leak();
    let mut socket = connect_to_the_quick(text).await;
    socket.write_all(b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 10000000\r\n\r\n").await.unwrap();
    sleep(Duration::from_millis(200)).await;
    let mut answer = Vec::new();
    socket.read_to_end(&mut answer).await.expect("it is there");
    assert!(answer.len() > text.len() && answer.ends_with(b"xxx"), "{}", answer.len());
}

#[tokio::test]
async fn whoever_sends_a_head_that_is_too_large_is_told_so() {
    let mut socket = connect_to_the_quick("hello").await;
    socket.write_all(b"GET / HTTP/1.1\r\nx: ").await.unwrap();
    for _ in 0..20 {
        socket.write_all(&[b'y'; 8192]).await.unwrap();
        sleep(Duration::from_millis(20)).await;
    }
    let mut answer = String::new();
    socket.read_to_string(&mut answer).await.expect("it is there");
    assert!(answer.starts_with("HTTP/1.1 431 "), "{answer}");
}

/// Serves answers that never end, and tells by its count who still makes them; gives a connection to it.
async fn connect_to_the_talkative(idle_timeout: Duration) -> (TcpStream, Arc<()>) {
    let talks = Arc::new(());
    let held = Arc::clone(&talks);
    let answer: Answer = Arc::new(move |_, _| {
        let held = Arc::clone(&held);
        let pieces = futures_util::stream::unfold(held, async |held| {
            Some((Ok::<_, std::convert::Infallible>(Bytes::from_static(&[b'x'; 16 * 1024])), held))
        });
        Either::Left(ready(Response::new(Body::from_stream(pieces))))
    });
    (connect_to(answer, Duration::from_secs(5), idle_timeout).await, talks)
}

/// Its connection, and what was made for it, stayed for as long as it liked.
#[tokio::test]
async fn a_client_that_stops_reading_is_not_waited_for() {
    let (mut socket, talks) = connect_to_the_talkative(Duration::from_secs(1)).await;
    socket.write_all(ASKING.as_bytes()).await.unwrap();
    let until = async |count| {
        while Arc::strong_count(&talks) != count {
            sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(Duration::from_secs(5), until(3)).await.expect("somebody talks");
    sleep(Duration::from_millis(500)).await;
    assert_eq!(Arc::strong_count(&talks), 3, "it has a while");
    timeout(Duration::from_secs(5), until(2)).await.expect("nobody does");
    socket.read_to_end(&mut Vec::new()).await.expect_err("it is reset");
}

/// The system takes its time to say that there is room again.
#[tokio::test]
async fn a_client_that_reads_slowly_is_waited_for() {
    let (mut socket, _) = connect_to_the_talkative(Duration::from_millis(500)).await;
    socket.write_all(ASKING.as_bytes()).await.unwrap();
    let mut piece = vec![0; 64 * 1024];
    for _ in 0..60 {
        socket.read_exact(&mut piece).await.expect("it goes on");
        sleep(Duration::from_millis(50)).await;
    }
}

/// It did, as long as its pings were answered.
#[tokio::test]
async fn an_http_2_connection_without_requests_ends_in_time() {
    let answer: Answer = Arc::new(|_, _| {
        let answered = async {
            sleep(Duration::from_millis(2500)).await;
            Response::new(Body::from("hello"))
        };
        Either::Right(answered.boxed())
    });
    let socket = connect_to(answer, Duration::from_secs(5), Duration::from_secs(1)).await;
    let (mut client, connection) = h2::client::handshake(socket).await.unwrap();
    let ended = background::spawn(connection);
    let request = Request::get("http://x/").body(()).unwrap();
    let (answer, _) = client.send_request(request, true).unwrap();
    let mut answer = answer.await.expect("it may take longer").into_body();
    assert_eq!(answer.data().await.unwrap().unwrap(), "hello");
    let began = Instant::now();
    let ended = timeout(Duration::from_secs(5), ended).await.expect("it ends").unwrap();
    ended.expect("it ends in good order");
    let took = began.elapsed();
    assert!(took > Duration::from_millis(900) && took < Duration::from_secs(3), "{took:?}");
}

/// It need not read any less of the connection for that: the socket is never full.
#[tokio::test]
async fn over_http_2_a_client_that_takes_no_more_of_an_answer_is_not_waited_for() {
    let (socket, talks) = connect_to_the_talkative(Duration::from_millis(200)).await;
    let (mut client, connection) = h2::client::handshake(socket).await.unwrap();
    background::spawn(async move { drop(connection.await) });
    let request = Request::get("http://x/").body(()).unwrap();
    let (answer, _) = client.send_request(request, true).unwrap();
    let mut answer = answer.await.unwrap().into_body();
    assert!(answer.data().await.unwrap().is_ok());
    sleep(Duration::from_millis(400)).await;
    assert_eq!(Arc::strong_count(&talks), 3, "it has a while");
    let given_up = async {
        while Arc::strong_count(&talks) == 3 {
            sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(Duration::from_secs(5), given_up).await.expect("nobody talks any more");
    let rest = async {
        while let Some(Ok(piece)) = answer.data().await {
            answer.flow_control().release_capacity(piece.len()).unwrap();
        }
    };
    timeout(Duration::from_secs(5), rest).await.expect("it breaks off");
}
