//! Follows each recovery to its end: keeps its peer wanted, looks for the transaction that closed the channel, and gives
//! what is ours in it to those who take it.

use std::{
    collections::{BTreeMap, HashMap},
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bitcoin::{Block, BlockHash, OutPoint, ScriptBuf, Transaction, consensus, secp256k1::Secp256k1};
use holdfast_signer_client::RemoteKeys;
use lightning::{
    chain::BestBlock,
    ln::types::ChannelId,
    sign::{ChannelSigner, SignerProvider, SpendableOutputDescriptor},
    util::persist::KVStoreSync,
};
use lightning_block_sync::{BlockData, BlockSource, gossip::UtxoSource};
use tokio::{sync::Notify, task::block_in_place};

use super::{
    super::{
        BufferedKv, CommitQueue, peer_storage,
        peers::Dialer,
        types::{ChainMonitor, ChannelManager, Sweeper},
    },
    Asked,
    outputs::{self, Owners},
    record::{self, CONFIRMATIONS, Close, NAMESPACE, Named, Ours, Recovery, RecoveryError, Search, Takes},
};
use crate::{
    chain::{Bitcoind, Outbox, Wallet, headers::explain},
    store::KvKey,
};

/// How often the chain's tip is asked for.
const LOOK: Duration = Duration::from_secs(1);
/// Blocks that one step of a search looks at, so that other recoveries have their turn.
const BLOCKS_A_STEP: u32 = 20;
/// How much of a search a new leader may have to repeat, in blocks.
const SAVED_EVERY: u32 = 500;

/// All that a recovery needs.
pub struct Parts {
    pub manager: Arc<ChannelManager>,
    pub monitors: Arc<ChainMonitor>,
    pub queue: Arc<CommitQueue>,
    pub kv: Arc<BufferedKv>,
    pub keys: Arc<RemoteKeys>,
    pub wallet: Arc<Wallet>,
    pub sweeper: Arc<Sweeper>,
    pub dialer: Arc<Dialer>,
    pub bitcoind: Arc<Bitcoind>,
    pub asked: Arc<Asked>,
}

/// The channels that are being recovered.
pub struct Recoveries {
    pub(super) parts: Parts,
    records: Mutex<BTreeMap<ChannelId, Recovery>>,
    /// What keeps the looking from going on, in bitcoind's words.
    trouble: Mutex<Option<String>>,
    changed: Notify,
}

impl Recoveries {
    /// `kv` is what the store held at load.
    pub fn load(kv: &HashMap<KvKey, Vec<u8>>, parts: Parts) -> Result<Self, RecoveryError> {
        let records: BTreeMap<_, _> = record::load(kv)?.into_iter().collect();
        for (channel, recovery) in &records {
            if let Ok(named) = recovery.named(*channel) {
                parts.asked.recovers(*channel, named.peer);
            }
        }
        Ok(Self { parts, records: Mutex::new(records), trouble: Mutex::default(), changed: Notify::new() })
    }

    pub(super) fn get(&self, channel: &ChannelId) -> Option<Recovery> {
        self.records().get(channel).cloned()
    }

    pub(super) fn all(&self) -> Vec<(ChannelId, Recovery)> {
        self.records().iter().map(|(channel, recovery)| (*channel, recovery.clone())).collect()
    }

    pub(super) fn trouble(&self) -> Option<String> {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// To be called under the commit queue's mutex.
    pub(super) fn put(&self, channel: ChannelId, recovery: Recovery) {
        self.save(&channel, &recovery);
        self.records().insert(channel, recovery);
    }

    /// There is something new to look at.
    pub(super) fn look(&self) {
        self.changed.notify_one();
    }

    /// Follows all recoveries, until dropped.
    pub async fn keep(self: Arc<Self>, outbox: Outbox) {
        let mut seen = None;
        loop {
            let tip = self.parts.manager.current_best_block();
            let looked = async {
                if seen != Some(tip.block_hash) {
                    for (channel, recovery) in self.all() {
                        self.follow(channel, recovery, tip, &outbox).await?;
                    }
                    seen = Some(tip.block_hash);
                }
                self.search().await
            };
            let searching = match looked.await {
                Ok(searching) => {
                    self.trouble_is(None);
                    searching
                }
                Err(error) => {
                    self.trouble_is(Some(error.to_string()));
                    false
                }
            };
            if !searching {
                tokio::select! {
                    () = self.changed.notified() => seen = None,
                    () = tokio::time::sleep(LOOK) => {}
                }
            }
        }
    }

    /// Looks at one recovery when a block has come.
    async fn follow(
        &self,
        channel: ChannelId,
        mut recovery: Recovery,
        tip: BestBlock,
        outbox: &Outbox,
    ) -> io::Result<()> {
        let Ok(named) = recovery.named(channel) else { return Ok(()) };
        if recovery.is_settled(tip.height) || recovery.search.is_some() {
            return Ok(());
        }
        let bitcoind = &self.parts.bitcoind;
        let Some(close) = recovery.close.clone() else {
            self.parts.dialer.recovers(named.peer, &named.entry.addresses);
            let unspent = self.is_unspent(named.funding).await?;
            if unspent {
                if let Some(tx) = recovery.taken_back.as_deref().and_then(transaction) {
                    outbox.send(vec![tx]);
                }
                let news = !std::mem::replace(&mut recovery.seen, true);
                recovery.unspent_through = Some(tip.height);
                // The height alone is worth no commit: without it a search is longer.
                self.change(channel, recovery, news);
                return Ok(());
            }
            let height = bitcoind.height().await?;
            if recovery.floor() <= height {
                recovery.search = Some(Search { top: height, next: height });
                self.change(channel, recovery, true);
            }
            return Ok(());
        };

        let in_chain =
            bitcoind.height().await? >= close.height && bitcoind.block_hash(close.height).await? == close.block;
        if !in_chain {
            tracing::info!(%channel, txid = %close.txid, "the transaction that closed the channel is in no block any more");
            recovery.take_back();
            self.parts.asked.recovers(channel, named.peer);
            self.change(channel, recovery, true);
            // It is handed to the network again by the next look.
            self.look();
            return Ok(());
        }
        if close.given {
            let news = recovery.note_sweeps(&self.parts.sweeper);
            if news && recovery.is_home() {
                tracing::info!(%channel, "what was ours in a lost channel is in the wallet");
                // Nobody has to be reminded of it any more.
                if let Err(error) = self.parts.kv.remove(peer_storage::NAMESPACE, "", &hex::encode(channel.0), false) {
                    tracing::error!(%channel, %error, "the commit buffer refused to forget what a peer gave back");
                }
            }
            self.change(channel, recovery, news);
            return Ok(());
        }
        if tip.height + 1 >= close.height.saturating_add(CONFIRMATIONS) {
            self.give(&named, recovery, &close).await?;
        }
        Ok(())
    }

    /// Goes on with the searches, a few blocks of the one that stands highest. Returns whether there is more to look at.
    async fn search(&self) -> io::Result<bool> {
        for _ in 0..BLOCKS_A_STEP {
            let searches = || {
                let records = self.records();
                let next = records.values().filter_map(|recovery| recovery.search).map(|search| search.next).max()?;
                let at = records.iter().filter(|(_, r)| r.search.is_some_and(|search| search.next == next));
                Some((next, at.map(|(channel, recovery)| (*channel, recovery.clone())).collect::<Vec<_>>()))
            };
            let Some((height, searching)) = searches() else { return Ok(false) };
            let hash = self.parts.bitcoind.block_hash(height).await?;
            let block = self.block(hash).await?;
            for (channel, recovery) in searching {
                self.look_into(&block, hash, height, channel, recovery);
            }
        }
        Ok(true)
    }

    fn look_into(&self, block: &Block, hash: BlockHash, height: u32, channel: ChannelId, mut recovery: Recovery) {
        let Ok(named) = recovery.named(channel) else { return };
        let spends = |tx: &&Transaction| tx.input.iter().any(|input| input.previous_output == named.funding);
        if let Some(tx) = block.txdata.iter().find(spends) {
            return self.found(&named, recovery, tx, height, hash);
        }
        let made = block.txdata.iter().any(|tx| tx.compute_txid() == named.funding.txid);
        recovery.looked_at(height, made);
        let save = recovery.search.is_none() || height.is_multiple_of(SAVED_EVERY);
        self.change(channel, recovery, save);
    }

    fn found(&self, named: &Named, mut recovery: Recovery, tx: &Transaction, height: u32, block: BlockHash) {
        // The signer is asked, and may be away: not under any lock.
        let (how, ours) = block_in_place(|| self.ours(named, tx));
        let outputs = ours.iter().map(|(vout, output, takes)| Ours {
            vout: *vout,
            value_sat: output.value.to_sat(),
            takes: match takes {
                outputs::Ours::Wallet => Takes::Wallet,
                outputs::Ours::Sweep { .. } => Takes::Sweeper,
            },
            sweep: None,
        });
        let txid = tx.compute_txid();
        let outputs: Vec<_> = outputs.collect();
        let ours_sat: u64 = outputs.iter().map(|ours| ours.value_sat).sum();
        tracing::info!(channel = %named.channel, %txid, height, ?how, ours_sat, "found what closed a lost channel");
        let transaction = consensus::encode::serialize_hex(tx);
        recovery.close = Some(Close { transaction, txid, height, block, how, outputs, given: false });
        (recovery.search, recovery.taken_back, recovery.seen) = (None, None, true);
        self.change(named.channel, recovery, true);
        self.parts.asked.closed(&named.channel);
        let waits = |(id, other): &(ChannelId, Recovery)| {
            *id != named.channel && other.close.is_none() && other.entry.counterparty == named.entry.counterparty
        };
        if self.parts.manager.list_channels_with_counterparty(&named.peer).is_empty() && !self.all().iter().any(waits) {
            self.parts.dialer.has_no_channel(&named.peer);
        }
        self.look();
    }

    /// Hands what is ours to the sweeper and the wallet, in one commit with the note that it was done.
    async fn give(&self, named: &Named, mut recovery: Recovery, close: &Close) -> io::Result<()> {
        let Some(tx) = close.transaction() else { return Ok(()) };
        let (_, ours) = block_in_place(|| self.ours(named, &tx));
        let (mut outputs, mut sweeps, mut has_coins) = (Vec::new(), Vec::new(), false);
        let tracked = self.parts.sweeper.tracked_spendable_outputs();
        for (vout, output, takes) in ours {
            let outpoint = OutPoint { txid: close.txid, vout };
            let takes = match takes {
                outputs::Ours::Wallet => {
                    has_coins = true;
                    Takes::Wallet
                }
                outputs::Ours::Sweep { descriptor, after_blocks } => {
                    let descriptor = *descriptor;
                    let is_known = tracked.iter().any(|tracked| tracked.descriptor == descriptor);
                    // With an input that is spent the sweeper would never get anything into a block again.
                    if is_known || self.is_unspent(outpoint).await? {
                        sweeps.push((descriptor, close.height + after_blocks));
                        Takes::Sweeper
                    } else {
                        Takes::Nobody
                    }
                }
            };
            outputs.push(Ours { vout, value_sat: output.value.to_sat(), takes, sweep: None });
        }
        let block = if has_coins { Some(self.block(close.block).await?) } else { None };
        recovery.close = Some(Close { outputs, given: true, ..close.clone() });
        let channel = named.channel;
        block_in_place(|| {
            self.parts.queue.with_state(|| {
                if self.get(&channel).is_none_or(|now| now.entry != recovery.entry) {
                    return;
                }
                if let Some(block) = block
                    && let Err(error) = self.parts.wallet.scan(&block, close.height)
                {
                    // The next look finds that the chain has changed.
                    return tracing::info!(%channel, %error, "cannot show a cooperative close to the wallet yet");
                }
                for (descriptor, ripe) in sweeps {
                    if self.sweep(descriptor, channel, ripe).is_err() {
                        return tracing::error!(%channel, "the commit buffer refused outputs to sweep");
                    }
                }
                self.put(channel, recovery);
            });
        });
        self.look();
        Ok(())
    }

    fn sweep(&self, descriptor: SpendableOutputDescriptor, channel: ChannelId, ripe: u32) -> Result<(), ()> {
        // One block earlier than it may be in a block, as LDK hands out what has a delay.
        let delayed = matches!(descriptor, SpendableOutputDescriptor::DelayedPaymentOutput(_));
        let until = delayed.then(|| ripe.saturating_sub(1));
        self.parts.sweeper.track_spendable_outputs(vec![descriptor], Some(channel), false, until)?;
        if self.parts.sweeper.regenerate_and_broadcast_spend_if_necessary().is_err() {
            tracing::warn!("cannot sweep the outputs of closed channels now");
        }
        Ok(())
    }

    /// Asks the signer. Blocks while it is away.
    fn ours(&self, named: &Named, tx: &Transaction) -> (outputs::Closing, Vec<(u32, bitcoin::TxOut, outputs::Ours)>) {
        let Parts { keys, wallet, .. } = &self.parts;
        let signer = keys.derive_channel_signer(named.keys_id);
        let recorded = keys.recorded_parameters(named.keys_id).unwrap_or_else(|error| {
            tracing::warn!(channel = %named.channel, %error, "the signer does not tell what it has recorded of a channel");
            Vec::new()
        });
        let is_it = |parameters: &lightning::ln::chan_utils::ChannelTransactionParameters| {
            parameters.funding_outpoint.is_some_and(|outpoint| outpoint.into_bitcoin_outpoint() == named.funding)
        };
        let secp = Secp256k1::new();
        let channel = outputs::Channel {
            keys_id: named.keys_id,
            funding: named.funding,
            capacity_sat: named.entry.capacity_sat,
            pubkeys: signer.pubkeys(&secp),
            recorded: recorded.into_iter().find(is_it),
        };
        let info = keys.info();
        let owners = Owners {
            wallet: |script: &ScriptBuf| wallet.is_mine(script),
            signer: |script: &bitcoin::Script| {
                [&info.destination_script, &info.shutdown_script].into_iter().any(|ours| ours == script.as_bytes())
            },
        };
        outputs::find(&channel, tx, &owners, |number| signer.get_per_commitment_point(number, &secp).ok())
    }

    async fn is_unspent(&self, outpoint: OutPoint) -> io::Result<bool> {
        self.parts.bitcoind.is_output_unspent(outpoint).await.map_err(|error| io::Error::other(explain(error)))
    }

    async fn block(&self, hash: BlockHash) -> io::Result<Block> {
        let block = self.parts.bitcoind.get_block(&hash).await;
        match block.map_err(|error| io::Error::other(format!("block {hash}: {}", explain(error))))? {
            BlockData::FullBlock(block) => Ok(block),
            BlockData::HeaderOnly(_) => Err(io::Error::other(format!("of block {hash} only the header"))),
        }
    }

    /// Notes what was found out; durable with the next commit if it is to be `saved`. A record that was replaced meanwhile
    /// stays as it is.
    fn change(&self, channel: ChannelId, recovery: Recovery, saved: bool) {
        block_in_place(|| {
            self.parts.queue.with_state(|| {
                let mut records = self.records();
                let Some(record) = records.get_mut(&channel).filter(|record| record.entry == recovery.entry) else {
                    return;
                };
                if saved {
                    self.save(&channel, &recovery);
                }
                *record = recovery;
            });
        });
    }

    fn save(&self, channel: &ChannelId, recovery: &Recovery) {
        let saved = serde_json::to_vec(recovery).map_err(|error| error.to_string()).and_then(|bytes| {
            let name = hex::encode(channel.0);
            self.parts.kv.write(NAMESPACE, "", &name, bytes).map_err(|error| error.to_string())
        });
        if let Err(error) = saved {
            tracing::error!(%channel, error, "the commit buffer refused the record of a recovery");
        }
    }

    fn trouble_is(&self, what: Option<String>) {
        let mut trouble = self.trouble.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(why) = &what
            && trouble.is_none()
        {
            tracing::warn!(error = why, "lost channels cannot be looked for on chain now; trying again");
        }
        *trouble = what;
    }

    fn records(&self) -> MutexGuard<'_, BTreeMap<ChannelId, Recovery>> {
        // Each change is a single insert or assignment.
        self.records.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn transaction(hex: &str) -> Option<Transaction> {
    consensus::deserialize(&hex::decode(hex).ok()?).ok()
}
