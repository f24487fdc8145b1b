//! The way of a question: about a task, about the account. Asked once for many, kept while it is true.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use axum::response::Response;
use futures_util::future::BoxFuture;
use http::StatusCode;
use http::header::CONTENT_TYPE;
use http::request::Parts;
use sha2::{Digest, Sha256};
use tokio::time::{Instant, timeout_at};

use super::answer::Whole;
use super::ask::{Ask, is_read};
use super::call::Call;
use super::{Gateway, Lane};
use crate::cache::{Found, Keep, Key, Mark};
use crate::catalogue::{Behaviour, Class, Operation, OperationIx};
use crate::clock::{Timestamp, hex};
use crate::error::ApiError;
use crate::proxy::{About, Safe, UpstreamError};
use crate::store::Task;
use crate::tasks::Seen;

/// The longest that a client may wait for news, in seconds.
const LONGEST_WAIT: u64 = 60;
/// How often a task is looked at for somebody who waits, where each look is answered anew.
const LOOKS: Duration = Duration::from_millis(100);

/// What a question was answered with.
#[derive(Clone, Debug)]
pub(super) struct Fetched(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    answer: Result<Whole, UpstreamError>,
    fresh_until: Option<Timestamp>,
    /// When it was asked for, if that was not at first.
    turn: Option<u32>,
    /// For details of a task: how far it is.
    seen: Option<Seen>,
}

impl Keep for Fetched {
    fn size(&self) -> usize {
        self.0.answer.as_ref().map_or(0, |answer| answer.body.len() + 64 * answer.headers.len())
    }

    fn fresh_until(&self) -> Option<Timestamp> {
        self.0.fresh_until
    }

    fn turn(&self) -> Option<u32> {
        self.0.turn
    }

    fn apart(&self) -> Self {
        let Inner { answer, fresh_until, turn, seen } = &*self.0;
        let answer = answer.as_ref().map(Whole::compact).map_err(UpstreamError::clone);
        Self(Arc::new(Inner { answer, fresh_until: *fresh_until, turn: *turn, seen: *seen }))
    }
}

impl Fetched {
    /// Whether it tells of a task that may have news.
    fn is_running(&self) -> bool {
        self.0.seen.is_some_and(|seen| !seen.ended)
    }
}

/// A question: all but the head of the request, of which each time that it is asked takes one.
pub(super) struct Question {
    gateway: Arc<Gateway>,
    body: bytes::Bytes,
    index: OperationIx,
    about: About,
    lane: Lane,
    task: Option<Arc<Task>>,
    key: Key,
}

impl Question {
    /// From a client's request.
    fn new(
        gateway: &Arc<Gateway>,
        call: &Call,
        mut ask: Ask,
        lane: Lane,
        task: Option<Arc<Task>>,
        key: Key,
    ) -> (Self, Box<Parts>) {
        ask.plain();
        let (operation, tenant) = (gateway.operation_ids[ask.index.position()], call.tenant_label());
        let about = About { operation, tenant: Some(tenant), streams: false, key: lane.key() };
        let gateway = Arc::clone(gateway);
        let (mut parts, body, index) = (ask.parts, ask.body, ask.index);
        // They are for the steps, and every attempt would copy them.
        parts.extensions.clear();
        (Self { gateway, body, index, about, lane, task, key }, parts)
    }

    /// The gateway's own question for the details of `task`; `None` where the catalogue knows no way to ask.
    pub(super) fn own(gateway: &Arc<Gateway>, task: Arc<Task>) -> Option<(Self, Box<Parts>)> {
        let catalogue = &gateway.parts.catalogue;
        let create = catalogue.operation_by_id(&task.operation)?;
        let (index, at) = catalogue.details_of(create)?;
        let details = catalogue.operation(index);
        let name = at.strip_prefix('/')?;
        let query =
            form_urlencoded::Serializer::new(String::new()).append_pair(name, task.id.as_deref()?).finish();
        let request = http::Request::get(format!("{}?{query}", details.path)).body(()).ok()?;
        let question = Self::of_task(gateway, &task, index, &query, bytes::Bytes::new());
        Some((Self { task: Some(task), ..question }, Box::new(request.into_parts().0)))
    }

