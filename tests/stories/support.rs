//! What every story needs: a simulator behind a gateway, clients, a receiver of callbacks, and a clock to move.
//!
//! Everything runs in this process, without sockets, on tokio's paused time: exact, and as fast as the machine.

use std::collections::{HashMap, VecDeque};
use std::fs;
use std::path::PathBuf;
use std::sync::{Arc, LazyLock, Mutex};
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use http::{HeaderMap, Method, Request, StatusCode};
use kiegate::catalogue::Catalogue;
use kiegate::clock::{Clock, Timestamp};
use kiegate::config::{Config, Mode, Sources};
use kiegate::gateway::{self, Accounts, DataPlane, Gateway, Upstreams};
use kiegate::ids::{Credits, Secret, TenantId};
use kiegate::outbound::guard::{Delivered, Failure};
use kiegate::proxy::{self, Recorded, Retries, Simulated, Upstream};
use kiegate::record::{Recorder, Redactor};
use kiegate::sim::{self, Beginning, Courier, Parcel, Room, Settings, Sim, Spool};
use kiegate::store::{Embedded, Store};
use kiegate::tasks::Tracker;
use kiegate::tasks::delivery::{Deliveries, Post};
use kiegate::tasks::schedule::Schedule;
use kiegate::tasks::simulated::SimulatedEnds;
use kiegate::tasks::tracker;
use kiegate::telemetry::Metrics;
use serde_json::{Value, json};
use tempfile::TempDir;

pub static CATALOGUE: LazyLock<Arc<Catalogue>> =
    LazyLock::new(|| Arc::new(Catalogue::embedded().expect("the embedded catalogue is sound")));

/// What callbacks are signed with in stories.
pub const WEBHOOK_KEY: &str = "story-webhook-key";
/// The balance of a new sandbox.
const CREDITS: Credits = Credits::whole(10_000);

/// A world that is being described.
pub struct WorldBuilder {
    settings: Settings,
    open: bool,
    largest_json: usize,
    tenants: Vec<kiegate::config::Tenant>,
    room: Room,
    recording: Option<Recording>,
}

/// Where what the simulator does is written down.
enum Recording {
    /// As if it were the live API.
    Live(PathBuf),
    /// With what steers it, so that it can be made to happen again.
    Simulated(PathBuf),
}

/// A simulator behind a gateway, and what it called back.
pub struct World {
    plane: DataPlane,
    pub receiver: Receiver,
    metrics: Arc<Metrics>,
    uploads: TempDir,
}

impl World {
    pub fn build() -> WorldBuilder {
        WorldBuilder {
            settings: Settings::default(),
            open: true,
            largest_json: 64 * 1024,
            tenants: Vec::new(),
            room: Room { total: 1 << 30, each: 1 << 30 },
            // Each world a file of that folder, for `kiegate verify` (`tests/run.sh`).
            recording: std::env::var_os("KIEGATE_RECORD_STORIES").map(|folder| {
                static WORLDS: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
                let number = WORLDS.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                let name = std::thread::current().name().unwrap_or("story").replace("::", "-");
                fs::create_dir_all(&folder).unwrap();
                Recording::Simulated(PathBuf::from(folder).join(format!("{name}-{number}.har")))
            }),
        }
    }

    pub fn standard() -> Self {
        Self::build().start()
    }

    /// Somebody with that bearer token.
    pub fn client(&self, token: &str) -> Client {
        Client::of(self.plane.clone(), token)
    }

    /// Somebody without a key.
    pub fn stranger(&self) -> Client {
        Client { plane: self.plane.clone(), token: None, headers: HeaderMap::new() }
    }

    /// The answer to a request as it is, its body still to be read.
    pub async fn answer(&self, request: Request<Body>) -> http::Response<Body> {
        self.plane.answer(request).await
    }

    pub fn metrics_page(&self) -> String {
        String::from_utf8(self.metrics.page().1).unwrap()
    }

