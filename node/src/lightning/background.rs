//! What keeps a node moving between the messages of its peers.
//!
//! LDK has a background processor of its own, but it encodes the manager before it writes monitors; the order matters
//! (see [`super::commit`]), so this is ours.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use lightning::{
    chain::{BestBlock, Listen, chaininterface::BroadcasterInterface},
    events::EventsProvider,
    ln::msgs::OnionMessageHandler,
    routing::scoring::ScoreUpdate,
};
use lightning_block_sync::{
    SpvClient,
    poll::{ChainPoller, ChainTip, ValidatedBlockHeader},
};
use tokio::{
    sync::Notify,
    task::{JoinSet, block_in_place},
    time::{Instant, MissedTickBehavior, interval_at},
};

use super::{
    BufferedBroadcaster, BufferedKv, CommitQueue,
    events::Events,
    gossip::Saver,
    graph,
    logger::TracingLogger,
    mempool,
    node::LightningNode,
    peer_storage::Judge,
    rapid_gossip,
    settling::{Settling, watched},
    types::{ChainMonitor, ChannelManager, Graph, OnionMessenger, Scorer, Sweeper},
};
use crate::{
    chain::{Bitcoind, HeaderCache, Outbox, Wallet, headers::explain},
    net::{Outbound, fetch::Source},
};

/// The loops of a node. They end when they are dropped.
pub struct Background {
    pub(super) node: Arc<LightningNode>,
    pub(super) events: Arc<Events>,
    pub(super) onion_messenger: Arc<OnionMessenger>,
    pub(super) sweeper: Arc<Sweeper>,
    pub(super) settling: Arc<Settling>,
    pub(super) graph: Arc<Graph>,
    pub(super) scorer: Arc<Mutex<Scorer>>,
    pub(super) kv: Arc<BufferedKv>,
    pub(super) bitcoind: Arc<Bitcoind>,
    pub(super) outbox: Outbox,
    pub(super) process_messages: Arc<Notify>,
    pub(super) judge: Judge,
    pub(super) headers: HeaderCache,
    pub(super) synced: ValidatedBlockHeader,
    /// From where the public graph is fetched, if it is.
    pub(super) rapid_gossip: Option<(Source, Arc<Outbound>)>,
}

impl Background {
    /// Starts all loops, each a task of the set.
    pub fn start(self) -> JoinSet<()> {
        let Self {
            node,
            events,
            onion_messenger,
            sweeper,
            settling,
            graph,
            scorer,
            kv,
            bitcoind,
            outbox,
            process_messages,
            judge,
            headers,
            synced,
            rapid_gossip,
        } = self;
        let recovery_outbox = outbox.clone();
        let chain = Chain {
            queue: node.queue.clone(),
            manager: node.manager.clone(),
            monitors: node.monitors.clone(),
            sweeper: sweeper.clone(),
            wallet: node.wallet.clone(),
            broadcaster: node.broadcaster.clone(),
            events: events.clone(),
            settling,
            outbox,
        };
        node.holds.saw_block(synced.header.time);
        // Entries that the last leader had no time for.
        node.queue.with_state(|| node.backups.refresh());
        let mut tasks = JoinSet::new();
        tasks.spawn(handle_events(node.clone(), events, onion_messenger.clone()));
        tasks.spawn(send_messages(node.clone(), process_messages));
        tasks.spawn(mempool::watch(bitcoind.clone(), node.wallet.clone(), node.queue.clone()));
        tasks.spawn(follow_chain(bitcoind, node.network, headers, synced, chain));
        tasks.spawn(tick_manager(node.clone()));
        tasks.spawn(tick_peers(node.clone(), onion_messenger));
        tasks.spawn(LightningNode::guard_holds(node.clone()));
        tasks.spawn(tick_claims(node.clone(), sweeper));
        if let Some((source, outbound)) = rapid_gossip {
            tasks.spawn(rapid_gossip::keep(source, outbound, node.network, graph.clone(), Arc::new(TracingLogger)));
        }
        tasks.spawn(keep_gossip(graph, scorer, kv));
        tasks.spawn(announce(node.clone()));
        tasks.spawn(node.dialer.clone().run());
        tasks.spawn(node.recoveries.clone().keep(recovery_outbox));
        tasks.spawn(judge.run());
        tasks
    }
}

