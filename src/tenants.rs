//! Who shares the gateway: tenants, their API keys, of which only hashes are kept, and what they may use.
//!
//! Knows no limits, no routes, no upstream keys.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use sha2::{Digest, Sha256};

use crate::clock::Timestamp;
use crate::config::{self, IpNet, Pattern, Subject};
use crate::ids::{Secret, TenantId};

/// A tenant, as far as authentication and permission go.
#[derive(Debug)]
pub struct Tenant {
    /// Its name, also in metrics.
    pub id: TenantId,
    /// What it may use; absent: everything.
    allow: Option<Vec<Pattern>>,
    /// What it may not use, though allowed.
    deny: Vec<Pattern>,
    /// Where it may come from; absent: anywhere.
    ip_allow: Option<Vec<IpNet>>,
}

/// The model that a request names.
#[derive(Clone, Copy, Debug)]
pub struct NamedModel<'a> {
    /// As the request spells it.
    pub name: &'a str,
    /// The models that the family's operations are known to take, if it has models of its own; empty for what takes any model
    /// of the Market.
    pub siblings: &'a [&'a str],
}

impl Tenant {
    /// From its configuration.
    pub fn new(config: &config::Tenant) -> Self {
        Self {
            id: config.id.clone(),
            allow: config.allow.clone(),
            deny: config.deny.clone(),
            ip_allow: config.ip_allow.clone(),
        }
    }

    /// Whether it may come from `address`, which is only looked for where that matters. An unknown one is not enough then.
    pub fn may_come_from(&self, address: impl FnOnce() -> Option<IpAddr>) -> bool {
        let Some(nets) = &self.ip_allow else { return true };
        address().is_some_and(|address| nets.iter().any(|net| net.contains(address)))
    }

    /// Whether it may call `operation`, as far as that can be said without the model that a request names.
    pub fn may_call(&self, operation: &str) -> bool {
        let is = |pattern: &Pattern| pattern.matches_operation(operation);
        if self.deny.iter().any(is) {
            return false;
        }
        let Some(allow) = &self.allow else { return true };
        // A list of models alone is about models alone; an empty one allows nothing.
        let models_alone = !allow.is_empty() && !allow.iter().any(is_about_operations);
        models_alone || allow.iter().any(is)
    }

    /// Whether what it may use depends on the model that a request names.
    pub fn minds_models(&self) -> bool {
        self.deny.iter().chain(self.allow.iter().flatten()).any(|pattern| !is_about_operations(pattern))
    }

    /// Whether it may use `model` in an operation that it may call.
    ///
    /// Patterns of models in `allow` restrict the Market's models, and a family's own models as far as they speak of
    /// that family: beside `veo.*`, `model:bytedance/*` leaves veo3 alone, `model:veo3_lite` does not.
    pub fn may_use(&self, model: NamedModel<'_>) -> bool {
        let matched =
            |patterns: &[Pattern], name: &str| patterns.iter().any(|pattern| pattern.matches_model(name));
        if matched(&self.deny, model.name) {
            return false;
        }
        let Some(allow) = &self.allow else { return true };
        if allow.iter().all(is_about_operations) || matched(allow, model.name) {
            return true;
        }
        let others_only = !model.siblings.iter().any(|sibling| matched(allow, sibling));
        allow.iter().any(is_about_operations) && !model.siblings.is_empty() && others_only
    }
}

fn is_about_operations(pattern: &Pattern) -> bool {
    pattern.subject() == Subject::Operation
}

/// All tenants by their keys; `T` is what its user knows of a tenant beside.
#[derive(Debug)]
pub struct Tenants<T> {
    by_hash: HashMap<[u8; 32], Key<T>, ahash::RandomState>,
}

#[derive(Debug)]
struct Key<T> {
    tenant: Arc<T>,
    expires: Option<Timestamp>,
}

impl<T> Default for Tenants<T> {
    fn default() -> Self {
        Self { by_hash: HashMap::default() }
    }
}

