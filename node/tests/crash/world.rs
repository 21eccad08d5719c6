//! Three nodes, two links, one chain; and everything that can happen to them, drawn from one seed.

mod blocks;
mod books;
mod commits;
mod events;
mod links;
mod operators;
mod unfunded;

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Mutex},
};

use bitcoin::{OutPoint, secp256k1::PublicKey};
use lightning::{
    chain::BestBlock,
    ln::{channel_state::ChannelDetails, types::ChannelId},
    sign::KeysManager,
    types::payment::{PaymentHash, PaymentPreimage},
    util::config::UserConfig,
};

use crate::{
    chain::{Chain, Direct},
    figures::{Figures, Plan},
    net::Message,
    node::{DynBroadcaster, DynHandler, DynPersist, Fees, Instant, Keys, Log, Node, Parts, node_id},
    ours::{Ours, Step},
    rng::Rng,
    store::Memory,
};

/// The places of the three nodes: peers at the ends, ours between them.
pub const ENDS: [usize; 2] = [0, 2];
pub const OURS: usize = 1;
const NAMES: [&str; 3] = ["A", "ours", "C"];

pub struct World<K: Keys> {
    pub plan: Plan,
    pub rng: Rng,
    pub chain: Arc<Mutex<Chain>>,
    pub store: Memory,
    pub ours: Ours<K>,
    pub peers: [Node<KeysManager>; 2],
    make_keys: Box<dyn Fn(u64) -> Arc<K>>,
    our_parts: Parts,
    tips: [BestBlock; 3],
    links: [Link; 2],
    pub payments: Vec<Payment>,
    pub channels: BTreeMap<[u8; 32], Channel>,
    pushes: BTreeMap<u128, u64>,
    /// What operators of our node ordered and what its events said, not yet durable: since the last take, and in the commit
    /// that is under way.
    fresh: Vec<Fact>,
    taken: Vec<Fact>,
    /// How often each payment was counted as received, and how many forwards were counted.
    pub news: BTreeMap<[u8; 32], u64>,
    pub counted: u64,
    pub figures: Figures,
    pub violations: Vec<String>,
    pub log: Arc<Mutex<VecDeque<String>>>,
}

/// Between an end and our node.
struct Link {
    connected: bool,
    to_ours: VecDeque<Message>,
    to_end: VecDeque<Message>,
}

#[derive(Clone, Debug)]
pub struct Payment {
    pub hash: PaymentHash,
    preimage: PaymentPreimage,
    pub sender: usize,
    pub receiver: usize,
    pub amount_msat: u64,
    claim: bool,
    pub accepted: bool,
    pub lost: bool,
    pub sent: Option<u64>,
    pub failed: bool,
    pub claimed: bool,
    /// How many HTLCs it was sent in.
    pub parts: u64,
}

