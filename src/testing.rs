//! A simulator inside a Rust test, and a handle to steer what happens in it.
//!
//! [`Simulator`] serves the emulated API on a free port of 127.0.0.1. [`Sandbox`] is one test's world in it: what the
//! control API does (`/_mock`, see the README), as calls. Neither knows how the simulator works; they build it as the
//! program does and speak to its data plane. There is no admin plane.
//!
//! ```
//! use std::time::Duration;
//!
//! use http::Method;
//! use kiegate::testing::{Error, Simulator};
//! use serde_json::json;
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Error> {
//! let simulator = Simulator::start().await?;
//! let sandbox = simulator.sandbox("a boat sails");
//! sandbox.freeze().await?;
//! let done = sandbox.inbox("done");
//!
//! // The code under test gets `simulator.base_url()` and `sandbox.token()` in place of the API's address and key.
//! // Here the call that it would make:
//! let create = json!({
//!     "prompt": "A paper boat", "duration": 5, "quality": "720p", "aspectRatio": "16:9", "callBackUrl": done.url(),
//! });
//! let created = sandbox.call(Method::POST, "/api/v1/runway/generate", Some(&create)).await?;
//!
//! // No time passes but by this.
//! sandbox.advance(Duration::from_mins(1)).await?;
//! let arrived = done.arrivals(1, Duration::from_secs(5)).await?;
//! assert_eq!(arrived[0]["body"]["data"]["task_id"], created["data"]["taskId"]);
//! assert_eq!(arrived[0]["signature_valid"], true);
//! # Ok(())
//! # }
//! ```
//!
//! The simulator has a thread and a runtime of its own. So it needs none from the test, a paused tokio clock does not
//! concern it, and one in a `static` serves all tests of a program, each in a sandbox of its own:
//!
//! ```
//! use kiegate::testing::{Error, Sandbox, Simulator};
//! use tokio::sync::OnceCell;
//!
//! async fn sandbox() -> Result<Sandbox, Error> {
//!     static SIMULATOR: OnceCell<Simulator> = OnceCell::const_new();
//!     Ok(SIMULATOR.get_or_try_init(Simulator::start).await?.unnamed_sandbox())
//! }
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Error> {
//! # assert_ne!(sandbox().await?.token(), sandbox().await?.token());
//! # Ok(())
//! # }
//! ```

mod sandbox;

use std::fmt;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use http::StatusCode;
use tokio::sync::oneshot;

pub use sandbox::{Inbox, Sandbox};

use crate::app::{self, Built, Plan, StartError};
use crate::background::Lanes;
use crate::catalogue::Catalogue;
use crate::clock::Clock;
use crate::config::{Config, ConfigError, Sources};
pub use crate::config::{HttpStatus, Pace};
use crate::gateway::{self, DataPlane, Plane};
use crate::outbound::reasons;
use crate::sim;
use crate::store::Embedded;
use crate::telemetry::Metrics;

/// A running simulator. It ends, with all that is under way in it, when it and the last of its sandboxes are dropped.
#[derive(Clone)]
pub struct Simulator(Arc<Server>);

/// What a simulator and its sandboxes have in common. Nothing that runs on its thread holds it.
struct Server {
    base_url: String,
    plane: DataPlane,
    thread: Lanes,
    unnamed: AtomicUsize,
}

/// What went wrong. In tests errors are shown as `Debug` has it, so that says the same as `Display`.
#[derive(thiserror::Error)]
pub enum Error {
    /// A setting that the simulator does not take.
    #[error(transparent)]
    Setting(#[from] ConfigError),
    /// It does not start.
    #[error(transparent)]
    Start(#[from] StartError),
    /// It gets no thread.
    #[error("the simulator gets no thread")]
    Thread(#[from] io::Error),
    /// It panicked; the log says where.
    #[error("{call}: the simulator broke down")]
    Broken {
        /// Method and path; or `start`.
        call: String,
    },
    /// No request can be made of this.
    #[error("{call}: no request can be made of that")]
    Request {
        /// Method and path.
        call: String,
        /// What is wrong.
        source: http::Error,
    },
    /// A call was answered with a status other than 2xx.
    #[error("{call}: {status}: {problem}")]
    Refused {
        /// Method and path.
        call: String,
        /// The answer's.
        status: StatusCode,
        /// The answer's problem text; or all of its body.
        problem: String,
    },
    /// An answer that makes no sense here.
    #[error("{call}: {expected} was expected, not {answer}")]
    Answer {
        /// Method and path.
        call: String,
        /// What should have stood there.
        expected: &'static str,
        /// What stood there.
        answer: String,
    },
    /// Fewer callbacks than awaited arrived in time.
    #[error("inbox {inbox}: {wanted} arrivals were awaited, {got} came within {patience:?}")]
    Missing {
        /// Its name.
        inbox: String,
        /// How many were awaited.
        wanted: usize,
        /// How many came.
        got: usize,
        /// How long was waited.
        patience: Duration,
    },
}

impl fmt::Debug for Simulator {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "simulator at {}", self.0.base_url)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&reasons(self))
    }
}

impl Simulator {
    /// Starts one with the defaults of `config/kiegate.toml`: tasks take about three seconds, the seed is 42.
    ///
    /// # Errors
    /// [`Error::Start`] and [`Error::Thread`]: the system gives no port or no thread.
    pub async fn start() -> Result<Self, Error> {
        Self::builder().start().await
    }

    /// Prepares one with other settings.
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// `http://127.0.0.1:<port>`: what takes the place of the API's address. The upload host's calls are served there, too.
    pub fn base_url(&self) -> &str {
        &self.0.base_url
    }

    /// The world of the bearer token `name`; a new one is made at the first call. Tests that use the same name share it.
    pub fn sandbox(&self, name: impl Into<String>) -> Sandbox {
        Sandbox::new(Arc::clone(&self.0), name.into())
    }

    /// A world that nobody else has: `unnamed-1`, `unnamed-2`, … in the order of the calls.
    pub fn unnamed_sandbox(&self) -> Sandbox {
        let number = 1 + self.0.unnamed.fetch_add(1, Ordering::Relaxed);
        self.sandbox(format!("unnamed-{number}"))
    }
}

/// Settings of a simulator that is to be started. They are checked by [`Builder::start`].
#[derive(Clone, Debug, Default)]
#[must_use]
pub struct Builder(Vec<(&'static str, String)>);

impl Builder {
    /// How long tasks take.
    pub fn pace(self, pace: Pace) -> Self {
        self.set("mock.pace", pace.as_str())
    }

    /// What all that looks random is drawn from.
    pub fn seed(self, seed: u64) -> Self {
        self.set("mock.seed", seed)
    }

    /// The balance of a new sandbox.
    pub fn credits(self, credits: f64) -> Self {
        self.set("mock.credits", credits)
    }

    /// The share of tasks that fail, 0.0 to 1.0.
    pub fn failure_rate(self, share: f64) -> Self {
        self.set("mock.failure_rate", share)
    }

    /// Added to every answer; whole milliseconds.
    pub fn latency(self, latency: Duration) -> Self {
        self.set("mock.latency", format!("{}ms", latency.as_millis()))
    }

    /// Refuses more than 20 creates in 10 seconds, as for a real account.
    pub fn emulate_quota(self) -> Self {
        self.set("mock.emulate_quota", true)
    }

    /// Which HTTP status errors have.
    pub fn http_status(self, status: HttpStatus) -> Self {
        self.set("mock.http_status", status.as_str())
    }

    /// What callbacks are signed with.
    pub fn webhook_secret(self, secret: &str) -> Self {
        self.set("mock.webhook_secret", secret)
    }

    /// A folder whose catalogue takes the place of the built-in one.
    pub fn catalog(self, folder: impl AsRef<Path>) -> Self {
        self.set("catalog", folder.as_ref().display())
    }

    /// Any other setting, by the path that it has in the configuration file, such as `server.json_body`.
    pub fn set(mut self, key: &'static str, value: impl fmt::Display) -> Self {
        self.0.push((key, value.to_string()));
        self
    }

    /// Starts it.
    ///
    /// # Errors
    /// [`Error::Setting`] tells every setting that is wrong; [`Error::Start`] what is wrong with the catalogue or the
    /// port; [`Error::Thread`] that the system gives none.
    pub async fn start(self) -> Result<Simulator, Error> {
        let mut flags = vec![("listen", "127.0.0.1:0".to_owned())];
        flags.extend(self.0);
        let config = Sources { flags, ..Sources::default() }.read()?;
        let thread = Lanes::start(1)?;
        let (tell, told) = oneshot::channel();
        thread.spawn(async move {
            match build(&config) {
                Err(error) => drop(tell.send(Err(error))),
                Ok((data_plane, plane)) => {
                    drop(tell.send(Ok((data_plane, plane.listener.local_addr()))));
                    gateway::serve(plane, std::future::pending(), Duration::ZERO).await;
                }
            }
        });
        let started = told.await.map_err(|_| Error::Broken { call: "start".to_owned() })?;
        let (plane, address) = started?;
        let base_url = format!("http://{}", address?);
        Ok(Simulator(Arc::new(Server { base_url, plane, thread, unnamed: AtomicUsize::new(0) })))
    }
}

/// What answers, and the same behind a listener.
fn build(config: &Config) -> Result<(DataPlane, Plane), StartError> {
    let metrics = Arc::new(Metrics::new());
    let plan = Plan {
        config,
        catalogue: catalogue(config)?,
        clock: Clock::system(),
        metrics: Arc::clone(&metrics),
        store: Arc::new(Embedded::default()),
        live: None,
        post: None,
    };
    let Built { gateway, sim, .. } = plan.build()?;
    let data_plane = DataPlane::new(gateway, sim.map(sim::routes));
    let answering = data_plane.clone();
    let answer: gateway::Answer = Arc::new(move |request, peer| answering.answer_from(Some(peer), request));
    let listener = app::listen(config.listen)?;
    let bounds = app::bounds(&config.server);
    Ok((data_plane, Plane { name: "data", listener, tls: None, lanes: None, answer, bounds, metrics }))
}

/// The catalogue that `config` names; the built-in one is read once in a process.
fn catalogue(config: &Config) -> Result<Arc<Catalogue>, StartError> {
    static EMBEDDED: OnceLock<Arc<Catalogue>> = OnceLock::new();
    if config.catalog.is_some() {
        return app::catalogue(config).map(Arc::new);
    }
    if let Some(catalogue) = EMBEDDED.get() {
        return Ok(Arc::clone(catalogue));
    }
    let catalogue = Arc::new(app::catalogue(config)?);
    Ok(Arc::clone(EMBEDDED.get_or_init(|| catalogue)))
}
