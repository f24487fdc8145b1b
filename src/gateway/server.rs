//! From sockets to requests: the accept loop of a plane, bounds on what a connection may do, graceful shutdown.

use std::convert::Infallible;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::Body;
use axum::response::Response;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use http::header::{ALLOW, CONNECTION, HOST, TRANSFER_ENCODING};
use http::{HeaderValue, Method, Request, StatusCode, Version};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use pin_project_lite::pin_project;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::{Instant, Sleep};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::mishap;
use super::tls::Tls;
use crate::background::{self, Lanes};
use crate::sim::Fault;
use crate::telemetry::{Metrics, Observed};

/// What a connection may do.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// The largest request head, in bytes.
    pub head: usize,
    /// How long a head may take from its first byte to its last, and a TLS handshake altogether.
    pub head_timeout: Duration,
    /// How long a connection may lie idle between requests.
    pub idle_timeout: Duration,
}

/// What answers the requests of a plane.
pub type Answer = Arc<dyn Fn(Request<Body>) -> BoxFuture<'static, Response> + Send + Sync>;

/// An extension of every request: the address of whoever opened the connection, be it a client or a proxy before it.
/// An IPv4 address that came over an IPv6 socket is given as IPv4.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer(pub IpAddr);

/// One of the two listeners.
pub struct Plane {
    /// `data` or `admin`.
    pub name: &'static str,
    /// Where it listens.
    pub listener: TcpListener,
    /// What it identifies itself with; absent: cleartext.
    pub tls: Option<Arc<Tls>>,
    /// Where connections are served; absent: on the runtime that accepts them.
    pub lanes: Option<Arc<Lanes>>,
    /// What answers.
    pub answer: Answer,
    /// What connections may do.
    pub bounds: Bounds,
    /// Counts connections.
    pub metrics: Arc<Metrics>,
}

/// A socket, perhaps under TLS, that can be made to end without ceremony.
trait Abort {
    /// Lets it end with a reset once it is dropped.
    fn abort(&self);
}

impl Abort for TcpStream {
    fn abort(&self) {
        // Failing that, it ends as any other.
        let _ = self.set_zero_linger();
    }
}

impl Abort for TlsStream<TcpStream> {
    fn abort(&self) {
        self.get_ref().0.abort();
    }
}

/// Serves `plane` until `stop` comes, then lets requests under way end; gives up on them when `grace` has passed.
pub async fn serve(plane: Plane, stop: impl Future<Output = ()>, grace: Duration) {
    let Plane { name, listener, tls, lanes, answer, bounds, metrics } = plane;
    let reception = Arc::new(Reception { name, tls, answer, bounds, metrics });
    let (tell, stopping) = watch::channel(());
    tokio::pin!(stop);
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((socket, peer)) => {
                    let visit = Visit { reception: Arc::clone(&reception), stopping: stopping.clone() };
                    visit.begin(socket, peer, lanes.as_deref());
                }
                Err(error) => {
                    // Out of descriptors, mostly: others will close.
                    tracing::warn!(plane = name, "cannot accept a connection: {error}");
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            },
            () = &mut stop => break,
        }
    }
    drop((listener, stopping));
    let _ = tell.send(());
    if tokio::time::timeout(grace, tell.closed()).await.is_err() {
        tracing::warn!(plane = name, "requests were still under way after {grace:?} and are cut off");
    }
}

/// What all connections of a plane have in common.
struct Reception {
    name: &'static str,
    tls: Option<Arc<Tls>>,
    answer: Answer,
    bounds: Bounds,
    metrics: Arc<Metrics>,
}

/// One connection, from its acceptance to its end.
struct Visit {
    reception: Arc<Reception>,
    /// Told when no further request is to be taken; the sender waits until all visits are over.
    stopping: watch::Receiver<()>,
}

impl Visit {
    /// Serves `socket` in the background, on one of `lanes` if there are any.
    fn begin(self, socket: TcpStream, peer: SocketAddr, lanes: Option<&Lanes>) {
        // Failing that, answers are a little late.
        let _ = socket.set_nodelay(true);
        let peer = Peer(peer.ip().to_canonical());
        let Some(lanes) = lanes else {
            drop(background::spawn(self.welcome(socket, peer)));
            return;
        };
        // A socket belongs to the runtime that waits for it, so it moves house.
        let Ok(socket) = socket.into_std() else { return };
        lanes.spawn(async move {
            match TcpStream::from_std(socket) {
                Ok(socket) => self.welcome(socket, peer).await,
                Err(error) => tracing::warn!("cannot serve a connection: {error}"),
            }
        });
    }

    /// Serves, after a handshake where that is asked for.
    async fn welcome(self, socket: TcpStream, peer: Peer) {
        let _counted = self.reception.metrics.connection(self.reception.name);
        match &self.reception.tls {
            None => self.serve(socket, peer).await,
            Some(tls) => {
                // On its own, so that a connection without it does not take the room.
                let acceptor = tls.acceptor();
                Box::pin(self.shake_hands(acceptor, socket, peer)).await;
            }
        }
    }

