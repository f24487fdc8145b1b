//! Where requests name what came out of tasks: those tasks, other things that they made, addresses of results.
//!
//! Most places follow from what an operation does; the rest the catalogue's files declare. Whose the things are that
//! stand there is decided elsewhere.

use serde::Deserialize;
use serde_json::Value;

use crate::catalogue::{
    Behaviour, Catalogue, Follows, Lookup, Model, ModelChoice, ModelIx, Operation, OperationIx,
};

/// What a name in a request is the name of.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum IdKind {
    /// A task.
    Task,
    /// Something that came out of a task, such as one track of a song.
    Made,
    /// The same, or something that everybody may name or that came from elsewhere, such as a preset voice.
    MadeOrPreset,
    /// The address of a result.
    Url,
}

/// A place in a request where something is named that came out of a task; a list there names several things.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdAt {
    /// JSON pointer into the request; the query counts as an object of texts.
    pub at: Box<str>,
    /// What is named there.
    pub kind: IdKind,
    /// Who says so.
    pub known_by: KnownBy,
}

/// How it is known that a place names something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KnownBy {
    /// By what the operation does: it is also known what a request with an unknown name is answered.
    Behaviour,
    /// By the files alone: nothing is known of answers to requests with unknown names.
    Declaration,
}

impl Catalogue {
    /// The places where a request of `operation` names what came out of tasks.
    pub fn ids(&self, operation: OperationIx, request: &Value) -> &[IdAt] {
        let model = self.operation(operation).model_of(request);
        self.ids_of(operation, model.and_then(|name| self.model_by_name(operation, name)))
    }

    /// The same for a model of which there is no request yet.
    pub fn ids_of(&self, operation: OperationIx, model: Option<ModelIx>) -> &[IdAt] {
        match model {
            Some(model) => &self.readings.models[usize::from(model.0)],
            None => &self.readings.operations[operation.position()].ids,
        }
    }

    /// The places of all operations and models. Those of a model are all that a request for it has.
    pub fn id_positions(&self) -> impl Iterator<Item = (OperationIx, Option<ModelIx>, &IdAt)> {
        let of_operations = self.operations().map(|(operation, _)| (operation, None));
        let of_models = self.models().map(|(model, known)| (known.operation, Some(model)));
        of_operations.chain(of_models).flat_map(|(operation, model)| {
            self.ids_of(operation, model).iter().map(move |at| (operation, model, at))
        })
    }
}

/// The places that every request of `operation` has.
pub(super) fn of_operation(operation: &Operation) -> Vec<IdAt> {
    let mut places = Vec::new();
    let task = |lookup: &Lookup| IdAt {
        at: lookup.at.as_str().into(),
        kind: IdKind::Task,
        known_by: KnownBy::Behaviour,
    };
    match &operation.behaviour {
        Behaviour::Details(lookup, _) => places.push(task(lookup)),
        Behaviour::Upgrade(upgrade) => places.push(task(&upgrade.lookup)),
        Behaviour::Link(link, _) => {
            places.extend(link.lookup.as_ref().map(task));
            places.push(IdAt {
                at: link.url_at.as_str().into(),
                kind: IdKind::Url,
                known_by: KnownBy::Behaviour,
            });
        }
        _ => {}
    }
    let follows = operation.task().and_then(|task| task.follows.as_ref());
    follow("", follows, &mut places);
    call_otherwise(operation, &mut places);
    declare("", &operation.ids, &mut places);
    places
}

/// A field that is another name for one of `places` is such a place as well.
fn call_otherwise(operation: &Operation, places: &mut Vec<IdAt>) {
    for (other, name) in operation.fill.iter().flat_map(|fill| &fill.rename) {
        if let Some(place) = places.iter().find(|place| place.at.strip_prefix('/') == Some(name)) {
            places.push(IdAt { at: format!("/{other}").into(), ..place.clone() });
        }
    }
}

