//! Which headers travel from one connection to the next.

use http::header::{
    CONNECTION, HOST, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, TE, TRAILER, TRANSFER_ENCODING, UPGRADE,
};
use http::{HeaderMap, HeaderName};

/// Headers about one connection only.
///
/// Source: RFC 9110, 7.6.1, and the older list of RFC 2616, 13.5.1.
const HOP_BY_HOP: [HeaderName; 7] =
    [CONNECTION, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, TE, TRAILER, TRANSFER_ENCODING, UPGRADE];

/// Takes out what must not travel on: hop-by-hop headers, and those that `Connection` names.
pub(super) fn strip_hop_by_hop(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers
        .get_all(CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect();
    for name in named.iter().chain(&HOP_BY_HOP) {
        headers.remove(name);
    }
    for name in ["keep-alive", "proxy-connection"] {
        headers.remove(name);
    }
}

/// Takes out what is between client and gateway alone: the host it called, the keys it sent, wishes for the simulator.
pub(super) fn strip_private(headers: &mut HeaderMap) {
    let mock: Vec<HeaderName> =
        headers.keys().filter(|name| name.as_str().starts_with("x-mock-")).cloned().collect();
    mock.iter().chain(&[HOST]).for_each(|name| drop(headers.remove(name)));
    for name in ["x-api-key", "x-goog-api-key", "authorization"] {
        headers.remove(name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_for_the_other_end_travels() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("connection", "keep-alive, x-hop"),
            ("x-hop", "1"),
            ("keep-alive", "timeout=5"),
            ("te", "trailers"),
            ("transfer-encoding", "chunked"),
            ("x-mock-outcome", "stall"),
            ("authorization", "Bearer kg_fake"),
            ("x-api-key", "kg_fake"),
            ("host", "127.0.0.1:8787"),
            ("accept", "application/json"),
        ] {
            headers.insert(HeaderName::from_static(name), value.parse().unwrap());
        }
        strip_hop_by_hop(&mut headers);
        strip_private(&mut headers);
        assert_eq!(headers.keys().map(HeaderName::as_str).collect::<Vec<_>>(), ["accept"]);
    }
}
