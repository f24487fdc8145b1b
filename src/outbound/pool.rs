//! Connections that are opened when needed and kept for the next request.
//!
//! A connection belongs to whoever uses it: the future that waits for an answer, and then the answer's body, drive it, and
//! put it back when all has been read. So nothing has to be handed from task to task, and a request that is given up ends
//! its connection with it. HTTP/2, which carries many requests at once, has a task of its own. Each lane has its own
//! connections, since a socket is best used where it is waited for.

use std::collections::HashMap;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use http::header::HOST;
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderValue, Request, Response, Uri};
use http_body::{Body as _, Frame, SizeHint};
use hyper::body::Incoming;
use hyper::client::conn::{TrySendError, http1, http2};
use hyper_rustls::{HttpsConnector, MaybeHttpsStream};
use hyper_util::client::legacy::connect::{Connection as _, HttpConnector};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::net::TcpStream;
use tokio::task::coop::unconstrained;
use tokio::time::Instant;
use tower::{Service as _, ServiceExt as _};

use super::Error;
use crate::background;

/// How often it is asked whether the other end of a connection for many requests is still there, and how long it may take
/// to say so. Whatever has taken it away on the way tells nobody, and each request would wait for its answer in vain.
const PING: Duration = Duration::from_secs(15);

/// A pool for each lane, and one for all others.
pub(super) struct Pools {
    connector: HttpsConnector<HttpConnector>,
    ping: Duration,
    lanes: Box<[Arc<Lane>]>,
}

/// The pool of one lane.
struct Lane {
    idle_timeout: Duration,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    hosts: HashMap<Host, Kept, ahash::RandomState>,
    /// Somebody is going to look after those that are kept for too long.
    is_swept: bool,
}

/// Who is at the other end.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Host(Scheme, Authority);

/// Connections to a host that nobody uses.
#[derive(Default)]
struct Kept {
    /// The one that was used last is the last.
    idle: Vec<(Link, Instant)>,
    /// One that many can use, and when it was used last.
    shared: Option<(http2::SendRequest<Body>, Instant)>,
}

type Stream = MaybeHttpsStream<TokioIo<TcpStream>>;

/// A connection for one request at a time, with both of its ends.
struct Link {
    sender: http1::SendRequest<Body>,
    connection: Connection,
}

/// What moves the bytes; nothing once it is over. What waits in it for its turn is given back when it goes.
struct Connection(Option<Box<http1::Connection<Stream, Body>>>);

impl Connection {
    /// Moves what can be moved.
    fn drive(&mut self, context: &mut Context<'_>) {
        if let Some(connection) = &mut self.0
            && Pin::new(&mut **connection).poll(context).is_ready()
        {
            self.0 = None;
        }
    }
}

/// Why there is no answer, and the request where it has not been sent.
type Unsent = TrySendError<Request<Body>>;

impl Pools {
    pub(super) fn new(connector: HttpsConnector<HttpConnector>, idle_timeout: Duration) -> Self {
        let lane = |_| Arc::new(Lane { idle_timeout, state: Mutex::default() });
        Self { connector, ping: PING, lanes: (0..=background::cores()).map(lane).collect() }
    }

    /// Sends `request` and waits for the head of the answer.
    pub(super) async fn send(&self, mut request: Request<Body>) -> Result<Response<Body>, Error> {
        let uri = request.uri().clone();
        let host = Host::of(&uri).ok_or(Error::NoHost)?;
        let lane = &self.lanes[background::lane() % self.lanes.len()];
        if let Some(sender) = lane.shared(&host) {
            match over_shared(sender, request).await {
                Err(unsent) => request = given_back(unsent)?,
                Ok(answer) => return Ok(answer),
            }
        }
        while let Some(link) = lane.take(&host) {
            match over_link(link, request, lane, &host).await {
                Err(unsent) => request = given_back(unsent)?, // the other end had closed it
                Ok(answer) => return Ok(answer),
            }
        }
        *request.uri_mut() = uri.clone(); // on its way it may have become one of the path alone
        let answer = match Box::pin(self.connect(uri)).await? {
            Fresh::Link(link) => over_link(link, request, lane, &host).await,
            Fresh::Shared(sender) => {
                lane.share(&host, sender.clone());
                over_shared(sender, request).await
            }
        };
        answer.map_err(|unsent| unsent.into_error().into())
    }

