//! The quota as its callers see it, on paused time; what it promises of the upstream, with random ways there.

use std::pin::Pin;
use std::sync::atomic::{AtomicU32, Ordering};

use futures_util::FutureExt;
use proptest::prelude::*;
use tokio::runtime::{Builder, Handle};
use tokio::task::{JoinSet, yield_now};
use tokio::time::{advance, sleep, timeout};

use super::window::LONGEST_BLOCK;
use super::*;
use crate::clock::{Draw, Timestamp};

const PERIOD: Duration = Duration::from_secs(10);
/// How long an answered create keeps its place.
const HOLD: Duration = Duration::from_millis(10_001);
const PATIENT: Duration = Duration::from_hours(100);
const ONE: NonZeroU32 = NonZeroU32::MIN;

fn number(count: u32) -> NonZeroU32 {
    NonZeroU32::new(count).unwrap()
}

fn rate(creates: u32, per: Duration) -> Rate {
    Rate { requests: number(creates), per, burst: number(creates) }
}

/// `creates` in ten seconds.
fn quota(creates: u32, max_tasks: u32) -> Quota {
    Quota::new(rate(creates, PERIOD), number(max_tasks), Clock::starting_at(Timestamp::default()))
}

fn tenant(name: &str) -> TenantId {
    TenantId::new(name)
}

/// The turn that a create has after a 429.
async fn throttled(turn: Turn, retry_after: Option<Duration>) -> Result<Turn, QuotaTimeout> {
    turn.throttled(retry_after)?.turn().await
}

fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}

/// A turn that is there already.
fn at_once(quota: &Quota, name: &str) -> Option<Turn> {
    quota.turn(&tenant(name), ONE, PATIENT).now_or_never().and_then(Result::ok)
}

/// A client that asks for a turn, and waits as long as it takes once it is polled.
fn asks(quota: &Quota, name: &str) -> Pin<Box<impl Future<Output = Result<Turn, QuotaTimeout>>>> {
    let (quota, name) = (quota.clone(), tenant(name));
    Box::pin(async move { quota.turn(&name, ONE, PATIENT).await })
}

/// Sends a create that is answered at once, when its turn comes.
async fn create(quota: Quota, name: String, weight: u32) -> String {
    quota.turn(&tenant(&name), number(weight), PATIENT).await.unwrap().refused();
    name
}

/// Lets everything run that can run now.
async fn settle() {
    for _ in 0..100 {
        yield_now().await;
    }
}

