//! The node of a leader while it runs: what it consists of, and how it comes to rest.

use std::{
    sync::{Arc, Weak},
    time::{Duration, Instant},
};

use bitcoin::{Network, secp256k1::PublicKey};
use holdfast_proto::{error::Error, node::v1};
use holdfast_signer_client::RemoteKeys;
use lightning::ln::msgs::SocketAddress;

use super::{
    BufferedBroadcaster, BufferedKv, CommitQueue, channel_backup::ChannelBackups, forwards::Forwards,
    funding::Fundings, holds::Holds, keyed::Turns, offers::Offers, peers::Dialer, probes::Probes, recovery::Recoveries,
    settled::Settled, signing_wallet::SigningWallet, types::*,
};
use crate::{
    chain::{Bitcoind, FeeEstimates, Wallet},
    store::postgres::PgReader,
};

/// A running node.
pub struct LightningNode {
    pub(super) network: Network,
    pub(super) keys: Arc<RemoteKeys>,
    pub(super) manager: Arc<ChannelManager>,
    pub(super) monitors: Arc<ChainMonitor>,
    pub(super) peers: Arc<PeerManager>,
    pub(super) queue: Arc<CommitQueue>,
    pub(super) wallet: Arc<Wallet>,
    pub(super) fees: Arc<FeeEstimates>,
    pub(super) dialer: Arc<Dialer>,
    pub(super) settled: Arc<Settled>,
    pub(super) router: Arc<Router>,
    pub(super) graph: Arc<Graph>,
    pub(super) backups: Arc<ChannelBackups>,
    pub(super) recoveries: Arc<Recoveries>,
    pub(super) holds: Arc<Holds>,
    pub(super) offers: Arc<Offers>,
    pub(super) probes: Arc<Probes>,
    /// Of idempotency keys.
    pub(super) turns: Turns,
    pub(super) forwards: Forwards,
    pub(super) sweeper: Arc<Sweeper>,
    pub(super) signing_wallet: Arc<SigningWallet>,
    pub(super) fundings: Arc<Fundings>,
    pub(super) broadcaster: Arc<BufferedBroadcaster>,
    pub(super) bitcoind: Arc<Bitcoind>,
    pub(super) kv: Arc<BufferedKv>,
    pub(super) reader: Arc<PgReader>,
    pub(super) announce: Vec<SocketAddress>,
    pub(super) alias: [u8; 32],
    pub(super) color: [u8; 3],
    pub(super) draining: std::sync::atomic::AtomicBool,
    /// For what goes on when the call that began it is gone.
    pub(super) this: Weak<Self>,
}

impl LightningNode {
    pub fn node_id(&self) -> PublicKey {
        self.keys.node_id()
    }

    pub fn queue(&self) -> &Arc<CommitQueue> {
        &self.queue
    }

    pub fn keys(&self) -> &RemoteKeys {
        &self.keys
    }

    pub fn peer_manager(&self) -> &Arc<PeerManager> {
        &self.peers
    }

    pub fn dialer(&self) -> &Arc<Dialer> {
        &self.dialer
    }

    pub fn channel_count(&self) -> usize {
        self.manager.list_channels().len()
    }

    /// Fills in what only the leader knows.
    pub fn describe(&self, info: &mut v1::GetInfoResponse) {
        let tip = self.manager.current_best_block();
        let channels = self.manager.list_channels();
        info.node_id = self.node_id().to_string();
        info.block_height = tip.height;
        info.block_hash = tip.block_hash.to_string();
        info.peers = self.peers.list_peers().len() as u32;
        info.channels = channels.len() as u32;
        info.usable_channels = channels.iter().filter(|channel| channel.is_usable).count() as u32;
        info.addresses = self.announce.iter().map(|address| address.to_string()).collect();
    }

    /// Tells the network where the node is. Others pass it on only if they know a channel of ours.
    pub(super) fn announce_node(&self) {
        tokio::task::block_in_place(|| {
            self.peers.broadcast_node_announcement(self.color, self.alias, self.announce.clone());
        });
    }

    /// Stops taking on new work, lets what is in flight come to a point where it may rest, and commits. HTLCs that are
    /// not settled by then are settled by the next leader.
    pub async fn drain(&self, patience: Duration) {
        self.draining.store(true, std::sync::atomic::Ordering::Release);
        let deadline = Instant::now() + patience;
        while Instant::now() < deadline {
            let settled = self.monitors.list_pending_monitor_updates().values().all(Vec::is_empty);
            let idle = |c: &lightning::ln::channel_state::ChannelDetails| {
                c.pending_inbound_htlcs.is_empty() && c.pending_outbound_htlcs.is_empty()
            };
            if settled && self.manager.list_channels().iter().all(idle) {
                break;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        tokio::task::block_in_place(|| {
            self.forwards.stop();
            // Whoever asked before we began to drain is done asking.
            self.queue.with_state(|| ());
            self.peers.disconnect_all_peers();
        });
        self.queue.committed().await;
    }

    /// Refuses what a node that is about to hand over should not begin.
    pub(super) fn must_run(&self) -> Result<(), Error> {
        match self.draining.load(std::sync::atomic::Ordering::Acquire) {
            true => Err(Error::unavailable("this replica is handing over")),
            false => Ok(()),
        }
    }

    /// Waits until everything done so far is durable.
    pub(super) async fn committed(&self) -> Result<(), Error> {
        match self.queue.committed().await {
            true => Ok(()),
            false => Err(Error::unavailable("this replica no longer leads")),
        }
    }
}
