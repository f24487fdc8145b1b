//! What every request counts. Each lane counts for itself, and the page adds it up: a number that several cores change travels
//! between them each time, and a family looks its children up behind a lock that they share.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use prometheus::proto::{Bucket, Counter, Histogram as Counted, LabelPair, Metric, MetricFamily, MetricType};
use prometheus::{Histogram, HistogramVec, IntCounter, IntCounterVec, Registry};

use super::maker::Maker;
use super::metrics::{ANSWER_BUCKETS, Finished};
use crate::background::PerLane;

/// The numbers of one lane.
pub(super) struct Busy {
    registry: Registry,
    requests: Children<Timed>,
    overhead: Histogram,
    upstream_requests: Children<Timed>,
    cache_requests: Children<IntCounterVec>,
}

/// The sums of all lanes.
pub(super) fn gather(lanes: &PerLane<Busy>) -> Vec<MetricFamily> {
    sum(lanes.iter().flat_map(|busy| busy.registry.gather()))
}

impl Busy {
    /// All at zero.
    pub(super) fn new() -> Self {
        let registry = Registry::new();
        let make = Maker(&registry);
        Self {
            requests: Children::of(Timed {
                count: make.counters(
                    "kiegate_requests_total",
                    "Requests answered on the data plane.",
                    &["tenant", "operation", "mode", "status", "code"],
                ),
                duration: make.histograms(
                    "kiegate_request_duration_seconds",
                    "Time from the head of a request to the end of its answer.",
                    &["operation", "mode"],
                    &ANSWER_BUCKETS,
                ),
                by: 1..3,
            }),
            overhead: make.histogram(
                "kiegate_overhead_seconds",
                "Time until the head of an answer that was not spent waiting for the upstream.",
                &ANSWER_BUCKETS,
            ),
            upstream_requests: Children::of(Timed {
                count: make.counters(
                    "kiegate_upstream_requests_total",
                    "Requests sent to the live upstream.",
                    &["key", "operation", "status"],
                ),
                duration: make.histograms(
                    "kiegate_upstream_duration_seconds",
                    "Time until the head of the upstream's answer arrived.",
                    &["operation"],
                    &ANSWER_BUCKETS,
                ),
                by: 1..2,
            }),
            cache_requests: Children::of(make.counters(
                "kiegate_cache_requests_total",
                "Questions that could be answered from what is kept.",
                &["operation", "result"],
            )),
            registry: registry.clone(),
        }
    }

    /// A request was answered.
    pub(super) fn request_finished(&self, finished: &Finished<'_>) {
        let mut status = [0; 3];
        let mut code = [0; 3];
        let code = finished.code.map_or("none", |number| three_digits(number, &mut code));
        let Finished { tenant, operation, mode, took, overhead, .. } = finished;
        let status = three_digits(finished.status, &mut status);
        self.requests.took(&[tenant, operation, mode, status, code], *took);
        if let Some(overhead) = overhead {
            self.overhead.observe(overhead.as_secs_f64());
        }
    }

    /// A question that could be answered from what is kept was answered.
    pub(super) fn cache_asked(&self, operation: &str, result: &str) {
        self.cache_requests.with(&[operation, result], IntCounter::inc);
    }

    /// The live upstream answered, or did not (no status).
    pub(super) fn upstream_answered(&self, key: &str, operation: &str, status: Option<u16>, took: Duration) {
        let mut digits = [0; 3];
        let status = status.map_or("error", |status| three_digits(status, &mut digits));
        self.upstream_requests.took(&[key, operation, status], took);
    }
}

/// A number from 100 to 999 as text, without allocating; anything else is `other`.
fn three_digits(number: u16, out: &mut [u8; 3]) -> &str {
    if !(100..1000).contains(&number) {
        return "other";
    }
    for (digit, power) in out.iter_mut().zip([100, 10, 1]) {
        *digit = b'0' + u8::try_from(number / power % 10).unwrap_or(0);
    }
    std::str::from_utf8(out).unwrap_or("other")
}

/// A family of metrics.
trait Family {
    type Child;

    fn child(&self, labels: &[&str]) -> Self::Child;
}

impl Family for IntCounterVec {
    type Child = IntCounter;

    fn child(&self, labels: &[&str]) -> IntCounter {
        self.with_label_values(labels)
    }
}

/// What is counted by its labels, and how long it takes by some of these.
struct Timed {
    count: IntCounterVec,
    duration: HistogramVec,
    /// Where the labels of `duration` stand among those of `count`.
    by: Range<usize>,
}

impl Family for Timed {
    type Child = (IntCounter, Histogram);

    fn child(&self, labels: &[&str]) -> Self::Child {
        let some = &labels[self.by.clone()];
        (self.count.with_label_values(labels), self.duration.with_label_values(some))
    }
}

impl Children<Timed> {
    /// Counts one of these labels that took so long.
    fn took(&self, labels: &[&str], span: Duration) {
        self.with(labels, |(count, duration)| {
            count.inc();
            duration.observe(span.as_secs_f64());
        });
    }
}

/// The children of a family, at hand by their labels.
struct Children<F: Family> {
    family: F,
    hasher: ahash::RandomState,
    known: Mutex<HashMap<u64, Child<F::Child>, ahash::RandomState>>,
}

struct Child<M> {
    labels: Box<[Box<str>]>,
    metric: M,
}

/// More children than this are not kept at hand.
const MOST_CHILDREN: usize = 4096;

