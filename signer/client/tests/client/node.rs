//! Two LDK nodes in one process, one message at a time, on a chain that a test makes up.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex},
};

use bitcoin::{
    Amount, BlockHash, CompactTarget, Network, OutPoint, ScriptBuf, Sequence, Transaction, TxIn, TxMerkleNode, TxOut,
    Witness,
    absolute::LockTime,
    block::{Header, Version as BlockVersion},
    hashes::Hash,
    secp256k1::{PublicKey, Secp256k1},
    transaction::Version,
};
use lightning::{
    blinded_path::payment::{BlindedPaymentPath, ReceiveTlvs},
    chain::{
        BestBlock, ChannelMonitorUpdateStatus, Confirm, Filter,
        chaininterface::{BroadcasterInterface, ConfirmationTarget, FeeEstimator},
        chainmonitor::{ChainMonitor, Persist},
        channelmonitor::{ChannelMonitor, ChannelMonitorUpdate},
    },
    events::{Event, EventsProvider, PaymentPurpose},
    ln::{
        channel_state::ChannelDetails,
        channelmanager::{ChainParameters, ChannelManager, PaymentId, RecipientOnionFields, Retry},
        msgs::{BaseMessageHandler, ChannelMessageHandler, Init, MessageSendEvent},
    },
    onion_message::messenger::NullMessageRouter,
    routing::router::{InFlightHtlcs, Path, PaymentParameters, Route, RouteHop, RouteParameters, Router},
    sign::{EntropySource, NodeSigner, SignerProvider, ecdsa::EcdsaChannelSigner},
    types::{
        features::{ChannelFeatures, NodeFeatures},
        payment::PaymentPreimage,
    },
    util::{
        config::UserConfig,
        logger::{Logger, Record},
        persist::MonitorName,
    },
};

type Monitors<K> = ChainMonitor<
    <K as SignerProvider>::EcdsaSigner,
    Arc<dyn Filter + Send + Sync>,
    Arc<Mempool>,
    Arc<Fees>,
    Arc<Quiet>,
    Arc<Forgetful>,
    Arc<K>,
>;

type Manager<K> = ChannelManager<
    Arc<Monitors<K>>,
    Arc<Mempool>,
    Arc<K>,
    Arc<K>,
    Arc<K>,
    Arc<Fees>,
    Arc<OneHop>,
    Arc<NullMessageRouter>,
    Arc<Quiet>,
>;

pub trait Keys: EntropySource + NodeSigner + SignerProvider + Sized {}
impl<K: EntropySource + NodeSigner + SignerProvider> Keys for K {}

pub struct Node<K: Keys> {
    pub manager: Manager<K>,
    monitors: Arc<Monitors<K>>,
    pub mempool: Arc<Mempool>,
    pub seen: Seen,
    keys: Arc<K>,
    next_payment: u8,
}

/// What LDK's events said.
#[derive(Default)]
pub struct Seen {
    pub sent: usize,
    pub failed: usize,
    pub claimed: usize,
    pub closed: Vec<String>,
}

impl<K: Keys> Node<K> {
    pub fn new(keys: K, anchors: bool) -> Self {
        let keys = Arc::new(keys);
        let mempool = Arc::new(Mempool::default());
        let (fees, quiet) = (Arc::new(Fees), Arc::new(Quiet));
        let monitors: Arc<Monitors<K>> = Arc::new(ChainMonitor::new(
            None,
            mempool.clone(),
            quiet.clone(),
            fees.clone(),
            Arc::new(Forgetful),
            keys.clone(),
            keys.get_peer_storage_key(),
        ));
        let mut config = UserConfig::default();
        config.channel_handshake_config.negotiate_anchors_zero_fee_htlc_tx = anchors;
        config.manually_accept_inbound_channels = true;
        let manager = ChannelManager::new(
            fees,
            monitors.clone(),
            mempool.clone(),
            Arc::new(OneHop),
            Arc::new(NullMessageRouter {}),
            quiet,
            keys.clone(),
            keys.clone(),
            keys.clone(),
            config,
            ChainParameters { network: Network::Regtest, best_block: BestBlock::from_network(Network::Regtest) },
            1_700_000_000,
        );
        Self { manager, monitors, mempool, seen: Seen::default(), keys, next_payment: 0 }
    }

    pub fn id(&self) -> PublicKey {
        self.manager.get_our_node_id()
    }

    /// A keysend.
    pub fn pay(&mut self, to: PublicKey, amount_msat: u64) {
        self.next_payment += 1;
        let preimage = PaymentPreimage(self.keys.get_secure_random_bytes());
        let id = PaymentId([self.next_payment; 32]);
        let fields = RecipientOnionFields::spontaneous_empty();
        let payee = PaymentParameters::for_keysend(to, 40, false);
        let route = RouteParameters::from_payment_params_and_value(payee, amount_msat);
        self.manager.send_spontaneous_payment(Some(preimage), fields, id, route, Retry::Attempts(0)).unwrap();
    }

