//! What a sandbox remembers of the calls that came to it, and of what it answered.
//!
//! Kept small: heads as text, bodies as bytes up to a bound, both copied, so that no network buffer stays alive for them.
//! Keys are left out. What is looked for is understood only when somebody looks.

use std::borrow::Cow;
use std::sync::{Arc, OnceLock};

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use http_body::Body as _;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::log::Bounded;
use super::matching::{Matcher, Seen, prompt_of};
use super::rules::Near;
use super::sandbox::Sandbox;
use super::snapshot::Blob;
use crate::catalogue::{Catalogue, OperationIx};
use crate::clock::Timestamp;
use crate::heard::{End, Heard, Listener};

/// More bytes than this a sandbox does not remember.
const MOST_BYTES: usize = 72 * 1024 * 1024;
/// Of a body so much is kept.
const MOST_OF_A_BODY: usize = 64 * 1024;
/// Of one that streams, less: a thousand may be under way at once.
const MOST_OF_A_STREAM: usize = 16 * 1024;
/// What a call takes beside its texts, about.
const CALL_BYTES: usize = 320;

/// Where the latest of each kind of text stands.
const HEAD: usize = 0;
const PATH: usize = 1;
const QUERY: usize = 2;
const ANSWER: usize = 3;

/// Headers that are not kept: they carry keys.
const SECRET: [&str; 5] = ["authorization", "proxy-authorization", "x-api-key", "x-goog-api-key", "cookie"];

/// The calls of a sandbox, oldest first, numbered from 1.
#[derive(Debug)]
pub(super) struct Journal {
    calls: Bounded<Entry>,
    /// The calls of this sandbox before the oldest that is kept, emptied ones included.
    before: u64,
    /// Head, path and query of the latest call, and the head of its answer: those of the next are often the same, and
    /// then shared.
    latest: [Arc<str>; 4],
    scratch: String,
}

/// A call.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) number: u64,
    /// By the sandbox's clock, and really.
    pub(super) at: Timestamp,
    pub(super) real: Timestamp,
    method: http::Method,
    path: Arc<str>,
    query: Arc<str>,
    pub(super) operation: Option<OperationIx>,
    headers: Arc<str>,
    body: Kept,
    /// Whether anybody will look at it.
    kept: bool,
    /// What was decided about it.
    pub(super) note: Note,
    pub(super) answer: OnceLock<Answered>,
}

/// What was decided about a call.
#[derive(Clone, Debug, Default)]
pub(super) struct Note {
    /// The rule that it went by.
    pub(super) rule: Option<Arc<str>>,
    /// The rules that it nearly fitted.
    pub(super) near: Vec<Near>,
}

/// What was answered.
#[derive(Debug)]
pub(super) struct Answered {
    pub(super) status: StatusCode,
    headers: Arc<str>,
    /// Set when the last byte has been handed on.
    body: OnceLock<Kept>,
    /// Real time from the call to the answer's head, in milliseconds.
    took_ms: u64,
    /// What becomes of it on its way.
    pub(super) fault: Option<String>,
}

/// A body, or its beginning.
#[derive(Clone, Debug, Default)]
struct Kept {
    bytes: Box<[u8]>,
    /// How long it was.
    length: u64,
}

/// A call as it comes in.
pub(super) struct Arriving<'a> {
    pub(super) at: Timestamp,
    pub(super) real: Timestamp,
    pub(super) parts: &'a Parts,
    pub(super) operation: Option<OperationIx>,
    /// What was read of its body.
    pub(super) body: &'a [u8],
    pub(super) note: Note,
}

impl Default for Journal {
    fn default() -> Self {
        let latest = std::array::from_fn(|_| Arc::from(""));
        Self { calls: Bounded::new(usize::MAX, MOST_BYTES), before: 0, latest, scratch: String::new() }
    }
}

impl Journal {
    /// The number that the next call will have.
    pub(super) fn next_number(&self) -> u64 {
        self.before + self.calls.dropped + self.calls.entries.len() as u64 + 1
    }

