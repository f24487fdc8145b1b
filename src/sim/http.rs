//! From a request to the answer that the upstream would give.
//!
//! In the real server's order: path, method, key, request, task, balance. Whatever the bodies look like stands in the
//! catalogue; here is only which of them is due.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::Request;
use axum::response::Response;
use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::request::Parts;
use http::{HeaderName, HeaderValue, Method, StatusCode};
use serde_json::{Map, Value};

use super::callback;
use super::chat;
use super::follow::{Followed, Objection, follow};
use super::outcome::{Speech, Wish, failed_with, unknown_error};
use super::plan::{Ending, Pace, Plan, State, Tempo};
use super::sandbox::{Sandbox, World};
use super::settings::{HttpStatus, Settings};
use super::task::{Lineage, Task, TaskKey, Worth, fingerprint};
use super::upload::{self, BrokenOff, Brought};
use super::view::{Setting, View, ids, shapes};
use super::{Event, Owner, Sim, bearer, collect, model_label, origin};
use crate::catalogue::{
    Behaviour, ErrorEntry, ErrorIx, Follows, Found, Link, Lookup, ModelChoice, ModelIx, Moment, Operation,
    OperationIx, Refusal, Reply, Resolved, Scope, Tells, Template, Upgrade, UploadFrom, Violation, Wording,
    tell,
};
use crate::clock::{Draw, Timestamp};
use crate::ids::Credits;

/// One call while it is answered.
pub(super) struct Call<'a> {
    pub(super) sim: &'a Sim,
    index: OperationIx,
    pub(super) operation: &'a Operation,
    pub(super) sandbox: Arc<Sandbox>,
    pub(super) settings: Settings,
    pub(super) origin: Arc<str>,
    pub(super) wish: Wish,
    /// The body, or the query as an object of strings.
    pub(super) request: Value,
}

/// Why a call is not answered with success.
pub(super) enum Refused {
    /// With an error of the catalogue.
    Error {
        error: ErrorIx,
        /// The field at fault, where one is.
        field: Option<String>,
        /// The task that is there already, where that is the reason.
        task: Option<TaskKey>,
    },
    /// With an error of the catalogue, for a reason that the real server does not have; a header names it.
    Ours(ErrorIx, &'static str),
    /// What the test asked for makes no sense.
    BadWish(String),
}

impl From<ErrorIx> for Refused {
    fn from(error: ErrorIx) -> Self {
        Self::Error { error, field: None, task: None }
    }
}

impl From<Objection> for Refused {
    fn from(Objection { error, task }: Objection) -> Self {
        Self::Error { error, field: None, task }
    }
}

pub(super) type Answer = Result<Vec<u8>, Refused>;

/// What a create would cost.
pub(super) struct Priced<'c> {
    pub(super) operation: &'c str,
    pub(super) model: &'c str,
    /// `None` where nobody knows.
    pub(super) credits: Option<Credits>,
}

/// A task that a call stands for.
struct Started {
    lineage: Lineage,
    now: Timestamp,
    /// By this very call.
    made: bool,
}

/// What was found of the task that a call is about.
enum Looked {
    /// The task as of now.
    Task(Lineage, Timestamp),
    /// No such task, which the upstream does not call an error: the body says so.
    Nothing(Vec<u8>),
}

impl Sim {
    /// Answers a request of the API. The caller bounds the body. A sandbox that it makes counts to `owner`.
    pub async fn answer(&self, request: Request, owner: Option<Owner>) -> Response {
        match self.catalogue().resolve(request.method(), request.uri().path()) {
            Resolved::Operation(operation) => self.operate(operation, request, owner).await,
            Resolved::WrongMethod => self.wrong_method(&request),
            Resolved::Unknown => self.framework(&self.catalogue().shared().unknown_path, &request),
        }
    }

