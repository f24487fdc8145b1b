//! Which headers travel from one connection to the next.

use http::header::{
    ACCEPT_ENCODING, AUTHORIZATION, CONNECTION, CONTENT_LENGTH, COOKIE, HOST, TRANSFER_ENCODING,
};
use http::{HeaderMap, HeaderName, HeaderValue};
use memchr::memchr_iter;

use super::hiding::SHORTEST;
use crate::wire;

/// Whether a header is about one connection only.
///
/// Source: RFC 9110, 7.6.1, and the older list of RFC 2616, 13.5.1. `Trailer` stays: trailers travel, and some send only those that
/// were announced. That one may come and does not is no harm.
fn is_hop_by_hop(name: &HeaderName) -> bool {
    matches!(
        name.as_str(),
        "connection"
            | "keep-alive"
            | "proxy-authenticate"
            | "proxy-authorization"
            | "proxy-connection"
            | "te"
            | "transfer-encoding"
            | "upgrade"
    )
}

/// Whether a header is between client and gateway alone: the host it called, the keys it sent, wishes for the simulator, the
/// expectation of a `100 Continue`, which has been met when its body is read, and what makes two requests the same: to an
/// upstream that knew it, all tenants would be one.
fn is_private(name: &HeaderName) -> bool {
    let name = name.as_str();
    matches!(name, "host" | "authorization" | "expect" | "idempotency-key" | "x-api-key" | "x-goog-api-key")
        || name.starts_with("x-mock-")
}

/// Whether only the gateway says it: an upstream that says the same, be it another gateway, speaks of something else.
fn is_own(name: &HeaderName) -> bool {
    let name = name.as_str();
    matches!(name, "ratelimit" | "ratelimit-policy" | "x-cache") || name.starts_with("x-kiegate-")
}

/// Takes out what does not travel from a client to the upstream: what is about its connection, or between client and gateway
/// alone.
pub(super) fn keep_for_upstream(headers: &mut HeaderMap) {
    strip_with_hop_by_hop(headers, is_private);
}

/// The key that a client sent. It stands in `Authorization` alone, unless the client has put it elsewhere as well.
pub(super) fn key_of(headers: &HeaderMap) -> Option<&[u8]> {
    wire::values(headers, AUTHORIZATION).next()?.as_bytes().strip_prefix(b"Bearer ")
}

/// Whether a client's key stands in a text; one that is too short to be a secret would be found in every other.
pub(super) fn tells_key(text: &[u8], key: Option<&[u8]>) -> bool {
    let Some(key) = key.filter(|key| key.len() >= SHORTEST) else { return false };
    // Most texts are short, so looking for its first byte is less than to make a search ready.
    memchr_iter(key[0], text).any(|place| text[place..].starts_with(key))
}

/// What of `headers` travels to the upstream, after its host and its key; nothing in which the client's `key` stands does. What is
/// answered is to be looked through for that of the upstream, so it is not to be compressed.
pub(super) fn readdressed(
    headers: &HeaderMap,
    key: Option<&[u8]>,
    host: &HeaderValue,
    authorization: &HeaderValue,
) -> HeaderMap {
    let named = named_by_connection(headers);
    let travels = |name: &HeaderName, value: &HeaderValue| {
        let stays =
            is_private(name) || *name == ACCEPT_ENCODING || is_hop_by_hop(name) || named.contains(name);
        !stays && !tells_key(value.as_bytes(), key)
    };
    let mut sent = HeaderMap::with_capacity(headers.len() + 2);
    sent.append(HOST, host.clone());
    sent.append(AUTHORIZATION, authorization.clone());
    for (name, value) in headers.iter().filter(|(name, value)| travels(name, value)) {
        match sent.get_mut(COOKIE).filter(|_| *name == COOKIE) {
            // Over HTTP/2 they come one by one. Source: RFC 9113, 8.2.3.
            Some(cookies) => join(cookies, value),
            None => drop(sent.append(name.clone(), value.clone())),
        }
    }
    sent
}

fn join(cookies: &mut HeaderValue, more: &HeaderValue) {
    let all = [cookies.as_bytes(), more.as_bytes()].join(&b"; "[..]);
    *cookies = HeaderValue::from_bytes(&all).expect("what stood in headers can stand in one");
}

/// What of the `trailers` of a request travels to the upstream: nothing that would not at its beginning, nor what must stand there.
pub(super) fn trailers_for_upstream(trailers: &mut HeaderMap, key: Option<&[u8]>) {
    let tells: Vec<HeaderName> = trailers
        .iter()
        .filter(|(_, value)| tells_key(value.as_bytes(), key))
        .map(|(name, _)| name.clone())
        .collect();
    strip(trailers, |name| {
        is_hop_by_hop(name) || is_private(name) || is_of_beginning(name) || tells.contains(name)
    });
}

