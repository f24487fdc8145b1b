//! From sockets to requests: the accept loop of a plane, bounds on what a connection may do, graceful shutdown.

use std::convert::Infallible;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::Body;
use axum::response::Response;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use http::{Request, Version};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::GracefulShutdown;
use pin_project_lite::pin_project;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, Sleep};

use crate::background;
use crate::telemetry::{Metrics, Observed};

/// What a connection may do.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// The largest request head, in bytes.
    pub head: usize,
    /// How long a head may take from its first byte to its last.
    pub head_timeout: Duration,
    /// How long a connection may lie idle between requests.
    pub idle_timeout: Duration,
}

/// What answers the requests of a plane.
pub type Answer = Arc<dyn Fn(Request<Body>) -> BoxFuture<'static, Response> + Send + Sync>;

/// One of the two listeners.
pub struct Plane {
    /// `data` or `admin`.
    pub name: &'static str,
    /// Where it listens.
    pub listener: TcpListener,
    /// What answers.
    pub answer: Answer,
    /// What connections may do.
    pub bounds: Bounds,
    /// Counts connections.
    pub metrics: Arc<Metrics>,
}

/// Serves `plane` until `stop` comes, then lets requests under way end; gives up on them when `grace` has passed.
pub async fn serve(plane: Plane, stop: impl Future<Output = ()>, grace: Duration) {
    let graceful = GracefulShutdown::new();
    tokio::pin!(stop);
    loop {
        tokio::select! {
            accepted = plane.listener.accept() => match accepted {
                Ok((socket, _)) => connect(&plane, socket, &graceful),
                Err(error) => {
                    // Out of descriptors, mostly: others will close.
                    tracing::warn!(plane = plane.name, "cannot accept a connection: {error}");
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            },
            () = &mut stop => break,
        }
    }
    drop(plane.listener);
    if tokio::time::timeout(grace, graceful.shutdown()).await.is_err() {
        tracing::warn!(plane = plane.name, "requests were still under way after {grace:?} and are cut off");
    }
}

/// Serves one connection in the background.
fn connect(plane: &Plane, socket: TcpStream, graceful: &GracefulShutdown) {
    // Failing that, answers are a little late.
    let _ = socket.set_nodelay(true);
    let phase = Arc::new(Phase::default());
    let guarded = GuardedIo::new(socket, plane.bounds, Arc::clone(&phase));
    let answer = Arc::clone(&plane.answer);
    let service = service_fn(move |request: Request<Incoming>| {
        // HTTP/2 has many requests at once and frames of its own at any time: hyper watches it by pings.
        phase.set(if request.version() == Version::HTTP_2 { Phase::MANY } else { Phase::REQUEST });
        let phase = Arc::clone(&phase);
        answer(request.map(Body::new)).map(move |response| {
            let at_end = move |_| phase.request_ended();
            Ok::<_, Infallible>(response.map(|body| Body::new(Observed::new(body, at_end))))
        })
    });
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .max_buf_size(plane.bounds.head)
        .header_read_timeout(plane.bounds.idle_timeout);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_header_list_size(u32::try_from(plane.bounds.head).unwrap_or(u32::MAX))
        .keep_alive_interval(plane.bounds.idle_timeout);
    let connection = builder.serve_connection(TokioIo::new(guarded), service).into_owned();
    let connection = graceful.watch(connection);
    let counted = plane.metrics.connection(plane.name);
    let name = plane.name;
    background::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(plane = name, "connection: {error}");
        }
        drop(counted);
    });
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
    struct GuardedIo {
        #[pin]
        socket: TcpStream,
        phase: Arc<Phase>,
        head_timeout: Duration,
        idle_timeout: Duration,
        deadline: Option<Pin<Box<Sleep>>>,
    }
}

impl GuardedIo {
    fn new(socket: TcpStream, bounds: Bounds, phase: Arc<Phase>) -> Self {
        let Bounds { head_timeout, idle_timeout, .. } = bounds;
        Self { socket, phase, head_timeout, idle_timeout, deadline: None }
    }
}

impl AsyncRead for GuardedIo {
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

impl AsyncWrite for GuardedIo {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.project().socket.poll_write(context, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.project().socket.poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.project().socket.poll_shutdown(context)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.project().socket.poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }
}
