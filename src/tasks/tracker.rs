//! How far every task under way is: learned from whatever passes by, asked for where nothing does.
//!
//! Details that tenants poll, callbacks that come in and polls of its own all end here, in [`Tracker::seen`] and
//! [`Tracker::called_back`]. The end of a task settles what it cost, makes room for the next one and is told to the
//! tenant; each of these once, whoever brings the news first. How a task is asked for, [`Poller`] knows; how a tenant
//! is told, `delivery` does.

mod version;

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::HeaderMap;
use serde_json::Value;
use tokio::sync::{Notify, Semaphore};

use super::delivery::{Deliveries, Delivery, Stage};
use super::pace::{Pace, Paces};
use crate::catalogue::{Catalogue, EndedAs, Known, ModelIx, OperationIx};
use crate::clock::{Clock, Timestamp};
use crate::ids::{Credits, Secret, TenantId};
use crate::limits::TaskSlot;
use crate::store::{CreateId, Happening, Owner, Store, StoreError, Task, TaskState};
use crate::telemetry::{Metrics, TaskEnded};
use crate::{background, wire};

/// Asks the upstream for the details of a task and gives the answer to [`Tracker::seen`].
pub trait Poller: Send + Sync + 'static {
    /// Asks once. Whatever goes wrong is no news.
    fn poll(&self, task: Arc<Task>) -> BoxFuture<'static, ()>;
    /// What the upstream tells of the task that it calls `id`, which may not be that of the create `task`, nor its tenant's:
    /// nobody else hears it. `None` if it gives no answer.
    fn ask(&self, task: Arc<Task>, id: Arc<str>) -> BoxFuture<'static, Option<Bytes>>;
    /// What the upstream answers to whoever asks again for the version of a result that `task` is. `None` if it gives no answer.
    fn ask_version(&self, task: Arc<Task>) -> BoxFuture<'static, Option<Bytes>>;
    /// `answer` is what the upstream would answer now, and from now on: nobody has to ask. Without one, what has been answered or
    /// is just being asked for may be older than what is known: whoever asks from now on asks anew.
    fn known(&self, task: Arc<Task>, answer: Option<Bytes>);
}

/// What a [`Tracker`] is built from.
pub struct Parts {
    /// What records and callbacks look like.
    pub catalogue: Arc<Catalogue>,
    /// Real time.
    pub clock: Clock,
    /// Who is told.
    pub metrics: Arc<Metrics>,
    /// Where tasks are kept.
    pub store: Arc<dyn Store>,
    /// What delivers callbacks.
    pub deliveries: Deliveries,
    /// By name of the upstream key: what its callbacks are signed with.
    pub webhook_secrets: HashMap<Arc<str>, Secret>,
    /// Whether the upstream can call back.
    pub can_be_called: bool,
}

/// Follows the tasks under way. Clones share it; with the last one its polling ends.
#[derive(Clone)]
pub struct Tracker(Arc<Shared>);

struct Shared {
    parts: Parts,
    poller: OnceLock<Arc<dyn Poller>>,
    watched: Mutex<Watched>,
    /// Something is due earlier than thought.
    changed: Notify,
}

/// The tasks under way that this process looks after.
#[derive(Default)]
struct Watched {
    tasks: HashMap<CreateId, Watch, ahash::RandomState>,
    due: BTreeSet<(Timestamp, CreateId)>,
    paces: Paces,
    /// Makes prints of records and states, of 64 bits and with a key of its own: two that differ have the same one so seldom
    /// that nobody will see it.
    prints: ahash::RandomState,
    /// Whose tasks were looked at out of turn, and when.
    hurried: HashMap<Whose, Timestamp>,
    /// By the ids of finished tasks: the versions that their records may show, and until when.
    replaced: HashMap<Arc<str>, HashMap<CreateId, Timestamp>>,
}

