//! What a family's file says of one operation, checked: what it does, the task that it starts, how it finds one.
//!
//! Uploads, chats and a task's files and price have files of their own beside this one.

use std::collections::HashMap;

use serde_json::Value;

use super::paths::{Named, of_any_task, of_create, of_link, of_plain, of_request, of_task};
use super::{Context, days};
use crate::catalogue::raw::{
    RawCallback, RawConsequence, RawEnding, RawFallback, RawFill, RawFollows, RawLifecycle, RawLink,
    RawLookup, RawModelChoice, RawOperation, RawPhase, RawTask, RawUnknown, RawUpgrade, RawWithin,
};
use crate::catalogue::{
    Behaviour, CallbackKind, Consequence, EndState, Fallback, Fill, Follows, Lifecycle, Link, Lookup,
    ModelChoice, Operation, Phase, Reply, Schema, TaskKind, Upgrade, Within,
};

impl Context<'_> {
    pub(super) fn operation(
        &mut self,
        raw: RawOperation,
        family: usize,
        lifecycles: &HashMap<String, Lifecycle>,
    ) -> Operation {
        let method = raw.method.parse().unwrap_or_else(|_| {
            self.problem("method", format!("\"{}\" is no HTTP method", raw.method));
            http::Method::GET
        });
        if raw.request.is_some() && raw.query.is_some() {
            self.problem("request", "an operation has a request or a query, not both".into());
        }
        let by_query = raw.query.is_some();
        let request =
            raw.request.as_ref().or(raw.query.as_ref()).map(|schema| self.schema("request", schema));
        Operation {
            family,
            class: raw.class,
            method,
            path: raw.path.clone(),
            also: raw.also.clone(),
            summary: raw.summary.clone(),
            evidence: raw.evidence.clone(),
            notes: raw.notes.clone(),
            by_query,
            open: raw.open,
            example: raw.example.clone(),
            refusals: self.refusals(&raw.refusals),
            fill: raw.fill.iter().map(fill).collect(),
            behaviour: self.behaviour(&raw, lifecycles),
            ids: self.ids(&raw.ids, request.as_ref()),
            request,
            rules: self.rules(raw.rules),
            id: raw.id,
        }
    }

    fn behaviour(&mut self, raw: &RawOperation, lifecycles: &HashMap<String, Lifecycle>) -> Behaviour {
        let answer = raw.answer.as_ref().map(|answer| self.template("answer", answer));
        let task = raw.task.as_ref().map(|task| self.task(task, lifecycles));
        let lookup = raw.lookup.as_ref().map(|lookup| self.lookup(lookup));
        let beside = (&raw.upgrade, &raw.link, &raw.discovery, &raw.upload, &raw.chat);
        match (task, lookup, beside, answer) {
            (Some(task), None, (None, None, None, None, None), Some(answer)) => {
                self.must_lead("answer", &answer, |path| of_create(path, Named::from(&task)));
                Behaviour::Create(Box::new(task), answer)
            }
            (None, Some(lookup), (None, None, None, None, None), Some(answer)) => {
                self.must_lead("answer", &answer, of_any_task);
                Behaviour::Details(lookup, answer)
            }
            (Some(task), Some(lookup), (Some(upgrade), None, None, None, None), None) => {
                Behaviour::Upgrade(Box::new(self.upgrade(upgrade, task, lookup)))
            }
            (None, lookup, (None, Some(link), None, None, None), Some(answer)) => {
                self.must_lead("answer", &answer, of_link);
                Behaviour::Link(self.link(link, lookup), answer)
            }
            (None, None, (None, None, Some(discovery), None, None), Some(answer)) => {
                let unknown = self.error("discovery.unknown", &discovery.unknown);
                self.must_lead("answer", &answer, |path| discovery.tells.knows(path));
                Behaviour::Discovery(discovery.tells, unknown, answer)
            }
            (None, None, (None, None, None, Some(upload), None), Some(answer)) => {
                Behaviour::Upload(Box::new(self.upload(upload, &answer)), answer)
            }
            (None, None, (None, None, None, None, Some(chat)), Some(answer)) => {
                Behaviour::Chat(Box::new(self.chat(chat, raw, &answer)), answer)
            }
            (None, None, (None, None, None, None, None), Some(answer)) => {
                self.must_lead("answer", &answer, of_plain);
                Behaviour::Plain(answer)
            }
            _ => {
                let what = "an operation has task and answer, lookup and answer, task, lookup and upgrade, \
                            link and answer (perhaps with lookup), discovery and answer, upload and answer, \
                            chat and answer, or an answer alone";
                self.problem("task", what.into());
                Behaviour::Plain(self.template("answer", &Value::Null))
            }
        }
    }

    fn link(&mut self, raw: &RawLink, lookup: Option<Lookup>) -> Link {
        Link { url_at: raw.url_at.clone(), foreign: self.error("link.foreign", &raw.foreign), lookup }
    }

    fn task(&mut self, raw: &RawTask, lifecycles: &HashMap<String, Lifecycle>) -> TaskKind {
        let lifecycle = raw.lifecycle.as_ref().and_then(|name| {
            let found = lifecycles.get(name).cloned();
            if found.is_none() {
                self.problem("task.lifecycle", format!("the family has no lifecycle \"{name}\""));
            }
            found
        });
        let model = match &raw.model {
            RawModelChoice::Name(name) => ModelChoice::Name(name.clone()),
            RawModelChoice::At(at) => ModelChoice::At(at.clone()),
            RawModelChoice::Market { at, input, unknown } => ModelChoice::Market {
                at: at.clone(),
                input: input.clone(),
                unknown: self.error("task.model.unknown", unknown),
            },
        };
        if lifecycle.is_none() && !matches!(model, ModelChoice::Market { .. }) {
            self.problem("task.lifecycle", "is missing".into());
        }
        let task = TaskKind {
            model,
            lifecycle,
            records: raw.records.clone(),
            record: self.template("task.record", &raw.record),
            price: raw.price.as_ref().map(|price| self.price(price)),
            draws: raw.draws.clone().into_iter().collect(),
            results: self.results(&raw.results),
            follows: raw.follows.as_ref().map(|follows| self.follows(follows)),
            fallback: raw.fallback.as_ref().map(|fallback| self.fallback(fallback)),
            callbacks: raw.callbacks.iter().map(|callback| self.callback(callback)).collect(),
            callback_at: raw.callback_at.clone().unwrap_or_else(|| "/callBackUrl".into()),
            fails: self.rules(raw.fails.clone()),
        };
        let named = Named::from(&task);
        self.check_files(named);
        self.must_lead("task.record", &task.record, |path| of_task(path, named));
        for callback in &task.callbacks {
            self.must_lead("task.callbacks", &callback.body, |path| of_task(path, named));
        }
        task
    }

    fn lookup(&mut self, raw: &RawLookup) -> Lookup {
        let mut optional =
            |at: &str, error: &Option<String>| error.as_ref().map(|error| self.error(at, error));
        Lookup {
            at: raw.at.clone(),
            records: raw.records.clone(),
            unfinished: optional("lookup.unfinished", &raw.unfinished),
            failed: optional("lookup.failed", &raw.failed),
            by_fallback: optional("lookup.by_fallback", &raw.by_fallback),
            older: raw
                .older
                .as_ref()
                .map(|older| (days(older.days), self.error("lookup.older", &older.error))),
            missing: self.error("lookup.missing", &raw.missing),
            unknown: self.reply("lookup.unknown", &raw.unknown, of_request),
        }
    }

    fn upgrade(&mut self, raw: &RawUpgrade, task: TaskKind, lookup: Lookup) -> Upgrade {
        let known = |path: &[&str]| of_task(path, Named::from(&task));
        let done = self.template("upgrade.done", &raw.done);
        self.must_lead("upgrade.done", &done, known);
        Upgrade {
            started: self.reply("upgrade.started", &raw.started, known),
            running: self.reply("upgrade.running", &raw.running, known),
            done,
            lookup,
            index_at: raw.index_at.clone(),
            bad_index: self.error("upgrade.bad_index", &raw.bad_index),
            task,
            replaces_record: raw.replaces_record,
        }
    }

    pub(super) fn follows(&mut self, raw: &RawFollows) -> Follows {
        if raw.at.is_none() && raw.id_at.is_none() {
            self.problem("follows", "needs at or id_at".into());
        }
        let mut optional = |at: &str, raw: &Option<RawConsequence>| {
            raw.as_ref().map(|raw| self.consequence(&format!("follows.{at}"), raw))
        };
        Follows {
            at: raw.at.clone(),
            id_at: raw.id_at.clone(),
            records: raw.records.clone(),
            has: raw.has.clone(),
            models: raw.models.clone(),
            unfinished: optional("unfinished", &raw.unfinished),
            failed: optional("failed", &raw.failed),
            succeeded: optional("succeeded", &raw.succeeded),
            once: raw.once.as_ref().map(|error| self.error("follows.once", error)),
            unknown: self.consequence("follows.unknown", &raw.unknown),
            after: raw
                .after
                .iter()
                .map(|after| (after.operation.clone(), self.consequence("follows.after", &after.then)))
                .collect(),
            within: raw.within.iter().filter_map(|raw| self.within(raw)).collect(),
        }
    }

    fn within(&mut self, raw: &RawWithin) -> Option<Within> {
        if raw.of.is_empty() {
            self.problem("follows.within", "of: name the file whose length counts".into());
        }
        let value = self.pick("follows.within.value", &raw.value)?;
        let error = self.error("follows.within.error", &raw.error);
        Some(Within { value, of: raw.of.clone(), share: raw.share, below: raw.below, error })
    }

    fn fallback(&mut self, raw: &RawFallback) -> Fallback {
        self.must_have_source("fallback", &raw.source);
        Fallback {
            errors: raw.errors.iter().map(|error| self.error("fallback.errors", error)).collect(),
            default_error: self.error("fallback.default_error", &raw.default_error),
            allowed_when: Schema::new(raw.allowed_when.clone()),
        }
    }

    fn callback(&mut self, raw: &RawCallback) -> CallbackKind {
        CallbackKind { on: raw.on.clone(), body: self.template("callbacks", &raw.body) }
    }

    /// A body in the place of an error may name what is `known`.
    fn reply(&mut self, at: &str, raw: &RawUnknown, known: impl Fn(&[&str]) -> bool) -> Reply {
        match raw {
            RawUnknown::Error(error) => Reply::Error(self.error(at, error)),
            RawUnknown::Body(body) => {
                let body = self.template(at, body);
                self.must_lead(at, &body, known);
                Reply::Body(body)
            }
        }
    }

    fn consequence(&mut self, at: &str, raw: &RawConsequence) -> Consequence {
        match raw {
            RawConsequence::Reject(error) => Consequence::Reject(self.error(at, error)),
            RawConsequence::Fail(error) => Consequence::Fail(self.error(at, error)),
        }
    }

    pub(super) fn lifecycle(&mut self, name: &str, raw: &RawLifecycle) -> Lifecycle {
        let at = format!("lifecycle {name}");
        self.must_have_source(&at, &raw.source);
        if raw.phases.is_empty() || raw.phases.len() > Lifecycle::MOST_PHASES {
            self.problem(
                &at,
                format!("has {} phases, not 1 to {}", raw.phases.len(), Lifecycle::MOST_PHASES),
            );
        }
        for ending in ["success", "fail"] {
            if !raw.endings.contains_key(ending) {
                self.problem(&at, format!("has no ending \"{ending}\""));
            }
        }
        let phase = |raw: &RawPhase| Phase { state: raw.state.clone(), stay: (raw.ms[0], raw.ms[1]) };
        if raw.phases.iter().any(|phase| phase.ms[0] > phase.ms[1]) {
            self.problem(&at, "a phase's shortest stay is above its longest".into());
        }
        let ending = |raw: &RawEnding| EndState {
            state: raw.state.clone(),
            with_result: raw.with_result,
            moment: raw.when,
        };
        Lifecycle {
            phases: raw.phases.iter().map(phase).collect(),
            endings: raw.endings.iter().map(|(name, raw)| (name.clone(), ending(raw))).collect(),
            inline: raw.inline,
            source: raw.source.clone(),
        }
    }
}

fn fill(raw: &RawFill) -> Fill {
    Fill {
        when: raw.when.clone().map(Schema::new),
        rename: raw.rename.clone().into_iter().collect(),
        set: raw.set.clone().into_iter().collect(),
    }
}
