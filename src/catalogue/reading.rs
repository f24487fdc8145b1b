//! What the upstream's bodies say, read by the templates that say what they look like.
//!
//! Whoever passes bodies on learns from them what a task is called, how far it is, which callback this is; and makes of
//! one body another that says the same (`bridge`): a callback of a record, where the upstream cannot call back, and a
//! record of a callback, so that nobody has to ask for what was told already. Pure: bodies in, bodies out. Where things
//! stand is found out once (`positions`), and reading copies nothing of a body but the name of a state.

mod bridge;
mod ids;
mod positions;

use std::time::Duration;

use serde_json::Value;

use super::{Behaviour, Catalogue, Lifecycle, ModelIx, OperationIx, TaskKind, Template};
use crate::ids::Credits;

pub use bridge::Known;
pub use ids::{IdAt, IdKind, KnownBy};
pub(super) use positions::Readings;

/// How far a task is, by its record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Progress {
    /// The state as the record spells it.
    pub state: String,
    /// How it ended, if it did.
    pub ended: Option<EndedAs>,
}

/// How a task ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndedAs {
    /// The ending's name in the catalogue.
    pub ending: String,
    /// Whether there is a result.
    pub success: bool,
}

/// Which of a task's callbacks a body is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stage<'v> {
    /// Its place among the callbacks of its kind of task; one past the last for a body of which that cannot be told.
    pub index: usize,
    /// Whether that can be told. There may be several of which it cannot.
    pub is_known: bool,
    /// The task that it names.
    pub task_id: Option<&'v str>,
    /// How the task ended, if this callback tells of that.
    pub ended: Option<EndedAs>,
    /// What says so.
    pub by: Likeness,
}

/// What a body was recognised by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Likeness {
    /// It says all that its template always says.
    Template,
    /// It looks like none; its code says whether things went well, and that is all that is known.
    Code,
}