/// Tasks that take up room together.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Whose {
    /// Those of a tenant.
    Tenant(TenantId),
    /// Those that were made with an upstream key, by its name.
    Key(Arc<str>),
}

struct Watch {
    tenant: TenantId,
    /// The upstream key that it was made with.
    key: Option<Arc<str>>,
    /// When it was created, by the time that looks are due by.
    began: Timestamp,
    what: What,
    /// Its room among the upstream key's tasks, from the answer to its create until it ends.
    slot: Option<TaskSlot>,
    /// What callbacks that nobody vouches for said it is called, while that is not known.
    hints: Vec<Hint>,
    /// When it is asked for next.
    due: Timestamp,
    polls: u32,
    pace: Pace,
    /// The print of the state that was seen last; what came out of a task is learned when it changes.
    state: Option<u64>,
    /// The print of the latest record, where it says that the task still runs.
    record: Option<u64>,
    /// When it was last to be asked for because somebody called.
    woken: Option<Timestamp>,
    /// When it was looked at out of turn.
    hurried: Option<Timestamp>,
    /// It was looked at because nothing had been heard of it for long: an end that shows then has come before.
    is_late: bool,
    /// It has ended, and is settled.
    ended: bool,
    /// The tenant has been told of the end.
    told: bool,
    /// A callback that nobody vouches for, by which it has failed.
    failure: Option<(Stage, Bytes)>,
}

/// What is looked after.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum What {
    /// A task, which takes up room until it ends.
    Task,
    /// Another version of a result, which takes up none.
    Version,
}

impl Watch {
    fn is_of(&self, whose: &Whose) -> bool {
        match whose {
            Whose::Tenant(tenant) => self.tenant == *tenant,
            Whose::Key(key) => self.key.as_ref() == Some(key),
        }
    }
}

/// A name that a create's task may have.
struct Hint {
    id: Arc<str>,
    /// How often the upstream has been asked about it.
    asked: u32,
}

/// What a record says of its task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Another one for each state.
    pub state: u64,
    /// Whether it is the last one.
    pub ended: bool,
}

/// What came of a callback.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Received {
    /// It is passed on.
    Accepted,
    /// It was there already.
    Duplicate,
    /// Nobody vouches for it: the task is asked for instead.
    Woken,
    /// No create has that name.
    Unknown,
    /// Its signature is wrong, or missing.
    BadSignature,
    /// It is about another task than the address it came to.
    OtherTask,
    /// It is no callback.
    Malformed,
}

impl Received {
    /// As metrics call it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::Duplicate => "duplicate",
            Self::Woken => "woken",
            Self::Unknown => "unknown",
            Self::BadSignature => "bad_signature",
            Self::OtherTask => "other_task",
            Self::Malformed => "malformed",
        }
    }
}

/// So many names are heard for one create, and so often the upstream is asked about each.
const HINTS: usize = 4;
const ASKED: u32 = 4;
/// So many polls at once.
const POLLS_AT_ONCE: usize = 4;
/// How long tasks take of which the catalogue does not say it: those of new models.
const UNKNOWN: Duration = Duration::from_mins(1);
/// Calls that nobody vouches for make a task be asked for so often, at most.
const WAKES: Duration = Duration::from_secs(2);
/// Some tasks of a tenant or a key are looked at out of turn so often, at most, and so many of them.
pub const HURRY: Duration = Duration::from_secs(5);
const HURRIED: usize = 8;
/// A task that nothing has been heard of for so long has no end any more.
const GIVEN_UP: Duration = Duration::from_hours(24);
/// A create whose answer was lost stops counting as under way after so long, if nothing is heard of it.
const LOST: Duration = Duration::from_hours(1);

impl Tracker {
    /// Follows nothing yet.
    pub fn new(parts: Parts) -> Self {
        Self(Arc::new(Shared {
            parts,
            poller: OnceLock::new(),
            watched: Mutex::default(),
            changed: Notify::new(),
        }))
    }

