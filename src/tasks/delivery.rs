//! Callbacks on their way to tenants: each stage of a task once, in order, until it is taken or given up.
//!
//! [`Deliveries`] holds what is to be delivered and drives it: a few attempts at once, one at a time for a task, none to a
//! receiver that does not answer. When the next attempt is due `schedule` says, whose turn it is then `queue`; how a request
//! gets out, and whose secret it is signed with, is told by [`Post`]. The order is: an attempt is made, then written down; so
//! after a crash in between it is made again.

mod dead;
mod queue;

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use tokio::sync::{Notify, Semaphore};

use self::dead::DeadLetters;
use self::queue::{Does, Queue, Receiver};
use super::schedule::{Next, PATIENCE, Schedule};
use crate::clock::{Clock, Timestamp, digest, hex};
use crate::ids::{Secret, TenantId};
use crate::outbound::guard::{Delivered, Failure, FailureKind};
use crate::store::CreateId;
use crate::telemetry::Metrics;
use crate::{background, wire};

const DELIVERY: HeaderName = HeaderName::from_static("x-kiegate-delivery");
const ATTEMPT: HeaderName = HeaderName::from_static("x-kiegate-attempt");
/// So many attempts at once, of all tenants.
const AT_ONCE: usize = 1024;
/// So many callbacks are passed on for a task, at most; the families that tell most have four.
const MOST_STAGES: usize = 32;
/// At least that often it is looked whether anybody still wants something delivered.
const LOOKS: Duration = Duration::from_mins(1);
/// So many tasks are remembered, besides those of which a callback is under way.
const MOST_THREADS: usize = 1_000_000;

/// A callback to be delivered.
#[derive(Clone, Debug)]
pub struct Delivery {
    /// The create whose task it is about.
    pub create: CreateId,
    /// Who gets it.
    pub tenant: TenantId,
    /// What the upstream calls the task; what the signature is over.
    pub task_id: Arc<str>,
    /// Which of the task's callbacks it is.
    pub stage: Stage,
    /// Where to; absent: nowhere, it is only noted.
    pub url: Option<Arc<str>>,
    /// Sent byte for byte.
    pub body: Bytes,
}

impl Delivery {
    /// What `X-Kiegate-Delivery` says: the same for every attempt, another for every stage.
    pub fn id(&self) -> String {
        let create = self.create.to_string();
        let id = match &self.stage {
            Stage::Known(place) => digest(&[create.as_bytes(), &place.to_le_bytes()]),
            Stage::Unknown(print) => digest(&[create.as_bytes(), print]),
        };
        hex(&id[..12])
    }
}

/// Which of its task's callbacks one is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// The one of that place among those of such tasks.
    Known(usize),
    /// None that is known: told apart by a digest of its body.
    Unknown([u8; 32]),
}

impl Stage {
    /// That of a callback which has this place, if it has one.
    pub fn of(place: Option<usize>, body: &[u8]) -> Self {
        place.map_or_else(|| Self::Unknown(digest(&[body])), Self::Known)
    }

    /// Whether it goes out before `other`, if both wait. What is not known goes as it comes, behind all that is.
    fn goes_before(self, other: Self) -> bool {
        match (self, other) {
            (Self::Known(place), Self::Known(other)) => place < other,
            (Self::Known(_), Self::Unknown(_)) => true,
            (Self::Unknown(_), _) => false,
        }
    }
}

/// Gets requests out.
pub trait Post: Send + Sync + 'static {
    /// What callbacks of `tenant` are signed with now.
    fn secret(&self, tenant: &TenantId) -> Option<Secret>;
    /// Posts to an address that `tenant` chose.
    fn post(
        &self,
        tenant: &TenantId,
        url: Arc<str>,
        headers: HeaderMap,
        body: Bytes,
    ) -> BoxFuture<'static, Result<Delivered, Failure>>;
}

/// What a callback has been through.
#[derive(Clone, Debug)]
pub struct Pending {
    /// What is to be delivered.
    pub delivery: Delivery,
    /// Attempts that were made.
    pub attempts: u32,
    /// When the first was due.
    pub first: Timestamp,
    /// When the next is.
    pub due: Timestamp,
    /// When it is given up if its receiver gets none before.
    pub until: Timestamp,
    /// What the last one met with.
    pub last: Option<String>,
    /// Where it goes.
    receiver: Receiver,
}

/// Everything that is to be delivered. Clones share it; with the last one it ends.
#[derive(Clone)]
pub struct Deliveries(Arc<Shared>);

struct Shared {
    clock: Clock,
    schedule: Schedule,
    metrics: Arc<Metrics>,
    post: Arc<dyn Post>,
    state: Mutex<State>,
    changed: Notify,
    room: Arc<Semaphore>,
}

