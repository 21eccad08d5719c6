//! Three nodes, two links, one chain; and everything that can happen to them, drawn from one seed.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::{Arc, Mutex},
};

use bitcoin::{Amount, OutPoint, secp256k1::PublicKey};
use holdfast_node::store::{
    Effect,
    batch::{Direction, PaymentChange, PaymentKind, PaymentStatus},
};
use lightning::{
    events::{ClosureReason, Event},
    ln::{
        channel_state::ChannelDetails,
        channelmanager::{PaymentId, RecipientOnionFields},
        msgs::Init,
        types::ChannelId,
    },
    routing::router::{Path, Route, RouteHop},
    sign::KeysManager,
    types::{
        features::{ChannelFeatures, NodeFeatures},
        payment::{PaymentHash, PaymentPreimage},
    },
    util::config::UserConfig,
};

use crate::{
    chain::{Chain, Direct},
    net::{Message, deliver, messages},
    node::{DynBroadcaster, DynHandler, DynPersist, Fees, Instant, Keys, Log, Node, Parts, node_id},
    ours::{Order, Ours, Step},
    rng::Rng,
    store::Memory,
};

/// The places of the three nodes: peers at the ends, ours between them.
pub const ENDS: [usize; 2] = [0, 2];
pub const OURS: usize = 1;
const NAMES: [&str; 3] = ["A", "ours", "C"];

/// What forwarding costs at our node: LDK's defaults.
const FORWARD_FEE_MSAT: u64 = 1000;
const FORWARD_DELTA: u32 = 72;
const FINAL_DELTA: u32 = 80;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    pub runs: u64,
    pub crashes: u64,
    pub commits: u64,
    pub payments: u64,
    pub settled: u64,
    pub failed: u64,
    pub lost_before_commit: u64,
    pub channels: u64,
    pub cooperative: u64,
    pub cooperative_seen_on_chain: u64,
    /// Runs that an assertion of LDK's ended.
    pub cut_short: u64,
    pub forced: u64,
}

impl Figures {
    pub fn add(&mut self, other: &Self) {
        self.runs += other.runs;
        self.crashes += other.crashes;
        self.commits += other.commits;
        self.payments += other.payments;
        self.settled += other.settled;
        self.failed += other.failed;
        self.lost_before_commit += other.lost_before_commit;
        self.channels += other.channels;
        self.cooperative += other.cooperative;
        self.cooperative_seen_on_chain += other.cooperative_seen_on_chain;
        self.cut_short += other.cut_short;
        self.forced += other.forced;
    }
}

/// What a run is made of.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    pub seed: u64,
    pub order: Order,
    pub steps: u32,
    /// One step in so many is a crash, roughly.
    pub crash_every: u64,
    /// Whether channels are closed by force as well.
    pub force_closes: bool,
    /// How often a channel is opened, and how often one is closed, in a thousand steps.
    pub opens_and_closes: u64,
}

pub struct World<K: Keys> {
    pub plan: Plan,
    pub rng: Rng,
    pub chain: Arc<Mutex<Chain>>,
    pub store: Memory,
    pub ours: Ours<K>,
    pub peers: [Node<KeysManager>; 2],
    make_keys: Box<dyn Fn(u64) -> Arc<K>>,
    our_parts: Parts,
    heights: [u32; 3],
    links: [Link; 2],
    pub payments: Vec<Payment>,
    pub channels: BTreeMap<[u8; 32], Channel>,
    pushes: BTreeMap<u128, u64>,
    /// What operators of our node ordered and what its events said, not yet durable: since the last take, and in the commit
    /// that is under way.
    fresh: Vec<Fact>,
    taken: Vec<Fact>,
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
        config.channel_handshake_limits.force_announced_channel_preference = false;
        config.manually_accept_inbound_channels = true;
        config.accept_forwards_to_priv_channels = true;
        let parts = |place: usize| Parts {
            fees: Arc::new(Fees),
            log: Arc::new(Log { name: NAMES[place], lines: log.clone(), keep }),
            config: config.clone(),
        };
        let height = chain.lock().unwrap().height();
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
            heights: [height; 3],
            links: [link(), link()],
            payments: vec![],
            channels: BTreeMap::new(),
            pushes: BTreeMap::new(),
            fresh: vec![],
            taken: vec![],
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
            908..996 => {
                let link = self.rng.below(2) as usize;
                self.connect(link);
            }
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

