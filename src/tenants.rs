//! Who shares the gateway: tenants and their API keys, of which only hashes are kept.
//!
//! Knows no limits, no routes, no upstream keys.

use std::collections::HashMap;
use std::sync::Arc;

use sha2::{Digest, Sha256};

use crate::clock::Timestamp;
use crate::config;
use crate::ids::{Secret, TenantId};

/// A tenant, as far as authentication goes.
#[derive(Debug)]
pub struct Tenant {
    /// Its name, also in metrics.
    pub id: TenantId,
}

/// All tenants by their keys.
#[derive(Debug, Default)]
pub struct Tenants {
    by_hash: HashMap<[u8; 32], Key>,
}

#[derive(Debug)]
struct Key {
    tenant: Arc<Tenant>,
    expires: Option<Timestamp>,
}

impl Tenants {
    /// The tenants of the configuration.
    pub fn from_config(tenants: &[config::Tenant]) -> Self {
        let mut by_hash = HashMap::new();
        for tenant in tenants {
            let known = Arc::new(Tenant { id: tenant.id.clone() });
            for key in &tenant.keys {
                let tenant = Arc::clone(&known);
                by_hash.insert(key.hash.0, Key { tenant, expires: key.expires });
            }
        }
        Self { by_hash }
    }

    /// The tenant that holds `key`. Unknown and expired keys are alike: `None`.
    pub fn authenticate(&self, key: &Secret, now: Timestamp) -> Option<Arc<Tenant>> {
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
