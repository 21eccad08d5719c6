//! The network graph and the scorer in the key-value space: caches, whose loss costs a resync and nothing else.

use std::{
    collections::{HashMap, hash_map::DefaultHasher},
    hash::Hasher,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use bitcoin::Network;
use lightning::{
    routing::scoring::ProbabilisticScoringDecayParameters,
    util::{
        persist::KVStoreSync,
        ser::{ReadableArgs, Writeable},
    },
};

use super::{
    BufferedKv,
    types::{Graph, Logger, Scorer},
};
use crate::store::KvKey;

const NAMESPACE: &str = "gossip";
const GRAPH: &str = "graph";
const SCORER: &str = "scorer";

pub fn load_graph(records: &HashMap<KvKey, Vec<u8>>, network: Network, logger: Logger) -> Graph {
    if let Some(bytes) = records.get(&key(GRAPH)) {
        match Graph::read(&mut bytes.as_slice(), logger.clone()) {
            Ok(graph) => return graph,
            Err(error) => tracing::warn!(?error, "the stored network graph does not parse; starting with an empty one"),
        }
    }
    Graph::new(network, logger)
}

pub fn load_scorer(records: &HashMap<KvKey, Vec<u8>>, graph: Arc<Graph>, logger: Logger) -> Scorer {
    let decay = ProbabilisticScoringDecayParameters::default();
    if let Some(bytes) = records.get(&key(SCORER)) {
        match Scorer::read(&mut bytes.as_slice(), (decay, graph.clone(), logger.clone())) {
            Ok(scorer) => return scorer,
            Err(error) => tracing::warn!(?error, "the stored scores do not parse; starting without"),
        }
    }
    Scorer::new(decay, graph, logger)
}

/// Writes graph and scorer when they have changed, the more seldom the larger they are.
pub struct Saver {
    kv: Arc<BufferedKv>,
    graph: Saved,
    scorer: Saved,
}

struct Saved {
    key: &'static str,
    last: u64,
    next: Instant,
}

/// A graph of a test network is saved every few seconds, the main network's of about 60 MB every hour.
const LEAST: Duration = Duration::from_secs(5);
const PER_MEGABYTE: Duration = Duration::from_secs(60);

impl Saver {
    pub fn new(kv: Arc<BufferedKv>) -> Self {
        let saved = |key| Saved { key, last: 0, next: Instant::now() + LEAST };
        Self { kv, graph: saved(GRAPH), scorer: saved(SCORER) }
    }

    pub fn save(&mut self, graph: &Graph, scorer: &Mutex<Scorer>) {
        self.graph.save(&self.kv, || graph.encode());
        self.scorer.save(&self.kv, || scorer.lock().unwrap_or_else(PoisonError::into_inner).encode());
    }
}

impl Saved {
    fn save(&mut self, kv: &BufferedKv, encode: impl FnOnce() -> Vec<u8>) {
        if Instant::now() < self.next {
            return;
        }
        let bytes = encode();
        self.next = Instant::now() + pause_for(bytes.len());
        let mut hasher = DefaultHasher::new();
        hasher.write(&bytes);
        if hasher.finish() != self.last {
            self.last = hasher.finish();
            if let Err(error) = kv.write(NAMESPACE, "", self.key, bytes) {
                tracing::error!(%error, "the commit buffer refused gossip");
            }
        }
    }
}

fn pause_for(bytes: usize) -> Duration {
    LEAST + PER_MEGABYTE.mul_f64(bytes as f64 / 1e6)
}

fn key(key: &str) -> KvKey {
    KvKey { primary: NAMESPACE.into(), secondary: String::new(), key: key.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_main_networks_graph_is_saved_about_once_an_hour() {
        assert!(pause_for(60_000_000) > Duration::from_secs(3000));
        assert!(pause_for(5_000) < Duration::from_secs(6));
    }
}
