//! Answers that are kept, and questions that are asked once for many.
//!
//! A [`Cache`] knows keys, freshness and how to ask only once at a time ([`Cache::ask`]). What a key stands for, who
//! may share it and how long an answer stays fresh, its user says; where answers come from it does not know. Freshness
//! stands in the entry and goes by the caller's clock; moka bounds the size only.

mod flight;

use std::collections::HashMap;
use std::collections::hash_map;
use std::future::Future;
use std::pin::pin;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use futures_util::FutureExt as _;
use moka::Entry;
use moka::ops::compute::{CompResult, Op};
use tokio::sync::Notify;

use flight::{Flight, Passenger};

use crate::background::PerLane;
use crate::clock::Timestamp;

/// What an answer is kept under. Whatever makes two questions different must be in it, whose they are first of all.
pub type Key = Arc<str>;

/// Something that can be kept.
pub trait Keep: Clone + Send + Sync + 'static {
    /// About how many bytes it takes.
    fn size(&self) -> usize;
    /// Until when it may be given for an answer; `None`: not at all.
    fn fresh_until(&self) -> Option<Timestamp>;
    /// The turn in which it was asked for, if it was asked for again ([`Cache::turn`]).
    fn turn(&self) -> Option<u32> {
        None
    }
    /// The same in memory of its own, down to what clones share.
    #[must_use]
    fn apart(&self) -> Self;
}

/// How far a question was at some time: another mark means that an answer may have been kept since.
#[derive(Clone, Copy, Debug)]
pub struct Mark {
    hash: u64,
    version: u32,
}

/// How an answer was come by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// It was there.
    Hit,
    /// It was asked for.
    Miss,
    /// Somebody else was asking already.
    Coalesced,
}

/// Kept answers of type `T`, bounded in bytes, and questions under way.
pub struct Cache<T: Keep> {
    kept: Arc<Kept<T>>,
    /// What each lane has given several times lately.
    near: PerLane<Mutex<Near<T>>>,
    /// By what their keys hash to, so that cores seldom meet.
    flights: [Mutex<Flights<T>>; 16],
    hasher: ahash::RandomState,
}

/// What is kept for all.
struct Kept<T: Keep> {
    /// Each with the turn of its question; nothing where only that is known that it is older.
    answers: moka::sync::Cache<Key, (u32, Option<T>), ahash::RandomState>,
    /// Raised after an answer was kept, by what its key hashes to: what a lane has is from before. None was kept where it is 0.
    versions: Box<[Version]>,
}

/// What is known of the questions whose keys hash to one place.
#[derive(Default)]
struct Version {
    number: AtomicU32,
    /// Counts the questions, in the order in which they are asked.
    turns: AtomicU32,
    /// The number was raised.
    raised: Notify,
}

/// Copies of what is given again and again: what is kept for all is counted by all, and moka notes each look at it.
struct Near<T> {
    /// Each with the version it is of.
    answers: HashMap<Key, (u32, T), ahash::RandomState>,
    /// What was looked for in vain lately, as hashes of keys and versions.
    missed: [u64; 256],
}

/// So many questions are told apart by their versions, at some fifty bytes each.
const VERSIONS: usize = 4096;

/// So many copies a lane has, of so many bytes with their keys.
const MOST_NEAR: usize = 1024;
const LARGEST_NEAR: usize = 8 * 1024;

/// Questions under way. Whoever waits holds the flight up; when the last one leaves, it is given up.
struct Flights<T> {
    /// By what their keys hash to, with a key of our own. Of two questions with the same hash the later takes the place of the
    /// earlier one, which then is not shared any more; nobody will see it.
    under_way: HashMap<u64, Weak<Flight<T>>, ahash::RandomState>,
    /// When there are so many, those that were given up are swept out.
    sweep_at: usize,
}

impl<T: Keep> Cache<T> {
    /// A cache of at most so many bytes; with none, questions are still asked once at a time.
    pub fn new(max_bytes: u64) -> Self {
        let weigh = |key: &Key, (_, kept): &(u32, Option<T>)| {
            let size = kept.as_ref().map_or(0, Keep::size);
            u32::try_from(key.len().saturating_add(size).saturating_add(200)).unwrap_or(u32::MAX)
        };
        let answers = moka::sync::Cache::builder()
            .max_capacity(max_bytes)
            .weigher(weigh)
            .build_with_hasher(ahash::RandomState::new());
        let near = || Mutex::new(Near { answers: HashMap::default(), missed: [0; 256] });
        let flights = || Mutex::new(Flights { under_way: HashMap::default(), sweep_at: 64 });
        Self {
            kept: Arc::new(Kept { answers, versions: (0..VERSIONS).map(|_| Version::default()).collect() }),
            near: PerLane::new(near),
            flights: std::array::from_fn(|_| flights()),
            hasher: ahash::RandomState::new(),
        }
    }

