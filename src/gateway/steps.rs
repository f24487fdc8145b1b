//! The steps of a request: a few lines of glue each, from a module's answer to HTTP. A step lets the request go on, or
//! gives the error that ends its way.

mod bounded;
mod record;

use std::borrow::Cow;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use axum::body::Body;
use axum::extract::Request;
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, Either};
use http::header::{AUTHORIZATION, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, HeaderName};
use http::request::Parts as Head;
use http::{HeaderMap, HeaderValue, Method, StatusCode, Uri};
use http_body::Body as _;
use http_body_util::BodyExt as _;
use tokio::time::Instant;

pub(super) use bounded::bound_body;
pub(super) use record::{record, record_unanswered};

use super::answer::Whole;
use super::ask::{Ask, LARGE, is_read};
use super::call::{Call, RequestId};
use super::idempotency::{self, Outcome};
use super::look::{self, Look};
use super::member::Member;
use super::room::Crowded;
use super::server::Peer;
use super::{Gateway, Keys, Lane, chat, create, patience, relay, reserve, upgrade};
use crate::background::compute;
use crate::cache::Found;
use crate::catalogue::{Behaviour, Class, Operation, OperationIx, Resolved};
use crate::config::Mode;
use crate::error::{ApiError, ProblemDocument, Reason};
use crate::ids::Secret;
use crate::proxy::{About, Safe, UNKNOWN_PATH, UpstreamError, World};
use crate::sim::Owner as Caller;
use crate::store::{StoreError, Task};
use crate::tasks::ownership::{self, Said, Thing, Verdict};
use crate::wire;

const MODE: HeaderName = HeaderName::from_static("x-kiegate-mode");
const API_KEY: HeaderName = HeaderName::from_static("x-api-key");
const GOOGLE_KEY: HeaderName = HeaderName::from_static("x-goog-api-key");
const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

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

/// Finds the tenant by its key. The key goes on in `Authorization` alone, wherever it came from.
pub(super) fn authenticate(gateway: &Gateway, call: &Call, request: &mut Request) -> Result<(), ApiError> {
    let key = api_key(request.headers(), request.uri());
    let member = key.as_ref().and_then(|key| gateway.member_with(key, call.now));
    if member.is_none() && !gateway.parts.open {
        return Err(unknown_key());
    }
    if let Some(member) = member {
        let _ = call.member.set(member);
    }
    authorize(request.headers_mut(), key.as_ref());
    Ok(())
}

fn unknown_key() -> ApiError {
    let what = "this gateway does not know your key: send one of its own as `Authorization: Bearer <key>`";
    ApiError::new(Reason::Unauthorized, what)
}

/// Whether a request that has waited may still go on: its key may have been revoked meanwhile, or have expired, or what it asks
/// for may not be allowed any more.
pub(super) fn still_permitted(gateway: &Gateway, call: &Call, parts: &Head) -> Result<(), ApiError> {
    let key = api_key(&parts.headers, &parts.uri);
    let member = key.and_then(|key| gateway.member_with(&key, gateway.parts.clock.now()));
    let member = member.filter(|member| *member.label == *call.tenant()).ok_or_else(unknown_key)?;
    if member.may_call(call.index, call.operation) { Ok(()) } else { Err(not_allowed(call)) }
}

fn not_allowed(call: &Call) -> ApiError {
    ApiError::new(Reason::Forbidden, format!("this key may not use {}", call.operation))
}

/// Lets `Authorization` say what the key is, and nothing else.
fn authorize(headers: &mut HeaderMap, key: Option<&Secret>) {
    let Some(key) = key else {
        headers.remove(AUTHORIZATION);
        return;
    };
    let says_so =
        |value: &HeaderValue| value.as_bytes().strip_prefix(b"Bearer ") == Some(key.expose().as_bytes());
    let says_it_alone = {
        let mut said = wire::values(headers, AUTHORIZATION);
        said.next().is_some_and(says_so) && said.next().is_none()
    };
    if says_it_alone && let Some(value) = headers.get_mut(AUTHORIZATION) {
        value.set_sensitive(true);
    } else if let Ok(mut value) = HeaderValue::try_from(format!("Bearer {}", key.expose())) {
        value.set_sensitive(true);
        headers.insert(AUTHORIZATION, value);
    } else {
        headers.remove(AUTHORIZATION);
    }
}

/// As [`authenticate`], for what is kiegate's own: results and inboxes are open to whoever knows their address.
pub(super) fn authenticate_own(
    gateway: &Gateway,
    call: &Call,
    request: &mut Request,
) -> Result<(), ApiError> {
    if is_open_to_all(request.uri()) {
        return Ok(());
    }
    authenticate(gateway, call, request)?;
    let Some(member) = call.member.get() else { return Ok(()) };
    if !member.tenant.may_come_from(|| address(gateway, call, request)) {
        return Err(ApiError::new(Reason::Forbidden, NOT_FROM_THERE));
    }
    request.extensions_mut().insert(Caller(Arc::clone(&member.label)));
    Ok(())
}

