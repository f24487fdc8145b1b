//! The steps of a request: a few lines of glue each, from a module's answer to HTTP. A step lets the request go on, or
//! gives the error that ends its way.

mod bounded;
mod entry;
mod record;
mod way;

use std::borrow::Cow;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use axum::body::Body;
use axum::extract::Request;
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, Either};
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderName};
use http::{HeaderMap, Method, StatusCode, Uri};
use http_body::Body as _;
use http_body_util::BodyExt as _;
use tokio::time::Instant;

pub(super) use bounded::bound_body;
pub(super) use entry::{authenticate, authenticate_own, permit, still_permitted};
pub(super) use record::{record, record_unanswered};

use way::{Way, judge_unknown, own, undisguised};

use super::answer::Whole;
use super::ask::{Ask, is_read};
use super::call::{Call, RequestId};
use super::idempotency::{self, Outcome};
use super::look::{self, Look};
use super::member::Member;
use super::room::Crowded;
use super::server::Peer;
use super::{Gateway, Keys, Lane, chat, create, patience, relay, reserve, upgrade};
use crate::cache::Found;
use crate::catalogue::{Behaviour, Class, Operation, OperationIx, Resolved};
use crate::config::Mode;
use crate::error::{ApiError, ProblemDocument, Reason};
use crate::proxy::{About, Safe, UNKNOWN_PATH, UpstreamError, World};
use crate::store::StoreError;
use crate::wire;

const MODE: HeaderName = HeaderName::from_static("x-kiegate-mode");

/// Gives the request its id and says which operation it is.
pub(super) fn identify(gateway: &Gateway, peer: Option<Peer>, request: &Request) -> Call {
    let (operation, index) = operation_of(gateway, request);
    let own = is_own(request) || is_document(request);
    let takes_form = |index| gateway.parts.catalogue.operation(index).takes_form();
    let began = gateway.parts.clock.instant();
    Call {
        began,
        now: gateway.parts.clock.at(began),
        request_id: RequestId::of(request.headers()),
        operation,
        peer,
        index,
        own,
        streams: !own && index.map_or_else(|| !is_text(request.headers()), takes_form),
        member: OnceLock::default(),
        upstream_micros: AtomicU64::default(),
        notes: Mutex::default(),
        place: Mutex::default(),
    }
}

/// Whether a body is JSON or a short form, or may be.
fn is_text(headers: &HeaderMap) -> bool {
    let Some(kind) = headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()) else { return true };
    let kind = kind.to_ascii_lowercase();
    // What says nothing of itself may be anything.
    let is_vague = !kind.trim().contains('/') || kind.contains('*');
    is_vague || ["json", "x-www-form-urlencoded", "text/plain"].iter().any(|text| kind.contains(text))
}

/// What the log calls a request; nothing where nobody will read it. The rest of a relay's address is what its callers are
/// trusted for, and stays out.
pub(super) fn line(request: &Request) -> String {
    if !tracing::enabled!(tracing::Level::INFO) {
        return String::new();
    }
    let path = request.uri().path();
    let shown = if relay::is_callback(request) { "/_relay/…" } else { path };
    format!("{} {shown}", request.method())
}

/// Whether a request is for what is kiegate's own, below `/_…`.
pub(super) fn is_own(request: &Request) -> bool {
    request.uri().path().starts_with("/_")
}

/// Whether a request is for the description of the API.
pub(super) fn is_document(request: &Request) -> bool {
    request.uri().path() == "/openapi.json"
}

/// The operation's name in metrics, and its place in the catalogue if it is one of the API.
fn operation_of(gateway: &Gateway, request: &Request) -> (&'static str, Option<OperationIx>) {
    let path = request.uri().path();
    match gateway.parts.catalogue.resolve(request.method(), path) {
        Resolved::Operation(index) => (gateway.operation_ids[index.position()], Some(index)),
        _ if path.starts_with("/_mock/") => ("mock", None),
        _ if path.starts_with("/_media/") => ("media", None),
        _ if path.starts_with("/_relay/") => ("relay", None),
        _ if path == "/_events" => ("events", None),
        _ if is_document(request) => ("openapi", None),
        _ => (UNKNOWN_PATH, None),
    }
}

