//! What the upstream grants one account: so many creates in any window of time, and so many tasks at once. What is above
//! waits for its turn, fairly among tenants.
//!
//! The upstream counts creates when they arrive, which may be any time between sending and answer. So a create takes up
//! its place from its turn until a whole window after its answer: then no window, wherever the network lets it begin,
//! holds more than is granted.
//!
//! Whose turn is next is decided by stride: each tenant has a pass, which a turn moves on by one over its weight; the
//! smallest pass is next. One that comes back after a pause starts where the others are, so that waiting saves nothing up.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::{Notify, oneshot};
use tokio::time::Instant;

use crate::background;
use crate::config::Rate;
use crate::ids::TenantId;

/// The quota of one upstream key. Clones share it.
#[derive(Clone)]
pub struct Quota(Arc<Shared>);

/// No turn came in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no turn came in time; one may be there in {retry_after:?}")]
pub struct QuotaTimeout {
    /// When those who waited before will have had their turns, as far as that can be said.
    pub retry_after: Duration,
}

/// How a quota stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QuotaStatus {
    /// Creates that may be sent now.
    pub available: u32,
    /// Creates in a window, as learned.
    pub limit: u32,
    /// Creates in a window, as configured.
    pub configured: u32,
    /// Creates that wait.
    pub waiting: usize,
    /// Tasks under way.
    pub tasks: u32,
    /// For so long the upstream wants nothing.
    pub blocked_for: Duration,
}

struct Shared {
    state: Mutex<State>,
    changed: Notify,
}

struct State {
    per: Duration,
    configured: u32,
    /// What the upstream grants, as it has shown.
    limit: u32,
    /// When the limit may grow by one again.
    grows_at: Instant,
    max_tasks: u32,
    tasks: u32,
    /// Creates that were sent and not answered.
    in_flight: u32,
    /// When the places of answered ones are free again, soonest first.
    freed_at: VecDeque<Instant>,
    blocked_until: Option<Instant>,
    lines: Lines,
    driven: bool,
}

/// Who waits, tenant by tenant.
#[derive(Default)]
struct Lines {
    /// Those whom the upstream sent back: first of all, in that order.
    returned: VecDeque<Waiter>,
    tenants: HashMap<TenantId, Line>,
    /// Tenants with somebody waiting, by pass.
    order: BTreeSet<(u64, TenantId)>,
    /// The pass of the latest turn: where newcomers start.
    now: u64,
    next_ticket: u64,
}

struct Line {
    pass: u64,
    weight: NonZeroU32,
    waiting: BTreeMap<u64, Waiter>,
}

struct Waiter {
    ticket: u64,
    call: oneshot::Sender<()>,
}

/// A turn's worth of pass for a weight of one.
const STRIDE: u64 = 1 << 20;
/// Added to a window, since clocks and counters on both sides round.
const MARGIN: Duration = Duration::from_millis(1);

/// One create may be sent now. Dropped without a word it counts as sent and answered.
#[derive(Debug)]
pub struct Turn {
    slot: Option<TaskSlot>,
    waited: Duration,
    /// Until when the client wants to wait in all.
    until: Instant,
}

/// Room for a task among those under way; dropped, it is free again.
pub struct TaskSlot {
    quota: Weak<Shared>,
    /// The create has not been answered yet.
    unanswered: bool,
}

impl std::fmt::Debug for TaskSlot {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str("TaskSlot")
    }
}

impl Quota {
    /// All of it is there. The rate's burst does not count: the upstream knows windows.
    pub fn new(rate: Rate, max_tasks: NonZeroU32) -> Self {
        let state = State {
            per: rate.per,
            configured: rate.requests.get(),
            limit: rate.requests.get(),
            grows_at: Instant::now(),
            max_tasks: max_tasks.get(),
            tasks: 0,
            in_flight: 0,
            freed_at: VecDeque::new(),
            blocked_until: None,
            lines: Lines::default(),
            driven: false,
        };
        Self(Arc::new(Shared { state: Mutex::new(state), changed: Notify::new() }))
    }

