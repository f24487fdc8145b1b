//! Addresses that strangers choose: which of them are called, and that no other is.
//!
//! A tenant's callback address is looked at twice: as text when the create comes in ([`refusal`]), and when the connection
//! is made, where every address that its name resolves to is checked and the checked one is connected to ([`Guarded`]).

use std::fmt;
use std::future::Future;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode, Uri};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::Client as Pooled;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::connect::dns::Name;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use tower::Service;

use super::{reasons, with_tls};
use crate::clock::Clock;
use crate::config::HostPattern;
use crate::wire;

/// Why an address is not called.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Forbidden {
    /// It is no address at all.
    #[error("callBackUrl is not a URL with a host: write it as https://host/path")]
    Malformed,
    /// It has a name or password in it.
    #[error("callBackUrl has a name or password in it: leave out what stands before @")]
    Credentials,
    /// Not https.
    #[error("callBackUrl must begin with https://, or its host be among the tenant's allow_hosts")]
    Scheme,
    /// It is no text.
    #[error("callBackUrl is not one text: write it as \"https://host/path\"")]
    NoText,
    /// A place that is not on the public internet.
    #[error(
        "callBackUrl leads to {0}, which is not public: use a public host, or name it in the tenant's allow_hosts"
    )]
    NotPublic(String),
}

/// Why `url` may not be called, if it may not; hosts that `allow` names may be, wherever they are.
pub fn refusal(url: &str, allow: &[HostPattern]) -> Option<Forbidden> {
    let Ok(uri) = url.parse::<Uri>() else { return Some(Forbidden::Malformed) };
    let (Some(scheme), Some(host)) = (uri.scheme_str(), host(&uri)) else {
        return Some(Forbidden::Malformed);
    };
    if uri.authority().is_some_and(|authority| authority.as_str().contains('@')) {
        return Some(Forbidden::Credentials);
    }
    if !matches!(scheme, "http" | "https") {
        return Some(Forbidden::Scheme);
    }
    if has_impossible_port(&uri) {
        return Some(Forbidden::Malformed);
    }
    if is_allowed(&host, allow) {
        return None;
    }
    if scheme != "https" {
        return Some(Forbidden::Scheme);
    }
    let name = host.trim_end_matches('.').to_ascii_lowercase();
    let is_local = name == "localhost" || name.ends_with(".localhost") || name.ends_with(".internal");
    let address = name.parse::<IpAddr>().ok().or_else(|| numeric(&name).map(IpAddr::V4));
    // An address of one network interface, or a number that is no address, though some may take it for one.
    let is_odd = name.contains('%') || (address.is_none() && ends_in_number(&name));
    let not_public =
        is_local || is_odd || address.is_some_and(|address| !is_public(address)) || name.is_empty();
    not_public.then_some(Forbidden::NotPublic(host))
}

/// Whether the last part of a name is a number, as no name on the public internet ends.
fn ends_in_number(name: &str) -> bool {
    name.rsplit('.')
        .next()
        .is_some_and(|last| !last.is_empty() && last.bytes().all(|sign| sign.is_ascii_digit()))
}

/// Whether a port is told that none can have.
fn has_impossible_port(uri: &Uri) -> bool {
    let Some(authority) = uri.authority() else { return false };
    let told = authority.as_str().strip_prefix(authority.host()).unwrap_or_default();
    !matches!(told, "" | ":") && authority.port_u16().is_none_or(|port| port == 0)
}

/// The host of `uri`, without the brackets of an IPv6 address.
fn host(uri: &Uri) -> Option<String> {
    let host = uri.host()?;
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    (!bare.is_empty()).then(|| bare.to_owned())
}

/// Whether the tenant's own list names `host`.
pub fn is_allowed(host: &str, allow: &[HostPattern]) -> bool {
    let host = host.trim_end_matches('.');
    allow.iter().any(|pattern| pattern.matches(host))
}

/// An IPv4 address in one of the forms that old resolvers take: `127.1`, `0x7f.1`, `2130706433`, `017700000001`.
fn numeric(name: &str) -> Option<Ipv4Addr> {
    let parts: Vec<u64> = name.split('.').map(number).collect::<Option<_>>()?;
    let (last, before) = parts.split_last()?;
    if before.len() > 3 || before.iter().any(|part| *part > 255) {
        return None;
    }
    let room = 8 * (4 - u32::try_from(before.len()).ok()?);
    if room < 64 && *last >= 1_u64 << room {
        return None;
    }
    let high = before.iter().fold(0_u64, |bits, part| bits << 8 | part);
    u32::try_from(high << room | last).ok().map(Ipv4Addr::from)
}

