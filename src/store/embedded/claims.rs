//! Idempotency keys that were used, and what they were answered. Bounded in bytes: whoever takes the most gives way first, so
//! that nobody loses what it remembers by another's doing.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use http::{HeaderName, HeaderValue};

use crate::clock::Timestamp;
use crate::store::{Claim, KeptAnswer};

/// So many bytes are taken up by all keys and answers.
const MOST: usize = 128 * 1024 * 1024;
/// What a key takes beside itself and its answer, about and in bytes: its places in three collections. So there are never
/// more than some 260,000.
const OVERHEAD: usize = 512;
/// What a header of an answer takes beside its text, about and in bytes.
const HEADER_OVERHEAD: usize = 64;

/// So many keys whose time is over are forgotten with each that is claimed, so that none of them waits for long.
const FORGOTTEN_AT_ONCE: usize = 4;

/// Keys, by whose they are.
#[derive(Default)]
pub(super) struct Claims {
    scopes: HashMap<Arc<str>, Scope>,
    /// Whose they are, by the bytes that they take.
    by_size: BTreeSet<(usize, Arc<str>)>,
    size: usize,
    /// How many keys there were so far.
    claimed: u64,
}

/// The keys of one tenant, or of one life of a sandbox.
#[derive(Default)]
struct Scope {
    claims: HashMap<Arc<str>, Claimed>,
    /// From the one that is forgotten first to those that wait for an answer; of the same end the older is first.
    order: BTreeMap<(Timestamp, u64), Arc<str>>,
    /// In bytes.
    size: usize,
}

struct Claimed {
    number: u64,
    fingerprint: [u8; 32],
    until: Timestamp,
    answer: Option<Arc<KeptAnswer>>,
}

impl Claims {
    /// Claims a key.
    pub(super) fn claim(&mut self, scope: &str, key: &str, fingerprint: [u8; 32], now: Timestamp) -> Claim {
        if self.scopes.get(scope).is_some_and(|scope| scope.has_expired(now)) {
            self.change(scope, |scope| scope.forget_expired(key, now));
        }
        match self.scopes.get(scope).and_then(|scope| scope.claims.get(key)) {
            Some(claimed) if claimed.fingerprint != fingerprint => return Claim::Conflict,
            Some(Claimed { answer: Some(answer), .. }) => return Claim::Done(Arc::clone(answer)),
            Some(_) => return Claim::Busy,
            None => {}
        }
        self.claimed += 1;
        let claimed = Claimed { number: self.claimed, fingerprint, until: Timestamp::MAX, answer: None };
        self.change(scope, |scope| scope.put(key.into(), claimed));
        self.make_room();
        Claim::Yours
    }

    /// Keeps the answer to a key; without one the key is free again.
    pub(super) fn answer(&mut self, scope: &str, key: &str, answer: Option<KeptAnswer>, until: Timestamp) {
        self.change(scope, |scope| {
            if let Some((key, claimed)) = scope.take(key)
                && let Some(answer) = answer
            {
                scope.put(key, Claimed { answer: Some(Arc::new(answer)), until, ..claimed });
            }
        });
        self.make_room();
    }

    /// Lets go what would be forgotten first of whoever takes the most, as long as there is too much.
    fn make_room(&mut self) {
        while self.size > MOST {
            let Some((_, largest)) = self.by_size.last().cloned() else { break };
            self.change(&largest, Scope::forget_first);
        }
    }

    /// Changes the keys of `scope` and weighs them again.
    fn change(&mut self, scope: &str, change: impl FnOnce(&mut Scope)) {
        let name =
            self.scopes.get_key_value(scope).map_or_else(|| scope.into(), |(name, _)| Arc::clone(name));
        let of_scope = self.scopes.entry(Arc::clone(&name)).or_default();
        let before = of_scope.size;
        change(of_scope);
        let after = of_scope.size;
        if after == 0 {
            self.scopes.remove(scope);
        }
        self.size = self.size - before + after;
        if before == after {
            return;
        }
        self.by_size.remove(&(before, Arc::clone(&name)));
        if after > 0 {
            self.by_size.insert((after, name));
        }
    }
}

impl Scope {
    fn put(&mut self, key: Arc<str>, claimed: Claimed) {
        self.size += claimed.size(&key);
        self.order.insert((claimed.until, claimed.number), Arc::clone(&key));
        self.claims.insert(key, claimed);
    }

    fn take(&mut self, key: &str) -> Option<(Arc<str>, Claimed)> {
        let (key, claimed) = self.claims.remove_entry(key)?;
        self.order.remove(&(claimed.until, claimed.number));
        self.size -= claimed.size(&key);
        Some((key, claimed))
    }

    fn has_expired(&self, now: Timestamp) -> bool {
        self.order.first_key_value().is_some_and(|((until, _), _)| *until <= now)
    }

    /// Forgets `key` if its time is over, and a few others of which that is true: more of them than there can come.
    fn forget_expired(&mut self, key: &str, now: Timestamp) {
        if self.claims.get(key).is_some_and(|claimed| claimed.until <= now) {
            self.take(key);
        }
        for _ in 0..FORGOTTEN_AT_ONCE {
            if self.has_expired(now) {
                self.forget_first();
            }
        }
    }

    fn forget_first(&mut self) {
        if let Some((_, first)) = self.order.pop_first() {
            self.take(&first);
        }
    }
}

