//! Limits of tenants: rates, tasks under way, credits; exact under any interleaving.

use proptest::prelude::*;

use super::*;

fn with_limits(limits: &str) -> Shared {
    let lines = format!(
        "mode = \"live\"\npublic_url = \"https://gateway.test\"\n[[upstream.key]]\n%main\ncreates = \"1000/10s\"\n\
         [[tenant]]\n%acme\n[tenant.limits]\n{limits}\n[[tenant]]\n%bolt\n"
    );
    Shared::new(&lines)
}

#[tokio::test(start_paused = true)]
async fn a_tenant_over_its_rate_is_told_when_to_come_back() {
    let world = with_limits("requests = \"2/10s\"");
    let acme = world.client("acme");
    let first = acme.get("/api/v1/chat/credit").await.expect_status(200);
    assert_eq!(first.header("ratelimit-policy"), "\"requests\";q=2;w=10");
    assert_eq!(first.header("ratelimit"), "\"requests\";r=1;t=5");
    acme.get("/api/v1/chat/credit").await.expect_status(200);
    let refused = acme.get("/api/v1/chat/credit").await.expect_status(429);
    assert_eq!(refused.header("x-kiegate-error"), "rate_limited");
    assert_eq!((refused.header("retry-after"), refused.header("ratelimit")), ("5", "\"requests\";r=0;t=5"));
    assert_eq!(refused.json()["code"], 429);
    tokio::time::sleep(Duration::from_secs(5)).await;
    acme.get("/api/v1/chat/credit").await.expect_status(200);
    world.client("bolt").get("/api/v1/chat/credit").await.expect_status(200);
    assert_eq!(world.metric("kiegate_refusals_total{reason=\"rate_limited\",tenant=\"acme\"}"), 1);
}

#[tokio::test(start_paused = true)]
async fn creates_have_a_rate_of_their_own_and_a_refused_one_costs_nothing() {
    let world = with_limits("creates = \"1/10s\"\nconcurrent_tasks = 5");
    let acme = world.client("acme");
    assert_eq!(acme.create().await.expect_code(200).header("ratelimit"), "\"creates\";r=0;t=10");
    let refused = acme.create().await.expect_status(429);
    assert_eq!((refused.header("x-kiegate-error"), refused.header("retry-after")), ("rate_limited", "10"));
    tokio::time::sleep(Duration::from_millis(10)).await;
    assert_eq!((world.running("acme").await, world.spent("acme").await), (1, 12));
    acme.get("/api/v1/chat/credit").await.expect_status(200);
}

/// It was once told to come back at the end of the hour, and refused again.
#[tokio::test(start_paused = true)]
async fn of_two_full_windows_the_one_that_ends_last_says_when_to_come_back() {
    let world = with_limits("credits = { hour = 12, day = 12, month = 1000 }");
    let acme = world.client("acme");
    acme.create().await.expect_code(200);
    let refused = acme.create().await.expect_status(402);
    let wait: u64 = refused.header("retry-after").parse().unwrap();
    assert!(wait > 3600 && wait <= 86_400, "{wait}: {}", refused.text());
    assert!(refused.text().contains("in this day"), "{}", refused.text());
}

/// It was once found out when they were long overdue.
#[tokio::test(start_paused = true)]
async fn tasks_that_nobody_asks_for_make_room_when_it_is_wanted() {
    let world = with_limits("concurrent_tasks = 2");
    let acme = world.client("acme");
    let silent = json!({"model": "google/nano-banana", "input": {"prompt": "a lighthouse"}});
    let create = async || acme.post("/api/v1/jobs/createTask", &silent).await;
    for _ in 0..2 {
        create().await.expect_code(200);
    }
    tokio::time::sleep(Duration::from_secs(8)).await;
    let refused = create().await.expect_status(429);
    let wait = refused.header("retry-after").parse().unwrap();
    tokio::time::sleep(Duration::from_secs(wait)).await;
    create().await.expect_code(200);
    assert_eq!(world.upstream.count("jobs.details"), 2, "each is looked at once");
}

#[tokio::test(start_paused = true)]
async fn so_many_tasks_at_once_and_no_more() {
    let world = with_limits("concurrent_tasks = 3");
    let acme = world.client("acme");
    let creates = futures_util::future::join_all((0..10).map(|_| acme.create())).await;
    let accepted = creates.iter().filter(|answer| answer.status == 200).count();
    assert_eq!((accepted, world.upstream.count("runway.generate")), (3, 3));
    let refused = creates.iter().find(|answer| answer.status == 429).unwrap();
    assert_eq!(refused.header("x-kiegate-error"), "too_many_tasks");
    assert!(refused.header("retry-after").parse::<u32>().unwrap() >= 1);
    let id = creates.iter().find(|answer| answer.status == 200).unwrap().task_id();
    acme.until_ended(&id).await;
    acme.create().await.expect_code(200);
}