    async fn shake_hands(mut self, acceptor: TlsAcceptor, socket: TcpStream, peer: Peer) {
        let plane = self.reception.name;
        let patience = self.reception.bounds.head_timeout;
        let shaken = tokio::select! {
            shaken = tokio::time::timeout(patience, acceptor.accept(socket)) => shaken,
            _ = self.stopping.changed() => return,
        };
        match shaken {
            Ok(Ok(stream)) => Box::pin(self.serve(stream, peer)).await,
            Ok(Err(error)) => tracing::debug!(plane, "TLS handshake: {error}"),
            Err(_) => tracing::debug!(plane, "TLS handshake: not done within {patience:?}"),
        }
    }

    /// Answers the requests that come over `stream`, until it ends or the plane stops.
    async fn serve<S>(mut self, stream: S, peer: Peer)
    where
        S: AsyncRead + AsyncWrite + Abort + Unpin + Send + 'static,
    {
        let Reception { name, bounds, .. } = *self.reception;
        let phase = Arc::new(Phase::default());
        let guarded = GuardedIo::new(stream, bounds, Arc::clone(&phase));
        let answer = Arc::clone(&self.reception.answer);
        let service = service_fn(move |mut request: Request<Incoming>| {
            // HTTP/2 has many requests at once and frames of its own at any time: hyper watches it by pings.
            let many = request.version() == Version::HTTP_2;
            phase.set(if many { Phase::MANY } else { Phase::REQUEST });
            let phase = Arc::clone(&phase);
            let answered = if let Some(status) = unacceptable(&request) {
                std::future::ready(turned_away(status)).boxed()
            } else {
                request.extensions_mut().insert(peer);
                answer(request.map(Body::new))
            };
            answered.map(move |mut response| {
                match response.extensions().get::<Fault>() {
                    // Only this one of its streams ends.
                    Some(Fault::Reset | Fault::Empty | Fault::Garbage) if many => {
                        *response.body_mut() = mishap::broken();
                    }
                    Some(Fault::Reset) => phase.set(Phase::RESET),
                    Some(Fault::Empty) => phase.set(Phase::CLOSED),
                    Some(Fault::Garbage) => phase.set(Phase::GARBAGE),
                    _ => {}
                }
                let at_end = move |_| phase.request_ended();
                Ok::<_, Infallible>(response.map(|body| Observed::new(body, at_end)))
            })
        });
        let builder = protocols(bounds);
        // Pinned where it is made: it is large, and there may be ten thousand.
        let mut connection = pin!(builder.serve_connection(TokioIo::new(guarded), service));
        let ended = tokio::select! {
            ended = connection.as_mut() => ended,
            _ = self.stopping.changed() => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        };
        if let Err(error) = ended {
            tracing::debug!(plane = name, "connection: {error}");
        }
    }
}

/// The status of a request that nobody may send, whatever it is for.
///
/// Source: RFC 9112, 3.2 (one `Host`) and 6.1 (codings that are not known).
fn unacceptable(request: &Request<Incoming>) -> Option<StatusCode> {
    // One asks for a tunnel, the other for an echo of what went upstream, with a key that is not the client's.
    if matches!(*request.method(), Method::CONNECT | Method::TRACE) {
        return Some(StatusCode::METHOD_NOT_ALLOWED);
    }
    if request.version() == Version::HTTP_11 && request.headers().get_all(HOST).iter().count() != 1 {
        return Some(StatusCode::BAD_REQUEST);
    }
    let mut codings = request.headers().get_all(TRANSFER_ENCODING).iter();
    let known = codings.next().is_none_or(|coding| coding.as_bytes().eq_ignore_ascii_case(b"chunked"));
    (!known || codings.next().is_some()).then_some(StatusCode::NOT_IMPLEMENTED)
}

/// The answer to such a request. The connection ends with it, since what follows may be anything.
fn turned_away(status: StatusCode) -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    if status == StatusCode::METHOD_NOT_ALLOWED {
        let allowed = HeaderValue::from_static("GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS");
        response.headers_mut().insert(ALLOW, allowed);
    }
    response
}

/// HTTP/1.1 and HTTP/2, told apart by what a client sends first.
fn protocols(bounds: Bounds) -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .max_buf_size(bounds.head)
        .header_read_timeout(bounds.idle_timeout);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_header_list_size(u32::try_from(bounds.head).unwrap_or(u32::MAX))
        .keep_alive_interval(bounds.idle_timeout);
    builder
}

/// What a connection is at, told by the service to the socket under it.
#[derive(Debug, Default)]
struct Phase(AtomicU8);

impl Phase {
    /// Nothing has come yet.
    const FRESH: u8 = 0;
    /// Between requests.
    const IDLE: u8 = 1;
    /// A head has begun to arrive.
    const HEAD: u8 = 2;
    /// A request is being answered.
    const REQUEST: u8 = 3;
    /// The connection carries many requests at once.
    const MANY: u8 = 4;
    /// Instead of an answer the connection is reset.
    const RESET: u8 = 5;
    /// Instead of an answer it ends.
    const CLOSED: u8 = 6;
    /// Instead of an answer comes something else, and it ends.
    const GARBAGE: u8 = 7;

