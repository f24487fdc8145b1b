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
