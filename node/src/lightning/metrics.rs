//! What became of payments, counted since the leader's start, and the HTLCs in flight; docs/metrics.md describes each.

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family},
    registry::Registry,
};

use super::node::LightningNode;
use crate::api::Htlcs;

impl LightningNode {
    /// HTLCs in flight. Waits for channels that are busy.
    pub fn htlcs(&self) -> Htlcs {
        let height = i64::from(self.manager.current_best_block().height);
        let mut all = Htlcs::default();
        let mut first: Option<u32> = None;
        for channel in self.manager.list_channels() {
            for htlc in &channel.pending_inbound_htlcs {
                all.inbound += 1;
                all.inbound_msat += htlc.amount_msat;
                first = first.into_iter().chain([htlc.cltv_expiry]).min();
            }
            for htlc in &channel.pending_outbound_htlcs {
                all.outbound += 1;
                all.outbound_msat += htlc.amount_msat;
                first = first.into_iter().chain([htlc.cltv_expiry]).min();
            }
        }
        Htlcs { nearest_deadline_blocks: first.map(|expiry| i64::from(expiry) - height), ..all }
    }
}

/// Cheap to clone; clones share their values.
#[derive(Clone, Debug, Default)]
pub struct PaymentMetrics {
    payments: Family<Ended, Counter>,
    moved_msat: Family<Way, Counter>,
    forwards: Counter,
    forward_fees_msat: Counter,
    channels_closed: Counter,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Ended {
    direction: &'static str,
    outcome: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Way {
    direction: &'static str,
}

impl PaymentMetrics {
    pub fn register(&self, registry: &mut Registry) {
        registry.register("payments", "Own payments that came to their end", self.payments.clone());
        registry.register("payments_msat", "What successful payments moved, in msat", self.moved_msat.clone());
        registry.register(
            "forwards",
            "HTLCs forwarded and settled while the incoming channel was open",
            self.forwards.clone(),
        );
        registry.register("forwards_fee_msat", "Fees earned by forwarding, in msat", self.forward_fees_msat.clone());
        registry.register("channels_closed", "Channels that ended", self.channels_closed.clone());
    }

    pub fn received(&self, amount_msat: u64) {
        self.succeeded("inbound", amount_msat);
    }

    pub fn sent(&self, amount_msat: Option<u64>) {
        self.succeeded("outbound", amount_msat.unwrap_or(0));
    }

    pub fn failed(&self) {
        self.payments.get_or_create(&Ended { direction: "outbound", outcome: "failed" }).inc();
    }

    pub fn forwarded(&self, fee_msat: u64) {
        self.forwards.inc();
        self.forward_fees_msat.inc_by(fee_msat);
    }

    pub fn channel_closed(&self) {
        self.channels_closed.inc();
    }

    fn succeeded(&self, direction: &'static str, amount_msat: u64) {
        self.payments.get_or_create(&Ended { direction, outcome: "succeeded" }).inc();
        self.moved_msat.get_or_create(&Way { direction }).inc_by(amount_msat);
    }
}
