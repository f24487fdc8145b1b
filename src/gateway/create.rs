//! The way of a create: written down before it is paid for, sent once, in its turn, and never lost sight of.
//!
//! What is counted is held by a [`Draft`]; wherever the way ends before the upstream has the create, dropping it gives
//! everything back. Once the create is on the wire it goes on without its client: the answer is read, written down and
//! kept under its idempotency key whether or not somebody still waits for it.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::response::Response;
use bytes::Bytes;
use http::header::{CONTENT_LENGTH, HeaderName};
use http::request::Parts;
use http::{HeaderValue, StatusCode};
use serde_json::Value;
use tokio::time::{Instant, timeout};

use super::account::{self, Account, Granted, Waiter};
use super::answer::Whole;
use super::ask::Ask;
use super::call::Call;
use super::idempotency::Claimed;
use super::member::Member;
use super::steps;
use super::{Gateway, Keys, Lane, reserve};
use crate::background;
use crate::catalogue::{Operation, OperationIx};
use crate::error::{ApiError, Reason};
use crate::ids::{Credits, interned};
use crate::limits::{QuotaTimeout, Turn, Waiting};
use crate::outbound::guard::{self, Forbidden};
use crate::proxy::{About, KeyIx, Safe, UpstreamError};
use crate::store::{CreateId, Owner, Store, Task, TaskState};
use crate::tasks::{HURRY, Whose, body, ownership};
use crate::wire;

/// Names a create whose answer was lost.
const CREATE: HeaderName = HeaderName::from_static("x-kiegate-create");

/// A create that is counted. Dropped before it is sent, it was never there; dropped later, it is lost: the upstream may
/// have it.
pub(super) struct Draft {
    create: CreateId,
    store: Arc<dyn Store>,
    claimed: Option<Claimed>,
    /// What is sent, from when it may arrive until it is known that it did not.
    sent: Option<Sending>,
    /// Its fate is written down.
    settled: bool,
}

/// What is known of a create that is on the wire.
#[derive(Clone)]
struct Sending {
    gateway: Arc<Gateway>,
    call: Arc<Call>,
    task: Arc<Task>,
}

impl Drop for Draft {
    fn drop(&mut self) {
        if self.settled {
            return;
        }
        let (store, create) = (Arc::clone(&self.store), self.create);
        let (sent, claimed) = (self.sent.take(), self.claimed.take());
        background::spawn(async move {
            match sent {
                Some(sent) => sent.lost(claimed).await,
                None => settle(store.refused(create).await),
            }
        });
    }
}

impl Sending {
    /// Nobody knows what became of it: what is reserved stays so until somebody does, and the same request again is not
    /// sent again.
    async fn lost(self, claimed: Option<Claimed>) {
        settle(self.gateway.parts.store.lost(self.task.create).await);
        // It counts as one until it is known that it is none.
        self.gateway.tell_created(&self.task);
        if let Some(claimed) = claimed {
            let error = lost(self.task.create);
            claimed.keep(&steps::refusal(&self.gateway, &self.call, error).await).await;
        }
        self.gateway.parts.tracker.lost(&self.task);
    }
}

/// What one way upstream ended with, as far as the create is concerned.
enum Sent {
    /// There is an answer for the client; what it means is written down.
    Answered(Whole),
    /// The upstream has had too many creates: back into the queue.
    Throttled(Draft, Back),
    /// The upstream refuses the key.
    KeyRefused(Draft, Whole),
    /// Nothing arrived.
    Nowhere(UpstreamError),
    /// Nobody knows whether it arrived.
    Lost(CreateId),
}

/// A create that is to have another turn.
struct Back {
    /// How long it waited for the last one.
    waited: Duration,
    /// Where it waits.
    place: Result<Waiting, QuotaTimeout>,
}

/// A create as it goes upstream.
#[derive(Clone)]
pub(super) struct Errand {
    pub(super) gateway: Arc<Gateway>,
    pub(super) call: Arc<Call>,
    pub(super) parts: Box<Parts>,
    pub(super) body: Bytes,
    pub(super) task: Arc<Task>,
    pub(super) lane: Lane,
}

