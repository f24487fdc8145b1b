//! Building the gateway and what stands behind it from a configuration. Nothing is started here.

use std::sync::{Arc, OnceLock, Weak};

use super::{StartError, wiring};
use crate::catalogue::Catalogue;
use crate::clock::Clock;
use crate::config::{self, Config, Mode, UnknownPaths};
use crate::gateway::{self, Accounts, Gateway, Upstreams};
use crate::ids::Credits;
use crate::outbound::Client;
use crate::outbound::guard::Guarded;
use crate::proxy::{Live, Nowhere, Recorded, Replayed, Retries, Simulated, Upstream};
use crate::record::{Library, Recorder, Recording, Redactor, file_for};
use crate::sim::{self, Courier, Sim};
use crate::store::Store;
use crate::tasks::delivery::{Deliveries, Post};
use crate::tasks::schedule::Schedule;
use crate::tasks::simulated::SimulatedEnds;
use crate::tasks::tracker::{self, Tracker};
use crate::telemetry::Metrics;

/// What everything is built from.
pub struct Plan<'c> {
    /// What is asked for.
    pub config: &'c Config,
    /// What is known of the API.
    pub catalogue: Arc<Catalogue>,
    /// Real time.
    pub clock: Clock,
    /// Who is told.
    pub metrics: Arc<Metrics>,
    /// What must not be forgotten.
    pub store: Arc<dyn Store>,
    /// What answers in the real API's place; absent: the real API.
    pub live: Option<Arc<dyn Upstream>>,
    /// What posts callbacks to tenants; absent: the network.
    pub post: Option<Arc<dyn Post>>,
}

/// The gateway, and the simulator where one is asked for.
pub struct Built {
    /// It has the tenants of the configuration.
    pub gateway: Arc<Gateway>,
    /// What tenants and open sandboxes call.
    pub sim: Option<Sim>,
    /// The real API, where it is asked.
    pub live: Option<Arc<Live>>,
    /// Who writes down what it says.
    pub recorder: Option<Arc<Recorder>>,
}

