//! The steps of a start that stand for themselves: reading what was stored, and following the chain to its tip.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::Duration,
};

use bitcoin::Network;
use holdfast_signer_client::{RemoteChannelSigner, RemoteKeys};
use lightning::{
    chain::{BestBlock, Listen},
    ln::types::ChannelId,
    util::ser::ReadableArgs,
};
use lightning_block_sync::{init::synchronize_listeners, poll::ValidatedBlockHeader};

use super::{
    BufferedBroadcaster, BufferedKv, StartError,
    load::{self, ReadMonitor},
    resume::Recording,
    types::*,
};
use crate::{
    chain::{Bitcoind, CachedBlocks, FeeEstimates, HeaderCache, Wallet, headers::explain},
    store::{KvKey, LoadedMonitor},
};

pub type Monitors = Vec<ReadMonitor<RemoteChannelSigner>>;
pub type ChannelKeys = Vec<(ChannelId, [u8; 32])>;

/// Monitors are independent of each other until the manager is read, so all cores may read them. Says also which keys
/// each channel has.
pub fn read_monitors(
    stored: &[LoadedMonitor],
    keys: &Arc<RemoteKeys>,
    broadcaster: &Arc<BufferedBroadcaster>,
    fees: &Arc<FeeEstimates>,
    logger: &Logger,
) -> Result<(Monitors, ChannelKeys), load::LoadError> {
    let read_share = &|share: &[LoadedMonitor]| {
        let signers = Arc::new(Recording::new(keys));
        let (mut monitors, mut channels) = (Vec::with_capacity(share.len()), Vec::with_capacity(share.len()));
        for stored in share.chunks(1) {
            monitors.extend(load::read_monitors(stored, (keys, &signers), broadcaster, fees, logger)?);
            let channel = stored.iter().map(|stored| ChannelId(stored.key.0));
            channels.extend(channel.zip(signers.last()));
        }
        Ok::<_, load::LoadError>((monitors, channels))
    };
    let cores = thread::available_parallelism().map_or(1, usize::from);
    let share = stored.len().div_ceil(cores).max(1);
    thread::scope(|scope| {
        let readers: Vec<_> = stored.chunks(share).map(|share| scope.spawn(move || read_share(share))).collect();
        let (mut monitors, mut channels) = (Vec::with_capacity(stored.len()), Vec::with_capacity(stored.len()));
        for reader in readers {
            match reader.join() {
                Ok(read) => {
                    let (read, keys) = read?;
                    monitors.extend(read);
                    channels.extend(keys);
                }
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        Ok((monitors, channels))
    })
}

/// A monitor on its way to the tip, before anybody watches it.
pub struct MonitorListener<'a> {
    pub read: &'a ReadMonitor<RemoteChannelSigner>,
    pub broadcaster: &'a Arc<BufferedBroadcaster>,
    pub fees: &'a Arc<FeeEstimates>,
    pub logger: &'a Logger,
}

impl Listen for MonitorListener<'_> {
    fn filtered_block_connected(
        &self,
        header: &bitcoin::block::Header,
        txdata: &lightning::chain::transaction::TransactionData,
        height: u32,
    ) {
        let monitor = &self.read.monitor;
        monitor.block_connected(header, txdata, height, self.broadcaster.clone(), self.fees.clone(), self.logger);
    }

    fn blocks_disconnected(&self, fork: BestBlock) {
        self.read.monitor.blocks_disconnected(fork, self.broadcaster.clone(), self.fees.clone(), self.logger);
    }
}

pub type SweeperParts<'a> = (
    &'a Arc<BufferedBroadcaster>,
    &'a Arc<FeeEstimates>,
    &'a Arc<RemoteKeys>,
    &'a Arc<Wallet>,
    &'a Arc<BufferedKv>,
    &'a Logger,
);

