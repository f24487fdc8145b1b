//! What a simulated task looks like at a given instant.
//!
//! Pure: no clock, no lock, no socket. Everything is decided once, when the task is created; nothing is drawn when
//! somebody looks. So any instant can be asked about, and no job in the background can be late.

use std::time::Duration;

use crate::catalogue::{ErrorIx, Lifecycle, Moment};
use crate::clock::{Draw, Timestamp};

/// Everything that will happen to a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plan {
    created: Timestamp,
    /// Milliseconds in each phase of the lifecycle; phases that are not reached have none.
    stays: [u32; Lifecycle::MOST_PHASES],
    ending: Ending,
}

/// How a task ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// With a result.
    Success {
        /// Made by the backup model.
        fallback: bool,
    },
    /// With an error.
    Fail(ErrorIx),
    /// Not at all: it stays in its last phase.
    Stall,
}

/// Where a task stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// In the phase of that number.
    Running(usize),
    /// At its end.
    Ended(Ending),
}

/// How long simulated work takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Pace {
    /// No time at all.
    Instant,
    /// About three seconds a task.
    Fast,
    /// As long as the catalogue says.
    Realistic,
}

/// What the durations of a plan depend on.
#[derive(Clone, Copy, Debug)]
pub struct Tempo {
    /// How long work takes in general.
    pub pace: Pace,
    /// How long this task shall take from creation to end, if somebody said so.
    pub exactly: Option<Duration>,
}

impl Plan {
    /// Decides what happens to a task of this `lifecycle`. `moment` is when a failure shows.
    pub fn decide(
        lifecycle: &Lifecycle,
        created: Timestamp,
        ending: Ending,
        moment: Moment,
        tempo: Tempo,
        draw: &mut Draw,
    ) -> Self {
        let mut stays = [0; Lifecycle::MOST_PHASES];
        let phases = &lifecycle.phases[..lifecycle.phases.len().min(stays.len())];
        let total = tempo.exactly.or(match tempo.pace {
            Pace::Instant => Some(Duration::ZERO),
            Pace::Fast => Some(Duration::from_millis(draw.integer(2700, 3300))),
            Pace::Realistic => None,
        });
        for (index, phase) in phases.iter().enumerate() {
            stays[index] = match total {
                Some(total) => share(total, index, phases.len()),
                None => {
                    u32::try_from(draw.integer(phase.stay.0.into(), phase.stay.1.into())).unwrap_or(u32::MAX)
                }
            };
        }
        if matches!(ending, Ending::Fail(_)) {
            cut_short(&mut stays[..phases.len()], moment, tempo.exactly.is_some(), draw);
        }
        Self { created, stays, ending }
    }

    /// The plan that stays so many milliseconds in each phase.
    pub fn of_stays(created: Timestamp, stays: [u32; Lifecycle::MOST_PHASES], ending: Ending) -> Self {
        Self { created, stays, ending }
    }

    /// Milliseconds in each phase.
    pub fn stays(&self) -> &[u32] {
        &self.stays
    }

    /// When the task was created.
    pub fn created(&self) -> Timestamp {
        self.created
    }

    /// How it ends.
    pub fn ending(&self) -> Ending {
        self.ending
    }

    /// When it ends; `None` if it never does.
    pub fn ends(&self) -> Option<Timestamp> {
        let work: u64 = self.stays.iter().copied().map(u64::from).sum();
        (self.ending != Ending::Stall).then(|| self.created + Duration::from_millis(work))
    }

    /// When the phase of that number begins.
    pub fn phase_begins(&self, phase: usize) -> Timestamp {
        let before: u64 = self.stays.iter().take(phase).copied().map(u64::from).sum();
        self.created + Duration::from_millis(before)
    }

