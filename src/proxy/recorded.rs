//! The live API, or the simulator, with somebody beside it who writes down what passes.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::Router;
use axum::body::Body;
use axum::middleware::{Next, from_fn};
use bytes::Bytes;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use http::header::ACCEPT_ENCODING;
use http::request::Parts;
use http::{HeaderMap, Method, Request, Response};
use http_body::Body as _;

use super::headers::keep_for_upstream;
use super::live::UPLOADS;
use super::{About, Upstream, UpstreamError, World, request_of};
use crate::heard::{End, Heard, Listener};
use crate::record::{Exchange, Recorder, Sent, Steering};
use crate::sim::{Fault, SandboxId};

/// The largest answer that is kept, in bytes.
const LARGEST: usize = 10 * 1024 * 1024;

/// Says whether what a tenant asks is recorded.
pub type Wanted = Box<dyn Fn(Option<&str>) -> bool + Send + Sync>;

/// An upstream whose exchanges are recorded, for those who want it.
pub struct Recorded {
    /// Who answers.
    pub upstream: Arc<dyn Upstream>,
    /// Who writes.
    pub recorder: Arc<Recorder>,
    /// How addresses of the API begin, and those of uploads.
    pub bases: [String; 2],
    /// Whether what that tenant asks is recorded.
    pub wanted: Wanted,
}

impl Recorded {
    async fn pass(&self, mut request: Request<Body>, about: About) -> Result<Response<Body>, UpstreamError> {
        // What is compressed cannot be read in a recording.
        request.headers_mut().remove(ACCEPT_ENCODING);
        let (parts, body) = request.into_parts();
        let is_steered = self.recorder.is_of_simulator();
        let mut passing = None;
        let (body, whole) = if body.is_end_stream() {
            (body, Some(Bytes::new()))
        } else if about.streams && is_steered {
            let copy = Passing::default();
            passing = Some(copy.clone());
            (copy.of(body), None)
        } else if about.streams {
            (body, None)
        } else {
            let whole = axum::body::to_bytes(body, usize::MAX).await;
            let whole = whole.map_err(|error| UpstreamError::of_body(&error))?;
            (if whole.is_empty() { Body::empty() } else { Body::from(whole.clone()) }, Some(whole))
        };
        let mut shown = parts.headers.clone();
        keep_for_upstream(&mut shown);
        let base = &self.bases[usize::from(parts.uri.path().starts_with(UPLOADS))];
        let mut exchange = self.recorder.sent(&Sent {
            operation: about.operation,
            base,
            method: &parts.method,
            uri: &parts.uri,
            keys: &parts.headers,
            headers: &shown,
            body: whole.as_deref(),
            steering: is_steered.then(|| steering(&parts.headers, false)),
        });
        let answer = self.upstream.send(Request::from_parts(parts, body), about).await;
        if let Some(brought) = passing.and_then(|passing| passing.taken()) {
            exchange.brought(&shown, &brought);
        }
        match answer {
            Ok(response) => {
                exchange.head();
                if let Some(fault) = response.extensions().get::<Fault>() {
                    exchange.mishap(fault.name());
                }
                let (parts, body) = response.into_parts();
                let head = Head { exchange, status: parts.status.as_u16(), headers: parts.headers.clone() };
                Ok(Response::from_parts(parts, Body::new(Heard::new(body, Copied::new(head)))))
            }
            Err(error) => {
                exchange.unanswered(&error.to_string());
                Err(error)
            }
        }
    }
}

impl Upstream for Recorded {
    fn send(
        &self,
        request: Request<Body>,
        about: About,
    ) -> BoxFuture<'_, Result<Response<Body>, UpstreamError>> {
        if (self.wanted)(about.tenant.as_deref()) {
            self.pass(request, about).boxed()
        } else {
            self.upstream.send(request, about)
        }
    }

    fn ask<'u>(
        &'u self,
        head: &Parts,
        body: &Bytes,
        about: &About,
    ) -> BoxFuture<'u, Result<Response<Body>, UpstreamError>> {
        if (self.wanted)(about.tenant.as_deref()) {
            self.pass(request_of(head, body), about.clone()).boxed()
        } else {
            self.upstream.ask(head, body, about)
        }
    }

    fn world(&self, headers: &HeaderMap, tenant: Option<&Arc<str>>) -> Option<World> {
        self.upstream.world(headers, tenant)
    }
}

