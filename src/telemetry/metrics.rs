//! The numbers that Prometheus collects. Names and labels as the interface promises them.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use prometheus::{Encoder, Histogram, HistogramVec, IntCounterVec, IntGaugeVec, Registry, TextEncoder};

use super::busy::{self, Busy};
use super::maker::Maker;
use crate::background::PerLane;
use crate::error::Reason;
use crate::ids::Credits;
use crate::limits::QuotaStatus;
use crate::sim::{Event, Observer};

/// Buckets for answers, in seconds.
pub(super) const ANSWER_BUCKETS: [f64; 14] =
    [0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.05, 0.25, 1.0, 5.0, 15.0, 60.0];
/// Buckets for creates that wait for their turn, in seconds.
const WAIT_BUCKETS: [f64; 10] = [0.001, 0.1, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 30.0, 60.0];
/// Buckets for tasks, in seconds.
const TASK_BUCKETS: [f64; 11] = [0.5, 1.0, 2.0, 5.0, 15.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0];

/// All metrics of a process.
pub struct Metrics {
    registry: Registry,
    busy: PerLane<Busy>,
    refusals: IntCounterVec,
    tasks_created: IntCounterVec,
    tasks_finished: IntCounterVec,
    tasks_running: IntGaugeVec,
    task_duration: HistogramVec,
    credits: prometheus::CounterVec,
    callbacks: IntCounterVec,
    callback_pending: IntGaugeVec,
    callback_lag: Histogram,
    connections: IntGaugeVec,
    cache_bytes: IntGaugeVec,
    quota_available: IntGaugeVec,
    queue: IntGaugeVec,
    queue_wait: HistogramVec,
    budget_remaining: prometheus::GaugeVec,
    breaker_open: IntGaugeVec,
    before_page: Mutex<Vec<Box<dyn Fn() + Send + Sync>>>,
}

/// A request that has been answered.
#[derive(Debug)]
pub struct Finished<'a> {
    /// Tenant id, or `other`.
    pub tenant: &'a str,
    /// Operation id, or one of the fixed names for what is none.
    pub operation: &'a str,
    /// `mock`, `live`, …
    pub mode: &'a str,
    /// HTTP status.
    pub status: u16,
    /// The number in the body, if it has one.
    pub code: Option<u16>,
    /// From the head of the request to the end of the answer.
    pub took: Duration,
    /// What the gateway itself added before the head of the answer; `None` for what is not of the API.
    pub overhead: Option<Duration>,
}

/// A task that came to its end.
#[derive(Clone, Copy, Debug)]
pub struct TaskEnded<'a> {
    /// Tenant id, or `other`.
    pub tenant: &'a str,
    /// Operation id.
    pub operation: &'a str,
    /// The model's name in the catalogue.
    pub model: &'a str,
    /// How it ended.
    pub outcome: &'a str,
    /// From its creation to its end.
    pub took: Duration,
    /// What it was expected to cost.
    pub reserved: Credits,
    /// What it cost.
    pub charged: Credits,
}

impl Metrics {
    /// All of them, at zero.
    #[expect(clippy::too_many_lines, reason = "a table")]
    pub fn new() -> Self {
        let registry = Registry::new();
        let make = Maker(&registry);
        let metrics = Self {
            busy: PerLane::new(Busy::new),
            refusals: make.counters(
                "kiegate_refusals_total",
                "Requests that the gateway itself refused.",
                &["tenant", "reason"],
            ),
            tasks_created: make.counters(
                "kiegate_tasks_created_total",
                "Tasks created.",
                &["tenant", "operation", "model"],
            ),
            tasks_finished: make.counters(
                "kiegate_tasks_finished_total",
                "Tasks that came to their end.",
                &["tenant", "operation", "outcome"],
            ),
            tasks_running: make.gauges("kiegate_tasks_running", "Tasks under way.", &["tenant"]),
            task_duration: make.histograms(
                "kiegate_task_duration_seconds",
                "Time from a task's creation to its end, virtual where time is.",
                &["operation"],
                &TASK_BUCKETS,
            ),
            credits: make.amounts(
                "kiegate_credits_total",
                "Credits taken, confirmed and given back.",
                &["tenant", "model", "kind"],
            ),
            callbacks: make.counters(
                "kiegate_callbacks_total",
                "Callbacks received (in) and attempts to deliver one (out).",
                &["tenant", "direction", "result"],
            ),
            callback_pending: make.gauges(
                "kiegate_callback_pending",
                "Callbacks planned that have been neither delivered nor given up.",
                &["tenant"],
            ),
            callback_lag: make.histogram(
                "kiegate_callback_lag_seconds",
                "How long after it was due an attempt came to its end.",
                &ANSWER_BUCKETS,
            ),
            connections: make.gauges("kiegate_connections", "Open connections.", &["plane"]),
            cache_bytes: make.gauges("kiegate_cache_bytes", "Size of kept answers.", &[]),
            quota_available: make.gauges(
                "kiegate_upstream_quota_available",
                "Creates that could be sent now.",
                &["key"],
            ),
            queue: make.gauges("kiegate_upstream_queue", "Creates that wait for their turn.", &["key"]),
            queue_wait: make.histograms(
                "kiegate_upstream_wait_seconds",
                "How long creates waited for their turn.",
                &["key"],
                &WAIT_BUCKETS,
            ),
            budget_remaining: make.levels(
                "kiegate_budget_remaining",
                "Credits left in the present window; less than nothing where the limit is only tried out.",
                &["tenant", "window"],
            ),
            breaker_open: make.gauges(
                "kiegate_breaker_open",
                "1 while a host is left alone because it does not answer.",
                &["host"],
            ),
            before_page: Mutex::default(),
            registry: registry.clone(),
        };
        metrics.connections.with_label_values(&["data"]).set(0);
        metrics.connections.with_label_values(&["admin"]).set(0);
        let build = make.gauges("kiegate_build_info", "Always 1.", &["version", "commit"]);
        build.with_label_values(&[env!("CARGO_PKG_VERSION"), env!("BUILD_COMMIT")]).set(1);
        #[cfg(target_os = "linux")]
        make.register(prometheus::process_collector::ProcessCollector::for_self());
        metrics
    }

