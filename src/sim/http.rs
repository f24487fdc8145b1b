//! From a request to the answer that the upstream would give.
//!
//! In the real server's order: path, method, key, request, task, balance. Whatever the bodies look like stands in the
//! catalogue; here is only which of them is due. The way in and out is here; `check` looks at a request, `create` makes
//! tasks, `tell` answers what is about tasks that are there, `scopes` has what bodies are made of beside a task.

mod check;
mod create;
mod scopes;
mod tell;

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::Request;
use axum::response::Response;
use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::request::Parts;
use http::{HeaderName, HeaderValue, Method, StatusCode};
use serde_json::{Map, Value};

use super::chat::{self, Ask};
use super::fault::Fault;
use super::follow::Objection;
use super::journal::{self, Arriving, Entry, Note};
use super::matching::{Seen, prompt_of};
use super::outcome::{Speech, Wish};
use super::rules::{Chosen, Effect};
use super::sandbox::{Sandbox, World};
use super::settings::{HttpStatus, Settings};
use super::task::{Lineage, SandboxId, TaskKey};
use super::upload::{self, BrokenOff, Brought};
use super::view::{Setting, View, written};
use super::{Event, Owner, Sim, caller, collect, origin};
use crate::catalogue::{
    Behaviour, ErrorIx, Operation, OperationIx, Reply, Resolved, Template, UploadFrom, Wording,
};
use crate::clock::{Draw, Timestamp};
use crate::ids::Credits;
use scopes::{FrameworkScope, PlainScope, RefusalScope};

/// One call while it is answered.
pub(super) struct Call<'a> {
    pub(super) sim: &'a Sim,
    pub(super) index: OperationIx,
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

/// What a call brings.
struct TakenIn {
    /// As an object; or why it is none.
    request: Result<Value, Refused>,
    /// As it came, a form aside.
    body: Bytes,
    /// The file of a form.
    file: Option<Brought>,
}