    async fn operate(&self, index: OperationIx, request: Request, owner: Option<Owner>) -> Response {
        let operation = self.catalogue().operation(index);
        let (parts, body) = request.into_parts();
        let token = bearer(&parts.headers).or(operation.open.then_some(""));
        let Some(token) = token else {
            upload::discard(&parts.headers, body).await;
            let unauthorized = self.catalogue().shared().unauthorized.into();
            return self.refusal(index, unauthorized, &self.parts().settings, &Value::Null);
        };
        let sandbox = self.sandbox(token, owner.as_ref());
        let (settings, answers) = {
            let mut world = sandbox.world();
            world.answers += 1;
            (world.settings.clone(), world.answers)
        };
        self.dawdle(&settings, answers).await;
        let Ok((request, brought)) = self.take_in(index, &parts, body, &sandbox).await else {
            // The body broke off: nobody is there to read an answer.
            return plain_status(StatusCode::BAD_REQUEST);
        };
        let written = request.as_ref().unwrap_or(&Value::Null);
        let ask = operation.chat().map(|chat| chat::read(chat, written));
        let directed = ask.as_ref().map(chat::directed);
        let wish = match Wish::read(&parts.headers, directed.as_ref().unwrap_or(written)) {
            Ok(wish) if ask.is_none() && wish.speech != Speech::default() => {
                let what = Refused::BadWish("text and tool are for chats, where a model speaks".into());
                return self.refusal(index, what, &settings, &Value::Null);
            }
            Ok(wish) => wish,
            Err(what) => return self.refusal(index, Refused::BadWish(what), &settings, &Value::Null),
        };
        if let Some(status) = wish.http {
            return plain_status(StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_GATEWAY));
        }
        let origin = origin(self, &parts);
        // A refusal that was asked for comes even where the request is none.
        let request = match request {
            Ok(request) => request,
            Err(_) if wish.reject.is_some() => Value::Null,
            Err(refused) => return self.refusal(index, refused, &settings, &Value::Null),
        };
        let call = Call { sim: self, index, operation, sandbox, settings, origin, wish, request };
        let answered = match (&operation.behaviour, &ask) {
            (Behaviour::Chat(chat, body), Some(ask)) => {
                chat::answer(&call, parts.uri.path(), ask, (chat, body)).await
            }
            _ => call.answer(brought).await.map(|body| {
                self.json(self.catalogue().wording(index), real_status(&call.settings, &body), body)
            }),
        };
        answered.unwrap_or_else(|refused| self.refusal(index, refused, &call.settings, &call.request))
    }

    /// Reads what a call brings: the request as an object, and the file of a form. The first error is the client's
    /// connection, the second what it sent.
    async fn take_in(
        &self,
        index: OperationIx,
        parts: &Parts,
        body: Body,
        sandbox: &Sandbox,
    ) -> Result<(Result<Value, Refused>, Option<Brought>), BrokenOff> {
        let operation = self.catalogue().operation(index);
        if let Behaviour::Upload(kind, _) = &operation.behaviour
            && let UploadFrom::Part(part) = &kind.from
        {
            return self.receive_form(kind, part, &parts.headers, body, sandbox).await;
        }
        let body = collect(body).await.map_err(|_| BrokenOff)?;
        let mut request = self.read_request(index, parts, &body);
        if let (Behaviour::Upload(..), Ok(Value::Object(members))) = (&operation.behaviour, &mut request) {
            // To that host a null is as good as nothing.
            members.retain(|_, value| !value.is_null());
        }
        Ok((request, None))
    }

    /// What the create at `path` with this `body` would cost in `sandbox`, and which model would do it: `None` if there is
    /// no create there. A request that would be refused gives the refusal's body.
    pub(super) fn price_of(
        &self,
        sandbox: &Arc<Sandbox>,
        path: &str,
        body: Value,
    ) -> Option<Result<Priced<'_>, Value>> {
        let Resolved::Operation(index) = self.catalogue().resolve(&Method::POST, path) else { return None };
        let operation = self.catalogue().operation(index);
        operation.task()?;
        let (settings, origin, wish) = (sandbox.world().settings.clone(), "".into(), Wish::default());
        let sandbox = Arc::clone(sandbox);
        let call = Call { sim: self, index, operation, sandbox, settings, origin, wish, request: body };
        Some(match call.check_request() {
            Ok(model) => {
                let input = call.operation.completed(&call.request);
                let named = model_label(self.catalogue(), index, model, &input.to_string());
                Ok(Priced { operation: &operation.id, model: named, credits: call.price(model, &input) })
            }
            Err(Refused::Error { error, field, task }) => {
                let scope = RefusalScope { request: &call.request, field: field.as_deref(), task };
                let body = self.catalogue().refusal_body(index, error, &scope);
                Err(serde_json::from_slice(&body).unwrap_or_default())
            }
            Err(Refused::Ours(_, what)) => Err(Value::from(what)),
            Err(Refused::BadWish(what)) => Err(Value::from(what)),
        })
    }

    /// Waits as long as the sandbox wants its `answers`th answer to take.
    async fn dawdle(&self, settings: &Settings, answers: u64) {
        let (shortest, longest) = settings.latency;
        if !longest.is_zero() {
            let spread = u64::try_from(longest.saturating_sub(shortest).as_millis()).unwrap_or(0);
            let more = Draw::new(&[&settings.seed.to_le_bytes(), b"latency", &answers.to_le_bytes()])
                .integer(0, spread);
            tokio::time::sleep(shortest + std::time::Duration::from_millis(more)).await;
        }
    }

    /// The request as an object: the body of a POST, the query of a GET.
    fn read_request(&self, index: OperationIx, parts: &Parts, body: &Bytes) -> Result<Value, Refused> {
        let operation = self.catalogue().operation(index);
        let in_path = self.catalogue().path_parameter(&parts.method, parts.uri.path());
        if operation.by_query {
            let mut request = query(parts.uri.query().unwrap_or_default());
            request.extend(in_path.map(|(name, value)| (name.to_owned(), value.into())));
            return Ok(Value::Object(request));
        }
        if operation.request.is_none() {
            return Ok(Value::Null);
        }
        serde_json::from_slice(body)
            .map_err(|_| self.catalogue().own_error(index, self.catalogue().shared().invalid_json).into())
    }

    fn json(&self, wording: Option<&Wording>, status: StatusCode, body: Vec<u8>) -> Response {
        let mut response = Response::new(Body::from(body));
        *response.status_mut() = status;
        let content_type = HeaderValue::from_str(&self.catalogue().shared().content_type);
        response.headers_mut().insert(CONTENT_TYPE, content_type.expect("load checks it"));
        put_headers(&mut response, wording.map_or(&[], |wording| &wording.headers));
        response
    }

    /// The answer to a method that the path does not take: the framework's, or the host's own.
    fn wrong_method(&self, request: &Request) -> Response {
        let catalogue = self.catalogue();
        let operation = catalogue.operation_at(request.uri().path());
        let own = operation.and_then(|at| catalogue.wording(at)?.wrong_method.map(|error| (at, error)));
        match own {
            Some((at, error)) => self.refusal(at, error.into(), &self.parts().settings, &Value::Null),
            None => self.framework(&catalogue.shared().wrong_method, request),
        }
    }

    /// The answer of the framework under the real server: a path or method that does not exist.
    fn framework(&self, (status, body): &(u16, Template), request: &Request) -> Response {
        let scope = FrameworkScope { request, now: self.real_now() };
        let status = StatusCode::from_u16(*status).unwrap_or(StatusCode::NOT_FOUND);
        self.json(None, status, body.to_json(&scope))
    }

    /// A call of `operation` is refused.
    fn refusal(
        &self,
        operation: OperationIx,
        refused: Refused,
        settings: &Settings,
        request: &Value,
    ) -> Response {
        let (error, field, task, ours) = match refused {
            Refused::Error { error, field, task } => (error, field, task, None),
            Refused::Ours(error, reason) => (error, None, None, Some(reason)),
            Refused::BadWish(what) => {
                let body = serde_json::json!({"code": 400, "msg": what, "data": null});
                let mut response = self.json(None, StatusCode::BAD_REQUEST, body.to_string().into_bytes());
                response.headers_mut().insert(REASON, HeaderValue::from_static("bad_outcome"));
                return response;
            }
        };
        let (catalogue, wording) = (self.catalogue(), self.catalogue().wording(operation));
        let error = catalogue.own_error(operation, error);
        let scope = RefusalScope { request, field: field.as_deref(), task };
        let (entry, body) = (catalogue.error(error), catalogue.refusal_body(operation, error, &scope));
        let status = match settings.http_status {
            HttpStatus::Wire => entry.http,
            HttpStatus::Real => entry.code,
        };
        let status = StatusCode::from_u16(status).unwrap_or(StatusCode::OK);
        let mut response = self.json(wording, status, body);
        put_headers(&mut response, &entry.headers);
        if let Some(reason) = ours {
            response.headers_mut().insert(REASON, HeaderValue::from_static(reason));
        }
        response
    }
}