/// Answers a create of a tenant.
pub(super) async fn create(
    gateway: &Arc<Gateway>,
    call: &Arc<Call>,
    member: &Arc<Member>,
    ask: Ask,
    (lane, keys): (Lane, Keys),
    claimed: Option<Claimed>,
) -> Result<Response, ApiError> {
    let operation = gateway.parts.catalogue.operation(ask.index);
    let is_shared = lane != Lane::Mock;
    let callback = if is_shared {
        Callback::permitted(&ask, operation, member)?
    } else {
        Callback::find(&ask, operation).unwrap_or_default()
    };
    call.leave_place(); // in which its body arrived
    let _place = gateway.room.for_create(&member.label, ask.body.len())?;
    let task = Arc::new(intent(gateway, member, &ask, operation, callback.as_ref(), &lane));
    if task.reserved == Credits::ZERO && price(gateway, &ask, operation).is_none() {
        reserve::admit_unpriced(gateway, member, task.counts_at).await?;
    }
    let draft = reserve::create(gateway, call, member, &task, claimed).await?;
    let body = match &callback {
        Some(callback) if is_shared => {
            callback.readdressed(&ask, gateway.relay_url(task.create, lane).as_deref())
        }
        _ => ask.body.clone(),
    };
    let mut parts = ask.parts;
    parts.headers.remove(CONTENT_LENGTH);
    let errand = Errand { gateway: Arc::clone(gateway), call: Arc::clone(call), parts, body, task, lane };
    let sent = match errand.lane {
        Lane::Live(key) => {
            let keys = if keys == Keys::Any { member.keys.clone() } else { vec![key] };
            errand.in_turn(member, keys, draft).await?
        }
        Lane::Mock | Lane::Replay | Lane::Nowhere => errand.send(draft, None).await,
    };
    answer(sent)
}

/// What a create costs; `None` where nobody knows.
fn price(gateway: &Gateway, ask: &Ask, operation: &Operation) -> Option<Credits> {
    let catalogue = &gateway.parts.catalogue;
    let request = ask.request(operation);
    let named = operation.model_of(request);
    let model = named.and_then(|name| catalogue.model_meant_by(ask.index, name));
    catalogue.price_of(ask.index, model, &operation.completed(request))
}

/// What is written down of a create before it is sent.
pub(super) fn intent(
    gateway: &Gateway,
    member: &Member,
    ask: &Ask,
    operation: &Operation,
    callback: Option<&Callback>,
    lane: &Lane,
) -> Task {
    let label = gateway.parts.catalogue.model_label(ask.index, ask.request(operation));
    Task {
        create: CreateId::new(),
        tenant: member.tenant.id.clone(),
        operation: gateway.operation_ids[ask.index.position()].into(),
        model: Some(label.into()),
        key: None,
        callback: callback.filter(|_| *lane != Lane::Mock).map(|callback| callback.url.as_str().into()),
        request: ask.body.clone(),
        created: gateway.parts.clock.now(),
        counts_at: gateway.moment(member, &ask.parts.headers),
        reserved: price(gateway, ask, operation).unwrap_or_default(),
        id: None,
        base: None,
        state: TaskState::Sent,
    }
}

impl Errand {
    /// Waits for a turn with one of `keys` and sends; again where the upstream wants it otherwise.
    async fn in_turn(
        self,
        member: &Member,
        mut keys: Vec<KeyIx>,
        mut draft: Draft,
    ) -> Result<Sent, ApiError> {
        let accounts = &self.gateway.parts.accounts;
        let waiter = Waiter { tenant: &member.tenant.id, weight: member.weight, since: Instant::now() };
        let mut back: Option<(Arc<Account>, Back)> = None;
        let mut waited_before = Duration::ZERO;
        loop {
            let since = Instant::now();
            let usable = accounts.usable(&keys);
            let turn = match back.take() {
                None => self.hurrying(&usable, account::turn(&usable, waiter)).await?,
                Some((account, Back { waited, place })) => {
                    let others: Vec<_> =
                        usable.iter().filter(|other| other.key != account.key).cloned().collect();
                    let name = Arc::clone(&account.name);
                    let again = account::another_turn((account, place), &others, waiter);
                    let again = self.hurrying(&usable, again).await?;
                    if again.as_ref().is_ok_and(|(account, _)| account.name != name) {
                        waited_before += waited;
                    }
                    again
                }
            };
            let (account, granted) = self.note_wait(since, waited_before, &usable, turn)?;
            if !granted.waited().is_zero()
                && let Err(refusal) = steps::still_permitted(&self.gateway, &self.call, &self.parts)
            {
                granted.returned();
                return Err(refusal);
            }
            draft.store.sent_with(draft.create, Arc::clone(&account.name)).await?;
            match self.clone().with(&account).send(draft, Some(granted)).await {
                Sent::Throttled(throttled, place) => {
                    draft = throttled;
                    back = Some((account, place));
                }
                Sent::KeyRefused(refused, answer) => {
                    keys.retain(|key| *key != account.key);
                    if keys.is_empty() {
                        return Ok(Sent::Answered(refused.refused(answer).await));
                    }
                    draft = refused;
                }
                sent => return Ok(sent),
            }
        }
    }

