//! Answers that stop coming are broken off, so that nobody waits for them for ever.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use http_body::{Body as _, Frame, SizeHint};
use tokio::time::{Sleep, sleep};

/// `body`, which breaks off once nothing has come for `patience`. Time counts only while somebody waits.
pub(super) fn bounded(body: Body, patience: Duration) -> Body {
    if body.is_end_stream() { body } else { Body::new(Bounded { body, patience, waits: None }) }
}

struct Bounded {
    body: Body,
    patience: Duration,
    /// Since the last piece, if somebody waits for the next.
    waits: Option<Pin<Box<Sleep>>>,
}

impl http_body::Body for Bounded {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        if let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(context) {
            self.waits = None;
            return Poll::Ready(frame);
        }
        let patience = self.patience;
        ready!(self.waits.get_or_insert_with(|| Box::pin(sleep(patience))).as_mut().poll(context));
        let what = format!("nothing of the answer has come for {patience:?}");
        Poll::Ready(Some(Err(axum::Error::new(io::Error::new(io::ErrorKind::TimedOut, what)))))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use futures_util::StreamExt as _;
    use futures_util::stream;
    use http_body_util::BodyExt as _;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn pieces(pause: Duration) -> Body {
        let pieces = stream::iter(["a", "b", "c"]).then(move |piece| async move {
            sleep(pause).await;
            Ok::<_, io::Error>(piece)
        });
        bounded(Body::from_stream(pieces), SECOND * 2)
    }

    #[tokio::test(start_paused = true)]
    async fn what_keeps_coming_comes_whole_and_what_stops_is_broken_off() {
        assert_eq!(pieces(SECOND).collect().await.unwrap().to_bytes(), "abc");
        assert!(pieces(SECOND * 3).collect().await.is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn a_reader_may_take_its_time() {
        let mut body = pieces(SECOND);
        for _ in 0..3 {
            body.frame().await.unwrap().unwrap();
            sleep(SECOND * 10).await;
        }
        assert!(body.frame().await.is_none());
    }

    #[test]
    fn its_length_is_told_as_before() {
        assert_eq!(bounded(Body::from("abc"), SECOND).size_hint().exact(), Some(3));
        assert!(bounded(Body::empty(), SECOND).is_end_stream());
    }
}
