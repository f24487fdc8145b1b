//! Callbacks that were given up: kept for a while, so that they can be sent again by hand.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::Pending;
use crate::ids::TenantId;

/// So many are kept, of all tenants.
const MOST: usize = 10_000;

/// The latest that were given up. Where there are too many, whoever has most loses the oldest.
#[derive(Default)]
pub(super) struct DeadLetters {
    /// Each by a number that is higher than those before it.
    letters: BTreeMap<u64, Pending>,
    by_tenant: HashMap<TenantId, BTreeSet<u64>>,
    next: u64,
}

impl DeadLetters {
    /// Keeps one more.
    pub(super) fn add(&mut self, pending: Pending) {
        self.by_tenant.entry(pending.delivery.tenant.clone()).or_default().insert(self.next);
        self.letters.insert(self.next, pending);
        self.next += 1;
        if self.letters.len() > MOST
            && let Some(oldest) = self.oldest_of_most()
        {
            self.remove(oldest);
        }
    }

    /// All that are kept, the latest last.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Pending> {
        self.letters.values()
    }

    /// Takes out the one whose delivery has that id.
    pub(super) fn take(&mut self, id: &str) -> Option<Pending> {
        let number =
            self.letters.iter().find(|(_, dead)| dead.delivery.id() == id).map(|(number, _)| *number)?;
        self.remove(number)
    }

    /// The oldest of the tenant that has most.
    fn oldest_of_most(&self) -> Option<u64> {
        let tenants = self.by_tenant.values().filter_map(|own| Some((own.len(), Reverse(*own.first()?))));
        tenants.max().map(|(_, Reverse(oldest))| oldest)
    }

    fn remove(&mut self, number: u64) -> Option<Pending> {
        let dead = self.letters.remove(&number)?;
        if let Some(own) = self.by_tenant.get_mut(&dead.delivery.tenant) {
            own.remove(&number);
            if own.is_empty() {
                self.by_tenant.remove(&dead.delivery.tenant);
            }
        }
        Some(dead)
    }
}