fn number(text: &str) -> Option<u64> {
    let (digits, base) = match text.strip_prefix("0x") {
        Some(digits) => (digits, 16),
        None if text.len() > 1 && text.starts_with('0') => (&text[1..], 8),
        None => (text, 10),
    };
    if digits.is_empty() && base == 16 {
        return Some(0);
    }
    u64::from_str_radix(digits, base).ok()
}

/// Whether an address is on the public internet.
///
/// Source: the IANA registries of special-purpose addresses (RFC 6890 and its updates).
pub fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => is_public_v4(v4),
        IpAddr::V6(v6) => is_public_v6(v6),
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, _] = address.octets();
    let special = a == 0                                  // this network
        || a == 10
        || a == 127
        || (a == 100 && (64..128).contains(&b))           // carriers' own
        || (a == 169 && b == 254)                         // link-local, and clouds' metadata
        || (a == 172 && (16..32).contains(&b))
        || (a == 192 && b == 0 && c == 0)                 // protocol assignments
        || (a == 192 && b == 0 && c == 2)                 // documentation
        || (a == 192 && b == 88 && c == 99)               // 6to4 relays
        || (a == 192 && b == 168)
        || (a == 198 && (b == 18 || b == 19))             // benchmarks
        || (a == 198 && b == 51 && c == 100)              // documentation
        || (a == 203 && b == 0 && c == 113)               // documentation
        || a >= 224; // multicast, reserved, broadcast
    !special
}

fn is_public_v6(address: Ipv6Addr) -> bool {
    let parts = address.segments();
    // An IPv4 address in other clothes is judged as what it is.
    let inner = |high: u16, low: u16| {
        let [a, b] = high.to_be_bytes();
        let [c, d] = low.to_be_bytes();
        is_public_v4(Ipv4Addr::new(a, b, c, d))
    };
    match parts {
        [0, 0, 0, 0, 0, 0xffff, high, low]                // mapped
        | [0x64, 0xff9b, 0, 0, 0, 0, high, low]           // NAT64
        | [0x2002, high, low, ..] => inner(high, low), // 6to4
        [0x64, 0xff9b, 1, ..]                             // local NAT64
        | [0x2001, 0 | 0xdb8, ..]                         // Teredo, documentation
        | [0x3fff, 0..=0x0fff, ..] => false, // documentation
        // Protocol assignments lie in 2001::/23; all that is public lies in 2000::/3.
        [0x2001, second, ..] if second < 0x200 => false,
        [first, ..] => first & 0xe000 == 0x2000,
    }
}

/// What a guarded call brought back.
#[derive(Clone, Debug)]
pub struct Delivered {
    /// The receiver's status.
    pub status: StatusCode,
    /// When it wants to be called again.
    pub retry_after: Option<Duration>,
}

/// What kind of failure a guarded call met with; as metrics call it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FailureKind {
    /// The address is not called.
    Refused,
    /// No connection.
    Connect,
    /// No answer in time.
    Timeout,
    /// The connection broke.
    Broken,
}

/// A guarded call that got no answer.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{what}")]
pub struct Failure {
    /// Of which kind.
    pub kind: FailureKind,
    /// In words, for people.
    pub what: String,
}

impl Failure {
    fn new(kind: FailureKind, what: impl fmt::Display) -> Self {
        Self { kind, what: what.to_string() }
    }
}

/// So much of an answer's body is read, and for so long.
const READ: usize = 4096;
const READ_FOR: Duration = Duration::from_secs(1);

type GuardedPool = Pooled<HttpsConnector<HttpConnector<Resolver>>, Body>;

/// Calls addresses that tenants chose. Connections to public places and those to places that a tenant was allowed are kept
/// apart, so that none is used for whom it was not opened for.
#[derive(Clone)]
pub struct Guarded {
    strict: GuardedPool,
    exempt: GuardedPool,
    timeout: Duration,
}

impl Guarded {
    /// Calls that take no longer than `timeout`, from the name's resolution to the head of the answer.
    pub fn new(timeout: Duration) -> Self {
        let resolve: Arc<Resolve> = Arc::new(|name| Box::pin(system(name)));
        Self::with_resolver(timeout, &resolve)
    }

    /// As [`Guarded::new`], with names resolved by `resolve`: for tests.
    pub fn with_resolver(timeout: Duration, resolve: &Arc<Resolve>) -> Self {
        let pool = |only_public| pool(Resolver { resolve: Arc::clone(resolve), only_public });
        Self { strict: pool(true), exempt: pool(false), timeout }
    }