    pub fn mine(&mut self) {
        self.chain.lock().unwrap().mine();
        for (peer, place) in ENDS.into_iter().enumerate() {
            self.sync(place);
            self.settle_peer(peer);
        }
        if self.rng.one_in(2) {
            self.sync_ours();
        }
    }

    fn sync_ours(&mut self) {
        self.sync(OURS);
    }

    fn sync(&mut self, place: usize) {
        loop {
            let next = self.heights[place] + 1;
            let block = {
                let chain = self.chain.lock().unwrap();
                if next > chain.height() {
                    return;
                }
                chain.block(next).clone()
            };
            match place {
                OURS => self.ours.node.connect(&block, next),
                _ => self.peers[place / 2].connect(&block, next),
            }
            self.heights[place] = next;
        }
    }

    fn id(&self, place: usize) -> PublicKey {
        if place == OURS { self.ours.node.id } else { self.peers[place / 2].id }
    }

    pub fn channels_of(&self, place: usize) -> Vec<ChannelDetails> {
        if place == OURS { self.ours.node.channels() } else { self.peers[place / 2].channels() }
    }

    // Links and messages.

    fn connect(&mut self, link: usize) {
        if self.links[link].connected {
            return;
        }
        // A peer manager fetches all the time; nothing is left over for the next connection.
        self.fetch_our_messages();
        self.settle_peer(link);
        self.links[link].connected = true;
        let (peer, ours) = (&self.peers[link], &self.ours.node);
        let init = |features| Init { features, networks: None, remote_network_address: None };
        let our_init = init(ours.handler.provided_init_features(peer.id));
        let their_init = init(peer.handler.provided_init_features(ours.id));
        peer.handler.peer_connected(ours.id, &our_init, false).unwrap();
        ours.handler.peer_connected(peer.id, &their_init, true).unwrap();
        self.settle_peer(link);
    }

    fn disconnect(&mut self, link: usize) {
        if !self.links[link].connected {
            return;
        }
        self.ours.node.handler.peer_disconnected(self.peers[link].id);
        self.hang_up(link);
    }

    /// The peer's half of a lost connection.
    fn hang_up(&mut self, link: usize) {
        let state = &mut self.links[link];
        state.to_end.clear();
        state.to_ours.clear();
        if std::mem::take(&mut state.connected) {
            self.peers[link].handler.peer_disconnected(self.ours.node.id);
            self.settle_peer(link);
        }
    }

    fn deliver_one(&mut self) {
        let waiting: Vec<_> = (0..2)
            .flat_map(|link| [(link, true), (link, false)])
            .filter(|(link, to_ours)| {
                let link = &self.links[*link];
                !if *to_ours { &link.to_ours } else { &link.to_end }.is_empty()
            })
            .collect();
        let Some(&(link, to_ours)) = self.rng.pick(&waiting) else { return };
        let queue = if to_ours { &mut self.links[link].to_ours } else { &mut self.links[link].to_end };
        let Some(message) = queue.pop_front() else { return };
        self.our_parts.log.note(format!("{} {} {message:?}", NAMES[ENDS[link]], if to_ours { "->" } else { "<-" }));
        match &message {
            Message::Disconnect => return self.disconnect(link),
            Message::Error(error) => self.check_complaint(&error.channel_id, &error.data, to_ours),
            Message::Warning(warning) => self.check_complaint(&warning.channel_id, &warning.data, to_ours),
            _ => {}
        }
        self.note_under_way();
        let (peer, ours) = (&self.peers[link], &self.ours.node);
        if to_ours {
            deliver(&*ours.handler, peer.id, message);
        } else {
            deliver(&*peer.handler, ours.id, message);
            self.settle_peer(link);
        }
    }

    fn note_under_way(&self) {
        let links = self.links.iter().zip(&self.peers).filter(|(link, _)| !link.to_ours.is_empty());
        *self.ours.under_way.0.lock().unwrap() = links.map(|(_, peer)| peer.id).collect();
    }

    fn fetch_our_messages(&mut self) {
        self.note_under_way();
        for event in self.ours.node.handler.get_and_clear_pending_msg_events() {
            let Some((to, all)) = messages(event) else { continue };
            let Some(link) = (0..2).find(|link| self.peers[*link].id == to) else { continue };
            if self.links[link].connected {
                self.links[link].to_end.extend(all);
            }
        }
    }

