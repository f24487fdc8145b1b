//! Who waits, and whose turn is next: fair among tenants by weight, first come first served within each.
//!
//! Pure. Start-time fair queuing: the queue has a virtual time, and each tenant a point in it at which its
//! next turn begins; the earliest is served, the virtual time moves there, and the tenant's point moves on by
//! one stride, which is shorter the heavier the tenant. A tenant that comes back after a pause begins at the
//! present virtual time: it gets no credit. One that had a turn just now still owes its stride, even if it
//! left the queue in between. A turn costs O(log tenants).
//!
//! Source: P. Goyal, H. Vin, H. Cheng, "Start-time Fair Queuing", 1996.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::num::NonZeroU32;

use crate::ids::TenantId;

/// A point in virtual time, or a span of it. A tenant of weight 1 moves by [`STRIDE`] with each turn.
type Virtual = u128;

const STRIDE: Virtual = 1 << 64;

/// Those who wait, each known by a number that grows in the order in which they came.
pub(super) struct FairQueue<T> {
    now: Virtual,
    tenants: HashMap<TenantId, Line<T>>,
    /// The tenants that wait: where their next turn begins, the number of their first, the name.
    ready: BTreeSet<(Virtual, u64, TenantId)>,
    /// The tenants that do not wait but owe something: where their next turn begins, the name.
    owing: BTreeSet<(Virtual, TenantId)>,
    len: usize,
}

/// One tenant.
struct Line<T> {
    stride: Virtual,
    begins: Virtual,
    waiting: BTreeMap<u64, T>,
}

/// Whose turn it is.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Next<T> {
    pub(super) number: u64,
    pub(super) tenant: TenantId,
    pub(super) waiter: T,
    pub(super) charge: Charge,
}

/// What a turn cost its tenant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Charge(Virtual);

impl Charge {
    pub(super) const NOTHING: Self = Self(0);
}

impl<T> FairQueue<T> {
    pub(super) fn new() -> Self {
        Self { now: 0, tenants: HashMap::new(), ready: BTreeSet::new(), owing: BTreeSet::new(), len: 0 }
    }

    /// How many wait.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Lines up at the end of the tenant's line. `number` is larger than any before; the weight holds for all
    /// of the tenant's turns from now on.
    pub(super) fn push(&mut self, tenant: &TenantId, weight: NonZeroU32, number: u64, waiter: T) {
        self.change(tenant, |now, line| {
            line.stride = STRIDE / Virtual::from(weight.get());
            if line.waiting.is_empty() {
                line.begins = line.begins.max(now);
            }
            line.waiting.insert(number, waiter);
        });
        self.len += 1;
    }

    /// Those who wait and for whom that is so.
    pub(super) fn find(&self, is_so: impl Fn(&T) -> bool) -> Vec<(TenantId, u64)> {
        let of_line = |(tenant, line): (&TenantId, &Line<T>)| {
            let found = line.waiting.iter().filter(|(_, waiter)| is_so(waiter));
            found.map(|(number, _)| (tenant.clone(), *number)).collect::<Vec<_>>()
        };
        self.tenants.iter().flat_map(of_line).collect()
    }

    /// Leaves the line; whoever stood behind moves up, and nothing is charged. `None` if it is not there.
    pub(super) fn remove(&mut self, tenant: &TenantId, number: u64) -> Option<T> {
        let waiter = self.change(tenant, |_, line| line.waiting.remove(&number))?;
        self.len -= 1;
        Some(waiter)
    }

    /// Takes out whose turn it is.
    pub(super) fn pop(&mut self) -> Option<Next<T>> {
        let (begins, number, tenant) = self.ready.first().cloned()?;
        self.now = self.now.max(begins);
        let (waiter, charge) = self.change(&tenant, |_, line| {
            line.begins += line.stride;
            (line.waiting.remove(&number), line.stride)
        });
        self.len -= 1;
        self.forget_paid();
        Some(Next { number, tenant, waiter: waiter?, charge: Charge(charge) })
    }

