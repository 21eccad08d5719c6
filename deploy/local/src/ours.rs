//! What an operator does with our node, in the words of a test or a demo.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bitcoin::secp256k1::PublicKey;
use holdfast_proto::node::v1::{self, PaymentStatus};

use crate::{counterparty::Counterparty, deployment::Deployment, operator::Client, wait::Probe};

/// Deadline of an answer that needs nobody but our own parts, a takeover included.
const ANSWER: Duration = Duration::from_secs(60);
/// Deadline of what needs counterparties as well.
const NETWORK: Duration = Duration::from_secs(90);

impl Deployment {
    pub async fn info(&self) -> Result<v1::GetInfoResponse> {
        let ask = async |mut client: Client| client.get_info(v1::GetInfoRequest {}).await;
        self.explain(self.operator().ask("our node's info", ANSWER, ask).await)
    }

    pub async fn node_id(&self) -> Result<PublicKey> {
        self.info().await?.node_id.parse().context("our node id")
    }

    pub async fn channels(&self) -> Result<Vec<v1::Channel>> {
        let ask = async |mut client: Client| client.list_channels(v1::ListChannelsRequest::default()).await;
        Ok(self.explain(self.operator().ask("our channels", ANSWER, ask).await)?.channels)
    }

    pub async fn balance(&self) -> Result<v1::GetBalanceResponse> {
        let ask = async |mut client: Client| client.get_balance(v1::GetBalanceRequest {}).await;
        self.explain(self.operator().ask("our balance", ANSWER, ask).await)
    }

    /// All payments that our node knows, newest first.
    pub async fn payments(&self) -> Result<Vec<v1::Payment>> {
        const PAGE: u32 = 500;
        let mut payments: Vec<v1::Payment> = Vec::new();
        loop {
            let before = payments.last().map(|payment| payment.sequence);
            let ask =
                async |mut client: Client| client.list_payments(v1::ListPaymentsRequest { limit: PAGE, before }).await;
            let page = self.explain(self.operator().ask("our payments", ANSWER, ask).await)?.payments;
            if page.is_empty() {
                return Ok(payments);
            }
            payments.extend(page);
        }
    }

    pub async fn invoice(&self, amount_msat: u64, description: &str) -> Result<v1::CreateInvoiceResponse> {
        let ask = async |mut client: Client| {
            let request = v1::CreateInvoiceRequest {
                amount_msat: Some(amount_msat),
                description: description.to_owned(),
                ..Default::default()
            };
            client.create_invoice(request).await
        };
        self.explain(self.operator().ask("an invoice of ours", ANSWER, ask).await)
    }

    /// Pays and waits for success.
    pub async fn pay(&self, invoice: &str) -> Result<v1::Payment> {
        let ask = async |mut client: Client| {
            let request = v1::PayInvoiceRequest { invoice: invoice.to_owned(), ..Default::default() };
            client.pay_invoice(request).await
        };
        let payment = self.explain(self.operator().ask("our payment", NETWORK, ask).await)?;
        ensure!(payment.status() == PaymentStatus::Succeeded, "our payment did not succeed: {payment:?}");
        Ok(payment)
    }

    /// Pays without an invoice and waits for success.
    pub async fn keysend(&self, to: &Counterparty, amount_msat: u64) -> Result<v1::Payment> {
        let (_, mut client) = self.leader().await?;
        let request = v1::SendKeysendRequest { node_id: to.node_id().to_string(), amount_msat, ..Default::default() };
        let payment = self.explain(client.send_keysend(request).await.map_err(Into::into))?.into_inner();
        ensure!(payment.status() == PaymentStatus::Succeeded, "our keysend did not succeed: {payment:?}");
        Ok(payment)
    }

    /// Our node opens an announced channel; it is usable when this returns.
    pub async fn open_channel_to(&self, counterparty: &Counterparty, capacity_sat: u64) -> Result<()> {
        let before = self.channels().await?.len();
        let (_, mut client) = self.leader().await?;
        let request = v1::OpenChannelRequest {
            node_id: counterparty.node_id().to_string(),
            address: counterparty.address(),
            capacity_sat,
            announce: true,
            ..Default::default()
        };
        self.explain(client.open_channel(request).await.map_err(Into::into))?;
        self.confirm_channel(before + 1).await
    }

