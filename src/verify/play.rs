//! Sends what was recorded to a fresh simulator, and compares.
//!
//! One after the other in the order in which things began, each task to its end before the next: so what goes on from a
//! task finds it finished, as it mostly was. Time is virtual, and each phase of a task is looked at.

use std::sync::{Arc, Mutex, PoisonError};

use axum::Router;
use axum::body::Body;
use bytes::Bytes;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HOST};
use http::{HeaderValue, Method, Request, StatusCode};
use serde_json::{Value, json};
use tower::ServiceExt as _;

use super::compare::{self, Difference};
use super::report::{Checked, Report, name_of, short};
use super::twins::Twins;
use super::{NOT_KEPT, whole, wish};
use crate::catalogue::{Catalogue, ModelIx, OperationIx};
use crate::clock::{Clock, Timestamp};
use crate::ids::Credits;
use crate::record::{Answer, Called, Lifecycle, Recording, Seen, Told};
use crate::sim::{self, Courier, Event, Observer, Parcel, Room, Settings, Sim, Spool};

/// Everything in one sandbox.
const TOKEN: HeaderValue = HeaderValue::from_static("Bearer verify");
/// More than any recording spends.
const RICH: Credits = Credits::whole(1_000_000_000);
/// Room for files that are brought, in bytes.
const ROOM: u64 = 1 << 30;

/// Sends what `recording` has to a fresh simulator, and says where that behaves in another way.
pub(super) async fn verify(catalogue: &Arc<Catalogue>, name: String, recording: &Recording) -> Report {
    let mut player = Player::new(catalogue);
    player.control(Method::PUT, "/_mock/clock", &json!({"rate": 0})).await;
    let mut report = Report { recording: name, ..Report::default() };
    let mut items: Vec<Item<'_>> = recording.lifecycles.iter().map(Item::Lifecycle).collect();
    items.extend(recording.calls.iter().map(Item::Call));
    items.sort_by_key(Item::began);
    for item in items {
        match item {
            Item::Lifecycle(lifecycle) => {
                let checked = player.lifecycle(lifecycle).await;
                report.lifecycles.push(checked);
            }
            Item::Call(call) => {
                let checked = player.call(call).await;
                report.calls.push(checked);
            }
        }
    }
    // What was made of a task later on may show in its record.
    for (lifecycle, checked) in recording.lifecycles.iter().zip(&mut report.lifecycles) {
        player.look_again(lifecycle, checked).await;
    }
    report.broken = recording.broken.iter().map(|broken| Checked::broken(catalogue, broken)).collect();
    report
}

enum Item<'r> {
    Lifecycle(&'r Lifecycle),
    Call(&'r Called),
}

impl Item<'_> {
    fn began(&self) -> Timestamp {
        match self {
            Self::Lifecycle(lifecycle) => lifecycle.start.at,
            Self::Call(call) => call.at,
        }
    }
}

/// Keeps what is called back.
#[derive(Clone, Default)]
struct Parcels(Arc<Mutex<Vec<Bytes>>>);

