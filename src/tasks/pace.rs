//! How often a task is asked for, by how long such tasks usually take.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use crate::store::Task;

/// Never more often than that.
const SHORTEST: Duration = Duration::from_secs(2);
/// Nor less often, while there is hope.
const LONGEST: Duration = Duration::from_mins(5);
/// How late a callback may be beside the usual duration.
const GRACE: Duration = Duration::from_secs(30);

/// When one task is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Pace {
    first: Duration,
    step: Duration,
    is_close: bool,
}

impl Pace {
    /// In the place of callbacks: from early on, so that stages are seen, and often enough that a tenant waits a tenth
    /// longer at most.
    pub(super) fn bridge(usual: Duration) -> Self {
        let step = (usual / 10).clamp(SHORTEST, LONGEST);
        Self { first: step, step, is_close: true }
    }

    /// For a task that should have been heard of by then.
    pub(super) fn overdue(usual: Duration) -> Self {
        Self { first: usual * 2 + GRACE, step: (usual / 4).clamp(SHORTEST * 5, LONGEST), is_close: false }
    }

    /// From its creation to the first look.
    pub(super) fn first(self) -> Duration {
        self.first
    }

    /// From the look of that number to the next: even steps at first, then growing ones.
    pub(super) fn after(self, polls: u32) -> Duration {
        let doublings = polls.saturating_sub(20).min(16);
        (self.step * 2_u32.saturating_pow(doublings)).min(LONGEST.max(self.step))
    }

    /// Whether it is looked for the end all the time, and not only when that is overdue.
    pub(super) fn is_close(self) -> bool {
        self.is_close
    }
}

/// How long tasks of an operation and a model usually take.
#[derive(Debug, Default)]
pub(super) struct Paces(HashMap<(Arc<str>, Option<Arc<str>>), Duration>);

impl Paces {
    /// The usual duration of such a task; `expected` before one of them has ended.
    pub(super) fn usual(&mut self, task: &Task, expected: impl FnOnce() -> Duration) -> Duration {
        let kind = (Arc::clone(&task.operation), task.model.clone());
        self.0.get(&kind).copied().unwrap_or_else(expected)
    }

    /// One took so long, where `expected` was known before any had ended: a quarter of what is known is replaced by it, by no
    /// more than four times that and no less than a quarter, since one that was held up says little of the others.
    pub(super) fn learn(&mut self, task: &Task, took: Duration, expected: impl FnOnce() -> Duration) {
        let kind = (Arc::clone(&task.operation), task.model.clone());
        let usual = self.0.entry(kind).or_insert_with(expected);
        let counted = took.clamp(*usual / 4, *usual * 4);
        *usual = (*usual * 3 + counted) / 4;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::{Moment, Timestamp};
    use crate::ids::{Credits, TenantId};
    use crate::store::{CreateId, TaskState};

    fn task() -> Task {
        Task {
            create: CreateId::new(),
            tenant: TenantId::new("acme"),
            operation: "runway.generate".into(),
            model: None,
            key: None,
            callback: None,
            request: bytes::Bytes::new(),
            created: Timestamp::default(),
            counts_at: Moment::Real(Timestamp::default()),
            reserved: Credits::ZERO,
            id: None,
            base: None,
            state: TaskState::Sent,
        }
    }

    /// One that nobody heard of for a day made hours of a minute.
    #[test]
    fn one_that_was_held_up_says_little_of_the_others() {
        let usual = Duration::from_mins(1);
        let mut paces = Paces::default();
        let task = task();
        assert_eq!(paces.usual(&task, || usual), usual);
        paces.learn(&task, Duration::from_hours(24), || usual);
        assert_eq!(paces.usual(&task, || usual), usual * 7 / 4);
        let mut paces = Paces::default();
        paces.learn(&task, Duration::ZERO, || usual);
        assert_eq!(paces.usual(&task, || usual), usual * 13 / 16);
    }

    #[test]
    fn polls_are_even_at_first_and_rarer_later() {
        let pace = Pace::bridge(Duration::from_mins(1));
        assert_eq!((pace.first(), pace.after(1)), (Duration::from_secs(6), Duration::from_secs(6)));
        assert_eq!(pace.after(21), Duration::from_secs(12));
        assert_eq!(pace.after(1000), LONGEST);
        assert_eq!(Pace::bridge(Duration::from_secs(1)).first(), SHORTEST);
        assert!(Pace::overdue(Duration::from_mins(1)).first() > Duration::from_mins(2));
    }
}
