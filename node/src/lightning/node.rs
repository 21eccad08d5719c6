//! The node of a leader, put together from what the store held, and what operators can have it do.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, Weak},
    time::{Duration, Instant},
};

use async_trait::async_trait;
use bitcoin::{Network, secp256k1::PublicKey};
use holdfast_proto::{error::Error, node::v1};
use holdfast_signer_client::RemoteKeys;
use lightning::{
    chain::{BestBlock, Listen},
    events::bump_transaction::sync::WalletSync,
    ln::{
        channelmanager::{ChainParameters, ChannelManagerReadArgs},
        msgs::SocketAddress,
        peer_handler::{IgnoringMessageHandler, MessageHandler},
    },
    routing::scoring::ProbabilisticScoringFeeParameters,
    sign::{EntropySource, NodeSigner},
};
use lightning_block_sync::gossip::TokioSpawner;
use tokio::sync::Notify;

use super::{
    BufferedBroadcaster, BufferedKv, BufferedPersister, ClosingWatch, CommitQueue, Committer, LdkMachine, MessageGate,
    acceptance::Acceptance,
    background::Background,
    channel_backup::ChannelBackups,
    events::Events,
    forwards::Forwards,
    funding::Fundings,
    gossip,
    holds::Holds,
    keyed::Turns,
    load,
    logger::TracingLogger,
    metrics::PaymentMetrics,
    offers::{OfferGate, Offers},
    payments::unix_now,
    peers::Dialer,
    probes::Probes,
    received::Received,
    resume::{Resume, warn_of_broadcasts},
    settings,
    settled::Settled,
    settling::{Settling, SettlingListener, outpoints},
    signing_wallet::SigningWallet,
    startup::{MonitorListener, load_sweeper, read_monitors, sync, until_reached},
    types::*,
};
use crate::{
    chain::{Bitcoind, BlockCache, CachedBlocks, Destinations, FeeEstimates, HeaderCache, Outbox, Wallet},
    net::{Outbound, fetch::FetchUrl},
    store::{
        Effect, Loaded,
        postgres::{PeerRow, PgReader},
    },
};

/// What a leader brings to its node.
pub struct Parts {
    pub network: Network,
    pub alias: [u8; 32],
    pub announce: Vec<SocketAddress>,
    pub color: [u8; 3],
    pub outbound: Arc<Outbound>,
    pub rapid_sync_url: Option<FetchUrl>,
    pub keys: Arc<RemoteKeys>,
    /// Where `keys` send money; set here, when the wallet is open.
    pub destinations: Arc<Destinations>,
    pub bitcoind: Arc<Bitcoind>,
    pub fees: Arc<FeeEstimates>,
    pub headers: HeaderCache,
    pub blocks: BlockCache,
    pub metrics: PaymentMetrics,
    pub reserve_per_channel_sat: u64,
    pub acceptance: Acceptance,
    /// Of the primary: whether something is paid is decided by it.
    pub reader: Arc<PgReader>,
    pub loaded: Loaded,
    pub peers: Vec<PeerRow>,
}

/// A running node.
pub struct LightningNode {
    pub(super) network: Network,
    pub(super) keys: Arc<RemoteKeys>,
    pub(super) manager: Arc<ChannelManager>,
    pub(super) monitors: Arc<ChainMonitor>,
    pub(super) peers: Arc<PeerManager>,
    pub(super) queue: Arc<CommitQueue>,
    pub(super) wallet: Arc<Wallet>,
    pub(super) fees: Arc<FeeEstimates>,
    pub(super) dialer: Arc<Dialer>,
    pub(super) settled: Arc<Settled>,
    pub(super) router: Arc<Router>,
    pub(super) graph: Arc<Graph>,
    pub(super) backups: Arc<ChannelBackups>,
    pub(super) holds: Arc<Holds>,
    pub(super) offers: Arc<Offers>,
    pub(super) probes: Arc<Probes>,
    /// Of idempotency keys.
    pub(super) turns: Turns,
    pub(super) forwards: Forwards,
    pub(super) sweeper: Arc<Sweeper>,
    pub(super) signing_wallet: Arc<SigningWallet>,
    pub(super) fundings: Arc<Fundings>,
    pub(super) broadcaster: Arc<BufferedBroadcaster>,
    pub(super) bitcoind: Arc<Bitcoind>,
    pub(super) kv: Arc<BufferedKv>,
    pub(super) reader: Arc<PgReader>,
    announce: Vec<SocketAddress>,
    alias: [u8; 32],
    color: [u8; 3],
    draining: std::sync::atomic::AtomicBool,
    /// For what goes on when the call that began it is gone.
    pub(super) this: Weak<Self>,
}

