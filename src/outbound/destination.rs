//! Where requests go.

use std::hash::{Hash, Hasher};
use std::sync::{Arc, LazyLock};

use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderValue, Uri};

/// A host, with how it is spoken to: looked at once for many requests. Clones are the same.
#[derive(Clone, Debug)]
pub struct Destination(Arc<Known>);

#[derive(Debug)]
struct Known {
    scheme: Scheme,
    authority: Authority,
    header: HeaderValue,
    print: u64,
}

static PRINTS: LazyLock<ahash::RandomState> = LazyLock::new(ahash::RandomState::new);

impl Destination {
    /// The host of `uri`, if it names one.
    pub fn of(uri: &Uri) -> Option<Self> {
        let (scheme, authority) = (uri.scheme()?.clone(), uri.authority()?.clone());
        let usual = if scheme == Scheme::HTTPS { 443 } else { 80 };
        let spelt = if authority.port_u16() == Some(usual) { authority.host() } else { authority.as_str() };
        let header = HeaderValue::from_str(spelt).ok()?;
        let print = PRINTS.hash_one((&scheme, &authority));
        Some(Self(Arc::new(Known { scheme, authority, header, print })))
    }

    /// As the head of a request spells it: without a port that goes without saying.
    pub fn header(&self) -> &HeaderValue {
        &self.0.header
    }

    /// The address there of what is at the path and query of `uri`.
    pub(super) fn address(&self, uri: &Uri) -> Uri {
        let Known { scheme, authority, .. } = &*self.0;
        let mut parts = http::uri::Parts::default();
        parts.scheme = Some(scheme.clone());
        parts.authority = Some(authority.clone());
        parts.path_and_query = Some(path(uri));
        Uri::from_parts(parts).unwrap_or_else(|_| uri.clone())
    }
}

/// The path and query of `uri`.
pub(super) fn path(uri: &Uri) -> PathAndQuery {
    uri.path_and_query().cloned().unwrap_or_else(|| PathAndQuery::from_static("/"))
}

impl PartialEq for Destination {
    fn eq(&self, other: &Self) -> bool {
        let (ours, others) = (&*self.0, &*other.0);
        let is_same = || ours.scheme == others.scheme && ours.authority == others.authority;
        Arc::ptr_eq(&self.0, &other.0) || (ours.print == others.print && is_same())
    }
}

impl Eq for Destination {}

impl Hash for Destination {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        hasher.write_u64(self.0.print);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(address: &str) -> Destination {
        Destination::of(&address.parse().unwrap()).unwrap()
    }

    #[test]
    fn a_host_is_the_same_however_its_addresses_differ() {
        assert_eq!(of("https://api.example.com/a?b=c"), of("https://API.example.com/"));
        assert_ne!(of("https://api.example.com"), of("http://api.example.com"));
        assert_ne!(of("http://api.example.com"), of("http://api.example.com:8080"));
        assert_eq!(Destination::of(&"/only/a/path".parse().unwrap()), None);
    }

    #[test]
    fn it_is_spelt_as_in_the_head_of_a_request() {
        assert_eq!(of("https://api.example.com:443/a").header(), "api.example.com");
        assert_eq!(of("https://api.example.com:80/a").header(), "api.example.com:80");
        assert_eq!(of("http://[::1]:8080").header(), "[::1]:8080");
        let whole = of("https://api.example.com").address(&"/a?b=c".parse().unwrap());
        assert_eq!(whole, "https://api.example.com/a?b=c");
        assert_eq!(of("http://a.example").address(&"http://b.example".parse().unwrap()), "http://a.example/");
    }
}
