//! A node of LDK's parts, as the harness drives it: synchronously, without network, router or wallet.

use std::{
    cell::RefCell,
    collections::VecDeque,
    sync::{Arc, Mutex},
};

use bitcoin::{
    Block, Network, Transaction,
    absolute::LockTime,
    secp256k1::{PublicKey, Secp256k1, Signing, Verification},
    transaction::Version,
};
use lightning::{
    blinded_path::payment::{BlindedPaymentPath, ReceiveTlvs},
    chain::{
        BestBlock, ChannelMonitorUpdateStatus, Filter, Listen, Watch,
        chaininterface::{BroadcasterInterface, ConfirmationTarget, FeeEstimator},
        chainmonitor::{ChainMonitor, Persist},
        channelmonitor::{ChannelMonitor, ChannelMonitorUpdate},
    },
    events::{Event, EventsProvider, bump_transaction::BumpTransactionEvent},
    ln::{
        channel_state::ChannelDetails,
        channelmanager::{ChainParameters, ChannelManager},
        msgs::ChannelMessageHandler,
    },
    onion_message::messenger::NullMessageRouter,
    routing::router::{InFlightHtlcs, Route, RouteParameters, Router},
    sign::{EntropySource, KeysManager, NodeSigner, Recipient, SignerProvider, ecdsa::EcdsaChannelSigner},
    util::{
        config::UserConfig,
        logger::{Logger, Record},
        persist::MonitorName,
    },
};

/// What holds a node's keys. The peers use LDK's own; ours may use anything.
pub trait Keys:
    NodeSigner + EntropySource + SignerProvider<EcdsaSigner = <Self as Keys>::Signer> + Send + Sync + 'static
{
    type Signer: EcdsaChannelSigner + Send + Sync + 'static;

    /// Whether a cooperative close is signed of the channel whose signer was handed out last.
    fn close_signed(&self) -> bool {
        false
    }
}

impl Keys for KeysManager {
    type Signer = lightning::sign::InMemorySigner;
}

pub type SignerOf<K> = <K as Keys>::Signer;
pub type DynBroadcaster = dyn BroadcasterInterface + Send + Sync;
pub type DynPersist<K> = dyn Persist<SignerOf<K>> + Send + Sync;
pub type DynWatch<K> = dyn Watch<SignerOf<K>> + Send + Sync;
pub type DynHandler = dyn ChannelMessageHandler + Send + Sync;

pub type Monitors<K> = ChainMonitor<
    SignerOf<K>,
    Arc<dyn Filter + Send + Sync>,
    Arc<DynBroadcaster>,
    Arc<Fees>,
    Arc<Log>,
    Arc<DynPersist<K>>,
    Arc<K>,
>;

pub type Manager<K> = ChannelManager<
    Arc<DynWatch<K>>,
    Arc<DynBroadcaster>,
    Arc<K>,
    Arc<K>,
    Arc<K>,
    Arc<Fees>,
    Arc<NoRouter>,
    Arc<NullMessageRouter>,
    Arc<Log>,
>;

pub struct Node<K: Keys> {
    pub id: PublicKey,
    pub keys: Arc<K>,
    pub manager: Arc<Manager<K>>,
    pub monitors: Arc<Monitors<K>>,
    pub broadcaster: Arc<DynBroadcaster>,
    /// What the network hands messages to.
    pub handler: Arc<DynHandler>,
}

/// What every node needs besides its keys and its way to persist.
#[derive(Clone)]
pub struct Parts {
    pub fees: Arc<Fees>,
    pub log: Arc<Log>,
    pub config: UserConfig,
}

pub fn node_id<K: Keys>(keys: &K) -> PublicKey {
    keys.get_node_id(Recipient::Node).unwrap()
}

impl<K: Keys> Node<K> {
    pub fn monitors(
        parts: &Parts,
        keys: &Arc<K>,
        broadcaster: &Arc<DynBroadcaster>,
        persist: Arc<DynPersist<K>>,
    ) -> Arc<Monitors<K>> {
        Arc::new(ChainMonitor::new(
            None,
            broadcaster.clone(),
            parts.log.clone(),
            parts.fees.clone(),
            persist,
            keys.clone(),
            keys.get_peer_storage_key(),
        ))
    }

    pub fn new_manager(
        parts: &Parts,
        keys: &Arc<K>,
        broadcaster: &Arc<DynBroadcaster>,
        watch: Arc<DynWatch<K>>,
        best_block: BestBlock,
    ) -> Arc<Manager<K>> {
        Arc::new(ChannelManager::new(
            parts.fees.clone(),
            watch,
            broadcaster.clone(),
            Arc::new(NoRouter),
            Arc::new(NullMessageRouter {}),
            parts.log.clone(),
            keys.clone(),
            keys.clone(),
            keys.clone(),
            parts.config.clone(),
            ChainParameters { network: Network::Regtest, best_block },
            1_700_000_000,
        ))
    }