    /// Waits for a turn; meanwhile tasks that have ended unseen, and take up the room of others, are looked for.
    ///
    /// # Errors
    /// The gateway is about to stop.
    async fn hurrying<T>(
        &self,
        accounts: &[Arc<Account>],
        turn: impl Future<Output = T>,
    ) -> Result<T, ApiError> {
        let mut turn = pin!(turn);
        let mut patience = Duration::ZERO;
        loop {
            tokio::select! {
                biased;
                turn = timeout(patience, turn.as_mut()) => if let Ok(turn) = turn {
                    return Ok(turn);
                },
                () = self.gateway.drain_begins() => return Err(steps::about_to_stop()),
            }
            for account in accounts.iter().filter(|account| account.quota.is_full_of_tasks()) {
                self.gateway.parts.tracker.hurry(&Whose::Key(Arc::clone(&account.name)));
            }
            patience = HURRY;
        }
    }

    /// Tells how long it has waited for its turn with one of `accounts`, whether or not there was one.
    fn note_wait(
        &self,
        since: Instant,
        waited_before: Duration,
        accounts: &[Arc<Account>],
        turn: Result<Granted, QuotaTimeout>,
    ) -> Result<Granted, ApiError> {
        let metrics = &self.gateway.parts.metrics;
        self.call.waited(since.elapsed());
        match &turn {
            Ok((account, granted)) => {
                self.call.queued(waited_before + granted.waited());
                metrics.waited_for_turn(&account.name, granted.waited());
            }
            Err(timeout) => {
                self.call.queued(waited_before + timeout.waited);
                for account in accounts {
                    metrics.waited_for_turn(&account.name, timeout.waited);
                }
            }
        }
        turn.map_err(|timeout| late(&timeout))
    }

    fn with(mut self, account: &Account) -> Self {
        self.lane = Lane::Live(account.key);
        let mut task = Task::clone(&self.task);
        task.key = Some(Arc::clone(&account.name));
        self.task = Arc::new(task);
        self
    }

    /// Sends the create; goes on to the end also when its client has gone. Should it break, what it had of the draft is
    /// dropped, and the create is lost.
    async fn send(self, draft: Draft, turn: Option<Turn>) -> Sent {
        let create = draft.create;
        let sent = background::spawn(self.send_on(draft, turn)).await;
        sent.unwrap_or(Sent::Lost(create))
    }

    async fn send_on(self, mut draft: Draft, turn: Option<Turn>) -> Sent {
        let parts = &self.gateway.parts;
        draft.goes_out(&self);
        if self.lane != Lane::Mock {
            parts.tracker.watch(&self.task);
        }
        match self.exchange().await {
            Ok(answer) => self.understand(draft, turn, answer).await,
            Err(error) if error.may_have_arrived() => {
                tracing::warn!(create = %draft.create, "the answer to a create was lost: {error}");
                Sent::Lost(draft.lost().await)
            }
            Err(error) => {
                turn.into_iter().for_each(Turn::returned);
                draft.not_sent().await;
                Sent::Nowhere(error)
            }
        }
    }

    /// Sends it once, and reads the answer.
    pub(super) async fn exchange(&self) -> Result<Whole, UpstreamError> {
        let parts = &self.gateway.parts;
        let about = About {
            operation: interned(&self.task.operation),
            tenant: Some(self.task.tenant.as_str().into()),
            streams: false,
            key: self.lane.key(),
        };
        let upstream = parts.upstreams.of(&self.lane);
        let since = Instant::now();
        let attempt = || Whole::ask(upstream, &self.parts, &self.body, &about, parts.body_timeout);
        let answer = parts.retries.send(Safe::Unsent, attempt).await;
        self.call.waited(since.elapsed());
        answer
    }

