//! The ends of simulated tasks, for the limits of the tenants that have them.
//!
//! The simulator tells of an end itself, at its own time; nobody has to ask.

use std::sync::Arc;
use std::time::Duration;

use crate::background;
use crate::clock::Clock;
use crate::ids::Credits;
use crate::store::{Store, Task};

/// So many ends are remembered that came before the answer to their create was read.
const EARLY: u64 = 10_000;

/// Settles what simulated tasks were expected to cost.
pub struct SimulatedEnds {
    store: Arc<dyn Store>,
    clock: Clock,
    early: moka::sync::Cache<Arc<str>, Credits>,
}

impl SimulatedEnds {
    /// For tasks in `store`.
    pub fn new(store: Arc<dyn Store>, clock: Clock) -> Self {
        let early = moka::sync::Cache::builder().max_capacity(EARLY).time_to_live(Duration::from_mins(10));
        Self { store, clock, early: early.build() }
    }

    /// The simulated task `id` came to its end; it cost `charged`, nothing where it failed.
    pub fn ended(self: &Arc<Self>, id: &str, charged: Credits) {
        let (this, id): (_, Arc<str>) = (Arc::clone(self), id.into());
        // Remembered before it is looked up: whichever of the two halves comes second sees the other.
        this.early.insert(Arc::clone(&id), charged);
        background::spawn(async move {
            if let Ok(Some(task)) = this.store.by_id(&id).await {
                this.settle(&task, &id).await;
            }
        });
    }

    /// These simulated tasks are gone without an end: as if they had not been.
    pub fn forgotten(self: &Arc<Self>, ids: Vec<String>) {
        let this = Arc::clone(self);
        background::spawn(async move {
            for id in ids {
                let Ok(Some(task)) = this.store.by_id(&id).await else { continue };
                if let Err(error) = this.store.refused(task.create).await {
                    tracing::error!("that a simulated task is gone cannot be written down: {error}");
                }
            }
        });
    }

    /// The create of `task` was answered: the simulator calls it `id`.
    pub async fn started(&self, task: &Task, id: &str) {
        self.settle(task, id).await;
    }

    /// Settles a task whose end was told and whose name is known.
    async fn settle(&self, task: &Task, id: &str) {
        let Some(charged) = self.early.remove(id) else { return };
        let success = charged > Credits::ZERO;
        if let Err(error) = self.store.ended(task.create, success, Some(charged), self.clock.now()).await {
            tracing::error!("the end of a simulated task cannot be written down: {error}");
        }
    }
}
