//! The simulator: the upstream API played offline, from the catalogue and a seed.
//!
//! It is someone else's API: it knows nothing of who shares the gateway, what they may do or how its answers travel.
//! It knows sandboxes (one for each bearer token), tasks whose whole future is planned when they are made, and the
//! callbacks that follow from the plans. In reading order: [`plan`] (what happens to a task, pure), `outcome` (what
//! a test may ask for), `task` (one task as data), `sandbox` (one key's world), `view` (a task as the catalogue's bodies see it, and its files),
//! `http` (from request to answer), `chat` (a language model's part), `callback` (what is due, sent and tried again),
//! `control` (`/_mock`), `guest` (somebody who answers in its place), `download` (`/_media`), `upload` (files that clients bring).
//!
//! A [`Sim`] is cheap to clone. When the last clone is dropped, its background work ends.

mod beginning;
mod callback;
mod chat;
mod control;
mod download;
mod fault;
mod follow;
mod guest;
mod http;
mod inbox;
mod journal;
mod log;
mod matching;
mod outcome;
pub mod plan;
mod rules;
mod sandbox;
mod settings;
mod snapshot;
mod task;
mod time;
mod upload;
mod verdict;
mod view;

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use ::http::{Extensions, HeaderMap};
use axum::body::Body;
use moka::policy::EvictionPolicy;
use moka::sync::Cache;

pub use beginning::Beginning;
pub use callback::{AFTER_CREATE, Courier, Parcel};
pub use control::routes;
pub use fault::Fault;
pub use guest::Letter;
pub use plan::Pace;
pub use settings::{HttpStatus, Settings};
pub use task::SandboxId;
pub use upload::{Room, Spool};

use crate::catalogue::Catalogue;
use crate::clock::{Clock, Timestamp};
use crate::ids::{Credits, Secret};
use sandbox::{Finished, Sandbox, World};
use time::VirtualClock;

/// More sandboxes than this are not kept at once: the one that was used longest ago goes.
const MOST_SANDBOXES: u64 = 10_000;
/// A sandbox that nobody uses for so long goes too.
const SANDBOX_IDLE: Duration = Duration::from_hours(24);

/// What a simulator is built from.
pub struct Parts {
    /// The facts.
    pub catalogue: Arc<Catalogue>,
    /// Real time.
    pub clock: Clock,
    /// What a new sandbox starts with.
    pub settings: Settings,
    /// The balance of a new sandbox.
    pub credits: Credits,
    /// What callbacks are signed with; absent: they are not.
    pub webhook_secret: Option<Secret>,
    /// Where result links lead; absent: to the host of the request.
    pub public_url: Option<String>,
    /// Who carries callbacks out of the process.
    pub courier: Arc<dyn Courier>,
    /// Who is told what happens.
    pub observer: Arc<dyn Observer>,
    /// Where uploaded files lie.
    pub spool: Spool,
}

/// Is told what happens in the simulator, for metrics and logs. It is called under no lock and must not wait.
pub trait Observer: Send + Sync + 'static {
    /// Something happened.
    fn observe(&self, event: &Event<'_>);
}