    /// Waits for a turn, at most for `patience`. Whoever stops waiting leaves the line and costs nobody anything.
    ///
    /// # Errors
    /// None came in time.
    pub async fn turn(
        &self,
        tenant: &TenantId,
        weight: NonZeroU32,
        patience: Duration,
    ) -> Result<Turn, QuotaTimeout> {
        let began = Instant::now();
        let until = began + patience;
        {
            let mut state = self.0.state();
            if state.lines.is_empty() && state.next_place(began).is_none() {
                state.take();
                state.lines.note_turn(tenant, weight);
                return Ok(Turn { slot: Some(self.slot()), waited: Duration::ZERO, until });
            }
        }
        self.wait(began, until, |lines, call| lines.join(tenant, weight, call)).await
    }

    /// Takes up room for a task that is under way already, whether there is any or not.
    pub fn occupy(&self) -> TaskSlot {
        self.0.state().tasks += 1;
        TaskSlot { quota: Arc::downgrade(&self.0), unanswered: false }
    }

    /// How it stands.
    pub fn status(&self) -> QuotaStatus {
        let now = Instant::now();
        let mut state = self.0.state();
        state.catch_up(now);
        let blocked_for =
            state.blocked_until.map_or(Duration::ZERO, |until| until.saturating_duration_since(now));
        let free = state.limit.saturating_sub(state.used()).min(state.max_tasks.saturating_sub(state.tasks));
        QuotaStatus {
            available: if blocked_for.is_zero() { free } else { 0 },
            limit: state.limit,
            configured: state.configured,
            waiting: state.lines.len(),
            tasks: state.tasks,
            blocked_for,
        }
    }

    /// Waits in line, where `join` puts the caller.
    async fn wait(
        &self,
        began: Instant,
        until: Instant,
        join: impl FnOnce(&mut Lines, oneshot::Sender<()>) -> u64,
    ) -> Result<Turn, QuotaTimeout> {
        let (call, called) = oneshot::channel();
        let ticket = join(&mut self.0.state().lines, call);
        let mut place = Place { quota: self, ticket, called, taken: false };
        self.drive();
        let called = tokio::time::timeout_at(until, &mut place.called).await;
        match called {
            Ok(Ok(())) => {
                place.taken = true;
                Ok(Turn { slot: Some(self.slot()), waited: began.elapsed(), until })
            }
            _ => Err(QuotaTimeout { retry_after: self.0.state().outlook(Instant::now()) }),
        }
    }

    fn slot(&self) -> TaskSlot {
        TaskSlot { quota: Arc::downgrade(&self.0), unanswered: true }
    }

    /// Sees to it that those who wait are called.
    fn drive(&self) {
        let start = !std::mem::replace(&mut self.0.state().driven, true);
        if start {
            background::spawn(drive(Arc::downgrade(&self.0)));
        } else {
            self.0.changed.notify_one();
        }
    }
}

/// A place in line. Dropped, it is given up; a turn that came in that very moment is passed on.
struct Place<'q> {
    quota: &'q Quota,
    ticket: u64,
    called: oneshot::Receiver<()>,
    /// The turn is the caller's, and nobody's to pass on.
    taken: bool,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        if self.taken {
            return;
        }
        let mut state = self.quota.0.state();
        self.called.close();
        if self.called.try_recv().is_ok() {
            state.give_back();
        } else {
            state.lines.leave(self.ticket);
        }
        drop(state);
        self.quota.0.changed.notify_one();
    }
}

impl Turn {
    /// How long it was waited for.
    pub fn waited(&self) -> Duration {
        self.waited
    }

    /// The upstream took the create, and its task is under way: its room is taken until the slot is dropped.
    pub fn started(mut self) -> TaskSlot {
        let mut slot = self.slot.take().expect("it is taken out by what consumes the turn alone");
        slot.answered();
        slot
    }

    /// The upstream answered, and no task is under way.
    pub fn refused(self) {
        drop(self);
    }