    /// The gateway's own wish for a version of a result that has been wished for before; `None` where there is no such
    /// operation any more.
    pub(super) fn version(gateway: &Arc<Gateway>, task: &Task) -> Option<(Self, Box<Parts>)> {
        let index = gateway.parts.catalogue.operation_by_id(&task.operation)?;
        let operation = gateway.parts.catalogue.operation(index);
        let name = operation.task()?.callback_at.strip_prefix('/')?;
        // Where it was to be called back is known.
        let mut wish: serde_json::Map<String, serde_json::Value> =
            serde_json::from_slice(&task.request).ok()?;
        wish.remove(name);
        let request = http::Request::builder().method(operation.method.clone()).uri(&operation.path);
        let request = request.header(CONTENT_TYPE, "application/json").body(()).ok()?;
        let body = serde_json::to_vec(&wish).ok()?.into();
        Some((Self::of_task(gateway, task, index, "", body), Box::new(request.into_parts().0)))
    }

    /// What is asked on behalf of whoever made `task`, the way that it went, by a query or a body: paths say nothing here.
    fn of_task(
        gateway: &Arc<Gateway>,
        task: &Task,
        index: OperationIx,
        query: &str,
        body: bytes::Bytes,
    ) -> Self {
        let tenant: Arc<str> = task.tenant.as_str().into();
        let operation = gateway.operation_ids[index.position()];
        let lane = gateway.lane_of(task.key.as_deref());
        let key = key(&tenant, operation, "", query, &body).into();
        let about = About { operation, tenant: Some(tenant), streams: false, key: lane.key() };
        Self { gateway: Arc::clone(gateway), body, index, about, lane, task: None, key }
    }

    /// Something else told of the task, and with that the body of what the upstream would answer, perhaps.
    pub(super) fn told(&self, body: Option<bytes::Bytes>) {
        let parts = &self.gateway.parts;
        let kept_for = parts.freshness.finished;
        let answered = |body| {
            let answer = Ok(Whole::as_upstream(&parts.catalogue, body));
            let fresh_until = Some(parts.clock.steady().now() + kept_for);
            // Which state that is, nobody has to know: it is the last.
            let seen = Some(Seen { state: 0, ended: true });
            Fetched(Arc::new(Inner { answer, fresh_until, turn: None, seen }))
        };
        let answer = body.filter(|_| !kept_for.is_zero()).map(answered);
        self.gateway.cache.told(&self.key, answer.as_ref());
    }

    /// Under what its answer is kept.
    pub(super) fn key(&self) -> &Key {
        &self.key
    }

    /// Asks, and learns nothing from the answer; tells its turn, if it was asked for again.
    pub(super) async fn answer(&self, head: Box<Parts>) -> (Result<Whole, UpstreamError>, Option<u32>) {
        let parts = &self.gateway.parts;
        let operation = parts.catalogue.operation(self.index);
        let safe = if is_read(operation) { Safe::Always } else { Safe::Unsent };
        let upstream = parts.upstreams.of(&self.lane);
        let (attempts, latest) = (AtomicU32::new(0), AtomicU32::new(0));
        let attempt = || {
            if attempts.fetch_add(1, Ordering::Relaxed) > 0 {
                latest.store(self.gateway.cache.turn(&self.key), Ordering::Relaxed);
            }
            Whole::ask(upstream, &head, &self.body, &self.about, parts.body_timeout)
        };
        let answer = parts.retries.send(safe, attempt).await;
        (answer, (attempts.into_inner() > 1).then(|| latest.into_inner()))
    }

    /// Asks, and understands the answer.
    pub(super) async fn fetch(self: Arc<Self>, head: Box<Parts>) -> Fetched {
        let parts = &self.gateway.parts;
        let (answer, turn) = self.answer(head).await;
        let (seen, fresh_for) = match &answer {
            Ok(answer) => self.understand(answer).await,
            Err(_) => (None, None),
        };
        let fresh_until =
            fresh_for.filter(|span| !span.is_zero()).map(|span| parts.clock.steady().now() + span);
        let answer = if fresh_until.is_some() { answer.map(|answer| answer.compact()) } else { answer };
        Fetched(Arc::new(Inner { answer, fresh_until, turn, seen }))
    }

