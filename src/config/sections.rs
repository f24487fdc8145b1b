//! The keys there are, their defaults, and the rules that hold between them.
//!
//! Every key of a table is read before anything is given up: a key not asked for would count as unknown.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::num::NonZeroU32;
use std::ops::RangeInclusive;
use std::time::Duration;

use http::Uri;

use super::problem::Place;
use super::reader::{Item, Table};
use super::secrets::{public_secret, secret};
use super::unknown::nearest;
use super::values::{BaseUrl, KeyName, Latency, Size, Url, quoted, show_size};
use super::{
    Admin, Cache, Callbacks, Config, HttpStatus, Limit, Limits, Log, LogFormat, LogLevel, Mock, Mode,
    OnOutage, Otel, Pace, Rate, Server, Store, Tenant, TenantCallbacks, TenantKey, Tls, UnknownPaths,
    Upstream, UpstreamKey,
};
use crate::ids::{Credits, Secret};

/// Names that must be unique, each with the place of its first use.
type Seen = BTreeMap<String, Place>;

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

/// A default duration.
const fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// Reads the whole configuration. Where there was a problem, the default stands in.
pub(super) fn config(root: &Table<'_>) -> Config {
    let mut key_names = Seen::new();
    let upstream = upstream(&root.table("upstream"), &mut key_names);
    let config = Config {
        mode: root.or("mode", Mode::Mock),
        listen: root.or("listen", local(8787)),
        public_url: root.get("public_url").map(|BaseUrl(url)| url),
        data_dir: root.get("data_dir"),
        catalog: root.get("catalog"),
        recording: root.get("recording"),
        shutdown_grace: root.or("shutdown_grace", seconds(30)),
        unknown_paths: root.or("unknown_paths", UnknownPaths::Forward),
        trusted_proxies: root.list("trusted_proxies").unwrap_or_default(),
        server: server(&root.table("server")),
        admin: admin(&root.table("admin")),
        tls: tls(&root.table("tls")),
        store: store(&root.table("store")),
        upstream,
        cache: cache(&root.table("cache")),
        callbacks: Callbacks { retry: root.table("callbacks").list("retry") },
        tenants: tenants(root, &key_names),
        mock: mock(&root.table("mock")),
        log: log(&root.table("log")),
        otel: root.table("otel").get("endpoint").map(|Url(endpoint)| Otel { endpoint }),
    };
    check_planes(&config, root);
    check_paid_mode(&config, root);
    check_recording(&config, root);
    config
}

/// `port` on this machine only.
fn local(port: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port).into()
}

fn server(table: &Table<'_>) -> Server {
    Server {
        // The HTTP library cannot do with less than 8 KiB.
        head: size_in(&table.item("head"), 8 * KIB..=MIB).unwrap_or(32 * KIB),
        json_body: size_in(&table.item("json_body"), KIB..=GIB).unwrap_or(10 * MIB),
        upload: size_in(&table.item("upload"), KIB..=1024 * GIB).unwrap_or(GIB),
        head_timeout: positive(&table.item("head_timeout")).unwrap_or(seconds(10)),
        idle_timeout: positive(&table.item("idle_timeout")).unwrap_or(seconds(75)),
    }
}

/// The bytes that `item` tells, if they lie in `range`.
fn size_in(item: &Item<'_>, range: RangeInclusive<u64>) -> Option<u64> {
    let Size(bytes) = item.parse()?;
    if !range.contains(&bytes) {
        let (least, most) = (show_size(*range.start()), show_size(*range.end()));
        item.wrong(format!("{} is not in the range {least} to {most}", show_size(bytes)), None);
    }
    Some(bytes)
}

/// The duration that `item` tells, if it is not zero.
fn positive(item: &Item<'_>) -> Option<Duration> {
    let duration: Duration = item.parse()?;
    if duration.is_zero() {
        item.wrong("must be longer than zero", None);
    }
    Some(duration)
}

fn admin(table: &Table<'_>) -> Admin {
    Admin {
        listen: table.or("listen", local(8788)),
        token: secret(&table.item("token")),
        protect_metrics: table.flag_or("protect_metrics", false),
    }
}

