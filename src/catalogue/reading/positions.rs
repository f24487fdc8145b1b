//! What is read where in an operation's bodies: found out once, when the catalogue is loaded.

use super::ids::{self, IdAt};
use crate::catalogue::{
    Behaviour, Lifecycle, Model, Operation, OperationIx, Places, Reply, TaskKind, Template, small,
};

/// What is read where, of all operations and models.
#[derive(Debug, Default)]
pub(in crate::catalogue) struct Readings {
    pub(super) operations: Vec<OfOperation>,
    /// By model: where its requests name what came out of tasks.
    pub(super) models: Vec<Vec<IdAt>>,
    /// Where any body says what something has cost.
    pub(super) charged: Places,
}

/// What is read where, of one operation.
#[derive(Debug)]
pub(super) struct OfOperation {
    /// In its requests.
    pub(super) ids: Vec<IdAt>,
    /// In its answer.
    pub(super) task_id: Places,
    /// In its answer, if it tells of tasks.
    pub(super) record: Places,
    /// The operation that tells of its tasks.
    pub(super) details: Option<OperationIx>,
    /// The operations whose tasks it tells of.
    pub(super) creates: Vec<OperationIx>,
    /// In the records of its tasks.
    pub(super) in_record: InRecord,
    /// The task's name in its callbacks.
    pub(super) called: Places,
    /// The task's state in its callbacks.
    pub(super) called_state: Places,
    /// The states of a task whose model nobody knows: all that the models of the operation have.
    pub(super) any_model: Option<Lifecycle>,
}

/// What is read where in a record.
#[derive(Debug, Default)]
pub(super) struct InRecord {
    pub(super) id: Places,
    pub(super) state: Places,
    pub(super) model: Places,
}

impl Readings {
    pub(in crate::catalogue) fn new(operations: &[Operation], models: &[Model]) -> Self {
        let of_operation = |(index, operation): (usize, &Operation)| {
            let mut task_id = Places::default();
            answers(operation).for_each(|answer| task_id.add(answer.places("task.id")));
            let own = models.iter().filter(|model| model.operation.position() == index);
            own.clone().filter_map(|model| model.answer.as_ref()).for_each(|answer| {
                task_id.add(answer.places("task.id"));
            });
            OfOperation {
                ids: ids::of_operation(operation),
                task_id,
                record: record(operation),
                details: details_of(operations, operation),
                creates: creates_of(operations, operation),
                in_record: operation.task().map(in_record).unwrap_or_default(),
                // Another version of a result goes by the name of the task that it is a version of.
                called: operation
                    .task()
                    .map(|task| called(task, &["task.id", "parent.id"]))
                    .unwrap_or_default(),
                called_state: operation.task().map(|task| called(task, &["state"])).unwrap_or_default(),
                any_model: all_states(own.map(|model| &model.lifecycle)),
            }
        };
        let of_model = |model: &Model| ids::of_model(&operations[model.operation.position()], model);
        Self {
            operations: operations.iter().enumerate().map(of_operation).collect(),
            models: models.iter().map(of_model).collect(),
            charged: charged(operations),
        }
    }
}

/// What an operation answers, where that is about a task of its own or a chat.
fn answers(operation: &Operation) -> impl Iterator<Item = &Template> {
    fn told(reply: &Reply) -> Option<&Template> {
        match reply {
            Reply::Body(body) => Some(body),
            Reply::Error(_) => None,
        }
    }
    let answers: [Option<&Template>; 3] = match &operation.behaviour {
        Behaviour::Create(_, answer) | Behaviour::Chat(_, answer) => [Some(answer), None, None],
        Behaviour::Upgrade(upgrade) => [told(&upgrade.started), told(&upgrade.running), Some(&upgrade.done)],
        _ => [None, None, None],
    };
    answers.into_iter().flatten()
}

fn record(operation: &Operation) -> Places {
    match &operation.behaviour {
        Behaviour::Details(_, answer) => answer.places("record"),
        _ => Places::default(),
    }
}

/// Whether `operation` tells of tasks whose records are in that collection.
fn tells_of(operation: &Operation, records: &String) -> bool {
    match &operation.behaviour {
        Behaviour::Details(lookup, _) => lookup.records.contains(records) && !record(operation).is_empty(),
        _ => false,
    }
}

fn details_of(operations: &[Operation], create: &Operation) -> Option<OperationIx> {
    let records = &create.task()?.records;
    let place = operations.iter().position(|operation| tells_of(operation, records))?;
    Some(OperationIx(small(place)))
}

fn creates_of(operations: &[Operation], details: &Operation) -> Vec<OperationIx> {
    let is_told = |create: &Operation| create.task().is_some_and(|task| tells_of(details, &task.records));
    let creates = operations.iter().enumerate().filter(|(_, operation)| is_told(operation));
    creates.map(|(place, _)| OperationIx(small(place))).collect()
}

fn in_record(task: &TaskKind) -> InRecord {
    let places = |name| task.record.places(name);
    InRecord { id: places("task.id"), state: places("state"), model: places("task.model") }
}

/// What several lifecycles have, each state once: in the order of the one that has most phases, since the others leave
/// some of them out. A task may be over when its create is answered if one of them says so.
fn all_states<'l>(lifecycles: impl Iterator<Item = &'l Lifecycle> + Clone) -> Option<Lifecycle> {
    let mut all = lifecycles.clone().max_by_key(|lifecycle| lifecycle.phases.len())?.clone();
    for lifecycle in lifecycles {
        all.inline |= lifecycle.inline;
        for phase in &lifecycle.phases {
            if all.phases.iter().all(|there| there.state != phase.state) {
                all.phases.push(phase.clone());
            }
        }
        for (name, end) in &lifecycle.endings {
            if all.endings.iter().all(|(there, known)| there != name || known.state != end.state) {
                all.endings.push((name.clone(), end.clone()));
            }
        }
    }
    Some(all)
}

/// Where its callbacks say one of these things.
fn called(task: &TaskKind, names: &[&str]) -> Places {
    let mut called = Places::default();
    for name in names {
        task.callbacks.iter().for_each(|kind| called.add(kind.body.places(name)));
    }
    called
}

/// Where bodies say what something has cost: where templates say it, and under the same names in a record and at the top
/// of a body, where real bodies say it, too.
fn charged(operations: &[Operation]) -> Places {
    let mut places = Places::default();
    let mut add = |template: &Template| {
        for name in ["task.charged", "task.price", "chat.credits"] {
            places.add(template.places(name));
        }
    };
    for operation in operations {
        answers(operation).for_each(&mut add);
        if let Some(task) = operation.task() {
            task.callbacks.iter().for_each(|kind| add(&kind.body));
        }
    }
    let mut in_records = Places::default();
    for operation in operations {
        in_records.add(record(operation));
    }
    for task in operations.iter().filter_map(Operation::task) {
        places.add(in_records.then(&task.record.places("task.charged")));
    }
    let names = places.leaves();
    places.add(in_records.then(&names));
    places.add(names);
    places
}
