//! The replica's metrics, as Prometheus reads them from `/metrics`.
//!
//! The API's own, always there:
//!
//! | name | what |
//! |---|---|
//! | `holdfast_api_requests_total{method, outcome}` | operators' calls; outcome is ok, refused, stale-term, unavailable, misuse or internal |
//! | `holdfast_api_request_seconds{method}` | how long they took (histogram) |
//! | `holdfast_leading` | 1 on the leader, 0 on a standby |
//! | `holdfast_ready` | 1 when `/readyz` answers 200 |
//! | `holdfast_term` | newest term known to this replica |
//! | `holdfast_block_height` | height of the leader's chain tip |
//! | `holdfast_peers`, `holdfast_channels`, `holdfast_usable_channels` | how many the leader has |
//!
//! Other parts add theirs with [`Metrics::register`] and describe them where they do.

use std::{
    fmt,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use holdfast_proto::{error::Error, node::v1::GetInfoResponse};
use prometheus_client::{
    encoding::{EncodeLabelSet, text},
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::Registry,
};

/// All metrics of one process.
#[derive(Debug)]
pub struct Metrics {
    registry: Mutex<Registry>,
    requests: Family<Request, Counter>,
    request_seconds: Family<Method, Histogram>,
    leading: Gauge,
    ready: Gauge,
    term: Gauge,
    block_height: Gauge,
    peers: Gauge,
    channels: Gauge,
    usable_channels: Gauge,
}

impl Metrics {
    pub fn new() -> Self {
        let request_seconds: fn() -> Histogram = || Histogram::new(BUCKETS);
        let metrics = Self {
            registry: Mutex::new(Registry::with_prefix("holdfast")),
            requests: Family::default(),
            request_seconds: Family::new_with_constructor(request_seconds),
            leading: Gauge::default(),
            ready: Gauge::default(),
            term: Gauge::default(),
            block_height: Gauge::default(),
            peers: Gauge::default(),
            channels: Gauge::default(),
            usable_channels: Gauge::default(),
        };
        metrics.register(|registry| {
            registry.register("api_requests", "Operators' calls by outcome", metrics.requests.clone());
            registry.register("api_request_seconds", "Time to answer operators", metrics.request_seconds.clone());
            registry.register("leading", "1 on the leader, 0 on a standby", metrics.leading.clone());
            registry.register("ready", "1 when this replica is ready to lead", metrics.ready.clone());
            registry.register("term", "Newest term known to this replica", metrics.term.clone());
            registry.register("block_height", "Height of the leader's chain tip", metrics.block_height.clone());
            registry.register("peers", "Peers of the leader", metrics.peers.clone());
            registry.register("channels", "Channels of the leader", metrics.channels.clone());
            registry.register("usable_channels", "Channels that can pay now", metrics.usable_channels.clone());
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

    /// What is read off the replica at each scrape. Without `info`, the node's last figures stay.
    pub(super) fn observe(&self, leading: bool, ready: bool, info: Option<&GetInfoResponse>) {
        self.leading.set(leading.into());
        self.ready.set(ready.into());
        if let Some(info) = info {
            self.term.set(i64::try_from(info.term).unwrap_or(i64::MAX));
            self.block_height.set(info.block_height.into());
            self.peers.set(info.peers.into());
            self.channels.set(info.channels.into());
            self.usable_channels.set(info.usable_channels.into());
        }
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
