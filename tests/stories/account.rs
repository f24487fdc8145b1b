//! One account of the real API, shared by tenants: stories of the gateway in live mode.
//!
//! The real API is played by a second simulator in this process, behind a script that counts what arrives and misbehaves
//! when it is told to; so the clock is tokio's and exact.

mod budgets;
mod callbacks;
mod clocks;
mod creates;
mod keys;
mod looks;
mod ownership;
mod permissions;
mod quota;
mod reading;
mod recordings;

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use http::{HeaderMap, Request, Response, StatusCode};
use kiegate::app::{Built, Plan, StartError};
use kiegate::clock::{Clock, Moment, Timestamp};
use kiegate::config::{Config, Sources};
use kiegate::gateway::{DataPlane, Gateway};
use kiegate::ids::{Credits, Secret, TenantId};
use kiegate::outbound::guard::{Delivered, Failure, FailureKind};
use kiegate::proxy::{About, Untaken, Upstream, UpstreamError};
use kiegate::sim::{self, Courier, Parcel, Room, Settings, Sim, Spool};
use kiegate::store::{Embedded, Store};
use kiegate::tasks::delivery::Post;
use kiegate::telemetry::Metrics;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::time::Instant;

use crate::support::{Answer, CATALOGUE, Client};

/// What the account's callbacks are signed with.
pub const WEBHOOK_KEY: &str = "account-webhook-key";
/// What tenants' callbacks are signed with, where the configuration says so.
pub const TENANT_KEY: &str = "tenant-webhook-key";

/// A gateway in front of an account, and everybody around it.
pub struct Shared {
    pub plane: DataPlane,
    pub gateway: Arc<Gateway>,
    pub upstream: Arc<Script>,
    pub receiver: Receiver,
    pub metrics: Arc<Metrics>,
    pub store: Arc<dyn Store>,
    _spool: TempDir,
}

/// The real API: a simulator, and what is done to it on the way.
pub struct Script {
    sim: Sim,
    arrived: Mutex<Vec<Arrived>>,
    next: Mutex<VecDeque<Misfortune>>,
    latency: Mutex<Duration>,
}

/// A request as it arrived upstream.
#[derive(Clone, Debug)]
pub struct Arrived {
    pub at: Instant,
    pub operation: String,
    pub key: usize,
    pub path: String,
    pub body: Bytes,
}

/// What happens to a request in the place of a proper answer.
#[derive(Clone, Debug)]
pub enum Misfortune {
    /// No connection.
    Unreachable,
    /// It is not looked at, and upstream says so.
    Untaken,
    /// It arrives, and the answer is lost.
    AnswerLost,
    /// It does not arrive, since a kept connection was closed, and nobody can know.
    Stale,
    /// It does not arrive, and nobody can know.
    Broken,
    /// It arrives, and what sent it breaks.
    Panic,
    /// HTTP status and body.
    Answers(u16, Value),
    /// There were too many; when it is to be tried again, in seconds.
    Throttled(u32),
    /// Bytes.
    Garbage(Vec<u8>),
    /// It arrives, and the answer breaks off.
    HalfAnswered,
}

