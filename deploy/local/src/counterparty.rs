//! An independent Lightning node: `ldk-node` with its own keys, store and view of the chain, in this process.

use std::{
    collections::HashMap,
    fmt, fs,
    path::{Path, PathBuf},
    str::FromStr,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLock},
    time::Duration,
};

use anyhow::{Context, Result, anyhow, bail};
use bitcoin::{Address, Network, secp256k1::PublicKey};
use ldk_node::{
    Builder, ChannelDetails, Event, Node, UserChannelId,
    config::Config,
    lightning::{ln::msgs::SocketAddress, routing::router::RouteParametersConfig},
    lightning_invoice::{Bolt11Invoice, Bolt11InvoiceDescription, Description},
    lightning_types::payment::{PaymentHash, PaymentPreimage},
    logger::LogLevel,
};
use tokio::{runtime::Runtime, task::JoinHandle};

use crate::{
    bitcoind::Bitcoind,
    ports::Port,
    wait::{Probe, wait_for},
};

/// A node to open channels with, pay and be paid by. Clones are the same node.
#[derive(Clone)]
pub struct Counterparty {
    inner: Arc<Inner>,
}

struct Inner {
    recipe: Recipe,
    port: Port,
    node_id: PublicKey,
    running: RwLock<Option<Running>>,
    story: Arc<Mutex<Story>>,
}

/// What a node is made from, again and again.
struct Recipe {
    name: String,
    storage: PathBuf,
    log: PathBuf,
    address: SocketAddress,
    rpc: (u16, String, String),
    anchors: bool,
    level: LogLevel,
}

struct Running {
    node: Arc<Node>,
    pump: JoinHandle<()>,
}

/// How a payment of ours ended. `lightning`'s words where it has them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    Succeeded { fee_msat: u64 },
    Failed { reason: String },
}

/// Everything that a counterparty was told by its own node, in order.
#[derive(Debug, Default)]
struct Story {
    events: Vec<Event>,
    outcomes: HashMap<PaymentHash, Vec<Outcome>>,
    received_msat: HashMap<PaymentHash, Vec<u64>>,
    closed: Vec<String>,
}

impl Counterparty {
    /// With `anchors`, it opens and accepts channels with anchor outputs; without, only static-remote-key ones. One that
    /// is `quiet` logs what goes wrong and no more.
    pub(crate) async fn start(
        name: &str,
        folder: &Path,
        logs: &Path,
        bitcoind: &Bitcoind,
        anchors: bool,
        quiet: bool,
    ) -> Result<Self> {
        let storage = folder.join(name);
        fs::create_dir(&storage)?;
        let port = Port::lease()?;
        let (user, password) = bitcoind.rpc_credentials();
        let recipe = Recipe {
            name: name.to_owned(),
            storage,
            log: logs.join(format!("{name}.log")),
            address: port.address().into(),
            rpc: (bitcoind.rpc_port(), user.to_owned(), password.to_owned()),
            anchors,
            level: if quiet { LogLevel::Warn } else { LogLevel::Debug },
        };
        let story = Arc::new(Mutex::new(Story::default()));
        let running = recipe.run(&story).await.with_context(|| format!("counterparty {name}"))?;
        let node_id = running.node.node_id();
        Ok(Self { inner: Arc::new(Inner { recipe, port, node_id, running: RwLock::new(Some(running)), story }) })
    }

    pub fn name(&self) -> &str {
        &self.inner.recipe.name
    }

    /// The `ldk-node` itself, for what has no method here. Its calls block. Panics between `halt` and `resume`.
    pub fn node(&self) -> Arc<Node> {
        self.running().unwrap_or_else(|| panic!("{} is halted", self.name()))
    }

    /// Whether it is not halted.
    pub fn is_running(&self) -> bool {
        self.running().is_some()
    }

    pub fn node_id(&self) -> PublicKey {
        self.inner.node_id
    }

    /// `host:port` where it listens.
    pub fn address(&self) -> String {
        self.inner.port.address().to_string()
    }

    /// All that it remembers. Nobody touches it while the node is halted.
    pub fn storage(&self) -> &Path {
        &self.inner.recipe.storage
    }

    /// Ends the node and closes its storage.
    pub async fn halt(&self) -> Result<()> {
        let Some(Running { node, pump }) = self.inner.running.write().unwrap_or_else(PoisonError::into_inner).take()
        else {
            return Ok(());
        };
        pump.abort();
        let _ = pump.await;
        blocking(move || {
            node.stop().map_err(|e| anyhow!("stopping: {e}"))?;
            // The last reference: what the node had open is closed when this returns.
            drop(node);
            Ok(())
        })
        .await
        .with_context(|| self.name().to_owned())
    }

