//! What operators, load balancers and monitoring see of a replica.
//!
//! - [`serve`]: `holdfast.node.v1` over mutual TLS. What an operator may call goes by his role; a replica may ask who leads.
//! - [`serve_health`]: `/livez`, `/readyz`, `/leader`, `/metrics` and a status page over plain HTTP.
//!
//! Both stand on [`Backend`], which the replica implements, and [`NodeOps`], which its Lightning node does while it
//! leads. This module knows neither LDK nor Postgres.

mod door;
mod events;
mod figures;
mod health;
mod metrics;
mod network;
mod paging;
mod payments;
mod recovery;
mod service;
mod snapshot;
mod splicing;
mod status_page;
#[cfg(test)]
pub(crate) mod testing;
mod wallet;

use std::sync::Arc;

use async_trait::async_trait;
use holdfast_proto::{error::Error, node::v1};

use crate::operators::Operators;

pub use events::{EventPage, EventSource, LOOK};
pub use health::serve_health;
pub use metrics::Metrics;
pub use network::NetworkOps;
pub use payments::PaymentOps;
pub use recovery::RecoveryOps;
pub use service::serve;
pub use snapshot::{Htlcs, Part, Watched};
pub use wallet::WalletOps;

/// A replica, leading or not.
#[async_trait]
pub trait Backend: Send + Sync + 'static {
    /// The node, while this replica leads. Asked anew for each call, so a replica that loses the lead simply returns
    /// `None` from then on.
    fn leading(&self) -> Option<Arc<dyn NodeOps>>;

    /// Why the replica could not take the lead, or serve it, right now: one line per part that is away (Postgres, signer,
    /// bitcoind). `Ok` makes it ready; a standby is ready.
    fn readiness(&self) -> Result<(), Vec<String>>;

    /// What else monitoring is shown. Does not wait for the node.
    fn watched(&self) -> Watched;

    /// HTLCs in flight, while this replica leads. May block for as long as the signer is away.
    fn htlcs(&self) -> Option<Htlcs>;

    /// What [`NodeOps`] knows when leading; else replica, network, alias, version, term, and nothing of the node.
    async fn info(&self) -> Result<v1::GetInfoResponse, Error>;

    /// Who leads as far as the database knows, with the latest takeovers.
    async fn leader(&self) -> Result<v1::GetLeaderResponse, Error>;

    /// Finishes what is in flight, commits, lets another lead; returns when this replica no longer leads.
    /// Called only while [`Backend::leading`] is `Some`.
    async fn handover(&self) -> Result<v1::HandoverResponse, Error>;

    /// One payment from the database with its parts, by its hash or id; if there is one in each direction (a payment to
    /// ourselves), the outbound one.
    async fn payment(&self, payment_hash: [u8; 32]) -> Result<Option<v1::Payment>, Error>;

    /// Newest first; at most `limit` of those made before sequence number `before`.
    async fn payments(&self, limit: u32, before: Option<u64>) -> Result<Vec<v1::Payment>, Error>;

    /// As [`Backend::payments`], of HTLCs that were forwarded. `limit` is the one to go by.
    async fn forwards(&self, request: v1::ListForwardsRequest) -> Result<v1::ListForwardsResponse, Error>;

    /// What each operator may do.
    fn operators(&self) -> Arc<Operators>;

    /// The log of what happened.
    fn events(&self) -> Arc<dyn EventSource>;

    /// As [`Backend::payments`], of the offers that we made.
    async fn offers(&self, limit: u32, before: Option<u64>) -> Result<Vec<v1::Offer>, Error>;

    /// What names each channel and its peer, from the database.
    async fn channel_backup(&self) -> Result<v1::ChannelBackup, Error>;
}

/// What only the leader can do. Each call returns after the commit of what it did (P2).
#[async_trait]
pub trait NodeOps: WalletOps + PaymentOps + NetworkOps + RecoveryOps + Send + Sync + 'static {
    async fn new_address(&self) -> Result<v1::NewAddressResponse, Error>;
    async fn balance(&self) -> Result<v1::GetBalanceResponse, Error>;
    async fn connect_peer(&self, request: v1::ConnectPeerRequest) -> Result<v1::ConnectPeerResponse, Error>;
    async fn disconnect_peer(&self, request: v1::DisconnectPeerRequest) -> Result<v1::DisconnectPeerResponse, Error>;
    async fn list_peers(&self) -> Result<v1::ListPeersResponse, Error>;
    async fn open_channel(&self, request: v1::OpenChannelRequest) -> Result<v1::OpenChannelResponse, Error>;
    async fn close_channel(&self, request: v1::CloseChannelRequest) -> Result<v1::CloseChannelResponse, Error>;
    async fn list_channels(&self) -> Result<v1::ListChannelsResponse, Error>;
    async fn create_invoice(&self, request: v1::CreateInvoiceRequest) -> Result<v1::CreateInvoiceResponse, Error>;
    async fn pay_invoice(&self, request: v1::PayInvoiceRequest) -> Result<v1::Payment, Error>;
    async fn send_keysend(&self, request: v1::SendKeysendRequest) -> Result<v1::Payment, Error>;
}
