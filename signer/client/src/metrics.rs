//! How many calls, how long they took, and how they ended.

use std::time::Duration;

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, histogram::Histogram},
    registry::{Registry, Unit},
};

/// Cheap to clone; clones share their values.
#[derive(Clone, Debug)]
pub struct Metrics {
    latency: Family<CallLabel, Histogram, fn() -> Histogram>,
    repeats: Family<CallLabel, Counter>,
    refusals: Family<RefusalLabel, Counter>,
    ecdh_hits: Counter,
}

impl Metrics {
    /// Adds them to a registry under the prefix `signer_client`.
    pub fn register(&self, registry: &mut Registry) {
        let registry = registry.sub_registry_with_prefix("signer_client");
        let latency = "Time until a call to the signer was answered, its repeats included";
        registry.register_with_unit("call", latency, Unit::Seconds, self.latency.clone());
        registry.register("repeats", "Calls sent again because no signer answered", self.repeats.clone());
        registry.register("refusals", "Calls that a rule of the signer refused", self.refusals.clone());
        registry.register("ecdh_ahead_used", "ECDH results that were there before LDK asked", self.ecdh_hits.clone());
    }

    pub(crate) fn answered(&self, call: &'static str, after: Duration) {
        self.latency.get_or_create(&CallLabel::of(call)).observe(after.as_secs_f64());
    }

    pub(crate) fn repeated(&self, call: &'static str) {
        self.repeats.get_or_create(&CallLabel::of(call)).inc();
    }

    pub(crate) fn refused(&self, call: &'static str, rule: &str) {
        self.refusals.get_or_create(&RefusalLabel { call: name(call), rule: rule.to_owned() }).inc();
    }

    pub(crate) fn ecdh_was_ahead(&self) {
        self.ecdh_hits.inc();
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self {
            latency: Family::new_with_constructor(latency_buckets),
            repeats: Family::default(),
            refusals: Family::default(),
            ecdh_hits: Counter::default(),
        }
    }
}

/// From 100 µs, a call on one machine, to 100 s, an outage.
fn latency_buckets() -> Histogram {
    const SECONDS: [f64; 19] = [
        0.0001, 0.0002, 0.0003, 0.0005, 0.00075, 0.001, 0.0015, 0.002, 0.003, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5, 1.0,
        5.0, 20.0, 100.0,
    ];
    Histogram::new(SECONDS)
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct CallLabel {
    call: String,
}

impl CallLabel {
    fn of(call: &str) -> Self {
        Self { call: name(call) }
    }
}

/// As the signer's own metrics and its log call it, so that both sides of a call can be laid beside each other.
fn name(call: &str) -> String {
    call.replace('_', "-")
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct RefusalLabel {
    call: String,
    rule: String,
}
