//! From files to a checked [`Catalogue`]: every problem is told, with its file and its place in it.
//!
//! What can be checked one file at a time stands in the files of this folder; here are their order and what they
//! share: where a problem is, and templates, schemas, errors and rules by name.

mod chat;
mod deep;
mod family;
mod files;
mod operation;
mod paths;
mod results;
mod upload;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

use super::chat::Tokens;
use super::parts::{self, Parts};
use super::raw::{RawRefusal, RawRule};
use super::reading::Readings;
use super::{
    Catalogue, ErrorEntry, ErrorIx, Family, IdAt, IdKind, KnownBy, Refusal, Routes, Rule, Schema, Template,
    small,
};

pub(super) use deep::check_deeply;
pub use files::{Problem, Source};

pub(super) fn load(source: &Source) -> Result<Catalogue, Vec<Problem>> {
    let mut loader = Loader::default();
    let raw = loader.read_files(source);
    let Some(raw_shared) = raw.shared else {
        loader.problem("catalogue/shared.json", "", "is missing or broken".into());
        return Err(loader.problems);
    };
    loader.add_errors("catalogue/shared.json", None, &raw_shared.errors, None);
    for (family, (file, raw)) in raw.families.iter().enumerate() {
        // A form that does not compile is told of with the wording.
        let form = raw.wording.as_ref().and_then(|wording| Template::compile(&wording.error).ok());
        loader.add_errors(file, Some(family), &raw.errors, form.as_ref());
    }
    let shared = loader.shared(&raw_shared);
    let mut operations = Vec::new();
    let mut lifecycles = HashMap::new();
    let mut families = Vec::new();
    for (index, (file, family)) in raw.families.into_iter().enumerate() {
        let of_family = loader.family_lifecycles(&file, &family);
        let wording = family.wording.as_ref().map(|wording| loader.wording(&file, index, wording));
        let tokens = loader.family_tokens(&file, &family);
        for raw in family.operations {
            let mut context =
                Context::new(&mut loader, &file, Some(index), raw.id.clone(), &family.templates);
            context.tokens.clone_from(&tokens);
            operations.push(context.operation(raw, index, &of_family));
        }
        lifecycles.insert(family.family.clone(), of_family);
        families.push(Family {
            id: family.family,
            title: family.title,
            source: family.source,
            uncertain: family.uncertain,
            media_kept: family.media_days.map(days),
            wording,
        });
    }
    let mut catalogue = Catalogue {
        families,
        operations,
        models: Vec::new(),
        errors: Vec::new(),
        shared,
        routes: Routes::default(),
        operations_by_id: HashMap::new(),
        readings: Readings::default(),
        replacing: Vec::new(),
        models_by_name: HashMap::new(),
    };
    loader.index_operations(&mut catalogue);
    for (file, raw) in raw.models {
        loader.add_model(&file, raw, &lifecycles, &mut catalogue);
    }
    catalogue.readings = Readings::new(&catalogue.operations, &catalogue.models);
    catalogue.errors = loader.errors;
    if loader.problems.is_empty() { Ok(catalogue) } else { Err(loader.problems) }
}

fn days(days: u32) -> Duration {
    Duration::from_secs(u64::from(days) * 24 * 60 * 60)
}

#[derive(Default)]
struct Loader {
    problems: Vec<Problem>,
    errors: Vec<ErrorEntry>,
}

impl Loader {
    fn problem(&mut self, file: &str, at: &str, what: String) {
        self.problems.push(Problem { file: file.into(), at: at.into(), what });
    }
}

/// Checks one operation or model and tells where a problem is.
struct Context<'a> {
    loader: &'a mut Loader,
    file: &'a str,
    family: Option<usize>,
    operation: String,
    parts: &'a Parts,
    /// Of the family, if it talks.
    tokens: Option<Arc<Tokens>>,
}

static NO_PARTS: Parts = Parts::new();

impl<'a> Context<'a> {
    fn new(
        loader: &'a mut Loader,
        file: &'a str,
        family: Option<usize>,
        operation: String,
        parts: &'a Parts,
    ) -> Self {
        Self { loader, file, family, operation, parts, tokens: None }
    }