    /// Handles every event; true if there was one.
    fn handle_events(&mut self) -> bool {
        let events = Mutex::new(Vec::new());
        let keep = |event: Event| {
            events.lock().unwrap().push(event);
            Ok(())
        };
        self.manager.process_pending_events(&keep);
        self.monitors.process_pending_events(&keep);
        let events = events.into_inner().unwrap();
        let any = !events.is_empty();
        for event in events {
            self.handle(event);
        }
        any
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::OpenChannelRequest { temporary_channel_id, counterparty_node_id, .. } => {
                self.manager.accept_inbound_channel(&temporary_channel_id, &counterparty_node_id, 0, None).unwrap();
            }
            Event::FundingGenerationReady {
                temporary_channel_id,
                counterparty_node_id,
                channel_value_satoshis,
                output_script,
                ..
            } => {
                let funding = funding(channel_value_satoshis, output_script);
                self.manager
                    .funding_transaction_generated(temporary_channel_id, counterparty_node_id, funding)
                    .unwrap();
            }
            Event::PaymentClaimable { purpose: PaymentPurpose::SpontaneousPayment(preimage), .. } => {
                self.manager.claim_funds(preimage);
            }
            Event::PaymentClaimed { .. } => self.seen.claimed += 1,
            Event::PaymentSent { .. } => self.seen.sent += 1,
            Event::PaymentFailed { .. } => self.seen.failed += 1,
            Event::ChannelClosed { reason, .. } => self.seen.closed.push(reason.to_string()),
            _ => {}
        }
    }

    fn block(&self, header: &Header, height: u32, transactions: &[Transaction]) {
        let data: Vec<_> = transactions.iter().enumerate().map(|(i, tx)| (i + 1, tx)).collect();
        let listeners: [&dyn Confirm; 2] = [&self.manager, &*self.monitors];
        for listener in listeners {
            listener.transactions_confirmed(header, &data, height);
            listener.best_block_updated(header, height);
        }
    }
}

/// Two connected nodes and their chain.
pub struct Pair<A: Keys, B: Keys> {
    pub a: Node<A>,
    pub b: Node<B>,
    tip: (BlockHash, u32),
}

impl<A: Keys, B: Keys> Pair<A, B> {
    pub fn new(a: Node<A>, b: Node<B>) -> Self {
        let init = |features| Init { features, networks: None, remote_network_address: None };
        a.manager.peer_connected(b.id(), &init(b.manager.provided_init_features(a.id())), false).unwrap();
        b.manager.peer_connected(a.id(), &init(a.manager.provided_init_features(b.id())), true).unwrap();
        let genesis = BestBlock::from_network(Network::Regtest);
        Self { a, b, tip: (genesis.block_hash, 0) }
    }

    /// A channel from `a` to `b`, confirmed and ready.
    pub fn open(&mut self, value_sat: u64, push_msat: u64) {
        self.a.manager.create_channel(self.b.id(), value_sat, push_msat, 0, None, None).unwrap();
        self.settle();
        self.mine(6);
        assert_eq!(self.a.manager.list_usable_channels().len(), 1);
        assert_eq!(self.b.manager.list_usable_channels().len(), 1);
    }

    /// Delivers messages and handles events until there are none.
    pub fn settle(&mut self) {
        loop {
            self.a.manager.process_pending_htlc_forwards();
            self.b.manager.process_pending_htlc_forwards();
            let mut busy = self.a.handle_events() | self.b.handle_events();
            busy |= deliver(&self.a.manager, &self.b.manager);
            busy |= deliver(&self.b.manager, &self.a.manager);
            if !busy {
                return;
            }
        }
    }

    /// Confirms what was broadcast, then more blocks.
    pub fn mine(&mut self, blocks: u32) {
        let mut transactions: Vec<Transaction> = Vec::new();
        for tx in self.a.mempool.take().into_iter().chain(self.b.mempool.take()) {
            if transactions.iter().all(|other| other.compute_txid() != tx.compute_txid()) {
                transactions.push(tx);
            }
        }
        for _ in 0..blocks {
            let header = Header {
                version: BlockVersion::NO_SOFT_FORK_SIGNALLING,
                prev_blockhash: self.tip.0,
                merkle_root: TxMerkleNode::all_zeros(),
                time: self.tip.1,
                bits: CompactTarget::from_consensus(0x207f_ffff),
                nonce: 0,
            };
            self.tip = (header.block_hash(), self.tip.1 + 1);
            self.a.block(&header, self.tip.1, &transactions);
            self.b.block(&header, self.tip.1, &transactions);
            transactions.clear();
            self.settle();
        }
    }
}