impl Upstream for Script {
    fn send(
        &self,
        request: Request<Body>,
        about: About,
    ) -> BoxFuture<'_, Result<Response<Body>, UpstreamError>> {
        async move {
            let (mut parts, body) = request.into_parts();
            let body = axum::body::to_bytes(body, usize::MAX).await.unwrap();
            let (operation, key) = (about.operation.to_string(), about.key.0);
            let path = parts.uri.to_string();
            let misfortune = self.next.lock().unwrap().pop_front();
            if !matches!(misfortune, Some(Misfortune::Unreachable | Misfortune::Untaken)) {
                let arrived = Arrived { at: Instant::now(), operation, key, path, body: body.clone() };
                self.arrived.lock().unwrap().push(arrived);
            }
            let latency = *self.latency.lock().unwrap();
            tokio::time::sleep(latency).await;
            parts.headers.insert("authorization", format!("Bearer account-{key}").parse().unwrap());
            let pass = || self.sim.answer(Request::from_parts(parts, Body::from(body)), None);
            match misfortune {
                None => Ok(pass().await),
                Some(Misfortune::Unreachable) => Err(UpstreamError::Unreachable("refused".into())),
                Some(Misfortune::Untaken) => {
                    Err(UpstreamError::Untaken { what: "refused stream".into(), why: Untaken::Busy })
                }
                Some(Misfortune::Stale) => Err(UpstreamError::Stale("closed".into())),
                Some(Misfortune::Broken) => Err(UpstreamError::Broken("reset".into())),
                Some(Misfortune::Panic) => panic!("as the story wants it"),
                Some(Misfortune::AnswerLost) => {
                    pass().await;
                    Err(UpstreamError::Timeout(Duration::from_mins(1)))
                }
                Some(Misfortune::Answers(status, body)) => {
                    let mut response = Response::new(Body::from(body.to_string()));
                    *response.status_mut() = StatusCode::from_u16(status).unwrap();
                    Ok(response)
                }
                Some(Misfortune::Throttled(seconds)) => {
                    let too_many = json!({"code": 429, "msg": "too many", "data": null});
                    let response = Response::builder().status(429).header("retry-after", seconds);
                    Ok(response.body(Body::from(too_many.to_string())).unwrap())
                }
                Some(Misfortune::Garbage(bytes)) => Ok(Response::new(Body::from(bytes))),
                Some(Misfortune::HalfAnswered) => {
                    let half = Ok(Bytes::from_static(b"{\"code\":200,"));
                    let broken = Err(std::io::Error::other("reset"));
                    Ok(Response::new(Body::from_stream(futures_util::stream::iter([half, broken]))))
                }
            }
        }
        .boxed()
    }
}

impl Script {
    /// What happens to the next requests, one each.
    pub fn meets(&self, misfortunes: impl IntoIterator<Item = Misfortune>) {
        self.next.lock().unwrap().extend(misfortunes);
    }

    /// How long requests are on their way from now on.
    pub fn takes(&self, latency: Duration) {
        *self.latency.lock().unwrap() = latency;
    }

    pub fn arrived(&self) -> Vec<Arrived> {
        self.arrived.lock().unwrap().clone()
    }

    /// How many requests of that operation arrived.
    pub fn count(&self, operation: &str) -> usize {
        self.arrived().iter().filter(|arrived| arrived.operation == operation).count()
    }
}

/// The tenants' receivers of callbacks.
#[derive(Clone, Default)]
pub struct Receiver(Arc<Mutex<ReceiverState>>);

#[derive(Default)]
struct ReceiverState {
    got: Vec<Got>,
    answers: VecDeque<Result<u16, FailureKind>>,
    secrets: HashMap<String, String>,
}

/// A callback as a tenant got it.
#[derive(Clone, Debug)]
pub struct Got {
    pub tenant: String,
    pub url: String,
    pub headers: HeaderMap,
    pub raw: Bytes,
}

impl Got {
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.raw).unwrap()
    }
}

impl Receiver {
    pub fn got(&self) -> Vec<Got> {
        self.0.lock().unwrap().got.clone()
    }

    pub fn answers(&self, answers: &[u16]) {
        self.0.lock().unwrap().answers.extend(answers.iter().map(|status| Ok(*status)));
    }

