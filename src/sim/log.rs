//! What a sandbox remembers of what happened, bounded: callback attempts, arrivals in its inbox.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use serde_json::{Value, json};

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

    /// Adds an entry that takes about `size` bytes; the oldest give way.
    pub(super) fn push(&mut self, entry: T, size: usize) {
        self.entries.push_back(Arc::new(entry));
        self.sizes.push_back(size);
        self.bytes += size;
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