#[derive(Default)]
struct State {
    threads: HashMap<CreateId, Thread>,
    /// Tasks whose first callback waits, by when it is given up.
    ends: BTreeSet<(Timestamp, CreateId)>,
    /// Tasks of which nothing waits or is under way, by since when.
    resting: BTreeSet<(Timestamp, CreateId)>,
    queue: Queue,
    dead: DeadLetters,
    driven: bool,
}

/// The callbacks of one task.
#[derive(Default)]
struct Thread {
    seen: BTreeSet<Stage>,
    waiting: VecDeque<Pending>,
    /// The first one is on its way.
    busy: bool,
    /// Where it stands while the first one waits.
    place: Option<Place>,
    /// Since when there is none.
    resting: Option<Timestamp>,
}

/// Where a task stands among those whose first callback waits for its time.
struct Place {
    receiver: Receiver,
    due: Timestamp,
    until: Timestamp,
}

impl Deliveries {
    /// Nothing to deliver yet.
    pub fn new(clock: Clock, schedule: Schedule, metrics: Arc<Metrics>, post: Arc<dyn Post>) -> Self {
        Self(Arc::new(Shared {
            clock,
            schedule,
            metrics,
            post,
            state: Mutex::default(),
            changed: Notify::new(),
            room: Arc::new(Semaphore::new(AT_ONCE)),
        }))
    }

    /// Takes a callback on; false if that stage of the task is there already.
    pub fn add(&self, delivery: Delivery) -> bool {
        let (now, tenant) = (self.0.now(), delivery.tenant.clone());
        let receiver = delivery.url.as_deref().map(|url| Receiver::of(&tenant, url));
        let is_sent = receiver.is_some();
        let until = self.0.schedule.waits_until(now, now);
        let mut state = self.0.state();
        let is_new = state.add(delivery, receiver, until, now);
        let given_up = state.make_room(MOST_THREADS, now);
        drop(state);
        if is_new && is_sent {
            self.0.metrics.callback_planned(tenant.as_str());
            self.drive();
        }
        for pending in &given_up {
            self.0.tell_given_up(pending);
        }
        is_new
    }

    /// The callbacks that were given up, the latest last.
    pub fn dead(&self) -> Vec<Pending> {
        self.0.state().dead.iter().cloned().collect()
    }

    /// How many wait.
    pub fn waiting(&self) -> usize {
        self.0.state().threads.values().map(|thread| thread.waiting.len()).sum()
    }

    /// Tries one that was given up again, from the beginning; false if there is none of that id.
    pub fn redeliver(&self, id: &str) -> bool {
        let now = self.0.now();
        let mut state = self.0.state();
        let Some(dead) = state.dead.take(id) else { return false };
        let create = dead.delivery.create;
        let until = self.0.schedule.waits_until(now, now);
        let again = Pending { attempts: 0, first: now, due: now, until, ..dead };
        self.0.metrics.callback_planned(again.delivery.tenant.as_str());
        state.threads.entry(create).or_default().waiting.push_back(again);
        state.line_up(create, now);
        drop(state);
        self.drive();
        true
    }

    fn drive(&self) {
        let start = !std::mem::replace(&mut self.0.state().driven, true);
        if start {
            background::spawn(drive(Arc::downgrade(&self.0)));
        } else {
            self.0.changed.notify_one();
        }
    }
}

impl State {
    fn add(
        &mut self,
        delivery: Delivery,
        receiver: Option<Receiver>,
        until: Timestamp,
        now: Timestamp,
    ) -> bool {
        let create = delivery.create;
        let thread = self.threads.entry(create).or_default();
        // A task goes through a few stages, and not through any number of them that nobody knows.
        let is_one_too_many = matches!(delivery.stage, Stage::Unknown(_)) && thread.seen.len() >= MOST_STAGES;
        if is_one_too_many || !thread.seen.insert(delivery.stage) {
            return false;
        }
        if let Some(receiver) = receiver {
            let stage = delivery.stage;
            let pending =
                Pending { delivery, attempts: 0, first: now, due: now, until, last: None, receiver };
            // Behind those of earlier stages, and never before one that is being tried.
            let is_later = |other: &Pending| other.attempts == 0 && stage.goes_before(other.delivery.stage);
            let place = thread.waiting.iter().position(is_later).unwrap_or(thread.waiting.len());
            let place = if thread.busy { place.max(1) } else { place };
            thread.waiting.insert(place.min(thread.waiting.len()), pending);
        }
        self.line_up(create, now);
        true
    }

