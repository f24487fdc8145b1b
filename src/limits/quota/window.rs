//! How many creates the upstream may have counted lately, and how many it takes: the sliding window.
//!
//! Pure: the time is passed in. The upstream counts a create when it arrives, which is some time between its
//! sending and its answer. So a create has a place here from its sending until a period after its answer:
//! then no window of one period holds more than the limit at the upstream, however long the ways there are.
//!
//! An answer 429 in spite of that means that the limit is lower than configured, or that others share the
//! account. The limit in force becomes what the upstream had taken by then, and rises by one for each period
//! that goes well. Each time that a rise turns out to have been too much, the next one is twice as long in coming.

use std::collections::VecDeque;
use std::num::NonZeroU32;
use std::time::Duration;

use tokio::time::Instant;

/// Added to a period, since the upstream's clock and ours are not read to the nanosecond.
pub(super) const ROUNDING: Duration = Duration::from_millis(1);

/// The upstream's word is not taken for longer than this at a time; after it one create tries again.
pub(super) const LONGEST_BLOCK: Duration = Duration::from_hours(1);

/// The window of one account. Methods that take the time expect it not to go back from call to call.
pub(super) struct Window {
    configured: u32,
    period: Duration,
    /// Creates that are sent and not answered.
    under_way: u32,
    /// When the places of answered creates become free, the earliest first.
    ends: VecDeque<Instant>,
    blocked_until: Option<Instant>,
    learned: Option<Learned>,
}

/// What a 429 taught.
#[derive(Clone, Copy)]
struct Learned {
    limit: u32,
    since: Instant,
    /// After so many periods it rises for the first time.
    patience: u32,
}

/// The most periods before a rise.
const MOST_PATIENCE: u32 = 32;

/// When there is room for another create, as things stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Room {
    Now,
    /// Not before this.
    From(Instant),
    /// When one that is under way has been answered.
    AfterAnswer,
}

impl Window {
    pub(super) fn new(limit: NonZeroU32, period: Duration) -> Self {
        Self {
            configured: limit.get(),
            period,
            under_way: 0,
            ends: VecDeque::new(),
            blocked_until: None,
            learned: None,
        }
    }

    /// How many may be in the window by the configuration.
    pub(super) fn configured(&self) -> u32 {
        self.configured
    }

    /// How many may be in the window at `now`, by what was learned.
    pub(super) fn limit(&self, now: Instant) -> u32 {
        let Some(learned) = self.learned else { return self.configured };
        let quiet = now.saturating_duration_since(learned.since).as_nanos() / self.period.as_nanos().max(1);
        let quiet = u32::try_from(quiet).unwrap_or(u32::MAX);
        let risen = quiet.saturating_sub(learned.patience - 1);
        learned.limit.saturating_add(risen).min(self.configured)
    }

    /// How many are in the window at `now`.
    pub(super) fn occupied(&self, now: Instant) -> u32 {
        let gone = self.ends.partition_point(|end| *end <= now);
        self.under_way.saturating_add(u32::try_from(self.ends.len() - gone).unwrap_or(u32::MAX))
    }

    /// Until when the upstream wants nothing, if it does.
    pub(super) fn blocked_until(&self, now: Instant) -> Option<Instant> {
        self.blocked_until.filter(|until| now < *until)
    }

    /// Whether another may be sent, or when.
    pub(super) fn room(&self, now: Instant) -> Room {
        if let Some(until) = self.blocked_until(now) {
            return Room::From(until);
        }
        let (limit, occupied) = (self.limit(now), self.occupied(now));
        if occupied < limit {
            return Room::Now;
        }
        // The limit may rise before enough places become free: then there is one more to look.
        let until_free = self.present_ends(now).nth(usize_of(occupied - limit));
        [until_free, self.next_rise(now)].into_iter().flatten().min().map_or(Room::AfterAnswer, Room::From)
    }

