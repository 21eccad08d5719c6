//! The peers' `shutdown` messages: when LDK may see them.

use std::{collections::BTreeMap, time::Instant};

use bitcoin::secp256k1::PublicKey;
use lightning::ln::{msgs, types::ChannelId};

type Address = (PublicKey, ChannelId);

/// Everything about a peer is forgotten when it disconnects, since it then repeats its `shutdown`.
#[derive(Default)]
pub struct Shutdowns {
    /// Not yet shown to LDK.
    deferred: BTreeMap<Address, msgs::Shutdown>,
    /// When the peer resumed a channel.
    resumed: BTreeMap<Address, Instant>,
}

impl Shutdowns {
    pub fn resumed(&mut self, peer: PublicKey, channel: ChannelId) {
        self.resumed.insert((peer, channel), Instant::now());
    }

    pub fn defer(&mut self, peer: PublicKey, msg: &msgs::Shutdown) {
        self.deferred.insert((peer, msg.channel_id), msg.clone());
    }

    /// Takes out a `shutdown` that need not wait any longer.
    pub fn take(&mut self, peer: PublicKey, channel: ChannelId) -> Option<msgs::Shutdown> {
        self.deferred.remove(&(peer, channel))
    }

    /// Takes out those that came on a connection on which nothing is repeated any more: `over` tells, of a peer and since
    /// when.
    pub fn take_due(&mut self, over: impl Fn(&PublicKey, Instant) -> bool) -> Vec<(PublicKey, msgs::Shutdown)> {
        let resumed = &self.resumed;
        let due = |address: &Address| resumed.get(address).is_none_or(|since| over(&address.0, *since));
        self.deferred.extract_if(.., |address, _| due(address)).map(|((peer, _), msg)| (peer, msg)).collect()
    }

    pub fn disconnected(&mut self, peer: &PublicKey) {
        self.deferred.retain(|(other, _), _| other != peer);
        self.resumed.retain(|(other, _), _| other != peer);
    }
}
