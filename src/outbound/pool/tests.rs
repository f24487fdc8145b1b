//! Connections against servers that close, break off, refuse and fall silent.

use std::collections::HashSet;
use std::convert::Infallible;
use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures_util::StreamExt as _;
use futures_util::future::join_all;
use http_body_util::BodyExt as _;
use hyper::server::conn as server;
use hyper::service::service_fn;
use hyper_util::rt::TokioExecutor;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::sync::{Notify, mpsc};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::{ClientConfig, RootCertStore, ServerConfig, crypto};

use super::shared::{MOST_AT_ONCE, PING};
use super::*;
use crate::outbound::{Untaken, with_tls};

/// A server that answers each request with the next of `answers`, thinks about one that begins with `~`, and closes a connection
/// after one that ends in `|`. Tells the number of each connection that a request came over.
async fn server(answers: &'static [&'static str]) -> (String, mpsc::UnboundedReceiver<usize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}", listener.local_addr().unwrap());
    let (tell, told) = mpsc::unbounded_channel();
    background::spawn(async move {
        let mut answers = answers.iter();
        for number in 0.. {
            let (mut socket, _) = listener.accept().await.unwrap();
            let mut closes = false;
            while !closes {
                let mut request = Vec::new();
                while !request.ends_with(b"\r\n\r\n") {
                    if socket.read_buf(&mut request).await.unwrap_or(0) == 0 {
                        break;
                    }
                }
                if request.is_empty() {
                    break;
                }
                let Some(answer) = answers.next() else { return };
                tell.send(number).unwrap();
                closes = answer.ends_with('|');
                if answer.starts_with('~') {
                    tokio::time::sleep(TIME * 4).await;
                }
                let _ = socket.write_all(answer.trim_matches(['~', '|']).as_bytes()).await;
            }
        }
    });
    (base, told)
}

/// How long an answer may take.
const TIME: Duration = Duration::from_millis(50);
/// How long a connection may take.
const PATIENCE: Duration = Duration::from_secs(5);

fn pools() -> Pools {
    Pools::new(with_tls(HttpConnector::new()), PATIENCE, Duration::from_secs(5))
}

async fn send(pools: &Pools, url: &str) -> Result<Response<Body>, Error> {
    send_within(pools, url, None).await
}

async fn send_within(pools: &Pools, url: &str, time: Option<Duration>) -> Result<Response<Body>, Error> {
    let request = Request::get(url).body(Body::empty()).unwrap();
    let host = Destination::of(request.uri()).unwrap();
    let now = Instant::now();
    pools.send(&host, request, Deadline { sent: now, until: time.map(|time| now + time) }).await
}

async fn get(pools: &Pools, url: &str) -> Result<String, String> {
    let answer = send(pools, url).await.map_err(|error| crate::outbound::reasons(&error))?;
    let body = answer.into_body().collect().await.map_err(|error| error.to_string())?;
    Ok(String::from_utf8_lossy(&body.to_bytes()).into_owned())
}

const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

#[tokio::test]
async fn a_connection_serves_again() {
    const CHUNKS: &str = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n";
    const EMPTY: &str = "HTTP/1.1 204 No Content\r\n\r\n";
    let (base, mut told) = server(&[OK, CHUNKS, EMPTY, TRAILING, OK]).await;
    let pools = pools();
    for expected in ["ok", "ok", "", "ok", "ok"] {
        assert_eq!(get(&pools, &base).await.unwrap(), expected);
        assert_eq!(told.recv().await, Some(0));
    }
}

const TRAILING: &str =
    "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nx-sum: 1\r\n\r\n";

/// As servers do after trailers: nothing can come after them.
#[tokio::test]
async fn a_connection_serves_again_though_nobody_asks_for_the_end_of_its_answer() {
    let (base, mut told) = server(&[TRAILING, TRAILING, OK]).await;
    let pools = pools();
    let mut body = send(&pools, &base).await.unwrap().into_body();
    while !body.frame().await.unwrap().unwrap().is_trailers() {}
    drop(body);
    let unread = send(&pools, &base).await.unwrap();
    tokio::time::sleep(TIME).await; // all of it comes meanwhile
    drop(unread);
    assert_eq!(get(&pools, &base).await.unwrap(), "ok");
    assert_eq!([told.recv().await, told.recv().await, told.recv().await], [Some(0); 3]);
}

