//! The account's quota: never exceeded, shared fairly, learned when it is another.

use super::*;

fn account(creates: &str, more: &str) -> Shared {
    let lines = format!(
        "mode = \"live\"\npublic_url = \"https://gateway.test\"\n[[upstream.key]]\n%main\ncreates = \"{creates}\"\n{more}\n\
         [[tenant]]\n%acme\nweight = 3\n[[tenant]]\n%bolt\n"
    );
    Shared::with(&live(&lines), Settings { emulate_quota: true, ..Settings::default() })
}

/// The most requests that arrived within any span of that length.
fn most_within(arrived: &[Arrived], span: Duration) -> usize {
    let mut times: Vec<Instant> = arrived.iter().map(|arrived| arrived.at).collect();
    times.sort();
    (0..times.len())
        .map(|first| times[first..].iter().take_while(|at| **at - times[first] < span).count())
        .max()
        .unwrap_or(0)
}

#[tokio::test(start_paused = true)]
async fn upstream_never_sees_more_than_its_quota() {
    let world = account("20/10s", "max_wait = \"300s\"");
    world.upstream.takes(Duration::from_millis(400));
    let creates = (0..90).map(|number: u64| {
        let client = world.client(if number.is_multiple_of(2) { "acme" } else { "bolt" });
        async move {
            tokio::time::sleep(Duration::from_millis(number * 37)).await;
            client.create().await
        }
    });
    let answers = futures_util::future::join_all(creates).await;
    assert!(answers.iter().all(|answer| answer.status == 200 && answer.json()["code"] == 200));
    let arrived = world.upstream.arrived();
    assert_eq!((arrived.len(), most_within(&arrived, Duration::from_secs(10))), (90, 20));
    let waited = answers.iter().filter_map(|answer| answer.headers.get("x-kiegate-queued"));
    assert!(waited.count() >= 60);
}