    /// The state at `now`. Total (before its creation a task is in its first phase) and never going back as `now`
    /// grows.
    pub fn state_at(&self, now: Timestamp) -> State {
        let mut age = now.saturating_since(self.created).as_millis();
        let mut reached = 0;
        for (index, stay) in self.stays.iter().copied().enumerate().filter(|(_, stay)| *stay > 0) {
            reached = index;
            if age < u128::from(stay) {
                return State::Running(index);
            }
            age -= u128::from(stay);
        }
        match self.ending {
            Ending::Stall => State::Running(reached),
            ended if now >= self.created => State::Ended(ended),
            _ => State::Running(0),
        }
    }

    /// How much of the work is done at `now`, from 0 to 1; 1 only at the end of a success.
    pub fn progress_at(&self, now: Timestamp) -> f64 {
        if let State::Ended(Ending::Success { .. }) = self.state_at(now) {
            return 1.0;
        }
        let work: u64 = self.stays.iter().copied().map(u64::from).sum();
        let age = now.saturating_since(self.created).as_secs_f64() * 1000.0;
        #[expect(clippy::cast_precision_loss, reason = "some minutes in milliseconds")]
        (age / (work.max(1) as f64)).min(0.99)
    }

    /// The same task, but it ends at `now` with `ending`. What has ended already stays as it is.
    #[must_use]
    pub fn finished_at(&self, now: Timestamp, ending: Ending) -> Self {
        if matches!(self.state_at(now), State::Ended(_)) {
            return *self;
        }
        let mut left = u64::try_from(now.saturating_since(self.created).as_millis()).unwrap_or(u64::MAX);
        let mut stays = self.stays.map(|stay| {
            let stayed = u64::from(stay).min(left);
            left -= stayed;
            u32::try_from(stayed).unwrap_or(u32::MAX)
        });
        let last = stays.iter().rposition(|stay| *stay > 0).unwrap_or(0);
        stays[last] = stays[last].saturating_add(u32::try_from(left).unwrap_or(u32::MAX));
        Self { created: self.created, stays, ending }
    }
}

/// The part of `total` that goes to a phase: a fifth to each but the last, so that a person who polls sees them all.
fn share(total: Duration, phase: usize, phases: usize) -> u32 {
    let total = u32::try_from(total.as_millis()).unwrap_or(u32::MAX);
    let fifth = total / 5;
    if phase + 1 < phases { fifth } else { total - fifth * u32::try_from(phases - 1).unwrap_or(4) }
}