    /// How far an answer says that the task is, and how long that stays true.
    async fn understand(&self, answer: &Whole) -> (Option<Seen>, Option<Duration>) {
        let parts = &self.gateway.parts;
        let freshness = &parts.freshness;
        if let Some(task) = &self.task
            && parts.catalogue.operation(self.index).class == Class::Details
        {
            let seen = parts.tracker.seen(task, &answer.body).await;
            let seen = seen.unwrap_or_else(|error| {
                tracing::error!("what was seen of a task cannot be written down: {error}");
                None
            });
            let is_final = |seen: Seen| seen.ended && !parts.tracker.may_be_replaced(task);
            let fresh_for =
                seen.map(|seen| if is_final(seen) { freshness.finished } else { freshness.running });
            return (seen, fresh_for);
        }
        if answer.status != StatusCode::OK || answer.code(&answer.json()) != 200 {
            return (None, None);
        }
        if matches!(parts.catalogue.operation(self.index).behaviour, Behaviour::Link(..)) {
            return (None, Some(freshness.download_url));
        }
        (None, Some(freshness.credits))
    }
}

/// Whose question it is, and which.
fn key(tenant: &str, operation: &str, path: &str, query: &str, body: &[u8]) -> String {
    let body = if body.is_empty() { String::new() } else { hex(&Sha256::digest(body)) };
    [tenant, operation, path, query, &body].join("\n")
}

/// What a client wants to know, and how.
pub(super) struct Look {
    key: String,
    asked: Timestamp,
    wants_fresh: bool,
    /// How long it would wait for news, where there may be some.
    wait: Option<Duration>,
    /// It was looked for in what is kept, and not found.
    missed: Option<Mark>,
}

impl Look {
    /// From a client's request.
    pub(super) fn new(gateway: &Gateway, call: &Call, ask: &Ask, operation: &Operation) -> Self {
        let uri = &ask.parts.uri;
        // Most operations have one path; with others it says what is asked for.
        let path = if operation.path.contains('{') { uri.path() } else { "" };
        // What is kept is none the fresher for the time of day being set.
        let clock = gateway.parts.clock.steady();
        let wait = ask.wait_seconds().filter(|_| operation.class == Class::Details);
        Self {
            key: key(call.tenant(), call.operation, path, ask.query(), &ask.body),
            // A body may have taken its time.
            asked: if ask.body.is_empty() { clock.at(call.began) } else { clock.now() },
            wants_fresh: ask.wants_fresh(),
            wait: wait.map(|wait| Duration::from_secs(wait.min(LONGEST_WAIT))),
            missed: None,
        }
    }

    /// Answers from what is kept, if that is still true and good enough. It is the tenant's own: whose it is was found out
    /// when it was asked for.
    pub(super) fn kept(&mut self, gateway: &Gateway, call: &Call) -> Option<Result<Response, ApiError>> {
        if self.wants_fresh {
            return None;
        }
        let found = gateway.cache.fresh(&self.key, self.asked);
        let kept = found.map_err(|missed| self.missed = Some(missed)).ok()?;
        (self.wait.is_none() || !kept.is_running()).then(|| give(gateway, call, kept, Some(Found::Hit)))
    }

    /// Answers by asking, or from what is kept.
    pub(super) fn ask<'c>(
        self,
        gateway: &Arc<Gateway>,
        call: &'c Call,
        ask: Ask,
        lane: Lane,
        task: Option<Arc<Task>>,
    ) -> impl Future<Output = Result<Response, ApiError>> + Send + use<'c> {
        let Self { key, wants_fresh, wait, missed, .. } = self;
        let (question, head) = Question::new(gateway, call, ask, lane, task, key.into());
        let question = Arc::new(question);
        // Before the first look: what is learned meanwhile is news.
        let again = wait.map(|_| (head.clone(), question.gateway.cache.mark(question.key())));
        async move {
            // Somebody else may have had an answer meanwhile.
            let good = match missed {
                _ if wants_fresh => Good::Anew,
                Some(missed) if !question.gateway.cache.has_news(missed) => Good::Shared,
                _ => Good::Kept,
            };
            let mut answer = once(call, &question, head, good).await;
            if let (Some(wait), Some(again)) = (wait, again)
                && answer.0.is_running()
            {
                answer = Box::pin(wait_for_change(call, &question, again, answer, wait)).await;
            }
            let (fetched, found) = answer;
            give(&question.gateway, call, fetched, Some(found).filter(|_| !wants_fresh))
        }
    }
}