    /// The upstream has had too many: nothing more is sent until it wants to, and the create waits at the head of the line
    /// for what is left of its patience.
    ///
    /// # Errors
    /// No turn came in time.
    pub async fn throttled(mut self, retry_after: Option<Duration>) -> Result<Self, QuotaTimeout> {
        let slot = self.slot.take().expect("it is taken out by what consumes the turn alone");
        let Some(shared) = slot.quota.upgrade() else {
            return Err(QuotaTimeout { retry_after: Duration::ZERO });
        };
        drop(slot);
        let began = Instant::now();
        shared.state().throttle(began, retry_after);
        let waited = self.waited;
        let mut turn = Quota(shared).wait(began, self.until, Lines::return_to_head).await?;
        turn.waited += waited;
        Ok(turn)
    }
}

impl TaskSlot {
    /// The create was answered: its place in the window is free a whole window from now.
    fn answered(&mut self) {
        if std::mem::take(&mut self.unanswered)
            && let Some(shared) = self.quota.upgrade()
        {
            shared.state().answered(Instant::now());
            shared.changed.notify_one();
        }
    }
}

impl Drop for TaskSlot {
    fn drop(&mut self) {
        self.answered();
        if let Some(shared) = self.quota.upgrade() {
            let mut state = shared.state();
            state.tasks = state.tasks.saturating_sub(1);
            drop(state);
            shared.changed.notify_one();
        }
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Creates that count in the present window.
    fn used(&self) -> u32 {
        self.in_flight.saturating_add(u32::try_from(self.freed_at.len()).unwrap_or(u32::MAX))
    }

    /// Lets go what is over by `now`.
    fn catch_up(&mut self, now: Instant) {
        while self.freed_at.front().is_some_and(|at| *at <= now) {
            self.freed_at.pop_front();
        }
        if self.blocked_until.is_some_and(|until| until <= now) {
            self.blocked_until = None;
        }
        while self.limit < self.configured && self.grows_at <= now {
            self.limit += 1;
            self.grows_at += self.per;
        }
    }

    /// When there may be a place, if there is none at `now`. Answers and ends of tasks may bring one earlier.
    fn next_place(&mut self, now: Instant) -> Option<Instant> {
        self.catch_up(now);
        if let Some(until) = self.blocked_until {
            return Some(until);
        }
        let far = now + self.per + MARGIN;
        if self.tasks >= self.max_tasks {
            return Some(far);
        }
        if self.used() < self.limit {
            return None;
        }
        let grows = (self.limit < self.configured).then_some(self.grows_at);
        Some(self.freed_at.front().copied().into_iter().chain(grows).min().unwrap_or(far))
    }

    /// One more create is sent, and may become a task.
    fn take(&mut self) {
        self.in_flight += 1;
        self.tasks += 1;
    }

    /// One that was to be sent is not.
    fn give_back(&mut self) {
        self.in_flight = self.in_flight.saturating_sub(1);
        self.tasks = self.tasks.saturating_sub(1);
    }

    fn answered(&mut self, now: Instant) {
        self.in_flight = self.in_flight.saturating_sub(1);
        self.freed_at.push_back(now + self.per + MARGIN);
    }

    /// The upstream refused one although there should have been a place: it counts others, or grants less.
    fn throttle(&mut self, now: Instant, retry_after: Option<Duration>) {
        self.catch_up(now);
        // The refused one is among those that were answered.
        let others = self.used().saturating_sub(1);
        self.limit = self.limit.min(others).max(1);
        self.grows_at = now + self.per;
        let until = now + retry_after.unwrap_or(self.per + MARGIN);
        self.blocked_until = Some(self.blocked_until.map_or(until, |before| before.max(until)));
    }

    /// Calls those whose turn it is; says when to look again, `None` if nobody waits.
    fn call(&mut self, now: Instant) -> Option<Instant> {
        while !self.lines.is_empty() {
            if let Some(at) = self.next_place(now) {
                return Some(at);
            }
            let waiter = self.lines.next()?;
            self.take();
            if waiter.call.send(()).is_err() {
                self.give_back();
            }
        }
        None
    }

    /// When those who wait now will have had their turns, if all goes as granted.
    fn outlook(&mut self, now: Instant) -> Duration {
        let first = self.next_place(now).unwrap_or(now);
        // The one who asks still stands in line.
        let others = self.lines.len().saturating_sub(1);
        let rounds = u32::try_from(others).unwrap_or(u32::MAX) / self.limit.max(1);
        first.saturating_duration_since(now) + self.per.saturating_mul(rounds)
    }
}

impl Lines {
    fn is_empty(&self) -> bool {
        self.returned.is_empty() && self.order.is_empty()
    }

