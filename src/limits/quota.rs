//! The quota of one account at the upstream: so many creates in any period, so many tasks at a time. Whatever
//! is above it waits its turn, fairly among tenants.
//!
//! Decides only when a create may be sent; sending it and reading the answer is the caller's business, who
//! tells how it went by what it does with the [`Turn`]. `window` knows how many the upstream may have
//! counted, `queue` who is next; both are pure, and one lock here holds them together. Turns are given out
//! under that lock whenever something changes, and handed over outside of it. What only time can change, an
//! alarm waits for: one sleeping job, and only while somebody waits.

mod queue;
#[cfg(test)]
mod tests;
mod window;

use std::collections::BTreeMap;
use std::fmt;
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until, timeout_at};

use self::queue::{Charge, FairQueue, Next};
use self::window::{Room, Window};
use crate::background;
use crate::clock::Clock;
use crate::config::Rate;
use crate::ids::TenantId;

/// The quota of one account. A handle, cheap to clone.
#[derive(Clone)]
pub struct Quota(Arc<Shared>);

/// How things stand, for metrics and operators.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QuotaStatus {
    /// Creates in a period, by the configuration.
    pub configured: u32,
    /// Creates in a period by now: fewer than configured for a while after the upstream answered 429.
    pub limit: u32,
    /// Creates that the upstream may count at present.
    pub in_window: u32,
    /// How many creates would get a turn at once.
    pub available: u32,
    /// Creates that wait for a turn.
    pub waiting: usize,
    /// Tasks under way, with one for each create that is being sent.
    pub tasks: u32,
    /// Tasks that may be under way.
    pub max_tasks: u32,
    /// How long the upstream wants no creates; zero if it takes them.
    pub blocked_for: Duration,
}

/// No turn came in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no turn in the upstream's quota after {waited:?}, another try in {retry_after:?}")]
pub struct QuotaTimeout {
    /// How long the create stood in the queue.
    pub waited: Duration,
    /// When a create could get a turn if all that wait now went first: an estimate, and never zero. It
    /// supposes that what is under way is answered now, and a task at the limit of tasks ends within a
    /// period.
    pub retry_after: Duration,
}

/// The right to send one create, now.
///
/// Dropped without a verdict it counts like a create that was refused: it may have arrived.
#[must_use = "a turn that is not used keeps others waiting"]
pub struct Turn {
    shared: Arc<Shared>,
    tenant: TenantId,
    number: u64,
    charge: Charge,
    waited: Duration,
    deadline: Instant,
    stage: Stage,
}

/// How far a turn has come.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// On its way to the caller, who may be gone: nothing is sent yet.
    Granted,
    /// The caller has it: the create may arrive at any time.
    Taken,
    /// The caller told how it went.
    Over,
}

/// A place among the tasks under way; dropping it frees the place.
#[must_use = "the task's place is free as soon as this is dropped"]
pub struct TaskSlot(Arc<Shared>);

impl Quota {
    /// A quota of which nothing has been used. The burst of the rate means nothing here: the upstream counts
    /// in windows.
    pub fn new(rate: Rate, max_tasks: NonZeroU32, clock: Clock) -> Self {
        let state = State {
            window: Window::new(rate.requests, rate.per),
            period: rate.per,
            tasks: 0,
            max_tasks: max_tasks.get(),
            returned: BTreeMap::new(),
            queue: FairQueue::new(),
            count: 0,
            alarm: None,
            runtime: None,
        };
        Self(Arc::new(Shared { clock, state: Mutex::new(state) }))
    }

