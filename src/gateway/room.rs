//! Room in memory for what tenants have under way: bodies that arrive and are read whole, and creates that wait for their turn.
//! It is bounded, and no tenant takes more than half of it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// For all tenants, in bytes.
const MOST: usize = 512 * 1024 * 1024;
/// Beside that, for those that want little, so that two tenants with large bodies do not keep all others out.
const FOR_LITTLE: usize = MOST / 8;
const LITTLE: usize = 128 * 1024;
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

/// What is refused for want of room.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Crowded {
    /// The tenant has taken its half.
    #[error("too much of this key is under way here, or too large: try again when some of it has ended")]
    ByOneself,
    /// All tenants together have taken all.
    #[error("too much is under way here: try again when some of it has ended")]
    ByAll,
}

/// The room of one request, until dropped.
pub(super) struct Place {
    room: Room,
    tenant: Arc<str>,
    bytes: usize,
}

impl Room {
    /// Room for a create of `tenant` with a body of so many bytes.
    ///
    /// # Errors
    /// There is none.
    pub(super) fn for_create(&self, tenant: &Arc<str>, body: usize) -> Result<Place, Crowded> {
        // As it came, and with another address in it.
        self.take(tenant, body.saturating_mul(2).saturating_add(BESIDE))
    }

    /// Room of so many bytes for `tenant`.
    ///
    /// # Errors
    /// There is none.
    pub(super) fn take(&self, tenant: &Arc<str>, bytes: usize) -> Result<Place, Crowded> {
        let mut place = Place { room: self.clone(), tenant: Arc::clone(tenant), bytes: 0 };
        place.grow(bytes)?;
        Ok(place)
    }

    fn taken(&self) -> MutexGuard<'_, Taken> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place {
    /// Takes so many bytes more.
    ///
    /// # Errors
    /// There is no room for them.
    pub(super) fn grow(&mut self, bytes: usize) -> Result<(), Crowded> {
        let mut taken = self.room.taken();
        let own = taken.by_tenant.get(&self.tenant).copied().unwrap_or_default();
        if own + bytes > MOST / 2 {
            return Err(Crowded::ByOneself);
        }
        let most = if self.bytes + bytes > LITTLE { MOST } else { MOST + FOR_LITTLE };
        if taken.all + bytes > most {
            return Err(Crowded::ByAll);
        }
        taken.all += bytes;
        taken.by_tenant.insert(Arc::clone(&self.tenant), own + bytes);
        self.bytes += bytes;
        Ok(())
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
        let places: Vec<Place> = std::iter::from_fn(|| room.for_create(&acme, large).ok()).collect();
        assert_eq!(places.len(), 14);
        let others: Vec<Place> = std::iter::from_fn(|| room.for_create(&bolt, large).ok()).collect();
        assert_eq!(others.len(), 14, "the other half is there for others");
        let refused = room.for_create(&"cog".into(), large).err();
        assert_eq!(
            (refused, room.take(&acme, large).err()),
            (Some(Crowded::ByAll), Some(Crowded::ByOneself))
        );
        assert!(room.for_create(&"cog".into(), 1000).is_ok());
        drop(places);
        let mut place = room.take(&"cog".into(), large).unwrap();
        assert!(place.grow(MOST / 2 - large).is_ok() && place.grow(1).is_err());
        drop((others, place));
        let taken = room.taken();
        assert_eq!((taken.all, taken.by_tenant.len()), (0, 0));
    }
}
