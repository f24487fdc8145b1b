//! What is known of the API behind the gateway, as data: operations, models, schemas, states, bodies, errors, prices.
//!
//! The files under `fixtures/` are compiled into the binary and can be overridden file by file from a folder. This
//! module reads them, checks them whole and answers questions; it draws nothing, keeps no task and knows no
//! HTTP beyond methods and paths. Both halves of the program stand on it: the simulator acts it out, the gateway
//! takes from it what an operation is, where ids stand in it and what a create costs.
//!
//! Everything in it is immutable and addressed by small indices ([`OperationIx`], [`ErrorIx`], [`ModelIx`]), so that
//! two hundred thousand tasks can refer to it at two bytes each.

mod chat;
mod condition;
mod discovery;
mod draw;
mod load;
mod parts;
mod pick;
mod price;
mod raw;
mod route;
mod schema;
mod shape;
mod template;

use std::borrow::Cow;
use std::collections::HashMap;
use std::time::Duration;

use http::Method;
use serde::Deserialize;
use serde_json::Value;

use route::Routes;

pub use chat::{Chat, ChatModel, Dialect, Thinks, TokenPrice, Tokens};
pub use condition::Condition;
pub use discovery::{Tells, tell};
pub use draw::DrawKind;
pub use load::{Problem, Source};
pub use pick::Pick;
pub use price::{Price, Rate, Surcharge};
pub use route::Resolved;
pub use schema::{Schema, Violation};
pub use shape::Shape;
pub use template::{Found, Path, Scope, Template, Types};

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

/// The way of answering of a family that has a host of its own.
#[derive(Debug)]
pub struct Wording {
    /// The body of every refusal.
    pub error: Template,
    /// Of every answer; `content-type` is among them where it differs.
    pub headers: Vec<(String, String)>,
    /// A method that a path does not take.
    pub wrong_method: Option<ErrorIx>,
}

impl Wording {
    /// The body of a refusal with this code and text.
    pub fn error_body(&self, code: u16, message: Option<&str>) -> Vec<u8> {
        self.error.to_json(&ErrorScope { code, message })
    }
}

/// What a refusal's body is made of.
struct ErrorScope<'a> {
    code: u16,
    message: Option<&'a str>,
}

impl Scope for ErrorScope<'_> {
    fn lookup<'s>(&'s self, path: &[Box<str>]) -> Found<'s> {
        match path.get(1).map(|field| &**field) {
            Some("code") => Found::Integer(self.code.into()),
            Some("message") => self.message.map_or(Found::Null, Found::Str),
            _ => Found::Missing,
        }
    }
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

/// What kind of call an operation is.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum Class {
    /// Starts a task.
    Create,
    /// Asks for a task's state.
    Details,
    /// Does something with a finished task.
    Action,
    /// Talks to a language model.
    Chat,
    /// Brings a file.
    Upload,
    /// About the account.
    Account,
}

/// One endpoint.
#[derive(Debug)]
pub struct Operation {
    /// `family.verb`.
    pub id: String,
    /// The family's position in [`Catalogue::families`].
    pub family: usize,
    /// What kind of call it is.
    pub class: Class,
    /// HTTP method.
    pub method: Method,
    /// Path, without the host; a part such as `{model}` stands for any text.
    pub path: String,
    /// Further paths that lead to it.
    pub also: Vec<String>,
    /// One line for people.
    pub summary: String,
    /// How sure its facts are.
    pub evidence: String,
    /// What else is worth knowing, for people.
    pub notes: Vec<String>,
    /// The request: a JSON body, or the query as an object of strings.
    pub request: Option<Schema>,
    /// A request that it accepts; ids in it stand for those of tasks.
    pub example: Option<Value>,
    /// Anybody may call it, without a key.
    pub open: bool,
    /// Whether the request is the query rather than a body.
    pub by_query: bool,
    /// What a violation of the schema is answered with; the first that fits counts.
    pub refusals: Vec<Refusal>,
    /// Requests that satisfy the schema and are refused all the same.
    pub rules: Vec<Rule>,
    /// How the request is completed before it becomes a task's input.
    pub fill: Vec<Fill>,
    /// What it does.
    pub behaviour: Behaviour,
}

