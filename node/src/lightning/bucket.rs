//! A token bucket, over a time that the caller names.

use std::time::{Duration, Instant};

/// So many at once, and as many again spread evenly over each `within`.
#[derive(Clone, Copy, Debug)]
pub struct Rate {
    pub at_once: u32,
    pub within: Duration,
}

/// What is left of a rate.
#[derive(Debug)]
pub struct Bucket {
    tokens: f64,
    at: Instant,
}

impl Bucket {
    pub fn full(rate: Rate, now: Instant) -> Self {
        Self { tokens: rate.at_once.into(), at: now }
    }

    pub fn is_full(&mut self, rate: Rate, now: Instant) -> bool {
        self.fill(rate, now);
        self.tokens >= rate.at_once.into()
    }

    pub fn has(&mut self, rate: Rate, now: Instant) -> bool {
        self.fill(rate, now);
        self.tokens >= 1.0
    }

    /// Takes one, if there is one.
    pub fn take(&mut self, rate: Rate, now: Instant) -> bool {
        let is_there = self.has(rate, now);
        if is_there {
            self.tokens -= 1.0;
        }
        is_there
    }

    fn fill(&mut self, Rate { at_once, within }: Rate, now: Instant) {
        let passed = now.saturating_duration_since(self.at).as_secs_f64() / within.as_secs_f64();
        self.tokens = (self.tokens + f64::from(at_once) * passed).min(at_once.into());
        self.at = self.at.max(now);
    }
}