/// What a refusal by the gateway looks like: in the family's own form of error.
pub(super) fn refuse(gateway: &Gateway, call: &Call, error: ApiError) -> Response {
    let status = error.reason().status().as_u16();
    let body = |index| gateway.parts.catalogue.foreign_refusal(index, status, error.message());
    let Some(body) = call.index.and_then(body) else { return error.into_response() };
    let mut response = error.into_response();
    response.headers_mut().remove(CONTENT_LENGTH);
    *response.body_mut() = Body::from(body);
    response
}

/// Counts the call against the tenant's rate, unless the gateway is about to stop.
pub(super) fn admit(gateway: &Gateway, call: &Call) -> Result<(), ApiError> {
    if gateway.is_draining() { Err(about_to_stop()) } else { count(gateway, call) }
}

/// Counts the call against the tenant's rate.
pub(super) fn count(gateway: &Gateway, call: &Call) -> Result<(), ApiError> {
    let Some((member, limit)) =
        call.member.get().and_then(|member| Some((member, member.limits.requests.as_ref()?)))
    else {
        return Ok(());
    };
    reserve::admit(gateway, call, member, limit.check(), "too many calls with this key in too short a time")
}

/// The refusal of whatever has not begun when the gateway is about to stop.
pub(super) fn about_to_stop() -> ApiError {
    let what = "this gateway is about to stop; another one, or the next, will answer";
    ApiError::new(Reason::Draining, what).retry_after(Duration::from_secs(1))
}

/// What becomes an answer.
pub(super) trait Answers: Future<Output = Result<Response, ApiError>> + Send {}

impl<F: Future<Output = Result<Response, ApiError>> + Send> Answers for F {}

/// In a box, or of a kind that is worth its room.
type Boxed<F> = Either<BoxFuture<'static, Result<Response, ApiError>>, F>;

/// What becomes of a request: an answer at once, or later.
pub(super) enum Dispatched<F> {
    Now(Result<Response, ApiError>),
    Later(F),
}

/// Sends a request the way that it has to go. What is asked most, looks at tasks, is answered in place; the other ways are
/// in boxes, so that not every request carries the room for all of them.
pub(super) fn dispatch(
    gateway: &Arc<Gateway>,
    call: &Arc<Call>,
    request: Request,
) -> Dispatched<Boxed<impl Answers + use<>>> {
    let mode = call.member.get().map_or(gateway.parts.mode, |member| member.mode);
    let (gateway, call) = (Arc::clone(gateway), Arc::clone(call));
    let (Some(index), false) = (call.index, call.streams) else {
        let passed = async move { pass_unread(&gateway, &call, mode, request).await };
        return Dispatched::Later(Either::Left(passed.boxed()));
    };
    if request.body().is_end_stream() {
        return proceed(gateway, call, mode, Ask::without_body(request, index));
    }
    let read_and_proceed = async move {
        let request = bound_body(&gateway, &call, request).await?;
        let ask = Ask::new(request, index).await?.read_ahead(&gateway, &call, mode).await?;
        match proceed(gateway, call, mode, ask) {
            Dispatched::Now(answered) => answered,
            Dispatched::Later(answering) => answering.await,
        }
    };
    Dispatched::Later(Either::Left(read_and_proceed.boxed()))
}

