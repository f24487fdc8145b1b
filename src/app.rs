//! Builds everything from a [`Config`] and runs it until it is told to stop.

mod build;
mod wiring;

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::Either;
use serde_json::json;
use tokio::net::{TcpListener, TcpSocket};
use tokio::sync::watch;
use tower::ServiceExt as _;

pub use build::{Built, Plan};

use crate::admin::{self, Admin};
use crate::background::Lanes;
use crate::catalogue::{Catalogue, Source};
use crate::clock::Clock;
use crate::config::{self, Config, Pattern};
use crate::gateway::{self, Answer, Bounds, DataPlane, Gateway, Plane, Tls, TlsError};
use crate::proxy::Live;
use crate::record::Recorder;
use crate::sim::{self, Sim};
use crate::store::{Embedded, Store};
use crate::telemetry::Metrics;

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
    /// A recording that is to be replayed cannot be read.
    #[error("{0}")]
    Recorded(#[from] crate::record::Damaged),
    /// A recording cannot be begun.
    #[error("cannot record to {}: {}", .path.display(), explain_file(.source))]
    Recording {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A mode that lacks what it needs.
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

fn explain_file(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::AlreadyExists => {
            "it is there already, and a run never writes over another; name a new file, or a folder that gets one each run"
                .to_owned()
        }
        _ => error.to_string(),
    }
}

/// Why a changed configuration is not taken over.
#[derive(Debug, thiserror::Error)]
pub enum ReloadError {
    /// What answers in that mode is built at the start only.
    #[error("a tenant has mode {0}, which nobody had at the start; that takes a new start")]
    Mode(&'static str),
    /// The certificate is no good.
    #[error("[tls] {0}")]
    Tls(#[from] TlsError),
}

/// The whole program, built and listening, not yet serving.
pub struct App {
    config: Config,
    clock: Clock,
    gateway: Arc<Gateway>,
    sim: Option<Sim>,
    live: Option<Arc<Live>>,
    recorder: Option<Arc<Recorder>>,
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
    /// A tenant that wants to be answered by what was not needed at the start: nothing is taken over. A certificate that
    /// cannot be used: the one before it stays. The tenants are the new ones all the same.
    pub fn reload(&self, config: &Config) -> Result<(), ReloadError> {
        let mut modes = config.tenants.iter().filter_map(|tenant| tenant.mode);
        if let Some(mode) = modes.find(|mode| !self.gateway.serves(*mode)) {
            return Err(ReloadError::Mode(mode.as_str()));
        }
        self.gateway.set_tenants(&config.tenants);
        match (&self.tls, &config.tls) {
            (Some(tls), Some(files)) => Ok(tls.reload(files)?),
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

/// What of a configuration is not wrong and yet may not be meant: patterns that match nothing there is now.
pub fn doubts(config: &Config, catalogue: &Catalogue) -> Vec<String> {
    let matches = |pattern: &Pattern| {
        let mut operations = catalogue.operations().map(|(_, operation)| &*operation.id).chain(["other"]);
        let mut models = catalogue.models().map(|(_, model)| &*model.name);
        let mut own = catalogue.operations().flat_map(|(_, operation)| operation.own_models());
        operations.any(|id| pattern.matches_operation(id))
            || models.any(|name| pattern.matches_model(name))
            || own.any(|name| pattern.matches_model(name))
    };
    let of_tenant = |tenant: &config::Tenant| {
        let allowed = tenant.allow.iter().flatten().map(|pattern| ("allow", pattern));
        let patterns = allowed.chain(tenant.deny.iter().map(|pattern| ("deny", pattern)));
        let idle = patterns.filter(|(_, pattern)| !matches(pattern));
        let told = |(list, pattern): (&str, &Pattern)| {
            let what = "matches nothing that this version knows: see `kiegate models`";
            format!("tenant {}: {list} \"{pattern}\" {what}", tenant.id.as_str())
        };
        idle.map(told).collect::<Vec<_>>()
    };
    config.tenants.iter().flat_map(of_tenant).collect()
}

impl App {
    /// Builds everything and opens both listeners, which are the runtime's that this is called on.
    ///
    /// # Errors
    /// What is wrong with the catalogue, a certificate or an address.
    pub fn start(config: Config) -> Result<Self, StartError> {
        let catalogue = Arc::new(catalogue(&config)?);
        for doubt in doubts(&config, &catalogue) {
            tracing::warn!("{doubt}");
        }
        let metrics = Arc::new(Metrics::new());
        let clock = Clock::correctable();
        let store: Arc<dyn Store> = Arc::new(Embedded::default());
        let (told, live, post) = (Arc::clone(&metrics), None, None);
        let plan = Plan { config: &config, catalogue, clock, metrics: told, store, live, post };
        let Built { gateway, sim, live, recorder } = plan.build()?;
        let tls = config.tls.as_ref().map(Tls::load).transpose()?.map(Arc::new);
        let data = listen(config.listen)?;
        let admin = listen(config.admin.listen)?;
        let ready = Arc::new(AtomicBool::new(true));
        Ok(Self {
            config,
            clock,
            gateway,
            sim,
            live,
            recorder,
            metrics,
            tls,
            lanes: None,
            data,
            admin,
            ready,
        })
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
        let bounds = bounds(&self.config.server);
        let admin = Admin {
            metrics: Arc::clone(&self.metrics),
            token: self.config.admin.token.clone(),
            protect_metrics: self.config.admin.protect_metrics,
            ready: Arc::clone(&self.ready),
            mode: self.config.mode.as_str(),
            data_plane: data_url,
            document: self.gateway.document(),
            upstream: upstream_status(&self.gateway, self.live.clone()),
        };
        let data_plane = DataPlane::new(Arc::clone(&self.gateway), self.sim.clone().map(sim::routes));
        let secure = self.tls.is_some();
        let answer_data: Answer = Arc::new(move |mut request, peer| {
            if secure {
                request.extensions_mut().insert(sim::Scheme("https"));
            }
            data_plane.answer_from(Some(peer), request)
        });
        let admin_routes = admin::routes(admin);
        let answer_admin: Answer = Arc::new(move |request, _| {
            let routes = admin_routes.clone();
            let answer = routes.oneshot(request).map(|answer| answer.unwrap_or_else(|never| match never {}));
            Either::Right(answer.boxed())
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
        let (ready, draining) = (Arc::clone(&self.ready), Arc::clone(&self.gateway));
        let announce = async {
            stop.await;
            tracing::info!("stopping: requests under way have {grace:?} to end");
            ready.store(false, Ordering::Relaxed);
            draining.drain();
            let _ = stopping.send(true);
        };
        let serve_data = async {
            gateway::serve(data, wait(stopped), grace).await;
            let _ = admin_stopping.send(true);
        };
        let serve_admin = gateway::serve(admin, wait(admin_stopped), Duration::from_secs(1));
        let serving = async { tokio::join!(announce, serve_data, serve_admin) };
        tokio::select! {
            _ = serving => {}
            () = self.clock.follow_system() => {}
        }
        if let Some(recorder) = &self.recorder {
            recorder.sync();
        }
        tracing::info!("stopped");
    }
}

/// How the upstream keys and hosts do, for operators.
fn upstream_status(gateway: &Arc<Gateway>, live: Option<Arc<Live>>) -> admin::Status {
    let gateway = Arc::clone(gateway);
    Box::new(move || {
        let hosts = live.iter().flat_map(|live| live.breakers());
        let host =
            |(host, is_open)| json!({"host": host, "breaker": if is_open { "open" } else { "closed" }});
        json!({"keys": gateway.upstream_status(), "hosts": hosts.map(host).collect::<Vec<_>>()})
    })
}

/// An address that a person can put into a browser.
pub fn reachable(address: SocketAddr) -> SocketAddr {
    let mut address = address;
    if address.ip().is_unspecified() {
        address.set_ip(std::net::Ipv4Addr::LOCALHOST.into());
    }
    address
}

/// What connections may do.
pub(crate) fn bounds(server: &config::Server) -> Bounds {
    Bounds {
        head: usize::try_from(server.head).unwrap_or(usize::MAX),
        head_timeout: server.head_timeout,
        idle_timeout: server.idle_timeout,
    }
}

/// So many connections may wait to be taken in, as far as the system allows it: clients of a burst that do not fit try again a
/// second later.
const BACKLOG: u32 = 4096;

pub(crate) fn listen(address: SocketAddr) -> Result<TcpListener, StartError> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() };
    let listening = socket.and_then(|socket| {
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        socket.listen(BACKLOG)
    });
    listening.map_err(|source| StartError::Listen { address, source })
}
