//! The effective configuration as operators may see it: all of it but the secrets.

use serde_json::{Value, json};

use super::values::{show_duration, show_size};
use super::{Config, Limit, Limits, Rate, Tenant, TenantKey, UpstreamKey};
use crate::clock::Timestamp;
use crate::ids::{Credits, Secret};

/// What is shown in place of a secret.
const HIDDEN: &str = "***";

impl Config {
    /// The configuration with the names and spellings of the file; every secret is `"***"`, what is absent
    /// `null`.
    pub fn redacted_json(&self) -> Value {
        json!({
            "mode": self.mode.as_str(),
            "listen": self.listen.to_string(),
            "public_url": self.public_url.as_ref().map(url),
            "data_dir": self.data_dir,
            "catalog": self.catalog,
            "recording": self.recording,
            "shutdown_grace": show_duration(self.shutdown_grace),
            "unknown_paths": self.unknown_paths.as_str(),
            "trusted_proxies": texts(&self.trusted_proxies),
            "server": {
                "head": show_size(self.server.head),
                "json_body": show_size(self.server.json_body),
                "upload": show_size(self.server.upload),
                "head_timeout": show_duration(self.server.head_timeout),
                "idle_timeout": show_duration(self.server.idle_timeout),
            },
            "admin": {
                "listen": self.admin.listen.to_string(),
                "token": hidden(self.admin.token.as_ref()),
                "protect_metrics": self.admin.protect_metrics,
            },
            "tls": self.tls.as_ref().map(|tls| json!({ "cert": tls.cert, "key": tls.key })),
            "store": { "redis": hidden(self.store.redis.as_ref()), "on_outage": self.store.on_outage.as_str() },
            "upstream": self.redacted_upstream(),
            "cache": {
                "max_bytes": show_size(self.cache.max_bytes),
                "finished": show_duration(self.cache.finished),
                "running": show_duration(self.cache.running),
                "credits": show_duration(self.cache.credits),
                "download_url": show_duration(self.cache.download_url),
            },
            "callbacks": {
                "retry": self.callbacks.retry.as_ref().map(|delays| {
                    delays.iter().copied().map(show_duration).collect::<Vec<_>>()
                }),
            },
            "tenant": self.tenants.iter().map(tenant).collect::<Vec<_>>(),
            "mock": self.redacted_mock(),
            "log": { "format": self.log.format.as_str(), "level": self.log.level.as_str() },
            "otel": self.otel.as_ref().map(|otel| json!({ "endpoint": otel.endpoint.to_string() })),
        })
    }

    fn redacted_upstream(&self) -> Value {
        json!({
            "base_url": url(&self.upstream.base_url),
            "upload_url": url(&self.upstream.upload_url),
            "connect_timeout": show_duration(self.upstream.connect_timeout),
            "response_timeout": show_duration(self.upstream.response_timeout),
            "idle_timeout": show_duration(self.upstream.idle_timeout),
            "key": self.upstream.keys.iter().map(upstream_key).collect::<Vec<_>>(),
        })
    }

    fn redacted_mock(&self) -> Value {
        let (low, high) =
            (show_duration(*self.mock.latency.start()), show_duration(*self.mock.latency.end()));
        json!({
            "open": self.mock.open,
            "pace": self.mock.pace.as_str(),
            "seed": self.mock.seed,
            "credits": self.mock.credits,
            "emulate_quota": self.mock.emulate_quota,
            "http_status": self.mock.http_status.as_str(),
            "failure_rate": self.mock.failure_rate,
            "latency": if low == high { low } else { format!("{low}..{high}") },
            "webhook_secret": HIDDEN,
            "upload_space": show_size(self.mock.upload_space),
            "upload_space_per_key": show_size(self.mock.upload_space_per_key),
        })
    }
}

fn upstream_key(key: &UpstreamKey) -> Value {
    json!({
        "name": key.name,
        "secret": HIDDEN,
        "webhook_secret": hidden(key.webhook_secret.as_ref()),
        "creates": key.creates.show(),
        "max_concurrent_tasks": key.max_concurrent_tasks,
        "max_wait": show_duration(key.max_wait),
    })
}

fn tenant(tenant: &Tenant) -> Value {
    json!({
        "id": tenant.id,
        "mode": tenant.mode.map(super::Mode::as_str),
        "keys": tenant.keys.iter().map(tenant_key).collect::<Vec<_>>(),
        "upstream_keys": tenant.upstream_keys,
        "allow": tenant.allow.as_deref().map(texts),
        "deny": texts(&tenant.deny),
        "ip_allow": tenant.ip_allow.as_deref().map(texts),
        "weight": tenant.weight,
        "limits": limits(&tenant.limits),
        "callbacks": {
            "secret": hidden(tenant.callbacks.secret.as_ref()),
            "allow_hosts": texts(&tenant.callbacks.allow_hosts),
        },
    })
}

/// The hash is no secret: keys are long and random, so that nobody finds the key that has it.
fn tenant_key(key: &TenantKey) -> Value {
    json!({ "hash": key.hash.show(), "name": key.name, "expires": key.expires.map(Timestamp::to_rfc3339) })
}

fn limits(limits: &Limits) -> Value {
    let rate = |limit: &Limit<Rate>| json!({ "limit": limit.limit.show(), "shadow": limit.shadow });
    let credits = |limit: &Limit<Credits>| json!({ "limit": limit.limit, "shadow": limit.shadow });
    json!({
        "requests": limits.requests.as_ref().map(rate),
        "creates": limits.creates.as_ref().map(rate),
        "concurrent_tasks": limits.concurrent_tasks.map(|limit| {
            json!({ "limit": limit.limit, "shadow": limit.shadow })
        }),
        "credits": {
            "hour": limits.credits_hour.as_ref().map(credits),
            "day": limits.credits_day.as_ref().map(credits),
            "month": limits.credits_month.as_ref().map(credits),
        },
    })
}

fn hidden(secret: Option<&Secret>) -> Option<&'static str> {
    secret.map(|_| HIDDEN)
}

/// A base URL as the file writes it, without the slash that stands for no path.
fn url(url: &http::Uri) -> String {
    let text = url.to_string();
    text.strip_suffix('/').unwrap_or(&text).to_owned()
}

fn texts<T: ToString>(values: &[T]) -> Vec<String> {
    values.iter().map(ToString::to_string).collect()
}
