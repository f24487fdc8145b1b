//! Room in memory for creates that wait for their turn, bodies and all: bounded, and no tenant takes more than half of it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// For all tenants, in bytes.
const MOST: usize = 512 * 1024 * 1024;
/// What a create takes beside its body, about.
const BESIDE: usize = 16 * 1024;

/// Clones share it.
#[derive(Clone, Default)]
pub(super) struct Room(Arc<Mutex<Taken>>);

#[derive(Default)]
struct Taken {
    all: usize,
    by_tenant: HashMap<Arc<str>, usize>,
}

/// The room of one create, until dropped.
pub(super) struct Place {
    room: Room,
    tenant: Arc<str>,
    bytes: usize,
}

impl Room {
    /// Room for a create of `tenant` with a body of so many bytes, if there is some.
    pub(super) fn take(&self, tenant: &Arc<str>, body: usize) -> Option<Place> {
        // As it came, and with another address in it.
        let bytes = body.saturating_mul(2).saturating_add(BESIDE);
        let mut taken = self.taken();
        let own = taken.by_tenant.get(tenant).copied().unwrap_or_default();
        if taken.all + bytes > MOST || own + bytes > MOST / 2 {
            return None;
        }
        taken.all += bytes;
        taken.by_tenant.insert(Arc::clone(tenant), own + bytes);
        drop(taken);
        Some(Place { room: self.clone(), tenant: Arc::clone(tenant), bytes })
    }

    fn taken(&self) -> MutexGuard<'_, Taken> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.room.taken();
        taken.all -= self.bytes;
        let left = taken.by_tenant.get(&self.tenant).map_or(0, |own| own - self.bytes);
        if left == 0 {
            taken.by_tenant.remove(&self.tenant);
        } else {
            taken.by_tenant.insert(Arc::clone(&self.tenant), left);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_takes_more_than_half_of_it() {
        let room = Room::default();
        let (acme, bolt): (Arc<str>, Arc<str>) = ("acme".into(), "bolt".into());
        let large = 9 * 1024 * 1024;
        let places: Vec<Place> = std::iter::from_fn(|| room.take(&acme, large)).collect();
        assert_eq!(places.len(), 14);
        let others: Vec<Place> = std::iter::from_fn(|| room.take(&bolt, large)).collect();
        assert_eq!(others.len(), 14, "the other half is there for others");
        assert!(room.take(&"cog".into(), large).is_none());
        drop(places);
        assert!(room.take(&"cog".into(), large).is_some());
        drop(others);
        let taken = room.taken();
        assert_eq!((taken.all, taken.by_tenant.len()), (0, 0));
    }
}