    /// The uploaded files on disk, as names below the folder that they shall not leave.
    pub fn files_on_disk(&self) -> Vec<PathBuf> {
        let folders = fs::read_dir(self.uploads.path()).unwrap().map(|entry| entry.unwrap().path());
        folders.flat_map(|path| fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path())).collect()
    }

    /// Waits until that many uploaded files are on disk: they are removed beside the event loop.
    pub async fn until_on_disk(&self, count: usize) {
        for _ in 0..1000 {
            if self.files_on_disk().len() == count {
                return;
            }
            tokio::task::spawn_blocking(|| std::thread::sleep(Duration::from_millis(5))).await.unwrap();
        }
        panic!("{count} files were expected, there are {:?}", self.files_on_disk());
    }
}

/// A part of a form.
pub enum Part<'a> {
    Field(&'a str, &'a str),
    /// Name, file name, type, bytes.
    File(&'a str, &'a str, Option<&'a str>, &'a [u8]),
}

/// The boundary of forms in stories.
pub const BOUNDARY: &str = "----story-boundary";

/// A form as clients write it.
pub fn form(parts: &[Part<'_>]) -> Vec<u8> {
    let mut body = Vec::new();
    for part in parts {
        body.extend(format!("--{BOUNDARY}\r\n").bytes());
        match part {
            Part::Field(name, text) => {
                let head = format!("content-disposition: form-data; name=\"{name}\"\r\n\r\n{text}");
                body.extend(head.bytes());
            }
            Part::File(name, file_name, kind, bytes) => {
                let disposition =
                    format!("content-disposition: form-data; name=\"{name}\"; filename=\"{file_name}\"\r\n");
                body.extend(disposition.bytes());
                body.extend(kind.iter().flat_map(|kind| format!("content-type: {kind}\r\n").into_bytes()));
                body.extend(b"\r\n");
                body.extend(*bytes);
            }
        }
        body.extend(b"\r\n");
    }
    body.extend(format!("--{BOUNDARY}--\r\n").bytes());
    body
}

impl WorldBuilder {
    /// What a new sandbox starts with.
    pub fn settings(mut self, settings: Settings) -> Self {
        self.settings = settings;
        self
    }

    pub fn room(mut self, total: u64, each: u64) -> Self {
        self.room = Room { total, each };
        self
    }

    pub fn closed_but_for(mut self, tenants: Vec<kiegate::config::Tenant>) -> Self {
        self.open = false;
        self.tenants = tenants;
        self
    }

    /// How many bytes of JSON a call may bring.
    pub fn largest_json(mut self, bytes: usize) -> Self {
        self.largest_json = bytes;
        self
    }

    /// What the simulator answers, and what it calls back, is recorded as if it were the live API.
    pub fn recorded(mut self, path: PathBuf) -> Self {
        self.recording = Some(Recording::Live(path));
        self
    }

    /// It is recorded with what steers it.
    pub fn recorded_as_it_is(mut self, path: PathBuf) -> Self {
        self.recording = Some(Recording::Simulated(path));
        self
    }

    pub fn start(self) -> World {
        let receiver = Receiver::default();
        let metrics = Arc::new(Metrics::new());
        let uploads = tempfile::tempdir().unwrap();
        let clock = Clock::starting_at(Timestamp::from_millis(1_785_999_477_123));
        let recorder = self.recording.map(|recording| {
            let redactor = Redactor::new([Secret::new(WEBHOOK_KEY)], "/_relay/");
            let catalogue = Arc::clone(&CATALOGUE);
            let recorder = match recording {
                Recording::Live(path) => Recorder::create(&path, catalogue, clock, redactor),
                Recording::Simulated(path) => {
                    let (settings, credits, room) = (self.settings.clone(), CREDITS, self.room);
                    let beginning = Beginning { settings, credits, room }.to_json();
                    Recorder::of_simulator(&path, catalogue, clock, redactor, &beginning)
                }
            };
            Arc::new(recorder.unwrap())
        });
        let courier = Overheard { to: receiver.clone(), recorder: recorder.clone() };
        let sim = Sim::new(sim::Parts {
            catalogue: Arc::clone(&CATALOGUE),
            clock,
            settings: self.settings,
            credits: CREDITS,
            webhook_secret: Some(Secret::new(WEBHOOK_KEY)),
            public_url: None,
            courier: Arc::new(courier),
            observer: Arc::clone(&metrics) as Arc<dyn sim::Observer>,
            spool: Spool::new(uploads.path(), self.room),
        });
        let store: Arc<dyn Store> = Arc::new(Embedded::default());
        let mut upstream: Arc<dyn Upstream> = Arc::new(Simulated(sim.clone()));
        let mut routes = sim::routes(sim);
        if let Some(recorder) = recorder {
            if recorder.is_of_simulator() {
                routes = proxy::steered(routes, Arc::clone(&recorder));
            }
            let bases = ["https://kie.test", "https://files.test"].map(str::to_owned);
            upstream = Arc::new(Recorded { upstream, recorder, bases, wanted: Box::new(|_| true) });
        }
        let gateway = Gateway::new(gateway::Parts {
            catalogue: Arc::clone(&CATALOGUE),
            clock,
            open: self.open,
            mode: Mode::Mock,
            upstreams: Upstreams { mock: Some(upstream), ..Upstreams::default() },
            accounts: Accounts::default(),
            retries: Retries::default(),
            metrics: Arc::clone(&metrics),
            store: Arc::clone(&store),
            tracker: tracker(&store, clock, &metrics),
            recorder: None,
            simulated: Arc::new(SimulatedEnds::new(store, clock)),
            freshness: defaults().cache,
            public_url: None,
            trusted_proxies: Vec::new(),
            largest_json: self.largest_json,
            largest_upload: 1024 * 1024,
            body_timeout: Duration::from_secs(75),
            forward_unknown: true,
        });
        gateway.set_tenants(&self.tenants);
        let plane = DataPlane::new(Arc::new(gateway), Some(routes));
        World { plane, receiver, metrics, uploads }
    }
}

/// The configuration that holds when nothing is set.
fn defaults() -> Config {
    Sources::default().read().unwrap_or_else(|error| panic!("{error}"))
}

/// Follows nothing: in mock mode time is the sandbox's.
fn tracker(store: &Arc<dyn Store>, clock: Clock, metrics: &Arc<Metrics>) -> Tracker {
    let deliveries = Deliveries::new(clock, Schedule::new(None), Arc::clone(metrics), Arc::new(NoPost));
    Tracker::new(tracker::Parts {
        catalogue: Arc::clone(&CATALOGUE),
        clock,
        metrics: Arc::clone(metrics),
        store: Arc::clone(store),
        deliveries,
        webhook_secrets: HashMap::new(),
        can_be_called: false,
    })
}

/// Where nothing is relayed.
struct NoPost;

impl Post for NoPost {
    fn secret(&self, _: &TenantId) -> Option<Secret> {
        None
    }

    fn post(
        &self,
        _: &TenantId,
        url: Arc<str>,
        _: HeaderMap,
        _: Bytes,
    ) -> BoxFuture<'static, Result<Delivered, Failure>> {
        panic!("nothing is relayed in mock mode, but {url}");
    }
}

