//! The simulator's world for one key: tasks, clock, balance, what is due, what was delivered.
//!
//! Plain data behind one lock that is held for a few lines. Anything that waits (sending, drawing, sleeping) happens
//! outside, on values taken out of here.

use std::cmp::Reverse;
use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, BinaryHeap, HashMap, HashSet, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use super::guest::Guest;
use super::inbox::Inbox;
use super::journal::Journal;
use super::log::{Attempt, Bounded};
use super::plan::State;
use super::rules::Rules;
use super::settings::Settings;
use super::task::{Due, Lineage, SandboxId, Task, TaskKey, Worth};
use super::time::VirtualClock;
use super::upload::{Share, Shelf};
use super::{Event, Observer};
use crate::catalogue::{ModelIx, OperationIx};
use crate::clock::{Timestamp, digest};
use crate::ids::Credits;

/// A task that came to its end.
#[derive(Clone, Debug)]
pub(super) struct Finished {
    pub(super) at: Timestamp,
    pub(super) key: TaskKey,
    pub(super) task: Arc<Task>,
}

/// One key's world.
pub(super) struct Sandbox {
    pub(super) id: SandboxId,
    /// Whose metrics it counts to.
    pub(super) owner: Arc<str>,
    state: Mutex<World>,
    /// Something became due earlier, or a delivery came to an end.
    pub(super) changed: Arc<Notify>,
    /// Something arrived in the inbox.
    pub(super) arrived: Notify,
    /// What its uploaded files take.
    pub(super) share: Arc<Share>,
    /// Is told when it goes.
    observer: Arc<dyn Observer>,
}

/// What a [`World`] keeps to itself, for a snapshot.
pub(super) struct Kept {
    pub(super) occurrences: Vec<(u64, u32)>,
    pub(super) once: HashSet<TaskKey>,
}

/// What the lock protects.
pub(super) struct World {
    pub(super) clock: VirtualClock,
    pub(super) settings: Settings,
    pub(super) tasks: HashMap<TaskKey, Arc<Task>>,
    /// Ids that tasks have drawn, and the position of each among its task's.
    ids: HashMap<Box<str>, (TaskKey, u8)>,
    /// What was made once of a task and an id of it.
    once: HashMap<(TaskKey, OperationIx, Option<ModelIx>, u8), TaskKey>,
    /// In the order of creation, for dropping the oldest.
    order: VecDeque<TaskKey>,
    /// How often a request has come, so that the same one gets another id each time.
    occurrences: HashMap<u64, u32>,
    /// What is left, unsettled failures aside.
    balance: Credits,
    ends: BinaryHeap<Reverse<(Timestamp, TaskKey)>>,
    /// Tasks that were created and have not been seen to end.
    running: usize,
    /// What the tasks' inputs take, in bytes.
    bytes: usize,
    pub(super) due: BinaryHeap<Reverse<Due>>,
    /// Attempts under way or waiting for one, by when they were due.
    in_flight: BTreeMap<Timestamp, usize>,
    /// Tasks of which an attempt is under way, and what waits for it: the stages of a task arrive in their order.
    sending: HashMap<TaskKey, VecDeque<Due>>,
    /// Another one for each life of a sandbox: what began before it was emptied counts no more.
    pub(super) epoch: u64,
    pub(super) driven: bool,
    pub(super) recent_creates: VecDeque<Timestamp>,
    pub(super) attempts: Bounded<Attempt>,
    pub(super) rules: Rules,
    pub(super) journal: Journal,
    /// Tasks of which a result has been fetched.
    pub(super) fetched: HashSet<TaskKey>,
    pub(super) inbox: Inbox,
    pub(super) shelf: Shelf,
    pub(super) guest: Guest,
}

/// More tasks than this a sandbox does not keep: the oldest go.
const MOST_TASKS: usize = 1_000_000;
/// More bytes of requests than this its tasks do not keep.
const MOST_BYTES: usize = 256 * 1024 * 1024;

/// Lives that were begun.
static EPOCHS: AtomicU64 = AtomicU64::new(0);

impl Sandbox {
    pub(super) fn new(id: SandboxId, owner: Arc<str>, world: World, observer: Arc<dyn Observer>) -> Self {
        Self {
            id,
            owner,
            state: Mutex::new(world),
            changed: Arc::new(Notify::new()),
            arrived: Notify::new(),
            share: Arc::default(),
            observer,
        }
    }

