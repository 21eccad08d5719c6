//! `holdfast.node.v1` over gRPC: who calls, may he, who can answer; then one line for each call.

use std::{future::Future, sync::Arc, time::Instant};

use holdfast_proto::{
    error::Error,
    node::v1::{
        self,
        node_server::{Node, NodeServer},
    },
    telemetry,
    tls::{self, Credentials},
    trace,
};
use tokio::{
    net::TcpListener,
    sync::{Mutex, watch},
};
use tonic::{Request, Response, Status};
use tracing::{Instrument, Span};

use super::{
    Backend, Metrics, NodeOps,
    door::Door,
    events::{self, EventStream, Places},
    paging::{fitting, page},
};
use crate::operators::Operators;

/// Serves until `shutdown` is done, and then until the calls in flight have been answered.
pub async fn serve(
    backend: Arc<dyn Backend>,
    metrics: Arc<Metrics>,
    listener: TcpListener,
    credentials: Credentials,
    shutdown: impl Future<Output = ()>,
) -> Result<(), tonic::transport::Error> {
    let replica = credentials.identity().name.clone();
    let operators = backend.operators();
    let (stopping, watched) = watch::channel(());
    let service = Service {
        backend,
        metrics: metrics.clone(),
        operators: operators.clone(),
        replica,
        watchers: Places::default(),
        searches: Mutex::default(),
        stopping: watched,
    };
    let shutdown = async {
        shutdown.await;
        // Streams have no end of their own that could be waited for.
        drop(stopping);
    };
    tls::server()
        .add_service(Door { operators, metrics, inner: NodeServer::new(service) })
        .serve_with_incoming_shutdown(tls::incoming(listener, credentials), shutdown)
        .await
}

struct Service {
    backend: Arc<dyn Backend>,
    metrics: Arc<Metrics>,
    operators: Arc<Operators>,
    /// Our own name.
    replica: String,
    /// Places for streams.
    watchers: Places,
    /// Held by who looks through the graph: one at a time, since gossip and scores stand still meanwhile.
    searches: Mutex<()>,
    /// Changes when streams are to end.
    stopping: watch::Receiver<()>,
}

impl Service {
    /// Checks the caller, answers, counts, and logs what was refused or went wrong.
    async fn answer<Q, A, F>(
        &self,
        method: &'static str,
        request: Request<Q>,
        answer: impl FnOnce(Q) -> F,
    ) -> Result<Response<A>, Status>
    where
        F: Future<Output = Result<A, Error>>,
    {
        let started = Instant::now();
        let caller =
            tls::peer_identity(&request).and_then(|caller| self.operators.authorise(&caller, method).map(|()| caller));
        let (caller, result) = match caller {
            Ok(caller) => {
                let span = traced(method, &request);
                (caller.to_string(), answer(request.into_inner()).instrument(span).await)
            }
            Err(error) => (String::new(), Err(error)),
        };
        self.metrics.answered(method, &result, started.elapsed());
        match result {
            Ok(answer) => {
                tracing::debug!(method, caller, "answered");
                Ok(Response::new(answer))
            }
            Err(error) => {
                tracing::info!(method, caller, %error, "did not do what an operator asked");
                Err(error.into())
            }
        }
    }

    /// The node if this replica leads; else an error that says where to ask.
    async fn node(&self) -> Result<Arc<dyn NodeOps>, Error> {
        if let Some(node) = self.backend.leading() {
            return Ok(node);
        }
        let us = &self.replica;
        Err(Error::unavailable(match self.backend.leader().await {
            Ok(leader) if leader.is_this_replica => format!("replica {us} has the lead, and its node is starting"),
            Ok(leader) if !leader.leader.is_empty() => {
                format!("replica {us} stands by: {} leads, its API is at {}", leader.leader, leader.api_address)
            }
            Ok(_) => format!("replica {us} stands by, and no replica leads"),
            Err(why) => format!("replica {us} stands by, and cannot tell who leads: {why}"),
        }))
    }
}

/// Begins a trace of the call, or goes on with the caller's.
fn traced<Q>(method: &'static str, request: &Request<Q>) -> Span {
    let span = tracing::info_span!(target: trace::TARGET, "call", otel.name = method, otel.kind = "server");
    if let Some(parent) = trace::parent(request) {
        telemetry::continue_trace(&span, parent);
    }
    span
}

