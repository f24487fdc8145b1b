//! Builds everything from a [`Config`] and runs it until it is told to stop.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::FutureExt;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tower::ServiceExt as _;

use crate::admin::{self, Admin};
use crate::background::Lanes;
use crate::catalogue::{Catalogue, Source};
use crate::clock::Clock;
use crate::config::{self, Config, Mode, UnknownPaths};
use crate::gateway::{self, Answer, Bounds, DataPlane, Gateway, Plane, Tls, TlsError};
use crate::outbound::Client;
use crate::proxy::{Live, Simulated, Upstream};
use crate::sim::{self, Sim};
use crate::telemetry::Metrics;
use crate::tenants::Tenants;

/// Why the program does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Files of the catalogue are wrong.
    #[error("the catalogue has problems:\n{}", lines(.0))]
    Catalogue(Vec<crate::catalogue::Problem>),
    /// An address cannot be listened on.
    #[error("cannot listen on {address}: {}", explain(.source, *.address))]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// A certificate of the listeners, or its key, cannot be used.
    #[error("[tls] {0}")]
    Tls(#[from] TlsError),
    /// A mode that does not work yet, or lacks what it needs.
    #[error("{0}")]
    Mode(String),
}

fn lines(problems: &[crate::catalogue::Problem]) -> String {
    problems.iter().map(|problem| format!("  {problem}\n")).collect()
}

fn explain(error: &io::Error, address: SocketAddr) -> String {
    match error.kind() {
        io::ErrorKind::AddrInUse => format!(
            "port {} is in use by another process; stop it, or choose another port with --listen or --admin-listen",
            address.port()
        ),
        io::ErrorKind::PermissionDenied => format!("{error}; ports below 1024 are for root"),
        io::ErrorKind::AddrNotAvailable => format!("{error}; this machine has no such address"),
        _ => error.to_string(),
    }
}

/// The whole program, built and listening, not yet serving.
pub struct App {
    config: Config,
    gateway: Arc<Gateway>,
    sim: Option<Sim>,
    metrics: Arc<Metrics>,
    tls: Option<Arc<Tls>>,
    lanes: Option<Arc<Lanes>>,
    data: TcpListener,
    admin: TcpListener,
    ready: Arc<AtomicBool>,
}

/// Steers a running [`App`] from outside.
#[derive(Clone)]
pub struct Handle {
    gateway: Arc<Gateway>,
    tls: Option<Arc<Tls>>,
}

impl Handle {
    /// Takes over what can change while running: the tenants and their keys, and the certificate.
    ///
    /// # Errors
    /// A certificate that cannot be used: the one before it stays. The tenants are the new ones all the same.
    pub fn reload(&self, config: &Config) -> Result<(), TlsError> {
        self.gateway.set_tenants(Tenants::from_config(&config.tenants));
        match (&self.tls, &config.tls) {
            (Some(tls), Some(files)) => tls.reload(files),
            _ => Ok(()),
        }
    }
}

/// The catalogue that `config` names.
///
/// # Errors
/// Everything that is wrong with its files.
pub fn catalogue(config: &Config) -> Result<Catalogue, StartError> {
    let source = match &config.catalog {
        Some(folder) => Source::with_overrides(folder).map_err(StartError::Catalogue)?,
        None => Source::embedded(),
    };
    Catalogue::load(&source).map_err(StartError::Catalogue)
}

impl App {
    /// Builds everything and opens both listeners.
    ///
    /// # Errors
    /// What is wrong with the catalogue, a certificate or an address.
    pub async fn start(config: Config) -> Result<Self, StartError> {
        let catalogue = Arc::new(catalogue(&config)?);
        let metrics = Arc::new(Metrics::new());
        let clock = Clock::system();
        let client = Client::new(config.upstream.connect_timeout, config.upstream.idle_timeout);
        let sim = (config.mode == Mode::Mock)
            .then(|| simulator(&config, Arc::clone(&catalogue), clock, client.clone(), Arc::clone(&metrics)));
        let upstream = upstream(&config, sim.clone(), client, Arc::clone(&metrics))?;
        let size = |bytes: u64| usize::try_from(bytes).unwrap_or(usize::MAX);
        let gateway = Arc::new(Gateway::new(gateway::Parts {
            catalogue,
            clock,
            open: config.mode == Mode::Mock && config.mock.open,
            mode: config.mode.as_str(),
            upstream,
            metrics: Arc::clone(&metrics),
            largest_json: size(config.server.json_body),
            largest_upload: size(config.server.upload),
            body_timeout: config.server.idle_timeout,
            forward_unknown: config.mode == Mode::Mock || config.unknown_paths == UnknownPaths::Forward,
        }));
        gateway.set_tenants(Tenants::from_config(&config.tenants));
        let tls = config.tls.as_ref().map(Tls::load).transpose()?.map(Arc::new);
        let data = listen(config.listen).await?;
        let admin = listen(config.admin.listen).await?;
        let ready = Arc::new(AtomicBool::new(true));
        Ok(Self { config, gateway, sim, metrics, tls, lanes: None, data, admin, ready })
    }

    /// Lets connections to the data plane be served on `lanes`, and not on the runtime that it runs on.
    #[must_use]
    pub fn on_lanes(mut self, lanes: Arc<Lanes>) -> Self {
        self.lanes = Some(lanes);
        self
    }

