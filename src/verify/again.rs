//! Lets a simulator that was recorded do the same again, and compares.
//!
//! What steered it is in the recording: sandboxes, outcomes that were asked for, settings, rules, snapshots, clocks. So all
//! happens again in its order and at its times, and every answer has one recorded answer to be compared with. What steers is
//! done and not compared, but that it is taken as it was. Real time is held at what was recorded: nothing is waited for.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::Router;
use axum::body::Body;
use bytes::Bytes;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use http::header::{CONTENT_LENGTH, HeaderName};
use http::{HeaderValue, Request, StatusCode};
use serde_json::Value;
use tower::ServiceExt as _;

use super::compare::{self, Difference};
use super::report::{Checked, Report, name_of};
use super::twins::Twins;
use super::{NOT_KEPT, Unplayable, whole};
use crate::catalogue::{Catalogue, ModelIx, OperationIx};
use crate::clock::{Clock, Timestamp};
use crate::record::{Answer, Called, Circumstances, Lifecycle, Recording, Told};
use crate::sim::{
    self, AFTER_CREATE, Beginning, Courier, Event, Fault, Observer, Parcel, SandboxId, Sim, Spool,
};
use crate::wire;

/// Has `recording` happen again in a simulator that is at first as `beginning` says.
///
/// # Errors
/// There is no such beginning.
pub(super) async fn verify(
    catalogue: &Arc<Catalogue>,
    name: String,
    recording: &Recording,
    beginning: &Value,
) -> Result<Report, Unplayable> {
    let beginning = Beginning::read(beginning);
    let beginning = beginning.map_err(|what| Unplayable { recording: name.clone(), what })?;
    let mut player = Player::new(catalogue, beginning, recording);
    player.report.recording = name;
    let mut made = Vec::new();
    for (circumstances, step) in steps(recording) {
        player.receivers.heard().now = circumstances.at;
        player.sim.hold_at(circumstances.at).await;
        match step {
            Step::Callback => {}
            Step::Control(call) => player.steer(call, circumstances).await,
            Step::Call(call, place) => made.extend(player.call(call, place, circumstances).await),
        }
    }
    put_in_order(&mut made);
    for made in &made {
        player.compare(made);
    }
    player.compare_callbacks(recording);
    Ok(player.report)
}

/// Something that was recorded.
#[derive(Clone, Copy)]
enum Step<'r> {
    /// The simulator is steered.
    Control(&'r Called),
    /// A call of the API.
    Call(&'r Called, Place<'r>),
    /// It comes by itself when its time is there.
    Callback,
}

/// Where in the report something is told.
#[derive(Clone, Copy)]
enum Place<'r> {
    /// It starts the lifecycle of that number.
    Start(usize),
    /// It is a question about the lifecycle of that number.
    Look(usize),
    /// It is the call of that number.
    Call(usize),
    /// It is the call of that number that had no whole answer, and why.
    Broken(usize, &'r str),
}

/// All that was recorded, in its order.
fn steps(recording: &Recording) -> Vec<(&Circumstances, Step<'_>)> {
    let mut calls: Vec<(&Called, Place<'_>)> = Vec::new();
    let mut told: Vec<&Told> = recording.strays.iter().collect();
    for (index, lifecycle) in recording.lifecycles.iter().enumerate() {
        calls.push((&lifecycle.start, Place::Start(index)));
        calls.extend(lifecycle.looks.iter().map(|seen| (&seen.call, Place::Look(index))));
        told.extend(&lifecycle.callbacks);
    }
    calls.extend(recording.calls.iter().enumerate().map(|(index, call)| (call, Place::Call(index))));
    let broken = recording.broken.iter().enumerate();
    calls.extend(broken.map(|(index, broken)| (&broken.call, Place::Broken(index, &broken.why))));
    let calls = calls.into_iter().map(|(call, place)| (&call.circumstances, Step::Call(call, place)));
    let controls = recording.controls.iter().map(|call| (&call.circumstances, Step::Control(call)));
    let callbacks = told.into_iter().map(|told| (&told.circumstances, Step::Callback));
    let all = calls.chain(controls).chain(callbacks);
    let mut all: Vec<_> = all.filter_map(|(known, step)| Some((known.as_ref()?, step))).collect();
    all.sort_by_key(|(circumstances, _)| circumstances.order);
    all
}

/// A call that was made once more.
struct Made<'r> {
    call: &'r Called,
    place: Place<'r>,
    circumstances: &'r Circumstances,
    /// What became of it.
    end: End,
}

