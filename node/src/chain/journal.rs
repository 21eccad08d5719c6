//! The wallet's change sets in the key-value space: one base, and the changes since. A commit writes only what changed.

use std::collections::{BTreeMap, HashMap};

use bdk_wallet::{
    ChangeSet,
    chain::{BlockId, Merge},
};
use lightning::util::persist::KVStoreSync;

use crate::store::KvKey;

pub const NAMESPACE: &str = "wallet";
const BASE: &str = "base";
const CHANGE: &str = "change-";

/// After so many changes they are folded into the base.
const FOLD_AFTER: usize = 64;

/// How many blocks of the wallet's own chain a fold keeps: deeper ones matter only where a transaction confirmed.
const BLOCKS_KEPT: usize = 2016;

/// Where the kv writes of one commit are gathered. Pushing never fails and never blocks.
pub type Kv = dyn KVStoreSync + Send + Sync;

/// What has been written, and so what a fold replaces.
#[derive(Default)]
pub struct Journal {
    whole: ChangeSet,
    next: u64,
    changes: Vec<String>,
}

#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    #[error("the wallet's record `{key}` does not parse: {error}")]
    Parse { key: String, error: serde_json::Error },
    #[error("the wallet has changes but no base")]
    NoBase,
}

impl Journal {
    /// Reads what earlier leaders wrote; `None` for a new node.
    pub fn load(kv: &HashMap<KvKey, Vec<u8>>) -> Result<Option<(Self, ChangeSet)>, JournalError> {
        let records: BTreeMap<&str, &[u8]> = kv
            .iter()
            .filter(|(key, _)| key.primary == NAMESPACE)
            .map(|(key, value)| (key.key.as_str(), value.as_slice()))
            .collect();
        if records.is_empty() {
            return Ok(None);
        }
        let parse = |key: &str, bytes: &[u8]| {
            serde_json::from_slice::<ChangeSet>(bytes)
                .map_err(|error| JournalError::Parse { key: key.to_owned(), error })
        };
        let mut whole = parse(BASE, records.get(BASE).ok_or(JournalError::NoBase)?)?;
        let mut journal = Self::default();
        // In order of their numbers: those are hexadecimal of fixed width.
        for (key, bytes) in records {
            if let Some(number) = key.strip_prefix(CHANGE) {
                whole.merge(parse(key, bytes)?);
                journal.changes.push(key.to_owned());
                journal.next = u64::from_str_radix(number, 16).map_or(journal.next, |n| n + 1);
            }
        }
        journal.whole = whole.clone();
        Ok(Some((journal, whole)))
    }

    /// Pushes one change; from time to time the base instead.
    pub fn record(&mut self, kv: &Kv, change: ChangeSet) {
        self.whole.merge(change.clone());
        let first = self.next == 0 && self.changes.is_empty();
        if first || self.changes.len() >= FOLD_AFTER {
            prune(&mut self.whole);
            put(kv, BASE, &self.whole);
            for key in self.changes.drain(..) {
                infallible(kv.remove(NAMESPACE, "", &key, false));
            }
            self.next += 1;
            return;
        }
        let key = format!("{CHANGE}{:016x}", self.next);
        put(kv, &key, &change);
        self.next += 1;
        self.changes.push(key);
    }
}

fn put(kv: &Kv, key: &str, value: &ChangeSet) {
    // A change set is plain data with string keys: it always encodes.
    let bytes = serde_json::to_vec(value).expect("change sets encode");
    infallible(kv.write(NAMESPACE, "", key, bytes));
}

fn infallible(result: Result<(), lightning::io::Error>) {
    if let Err(error) = result {
        tracing::error!(%error, "the commit buffer refused a wallet record");
    }
}

/// Forgets blocks that no transaction needs: the chain's start, where transactions confirmed, and the recent ones stay.
fn prune(whole: &mut ChangeSet) {
    let blocks = &mut whole.local_chain.blocks;
    let Some((&kept_from, _)) = blocks.iter().rev().nth(BLOCKS_KEPT) else { return };
    let anchors: Vec<BlockId> = whole.tx_graph.anchors.iter().map(|(anchor, _)| anchor.block_id).collect();
    blocks.retain(|height, _| *height == 0 || *height >= kept_from || anchors.iter().any(|a| a.height == *height));
}

#[cfg(test)]
mod tests {
    use bitcoin::{BlockHash, hashes::Hash};

    use super::*;
    use crate::chain::wallet::tests::Memory;

    fn block(height: u32) -> ChangeSet {
        let mut change = ChangeSet::default();
        change.local_chain.blocks.insert(height, Some(BlockHash::from_byte_array([height as u8; 32])));
        change
    }

    #[test]
    fn what_was_recorded_is_loaded_however_often_it_was_folded() {
        let kv = Memory::default();
        let mut journal = Journal::default();
        for height in 0..300 {
            journal.record(&kv, block(height));
            let (reloaded, whole) = Journal::load(&kv.0.lock().unwrap()).unwrap().unwrap();
            assert_eq!(whole, journal.whole);
            if height % 7 == 0 {
                journal = reloaded;
            }
        }
        assert!(kv.0.lock().unwrap().len() <= FOLD_AFTER + 1);
    }

    #[test]
    fn a_lost_base_is_not_an_empty_wallet() {
        let kv = Memory::default();
        let mut journal = Journal::default();
        journal.record(&kv, block(0));
        journal.record(&kv, block(1));
        kv.remove(NAMESPACE, "", BASE, false).unwrap();
        assert!(matches!(Journal::load(&kv.0.lock().unwrap()), Err(JournalError::NoBase)));
    }

    #[test]
    fn pruning_keeps_the_first_the_recent_and_the_needed_blocks() {
        let mut whole = ChangeSet::default();
        for height in 0..3000 {
            whole.merge(block(height));
        }
        let id = BlockId { height: 5, hash: BlockHash::from_byte_array([5; 32]) };
        let anchor = bdk_wallet::chain::ConfirmationBlockTime { block_id: id, confirmation_time: 0 };
        whole.tx_graph.anchors.insert((anchor, bitcoin::Txid::from_byte_array([1; 32])));
        prune(&mut whole);
        let kept: Vec<u32> = whole.local_chain.blocks.keys().copied().collect();
        assert_eq!(kept[..3], [0, 5, 3000 - BLOCKS_KEPT as u32 - 1]);
        assert_eq!(kept.last(), Some(&2999));
    }
}