    /// Posts `body` to `url`, follows nowhere, and gives the status of the answer.
    ///
    /// # Errors
    /// What kept an answer from coming.
    pub async fn post(
        &self,
        url: &str,
        headers: HeaderMap,
        body: Bytes,
        allow: &[HostPattern],
    ) -> Result<Delivered, Failure> {
        if let Some(forbidden) = refusal(url, allow) {
            return Err(Failure::new(FailureKind::Refused, forbidden));
        }
        let uri: Uri = url.parse().map_err(|error| Failure::new(FailureKind::Refused, error))?;
        let is_exempt = host(&uri).is_some_and(|host| is_allowed(&host, allow));
        let pool = if is_exempt { &self.exempt } else { &self.strict };
        let mut request = Request::post(uri)
            .body(Body::from(body))
            .map_err(|error| Failure::new(FailureKind::Refused, error))?;
        *request.headers_mut() = headers;
        let late = |_| Failure::new(FailureKind::Timeout, format!("no answer within {:?}", self.timeout));
        let response = tokio::time::timeout(self.timeout, pool.request(request)).await.map_err(late)?;
        let (parts, body) = response.map_err(|error| failure(&error))?.into_parts();
        let retry_after = wire::retry_after(&parts.headers, Clock::system().now().millis());
        // The head has said all; whether the rest of it comes is nobody's concern.
        let _ = tokio::time::timeout(READ_FOR, read_a_little(body)).await;
        Ok(Delivered { status: parts.status, retry_after })
    }
}

/// Reads the beginning of a body, so that the connection can serve again if that is all; more is not wanted.
async fn read_a_little(mut body: Incoming) {
    let mut read = 0;
    while let Some(Ok(frame)) = body.frame().await {
        read += frame.data_ref().map_or(0, Bytes::len);
        if read > READ {
            break;
        }
    }
}

fn pool(resolver: Resolver) -> GuardedPool {
    let mut tcp = HttpConnector::new_with_resolver(resolver);
    tcp.set_nodelay(true);
    tcp.enforce_http(false);
    let connector = with_tls(tcp);
    let mut pool = Pooled::builder(TokioExecutor::new());
    pool.pool_timer(TokioTimer::new()).pool_idle_timeout(Duration::from_secs(30)).pool_max_idle_per_host(4);
    pool.build(connector)
}

fn failure(error: &hyper_util::client::legacy::Error) -> Failure {
    let kind = if error.is_connect() { FailureKind::Connect } else { FailureKind::Broken };
    let text = reasons(error);
    let kind = if text.contains(NOT_PUBLIC) { FailureKind::Refused } else { kind };
    Failure { kind, what: text }
}

/// Looks names up.
pub type Resolve =
    dyn Fn(String) -> Pin<Box<dyn Future<Output = std::io::Result<Vec<SocketAddr>>> + Send>> + Send + Sync;

async fn system(name: String) -> std::io::Result<Vec<SocketAddr>> {
    Ok(tokio::net::lookup_host((name, 0)).await?.collect())
}

const NOT_PUBLIC: &str = "leads to no public address";

/// Gives only the addresses that may be connected to. The connector connects to what it gets here and looks nothing up
/// by itself, so that a name cannot mean one address when it is checked and another when it is called.
#[derive(Clone)]
struct Resolver {
    resolve: Arc<Resolve>,
    only_public: bool,
}