    fn problem(&mut self, at: &str, what: String) {
        let at = if self.operation.is_empty() { at.to_owned() } else { format!("{}: {at}", self.operation) };
        self.loader.problem(self.file, &at, what);
    }

    fn must_have_source(&mut self, at: &str, source: &str) {
        if source.trim().is_empty() {
            self.problem(at, "a fact needs a source".into());
        }
    }

    fn template(&mut self, at: &str, source: &Value) -> Template {
        let compiled = parts::expand(source, self.parts)
            .and_then(|source| Template::compile(&source).map_err(|error| error.to_string()));
        compiled.unwrap_or_else(|what| {
            self.problem(at, what);
            Template::compile(&Value::Null).expect("null is a template")
        })
    }

    /// A schema, with the family's parts in their places.
    fn schema(&mut self, at: &str, source: &Value) -> Schema {
        let expanded = parts::expand(source, self.parts).map(std::borrow::Cow::into_owned);
        Schema::new(expanded.unwrap_or_else(|what| {
            self.problem(at, what);
            Value::Bool(true)
        }))
    }

    /// The error called `id` that this operation can have: its own, its family's, anybody's.
    fn error(&mut self, at: &str, id: &str) -> ErrorIx {
        let rank = |error: &ErrorEntry| match error.family {
            None => 1,
            family if family != self.family => 0,
            Some(_) if error.operations.contains(&self.operation) => 3,
            Some(_) if error.operations.is_empty() => 2,
            Some(_) => 0,
        };
        let candidates = self.loader.errors.iter().enumerate().filter(|(_, error)| error.id == id);
        let best = candidates.map(|(index, error)| (rank(error), index)).filter(|(rank, _)| *rank > 0).max();
        let Some((_, index)) = best else {
            self.problem(at, format!("there is no error \"{id}\" here"));
            return ErrorIx(0);
        };
        ErrorIx(small(index))
    }

    /// The places in requests of that schema where the file says that something is named that came out of a task.
    fn ids(&mut self, raw: &BTreeMap<String, IdKind>, schema: Option<&Schema>) -> Vec<IdAt> {
        for at in raw.keys() {
            if !at.starts_with('/') || !schema.is_some_and(|schema| schema.leads_to(at)) {
                self.problem("ids", format!("\"{at}\" is no JSON pointer to a property of the schema"));
            }
        }
        let place = |(at, kind): (&String, &IdKind)| IdAt {
            at: at.as_str().into(),
            kind: *kind,
            known_by: KnownBy::Declaration,
        };
        raw.iter().map(place).collect()
    }

    fn refusals(&mut self, raw: &[RawRefusal]) -> Vec<Refusal> {
        let refusal = |raw: &RawRefusal| Refusal {
            keyword: raw.keyword.clone(),
            field: raw.field.clone(),
            error: self.error("refusals", &raw.error),
        };
        raw.iter().map(refusal).collect()
    }

    fn rules(&mut self, raw: Vec<RawRule>) -> Vec<Rule> {
        raw.into_iter().map(|raw| self.rule(raw)).collect()
    }

    fn rule(&mut self, raw: RawRule) -> Rule {
        let at = format!("rule {}", raw.id);
        if raw.reject_when.is_none() && raw.exceeds.is_none() {
            self.problem(&at, "needs reject_when or exceeds".into());
        }
        if raw.for_each.as_ref().is_some_and(|list| !list.starts_with('/')) {
            self.problem(&at, "\"for_each\" must be a JSON pointer such as \"/shots\"".into());
        }
        Rule {
            error: self.error(&at, &raw.error),
            id: raw.id,
            for_each: raw.for_each,
            reject_when: raw.reject_when.map(|schema| self.schema(&at, &schema)),
            exceeds: raw.exceeds.and_then(|raw| self.pick(&at, &raw.value).zip(self.pick(&at, &raw.limit))),
            note: raw.note,
        }
    }
}