impl Parcels {
    fn take(&self) -> Vec<Bytes> {
        std::mem::take(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Courier for Parcels {
    fn deliver(&self, parcel: Parcel) -> BoxFuture<'static, Result<StatusCode, String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(parcel.body);
        std::future::ready(Ok(StatusCode::OK)).boxed()
    }
}

impl Observer for Parcels {
    fn observe(&self, _: &Event<'_>) {}
}

struct Player {
    catalogue: Arc<Catalogue>,
    sim: Sim,
    control: Router,
    parcels: Parcels,
    twins: Twins,
}

/// What the simulator made of a lifecycle.
struct Attempt {
    start: Answer,
    /// Answers to the questions, by what they ask for, with the state that they tell of.
    looks: Vec<(String, Option<String>, Answer)>,
    callbacks: Vec<Value>,
}

impl Player {
    fn new(catalogue: &Arc<Catalogue>) -> Self {
        let parcels = Parcels::default();
        let sim = Sim::new(sim::Parts {
            catalogue: Arc::clone(catalogue),
            clock: Clock::system(),
            settings: Settings::default(),
            credits: RICH,
            webhook_secret: None,
            public_url: Some("https://simulator.invalid".to_owned()),
            courier: Arc::new(parcels.clone()),
            observer: Arc::new(parcels.clone()),
            spool: Spool::new(std::env::temp_dir(), Room { total: ROOM, each: ROOM }),
        });
        let control = sim::routes(sim.clone());
        Self { catalogue: Arc::clone(catalogue), sim, control, parcels, twins: Twins::default() }
    }

    /// Steers the sandbox.
    async fn control(&self, method: Method, path: &str, body: &Value) -> Value {
        let body = if body.is_null() { Body::empty() } else { Body::from(body.to_string()) };
        let mut request = Request::new(body);
        *request.method_mut() = method;
        *request.uri_mut() = path.parse().unwrap_or_default();
        request.headers_mut().insert(AUTHORIZATION, TOKEN);
        let response = self.control.clone().oneshot(request).await.unwrap_or_else(|never| match never {});
        serde_json::from_slice(&whole(response.into_body()).await).unwrap_or_default()
    }

    /// Sends a recorded call, with the simulator's names and a wish.
    async fn send(&self, call: &Called, wish: Option<&str>) -> Answer {
        let mut body = call.body.clone().unwrap_or_default();
        if let Ok(mut value) = serde_json::from_slice::<Value>(&body)
            && self.twins.put_into(&mut value)
        {
            body = value.to_string().into();
        }
        let mut request = Request::new(if body.is_empty() { Body::empty() } else { Body::from(body) });
        *request.method_mut() = call.method.clone();
        *request.uri_mut() = self.twins.put_into_target(&call.target).parse().unwrap_or_default();
        let headers = request.headers_mut();
        headers.insert(AUTHORIZATION, TOKEN);
        headers.insert(HOST, HeaderValue::from_static("simulator.invalid"));
        if let Ok(kind) = HeaderValue::from_str(&call.content_type) {
            headers.insert(CONTENT_TYPE, kind);
        }
        if let Some(Ok(wish)) = wish.map(HeaderValue::from_str) {
            headers.insert("x-mock-outcome", wish);
        }
        let response = self.sim.answer(request, None).await;
        let status = response.status().as_u16();
        Answer { status, headers: Vec::new(), body: Some(whole(response.into_body()).await) }
    }

    /// Compares a call that is about no task. One that was refused for reasons that it does not show is refused here, too.
    async fn call(&mut self, call: &Called) -> Checked {
        let mut checked = Checked::of(&self.catalogue, call);
        if call.body.is_none() {
            checked.skipped = Some(NOT_KEPT.to_owned());
            return checked;
        }
        let of = name_of("call", call);
        let answer = self.send(call, None).await;
        checked.drift = compare::answers(&of, &call.answer, &answer, &self.twins);
        self.twins.learn(&call.answer.json(), &answer.json());
        if !checked.drift.is_empty() {
            self.refused(call, &of, &mut checked).await;
        }
        checked
    }

    /// Tries whether a refusal comes about that has nothing to do with what was asked for.
    async fn refused(&self, call: &Called, of: &str, checked: &mut Checked) {
        let wishes =
            call.asked.operation.map(|operation| wish::refusals(&self.catalogue, operation, &call.answer));
        for wish in wishes.unwrap_or_default() {
            let answer = self.send(call, Some(&wish)).await;
            let drift = compare::answers(of, &call.answer, &answer, &self.twins);
            if drift.len() < checked.drift.len() || checked.wish.is_none() {
                checked.drift = drift;
                checked.wish = Some(wish);
            }
            if checked.drift.is_empty() {
                break;
            }
        }
    }

    /// Compares a task, from its create to its last callback.
    async fn lifecycle(&mut self, lifecycle: &Lifecycle) -> Checked {
        let start = &lifecycle.start;
        let mut checked = Checked::of(&self.catalogue, start);
        let kind = start.asked.operation.map(|operation| (operation, start.asked.model(&self.catalogue)));
        checked.states = self.states(kind, lifecycle.looks.iter().map(|seen| seen.call.answer.json()));
        checked.questions = lifecycle.looks.len();
        checked.callbacks = lifecycle.callbacks.iter().filter(|told| !told.is_derived).count();
        if start.body.is_none() {
            checked.skipped = Some(NOT_KEPT.to_owned());
            return checked;
        }
        let of = name_of("create", start);
        let is_refused = lifecycle.anew && lifecycle.task.is_none();
        if is_refused && wish::code(&start.answer, &start.answer.json()) != 200 {
            let answer = self.send(start, None).await;
            checked.drift = compare::answers(&of, &start.answer, &answer, &self.twins);
            if !checked.drift.is_empty() {
                self.refused(start, &of, &mut checked).await;
            }
            // Where it was not refused at first, something runs.
            self.control(Method::POST, "/_mock/clock/advance", &json!({"until": "idle"})).await;
            return checked;
        }
        let mut best: Option<(Vec<Difference>, String, Attempt)> = None;
        for wish in wish::endings(&self.catalogue, lifecycle) {
            let attempt = self.attempt(lifecycle, &wish).await;
            let drift = self.differences(lifecycle, &attempt, &checked.states, kind);
            if best.as_ref().is_none_or(|(least, ..)| drift.len() < least.len()) {
                best = Some((drift, wish, attempt));
            }
            if best.as_ref().is_some_and(|(least, ..)| least.is_empty()) {
                break;
            }
        }
        if let Some((drift, wish, attempt)) = best {
            self.learn(lifecycle, &attempt);
            checked.drift = drift;
            checked.wish = Some(wish).filter(|wish| wish != "success");
        }
        checked
    }

    /// Lets the simulator play a lifecycle once.
    async fn attempt(&mut self, lifecycle: &Lifecycle, wish: &str) -> Attempt {
        self.parcels.take();
        let start = self.send(&lifecycle.start, Some(wish)).await;
        let answer = start.json();
        self.twins.learn(&lifecycle.start.answer.json(), &answer);
        let mut attempt = Attempt { start, looks: Vec::new(), callbacks: Vec::new() };
        let operation = lifecycle.start.asked.operation;
        let task = operation
            .filter(|_| lifecycle.anew)
            .and_then(|operation| self.catalogue.task_id(operation, &answer));
        let plan = match task {
            Some(id) => {
                self.control(Method::GET, &format!("/_mock/tasks/{id}"), &Value::Null).await["plan"].take()
            }
            None => Value::Null,
        };
        let ends = plan["ends"].as_i64().unwrap_or(i64::MAX);
        let mut now = plan["created"].as_i64().unwrap_or_default();
        let begins =
            plan["phases"].as_array().into_iter().flatten().filter_map(|phase| phase["from"].as_i64());
        let phases: Vec<i64> = begins.filter(|from| *from < ends).collect();
        for from in phases {
            if from > now {
                self.control(
                    Method::POST,
                    "/_mock/clock/advance",
                    &json!({"by": format!("{}ms", from - now)}),
                )
                .await;
                now = from;
            }
            self.ask(lifecycle, &mut attempt).await;
        }
        if task.is_none() {
            self.ask(lifecycle, &mut attempt).await;
        }
        self.control(Method::POST, "/_mock/clock/advance", &json!({"until": "idle"})).await;
        self.ask(lifecycle, &mut attempt).await;
        let told = self.parcels.take();
        attempt.callbacks = told.iter().filter_map(|body| serde_json::from_slice(body).ok()).collect();
        attempt
    }

    /// Asks every question once that was asked about a lifecycle.
    async fn ask(&self, lifecycle: &Lifecycle, attempt: &mut Attempt) {
        let kind = lifecycle
            .start
            .asked
            .operation
            .map(|operation| (operation, lifecycle.start.asked.model(&self.catalogue)));
        let mut asked: Vec<&str> = Vec::new();
        for Seen { call, .. } in &lifecycle.looks {
            let print = call.asked.print();
            if !asked.contains(&print) {
                asked.push(print);
                let answer = self.send(call, None).await;
                let state = self.state(kind, &answer.json());
                attempt.looks.push((print.to_owned(), state, answer));
            }
        }
    }

    fn state(&self, kind: Option<(OperationIx, Option<ModelIx>)>, answer: &Value) -> Option<String> {
        let (operation, model) = kind?;
        self.catalogue.progress(operation, model, answer).map(|progress| progress.state)
    }

    /// The states that answers tell of, each as long as it lasts.
    fn states(
        &self,
        kind: Option<(OperationIx, Option<ModelIx>)>,
        answers: impl Iterator<Item = Value>,
    ) -> Vec<String> {
        let mut states: Vec<String> = answers.filter_map(|answer| self.state(kind, &answer)).collect();
        states.dedup();
        states
    }

    fn differences(
        &self,
        lifecycle: &Lifecycle,
        attempt: &Attempt,
        states: &[String],
        kind: Option<(OperationIx, Option<ModelIx>)>,
    ) -> Vec<Difference> {
        let start = &lifecycle.start;
        let of = name_of(if lifecycle.anew { "create" } else { "first call" }, start);
        let mut drift = compare::answers(&of, &start.answer, &attempt.start, &self.twins);
        if drift.iter().any(|difference| difference.what == "code" || difference.what == "HTTP status") {
            return drift;
        }
        let simulated: Vec<Value> = attempt.looks.iter().map(|(_, _, answer)| answer.json()).collect();
        let simulated = self.states(kind, simulated.into_iter());
        if !is_way_through(states, &simulated) {
            drift.push(Difference::new(
                "details",
                "order of states",
                states.join(" → "),
                simulated.join(" → "),
            ));
        }
        for Seen { call, .. } in &lifecycle.looks {
            let found = self.look_differs(call, attempt, kind);
            // Many looks see the same; it is told once.
            let is_new = |found: &Difference| {
                !drift.iter().any(|known| {
                    known.what == found.what
                        && known.recorded == found.recorded
                        && known.simulated == found.simulated
                })
            };
            let found: Vec<Difference> = found.into_iter().filter(is_new).collect();
            drift.extend(found);
        }
        drift.extend(self.callbacks_differ(lifecycle, attempt, kind));
        drift
    }

    /// Where the simulator's answers to a question all differ from the recorded one: as the nearest does.
    fn look_differs(
        &self,
        call: &Called,
        attempt: &Attempt,
        kind: Option<(OperationIx, Option<ModelIx>)>,
    ) -> Vec<Difference> {
        let recorded = self.state(kind, &call.answer.json());
        let what = recorded.as_ref().map_or_else(|| "look".to_owned(), |state| format!("details in {state}"));
        let of = name_of(&what, call);
        let same = attempt
            .looks
            .iter()
            .filter(|(print, state, _)| print == call.asked.print() && *state == recorded);
        let mut answers: Vec<&Answer> = same.map(|(_, _, answer)| answer).collect();
        if recorded.is_none() {
            answers.push(&attempt.start);
        }
        let found = answers.iter().map(|answer| compare::answers(&of, &call.answer, answer, &self.twins));
        // A state that never comes is told by the order of states.
        found.min_by_key(Vec::len).unwrap_or_default()
    }

    fn callbacks_differ(
        &self,
        lifecycle: &Lifecycle,
        attempt: &Attempt,
        kind: Option<(OperationIx, Option<ModelIx>)>,
    ) -> Vec<Difference> {
        let told = lifecycle.callbacks.iter().filter(|told| !told.is_derived);
        let told: Vec<Value> =
            told.filter_map(|Told { body, .. }| serde_json::from_slice(body).ok()).collect();
        let stage = |body: &Value| {
            kind.map_or(0, |(operation, model)| self.catalogue.stage(operation, model, body).index)
        };
        let stages = |all: &[Value]| {
            let mut stages: Vec<usize> = all.iter().map(stage).collect();
            // The API tries again where its call was not answered.
            stages.dedup();
            stages
        };
        let (recorded, mut simulated) = (stages(&told), stages(&attempt.callbacks));
        if !wish::is_over(&self.catalogue, lifecycle) {
            // What comes after the recording, it does not show.
            simulated.truncate(recorded.len());
        }
        if recorded != simulated {
            let shown = |stages: &[usize]| match stages {
                [] => "none".to_owned(),
                stages => {
                    stages.iter().map(|stage| format!("no. {}", stage + 1)).collect::<Vec<_>>().join(", ")
                }
            };
            return vec![Difference::new(
                "callbacks",
                "order of callbacks",
                shown(&recorded),
                shown(&simulated),
            )];
        }
        let differs = |body: &Value| {
            let twin = attempt.callbacks.iter().find(|twin| stage(twin) == stage(body))?;
            Some(compare::bodies(&format!("callback no. {}", stage(body) + 1), body, twin, &self.twins))
        };
        told.iter().filter_map(differs).flatten().collect()
    }

    /// Learns the simulator's names from all that was said of a lifecycle.
    fn learn(&mut self, lifecycle: &Lifecycle, attempt: &Attempt) {
        self.twins.learn(&lifecycle.start.answer.json(), &attempt.start.json());
        for (told, twin) in lifecycle.callbacks.iter().filter(|told| !told.is_derived).zip(&attempt.callbacks)
        {
            self.twins.learn(&serde_json::from_slice(&told.body).unwrap_or_default(), twin);
        }
        for Seen { call, .. } in &lifecycle.looks {
            let twin = attempt.looks.iter().rev().find(|(print, _, _)| print == call.asked.print());
            if let Some((_, _, twin)) = twin {
                self.twins.learn(&call.answer.json(), &twin.json());
            }
        }
    }

    /// Drops differences of questions whose answer has come to be as recorded, or was refused for reasons that they do not
    /// show.
    async fn look_again(&self, lifecycle: &Lifecycle, checked: &mut Checked) {
        for Seen { call, .. } in &lifecycle.looks {
            let is_of =
                |difference: &Difference| difference.of.ends_with(&format!("({})", short(&call.place)));
            if !checked.drift.iter().any(is_of) {
                continue;
            }
            let answer = self.send(call, None).await;
            let drift = compare::answers("", &call.answer, &answer, &self.twins);
            let mut again = Checked { drift, ..Checked::default() };
            if !again.drift.is_empty() {
                self.refused(call, "", &mut again).await;
            }
            if again.drift.is_empty() {
                checked.drift.retain(|difference| !is_of(difference));
            }
        }
    }
}

/// Whether `recorded` is what somebody sees of `all` who does not look all the time, but sees the end.
fn is_way_through(recorded: &[String], all: &[String]) -> bool {
    let mut rest = all.iter();
    recorded.iter().all(|state| rest.any(|other| other == state))
}
