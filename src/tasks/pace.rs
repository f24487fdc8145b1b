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
}

impl Pace {
    /// In the place of callbacks: from early on, so that stages are seen, and often enough that a tenant waits a tenth
    /// longer at most.
    pub(super) fn bridge(usual: Duration) -> Self {
        let step = (usual / 10).clamp(SHORTEST, LONGEST);
        Self { first: step, step }
    }

    /// For a task that should have been heard of by then.
    pub(super) fn overdue(usual: Duration) -> Self {
        Self { first: usual * 2 + GRACE, step: (usual / 4).clamp(SHORTEST * 5, LONGEST) }
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

    /// One took so long: a quarter of what is known is replaced by it.
    pub(super) fn learn(&mut self, task: &Task, took: Duration) {
        let kind = (Arc::clone(&task.operation), task.model.clone());
        let usual = self.0.entry(kind).or_insert(took);
        *usual = (*usual * 3 + took) / 4;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
