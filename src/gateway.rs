//! The data plane: its routes, and the steps that a request of the API goes through.
//!
//! A step is a few lines of glue in `steps`, about a request of which `call` says what is known; verdicts come from the module
//! that owns them. What answers in the end is an [`Upstream`], and no step knows which one. The two ways that are longer have
//! files of their own: `create` for what costs money, `look` for questions that many ask; `reserve` counts what is paid for,
//! `chat` reads what a chat has cost. `member` and `account` hold what belongs to a tenant and to an upstream key; `relay`
//! takes callbacks in. `server` turns sockets into requests, for both planes; `tls` has their certificates.

mod account;
mod answer;
mod ask;
mod call;
mod chat;
mod create;
mod idempotency;
mod look;
mod member;
mod mishap;
mod patience;
mod relay;
mod reserve;
mod room;
mod server;
mod steps;
mod tls;
mod upgrade;

use std::collections::HashMap;
use std::ops::Deref;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock, Weak};
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use axum::response::Response;
use bytes::Bytes;
use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, Either, Ready};
use http::HeaderMap;
use serde_json::{Value, json};
use tokio::sync::Notify;
use tower::ServiceExt as _;

pub use account::{Account, Accounts};
pub use member::{Limits, Member};
pub use relay::RELAY;
pub use server::{Answer, Bounds, Peer, Plane, serve};
pub use tls::{Tls, TlsError};

use answer::Whole;
use call::Call;
use look::{Fetched, Question};
use steps::Dispatched;

use crate::background::PerLane;
use crate::cache::Cache;
use crate::catalogue::Catalogue;
use crate::clock::{Clock, Moment, Timestamp};
use crate::config::{self, IpNet, Mode};
use crate::error::ApiError;
use crate::ids::{Secret, interned};
use crate::openapi::Document;
use crate::proxy::{KeyIx, Retries, Upstream, World};
use crate::record::Recorder;
use crate::store::{CreateId, Owner, Store, StoreError, Task};
use crate::tasks::simulated::SimulatedEnds;
use crate::tasks::{Poller, Tracker, ownership};
use crate::telemetry::Metrics;
use crate::tenants::{Tenant, Tenants};

/// What a [`Gateway`] is built from.
pub struct Parts {
    /// The operations of the API.
    pub catalogue: Arc<Catalogue>,
    /// Real time.
    pub clock: Clock,
    /// Whether a key that belongs to no tenant is let through, for the upstream to judge: the open simulator.
    pub open: bool,
    /// What answers whoever has no mode of its own.
    pub mode: Mode,
    /// What answers.
    pub upstreams: Upstreams,
    /// The upstream keys.
    pub accounts: Accounts,
    /// Asks upstream again where that is safe.
    pub retries: Retries,
    /// Who is told.
    pub metrics: Arc<Metrics>,
    /// What must not be forgotten.
    pub store: Arc<dyn Store>,
    /// Follows tasks.
    pub tracker: Tracker,
    /// Writes down what the upstream calls back; absent: nobody does.
    pub recorder: Option<Arc<Recorder>>,
    /// Settles simulated tasks of tenants.
    pub simulated: Arc<SimulatedEnds>,
    /// How long answers are kept.
    pub freshness: config::Cache,
    /// Scheme and host under which the upstream reaches the relay; absent: it cannot.
    pub public_url: Option<String>,
    /// Whose `X-Forwarded-For` is believed.
    pub trusted_proxies: Vec<IpNet>,
    /// The largest JSON body, in bytes.
    pub largest_json: usize,
    /// The largest upload, in bytes.
    pub largest_upload: usize,
    /// How long a body may stop coming.
    pub body_timeout: Duration,
    /// Whether a path that is no operation goes upstream.
    pub forward_unknown: bool,
}

/// What answers, by what for.
#[derive(Clone, Default)]
pub struct Upstreams {
    /// The simulator, for whoever has mode mock.
    pub mock: Option<Arc<dyn Upstream>>,
    /// A recording, for whoever has mode replay.
    pub replay: Option<Arc<dyn Upstream>>,
    /// The real API.
    pub live: Option<Arc<dyn Upstream>>,
    /// What stands for the real API where a request names something that is not the tenant's: it knows no task but those
    /// that came of such requests, answers as the real one would, and costs nothing.
    pub nowhere: Option<Arc<dyn Upstream>>,
}

