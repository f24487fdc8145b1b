//! The body of a request on its way in.
//!
//! Whoever answers may not want all of it. A client whose body meets with deaf ears may take that for an error and not look
//! at its answer: HTTP/2 has to reset the stream, HTTP/1 to close the connection. So what is left is read by nobody, for a
//! while and within bounds.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::header::EXPECT;
use http::{Request, Version};
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;

use super::desk::Arrived;
use super::{LINGER, LINGER_FOR_MORE};
use crate::background;
use crate::heard::Heard;

/// So much is read of a body for nobody where another stream does not have to wait for it, in bytes.
const OF_MANY: u64 = 16 * 1024 * 1024;

/// A body of at most so many bytes is read to its end for the sake of the next request over the same connection.
const SHORT: u64 = 64 * 1024;

/// How much of the body of `request` is read if nobody wants it, in bytes.
pub(super) fn unwanted<B: Body>(request: &Request<B>) -> u64 {
    if request.version() == Version::HTTP_2 {
        return OF_MANY;
    }
    // Who waits to be told to go on has sent nothing, and is not to be told.
    let is_short = request.body().size_hint().upper().is_some_and(|length| length <= SHORT);
    if is_short && !request.headers().contains_key(EXPECT) { SHORT } else { 0 }
}

/// A body that is read even if nobody wants it.
pub(super) struct Arriving {
    /// Until it has been handed to nobody.
    body: Option<Heard<Incoming, Arrived>>,
    unwanted: u64,
}

impl Arriving {
    /// `body`, of which so many bytes are read at most if nobody wants them.
    pub(super) fn new(body: Heard<Incoming, Arrived>, unwanted: u64) -> Self {
        Self { body: Some(body), unwanted }
    }
}

impl Body for Arriving {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        match &mut self.body {
            Some(body) => {
                let polled = Pin::new(body).poll_frame(context);
                if !matches!(polled, Poll::Pending | Poll::Ready(Some(Ok(_)))) {
                    self.unwanted = 0; // it is over
                }
                polled
            }
            None => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map_or_else(SizeHint::default, Body::size_hint)
    }
}

impl Drop for Arriving {
    fn drop(&mut self) {
        let Some(body) = self.body.take().filter(|body| self.unwanted > 0 && !body.is_end_stream()) else {
            return;
        };
        let rest = read_on(body, self.unwanted);
        background::spawn(async move {
            let _ = tokio::time::timeout(LINGER, rest).await;
        });
    }
}

/// Reads and forgets at most so many bytes of `body`.
async fn read_on(mut body: Heard<Incoming, Arrived>, most: u64) {
    let mut read = 0;
    while read <= most
        && let Ok(Some(Ok(frame))) = tokio::time::timeout(LINGER_FOR_MORE, body.frame()).await
    {
        read += frame.data_ref().map_or(0, |piece| piece.len() as u64);
    }
}
