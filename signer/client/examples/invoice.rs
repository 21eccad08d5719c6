//! A program that is not Holdfast's own, with its keys in a Holdfast signer: LDK's `ChannelManager` where `KeysManager` was
//! replaced by `RemoteKeys`, and nothing else changed. It prints its node id and an invoice that the signer signed.
//!
//! ```sh
//! cargo run --example invoice -- 127.0.0.1:9911 replica-a.pem replica-a.key ca.pem
//! ```
//!
//! It takes the next term for itself, so a Holdfast replica that leads on this signer stops at once.

use std::{
    env,
    error::Error,
    path::Path,
    process,
    sync::{Arc, RwLock},
    time::Duration,
};

use bitcoin::{Network, Transaction};
use holdfast_signer_client::{ClientConfig, Credentials, Destinations, Grpc, RemoteKeys};
use lightning::{
    chain::{
        BestBlock, ChannelMonitorUpdateStatus, Filter,
        chaininterface::{BroadcasterInterface, ConfirmationTarget, FeeEstimator},
        chainmonitor::{ChainMonitor, Persist},
        channelmonitor::{ChannelMonitor, ChannelMonitorUpdate},
    },
    ln::channelmanager::{Bolt11InvoiceParameters, ChainParameters, ChannelManager},
    onion_message::messenger::NullMessageRouter,
    routing::{
        gossip::NetworkGraph,
        router::DefaultRouter,
        scoring::{ProbabilisticScorer, ProbabilisticScoringDecayParameters, ProbabilisticScoringFeeParameters},
    },
    sign::{NodeSigner, ecdsa::EcdsaChannelSigner},
    util::{
        config::UserConfig,
        logger::{Logger, Record},
        persist::MonitorName,
    },
};

fn main() {
    if let Err(error) = run() {
        eprintln!("{error}");
        process::exit(1);
    }
}

fn run() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = env::args().skip(1).collect();
    let [endpoint, certificate, key, ca] = args.as_slice() else {
        return Err("arguments: <host:port> <certificate> <key> <ca>".into());
    };

    // The signer, and a term of our own.
    let credentials = Credentials::load(Path::new(certificate), Path::new(key), Path::new(ca))?;
    let config = ClientConfig {
        endpoints: vec![endpoint.clone()],
        deadline: Duration::from_secs(60),
        on_fatal: Arc::new(|fatal| {
            eprintln!("{fatal}");
            process::abort()
        }),
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let grpc = Grpc::new(&config.endpoints, &credentials)?;
    let term = runtime.block_on(async { grpc.announce_term(grpc.newest_term().await? + 1).await })?;
    let keys = Arc::new(RemoteKeys::connect(config, credentials, term, Destinations::Signer)?);
    let network: Network = keys.info().network.parse()?;

    // From here on: any LDK program.
    let (logger, fees, broadcaster) = (Arc::new(Stderr), Arc::new(Fixed), Arc::new(Nowhere));
    let monitors: Arc<ChainMonitor<_, Arc<dyn Filter + Send + Sync>, _, _, _, _, _>> = Arc::new(ChainMonitor::new(
        None,
        broadcaster.clone(),
        logger.clone(),
        fees.clone(),
        Arc::new(Nowhere),
        keys.clone(),
        keys.get_peer_storage_key(),
    ));
    let graph = Arc::new(NetworkGraph::new(network, logger.clone()));
    let decay = ProbabilisticScoringDecayParameters::default();
    let scorer = Arc::new(RwLock::new(ProbabilisticScorer::new(decay, graph.clone(), logger.clone())));
    let scoring = ProbabilisticScoringFeeParameters::default();
    let router = Arc::new(DefaultRouter::new(graph, logger.clone(), keys.clone(), scorer, scoring));
    let manager = ChannelManager::new(
        fees,
        monitors,
        broadcaster,
        router,
        Arc::new(NullMessageRouter {}),
        logger,
        keys.clone(),
        keys.clone(),
        keys.clone(),
        UserConfig::default(),
        ChainParameters { network, best_block: BestBlock::from_network(network) },
        0,
    );

    println!("node id  {}", manager.get_our_node_id());
    let parameters = Bolt11InvoiceParameters { amount_msats: Some(10_000), ..Default::default() };
    let invoice = manager.create_bolt11_invoice(parameters).map_err(|e| format!("{e:?}"))?;
    println!("invoice  {invoice}");
    Ok(())
}

/// Fees that never change.
struct Fixed;

impl FeeEstimator for Fixed {
    fn get_est_sat_per_1000_weight(&self, _target: ConfirmationTarget) -> u32 {
        1_000
    }
}

/// Neither a network nor a disk. A node that opens channels needs both.
struct Nowhere;

impl BroadcasterInterface for Nowhere {
    fn broadcast_transactions(&self, _transactions: &[&Transaction]) {}
}

impl<S: EcdsaChannelSigner> Persist<S> for Nowhere {
    fn persist_new_channel(&self, _name: MonitorName, _monitor: &ChannelMonitor<S>) -> ChannelMonitorUpdateStatus {
        ChannelMonitorUpdateStatus::UnrecoverableError
    }

    fn update_persisted_channel(
        &self,
        _name: MonitorName,
        _update: Option<&ChannelMonitorUpdate>,
        _monitor: &ChannelMonitor<S>,
    ) -> ChannelMonitorUpdateStatus {
        ChannelMonitorUpdateStatus::UnrecoverableError
    }

    fn archive_persisted_channel(&self, _name: MonitorName) {}
}

struct Stderr;

impl Logger for Stderr {
    fn log(&self, record: Record) {
        eprintln!("{:5} {}", record.level, record.args);
    }
}