/// Which way a request goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Lane {
    /// To the simulator.
    Mock,
    /// To a recording.
    Replay,
    /// To the real API, with that key.
    Live(KeyIx),
    /// To nowhere: what it names does not exist for this tenant.
    Nowhere,
}

/// Which upstream keys may be used for a request, beside the one of its lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Keys {
    /// All of the tenant's.
    Any,
    /// None: it names something that only that key's account knows.
    Only,
}

impl Lane {
    fn key(&self) -> KeyIx {
        match self {
            Self::Live(key) => *key,
            Self::Mock | Self::Replay | Self::Nowhere => KeyIx::default(),
        }
    }
}

impl Upstreams {
    /// What answers on that way.
    fn of(&self, lane: &Lane) -> &dyn Upstream {
        let upstream = match lane {
            Lane::Mock => &self.mock,
            Lane::Replay => &self.replay,
            Lane::Live(_) => &self.live,
            Lane::Nowhere => &self.nowhere,
        };
        upstream.as_deref().expect("whoever goes a way has been let in because it is there")
    }
}

/// What the steps need to know: all lanes have the same, by a handle each, since each request holds it, and a count that all of
/// them change would travel between cores.
pub struct Gateway(Arc<Core>);

impl Deref for Gateway {
    type Target = Core;

    fn deref(&self) -> &Core {
        &self.0
    }
}

/// What all handles of a [`Gateway`] have in common.
pub struct Core {
    parts: Parts,
    /// Answers to questions, of live tenants.
    cache: Cache<Fetched>,
    document: Arc<Document>,
    /// Each lane has its own, limits aside: every request looks its tenant up.
    members: PerLane<RwLock<Arc<Members>>>,
    /// Held by whoever changes them.
    changing: Mutex<()>,
    /// By position: ids of operations, for labels.
    operation_ids: Vec<&'static str>,
    /// What waits for its turn takes some.
    room: room::Room,
    /// An idempotency key was answered, or is free again.
    claims_changed: Arc<Notify>,
    draining: AtomicBool,
    /// It is draining from now on.
    drained: Notify,
}

/// All tenants, by their keys and by their names.
#[derive(Default)]
struct Members {
    by_key: Tenants<Member>,
    by_name: HashMap<String, Arc<Member>>,
}

impl Gateway {
    /// Builds it, without tenants; starts nothing.
    pub fn new(parts: Parts) -> Self {
        let operation_ids = parts.catalogue.operations().map(|(_, operation)| interned(&operation.id));
        let core = Core {
            operation_ids: operation_ids.collect(),
            document: Arc::new(Document::new(Arc::clone(&parts.catalogue))),
            members: PerLane::new(RwLock::default),
            changing: Mutex::default(),
            room: room::Room::default(),
            claims_changed: Arc::default(),
            draining: AtomicBool::new(false),
            drained: Notify::new(),
            cache: Cache::new(parts.freshness.max_bytes),
            parts,
        };
        Self(Arc::new(core))
    }

    /// Another handle.
    fn apart(&self) -> Self {
        Self(Arc::clone(&self.0))
    }

    /// The description of the API that stands behind it.
    pub fn document(&self) -> Arc<Document> {
        Arc::clone(&self.document)
    }

    /// The tenant of that name, as of now.
    pub fn member(&self, name: &str) -> Option<Arc<Member>> {
        self.members().by_name.get(name).cloned()
    }

    /// The upstream keys.
    pub fn accounts(&self) -> &Accounts {
        &self.parts.accounts
    }

    /// The tenant with that key. Nothing is cloned but what is found: all threads come by here.
    fn member_with(&self, key: &Secret, now: Timestamp) -> Option<Arc<Member>> {
        let members = self.members.here().read().unwrap_or_else(PoisonError::into_inner);
        members.by_key.authenticate(key, now)
    }