/// A request that found its connection closed once waited for an answer for ever, and then was sent on without its
/// host.
#[tokio::test]
async fn a_connection_that_was_closed_meanwhile_gives_way_to_another() {
    const CLOSING: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok|";
    let (base, mut told) = server(&[CLOSING, CLOSING, CLOSING]).await;
    let pools = pools();
    for number in 0..3 {
        assert_eq!(get(&pools, &base).await.unwrap(), "ok");
        assert_eq!(told.recv().await, Some(number));
        // Until the end of the connection has come, which nobody waits for.
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// It may have been closed before the request came, or because of it: who sends it again must know.
#[tokio::test]
async fn a_kept_connection_that_is_closed_in_place_of_an_answer_is_told_from_a_new_one() {
    let (base, _told) = server(&[OK, "|", "|"]).await;
    let pools = pools();
    assert_eq!(get(&pools, &base).await.unwrap(), "ok");
    assert!(matches!(send(&pools, &base).await, Err(Error::Stale(_))));
    assert!(matches!(send(&pools, &base).await, Err(Error::Exchange(_))));
}

/// On a connection that was kept for as long as an answer may take, and on a new one.
#[tokio::test]
async fn an_answer_that_does_not_come_in_time_is_given_up_with_its_connection() {
    let (base, mut told) = server(&[OK, OK, "", "", OK]).await;
    let pools = pools();
    for _ in 0..2 {
        let answer = send_within(&pools, &base, Some(TIME)).await.unwrap();
        assert_eq!(answer.into_body().collect().await.unwrap().to_bytes(), "ok");
        assert_eq!(told.recv().await, Some(0));
        tokio::time::sleep(TIME * 2).await;
    }
    for number in 0..2 {
        let began = Instant::now();
        assert!(matches!(send_within(&pools, &base, Some(TIME)).await, Err(Error::Late)));
        assert!(began.elapsed() >= TIME);
        assert_eq!((told.recv().await, kept(&pools)), (Some(number), 0));
    }
    assert_eq!(get(&pools, &base).await.unwrap(), "ok");
}

/// The alarm of the request before rings meanwhile.
#[tokio::test]
async fn who_has_all_the_time_is_not_given_up_over_a_connection_on_which_another_had_not() {
    const SLOW: &str = "~HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
    let (base, mut told) = server(&[OK, OK, SLOW]).await;
    let pools = pools();
    // The first opens the connection, and the second sets its alarm.
    for _ in 0..2 {
        let answer = send_within(&pools, &base, Some(TIME)).await.unwrap();
        answer.into_body().collect().await.unwrap();
    }
    assert_eq!(get(&pools, &base).await.unwrap(), "ok");
    assert_eq!([told.recv().await, told.recv().await, told.recv().await], [Some(0); 3]);
}

/// On a new connection, and on one that others use.
#[tokio::test]
async fn an_answer_that_does_not_come_in_time_is_given_up_over_http_2_as_well() {
    let base = secure_server(Arc::new(Notify::new()), 100).await;
    let pools = trusting(PING, PATIENCE);
    let slow = format!("{base}/slow");
    for _ in 0..2 {
        let began = Instant::now();
        assert!(matches!(send_within(&pools, &slow, Some(TIME)).await, Err(Error::Late)));
        assert!(began.elapsed() >= TIME);
    }
    assert_eq!(get(&pools, &slow).await.unwrap(), "0");
}

#[tokio::test]
async fn a_body_that_breaks_off_ends_its_connection_and_says_so() {
    let (base, mut told) = server(&["HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nok|", OK]).await;
    let pools = pools();
    assert!(get(&pools, &base).await.is_err());
    assert_eq!(get(&pools, &base).await.unwrap(), "ok");
    assert_eq!((told.recv().await, told.recv().await), (Some(0), Some(1)));
}

#[tokio::test]
async fn a_connection_that_nobody_uses_is_closed() {
    let (base, _told) = server(&[OK]).await;
    let pools = Pools::new(with_tls(HttpConnector::new()), PATIENCE, Duration::from_millis(100));
    get(&pools, &base).await.unwrap();
    assert_eq!(kept(&pools), 1);
    until(|| kept(&pools) == 0).await;
}

/// Connections that are kept for the next request.
fn kept(pools: &Pools) -> usize {
    let of_lane = |lane: &Arc<Lane>| -> usize {
        lane.state().hosts.values().map(|kept| kept.idle.len() + kept.shared.len()).sum()
    };
    pools.lanes.iter().map(of_lane).sum()
}

/// Waits for something that comes by itself.
async fn until(is_so: impl Fn() -> bool) {
    let come = async {
        while !is_so() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(Duration::from_secs(5), come).await.expect("it comes");
}

/// What a server needs to speak HTTP/2 over TLS.
fn acceptor() -> TlsAcceptor {
    acceptor_of("h2")
}

/// The same for `protocol`.
fn acceptor_of(protocol: &str) -> TlsAcceptor {
    let file = |name| format!("{}/tests/tls/{name}", env!("CARGO_MANIFEST_DIR"));
    let mut config = ServerConfig::builder_with_provider(Arc::new(crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(
            vec![CertificateDer::from_pem_file(file("one-cert.pem")).unwrap()],
            PrivateKeyDer::from_pem_file(file("one-key.pem")).unwrap(),
        )
        .unwrap();
    config.alpn_protocols = vec![protocol.as_bytes().to_vec()];
    TlsAcceptor::from(Arc::new(config))
}

/// A server with TLS that speaks HTTP/2, allows so many requests on a connection, answers with the connection's number, and
/// falls silent on all that are open when it is told to.
async fn secure_server(silent: Arc<Notify>, allowed: u32) -> String {
    let acceptor = acceptor();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("https://localhost:{}", listener.local_addr().unwrap().port());
    background::spawn(async move {
        for number in 0.. {
            let (socket, _) = listener.accept().await.unwrap();
            let (acceptor, silent) = (acceptor.clone(), Arc::clone(&silent));
            background::spawn(async move {
                let stream = TokioIo::new(acceptor.accept(socket).await.unwrap());
                let answer = move |request: Request<Incoming>| async move {
                    let pause = if request.uri().path() == "/slow" { 300 } else { 20 };
                    tokio::time::sleep(Duration::from_millis(pause)).await;
                    let is_large = request.uri().path() == "/large";
                    let text = if is_large { "x".repeat(1 << 20) } else { number.to_string() };
                    Ok::<_, Infallible>(Response::new(text))
                };
                let mut connection = pin!(
                    server::http2::Builder::new(TokioExecutor::new())
                        .max_concurrent_streams(allowed)
                        .serve_connection(stream, service_fn(answer))
                );
                tokio::select! {
                    _ = &mut connection => {}
                    () = silent.notified() => std::future::pending().await,
                }
            });
        }
    });
    base
}

/// Pools that trust that server.
fn trusting(ping: Duration, idle_timeout: Duration) -> Pools {
    let mut roots = RootCertStore::empty();
    let cert = format!("{}/tests/tls/one-cert.pem", env!("CARGO_MANIFEST_DIR"));
    roots.add(CertificateDer::from_pem_file(cert).unwrap()).unwrap();
    let config = ClientConfig::builder_with_provider(Arc::new(crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let mut tcp = HttpConnector::new();
    tcp.enforce_http(false);
    let tls = hyper_rustls::HttpsConnectorBuilder::new().with_tls_config(config);
    let connector = tls.https_or_http().enable_all_versions().wrap_connector(tcp);
    Pools { ping, ..Pools::new(connector, PATIENCE, idle_timeout) }
}

#[tokio::test]
async fn http_2_has_many_requests_on_one_connection() {
    let base = secure_server(Arc::default(), 200).await;
    let pools = trusting(PING, Duration::from_millis(300));
    assert_eq!(get(&pools, &base).await.unwrap(), "0");
    let many = join_all((0..50).map(|_| get(&pools, &base))).await;
    assert!(many.iter().all(|answer| answer.as_deref() == Ok("0")), "{many:?}");
    // It was once kept for good.
    until(|| kept(&pools) == 0).await;
    assert_eq!(get(&pools, &base).await.unwrap(), "1");
}

/// Each of them once kept a connection of its own.
#[tokio::test]
async fn many_requests_at_once_keep_one_connection() {
    let base = secure_server(Arc::default(), 200).await;
    let pools = trusting(PING, Duration::from_mins(1));
    let at_once = async || {
        let many = join_all((0..20).map(|_| get(&pools, &base))).await;
        many.into_iter().map(Result::unwrap).collect::<HashSet<_>>().len()
    };
    at_once().await; // nobody knows yet that the server speaks HTTP/2
    assert_eq!(kept(&pools), 1);
    for lane in pools.lanes.iter() {
        lane.state().hosts.values_mut().for_each(|kept| kept.shared.clear());
    }
    assert_eq!((at_once().await, kept(&pools)), (1, 1), "the second to come waits for the first one's");
}

/// Requests that take long once kept all others waiting when a server allowed no more of them on a connection.
#[tokio::test]
async fn more_requests_than_a_connection_should_have_go_over_another() {
    let base = secure_server(Arc::default(), 200).await;
    let pools = trusting(PING, Duration::from_secs(5));
    assert_eq!(get(&pools, &base).await.unwrap(), "0");
    let slow = format!("{base}/slow");
    let many = join_all((0..=MOST_AT_ONCE).map(|_| get(&pools, &slow))).await;
    let count = |number| many.iter().filter(|answer| answer.as_deref() == Ok(number)).count();
    assert_eq!((count("0"), count("1")), (MOST_AT_ONCE, 1), "{many:?}");
    assert_eq!(get(&pools, &base).await.unwrap(), "0");
}

#[tokio::test]
async fn a_server_that_allows_fewer_has_fewer() {
    let base = secure_server(Arc::default(), 3).await;
    let pools = trusting(PING, Duration::from_secs(5));
    assert_eq!(get(&pools, &base).await.unwrap(), "0");
    // It has said so by then, and the connection has noticed with the request.
    assert_eq!(get(&pools, &base).await.unwrap(), "0");
    let slow = format!("{base}/slow");
    let many = join_all((0..6).map(|_| get(&pools, &slow))).await;
    let count = |number| many.iter().filter(|answer| answer.as_deref() == Ok(number)).count();
    assert_eq!((count("0"), count("1")), (3, 3), "{many:?}");
}

/// What waited behind a handshake that never ends once was given up as if it might have been done.
#[tokio::test]
async fn a_handshake_that_does_not_end_is_no_connection() {
    const SOON: Duration = Duration::from_millis(500);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("https://localhost:{}", listener.local_addr().unwrap().port());
    background::spawn(async move {
        let mut silent = Vec::new();
        while let Ok((socket, _)) = listener.accept().await {
            silent.push(socket);
        }
    });
    let pools = Pools { connect_timeout: SOON, ..trusting(PING, Duration::from_secs(5)) };
    let host = Destination::of(&base.parse().unwrap()).unwrap();
    let kept = Kept { opening: Some(Arc::default()), ..Kept::default() }; // it has spoken HTTP/2 before
    pools.lanes.here().state().hosts.insert(host, kept);
    let began = Instant::now();
    let many = join_all((0..10).map(|_| send(&pools, &base))).await;
    assert!(many.iter().all(|answer| matches!(answer, Err(Error::Connect(_)))), "{}", many.len());
    // One waited for itself, the others for it and then for themselves.
    assert!(began.elapsed() < SOON * 5, "{:?}", began.elapsed());
}

/// Over TLS, and without a word of goodbye, as many servers do it.
#[tokio::test]
async fn a_kept_connection_that_is_torn_down_is_stale_over_tls_and_http_2_too() {
    for protocol in ["http/1.1", "h2"] {
        let gone = Arc::new(Notify::new());
        let (base, told) = tearing_server(protocol, Arc::clone(&gone)).await;
        let pools = trusting(PING, Duration::from_secs(5));
        assert_eq!(get(&pools, &base).await.unwrap(), "ok", "{protocol}");
        let second = send(&pools, &base).await.err();
        assert!(matches!(second, Some(Error::Stale(_))), "{protocol}: {second:?}");
        assert_eq!((get(&pools, &base).await.unwrap(), told.load(Ordering::Relaxed)), ("ok".to_owned(), 2));
    }
}

/// A server with TLS whose connections answer one request and are torn down at the second; tells how many there were.
async fn tearing_server(protocol: &'static str, gone: Arc<Notify>) -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("https://localhost:{}", listener.local_addr().unwrap().port());
    let told = Arc::new(AtomicUsize::new(0));
    let tell = Arc::clone(&told);
    background::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            tell.fetch_add(1, Ordering::Relaxed);
            let stream = TokioIo::new(acceptor_of(protocol).accept(socket).await.unwrap());
            let (gone, count) = (Arc::clone(&gone), Arc::new(AtomicUsize::new(0)));
            let hear = Arc::clone(&gone);
            let answer = move |_: Request<Incoming>| {
                let is_first = count.fetch_add(1, Ordering::Relaxed) == 0;
                let gone = Arc::clone(&gone);
                async move {
                    if !is_first {
                        gone.notify_one();
                        std::future::pending::<()>().await;
                    }
                    Ok::<_, Infallible>(Response::new("ok".to_owned()))
                }
            };
            let answer = service_fn(answer);
            background::spawn(async move {
                let http2 = server::http2::Builder::new(TokioExecutor::new());
                let http1 = server::http1::Builder::new();
                tokio::select! {
                    () = hear.notified() => {} // all of it is dropped, and nothing is said
                    _ = async {
                        if protocol == "h2" {
                            http2.serve_connection(stream, answer).await
                        } else {
                            http1.serve_connection(stream, answer).await
                        }
                    } => {}
                }
            });
        }
    });
    (base, told)
}

/// The windows of a few slow readers once took up that of the connection.
#[tokio::test]
async fn slow_readers_hold_up_nobody_else() {
    let base = secure_server(Arc::default(), 200).await;
    let pools = trusting(PING, Duration::from_secs(5));
    assert_eq!(get(&pools, &base).await.unwrap(), "0");
    let mut unread = Vec::new();
    for _ in 0..20 {
        unread.push(send(&pools, &format!("{base}/large")).await.unwrap());
    }
    let answer = timeout(Duration::from_secs(5), get(&pools, &base)).await;
    assert_eq!(answer.expect("it comes").unwrap(), "0");
    let whole = unread.pop().unwrap().into_body().collect().await.unwrap();
    assert_eq!(whole.to_bytes().len(), 1 << 20);
}

/// A connection of which nothing came any more was once given to each new request, which waited in vain.
#[tokio::test]
async fn a_connection_that_falls_silent_gives_way_to_another() {
    let silent = Arc::new(Notify::new());
    let base = secure_server(Arc::clone(&silent), 200).await;
    let pools = trusting(Duration::from_millis(100), Duration::from_mins(1));
    assert_eq!(get(&pools, &base).await.unwrap(), "0");
    silent.notify_waiters();
    let vain = timeout(Duration::from_secs(5), get(&pools, &base)).await;
    assert!(vain.expect("it is given up").is_err());
    assert_eq!(get(&pools, &base).await.unwrap(), "1");
}

/// A server that answers the first request with these frames of HTTP/2, and then closes the connection.
async fn server_of_frames(frames: &'static [&'static [u8]]) -> String {
    /// A frame without a body.
    const SETTINGS: [u8; 9] = [0, 0, 0, 4, 0, 0, 0, 0, 0];
    const HEADERS: u8 = 1;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("https://localhost:{}", listener.local_addr().unwrap().port());
    background::spawn(async move {
        let (socket, _) = listener.accept().await.unwrap();
        let mut stream = acceptor().accept(socket).await.unwrap();
        stream.write_all(&SETTINGS).await.unwrap();
        stream.read_exact(&mut [0; 24]).await.unwrap(); // the preface
        let mut head = [0; 9];
        while head[3] != HEADERS {
            stream.read_exact(&mut head).await.unwrap();
            let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
            stream.read_exact(&mut vec![0; usize::try_from(length).unwrap()]).await.unwrap();
        }
        stream.write_all(&frames.concat()).await.unwrap();
        stream.shutdown().await.unwrap();
        let _ = stream.read_to_end(&mut Vec::new()).await;
    });
    base
}

/// Servers end a connection after so many requests, and requests that were on their way by then once counted as perhaps
/// done.
#[tokio::test]
async fn what_a_server_has_not_looked_at_is_known() {
    /// The last stream that was looked at is none, or the request's; and a reason.
    const NOTHING: &[u8] = &[0, 0, 8, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    const REQUEST: &[u8] = &[0, 0, 8, 7, 0, 0, 0, 0, 0, 0, 0, 0, 1];
    /// The request's stream is reset, for a reason.
    const RESET: &[u8] = &[0, 0, 4, 3, 0, 0, 0, 0, 1];
    const NO_ERROR: &[u8] = &[0, 0, 0, 0];
    const REFUSED_STREAM: &[u8] = &[0, 0, 0, 7];
    const CANCEL: &[u8] = &[0, 0, 0, 8];
    const ENHANCE_YOUR_CALM: &[u8] = &[0, 0, 0, 11];
    let untaken = async |frames: &'static [&'static [u8]]| {
        let base = server_of_frames(frames).await;
        let pools = trusting(PING, Duration::from_secs(5));
        match send(&pools, &base).await.err() {
            Some(Error::Untaken { why, .. }) => Some(why),
            Some(Error::Exchange(_)) => None,
            other => panic!("{frames:?}: {other:?}"),
        }
    };
    assert_eq!(untaken(&[NOTHING, NO_ERROR]).await, Some(Untaken::Closing));
    assert_eq!(untaken(&[NOTHING, ENHANCE_YOUR_CALM]).await, Some(Untaken::Trouble));
    assert_eq!(untaken(&[RESET, REFUSED_STREAM]).await, Some(Untaken::Busy));
    assert_eq!(untaken(&[RESET, CANCEL]).await, None);
    assert_eq!(untaken(&[REQUEST, NO_ERROR]).await, None, "it was looked at, and is then not answered");
    assert_eq!(untaken(&[]).await, None);
}

/// To hyper such an answer is whole.
#[tokio::test]
async fn an_answer_of_which_the_stream_is_closed_without_an_error_breaks_off() {
    const HEAD: &[u8] = &[0, 0, 1, 1, 4, 0, 0, 0, 1, 0x88]; // 200
    const HALF: &[u8] = b"\0\0\x04\0\0\0\0\0\x01half";
    const WHOLE: &[u8] = b"\0\0\x04\0\x01\0\0\0\x01half";
    const RESET: &[u8] = &[0, 0, 4, 3, 0, 0, 0, 0, 1, 0, 0, 0, 0];
    let body = async |frames: &'static [&'static [u8]]| {
        let base = server_of_frames(frames).await;
        get(&trusting(PING, PATIENCE), &base).await
    };
    assert_eq!(body(&[HEAD, WHOLE, RESET]).await.as_deref(), Ok("half"));
    let broken = body(&[HEAD, HALF, RESET]).await.unwrap_err();
    assert!(broken.contains("in the midst of the answer"), "{broken}");
}

/// Writing fails then before anybody has read.
#[tokio::test]
async fn an_answer_in_the_midst_of_a_body_is_heard_though_the_server_hangs_up() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}", listener.local_addr().unwrap());
    background::spawn(async move {
        loop {
            let (mut socket, _) = listener.accept().await.unwrap();
            socket.read_exact(&mut [0; 1000]).await.unwrap();
            let answer =
                b"HTTP/1.1 413 Content Too Large\r\ncontent-length: 2\r\nconnection: close\r\n\r\nno";
            socket.write_all(answer).await.unwrap();
        }
    });
    let pools = pools();
    for _ in 0..10 {
        let pieces = futures_util::stream::iter(0..64).then(async |_| {
            tokio::task::yield_now().await;
            Ok::<_, Infallible>(Bytes::from(vec![0; 64 * 1024]))
        });
        let request = Request::post(&base).body(Body::from_stream(pieces)).unwrap();
        let host = Destination::of(request.uri()).unwrap();
        let answer =
            pools.send(&host, request, Deadline { sent: Instant::now(), until: None }).await.unwrap();
        assert_eq!(answer.status(), 413);
        assert_eq!(answer.into_body().collect().await.unwrap().to_bytes(), "no");
    }
}
