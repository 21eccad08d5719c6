//! Connections to peers: made at once after a takeover, and again whenever they break.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use bitcoin::secp256k1::PublicKey;
use holdfast_proto::error::Error;
use lightning::routing::gossip::NodeId;
use tokio::sync::Notify;

use super::types::{Graph, PeerManager};
use crate::net::Outbound;

const FIRST_RETRY: Duration = Duration::from_millis(200);
const LONGEST_RETRY: Duration = Duration::from_secs(30);
/// A connection that ends sooner was as good as none: who hangs up at once is dialed less and less often.
const STEADY: Duration = Duration::from_secs(10);
/// How soon a broken connection is noticed when nobody says so.
const LOOK: Duration = Duration::from_millis(250);
/// Of the addresses that a node announces, so many count: an announcement has room for thousands, and each is tried for
/// seconds.
pub(super) const MOST_ANNOUNCED: usize = 8;
/// Nodes dialed at once because somebody's message is for them.
const MOST_PASSING: usize = 32;

/// Knows whom the node wants to be connected to, and sees to it.
pub struct Dialer {
    peers: Arc<PeerManager>,
    graph: Arc<Graph>,
    outbound: Arc<Outbound>,
    wanted: Mutex<HashMap<PublicKey, Wanted>>,
    passing: Passing,
    look: Notify,
}

/// Who is being dialed for a message.
#[derive(Default)]
struct Passing(Mutex<HashSet<PublicKey>>);

impl Passing {
    /// False if it is being dialed already, or too many are.
    fn begin(&self, node_id: PublicKey) -> bool {
        let mut passing = self.lock();
        passing.len() < MOST_PASSING && passing.insert(node_id)
    }

    fn end(&self, node_id: &PublicKey) {
        self.lock().remove(node_id);
    }

    fn lock(&self) -> MutexGuard<'_, HashSet<PublicKey>> {
        // Each change is a single insert or remove.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Debug)]
struct Wanted {
    /// `host:port` each. Without one, what the peer announced is used.
    addresses: Vec<String>,
    /// Where it was when we last connected to it.
    last: Option<String>,
    /// In the list of peers that an operator made, and so kept even without a channel.
    persistent: bool,
    /// Dials since it was last connected for a while, whatever came of them.
    dials: u32,
    next: Instant,
    /// When the last dial succeeded, if it did.
    connected: Option<Instant>,
    dialing: bool,
}

/// A peer that the node connects to by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KnownPeer {
    pub node_id: PublicKey,
    pub address: Option<String>,
    pub persistent: bool,
}

impl Dialer {
    pub fn new(peers: Arc<PeerManager>, graph: Arc<Graph>, outbound: Arc<Outbound>) -> Self {
        Self { peers, graph, outbound, wanted: Mutex::default(), passing: Passing::default(), look: Notify::new() }
    }

    /// Wants a peer whom an operator named.
    pub fn add(&self, node_id: PublicKey, address: &str) {
        let mut wanted = self.lock();
        let peer = wanted.entry(node_id).or_insert_with(Wanted::new);
        peer.persistent = true;
        peer.addresses.retain(|known| known != address);
        peer.addresses.insert(0, address.to_owned());
        drop(wanted);
        self.look.notify_one();
    }

    /// Wants a peer because there is a channel with it.
    pub fn has_channel(&self, node_id: PublicKey) {
        self.lock().entry(node_id).or_insert_with(Wanted::new);
        self.look.notify_one();
    }

    /// Wants a peer for what is left of a lost channel with it: one that may be at these addresses.
    pub fn recovers(&self, node_id: PublicKey, addresses: &[String]) {
        let mut wanted = self.lock();
        let peer = wanted.entry(node_id).or_insert_with(Wanted::new);
        let new: Vec<_> = addresses.iter().filter(|address| !peer.addresses.contains(address)).cloned().collect();
        peer.addresses.extend(new);
        drop(wanted);
        self.look.notify_one();
    }