    /// Peers are quick and never crash: after each message they do all there is to do.
    fn settle_peer(&mut self, peer: usize) {
        loop {
            let events = self.peers[peer].take_events();
            let mut busy = !events.is_empty();
            for event in events {
                self.handle(ENDS[peer], event);
            }
            if self.peers[peer].manager.needs_pending_htlc_processing() {
                self.peers[peer].manager.process_pending_htlc_forwards();
                busy = true;
            }
            for event in self.peers[peer].handler.get_and_clear_pending_msg_events() {
                let Some((_, all)) = messages(event) else { continue };
                busy = true;
                if self.links[peer].connected {
                    self.links[peer].to_ours.extend(all);
                }
            }
            if !busy {
                return;
            }
        }
    }

    fn our_events(&mut self) {
        let queue = self.ours.queue.clone();
        queue.with_state(|| {
            if self.ours.node.manager.needs_pending_htlc_processing() {
                self.ours.node.manager.process_pending_htlc_forwards();
            }
            for event in self.ours.node.take_events() {
                self.handle(OURS, event);
            }
        });
    }

    // The commit loop and its end.

    fn commit_step(&mut self) -> Step {
        let step = self.ours.commit_step(&mut self.store);
        match step {
            Step::Took => self.taken.append(&mut self.fresh),
            Step::Nothing if self.ours.idle() => {
                self.taken.append(&mut self.fresh);
                self.commit_facts();
            }
            Step::Wrote => self.commit_facts(),
            Step::Nothing | Step::Acknowledged => {}
        }
        step
    }

    fn commit_facts(&mut self) {
        for fact in std::mem::take(&mut self.taken) {
            match fact {
                Fact::Order(id, order) => self.order(id, order),
                Fact::Pay(index) => self.payments[index].accepted = true,
                Fact::Ended(hash, outcome) => self.ended(hash, outcome),
                Fact::Closed(id, balance) => {
                    if let Some(channel) = self.channels.get_mut(&id.0) {
                        channel.closed.insert(OURS, balance);
                    }
                }
            }
        }
    }

    fn order(&mut self, id: ChannelId, order: CloseOrder) {
        if let Some(channel) = self.channels.get_mut(&id.0) {
            channel.ordered = channel.ordered.max(Some(order));
        }
    }

    pub fn crash(&mut self) {
        self.figures.crashes += 1;
        self.our_parts.log.note("--- crash".into());
        for fact in std::mem::take(&mut self.fresh).into_iter().chain(std::mem::take(&mut self.taken)) {
            if let Fact::Pay(index) = fact {
                self.payments[index].lost = true;
                self.figures.lost_before_commit += 1;
            }
        }
        for link in 0..2 {
            self.hang_up(link);
        }
        let updates_kept = 1 + self.rng.below(12) as u32;
        let keys = (self.make_keys)(self.figures.crashes);
        let ours = Ours::start(&self.our_parts, keys, &self.store, &self.chain, self.plan.order, updates_kept);
        match ours {
            Ok(ours) => self.ours = ours,
            Err(error) => panic!("our node does not load: {error}"),
        }
        self.heights[OURS] = self.chain.lock().unwrap().height();
    }

    // What operators do.

    fn open(&mut self, link: usize, by_ours: bool) {
        if !self.links[link].connected {
            return;
        }
        let user_id = u128::from(self.rng.next());
        let capacity = 600_000 + self.rng.below(600_000);
        let push_msat = capacity * 300 + self.rng.below(100_000_000);
        self.pushes.insert(user_id, push_msat);
        let (peer, ours) = (&self.peers[link], &self.ours.node);
        // Refused when the peer is busy; then there is no channel.
        if by_ours {
            let queue = self.ours.queue.clone();
            let _ = queue.with_state(|| ours.manager.create_channel(peer.id, capacity, push_msat, user_id, None, None));
        } else {
            let _ = peer.manager.create_channel(ours.id, capacity, push_msat, user_id, None, None);
            self.settle_peer(link);
        }
    }

