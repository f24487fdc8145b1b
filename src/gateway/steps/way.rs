//! Which way a request goes, by whose the things are that it names.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::Request;
use bytes::Bytes;
use http::Method;
use http::header::CONTENT_ENCODING;
use http_body::Body as _;
use http_body_util::BodyExt as _;

use crate::background::compute;
use crate::catalogue::Resolved;
use crate::error::{ApiError, Reason};
use crate::gateway::ask::{Ask, LARGE, may_name_things};
use crate::gateway::call::Call;
use crate::gateway::member::Member;
use crate::gateway::{Gateway, Keys, Lane};
use crate::proxy::UpstreamError;
use crate::store::Task;
use crate::tasks::ownership::{self, Said, Thing, Verdict};
use crate::wire;

/// Finds out whose the things are that a request names, and with that its way.
pub(super) async fn own(
    gateway: &Gateway,
    call: &Arc<Call>,
    member: &Member,
    ask: &Ask,
) -> Result<Way, ApiError> {
    let operation = gateway.parts.catalogue.operation(ask.index);
    if !may_name_things(operation) {
        return Ok(Way::by(gateway, member, Verdict::Nothing));
    }
    let (catalogue, store, tenant) = (&gateway.parts.catalogue, &*gateway.parts.store, &member.tenant.id);
    let mut verdict = if operation.by_query {
        ownership::judge_query(store, tenant, ask.query(), catalogue.ids_of(ask.index, None)).await?
    } else {
        let request = ask.request(operation);
        let positions = catalogue.ids(ask.index, request);
        ownership::judge_body(store, tenant, request, ask.texts(), positions).await?
    };
    // The operation does not look for anything there, and the upstream might.
    let path = if operation.path.contains('{') { ask.parts.uri.path() } else { "" };
    let query = if operation.by_query { "" } else { ask.query() };
    if !path.is_empty() || !query.is_empty() {
        verdict = verdict.and(ownership::judge_address(store, tenant, path, query).await?);
    }
    if operation.by_query && !ask.body.is_empty() {
        verdict = verdict.and(ownership::judge_unread(store, tenant, &said(call, &ask.body).await).await?);
    }
    Ok(Way::by(gateway, member, verdict))
}

/// The way of a request, by whose the things are that it names.
pub(super) struct Way {
    pub(super) lane: Lane,
    pub(super) keys: Keys,
    /// The task that it names.
    pub(super) task: Option<Arc<Task>>,
}

impl Way {
    pub(super) fn by(gateway: &Gateway, member: &Member, verdict: Verdict) -> Self {
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

/// Refuses a request of which nobody here knows what it asks for, and the upstream might: another spelling of what is known, which
/// nobody would have looked at for what it names and costs, and text that cannot be read.
pub(super) fn undisguised(gateway: &Gateway, call: &Call, request: &Request) -> Result<(), ApiError> {
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
pub(super) async fn judge_unknown(
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