/// Sends a request that has been read on its way, unless it can be answered without waiting for anything.
fn proceed(gateway: Arc<Gateway>, call: Arc<Call>, mode: Mode, ask: Ask) -> Dispatched<Boxed<impl Answers>> {
    let operation = gateway.parts.catalogue.operation(ask.index);
    if let Err(refusal) = permit_model(&gateway, &call, &ask, operation) {
        return Dispatched::Now(Err(refusal));
    }
    if matches!(mode, Mode::Mock | Mode::Replay) || call.member.get().is_none() || !is_read(operation) {
        return Dispatched::Later(Either::Left(follow(gateway, call, mode, ask).boxed()));
    }
    if let Err(refusal) = ask.unambiguous(operation) {
        return Dispatched::Now(Err(refusal));
    }
    let mut look = Look::new(&gateway, &call, &ask, operation);
    match look.kept(&gateway, &call) {
        Some(answered) => Dispatched::Now(answered),
        None => Dispatched::Later(Either::Right(inquire(gateway, call, ask, look))),
    }
}

/// Asks for what the tenant wants to know, where that is the tenant's own.
#[expect(clippy::manual_async_fn, reason = "an async function has room for what it is given twice")]
fn inquire(
    gateway: Arc<Gateway>,
    call: Arc<Call>,
    ask: Ask,
    look: Look,
) -> impl Future<Output = Result<Response, ApiError>> + Send {
    async move {
        let member = call.member.get().ok_or_else(nobodys)?;
        let Way { lane, keys, task } = own(&gateway, &call, member, &ask).await?;
        // A task that came of what did not exist is one all the same, whose end is to be noticed.
        if lane != Lane::Nowhere || task.is_some() {
            return look.ask(&gateway, &call, ask, lane, task).await;
        }
        call.cached(Some(Found::Miss)); // as the upstream's would be
        Box::pin(go(&gateway, &call, member, ask, (lane, keys), None)).await
    }
}

/// Follows the way of any other request that has been read, by what it is and whom it comes from.
async fn follow(gateway: Arc<Gateway>, call: Arc<Call>, mode: Mode, ask: Ask) -> Result<Response, ApiError> {
    let (gateway, call) = (&gateway, &call);
    let operation = gateway.parts.catalogue.operation(ask.index);
    let claimed = match claim(gateway, call, mode, &ask).await? {
        Outcome::None => None,
        Outcome::Yours(claimed) => Some(claimed),
        Outcome::Replay(answer) => return Ok(create::as_of_now(gateway, answer).await?.into_response()),
    };
    match (mode, call.member.get()) {
        (Mode::Mock, Some(member)) if matters(operation) => {
            go(gateway, call, member, ask, (Lane::Mock, Keys::Only), claimed).await
        }
        (Mode::Mock, _) => simulate(gateway, call, ask, claimed, Lane::Mock).await,
        // Nothing is made and nothing is spent, so there is nothing to count.
        (Mode::Replay, _) => simulate(gateway, call, ask, claimed, Lane::Replay).await,
        (_, None) => Err(nobodys()),
        (_, Some(member)) => {
            ask.unambiguous(operation)?;
            let Way { lane, keys, .. } = own(gateway, call, member, &ask).await?;
            go(gateway, call, member, ask, (lane, keys), claimed).await
        }
    }
}

fn nobodys() -> ApiError {
    ApiError::new(Reason::Unauthorized, "this gateway does not know your key")
}

/// Whether what `operation` does in a simulation counts for a tenant: it is paid, or makes something new.
fn matters(operation: &Operation) -> bool {
    matches!(operation.behaviour, Behaviour::Create(..) | Behaviour::Upgrade(_))
        || operation.class == Class::Chat
}