/// A channel whose funding transaction was made.
#[derive(Clone, Debug)]
pub struct Channel {
    pub end: usize,
    pub funder: usize,
    pub funding: OutPoint,
    pub capacity_msat: u64,
    pub push_msat: u64,
    pub ordered: Option<CloseOrder>,
    /// What each node had in it when it said that it was closed.
    pub closed: BTreeMap<usize, u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum CloseOrder {
    Cooperative,
    Forced,
}

/// Something that holds only once it is committed.
#[derive(Clone, Debug)]
enum Fact {
    Order(ChannelId, CloseOrder),
    Pay(usize),
    Closed(ChannelId, u64),
    Ended(PaymentHash, Outcome),
    /// A payment was received, as the metrics count it.
    News(PaymentHash),
    /// A forward with its fee was counted.
    Counted,
}

/// How a payment ended, for one of its two ends.
#[derive(Clone, Copy, Debug)]
enum Outcome {
    /// With the fee.
    Sent(Option<u64>),
    Failed,
    Claimed,
}

impl<K: Keys> World<K> {
    pub fn new(plan: Plan, make_keys: impl Fn(u64) -> Arc<K> + 'static) -> Self {
        let mut rng = Rng::new(plan.seed);
        let chain = Arc::new(Mutex::new(Chain::new()));
        for _ in 0..10 {
            chain.lock().unwrap().mine();
        }
        let log = Arc::new(Mutex::new(VecDeque::new()));
        let keep = std::env::var("HOLDFAST_CRASH_LOG").ok().and_then(|n| n.parse().ok()).unwrap_or(0);
        let mut config = UserConfig::default();
        config.channel_handshake_config.minimum_depth = 1 + rng.below(3) as u32;
        config.channel_handshake_config.negotiate_anchors_zero_fee_htlc_tx = rng.one_in(2);
        config.channel_handshake_config.announce_for_forwarding = rng.one_in(2);
        config.channel_handshake_config.max_inbound_htlc_value_in_flight_percent_of_channel = 100;
        // The node leaves its destination open until the close; others fix it when they open.
        config.channel_handshake_config.commit_upfront_shutdown_pubkey = plan.seed.is_multiple_of(2);
        config.channel_handshake_limits.force_announced_channel_preference = false;
        config.manually_accept_inbound_channels = true;
        config.accept_forwards_to_priv_channels = true;
        let parts = |place: usize| Parts {
            fees: Arc::new(Fees),
            log: Arc::new(Log { name: NAMES[place], lines: log.clone(), keep }),
            config: config.clone(),
        };
        let tip = chain.lock().unwrap().tip();
        let peers = ENDS.map(|place| {
            let keys = Arc::new(KeysManager::new(&rng.bytes(), 1, place as u32, true));
            let parts = parts(place);
            let broadcaster: Arc<DynBroadcaster> = Arc::new(Direct(chain.clone()));
            let persist: Arc<DynPersist<KeysManager>> = Arc::new(Instant);
            let monitors = Node::monitors(&parts, &keys, &broadcaster, persist);
            let best_block = chain.lock().unwrap().tip();
            let manager = Node::new_manager(&parts, &keys, &broadcaster, monitors.clone(), best_block);
            let handler: Arc<DynHandler> = manager.clone();
            Node { id: node_id(&*keys), keys, manager, monitors, broadcaster, handler }
        });
        let store = Memory::default();
        let our_parts = parts(OURS);
        let updates_kept = 1 + rng.below(12) as u32;
        let ours = Ours::start(&our_parts, make_keys(0), &store, &chain, plan.order, updates_kept).unwrap();
        let link = || Link { connected: false, to_ours: VecDeque::new(), to_end: VecDeque::new() };
        let mut world = Self {
            plan,
            rng,
            chain,
            store,
            ours,
            peers,
            make_keys: Box::new(make_keys),
            our_parts,
            tips: [tip; 3],
            links: [link(), link()],
            payments: vec![],
            channels: BTreeMap::new(),
            pushes: BTreeMap::new(),
            fresh: vec![],
            taken: vec![],
            news: BTreeMap::new(),
            counted: 0,
            figures: Figures { runs: 1, ..Figures::default() },
            violations: vec![],
            log,
        };
        world.quiesce();
        for link in 0..2 {
            world.connect(link);
        }
        // Two channels a link, so that payments can be split and one can be closed.
        for (link, by_ours) in [(0, false), (0, true), (1, true), (1, false)] {
            world.open(link, by_ours);
            world.quiesce();
        }
        for _ in 0..4 {
            world.mine();
            world.quiesce();
        }
        world
    }

    /// Whatever the dice say.
    pub fn step(&mut self) {
        if self.rng.one_in(self.plan.crash_every) {
            return self.crash();
        }
        if self.rng.below(1000) < self.plan.opens_and_closes {
            return self.close();
        }
        if self.rng.below(1000) < self.plan.opens_and_closes && self.channels.len() < 12 {
            let (link, by_ours) = (self.rng.below(2) as usize, self.rng.one_in(2));
            return self.open(link, by_ours);
        }
        match self.rng.below(1000) {
            0..480 => self.deliver_one(),
            480..600 => self.fetch_our_messages(),
            600..660 => self.our_events(),
            660..820 => drop(self.commit_step()),
            820..900 => self.pay(),
            900..904 => self.mine(),
            904..908 => {
                let link = self.rng.below(2) as usize;
                self.disconnect(link);
            }
            908..995 => {
                let link = self.rng.below(2) as usize;
                self.connect(link);
            }
            995..996 => self.reorganise(),
            996..999 => self.sync_ours(),
            _ => self.ours.node.monitors.rebroadcast_pending_claims(),
        }
    }

    /// Lets everything come to rest without a crash.
    pub fn quiesce(&mut self) {
        for _ in 0..5_000 {
            for link in 0..2 {
                self.connect(link);
            }
            self.sync_ours();
            let mut busy = false;
            while !self.links.iter().all(|link| link.to_end.is_empty() && link.to_ours.is_empty()) {
                self.deliver_one();
                busy = true;
            }
            self.fetch_our_messages();
            self.our_events();
            busy |= self.commit_step() != Step::Nothing;
            if !busy && self.ours.idle() {
                self.fetch_our_messages();
                self.our_events();
                let quiet = self.links.iter().all(|link| link.to_end.is_empty() && link.to_ours.is_empty());
                if quiet && self.commit_step() == Step::Nothing && self.ours.idle() {
                    return;
                }
            }
        }
        self.violations.push("the nodes never come to rest".into());
    }

    fn id(&self, place: usize) -> PublicKey {
        if place == OURS { self.ours.node.id } else { self.peers[place / 2].id }
    }

    pub fn channels_of(&self, place: usize) -> Vec<ChannelDetails> {
        if place == OURS { self.ours.node.channels() } else { self.peers[place / 2].channels() }
    }
}
