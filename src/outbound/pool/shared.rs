//! Connections that carry many requests at once, by HTTP/2. Each has a task of its own.

use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use http::header::HOST;
use http::{Request, Response};
use http_body::{Frame, SizeHint};
use hyper::body::Incoming;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use tokio::time::Instant;
use tower::BoxError;

use super::{Destination, Stream, Unsent};
use crate::background;

/// How often it is asked whether the other end of a connection is still there, and how long it may take to say so. Whatever
/// has taken it away on the way tells nobody, and each request would wait for its answer in vain.
pub(super) const PING: Duration = Duration::from_secs(15);

/// So many requests go over one connection at once, fewer than servers usually allow; more go over another, or they would
/// wait for those that take long. Where a server allows fewer, it is as many as that as soon as it has said so; what it
/// refuses by then is sent again.
///
/// Source: RFC 9113, 6.5.2 (a server should allow 100 or more).
pub(super) const MOST_AT_ONCE: usize = 96;

/// What of an answer may wait for a slow reader, in bytes. The connection itself knows no such bound, or a few slow readers
/// would hold up everybody else's answers.
const WINDOW: u32 = 512 * 1024;
const NO_BOUND: u32 = (1 << 31) - 1;

/// A connection for many requests at once.
pub(super) struct Shared {
    sender: http2::SendRequest<Body>,
    /// Each request under way holds one.
    places: Arc<()>,
    /// How many there may be, as far as the other end has said it.
    most: Arc<AtomicUsize>,
    used: Instant,
}

impl Shared {
    /// Speaks HTTP/2 over `stream`, and asks every `ping` whether the other end is still there.
    pub(super) async fn open(stream: Stream, ping: Duration) -> hyper::Result<Self> {
        let mut builder = http2::Builder::new(TokioExecutor::new());
        builder.timer(TokioTimer::new()).keep_alive_interval(ping).keep_alive_timeout(ping);
        builder.initial_stream_window_size(WINDOW).initial_connection_window_size(NO_BOUND);
        let (sender, connection) = builder.keep_alive_while_idle(true).handshake(stream).await?;
        let most = Arc::new(AtomicUsize::new(MOST_AT_ONCE));
        let allowed = Arc::clone(&most);
        // It ends when no sender is left, or the other end closes it.
        background::spawn(async move {
            let mut connection = pin!(connection);
            let ended = poll_fn(|context| {
                let polled = connection.as_mut().poll(context);
                allowed.store(connection.current_max_send_streams().min(MOST_AT_ONCE), Ordering::Relaxed);
                polled
            });
            if let Err(error) = ended.await {
                tracing::debug!("upstream connection: {error}");
            }
        });
        Ok(Self { sender, places: Arc::default(), most, used: Instant::now() })
    }

    /// A place for one more request, if there is one.
    pub(super) fn take(&mut self) -> Option<Place> {
        if !self.has_room() {
            return None;
        }
        self.used = Instant::now();
        Some(Place { sender: self.sender.clone(), taken: Arc::clone(&self.places) })
    }

    /// Whether there is a place for one more request.
    pub(super) fn has_room(&self) -> bool {
        let taken = Arc::strong_count(&self.places) - 1;
        taken < self.most.load(Ordering::Relaxed) && !self.is_closed()
    }

    /// Whether the other end takes no more requests.
    pub(super) fn is_closed(&self) -> bool {
        self.sender.is_closed()
    }

    /// When it was last used.
    pub(super) fn used(&self) -> Instant {
        self.used
    }
}

/// A place for one request.
pub(super) struct Place {
    sender: http2::SendRequest<Body>,
    taken: Arc<()>,
}

impl Place {
    /// Sends `request` to `host`, and holds the place until the answer is over.
    pub(super) async fn send(
        mut self,
        host: &Destination,
        mut request: Request<Body>,
    ) -> Result<Response<Body>, Unsent> {
        // The address says it.
        request.headers_mut().remove(HOST);
        *request.uri_mut() = host.address(request.uri());
        let answer = self.sender.try_send_request(request).await?;
        Ok(answer.map(|incoming| Body::new(Answer { incoming, taken: Some(self.taken) })))
    }
}

/// The body of an answer, and the place that it holds until it is over.
struct Answer {
    incoming: Incoming,
    taken: Option<Arc<()>>,
}

impl http_body::Body for Answer {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let polled = ready!(Pin::new(&mut self.incoming).poll_frame(context));
        if !matches!(polled, Some(Ok(_))) || self.incoming.is_end_stream() {
            self.taken = None;
        }
        if polled.is_none() && !self.incoming.is_end_stream() {
            // A server may close a stream without an error once it has answered; to hyper all is well then, even in the midst
            // of an answer. Source: RFC 9113, 8.1 (it must have sent a complete one).
            let what = "the stream was closed in the midst of the answer";
            return Poll::Ready(Some(Err(io::Error::new(io::ErrorKind::UnexpectedEof, what).into())));
        }
        Poll::Ready(polled.map(|frame| frame.map_err(Into::into)))
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}
