//! When a callback that was not taken is tried again.

use std::time::Duration;

use crate::clock::Timestamp;

/// For so long a callback is tried.
const TRIED_FOR: Duration = Duration::from_hours(24);
/// The longest first pause; each further one may be twice as long.
const FIRST: Duration = Duration::from_secs(5);
/// No pause is longer.
const LONGEST: Duration = Duration::from_hours(1);
/// No pause is shorter.
const SHORTEST: Duration = Duration::from_secs(1);

/// How long a receiver that fails is left alone at first, and at most.
pub(super) const ALONE: (Duration, Duration) = (Duration::from_secs(5), Duration::from_mins(5));
/// So long whatever is due waits for its receiver, at least: one that is left alone is tried again meanwhile.
pub(super) const PATIENCE: Duration = Duration::from_mins(10);

/// The pauses between attempts.
#[derive(Clone, Debug)]
pub struct Schedule(Option<Vec<Duration>>);

/// What comes after a failed attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Another one.
    At(Timestamp),
    /// No more.
    GiveUp,
}

impl Schedule {
    /// These pauses exactly, or growing ones drawn at random over 24 hours.
    pub fn new(pauses: Option<Vec<Duration>>) -> Self {
        Self(pauses)
    }

    /// What comes after so many attempts, the first of which was at `first`. `retry_after` is what the receiver asked for,
    /// `draw` a random number from 0 to 1.
    pub fn next(
        &self,
        attempts: u32,
        first: Timestamp,
        now: Timestamp,
        retry_after: Option<Duration>,
        draw: f64,
    ) -> Next {
        let nth = attempts.saturating_sub(1);
        let pause = if let Some(pauses) = &self.0 {
            pauses.get(nth as usize).copied()
        } else {
            let most = FIRST.saturating_mul(2_u32.saturating_pow(nth.min(16))).min(LONGEST);
            Some(most.mul_f64(draw.clamp(0.0, 1.0)).max(SHORTEST))
        };
        let Some(pause) = pause else { return Next::GiveUp };
        let at = now + pause.max(retry_after.unwrap_or_default());
        let last = first + TRIED_FOR;
        match &self.0 {
            None if now + SHORTEST > last => Next::GiveUp,
            // Whatever the receiver asks for, a last attempt is made before the day is over.
            None => Next::At(at.min(last)),
            // The pauses that were configured hold, however long; what the receiver asks for does so within reason.
            Some(_) => Next::At(at.min(now + pause.max(TRIED_FOR))),
        }
    }

    /// Until when an attempt that is `due` waits for a receiver that gets none meanwhile; the first one was due at `first`. That
    /// is as long as there would be attempts.
    pub fn waits_until(&self, first: Timestamp, due: Timestamp) -> Timestamp {
        let tried_for = self.0.as_ref().map_or(TRIED_FOR, |pauses| pauses.iter().sum());
        (first + tried_for).max(due + PATIENCE)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const START: Timestamp = Timestamp::from_millis(1_000_000);

    #[test]
    fn given_pauses_are_kept_to() {
        let schedule = Schedule::new(Some(vec![Duration::from_secs(5), Duration::from_secs(30)]));
        let next = |attempts| schedule.next(attempts, START, START, None, 0.3);
        assert_eq!(next(1), Next::At(START + Duration::from_secs(5)));
        assert_eq!(next(2), Next::At(START + Duration::from_secs(30)));
        assert_eq!(next(3), Next::GiveUp);
    }

    /// With pauses of one's own it once waited for as long as a receiver liked, and later stages behind it; without any it was
    /// given up at once where a receiver asked for a day.
    #[test]
    fn what_a_receiver_asks_for_counts_for_a_day_at_most() {
        let minute = Duration::from_mins(1);
        let check = |pauses: Option<Duration>, after: Duration, expected: Next| {
            let schedule = Schedule::new(pauses.map(|pause| vec![pause]));
            assert_eq!(schedule.next(1, START, START, Some(after), 0.0), expected, "{pauses:?} {after:?}");
        };
        check(Some(minute), minute * 2, Next::At(START + minute * 2));
        check(Some(minute), TRIED_FOR * 9, Next::At(START + TRIED_FOR));
        check(Some(TRIED_FOR * 2), TRIED_FOR * 9, Next::At(START + TRIED_FOR * 2));
        check(None, TRIED_FOR * 9, Next::At(START + TRIED_FOR));
        let late = |now| Schedule::new(None).next(2, START, now, Some(TRIED_FOR), 1.0);
        assert_eq!(late(START + TRIED_FOR - minute), Next::At(START + TRIED_FOR));
        assert_eq!(late(START + TRIED_FOR), Next::GiveUp);
    }

    #[test]
    fn what_is_due_waits_for_its_receiver_as_long_as_there_would_be_attempts() {
        let check = |pauses: Option<&[Duration]>, due: Timestamp, expected: Timestamp| {
            let schedule = Schedule::new(pauses.map(<[_]>::to_vec));
            assert_eq!(schedule.waits_until(START, due), expected, "{pauses:?}");
        };
        let (second, hour) = (Duration::from_secs(1), Duration::from_hours(1));
        check(None, START, START + TRIED_FOR);
        check(None, START + TRIED_FOR, START + TRIED_FOR + PATIENCE);
        check(Some(&[hour, TRIED_FOR]), START + hour, START + TRIED_FOR + hour);
        check(Some(&[second]), START + second, START + second + PATIENCE);
        check(Some(&[]), START, START + PATIENCE);
    }

    proptest! {
        #[test]
        fn attempts_end_within_a_day_and_mind_retry_after(
            draws in proptest::collection::vec(0.0_f64..1.0, 200), after in proptest::option::of(0_u64..4000),
        ) {
            let schedule = Schedule::new(None);
            let after = after.map(Duration::from_secs);
            let (mut now, mut attempts) = (START, 1);
            for draw in draws {
                match schedule.next(attempts, START, now, after, draw) {
                    Next::At(at) => {
                        let asked = now + SHORTEST.max(after.unwrap_or_default());
                        prop_assert!(at >= asked.min(START + TRIED_FOR) && at >= now + SHORTEST);
                        prop_assert!(at <= START + TRIED_FOR);
                        (now, attempts) = (at, attempts + 1);
                    }
                    Next::GiveUp => break,
                }
            }
            prop_assert!(attempts > 4);
        }
    }
}
