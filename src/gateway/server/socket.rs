//! A connection's socket, and what the connection is at: told by whoever answers requests, acted on where bytes pass.
//!
//! hyper does not say whether a connection is between two requests, and gives heads as much time as idle connections.
//! Both are known here: a [`Phase`] is shared by the service above hyper and by the [`Guarded`] socket below it.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf as _, Bytes};
use futures_util::FutureExt as _;
use pin_project_lite::pin_project;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf, Ready};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep};
use tokio_rustls::server::TlsStream;

use super::patient::Patient;
use crate::gather::{self, gather};

/// A TCP socket, perhaps under TLS.
pub(super) trait Socket: AsyncRead + AsyncWrite + Unpin + Send + 'static {
    /// What is at the bottom.
    fn tcp(&self) -> &TcpStream;
}

impl Socket for Patient {
    fn tcp(&self) -> &TcpStream {
        Patient::tcp(self)
    }
}

impl Socket for TlsStream<Patient> {
    fn tcp(&self) -> &TcpStream {
        self.get_ref().0.tcp()
    }
}

/// What a connection is at.
#[derive(Debug)]
pub(super) struct Phase {
    at: AtomicU8,
    /// Requests so far.
    requests: AtomicU32,
    /// Of many at once, those whose answers have been handed on or given up.
    ended: AtomicU32,
    /// The body of the latest request has been read to its end, or there was none.
    body_ended: AtomicBool,
    /// A request takes so long that it is worth a look whether somebody still waits for its answer.
    doubted: AtomicBool,
}

impl Phase {
    /// Between requests; all that was answered has been sent.
    pub(super) const IDLE: u8 = 0;
    /// A head has begun to arrive.
    pub(super) const HEAD: u8 = 1;
    /// A request is being answered.
    pub(super) const REQUEST: u8 = 2;
    /// The answer's last byte has been handed on, but perhaps not sent.
    pub(super) const ANSWERED: u8 = 3;
    /// The connection carries many requests at once.
    pub(super) const MANY: u8 = 4;
    /// Instead of an answer the connection is reset.
    pub(super) const RESET: u8 = 5;
    /// It ends without an answer.
    pub(super) const CLOSED: u8 = 6;
    /// Instead of an answer comes something else, and it ends.
    pub(super) const GARBAGE: u8 = 7;

    pub(super) fn at(phase: u8) -> Self {
        Self {
            at: phase.into(),
            requests: 0.into(),
            ended: 0.into(),
            body_ended: true.into(),
            doubted: false.into(),
        }
    }

    pub(super) fn set(&self, phase: u8) {
        self.at.store(phase, Ordering::Relaxed);
    }

    pub(super) fn get(&self) -> u8 {
        self.at.load(Ordering::Relaxed)
    }

    /// Another request has come.
    pub(super) fn request_began(&self, has_body: bool) {
        self.set(Self::REQUEST);
        self.requests.store(self.requests().wrapping_add(1), Ordering::Relaxed);
        self.body_ended.store(!has_body, Ordering::Relaxed);
    }

    /// All of its body has been read.
    pub(super) fn body_ended(&self) {
        self.body_ended.store(true, Ordering::Relaxed);
    }

    /// Another of many requests at once has come.
    pub(super) fn request_joined(&self) {
        self.requests.fetch_add(1, Ordering::Relaxed);
    }

    /// The answer's last byte has been handed on, or it is given up.
    pub(super) fn request_ended(&self) {
        if self.get() == Self::MANY {
            self.ended.fetch_add(1, Ordering::Relaxed);
        } else {
            self.turn(Self::REQUEST, Self::ANSWERED);
        }
    }

    /// Whether any of many requests at once is under way.
    pub(super) fn has_requests(&self) -> bool {
        self.ended.load(Ordering::Relaxed) != self.requests()
    }

    /// How many requests have come.
    pub(super) fn requests(&self) -> u32 {
        self.requests.load(Ordering::Relaxed)
    }

    /// Whether nothing is under way in either direction, as far as can be seen from outside of hyper's buffers.
    pub(super) fn is_between_requests(&self) -> bool {
        self.get() == Self::IDLE && self.has_whole_body()
    }

    /// Whether the client may be in the midst of a request: of its body, or of a head that was not understood.
    pub(super) fn is_spoken_to(&self) -> bool {
        self.get() == Self::HEAD || !self.has_whole_body()
    }

    /// Whether all of the latest request's body has been read.
    pub(super) fn has_whole_body(&self) -> bool {
        self.body_ended.load(Ordering::Relaxed)
    }

