//! The data plane: its routes, and the steps that a request of the API goes through.
//!
//! A step is a few lines of glue in `steps`; verdicts come from the module that owns them. What answers in the end
//! is an [`Upstream`], and no step knows which one. `server` turns sockets into requests, for both planes; `tls` has their
//! certificates.

mod server;
mod steps;
mod tls;

use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use axum::response::Response;
use tower::ServiceExt as _;

pub use server::{Answer, Bounds, Peer, Plane, serve};
pub use tls::{Tls, TlsError};

use steps::Call;

use crate::catalogue::Catalogue;
use crate::clock::Clock;
use crate::error::ApiError;
use crate::openapi::Document;
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
    document: Arc<Document>,
    tenants: RwLock<Arc<Tenants>>,
    names: Names,
    /// By position: ids of operations, for labels.
    operation_ids: Vec<Arc<str>>,
}

/// Labels of what is no operation.
struct Names {
    control: Arc<str>,
    media: Arc<str>,
    document: Arc<str>,
    other: Arc<str>,
}

impl Gateway {
    /// Builds it, without tenants; starts nothing.
    pub fn new(parts: Parts) -> Self {
        let operation_ids = parts.catalogue.operations().map(|(_, operation)| operation.id.as_str().into());
        Self {
            names: Names {
                control: "mock".into(),
                media: "media".into(),
                document: "openapi".into(),
                other: "other".into(),
            },
            operation_ids: operation_ids.collect(),
            document: Arc::new(Document::new(Arc::clone(&parts.catalogue))),
            tenants: RwLock::default(),
            parts,
        }
    }

    /// The description of the API that stands behind it.
    pub fn document(&self) -> Arc<Document> {
        Arc::clone(&self.document)
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

/// The data plane as a whole: the API, and beside it what is kiegate's own.
#[derive(Clone)]
pub struct DataPlane {
    gateway: Arc<Gateway>,
    own: Router,
}

impl DataPlane {
    /// `own` are the routes below `/_…`; without them such paths are answered as not there, and never forwarded.
    pub fn new(gateway: Arc<Gateway>, own: Option<Router>) -> Self {
        let own =
            own.unwrap_or_else(|| Router::new().fallback(steps::not_here).with_state(Arc::clone(&gateway)));
        Self { gateway, own }
    }

    /// Answers a request.
    pub async fn answer(&self, request: Request) -> Response {
        let call = Arc::new(steps::identify(&self.gateway, &request)); // request id and operation, which all others speak of
        let line = format!("{} {}", request.method(), request.uri().path());
        let answered = if steps::is_own(&request) {
            Box::pin(self.answer_own(&call, request)).await // seldom, and large: others need not carry it
        } else if steps::is_document(&request) {
            self.answer_document(&call, request)
        } else {
            self.answer_api(&call, request).await
        };
        let response = answered.unwrap_or_else(|error| steps::refuse(&self.gateway, &call, error));
        steps::record(&self.gateway, call, line, response) // sees everything, refusals too: one line, one sample
    }

    /// The path of a request of the API, in its order. A new concern is a new line.
    async fn answer_api(&self, call: &Call, request: Request) -> Result<Response, ApiError> {
        let gateway = &*self.gateway;
        let request = steps::authenticate(gateway, call, request)?; // key to tenant, or 401
        let request = steps::permit(gateway, call, request)?; // what the tenant may do at all
        let request = steps::bound_body(gateway, call, request).await?; // no more is read than agreed
        Ok(steps::send_upstream(gateway, call, request).await)
    }

    /// The path of a request for the description of the API: open where the API is, else for those who have a key.
    fn answer_document(&self, call: &Call, request: Request) -> Result<Response, ApiError> {
        let request = steps::authenticate(&self.gateway, call, request)?;
        Ok(self.gateway.document.answer(request.method(), request.headers()))
    }

    /// The path of a request for what is kiegate's own.
    async fn answer_own(&self, call: &Call, request: Request) -> Result<Response, ApiError> {
        let gateway = &*self.gateway;
        let request = steps::authenticate_own(gateway, call, request)?;
        let request = steps::bound_body(gateway, call, request).await?;
        Ok(self.own.clone().oneshot(request).await.unwrap_or_else(|never| match never {}))
    }
}
