//! What is known of the API behind the gateway, as data: operations, models, schemas, states, bodies, errors, prices.
//!
//! The files under `fixtures/` are compiled into the binary and can be overridden file by file from a folder. This
//! module reads them, checks them whole and answers questions; it draws nothing, keeps no task and knows no
//! HTTP beyond methods and paths. Both halves of the program stand on it: the simulator acts it out, the gateway
//! takes from it what an operation is, where ids stand in it and what a create costs.
//!
//! Everything in it is immutable and addressed by small indices ([`OperationIx`], [`ErrorIx`], [`ModelIx`]), so that
//! two hundred thousand tasks can refer to it at two bytes each.

mod call;
mod chat;
mod condition;
mod discovery;
mod draw;
mod error;
mod load;
mod naming;
mod operation;
mod parts;
mod pick;
mod price;
mod raw;
mod reading;
mod result;
mod route;
mod schema;
mod shape;
mod task;
mod template;

use std::borrow::Cow;
use std::collections::HashMap;
use std::time::Duration;

use http::Method;
use serde_json::Value;

use reading::Readings;
use route::Routes;

pub use call::{Link, Lookup, Reply, Upgrade, UploadFrom, UploadKind};
pub use chat::{Chat, ChatModel, Dialect, Thinks, TokenPrice, Tokens};
pub use condition::Condition;
pub use discovery::{Tells, tell};
pub use draw::DrawKind;
pub use error::{ErrorEntry, Wording};
pub use load::{Problem, Source};
pub use operation::{Behaviour, Class, Fill, Operation, Refusal, Rule};
pub use pick::Pick;
pub use price::{Price, Rate, Surcharge};
pub use reading::{EndedAs, IdAt, IdKind, Known, KnownBy, Likeness, Progress, Stage};
pub use result::{ResultKind, Seconds, Size};
pub use route::Resolved;
pub use schema::{Schema, Violation};
pub use shape::Shape;
pub use task::{
    CallbackKind, Consequence, EndState, Fallback, Follows, Lifecycle, ModelChoice, Moment, Phase, TaskKind,
    Within,
};
pub use template::{Bindings, Bound, Certainty, Found, Path, Places, Scope, Template, Types};

/// Which operation, in [`Catalogue::operation`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct OperationIx(u16);

impl OperationIx {
    /// Its place in [`Catalogue::operations`].
    pub fn position(self) -> usize {
        usize::from(self.0)
    }
}

/// Which error, in [`Catalogue::error`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ErrorIx(u16);

/// Which entry of `models/`, in [`Catalogue::model`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ModelIx(u16);

/// The whole catalogue.
#[derive(Debug)]
pub struct Catalogue {
    families: Vec<Family>,
    operations: Vec<Operation>,
    models: Vec<Model>,
    errors: Vec<ErrorEntry>,
    shared: Shared,
    routes: Routes,
    operations_by_id: HashMap<String, OperationIx>,
    /// What is read where in bodies.
    readings: Readings,
    /// By family: the upgrades whose records stand in the place of the base task's.
    replacing: Vec<Vec<OperationIx>>,
    models_by_name: HashMap<String, ModelIx>,
}

/// A group of operations that belong together.
#[derive(Debug)]
pub struct Family {
    /// `runway`, `jobs`, …
    pub id: String,
    /// For people.
    pub title: String,
    /// Where its facts come from.
    pub source: String,
    /// What is not known for sure.
    pub uncertain: Vec<String>,
    /// How long result files are kept.
    pub media_kept: Option<Duration>,
    /// How its host words what all families say in another way; absent: as they do.
    pub wording: Option<Wording>,
}

/// What holds for the whole API.
#[derive(Debug)]
pub struct Shared {
    /// A missing or wrong key.
    pub unauthorized: ErrorIx,
    /// A balance below the price.
    pub insufficient: ErrorIx,
    /// A body that is no JSON.
    pub invalid_json: ErrorIx,
    /// How many creates an account may send in a span of time, and the error above it.
    pub quota: (usize, Duration, ErrorIx),
    /// HTTP status and body for a path that does not exist.
    pub unknown_path: (u16, Template),
    /// HTTP status and body for a method that a path does not take.
    pub wrong_method: (u16, Template),
    /// Of every answer in JSON.
    pub content_type: String,
    /// How long a callback's receiver may take.
    pub callback_timeout: Duration,
    /// How long after each failed attempt the next one is made; then no more.
    pub callback_retries: Vec<Duration>,
    /// How long a download link works.
    pub link_lives: Duration,
}

/// An entry of `models/`.
#[derive(Debug)]
pub struct Model {
    /// As requests spell it.
    pub name: String,
    /// For people.
    pub title: String,
    /// Who made it.
    pub vendor: String,
    /// The create that takes it.
    pub operation: OperationIx,
    /// `image`, `video`, …
    pub kind: String,
    /// Where its facts come from.
    pub source: String,
    /// What else is worth knowing, for people.
    pub notes: Vec<String>,
    /// What its parameters must be.
    pub input: Schema,
    /// Where its parameters name what came out of tasks, beside [`Model::follows`].
    pub ids: Vec<IdAt>,
    /// Parameters that work.
    pub example: Value,
    /// Before those of the operation.
    pub refusals: Vec<Refusal>,
    /// Beside those of the operation.
    pub rules: Vec<Rule>,
    /// States over time.
    pub lifecycle: Lifecycle,
    /// What it costs; `None` where nobody knows.
    pub price: Option<Price>,
    /// Named files that it makes.
    pub results: Vec<(String, ResultKind)>,
    /// The task that it goes on from; JSON pointers lead into its parameters.
    pub follows: Option<Follows>,
    /// The body that tells of them.
    pub result: Template,
    /// The answer to the create, where it is another than its operation's.
    pub answer: Option<Template>,
    /// Named random values.
    pub draws: Vec<(String, DrawKind)>,
}