    /// Wants a peer no more, unless it is wanted again for its channel.
    pub fn remove(&self, node_id: &PublicKey, has_channel: bool) {
        let mut wanted = self.lock();
        if !has_channel {
            wanted.remove(node_id);
        } else if let Some(peer) = wanted.get_mut(node_id) {
            peer.persistent = false;
            // What an operator disconnects stays so for a moment.
            peer.next = Instant::now() + LONGEST_RETRY;
        }
    }

    /// The last channel with a peer has closed: it is wanted no more, unless an operator wants it.
    pub fn has_no_channel(&self, node_id: &PublicKey) {
        let mut wanted = self.lock();
        if wanted.get(node_id).is_some_and(|peer| !peer.persistent) {
            wanted.remove(node_id);
        }
    }

    /// Where a peer may be found: as an operator said, where it was last, and as it announced.
    pub fn addresses(&self, node_id: &PublicKey) -> Vec<String> {
        let mut addresses = Vec::new();
        if let Some(peer) = self.lock().get(node_id) {
            addresses.extend(peer.addresses.iter().chain(&peer.last).cloned());
        }
        addresses.extend(announced(&self.graph, node_id));
        let mut seen = HashSet::new();
        addresses.retain(|address| seen.insert(address.clone()));
        addresses
    }

    pub fn known(&self) -> Vec<KnownPeer> {
        let known = |(node_id, peer): (&PublicKey, &Wanted)| KnownPeer {
            node_id: *node_id,
            address: peer.last.as_ref().or(peer.addresses.first()).cloned(),
            persistent: peer.persistent,
        };
        self.lock().iter().map(known).collect()
    }

    pub fn is_connected(&self, node_id: &PublicKey) -> bool {
        self.peers.peer_by_node_id(node_id).is_some()
    }

    /// Whether nothing is known that speaks against a channel with this peer being usable soon.
    pub fn is_hopeful(&self, node_id: &PublicKey) -> bool {
        self.is_connected(node_id) || self.lock().get(node_id).is_some_and(Wanted::is_hopeful)
    }

    /// Connects and shakes hands, unless connected already.
    pub async fn connect(&self, node_id: PublicKey, address: &str) -> Result<(), Error> {
        if self.is_connected(&node_id) {
            return Ok(());
        }
        let attempt = async {
            let away = |why: String| Error::unavailable(format!("peer {node_id} at {address}: {why}"));
            // Streams to different peers share no circuit of Tor's.
            let stream = self.outbound.connect(address, &node_id.to_string()).await.map_err(away)?;
            let stream = stream.into_std().map_err(|error| away(error.to_string()))?;
            let closed = lightning_net_tokio::setup_outbound(self.peers.clone(), node_id, stream);
            tokio::pin!(closed);
            // The peer manager tells nobody when a handshake is done.
            let mut look = tokio::time::interval(Duration::from_millis(2));
            loop {
                tokio::select! {
                    () = &mut closed => return Err(away("it closed the connection".into())),
                    _ = look.tick() => if self.is_connected(&node_id) {
                        if let Some(peer) = self.lock().get_mut(&node_id) {
                            peer.last = Some(address.to_owned());
                        }
                        return Ok(());
                    },
                }
            }
        };
        // For connecting and shaking hands.
        match tokio::time::timeout(self.outbound.patience(address), attempt).await {
            Ok(result) => result,
            Err(_) => Err(Error::unavailable(format!("peer {node_id} at {address}: no answer in time"))),
        }
    }

    /// Tries each address once, without being waited for. Anybody's message can make this happen, and the addresses are
    /// what some node said of itself: so few are dialed at once, and few addresses of each.
    pub fn dial_in_background(self: &Arc<Self>, node_id: PublicKey, addresses: Vec<String>) {
        if !self.passing.begin(node_id) {
            return;
        }
        let this = self.clone();
        tokio::spawn(async move {
            for address in addresses.into_iter().take(MOST_ANNOUNCED) {
                match this.connect(node_id, &address).await {
                    Ok(()) => break,
                    Err(error) => tracing::debug!(%error, "could not connect"),
                }
            }
            this.passing.end(&node_id);
        });
    }

