//! Stories of callbacks on their way, on paused time, with a receiver that answers as it is told.

use futures_util::FutureExt as _;

use super::queue::{self, AT_ONCE_EACH};
use super::*;

#[derive(Default)]
struct Receiver {
    answers: Mutex<VecDeque<Result<u16, FailureKind>>>,
    got: Mutex<Vec<(String, HeaderMap, Bytes)>>,
    slow: Mutex<Duration>,
}

impl Receiver {
    fn answers(&self, answers: &[u16]) {
        self.answers.lock().unwrap().extend(answers.iter().map(|status| Ok(*status)));
    }

    fn bodies(&self) -> Vec<String> {
        let got = self.got.lock().unwrap();
        got.iter().map(|(_, _, body)| String::from_utf8_lossy(body).into_owned()).collect()
    }
}

impl Post for Receiver {
    fn secret(&self, _: &TenantId) -> Option<Secret> {
        Some(Secret::new("tenant-key"))
    }

    fn post(
        &self,
        _: &TenantId,
        url: Arc<str>,
        headers: HeaderMap,
        body: Bytes,
    ) -> BoxFuture<'static, Result<Delivered, Failure>> {
        self.got.lock().unwrap().push((url.to_string(), headers, body));
        let answer = self.answers.lock().unwrap().pop_front().unwrap_or(Ok(200));
        let slow = *self.slow.lock().unwrap();
        async move {
            tokio::time::sleep(slow).await;
            match answer {
                Ok(status) => {
                    Ok(Delivered { status: StatusCode::from_u16(status).unwrap(), retry_after: None })
                }
                Err(kind) => Err(Failure { kind, what: "no luck".into() }),
            }
        }
        .boxed()
    }
}

fn deliveries(pauses: Option<Vec<u64>>) -> (Deliveries, Arc<Receiver>) {
    let receiver = Arc::new(Receiver::default());
    let clock = Clock::starting_at(Timestamp::from_millis(1_700_000_000_000));
    let pauses = pauses.map(|pauses| pauses.into_iter().map(Duration::from_secs).collect());
    let post = Arc::clone(&receiver) as Arc<dyn Post>;
    (Deliveries::new(clock, Schedule::new(pauses), Arc::new(Metrics::new()), post), receiver)
}

fn delivery(create: CreateId, stage: usize, body: &'static str) -> Delivery {
    Delivery {
        create,
        tenant: TenantId::new("acme"),
        task_id: "task-1".into(),
        stage: Stage::Known(stage),
        url: Some("https://hooks.example.com/kie".into()),
        body: Bytes::from_static(body.as_bytes()),
    }
}

async fn after(seconds: u64) {
    tokio::time::sleep(Duration::from_secs(seconds)).await;
}