    /// Writes down what the answer means.
    async fn understand(self, mut draft: Draft, turn: Option<Turn>, answer: Whole) -> Sent {
        let body = answer.json();
        let code = answer.code(&body);
        let operation = self.gateway.parts.catalogue.operation_by_id(&self.task.operation);
        let id = operation.and_then(|operation| self.gateway.parts.catalogue.task_id(operation, &body));
        // Whoever does not keep the turn gives it back: no task runs.
        match (id, code, turn) {
            (id, 200, _)
                if body.is_object() && !is_error(&body) && self.is_done_at_once(operation, id.is_some()) =>
            {
                Sent::Answered(self.done(draft, &body, answer).await)
            }
            (Some(id), _, turn) => Sent::Answered(self.started(draft, turn, id, &body, answer).await),
            (None, 429, Some(turn)) => {
                let now = self.gateway.parts.clock.now().millis();
                draft.did_not_arrive();
                let (waited, place) =
                    (turn.waited(), turn.throttled(wire::retry_after(&answer.headers, now)));
                Sent::Throttled(draft, Back { waited, place })
            }
            (None, 401 | 402 | 433, Some(_)) => {
                draft.did_not_arrive();
                self.key_is_refused();
                Sent::KeyRefused(draft, answer)
            }
            (None, _, turn) if reached_nobody(answer.status) && !body.is_object() => {
                turn.into_iter().for_each(Turn::returned);
                draft.not_sent().await;
                Sent::Answered(answer)
            }
            _ if self.is_refusal(&answer, &body) => Sent::Answered(draft.refused(answer).await),
            _ => {
                let status = answer.status.as_u16();
                tracing::warn!(create = %draft.create, status, "the answer to a create cannot be understood");
                Sent::Lost(draft.lost().await)
            }
        }
    }

    /// The upstream key that it is sent with, if it is.
    fn account(&self) -> Option<&Arc<Account>> {
        let Lane::Live(key) = self.lane else { return None };
        self.gateway.parts.accounts.get(key)
    }

    /// Others go first for a while, also where nobody waits for the answer any more.
    fn key_is_refused(&self) {
        let Some(account) = self.account() else { return };
        account.rest();
        tracing::warn!(key = &*account.name, "the upstream refuses this key; others go first for a while");
    }

    /// Whether it is sure that nothing came of the create: the upstream's envelope says so, or an HTTP status which blames
    /// the request. Whatever else answers, such as a server on the way, does not know. In this process nothing is lost on
    /// the way, and a test may want to see any answer.
    pub(super) fn is_refusal(&self, answer: &Whole, body: &Value) -> bool {
        is_error(body)
            || answer.status.is_client_error()
            || reached_nobody(answer.status)
            || matches!(self.lane, Lane::Mock | Lane::Nowhere)
    }

    /// Whether the answer to such a create is its result. One that `is_named` as a task may have to be asked for, where it can be
    /// and nobody knows its model; the simulator tells of its tasks itself.
    fn is_done_at_once(&self, operation: Option<OperationIx>, is_named: bool) -> bool {
        let catalogue = &self.gateway.parts.catalogue;
        let Some(operation) = operation else { return false };
        let model = self.task.model.as_deref().and_then(|name| catalogue.model_by_name(operation, name));
        let may_go_on =
            || self.lane == Lane::Mock || (catalogue.details_of(operation).is_some() && model.is_none());
        catalogue.is_inline(operation, model) && !(is_named && may_go_on())
    }

    /// It was taken, and is over.
    async fn done(self, draft: Draft, body: &Value, answer: Whole) -> Whole {
        let parts = &self.gateway.parts;
        let charged = parts.catalogue.charged(body);
        if let Some(account) = self.account() {
            account.works();
        }
        if self.lane != Lane::Mock {
            self.gateway.tell_created(&self.task);
            self.learn(body).await;
        }
        if let Err(error) = parts.tracker.finish(&self.task, charged, self.lane != Lane::Mock).await {
            tracing::error!("the end of a create cannot be written down: {error}");
        }
        parts.tracker.forget(draft.create);
        draft.started(answer).await
    }

