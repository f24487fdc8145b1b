//! Time and chance. The only module that reads the wall clock, and the only one that makes random draws.
//!
//! A [`Clock`] counts from tokio's instant, so a paused test moves it. A [`Draw`] is a stream of numbers that
//! depends on nothing but its parts: the same seed, task and purpose give the same numbers on every machine,
//! and one more draw for another purpose moves nothing.

use std::fmt;
use std::ops::{Add, Sub};
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rand::{Rng, RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tokio::time::Instant;

/// A point in time, and whose: what tenants spend in simulations and in earnest are different accounts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// By the real clock.
    Real(Timestamp),
    /// By the clock of a simulation.
    Simulated(Timestamp),
}

impl Moment {
    /// The time, by whichever clock.
    pub const fn at(self) -> Timestamp {
        match self {
            Self::Real(at) | Self::Simulated(at) => at,
        }
    }
}

/// A point in time, in milliseconds since 1970-01-01 UTC. May be virtual: a sandbox has its own clock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Timestamp(i64);

impl Timestamp {
    /// The latest there is: what never comes.
    pub const MAX: Self = Self(i64::MAX);

    /// From milliseconds since the epoch.
    pub const fn from_millis(millis: i64) -> Self {
        Self(millis)
    }

    /// Milliseconds since the epoch.
    pub const fn millis(self) -> i64 {
        self.0
    }

    /// Whole seconds since the epoch, rounded down.
    pub const fn seconds(self) -> i64 {
        self.0.div_euclid(1000)
    }

    /// How long after `earlier` this is; zero if it is before it.
    pub fn saturating_since(self, earlier: Self) -> Duration {
        Duration::from_millis(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }

    /// As text in RFC 3339 with milliseconds, in UTC; years outside of 1..9999 print as milliseconds.
    pub fn to_rfc3339(self) -> String {
        jiff::Timestamp::from_millisecond(self.0)
            .map_or_else(|_| self.0.to_string(), |time| format!("{time:.3}"))
    }

    /// As text in RFC 3339 with whole seconds, in UTC.
    pub fn to_iso_seconds(self) -> String {
        jiff::Timestamp::from_second(self.seconds())
            .map_or_else(|_| self.0.to_string(), |time| time.to_string())
    }

    /// As `YYYY-MM-DD HH:MM:SS` at an offset of `hours` from UTC.
    pub fn to_civil(self, hours: i8) -> String {
        let offset = jiff::tz::Offset::from_hours(hours).unwrap_or(jiff::tz::Offset::UTC);
        jiff::Timestamp::from_millisecond(self.0).map_or_else(
            |_| self.0.to_string(),
            |time| offset.to_datetime(time).strftime("%Y-%m-%d %H:%M:%S").to_string(),
        )
    }

    /// Reads RFC 3339 text such as `2026-11-01T12:00:00Z`.
    pub fn parse_rfc3339(text: &str) -> Option<Self> {
        text.parse::<jiff::Timestamp>().ok().map(|time| Self(time.as_millisecond()))
    }
}

impl Add<Duration> for Timestamp {
    type Output = Self;
    fn add(self, span: Duration) -> Self {
        Self(self.0.saturating_add(i64::try_from(span.as_millis()).unwrap_or(i64::MAX)))
    }
}

impl Sub<Duration> for Timestamp {
    type Output = Self;
    fn sub(self, span: Duration) -> Self {
        Self(self.0.saturating_sub(i64::try_from(span.as_millis()).unwrap_or(i64::MAX)))
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.to_rfc3339())
    }
}

/// The time of day that a process goes by: read from the system, then counted by tokio's instant. So in a test with paused
/// time it stands still until the test advances it.
///
/// When the system's clock is set, or has run on while the machine slept, a clock that is counted knows nothing of it. One of
/// [`Clock::correctable`] is put right then, while somebody sees to that ([`Clock::follow_system`]): what goes by the calendar
/// (windows of budgets, the end of keys, what is written down) is true again. Then it jumps, and may go back: a time that was
/// noted may lie ahead, [`Timestamp::saturating_since`] says that no time has passed since, and a window that was over may go on.
/// What measures spans and must not wait for longer goes by [`Clock::steady`], or by instants.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    origin: Instant,
    at_origin: Timestamp,
    correction: Option<&'static Correction>,
}

/// How far a clock has been put forward since it was started, in milliseconds; less than nothing: back. Alone on its lines of a
/// core's cache, since all who ask for the time look at it.
#[derive(Debug)]
#[repr(align(128))]
struct Correction(AtomicI64);

/// How often a clock is compared with the system's.
const COMPARED: Duration = Duration::from_mins(1);
/// So much they may differ: nobody puts a clock right that finely by jumps.
const TOLERATED: Duration = Duration::from_secs(1);

impl Clock {
    /// Starts from the system's time of day, and is never corrected.
    pub fn system() -> Self {
        Self::starting_at(system_time())
    }