    /// It is to be looked whether the client is still there.
    pub(super) fn doubt(&self) {
        self.doubted.store(true, Ordering::Relaxed);
    }

    /// Whether it is to be looked if the client, which has said all that belongs to its request, is still there.
    fn is_doubted(&self) -> bool {
        self.doubted.load(Ordering::Relaxed)
            && self.doubted.swap(false, Ordering::Relaxed)
            && self.get() == Self::REQUEST
            && self.has_whole_body()
    }

    fn turn(&self, from: u8, to: u8) {
        let _ = self.at.compare_exchange(from, to, Ordering::Relaxed, Ordering::Relaxed);
    }
}

pin_project! {
    /// A socket that ends when a request's head dawdles. Under TLS it sees what is inside: a record in pieces is no head.
    pub(super) struct Guarded<S> {
        #[pin]
        socket: S,
        // What has been read already, and is to be read again.
        before: Bytes,
        phase: Arc<Phase>,
        head_timeout: Duration,
        deadline: Option<Pin<Box<Sleep>>>,
    }
}

impl<S> Guarded<S> {
    /// `before` has been read from `socket` already.
    pub(super) fn new(socket: S, before: Bytes, phase: Arc<Phase>, head_timeout: Duration) -> Self {
        Self { socket, before, phase, head_timeout, deadline: None }
    }

    /// The socket alone.
    pub(super) fn into_inner(self) -> S {
        self.socket
    }
}

impl<S: AsyncRead> AsyncRead for Guarded<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.project();
        if !this.before.is_empty() {
            let length = this.before.len().min(buffer.remaining());
            buffer.put_slice(&this.before[..length]);
            this.before.advance(length);
            return Poll::Ready(Ok(()));
        }
        let filled = buffer.filled().len();
        if let Poll::Ready(read) = this.socket.poll_read(context, buffer) {
            let is_next =
                matches!(this.phase.get(), Phase::IDLE | Phase::ANSWERED) && this.phase.has_whole_body();
            if is_next && buffer.filled().len() > filled {
                this.phase.set(Phase::HEAD);
                *this.deadline = None;
            }
            return Poll::Ready(read);
        }
        // A head that comes at once and in one piece never gets here, so it costs no timer.
        if this.phase.get() != Phase::HEAD {
            *this.deadline = None;
            return Poll::Pending;
        }
        let start = || Box::pin(tokio::time::sleep_until(Instant::now() + *this.head_timeout));
        ready!(this.deadline.get_or_insert_with(start).as_mut().poll(context));
        this.phase.set(Phase::CLOSED); // nobody waits for the rest of it
        Poll::Ready(Err(io::Error::new(
            io::ErrorKind::TimedOut,
            "the head of a request did not come in time",
        )))
    }
}

/// Whether the other end has closed its side, even where bytes came before that which nobody has read yet.
fn has_hung_up(socket: &TcpStream) -> bool {
    let ready = socket.ready(Interest::READABLE).now_or_never();
    ready.is_some_and(|ready| ready.is_ok_and(Ready::is_read_closed))
}

/// What comes where garbage was asked for.
const GARBAGE: &[u8] = b"\x16\x03\x01\x00\xffnot HTTP at all\r\n\x00\xfe\xfd\r\n\r\n";

impl<S: Socket> Guarded<S> {
    /// Does to the connection what was asked for in the place of an answer; `None` where nothing was.
    fn sabotage(self: Pin<&mut Self>, context: &mut Context<'_>) -> Option<Poll<io::Error>> {
        let this = self.project();
        let end = |what: &str| Some(Poll::Ready(io::Error::new(io::ErrorKind::ConnectionAborted, what)));
        match this.phase.get() {
            Phase::RESET => {
                // Failing that, it ends as any other.
                let _ = this.socket.tcp().set_zero_linger();
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

impl<S: Socket> AsyncWrite for Guarded<S> {
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

    /// hyper flushes when it has written all that it had, and whenever it has nothing to write.
    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.project();
        // Where bytes stand behind a request hyper does not read on, and would not see that the client has gone.
        if this.phase.is_doubted() && has_hung_up(this.socket.tcp()) {
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::ConnectionAborted, "the client has gone")));
        }
        let flushed = this.socket.poll_flush(context);
        if flushed.is_ready() {
            this.phase.turn(Phase::ANSWERED, Phase::IDLE);
        }
        flushed
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.phase.get() == Phase::RESET {
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
            None => match gather(slices, &mut [0; gather::SMALL]) {
                Some(bytes) => self.project().socket.poll_write(context, bytes),
                None => self.project().socket.poll_write_vectored(context, slices),
            },
            Some(ended) => ended.map(Err),
        }
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }
}
