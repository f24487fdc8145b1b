//! Callbacks on their way to tenants: each stage of a task once, in order, until it is taken or given up.
//!
//! [`Deliveries`] holds what is to be delivered and drives it: a few attempts at once, one at a time for a task, none to a
//! receiver that does not answer. When the next attempt is due `schedule` says; how a request gets out, and whose secret
//! it is signed with, is told by [`Post`]. The order is: an attempt is made, then written down; so after a crash in between
//! it is made again.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Uri};
use tokio::sync::{Notify, Semaphore};

use super::schedule::{Circuits, Next, Schedule};
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
/// And of one, so that the receivers of one cannot keep the others waiting.
const AT_ONCE_EACH: usize = 64;
/// At least that often it is looked whether anybody still wants something delivered.
const LOOKS: Duration = Duration::from_mins(1);
/// So many tasks are remembered, and so many callbacks that were given up.
const MOST_THREADS: usize = 1_000_000;
const MOST_DEAD: usize = 10_000;

/// A callback to be delivered.
#[derive(Clone, Debug)]
pub struct Delivery {
    /// The create whose task it is about.
    pub create: CreateId,
    /// Who gets it.
    pub tenant: TenantId,
    /// What the upstream calls the task; what the signature is over.
    pub task_id: Arc<str>,
    /// Its place among the task's callbacks.
    pub stage: usize,
    /// Where to; absent: nowhere, it is only noted.
    pub url: Option<Arc<str>>,
    /// Sent byte for byte.
    pub body: Bytes,
}

