//! Our own encrypted backup, left with peers (BOLT 1's `peer_storage`).
//!
//! What is left is of the [backup of the channels](super::channel_backup): names, no state. So a blob that comes back may be
//! as old as it likes and nothing is restored from it by itself: a channel that it names and the database does not know is
//! kept beside the backup, and said. LDK's own way, unfinished in 0.2.7, is not used: it holds state, and what comes back may
//! stop the process.

mod blob;
mod book;
mod returned;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};

use bitcoin::secp256k1::PublicKey;
use lightning::{
    ln::{
        msgs::{self, BaseMessageHandler, Init, MessageSendEvent, SendOnlyMessageHandler},
        types::ChannelId,
    },
    sign::PeerStorageKey,
    types::features::{InitFeatures, NodeFeatures},
};
use tokio::sync::Notify;

use self::{
    blob::{Channel, Named, Seal},
    book::{Book, Content},
};
use super::{CommitQueue, channel_backup::Entry};

pub use returned::Judge;

/// Where the entries stand that a peer gave back and the database did not know, one for each channel under its id in hex.
pub const NAMESPACE: &str = "channel-backup-returned";

/// Leaves the backup with peers, and takes it back.
pub struct PeerStorage {
    queue: Arc<CommitQueue>,
    seal: Seal,
    /// Whether anything is left with peers. What they give back is taken in any case.
    leaves: bool,
    book: Mutex<Book>,
    /// There is something to judge.
    returned: Notify,
    unreadable: Unreadables,
}

impl PeerStorage {
    pub fn new(key: &PeerStorageKey, node_id: PublicKey, queue: Arc<CommitQueue>, leaves: bool) -> Self {
        let (book, returned, unreadable) = Default::default();
        Self { queue, seal: Seal::new(key, node_id), leaves, book, returned, unreadable }
    }

    /// The database holds these from the next commit on; `peers` have a channel that is not closed. To be called under the
    /// commit queue's mutex, after the writes are pushed.
    pub fn changed(&self, channels: &BTreeMap<ChannelId, Entry>, peers: BTreeSet<PublicKey>) {
        let channels = channels.iter().filter_map(|(id, entry)| Channel::of(*id, entry)).collect();
        self.book().changed(Content { channels, peers }, self.queue.next_commit());
    }

    /// A peer resumes a channel: what it keeps it has given back by now.
    pub fn heard(&self, peer: &PublicKey) {
        self.book().heard(peer);
    }

    /// A peer gives something back. Whatever it is, nothing stops.
    pub fn returned(&self, peer: &PublicKey, blob: &[u8]) {
        let mut book = self.book();
        if !book.expects(peer) {
            tracing::debug!(%peer, "a peer gave something back a second time; ignored");
            return;
        }
        let opened = self.seal.open(peer, blob).and_then(|content| Ok((content.channels(peer)?, content)));
        match opened {
            Ok((channels, content)) => {
                tracing::debug!(%peer, channels = channels.len(), "a peer gave our backup back");
                if book.gave_back(peer, content, channels) {
                    self.returned.notify_one();
                }
            }
            Err(why) => {
                book.gave_rubbish(peer);
                self.unreadable.say(peer, &why);
            }
        }
    }

    /// Whether a peer was left the backup since it connected, or gave it back.
    pub fn is_held_by(&self, peer: &PublicKey) -> bool {
        self.book().is_held_by(peer)
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        // Each of its methods leaves it whole.
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl BaseMessageHandler for PeerStorage {
    fn get_and_clear_pending_msg_events(&self) -> Vec<MessageSendEvent> {
        let due = self.book().due(self.queue.commits(), Instant::now());
        let send = |(node_id, content)| {
            let mut nonce = [0; 24];
            getrandom::fill(&mut nonce).ok()?;
            tracing::debug!(peer = %node_id, "left our backup with a peer");
            let data = self.seal.seal(&node_id, &content, nonce);
            Some(MessageSendEvent::SendPeerStorage { node_id, msg: msgs::PeerStorage { data } })
        };
        due.into_iter().filter_map(send).collect()
    }

    fn peer_connected(&self, their_node_id: PublicKey, init: &Init, _inbound: bool) -> Result<(), ()> {
        let keeps = self.leaves && init.features.supports_provide_storage();
        self.book().connected(their_node_id, keeps, Instant::now());
        Ok(())
    }

    fn peer_disconnected(&self, their_node_id: PublicKey) {
        self.book().disconnected(&their_node_id);
    }

    fn provided_node_features(&self) -> NodeFeatures {
        NodeFeatures::empty()
    }

    fn provided_init_features(&self, _their_node_id: PublicKey) -> InitFeatures {
        InitFeatures::empty()
    }
}

impl SendOnlyMessageHandler for PeerStorage {}

/// What peers gave back that is nothing of ours: one line of the log a minute, whatever they send.
#[derive(Default)]
struct Unreadables {
    untold: AtomicU64,
    told: Mutex<Option<Instant>>,
}

impl Unreadables {
    fn say(&self, peer: &PublicKey, why: &blob::Unreadable) {
        self.untold.fetch_add(1, Ordering::Relaxed);
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if told.is_none_or(|told| told.elapsed().as_secs() >= 60) {
            *told = Some(Instant::now());
            let times = self.untold.swap(0, Ordering::Relaxed);
            tracing::info!(last = %peer, %why, times, "what a peer gave back is not our backup; ignored");
        }
    }
}

#[cfg(test)]
mod tests;