    /// Begins to ask for tasks of which nothing is heard. Called once, when there is somebody to ask.
    pub fn start(&self, poller: Arc<dyn Poller>) {
        if self.0.poller.set(poller).is_ok() {
            background::spawn(drive(Arc::downgrade(&self.0)));
        }
    }

    /// Looks after a task from now on: from before its create is sent, since a callback may come before the answer.
    pub fn watch(&self, task: &Task) {
        let now = self.0.now();
        let age = self.0.parts.clock.now().saturating_since(task.created);
        let wanted = task.callback.is_some();
        let mut watched = self.0.watched();
        if watched.tasks.contains_key(&task.create) {
            return;
        }
        let usual = watched.paces.usual(task, || self.0.expected(task));
        // Where nobody calls us, whoever wants to be called back waits for our own look.
        let pace =
            if wanted && !self.0.parts.can_be_called { Pace::bridge(usual) } else { Pace::overdue(usual) };
        let due = now - age.min(GIVEN_UP) + pace.first();
        let watch = Watch {
            tenant: task.tenant.clone(),
            key: task.key.clone(),
            began: now - age,
            what: if task.base.is_some() { What::Version } else { What::Task },
            slot: None,
            hints: Vec::new(),
            due,
            polls: 0,
            pace,
            state: None,
            record: None,
            woken: None,
            hurried: None,
            is_late: false,
            ended: false,
            told: false,
            failure: None,
        };
        watched.tasks.insert(task.create, watch);
        watched.due.insert((due, task.create));
        drop(watched);
        self.0.changed.notify_one();
    }

    /// It matters how many of these tasks are under way: some may have ended, of which nothing has been heard yet. A few are
    /// looked at, out of turn: those that were not for longest.
    pub fn hurry(&self, whose: &Whose) {
        for create in self.0.take_hurried(whose) {
            let shared = Arc::clone(&self.0);
            background::spawn(async move { shared.look(create).await });
        }
    }

    /// The create was answered: its task has a name, and takes up `slot`, its room among the upstream key's tasks, unless
    /// it has ended meanwhile.
    pub fn started(&self, create: CreateId, slot: Option<TaskSlot>) {
        let mut was_called = false;
        self.0.note(create, |watch| {
            was_called = !watch.hints.is_empty();
            watch.hints.clear();
            watch.slot = slot.filter(|_| !watch.ended);
        });
        if was_called {
            self.wake(create);
        }
    }

    /// The create's answer was lost.
    pub fn lost(&self, task: &Task) {
        self.watch(task);
        let is_hinted = |watch: &Watch| !watch.hints.is_empty();
        if self.0.watched().tasks.get(&task.create).is_some_and(is_hinted) {
            self.wake(task.create);
        }
    }

    /// Nothing came of the create.
    pub fn forget(&self, create: CreateId) {
        self.0.forget(create);
    }

    /// A task that nobody looks after is over, and went well; `charged` is what it cost, if that was said.
    ///
    /// # Errors
    /// The store cannot be reached.
    pub async fn finish(
        &self,
        task: &Arc<Task>,
        charged: Option<Credits>,
        is_told: bool,
    ) -> Result<(), StoreError> {
        if is_told {
            let end = EndedAs { ending: "success".to_owned(), success: true };
            return self.0.end(task, &end, charged).await;
        }
        self.0.parts.store.ended(task.create, true, charged, self.0.parts.clock.now()).await.map(drop)
    }

    /// Asks for the task as soon as may be.
    pub fn wake(&self, create: CreateId) {
        let now = self.0.now();
        // Anybody who knows the address that a create calls back can say so, again and again.
        let mut due = now;
        self.0.note(create, |watch| {
            due = match watch.woken {
                // It is to be asked for already, and is not put off by those who say so again.
                Some(next) if next > now => next,
                Some(last) => now.max(last + WAKES),
                None => now,
            };
            watch.woken = Some(due);
        });
        self.0.put_off(create, due);
        self.0.changed.notify_one();
    }