    /// Closes a channel, if enough would be left.
    fn close(&mut self) {
        let link = self.rng.below(2) as usize;
        let by_ours = self.rng.one_in(2);
        let place = if by_ours { OURS } else { ENDS[link] };
        let other = self.id(if by_ours { ENDS[link] } else { OURS });
        let usable: Vec<_> = self
            .channels_of(place)
            .into_iter()
            .filter(|c| c.counterparty.node_id == other && c.is_channel_ready)
            .collect();
        if usable.len() < 2 {
            return;
        }
        let id = usable[self.rng.below(usable.len() as u64) as usize].channel_id;
        let order =
            if self.plan.force_closes && self.rng.one_in(3) { CloseOrder::Forced } else { CloseOrder::Cooperative };
        let manager = (&self.ours.node.manager, &self.peers[link].manager);
        let why = || "ordered".to_string();
        let done = match (by_ours, order) {
            (true, CloseOrder::Cooperative) => self.ours.queue.with_state(|| manager.0.close_channel(&id, &other)),
            (true, CloseOrder::Forced) => {
                self.ours.queue.with_state(|| manager.0.force_close_broadcasting_latest_txn(&id, &other, why()))
            }
            (false, CloseOrder::Cooperative) => manager.1.close_channel(&id, &other),
            (false, CloseOrder::Forced) => manager.1.force_close_broadcasting_latest_txn(&id, &other, why()),
        };
        if done.is_err() {
            return;
        }
        if by_ours {
            self.fresh.push(Fact::Order(id, order));
        } else {
            self.order(id, order);
            self.settle_peer(link);
        }
    }

    pub fn pay(&mut self) {
        let sender = self.rng.below(3) as usize;
        let receiver = (sender + 1 + self.rng.below(2) as usize) % 3;
        let amount_msat = match self.rng.below(3) {
            // An HTLC below the dust limit is lost to its receiver when the channel is closed by force.
            0 if !self.plan.force_closes => 1000 + self.rng.below(300_000),
            1 => 1_000_000 + self.rng.below(5_000_000),
            _ => 5_000_000 + self.rng.below(40_000_000),
        };
        let preimage = PaymentPreimage(self.rng.bytes());
        let hash = PaymentHash::from(preimage);
        let parts = if amount_msat > 1_000_000 && self.rng.one_in(4) { 2 } else { 1 };
        let Some(route) = self.route(sender, receiver, amount_msat, parts) else { return };
        let secret = {
            let manager = |place: usize| &self.peers[place / 2].manager;
            let year = 31_536_000;
            match receiver {
                OURS => self.ours.node.manager.create_inbound_payment_for_hash(hash, Some(amount_msat), year, None),
                place => manager(place).create_inbound_payment_for_hash(hash, Some(amount_msat), year, None),
            }
        };
        let onion = RecipientOnionFields::secret_only(secret.unwrap());
        let id = PaymentId(hash.0);
        let index = self.payments.len();
        let claim = !self.rng.one_in(8);
        self.payments.push(Payment {
            hash,
            preimage,
            sender,
            receiver,
            amount_msat,
            claim,
            accepted: sender != OURS,
            lost: false,
            sent: None,
            failed: false,
            claimed: false,
        });
        self.figures.payments += 1;
        if sender == OURS {
            let queue = self.ours.queue.clone();
            let done = queue.with_state(|| self.ours.node.manager.send_payment_with_route(route, hash, onion, id));
            done.unwrap();
            self.fresh.push(Fact::Pay(index));
        } else {
            self.peers[sender / 2].manager.send_payment_with_route(route, hash, onion, id).unwrap();
            self.settle_peer(sender / 2);
        }
    }

    fn route(&mut self, sender: usize, receiver: usize, amount_msat: u64, parts: u64) -> Option<Route> {
        let mut paths = Vec::new();
        let mut used = BTreeSet::new();
        for part in 0..parts {
            let amount = amount_msat / parts + if part == 0 { amount_msat % parts } else { 0 };
            let forwarded = sender != OURS && receiver != OURS;
            let fee = if forwarded { FORWARD_FEE_MSAT } else { 0 };
            let next = if sender == OURS { receiver } else { OURS };
            let first = self.pick_channel(sender, next, amount + fee, &used)?;
            used.insert(first.channel_id.0);
            let mut hops = vec![hop(self.id(next), first.get_outbound_payment_scid()?, amount, FINAL_DELTA)];
            if forwarded {
                let second = self.pick_channel(OURS, receiver, amount, &used)?;
                used.insert(second.channel_id.0);
                hops[0].fee_msat = fee;
                hops[0].cltv_expiry_delta = FORWARD_DELTA;
                hops.push(hop(self.id(receiver), second.short_channel_id?, amount, FINAL_DELTA));
            }
            paths.push(Path { hops, blinded_tail: None });
        }
        Some(Route { paths, route_params: None })
    }