/// What of the `trailers` of an answer travels to a client, as [`trailers_for_upstream`].
pub(super) fn trailers_for_client(trailers: &mut HeaderMap) {
    strip(trailers, |name| is_hop_by_hop(name) || is_own(name) || is_of_beginning(name));
}

/// Whether a header says how a message is to be read or whose it is, so that it is of no use at its end.
///
/// Source: RFC 9110, 6.5.1.
fn is_of_beginning(name: &HeaderName) -> bool {
    matches!(
        name.as_str(),
        "authorization"
            | "cache-control"
            | "content-encoding"
            | "content-length"
            | "content-range"
            | "content-type"
            | "cookie"
            | "host"
            | "retry-after"
            | "set-cookie"
            | "x-request-id"
    )
}

/// Takes out what does not travel from the upstream to a client: what is about its connection, or what only the gateway says.
pub(super) fn keep_for_client(headers: &mut HeaderMap) {
    strip_with_hop_by_hop(headers, is_own);
}

/// Takes out what `is_doomed`, and with it, in one go, hop-by-hop headers and those that `Connection` names.
fn strip_with_hop_by_hop(headers: &mut HeaderMap, is_doomed: impl Fn(&HeaderName) -> bool) {
    let named = named_by_connection(headers);
    strip(headers, |name| is_hop_by_hop(name) || is_doomed(name) || named.contains(name));
}

/// What `Connection` says is about one connection only.
fn named_by_connection(headers: &HeaderMap) -> Vec<HeaderName> {
    wire::values(headers, CONNECTION)
        .filter_map(|value| value.to_str().ok())
        // Options of the connection, which are no names of headers in practice, and are what nearly all say.
        .filter(|value| !is_option(value))
        .flat_map(|value| value.split(','))
        .map(str::trim)
        .filter(|name| !is_option(name))
        .filter_map(|name| name.parse().ok())
        .collect()
}

fn is_option(word: &str) -> bool {
    word.eq_ignore_ascii_case("keep-alive") || word.eq_ignore_ascii_case("close")
}

/// Takes out what is between client and gateway alone.
pub(super) fn strip_private(headers: &mut HeaderMap) {
    strip(headers, is_private);
}

/// Takes out what `is_doomed`. Most messages have few headers and none or one to be taken out, so looking at each is the
/// least work. Others could be made to take long if each name were looked for from the start.
pub fn strip(headers: &mut HeaderMap, is_doomed: impl Fn(&HeaderName) -> bool) {
    const FEW: usize = 3;
    for _ in 0..FEW {
        let Some(name) = headers.keys().find(|name| is_doomed(name)).cloned() else { return };
        headers.remove(name);
    }
    let doomed: Vec<HeaderName> = headers.keys().filter(|name| is_doomed(name)).cloned().collect();
    for name in doomed {
        headers.remove(name);
    }
}

/// Makes the length of an answer plain: what a chunked body says of its length does not count, and a length that is told
/// several times is told once.
///
/// # Errors
/// Where the answer ends cannot be known for sure, or what its body means.
///
/// Source: RFC 9112, 6.3.
pub(super) fn settle_length(headers: &mut HeaderMap) -> Result<(), &'static str> {
    let codings: (Option<_>, Option<_>) = {
        let mut codings = wire::values(headers, TRANSFER_ENCODING);
        (codings.next(), codings.next())
    };
    match codings {
        (None, _) => {}
        (Some(coding), None) if coding.as_bytes().eq_ignore_ascii_case(b"chunked") => {
            headers.remove(CONTENT_LENGTH);
            return Ok(());
        }
        _ => return Err("it has a transfer coding other than chunked"),
    }
    if let Some(length) = one_length(headers)? {
        headers.insert(CONTENT_LENGTH, length);
    }
    Ok(())
}

/// The length that is told in `headers`, if it is told in other ways than by one number.
fn one_length(headers: &HeaderMap) -> Result<Option<HeaderValue>, &'static str> {
    let mut values = wire::values(headers, CONTENT_LENGTH);
    let Some(first) = values.next() else { return Ok(None) };
    let more = values.next();
    if more.is_none() && is_number(first.as_bytes()) {
        return Ok(None);
    }
    let all = [first].into_iter().chain(more).chain(values);
    let mut lengths =
        all.flat_map(|value| value.as_bytes().split(|byte| *byte == b',')).map(<[u8]>::trim_ascii);
    let length = lengths.next().unwrap_or_default();
    if !is_number(length) || lengths.any(|other| other != length) {
        return Err("it tells its length in more than one way, or in none that can be read");
    }
    HeaderValue::from_bytes(length).map(Some).map_err(|_| "its length cannot be read")
}

