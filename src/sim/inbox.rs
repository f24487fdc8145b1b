//! A callback receiver inside the simulator, for tests that have no server of their own.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use serde_json::{Value, json};

use super::log::Bounded;
use crate::clock::Timestamp;
use crate::wire;

/// More boxes than this a sandbox does not have: a post to another one is answered, and not kept.
const MOST_BOXES: usize = 100;
/// More arrivals than this a box does not keep.
const MOST_ARRIVALS: usize = 1000;
/// Nor more bytes than this; a single arrival above it is answered, and not kept.
const MOST_BYTES: usize = 2 * 1024 * 1024;

/// All boxes of a sandbox by name.
#[derive(Debug, Default)]
pub(super) struct Inbox {
    boxes: HashMap<String, Letterbox>,
}

/// One box: what it answers and what it got.
#[derive(Debug)]
struct Letterbox {
    /// Statuses for the next arrivals; the last one stays.
    answers: VecDeque<u16>,
    delay: Duration,
    arrivals: Bounded<Arrival>,
}

/// Something that was posted to a box.
#[derive(Debug)]
pub(super) struct Arrival {
    at: Timestamp,
    headers: Vec<(String, String)>,
    body: Bytes,
    /// `None` where nothing was signed.
    signature: Option<bool>,
    /// 1 for the first arrival of this body.
    attempt: usize,
    answered: u16,
}

impl Default for Letterbox {
    fn default() -> Self {
        Self {
            answers: VecDeque::from([200]),
            delay: Duration::ZERO,
            arrivals: Bounded::new(MOST_ARRIVALS, MOST_BYTES),
        }
    }
}

impl Inbox {
    /// Decides what the next arrivals in a box are answered with.
    pub(super) fn program(&mut self, name: &str, answers: &[u16], delay: Duration) {
        if let Some(of_name) = self.open(name) {
            of_name.answers = answers.iter().copied().collect();
            of_name.delay = delay;
        }
    }

    /// Keeps what arrived; gives the status to answer and how long to wait before.
    pub(super) fn receive(
        &mut self,
        name: &str,
        at: Timestamp,
        headers: &HeaderMap,
        body: Bytes,
        key: Option<&str>,
    ) -> (u16, Duration) {
        let Some(of_name) = self.open(name) else { return (200, Duration::ZERO) };
        let answered = of_name.answers.front().copied().unwrap_or(200);
        if of_name.answers.len() > 1 {
            of_name.answers.pop_front();
        }
        let attempt = 1 + of_name.arrivals.entries.iter().filter(|earlier| earlier.body == body).count();
        let signature = key.and_then(|key| wire::signature_is_valid(key, headers, &body));
        let headers = headers
            .iter()
            .map(|(name, value)| (name.to_string(), String::from_utf8_lossy(value.as_bytes()).into_owned()))
            .collect();
        let size = body.len();
        of_name.arrivals.push(Arrival { at, headers, body, signature, attempt, answered }, size);
        (answered, of_name.delay)
    }

    /// What arrived in a box, oldest first, and how many were dropped before.
    pub(super) fn arrivals(&self, name: &str) -> (Vec<Arc<Arrival>>, u64) {
        self.boxes.get(name).map_or_else(Default::default, |of_name| {
            (of_name.arrivals.entries.iter().cloned().collect(), of_name.arrivals.dropped)
        })
    }

    fn open(&mut self, name: &str) -> Option<&mut Letterbox> {
        let room = self.boxes.len() < MOST_BOXES || self.boxes.contains_key(name);
        room.then(|| self.boxes.entry(name.to_owned()).or_default())
    }
}

impl Arrival {
    /// As the control API shows it.
    pub(super) fn to_json(&self) -> Value {
        let body = serde_json::from_slice(&self.body)
            .unwrap_or_else(|_| Value::from(String::from_utf8_lossy(&self.body).into_owned()));
        let headers: serde_json::Map<_, _> =
            self.headers.iter().map(|(name, value)| (name.clone(), Value::from(value.as_str()))).collect();
        json!({
            "at": self.at,
            "headers": headers,
            "body": body,
            "signature_valid": self.signature,
            "attempt": self.attempt,
            "answered": self.answered,
        })
    }
}
