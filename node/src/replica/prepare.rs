//! Everything between winning the lock and being the node.

use std::{
    fmt,
    sync::{Arc, PoisonError, atomic::Ordering},
};

use holdfast_proto::error::Error;
use holdfast_signer_client::{Fatal, Options, RemoteKeys, Transport};
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric},
    metrics::{MetricType, counter::ConstCounter},
};

use super::{RETRY, Replica, ReplicaError, end, warm::RecentChain};
use crate::{
    chain::Destinations,
    lightning::{Assembled, LightningNode, Parts, Phases, metrics::PaymentMetrics},
    net::Outbound,
    store::{
        Loaded,
        measured::CommitTimes,
        postgres::{NodeIdentity, PgReader, PgStore},
    },
};

pub(super) struct Prepared {
    pub(super) assembled: Assembled,
    pub(super) store: Arc<PgStore>,
    pub(super) times: CommitTimes,
}

impl Replica {
    /// Everything between winning the lock and being the node.
    pub(super) async fn prepare(
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
            rapid_sync: self.config.gossip.rapid_sync.clone(),
            keys,
            destinations,
            bitcoind: self.bitcoind.clone(),
            fees: self.fees.clone(),
            headers,
            blocks,
            metrics,
            reserve_per_channel_sat: self.config.wallet.reserve_per_channel_sat,
            deposit_confirmations: self.config.wallet.deposit_confirmations,
            acceptance: self.config.channels.clone(),
            leave_backup: self.config.peers.leave_backup,
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
