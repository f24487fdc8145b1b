//! `/docs`: a page to read the description of the API in. Static files that load the document from this plane and
//! nothing from anywhere else.

use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{any, get};
use http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS};

use super::Admin;

/// Nothing but what comes from here; no inline code.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; \
    base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

pub(super) fn routes() -> Router<Arc<Admin>> {
    Router::new()
        .route("/docs", get(page))
        .route("/docs/style.css", get(async || file("text/css", include_str!("docs/style.css").to_owned())))
        .route("/docs/app.js", get(async || file("text/javascript", include_str!("docs/app.js").to_owned())))
        .route("/docs/openapi.json", any(document))
}

async fn page(State(admin): State<Arc<Admin>>) -> Response {
    let text = include_str!("docs/index.html")
        .replace("{{mode}}", admin.mode)
        .replace("{{data}}", &admin.data_plane)
        .replace("{{version}}", env!("CARGO_PKG_VERSION"));
    file("text/html", text)
}

async fn document(State(admin): State<Arc<Admin>>, request: Request) -> Response {
    admin.document.answer(request.method(), request.headers())
}

fn file(content_type: &str, text: String) -> Response {
    let headers = [
        (CONTENT_TYPE, format!("{content_type}; charset=utf-8")),
        (CONTENT_SECURITY_POLICY, POLICY.to_owned()),
        (X_CONTENT_TYPE_OPTIONS, "nosniff".to_owned()),
        (CACHE_CONTROL, "no-cache".to_owned()),
    ];
    (headers, text).into_response()
}
