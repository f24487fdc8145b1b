//! Callbacks: what is due when, sent as the real sender does, tried again, and written down.
//!
//! Each sandbox that has something due is driven by one background job, which ends when nothing is left. Every
//! attempt runs on its own, so a slow receiver delays nobody. `advance` in the control API drives the same queue
//! along the virtual clock.

use std::cmp::Reverse;
use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::{HeaderMap, HeaderValue, StatusCode};
use serde_json::{Value, json};

use super::guest::Posted;
use super::log::Attempt;
use super::outcome;
use super::plan::Plan;
use super::sandbox::{Sandbox, World};
use super::task::{Due, Lineage, SandboxId, Task, TaskKey, ending_name};
use super::view::{Setting, View, written};
use super::{Event, Shared, Sim, download};
use crate::catalogue::{CallbackKind, Lifecycle, TaskKind};
use crate::clock::Timestamp;
use crate::{background, wire};

/// A callback on its way out.
#[derive(Debug)]
pub struct Parcel {
    /// Whose sandbox it comes from, as the [`Owner`](super::Owner) of its first request said.
    pub owner: Arc<str>,
    /// Where to, as the client gave it.
    pub url: String,
    /// Content type and signature.
    pub headers: HeaderMap,
    /// JSON.
    pub body: Bytes,
    /// How long the receiver may take.
    pub timeout: Duration,
}

/// Carries callbacks out of the process.
pub trait Courier: Send + Sync + 'static {
    /// Posts a parcel; gives the receiver's status, or what went wrong in words.
    fn deliver(&self, parcel: Parcel) -> BoxFuture<'static, Result<StatusCode, String>>;
}

/// Where work takes no time at all, its callback waits so long in real time: the answer to the create comes first.
pub const AFTER_CREATE: Duration = Duration::from_millis(15);

/// The address that `input` wants to be called back at; an empty one counts as none.
pub(super) fn address<'v>(kind: &TaskKind, input: &'v Value) -> Option<&'v str> {
    input.pointer(&kind.callback_at).and_then(Value::as_str).filter(|url| !url.is_empty())
}

/// When each of a task kind's callbacks is due, by position.
pub(super) fn moments(
    kinds: &[CallbackKind],
    lifecycle: &Lifecycle,
    plan: &Plan,
    ending: &str,
) -> Vec<(u8, Timestamp)> {
    let mut moments = Vec::new();
    for (stage, kind) in (0..).zip(kinds) {
        let phase = lifecycle
            .phases
            .iter()
            .position(|phase| phase.state.as_str().is_some_and(|state| kind.on.iter().any(|on| on == state)));
        let reached =
            phase.map(|phase| plan.phase_begins(phase)).filter(|at| plan.ends().is_none_or(|end| *at < end));
        let ended = plan.ends().filter(|_| kind.on.iter().any(|on| on == ending));
        moments.extend(reached.or(ended).map(|at| (stage, at)));
    }
    moments
}

/// Puts the callbacks of a new or revised task into the queue; gives their number.
pub(super) fn plan(world: &mut World, sim: &Sim, key: TaskKey, task: &Task) -> usize {
    let catalogue = sim.catalogue();
    let kind = task.kind(catalogue);
    let kinds = &kind.callbacks;
    let has_address =
        || serde_json::from_str::<Value>(&task.input).is_ok_and(|input| address(kind, &input).is_some());
    if kinds.is_empty() || !has_address() {
        return 0;
    }
    let ending = ending_name(catalogue, task.plan.ending());
    let mut moments = moments(kinds, task.lifecycle(catalogue), &task.plan, ending);
    if task.callbacks.reorder {
        let mut times: Vec<_> = moments.iter().map(|(_, at)| *at).collect();
        times.reverse();
        moments.iter_mut().zip(times).for_each(|((_, at), time)| *at = time);
    }
    let late = Duration::from_millis(task.callbacks.late_ms.into());
    let copies: &[bool] = if task.callbacks.duplicate { &[false, true] } else { &[false] };
    for (stage, at) in &moments {
        let due = |duplicate: &bool| Due {
            at: *at + late,
            task: key,
            stage: *stage,
            attempt: 0,
            duplicate: *duplicate,
        };
        world.due.extend(copies.iter().map(due).map(Reverse));
    }
    moments.len() * copies.len()
}