/// Why, where it is the simulator that refuses and not the server that it plays.
const REASON: HeaderName = HeaderName::from_static("x-kiegate-error");

fn put_headers(response: &mut Response, headers: &[(String, String)]) {
    for (name, value) in headers {
        if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::try_from(value)) {
            response.headers_mut().insert(name, value);
        }
    }
}

/// The status for a body of the catalogue that carries its own code.
fn real_status(settings: &Settings, body: &[u8]) -> StatusCode {
    #[derive(serde::Deserialize)]
    struct Code {
        code: u16,
    }
    let code =
        || serde_json::from_slice::<Code>(body).ok().and_then(|body| StatusCode::from_u16(body.code).ok());
    Some(settings.http_status)
        .filter(|status| *status == HttpStatus::Real)
        .and_then(|_| code())
        .unwrap_or(StatusCode::OK)
}

/// What a proxy in front of the real server would say.
fn plain_status(status: StatusCode) -> Response {
    let page = format!(
        "<html><head><title>{status}</title></head><body><center><h1>{status}</h1></center></body></html>\n"
    );
    let mut response = Response::new(Body::from(page));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/html"));
    response
}

fn query(text: &str) -> Map<String, Value> {
    form_urlencoded::parse(text.as_bytes()).map(|(name, value)| (name.into_owned(), value.into())).collect()
}