/// Goes the way of a tenant's request that is no question, by what it does.
async fn go(
    gateway: &Arc<Gateway>,
    call: &Arc<Call>,
    member: &Arc<Member>,
    mut ask: Ask,
    (lane, keys): (Lane, Keys),
    claimed: Option<idempotency::Claimed>,
) -> Result<Response, ApiError> {
    let operation = gateway.parts.catalogue.operation(ask.index);
    if lane != Lane::Mock {
        ask.plain();
    }
    match (&operation.behaviour, operation.class) {
        (Behaviour::Create(..), _) => create::create(gateway, call, member, ask, (lane, keys), claimed).await,
        (Behaviour::Upgrade(_), _) => upgrade::upgrade(gateway, call, member, ask, lane).await,
        (Behaviour::Upload(..), _) | (_, Class::Action) => act(gateway, call, member, lane, ask).await,
        (_, Class::Chat) => talk(gateway, call, member, lane, ask).await,
        _ => pass(gateway, call, lane, ask.into_request()).await,
    }
}

/// Passes a chat on, and notes what it has cost.
async fn talk(
    gateway: &Arc<Gateway>,
    call: &Arc<Call>,
    member: &Arc<Member>,
    lane: Lane,
    ask: Ask,
) -> Result<Response, ApiError> {
    let meter = chat::Meter::begin(gateway, member, &ask).await?;
    match pass(gateway, call, lane, ask.into_request()).await {
        Ok(response) => Ok(meter.over(response)),
        Err(error) => {
            meter.unanswered();
            Err(error)
        }
    }
}

/// Passes on what is done with a task, and learns what comes of it: ids and addresses of its own.
async fn act(
    gateway: &Arc<Gateway>,
    call: &Arc<Call>,
    member: &Member,
    lane: Lane,
    ask: Ask,
) -> Result<Response, ApiError> {
    let asked = ask.body.clone();
    let answer =
        Whole::read(pass(gateway, call, lane, ask.into_request()).await?, gateway.parts.body_timeout).await?;
    gateway.learn(member, lane, &asked, &answer).await?;
    Ok(answer.into_response())
}

/// Refuses models that the tenant may not use.
fn permit_model(gateway: &Gateway, call: &Call, ask: &Ask, operation: &Operation) -> Result<(), ApiError> {
    let Some(member) = call.member.get().filter(|member| member.tenant.minds_models()) else { return Ok(()) };
    let in_query = || wire::pairs(ask.query()).any(|(name, _)| name.eq_ignore_ascii_case("model"));
    if operation.is_vague_about_its_model(ask.request(operation)) || (!operation.by_query && in_query()) {
        let what = "this key may not use all models, and which one is meant cannot be told: \
                    name it as the catalogue does, in one text";
        return Err(ApiError::new(Reason::Forbidden, what));
    }
    let named = operation.model_of(ask.request(operation)).map(Cow::Borrowed);
    let Some(name) = named.or_else(|| model_in_path(operation, ask.parts.uri.path())) else { return Ok(()) };
    let siblings = gateway.parts.catalogue.models_beside(ask.index);
    if member.tenant.may_use(crate::tenants::NamedModel { name: &name, siblings: &siblings }) {
        return Ok(());
    }
    let shown: String = name.chars().filter(|sign| !sign.is_control()).take(80).collect();
    Err(ApiError::new(Reason::Forbidden, format!("this key may not use the model {shown}")))
}

/// The model of a chat that only its path names: one that nobody here knows.
fn model_in_path<'p>(operation: &Operation, path: &'p str) -> Option<Cow<'p, str>> {
    let mut parts = operation.path.split('/').zip(path.split('/')).filter(|_| operation.class == Class::Chat);
    let (_, name) = parts.find(|(place, _)| *place == "{model}")?;
    percent_encoding::percent_decode_str(name).decode_utf8().ok()
}

/// Claims the idempotency key of a create, if it has one.
async fn claim(gateway: &Gateway, call: &Call, mode: Mode, ask: &Ask) -> Result<Outcome, ApiError> {
    if gateway.parts.catalogue.operation(ask.index).class != Class::Create {
        return Ok(Outcome::None);
    }
    let tenant = call.member.get().map(|member| &member.label);
    let world = || gateway.world(mode, &ask.parts.headers, tenant);
    let scope = match (world(), tenant) {
        (Some(World { name: Some(name), .. }), _) => format!("{mode:?} {name}"),
        (None, Some(tenant)) => format!("tenant {tenant}"),
        _ => return Ok(Outcome::None), // and it is going to be refused
    };
    let now = || world().map_or_else(|| gateway.parts.clock.now(), |world| world.now);
    // A twin may be under way, and is waited for.
    let since = Instant::now();
    let claimed = idempotency::claim(gateway, &scope, ask, now).await;
    call.waited(since.elapsed());
    claimed
}

