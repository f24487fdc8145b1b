//! Questions: asked once for many, kept while they are true.

use super::*;

#[tokio::test(start_paused = true)]
async fn many_who_poll_cost_one_look_each_interval() {
    let world = Shared::new(CALLED_BACK);
    let acme = world.client("acme");
    let id = acme.create().await.task_id();
    world.upstream.takes(Duration::from_millis(300));
    let polls = (0..50).map(|_| acme.details(&id));
    let answers = futures_util::future::join_all(polls).await;
    let count = |how: &str| answers.iter().filter(|answer| answer.header("x-cache") == how).count();
    assert_eq!((count("miss"), count("coalesced")), (1, 49));
    assert!(answers.iter().all(|answer| answer.raw == answers[0].raw));
    assert_eq!(acme.details(&id).await.header("x-cache"), "hit");
    assert_eq!(world.upstream.count("runway.details"), 1);
    tokio::time::sleep(Duration::from_millis(2001)).await;
    assert_eq!(acme.details(&id).await.header("x-cache"), "miss");
    assert_eq!(
        world.metric("kiegate_cache_requests_total{operation=\"runway.details\",result=\"coalesced\"}"),
        49
    );
}

#[tokio::test(start_paused = true)]
async fn a_finished_task_is_asked_for_once() {
    let world = Shared::new(CALLED_BACK);
    let acme = world.client("acme");
    let id = acme.create().await.task_id();
    let record = acme.until_ended(&id).await;
    let looked = world.upstream.count("runway.details");
    tokio::time::sleep(Duration::from_hours(1)).await;
    let again = acme.details(&id).await;
    assert_eq!((again.json(), again.header("x-cache")), (record, "hit"));
    assert_eq!(world.upstream.count("runway.details"), looked);
    let fresh = acme.with("cache-control", "no-cache").details(&id).await;
    assert_eq!((fresh.header("x-cache"), world.upstream.count("runway.details")), ("bypass", looked + 1));
}

/// What somebody else asked before may be older than what such a client knows.
#[tokio::test(start_paused = true)]
async fn whoever_wants_no_kept_answer_joins_nobody_and_is_joined() {
    let world = Shared::new(CALLED_BACK);
    let acme = world.client("acme");
    let id = acme.create().await.task_id();
    world.upstream.takes(Duration::from_millis(300));
    let after = async |millis, client: Client| {
        tokio::time::sleep(Duration::from_millis(millis)).await;
        client.details(&id).await.header("x-cache").to_owned()
    };
    let fresh = acme.with("cache-control", "no-cache");
    let (first, anew, third) = tokio::join!(after(0, acme.clone()), after(100, fresh), after(200, acme));
    assert_eq!([first, anew, third], ["miss", "bypass", "coalesced"]);
    assert_eq!(world.upstream.count("runway.details"), 2);
}

#[tokio::test(start_paused = true)]
async fn the_balance_is_kept_for_each_tenant_apart() {
    let world = Shared::new(CALLED_BACK);
    let credit = "/api/v1/chat/credit";
    assert_eq!(world.client("acme").get(credit).await.header("x-cache"), "miss");
    assert_eq!(world.client("acme").get(credit).await.header("x-cache"), "hit");
    assert_eq!(world.client("bolt").get(credit).await.header("x-cache"), "miss");
    assert_eq!(world.upstream.count("common.credit"), 2);
}

/// The first model's price was once given for that of every other.
#[tokio::test(start_paused = true)]
async fn what_is_asked_for_in_the_path_is_told_apart() {
    let world = Shared::new(CALLED_BACK);
    let acme = world.client("acme");
    let (first, second) = ("/api/v1/models/google/nano-banana/price", "/api/v1/models/google/imagen4/price");
    let one = acme.get(first).await.expect_code(200);
    let other = acme.get(second).await.expect_code(200);
    assert_eq!((one.header("x-cache"), other.header("x-cache")), ("miss", "miss"));
    assert_ne!(one.raw, other.raw);
    let again = acme.get(first).await;
    assert_eq!((again.header("x-cache"), &again.raw), ("hit", &one.raw));
}

#[tokio::test(start_paused = true)]
async fn errors_are_not_kept() {
    let world = Shared::new(CALLED_BACK);
    let acme = world.client("acme");
    let id = acme.create().await.task_id();
    world.upstream.meets([Misfortune::Answers(200, json!({"code": 500, "msg": "oops", "data": null}))]);
    acme.details(&id).await.expect_code(500);
    acme.details(&id).await.expect_code(200);
}