    fn set(&self, phase: u8) {
        self.0.store(phase, Ordering::Relaxed);
    }

    /// The answer's last byte has been handed on.
    fn request_ended(&self) {
        let _ = self.0.compare_exchange(Self::REQUEST, Self::IDLE, Ordering::Relaxed, Ordering::Relaxed);
    }

    fn is(&self, phase: u8) -> bool {
        self.0.load(Ordering::Relaxed) == phase
    }
}

pin_project! {
    /// A socket that ends when nothing comes, or when a request's head dawdles. hyper's own timer starts after the
    /// first byte and counts idle time and heads alike, so it is set to the idle time and this watches the rest.
    /// Under TLS it sees what is inside: a record in pieces is no head.
    struct GuardedIo<S> {
        #[pin]
        socket: S,
        phase: Arc<Phase>,
        head_timeout: Duration,
        idle_timeout: Duration,
        deadline: Option<Pin<Box<Sleep>>>,
    }
}

impl<S> GuardedIo<S> {
    fn new(socket: S, bounds: Bounds, phase: Arc<Phase>) -> Self {
        let Bounds { head_timeout, idle_timeout, .. } = bounds;
        Self { socket, phase, head_timeout, idle_timeout, deadline: None }
    }
}

impl<S: AsyncRead> AsyncRead for GuardedIo<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.project();
        let before = buffer.filled().len();
        let waits = this.phase.is(Phase::FRESH) || this.phase.is(Phase::IDLE);
        if let Poll::Ready(read) = this.socket.poll_read(context, buffer) {
            if waits && buffer.filled().len() > before {
                this.phase.set(Phase::HEAD);
                *this.deadline = None;
            }
            return Poll::Ready(read);
        }
        // A head that comes at once and in one piece never gets here, so it costs no timer.
        let patience = match this.phase.0.load(Ordering::Relaxed) {
            Phase::FRESH => *this.idle_timeout,
            Phase::HEAD => *this.head_timeout,
            _ => {
                *this.deadline = None;
                return Poll::Pending;
            }
        };
        let start = || Box::pin(tokio::time::sleep_until(Instant::now() + patience));
        ready!(this.deadline.get_or_insert_with(start).as_mut().poll(context));
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "no request came in time")))
    }
}

/// What comes where garbage was asked for.
const GARBAGE: &[u8] = b"\x16\x03\x01\x00\xffnot HTTP at all\r\n\x00\xfe\xfd\r\n\r\n";

impl<S: AsyncWrite + Abort> GuardedIo<S> {
    /// Does to the connection what was asked for in the place of an answer; `None` where nothing was.
    fn sabotage(self: Pin<&mut Self>, context: &mut Context<'_>) -> Option<Poll<io::Error>> {
        let this = self.project();
        let end = |what: &str| Some(Poll::Ready(io::Error::new(io::ErrorKind::ConnectionAborted, what)));
        match this.phase.0.load(Ordering::Relaxed) {
            Phase::RESET => {
                this.socket.abort();
                end("reset, as asked for")
            }
            Phase::CLOSED => end("closed, as asked for"),
            Phase::GARBAGE => match this.socket.poll_write(context, GARBAGE) {
                Poll::Pending => Some(Poll::Pending),
                Poll::Ready(_) => end("answered with garbage, as asked for"),
            },
            _ => None,
        }
    }
}

impl<S: AsyncWrite + Abort> AsyncWrite for GuardedIo<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.as_mut().sabotage(context) {
            None => self.project().socket.poll_write(context, bytes),
            Some(ended) => ended.map(Err),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.project().socket.poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.phase.is(Phase::RESET) {
            return Poll::Ready(Ok(())); // a polite end would come before the reset
        }
        self.project().socket.poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.as_mut().sabotage(context) {
            None => self.project().socket.poll_write_vectored(context, slices),
            Some(ended) => ended.map(Err),
        }
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::sync::oneshot;

    use super::*;

    /// Serves a plane that notes who asked; gives what `requests` are answered, each over a connection of its own,
    /// and the notes.
    async fn serve_and_ask(lanes: Option<Arc<Lanes>>, requests: &[&str]) -> (Vec<String>, Vec<Peer>) {
        let peers = Arc::new(Mutex::new(Vec::new()));
        let noted = Arc::clone(&peers);
        let answer: Answer = Arc::new(move |request| {
            noted.lock().unwrap().push(*request.extensions().get::<Peer>().unwrap());
            std::future::ready(Response::new(Body::from("hello"))).boxed()
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
            "POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
            "POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        ];
        let (answers, peers) = serve_and_ask(None, &requests).await;
        let statuses: Vec<_> = answers.iter().map(|answer| &answer[9..12]).collect();
        assert_eq!(statuses, ["400", "400", "405", "405", "501", "501"]);
        assert!(answers[2].contains("allow: GET, HEAD"), "{}", answers[2]);
        assert_eq!(peers, [], "none of them got through");
    }
}