    /// The counterparty opens an announced channel with our node; it is usable when this returns. Our node is told
    /// where the counterparty listens, so that a new leader can find it before it has announced that to the world.
    pub async fn open_channel_from(&self, counterparty: &Counterparty, capacity_sat: u64) -> Result<()> {
        let before = self.channels().await?.len();
        let (leader, mut client) = self.leader().await?;
        let request =
            v1::ConnectPeerRequest { node_id: counterparty.node_id().to_string(), address: counterparty.address() };
        self.explain(client.connect_peer(request).await.map_err(Into::into))?;
        let node_id = self.node_id().await?;
        counterparty.open_channel(node_id, &leader.peer_address(), capacity_sat, true).await?;
        self.confirm_channel(before + 1).await
    }

    /// A counterparty opens a channel with another, which our node hears of by gossip alone.
    pub async fn open_channel_between(
        &self,
        one: &Counterparty,
        other: &Counterparty,
        capacity_sat: u64,
    ) -> Result<()> {
        one.open_channel(other.node_id(), &other.address(), capacity_sat, true).await?;
        self.bury_funding().await
    }

    /// Buries a funding transaction, and waits until both ends can use all channels.
    async fn confirm_channel(&self, channels: usize) -> Result<()> {
        self.bury_funding().await?;
        self.channels_usable(channels).await
    }

    /// Waits for a funding transaction and buries it under six blocks, so that the channel is announced as well.
    async fn bury_funding(&self) -> Result<()> {
        self.wait_for("a funding transaction in the mempool", NETWORK, async || {
            let mempool = self.bitcoind().mempool().await?;
            Ok(Probe::when(!mempool.is_empty(), (), || "an empty mempool".into()))
        })
        .await?;
        self.mine(6).await
    }

    /// Waits until our node has `count` channels and both ends of each can use it.
    pub async fn channels_usable(&self, count: usize) -> Result<()> {
        self.wait_for(&format!("{count} usable channels"), NETWORK, async || {
            let ours = self.channels().await?;
            let usable = ours.iter().filter(|channel| channel.is_usable).count();
            let theirs = self.counterparties().iter().flat_map(Counterparty::channels);
            let theirs = theirs.filter(|channel| channel.is_usable).count();
            let seen = || format!("{usable} of our {} channels and {theirs} of theirs are", ours.len());
            Ok(Probe::when(usable == count && theirs == count, (), seen))
        })
        .await
    }

    /// Waits until `from` has heard of the channel between our node and `to` well enough to route through it.
    pub async fn route_known(&self, from: &Counterparty, to: &Counterparty) -> Result<()> {
        let ours = ldk_node::lightning::routing::gossip::NodeId::from_pubkey(&self.node_id().await?);
        let theirs = ldk_node::lightning::routing::gossip::NodeId::from_pubkey(&to.node_id());
        let what = format!("{} to know the way to {}", from.name(), to.name());
        self.wait_for(&what, NETWORK, async || {
            let graph = from.node().network_graph();
            let channels: Vec<_> = graph.list_channels().into_iter().filter_map(|id| graph.channel(id)).collect();
            let between = channels.iter().find(|channel| {
                let ends = [channel.node_one, channel.node_two];
                ends.contains(&ours) && ends.contains(&theirs)
            });
            // The policy of the end that forwards is what a payer needs.
            Ok(match between {
                Some(channel) => {
                    let (there, back) = (&channel.one_to_two, &channel.two_to_one);
                    let (there, back) = if channel.node_one == ours { (there, back) } else { (back, there) };
                    let seen = || format!("our policy: {there:?}; {}'s: {back:?}", to.name());
                    Probe::when(there.is_some(), (), seen)
                }
                None => Probe::Waiting(format!("{} other channels", channels.len())),
            })
        })
        .await
    }
}
