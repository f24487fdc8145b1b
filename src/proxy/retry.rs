//! Asking again where that is safe: with growing pauses drawn at random, and within a budget, so that an upstream in
//! trouble is not buried under retries.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use axum::body::Body;
use futures_util::FutureExt as _;
use http::{Response, StatusCode};

use super::{Untaken, UpstreamError};

/// How often a request is sent at most.
const ATTEMPTS: u32 = 3;
/// How often more it is sent at once where the upstream only changes connections.
const AT_ONCE: u32 = 5;
/// The longest first pause; each further one may be twice as long.
const PAUSE: Duration = Duration::from_millis(100);
/// What is left at most, and at first: retries that may be made at once.
const BUDGET: u32 = 20 * COSTS;
/// What a retry costs. Each request adds one: a retry for ten requests.
const COSTS: u32 = 10;

/// When a request may be sent again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Safe {
    /// Whatever became of the first: it changes nothing.
    Always,
    /// As long as the upstream has only changed connections: by its method it changes nothing, and more is not known of it.
    ///
    /// Source: RFC 9110, 9.2.2 (what may be repeated when a connection fails).
    ByMethod,
    /// As long as the upstream cannot have looked at it, since no byte went out or the upstream says so: it costs money.
    Unsent,
}

/// The budget that all requests share.
#[derive(Debug)]
pub struct Retries(AtomicU32);

impl Default for Retries {
    fn default() -> Self {
        Self(AtomicU32::new(BUDGET))
    }
}

impl Retries {
    /// Adds what a request earns. Mostly nothing is missing, and nothing is written.
    fn earn(&self) {
        let earned = |left| (left < BUDGET).then_some(left + 1);
        let _ = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, earned);
    }

    /// Takes what a retry costs, if there is as much.
    fn pay(&self) -> bool {
        let paid = |left: u32| left.checked_sub(COSTS);
        self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, paid).is_ok()
    }

    /// Makes an `attempt` at a request, and another one where that is `safe` and may help. It starts when it is called, as far as
    /// nothing has to be waited for.
    ///
    /// # Errors
    /// What the last attempt met with.
    pub fn send<'u, T, F>(
        &'u self,
        safe: Safe,
        attempt: impl Fn() -> F + Send + Sync + 'u,
    ) -> impl Future<Output = Result<T, UpstreamError>> + Send
    where
        T: Answered + Send + 'u,
        F: Future<Output = Result<T, UpstreamError>> + Send + 'u,
    {
        self.earn();
        let first = attempt();
        async move {
            let answer = first.await;
            if most_at_once(&answer, safe) == 0 && !may_help(&answer, safe) {
                return answer;
            }
            self.send_again(attempt, answer, safe).boxed().await
        }
    }

    /// Sends a request that was answered like this once more, as often as that is allowed.
    async fn send_again<T, F>(
        &self,
        again: impl Fn() -> F,
        mut answer: Result<T, UpstreamError>,
        safe: Safe,
    ) -> Result<T, UpstreamError>
    where
        T: Answered,
        F: Future<Output = Result<T, UpstreamError>>,
    {
        let (mut attempt, mut at_once) = (1, 0);
        loop {
            if at_once < most_at_once(&answer, safe) {
                at_once += 1;
                answer = again().await;
                continue;
            }
            if attempt >= ATTEMPTS || !may_help(&answer, safe) || !self.pay() {
                return answer;
            }
            let longest = PAUSE * 2_u32.saturating_pow(attempt - 1);
            tokio::time::sleep(longest.mul_f64(rand::random())).await;
            attempt += 1;
            answer = again().await;
        }
    }
}

/// An answer, as much of it as an attempt waits for.
pub trait Answered {
    /// Its HTTP status.
    fn status(&self) -> StatusCode;
}

impl Answered for Response<Body> {
    fn status(&self) -> StatusCode {
        self.status()
    }
}

