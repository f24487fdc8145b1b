//! What is known of a request while it is on its way, and what is to be said of it on its answer.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use http::header::HeaderName;
use http::{HeaderMap, HeaderValue};
use tokio::time::Instant;

use super::look::result_name;
use super::member::{Member, Told};
use super::room::{Crowded, Place, Room};
use super::server::Peer;
use crate::cache::Found;
use crate::catalogue::OperationIx;
use crate::clock::{Timestamp, hex_digits};
use crate::wire;

pub(super) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const CACHE: HeaderName = HeaderName::from_static("x-cache");
const QUEUED: HeaderName = HeaderName::from_static("x-kiegate-queued");
const RATE: HeaderName = HeaderName::from_static("ratelimit");
const RATE_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");

/// What is known of a request while it is on its way; shared by all steps.
pub(super) struct Call {
    pub(super) began: Instant,
    /// The same by the clock on the wall.
    pub(super) now: Timestamp,
    pub(super) request_id: RequestId,
    /// The operation's name in metrics.
    pub(super) operation: &'static str,
    pub(super) peer: Option<Peer>,
    /// Absent for what is none of the API.
    pub(super) index: Option<OperationIx>,
    /// For what is kiegate's own rather than the API.
    pub(super) own: bool,
    /// Its body is not read here but streams through: a form with a file in it, or what nobody knows and is no text.
    pub(super) streams: bool,
    pub(super) member: OnceLock<Arc<Member>>,
    /// Microseconds spent waiting for the upstream, or for a turn with it.
    pub(super) upstream_micros: AtomicU64,
    /// What goes on the answer beside that which answers.
    pub(super) notes: Mutex<Notes>,
    /// What its body takes of the room.
    pub(super) place: Mutex<Option<Place>>,
}

/// What the steps want to be told on the answer.
#[derive(Debug, Default)]
pub(super) struct Notes {
    /// Of calls and of creates: policy and state.
    rates: [Option<(HeaderValue, HeaderValue)>; 2],
    cache: Option<&'static str>,
    queued: Option<Duration>,
}

impl Call {
    pub(super) fn request_id(&self) -> &str {
        self.request_id.as_str()
    }

    pub(super) fn tenant(&self) -> &str {
        self.member.get().map_or("other", |member| &member.label)
    }

    /// The tenant's name, to be kept.
    pub(super) fn tenant_label(&self) -> Arc<str> {
        self.member.get().map_or_else(|| "other".into(), |member| Arc::clone(&member.label))
    }

    /// The tenant that calls, if it is one.
    pub(super) fn member(&self) -> Option<&Arc<Member>> {
        self.member.get()
    }

    /// Notes time that was not the gateway's.
    pub(super) fn waited(&self, span: Duration) {
        let micros = u64::try_from(span.as_micros()).unwrap_or(u64::MAX);
        self.upstream_micros.fetch_add(micros, Ordering::Relaxed);
    }

    /// Takes so much more of `room` for its body. Who is no tenant has none to take.
    ///
    /// # Errors
    /// There is no more.
    pub(super) fn take_place(&self, room: &Room, bytes: usize) -> Result<(), Crowded> {
        let Some(member) = self.member.get() else { return Ok(()) };
        let mut place = self.place.lock().unwrap_or_else(PoisonError::into_inner);
        match &mut *place {
            Some(place) => place.grow(bytes),
            None => room.take(&member.label, bytes).map(|taken| *place = Some(taken)),
        }
    }

    /// Gives back what its body takes of the room.
    pub(super) fn leave_place(&self) {
        drop(self.place.lock().unwrap_or_else(PoisonError::into_inner).take());
    }

    /// Notes that it waited so long for its turn.
    pub(super) fn queued(&self, span: Duration) {
        self.note(|notes| notes.queued = (!span.is_zero()).then_some(span));
    }

    /// Notes how the answer was come by; `None`: from upstream, as the client wished.
    pub(super) fn cached(&self, found: Option<Found>) {
        self.note(|notes| notes.cache = Some(found.map_or("bypass", result_name)));
    }

    /// Notes what a rate limit says.
    pub(super) fn tell_rate(&self, told: Told) {
        self.note(|notes| {
            if let Some(free) = notes.rates.iter_mut().find(|rate| rate.is_none()) {
                *free = Some((told.policy, told.state));
            }
        });
    }

    fn note(&self, change: impl FnOnce(&mut Notes)) {
        change(&mut self.notes.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// What goes on the answer.
    pub(super) fn write_notes(&self, headers: &mut HeaderMap) {
        let notes = std::mem::take(&mut *self.notes.lock().unwrap_or_else(PoisonError::into_inner));
        for (policy, state) in notes.rates.into_iter().flatten() {
            headers.append(RATE_POLICY, policy);
            headers.append(RATE, state);
        }
        if let Some(cache) = notes.cache {
            headers.insert(CACHE, HeaderValue::from_static(cache));
        }
        if let Some(queued) = notes.queued {
            headers.insert(QUEUED, HeaderValue::from(u64::try_from(queued.as_millis()).unwrap_or(u64::MAX)));
        }
    }
}

/// What a request is called in answers and logs.
pub(super) enum RequestId {
    /// The client's name for it, if it is 1 to 128 visible ASCII characters.
    Theirs(HeaderValue),
    /// Hex digits, two by two.
    Ours([[u8; 2]; 12]),
}

impl RequestId {
    pub(super) fn of(headers: &HeaderMap) -> Self {
        let fits = |id: &&HeaderValue| {
            (1..=128).contains(&id.len()) && id.as_bytes().iter().all(u8::is_ascii_graphic)
        };
        match wire::values(headers, REQUEST_ID).next().filter(fits) {
            Some(id) => Self::Theirs(id.clone()),
            None => Self::Ours(rand::random::<[u8; 12]>().map(hex_digits)),
        }
    }

    fn as_str(&self) -> &str {
        match self {
            Self::Theirs(id) => id.to_str().unwrap_or_default(),
            Self::Ours(id) => std::str::from_utf8(id.as_flattened()).unwrap_or_default(),
        }
    }

    pub(super) fn header(&self) -> HeaderValue {
        match self {
            Self::Theirs(id) => id.clone(),
            Self::Ours(id) => {
                HeaderValue::from_bytes(id.as_flattened()).expect("hex digits are visible ASCII")
            }
        }
    }
}