    /// `answer` is what the upstream told of `task` when it was asked for details. Gives the state, and whether it is
    /// the last one; `None` if the answer is no record.
    ///
    /// # Errors
    /// The store cannot be reached.
    pub async fn seen(&self, task: &Arc<Task>, answer: &[u8]) -> Result<Option<Seen>, StoreError> {
        let shared = &self.0;
        let print = match shared.state_by(task.create, answer) {
            // Most looks at a task bring what the one before brought.
            Ok(state) => return Ok(Some(Seen { state, ended: false })),
            Err(print) => print,
        };
        let answer = &serde_json::from_slice(answer).unwrap_or_default();
        let Some((operation, model)) = shared.kind(task) else { return Ok(None) };
        let catalogue = &shared.parts.catalogue;
        let Some(progress) = catalogue.progress(operation, model, answer) else { return Ok(None) };
        let ended = progress.ended.is_some();
        let (state, is_news) = shared.note_state(task.create, &progress.state);
        if is_news {
            shared.learn(task, answer).await?;
        }
        if (is_news || (ended && shared.is_untold(task.create))) && !shared.is_called_about(task) {
            self.tell_by_record(task, operation, model, answer).await?;
        }
        if let Some(end) = &progress.ended {
            shared.end(task, end, catalogue.charged(answer)).await?;
        }
        shared.note(task.create, |watch| {
            watch.record = print.filter(|_| !ended);
            watch.is_late &= ended;
        });
        Ok(Some(Seen { state, ended }))
    }

    /// Builds the callbacks that are due by that record, where the upstream does not send them.
    async fn tell_by_record(
        &self,
        task: &Arc<Task>,
        operation: OperationIx,
        model: Option<ModelIx>,
        answer: &Value,
    ) -> Result<(), StoreError> {
        let Some(id) = task.id.as_deref() else { return Ok(()) };
        let request = asked(task);
        let known = self.0.known(task, (operation, model), &request, id);
        for (stage, body) in self.0.parts.catalogue.callbacks_from_record(known, answer) {
            self.0.tell(task, Stage::Known(stage), body.into()).await?;
        }
        let ended =
            self.0.parts.catalogue.progress(operation, model, answer).is_some_and(|now| now.ended.is_some());
        if ended {
            self.0.note(task.create, |watch| watch.told = true);
        }
        Ok(())
    }

    /// What the upstream answered to the create of `task`, as far as the catalogue knows; `None` if it is not known to have
    /// made one.
    pub fn answer_to_create(&self, task: &Task) -> Option<Bytes> {
        let (kind, request) = (self.0.kind(task)?, asked(task));
        let known = self.0.known(task, kind, &request, task.id.as_deref()?);
        self.0.parts.catalogue.answer_to_create(known).map(Bytes::from)
    }

    /// A callback came in for `create`; nothing of it is believed before its signature was checked.
    ///
    /// # Errors
    /// The store cannot be reached: the sender is to try again.
    pub async fn called_back(
        &self,
        create: CreateId,
        headers: &HeaderMap,
        body: &Bytes,
    ) -> Result<Received, StoreError> {
        let Some(task) = self.0.parts.store.by_create(create).await? else { return Ok(Received::Unknown) };
        let secret = task.key.as_ref().and_then(|key| self.0.parts.webhook_secrets.get(key));
        let vouched = match secret {
            Some(secret) => wire::signature_is_valid(secret.expose(), headers, body) == Some(true),
            None => false,
        };
        let received = if secret.is_some() && !vouched {
            Received::BadSignature
        } else {
            self.accept(&task, body, vouched).await?
        };
        self.0.parts.metrics.callback_received(task.tenant.as_str(), received.name());
        Ok(received)
    }