impl Catalogue {
    /// The id in the answer to a create, or to a call that makes another version of a result; `None` if the answer is a
    /// refusal or names no task.
    pub fn task_id<'v>(&self, operation: OperationIx, answer: &'v Value) -> Option<&'v str> {
        if answer.get("code").is_some_and(|code| code != 200) {
            return None;
        }
        let places = &self.readings.operations[operation.position()].task_id;
        places.find(answer)?.as_str().filter(|id| !id.is_empty())
    }

    /// Whether tasks of that kind are over when their create is answered.
    pub fn is_inline(&self, operation: OperationIx, model: Option<ModelIx>) -> bool {
        self.states(operation, model).is_some_and(|lifecycle| lifecycle.inline)
    }

    /// The operation that tells of the tasks that `create` starts, and the JSON pointer to the id in its request.
    pub fn details_of(&self, create: OperationIx) -> Option<(OperationIx, &str)> {
        let details = self.readings.operations[create.position()].details?;
        match &self.operation(details).behaviour {
            Behaviour::Details(lookup, _) => Some((details, &lookup.at)),
            _ => None,
        }
    }

    /// How far a task of that kind is, by an answer to the question for its details; `None` if it is no record.
    pub fn progress(
        &self,
        operation: OperationIx,
        model: Option<ModelIx>,
        answer: &Value,
    ) -> Option<Progress> {
        let (details, _) = self.details_of(operation)?;
        self.progress_of_record(operation, model, self.record_in(details, answer)?)
    }

    /// Whether an answer of the details operation `details` tells of a task that still runs.
    pub fn is_running(&self, details: OperationIx, answer: &Value) -> bool {
        let Some(record) = self.record_in(details, answer) else { return false };
        let creates = self.readings.operations[details.position()].creates.iter();
        let mut progress = creates.filter_map(|create| {
            let places = &self.readings.operations[create.position()].in_record.model;
            let model = places.find(record).and_then(Value::as_str);
            let model = model.and_then(|name| self.model_by_name(*create, name));
            self.progress_of_record(*create, model, record)
        });
        progress.next().is_some_and(|progress| progress.ended.is_none())
    }

    fn record_in<'v>(&self, details: OperationIx, answer: &'v Value) -> Option<&'v Value> {
        let places = &self.readings.operations[details.position()].record;
        places.find(answer).filter(|record| record.is_object())
    }

    fn progress_of_record(
        &self,
        operation: OperationIx,
        model: Option<ModelIx>,
        record: &Value,
    ) -> Option<Progress> {
        let (task, lifecycle) = self.kind_of(operation, model)?;
        let places = &self.readings.operations[operation.position()].in_record;
        // What names no task is no record of one, whatever else it says.
        places.id.find(record).filter(|id| id.is_string())?;
        let Some(state) = places.state.find(record) else {
            return places.state.is_empty().then(|| progress_by_looks(lifecycle, &task.record, record))?;
        };
        let name = || state.as_str().map_or_else(|| state.to_string(), str::to_owned);
        if lifecycle.phases.iter().any(|phase| phase.state == *state) {
            return Some(Progress { state: name(), ended: None });
        }
        let candidates = lifecycle.endings.iter().filter(|(_, end)| end.state == *state);
        let ending = likeliest(candidates.map(|(ending, _)| ending), &task.record, record)?;
        Some(Progress { state: name(), ended: ended_as(lifecycle, ending) })
    }

    /// How long such a task usually takes, by the files; `None` where its model has none.
    pub fn usual_duration(&self, operation: OperationIx, model: Option<ModelIx>) -> Option<Duration> {
        let phases = &self.known_states(operation, model)?.phases;
        let millis = phases.iter().map(|phase| u64::from(phase.stay.0.midpoint(phase.stay.1))).sum();
        Some(Duration::from_millis(millis))
    }

    fn known_states(&self, operation: OperationIx, model: Option<ModelIx>) -> Option<&Lifecycle> {
        let own = model.map(|model| &self.model(model).lifecycle);
        own.or_else(|| self.operation(operation).task()?.lifecycle.as_ref())
    }

    /// The states of such a task. The upstream may have models that no file tells of: theirs are the others'.
    fn states(&self, operation: OperationIx, model: Option<ModelIx>) -> Option<&Lifecycle> {
        let any_model = || self.readings.operations[operation.position()].any_model.as_ref();
        self.known_states(operation, model).or_else(any_model)
    }

    fn kind_of(&self, operation: OperationIx, model: Option<ModelIx>) -> Option<(&TaskKind, &Lifecycle)> {
        Some((self.operation(operation).task()?, self.states(operation, model)?))
    }

    /// What the upstream says that a task, or a chat, has cost: in an answer or a callback.
    pub fn charged(&self, body: &Value) -> Option<Credits> {
        let charged = self.readings.charged.find(body)?.as_f64().and_then(Credits::from_f64);
        charged.filter(|credits| *credits >= Credits::ZERO)
    }

    /// Which callback of such a task `body` is; of what makes no tasks it is none that is known.
    pub fn stage<'v>(&self, operation: OperationIx, model: Option<ModelIx>, body: &'v Value) -> Stage<'v> {
        let known = &self.readings.operations[operation.position()];
        let task_id = known.called.find(body).and_then(Value::as_str);
        let Some((task, lifecycle)) = self.kind_of(operation, model) else {
            return Stage { index: 0, is_known: false, task_id, ended: None, by: Likeness::Code };
        };
        let is_failure = known.called_state.find(body).is_some_and(|state| is_failure(lifecycle, state));
        let well = went_well(body).map(|well| well && !is_failure);
        if let Some((index, ended)) = well.and_then(|well| stage_by_template(task, lifecycle, body, well)) {
            return Stage { index, is_known: true, task_id, ended, by: Likeness::Template };
        }
        let (index, ended) = stage_by_code(task, lifecycle, well);
        let is_known = index < task.callbacks.len();
        Stage { index, is_known, task_id, ended, by: Likeness::Code }
    }
}

/// Whether the code of a body says that things went well; `None` where it has none.
fn went_well(body: &Value) -> Option<bool> {
    body.get("code").map(|code| code == 200)
}

/// Whether that is the state of tasks that have failed, and of no others.
fn is_failure(lifecycle: &Lifecycle, state: &Value) -> bool {
    let mut endings = lifecycle.endings.iter().filter(|(_, end)| end.state == *state).peekable();
    let failed = |name: &str| ended_as(lifecycle, name).is_some_and(|ended| !ended.success);
    endings.peek().is_some() && endings.all(|(name, _)| failed(name))
}