impl Call<'_> {
    async fn answer(&self, brought: Option<Brought>) -> Answer {
        self.begin()?;
        match &self.operation.behaviour {
            Behaviour::Create(_, answer) => self.create(answer),
            Behaviour::Details(lookup, answer) => self.details(lookup, answer),
            Behaviour::Upgrade(upgrade) => self.upgrade(upgrade),
            Behaviour::Link(link, answer) => self.link(link, answer),
            Behaviour::Discovery(tells, unknown, answer) => self.discover(*tells, *unknown, answer),
            Behaviour::Upload(kind, answer) => self.upload(kind, answer, brought).await,
            // Chats come by another way, `chat`, as their answers may be streams.
            Behaviour::Plain(answer) | Behaviour::Chat(_, answer) => {
                self.check_request()?;
                let balance = self.with_world(|world, _| world.balance());
                Ok(answer.to_json(&PlainScope { balance, link: None }))
            }
        }
    }

    /// Refuses what is wished to be refused, and brings the sandbox up to now.
    pub(super) fn begin(&self) -> Result<(), Refused> {
        if let Some(wanted) = &self.wish.reject {
            return Err(self.wished_refusal(wanted));
        }
        let (_, finished) = self.sim.settled(&mut self.sandbox.world());
        self.sim.tell_finished(&self.sandbox, &finished);
        Ok(())
    }

    /// Tells of something that happened.
    pub(super) fn tell(&self, event: &Event<'_>) {
        self.sim.parts().observer.observe(event);
    }

    /// The refusal of who cannot pay.
    pub(super) fn insufficient(&self) -> Refused {
        let catalogue = self.sim.catalogue();
        catalogue.own_error(self.index, catalogue.shared().insufficient).into()
    }

    pub(super) fn with_world<T>(&self, then: impl FnOnce(&mut World, Timestamp) -> T) -> T {
        let mut world = self.sandbox.world();
        let now = world.clock.at(self.sim.real_now());
        then(&mut world, now)
    }

    fn setting(&self, now: Timestamp) -> Setting<'_> {
        Setting {
            catalogue: self.sim.catalogue(),
            sandbox: self.sandbox.id,
            now,
            origin: &self.origin,
            request: &self.request,
        }
    }

    /// The body of `template` about the task of `lineage`.
    fn render(&self, template: &Template, lineage: &Lineage, now: Timestamp) -> Vec<u8> {
        template.to_json(&View::new(self.setting(now), lineage))
    }

    fn reply(&self, reply: &Reply, lineage: &Lineage, now: Timestamp) -> Answer {
        match reply {
            Reply::Error(error) => Err((*error).into()),
            Reply::Body(body) => Ok(self.render(body, lineage, now)),
        }
    }

    /// The refusal that a test asked for, by code or error id.
    fn wished_refusal(&self, wanted: &str) -> Refused {
        let mut known = self.sim.catalogue().errors_of(self.index).filter(|(_, error)| error.refuses);
        let fits = |error: &ErrorEntry| error.id == wanted || wanted.parse() == Ok(error.code);
        match known.find(|(_, error)| fits(error)) {
            Some((error, _)) => error.into(),
            None => {
                Refused::BadWish(unknown_error(self.sim.catalogue(), self.index, "reject", wanted, |error| {
                    error.refuses
                }))
            }
        }
    }

    /// Checks the request against schema and rules; gives the model where one is named.
    pub(super) fn check_request(&self) -> Result<Option<ModelIx>, Refused> {
        let catalogue = self.sim.catalogue();
        let mut model = None;
        if let Some(ModelChoice::Market { at, unknown, .. }) = self.operation.task().map(|task| &task.model) {
            let name = self.request.pointer(at).and_then(Value::as_str).unwrap_or_default();
            let found = catalogue.model_by_name(self.index, name);
            model = Some(found.ok_or(*unknown)?);
        }
        self.check_schema()?;
        if let (Some(found), Some(ModelChoice::Market { input, .. })) =
            (model, self.operation.task().map(|task| &task.model))
        {
            let entry = catalogue.model(found);
            let input = self.request.get(input).unwrap_or(&Value::Null);
            if let Some(violation) = entry.input.violation(input) {
                return Err(self.violated(violation, &entry.refusals));
            }
            if let Some(rule) = entry.rules.iter().find(|rule| rule.refuses(input)) {
                return Err(rule.error.into());
            }
        }
        match self.operation.rules.iter().find(|rule| rule.refuses(&self.request)) {
            Some(rule) => Err(rule.error.into()),
            None => Ok(model),
        }
    }

    /// Checks the request against the operation's schema.
    fn check_schema(&self) -> Result<(), Refused> {
        let violation = self.operation.request.as_ref().and_then(|schema| schema.violation(&self.request));
        violation.map_or(Ok(()), |violation| Err(self.violated(violation, &[])))
    }

    fn violated(&self, violation: Violation, first: &[Refusal]) -> Refused {
        let fits = |refusal: &&Refusal| {
            refusal.keyword.as_ref().is_none_or(|keyword| keyword == violation.keyword)
                && refusal.field.as_ref().is_none_or(|field| *field == violation.field)
        };
        let refusal = first.iter().chain(&self.operation.refusals).find(fits);
        let error = refusal.map_or(self.sim.catalogue().shared().invalid_json, |refusal| refusal.error);
        Refused::Error { error, field: Some(violation.field), task: None }
    }

    fn create(&self, answer: &Template) -> Answer {
        let model = self.check_request()?;
        let input = self.operation.completed(&self.request);
        let Started { lineage, now, .. } = self.start(model, &input, None)?;
        let catalogue = self.sim.catalogue();
        if let (true, Ending::Fail(error)) =
            (catalogue.lifecycle(self.index, model).inline, lineage.task.plan.ending())
        {
            return Err(error.into());
        }
        let own = model.and_then(|model| catalogue.model(model).answer.as_ref());
        let balance = self.with_world(|world, _| world.balance());
        let scope = AnswerScope { view: &View::new(self.setting(now), &lineage), balance };
        Ok(own.unwrap_or(answer).to_json(&scope))
    }

    /// Makes a task, pays for it, plans its callbacks. `upgrade_of` names the base task and the key of an upgrade, which
    /// is made once: the one that is there already is given back as such.
    fn start(
        &self,
        model: Option<ModelIx>,
        input: &Value,
        upgrade_of: Option<(TaskKey, TaskKey)>,
    ) -> Result<Started, Refused> {
        let started = {
            let mut world = self.sandbox.world();
            let now = world.clock.at(self.sim.real_now());
            let there = upgrade_of.and_then(|(_, key)| world.lineage(key));
            match there {
                Some(lineage) => return Ok(Started { lineage, now, made: false }),
                None => self.start_in(&mut world, now, model, input, upgrade_of)?,
            }
        };
        let (lineage, callbacks, forgotten, now) = started;
        self.sim.drive(&self.sandbox);
        let (observer, owner) = (&self.sim.parts().observer, &*self.sandbox.owner);
        let model = model_label(self.sim.catalogue(), self.index, model, &lineage.task.input);
        let credits = lineage.task.price;
        observer.observe(&Event::TaskCreated { owner, operation: &self.operation.id, model, credits });
        observer.observe(&Event::CallbacksPlanned { owner, count: callbacks });
        observer.observe(&Event::TasksForgotten { owner, running: forgotten, callbacks: 0 });
        Ok(Started { lineage, now, made: true })
    }

    fn start_in(
        &self,
        world: &mut World,
        now: Timestamp,
        model: Option<ModelIx>,
        input: &Value,
        upgrade_of: Option<(TaskKey, TaskKey)>,
    ) -> Result<(Lineage, usize, usize, Timestamp), Refused> {
        let catalogue = self.sim.catalogue();
        let (most, span, too_many) = catalogue.shared().quota;
        if self.settings.emulate_quota && world.exceeds_quota(most, span, now) {
            return Err(too_many.into());
        }
        let followed = match upgrade_of {
            Some((base, _)) => Followed { task: Some(base), ..Followed::default() },
            None => self.followed(world, now, model, input)?,
        };
        let price = self.price(model, input).unwrap_or_default();
        if world.balance() < price {
            return Err(catalogue.shared().insufficient.into());
        }
        let kind = self.operation.task().expect("only tasks are started");
        let print = || fingerprint(&self.request, &kind.callback_at);
        let key = upgrade_of
            .map_or_else(|| world.new_key(self.sandbox.id, &self.operation.id, &print()), |(_, key)| key);
        let inherits = followed
            .task
            .and_then(|parent| world.lineage(parent))
            .map(|lineage| shapes(&View::new(self.setting(now), &lineage)));
        let plan = self.plan(key, now, model, input, followed.fate)?;
        let task = Task {
            operation: self.index,
            model,
            worth: Worth::of(catalogue, catalogue.lifecycle(self.index, model), plan.ending()),
            plan,
            input: input.to_string().into(),
            origin: Arc::clone(&self.origin),
            parent: followed.task,
            chosen: followed.chosen,
            ids: ids(catalogue, self.index, model, key),
            price,
            callbacks: self.wish.callbacks,
            inherits: inherits.unwrap_or_default(),
        };
        let callbacks = callback::plan(world, self.sim, key, &task);
        let forgotten = world.insert(key, task, now);
        if self.follows(model).is_some_and(|follows| follows.once.is_some()) {
            world.note_once(key);
        }
        let lineage = world.lineage(key).expect("it was put in a moment ago");
        Ok((lineage, callbacks, forgotten, now))
    }

    /// What the request costs; `None` where nobody knows.
    fn price(&self, model: Option<ModelIx>, input: &Value) -> Option<Credits> {
        let catalogue = self.sim.catalogue();
        let task = self.operation.task().expect("only tasks are priced");
        match (model, &task.model) {
            (Some(model), ModelChoice::Market { input: field, .. }) => {
                let parameters = input.get(field).unwrap_or(&Value::Null);
                catalogue.model(model).price.as_ref().and_then(|price| price.of(parameters))
            }
            _ => task.price.as_ref().and_then(|price| price.of(input)),
        }
    }

    fn follows(&self, model: Option<ModelIx>) -> Option<&Follows> {
        match model {
            Some(model) => self.sim.catalogue().model(model).follows.as_ref(),
            None => self.operation.task().and_then(|task| task.follows.as_ref()),
        }
    }

    /// The task that this one goes on from.
    fn followed(
        &self,
        world: &World,
        now: Timestamp,
        model: Option<ModelIx>,
        input: &Value,
    ) -> Result<Followed, Refused> {
        let Some(follows) = self.follows(model) else { return Ok(Followed::default()) };
        let input = match self.operation.task().map(|task| &task.model) {
            Some(ModelChoice::Market { input: field, .. }) => input.get(field).unwrap_or(&Value::Null),
            _ => input,
        };
        Ok(follow(self.sim.catalogue(), world, now, (self.index, model), follows, input)?)
    }

    fn plan(
        &self,
        key: TaskKey,
        now: Timestamp,
        model: Option<ModelIx>,
        input: &Value,
        fate: Option<ErrorIx>,
    ) -> Result<Plan, Refused> {
        let catalogue = self.sim.catalogue();
        let mut draw = Draw::new(&[key.bytes(), b"plan"]);
        let ending = match fate {
            Some(error) => Ending::Fail(error),
            None => self.ending(input, key)?,
        };
        let lifecycle = catalogue.lifecycle(self.index, model);
        if lifecycle.inline && ending == Ending::Stall {
            return Err(Refused::BadWish(format!("stall: {} answers at once", self.operation.id)));
        }
        let moment = match ending {
            Ending::Fail(error) => {
                lifecycle.ending(&catalogue.error(error).ending).map_or(Moment::Late, |end| end.moment)
            }
            _ => Moment::Late,
        };
        let tempo = if lifecycle.inline {
            Tempo { pace: Pace::Instant, exactly: None }
        } else {
            Tempo { pace: self.settings.pace, exactly: self.wish.delay }
        };
        Ok(Plan::decide(lifecycle, now, ending, moment, tempo, &mut draw))
    }

    /// How the task ends: as wished, by chance, or well.
    fn ending(&self, input: &Value, key: TaskKey) -> Result<Ending, Refused> {
        let catalogue = self.sim.catalogue();
        if let Some(wished) = &self.wish.ending {
            return wished.ending(catalogue, self.index, input).map_err(Refused::BadWish);
        }
        let failed = |error| failed_with(catalogue, self.index, error, input);
        Ok(self.chance_failure(key).map_or(Ending::Success { fallback: false }, failed))
    }

    /// The error that chance lets the task fail with, if it does.
    fn chance_failure(&self, key: TaskKey) -> Option<ErrorIx> {
        let mut draw = Draw::new(&[key.bytes(), b"failure"]);
        if draw.fraction() >= self.settings.failure_rate {
            return None;
        }
        let errors: Vec<_> =
            self.sim.catalogue().errors_of(self.index).filter(|(_, error)| error.fails).collect();
        let last = (errors.len() as u64).checked_sub(1)?;
        usize::try_from(draw.integer(0, last))
            .ok()
            .and_then(|index| errors.get(index))
            .map(|(error, _)| *error)
    }

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

    fn details(&self, lookup: &Lookup, answer: &Template) -> Answer {
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

    fn upgrade(&self, upgrade: &Upgrade) -> Answer {
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
    fn discover(&self, tells: Tells, unknown: ErrorIx, answer: &Template) -> Answer {
        self.check_schema()?;
        let now = self.with_world(|_, now| now);
        let found = tell(self.sim.catalogue(), tells, &self.request, now).ok_or(unknown)?;
        Ok(answer.to_json(&FoundScope(&found)))
    }

    fn link(&self, link: &Link, answer: &Template) -> Answer {
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
        Ok(answer.to_json(&PlainScope { balance: Credits::ZERO, link: Some(link) }))
    }
}

/// A number from 0, be it written as one or as text.
fn whole_number(value: &Value) -> Option<usize> {
    value.as_u64().and_then(|number| usize::try_from(number).ok()).or_else(|| value.as_str()?.parse().ok())
}

/// What the text of a refusal may be made of.
struct RefusalScope<'a> {
    request: &'a Value,
    field: Option<&'a str>,
    task: Option<TaskKey>,
}