/// Calls that go to the leader's node as they are.
macro_rules! leader_only {
    ($service:ident, $request:ident, $name:literal, |$node:ident| $call:expr) => {
        $service.answer($name, $request, |_| async {
            let $node = $service.node().await?;
            $call.await
        })
    };
    ($service:ident, $request:ident, $name:literal, |$node:ident, $body:ident| $call:expr) => {
        $service.answer($name, $request, |$body| async move {
            let $node = $service.node().await?;
            $call.await
        })
    };
}

#[tonic::async_trait]
impl Node for Service {
    async fn get_info(&self, r: Request<v1::GetInfoRequest>) -> Result<Response<v1::GetInfoResponse>, Status> {
        self.answer("GetInfo", r, |_| self.backend.info()).await
    }

    async fn get_leader(&self, r: Request<v1::GetLeaderRequest>) -> Result<Response<v1::GetLeaderResponse>, Status> {
        self.answer("GetLeader", r, |_| self.backend.leader()).await
    }

    async fn handover(&self, r: Request<v1::HandoverRequest>) -> Result<Response<v1::HandoverResponse>, Status> {
        self.answer("Handover", r, |_| async {
            self.node().await?;
            self.backend.handover().await
        })
        .await
    }

    async fn new_address(&self, r: Request<v1::NewAddressRequest>) -> Result<Response<v1::NewAddressResponse>, Status> {
        leader_only!(self, r, "NewAddress", |node| node.new_address()).await
    }

    async fn get_balance(&self, r: Request<v1::GetBalanceRequest>) -> Result<Response<v1::GetBalanceResponse>, Status> {
        leader_only!(self, r, "GetBalance", |node| node.balance()).await
    }

    async fn connect_peer(
        &self,
        r: Request<v1::ConnectPeerRequest>,
    ) -> Result<Response<v1::ConnectPeerResponse>, Status> {
        leader_only!(self, r, "ConnectPeer", |node, q| node.connect_peer(q)).await
    }

    async fn disconnect_peer(
        &self,
        r: Request<v1::DisconnectPeerRequest>,
    ) -> Result<Response<v1::DisconnectPeerResponse>, Status> {
        leader_only!(self, r, "DisconnectPeer", |node, q| node.disconnect_peer(q)).await
    }

    async fn list_peers(&self, r: Request<v1::ListPeersRequest>) -> Result<Response<v1::ListPeersResponse>, Status> {
        self.answer("ListPeers", r, |q| async move {
            let (peers, next) = page(self.node().await?.list_peers().await?.peers, q.limit, &q.after);
            Ok(v1::ListPeersResponse { peers, next })
        })
        .await
    }

    async fn describe_graph(
        &self,
        r: Request<v1::DescribeGraphRequest>,
    ) -> Result<Response<v1::DescribeGraphResponse>, Status> {
        leader_only!(self, r, "DescribeGraph", |node, q| async {
            let _turn = self.searches.lock().await;
            node.describe_graph(q).await
        })
        .await
    }

    async fn find_route(&self, r: Request<v1::FindRouteRequest>) -> Result<Response<v1::FindRouteResponse>, Status> {
        leader_only!(self, r, "FindRoute", |node, q| async {
            let _turn = self.searches.lock().await;
            node.find_route(q).await
        })
        .await
    }

    async fn export_channel_backup(
        &self,
        r: Request<v1::ExportChannelBackupRequest>,
    ) -> Result<Response<v1::ChannelBackup>, Status> {
        self.answer("ExportChannelBackup", r, |_| self.backend.channel_backup()).await
    }

    async fn recover_channels(
        &self,
        r: Request<v1::RecoverChannelsRequest>,
    ) -> Result<Response<v1::RecoverChannelsResponse>, Status> {
        leader_only!(self, r, "RecoverChannels", |node, q| node.recover_channels(q)).await
    }

    async fn list_channel_recoveries(
        &self,
        r: Request<v1::ListChannelRecoveriesRequest>,
    ) -> Result<Response<v1::ListChannelRecoveriesResponse>, Status> {
        self.answer("ListChannelRecoveries", r, |q| async move {
            let (channels, next) = page(self.node().await?.channel_recoveries().await?, q.limit, &q.after);
            Ok(v1::ListChannelRecoveriesResponse { channels, next })
        })
        .await
    }

    async fn open_channel(
        &self,
        r: Request<v1::OpenChannelRequest>,
    ) -> Result<Response<v1::OpenChannelResponse>, Status> {
        leader_only!(self, r, "OpenChannel", |node, q| node.open_channel(q)).await
    }