    /// The kept answer to `key`, if it is fresh at `now`; else a mark of that time.
    ///
    /// # Errors
    /// There is none.
    pub fn fresh(&self, key: &str, now: Timestamp) -> Result<T, Mark> {
        let mark = self.mark(key);
        let found = if mark.version == 0 { None } else { self.find(key, mark, now) };
        found.ok_or(mark)
    }

    /// A mark of what is kept for `key` now.
    pub fn mark(&self, key: &str) -> Mark {
        let hash = self.hasher.hash_one(key);
        Mark { hash, version: self.kept.number(hash) }
    }

    /// Whether an answer may have been kept since then.
    pub fn has_news(&self, since: Mark) -> bool {
        self.kept.number(since.hash) != since.version
    }

    /// Waits until an answer may have been kept since then.
    pub async fn news(&self, since: Mark) {
        let raised = &self.kept.version(since.hash).raised;
        loop {
            let mut told = pin!(raised.notified());
            told.as_mut().enable();
            if self.has_news(since) {
                return;
            }
            told.await;
        }
    }

    fn find(&self, key: &str, Mark { hash, version }: Mark, now: Timestamp) -> Option<T> {
        let is_fresh = |kept: &T| kept.fresh_until().is_some_and(|until| now < until);
        let mut near = self.near.here().lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((known, kept)) = near.answers.get(key)
            && *known == version
            && is_fresh(kept)
        {
            return Some(kept.clone());
        }
        let kept = self.kept.answers.get(key)?.1.filter(is_fresh)?;
        // Once is not enough: what is kept anew all the time is not worth a copy.
        let sight = hash.wrapping_add(version.into());
        let place = place(hash, near.missed.len());
        if std::mem::replace(&mut near.missed[place], sight) == sight
            && key.len() + kept.size() <= LARGEST_NEAR
        {
            if near.answers.len() >= MOST_NEAR {
                near.answers.clear();
            }
            near.answers.insert(key.into(), (version, kept.apart()));
        }
        Some(kept)
    }

    /// Something else told of `key`, and with that the answer, if there is one: what is kept is true no more, nor what is being
    /// asked for, and whoever asks from now on does not join that.
    pub fn told(&self, key: &Key, answer: Option<&T>) {
        let hash = self.hasher.hash_one(&**key);
        let mut flights = self.flights(hash);
        flights.under_way.remove(&hash);
        let turn = self.kept.turn(hash);
        drop(flights);
        self.kept.put(key, answer.filter(|answer| answer.fresh_until().is_some()), hash, turn);
    }

    /// The turn of a question that is asked now. Of two answers the one with the later turn is newer; each question has one from
    /// its beginning.
    pub fn turn(&self, key: &str) -> u32 {
        self.kept.turn(self.hasher.hash_one(key))
    }

    /// About how many bytes are kept for all.
    pub fn bytes(&self) -> u64 {
        self.kept.answers.run_pending_tasks();
        self.kept.answers.weighted_size()
    }

