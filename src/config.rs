//! The configuration: flags over environment over file over defaults, checked as a whole before anything
//! starts.
//!
//! [`load`] gives a [`Config`] that the rest of the program can rely on, or every problem at once, each with
//! its place. Nobody else reads the file or the environment. Neither socket nor store is known here: whether
//! an address can be bound or a directory written to, its user finds out.
//!
//! Inside, in reading order: `tree` holds what was written and where, `reader` walks it and remembers what
//! was asked for, `sections` says what keys there are, `values` and `patterns` what their texts mean,
//! `unknown` finds what nobody asked for, and `availability` lists what has no effect yet.
//!
//! Paths in the file are relative to the working directory of the process, and so are those of `file:`
//! references.

mod availability;
mod choices;
mod patterns;
mod problem;
mod reader;
mod redacted;
mod secrets;
mod sections;
mod tree;
mod unknown;
mod values;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;

use http::Uri;

pub use self::choices::{HttpStatus, LogFormat, LogLevel, Mode, OnOutage, Pace, UnknownPaths};
pub use self::patterns::{HostPattern, IpNet, Pattern, Subject};
pub use self::problem::{ConfigError, Place, Problem, ProblemKind};
use self::reader::Desk;
use self::tree::Node;
pub use self::values::{KeyHash, Rate};
use crate::clock::Timestamp;
use crate::ids::{Credits, Secret, TenantId};

/// Everything that can be set. What was not set has its default.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Which upstream answers.
    pub mode: Mode,
    /// Where the data plane listens.
    pub listen: SocketAddr,
    /// The gateway's address as others see it: scheme and host. Absent: links to results begin with the host
    /// that was asked, and upstream is polled since it cannot call back.
    pub public_url: Option<Uri>,
    /// Where state is kept; absent: in memory.
    pub data_dir: Option<PathBuf>,
    /// A directory whose files take the place of the built-in catalogue.
    pub catalog: Option<PathBuf>,
    /// The file that is replayed or written.
    pub recording: Option<PathBuf>,
    /// How long requests under way may take to end after a signal to stop.
    pub shutdown_grace: Duration,
    /// What happens to a path that is no known operation.
    pub unknown_paths: UnknownPaths,
    /// Whose `X-Forwarded-For` is believed.
    pub trusted_proxies: Vec<IpNet>,
    /// Bounds on what comes in.
    pub server: Server,
    /// The operators' plane.
    pub admin: Admin,
    /// The certificate for both planes; absent: cleartext.
    pub tls: Option<Tls>,
    /// State shared by several gateways.
    pub store: Store,
    /// The live API.
    pub upstream: Upstream,
    /// Answers that are kept.
    pub cache: Cache,
    /// Callbacks on their way to tenants.
    pub callbacks: Callbacks,
    /// In the order of the file; ids and key hashes are unique.
    pub tenants: Vec<Tenant>,
    /// The simulator.
    pub mock: Mock,
    /// Log lines.
    pub log: Log,
    /// Traces for an OpenTelemetry collector; absent: none.
    pub otel: Option<Otel>,
}

/// Bounds on what clients send, on both planes.
#[derive(Clone, Debug, PartialEq)]
pub struct Server {
    /// The largest request head, in bytes; 8 KiB to 1 MiB.
    pub head: u64,
    /// The largest JSON body, in bytes.
    pub json_body: u64,
    /// The largest uploaded file, in bytes.
    pub upload: u64,
    /// How long a head may take to arrive; not zero.
    pub head_timeout: Duration,
    /// How long a connection may lie idle; not zero.
    pub idle_timeout: Duration,
}

/// The admin plane.
#[derive(Clone, Debug, PartialEq)]
pub struct Admin {
    /// Where it listens. In a paid mode without a token: on loopback.
    pub listen: SocketAddr,
    /// The bearer token that operators send; absent: none is asked for.
    pub token: Option<Secret>,
    /// Whether `/metrics` needs the token, too.
    pub protect_metrics: bool,
}

/// A certificate and its key, as PEM files.
#[derive(Clone, Debug, PartialEq)]
pub struct Tls {
    /// The certificate chain.
    pub cert: PathBuf,
    /// The private key.
    pub key: PathBuf,
}