    async fn close_channel(
        &self,
        r: Request<v1::CloseChannelRequest>,
    ) -> Result<Response<v1::CloseChannelResponse>, Status> {
        leader_only!(self, r, "CloseChannel", |node, q| node.close_channel(q)).await
    }

    async fn list_channels(
        &self,
        r: Request<v1::ListChannelsRequest>,
    ) -> Result<Response<v1::ListChannelsResponse>, Status> {
        self.answer("ListChannels", r, |q| async move {
            let (channels, next) = page(self.node().await?.list_channels().await?.channels, q.limit, &q.after);
            Ok(v1::ListChannelsResponse { channels, next })
        })
        .await
    }

    async fn create_invoice(
        &self,
        r: Request<v1::CreateInvoiceRequest>,
    ) -> Result<Response<v1::CreateInvoiceResponse>, Status> {
        leader_only!(self, r, "CreateInvoice", |node, q| node.create_invoice(q)).await
    }

    async fn pay_invoice(&self, r: Request<v1::PayInvoiceRequest>) -> Result<Response<v1::Payment>, Status> {
        leader_only!(self, r, "PayInvoice", |node, q| node.pay_invoice(q)).await
    }

    async fn send_keysend(&self, r: Request<v1::SendKeysendRequest>) -> Result<Response<v1::Payment>, Status> {
        leader_only!(self, r, "SendKeysend", |node, q| node.send_keysend(q)).await
    }

    async fn set_channel_policy(
        &self,
        r: Request<v1::SetChannelPolicyRequest>,
    ) -> Result<Response<v1::Channel>, Status> {
        leader_only!(self, r, "SetChannelPolicy", |node, q| node.set_channel_policy(q)).await
    }

    async fn splice_channel(
        &self,
        r: Request<v1::SpliceChannelRequest>,
    ) -> Result<Response<v1::SpliceChannelResponse>, Status> {
        self.answer("SpliceChannel", r, |_| async { Err(super::splicing::refusal()) }).await
    }

    async fn settle_invoice(&self, r: Request<v1::SettleInvoiceRequest>) -> Result<Response<v1::Payment>, Status> {
        leader_only!(self, r, "SettleInvoice", |node, q| node.settle_invoice(q)).await
    }

    async fn cancel_invoice(&self, r: Request<v1::CancelInvoiceRequest>) -> Result<Response<v1::Payment>, Status> {
        leader_only!(self, r, "CancelInvoice", |node, q| node.cancel_invoice(q)).await
    }

    async fn create_offer(&self, r: Request<v1::CreateOfferRequest>) -> Result<Response<v1::Offer>, Status> {
        leader_only!(self, r, "CreateOffer", |node, q| node.create_offer(q)).await
    }

    async fn disable_offer(&self, r: Request<v1::DisableOfferRequest>) -> Result<Response<v1::Offer>, Status> {
        leader_only!(self, r, "DisableOffer", |node, q| node.disable_offer(q)).await
    }

    async fn list_offers(&self, r: Request<v1::ListOffersRequest>) -> Result<Response<v1::ListOffersResponse>, Status> {
        self.answer("ListOffers", r, |q| async move {
            Ok(v1::ListOffersResponse { offers: fitting(self.backend.offers(rows(q.limit), q.before).await?) })
        })
        .await
    }

    async fn create_refund(
        &self,
        r: Request<v1::CreateRefundRequest>,
    ) -> Result<Response<v1::CreateRefundResponse>, Status> {
        leader_only!(self, r, "CreateRefund", |node, q| node.create_refund(q)).await
    }

    async fn claim_refund(&self, r: Request<v1::ClaimRefundRequest>) -> Result<Response<v1::Payment>, Status> {
        leader_only!(self, r, "ClaimRefund", |node, q| node.claim_refund(q)).await
    }

    async fn probe(&self, r: Request<v1::ProbeRequest>) -> Result<Response<v1::ProbeResponse>, Status> {
        leader_only!(self, r, "Probe", |node, q| node.probe(q)).await
    }

    async fn list_addresses(
        &self,
        r: Request<v1::ListAddressesRequest>,
    ) -> Result<Response<v1::ListAddressesResponse>, Status> {
        self.answer("ListAddresses", r, |q| async move {
            let all = self.node().await?.list_addresses(q.clone()).await?.addresses;
            let (addresses, next) = page(all, q.limit, &q.after);
            Ok(v1::ListAddressesResponse { addresses, next })
        })
        .await
    }