    async fn connect(&self, uri: Uri) -> Result<Fresh, Error> {
        let mut connector = self.connector.clone();
        let stream =
            connector.ready().await.map_err(Error::Connect)?.call(uri).await.map_err(Error::Connect)?;
        if stream.connected().is_negotiated_h2() {
            let mut builder = http2::Builder::new(TokioExecutor::new());
            builder.timer(TokioTimer::new()).keep_alive_interval(self.ping).keep_alive_timeout(self.ping);
            let (sender, connection) = builder.keep_alive_while_idle(true).handshake(stream).await?;
            // It ends when no sender is left, or the other end closes it.
            background::spawn(async move {
                if let Err(error) = connection.await {
                    tracing::debug!("upstream connection: {error}");
                }
            });
            return Ok(Fresh::Shared(sender));
        }
        let (sender, connection) = http1::handshake(stream).await?;
        Ok(Fresh::Link(Link { sender, connection: Connection(Some(Box::new(connection))) }))
    }
}

/// A connection that was opened just now.
enum Fresh {
    Link(Link),
    Shared(http2::SendRequest<Body>),
}

/// The request, if it can be sent once more.
fn given_back(mut unsent: Unsent) -> Result<Request<Body>, Error> {
    unsent.take_message().ok_or_else(|| unsent.into_error().into())
}

impl Host {
    fn of(uri: &Uri) -> Option<Self> {
        Some(Self(uri.scheme()?.clone(), uri.authority()?.clone()))
    }

    /// As a request's head spells it: without a port that goes without saying.
    fn header(&self) -> Option<HeaderValue> {
        let Self(scheme, authority) = self;
        let usual = if *scheme == Scheme::HTTPS { 443 } else { 80 };
        let text = if authority.port_u16() == Some(usual) { authority.host() } else { authority.as_str() };
        HeaderValue::from_str(text).ok()
    }
}

/// Sends `request` over a connection that others use, too.
async fn over_shared(
    mut sender: http2::SendRequest<Body>,
    request: Request<Body>,
) -> Result<Response<Body>, Unsent> {
    Ok(sender.try_send_request(request).await?.map(Body::new))
}

/// Sends `request` over `link`; the answer's body gives it back to `lane`.
async fn over_link(
    mut link: Link,
    mut request: Request<Body>,
    lane: &Arc<Lane>,
    host: &Host,
) -> Result<Response<Body>, Unsent> {
    if !request.headers().contains_key(HOST)
        && let Some(name) = host.header()
    {
        request.headers_mut().insert(HOST, name);
    }
    let path = request.uri().path_and_query().cloned();
    *request.uri_mut() = path.unwrap_or_else(|| PathAndQuery::from_static("/")).into();
    let answer = link.exchange(request).await?;
    Ok(answer.map(|incoming| {
        if incoming.is_end_stream() {
            lane.put(host, link);
            return Body::empty();
        }
        Body::new(Answer {
            incoming,
            link: Some(link),
            broken: None,
            lane: Arc::downgrade(lane),
            host: host.clone(),
        })
    }))
}

impl Link {
    /// Sends `request` and waits for the head of its answer.
    async fn exchange(&mut self, request: Request<Body>) -> Result<Response<Incoming>, Unsent> {
        let Self { sender, connection } = self;
        // Whatever comes out at this end has been put in by the connection, which has the waker; and as it has none, it must
        // not be told to wait for the sake of others.
        let mut answer = pin!(unconstrained(sender.try_send_request(request)));
        poll_fn(|context| {
            connection.drive(context);
            answer.as_mut().poll(&mut Context::from_waker(Waker::noop()))
        })
        .await
    }

    /// Whether another request can be sent.
    fn is_ready(&mut self) -> bool {
        if !self.sender.is_ready() {
            // It may have something left to do, such as to see that all has been read.
            self.connection.drive(&mut Context::from_waker(Waker::noop()));
        }
        self.sender.is_ready()
    }
}

/// The body of an answer, and the connection that it comes over.
struct Answer {
    incoming: Incoming,
    /// Until all of it has come.
    link: Option<Link>,
    /// Why there is no more of it.
    broken: Option<hyper::Error>,
    lane: Weak<Lane>,
    host: Host,
}

impl Answer {
    fn come(&mut self) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        // Nobody has to be woken: what comes is put in by the connection, which is polled below.
        Pin::new(&mut self.incoming).poll_frame(&mut Context::from_waker(Waker::noop()))
    }

    /// All has come: the connection is free.
    fn give_back(&mut self) {
        if let (Some(link), Some(lane)) = (self.link.take(), self.lane.upgrade()) {
            lane.put(&self.host, link);
        }
    }
}

