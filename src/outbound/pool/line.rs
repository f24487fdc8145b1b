//! The stream below a connection for one request at a time.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use hyper::rt::{Read, ReadBufCursor, Write};

use super::Stream;
use crate::gather::{self, gather};

/// A stream on which small messages go in one piece, and which hears the other end out: a server that does not want all of a
/// request answers it and hangs up, and what is still written to it fails before anybody has looked at the answer. So what
/// it takes no more is dropped; whether an answer has come shows when it is read.
pub(super) struct Line {
    stream: Stream,
    /// The other end takes nothing any more.
    is_deaf: bool,
}

impl Line {
    pub(super) fn new(stream: Stream) -> Self {
        Self { stream, is_deaf: false }
    }

    /// What has become of the attempt to write `length` bytes.
    fn written(&mut self, written: io::Result<usize>, length: usize) -> io::Result<usize> {
        written.or_else(|error| {
            self.is_deaf = matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset);
            if self.is_deaf { Ok(length) } else { Err(error) }
        })
    }
}

impl Read for Line {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl Write for Line {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.is_deaf {
            return Poll::Ready(Ok(bytes.len()));
        }
        let written = ready!(Pin::new(&mut self.stream).poll_write(context, bytes));
        Poll::Ready(self.written(written, bytes.len()))
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.is_deaf {
            return Poll::Ready(Ok(()));
        }
        let flushed = ready!(Pin::new(&mut self.stream).poll_flush(context));
        Poll::Ready(self.written(flushed.map(|()| 0), 0).map(|_| ()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let length = slices.iter().map(|slice| slice.len()).sum();
        if self.is_deaf {
            return Poll::Ready(Ok(length));
        }
        let stream = Pin::new(&mut self.stream);
        let written = ready!(match gather(slices, &mut [0; gather::SMALL]) {
            Some(bytes) => stream.poll_write(context, bytes),
            None => stream.poll_write_vectored(context, slices),
        });
        Poll::Ready(self.written(written, length))
    }
}