    /// Puts the first callback of a task among those that wait for their time, if it is not on its way; a task that has none,
    /// among those that rest.
    fn line_up(&mut self, create: CreateId, now: Timestamp) {
        let Some(thread) = self.threads.get_mut(&create).filter(|thread| !thread.busy) else { return };
        // It has its place only once.
        if let Some(before) = thread.place.take() {
            self.queue.withdraw(&before.receiver, before.due, create, now);
            self.ends.remove(&(before.until, create));
        }
        if let Some(since) = thread.resting.take() {
            self.resting.remove(&(since, create));
        }
        let Some(first) = thread.waiting.front() else {
            thread.resting = Some(now);
            self.resting.insert((now, create));
            return;
        };
        let (receiver, due, until) = (first.receiver.clone(), first.due, first.until);
        self.queue.wait(&receiver, due, create, now);
        self.ends.insert((until, create));
        thread.place = Some(Place { receiver, due, until });
    }

    /// Forgets tasks until there are no more than `most`: those that have rested for longest, and where none rests those whose
    /// callbacks would be given up next. Those are given up now. What is under way stays.
    fn make_room(&mut self, most: usize, now: Timestamp) -> Vec<Pending> {
        let mut given_up = Vec::new();
        while self.threads.len() > most {
            if let Some((_, longest)) = self.resting.pop_first() {
                self.threads.remove(&longest);
                continue;
            }
            let Some((_, next)) = self.ends.first().copied() else { break };
            let Some(pending) = self.give_up(next, now) else { break };
            given_up.push(pending);
        }
        given_up
    }

    /// Takes the next callback out that may be sent now; or says when to look again.
    fn next(&mut self, now: Timestamp) -> Result<Pending, Option<Timestamp>> {
        let first_end = self.ends.first().map(|(until, _)| *until);
        let create = self.queue.take(now).map_err(|at| at.into_iter().chain(first_end).min())?;
        let thread =
            self.threads.get_mut(&create).expect("what is in the queue is a task that is remembered");
        let first = thread.waiting.front().expect("a task is in the queue for its first callback").clone();
        thread.place = None;
        thread.busy = true;
        self.ends.remove(&(first.until, create));
        Ok(first)
    }

    /// Gives one up whose time was over before its receiver could be called.
    fn give_up_late(&mut self, now: Timestamp) -> Option<Pending> {
        let (_, create) = *self.ends.first().filter(|(until, _)| *until <= now)?;
        self.give_up(create, now)
    }

    /// Gives up the callback of that task that waits for its receiver.
    fn give_up(&mut self, create: CreateId, now: Timestamp) -> Option<Pending> {
        let pending = self.threads.get_mut(&create)?.waiting.pop_front()?;
        self.dead.add(pending.clone());
        self.line_up(create, now);
        Some(pending)
    }

    /// Whether there is nothing to do and nothing under way; then nobody drives it any more.
    fn rest(&mut self) -> bool {
        self.driven = !self.queue.is_idle();
        !self.driven
    }

    /// An attempt has failed, and there is to be another one, as `pending` says.
    fn again(&mut self, pending: Pending, now: Timestamp) {
        let create = pending.delivery.create;
        let Some(thread) = self.threads.get_mut(&create) else { return };
        thread.busy = false;
        if let Some(first) = thread.waiting.front_mut() {
            *first = pending;
        }
        self.line_up(create, now);
    }

