//! How a kind of task runs: its model, its states over time, what it goes on from, whom it tells.
//!
//! When a task is in which state is decided by who acts it out; the files that it makes stand in `result`.

use serde::Deserialize;
use serde_json::Value;

use super::{DrawKind, ErrorIx, Pick, Price, ResultKind, Rule, Schema, Template};

/// How a kind of task runs, what it costs, what it makes, whom it tells.
#[derive(Debug)]
pub struct TaskKind {
    /// What its model is called.
    pub model: ModelChoice,
    /// Its states over time; a model from `models/` may have its own.
    pub lifecycle: Option<Lifecycle>,
    /// The collection that its record belongs to: a details call looks only into the ones it names.
    pub records: String,
    /// The record's body.
    pub record: Template,
    /// What it costs; a model from `models/` has its own.
    pub price: Option<Price>,
    /// Named random values that its bodies show.
    pub draws: Vec<(String, DrawKind)>,
    /// Named files that it makes; a model from `models/` has its own.
    pub results: Vec<(String, ResultKind)>,
    /// The task that it goes on from.
    pub follows: Option<Follows>,
    /// The backup model.
    pub fallback: Option<Fallback>,
    /// Whom it calls back when, with what.
    pub callbacks: Vec<CallbackKind>,
    /// JSON pointer to the address that it calls back.
    pub callback_at: String,
    /// Requests that are accepted, and whose task fails.
    pub fails: Vec<Rule>,
}

/// Where a task's model is named.
#[derive(Debug)]
pub enum ModelChoice {
    /// The operation is the model.
    Name(String),
    /// A field of the request, by JSON pointer.
    At(String),
    /// A field that names an entry of `models/`; that entry's schema holds for another field.
    Market {
        /// JSON pointer to the name.
        at: String,
        /// The field with the model's own parameters.
        input: String,
        /// An unknown or missing name.
        unknown: ErrorIx,
    },
}

/// States over time.
#[derive(Debug, Clone)]
pub struct Lifecycle {
    /// What a task goes through, at most [`Lifecycle::MOST_PHASES`].
    pub phases: Vec<Phase>,
    /// How it ends.
    pub endings: Vec<(String, EndState)>,
    /// The work takes no time: the answer to the create tells of its end, and no record is kept.
    pub inline: bool,
    /// Where the durations come from.
    pub source: String,
}

impl Lifecycle {
    /// More phases than this no lifecycle has: plans keep them in place.
    pub const MOST_PHASES: usize = 5;

    /// The ending called `name`.
    pub fn ending(&self, name: &str) -> Option<&EndState> {
        self.endings.iter().find(|(ending, _)| ending == name).map(|(_, state)| state)
    }
}

/// A state that a task stays in for a while.
#[derive(Debug, Clone)]
pub struct Phase {
    /// As the record spells it.
    pub state: Value,
    /// Shortest and longest real stay, in milliseconds.
    pub stay: (u32, u32),
}

/// A state that a task ends in.
#[derive(Debug, Clone)]
pub struct EndState {
    /// As the record spells it.
    pub state: Value,
    /// When a failure of this kind shows.
    pub moment: Moment,
    /// It went wrong after the work was done: the result is there, and is paid for.
    pub with_result: bool,
}

/// When a failure shows.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum Moment {
    /// In the course of the last phase.
    #[default]
    Late,
    /// In the course of the first phase.
    Early,
    /// As soon as the task exists; it never counts as completed.
    AtOnce,
}

/// How a task goes on from another.
#[derive(Debug)]
pub struct Follows {
    /// JSON pointer to the other's id.
    pub at: Option<String>,
    /// JSON pointer to an id that the other drew ([`DrawKind::Id`]); where both are given they must agree.
    pub id_at: Option<String>,
    /// The collections that it may be in.
    pub records: Vec<String>,
    /// It must make files of this name.
    pub has: Option<String>,
    /// It must be of one of these Market models; empty: of any.
    pub models: Vec<String>,
    /// The id is not known.
    pub unknown: Consequence,
    /// The other still runs; if it matters.
    pub unfinished: Option<Consequence>,
    /// The other failed; if it matters.
    pub failed: Option<Consequence>,
    /// The other succeeded; if it matters.
    pub succeeded: Option<Consequence>,
    /// Only one such task is made of the same; then this refuses.
    pub once: Option<ErrorIx>,
    /// An upgrade of the other was made.
    pub after: Vec<(String, Consequence)>,
    /// Numbers of the request that must lie within the other's length.
    pub within: Vec<Within>,
}

/// A number of seconds that depends on how long the other task's file is.
#[derive(Debug)]
pub struct Within {
    /// The number, of the request.
    pub value: Pick,
    /// The files whose length counts: for each of the ids that the other drew the one that belongs to it.
    pub of: Vec<String>,
    /// The part of that length which is the limit.
    pub share: f64,
    /// The limit itself is too much.
    pub below: bool,
    /// Refuses what is beyond.
    pub error: ErrorIx,
}

impl Within {
    /// Whether the number in `input` is too much, given the length of the file in `seconds`.
    pub fn refuses(&self, input: &Value, seconds: f64) -> bool {
        let limit = seconds * self.share;
        self.value.number(input).is_some_and(|value| if self.below { value >= limit } else { value > limit })
    }

    /// The file whose length counts where the other's id in place `chosen` was named.
    pub fn file(&self, chosen: u8) -> Option<&str> {
        self.of.get(usize::from(chosen)).or(self.of.first()).map(String::as_str)
    }
}

/// What comes of a circumstance.
#[derive(Clone, Copy, Debug)]
pub enum Consequence {
    /// The create is refused.
    Reject(ErrorIx),
    /// The create is accepted and its task fails.
    Fail(ErrorIx),
}

/// The backup model's rules.
#[derive(Debug)]
pub struct Fallback {
    /// The errors that bring it in.
    pub errors: Vec<ErrorIx>,
    /// The one that stands for them where none is named.
    pub default_error: ErrorIx,
    /// Requests that allow it.
    pub allowed_when: Schema,
}

/// A callback that a task sends.
#[derive(Debug)]
pub struct CallbackKind {
    /// Names of endings, or states as text.
    pub on: Vec<String>,
    /// What is sent.
    pub body: Template,
}
