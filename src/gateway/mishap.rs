//! What becomes of an answer on its way where the simulator was asked for it: bodies that break off or drip are made here,
//! what happens to the connection itself is done by `server`, which has it.

use std::time::Duration;

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use futures_util::future::{Either, pending, ready};
use futures_util::{FutureExt as _, StreamExt as _, stream};
use http::HeaderValue;
use http::header::{CONTENT_LENGTH, TRANSFER_ENCODING};
use http_body::Body as _;
use http_body_util::BodyExt as _;

use super::Answering;
use crate::sim::Fault;

/// Into so many pieces at most a slow body is cut.
const MOST_PIECES: usize = 100;
/// Of a body that streams so many pieces come before it breaks off.
const PIECES_BEFORE_THE_END: usize = 3;

/// `response` as it is to be sent.
pub(super) fn befall(response: Response) -> Answering {
    match response.extensions().get::<Fault>() {
        None | Some(Fault::Reset | Fault::Empty | Fault::Garbage) => Either::Left(ready(response)),
        Some(Fault::Hang) => {
            // It is held until the client goes.
            let held = async move {
                pending::<()>().await;
                response
            };
            Either::Right(held.boxed())
        }
        Some(Fault::Truncate) => Either::Right(truncated(response).boxed()),
        Some(Fault::Slow(span)) => {
            let span = *span;
            Either::Right(slow(response, span).boxed())
        }
    }
}

/// A body that breaks off at once.
pub(super) fn broken() -> Body {
    Body::from_stream(stream::once(async { Err::<Bytes, _>(broke()) }))
}

fn broke() -> std::io::Error {
    std::io::Error::new(std::io::ErrorKind::ConnectionReset, "broken off, as asked for")
}

/// The same answer with half of its body. Its head promises the whole.
async fn truncated(response: Response) -> Response {
    let (mut parts, body) = response.into_parts();
    let Some(length) = body.size_hint().exact() else {
        let beginning = body.into_data_stream().take(PIECES_BEFORE_THE_END);
        let beginning = beginning.map(|piece| piece.map_err(std::io::Error::other));
        return Response::from_parts(
            parts,
            Body::from_stream(beginning.chain(stream::once(async { Err(broke()) }))),
        );
    };
    parts.headers.remove(TRANSFER_ENCODING);
    // Of nothing there is no half: then it promises what never comes.
    parts.headers.insert(CONTENT_LENGTH, HeaderValue::from(length.max(1)));
    let whole = body.collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
    let half = whole.slice(..whole.len() / 2);
    // The half goes out before the end is noticed.
    let pieces = stream::iter([Ok(half)]).chain(stream::once(async {
        tokio::time::sleep(Duration::from_millis(20)).await;
        Err(broke())
    }));
    Response::from_parts(parts, Body::from_stream(pieces))
}

/// The same answer, whose body takes `span`. One that streams begins later.
async fn slow(response: Response, span: Duration) -> Response {
    let (mut parts, body) = response.into_parts();
    let Some(length) = body.size_hint().exact() else {
        tokio::time::sleep(span).await;
        return Response::from_parts(parts, body);
    };
    parts.headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
    let whole = body.collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
    let piece = whole.len().div_ceil(MOST_PIECES).max(1);
    let count = whole.len().div_ceil(piece).max(1);
    let pause = span / u32::try_from(count).unwrap_or(u32::MAX);
    let starts = stream::iter((0..whole.len()).step_by(piece));
    let pieces = starts.then(move |start| {
        let drop = whole.slice(start..whole.len().min(start + piece));
        async move {
            tokio::time::sleep(pause).await;
            Ok::<_, std::io::Error>(drop)
        }
    });
    Response::from_parts(parts, Body::from_stream(pieces))
}