    /// The world, for a few lines. A panic while it was held leaves plain data behind, which is used as it is.
    pub(super) fn world(&self) -> MutexGuard<'_, World> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Sandbox {
    /// Tells what is lost with it, and lets the background work notice that there is nothing left to work for.
    fn drop(&mut self) {
        let (running, callbacks) = self.world().unsettled();
        let owner = &self.owner;
        self.observer.observe(&Event::TasksForgotten { owner, running, tasks: &[], callbacks });
        self.changed.notify_waiters();
        self.changed.notify_one();
    }
}

impl World {
    pub(super) fn new(settings: Settings, credits: Credits, clock: VirtualClock) -> Self {
        Self {
            clock,
            settings,
            tasks: HashMap::new(),
            ids: HashMap::new(),
            once: HashMap::new(),
            order: VecDeque::new(),
            occurrences: HashMap::new(),
            balance: credits,
            ends: BinaryHeap::new(),
            running: 0,
            bytes: 0,
            due: BinaryHeap::new(),
            in_flight: BTreeMap::new(),
            sending: HashMap::new(),
            epoch: EPOCHS.fetch_add(1, Ordering::Relaxed),
            driven: false,
            recent_creates: VecDeque::new(),
            attempts: Bounded::new(10_000, 32 * 1024 * 1024),
            rules: Rules::default(),
            journal: Journal::default(),
            fetched: HashSet::new(),
            inbox: Inbox::default(),
            shelf: Shelf::default(),
            guest: Guest::default(),
        }
    }

    /// Begins anew as `fresh`. Attempts under way come to their end, and nobody hears of it.
    pub(super) fn empty(&mut self, fresh: Self) {
        *self = Self { driven: self.driven, ..fresh };
    }

    /// How many tasks have not ended, and how many callbacks have neither been delivered nor given up.
    pub(super) fn unsettled(&self) -> (usize, usize) {
        (self.running, self.due.len() + self.in_flight.values().sum::<usize>())
    }

    /// The tasks that have not ended at `now`.
    pub(super) fn running_at(&self, now: Timestamp) -> Vec<String> {
        let runs = |task: &Task| task.plan.ends().is_none_or(|end| end > now);
        self.tasks.iter().filter(|(_, task)| runs(task)).map(|(key, _)| key.to_string()).collect()
    }

    /// An attempt is due; whether it may begin, or waits for another one of its task.
    pub(super) fn depart(&mut self, due: Due) -> bool {
        *self.in_flight.entry(due.at).or_default() += 1;
        match self.sending.entry(due.task) {
            Entry::Occupied(mut under_way) => {
                under_way.get_mut().push_back(due);
                false
            }
            Entry::Vacant(none) => {
                none.insert(VecDeque::new());
                true
            }
        }
    }

    /// An attempt has come to its end; gives the one that waited for it, which may begin.
    pub(super) fn arrive(&mut self, due: Due) -> Option<Due> {
        if let Some(count) = self.in_flight.get_mut(&due.at) {
            *count -= 1;
            if *count == 0 {
                self.in_flight.remove(&due.at);
            }
        }
        let next = self.sending.get_mut(&due.task)?.pop_front();
        if next.is_none() {
            self.sending.remove(&due.task);
        }
        next
    }

    /// What only it knows, for a snapshot: prints of requests and how often they came, in order; and the tasks that are the
    /// only ones of their kind made of their parents.
    pub(super) fn kept(&self) -> Kept {
        let mut occurrences: Vec<(u64, u32)> =
            self.occurrences.iter().map(|(print, count)| (*print, *count)).collect();
        occurrences.sort_unstable();
        Kept { occurrences, once: self.once.values().copied().collect() }
    }

    /// Puts a task of a snapshot back; at `now` it has ended or not, and that is known already.
    pub(super) fn put_back(&mut self, key: TaskKey, task: Task, now: Timestamp, once: bool) {
        let runs = matches!(task.plan.state_at(now), State::Running(_));
        self.insert(key, task, now);
        if once {
            self.note_once(key);
        }
        if !runs {
            self.running -= 1;
            self.ends.retain(|Reverse((_, ended))| *ended != key);
        }
    }

    /// How often the request of that print has come.
    pub(super) fn set_occurrences(&mut self, print: u64, count: u32) {
        self.occurrences.insert(print, count);
    }

    /// Whether any callback is on its way.
    pub(super) fn is_calling(&self) -> bool {
        !self.in_flight.is_empty()
    }

    /// Whether a callback of the task at `key` is due at `now`, or on its way.
    pub(super) fn is_telling(&self, key: TaskKey, now: Timestamp) -> bool {
        let is_due = |Reverse(due): &Reverse<Due>| due.task == key && due.at <= now;
        self.sending.contains_key(&key) || self.due.iter().any(is_due)
    }

