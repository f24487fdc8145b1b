//! `/_mock`: how a test steers its own sandbox and asks what happened in it.
//!
//! Always about the caller's own world, known by its bearer token; only an inbox takes posts from strangers, at an
//! address that nobody can guess. Bodies are read strictly: what is not understood is refused, and the answer says
//! where and what there is instead.

mod journal;
mod rules;
mod snapshot;

use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, FromRequestParts, Path, RawQuery, Request, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get, post};
use axum::{Json, Router};
use http::request::Parts;
use http::{HeaderMap, StatusCode};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::ANYBODY;
use super::http::Priced;
use super::outcome::{self, VOCABULARY, Wish, WishedEnding};
use super::plan::{Ending, State as TaskState};
use super::sandbox::{Sandbox, World};
use super::settings::Settings;
use super::task::{Lineage, SandboxId, Task, TaskKey, Worth};
use super::view::{Setting, View};
use super::{Event, Owner, Sim, callback, caller, origin};
use crate::catalogue::ErrorEntry;
use crate::clock::{Timestamp, parse_duration};
use crate::error::ProblemDocument;
use crate::ids::Credits;

type Answer = Result<Json<Value>, ProblemDocument>;

/// The routes of the control API, its inboxes and the result files.
pub fn routes(sim: Sim) -> Router {
    Router::new()
        .route("/_mock/catalog", get(catalogue))
        .route("/_mock/reset", post(reset))
        .route("/_mock/settings", get(settings).put(change_settings))
        .route("/_mock/clock", get(clock).put(change_clock))
        .route("/_mock/clock/advance", post(advance))
        .route("/_mock/credits", get(credits).put(change_credits))
        .route("/_mock/price", post(price))
        .route("/_mock/tasks", get(tasks))
        .route("/_mock/tasks/{id}", get(task))
        .route("/_mock/tasks/{id}/finish", post(finish))
        .route("/_mock/rules", get(rules::list).post(rules::add).delete(rules::clear))
        .route("/_mock/rules/{id}", get(rules::show).delete(rules::delete))
        .route("/_mock/requests", get(journal::requests).delete(journal::clear))
        .route("/_mock/verify", post(journal::verify))
        .route("/_mock/verdict", get(journal::verdict))
        .route("/_mock/snapshot", get(snapshot::take).put(snapshot::put_back))
        .route("/_mock/callbacks", get(callbacks))
        .route("/_mock/inbox", get(inbox))
        .route("/_mock/inbox/{name}", get(arrivals).put(program_inbox))
        .route("/_mock/inbox/{sandbox}/{name}", post(receive))
        .route("/_mock/{*unknown}", any(unknown))
        .method_not_allowed_fallback(wrong_method)
        .route("/_media/{*file}", any(media))
        // The gateway bounds bodies.
        .layer(DefaultBodyLimit::disable())
        .with_state(sim)
}

/// The sandbox of the caller, and the host by which it called.
struct Caller {
    sandbox: Arc<Sandbox>,
    origin: Arc<str>,
}

impl FromRequestParts<Sim> for Caller {
    type Rejection = ProblemDocument;

    async fn from_request_parts(parts: &mut Parts, sim: &Sim) -> Result<Self, Self::Rejection> {
        let id = caller(&parts.extensions, &parts.headers).ok_or_else(|| {
            let detail = "the control API is about your own sandbox: send the bearer token that your client uses, \
                          as in `Authorization: Bearer demo`";
            ProblemDocument::new(StatusCode::UNAUTHORIZED, detail)
        })?;
        Ok(Self { sandbox: sim.sandbox(id, parts.extensions.get::<Owner>()), origin: origin(sim, parts) })
    }
}

impl Caller {
    /// Runs `then` on the world, brought up to now.
    fn with_world<T>(&self, sim: &Sim, then: impl FnOnce(&mut World, Timestamp) -> T) -> T {
        let (value, finished) = {
            let mut world = self.sandbox.world();
            let (now, finished) = sim.settled(&mut world);
            (then(&mut world, now), finished)
        };
        sim.tell_finished(&self.sandbox, &finished);
        value
    }
}

/// The names in the path; ones that are no text are told as everything else here is.
struct Named<T>(T);

