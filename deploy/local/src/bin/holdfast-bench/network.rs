//! Who pays whom: our node, a payer, the ordinary node that is measured beside ours, and peers for many channels.

use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use bitcoin::{Amount, secp256k1::PublicKey};
use futures::future::try_join_all;
use holdfast_local::{Client, Counterparty, Deployment, Probe};
use holdfast_proto::node::v1;

pub const NAMES: [&str; 5] = ["payer", "peer-2", "peer-3", "peer-4", BASELINE];
/// All but what is measured: their disks are in no figure.
pub const IN_MEMORY: [&str; 4] = ["payer", "peer-2", "peer-3", "peer-4"];
/// Few peers open many channels here, one of them with a push.
pub const TABLES: &str =
    "[channels]\nmax_push_sat = 100000000\nmax_opens_per_hour = 100000\nmax_opens_per_hour_per_peer = 100000\n";
const BASELINE: &str = "ordinary";

/// Of the two channels that the payments run through, half on each side.
const WIDE_SAT: u64 = 16_000_000;
/// Of the many channels: each is funded by one coin.
const NARROW_SAT: u64 = 200_000;
const COIN_SAT: u64 = 300_000;
const SETTLE: Duration = Duration::from_secs(120);

pub struct Network<'a> {
    pub deployment: &'a Deployment,
    pub ours: PublicKey,
    channels: usize,
}

impl<'a> Network<'a> {
    /// Coins, and the two wide channels of the payer.
    pub async fn set_up(deployment: &'a Deployment) -> Result<Self> {
        let ours = deployment.node_id().await?;
        let network = Self { deployment, ours, channels: 1 };
        network.fund().await?;
        network.introduce().await?;
        let (leader, _) = deployment.leader().await?;
        let baseline = network.baseline();
        let push_msat = WIDE_SAT / 2 * 1000;
        for (node_id, address) in [(ours, leader.peer_address()), (baseline.node_id(), baseline.address())] {
            open(network.payer(), node_id, &address, WIDE_SAT, push_msat).await?;
            network.confirm(1).await?;
        }
        deployment.mine(5).await?;
        network.usable().await?;
        Ok(network)
    }

    pub fn payer(&self) -> &Counterparty {
        self.deployment.counterparty(NAMES[0])
    }

    pub fn baseline(&self) -> &Counterparty {
        self.deployment.counterparty(BASELINE)
    }

    /// Opens channels of the payer and the peers with our node until there are so many.
    pub async fn open_until(&mut self, channels: usize) -> Result<()> {
        let (leader, _) = self.deployment.leader().await?;
        let address = leader.peer_address();
        while self.channels < channels {
            // One of each at a time: these nodes would spend the same coin twice before they see it spent.
            let batch = (channels - self.channels).min(self.peers().count());
            let opens = self.peers().take(batch).map(|peer| open(peer, self.ours, &address, NARROW_SAT, 0));
            try_join_all(opens).await?;
            self.confirm(batch).await?;
            self.channels += batch;
        }
        self.deployment.mine(6).await?;
        self.usable().await
    }

    /// Waits until our node and the others can use all channels between them.
    pub async fn usable(&self) -> Result<()> {
        self.deployment
            .wait_for(&format!("{} usable channels", self.channels), SETTLE, async || {
                let ours = self.deployment.channels().await?;
                let ours = ours.iter().filter(|channel| channel.is_usable).count();
                let theirs = self.usable_to_peers();
                let all = ours == self.channels && theirs == self.channels;
                Ok(Probe::when(all, (), || format!("{ours} of our channels and {theirs} of theirs are")))
            })
            .await
    }

    /// How many channels with our node the others could use now.
    pub fn usable_to_peers(&self) -> usize {
        self.peers().map(|peer| self.usable_to(peer)).sum()
    }

    /// How many channels with our node one of them could use now.
    pub fn usable_to(&self, peer: &Counterparty) -> usize {
        let channels = peer.channels();
        channels.iter().filter(|channel| channel.is_usable && channel.counterparty_node_id == self.ours).count()
    }

    /// All but the ordinary node.
    pub fn peers(&self) -> impl Iterator<Item = &Counterparty> {
        self.deployment.counterparties().iter().filter(|counterparty| counterparty.name() != BASELINE)
    }

    /// Our node is to dial them after a takeover.
    async fn introduce(&self) -> Result<()> {
        let (_, mut client) = self.deployment.leader().await?;
        for peer in self.peers() {
            let request = v1::ConnectPeerRequest { node_id: peer.node_id().to_string(), address: peer.address() };
            client.connect_peer(request).await.with_context(|| format!("connecting to {}", peer.name()))?;
        }
        Ok(())
    }

    /// All in one transaction: coins for the channels, and everybody's reserve for fees of anchor channels.
    async fn fund(&self) -> Result<()> {
        const RESERVE: Amount = Amount::from_sat(5_000_000);
        let mut payments = Vec::new();
        for counterparty in self.deployment.counterparties() {
            let address = counterparty.new_address().await?;
            if counterparty.name() != BASELINE {
                payments.extend((0..30).map(|_| (address.clone(), Amount::from_sat(COIN_SAT))));
            }
            payments.push((address, RESERVE));
        }
        let wide = self.payer().new_address().await?;
        payments.extend((0..2).map(|_| (wide.clone(), Amount::from_sat(WIDE_SAT + 1_000_000))));
        let ask = async |mut client: Client| client.new_address(v1::NewAddressRequest {}).await;
        let answer = self.deployment.operator().ask("a new address", Duration::from_secs(10), ask).await?;
        let address = answer.address.parse::<bitcoin::Address<_>>()?.require_network(bitcoin::Network::Regtest)?;
        payments.push((address, RESERVE));
        self.deployment.bitcoind().pay(&payments).await?;
        self.deployment.mine(1).await
    }

    /// Waits for so many funding transactions and puts them into a block.
    async fn confirm(&self, transactions: usize) -> Result<()> {
        self.deployment
            .wait_for(&format!("{transactions} funding transactions in the mempool"), SETTLE, async || {
                let waiting = self.deployment.bitcoind().mempool().await?.len();
                Ok(Probe::when(waiting >= transactions, (), || format!("{waiting} there")))
            })
            .await?;
        self.deployment.mine(1).await
    }
}

/// An unannounced channel: all of it may be in flight at once.
async fn open(from: &Counterparty, to: PublicKey, address: &str, capacity_sat: u64, push_msat: u64) -> Result<()> {
    let node = from.node();
    let Ok(address) = address.parse() else { bail!("{address} is not host:port") };
    tokio::task::spawn_blocking(move || node.open_channel(to, address, capacity_sat, Some(push_msat), None))
        .await?
        .map_err(|error| anyhow!("{error}"))
        .with_context(|| format!("{} opens a channel", from.name()))?;
    Ok(())
}