fn stage_by_template(
    task: &TaskKind,
    lifecycle: &Lifecycle,
    body: &Value,
    well: bool,
) -> Option<(usize, Option<EndedAs>)> {
    for (index, kind) in task.callbacks.iter().enumerate() {
        let fits = |on: &&String| {
            let ended = ended_as(lifecycle, on);
            let ending = ended.as_ref().map_or("running", |ended| &ended.ending);
            well == ended.as_ref().is_none_or(|ended| ended.success)
                && kind.body.fits_where(body, "ending", ending)
        };
        if let Some(on) = likeliest(kind.on.iter().filter(fits), &kind.body, body) {
            return Some((index, ended_as(lifecycle, on)));
        }
    }
    None
}

/// A failure is the callback that tells of failures. A success is the one that tells of the end, unless there are others
/// on the way there: then it may be any of them, and ends nothing.
fn stage_by_code(task: &TaskKind, lifecycle: &Lifecycle, well: Option<bool>) -> (usize, Option<EndedAs>) {
    let unknown = task.callbacks.len();
    let Some(well) = well else { return (unknown, None) };
    let ends = |on: &String| ended_as(lifecycle, on).filter(|ended| ended.success == well);
    let mut telling = task.callbacks.iter().enumerate();
    let found = telling.find_map(|(index, kind)| Some((index, kind.on.iter().find_map(ends)?)));
    let on_the_way = |on: &String| lifecycle.ending(on).is_none();
    let has_others = task.callbacks.iter().any(|kind| kind.on.iter().any(on_the_way));
    match found {
        Some(_) if well && has_others => (unknown, None),
        Some((index, ended)) => (index, Some(ended)),
        None if well => (unknown, None),
        None => (unknown, ended_as(lifecycle, "fail")),
    }
}

fn ended_as(lifecycle: &Lifecycle, ending: &str) -> Option<EndedAs> {
    let end = lifecycle.ending(ending)?;
    Some(EndedAs { ending: ending.to_owned(), success: ending == "success" || end.with_result })
}

/// Of endings that a body may tell of, the one that it looks like; of several, the usual one.
fn likeliest<'e>(
    endings: impl Iterator<Item = &'e String>,
    template: &Template,
    body: &Value,
) -> Option<&'e str> {
    let endings: Vec<&str> = endings.map(String::as_str).collect();
    let usual = |ending: &&&str| ["success", "fail"].contains(*ending);
    let alike: Vec<&str> = match &endings[..] {
        [only] => return Some(only),
        several => {
            several.iter().copied().filter(|ending| template.fits_where(body, "ending", ending)).collect()
        }
    };
    let alike = if alike.is_empty() { endings } else { alike };
    alike.iter().find(usual).or_else(|| alike.first()).copied()
}

