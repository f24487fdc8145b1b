//! Where the requests of one connection are handed in and their answers handed out, with a note of what the connection is
//! at.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready as ready_or_pending};

use axum::body::Body;
use axum::response::Response;
use futures_util::future::{Either, ready};
use http::header::{ALLOW, CONNECTION, HOST, TRANSFER_ENCODING};
use http::{HeaderValue, Method, Request, StatusCode, Version};
use http_body::Body as _;
use hyper::body::Incoming;
use hyper::service::Service;

use super::arriving::{Arriving, unwanted};
use super::lent::{Leases, Outgoing};
use super::socket::Phase;
use super::{Answer, Peer};
use crate::gateway::{self, mishap};
use crate::heard::{End, Heard, Listener};
use crate::sim::Fault;
use crate::wire;

/// Answers the requests of one connection. Clones belong to the same.
#[derive(Clone)]
pub(super) struct Desk {
    pub(super) answer: Answer,
    pub(super) peer: Peer,
    pub(super) phase: Arc<Phase>,
    /// What is lent to streams, where there are many.
    pub(super) leases: Option<Arc<Leases>>,
}

impl Service<Request<Incoming>> for Desk {
    type Response = http::Response<Outgoing>;
    type Error = Infallible;
    type Future = Answering;

    fn call(&self, request: Request<Incoming>) -> Answering {
        // HTTP/2 has many requests at once and frames of its own at any time: hyper watches it by pings.
        let many = request.version() == Version::HTTP_2;
        let has_body = !request.body().is_end_stream();
        let unwanted = unwanted(&request);
        if many {
            self.phase.request_joined();
        } else {
            self.phase.request_began(has_body);
        }
        let answered = if let Some(status) = unacceptable(&request) {
            Either::Left(ready(turned_away(status)))
        } else {
            let arriving = |body| {
                if !has_body {
                    return Body::empty();
                }
                Body::new(Arriving::new(Heard::new(body, Arrived(Arc::clone(&self.phase))), unwanted))
            };
            (self.answer)(request.map(arriving), self.peer)
        };
        let heard_out = !has_body || unwanted > 0;
        let ending = Some(Answered(Arc::clone(&self.phase)));
        let (phase, leases) = (Arc::clone(&self.phase), self.leases.clone());
        Answering { answered, phase, leases, ending, many, heard_out }
    }
}

/// An answer that is being made.
pub(super) struct Answering {
    answered: gateway::Answering,
    phase: Arc<Phase>,
    leases: Option<Arc<Leases>>,
    /// Until it is made.
    ending: Option<Answered>,
    many: bool,
    /// The body of its request is read, whoever wants it.
    heard_out: bool,
}

impl Future for Answering {
    type Output = Result<http::Response<Outgoing>, Infallible>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let mut response = ready_or_pending!(Pin::new(&mut self.answered).poll(context));
        match response.extensions().get::<Fault>() {
            // Only this one of its streams ends.
            Some(Fault::Reset | Fault::Empty | Fault::Garbage) if self.many => {
                *response.body_mut() = mishap::broken();
            }
            Some(Fault::Reset) => self.phase.set(Phase::RESET),
            Some(Fault::Empty) => self.phase.set(Phase::CLOSED),
            Some(Fault::Garbage) => self.phase.set(Phase::GARBAGE),
            _ => {}
        }
        if !self.heard_out && !self.phase.has_whole_body() {
            // What comes after it may never be found.
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        let ending = self.ending.take().expect("nobody asks for an answer that was given");
        let leases = self.leases.take();
        Poll::Ready(Ok(response.map(|body| Outgoing::new(Heard::new(body, ending), leases))))
    }
}

/// Notes when an answer has been handed on, or is given up, be it before it is made: then nobody needs it any more.
pub(super) struct Answered(Arc<Phase>);

impl Listener for Answered {
    fn end(&mut self, _: End) {}
}

impl Drop for Answered {
    fn drop(&mut self) {
        self.0.request_ended();
    }
}

/// Notes when the body of a request has been read to its end.
pub(super) struct Arrived(Arc<Phase>);

impl Listener for Arrived {
    fn end(&mut self, how: End) {
        if how == End::Whole {
            self.0.body_ended();
        }
    }
}

/// The status of a request that nobody may send, whatever it is for.
///
/// Source: RFC 9112, 3.2 (one `Host`), 3.2.3 (the form of a target without a path) and 6.1 (codings that are not known).
fn unacceptable(request: &Request<Incoming>) -> Option<StatusCode> {
    // One asks for a tunnel, the other for an echo of what went upstream, with a key that is not the client's.
    if matches!(*request.method(), Method::CONNECT | Method::TRACE) {
        return Some(StatusCode::METHOD_NOT_ALLOWED);
    }
    // Only who asks for a tunnel names a host and nothing else.
    if request.uri().path_and_query().is_none() {
        return Some(StatusCode::BAD_REQUEST);
    }
    if request.version() == Version::HTTP_11 && wire::values(request.headers(), HOST).count() != 1 {
        return Some(StatusCode::BAD_REQUEST);
    }
    let mut codings = wire::values(request.headers(), TRANSFER_ENCODING);
    let known = codings.next().is_none_or(|coding| coding.as_bytes().eq_ignore_ascii_case(b"chunked"));
    (!known || codings.next().is_some()).then_some(StatusCode::NOT_IMPLEMENTED)
}

/// The answer to such a request. The connection ends with it, since what follows may be anything.
fn turned_away(status: StatusCode) -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    if status == StatusCode::METHOD_NOT_ALLOWED {
        let allowed = HeaderValue::from_static("GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS");
        response.headers_mut().insert(ALLOW, allowed);
    }
    response
}
