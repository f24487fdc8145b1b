//! The real API as an upstream: a streaming pass-through with the tenant's key swapped for the account's.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::{BoxFuture, ready};
use http::header::CONTENT_TYPE;
use http::request::Parts;
use http::uri::PathAndQuery;
use http::{HeaderValue, Request, Response, StatusCode, Uri};
use tokio::time::Instant;

use super::breaker::Leave;
use super::headers::{keep_for_client, key_of, readdressed, settle_length, tells_key};
use super::hiding::Hidden;
use super::retry::is_passing;
use super::sending::Progress;
use super::trailing::Trailing;
use super::{About, Breaker, KeyIx, UNKNOWN_PATH, Upstream, UpstreamError, body_of};
use crate::config;
use crate::outbound::{Client, Deadline, Destination, Error, Untaken, reasons};
use crate::telemetry::Metrics;
use crate::wire;

/// Paths that the upload host serves.
pub(super) const UPLOADS: &str = "/api/file-";

/// The live API.
pub struct Live {
    client: Client,
    api: Host,
    /// Absent where it is the same.
    uploads: Option<Host>,
    keys: Vec<Key>,
    response_timeout: Duration,
    metrics: Arc<Metrics>,
}

/// One of the two hosts of the API.
struct Host {
    name: String,
    destination: Destination,
    breaker: Breaker,
}

impl Host {
    fn new(base: &Uri) -> Option<Self> {
        // With its port, where that is told: uploads may go to another one.
        let (host, port) = (base.host()?, base.port());
        let name = port.map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"));
        Some(Self { name, destination: Destination::of(base)?, breaker: Breaker::default() })
    }
}

/// An upstream key, ready to be sent.
struct Key {
    name: String,
    /// `Bearer …`, marked as not to be printed.
    authorization: HeaderValue,
    /// Not to be told by anybody.
    hidden: Hidden,
}

impl Key {
    fn new(key: &config::UpstreamKey) -> Option<Self> {
        let mut authorization = HeaderValue::from_str(&format!("Bearer {}", key.secret.expose())).ok()?;
        authorization.set_sensitive(true);
        Some(Self { name: key.name.clone(), authorization, hidden: Hidden::new(key.secret.expose()) })
    }
}

impl Live {
    /// From the configuration, which has at least one upstream key in live mode; `None` without one, with one
    /// that cannot stand in a header, or with addresses that name no host.
    pub fn new(config: &config::Upstream, client: Client, metrics: Arc<Metrics>) -> Option<Self> {
        let keys: Vec<Key> = config.keys.iter().map(Key::new).collect::<Option<_>>()?;
        let (api, uploads) = (Host::new(&config.base_url)?, Host::new(&config.upload_url)?);
        let uploads = (uploads.destination != api.destination).then_some(uploads);
        let response_timeout = config.response_timeout;
        (!keys.is_empty()).then_some(Self { client, api, uploads, keys, response_timeout, metrics })
    }

    /// The hosts, and whether each is left alone because it does not answer.
    pub fn breakers(&self) -> impl Iterator<Item = (&str, bool)> {
        [&self.api].into_iter().chain(&self.uploads).map(|host| (&*host.name, host.breaker.is_open()))
    }

