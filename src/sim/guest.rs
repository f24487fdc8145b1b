//! Somebody else who answers for a sandbox: with its clock, its control API and its way of calling back, and without its
//! tasks. A recording is played so.

use std::any::Any;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use axum::response::Response;
use bytes::Bytes;
use http::HeaderMap;
use http::request::Parts;

use super::journal::{self, Arriving, Entry, Note};
use super::sandbox::{Sandbox, World};
use super::task::{Due, SandboxId, TaskKey};
use super::{Event, Owner, Sim, caller};
use crate::catalogue::Resolved;
use crate::clock::Timestamp;

/// A callback that a guest wants to be sent.
#[derive(Debug)]
pub struct Letter {
    /// What it is about, for the log.
    pub task: String,
    /// Where to.
    pub url: String,
    /// JSON.
    pub body: Bytes,
    /// How long from now, by the sandbox's clock.
    pub after: Duration,
}

/// What a sandbox keeps for its guest.
#[derive(Default)]
pub(super) struct Guest {
    /// Whatever the guest needs to remember; it goes with the sandbox.
    state: Option<Box<dyn Any + Send>>,
    letters: HashMap<(TaskKey, u8), Arc<Posted>>,
    /// How often letters were brought.
    visits: u64,
}

/// A letter that waits for its time.
pub(super) struct Posted {
    pub(super) letter: Letter,
    /// When it was brought.
    pub(super) brought: Timestamp,
}

impl Guest {
    fn state<T: Default + Send + 'static>(&mut self) -> &mut T {
        if self.state.as_ref().is_none_or(|state| !state.is::<T>()) {
            self.state = Some(Box::<T>::default());
        }
        self.state
            .as_mut()
            .and_then(|state| state.downcast_mut())
            .expect("it was put there in this very type")
    }

    /// The letter that is due.
    pub(super) fn letter(&self, due: Due) -> Option<Arc<Posted>> {
        self.letters.get(&(due.task, due.stage)).cloned()
    }

    /// It has arrived, or never will.
    pub(super) fn forget(&mut self, due: Due) {
        self.letters.remove(&(due.task, due.stage));
    }

    /// Whether there is one.
    pub(super) fn is_there(&self) -> bool {
        self.state.is_some()
    }

    /// Whether something was brought to it.
    pub(super) fn is_waiting(&self) -> bool {
        !self.letters.is_empty()
    }
}

/// A call that a guest answers, in the journal of its sandbox.
pub struct Witness {
    sandbox: Arc<Sandbox>,
    entry: Arc<Entry>,
    sim: Sim,
}

impl Witness {
    /// Writes down what was answered; gives it on.
    pub fn answered(self, response: Response) -> Response {
        journal::answer(&self.sandbox, &self.entry, self.sim.real_now(), response, None)
    }
}

impl Sim {
    /// Writes down a call that somebody else will answer in the sandbox of the caller, as [`Sim::host`] knows it. `None`
    /// without a key.
    pub fn witness(
        &self,
        parts: &Parts,
        body: &[u8],
        otherwise: Option<&str>,
        owner: Option<&Owner>,
    ) -> Option<Witness> {
        let id = caller(&parts.extensions, &parts.headers).or_else(|| otherwise.map(SandboxId::of))?;
        let sandbox = self.sandbox(id, owner);
        let operation = match self.catalogue().resolve(&parts.method, parts.uri.path()) {
            Resolved::Operation(operation) => Some(operation),
            Resolved::WrongMethod | Resolved::Unknown => None,
        };
        let entry = {
            let (mut world, real) = (sandbox.world(), self.real_now());
            let at = world.clock.at(real);
            world.journal.write(Arriving { at, real, parts, operation, body, note: Note::default() })
        };
        Some(Witness { sandbox, entry, sim: self.clone() })
    }

    /// Lets somebody answer in the sandbox of the caller, who is known by a key in `headers`, or by `otherwise`: `then` gets
    /// what it remembered (nothing at first, and after a reset) and the sandbox's time, and gives its answer and what is to
    /// be called back. `None` without a key.
    pub fn host<T: Default + Send + 'static, A>(
        &self,
        headers: &HeaderMap,
        otherwise: Option<&str>,
        owner: Option<&Owner>,
        then: impl FnOnce(&mut T, Timestamp) -> (A, Vec<Letter>),
    ) -> Option<A> {
        let id = SandboxId::of_caller(headers).or_else(|| otherwise.map(SandboxId::of))?;
        let sandbox = self.sandbox(id, owner);
        let (answer, count) = {
            let mut world = sandbox.world();
            let now = world.clock.at(self.real_now());
            let (answer, letters) = then(world.guest.state(), now);
            (answer, post(&mut world, letters, now))
        };
        self.parts().observer.observe(&Event::CallbacksPlanned { owner: &sandbox.owner, count });
        self.drive(&sandbox);
        Some(answer)
    }
}

/// Puts letters into the queue; gives their number.
fn post(world: &mut World, letters: Vec<Letter>, now: Timestamp) -> usize {
    world.guest.visits += 1;
    let task = TaskKey::derive(&[b"guest", &world.guest.visits.to_le_bytes()]);
    let mut count = 0;
    for (stage, letter) in (0..u8::MAX).zip(letters) {
        let due = Due { at: now + letter.after, task, stage, attempt: 0, duplicate: false };
        world.guest.letters.insert((task, stage), Arc::new(Posted { letter, brought: now }));
        world.due.push(std::cmp::Reverse(due));
        count += 1;
    }
    count
}
