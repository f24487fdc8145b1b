//! A whole sandbox as one JSON document, and back.
//!
//! What the catalogue numbers is written by its name, so that a snapshot outlives changes of the catalogue. Pure data: files
//! of uploads are brought in by whoever can wait for a disk.

use std::cmp::Reverse;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::inbox::SavedBox;
use super::journal::SavedCall;
use super::log::SavedAttempt;
use super::outcome::{self, CallbackFaults, Wish};
use super::plan::{Ending, Plan};
use super::rules::Rules;
use super::sandbox::{Kept, World};
use super::settings::Settings;
use super::task::{Due, Shape, Task, TaskKey, Worth};
use super::time::VirtualClock;
use crate::catalogue::{Catalogue, ErrorIx, Lifecycle, OperationIx};
use crate::clock::Timestamp;
use crate::ids::Credits;

/// What the form of the document is called; another number is another form.
const FORM: u32 = 1;

/// The document.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Snapshot {
    #[serde(rename = "kiegate_snapshot")]
    form: u32,
    settings: Map<String, Value>,
    clock: SavedClock,
    credits: Credits,
    tasks: Vec<SavedTask>,
    /// How often which request came, by its print in hexadecimal.
    occurrences: Vec<(String, u32)>,
    due: Vec<SavedDue>,
    recent_creates: Vec<Timestamp>,
    fetched: Vec<String>,
    rules: Value,
    requests: Vec<SavedCall>,
    requests_before: u64,
    callbacks: Vec<SavedAttempt>,
    inbox: Vec<SavedBox>,
    upload_names: u64,
    pub(super) uploads: Vec<SavedUpload>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SavedClock {
    now: Timestamp,
    rate: f64,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SavedTask {
    id: String,
    operation: String,
    model: Option<String>,
    created: Timestamp,
    /// Milliseconds in each phase.
    stays: Vec<u32>,
    outcome: String,
    /// Which of the errors of that name.
    code: Option<u16>,
    input: Value,
    origin: String,
    parent: Option<String>,
    chosen: u8,
    ids: Vec<String>,
    credits: Credits,
    callbacks: Vec<String>,
    result: Option<Map<String, Value>>,
    inherits: Vec<SavedShape>,
    /// It is the only one of its kind that is made of its parent.
    once: bool,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SavedShape {
    name: String,
    width: u32,
    height: u32,
    duration_ms: u64,
}

/// A callback that is to be sent.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SavedDue {
    pub(super) at: Timestamp,
    pub(super) task: String,
    pub(super) stage: u8,
    pub(super) attempt: u8,
    pub(super) duplicate: bool,
}

/// An uploaded file.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SavedUpload {
    pub(super) path: String,
    pub(super) content_type: String,
    pub(super) until: Timestamp,
    pub(super) base64: String,
}

/// Bytes in JSON: text where they are some.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Blob {
    Text(String),
    Base64(String),
}

impl Blob {
    pub(super) fn of(bytes: &[u8]) -> Self {
        match std::str::from_utf8(bytes) {
            Ok(text) => Self::Text(text.to_owned()),
            Err(_) => Self::Base64(STANDARD.encode(bytes)),
        }
    }

    pub(super) fn bytes(self) -> Result<Bytes, String> {
        match self {
            Self::Text(text) => Ok(text.into()),
            Self::Base64(text) => {
                STANDARD.decode(text).map(Into::into).map_err(|error| format!("base64: {error}"))
            }
        }
    }
}

impl SavedDue {
    pub(super) fn of(due: Due) -> Self {
        let Due { at, task, stage, attempt, duplicate } = due;
        Self { at, task: task.to_string(), stage, attempt, duplicate }
    }

    pub(super) fn load(&self) -> Result<Due, String> {
        let task = key(&self.task)?;
        let Self { at, stage, attempt, duplicate, .. } = *self;
        Ok(Due { at, task, stage, attempt, duplicate })
    }
}

fn key(id: &str) -> Result<TaskKey, String> {
    TaskKey::parse(id).ok_or_else(|| format!("\"{id}\" is no id of a task"))
}