    /// Sends a request on as the account's, and gives what may travel of the answer. As far as nothing has to be waited for it is
    /// done at once, so that the future is small.
    fn forward<'l>(
        &'l self,
        head: &Parts,
        body: Body,
        &About { operation, tenant: _, streams, key }: &About,
    ) -> BoxFuture<'l, Result<Response<Body>, UpstreamError>> {
        let uploads = self.uploads.as_ref().filter(|_| head.uri.path().starts_with(UPLOADS));
        let host = uploads.unwrap_or(&self.api);
        let leave = match host.breaker.ask() {
            Ok(leave) => leave,
            Err(left) => return ready(Err(UpstreamError::LeftAlone(left))).boxed(),
        };
        let key = self.key(key);
        let mut request = Request::new(body);
        *request.method_mut() = head.method.clone();
        let told = key_of(&head.headers);
        *request.uri_mut() = without_key(&head.uri, told).map_or_else(|| head.uri.clone(), Uri::from);
        *request.headers_mut() =
            readdressed(&head.headers, told, host.destination.header(), &key.authorization);
        let exchange = Exchange { live: self, leave, key, operation, began: Instant::now() };
        if streams {
            let sending = self.stream(&host.destination, request, exchange.began);
            return async move { exchange.end(sending.await) }.boxed();
        }
        let deadline = Deadline { sent: exchange.began, until: Some(exchange.began + self.response_timeout) };
        let sending = self.client.send_to(&host.destination, request, deadline);
        async move { exchange.end(sending.await.map_err(|error| self.failure(&error))) }.boxed()
    }

    /// Sends a request whose body is still on its way.
    async fn stream(
        &self,
        host: &Destination,
        request: Request<Body>,
        now: Instant,
    ) -> Result<Response<Body>, UpstreamError> {
        let progress = Progress::new();
        let deadline = Deadline { sent: now, until: None };
        let sending = self.client.send_to(host, request.map(|body| progress.of(body)), deadline);
        match progress.within(self.response_timeout, sending).await {
            Some(answer) => answer.map_err(|error| progress.fault().unwrap_or_else(|| self.failure(&error))),
            None => Err(UpstreamError::Timeout(self.response_timeout)),
        }
    }

    fn key(&self, index: KeyIx) -> &Key {
        self.keys.get(index.0).unwrap_or(&self.keys[0])
    }

    /// What became of a request that got no answer, where that was not the client's doing.
    fn failure(&self, error: &Error) -> UpstreamError {
        let what = reasons(error);
        match error {
            Error::Connect(_) | Error::NoHost | Error::Closed => UpstreamError::Unreachable(what),
            Error::Untaken { why, .. } => UpstreamError::Untaken { what, why: *why },
            Error::Stale(_) => UpstreamError::Stale(what),
            Error::Exchange(error) if error.is_parse() => UpstreamError::Garbled(error.to_string()),
            Error::Exchange(_) => UpstreamError::Broken(what),
            Error::Late => UpstreamError::Timeout(self.response_timeout),
        }
    }
}

/// A request that was sent, and what is to be done with its answer.
struct Exchange<'l> {
    live: &'l Live,
    leave: Leave<'l>,
    key: &'l Key,
    operation: &'static str,
    began: Instant,
}

impl Exchange<'_> {
    /// What may travel of `answer`; tells what became of the request.
    fn end(self, answer: Result<Response<Body>, UpstreamError>) -> Result<Response<Body>, UpstreamError> {
        let Self { live, leave, key, operation, began } = self;
        let answer = answer.and_then(sound);
        match answers(answer.as_ref(), operation) {
            Some(false) if matches!(answer, Err(UpstreamError::Broken(_))) => leave.broke(),
            Some(answers) => leave.end(answers),
            None => {}
        }
        let status = answer.as_ref().ok().map(|response| response.status().as_u16());
        live.metrics.upstream_answered(&key.name, operation, status, began.elapsed());
        answer.map(|response| key.hidden.in_response(response))
    }
}

/// What an exchange that ended like this says of the host: whether it answers, if anything.
fn answers(answer: Result<&Response<Body>, &UpstreamError>, operation: &str) -> Option<bool> {
    match answer {
        // A path that nobody knows may have nothing behind it but that page.
        Ok(answer) if is_of_front(answer) => (operation != UNKNOWN_PATH).then_some(false),
        Ok(_) | Err(UpstreamError::Garbled(_)) => Some(true),
        Err(
            UpstreamError::Unreachable(_)
            | UpstreamError::Broken(_)
            | UpstreamError::Timeout(_)
            | UpstreamError::Untaken { why: Untaken::Trouble, .. },
        ) => Some(false),
        // It closes a connection, has enough to do on this one, or the client's body broke off.
        Err(_) => None,
    }
}

/// Whether an answer is a page of what stands in front of the API, which cannot reach it; the API itself speaks JSON.
fn is_of_front(answer: &Response<Body>) -> bool {
    let is_json = || {
        let kind = answer.headers().get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
        kind.is_some_and(|kind| kind.to_ascii_lowercase().contains("json"))
    };
    is_passing(answer.status()) && !is_json()
}