impl http_body::Body for Answer {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        if let Some(error) = self.broken.take() {
            return Poll::Ready(Some(Err(error)));
        }
        let mut polled = self.come();
        if polled.is_pending()
            && let Some(link) = &mut self.link
        {
            link.connection.drive(context);
            polled = self.come();
        }
        match polled {
            Poll::Ready(Some(Err(error))) => {
                // What came before it may have come just now, and is to be passed on first.
                self.link = None;
                self.broken = Some(error);
                context.waker().wake_by_ref();
                return Poll::Pending;
            }
            Poll::Ready(None) => self.give_back(),
            Poll::Ready(Some(Ok(_))) if self.incoming.is_end_stream() => self.give_back(),
            _ => {}
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}

impl Drop for Answer {
    /// Who does not care for a body need not lose the connection, where all of it is here already.
    fn drop(&mut self) {
        let Some(link) = &mut self.link else { return };
        link.connection.drive(&mut Context::from_waker(Waker::noop()));
        while matches!(self.come(), Poll::Ready(Some(Ok(_)))) {}
        if self.incoming.is_end_stream() {
            self.give_back();
        }
    }
}

impl Lane {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The connection to `host` that was used last.
    fn take(&self, host: &Host) -> Option<Link> {
        self.state().hosts.get_mut(host)?.idle.pop().map(|(link, _)| link)
    }

    /// Keeps `link` for the next request, if it can take one.
    fn put(self: &Arc<Self>, host: &Host, mut link: Link) {
        if !link.is_ready() {
            return;
        }
        let mut state = self.state();
        if !state.hosts.contains_key(host) {
            state.hosts.insert(host.clone(), Kept::default());
        }
        if let Some(kept) = state.hosts.get_mut(host) {
            kept.idle.push((link, Instant::now()));
        }
        self.have_swept(&mut state);
    }

    fn shared(&self, host: &Host) -> Option<http2::SendRequest<Body>> {
        let mut state = self.state();
        let shared = &mut state.hosts.get_mut(host)?.shared;
        shared.take_if(|(sender, _)| sender.is_closed());
        let (sender, used) = shared.as_mut()?;
        *used = Instant::now();
        Some(sender.clone())
    }

    fn share(self: &Arc<Self>, host: &Host, sender: http2::SendRequest<Body>) {
        let mut state = self.state();
        state.hosts.entry(host.clone()).or_default().shared = Some((sender, Instant::now()));
        self.have_swept(&mut state);
    }

    /// Sees to it that what is kept is not kept for ever.
    fn have_swept(self: &Arc<Self>, state: &mut State) {
        if !std::mem::replace(&mut state.is_swept, true) {
            background::spawn(sweep(Arc::downgrade(self), self.idle_timeout));
        }
    }