impl Delivery {
    /// What `X-Kiegate-Delivery` says: the same for every attempt, another for every stage.
    pub fn id(&self) -> String {
        hex(&digest(&[self.create.to_string().as_bytes(), &self.stage.to_le_bytes()])[..12])
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
    /// What the last one met with.
    pub last: Option<String>,
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
    order: VecDeque<CreateId>,
    /// By tenant, as far as there is something to do or under way.
    lines: HashMap<TenantId, Line>,
    dead: VecDeque<Pending>,
    circuits: Circuits,
    driven: bool,
}

/// What one tenant waits for.
#[derive(Default)]
struct Line {
    /// Threads whose first callback is waiting, by when it is due.
    due: BTreeSet<(Timestamp, CreateId)>,
    /// Attempts that are being made.
    under_way: usize,
}

/// The callbacks of one task.
#[derive(Default)]
struct Thread {
    seen: BTreeSet<usize>,
    waiting: VecDeque<Pending>,
    /// The first one is on its way.
    busy: bool,
    /// When the first one is due, as it stands among all that are.
    lined_up: Option<Timestamp>,
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
        let (now, tenant, is_sent) = (self.0.now(), delivery.tenant.clone(), delivery.url.is_some());
        let is_new = self.0.state().add(delivery, now);
        if is_new && is_sent {
            self.0.metrics.callback_planned(tenant.as_str());
            self.drive();
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
        let Some(place) = state.dead.iter().position(|dead| dead.delivery.id() == id) else { return false };
        let Some(dead) = state.dead.remove(place) else { return false };
        let create = dead.delivery.create;
        let again = Pending { attempts: 0, first: now, due: now, ..dead };
        self.0.metrics.callback_planned(again.delivery.tenant.as_str());
        state.threads.entry(create).or_default().waiting.push_back(again);
        state.line_up(create);
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
    fn add(&mut self, delivery: Delivery, now: Timestamp) -> bool {
        let create = delivery.create;
        if !self.threads.contains_key(&create) {
            self.order.push_back(create);
        }
        let thread = self.threads.entry(create).or_default();
        if !thread.seen.insert(delivery.stage) {
            return false;
        }
        if delivery.url.is_some() {
            let stage = delivery.stage;
            let pending = Pending { delivery, attempts: 0, first: now, due: now, last: None };
            // Behind those of earlier stages, and never before one that is being tried.
            let tried = |pending: &Pending| pending.attempts > 0 || pending.delivery.stage < stage;
            let place =
                thread.waiting.iter().position(|pending| !tried(pending)).unwrap_or(thread.waiting.len());
            let place = if thread.busy { place.max(1) } else { place };
            thread.waiting.insert(place.min(thread.waiting.len()), pending);
            self.line_up(create);
        }
        self.forget_old();
        true
    }

    /// Puts the first callback of a task among those that wait for their time, if it is not on its way.
    fn line_up(&mut self, create: CreateId) {
        let Some(thread) = self.threads.get_mut(&create).filter(|thread| !thread.busy) else { return };
        // All callbacks of a task are the same tenant's, and it has its place only once.
        let Some(first) = thread.waiting.front() else { return };
        let line = self.lines.entry(first.delivery.tenant.clone()).or_default();
        if let Some(before) = thread.lined_up.replace(first.due) {
            line.due.remove(&(before, create));
        }
        line.due.insert((first.due, create));
    }

    fn forget_old(&mut self) {
        while self.threads.len() > MOST_THREADS {
            let Some(oldest) = self.order.pop_front() else { return };
            if self.threads.get(&oldest).is_some_and(|thread| thread.waiting.is_empty()) {
                self.threads.remove(&oldest);
            } else {
                self.order.push_back(oldest);
                return;
            }
        }
    }

    /// Takes the next callback out that may be sent now; or says when to look again.
    fn next(&mut self, now: Timestamp) -> Result<Pending, Option<Timestamp>> {
        loop {
            let (tenant, at, create) = self.next_in_line(now).ok_or(None)?;
            if at > now {
                return Err(Some(at));
            }
            let Some(line) = self.lines.get_mut(&tenant) else { continue };
            line.due.pop_first();
            let Some(thread) = self.threads.get_mut(&create) else { continue };
            thread.lined_up = None;
            let Some(first) = thread.waiting.front_mut() else { continue };
            match self.circuits.enter(&receiver(&first.delivery), now) {
                Ok(()) => {
                    thread.busy = true;
                    line.under_way += 1;
                    return Ok(first.clone());
                }
                Err(later) => {
                    first.due = later;
                    thread.lined_up = Some(later);
                    line.due.insert((later, create));
                }
            }
        }
    }

    /// The callback that is to be sent next, and when: of those that are due, one of the tenant that has the fewest attempts
    /// under way. Tenants that have their share under way wait for one of it to end.
    fn next_in_line(&self, now: Timestamp) -> Option<(TenantId, Timestamp, CreateId)> {
        let waiting = self.lines.iter().filter(|(_, line)| line.under_way < AT_ONCE_EACH);
        let first = waiting.filter_map(|(tenant, line)| Some((tenant, line.under_way, *line.due.first()?)));
        let turn = |(_, under_way, (at, create)): &(&TenantId, usize, (Timestamp, CreateId))| {
            // What is not due yet comes after all that is, in its order.
            if *at <= now { (Timestamp::default(), *under_way, *at, *create) } else { (*at, 0, *at, *create) }
        };
        first.min_by_key(turn).map(|(tenant, _, (at, create))| (tenant.clone(), at, create))
    }

    /// Whether there is nothing to do and nothing under way; then nobody drives it any more.
    fn rest(&mut self) -> bool {
        self.lines.retain(|_, line| !line.due.is_empty() || line.under_way > 0);
        self.driven = !self.lines.is_empty();
        !self.driven
    }

    /// Writes down what came of an attempt.
    fn ended(&mut self, pending: Pending, next: Option<Timestamp>, is_dead: bool) {
        let create = pending.delivery.create;
        if let Some(line) = self.lines.get_mut(&pending.delivery.tenant) {
            line.under_way = line.under_way.saturating_sub(1);
        }
        let Some(thread) = self.threads.get_mut(&create) else { return };
        thread.busy = false;
        if let Some(due) = next {
            if let Some(first) = thread.waiting.front_mut() {
                *first = Pending { due, ..pending };
            }
        } else {
            thread.waiting.pop_front();
            if is_dead {
                self.dead.push_back(pending);
            }
            if self.dead.len() > MOST_DEAD {
                self.dead.pop_front();
            }
        }
        self.line_up(create);
    }
}

/// Tenant, scheme, host and port: what one tenant does to a host that many use delays nobody else.
fn receiver(delivery: &Delivery) -> String {
    let uri: Option<Uri> = delivery.url.as_deref().and_then(|url| url.parse().ok());
    let uri = uri.unwrap_or_default();
    let authority = uri.authority().map_or("", http::uri::Authority::as_str);
    format!("{} {}://{authority}", delivery.tenant, uri.scheme_str().unwrap_or_default())
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
        let verdict = Verdict::of(&answer);
        let retry_after = answer.as_ref().ok().and_then(|answer| answer.retry_after);
        let next = match verdict {
            Verdict::Taken | Verdict::Gone => Next::GiveUp,
            Verdict::Failed { .. } => {
                self.schedule.next(pending.attempts, pending.first, now, retry_after, rand::random())
            }
        };
        let due = if let Next::At(at) = next { Some(at) } else { None };
        let is_dead = due.is_none() && verdict != Verdict::Taken;
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
        let healthy = !matches!(verdict, Verdict::Failed { receiver_is_able: false });
        let mut state = self.state();
        state.circuits.leave(&receiver(&delivery), healthy, now);
        state.ended(pending, due, is_dead);
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