    /// Waits until so many callbacks have come, for an hour at most.
    pub async fn until(&self, count: usize) -> Vec<Got> {
        for _ in 0..36_000 {
            if self.got().len() >= count {
                break;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        let got = self.got();
        assert!(got.len() >= count, "{count} callbacks were expected: {got:#?}");
        got
    }
}

impl Post for Receiver {
    fn secret(&self, tenant: &TenantId) -> Option<Secret> {
        self.0.lock().unwrap().secrets.get(tenant.as_str()).map(Secret::new)
    }

    fn post(
        &self,
        tenant: &TenantId,
        url: Arc<str>,
        headers: HeaderMap,
        raw: Bytes,
    ) -> BoxFuture<'static, Result<Delivered, Failure>> {
        let mut state = self.0.lock().unwrap();
        state.got.push(Got { tenant: tenant.as_str().into(), url: url.to_string(), headers, raw });
        let answer = state.answers.pop_front().unwrap_or(Ok(200));
        let answer = answer
            .map(|status| Delivered { status: StatusCode::from_u16(status).unwrap(), retry_after: None });
        std::future::ready(answer.map_err(|kind| Failure { kind, what: "no luck".into() })).boxed()
    }
}

/// Brings the account's callbacks to the gateway.
struct ToGateway(Arc<OnceLock<DataPlane>>);

impl Courier for ToGateway {
    fn deliver(&self, parcel: Parcel) -> BoxFuture<'static, Result<StatusCode, String>> {
        let plane = self.0.get().cloned();
        async move {
            let plane = plane.ok_or("nobody is there")?;
            let path = parcel.url.strip_prefix("https://gateway.test").ok_or("no such host")?;
            let mut request = Request::post(path).body(Body::from(parcel.body)).unwrap();
            *request.headers_mut() = parcel.headers;
            Ok(plane.answer(request).await.status())
        }
        .boxed()
    }
}

/// A key as a configuration has it, after `sha256:`.
fn hash(key: &str) -> String {
    kiegate::clock::hex(&kiegate::tenants::hash(key))
}

/// The configuration of a gateway in live mode with the tenants `acme` and `bolt`, whose keys are `acme` and `bolt`.
pub fn live(lines: &str) -> Config {
    let text = lines
        .replace("%acme", &format!("id = \"acme\"\nkeys = [\"sha256:{}\"]", hash("acme")))
        .replace("%bolt", &format!("id = \"bolt\"\nkeys = [\"sha256:{}\"]", hash("bolt")))
        .replace("%main", "name = \"main\"\nsecret = \"env:MAIN\"\nwebhook_secret = \"env:WEBHOOK\"")
        .replace("%spare", "name = \"spare\"\nsecret = \"env:SPARE\"\nwebhook_secret = \"env:WEBHOOK\"");
    let environment =
        [("MAIN", "fake-main"), ("SPARE", "fake-spare"), ("WEBHOOK", WEBHOOK_KEY), ("TENANT", TENANT_KEY)];
    let environment = environment.map(|(name, text)| (name.to_owned(), text.to_owned())).to_vec();
    let file = Some(("test.toml".into(), text.clone()));
    let read = Sources { file, environment, flags: Vec::new() }.read();
    read.unwrap_or_else(|error| panic!("{error}\n{text}"))
}

/// The usual one: it can be called back.
pub const CALLED_BACK: &str = "mode = \"live\"\npublic_url = \"https://gateway.test\"\n[[upstream.key]]\n%main\n[[tenant]]\n%acme\n[[tenant]]\n%bolt\n";
/// And one that cannot.
pub const NOT_CALLED_BACK: &str =
    "mode = \"live\"\n[[upstream.key]]\n%main\n[[tenant]]\n%acme\n[[tenant]]\n%bolt\n";

impl Shared {
    pub fn new(lines: &str) -> Self {
        Self::with(&live(lines), Settings::default())
    }

    /// The same with all that is configured.
    pub fn new_with(config: &Config) -> Self {
        Self::with(config, Settings::default())
    }

    pub fn with(config: &Config, settings: Settings) -> Self {
        Self::try_with(config, settings).unwrap_or_else(|error| panic!("{error}"))
    }