fn tls(table: &Table<'_>) -> Option<Tls> {
    let (cert, key) = (table.item("cert"), table.item("key"));
    if table.is_set() {
        let (cert, key) = (cert.required().parse(), key.required().parse());
        return Some(Tls { cert: cert?, key: key? });
    }
    None
}

fn store(table: &Table<'_>) -> Store {
    let item = table.item("redis");
    let redis = secret(&item);
    let schemes = ["redis://", "rediss://", "unix://"];
    let is_url = |url: &Secret| schemes.iter().any(|scheme| url.expose().starts_with(scheme));
    if redis.as_ref().is_some_and(|url| !is_url(url)) {
        item.wrong("what it refers to is not a URL that begins with redis://, rediss:// or unix://", None);
    }
    Store { redis, on_outage: table.or("on_outage", OnOutage::Local) }
}

fn upstream(table: &Table<'_>, names: &mut Seen) -> Upstream {
    let url = |key, default| table.get(key).map_or(Uri::from_static(default), |BaseUrl(url)| url);
    Upstream {
        base_url: url("base_url", "https://api.kie.ai"),
        upload_url: url("upload_url", "https://kieai.redpandaai.co"),
        connect_timeout: positive(&table.item("connect_timeout")).unwrap_or(seconds(5)),
        response_timeout: positive(&table.item("response_timeout")).unwrap_or(seconds(60)),
        idle_timeout: positive(&table.item("idle_timeout")).unwrap_or(seconds(90)),
        keys: table.tables("key").iter().filter_map(|key| upstream_key(key, names)).collect(),
    }
}

fn upstream_key(table: &Table<'_>, names: &mut Seen) -> Option<UpstreamKey> {
    let item = table.item("name").required();
    let name = item.parse().map(|KeyName(name)| name);
    if let Some(name) = &name {
        item.claim(name, names);
    }
    let twenty = NonZeroU32::MIN.saturating_add(19);
    let quota = Rate { requests: twenty, per: seconds(10), burst: twenty };
    let secret_itself = secret(&table.item("secret").required());
    let webhook_secret = secret(&table.item("webhook_secret"));
    let creates = table.or("creates", quota);
    let max_concurrent_tasks = counted(&table.item("max_concurrent_tasks"));
    let max_wait = table.or("max_wait", seconds(30));
    Some(UpstreamKey {
        name: name?,
        secret: secret_itself?,
        webhook_secret,
        creates,
        max_concurrent_tasks: max_concurrent_tasks.unwrap_or(NonZeroU32::MIN.saturating_add(99)),
        max_wait,
    })
}

/// The number that `item` tells, if it is at least one.
fn counted(item: &Item<'_>) -> Option<NonZeroU32> {
    item.whole(1..=u32::MAX.into()).and_then(|number| NonZeroU32::new(u32::try_from(number).ok()?))
}

fn cache(table: &Table<'_>) -> Cache {
    Cache {
        max_bytes: table.get("max_bytes").map_or(64 * MIB, |Size(bytes)| bytes),
        finished: table.or("finished", seconds(24 * 3600)),
        running: table.or("running", seconds(2)),
        credits: table.or("credits", seconds(5)),
        download_url: table.or("download_url", seconds(15 * 60)),
    }
}

fn tenants(root: &Table<'_>, key_names: &Seen) -> Vec<Tenant> {
    let (mut ids, mut hashes) = (Seen::new(), Seen::new());
    let tables = root.tables("tenant");
    tables.iter().filter_map(|table| tenant(table, key_names, &mut ids, &mut hashes)).collect()
}

