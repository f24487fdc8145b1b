//! The live API, or the simulator, with somebody beside it who writes down what passes.

use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use axum::Router;
use axum::body::Body;
use axum::middleware::{Next, from_fn};
use bytes::Bytes;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use http::header::ACCEPT_ENCODING;
use http::{HeaderMap, Method, Request, Response};
use http_body::{Body as _, Frame, SizeHint};
use http_body_util::BodyExt as _;

use super::headers::{strip_hop_by_hop, strip_private};
use super::live::UPLOADS;
use super::{About, Upstream, UpstreamError};
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
            let whole =
                whole.map_err(|error| super::fault_of_body(&error).unwrap_or(UpstreamError::BodyBroken))?;
            (if whole.is_empty() { Body::empty() } else { Body::from(whole.clone()) }, Some(whole))
        };
        let mut shown = parts.headers.clone();
        strip_hop_by_hop(&mut shown);
        strip_private(&mut shown);
        let base = &self.bases[usize::from(parts.uri.path().starts_with(UPLOADS))];
        let mut exchange = self.recorder.sent(&Sent {
            operation: &about.operation,
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
                let end = End { exchange, status: parts.status.as_u16(), headers: parts.headers.clone() };
                Ok(Response::from_parts(parts, Body::new(Copied::new(body, end))))
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
        let (passing, broken) = (self.clone(), self.clone());
        let body = body.map_frame(move |frame| {
            passing.keep(frame.data_ref().map_or(&[], |data| data));
            frame
        });
        Body::new(body.map_err(move |error| {
            *broken.copy() = None;
            error
        }))
    }

    fn copy(&self) -> MutexGuard<'_, Option<Vec<u8>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn keep(&self, data: &[u8]) {
        let mut kept = self.copy();
        match &mut *kept {
            Some(copy) if copy.len() + data.len() <= LARGEST => copy.extend_from_slice(data),
            copy => *copy = None,
        }
    }

    fn taken(&self) -> Option<Vec<u8>> {
        self.copy().take()
    }
}

/// What is known of an answer before its body.
struct End {
    exchange: Exchange,
    status: u16,
    headers: HeaderMap,
}

/// Passes a body on and keeps a copy of it, which is written down at its end, or when it is dropped before.
struct Copied {
    body: Body,
    copy: Option<Vec<u8>>,
    size: u64,
    is_complete: bool,
    end: Option<End>,
}

impl Copied {
    fn new(body: Body, end: End) -> Self {
        Self { body, copy: Some(Vec::new()), size: 0, is_complete: false, end: Some(end) }
    }

    fn keep(&mut self, data: &[u8]) {
        self.size += data.len() as u64;
        match &mut self.copy {
            Some(copy) if copy.len() + data.len() <= LARGEST => copy.extend_from_slice(data),
            copy => *copy = None,
        }
    }

    fn finish(&mut self) {
        if let Some(End { exchange, status, headers }) = self.end.take() {
            exchange.answered(status, &headers, self.copy.take().as_deref(), self.size, self.is_complete);
        }
    }
}

impl http_body::Body for Copied {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let polled = Pin::new(&mut self.body).poll_frame(context);
        match &polled {
            Poll::Ready(Some(Ok(frame))) => {
                if let Some(data) = frame.data_ref() {
                    self.keep(data);
                }
                // Whoever knows the length does not ask for more.
                if self.body.is_end_stream() {
                    self.is_complete = true;
                    self.finish();
                }
            }
            Poll::Ready(None) => {
                self.is_complete = true;
                self.finish();
            }
            Poll::Ready(Some(Err(_))) => self.finish(),
            Poll::Pending => {}
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Copied {
    fn drop(&mut self) {
        // An empty body is never polled: it is complete as it is.
        self.is_complete |= self.body.is_end_stream();
        self.finish();
    }
}