impl Sim {
    /// Sees to it that what is due in `sandbox` happens, also when nobody asks.
    pub(super) fn drive(&self, sandbox: &Arc<Sandbox>) {
        let start = {
            let mut world = sandbox.world();
            let start = !world.driven && world.next_look().is_some();
            world.driven |= start;
            start
        };
        if start {
            background::spawn(drive(Arc::downgrade(&self.0), Arc::downgrade(sandbox)));
        } else {
            sandbox.changed.notify_waiters();
        }
    }

    /// Takes out what is due by `now` and sends it off.
    fn send_due(&self, sandbox: &Arc<Sandbox>, world: &mut World, now: Timestamp) {
        while let Some(Reverse(due)) = world.due.peek().copied().filter(|Reverse(due)| due.at <= now) {
            world.due.pop();
            if world.depart(due) {
                let (sim, sandbox, epoch) = (self.clone(), Arc::clone(sandbox), world.epoch);
                background::spawn(async move { sim.send_in_turn(&sandbox, due, epoch).await });
            }
        }
    }

    /// Sends what is due, and what comes to wait for it, one after the other.
    async fn send_in_turn(&self, sandbox: &Sandbox, first: Due, epoch: u64) {
        let mut next = Some(first);
        while let Some(due) = next {
            let sender = Sender::of(&sandbox.world(), due);
            next = match sender {
                Some(sender) => self.attempt(sandbox, &sender, due, epoch).await,
                None => self.give_up(sandbox, due, epoch),
            };
            sandbox.changed.notify_waiters();
        }
    }

    /// Ends an attempt whose task has given way to newer ones; gives the next of that task.
    fn give_up(&self, sandbox: &Sandbox, due: Due, epoch: u64) -> Option<Due> {
        let (ours, next) = {
            let mut world = sandbox.world();
            let ours = world.epoch == epoch;
            (ours, if ours { world.arrive(due) } else { None })
        };
        let callbacks = usize::from(ours);
        self.parts().observer.observe(&Event::TasksForgotten {
            owner: &sandbox.owner,
            running: 0,
            tasks: &[],
            callbacks,
        });
        next
    }

    /// Makes one attempt, writes it down and, if it failed, plans the next. If the sandbox was emptied meanwhile, nobody
    /// hears of it. Gives what waited for it.
    async fn attempt(&self, sandbox: &Sandbox, sender: &Sender, due: Due, epoch: u64) -> Option<Due> {
        if due.attempt == 0 && due.at == sender.began() && !sender.is_early() {
            self.pause(AFTER_CREATE).await;
        }
        let began = self.parts().clock.instant();
        let parcel = self.parcel(sandbox, sender, due);
        let (url, headers, body) = (parcel.url.clone(), parcel.headers.clone(), parcel.body.clone());
        let dropped = sender.drops();
        let result = if dropped { Err("dropped, as asked for".into()) } else { self.carry(parcel).await };
        let retries = &self.catalogue().shared().callback_retries;
        let retry = retries.get(usize::from(due.attempt)).filter(|_| !dropped);
        let verdict = match (&result, retry) {
            (Ok(status), _) if status.is_success() => "delivered",
            _ if dropped => "dropped",
            (_, Some(_)) => "retried",
            (_, None) => "dead",
        };
        let (lag, next) = {
            let mut world = sandbox.world();
            if world.epoch != epoch {
                return None;
            }
            if let ("retried", Some(pause)) = (verdict, retry) {
                let next = Due { at: due.at + *pause, attempt: due.attempt + 1, ..due };
                world.due.push(Reverse(next));
            }
            if verdict != "retried" {
                world.guest.forget(due);
            }
            let took = began.elapsed();
            let result = result.map(|status| status.as_u16());
            let size = url.len() + body.len();
            let (task, bad_signature) = (sender.task(), sender.signs_badly());
            let attempt = Attempt { due, task, url, headers, body, result, took, bad_signature, verdict };
            world.attempts.push(attempt, size);
            let next = world.arrive(due);
            (world.clock.at(self.real_now()).saturating_since(due.at), next)
        };
        self.parts().observer.observe(&Event::CallbackSent { owner: &sandbox.owner, result: verdict, lag });
        next
    }

    /// Waits until the callbacks of the task at `key` that are due by now have each been tried.
    pub(super) async fn told(&self, sandbox: &Arc<Sandbox>, key: TaskKey) {
        loop {
            let changed = sandbox.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            {
                let world = sandbox.world();
                if !world.is_telling(key, world.clock.at(self.real_now())) {
                    return;
                }
            }
            changed.await;
        }
    }

