//! A leader's node, put together from what the store held.

use std::sync::{Arc, Mutex};

use bitcoin::Network;
use holdfast_proto::error::Error;
use holdfast_signer_client::RemoteKeys;
use lightning::{
    chain::{BestBlock, Listen},
    events::bump_transaction::sync::WalletSync,
    ln::{
        channelmanager::{ChainParameters, ChannelManagerReadArgs},
        msgs::SocketAddress,
    },
    routing::scoring::ProbabilisticScoringFeeParameters,
    sign::NodeSigner,
};
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
    labels, load,
    logger::TracingLogger,
    metrics::PaymentMetrics,
    node::LightningNode,
    offers::Offers,
    payments::unix_now,
    peer_storage::{Judge, PeerStorage},
    peering::Peering,
    phases::Phases,
    probes::Probes,
    received::Received,
    recovery::{self, Recoveries, RecoveryError},
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
    net::{Outbound, fetch::Source},
    store::{
        Loaded,
        postgres::{PeerRow, PgReader, ReadError},
    },
};

/// What a leader brings to its node.
pub struct Parts {
    pub network: Network,
    pub alias: [u8; 32],
    pub announce: Vec<SocketAddress>,
    pub color: [u8; 3],
    pub outbound: Arc<Outbound>,
    pub rapid_sync: Option<Source>,
    pub keys: Arc<RemoteKeys>,
    /// Where `keys` send money; set here, when the wallet is open.
    pub destinations: Arc<Destinations>,
    pub bitcoind: Arc<Bitcoind>,
    pub fees: Arc<FeeEstimates>,
    pub headers: HeaderCache,
    pub blocks: BlockCache,
    pub metrics: PaymentMetrics,
    pub reserve_per_channel_sat: u64,
    pub deposit_confirmations: u32,
    pub acceptance: Acceptance,
    /// Whether our encrypted backup is left with peers.
    pub leave_backup: bool,
    /// Of the primary: whether something is paid is decided by it.
    pub reader: Arc<PgReader>,
    pub loaded: Loaded,
    pub peers: Vec<PeerRow>,
}

/// The committer over the real parts.
pub type NodeCommitter = Committer<LdkMachine<Arc<ChannelManager>, Arc<ChainMonitor>>>;

/// A node that is loaded and at the chain's tip, with the loops that make it run.
pub struct Assembled {
    pub node: Arc<LightningNode>,
    pub committer: Arc<NodeCommitter>,
    pub background: Background,
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
    #[error(transparent)]
    Recovery(#[from] RecoveryError),
    #[error("wallet: {0}")]
    Wallet(#[from] crate::chain::wallet::WalletError),
    #[error("signer: {0}")]
    Signer(#[from] Error),
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error("the sweeper's record does not parse: {0:?}")]
    Sweeper(lightning::ln::msgs::DecodeError),
    #[error("the new node cannot be made: {0}")]
    New(String),
}

impl LightningNode {
    /// Loads the node, brings it to the chain's tip, and puts its parts together. Nothing leaves the process yet, but for
    /// questions to bitcoind and the signer.
    pub async fn assemble(parts: Parts, phases: &mut Phases) -> Result<Assembled, StartError> {
        let Parts { network, alias, announce, color, outbound, rapid_sync, keys, destinations, .. } = parts;
        let Parts { bitcoind, fees, .. } = parts;
        let Parts { mut headers, blocks, metrics, reserve_per_channel_sat, acceptance, leave_backup, .. } = parts;
        let Parts { deposit_confirmations, reader, loaded, peers, .. } = parts;
        let Loaded { manager: manager_bytes, monitors: monitor_bytes, kv: records, deposits } = loaded;
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
        let received = Received::load(&monitors, &reader).await?;
        phases.end("read-monitors");

        let resume = tokio::task::block_in_place(|| Resume::ask(keys.clone(), &channels))?;
        phases.end("ask-signer");

        let info = keys.info();
        let wallet =
            Wallet::open(&info.wallet_descriptor, &info.wallet_change_descriptor, network, &records, tip, kv.clone())?;
        let wallet = wallet.with_reserve(reserve_per_channel_sat);
        let wallet = Arc::new(wallet.with_deposits(deposit_confirmations, deposits, labels::teller(&queue, &kv)));
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
        let asked = resume.asked();
        let storage = PeerStorage::new(&keys.get_peer_storage_key(), keys.node_id(), queue.clone(), leave_backup);
        let storage = Arc::new(storage);
        let gate = MessageGate::with_hooks(manager.clone(), queue.clone(), Box::new(resume));
        let gate = Arc::new(gate.with_storage(storage.clone()));
        let peering = Peering {
            manager: &manager,
            keys: &keys,
            graph: &graph,
            offers: &offers,
            storage: &storage,
            bitcoind: &bitcoind,
            logger: &logger,
        };
        let onion_messenger = peering.onion_messenger(message_router);
        let peer_manager = peering.peer_manager(gate, &onion_messenger)?;
        if !broadcast.is_empty() {
            // A monitor that has closed its channel by itself says so now, and the manager then has the channel no longer.
            tokio::task::block_in_place(|| peer_manager.process_events());
            warn_of_broadcasts(&broadcast, manager.list_channels().iter().map(|channel| channel.channel_id));
        }
        let dialer = peering.dialer(&peer_manager, &outbound, &peers);

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
            storage: storage.clone(),
        });
        let judge = Judge {
            storage: storage.clone(),
            reader: reader.clone(),
            queue: queue.clone(),
            kv: kv.clone(),
            backups: backups.clone(),
        };
        let recoveries = recovery::Parts {
            manager: manager.clone(),
            monitors: chain_monitor.clone(),
            queue: queue.clone(),
            kv: kv.clone(),
            keys: keys.clone(),
            wallet: wallet.clone(),
            sweeper: sweeper.clone(),
            dialer: dialer.clone(),
            bitcoind: bitcoind.clone(),
            asked,
        };
        let recoveries = Arc::new(Recoveries::load(&records, recoveries)?);
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
            received,
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

        let node = Arc::new_cyclic(|this| LightningNode {
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
            recoveries,
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
            judge,
            headers,
            synced,
            rapid_gossip: rapid_sync.map(|source| (source, outbound)),
        };
        phases.end("assemble");
        Ok(Assembled { node, committer, background })
    }
}
