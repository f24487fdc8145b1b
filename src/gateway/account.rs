//! The upstream keys as the gateway spends them: whose turn it is, and which key is of no use for now.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, select_all};
use tokio::time::Instant;

use crate::clock::{Clock, Timestamp};
use crate::config::UpstreamKey;
use crate::ids::TenantId;
use crate::limits::{Quota, QuotaTimeout, Turn, Waiting};
use crate::proxy::KeyIx;

/// How long a key rests that the upstream has refused, or that has no credits left.
const REST: Duration = Duration::from_mins(1);

/// An upstream key with its quota.
pub struct Account {
    /// As the configuration calls it.
    pub name: Arc<str>,
    /// Its place among the upstream keys.
    pub key: KeyIx,
    /// What the upstream grants it.
    pub quota: Quota,
    /// How long a create may wait for its turn.
    pub max_wait: Duration,
    /// Until when it is used only if there is no other.
    rests_until: AtomicI64,
    clock: Clock,
}

impl Account {
    /// With its whole quota.
    pub fn new(key: KeyIx, config: &UpstreamKey, clock: Clock) -> Self {
        Self {
            name: config.name.as_str().into(),
            key,
            quota: Quota::new(config.creates, config.max_concurrent_tasks, clock),
            max_wait: config.max_wait,
            rests_until: AtomicI64::new(i64::MIN),
            clock: clock.steady(),
        }
    }

    /// Whether the upstream has refused the key lately.
    pub fn rests(&self) -> bool {
        self.clock.now() < Timestamp::from_millis(self.rests_until.load(Ordering::Relaxed))
    }

    /// The upstream takes the key.
    pub(super) fn works(&self) {
        self.rests_until.store(i64::MIN, Ordering::Relaxed);
    }

    /// The upstream refuses the key: others go first for a while.
    pub fn rest(&self) {
        self.rests_until.store((self.clock.now() + REST).millis(), Ordering::Relaxed);
    }
}

/// All upstream keys.
#[derive(Default)]
pub struct Accounts(Vec<Arc<Account>>);

impl Accounts {
    /// From the configuration, in its order.
    pub fn new(keys: &[UpstreamKey], clock: Clock) -> Self {
        let account = |(index, key)| Arc::new(Account::new(KeyIx(index), key, clock));
        Self(keys.iter().enumerate().map(account).collect())
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Account>> {
        self.0.iter()
    }

    /// The one of that name.
    pub fn by_name(&self, name: &str) -> Option<&Arc<Account>> {
        self.0.iter().find(|account| &*account.name == name)
    }

    /// The one at that place.
    pub(super) fn get(&self, key: KeyIx) -> Option<&Arc<Account>> {
        self.0.get(key.0)
    }

    /// Those of `keys` that are good for something, in their order; all if none is.
    pub(super) fn usable(&self, keys: &[KeyIx]) -> Vec<Arc<Account>> {
        let all = || keys.iter().filter_map(|key| self.get(*key)).cloned();
        let usable: Vec<_> = all().filter(|account| !account.rests()).collect();
        if usable.is_empty() { all().collect() } else { usable }
    }
}

/// Whose create waits for a turn, and since when.
#[derive(Clone, Copy)]
pub(super) struct Waiter<'w> {
    pub(super) tenant: &'w TenantId,
    pub(super) weight: NonZeroU32,
    pub(super) since: Instant,
}

/// A turn with the account that it is for.
pub(super) type Granted = (Arc<Account>, Turn);

/// A turn with one of `accounts`: the first that has one at once, else whichever comes first.
///
/// # Errors
/// None has one in time.
pub(super) async fn turn(accounts: &[Arc<Account>], waiter: Waiter<'_>) -> Result<Granted, QuotaTimeout> {
    first(accounts.iter().map(|account| wait(Arc::clone(account), waiter).boxed())).await
}

/// The same for a create that `account` had a turn for, and that the upstream did not take then: it stands at the head
/// of that account's queue, unless there was no sense in that, and one of `others` may have a turn before.
///
/// # Errors
/// None has one in time.
pub(super) async fn another_turn(
    (account, place): (Arc<Account>, Result<Waiting, QuotaTimeout>),
    others: &[Arc<Account>],
    waiter: Waiter<'_>,
) -> Result<Granted, QuotaTimeout> {
    let back = async { Ok((account, place?.turn().await?)) }.boxed();
    let others = others.iter().map(|other| wait(Arc::clone(other), waiter).boxed());
    first(std::iter::once(back).chain(others)).await
}

/// Waits for a turn with one account, within what is left of its patience.
async fn wait(account: Arc<Account>, waiter: Waiter<'_>) -> Result<Granted, QuotaTimeout> {
    let patience = account.max_wait.saturating_sub(waiter.since.elapsed());
    let turn = account.quota.turn(waiter.tenant, waiter.weight, patience).await?;
    Ok((account, turn))
}

/// The first turn that comes; of those that are there at once, the first in their order.
async fn first<'w>(
    waits: impl Iterator<Item = BoxFuture<'w, Result<Granted, QuotaTimeout>>>,
) -> Result<Granted, QuotaTimeout> {
    let (mut waiting, mut soonest) = (Vec::new(), None::<QuotaTimeout>);
    let sooner = |known: Option<QuotaTimeout>, timeout: QuotaTimeout| match known {
        Some(known) if known.retry_after <= timeout.retry_after => known,
        _ => timeout,
    };
    for mut wait in waits {
        match wait.as_mut().now_or_never() {
            Some(Ok(turn)) => return Ok(turn),
            Some(Err(timeout)) => soonest = Some(sooner(soonest, timeout)),
            None => waiting.push(wait),
        }
    }
    while !waiting.is_empty() {
        let (ended, _, others) = select_all(waiting).await;
        waiting = others;
        match ended {
            Ok(turn) => return Ok(turn),
            // Who has waited for long has waited for all.
            Err(timeout) => {
                let waited = timeout.waited;
                soonest = Some(QuotaTimeout { waited, ..sooner(soonest, timeout) });
            }
        }
    }
    Err(soonest.unwrap_or(QuotaTimeout { waited: Duration::ZERO, retry_after: Duration::ZERO }))
}
