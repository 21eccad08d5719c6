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
/// How soon a broken connection is noticed when nobody says so.
const LOOK: Duration = Duration::from_millis(250);

/// Knows whom the node wants to be connected to, and sees to it.
pub struct Dialer {
    peers: Arc<PeerManager>,
    graph: Arc<Graph>,
    outbound: Arc<Outbound>,
    wanted: Mutex<HashMap<PublicKey, Wanted>>,
    look: Notify,
}

#[derive(Debug)]
struct Wanted {
    /// `host:port` each. Without one, what the peer announced is used.
    addresses: Vec<String>,
    /// Where it was when we last connected to it.
    last: Option<String>,
    /// In the list of peers that an operator made, and so kept even without a channel.
    persistent: bool,
    failures: u32,
    next: Instant,
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
        Self { peers, graph, outbound, wanted: Mutex::default(), look: Notify::new() }
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
        addresses.extend(self.announced(node_id));
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
        self.is_connected(node_id) || self.lock().get(node_id).is_some_and(|peer| peer.failures == 0)
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

    /// Tries each address once, without being waited for.
    pub fn dial_in_background(self: &Arc<Self>, node_id: PublicKey, addresses: Vec<String>) {
        let this = self.clone();
        tokio::spawn(async move {
            for address in addresses {
                match this.connect(node_id, &address).await {
                    Ok(()) => return,
                    Err(error) => tracing::debug!(%error, "could not connect"),
                }
            }
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
                        last = this.connect(node_id, &address).await.map(|()| address);
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
        let away: Vec<PublicKey> = candidates.into_iter().filter(|node_id| !self.is_connected(node_id)).collect();
        let mut due = Vec::new();
        for node_id in away {
            if let Some(peer) = self.lock().get_mut(&node_id).filter(|peer| is_due(peer)) {
                peer.dialing = true;
                due.push(node_id);
            }
        }
        due.into_iter().map(|node_id| (node_id, self.addresses(&node_id))).collect()
    }

    fn dialed(&self, node_id: &PublicKey, result: Result<String, Error>) {
        if let Some(peer) = self.lock().get_mut(node_id) {
            peer.dialing = false;
            match result {
                Ok(address) => {
                    tracing::info!(peer = %node_id, "connected");
                    peer.last = Some(address);
                    peer.failures = 0;
                    peer.next = Instant::now();
                }
                Err(error) => {
                    if peer.failures == 0 {
                        tracing::info!(%error, "cannot connect to a peer; trying again from time to time");
                    }
                    peer.next = Instant::now() + pause_after(peer.failures, chance());
                    peer.failures += 1;
                }
            }
        }
    }

    fn announced(&self, node_id: &PublicKey) -> Vec<String> {
        let graph = self.graph.read_only();
        let node = graph.nodes().get(&NodeId::from_pubkey(node_id));
        let announcement = node.and_then(|node| node.announcement_info.as_ref());
        announcement.map_or_else(Vec::new, |info| info.addresses().iter().map(|address| address.to_string()).collect())
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<PublicKey, Wanted>> {
        // Each change is complete in itself.
        self.wanted.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Wanted {
    fn new() -> Self {
        Self { addresses: Vec::new(), last: None, persistent: false, failures: 0, next: Instant::now(), dialing: false }
    }
}

/// Doubles up to the longest, and is then shortened by up to a half, as `chance` (0 to 1) has it: peers that went away
/// together are not dialed together for ever.
fn pause_after(failures: u32, chance: f64) -> Duration {
    let longest = FIRST_RETRY.saturating_mul(1 << failures.min(16)).min(LONGEST_RETRY);
    longest.mul_f64(1.0 - chance / 2.0)
}

fn chance() -> f64 {
    // Without the kernel's numbers there is no chance, and nothing depends on it.
    f64::from(getrandom::u32().unwrap_or(0)) / f64::from(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

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