    /// One is sent.
    pub(super) fn send(&mut self, now: Instant) {
        while self.ends.front().is_some_and(|end| *end <= now) {
            self.ends.pop_front();
        }
        self.under_way = self.under_way.saturating_add(1);
    }

    /// One that was to be sent was not.
    pub(super) fn unsend(&mut self) {
        self.under_way = self.under_way.saturating_sub(1);
    }

    /// One was answered, or nobody waits for its answer any more.
    pub(super) fn answered(&mut self, now: Instant) {
        self.unsend();
        self.ends.push_back(now + self.hold());
    }

    /// One was answered with 429: nothing is sent for as long as the upstream wants, or for a period.
    ///
    /// The refused one itself leaves the window: the upstream did not take it, and the pause stands for it.
    /// So those that are left are what the upstream takes.
    pub(super) fn throttled(&mut self, now: Instant, retry_after: Option<Duration>) {
        let in_force = self.limit(now);
        self.unsend();
        let pause = retry_after.filter(|pause| !pause.is_zero()).unwrap_or(self.hold()).min(LONGEST_BLOCK);
        let until = self.blocked_until.map_or(now + pause, |earlier| earlier.max(now + pause));
        self.blocked_until = Some(until);
        let limit = self.occupied(now).min(in_force).max(1);
        let patience = match self.learned {
            Some(before) if limit > before.limit => 1,
            Some(before) if in_force > before.limit => (before.patience * 2).min(MOST_PATIENCE),
            Some(before) => before.patience,
            None => 1,
        };
        self.learned = Some(Learned { limit, since: until, patience });
    }

    /// When there will be room for one more after `ahead` others, if what is under way is answered now, the
    /// limit stays, and each that is sent is answered at once. An estimate, for those who ask when to come
    /// back.
    pub(super) fn estimate(&self, now: Instant, ahead: usize) -> Instant {
        let start = self.blocked_until(now).unwrap_or(now);
        let (limit, occupied) = (usize_of(self.limit(start)).max(1), usize_of(self.occupied(start)));
        let places = limit.saturating_sub(occupied);
        let Some(behind) = ahead.checked_sub(places) else { return start };
        let turned = self.present_ends(start).nth(occupied.saturating_sub(limit) + behind % limit);
        let rounds = u32::try_from(behind / limit).unwrap_or(u32::MAX);
        let more = self.hold().saturating_mul(rounds);
        let first = turned.unwrap_or(start + self.hold());
        first.checked_add(more).unwrap_or(first)
    }

    /// How long a create keeps its place after its answer.
    fn hold(&self) -> Duration {
        self.period.saturating_add(ROUNDING)
    }

    fn present_ends(&self, now: Instant) -> impl Iterator<Item = Instant> {
        self.ends.range(self.ends.partition_point(|end| *end <= now)..).copied()
    }

    /// When the limit rises next.
    fn next_rise(&self, now: Instant) -> Option<Instant> {
        let learned = self.learned.filter(|_| self.limit(now) < self.configured)?;
        let risen = self.limit(now).saturating_sub(learned.limit);
        Some(learned.since + self.period.saturating_mul(risen.saturating_add(learned.patience)))
    }
}