    /// Takes a callback of `task` in. One that nobody vouches for only wakes a look at the task. Where the task's name is not
    /// known yet, what such a callback calls it is a hint that the upstream is asked about: whoever knows the create's
    /// address could otherwise come to own any task.
    ///
    /// # Errors
    /// The store cannot be reached.
    pub async fn accept(
        &self,
        task: &Arc<Task>,
        body: &Bytes,
        vouched: bool,
    ) -> Result<Received, StoreError> {
        let shared = &self.0;
        let Ok(value) = serde_json::from_slice::<Value>(body) else { return Ok(Received::Malformed) };
        let Some(id) = wire::task_id(&value) else { return Ok(Received::Malformed) };
        let is_named = task.name().is_some_and(|name| **name == *id);
        if !vouched {
            if !is_named && task.name().is_some() {
                return Ok(Received::OtherTask);
            }
            if !is_named {
                shared.hint(task.create, id);
            } else if task.base.is_some() {
                shared.note_failure(task, &value, body);
            }
            self.wake(task.create);
            return Ok(Received::Woken);
        }
        if !is_named && (task.base.is_some() || !shared.parts.store.started(task.create, id).await?) {
            return Ok(Received::OtherTask);
        }
        // It may have got its name, or come to its end, in this very moment.
        let Some(task) = shared.parts.store.by_create(task.create).await? else {
            return Ok(Received::Unknown);
        };
        let Some((operation, model)) = shared.kind(&task) else { return Ok(Received::Malformed) };
        let stage = shared.parts.catalogue.stage(operation, model, &value);
        shared.learn(&task, &value).await?;
        let told = Stage::of(stage.is_known.then_some(stage.index), body);
        let is_new = shared.tell(&task, told, body.clone()).await?;
        if let Some(end) = &stage.ended {
            shared.note(task.create, |watch| watch.told = true);
            shared.end(&task, end, shared.parts.catalogue.charged(&value)).await?;
        }
        if let Some(base) = &task.base {
            shared.version_is_there(base, task.create).await?;
        } else if is_new || stage.ended.is_some() {
            shared.keep(&task, operation, model, &value);
        }
        Ok(if is_new { Received::Accepted } else { Received::Duplicate })
    }
}

impl Shared {
    fn watched(&self) -> MutexGuard<'_, Watched> {
        self.watched.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The operation and model of a task, as the catalogue knows them now.
    fn kind(&self, task: &Task) -> Option<(OperationIx, Option<ModelIx>)> {
        let catalogue = &self.parts.catalogue;
        let operation = catalogue.operation_by_id(&task.operation)?;
        let model = task.model.as_deref().and_then(|name| catalogue.model_by_name(operation, name));
        Some((operation, model))
    }