impl<T> Tenants<T> {
    /// The tenants of the configuration, each as `know` knows it.
    pub fn from_config(tenants: &[config::Tenant], mut know: impl FnMut(&config::Tenant) -> Arc<T>) -> Self {
        let mut by_hash = HashMap::default();
        for tenant in tenants {
            let known = know(tenant);
            for key in &tenant.keys {
                let tenant = Arc::clone(&known);
                by_hash.insert(key.hash.0, Key { tenant, expires: key.expires });
            }
        }
        Self { by_hash }
    }

    /// The tenant that holds `key`. Unknown and expired keys are alike: `None`.
    pub fn authenticate(&self, key: &Secret, now: Timestamp) -> Option<Arc<T>> {
        if self.by_hash.is_empty() {
            return None;
        }
        // The digest of a guess says nothing of the digests in the map, so a plain look-up gives nothing away.
        let found = self.by_hash.get(&hash(key.expose()))?;
        found.expires.is_none_or(|expires| now < expires).then(|| Arc::clone(&found.tenant))
    }
}

/// SHA-256 of a key: what configuration and store keep of it.
pub fn hash(key: &str) -> [u8; 32] {
    Sha256::digest(key.as_bytes()).into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Sources;

    fn tenant(lines: &str) -> Tenant {
        let text = format!("[[tenant]]\nid = \"acme\"\n{lines}");
        let sources = Sources { file: Some(("test.toml".into(), text)), ..Sources::default() };
        Tenant::new(&sources.read().unwrap_or_else(|error| panic!("{error}")).tenants[0])
    }

    #[test]
    fn operations_are_allowed_and_denied_by_pattern() {
        let check = |lines: &str, operation: &str, expected: bool| {
            assert_eq!(tenant(lines).may_call(operation), expected, "{lines}: {operation}");
        };
        check("", "veo.generate", true);
        check("allow = [\"veo.*\"]", "veo.generate", true);
        check("allow = [\"veo.*\"]", "runway.generate", false);
        check("allow = []", "veo.generate", false);
        check("allow = [\"veo.*\"]\ndeny = [\"veo.extend\"]", "veo.extend", false);
        check("allow = [\"model:bytedance/*\"]", "jobs.create", true);
        check("deny = [\"model:veo3\"]", "veo.generate", true);
    }

    #[test]
    fn models_are_restricted_where_patterns_speak_of_them() {
        let check = |lines: &str, name: &str, siblings: &[&str], expected: bool| {
            let model = NamedModel { name, siblings };
            assert_eq!(tenant(lines).may_use(model), expected, "{lines}: {name}");
        };
        let veo: &[&str] = &["veo3", "veo3_lite"];
        check("", "veo3", veo, true);
        check("deny = [\"model:veo3\"]", "veo3", veo, false);
        check("allow = [\"veo.*\", \"jobs.*\", \"model:bytedance/*\"]", "veo3", veo, true);
        check("allow = [\"veo.*\", \"model:veo3_lite\"]", "veo3", veo, false);
        check("allow = [\"veo.*\", \"model:veo3_lite\"]", "veo3_lite", veo, true);
        check("allow = [\"jobs.*\", \"model:bytedance/*\"]", "google/imagen4", &[], false);
        check("allow = [\"jobs.*\", \"model:bytedance/*\"]", "bytedance/seedream", &[], true);
        check("allow = [\"jobs.*\"]", "google/imagen4", &[], true);
        check("allow = [\"model:bytedance/*\"]", "veo3", veo, false);
    }

    #[test]
    fn addresses_are_restricted_where_they_are_named() {
        let office = tenant("ip_allow = [\"10.0.0.0/8\"]");
        let from = |text: &str| office.may_come_from(|| Some(text.parse().unwrap()));
        assert!(from("10.1.2.3") && from("::ffff:10.1.2.3"));
        assert!(!from("192.0.2.1") && !office.may_come_from(|| None));
        assert!(tenant("").may_come_from(|| None));
    }
}