/// Where several gateways share their state.
#[derive(Clone, Debug, PartialEq)]
pub struct Store {
    /// The URL of Redis or Valkey, which may contain a password; absent: the state is this gateway's own.
    pub redis: Option<Secret>,
    /// How to limit while it cannot be reached.
    pub on_outage: OnOutage,
}

/// The live API, and how long to wait for it.
#[derive(Clone, Debug, PartialEq)]
pub struct Upstream {
    /// Scheme and host of the API.
    pub base_url: Uri,
    /// Scheme and host for file uploads.
    pub upload_url: Uri,
    /// For a connection to open; not zero.
    pub connect_timeout: Duration,
    /// For the head of a response to arrive; not zero.
    pub response_timeout: Duration,
    /// How long an unused connection is kept; not zero.
    pub idle_timeout: Duration,
    /// In the order of the file; names are unique. At least one in a paid mode.
    pub keys: Vec<UpstreamKey>,
}

/// A real API key.
#[derive(Clone, Debug, PartialEq)]
pub struct UpstreamKey {
    /// What it is called in messages, metrics and tenants' `upstream_keys`.
    pub name: String,
    /// The key itself.
    pub secret: Secret,
    /// Verifies callbacks; absent: a callback only wakes a poll.
    pub webhook_secret: Option<Secret>,
    /// The account's quota of creates.
    pub creates: Rate,
    /// The account's limit of tasks under way.
    pub max_concurrent_tasks: NonZeroU32,
    /// How long a create may wait for its turn; zero: not at all.
    pub max_wait: Duration,
}

/// How much is kept and for how long; a time of zero keeps nothing of that kind.
#[derive(Clone, Debug, PartialEq)]
pub struct Cache {
    /// Bytes for all of it; zero: no cache.
    pub max_bytes: u64,
    /// Details of finished tasks.
    pub finished: Duration,
    /// Details of unfinished tasks.
    pub running: Duration,
    /// The account's balance.
    pub credits: Duration,
    /// Temporary links to results.
    pub download_url: Duration,
}

/// How callbacks are delivered.
#[derive(Clone, Debug, PartialEq)]
pub struct Callbacks {
    /// The delays between attempts; absent: growing ones over 24 hours.
    pub retry: Option<Vec<Duration>>,
}

/// A team or an app that shares the gateway.
#[derive(Clone, Debug, PartialEq)]
pub struct Tenant {
    /// Its name.
    pub id: TenantId,
    /// Which upstream answers it; absent: the gateway's.
    pub mode: Option<Mode>,
    /// The keys it may present.
    pub keys: Vec<TenantKey>,
    /// The upstream keys it may use, in this order, each of which exists; absent: all.
    pub upstream_keys: Option<Vec<String>>,
    /// What it may use; absent: everything.
    pub allow: Option<Vec<Pattern>>,
    /// What it may not use, though allowed.
    pub deny: Vec<Pattern>,
    /// Where it may come from; absent: anywhere.
    pub ip_allow: Option<Vec<IpNet>>,
    /// Its share of the upstream quota when there is not enough for all.
    pub weight: NonZeroU32,
    /// What it may use up.
    pub limits: Limits,
    /// Its callbacks.
    pub callbacks: TenantCallbacks,
}

/// A tenant's key.
#[derive(Clone, Debug, PartialEq)]
pub struct TenantKey {
    /// What a presented key is compared with.
    pub hash: KeyHash,
    /// What operators call it.
    pub name: Option<String>,
    /// From when on it is refused; absent: never.
    pub expires: Option<Timestamp>,
}

/// A tenant's limits; what is absent is unlimited.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Limits {
    /// All calls.
    pub requests: Option<Limit<Rate>>,
    /// Creates.
    pub creates: Option<Limit<Rate>>,
    /// Tasks under way.
    pub concurrent_tasks: Option<Limit<NonZeroU32>>,
    /// Credits in an hour.
    pub credits_hour: Option<Limit<Credits>>,
    /// Credits in a day.
    pub credits_day: Option<Limit<Credits>>,
    /// Credits in a month.
    pub credits_month: Option<Limit<Credits>>,
}