    fn members(&self) -> Arc<Members> {
        Arc::clone(&self.members.here().read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Lets these tenants in from now on. What they have used up of limits that stay as they were stays used up.
    pub fn set_tenants(&self, tenants: &[config::Tenant]) {
        // One after the other, or lanes might end up with different ones.
        let _alone = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let before = self.members();
        let limits = |tenant: &config::Tenant| {
            let before = before.by_name.get(tenant.id.as_str()).map(|member| &*member.limits);
            Arc::new(Limits::new(&tenant.limits, before, self.parts.clock))
        };
        // All lanes share the limits.
        let limits: HashMap<&str, Arc<Limits>> =
            tenants.iter().map(|tenant| (tenant.id.as_str(), limits(tenant))).collect();
        for here in self.members.iter() {
            let mut by_name = HashMap::new();
            let by_key = Tenants::from_config(tenants, |tenant| {
                let limits = Arc::clone(&limits[tenant.id.as_str()]);
                let member = Arc::new(self.make_member(tenant, limits));
                by_name.insert(tenant.id.as_str().to_owned(), Arc::clone(&member));
                member
            });
            let members = Arc::new(Members { by_key, by_name });
            *here.write().unwrap_or_else(PoisonError::into_inner) = members;
        }
    }

    fn make_member(&self, tenant: &config::Tenant, limits: Arc<Limits>) -> Member {
        let all = || self.parts.accounts.iter().map(|account| account.key).collect();
        let named = |names: &Vec<String>| {
            names.iter().filter_map(|name| Some(self.parts.accounts.by_name(name)?.key)).collect()
        };
        let known = Tenant::new(tenant);
        Member {
            permitted: self.operation_ids.iter().map(|operation| known.may_call(operation)).collect(),
            tenant: known,
            label: tenant.id.as_str().into(),
            mode: tenant.mode.unwrap_or(self.parts.mode),
            limits,
            keys: tenant.upstream_keys.as_ref().map_or_else(all, named),
            weight: tenant.weight,
            callbacks: tenant.callbacks.clone(),
        }
    }

    /// Whether there is what answers in that mode.
    pub fn serves(&self, mode: Mode) -> bool {
        let Upstreams { mock, replay, live, .. } = &self.parts.upstreams;
        match mode {
            Mode::Mock => mock.is_some(),
            Mode::Replay => replay.is_some(),
            Mode::Live => live.is_some(),
            Mode::Record => live.is_some() && self.parts.recorder.is_some(),
        }
    }

    /// Takes nothing new in from now on. Whoever waits for news is answered with what is known.
    pub fn drain(&self) {
        self.draining.store(true, Ordering::SeqCst);
        self.drained.notify_waiters();
    }

    /// Whether nothing new is taken in.
    fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }

    /// Waits until nothing new is taken in any more.
    async fn drain_begins(&self) {
        // Told from here on, whoever looks later.
        let told = self.drained.notified();
        if !self.draining.load(Ordering::SeqCst) {
            told.await;
        }
    }

    /// How each upstream key does: what is left of its quota, who waits for it, whether it rests.
    pub fn upstream_status(&self) -> Value {
        let key = |account: &Arc<Account>| {
            let status = account.quota.status();
            json!({
                "name": &*account.name,
                "creates": {"available": status.available, "limit": status.limit, "configured": status.configured},
                "waiting": status.waiting,
                "tasks": status.tasks,
                "blocked_seconds": status.blocked_for.as_secs_f64(),
                "resting": account.rests(),
            })
        };
        self.parts.accounts.iter().map(key).collect()
    }

    /// Tells `metrics` of what changes without anything happening.
    pub fn tell(&self, metrics: &Metrics) {
        for account in self.parts.accounts.iter() {
            metrics.quota(&account.name, &account.quota.status());
        }
        metrics.cache_bytes(self.cache.bytes());
        let now = self.parts.clock.now();
        for member in self.members().by_name.values() {
            // A store that has to be asked over the network has told of its own by then.
            let moment = if member.mode.has_sandbox() { Moment::Simulated(now) } else { Moment::Real(now) };
            let Some(Ok(spent)) = self.parts.store.spent(&member.tenant.id, moment).now_or_never() else {
                continue;
            };
            for (window, most) in member.limits.credits() {
                metrics.budget_remaining(&member.label, window.name(), most - spent[window.position()]);
            }
        }
    }

    /// Where whatever answers on that way is to call back about that create; `None` if it cannot.
    fn relay_url(&self, create: CreateId, lane: Lane) -> Option<String> {
        // Nowhere is in this process and needs no way to it.
        let nowhere = (lane == Lane::Nowhere).then_some("https://nowhere.invalid");
        let base = nowhere.or(self.parts.public_url.as_deref())?;
        Some(format!("{}{RELAY}{create}", base.trim_end_matches('/')))
    }

    /// Tells the metrics of a task that the upstream has taken.
    fn tell_created(&self, task: &Task) {
        let model = task.model.as_deref().unwrap_or("other");
        self.parts.metrics.task_created(task.tenant.as_str(), &task.operation, model, task.reserved);
    }

    /// The name of the upstream key on that way.
    fn key_name(&self, lane: Lane) -> Option<Arc<str>> {
        let Lane::Live(key) = lane else { return None };
        self.parts.accounts.get(key).map(|account| Arc::clone(&account.name))
    }

    /// Remembers that what an answer to the tenant gives out is the tenant's: ids and addresses.
    async fn learn(
        &self,
        member: &Member,
        lane: Lane,
        asked: &[u8],
        answer: &Whole,
    ) -> Result<(), StoreError> {
        if lane == Lane::Mock {
            return Ok(());
        }
        let owner = Owner { tenant: member.tenant.id.clone(), key: self.key_name(lane) };
        let now = self.parts.clock.now();
        ownership::learn(&*self.parts.store, &owner, asked, &answer.json(), now).await
    }

    /// The time that a request of `member` with these headers is counted by.
    fn moment(&self, member: &Member, headers: &HeaderMap) -> Moment {
        let real = || Moment::Real(self.parts.clock.now());
        self.world(member.mode, headers, Some(&member.label))
            .map_or_else(real, |world| Moment::Simulated(world.now))
    }

    /// The world that it goes to, if that is not the real one.
    fn world(&self, mode: Mode, headers: &HeaderMap, tenant: Option<&Arc<str>>) -> Option<World> {
        let Upstreams { mock, replay, live, .. } = &self.parts.upstreams;
        let upstream = match mode {
            Mode::Mock => mock,
            Mode::Replay => replay,
            Mode::Live | Mode::Record => live,
        };
        upstream.as_ref()?.world(headers, tenant)
    }

    /// The way that a task of that upstream key goes.
    fn lane_of(&self, key: Option<&str>) -> Lane {
        let account = key.and_then(|key| self.parts.accounts.by_name(key));
        account.map_or(Lane::Nowhere, |account| Lane::Live(account.key))
    }
}

/// Asks for tasks of which nothing is heard, through the cache, so that whoever polls at the same time shares it.
struct OwnQuestions(Weak<Gateway>);

impl Poller for OwnQuestions {
    fn poll(&self, task: Arc<Task>) -> BoxFuture<'static, ()> {
        let gateway = self.0.upgrade();
        async move {
            let Some(gateway) = gateway else { return };
            let Some((question, head)) = Question::own(&gateway, task) else { return };
            let key = question.key().clone();
            // What somebody asked before may be older than the reason to ask.
            gateway.cache.ask(&key, false, || Arc::new(question).fetch(head)).await;
        }
        .boxed()
    }

