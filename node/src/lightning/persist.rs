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
    /// After so many updates a monitor is written whole again.
    updates_kept: u32,
    /// How many updates the store holds on top of each monitor's last whole encoding.
    updates: Mutex<HashMap<ChannelId, u32>>,
}

impl BufferedPersister {
    /// An update is a few hundred bytes and reading one is cheap; a monitor of a busy channel is tens of kilobytes.
    pub const UPDATES_KEPT: u32 = 100;

    /// Notes a monitor that was loaded with so many updates on top of its last whole encoding.
    pub(super) fn loaded<S: EcdsaChannelSigner>(&self, monitor: &ChannelMonitor<S>, updates: u32) {
        self.updates.lock().unwrap_or_else(PoisonError::into_inner).insert(monitor.channel_id(), updates);
        self.note_funding(monitor);
    }

    pub fn new(queue: Arc<CommitQueue>) -> Self {
        Self::with_updates_kept(queue, Self::UPDATES_KEPT)
    }

    pub fn with_updates_kept(queue: Arc<CommitQueue>, updates_kept: u32) -> Self {
        Self { queue, updates_kept, updates: Mutex::default() }
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
        self.updates.lock().unwrap_or_else(PoisonError::into_inner).insert(channel_id, 0);
        MonitorWrite::Full {
            key: MonitorKey(channel_id.0),
            update_id: monitor.get_latest_update_id(),
            bytes: monitor.encode(),
        }
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
        let kept = {
            let mut updates = self.updates.lock().unwrap_or_else(PoisonError::into_inner);
            let kept = updates.entry(channel_id).or_default();
            *kept += 1;
            *kept
        };
        // A splice moves the funding output.
        self.note_funding(monitor);
        let write = if kept > self.updates_kept {
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
        self.updates.lock().unwrap_or_else(PoisonError::into_inner).remove(&channel_id);
        if let Some(write) = self.queue.closings().forget(channel_id) {
            self.queue.kv(write);
        }
        self.push(MonitorWrite::Archive { key: MonitorKey(channel_id.0) }, None);
    }
}