    /// Keeps the wanted connections up, until dropped.
    pub async fn run(self: Arc<Self>) {
        loop {
            for (node_id, addresses) in self.due() {
                let this = self.clone();
                tokio::spawn(async move {
                    let mut last = Err(Error::unavailable(format!("peer {node_id}: no address is known")));
                    for address in addresses {
                        last = this.connect(node_id, &address).await;
                        if last.is_ok() {
                            break;
                        }
                    }
                    this.dialed(&node_id, last);
                });
            }
            let _ = tokio::time::timeout(LOOK, self.look.notified()).await;
        }
    }

    /// Those who are to be dialed now, and where; they count as being dialed from here on.
    fn due(&self) -> Vec<(PublicKey, Vec<String>)> {
        let now = Instant::now();
        let is_due = |peer: &Wanted| !peer.dialing && peer.next <= now;
        let candidates: Vec<PublicKey> =
            self.lock().iter().filter(|(_, peer)| is_due(peer)).map(|(node_id, _)| *node_id).collect();
        // Not under the lock: events take it while they hold the node's state, for which the peer manager may wait.
        let (there, away): (Vec<_>, Vec<_>) = candidates.into_iter().partition(|node_id| self.is_connected(node_id));
        for node_id in there {
            if let Some(peer) = self.lock().get_mut(&node_id) {
                peer.is_there(now);
            }
        }
        let mut due = Vec::new();
        for node_id in away {
            if let Some(peer) = self.lock().get_mut(&node_id).filter(|peer| is_due(peer)) {
                peer.dialing = true;
                due.push(node_id);
            }
        }
        due.into_iter().map(|node_id| (node_id, self.addresses(&node_id))).collect()
    }