    /// Whether the next callback is one of a task of which an attempt is under way: what comes of that decides what is next.
    pub(super) fn next_is_held_up(&self) -> bool {
        self.due.peek().is_some_and(|Reverse(due)| self.sending.contains_key(&due.task))
    }

    /// Whether an attempt that was due by `target` (or any) is under way.
    pub(super) fn waits_for(&self, target: Option<Timestamp>) -> bool {
        self.in_flight.first_key_value().is_some_and(|(at, _)| target.is_none_or(|target| *at <= target))
    }

    /// An id for a task made by this request: the same request as the `n`th of its kind always gets the same one,
    /// whatever else comes in between.
    pub(super) fn new_key(&mut self, sandbox: SandboxId, operation: &str, request: &str) -> TaskKey {
        let seed = self.settings.seed.to_le_bytes();
        let digest = digest(&[&seed, sandbox.bytes(), operation.as_bytes(), request.as_bytes()]);
        let print = u64::from_le_bytes(std::array::from_fn(|index| digest[index]));
        if self.occurrences.len() > 2 * MOST_TASKS {
            self.occurrences.clear();
        }
        loop {
            let occurrence = self.occurrences.entry(print).or_default();
            *occurrence += 1;
            let key = TaskKey::derive(&[&digest, &occurrence.to_le_bytes()]);
            if !self.tasks.contains_key(&key) {
                return key;
            }
        }
    }

    /// Takes in a new task and pays for it. The oldest tasks give way when there are too many; gives how many of those
    /// were still running.
    pub(super) fn insert(&mut self, key: TaskKey, task: Task, now: Timestamp) -> usize {
        self.balance -= task.price;
        self.watch_end(key, &task);
        self.bytes += task.input.len();
        self.running += 1;
        self.ids.extend((0..).zip(&task.ids).map(|(position, id)| (id.clone(), (key, position))));
        self.tasks.insert(key, Arc::new(task));
        self.order.push_back(key);
        let mut forgotten = 0;
        while self.order.len() > MOST_TASKS || self.bytes > MOST_BYTES && self.order.len() > 1 {
            let oldest = self.order.pop_front().and_then(|oldest| self.forget(oldest));
            self.bytes -= oldest.as_ref().map_or(0, |task| task.input.len());
            forgotten +=
                usize::from(oldest.is_some_and(|task| matches!(task.plan.state_at(now), State::Running(_))));
        }
        self.running -= forgotten;
        forgotten
    }

    fn forget(&mut self, key: TaskKey) -> Option<Arc<Task>> {
        let task = self.tasks.remove(&key)?;
        self.fetched.remove(&key);
        for id in &task.ids {
            self.ids.remove(id);
        }
        if let Some(parent) = task.parent {
            self.once.remove(&(parent, task.operation, task.model, task.chosen));
        }
        Some(task)
    }

    /// The task that has drawn `id`, and which of its ids that is.
    pub(super) fn drawn(&self, id: &str) -> Option<(TaskKey, u8)> {
        self.ids.get(id).copied()
    }

    /// Notes that the task at `key` is the only one of its kind made of its parent.
    pub(super) fn note_once(&mut self, key: TaskKey) {
        if let Some(task) = self.tasks.get(&key)
            && let Some(parent) = task.parent
        {
            self.once.insert((parent, task.operation, task.model, task.chosen), key);
        }
    }

    /// What `operation` and `model` have made of an id of the task at `parent`, if they make only one and have not failed.
    pub(super) fn made_once(
        &self,
        parent: TaskKey,
        operation: OperationIx,
        model: Option<ModelIx>,
        chosen: u8,
    ) -> Option<TaskKey> {
        let made = self.once.get(&(parent, operation, model, chosen)).copied()?;
        self.tasks.get(&made).filter(|task| task.worth == Worth::Result).map(|_| made)
    }

    /// Puts a revised plan in the place of a task's old one.
    pub(super) fn replace(&mut self, key: TaskKey, task: Task) {
        self.watch_end(key, &task);
        self.tasks.insert(key, Arc::new(task));
    }

    fn watch_end(&mut self, key: TaskKey, task: &Task) {
        self.ends.extend(task.plan.ends().map(|end| Reverse((end, key))));
    }

