//! What closed channels did on chain, until no reorganisation can matter any more.
//!
//! LDK takes six confirmations for good. If the chain gives way that deep, it neither hands the transactions to the
//! network again nor finds what they left to us once they are back: outputs that wait out a contest delay would never be
//! swept. So the node keeps every transaction that spent an output of a channel, sends those that were taken back until
//! they are in a block again, and then asks the monitors for what they hold.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bitcoin::{OutPoint, ScriptBuf, Transaction, Txid, block::Header, consensus};
use lightning::{
    chain::{BestBlock, Listen, transaction::TransactionData},
    ln::types::ChannelId,
    sign::SpendableOutputDescriptor,
    util::persist::KVStoreSync,
};

use super::{BufferedKv, types::ChainMonitor};
use crate::store::KvKey;

const NAMESPACE: &str = "settling";

/// Blocks on top after which a transaction is forgotten: a day of them; after a reorganisation also the longest contest
/// delay that the signer allows, since only then its last output is found.
const SETTLED_AFTER: u32 = 144;
const CONTEST_DELAY: u32 = 2016;

#[derive(Debug, thiserror::Error)]
#[error("the record of a transaction on chain `{0}` does not parse")]
pub struct SettlingError(String);

/// The transactions, kept in the key-value space as well.
pub struct Settling {
    kv: Arc<BufferedKv>,
    records: Mutex<BTreeMap<Txid, Record>>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Record {
    /// None while it is in no block.
    height: Option<u32>,
    /// Its place in its block: parents come before children.
    place: u32,
    /// Whether it was ever taken back.
    reorganised: bool,
    tx: Transaction,
}

impl Settling {
    pub fn load(loaded: &HashMap<KvKey, Vec<u8>>, kv: Arc<BufferedKv>) -> Result<Self, SettlingError> {
        let records = loaded.iter().filter(|(key, _)| key.primary == NAMESPACE).map(|(key, bytes)| {
            let record = Record::decode(bytes).ok_or_else(|| SettlingError(key.key.clone()))?;
            Ok((record.tx.compute_txid(), record))
        });
        Ok(Self { kv, records: Mutex::new(records.collect::<Result<_, _>>()?) })
    }

    /// Notes which transactions of a block spend one of `watched`.
    pub fn block_connected<'a>(
        &self,
        txdata: impl IntoIterator<Item = &'a Transaction>,
        height: u32,
        watched: &HashSet<OutPoint>,
    ) {
        let mut records = self.records();
        for (place, tx) in (0..).zip(txdata) {
            let spent: HashSet<OutPoint> = tx.input.iter().map(|input| input.previous_output).collect();
            // What can no longer come, because another transaction took its place.
            let txid = tx.compute_txid();
            let conflicts = |record: &Record| {
                record.height.is_none() && record.tx.input.iter().any(|input| spent.contains(&input.previous_output))
            };
            let gone: Vec<Txid> =
                records.iter().filter(|(id, record)| **id != txid && conflicts(record)).map(|(id, _)| *id).collect();
            for id in gone {
                records.remove(&id);
                self.forget(&id);
            }
            let known = records.get(&txid);
            if known.is_none() && watched.is_disjoint(&spent) {
                continue;
            }
            let reorganised = known.is_some_and(|record| record.reorganised);
            let record = Record { height: Some(height), place, reorganised, tx: tx.clone() };
            if known != Some(&record) {
                self.write(&txid, &record);
                records.insert(txid, record);
            }
        }
        records.retain(|txid, record| {
            let depth = SETTLED_AFTER + if record.reorganised { CONTEST_DELAY } else { 0 };
            let keep = record.height.is_none_or(|confirmed| height < confirmed.saturating_add(depth));
            if !keep {
                self.forget(txid);
            }
            keep
        });
    }

    /// Notes that nothing above `fork` is in the chain any more.
    pub fn blocks_disconnected(&self, fork: u32) {
        for (txid, record) in self.records().iter_mut().filter(|(_, record)| record.height.is_some_and(|h| h > fork)) {
            (record.height, record.reorganised) = (None, true);
            self.write(txid, record);
        }
    }

