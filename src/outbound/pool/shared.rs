//! Connections that carry many requests at once, by HTTP/2. Each has a task of its own.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use http::{Request, Response};
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use tokio::time::Instant;

use super::{Stream, Unsent};
use crate::background;
use crate::heard::{End, Heard, Listener};

/// How often it is asked whether the other end of a connection is still there, and how long it may take to say so. Whatever
/// has taken it away on the way tells nobody, and each request would wait for its answer in vain.
pub(super) const PING: Duration = Duration::from_secs(15);

/// So many requests go over one connection at once, fewer than servers allow; more go over another, or they would wait for
/// those that take long.
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
    used: Instant,
}

impl Shared {
    /// Speaks HTTP/2 over `stream`, and asks every `ping` whether the other end is still there.
    pub(super) async fn open(stream: Stream, ping: Duration) -> hyper::Result<Self> {
        let mut builder = http2::Builder::new(TokioExecutor::new());
        builder.timer(TokioTimer::new()).keep_alive_interval(ping).keep_alive_timeout(ping);
        builder.initial_stream_window_size(WINDOW).initial_connection_window_size(NO_BOUND);
        let (sender, connection) = builder.keep_alive_while_idle(true).handshake(stream).await?;
        // It ends when no sender is left, or the other end closes it.
        background::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!("upstream connection: {error}");
            }
        });
        Ok(Self { sender, places: Arc::default(), used: Instant::now() })
    }

    /// A place for one more request, if there is one.
    pub(super) fn take(&mut self) -> Option<Place> {
        let is_full = Arc::strong_count(&self.places) > MOST_AT_ONCE;
        if is_full || self.is_closed() {
            return None;
        }
        self.used = Instant::now();
        Some(Place { sender: self.sender.clone(), taken: Arc::clone(&self.places) })
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
    /// Sends `request`, and holds the place until the answer is over.
    pub(super) async fn send(mut self, request: Request<Body>) -> Result<Response<Body>, Unsent> {
        let answer = self.sender.try_send_request(request).await?;
        Ok(answer.map(|body| Body::new(Heard::new(body, Held(self.taken)))))
    }
}

/// A place that an answer holds.
struct Held(#[expect(dead_code, reason = "it is counted")] Arc<()>);

impl Listener for Held {
    fn end(&mut self, _: End) {}
}
