//! How long commits take, as the one who waits for them sees it.

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::Instant,
};

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric},
    metrics::{MetricType, gauge::ConstGauge, histogram::Histogram},
    registry::Registry,
};

use super::{Batch, CommitError, Store};

/// A store whose commits are timed.
pub struct Measured<S> {
    store: S,
    times: CommitTimes,
}

/// Cheap to clone; clones share their values.
#[derive(Clone, Debug)]
pub struct CommitTimes {
    seconds: Histogram,
    since: Arc<Mutex<Option<Instant>>>,
}

impl<S> Measured<S> {
    pub fn new(store: S, times: CommitTimes) -> Self {
        Self { store, times }
    }
}

#[async_trait::async_trait]
impl<S: std::ops::Deref<Target: Store> + Send + Sync> Store for Measured<S> {
    async fn commit(&self, batch: &Batch) -> Result<(), CommitError> {
        let began = Instant::now();
        self.times.set(Some(began));
        let result = self.store.commit(batch).await;
        self.times.set(None);
        if result.is_ok() {
            self.times.seconds.observe(began.elapsed().as_secs_f64());
        }
        result
    }
}

impl CommitTimes {
    pub fn register(&self, registry: &mut Registry) {
        let help = "Time until a batch was durable, its repeats included";
        registry.register("commit_seconds", help, self.seconds.clone());
        registry.register_collector(Box::new(self.clone()));
    }

    fn set(&self, since: Option<Instant>) {
        *self.since.lock().unwrap_or_else(PoisonError::into_inner) = since;
    }
}

impl Default for CommitTimes {
    fn default() -> Self {
        Self { seconds: Histogram::new(BUCKETS), since: Arc::default() }
    }
}

/// A histogram knows of a commit only when it is done, and one that is never done is what an operator must hear of.
impl Collector for CommitTimes {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let since = *self.since.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = since.map_or(0.0, |since| since.elapsed().as_secs_f64());
        let (name, help) = ("commit_waiting_seconds", "How long the commit under way has taken so far; 0 without one");
        let metric = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
        ConstGauge::new(waited).encode(metric)
    }
}

/// From a commit to a local disk to an outage of the database.
const BUCKETS: [f64; 16] =
    [0.0005, 0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.015, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0, 30.0, 300.0];
