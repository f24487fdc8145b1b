//! The real API as an upstream: a streaming pass-through with the tenant's key swapped for the account's.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use http::header::AUTHORIZATION;
use http::uri::PathAndQuery;
use http::{HeaderValue, Request, Response, StatusCode, Uri, Version};
use tokio::time::{Instant, timeout};

use super::headers::{keep_for_client, keep_for_upstream, settle_length};
use super::hiding::Hidden;
use super::sending::Progress;
use super::{About, Breaker, KeyIx, Upstream, UpstreamError};
use crate::config;
use crate::outbound::{Client, Error, reasons};
use crate::telemetry::Metrics;
use crate::wire;

/// Paths that the upload host serves.
pub(super) const UPLOADS: &str = "/api/file-";

/// The live API.
pub struct Live {
    client: Client,
    api: Host,
    uploads: Host,
    keys: Vec<Key>,
    response_timeout: Duration,
    metrics: Arc<Metrics>,
}

/// One of the two hosts of the API.
struct Host {
    base: Uri,
    breaker: Breaker,
}

/// An upstream key, ready to be sent.
struct Key {
    name: String,
    /// `Bearer …`, marked as not to be printed.
    authorization: HeaderValue,
    /// Not to be told by anybody.
    hidden: Option<Hidden>,
}

impl Key {
    fn new(key: &config::UpstreamKey) -> Option<Self> {
        let mut authorization = HeaderValue::from_str(&format!("Bearer {}", key.secret.expose())).ok()?;
        authorization.set_sensitive(true);
        Some(Self { name: key.name.clone(), authorization, hidden: Hidden::new(key.secret.expose()) })
    }
}

impl Live {
    /// From the configuration, which has at least one upstream key in live mode; `None` without one, or with one
    /// that cannot stand in a header.
    pub fn new(config: &config::Upstream, client: Client, metrics: Arc<Metrics>) -> Option<Self> {
        let keys: Vec<Key> = config.keys.iter().map(Key::new).collect::<Option<_>>()?;
        let host = |base: &Uri| Host { base: base.clone(), breaker: Breaker::default() };
        (!keys.is_empty()).then(|| Self {
            client,
            api: host(&config.base_url),
            uploads: host(&config.upload_url),
            keys,
            response_timeout: config.response_timeout,
            metrics,
        })
    }

    /// The hosts, and whether each is left alone because it does not answer.
    pub fn breakers(&self) -> [(&str, bool); 2] {
        [&self.api, &self.uploads].map(|host| (host.base.host().unwrap_or_default(), host.breaker.is_open()))
    }

    #[expect(clippy::manual_async_fn, reason = "an async function has room for what it is given twice")]
    fn forward(
        &self,
        mut request: Request<Body>,
        about: About,
    ) -> impl Future<Output = Result<Response<Body>, UpstreamError>> + Send {
        async move {
            let host = if request.uri().path().starts_with(UPLOADS) { &self.uploads } else { &self.api };
            let leave = host.breaker.ask().map_err(UpstreamError::LeftAlone)?;
            let key = self.key(about.key);
            *request.uri_mut() = target(&host.base, request.uri());
            *request.version_mut() = Version::HTTP_11;
            keep_for_upstream(request.headers_mut());
            request.headers_mut().insert(AUTHORIZATION, key.authorization.clone());
            let began = Instant::now();
            let answer = if about.streams {
                Box::pin(self.stream(request)).await
            } else {
                let sent = timeout(self.response_timeout, self.client.send(request)).await;
                let late = |_| UpstreamError::Timeout(self.response_timeout);
                sent.map_err(late).and_then(|answer| answer.map_err(|error| failure(&error)))
            };
            let answer = answer.and_then(sound);
            if let Some(answers) = answers(answer.as_ref().err()) {
                leave.end(answers);
            }
            let status = answer.as_ref().ok().map(|response| response.status().as_u16());
            self.metrics.upstream_answered(&key.name, &about.operation, status, began.elapsed());
            match &key.hidden {
                Some(hidden) => answer.map(|response| hidden.in_response(response)),
                None => answer,
            }
        }
    }

    /// Sends a request whose body is still on its way.
    async fn stream(&self, request: Request<Body>) -> Result<Response<Body>, UpstreamError> {
        let progress = Progress::new();
        let request = request.map(|body| progress.of(body));
        match progress.within(self.response_timeout, self.client.send(request)).await {
            Some(answer) => answer.map_err(|error| progress.fault().unwrap_or_else(|| failure(&error))),
            None => Err(UpstreamError::Timeout(self.response_timeout)),
        }
    }

    fn key(&self, index: KeyIx) -> &Key {
        self.keys.get(index.0).unwrap_or(&self.keys[0])
    }
}

/// What an exchange that ended in `error`, or well, says of the host: whether it answers, if anything.
fn answers(error: Option<&UpstreamError>) -> Option<bool> {
    match error {
        None | Some(UpstreamError::Garbled(_)) => Some(true),
        Some(
            UpstreamError::Unreachable(_)
            | UpstreamError::Broken(_)
            | UpstreamError::Timeout(_)
            | UpstreamError::Untaken { in_order: false, .. },
        ) => Some(false),
        // It changes connections, or the client's body broke off.
        Some(_) => None,
    }
}

/// What became of a request that got no answer, where that was not the client's doing.
fn failure(error: &Error) -> UpstreamError {
    let what = reasons(error);
    match error {
        Error::Connect(_) | Error::NoHost | Error::Closed => UpstreamError::Unreachable(what),
        Error::Untaken { in_order, .. } => UpstreamError::Untaken { what, in_order: *in_order },
        Error::Exchange(error) if error.is_parse() => UpstreamError::Garbled(error.to_string()),
        Error::Exchange(_) => UpstreamError::Broken(what),
    }
}

/// The path and query of `uri` on the host of `base`. A key in the query stays behind.
fn target(base: &Uri, uri: &Uri) -> Uri {
    let mut parts = base.clone().into_parts();
    parts.path_and_query = Some(without_key(uri));
    Uri::from_parts(parts).unwrap_or_else(|_| base.clone())
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

/// Path and query of `uri`, without a parameter `key`.
fn without_key(uri: &Uri) -> PathAndQuery {
    let whole = || uri.path_and_query().cloned().unwrap_or_else(|| PathAndQuery::from_static("/"));
    let is_key = |pair: &&str| wire::pairs(pair).any(|(name, _)| name == "key");
    let Some(query) = uri.query().filter(|query| query.split('&').any(|pair| is_key(&pair))) else {
        return whole();
    };
    let rest: Vec<&str> = query.split('&').filter(|pair| !is_key(pair)).collect();
    let text =
        if rest.is_empty() { uri.path().to_owned() } else { format!("{}?{}", uri.path(), rest.join("&")) };
    text.parse().unwrap_or_else(|_| PathAndQuery::from_static("/"))
}

impl Upstream for Live {
    fn send(
        &self,
        request: Request<Body>,
        about: About,
    ) -> BoxFuture<'_, Result<Response<Body>, UpstreamError>> {
        self.forward(request, about).boxed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_in_the_query_stays_behind() {
        let check = |from: &str, to: &str| assert_eq!(without_key(&from.parse().unwrap()), to, "{from}");
        check("/a/b?x=1&key=kg_fake&y=2", "/a/b?x=1&y=2");
        check("/a/b?key=kg_fake", "/a/b");
        check("/a/b?monkey=1", "/a/b?monkey=1");
        check("/a/b?%6bey=kg_fake&x=1", "/a/b?x=1");
        check("/a/b", "/a/b");
    }
}
