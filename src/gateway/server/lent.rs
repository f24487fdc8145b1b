//! Over HTTP/2 a client that takes no more of an answer is not waited for without end.
//!
//! It says how much of each answer may be sent. Where that is used up the answer is not asked for more, though the connection
//! goes on: what makes it would be held for as long as the client likes. So an answer in pieces is lent to its stream, and
//! taken back from one that does not come for more.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll};

use axum::body::Body;
use bytes::Bytes;
use http_body::{Body as _, Frame, SizeHint};

use super::desk::Answered;
use crate::heard::Heard;

/// So many times in a row an answer is found waiting for its client, before it is taken back. Some take in megabytes and
/// ask for more when half of them is used up, so it is more than one idle time.
const PATIENCE: u32 = 16;

/// The body of an answer.
pub(super) struct Outgoing {
    /// Until it is lent.
    own: Option<Heard<Body, Answered>>,
    lent: Option<Arc<Mutex<Lease>>>,
    /// Whose streams may be kept waiting.
    leases: Option<Arc<Leases>>,
}

/// An answer that is lent to its stream.
struct Lease {
    /// Until it is taken back.
    body: Option<Heard<Body, Answered>>,
    /// It was asked for a piece and gave one: now it waits for its client.
    waits: bool,
    /// How often it was found waiting since.
    found: u32,
}

/// What is lent over one connection.
#[derive(Default)]
pub(super) struct Leases(Mutex<Vec<Weak<Mutex<Lease>>>>);

impl Outgoing {
    /// `body`, one of many over a connection where there are `leases`.
    pub(super) fn new(body: Heard<Body, Answered>, leases: Option<Arc<Leases>>) -> Self {
        Self { own: Some(body), lent: None, leases }
    }

    /// Lends what is left after a piece; most answers have but one.
    fn lend(&mut self) {
        let Some(leases) = &self.leases else { return };
        let lease = Lease { body: self.own.take(), waits: true, found: 0 };
        let lease = Arc::new(Mutex::new(lease));
        lock(&leases.0).push(Arc::downgrade(&lease));
        self.lent = Some(lease);
    }
}

impl Lease {
    fn poll_frame(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let Some(body) = &mut self.body else {
            let what = "the client has taken nothing of the answer for too long";
            return Poll::Ready(Some(Err(axum::Error::new(io::Error::new(io::ErrorKind::TimedOut, what)))));
        };
        let polled = Pin::new(body).poll_frame(context);
        (self.waits, self.found) = (polled.is_ready(), 0);
        polled
    }

    /// Gives the answer back if its client has not come for more for too long.
    fn take_back(&mut self) -> Option<Heard<Body, Answered>> {
        if !self.waits {
            return None;
        }
        self.found += 1;
        self.body.take_if(|_| self.found > PATIENCE)
    }
}

impl Leases {
    /// Takes back what was found waiting too often. To be called from time to time.
    pub(super) fn take_back(&self) {
        let mut taken = Vec::new();
        lock(&self.0).retain(|lease| {
            let Some(lease) = lease.upgrade() else { return false };
            taken.extend(lock(&lease).take_back());
            true
        });
        // Dropped where nobody else has to wait for it.
        drop(taken);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl http_body::Body for Outgoing {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        if let Some(lease) = &self.lent {
            return lock(lease).poll_frame(context);
        }
        let is_one_of_many = self.leases.is_some();
        let Some(body) = &mut self.own else { return Poll::Ready(None) };
        let polled = Pin::new(&mut *body).poll_frame(context);
        if is_one_of_many && matches!(polled, Poll::Ready(Some(Ok(_)))) && !body.is_end_stream() {
            self.lend();
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        let is_over = |body: &Option<Heard<Body, Answered>>| body.as_ref().is_some_and(Heard::is_end_stream);
        self.lent.as_ref().map_or_else(|| is_over(&self.own), |lease| is_over(&lock(lease).body))
    }

    fn size_hint(&self) -> SizeHint {
        let hint = |body: &Option<Heard<Body, Answered>>| {
            body.as_ref().map_or_else(SizeHint::default, Heard::size_hint)
        };
        self.lent.as_ref().map_or_else(|| hint(&self.own), |lease| hint(&lock(lease).body))
    }
}