    /// How URLs of both planes begin.
    pub fn scheme(&self) -> &'static str {
        if self.tls.is_some() { "https" } else { "http" }
    }

    /// Where the data plane listens; a port 0 of the configuration has become a real one.
    pub fn data_address(&self) -> SocketAddr {
        self.data.local_addr().unwrap_or(self.config.listen)
    }

    /// Where the admin plane listens.
    pub fn admin_address(&self) -> SocketAddr {
        self.admin.local_addr().unwrap_or(self.config.admin.listen)
    }

    /// Steers it while it runs.
    pub fn handle(&self) -> Handle {
        Handle { gateway: Arc::clone(&self.gateway), tls: self.tls.clone() }
    }

    /// Serves both planes until `stop` comes, then lets requests under way end, up to the configured grace.
    pub async fn run(self, stop: impl Future<Output = ()>) {
        let data_url = format!("{}://{}", self.scheme(), reachable(self.data_address()));
        let bounds = Bounds {
            head: usize::try_from(self.config.server.head).unwrap_or(usize::MAX),
            head_timeout: self.config.server.head_timeout,
            idle_timeout: self.config.server.idle_timeout,
        };
        let admin = Admin {
            metrics: Arc::clone(&self.metrics),
            token: self.config.admin.token.clone(),
            protect_metrics: self.config.admin.protect_metrics,
            ready: Arc::clone(&self.ready),
            mode: self.config.mode.as_str(),
            data_plane: data_url,
            document: self.gateway.document(),
        };
        let data_plane = DataPlane::new(Arc::clone(&self.gateway), self.sim.clone().map(sim::routes));
        let secure = self.tls.is_some();
        let answer_data: Answer = Arc::new(move |mut request| {
            if secure {
                request.extensions_mut().insert(sim::Scheme("https"));
            }
            let plane = data_plane.clone();
            async move { plane.answer(request).await }.boxed()
        });
        let admin_routes = admin::routes(admin);
        let answer_admin: Answer = Arc::new(move |request| {
            let routes = admin_routes.clone();
            routes.oneshot(request).map(|answer| answer.unwrap_or_else(|never| match never {})).boxed()
        });
        let plane = |name, listener, lanes, answer| Plane {
            name,
            listener,
            tls: self.tls.clone(),
            lanes,
            answer,
            bounds,
            metrics: Arc::clone(&self.metrics),
        };
        let data = plane("data", self.data, self.lanes, answer_data);
        let admin = plane("admin", self.admin, None, answer_admin);
        let (stopping, stopped) = watch::channel(false);
        let wait = |mut stopped: watch::Receiver<bool>| async move {
            let _ = stopped.wait_for(|stopped| *stopped).await;
        };
        let grace = self.config.shutdown_grace;
        // The admin plane stays until the data plane is done, so that `/readyz` can say why.
        let (admin_stopping, admin_stopped) = watch::channel(false);
        let ready = Arc::clone(&self.ready);
        let announce = async {
            stop.await;
            tracing::info!("stopping: requests under way have {grace:?} to end");
            ready.store(false, Ordering::Relaxed);
            let _ = stopping.send(true);
        };
        let serve_data = async {
            gateway::serve(data, wait(stopped), grace).await;
            let _ = admin_stopping.send(true);
        };
        let serve_admin = gateway::serve(admin, wait(admin_stopped), Duration::from_secs(1));
        tokio::join!(announce, serve_data, serve_admin);
        tracing::info!("stopped");
    }
}

/// An address that a person can put into a browser.
pub fn reachable(address: SocketAddr) -> SocketAddr {
    let mut address = address;
    if address.ip().is_unspecified() {
        address.set_ip(std::net::Ipv4Addr::LOCALHOST.into());
    }
    address
}

async fn listen(address: SocketAddr) -> Result<TcpListener, StartError> {
    TcpListener::bind(address).await.map_err(|source| StartError::Listen { address, source })
}

fn simulator(
    config: &Config,
    catalogue: Arc<Catalogue>,
    clock: Clock,
    client: Client,
    metrics: Arc<Metrics>,
) -> Sim {
    let mock = &config.mock;
    Sim::new(sim::Parts {
        catalogue,
        clock,
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
        },
        credits: mock.credits,
        webhook_secret: Some(mock.webhook_secret.clone()),
        public_url: config.public_url.as_ref().map(ToString::to_string),
        courier: Arc::new(client),
        observer: metrics,
        spool: spool(config),
    })
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

fn upstream(
    config: &Config,
    sim: Option<Sim>,
    client: Client,
    metrics: Arc<Metrics>,
) -> Result<Arc<dyn Upstream>, StartError> {
    if let Some(sim) = sim {
        return Ok(Arc::new(Simulated(sim)));
    }
    if config.mode != Mode::Live {
        return Err(StartError::Mode(format!("mode {} is not available yet", config.mode.as_str())));
    }
    let live = Live::new(&config.upstream, client, metrics);
    let live = live.ok_or_else(|| {
        StartError::Mode("live mode needs an [[upstream.key]] that fits in a header".into())
    })?;
    Ok(Arc::new(live))
}