    /// Brings a parcel to the sandbox's own inbox, or out of the process.
    async fn carry(&self, parcel: Parcel) -> Result<StatusCode, String> {
        let timeout = parcel.timeout;
        let inside = download::path_of(&parcel.url).and_then(|path| path.strip_prefix("/_mock/inbox/"));
        let own_box = inside.and_then(|rest| self.own_box(rest));
        let carried = async {
            if let Some((sandbox, name)) = own_box {
                return Ok(self.receive(&sandbox, &name, &parcel.headers, parcel.body).await);
            }
            self.parts().courier.deliver(parcel).await
        };
        let late = || Err(format!("no answer within {} s", timeout.as_secs()));
        tokio::time::timeout(timeout, carried).await.unwrap_or_else(|_| late())
    }

    /// The sandbox and box of an inbox path's rest, `<sandbox>/<name>`, if that sandbox lives here.
    fn own_box(&self, rest: &str) -> Option<(Arc<Sandbox>, String)> {
        let (id, name) = rest.split_once('/')?;
        Some((self.existing(SandboxId::parse(id)?)?, name.split('?').next()?.to_owned()))
    }

    /// Lets `name` in the inbox of `sandbox` receive a callback; gives what it answers.
    pub(super) async fn receive(
        &self,
        sandbox: &Sandbox,
        name: &str,
        headers: &HeaderMap,
        body: Bytes,
    ) -> StatusCode {
        let key = self.parts().webhook_secret.as_ref().map(crate::ids::Secret::expose);
        let (answer, delay) = {
            let mut world = sandbox.world();
            let now = world.clock.at(self.real_now());
            world.inbox.receive(name, now, headers, body, key)
        };
        sandbox.arrived.notify_waiters();
        self.pause(delay).await;
        StatusCode::from_u16(answer).unwrap_or(StatusCode::OK)
    }

    /// The request that `due` stands for, signed afresh.
    fn parcel(&self, sandbox: &Sandbox, sender: &Sender, due: Due) -> Parcel {
        let (url, body, bad_signature) = match sender {
            Sender::Task(lineage) => self.say(sandbox, lineage, due),
            Sender::Guest(posted) => (posted.letter.url.clone(), posted.letter.body.clone(), false),
        };
        let mut headers = HeaderMap::new();
        headers.insert(http::header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if let Some(secret) = &self.parts().webhook_secret {
            // The id that the receiver will find in the body: for an upgrade that of its base task.
            let parsed: Value = serde_json::from_slice(&body).unwrap_or_default();
            let id = wire::task_id(&parsed).unwrap_or_default();
            let key = if bad_signature { "not the right key" } else { secret.expose() };
            wire::sign(&mut headers, key, id, due.at.seconds());
        }
        let owner = Arc::clone(&sandbox.owner);
        Parcel { owner, url, headers, body, timeout: self.catalogue().shared().callback_timeout }
    }

    /// Where a task calls back, what it says, and whether its signature is to be wrong.
    fn say(&self, sandbox: &Sandbox, lineage: &Lineage, due: Due) -> (String, Bytes, bool) {
        let setting = Setting {
            catalogue: self.catalogue(),
            sandbox: sandbox.id,
            now: due.at,
            origin: &lineage.task.origin,
            request: &Value::Null,
        };
        let view = View::new(setting, lineage);
        let kind = &view.kind().callbacks[usize::from(due.stage)];
        let url = address(view.kind(), view.input()).unwrap_or_default().to_owned();
        (url, written(&view, &kind.body).into(), lineage.task.callbacks.bad_signature)
    }

    /// Moves the sandbox's clock to `target`, or to the last thing that will ever happen, event by event, and returns
    /// when every callback that came due has been delivered or given up. Gives the attempts and endings on the way.
    pub(super) async fn advance(&self, sandbox: &Arc<Sandbox>, target: Option<Timestamp>) -> Vec<Value> {
        let mut events = Vec::new();
        let first_attempt = {
            let world = sandbox.world();
            world.attempts.dropped + world.attempts.entries.len() as u64
        };
        loop {
            let changed = sandbox.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            let (finished, idle) = {
                let mut world = sandbox.world();
                let real = self.real_now();
                let next = world.next_event().filter(|at| target.is_none_or(|target| *at <= target));
                let next = next.filter(|_| !world.next_is_held_up());
                if let Some(at) = next {
                    world.clock.forward_to(at, real);
                }
                let now = world.clock.at(real);
                let finished = world.settle(now);
                self.send_due(sandbox, &mut world, now);
                (finished, next.is_none().then(|| !world.waits_for(target)))
            };
            self.tell_finished(sandbox, &finished);
            events.extend(finished.iter().map(|finished| (finished.at, finished.to_event(self))));
            match idle {
                Some(true) => break,
                Some(false) => changed.await,
                None => {}
            }
        }
        {
            let mut world = sandbox.world();
            if let Some(target) = target {
                world.clock.forward_to(target, self.real_now());
            }
            let skip = first_attempt.saturating_sub(world.attempts.dropped);
            let skip = usize::try_from(skip).unwrap_or(usize::MAX);
            let due = |attempt: &&Arc<Attempt>| target.is_none_or(|target| attempt.due.at <= target);
            let attempts = world.attempts.entries.iter().skip(skip).filter(due);
            events.extend(attempts.map(|attempt| (attempt.due.at, attempt.to_event())));
        }
        events.sort_by_key(|(at, _)| *at);
        events.into_iter().map(|(_, event)| event).collect()
    }
}

/// Who calls back.
enum Sender {
    Task(Lineage),
    Guest(Arc<Posted>),
}

impl Sender {
    /// Who wants to send what is due; `None` where it has given way to newer ones.
    fn of(world: &World, due: Due) -> Option<Self> {
        let task = || world.lineage(due.task).map(Self::Task);
        world.guest.letter(due).map(Self::Guest).or_else(task)
    }

