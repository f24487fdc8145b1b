//! A callback receiver inside the simulator, for tests that have no server of their own.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::log::Bounded;
use super::snapshot::Blob;
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

    /// All boxes, for a snapshot.
    pub(super) fn save(&self) -> Vec<SavedBox> {
        let mut boxes: Vec<_> =
            self.boxes.iter().map(|(name, of_name)| SavedBox::of(name, of_name)).collect();
        boxes.sort_unstable_by(|one, other| one.name.cmp(&other.name));
        boxes
    }

    /// Puts the boxes of a snapshot back.
    ///
    /// # Errors
    /// What cannot be understood, by its place.
    pub(super) fn load(&mut self, boxes: Vec<SavedBox>) -> Result<(), String> {
        for (index, saved) in boxes.into_iter().enumerate() {
            let Some(of_name) = self.open(&saved.name) else { break };
            of_name.answers = saved.answers.into();
            of_name.delay = Duration::from_millis(saved.delay_ms);
            for arrival in saved.arrivals {
                let (arrival, size) = arrival.load().map_err(|what| format!("{index}: {what}"))?;
                of_name.arrivals.push(arrival, size);
            }
        }
        Ok(())
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

/// A box in a snapshot.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SavedBox {
    name: String,
    answers: Vec<u16>,
    delay_ms: u64,
    arrivals: Vec<SavedArrival>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SavedArrival {
    at: Timestamp,
    headers: Vec<(String, String)>,
    body: Blob,
    signature_valid: Option<bool>,
    attempt: usize,
    answered: u16,
}

impl SavedBox {
    fn of(name: &str, of_name: &Letterbox) -> Self {
        let arrival = |arrival: &Arc<Arrival>| SavedArrival {
            at: arrival.at,
            headers: arrival.headers.clone(),
            body: Blob::of(&arrival.body),
            signature_valid: arrival.signature,
            attempt: arrival.attempt,
            answered: arrival.answered,
        };
        Self {
            name: name.to_owned(),
            answers: of_name.answers.iter().copied().collect(),
            delay_ms: u64::try_from(of_name.delay.as_millis()).unwrap_or(u64::MAX),
            arrivals: of_name.arrivals.entries.iter().map(arrival).collect(),
        }
    }
}

impl SavedArrival {
    fn load(self) -> Result<(Arrival, usize), String> {
        let body = self.body.bytes()?;
        let size = body.len();
        let Self { at, headers, signature_valid: signature, attempt, answered, .. } = self;
        Ok((Arrival { at, headers, body, signature, attempt, answered }, size))
    }
}