struct End {
    answer: Answer,
    /// What is to become of the answer on its way.
    fault: Option<String>,
}

impl Made<'_> {
    /// Where what was recorded differs from `end`.
    fn differs_from(&self, end: &End) -> Vec<Difference> {
        let of = name_of(self.name(), self.call);
        let recorded = &self.call.answer;
        let mut drift = match self.place {
            Place::Broken(..) => status_differs(&of, recorded.status, end.answer.status),
            _ => compare::answers(&of, recorded, &end.answer, &Twins::default()),
        };
        let fault = &self.circumstances.fault;
        if *fault != end.fault {
            drift.push(Difference::new(&of, "fault", or_none(fault.as_ref()), or_none(end.fault.as_ref())));
        }
        drift
    }

    fn name(&self) -> &'static str {
        match self.place {
            Place::Start(_) => "create",
            Place::Look(_) => "look",
            Place::Call(_) | Place::Broken(..) => "call",
        }
    }

    /// Whether `other` asked for the same while this was under way: which of the two was the first nobody can tell.
    fn is_beside(&self, other: &Self) -> bool {
        let (one, two) = (self.circumstances, other.circumstances);
        let is_at_once = one.since < two.order && two.since < one.order;
        is_at_once && one.sandbox == two.sandbox && self.call.asked.print() == other.call.asked.print()
    }
}

/// Gives calls that asked for the same at the same time each the end that was recorded of it, where one of them has it.
fn put_in_order(made: &mut [Made<'_>]) {
    for index in 0..made.len() {
        let this = &made[index];
        if this.differs_from(&this.end).is_empty() {
            continue;
        }
        let fits = |other: &&Made<'_>| {
            let is_free = || !other.differs_from(&other.end).is_empty();
            this.is_beside(other) && this.differs_from(&other.end).is_empty() && is_free()
        };
        if let Some(other) = made.iter().position(|other| fits(&other)) {
            let (low, high) = made.split_at_mut(index.max(other));
            std::mem::swap(&mut low[index.min(other)].end, &mut high[0].end);
        }
    }
}

fn or_none(text: Option<&String>) -> &str {
    text.map_or("none", String::as_str)
}

/// Callbacks are told apart by where they go and which task they are about.
type Key = (String, String);

fn key(url: &str, body: &[u8]) -> Key {
    let body: Value = serde_json::from_slice(body).unwrap_or_default();
    (url.to_owned(), wire::task_id(&body).unwrap_or_default().to_owned())
}

/// Whoever was called back, and answers as then.
#[derive(Clone, Default)]
struct Receivers(Arc<Mutex<Heard>>);

#[derive(Default)]
struct Heard {
    answers: HashMap<Key, VecDeque<u16>>,
    told: BTreeMap<Key, Vec<(Timestamp, Bytes)>>,
    /// What real time is held at.
    now: Timestamp,
}

impl Receivers {
    fn answering(recording: &Recording) -> Self {
        let of_lifecycles = recording.lifecycles.iter().flat_map(|lifecycle| &lifecycle.callbacks);
        let mut told: Vec<&Told> = of_lifecycles.chain(&recording.strays).collect();
        told.sort_by_key(|told| told.circumstances.as_ref().map(|circumstances| circumstances.order));
        let mut heard = Heard::default();
        for told in told {
            heard.answers.entry(key(&told.url, &told.body)).or_default().push_back(told.status);
        }
        Self(Arc::new(Mutex::new(heard)))
    }

    fn heard(&self) -> MutexGuard<'_, Heard> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Courier for Receivers {
    fn deliver(&self, parcel: Parcel) -> BoxFuture<'static, Result<StatusCode, String>> {
        let key = key(&parcel.url, &parcel.body);
        let mut heard = self.heard();
        let status = heard.answers.get_mut(&key).and_then(VecDeque::pop_front).unwrap_or(200);
        let now = heard.now;
        heard.told.entry(key).or_default().push((now, parcel.body));
        let answer = StatusCode::from_u16(status).map_err(|_| "there was no answer".to_owned());
        std::future::ready(answer).boxed()
    }
}

impl Observer for Receivers {
    fn observe(&self, _: &Event<'_>) {}
}

struct Player<'r> {
    catalogue: &'r Catalogue,
    sim: Sim,
    control: Router,
    receivers: Receivers,
    /// What starts each lifecycle.
    kinds: Vec<Option<(OperationIx, Option<ModelIx>)>>,
    report: Report,
}