    /// What is known of a task of that kind, which was asked for by `request` and goes by the name `id`.
    fn known<'k>(
        &self,
        task: &Task,
        (operation, model): (OperationIx, Option<ModelIx>),
        request: &'k Value,
        id: &'k str,
    ) -> Known<'k> {
        Known { operation, model, request, id, created: task.created, now: self.parts.clock.now() }
    }

    /// How long the catalogue expects such a task to take.
    fn expected(&self, task: &Task) -> Duration {
        let usual = self
            .kind(task)
            .and_then(|(operation, model)| self.parts.catalogue.usual_duration(operation, model));
        usual.unwrap_or(UNKNOWN)
    }

    /// The print of a state, and whether it was not seen before; it is from now on.
    fn note_state(&self, create: CreateId, state: &str) -> (u64, bool) {
        let mut watched = self.watched();
        let print = watched.prints.hash_one(state);
        let watch = watched.tasks.get_mut(&create);
        (print, watch.is_some_and(|watch| watch.state.replace(print) != Some(print)))
    }

    /// The print of the state of a task that still runs, if `record` is the one that said so the last time; else the print of
    /// the record, of a task that is followed.
    fn state_by(&self, create: CreateId, record: &[u8]) -> Result<u64, Option<u64>> {
        let mut watched = self.watched();
        let print = watched.prints.hash_one(record);
        let watch = watched.tasks.get_mut(&create).ok_or(None)?;
        let state = watch.state.filter(|_| watch.record == Some(print)).ok_or(Some(print))?;
        watch.is_late = false;
        Ok(state)
    }

    /// Whether the end of a task is known here, and not to its tenant.
    fn is_untold(&self, create: CreateId) -> bool {
        self.watched().tasks.get(&create).is_some_and(|watch| !watch.told)
    }

    /// Whether the upstream itself may still call back about a task, in a way that can be believed.
    fn is_called_about(&self, task: &Task) -> bool {
        let is_signed = task.key.as_ref().is_some_and(|key| self.parts.webhook_secrets.contains_key(key));
        if task.callback.is_none() || !self.parts.can_be_called || (task.key.is_some() && !is_signed) {
            return false;
        }
        let mut watched = self.watched();
        let usual = watched.paces.usual(task, || self.expected(task));
        self.parts.clock.now().saturating_since(task.created) < Pace::overdue(usual).first()
    }

    /// Changes what is noted of a task; one that has ended and is told of needs no looking after any more.
    fn note(&self, create: CreateId, change: impl FnOnce(&mut Watch)) {
        let mut watched = self.watched();
        let Some(watch) = watched.tasks.get_mut(&create) else { return };
        change(watch);
        if watch.ended && watch.told {
            let due = (watch.due, create);
            watched.tasks.remove(&create);
            watched.due.remove(&due);
        }
    }

    /// Lets polls be answered by a callback, where it says all that they would, and else anew.
    fn keep(&self, task: &Arc<Task>, operation: OperationIx, model: Option<ModelIx>, callback: &Value) {
        let (Some(poller), Some(id)) = (self.poller.get(), task.id.as_deref()) else { return };
        let request = asked(task);
        let known = self.known(task, (operation, model), &request, id);
        let answer = self.parts.catalogue.record_from_callback(known, callback);
        poller.known(Arc::clone(task), answer.map(Bytes::from));
    }

    /// What is kept of the details of the task `id` is not true any more.
    async fn ask_anew(&self, id: &str) -> Result<(), StoreError> {
        if let (Some(poller), Some(task)) = (self.poller.get(), self.parts.store.by_id(id).await?) {
            poller.known(task, None);
        }
        Ok(())
    }

    /// Remembers whose the ids and addresses are that came out of a task.
    async fn learn(&self, task: &Task, body: &Value) -> Result<(), StoreError> {
        let owner = Owner { tenant: task.tenant.clone(), key: task.key.clone() };
        super::ownership::learn(&*self.parts.store, &owner, &task.request, body, self.parts.clock.now()).await
    }

    /// Passes a stage on to the tenant, the first time; says whether it was.
    async fn tell(&self, task: &Task, stage: Stage, body: Bytes) -> Result<bool, StoreError> {
        let Some(id) = task.name().cloned() else { return Ok(false) };
        let is_new = self.parts.deliveries.add(Delivery {
            create: task.create,
            tenant: task.tenant.clone(),
            task_id: Arc::clone(&id),
            stage,
            url: task.callback.clone(),
            body: body.clone(),
        });
        if is_new {
            let (at, operation) = (self.parts.clock.now(), Arc::clone(&task.operation));
            let happening = Happening { cursor: 0, at, task_id: id, operation, body };
            self.parts.store.happened(&task.tenant, happening).await?;
        }
        Ok(is_new)
    }

    /// The task has ended: settles it, the first time.
    async fn end(&self, task: &Arc<Task>, end: &EndedAs, charged: Option<Credits>) -> Result<(), StoreError> {
        let now = self.parts.clock.now();
        let charged = if end.success { charged } else { Some(charged.unwrap_or_default()) };
        let ended = self.parts.store.ended(task.create, end.success, charged, now).await?;
        let mut is_timely = false;
        self.note(task.create, |watch| {
            watch.slot = None;
            watch.ended = true;
            // A version is settled when it begins, which says nothing of how long it takes.
            is_timely = watch.what == What::Task && !watch.is_late;
        });
        let Some(ended) = ended else { return Ok(()) };
        let took = now.saturating_since(ended.created);
        if end.success && is_timely {
            self.watched().paces.learn(&ended, took, || self.expected(&ended));
        }
        let TaskState::Ended { charged, .. } = ended.state else { return Ok(()) };
        self.parts.metrics.task_ended(&TaskEnded {
            tenant: ended.tenant.as_str(),
            operation: &ended.operation,
            model: ended.model.as_deref().unwrap_or("other"),
            outcome: if end.success { "success" } else { "fail" },
            took,
            reserved: ended.reserved,
            charged,
        });
        Ok(())
    }

    /// Notes what a task may be called.
    fn hint(&self, create: CreateId, id: &str) {
        self.note(create, |watch| {
            if watch.hints.len() < HINTS && watch.hints.iter().all(|hint| *hint.id != *id) {
                watch.hints.push(Hint { id: id.into(), asked: 0 });
            }
        });
    }

    /// The names to ask the upstream about: a few times each, since it may not answer.
    fn hints(&self, create: CreateId) -> Vec<Arc<str>> {
        let mut hints = Vec::new();
        self.note(create, |watch| {
            let asked = watch.hints.iter_mut().filter(|hint| hint.asked < ASKED);
            hints.extend(asked.map(|hint| {
                hint.asked += 1;
                Arc::clone(&hint.id)
            }));
        });
        hints
    }

    /// Asks whether one of the names that were heard for a lost create is that of its task: then the upstream's record shows
    /// the address that the create was to call back, which nobody else's does.
    async fn name(&self, task: &Arc<Task>, poller: &Arc<dyn Poller>) -> Result<(), StoreError> {
        let address = task.create.to_string();
        for id in self.hints(task.create) {
            let Some(answer) = poller.ask(Arc::clone(task), Arc::clone(&id)).await else { continue };
            let is_shown = answer.windows(address.len()).any(|part| part == address.as_bytes());
            if is_shown && self.parts.store.started(task.create, &id).await? {
                self.note(task.create, |watch| watch.hints.clear());
                break;
            }
        }
        Ok(())
    }

    /// Looks after a task no longer.
    fn forget(&self, create: CreateId) {
        self.note(create, |watch| (watch.ended, watch.told) = (true, true));
    }

    /// How old a task is, whatever becomes of the time of day.
    fn age(&self, task: &Task) -> Duration {
        let began = self.watched().tasks.get(&task.create).map(|watch| watch.began);
        began.map_or_else(
            || self.parts.clock.now().saturating_since(task.created),
            |began| self.now().saturating_since(began),
        )
    }

    /// The time that looks are due by.
    fn now(&self) -> Timestamp {
        self.parts.clock.steady().now()
    }

    /// Asks for the task at `due` and not before.
    fn put_off(&self, create: CreateId, due: Timestamp) {
        let mut watched = self.watched();
        let Some(watch) = watched.tasks.get_mut(&create) else { return };
        let before = std::mem::replace(&mut watch.due, due);
        watched.due.remove(&(before, create));
        watched.due.insert((due, create));
    }

    /// The tasks that are due, each put off to its next time; and when the next one is.
    fn take_due(&self, now: Timestamp) -> (Vec<CreateId>, Option<Timestamp>) {
        let mut watched = self.watched();
        let mut due = Vec::new();
        while let Some((at, create)) = watched.due.first().copied().filter(|(at, _)| *at <= now) {
            watched.due.remove(&(at, create));
            let Some(watch) = watched.tasks.get_mut(&create) else { continue };
            watch.polls += 1;
            watch.is_late |= watch.woken != Some(at) && !watch.pace.is_close();
            watch.due = now + watch.pace.after(watch.polls);
            let next = (watch.due, create);
            watched.due.insert(next);
            due.push(create);
        }
        (due, watched.due.first().map(|(at, _)| *at))
    }

    /// Those of the tasks that are looked at in a hurry; none too often.
    fn take_hurried(&self, whose: &Whose) -> Vec<CreateId> {
        let now = self.now();
        let mut watched = self.watched();
        let Watched { tasks, hurried, .. } = &mut *watched;
        if hurried.get(whose).is_some_and(|last| now.saturating_since(*last) < HURRY) {
            return Vec::new();
        }
        hurried.insert(whose.clone(), now);
        // One without a name can only be asked about by its hints, of which there are few.
        let is_meant = |watch: &Watch| {
            !watch.ended && watch.what == What::Task && watch.hints.is_empty() && watch.is_of(whose)
        };
        let mut meant: Vec<_> = tasks.iter_mut().filter(|(_, watch)| is_meant(watch)).collect();
        meant.sort_unstable_by_key(|(_, watch)| (watch.hurried, watch.due));
        let looked_at = meant.into_iter().take(HURRIED).map(|(create, watch)| {
            (watch.hurried, watch.is_late) = (Some(now), true);
            *create
        });
        looked_at.collect()
    }

    /// Looks at one task.
    async fn look(&self, create: CreateId) {
        if let Err(error) = self.try_look(create).await {
            tracing::warn!("a task cannot be looked at: {error}");
        }
    }

    async fn try_look(&self, create: CreateId) -> Result<(), StoreError> {
        let Some(mut task) = self.parts.store.by_create(create).await? else {
            self.forget(create);
            return Ok(());
        };
        let age = self.age(&task);
        // To ask for a version is to wish for it: one that nobody is known to make is not asked for.
        if task.base.is_some() && (!task.is_open() || (age < LOST && self.was_called(create))) {
            return self.look_at_version(&task, age).await;
        }
        let patience = if task.id.is_some() { GIVEN_UP } else { LOST };
        if age >= patience {
            let end = EndedAs { ending: "unknown".to_owned(), success: false };
            self.forget(create);
            // What it cost is not known: what was reserved stays spent.
            return self.end(&task, &end, Some(task.reserved)).await;
        }
        let Some(poller) = self.poller.get() else { return Ok(()) };
        if task.state == TaskState::Indeterminate && task.name().is_none() {
            self.name(&task, poller).await?;
            task = self.parts.store.by_create(create).await?.unwrap_or(task);
        }
        if task.id.is_some() {
            poller.poll(task).await;
        }
        Ok(())
    }
}

/// The request that a task was made by; null where it is not remembered any more.
fn asked(task: &Task) -> Value {
    serde_json::from_slice(&task.request).unwrap_or_default()
}

/// Asks for tasks when they are due, a few at once, until nobody follows them any more.
async fn drive(shared: Weak<Shared>) {
    let room = Arc::new(Semaphore::new(POLLS_AT_ONCE));
    loop {
        let Some(tracker) = shared.upgrade() else { return };
        let now = tracker.now();
        let (due, next) = tracker.take_due(now);
        for create in due {
            let Ok(permit) = Arc::clone(&room).acquire_owned().await else { return };
            let tracker = Arc::clone(&tracker);
            background::spawn(async move {
                tracker.look(create).await;
                drop(permit);
            });
        }
        // At least now and then, to see whether anybody is there.
        let pause = next.map_or(Duration::from_mins(1), |next| next.saturating_since(now));
        let pause = pause.clamp(Duration::from_millis(1), Duration::from_mins(1));
        let changed = tracker.changed.notified();
        tokio::pin!(changed);
        changed.as_mut().enable();
        let _ = tokio::time::timeout(pause, changed).await;
    }
}