#[tokio::test(start_paused = true)]
async fn credits_are_reserved_and_settled() {
    let world = with_limits("credits = { hour = 30 }");
    let acme = world.client("acme");
    acme.create().await.expect_code(200);
    let mut failing = video();
    failing["prompt"] = "x [[mock:fail:nsfw]]".into();
    let failing = acme.post("/api/v1/runway/generate", &failing).await.expect_code(200).task_id();
    let refused = acme.create().await.expect_status(402);
    assert_eq!(refused.header("x-kiegate-error"), "budget_exceeded");
    assert!(refused.text().contains("12 credits") && refused.text().contains("24"), "{}", refused.text());
    acme.until_ended(&failing).await;
    assert_eq!(world.spent("acme").await, 12, "a failed task costs nothing");
    acme.create().await.expect_code(200);
    assert_eq!(world.metric("kiegate_budget_remaining{tenant=\"acme\",window=\"hour\"}"), 6);
    tokio::time::sleep(Duration::from_hours(1)).await;
    acme.create().await.expect_code(200);
}

/// It reserves nothing, and nothing fitted into a budget of which nothing was left.
#[tokio::test(start_paused = true)]
async fn what_nobody_knows_the_price_of_is_refused_where_nothing_is_left() {
    let world = with_limits("credits = { day = 12 }");
    let acme = world.client("acme");
    let new = json!({"model": "acme/new-9", "input": {"prompt": "x"}});
    let create = async || acme.post("/api/v1/jobs/createTask", &new).await;
    create().await.expect_status(200);
    acme.create().await.expect_code(200);
    assert_eq!(create().await.expect_status(402).header("x-kiegate-error"), "budget_exceeded");
    assert_eq!(world.upstream.count("jobs.create"), 1);
}

/// A chat and another version were not counted where a budget is tried out.
#[tokio::test(start_paused = true)]
async fn a_budget_in_shadow_is_told_of_all_that_costs() {
    let world = with_limits("credits = { day = { limit = 12, shadow = true } }");
    let acme = world.client("acme");
    acme.create().await.expect_code(200);
    let refused = "kiegate_refusals_total{reason=\"budget_exceeded_shadow\",tenant=\"acme\"}";
    assert_eq!(world.metric(refused), 0);
    assert_eq!(world.plane.answer(chat(1)).await.status(), 200);
    assert_eq!(world.metric(refused), 1);
    let veo = acme.post("/api/v1/veo/generate", &json!({"prompt": "x", "model": "veo3"})).await.task_id();
    tokio::time::sleep(Duration::from_mins(10)).await;
    acme.get(&format!("/api/v1/veo/record-info?taskId={veo}")).await.expect_code(200);
    assert_eq!(world.metric(refused), 2);
    acme.post("/api/v1/veo/get-4k-video", &json!({"taskId": veo})).await.expect_code(200);
    assert_eq!(world.metric(refused), 3);
}

#[tokio::test(start_paused = true)]
async fn a_limit_in_shadow_is_told_and_refuses_nobody() {
    let world = with_limits(
        "requests = { limit = \"1/10s\", shadow = true }\ncreates = { limit = \"1/10s\", shadow = true }\n\
         concurrent_tasks = { limit = 1, shadow = true }\ncredits = { day = { limit = 12, shadow = true } }",
    );
    let acme = world.client("acme");
    for _ in 0..3 {
        acme.create().await.expect_code(200);
    }
    for (reason, count) in [("rate_limited", 4), ("too_many_tasks", 2), ("budget_exceeded", 2)] {
        let line = format!("kiegate_refusals_total{{reason=\"{reason}_shadow\",tenant=\"acme\"}}");
        assert_eq!(world.metric(&line), count, "{reason}");
    }
}

/// What becomes of one create: when it comes, how the upstream takes it, how long its client waits.
#[derive(Clone, Debug)]
struct Visit {
    at: u64,
    latency: u64,
    patience: u64,
    fails: bool,
    meets: Option<Misfortune>,
}

