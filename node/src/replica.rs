//! The life of one process: it stands by with everything warm, leads at most once, and ends.
//!
//! A replica that no longer leads ends its process at once: nothing in memory may act any more, and the supervisor starts
//! it again as a standby. What waits (Postgres, the signer, bitcoind being away) never ends it.

mod away;
mod backend;
mod fit;
mod prepare;
mod warm;

use std::{
    fmt, process,
    sync::{Arc, Mutex, OnceLock, PoisonError, RwLock},
    thread,
    time::Duration,
};

use bitcoin::Network;
use holdfast_proto::{error::Error, telemetry, tls::Credentials};
use holdfast_signer_client::Grpc;
use tokio::{
    net::TcpListener,
    sync::{mpsc, oneshot, watch},
};

use crate::{
    api::Metrics,
    aside::Aside,
    chain::{Bitcoind, Destinations, FeeEstimates},
    config::NodeConfig,
    feed::Feed,
    leader::{self, Leadership, ReplicaInfo, StandError},
    lightning::{Assembled, LightningNode, NodeCommitter, Phases, StartError, admission},
    operators::Operators,
    store::{
        measured::Measured,
        postgres::{PgReader, PgStore, StoreError},
    },
};

use warm::{Health, RecentChain};

/// One replica, standing by or leading.
pub struct Replica {
    config: NodeConfig,
    name: String,
    bitcoind: Arc<Bitcoind>,
    fees: Arc<FeeEstimates>,
    signer: Arc<Grpc>,
    reader: Arc<PgReader>,
    aside: Arc<Aside>,
    feed: Arc<Feed>,
    operators: Arc<Operators>,
    /// Taken by the leader. Held across questions to bitcoind, so that a takeover never finds it half-full.
    chain: tokio::sync::Mutex<Option<RecentChain>>,
    metrics: OnceLock<Arc<Metrics>>,
    credentials: Credentials,
    /// What the signer said of itself last; a node's id never changes.
    node_id: Mutex<Option<[u8; 33]>>,
    health: Mutex<Health>,
    role: RwLock<Role>,
    handovers: watch::Sender<Option<mpsc::Sender<HandoverRequest>>>,
}

enum Role {
    StandingBy,
    Leading { term: u64, node: Arc<LightningNode> },
}

type HandoverRequest = oneshot::Sender<u64>;