fn usize_of(count: u32) -> usize {
    usize::try_from(count).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PERIOD: Duration = Duration::from_secs(10);

    fn window(limit: u32) -> (Window, Instant) {
        (Window::new(NonZeroU32::new(limit).unwrap(), PERIOD), Instant::now())
    }

    fn seconds(count: u64) -> Duration {
        Duration::from_secs(count)
    }

    /// An upstream that takes three, told that it takes five.
    #[test]
    fn a_limit_that_was_too_high_is_tried_ever_more_seldom() {
        let (mut window, start) = window(5);
        let (mut now, mut refusals) = (start, Vec::new());
        while now < start + 200 * PERIOD {
            if window.room(now) != Room::Now {
                now += Duration::from_millis(100);
                continue;
            }
            let taken = window.occupied(now);
            window.send(now);
            if taken < 3 {
                window.answered(now);
            } else {
                refusals.push((now - start).as_secs() / PERIOD.as_secs());
                window.throttled(now, None);
            }
        }
        assert!(refusals.len() <= 10, "{refusals:?}");
        let pauses: Vec<u64> = refusals.windows(2).map(|two| two[1] - two[0]).collect();
        assert!(pauses.is_sorted() && *pauses.last().unwrap() >= 32, "{pauses:?}");
    }

    #[test]
    fn a_place_is_held_from_the_sending_until_a_period_after_the_answer() {
        let (mut window, start) = window(2);
        window.send(start);
        window.send(start);
        assert_eq!(window.room(start + seconds(100)), Room::AfterAnswer);
        window.answered(start + seconds(100));
        let free = start + seconds(110) + ROUNDING;
        assert_eq!(window.room(start + seconds(101)), Room::From(free));
        assert_eq!(window.occupied(free - Duration::from_nanos(1)), 2);
        assert_eq!(window.room(free), Room::Now);
    }

    #[test]
    fn what_was_not_sent_leaves_no_trace() {
        let (mut window, start) = window(1);
        window.send(start);
        window.unsend();
        assert_eq!(window.room(start), Room::Now);
    }

    #[test]
    fn a_429_teaches_the_limit_and_each_quiet_period_gives_one_back() {
        let (mut window, start) = window(5);
        (0..4).for_each(|_| window.send(start));
        window.answered(start);
        window.answered(start);
        window.throttled(start, Some(seconds(3)));
        assert_eq!(window.limit(start), 3, "two answered and one under way were taken");
        assert_eq!(window.room(start), Room::From(start + seconds(3)));
        let again = start + seconds(3);
        assert_eq!(window.room(again), Room::From(start + PERIOD + ROUNDING));
        assert_eq!(window.limit(again + seconds(9)), 3);
        assert_eq!(window.limit(again + seconds(10)), 4);
        assert_eq!(window.limit(again + seconds(20)), 5);
        assert_eq!(window.limit(again + seconds(2000)), 5);
    }

    #[test]
    fn without_a_word_from_the_upstream_the_pause_is_a_period_and_the_limit_at_least_one() {
        for silence in [None, Some(Duration::ZERO)] {
            let (mut window, start) = window(5);
            window.send(start);
            window.throttled(start, silence);
            assert_eq!(window.room(start), Room::From(start + PERIOD + ROUNDING));
            assert_eq!(window.limit(start), 1);
        }
        let (mut window, start) = window(5);
        window.send(start);
        window.throttled(start, Some(Duration::MAX));
        assert_eq!(window.blocked_until(start), Some(start + LONGEST_BLOCK));
    }

    #[test]
    fn a_later_429_lengthens_a_pause_and_never_shortens_it() {
        let (mut window, start) = window(5);
        window.send(start);
        window.send(start);
        window.throttled(start, Some(seconds(60)));
        window.throttled(start + seconds(1), Some(seconds(2)));
        assert_eq!(window.blocked_until(start + seconds(1)), Some(start + seconds(60)));
    }

    #[test]
    fn a_rise_of_the_limit_makes_room_before_a_place_does() {
        let (mut window, start) = window(2);
        window.send(start);
        window.send(start);
        window.throttled(start, Some(seconds(1)));
        let later = start + seconds(2);
        assert_eq!(window.room(later), Room::From(start + seconds(11)), "one is under way, the limit is one");
        assert_eq!(window.room(start + seconds(11)), Room::Now);
    }

    #[test]
    fn estimates_count_who_is_ahead() {
        let (mut window, start) = window(2);
        assert_eq!(window.estimate(start, 1), start);
        window.send(start);
        window.answered(start);
        let round = PERIOD + ROUNDING;
        let check = |ahead, rounds: u32| {
            assert_eq!(window.estimate(start, ahead), start + round * rounds, "{ahead} ahead");
        };
        check(0, 0);
        check(1, 1);
        check(2, 1);
        check(3, 2);
        check(200, 100);
    }
}