/// What an operation does.
#[derive(Debug)]
pub enum Behaviour {
    /// Starts a task and answers with its id.
    Create(Box<TaskKind>, Template),
    /// Tells of a task.
    Details(Lookup, Template),
    /// Makes another version of a finished task's result, the same one for every call.
    Upgrade(Box<Upgrade>),
    /// Turns a result's address into a short-lived link.
    Link(Link, Template),
    /// Tells of the catalogue itself; the error answers a model that is not known.
    Discovery(Tells, ErrorIx, Template),
    /// Takes a file in and tells where it can be had.
    Upload(Box<UploadKind>, Template),
    /// Talks in a language model's place.
    Chat(Box<Chat>, Template),
    /// Always the same answer, but for its holes.
    Plain(Template),
}

impl Operation {
    /// The task that it starts, if it starts one.
    pub fn task(&self) -> Option<&TaskKind> {
        match &self.behaviour {
            Behaviour::Create(task, _) => Some(task),
            Behaviour::Upgrade(upgrade) => Some(&upgrade.task),
            _ => None,
        }
    }

    /// Whether its body is a form with a file in it, of any size, rather than JSON.
    pub fn takes_form(&self) -> bool {
        matches!(&self.behaviour, Behaviour::Upload(kind, _) if matches!(kind.from, UploadFrom::Part(_)))
    }

    /// `request` completed with what the catalogue fills in: the input of the task that it starts.
    pub fn completed(&self, request: &Value) -> Value {
        let mut request = request.clone();
        // The upstream ignores fields that it does not know; a task does not keep them.
        if let (Some(schema), Some(members)) = (&self.request, request.as_object_mut()) {
            members.retain(|name, _| schema.names(name));
        }
        for fill in &self.fill {
            if fill.when.as_ref().is_some_and(|when| !when.accepts(&request)) {
                continue;
            }
            let Some(members) = request.as_object_mut() else { break };
            for (old, new) in &fill.rename {
                if let Some(value) = members.shift_remove(old) {
                    members.insert(new.clone(), value);
                }
            }
            for (name, value) in &fill.set {
                if members.get(name).is_none_or(Value::is_null) {
                    members.insert(name.clone(), value.clone());
                }
            }
        }
        request
    }

    /// How it talks, if it does.
    pub fn chat(&self) -> Option<&Chat> {
        match &self.behaviour {
            Behaviour::Chat(chat, _) => Some(chat),
            _ => None,
        }
    }
}

impl ErrorEntry {
    /// Its text, where `scope` says what the request was.
    fn text(&self, scope: &dyn Scope) -> Option<String> {
        self.message.as_ref().map(|message| message.to_text(scope))
    }

    /// The body of the answer that refuses a call with it. In its text `scope` says what the request was.
    pub fn body(&self, scope: &dyn Scope) -> Vec<u8> {
        let message = self.text(scope);
        if let Some(form) = &self.form {
            return form.to_json(&ErrorScope { code: self.code, message: message.as_deref() });
        }
        let message = message.map_or(Value::Null, Value::from);
        let mut body = format!("{{\"code\":{},\"msg\":{message}", self.code).into_bytes();
        match &self.data {
            _ if self.without_data => {}
            None => body.extend_from_slice(b",\"data\":null"),
            Some(data) => {
                body.extend_from_slice(b",\"data\":");
                data.render(scope, &mut body);
            }
        }
        body.push(b'}');
        body.extend_from_slice(self.tail.as_bytes());
        body
    }
}

/// Which error answers which violation.
#[derive(Debug)]
pub struct Refusal {
    /// The schema keyword, or any.
    pub keyword: Option<String>,
    /// The field, or any.
    pub field: Option<String>,
    /// The answer.
    pub error: ErrorIx,
}

