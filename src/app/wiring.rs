//! What ties modules together that do not know each other.

use std::sync::{Arc, OnceLock, Weak};

use bytes::Bytes;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use http::{HeaderMap, StatusCode};

use crate::gateway::Gateway;
use crate::ids::{Credits, Secret, TenantId};
use crate::outbound::guard::{Delivered, Failure, Guarded};
use crate::sim::{Courier, Event, Observer, Parcel};
use crate::store::{CreateId, Store};
use crate::tasks::Tracker;
use crate::tasks::delivery::Post;
use crate::tasks::simulated::SimulatedEnds;
use crate::telemetry::Metrics;

/// Tells of what happens in the simulator: to the metrics, and to whoever settles what tenants have spent there.
pub(super) struct Told {
    pub(super) metrics: Arc<Metrics>,
    pub(super) ends: Arc<SimulatedEnds>,
}

impl Observer for Told {
    fn observe(&self, event: &Event<'_>) {
        self.metrics.observe(event);
        match *event {
            Event::TaskFinished { task, credits, paid, .. } => {
                self.ends.ended(task, if paid { credits } else { Credits::ZERO });
            }
            Event::TasksForgotten { tasks, .. } if !tasks.is_empty() => self.ends.forgotten(tasks.to_vec()),
            _ => {}
        }
    }
}

/// Hears nothing: for a simulator that nobody is to know of.
pub(super) struct Deaf;

impl Observer for Deaf {
    fn observe(&self, _: &Event<'_>) {}
}

/// Brings the callbacks of tasks that exist nowhere to where those of real tasks come in.
pub(super) struct IntoRelay {
    pub(super) tracker: Tracker,
    pub(super) store: Arc<dyn Store>,
}

impl Courier for IntoRelay {
    fn deliver(&self, parcel: Parcel) -> BoxFuture<'static, Result<StatusCode, String>> {
        let (tracker, store) = (self.tracker.clone(), Arc::clone(&self.store));
        async move {
            let create =
                parcel.url.rsplit('/').next().and_then(CreateId::parse).ok_or("not for the relay")?;
            let task = store.by_create(create).await.map_err(|error| error.to_string())?;
            let task = task.ok_or("no such create")?;
            let received = tracker.accept(&task, &parcel.body, true).await;
            received.map(|_| StatusCode::OK).map_err(|error| error.to_string())
        }
        .boxed()
    }
}

/// Posts to the addresses that tenants chose, as each of them is configured at that time.
pub(super) struct ToTenants {
    pub(super) guarded: Guarded,
    pub(super) gateway: Arc<OnceLock<Weak<Gateway>>>,
}

impl ToTenants {
    fn callbacks(&self, tenant: &TenantId) -> Option<crate::config::TenantCallbacks> {
        let gateway = self.gateway.get()?.upgrade()?;
        Some(gateway.member(tenant.as_str())?.callbacks.clone())
    }
}

/// Also those that a tenant chose for simulated tasks, where the process stands in a network with more in it than tests.
impl Courier for ToTenants {
    fn deliver(&self, parcel: Parcel) -> BoxFuture<'static, Result<StatusCode, String>> {
        let Parcel { owner, url, headers, body, .. } = parcel;
        let posted = self.post(&TenantId::new(&*owner), url.into(), headers, body);
        posted.map(|answer| answer.map(|answer| answer.status).map_err(|failure| failure.to_string())).boxed()
    }
}

impl Post for ToTenants {
    fn secret(&self, tenant: &TenantId) -> Option<Secret> {
        self.callbacks(tenant)?.secret
    }

    fn post(
        &self,
        tenant: &TenantId,
        url: Arc<str>,
        headers: HeaderMap,
        body: Bytes,
    ) -> BoxFuture<'static, Result<Delivered, Failure>> {
        let (guarded, allow) = (self.guarded.clone(), self.callbacks(tenant).unwrap_or_default().allow_hosts);
        async move { guarded.post(&url, headers, body, &allow).await }.boxed()
    }
}