    fn ask(&self, task: Arc<Task>, id: Arc<str>) -> BoxFuture<'static, Option<Bytes>> {
        let gateway = self.0.upgrade();
        async move {
            let gateway = gateway?;
            let named = Arc::new(Task { id: Some(id), ..Task::clone(&task) });
            let (question, head) = Question::own(&gateway, named)?;
            Some(question.answer(head).await.0.ok()?.body)
        }
        .boxed()
    }

    fn ask_version(&self, task: Arc<Task>) -> BoxFuture<'static, Option<Bytes>> {
        let gateway = self.0.upgrade();
        async move {
            let gateway = gateway?;
            let (question, head) = Question::version(&gateway, &task)?;
            Some(question.answer(head).await.0.ok()?.body)
        }
        .boxed()
    }

    fn known(&self, task: Arc<Task>, answer: Option<Bytes>) {
        let Some(gateway) = self.0.upgrade() else { return };
        let Some((question, _)) = Question::own(&gateway, task) else { return };
        question.told(answer);
    }
}

/// The data plane as a whole: the API, and beside it what is kiegate's own. Clones share it. Each lane has one of its own.
#[derive(Clone)]
pub struct DataPlane(Arc<PerLane<Arc<Both>>>);

/// Its count alone is on its lines of a core's cache.
#[repr(align(128))]
struct Both {
    gateway: Arc<Gateway>,
    own: Option<Router>,
}

impl DataPlane {
    /// `own` are the simulator's routes below `/_…`; without them such paths are answered as not there, and never
    /// forwarded.
    pub fn new(gateway: Arc<Gateway>, own: Option<Router>) -> Self {
        if gateway.parts.upstreams.live.is_some() {
            gateway.parts.tracker.start(Arc::new(OwnQuestions(Arc::downgrade(&gateway))));
        }
        let apart = gateway.apart();
        // One is the handle that others know.
        let mut given = Some(gateway);
        let both = move || {
            let gateway = given.take().unwrap_or_else(|| Arc::new(apart.apart()));
            Arc::new(Both { gateway, own: own.clone() })
        };
        Self(Arc::new(PerLane::new(both)))
    }

