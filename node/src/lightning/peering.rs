//! The side that a node turns to its peers: who takes their messages, who checks what they gossip, who dials them.

use std::sync::Arc;

use bitcoin::secp256k1::PublicKey;
use holdfast_signer_client::RemoteKeys;
use lightning::{
    ln::peer_handler::{IgnoringMessageHandler, MessageHandler},
    sign::EntropySource,
};
use lightning_block_sync::gossip::TokioSpawner;

use super::{
    StartError,
    offers::{OfferGate, Offers},
    onion_pace,
    payments::unix_now,
    peer_storage::PeerStorage,
    peers::Dialer,
    types::*,
};
use crate::{chain::Bitcoind, net::Outbound, store::postgres::PeerRow};

/// What it is made of.
pub struct Peering<'a> {
    pub manager: &'a Arc<ChannelManager>,
    pub keys: &'a Arc<RemoteKeys>,
    pub graph: &'a Arc<Graph>,
    pub offers: &'a Arc<Offers>,
    pub storage: &'a Arc<PeerStorage>,
    pub bitcoind: &'a Arc<Bitcoind>,
    pub logger: &'a Logger,
}

impl Peering<'_> {
    pub fn onion_messenger(&self, router: Arc<MessageRouter>) -> Arc<OnionMessenger> {
        Arc::new(OnionMessenger::new(
            self.keys.clone(),
            self.keys.clone(),
            self.logger.clone(),
            self.manager.clone(),
            router,
            Arc::new(OfferGate::new(self.manager.clone(), self.offers.clone())),
            self.manager.clone(),
            IgnoringMessageHandler {},
            IgnoringMessageHandler {},
        ))
    }

    /// Nobody is connected to it yet.
    pub fn peer_manager(
        &self,
        gate: Arc<Gate>,
        onion_messenger: &Arc<OnionMessenger>,
    ) -> Result<Arc<PeerManager>, StartError> {
        let sync = Arc::new(P2PGossipSync::new(self.graph.clone(), None::<Arc<UtxoLookup>>, self.logger.clone()));
        let manager = self.manager.clone();
        let is_ours: IsOurs = Box::new(move |peer, scid| {
            let channels = manager.list_channels_with_counterparty(peer);
            channels.iter().any(|channel| channel.short_channel_id == Some(scid))
        });
        let handlers = MessageHandler {
            chan_handler: gate,
            route_handler: Arc::new(Gossip::new(sync.clone(), is_ours)),
            onion_message_handler: onion_pace::paced(onion_messenger.clone(), self.manager.clone()),
            custom_message_handler: IgnoringMessageHandler {},
            // LDK's chain monitor would leave states of channels with peers, if it were compiled to.
            send_only_message_handler: self.storage.clone(),
        };
        let peers = Arc::new(PeerManager::new(
            handlers,
            u32::try_from(unix_now()).map_err(|e| StartError::New(e.to_string()))?,
            &self.keys.get_secure_random_bytes(),
            self.logger.clone(),
            self.keys.clone(),
        ));
        let verifier = UtxoLookup::new(self.bitcoind.clone(), TokioSpawner, sync.clone(), peers.clone());
        sync.add_utxo_lookup(Some(Arc::new(verifier)));
        Ok(peers)
    }

    /// Dials `known` peers and those that we have channels with, once it is started.
    pub fn dialer(&self, peers: &Arc<PeerManager>, outbound: &Arc<Outbound>, known: &[PeerRow]) -> Arc<Dialer> {
        let dialer = Arc::new(Dialer::new(peers.clone(), self.graph.clone(), outbound.clone()));
        for peer in known {
            match PublicKey::from_slice(&peer.node_id) {
                Ok(node_id) => dialer.add(node_id, &peer.address),
                Err(error) => tracing::warn!(%error, "the list of peers names one that is none"),
            }
        }
        for channel in self.manager.list_channels() {
            dialer.has_channel(channel.counterparty.node_id);
        }
        dialer
    }
}
