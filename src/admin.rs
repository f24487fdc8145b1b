//! The operators' plane: health, metrics, a page that says what there is, and one to read about the API in.

mod docs;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::extract::{Request, State};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{Html, IntoResponse as _, Response};
use axum::routing::get;
use axum::{Json, Router};
use http::header::{AUTHORIZATION, CONTENT_TYPE, WWW_AUTHENTICATE};
use http::{HeaderValue, StatusCode};
use serde_json::Value;

use crate::clock::digest;
use crate::error::ProblemDocument;
use crate::ids::Secret;
use crate::openapi::Document;
use crate::telemetry::Metrics;

/// What the admin plane needs to know.
pub struct Admin {
    /// What `/metrics` shows.
    pub metrics: Arc<Metrics>,
    /// What operators must send; absent: nothing.
    pub token: Option<Secret>,
    /// Whether `/metrics` needs the token too.
    pub protect_metrics: bool,
    /// Whether requests are taken; false while the process stops.
    pub ready: Arc<AtomicBool>,
    /// `mock`, `live`, …
    pub mode: &'static str,
    /// Where the data plane listens, for the page.
    pub data_plane: String,
    /// The description of the API.
    pub document: Arc<Document>,
    /// How the upstream does.
    pub upstream: Status,
}

/// Something that can be looked at, as it is now.
pub type Status = Box<dyn Fn() -> Value + Send + Sync>;

/// All routes of the admin plane.
pub fn routes(admin: Admin) -> Router {
    let admin = Arc::new(admin);
    Router::new()
        .route("/livez", get(async || "ok\n"))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .route("/admin/upstream", get(upstream))
        .route("/", get(page))
        .merge(docs::routes())
        .fallback(unknown)
        .layer(from_fn_with_state(Arc::clone(&admin), authorize))
        .with_state(admin)
}

/// Lets in who has the token, or asks for nothing that needs it.
async fn authorize(State(admin): State<Arc<Admin>>, request: Request, next: Next) -> Response {
    let open = match request.uri().path() {
        "/livez" | "/readyz" => true,
        "/metrics" => !admin.protect_metrics,
        _ => false,
    };
    let sent =
        request.headers().get(AUTHORIZATION).and_then(|value| value.to_str().ok()?.strip_prefix("Bearer "));
    // Digests are compared, so that the time it takes says nothing of the token.
    let same = |token: &Secret| {
        sent.is_some_and(|sent| digest(&[sent.as_bytes()]) == digest(&[token.expose().as_bytes()]))
    };
    if open || admin.token.as_ref().is_none_or(same) {
        return next.run(request).await;
    }
    let detail = "send the admin token as `Authorization: Bearer <token>`";
    let mut response = ProblemDocument::new(StatusCode::UNAUTHORIZED, detail).into_response();
    response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    response
}

async fn readyz(State(admin): State<Arc<Admin>>) -> Response {
    if admin.ready.load(Ordering::Relaxed) {
        "ready\n".into_response()
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "draining\n").into_response()
    }
}

async fn metrics(State(admin): State<Arc<Admin>>) -> Response {
    let (content_type, page) = admin.metrics.page();
    let content_type = HeaderValue::from_str(&content_type).unwrap_or(HeaderValue::from_static("text/plain"));
    ([(CONTENT_TYPE, content_type)], page).into_response()
}

/// Keys by name, what is left of their quota, who waits, breakers.
async fn upstream(State(admin): State<Arc<Admin>>) -> Json<Value> {
    Json((admin.upstream)())
}

async fn page(State(admin): State<Arc<Admin>>) -> Html<String> {
    Html(
        include_str!("admin/index.html")
            .replace("{{mode}}", admin.mode)
            .replace("{{data}}", &admin.data_plane)
            .replace("{{version}}", env!("CARGO_PKG_VERSION")),
    )
}

async fn unknown(request: Request) -> ProblemDocument {
    let detail = format!(
        "there is no {}; there are /, /admin/upstream, /docs, /livez, /readyz and /metrics",
        request.uri().path()
    );
    ProblemDocument::new(StatusCode::NOT_FOUND, detail)
}