impl<T: for<'de> Deserialize<'de> + Send> FromRequestParts<Sim> for Named<T> {
    type Rejection = ProblemDocument;

    async fn from_request_parts(parts: &mut Parts, sim: &Sim) -> Result<Self, Self::Rejection> {
        let wrong = |_| ProblemDocument::bad_request("the path is no text in UTF-8");
        Path::from_request_parts(parts, sim).await.map(|Path(names)| Self(names)).map_err(wrong)
    }
}

/// The fields of a JSON body or a query, none of them unknown.
struct Fields {
    known: &'static [&'static str],
    members: Map<String, Value>,
}

impl Fields {
    /// Reads a body that may have the fields `known`; an empty one has none of them.
    fn read(body: &Bytes, known: &'static [&'static str]) -> Result<Self, ProblemDocument> {
        let wrong = |what: &str| {
            ProblemDocument::bad_request(format!(
                "body: {what}; send a JSON object with {}",
                known.join(", ")
            ))
        };
        let members = if body.is_empty() {
            Map::new()
        } else {
            match serde_json::from_slice(body) {
                Ok(Value::Object(members)) => members,
                Ok(_) => return Err(wrong("is no JSON object")),
                Err(_) => return Err(wrong("is no JSON")),
            }
        };
        match members.keys().find(|name| !known.contains(&name.as_str())) {
            Some(name) => Err(wrong(&format!("unknown field \"{name}\""))),
            None => Ok(Self { known, members }),
        }
    }

    /// Reads the query of a request, which may have the fields `known`, each once; their values are texts.
    fn read_query(query: Option<&str>, known: &'static [&'static str]) -> Result<Self, ProblemDocument> {
        let mut members = Map::new();
        for (name, value) in form_urlencoded::parse(query.unwrap_or_default().as_bytes()) {
            let wrong = |what: &str| {
                ProblemDocument::bad_request(format!(
                    "query: {what} \"{name}\"; there are {}, each at most once",
                    known.join(", ")
                ))
            };
            if !known.contains(&&*name) {
                return Err(wrong("unknown field"));
            }
            if members.insert(name.clone().into_owned(), value.into_owned().into()).is_some() {
                return Err(wrong("two values for"));
            }
        }
        Ok(Self { known, members })
    }

    /// The whole number in the query's field `name`.
    fn take_count(&mut self, name: &str) -> Result<Option<usize>, ProblemDocument> {
        self.take(name, "a whole number from 0", |value| value.as_str()?.parse().ok())
    }

    /// The field `name` as `read` understands it; `expected` says what that is.
    fn take<T>(
        &mut self,
        name: &str,
        expected: &str,
        read: impl Fn(&Value) -> Option<T>,
    ) -> Result<Option<T>, ProblemDocument> {
        debug_assert!(self.known.contains(&name), "{name} is not among the known fields");
        match self.members.get(name).filter(|value| !value.is_null()) {
            None => Ok(None),
            Some(value) => {
                let wrong = || ProblemDocument::bad_request(format!("{name}: {value} is not {expected}"));
                read(value).map(Some).ok_or_else(wrong)
            }
        }
    }
}

async fn unknown(request: Request) -> ProblemDocument {
    let detail = format!(
        "there is no {} {}; there are catalog, reset, settings, clock, clock/advance, credits, price, tasks, tasks/<id>, \
         tasks/<id>/finish, rules, rules/<id>, requests, verify, verdict, snapshot, callbacks, inbox, inbox/<name> below /_mock",
        request.method(),
        request.uri().path()
    );
    ProblemDocument::new(StatusCode::NOT_FOUND, detail)
}

async fn wrong_method(request: Request) -> ProblemDocument {
    let detail = format!("{} does not take {}", request.uri().path(), request.method());
    ProblemDocument::new(StatusCode::METHOD_NOT_ALLOWED, detail)
}

async fn media(State(sim): State<Sim>, request: Request) -> Response {
    let (parts, _) = request.into_parts();
    sim.download(&parts).await
}

