//! Answers that are read whole, because the gateway must understand, share or keep them.

use std::time::Duration;

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use futures_util::FutureExt as _;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use http_body::Body as _;
use http_body_util::BodyExt as _;
use serde_json::Value;
use tokio::time::{Instant, timeout_at};

use crate::catalogue::Catalogue;
use crate::proxy::{About, Answered, Upstream, UpstreamError};
use crate::sim::Fault;
use crate::store::KeptAnswer;
use crate::wire;

/// The largest answer that is read whole, in bytes; usual are some thousand.
const LARGEST: usize = 32 * 1024 * 1024;

/// How many headers answers are given on their way, at most.
pub(super) const OURS: usize = 8;

/// An answer with all of its body.
#[derive(Clone, Debug)]
pub(super) struct Whole {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
    /// What is to become of it on its way, where it was simulated.
    pub(super) fault: Option<Fault>,
}

impl Whole {
    /// Reads `response` to its end, unless it keeps us waiting for longer than `patience` since it first did.
    pub(super) async fn read(response: Response, patience: Duration) -> Result<Self, UpstreamError> {
        let (parts, body) = response.into_parts();
        let body = whole(body, patience).await?;
        let fault = parts.extensions.get::<Fault>().copied();
        Ok(Self { status: parts.status, headers: parts.headers, body, fault })
    }

    /// Sends a request of that head and that body once, and reads what is answered.
    pub(super) fn ask<'u>(
        upstream: &'u dyn Upstream,
        head: &Parts,
        body: &Bytes,
        about: &About,
        patience: Duration,
    ) -> impl Future<Output = Result<Self, UpstreamError>> + Send + use<'u> {
        let sending = upstream.ask(head, body, about);
        async move { Self::read(sending.await?, patience).await }
    }

    /// The body as JSON; null if it is none.
    pub(super) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }

    /// What the upstream says became of the request: the code of its envelope, or else the HTTP status.
    pub(super) fn code(&self, body: &Value) -> u16 {
        let code = body.get("code").and_then(Value::as_u64).and_then(|code| u16::try_from(code).ok());
        code.unwrap_or(self.status.as_u16())
    }

    /// The length of the body as its headers tell it.
    fn told_length(&self) -> Option<usize> {
        wire::values(&self.headers, CONTENT_LENGTH).next()?.to_str().ok()?.parse().ok()
    }

    /// The answer to be sent on.
    pub(super) fn into_response(mut self) -> Response {
        // The server counts the bytes itself; of a HEAD there are none to count.
        if !self.body.is_empty() && self.told_length() != Some(self.body.len()) {
            self.headers.remove(CONTENT_LENGTH);
        }
        let mut response = Response::new(Body::from(self.body));
        *response.status_mut() = self.status;
        *response.headers_mut() = self.headers;
        if let Some(fault) = self.fault {
            response.extensions_mut().insert(fault);
        }
        response
    }

    /// An answer of the upstream as it would be with that body, where all is well.
    pub(super) fn as_upstream(catalogue: &Catalogue, body: Bytes) -> Self {
        let kind = HeaderValue::from_str(&catalogue.shared().content_type).ok();
        let headers = kind.map(|kind| (CONTENT_TYPE, kind)).into_iter().collect();
        Self { status: StatusCode::OK, headers, body, fault: None }
    }

    /// The answer to be kept.
    pub(super) fn kept(&self) -> KeptAnswer {
        let Self { status, headers, body, .. } = self.compact();
        KeptAnswer { status: status.as_u16(), headers, body }
    }

    /// The same in memory of its own. What came over a connection is a part of the buffer that was read into, and holds all
    /// of it.
    pub(super) fn compact(&self) -> Self {
        let copy = |(name, value): (&HeaderName, &HeaderValue)| {
            let name = HeaderName::from_bytes(name.as_str().as_bytes()).ok()?;
            Some((name, HeaderValue::from_bytes(value.as_bytes()).ok()?))
        };
        // With room for what every answer is given, so that no copy has to grow.
        let mut headers = HeaderMap::with_capacity(self.headers.len() + OURS);
        headers.extend(self.headers.iter().filter_map(copy));
        Self { headers, body: Bytes::copy_from_slice(&self.body), ..self.clone() }
    }
}

impl Answered for Whole {
    fn status(&self) -> StatusCode {
        self.status
    }
}

/// All of `body`, or why it does not come. Most come in one piece, which is not copied.
async fn whole(mut body: Body, patience: Duration) -> Result<Bytes, UpstreamError> {
    let (mut first, mut more) = (Bytes::new(), Vec::new());
    let mut length = 0;
    let mut until = None;
    while !body.is_end_stream() {
        // Mostly it is here already, and nobody has to look at the clock.
        let frame = if let Some(frame) = body.frame().now_or_never() {
            frame
        } else {
            let until = *until.get_or_insert_with(|| Instant::now() + patience);
            let late = |_| UpstreamError::Timeout(patience);
            timeout_at(until, body.frame()).await.map_err(late)?
        };
        let Some(frame) = frame else { break };
        let broken = |error| UpstreamError::Broken(format!("in the midst of its answer: {error}"));
        let Ok(piece) = frame.map_err(broken)?.into_data() else { continue };
        length += piece.len();
        if length > LARGEST {
            return Err(UpstreamError::AnswerTooLarge(LARGEST));
        }
        if first.is_empty() {
            first = piece;
        } else {
            more.push(piece);
        }
    }
    if more.is_empty() {
        return Ok(first);
    }
    more.insert(0, first);
    Ok(more.concat().into())
}

impl From<&KeptAnswer> for Whole {
    fn from(kept: &KeptAnswer) -> Self {
        let status = StatusCode::from_u16(kept.status).unwrap_or(StatusCode::OK);
        Self { status, headers: kept.headers.clone(), body: kept.body.clone(), fault: None }
    }
}