/// The progress by a record that does not name its state: by which of them it looks like.
fn progress_by_looks(lifecycle: &Lifecycle, template: &Template, record: &Value) -> Option<Progress> {
    let looks_like = |ending: &str| template.fits_where(record, "ending", ending);
    let ended = |ending: &str| {
        let ended = ended_as(lifecycle, ending);
        Some(Progress { state: ending.to_owned(), ended })
    };
    if looks_like("success") {
        return ended("success");
    }
    if looks_like("running") {
        return Some(Progress { state: "running".to_owned(), ended: None });
    }
    let mut failures = lifecycle.endings.iter().filter(|(name, _)| name != "success");
    failures.find(|(name, _)| looks_like(name)).and_then(|(name, _)| ended(name))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn catalogue() -> Catalogue {
        Catalogue::embedded().unwrap()
    }

    #[test]
    fn an_answer_that_refuses_names_no_task() {
        let catalogue = catalogue();
        let create = catalogue.operation_by_id("jobs.create").unwrap();
        let id = |answer: &Value| catalogue.task_id(create, answer).map(str::to_owned);
        assert_eq!(id(&json!({"code": 200, "data": {"taskId": "a"}})), Some("a".into()));
        assert_eq!(id(&json!({"code": 422, "msg": "no", "data": {"taskId": "a"}})), None);
        assert_eq!(id(&json!({"code": 200, "data": null})), None);
    }

    #[test]
    fn what_is_no_record_tells_of_no_progress() {
        let catalogue = catalogue();
        let create = catalogue.operation_by_id("jobs.create").unwrap();
        let state = |answer: &Value| catalogue.progress(create, None, answer).map(|known| known.state);
        assert_eq!(state(&json!({"code": 200, "data": {"taskId": "a", "state": "on holiday"}})), None);
        let song = catalogue.operation_by_id("suno.generate").unwrap();
        let state = |answer: &Value| catalogue.progress(song, None, answer).map(|known| known.state);
        assert_eq!(
            state(&json!({"data": {"taskId": "a", "status": "TEXT_SUCCESS"}})),
            Some("TEXT_SUCCESS".into())
        );
        assert_eq!(state(&json!({"data": {"taskId": "a", "status": "NEVER_HEARD_OF"}})), None);
        assert_eq!(state(&json!({"code": 404, "data": null})), None);
        assert_eq!(state(&json!({"data": {"status": "TEXT_SUCCESS"}})), None);
    }

    /// A task of a model that no file tells of panicked where its states were looked for, and was lost.
    #[test]
    fn tasks_of_unknown_models_go_through_the_states_that_models_have() {
        let catalogue = catalogue();
        for (operation, known) in catalogue.operations().filter(|(_, operation)| operation.task().is_some()) {
            let models = catalogue.models().filter(|(_, model)| model.operation == operation);
            let lifecycles: Vec<_> = models.map(|(_, model)| &model.lifecycle).collect();
            let states = catalogue.states(operation, None).expect(&known.id);
            for lifecycle in &lifecycles {
                let mut phases = states.phases.iter().map(|phase| &phase.state);
                // In their order.
                assert!(lifecycle.phases.iter().all(|phase| phases.any(|state| *state == phase.state)));
                assert!(lifecycle.endings.iter().all(|(name, _)| states.ending(name).is_some()));
            }
            assert_eq!(catalogue.usual_duration(operation, None).is_none(), !lifecycles.is_empty());
            let failed = json!({"code": 501, "msg": "no", "data": {"taskId": "a"}});
            let ended = catalogue.stage(operation, None, &failed).ended;
            assert!(ended.is_some_and(|ended| !ended.success), "{}", known.id);
        }
    }

    #[test]
    fn what_something_cost_is_found_wherever_it_is_said() {
        let catalogue = catalogue();
        for body in [
            json!({"data": {"creditsConsumed": 4.5}}),
            json!({"creditsConsumed": 4.5}),
            json!({"credits_consumed": 4.5}),
            json!({"data": {"creditsConsumed": null, "credits_consumed": 4.5}}),
        ] {
            assert_eq!(catalogue.charged(&body), Credits::from_f64(4.5), "{body}");
        }
        assert_eq!(catalogue.charged(&json!({"data": {"credits": 4.5}})), None);
        assert_eq!(catalogue.charged(&json!({"data": {"creditsConsumed": -4.5}})), None, "nobody is paid");
    }

    #[test]
    fn a_callback_that_looks_like_none_counts_by_its_code() {
        let catalogue = catalogue();
        let stage = |id: &str, body: &Value| {
            let operation = catalogue.operation_by_id(id).unwrap();
            let Stage { index, ended, by, .. } = catalogue.stage(operation, None, body);
            (index, ended.map(|ended| ended.success), by)
        };
        let well = json!({"code": 200, "data": {"callbackType": "encore", "task_id": "a"}});
        let badly = json!({"code": 531, "data": {"callbackType": "oops", "task_id": "a"}});
        assert_eq!(stage("suno.generate", &well), (4, None, Likeness::Code));
        assert_eq!(stage("suno.generate", &badly), (3, Some(false), Likeness::Code));
        assert_eq!(
            stage("runway.generate", &json!({"code": 200, "data": 1})),
            (0, Some(true), Likeness::Code)
        );
        assert_eq!(stage("runway.generate", &json!({"data": {"x": 1}})), (2, None, Likeness::Code));
        let told = |code, state| json!({"code": code, "data": {"taskId": "a", "state": state}});
        for (code, state) in [(200, "fail"), (501, "success"), (501, "fail")] {
            let ended = stage("jobs.create", &told(code, state)).1;
            assert_eq!(ended, Some(false), "{code} {state}");
        }
        assert_eq!(stage("jobs.create", &told(200, "success")).1, Some(true));
        let first =
            json!({"code": 200, "msg": "other words", "data": {"callbackType": "first", "task_id": "a"}});
        assert_eq!(stage("suno.generate", &first), (1, None, Likeness::Template));
    }
}