    /// Writes down a call; gives it, to write its answer beside.
    pub(super) fn write(&mut self, call: Arriving<'_>) -> Arc<Entry> {
        let Arriving { at, real, parts, operation, body, note } = call;
        let kept = self.calls.keeps();
        let mut texts: [Arc<str>; 3] = std::array::from_fn(|_| Arc::clone(&self.latest[ANSWER]));
        let mut more = 0;
        if kept {
            let mut share = |which: usize, (text, size)| {
                texts[which] = text;
                more += size;
            };
            share(HEAD, self.head(HEAD, &parts.headers));
            share(PATH, self.share(PATH, parts.uri.path()));
            share(QUERY, self.share(QUERY, &without_key(parts.uri.query().unwrap_or_default())));
        }
        let [headers, path, query] = texts;
        let body = if kept { body } else { &[] };
        let entry = Entry {
            number: self.next_number(),
            at,
            real,
            method: parts.method.clone(),
            path,
            query,
            operation,
            headers,
            body: Kept::of(body, body.len() as u64),
            kept,
            note,
            answer: OnceLock::new(),
        };
        let entry = Arc::new(entry);
        self.calls.push_shared(Arc::clone(&entry), entry.size() + more);
        entry
    }

    /// `headers` as text, and what that takes; `which` of the texts they are.
    fn head(&mut self, which: usize, headers: &HeaderMap) -> (Arc<str>, usize) {
        let mut text = std::mem::take(&mut self.scratch);
        text.clear();
        write_lines(&mut text, headers);
        let shared = self.share(which, &text);
        self.scratch = text;
        shared
    }

    /// `text`, and what it takes: nothing if the latest of its kind is the same.
    fn share(&mut self, which: usize, text: &str) -> (Arc<str>, usize) {
        let latest = &mut self.latest[which];
        if **latest == *text {
            return (Arc::clone(latest), 0);
        }
        *latest = text.into();
        (Arc::clone(latest), text.len())
    }

    /// Counts what the answer to a call takes.
    fn grow(&mut self, number: u64, bytes: usize) {
        let position = number.checked_sub(self.before + self.calls.dropped + 1);
        if let Some(position) = position.and_then(|position| usize::try_from(position).ok()) {
            self.calls.grow(position, bytes);
        }
    }

    /// Remembers no more than `most` calls from now on.
    pub(super) fn bound(&mut self, most: usize) {
        self.calls.bound(most);
    }

    /// Forgets all calls; numbers go on.
    pub(super) fn clear(&mut self) {
        self.before = self.next_number() - 1;
        self.calls.clear();
    }

    /// All that are kept, oldest first, to be looked at under no lock.
    pub(super) fn all(&self) -> Vec<Arc<Entry>> {
        self.calls.entries.iter().cloned().collect()
    }

    /// How many came before the oldest that is kept, and those that are, for a snapshot.
    pub(super) fn save(&self, catalogue: &Catalogue) -> (u64, Vec<SavedCall>) {
        let calls = self.calls.entries.iter().map(|entry| SavedCall::of(catalogue, entry)).collect();
        (self.before + self.calls.dropped, calls)
    }

    /// Puts the calls of a snapshot back.
    ///
    /// # Errors
    /// What cannot be understood, by its place.
    pub(super) fn load(
        &mut self,
        catalogue: &Catalogue,
        before: u64,
        calls: Vec<SavedCall>,
    ) -> Result<(), String> {
        self.clear();
        self.before = before;
        for (index, call) in calls.into_iter().enumerate() {
            let number = self.next_number();
            let entry = call.load(catalogue, number).map_err(|what| format!("{index}: {what}"))?;
            let size = entry.size() + entry.headers.len() + entry.path.len() + entry.query.len();
            self.calls.push(entry, size);
        }
        Ok(())
    }

    /// How many are no longer kept because of the bounds.
    pub(super) fn dropped(&self) -> u64 {
        self.calls.dropped
    }
}

impl Kept {
    /// As much of `bytes` as is kept, of a body of that `length`.
    fn of(bytes: &[u8], length: u64) -> Self {
        Self { bytes: bytes[..bytes.len().min(MOST_OF_A_BODY)].into(), length }
    }

    /// As the control API shows it: JSON, or text, or else its length.
    fn to_json(&self) -> Value {
        if self.length == 0 {
            return Value::Null;
        }
        if self.length > self.bytes.len() as u64 {
            let beginning = String::from_utf8_lossy(&self.bytes);
            return json!({"truncated": true, "bytes": self.length, "beginning": beginning});
        }
        serde_json::from_slice(&self.bytes).unwrap_or_else(|_| match std::str::from_utf8(&self.bytes) {
            Ok(text) => Value::from(text),
            Err(_) => json!({"bytes": self.length}),
        })
    }
}