#[tokio::test(start_paused = true)]
async fn creates_above_the_quota_wait_until_a_period_after_an_answer() {
    let quota = quota(2, 100);
    let start = Instant::now();
    let (first, second) = (at_once(&quota, "a").unwrap(), at_once(&quota, "a").unwrap());
    assert_eq!(first.waited(), Duration::ZERO);
    assert!(at_once(&quota, "a").is_none());
    sleep(seconds(1)).await;
    first.refused();
    sleep(seconds(1)).await;
    second.refused();
    let third = quota.turn(&tenant("a"), ONE, PATIENT).await.unwrap();
    assert_eq!(start.elapsed(), seconds(1) + HOLD);
    assert_eq!(third.waited() + seconds(1), HOLD);
    let fourth = quota.turn(&tenant("a"), ONE, PATIENT).await.unwrap();
    assert_eq!(start.elapsed(), seconds(2) + HOLD);
    drop((third, fourth));
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_takes_long_keeps_its_place_all_the_while() {
    let quota = quota(1, 100);
    let slow = at_once(&quota, "a").unwrap();
    let mut second = asks(&quota, "a");
    assert!(timeout(seconds(3600), &mut second).await.is_err());
    slow.refused();
    let answered = Instant::now();
    second.await.unwrap().refused();
    assert_eq!(answered.elapsed(), HOLD);
}

#[tokio::test(start_paused = true)]
async fn a_turn_dropped_without_a_verdict_counts_for_it_may_have_arrived() {
    let quota = quota(1, 1);
    drop(at_once(&quota, "a").unwrap());
    let status = quota.status();
    assert_eq!((status.in_window, status.tasks, status.available), (1, 0, 0));
    sleep(HOLD).await;
    assert!(at_once(&quota, "a").is_some());
}

#[tokio::test(start_paused = true)]
async fn who_waits_gets_turns_by_weight() {
    let quota = quota(10, 100);
    (0..10).for_each(|_| at_once(&quota, "other").unwrap().refused());
    let mut crowd = JoinSet::new();
    for (name, weight) in [("a", 1), ("b", 2), ("c", 2)] {
        (0..100).for_each(|_| drop(crowd.spawn(create(quota.clone(), name.to_owned(), weight))));
        settle().await;
    }
    assert_eq!(quota.status().waiting, 300);
    for _ in 0..10 {
        let mut turns = String::new();
        while turns.len() < 10 {
            turns += &crowd.join_next().await.unwrap().unwrap();
        }
        let count = |name: char| turns.chars().filter(|turn| *turn == name).count();
        assert_eq!((count('a'), count('b'), count('c')), (2, 4, 4), "{turns}");
    }
}

#[tokio::test(start_paused = true)]
async fn hundreds_wait_and_each_place_is_used_the_moment_it_is_free() {
    let quota = quota(20, 100);
    let start = Instant::now();
    let mut crowd = JoinSet::new();
    for index in 0..600 {
        crowd.spawn(create(quota.clone(), format!("tenant-{}", index % 7), 1));
    }
    let mut served = 0_u32;
    while let Some(done) = crowd.join_next().await {
        done.unwrap();
        assert_eq!(start.elapsed(), HOLD * (served / 20), "number {served}");
        served += 1;
    }
    assert_eq!((served, quota.status().waiting), (600, 0));
}

#[tokio::test(start_paused = true)]
async fn a_client_that_goes_away_leaves_the_queue_at_once() {
    let quota = quota(1, 100);
    at_once(&quota, "a").unwrap().refused();
    let mut impatient = asks(&quota, "a");
    assert!((&mut impatient).now_or_never().is_none());
    let mut behind = asks(&quota, "a");
    assert!((&mut behind).now_or_never().is_none());
    assert_eq!(quota.status().waiting, 2);
    drop(impatient);
    assert_eq!(quota.status().waiting, 1);
    let waited = behind.await.unwrap().waited();
    assert_eq!(waited, HOLD);
}

#[tokio::test(start_paused = true)]
async fn a_turn_granted_to_a_client_that_is_gone_passes_on() {
    let quota = quota(1, 1);
    at_once(&quota, "a").unwrap().refused();
    let mut gone = asks(&quota, "a");
    assert!((&mut gone).now_or_never().is_none());
    let mut next = asks(&quota, "a");
    assert!((&mut next).now_or_never().is_none());
    advance(HOLD).await;
    settle().await;
    let status = quota.status();
    assert_eq!((status.waiting, status.in_window, status.tasks), (1, 1, 1), "the turn is on its way");
    assert!((&mut next).now_or_never().is_none());
    drop(gone);
    assert!(next.now_or_never().is_some_and(|turn| turn.is_ok()), "the place is free at once");
}

#[tokio::test(start_paused = true)]
async fn a_turn_that_nobody_takes_leaves_no_trace() {
    let quota = quota(3, 3);
    let fresh = quota.status();
    let slots: Vec<_> = (0..3).map(|_| quota.occupy()).collect();
    let mut gone = asks(&quota, "a");
    assert!((&mut gone).now_or_never().is_none());
    drop(slots);
    assert_eq!(quota.status().in_window, 1);
    drop(gone);
    assert_eq!(quota.status(), fresh);
}

#[tokio::test(start_paused = true)]
async fn a_tenant_does_not_pay_for_a_turn_that_its_client_did_not_take() {
    let quota = quota(100, 1);
    let slot = quota.occupy();
    let mut crowd: Vec<_> = ["a", "a", "b"].into_iter().map(|name| asks(&quota, name)).collect();
    assert!(crowd.iter_mut().all(|waiting| waiting.now_or_never().is_none()));
    slot.ended();
    drop(crowd.remove(0));
    assert!((&mut crowd[1]).now_or_never().is_none(), "b came after a");
    assert!((&mut crowd[0]).now_or_never().is_some_and(|turn| turn.is_ok()));
}

#[tokio::test(start_paused = true)]
async fn after_a_429_the_create_goes_first() {
    let quota = quota(3, 100);
    let mut crowd = JoinSet::new();
    let (first, second) = (at_once(&quota, "a").unwrap(), at_once(&quota, "a").unwrap());
    at_once(&quota, "a").unwrap().started().ended();
    for _ in 0..5 {
        crowd.spawn(create(quota.clone(), "b".to_owned(), 100));
    }
    settle().await;
    // The later one comes back earlier; the order in which they came counts.
    for (turn, name) in [(second, "second"), (first, "first")] {
        crowd.spawn(async move {
            throttled(turn, Some(seconds(20))).await.unwrap().refused();
            name.to_owned()
        });
        settle().await;
    }
    let start = Instant::now();
    let mut order = Vec::new();
    while let Some(name) = crowd.join_next().await {
        order.push((name.unwrap(), start.elapsed()));
    }
    assert_eq!(order[0], ("first".to_owned(), seconds(20)));
    assert_eq!(order[1].0, "second");
    assert!(order[2..].iter().all(|(name, _)| name == "b"));
}

#[tokio::test(start_paused = true)]
async fn a_429_drains_the_bucket_and_teaches_the_limit() {
    let quota = quota(20, 100);
    let (taken, refused): (Vec<_>, Vec<_>) =
        (0..8).map(|index| (index, at_once(&quota, "a").unwrap())).partition(|(index, _)| *index < 5);
    let slots: Vec<_> = taken.into_iter().map(|(_, turn)| turn.started()).collect();
    let mut again: Vec<_> = refused.into_iter().map(|(_, turn)| Box::pin(throttled(turn, None))).collect();
    for turn in &mut again {
        assert!(turn.now_or_never().is_none());
    }
    let status = quota.status();
    assert_eq!((status.configured, status.limit, status.available), (20, 5, 0));
    assert_eq!((status.waiting, status.tasks, status.blocked_for), (3, 5, HOLD));
    let start = Instant::now();
    for turn in again {
        turn.await.unwrap().refused();
        assert_eq!(start.elapsed(), HOLD);
    }
    sleep(PERIOD * 3).await;
    assert_eq!(quota.status().limit, 8);
    sleep(PERIOD * 30).await;
    assert_eq!((quota.status().limit, quota.status().available), (20, 20 - 5 + 5));
    drop(slots);
}

#[tokio::test(start_paused = true)]
async fn a_429_that_outlasts_the_patience_is_told_at_once() {
    let quota = quota(5, 100);
    let start = Instant::now();
    let turn = quota.turn(&tenant("a"), ONE, seconds(30)).await.unwrap();
    sleep(seconds(20)).await;
    let given_up = throttled(turn, Some(seconds(11))).await.unwrap_err();
    assert_eq!(given_up, QuotaTimeout { waited: Duration::ZERO, retry_after: seconds(11) });
    let not_even_queued = quota.turn(&tenant("a"), ONE, seconds(10)).await.unwrap_err();
    assert_eq!(not_even_queued.retry_after, seconds(11));
    assert_eq!(start.elapsed(), seconds(20));
    assert_eq!((quota.status().waiting, quota.status().tasks), (0, 0));
    sleep(seconds(11)).await;
    assert!(at_once(&quota, "a").is_some());
}

#[tokio::test(start_paused = true)]
async fn patience_counts_from_the_first_asking_and_the_waits_add_up() {
    let quota = quota(1, 100);
    let start = Instant::now();
    at_once(&quota, "a").unwrap().refused();
    let turn = quota.turn(&tenant("a"), ONE, seconds(30)).await.unwrap();
    sleep(seconds(5)).await;
    let turn = throttled(turn, Some(seconds(6))).await.unwrap();
    assert_eq!(turn.waited(), HOLD + seconds(6));
    let blocker = throttled(turn, Some(seconds(5))).now_or_never();
    assert!(blocker.is_none(), "and its client goes away");
    assert_eq!(quota.status().waiting, 0);
    assert_eq!(start.elapsed(), HOLD + seconds(11));
}

#[tokio::test(start_paused = true)]
async fn an_endless_retry_after_is_cut() {
    let quota = quota(1, 100);
    let turn = quota.turn(&tenant("a"), ONE, Duration::MAX).await.unwrap();
    let start = Instant::now();
    throttled(turn, Some(Duration::MAX)).await.unwrap().refused();
    assert_eq!(start.elapsed(), LONGEST_BLOCK);
}

#[tokio::test(start_paused = true)]
async fn patience_ends_and_the_hint_when_to_come_back_holds() {
    let quota = quota(2, 100);
    (0..2).for_each(|_| at_once(&quota, "a").unwrap().refused());
    let mut others = JoinSet::new();
    (0..4).for_each(|_| drop(others.spawn(create(quota.clone(), "b".to_owned(), 1))));
    settle().await;
    let start = Instant::now();
    let given_up = quota.turn(&tenant("a"), ONE, seconds(4)).await.unwrap_err();
    assert_eq!((start.elapsed(), given_up.waited), (seconds(4), seconds(4)));
    // Two of the others go after one round, two after two, and then it is this one's turn.
    assert_eq!(given_up.retry_after + seconds(4), HOLD * 3);
    sleep(given_up.retry_after).await;
    assert!(at_once(&quota, "a").is_some());
}

#[tokio::test(start_paused = true)]
async fn a_create_waits_for_the_end_of_a_task() {
    let quota = quota(100, 2);
    let first = at_once(&quota, "a").unwrap().started();
    let second = at_once(&quota, "a").unwrap();
    let impatient = quota.turn(&tenant("a"), ONE, seconds(1)).await.unwrap_err();
    assert_eq!(impatient.retry_after, PERIOD, "nobody knows when a task ends");
    let mut third = asks(&quota, "a");
    assert!(timeout(seconds(3600), &mut third).await.is_err());
    first.ended();
    let third = third.now_or_never().unwrap().unwrap().started();
    assert!(at_once(&quota, "a").is_none());
    second.refused();
    assert_eq!(quota.status().tasks, 1);
    drop(third);
    assert_eq!(quota.status().tasks, 0);
}

#[tokio::test(start_paused = true)]
async fn tasks_of_before_a_restart_are_counted_even_above_the_limit() {
    let quota = quota(100, 2);
    let mut slots: Vec<_> = (0..4).map(|_| quota.occupy()).collect();
    assert_eq!((quota.status().tasks, quota.status().available), (4, 0));
    slots.truncate(2);
    assert!(at_once(&quota, "a").is_none());
    slots.truncate(1);
    assert!(at_once(&quota, "a").is_some());
}

/// Once the alarm was set only where the current thread has a runtime, and the one that waited slept for
/// ever.
#[tokio::test(start_paused = true)]
async fn a_slot_may_be_freed_on_any_thread() {
    let quota = quota(1, 1);
    let slot = at_once(&quota, "a").unwrap().started();
    let mut waiting = asks(&quota, "a");
    assert!((&mut waiting).now_or_never().is_none());
    std::thread::spawn(move || slot.ended()).join().unwrap();
    assert_eq!(waiting.await.unwrap().waited(), HOLD);
}

#[tokio::test(start_paused = true)]
async fn nothing_goes_on_when_nobody_waits() {
    let alive = || Handle::current().metrics().num_alive_tasks();
    let quota = quota(1, 100);
    let before = alive();
    at_once(&quota, "a").unwrap().refused();
    let mut waiting = asks(&quota, "a");
    assert!((&mut waiting).now_or_never().is_none());
    settle().await;
    assert_eq!(alive(), before + 1);
    drop(waiting);
    settle().await;
    assert_eq!(alive(), before);
    assert_eq!(Arc::strong_count(&quota.0), 1);
}

/// The upstream, which counts creates as they arrive, and tasks.
struct Upstream {
    max_tasks: u32,
    arrivals: Mutex<Vec<Instant>>,
    tasks: AtomicU32,
}

impl Upstream {
    fn new(max_tasks: u32) -> Arc<Self> {
        Arc::new(Self { max_tasks, arrivals: Mutex::default(), tasks: AtomicU32::new(0) })
    }

    fn task(self: &Arc<Self>) -> UpstreamTask {
        let tasks = self.tasks.fetch_add(1, Ordering::SeqCst) + 1;
        assert!(tasks <= self.max_tasks, "{tasks} tasks at a time, {} allowed", self.max_tasks);
        UpstreamTask(Arc::clone(self))
    }

    fn arrives(&self) {
        self.arrivals.lock().unwrap().push(Instant::now());
    }

    /// Takes a create, unless it has taken `limit` in the ten seconds before; then it says when to come back.
    fn takes(&self, limit: usize) -> Result<(), Duration> {
        let mut arrivals = self.arrivals.lock().unwrap();
        let now = Instant::now();
        let lately: Vec<_> = arrivals.iter().filter(|at| now - **at < PERIOD).copied().collect();
        if let Some(leaves) = lately.len().checked_sub(limit).and_then(|index| lately.get(index)) {
            return Err(*leaves + PERIOD - now);
        }
        arrivals.push(now);
        Ok(())
    }

    /// How many arrived in the fullest window, both its ends counted in.
    fn fullest(&self, period: Duration) -> usize {
        let mut arrivals = self.arrivals.lock().unwrap().clone();
        arrivals.sort_unstable();
        let from = |index: usize| arrivals[index..].partition_point(|at| *at - arrivals[index] <= period);
        (0..arrivals.len()).map(from).max().unwrap_or(0)
    }
}

/// What the upstream has to do for a create, from its first byte to the end of its task.
struct UpstreamTask(Arc<Upstream>);

impl Drop for UpstreamTask {
    fn drop(&mut self) {
        self.0.tasks.fetch_sub(1, Ordering::SeqCst);
    }
}

/// A create on its way; if the client goes away before it arrives, it arrives at that very moment.
struct Flight(Arc<Upstream>);

impl Drop for Flight {
    fn drop(&mut self) {
        self.0.arrives();
    }
}

/// One client: when it comes, how patient it is, when it goes away, how its create fares. In milliseconds.
#[derive(Clone, Debug)]
struct Visit {
    tenant: u32,
    comes: u64,
    patience: u64,
    leaves: Option<u64>,
    there: u64,
    back: u64,
    verdict: u8,
    task: u64,
}

fn any_visit() -> impl Strategy<Value = Visit> {
    let client = (1..5_u32, 0..60_000_u64, 0..90_000_u64, prop::option::weighted(0.3, 0..40_000_u64));
    let create = (0..4000_u64, 0..4000_u64, 0..6_u8, 0..30_000_u64);
    (client, create).prop_map(|((tenant, comes, patience, leaves), (there, back, verdict, task))| Visit {
        tenant,
        comes,
        patience,
        leaves,
        there,
        back,
        verdict,
        task,
    })
}

fn millis(count: u64) -> Duration {
    Duration::from_millis(count)
}

/// A client of an upstream that takes everything.
async fn calls(quota: Quota, upstream: Arc<Upstream>, visit: Visit) {
    sleep(millis(visit.comes)).await;
    let work = async {
        let name = tenant(&visit.tenant.to_string());
        let patience = millis(visit.patience);
        let Ok(turn) = quota.turn(&name, number(visit.tenant), patience).await else { return };
        let task = upstream.task();
        let flight = Flight(Arc::clone(&upstream));
        sleep(millis(visit.there)).await;
        drop(flight);
        sleep(millis(visit.back)).await;
        if visit.verdict > 1 {
            let slot = turn.started();
            sleep(millis(visit.task)).await;
            drop(task);
            slot.ended();
        } else {
            drop(task);
            if visit.verdict > 0 { turn.refused() } else { drop(turn) }
        }
    };
    // Whether it was done or went away, the upstream sees to it that no limit was broken.
    drop(timeout(visit.leaves.map_or(PATIENT, millis), work).await);
}

/// A patient client of an upstream that takes `limit` creates in ten seconds, and refuses the rest with 429.
/// How often it was refused.
async fn insists(quota: Quota, upstream: Arc<Upstream>, limit: usize, visit: Visit) -> usize {
    sleep(millis(visit.comes)).await;
    let name = tenant(&visit.tenant.to_string());
    let mut turn = quota.turn(&name, number(visit.tenant), PATIENT).await.unwrap();
    for refused in 0.. {
        sleep(millis(visit.there)).await;
        let answer = upstream.takes(limit);
        sleep(millis(visit.back)).await;
        let Err(retry_after) = answer else {
            turn.refused();
            return refused;
        };
        turn = throttled(turn, Some(retry_after).filter(|_| visit.verdict > 2)).await.unwrap();
    }
    unreachable!("it insists")
}

fn paused<F: Future>(story: F) -> F::Output {
    Builder::new_current_thread().enable_time().start_paused(true).build().unwrap().block_on(story)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_window_at_the_upstream_holds_more_than_the_quota(
        creates in 1..12_u32, max_tasks in 1..30_u32, visits in prop::collection::vec(any_visit(), 1..120),
    ) {
        paused(async {
            let (quota, upstream) = (quota(creates, max_tasks), Upstream::new(max_tasks));
            let mut clients = JoinSet::new();
            for visit in visits {
                clients.spawn(calls(quota.clone(), Arc::clone(&upstream), visit));
            }
            while let Some(done) = clients.join_next().await {
                done.unwrap();
            }
            let fullest = upstream.fullest(PERIOD);
            prop_assert!(fullest <= creates as usize, "{fullest} in a window, {creates} allowed");
            sleep(HOLD).await;
            let status = quota.status();
            prop_assert_eq!((status.waiting, status.tasks, status.in_window), (0, 0, 0));
            prop_assert_eq!(status.available, creates.min(max_tasks));
            Ok(())
        })?;
    }

    #[test]
    fn an_upstream_that_takes_less_is_not_run_down_and_everybody_gets_through(
        limit in 1..8_usize, visits in prop::collection::vec(any_visit(), 1..60),
    ) {
        paused(async {
            let (quota, upstream) = (quota(10, 100), Upstream::new(100));
            let mut clients = JoinSet::new();
            for visit in visits.clone() {
                clients.spawn(insists(quota.clone(), Arc::clone(&upstream), limit, visit));
            }
            let mut refused = 0;
            while let Some(done) = clients.join_next().await {
                refused += done.unwrap();
            }
            prop_assert_eq!(upstream.arrivals.lock().unwrap().len(), visits.len());
            // At most ten when the quota is not learned yet, and then one probe for each that is taken.
            prop_assert!(refused <= 10 + visits.len(), "{refused} refused of {}", visits.len());
            let status = quota.status();
            prop_assert_eq!((status.waiting, status.tasks), (0, 0));
            Ok(())
        })?;
    }
}

#[tokio::test(start_paused = true)]
async fn a_quota_that_is_smaller_than_configured_is_learned_with_one_probe_a_period() {
    let (quota, upstream) = (quota(20, 100), Upstream::new(100));
    let start = Instant::now();
    let visit =
        Visit { tenant: 1, comes: 0, patience: 0, leaves: None, there: 50, back: 50, verdict: 0, task: 0 };
    let mut clients = JoinSet::new();
    for _ in 0..100 {
        clients.spawn(insists(quota.clone(), Arc::clone(&upstream), 5, visit.clone()));
    }
    let refused: usize = clients.join_all().await.into_iter().sum();
    let periods = start.elapsed().as_secs_f64() / 10.0;
    // Twenty rounds of five, and between them pauses.
    assert!(periods < 42.0, "{periods} periods");
    assert!(f64::from(u32::try_from(refused).unwrap()) < 15.0 + periods, "{refused} in {periods} periods");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn many_threads_do_not_break_the_limits_either() {
    const SHORT: Duration = Duration::from_millis(40);
    let quota = Quota::new(rate(50, SHORT), number(30), Clock::starting_at(Timestamp::default()));
    let upstream = Upstream::new(30);
    let mut clients = JoinSet::new();
    for index in 0..400_u64 {
        let (quota, upstream) = (quota.clone(), Arc::clone(&upstream));
        clients.spawn(async move {
            let mut draw = Draw::new(&[&index.to_le_bytes()]);
            // Every fourth goes away early.
            let leaves = if index % 4 == 0 { millis(draw.integer(0, 200)) } else { PATIENT };
            let answer = millis(if index % 3 == 0 { draw.integer(0, 5) } else { 0 });
            let work = async {
                let name = tenant(&(index % 5).to_string());
                let turn = quota.turn(&name, ONE, PATIENT).await.unwrap();
                let task = upstream.task();
                upstream.arrives();
                sleep(answer).await;
                let slot = turn.started();
                yield_now().await;
                drop(task);
                slot.ended();
            };
            drop(timeout(leaves, work).await);
        });
    }
    while let Some(done) = clients.join_next().await {
        done.unwrap();
    }
    let arrived = upstream.arrivals.lock().unwrap().len();
    assert!(arrived >= 300 && upstream.fullest(SHORT) <= 50, "{arrived}, {}", upstream.fullest(SHORT));
    assert_eq!((quota.status().waiting, quota.status().tasks), (0, 0));
}