    /// The answer of `ask`, which is asked once however many want it at the same time. One who stops waiting ends it for nobody
    /// else; when all have, the question is given up. Whoever does not `join` asks anew, and is joined by those who come later.
    pub fn ask<'c, F, A>(
        &'c self,
        key: &'c Key,
        join: bool,
        ask: A,
    ) -> impl Future<Output = (T, Found)> + use<'c, T, F, A>
    where
        F: Future<Output = T> + Send + 'static,
        A: FnOnce() -> F,
    {
        let hash = self.hasher.hash_one(&**key);
        let (mut passenger, found) = self.board(key, hash, join, ask);
        async move {
            let answer = (&mut passenger).await;
            self.land(hash, passenger.flight());
            (answer, found)
        }
    }

    /// Joins the question under way, or starts it.
    fn board<F>(&self, key: &Key, hash: u64, join: bool, ask: impl FnOnce() -> F) -> (Passenger<T>, Found)
    where
        F: Future<Output = T> + Send + 'static,
    {
        let mut flights = self.flights(hash);
        if join
            && let Some(flight) = flights.under_way.get(&hash).and_then(Weak::upgrade)
            && flight.key() == key
        {
            return (flight.join(), Found::Coalesced);
        }
        let (kept, key_kept, turn) = (Arc::clone(&self.kept), Arc::clone(key), self.kept.turn(hash));
        // Kept by the question itself: whoever asked first may be gone when the answer comes.
        let answered = ask().inspect(move |answer| kept.keep(&key_kept, answer, hash, turn));
        let passenger = Flight::begin(Arc::clone(key), answered.boxed());
        flights.under_way.insert(hash, Arc::downgrade(passenger.flight()));
        if flights.under_way.len() > flights.sweep_at {
            flights.under_way.retain(|_, flight| flight.strong_count() > 0);
            flights.sweep_at = 64.max(flights.under_way.len() * 2);
        }
        (passenger, Found::Miss)
    }

    /// Takes an answered question out, unless another stands in its place already.
    fn land(&self, hash: u64, flight: &Arc<Flight<T>>) {
        let mut flights = self.flights(hash);
        if let hash_map::Entry::Occupied(there) = flights.under_way.entry(hash)
            && there.get().as_ptr() == Arc::as_ptr(flight)
        {
            there.remove();
        }
    }

    fn flights(&self, hash: u64) -> MutexGuard<'_, Flights<T>> {
        self.flights[place(hash, self.flights.len())].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T: Keep> Kept<T> {
    /// Keeps the answer to the question of that turn, unless a later one has been answered already.
    fn keep(&self, key: &Key, answer: &T, hash: u64, turn: u32) {
        // One that is not to be kept leaves what was there, which has gone stale or will.
        if answer.fresh_until().is_none() {
            return;
        }
        self.put(key, Some(answer), hash, answer.turn().unwrap_or(turn));
    }

    fn put(&self, key: &Key, answer: Option<&T>, hash: u64, turn: u32) {
        let put = |there: Option<Entry<Key, (u32, Option<T>)>>| {
            let is_later = |other: u32| turn.wrapping_sub(other) > u32::MAX / 2;
            let is_late = there.is_some_and(|there| is_later(there.value().0));
            if is_late { Op::Nop } else { Op::Put((turn, answer.cloned())) }
        };
        let kept = self.answers.entry(Arc::clone(key)).and_compute_with(put);
        if !matches!(kept, CompResult::Unchanged(_) | CompResult::StillNone(_)) {
            self.raise(hash);
        }
    }

    /// The turn of a question that is asked now.
    fn turn(&self, hash: u64) -> u32 {
        self.version(hash).turns.fetch_add(1, Ordering::Relaxed)
    }

    fn raise(&self, hash: u64) {
        let Version { number, raised, .. } = self.version(hash);
        // Only that none was ever kept is 0, however many were.
        if number.fetch_add(1, Ordering::Release) == u32::MAX {
            number.fetch_add(1, Ordering::Release);
        }
        raised.notify_waiters();
    }

    fn number(&self, hash: u64) -> u32 {
        self.version(hash).number.load(Ordering::Acquire)
    }

    fn version(&self, hash: u64) -> &Version {
        &self.versions[place(hash, self.versions.len())]
    }
}

