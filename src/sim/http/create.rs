//! From an accepted request to a task: the one it goes on from, its price, its plan, its callbacks.

use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

use super::scopes::AnswerScope;
use super::{Call, Refused};
use crate::catalogue::{ErrorIx, Follows, ModelChoice, ModelIx, Moment, Template, Within};
use crate::clock::{Draw, Timestamp};
use crate::sim::follow::{Followed, follow};
use crate::sim::outcome::failed_with;
use crate::sim::plan::{Ending, Pace, Plan, Tempo};
use crate::sim::sandbox::World;
use crate::sim::task::{Lineage, Shape, Task, TaskKey, Worth, fingerprint};
use crate::sim::view::{View, ids, shapes};
use crate::sim::{Event, callback};

/// A task that a call stands for.
pub(super) struct Started {
    pub(super) lineage: Lineage,
    pub(super) now: Timestamp,
    /// By this very call.
    pub(super) made: bool,
}

/// The request of a task, written down before the sandbox is locked.
struct Written<'a> {
    /// Completed with what the catalogue fills in.
    input: &'a Value,
    /// What its id is made from.
    print: String,
    /// The input as compact JSON.
    text: Box<str>,
}

impl Call<'_> {
    /// Makes the task that a create asks for; gives the answer, and the task.
    pub(super) fn create(&self, answer: &Template) -> Result<(Vec<u8>, TaskKey), Refused> {
        let model = self.check_request()?;
        let input = self.operation.completed(&self.request);
        let Started { lineage, now, .. } = self.start(model, &input, None)?;
        let catalogue = self.sim.catalogue();
        if let (true, Ending::Fail(error)) =
            (catalogue.lifecycle(self.index, model).inline, lineage.task.plan.ending())
        {
            return Err(error.into());
        }
        let own = model.and_then(|model| catalogue.model(model).answer.as_ref());
        let balance = self.with_world(|world, _| world.balance());
        let scope = AnswerScope { view: &View::new(self.setting(now), &lineage), balance };
        Ok((own.unwrap_or(answer).to_json(&scope), lineage.key))
    }

    /// Makes a task, pays for it, plans its callbacks. `upgrade_of` names the base task and the key of an upgrade, which
    /// is made once: the one that is there already is given back as such.
    pub(super) fn start(
        &self,
        model: Option<ModelIx>,
        input: &Value,
        upgrade_of: Option<(TaskKey, TaskKey)>,
    ) -> Result<Started, Refused> {
        let kind = self.operation.task().expect("only tasks are started");
        let written = Written {
            print: fingerprint(&self.request, &kind.callback_at),
            text: input.to_string().into(),
            input,
        };
        let started = {
            let mut world = self.sandbox.world();
            let now = world.clock.at(self.sim.real_now());
            let there = upgrade_of.and_then(|(_, key)| world.lineage(key));
            match there {
                Some(lineage) => return Ok(Started { lineage, now, made: false }),
                None => self.start_in(&mut world, now, model, written, upgrade_of)?,
            }
        };
        let (lineage, callbacks, forgotten, now) = started;
        self.sim.drive(&self.sandbox);
        let (observer, owner) = (&self.sim.parts().observer, &*self.sandbox.owner);
        let model = lineage.task.model_label(self.sim.catalogue());
        let credits = lineage.task.price;
        observer.observe(&Event::TaskCreated { owner, operation: &self.operation.id, model, credits });
        observer.observe(&Event::CallbacksPlanned { owner, count: callbacks });
        observer.observe(&Event::TasksForgotten { owner, running: forgotten, tasks: &[], callbacks: 0 });
        Ok(Started { lineage, now, made: true })
    }

    fn start_in(
        &self,
        world: &mut World,
        now: Timestamp,
        model: Option<ModelIx>,
        Written { input, print, text }: Written<'_>,
        upgrade_of: Option<(TaskKey, TaskKey)>,
    ) -> Result<(Lineage, usize, usize, Timestamp), Refused> {
        let catalogue = self.sim.catalogue();
        let (most, span, too_many) = catalogue.shared().quota;
        if self.settings.emulate_quota && world.exceeds_quota(most, span, now) {
            return Err(too_many.into());
        }
        let followed = match upgrade_of {
            Some((base, _)) => Followed { task: Some(base), ..Followed::default() },
            None => self.followed(world, now, model, input)?,
        };
        let inherits = followed
            .task
            .and_then(|parent| world.lineage(parent))
            .map(|lineage| shapes(&View::new(self.setting(now), &lineage)))
            .unwrap_or_default();
        self.keep_within(model, input, &followed, &inherits)?;
        let price = catalogue.price_of(self.index, model, input).unwrap_or_default();
        if world.balance() < price {
            return Err(catalogue.shared().insufficient.into());
        }
        let key = upgrade_of
            .map_or_else(|| world.new_key(self.sandbox.id, &self.operation.id, &print), |(_, key)| key);
        let plan = self.plan(key, now, model, input, followed.fate)?;
        let task = Task {
            operation: self.index,
            model,
            worth: Worth::of(catalogue, catalogue.lifecycle(self.index, model), plan.ending()),
            plan,
            input: text,
            origin: Arc::clone(&self.origin),
            parent: followed.task,
            chosen: followed.chosen,
            ids: ids(catalogue, self.index, model, key),
            price,
            callbacks: self.wish.callbacks,
            result: self.wish.result.clone(),
            inherits,
        };
        let callbacks = callback::plan(world, self.sim, key, &task);
        let forgotten = world.insert(key, task, now);
        if self.follows(model).is_some_and(|follows| follows.once.is_some()) {
            world.note_once(key);
        }
        let lineage = world.lineage(key).expect("it was put in a moment ago");
        Ok((lineage, callbacks, forgotten, now))
    }

    fn follows(&self, model: Option<ModelIx>) -> Option<&Follows> {
        match model {
            Some(model) => self.sim.catalogue().model(model).follows.as_ref(),
            None => self.operation.task().and_then(|task| task.follows.as_ref()),
        }
    }

    /// The task that this one goes on from.
    fn followed(
        &self,
        world: &World,
        now: Timestamp,
        model: Option<ModelIx>,
        input: &Value,
    ) -> Result<Followed, Refused> {
        let Some(follows) = self.follows(model) else { return Ok(Followed::default()) };
        let input = self.parameters(input);
        Ok(follow(self.sim.catalogue(), world, now, (self.index, model), follows, input)?)
    }

    /// The part of `input` in which the model's own parameters stand.
    fn parameters<'v>(&self, input: &'v Value) -> &'v Value {
        match self.operation.task().map(|task| &task.model) {
            Some(ModelChoice::Market { input: field, .. }) => input.get(field).unwrap_or(&Value::Null),
            _ => input,
        }
    }

    /// Refuses a place in the other task's file that is beyond its end. `shapes` are the files of that task; one that
    /// will fail because of it is not looked at.
    fn keep_within(
        &self,
        model: Option<ModelIx>,
        input: &Value,
        followed: &Followed,
        shapes: &[Shape],
    ) -> Result<(), Refused> {
        let Some(follows) = self.follows(model).filter(|_| followed.fate.is_none()) else { return Ok(()) };
        let beyond = |within: &&Within| {
            let file = shapes.iter().find(|shape| within.file(followed.chosen) == Some(&*shape.slot));
            file.is_some_and(|file| within.refuses(self.parameters(input), file.duration.as_secs_f64()))
        };
        follows.within.iter().find(beyond).map_or(Ok(()), |within| Err(within.error.into()))
    }

    fn plan(
        &self,
        key: TaskKey,
        now: Timestamp,
        model: Option<ModelIx>,
        input: &Value,
        fate: Option<ErrorIx>,
    ) -> Result<Plan, Refused> {
        let catalogue = self.sim.catalogue();
        let mut draw = Draw::new(&[key.bytes(), b"plan"]);
        let ending = match fate {
            Some(error) => Ending::Fail(error),
            None => self.ending(input, key)?,
        };
        let lifecycle = catalogue.lifecycle(self.index, model);
        if lifecycle.inline && ending == Ending::Stall {
            return Err(Refused::BadWish(format!("stall: {} answers at once", self.operation.id)));
        }
        let moment = match ending {
            Ending::Fail(error) => {
                lifecycle.ending(&catalogue.error(error).ending).map_or(Moment::Late, |end| end.moment)
            }
            _ => Moment::Late,
        };
        let tempo = if lifecycle.inline {
            Tempo { pace: Pace::Instant, exactly: None }
        } else {
            // What is to be told before the create is answered has been done by then.
            let at_once = self.wish.callbacks.early.then_some(Duration::ZERO);
            Tempo { pace: self.settings.pace, exactly: at_once.or(self.wish.delay) }
        };
        Ok(Plan::decide(lifecycle, now, ending, moment, tempo, &mut draw))
    }

    /// How the task ends: as wished, as its request must, by chance, or well.
    fn ending(&self, input: &Value, key: TaskKey) -> Result<Ending, Refused> {
        let catalogue = self.sim.catalogue();
        if let Some(wished) = &self.wish.ending {
            return wished.ending(catalogue, self.index, input).map_err(Refused::BadWish);
        }
        let failed = |error| failed_with(catalogue, self.index, error, input);
        let kind = self.operation.task().expect("only tasks end");
        let bound_to = kind.fails.iter().find(|rule| rule.refuses(input)).map(|rule| rule.error);
        Ok(bound_to.or_else(|| self.chance_failure(key)).map_or(Ending::Success { fallback: false }, failed))
    }

    /// The error that chance lets the task fail with, if it does.
    fn chance_failure(&self, key: TaskKey) -> Option<ErrorIx> {
        let mut draw = Draw::new(&[key.bytes(), b"failure"]);
        if draw.fraction() >= self.settings.failure_rate {
            return None;
        }
        let errors: Vec<_> =
            self.sim.catalogue().errors_of(self.index).filter(|(_, error)| error.fails).collect();
        let last = (errors.len() as u64).checked_sub(1)?;
        usize::try_from(draw.integer(0, last))
            .ok()
            .and_then(|index| errors.get(index))
            .map(|(error, _)| *error)
    }
}
