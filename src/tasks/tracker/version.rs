//! Other versions of a finished task's result: they have no record of their own. The task's own shows them when they are done,
//! and whoever asks for one again is told how far it is.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde_json::Value;

use super::{Shared, Stage, Tracker, asked};
use crate::catalogue::EndedAs;
use crate::store::{CreateId, StoreError, Task};

/// How long one may take of whose end nobody tells. Usual are five to ten minutes.
const LONGEST: Duration = Duration::from_hours(1);

impl Tracker {
    /// Another version of what the task `id` made is on its way, by the create `version`: whoever asks for its details may hear
    /// something else soon.
    ///
    /// # Errors
    /// The store cannot be reached.
    pub async fn is_replaced(&self, id: &str, version: CreateId) -> Result<(), StoreError> {
        self.0.note_replaced(id, version);
        self.0.ask_anew(id).await
    }

    /// Whether the details of a finished task may still become others.
    pub fn may_be_replaced(&self, task: &Task) -> bool {
        let now = self.0.now();
        let watched = self.0.watched();
        let versions = task.id.as_ref().and_then(|id| watched.replaced.get(id));
        versions.is_some_and(|versions| versions.values().any(|until| *until > now))
    }
}

impl Shared {
    fn note_replaced(&self, id: &str, version: CreateId) {
        let now = self.now();
        let mut watched = self.watched();
        watched.replaced.retain(|_, versions| {
            versions.retain(|_, until| *until > now);
            !versions.is_empty()
        });
        watched.replaced.entry(id.into()).or_default().insert(version, now + LONGEST);
    }

    /// That version of what the task `id` made is done, or is none: its details are asked for anew.
    pub(super) async fn version_is_there(&self, id: &str, version: CreateId) -> Result<(), StoreError> {
        if let Some(versions) = self.watched().replaced.get_mut(id) {
            versions.remove(&version);
        }
        self.ask_anew(id).await
    }

    /// Somebody says that a version has failed.
    pub(super) fn note_failure(&self, task: &Task, callback: &Value, body: &Bytes) {
        let Some((operation, model)) = self.kind(task) else { return };
        let stage = self.parts.catalogue.stage(operation, model, callback);
        if stage.ended.is_some_and(|ended| !ended.success) {
            let told = Stage::of(stage.is_known.then_some(stage.index), body);
            self.note(task.create, |watch| watch.failure = Some((told, body.clone())));
        }
    }

    /// Whether somebody has called about it, vouched for or not.
    pub(super) fn was_called(&self, create: CreateId) -> bool {
        self.watched().tasks.get(&create).is_some_and(|watch| watch.woken.is_some())
    }

    /// Looks whether a version is done, for a tenant that waits to be called back. One that began was settled then. Where it is
    /// neither done nor being made, whoever said that it has failed is believed.
    pub(super) async fn look_at_version(&self, task: &Arc<Task>, age: Duration) -> Result<(), StoreError> {
        if age >= LONGEST {
            self.forget(task.create);
            return Ok(());
        }
        let (Some(poller), Some(id)) = (self.poller.get(), task.base.as_deref()) else { return Ok(()) };
        let Some(answer) = poller.ask_version(Arc::clone(task)).await else { return Ok(()) };
        let Some(kind) = self.kind(task) else { return Ok(()) };
        let (answer, request): (Value, _) =
            (serde_json::from_slice(&answer).unwrap_or_default(), asked(task));
        let known = self.known(task, kind, &request, id);
        if let Some((stage, body)) = self.parts.catalogue.callback_of_version(known, &answer) {
            self.learn(task, &answer).await?;
            return self.version_ended(task, id, true, (Stage::Known(stage), body.into())).await;
        }
        let failure = self.watched().tasks.get_mut(&task.create).and_then(|watch| watch.failure.take());
        match failure {
            Some(failure) if !self.parts.catalogue.is_version_under_way(kind.0, &answer) => {
                self.version_ended(task, id, false, failure).await
            }
            _ => Ok(()),
        }
    }

    /// Tells of the end of a version, and settles it where its beginning was not heard of.
    async fn version_ended(
        &self,
        task: &Arc<Task>,
        id: &str,
        success: bool,
        (stage, body): (Stage, Bytes),
    ) -> Result<(), StoreError> {
        self.tell(task, stage, body).await?;
        if task.is_open() {
            let ending = if success { "success" } else { "fail" };
            self.end(task, &EndedAs { ending: ending.to_owned(), success }, None).await?;
        }
        self.forget(task.create);
        self.version_is_there(id, task.create).await
    }
}