    fn len(&self) -> usize {
        self.returned.len() + self.tenants.values().map(|line| line.waiting.len()).sum::<usize>()
    }

    fn ticket(&mut self) -> u64 {
        self.next_ticket += 1;
        self.next_ticket
    }

    /// The line of `tenant`, no further back than where all the others are.
    fn line(&mut self, tenant: &TenantId, weight: NonZeroU32) -> &mut Line {
        let now = self.now;
        // Those who have nobody waiting and were overtaken have nothing that is worth remembering.
        if self.tenants.len() > 1024 {
            self.tenants.retain(|_, line| !line.waiting.is_empty() || line.pass > now);
        }
        let new = || Line { pass: now, weight, waiting: BTreeMap::new() };
        let line = self.tenants.entry(tenant.clone()).or_insert_with(new);
        line.weight = weight;
        if line.waiting.is_empty() {
            line.pass = line.pass.max(now);
        }
        line
    }

    /// At the end of the tenant's line.
    fn join(&mut self, tenant: &TenantId, weight: NonZeroU32, call: oneshot::Sender<()>) -> u64 {
        let ticket = self.ticket();
        let line = self.line(tenant, weight);
        let is_first = line.waiting.is_empty();
        line.waiting.insert(ticket, Waiter { ticket, call });
        let pass = line.pass;
        if is_first {
            self.order.insert((pass, tenant.clone()));
        }
        ticket
    }

    /// Before all others.
    fn return_to_head(&mut self, call: oneshot::Sender<()>) -> u64 {
        let ticket = self.ticket();
        self.returned.push_back(Waiter { ticket, call });
        ticket
    }

    /// A turn that was had without waiting counts, too.
    fn note_turn(&mut self, tenant: &TenantId, weight: NonZeroU32) {
        let line = self.line(tenant, weight);
        line.pass += STRIDE / u64::from(weight.get());
    }

    /// The one whose turn it is.
    fn next(&mut self) -> Option<Waiter> {
        if let Some(waiter) = self.returned.pop_front() {
            return Some(waiter);
        }
        let (pass, tenant) = self.order.pop_first()?;
        self.now = pass;
        let line = self.tenants.get_mut(&tenant)?;
        let (_, waiter) = line.waiting.pop_first()?;
        line.pass += STRIDE / u64::from(line.weight.get());
        if !line.waiting.is_empty() {
            self.order.insert((line.pass, tenant));
        }
        Some(waiter)
    }

    fn leave(&mut self, ticket: u64) {
        self.returned.retain(|waiter| waiter.ticket != ticket);
        let of = |line: &Line| line.waiting.contains_key(&ticket);
        let Some(tenant) = self.tenants.iter().find(|(_, line)| of(line)).map(|(tenant, _)| tenant.clone())
        else {
            return;
        };
        if let Some(line) = self.tenants.get_mut(&tenant) {
            line.waiting.remove(&ticket);
            if line.waiting.is_empty() {
                self.order.remove(&(line.pass, tenant));
            }
        }
    }
}

/// Calls those who wait, when there is a place, as long as somebody waits.
async fn drive(shared: Weak<Shared>) {
    loop {
        let Some(quota) = shared.upgrade() else { return };
        let changed = quota.changed.notified();
        tokio::pin!(changed);
        changed.as_mut().enable();
        let next = {
            let mut state = quota.state();
            let next = state.call(Instant::now());
            state.driven = next.is_some();
            next
        };
        let Some(at) = next else { return };
        let _ = tokio::time::timeout_at(at, changed).await;
    }
}

#[cfg(test)]
mod tests;
