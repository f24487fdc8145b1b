//! The data plane: its routes, and the steps that a request of the API goes through.
//!
//! A step is a few lines of glue in `layers`; verdicts come from the module that owns them. What answers in the end
//! is an [`Upstream`], and no step knows which one. `server` turns sockets into requests, for both planes.

mod layers;
mod server;

use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use axum::middleware::from_fn_with_state;
use axum::response::{IntoResponse as _, Response};
use axum::routing::any;

pub use server::{Bounds, Plane, serve};

use crate::catalogue::Catalogue;
use crate::clock::Clock;
use crate::error::ApiError;
use crate::proxy::Upstream;
use crate::telemetry::Metrics;
use crate::tenants::Tenants;

/// What a [`Gateway`] is built from.
pub struct Parts {
    /// The operations of the API.
    pub catalogue: Arc<Catalogue>,
    /// Real time.
    pub clock: Clock,
    /// Whether a key that belongs to no tenant is let through, for the upstream to judge: the open simulator.
    pub open: bool,
    /// What `X-Kiegate-Mode` says.
    pub mode: &'static str,
    /// What answers.
    pub upstream: Arc<dyn Upstream>,
    /// Who is told.
    pub metrics: Arc<Metrics>,
    /// The largest JSON body, in bytes.
    pub largest_json: usize,
    /// The largest upload, in bytes.
    pub largest_upload: usize,
    /// How long a body may stop coming.
    pub body_timeout: Duration,
    /// Whether a path that is no operation goes upstream.
    pub forward_unknown: bool,
}

/// What the steps need to know.
pub struct Gateway {
    parts: Parts,
    tenants: RwLock<Arc<Tenants>>,
    names: Names,
    /// By position: ids of operations, for labels.
    operation_ids: Vec<Arc<str>>,
}

/// Labels of what is no operation.
struct Names {
    control: Arc<str>,
    media: Arc<str>,
    other: Arc<str>,
}

impl Gateway {
    /// Builds it, without tenants; starts nothing.
    pub fn new(parts: Parts) -> Self {
        let operation_ids = parts.catalogue.operations().map(|(_, operation)| operation.id.as_str().into());
        Self {
            names: Names { control: "mock".into(), media: "media".into(), other: "other".into() },
            operation_ids: operation_ids.collect(),
            tenants: RwLock::default(),
            parts,
        }
    }

    /// The tenants as of now; a reload puts others in their place.
    pub fn tenants(&self) -> Arc<Tenants> {
        Arc::clone(&self.tenants.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Lets other tenants in from now on.
    pub fn set_tenants(&self, tenants: Tenants) {
        *self.tenants.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(tenants);
    }
}

/// All routes of the data plane; `beside` are those that are not of the API: the simulator's own.
pub fn routes(gateway: &Arc<Gateway>, beside: Option<Router>) -> Router {
    let step = |gateway: &Arc<Gateway>| Arc::clone(gateway);
    // The path of a request of the API, innermost first; what is added last is met first.
    let api = Router::new()
        .fallback(any(send_upstream))
        .layer(from_fn_with_state(step(gateway), layers::permit)) // what the tenant may do at all
        .layer(from_fn_with_state(step(gateway), layers::bound_body)) // nothing larger than agreed is read on anybody's behalf
        .layer(from_fn_with_state(step(gateway), layers::authenticate)) // key to tenant, or 401
        .with_state(step(gateway));
    let all = match beside {
        Some(beside) => beside
            .layer(from_fn_with_state(step(gateway), layers::bound_body))
            .layer(from_fn_with_state(step(gateway), layers::authenticate_beside))
            .fallback_service(api),
        // What is ours alone is never asked of the upstream.
        None => Router::new()
            .route("/_mock/{*ours}", any(layers::not_here))
            .route("/_media/{*ours}", any(layers::not_here))
            .with_state(step(gateway))
            .fallback_service(api),
    };
    all.layer(from_fn_with_state(step(gateway), layers::record)) // sees everything, refusals too: one line, one sample
        .layer(from_fn_with_state(step(gateway), layers::identify)) // request id and operation, which all others speak of
}

/// The end of the path.
async fn send_upstream(
    axum::extract::State(gateway): axum::extract::State<Arc<Gateway>>,
    request: Request,
) -> Response {
    let call = layers::call_of(&request);
    let waiting = call.upstream_waits();
    match gateway.parts.upstream.send(request).await {
        Ok(response) => {
            waiting.over();
            response
        }
        Err(error) => {
            waiting.over();
            tracing::warn!(request.id = %call.request_id(), "{error}");
            ApiError::from(error).into_response()
        }
    }
}
