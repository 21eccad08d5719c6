//! Payments that LDK tells of more than once.
//!
//! A manager that is loaded tells again of every payment whose preimage a monitor still holds, however old, whether the event
//! was handled before or not. What is written of a payment is the same the second time; what is counted and logged must know.

use std::{
    collections::HashSet,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use bitcoin::hashes::{Hash, HashEngine, sha256};
use lightning::{
    events::ClaimedHTLC, ln::channelmanager::PaymentId, sign::ecdsa::EcdsaChannelSigner, types::payment::PaymentHash,
};

use super::{load::ReadMonitor, records};
use crate::store::{
    batch::PaymentPart,
    postgres::{PgReader, ReadError},
};

/// The payments that may be told of again, and those of them that rows tell of already. As many as monitors hold preimages
/// of when they are loaded, and no more.
pub struct Received {
    repeatable: HashSet<[u8; 32]>,
    told: Mutex<HashSet<[u8; 32]>>,
}

impl Received {
    /// Asks the store which of the payments that `monitors` may have told again it has. Waits for it.
    pub async fn load<S: EcdsaChannelSigner>(
        monitors: &[ReadMonitor<S>],
        reader: &PgReader,
    ) -> Result<Self, ReadError> {
        const AGAIN: Duration = Duration::from_millis(200);
        let repeatable: HashSet<_> =
            monitors.iter().flat_map(|read| read.monitor.claimed_payments()).map(|hash| hash.0).collect();
        if repeatable.is_empty() {
            return Ok(Self::new(repeatable, []));
        }
        let hashes: Vec<_> = repeatable.iter().copied().collect();
        loop {
            match reader.received_parts(&hashes).await {
                Ok(told) => return Ok(Self::new(repeatable, told)),
                Err(error @ ReadError::Broken(_)) => return Err(error),
                Err(error) => tracing::warn!(%error, "the takeover waits for the database"),
            }
            tokio::time::sleep(AGAIN).await;
        }
    }

    /// `told` are parts that have rows.
    pub fn new(repeatable: HashSet<[u8; 32]>, told: impl IntoIterator<Item = [u8; 32]>) -> Self {
        Self { repeatable, told: Mutex::new(told.into_iter().collect()) }
    }

    /// Whether it is news that a payment was received. A second payment of its hash is one of its own.
    pub fn is_new(&self, hash: PaymentHash, parts: &[PaymentPart]) -> bool {
        match parts.first() {
            // Each insertion is a single step.
            Some(part) if self.repeatable.contains(&hash.0) => {
                self.told.lock().unwrap_or_else(PoisonError::into_inner).insert(part.part_id)
            }
            _ => true,
        }
    }
}

/// What a received payment was made of. Told of again, its parts have the same names. `payment_id` tells payments of one hash
/// apart; LDK has none for what was claimed before its version 0.1.
pub fn parts(hash: PaymentHash, payment_id: Option<PaymentId>, htlcs: &[ClaimedHTLC]) -> Vec<PaymentPart> {
    let mut htlcs: Vec<_> = htlcs.iter().collect();
    htlcs.sort_by_key(|htlc| (htlc.channel_id.0, htlc.value_msat, htlc.cltv_expiry));
    let payment = payment_id.map_or(hash.0, |id| id.0);
    let name = |number: usize, htlc: &ClaimedHTLC| {
        let mut engine = sha256::Hash::engine();
        engine.input(b"a part of a received payment");
        engine.input(&payment);
        engine.input(&(number as u64).to_be_bytes());
        engine.input(&htlc.channel_id.0);
        engine.input(&htlc.value_msat.to_be_bytes());
        engine.input(&htlc.cltv_expiry.to_be_bytes());
        sha256::Hash::from_engine(engine).to_byte_array()
    };
    htlcs.iter().enumerate().map(|(number, htlc)| records::inbound_part(name(number, htlc), hash.0, htlc)).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use lightning::ln::types::ChannelId;

    use super::*;

    fn htlc(channel: u8, value_msat: u64, cltv_expiry: u32) -> ClaimedHTLC {
        ClaimedHTLC {
            counterparty_node_id: None,
            channel_id: ChannelId([channel; 32]),
            user_channel_id: 0,
            cltv_expiry,
            value_msat,
            counterparty_skimmed_fee_msat: 0,
        }
    }

    const HASH: PaymentHash = PaymentHash([9; 32]);

    fn names(payment: u8, htlcs: &[ClaimedHTLC]) -> BTreeSet<[u8; 32]> {
        parts(HASH, Some(PaymentId([payment; 32])), htlcs).into_iter().map(|part| part.part_id).collect()
    }

    #[test]
    fn parts_keep_their_names_in_any_order_and_equal_ones_are_told_apart() {
        let (a, b) = (|| htlc(1, 5, 700), || htlc(2, 5, 700));
        let first = names(1, &[a(), b(), a()]);
        assert_eq!(first.len(), 3);
        assert_eq!(first, names(1, &[a(), a(), b()]));
        // Paid again, by HTLCs that look the same: other parts.
        assert!(first.is_disjoint(&names(2, &[a(), b(), a()])));
    }

    #[test]
    fn a_payment_is_news_once_however_often_it_is_told_of_and_whoever_led_before() {
        let of = |payment| parts(HASH, Some(PaymentId([payment; 32])), &[htlc(1, 5, 700)]);
        let received = Received::new(HashSet::from([HASH.0]), [of(1)[0].part_id]);
        for _ in 0..3 {
            assert!(!received.is_new(HASH, &of(1)), "a leader before has told of it");
        }
        assert!(received.is_new(HASH, &of(2)), "the same hash, and another payment");
        assert!(!received.is_new(HASH, &of(2)), "as it may be in LDK's list of events and in a monitor at once");
        assert!(received.is_new(PaymentHash([8; 32]), &of(1)), "no monitor has it, so it is not told of again");
    }
}