/// A call as conditions see it, taken apart.
pub(super) struct Read<'a> {
    operation: &'a str,
    model: String,
    request: Value,
    prompt: String,
    headers: HeaderMap,
}

impl Read<'_> {
    /// The request, as far as it is known.
    pub(super) fn request(&self) -> &Value {
        &self.request
    }

    pub(super) fn seen(&self) -> Seen<'_> {
        let Self { operation, model, request, prompt, headers } = self;
        Seen { operation, model, request, prompt, headers }
    }
}

impl Entry {
    /// What it takes without the texts that may be others' too, about, in bytes.
    fn size(&self) -> usize {
        let answer =
            self.answer.get().and_then(|answer| answer.body.get()).map_or(0, |body| body.bytes.len());
        CALL_BYTES + self.body.bytes.len() + answer
    }

    /// What conditions are compared with.
    pub(super) fn read<'c>(&self, catalogue: &'c Catalogue) -> Read<'c> {
        let operation = self.operation.map(|index| catalogue.operation(index));
        let request = if operation.is_some_and(|operation| operation.by_query) || self.body.length == 0 {
            let pairs = form_urlencoded::parse(self.query.as_bytes());
            Value::Object(pairs.map(|(name, value)| (name.into_owned(), Value::from(value))).collect())
        } else {
            serde_json::from_slice(&self.body.bytes).unwrap_or_default()
        };
        let model =
            operation.and_then(|operation| operation.model_of(&request)).unwrap_or_default().to_owned();
        let prompt = prompt_of(&request);
        let operation = operation.map_or("", |operation| operation.id.as_str());
        Read { operation, model, request, prompt, headers: parse_lines(&self.headers) }
    }

    /// Whether its answer has been made; one that has not still runs, or its client has gone.
    pub(super) fn answered(&self) -> Option<&Answered> {
        self.answer.get()
    }

    /// As the control API shows it.
    pub(super) fn to_json(&self, catalogue: &Catalogue) -> Value {
        let read = self.read(catalogue);
        let near: Vec<Value> =
            self.note.near.iter().map(|near| json!({"rule": &*near.rule, "misses": near.misses})).collect();
        json!({
            "id": self.number,
            "at": self.at,
            "method": self.method.as_str(),
            "path": &*self.path,
            "query": &*self.query,
            "operation": self.operation.map(|_| read.operation),
            "model": Some(read.model.as_str()).filter(|model| !model.is_empty()),
            "headers": shown(&self.headers),
            "body": self.body.to_json(),
            "rule": self.note.rule.as_deref(),
            "near": near,
            "answer": self.answered().map(Answered::to_json),
        })
    }

    /// As a list of what nearly fitted shows it.
    pub(super) fn brief(&self, misses: &[String]) -> Value {
        json!({"id": self.number, "method": self.method.as_str(), "path": &*self.path, "misses": misses})
    }
}

impl Answered {
    /// Whether it was handed on to its last byte.
    pub(super) fn is_complete(&self) -> bool {
        self.body.get().is_some()
    }

    /// The body as JSON, if it is some.
    pub(super) fn json(&self) -> Value {
        self.body.get().and_then(|body| serde_json::from_slice(&body.bytes).ok()).unwrap_or_default()
    }

    /// The value of a header.
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        let mut lines = self.headers.lines().filter_map(|line| line.split_once(": "));
        lines.find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }

    fn to_json(&self) -> Value {
        json!({
            "status": self.status.as_u16(),
            "headers": shown(&self.headers),
            "body": self.body.get().map_or(Value::Null, Kept::to_json),
            "complete": self.is_complete(),
            "took_ms": self.took_ms,
            "fault": self.fault,
        })
    }
}

/// Looks for calls.
#[derive(Debug, Default)]
pub(super) struct Search<'a> {
    pub(super) matcher: Option<&'a Matcher>,
    /// Only later ones than that.
    pub(super) after: u64,
}

