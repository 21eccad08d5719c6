//! Our node in the middle: the real commit loop's parts over the harness's store, one step at a time.

use std::{
    collections::{BTreeSet, HashSet},
    mem,
    sync::{Arc, Mutex},
    time::Instant,
};

use bitcoin::{Transaction, secp256k1::PublicKey};
use holdfast_node::{
    lightning::{
        BufferedBroadcaster, BufferedPersister, ClosingWatch, CommitQueue, Committer, GateHooks, LdkMachine,
        MessageGate, Taken, load, received::Received,
    },
    store::Batch,
};
use lightning::{
    chain::{Listen, chaininterface::BroadcasterInterface},
    ln::{channelmanager::ChannelManagerReadArgs, types::ChannelId},
    onion_message::messenger::NullMessageRouter,
    util::ser::Writeable,
};

use crate::{
    chain::{Chain, Direct},
    node::{DynBroadcaster, DynHandler, DynPersist, DynWatch, Keys, Manager, Monitors, NoRouter, Node, Parts, node_id},
    store::Memory,
};

/// The order of the commit loop, or one of the ways to get it wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// As designed.
    Right,
    /// LDK's stock order: monitors are stored and acknowledged first, the manager some time later.
    MonitorsFirst,
    /// The manager is encoded before the buffer is taken.
    EncodeFirst,
    /// Transactions go out when LDK hands them over.
    BroadcastFirst,
    /// Every message goes out when LDK makes it.
    GateOff,
    /// A node that is loaded has forgotten the closing transactions that were signed.
    ClosingsForgotten,
}

/// The real commit loop over the real parts.
type Commits<K> = Committer<LdkMachine<Arc<Manager<K>>, Arc<Monitors<K>>>>;

/// The peers whose messages are under way to us: what takes the place of the time that the gate waits for them.
#[derive(Clone, Default)]
pub struct UnderWay(pub Arc<Mutex<BTreeSet<PublicKey>>>);

/// What the gate asks.
struct Hooks {
    under_way: UnderWay,
    /// The channels of which the signer had signed a cooperative close when the node was loaded.
    close_signed: BTreeSet<ChannelId>,
}

impl GateHooks for Hooks {
    fn has_repeated(&self, peer: &PublicKey, _since: Instant) -> bool {
        !self.under_way.0.lock().unwrap().contains(peer)
    }

    fn close_signed(&self, channel: &ChannelId) -> bool {
        self.close_signed.contains(channel)
    }
}

pub struct Ours<K: Keys> {
    pub node: Node<K>,
    pub queue: Arc<CommitQueue>,
    pub under_way: UnderWay,
    /// Made anew with each start, as the leader's is.
    pub received: Received,
    committer: Commits<K>,
    order: Order,
    phase: Phase,
    /// Encoded too early, in [`Order::EncodeFirst`].
    early: Option<Vec<u8>>,
    /// Stored too late, in [`Order::MonitorsFirst`].
    late: Option<Vec<u8>>,
}

enum Phase {
    Idle,
    Taken(Taken),
    Written(Taken),
}

/// What a step of the commit loop did.
#[derive(Debug, PartialEq, Eq)]
pub enum Step {
    Nothing,
    Took,
    Wrote,
    Acknowledged,
}