    /// A turn was not used after all: the tenant gets back what it cost.
    pub(super) fn refund(&mut self, tenant: &TenantId, Charge(charge): Charge) {
        // A tenant that is not known any more owes nothing.
        if self.tenants.contains_key(tenant) {
            self.change(tenant, |_, line| line.begins = line.begins.saturating_sub(charge));
        }
    }

    /// Changes a tenant, and keeps it where it now belongs: among those that wait, that owe, or nowhere.
    fn change<R>(&mut self, tenant: &TenantId, act: impl FnOnce(Virtual, &mut Line<T>) -> R) -> R {
        let line = self.tenants.entry(tenant.clone()).or_insert_with(|| Line {
            stride: STRIDE,
            begins: self.now,
            waiting: BTreeMap::new(),
        });
        match line.waiting.first_key_value() {
            Some((first, _)) => self.ready.remove(&(line.begins, *first, tenant.clone())),
            None => self.owing.remove(&(line.begins, tenant.clone())),
        };
        let result = act(self.now, line);
        match line.waiting.first_key_value() {
            Some((first, _)) => drop(self.ready.insert((line.begins, *first, tenant.clone()))),
            None if line.begins > self.now => drop(self.owing.insert((line.begins, tenant.clone()))),
            None => drop(self.tenants.remove(tenant)),
        }
        result
    }

    /// Forgets the tenants whose debt the virtual time has overtaken.
    fn forget_paid(&mut self) {
        while let Some((begins, _)) = self.owing.first()
            && *begins <= self.now
            && let Some((_, tenant)) = self.owing.pop_first()
        {
            self.tenants.remove(&tenant);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[derive(Default)]
    struct Door {
        queue: Option<FairQueue<()>>,
        count: u64,
    }

    impl Door {
        fn queue(&mut self) -> &mut FairQueue<()> {
            self.queue.get_or_insert_with(FairQueue::new)
        }

        fn comes(&mut self, tenant: &str, weight: u32) -> u64 {
            self.count += 1;
            let number = self.count;
            self.queue().push(&TenantId::new(tenant), NonZeroU32::new(weight).unwrap(), number, ());
            number
        }

        fn crowd(&mut self, tenant: &str, size: usize) {
            for _ in 0..size {
                self.comes(tenant, 1);
            }
        }

        fn next(&mut self) -> String {
            self.queue().pop().map_or_else(String::new, |next| next.tenant.to_string())
        }

        fn turns(&mut self, count: usize) -> String {
            (0..count).map(|_| self.next()).collect()
        }
    }

    #[test]
    fn equals_take_turns_and_the_heavy_get_more() {
        let mut door = Door::default();
        for _ in 0..60 {
            door.comes("a", 1);
        }
        for _ in 0..60 {
            door.comes("b", 1);
            door.comes("c", 3);
        }
        let turns = door.turns(50);
        let count = |tenant: char| turns.chars().filter(|turn| *turn == tenant).count();
        assert_eq!((count('a'), count('b'), count('c')), (10, 10, 30), "{turns}");
    }

    #[test]
    fn who_was_away_gets_no_credit_for_it() {
        let mut door = Door::default();
        door.crowd("a", 100);
        door.turns(50);
        door.crowd("b", 50);
        assert_eq!(door.turns(6), "bababa");
    }

    /// A tenant that lines up again after each turn was once served every time.
    #[test]
    fn who_lines_up_one_by_one_gets_no_more_than_who_waits_in_a_crowd() {
        let mut door = Door::default();
        door.crowd("a", 100);
        door.comes("b", 1);
        let mut turns = String::new();
        for _ in 0..20 {
            let next = door.next();
            if next == "b" {
                door.comes("b", 1);
            }
            turns += &next;
        }
        assert_eq!(turns.matches('b').count(), 10, "{turns}");
    }

    #[test]
    fn leaving_costs_nothing_and_a_turn_not_used_is_paid_back() {
        let mut door = Door::default();
        door.crowd("a", 10);
        let (b, _) = (door.comes("b", 1), door.comes("b", 1));
        assert_eq!(door.next(), "a");
        let queue = door.queue();
        assert_eq!(queue.remove(&TenantId::new("b"), b), Some(()));
        assert_eq!(queue.remove(&TenantId::new("b"), b), None);
        let unused = queue.pop().unwrap();
        assert_eq!((unused.tenant.as_str(), unused.number), ("b", b + 1));
        queue.refund(&unused.tenant, unused.charge);
        assert!(!queue.tenants.contains_key(&unused.tenant), "b owes nothing and is forgotten");
        door.crowd("b", 2);
        assert_eq!(door.turns(4), "baba");
        assert_eq!(door.queue().len(), 7);
    }

    #[test]
    fn only_who_waits_or_owes_is_remembered() {
        let mut door = Door::default();
        for round in 0..1000 {
            let name = format!("tenant-{}", round % 10);
            door.comes(&name, 1);
            door.next();
        }
        assert!(door.queue().tenants.len() <= 10);
        door.crowd("x", 2);
        door.turns(2);
        assert_eq!(door.queue().tenants.len(), 1);
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 128, failure_persistence: None, ..ProptestConfig::default() })]

