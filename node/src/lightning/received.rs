//! Payments that LDK tells of more than once.
//!
//! After a load it tells again of every claim whose preimage a monitor still holds, whether the event was handled before or
//! not. What is written of a payment is the same the second time; what is counted and logged must know.

use std::{
    collections::HashSet,
    sync::{Mutex, PoisonError},
};

use bitcoin::hashes::{Hash, HashEngine, sha256};
use lightning::events::ClaimedHTLC;

use super::records;
use crate::store::batch::PaymentPart;

/// The payments that were received before this leader.
pub struct Received(Mutex<HashSet<[u8; 32]>>);

impl Received {
    pub fn before(hashes: HashSet<[u8; 32]>) -> Self {
        Self(Mutex::new(hashes))
    }

    /// Whether this is news. One from before is told of once more; a second payment of its hash is one of its own.
    pub fn is_new(&self, hash: [u8; 32]) -> bool {
        !self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&hash)
    }
}

/// What a received payment was made of. Told of again, its parts have the same names.
pub fn parts(hash: [u8; 32], htlcs: &[ClaimedHTLC]) -> Vec<PaymentPart> {
    let mut htlcs: Vec<_> = htlcs.iter().collect();
    htlcs.sort_by_key(|htlc| (htlc.channel_id.0, htlc.value_msat, htlc.cltv_expiry));
    let name = |number: usize, htlc: &ClaimedHTLC| {
        let mut engine = sha256::Hash::engine();
        engine.input(b"a part of a received payment");
        engine.input(&hash);
        engine.input(&(number as u64).to_be_bytes());
        engine.input(&htlc.channel_id.0);
        engine.input(&htlc.value_msat.to_be_bytes());
        engine.input(&htlc.cltv_expiry.to_be_bytes());
        sha256::Hash::from_engine(engine).to_byte_array()
    };
    htlcs.iter().enumerate().map(|(number, htlc)| records::inbound_part(name(number, htlc), hash, htlc)).collect()
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

    fn names(hash: [u8; 32], htlcs: &[ClaimedHTLC]) -> BTreeSet<[u8; 32]> {
        parts(hash, htlcs).into_iter().map(|part| part.part_id).collect()
    }

    #[test]
    fn parts_keep_their_names_in_any_order_and_equal_ones_are_told_apart() {
        let (a, b) = (|| htlc(1, 5, 700), || htlc(2, 5, 700));
        let first = names([9; 32], &[a(), b(), a()]);
        assert_eq!(first.len(), 3);
        assert_eq!(first, names([9; 32], &[a(), a(), b()]));
        assert!(first.is_disjoint(&names([8; 32], &[a(), b(), a()])));
        // Paid again, at another height: other parts.
        assert!(first.is_disjoint(&names([9; 32], &[htlc(1, 5, 701), htlc(2, 5, 701)])));
    }

    #[test]
    fn a_payment_from_before_is_news_only_the_second_time() {
        let received = Received::before(HashSet::from([[1; 32]]));
        assert!(received.is_new([2; 32]));
        assert!(!received.is_new([1; 32]));
        assert!(received.is_new([1; 32]));
    }
}