/// The answer with the headers that travel on, if it can be one to what was asked.
fn sound(mut response: Response<Body>) -> Result<Response<Body>, UpstreamError> {
    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        return Err(UpstreamError::Garbled("it switches protocols, which nobody asked for".to_owned()));
    }
    settle_length(response.headers_mut()).map_err(|what| UpstreamError::Garbled(what.to_owned()))?;
    keep_for_client(response.headers_mut());
    Ok(response)
}

/// Path and query of `uri` without a parameter `key`, or one that says what the client's `key` is, if it has one.
fn without_key(uri: &Uri, key: Option<&[u8]>) -> Option<PathAndQuery> {
    // Mostly there is nothing in it that could be read as that.
    let query = uri
        .query()
        .filter(|query| query.contains('%') || query.contains("key") || tells_key(query.as_bytes(), key))?;
    // In a key a `+` is one.
    let says_key = |pair: &str| tells_key(&Cow::from(percent_encoding::percent_decode_str(pair)), key);
    let is_key = |pair: &&str| says_key(pair) || wire::pairs(pair).any(|(name, _)| name == "key");
    if !query.split('&').any(|pair| is_key(&pair)) {
        return None;
    }
    let rest: Vec<&str> = query.split('&').filter(|pair| !is_key(pair)).collect();
    let text =
        if rest.is_empty() { uri.path().to_owned() } else { format!("{}?{}", uri.path(), rest.join("&")) };
    Some(text.parse().unwrap_or_else(|_| PathAndQuery::from_static("/")))
}

impl Upstream for Live {
    fn send(
        &self,
        request: Request<Body>,
        about: About,
    ) -> BoxFuture<'_, Result<Response<Body>, UpstreamError>> {
        let (head, body) = request.into_parts();
        let body = Body::new(Trailing::new(body, key_of(&head.headers)));
        self.forward(&head, body, &about)
    }

    fn ask<'u>(
        &'u self,
        head: &Parts,
        body: &Bytes,
        about: &About,
    ) -> BoxFuture<'u, Result<Response<Body>, UpstreamError>> {
        self.forward(head, body_of(body), about)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_called_by_the_port_that_they_were_given() {
        let name = |base: &str| Host::new(&base.parse().unwrap()).unwrap().name;
        assert_eq!(name("https://api.example.com"), "api.example.com");
        assert_eq!(name("http://127.0.0.1:8080"), "127.0.0.1:8080");
    }

    /// Its breaker stayed closed, and each create was lost.
    #[test]
    fn a_page_of_what_stands_in_front_is_a_failure_of_the_host() {
        let check = |status: u16, kind: &str, operation: &str, expected: Option<bool>| {
            let answer = Response::builder().status(status).header("content-type", kind);
            let answer = answer.body(Body::empty()).unwrap();
            assert_eq!(answers(Ok(&answer), operation), expected, "{status} {kind} {operation}");
        };
        check(503, "text/html; charset=utf-8", "veo.generate", Some(false));
        check(521, "text/html", "veo.generate", Some(false));
        check(503, "application/json", "veo.generate", Some(true));
        check(500, "text/html", "veo.generate", Some(true));
        check(503, "text/html", UNKNOWN_PATH, None);
        check(404, "text/html", UNKNOWN_PATH, Some(true));
    }

    #[test]
    fn a_key_in_the_query_stays_behind() {
        let check = |from: &str, to: Option<&str>| {
            let rest = without_key(&from.parse().unwrap(), Some(b"kg_fake+key"));
            assert_eq!(rest.as_ref().map(PathAndQuery::as_str), to, "{from}");
        };
        check("/a/b?x=1&key=kg_fake&y=2", Some("/a/b?x=1&y=2"));
        check("/a/b?key=kg_fake", Some("/a/b"));
        check("/a/b?monkey=1", None);
        check("/a/b?%6bey=kg_fake&x=1", Some("/a/b?x=1"));
        check("/a/b", None);
        check("/a/b?KEY=kg_fake+key&x=1&y=a%20kg_fak%65%2Bkey", Some("/a/b?x=1"));
    }
}
