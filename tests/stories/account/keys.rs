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