    /// The upstream has taken it.
    async fn started(self, draft: Draft, turn: Option<Turn>, id: &str, body: &Value, answer: Whole) -> Whole {
        let parts = &self.gateway.parts;
        let is_new = settle_or(draft.store.started(draft.create, id).await, true);
        if !is_new && !self.was_called_otherwise(&draft).await {
            // The upstream names a task that is there already: nothing was begun.
            if let Some(turn) = turn {
                turn.refused();
            }
            return draft.refused(answer).await;
        }
        if let Some(account) = self.account() {
            account.works();
        }
        if self.lane == Lane::Mock {
            // The simulator tells of its tasks itself.
            parts.simulated.started(&self.task, id).await;
        } else {
            self.gateway.tell_created(&self.task);
            parts.tracker.started(draft.create, turn.map(Turn::started));
            self.learn(body).await;
        }
        draft.started(answer).await
    }

    /// Whether a callback that came before the answer gave the task another name than the answer does: both are the tenant's.
    async fn was_called_otherwise(&self, draft: &Draft) -> bool {
        let there = settle_or(draft.store.by_create(draft.create).await, None);
        there.is_some_and(|task| task.id.is_some())
    }

    /// Remembers that what the answer gives out is the tenant's.
    async fn learn(&self, body: &Value) {
        let parts = &self.gateway.parts;
        let owner = Owner { tenant: self.task.tenant.clone(), key: self.task.key.clone() };
        let now = parts.clock.now();
        settle(ownership::learn(&*parts.store, &owner, &self.task.request, body, now).await);
    }
}

/// Whether a body is an envelope that tells of an error, of whatever code.
fn is_error(body: &Value) -> bool {
    body.get("code").is_some_and(|code| code.is_number() && *code != 200)
}

/// Whether the content network in front of the upstream says that it could not connect to it: it is down, or has no address,
/// or cannot identify itself. What 520, 522 and 524 are about may have arrived.
///
/// Source: the network's list of its 5xx statuses.
fn reached_nobody(status: StatusCode) -> bool {
    matches!(status.as_u16(), 521 | 523 | 525 | 526)
}

/// No turn came in time.
fn late(timeout: &QuotaTimeout) -> ApiError {
    let what = "the account's quota of creates left no room in time";
    ApiError::new(Reason::QuotaTimeout, what).retry_after(timeout.retry_after)
}

/// What the client hears.
fn answer(sent: Sent) -> Result<Response, ApiError> {
    match sent {
        Sent::Answered(answer) | Sent::KeyRefused(_, answer) => Ok(answer.into_response()),
        Sent::Throttled(..) => {
            Err(late(&QuotaTimeout { waited: Duration::ZERO, retry_after: Duration::ZERO }))
        }
        Sent::Nowhere(error) => Err(error.into()),
        Sent::Lost(create) => Err(lost(create)),
    }
}

/// The answer to a create whose answer was lost.
pub(super) fn lost(create: CreateId) -> ApiError {
    let what = "the upstream's answer was lost or makes no sense, and the task may have been created: it is not sent \
                again; if it was, it stays yours, and where a callBackUrl was given the callback comes all the same";
    let value = HeaderValue::from_str(&create.to_string()).expect("hex digits are visible ASCII");
    ApiError::new(Reason::UpstreamTimeout, what).with_header(CREATE, value)
}

/// The answer that was kept for a create; where that was lost, and its task has been found meanwhile, the one that would have
/// been given.
pub(super) async fn as_of_now(gateway: &Gateway, kept: Whole) -> Result<Whole, ApiError> {
    let named = kept.headers.get(CREATE).and_then(|name| CreateId::parse(name.to_str().ok()?));
    let Some(create) = named else { return Ok(kept) };
    let found = gateway.parts.store.by_create(create).await?;
    let answer = found.and_then(|task| gateway.parts.tracker.answer_to_create(&task));
    let found = answer.map(|body| Whole::as_upstream(&gateway.parts.catalogue, body));
    Ok(found.map_or(kept, Whole::replayed))
}

impl Draft {
    /// One that has been counted.
    pub(super) fn new(create: CreateId, store: &Arc<dyn Store>, claimed: Option<Claimed>) -> Self {
        Self { create, store: Arc::clone(store), claimed, sent: None, settled: false }
    }

    /// It may arrive from now on.
    pub(super) fn goes_out(&mut self, errand: &Errand) {
        let Errand { gateway, call, task, .. } = errand;
        let (gateway, call, task) = (Arc::clone(gateway), Arc::clone(call), Arc::clone(task));
        self.sent = Some(Sending { gateway, call, task });
    }