async fn catalogue(State(sim): State<Sim>, _: Caller) -> Json<Value> {
    let catalogue = sim.catalogue();
    let operations = catalogue.operations().map(|(index, operation)| {
        let errors = |fits: fn(&ErrorEntry) -> bool| -> Vec<Value> {
            let fitting = catalogue.errors_of(index).filter(|(_, error)| fits(error));
            fitting
                .map(|(_, error)| json!({"id": error.id, "code": error.code, "evidence": error.evidence}))
                .collect()
        };
        json!({
            "id": operation.id,
            "family": catalogue.families()[operation.family].id,
            "method": operation.method.as_str(),
            "path": operation.path,
            "summary": operation.summary,
            "fail": if operation.task().is_some() { errors(|error| error.fails) } else { Vec::new() },
            "reject": errors(|error| error.refuses),
        })
    });
    let models = catalogue.models().map(|(_, model)| {
        json!({"model": model.name, "operation": catalogue.operation(model.operation).id, "kind": model.kind, "title": model.title})
    });
    let (operations, models): (Vec<_>, Vec<_>) = (operations.collect(), models.collect());
    Json(json!({"operations": operations, "models": models, "outcomes": VOCABULARY}))
}

async fn reset(State(sim): State<Sim>, caller: Caller) -> Json<Value> {
    replace_world(&sim, &caller, fresh_world(&sim));
    caller.sandbox.changed.notify_waiters();
    Json(json!({"ok": true}))
}

/// What a sandbox is at first.
fn fresh_world(sim: &Sim) -> World {
    let parts = sim.parts();
    World::new(parts.settings.clone(), parts.credits, super::time::VirtualClock::real(sim.real_now()))
}

/// Puts `new` in the place of the caller's world, and tells what is forgotten with the old one.
fn replace_world(sim: &Sim, caller: &Caller, new: World) {
    let owner = &caller.sandbox.owner;
    let ((running, callbacks), tasks, finished) = {
        let mut world = caller.sandbox.world();
        let (now, finished) = sim.settled(&mut world);
        let forgotten = world.unsettled();
        // Nobody asks for those of nobody, and there may be a million of them.
        let tasks = if &**owner == ANYBODY { Vec::new() } else { world.running_at(now) };
        world.empty(new);
        (forgotten, tasks, finished)
    };
    sim.tell_finished(&caller.sandbox, &finished);
    sim.parts().observer.observe(&Event::TasksForgotten { owner, running, tasks: &tasks, callbacks });
}

async fn settings(State(sim): State<Sim>, caller: Caller) -> Json<Value> {
    Json(caller.with_world(&sim, |world, _| world.settings.to_json()))
}

async fn change_settings(State(sim): State<Sim>, caller: Caller, body: Bytes) -> Answer {
    let Fields { members: changes, .. } = Fields::read(&body, &Settings::NAMES)?;
    caller.with_world(&sim, |world, _| {
        world.settings = world.settings.changed(&changes).map_err(ProblemDocument::bad_request)?;
        world.journal.bound(world.settings.journal);
        Ok(Json(world.settings.to_json()))
    })
}

fn clock_json(world: &World, now: Timestamp) -> Value {
    json!({"now": now, "iso": now.to_rfc3339(), "rate": world.clock.rate()})
}

async fn clock(State(sim): State<Sim>, caller: Caller) -> Json<Value> {
    Json(caller.with_world(&sim, |world, now| clock_json(world, now)))
}

async fn change_clock(State(sim): State<Sim>, caller: Caller, body: Bytes) -> Answer {
    let mut fields = Fields::read(&body, &["now", "rate"])?;
    let target =
        fields.take("now", "a time in milliseconds since 1970 or as 2026-11-01T12:00:00Z", |value| {
            let millis = value.as_i64().map(Timestamp::from_millis);
            millis.or_else(|| Timestamp::parse_rfc3339(value.as_str()?))
        })?;
    let rate = fields.take("rate", "a number from 0 (frozen) to 1000000", |value| {
        value.as_f64().filter(|rate| (0.0..=1_000_000.0).contains(rate))
    })?;
    let shown = caller.with_world(&sim, |world, now| {
        // A world without tasks has no past that could be undone.
        let is_used = !world.tasks.is_empty() || world.guest.is_waiting();
        if target.is_some_and(|target| target < now) && is_used {
            let detail = "now: the clock does not go back while there are tasks; POST /_mock/reset first";
            return Err(ProblemDocument::bad_request(detail));
        }
        let real = sim.real_now();
        if let Some(target) = target {
            world.clock.set(target, real);
        }
        if let Some(rate) = rate {
            world.clock.set_rate(rate, real);
        }
        let now = world.clock.at(real);
        Ok(clock_json(world, now))
    })?;
    sim.drive(&caller.sandbox);
    Ok(Json(shown))
}

