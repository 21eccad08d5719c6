//! LDK's monitor persistence: encode under LDK's locks, push, and answer that it is in progress.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use lightning::{
    chain::{
        ChannelMonitorUpdateStatus,
        chainmonitor::Persist,
        channelmonitor::{ChannelMonitor, ChannelMonitorUpdate},
    },
    ln::types::ChannelId,
    sign::ecdsa::EcdsaChannelSigner,
    util::{persist::MonitorName, ser::Writeable},
};

use super::queue::CommitQueue;
use crate::store::{MonitorKey, MonitorWrite};

/// Pushes every write of a monitor onto the commit queue and never completes one itself: the commit loop acknowledges
/// it when it is durable.
pub struct BufferedPersister {
    queue: Arc<CommitQueue>,
    /// After so many updates a small monitor is written whole again.
    updates_kept: u32,
    /// What the store holds of each monitor.
    stored: Mutex<HashMap<ChannelId, Stored>>,
}

/// A monitor in the store: its last whole encoding, and the updates on top of it.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Stored {
    pub whole_bytes: usize,
    pub updates: u32,
}

impl BufferedPersister {
    /// An update is a few hundred bytes and reading one is cheap; a young monitor is some kilobytes.
    pub const UPDATES_KEPT: u32 = 100;
    /// A monitor keeps a record of every state of its channel, for the day on which the peer publishes an old one, so it grows
    /// for as long as the channel lives. For each so many bytes of it one more update is kept: what a payment costs the
    /// store does not grow with the channel then. Reading so many bytes and applying an update take about equally long.
    const BYTES_PER_UPDATE: usize = 4096;

    /// Notes a monitor that was loaded.
    pub(super) fn loaded<S: EcdsaChannelSigner>(&self, monitor: &ChannelMonitor<S>, stored: Stored) {
        self.stored.lock().unwrap_or_else(PoisonError::into_inner).insert(monitor.channel_id(), stored);
        self.note_funding(monitor);
    }

    pub fn new(queue: Arc<CommitQueue>) -> Self {
        Self::with_updates_kept(queue, Self::UPDATES_KEPT)
    }

    pub fn with_updates_kept(queue: Arc<CommitQueue>, updates_kept: u32) -> Self {
        Self { queue, updates_kept, stored: Mutex::default() }
    }

    fn push(&self, write: MonitorWrite, ack: Option<(ChannelId, u64)>) -> ChannelMonitorUpdateStatus {
        {
            let mut pending = self.queue.pending();
            pending.monitors.push(write);
            pending.acks.extend(ack);
        }
        self.queue.wake();
        // Mixing this with `Completed` makes LDK panic.
        ChannelMonitorUpdateStatus::InProgress
    }

    fn note_funding<S: EcdsaChannelSigner>(&self, monitor: &ChannelMonitor<S>) {
        let funding = monitor.get_funding_txo().into_bitcoin_outpoint();
        self.queue.closings().watch(monitor.channel_id(), funding);
    }

    fn whole<S: EcdsaChannelSigner>(&self, monitor: &ChannelMonitor<S>) -> MonitorWrite {
        let channel_id = monitor.channel_id();
        self.note_funding(monitor);
        let bytes = monitor.encode();
        let stored = Stored { whole_bytes: bytes.len(), updates: 0 };
        self.stored.lock().unwrap_or_else(PoisonError::into_inner).insert(channel_id, stored);
        MonitorWrite::Full { key: MonitorKey(channel_id.0), update_id: monitor.get_latest_update_id(), bytes }
    }

    /// Whether the next update of a monitor is to be stored as the whole of it.
    fn is_whole_due(&self, Stored { whole_bytes, updates }: Stored) -> bool {
        updates > self.updates_kept && updates as usize > whole_bytes / Self::BYTES_PER_UPDATE
    }
}

impl<S: EcdsaChannelSigner> Persist<S> for BufferedPersister {
    fn persist_new_channel(&self, _name: MonitorName, monitor: &ChannelMonitor<S>) -> ChannelMonitorUpdateStatus {
        let ack = (monitor.channel_id(), monitor.get_latest_update_id());
        self.push(self.whole(monitor), Some(ack))
    }

    fn update_persisted_channel(
        &self,
        _name: MonitorName,
        update: Option<&ChannelMonitorUpdate>,
        monitor: &ChannelMonitor<S>,
    ) -> ChannelMonitorUpdateStatus {
        let Some(update) = update else {
            // LDK does not wait for these.
            return self.push(self.whole(monitor), None);
        };
        let channel_id = monitor.channel_id();
        let stored = {
            let mut stored = self.stored.lock().unwrap_or_else(PoisonError::into_inner);
            let stored = stored.entry(channel_id).or_default();
            stored.updates += 1;
            *stored
        };
        // A splice moves the funding output.
        self.note_funding(monitor);
        let write = if self.is_whole_due(stored) {
            self.whole(monitor)
        } else {
            MonitorWrite::Update { key: MonitorKey(channel_id.0), update_id: update.update_id, bytes: update.encode() }
        };
        self.push(write, Some((channel_id, update.update_id)))
    }

    fn archive_persisted_channel(&self, name: MonitorName) {
        let channel_id = match name {
            MonitorName::V1Channel(funding) => ChannelId::v1_from_funding_outpoint(funding),
            MonitorName::V2Channel(channel_id) => channel_id,
        };
        self.stored.lock().unwrap_or_else(PoisonError::into_inner).remove(&channel_id);
        if let Some(write) = self.queue.closings().forget(channel_id) {
            self.queue.kv(write);
        }
        self.push(MonitorWrite::Archive { key: MonitorKey(channel_id.0) }, None);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Updates until a monitor of a size is written whole again.
    fn kept(whole_bytes: usize) -> u32 {
        let persister = BufferedPersister::new(Arc::default());
        (1..).find(|&updates| persister.is_whole_due(Stored { whole_bytes, updates })).unwrap()
    }

    #[test]
    fn what_an_update_costs_does_not_grow_with_the_monitor() {
        assert_eq!(kept(0), BufferedPersister::UPDATES_KEPT + 1);
        assert_eq!(kept(100_000), BufferedPersister::UPDATES_KEPT + 1);
        for whole_bytes in [1_000_000, 10_000_000, 100_000_000] {
            assert!(whole_bytes / kept(whole_bytes) as usize <= BufferedPersister::BYTES_PER_UPDATE);
        }
    }
}