impl Search<'_> {
    /// Those of `entries` that are looked for.
    pub(super) fn among<'e>(&self, catalogue: &Catalogue, entries: &'e [Arc<Entry>]) -> Vec<&'e Arc<Entry>> {
        let fits = |entry: &&Arc<Entry>| {
            let may_be = |matcher: &Matcher| {
                matcher.may_be(entry.operation.map_or("", |index| catalogue.operation(index).id.as_str()))
            };
            // Reading it is the expensive part.
            entry.number > self.after
                && self
                    .matcher
                    .is_none_or(|matcher| may_be(matcher) && matcher.fits(&entry.read(catalogue).seen()))
        };
        entries.iter().filter(fits).collect()
    }
}

/// The calls that come nearest to `matcher` without fitting it, with what is missing, at most `most`.
pub(super) fn nearest(
    catalogue: &Catalogue,
    entries: &[Arc<Entry>],
    matcher: &Matcher,
    most: usize,
) -> Vec<Value> {
    let misses = |entry: &Arc<Entry>| (matcher.misses(&entry.read(catalogue).seen()), Arc::clone(entry));
    // The latest of those that miss the same.
    let mut near: Vec<_> =
        entries.iter().rev().map(misses).filter(|(misses, _)| !misses.is_empty()).collect();
    near.sort_by_key(|(misses, _)| misses.len());
    near.iter().take(most).map(|(misses, entry)| entry.brief(misses)).collect()
}

/// Writes down what was answered to `entry`; gives the answer on. A body that streams is written down when it has ended.
pub(super) fn answer(
    sandbox: &Arc<Sandbox>,
    entry: &Arc<Entry>,
    real: Timestamp,
    response: Response,
    fault: Option<String>,
) -> Response {
    if !entry.kept {
        return response;
    }
    let (parts, body) = response.into_parts();
    let told = body.size_hint().exact();
    let most = if told.is_some() { MOST_OF_A_BODY } else { MOST_OF_A_STREAM };
    let size = told.map_or(0, |told| usize::try_from(told).unwrap_or(usize::MAX).min(most));
    let headers = {
        let mut world = sandbox.world();
        let (headers, more) = world.journal.head(ANSWER, &parts.headers);
        world.journal.grow(entry.number, size + more);
        headers
    };
    let took_ms = u64::try_from(real.saturating_since(entry.real).as_millis()).unwrap_or(u64::MAX);
    let answered = Answered { status: parts.status, headers, body: OnceLock::new(), took_ms, fault };
    let _ = entry.answer.set(answered);
    let streams = told.is_none().then(|| Arc::clone(sandbox));
    let (entry, kept) = (Arc::clone(entry), Vec::with_capacity(size));
    Response::from_parts(parts, Notebook { streams, entry, kept, length: 0, most }.watch(body))
}

/// Writes down a body while it goes by.
struct Notebook {
    /// Of one whose size was not known at first.
    streams: Option<Arc<Sandbox>>,
    entry: Arc<Entry>,
    kept: Vec<u8>,
    length: u64,
    /// So much of it is kept.
    most: usize,
}

impl Notebook {
    /// `body`, written down while it goes by.
    fn watch(self, body: Body) -> Body {
        if body.is_end_stream() {
            self.close();
            return body;
        }
        Body::new(Heard::new(body, Some(self)))
    }

    fn add(&mut self, bytes: &[u8]) {
        self.length += bytes.len() as u64;
        let room = self.most - self.kept.len();
        self.kept.extend_from_slice(&bytes[..bytes.len().min(room)]);
    }

    /// Writes down what has gone by.
    fn close(self) {
        let kept = Kept { bytes: self.kept.into(), length: self.length };
        if let Some(sandbox) = self.streams {
            sandbox.world().journal.grow(self.entry.number, kept.bytes.len());
        }
        if let Some(answered) = self.entry.answer.get() {
            let _ = answered.body.set(kept);
        }
    }
}

impl Listener for Option<Notebook> {
    fn piece(&mut self, piece: &Bytes) {
        if let Some(notebook) = self {
            notebook.add(piece);
        }
    }

    /// What broke off stays without an end.
    fn end(&mut self, how: End) {
        self.take().filter(|_| how == End::Whole).into_iter().for_each(Notebook::close);
    }
}

