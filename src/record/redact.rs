//! What must not be written down: keys, wherever they stand, signatures, cookies, the rest of callback addresses.
//!
//! A secret is found as text, inside of JSON whatever its escapes, and where the events of a stream, or the items of a
//! list, say it piece by piece, as a language model does that repeats what it was told.

use std::collections::{BTreeSet, HashMap};
use std::ops::Range;
use std::sync::{PoisonError, RwLock};

use http::{HeaderMap, HeaderName};
use serde_json::Value;

use super::har::Pair;
use crate::ids::Secret;

/// What stands in the place of a secret.
pub(super) const REDACTED: &str = "REDACTED";
/// Headers whose value is secret as a whole.
const SECRET_HEADERS: [&str; 8] = [
    "authorization",
    "cookie",
    "proxy-authorization",
    "set-cookie",
    "x-api-key",
    "x-goog-api-key",
    "x-webhook-signature",
    "x-kiegate-create",
];
/// Shorter ones are words, and would be found everywhere.
const SHORTEST: usize = 8;
/// So many keys are remembered that were seen on the way.
const MOST_SEEN: usize = 10_000;
/// What tokens are introduced with, and what they are made of; each is at least so long.
const INTRODUCED: [(&str, usize); 2] = [("Bearer ", 12), ("kg_", 40)];

/// Knows the secrets.
#[derive(Debug)]
pub struct Redactor {
    known: Vec<Secret>,
    /// Found in the heads of requests.
    seen: RwLock<BTreeSet<String>>,
    /// What stands before the secret part of an address.
    addresses: &'static str,
}

impl Redactor {
    /// Hides `secrets`, and whatever follows `addresses` in an address.
    pub fn new(secrets: impl IntoIterator<Item = Secret>, addresses: &'static str) -> Self {
        let known = secrets.into_iter().filter(|secret| secret.expose().len() >= SHORTEST).collect();
        Self { known, seen: RwLock::default(), addresses }
    }

    /// Hides the keys in the head of a request, too, from now on.
    pub(super) fn learn(&self, headers: &HeaderMap, query: &str) {
        let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        let bearer = text("authorization").and_then(|value| Some(value.split_once(' ')?.1.trim()));
        let in_query = form_urlencoded::parse(query.as_bytes()).find(|(name, _)| name == "key");
        let in_query = in_query.map(|(_, key)| key.into_owned());
        let found = [bearer, text("x-api-key"), text("x-goog-api-key"), in_query.as_deref()];
        for key in found.into_iter().flatten().filter(|key| key.len() >= SHORTEST) {
            let is_new = !self.seen.read().unwrap_or_else(PoisonError::into_inner).contains(key);
            if is_new {
                let mut seen = self.seen.write().unwrap_or_else(PoisonError::into_inner);
                if seen.len() < MOST_SEEN {
                    seen.insert(key.to_owned());
                }
            }
        }
    }

    /// Headers as they may be written down.
    pub(super) fn headers(&self, headers: &HeaderMap) -> Vec<Pair> {
        let value = |name: &HeaderName, value: &[u8]| {
            let is_secret = SECRET_HEADERS.contains(&name.as_str());
            if is_secret { REDACTED.to_owned() } else { self.text(&String::from_utf8_lossy(value)) }
        };
        let pair = |(name, text): (&HeaderName, &http::HeaderValue)| Pair {
            name: name.to_string(),
            value: value(name, text.as_bytes()),
        };
        headers.iter().map(pair).collect()
    }

    /// A body as it may be written down.
    pub(super) fn body(&self, mime: &str, text: &str) -> String {
        let text = if mime.starts_with("text/event-stream") { self.events(text) } else { self.json(text) };
        self.text(&text)
    }

    /// Any text as it may be written down.
    pub(super) fn text(&self, text: &str) -> String {
        let found = self.find(text);
        if found.is_empty() {
            return text.to_owned();
        }
        let mut clean = String::with_capacity(text.len());
        let mut at = 0;
        for secret in found {
            clean.push_str(&text[at..secret.start]);
            clean.push_str(REDACTED);
            at = secret.end;
        }
        clean + &text[at..]
    }

    /// Whether there is nothing to be hidden in what is no text.
    pub(super) fn is_clean(&self, bytes: &[u8]) -> bool {
        self.find(&String::from_utf8_lossy(bytes)).is_empty()
    }