    /// Starts from the system's time of day, and can be corrected. A few bytes of it are never given back, so that it can be
    /// copied as any other: a process needs one.
    pub fn correctable() -> Self {
        let correction = Box::leak(Box::new(Correction(AtomicI64::new(0))));
        Self { correction: Some(correction), ..Self::system() }
    }

    /// Starts from `start`, for tests.
    pub fn starting_at(start: Timestamp) -> Self {
        Self { origin: Instant::now(), at_origin: start, correction: None }
    }

    /// The same, as it would be if nobody ever corrected it: what is noted by it is to be compared with nothing else.
    #[must_use]
    pub fn steady(&self) -> Self {
        Self { correction: None, ..*self }
    }

    /// The present time.
    pub fn now(&self) -> Timestamp {
        self.at(self.instant())
    }

    /// The time at that instant, which has been looked up already.
    pub fn at(&self, instant: Instant) -> Timestamp {
        let Timestamp(counted) = self.at_origin + instant.saturating_duration_since(self.origin);
        let correction = self.correction.map_or(0, |correction| correction.0.load(Ordering::Relaxed));
        Timestamp(counted.saturating_add(correction))
    }

    /// Puts a correctable clock right as often as it differs from the system's; never ends.
    pub async fn follow_system(&self) {
        loop {
            tokio::time::sleep(COMPARED).await;
            let before = self.now();
            if self.correct(system_time()) {
                tracing::warn!(
                    "the system's clock was set, or the machine slept: it was {before}, and is {}",
                    self.now()
                );
            }
        }
    }

    /// Shows `time` from now on, if it is correctable and far enough from it; says whether it was.
    fn correct(&self, time: Timestamp) -> bool {
        let Some(correction) = self.correction else { return false };
        let off = time.millis().saturating_sub(self.now().millis());
        let is_off = Duration::from_millis(off.unsigned_abs()) > TOLERATED;
        if is_off {
            correction.0.fetch_add(off, Ordering::Relaxed);
        }
        is_off
    }

    /// Finer than [`Clock::now`], for measuring spans.
    pub fn instant(&self) -> Instant {
        Instant::now()
    }
}

/// The system's time of day.
#[expect(clippy::disallowed_methods, reason = "this is the one place that reads the wall clock")]
fn system_time() -> Timestamp {
    Timestamp::default() + SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// A reproducible stream of random numbers.
pub struct Draw(ChaCha8Rng);

impl Draw {
    /// The stream that belongs to `parts`: a seed, an id, a purpose. Their boundaries count:
    /// `["ab", "c"]` is another stream than `["a", "bc"]`.
    pub fn new(parts: &[&[u8]]) -> Self {
        Self(ChaCha8Rng::from_seed(digest(parts)))
    }

    /// A number from `0.0` up to but not including `1.0`.
    pub fn fraction(&mut self) -> f64 {
        self.0.random()
    }

    /// A whole number from `low` to `high`, both included; `low` if they are the wrong way round.
    pub fn integer(&mut self, low: u64, high: u64) -> u64 {
        if low < high { self.0.random_range(low..=high) } else { low }
    }

    /// `N` random bytes.
    pub fn bytes<const N: usize>(&mut self) -> [u8; N] {
        let mut bytes = [0; N];
        self.0.fill_bytes(&mut bytes);
        bytes
    }

    /// A random UUID (version 4) in its usual form.
    pub fn uuid(&mut self) -> String {
        let mut bytes = self.bytes::<16>();
        bytes[6] = bytes[6] & 0x0f | 0x40;
        bytes[8] = bytes[8] & 0x3f | 0x80;
        let hex = hex(&bytes);
        format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
    }
}

/// The span that `text` stands for, `250ms`, `1.5s` or `1m30s`: whole milliseconds, and not beyond ten years.
pub fn parse_duration(text: &str) -> Option<Duration> {
    const LONGEST: u64 = 3650 * 24 * 3_600_000;
    if text.is_empty() {
        return None;
    }
    let mut total = 0_u64;
    let mut rest = text;
    while !rest.is_empty() {
        let (number, tail) = rest.split_at(rest.find(|sign: char| sign.is_ascii_alphabetic())?);
        let end = tail.find(|sign: char| !sign.is_ascii_alphabetic()).unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(end);
        total = total.checked_add(scaled(number, unit_millis(unit)?)?)?;
        rest = tail;
    }
    (total <= LONGEST).then(|| Duration::from_millis(total))
}

fn unit_millis(unit: &str) -> Option<u64> {
    match unit {
        "ms" => Some(1),
        "s" => Some(1000),
        "m" => Some(60_000),
        "h" => Some(3_600_000),
        "d" => Some(24 * 3_600_000),
        _ => None,
    }
}

/// `number`, which may have decimals, times `unit`, if that is whole.
fn scaled(number: &str, unit: u64) -> Option<u64> {
    let (whole, decimals) = number.split_once('.').map_or((number, None), |(a, b)| (a, Some(b)));
    let digits =
        |text: &str| text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse::<u64>().ok())?;
    let whole = digits(whole)?.checked_mul(unit)?;
    let Some(decimals) = decimals else { return Some(whole) };
    let divisor = 10_u64.checked_pow(u32::try_from(decimals.len()).ok()?)?;
    let part = digits(decimals)?.checked_mul(unit)?;
    part.is_multiple_of(divisor).then(|| whole.checked_add(part / divisor))?
}