/// Takes callbacks in, and answers as it is told to.
#[derive(Clone, Default)]
pub struct Receiver(Arc<Mutex<ReceiverState>>);

#[derive(Default)]
struct ReceiverState {
    received: Vec<Received>,
    answers: VecDeque<Result<u16, String>>,
    delays: Vec<(String, Duration)>,
}

#[derive(Clone, Debug)]
pub struct Received {
    pub url: String,
    pub headers: HeaderMap,
    pub body: Value,
    pub raw: Bytes,
}

impl Receiver {
    /// All callbacks so far.
    pub fn received(&self) -> Vec<Received> {
        self.0.lock().unwrap().received.clone()
    }

    /// What the next callbacks are answered; then 200.
    pub fn answers(&self, answers: &[u16]) {
        self.0.lock().unwrap().answers.extend(answers.iter().map(|status| Ok(*status)));
    }

    /// The next callback fails to connect.
    pub fn is_down_once(&self) {
        self.0.lock().unwrap().answers.push_back(Err("connection refused".into()));
    }

    /// Whatever goes to a URL with `part` in it is answered this much later.
    pub fn is_slow(&self, part: &str, delay: Duration) {
        self.0.lock().unwrap().delays.push((part.to_owned(), delay));
    }
}

impl Courier for Receiver {
    fn deliver(&self, parcel: Parcel) -> BoxFuture<'static, Result<StatusCode, String>> {
        let this = self.clone();
        async move {
            let delay = {
                let mut state = this.0.lock().unwrap();
                let body = serde_json::from_slice(&parcel.body).unwrap();
                let delay =
                    state.delays.iter().find(|(part, _)| parcel.url.contains(part)).map(|(_, delay)| *delay);
                state.received.push(Received {
                    url: parcel.url,
                    headers: parcel.headers,
                    body,
                    raw: parcel.body,
                });
                delay
            };
            if let Some(delay) = delay {
                tokio::time::sleep(delay).await;
            }
            let answer = this.0.lock().unwrap().answers.pop_front().unwrap_or(Ok(200));
            answer.map(|status| StatusCode::from_u16(status).unwrap())
        }
        .boxed()
    }
}