fn visits() -> impl Strategy<Value = Vec<Visit>> {
    let refused = || Misfortune::Answers(200, json!({"code": 500, "msg": "x"}));
    let meets = prop_oneof![
        7 => Just(None),
        1 => Just(Some(refused())),
        1 => Just(Some(Misfortune::Unreachable)),
        1 => Just(Some(Misfortune::AnswerLost)),
        1 => Just(Some(Misfortune::Throttled(2))),
    ];
    let visit = (0..30_000_u64, 0..800_u64, 0..3000_u64, any::<bool>(), meets);
    let visit =
        visit.prop_map(|(at, latency, patience, fails, meets)| Visit { at, latency, patience, fails, meets });
    proptest::collection::vec(visit, 1..48)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, failure_persistence: None, ..ProptestConfig::default() })]

    /// Creates, ends, failures, lost answers and clients that leave, in any order: never more than allowed, and in the end
    /// everything adds up.
    #[test]
    fn limits_hold_under_any_interleaving(visits in visits()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
        runtime.block_on(limits_hold(visits));
    }
}

async fn limits_hold(visits: Vec<Visit>) {
    let world = Arc::new(with_limits("concurrent_tasks = 4\ncredits = { month = 120 }"));
    let most = Arc::new(Mutex::new((0, 0)));
    let watch = {
        let (world, most) = (Arc::clone(&world), Arc::clone(&most));
        kiegate::background::spawn(async move {
            loop {
                let (running, spent) = (world.running("acme").await, world.spent("acme").await);
                {
                    let mut most = most.lock().unwrap();
                    *most = (most.0.max(running), most.1.max(spent));
                }
                tokio::time::sleep(Duration::from_millis(7)).await;
            }
        })
    };
    let clients =
        visits.into_iter().map(|visit| kiegate::background::spawn(visit_once(Arc::clone(&world), visit)));
    futures_util::future::join_all(clients).await;
    watch.abort();
    // Those whose clients left are looked after by the gateway.
    tokio::time::sleep(Duration::from_hours(2)).await;
    let (running, spent) = *most.lock().unwrap();
    assert!(running <= 4, "{running} at once");
    assert!(spent <= 120, "{spent} credits");
    assert_eq!(world.running("acme").await, 0);
    assert_eq!(world.spent("acme").await % 12, 0);
    assert_eq!(world.metric("kiegate_tasks_running{tenant=\"acme\"}"), 0);
}