#[tokio::test(start_paused = true)]
async fn a_look_that_met_with_misfortune_is_made_again() {
    let world = Shared::new(CALLED_BACK);
    let acme = world.client("acme");
    let id = acme.create().await.task_id();
    let busy = || Misfortune::Answers(503, json!({}));
    world.upstream.meets([Misfortune::Broken, busy()]);
    acme.details(&id).await.expect_code(200);
    assert_eq!(world.upstream.count("runway.details"), 3);
    let fresh = acme.with("cache-control", "no-cache");
    world.upstream.meets([Misfortune::HalfAnswered]);
    fresh.details(&id).await.expect_code(200);
    assert_eq!(world.upstream.count("runway.details"), 5);
    world.upstream.meets([Misfortune::Broken, Misfortune::Broken, Misfortune::Broken]);
    let refused = acme.with("cache-control", "no-cache").details(&id).await.expect_status(502);
    assert_eq!(refused.header("x-kiegate-error"), "upstream_unreachable");
}

#[tokio::test(start_paused = true)]
async fn whoever_waits_for_news_hears_of_them_and_shares_the_look() {
    let world = Shared::new(CALLED_BACK);
    let acme = world.client("acme").with("prefer", "respond-async, wait=60");
    let id = acme.create().await.task_id();
    let first = world.client("acme").details(&id).await.json()["data"]["state"].clone();
    let began = Instant::now();
    let (one, two) = tokio::join!(acme.details(&id), acme.details(&id));
    assert_ne!(one.json()["data"]["state"], first);
    assert_eq!(one.raw, two.raw);
    assert!(began.elapsed() <= Duration::from_mins(1));
    let looks = world.upstream.count("runway.details");
    assert!(looks <= 31, "{looks}");
    let record = acme.until_ended(&id).await;
    let began = Instant::now();
    assert_eq!(acme.details(&id).await.json(), record);
    assert_eq!(began.elapsed(), Duration::ZERO, "there is nothing to wait for");
}

#[tokio::test(start_paused = true)]
async fn waiting_ends_when_the_time_is_up() {
    let world =
        Shared::with(&live(CALLED_BACK), Settings { pace: sim::Pace::Realistic, ..Settings::default() });
    let acme = world.client("acme");
    let id = acme.create().await.task_id();
    tokio::time::sleep(Duration::from_secs(10)).await;
    let began = Instant::now();
    acme.with("prefer", "wait=3").details(&id).await.expect_code(200);
    assert_eq!(began.elapsed(), Duration::from_secs(3));
}

/// Such a wait may be longer than the grace of those under way, and was cut off without an answer.
#[tokio::test(start_paused = true)]
async fn whoever_waits_for_news_is_answered_when_the_gateway_is_about_to_stop() {
    let slow = || Settings { pace: sim::Pace::Realistic, ..Settings::default() };
    for mode in ["live", "mock"] {
        let world = Shared::with(&live(&CALLED_BACK.replace("\"live\"", &format!("\"{mode}\""))), slow());
        let acme = world.client("acme");
        let id = acme.create().await.task_id();
        if mode == "mock" {
            acme.put("/_mock/clock", &json!({"rate": 0})).await.expect_status(200);
        }
        tokio::time::sleep(Duration::from_secs(10)).await;
        let known = acme.details(&id).await.json();
        let began = Instant::now();
        let stop = async {
            tokio::time::sleep(Duration::from_secs(1)).await;
            world.gateway.drain();
        };
        let waiting = acme.with("prefer", "wait=60");
        let (answer, ()) = tokio::join!(waiting.details(&id), stop);
        assert_eq!((answer.expect_status(200).json(), began.elapsed()), (known, Duration::from_secs(1)));
    }
}

#[tokio::test(start_paused = true)]
async fn the_look_of_a_client_that_goes_away_goes_on_for_the_others() {
    let world = Shared::new(CALLED_BACK);
    let acme = world.client("acme");
    let id = acme.create().await.task_id();
    world.upstream.takes(Duration::from_secs(2));
    let leader = {
        let (acme, id) = (acme.clone(), id.clone());
        kiegate::background::spawn(async move { acme.details(&id).await })
    };
    tokio::time::sleep(Duration::from_millis(100)).await;
    let follower = acme.details(&id);
    let leave = async {
        tokio::time::sleep(Duration::from_millis(500)).await;
        leader.abort();
    };
    let (answer, ()) = tokio::join!(follower, leave);
    assert_eq!((answer.header("x-cache"), world.upstream.count("runway.details")), ("coalesced", 1));
}

#[tokio::test(start_paused = true)]
async fn whoever_waits_on_the_simulator_hears_of_news_too() {
    let world = crate::support::World::standard();
    let acme = world.client("acme");
    let id = acme.create().await.task_id();
    let began = Instant::now();
    let first = acme.details(&id).await.json()["data"]["state"].clone();
    let waiting = acme.with("prefer", "wait=60");
    assert_ne!(waiting.details(&id).await.json()["data"]["state"], first);
    assert!(began.elapsed() < Duration::from_secs(10));
    acme.until_ended(&id).await;
    let began = Instant::now();
    waiting.details(&id).await.expect_code(200);
    waiting.details("unknown").await.expect_code(200);
    assert_eq!(began.elapsed(), Duration::ZERO);
}