    /// Runs the node again from what lies in its storage now.
    pub async fn resume(&self) -> Result<()> {
        let running = self.inner.recipe.run(&self.inner.story).await.with_context(|| self.name().to_owned())?;
        *self.inner.running.write().unwrap_or_else(PoisonError::into_inner) = Some(running);
        Ok(())
    }

    pub async fn new_address(&self) -> Result<Address> {
        self.call("a new address", |node| node.onchain_payment().new_address()).await
    }

    /// Looks at the chain now instead of at its next turn.
    pub async fn sync(&self) -> Result<()> {
        if !self.is_running() {
            return Ok(());
        }
        self.call("syncing", Node::sync_wallets).await
    }

    pub async fn connect(&self, node_id: PublicKey, address: &str) -> Result<()> {
        let address = socket_address(address)?;
        self.call("connecting", move |node| node.connect(node_id, address, true)).await
    }

    pub async fn open_channel(
        &self,
        node_id: PublicKey,
        address: &str,
        capacity_sat: u64,
        announce: bool,
    ) -> Result<UserChannelId> {
        let address = socket_address(address)?;
        self.call("opening a channel", move |node| {
            let open = if announce { Node::open_announced_channel } else { Node::open_channel };
            open(node, node_id, address, capacity_sat, None, None)
        })
        .await
    }

    pub async fn close_channel(&self, channel: UserChannelId, peer: PublicKey, force: bool) -> Result<()> {
        self.call("closing a channel", move |node| {
            if force { node.force_close_channel(&channel, peer, None) } else { node.close_channel(&channel, peer) }
        })
        .await
    }

    pub fn channels(&self) -> Vec<ChannelDetails> {
        self.running().map(|node| node.list_channels()).unwrap_or_default()
    }

    pub async fn invoice(&self, amount_msat: u64, description: &str) -> Result<String> {
        let description = Bolt11InvoiceDescription::Direct(Description::new(description.to_owned())?);
        let invoice =
            self.call("making an invoice", move |node| node.bolt11_payment().receive(amount_msat, &description, 3600));
        Ok(invoice.await?.to_string())
    }

    /// An invoice whose payment stays claimable until [`Counterparty::claim`]: an HTLC to hold.
    pub async fn hold_invoice(&self, amount_msat: u64, hash: PaymentHash) -> Result<String> {
        let description = Bolt11InvoiceDescription::Direct(Description::new("held".to_owned())?);
        let invoice = self.call("making an invoice to hold", move |node| {
            node.bolt11_payment().receive_for_hash(amount_msat, &description, 3600, hash)
        });
        Ok(invoice.await?.to_string())
    }

    /// Whether the payment of a held invoice has arrived.
    pub fn holds(&self, hash: PaymentHash) -> bool {
        let is_it =
            |event: &Event| matches!(event, Event::PaymentClaimable { payment_hash, .. } if *payment_hash == hash);
        self.story().events.iter().any(is_it)
    }

    /// Claims what was held.
    pub async fn claim(&self, preimage: PaymentPreimage, amount_msat: u64) -> Result<()> {
        let hash = PaymentHash::from(preimage);
        self.call("claiming", move |node| node.bolt11_payment().claim_for_hash(hash, amount_msat, preimage)).await
    }

    /// Gives back what was held.
    pub async fn fail(&self, hash: PaymentHash) -> Result<()> {
        self.call("failing a payment", move |node| node.bolt11_payment().fail_for_hash(hash)).await
    }

    /// Begins to pay; `outcome` tells how it ended.
    pub async fn pay(&self, invoice: &str) -> Result<PaymentHash> {
        let invoice = Bolt11Invoice::from_str(invoice).map_err(|e| anyhow!("not an invoice: {e:?}"))?;
        let id = self.call("paying", move |node| node.bolt11_payment().send(&invoice, None)).await?;
        Ok(PaymentHash(id.0))
    }

    /// Begins a payment without an invoice; `outcome` tells how it ended.
    pub async fn keysend(&self, node_id: PublicKey, amount_msat: u64) -> Result<PaymentHash> {
        let route = None::<RouteParametersConfig>;
        let id =
            self.call("a keysend", move |node| node.spontaneous_payment().send(amount_msat, node_id, route)).await?;
        Ok(PaymentHash(id.0))
    }

    /// Waits until a payment that this node began has succeeded or failed.
    pub async fn outcome(&self, hash: PaymentHash, deadline: Duration) -> Result<Outcome> {
        wait_for(&format!("{}'s payment {hash} to end", self.name()), deadline, async || {
            Ok(match self.outcomes(hash).first() {
                Some(outcome) => Probe::Ready(outcome.clone()),
                None => Probe::Waiting("pending".into()),
            })
        })
        .await
    }

    /// Every end that this node was told of for a payment it sent: more than one would be one too many.
    pub fn outcomes(&self, hash: PaymentHash) -> Vec<Outcome> {
        self.story().outcomes.get(&hash).cloned().unwrap_or_default()
    }