    /// It is known that the upstream does not have it.
    fn did_not_arrive(&mut self) {
        if let Some(sent) = self.sent.take() {
            sent.gateway.parts.tracker.forget(self.create);
        }
    }

    /// The upstream has taken it.
    pub(super) async fn started(mut self, answer: Whole) -> Whole {
        self.settled = true;
        self.keep(&answer).await;
        answer
    }

    /// The upstream has refused it: as if it had not been, but for its answer.
    pub(super) async fn refused(mut self, answer: Whole) -> Whole {
        self.settled = true;
        self.did_not_arrive();
        settle(self.store.refused(self.create).await);
        self.keep(&answer).await;
        answer
    }

    /// It never reached the upstream.
    pub(super) async fn not_sent(mut self) {
        self.did_not_arrive();
        settle(self.store.refused(self.create).await);
        self.settled = true;
    }

    /// Nobody knows what became of it.
    pub(super) async fn lost(mut self) -> CreateId {
        if let Some(sent) = self.sent.take() {
            self.settled = true;
            sent.lost(self.claimed.take()).await;
        }
        self.create
    }

    async fn keep(&mut self, answer: &Whole) {
        if let Some(claimed) = self.claimed.take() {
            claimed.keep(answer).await;
        }
    }
}

/// A failing store is told in the log: the answer that is here is the client's all the same.
fn settle<T, E: std::fmt::Display>(written: Result<T, E>) {
    if let Err(error) = written {
        tracing::error!("what became of a create cannot be written down: {error}");
    }
}

fn settle_or<T, E: std::fmt::Display>(written: Result<T, E>, otherwise: T) -> T {
    written.unwrap_or_else(|error| {
        tracing::error!("what became of a create cannot be written down: {error}");
        otherwise
    })
}

/// Where a request wants its task to call back.
pub(super) struct Callback {
    pub(super) url: String,
    /// Its place among the members of the body.
    index: usize,
    required: bool,
}

impl Callback {
    /// The address in `ask`, which `member` may have called; an empty one counts as none.
    ///
    /// # Errors
    /// It must not be called.
    pub(super) fn permitted(
        ask: &Ask,
        operation: &Operation,
        member: &Member,
    ) -> Result<Option<Self>, ApiError> {
        let callback = Self::find(ask, operation).and_then(|found| {
            let allow = &member.callbacks.allow_hosts;
            let forbidden = found.as_ref().and_then(|callback| guard::refusal(&callback.url, allow));
            forbidden.map_or(Ok(found), Err)
        });
        callback.map_err(|forbidden| ApiError::new(Reason::ForbiddenCallback, forbidden.to_string()))
    }

    /// The address in `ask`, whatever it is.
    ///
    /// # Errors
    /// What stands in its place is no text: the upstream might make an address of it.
    fn find(ask: &Ask, operation: &Operation) -> Result<Option<Self>, Forbidden> {
        let place = || {
            let name = operation.task()?.callback_at.strip_prefix('/')?;
            let text = std::str::from_utf8(&ask.body).ok()?;
            let members = ask.members()?;
            let index = members.iter().position(|member| member.name == name)?;
            let url: Result<Option<String>, _> = serde_json::from_str(members[index].value(text));
            Some((name, index, url))
        };
        let Some((name, index, url)) = place() else { return Ok(None) };
        let url = url.map_err(|_| Forbidden::NoText)?.unwrap_or_default();
        let schema = operation.request.as_ref().map(crate::catalogue::Schema::source);
        let required = schema.and_then(|schema| schema.get("required")).and_then(Value::as_array);
        let required = required.is_some_and(|names| names.iter().any(|required| required == name));
        Ok((!url.is_empty()).then_some(Self { url, index, required }))
    }

    /// The body with the relay's address in the place of the tenant's; every other byte stays. Where the upstream cannot
    /// call, the address goes, or leads nowhere if there must be one.
    pub(super) fn readdressed(&self, ask: &Ask, relay: Option<&str>) -> Bytes {
        let text = std::str::from_utf8(&ask.body).unwrap_or_default();
        let members = ask.members().expect("it stands among them");
        let changed = match relay {
            None if !self.required => body::without(text, members, self.index),
            relay => {
                let relay = Value::from(relay.unwrap_or("https://callback.invalid/"));
                body::with_value(text, &members[self.index], &relay.to_string())
            }
        };
        changed.into()
    }
}