impl<K: Keys> Ours<K> {
    pub fn start(
        parts: &Parts,
        keys: Arc<K>,
        store: &Memory,
        chain: &Arc<Mutex<Chain>>,
        order: Order,
        updates_kept: u32,
    ) -> Result<Self, load::LoadError> {
        let loaded = store.load();
        let no_records = Default::default();
        let records = if order == Order::ClosingsForgotten { &no_records } else { &loaded.kv };
        let queue = Arc::new(CommitQueue::load(records).unwrap());
        let broadcaster: Arc<DynBroadcaster> = match order {
            Order::BroadcastFirst => Arc::new(Direct(chain.clone())),
            _ => Arc::new(BufferedBroadcaster::new(queue.clone())),
        };
        let persister = Arc::new(BufferedPersister::with_updates_kept(queue.clone(), updates_kept));
        let persist: Arc<DynPersist<K>> = persister.clone();
        let monitors = Node::monitors(parts, &keys, &broadcaster, persist);
        let watch: Arc<DynWatch<K>> = match order {
            Order::ClosingsForgotten => monitors.clone(),
            _ => Arc::new(ClosingWatch::new(monitors.clone(), queue.clone())),
        };

        let mut close_signed = BTreeSet::new();
        let mut repeatable = HashSet::new();
        let manager = match &loaded.manager {
            None => Node::new_manager(parts, &keys, &broadcaster, watch, chain.lock().unwrap().tip()),
            Some(bytes) => {
                let mut read = Vec::new();
                for stored in loaded.monitors.chunks(1) {
                    let signers = (&keys, &keys);
                    read.extend(load::read_monitors(stored, signers, &broadcaster, &parts.fees, &parts.log)?);
                    if keys.close_signed() {
                        close_signed.extend(stored.iter().map(|stored| ChannelId(stored.key.0)));
                    }
                }
                repeatable.extend(read.iter().flat_map(|read| read.monitor.claimed_payments()).map(|hash| hash.0));
                let args = ChannelManagerReadArgs::new(
                    keys.clone(),
                    keys.clone(),
                    keys.clone(),
                    parts.fees.clone(),
                    watch,
                    broadcaster.clone(),
                    Arc::new(NoRouter),
                    Arc::new(NullMessageRouter {}),
                    parts.log.clone(),
                    parts.config.clone(),
                    read.iter().map(|read| &read.monitor).collect(),
                );
                let manager = Arc::new(load::read_manager(bytes, args)?);
                // LDK broadcasts meanwhile, which needs the chain.
                let blocks: Vec<_> = {
                    let chain = chain.lock().unwrap();
                    (0..=chain.height()).map(|height| (height, chain.block(height).clone())).collect()
                };
                let fork_point = |tip| chain.lock().unwrap().fork_point(tip);
                for read in &read {
                    let fork = fork_point(read.best_block);
                    if fork != read.best_block {
                        read.monitor.blocks_disconnected(fork, broadcaster.clone(), parts.fees.clone(), &parts.log);
                    }
                    for (height, block) in &blocks[fork.height as usize + 1..] {
                        let txdata: Vec<_> = block.txdata.iter().enumerate().collect();
                        let (broadcaster, fees) = (broadcaster.clone(), parts.fees.clone());
                        read.monitor.block_connected(&block.header, &txdata, *height, broadcaster, fees, &parts.log);
                    }
                }
                let (tip, fork) = (manager.current_best_block(), fork_point(manager.current_best_block()));
                if fork != tip {
                    manager.blocks_disconnected(fork);
                }
                for (height, block) in &blocks[fork.height as usize + 1..] {
                    manager.block_connected(block, *height);
                }
                load::start_watching(&monitors, &persister, read)?;
                manager
            }
        };
        queue.rebroadcast_closings();

        let under_way = UnderWay::default();
        let handler: Arc<DynHandler> = match order {
            Order::GateOff => manager.clone(),
            _ => {
                let hooks = Hooks { under_way: under_way.clone(), close_signed };
                Arc::new(MessageGate::with_hooks(manager.clone(), queue.clone(), Box::new(hooks)))
            }
        };
        let network = chain.clone();
        let machine = LdkMachine {
            manager: manager.clone(),
            monitors: monitors.clone(),
            send_package: Box::new(move |package: Vec<Transaction>| {
                Direct(network.clone()).broadcast_transactions(&package.iter().collect::<Vec<_>>());
            }),
            // The world fetches messages when it likes.
            process_messages: Box::new(|| {}),
        };
        let node = Node { id: node_id(&*keys), keys, manager, monitors, broadcaster, handler };
        let committer = Committer::new(queue.clone(), machine);
        // What the leader asks its database for.
        let told = store.parts.values().filter(|part| repeatable.contains(&part.payment_id)).map(|part| part.part_id);
        let received = Received::new(repeatable.clone(), told);
        Ok(Self { node, queue, under_way, received, committer, order, phase: Phase::Idle, early: None, late: None })
    }

    /// One step of the commit loop. A crash may come between any two.
    pub fn commit_step(&mut self, store: &mut Memory) -> Step {
        match mem::replace(&mut self.phase, Phase::Idle) {
            Phase::Idle => {
                if let Some(manager) = self.late.take() {
                    store.apply(&Batch { manager: Some(manager), ..Batch::default() });
                    return Step::Wrote;
                }
                if self.order == Order::EncodeFirst && self.early.is_none() {
                    self.early = Some(self.node.manager.encode());
                    return Step::Nothing;
                }
                let mut taken = self.committer.take_and_encode();
                if let Some(early) = self.early.take()
                    && taken.batch.manager.is_some()
                {
                    taken.batch.manager = Some(early);
                }
                if taken.is_empty() {
                    self.committer.acknowledge(taken);
                    return Step::Nothing;
                }
                self.phase = Phase::Taken(taken);
                Step::Took
            }
            Phase::Taken(mut taken) => {
                if self.order == Order::MonitorsFirst {
                    self.late = taken.batch.manager.take();
                }
                store.apply(&taken.batch);
                self.phase = Phase::Written(taken);
                Step::Wrote
            }
            Phase::Written(taken) => {
                self.committer.acknowledge(taken);
                Step::Acknowledged
            }
        }
    }

    pub fn idle(&self) -> bool {
        matches!(self.phase, Phase::Idle) && self.late.is_none()
    }
}