/// Looks again until the state is another than at first, time is up, or the gateway is about to stop: when the next look may
/// bring news, or something was learned of the task in another way.
async fn wait_for_change(
    call: &Call,
    question: &Arc<Question>,
    (head, mut mark): (Box<Parts>, Mark),
    first: (Fetched, Found),
    wait: Duration,
) -> (Fetched, Found) {
    let gateway = &question.gateway;
    let until = Instant::now() + wait;
    let mut latest = first.clone();
    while Instant::now() < until && latest.0.0.seen == first.0.0.seen {
        let since = Instant::now();
        let due = until.min(since + next_look(gateway, &latest.0));
        let stops = tokio::select! {
            biased;
            // Whether there was news or not, it is looked.
            _ = timeout_at(due, gateway.cache.news(mark)) => false,
            () = gateway.drain_begins() => true,
        };
        mark = gateway.cache.mark(question.key());
        // The client asked for it, so it is no overhead.
        call.waited(since.elapsed());
        if stops {
            break;
        }
        latest = once(call, question, head.clone(), Good::Kept).await;
    }
    latest
}

/// Answers with what was found, and tells how; `None`: from upstream, as the client wished.
fn give(
    gateway: &Gateway,
    call: &Call,
    fetched: Fetched,
    found: Option<Found>,
) -> Result<Response, ApiError> {
    call.cached(found);
    gateway.parts.metrics.cache_asked(call.operation, found.map_or("bypass", result_name));
    // Mostly nobody else has it.
    let answer = Arc::try_unwrap(fetched.0).map_or_else(|shared| shared.answer.clone(), |own| own.answer);
    Ok(answer?.into_response())
}

/// What is good enough for an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Good {
    /// What is kept and fresh.
    Kept,
    /// What somebody else is asking already.
    Shared,
    /// Only what is asked from now on, as the client wishes.
    Anew,
}

/// One look, at what is kept first or at once at what there is to be asked; that wait counts as the upstream's.
async fn once(call: &Call, question: &Arc<Question>, head: Box<Parts>, good: Good) -> (Fetched, Found) {
    let (cache, clock, key) =
        (&question.gateway.cache, question.gateway.parts.clock.steady(), question.key());
    if good == Good::Kept
        && let Ok(kept) = cache.fresh(key, clock.now())
    {
        return (kept, Found::Hit);
    }
    let since = Instant::now();
    let answer = cache.ask(key, good != Good::Anew, || Arc::clone(question).fetch(head)).await;
    call.waited(since.elapsed());
    answer
}

/// When the next look may bring news: when what is kept is no longer true.
fn next_look(gateway: &Gateway, fetched: &Fetched) -> Duration {
    let fresh = fetched.0.fresh_until.map(|until| until.saturating_since(gateway.parts.clock.steady().now()));
    fresh.unwrap_or_default().max(LOOKS)
}

/// As `X-Cache` and metrics say it.
pub(super) const fn result_name(found: Found) -> &'static str {
    match found {
        Found::Hit => "hit",
        Found::Miss => "miss",
        Found::Coalesced => "coalesced",
    }
}

/// Looks at a simulated task until its details say something else than at first, time is up, or the gateway is about to stop.
/// Every look is a call of its own there, since time is the sandbox's.
pub(super) async fn wait_for_news(
    gateway: &Gateway,
    wait: u64,
    ask: impl Fn() -> BoxFuture<'static, Result<Whole, ApiError>>,
    is_running: impl Fn(&Whole) -> bool,
) -> Result<Whole, ApiError> {
    let until = Instant::now() + Duration::from_secs(wait.min(LONGEST_WAIT));
    let first = ask().await?;
    let mut latest = first.clone();
    while Instant::now() < until && is_running(&latest) && latest.body == first.body {
        if timeout_at(until.min(Instant::now() + LOOKS), gateway.drain_begins()).await.is_ok() {
            break;
        }
        latest = ask().await?;
    }
    Ok(latest)
}