impl Snapshot {
    /// Of a `world` that has been brought up to `now`, its uploads aside.
    pub(super) fn take(catalogue: &Catalogue, world: &World, now: Timestamp) -> Self {
        let Kept { occurrences, once } = world.kept();
        let settings = match world.settings.to_json() {
            Value::Object(settings) => settings,
            _ => Map::new(),
        };
        let mut due: Vec<Due> = world.due.iter().map(|Reverse(due)| *due).collect();
        due.sort_unstable();
        let mut fetched: Vec<String> = world.fetched.iter().map(ToString::to_string).collect();
        fetched.sort_unstable();
        let task =
            |(key, task): (TaskKey, &Arc<Task>)| SavedTask::of(catalogue, key, task, once.contains(&key));
        let (requests_before, requests) = world.journal.save(catalogue);
        Self {
            form: FORM,
            settings,
            clock: SavedClock { now, rate: world.clock.rate() },
            credits: world.balance(),
            tasks: world.in_order().map(task).collect(),
            occurrences: occurrences
                .into_iter()
                .map(|(print, count)| (format!("{print:016x}"), count))
                .collect(),
            due: due.into_iter().map(SavedDue::of).collect(),
            recent_creates: world.recent_creates.iter().copied().collect(),
            fetched,
            rules: world.rules.dump(),
            requests,
            requests_before,
            callbacks: world.attempts.entries.iter().map(|attempt| SavedAttempt::of(attempt)).collect(),
            inbox: world.inbox.save(),
            upload_names: world.shelf.names(),
            uploads: Vec::new(),
        }
    }

    /// The world that it was taken of, at the real time `real`, its uploads aside; `fresh` is what an empty one is.
    ///
    /// # Errors
    /// What does not fit this catalogue, or is no snapshot: where it stands and what is wrong.
    pub(super) fn restore(
        self,
        catalogue: &Catalogue,
        fresh: World,
        real: Timestamp,
    ) -> Result<World, String> {
        if self.form != FORM {
            return Err(format!("kiegate_snapshot: form {} is not known; this is form {FORM}", self.form));
        }
        let mut world = fresh;
        world.settings =
            Settings::default().changed(&self.settings).map_err(|what| format!("settings.{what}"))?;
        world.journal.bound(world.settings.journal);
        world.clock = VirtualClock::real(real);
        world.clock.set(self.clock.now, real);
        if !(0.0..=1_000_000.0).contains(&self.clock.rate) {
            return Err(format!("clock.rate: {} is not a number from 0 to 1000000", self.clock.rate));
        }
        world.clock.set_rate(self.clock.rate, real);
        for (index, saved) in self.tasks.into_iter().enumerate() {
            let once = saved.once;
            let (key, task) = saved.load(catalogue).map_err(|what| format!("tasks.{index}: {what}"))?;
            world.put_back(key, task, self.clock.now, once);
        }
        // Tasks that are put back are not paid again.
        world.set_balance(self.credits);
        for (print, count) in self.occurrences {
            let print = u64::from_str_radix(&print, 16)
                .map_err(|_| format!("occurrences: \"{print}\" is no print"))?;
            world.set_occurrences(print, count);
        }
        for (index, due) in self.due.iter().enumerate() {
            let due = due.load().map_err(|what| format!("due.{index}: {what}"))?;
            let stages = world.tasks.get(&due.task).map(|task| task.kind(catalogue).callbacks.len());
            if stages.is_none_or(|stages| usize::from(due.stage) >= stages) {
                return Err(format!("due.{index}: there is no such callback of task {}", due.task));
            }
            world.due.push(Reverse(due));
        }
        world.recent_creates = self.recent_creates.into();
        for id in &self.fetched {
            world.fetched.insert(key(id).map_err(|what| format!("fetched: {what}"))?);
        }
        world.rules = Rules::restore(catalogue, &self.rules).map_err(|what| format!("rules: {what}"))?;
        world
            .journal
            .load(catalogue, self.requests_before, self.requests)
            .map_err(|what| format!("requests.{what}"))?;
        for (index, attempt) in self.callbacks.into_iter().enumerate() {
            let (attempt, size) = attempt.load().map_err(|what| format!("callbacks.{index}: {what}"))?;
            world.attempts.push(attempt, size);
        }
        world.inbox.load(self.inbox).map_err(|what| format!("inbox.{what}"))?;
        world.shelf.set_names(self.upload_names);
        Ok(world)
    }
}