async fn advance(State(sim): State<Sim>, caller: Caller, body: Bytes) -> Answer {
    let mut fields = Fields::read(&body, &["by", "until"])?;
    let by = fields.take("by", "a duration such as \"90s\", \"15m\" or \"14d\"", |value| {
        parse_duration(value.as_str()?)
    })?;
    let until_idle = fields.take("until", "\"idle\"", |value| (value == "idle").then_some(()))?;
    let target = match (by, until_idle) {
        (Some(by), None) => Some(caller.with_world(&sim, |_, now| now) + by),
        (None, Some(())) => None,
        _ => {
            return Err(ProblemDocument::bad_request(
                "say either {\"by\": \"90s\"} or {\"until\": \"idle\"}",
            ));
        }
    };
    let events = sim.advance(&caller.sandbox, target).await;
    sim.drive(&caller.sandbox);
    let mut shown = caller.with_world(&sim, |world, now| clock_json(world, now));
    shown["events"] = events.into();
    Ok(Json(shown))
}

async fn credits(State(sim): State<Sim>, caller: Caller) -> Json<Value> {
    Json(json!({"credits": caller.with_world(&sim, |world, _| world.balance())}))
}

async fn change_credits(State(sim): State<Sim>, caller: Caller, body: Bytes) -> Answer {
    let mut fields = Fields::read(&body, &["credits"])?;
    let credits = fields.take("credits", "a number", |value| Credits::from_f64(value.as_f64()?))?;
    let credits = credits
        .ok_or_else(|| ProblemDocument::bad_request("credits: say how many, as in {\"credits\": 500}"))?;
    caller.with_world(&sim, |world, _| world.set_balance(credits));
    Ok(Json(json!({"credits": credits})))
}

async fn price(State(sim): State<Sim>, caller: Caller, body: Bytes) -> Answer {
    let mut fields = Fields::read(&body, &["path", "body"])?;
    let path = fields.take("path", "a path such as \"/api/v1/jobs/createTask\"", |value| {
        value.as_str().map(str::to_owned)
    })?;
    let request = fields.take("body", "JSON", |value| Some(value.clone()))?.unwrap_or_default();
    let path = path.ok_or_else(|| {
        ProblemDocument::bad_request("path: say which create, as in \"/api/v1/jobs/createTask\"")
    })?;
    let priced = sim.price_of(&caller.sandbox, &path, request);
    let priced = priced.ok_or_else(|| {
        ProblemDocument::bad_request(format!("path: {path} is no create that costs credits"))
    })?;
    Ok(Json(match priced {
        Ok(Priced { operation, model, credits }) => {
            json!({"operation": operation, "model": model, "credits": credits})
        }
        Err(refused) => json!({"credits": null, "refused": refused}),
    }))
}

/// Everything known about a task, planned future included.
fn task_json(sim: &Sim, caller: &Caller, lineage: &Lineage, now: Timestamp) -> Value {
    let catalogue = sim.catalogue();
    let setting =
        Setting { catalogue, sandbox: caller.sandbox.id, now, origin: &caller.origin, request: &Value::Null };
    let view = View::new(setting, lineage);
    let plan = &lineage.task.plan;
    let outcome = outcome::name(catalogue, plan.ending());
    let phases = view.lifecycle().phases.iter().enumerate();
    let phases = phases.map(|(index, phase)| json!({"state": phase.state, "from": plan.phase_begins(index)}));
    json!({
        "id": lineage.key.to_string(),
        "operation": catalogue.operation(lineage.task.operation).id,
        "model": view.model(),
        "state": view.state_value(),
        "ended": matches!(view.state(), TaskState::Ended(_)),
        "plan": {
            "created": plan.created(),
            "phases": phases.collect::<Vec<_>>(),
            "ends": plan.ends(),
            "outcome": outcome,
        },
        "credits": lineage.task.price,
        "parent": lineage.task.parent.map(|parent| parent.to_string()),
        "ids": lineage.task.ids,
        "input": view.input(),
        "results": view.files().iter().filter(|file| view.has_file(file)).map(|file| view.url(file)).collect::<Vec<_>>(),
    })
}

