//! The life of one process: it stands by with everything warm, leads at most once, and ends.
//!
//! A replica that no longer leads ends its process at once: nothing in memory may act any more, and the supervisor starts
//! it again as a standby. What waits (Postgres, the signer, bitcoind being away) never ends it.

mod away;

use std::{
    fmt, process,
    sync::{Arc, Mutex, OnceLock, PoisonError, RwLock, atomic::Ordering},
    thread,
    time::{Duration, Instant},
};

use async_trait::async_trait;
use bitcoin::{Network, constants::genesis_block};
use holdfast_proto::{error::Error, node::v1, telemetry, tls::Credentials};
use holdfast_signer_client::{Fatal, Grpc, Options, RemoteKeys, Transport, v1 as signer_v1};
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric},
    metrics::{MetricType, counter::ConstCounter},
};
use tokio::{
    net::TcpListener,
    sync::{mpsc, oneshot, watch},
};

use crate::{
    api::{Backend, EventSource, Metrics, NodeOps, Part, Watched},
    chain::{Bitcoind, BlockCache, Destinations, FeeEstimates, HeaderCache, headers::explain},
    config::NodeConfig,
    feed::Feed,
    leader::{self, Leadership, ReplicaInfo, StandError},
    lightning::{
        Assembled, LightningNode, Parts, Phases, admission, channel_backup,
        metrics::PaymentMetrics,
        node::{NodeCommitter, StartError},
        records::{self, payment_message},
    },
    net::Outbound,
    operators::Operators,
    store::{
        Loaded,
        measured::{CommitTimes, Measured},
        postgres::{NodeIdentity, PgReader, PgStore, StoreError},
    },
};