/// Something worth telling. `owner` is what the [`Owner`] of its first request said when its sandbox was made.
#[derive(Debug)]
pub enum Event<'a> {
    /// A create was accepted.
    TaskCreated {
        /// See above.
        owner: &'a str,
        /// Operation id.
        operation: &'a str,
        /// Model name, from the catalogue.
        model: &'a str,
        /// The price that was taken.
        credits: Credits,
    },
    /// A chat was answered.
    ChatAnswered {
        /// See above.
        owner: &'a str,
        /// Operation id.
        operation: &'a str,
        /// Model name, from the catalogue.
        model: &'a str,
        /// The price that was paid.
        credits: Credits,
    },
    /// A task came to its end.
    TaskFinished {
        /// See above.
        owner: &'a str,
        /// Operation id.
        operation: &'a str,
        /// Model name, from the catalogue.
        model: &'a str,
        /// The task's id.
        task: &'a str,
        /// `success`, `fallback` or `fail`.
        outcome: &'static str,
        /// Virtual time from creation to end.
        took: Duration,
        /// The price.
        credits: Credits,
        /// Whether the price is kept; else it is given back.
        paid: bool,
    },
    /// So many tasks are gone without an end, because their sandbox was emptied.
    TasksForgotten {
        /// See above.
        owner: &'a str,
        /// How many were running.
        running: usize,
        /// Which they were, where somebody wanted them gone and whose they are is known.
        tasks: &'a [String],
        /// How many callbacks will not be sent.
        callbacks: usize,
    },
    /// So many tasks run again, because a snapshot was put back.
    TasksRestored {
        /// See above.
        owner: &'a str,
        /// How many are running.
        running: usize,
    },
    /// So many callbacks were planned.
    CallbacksPlanned {
        /// See above.
        owner: &'a str,
        /// How many.
        count: usize,
    },
    /// An attempt to deliver a callback was made.
    CallbackSent {
        /// See above.
        owner: &'a str,
        /// `delivered`, `retried`, `dead` or `dropped`.
        result: &'static str,
        /// How long after it was due it left.
        lag: Duration,
    },
}

/// Who a sandbox counts to, in metrics. A request extension on the control API.
#[derive(Clone, Debug)]
pub struct Owner(pub Arc<str>);

/// Whose those sandboxes are of which nobody said it.
const ANYBODY: &str = "other";