/// Takes callbacks to the receiver, past whoever writes them down.
struct Overheard {
    to: Receiver,
    recorder: Option<Arc<Recorder>>,
}

impl Courier for Overheard {
    fn deliver(&self, parcel: Parcel) -> BoxFuture<'static, Result<StatusCode, String>> {
        let Some(recorder) = self.recorder.clone() else { return self.to.deliver(parcel) };
        if !recorder.is_of_simulator() {
            recorder.called_back(&parcel.url, &parcel.headers, &parcel.body, 200);
            return self.to.deliver(parcel);
        }
        let calling = recorder.calling(&parcel.url, &parcel.headers, &parcel.body);
        let delivered = self.to.deliver(parcel);
        async move {
            let answer = delivered.await;
            calling.answered(&answer.clone().map(|status| status.as_u16()));
            answer
        }
        .boxed()
    }
}

/// An answer, read whole.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    pub raw: Bytes,
}

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.raw)
            .unwrap_or_else(|error| panic!("no JSON ({error}): {}", String::from_utf8_lossy(&self.raw)))
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.raw).into_owned()
    }

    #[track_caller]
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).unwrap_or_else(|| panic!("no {name} in {:?}", self.headers)).to_str().unwrap()
    }

    #[track_caller]
    pub fn expect_status(self, status: u16) -> Self {
        assert_eq!(self.status, status, "{}", self.text());
        self
    }

    /// The envelope must say this.
    #[track_caller]
    pub fn expect_code(self, code: u16) -> Self {
        assert_eq!(self.json()["code"], code, "{}", self.text());
        self
    }

    /// The envelope must be this refusal, over HTTP 200.
    #[track_caller]
    pub fn expect_refusal(self, code: u16, message: &str) -> Self {
        let answer = self.expect_status(200);
        assert_eq!(answer.json(), json!({"code": code, "msg": message, "data": null}));
        answer
    }

    /// The id of the task that was created, whatever the answer calls it.
    #[track_caller]
    pub fn id(&self) -> String {
        let data = &self.json()["data"];
        let id = [&data["taskId"], &data["task_id"]].into_iter().find_map(Value::as_str);
        id.unwrap_or_else(|| panic!("no task: {}", self.text())).to_owned()
    }

    #[track_caller]
    pub fn task_id(&self) -> String {
        self.json()["data"]["taskId"]
            .as_str()
            .unwrap_or_else(|| panic!("no task: {}", self.text()))
            .to_owned()
    }
}

/// Somebody who calls the API.
#[derive(Clone)]
pub struct Client {
    plane: DataPlane,
    token: Option<String>,
    headers: HeaderMap,
}

impl Client {
    /// Somebody with that bearer token.
    pub fn of(plane: DataPlane, token: &str) -> Self {
        Self { plane, token: Some(token.to_owned()), headers: HeaderMap::new() }
    }

    /// The same client with one more header.
    pub fn with(&self, name: &'static str, value: &str) -> Self {
        let mut client = self.clone();
        client.headers.insert(name, value.parse().unwrap());
        client
    }