async fn tasks(State(sim): State<Sim>, caller: Caller, RawQuery(query): RawQuery) -> Answer {
    let mut page = Fields::read_query(query.as_deref(), &["limit", "cursor"])?;
    let limit = page.take_count("limit")?.unwrap_or(100).clamp(1, 1000);
    let start = page.take_count("cursor")?.unwrap_or(0);
    let (lineages, total, now) = caller.with_world(&sim, |world, now| {
        let keys: Vec<TaskKey> = world.in_order().skip(start).take(limit).map(|(key, _)| key).collect();
        let lineages: Vec<Lineage> = keys.into_iter().filter_map(|key| world.lineage(key)).collect();
        (lineages, world.tasks.len(), now)
    });
    let next = (start + lineages.len() < total).then_some(start + lineages.len());
    let tasks: Vec<Value> = lineages.iter().map(|lineage| task_json(&sim, &caller, lineage, now)).collect();
    Ok(Json(json!({"tasks": tasks, "total": total, "next_cursor": next})))
}

fn no_task(id: &str) -> ProblemDocument {
    ProblemDocument::new(StatusCode::NOT_FOUND, format!("there is no task \"{id}\" in this sandbox"))
}

async fn task(State(sim): State<Sim>, caller: Caller, Named(id): Named<String>) -> Answer {
    let key = TaskKey::parse(&id).ok_or_else(|| no_task(&id))?;
    let (lineage, now) = caller.with_world(&sim, |world, now| (world.lineage(key), now));
    let lineage = lineage.ok_or_else(|| no_task(&id))?;
    let mut shown = task_json(&sim, &caller, &lineage, now);
    let world = caller.sandbox.world();
    let attempts = world.attempts.entries.iter().filter(|attempt| attempt.task() == key);
    shown["callbacks"] = attempts.map(|attempt| attempt.to_json()).collect();
    Ok(Json(shown))
}

async fn finish(State(sim): State<Sim>, caller: Caller, Named(id): Named<String>, body: Bytes) -> Answer {
    let mut fields = Fields::read(&body, &["outcome"])?;
    let outcome = fields.take("outcome", "an outcome such as \"fail:content_policy\"", |value| {
        value.as_str().map(str::to_owned)
    })?;
    let key = TaskKey::parse(&id).ok_or_else(|| no_task(&id))?;
    let (planned, withdrawn) = caller.with_world(&sim, |world, now| {
        let old = world.tasks.get(&key).cloned().ok_or_else(|| no_task(&id))?;
        let ending = match &outcome {
            None => Some(old.plan.ending()).filter(|ending| *ending != Ending::Stall),
            Some(outcome) => Some(wished_ending(&sim, &old, outcome)?),
        };
        let mut revised = (*old).clone();
        revised.plan = old.plan.finished_at(now, ending.unwrap_or(Ending::Success { fallback: false }));
        revised.worth = Worth::of(sim.catalogue(), old.lifecycle(sim.catalogue()), revised.plan.ending());
        if revised.plan == old.plan {
            return Ok((0, 0));
        }
        let before = world.due.len();
        world.due.retain(|due| due.0.task != key);
        let withdrawn = before - world.due.len();
        let planned = callback::plan(world, &sim, key, &revised);
        world.replace(key, revised);
        Ok((planned, withdrawn))
    })?;
    let (owner, observer) = (&caller.sandbox.owner, &sim.parts().observer);
    observer.observe(&Event::CallbacksPlanned { owner, count: planned });
    observer.observe(&Event::TasksForgotten { owner, running: 0, tasks: &[], callbacks: withdrawn });
    // Settles what has just become due, and sends its callback.
    caller.with_world(&sim, |_, _| ());
    sim.drive(&caller.sandbox);
    task(State(sim), caller, Named(id)).await
}