fn tenant(table: &Table<'_>, key_names: &Seen, ids: &mut Seen, hashes: &mut Seen) -> Option<Tenant> {
    let item = table.item("id").required();
    let id: Option<crate::ids::TenantId> = item.parse();
    if let Some(id) = &id {
        item.claim(id.as_str(), ids);
        if id.as_str() == NOBODY {
            item.wrong(format!("{} stands for whoever is no tenant", quoted(NOBODY)), None);
        }
    }
    let mode = table.get("mode");
    let keys = table.item("keys").items().unwrap_or_default();
    let keys = keys.iter().filter_map(|key| tenant_key(key, hashes)).collect();
    let upstream_keys = upstream_keys(&table.item("upstream_keys"), key_names);
    let (allow, deny) = (table.list("allow"), table.list("deny").unwrap_or_default());
    let ip_allow = table.list("ip_allow");
    let weight = counted(&table.item("weight")).unwrap_or(NonZeroU32::MIN);
    let limits = limits(&table.table("limits"));
    let callbacks = tenant_callbacks(&table.table("callbacks"));
    Some(Tenant { id: id?, mode, keys, upstream_keys, allow, deny, ip_allow, weight, limits, callbacks })
}

/// A key: its hash alone, or a table.
fn tenant_key(item: &Item<'_>, hashes: &mut Seen) -> Option<TenantKey> {
    let (hash, name, expires) = if item.is_table() {
        let table = item.table()?;
        (table.item("hash").required(), table.get("name"), table.get("expires"))
    } else {
        (item.clone(), None, None)
    };
    let value: super::KeyHash = hash.parse()?;
    hash.claim(&value.show(), hashes);
    Some(TenantKey { hash: value, name, expires })
}

/// What metrics call whoever is no tenant.
const NOBODY: &str = "other";

/// The names of the upstream keys that a tenant may use, if not all.
fn upstream_keys(item: &Item<'_>, names: &Seen) -> Option<Vec<String>> {
    let items = item.items()?;
    if items.is_empty() {
        item.wrong("names no key", Some("leave it out to allow all of them".to_owned()));
    }
    Some(items.iter().filter_map(|name| key_name(name, names)).collect())
}

/// The name of an upstream key that exists.
fn key_name(item: &Item<'_>, names: &Seen) -> Option<String> {
    let KeyName(name) = item.parse()?;
    if !names.contains_key(&name) {
        let near = nearest(&name, names.keys().map(String::as_str));
        let hint = near.map(|name| format!("did you mean \"{name}\"?"));
        item.wrong(format!("no [[upstream.key]] is called {}", quoted(&name)), hint);
    }
    Some(name)
}

fn limits(table: &Table<'_>) -> Limits {
    let credits = table.table("credits");
    // All windows at once, as any other limit, or each by itself.
    let is_wrapped = credits.says("limit");
    let all_shadow = is_wrapped && credits.flag_or("shadow", false);
    let windows = if is_wrapped { credits.table("limit") } else { credits };
    let window = |name| {
        let Limit { limit, shadow } = limit(&windows.item(name), amount)?;
        Some(Limit { limit, shadow: shadow || all_shadow })
    };
    Limits {
        requests: limit(&table.item("requests"), rate),
        creates: limit(&table.item("creates"), rate),
        concurrent_tasks: limit(&table.item("concurrent_tasks"), counted),
        credits_hour: window("hour"),
        credits_day: window("day"),
        credits_month: window("month"),
    }
}

/// A limit: its value alone, or `{ limit = …, shadow = true }`.
fn limit<T>(item: &Item<'_>, read: impl Fn(&Item<'_>) -> Option<T>) -> Option<Limit<T>> {
    if !item.is_table() {
        return Some(Limit { limit: read(item)?, shadow: false });
    }
    let table = item.table()?;
    let shadow = table.flag_or("shadow", false);
    Some(Limit { limit: read(&table.item("limit").required())?, shadow })
}

/// A rate.
fn rate(item: &Item<'_>) -> Option<Rate> {
    item.parse()
}

/// An amount of credits, not negative.
fn amount(item: &Item<'_>) -> Option<Credits> {
    item.number(&(0.0..=1e12)).and_then(Credits::from_f64)
}

fn tenant_callbacks(table: &Table<'_>) -> TenantCallbacks {
    TenantCallbacks {
        secret: secret(&table.item("secret")),
        allow_hosts: table.list("allow_hosts").unwrap_or_default(),
    }
}