    pub fn try_with(config: &Config, settings: Settings) -> Result<Self, StartError> {
        let clock = Clock::starting_at(Timestamp::from_millis(1_785_999_477_123));
        let plane = Arc::new(OnceLock::new());
        let spool = tempfile::tempdir().unwrap();
        let account = Sim::new(sim::Parts {
            catalogue: Arc::clone(&CATALOGUE),
            clock,
            settings,
            credits: Credits::whole(100_000),
            webhook_secret: Some(Secret::new(WEBHOOK_KEY)),
            public_url: Some("https://files.test".into()),
            courier: Arc::new(ToGateway(Arc::clone(&plane))),
            observer: Arc::new(Metrics::new()),
            spool: Spool::new(spool.path(), Room { total: 1 << 20, each: 1 << 20 }),
        });
        let upstream = Arc::new(Script {
            sim: account,
            arrived: Mutex::default(),
            next: Mutex::default(),
            latency: Mutex::default(),
        });
        let receiver = Receiver::default();
        let secrets = config.tenants.iter().filter_map(|tenant| {
            Some((tenant.id.as_str().to_owned(), tenant.callbacks.secret.as_ref()?.expose().to_owned()))
        });
        receiver.0.lock().unwrap().secrets.extend(secrets);
        let metrics = Arc::new(Metrics::new());
        let store: Arc<dyn Store> = Arc::new(Embedded::default());
        let Built { gateway, sim, .. } = Plan {
            config,
            catalogue: Arc::clone(&CATALOGUE),
            clock,
            metrics: Arc::clone(&metrics),
            store: Arc::clone(&store),
            live: Some(Arc::clone(&upstream) as Arc<dyn Upstream>),
            post: Some(Arc::new(receiver.clone())),
        }
        .build()?;
        let own = DataPlane::new(Arc::clone(&gateway), sim.map(sim::routes));
        let _ = plane.set(own.clone());
        Ok(Self { plane: own, gateway, upstream, receiver, metrics, store, _spool: spool })
    }

    pub fn client(&self, key: &str) -> Client {
        Client::of(self.plane.clone(), key)
    }

    /// A whole number of the metrics' page; nothing if it is not there.
    pub fn metric(&self, line: &str) -> i64 {
        let page = String::from_utf8(self.metrics.page().1).unwrap();
        page.lines().find_map(|there| there.strip_prefix(line)?.trim().parse().ok()).unwrap_or(0)
    }

    pub async fn running(&self, tenant: &str) -> u32 {
        self.store.running(&TenantId::new(tenant)).await.unwrap()
    }

    /// The credits that are spent and reserved in this month, all of them in earnest or all in simulations.
    pub async fn spent(&self, tenant: &str) -> u32 {
        let (tenant, now) = (TenantId::new(tenant), Timestamp::from_millis(1_785_999_477_123));
        let spent = async |moment| self.store.spent(&tenant, moment).await.unwrap()[2];
        let (real, simulated) = (spent(Moment::Real(now)).await, spent(Moment::Simulated(now)).await);
        let member = self.gateway.member(tenant.as_str());
        let is_simulated = member.is_some_and(|member| member.mode.has_sandbox());
        let (ours, other) = if is_simulated { (simulated, real) } else { (real, simulated) };
        assert_eq!(other, Credits::ZERO, "it was spent in the wrong world");
        ours.to_string().parse().unwrap()
    }
}

/// A request that every account takes: 12 credits.
pub fn video() -> Value {
    json!({"prompt": "A paper boat", "duration": 5, "quality": "720p", "aspectRatio": "16:9"})
}

/// The same, to be called back.
pub fn video_to(url: &str) -> Value {
    let mut request = video();
    request["callBackUrl"] = url.into();
    request
}

/// A request for a song that tells of itself at `url`.
pub fn song(url: &str) -> Value {
    json!({"prompt": "rain", "customMode": false, "instrumental": false, "model": "V5", "callBackUrl": url})
}

impl Client {
    pub async fn create(&self) -> Answer {
        self.post("/api/v1/runway/generate", &video()).await
    }

    pub async fn details(&self, id: &str) -> Answer {
        self.get(&format!("/api/v1/runway/record-detail?taskId={id}")).await
    }

    /// Polls until the task has ended, as a client does.
    pub async fn until_ended(&self, id: &str) -> Value {
        for _ in 0..10_000 {
            let record = self.details(id).await.json();
            if ["success", "fail"].contains(&record["data"]["state"].as_str().unwrap_or_default()) {
                return record;
            }
            tokio::time::sleep(Duration::from_secs(3)).await;
        }
        panic!("{id} never ended");
    }
}
