//! A breaker: after a row of failures the upstream is left alone for a while.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// So many failures in a row open it.
const FAILURES: u32 = 5;
/// How long it stays open at first; each failed probe doubles that.
const SHORTEST: Duration = Duration::from_secs(1);
/// And at most.
const LONGEST: Duration = Duration::from_secs(30);
/// How long a probe keeps all others waiting: it may be a large upload, or an answer that takes its time.
const PROBE: Duration = Duration::from_secs(5);

/// Counts failures of one host and says whether it may be asked. What a failure is, its user says.
#[derive(Debug, Default)]
pub struct Breaker {
    state: Mutex<State>,
    /// Something has failed since the last success. While nothing has, requests change nothing here.
    is_troubled: AtomicBool,
    /// Failures ever.
    counted: AtomicU32,
}

#[derive(Debug, Default)]
struct State {
    failures: u32,
    /// Until then nobody asks; afterwards one may, as a probe.
    closed_until: Option<Instant>,
    pause: Duration,
    /// The latest probe, and until when it is waited for.
    probe: Option<(Probe, Instant)>,
    /// How many probes there have been.
    probes: u32,
}

/// A request that tries whether the host answers again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Probe {
    number: u32,
    /// The pause after which it is made.
    after: Instant,
}

/// Leave to ask. Dropped without a verdict it counts for nothing.
#[derive(Debug)]
pub struct Leave<'b> {
    breaker: &'b Breaker,
    /// So many failures had been counted ever.
    counted: u32,
    probe: Option<Probe>,
}

impl Breaker {
    /// Leave to ask now, or how long to wait.
    ///
    /// # Errors
    /// The time that is left until a probe may be sent; while one is under way, at most the shortest pause.
    pub fn ask(&self) -> Result<Leave<'_>, Duration> {
        if !self.is_troubled.load(Ordering::Acquire) {
            return Ok(self.leave(None));
        }
        let mut state = self.state();
        let Some(until) = state.closed_until else { return Ok(self.leave(None)) };
        let now = Instant::now();
        let left = until.saturating_duration_since(now);
        if !left.is_zero() {
            return Err(left);
        }
        if let Some((_, waited_for)) = state.probe
            && now < waited_for
        {
            return Err(SHORTEST.min(waited_for - now));
        }
        state.probes = state.probes.wrapping_add(1);
        let probe = Probe { number: state.probes, after: until };
        state.probe = Some((probe, now + PROBE));
        Ok(self.leave(Some(probe)))
    }

    fn leave(&self, probe: Option<Probe>) -> Leave<'_> {
        Leave { breaker: self, counted: self.counted.load(Ordering::Relaxed), probe }
    }

    /// Whether nobody may ask.
    pub fn is_open(&self) -> bool {
        self.state().closed_until.is_some()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Leave<'_> {
    /// The connection broke. It may have been that of others as well, which is one failure: it does not count where another was
    /// counted since this was asked.
    pub fn broke(self) {
        let is_told = self.probe.is_none() && self.breaker.counted.load(Ordering::Relaxed) != self.counted;
        if !is_told {
            self.end(false);
        }
    }

    /// The host answered, or did not.
    pub fn end(self, answered: bool) {
        if answered && !self.breaker.is_troubled.load(Ordering::Acquire) {
            return;
        }
        let mut state = self.breaker.state();
        self.breaker.is_troubled.store(!answered, Ordering::Release);
        if answered {
            *state = State { probes: state.probes, ..State::default() };
            return;
        }
        state.failures += 1;
        self.breaker.counted.fetch_add(1, Ordering::Relaxed);
        // Others may have found out meanwhile how the host does.
        let is_latest = self.probe.is_some_and(|probe| state.closed_until == Some(probe.after));
        if is_latest || (state.failures >= FAILURES && state.closed_until.is_none()) {
            state.pause = (state.pause * 2).clamp(SHORTEST, LONGEST);
            state.closed_until = Some(Instant::now() + state.pause);
        }
    }
}

impl Drop for Leave<'_> {
    fn drop(&mut self) {
        let Some(probe) = self.probe else { return };
        let mut state = self.breaker.state();
        if state.probe.is_some_and(|(latest, _)| latest == probe) {
            state.probe = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fail(breaker: &Breaker) {
        breaker.ask().unwrap().end(false);
    }

    #[tokio::test(start_paused = true)]
    async fn it_opens_after_a_row_of_failures_and_closes_after_a_probe() {
        let breaker = Breaker::default();
        (1..FAILURES).for_each(|_| fail(&breaker));
        breaker.ask().unwrap().end(true);
        (1..FAILURES).for_each(|_| fail(&breaker));
        assert!(!breaker.is_open(), "a success in between begins the row anew");
        fail(&breaker);
        assert_eq!(breaker.ask().unwrap_err(), SHORTEST);
        tokio::time::advance(SHORTEST).await;
        let probe = breaker.ask().unwrap();
        assert!(breaker.ask().is_err(), "one probe at a time");
        probe.end(false);
        assert_eq!(breaker.ask().unwrap_err(), SHORTEST * 2);
        tokio::time::advance(SHORTEST * 2).await;
        drop(breaker.ask().unwrap());
        breaker.ask().expect("a probe that was given up makes room for another").end(true);
        assert!(!breaker.is_open());
    }

    /// One connection with many requests on it kept everybody from the host.
    #[test]
    fn what_breaks_with_one_connection_is_one_failure() {
        let breaker = Breaker::default();
        let together: Vec<_> = (0..3 * FAILURES).map(|_| breaker.ask().unwrap()).collect();
        together.into_iter().for_each(Leave::broke);
        assert!(!breaker.is_open());
        (2..FAILURES).for_each(|_| breaker.ask().unwrap().broke());
        assert!(!breaker.is_open());
        let together: Vec<_> = (0..3 * FAILURES).map(|_| breaker.ask().unwrap()).collect();
        breaker.ask().unwrap().end(true);
        together.into_iter().for_each(Leave::broke);
        (2..FAILURES).for_each(|_| breaker.ask().unwrap().broke());
        assert!(!breaker.is_open());
        breaker.ask().unwrap().broke();
        assert!(breaker.is_open(), "one after the other they are a row");
    }

    #[tokio::test(start_paused = true)]
    async fn a_probe_that_takes_its_time_keeps_nobody_waiting_for_long() {
        let breaker = Breaker::default();
        (0..FAILURES).for_each(|_| fail(&breaker));
        tokio::time::advance(SHORTEST).await;
        let slow = breaker.ask().unwrap();
        tokio::time::advance(PROBE.saturating_sub(SHORTEST / 2)).await;
        assert_eq!(breaker.ask().unwrap_err(), SHORTEST / 2);
        tokio::time::advance(SHORTEST / 2).await;
        let second = breaker.ask().unwrap();
        assert!(breaker.ask().is_err(), "one more, and not all");
        second.end(true);
        assert!(!breaker.is_open());
        slow.end(false);
        assert!(!breaker.is_open(), "it was overtaken");
        fail(&breaker);
        breaker.ask().expect("two failures are no row").end(true);
    }

    #[tokio::test(start_paused = true)]
    async fn probes_that_fail_one_after_the_other_make_one_pause() {
        let breaker = Breaker::default();
        (0..FAILURES).for_each(|_| fail(&breaker));
        tokio::time::advance(SHORTEST).await;
        let first = breaker.ask().unwrap();
        tokio::time::advance(PROBE).await;
        let second = breaker.ask().unwrap();
        second.end(false);
        first.end(false);
        assert_eq!(breaker.ask().unwrap_err(), SHORTEST * 2);
    }
}
