//! Connections that this process opens: to the live upstream, to receivers of callbacks, to its own admin plane.
//!
//! One pooled client for HTTP/1.1 and HTTP/2, with TLS by rustls, Mozilla's roots and the system's. No redirects are
//! followed. `guard` calls addresses that tenants chose.

mod destination;
pub mod guard;
mod pool;

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use axum::body::Body;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use http::{Request, Response, StatusCode, Uri};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::connect::HttpConnector;
use tokio::time::Instant;
use tokio_rustls::rustls::{ClientConfig, RootCertStore, crypto};
use tower::BoxError;

pub use destination::Destination;
use pool::Pools;

use crate::sim::{Courier, Parcel};

/// Sends requests, and keeps connections for the next one. Clones share them.
#[derive(Clone)]
pub struct Client(Arc<Pools>);

/// The time that a request has for the head of its answer.
#[derive(Clone, Copy, Debug)]
pub struct Deadline {
    /// When it is sent.
    pub sent: Instant,
    /// When it is given up; absent: by whoever waits.
    pub until: Option<Instant>,
}

/// Why a request has no answer.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Its address names no host.
    #[error("the address names no host")]
    NoHost,
    /// There is no connection: nothing was sent.
    #[error("cannot connect")]
    Connect(#[source] BoxError),
    /// The connection was closed as soon as it was there: nothing was sent.
    #[error("the connection was closed at once")]
    Closed,
    /// The other end of a connection for many requests said that it has not looked at this one.
    #[error("the request was not taken")]
    Untaken {
        /// What it said.
        #[source]
        error: hyper::Error,
        /// What that means.
        why: Untaken,
    },
    /// A connection that had been kept was closed before an answer came: the other end may have closed it just when the request
    /// was sent.
    #[error("a kept connection was closed")]
    Stale(#[source] hyper::Error),
    /// The connection broke, or what came is no answer.
    #[error("no answer")]
    Exchange(#[source] hyper::Error),
    /// The head of the answer did not come in time.
    #[error("no answer in time")]
    Late,
}

/// Why a request was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Untaken {
    /// The connection is closed in good order, as servers do after so many requests: the next one takes it.
    Closing,
    /// There are too many requests on it.
    Busy,
    /// It is closed because something is wrong.
    Trouble,
}

impl From<hyper::Error> for Error {
    /// Source: RFC 9113, 6.8 and 8.7 (streams beyond the last one of a GOAWAY, and those that are refused, were not processed).
    fn from(error: hyper::Error) -> Self {
        let cause = std::error::Error::source(&error).and_then(|cause| cause.downcast_ref::<h2::Error>());
        let said = cause.filter(|cause| cause.is_remote()).map(|cause| (cause.is_go_away(), cause.reason()));
        let why = match said {
            Some((true, Some(h2::Reason::NO_ERROR))) => Untaken::Closing,
            Some((true, _)) => Untaken::Trouble,
            Some((false, Some(h2::Reason::REFUSED_STREAM))) => Untaken::Busy,
            _ => return Self::Exchange(error),
        };
        Self::Untaken { error, why }
    }
}

impl Client {
    /// A client that gives up opening a connection, TLS and all, after `connect_timeout`, and closes unused ones after
    /// `idle_timeout`.
    pub fn new(connect_timeout: Duration, idle_timeout: Duration) -> Self {
        let mut tcp = HttpConnector::new();
        tcp.set_connect_timeout(Some(connect_timeout));
        tcp.set_nodelay(true);
        tcp.enforce_http(false);
        Self(Arc::new(Pools::new(with_tls(tcp), connect_timeout, idle_timeout)))
    }

    /// Sends `request` to where its address says, and waits for the head of the answer.
    ///
    /// # Errors
    /// As [`Client::send_to`], and addresses without a host.
    pub async fn send(&self, request: Request<Body>) -> Result<Response<Body>, Error> {
        let host = Destination::of(request.uri()).ok_or(Error::NoHost)?;
        self.send_to(&host, request, Deadline { sent: Instant::now(), until: None }).await
    }

    /// Sends `request` to `host`, and waits for the head of the answer as long as `deadline` allows. Of the request's
    /// address path and query count.
    ///
    /// # Errors
    /// Connections that cannot be opened, or break before the head has arrived. A request that had not been sent when a kept
    /// connection turned out to be closed is sent over another one.
    pub fn send_to<'c>(
        &'c self,
        host: &'c Destination,
        request: Request<Body>,
        deadline: Deadline,
    ) -> impl Future<Output = Result<Response<Body>, Error>> + Send + use<'c> {
        self.0.send(host, request, deadline)
    }
}

/// `tcp` with TLS over it, where a URL says so.
fn with_tls<R>(tcp: HttpConnector<R>) -> HttpsConnector<HttpConnector<R>> {
    let tls = HttpsConnectorBuilder::new().with_tls_config(TLS.clone());
    tls.https_or_http().enable_all_versions().wrap_connector(tcp)
}

/// Who vouches for servers: the roots that Mozilla knows, and those of the system, among which a company may have its own.
/// `SSL_CERT_FILE` and `SSL_CERT_DIR` name others in the place of the system's. What cannot be read there is told once,
/// and vouches for nobody.
static TLS: LazyLock<ClientConfig> = LazyLock::new(|| {
    let mut roots: RootCertStore = webpki_roots::TLS_SERVER_ROOTS.iter().cloned().collect();
    let of_system = rustls_native_certs::load_native_certs();
    for error in of_system.errors {
        tracing::warn!("certificates of the system cannot be read: {error}");
    }
    let (_, unreadable) = roots.add_parsable_certificates(of_system.certs);
    if unreadable > 0 {
        tracing::debug!("{unreadable} certificates of the system are none that can vouch for a server");
    }
    ClientConfig::builder_with_provider(Arc::new(crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("ring knows TLS 1.2 and 1.3")
        .with_root_certificates(roots)
        .with_no_client_auth()
});

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