/// One replica, standing by or leading.
pub struct Replica {
    config: NodeConfig,
    name: String,
    bitcoind: Arc<Bitcoind>,
    fees: Arc<FeeEstimates>,
    signer: Arc<Grpc>,
    reader: Arc<PgReader>,
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

/// What a standby knows of the chain, so that a takeover need not ask.
#[derive(Default)]
struct RecentChain {
    headers: HeaderCache,
    blocks: BlockCache,
}

/// Which parts are away, each with the reason.
#[derive(Clone, Debug, Default)]
struct Health {
    postgres: Option<String>,
    signer: Option<String>,
    bitcoind: Option<String>,
    /// How long each one's last answer took, in that order.
    took: [Option<Duration>; 3],
    bitcoind_height: Option<u32>,
    database_bytes: Option<u64>,
    term: u64,
}

/// Why a replica cannot even stand by, or cannot go on. None of these is cured by waiting.
#[derive(Debug, thiserror::Error)]
pub enum ReplicaError {
    #[error("tls: {0}")]
    Tls(String),
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
        let endpoints: Vec<String> = config.signer.endpoints.iter().map(|endpoint| endpoint.to_string()).collect();
        Ok(Arc::new(Self {
            name: credentials.identity().name.clone(),
            bitcoind: Arc::new(bitcoind),
            fees: Arc::new(FeeEstimates::new(config.network)),
            signer: Arc::new(Grpc::new(&endpoints, &credentials)?.with_traceparent(telemetry::traceparent)),
            reader: Arc::new(PgReader::new(config.postgres.clone())),
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

    /// Stands by, leads, and returns when the lead was handed over. A lead that is lost ends the process from in here.
    pub async fn run(self: &Arc<Self>) -> Result<HandedOver, ReplicaError> {
        let warm = tokio::spawn(self.clone().keep_warm());
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

    /// Everything between winning the lock and being the node.
    async fn prepare(
        self: &Arc<Self>,
        term: u64,
        destinations: Arc<Destinations>,
        phases: &mut Phases,
    ) -> Result<Prepared, ReplicaError> {
        // Before anything is written: from now on the signers refuse every older term. What the store holds can be read
        // meanwhile; the store knows of our term already.
        let signer = async {
            self.announce_term(term).await;
            self.connect_keys(term, destinations.clone()).await
        };
        let known = *self.node_id.lock().unwrap_or_else(PoisonError::into_inner);
        let (keys, store, loaded) = match known {
            Some(node_id) => {
                let (keys, opened) = tokio::join!(signer, self.open_store(term, node_id));
                let (store, loaded) = opened?;
                (keys?, store, loaded)
            }
            None => {
                let keys = signer.await?;
                let (store, loaded) = self.open_store(term, keys.node_id().serialize()).await?;
                (keys, store, loaded)
            }
        };
        let peers = self.peer_rows().await;
        phases.end("announce-and-load");
        self.must_be_our_chain().await?;
        while !self.fees.ready() {
            tracing::warn!("waiting for fee estimates from bitcoind");
            tokio::time::sleep(RETRY).await;
        }
        let RecentChain { headers, blocks } = self.chain.lock().await.take().unwrap_or_default();
        let metrics = PaymentMetrics::default();
        let times = CommitTimes::default();
        self.report(&keys, &store, &times, &metrics);
        let parts = Parts {
            network: self.config.network,
            alias: self.config.alias.to_bytes(),
            announce: self.config.peers.announce.clone(),
            color: self.config.color.to_bytes(),
            outbound: Arc::new(Outbound::new(self.config.tor.clone())),
            rapid_sync_url: self.config.gossip.rapid_sync_url.clone(),
            keys,
            destinations,
            bitcoind: self.bitcoind.clone(),
            fees: self.fees.clone(),
            headers,
            blocks,
            metrics,
            reserve_per_channel_sat: self.config.wallet.reserve_per_channel_sat,
            acceptance: self.config.channels.clone(),
            reader: Arc::new(PgReader::of_primary(self.config.postgres.clone())),
            loaded,
            peers,
        };
        let assembled = LightningNode::assemble(parts, phases).await?;
        Ok(Prepared { assembled, store, times })
    }

    async fn open_store(&self, term: u64, node_id: [u8; 33]) -> Result<(Arc<PgStore>, Loaded), ReplicaError> {
        let identity = NodeIdentity { node_id, network: self.config.network };
        let store = Arc::new(PgStore::open(&self.config.postgres, term, identity).await?);
        let loaded = store.load().await?;
        Ok((store, loaded))
    }

    /// Shows what this leader counts beside what the replica does.
    fn report(&self, keys: &RemoteKeys, store: &Arc<PgStore>, times: &CommitTimes, payments: &PaymentMetrics) {
        if let Some(metrics) = self.metrics.get() {
            metrics.register(|registry| {
                keys.metrics().register(registry);
                payments.register(registry);
                times.register(registry);
                registry.register_collector(Box::new(Commits(store.clone())));
            });
        }
    }

    async fn announce_term(&self, term: u64) {
        let mut told = false;
        loop {
            match self.signer.announce_term(term).await {
                Ok(newest) if newest == term => return,
                Ok(newest) | Err(Error::StaleTerm { newest }) => end(&Fatal::StaleTerm { newest }),
                Err(error) => {
                    if !std::mem::replace(&mut told, true) {
                        tracing::warn!(%error, "waiting for a signer that takes the term");
                    }
                    tokio::time::sleep(RETRY).await;
                }
            }
        }
    }

    async fn connect_keys(&self, term: u64, destinations: Arc<Destinations>) -> Result<Arc<RemoteKeys>, ReplicaError> {
        let options = Options { deadline: self.config.signer.deadline, on_fatal: Arc::new(|fatal| end(&fatal)) };
        let transport: Arc<dyn Transport> = self.signer.clone();
        let keys = tokio::task::block_in_place(|| RemoteKeys::over(transport, options, term, destinations))?;
        self.must_be_our_network(&keys.info().network)?;
        Ok(Arc::new(keys))
    }

    async fn peer_rows(&self) -> Vec<crate::store::postgres::PeerRow> {
        loop {
            match self.reader.peers().await {
                Ok(peers) => return peers,
                Err(error) => {
                    tracing::warn!(%error, "waiting for the list of peers");
                    tokio::time::sleep(RETRY).await;
                }
            }
        }
    }

    /// Returns when the parts that answer turn out not to belong together. What is away is asked again until it is there.
    async fn misfit(&self) -> ReplicaError {
        let fits = async {
            self.must_be_our_chain().await?;
            let info = loop {
                match self.ask_signer().await {
                    Ok(info) => break info,
                    Err(_) => tokio::time::sleep(RETRY).await,
                }
            };
            self.must_be_our_network(&info.network)?;
            let node = loop {
                match self.reader.node().await {
                    // A new database becomes ours when we lead.
                    Ok(node) => break node,
                    Err(_) => tokio::time::sleep(RETRY).await,
                }
            };
            match node {
                Some((node_id, network)) if node_id != *info.node_id || network != info.network => {
                    Err(ReplicaError::Store(StoreError::OtherNode {
                        found: hex::encode(node_id),
                        found_network: network,
                        expected: hex::encode(&info.node_id),
                        expected_network: info.network,
                    }))
                }
                _ => Ok(()),
            }
        };
        match fits.await {
            Err(misfit) => misfit,
            Ok(()) => std::future::pending().await,
        }
    }

    fn must_be_our_network(&self, signers: &str) -> Result<(), ReplicaError> {
        match signers == network_name(self.config.network) {
            true => Ok(()),
            false => Err(ReplicaError::SignerNetwork { signers: signers.to_owned(), ours: self.config.network }),
        }
    }

    async fn must_be_our_chain(&self) -> Result<(), ReplicaError> {
        let ours = genesis_block(self.config.network).block_hash();
        loop {
            match self.bitcoind.genesis().await {
                Ok(genesis) if genesis == ours => return Ok(()),
                Ok(_) => return Err(ReplicaError::WrongChain(self.config.network)),
                Err(error) => {
                    // The log has it from the one who keeps us warm.
                    tracing::debug!(%error, "waiting for bitcoind");
                    tokio::time::sleep(RETRY).await;
                }
            }
        }
    }

    /// Keeps connections open, headers and fees fresh, and knows what is away.
    async fn keep_warm(self: Arc<Self>) {
        let (mut round, told) = (0u64, away::Told::default());
        loop {
            let (bitcoind, signer, postgres, height) = tokio::join!(
                self.ask_bitcoind(round),
                timed(self.ask_signer()),
                timed(self.reader.leadership(0)),
                timed(self.bitcoind.height())
            );
            let bytes = match round.is_multiple_of(SIZE_EVERY) {
                true => self.reader.database_bytes().await.ok(),
                false => None,
            };
            {
                let mut health = self.health.lock().unwrap_or_else(PoisonError::into_inner);
                health.took = [postgres.1, signer.1, height.1];
                let (signer, postgres) = (signer.0, postgres.0);
                health.bitcoind_height = height.0.ok();
                health.database_bytes = bytes.or(health.database_bytes);
                health.bitcoind = bitcoind.err();
                health.signer = away::signer(signer);
                told.round(health.signer.as_deref(), health.bitcoind.as_deref());
                health.postgres = match postgres {
                    Ok(view) => {
                        health.term = view.term;
                        None
                    }
                    Err(error) => Some(away::postgres(error)),
                };
            }
            round += 1;
            tokio::time::sleep(WARM).await;
        }
    }

    async fn ask_bitcoind(&self, round: u64) -> Result<(), String> {
        let mut chain = self.chain.lock().await;
        // A leader's own loop follows the chain.
        if let Some(RecentChain { headers, blocks }) = &mut *chain {
            let tip = headers.follow(&*self.bitcoind, self.config.network).await.map_err(explain)?;
            blocks.follow(&*self.bitcoind, headers, tip.header.block_hash()).await.map_err(explain)?;
        }
        drop(chain);
        if round.is_multiple_of(FEES_EVERY) {
            self.fees.refresh(&self.bitcoind).await.map_err(|e| e.to_string())?;
        }
        Ok(())
    }

    async fn ask_signer(&self) -> Result<signer_v1::GetNodeInfoResponse, String> {
        let signer = self.signer.clone();
        let ask = move || signer.get_node_info(signer_v1::GetNodeInfoRequest {});
        let info = tokio::task::spawn_blocking(ask).await.map_err(|e| e.to_string())?.map_err(|e| e.to_string())?;
        let node_id = info.node_id.as_slice().try_into().map_err(|_| "the signer's node id is malformed".to_owned())?;
        *self.node_id.lock().unwrap_or_else(PoisonError::into_inner) = Some(node_id);
        Ok(info)
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

/// The store's counts: `holdfast_commits_total`, `holdfast_commit_retries_total`, and how many of the manager's bytes had
/// to be written, `holdfast_manager_bytes_total` and `holdfast_manager_bytes_written_total`.
struct Commits(Arc<PgStore>);

impl fmt::Debug for Commits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.stats().fmt(f)
    }
}

impl Collector for Commits {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let stats = self.0.stats();
        for (name, help, count) in [
            ("commits", "Batches committed", &stats.commits),
            ("commit_retries", "Attempts to commit that had to be made again", &stats.retries),
            ("manager_bytes", "Bytes of channel managers given to the store", &stats.manager_bytes),
            ("manager_bytes_written", "Bytes of them that were not there already", &stats.chunk_bytes),
        ] {
            let count = ConstCounter::new(count.load(Ordering::Relaxed));
            count.encode(encoder.encode_descriptor(name, help, None, MetricType::Counter)?)?;
        }
        Ok(())
    }
}

struct Prepared {
    assembled: Assembled,
    store: Arc<PgStore>,
    times: CommitTimes,
}

const RETRY: Duration = Duration::from_millis(500);
/// How often a standby looks after its connections.
const WARM: Duration = Duration::from_secs(1);
/// In rounds of keeping warm.
const FEES_EVERY: u64 = 30;
/// As rarely as that: the server counts files for it.
const SIZE_EVERY: u64 = 60;
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

/// An answer, and how long it took if it is one.
async fn timed<T, E>(question: impl Future<Output = Result<T, E>>) -> (Result<T, E>, Option<Duration>) {
    let asked = Instant::now();
    let answer = question.await;
    let took = answer.is_ok().then(|| asked.elapsed());
    (answer, took)
}

struct AbortOnDrop(tokio::task::AbortHandle);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

#[async_trait]
impl Backend for Replica {
    fn leading(&self) -> Option<Arc<dyn NodeOps>> {
        self.node().map(|node| node as Arc<dyn NodeOps>)
    }

    fn readiness(&self) -> Result<(), Vec<String>> {
        let health = self.health.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let named = [("postgres", health.postgres), ("signer", health.signer), ("bitcoind", health.bitcoind)];
        let away: Vec<String> = named.into_iter().filter_map(|(part, why)| Some(format!("{part}: {}", why?))).collect();
        if away.is_empty() { Ok(()) } else { Err(away) }
    }

    fn watched(&self) -> Watched {
        let health = self.health.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let away = [("postgres", health.postgres), ("signer", health.signer), ("bitcoind", health.bitcoind)];
        let parts = away.into_iter().zip(health.took).map(|((name, away), took)| Part { name, away, took });
        Watched {
            parts: parts.collect(),
            bitcoind_height: health.bitcoind_height,
            database_bytes: health.database_bytes,
            certificates_expire: Some(self.credentials.expires()),
            htlcs: self.node().map(|node| node.htlcs()),
        }
    }

    async fn info(&self) -> Result<v1::GetInfoResponse, Error> {
        let mut info = v1::GetInfoResponse {
            network: network_name(self.config.network).into(),
            alias: self.config.alias.as_str().into(),
            version: env!("CARGO_PKG_VERSION").into(),
            replica: self.name.clone(),
            term: self.health.lock().unwrap_or_else(PoisonError::into_inner).term,
            ..Default::default()
        };
        let leading = match &*self.role.read().unwrap_or_else(PoisonError::into_inner) {
            Role::Leading { term, node } => Some((*term, node.clone())),
            Role::StandingBy => None,
        };
        match leading {
            Some((term, node)) => {
                info.is_leader = true;
                info.term = term;
                node.describe(&mut info);
            }
            None => {
                let node_id = *self.node_id.lock().unwrap_or_else(PoisonError::into_inner);
                info.node_id = node_id.map(hex::encode).unwrap_or_default();
            }
        }
        Ok(info)
    }

    async fn leader(&self) -> Result<v1::GetLeaderResponse, Error> {
        let view = self.reader.leadership(20).await?;
        let history = view.history.into_iter().map(|takeover| v1::Takeover {
            term: takeover.term,
            replica: takeover.replica,
            at_ms: takeover.at_ms,
            phases_us: takeover.phases_us.into_iter().collect(),
        });
        let (leader, api_address, since_ms) =
            view.leader.map(|leader| (leader.replica, leader.api_address, leader.since_ms)).unwrap_or_default();
        Ok(v1::GetLeaderResponse {
            term: view.term,
            is_this_replica: self.node().is_some(),
            leader,
            api_address,
            since_ms,
            history: history.collect(),
        })
    }

    async fn handover(&self) -> Result<v1::HandoverResponse, Error> {
        Ok(v1::HandoverResponse { term: self.hand_over().await? })
    }

    fn operators(&self) -> Arc<Operators> {
        self.operators.clone()
    }

    fn events(&self) -> Arc<dyn EventSource> {
        self.feed.clone()
    }

    async fn payment(&self, payment_hash: [u8; 32]) -> Result<Option<v1::Payment>, Error> {
        let Some(row) = self.reader.payment(payment_hash).await? else { return Ok(None) };
        let parts = self.reader.parts(row.payment_id, row.direction).await?;
        let parts = parts.into_iter().map(records::part_message).collect();
        Ok(Some(v1::Payment { parts, ..payment_message(row) }))
    }

    async fn payments(&self, limit: u32, before: Option<u64>) -> Result<Vec<v1::Payment>, Error> {
        Ok(self.reader.payments(limit, before).await?.into_iter().map(payment_message).collect())
    }

    async fn channel_backup(&self) -> Result<v1::ChannelBackup, Error> {
        let Some((node_id, network)) = self.reader.node().await? else {
            return Err(Error::unavailable("the database belongs to no node yet"));
        };
        let stored = self.reader.records(channel_backup::NAMESPACE).await?;
        let channels = stored.into_iter().map(|(channel, bytes)| channel_backup::message(channel, &bytes));
        let channels = channels.collect::<Result<_, _>>().map_err(Error::Internal)?;
        Ok(v1::ChannelBackup { node_id: hex::encode(node_id), network, channels })
    }

    async fn offers(&self, limit: u32, before: Option<u64>) -> Result<Vec<v1::Offer>, Error> {
        Ok(self.reader.offers(limit, before).await?.into_iter().map(records::offer_message).collect())
    }
}