/// Passes on what is not read here: forms, and what is no operation.
async fn pass_unread(
    gateway: &Arc<Gateway>,
    call: &Arc<Call>,
    mode: Mode,
    request: Request,
) -> Result<Response, ApiError> {
    let mut request = bound_body(gateway, call, request).await?;
    let lane = match (mode, call.member.get()) {
        (Mode::Mock, _) => Lane::Mock,
        (Mode::Replay, _) => Lane::Replay,
        (_, None) => return Err(nobodys()),
        (_, Some(member)) => {
            if call.index.is_none() {
                undisguised(gateway, call, &request)?;
            }
            Way::by(gateway, member, judge_unknown(gateway, call, member, &mut request).await?).lane
        }
    };
    let response = pass(gateway, call, lane, request).await?;
    let (Some(_), Some(member), Lane::Live(_)) = (call.index, call.member.get(), lane) else {
        return Ok(response);
    };
    // The address at which the file can be had is the tenant's own.
    let answer = Whole::read(response, gateway.parts.body_timeout).await?;
    gateway.learn(member, lane, FORM, &answer).await?;
    Ok(answer.into_response())
}

/// What stands for the fields of a form, which nobody here reads.
const FORM: &[u8] = b"{}";

/// The largest body, in bytes, that is read before it is sent on though nobody here understands it: such a request can be
/// sent again.
const REPEATABLE: u64 = 64 * 1024;

/// Hands a request on as it is; its answer streams back. One whose body is here, or short, is sent again where
/// upstream cannot have it.
pub(super) async fn pass(
    gateway: &Gateway,
    call: &Call,
    lane: Lane,
    request: Request,
) -> Result<Response, ApiError> {
    let about = About {
        operation: call.operation,
        tenant: call.member.get().map(|member| Arc::clone(&member.label)),
        streams: call.streams,
        key: lane.key(),
    };
    let since = Instant::now();
    let upstream = gateway.parts.upstreams.of(&lane);
    let answer = if matches!(lane, Lane::Live(_)) && is_repeatable(call, &request) {
        let is_look = matches!(*request.method(), Method::GET | Method::HEAD);
        let safe = if is_look && call.index.is_none() { Safe::ByMethod } else { Safe::Unsent };
        let send = async {
            let (parts, body) = request.into_parts();
            let body = body.collect().await.map_err(|error| UpstreamError::of_body(&error))?.to_bytes();
            let attempt = || upstream.ask(&parts, &body, &about);
            gateway.parts.retries.send(safe, attempt).await
        };
        send.boxed().await
    } else {
        upstream.send(request, about).await
    };
    call.waited(since.elapsed());
    let response = answer.map_err(|error| {
        tracing::warn!(request.id = call.request_id(), "{error}");
        ApiError::from(error)
    })?;
    if !matches!(lane, Lane::Live(_)) {
        return Ok(response);
    }
    Ok(response.map(|body| patience::bounded(body, gateway.parts.body_timeout)))
}

/// Whether the body is here, or so short that it may be waited for; files are not, however small.
fn is_repeatable(call: &Call, request: &Request) -> bool {
    let told = request.headers().get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
    let is_short = call.index.is_none() && told.is_some_and(|length: u64| length <= REPEATABLE);
    !call.streams || is_short || request.body().is_end_stream()
}