/// How often it may be sent at once where another connection is all that is needed.
fn most_at_once<T>(answer: &Result<T, UpstreamError>, safe: Safe) -> u32 {
    match answer {
        Err(UpstreamError::Untaken { why: Untaken::Closing, .. }) => AT_ONCE,
        // The next connection is a new one. What is closed once more is not closed by chance.
        Err(UpstreamError::Stale(_)) if safe != Safe::Unsent => 1,
        _ => 0,
    }
}

/// Whether another attempt is allowed and may go better.
fn may_help(answer: &Result<impl Answered, UpstreamError>, safe: Safe) -> bool {
    match answer {
        Err(UpstreamError::Unreachable(_) | UpstreamError::Untaken { .. }) => true,
        Err(UpstreamError::Broken(_) | UpstreamError::Stale(_) | UpstreamError::Garbled(_)) => {
            safe == Safe::Always
        }
        Ok(response) => safe == Safe::Always && is_passing(response.status()),
        Err(_) => false,
    }
}

/// Trouble of what stands in front of the upstream, which passes.
///
/// Source: RFC 9110, 15.6 (502 to 504); 520 to 527 and 530 are those of the content network that kie.ai stands behind.
pub(super) fn is_passing(status: StatusCode) -> bool {
    matches!(status.as_u16(), 502..=504 | 520..=527 | 530)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How often a request is sent that fails like this.
    async fn sent(retries: &Retries, error: fn() -> UpstreamError, safe: Safe) -> u32 {
        let attempts = AtomicU32::new(0);
        let attempt = || {
            attempts.fetch_add(1, Ordering::Relaxed);
            std::future::ready(Err::<Response<Body>, _>(error()))
        };
        assert!(retries.send(safe, attempt).await.is_err());
        attempts.load(Ordering::Relaxed)
    }

    #[tokio::test(start_paused = true)]
    async fn what_costs_money_is_sent_again_only_if_it_was_not_sent() {
        let retries = Retries::default();
        let unreachable = || UpstreamError::Unreachable("refused".into());
        let broken = || UpstreamError::Broken("reset".into());
        assert_eq!(sent(&retries, unreachable, Safe::Unsent).await, 3);
        assert_eq!(sent(&retries, broken, Safe::Unsent).await, 1);
        assert_eq!(sent(&retries, broken, Safe::Always).await, 3);
        assert_eq!(sent(&retries, broken, Safe::ByMethod).await, 1);
        let garbled = || UpstreamError::Garbled("no HTTP".into());
        assert_eq!(sent(&retries, garbled, Safe::Unsent).await, 1);
        assert_eq!(sent(&retries, garbled, Safe::Always).await, 3);
        let stale = || UpstreamError::Stale("closed".into());
        assert_eq!(sent(&retries, stale, Safe::Unsent).await, 1);
        assert_eq!(sent(&retries, stale, Safe::ByMethod).await, 2);
        assert_eq!(sent(&retries, stale, Safe::Always).await, 3 + 1);
        assert_eq!(sent(&retries, || UpstreamError::Timeout(Duration::ZERO), Safe::Always).await, 1);
        let refused = || UpstreamError::Untaken { what: "refused".into(), why: Untaken::Busy };
        assert_eq!(sent(&retries, refused, Safe::Unsent).await, 3);
        // What changes connections is asked again at once, and for ever by nobody.
        let closed = || UpstreamError::Untaken { what: "closed".into(), why: Untaken::Closing };
        assert_eq!(sent(&retries, closed, Safe::Unsent).await, 3 + AT_ONCE);
    }

    #[tokio::test(start_paused = true)]
    async fn an_upstream_in_trouble_is_not_buried() {
        let retries = Retries::default();
        let mut all = 0;
        for _ in 0..200 {
            all += sent(&retries, || UpstreamError::Broken("reset".into()), Safe::Always).await;
        }
        assert!((200..=245).contains(&all), "{all}");
    }
}
