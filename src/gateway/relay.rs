//! What comes from upstream, and what tenants may ask about it: `/_relay/…` and `/_events`.

use axum::body::Body;
use axum::extract::Request;
use axum::response::{IntoResponse as _, Response};
use http::header::{ALLOW, CONTENT_TYPE};
use http::{HeaderValue, Method, StatusCode};
use http_body_util::BodyExt as _;
use serde_json::{Value, json};

use super::call::Call;
use super::steps;
use super::{Gateway, Lane};
use crate::error::{ApiError, ProblemDocument};
use crate::ids::TenantId;
use crate::proxy::KeyIx;
use crate::store::CreateId;
use crate::tasks::Received;

/// What stands before the name of a create in the address that the upstream calls back.
pub const RELAY: &str = "/_relay/";
const FEED: &str = "/_events";
/// So many happenings are told at once, at most and unless asked otherwise.
const MOST: usize = 100;

/// Whether a request is a callback from upstream.
pub(super) fn is_callback(request: &Request) -> bool {
    request.uri().path().starts_with(RELAY)
}

/// Whether a request asks what happened to a tenant's tasks.
pub(super) fn is_feed(request: &Request) -> bool {
    request.uri().path() == FEED
}

/// Takes a callback in. The upstream hears that all is well once it is written down, and a refusal where trying again is
/// of no use.
pub(super) async fn receive(gateway: &Gateway, call: &Call, request: Request) -> Result<Response, ApiError> {
    if request.method() != Method::POST {
        return Ok(wrong_method("callbacks are posted", "POST"));
    }
    let name = request.uri().path().strip_prefix(RELAY).and_then(CreateId::parse);
    // Anybody can come here, so nothing is read before it is known that there is somebody to read it for.
    let known = match name {
        Some(create) => gateway.parts.store.by_create(create).await?.map(|task| task.create),
        None => None,
    };
    let Some(create) = known else { return Ok(answered(gateway, Received::Unknown)) };
    let request = steps::bound_body(gateway, call, request).await?;
    Ok(take_in(gateway, create, request).await)
}

async fn take_in(gateway: &Gateway, create: CreateId, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let Ok(body) = body.collect().await else {
        return ProblemDocument::bad_request("the body broke off").into_response();
    };
    let body = body.to_bytes();
    let received = match gateway.parts.tracker.called_back(create, &parts.headers, &body).await {
        Ok(received) => received,
        Err(error) => {
            tracing::error!("a callback cannot be written down: {error}");
            return ProblemDocument::new(StatusCode::SERVICE_UNAVAILABLE, "try again").into_response();
        }
    };
    if matches!(received, Received::Accepted | Received::Duplicate | Received::Woken)
        && let Some(recorder) = &gateway.parts.recorder
    {
        let url = gateway.relay_url(create, Lane::Live(KeyIx::default())).unwrap_or_default();
        recorder.called_back(&url, &parts.headers, &body, 200);
    }
    answered(gateway, received)
}

/// What the upstream is answered.
fn answered(gateway: &Gateway, received: Received) -> Response {
    let (status, detail) = match received {
        Received::Accepted | Received::Duplicate | Received::Woken => {
            return json_response(&json!({"code": 200, "msg": "success"}));
        }
        Received::Unknown => (StatusCode::NOT_FOUND, "there is no such callback address"),
        Received::BadSignature => (StatusCode::UNAUTHORIZED, "the signature is wrong or missing"),
        Received::OtherTask => (StatusCode::CONFLICT, "this address belongs to another task"),
        Received::Malformed => (StatusCode::BAD_REQUEST, "this is no callback: JSON that names its task"),
    };
    if received == Received::Unknown {
        gateway.parts.metrics.callback_received("other", received.name());
    }
    tracing::warn!(result = received.name(), "a callback was refused");
    ProblemDocument::new(status, detail).into_response()
}

/// What happened to the tenant's tasks after a place in its list.
pub(super) async fn feed(gateway: &Gateway, call: &Call, request: Request) -> Response {
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        return wrong_method("events are read: send GET", "GET, HEAD");
    }
    let Some(member) = call.member() else {
        let detail = "events are told to tenants: send the key of one";
        return ProblemDocument::new(StatusCode::NOT_FOUND, detail).into_response();
    };
    let (after, limit) = match page(request.uri().query().unwrap_or_default()) {
        Ok(page) => page,
        Err(detail) => return ProblemDocument::bad_request(detail).into_response(),
    };
    let tenant: &TenantId = &member.tenant.id;
    let told = match gateway.parts.store.happenings(tenant, after, limit).await {
        Ok(told) => told,
        Err(error) => {
            tracing::error!("what happened cannot be read: {error}");
            return ProblemDocument::new(StatusCode::SERVICE_UNAVAILABLE, "try again").into_response();
        }
    };
    let cursor = told.last().map_or(after, |last| last.cursor);
    let events: Vec<Value> = told
        .iter()
        .map(|happening| {
            json!({
                "cursor": happening.cursor.to_string(),
                "at": happening.at.to_rfc3339(),
                "taskId": &*happening.task_id,
                "operation": &*happening.operation,
                "body": serde_json::from_slice::<Value>(&happening.body).ok(),
            })
        })
        .collect();
    json_response(&json!({"events": events, "cursor": cursor.to_string()}))
}

fn wrong_method(detail: &str, allowed: &'static str) -> Response {
    let mut response = ProblemDocument::new(StatusCode::METHOD_NOT_ALLOWED, detail).into_response();
    response.headers_mut().insert(ALLOW, HeaderValue::from_static(allowed));
    response
}

/// `after` and `limit` of a query.
fn page(query: &str) -> Result<(u64, usize), String> {
    let (mut after, mut limit) = (0, MOST);
    for (name, value) in form_urlencoded::parse(query.as_bytes()) {
        match &*name {
            "after" => {
                after = value.parse().map_err(|_| "after is the cursor of an earlier answer".to_owned())?;
            }
            "limit" => {
                let number = value.parse().ok().filter(|number| (1..=1000).contains(number));
                limit = number.ok_or("limit is a number from 1 to 1000")?;
            }
            "key" => {}
            other => return Err(format!("there is no parameter {other:?}; there are after and limit")),
        }
    }
    Ok((after, limit))
}

fn json_response(value: &Value) -> Response {
    let mut response = Response::new(Body::from(value.to_string()));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}