    /// An attempt was the last one.
    fn over(&mut self, pending: Pending, is_dead: bool, now: Timestamp) {
        let create = pending.delivery.create;
        let Some(thread) = self.threads.get_mut(&create) else { return };
        thread.busy = false;
        thread.waiting.pop_front();
        if let Some(next) = thread.waiting.front_mut() {
            // So far it has waited for the one before it.
            next.until = next.until.max(now + PATIENCE);
        }
        if is_dead {
            self.dead.add(pending);
        }
        self.line_up(create, now);
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The time that pauses are counted by.
    fn now(&self) -> Timestamp {
        self.clock.steady().now()
    }

    /// Makes one attempt and writes down what came of it.
    async fn attempt(&self, mut pending: Pending) {
        let delivery = pending.delivery.clone();
        pending.attempts += 1;
        let headers = self.headers(&pending);
        let url = delivery.url.clone().unwrap_or_default();
        let answer = self.post.post(&delivery.tenant, url, headers, delivery.body.clone()).await;
        let now = self.now();
        let (verdict, is_answered) = (Verdict::of(&answer), answer.is_ok());
        let retry_after = answer.as_ref().ok().and_then(|answer| answer.retry_after);
        let next = match verdict {
            Verdict::Taken | Verdict::Gone => Next::GiveUp,
            Verdict::Failed { .. } => {
                self.schedule.next(pending.attempts, pending.first, now, retry_after, rand::random())
            }
        };
        let due = if let Next::At(at) = next { Some(at) } else { None };
        let result = match (verdict, due) {
            (Verdict::Taken, _) => "delivered",
            (_, Some(_)) => "retried",
            (_, None) => "dead",
        };
        pending.last = match answer {
            Ok(answer) => Some(answer.status.to_string()),
            Err(failure) => Some(failure.to_string()),
        };
        tracing::info!(
            delivery.id = delivery.id(),
            task.id = &*delivery.task_id,
            tenant = delivery.tenant.as_str(),
            attempt = pending.attempts,
            result,
            answer = pending.last,
            "a callback was sent"
        );
        self.metrics.callback_sent(delivery.tenant.as_str(), result, now.saturating_since(pending.due));
        let does = match verdict {
            Verdict::Failed { receiver_is_able: false } if is_answered && pending.attempts > 1 => {
                Does::Unclear
            }
            Verdict::Failed { receiver_is_able: false } => Does::Badly,
            _ => Does::Well,
        };
        let mut state = self.state();
        state.queue.leave(&pending.receiver, does, now);
        if let Some(due) = due {
            let until = self.schedule.waits_until(pending.first, due);
            state.again(Pending { due, until, ..pending }, now);
        } else {
            state.over(pending, verdict != Verdict::Taken, now);
        }
    }

    /// Tells of a callback that was given up while it waited.
    fn tell_given_up(&self, pending: &Pending) {
        let delivery = &pending.delivery;
        tracing::info!(
            delivery.id = delivery.id(),
            task.id = &*delivery.task_id,
            tenant = delivery.tenant.as_str(),
            attempts = pending.attempts,
            answer = pending.last,
            "a callback was given up while it waited for its receiver"
        );
        self.metrics.callback_given_up(delivery.tenant.as_str());
    }

    fn headers(&self, pending: &Pending) -> HeaderMap {
        let delivery = &pending.delivery;
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers
            .insert(DELIVERY, HeaderValue::from_str(&delivery.id()).expect("hex digits are visible ASCII"));
        headers.insert(ATTEMPT, HeaderValue::from(pending.attempts));
        if let Some(secret) = self.post.secret(&delivery.tenant) {
            wire::sign(&mut headers, secret.expose(), &delivery.task_id, self.clock.now().seconds());
        }
        headers
    }
}

/// What an answer means for a callback.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    /// It has been taken.
    Taken,
    /// The receiver wants nothing more of it.
    Gone,
    /// It has not been taken.
    Failed {
        /// The receiver is there, and in a state to answer.
        receiver_is_able: bool,
    },
}

impl Verdict {
    fn of(answer: &Result<Delivered, Failure>) -> Self {
        match answer {
            Ok(answer) if answer.status.is_success() => Self::Taken,
            Ok(answer) if answer.status == StatusCode::GONE => Self::Gone,
            Ok(answer) => {
                let overwhelmed =
                    answer.status.is_server_error() || answer.status == StatusCode::TOO_MANY_REQUESTS;
                Self::Failed { receiver_is_able: !overwhelmed }
            }
            // An address that is not called is nobody's weakness.
            Err(failure) => Self::Failed { receiver_is_able: failure.kind == FailureKind::Refused },
        }
    }
}

/// Sends what is due when it is due, as long as something is to be sent.
async fn drive(shared: Weak<Shared>) {
    while let Some(deliveries) = shared.upgrade() {
        let now = deliveries.now();
        let changed = deliveries.changed.notified();
        let late = deliveries.state().give_up_late(now);
        if let Some(late) = late {
            deliveries.tell_given_up(&late);
            // There may be many, and others have work to do.
            tokio::task::yield_now().await;
            continue;
        }
        let next = deliveries.state().next(now);
        match next {
            Ok(pending) => {
                let Ok(permit) = Arc::clone(&deliveries.room).acquire_owned().await else { return };
                let sender = Arc::clone(&deliveries);
                background::spawn(async move {
                    sender.attempt(pending).await;
                    drop(permit);
                    sender.changed.notify_one();
                });
            }
            Err(next) => {
                if next.is_none() && deliveries.state().rest() {
                    return;
                }
                // At least now and then, to see whether anybody is there.
                let pause = next.map_or(LOOKS, |at| at.saturating_since(now));
                let pause = pause.clamp(Duration::from_millis(1), LOOKS);
                let _ = tokio::time::timeout(pause, changed).await;
            }
        }
    }
}

#[cfg(test)]
mod tests;