/// Writes `headers` as lines of text, keys left out.
fn write_lines(text: &mut String, headers: &HeaderMap) {
    for (name, value) in headers.iter().filter(|(name, _)| !SECRET.contains(&name.as_str())) {
        text.extend([name.as_str(), ": ", &String::from_utf8_lossy(value.as_bytes()), "\n"]);
    }
}

fn parse_lines(text: &str) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in text.lines().filter_map(|line| line.split_once(": ")) {
        if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::try_from(value)) {
            headers.append(name, value);
        }
    }
    headers
}

/// Headers as JSON; the values of one that comes several times stand behind each other.
fn shown(text: &str) -> Value {
    let mut shown = Map::new();
    for (name, value) in text.lines().filter_map(|line| line.split_once(": ")) {
        match shown.get_mut(name) {
            Some(Value::String(before)) => before.extend([", ", value]),
            _ => drop(shown.insert(name.to_owned(), value.into())),
        }
    }
    Value::Object(shown)
}

/// A query without a parameter `key`.
fn without_key(query: &str) -> Cow<'_, str> {
    let is_key = |pair: &&str| pair.starts_with("key=");
    if !query.split('&').any(|pair| is_key(&pair)) {
        return query.into();
    }
    query.split('&').filter(|pair| !is_key(pair)).collect::<Vec<_>>().join("&").into()
}

/// A call in a snapshot.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SavedCall {
    at: Timestamp,
    real: Timestamp,
    method: String,
    path: String,
    query: String,
    operation: Option<String>,
    headers: String,
    body: Blob,
    bytes: u64,
    rule: Option<String>,
    near: Vec<(String, Vec<String>)>,
    answer: Option<SavedAnswer>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SavedAnswer {
    status: u16,
    headers: String,
    body: Option<(Blob, u64)>,
    took_ms: u64,
    fault: Option<String>,
}

impl SavedCall {
    fn of(catalogue: &Catalogue, entry: &Entry) -> Self {
        let answer = |answer: &Answered| SavedAnswer {
            status: answer.status.as_u16(),
            headers: answer.headers.to_string(),
            body: answer.body.get().map(|body| (Blob::of(&body.bytes), body.length)),
            took_ms: answer.took_ms,
            fault: answer.fault.clone(),
        };
        Self {
            at: entry.at,
            real: entry.real,
            method: entry.method.to_string(),
            path: entry.path.to_string(),
            query: entry.query.to_string(),
            operation: entry.operation.map(|index| catalogue.operation(index).id.clone()),
            headers: entry.headers.to_string(),
            body: Blob::of(&entry.body.bytes),
            bytes: entry.body.length,
            rule: entry.note.rule.as_deref().map(str::to_owned),
            near: entry.note.near.iter().map(|near| (near.rule.to_string(), near.misses.clone())).collect(),
            answer: entry.answered().map(answer),
        }
    }

    fn load(self, catalogue: &Catalogue, number: u64) -> Result<Entry, String> {
        let operation = self.operation.as_deref().map(|id| {
            catalogue.operation_by_id(id).ok_or_else(|| format!("operation: \"{id}\" is not known here"))
        });
        let near = |(rule, misses): (String, Vec<String>)| Near { rule: rule.into(), misses };
        let answer = OnceLock::new();
        if let Some(saved) = self.answer {
            let body = OnceLock::new();
            if let Some((blob, length)) = saved.body {
                let _ = body.set(Kept { bytes: blob.bytes()?.to_vec().into(), length });
            }
            let status = StatusCode::from_u16(saved.status).map_err(|_| "answer.status: is no status")?;
            let SavedAnswer { headers, took_ms, fault, .. } = saved;
            let _ = answer.set(Answered { status, headers: headers.into(), body, took_ms, fault });
        }
        Ok(Entry {
            number,
            at: self.at,
            real: self.real,
            method: self.method.parse().map_err(|_| "method: is no method".to_owned())?,
            path: self.path.into(),
            query: self.query.into(),
            operation: operation.transpose()?,
            headers: self.headers.into(),
            body: Kept { bytes: self.body.bytes()?.to_vec().into(), length: self.bytes },
            kept: true,
            note: Note { rule: self.rule.map(Into::into), near: self.near.into_iter().map(near).collect() },
            answer,
        })
    }
}