impl Scope for RefusalScope<'_> {
    fn lookup<'s>(&'s self, path: &[Box<str>]) -> Found<'s> {
        match path {
            [root, field] if &**root == "request" => {
                self.request.get(&**field).map_or(Found::Missing, Into::into)
            }
            [root, what] if &**root == "refusal" && &**what == "task" => {
                self.task.map_or(Found::Missing, |task| Found::Text(task.to_string()))
            }
            [root, _] if &**root == "refusal" => {
                self.field.filter(|field| !field.is_empty()).map_or(Found::Missing, Found::Str)
            }
            _ => Found::Missing,
        }
    }
}

/// What the answer to a create may be made of.
struct AnswerScope<'a> {
    view: &'a View<'a>,
    balance: Credits,
}

impl Scope for AnswerScope<'_> {
    fn lookup<'s>(&'s self, path: &[Box<str>]) -> Found<'s> {
        match path.first().map(|root| &**root) {
            Some("account") => self.balance.into(),
            _ => self.view.lookup(path),
        }
    }
}

/// What an answer that is about no task may be made of.
struct PlainScope {
    balance: Credits,
    link: Option<String>,
}

impl Scope for PlainScope {
    fn lookup<'s>(&'s self, path: &[Box<str>]) -> Found<'s> {
        match path.first().map(|root| &**root) {
            Some("account") => self.balance.into(),
            Some("link") => self.link.as_deref().map_or(Found::Missing, Found::Str),
            _ => Found::Missing,
        }
    }
}

/// What an answer about the catalogue is made of.
struct FoundScope<'a>(&'a Value);

impl Scope for FoundScope<'_> {
    fn lookup<'s>(&'s self, path: &[Box<str>]) -> Found<'s> {
        match path {
            [root, rest @ ..] if &**root == "found" => {
                let found = rest.iter().try_fold(self.0, |value, name| value.get(&**name));
                found.map_or(Found::Missing, Into::into)
            }
            _ => Found::Missing,
        }
    }
}

/// What the framework's own answers are made of.
struct FrameworkScope<'a> {
    request: &'a Request,
    now: Timestamp,
}

impl Scope for FrameworkScope<'_> {
    fn lookup<'s>(&'s self, path: &[Box<str>]) -> Found<'s> {
        match path.get(1).map(|field| &**field) {
            Some("timestamp") => self.now.into(),
            Some("method") => Found::Str(self.request.method().as_str()),
            Some("path") => Found::Str(self.request.uri().path()),
            _ => Found::Missing,
        }
    }
}