    /// What was taken back and is in no block yet, parents first.
    pub fn taken_back(&self) -> Vec<Transaction> {
        let records = self.records();
        let mut waiting: Vec<&Record> = records.values().filter(|record| record.height.is_none()).collect();
        waiting.sort_by_key(|record| record.place);
        // Places are those of different blocks: a parent is known by being spent.
        let mut ordered: Vec<Transaction> = Vec::with_capacity(waiting.len());
        let mut left: Vec<Transaction> = waiting.into_iter().map(|record| record.tx.clone()).collect();
        while !left.is_empty() {
            let ids: HashSet<Txid> = left.iter().map(Transaction::compute_txid).collect();
            let is_child = |tx: &Transaction| tx.input.iter().any(|input| ids.contains(&input.previous_output.txid));
            let (children, free): (Vec<_>, Vec<_>) = left.into_iter().partition(is_child);
            ordered.extend(free);
            left = children;
        }
        ordered
    }

    /// What was taken back once, is in a block again, and leaves us something that may be swept by now.
    pub fn found_again(&self, monitors: &ChainMonitor) -> Vec<(ChannelId, Vec<SpendableOutputDescriptor>)> {
        let back: Vec<(Transaction, u32)> = {
            let records = self.records();
            let back = records.values().filter(|record| record.reorganised);
            back.filter_map(|record| Some((record.tx.clone(), record.height?))).collect()
        };
        if back.is_empty() {
            return Vec::new();
        }
        let mut found = Vec::new();
        for id in monitors.list_monitors() {
            let Ok(monitor) = monitors.get_monitor(id) else { continue };
            let outputs: Vec<_> =
                back.iter().flat_map(|(tx, height)| monitor.get_spendable_outputs(tx, *height)).collect();
            if !outputs.is_empty() {
                found.push((id, outputs));
            }
        }
        found
    }

    fn write(&self, txid: &Txid, record: &Record) {
        if let Err(error) = self.kv.write(NAMESPACE, "", &txid.to_string(), record.encode()) {
            tracing::error!(%error, "the commit buffer refused a transaction of a closed channel");
        }
    }

    fn forget(&self, txid: &Txid) {
        if let Err(error) = self.kv.remove(NAMESPACE, "", &txid.to_string(), false) {
            tracing::error!(%error, "the commit buffer refused to forget a transaction of a closed channel");
        }
    }

    fn records(&self) -> MutexGuard<'_, BTreeMap<Txid, Record>> {
        // Each change is a single insert, remove or assignment.
        self.records.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The outputs whose spending the monitors look for: of fundings, commitments and HTLCs.
pub fn watched(monitors: &ChainMonitor) -> HashSet<OutPoint> {
    let of_monitor =
        |id| monitors.get_monitor(id).map(|monitor| outpoints(monitor.get_outputs_to_watch())).unwrap_or_default();
    monitors.list_monitors().into_iter().flat_map(of_monitor).collect()
}

/// As a monitor tells what it looks for.
pub fn outpoints(watched: Vec<(Txid, Vec<(u32, ScriptBuf)>)>) -> Vec<OutPoint> {
    let of_tx = |(txid, outputs): (Txid, Vec<(u32, ScriptBuf)>)| {
        outputs.into_iter().map(move |(vout, _)| OutPoint { txid, vout })
    };
    watched.into_iter().flat_map(of_tx).collect()
}

/// On the way to the tip, before anybody asks monitors anything: what spends `watched` counts, and what spends that.
pub struct SettlingListener {
    settling: Arc<Settling>,
    watched: Mutex<HashSet<OutPoint>>,
}

impl SettlingListener {
    pub fn new(settling: Arc<Settling>, watched: impl IntoIterator<Item = OutPoint>) -> Self {
        Self { settling, watched: Mutex::new(watched.into_iter().collect()) }
    }
}

impl Listen for SettlingListener {
    fn filtered_block_connected(&self, _: &Header, txdata: &TransactionData, height: u32) {
        let mut watched = self.watched.lock().unwrap_or_else(PoisonError::into_inner);
        for (_, tx) in txdata {
            if tx.input.iter().any(|input| watched.contains(&input.previous_output)) {
                let txid = tx.compute_txid();
                watched.extend((0..tx.output.len() as u32).map(|vout| OutPoint { txid, vout }));
            }
        }
        self.settling.block_connected(txdata.iter().map(|(_, tx)| *tx), height, &watched);
    }