/// A cross-field rule.
#[derive(Debug)]
pub struct Rule {
    /// For people and tests.
    pub id: String,
    /// JSON pointer to a list, each item of which the rule looks at in the place of the request.
    pub for_each: Option<String>,
    /// A request that satisfies this is refused, if the rule has it.
    pub reject_when: Option<Schema>,
    /// A request in which the first is more than the second is refused, if the rule has it.
    pub exceeds: Option<(Pick, Pick)>,
    /// The answer.
    pub error: ErrorIx,
    /// For people.
    pub note: Option<String>,
}

impl Rule {
    /// Whether it refuses `request`: all that it asks for holds, of the request or of one item of its list.
    pub fn refuses(&self, request: &Value) -> bool {
        match &self.for_each {
            None => self.holds(request),
            Some(list) => {
                let items = request.pointer(list).and_then(Value::as_array);
                items.is_some_and(|items| items.iter().any(|item| self.holds(item)))
            }
        }
    }

    fn holds(&self, request: &Value) -> bool {
        let more = |(value, limit): &(Pick, Pick)| {
            value.number(request).zip(limit.number(request)).is_some_and(|(value, limit)| value > limit)
        };
        self.reject_when.as_ref().is_none_or(|schema| schema.accepts(request))
            && self.exceeds.as_ref().is_none_or(more)
    }
}

/// One step that completes a request.
#[derive(Debug)]
pub struct Fill {
    /// Only for requests that satisfy this.
    pub when: Option<Schema>,
    /// Fields under another name; the new name's own value, if there, gives way.
    pub rename: Vec<(String, String)>,
    /// Values for fields that are absent.
    pub set: Vec<(String, Value)>,
}

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

/// Files that a task makes.
#[derive(Debug)]
pub struct ResultKind {
    /// `mp4`, `png`, `jpeg`.
    pub format: Pick,
    /// Name of a file; `${index}` is its number, from 0.
    pub file: Template,
    /// How many.
    pub count: Option<Pick>,
    /// How large the picture is.
    pub size: Size,
    /// Length in seconds.
    pub seconds: Option<Seconds>,
    /// The parent's length comes on top.
    pub joins_parent: bool,
    /// Whether a video has a sound track.
    pub audio: Option<Pick>,
    /// Whether a picture's background is removed.
    pub transparent: Option<Pick>,
    /// The shorter side in pixels when the backup model made it.
    pub fallback_short_side: Option<u32>,
    /// How long the file is kept, where that is shorter than for the family.
    pub kept: Option<Duration>,
    /// The state, as text, from which the file is there though the task still runs.
    pub ready_at: Option<String>,
}

/// Where the length of a file comes from.
#[derive(Debug)]
pub enum Seconds {
    /// From the request.
    Pick(Pick),
    /// From what is known of the task.
    Template(Template),
}