/// The ending that `outcome` names for a task.
fn wished_ending(sim: &Sim, task: &Task, outcome: &str) -> Result<Ending, ProblemDocument> {
    let told = |what: String| ProblemDocument::bad_request(format!("outcome: {what}"));
    let mut wish = Wish::default();
    wish.add(outcome).map_err(told)?;
    let finishing = wish.ending.filter(|ending| *ending != WishedEnding::Stall);
    let ending = finishing
        .ok_or_else(|| told("a task is finished with success, fallback:… or fail:<error id>".into()))?;
    let input = serde_json::from_str(&task.input).unwrap_or_default();
    ending.ending(sim.catalogue(), task.operation, &input).map_err(told)
}

async fn callbacks(State(sim): State<Sim>, caller: Caller) -> Json<Value> {
    let (attempts, dropped) = caller.with_world(&sim, |world, _| {
        let attempts: Vec<_> = world.attempts.entries.iter().cloned().collect();
        (attempts, world.attempts.dropped)
    });
    let attempts: Vec<Value> = attempts.iter().map(|attempt| attempt.to_json()).collect();
    Json(json!({"callbacks": attempts, "dropped": dropped}))
}

async fn inbox(caller: Caller) -> Json<Value> {
    Json(json!({"url": format!("{}/_mock/inbox/{}", caller.origin, caller.sandbox.id)}))
}

async fn arrivals(
    State(sim): State<Sim>,
    caller: Caller,
    Named(name): Named<String>,
    RawQuery(query): RawQuery,
) -> Answer {
    let mut fields = Fields::read_query(query.as_deref(), &["count", "wait"])?;
    let wanted = fields.take_count("count")?.unwrap_or(0);
    let patience = fields.take("wait", "a duration such as \"5s\", 600 s at most", |value| {
        let text = value.as_str()?;
        let seconds = || Duration::try_from_secs_f64(text.parse().ok()?).ok();
        parse_duration(text).or_else(seconds).filter(|patience| patience.as_secs() <= 600)
    })?;
    let patience = patience.unwrap_or_default();
    let deadline = sim.parts().clock.instant() + patience;
    loop {
        let arrived = caller.sandbox.arrived.notified();
        tokio::pin!(arrived);
        arrived.as_mut().enable();
        let (arrivals, dropped) = caller.with_world(&sim, |world, _| world.inbox.arrivals(&name));
        let enough = arrivals.len() >= wanted;
        if enough || tokio::time::timeout_at(deadline, arrived).await.is_err() {
            let shown: Vec<Value> = arrivals.iter().map(|arrival| arrival.to_json()).collect();
            return Ok(Json(json!({"received": shown, "dropped": dropped, "complete": enough})));
        }
    }
}

async fn program_inbox(
    State(sim): State<Sim>,
    caller: Caller,
    Named(name): Named<String>,
    body: Bytes,
) -> Answer {
    let mut fields = Fields::read(&body, &["answers", "delay"])?;
    let answers = fields.take(
        "answers",
        "a list of statuses from 200 to 599, of which the last one repeats",
        |value| {
            let statuses: Vec<u16> = serde_json::from_value(value.clone()).ok()?;
            (!statuses.is_empty() && statuses.iter().all(|status| (200..600).contains(status)))
                .then_some(statuses)
        },
    )?;
    let answers = answers.unwrap_or_else(|| vec![200]);
    let delay = fields.take("delay", "a duration such as \"2s\", 600 s at most", |value| {
        parse_duration(value.as_str()?).filter(|delay| delay.as_secs() <= 600)
    })?;
    let delay = delay.unwrap_or_default();
    caller.with_world(&sim, |world, _| world.inbox.program(&name, &answers, delay));
    Ok(Json(
        json!({"name": name, "answers": answers, "delay_ms": u64::try_from(delay.as_millis()).unwrap_or(u64::MAX)}),
    ))
}

async fn receive(
    State(sim): State<Sim>,
    Named((sandbox, name)): Named<(String, String)>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let Some(sandbox) = SandboxId::parse(&sandbox).and_then(|id| sim.existing(id)) else {
        return ProblemDocument::new(StatusCode::NOT_FOUND, "there is no such inbox").into_response();
    };
    let status = sim.receive(&sandbox, &name, &headers, body).await;
    (status, Json(json!({"code": status.as_u16(), "msg": if status.is_success() { "success" } else { "as programmed" }}))).into_response()
}
