//! What operators can have the node do, as the API asks for it.

use std::collections::BTreeMap;

use async_trait::async_trait;
use bitcoin::secp256k1::PublicKey;
use holdfast_proto::{error::Error, node::v1};

use super::node::LightningNode;
use crate::store::Effect;

/// Addresses that may be given out in a row without one of them being paid to.
const MOST_UNPAID: u32 = 10_000;

#[async_trait]
impl crate::api::NodeOps for LightningNode {
    async fn new_address(&self) -> Result<v1::NewAddressResponse, Error> {
        self.must_run()?;
        // Every leader derives all that were ever given out, and a wallet that is restored looks for them in order.
        if self.wallet.unpaid_in_a_row() >= MOST_UNPAID {
            let why = format!(
                "{MOST_UNPAID} addresses in a row were given out and never paid to: use one of those (`holdfast wallet addresses`)"
            );
            return Err(Error::misuse("address", why));
        }
        let address = self.wallet.new_address().to_string();
        self.committed().await?;
        Ok(v1::NewAddressResponse { address })
    }

    async fn balance(&self) -> Result<v1::GetBalanceResponse, Error> {
        Ok(self.balances())
    }

    async fn connect_peer(&self, request: v1::ConnectPeerRequest) -> Result<v1::ConnectPeerResponse, Error> {
        self.must_run()?;
        let node_id: PublicKey = request.node_id.parse().map_err(|e| Error::misuse("node_id", format!("{e}")))?;
        crate::net::check(&request.address).map_err(|why| Error::misuse("address", why))?;
        self.dialer.connect(node_id, &request.address).await?;
        self.queue.effect(Effect::PeerAdded { node_id: node_id.serialize(), address: request.address.clone() });
        self.dialer.add(node_id, &request.address);
        self.committed().await?;
        Ok(v1::ConnectPeerResponse {})
    }

    async fn disconnect_peer(&self, request: v1::DisconnectPeerRequest) -> Result<v1::DisconnectPeerResponse, Error> {
        self.must_run()?;
        let node_id: PublicKey = request.node_id.parse().map_err(|e| Error::misuse("node_id", format!("{e}")))?;
        let has_channel = !self.manager.list_channels_with_counterparty(&node_id).is_empty();
        self.dialer.remove(&node_id, has_channel);
        self.queue.effect(Effect::PeerRemoved { node_id: node_id.serialize() });
        tokio::task::block_in_place(|| self.peers.disconnect_by_node_id(node_id));
        self.committed().await?;
        Ok(v1::DisconnectPeerResponse {})
    }

    async fn list_peers(&self) -> Result<v1::ListPeersResponse, Error> {
        let mut peers: BTreeMap<PublicKey, v1::Peer> = BTreeMap::new();
        for known in self.dialer.known() {
            let peer = peers.entry(known.node_id).or_default();
            peer.address = known.address.unwrap_or_default();
            peer.persistent = known.persistent;
        }
        for connected in self.peers.list_peers() {
            let peer = peers.entry(connected.counterparty_node_id).or_default();
            peer.connected = true;
            peer.inbound = connected.is_inbound_connection;
            peer.holds_backup = self.backups.storage.is_held_by(&connected.counterparty_node_id);
            if peer.address.is_empty() {
                peer.address = connected.socket_address.map(|address| address.to_string()).unwrap_or_default();
            }
        }
        for (node_id, peer) in &mut peers {
            peer.node_id = node_id.to_string();
            peer.channels = self.manager.list_channels_with_counterparty(node_id).len() as u32;
        }
        Ok(v1::ListPeersResponse { peers: peers.into_values().collect(), ..Default::default() })
    }

    async fn open_channel(&self, request: v1::OpenChannelRequest) -> Result<v1::OpenChannelResponse, Error> {
        self.open(request).await
    }

    async fn close_channel(&self, request: v1::CloseChannelRequest) -> Result<v1::CloseChannelResponse, Error> {
        self.close(request).await
    }

    async fn list_channels(&self) -> Result<v1::ListChannelsResponse, Error> {
        Ok(v1::ListChannelsResponse { channels: self.channels(), ..Default::default() })
    }

    async fn create_invoice(&self, request: v1::CreateInvoiceRequest) -> Result<v1::CreateInvoiceResponse, Error> {
        self.make_invoice(request).await
    }

    async fn pay_invoice(&self, request: v1::PayInvoiceRequest) -> Result<v1::Payment, Error> {
        self.pay(request).await
    }

    async fn send_keysend(&self, request: v1::SendKeysendRequest) -> Result<v1::Payment, Error> {
        self.keysend(request).await
    }
}

#[async_trait]
impl crate::api::PaymentOps for LightningNode {
    async fn settle_invoice(&self, request: v1::SettleInvoiceRequest) -> Result<v1::Payment, Error> {
        self.settle(request).await
    }

    async fn cancel_invoice(&self, request: v1::CancelInvoiceRequest) -> Result<v1::Payment, Error> {
        self.cancel(request).await
    }

    async fn create_offer(&self, request: v1::CreateOfferRequest) -> Result<v1::Offer, Error> {
        self.make_offer(request).await
    }

    async fn disable_offer(&self, request: v1::DisableOfferRequest) -> Result<v1::Offer, Error> {
        self.end_offer(request).await
    }

    async fn create_refund(&self, request: v1::CreateRefundRequest) -> Result<v1::CreateRefundResponse, Error> {
        self.make_refund(request).await
    }

    async fn claim_refund(&self, request: v1::ClaimRefundRequest) -> Result<v1::Payment, Error> {
        self.take_refund(request).await
    }

    async fn probe(&self, request: v1::ProbeRequest) -> Result<v1::ProbeResponse, Error> {
        self.find_out(request).await
    }

    async fn set_channel_policy(&self, request: v1::SetChannelPolicyRequest) -> Result<v1::Channel, Error> {
        self.set_policy(request).await
    }
}

#[async_trait]
impl crate::api::NetworkOps for LightningNode {
    async fn describe_graph(&self, request: v1::DescribeGraphRequest) -> Result<v1::DescribeGraphResponse, Error> {
        tokio::task::block_in_place(|| super::graph::describe(&self.graph.read_only(), &request))
    }

    async fn find_route(&self, request: v1::FindRouteRequest) -> Result<v1::FindRouteResponse, Error> {
        tokio::task::block_in_place(|| self.route_to(&request))
    }
}
