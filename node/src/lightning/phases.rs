//! What a takeover spends its time on.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

/// How long each step of a takeover took.
#[derive(Debug)]
pub struct Phases {
    taken: BTreeMap<String, Duration>,
    since: Instant,
}

impl Default for Phases {
    fn default() -> Self {
        Self { taken: BTreeMap::new(), since: Instant::now() }
    }
}

impl Phases {
    /// Ends the phase that began with the last call.
    pub fn end(&mut self, name: &str) {
        let took = self.since.elapsed();
        tracing::info!(phase = name, took_us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX), "takeover");
        self.taken.insert(name.to_owned(), took);
        self.since = Instant::now();
    }

    pub fn taken(&self) -> &BTreeMap<String, Duration> {
        &self.taken
    }
}