/// Whether no key is asked for: of results and of inboxes.
fn is_open_to_all(uri: &Uri) -> bool {
    let path = uri.path();
    path.starts_with("/_media/") || path.strip_prefix("/_mock/inbox/").is_some_and(|rest| rest.contains('/'))
}

/// The key of a request: from `Authorization: Bearer`, `x-api-key`, `x-goog-api-key` or `?key=`.
fn api_key(headers: &HeaderMap, uri: &Uri) -> Option<Secret> {
    let text = |name| wire::values(headers, name).next().and_then(|value| value.to_str().ok());
    let bearer = || {
        let (scheme, key) = text(AUTHORIZATION)?.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then(|| key.trim())
    };
    let in_query = || {
        let key = uri.query()?.split('&').find_map(|pair| pair.strip_prefix("key="))?;
        // Clients that take it for a value encode it, and others do not: a `+` is one.
        percent_encoding::percent_decode_str(key).decode_utf8().ok()
    };
    let in_headers = bearer().or_else(|| text(API_KEY)).or_else(|| text(GOOGLE_KEY)).map(Cow::Borrowed);
    let key = in_headers.or_else(in_query)?;
    (!key.is_empty()).then(|| Secret::new(&*key))
}

const NOT_FROM_THERE: &str = "this key may not be used from your address";

/// Refuses what the tenant may not do, as far as that can be said before the body is here: paths that are no operation
/// where the gateway does not forward them, operations that are not allowed, addresses that it may not come from.
pub(super) fn permit(gateway: &Gateway, call: &Call, request: &Request) -> Result<(), ApiError> {
    let forbidden = |what: &str| Err(ApiError::new(Reason::Forbidden, what));
    if call.index.is_none() && !gateway.parts.forward_unknown {
        return forbidden("this gateway forwards known operations only (unknown_paths = \"deny\")");
    }
    let Some(member) = call.member.get() else { return Ok(()) };
    if !member.tenant.may_come_from(|| address(gateway, call, request)) {
        return forbidden(NOT_FROM_THERE);
    }
    if !member.may_call(call.index, call.operation) {
        return Err(not_allowed(call));
    }
    Ok(())
}

/// Where a request comes from: the peer, or, where that is a proxy which is believed, what the last proxy that is not says.
fn address(gateway: &Gateway, call: &Call, request: &Request) -> Option<IpAddr> {
    let trusted = |address: &IpAddr| gateway.parts.trusted_proxies.iter().any(|net| net.contains(*address));
    let Peer(peer) = call.peer?;
    if !trusted(&peer) {
        return Some(peer);
    }
    let told = wire::values(request.headers(), FORWARDED_FOR);
    let told = told.flat_map(|value| value.to_str().unwrap_or("?").split(',')).map(str::trim);
    // Source: RFC 9110, 5.6.1 (lists may have elements that are empty).
    let told: Vec<&str> = told.filter(|hop| !hop.is_empty()).collect();
    let mut address = peer;
    for hop in told.iter().rev() {
        // What cannot be read is nobody's address.
        address = hop_address(hop)?.to_canonical();
        if !trusted(&address) {
            break;
        }
    }
    Some(address)
}

