//! Stories of a quota, on paused time, with an upstream that counts what arrives.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;
use crate::clock::Draw;

fn count(number: u32) -> NonZeroU32 {
    NonZeroU32::new(number).unwrap()
}

fn quota(creates: u32, seconds: u64, tasks: u32) -> Quota {
    let rate = Rate { requests: count(creates), per: Duration::from_secs(seconds), burst: count(creates) };
    Quota::new(rate, count(tasks))
}

fn tenant(name: &str) -> TenantId {
    TenantId::new(name)
}

const PATIENT: Duration = Duration::from_hours(1);

fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// Lets everything that can go on do so.
async fn settle() {
    for _ in 0..50 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_above_the_quota_waits_a_window_after_the_answer() {
    let quota = quota(2, 10, 100);
    let began = Instant::now();
    let first = quota.turn(&tenant("a"), count(1), PATIENT).await.unwrap();
    let second = quota.turn(&tenant("a"), count(1), PATIENT).await.unwrap();
    tokio::time::advance(millis(500)).await;
    let _tasks = [first.started(), second.started()];
    let third = quota.turn(&tenant("a"), count(1), PATIENT).await.unwrap();
    assert_eq!(began.elapsed().as_millis(), 10_501);
    assert_eq!(third.waited(), millis(10_001));
}

#[tokio::test(start_paused = true)]
async fn the_upstream_never_sees_more_than_its_quota_in_any_window() {
    for seed in 0..30_u8 {
        let quota = quota(5, 10, 1000);
        let arrivals = Arc::new(Mutex::new(Vec::new()));
        let creates = (0..60_u8).map(|number| {
            let (quota, arrivals) = (quota.clone(), Arc::clone(&arrivals));
            background::spawn(async move {
                let mut draw = Draw::new(&[&[seed, number]]);
                tokio::time::sleep(millis(draw.integer(0, 20_000))).await;
                let name = format!("t{}", number % 4);
                let turn = quota.turn(&tenant(&name), count(1), PATIENT).await.unwrap();
                tokio::time::sleep(millis(draw.integer(0, 3_000))).await;
                arrivals.lock().unwrap().push(Instant::now());
                tokio::time::sleep(millis(draw.integer(0, 3_000))).await;
                if draw.integer(0, 3) == 0 { turn.refused() } else { drop(turn.started()) }
            })
        });
        futures_util::future::join_all(creates).await;
        let mut arrivals = arrivals.lock().unwrap().clone();
        arrivals.sort();
        assert_eq!(arrivals.len(), 60);
        for pair in arrivals.windows(6) {
            assert!(
                pair[5] - pair[0] >= Duration::from_secs(10),
                "seed {seed}: six within {:?}",
                pair[5] - pair[0]
            );
        }
    }
}

#[tokio::test(start_paused = true)]
async fn turns_are_shared_by_weight() {
    let quota = quota(1, 1, 1000);
    quota.turn(&tenant("x"), count(1), PATIENT).await.unwrap().refused();
    let order = Arc::new(Mutex::new(Vec::new()));
    let mut waiting = Vec::new();
    for (name, weight) in [("small", 1), ("large", 3)] {
        for _ in 0..20 {
            let (quota, order) = (quota.clone(), Arc::clone(&order));
            waiting.push(background::spawn(async move {
                let turn = quota.turn(&tenant(name), count(weight), PATIENT).await.unwrap();
                order.lock().unwrap().push(name);
                turn.refused();
            }));
        }
    }
    settle().await;
    assert_eq!(quota.status().waiting, 40);
    futures_util::future::join_all(waiting).await;
    let first: Vec<_> = order.lock().unwrap()[..24].to_vec();
    let large = first.iter().filter(|name| **name == "large").count();
    assert!((17..=19).contains(&large), "{large} of 24: {first:?}");
}

#[tokio::test(start_paused = true)]
async fn whoever_stops_waiting_costs_nobody_anything() {
    let quota = quota(1, 10, 100);
    quota.turn(&tenant("a"), count(1), PATIENT).await.unwrap().refused();
    let gone = {
        let quota = quota.clone();
        background::spawn(async move { quota.turn(&tenant("a"), count(1), PATIENT).await.map(|_| ()) })
    };
    settle().await;
    gone.abort();
    settle().await;
    assert_eq!(quota.status().waiting, 0);
    let turn = quota.turn(&tenant("b"), count(1), PATIENT).await.unwrap();
    assert_eq!(turn.waited(), millis(10_001));
}

#[tokio::test(start_paused = true)]
async fn a_turn_that_nobody_takes_passes_on() {
    let quota = quota(1, 10, 100);
    quota.turn(&tenant("a"), count(1), PATIENT).await.unwrap().refused();
    // Polled once, so that it waits in line, and never again until it is called.
    let mut sleeper = Box::pin(async {
        let name = tenant("a");
        quota.turn(&name, count(1), PATIENT).await
    });
    assert!(futures_util::FutureExt::now_or_never(&mut sleeper).is_none());
    let next = {
        let quota = quota.clone();
        background::spawn(async move { quota.turn(&tenant("b"), count(1), PATIENT).await.unwrap().waited() })
    };
    tokio::time::advance(millis(10_002)).await;
    settle().await;
    assert!(!next.is_finished(), "the first in line has been called");
    drop(sleeper);
    assert!(next.await.unwrap() < millis(10_100));
}

#[tokio::test(start_paused = true)]
async fn patience_ends_and_says_when_it_is_worth_coming_back() {
    let quota = quota(1, 10, 100);
    quota.turn(&tenant("a"), count(1), PATIENT).await.unwrap().refused();
    let late = quota.turn(&tenant("a"), count(1), Duration::from_secs(3)).await.unwrap_err();
    assert_eq!(late.retry_after, millis(7_001));
    assert_eq!(
        quota.turn(&tenant("a"), count(1), Duration::ZERO).await.unwrap_err().retry_after,
        millis(7_001)
    );
}

#[tokio::test(start_paused = true)]
async fn a_throttled_create_goes_back_to_the_head_and_the_quota_learns() {
    let quota = quota(4, 10, 100);
    quota.turn(&tenant("a"), count(1), PATIENT).await.unwrap().refused();
    let throttled = quota.turn(&tenant("a"), count(1), PATIENT).await.unwrap();
    let order = Arc::new(Mutex::new(Vec::new()));
    let head = {
        let order = Arc::clone(&order);
        background::spawn(async move {
            let turn = throttled.throttled(None).await.unwrap();
            order.lock().unwrap().push("head");
            turn.refused();
        })
    };
    settle().await;
    assert_eq!((quota.status().limit, quota.status().available), (1, 0));
    let other = {
        let (quota, order) = (quota.clone(), Arc::clone(&order));
        background::spawn(async move {
            quota.turn(&tenant("b"), count(1), PATIENT).await.unwrap().refused();
            order.lock().unwrap().push("other");
        })
    };
    head.await.unwrap();
    other.await.unwrap();
    assert_eq!(*order.lock().unwrap(), ["head", "other"]);
    tokio::time::advance(Duration::from_mins(1)).await;
    assert_eq!(quota.status().limit, 4, "it grows by one each period");
}

#[tokio::test(start_paused = true)]
async fn the_upstreams_own_word_on_when_to_come_back_counts() {
    let quota = quota(4, 10, 100);
    let turn = quota.turn(&tenant("a"), count(1), PATIENT).await.unwrap();
    let again = turn.throttled(Some(Duration::from_secs(3))).await;
    // The refused one fills the only place that is left, until the limit grows again.
    assert_eq!(again.unwrap().waited(), millis(10_000));
}

#[tokio::test(start_paused = true)]
async fn tasks_take_up_room_until_they_end() {
    let quota = quota(100, 1, 2);
    let _old = quota.occupy();
    let running = quota.turn(&tenant("a"), count(1), PATIENT).await.unwrap().started();
    let waiting = {
        let quota = quota.clone();
        background::spawn(async move { quota.turn(&tenant("a"), count(1), PATIENT).await.unwrap().waited() })
    };
    tokio::time::sleep(Duration::from_secs(30)).await;
    assert!(!waiting.is_finished());
    drop(running);
    assert_eq!(waiting.await.unwrap(), Duration::from_secs(30));
    assert_eq!(quota.status().tasks, 1);
}

#[tokio::test(start_paused = true)]
async fn hundreds_wait_and_all_have_their_turn() {
    let quota = quota(20, 10, 1000);
    let done = Arc::new(AtomicUsize::new(0));
    let all = (0..400).map(|number: u32| {
        let (quota, done) = (quota.clone(), Arc::clone(&done));
        background::spawn(async move {
            let name = format!("t{}", number % 7);
            drop(quota.turn(&tenant(&name), count(1 + number % 3), PATIENT).await.unwrap().started());
            done.fetch_add(1, Ordering::Relaxed);
        })
    });
    futures_util::future::join_all(all.collect::<Vec<_>>()).await;
    assert_eq!(done.load(Ordering::Relaxed), 400);
    assert_eq!((quota.status().waiting, quota.status().tasks), (0, 0));
}