    /// Notes every task that has ended by `now`: a failed one gives its credits back. Uploads whose time is over go.
    pub(super) fn settle(&mut self, now: Timestamp) -> Vec<Finished> {
        self.shelf.expire(now);
        let mut finished = Vec::new();
        while let Some(Reverse((at, key))) = self.ends.peek().copied().filter(|Reverse((at, _))| *at <= now) {
            self.ends.pop();
            // A plan that was revised since has an entry of its own.
            let Some(task) = self.tasks.get(&key).filter(|task| task.plan.ends() == Some(at)) else {
                continue;
            };
            self.running -= 1;
            if task.worth == Worth::Nothing {
                self.balance += task.price;
            }
            finished.push(Finished { at, key, task: Arc::clone(task) });
        }
        finished
    }

    /// The balance; call [`World::settle`] first.
    pub(super) fn balance(&self) -> Credits {
        self.balance
    }

    /// Takes `price` off the balance, if it covers that.
    pub(super) fn pay(&mut self, price: Credits) -> bool {
        let covered = self.balance >= price;
        if covered {
            self.balance -= price;
        }
        covered
    }

    pub(super) fn set_balance(&mut self, credits: Credits) {
        self.balance = credits;
    }

    /// When the next task ends or the next callback is due.
    pub(super) fn next_event(&self) -> Option<Timestamp> {
        let end = self.ends.peek().map(|Reverse((at, _))| *at);
        let due = self.due.peek().map(|Reverse(due)| due.at);
        end.into_iter().chain(due).min()
    }

    /// When the world has to be looked at, though nobody asks: the next event, or the end of an upload.
    pub(super) fn next_look(&self) -> Option<Timestamp> {
        self.next_event().into_iter().chain(self.shelf.next_leaves()).min()
    }

    /// The task at `key` with the two that it goes on from: bodies look no further back, and a chain may be long.
    pub(super) fn lineage(&self, key: TaskKey) -> Option<Lineage> {
        self.lineage_to(key, 2)
    }

    fn lineage_to(&self, key: TaskKey, generations: usize) -> Option<Lineage> {
        let task = Arc::clone(self.tasks.get(&key)?);
        let parent = task.parent.filter(|_| generations > 0);
        let parent = parent.and_then(|parent| self.lineage_to(parent, generations - 1)).map(Box::new);
        Some(Lineage { key, task, parent })
    }

    /// All tasks, oldest first.
    pub(super) fn in_order(&self) -> impl Iterator<Item = (TaskKey, &Arc<Task>)> {
        self.order.iter().filter_map(|key| self.tasks.get(key).map(|task| (*key, task)))
    }

    /// Whether another create exceeds `most` in the span before `now`; if not, it is counted.
    pub(super) fn exceeds_quota(&mut self, most: usize, span: std::time::Duration, now: Timestamp) -> bool {
        while self.recent_creates.front().is_some_and(|at| now.saturating_since(*at) >= span) {
            self.recent_creates.pop_front();
        }
        if self.recent_creates.len() >= most {
            return true;
        }
        self.recent_creates.push_back(now);
        false
    }
}

#[cfg(test)]
mod tests {
    use super::super::task::fingerprint;
    use super::*;

    #[test]
    fn an_id_depends_on_the_request_and_how_often_it_came() {
        let sandbox = SandboxId::of("demo");
        let print = |request| fingerprint(&request, "/callBackUrl");
        let world =
            || World::new(Settings::default(), Credits::ZERO, VirtualClock::real(Timestamp::default()));
        let (mut one, mut two) = (world(), world());
        let cat = print(serde_json::json!({"prompt": "cat", "callBackUrl": "http://127.0.0.1:1/a"}));
        let dog = print(serde_json::json!({"prompt": "dog"}));
        let first = one.new_key(sandbox, "op", &cat);
        let second = one.new_key(sandbox, "op", &cat);
        assert_ne!(first, second);
        two.new_key(sandbox, "op", &dog);
        let cat = print(serde_json::json!({"callBackUrl": "http://127.0.0.1:2/b", "prompt": "cat"}));
        assert_eq!(two.new_key(sandbox, "op", &cat), first);
    }

    #[test]
    fn the_quota_is_an_exact_window() {
        let mut world =
            World::new(Settings::default(), Credits::ZERO, VirtualClock::real(Timestamp::default()));
        let span = std::time::Duration::from_secs(10);
        let mut exceeds = |millis| world.exceeds_quota(2, span, Timestamp::from_millis(millis));
        assert_eq!(
            [exceeds(0), exceeds(4000), exceeds(9999), exceeds(10_000), exceeds(10_001)],
            [false, false, true, false, true]
        );
    }
}
