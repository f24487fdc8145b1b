//! How far a request is on its way. The time that an upstream has for its answer counts from when it has all of the
//! request: a client that takes its time over an upload is not the upstream's fault.

use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use http_body_util::BodyExt as _;
use tokio::time::{Instant, timeout_at};

use super::UpstreamError;
use crate::heard::{End, Heard, Listener};

/// What is known of a request that is being sent. Clones share it.
#[derive(Clone)]
pub(super) struct Progress(Arc<Mutex<Way>>);

struct Way {
    /// When the upstream took something of it.
    moved: Instant,
    /// The upstream would take more, and the client has not sent it yet.
    waits_for_client: bool,
    /// Why the client's part of it did not come.
    fault: Option<UpstreamError>,
}

impl Progress {
    /// Of a request that begins now.
    pub(super) fn new() -> Self {
        Self(Arc::new(Mutex::new(Way { moved: Instant::now(), waits_for_client: false, fault: None })))
    }

    /// `body`, telling how it gets on.
    pub(super) fn of(&self, body: Body) -> Body {
        let progress = self.clone();
        let body = body.map_err(move |error| {
            progress.way().fault = Some(UpstreamError::of_body(&error));
            error
        });
        Body::new(Heard::new(body, self.clone()))
    }

    /// What was wrong with the client's body, if that is what ended the exchange.
    pub(super) fn fault(&self) -> Option<UpstreamError> {
        self.way().fault.clone()
    }

    /// What becomes of `work`; `None` once the upstream has neither taken anything of the request for `patience` nor answered
    /// it.
    pub(super) async fn within<T>(&self, patience: Duration, work: impl Future<Output = T>) -> Option<T> {
        let mut work = pin!(work);
        loop {
            let deadline = self.deadline(patience);
            match timeout_at(deadline, work.as_mut()).await {
                Ok(done) => return Some(done),
                Err(_) if self.deadline(patience) <= Instant::now() => return None,
                Err(_) => {} // it has got on meanwhile
            }
        }
    }

    fn note(&self, waits_for_client: bool) {
        let mut way = self.way();
        (way.moved, way.waits_for_client) = (Instant::now(), waits_for_client);
    }

    fn deadline(&self, patience: Duration) -> Instant {
        let way = self.way();
        if way.waits_for_client { Instant::now() + patience } else { way.moved + patience }
    }

    fn way(&self) -> MutexGuard<'_, Way> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Listener for Progress {
    fn piece(&mut self, _: &Bytes) {
        self.note(false);
    }

    fn pause(&mut self) {
        self.note(true);
    }

    fn end(&mut self, _: End) {
        self.note(false);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::StreamExt as _;
    use futures_util::stream;

    const SECOND: Duration = Duration::from_secs(1);

    /// Three pieces, each after that pause.
    fn body(pause: Duration) -> Body {
        let pieces = stream::iter(["a", "b", "c"]).then(move |piece| async move {
            tokio::time::sleep(pause).await;
            Ok::<_, std::io::Error>(piece)
        });
        Body::from_stream(pieces)
    }

    /// The time for an answer once ran while the client was still sending, so that slow uploads were given up.
    #[tokio::test(start_paused = true)]
    async fn time_counts_from_when_the_upstream_has_the_request() {
        let check = async |client: Duration, upstream: Duration, expected: bool| {
            let progress = Progress::new();
            let body = progress.of(body(client));
            let exchange = async {
                body.collect().await.unwrap();
                tokio::time::sleep(upstream).await;
            };
            let answered = progress.within(SECOND, exchange).await.is_some();
            assert_eq!(answered, expected, "{client:?} {upstream:?}");
        };
        check(SECOND * 60, SECOND / 2, true).await;
        check(SECOND * 60, SECOND * 2, false).await;
        check(Duration::ZERO, SECOND * 2, false).await;
    }

    #[tokio::test(start_paused = true)]
    async fn an_upstream_that_takes_nothing_is_given_up() {
        let progress = Progress::new();
        let mut body = progress.of(body(Duration::ZERO));
        let exchange = async {
            body.frame().await.unwrap().unwrap();
            std::future::pending::<()>().await;
        };
        let began = Instant::now();
        assert!(progress.within(SECOND, exchange).await.is_none());
        assert!(began.elapsed() < SECOND * 2, "{:?}", began.elapsed());
    }

    #[tokio::test]
    async fn whose_fault_it_is_that_a_body_does_not_come_is_known() {
        let of = async |error: axum::BoxError| {
            let progress = Progress::new();
            let broken = stream::iter([Ok("a"), Err(error)]);
            assert!(progress.of(Body::from_stream(broken)).collect().await.is_err());
            progress.fault()
        };
        assert!(matches!(of("gone".into()).await, Some(UpstreamError::BodyBroken)));
        let limited = http_body_util::Limited::new(Body::from("long"), 1);
        let too_large = limited.collect().await.unwrap_err();
        assert!(matches!(of(too_large).await, Some(UpstreamError::BodyTooLarge)));
        let progress = Progress::new();
        progress.of(Body::from("whole")).collect().await.unwrap();
        assert!(progress.fault().is_none());
    }
}