impl Catalogue {
    /// The catalogue that is compiled in.
    ///
    /// # Errors
    /// Everything that is wrong with it; the project's tests see to it that nothing is.
    pub fn embedded() -> Result<Self, Vec<Problem>> {
        load::load(&Source::embedded())
    }

    /// The catalogue from `source`.
    ///
    /// # Errors
    /// Everything that is wrong with it, each with its file and place.
    pub fn load(source: &Source) -> Result<Self, Vec<Problem>> {
        load::load(source)
    }

    /// Compiles every schema and satisfies each model's schema with its example: too slow for every start.
    ///
    /// # Errors
    /// Every schema or example that fails.
    pub fn check_deeply(&self) -> Result<(), Vec<Problem>> {
        load::check_deeply(self)
    }

    /// What `method` and `path` lead to.
    pub fn resolve(&self, method: &Method, path: &str) -> Resolved {
        self.routes.resolve(method, path)
    }

    /// The path of an operation that `path`, which leads to none, is another spelling of, as far as some servers go.
    pub fn path_meant_by(&self, path: &str) -> Option<String> {
        self.routes.meant_by(path)
    }

    /// What the variable part of the path to an operation says: its name and text; `None` if it has none.
    pub fn path_parameter<'p>(&self, method: &Method, path: &'p str) -> Option<(&str, Cow<'p, str>)> {
        self.routes.parameter(method, path)
    }

    /// An operation at `path`, whatever its method.
    pub fn operation_at(&self, path: &str) -> Option<OperationIx> {
        let is_there = |(index, operation): &(OperationIx, &Operation)| {
            self.resolve(&operation.method, path) == Resolved::Operation(*index)
        };
        self.operations().find(is_there).map(|(index, _)| index)
    }

    /// All families, in the order of their files.
    pub fn families(&self) -> &[Family] {
        &self.families
    }

    /// All operations with their index.
    pub fn operations(&self) -> impl Iterator<Item = (OperationIx, &Operation)> {
        self.operations.iter().enumerate().map(|(index, operation)| (OperationIx(small(index)), operation))
    }

    /// All entries of `models/` with their index.
    pub fn models(&self) -> impl Iterator<Item = (ModelIx, &Model)> {
        self.models.iter().enumerate().map(|(index, model)| (ModelIx(small(index)), model))
    }

    /// All errors with their index.
    pub fn errors(&self) -> impl Iterator<Item = (ErrorIx, &ErrorEntry)> {
        self.errors.iter().enumerate().map(|(index, error)| (ErrorIx(small(index)), error))
    }

    /// What holds for the whole API.
    pub fn shared(&self) -> &Shared {
        &self.shared
    }

    /// The operation at `index`.
    pub fn operation(&self, index: OperationIx) -> &Operation {
        &self.operations[usize::from(index.0)]
    }

    /// The error at `index`.
    pub fn error(&self, index: ErrorIx) -> &ErrorEntry {
        &self.errors[usize::from(index.0)]
    }

    /// The model at `index`.
    pub fn model(&self, index: ModelIx) -> &Model {
        &self.models[usize::from(index.0)]
    }

    /// The states that a task of this operation and model goes through: the model's own, or the operation's.
    ///
    /// # Panics
    /// If the operation makes no tasks, or makes those of models and none is given.
    pub fn lifecycle(&self, operation: OperationIx, model: Option<ModelIx>) -> &Lifecycle {
        let own = model.map(|model| &self.model(model).lifecycle);
        let of_operation = || self.operation(operation).task().and_then(|task| task.lifecycle.as_ref());
        own.or_else(of_operation).expect("load refuses tasks without a lifecycle")
    }

    /// The operation called `id`.
    pub fn operation_by_id(&self, id: &str) -> Option<OperationIx> {
        self.operations_by_id.get(id).copied()
    }

    /// The upgrades whose records, once they are done, stand in the place of those of tasks of `operation`.
    pub fn replacing(&self, operation: OperationIx) -> &[OperationIx] {
        &self.replacing[self.operation(operation).family]
    }

    /// The model called `name`, if `operation` takes it.
    pub fn model_by_name(&self, operation: OperationIx, name: &str) -> Option<ModelIx> {
        self.models_by_name.get(name).copied().filter(|index| self.model(*index).operation == operation)
    }
}

fn small(index: usize) -> u16 {
    u16::try_from(index).expect("load refuses catalogues with more than 65,535 entries of a kind")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_compiled_in_is_sound() {
        let catalogue = Catalogue::embedded().unwrap_or_else(|problems| panic!("{}", lines(&problems)));
        catalogue.check_deeply().unwrap_or_else(|problems| panic!("{}", lines(&problems)));
        assert!(catalogue.operations().count() >= 15);
        assert!(catalogue.models().count() >= 20);
    }

    fn lines(problems: &[Problem]) -> String {
        problems.iter().map(|problem| format!("{problem}\n")).collect()
    }
}