    /// Has `look` called before each page, to tell of what changes without anything happening.
    pub fn before_page(&self, look: Box<dyn Fn() + Send + Sync>) {
        self.before_page.lock().unwrap_or_else(PoisonError::into_inner).push(look);
    }

    /// The page that Prometheus reads.
    pub fn page(&self) -> (String, Vec<u8>) {
        self.before_page.lock().unwrap_or_else(PoisonError::into_inner).iter().for_each(|look| look());
        let encoder = TextEncoder::new();
        let mut page = Vec::with_capacity(16 * 1024);
        // Encoding into memory fails only for a family without samples, which gather() leaves out.
        let mut families = self.registry.gather();
        families.extend(busy::gather(&self.busy));
        families.sort_by(|one, other| one.name().cmp(other.name()));
        let _ = encoder.encode(&families, &mut page);
        (encoder.format_type().to_owned(), page)
    }

    /// A request was answered.
    pub fn request_finished(&self, finished: &Finished<'_>) {
        self.busy.here().request_finished(finished);
    }

    /// The gateway refused a request.
    pub fn refused(&self, tenant: &str, reason: Reason) {
        self.refusals.with_label_values(&[tenant, reason.name()]).inc();
    }

    /// A limit that is only tried out would have refused.
    pub fn shadow_refused(&self, tenant: &str, reason: Reason) {
        self.refusals.with_label_values(&[tenant, reason.shadow_name()]).inc();
    }

    /// A question that could be answered from what is kept was answered.
    pub fn cache_asked(&self, operation: &str, result: &str) {
        self.busy.here().cache_asked(operation, result);
    }

    /// What is kept takes so many bytes.
    pub fn cache_bytes(&self, bytes: u64) {
        self.cache_bytes.with_label_values::<&str>(&[]).set(i64::try_from(bytes).unwrap_or(i64::MAX));
    }

    /// An upstream key's quota stands like this.
    pub fn quota(&self, key: &str, status: &QuotaStatus) {
        self.quota_available.with_label_values(&[key]).set(status.available.into());
        self.queue.with_label_values(&[key]).set(i64::try_from(status.waiting).unwrap_or(i64::MAX));
    }

    /// A create had its turn.
    pub fn waited_for_turn(&self, key: &str, waited: Duration) {
        self.queue_wait.with_label_values(&[key]).observe(waited.as_secs_f64());
    }

    /// So much of a tenant's credits is left.
    pub fn budget_remaining(&self, tenant: &str, window: &str, left: Credits) {
        self.budget_remaining.with_label_values(&[tenant, window]).set(left.as_f64());
    }

    /// Whether a host is left alone.
    pub fn breaker(&self, host: &str, is_open: bool) {
        self.breaker_open.with_label_values(&[host]).set(is_open.into());
    }

    /// A task was created upstream, as far as anybody knows. `model` is a name of the catalogue.
    pub fn task_created(&self, tenant: &str, operation: &str, model: &str, reserved: Credits) {
        self.tasks_created.with_label_values(&[tenant, operation, model]).inc();
        self.tasks_running.with_label_values(&[tenant]).inc();
        self.credits.with_label_values(&[tenant, model, "reserved"]).inc_by(reserved.as_f64().max(0.0));
    }

    /// A task that was created upstream came to its end.
    pub fn task_ended(&self, ended: &TaskEnded<'_>) {
        let TaskEnded { tenant, operation, model, outcome, took, reserved, charged } = *ended;
        self.tasks_finished.with_label_values(&[tenant, operation, outcome]).inc();
        self.tasks_running.with_label_values(&[tenant]).dec();
        self.task_duration.with_label_values(&[operation]).observe(took.as_secs_f64());
        self.settled(tenant, model, reserved, charged);
    }

