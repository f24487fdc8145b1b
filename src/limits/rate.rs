//! How often something may happen: GCRA, by governor's clockwork on our clock.
//!
//! A rate of `50/s burst 200` lets through 200 at once after a pause, and one each 20 ms after that.

use std::ops::Add;
use std::time::Duration;

use governor::clock::{Clock as Timekeeper, Reference};
use governor::middleware::StateInformationMiddleware;
use governor::nanos::Nanos;
use governor::state::{InMemoryState, NotKeyed};
use governor::{Quota, RateLimiter as Governor};
use tokio::time::Instant;

use crate::config::Rate;

/// Lets so much through, and no more, however many ask at once.
pub struct RateLimiter {
    governor: Governor<NotKeyed, InMemoryState, Since, StateInformationMiddleware>,
    clock: Since,
    burst: u32,
    /// In this time one more may come.
    each: Duration,
}

/// What a limiter says to one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RateVerdict {
    /// Whether it was let through.
    pub admitted: bool,
    /// How many more would be let through now.
    pub remaining: u32,
    /// When as many as ever will be let through at once; at most one share of the rate later than needed.
    pub full_in: Duration,
    /// When the next one is let through, to the nanosecond.
    pub next_in: Duration,
}

impl RateLimiter {
    /// A limiter of which nothing is used up.
    pub fn new(rate: Rate) -> Self {
        let nanos = rate.per.as_nanos().div_ceil(u128::from(rate.requests.get())).max(1);
        let each = Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX));
        let quota = Quota::with_period(each).expect("it is a nanosecond at least").allow_burst(rate.burst);
        let clock = Since(Instant::now());
        let governor = Governor::direct_with_clock(quota, clock).with_middleware();
        Self { governor, clock, burst: rate.burst.get(), each }
    }

    /// Lets one through, or not.
    pub fn check(&self) -> RateVerdict {
        let verdict = |admitted, remaining: u32, next_in: Duration| {
            let missing = self.burst.saturating_sub(remaining);
            let full_in = self.each.saturating_mul(missing);
            RateVerdict { admitted, remaining, full_in, next_in }
        };
        match self.governor.check() {
            Ok(state) => {
                let remaining = state.remaining_burst_capacity();
                verdict(true, remaining, if remaining > 0 { Duration::ZERO } else { self.each })
            }
            Err(not_until) => verdict(false, 0, not_until.wait_time_from(self.clock.now())),
        }
    }
}

/// The time since a limiter was made, by tokio's instant.
#[derive(Clone, Copy, Debug)]
struct Since(Instant);

/// A point in time, in nanoseconds after a limiter was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Mark(u64);

impl Timekeeper for Since {
    type Instant = Mark;

    fn now(&self) -> Mark {
        Mark(u64::try_from(self.0.elapsed().as_nanos()).unwrap_or(u64::MAX))
    }
}

impl Add<Nanos> for Mark {
    type Output = Self;
    fn add(self, span: Nanos) -> Self {
        Self(self.0.saturating_add(span.as_u64()))
    }
}

impl Reference for Mark {
    fn duration_since(&self, earlier: Self) -> Nanos {
        Nanos::new(self.0.saturating_sub(earlier.0))
    }

    fn saturating_sub(&self, span: Nanos) -> Self {
        Self(self.0.checked_sub(span.as_u64()).unwrap_or(self.0))
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::*;

    fn limiter(requests: u32, per: Duration, burst: u32) -> RateLimiter {
        let count = |number| NonZeroU32::new(number).unwrap();
        RateLimiter::new(Rate { requests: count(requests), per, burst: count(burst) })
    }

    fn second(count: u64) -> Duration {
        Duration::from_secs(count)
    }

    #[tokio::test(start_paused = true)]
    async fn a_burst_passes_and_then_one_at_a_time() {
        let limiter = limiter(10, second(10), 10);
        for left in (0..10).rev() {
            let verdict = limiter.check();
            assert_eq!((verdict.admitted, verdict.remaining), (true, left));
            assert_eq!(verdict.full_in, second(u64::from(10 - left)));
        }
        let refused = limiter.check();
        assert_eq!((refused.admitted, refused.next_in), (false, second(1)));
        tokio::time::advance(refused.next_in).await;
        assert!(limiter.check().admitted && !limiter.check().admitted);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn it_is_exact_however_many_ask_at_once() {
        let limiter = Arc::new(limiter(1, second(3600), 100));
        let asking = (0..8).map(|_| {
            let limiter = Arc::clone(&limiter);
            tokio::task::spawn_blocking(move || (0..100).filter(|_| limiter.check().admitted).count())
        });
        let admitted: usize =
            futures_util::future::join_all(asking).await.into_iter().map(Result::unwrap).sum();
        assert_eq!(admitted, 100);
    }

    proptest! {
        /// In any span no more than the burst and what came in during it; and who obeys is never refused twice.
        #[test]
        fn no_more_than_agreed_and_obedience_pays(
            requests in 1_u32..20, millis in 1_u64..5000, burst in 1_u32..30,
            pauses in proptest::collection::vec(0_u64..2000, 1..60),
        ) {
            let runtime = tokio::runtime::Builder::new_current_thread().start_paused(true).enable_time().build().unwrap();
            runtime.block_on(async {
                let limiter = limiter(requests, Duration::from_millis(millis), burst);
                let (began, mut admitted) = (Instant::now(), 0_u32);
                for pause in pauses {
                    tokio::time::advance(Duration::from_millis(pause)).await;
                    let verdict = limiter.check();
                    admitted += u32::from(verdict.admitted);
                    let share = began.elapsed().as_secs_f64() / (f64::from(u32::try_from(millis).unwrap()) / 1000.0);
                    let most = f64::from(burst) + share * f64::from(requests);
                    assert!(f64::from(admitted) <= most + 1e-6, "{admitted} of {most}");
                    if !verdict.admitted {
                        tokio::time::advance(Duration::from_secs(verdict.next_in.as_secs() + 1)).await;
                        assert!(limiter.check().admitted);
                        admitted += 1;
                    }
                }
            });
        }
    }
}