impl Claimed {
    /// About how many bytes it takes with its key.
    fn size(&self, key: &str) -> usize {
        let of_header =
            |(name, value): (&HeaderName, &HeaderValue)| name.as_str().len() + value.len() + HEADER_OVERHEAD;
        let of_answer = |answer: &Arc<KeptAnswer>| {
            answer.body.len() + answer.headers.iter().map(of_header).sum::<usize>()
        };
        OVERHEAD + key.len() + self.answer.as_ref().map_or(0, of_answer)
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use http::HeaderMap;

    use super::*;

    fn at(millis: i64) -> Timestamp {
        Timestamp::from_millis(millis)
    }

    fn answer(bytes: usize) -> KeptAnswer {
        KeptAnswer { status: 200, headers: HeaderMap::new(), body: Bytes::from(vec![0; bytes]) }
    }

    /// One bound for all once let a tenant push out the keys of another, whose next attempt was then paid again.
    #[test]
    fn whoever_takes_the_most_gives_way() {
        let mut claims = Claims::default();
        let now = at(1);
        assert!(matches!(claims.claim("bolt", "order-1", [1; 32], now), Claim::Yours));
        for number in 0..MOST / OVERHEAD {
            claims.claim("acme", &number.to_string(), [0; 32], now);
        }
        assert!(claims.size <= MOST && claims.size > MOST - 2 * OVERHEAD, "{}", claims.size);
        assert!(matches!(claims.claim("bolt", "order-1", [1; 32], now), Claim::Busy));
        assert!(matches!(claims.claim("acme", "0", [0; 32], now), Claim::Yours), "the oldest has gone");
        claims.answer("bolt", "order-1", None, now);
        assert!(matches!(claims.claim("bolt", "order-1", [2; 32], now), Claim::Yours), "it was free again");
    }

    /// A hundred thousand answers of 256 KiB were kept.
    #[test]
    fn what_answers_take_is_bounded() {
        const LARGE: usize = 256 * 1024;
        let mut claims = Claims::default();
        let count = MOST / LARGE + 10;
        for number in 0..count {
            let key = number.to_string();
            claims.claim("acme", &key, [0; 32], at(1));
            claims.answer("acme", &key, Some(answer(LARGE)), at(1000));
            assert!(claims.size <= MOST, "{}", claims.size);
        }
        assert!(matches!(claims.claim("acme", "0", [0; 32], at(2)), Claim::Yours), "the oldest has gone");
        let last = (count - 1).to_string();
        assert!(matches!(claims.claim("acme", &last, [0; 32], at(2)), Claim::Done(_)));
    }

    /// They stayed until there were too many, and what was kept for longer stood before them.
    #[test]
    fn keys_are_forgotten_when_their_time_is_over() {
        let mut claims = Claims::default();
        for (key, until) in [("long", 5000), ("short", 1000)] {
            claims.claim("acme", key, [0; 32], at(1));
            claims.answer("acme", key, Some(answer(10)), at(until));
        }
        claims.claim("acme", "busy", [0; 32], at(1));
        assert!(matches!(claims.claim("acme", "short", [0; 32], at(999)), Claim::Done(_)));
        assert!(matches!(claims.claim("acme", "another", [0; 32], at(1000)), Claim::Yours));
        assert_eq!(claims.scopes["acme"].claims.len(), 3, "the short one is not there");
        assert!(matches!(claims.claim("acme", "short", [1; 32], at(1000)), Claim::Yours), "it is free again");
        assert!(matches!(claims.claim("acme", "long", [0; 32], at(4999)), Claim::Done(_)));
        assert!(matches!(claims.claim("acme", "busy", [0; 32], at(9999)), Claim::Busy));
        assert_eq!(claims.scopes["acme"].order.len(), claims.scopes["acme"].claims.len());
    }

    /// All at once would keep everybody waiting.
    #[test]
    fn many_keys_whose_time_is_over_are_forgotten_a_few_at_a_time() {
        let mut claims = Claims::default();
        for number in 0..100 {
            claims.claim("acme", &number.to_string(), [0; 32], at(1));
            claims.answer("acme", &number.to_string(), Some(answer(10)), at(1000));
        }
        assert!(matches!(claims.claim("acme", "99", [0; 32], at(1000)), Claim::Yours), "whoever is left");
        assert_eq!(claims.scopes["acme"].claims.len(), 100 - FORGOTTEN_AT_ONCE);
        for number in 100..100 + 95_usize.div_ceil(FORGOTTEN_AT_ONCE) {
            claims.claim("acme", &number.to_string(), [0; 32], at(1000));
        }
        let left = &claims.scopes["acme"].claims;
        assert!(left.values().all(|claimed| claimed.answer.is_none()), "{}", left.len());
    }

    /// Their places were searched for among all others.
    #[test]
    fn a_key_that_is_free_again_leaves_nothing_behind() {
        let mut claims = Claims::default();
        for number in 0..1000 {
            claims.claim("acme", &number.to_string(), [0; 32], at(1));
        }
        for number in 0..1000 {
            claims.answer("acme", &number.to_string(), None, at(1));
        }
        assert!(claims.scopes.is_empty() && claims.by_size.is_empty() && claims.size == 0);
        claims.answer("acme", "never-claimed", Some(answer(10)), at(1));
        assert!(claims.scopes.is_empty() && claims.size == 0);
    }
}
