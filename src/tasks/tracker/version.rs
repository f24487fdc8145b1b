//! Other versions of a finished task's result: they have no record of their own. The task's own shows them when they are done,
//! and whoever asks for one again is told how far it is.

use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

use super::{Shared, Stage, Tracker};
use crate::catalogue::Known;
use crate::store::{StoreError, Task};

/// How long one may take of whose end nobody tells. Usual are five to ten minutes.
const LONGEST: Duration = Duration::from_hours(1);

impl Tracker {
    /// Another version of what the task `id` made is on its way: whoever asks for its details may hear something else soon.
    ///
    /// # Errors
    /// The store cannot be reached.
    pub async fn is_replaced(&self, id: &str) -> Result<(), StoreError> {
        self.0.note_replaced(id);
        self.0.ask_anew(id).await
    }

    /// Whether the details of a finished task may still become others.
    pub fn may_be_replaced(&self, task: &Task) -> bool {
        let until = task.id.as_ref().and_then(|id| self.0.watched().replaced.get(id).copied());
        until.is_some_and(|until| until > self.0.now())
    }
}

impl Shared {
    fn note_replaced(&self, id: &str) {
        let now = self.now();
        let mut watched = self.watched();
        watched.replaced.retain(|_, until| *until > now);
        watched.replaced.insert(id.into(), now + LONGEST);
    }

    /// The version of what the task `id` made is done, or is none: its details are what they are to be.
    pub(super) async fn version_is_there(&self, id: &str) -> Result<(), StoreError> {
        self.watched().replaced.remove(id);
        self.ask_anew(id).await
    }

    /// Looks whether a version is done: it was settled when it began, and its tenant waits to be called back.
    pub(super) async fn look_at_version(&self, task: &Arc<Task>, age: Duration) -> Result<(), StoreError> {
        if age >= LONGEST {
            self.forget(task.create);
            return Ok(());
        }
        let (Some(poller), Some(id)) = (self.poller.get(), task.base.as_deref()) else { return Ok(()) };
        let Some(answer) = poller.ask_version(Arc::clone(task)).await else { return Ok(()) };
        let Some((operation, model)) = self.kind(task) else { return Ok(()) };
        let answer: Value = serde_json::from_slice(&answer).unwrap_or_default();
        let request = serde_json::from_slice(&task.request).unwrap_or_default();
        let (created, now) = (task.created, self.parts.clock.now());
        let known = Known { operation, model, request: &request, id, created, now };
        let Some((stage, body)) = self.parts.catalogue.callback_of_version(known, &answer) else {
            return Ok(());
        };
        self.learn(task, &answer).await?;
        self.tell(task, Stage::Known(stage), body.into()).await?;
        self.forget(task.create);
        self.version_is_there(id).await
    }
}
