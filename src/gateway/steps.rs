//! The steps of a request: a few lines of glue each, from a module's answer to HTTP. A step gives the request on, or
//! the error that ends its way.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::{IntoResponse as _, Response};
use futures_util::StreamExt as _;
use http::header::{AUTHORIZATION, CONTENT_LENGTH, EXPECT, HeaderName};
use http::{HeaderMap, HeaderValue, StatusCode, Uri};
use http_body::Body as _;
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use tokio::time::Instant;
use tower_http::timeout::{TimeoutBody, TimeoutError};

use super::{Gateway, Parts};
use crate::catalogue::{OperationIx, Resolved};
use crate::clock::hex;
use crate::error::{ApiError, ProblemDocument, Reason, Refused};
use crate::ids::Secret;
use crate::proxy::{About, KeyIx};
use crate::sim::Owner;
use crate::telemetry::{Finished, Observed, Report};

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const MODE: HeaderName = HeaderName::from_static("x-kiegate-mode");

/// What is known of a request while it is on its way; shared by all steps.
#[derive(Debug)]
pub(super) struct Call {
    began: Instant,
    request_id: HeaderValue,
    operation: Arc<str>,
    /// Absent for what is none of the API.
    index: Option<OperationIx>,
    /// For what is kiegate's own rather than the API.
    own: bool,
    /// Its body is not read here but streams through: a form with a file in it, or what nobody knows.
    streams: bool,
    tenant: OnceLock<Arc<str>>,
    /// Microseconds spent waiting for the upstream.
    upstream_micros: AtomicU64,
}

impl Call {
    pub(super) fn request_id(&self) -> &str {
        self.request_id.to_str().unwrap_or_default()
    }

    fn tenant(&self) -> &str {
        self.tenant.get().map_or("other", |tenant| tenant)
    }
}

/// Gives the request its id and says which operation it is.
pub(super) fn identify(gateway: &Gateway, request: &Request) -> Call {
    let (operation, index) = operation_of(gateway, request);
    let own = is_own(request) || is_document(request);
    let takes_form = |index| gateway.parts.catalogue.operation(index).takes_form();
    Call {
        began: Instant::now(),
        request_id: request_id(request.headers()).unwrap_or_else(new_request_id),
        operation,
        index,
        own,
        streams: !own && index.is_none_or(takes_form),
        tenant: OnceLock::new(),
        upstream_micros: AtomicU64::new(0),
    }
}

/// Whether a request is for what is kiegate's own, below `/_…`.
pub(super) fn is_own(request: &Request) -> bool {
    request.uri().path().starts_with("/_")
}

/// Whether a request is for the description of the API.
pub(super) fn is_document(request: &Request) -> bool {
    request.uri().path() == "/openapi.json"
}

/// The client's own id, if it is 1 to 128 visible ASCII characters.
fn request_id(headers: &HeaderMap) -> Option<HeaderValue> {
    let id = headers.get(REQUEST_ID)?;
    let fits = (1..=128).contains(&id.len()) && id.as_bytes().iter().all(u8::is_ascii_graphic);
    fits.then(|| id.clone())
}

fn new_request_id() -> HeaderValue {
    let id = hex(&rand::random::<[u8; 12]>());
    HeaderValue::from_str(&id).expect("hex digits are visible ASCII")
}