/// A limit, and whether it is only tried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit<T> {
    /// The most there may be.
    pub limit: T,
    /// Counted and told, not enforced.
    pub shadow: bool,
}

/// How a tenant is called back.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TenantCallbacks {
    /// Signs what the relay sends; absent: it is not signed.
    pub secret: Option<Secret>,
    /// Hosts that may be called besides public ones.
    pub allow_hosts: Vec<HostPattern>,
}

/// The simulator.
#[derive(Clone, Debug, PartialEq)]
pub struct Mock {
    /// Whether any bearer token is let in, not only those of tenants.
    pub open: bool,
    /// How long tasks take.
    pub pace: Pace,
    /// What all that looks random is drawn from.
    pub seed: u64,
    /// The balance that a new sandbox begins with; not negative.
    pub credits: Credits,
    /// Whether too many creates are refused as the real account refuses them.
    pub emulate_quota: bool,
    /// Which HTTP status errors have.
    pub http_status: HttpStatus,
    /// The share of tasks that fail, `0.0` to `1.0`.
    pub failure_rate: f64,
    /// Added to every answer, drawn from this range.
    pub latency: RangeInclusive<Duration>,
    /// Signs simulated callbacks.
    pub webhook_secret: Secret,
    /// The room for uploaded files, in bytes.
    pub upload_space: u64,
    /// The part of it that one key can take, in bytes.
    pub upload_space_per_key: u64,
}

/// Log lines.
#[derive(Clone, Debug, PartialEq)]
pub struct Log {
    /// Their form.
    pub format: LogFormat,
    /// The least important that are written.
    pub level: LogLevel,
}

/// Where traces go.
#[derive(Clone, Debug, PartialEq)]
pub struct Otel {
    /// The collector's OTLP/HTTP endpoint.
    pub endpoint: Uri,
}

/// What a configuration is made of, with everything read that is read from outside but secrets in files.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    /// The file's name, for messages, and its text.
    pub file: Option<(PathBuf, String)>,
    /// The environment, also for `env:` references. Variables not of ours are no problem; an empty one counts
    /// as not set.
    pub environment: Vec<(String, String)>,
    /// For each flag the key that it sets, such as `admin.listen` for `--admin-listen`, and its value.
    pub flags: Vec<(&'static str, String)>,
}

