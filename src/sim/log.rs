//! What a sandbox remembers of what happened, bounded: callback attempts, arrivals in its inbox.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::snapshot::{Blob, SavedDue};
use super::task::{Due, TaskKey};

/// The latest entries of a log, and how many were dropped before them.
#[derive(Debug)]
pub(super) struct Bounded<T> {
    pub(super) entries: VecDeque<Arc<T>>,
    pub(super) dropped: u64,
    /// What each entry takes, in bytes.
    sizes: VecDeque<usize>,
    bytes: usize,
    most: usize,
    most_bytes: usize,
}

impl<T> Bounded<T> {
    /// Keeps `most` entries of together `most_bytes`.
    pub(super) fn new(most: usize, most_bytes: usize) -> Self {
        Self { entries: VecDeque::new(), dropped: 0, sizes: VecDeque::new(), bytes: 0, most, most_bytes }
    }

    /// Whether it keeps anything at all.
    pub(super) fn keeps(&self) -> bool {
        self.most > 0
    }

    /// Adds an entry that takes about `size` bytes; the oldest give way.
    pub(super) fn push(&mut self, entry: T, size: usize) {
        self.push_shared(Arc::new(entry), size);
    }

    /// Adds an entry that somebody else holds too.
    pub(super) fn push_shared(&mut self, entry: Arc<T>, size: usize) {
        self.entries.push_back(entry);
        self.sizes.push_back(size);
        self.bytes += size;
        self.shrink();
    }

    /// The entry at `position` takes so many bytes more.
    pub(super) fn grow(&mut self, position: usize, bytes: usize) {
        if let Some(size) = self.sizes.get_mut(position) {
            *size += bytes;
            self.bytes += bytes;
            self.shrink();
        }
    }

    /// Forgets all, and that anything was dropped.
    pub(super) fn clear(&mut self) {
        *self = Self::new(self.most, self.most_bytes);
    }

    /// Keeps no more than `most` entries from now on.
    pub(super) fn bound(&mut self, most: usize) {
        self.most = most;
        self.shrink();
    }

    fn shrink(&mut self) {
        while self.entries.len() > self.most || self.bytes > self.most_bytes {
            self.entries.pop_front();
            self.bytes -= self.sizes.pop_front().unwrap_or(0);
            self.dropped += 1;
        }
    }
}

/// A callback attempt that was made, for the log.
#[derive(Debug)]
pub(super) struct Attempt {
    pub(super) due: Due,
    /// The id of its task.
    pub(super) task: String,
    pub(super) url: String,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
    pub(super) result: Result<u16, String>,
    pub(super) took: Duration,
    /// It was signed wrongly on purpose: to refuse it is right.
    pub(super) bad_signature: bool,
    /// `delivered`, `retried`, `dead` or `dropped`.
    pub(super) verdict: &'static str,
}

impl Attempt {
    fn outcome(&self) -> (Value, Value) {
        match &self.result {
            Ok(status) => (json!(status), Value::Null),
            Err(error) => (Value::Null, json!(error)),
        }
    }

    /// As `/_mock/callbacks` shows it.
    pub(super) fn to_json(&self) -> Value {
        let (status, error) = self.outcome();
        let headers: serde_json::Map<_, _> = self
            .headers
            .iter()
            .map(|(name, value)| (name.to_string(), Value::from(String::from_utf8_lossy(value.as_bytes()))))
            .collect();
        json!({
            "task": self.task,
            "url": self.url,
            "attempt": self.due.attempt + 1,
            "at": self.due.at,
            "headers": headers,
            "body": serde_json::from_slice::<Value>(&self.body).unwrap_or_default(),
            "status": status,
            "error": error,
            "result": self.verdict,
            "duplicate": self.due.duplicate,
            "took_ms": u64::try_from(self.took.as_millis()).unwrap_or(u64::MAX),
        })
    }

    pub(super) fn task(&self) -> TaskKey {
        self.due.task
    }

    /// As `advance` lists it.
    pub(super) fn to_event(&self) -> Value {
        let (status, error) = self.outcome();
        json!({
            "at": self.due.at,
            "type": "callback",
            "task": self.task,
            "url": self.url,
            "attempt": self.due.attempt + 1,
            "status": status,
            "error": error,
            "result": self.verdict,
        })
    }
}

/// An attempt in a snapshot.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SavedAttempt {
    due: SavedDue,
    task: String,
    url: String,
    headers: Vec<(String, String)>,
    body: Blob,
    status: Option<u16>,
    error: Option<String>,
    took_ms: u64,
    bad_signature: bool,
    result: String,
}

/// What may become of an attempt.
const VERDICTS: [&str; 4] = ["delivered", "retried", "dead", "dropped"];

impl SavedAttempt {
    pub(super) fn of(attempt: &Attempt) -> Self {
        let header = |(name, value): (&HeaderName, &HeaderValue)| {
            (name.to_string(), String::from_utf8_lossy(value.as_bytes()).into_owned())
        };
        Self {
            due: SavedDue::of(attempt.due),
            task: attempt.task.clone(),
            url: attempt.url.clone(),
            headers: attempt.headers.iter().map(header).collect(),
            body: Blob::of(&attempt.body),
            status: attempt.result.as_ref().ok().copied(),
            error: attempt.result.as_ref().err().cloned(),
            took_ms: u64::try_from(attempt.took.as_millis()).unwrap_or(u64::MAX),
            bad_signature: attempt.bad_signature,
            result: attempt.verdict.to_owned(),
        }
    }

    /// The attempt, and its size.
    pub(super) fn load(self) -> Result<(Attempt, usize), String> {
        let mut headers = HeaderMap::new();
        for (name, value) in &self.headers {
            let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::try_from(value)) else {
                return Err(format!("headers: {name} cannot stand in a header"));
            };
            headers.append(name, value);
        }
        let verdict = VERDICTS.into_iter().find(|verdict| *verdict == self.result);
        let attempt = Attempt {
            due: self.due.load()?,
            task: self.task,
            url: self.url,
            headers,
            body: self.body.bytes()?,
            result: self.status.ok_or_else(|| self.error.unwrap_or_default()),
            took: Duration::from_millis(self.took_ms),
            bad_signature: self.bad_signature,
            verdict: verdict.ok_or_else(|| format!("result: there are {}", VERDICTS.join(", ")))?,
        };
        let size = attempt.url.len() + attempt.body.len();
        Ok((attempt, size))
    }
}