        /// While all wait, turns divided by weights differ by at most one turn of each, however others come,
        /// go, and give turns back.
        #[test]
        fn shares_follow_weights(
            weights in prop::collection::vec(1..8_u32, 2..6),
            noise in prop::collection::vec((0..6_usize, 0..4_u8), 0..300),
        ) {
            let mut door = Door::default();
            let names: Vec<_> = (0..weights.len()).map(|index| format!("t{index}")).collect();
            let mut turns = vec![0_u32; weights.len()];
            for (name, weight) in names.iter().zip(&weights) {
                for _ in 0..400 {
                    door.comes(name, *weight);
                }
            }
            for (who, what) in noise {
                let who = who % names.len();
                let tenant = TenantId::new(&names[who]);
                match what {
                    0 => {
                        let number = door.comes(&names[who], weights[who]);
                        door.queue().remove(&tenant, number);
                    }
                    1 => {
                        let first = *door.queue().tenants[&tenant].waiting.first_key_value().unwrap().0;
                        door.queue().remove(&tenant, first);
                    }
                    2 => {
                        let unused = door.queue().pop().unwrap();
                        door.queue().refund(&unused.tenant, unused.charge);
                    }
                    _ => {
                        let next = door.next();
                        turns[names.iter().position(|name| *name == next).unwrap()] += 1;
                    }
                }
            }
            for (one, weight) in turns.iter().zip(&weights) {
                for (other, other_weight) in turns.iter().zip(&weights) {
                    let shares = |turns: u32, weight: u32| f64::from(turns) / f64::from(weight);
                    let apart = shares(*one, *weight) - shares(*other, *other_weight);
                    prop_assert!(
                        apart <= 1.0 / f64::from(*weight) + 1.0 / f64::from(*other_weight) + 1e-9,
                        "{turns:?} for {weights:?}"
                    );
                }
            }
        }

        #[test]
        fn within_a_tenant_first_come_is_first_served(
            comings in prop::collection::vec((0..3_u8, any::<bool>()), 1..100),
        ) {
            let mut door = Door::default();
            let mut last = HashMap::new();
            let mut served = 0;
            for (tenant, then_one_turn) in &comings {
                door.comes(&tenant.to_string(), 1);
                if *then_one_turn {
                    let next = door.queue().pop().unwrap();
                    served += 1;
                    let before = last.insert(next.tenant, next.number);
                    prop_assert!(before.is_none_or(|before| before < next.number));
                }
            }
            prop_assert_eq!(door.queue().len(), comings.len() - served);
        }
    }
}
