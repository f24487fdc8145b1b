//! Bodies of requests whose trailers are looked through on their way to the upstream.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use axum::body::Body;
use bytes::Bytes;
use http_body::{Frame, SizeHint};

use super::headers::trailers_for_upstream;

/// A body of which nothing travels at its end that would not at the beginning.
pub(super) struct Trailing {
    body: Body,
    /// The client's, which is not to be told.
    key: Option<Vec<u8>>,
}

impl Trailing {
    /// `body` of a client with that key.
    pub(super) fn new(body: Body, key: Option<&[u8]>) -> Self {
        Self { body, key: key.map(<[u8]>::to_vec) }
    }
}

impl http_body::Body for Trailing {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let mut polled = ready!(Pin::new(&mut self.body).poll_frame(context));
        if let Some(Ok(frame)) = &mut polled
            && let Some(trailers) = frame.trailers_mut()
        {
            trailers_for_upstream(trailers, self.key.as_deref());
        }
        Poll::Ready(polled)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