    fn pick_channel(&mut self, from: usize, to: usize, msat: u64, not: &BTreeSet<[u8; 32]>) -> Option<ChannelDetails> {
        let to = self.id(to);
        let fits: Vec<_> = self
            .channels_of(from)
            .into_iter()
            .filter(|c| c.is_usable && c.counterparty.node_id == to && !not.contains(&c.channel_id.0))
            .filter(|c| (c.next_outbound_htlc_minimum_msat..=c.next_outbound_htlc_limit_msat).contains(&msat))
            .collect();
        self.rng.pick(&fits).cloned()
    }

    // What nodes say.

    /// Ours says so to an operator only once it is committed; what a crash takes back was never said.
    fn tell(&mut self, place: usize, hash: PaymentHash, outcome: Outcome) {
        match place {
            OURS => self.fresh.push(Fact::Ended(hash, outcome)),
            _ => self.ended(hash, outcome),
        }
    }

    fn ended(&mut self, hash: PaymentHash, outcome: Outcome) {
        let payment = self.payment(hash);
        match outcome {
            Outcome::Sent(fee) => payment.sent = fee.or(payment.sent).or(Some(0)),
            Outcome::Failed => payment.failed = true,
            Outcome::Claimed => payment.claimed = true,
        }
        if payment.failed && payment.sent.is_some() {
            self.violations.push(format!("payment {hash} failed and was sent"));
        }
    }

    fn handle(&mut self, place: usize, event: Event) {
        self.our_parts.log.note(format!("{} event {event:?}", NAMES[place]));
        match event {
            Event::OpenChannelRequest { temporary_channel_id, counterparty_node_id, .. } => {
                let user_id = u128::from(self.rng.next());
                let (id, from) = (temporary_channel_id, counterparty_node_id);
                // Fails when the peer has gone meanwhile.
                let _ = match place {
                    OURS => self.ours.node.manager.accept_inbound_channel(&id, &from, user_id, None),
                    _ => self.peers[place / 2].manager.accept_inbound_channel(&id, &from, user_id, None),
                };
            }
            Event::FundingGenerationReady {
                temporary_channel_id,
                counterparty_node_id,
                channel_value_satoshis,
                output_script,
                user_channel_id,
            } => {
                let value = Amount::from_sat(channel_value_satoshis);
                let tx = self.chain.lock().unwrap().fund(output_script, value);
                let funding = OutPoint { txid: tx.compute_txid(), vout: 0 };
                let id = ChannelId::v1_from_funding_txid(funding.txid.as_ref(), 0);
                let end = *ENDS.iter().find(|end| **end == place || self.id(**end) == counterparty_node_id).unwrap();
                let channel = Channel {
                    end,
                    funder: place,
                    funding,
                    capacity_msat: channel_value_satoshis * 1000,
                    push_msat: self.pushes[&user_channel_id],
                    ordered: None,
                    closed: BTreeMap::new(),
                };
                // Fails when the peer has gone meanwhile.
                let done = match place {
                    OURS => self.ours.node.manager.funding_transaction_generated(
                        temporary_channel_id,
                        counterparty_node_id,
                        tx,
                    ),
                    _ => self.peers[place / 2].manager.funding_transaction_generated(
                        temporary_channel_id,
                        counterparty_node_id,
                        tx,
                    ),
                };
                if done.is_ok() {
                    self.channels.insert(id.0, channel);
                }
            }
            Event::PaymentClaimable { payment_hash, .. } => {
                let payment = self.payments.iter().find(|p| p.hash == payment_hash).unwrap().clone();
                match (place, payment.claim) {
                    (OURS, true) => self.ours.node.manager.claim_funds(payment.preimage),
                    (OURS, false) => self.ours.node.manager.fail_htlc_backwards(&payment_hash),
                    (_, true) => self.peers[place / 2].manager.claim_funds(payment.preimage),
                    (_, false) => self.peers[place / 2].manager.fail_htlc_backwards(&payment_hash),
                }
            }
            Event::PaymentClaimed { payment_hash, amount_msat, .. } => {
                let expected = self.payment(payment_hash).amount_msat;
                if expected != amount_msat {
                    self.violations.push(format!("claimed {amount_msat} of {expected} msat"));
                }
                self.tell(place, payment_hash, Outcome::Claimed);
                self.record(place, payment_hash.0, Direction::Inbound, PaymentStatus::Succeeded);
            }
            Event::PaymentSent { payment_hash, fee_paid_msat, .. } => {
                self.tell(place, payment_hash, Outcome::Sent(fee_paid_msat));
                self.record(place, payment_hash.0, Direction::Outbound, PaymentStatus::Succeeded);
            }
            Event::PaymentFailed { payment_id, .. } => {
                self.tell(place, PaymentHash(payment_id.0), Outcome::Failed);
                self.record(place, payment_id.0, Direction::Outbound, PaymentStatus::Failed);
            }
            Event::ChannelClosed { channel_id, reason, last_local_balance_msat, .. } => {
                self.check_close(place, channel_id, &reason);
                let balance = last_local_balance_msat.unwrap_or(0);
                if place == OURS {
                    self.fresh.push(Fact::Closed(channel_id, balance));
                } else if let Some(channel) = self.channels.get_mut(&channel_id.0) {
                    channel.closed.insert(place, balance);
                }
            }
            Event::BumpTransaction(bump) => match place {
                OURS => self.ours.node.bump(&bump),
                _ => self.peers[place / 2].bump(&bump),
            },
            _ => {}
        }
    }

