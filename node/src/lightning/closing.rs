//! Cooperative closes: what LDK forgets the moment it has a closing transaction, and what this node must not.
//!
//! Once both signatures are there LDK removes the channel. From then on, until the transaction confirms:
//! - a restart makes LDK broadcast the latest commitment, since a monitor without a channel looks like a lost one;
//! - a peer that has not seen our last `closing_signed` and reconnects is answered so that it closes by force;
//! - the closing transaction itself is known to nobody here but the broadcaster.
//!
//! So the transaction is committed together with the channel's removal, given to the network again at every start, and
//! these records tell the [gate](super::gate) and the [`ClosingWatch`] which channels are closing well.

use std::{
    collections::{BTreeMap, HashMap},
    ops::Deref,
    sync::{Mutex, MutexGuard, PoisonError},
};

use bitcoin::{OutPoint, Sequence, Transaction, absolute::LockTime, consensus};
use lightning::{
    chain::{
        self, ChannelMonitorUpdateStatus, Watch,
        channelmonitor::{ChannelMonitor, ChannelMonitorUpdate, MonitorEvent},
    },
    ln::types::ChannelId,
    sign::ecdsa::EcdsaChannelSigner,
    util::ser::{Readable, Writeable},
};

use crate::store::{KvKey, KvWrite};

const NAMESPACE: &str = "closing";

#[derive(Debug, thiserror::Error)]
#[error("the record of a closing transaction `{key}` does not parse")]
pub struct ClosingError {
    key: String,
}

/// The channels whose cooperative closing transaction carries both signatures, with that transaction.
#[derive(Default)]
pub struct Closings {
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    fundings: HashMap<OutPoint, ChannelId>,
    signed: BTreeMap<ChannelId, Transaction>,
}

impl Closings {
    pub fn load(kv: &HashMap<KvKey, Vec<u8>>) -> Result<Self, ClosingError> {
        let mut signed = BTreeMap::new();
        for (key, value) in kv.iter().filter(|(key, _)| key.primary == NAMESPACE) {
            let parse = || Some((hex::decode(&key.key).ok()?.try_into().ok()?, consensus::deserialize(value).ok()?));
            let (id, tx) = parse().ok_or_else(|| ClosingError { key: key.key.clone() })?;
            signed.insert(ChannelId(id), tx);
        }
        Ok(Self { inner: Mutex::new(Inner { fundings: HashMap::new(), signed }) })
    }

    pub fn contains(&self, channel_id: &ChannelId) -> bool {
        self.inner().signed.contains_key(channel_id)
    }

    pub fn transactions(&self) -> Vec<Transaction> {
        self.inner().signed.values().cloned().collect()
    }

    /// Notes that `funding` is the channel's funding output.
    pub(super) fn watch(&self, channel_id: ChannelId, funding: OutPoint) {
        self.inner().fundings.insert(funding, channel_id);
    }

    /// If `tx` closes one of our channels cooperatively, and is new, records it and gives what to commit.
    pub(super) fn record(&self, tx: &Transaction) -> Option<KvWrite> {
        let funding = closes(tx)?;
        let mut inner = self.inner();
        let channel_id = *inner.fundings.get(&funding)?;
        let known = inner.signed.insert(channel_id, tx.clone());
        (known.as_ref() != Some(tx)).then(|| KvWrite::Put { key: kv_key(channel_id), value: consensus::serialize(tx) })
    }

