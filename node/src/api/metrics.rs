//! The replica's metrics, as Prometheus reads them from `/metrics`; docs/metrics.md describes each.
//!
//! Here are the API's own counts and what a [`Snapshot`] shows. Other parts add theirs with [`Metrics::register`].

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use holdfast_proto::error::Error;
use prometheus_client::{
    encoding::{EncodeLabelSet, text},
    metrics::{counter::Counter, family::Family, histogram::Histogram},
    registry::Registry,
};

use super::{figures::Figures, snapshot::Snapshot};

/// All metrics of one process.
#[derive(Debug)]
pub struct Metrics {
    registry: Mutex<Registry>,
    requests: Family<Request, Counter>,
    request_seconds: Family<Method, Histogram>,
    figures: Figures,
}

impl Metrics {
    pub fn new() -> Self {
        let request_seconds: fn() -> Histogram = || Histogram::new(BUCKETS);
        let metrics = Self {
            registry: Mutex::new(Registry::with_prefix("holdfast")),
            requests: Family::default(),
            request_seconds: Family::new_with_constructor(request_seconds),
            figures: Figures::default(),
        };
        metrics.register(|registry| {
            registry.register("api_requests", "Operators' calls by outcome", metrics.requests.clone());
            registry.register("api_request_seconds", "Time to answer operators", metrics.request_seconds.clone());
            registry.register_collector(Box::new(metrics.figures.clone()));
        });
        metrics
    }

    /// Adds a part's own metrics. Names get the prefix `holdfast_`.
    pub fn register(&self, add: impl FnOnce(&mut Registry)) {
        add(&mut self.registry.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// The text that Prometheus reads.
    pub fn render(&self) -> Result<String, fmt::Error> {
        let mut out = String::new();
        text::encode(&mut out, &self.registry.lock().unwrap_or_else(PoisonError::into_inner))?;
        Ok(out)
    }

    pub(super) fn answered<T>(&self, method: &'static str, result: &Result<T, Error>, took: Duration) {
        let outcome = match result {
            Ok(_) => "ok",
            Err(Error::Refused { .. }) => "refused",
            Err(Error::StaleTerm { .. }) => "stale-term",
            Err(Error::Unavailable { .. }) => "unavailable",
            Err(Error::Misuse { .. }) => "misuse",
            Err(Error::Internal(_)) => "internal",
        };
        self.requests.get_or_create(&Request { method, outcome }).inc();
        self.request_seconds.get_or_create(&Method { method }).observe(took.as_secs_f64());
    }

    /// What the next [`Metrics::render`] shows of the replica.
    pub(super) fn show(&self, snapshot: Arc<Snapshot>) {
        self.figures.show(snapshot);
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Request {
    method: &'static str,
    outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Method {
    method: &'static str,
}

/// From a read of memory to a payment that is waited for.
const BUCKETS: [f64; 12] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0, 30.0, 60.0];