    /// Where secrets stand, in order and apart from each other.
    fn find(&self, text: &str) -> Vec<Range<usize>> {
        let seen = self.seen.read().unwrap_or_else(PoisonError::into_inner);
        let secrets = self.known.iter().map(Secret::expose).chain(seen.iter().map(String::as_str));
        let mut found: Vec<Range<usize>> = secrets
            .flat_map(|secret| text.match_indices(secret).map(|(at, found)| at..at + found.len()))
            .collect();
        let introduced = INTRODUCED.iter().copied().chain([(self.addresses, SHORTEST)]);
        for (before, least) in introduced.filter(|(before, _)| !before.is_empty()) {
            for (at, _) in text.match_indices(before) {
                let start = at + before.len();
                let is_of_token = |sign: &u8| sign.is_ascii_alphanumeric() || b"-_.".contains(sign);
                let long = text.as_bytes()[start..].iter().take_while(|sign| is_of_token(sign)).count();
                if long >= least {
                    found.push(start..start + long);
                }
            }
        }
        found.sort_by_key(|range| range.start);
        let mut apart: Vec<Range<usize>> = Vec::with_capacity(found.len());
        for range in found {
            match apart.last_mut() {
                Some(last) if range.start < last.end => last.end = last.end.max(range.end),
                _ => apart.push(range),
            }
        }
        apart
    }

    /// A JSON text; what is none stays as it is. So does one without secrets, to the byte.
    fn json(&self, text: &str) -> String {
        let Ok(mut value) = serde_json::from_str::<Value>(text) else { return text.to_owned() };
        let changed = match &mut value {
            Value::Array(items) => self.hide_in(items.iter_mut()),
            other => self.hide_in([other]),
        };
        if changed { value.to_string() } else { text.to_owned() }
    }

    /// A stream of events; each line of it is looked at by itself, and all of them together.
    fn events(&self, text: &str) -> String {
        let mut lines: Vec<(&str, Option<Value>)> = text.split('\n').map(|line| (line, data(line))).collect();
        let changed = self.hide_in(lines.iter_mut().filter_map(|(_, value)| value.as_mut()));
        if !changed {
            return text.to_owned();
        }
        let line = |(line, value): &(&str, Option<Value>)| match value {
            Some(value) if data(line).as_ref() != Some(value) => {
                let end = if line.ends_with('\r') { "\r" } else { "" };
                match value {
                    Value::String(plain) if !line[5..].trim_start().starts_with('"') => {
                        format!("data: {plain}{end}")
                    }
                    value => format!("data: {value}{end}"),
                }
            }
            _ => (*line).to_owned(),
        };
        lines.iter().map(line).collect::<Vec<_>>().join("\n")
    }

    /// Hides what the texts in `values` say, one by one or, at the same place in several, together. Whether there was
    /// anything.
    fn hide_in<'v>(&self, values: impl IntoIterator<Item = &'v mut Value>) -> bool {
        let mut threads: HashMap<String, Vec<&'v mut String>> = HashMap::new();
        for value in values {
            collect(value, String::new(), &mut threads);
        }
        let mut changed = false;
        for pieces in threads.into_values() {
            let whole: String = pieces.iter().map(|piece| piece.as_str()).collect();
            let found = self.find(&whole);
            if !found.is_empty() {
                changed = true;
                hide(pieces, &found);
            }
        }
        changed
    }
}

/// What an event's line says: JSON, or else a text.
fn data(line: &str) -> Option<Value> {
    let text = line.strip_prefix("data:")?;
    let text = text.strip_prefix(' ').unwrap_or(text).trim_end_matches('\r');
    Some(serde_json::from_str(text).unwrap_or_else(|_| text.into()))
}

/// Puts every text of `value` to those that stand at the same place in other values. Where an object counts, as pieces of a
/// message do, its number is part of the place.
fn collect<'v>(value: &'v mut Value, place: String, threads: &mut HashMap<String, Vec<&'v mut String>>) {
    match value {
        Value::String(text) => threads.entry(place).or_default().push(text),
        Value::Array(items) => {
            for (index, item) in items.iter_mut().enumerate() {
                collect(item, format!("{place}/{index}"), threads);
            }
        }
        Value::Object(members) => {
            let counts = members.iter().filter(|(name, value)| name.ends_with("index") && value.is_u64());
            let counts: String = counts.map(|(name, value)| format!("#{name}={value}")).collect();
            for (name, member) in members.iter_mut() {
                collect(member, format!("{place}{counts}/{name}"), threads);
            }
        }
        _ => {}
    }
}