/// Lets a failure show before all the work is done.
fn cut_short(stays: &mut [u32], moment: Moment, exactly: bool, draw: &mut Draw) {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a part of a u32 fits in a u32"
    )]
    let part = |stay: u32, fraction: f64| (f64::from(stay) * fraction) as u32;
    let fraction = 0.3 + 0.6 * draw.fraction();
    match moment {
        Moment::AtOnce => stays.fill(0),
        _ if exactly => {}
        Moment::Early => {
            stays[0] = part(stays[0], fraction);
            stays[1..].fill(0);
        }
        Moment::Late => {
            if let Some(last) = stays.last_mut() {
                *last = part(*last, fraction);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;
    use crate::catalogue::{EndState, Phase};

    fn lifecycle(stays: &[(u32, u32)]) -> Lifecycle {
        let end = |moment| EndState { state: Value::Null, moment, with_result: false };
        Lifecycle {
            inline: false,
            phases: stays.iter().map(|stay| Phase { state: Value::Null, stay: *stay }).collect(),
            endings: vec![("success".into(), end(Moment::Late)), ("fail".into(), end(Moment::Late))],
            source: String::new(),
        }
    }

    fn any_plan() -> impl Strategy<Value = Plan> {
        let stays = prop::collection::vec((0..5000_u32, 0..900_000_u32), 1..=Lifecycle::MOST_PHASES);
        let ending = prop_oneof![
            any::<bool>().prop_map(|fallback| Ending::Success { fallback }),
            Just(Ending::Fail(crate::catalogue::Catalogue::embedded().unwrap().shared().unauthorized)),
            Just(Ending::Stall),
        ];
        let moment = prop_oneof![Just(Moment::Late), Just(Moment::Early), Just(Moment::AtOnce)];
        let pace = prop_oneof![Just(Pace::Instant), Just(Pace::Fast), Just(Pace::Realistic)];
        let exactly = prop::option::of((0..10_000_u64).prop_map(Duration::from_millis));
        (stays, ending, moment, pace, exactly, any::<u64>(), 0..i64::from(i32::MAX)).prop_map(
            |(stays, ending, moment, pace, exactly, seed, created)| {
                let stays: Vec<_> = stays.into_iter().map(|(low, more)| (low, low + more)).collect();
                let mut draw = Draw::new(&[&seed.to_le_bytes()]);
                let tempo = Tempo { pace, exactly };
                let created = Timestamp::from_millis(created);
                Plan::decide(&lifecycle(&stays), created, ending, moment, tempo, &mut draw)
            },
        )
    }

    fn rank(state: State) -> usize {
        match state {
            State::Running(phase) => phase,
            State::Ended(_) => usize::MAX,
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn a_task_never_goes_back(plan in any_plan(), mut ages in prop::collection::vec(-1000..2_000_000_i64, 2..20)) {
            ages.sort_unstable();
            let at = |age: i64| Timestamp::from_millis(plan.created().millis() + age);
            let ranks: Vec<_> = ages.iter().map(|age| rank(plan.state_at(at(*age)))).collect();
            prop_assert!(ranks.is_sorted(), "{ranks:?}");
            let progress: Vec<_> = ages.iter().map(|age| plan.progress_at(at(*age))).collect();
            prop_assert!(progress.is_sorted(), "{progress:?}");
        }

        #[test]
        fn a_task_ends_exactly_when_its_plan_says(plan in any_plan()) {
            match plan.ends() {
                None => prop_assert!(matches!(plan.state_at(Timestamp::MAX), State::Running(_))),
                Some(end) => {
                    prop_assert_eq!(plan.state_at(end), State::Ended(plan.ending()));
                    prop_assert!(matches!(plan.state_at(end - Duration::from_millis(1)), State::Running(_)));
                }
            }
        }

        #[test]
        fn finishing_now_ends_now_and_keeps_the_past(plan in any_plan(), age in 0..2_000_000_u64) {
            let now = plan.created() + Duration::from_millis(age);
            let finished = plan.finished_at(now, Ending::Success { fallback: false });
            prop_assert!(matches!(finished.state_at(now), State::Ended(_)));
            if age > 0 && matches!(plan.state_at(now), State::Running(_)) {
                let before = now - Duration::from_millis(1);
                prop_assert_eq!(finished.state_at(before), plan.state_at(before));
            }
        }
    }

    #[test]
    fn the_same_draw_gives_the_same_plan() {
        let decide = |seed: &[u8]| {
            let lifecycle = lifecycle(&[(100, 2000), (5000, 90_000)]);
            let tempo = Tempo { pace: Pace::Realistic, exactly: None };
            let ending = Ending::Success { fallback: false };
            Plan::decide(
                &lifecycle,
                Timestamp::default(),
                ending,
                Moment::Late,
                tempo,
                &mut Draw::new(&[seed]),
            )
        };
        assert_eq!(decide(b"1"), decide(b"1"));
        assert_ne!(decide(b"1"), decide(b"2"));
    }

    #[test]
    fn a_fast_task_takes_about_three_seconds_and_shows_every_phase() {
        let lifecycle = lifecycle(&[(1, 1), (1, 1), (600_000, 600_000)]);
        let tempo = Tempo { pace: Pace::Fast, exactly: None };
        let ending = Ending::Success { fallback: false };
        let plan = Plan::decide(
            &lifecycle,
            Timestamp::default(),
            ending,
            Moment::Late,
            tempo,
            &mut Draw::new(&[b"x"]),
        );
        let took = plan.ends().unwrap().millis();
        assert!((2700..=3300).contains(&took), "{took}");
        let seen: Vec<_> =
            [0, 700, 1500, 3300].iter().map(|age| plan.state_at(Timestamp::from_millis(*age))).collect();
        assert_eq!(seen, [State::Running(0), State::Running(1), State::Running(2), State::Ended(ending)]);
    }
}
