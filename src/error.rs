//! Errors as HTTP. The one place that makes a response of something that went wrong on our side of the wire.
//!
//! Knows nothing of how an error arose. What the upstream (or the simulator in its place) says passes by untouched.

use std::time::Duration;

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use http::header::{CONTENT_TYPE, HeaderName, RETRY_AFTER};
use http::{HeaderValue, StatusCode};
use serde_json::{Map, Value, json};

/// A refusal of kiegate's own APIs (`/_mock`, `/admin`), as an RFC 9457 problem document.
#[derive(Debug)]
pub struct ProblemDocument {
    status: StatusCode,
    detail: String,
    /// Beside the usual members.
    more: Map<String, Value>,
}

impl ProblemDocument {
    /// A refusal with this status; `detail` says what was wrong and what to do.
    pub fn new(status: StatusCode, detail: impl Into<String>) -> Self {
        Self { status, detail: detail.into(), more: Map::new() }
    }

    /// The request itself is at fault.
    pub fn bad_request(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, detail)
    }

    /// With another member, for machines.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.more.insert(name.to_owned(), value.into());
        self
    }
}

impl IntoResponse for ProblemDocument {
    fn into_response(self) -> Response {
        let mut body = json!({
            "type": "about:blank",
            "title": self.status.canonical_reason().unwrap_or("Error"),
            "status": self.status.as_u16(),
            "detail": self.detail,
        });
        body.as_object_mut().into_iter().for_each(|members| members.extend(self.more.clone()));
        let mut response = Response::new(Body::from(body.to_string()));
        *response.status_mut() = self.status;
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        response
    }
}

/// Why the gateway refuses a request of the API; the reasons that its clients see in `X-Kiegate-Error`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// No valid key.
    Unauthorized,
    /// Not allowed to this tenant.
    Forbidden,
    /// The body is larger than the gateway takes.
    BodyTooLarge,
    /// The body stopped coming.
    BodyTimeout,
    /// The body breaks the rules of HTTP, or broke off.
    BodyMalformed,
    /// Too many calls in too short a time.
    RateLimited,
    /// Too many tasks under way.
    TooManyTasks,
    /// The credits for this hour, day or month are spent.
    BudgetExceeded,
    /// The account's quota left no room in time.
    QuotaTimeout,
    /// An idempotency key that was used for another request.
    IdempotencyConflict,
    /// A callback address that the gateway does not call.
    ForbiddenCallback,
    /// It is not in the recording that answers.
    NotRecorded,
    /// The upstream cannot be reached.
    UpstreamUnreachable,
    /// The upstream did not answer in time.
    UpstreamTimeout,
    /// The gateway cannot do what it should right now.
    Overloaded,
    /// The gateway is about to stop.
    Draining,
}

impl Reason {
    /// All of them: what a metric's label may be.
    pub const ALL: [Self; 16] = [
        Self::Unauthorized,
        Self::Forbidden,
        Self::BodyTooLarge,
        Self::BodyTimeout,
        Self::BodyMalformed,
        Self::RateLimited,
        Self::TooManyTasks,
        Self::BudgetExceeded,
        Self::QuotaTimeout,
        Self::IdempotencyConflict,
        Self::ForbiddenCallback,
        Self::NotRecorded,
        Self::UpstreamUnreachable,
        Self::UpstreamTimeout,
        Self::Overloaded,
        Self::Draining,
    ];

    /// The name that goes over the wire.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Unauthorized => "unauthorized",
            Self::Forbidden => "forbidden",
            Self::BodyTooLarge => "body_too_large",
            Self::BodyTimeout => "body_timeout",
            Self::BodyMalformed => "body_malformed",
            Self::RateLimited => "rate_limited",
            Self::TooManyTasks => "too_many_tasks",
            Self::BudgetExceeded => "budget_exceeded",
            Self::QuotaTimeout => "quota_timeout",
            Self::IdempotencyConflict => "idempotency_conflict",
            Self::ForbiddenCallback => "forbidden_callback",
            Self::NotRecorded => "not_recorded",
            Self::UpstreamUnreachable => "upstream_unreachable",
            Self::UpstreamTimeout => "upstream_timeout",
            Self::Overloaded => "overloaded",
            Self::Draining => "draining",
        }
    }

    /// What metrics call a refusal for this reason by a limit that is only tried out.
    pub const fn shadow_name(self) -> &'static str {
        match self {
            Self::RateLimited => "rate_limited_shadow",
            Self::TooManyTasks => "too_many_tasks_shadow",
            _ => "budget_exceeded_shadow",
        }
    }

    /// Its HTTP status.
    pub const fn status(self) -> StatusCode {
        match self {
            Self::Unauthorized => StatusCode::UNAUTHORIZED,
            Self::Forbidden => StatusCode::FORBIDDEN,
            Self::BodyTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::BodyTimeout => StatusCode::REQUEST_TIMEOUT,
            Self::BodyMalformed | Self::ForbiddenCallback => StatusCode::BAD_REQUEST,
            Self::RateLimited | Self::TooManyTasks | Self::QuotaTimeout => StatusCode::TOO_MANY_REQUESTS,
            Self::BudgetExceeded => StatusCode::PAYMENT_REQUIRED,
            Self::NotRecorded => StatusCode::NOT_FOUND,
            Self::IdempotencyConflict => StatusCode::CONFLICT,
            Self::Overloaded | Self::Draining => StatusCode::SERVICE_UNAVAILABLE,
            Self::UpstreamUnreachable => StatusCode::BAD_GATEWAY,
            Self::UpstreamTimeout => StatusCode::GATEWAY_TIMEOUT,
        }
    }
}

/// A refusal by the gateway: the real HTTP status, the family's own form of error, and the reason in a header.
#[derive(Debug)]
pub struct ApiError {
    reason: Reason,
    message: String,
    headers: Vec<(HeaderName, HeaderValue)>,
}

impl ApiError {
    /// A refusal for `reason`; `message` is for the client.
    pub fn new(reason: Reason, message: impl Into<String>) -> Self {
        Self { reason, message: message.into(), headers: Vec::new() }
    }

    /// The same, and when it is worth trying again: `Retry-After` in whole seconds, rounded up, so that a client that
    /// obeys is not refused twice.
    #[must_use]
    pub fn retry_after(self, after: Duration) -> Self {
        let seconds = after.as_nanos().div_ceil(1_000_000_000).max(1);
        self.with_header(RETRY_AFTER, HeaderValue::from(u64::try_from(seconds).unwrap_or(u64::MAX)))
    }

    /// The same with one more header.
    #[must_use]
    pub fn with_header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.push((name, value));
        self
    }

    /// Why.
    pub fn reason(&self) -> Reason {
        self.reason
    }

    /// What the client is told.
    pub fn message(&self) -> &str {
        &self.message
    }
}

/// A response extension: the gateway refused, for this reason.
#[derive(Clone, Copy, Debug)]
pub struct Refused(pub Reason);

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let status = self.reason.status();
        let body = json!({"code": status.as_u16(), "msg": self.message, "data": null});
        let mut response = Response::new(Body::from(body.to_string()));
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json;charset=UTF-8"));
        headers.insert("x-kiegate-error", HeaderValue::from_static(self.reason.name()));
        headers.extend(self.headers);
        response.extensions_mut().insert(Refused(self.reason));
        response
    }
}