/// Hides `found`, which are places in the pieces put together: in the piece where each begins stands a word for it.
fn hide(pieces: Vec<&mut String>, found: &[Range<usize>]) {
    let mut start = 0;
    for piece in pieces {
        let end = start + piece.len();
        let mut clean = String::new();
        let mut at = start;
        for secret in found.iter().filter(|secret| secret.start < end && secret.end > start) {
            let from = secret.start.max(start);
            clean.push_str(&piece[at - start..from - start]);
            if secret.start >= start {
                clean.push_str(REDACTED);
            }
            at = secret.end.min(end);
        }
        if at != start {
            clean.push_str(&piece[at - start..]);
            *piece = clean;
        }
        start = end;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn redactor() -> Redactor {
        Redactor::new([Secret::new("fake-upstream-key"), Secret::new("short")], "/_relay/")
    }

    #[test]
    fn secrets_are_found_wherever_they_stand() {
        let redactor = redactor();
        let check = |text: &str, clean: &str| assert_eq!(redactor.body("application/json", text), clean);
        check("a fake-upstream-key and fake-upstream-key.", "a REDACTED and REDACTED.");
        check(r#"{"a": [1.50, "fake-upstream-key"]}"#, r#"{"a":[1.5,"REDACTED"]}"#);
        check(r#"{"a":"fake-\u0075pstream-key"}"#, r#"{"a":"REDACTED"}"#);
        check(r#"{"a": 1.50}"#, r#"{"a": 1.50}"#);
        check("a short word", "a short word");
        check("https://x.test/_relay/0123456789abcdef?x", "https://x.test/_relay/REDACTED?x");
        check(
            r#"{"u":"https:\/\/x.test\/_relay\/0123456789abcdef"}"#,
            r#"{"u":"https://x.test/_relay/REDACTED"}"#,
        );
        let key = format!("kg_acme_{}", "a".repeat(38));
        check(&format!("use {key}!"), "use kg_REDACTED!");
        check("Authorization: Bearer abcdefghijklmnop", "Authorization: Bearer REDACTED");
    }

    #[test]
    fn keys_are_learned_from_the_heads_that_bring_them() {
        let redactor = redactor();
        let mut headers = HeaderMap::new();
        headers.insert("authorization", "Bearer tenant-key-1".parse().unwrap());
        headers.insert("x-api-key", "tenant-key-2".parse().unwrap());
        headers.insert("x-other", "it is tenant-key-3".parse().unwrap());
        redactor.learn(&headers, "a=b&key=tenant-key-3");
        let shown = redactor.headers(&headers);
        assert!(shown.iter().all(|pair| !pair.value.contains("tenant-key")), "{shown:?}");
        assert_eq!(redactor.text("tenant-key-1tenant-key-2 tenant-key-3"), "REDACTEDREDACTED REDACTED");
    }

    #[test]
    fn a_secret_that_a_stream_says_in_pieces_is_hidden() {
        let redactor = redactor();
        let event = |index: u32, text: &str| {
            format!("data: {{\"choices\":[{{\"index\":{index},\"delta\":{{\"content\":{text:?}}}}}]}}\n\n")
        };
        let stream = [
            event(0, "Your key: fake-up"),
            event(1, "no"),
            event(0, "stream"),
            event(0, "-key, yes"),
            "data: [DONE]\n\n".into(),
        ];
        let clean = redactor.body("text/event-stream", &stream.concat());
        let expected = [
            event(0, "Your key: REDACTED"),
            event(1, "no"),
            event(0, ""),
            event(0, ", yes"),
            "data: [DONE]\n\n".into(),
        ];
        assert_eq!(clean, expected.concat());
        let plain = "data: fake-\r\n\r\ndata: upstream-key\r\n\r\n";
        assert_eq!(redactor.body("text/event-stream", plain), "data: REDACTED\r\n\r\ndata: \r\n\r\n");
        let list = r#"[{"text":"fake-up"},{"text":"stream-key!"}]"#;
        assert_eq!(redactor.body("application/json", list), r#"[{"text":"REDACTED"},{"text":"!"}]"#);
        let whole = "data: {\"a\": 1}\n\n";
        assert_eq!(redactor.body("text/event-stream", whole), whole);
    }
}