/// How links in an answer begin, `http` or `https`. A request extension; absent: as the request's target says, or `http`.
#[derive(Clone, Copy, Debug)]
pub struct Scheme(pub &'static str);

/// The simulator.
#[derive(Clone)]
pub struct Sim(Arc<Shared>);

struct Shared {
    parts: Parts,
    sandboxes: Cache<SandboxId, Arc<Sandbox>>,
    rendered: download::Rendered,
    /// What real time is held at, in milliseconds; [`RUNNING`] where it is not.
    held: AtomicI64,
}

/// Real time goes by the clock.
const RUNNING: i64 = i64::MIN;

impl Sim {
    /// Builds it; starts nothing.
    pub fn new(parts: Parts) -> Self {
        let sandboxes = Cache::builder()
            .max_capacity(MOST_SANDBOXES)
            .time_to_idle(SANDBOX_IDLE)
            .eviction_policy(EvictionPolicy::lru())
            .build();
        let (rendered, held) = (download::Rendered::default(), AtomicI64::new(RUNNING));
        Self(Arc::new(Shared { parts, sandboxes, rendered, held }))
    }

    /// The facts it plays.
    pub fn catalogue(&self) -> &Catalogue {
        &self.0.parts.catalogue
    }

    fn parts(&self) -> &Parts {
        &self.0.parts
    }

    fn real_now(&self) -> Timestamp {
        match self.0.held.load(Ordering::Relaxed) {
            RUNNING => self.0.parts.clock.now(),
            held => Timestamp::from_millis(held),
        }
    }

    /// Holds real time at `time`, for whoever has the same happen again at the same times, and returns when all has happened
    /// that comes due by that. While it is held nothing takes time: what else would wait does not.
    pub async fn hold_at(&self, time: Timestamp) {
        if self.0.held.swap(time.millis(), Ordering::Relaxed) == time.millis() {
            return;
        }
        let sandboxes: Vec<_> = self.0.sandboxes.iter().map(|(_, sandbox)| sandbox).collect();
        for sandbox in sandboxes {
            let now = sandbox.world().clock.at(time);
            self.advance(&sandbox, Some(now)).await;
        }
    }

    fn is_held(&self) -> bool {
        self.0.held.load(Ordering::Relaxed) != RUNNING
    }

    /// Waits so long in real time.
    async fn pause(&self, span: Duration) {
        if !span.is_zero() && !self.is_held() {
            tokio::time::sleep(span).await;
        }
    }

    /// The sandbox that a request of `owner` with these headers is about, by a name that is another one whenever it begins anew,
    /// and the time by its clock. Without one: real time.
    pub fn world(&self, headers: &HeaderMap, owner: Option<&Owner>) -> (Option<String>, Timestamp) {
        let now = self.real_now();
        let Some(id) = SandboxId::of_caller(headers) else { return (None, now) };
        let sandbox = self.sandbox(id, owner);
        let world = sandbox.world();
        (Some(format!("{id} {}", world.epoch)), world.clock.at(now))
    }

    /// The sandbox of that id, made if need be.
    fn sandbox(&self, id: SandboxId, owner: Option<&Owner>) -> Arc<Sandbox> {
        self.0.sandboxes.get_with(id, || {
            let parts = self.parts();
            let settings = parts.settings.clone();
            let owner = owner.map_or_else(|| ANYBODY.into(), |owner| Arc::clone(&owner.0));
            let world = World::new(settings, parts.credits, VirtualClock::real(self.real_now()));
            Arc::new(Sandbox::new(id, owner, world, Arc::clone(&parts.observer)))
        })
    }

    /// The sandbox of that id, if there is one.
    fn existing(&self, id: SandboxId) -> Option<Arc<Sandbox>> {
        self.0.sandboxes.get(&id)
    }

    /// Brings `world` up to now and tells of what ended since. The second value is for telling once the lock is gone.
    fn settled(&self, world: &mut World) -> (Timestamp, Vec<Finished>) {
        let now = world.clock.at(self.real_now());
        let finished = world.settle(now);
        (now, finished)
    }

    /// Tells of tasks that ended.
    fn tell_finished(&self, sandbox: &Sandbox, finished: &[Finished]) {
        let catalogue = self.catalogue();
        for Finished { at, key, task } in finished {
            let operation = catalogue.operation(task.operation);
            let (outcome, fallback) = match task.plan.ending() {
                plan::Ending::Success { fallback } => ("success", fallback),
                plan::Ending::Fail(_) | plan::Ending::Stall => ("fail", false),
            };
            self.parts().observer.observe(&Event::TaskFinished {
                owner: &sandbox.owner,
                operation: &operation.id,
                model: task.model_label(catalogue),
                task: &key.to_string(),
                outcome: if fallback { "fallback" } else { outcome },
                took: at.saturating_since(task.plan.created()),
                credits: task.price,
                paid: task.worth == task::Worth::Result,
            });
        }
    }
}

/// The bearer token of a request, unless it is missing, empty or one that stands for a bad key.
fn bearer(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(::http::header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    let token = token.trim();
    let good = scheme.eq_ignore_ascii_case("bearer") && !token.is_empty() && !token.starts_with("invalid");
    good.then_some(token)
}

/// Whose sandbox a request is about: by its extension, or else by its key.
fn caller(extensions: &Extensions, headers: &HeaderMap) -> Option<SandboxId> {
    extensions.get().copied().or_else(|| SandboxId::of_caller(headers))
}

/// `http://host` of a request, for links in its answer.
fn origin(sim: &Sim, parts: &::http::request::Parts) -> Arc<str> {
    if let Some(url) = &sim.parts().public_url {
        return url.trim_end_matches('/').into();
    }
    let host = parts.headers.get(::http::header::HOST).and_then(|host| host.to_str().ok());
    let host =
        host.or_else(|| parts.uri.authority().map(::http::uri::Authority::as_str)).unwrap_or("localhost");
    let told = parts.extensions.get::<Scheme>().map(|scheme| scheme.0);
    let scheme = told.or_else(|| parts.uri.scheme_str()).unwrap_or("http");
    format!("{scheme}://{host}").into()
}

/// Reads a body whole; the caller has bounded it.
async fn collect(body: Body) -> Result<bytes::Bytes, axum::Error> {
    axum::body::to_bytes(body, usize::MAX).await
}
