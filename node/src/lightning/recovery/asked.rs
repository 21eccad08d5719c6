//! Which peers were told that we have lost a channel with them.

use std::{
    collections::{HashMap, HashSet},
    sync::{Mutex, MutexGuard, PoisonError},
};

use bitcoin::secp256k1::PublicKey;
use lightning::ln::types::ChannelId;

/// Remembers it of channels that are to be recovered, and of no others: a peer could have us remember any number.
#[derive(Default)]
pub struct Asked(Mutex<Inner>);

#[derive(Default)]
struct Inner {
    recovering: HashMap<ChannelId, PublicKey>,
    asked: HashSet<ChannelId>,
}

impl Asked {
    /// The peer has resumed a channel that is not in the database, and is answered that we do not know it.
    pub fn told(&self, peer: &PublicKey, channel: &ChannelId) {
        let mut inner = self.inner();
        if inner.recovering.get(channel) == Some(peer) && inner.asked.insert(*channel) {
            tracing::info!(%channel, %peer, "the peer was told that we have lost the channel: it should close it now");
        }
    }

    pub(super) fn recovers(&self, channel: ChannelId, peer: PublicKey) {
        self.inner().recovering.insert(channel, peer);
    }

    pub(super) fn closed(&self, channel: &ChannelId) {
        let mut inner = self.inner();
        inner.recovering.remove(channel);
        inner.asked.remove(channel);
    }

    pub(super) fn was_asked(&self, channel: &ChannelId) -> bool {
        self.inner().asked.contains(channel)
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        // Each change is a few inserts or removes, any of which may stand alone.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_channels_own_peer_is_remembered_as_asked() {
        let key = |byte: u8| {
            let secret = bitcoin::secp256k1::SecretKey::from_slice(&[byte; 32]).unwrap();
            secret.public_key(&bitcoin::secp256k1::Secp256k1::new())
        };
        let (channel, other) = (ChannelId([1; 32]), ChannelId([2; 32]));
        let asked = Asked::default();
        asked.recovers(channel, key(1));
        asked.told(&key(2), &channel);
        asked.told(&key(1), &other);
        assert!(!asked.was_asked(&channel) && !asked.was_asked(&other));
        asked.told(&key(1), &channel);
        assert!(asked.was_asked(&channel));
        asked.closed(&channel);
        assert!(!asked.was_asked(&channel));
    }
}
