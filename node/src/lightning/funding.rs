//! Funding transactions between being built and being sent.
//!
//! LDK learns only the outpoint at first. The signature is asked for when the peer's signature on our first commitment
//! is safe with us, so that no signed funding transaction exists before the money has a way back.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, PoisonError},
};

use bitcoin::{OutPoint, Psbt};

use super::BufferedKv;
use crate::store::KvKey;
use lightning::util::persist::KVStoreSync;

const NAMESPACE: &str = "funding";

/// The unsigned funding transactions, by the channel's user id. Kept in the key-value space.
pub struct Fundings {
    kv: Arc<BufferedKv>,
    pending: Mutex<HashMap<u128, Psbt>>,
    /// What operators want to pay, in satoshi per 1000 weight units, for channels whose transaction is not built yet.
    /// Such a channel does not outlive its leader, and neither does this.
    feerates: Mutex<HashMap<u128, u32>>,
}

#[derive(Debug, thiserror::Error)]
#[error("the record of a pending funding transaction `{0}` does not parse")]
pub struct FundingError(String);

impl Fundings {
    pub fn load(loaded: &HashMap<KvKey, Vec<u8>>, kv: Arc<BufferedKv>) -> Result<Self, FundingError> {
        let parse = |(key, bytes): (&KvKey, &Vec<u8>)| {
            let entry = u128::from_str_radix(&key.key, 16).ok().zip(Psbt::deserialize(bytes).ok());
            entry.ok_or_else(|| FundingError(key.key.clone()))
        };
        let pending = loaded.iter().filter(|(key, _)| key.primary == NAMESPACE).map(parse).collect::<Result<_, _>>()?;
        Ok(Self { kv, pending: Mutex::new(pending), feerates: Mutex::default() })
    }

    /// Notes the fee rate that a channel's funding transaction is to have.
    pub fn set_feerate(&self, user_channel_id: u128, sat_per_kw: u32) {
        self.feerates().insert(user_channel_id, sat_per_kw);
    }

    pub fn feerate(&self, user_channel_id: u128) -> Option<u32> {
        self.feerates().get(&user_channel_id).copied()
    }

    pub fn insert(&self, user_channel_id: u128, psbt: Psbt) {
        if let Err(error) = self.kv.write(NAMESPACE, "", &key(user_channel_id), psbt.serialize()) {
            tracing::error!(%error, "the commit buffer refused a funding transaction");
        }
        self.feerates().remove(&user_channel_id);
        self.lock().insert(user_channel_id, psbt);
    }

    pub fn remove(&self, user_channel_id: u128) -> Option<Psbt> {
        self.feerates().remove(&user_channel_id);
        let psbt = self.lock().remove(&user_channel_id)?;
        if let Err(error) = self.kv.remove(NAMESPACE, "", &key(user_channel_id), false) {
            tracing::error!(%error, "the commit buffer refused to forget a funding transaction");
        }
        Some(psbt)
    }

    /// The channel that an outpoint was to fund.
    pub fn channel_of(&self, funding: OutPoint) -> Option<u128> {
        let pending = self.lock();
        pending.iter().find(|(_, psbt)| psbt.unsigned_tx.compute_txid() == funding.txid).map(|(id, _)| *id)
    }

    /// The coins that funding transactions on their way will spend.
    pub fn coins(&self) -> HashSet<OutPoint> {
        let pending = self.lock();
        pending.values().flat_map(|psbt| &psbt.unsigned_tx.input).map(|input| input.previous_output).collect()
    }

    pub fn channels(&self) -> Vec<u128> {
        self.lock().keys().copied().collect()
    }

    fn feerates(&self) -> std::sync::MutexGuard<'_, HashMap<u128, u32>> {
        // Each change is a single insert or remove.
        self.feerates.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<u128, Psbt>> {
        // Each change is a single insert or remove.
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn key(user_channel_id: u128) -> String {
    format!("{user_channel_id:032x}")
}