pub fn load_sweeper(
    best_block: BestBlock,
    records: &HashMap<KvKey, Vec<u8>>,
    (broadcaster, fees, keys, wallet, kv, logger): SweeperParts<'_>,
) -> Result<Sweeper, StartError> {
    use lightning::util::persist::{
        OUTPUT_SWEEPER_PERSISTENCE_KEY, OUTPUT_SWEEPER_PERSISTENCE_PRIMARY_NAMESPACE,
        OUTPUT_SWEEPER_PERSISTENCE_SECONDARY_NAMESPACE,
    };
    let key = KvKey {
        primary: OUTPUT_SWEEPER_PERSISTENCE_PRIMARY_NAMESPACE.into(),
        secondary: OUTPUT_SWEEPER_PERSISTENCE_SECONDARY_NAMESPACE.into(),
        key: OUTPUT_SWEEPER_PERSISTENCE_KEY.into(),
    };
    let (broadcaster, fees, keys, wallet) = (broadcaster.clone(), fees.clone(), keys.clone(), wallet.clone());
    let (kv, logger) = (kv.clone(), logger.clone());
    match records.get(&key) {
        Some(bytes) => {
            let args = (broadcaster, fees, None::<NoFilter>, keys, wallet, kv, logger);
            let read = <(BestBlock, Sweeper)>::read(&mut bytes.as_slice(), args);
            Ok(read.map_err(StartError::Sweeper)?.1)
        }
        // It writes its first record when it first has something to sweep.
        None => Ok(Sweeper::new(best_block, broadcaster, fees, None, keys, wallet, kv, logger)),
    }
}

/// How often an absent bitcoind is asked again.
const RETRY: Duration = Duration::from_millis(500);

pub async fn until_reached(headers: &mut HeaderCache, bitcoind: &Bitcoind, network: Network) -> ValidatedBlockHeader {
    let mut told = false;
    loop {
        match headers.follow(bitcoind, network).await {
            Ok(tip) => return tip,
            Err(error) => {
                if !told {
                    tracing::warn!(error = explain(error), "bitcoind is away; the takeover waits for it");
                    told = true;
                }
                tokio::time::sleep(RETRY).await;
            }
        }
    }
}

/// Brings all listeners to the tip. A failure leaves them at different blocks, which the next attempt starts from.
pub async fn sync(
    blocks: &CachedBlocks<'_, Bitcoind>,
    network: Network,
    headers: &mut HeaderCache,
    listeners: Vec<(bitcoin::BlockHash, &(dyn Listen + Send + Sync))>,
) -> ValidatedBlockHeader {
    let tracked: Vec<Tracked<'_>> = listeners.into_iter().map(Tracked::new).collect();
    loop {
        let behind = tracked.iter().map(|t| (t.at(), t)).collect();
        match synchronize_listeners(blocks, network, headers, behind).await {
            Ok(tip) => return tip,
            Err(error) => {
                tracing::warn!(error = explain(error), "bitcoind is away; the takeover waits for it");
                tokio::time::sleep(RETRY).await;
            }
        }
    }
}

/// A listener that remembers how far it has come.
struct Tracked<'a> {
    listener: &'a (dyn Listen + Send + Sync),
    at: Mutex<bitcoin::BlockHash>,
}

impl<'a> Tracked<'a> {
    fn new((at, listener): (bitcoin::BlockHash, &'a (dyn Listen + Send + Sync))) -> Self {
        Self { listener, at: Mutex::new(at) }
    }

    fn at(&self) -> bitcoin::BlockHash {
        *self.at.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_at(&self, hash: bitcoin::BlockHash) {
        *self.at.lock().unwrap_or_else(PoisonError::into_inner) = hash;
    }
}

impl Listen for Tracked<'_> {
    fn block_connected(&self, block: &bitcoin::Block, height: u32) {
        self.listener.block_connected(block, height);
        self.is_at(block.block_hash());
    }

    fn filtered_block_connected(
        &self,
        header: &bitcoin::block::Header,
        txdata: &lightning::chain::transaction::TransactionData,
        height: u32,
    ) {
        self.listener.filtered_block_connected(header, txdata, height);
        self.is_at(header.block_hash());
    }

    fn blocks_disconnected(&self, fork: BestBlock) {
        self.listener.blocks_disconnected(fork);
        self.is_at(fork.block_hash);
    }
}