    /// Waits for a turn. Dropping the future leaves the queue at once, and costs nobody anything.
    ///
    /// # Errors
    /// [`QuotaTimeout`] if none came within `patience`; at once where the upstream wants no creates for
    /// longer.
    pub async fn turn(
        &self,
        tenant: &TenantId,
        weight: NonZeroU32,
        patience: Duration,
    ) -> Result<Turn, QuotaTimeout> {
        let waiting = self.0.change(|state, now| {
            let deadline = now.checked_add(patience).unwrap_or(now + FOREVER);
            let stay = Stay { since: now, waited_before: Duration::ZERO, deadline };
            state.refuse_if_hopeless(stay, now)?;
            let (sender, receiver) = oneshot::channel();
            state.runtime = Handle::try_current().ok();
            state.count += 1;
            let number = state.count;
            state.queue.push(tenant, weight, number, Ticket { stay, sender });
            Ok(Waiting { shared: Arc::clone(&self.0), tenant: tenant.clone(), number, stay, receiver })
        })?;
        waiting.turn().await
    }

    /// Takes a place for a task that runs already, as after a restart. There may be more of them than the
    /// limit; then no create gets a turn until enough have ended.
    pub fn occupy(&self) -> TaskSlot {
        self.0.change(|state, _| state.tasks = state.tasks.saturating_add(1));
        TaskSlot(Arc::clone(&self.0))
    }

    /// Whether the account has as many tasks under way as it may.
    pub fn is_full_of_tasks(&self) -> bool {
        self.0.change(|state, _| state.tasks >= state.max_tasks)
    }

    /// How things stand.
    pub fn status(&self) -> QuotaStatus {
        self.0.change(|state, now| state.status(now))
    }
}

impl Turn {
    /// How long the create stood in the queue, all times taken together.
    pub fn waited(&self) -> Duration {
        self.waited
    }

    /// The upstream took the create, and a task runs until the slot is dropped.
    pub fn started(mut self) -> TaskSlot {
        self.stage = Stage::Over;
        self.shared.change(|state, now| state.window.answered(now));
        TaskSlot(Arc::clone(&self.shared))
    }

    /// The upstream answered, and no task runs.
    pub fn refused(self) {
        drop(self);
    }

    /// Nothing was sent: it is as if nobody had taken the turn.
    pub fn returned(mut self) {
        self.stage = Stage::Granted;
    }

    /// The upstream answered 429. No creates are sent for as long as it wants (a whole period if it does not
    /// say, an hour at most), the limit becomes what it took by then, and this create has a place at the head of
    /// the queue for another turn, within what is left of the patience it came with. Its tenant pays for one
    /// turn only.
    ///
    /// # Errors
    /// [`QuotaTimeout`] where the upstream wants no creates for longer than the patience lasts.
    pub fn throttled(mut self, retry_after: Option<Duration>) -> Result<Waiting, QuotaTimeout> {
        self.stage = Stage::Over;
        self.shared.change(|state, now| {
            state.window.throttled(now, retry_after);
            state.tasks = state.tasks.saturating_sub(1);
            state.send_away_hopeless(now);
            let stay = Stay { since: now, waited_before: self.waited, deadline: self.deadline };
            state.refuse_if_hopeless(stay, now)?;
            let (sender, receiver) = oneshot::channel();
            let (tenant, number) = (self.tenant.clone(), self.number);
            state.returned.insert(number, (tenant.clone(), Ticket { stay, sender }));
            Ok(Waiting { shared: Arc::clone(&self.shared), tenant, number, stay, receiver })
        })
    }
}

impl fmt::Debug for Turn {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Turn")
            .field("tenant", &self.tenant)
            .field("waited", &self.waited)
            .finish_non_exhaustive()
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        match self.stage {
            Stage::Granted => self.shared.change(|state, _| {
                state.window.unsend();
                state.tasks = state.tasks.saturating_sub(1);
                state.queue.refund(&self.tenant, self.charge);
            }),
            Stage::Taken => self.shared.change(|state, now| {
                state.window.answered(now);
                state.tasks = state.tasks.saturating_sub(1);
            }),
            Stage::Over => {}
        }
    }
}

impl TaskSlot {
    /// The task has ended: the same as dropping the slot, in words.
    pub fn ended(self) {
        drop(self);
    }
}

impl Drop for TaskSlot {
    fn drop(&mut self) {
        self.0.change(|state, _| state.tasks = state.tasks.saturating_sub(1));
    }
}

/// The patience of those who have no end of it.
const FOREVER: Duration = Duration::from_hours(24 * 3650);

