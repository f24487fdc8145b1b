//! The account's key out of what the upstream says: a server that quotes a request back, in an error perhaps, must not tell
//! tenants what it was sent with.
//!
//! Every byte of the key is replaced by `*`, so that lengths stay what they were told to be. A piece of a body that ends
//! like the key begins waits for the next one; any other goes on at once, and is not copied. What is compressed is not
//! looked into.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use axum::body::Body;
use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, Response};
use http_body::{Body as _, Frame, SizeHint};
use memchr::memmem::Finder;

use super::headers::trailers_for_client;

/// A shorter key is none, and would be found in every other text.
pub(super) const SHORTEST: usize = 8;

/// A key that is not to be told; one that is too short to be one is none. Clones share it.
#[derive(Clone)]
pub(super) struct Hidden(Option<Arc<Finder<'static>>>);

impl Hidden {
    pub(super) fn new(secret: &str) -> Self {
        Self((secret.len() >= SHORTEST).then(|| Arc::new(Finder::new(secret).into_owned())))
    }

    /// Whether it stands in `text`.
    fn is_in(&self, text: &[u8]) -> bool {
        self.0.as_ref().is_some_and(|finder| finder.find(text).is_some())
    }

    /// `response` without it.
    pub(super) fn in_response(&self, response: Response<Body>) -> Response<Body> {
        let (mut parts, body) = response.into_parts();
        self.in_headers(&mut parts.headers);
        if body.is_end_stream() {
            return Response::from_parts(parts, body);
        }
        let body = Searched { body, hidden: self.clone(), held: Bytes::new(), after: None };
        Response::from_parts(parts, Body::new(body))
    }

    /// Takes it out of trailers, and what does not travel.
    fn in_trailers(&self, frame: &mut Frame<Bytes>) {
        if let Some(trailers) = frame.trailers_mut() {
            trailers_for_client(trailers);
            self.in_headers(trailers);
        }
    }

    fn in_headers(&self, headers: &mut HeaderMap) {
        for value in headers.values_mut().filter(|value| self.is_in(value.as_bytes())) {
            if let Ok(masked) = HeaderValue::from_bytes(&self.masked(value.as_bytes())) {
                *value = masked;
            }
        }
    }

    fn masked(&self, text: &[u8]) -> BytesMut {
        let mut masked = BytesMut::from(text);
        if let Some(finder) = &self.0 {
            for place in finder.find_iter(text) {
                masked[place..place + finder.needle().len()].fill(b'*');
            }
        }
        masked
    }

    /// How many bytes at the end of `text` may be the beginning of it.
    fn begun_in(&self, text: &[u8]) -> usize {
        let secret = self.0.as_ref().map_or(&b""[..], |finder| finder.needle());
        let most = text.len().min(secret.len().saturating_sub(1));
        (1..=most).rev().find(|length| text.ends_with(&secret[..*length])).unwrap_or(0)
    }
}

/// A body that is looked through while it passes.
struct Searched {
    body: Body,
    hidden: Hidden,
    /// The end of what has come, which may be the beginning of the key.
    held: Bytes,
    /// What comes after that.
    after: Option<Frame<Bytes>>,
}

impl Searched {
    /// What of `data` can go on.
    fn pass(&mut self, data: Bytes) -> Bytes {
        let mut text = if self.held.is_empty() { data } else { [&self.held[..], &data].concat().into() };
        self.held = Bytes::new();
        if self.hidden.is_in(&text) {
            text = self.hidden.masked(&text).freeze();
        }
        if !self.body.is_end_stream() {
            self.held = text.split_off(text.len() - self.hidden.begun_in(&text));
        }
        text
    }
}

impl http_body::Body for Searched {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        loop {
            if let Some(after) = self.after.take() {
                return Poll::Ready(Some(Ok(after)));
            }
            match ready!(Pin::new(&mut self.body).poll_frame(context)) {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => {
                        let passed = self.pass(data);
                        if !passed.is_empty() {
                            return Poll::Ready(Some(Ok(Frame::data(passed))));
                        }
                    }
                    Err(mut trailers) => {
                        self.hidden.in_trailers(&mut trailers);
                        if self.held.is_empty() {
                            return Poll::Ready(Some(Ok(trailers)));
                        }
                        self.after = Some(trailers);
                        return Poll::Ready(Some(Ok(Frame::data(std::mem::take(&mut self.held)))));
                    }
                },
                None if !self.held.is_empty() => {
                    return Poll::Ready(Some(Ok(Frame::data(std::mem::take(&mut self.held)))));
                }
                other => return Poll::Ready(other),
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream() && self.held.is_empty() && self.after.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        let (inner, held) = (self.body.size_hint(), self.held.len() as u64);
        let mut hint = SizeHint::new();
        if let Some(upper) = inner.upper() {
            hint.set_upper(upper + held);
        }
        hint.set_lower(inner.lower() + held);
        hint
    }
}

#[cfg(test)]
mod tests {
    use futures_util::stream;
    use http_body_util::{BodyExt as _, Full};
    use proptest::prelude::*;

    use super::*;

    const KEY: &str = "sk-aab-aab-aac";

    async fn passed(pieces: &[String]) -> String {
        let pieces: Vec<_> = pieces.iter().cloned().map(Ok::<_, std::io::Error>).collect();
        let response = Response::new(Body::from_stream(stream::iter(pieces)));
        let passed = Hidden::new(KEY).in_response(response).into_body().collect().await;
        String::from_utf8(passed.unwrap().to_bytes().to_vec()).unwrap()
    }

    #[tokio::test]
    async fn headers_are_looked_through_too() {
        let response =
            Response::builder().header("x-echo", format!("Bearer {KEY}")).body(Body::empty()).unwrap();
        let response = Hidden::new(KEY).in_response(response);
        assert_eq!(response.headers()["x-echo"], "Bearer **************");
        let short = Response::builder().header("x-echo", "short").body(Body::empty()).unwrap();
        assert_eq!(Hidden::new("short").in_response(short).headers()["x-echo"], "short");
    }

    #[tokio::test]
    async fn trailers_are_looked_through_as_well() {
        let trailers = [("x-echo", format!("is {KEY}")), ("x-kiegate-error", "fake".into())];
        let trailers = trailers.map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()));
        let body =
            Full::from("x").with_trailers(std::future::ready(Some(Ok(trailers.into_iter().collect()))));
        let response = Hidden::new(KEY).in_response(Response::new(Body::new(body)));
        let whole = response.into_body().collect().await.unwrap();
        let trailers: Vec<_> = whole.trailers().unwrap().iter().collect();
        assert_eq!(trailers, [(&"x-echo".parse().unwrap(), &"is **************".parse().unwrap())]);
    }

    #[tokio::test]
    async fn what_is_not_the_key_goes_on_at_once() {
        let (tell, told) = tokio::sync::mpsc::unbounded_channel::<&str>();
        let pieces = stream::unfold(told, async |mut told| {
            told.recv().await.map(|piece| (Ok::<_, std::io::Error>(piece), told))
        });
        let response = Response::new(Body::from_stream(pieces));
        let mut body = Hidden::new(KEY).in_response(response).into_body();
        for piece in ["data: one\n\n", "sk-aab-", "aab-x"] {
            tell.send(piece).unwrap();
            if piece != "sk-aab-" {
                let got = body.frame().await.unwrap().unwrap().into_data().unwrap();
                assert!(got == piece || got == "sk-aab-aab-x", "{got:?}");
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn it_is_hidden_however_a_body_is_cut(
            parts in prop::collection::vec(prop_oneof![Just(KEY), Just("sk-aab-"), Just("aab-"), Just("x"), Just("s")], 0..12),
            cuts in prop::collection::vec(1..9_usize, 1..40),
        ) {
            let whole = parts.concat();
            let mut pieces = Vec::new();
            let (mut rest, mut cuts) = (&*whole, cuts.into_iter().cycle());
            while !rest.is_empty() {
                let (piece, left) = rest.split_at(cuts.next().unwrap().min(rest.len()));
                pieces.push(piece.to_owned());
                rest = left;
            }
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let got = runtime.block_on(passed(&pieces));
            prop_assert_eq!(got, whole.replace(KEY, &"*".repeat(KEY.len())));
        }
    }
}