impl Plan<'_> {
    /// Builds both.
    ///
    /// # Errors
    /// Upstream keys that are no good, or a recording that cannot be read or written.
    pub fn build(self) -> Result<Built, StartError> {
        let config = self.config;
        let modes = || config.tenants.iter().filter_map(|tenant| tenant.mode).chain([config.mode]);
        let client = Client::new(config.upstream.connect_timeout, config.upstream.idle_timeout);
        let ends = Arc::new(SimulatedEnds::new(Arc::clone(&self.store), self.clock));
        let known = Arc::new(OnceLock::new());
        let tracker = self.tracker(&known);
        let courier = if modes().any(Mode::is_paid) {
            Arc::new(self.to_tenants(&known)) as Arc<dyn Courier>
        } else {
            Arc::new(client.clone()) // a simulator for tests calls whoever it is told to
        };
        let sim = modes().any(Mode::has_sandbox).then(|| self.simulator(courier, &ends));
        let mut upstreams = Upstreams {
            mock: sim.clone().map(|sim| Arc::new(Simulated(sim)) as Arc<dyn Upstream>),
            ..Upstreams::default()
        };
        if let (Some(sim), true) = (&sim, modes().any(|mode| mode == Mode::Replay)) {
            upstreams.replay = Some(Arc::new(self.replayed(sim.clone())?));
        }
        let recorder = modes().any(|mode| mode == Mode::Record).then(|| self.recorder()).transpose()?;
        let recorder = recorder.map(Arc::new);
        let mut watched = None;
        if modes().any(Mode::is_paid) {
            upstreams.nowhere = Some(Arc::new(Nowhere(self.nowhere(&tracker))));
            let live = if let Some(live) = &self.live {
                Arc::clone(live)
            } else {
                let api = self.real_api(client)?;
                watched = Some(Arc::clone(&api));
                api
            };
            upstreams.live = Some(match &recorder {
                Some(recorder) => Arc::new(self.recorded(live, Arc::clone(recorder), &known)),
                None => live,
            });
        }
        let gateway = Arc::new(self.gateway(upstreams, tracker, recorder.clone(), ends));
        let _ = known.set(Arc::downgrade(&gateway));
        gateway.set_tenants(&config.tenants);
        self.tell_when_asked(&gateway, watched.as_ref());
        Ok(Built { gateway, sim, live: watched, recorder })
    }

    fn real_api(&self, client: Client) -> Result<Arc<Live>, StartError> {
        let api = Live::new(&self.config.upstream, client, Arc::clone(&self.metrics));
        let what = "live mode needs an [[upstream.key]] that fits in a header";
        api.map(Arc::new).ok_or_else(|| StartError::Mode(what.into()))
    }

    /// What is recorded already, in the live API's place.
    fn replayed(&self, sim: Sim) -> Result<Replayed, StartError> {
        let path = self.config.recording.as_deref().ok_or_else(no_recording)?;
        let recording = Recording::read(&self.catalogue, path)?;
        let library = Library::new(Arc::clone(&self.catalogue), recording);
        Ok(Replayed { sim, library: Arc::new(library) })
    }

    /// Who writes down what the live API says, in a file of this run.
    fn recorder(&self) -> Result<Recorder, StartError> {
        let config = self.config;
        let path = config.recording.as_deref().ok_or_else(no_recording)?;
        let path = file_for(path, self.clock.now());
        let keys = config.upstream.keys.iter();
        let keys = keys.flat_map(|key| [Some(&key.secret), key.webhook_secret.as_ref()]).flatten();
        let tenants = config.tenants.iter().filter_map(|tenant| tenant.callbacks.secret.as_ref());
        let secrets = keys.chain(tenants).chain(&config.admin.token).chain(&config.store.redis).cloned();
        let redactor = Redactor::new(secrets, gateway::RELAY);
        let recorder = Recorder::create(&path, Arc::clone(&self.catalogue), self.clock, redactor);
        let recorder = recorder.map_err(|source| StartError::Recording { path: path.clone(), source })?;
        tracing::info!("recording to {}", path.display());
        Ok(recorder)
    }

    /// The live API, recorded for tenants that have that mode.
    fn recorded(
        &self,
        upstream: Arc<dyn Upstream>,
        recorder: Arc<Recorder>,
        gateway: &Arc<OnceLock<Weak<Gateway>>>,
    ) -> Recorded {
        let gateway = Arc::clone(gateway);
        let wanted = move |tenant: Option<&str>| {
            let member = tenant.and_then(|tenant| gateway.get()?.upgrade()?.member(tenant));
            member.is_some_and(|member| member.mode == Mode::Record)
        };
        let bases =
            [&self.config.upstream.base_url, &self.config.upstream.upload_url].map(ToString::to_string);
        Recorded { upstream, recorder, bases, wanted: Box::new(wanted) }
    }

    fn to_tenants(&self, gateway: &Arc<OnceLock<Weak<Gateway>>>) -> wiring::ToTenants {
        let guarded = Guarded::new(self.catalogue.shared().callback_timeout);
        wiring::ToTenants { guarded, gateway: Arc::clone(gateway) }
    }

    fn tracker(&self, gateway: &Arc<OnceLock<Weak<Gateway>>>) -> Tracker {
        let config = self.config;
        let to_tenants = || Arc::new(self.to_tenants(gateway)) as Arc<dyn Post>;
        let post = self.post.clone().unwrap_or_else(to_tenants);
        let schedule = Schedule::new(config.callbacks.retry.clone());
        let deliveries = Deliveries::new(self.clock, schedule, Arc::clone(&self.metrics), post);
        let secrets = config.upstream.keys.iter();
        let secrets = secrets.filter_map(|key| Some((key.name.as_str().into(), key.webhook_secret.clone()?)));
        Tracker::new(tracker::Parts {
            catalogue: Arc::clone(&self.catalogue),
            clock: self.clock,
            metrics: Arc::clone(&self.metrics),
            store: Arc::clone(&self.store),
            deliveries,
            webhook_secrets: secrets.collect(),
            can_be_called: config.public_url.is_some(),
        })
    }

    fn gateway(
        &self,
        upstreams: Upstreams,
        tracker: Tracker,
        recorder: Option<Arc<Recorder>>,
        simulated: Arc<SimulatedEnds>,
    ) -> Gateway {
        let config = self.config;
        let size = |bytes: u64| usize::try_from(bytes).unwrap_or(usize::MAX);
        Gateway::new(gateway::Parts {
            catalogue: Arc::clone(&self.catalogue),
            clock: self.clock,
            open: config.mode.has_sandbox() && config.mock.open,
            mode: config.mode,
            upstreams,
            accounts: Accounts::new(&config.upstream.keys, self.clock),
            retries: Retries::default(),
            metrics: Arc::clone(&self.metrics),
            store: Arc::clone(&self.store),
            tracker,
            recorder,
            simulated,
            freshness: config.cache.clone(),
            public_url: config.public_url.as_ref().map(ToString::to_string),
            trusted_proxies: config.trusted_proxies.clone(),
            largest_json: size(config.server.json_body),
            largest_upload: size(config.server.upload),
            body_timeout: config.server.idle_timeout,
            forward_unknown: config.mode.has_sandbox() || config.unknown_paths == UnknownPaths::Forward,
        })
    }

    /// The simulator that tenants and open sandboxes call.
    fn simulator(&self, courier: Arc<dyn Courier>, ends: &Arc<SimulatedEnds>) -> Sim {
        let (config, mock) = (self.config, &self.config.mock);
        let told = wiring::Told { metrics: Arc::clone(&self.metrics), ends: Arc::clone(ends) };
        Sim::new(sim::Parts {
            catalogue: Arc::clone(&self.catalogue),
            clock: self.clock.steady(), // a sandbox's own never goes back
            settings: sim::Settings {
                pace: match mock.pace {
                    config::Pace::Instant => sim::Pace::Instant,
                    config::Pace::Fast => sim::Pace::Fast,
                    config::Pace::Realistic => sim::Pace::Realistic,
                },
                seed: mock.seed,
                latency: (*mock.latency.start(), *mock.latency.end()),
                failure_rate: mock.failure_rate,
                emulate_quota: mock.emulate_quota,
                http_status: match mock.http_status {
                    config::HttpStatus::Wire => sim::HttpStatus::Wire,
                    config::HttpStatus::Real => sim::HttpStatus::Real,
                },
                ..sim::Settings::default()
            },
            credits: mock.credits,
            webhook_secret: Some(mock.webhook_secret.clone()),
            public_url: config.public_url.as_ref().map(ToString::to_string),
            courier,
            observer: Arc::new(told),
            spool: spool(config),
        })
    }

    /// The simulator that answers in the real API's place where a request names what is not the tenant's.
    fn nowhere(&self, tracker: &Tracker) -> Sim {
        // What a task was to be made of does not exist, wherever it stood.
        let settings =
            sim::Settings { pace: sim::Pace::Realistic, failure_rate: 1.0, ..sim::Settings::default() };
        let courier = wiring::IntoRelay { tracker: tracker.clone(), store: Arc::clone(&self.store) };
        Sim::new(sim::Parts {
            catalogue: Arc::clone(&self.catalogue),
            clock: self.clock,
            settings,
            credits: Credits::whole(1_000_000_000),
            webhook_secret: None,
            public_url: None,
            courier: Arc::new(courier),
            observer: Arc::new(wiring::Deaf),
            spool: sim::Spool::new(std::env::temp_dir(), sim::Room { total: 0, each: 0 }),
        })
    }

    /// What changes without anything happening is looked at when the metrics are read.
    fn tell_when_asked(&self, gateway: &Arc<Gateway>, live: Option<&Arc<Live>>) {
        let (gateway, metrics) = (Arc::downgrade(gateway), Arc::downgrade(&self.metrics));
        let live = live.map(Arc::downgrade);
        self.metrics.before_page(Box::new(move || {
            let (Some(gateway), Some(metrics)) = (gateway.upgrade(), metrics.upgrade()) else { return };
            gateway.tell(&metrics);
            let live = live.as_ref().and_then(Weak::upgrade);
            for (host, is_open) in live.iter().flat_map(|live| live.breakers()) {
                metrics.breaker(host, is_open);
            }
        }));
    }
}

/// The configuration is checked for it, so nobody who was started from a file sees that.
fn no_recording() -> StartError {
    StartError::Mode("record and replay need a recording: --recording FILE".to_owned())
}

/// Where uploaded files lie. What a killed process has left there is removed on the way.
fn spool(config: &Config) -> sim::Spool {
    let parent = config.data_dir.clone().unwrap_or_else(std::env::temp_dir);
    let room = sim::Room { total: config.mock.upload_space, each: config.mock.upload_space_per_key };
    let spool = sim::Spool::new(&parent, room);
    // A large folder takes a while to look through, and nothing waits for that.
    tokio::task::spawn_blocking(move || sim::Spool::clear(&parent));
    spool
}