struct Shared {
    clock: Clock,
    state: Mutex<State>,
}

struct State {
    window: Window,
    period: Duration,
    /// Tasks under way and turns given out.
    tasks: u32,
    max_tasks: u32,
    /// Those whom the upstream sent back with 429, by their number: the head of the queue.
    returned: BTreeMap<u64, (TenantId, Ticket)>,
    queue: FairQueue<Ticket>,
    /// How many have come so far.
    count: u64,
    alarm: Option<Alarm>,
    /// Where those wait who wait.
    runtime: Option<Handle>,
}

/// What the queue holds of a create that waits.
struct Ticket {
    stay: Stay,
    sender: oneshot::Sender<Turn>,
}

/// When a create came into the queue, and when it has to be out of it.
#[derive(Clone, Copy)]
struct Stay {
    since: Instant,
    waited_before: Duration,
    deadline: Instant,
}

/// The job that gives out turns when nothing but time has to pass for it.
struct Alarm {
    at: Instant,
    job: JoinHandle<()>,
}

impl Stay {
    fn waited(&self, now: Instant) -> Duration {
        self.waited_before + now.saturating_duration_since(self.since)
    }
}

impl Shared {
    /// Changes the state, and gives out the turns that this makes possible. The only way to the state.
    fn change<R>(self: &Arc<Self>, act: impl FnOnce(&mut State, Instant) -> R) -> R {
        let (result, granted) = {
            let mut state = self.lock();
            // Read under the lock: the window wants times in order.
            let now = self.clock.instant();
            let result = act(&mut state, now);
            let granted = state.grant(now);
            self.set_alarm(&mut state, now);
            (result, granted.into_iter().map(|next| self.hand_out(next, now)).collect::<Vec<_>>())
        };
        for (sender, turn) in granted {
            // Whoever is gone does not take the turn; dropping it passes it on.
            drop(sender.send(turn));
        }
        result
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn hand_out(self: &Arc<Self>, next: Next<Ticket>, now: Instant) -> (oneshot::Sender<Turn>, Turn) {
        let turn = Turn {
            shared: Arc::clone(self),
            tenant: next.tenant,
            number: next.number,
            charge: next.charge,
            waited: next.waiter.stay.waited(now),
            deadline: next.waiter.stay.deadline,
            stage: Stage::Granted,
        };
        (next.waiter.sender, turn)
    }

    /// Sees to it that somebody looks again when time alone makes room.
    fn set_alarm(self: &Arc<Self>, state: &mut State, now: Instant) {
        let at = state.wakes(now);
        if at == state.alarm.as_ref().map(|alarm| alarm.at) {
            return;
        }
        if let Some(old) = state.alarm.take() {
            old.job.abort();
        }
        if let (Some(at), Some(runtime)) = (at, &state.runtime) {
            // Whoever made room, by dropping a slot perhaps, may stand outside of the runtime.
            let _inside = runtime.enter();
            state.alarm = Some(Alarm { at, job: background::spawn(ring(Arc::downgrade(self), at)) });
        }
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        let state = self.state.get_mut().unwrap_or_else(PoisonError::into_inner);
        if let Some(alarm) = state.alarm.take() {
            alarm.job.abort();
        }
    }
}

async fn ring(shared: Weak<Shared>, at: Instant) {
    sleep_until(at).await;
    let Some(shared) = shared.upgrade() else { return };
    shared.change(|state, _| {
        // It has rung, unless it was set anew while this one waited for the lock.
        state.alarm.take_if(|alarm| alarm.at == at);
    });
}

impl State {
    /// Takes out those whose turn it is, as long as there is room.
    fn grant(&mut self, now: Instant) -> Vec<Next<Ticket>> {
        let mut granted = Vec::new();
        while self.tasks < self.max_tasks
            && self.window.room(now) == Room::Now
            && let Some(next) = self.next()
        {
            self.window.send(now);
            self.tasks += 1;
            granted.push(next);
        }
        granted
    }