    /// The same client asking for an outcome.
    pub fn wishing(&self, outcome: &str) -> Self {
        self.with("x-mock-outcome", outcome)
    }

    pub async fn send(&self, method: Method, path: &str, body: impl Into<Body>) -> Answer {
        let mut request = Request::new(body.into());
        *request.method_mut() = method;
        *request.uri_mut() = path.parse().unwrap();
        request.headers_mut().insert("host", "kie.test".parse().unwrap());
        request.headers_mut().insert("content-type", "application/json".parse().unwrap());
        if let Some(token) = &self.token {
            request.headers_mut().insert("authorization", format!("Bearer {token}").parse().unwrap());
        }
        request.headers_mut().extend(self.headers.clone());
        let response = self.plane.answer(request).await;
        let (parts, body) = response.into_parts();
        let raw = axum::body::to_bytes(body, usize::MAX).await.unwrap();
        Answer { status: parts.status.as_u16(), headers: parts.headers, raw }
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.send(Method::GET, path, Body::empty()).await
    }

    pub async fn post(&self, path: &str, body: &Value) -> Answer {
        self.send(Method::POST, path, body.to_string()).await
    }

    pub async fn put(&self, path: &str, body: &Value) -> Answer {
        self.send(Method::PUT, path, body.to_string()).await
    }

    /// Moves the sandbox's clock; gives what happened on the way.
    pub async fn advance(&self, by: &str) -> Vec<Value> {
        let answer = self.post("/_mock/clock/advance", &json!({"by": by})).await.expect_status(200);
        answer.json()["events"].as_array().unwrap().clone()
    }

    pub async fn until_idle(&self) -> Vec<Value> {
        let answer = self.post("/_mock/clock/advance", &json!({"until": "idle"})).await.expect_status(200);
        answer.json()["events"].as_array().unwrap().clone()
    }

    pub async fn freeze(&self) {
        self.put("/_mock/clock", &json!({"rate": 0})).await.expect_status(200);
    }

    /// The task as the control API shows it.
    pub async fn task(&self, id: &str) -> Value {
        self.get(&format!("/_mock/tasks/{id}")).await.expect_status(200).json()
    }

    pub async fn credits(&self) -> f64 {
        self.get("/_mock/credits").await.json()["credits"].as_f64().unwrap()
    }

    /// Calls the operation of that id: a body for a POST, a query for a GET.
    pub async fn call(&self, operation: &str, request: &Value) -> Answer {
        let index =
            CATALOGUE.operation_by_id(operation).unwrap_or_else(|| panic!("no operation {operation}"));
        let operation = CATALOGUE.operation(index);
        if operation.method == Method::GET {
            let pairs = request.as_object().into_iter().flatten();
            let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            let query = form_urlencoded::Serializer::new(String::new())
                .extend_pairs(pairs.map(|(name, value)| (name, text(value))))
                .finish();
            self.get(&format!("{}?{query}", operation.path)).await
        } else if operation.takes_form() {
            self.send_form(&operation.path, &parts_of(request)).await
        } else {
            self.post(&operation.path, request).await
        }
    }

    /// Posts a form.
    pub async fn send_form(&self, path: &str, parts: &[Part<'_>]) -> Answer {
        let kind = format!("multipart/form-data; boundary={BOUNDARY}");
        self.with("content-type", &kind).send(Method::POST, path, form(parts)).await
    }
}

/// The parts that stand for an object; what is neither text nor file is left out.
fn parts_of(request: &Value) -> Vec<Part<'_>> {
    let members = request.as_object().into_iter().flatten();
    members.filter_map(|(name, value)| part_of(name, value)).collect()
}

/// Text is a field, an object with name, type and text is a file.
fn part_of<'a>(name: &'a str, value: &'a Value) -> Option<Part<'a>> {
    if let Some(text) = value.as_str() {
        return Some(Part::Field(name, text));
    }
    let (file, text) = (value["name"].as_str()?, value["text"].as_str()?);
    Some(Part::File(name, file, value["type"].as_str(), text.as_bytes()))
}
