//! Bodies that somebody looks at while they pass: what is sent on is not changed, kept or held up.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

/// Somebody who looks at a body.
pub trait Listener: Send + Unpin + 'static {
    /// A piece has come.
    fn piece(&mut self, _piece: &Bytes) {}

    /// More was asked for, and is not there yet.
    fn pause(&mut self) {}

    /// The body is over. Called once.
    fn end(&mut self, how: End);
}

/// How a body came to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// All of it has passed.
    Whole,
    /// It broke off.
    Broken,
    /// Whoever it was for wanted no more of it.
    Dropped,
}

/// A body that tells a listener what passes.
pub struct Heard<B: Body<Data = Bytes> + Unpin, L: Listener> {
    body: B,
    /// Bytes to come, where that is known.
    left: Option<u64>,
    /// Until it has heard of the end.
    listener: Option<L>,
}

impl<B: Body<Data = Bytes> + Unpin, L: Listener> Heard<B, L> {
    /// `body`, and `listener` beside it.
    pub fn new(body: B, listener: L) -> Self {
        Self { left: body.size_hint().exact(), body, listener: Some(listener) }
    }

    fn end(&mut self, how: End) {
        if let Some(mut listener) = self.listener.take() {
            listener.end(how);
        }
    }

    /// Whoever sends it on need not ask for more than there is.
    fn is_over(&self) -> bool {
        self.left == Some(0) || self.body.is_end_stream()
    }
}

impl<B: Body<Data = Bytes> + Unpin, L: Listener> Body for Heard<B, L> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let polled = Pin::new(&mut self.body).poll_frame(context);
        match &polled {
            Poll::Ready(Some(Ok(frame))) => {
                if let (Some(piece), Some(listener)) = (frame.data_ref(), &mut self.listener) {
                    listener.piece(piece);
                    let length = piece.len() as u64;
                    self.left = self.left.map(|left| left.saturating_sub(length));
                }
                // Nothing comes after trailers, and not all ask whether something does.
                if self.is_over() || frame.is_trailers() {
                    self.end(End::Whole);
                }
            }
            Poll::Ready(None) => self.end(End::Whole),
            Poll::Ready(Some(Err(_))) => self.end(End::Broken),
            Poll::Pending => self.listener.iter_mut().for_each(Listener::pause),
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl<B: Body<Data = Bytes> + Unpin, L: Listener> Drop for Heard<B, L> {
    fn drop(&mut self) {
        // An empty body is never asked for anything: it is whole as it is.
        self.end(if self.is_over() { End::Whole } else { End::Dropped });
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Sender, channel};

    use axum::body::Body;
    use futures_util::stream;
    use http::HeaderMap;
    use http_body_util::BodyExt as _;

    use super::*;

    struct Telling(Sender<String>);

    impl Listener for Telling {
        fn piece(&mut self, piece: &Bytes) {
            self.0.send(String::from_utf8_lossy(piece).into_owned()).unwrap();
        }

        fn end(&mut self, how: End) {
            self.0.send(format!("{how:?}")).unwrap();
        }
    }

    #[tokio::test]
    async fn a_listener_hears_every_piece_and_the_end_once() {
        let check = async |body: Body, asks: usize, expected: &[&str]| {
            let (told, heard) = channel();
            let mut body = Heard::new(body, Telling(told));
            for _ in 0..asks {
                drop(body.frame().await);
            }
            drop(body);
            assert_eq!(heard.iter().collect::<Vec<_>>(), expected);
        };
        let pieces = |last| Body::from_stream(stream::iter([Ok("a"), last]));
        let broken = || std::io::Error::other("broken");
        check(Body::empty(), 0, &["Whole"]).await;
        check(Body::from("ab"), 0, &["Dropped"]).await;
        check(Body::from("ab"), 1, &["ab", "Whole"]).await;
        check(pieces(Ok("b")), 1, &["a", "Dropped"]).await;
        check(pieces(Ok("b")), 3, &["a", "b", "Whole"]).await;
        check(pieces(Err(broken())), 2, &["a", "Broken"]).await;
        let trailing = pieces(Ok("b")).with_trailers(std::future::ready(Some(Ok(HeaderMap::new()))));
        check(Body::new(trailing), 3, &["a", "b", "Whole"]).await;
    }
}
