//! Which task another one goes on from, and what comes of that task's state.

use serde_json::Value;

use super::plan::{Ending, State};
use super::sandbox::World;
use super::task::{Task, TaskKey};
use crate::catalogue::{Catalogue, Consequence, ErrorIx, Follows, ModelIx, OperationIx};
use crate::clock::Timestamp;

/// The task that a new one goes on from.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Followed {
    /// `None` where the request names none, or one that is not known and need not be.
    pub(super) task: Option<TaskKey>,
    /// Which of the other's ids was named, by position.
    pub(super) chosen: u8,
    /// What the new task fails with because of the other.
    pub(super) fate: Option<ErrorIx>,
}

/// Why there shall be no new task.
#[derive(Clone, Copy, Debug)]
pub(super) struct Objection {
    pub(super) error: ErrorIx,
    /// The task that is there already, where that is the reason.
    pub(super) task: Option<TaskKey>,
}

/// What `follows` makes of the ids in `input`, the parameters of a create of that operation and model.
pub(super) fn follow(
    catalogue: &Catalogue,
    world: &World,
    now: Timestamp,
    (operation, model): (OperationIx, Option<ModelIx>),
    follows: &Follows,
    input: &Value,
) -> Result<Followed, Objection> {
    let named =
        |pointer: &Option<String>| pointer.as_ref().and_then(|at| input.pointer(at)).and_then(Value::as_str);
    let (task_id, drawn_id) = (named(&follows.at), named(&follows.id_at));
    if task_id.is_none() && drawn_id.is_none() {
        return Ok(Followed::default());
    }
    let Some((key, chosen)) = find(world, task_id, drawn_id) else {
        return decide(Followed::default(), Some(follows.unknown));
    };
    let task = &world.tasks[&key];
    if !fits(catalogue, task, follows) {
        return decide(Followed::default(), Some(follows.unknown));
    }
    let followed = Followed { task: Some(key), chosen, fate: None };
    let followed = decide(followed, circumstance(world, now, key, task, follows))?;
    match (follows.once, world.made_once(key, operation, model, chosen)) {
        (Some(error), Some(there)) => Err(Objection { error, task: Some(there) }),
        _ => Ok(followed),
    }
}

/// The task by its own id, by one that it drew, or by both, which must agree.
fn find(world: &World, task_id: Option<&str>, drawn_id: Option<&str>) -> Option<(TaskKey, u8)> {
    let by_task = task_id.map(|id| TaskKey::parse(id).filter(|key| world.tasks.contains_key(key)));
    let by_drawn = drawn_id.map(|id| world.drawn(id));
    match (by_task, by_drawn) {
        (Some(by_task), None) => by_task.map(|key| (key, 0)),
        (None, Some(by_drawn)) => by_drawn,
        (Some(by_task), Some(by_drawn)) => by_drawn.filter(|(key, _)| by_task == Some(*key)),
        (None, None) => None,
    }
}

fn fits(catalogue: &Catalogue, task: &Task, follows: &Follows) -> bool {
    let makes = |slot: &String| task.results(catalogue).iter().any(|(name, _)| name == slot);
    let of = |model: ModelIx| follows.models.contains(&catalogue.model(model).name);
    follows.records.contains(&task.kind(catalogue).records)
        && !task.lifecycle(catalogue).inline
        && follows.has.as_ref().is_none_or(makes)
        && (follows.models.is_empty() || task.model.is_some_and(of))
}

/// What the state of the other task brings with it.
fn circumstance(
    world: &World,
    now: Timestamp,
    key: TaskKey,
    task: &Task,
    follows: &Follows,
) -> Option<Consequence> {
    match task.plan.state_at(now) {
        State::Running(_) | State::Ended(Ending::Stall) => follows.unfinished,
        State::Ended(Ending::Fail(_)) => follows.failed,
        State::Ended(Ending::Success { .. }) => {
            let made = |operation: &str| world.tasks.contains_key(&key.upgraded(operation, 0));
            let after = follows.after.iter().find(|(operation, _)| made(operation)).map(|(_, then)| *then);
            after.or(follows.succeeded)
        }
    }
}

fn decide(followed: Followed, consequence: Option<Consequence>) -> Result<Followed, Objection> {
    match consequence {
        None => Ok(followed),
        Some(Consequence::Fail(error)) => Ok(Followed { fate: Some(error), ..followed }),
        Some(Consequence::Reject(error)) => Err(Objection { error, task: None }),
    }
}