    /// Answers a request of nobody knows where from.
    pub fn answer(&self, request: Request) -> Answering {
        self.answer_from(None, request)
    }

    /// Answers a request that came from there. As far as nothing has to be waited for, that is done at once.
    pub fn answer_from(&self, peer: Option<Peer>, request: Request) -> Answering {
        Arc::clone(self.0.here()).answer(peer, request)
    }
}

/// An answer, or what becomes one.
pub type Answering = Either<Ready<Response>, BoxFuture<'static, Response>>;

/// A request on its way. What becomes of it is told once, even if its client does not wait for it.
struct Underway(Option<(Arc<Both>, Arc<Call>, String)>);

impl Underway {
    /// Makes the answer of what came out of it.
    fn end(mut self, answered: Result<Response, ApiError>) -> Response {
        let (plane, call, line) = self.0.take().expect("it ends once");
        let response = answered.unwrap_or_else(|error| steps::refuse(&plane.gateway, &call, error));
        steps::record(plane, call, line, response) // sees everything, refusals too: one line, one sample
    }
}

impl Drop for Underway {
    fn drop(&mut self) {
        if let Some((plane, call, line)) = self.0.take() {
            steps::record_unanswered(&plane, &call, &line);
        }
    }
}

impl Both {
    fn answer(self: Arc<Self>, peer: Option<Peer>, mut request: Request) -> Answering {
        let call = Arc::new(steps::identify(&self.gateway, peer, &request)); // request id and operation, which all others speak of
        let line = steps::line(&request); // before the request goes its way
        let underway = Underway(Some((Arc::clone(&self), Arc::clone(&call), line)));
        if steps::is_own(&request) {
            // Seldom, and large.
            let answered = async move {
                let answered = self.answer_own(&call, request).await;
                underway.end(answered)
            };
            return Either::Right(answered.then(mishap::befall).boxed());
        }
        if steps::is_document(&request) {
            return mishap::befall(underway.end(self.answer_document(&call, request)));
        }
        if let Err(refusal) = self.enter(&call, &mut request) {
            return mishap::befall(underway.end(Err(refusal)));
        }
        match steps::dispatch(&self.gateway, &call, request) {
            Dispatched::Now(answered) => mishap::befall(underway.end(answered)),
            Dispatched::Later(answering) => {
                let end = move |answered| mishap::befall(underway.end(answered));
                Either::Right(answering.then(end).boxed())
            }
        }
    }

    /// Lets a request of the API in, or does not, before anything of its body is read. A new concern is a new line.
    fn enter(&self, call: &Call, request: &mut Request) -> Result<(), ApiError> {
        steps::authenticate(&self.gateway, call, request)?; // key to tenant, or 401
        steps::permit(&self.gateway, call, request)?; // what the tenant may do at all, and from where
        steps::admit(&self.gateway, call) // how often: protects us, so before anything that costs
    }

    /// The path of a request for the description of the API: open where the API is, else for those who have a key.
    fn answer_document(&self, call: &Call, mut request: Request) -> Result<Response, ApiError> {
        steps::authenticate(&self.gateway, call, &mut request)?;
        steps::count(&self.gateway, call)?;
        Ok(self.gateway.document.answer(request.method(), request.headers()))
    }

    /// The path of a request for what is kiegate's own.
    async fn answer_own(&self, call: &Call, mut request: Request) -> Result<Response, ApiError> {
        let gateway = &*self.gateway;
        if relay::is_callback(&request) {
            return relay::receive(gateway, call, request).await;
        }
        steps::authenticate_own(gateway, call, &mut request)?;
        if relay::is_feed(&request) {
            steps::count(gateway, call)?;
            return Ok(relay::feed(gateway, call, request).await);
        }
        // Anybody can come here, so nothing is read before it is known that there is somebody to read it.
        if let Some(refusal) = steps::without_sandbox(call, request.uri()) {
            return Ok(refusal);
        }
        let Some(own) = self.own.clone() else { return Ok(steps::not_here(gateway, request.uri())) };
        let request = steps::bound_body(gateway, call, request).await?;
        Ok(own.oneshot(request).await.unwrap_or_else(|never| match never {}))
    }
}