impl<'r> Player<'r> {
    fn new(catalogue: &'r Arc<Catalogue>, beginning: Beginning, recording: &Recording) -> Self {
        let receivers = Receivers::answering(recording);
        let sim = Sim::new(sim::Parts {
            catalogue: Arc::clone(catalogue),
            clock: Clock::system(),
            settings: beginning.settings,
            credits: beginning.credits,
            webhook_secret: None,
            public_url: None,
            courier: Arc::new(receivers.clone()),
            observer: Arc::new(receivers.clone()),
            spool: Spool::new(std::env::temp_dir(), beginning.room),
        });
        let control = sim::routes(sim.clone());
        let mut report = Report::default();
        let mut kinds = Vec::new();
        for lifecycle in &recording.lifecycles {
            let mut checked = Checked::of(catalogue, &lifecycle.start);
            checked.questions = lifecycle.looks.len();
            checked.callbacks = lifecycle.callbacks.iter().filter(|told| !told.is_derived).count();
            report.lifecycles.push(checked);
            let asked = &lifecycle.start.asked;
            kinds.push(asked.operation.map(|operation| (operation, asked.model(catalogue))));
        }
        report.calls = recording.calls.iter().map(|call| Checked::of(catalogue, call)).collect();
        report.broken = recording.broken.iter().map(|broken| Checked::of(catalogue, &broken.call)).collect();
        Self { catalogue, sim, control, receivers, kinds, report }
    }

    /// Steers the simulator as it was; what it says to that is not compared, but that it is taken or not.
    async fn steer(&mut self, call: &Called, circumstances: &Circumstances) {
        let mut checked = Checked::of(self.catalogue, call);
        if let Some(request) = request(call, circumstances) {
            let response = self.control.clone().oneshot(request).await;
            let status = response.unwrap_or_else(|never| match never {}).status();
            checked.drift = status_differs(&name_of("control", call), call.answer.status, status.as_u16());
        } else {
            checked.skipped = Some(NOT_KEPT.to_owned());
        }
        self.report.controls.push(checked);
    }

    /// Makes a call once more, if it was kept and answered.
    async fn call<'c>(
        &mut self,
        call: &'c Called,
        place: Place<'c>,
        circumstances: &'c Circumstances,
    ) -> Option<Made<'c>> {
        let is_answered = call.answer.status != 0;
        let Some(request) = request(call, circumstances).filter(|_| is_answered) else {
            let why = Some(if let Place::Broken(_, why) = place { why } else { NOT_KEPT }.to_owned());
            if let Place::Look(_) = place {
                self.report.calls.push(Checked { skipped: why, ..Checked::of(self.catalogue, call) });
            } else {
                self.checked(place).skipped = why;
            }
            return None;
        };
        let response = self.sim.answer(request, None).await;
        let fault = response.extensions().get::<Fault>().map(|fault| fault.name());
        let status = response.status().as_u16();
        let body = Some(whole(response.into_body()).await);
        let end = End { answer: Answer { status, headers: Vec::new(), body }, fault };
        Some(Made { call, place, circumstances, end })
    }

    fn checked(&mut self, place: Place<'_>) -> &mut Checked {
        match place {
            Place::Start(index) | Place::Look(index) => &mut self.report.lifecycles[index],
            Place::Call(index) => &mut self.report.calls[index],
            Place::Broken(index, _) => &mut self.report.broken[index],
        }
    }

    /// Tells where an answer differs from the recorded one.
    fn compare(&mut self, made: &Made<'_>) {
        let drift = made.differs_from(&made.end);
        let state = if let Place::Look(index) = made.place { self.state_differs(index, made) } else { None };
        let checked = self.checked(made.place);
        checked.drift.extend(drift.into_iter().chain(state));
        if !matches!(made.place, Place::Look(_)) {
            checked.wish.clone_from(&made.circumstances.outcome);
        }
        if let (Place::Call(_), None) = (made.place, &made.call.answer.body) {
            checked.skipped = Some("its answer was not kept, but for the status".to_owned());
        }
    }

    /// Where another state is told of; the recorded one is told in the report.
    fn state_differs(&mut self, index: usize, made: &Made<'_>) -> Option<Difference> {
        let (operation, model) = self.kinds[index]?;
        let state = |answer: &Answer| {
            self.catalogue.progress(operation, model, &answer.json()).map(|progress| progress.state)
        };
        let (ours, theirs) = (state(&made.call.answer), state(&made.end.answer));
        let of = name_of(made.name(), made.call);
        let differs = (ours != theirs)
            .then(|| Difference::new(&of, "state", or_none(ours.as_ref()), or_none(theirs.as_ref())));
        let states = &mut self.report.lifecycles[index].states;
        states.extend(ours);
        states.dedup();
        differs
    }

    /// Compares what was called back, each in its order.
    fn compare_callbacks(&mut self, recording: &Recording) {
        let mut recorded: BTreeMap<Key, (Option<usize>, Vec<&Bytes>)> = BTreeMap::new();
        let of_lifecycles = recording.lifecycles.iter().enumerate();
        let told = of_lifecycles
            .flat_map(|(index, lifecycle)| lifecycle.callbacks.iter().map(move |told| (Some(index), told)));
        for (index, told) in told.chain(recording.strays.iter().map(|told| (None, told))) {
            if !told.is_derived {
                let (_, bodies) = recorded.entry(key(&told.url, &told.body)).or_insert((index, Vec::new()));
                bodies.push(&told.body);
            }
        }
        let (mut simulated, end) = {
            let mut heard = self.receivers.heard();
            (std::mem::take(&mut heard.told), heard.now)
        };
        for (key, (index, ours)) in &recorded {
            let drift = told_differently(ours, &simulated.remove(key).unwrap_or_default(), end);
            match index {
                Some(index) => self.report.lifecycles[*index].drift.extend(drift),
                None => self.report.strays.push(Checked::of_callbacks(&key.0, ours.len(), drift)),
            }
        }
        for ((url, task), theirs) in simulated {
            let drift = told_differently(&[], &theirs, end);
            let is_about = |lifecycle: &Lifecycle| lifecycle.task.as_ref() == Some(&task);
            match recording.lifecycles.iter().position(is_about) {
                Some(index) => self.report.lifecycles[index].drift.extend(drift),
                None if drift.is_empty() => {}
                None => self.report.strays.push(Checked::of_callbacks(&url, 0, drift)),
            }
        }
    }
}