/// Handles events and forwards HTLCs as soon as LDK says that there are some.
async fn handle_events(node: Arc<LightningNode>, events: Arc<Events>, onion_messenger: Arc<OnionMessenger>) {
    loop {
        block_in_place(|| {
            let followed = node.queue.followed();
            node.queue.with_state(|| {
                followed.in_scope(|| node.manager.process_pending_events(&*events));
                node.monitors.process_pending_events(&*events);
                onion_messenger.process_pending_events(&*events);
            });
            if node.forwards.process(&node.manager, &node.dialer) {
                // A forward that failed or a payment that arrived is an event.
                node.queue.with_state(|| node.manager.process_pending_events(&*events));
            }
            followed.in_scope(|| node.peers.process_events());
            node.queue.follow_no_more(&followed);
        });
        node.queue.wake();
        tokio::select! {
            () = node.manager.get_event_or_persistence_needed_future() => {}
            () = node.monitors.get_update_future() => {}
            () = onion_messenger.get_update_future() => {}
            // LDK does not say so when an HTLC becomes due for forwarding.
            () = tokio::time::sleep(LOOK) => {}
        }
    }
}

const LOOK: Duration = Duration::from_millis(100);

/// Sends what a commit has let go.
async fn send_messages(node: Arc<LightningNode>, ready: Arc<Notify>) {
    loop {
        ready.notified().await;
        block_in_place(|| node.queue.followed().in_scope(|| node.peers.process_events()));
    }
}

/// Whom blocks are told.
struct Chain {
    queue: Arc<CommitQueue>,
    manager: Arc<ChannelManager>,
    monitors: Arc<ChainMonitor>,
    sweeper: Arc<Sweeper>,
    wallet: Arc<Wallet>,
    broadcaster: Arc<BufferedBroadcaster>,
    events: Arc<Events>,
    settling: Arc<Settling>,
    outbox: Outbox,
}

impl Listen for Chain {
    fn block_connected(&self, block: &bitcoin::Block, height: u32) {
        block_in_place(|| {
            self.queue.with_state(|| {
                self.wallet.block_connected(block, height);
                self.manager.block_connected(block, height);
                self.events.holds.saw_block(block.header.time);
                self.monitors.block_connected(block, height);
                // Here and not a moment later: an output that a monitor lets go and the sweeper does not have yet would
                // be in nobody's balance.
                self.monitors.process_pending_events(&*self.events);
                self.settling.block_connected(&block.txdata, height, &watched(&self.monitors));
                for (channel, outputs) in self.settling.found_again(&self.monitors) {
                    // The sweeper passes over those that it has.
                    self.events.sweep(outputs, Some(channel));
                }
                self.sweeper.block_connected(block, height);
                sweep(&self.sweeper);
                // Behind the commit that knows of them: the wallet has a payment before the store does (P2).
                for tx in self.wallet.unconfirmed() {
                    self.broadcaster.broadcast_transactions(&[&tx]);
                }
            });
        });
        tracing::debug!(height, block = %block.block_hash(), "connected a block");
        // These were in a block before: anybody may have them.
        for tx in self.settling.taken_back() {
            self.outbox.send(vec![tx]);
        }
    }

    fn filtered_block_connected(
        &self,
        header: &bitcoin::block::Header,
        txdata: &lightning::chain::transaction::TransactionData,
        height: u32,
    ) {
        block_in_place(|| {
            self.queue.with_state(|| {
                self.wallet.filtered_block_connected(header, txdata, height);
                self.manager.filtered_block_connected(header, txdata, height);
                self.monitors.filtered_block_connected(header, txdata, height);
                self.sweeper.filtered_block_connected(header, txdata, height);
            });
        });
    }

    fn blocks_disconnected(&self, fork: BestBlock) {
        tracing::info!(height = fork.height, "the chain was reorganised above this height");
        block_in_place(|| {
            self.queue.with_state(|| {
                self.wallet.blocks_disconnected(fork);
                self.manager.blocks_disconnected(fork);
                self.monitors.blocks_disconnected(fork);
                self.sweeper.blocks_disconnected(fork);
                self.settling.blocks_disconnected(fork.height);
            });
        });
        for tx in self.settling.taken_back() {
            self.outbox.send(vec![tx]);
        }
    }
}