/// How large a picture is, in pixels.
#[derive(Debug)]
pub enum Size {
    /// Width and height from a table: `[1536, 1024]`.
    Exact(Pick),
    /// A ratio such as `16:9` and the shorter side.
    ShortSide(Pick, Pick),
    /// A ratio and the side of a square of the same area.
    AreaSide(Pick, Pick),
    /// As the result of that name of the parent.
    LikeParent {
        /// The name.
        slot: String,
        /// The ratio where there is no parent.
        aspect: Pick,
        /// Scaled to another shorter side.
        short_side: Option<Pick>,
        /// Times a factor.
        scale: Option<Pick>,
    },
    /// A sound has none.
    None,
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

/// How an operation finds the task it is about.
#[derive(Debug)]
pub struct Lookup {
    /// JSON pointer into the request.
    pub at: String,
    /// The collections that it looks into.
    pub records: Vec<String>,
    /// No id given.
    pub missing: ErrorIx,
    /// No such task.
    pub unknown: Reply,
    /// Records are hidden after this span.
    pub older: Option<(Duration, ErrorIx)>,
    /// The task still runs; if it matters.
    pub unfinished: Option<ErrorIx>,
    /// The task failed; if it matters.
    pub failed: Option<ErrorIx>,
    /// The backup model made the result; if it matters.
    pub by_fallback: Option<ErrorIx>,
}

/// An error by name, or a body.
#[derive(Debug)]
pub enum Reply {
    /// An entry of the catalogue.
    Error(ErrorIx),
    /// A body of its own.
    Body(Template),
}

/// Another version of a result, made on request.
#[derive(Debug)]
pub struct Upgrade {
    /// How the base task is found and what must hold of it.
    pub lookup: Lookup,
    /// JSON pointer to the number of the result file.
    pub index_at: String,
    /// There is no such file.
    pub bad_index: ErrorIx,
    /// The work itself.
    pub task: TaskKind,
    /// Answer to the call that starts it.
    pub started: Reply,
    /// Answer while it runs.
    pub running: Reply,
    /// Answer when it is done.
    pub done: Template,
    /// Whether details of the base task show this record once it is done.
    pub replaces_record: bool,
}

/// How a result's address becomes a link.
#[derive(Debug)]
pub struct Link {
    /// JSON pointer to the address.
    pub url_at: String,
    /// The address is none of the account's (or of the task's, where one is named).
    pub foreign: ErrorIx,
    /// The task that it must come from.
    pub lookup: Option<Lookup>,
}

/// How a file comes in, what it is called, how long it stays.
#[derive(Debug)]
pub struct UploadKind {
    /// Where the bytes are.
    pub from: UploadFrom,
    /// JSON pointer to the folder that the client wants it in.
    pub folder_at: String,
    /// JSON pointer to the name that the client wants for it.
    pub name_at: String,
    /// The name of one without a wish.
    pub made_up: Template,
    /// Folder and name as the host keeps them.
    pub stored_as: Template,
    /// There are no bytes to be had from what the client sent.
    pub unreadable: ErrorIx,
    /// There is no room for it.
    pub no_space: ErrorIx,
    /// How long it can be had.
    pub kept: Duration,
}

/// Where the bytes of an upload are; the name is that of a field.
#[derive(Debug)]
pub enum UploadFrom {
    /// Text in a JSON body: base64, or a data URL.
    Base64(String),
    /// A part of a form.
    Part(String),
    /// At an address that a JSON body names.
    Url(String),
}

/// An error that a call is refused with or a task ends with.
#[derive(Debug)]
pub struct ErrorEntry {
    /// The name by which an outcome brings it about.
    pub id: String,
    /// The family it belongs to; `None` for those of all families.
    pub family: Option<usize>,
    /// The operations it can come from; empty for all of the family.
    pub operations: Vec<String>,
    /// The number in the body.
    pub code: u16,
    /// The text in an answer or callback; `None` is sent as null.
    pub message: Option<Template>,
    /// The text in a record, where it differs.
    pub record_message: Option<Template>,
    /// A call can be refused with it.
    pub refuses: bool,
    /// A task can end with it.
    pub fails: bool,
    /// The ending of the lifecycle that a task takes with it.
    pub ending: String,
    /// HTTP status on the wire.
    pub http: u16,
    /// What the body looks like, where its family has a wording.
    pub form: Option<Template>,
    /// The body has no `data` at all, rather than null.
    pub without_data: bool,
    /// What follows the body: a line feed, or nothing.
    pub tail: &'static str,
    /// What `data` is, where it is not null.
    pub data: Option<Template>,
    /// Headers that came with it.
    pub headers: Vec<(String, String)>,
    /// How sure it is.
    pub evidence: String,
    /// For people.
    pub note: Option<String>,
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

    /// How the host of `operation` words its answers, where it has a way of its own.
    pub fn wording(&self, operation: OperationIx) -> Option<&Wording> {
        self.families[self.operation(operation).family].wording.as_ref()
    }

