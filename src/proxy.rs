//! What finally answers a request: the simulator, the live API, a recording. The gateway sees one interface.
//!
//! `live` is the real one, `recorded` the same with somebody beside it who writes, `replayed` what was written; `headers` says which headers travel; `retry` asks again where that is safe, `breaker` leaves
//! a host alone that does not answer. Who pays is nobody's business here.

mod breaker;
mod headers;
mod hiding;
mod live;
mod recorded;
mod replayed;
mod retry;
mod sending;
mod simulated;
mod trailing;

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::request::Parts;
use http::{HeaderMap, Request, Response};
use http_body_util::LengthLimitError;
use tower_http::timeout::TimeoutError;

pub use breaker::Breaker;
pub use headers::strip;
pub use live::Live;
pub use recorded::{Recorded, Wanted, steered};
pub use replayed::Replayed;
pub use retry::{Answered, Retries, Safe};
pub use simulated::{Nowhere, Simulated};

use crate::clock::Timestamp;
use crate::error::{ApiError, Reason};
pub use crate::outbound::Untaken;

/// Something that answers requests of the API. It gets the request as the client sent it, but for the key, which
/// stands in `Authorization` alone.
pub trait Upstream: Send + Sync + 'static {
    /// Sends `request` and gives the answer, whose body may still be on its way.
    fn send(
        &self,
        request: Request<Body>,
        about: About,
    ) -> BoxFuture<'_, Result<Response<Body>, UpstreamError>>;

    /// The same for a request whose body is here, and may be empty. Its head stays with the caller, who may send it again.
    fn ask<'u>(
        &'u self,
        head: &Parts,
        body: &Bytes,
        about: &About,
    ) -> BoxFuture<'u, Result<Response<Body>, UpstreamError>> {
        self.send(request_of(head, body), about.clone())
    }

    /// The world that a request of `tenant` with these headers goes to, for whoever counts by it. `None`: the real one.
    fn world(&self, _headers: &HeaderMap, _tenant: Option<&Arc<str>>) -> Option<World> {
        None
    }
}

/// A body that is here.
fn body_of(bytes: &Bytes) -> Body {
    if bytes.is_empty() { Body::empty() } else { Body::from(bytes.clone()) }
}

/// A request of that head, whose body is here.
fn request_of(head: &Parts, body: &Bytes) -> Request<Body> {
    Request::from_parts(head.clone(), body_of(body))
}

/// A world of its own, with its own clock.
#[derive(Clone, Debug)]
pub struct World {
    /// Another one whenever it begins anew; absent where there is none for such a request.
    pub name: Option<String>,
    /// The time by its clock.
    pub now: Timestamp,
}

/// Which of the configured upstream keys, by its position.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KeyIx(pub usize);

/// What stands for the operation of a request whose path is none of the API.
pub const UNKNOWN_PATH: &str = "other";

/// What the gateway knows of a request.
#[derive(Clone, Debug, Default)]
pub struct About {
    /// The operation's id, or [`UNKNOWN_PATH`].
    pub operation: &'static str,
    /// The tenant's id, if it is one.
    pub tenant: Option<Arc<str>>,
    /// Whether the body is still on its way.
    pub streams: bool,
    /// The upstream key to send it with, where there are keys.
    pub key: KeyIx,
}

/// Why there is no answer.
#[derive(Clone, Debug, thiserror::Error)]
pub enum UpstreamError {
    /// No connection: nothing was sent.
    #[error("the upstream cannot be reached: {0}")]
    Unreachable(String),
    /// The upstream has not answered for a while and is left alone: nothing was sent.
    #[error("the upstream has not answered for a while; the next attempt is made in {0:?}")]
    LeftAlone(Duration),
    /// The upstream said that it has not looked at the request.
    #[error("the upstream did not take the request: {what}")]
    Untaken {
        /// Its reason.
        what: String,
        /// What that means.
        why: Untaken,
    },
    /// A kept connection was closed before an answer came; the request may have arrived, but hardly.
    #[error("the upstream closed a kept connection: {0}")]
    Stale(String),
    /// The connection broke before an answer came; the request may have arrived.
    #[error("the connection to the upstream broke: {0}")]
    Broken(String),
    /// What it answered is no answer.
    #[error("the upstream's answer makes no sense: {0}")]
    Garbled(String),
    /// Its answer is larger than what is read of one, in bytes.
    #[error("the upstream's answer is larger than {0} bytes, the most that this gateway reads of one")]
    AnswerTooLarge(usize),
    /// The client's body grew beyond what is taken.
    #[error("the request's body is larger than this gateway takes")]
    BodyTooLarge,
    /// The client's body stopped coming.
    #[error("the request's body stopped coming")]
    BodyTimeout,
    /// The client's body broke off, or breaks the rules of HTTP.
    #[error("the body is malformed, or broke off")]
    BodyBroken,
    /// It is a recording, which does not have that.
    #[error("{0}")]
    NotRecorded(String),
    /// Nothing came in time.
    #[error("the upstream gave no answer within {0:?}")]
    Timeout(Duration),
}

impl From<UpstreamError> for ApiError {
    fn from(error: UpstreamError) -> Self {
        match error {
            UpstreamError::Unreachable(_) | UpstreamError::Untaken { .. } => {
                Self::new(Reason::UpstreamUnreachable, "the upstream cannot be reached")
            }
            UpstreamError::Stale(_) | UpstreamError::Broken(_) => {
                let what = "the connection to the upstream broke before all of its answer was here";
                Self::new(Reason::UpstreamUnreachable, what)
            }
            UpstreamError::LeftAlone(left) => {
                let what = "the upstream cannot be reached and is left alone for a while";
                Self::new(Reason::UpstreamUnreachable, what).retry_after(left)
            }
            UpstreamError::Garbled(_) => {
                Self::new(Reason::UpstreamUnreachable, "the upstream's answer makes no sense")
            }
            UpstreamError::AnswerTooLarge(_) => Self::new(Reason::UpstreamUnreachable, error.to_string()),
            UpstreamError::BodyTooLarge => Self::new(Reason::BodyTooLarge, error.to_string()),
            UpstreamError::BodyTimeout => Self::new(Reason::BodyTimeout, error.to_string()),
            UpstreamError::BodyBroken => Self::new(Reason::BodyMalformed, error.to_string()),
            UpstreamError::NotRecorded(what) => Self::new(Reason::NotRecorded, what),
            UpstreamError::Timeout(_) => Self::new(Reason::UpstreamTimeout, error.to_string()),
        }
    }
}

impl UpstreamError {
    /// Why the client's body did not come.
    pub fn of_body(error: &axum::Error) -> Self {
        fault_of_body(error).unwrap_or(Self::BodyBroken)
    }

    /// Whether the upstream can know of the request, and may have done what it asks for.
    pub fn may_have_arrived(&self) -> bool {
        !matches!(
            self,
            Self::Unreachable(_) | Self::Untaken { .. } | Self::LeftAlone(_) | Self::NotRecorded(_)
        )
    }
}

/// What was wrong with the client's body, if `error` comes from the gateway's own bounds on it.
fn fault_of_body(error: &(dyn std::error::Error + 'static)) -> Option<UpstreamError> {
    let mut causes = std::iter::successors(Some(error), |cause| cause.source());
    causes.find_map(|cause| {
        let too_large = cause.is::<LengthLimitError>().then_some(UpstreamError::BodyTooLarge);
        too_large.or_else(|| cause.is::<TimeoutError>().then_some(UpstreamError::BodyTimeout))
    })
}