#[tokio::test(start_paused = true)]
async fn a_callback_is_delivered_once_and_signed_for_its_tenant() {
    let (deliveries, receiver) = deliveries(None);
    let create = CreateId::new();
    assert!(deliveries.add(delivery(create, 0, r#"{"data":{"taskId":"task-1"}}"#)));
    assert!(!deliveries.add(delivery(create, 0, "again")));
    after(1).await;
    let got = receiver.got.lock().unwrap().clone();
    let [(url, headers, body)] = &got[..] else { panic!("{got:?}") };
    assert_eq!(url, "https://hooks.example.com/kie");
    assert_eq!(wire::signature_is_valid("tenant-key", headers, body), Some(true));
    assert_eq!(headers["x-kiegate-attempt"], "1");
    assert_eq!(headers["x-kiegate-delivery"].len(), 24);
    assert_eq!(deliveries.waiting(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_tasks_stages_stay_in_order_while_an_earlier_one_is_tried_again() {
    let (deliveries, receiver) = deliveries(Some(vec![10, 10]));
    let (create, other) = (CreateId::new(), CreateId::new());
    receiver.answers(&[500, 404]);
    deliveries.add(delivery(create, 0, "text"));
    after(1).await;
    deliveries.add(delivery(create, 2, "complete"));
    deliveries.add(delivery(create, 1, "first"));
    after(10).await;
    deliveries.add(delivery(other, 0, "other"));
    after(30).await;
    assert_eq!(receiver.bodies(), ["text", "text", "other", "text", "first", "complete"]);
}

#[tokio::test(start_paused = true)]
async fn one_that_nobody_takes_is_given_up_and_can_be_sent_again_by_hand() {
    let (deliveries, receiver) = deliveries(Some(vec![1]));
    receiver.answers(&[400, 302]);
    deliveries.add(delivery(CreateId::new(), 0, "x"));
    after(5).await;
    let dead = deliveries.dead();
    assert_eq!((dead.len(), dead[0].attempts), (1, 2));
    assert_eq!(dead[0].last.as_deref(), Some("302 Found"));
    assert!(deliveries.redeliver(&dead[0].delivery.id()));
    after(5).await;
    assert_eq!((receiver.bodies().len(), deliveries.dead().len()), (3, 0));
}

#[tokio::test(start_paused = true)]
async fn a_receiver_that_is_gone_is_not_tried_again() {
    let (deliveries, receiver) = deliveries(None);
    receiver.answers(&[410]);
    deliveries.add(delivery(CreateId::new(), 0, "x"));
    after(3600).await;
    assert_eq!((receiver.bodies().len(), deliveries.dead().len()), (1, 1));
}

/// One that could not be taken closed the way for all others to the same host.
#[tokio::test(start_paused = true)]
async fn a_callback_that_fails_again_and_again_closes_no_way() {
    let (deliveries, receiver) = deliveries(Some(vec![1; 20]));
    receiver.answers(&[500; 12]);
    deliveries.add(delivery(CreateId::new(), 0, "bad"));
    after(8).await;
    let attempts = receiver.bodies().len();
    assert!(attempts >= 6, "{attempts}");
    receiver.answers.lock().unwrap().clear();
    deliveries.add(delivery(CreateId::new(), 0, "good"));
    tokio::time::sleep(Duration::from_millis(10)).await;
    assert!(receiver.bodies().contains(&"good".to_owned()), "{:?}", receiver.bodies());
}

#[tokio::test(start_paused = true)]
async fn a_receiver_that_is_down_for_hours_gets_everything_when_it_is_back() {
    let (deliveries, receiver) = deliveries(None);
    let broken = std::iter::repeat_n(Err(FailureKind::Connect), 60);
    receiver.answers.lock().unwrap().extend(broken);
    for _ in 0..20 {
        deliveries.add(delivery(CreateId::new(), 0, "x"));
    }
    after(60).await;
    let early = receiver.bodies().len();
    assert!(early <= 16, "{early} attempts in a minute are a storm");
    after(20 * 3600).await;
    assert_eq!((deliveries.waiting(), deliveries.dead().len()), (0, 0));
    assert_eq!(receiver.bodies().len(), 80);
}

#[tokio::test(start_paused = true)]
async fn a_slow_receiver_gets_few_at_once_and_all_in_the_end() {
    let (deliveries, receiver) = deliveries(None);
    *receiver.slow.lock().unwrap() = Duration::from_secs(2);
    for _ in 0..12 {
        deliveries.add(delivery(CreateId::new(), 0, "x"));
    }
    after(1).await;
    assert_eq!(receiver.bodies().len(), 4);
    after(60).await;
    assert_eq!(receiver.bodies().len(), 12);
}

/// How long they had waited was looked at only after an attempt, of which there were none: there were ever more of them, and
/// weeks later they were delivered.
#[tokio::test(start_paused = true)]
async fn what_waits_for_a_dead_receiver_is_given_up_when_its_time_is_over() {
    let (deliveries, receiver) = deliveries(None);
    receiver.answers.lock().unwrap().extend(std::iter::repeat_n(Err(FailureKind::Connect), 2000));
    for hour in 0..48 {
        deliveries.add(delivery(CreateId::new(), 0, "x"));
        (0..20).for_each(|_| assert!(deliveries.add(delivery(CreateId::new(), 0, "x"))));
        after(3600).await;
        let waiting = deliveries.waiting();
        assert!(waiting <= 21 * 25, "{waiting} wait after {hour} hours");
    }
    after(25 * 3600).await;
    assert_eq!((deliveries.waiting(), deliveries.dead().len()), (0, 48 * 21));
    let told = String::from_utf8(deliveries.0.metrics.page().1).unwrap();
    for line in ["pending{tenant=\"acme\"} 0", "result=\"dead\",tenant=\"acme\"} 1008"] {
        assert!(told.contains(line), "{line}: {told}");
    }
    receiver.answers.lock().unwrap().clear();
    receiver.got.lock().unwrap().clear();
    deliveries.add(delivery(CreateId::new(), 0, "new"));
    after(600).await;
    assert_eq!(receiver.bodies(), ["new"]);
}

#[tokio::test(start_paused = true)]
async fn configured_pauses_bound_how_long_a_callback_waits_for_its_receiver() {
    let (deliveries, receiver) = deliveries(Some(vec![10]));
    receiver.answers.lock().unwrap().extend(std::iter::repeat_n(Err(FailureKind::Timeout), 200));
    (0..100).for_each(|_| assert!(deliveries.add(delivery(CreateId::new(), 0, "x"))));
    after(60).await;
    assert!(deliveries.waiting() > 80);
    after(20 * 60).await;
    assert_eq!((deliveries.waiting(), deliveries.dead().len()), (0, 100));
}

#[tokio::test(start_paused = true)]
async fn a_stage_that_waited_for_the_one_before_it_is_tried_however_late_it_is() {
    let (deliveries, receiver) = deliveries(Some(vec![3600]));
    *receiver.slow.lock().unwrap() = Duration::from_secs(5);
    receiver.answers(&[400, 400]);
    let create = CreateId::new();
    deliveries.add(delivery(create, 0, "text"));
    deliveries.add(delivery(create, 1, "complete"));
    after(2 * 3600).await;
    assert_eq!(
        (receiver.bodies(), deliveries.dead().len()),
        (vec!["text".into(), "text".into(), "complete".into()], 1)
    );
}

/// Each that waited was looked at ten times a second, under the lock that all share.
#[tokio::test(start_paused = true)]
async fn what_waits_for_a_busy_receiver_is_not_looked_at_again_and_again() {
    let (deliveries, receiver) = deliveries(None);
    *receiver.slow.lock().unwrap() = Duration::from_secs(10);
    (0..12).for_each(|_| assert!(deliveries.add(delivery(CreateId::new(), 0, "x"))));
    after(1).await;
    let now = deliveries.0.clock.now();
    let next = deliveries.0.state().next(now).unwrap_err();
    assert!(next > Some(now + Duration::from_hours(1)), "{next:?}: there is room when an attempt has ended");
    after(60).await;
    assert_eq!((receiver.bodies().len(), deliveries.waiting()), (12, 0));
}

/// All tenants once shared one number of attempts at once, and a tenant with many dead receivers kept others waiting.
#[tokio::test(start_paused = true)]
async fn the_receivers_of_one_tenant_keep_no_other_waiting() {
    let (deliveries, receiver) = deliveries(None);
    *receiver.slow.lock().unwrap() = Duration::from_mins(1);
    for number in 0..3000 {
        let tenant = TenantId::new(format!("noisy-{}", number % 20));
        let url = Some(format!("https://{number}.example.com/").into());
        deliveries.add(Delivery { tenant, url, ..delivery(CreateId::new(), 0, "noise") });
    }
    after(1).await;
    *receiver.slow.lock().unwrap() = Duration::ZERO;
    assert_eq!(receiver.bodies().len(), AT_ONCE);
    deliveries.add(delivery(CreateId::new(), 0, "quiet"));
    after(60).await;
    let bodies = receiver.bodies();
    let place = bodies.iter().position(|body| body == "quiet");
    // One of each of the twenty may have been due before it.
    assert!(place.is_some_and(|place| place <= AT_ONCE + 21), "{place:?}");
}

#[tokio::test(start_paused = true)]
async fn one_tenant_has_so_many_attempts_at_once_and_no_more() {
    let (deliveries, receiver) = deliveries(None);
    *receiver.slow.lock().unwrap() = Duration::from_mins(1);
    for number in 0..100 {
        let url = Some(format!("https://{number}.example.com/").into());
        deliveries.add(Delivery { url, ..delivery(CreateId::new(), 0, "noise") });
    }
    deliveries.add(Delivery { tenant: TenantId::new("bolt"), ..delivery(CreateId::new(), 0, "quiet") });
    after(1).await;
    let bodies = receiver.bodies();
    assert_eq!((bodies.len(), bodies.iter().filter(|body| *body == "quiet").count()), (AT_ONCE_EACH + 1, 1));
    after(120).await;
    assert_eq!((receiver.bodies().len(), deliveries.waiting()), (101, 0));
}

/// It was left alone for all of them.
#[tokio::test(start_paused = true)]
async fn a_receiver_that_fails_for_one_tenant_is_there_for_another() {
    let (deliveries, receiver) = deliveries(Some(vec![600]));
    receiver.answers(&[500; 5]);
    for _ in 0..5 {
        deliveries.add(delivery(CreateId::new(), 0, "fails"));
        after(1).await;
    }
    deliveries.add(delivery(CreateId::new(), 0, "left alone"));
    let of_another = delivery(CreateId::new(), 0, "another's");
    deliveries.add(Delivery { tenant: TenantId::new("bolt"), ..of_another });
    after(1).await;
    assert_eq!(receiver.bodies()[5..], ["another's"]);
    after(10).await;
    assert_eq!(receiver.bodies()[5..], ["another's", "left alone"]);
}

/// They were those of all tenants in one row, and whoever had many pushed out everybody else's.
#[test]
fn the_dead_letters_of_one_tenant_push_out_no_others() {
    let mut dead = DeadLetters::default();
    let letter = |tenant: &str| {
        let delivery = Delivery { tenant: TenantId::new(tenant), ..delivery(CreateId::new(), 0, "x") };
        let receiver = queue::Receiver::of(&delivery.tenant, "https://hooks.example.com/kie");
        let now = Timestamp::default();
        Pending { delivery, attempts: 1, first: now, due: now, until: now, last: None, receiver }
    };
    let of = |dead: &DeadLetters, tenant: &str| {
        dead.iter().filter(|dead| dead.delivery.tenant.as_str() == tenant).count()
    };
    let first = letter("bolt");
    dead.add(first.clone());
    (0..20_000).for_each(|_| dead.add(letter("acme")));
    assert_eq!((of(&dead, "bolt"), of(&dead, "acme")), (1, 9_999));
    (0..20_000).for_each(|_| dead.add(letter("bolt")));
    assert_eq!((of(&dead, "bolt"), of(&dead, "acme")), (5_000, 5_000));
    assert!(dead.take(&first.delivery.id()).is_none(), "the oldest of whoever has most goes first");
    let last = dead.iter().last().unwrap().delivery.id();
    assert!(dead.take(&last).is_some() && dead.take(&last).is_none());
}

/// Where the oldest had something to deliver, there was no bound.
#[test]
fn tasks_are_bounded_whether_they_wait_or_rest() {
    let (mut state, now) = (State::default(), Timestamp::from_millis(1_700_000_000_000));
    let tasks: Vec<_> = (0..6).map(|_| CreateId::new()).collect();
    for (second, create) in tasks.iter().enumerate() {
        let delivery = delivery(*create, 0, "x");
        let waits = second < 3;
        let receiver = waits.then(|| queue::Receiver::of(&delivery.tenant, "https://hooks.example.com/kie"));
        let now = now + Duration::from_secs(second as u64);
        assert!(state.add(delivery, receiver, now + Duration::from_hours(1), now));
    }
    let now = now + Duration::from_mins(1);
    assert!(state.make_room(4, now).is_empty(), "what rests is forgotten first");
    assert!(state.threads.contains_key(&tasks[0]) && !state.threads.contains_key(&tasks[4]));
    let given_up: Vec<_> = state.make_room(1, now).iter().map(|pending| pending.delivery.create).collect();
    assert_eq!((&given_up[..], state.dead.iter().count()), (&tasks[..2], 2));
    assert_eq!(state.next(now).unwrap().delivery.create, tasks[2]);
    assert!(state.make_room(0, now).is_empty() && state.threads.len() == 1, "what is under way stays");
    assert!(state.ends.is_empty() && state.resting.is_empty());
}