    fn began(&self) -> Timestamp {
        match self {
            Self::Task(lineage) => lineage.task.plan.created(),
            Self::Guest(posted) => posted.brought,
        }
    }

    /// Whether what it sends comes before the answer to the create.
    fn is_early(&self) -> bool {
        matches!(self, Self::Task(lineage) if lineage.task.callbacks.early)
    }

    /// Whether what it sends is signed wrongly on purpose.
    fn signs_badly(&self) -> bool {
        matches!(self, Self::Task(lineage) if lineage.task.callbacks.bad_signature)
    }

    fn drops(&self) -> bool {
        matches!(self, Self::Task(lineage) if lineage.task.callbacks.drop)
    }

    /// The id of the task that it is about.
    fn task(&self) -> String {
        match self {
            Self::Task(lineage) => lineage.key.to_string(),
            Self::Guest(posted) => posted.letter.task.clone(),
        }
    }
}

/// What a sandbox's background job waits for.
enum Next {
    /// Nothing will happen any more.
    Never,
    /// A change; or the passing of so much real time.
    Change(Option<Duration>),
}

impl Sim {
    /// Does what is due in `sandbox` by now, and says when to look again.
    fn step(&self, sandbox: &Arc<Sandbox>) -> Next {
        let (finished, next) = {
            let mut world = sandbox.world();
            let (now, finished) = self.settled(&mut world);
            self.send_due(sandbox, &mut world, now);
            let next = match world.next_look() {
                Some(event) => Next::Change(world.clock.until(event, self.real_now())),
                None if world.waits_for(None) => Next::Change(None),
                None => Next::Never,
            };
            world.driven = !matches!(next, Next::Never);
            (finished, next)
        };
        self.tell_finished(sandbox, &finished);
        next
    }
}

/// The background job of one sandbox: holds neither it nor the simulator while it waits.
async fn drive(shared: Weak<Shared>, sandbox: Weak<Sandbox>) {
    let Some(changed) = sandbox.upgrade().map(|sandbox| Arc::clone(&sandbox.changed)) else { return };
    loop {
        let notified = changed.notified();
        tokio::pin!(notified);
        notified.as_mut().enable();
        let next = {
            let (Some(shared), Some(sandbox)) = (shared.upgrade(), sandbox.upgrade()) else { return };
            Sim(shared).step(&sandbox)
        };
        match next {
            Next::Never => return,
            Next::Change(None) => notified.await,
            Next::Change(Some(wait)) => {
                let _ = tokio::time::timeout(wait, notified).await;
            }
        }
    }
}

impl super::Finished {
    /// As `advance` lists it.
    fn to_event(&self, sim: &Sim) -> Value {
        let outcome = outcome::name(sim.catalogue(), self.task.plan.ending());
        json!({"at": self.at, "type": "task", "task": self.key.to_string(), "outcome": outcome})
    }
}
