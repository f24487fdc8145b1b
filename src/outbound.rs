//! Connections that this process opens: to the live upstream, to receivers of callbacks, to its own admin plane.
//!
//! One pooled client for HTTP/1.1 and HTTP/2, with TLS by rustls and Mozilla's roots. No redirects are followed. `guard`
//! calls addresses that tenants chose.

pub mod guard;

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use http::{Request, Response, StatusCode, Uri};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::{Client as Pooled, Error};
use hyper_util::rt::{TokioExecutor, TokioTimer};

use crate::background;
use crate::sim::{Courier, Parcel};

/// A pool of connections for each lane and one for all others, since a connection is best used where it was opened.
/// Clones share them.
#[derive(Clone)]
pub struct Client(Arc<[Pooled<HttpsConnector<HttpConnector>, Body>]>);

impl Client {
    /// A client that gives up opening a connection after `connect_timeout`, and closes unused ones after
    /// `idle_timeout`.
    pub fn new(connect_timeout: Duration, idle_timeout: Duration) -> Self {
        let mut tcp = HttpConnector::new();
        tcp.set_connect_timeout(Some(connect_timeout));
        tcp.set_nodelay(true);
        tcp.enforce_http(false);
        let connector = with_tls(tcp);
        let mut pool = Pooled::builder(TokioExecutor::new());
        pool.pool_timer(TokioTimer::new()).pool_idle_timeout(idle_timeout);
        Self((0..=background::cores()).map(|_| pool.build(connector.clone())).collect())
    }

    /// Sends `request` and waits for the head of the answer.
    ///
    /// # Errors
    /// Connections that cannot be opened, or break before the head has arrived.
    pub async fn send(&self, request: Request<Body>) -> Result<Response<Body>, Error> {
        let pool = &self.0[background::lane() % self.0.len()];
        pool.request(request).await.map(|response| response.map(Body::new))
    }
}

/// `tcp` with TLS over it, where a URL says so.
fn with_tls<R>(tcp: HttpConnector<R>) -> HttpsConnector<HttpConnector<R>> {
    let tls = HttpsConnectorBuilder::new().with_webpki_roots();
    tls.https_or_http().enable_all_versions().wrap_connector(tcp)
}

/// What went wrong, with its causes, on one line.
pub fn reasons(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.ends_with(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}

/// Carries simulated callbacks to wherever they want to go.
impl Courier for Client {
    fn deliver(&self, parcel: Parcel) -> BoxFuture<'static, Result<StatusCode, String>> {
        let client = self.clone();
        async move {
            let url: Uri = parcel.url.parse().map_err(|error| format!("not a URL: {error}"))?;
            if !matches!(url.scheme_str(), Some("http" | "https")) || url.host().is_none() {
                return Err("not an http or https URL".to_owned());
            }
            let mut request =
                Request::post(url).body(Body::from(parcel.body)).map_err(|error| error.to_string())?;
            *request.headers_mut() = parcel.headers;
            let response = client.send(request).await.map_err(|error| reasons(&error))?;
            Ok(response.status())
        }
        .boxed()
    }
}