impl TakenIn {
    /// The request, as far as it is one.
    fn written(&self) -> &Value {
        self.request.as_ref().unwrap_or(&Value::Null)
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

impl Sim {
    /// Answers a request of the API. The caller bounds the body. A sandbox that it makes counts to `owner`. A [`Fault`] among
    /// the answer's extensions says what is to become of it on its way.
    pub async fn answer(&self, request: Request, owner: Option<Owner>) -> Response {
        match self.catalogue().resolve(request.method(), request.uri().path()) {
            Resolved::Operation(operation) => self.operate(operation, request, owner).await,
            Resolved::WrongMethod => self.turn_away(request, owner.as_ref(), Self::wrong_method),
            Resolved::Unknown => self.turn_away(request, owner.as_ref(), |sim, request| {
                sim.framework(&sim.catalogue().shared().unknown_path, request)
            }),
        }
    }

    /// Answers what is no call of the API; whoever has a sandbox finds it in the journal.
    fn turn_away(
        &self,
        request: Request,
        owner: Option<&Owner>,
        answer: impl FnOnce(&Self, &Request) -> Response,
    ) -> Response {
        let response = answer(self, &request);
        let (parts, _) = request.into_parts();
        match self.witness(&parts, &[], None, owner) {
            Some(witness) => witness.answered(response),
            None => response,
        }
    }

    async fn operate(&self, index: OperationIx, request: Request, owner: Option<Owner>) -> Response {
        let operation = self.catalogue().operation(index);
        let (parts, body) = request.into_parts();
        let anybody = || operation.open.then(|| SandboxId::of(""));
        let Some(id) = caller(&parts.extensions, &parts.headers).or_else(anybody) else {
            upload::discard(&parts.headers, body).await;
            let unauthorized = self.catalogue().shared().unauthorized.into();
            return self.refusal(index, unauthorized, &self.parts().settings, &Value::Null);
        };
        let sandbox = self.sandbox(id, owner.as_ref());
        let Ok(brought) = self.take_in(index, &parts, body, &sandbox).await else {
            // The body broke off: nobody is there to read an answer.
            return plain_status(StatusCode::BAD_REQUEST);
        };
        let ask = operation.chat().map(|chat| chat::read(chat, brought.written()));
        let (entry, chosen, settings) = self.enrol(index, &parts, &brought, ask.as_ref(), &sandbox);
        let effect = chosen.as_ref().map(|chosen| &*chosen.effect);
        let latency = effect.and_then(|effect| effect.latency).unwrap_or(settings.latency);
        self.dawdle(&settings, latency, entry.number).await;
        let (response, fault) =
            self.respond(index, &parts, (brought, ask), &sandbox, (settings, effect)).await;
        let name = fault.map(Fault::name);
        let mut response = journal::answer(&sandbox, &entry, self.real_now(), response, name);
        if let Some(fault) = fault {
            response.extensions_mut().insert(fault);
        }
        response
    }

    /// Writes a call down and finds the rule that it goes by, if there is one.
    fn enrol(
        &self,
        index: OperationIx,
        parts: &Parts,
        brought: &TakenIn,
        ask: Option<&Ask>,
        sandbox: &Sandbox,
    ) -> (Arc<Entry>, Option<Chosen>, Settings) {
        let mut world = sandbox.world();
        let real = self.real_now();
        let at = world.clock.at(real);
        let (mut note, mut chosen) = (Note::default(), None);
        if !world.rules.is_empty() && !Wish::stands_in(&parts.headers) {
            let operation = self.catalogue().operation(index);
            let request = brought.written();
            let prompt = ask.map_or_else(|| prompt_of(request), |ask| chat::said(ask).to_owned());
            let subject = Seen {
                operation: &operation.id,
                model: operation.model_of(request).unwrap_or_default(),
                request,
                prompt: &prompt,
                headers: &parts.headers,
            };
            let (number, seed) = (world.journal.next_number(), world.settings.seed);
            (chosen, note.near) = world.rules.choose(&subject, number, seed);
            note.rule = chosen.as_ref().map(|chosen| Arc::clone(&chosen.rule));
        }
        let body = &brought.body;
        let entry = world.journal.write(Arriving { at, real, parts, operation: Some(index), body, note });
        (entry, chosen, world.settings.clone())
    }

    /// The answer to a call, and what is to become of it on its way.
    async fn respond(
        &self,
        index: OperationIx,
        parts: &Parts,
        (TakenIn { request, file, .. }, ask): (TakenIn, Option<Ask>),
        sandbox: &Arc<Sandbox>,
        (settings, effect): (Settings, Option<&Effect>),
    ) -> (Response, Option<Fault>) {
        let operation = self.catalogue().operation(index);
        let written = request.as_ref().unwrap_or(&Value::Null);
        let directed = ask.as_ref().map(|ask| Value::from(chat::said(ask)));
        let refuse = |refused: Refused, request: &Value| self.refusal(index, refused, &settings, request);
        let wish = match Wish::read(&parts.headers, effect, directed.as_ref().unwrap_or(written)) {
            Ok(wish) if ask.is_none() && wish.speech != Speech::default() => {
                let what = "text and tool are for chats, where a model speaks".into();
                return (refuse(Refused::BadWish(what), &Value::Null), None);
            }
            Ok(wish) => wish,
            Err(what) => return (refuse(Refused::BadWish(what), &Value::Null), None),
        };
        let fault = wish.fault;
        if let Some(literal) = effect.and_then(|effect| effect.response.as_ref()).filter(|_| !wish.by_header)
        {
            return (literal.to_response(), fault);
        }
        if let Some(status) = wish.http {
            return (plain_status(StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_GATEWAY)), fault);
        }
        // A refusal that was asked for comes even where the request is none.
        let request = match request {
            Ok(request) => request,
            Err(_) if wish.reject.is_some() => Value::Null,
            Err(refused) => return (refuse(refused, &Value::Null), fault),
        };
        let (origin, sandbox, settings) = (origin(self, parts), Arc::clone(sandbox), settings.clone());
        let call = Call { sim: self, index, operation, sandbox, settings, origin, wish, request };
        let answered = match (&operation.behaviour, &ask) {
            (Behaviour::Chat(chat, body), Some(ask)) => {
                chat::answer(&call, parts.uri.path(), ask, (chat, body)).await
            }
            _ => call.answer(file).await.map(|body| {
                self.json(self.catalogue().wording(index), real_status(&call.settings, &body), body)
            }),
        };
        (answered.unwrap_or_else(|refused| refuse(refused, &call.request)), fault)
    }

    /// Reads what a call brings. The error is the client's connection.
    async fn take_in(
        &self,
        index: OperationIx,
        parts: &Parts,
        body: Body,
        sandbox: &Sandbox,
    ) -> Result<TakenIn, BrokenOff> {
        let operation = self.catalogue().operation(index);
        if let Behaviour::Upload(kind, _) = &operation.behaviour
            && let UploadFrom::Part(part) = &kind.from
        {
            // Seldom, and large.
            let received = Box::pin(self.receive_form(kind, part, &parts.headers, body, sandbox));
            let (request, file) = received.await?;
            // The file itself is not written down, the fields beside it are.
            let body = request.as_ref().map_or_else(|_| Bytes::new(), |fields| fields.to_string().into());
            return Ok(TakenIn { request, body, file });
        }
        let body = collect(body).await.map_err(|_| BrokenOff)?;
        let mut request = self.read_request(index, parts, &body);
        if let (Behaviour::Upload(..), Ok(Value::Object(members))) = (&operation.behaviour, &mut request) {
            // To that host a null is as good as nothing.
            members.retain(|_, value| !value.is_null());
        }
        Ok(TakenIn { request, body, file: None })
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
                let named = self.catalogue().model_label(index, &input);
                let credits = self.catalogue().price_of(index, model, &input);
                Ok(Priced { operation: &operation.id, model: named, credits })
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

    /// Waits as long as the answer to the call of that `number` is to take.
    async fn dawdle(&self, settings: &Settings, (shortest, longest): (Duration, Duration), number: u64) {
        if !longest.is_zero() {
            let spread = u64::try_from(longest.saturating_sub(shortest).as_millis()).unwrap_or(0);
            let more = Draw::new(&[&settings.seed.to_le_bytes(), b"latency", &number.to_le_bytes()])
                .integer(0, spread);
            self.pause(shortest + Duration::from_millis(more)).await;
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
                let envelope =
                    || serde_json::json!({"code": 400, "msg": what, "data": null}).to_string().into_bytes();
                let catalogue = self.catalogue();
                let body = catalogue.foreign_refusal(operation, 400, &what).unwrap_or_else(envelope);
                let mut response = self.json(catalogue.wording(operation), StatusCode::BAD_REQUEST, body);
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
            Behaviour::Create(_, answer) => {
                let (answer, made) = self.create(answer)?;
                if self.wish.callbacks.early {
                    self.sim.told(&self.sandbox, made).await;
                }
                Ok(answer)
            }
            Behaviour::Details(lookup, answer) => self.details(lookup, answer),
            Behaviour::Upgrade(upgrade) => self.upgrade(upgrade),
            Behaviour::Link(link, answer) => self.link(link, answer),
            Behaviour::Discovery(tells, unknown, answer) => self.discover(*tells, *unknown, answer),
            Behaviour::Upload(kind, answer) => Box::pin(self.upload(kind, answer, brought)).await,
            // Chats come by another way, `chat`, as their answers may be streams.
            Behaviour::Plain(answer) | Behaviour::Chat(_, answer) => {
                self.check_request()?;
                let balance = self.with_world(|world, _| world.balance());
                Ok(answer.to_json(&PlainScope { balance, link: None, request: &self.request }))
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
        written(&View::new(self.setting(now), lineage), template)
    }

    fn reply(&self, reply: &Reply, lineage: &Lineage, now: Timestamp) -> Answer {
        match reply {
            Reply::Error(error) => Err((*error).into()),
            Reply::Body(body) => Ok(self.render(body, lineage, now)),
        }
    }
}