/// Why a replica cannot even stand by, or cannot go on. None of these is cured by waiting.
#[derive(Debug, thiserror::Error)]
pub enum ReplicaError {
    #[error("tls: {0}")]
    Tls(String),
    #[error("cannot start a thread: {0}")]
    Thread(std::io::Error),
    #[error("bitcoind: {0}")]
    Bitcoind(std::io::Error),
    #[error("bitcoind is on another network than {0}: look at bitcoind.url and network in the configuration")]
    WrongChain(Network),
    #[error(
        "the signer is for {signers}, and this replica for {ours}: network in one of the two configurations is wrong"
    )]
    SignerNetwork { signers: String, ours: Network },
    #[error("signer: {0}")]
    Signer(#[from] Error),
    #[error("leadership: {0}")]
    Stand(#[from] StandError),
    #[error("store: {0}")]
    Store(#[from] StoreError),
    #[error("{0}")]
    Start(#[from] StartError),
    #[error("cannot listen for peers on {address}: {error}")]
    Listen { address: std::net::SocketAddr, error: std::io::Error },
}

/// A leader that handed over; the process may end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HandedOver {
    pub term: u64,
}

impl Replica {
    /// Must be called on a multi-threaded runtime. Nothing is connected yet.
    pub fn new(config: NodeConfig) -> Result<Arc<Self>, ReplicaError> {
        let credentials = Credentials::load(&config.tls.certificate, &config.tls.key, &config.tls.ca)
            .map_err(|e| ReplicaError::Tls(e.to_string()))?;
        let bitcoind = Bitcoind::new(config.bitcoind.url.as_str(), config.bitcoind.auth.clone())
            .map_err(ReplicaError::Bitcoind)?;
        let aside = Arc::new(Aside::start("holdfast-watch").map_err(ReplicaError::Thread)?);
        let endpoints: Vec<String> = config.signer.endpoints.iter().map(|endpoint| endpoint.to_string()).collect();
        Ok(Arc::new(Self {
            name: credentials.identity().name.clone(),
            bitcoind: Arc::new(bitcoind),
            fees: Arc::new(FeeEstimates::new(config.network)),
            signer: Arc::new(Grpc::new(&endpoints, &credentials)?.with_traceparent(telemetry::traceparent)),
            reader: Arc::new(PgReader::new(config.postgres.clone()).on(aside.clone())),
            aside,
            feed: Arc::new(Feed::new(config.postgres.clone())),
            operators: Arc::new(config.operators.clone()),
            chain: tokio::sync::Mutex::new(Some(RecentChain::default())),
            metrics: OnceLock::new(),
            node_id: Mutex::default(),
            health: Mutex::default(),
            role: RwLock::new(Role::StandingBy),
            credentials,
            handovers: watch::Sender::new(None),
            config,
        }))
    }

    /// Where this replica's counts go once it leads.
    pub fn report_to(&self, metrics: Arc<Metrics>) {
        // Told once, by the program.
        let _ = self.metrics.set(metrics);
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where what tells how things are goes on while LDK waits for the signer.
    pub fn aside(&self) -> &Aside {
        &self.aside
    }

    /// Stands by, leads, and returns when the lead was handed over. A lead that is lost ends the process from in here.
    pub async fn run(self: &Arc<Self>) -> Result<HandedOver, ReplicaError> {
        let warm = self.aside.spawn(self.clone().keep_warm());
        let _stop = AbortOnDrop(warm.abort_handle());
        let info = ReplicaInfo {
            name: self.name.clone(),
            api_address: self.config.api.advertise.to_string(),
            peer_address: self.peer_address(),
        };
        let leadership = tokio::select! {
            stood = leader::stand(&self.config.postgres, &info, || self.signer.newest_term()) => stood?,
            // Better now than in the middle of a takeover.
            misfit = self.misfit() => return Err(misfit),
        };
        // From here on a half-done step must not be seen by another thread: a panic anywhere ends the process.
        abort_on_panic();
        self.lead(leadership).await
    }

    /// Lets another replica lead, if this one does. For the end of the process.
    pub async fn shutdown(&self) {
        if self.node().is_some()
            && let Err(error) = self.hand_over().await
        {
            tracing::warn!(%error, "could not hand over");
        }
    }

    /// The node, while this replica leads.
    pub fn node(&self) -> Option<Arc<LightningNode>> {
        match &*self.role.read().unwrap_or_else(PoisonError::into_inner) {
            Role::Leading { node, .. } => Some(node.clone()),
            Role::StandingBy => None,
        }
    }

    async fn lead(self: &Arc<Self>, mut leadership: Leadership) -> Result<HandedOver, ReplicaError> {
        let term = leadership.term;
        let mut phases = Phases::default();
        let destinations = Arc::new(Destinations::default());
        let prepare = self.prepare(term, destinations.clone(), &mut phases);
        // A lead can be lost before it has begun.
        let prepared = tokio::select! {
            lost = leadership.lost() => end(&lost),
            prepared = prepare => prepared?,
        };
        let Assembled { node, committer, background } = prepared.assembled;

        let address = self.config.peers.listen;
        let listener = TcpListener::bind(address).await.map_err(|error| ReplicaError::Listen { address, error })?;
        let (stop, stopped) = oneshot::channel();
        commit_on_a_thread(committer, Measured::new(prepared.store, prepared.times), stopped);
        let mut tasks = background.start();
        tasks.spawn(admission::listen(listener, node.peer_manager().clone(), self.config.peers.limits()));
        let (feed, keep) = (self.feed.clone(), self.config.events.keep);
        tasks.spawn(async move { feed.prune(term, keep).await });
        *self.role.write().unwrap_or_else(PoisonError::into_inner) = Role::Leading { term, node: node.clone() };
        let (handover, mut handovers) = mpsc::channel(1);
        self.handovers.send_replace(Some(handover));
        phases.end("start");
        tracing::info!(term, node_id = %node.node_id(), channels = node.channel_count(), "leading");
        if let Err(why) = leadership.record_phases(phases.taken()).await {
            tracing::warn!(why, "the phases of the takeover were not recorded");
        }

        let answer = tokio::select! {
            lost = leadership.lost() => end(&lost),
            ended = tasks.join_next() => end(&format!("a loop of the node has ended: {ended:?}")),
            Some(answer) = handovers.recv() => answer,
        };
        tracing::info!(term, "handing over");
        node.drain(DRAIN).await;
        *self.role.write().unwrap_or_else(PoisonError::into_inner) = Role::StandingBy;
        tasks.shutdown().await;
        // The thread may be gone only with the process.
        let _ = stop.send(());
        leadership.release().await;
        tracing::info!(term, "handed over");
        // The one who asked may have gone away.
        let _ = answer.send(term);
        Ok(HandedOver { term })
    }

    async fn hand_over(&self) -> Result<u64, Error> {
        let requests = self.handovers.borrow().clone();
        let not_leading = || Error::unavailable("this replica does not lead");
        let (answer, answered) = oneshot::channel();
        requests.ok_or_else(not_leading)?.send(answer).await.map_err(|_| not_leading())?;
        answered.await.map_err(|_| not_leading())
    }

    fn peer_address(&self) -> String {
        let announced = self.config.peers.announce.first().map(|address| address.to_string());
        announced.unwrap_or_else(|| self.config.peers.listen.to_string())
    }
}

const RETRY: Duration = Duration::from_millis(500);
/// How long a handover waits for what is in flight.
const DRAIN: Duration = Duration::from_secs(3);

/// The commit loop blocks while an event's handler waits for the signer, so it has a thread to itself.
fn commit_on_a_thread(committer: Arc<NodeCommitter>, store: Measured<Arc<PgStore>>, stopped: oneshot::Receiver<()>) {
    let runtime = tokio::runtime::Handle::current();
    let run = move || {
        runtime.block_on(async {
            tokio::select! {
                error = committer.run(&store, |error| end(error)) => end(&error),
                // Also when its sender is dropped, which only happens with the process.
                _ = stopped => {}
            }
        });
    };
    if let Err(error) = thread::Builder::new().name("commit".into()).spawn(run) {
        end(&format!("cannot start the commit loop: {error}"));
    }
}

/// Ends the process, now: no destructor, no exit handler, no other thread gets to act in a term that is over.
fn end(why: &dyn fmt::Display) -> ! {
    tracing::error!(%why, "stopping at once");
    process::abort()
}

fn abort_on_panic() {
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        report(info);
        process::abort();
    }));
}

fn network_name(network: Network) -> &'static str {
    match network {
        Network::Bitcoin => "bitcoin",
        Network::Testnet4 => "testnet4",
        Network::Signet => "signet",
        Network::Regtest => "regtest",
        _ => "unknown",
    }
}

struct AbortOnDrop(tokio::task::AbortHandle);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}
