//! A rate limit: so many in each period, at most a burst at once. GCRA, by `governor` with our clock.
//!
//! `governor` decides; what it keeps (one number, the time when everything spent will have come back) is kept
//! here, so that a verdict can tell how much is left, and looking spends nothing.

use std::num::NonZeroU32;
use std::ops::Add;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use governor::clock::{Clock as GcraClock, Reference};
use governor::middleware::NoOpMiddleware;
use governor::nanos::Nanos;
use governor::state::{NotKeyed, StateStore};
use tokio::time::Instant;

use crate::clock::Clock;
use crate::config::Rate;

/// A rate limit at work. Shared by reference; all methods are exact however many threads call them.
pub struct RateLimiter {
    rate: Rate,
    gcra: governor::RateLimiter<NotKeyed, Arrival, TickClock, NoOpMiddleware<Tick>>,
    /// The same number that `gcra` keeps.
    arrival: Arrival,
    /// Ticks in which one request comes back.
    interval: u64,
    /// Ticks in which all come back: `interval` times the burst.
    capacity: u64,
}

/// What a rate limit says of one request, as of the moment it was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RateVerdict {
    /// Whether the request may go on. [`RateLimiter::peek`] says whether one would be.
    pub admitted: bool,
    /// How many more would be let through at once.
    pub remaining: u32,
    /// How long until as many as the burst are let through at once again, if none comes meanwhile.
    pub full_in: Duration,
    /// How long until the next one is let through, if none comes meanwhile; zero if one is now.
    ///
    /// Rounded up to the nanosecond, so whoever waits this long, or longer, is not refused again.
    pub next_in: Duration,
}

impl RateLimiter {
    /// A limit of which nothing has been spent.
    pub fn new(rate: Rate, clock: Clock) -> Self {
        let scale = scale(rate);
        let interval = interval(rate, scale);
        // A burst that would take centuries to come back is cut; sums of ticks stay in their 64 bits.
        let burst = u64::from(rate.burst.get()).min(FURTHEST / interval).max(1);
        let burst = u32::try_from(burst).ok().and_then(NonZeroU32::new).unwrap_or(NonZeroU32::MIN);
        let quota = governor::Quota::with_period(Duration::from_nanos(interval))
            .expect("an interval is at least one tick")
            .allow_burst(burst);
        let arrival = Arrival::default();
        let clock = TickClock { clock, scale, origin: OnceLock::new() };
        let gcra = governor::RateLimiter::new(quota, arrival.clone(), clock);
        Self { rate, gcra, arrival, interval, capacity: interval * u64::from(burst.get()) }
    }

    /// The limit as configured.
    pub fn rate(&self) -> Rate {
        self.rate
    }

    /// Lets one request through, and counts it, or refuses it, which costs nothing.
    pub fn check(&self) -> RateVerdict {
        let admitted = self.gcra.check().is_ok();
        RateVerdict { admitted, ..self.peek() }
    }

    /// What [`RateLimiter::check`] would say now, but spends nothing.
    pub fn peek(&self) -> RateVerdict {
        let Tick(now) = self.gcra.clock().now();
        let spent = self.arrival.get().saturating_sub(now);
        let remaining = self.capacity.saturating_sub(spent) / self.interval;
        RateVerdict {
            admitted: remaining > 0,
            remaining: u32::try_from(remaining).unwrap_or(u32::MAX),
            full_in: self.span(spent),
            next_in: self.span((spent + self.interval).saturating_sub(self.capacity)),
        }
    }

    /// Ticks as time, rounded up.
    fn span(&self, ticks: u64) -> Duration {
        Duration::from_nanos(ticks.div_ceil(self.gcra.clock().scale))
    }
}

/// Three in a second come back every 333333333⅓ ns. So that such a rate is exact too, time is counted in
/// ticks of a nanosecond, or of the fraction of it that makes the interval whole, down to this.
const FINEST: u64 = 16;

/// No interval and no burst is longer than this many ticks: 146 years, or nine in the finest ticks.
const FURTHEST: u64 = u64::MAX / 4;

/// Ticks in a nanosecond.
fn scale(rate: Rate) -> u64 {
    let requests = u128::from(rate.requests.get());
    let wanted = requests / gcd(requests, rate.per.as_nanos());
    u64::try_from(wanted).unwrap_or(FINEST).clamp(1, FINEST)
}