const POLL: Duration = Duration::from_secs(1);

async fn follow_chain(
    bitcoind: Arc<Bitcoind>,
    network: bitcoin::Network,
    mut headers: HeaderCache,
    synced: ValidatedBlockHeader,
    chain: Chain,
) {
    let mut client = SpvClient::new(synced, ChainPoller::new(bitcoind, network), &mut headers, &chain);
    let mut poll = tokio::time::interval(POLL);
    poll.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut away = false;
    loop {
        poll.tick().await;
        match client.poll_best_tip().await {
            Ok((tip, _)) => {
                if std::mem::take(&mut away) {
                    tracing::info!("bitcoind is back");
                }
                if let ChainTip::Better(_) = tip {
                    chain.monitors.archive_fully_resolved_channel_monitors();
                    block_in_place(|| chain.queue.with_state(|| chain.events.backups.refresh()));
                }
            }
            Err(error) if !std::mem::replace(&mut away, true) => {
                tracing::warn!(error = explain(error), "bitcoind is away; the node waits for it");
            }
            Err(_) => {}
        }
    }
}

/// LDK asks for this about once a minute, and once at the start.
async fn tick_manager(node: Arc<LightningNode>) {
    let mut minute = tokio::time::interval(Duration::from_secs(60));
    minute.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        minute.tick().await;
        // LDK counts ticks while it waits for a peer, and closes a channel after some. While nothing can be committed our own
        // messages wait too, so time stands still (P7).
        if !node.queue.committed().await {
            return;
        }
        block_in_place(|| node.manager.timer_tick_occurred());
        node.queue.wake();
    }
}

/// Pings, and so finds out who is gone.
async fn tick_peers(node: Arc<LightningNode>, onion_messenger: Arc<OnionMessenger>) {
    let period = Duration::from_secs(10);
    let mut tick = interval_at(Instant::now() + period, period);
    loop {
        tick.tick().await;
        block_in_place(|| {
            node.peers.timer_tick_occurred();
            onion_messenger.timer_tick_occurred();
        });
    }
}

/// Sees to it that what is claimed on chain gets there, with the fees of the day.
async fn tick_claims(node: Arc<LightningNode>, sweeper: Arc<Sweeper>) {
    let mut tick = tokio::time::interval(Duration::from_secs(30));
    loop {
        tick.tick().await;
        block_in_place(|| {
            node.queue.with_state(|| {
                node.monitors.rebroadcast_pending_claims();
                sweep(&sweeper);
            });
        });
    }
}

fn sweep(sweeper: &Sweeper) {
    if sweeper.regenerate_and_broadcast_spend_if_necessary().is_err() {
        tracing::warn!("cannot sweep the outputs of closed channels now");
    }
}

async fn keep_gossip(graph: Arc<Graph>, scorer: Arc<Mutex<Scorer>>, kv: Arc<BufferedKv>) {
    const PRUNE: Duration = Duration::from_secs(3600);
    let mut saver = Saver::new(kv);
    let mut tick = tokio::time::interval(Duration::from_secs(5));
    let mut next_prune = Instant::now() + Duration::from_secs(60);
    loop {
        tick.tick().await;
        block_in_place(|| {
            if Instant::now() >= next_prune {
                next_prune = Instant::now() + PRUNE;
                graph.remove_stale_channels_and_tracking();
                let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
                scorer.lock().unwrap_or_else(PoisonError::into_inner).time_passed(now);
            }
            saver.save(&graph, &scorer);
        });
    }
}

/// Announces the node when the network has first heard of a channel of it, soon once more for those who were slower to hear
/// of the channel, and every hour from then on.
async fn announce(node: Arc<LightningNode>) {
    const SOON: Duration = Duration::from_secs(60);
    const AGAIN: Duration = Duration::from_secs(3600);
    let mut look = tokio::time::interval(Duration::from_secs(5));
    let (mut next, mut pause) = (Instant::now(), SOON);
    loop {
        look.tick().await;
        // Without a channel in the graph others would pass it over, and so would we.
        if Instant::now() >= next && graph::knows(&node.graph.read_only(), &node.node_id()) {
            node.announce_node();
            next = Instant::now() + std::mem::replace(&mut pause, AGAIN);
        }
    }
}