/// The operation's name in metrics, and its place in the catalogue if it is one of the API.
fn operation_of(gateway: &Gateway, request: &Request) -> (Arc<str>, Option<OperationIx>) {
    let path = request.uri().path();
    match gateway.parts.catalogue.resolve(request.method(), path) {
        Resolved::Operation(index) => (Arc::clone(&gateway.operation_ids[index.position()]), Some(index)),
        _ if path.starts_with("/_mock/") => (Arc::clone(&gateway.names.control), None),
        _ if path.starts_with("/_media/") => (Arc::clone(&gateway.names.media), None),
        _ if is_document(request) => (Arc::clone(&gateway.names.document), None),
        _ => (Arc::clone(&gateway.names.other), None),
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

/// Puts the call's id and the gateway's mode on the answer; counts it and writes its line once it has been sent or
/// given up.
pub(super) fn record(gateway: &Arc<Gateway>, call: Arc<Call>, line: String, response: Response) -> Response {
    let (mut parts, body) = response.into_parts();
    parts.headers.insert(REQUEST_ID, call.request_id.clone());
    parts.headers.insert(MODE, HeaderValue::from_static(gateway.parts.mode));
    let status = parts.status.as_u16();
    let refused = parts.extensions.get::<Refused>().map(|refused| refused.0);
    if let Some(reason) = refused {
        gateway.parts.metrics.refused(call.tenant(), reason);
    }
    // What is our own may wait on purpose; that is no overhead. Nor is the time that a body takes to stream.
    let waited = Duration::from_micros(call.upstream_micros.load(Ordering::Relaxed));
    let overhead = (!call.own).then(|| call.began.elapsed().saturating_sub(waited));
    let gateway = Arc::clone(gateway);
    let then = move |report: Report| {
        let took = call.began.elapsed();
        // A file that a client brought may look like an envelope, and means nothing.
        let code = report.code.filter(|_| !call.own);
        gateway.parts.metrics.request_finished(&Finished {
            tenant: call.tenant(),
            operation: &call.operation,
            mode: gateway.parts.mode,
            status,
            code,
            took,
            overhead,
        });
        let duration_ms = took.as_secs_f64() * 1000.0;
        tracing::info!(
            request.id = call.request_id(),
            tenant = call.tenant(),
            operation = &*call.operation,
            status,
            code,
            bytes = report.bytes,
            complete = report.complete,
            duration_ms,
            refused = refused.map(Reason::name),
            "{line}",
        );
    };
    Response::from_parts(parts, Body::new(Observed::new(body, then)))
}

/// Finds the tenant by its key. The key goes on in `Authorization` alone, wherever it came from.
pub(super) fn authenticate(
    gateway: &Gateway,
    call: &Call,
    mut request: Request,
) -> Result<Request, ApiError> {
    let key = api_key(request.headers(), request.uri());
    let tenant = key.as_ref().and_then(|key| gateway.tenants().authenticate(key, gateway.parts.clock.now()));
    if tenant.is_none() && !gateway.parts.open {
        let what =
            "this gateway does not know your key: send one of its own as `Authorization: Bearer <key>`";
        return Err(ApiError::new(Reason::Unauthorized, what));
    }
    if let Some(tenant) = tenant {
        let _ = call.tenant.set(tenant.id.as_str().into());
    }
    let headers = request.headers_mut();
    match key.map(|key| HeaderValue::from_str(&format!("Bearer {}", key.expose()))) {
        Some(Ok(mut value)) => {
            value.set_sensitive(true);
            headers.insert(AUTHORIZATION, value);
        }
        _ => drop(headers.remove(AUTHORIZATION)),
    }
    Ok(request)
}

/// As [`authenticate`], for what is kiegate's own: results and inboxes are open to whoever knows their address.
pub(super) fn authenticate_own(
    gateway: &Gateway,
    call: &Call,
    request: Request,
) -> Result<Request, ApiError> {
    let path = request.uri().path();
    let inbox = path.strip_prefix("/_mock/inbox/").is_some_and(|rest| rest.contains('/'));
    if path.starts_with("/_media/") || inbox {
        return Ok(request);
    }
    let mut request = authenticate(gateway, call, request)?;
    if let Some(tenant) = call.tenant.get() {
        request.extensions_mut().insert(Owner(Arc::clone(tenant)));
    }
    Ok(request)
}

/// The key of a request: from `Authorization: Bearer`, `x-api-key`, `x-goog-api-key` or `?key=`.
fn api_key(headers: &HeaderMap, uri: &Uri) -> Option<Secret> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let bearer = || {
        let (scheme, key) = text("authorization")?.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then(|| key.trim())
    };
    let in_query = || uri.query()?.split('&').find_map(|pair| pair.strip_prefix("key="));
    let key = bearer().or_else(|| text("x-api-key")).or_else(|| text("x-goog-api-key")).or_else(in_query)?;
    (!key.is_empty()).then(|| Secret::new(key))
}

/// Refuses what nobody may do here: paths that are no operation, where the gateway does not forward them.
pub(super) fn permit(gateway: &Gateway, call: &Call, request: Request) -> Result<Request, ApiError> {
    if call.index.is_none() && !gateway.parts.forward_unknown {
        let what = "this gateway forwards known operations only (unknown_paths = \"deny\")";
        return Err(ApiError::new(Reason::Forbidden, what));
    }
    Ok(request)
}

/// The end of the path: whatever stands behind the gateway answers.
pub(super) async fn send_upstream(gateway: &Gateway, call: &Call, request: Request) -> Response {
    let about = About {
        operation: Arc::clone(&call.operation),
        tenant: call.tenant.get().cloned(),
        streams: call.streams,
        key: KeyIx::default(),
    };
    let since = Instant::now();
    let answer = gateway.parts.upstream.send(request, about).await;
    let micros = u64::try_from(since.elapsed().as_micros()).unwrap_or(u64::MAX);
    call.upstream_micros.fetch_add(micros, Ordering::Relaxed);
    answer.unwrap_or_else(|error| {
        tracing::warn!(request.id = call.request_id(), "{error}");
        refuse(gateway, call, error.into())
    })
}

/// A path of kiegate's own that does not exist in this mode.
pub(super) async fn not_here(State(gateway): State<Arc<Gateway>>, uri: Uri) -> ProblemDocument {
    ProblemDocument::new(
        StatusCode::NOT_FOUND,
        format!("there is no {} in {} mode", uri.path(), gateway.parts.mode),
    )
}

/// Refuses bodies above the limit, and gives up on those that stop coming. A body that kiegate itself reads is read
/// here, so that one that grows too large is refused and not cut off; anything else streams through.
pub(super) async fn bound_body(
    gateway: &Gateway,
    call: &Call,
    request: Request,
) -> Result<Request, ApiError> {
    if request.body().is_end_stream() {
        return Ok(request);
    }
    let Parts { largest_json, largest_upload, body_timeout, .. } = gateway.parts;
    let most = if call.streams { largest_upload } else { largest_json };
    let (parts, body) = request.into_parts();
    let told = body.size_hint().lower();
    let body = TimeoutBody::new(body_timeout, body);
    if told > most as u64 {
        // A client that asks first has sent nothing yet. Any other is still sending, and hears us when it has done.
        if !parts.headers.contains_key(EXPECT) {
            discard(body).await;
        }
        return Err(too_large(most));
    }
    let body = Limited::new(body, most);
    if call.streams {
        return Ok(Request::from_parts(parts, Body::new(body)));
    }
    match body.collect().await {
        Ok(whole) => Ok(Request::from_parts(parts, Body::from(whole.to_bytes()))),
        Err(error) if error.is::<LengthLimitError>() => Err(too_large(most)),
        Err(error) if error.is::<TimeoutError>() => {
            let what = format!("the body stopped coming for {} s", body_timeout.as_secs());
            Err(ApiError::new(Reason::BodyTimeout, what))
        }
        Err(_) => Err(ApiError::new(Reason::BodyMalformed, "the body is malformed, or broke off")),
    }
}

fn too_large(most: usize) -> ApiError {
    let what = format!("the body is larger than {most} bytes, the most that this gateway takes here");
    ApiError::new(Reason::BodyTooLarge, what)
}

/// Reads and forgets a body, within bounds.
async fn discard(body: TimeoutBody<Body>) {
    const MOST: usize = 64 * 1024 * 1024;
    let all = Limited::new(body, MOST).into_data_stream().for_each(|_| std::future::ready(()));
    let _ = tokio::time::timeout(Duration::from_secs(5), all).await;
}