/// Answers by the simulator; a create with an idempotency key is answered to its end, whoever still waits.
async fn simulate(
    gateway: &Arc<Gateway>,
    call: &Arc<Call>,
    ask: Ask,
    claimed: Option<idempotency::Claimed>,
    lane: Lane,
) -> Result<Response, ApiError> {
    if let Some(claimed) = claimed {
        return Box::pin(simulate_to_the_end(gateway, call, ask, claimed, lane)).await;
    }
    match ask.wait_seconds() {
        Some(wait) if gateway.parts.catalogue.operation(ask.index).class == Class::Details => {
            Box::pin(wait_for_news(gateway, call, ask, wait, lane)).await
        }
        _ => pass(gateway, call, lane, ask.into_request()).await,
    }
}

async fn simulate_to_the_end(
    gateway: &Arc<Gateway>,
    call: &Arc<Call>,
    ask: Ask,
    claimed: idempotency::Claimed,
    lane: Lane,
) -> Result<Response, ApiError> {
    let (gateway, call) = (Arc::clone(gateway), Arc::clone(call));
    let work = async move {
        let response = pass(&gateway, &call, lane, ask.into_request()).await?;
        let answer = Whole::read(response, gateway.parts.body_timeout).await?;
        claimed.keep(&answer).await;
        Ok(answer.into_response())
    };
    let broken = |_| ApiError::new(Reason::UpstreamUnreachable, "the simulator broke");
    crate::background::spawn(work).await.map_err(broken)?
}

/// Looks at a simulated task until there is news.
async fn wait_for_news(
    gateway: &Arc<Gateway>,
    call: &Arc<Call>,
    ask: Ask,
    wait: u64,
    lane: Lane,
) -> Result<Response, ApiError> {
    let once = || {
        let (gateway, call) = (Arc::clone(gateway), Arc::clone(call));
        let again = Request::from_parts((*ask.parts).clone(), Body::from(ask.body.clone()));
        async move {
            Ok(Whole::read(pass(&gateway, &call, lane, again).await?, gateway.parts.body_timeout).await?)
        }
        .boxed()
    };
    let is_running = |answer: &Whole| gateway.parts.catalogue.is_running(ask.index, &answer.json());
    look::wait_for_news(gateway, wait, once, is_running).await.map(Whole::into_response)
}

/// The refusal as a whole answer, to be kept.
pub(super) async fn refusal(gateway: &Gateway, call: &Call, error: ApiError) -> Whole {
    let response = refuse(gateway, call, error);
    let empty = || Whole {
        status: StatusCode::BAD_GATEWAY,
        headers: HeaderMap::new(),
        body: Bytes::new(),
        fault: None,
    };
    Whole::read(response, gateway.parts.body_timeout).await.unwrap_or_else(|_| empty())
}

/// There is no room.
impl From<Crowded> for ApiError {
    fn from(crowded: Crowded) -> Self {
        Self::new(Reason::Overloaded, crowded.to_string()).retry_after(Duration::from_secs(1))
    }
}

/// The store is of no help: what cannot be counted is not let through.
impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        tracing::error!("{error}");
        Self::new(Reason::Overloaded, "the gateway cannot read its counters")
            .retry_after(Duration::from_secs(1))
    }
}

/// A path of kiegate's own that does not exist in this mode.
pub(super) fn not_here(gateway: &Gateway, uri: &Uri) -> Response {
    is_not_in(gateway.parts.mode, uri)
}

fn is_not_in(mode: Mode, uri: &Uri) -> Response {
    let what = format!("there is no {} in {} mode", uri.path(), mode.as_str());
    ProblemDocument::new(StatusCode::NOT_FOUND, what).into_response()
}

/// The refusal of whoever asks for a sandbox and has none, since the real API answers it.
pub(super) fn without_sandbox(call: &Call, uri: &Uri) -> Option<Response> {
    let member = call.member.get().filter(|member| !member.mode.has_sandbox())?;
    Some(is_not_in(member.mode, uri))
}
