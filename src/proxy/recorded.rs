//! The live API with somebody beside it who writes down what passes.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::body::Body;
use bytes::Bytes;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use http::header::ACCEPT_ENCODING;
use http::{HeaderMap, Request, Response};
use http_body::{Body as _, Frame, SizeHint};

use super::headers::{strip_hop_by_hop, strip_private};
use super::live::UPLOADS;
use super::{About, Upstream, UpstreamError};
use crate::record::{Exchange, Recorder, Sent};

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
        let (body, whole) = if body.is_end_stream() {
            (body, Some(Bytes::new()))
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
        });
        let answer = self.upstream.send(Request::from_parts(parts, body), about).await;
        match answer {
            Ok(response) => {
                exchange.head();
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
