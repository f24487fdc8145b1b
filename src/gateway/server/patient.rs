//! A client that stops reading is not waited for without end.
//!
//! While its socket is full, whoever answers is asked for nothing: what there is of an answer, and the connection upstream that
//! it comes over, would be held for as long as the client likes. Under TLS this is what is below, so that bytes count and not
//! records.

use std::io::{self, Write as _};
use std::os::fd::AsFd as _;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Sleep, sleep};

/// A TCP socket that is reset once nothing could be written for a while though something was to be.
pub(super) struct Patient {
    socket: TcpStream,
    patience: Duration,
    /// Since something was to be written and could not be. What is written at once costs no timer.
    stalled: Option<Pin<Box<Sleep>>>,
    /// There was room then, all the same, and there may be more.
    has_room: bool,
}

impl Patient {
    /// `socket`, over which something of what is to be written goes within `patience`.
    pub(super) fn new(socket: TcpStream, patience: Duration) -> Self {
        Self { socket, patience, stalled: None, has_room: false }
    }

    /// What is at the bottom.
    pub(super) fn tcp(&self) -> &TcpStream {
        &self.socket
    }

    /// Passes on what came of writing `bytes`, unless nothing has come of it for too long.
    fn bound(
        &mut self,
        written: Poll<io::Result<usize>>,
        bytes: &[u8],
        context: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        if written.is_ready() {
            (self.stalled, self.has_room) = (None, false);
            return written;
        }
        if self.has_room
            && let Ok(written) = self.write_now(bytes)
        {
            return Poll::Ready(Ok(written));
        }
        self.has_room = false;
        let patience = self.patience;
        ready!(self.stalled.get_or_insert_with(|| Box::pin(sleep(patience))).as_mut().poll(context));
        self.stalled = None;
        let written = self.write_now(bytes);
        self.has_room = written.is_ok();
        if written.as_ref().is_err_and(|error| error.kind() != io::ErrorKind::WouldBlock) {
            // It could not be tried, since there is no descriptor left perhaps: that says nothing of the client.
            return self.bound(Poll::Pending, bytes, context);
        }
        Poll::Ready(written.map_err(|_| {
            // What lies in the socket would be kept for a client that does not take it. Failing that, it is.
            let _ = self.socket.set_zero_linger();
            io::Error::new(io::ErrorKind::TimedOut, format!("the client has read nothing for {patience:?}"))
        }))
    }

    /// Writes what there is room for. The system tells of room only once a third of the socket's is free, and a client that
    /// reads slowly may take longer than that.
    fn write_now(&self, bytes: &[u8]) -> io::Result<usize> {
        let same = std::net::TcpStream::from(self.socket.as_fd().try_clone_to_owned()?);
        (&same).write(bytes)
    }
}

impl AsyncRead for Patient {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_read(context, buffer)
    }
}

impl AsyncWrite for Patient {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.socket).poll_write(context, bytes);
        self.bound(written, bytes, context)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.socket).poll_write_vectored(context, slices);
        let first = slices.iter().find(|slice| !slice.is_empty());
        self.bound(written, first.map_or(&[], |slice| slice), context)
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }
}