    /// The body of a refusal that does not come from the API itself but from what stands before it, where the clients of
    /// `operation` expect another form than the envelope.
    pub fn foreign_refusal(&self, operation: OperationIx, status: u16, message: &str) -> Option<Vec<u8>> {
        if let Some(chat) = self.operation(operation).chat() {
            return Some(chat.dialect.refusal(status, message).to_string().into_bytes());
        }
        self.wording(operation).map(|wording| wording.error_body(status, Some(message)))
    }

    /// The body of the answer that refuses a call of `operation` with `error`. In its text `scope` says what the request
    /// was.
    pub fn refusal_body(&self, operation: OperationIx, error: ErrorIx, scope: &dyn Scope) -> Vec<u8> {
        let error = self.error(error);
        let in_wording = |wording: &Wording| wording.error_body(error.code, error.text(scope).as_deref());
        self.wording(operation).map_or_else(|| error.body(scope), in_wording)
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
    /// If the operation makes no tasks.
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

    /// `error` as `operation` has it: under the same id it, or its family, may have one of its own.
    pub fn own_error(&self, operation: OperationIx, error: ErrorIx) -> ErrorIx {
        let (id, operation) = (&self.error(error).id, self.operation(operation));
        let same = self.errors().filter(|(_, other)| other.id == *id);
        let ranked = same.filter_map(|(own, other)| Some((other.nearness(operation)?, own)));
        ranked.min().map_or(error, |(_, own)| own)
    }

    /// The errors that can come from `operation`, those of its own before those of its family, those before the
    /// ones of all families. Of those with the same id only the nearest count.
    pub fn errors_of(&self, operation: OperationIx) -> impl Iterator<Item = (ErrorIx, &ErrorEntry)> {
        let operation = self.operation(operation);
        let hidden = move |error: &ErrorEntry, nearness: u8| {
            let nearer = |other: &ErrorEntry| other.nearness(operation).is_some_and(|other| other < nearness);
            self.errors.iter().any(|other| other.id == error.id && nearer(other))
        };
        (0..3).flat_map(move |wanted| {
            let near = self.errors().filter(move |(_, error)| error.nearness(operation) == Some(wanted));
            near.filter(move |(_, error)| !hidden(error, wanted))
        })
    }
}

impl ErrorEntry {
    /// How near it is to `operation`: 0 if it is its own, 1 of its family, 2 of all; `None` if it cannot come from it.
    fn nearness(&self, operation: &Operation) -> Option<u8> {
        match self.family {
            None => Some(2),
            Some(family) if family != operation.family => None,
            Some(_) if self.operations.is_empty() => Some(1),
            Some(_) => self.operations.contains(&operation.id).then_some(0),
        }
    }
}

fn small(index: usize) -> u16 {
    u16::try_from(index).expect("load refuses catalogues with more than 65,535 entries of a kind")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_compiled_in_is_sound() {
        let catalogue = Catalogue::embedded().unwrap_or_else(|problems| panic!("{}", lines(&problems)));
        catalogue.check_deeply().unwrap_or_else(|problems| panic!("{}", lines(&problems)));
        assert!(catalogue.operations().count() >= 15);
        assert!(catalogue.models().count() >= 20);
    }

    #[test]
    fn a_rule_for_each_item_refuses_what_has_one_bad_item() {
        let pick = |source| Pick::parse(&source).unwrap();
        let end = pick(json!({"from": "/end"}));
        let rule = Rule {
            id: "too_late".into(),
            for_each: Some("/parts".into()),
            reject_when: Some(Schema::new(json!({"required": ["end"]}))),
            exceeds: Some((end, pick(json!({"from": "/limit", "else": 8})))),
            error: ErrorIx(0),
            note: None,
        };
        assert!(rule.refuses(&json!({"parts": [{"end": 8}, {"end": 9}]})));
        for fine in [json!({"parts": [{"end": 8}, {"end": 9, "limit": 9}, {}]}), json!({"end": 9}), json!({})]
        {
            assert!(!rule.refuses(&fine), "{fine}");
        }
    }

    fn lines(problems: &[Problem]) -> String {
        problems.iter().map(|problem| format!("{problem}\n")).collect()
    }
}