/// A recorded request once more; `None` where it was not kept.
fn request(call: &Called, circumstances: &Circumstances) -> Option<Request<Body>> {
    let body = call.body.clone()?;
    let mut request = Request::new(Body::empty());
    *request.method_mut() = call.method.clone();
    *request.uri_mut() = call.target.parse().ok()?;
    let headers = request.headers_mut();
    let Circumstances { host, outcome, delay, .. } = circumstances;
    let wished = [("host", host), ("x-mock-outcome", outcome), ("x-mock-delay", delay)];
    let wished = wished.into_iter().filter_map(|(name, value)| Some((name, value.as_deref()?)));
    for (name, value) in call.headers.iter().map(|(name, value)| (&**name, &**value)).chain(wished) {
        if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::from_bytes(value.as_bytes()))
        {
            headers.append(name, value);
        }
    }
    if headers.contains_key(CONTENT_LENGTH) {
        // Where a secret was taken out, it has become another one.
        headers.insert(CONTENT_LENGTH, body.len().into());
    }
    if !body.is_empty() {
        *request.body_mut() = Body::from(body);
    }
    if let Some(sandbox) = circumstances.sandbox.as_deref().and_then(SandboxId::parse) {
        request.extensions_mut().insert(sandbox);
    }
    Some(request)
}

/// Where the status is another one.
fn status_differs(of: &str, recorded: u16, simulated: u16) -> Vec<Difference> {
    let differs = recorded != simulated;
    let difference = || Difference::new(of, "HTTP status", recorded.to_string(), simulated.to_string());
    differs.then(difference).into_iter().collect()
}

/// Where callbacks to one address about one task differ. Those which a recording that was over at `end` may just have missed
/// are none that it lacks.
fn told_differently(
    recorded: &[&Bytes],
    simulated: &[(Timestamp, Bytes)],
    end: Timestamp,
) -> Vec<Difference> {
    let parsed = |body: &Bytes| serde_json::from_slice::<Value>(body).unwrap_or_default();
    let pairs = recorded.iter().zip(simulated).enumerate();
    let mut drift: Vec<Difference> = pairs
        .flat_map(|(index, (ours, (_, theirs)))| {
            let of = format!("callback no. {}", index + 1);
            compare::bodies(&of, &parsed(ours), &parsed(theirs), &Twins::default())
        })
        .collect();
    let ours = recorded.len();
    let is_missed = |(at, _): &&(Timestamp, Bytes)| end.saturating_since(*at) > AFTER_CREATE;
    let theirs = simulated.len().min(ours) + simulated.iter().skip(ours).filter(is_missed).count();
    if ours != theirs {
        let what = "number of callbacks";
        drift.push(Difference::new("callbacks", what, ours.to_string(), theirs.to_string()));
    }
    drift
}