    /// Drops the record of a channel that is resolved for good, and gives what to commit.
    pub(super) fn forget(&self, channel_id: ChannelId) -> Option<KvWrite> {
        let mut inner = self.inner();
        inner.fundings.retain(|_, id| *id != channel_id);
        inner.signed.remove(&channel_id).map(|_| KvWrite::Remove { key: kv_key(channel_id) })
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        // Each change is a single insert or remove.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn kv_key(channel_id: ChannelId) -> KvKey {
    KvKey { primary: NAMESPACE.to_owned(), secondary: String::new(), key: hex::encode(channel_id.0) }
}

/// The funding output that a cooperative closing transaction (BOLT 3) spends. Commitments hide their number in locktime
/// and sequence, and so look different.
fn closes(tx: &Transaction) -> Option<OutPoint> {
    let [input] = tx.input.as_slice() else { return None };
    let plain = tx.lock_time == LockTime::ZERO && input.sequence == Sequence::MAX && input.witness.len() == 4;
    plain.then_some(input.previous_output)
}

/// The chain monitor as the channel manager sees it: for a channel that is closing cooperatively, "close by force and
/// broadcast the latest commitment" becomes "close".
pub struct ClosingWatch<W> {
    monitors: W,
    queue: std::sync::Arc<super::CommitQueue>,
}

impl<W> ClosingWatch<W> {
    pub fn new(monitors: W, queue: std::sync::Arc<super::CommitQueue>) -> Self {
        Self { monitors, queue }
    }
}

impl<S: EcdsaChannelSigner, W: Deref> Watch<S> for ClosingWatch<W>
where
    W::Target: Watch<S>,
{
    fn watch_channel(&self, id: ChannelId, monitor: ChannelMonitor<S>) -> Result<ChannelMonitorUpdateStatus, ()> {
        self.monitors.watch_channel(id, monitor)
    }

    fn update_channel(&self, id: ChannelId, update: &ChannelMonitorUpdate) -> ChannelMonitorUpdateStatus {
        if self.queue.closings().contains(&id)
            && let Some(quiet) = without_broadcast(id, update)
        {
            tracing::info!(channel = %id, "the closing transaction stands; not broadcasting the latest commitment");
            return self.monitors.update_channel(id, &quiet);
        }
        self.monitors.update_channel(id, update)
    }

    fn release_pending_monitor_events(
        &self,
    ) -> Vec<(chain::transaction::OutPoint, ChannelId, Vec<MonitorEvent>, bitcoin::secp256k1::PublicKey)> {
        self.monitors.release_pending_monitor_events()
    }
}

/// If `update` does nothing but close the channel by force with a broadcast, the same without the broadcast. LDK keeps
/// the steps of an update to itself, so this goes by its serialisation.
fn without_broadcast(id: ChannelId, update: &ChannelMonitorUpdate) -> Option<ChannelMonitorUpdate> {
    if update.encode() != force_close(id, update.update_id, true) {
        return None;
    }
    // Reads back for every id: `a_forced_close_is_recognised` below holds LDK's reader against this writer.
    ChannelMonitorUpdate::read(&mut force_close(id, update.update_id, false).as_slice()).ok()
}

/// The serialisation of a `ChannelMonitorUpdate` with the single step `ChannelForceClosed`.
fn force_close(id: ChannelId, update_id: u64, broadcast: bool) -> Vec<u8> {
    const VERSIONS: [u8; 2] = [1, 1];
    const CHANNEL_FORCE_CLOSED: u8 = 4;
    // TLV 0, `should_broadcast`.
    let step = [CHANNEL_FORCE_CLOSED, 3, 0, 1, broadcast.into()];
    // TLV 3, the channel id.
    let end = [&[34, 3, 32], id.0.as_slice()].concat();
    [&VERSIONS[..], &update_id.to_be_bytes(), &1u64.to_be_bytes(), &step, &end].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_forced_close_is_recognised_and_loses_its_broadcast() {
        let id = ChannelId([7; 32]);
        let bytes = force_close(id, 300, true);
        let update = ChannelMonitorUpdate::read(&mut bytes.as_slice()).unwrap();
        assert_eq!((update.update_id, update.channel_id), (300, Some(id)));
        assert!(format!("{update:?}").contains("ChannelForceClosed { should_broadcast: true"), "{update:?}");
        let quiet = without_broadcast(id, &update).unwrap();
        assert!(format!("{quiet:?}").contains("ChannelForceClosed { should_broadcast: false"), "{quiet:?}");
        assert_eq!((quiet.update_id, quiet.channel_id), (300, Some(id)));
        assert!(without_broadcast(id, &quiet).is_none());
        assert!(without_broadcast(ChannelId([8; 32]), &update).is_none());
    }
}
