//! What an operator asks: how much was signed, what was refused and by which rule, how long it took; docs/metrics.md
//! describes each.

use std::{
    fmt,
    sync::atomic::AtomicU64,
    time::{Duration, SystemTime},
};

use prometheus_client::{
    encoding::{EncodeLabelSet, text::encode},
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram, info::Info},
    registry::Registry,
};

use crate::rules::{Call, Rule};

pub(super) struct Metrics {
    registry: Registry,
    signatures: Counter,
    refusals: Family<RuleLabel, Counter>,
    calls: Family<CallLabel, Histogram>,
    term: Gauge,
    channels: Gauge,
    ready: Gauge,
    certificate_remaining: Gauge<f64, AtomicU64>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RuleLabel {
    rule: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CallLabel {
    call: &'static str,
}

/// From 50 microseconds (a cached answer) to a token that hardly answers.
const SECONDS: [f64; 13] = [0.000_05, 0.000_1, 0.000_2, 0.000_5, 0.001, 0.002, 0.005, 0.01, 0.025, 0.1, 0.5, 2.0, 10.0];

impl Metrics {
    pub(super) fn new() -> Self {
        let mut registry = Registry::with_prefix("holdfast_signer");
        let signatures = Counter::default();
        let refusals = Family::<RuleLabel, Counter>::default();
        let calls = Family::<CallLabel, Histogram>::new_with_constructor(|| Histogram::new(SECONDS));
        let [term, channels, ready] = [(); 3].map(|()| Gauge::default());
        registry.register("signatures", "Signatures that left", signatures.clone());
        registry.register("refusals", "Requests refused, by rule", refusals.clone());
        registry.register("call_seconds", "Time to answer, by call", calls.clone());
        registry.register("newest_term", "Newest term announced", term.clone());
        registry.register("channels", "Channels with a guard record", channels.clone());
        registry.register("ready", "Whether the last self-test of custody passed", ready.clone());
        let certificate_remaining = Gauge::<f64, AtomicU64>::default();
        let until = "Until the signer's certificate, or its authority's, expires";
        registry.register("certificate_remaining_seconds", until, certificate_remaining.clone());
        let build = Info::new([("version", env!("CARGO_PKG_VERSION"))]);
        registry.register("build", "The signer's version", build);
        // A rule that never refused is a zero, not a gap.
        for rule in Rule::ALL {
            drop(refusals.get_or_create(&RuleLabel { rule: rule.name().into() }));
        }
        Self { registry, signatures, refusals, calls, term, channels, ready, certificate_remaining }
    }

    pub(super) fn answered(&self, call: Call, took: Duration) {
        self.calls.get_or_create(&CallLabel { call: call.name() }).observe(took.as_secs_f64());
    }

    pub(super) fn refused(&self, rule: &str) {
        self.refusals.get_or_create(&RuleLabel { rule: rule.into() }).inc();
    }

    pub(super) fn signed(&self, count: usize) {
        self.signatures.inc_by(count as u64);
    }

    pub(super) fn signatures(&self) -> u64 {
        self.signatures.get()
    }

    /// The rules that refused something, and how often.
    pub(super) fn refusals(&self) -> impl Iterator<Item = (&'static str, u64)> {
        Rule::ALL
            .into_iter()
            .map(|rule| (rule.name(), self.refusals.get_or_create(&RuleLabel { rule: rule.name().into() }).get()))
            .filter(|(_, count)| *count > 0)
    }

    pub(super) fn text(&self, term: u64, channels: usize, ready: bool, expires: SystemTime) -> String {
        self.term.set(i64::try_from(term).unwrap_or(i64::MAX));
        self.channels.set(i64::try_from(channels).unwrap_or(i64::MAX));
        self.ready.set(ready.into());
        let left = expires.duration_since(SystemTime::now()).unwrap_or_default();
        self.certificate_remaining.set(left.as_secs_f64());
        let mut text = String::new();
        match encode(&mut text, &self.registry) {
            Ok(()) => text,
            // Writing to a string does not fail; an empty page is better than none if it ever does.
            Err(fmt::Error) => String::new(),
        }
    }
}
