//! How many onion messages peers may have us open. Each costs the signer two ECDHs, and whoever is connected may send them:
//! beyond a pace they are dropped, as BOLT 4 lets every node do. Peers without a channel share one allowance, so that
//! they leave those with a channel theirs.

use std::{
    collections::HashMap,
    ops::Deref,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use bitcoin::secp256k1::PublicKey;
use lightning::{
    ln::msgs::{BaseMessageHandler, Init, MessageSendEvent, OnionMessage, OnionMessageHandler},
    types::features::{InitFeatures, NodeFeatures},
};

use super::{
    bucket::{Bucket, Rate},
    types::{ChannelManager, OnionMessenger, PacedMessenger},
};

/// Of one peer, five a second: a payment by an offer takes a message or two.
const OF_PEER: Rate = Rate { at_once: 20, within: Duration::from_secs(4) };
/// Of all peers without a channel together, fifty a second. An HSM that takes a millisecond for an ECDH has nine tenths of its time left.
const OF_STRANGERS: Rate = Rate { at_once: 100, within: Duration::from_secs(2) };
/// What is dropped is logged at most so often.
const TOLD_EVERY: Duration = Duration::from_secs(60);

/// Passes on to LDK's messenger what is not too much.
pub struct OnionPace<M, C> {
    messenger: M,
    has_channel: C,
    taken: Mutex<Taken>,
}

/// The messenger as peers reach it.
pub(super) fn paced(messenger: Arc<OnionMessenger>, manager: Arc<ChannelManager>) -> Arc<PacedMessenger> {
    // One that has no funding yet costs nothing.
    let has_channel = move |peer: &PublicKey| {
        manager.list_channels_with_counterparty(peer).iter().any(|channel| channel.is_channel_ready)
    };
    Arc::new(OnionPace::new(messenger, Box::new(has_channel)))
}

/// What has been used of each allowance. A peer's is forgotten when it disconnects; connecting costs more than a message.
#[derive(Default)]
struct Taken {
    peers: HashMap<PublicKey, Bucket>,
    strangers: Option<Bucket>,
    dropped: u64,
    told: Option<Instant>,
}

impl Taken {
    /// Counts a message of `peer`, unless it is one too many.
    fn of_peer(&mut self, peer: PublicKey, now: Instant) -> bool {
        self.peers.entry(peer).or_insert_with(|| Bucket::full(OF_PEER, now)).take(OF_PEER, now)
    }

    /// The same, of one of those without a channel.
    fn of_stranger(&mut self, now: Instant) -> bool {
        self.strangers.get_or_insert_with(|| Bucket::full(OF_STRANGERS, now)).take(OF_STRANGERS, now)
    }

    /// Counts one that was dropped. How many were since this was last said, when it is time to say so.
    fn dropped(&mut self, now: Instant) -> Option<u64> {
        self.dropped += 1;
        if self.told.is_some_and(|told| now.saturating_duration_since(told) < TOLD_EVERY) {
            return None;
        }
        self.told = Some(now);
        Some(std::mem::take(&mut self.dropped))
    }
}

impl<M: Deref, C> OnionPace<M, C>
where
    M::Target: OnionMessageHandler,
    C: Fn(&PublicKey) -> bool,
{
    /// `has_channel` says whether there is a channel with a peer.
    pub fn new(messenger: M, has_channel: C) -> Self {
        Self { messenger, has_channel, taken: Mutex::default() }
    }

    fn may_open(&self, peer: PublicKey) -> bool {
        let now = Instant::now();
        // Looking for a channel takes the manager's locks, and so comes second and under none of ours.
        if self.taken().of_peer(peer, now) && ((self.has_channel)(&peer) || self.taken().of_stranger(now)) {
            return true;
        }
        if let Some(dropped) = self.taken().dropped(now) {
            tracing::info!(dropped, last = %peer, "dropped onion messages that came too fast");
        }
        false
    }

    fn taken(&self) -> MutexGuard<'_, Taken> {
        // Each change is complete in itself.
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<M: Deref, C> OnionMessageHandler for OnionPace<M, C>
where
    M::Target: OnionMessageHandler,
    C: Fn(&PublicKey) -> bool,
{
    fn handle_onion_message(&self, peer: PublicKey, msg: &OnionMessage) {
        if self.may_open(peer) {
            self.messenger.handle_onion_message(peer, msg);
        }
    }

    fn next_onion_message_for_peer(&self, peer: PublicKey) -> Option<OnionMessage> {
        self.messenger.next_onion_message_for_peer(peer)
    }

    fn timer_tick_occurred(&self) {
        self.messenger.timer_tick_occurred();
    }
}

impl<M: Deref, C> BaseMessageHandler for OnionPace<M, C>
where
    M::Target: OnionMessageHandler,
    C: Fn(&PublicKey) -> bool,
{
    fn get_and_clear_pending_msg_events(&self) -> Vec<MessageSendEvent> {
        self.messenger.get_and_clear_pending_msg_events()
    }

    fn peer_disconnected(&self, peer: PublicKey) {
        self.taken().peers.remove(&peer);
        self.messenger.peer_disconnected(peer);
    }

    fn provided_node_features(&self) -> NodeFeatures {
        self.messenger.provided_node_features()
    }

    fn provided_init_features(&self, peer: PublicKey) -> InitFeatures {
        self.messenger.provided_init_features(peer)
    }

    fn peer_connected(&self, peer: PublicKey, init: &Init, inbound: bool) -> Result<(), ()> {
        self.messenger.peer_connected(peer, init, inbound)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use bitcoin::secp256k1::{Secp256k1, SecretKey};
    use lightning::onion_message::packet::Packet;

    use super::*;

    fn peer(n: u8) -> PublicKey {
        PublicKey::from_secret_key(&Secp256k1::signing_only(), &SecretKey::from_slice(&[n; 32]).unwrap())
    }

    /// Counts what it is to open.
    #[derive(Default)]
    struct Messenger(AtomicUsize);

    impl OnionMessageHandler for Messenger {
        fn handle_onion_message(&self, _: PublicKey, _: &OnionMessage) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
        fn next_onion_message_for_peer(&self, _: PublicKey) -> Option<OnionMessage> {
            None
        }
        fn timer_tick_occurred(&self) {}
    }

    impl BaseMessageHandler for Messenger {
        fn get_and_clear_pending_msg_events(&self) -> Vec<MessageSendEvent> {
            Vec::new()
        }
        fn peer_disconnected(&self, _: PublicKey) {}
        fn provided_node_features(&self) -> NodeFeatures {
            NodeFeatures::empty()
        }
        fn provided_init_features(&self, _: PublicKey) -> InitFeatures {
            InitFeatures::empty()
        }
        fn peer_connected(&self, _: PublicKey, _: &Init, _: bool) -> Result<(), ()> {
            Ok(())
        }
    }

    #[test]
    fn a_peer_that_sends_without_end_has_few_messages_opened() {
        let messenger = Messenger::default();
        let pace = OnionPace::new(&messenger, |_: &PublicKey| false);
        let message = OnionMessage {
            blinding_point: peer(9),
            onion_routing_packet: Packet { version: 0, public_key: peer(9), hop_data: vec![0; 1300], hmac: [0; 32] },
        };
        let sender = peer(1);
        for _ in 0..OF_PEER.at_once {
            pace.handle_onion_message(sender, &message);
        }
        assert_eq!(messenger.0.load(Ordering::SeqCst), OF_PEER.at_once as usize);
        for _ in 0..10_000 {
            pace.handle_onion_message(sender, &message);
        }
        let opened = messenger.0.load(Ordering::SeqCst);
        assert!(opened < 1000, "{opened}");
        pace.peer_disconnected(sender);
        assert!(pace.taken.lock().unwrap().peers.is_empty());
    }

    #[test]
    fn strangers_share_one_allowance_and_those_with_a_channel_have_their_own() {
        let (mut taken, start) = (Taken::default(), Instant::now());
        let mut opened = |n: u8, is_stranger: bool, now| {
            let sender = peer(n);
            let mut open = || taken.of_peer(sender, now) && (!is_stranger || taken.of_stranger(now));
            (0..1000).filter(|_| open()).count() as u32
        };
        let strangers: u32 = (1..=50).map(|n| opened(n, true, start)).sum();
        assert_eq!(strangers, OF_STRANGERS.at_once);
        assert_eq!(opened(100, false, start), OF_PEER.at_once);
        // A stranger who comes later finds room again, and one that was too fast as well.
        let later = start + Duration::from_secs(1);
        assert_eq!(opened(51, true, later), OF_PEER.at_once);
        assert_eq!(opened(1, true, later), OF_PEER.at_once / 4);
        assert_eq!(opened(100, false, later), OF_PEER.at_once / 4);
        assert_eq!(opened(100, false, start + Duration::from_secs(3600)), OF_PEER.at_once);
    }

    #[test]
    fn what_is_dropped_is_told_once_a_minute() {
        let (mut taken, start) = (Taken::default(), Instant::now());
        assert_eq!(taken.dropped(start), Some(1));
        assert_eq!((taken.dropped(start), taken.dropped(start)), (None, None));
        assert_eq!(taken.dropped(start + TOLD_EVERY), Some(3));
    }
}