/// Reads the configuration from the file at `path`, if one is named, from `environment` and from `flags`.
///
/// # Errors
/// Every problem of every layer; only the file's if it cannot be read at all or is not TOML.
pub fn load(
    path: Option<&Path>,
    environment: impl IntoIterator<Item = (String, String)>,
    flags: impl IntoIterator<Item = (&'static str, String)>,
) -> Result<Config, ConfigError> {
    let file = path.map(|path| Ok((path.to_owned(), file_text(path)?))).transpose()?;
    let sources =
        Sources { file, environment: environment.into_iter().collect(), flags: flags.into_iter().collect() };
    sources.read()
}

/// The text of the file at `path`.
fn file_text(path: &Path) -> Result<String, ConfigError> {
    let problem = |what: String, hint: Option<&str>| {
        ConfigError::new(vec![Problem {
            place: Place::WholeFile(path.into()),
            key: String::new(),
            what,
            hint: hint.map(str::to_owned),
            kind: ProblemKind::Invalid,
        }])
    };
    if path.is_dir() {
        return Err(problem("is a directory".to_owned(), Some("name a file in it")));
    }
    let bytes = std::fs::read(path).map_err(|error| problem(format!("cannot be read: {error}"), None))?;
    let text = String::from_utf8(bytes).map_err(|error| {
        let line = error.as_bytes()[..error.utf8_error().valid_up_to()].split(|byte| *byte == b'\n').count();
        problem(format!("is not UTF-8 text (line {line})"), None)
    })?;
    if text.trim().is_empty() {
        return Err(problem("is empty".to_owned(), Some("name no file to get the defaults")));
    }
    Ok(text)
}

impl Sources {
    /// Puts the layers together and reads them.
    ///
    /// # Errors
    /// Every problem of every layer; only the syntax errors if the file is not TOML.
    pub fn read(self) -> Result<Config, ConfigError> {
        let environment: BTreeMap<_, _> = self.environment.iter().cloned().collect();
        let desk = Desk::new(&environment);
        let tree = self.tree(&desk)?;
        let config = sections::config(&desk.root(&tree));
        unknown::report(&tree, &desk);
        availability::report(&tree, &desk);
        let problems = desk.into_problems();
        if problems.is_empty() { Ok(config) } else { Err(ConfigError::new(problems)) }
    }

    /// The layers as one tree. What cannot be laid over is reported to `desk`.
    fn tree(&self, desk: &Desk<'_>) -> Result<Node, ConfigError> {
        let file = self.file.as_ref().map(|(path, text)| Node::from_toml(path, text));
        let mut tree = file.transpose().map_err(ConfigError::new)?.unwrap_or_else(Node::empty);
        for (name, path, text) in self.variables(&tree) {
            let path: Vec<_> = path.iter().map(String::as_str).collect();
            lay_over(&mut tree, &path, Place::Environment(name), text, desk);
        }
        for (key, text) in &self.flags {
            let path: Vec<_> = key.split('.').collect();
            let name = format!("--{}", key.replace(['.', '_'], "-"));
            lay_over(&mut tree, &path, Place::Flag(name), text, desk);
        }
        Ok(tree)
    }

    /// The variables that are settings: name, path, text. Sorted, so that items of a list come in their
    /// order.
    fn variables(&self, tree: &Node) -> Vec<(String, Vec<String>, &str)> {
        let mut referred = BTreeSet::new();
        let mut note = |text: &str| referred.extend(secrets::variable(text).map(str::to_owned));
        tree.texts(&mut note);
        self.environment.iter().for_each(|(_, text)| note(text));
        self.flags.iter().for_each(|(_, text)| note(text));
        let setting = |(name, text): &'_ (String, String)| {
            let path = name.strip_prefix(unknown::PREFIX)?;
            let ours = !text.is_empty() && !referred.contains(name) && !is_for_others(name);
            ours.then(|| path.split("__").map(str::to_ascii_lowercase).collect::<Vec<_>>())
        };
        let mut settings: Vec<_> = self
            .environment
            .iter()
            .filter_map(|entry| Some((entry.0.clone(), setting(entry)?, entry.1.as_str())))
            .collect();
        settings.sort_by_cached_key(|(_, path, _)| {
            let number = |step: &String| step.parse::<usize>().unwrap_or(0);
            path.iter().map(|step| (number(step), step.clone())).collect::<Vec<_>>()
        });
        settings
    }
}

/// Whether a variable that begins as ours do is no setting: the token that the command line sends to a
/// running gateway, what tells tests (`examples/`) where the program is or runs, or what Kubernetes sets in every container for a service called `kiegate…`.
///
/// Source: Kubernetes documentation, "Service", environment variables (`{SVCNAME}_SERVICE_HOST`,
/// `{SVCNAME}_PORT…`).
fn is_for_others(name: &str) -> bool {
    let service = |name: &str| {
        name.ends_with("_SERVICE_HOST")
            || name.contains("_SERVICE_PORT")
            || name.ends_with("_PORT")
            || name.contains("_PORT_")
    };
    matches!(name, "KIEGATE_ADMIN_TOKEN" | "KIEGATE_BIN" | "KIEGATE_URL")
        || !name.contains("__") && service(name)
}

/// Sets what is at `path` to `text`, or reports why that cannot be.
fn lay_over(tree: &mut Node, path: &[&str], place: Place, text: &str, desk: &Desk<'_>) {
    if let Err(what) = tree.set(path, &place, text) {
        let kind = ProblemKind::Invalid;
        desk.report(Problem { place, key: path.join("."), what, hint: None, kind });
    }
}

impl Default for Config {
    /// What holds when nothing is set.
    fn default() -> Self {
        Sources::default().read().expect("nothing is set, so nothing is wrong")
    }
}

#[cfg(test)]
mod tests;