fn deliver<A: Keys, B: Keys>(from: &Manager<A>, to: &Manager<B>) -> bool {
    let sender = from.get_our_node_id();
    let messages = from.get_and_clear_pending_msg_events();
    let any = !messages.is_empty();
    for message in messages {
        match message {
            MessageSendEvent::SendOpenChannel { msg, .. } => to.handle_open_channel(sender, &msg),
            MessageSendEvent::SendAcceptChannel { msg, .. } => to.handle_accept_channel(sender, &msg),
            MessageSendEvent::SendFundingCreated { msg, .. } => to.handle_funding_created(sender, &msg),
            MessageSendEvent::SendFundingSigned { msg, .. } => to.handle_funding_signed(sender, &msg),
            MessageSendEvent::SendChannelReady { msg, .. } => to.handle_channel_ready(sender, &msg),
            MessageSendEvent::SendRevokeAndACK { msg, .. } => to.handle_revoke_and_ack(sender, &msg),
            MessageSendEvent::SendShutdown { msg, .. } => to.handle_shutdown(sender, &msg),
            MessageSendEvent::SendClosingSigned { msg, .. } => to.handle_closing_signed(sender, &msg),
            MessageSendEvent::SendAnnouncementSignatures { msg, .. } => {
                to.handle_announcement_signatures(sender, &msg);
            }
            MessageSendEvent::UpdateHTLCs { updates, .. } => {
                updates.update_add_htlcs.iter().for_each(|msg| to.handle_update_add_htlc(sender, msg));
                updates.update_fulfill_htlcs.into_iter().for_each(|msg| to.handle_update_fulfill_htlc(sender, msg));
                updates.update_fail_htlcs.iter().for_each(|msg| to.handle_update_fail_htlc(sender, msg));
                updates.update_fee.iter().for_each(|msg| to.handle_update_fee(sender, msg));
                updates.commitment_signed.iter().for_each(|msg| to.handle_commitment_signed(sender, msg));
            }
            MessageSendEvent::HandleError { action, .. } => panic!("an error message: {action:?}"),
            // Gossip.
            _ => {}
        }
    }
    any
}

fn funding(value_sat: u64, script_pubkey: ScriptBuf) -> Transaction {
    Transaction {
        version: Version::TWO,
        lock_time: LockTime::ZERO,
        input: vec![TxIn {
            previous_output: OutPoint { txid: bitcoin::Txid::from_byte_array([7; 32]), vout: 0 },
            script_sig: ScriptBuf::new(),
            sequence: Sequence::MAX,
            witness: Witness::from_slice(&[[1]]),
        }],
        output: vec![TxOut { value: Amount::from_sat(value_sat), script_pubkey }],
    }
}

#[derive(Default)]
pub struct Mempool(Mutex<VecDeque<Transaction>>);

impl Mempool {
    pub fn take(&self) -> Vec<Transaction> {
        self.0.lock().unwrap().drain(..).collect()
    }
}

impl BroadcasterInterface for Mempool {
    fn broadcast_transactions(&self, txs: &[&Transaction]) {
        self.0.lock().unwrap().extend(txs.iter().map(|tx| (*tx).clone()));
    }
}

pub struct Fees;

impl FeeEstimator for Fees {
    fn get_est_sat_per_1000_weight(&self, _target: ConfirmationTarget) -> u32 {
        1_000
    }
}

pub struct Quiet;

impl Logger for Quiet {
    fn log(&self, _record: Record) {}
}

/// Keeps nothing, and says at once that it did.
pub struct Forgetful;

impl<S: EcdsaChannelSigner> Persist<S> for Forgetful {
    fn persist_new_channel(&self, _name: MonitorName, _monitor: &ChannelMonitor<S>) -> ChannelMonitorUpdateStatus {
        ChannelMonitorUpdateStatus::Completed
    }

    fn update_persisted_channel(
        &self,
        _name: MonitorName,
        _update: Option<&ChannelMonitorUpdate>,
        _monitor: &ChannelMonitor<S>,
    ) -> ChannelMonitorUpdateStatus {
        ChannelMonitorUpdateStatus::Completed
    }

    fn archive_persisted_channel(&self, _name: MonitorName) {}
}

/// To the neighbour.
pub struct OneHop;

impl Router for OneHop {
    fn find_route(
        &self,
        _payer: &PublicKey,
        parameters: &RouteParameters,
        first_hops: Option<&[&ChannelDetails]>,
        _inflight: InFlightHtlcs,
    ) -> Result<Route, &'static str> {
        let channel = first_hops.and_then(|hops| hops.first()).ok_or("no channel")?;
        let hop = RouteHop {
            pubkey: channel.counterparty.node_id,
            node_features: NodeFeatures::empty(),
            short_channel_id: channel.get_outbound_payment_scid().ok_or("no short id")?,
            channel_features: ChannelFeatures::empty(),
            fee_msat: parameters.final_value_msat,
            cltv_expiry_delta: 40,
            maybe_announced_channel: true,
        };
        let paths = vec![Path { hops: vec![hop], blinded_tail: None }];
        Ok(Route { paths, route_params: Some(parameters.clone()) })
    }

    fn create_blinded_payment_paths<T: bitcoin::secp256k1::Signing + bitcoin::secp256k1::Verification>(
        &self,
        _recipient: PublicKey,
        _first_hops: Vec<ChannelDetails>,
        _tlvs: ReceiveTlvs,
        _amount: Option<u64>,
        _secp: &Secp256k1<T>,
    ) -> Result<Vec<BlindedPaymentPath>, ()> {
        Err(())
    }
}