    /// Closes connections that were kept for too long; gives those that remain. One for many requests ends when the last of
    /// them has its answer.
    fn sweep(&self) -> usize {
        let now = Instant::now();
        let mut state = self.state();
        let mut old = Vec::new();
        let is_old = |since: &Instant| now.duration_since(*since) >= self.idle_timeout;
        state.hosts.retain(|_, kept| {
            let fresh = kept.idle.partition_point(|(_, since)| is_old(since));
            old.extend(kept.idle.drain(..fresh));
            kept.shared.take_if(|(sender, used)| sender.is_closed() || is_old(used));
            !kept.idle.is_empty() || kept.shared.is_some()
        });
        let left =
            state.hosts.values().map(|kept| kept.idle.len() + usize::from(kept.shared.is_some())).sum();
        state.is_swept = left > 0;
        drop(state);
        // Closing takes a while, and nobody has to wait for it.
        drop(old);
        left
    }
}

/// Sweeps a pool until nothing is left in it.
async fn sweep(lane: Weak<Lane>, idle_timeout: Duration) {
    let pause = (idle_timeout / 4).max(Duration::from_millis(10));
    loop {
        tokio::time::sleep(pause).await;
        let Some(lane) = lane.upgrade() else { return };
        if lane.sweep() == 0 {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use http_body_util::BodyExt as _;
    use hyper::server::conn as server;
    use hyper::service::service_fn;
    use rustls_pki_types::pem::PemObject as _;
    use rustls_pki_types::{CertificateDer, PrivateKeyDer};
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;
    use tokio::sync::{Notify, mpsc};
    use tokio_rustls::TlsAcceptor;
    use tokio_rustls::rustls::{ClientConfig, RootCertStore, ServerConfig, crypto};

    use super::*;
    use crate::outbound::with_tls;

    /// A server that answers each request with the next of `answers`, and closes a connection after one that ends in `|`.
    /// Tells the number of each connection that a request came over.
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
                    socket.write_all(answer.trim_end_matches('|').as_bytes()).await.unwrap();
                }
            }
        });
        (base, told)
    }

    fn pools() -> Pools {
        Pools::new(with_tls(HttpConnector::new()), Duration::from_secs(5))
    }

    async fn get(pools: &Pools, url: &str) -> Result<String, String> {
        let request = Request::get(url).body(Body::empty()).unwrap();
        let answer = pools.send(request).await.map_err(|error| crate::outbound::reasons(&error))?;
        let body = answer.into_body().collect().await.map_err(|error| error.to_string())?;
        Ok(String::from_utf8_lossy(&body.to_bytes()).into_owned())
    }

    const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

    #[tokio::test]
    async fn a_connection_serves_again() {
        const CHUNKS: &str = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n";
        const EMPTY: &str = "HTTP/1.1 204 No Content\r\n\r\n";
        let (base, mut told) = server(&[OK, CHUNKS, EMPTY, OK]).await;
        let pools = pools();
        for expected in ["ok", "ok", "", "ok"] {
            assert_eq!(get(&pools, &base).await.unwrap(), expected);
            assert_eq!(told.recv().await, Some(0));
        }
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
        let pools = Pools::new(with_tls(HttpConnector::new()), Duration::from_millis(100));
        get(&pools, &base).await.unwrap();
        let kept = || -> usize { pools.lanes.iter().map(|lane| lane.state().hosts.len()).sum() };
        assert_eq!(kept(), 1);
        tokio::time::timeout(Duration::from_secs(5), async {
            while kept() > 0 {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        })
        .await
        .expect("it is swept out");
    }

    /// What a server needs to speak HTTP/2 over TLS.
    fn acceptor() -> TlsAcceptor {
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
        config.alpn_protocols = vec![b"h2".to_vec()];
        TlsAcceptor::from(Arc::new(config))
    }

    /// A server with TLS that speaks HTTP/2, answers with the number of the connection, and falls silent on all that are open
    /// when it is told to.
    async fn secure_server(silent: Arc<Notify>) -> String {
        let acceptor = acceptor();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("https://localhost:{}", listener.local_addr().unwrap().port());
        background::spawn(async move {
            for number in 0.. {
                let (socket, _) = listener.accept().await.unwrap();
                let (acceptor, silent) = (acceptor.clone(), Arc::clone(&silent));
                background::spawn(async move {
                    let stream = TokioIo::new(acceptor.accept(socket).await.unwrap());
                    let answer = move |_| async move {
                        tokio::time::sleep(Duration::from_millis(20)).await;
                        Ok::<_, Infallible>(Response::new(number.to_string()))
                    };
                    let mut connection = pin!(
                        server::http2::Builder::new(TokioExecutor::new())
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
        Pools { ping, ..Pools::new(connector, idle_timeout) }
    }

    #[tokio::test]
    async fn http_2_has_many_requests_on_one_connection() {
        let base = secure_server(Arc::default()).await;
        let pools = trusting(PING, Duration::from_millis(300));
        assert_eq!(get(&pools, &base).await.unwrap(), "0");
        let many = futures_util::future::join_all((0..50).map(|_| get(&pools, &base))).await;
        assert!(many.iter().all(|answer| answer.as_deref() == Ok("0")), "{many:?}");
        // It was once kept for good.
        tokio::time::sleep(Duration::from_millis(600)).await;
        assert!(pools.lanes.iter().all(|lane| lane.state().hosts.is_empty()));
        assert_eq!(get(&pools, &base).await.unwrap(), "1");
    }

    /// A connection of which nothing came any more was once given to each new request, which waited in vain.
    #[tokio::test]
    async fn a_connection_that_falls_silent_gives_way_to_another() {
        let silent = Arc::new(Notify::new());
        let base = secure_server(Arc::clone(&silent)).await;
        let pools = trusting(Duration::from_millis(100), Duration::from_mins(1));
        assert_eq!(get(&pools, &base).await.unwrap(), "0");
        silent.notify_waiters();
        let vain = tokio::time::timeout(Duration::from_secs(5), get(&pools, &base)).await;
        assert!(vain.expect("it is given up").is_err());
        assert_eq!(get(&pools, &base).await.unwrap(), "1");
    }

    /// Servers end a connection after so many requests, and requests that were on their way by then once counted as perhaps
    /// done.
    #[tokio::test]
    async fn what_a_server_has_not_looked_at_is_known() {
        /// A frame without a body, and one that says that the last stream looked at was none.
        const SETTINGS: [u8; 9] = [0, 0, 0, 4, 0, 0, 0, 0, 0];
        const GO_AWAY: [u8; 17] = [0, 0, 8, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
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
            stream.write_all(&GO_AWAY).await.unwrap();
            let _ = stream.read_to_end(&mut Vec::new()).await;
        });
        let pools = trusting(PING, Duration::from_secs(5));
        let error = pools.send(Request::get(base).body(Body::empty()).unwrap()).await.err();
        assert!(matches!(error, Some(Error::Untaken(_))), "{error:?}");
    }
}