#[tokio::test(start_paused = true)]
async fn a_create_that_waited_too_long_is_refused_and_leaves_nothing_behind() {
    let world = account("1/10s", "max_wait = \"3s\"");
    let acme = world.client("acme");
    acme.create().await.expect_code(200);
    let began = Instant::now();
    let refused = acme.create().await.expect_status(429);
    assert_eq!(
        (refused.header("x-kiegate-error"), began.elapsed()),
        ("quota_timeout", Duration::from_secs(3))
    );
    assert_eq!((refused.header("retry-after"), refused.header("x-kiegate-queued")), ("8", "3000"));
    assert_eq!(world.metric("kiegate_overhead_seconds_bucket{le=\"1\"}"), 2, "waiting is no overhead");
    assert_eq!(world.metric("kiegate_upstream_wait_seconds_count{key=\"main\"}"), 2);
    tokio::time::sleep(Duration::from_millis(10)).await;
    assert_eq!((world.running("acme").await, world.upstream.arrived().len()), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn what_waits_is_sent_for_those_alone_who_still_may() {
    let lines = |acme: &str| {
        format!("mode = \"live\"\n[[upstream.key]]\n%main\ncreates = \"1/10s\"\n{acme}[[tenant]]\n%bolt\n")
    };
    for (now, status) in [("", 401), ("[[tenant]]\n%acme\ndeny = [\"runway.*\"]\n", 403)] {
        let world = Shared::new(&lines("[[tenant]]\n%acme\n"));
        world.client("bolt").create().await.expect_code(200);
        let change = async {
            tokio::time::sleep(Duration::from_secs(1)).await;
            world.gateway.set_tenants(&live(&lines(now)).tenants);
        };
        let acme = world.client("acme");
        let (refused, ()) = tokio::join!(acme.create(), change);
        refused.expect_status(status);
        tokio::time::sleep(Duration::from_millis(1)).await; // what was reserved is given back behind its back
        assert_eq!((world.running("acme").await, world.spent("acme").await), (0, 0));
        let began = Instant::now();
        world.client("bolt").create().await.expect_code(200);
        assert!(began.elapsed() < Duration::from_millis(100), "the turn was given back");
        assert_eq!(world.upstream.count("runway.generate"), 2);
    }
}

/// The time counted as the gateway's own, in a metric that is to show how much slower it makes things.
#[tokio::test(start_paused = true)]
async fn waiting_for_a_turn_and_for_the_upstream_is_no_overhead() {
    let world = account("1/10s", "max_wait = \"60s\"");
    world.upstream.takes(Duration::from_secs(5));
    for _ in 0..2 {
        world.client("acme").create().await.expect_code(200);
    }
    assert_eq!(world.metric("kiegate_overhead_seconds_count"), 2);
    assert_eq!(world.metric("kiegate_overhead_seconds_bucket{le=\"1\"}"), 2);
}

/// Each took a place of the window, so that nothing could be sent when the upstream was back.
#[tokio::test(start_paused = true)]
async fn a_create_that_never_left_takes_nothing_of_the_quota() {
    let world = account("2/10s", "max_wait = \"60s\"");
    let acme = world.client("acme");
    for _ in 0..2 {
        world.upstream.meets([Misfortune::Unreachable, Misfortune::Unreachable, Misfortune::Unreachable]);
        acme.create().await.expect_status(502);
    }
    let began = Instant::now();
    acme.create().await.expect_code(200);
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
}

/// What it answered was forgotten, so that the next ones went out as if nothing had been said.
#[tokio::test(start_paused = true)]
async fn what_the_upstream_says_of_its_quota_is_heard_though_the_client_has_gone() {
    let world = account("20/10s", "max_wait = \"60s\"");
    let (acme, bolt) = (world.client("acme"), world.client("bolt"));
    world.upstream.takes(Duration::from_secs(5));
    let too_many = json!({"code": 429, "msg": "too many", "data": null});
    world.upstream.meets([Misfortune::Answers(200, too_many)]);
    assert!(tokio::time::timeout(Duration::from_secs(1), acme.create()).await.is_err());
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert!(world.gateway.upstream_status()[0]["blocked_seconds"].as_f64().unwrap() > 5.0);
    world.upstream.takes(Duration::ZERO);
    let waited = bolt.create().await.expect_code(200).header("x-kiegate-queued").parse::<u32>().unwrap();
    assert!(waited > 5000, "{waited} ms");
}

/// They waited out their patience for what had been ruled out.
#[tokio::test(start_paused = true)]
async fn what_waits_in_vain_hears_of_it_at_once() {
    let world = account("1/10s", "max_wait = \"300s\"");
    let (acme, bolt) = (world.client("acme"), world.client("bolt"));
    world.upstream.takes(Duration::from_secs(2));
    world.upstream.meets([Misfortune::Throttled(600)]);
    let began = Instant::now();
    let (first, second) = tokio::join!(acme.create(), bolt.create());
    for refused in [first, second] {
        assert_eq!(refused.expect_status(429).header("x-kiegate-error"), "quota_timeout");
    }
    assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn what_waits_when_the_gateway_is_about_to_stop_is_sent_away() {
    let world = account("1/10s", "max_wait = \"300s\"");
    let (acme, bolt) = (world.client("acme"), world.client("bolt"));
    acme.create().await.expect_code(200);
    let stop = async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        world.gateway.drain();
    };
    let (waiting, ()) = tokio::join!(bolt.create(), stop);
    assert_eq!(waiting.expect_status(503).header("x-kiegate-error"), "draining");
    tokio::time::sleep(Duration::from_millis(10)).await;
    assert_eq!((world.running("bolt").await, world.spent("bolt").await), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_key_rests_until_it_takes_a_create() {
    let world = account("20/10s", "");
    let acme = world.client("acme");
    let refused = json!({"code": 401, "msg": "no", "data": null});
    world.upstream.meets([Misfortune::Answers(200, refused)]);
    acme.create().await.expect_code(401);
    let rests = || world.gateway.upstream_status()[0]["resting"].clone();
    assert_eq!(rests(), true);
    acme.create().await.expect_code(200);
    assert_eq!(rests(), false);
}

/// They held up the others until they were overdue.
#[tokio::test(start_paused = true)]
async fn tasks_that_ended_unseen_leave_the_accounts_room_to_others() {
    let world = account("100/10s", "max_concurrent_tasks = 2\nmax_wait = \"300s\"");
    let silent = json!({"model": "google/nano-banana", "input": {"prompt": "a lighthouse"}});
    for _ in 0..2 {
        world.client("acme").post("/api/v1/jobs/createTask", &silent).await.expect_code(200);
    }
    let began = Instant::now();
    world.client("bolt").create().await.expect_code(200);
    assert!(began.elapsed() < Duration::from_secs(12), "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_client_that_goes_away_gives_its_place_up() {
    let world = account("1/10s", "max_wait = \"60s\"");
    let (acme, bolt) = (world.client("acme"), world.client("bolt"));
    acme.create().await.expect_code(200);
    assert!(tokio::time::timeout(Duration::from_secs(2), acme.create()).await.is_err());
    let began = Instant::now();
    bolt.create().await.expect_code(200);
    assert!(began.elapsed() < Duration::from_secs(9));
    assert_eq!((world.upstream.arrived().len(), world.running("acme").await), (2, 1));
    assert_eq!(world.metric("kiegate_upstream_queue{key=\"main\"}"), 0);
}

#[tokio::test(start_paused = true)]
async fn turns_go_by_weight_when_there_are_not_enough() {
    let world = account("4/10s", "max_wait = \"600s\"");
    let order = Arc::new(Mutex::new(Vec::new()));
    let clients = ["acme", "bolt"].into_iter().flat_map(|name| (0..20).map(move |_| name)).map(|name| {
        let (client, order) = (world.client(name), Arc::clone(&order));
        async move {
            client.create().await.expect_code(200);
            order.lock().unwrap().push(name);
        }
    });
    futures_util::future::join_all(clients).await;
    let first: Vec<_> = order.lock().unwrap()[4..24].to_vec();
    let acme = first.iter().filter(|name| **name == "acme").count();
    assert!((14..=16).contains(&acme), "{acme} of 20 for three quarters: {first:?}");
}

#[tokio::test(start_paused = true)]
async fn a_quota_that_is_smaller_than_configured_is_learned() {
    // The account grants 20 in 10 seconds, whatever we think.
    let world = account("30/10s", "max_wait = \"300s\"");
    let acme = world.client("acme");
    let creates = (0..60).map(|_| acme.create());
    let answers = futures_util::future::join_all(creates).await;
    assert!(answers.iter().all(|answer| answer.status == 200 && answer.json()["code"] == 200));
    let arrived = world.upstream.arrived().len();
    assert!((60..=90).contains(&arrived), "{arrived} requests for 60 creates");
}

#[tokio::test(start_paused = true)]
async fn only_so_many_tasks_are_under_way() {
    let world = account("100/10s", "max_concurrent_tasks = 2\nmax_wait = \"60s\"");
    let acme = world.client("acme");
    let ids = [acme.create().await.task_id(), acme.create().await.task_id()];
    let began = Instant::now();
    let poll = async {
        for id in &ids {
            acme.until_ended(id).await;
        }
    };
    let (third, ()) = tokio::join!(acme.create(), poll);
    assert!(third.expect_code(200).status == 200 && began.elapsed() > Duration::from_secs(1));
}
