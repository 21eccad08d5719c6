//! Connections to peers: made at once after a takeover, and again whenever they break.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use bitcoin::secp256k1::PublicKey;
use holdfast_proto::error::Error;
use lightning::routing::gossip::NodeId;
use tokio::{
    net::{TcpListener, lookup_host},
    sync::Notify,
};

use super::types::{Graph, PeerManager};

/// How long connecting and shaking hands may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
const FIRST_RETRY: Duration = Duration::from_millis(200);
const LONGEST_RETRY: Duration = Duration::from_secs(30);
/// How soon a broken connection is noticed when nobody says so.
const LOOK: Duration = Duration::from_millis(250);

/// Knows whom the node wants to be connected to, and sees to it.
pub struct Dialer {
    peers: Arc<PeerManager>,
    graph: Arc<Graph>,
    wanted: Mutex<HashMap<PublicKey, Wanted>>,
    look: Notify,
}

#[derive(Debug)]
struct Wanted {
    /// `host:port` each. Without one, what the peer announced is used.
    addresses: Vec<String>,
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
    pub fn new(peers: Arc<PeerManager>, graph: Arc<Graph>) -> Self {
        Self { peers, graph, wanted: Mutex::default(), look: Notify::new() }
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

    pub fn known(&self) -> Vec<KnownPeer> {
        let known = |(node_id, peer): (&PublicKey, &Wanted)| KnownPeer {
            node_id: *node_id,
            address: peer.addresses.first().cloned(),
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
            let mut addresses = lookup_host(address).await.map_err(|e| away(e.to_string()))?;
            let address = addresses.next().ok_or_else(|| away("the name has no address".into()))?;
            let connection = lightning_net_tokio::connect_outbound(self.peers.clone(), node_id, address);
            let closed = connection.await.ok_or_else(|| away("no connection".into()))?;
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
        match tokio::time::timeout(CONNECT_TIMEOUT, attempt).await {
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

    /// Those who are to be dialed now; they count as being dialed from here on.
    fn due(&self) -> Vec<(PublicKey, Vec<String>)> {
        let now = Instant::now();
        let mut due = Vec::new();
        for (node_id, peer) in self.lock().iter_mut() {
            if peer.dialing || peer.next > now || self.is_connected(node_id) {
                continue;
            }
            peer.dialing = true;
            due.push((*node_id, peer.addresses.clone()));
        }
        for (node_id, addresses) in &mut due {
            addresses.extend(self.announced(node_id));
        }
        due
    }

    fn dialed(&self, node_id: &PublicKey, result: Result<(), Error>) {
        if let Some(peer) = self.lock().get_mut(node_id) {
            peer.dialing = false;
            match result {
                Ok(()) => {
                    tracing::info!(peer = %node_id, "connected");
                    peer.failures = 0;
                    peer.next = Instant::now();
                }
                Err(error) => {
                    if peer.failures == 0 {
                        tracing::info!(%error, "cannot connect to a peer; trying again from time to time");
                    }
                    peer.next = Instant::now() + pause_after(peer.failures);
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
        Self { addresses: Vec::new(), persistent: false, failures: 0, next: Instant::now(), dialing: false }
    }
}

fn pause_after(failures: u32) -> Duration {
    FIRST_RETRY.saturating_mul(1 << failures.min(16)).min(LONGEST_RETRY)
}

/// Lets peers in, until dropped.
pub async fn listen(listener: TcpListener, peers: Arc<PeerManager>) {
    loop {
        match listener.accept().await.and_then(|(stream, _)| stream.into_std()) {
            Ok(stream) => {
                let peers = peers.clone();
                tokio::spawn(async move { lightning_net_tokio::setup_inbound(peers, stream).await });
            }
            Err(error) => {
                // Out of descriptors, or the peer was gone already.
                tracing::warn!(%error, "could not let a peer in");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_and_end_somewhere() {
        assert_eq!(pause_after(0), FIRST_RETRY);
        assert_eq!(pause_after(1), FIRST_RETRY * 2);
        assert_eq!(pause_after(40), LONGEST_RETRY);
    }
}
