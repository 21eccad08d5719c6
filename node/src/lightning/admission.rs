//! Letting peers in. BOLT 8 names the connecting side only in its last message, and the first costs the signer an ECDH; so
//! strangers get few places until they have shown who they are, and what they hold keeps nobody else out.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Shutdown, SocketAddr, TcpStream},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use holdfast_proto::{
    outage::Outage,
    strangers::{self, Tally, origin},
};
use lightning::ln::msgs::SocketAddress;
use tokio::{net::TcpListener, time};

use super::types::PeerManager;

/// Unfinished handshakes at once.
const HANDSHAKES: usize = 32;
/// For a handshake and `init`.
const PATIENCE: Duration = Duration::from_secs(10);
/// The peer manager tells nobody when a handshake is done.
const LOOK: Duration = Duration::from_millis(50);

/// How many peers may be connected that came by themselves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    pub in_all: usize,
    /// From one IPv4 address, or one IPv6 network of 64 bits.
    pub from_one_address: usize,
}

/// Lets peers in, until dropped.
pub async fn listen(listener: TcpListener, peers: Arc<PeerManager>, limits: Limits) {
    let door = Arc::new(Mutex::new(Door::new(limits)));
    let outage = Outage::default();
    loop {
        match listener.accept().await.and_then(|(stream, from)| Ok((stream.into_std()?, from))) {
            Ok((stream, from)) => {
                if let Some(lasted) = outage.over() {
                    tracing::info!(seconds = lasted.as_secs(), "peers are let in again");
                }
                let mut inside = lock(&door);
                let admitted = inside.admit(from.ip(), &stream);
                if let Some(turned_away) = inside.turned_away.due(Instant::now()) {
                    tracing::warn!(turned_away, last = %from.ip(), "too many peers want to connect; see [peers] max_inbound");
                }
                drop(inside);
                if let Some(id) = admitted {
                    tokio::spawn(attend(door.clone(), peers.clone(), id, from, stream));
                }
            }
            Err(error) => {
                // Out of descriptors, or the peer was gone already.
                if outage.failed() {
                    tracing::warn!(%error, "could not let a peer in");
                }
                time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

/// Sees to one connection until it ends.
async fn attend(door: Arc<Mutex<Door>>, peers: Arc<PeerManager>, id: u64, from: SocketAddr, stream: TcpStream) {
    let closed = lightning_net_tokio::setup_inbound(peers.clone(), stream);
    tokio::pin!(closed);
    let address = SocketAddress::from(from);
    let shaken = async {
        let mut look = time::interval(LOOK);
        loop {
            look.tick().await;
            let known = peers.list_peers();
            if known.iter().any(|peer| peer.socket_address.as_ref() == Some(&address)) {
                return;
            }
        }
    };
    tokio::select! {
        () = &mut closed => {}
        result = time::timeout(PATIENCE, shaken) => {
            match result {
                Ok(()) => lock(&door).known(id),
                Err(_) => lock(&door).end(id),
            }
            closed.await;
        }
    }
    lock(&door).gone(id);
}

fn lock(door: &Mutex<Door>) -> MutexGuard<'_, Door> {
    // Each change is complete in itself.
    door.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Who is inside, in the order in which they came.
struct Door {
    limits: Limits,
    next: u64,
    guests: BTreeMap<u64, Guest>,
    turned_away: Tally,
}

struct Guest {
    address: IpAddr,
    /// Until the handshake is done, so that it can be ended.
    stranger: Option<TcpStream>,
}

impl Door {
    fn new(limits: Limits) -> Self {
        Self { limits, next: 0, guests: BTreeMap::new(), turned_away: Tally::default() }
    }

    /// A place, unless there is none. Among the strangers one can always be had: at the cost of the address that holds most
    /// of them, whose oldest connection ends.
    fn admit(&mut self, address: IpAddr, stream: &TcpStream) -> Option<u64> {
        let address = origin(address);
        let of_address = self.guests.values().filter(|guest| guest.address == address).count();
        let full = self.guests.len() >= self.limits.in_all || of_address >= self.limits.from_one_address;
        let Some(stranger) = (!full).then(|| stream.try_clone().ok()).flatten() else {
            self.turned_away.add();
            return None;
        };
        if self.strangers().count() >= HANDSHAKES
            && let Some(id) = strangers::costliest(self.strangers())
        {
            self.turned_away.add();
            self.end(id);
        }
        let id = self.next;
        self.next += 1;
        self.guests.insert(id, Guest { address, stranger: Some(stranger) });
        Some(id)
    }

    /// The handshake is done.
    fn known(&mut self, id: u64) {
        if let Some(guest) = self.guests.get_mut(&id) {
            guest.stranger = None;
        }
    }

    /// Ends a connection whose handshake is not done. It has its place until it is gone.
    fn end(&mut self, id: u64) {
        if let Some(stream) = self.guests.get_mut(&id).and_then(|guest| guest.stranger.take()) {
            // An error means that it has ended already.
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    fn gone(&mut self, id: u64) {
        self.guests.remove(&id);
    }

    fn strangers(&self) -> impl Iterator<Item = (u64, IpAddr)> + Clone {
        self.guests.iter().filter(|(_, guest)| guest.stranger.is_some()).map(|(id, guest)| (*id, guest.address))
    }
}

#[cfg(test)]
mod tests;