    fn blocks_disconnected(&self, fork: BestBlock) {
        self.settling.blocks_disconnected(fork.height);
    }
}

impl Record {
    fn encode(&self) -> Vec<u8> {
        let height = self.height.unwrap_or(u32::MAX);
        [
            &[self.reorganised.into()][..],
            &height.to_be_bytes(),
            &self.place.to_be_bytes(),
            &consensus::serialize(&self.tx),
        ]
        .concat()
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let (reorganised, rest) = bytes.split_first()?;
        let (height, rest) = rest.split_first_chunk()?;
        let (place, tx) = rest.split_first_chunk()?;
        let height = u32::from_be_bytes(*height);
        Some(Self {
            height: (height != u32::MAX).then_some(height),
            place: u32::from_be_bytes(*place),
            reorganised: *reorganised == 1,
            tx: consensus::deserialize(tx).ok()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use bitcoin::{Amount, TxIn, TxOut, absolute::LockTime, hashes::Hash, transaction::Version};

    use super::*;

    fn spend(of: OutPoint, salt: u32) -> Transaction {
        Transaction {
            version: Version::TWO,
            lock_time: LockTime::from_consensus(salt),
            input: vec![TxIn { previous_output: of, ..Default::default() }],
            output: vec![TxOut { value: Amount::from_sat(1000), script_pubkey: ScriptBuf::new() }],
        }
    }

    fn output(of: &Transaction) -> OutPoint {
        OutPoint { txid: of.compute_txid(), vout: 0 }
    }

    fn reloaded(settling: &Settling) -> Settling {
        let records = settling.records().clone();
        let key = |txid: &Txid| KvKey { primary: NAMESPACE.into(), secondary: String::new(), key: txid.to_string() };
        let kv = records.iter().map(|(txid, record)| (key(txid), record.encode())).collect();
        let again = Settling::load(&kv, settling.kv.clone()).unwrap();
        assert_eq!(*again.records(), records);
        again
    }

    #[test]
    fn what_is_taken_back_is_sent_again_in_order_until_it_is_back_or_cannot_come() {
        let funding = OutPoint { txid: Txid::from_byte_array([7; 32]), vout: 1 };
        let commitment = spend(funding, 1);
        let htlc = spend(output(&commitment), 2);
        let stranger = spend(OutPoint { txid: Txid::from_byte_array([8; 32]), vout: 0 }, 3);
        let watched = HashSet::from([funding, output(&commitment)]);
        let kv = Arc::new(BufferedKv::new(Arc::default(), []));
        let settling = Settling::load(&HashMap::new(), kv).unwrap();
        settling.block_connected([&stranger, &commitment], 10, &watched);
        settling.block_connected([&htlc], 11, &watched);
        assert!(settling.taken_back().is_empty());

        settling.blocks_disconnected(10);
        assert_eq!(settling.taken_back(), std::slice::from_ref(&htlc));
        settling.blocks_disconnected(9);
        let settling = reloaded(&settling);
        assert_eq!(settling.taken_back(), [commitment.clone(), htlc.clone()]);
        settling.block_connected([&commitment], 10, &watched);
        let other = spend(output(&commitment), 4);
        settling.block_connected([&other], 11, &watched);
        assert!(settling.taken_back().is_empty(), "the HTLC was taken by another transaction");
        let settling = reloaded(&settling);
        settling.block_connected([], 11 + SETTLED_AFTER, &watched);
        assert_eq!(settling.records().len(), 1, "what was taken back is kept longer");
        settling.block_connected([], 10 + SETTLED_AFTER + CONTEST_DELAY, &watched);
        assert!(settling.records().is_empty());
    }
}