async fn visit_once(world: Arc<Shared>, visit: Visit) {
    tokio::time::sleep(Duration::from_millis(visit.at)).await;
    world.upstream.takes(Duration::from_millis(visit.latency));
    world.upstream.meets(visit.meets);
    let mut request = video();
    if visit.fails {
        request["prompt"] = "x [[mock:fail:nsfw]]".into();
    }
    let acme = world.client("acme");
    let create = acme.post("/api/v1/runway/generate", &request);
    let Ok(answer) = tokio::time::timeout(Duration::from_millis(visit.patience), create).await else {
        return;
    };
    if answer.status == 200 && answer.json()["code"] == 200 {
        acme.until_ended(&answer.task_id()).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_reload_leaves_what_is_used_up_where_limits_stay() {
    let lines = "mode = \"live\"\n[[upstream.key]]\n%main\n[[tenant]]\n%acme\n[tenant.limits]\nrequests = \"1/10s\"\nconcurrent_tasks = 1\n[[tenant]]\n%bolt\n";
    let world = Shared::new(lines);
    let acme = world.client("acme");
    acme.get("/api/v1/chat/credit").await.expect_status(200);
    world.gateway.set_tenants(&live(lines).tenants);
    acme.get("/api/v1/chat/credit").await.expect_status(429);
    world.gateway.set_tenants(&live(&lines.replace("tasks = 1", "tasks = 2")).tenants);
    acme.get("/api/v1/chat/credit").await.expect_status(429); // by a limit that stays
    world.gateway.set_tenants(&live(&lines.replace("1/10s", "2/10s")).tenants);
    acme.get("/api/v1/chat/credit").await.expect_status(200);
}

/// Its answer has the name of a task, which counted as under way for good: a few of them stopped the whole account.
#[tokio::test(start_paused = true)]
async fn what_is_done_with_its_answer_takes_up_no_place() {
    let world = Shared::new(
        "mode = \"live\"\n[[upstream.key]]\n%main\nmax_concurrent_tasks = 1\n[[tenant]]\n%acme\n[tenant.limits]\nconcurrent_tasks = 1\n[[tenant]]\n%bolt\n",
    );
    let acme = world.client("acme");
    for number in 1..=3 {
        let done = acme.post("/api/v1/style/generate", &json!({"content": "Waltz"})).await.expect_code(200);
        assert!(done.json()["data"]["taskId"].is_string(), "{}", done.text());
        assert_eq!(world.store.running(&TenantId::new("acme")).await.unwrap(), 0);
        assert!((spent_exactly(&world).await - 0.4 * f64::from(number)).abs() < 1e-9);
    }
    world.client("bolt").create().await.expect_code(200);
}

/// It was counted for a moment, in which others that might go on found all places taken.
#[tokio::test(start_paused = true)]
async fn a_create_that_its_rate_refuses_is_not_counted_first() {
    let lines = "mode = \"live\"\n[[upstream.key]]\n%main\n[[tenant]]\n%acme\n[tenant.limits]\ncreates = \"1/60s\"\nconcurrent_tasks = 1\n[[tenant]]\n%bolt\n";
    let acme = Shared::new(lines).client("acme");
    acme.create().await.expect_code(200);
    let refused = acme.create().await.expect_status(429);
    assert_eq!(refused.header("x-kiegate-error"), "rate_limited", "and not too_many_tasks");
}

/// A feed that is asked for without end is a call like any other.
#[tokio::test(start_paused = true)]
async fn the_feed_and_the_description_count_as_calls() {
    let lines = "mode = \"live\"\n[[upstream.key]]\n%main\n[[tenant]]\n%acme\n[tenant.limits]\nrequests = \"2/10s\"\n[[tenant]]\n%bolt\n";
    let acme = Shared::new(lines).client("acme");
    let first = acme.get("/_events").await.expect_status(200);
    assert_eq!(first.header("ratelimit"), "\"requests\";r=1;t=5");
    acme.get("/openapi.json").await.expect_status(200);
    acme.get("/_events").await.expect_status(429);
    acme.get("/openapi.json").await.expect_status(429);
}

#[tokio::test(start_paused = true)]
async fn limits_hold_for_tenants_of_the_simulator_too() {
    let world = Shared::new(
        "mode = \"live\"\n[[upstream.key]]\n%main\n[[tenant]]\n%acme\nmode = \"mock\"\n[tenant.limits]\nconcurrent_tasks = 1\n[[tenant]]\n%bolt\n",
    );
    let acme = world.client("acme");
    let first = acme.create().await.expect_code(200);
    assert_eq!(first.header("x-kiegate-mode"), "mock");
    acme.create().await.expect_status(429);
    acme.until_ended(&first.task_id()).await;
    tokio::time::sleep(Duration::from_millis(10)).await;
    acme.create().await.expect_code(200);
    assert_eq!(world.upstream.arrived().len(), 0, "such a key can never spend");
    acme.get("/_mock/tasks").await.expect_status(200);
    world.client("bolt").get("/_mock/tasks").await.expect_status(404);
}

/// Tasks that were gone with a reset once counted as under way for good.
#[tokio::test(start_paused = true)]
async fn a_reset_frees_what_its_tasks_took_up() {
    let world = Shared::new(
        "mode = \"live\"\n[[upstream.key]]\n%main\n[[tenant]]\n%acme\nmode = \"mock\"\n[tenant.limits]\nconcurrent_tasks = 2\ncredits = { month = 24 }\n",
    );
    let acme = world.client("acme").wishing("stall");
    for _ in 0..3 {
        acme.create().await.expect_code(200);
        acme.create().await.expect_code(200);
        acme.create().await.expect_status(429);
        assert_eq!((world.running("acme").await, world.spent("acme").await), (2, 24));
        acme.post("/_mock/reset", &json!({})).await.expect_status(200);
        tokio::time::sleep(Duration::from_millis(10)).await;
        assert_eq!((world.running("acme").await, world.spent("acme").await), (0, 0));
    }
}

/// What acme has spent in this month, to a hundredth of a credit.
async fn spent_exactly(world: &Shared) -> f64 {
    tokio::time::sleep(Duration::from_millis(10)).await;
    let now = Moment::Real(Timestamp::from_millis(1_785_999_477_123));
    world.store.spent(&TenantId::new("acme"), now).await.unwrap()[2].as_f64()
}

fn chat(words: usize) -> Request<Body> {
    let messages = json!([{"role": "user", "content": "a word ".repeat(words)}]);
    let body = json!({"messages": messages, "stream": true}).to_string();
    let request = Request::post("/gemini-3-pro/v1/chat/completions").header("authorization", "Bearer acme");
    request.body(Body::from(body)).unwrap()
}

/// The upstream says what a chat has cost at its end; whoever left before it was charged nothing.
#[tokio::test(start_paused = true)]
async fn a_chat_whose_client_leaves_costs_about_as_much_as_was_said() {
    let world = with_limits("credits = { month = 1000 }");
    let whole = world.plane.answer(chat(4000)).await.into_body();
    axum::body::to_bytes(whole, usize::MAX).await.unwrap();
    let full = spent_exactly(&world).await;
    let mut body = world.plane.answer(chat(4000)).await.into_body();
    while let Some(frame) = http_body_util::BodyExt::frame(&mut body).await {
        let frame = frame.unwrap().into_data().unwrap();
        let text = String::from_utf8(frame.to_vec()).unwrap();
        assert!(!text.contains("usage") && !text.contains("credits"), "it is to leave before {text}");
        if text.contains("\"content\"") {
            break;
        }
    }
    drop(body);
    let early = spent_exactly(&world).await - full;
    assert!((full / 2.0..=full).contains(&early), "{early} of {full}");
}

#[tokio::test(start_paused = true)]
async fn a_chat_whose_client_leaves_before_the_answer_costs_its_words_and_the_time() {
    let world = with_limits("credits = { month = 1000 }");
    world.upstream.takes(Duration::from_secs(100));
    let spent = async |seconds| {
        let before = spent_exactly(&world).await;
        let patience = Duration::from_secs(seconds);
        assert!(tokio::time::timeout(patience, world.plane.answer(chat(4000))).await.is_err());
        spent_exactly(&world).await - before
    };
    let (at_once, later) = (spent(1).await, spent(31).await);
    assert!(at_once > 0.5 && later > at_once + 0.5, "{at_once} and {later}");
}

/// They were let in as long as anything was left, and counted at their ends.
#[tokio::test(start_paused = true)]
async fn the_words_of_a_chat_are_reserved_while_it_lasts() {
    let world = with_limits("credits = { month = 8 }");
    world.upstream.takes(Duration::from_secs(100));
    let under_way = async || {
        let answers = (0..20).map(|_| world.plane.answer(chat(4000)));
        let answers = futures_util::future::join_all(answers);
        let spent = async {
            tokio::time::sleep(Duration::from_secs(50)).await;
            spent_exactly(&world).await
        };
        let (answers, reserved) = tokio::join!(answers, spent);
        let (mut let_in, mut refused) = (0, 0);
        for answer in answers {
            match answer.status().as_u16() {
                200 => let_in += 1,
                402 => refused += 1,
                other => panic!("{other}"),
            }
            axum::body::to_bytes(answer.into_body(), usize::MAX).await.unwrap();
        }
        (let_in, refused, reserved)
    };
    let (let_in, refused, reserved) = under_way().await;
    assert!(let_in > 1 && refused > 1, "{let_in} and {refused}");
    let each = reserved / f64::from(let_in);
    assert!(reserved <= 8.0 && reserved + each > 8.0, "{let_in} of {each} each");
    let settled = spent_exactly(&world).await;
    assert!(settled > reserved, "what was said costs, too: {settled} after {reserved}");
    assert_eq!(under_way().await.0, 0, "all is spent");
    let world = with_limits("credits = { month = 8 }");
    world.upstream.meets([Misfortune::Broken]);
    world.plane.answer(chat(4000)).await;
    assert!(spent_exactly(&world).await < 0.001, "what is not answered is given back");
}

#[tokio::test(start_paused = true)]
async fn a_chat_that_is_not_answered_costs_nothing() {
    let world = with_limits("credits = { month = 1000 }");
    let refusal = json!({"code": 500, "msg": "Server exception", "data": null});
    let unreachable = [Misfortune::Unreachable, Misfortune::Unreachable, Misfortune::Unreachable];
    world.upstream.meets(unreachable);
    world.upstream.meets([Misfortune::Broken, Misfortune::Answers(200, refusal)]);
    for status in [502, 502, 200] {
        let answer = world.plane.answer(chat(4000)).await;
        assert_eq!(answer.status(), status);
        // As a server does that knows how long it is.
        let mut body = answer.into_body();
        http_body_util::BodyExt::frame(&mut body).await.unwrap().unwrap();
    }
    assert!(spent_exactly(&world).await < 0.001);
}
