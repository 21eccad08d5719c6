//! Gossip as the peer manager sees it, with a second chance for the policies of our own channels.
//!
//! A peer sends its `channel_update` once, right after the announcement is complete. LDK drops it if our own announcement
//! is not in the graph yet, which depends on which of two threads is faster. A dropped one would leave the network (and
//! ourselves) without a way through the channel until the peer happens to repeat it.

use std::{
    collections::HashMap,
    ops::Deref,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use bitcoin::secp256k1::PublicKey;
use lightning::{
    ln::msgs::{self, BaseMessageHandler, ErrorAction, LightningError, MessageSendEvent, RoutingMessageHandler},
    routing::gossip::NodeId,
    types::features::{InitFeatures, NodeFeatures},
};

/// How long an early update waits for its channel.
const PATIENCE: Duration = Duration::from_secs(120);

/// Keeps updates of our channels that came too early, and tries them again.
pub struct OwnGossip<R, O> {
    inner: R,
    is_ours: O,
    /// By channel and direction.
    early: Mutex<HashMap<(u64, u8), (Instant, msgs::ChannelUpdate)>>,
}

impl<R: Deref, O> OwnGossip<R, O>
where
    R::Target: RoutingMessageHandler,
    O: Fn(&PublicKey, u64) -> bool,
{
    /// `is_ours` says whether we have a channel of this id with this peer.
    pub fn new(inner: R, is_ours: O) -> Self {
        Self { inner, is_ours, early: Mutex::default() }
    }

    fn try_again(&self) -> Vec<MessageSendEvent> {
        let mut early = self.early();
        let mut taken = Vec::new();
        early.retain(|_, (since, update)| match self.inner.handle_channel_update(None, update) {
            Ok(_) => {
                taken.push(MessageSendEvent::BroadcastChannelUpdate { msg: update.clone() });
                false
            }
            Err(error) if matches!(error.action, ErrorAction::IgnoreDuplicateGossip) => false,
            Err(_) => since.elapsed() < PATIENCE,
        });
        taken
    }

    fn early(&self) -> MutexGuard<'_, HashMap<(u64, u8), (Instant, msgs::ChannelUpdate)>> {
        // Each change is complete in itself.
        self.early.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<R: Deref, O> RoutingMessageHandler for OwnGossip<R, O>
where
    R::Target: RoutingMessageHandler,
    O: Fn(&PublicKey, u64) -> bool,
{
    fn handle_channel_update(
        &self,
        peer: Option<PublicKey>,
        msg: &msgs::ChannelUpdate,
    ) -> Result<bool, LightningError> {
        let result = self.inner.handle_channel_update(peer, msg);
        if let (Some(peer), Err(error)) = (&peer, &result)
            && !matches!(error.action, ErrorAction::IgnoreDuplicateGossip)
            && (self.is_ours)(peer, msg.contents.short_channel_id)
        {
            let direction = msg.contents.channel_flags & 1;
            self.early().insert((msg.contents.short_channel_id, direction), (Instant::now(), msg.clone()));
        }
        result
    }

    fn handle_node_announcement(
        &self,
        peer: Option<PublicKey>,
        msg: &msgs::NodeAnnouncement,
    ) -> Result<bool, LightningError> {
        self.inner.handle_node_announcement(peer, msg)
    }

    fn handle_channel_announcement(
        &self,
        peer: Option<PublicKey>,
        msg: &msgs::ChannelAnnouncement,
    ) -> Result<bool, LightningError> {
        self.inner.handle_channel_announcement(peer, msg)
    }

    fn get_next_channel_announcement(
        &self,
        from: u64,
    ) -> Option<(msgs::ChannelAnnouncement, Option<msgs::ChannelUpdate>, Option<msgs::ChannelUpdate>)> {
        self.inner.get_next_channel_announcement(from)
    }

    fn get_next_node_announcement(&self, from: Option<&NodeId>) -> Option<msgs::NodeAnnouncement> {
        self.inner.get_next_node_announcement(from)
    }

    fn handle_reply_channel_range(&self, peer: PublicKey, msg: msgs::ReplyChannelRange) -> Result<(), LightningError> {
        self.inner.handle_reply_channel_range(peer, msg)
    }

    fn handle_reply_short_channel_ids_end(
        &self,
        peer: PublicKey,
        msg: msgs::ReplyShortChannelIdsEnd,
    ) -> Result<(), LightningError> {
        self.inner.handle_reply_short_channel_ids_end(peer, msg)
    }

    fn handle_query_channel_range(&self, peer: PublicKey, msg: msgs::QueryChannelRange) -> Result<(), LightningError> {
        self.inner.handle_query_channel_range(peer, msg)
    }

    fn handle_query_short_channel_ids(
        &self,
        peer: PublicKey,
        msg: msgs::QueryShortChannelIds,
    ) -> Result<(), LightningError> {
        self.inner.handle_query_short_channel_ids(peer, msg)
    }

    fn processing_queue_high(&self) -> bool {
        self.inner.processing_queue_high()
    }
}

impl<R: Deref, O> BaseMessageHandler for OwnGossip<R, O>
where
    R::Target: RoutingMessageHandler,
    O: Fn(&PublicKey, u64) -> bool,
{
    fn get_and_clear_pending_msg_events(&self) -> Vec<MessageSendEvent> {
        let mut events = self.inner.get_and_clear_pending_msg_events();
        events.extend(self.try_again());
        events
    }

    fn peer_disconnected(&self, peer: PublicKey) {
        self.inner.peer_disconnected(peer);
    }

    fn provided_node_features(&self) -> NodeFeatures {
        self.inner.provided_node_features()
    }

    fn provided_init_features(&self, peer: PublicKey) -> InitFeatures {
        self.inner.provided_init_features(peer)
    }

    fn peer_connected(&self, peer: PublicKey, init: &msgs::Init, inbound: bool) -> Result<(), ()> {
        self.inner.peer_connected(peer, init, inbound)
    }
}

#[cfg(test)]
mod tests {
    use bitcoin::{
        Network,
        constants::ChainHash,
        secp256k1::{SecretKey, ecdsa::Signature},
    };

    use super::*;

    /// Takes an update once its channel is known.
    #[derive(Default)]
    struct Graph {
        knows_channel: Mutex<bool>,
    }

    impl BaseMessageHandler for Graph {
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
        fn peer_connected(&self, _: PublicKey, _: &msgs::Init, _: bool) -> Result<(), ()> {
            Ok(())
        }
    }

    impl RoutingMessageHandler for Graph {
        fn handle_channel_update(&self, _: Option<PublicKey>, _: &msgs::ChannelUpdate) -> Result<bool, LightningError> {
            match *self.knows_channel.lock().unwrap() {
                true => Ok(true),
                false => Err(LightningError { err: "no such channel".into(), action: ErrorAction::IgnoreError }),
            }
        }
        fn handle_node_announcement(
            &self,
            _: Option<PublicKey>,
            _: &msgs::NodeAnnouncement,
        ) -> Result<bool, LightningError> {
            Ok(false)
        }
        fn handle_channel_announcement(
            &self,
            _: Option<PublicKey>,
            _: &msgs::ChannelAnnouncement,
        ) -> Result<bool, LightningError> {
            Ok(false)
        }
        fn get_next_channel_announcement(
            &self,
            _: u64,
        ) -> Option<(msgs::ChannelAnnouncement, Option<msgs::ChannelUpdate>, Option<msgs::ChannelUpdate>)> {
            None
        }
        fn get_next_node_announcement(&self, _: Option<&NodeId>) -> Option<msgs::NodeAnnouncement> {
            None
        }
        fn handle_reply_channel_range(&self, _: PublicKey, _: msgs::ReplyChannelRange) -> Result<(), LightningError> {
            Ok(())
        }
        fn handle_reply_short_channel_ids_end(
            &self,
            _: PublicKey,
            _: msgs::ReplyShortChannelIdsEnd,
        ) -> Result<(), LightningError> {
            Ok(())
        }
        fn handle_query_channel_range(&self, _: PublicKey, _: msgs::QueryChannelRange) -> Result<(), LightningError> {
            Ok(())
        }
        fn handle_query_short_channel_ids(
            &self,
            _: PublicKey,
            _: msgs::QueryShortChannelIds,
        ) -> Result<(), LightningError> {
            Ok(())
        }
        fn processing_queue_high(&self) -> bool {
            false
        }
    }

    fn update(short_channel_id: u64) -> msgs::ChannelUpdate {
        let contents = msgs::UnsignedChannelUpdate {
            chain_hash: ChainHash::using_genesis_block(Network::Regtest),
            short_channel_id,
            timestamp: 1,
            message_flags: 1,
            channel_flags: 0,
            cltv_expiry_delta: 72,
            htlc_minimum_msat: 1,
            htlc_maximum_msat: 1000,
            fee_base_msat: 0,
            fee_proportional_millionths: 0,
            excess_data: vec![],
        };
        // Nobody verifies it here.
        let signature = Signature::from_compact(&[1; 64]).unwrap();
        msgs::ChannelUpdate { signature, contents }
    }

    #[test]
    fn an_early_update_of_our_channel_is_taken_later_and_passed_on_once() {
        let peer = SecretKey::from_slice(&[1; 32]).unwrap().public_key(&bitcoin::secp256k1::Secp256k1::new());
        let graph = Graph::default();
        let gossip = OwnGossip::new(&graph, |_: &PublicKey, scid| scid == 7);
        assert!(gossip.handle_channel_update(Some(peer), &update(7)).is_err());
        assert!(gossip.handle_channel_update(Some(peer), &update(8)).is_err());
        assert!(gossip.get_and_clear_pending_msg_events().is_empty());
        *graph.knows_channel.lock().unwrap() = true;
        let passed_on = gossip.get_and_clear_pending_msg_events();
        assert!(
            matches!(&passed_on[..], [MessageSendEvent::BroadcastChannelUpdate { msg }] if *msg == update(7)),
            "{passed_on:?}"
        );
        assert!(gossip.get_and_clear_pending_msg_events().is_empty());
    }
}