impl SavedTask {
    fn of(catalogue: &Catalogue, key: TaskKey, task: &Task, once: bool) -> Self {
        let code = match task.plan.ending() {
            Ending::Fail(error) => Some(catalogue.error(error).code),
            _ => None,
        };
        let shape = |shape: &Shape| SavedShape {
            name: shape.slot.to_string(),
            width: shape.width,
            height: shape.height,
            duration_ms: u64::try_from(shape.duration.as_millis()).unwrap_or(u64::MAX),
        };
        Self {
            id: key.to_string(),
            operation: catalogue.operation(task.operation).id.clone(),
            model: task.model.map(|model| catalogue.model(model).name.clone()),
            created: task.plan.created(),
            stays: task.plan.stays().to_vec(),
            outcome: outcome::name(catalogue, task.plan.ending()),
            code,
            input: serde_json::from_str(&task.input).unwrap_or_default(),
            origin: task.origin.to_string(),
            parent: task.parent.map(|parent| parent.to_string()),
            chosen: task.chosen,
            ids: task.ids.iter().map(ToString::to_string).collect(),
            credits: task.price,
            callbacks: task.callbacks.names(),
            result: task.result.as_deref().cloned(),
            inherits: task.inherits.iter().map(shape).collect(),
            once,
        }
    }

    fn load(self, catalogue: &Catalogue) -> Result<(TaskKey, Task), String> {
        let operation = catalogue.operation_by_id(&self.operation);
        let operation = operation.filter(|index| catalogue.operation(*index).task().is_some());
        let operation =
            operation.ok_or_else(|| format!("operation: \"{}\" makes no tasks here", self.operation))?;
        let model = self.model.as_deref().map(|name| {
            catalogue
                .model_by_name(operation, name)
                .ok_or_else(|| format!("model: \"{name}\" is not known here"))
        });
        let model = model.transpose()?;
        if model.is_none()
            && catalogue.operation(operation).task().is_none_or(|task| task.lifecycle.is_none())
        {
            return Err(format!("model: \"{}\" makes tasks of models only", self.operation));
        }
        let stays = <[u32; Lifecycle::MOST_PHASES]>::try_from(self.stays.as_slice())
            .map_err(|_| format!("stays: there are {}", Lifecycle::MOST_PHASES))?;
        let ending = ending(catalogue, operation, &self.outcome, self.code)?;
        let mut callbacks = CallbackFaults::default();
        for fault in &self.callbacks {
            callbacks.add(fault).map_err(|what| format!("callbacks: {what}"))?;
        }
        let shape = |shape: SavedShape| Shape {
            slot: shape.name.into(),
            width: shape.width,
            height: shape.height,
            duration: Duration::from_millis(shape.duration_ms),
        };
        let task = Task {
            operation,
            model,
            plan: Plan::of_stays(self.created, stays, ending),
            input: self.input.to_string().into(),
            origin: self.origin.into(),
            parent: self.parent.as_deref().map(key).transpose()?,
            chosen: self.chosen,
            ids: self.ids.into_iter().map(String::into_boxed_str).collect(),
            price: self.credits,
            callbacks,
            result: self.result.map(Arc::new),
            worth: Worth::of(catalogue, catalogue.lifecycle(operation, model), ending),
            inherits: self.inherits.into_iter().map(shape).collect(),
        };
        Ok((key(&self.id)?, task))
    }
}

/// The ending that [`outcome::name`] has written.
fn ending(
    catalogue: &Catalogue,
    operation: OperationIx,
    name: &str,
    code: Option<u16>,
) -> Result<Ending, String> {
    let Some(id) = name.strip_prefix("fail:") else {
        let mut wish = Wish::default();
        wish.add(name).map_err(|what| format!("outcome: {what}"))?;
        return match name {
            "success" => Ok(Ending::Success { fallback: false }),
            "fallback:success" => Ok(Ending::Success { fallback: true }),
            "stall" => Ok(Ending::Stall),
            _ => Err(format!("outcome: a task does not end with \"{name}\"")),
        };
    };
    // The nearest of that name, or else any: a task may fail with an error of the one that it goes on from.
    let fits = |(index, id_of, code_of): (ErrorIx, &str, u16)| {
        (id_of == id && code.is_none_or(|code| code == code_of)).then_some(index)
    };
    let near = catalogue.errors_of(operation).find_map(|(index, error)| fits((index, &error.id, error.code)));
    let any = || catalogue.errors().find_map(|(index, error)| fits((index, &error.id, error.code)));
    near.or_else(any).map(Ending::Fail).ok_or_else(|| format!("outcome: no error is called \"{id}\" here"))
}