/// The places that a request for `model` has: the operation's, and its own below the field with its parameters.
pub(super) fn of_model(operation: &Operation, model: &Model) -> Vec<IdAt> {
    let mut places = of_operation(operation);
    if let Some(ModelChoice::Market { input, .. }) = operation.task().map(|task| &task.model) {
        let below = format!("/{input}");
        follow(&below, model.follows.as_ref(), &mut places);
        declare(&below, &model.ids, &mut places);
    }
    places
}

fn follow(below: &str, follows: Option<&Follows>, places: &mut Vec<IdAt>) {
    let place =
        |at: &String, kind| IdAt { at: format!("{below}{at}").into(), kind, known_by: KnownBy::Behaviour };
    let Some(follows) = follows else { return };
    places.extend(follows.at.iter().map(|at| place(at, IdKind::Task)));
    places.extend(follows.id_at.iter().map(|at| place(at, IdKind::Made)));
}

fn declare(below: &str, declared: &[IdAt], places: &mut Vec<IdAt>) {
    let place =
        |id: &IdAt| IdAt { at: format!("{below}{}", id.at).into(), kind: id.kind, known_by: id.known_by };
    places.extend(declared.iter().map(place));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places(id: &str, model: Option<&str>) -> Vec<(String, IdKind)> {
        let catalogue = Catalogue::embedded().unwrap();
        let operation = catalogue.operation_by_id(id).unwrap();
        let model = model.map(|name| catalogue.model_by_name(operation, name).unwrap());
        let places = catalogue.ids_of(operation, model).iter();
        places.map(|place| (place.at.to_string(), place.kind)).collect()
    }

    #[test]
    fn what_requests_name_is_known_by_what_they_do_and_by_what_the_files_say() {
        let task = |at: &str| (at.to_owned(), IdKind::Task);
        let made = |at: &str| (at.to_owned(), IdKind::Made);
        assert_eq!(places("veo.get4k", None), [task("/taskId")]);
        assert_eq!(places("common.download-url", None), [("/url".to_owned(), IdKind::Url)]);
        assert_eq!(places("suno.extend", None), [made("/audioId"), made("/personaId")]);
        assert_eq!(places("suno.recovery", None), [task("/task_id"), task("/sunoTaskId")]);
        let section = places("jobs.create", Some("ai-music-api/replace-section"));
        assert_eq!(section, [task("/input/task_id"), made("/input/audio_id"), made("/input/persona_id")]);
        let omni = places("jobs.create", Some("gemini-omni-video"));
        assert!(omni.iter().all(|(_, kind)| *kind == IdKind::MadeOrPreset) && omni.len() == 2, "{omni:?}");
    }

    /// An unknown song under its other name went upstream, and another tenant's was given back.
    #[test]
    fn a_place_is_known_by_its_other_name_as_well() {
        let catalogue = Catalogue::embedded().unwrap();
        let recovery = catalogue.operation_by_id("suno.recovery").unwrap();
        let by: Vec<_> = catalogue.ids_of(recovery, None).iter().map(|place| place.known_by).collect();
        assert_eq!(by, [KnownBy::Behaviour; 2]);
    }

    #[test]
    fn every_place_is_one_that_the_schema_knows() {
        let catalogue = Catalogue::embedded().unwrap();
        for (operation, model, IdAt { at, .. }) in catalogue.id_positions() {
            let create = catalogue.operation(operation);
            let known = |schema: &crate::catalogue::Schema, at: &str| schema.leads_to(at);
            let of_operation = create.request.as_ref().is_some_and(|schema| known(schema, at));
            let of_model = model.is_some_and(|model| {
                let inner = at.trim_start_matches('/').split_once('/').map(|(_, inner)| format!("/{inner}"));
                inner.is_some_and(|inner| known(&catalogue.model(model).input, &inner))
            });
            assert!(of_operation || of_model, "{} {at}", create.id);
        }
    }
}