/// The routes that steer a simulator, with somebody beside them who writes down how it is steered. What only asks is not
/// written down.
pub fn steered(routes: Router, recorder: Arc<Recorder>) -> Router {
    let beside = move |request: Request<Body>, next: Next| {
        let recorder = Arc::clone(&recorder);
        async move {
            if request.method() == Method::GET || !request.uri().path().starts_with("/_mock") {
                return next.run(request).await;
            }
            let (parts, body) = request.into_parts();
            let mut exchange = recorder.sent(&Sent {
                operation: "mock",
                base: "https://simulator.invalid",
                method: &parts.method,
                uri: &parts.uri,
                keys: &parts.headers,
                headers: &HeaderMap::new(),
                body: None,
                steering: Some(steering(&parts.headers, true)),
            });
            let passing = Passing::default();
            let response = next.run(Request::from_parts(parts, passing.of(body))).await;
            if let Some(brought) = passing.taken() {
                exchange.brought(&HeaderMap::new(), &brought);
            }
            exchange.head();
            exchange.answered(response.status().as_u16(), &HeaderMap::new(), None, 0, true);
            response
        }
    };
    routes.layer(from_fn(beside))
}

/// What a simulator hears in the head of a request.
fn steering(headers: &HeaderMap, is_control: bool) -> Steering {
    let text =
        |name: &str| headers.get(name).map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned());
    Steering {
        sandbox: SandboxId::of_caller(headers).map(|id| id.to_string()),
        host: text("host"),
        outcome: text("x-mock-outcome"),
        delay: text("x-mock-delay"),
        is_control,
    }
}

/// A copy of what was taken of a request's body that streamed; nothing where that broke off, or was too large.
#[derive(Clone)]
struct Passing(Arc<Mutex<Option<Vec<u8>>>>);

impl Default for Passing {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(Some(Vec::new()))))
    }
}

impl Passing {
    /// `body`, copied while it passes.
    fn of(&self, body: Body) -> Body {
        Body::new(Heard::new(body, self.clone()))
    }

    fn copy(&self) -> MutexGuard<'_, Option<Vec<u8>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn taken(&self) -> Option<Vec<u8>> {
        self.copy().take()
    }
}

impl Listener for Passing {
    fn piece(&mut self, piece: &Bytes) {
        add(&mut self.copy(), piece);
    }

    fn end(&mut self, how: End) {
        if how == End::Broken {
            *self.copy() = None;
        }
    }
}

/// What is known of an answer before its body.
struct Head {
    exchange: Exchange,
    status: u16,
    headers: HeaderMap,
}

/// Keeps a copy of an answer's body, which is written down at its end, or when it is dropped before.
struct Copied {
    copy: Option<Vec<u8>>,
    size: u64,
    end: Option<Head>,
}

impl Copied {
    fn new(head: Head) -> Self {
        Self { copy: Some(Vec::new()), size: 0, end: Some(head) }
    }
}

impl Listener for Copied {
    fn piece(&mut self, piece: &Bytes) {
        self.size += piece.len() as u64;
        add(&mut self.copy, piece);
    }

    fn end(&mut self, how: End) {
        if let Some(Head { exchange, status, headers }) = self.end.take() {
            let copy = self.copy.take();
            exchange.answered(status, &headers, copy.as_deref(), self.size, how == End::Whole);
        }
    }
}

/// Adds to a copy, or gives it up where it grows too large.
fn add(copy: &mut Option<Vec<u8>>, piece: &[u8]) {
    match copy {
        Some(there) if there.len() + piece.len() <= LARGEST => there.extend_from_slice(piece),
        copy => *copy = None,
    }
}