/// Ticks in which one request comes back; where it is not whole, the limit is a fraction of a tick stricter.
fn interval(rate: Rate, scale: u64) -> u64 {
    let ticks = (rate.per.as_nanos() * u128::from(scale)).div_ceil(u128::from(rate.requests.get()));
    u64::try_from(ticks).unwrap_or(FURTHEST).clamp(1, FURTHEST)
}

fn gcd(a: u128, b: u128) -> u128 {
    if b == 0 { a } else { gcd(b, a % b) }
}

/// The time by our clock, in ticks since it was first asked.
struct TickClock {
    clock: Clock,
    scale: u64,
    /// `governor` asks once when the limiter is made, and counts from there. So do we.
    origin: OnceLock<Instant>,
}

impl GcraClock for TickClock {
    type Instant = Tick;

    fn now(&self) -> Tick {
        let now = self.clock.instant();
        let since = now.saturating_duration_since(*self.origin.get_or_init(|| now));
        Tick(u64::try_from(since.as_nanos()).unwrap_or(u64::MAX).saturating_mul(self.scale))
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Tick(u64);

impl Add<Nanos> for Tick {
    type Output = Self;
    fn add(self, ticks: Nanos) -> Self {
        Self(self.0.saturating_add(ticks.as_u64()))
    }
}

impl Reference for Tick {
    fn duration_since(&self, earlier: Self) -> Nanos {
        self.0.saturating_sub(earlier.0).into()
    }

    fn saturating_sub(&self, ticks: Nanos) -> Self {
        Self(self.0.checked_sub(ticks.as_u64()).unwrap_or(self.0))
    }
}

/// The tick at which everything spent will have come back; zero before the first request.
#[derive(Clone, Default)]
struct Arrival(Arc<AtomicU64>);

impl Arrival {
    fn get(&self) -> u64 {
        self.0.load(Ordering::Acquire)
    }
}

impl StateStore for Arrival {
    type Key = NotKeyed;

    fn measure_and_replace<T, F, E>(&self, _: &NotKeyed, decide: F) -> Result<T, E>
    where
        F: Fn(Option<Nanos>) -> Result<(T, Nanos), E>,
    {
        let mut before = self.get();
        loop {
            let (outcome, after) = decide((before > 0).then(|| before.into()))?;
            match self.0.compare_exchange_weak(before, after.into(), Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => return Ok(outcome),
                Err(other) => before = other,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tokio::runtime::Builder;
    use tokio::time::advance;

    use super::*;
    use crate::clock::Timestamp;

    fn rate(requests: u32, per: Duration, burst: u32) -> Rate {
        let count = |number| NonZeroU32::new(number).unwrap();
        Rate { requests: count(requests), per, burst: count(burst) }
    }

    fn limiter(rate: Rate) -> RateLimiter {
        RateLimiter::new(rate, Clock::starting_at(Timestamp::default()))
    }

    fn admitted_at_once(limiter: &RateLimiter) -> usize {
        (0..1000).take_while(|_| limiter.check().admitted).count()
    }

    #[tokio::test(start_paused = true)]
    async fn fifty_a_second_with_a_burst_of_200_are_200_at_once_and_50_in_each_second_after() {
        let limiter = limiter(rate(50, Duration::from_secs(1), 200));
        assert_eq!(admitted_at_once(&limiter), 200);
        for _ in 0..10 {
            advance(Duration::from_secs(1)).await;
            assert_eq!(admitted_at_once(&limiter), 50);
        }
        advance(Duration::from_hours(1)).await;
        assert_eq!(admitted_at_once(&limiter), 200);
    }

    #[tokio::test(start_paused = true)]
    async fn a_verdict_tells_what_is_left_and_when_more_comes() {
        let limiter = limiter(rate(10, Duration::from_secs(10), 10));
        let fresh = limiter.peek();
        assert_eq!((fresh.admitted, fresh.remaining, fresh.full_in), (true, 10, Duration::ZERO));
        let first = limiter.check();
        assert_eq!((first.admitted, first.remaining, first.full_in), (true, 9, Duration::from_secs(1)));
        assert_eq!(first.next_in, Duration::ZERO);
        assert_eq!(admitted_at_once(&limiter), 9);
        advance(Duration::from_millis(300)).await;
        let refused = limiter.check();
        assert_eq!((refused.admitted, refused.remaining), (false, 0));
        assert_eq!(refused.next_in, Duration::from_millis(700));
        assert_eq!(refused.full_in, Duration::from_millis(9700));
        advance(Duration::from_nanos(699_999_999)).await;
        assert!(!limiter.check().admitted);
        advance(Duration::from_nanos(1)).await;
        assert!(limiter.check().admitted);
    }

    #[tokio::test(start_paused = true)]
    async fn looking_spends_nothing() {
        let limiter = limiter(rate(1, Duration::from_secs(1), 1));
        assert!((0..100).all(|_| limiter.peek().admitted));
        assert!(limiter.check().admitted);
        assert_eq!(limiter.peek(), limiter.check());
    }

    /// Once the interval was cut to whole nanoseconds, and the third came two of them late.
    #[tokio::test(start_paused = true)]
    async fn three_in_ten_seconds_are_three_every_ten_seconds() {
        let limiter = limiter(rate(3, Duration::from_secs(10), 3));
        for _ in 0..100 {
            assert_eq!(admitted_at_once(&limiter), 3);
            advance(Duration::from_secs(10)).await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn absurd_rates_neither_overflow_nor_refuse_the_first() {
        let ten_years = Duration::from_hours(24 * 3650);
        for absurd in [
            rate(1, ten_years, u32::MAX),
            rate(7, ten_years, 7),
            rate(u32::MAX, Duration::from_millis(1), u32::MAX),
            rate(u32::MAX, ten_years, 1),
        ] {
            let limiter = limiter(absurd);
            assert!(limiter.check().admitted, "{absurd:?}");
            advance(ten_years).await;
            assert!(limiter.check().admitted, "{absurd:?}");
            limiter.peek();
        }
    }

    #[test]
    fn many_threads_get_no_more_than_the_limit() {
        let clock = Clock::starting_at(Timestamp::default());
        let limiter = RateLimiter::new(rate(1000, Duration::from_secs(1), 100), clock);
        let began = clock.instant();
        let hammer = || {
            let mut admitted = 0_u32;
            while clock.instant() - began < Duration::from_millis(100) {
                admitted += u32::from(limiter.check().admitted);
            }
            admitted
        };
        let admitted: u32 = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..8).map(|_| scope.spawn(hammer)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).sum()
        });
        let most = 100.0 + 1000.0 * began.elapsed().as_secs_f64();
        assert!((100.0..=most).contains(&f64::from(admitted)), "{admitted} of at most {most}");
    }

    /// A bucket in exact numbers: spent so far, in nanoseconds times requests.
    struct Bucket {
        rate: Rate,
        spent: u128,
    }

    impl Bucket {
        fn wait(&mut self, span: Duration) {
            self.spent = self.spent.saturating_sub(span.as_nanos() * u128::from(self.rate.requests.get()));
        }

        fn check(&mut self) -> bool {
            let one = self.rate.per.as_nanos();
            let fits = self.spent + one <= one * u128::from(self.rate.burst.get());
            self.spent += if fits { one } else { 0 };
            fits
        }
    }

    fn paused<F: Future>(story: F) -> F::Output {
        Builder::new_current_thread().enable_time().start_paused(true).build().unwrap().block_on(story)
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 128, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn it_is_a_bucket_with_exact_contents(
            requests in 1..=16_u32, per in 1..20_000_u64, burst in 1..20_u32,
            pauses in prop::collection::vec(0..5_000_000_000_u64, 1..100),
        ) {
            let rate = rate(requests, Duration::from_millis(per), burst);
            paused(async {
                let limiter = limiter(rate);
                let mut bucket = Bucket { rate, spent: 0 };
                for pause in pauses {
                    // Long pauses and none at all.
                    let pause = Duration::from_nanos(if pause % 3 == 0 { pause } else { 0 });
                    advance(pause).await;
                    bucket.wait(pause);
                    prop_assert_eq!(limiter.check().admitted, bucket.check());
                }
                Ok(())
            })?;
        }

        #[test]
        fn who_obeys_whole_seconds_is_never_refused_twice(
            requests in 1..5000_u32, per in 1..100_000_u64, burst in 1..50_u32,
            pauses in prop::collection::vec(0..2_000_000_000_u64, 1..50),
        ) {
            let rate = rate(requests, Duration::from_millis(per), burst);
            paused(async {
                let limiter = limiter(rate);
                for pause in pauses {
                    advance(Duration::from_nanos(pause % 7 * pause)).await;
                    admitted_at_once(&limiter);
                    let refused = limiter.check();
                    if !refused.admitted {
                        let seconds = refused.next_in.as_secs_f64().ceil();
                        advance(Duration::from_secs_f64(seconds)).await;
                        prop_assert!(limiter.check().admitted, "after {seconds} s");
                    }
                }
                Ok(())
            })?;
        }
    }
}
