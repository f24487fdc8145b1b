//! Bodies of requests as they arrive: how large they may be, how long they may take, and what room there is for them.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::Body;
use axum::extract::Request;
use bytes::Bytes;
use http::Uri;
use http_body::{Body as _, Frame};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use tower::BoxError;
use tower_http::timeout::{TimeoutBody, TimeoutError};

use super::entry::is_open_to_all;
use crate::error::{ApiError, Reason};
use crate::gateway::call::Call;
use crate::gateway::room::{Crowded, Room};
use crate::gateway::{Gateway, Parts};

/// Whether a request is about a whole sandbox, uploaded files included.
fn is_snapshot(uri: &Uri) -> bool {
    uri.path() == "/_mock/snapshot"
}

/// What a body with a file in base64 may have beside it, in bytes.
const BESIDE_THE_FILE: usize = 4 * 1024;
/// The most that is read of whoever needs no key, in bytes: callbacks are a few KiB long.
const FROM_STRANGERS: usize = 1024 * 1024;

/// Refuses bodies above the limit, and gives up on those that stop coming. A body that kiegate itself reads is read
/// here, so that one that grows too large is refused and not cut off; anything else streams through.
pub(in crate::gateway) async fn bound_body(
    gateway: &Gateway,
    call: &Call,
    request: Request,
) -> Result<Request, ApiError> {
    if request.body().is_end_stream() {
        return Ok(request);
    }
    let Parts { largest_json, largest_upload, body_timeout, .. } = gateway.parts;
    let by_base64 = |index| gateway.parts.catalogue.operation(index).takes_base64();
    let most = match call.index {
        _ if call.streams || is_snapshot(request.uri()) => largest_upload,
        _ if call.own && is_open_to_all(request.uri()) => largest_json.min(FROM_STRANGERS),
        // What counts is the file, of which base64 makes four bytes of three.
        Some(index) if by_base64(index) => largest_json / 3 * 4 + BESIDE_THE_FILE,
        _ => largest_json,
    };
    let (parts, body) = request.into_parts();
    let told = body.size_hint().lower();
    let body = TimeoutBody::new(body_timeout, body);
    if told > most as u64 {
        return Err(too_large(most));
    }
    let body = Limited::new(body, most);
    if call.streams {
        return Ok(Request::from_parts(parts, Body::new(body)));
    }
    let housed = Housed { body: Box::pin(body), call, room: &gateway.room, received: 0 };
    match housed.collect().await {
        Ok(whole) => Ok(Request::from_parts(parts, Body::from(whole.to_bytes()))),
        Err(error) => Err(refusal(&error, most, body_timeout)),
    }
}

/// Why a body is not read to its end.
fn refusal(error: &BoxError, most: usize, patience: Duration) -> ApiError {
    if let Some(crowded) = error.downcast_ref::<Crowded>() {
        return (*crowded).into();
    }
    if error.is::<LengthLimitError>() {
        return too_large(most);
    }
    if error.is::<TimeoutError>() {
        let what = format!("the body stopped coming for {} s", patience.as_secs());
        return ApiError::new(Reason::BodyTimeout, what);
    }
    ApiError::new(Reason::BodyMalformed, "the body is malformed, or broke off")
}

fn too_large(most: usize) -> ApiError {
    let what = format!("the body is larger than {most} bytes, the most that this gateway takes here");
    ApiError::new(Reason::BodyTooLarge, what)
}

/// A body that takes its room as it arrives, but for a small one: they are many, and never much.
struct Housed<'c, B> {
    body: Pin<Box<B>>,
    call: &'c Call,
    room: &'c Room,
    received: usize,
}

/// The largest body, in bytes, that needs no room of its own.
const SMALL: usize = 64 * 1024;

impl<B: http_body::Body<Data = Bytes, Error = BoxError>> http_body::Body for Housed<'_, B> {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let polled = ready!(self.body.as_mut().poll_frame(context));
        let Some(piece) = polled.as_ref().and_then(|frame| frame.as_ref().ok()?.data_ref()) else {
            return Poll::Ready(polled);
        };
        // With the first that is too much comes what was there before.
        let before = if self.received > SMALL { self.received } else { 0 };
        self.received += piece.len();
        // It is put together at its end, and stands there twice for a moment.
        let taken = (self.received - before) * 2;
        if self.received > SMALL
            && let Err(crowded) = self.call.take_place(self.room, taken)
        {
            return Poll::Ready(Some(Err(crowded.into())));
        }
        Poll::Ready(polled)
    }
}
