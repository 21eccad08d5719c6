//! The peers' `shutdown` messages: when LDK may see them.

use std::{
    collections::{BTreeMap, BTreeSet},
    mem,
};

use bitcoin::secp256k1::PublicKey;
use lightning::ln::{msgs, types::ChannelId};

type Address = (PublicKey, ChannelId);

/// All but `late` and `tried` is forgotten when a peer disconnects, since it then repeats its `shutdown`.
#[derive(Default)]
pub struct Shutdowns {
    /// Not yet shown to LDK.
    deferred: BTreeMap<Address, msgs::Shutdown>,
    shown: BTreeSet<Address>,
    /// Channels whose peer repeats HTLCs after its `shutdown`.
    late: BTreeSet<Address>,
    /// Channels for which that was tried. A peer that does it again is left to LDK, which closes the channel.
    tried: BTreeSet<Address>,
    /// Peers that we hang up on, and have not yet; from now on nothing of theirs is heard.
    hung_up: BTreeSet<PublicKey>,
    disconnects: Vec<PublicKey>,
}

impl Shutdowns {
    pub fn defer(&mut self, peer: PublicKey, msg: &msgs::Shutdown) {
        if !self.hung_up(&peer) {
            self.deferred.insert((peer, msg.channel_id), msg.clone());
        }
    }

    /// Whether a `shutdown` waits for nothing but the HTLCs that are pending.
    pub fn defers(&self, peer: PublicKey, channel: ChannelId) -> bool {
        self.deferred.contains_key(&(peer, channel)) && !self.late.contains(&(peer, channel))
    }

    pub fn show(&mut self, peer: PublicKey, channel: ChannelId) -> Option<msgs::Shutdown> {
        let msg = self.deferred.remove(&(peer, channel))?;
        self.shown.insert((peer, channel));
        Some(msg)
    }

    /// Notes that LDK acts on a `shutdown` of an earlier connection.
    pub fn seen_before(&mut self, peer: PublicKey, channel: ChannelId) {
        self.shown.insert((peer, channel));
    }

    /// Whether an HTLC may not be shown to LDK: it comes after a `shutdown` that was, or from a peer that we hung up on.
    pub fn comes_late(&mut self, peer: PublicKey, channel: ChannelId) -> bool {
        if self.hung_up(&peer) {
            return true;
        }
        let late = self.shown.contains(&(peer, channel)) && self.tried.insert((peer, channel));
        if late {
            tracing::info!(%channel, "the peer adds an HTLC after its shutdown; connecting once more");
            self.late.insert((peer, channel));
            self.hung_up.insert(peer);
            self.disconnects.push(peer);
        }
        late
    }

    /// The peer has committed to what it repeated. Returns whether a `shutdown` waited for that.
    pub fn repeated(&mut self, peer: PublicKey, channel: ChannelId) -> bool {
        self.late.remove(&(peer, channel))
    }

    pub fn hung_up(&self, peer: &PublicKey) -> bool {
        self.hung_up.contains(peer)
    }

    pub fn take_disconnects(&mut self) -> Vec<PublicKey> {
        mem::take(&mut self.disconnects)
    }

    pub fn disconnected(&mut self, peer: &PublicKey) {
        self.deferred.retain(|(other, _), _| other != peer);
        self.shown.retain(|(other, _)| other != peer);
        self.disconnects.retain(|other| other != peer);
        self.hung_up.remove(peer);
    }
}