fn is_number(text: &[u8]) -> bool {
    !text.is_empty() && text.iter().all(u8::is_ascii_digit)
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
            ("authorization", "Bearer kg_fake_key"),
            ("x-api-key", "kg_fake_key"),
            ("host", "127.0.0.1:8787"),
            ("expect", "100-continue"),
            ("idempotency-key", "order-1"),
            ("accept", "application/json"),
        ] {
            headers.insert(HeaderName::from_static(name), value.parse().unwrap());
        }
        keep_for_upstream(&mut headers);
        assert_eq!(headers.keys().map(HeaderName::as_str).collect::<Vec<_>>(), ["accept"]);
    }

    /// What the gateway itself says of host and key, `Connection` cannot take out.
    #[test]
    fn the_upstreams_host_and_key_stand_in_the_places_of_the_clients() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("host", "127.0.0.1:8787"),
            ("authorization", "Bearer kg_fake_key"),
            ("authorization", "Basic abc"),
            ("connection", "close, authorization, host, x-hop"),
            ("x-hop", "1"),
            ("x-api-key", "kg_fake_key"),
            ("x-mock-outcome", "stall"),
            ("te", "trailers"),
            ("x-list", "1"),
            ("accept", "application/json"),
            ("accept-encoding", "gzip"), // the key could not be looked for
            ("x-list", "2"),
            ("cookie", "a=b; key=kg_fake_key"),
            ("cookie", "a=1"),
            ("cookie", "b=2"),
            ("referer", "https://app.test/?key=kg_fake_key"),
        ] {
            headers.append(HeaderName::from_static(name), value.parse().unwrap());
        }
        let of_upstream = |value: &'static str| HeaderValue::from_static(value);
        let sent = readdressed(
            &headers,
            key_of(&headers),
            &of_upstream("api.example.com"),
            &of_upstream("Bearer upstream"),
        );
        let sent: Vec<_> =
            sent.iter().map(|(name, value)| (name.as_str(), value.to_str().unwrap())).collect();
        let expected = [
            ("host", "api.example.com"),
            ("authorization", "Bearer upstream"),
            ("x-list", "1"),
            ("x-list", "2"),
            ("accept", "application/json"),
            ("cookie", "a=1; b=2"),
        ];
        assert_eq!(sent, expected);
    }

    /// At the end of a request a tenant's key once went upstream.
    #[test]
    fn nothing_travels_at_the_end_that_would_not_at_the_beginning() {
        let mut trailers = HeaderMap::new();
        for (name, value) in [
            ("authorization", "Bearer kg_fake_key"),
            ("x-api-key", "kg_fake_key"),
            ("x-mock-outcome", "stall"),
            ("host", "127.0.0.1:8787"),
            ("content-length", "2"),
            ("x-told", "it is kg_fake_key"),
            ("x-kiegate-error", "fake"),
            ("x-request-id", "fake"),
            ("x-checksum", "1"),
        ] {
            trailers.insert(HeaderName::from_static(name), value.parse().unwrap());
        }
        let left = |trailers: &HeaderMap| {
            let mut names: Vec<_> = trailers.keys().map(|name| name.as_str().to_owned()).collect();
            names.sort_unstable();
            names
        };
        let mut sent = trailers.clone();
        trailers_for_upstream(&mut sent, Some(b"kg_fake_key"));
        assert_eq!(left(&sent), ["x-checksum", "x-kiegate-error"]);
        trailers_for_client(&mut trailers);
        assert_eq!(left(&trailers), ["x-api-key", "x-checksum", "x-mock-outcome", "x-told"]);
    }

    /// An answer with both a length and chunks was once sent on with that length, so that its client waited for more.
    #[test]
    fn the_length_of_an_answer_is_told_once_and_for_sure() {
        let check = |lines: &[(&'static str, &str)], expected: Option<Option<&str>>| {
            let mut headers = HeaderMap::new();
            for (name, value) in lines {
                headers.append(HeaderName::from_static(name), value.parse().unwrap());
            }
            let settled = settle_length(&mut headers).ok();
            let told: Vec<_> =
                headers.get_all(CONTENT_LENGTH).iter().map(|value| value.to_str().unwrap()).collect();
            assert_eq!(settled.is_some(), expected.is_some(), "{lines:?}");
            if let Some(expected) = expected {
                assert_eq!(told, expected.into_iter().collect::<Vec<_>>(), "{lines:?}");
            }
        };
        check(&[], Some(None));
        check(&[("content-length", "2")], Some(Some("2")));
        check(&[("content-length", "2"), ("content-length", "2")], Some(Some("2")));
        check(&[("content-length", "2, 2")], Some(Some("2")));
        check(&[("content-length", "5"), ("transfer-encoding", "Chunked")], Some(None));
        for wrong in ["", "two", "+2", "2, 3", "2 2", "-1"] {
            check(&[("content-length", wrong)], None);
        }
        check(&[("content-length", "2"), ("content-length", "3")], None);
        check(&[("transfer-encoding", "gzip, chunked")], None);
        check(&[("transfer-encoding", "gzip"), ("transfer-encoding", "chunked")], None);
    }
}