    /// Every amount that this node was told it received for a hash: more than one would be one too many.
    pub fn received_msat(&self, hash: PaymentHash) -> Vec<u64> {
        self.story().received_msat.get(&hash).cloned().unwrap_or_default()
    }

    /// Channels that closed, with the reasons given.
    pub fn closed(&self) -> Vec<String> {
        self.story().closed.clone()
    }

    pub fn events(&self) -> Vec<Event> {
        self.story().events.clone()
    }

    pub(crate) fn stop(&self) {
        if let Some(Running { node, pump }) = &*self.inner.running.read().unwrap_or_else(PoisonError::into_inner) {
            pump.abort();
            // An error means that it does not run, which is what is wanted.
            let _ = node.stop();
        }
    }

    fn running(&self) -> Option<Arc<Node>> {
        let running = self.inner.running.read().unwrap_or_else(PoisonError::into_inner);
        running.as_ref().map(|running| Arc::clone(&running.node))
    }

    async fn call<T, F>(&self, what: &'static str, call: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(&Node) -> Result<T, ldk_node::NodeError> + Send + 'static,
    {
        let node = self.running().with_context(|| format!("{} is halted", self.name()))?;
        let answer = blocking(move || call(&node).map_err(|error| anyhow!("{error}"))).await;
        answer.with_context(|| format!("{}: {what}", self.name()))
    }

    fn story(&self) -> MutexGuard<'_, Story> {
        self.inner.story.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Counterparty {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Counterparty").field("name", &self.name()).finish_non_exhaustive()
    }
}

impl Recipe {
    async fn run(&self, story: &Arc<Mutex<Story>>) -> Result<Running> {
        let mut config = Config { network: Network::Regtest, ..Config::default() };
        if !self.anchors {
            config.anchor_channels_config = None;
        }
        let mut builder = Builder::from_config(config);
        let (port, user, password) = self.rpc.clone();
        builder
            .set_storage_dir_path(self.storage.display().to_string())
            .set_filesystem_logger(Some(self.log.display().to_string()), Some(self.level))
            .set_chain_source_bitcoind_rpc("127.0.0.1".into(), port, user, password)
            .set_runtime(runtime().handle().clone());
        builder.set_listening_addresses(vec![self.address.clone()]).map_err(|e| anyhow!("{e:?}"))?;
        builder.set_node_alias(self.name.clone()).map_err(|e| anyhow!("{e:?}"))?;
        let node = blocking(move || {
            let node = builder.build().map_err(|e| anyhow!("building the node: {e:?}"))?;
            node.start().map_err(|e| anyhow!("starting the node: {e:?}"))?;
            Ok(Arc::new(node))
        })
        .await?;
        let pump = runtime().spawn(listen(Arc::clone(&node), Arc::clone(story)));
        Ok(Running { node, pump })
    }
}

async fn listen(node: Arc<Node>, story: Arc<Mutex<Story>>) {
    loop {
        let event = node.next_event_async().await;
        story.lock().unwrap_or_else(PoisonError::into_inner).add(event);
        // A failure would bring the same event again, and the tests would see it twice.
        let _ = node.event_handled();
    }
}

impl Story {
    fn add(&mut self, event: Event) {
        match &event {
            Event::PaymentSuccessful { payment_hash, fee_paid_msat, .. } => {
                let outcome = Outcome::Succeeded { fee_msat: fee_paid_msat.unwrap_or(0) };
                self.outcomes.entry(*payment_hash).or_default().push(outcome);
            }
            Event::PaymentFailed { payment_hash: Some(hash), reason, .. } => {
                let outcome = Outcome::Failed { reason: format!("{reason:?}") };
                self.outcomes.entry(*hash).or_default().push(outcome);
            }
            Event::PaymentReceived { payment_hash, amount_msat, .. } => {
                self.received_msat.entry(*payment_hash).or_default().push(*amount_msat);
            }
            Event::ChannelClosed { channel_id, reason, .. } => {
                let reason = reason.as_ref().map_or_else(|| "no reason given".to_owned(), ToString::to_string);
                self.closed.push(format!("{channel_id}: {reason}"));
            }
            _ => {}
        }
        self.events.push(event);
    }
}

/// One runtime for all counterparties, which is never dropped: theirs must outlive the tests' own.
fn runtime() -> &'static Runtime {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    RUNTIME.get_or_init(|| {
        tokio::runtime::Builder::new_multi_thread()
            .worker_threads(4)
            .thread_name("counterparty")
            .enable_all()
            .build()
            .expect("a machine that runs a deployment can run four threads")
    })
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    match runtime().spawn_blocking(work).await {
        Ok(answer) => answer,
        Err(error) => bail!("the call panicked: {error}"),
    }
}

fn socket_address(address: &str) -> Result<SocketAddress> {
    SocketAddress::from_str(address).map_err(|e| anyhow!("{address} is not host:port: {e:?}"))
}