/// SHA-256 over `parts`, each preceded by its length.
pub fn digest(parts: &[&[u8]]) -> [u8; 32] {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part);
    }
    hash.finalize().into()
}

/// Lower-case hexadecimal digits of `bytes`.
pub fn hex(bytes: &[u8]) -> String {
    let digits = bytes.iter().flat_map(|byte| hex_digits(*byte)).collect();
    String::from_utf8(digits).unwrap_or_default()
}

/// The two lower-case hexadecimal digits of `byte`.
pub const fn hex_digits(byte: u8) -> [u8; 2] {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    [DIGITS[(byte >> 4) as usize], DIGITS[(byte & 15) as usize]]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_parts_give_the_same_draws() {
        let draw = |purpose: &str| Draw::new(&[b"42", b"task", purpose.as_bytes()]).uuid();
        assert_eq!(draw("video"), draw("video"));
        assert_ne!(draw("video"), draw("cover"));
        assert_ne!(digest(&[b"ab", b"c"]), digest(&[b"a", b"bc"]));
    }

    /// The values are part of the promise: a new release must not give users' tests other ids.
    #[test]
    fn draws_do_not_change_between_versions() {
        let mut draw = Draw::new(&[b"42"]);
        let drawn = format!("{} {} {:.6}", draw.uuid(), draw.integer(10_000, 99_999), draw.fraction());
        assert_eq!(drawn, "59c889ef-83ad-441a-a601-93cf912eeaa4 47306 0.898340");
    }

    #[test]
    fn times_are_written_as_people_and_the_upstream_write_them() {
        let time = Timestamp::from_millis(1_776_323_915_587);
        assert_eq!(time.to_rfc3339(), "2026-04-16T07:18:35.587Z");
        assert_eq!(time.to_civil(8), "2026-04-16 15:18:35");
        assert_eq!(Timestamp::parse_rfc3339("2026-04-16T07:18:35.587Z"), Some(time));
        assert_eq!(Timestamp::from_millis(-1).seconds(), -1);
        assert_eq!(Timestamp::MAX + Duration::from_secs(1), Timestamp::MAX);
    }

    #[test]
    fn durations_have_units() {
        let millis = |text| parse_duration(text).map(|span| span.as_millis());
        assert_eq!(millis("1.5s"), Some(1500));
        assert_eq!(millis("1m30s"), Some(90_000));
        assert_eq!(millis("15d"), Some(15 * 86_400_000));
        for wrong in ["", "5", "s", "-1s", "1 year", "1e400s", "0.0001s", "99999d"] {
            assert_eq!(millis(wrong), None, "{wrong}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_paused_clock_moves_when_told() {
        let clock = Clock::starting_at(Timestamp::from_millis(1000));
        tokio::time::advance(Duration::from_millis(250)).await;
        assert_eq!(clock.now(), Timestamp::from_millis(1250));
    }

    /// It stayed as far off as it was until the process was started again.
    #[tokio::test(start_paused = true)]
    async fn a_clock_that_went_wrong_is_put_right() {
        let (clock, fixed) = (Clock::correctable(), Clock::system());
        let off = |clock: &Clock| clock.now().millis() - system_time().millis();
        // As if the system's had been set back.
        tokio::time::advance(Duration::from_hours(1)).await;
        assert!(off(&clock) > 3_500_000);
        tokio::select! {
            () = clock.follow_system() => {}
            () = tokio::time::sleep(COMPARED + TOLERATED) => {}
        }
        assert!(off(&clock).abs() < 30_000, "{}", off(&clock));
        assert!(off(&fixed) > 3_500_000 && off(&clock.steady()) > 3_500_000);
    }

    #[tokio::test(start_paused = true)]
    async fn a_clock_is_corrected_in_both_directions_and_by_no_trifles() {
        let clock = Clock::correctable();
        let start = clock.now();
        let hour = Duration::from_hours(1);
        assert!(!clock.correct(start + TOLERATED) && clock.now() == start);
        assert!(clock.correct(start + hour) && clock.now() == start + hour);
        tokio::time::advance(hour).await;
        assert_eq!((clock.now(), clock.steady().now()), (start + hour * 2, start + hour));
        assert!(clock.correct(start - hour) && clock.now() == start - hour);
        let fixed = Clock::starting_at(start);
        assert!(!fixed.correct(start + hour) && fixed.now() == start);
    }
}