fn mock(table: &Table<'_>) -> Mock {
    let latency = table.or("latency", Latency(Duration::ZERO..=Duration::ZERO));
    Mock {
        open: table.flag_or("open", true),
        pace: table.or("pace", Pace::Fast),
        seed: table.item("seed").whole(0..=u64::MAX).unwrap_or(42),
        credits: amount(&table.item("credits")).unwrap_or(Credits::whole(10_000)),
        emulate_quota: table.flag_or("emulate_quota", false),
        http_status: table.or("http_status", HttpStatus::Wire),
        failure_rate: table.item("failure_rate").number(&(0.0..=1.0)).unwrap_or(0.0),
        latency: latency.0,
        webhook_secret: public_secret(&table.item("webhook_secret"))
            .unwrap_or_else(|| Secret::new("mock-webhook-key")),
        upload_space: size_in(&table.item("upload_space"), MIB..=1024 * GIB).unwrap_or(10 * GIB),
        upload_space_per_key: size_in(&table.item("upload_space_per_key"), MIB..=1024 * GIB)
            .unwrap_or(2 * GIB),
    }
}

fn log(table: &Table<'_>) -> Log {
    Log { format: table.or("format", LogFormat::Pretty), level: table.or("level", LogLevel::Info) }
}

/// The planes must not ask for the same address.
fn check_planes(config: &Config, root: &Table<'_>) {
    if config.listen == config.admin.listen && config.listen.port() != 0 {
        let (plane, admin) = (root.item("listen"), root.table("admin").item("listen"));
        let item = if admin.is_set() { admin } else { plane };
        item.wrong(format!("the data plane and the admin plane both listen on {}", config.listen), None);
    }
}

/// A recording is named where one is written or replayed, and only there.
fn check_recording(config: &Config, root: &Table<'_>) {
    let of_tenants = config.tenants.iter().filter_map(|tenant| tenant.mode);
    let user =
        [config.mode].into_iter().chain(of_tenants).find(|mode| matches!(mode, Mode::Record | Mode::Replay));
    let recording = root.item("recording");
    match user {
        Some(mode) if config.recording.is_none() && !recording.is_set() => {
            let hint = "add recording = \"session.har\", or say --recording session.har";
            root.item("mode")
                .wrong(format!("\"{}\" needs a recording", mode.as_str()), Some(hint.to_owned()));
        }
        None if recording.is_set() => {
            let hint = "say mode = \"record\" to write it, mode = \"replay\" to be answered from it";
            recording.wrong("nobody writes or replays it", Some(hint.to_owned()));
        }
        _ => {}
    }
}

/// Where requests cost money nobody unknown may be let in, nor be shown who is.
fn check_paid_mode(config: &Config, root: &Table<'_>) {
    let of_tenants = config.tenants.iter().filter_map(|tenant| tenant.mode);
    let Some(paid) = [config.mode].into_iter().chain(of_tenants).find(|mode| mode.is_paid()) else { return };
    let mode = root.item("mode");
    let missing = |key: &str, what: &str, hint: &str| {
        if !mode.desk.has_problem_at(key) {
            mode.wrong(format!("\"{}\" needs {what}", paid.as_str()), Some(hint.to_owned()));
        }
    };
    if config.upstream.keys.is_empty() {
        let hint = "add [[upstream.key]] with name = \"main\" and secret = \"env:KIE_API_KEY\"";
        missing("upstream.key", "an upstream key", hint);
    }
    if config.tenants.iter().all(|tenant| tenant.keys.is_empty()) {
        let hint =
            "anyone could spend the account's credits; add [[tenant]] with an id and keys = [\"sha256:…\"]";
        missing("tenant", "a tenant with a key", hint);
    }
    let admin = root.table("admin");
    let open = config.admin.token.is_none() && !admin.item("token").is_set();
    if open && !config.admin.listen.ip().to_canonical().is_loopback() {
        let hint = "set admin.token = \"env:KIEGATE_ADMIN_TOKEN\", or listen on 127.0.0.1".to_owned();
        let what = format!("{} is open to others, without a token", config.admin.listen);
        admin.item("listen").wrong(what, Some(hint));
    }
}