/// One of `places`, by a hash.
fn place(hash: u64, places: usize) -> usize {
    usize::try_from(hash % places as u64).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::time::Duration;

    use super::*;
    use crate::background::Lanes;

    #[derive(Clone, Debug, PartialEq)]
    struct Answer(u32, Option<Timestamp>);

    impl Keep for Answer {
        fn size(&self) -> usize {
            4
        }
        fn fresh_until(&self) -> Option<Timestamp> {
            self.1
        }
        fn apart(&self) -> Self {
            self.clone()
        }
    }

    impl<T: Keep> Cache<T> {
        /// What is kept, if it is fresh, or else what is asked for.
        async fn look<F>(&self, key: &Key, now: Timestamp, ask: impl FnOnce() -> F) -> (T, Found)
        where
            F: Future<Output = T> + Send + 'static,
        {
            match self.fresh(key, now) {
                Ok(kept) => (kept, Found::Hit),
                Err(_) => self.ask(key, true, ask).await,
            }
        }
    }

    const NOW: Timestamp = Timestamp::from_millis(1_000);
    const LATER: Timestamp = Timestamp::from_millis(3_000);

    /// Two that overlap are answered in another order than that in which they were asked.
    #[tokio::test(start_paused = true)]
    async fn a_late_answer_takes_no_newer_ones_place() {
        let (cache, asked, key) = cache();
        let after = async |seconds, number| {
            let asked = Arc::clone(&asked);
            let ask = move || async move {
                asked.fetch_add(1, Ordering::Relaxed);
                tokio::time::sleep(Duration::from_secs(seconds)).await;
                Answer(number, Some(LATER))
            };
            cache.ask(&key, false, ask).await.0.0
        };
        let (old, new) = tokio::join!(after(2, 1), after(1, 2));
        assert_eq!((old, new), (1, 2), "whoever asks gets what was answered");
        assert_eq!(cache.fresh(&key, NOW).ok(), Some(Answer(2, Some(LATER))));
        let told = async { cache.told(&key, Some(&Answer(4, Some(LATER)))) };
        let (old, ()) = tokio::join!(after(1, 3), told);
        assert_eq!((old, cache.fresh(&key, NOW).ok()), (3, Some(Answer(4, Some(LATER)))));
        let told = async { cache.told(&key, None) };
        let (old, ()) = tokio::join!(after(1, 3), told);
        assert_eq!((old, cache.fresh(&key, NOW).ok()), (3, None), "it is not known which is true");
        assert_eq!(after(1, 5).await, 5);
        assert_eq!(cache.fresh(&key, NOW).ok(), Some(Answer(5, Some(LATER))));
    }

    fn cache() -> (Arc<Cache<Answer>>, Arc<AtomicU32>, Key) {
        (Arc::new(Cache::new(1 << 20)), Arc::default(), "question".into())
    }

    /// Counts itself, and answers after a second.
    async fn slow(asked: Arc<AtomicU32>, until: Option<Timestamp>) -> Answer {
        let number = asked.fetch_add(1, Ordering::Relaxed) + 1;
        tokio::time::sleep(Duration::from_secs(1)).await;
        Answer(number, until)
    }

    #[tokio::test(start_paused = true)]
    async fn a_fresh_answer_is_given_again_and_a_stale_one_is_not() {
        let (cache, asked, key) = cache();
        let look = |now| cache.look(&key, now, || slow(Arc::clone(&asked), Some(LATER)));
        assert_eq!(look(NOW).await.1, Found::Miss);
        assert_eq!(look(Timestamp::from_millis(2_999)).await.1, Found::Hit);
        assert_eq!(look(LATER).await.1, Found::Miss);
        assert_eq!(asked.load(Ordering::Relaxed), 2);
    }

    /// What a lane has at hand once would have been given for as long as it was fresh, whatever had been learned since.
    #[test]
    fn what_is_kept_anew_is_given_by_all_lanes_at_once() {
        let (cache, _, key) = cache();
        for number in 1..=3 {
            let answer = Answer(number, Some(LATER));
            cache.told(&key, Some(&answer));
            for _ in 0..4 {
                assert_eq!(cache.fresh(&key, NOW).ok().as_ref(), Some(&answer));
            }
            assert_eq!(cache.near.here().lock().unwrap().answers.len(), 1, "looked for several times");
        }
        assert!(cache.fresh(&key, LATER).is_err());
    }

    /// On each of two lanes in turn.
    #[tokio::test(flavor = "multi_thread")]
    async fn what_one_lane_has_at_hand_gives_way_to_what_another_keeps() {
        let lanes = Lanes::start(2).unwrap();
        let (cache, _, key) = cache();
        let turn = Arc::new(tokio::sync::Barrier::new(2));
        let mut ends = Vec::new();
        // Each waits for the other, so they are on different lanes.
        for _ in 0..2 {
            let (cache, key, turn) = (Arc::clone(&cache), Arc::clone(&key), Arc::clone(&turn));
            let (tell, end) = tokio::sync::oneshot::channel();
            ends.push(end);
            lanes.spawn(async move {
                let is_first = turn.wait().await.is_leader();
                for number in 0..20 {
                    let answer = Answer(number, Some(LATER));
                    if is_first == (number % 2 == 0) {
                        cache.told(&key, Some(&answer));
                    }
                    turn.wait().await;
                    (0..4).for_each(|_| assert_eq!(cache.fresh(&key, NOW).ok().as_ref(), Some(&answer)));
                    turn.wait().await;
                }
                tell.send(crate::background::lane()).unwrap();
            });
        }
        let ends = futures_util::future::try_join_all(ends);
        let lanes_used =
            tokio::time::timeout(Duration::from_secs(10), ends).await.expect("both end").unwrap();
        assert!(matches!(lanes_used[..], [1, 2] | [2, 1]), "{lanes_used:?}");
        tokio::task::spawn_blocking(|| drop(lanes)).await.unwrap();
    }

    #[test]
    fn a_lane_has_a_bounded_number_at_hand_and_none_that_was_asked_for_once() {
        let (cache, ..) = cache();
        for number in 0..2000 {
            cache.told(&number.to_string().into(), Some(&Answer(number, Some(LATER))));
        }
        let near = || cache.near.here().lock().unwrap().answers.len();
        (0..2000).for_each(|number| assert!(cache.fresh(&number.to_string(), NOW).is_ok()));
        assert_eq!(near(), 0);
        for number in 0..2000_u32 {
            let (key, expected) = (number.to_string(), Some(Answer(number, Some(LATER))));
            (0..3).for_each(|_| assert_eq!(cache.fresh(&key, NOW).ok(), expected));
            assert!((1..=MOST_NEAR).contains(&near()));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_waits_for_news_is_told_when_something_is_kept() {
        let (cache, _, key) = cache();
        let mark = cache.mark(&key);
        assert!(cache.news(mark).now_or_never().is_none());
        let waits = {
            let cache = Arc::clone(&cache);
            crate::background::spawn(async move { cache.news(mark).await })
        };
        tokio::task::yield_now().await;
        assert!(!waits.is_finished());
        cache.told(&key, Some(&Answer(1, Some(LATER))));
        waits.await.unwrap();
        assert!(cache.news(mark).now_or_never().is_some(), "once and for all");
        assert!(cache.news(cache.mark(&key)).now_or_never().is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_not_to_be_kept_is_shared_by_those_who_wait_only() {
        let (cache, asked, key) = cache();
        let look = || cache.look(&key, NOW, || slow(Arc::clone(&asked), None));
        let (first, second, third) = tokio::join!(look(), look(), look());
        assert_eq!([first.1, second.1, third.1], [Found::Miss, Found::Coalesced, Found::Coalesced]);
        assert_eq!([&first.0, &second.0], [&third.0, &third.0]);
        assert_eq!(look().await.1, Found::Miss);
        assert_eq!(asked.load(Ordering::Relaxed), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn followers_do_not_die_with_the_leader() {
        let (cache, asked, key) = cache();
        let look = || {
            let (cache, asked, key) = (Arc::clone(&cache), Arc::clone(&asked), Arc::clone(&key));
            async move { cache.look(&key, NOW, || slow(asked, Some(LATER))).await }
        };
        let leader = crate::background::spawn(look());
        tokio::task::yield_now().await;
        let follower = crate::background::spawn(look());
        tokio::task::yield_now().await;
        leader.abort();
        let (answer, found) = follower.await.unwrap();
        assert_eq!((answer.0, found), (1, Found::Coalesced));
        assert_eq!(asked.load(Ordering::Relaxed), 1);
        assert_eq!(cache.flights(cache.hasher.hash_one(&*key)).under_way.len(), 0);
        assert_eq!(cache.fresh(&key, NOW).ok(), Some(Answer(1, Some(LATER))), "it is kept all the same");
    }

    #[tokio::test(start_paused = true)]
    async fn when_nobody_waits_any_more_the_question_is_given_up() {
        struct Ended(Arc<AtomicU32>);
        impl Drop for Ended {
            fn drop(&mut self) {
                self.0.fetch_add(1, Ordering::Relaxed);
            }
        }
        let (cache, ended, key) = cache();
        let look = {
            let (cache, ended) = (Arc::clone(&cache), Arc::clone(&ended));
            async move {
                let ask = || async move {
                    let _ended = Ended(ended);
                    std::future::pending::<Answer>().await
                };
                cache.look(&key, NOW, ask).await
            }
        };
        assert!(tokio::time::timeout(Duration::from_secs(1), look).await.is_err());
        assert_eq!(ended.load(Ordering::Relaxed), 1);
    }
}