    /// A chat with the upstream is let in, and so much is reserved for it.
    pub fn chat_reserved(&self, tenant: &str, model: &str, reserved: Credits) {
        self.credits.with_label_values(&[tenant, model, "reserved"]).inc_by(reserved.as_f64());
    }

    /// A chat with the upstream cost so much.
    pub fn chat_charged(&self, tenant: &str, model: &str, reserved: Credits, charged: Credits) {
        self.settled(tenant, model, reserved, charged);
    }

    fn settled(&self, tenant: &str, model: &str, reserved: Credits, charged: Credits) {
        self.credits.with_label_values(&[tenant, model, "settled"]).inc_by(charged.as_f64().max(0.0));
        let refunded = (reserved - charged).as_f64().max(0.0);
        self.credits.with_label_values(&[tenant, model, "refunded"]).inc_by(refunded);
    }

    /// A callback came in.
    pub fn callback_received(&self, tenant: &str, result: &str) {
        self.callbacks.with_label_values(&[tenant, "in", result]).inc();
    }

    /// A callback is to be delivered.
    pub fn callback_planned(&self, tenant: &str) {
        self.callback_pending.with_label_values(&[tenant]).inc();
    }

    /// An attempt to deliver a callback came to its end.
    pub fn callback_sent(&self, tenant: &str, result: &str, lag: Duration) {
        self.callbacks.with_label_values(&[tenant, "out", result]).inc();
        self.callback_lag.observe(lag.as_secs_f64());
        if result != "retried" {
            self.callback_pending.with_label_values(&[tenant]).dec();
        }
    }

    /// A callback was given up while it waited.
    pub fn callback_given_up(&self, tenant: &str) {
        self.callbacks.with_label_values(&[tenant, "out", "dead"]).inc();
        self.callback_pending.with_label_values(&[tenant]).dec();
    }

    /// The live upstream answered, or did not.
    pub fn upstream_answered(&self, key: &str, operation: &str, status: Option<u16>, took: Duration) {
        self.busy.here().upstream_answered(key, operation, status, took);
    }

    /// A connection was opened on `plane`; it is closed when the value is dropped.
    pub fn connection(&self, plane: &'static str) -> Connection {
        let gauge = self.connections.with_label_values(&[plane]);
        gauge.inc();
        Connection(gauge)
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

/// An open connection, for the gauge.
pub struct Connection(prometheus::IntGauge);

impl Drop for Connection {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// Metrics of what happens in the simulator.
impl Observer for Metrics {
    fn observe(&self, event: &Event<'_>) {
        match *event {
            Event::TaskCreated { owner, operation, model, credits } => {
                self.task_created(owner, operation, model, credits);
            }
            Event::ChatAnswered { owner, operation: _, model, credits } => {
                self.settled(owner, model, Credits::ZERO, credits);
            }
            Event::TaskFinished { owner, operation, model, task: _, outcome, took, credits, paid } => {
                let charged = if paid { credits } else { Credits::ZERO };
                let tenant = owner;
                self.task_ended(&TaskEnded {
                    tenant,
                    operation,
                    model,
                    outcome,
                    took,
                    reserved: credits,
                    charged,
                });
            }
            Event::TasksForgotten { owner, running, callbacks, .. } => {
                let count = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
                self.tasks_running.with_label_values(&[owner]).sub(count(running));
                self.callback_pending.with_label_values(&[owner]).sub(count(callbacks));
            }
            Event::TasksRestored { owner, running } => {
                let running = i64::try_from(running).unwrap_or(i64::MAX);
                self.tasks_running.with_label_values(&[owner]).add(running);
            }
            Event::CallbacksPlanned { owner, count } => {
                self.callback_pending
                    .with_label_values(&[owner])
                    .add(i64::try_from(count).unwrap_or(i64::MAX));
            }
            Event::CallbackSent { owner, result, lag } => {
                self.callback_sent(owner, result, lag);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_has_the_promised_names() {
        let metrics = Metrics::new();
        metrics.request_finished(&Finished {
            tenant: "other",
            operation: "runway.details",
            mode: "mock",
            status: 200,
            code: Some(200),
            took: Duration::from_micros(20),
            overhead: Some(Duration::from_micros(10)),
        });
        let page = String::from_utf8(metrics.page().1).unwrap();
        assert!(page.contains(
            r#"kiegate_requests_total{code="200",mode="mock",operation="runway.details",status="200",tenant="other"} 1"#
        ));
        assert!(page.contains("kiegate_build_info{"));
        #[cfg(target_os = "linux")]
        assert!(page.contains("process_resident_memory_bytes"));
    }
}