    fn payment(&mut self, hash: PaymentHash) -> &mut Payment {
        self.payments.iter_mut().find(|p| p.hash == hash).unwrap()
    }

    fn record(&mut self, place: usize, payment_hash: [u8; 32], direction: Direction, status: PaymentStatus) {
        if place != OURS {
            return;
        }
        let change = PaymentChange::new(payment_hash, direction, PaymentKind::Bolt11, status);
        self.ours.queue.effect(Effect::Payment(change));
    }

    /// The order to close a channel, the ones that are not yet durable included.
    fn ordered(&self, id: &ChannelId) -> Option<CloseOrder> {
        let durable = self.channels.get(&id.0).and_then(|channel| channel.ordered);
        let pending = self.fresh.iter().chain(&self.taken).filter_map(|fact| match fact {
            Fact::Order(other, order) if other == id => Some(*order),
            _ => None,
        });
        pending.chain(durable).max()
    }

    /// Whether a channel's funding transaction is on its way. One that never was is dropped without harm.
    pub fn funded(&self, id: &[u8; 32]) -> bool {
        self.channels.get(id).is_some_and(|channel| self.chain.lock().unwrap().knows(&channel.funding.txid))
    }

    fn check_close(&mut self, place: usize, id: ChannelId, reason: &ClosureReason) {
        use ClosureReason::*;
        let fits = match self.ordered(&id) {
            Some(CloseOrder::Forced) => true,
            Some(CloseOrder::Cooperative) => matches!(
                reason,
                CounterpartyInitiatedCooperativeClosure | LocallyInitiatedCooperativeClosure | CommitmentTxConfirmed
            ),
            None => !self.funded(&id.0),
        };
        if *reason == CommitmentTxConfirmed && self.ordered(&id) == Some(CloseOrder::Cooperative) {
            self.figures.cooperative_seen_on_chain += 1;
        }
        if !fits {
            let ordered = self.ordered(&id);
            self.violations.push(format!("{} closed {id}, ordered {ordered:?}, because {reason:?}", NAMES[place]));
        }
    }

    /// Peers have no reason to complain about a channel that lives.
    fn check_complaint(&mut self, id: &ChannelId, data: &str, to_ours: bool) {
        if self.funded(&id.0) && self.ordered(id).is_none() {
            let who = if to_ours { "a peer" } else { "our node" };
            self.violations.push(format!("{who} complains about {id}: {data}"));
        }
    }
}

fn hop(pubkey: PublicKey, short_channel_id: u64, fee_msat: u64, cltv_expiry_delta: u32) -> RouteHop {
    RouteHop {
        pubkey,
        node_features: NodeFeatures::empty(),
        short_channel_id,
        channel_features: ChannelFeatures::empty(),
        fee_msat,
        cltv_expiry_delta,
        maybe_announced_channel: false,
    }
}