    /// In an order that does not depend on hashing.
    pub fn channels(&self) -> Vec<ChannelDetails> {
        let mut channels = self.manager.list_channels();
        channels.sort_by_key(|channel| channel.channel_id.0);
        channels
    }

    /// Takes the events out of manager and monitors. The caller acts on them before anything else happens.
    pub fn take_events(&self) -> Vec<Event> {
        let events = RefCell::new(Vec::new());
        let take = |event| {
            events.borrow_mut().push(event);
            Ok(())
        };
        self.manager.process_pending_events(&take);
        self.monitors.process_pending_events(&take);
        events.into_inner()
    }

    pub fn connect(&self, block: &Block, height: u32) {
        self.monitors.block_connected(block, height);
        self.manager.block_connected(block, height);
    }

    pub fn disconnect(&self, fork: BestBlock) {
        self.monitors.blocks_disconnected(fork);
        self.manager.blocks_disconnected(fork);
    }

    /// What a node does once a minute: gives up on payments whose other parts never came, among other things.
    pub fn tick(&self) {
        self.manager.timer_tick_occurred();
        self.monitors.rebroadcast_pending_claims();
    }

    /// Acts on a commitment with anchors, without paying fees: the harness's miners take it anyway.
    pub fn bump(&self, event: &BumpTransactionEvent) {
        let secp = Secp256k1::new();
        match event {
            BumpTransactionEvent::ChannelClose { commitment_tx, .. } => {
                self.broadcaster.broadcast_transactions(&[commitment_tx]);
            }
            BumpTransactionEvent::HTLCResolution { htlc_descriptors, tx_lock_time, .. } => {
                for descriptor in htlc_descriptors {
                    let mut tx = Transaction {
                        version: Version::TWO,
                        lock_time: *tx_lock_time,
                        input: vec![descriptor.unsigned_tx_input()],
                        output: vec![descriptor.tx_output(&secp)],
                    };
                    if descriptor.preimage.is_some() {
                        tx.lock_time = LockTime::ZERO;
                    }
                    let signer = self.keys.derive_channel_signer(descriptor.channel_derivation_parameters.keys_id);
                    let signature = signer.sign_holder_htlc_transaction(&tx, 0, descriptor, &secp).unwrap();
                    let script = descriptor.witness_script(&secp);
                    tx.input[0].witness = descriptor.tx_input_witness(&signature, &script);
                    self.broadcaster.broadcast_transactions(&[&tx]);
                }
            }
        }
    }
}

/// Persists nothing and says that it did.
pub struct Instant;

impl<S: EcdsaChannelSigner> Persist<S> for Instant {
    fn persist_new_channel(&self, _: MonitorName, _: &ChannelMonitor<S>) -> ChannelMonitorUpdateStatus {
        ChannelMonitorUpdateStatus::Completed
    }

    fn update_persisted_channel(
        &self,
        _: MonitorName,
        _: Option<&ChannelMonitorUpdate>,
        _: &ChannelMonitor<S>,
    ) -> ChannelMonitorUpdateStatus {
        ChannelMonitorUpdateStatus::Completed
    }

    fn archive_persisted_channel(&self, _: MonitorName) {}
}

/// One fee rate for everything, for ever.
pub struct Fees;

impl FeeEstimator for Fees {
    fn get_est_sat_per_1000_weight(&self, _: ConfirmationTarget) -> u32 {
        253
    }
}

/// Every payment here is sent along a route that the harness made.
pub struct NoRouter;

impl Router for NoRouter {
    fn find_route(
        &self,
        _: &PublicKey,
        _: &RouteParameters,
        _: Option<&[&ChannelDetails]>,
        _: InFlightHtlcs,
    ) -> Result<Route, &'static str> {
        Err("the harness makes the routes")
    }

    fn create_blinded_payment_paths<T: Signing + Verification>(
        &self,
        _: PublicKey,
        _: Vec<ChannelDetails>,
        _: ReceiveTlvs,
        _: Option<u64>,
        _: &Secp256k1<T>,
    ) -> Result<Vec<BlindedPaymentPath>, ()> {
        Err(())
    }
}

/// The last lines that LDK logged, for the report of a failed run.
pub struct Log {
    pub name: &'static str,
    pub lines: Arc<Mutex<VecDeque<String>>>,
    pub keep: usize,
}

impl Log {
    pub fn note(&self, line: impl FnOnce() -> String) {
        if self.keep == 0 {
            return;
        }
        let line = line();
        let mut lines = self.lines.lock().unwrap();
        if lines.len() == self.keep {
            lines.pop_front();
        }
        lines.push_back(line);
    }
}

impl Logger for Log {
    fn log(&self, record: Record) {
        self.note(|| format!("{} {} {}:{} {}", self.name, record.level, record.module_path, record.line, record.args));
    }
}
