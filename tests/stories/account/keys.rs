//! Several upstream keys: the next one is used when one is of no use.

use super::*;

const TWO: &str = "mode = \"live\"\n[[upstream.key]]\n%main\ncreates = \"2/10s\"\n[[upstream.key]]\n%spare\n[[tenant]]\n%acme\n[[tenant]]\n%bolt\nupstream_keys = [\"spare\"]\n";

fn keys(world: &Shared) -> Vec<usize> {
    world.upstream.arrived().iter().map(|arrived| arrived.key).collect()
}

#[tokio::test(start_paused = true)]
async fn a_refused_key_gives_way_to_the_next_and_rests() {
    for code in [401, 402, 433] {
        let world = Shared::new(TWO);
        world.upstream.meets([Misfortune::Answers(200, json!({"code": code, "msg": "no", "data": null}))]);
        world.client("acme").create().await.expect_code(200);
        world.client("acme").create().await.expect_code(200);
        assert_eq!(keys(&world), [0, 1, 1], "{code}");
        tokio::time::sleep(Duration::from_secs(61)).await;
        world.client("acme").create().await.expect_code(200);
        assert_eq!(keys(&world).last(), Some(&0), "{code}");
    }
}

#[tokio::test(start_paused = true)]
async fn when_every_key_is_refused_the_client_hears_what_upstream_says() {
    let world = Shared::new(TWO);
    let no = || Misfortune::Answers(200, json!({"code": 402, "msg": "no credits", "data": null}));
    world.upstream.meets([no(), no()]);
    world.client("acme").create().await.expect_refusal(402, "no credits");
    assert_eq!((keys(&world), world.running("acme").await), (vec![0, 1], 0));
}

#[tokio::test(start_paused = true)]
async fn a_used_up_quota_moves_creates_to_the_next_key() {
    let world = Shared::new(TWO);
    let began = Instant::now();
    for _ in 0..4 {
        world.client("acme").create().await.expect_code(200);
    }
    assert_eq!((keys(&world), began.elapsed()), (vec![0, 0, 1, 1], Duration::ZERO));
    world.client("bolt").create().await.expect_code(200);
    assert_eq!(keys(&world).last(), Some(&1), "bolt has that key alone");
}

/// It waited for the key that upstream wanted no creates with, or was refused at once if that was for too long.
#[tokio::test(start_paused = true)]
async fn a_key_that_upstream_wants_nothing_with_gives_way_to_one_that_has_room() {
    let throttled = || Misfortune::Answers(429, json!({"code": 429, "msg": "too many", "data": null}));
    for patience in ["max_wait = \"60s\"", "max_wait = \"1s\""] {
        let world = Shared::new(&TWO.replace("%main", &format!("%main\n{patience}")));
        let acme = world.client("acme");
        world.upstream.meets([throttled()]);
        let began = Instant::now();
        acme.create().await.expect_code(200);
        assert_eq!((keys(&world), began.elapsed()), (vec![0, 1], Duration::ZERO), "{patience}");
        assert_eq!(world.running("acme").await, 1);
    }
    // Neither key has room: the first that has takes it, and how long it waited is told.
    let world = Shared::new(TWO);
    world.upstream.takes(Duration::from_secs(1));
    world.upstream.meets([throttled(), throttled()]);
    let began = Instant::now();
    let answer = world.client("acme").create().await.expect_code(200);
    assert_eq!(keys(&world), [0, 1, 0]);
    let waited = Duration::from_millis(answer.header("x-kiegate-queued").parse().unwrap());
    assert_eq!(waited + Duration::from_secs(3), began.elapsed());
    // And no longer than a create waits at all, however often it changes.
    let world = Shared::new(TWO);
    world.upstream.meets((0..100).map(|_| throttled()));
    let began = Instant::now();
    let late = world.client("acme").create().await.expect_status(429);
    assert_eq!(late.header("x-kiegate-error"), "quota_timeout");
    assert!(began.elapsed() <= Duration::from_secs(30), "{:?}", began.elapsed());
    tokio::time::sleep(Duration::from_millis(10)).await;
    assert_eq!((world.running("acme").await, world.spent("acme").await), (0, 0));
    // A key that is not the tenant's is none.
    let world = Shared::new(TWO);
    world.upstream.meets([throttled()]);
    world.client("bolt").create().await.expect_code(200);
    assert_eq!(keys(&world), [1, 1]);
}

/// It was sent with the first of the tenant's keys, whose account knows no such task.
#[tokio::test(start_paused = true)]
async fn what_follows_a_task_is_sent_with_the_key_that_made_it() {
    let world = Shared::new(&TWO.replace("%spare", "%spare\ncreates = \"2/10s\""));
    let acme = world.client("acme");
    for _ in 0..2 {
        acme.create().await.expect_code(200);
    }
    let id = acme.create().await.expect_code(200).task_id();
    acme.until_ended(&id).await;
    tokio::time::sleep(Duration::from_secs(11)).await;
    let extend = json!({"taskId": id, "prompt": "on", "quality": "720p"});
    // Both keys have room again; then the first has, and the second has not.
    for waits in [false, true] {
        let began = Instant::now();
        acme.post("/api/v1/runway/extend", &extend).await.expect_code(200);
        assert_eq!((keys(&world).last(), !began.elapsed().is_zero()), (Some(&1), waits));
        world.client("bolt").create().await.expect_code(200);
    }
    let no = Misfortune::Answers(200, json!({"code": 402, "msg": "no credits", "data": null}));
    tokio::time::sleep(Duration::from_secs(11)).await;
    world.upstream.meets([no]);
    acme.post("/api/v1/runway/extend", &extend).await.expect_refusal(402, "no credits");
    assert_eq!(keys(&world).last(), Some(&1), "no other account can");
}

/// Nobody knows where a new model names its parent; but an id of the tenant's own is one wherever it stands.
#[tokio::test(start_paused = true)]
async fn what_follows_a_task_in_a_way_that_nobody_knows_is_sent_with_that_key_too() {
    let world = Shared::new(TWO);
    let (acme, taken) =
        (world.client("acme"), json!({"code": 200, "msg": "success", "data": {"taskId": "a-task"}}));
    for _ in 0..2 {
        acme.create().await.expect_code(200);
    }
    let id = acme.create().await.expect_code(200).task_id();
    tokio::time::sleep(Duration::from_secs(11)).await;
    world.upstream.meets([Misfortune::Answers(200, taken)]);
    let request = json!({"model": "acme/new-9", "input": {"from": [id]}});
    acme.post("/api/v1/jobs/createTask", &request).await.expect_code(200);
    acme.get(&format!("/api/v1/else/{id}")).await;
    assert_eq!(keys(&world), [0, 0, 1, 1, 1]);
}