impl Service<Name> for Resolver {
    type Response = std::vec::IntoIter<SocketAddr>;
    type Error = std::io::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, name: Name) -> Self::Future {
        let (found, only_public) = ((self.resolve)(name.as_str().to_owned()), self.only_public);
        Box::pin(async move {
            let mut found = found.await?;
            found.retain(|address| !only_public || is_public(address.ip()));
            if found.is_empty() {
                return Err(std::io::Error::other(format!("{name} {NOT_PUBLIC}")));
            }
            Ok(found.into_iter())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Sources;

    fn allow(hosts: &str) -> Vec<HostPattern> {
        let text = format!("[[tenant]]\nid = \"acme\"\n[tenant.callbacks]\nallow_hosts = [{hosts}]");
        let sources = Sources { file: Some(("test.toml".into(), text)), ..Sources::default() };
        sources.read().unwrap().tenants.remove(0).callbacks.allow_hosts
    }

    #[test]
    fn literal_addresses_are_judged_in_whatever_clothes_they_come() {
        for private in [
            "https://127.0.0.1/",
            "https://127.1/",
            "https://0x7f.1/",
            "https://2130706433/",
            "https://017700000001/",
            "https://0/",
            "https://10.1.2.3/",
            "https://192.168.0.1:8443/x",
            "https://172.31.255.255/",
            "https://169.254.169.254/latest/meta-data/",
            "https://100.64.0.1/",
            "https://224.0.0.1/",
            "https://255.255.255.255/",
            "https://[::1]/",
            "https://[::]/",
            "https://[fe80::1]/",
            "https://[fd00::1]/",
            "https://[::ffff:10.0.0.1]/",
            "https://[::ffff:7f00:1]/",
            "https://[64:ff9b::7f00:1]/",
            "https://[2002:7f00:1::]/",
            "https://[2001::1]/",
            "https://[::127.0.0.1]/",
            "https://localhost/",
            "https://LOCALHOST./",
            "https://a.localhost/",
            "https://metadata.google.internal/",
            "https://127.0.0.1./",
            "https://192.0.2.7/",
            "https://198.18.0.1/",
            "https://0.0.0.0/",
            "https://[ff02::1]/",
            "https://[fe80::1%25eth0]/",
            "https://[::1%lo]/",
            "https://256.256.256.256/",
            "https://1.2.3.4.5/",
            "https://4294967296/",
        ] {
            assert!(matches!(refusal(private, &[]), Some(Forbidden::NotPublic(_))), "{private}");
        }
        for public in [
            "https://example.com/hook",
            "https://93.184.216.34/",
            "https://[2606:2800:220:1::1]/",
            "https://172.32.0.1/",
            "https://hooks.example.com:8443/a?b=c",
            "https://100.128.0.1/",
            "https://[64:ff9b::5db8:d822]/",
        ] {
            assert_eq!(refusal(public, &[]), None, "{public}");
        }
    }

    #[test]
    fn schemes_and_credentials_are_refused_and_allowed_hosts_are_not() {
        assert_eq!(refusal("http://example.com/", &[]), Some(Forbidden::Scheme));
        assert_eq!(refusal("ftp://example.com/", &[]), Some(Forbidden::Scheme));
        assert_eq!(refusal("file:///etc/passwd", &[]), Some(Forbidden::Malformed));
        assert_eq!(refusal("https://user:pass@example.com/", &[]), Some(Forbidden::Credentials));
        assert_eq!(refusal("not a url", &[]), Some(Forbidden::Malformed));
        assert_eq!(refusal("/relative", &[]), Some(Forbidden::Malformed));
        for port in ["99999", "0", "x"] {
            let url = format!("https://example.com:{port}/");
            assert_eq!(refusal(&url, &[]), Some(Forbidden::Malformed), "{url}");
        }
        assert_eq!(refusal("https://example.com:443/", &[]), None);
        assert_eq!(refusal("https://[2606:2800:220:1::1]:8443/", &[]), None);
        let allow = allow("\"127.0.0.1\", \"*.corp.example\"");
        assert_eq!(refusal("http://127.0.0.1:9000/hook", &allow), None);
        assert_eq!(refusal("http://build.corp.example/", &allow), None);
        assert_eq!(refusal("gopher://127.0.0.1/", &allow), Some(Forbidden::Scheme));
        assert!(refusal("http://127.0.0.2/", &allow).is_some());
    }

    fn resolver_to(address: &'static str) -> Arc<Resolve> {
        Arc::new(move |_| Box::pin(async move { Ok(vec![address.parse().unwrap()]) }))
    }

    #[tokio::test]
    async fn a_name_that_leads_inside_is_not_called() {
        let guarded = Guarded::with_resolver(Duration::from_secs(5), &resolver_to("127.0.0.1:0"));
        let call = guarded.post("https://public.example/", HeaderMap::new(), Bytes::new(), &[]).await;
        let failure = call.unwrap_err();
        assert_eq!(failure.kind, FailureKind::Refused, "{failure}");
    }

    #[tokio::test]
    async fn an_allowed_host_is_called_and_redirects_are_not_followed() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let router = axum::Router::new().fallback(|| async {
            (StatusCode::FOUND, [("location", "/elsewhere"), ("retry-after", "7")], "x".repeat(100_000))
        });
        crate::background::spawn(async move { axum::serve(listener, router).await });
        let guarded = Guarded::new(Duration::from_secs(5));
        let url = format!("http://127.0.0.1:{port}/hook");
        let answer =
            guarded.post(&url, HeaderMap::new(), Bytes::new(), &allow("\"127.0.0.1\"")).await.unwrap();
        assert_eq!((answer.status, answer.retry_after), (StatusCode::FOUND, Some(Duration::from_secs(7))));
        assert!(guarded.post(&url, HeaderMap::new(), Bytes::new(), &[]).await.is_err());
    }

    /// The call once took as long as its answer's body, and the callback was sent again, for a day, though it had been taken.
    #[tokio::test]
    async fn an_answer_whose_body_does_not_end_is_an_answer() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/hook", listener.local_addr().unwrap());
        let endless = || Body::from_stream(futures_util::stream::pending::<Result<Bytes, std::io::Error>>());
        let router = axum::Router::new().fallback(move || async move { endless() });
        crate::background::spawn(async move { axum::serve(listener, router).await });
        let guarded = Guarded::new(Duration::from_secs(5));
        let answer = guarded.post(&url, HeaderMap::new(), Bytes::new(), &allow("\"127.0.0.1\"")).await;
        assert_eq!(answer.unwrap().status, StatusCode::OK);
    }
}