    fn dialed(&self, node_id: &PublicKey, result: Result<(), Error>) {
        if let Some(peer) = self.lock().get_mut(node_id) {
            peer.dialing = false;
            match result {
                Ok(()) => {
                    tracing::info!(peer = %node_id, "connected");
                    peer.connected = Some(Instant::now());
                }
                Err(error) => {
                    peer.connected = None;
                    if peer.dials == 0 {
                        tracing::info!(%error, "cannot connect to a peer; trying again from time to time");
                    }
                }
            }
            peer.wait(Instant::now(), chance());
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<PublicKey, Wanted>> {
        // Each change is complete in itself.
        self.wanted.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Wanted {
    fn new() -> Self {
        Self {
            addresses: Vec::new(),
            last: None,
            persistent: false,
            dials: 0,
            next: Instant::now(),
            connected: None,
            dialing: false,
        }
    }

    /// Not dialed yet, or with success.
    fn is_hopeful(&self) -> bool {
        self.dials == 0 || self.connected.is_some()
    }

    /// After a dial, whatever came of it: how long the connection lasts is not known yet.
    fn wait(&mut self, now: Instant, chance: f64) {
        self.next = now + pause_after(self.dials, chance);
        self.dials += 1;
    }

    /// Connected at `now`. When a connection that has held for a while is lost, the peer is dialed at once.
    fn is_there(&mut self, now: Instant) {
        if self.connected.is_none_or(|since| now.duration_since(since) >= STEADY) {
            self.dials = 0;
        }
    }
}

/// Where a node says that it is.
fn announced(graph: &Graph, node_id: &PublicKey) -> Vec<String> {
    let graph = graph.read_only();
    let node = graph.nodes().get(&NodeId::from_pubkey(node_id));
    let addresses = node.and_then(|node| node.announcement_info.as_ref()).map(|info| info.addresses());
    addresses.unwrap_or_default().iter().take(MOST_ANNOUNCED).map(ToString::to_string).collect()
}

/// Doubles up to the longest, and is then shortened by up to a half, as `chance` (0 to 1) has it: peers that went away
/// together are not dialed together for ever.
fn pause_after(dials: u32, chance: f64) -> Duration {
    let longest = FIRST_RETRY.saturating_mul(1 << dials.min(16)).min(LONGEST_RETRY);
    longest.mul_f64(1.0 - chance / 2.0)
}

fn chance() -> f64 {
    // Without the kernel's numbers there is no chance, and nothing depends on it.
    f64::from(getrandom::u32().unwrap_or(0)) / f64::from(u32::MAX)
}

#[cfg(test)]
mod tests {
    use bitcoin::{
        Network,
        secp256k1::{Secp256k1, SecretKey},
    };
    use lightning::{
        ln::msgs::{SocketAddress, UnsignedNodeAnnouncement},
        routing::gossip::{NetworkGraph, NodeAlias},
        types::features::{ChannelFeatures, NodeFeatures},
    };

    use super::*;
    use crate::lightning::logger::TracingLogger;

    fn node(number: u16) -> PublicKey {
        let mut bytes = [1; 32];
        bytes[..2].copy_from_slice(&number.to_be_bytes());
        SecretKey::from_slice(&bytes).unwrap().public_key(&Secp256k1::new())
    }

    #[test]
    fn few_are_dialed_at_once_for_messages_and_each_once() {
        let passing = Passing::default();
        assert!(passing.begin(node(0)) && !passing.begin(node(0)));
        for other in 1..MOST_PASSING as u16 {
            assert!(passing.begin(node(other)));
        }
        assert!(!passing.begin(node(999)));
        passing.end(&node(5));
        assert!(passing.begin(node(999)));
    }

    #[test]
    fn of_a_thousand_addresses_that_a_node_announces_few_count() {
        let graph: Graph = NetworkGraph::new(Network::Regtest, Arc::new(TracingLogger));
        let (one, two) = (NodeId::from_pubkey(&node(1)), NodeId::from_pubkey(&node(2)));
        let now = crate::lightning::payments::unix_now();
        graph.add_channel_from_partial_announcement(1 << 40, None, now, ChannelFeatures::empty(), one, two).unwrap();
        let address = |n: u16| SocketAddress::TcpIpV4 { addr: [10, 0, (n >> 8) as u8, n as u8], port: 9735 };
        let announcement = UnsignedNodeAnnouncement {
            features: NodeFeatures::empty(),
            timestamp: now as u32,
            node_id: one,
            rgb: [0; 3],
            alias: NodeAlias([0; 32]),
            addresses: (0..1000).map(address).collect(),
            excess_address_data: Vec::new(),
            excess_data: Vec::new(),
        };
        graph.update_node_from_unsigned_announcement(&announcement).unwrap();
        let found = announced(&graph, &node(1));
        assert_eq!((found.len(), found[0].as_str()), (MOST_ANNOUNCED, "10.0.0.0:9735"));
        assert!(announced(&graph, &node(2)).is_empty());
    }

    #[test]
    fn who_hangs_up_at_once_is_dialed_ever_less_and_who_stayed_at_once() {
        let (mut peer, start) = (Wanted::new(), Instant::now());
        for dials in 0..20 {
            peer.connected = Some(start);
            peer.wait(start, 0.0);
            peer.is_there(start + STEADY / 2);
            assert_eq!(peer.next - start, pause_after(dials, 0.0));
            assert!(peer.is_hopeful());
        }
        peer.connected = None;
        assert!(!peer.is_hopeful());
        peer.connected = Some(start);
        peer.is_there(start + STEADY);
        assert_eq!(peer.dials, 0);
        assert!(peer.next <= start + LONGEST_RETRY);
    }

    #[test]
    fn pauses_grow_and_end_somewhere() {
        assert_eq!(pause_after(0, 0.0), FIRST_RETRY);
        assert_eq!(pause_after(1, 0.0), FIRST_RETRY * 2);
        assert_eq!(pause_after(40, 0.0), LONGEST_RETRY);
    }

    #[test]
    fn chance_shortens_a_pause_by_up_to_a_half() {
        assert_eq!(pause_after(40, 1.0), LONGEST_RETRY / 2);
        assert_eq!(pause_after(0, 0.5), FIRST_RETRY.mul_f64(0.75));
        let drawn: Vec<f64> = (0..50).map(|_| chance()).collect();
        assert!(drawn.iter().all(|chance| (0.0..=1.0).contains(chance)));
        assert!(drawn.iter().any(|other| *other != drawn[0]));
    }
}
