//! Idempotency keys that were used, and what they were answered. Bounded: whoever has the most gives way first, so that
//! nobody loses what it remembers by another's doing.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::Arc;

use crate::clock::Timestamp;
use crate::store::{Claim, KeptAnswer};

/// So many keys are remembered.
const MOST: usize = 100_000;

/// Keys, by whose they are.
#[derive(Default)]
pub(super) struct Claims {
    scopes: HashMap<Arc<str>, Scope>,
    /// Whose they are, by how many.
    by_count: BTreeSet<(usize, Arc<str>)>,
    count: usize,
}

/// The keys of one tenant, or of one life of a sandbox.
#[derive(Default)]
struct Scope {
    claims: HashMap<String, Claimed>,
    /// From the oldest to the newest.
    order: VecDeque<String>,
}

struct Claimed {
    fingerprint: [u8; 32],
    until: Timestamp,
    answer: Option<Arc<KeptAnswer>>,
}

impl Claims {
    pub(super) fn claim(&mut self, scope: &str, key: &str, fingerprint: [u8; 32], now: Timestamp) -> Claim {
        let known = self.scopes.get(scope).and_then(|scope| scope.claims.get(key));
        let is_new = match known {
            Some(claimed) if claimed.answer.is_some() && claimed.until <= now => false,
            Some(claimed) if claimed.fingerprint != fingerprint => return Claim::Conflict,
            Some(Claimed { answer: Some(answer), .. }) => return Claim::Done(Arc::clone(answer)),
            Some(_) => return Claim::Busy,
            None => true,
        };
        let claimed = Claimed { fingerprint, until: Timestamp::MAX, answer: None };
        self.change(scope, |scope| {
            if is_new {
                scope.order.push_back(key.to_owned());
            }
            scope.claims.insert(key.to_owned(), claimed);
        });
        while self.count > MOST {
            let Some((_, largest)) = self.by_count.last().cloned() else { break };
            self.change(&largest, |scope| {
                if let Some(oldest) = scope.order.pop_front() {
                    scope.claims.remove(&oldest);
                }
            });
        }
        Claim::Yours
    }

    /// Keeps the answer to a key; without one the key is free again.
    pub(super) fn answer(&mut self, scope: &str, key: &str, answer: Option<KeptAnswer>, until: Timestamp) {
        self.change(scope, |scope| match answer {
            Some(answer) => {
                if let Some(claimed) = scope.claims.get_mut(key) {
                    (claimed.answer, claimed.until) = (Some(Arc::new(answer)), until);
                }
            }
            None => {
                if scope.claims.remove(key).is_some() {
                    scope.order.retain(|there| there != key);
                }
            }
        });
    }

    /// Changes the keys of `scope` and counts them again.
    fn change(&mut self, scope: &str, change: impl FnOnce(&mut Scope)) {
        let name =
            self.scopes.get_key_value(scope).map_or_else(|| scope.into(), |(name, _)| Arc::clone(name));
        let of_scope = self.scopes.entry(Arc::clone(&name)).or_default();
        let before = of_scope.claims.len();
        change(of_scope);
        let after = of_scope.claims.len();
        if after == 0 {
            self.scopes.remove(scope);
        }
        self.count = self.count - before + after;
        if before == after {
            return;
        }
        self.by_count.remove(&(before, Arc::clone(&name)));
        if after > 0 {
            self.by_count.insert((after, name));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One bound for all once let a tenant push out the keys of another, whose next attempt was then paid again.
    #[test]
    fn whoever_has_the_most_keys_gives_way() {
        let mut claims = Claims::default();
        let now = Timestamp::from_millis(1);
        assert!(matches!(claims.claim("bolt", "order-1", [1; 32], now), Claim::Yours));
        for number in 0..MOST + 10 {
            claims.claim("acme", &number.to_string(), [0; 32], now);
        }
        assert_eq!(claims.count, MOST);
        assert!(matches!(claims.claim("bolt", "order-1", [1; 32], now), Claim::Busy));
        assert!(matches!(claims.claim("acme", "0", [0; 32], now), Claim::Yours), "the oldest has gone");
        claims.answer("bolt", "order-1", None, now);
        assert!(matches!(claims.claim("bolt", "order-1", [2; 32], now), Claim::Yours), "it was free again");
    }
}
