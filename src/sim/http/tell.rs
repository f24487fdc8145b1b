//! Calls about tasks that are there, about their files, and about the catalogue itself.

use serde_json::Value;

use super::create::Started;
use super::scopes::{FoundScope, PlainScope, RefusalScope};
use super::{Answer, Call, Refused};
use crate::catalogue::{ErrorIx, Link, Lookup, Reply, Tells, Template, Upgrade, tell};
use crate::clock::Timestamp;
use crate::ids::Credits;
use crate::openapi;
use crate::sim::plan::{Ending, State};
use crate::sim::task::{Lineage, TaskKey};
use crate::sim::view::View;

/// What was found of the task that a call is about.
enum Looked {
    /// The task as of now.
    Task(Lineage, Timestamp),
    /// No such task, which the upstream does not call an error: the body says so.
    Nothing(Vec<u8>),
}

impl Call<'_> {
    /// The task that a call is about, as far as the catalogue lets it be seen.
    fn look_up(&self, lookup: &Lookup) -> Result<Looked, Refused> {
        let catalogue = self.sim.catalogue();
        let id = self.request.pointer(&lookup.at).and_then(Value::as_str).unwrap_or_default();
        if id.is_empty() {
            return Err(lookup.missing.into());
        }
        let (found, now) =
            self.with_world(|world, now| (TaskKey::parse(id).and_then(|key| world.lineage(key)), now));
        let found = found.filter(|lineage| {
            lookup.records.contains(&lineage.task.kind(catalogue).records)
                && !lineage.task.lifecycle(catalogue).inline
        });
        let Some(lineage) = found else {
            return match &lookup.unknown {
                Reply::Error(error) => Err((*error).into()),
                Reply::Body(body) => {
                    let scope = RefusalScope { request: &self.request, field: None, task: None };
                    Ok(Looked::Nothing(body.to_json(&scope)))
                }
            };
        };
        let plan = &lineage.task.plan;
        if let Some((_, error)) =
            lookup.older.filter(|(span, _)| now.saturating_since(plan.created()) > *span)
        {
            return Err(error.into());
        }
        let objection = match plan.state_at(now) {
            State::Running(_) | State::Ended(Ending::Stall) => lookup.unfinished,
            State::Ended(Ending::Fail(_)) => lookup.failed,
            State::Ended(Ending::Success { fallback }) => lookup.by_fallback.filter(|_| fallback),
        };
        objection.map_or(Ok(Looked::Task(lineage, now)), |error| Err(error.into()))
    }

    pub(super) fn details(&self, lookup: &Lookup, answer: &Template) -> Answer {
        self.check_schema()?;
        let (lineage, now) = match self.look_up(lookup)? {
            Looked::Task(lineage, now) => (lineage, now),
            Looked::Nothing(body) => return Ok(body),
        };
        let shown = self.replaced_record(&lineage, now).unwrap_or(lineage);
        Ok(self.render(answer, &shown, now))
    }

    /// The finished upgrade whose record stands in the place of the base task's own, if there is one.
    fn replaced_record(&self, base: &Lineage, now: Timestamp) -> Option<Lineage> {
        let catalogue = self.sim.catalogue();
        catalogue.replacing(base.task.operation).iter().find_map(|upgrade| {
            let key = base.key.upgraded(&catalogue.operation(*upgrade).id, 0);
            let upgrade = self.sandbox.world().lineage(key)?;
            let done = matches!(upgrade.task.plan.state_at(now), State::Ended(Ending::Success { .. }));
            done.then_some(upgrade)
        })
    }

    pub(super) fn upgrade(&self, upgrade: &Upgrade) -> Answer {
        self.check_request()?;
        let (base, now) = match self.look_up(&upgrade.lookup)? {
            Looked::Task(base, now) => (base, now),
            Looked::Nothing(body) => return Ok(body),
        };
        let index = self.request.pointer(&upgrade.index_at).map_or(Some(0), whole_number);
        let files =
            View::new(self.setting(now), &base).files().iter().filter(|file| file.slot == "video").count();
        let index = index.filter(|index| *index < files).ok_or(upgrade.bad_index)?;
        let key = base.key.upgraded(&self.operation.id, index);
        let started = self.start(None, &self.operation.completed(&self.request), Some((base.key, key)))?;
        let Started { lineage: made, now, made: fresh } = started;
        if fresh {
            return self.reply(&upgrade.started, &made, now);
        }
        match made.task.plan.state_at(now) {
            State::Running(_) | State::Ended(Ending::Stall) => self.reply(&upgrade.running, &made, now),
            State::Ended(Ending::Fail(error)) => Err(error.into()),
            State::Ended(Ending::Success { .. }) => Ok(self.render(&upgrade.done, &made, now)),
        }
    }

    /// Tells of the catalogue itself.
    pub(super) fn discover(&self, tells: Tells, unknown: ErrorIx, answer: &Template) -> Answer {
        self.check_schema()?;
        let now = self.with_world(|_, now| now);
        let catalogue = self.sim.catalogue();
        let mut found = tell(catalogue, tells, &self.request, now).ok_or(unknown)?;
        if tells == Tells::Model {
            let name = found["model"].as_str().unwrap_or_default();
            found["openapi"] = openapi::describe_model(catalogue, name).unwrap_or_default();
        }
        Ok(answer.to_json(&FoundScope(&found)))
    }

    pub(super) fn link(&self, link: &Link, answer: &Template) -> Answer {
        self.check_schema()?;
        let task = match link.lookup.as_ref().map(|lookup| self.look_up(lookup)).transpose()? {
            None => None,
            Some(Looked::Task(lineage, _)) => Some(lineage.key),
            Some(Looked::Nothing(body)) => return Ok(body),
        };
        let url = self.request.pointer(&link.url_at).and_then(Value::as_str).unwrap_or_default();
        let now = self.with_world(|_, now| now);
        if !self.sim.gave_out(&self.sandbox, url, task, now) {
            return Err(link.foreign.into());
        }
        let link = self.sim.presign(url, now);
        Ok(answer.to_json(&PlainScope { balance: Credits::ZERO, link: Some(link), request: &self.request }))
    }
}

/// A number from 0, be it written as one or as text.
fn whole_number(value: &Value) -> Option<usize> {
    value.as_u64().and_then(|number| usize::try_from(number).ok()).or_else(|| value.as_str()?.parse().ok())
}
