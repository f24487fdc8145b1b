//! The same create sent twice on purpose: `Idempotency-Key`.
//!
//! The first answer is kept and given again. A twin of a request that is under way waits for it.

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue};
use sha2::{Digest, Sha256};
use tokio::sync::Notify;
use tokio::time::Instant;

use super::Gateway;
use super::answer::Whole;
use super::ask::Ask;
use crate::background;
use crate::clock::Timestamp;
use crate::error::{ApiError, Reason};
use crate::store::{Claim, KeptAnswer, Store, StoreError};

const KEY: HeaderName = HeaderName::from_static("idempotency-key");
const REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");
/// How long an answer is kept.
const KEPT: Duration = Duration::from_hours(24);
/// The longest key, in bytes.
const LONGEST: usize = 255;
/// The largest answer that is kept, in bytes.
const LARGEST: usize = 256 * 1024;

/// What became of an idempotency key.
pub(super) enum Outcome {
    /// None was sent: nothing to look after.
    None,
    /// The request is to be sent.
    Yours(Claimed),
    /// It has been answered.
    Replay(Whole),
}

/// A claimed key. Dropped without an answer, it is free again.
pub(super) struct Claimed {
    store: Arc<dyn Store>,
    changed: Arc<Notify>,
    /// When it was claimed, by the clock of the world that the request goes to.
    at: Timestamp,
    since: Instant,
    scope: String,
    key: String,
    answered: bool,
}

impl Claimed {
    /// Keeps the answer for whoever sends the same again.
    pub(super) async fn keep(self, answer: &Whole) {
        let kept = (answer.body.len() <= LARGEST).then(|| answer.kept());
        if let Err(error) = self.settle(kept, KEPT).await {
            tracing::error!("the answer to a create with an idempotency key cannot be kept: {error}");
        }
    }

    /// Writes down for so long what is given to whoever comes with the same key; without anything it is free again.
    ///
    /// # Errors
    /// The store cannot be reached.
    pub(super) async fn settle(
        mut self,
        kept: Option<KeptAnswer>,
        kept_for: Duration,
    ) -> Result<(), StoreError> {
        self.answered = true;
        let until = self.at + self.since.elapsed() + kept_for;
        let settled = self.store.answer_claim(&self.scope, &self.key, kept, until).await;
        self.changed.notify_waiters();
        settled
    }
}

impl Drop for Claimed {
    fn drop(&mut self) {
        if self.answered {
            return;
        }
        let (store, changed) = (Arc::clone(&self.store), Arc::clone(&self.changed));
        let (scope, key, at) = (std::mem::take(&mut self.scope), std::mem::take(&mut self.key), self.at);
        background::spawn(async move {
            let _ = store.answer_claim(&scope, &key, None, at).await;
            changed.notify_waiters();
        });
    }
}

/// Claims the request's key for `scope`, waiting for a twin if one is under way. `time` gives the time of the world that the
/// request goes to.
///
/// # Errors
/// A key that is no key, or that was used for another request.
pub(super) async fn claim(
    gateway: &Gateway,
    scope: &str,
    ask: &Ask,
    time: impl Fn() -> Timestamp,
) -> Result<Outcome, ApiError> {
    let Some(key) = key(&ask.parts.headers)? else { return Ok(Outcome::None) };
    claim_key(gateway, scope, key, fingerprint(gateway, ask), time).await
}

/// Claims `key` for `scope` and a request with that print, waiting for a twin if one is under way.
///
/// # Errors
/// It was used for another request.
pub(super) async fn claim_key(
    gateway: &Gateway,
    scope: &str,
    key: &str,
    print: [u8; 32],
    time: impl Fn() -> Timestamp,
) -> Result<Outcome, ApiError> {
    let parts = &gateway.parts;
    loop {
        let changed = gateway.claims_changed.notified();
        tokio::pin!(changed);
        changed.as_mut().enable();
        let at = time();
        match parts.store.claim(scope, key, print, at).await? {
            Claim::Yours => {
                return Ok(Outcome::Yours(Claimed {
                    store: Arc::clone(&parts.store),
                    changed: Arc::clone(&gateway.claims_changed),
                    at,
                    since: Instant::now(),
                    scope: scope.to_owned(),
                    key: key.to_owned(),
                    answered: false,
                }));
            }
            Claim::Busy => changed.await,
            Claim::Done(kept) => {
                return Ok(Outcome::Replay(Whole::from(&*kept).replayed()));
            }
            Claim::Conflict => {
                let what = "this Idempotency-Key was used for another request; a new request needs a new key";
                return Err(ApiError::new(Reason::IdempotencyConflict, what));
            }
        }
    }
}

impl Whole {
    /// Says that it was given before.
    pub(super) fn replayed(mut self) -> Self {
        self.headers.insert(REPLAYED, HeaderValue::from_static("true"));
        self
    }
}

fn key(headers: &HeaderMap) -> Result<Option<&str>, ApiError> {
    let Some(value) = headers.get(KEY) else { return Ok(None) };
    let key = value.to_str().ok().map(str::trim).filter(|key| (1..=LONGEST).contains(&key.len()));
    let what = "an Idempotency-Key is 1 to 255 visible ASCII characters";
    key.map(Some).ok_or_else(|| ApiError::new(Reason::BodyMalformed, what))
}

/// What makes two requests the same: operation and body.
fn fingerprint(gateway: &Gateway, ask: &Ask) -> [u8; 32] {
    let operation = gateway.operation_ids[ask.index.position()].as_bytes();
    Sha256::new().chain_update(operation).chain_update([0]).chain_update(&ask.body).finalize().into()
}