    async fn list_utxos(&self, r: Request<v1::ListUtxosRequest>) -> Result<Response<v1::ListUtxosResponse>, Status> {
        self.answer("ListUtxos", r, |q| async move {
            let (utxos, next) = page(self.node().await?.list_utxos().await?.utxos, q.limit, &q.after);
            Ok(v1::ListUtxosResponse { utxos, next })
        })
        .await
    }

    async fn send_coins(&self, r: Request<v1::SendCoinsRequest>) -> Result<Response<v1::SendCoinsResponse>, Status> {
        leader_only!(self, r, "SendCoins", |node, q| node.send_coins(q)).await
    }

    async fn bump_transaction(
        &self,
        r: Request<v1::BumpTransactionRequest>,
    ) -> Result<Response<v1::BumpTransactionResponse>, Status> {
        leader_only!(self, r, "BumpTransaction", |node, q| node.bump_transaction(q)).await
    }

    async fn set_label(&self, r: Request<v1::SetLabelRequest>) -> Result<Response<v1::SetLabelResponse>, Status> {
        leader_only!(self, r, "SetLabel", |node, q| node.set_label(q)).await
    }

    async fn list_labels(&self, r: Request<v1::ListLabelsRequest>) -> Result<Response<v1::ListLabelsResponse>, Status> {
        self.answer("ListLabels", r, |q| async move {
            let (labels, next) = page(self.node().await?.list_labels().await?.labels, q.limit, &q.after);
            Ok(v1::ListLabelsResponse { labels, next })
        })
        .await
    }

    async fn get_descriptors(
        &self,
        r: Request<v1::GetDescriptorsRequest>,
    ) -> Result<Response<v1::GetDescriptorsResponse>, Status> {
        leader_only!(self, r, "GetDescriptors", |node| node.descriptors()).await
    }

    async fn rescan_wallet(
        &self,
        r: Request<v1::RescanWalletRequest>,
    ) -> Result<Response<v1::RescanWalletResponse>, Status> {
        leader_only!(self, r, "RescanWallet", |node, q| node.rescan(q)).await
    }

    type WatchEventsStream = EventStream;

    async fn watch_events(&self, r: Request<v1::WatchEventsRequest>) -> Result<Response<EventStream>, Status> {
        let caller = tls::peer_identity(&r).map(|caller| caller.name);
        self.answer("WatchEvents", r, |q| async move {
            let place = self.watchers.take(&caller?)?;
            events::watch(self.backend.events(), q, self.stopping.clone(), place).await
        })
        .await
    }

    async fn get_payment(&self, r: Request<v1::GetPaymentRequest>) -> Result<Response<v1::Payment>, Status> {
        self.answer("GetPayment", r, |q| async move {
            let hash = payment_hash(&q.payment_hash)?;
            let found = self.backend.payment(hash).await?;
            found.ok_or_else(|| Error::misuse("payment_hash", format!("no payment has the hash {}", q.payment_hash)))
        })
        .await
    }

    async fn list_forwards(
        &self,
        r: Request<v1::ListForwardsRequest>,
    ) -> Result<Response<v1::ListForwardsResponse>, Status> {
        self.answer("ListForwards", r, |q| async move {
            self.backend.forwards(v1::ListForwardsRequest { limit: rows(q.limit), ..q }).await
        })
        .await
    }

    async fn list_payments(
        &self,
        r: Request<v1::ListPaymentsRequest>,
    ) -> Result<Response<v1::ListPaymentsResponse>, Status> {
        self.answer("ListPayments", r, |q| async move {
            Ok(v1::ListPaymentsResponse { payments: fitting(self.backend.payments(rows(q.limit), q.before).await?) })
        })
        .await
    }
}

fn rows(limit: u32) -> u32 {
    match limit {
        0 => PAYMENTS_UNLESS_TOLD,
        more => more.min(PAYMENTS_AT_ONCE),
    }
}

const PAYMENTS_UNLESS_TOLD: u32 = 100;
/// A caller pages on with `before`.
const PAYMENTS_AT_ONCE: u32 = 1000;

fn payment_hash(hex: &str) -> Result<[u8; 32], Error> {
    let mut hash = [0; 32];
    hex::decode_to_slice(hex, &mut hash).map_err(|_| Error::misuse("payment_hash", "is not 64 hex digits"))?;
    Ok(hash)
}

#[cfg(test)]
mod tests;