/// The address of a hop. Some proxies tell the port as well, or put brackets around what has colons.
fn hop_address(hop: &str) -> Option<IpAddr> {
    let bare = hop.strip_prefix('[').and_then(|hop| hop.strip_suffix(']')).unwrap_or(hop);
    bare.parse().or_else(|_| hop.parse().map(|hop: SocketAddr| hop.ip())).ok()
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

/// Finds out whose the things are that a request names, and with that its way.
async fn own(gateway: &Gateway, call: &Arc<Call>, member: &Member, ask: &Ask) -> Result<Way, ApiError> {
    let operation = gateway.parts.catalogue.operation(ask.index);
    // What is said to a model leads to nothing, and nor does what is asked of the account as a whole, or what a file is called.
    if matches!(operation.class, Class::Chat | Class::Account | Class::Upload) {
        return Ok(Way::by(gateway, member, Verdict::Nothing));
    }
    let (catalogue, store, tenant) = (&gateway.parts.catalogue, &*gateway.parts.store, &member.tenant.id);
    let verdict = if operation.by_query {
        ownership::judge_query(store, tenant, ask.query(), catalogue.ids_of(ask.index, None)).await?
    } else {
        let request = ask.request(operation);
        let positions = catalogue.ids(ask.index, request);
        ownership::judge_body(store, tenant, request, ask.texts(), positions).await?
    };
    // The operation does not look for anything there, and the upstream might.
    let path = if operation.path.contains('{') { ask.parts.uri.path() } else { "" };
    let query = if operation.by_query { "" } else { ask.query() };
    let mut verdict = verdict;
    if !path.is_empty() || !query.is_empty() {
        verdict = verdict.and(ownership::judge_address(store, tenant, path, query).await?);
    }
    if operation.by_query && !ask.body.is_empty() {
        verdict = verdict.and(ownership::judge_unread(store, tenant, &said(call, &ask.body).await).await?);
    }
    Ok(Way::by(gateway, member, verdict))
}

/// The way of a request, by whose the things are that it names.
struct Way {
    lane: Lane,
    keys: Keys,
    /// The task that it names.
    task: Option<Arc<Task>>,
}

impl Way {
    fn by(gateway: &Gateway, member: &Member, verdict: Verdict) -> Self {
        let (lane, keys, thing) = match verdict {
            Verdict::Nothing => (first_key(gateway, member), Keys::Any, None),
            Verdict::Own(thing) => (gateway.lane_of(thing.key()), Keys::Only, Some(thing)),
            Verdict::Foreign => (Lane::Nowhere, Keys::Only, None),
        };
        let task = match thing {
            Some(Thing::Task(task)) => Some(task),
            _ => None,
        };
        Self { lane, keys, task }
    }
}

/// The way with the first of the tenant's keys that is good for something.
fn first_key(gateway: &Gateway, member: &Member) -> Lane {
    let usable = gateway.parts.accounts.usable(&member.keys);
    usable.first().map_or(Lane::Nowhere, |account| Lane::Live(account.key))
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

/// Refuses a request of which nobody here knows what it asks for, and the upstream might: another spelling of what is known, which
/// nobody would have looked at for what it names and costs, and text that cannot be read.
fn undisguised(gateway: &Gateway, call: &Call, request: &Request) -> Result<(), ApiError> {
    let (catalogue, method, path) = (&gateway.parts.catalogue, request.method(), request.uri().path());
    let forbidden = |what: String| Err(ApiError::new(Reason::Forbidden, what));
    if let Some(meant) = catalogue.path_meant_by(path) {
        return forbidden(format!("this path is another spelling of {meant}: send it as that"));
    }
    if is_own_in_disguise(path) {
        return forbidden("paths below /_ are this gateway's own and never passed on".to_owned());
    }
    let is_operation = |method: &Method| matches!(catalogue.resolve(method, path), Resolved::Operation(_));
    // Servers mostly make the same of it as of a GET, which may cost something.
    if method == Method::HEAD && is_operation(&Method::GET) {
        return forbidden("HEAD of a known operation is not passed on: send GET".to_owned());
    }
    let capitals = method.as_str().to_ascii_uppercase();
    if capitals != method.as_str() && capitals.parse().is_ok_and(|method| is_operation(&method)) {
        return forbidden(format!("{method} is another spelling of {capitals}: send it as that"));
    }
    let coded = wire::values(request.headers(), CONTENT_ENCODING).any(|coding| coding != "identity");
    if coded && !call.streams && !request.body().is_end_stream() {
        let what = "a compressed body cannot be looked into for what it names: send it as it is";
        return Err(ApiError::new(Reason::BodyMalformed, what));
    }
    Ok(())
}

/// Whether a path that begins otherwise is one of kiegate's own once it is decoded; upstream may be a kiegate, too.
fn is_own_in_disguise(path: &str) -> bool {
    let decoded = percent_encoding::percent_decode_str(path).decode_utf8_lossy();
    decoded.trim_start_matches('/').starts_with('_')
}

/// What stands for the fields of a form, which nobody here reads.
const FORM: &[u8] = b"{}";

/// What a body says of which nobody knows what it means; a large one is read where nobody else waits for that.
async fn said(call: &Arc<Call>, body: &Bytes) -> Said {
    if body.len() <= LARGE {
        return Said::of(body);
    }
    // The work goes on without its client, and so does the room that it takes.
    let (call, body) = (Arc::clone(call), body.clone());
    compute(move || (Said::of(&body), call).0).await
}

/// Judges a request of which nobody knows what it asks for: what is another's may stand nowhere in it, as far as it can be
/// read.
async fn judge_unknown(
    gateway: &Gateway,
    call: &Arc<Call>,
    member: &Member,
    request: &mut Request,
) -> Result<Verdict, ApiError> {
    let (store, tenant, uri) = (&*gateway.parts.store, &member.tenant.id, request.uri());
    let query = uri.query().unwrap_or_default();
    let mut verdict = ownership::judge_address(store, tenant, uri.path(), query).await?;
    if !call.streams {
        let body = std::mem::take(request.body_mut()).collect().await;
        let body = body.map_err(|error| UpstreamError::of_body(&error))?.to_bytes();
        verdict = verdict.and(ownership::judge_unread(store, tenant, &said(call, &body).await).await?);
        if !body.is_empty() {
            *request.body_mut() = Body::from(body);
        }
    }
    Ok(verdict)
}

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
