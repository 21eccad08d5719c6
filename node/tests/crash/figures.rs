//! What a run is made of, and what came of it.

use crate::ours::Order;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    pub runs: u64,
    pub crashes: u64,
    pub commits: u64,
    pub payments: u64,
    pub settled: u64,
    pub failed: u64,
    pub lost_before_commit: u64,
    pub channels: u64,
    pub cooperative: u64,
    pub cooperative_seen_on_chain: u64,
    pub forced: u64,
    /// Closes by force that a crash lost.
    pub orders_repeated: u64,
    pub reorganisations: u64,
    pub blocks_undone: u64,
    /// Calls that the signer answered.
    pub signer_calls: u64,
    /// Rows, and how often our node was told of what has one; what a crash took back was told of again.
    pub forwards: u64,
    pub forwards_told: u64,
    pub received_told: u64,
    pub paths_told: u64,
}

impl Figures {
    pub fn add(&mut self, other: &Self) {
        self.runs += other.runs;
        self.crashes += other.crashes;
        self.commits += other.commits;
        self.payments += other.payments;
        self.settled += other.settled;
        self.failed += other.failed;
        self.lost_before_commit += other.lost_before_commit;
        self.channels += other.channels;
        self.cooperative += other.cooperative;
        self.cooperative_seen_on_chain += other.cooperative_seen_on_chain;
        self.forced += other.forced;
        self.orders_repeated += other.orders_repeated;
        self.reorganisations += other.reorganisations;
        self.blocks_undone += other.blocks_undone;
        self.signer_calls += other.signer_calls;
        self.forwards += other.forwards;
        self.forwards_told += other.forwards_told;
        self.received_told += other.received_told;
        self.paths_told += other.paths_told;
    }
}

/// What a run is made of.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    pub seed: u64,
    pub order: Order,
    pub steps: u32,
    /// One step in so many is a crash, roughly.
    pub crash_every: u64,
    /// Whether our node's keys are in the signer, behind its rules; else they are LDK's own.
    pub signer: bool,
    /// Whether channels are closed by force as well.
    pub force_closes: bool,
    /// How often a channel is opened, and how often one is closed, in a thousand steps.
    pub opens_and_closes: u64,
}