impl<F: Family> Children<F> {
    fn of(family: F) -> Self {
        Self { family, hasher: ahash::RandomState::new(), known: Mutex::default() }
    }

    /// Does something with the child of these labels.
    fn with(&self, labels: &[&str], what: impl FnOnce(&F::Child)) {
        let hash = self.hasher.hash_one(labels);
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(child) = known.get(&hash)
            && child.labels.iter().map(|label| &**label).eq(labels.iter().copied())
        {
            return what(&child.metric);
        }
        let metric = self.family.child(labels);
        what(&metric);
        if known.len() < MOST_CHILDREN {
            let labels = labels.iter().copied().map(Into::into).collect();
            known.insert(hash, Child { labels, metric });
        }
    }
}

/// Families of the same name as one, whose metrics of the same labels are one.
fn sum(families: impl Iterator<Item = MetricFamily>) -> Vec<MetricFamily> {
    let mut sums: Vec<MetricFamily> = Vec::new();
    for mut family in families {
        let Some(there) = sums.iter_mut().find(|there| there.name() == family.name()) else {
            sums.push(family);
            continue;
        };
        let kind = there.get_field_type();
        let places = there.get_metric().iter().enumerate();
        let places: HashMap<Vec<Label>, usize> =
            places.map(|(place, metric)| (labels(metric), place)).collect();
        for metric in family.take_metric() {
            match places.get(&labels(&metric)) {
                Some(place) => add(&mut there.mut_metric()[*place], &metric, kind),
                None => there.mut_metric().push(metric),
            }
        }
    }
    sums
}

/// A label's name and value.
type Label = (String, String);

fn labels(metric: &Metric) -> Vec<Label> {
    let label = |label: &LabelPair| (label.name().to_owned(), label.value().to_owned());
    metric.get_label().iter().map(label).collect()
}

/// Adds what `more` has counted.
fn add(sum: &mut Metric, more: &Metric, kind: MetricType) {
    if kind == MetricType::COUNTER {
        let mut counter = Counter::default();
        counter.set_value(sum.get_counter().get_value() + more.get_counter().get_value());
        return sum.set_counter(counter);
    }
    let (ours, others) = (sum.get_histogram(), more.get_histogram());
    let buckets = ours.get_bucket().iter().zip(others.get_bucket());
    let both = |(ours, others): (&Bucket, &Bucket)| {
        let mut both = ours.clone();
        both.set_cumulative_count(ours.cumulative_count() + others.cumulative_count());
        both
    };
    let mut counted = Counted::default();
    counted.set_bucket(buckets.map(both).collect());
    counted.set_sample_count(ours.get_sample_count() + others.get_sample_count());
    counted.set_sample_sum(ours.get_sample_sum() + others.get_sample_sum());
    sum.set_histogram(counted);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_become_labels_and_nonsense_becomes_other() {
        let mut digits = [0; 3];
        assert_eq!(three_digits(200, &mut digits), "200");
        assert_eq!(three_digits(55, &mut digits), "other");
        assert_eq!(three_digits(1000, &mut digits), "other");
    }

    fn finished(status: u16) -> Finished<'static> {
        Finished {
            tenant: "acme",
            operation: "runway.details",
            mode: "live",
            status,
            code: Some(200),
            took: Duration::from_millis(2),
            overhead: Some(Duration::from_micros(60)),
        }
    }

    #[test]
    fn lanes_count_for_themselves_and_are_added_up() {
        let lanes = PerLane::new(Busy::new);
        let (one, other) = (lanes.iter().next().unwrap(), lanes.iter().last().unwrap());
        one.request_finished(&finished(200));
        other.request_finished(&finished(200));
        other.request_finished(&finished(429));
        other.upstream_answered("main", "runway.details", None, Duration::from_secs(2));
        let families = gather(&lanes);
        let metrics = |name: &str| {
            let family = families.iter().find(|family| family.name() == name).unwrap();
            family.get_metric().to_vec()
        };
        let requests = metrics("kiegate_requests_total");
        let count = |status: &str| {
            let is_it = |metric: &&Metric| metric.get_label().iter().any(|label| label.value() == status);
            requests.iter().find(is_it).unwrap().get_counter().get_value()
        };
        assert_eq!((requests.len(), count("200"), count("429")), (2, 2.0, 1.0));
        let durations = metrics("kiegate_request_duration_seconds");
        let counted = durations[0].get_histogram();
        assert_eq!((durations.len(), counted.get_sample_count()), (1, 3));
        assert!((counted.get_sample_sum() - 0.006).abs() < 1e-9);
        let below = |bound: f64| {
            let buckets = counted.get_bucket();
            buckets.iter().find(|bucket| bucket.upper_bound() >= bound).unwrap().cumulative_count()
        };
        assert_eq!((below(0.001), below(0.0025)), (0, 3));
        assert_eq!(metrics("kiegate_upstream_requests_total").len(), 1);
    }

    #[test]
    fn children_are_told_apart_however_many_there_are() {
        let busy = Busy::new();
        for number in 0..MOST_CHILDREN + 10 {
            busy.cache_asked(&number.to_string(), "hit");
            busy.cache_asked(&number.to_string(), "miss");
        }
        busy.cache_asked("7", "hit");
        let child = |labels: &[&str]| busy.cache_requests.family.with_label_values(labels).get();
        assert_eq!((child(&["7", "hit"]), child(&["7", "miss"]), child(&["4100", "miss"])), (2, 1, 1));
    }
}
