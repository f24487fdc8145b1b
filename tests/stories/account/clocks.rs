//! Budgets of tenants in mock mode: what is counted goes by the clocks of their sandboxes.

use super::*;

const CHAT: &str = "/gemini-3-pro/v1/chat/completions";

fn chat(words: usize) -> Value {
    json!({"messages": [{"role": "user", "content": "a word ".repeat(words)}], "stream": false})
}

/// A tenant of the simulator that has two keys, and with them two sandboxes.
fn with_clock(limits: &str) -> Shared {
    Shared::new(&format!(
        "mode = \"live\"\n[[upstream.key]]\n%main\n[[tenant]]\nid = \"acme\"\nkeys = [\"sha256:{}\", \"sha256:{}\"]\nmode = \"mock\"\n\
         [tenant.limits]\n{limits}\n[[tenant]]\n%bolt\n",
        hash("acme"),
        hash("acme-too")
    ))
}

/// The windows of a budget once went by real time, whatever the sandbox's clock showed.
#[tokio::test(start_paused = true)]
async fn the_windows_of_a_budget_go_by_the_sandboxs_clock() {
    let world = with_clock("credits = { hour = 24 }");
    let acme = world.client("acme");
    acme.put("/_mock/clock", &json!({"now": "2030-01-31T23:30:00Z", "rate": 0})).await.expect_status(200);
    for ends in ["2030-02-01T00:00:00.000Z", "2030-02-01T01:00:00.000Z", "2030-02-01T02:00:00.000Z"] {
        acme.create().await.expect_code(200);
        acme.create().await.expect_code(200);
        let refused = acme.create().await.expect_status(402);
        assert!(refused.text().contains(ends), "{}", refused.text());
        assert_eq!(refused.header("retry-after"), "1800");
        acme.advance("1h").await;
    }
}

/// Sandboxes of one tenant share its budget: each hour of the calendar has one, whichever clock shows it.
#[tokio::test(start_paused = true)]
async fn sandboxes_of_a_tenant_share_each_window_of_its_budget() {
    let world = with_clock("credits = { hour = 24 }");
    let (first, second) = (world.client("acme"), world.client("acme-too"));
    first.create().await.expect_code(200);
    second.create().await.expect_code(200);
    second.create().await.expect_status(402);
    second.advance("1h").await;
    second.create().await.expect_code(200);
    first.create().await.expect_status(402);
    // What fails in the next hour is given back in the one that it was reserved in.
    let failing = second.wishing("fail:nsfw");
    let id = failing.create().await.expect_code(200).task_id();
    second.create().await.expect_status(402);
    second.advance("1h").await;
    second.until_ended(&id).await;
    second.create().await.expect_code(200);
    first.advance("1h").await;
    first.create().await.expect_code(200);
    first.create().await.expect_status(402);
}

#[tokio::test(start_paused = true)]
async fn chats_and_idempotency_keys_go_by_the_sandboxs_clock_too() {
    let world = with_clock("credits = { day = 4 }");
    let acme = world.client("acme");
    acme.post(CHAT, &chat(20_000)).await.expect_status(200);
    acme.post(CHAT, &chat(20_000)).await.expect_status(402);
    acme.advance("24h").await;
    acme.post(CHAT, &chat(20_000)).await.expect_status(200);

    let world = with_clock("concurrent_tasks = 10");
    let once = world.client("acme").with("idempotency-key", "order-1");
    let first = once.create().await.expect_code(200).task_id();
    assert_eq!(once.create().await.expect_code(200).task_id(), first);
    once.advance("23h").await;
    assert_eq!(once.create().await.expect_code(200).task_id(), first);
    once.advance("1h").await;
    assert_ne!(once.create().await.expect_code(200).task_id(), first);
}

/// A key once outlived its sandbox, and answered with a task that was no more.
#[tokio::test(start_paused = true)]
async fn an_idempotency_key_belongs_to_its_sandbox() {
    let world = with_clock("concurrent_tasks = 10");
    let once = |key| world.client(key).with("idempotency-key", "order-1");
    let is_replayed = async |client: &Client| {
        client.create().await.expect_code(200).headers.contains_key("idempotency-replayed")
    };
    let (first, second) = (once("acme"), once("acme-too"));
    assert!(!is_replayed(&first).await);
    assert!(is_replayed(&first).await);
    assert!(!is_replayed(&second).await, "another sandbox");
    first.advance("48h").await;
    assert!(!is_replayed(&first).await, "another day");
    for _ in 0..2 {
        first.post("/_mock/reset", &json!({})).await.expect_status(200);
        assert!(!is_replayed(&first).await, "another world, whose clock shows the day before");
    }
    assert!(is_replayed(&first).await);
    assert!(is_replayed(&second).await);
}