    fn next(&mut self) -> Option<Next<Ticket>> {
        let returned = self.returned.pop_first();
        let returned = returned.map(|(number, (tenant, waiter))| {
            // It paid when it had its turn for the first time.
            Next { number, tenant, waiter, charge: Charge::NOTHING }
        });
        returned.or_else(|| self.queue.pop())
    }

    /// When time alone gives somebody a turn, if it does.
    fn wakes(&self, now: Instant) -> Option<Instant> {
        match self.window.room(now) {
            Room::From(at) if self.waiting() > 0 && self.tasks < self.max_tasks => Some(at),
            _ => None,
        }
    }

    fn waiting(&self) -> usize {
        self.returned.len() + self.queue.len()
    }

    /// Leaves the queue, if it has had no turn.
    fn leave(&mut self, tenant: &TenantId, number: u64) {
        if self.returned.remove(&number).is_none() {
            self.queue.remove(tenant, number);
        }
    }

    /// # Errors
    /// [`QuotaTimeout`] if the upstream wants no creates for longer than the stay may last.
    fn refuse_if_hopeless(&self, stay: Stay, now: Instant) -> Result<(), QuotaTimeout> {
        let blocked = self.window.blocked_until(now).is_some_and(|until| until > stay.deadline);
        if blocked { Err(self.timeout(stay, now)) } else { Ok(()) }
    }

    /// Lets those go whose patience ends before the upstream wants creates again: they hear of it at once.
    fn send_away_hopeless(&mut self, now: Instant) {
        let Some(until) = self.window.blocked_until(now) else { return };
        let is_hopeless = |ticket: &Ticket| ticket.stay.deadline < until;
        self.returned.retain(|_, (_, ticket)| !is_hopeless(ticket));
        for (tenant, number) in self.queue.find(is_hopeless) {
            drop(self.queue.remove(&tenant, number));
        }
    }

    /// The refusal of a create that is not in the queue any more.
    fn timeout(&self, stay: Stay, now: Instant) -> QuotaTimeout {
        let window = self.window.estimate(now, self.waiting()).saturating_duration_since(now);
        let tasks = if self.tasks < self.max_tasks { Duration::ZERO } else { self.period };
        QuotaTimeout { waited: stay.waited(now), retry_after: window.max(tasks).max(window::ROUNDING) }
    }

    fn status(&self, now: Instant) -> QuotaStatus {
        let (limit, in_window) = (self.window.limit(now), self.window.occupied(now));
        let blocked = self.window.blocked_until(now);
        let room = limit.saturating_sub(in_window).min(self.max_tasks.saturating_sub(self.tasks));
        QuotaStatus {
            configured: self.window.configured(),
            limit,
            in_window,
            available: if blocked.is_some() { 0 } else { room },
            waiting: self.waiting(),
            tasks: self.tasks,
            max_tasks: self.max_tasks,
            blocked_for: blocked.map_or(Duration::ZERO, |until| until.saturating_duration_since(now)),
        }
    }
}

/// A create that waits. Dropping it leaves the queue, and a turn that was on its way goes to the next.
pub struct Waiting {
    shared: Arc<Shared>,
    tenant: TenantId,
    number: u64,
    stay: Stay,
    receiver: oneshot::Receiver<Turn>,
}

impl Waiting {
    /// Its turn.
    ///
    /// # Errors
    /// [`QuotaTimeout`] if its patience ends before.
    pub async fn turn(mut self) -> Result<Turn, QuotaTimeout> {
        // Mostly it is there already, and needs no timer.
        let mut granted = self.receiver.try_recv().ok();
        if granted.is_none() {
            granted = timeout_at(self.stay.deadline, &mut self.receiver).await.ok().and_then(Result::ok);
        }
        let Some(mut turn) = granted else { return Err(self.timed_out()) };
        turn.stage = Stage::Taken;
        Ok(turn)
    }

    fn timed_out(&self) -> QuotaTimeout {
        self.shared.change(|state, now| {
            state.leave(&self.tenant, self.number);
            state.timeout(self.stay, now)
        })
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.shared.change(|state, _| state.leave(&self.tenant, self.number));
    }
}