/// The committer over the real parts.
pub type NodeCommitter = Committer<LdkMachine<Arc<ChannelManager>, Arc<ChainMonitor>>>;

/// A node that is loaded and at the chain's tip, with the loops that make it run.
pub struct Assembled {
    pub node: Arc<LightningNode>,
    pub committer: Arc<NodeCommitter>,
    pub background: Background,
}

/// How long each step of a takeover took.
#[derive(Debug)]
pub struct Phases {
    taken: BTreeMap<String, Duration>,
    since: Instant,
}

/// Why a node cannot be loaded. Retrying does not help: an operator has to look.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error(transparent)]
    Load(#[from] load::LoadError),
    #[error(transparent)]
    Closing(#[from] super::closing::ClosingError),
    #[error(transparent)]
    Funding(#[from] super::funding::FundingError),
    #[error(transparent)]
    Settling(#[from] super::settling::SettlingError),
    #[error(transparent)]
    Hold(#[from] super::holds::HoldError),
    #[error(transparent)]
    Offer(#[from] super::offers::OfferError),
    #[error("wallet: {0}")]
    Wallet(#[from] crate::chain::wallet::WalletError),
    #[error("signer: {0}")]
    Signer(#[from] Error),
    #[error("the sweeper's record does not parse: {0:?}")]
    Sweeper(lightning::ln::msgs::DecodeError),
    #[error("the new node cannot be made: {0}")]
    New(String),
}

impl Default for Phases {
    fn default() -> Self {
        Self { taken: BTreeMap::new(), since: Instant::now() }
    }
}

impl Phases {
    /// Ends the phase that began with the last call.
    pub fn end(&mut self, name: &str) {
        let took = self.since.elapsed();
        tracing::info!(phase = name, took_us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX), "takeover");
        self.taken.insert(name.to_owned(), took);
        self.since = Instant::now();
    }

    pub fn taken(&self) -> &BTreeMap<String, Duration> {
        &self.taken
    }
}

impl LightningNode {
    /// Loads the node, brings it to the chain's tip, and puts its parts together. Nothing leaves the process yet, but for
    /// questions to bitcoind and the signer.
    pub async fn assemble(parts: Parts, phases: &mut Phases) -> Result<Assembled, StartError> {
        let Parts { network, alias, announce, color, outbound, rapid_sync_url, keys, destinations, .. } = parts;
        let Parts { bitcoind, fees, .. } = parts;
        let Parts { mut headers, blocks, metrics, reserve_per_channel_sat, acceptance, .. } = parts;
        let Parts { reader, loaded, peers, .. } = parts;
        let Loaded { manager: manager_bytes, monitors: monitor_bytes, kv: records, received } = loaded;
        let logger: Logger = Arc::new(TracingLogger);
        let queue = Arc::new(CommitQueue::load(&records)?);
        let kv = Arc::new(BufferedKv::new(queue.clone(), records.clone()));
        let broadcaster = Arc::new(BufferedBroadcaster::new(queue.clone()));
        let persister = Arc::new(BufferedPersister::new(queue.clone()));

        // bitcoind away is a pause, here as everywhere.
        let tip = until_reached(&mut headers, &bitcoind, network).await;
        let tip = BestBlock { block_hash: tip.header.block_hash(), height: tip.height };
        phases.end("tip");

        let (monitors, channels) =
            tokio::task::block_in_place(|| read_monitors(&monitor_bytes, &keys, &broadcaster, &fees, &logger))?;
        phases.end("read-monitors");

        let resume = tokio::task::block_in_place(|| Resume::ask(keys.clone(), &channels))?;
        phases.end("ask-signer");

        let info = keys.info();
        let wallet =
            Wallet::open(&info.wallet_descriptor, &info.wallet_change_descriptor, network, &records, tip, kv.clone())?;
        let wallet = Arc::new(wallet.with_reserve(reserve_per_channel_sat));
        destinations.set(wallet.clone());
        let signing_wallet = Arc::new(SigningWallet::new(wallet.clone(), keys.clone()));
        let fundings = Arc::new(Fundings::load(&records, kv.clone())?);
        let settling = Arc::new(Settling::load(&records, kv.clone())?);
        let holds = Arc::new(Holds::load(&records, kv.clone())?);
        let offers = Arc::new(Offers::load(&records, kv.clone())?);
        let probes = Arc::new(Probes::default());

        let graph = Arc::new(gossip::load_graph(&records, network, logger.clone()));
        let scorer = Arc::new(Mutex::new(gossip::load_scorer(&records, graph.clone(), logger.clone())));
        let router = Arc::new(Router::new(
            graph.clone(),
            logger.clone(),
            keys.clone(),
            scorer.clone(),
            ProbabilisticScoringFeeParameters::default(),
        ));
        let message_router = Arc::new(MessageRouter::new(graph.clone(), keys.clone()));
        phases.end("wallet-and-graph");

        let chain_monitor = Arc::new(ChainMonitor::new(
            None,
            broadcaster.clone(),
            logger.clone(),
            fees.clone(),
            persister.clone(),
            keys.clone(),
            keys.get_peer_storage_key(),
        ));
        let watch = Arc::new(ClosingWatch::new(chain_monitor.clone(), queue.clone()));
        let manager = match &manager_bytes {
            Some(bytes) => {
                let args = ChannelManagerReadArgs::new(
                    keys.clone(),
                    keys.clone(),
                    keys.clone(),
                    fees.clone(),
                    watch,
                    broadcaster.clone(),
                    router.clone(),
                    message_router.clone(),
                    logger.clone(),
                    settings::user_config(),
                    monitors.iter().map(|read| &read.monitor).collect(),
                );
                tokio::task::block_in_place(|| load::read_manager(bytes, args))?
            }
            None => ChannelManager::new(
                fees.clone(),
                watch,
                broadcaster.clone(),
                router.clone(),
                message_router.clone(),
                logger.clone(),
                keys.clone(),
                keys.clone(),
                keys.clone(),
                settings::user_config(),
                ChainParameters { network, best_block: tip },
                u32::try_from(unix_now()).map_err(|e| StartError::New(e.to_string()))?,
            ),
        };
        let manager = Arc::new(manager);
        phases.end("read-manager");

        let sweeper = Arc::new(load_sweeper(
            manager.current_best_block(),
            &records,
            (&broadcaster, &fees, &keys, &wallet, &kv, &logger),
        )?);
        let synced = {
            let listeners: Vec<MonitorListener<'_>> = monitors
                .iter()
                .map(|read| MonitorListener { read, broadcaster: &broadcaster, fees: &fees, logger: &logger })
                .collect();
            // It is written in the same moments as the wallet, and so is where that is.
            let watched = monitors.iter().flat_map(|read| outpoints(read.monitor.get_outputs_to_watch()));
            let settling = SettlingListener::new(settling.clone(), watched);
            let mut behind: Vec<(_, &(dyn Listen + Send + Sync))> = vec![
                (manager.current_best_block().block_hash, &*manager),
                (sweeper.current_best_block().block_hash, &*sweeper),
                (wallet.best_block().block_hash, &*wallet),
                (wallet.best_block().block_hash, &settling),
            ];
            behind.extend(listeners.iter().map(|l| (l.read.monitor.current_best_block().block_hash, l as _)));
            sync(&CachedBlocks { source: &*bitcoind, cache: &blocks }, network, &mut headers, behind).await
        };
        phases.end("sync");

        load::start_watching(&chain_monitor, &persister, monitors)?;
        queue.rebroadcast_closings();

        let broadcast = resume.signed_for_broadcast();
        let gate = Arc::new(MessageGate::with_hooks(manager.clone(), queue.clone(), Box::new(resume)));
        let gossip_sync = Arc::new(P2PGossipSync::new(graph.clone(), None::<Arc<UtxoLookup>>, logger.clone()));
        let gossip = {
            let manager = manager.clone();
            let is_ours: IsOurs = Box::new(move |peer, scid| {
                let channels = manager.list_channels_with_counterparty(peer);
                channels.iter().any(|channel| channel.short_channel_id == Some(scid))
            });
            Arc::new(Gossip::new(gossip_sync.clone(), is_ours))
        };
        let onion_messenger = Arc::new(OnionMessenger::new(
            keys.clone(),
            keys.clone(),
            logger.clone(),
            manager.clone(),
            message_router,
            Arc::new(OfferGate::new(manager.clone(), offers.clone())),
            manager.clone(),
            IgnoringMessageHandler {},
            IgnoringMessageHandler {},
        ));
        let handlers = MessageHandler {
            chan_handler: gate,
            route_handler: gossip,
            onion_message_handler: onion_messenger.clone(),
            custom_message_handler: IgnoringMessageHandler {},
            send_only_message_handler: chain_monitor.clone(),
        };
        let peer_manager = Arc::new(PeerManager::new(
            handlers,
            u32::try_from(unix_now()).map_err(|e| StartError::New(e.to_string()))?,
            &keys.get_secure_random_bytes(),
            logger.clone(),
            keys.clone(),
        ));
        if !broadcast.is_empty() {
            // A monitor that has closed its channel by itself says so now, and the manager then has the channel no longer.
            tokio::task::block_in_place(|| peer_manager.process_events());
            warn_of_broadcasts(&broadcast, manager.list_channels().iter().map(|channel| channel.channel_id));
        }
        let verifier = UtxoLookup::new(bitcoind.clone(), TokioSpawner, gossip_sync.clone(), peer_manager.clone());
        gossip_sync.add_utxo_lookup(Some(Arc::new(verifier)));

        let dialer = Arc::new(Dialer::new(peer_manager.clone(), graph.clone(), outbound.clone()));
        for peer in &peers {
            match PublicKey::from_slice(&peer.node_id) {
                Ok(node_id) => dialer.add(node_id, &peer.address),
                Err(error) => tracing::warn!(%error, "the list of peers names one that is none"),
            }
        }
        for channel in manager.list_channels() {
            dialer.has_channel(channel.counterparty.node_id);
        }

        let outbox = {
            let wallet = wallet.clone();
            Outbox::start(bitcoind.clone(), move |tx| wallet.saw_unconfirmed(tx))
        };
        for tx in wallet.unconfirmed() {
            outbox.send(vec![tx]);
        }
        let process_messages = Arc::new(Notify::new());
        let committer = Arc::new(Committer::new(
            queue.clone(),
            LdkMachine {
                manager: manager.clone(),
                monitors: chain_monitor.clone(),
                send_package: {
                    let outbox = outbox.clone();
                    Box::new(move |package| outbox.send(package))
                },
                process_messages: {
                    let process_messages = process_messages.clone();
                    Box::new(move || process_messages.notify_one())
                },
            },
        ));

        let backups = Arc::new(ChannelBackups {
            manager: manager.clone(),
            monitors: chain_monitor.clone(),
            dialer: dialer.clone(),
            keys: keys.clone(),
            kv: kv.clone(),
            keys_ids: ChannelBackups::keys_ids(&channels),
        });
        let bumping = Arc::new(WalletSync::new(signing_wallet.clone(), logger.clone()));
        let settled = Arc::new(Settled::default());
        let events = Events {
            manager: manager.clone(),
            queue: queue.clone(),
            broadcaster: broadcaster.clone(),
            keys: keys.clone(),
            wallet: wallet.clone(),
            signing_wallet: signing_wallet.clone(),
            fundings: fundings.clone(),
            fees: fees.clone(),
            fee_bumper: Arc::new(FeeBumper::new(broadcaster.clone(), bumping, keys.clone(), logger)),
            sweeper: sweeper.clone(),
            graph: graph.clone(),
            scorer: scorer.clone(),
            settled: settled.clone(),
            received: Received::before(received),
            holds: holds.clone(),
            offers: offers.clone(),
            probes: probes.clone(),
            dialer: dialer.clone(),
            backups: backups.clone(),
            acceptance,
            pace: Mutex::default(),
            metrics,
        };
        // A funding transaction whose channel did not survive the last leader will not be needed.
        let alive: Vec<u128> = manager.list_channels().iter().map(|channel| channel.user_channel_id).collect();
        for gone in fundings.channels().into_iter().filter(|id| !alive.contains(id)) {
            events.release_funding(gone);
        }
        events.wallet.release_all_but(&fundings.coins());

        let node = Arc::new_cyclic(|this| Self {
            this: this.clone(),
            network,
            keys,
            manager,
            monitors: chain_monitor,
            peers: peer_manager,
            queue,
            wallet,
            fees,
            dialer,
            settled,
            router,
            graph: graph.clone(),
            backups,
            holds,
            offers,
            probes,
            turns: Turns::default(),
            forwards: Forwards::default(),
            sweeper: sweeper.clone(),
            signing_wallet,
            fundings,
            broadcaster,
            bitcoind: bitcoind.clone(),
            kv: kv.clone(),
            reader,
            announce,
            alias,
            color,
            draining: false.into(),
        });
        let background = Background {
            node: node.clone(),
            events: Arc::new(events),
            onion_messenger,
            sweeper,
            settling,
            graph,
            scorer,
            kv,
            bitcoind,
            outbox,
            process_messages,
            headers,
            synced,
            rapid_gossip: rapid_sync_url.map(|url| (url, outbound)),
        };
        phases.end("assemble");
        Ok(Assembled { node, committer, background })
    }

    pub fn node_id(&self) -> PublicKey {
        self.keys.node_id()
    }

    pub fn queue(&self) -> &Arc<CommitQueue> {
        &self.queue
    }

    pub fn keys(&self) -> &RemoteKeys {
        &self.keys
    }

    pub fn peer_manager(&self) -> &Arc<PeerManager> {
        &self.peers
    }

    pub fn dialer(&self) -> &Arc<Dialer> {
        &self.dialer
    }

    pub fn channel_count(&self) -> usize {
        self.manager.list_channels().len()
    }

    /// Fills in what only the leader knows.
    pub fn describe(&self, info: &mut v1::GetInfoResponse) {
        let tip = self.manager.current_best_block();
        let channels = self.manager.list_channels();
        info.node_id = self.node_id().to_string();
        info.block_height = tip.height;
        info.block_hash = tip.block_hash.to_string();
        info.peers = self.peers.list_peers().len() as u32;
        info.channels = channels.len() as u32;
        info.usable_channels = channels.iter().filter(|channel| channel.is_usable).count() as u32;
        info.addresses = self.announce.iter().map(|address| address.to_string()).collect();
    }

    /// Tells the network where the node is. Others pass it on only if they know a channel of ours.
    pub(super) fn announce_node(&self) {
        tokio::task::block_in_place(|| {
            self.peers.broadcast_node_announcement(self.color, self.alias, self.announce.clone());
        });
    }

    /// Stops taking on new work, lets what is in flight come to a point where it may rest, and commits. HTLCs that are
    /// not settled by then are settled by the next leader.
    pub async fn drain(&self, patience: Duration) {
        self.draining.store(true, std::sync::atomic::Ordering::Release);
        let deadline = Instant::now() + patience;
        while Instant::now() < deadline {
            let settled = self.monitors.list_pending_monitor_updates().values().all(Vec::is_empty);
            let idle = |c: &lightning::ln::channel_state::ChannelDetails| {
                c.pending_inbound_htlcs.is_empty() && c.pending_outbound_htlcs.is_empty()
            };
            if settled && self.manager.list_channels().iter().all(idle) {
                break;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        tokio::task::block_in_place(|| {
            self.forwards.stop();
            // Whoever asked before we began to drain is done asking.
            self.queue.with_state(|| ());
            self.peers.disconnect_all_peers();
        });
        self.queue.committed().await;
    }

    /// Refuses what a node that is about to hand over should not begin.
    pub(super) fn must_run(&self) -> Result<(), Error> {
        match self.draining.load(std::sync::atomic::Ordering::Acquire) {
            true => Err(Error::unavailable("this replica is handing over")),
            false => Ok(()),
        }
    }

    /// Waits until everything done so far is durable.
    pub(super) async fn committed(&self) -> Result<(), Error> {
        match self.queue.committed().await {
            true => Ok(()),
            false => Err(Error::unavailable("this replica no longer leads")),
        }
    }
}

#[async_trait]
impl crate::api::NodeOps for LightningNode {
    async fn new_address(&self) -> Result<v1::NewAddressResponse, Error> {
        self.must_run()?;
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
