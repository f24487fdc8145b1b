//! How metrics are made.

use prometheus::{Histogram, HistogramOpts, HistogramVec, IntCounterVec, IntGaugeVec, Opts, Registry};

/// Makes metrics and registers them. Names are constants, so that a mistake shows in the first test.
pub(super) struct Maker<'a>(pub(super) &'a Registry);

impl Maker<'_> {
    pub(super) fn register<C: prometheus::core::Collector + 'static>(&self, collector: C) {
        self.0.register(Box::new(collector)).expect("each name is registered once");
    }

    pub(super) fn counters(&self, name: &str, help: &str, labels: &[&str]) -> IntCounterVec {
        let counters = IntCounterVec::new(Opts::new(name, help), labels).expect("a valid name");
        self.register(counters.clone());
        counters
    }

    pub(super) fn amounts(&self, name: &str, help: &str, labels: &[&str]) -> prometheus::CounterVec {
        let amounts = prometheus::CounterVec::new(Opts::new(name, help), labels).expect("a valid name");
        self.register(amounts.clone());
        amounts
    }

    pub(super) fn levels(&self, name: &str, help: &str, labels: &[&str]) -> prometheus::GaugeVec {
        let levels = prometheus::GaugeVec::new(Opts::new(name, help), labels).expect("a valid name");
        self.register(levels.clone());
        levels
    }

    pub(super) fn gauges(&self, name: &str, help: &str, labels: &[&str]) -> IntGaugeVec {
        let gauges = IntGaugeVec::new(Opts::new(name, help), labels).expect("a valid name");
        self.register(gauges.clone());
        gauges
    }

    pub(super) fn histograms(
        &self,
        name: &str,
        help: &str,
        labels: &[&str],
        buckets: &[f64],
    ) -> HistogramVec {
        let options = HistogramOpts::new(name, help).buckets(buckets.to_vec());
        let histograms = HistogramVec::new(options, labels).expect("a valid name");
        self.register(histograms.clone());
        histograms
    }

    pub(super) fn histogram(&self, name: &str, help: &str, buckets: &[f64]) -> Histogram {
        let options = HistogramOpts::new(name, help).buckets(buckets.to_vec());
        let histogram = Histogram::with_opts(options).expect("a valid name");
        self.register(histogram.clone());
        histogram
    }
}
