//! The on-chain wallet: it watches, chooses coins and builds; the signer signs.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, OnceLock},
    time::{SystemTime, UNIX_EPOCH},
};

use bdk_wallet::{KeychainKind, LocalOutput, SignOptions, Update, chain::BlockId};
use bitcoin::{
    Address, Amount, Block, FeeRate, Network, OutPoint, Psbt, Script, ScriptBuf, Transaction, Txid, WPubkeyHash,
    constants::COINBASE_MATURITY, hashes::Hash,
};
use lightning::{
    chain::{BestBlock, Listen},
    events::bump_transaction::Utxo,
};

use super::{
    deposits::Deposits,
    journal::{Journal, JournalError, Kv},
    spend::{Pays, Spend},
};
use crate::store::{KvKey, batch::Deposit};

/// The wallet of the node. Every change to it is pushed onto the commit buffer before the call returns.
pub struct Wallet {
    inner: Mutex<Inner>,
    kv: Arc<Kv>,
    reserve_per_channel_sat: u64,
    /// Who is told of deposits, for the same commit.
    tell: Option<Box<TellDeposit>>,
}

/// What pushes a deposit onto the commit buffer.
pub type TellDeposit = dyn Fn(Deposit) + Send + Sync;

pub(super) struct Inner {
    pub(super) wallet: bdk_wallet::Wallet,
    journal: Journal,
    /// Coins in transactions that raise the fee of another. Such a transaction is replaced by a better one that spends
    /// the same coins, so they stay available for that, and for nothing else.
    pub(super) bumping: HashSet<OutPoint>,
    /// Such transactions that bitcoind has not taken yet. LDK asks for some that come to nothing, because what they
    /// would claim is claimed already; those must not keep coins from other uses.
    bumps: HashSet<Txid>,
    pub(super) deposits: Deposits,
}

impl Inner {
    /// What coin selection must not touch: coins that pay for a close, unconfirmed ones that others sent and may take
    /// back, and what was mined too lately to be spent. Promised coins the wallet leaves alone by itself.
    pub(super) fn unspendable(&self) -> Vec<OutPoint> {
        let unsure = |coin: &LocalOutput| !is_sure(coin) || !self.is_mature(coin);
        let unsure = self.wallet.list_unspent().filter(unsure).map(|coin| coin.outpoint);
        self.bumping.iter().copied().chain(unsure).collect()
    }

    /// Whether the next block may spend it: what a block pays its miner, only a hundred blocks later.
    pub(super) fn is_mature(&self, coin: &LocalOutput) -> bool {
        let mined = self.wallet.tx_graph().get_tx(coin.outpoint.txid).is_some_and(|tx| tx.is_coinbase());
        let height = coin.chain_position.confirmation_height_upper_bound();
        let next = self.wallet.latest_checkpoint().height() + 1;
        !mined || height.is_some_and(|height| next >= height + COINBASE_MATURITY)
    }

    /// What coin selection may use, in all.
    pub(super) fn spendable(&self) -> Amount {
        let usable = |coin: &LocalOutput| {
            is_sure(coin)
                && self.is_mature(coin)
                && !self.wallet.is_outpoint_locked(coin.outpoint)
                && !self.bumping.contains(&coin.outpoint)
        };
        self.wallet.list_unspent().filter(usable).map(|coin| coin.txout.value).sum()
    }

    /// Refuses a transaction that would leave less than `reserve`; its coins are not promised yet.
    pub(super) fn keeps(&self, tx: &Transaction, reserve: Amount) -> Result<(), WalletError> {
        let taken: HashSet<OutPoint> = tx.input.iter().map(|input| input.previous_output).collect();
        let taken: Amount =
            self.wallet.list_unspent().filter(|coin| taken.contains(&coin.outpoint)).map(|coin| coin.txout.value).sum();
        let given = tx.output.iter().filter(|output| self.wallet.is_mine(output.script_pubkey.clone()));
        let given: Amount = given.map(|output| output.value).sum();
        let left = (self.spendable() + given).checked_sub(taken).unwrap_or(Amount::ZERO);
        // A wallet that is below its reserve may still spend what costs it nothing more, as a bump of another does.
        match left < reserve && taken > given {
            true => Err(WalletError::Reserve { left, reserve }),
            false => Ok(()),
        }
    }
}

/// Confirmed, or our own change.
fn is_sure(coin: &LocalOutput) -> bool {
    coin.chain_position.is_confirmed() || coin.keychain == KeychainKind::Internal
}

/// What the wallet holds, in satoshi.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Balance {
    pub confirmed_sat: u64,
    /// Received or change, not yet in a block; or mined, and not yet mature.
    pub pending_sat: u64,
    /// What coin selection may use now: confirmed and mature coins and own change, none of it promised to a channel.
    pub spendable_sat: u64,
}

#[derive(Debug, thiserror::Error)]
pub enum WalletError {
    #[error(transparent)]
    Journal(#[from] JournalError),
    #[error("the signer's descriptors do not make a wallet: {0}")]
    Descriptor(#[from] bdk_wallet::descriptor::DescriptorError),
    #[error("the recorded wallet is not the signer's: {0}")]
    Load(#[from] Box<bdk_wallet::LoadError>),
    #[error("the recorded wallet is empty")]
    Empty,
    #[error("cannot start the wallet at the chain's tip: {0}")]
    Birthday(#[from] bdk_wallet::chain::local_chain::CannotConnectError),
    #[error("cannot build the transaction: {0}")]
    Build(#[from] bdk_wallet::error::CreateTxError),
    #[error("the transaction is not fully signed: {0}")]
    Unsigned(String),
    #[error("it would leave {left} in the wallet, which keeps {reserve} to bring closing channels into a block")]
    Reserve { left: Amount, reserve: Amount },
    #[error("the chain was reorganised at height {0}: try again")]
    Reorganised(u32),
    #[error("coin {0} {1}")]
    Coin(OutPoint, &'static str),
    #[error("transaction {0} {1}")]
    Bump(Txid, String),
}

impl Wallet {
    /// Opens the recorded wallet, or starts one at `birthday` for a node that has none.
    pub fn open(
        receive: &str,
        change: &str,
        network: Network,
        loaded: &HashMap<KvKey, Vec<u8>>,
        birthday: BestBlock,
        kv: Arc<Kv>,
    ) -> Result<Self, WalletError> {
        let (wallet, journal) = match Journal::load(loaded)? {
            Some((journal, changes)) => {
                let wallet = bdk_wallet::Wallet::load()
                    .descriptor(KeychainKind::External, Some(receive.to_owned()))
                    .descriptor(KeychainKind::Internal, Some(change.to_owned()))
                    .check_network(network)
                    .load_wallet_no_persist(changes)
                    .map_err(Box::new)?
                    .ok_or(WalletError::Empty)?;
                (wallet, journal)
            }
            None => {
                let mut wallet = bdk_wallet::Wallet::create(receive.to_owned(), change.to_owned())
                    .network(network)
                    .create_wallet_no_persist()?;
                let tip = BlockId { height: birthday.height, hash: birthday.block_hash };
                let checkpoint = wallet.latest_checkpoint().insert(tip);
                wallet.apply_update(Update { chain: Some(checkpoint), ..Default::default() })?;
                (wallet, Journal::default())
            }
        };
        let (bumping, bumps, deposits) = (HashSet::new(), HashSet::new(), Deposits::new(1));
        let inner = Mutex::new(Inner { wallet, journal, bumping, bumps, deposits });
        let this = Self { inner, kv, reserve_per_channel_sat: 0, tell: None };
        this.record(&mut this.lock());
        Ok(this)
    }

    /// Keeps so much for each channel whose close the wallet may have to pay for.
    pub fn with_reserve(self, per_channel_sat: u64) -> Self {
        Self { reserve_per_channel_sat: per_channel_sat, ..self }
    }

    /// Tells of deposits from now on, each when it is in `confirmations` blocks and before. `committed` are those that may
    /// still change.
    pub fn with_deposits(self, confirmations: u32, committed: Vec<Deposit>, tell: Box<TellDeposit>) -> Self {
        {
            let mut inner = self.lock();
            let transaction = |txid| inner.wallet.tx_graph().get_tx(txid).map(|tx| tx.as_ref().clone());
            let deposits = Deposits::load(confirmations, committed, transaction);
            inner.deposits = deposits;
        }
        Self { tell: Some(tell), ..self }
    }

    pub fn reserve_per_channel_sat(&self) -> u64 {
        self.reserve_per_channel_sat
    }

    pub fn best_block(&self) -> BestBlock {
        let tip = self.lock().wallet.latest_checkpoint();
        BestBlock { block_hash: tip.hash(), height: tip.height() }
    }

    /// A receive address that was never given out before.
    pub fn new_address(&self) -> Address {
        let mut inner = self.lock();
        let address = inner.wallet.reveal_next_address(KeychainKind::External).address;
        self.record(&mut inner);
        address
    }

    /// How many receive addresses were given out after the last one that was paid to.
    pub fn unpaid_in_a_row(&self) -> u32 {
        let inner = self.lock();
        let used = inner.wallet.spk_index().last_used_index(KeychainKind::External).map_or(0, |last| last + 1);
        inner.wallet.next_derivation_index(KeychainKind::External).saturating_sub(used)
    }

    /// An own script for change, sweeps and closed channels.
    pub fn own_script(&self) -> ScriptBuf {
        let mut inner = self.lock();
        let script = inner.wallet.next_unused_address(KeychainKind::Internal).script_pubkey();
        self.record(&mut inner);
        script
    }

    pub fn balance(&self) -> Balance {
        let inner = self.lock();
        let all = inner.wallet.balance();
        Balance {
            confirmed_sat: all.confirmed.to_sat(),
            pending_sat: (all.trusted_pending + all.untrusted_pending + all.immature).to_sat(),
            spendable_sat: inner.spendable().to_sat(),
        }
    }

    /// Builds an unsigned transaction that pays `amount` to `script`, and promises its coins to it until
    /// [`Wallet::release`] or until it is seen.
    pub fn build_payment(
        &self,
        script: ScriptBuf,
        amount: Amount,
        feerate_sat_per_kw: u32,
        height: u32,
        reserve: Amount,
    ) -> Result<Psbt, WalletError> {
        let feerate = FeeRate::from_sat_per_kwu(feerate_sat_per_kw.into());
        self.build_spend(&Spend { pays: Pays::Amount(script, amount), coins: vec![], feerate, reserve, height })
    }

    /// Takes back the promise of a transaction's coins.
    pub fn release(&self, tx: &Transaction) {
        let mut inner = self.lock();
        for input in &tx.input {
            inner.wallet.unlock_outpoint(input.previous_output);
        }
        self.record(&mut inner);
    }

    /// Takes back all promises but those of these coins. What a leader promised and did not live to send, nobody sends.
    pub fn release_all_but(&self, promised: &HashSet<OutPoint>) {
        let mut inner = self.lock();
        let forgotten: Vec<_> = inner.wallet.list_locked_outpoints().filter(|coin| !promised.contains(coin)).collect();
        for coin in forgotten {
            inner.wallet.unlock_outpoint(coin);
        }
        self.record(&mut inner);
    }

    /// Adds to a PSBT what the signer needs to know of the wallet's inputs: values and key paths.
    pub fn describe_inputs(&self, psbt: &mut Psbt) -> Result<(), WalletError> {
        let inner = self.lock();
        for (input, described) in psbt.unsigned_tx.input.iter().zip(&mut psbt.inputs) {
            if let Some(coin) = inner.wallet.get_utxo(input.previous_output) {
                // With the whole transaction that is spent, so that the signer need not believe us the value.
                *described = inner.wallet.get_psbt_input(coin, None, false)?;
            }
        }
        Ok(())
    }

    /// The transaction of a PSBT as far as it is signed. Inputs that are not the wallet's stay empty.
    pub fn extract(&self, mut psbt: Psbt) -> Result<Transaction, WalletError> {
        let mine: Vec<bool> = {
            let inner = self.lock();
            let unsigned = |e: &dyn std::fmt::Display| WalletError::Unsigned(e.to_string());
            // Inputs that came back final are left alone; those with a signature only are finished here.
            #[allow(deprecated)] // its successor reports per input, which the check below does anyway
            inner.wallet.finalize_psbt(&mut psbt, SignOptions::default()).map_err(|e| unsigned(&e))?;
            // A coin that the replaced transaction spends is ours as well, though no longer unspent.
            let ours = |outpoint: OutPoint| {
                let spent = inner.wallet.tx_graph().get_txout(outpoint);
                spent.is_some_and(|output| inner.wallet.is_mine(output.script_pubkey.clone()))
            };
            psbt.unsigned_tx.input.iter().map(|input| ours(input.previous_output)).collect()
        };
        let tx = psbt.extract_tx_unchecked_fee_rate();
        match tx.input.iter().zip(mine).find(|(input, mine)| *mine && input.witness.is_empty()) {
            Some((input, _)) => Err(WalletError::Unsigned(format!("no signature for {}", input.previous_output))),
            None => Ok(tx),
        }
    }

    /// Keeps a fee-bumping transaction's coins for its replacements, once bitcoind has it.
    pub fn keep_for_bumping(&self, tx: &Transaction) {
        self.lock().bumps.insert(tx.compute_txid());
    }

    /// Notes a transaction of ours that bitcoind has. Others are ignored.
    pub fn saw_unconfirmed(&self, tx: &Transaction) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs());
        let mut inner = self.lock();
        if inner.bumps.remove(&tx.compute_txid()) {
            let coins: Vec<OutPoint> = tx.input.iter().map(|input| input.previous_output).collect();
            let mine: Vec<_> = coins.into_iter().filter(|coin| inner.wallet.get_utxo(*coin).is_some()).collect();
            inner.bumping.extend(mine);
        }
        if tx.input.iter().any(|input| inner.bumping.contains(&input.previous_output)) {
            return;
        }
        inner.wallet.apply_unconfirmed_txs([(tx.clone(), now)]);
        let known = inner.wallet.get_tx(tx.compute_txid()).map(|tx| tx.chain_position.is_unconfirmed());
        if known.is_some() {
            // The transaction itself spends its coins now; the promise has done its work.
            for input in &tx.input {
                inner.wallet.unlock_outpoint(input.previous_output);
            }
        }
        self.record(&mut inner);
        if known == Some(true) {
            self.deposited(&mut inner, |deposits, address| deposits.saw(tx, address));
        }
    }

    /// A transaction that is in bitcoind's mempool. If it pays us it is told of; the wallet has it when a block does.
    pub fn saw_deposit(&self, tx: &Transaction) {
        self.deposited(&mut self.lock(), |deposits, address| deposits.saw(tx, address));
    }

    /// Own transactions that are in no block yet: after a takeover they are handed to bitcoind again.
    pub fn unconfirmed(&self) -> Vec<Transaction> {
        let inner = self.lock();
        let mine = inner.wallet.transactions().filter(|tx| tx.chain_position.is_unconfirmed());
        mine.map(|tx| tx.tx_node.tx.as_ref().clone()).collect()
    }

    /// Coins for fee bumping: confirmed, and not promised to a channel.
    pub fn confirmed_coins(&self) -> Vec<Utxo> {
        let inner = self.lock();
        let confirmed = inner.wallet.list_unspent().filter(|coin| {
            coin.chain_position.is_confirmed()
                && inner.is_mature(coin)
                && !inner.wallet.is_outpoint_locked(coin.outpoint)
        });
        confirmed.filter_map(|coin| p2wpkh_utxo(coin.outpoint, &coin.txout)).collect()
    }

    /// Whether it is one of the first `count` addresses of either branch.
    pub fn is_among_first(&self, count: u32, script: &ScriptBuf) -> bool {
        self.lock().wallet.derivation_of_spk(script.clone()).is_some_and(|(_, index)| index < count)
    }

    pub fn is_mine(&self, script: &ScriptBuf) -> bool {
        self.lock().wallet.is_mine(script.clone())
    }

    pub fn transaction(&self, txid: Txid) -> Option<Transaction> {
        self.lock().wallet.get_tx(txid).map(|tx| tx.tx_node.tx.as_ref().clone())
    }

    /// Whether a transaction of the wallet spends an output, in a block or on its way into one.
    pub fn has_spend_of(&self, outpoint: OutPoint) -> bool {
        let inner = self.lock();
        inner.wallet.tx_graph().outspends(outpoint).iter().any(|txid| inner.wallet.get_tx(*txid).is_some())
    }

    pub fn knows(&self, txid: Txid) -> bool {
        self.lock().wallet.get_tx(txid).is_some()
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Inner> {
        // A panic while it was held aborts the process (see the replica), so the lock is never poisoned in practice.
        self.inner.lock().unwrap_or_else(|e| e.into_inner())
    }

    /// Tells of what changes about deposits. To be called behind [`Wallet::record`], under the same lock.
    pub(super) fn deposited(
        &self,
        inner: &mut Inner,
        change: impl FnOnce(&mut Deposits, &dyn Fn(&Script) -> Option<String>) -> Vec<Deposit>,
    ) {
        let Some(tell) = &self.tell else { return };
        let Inner { wallet, deposits, .. } = inner;
        let address = |script: &Script| {
            // Change, and what channels leave, goes to addresses of the other keychain.
            match wallet.derivation_of_spk(script.to_owned()) {
                Some((KeychainKind::External, _)) => Address::from_script(script, wallet.network()).ok(),
                _ => None,
            }
            .map(|address| address.to_string())
        };
        change(deposits, &address).into_iter().for_each(tell);
    }

    pub(super) fn record(&self, inner: &mut Inner) {
        if let Some(change) = inner.wallet.take_staged() {
            inner.journal.record(&*self.kv, change);
        }
    }
}

impl Listen for Wallet {
    fn block_connected(&self, block: &Block, height: u32) {
        let mut inner = self.lock();
        if let Err(error) = inner.wallet.apply_block(block, height) {
            // The chain gave way below the block that the wallet began with: it goes on from what it has that is older, if
            // only the first of all.
            let older = inner.wallet.latest_checkpoint().range(..height.saturating_sub(1)).next();
            let connected = older.map(|older| inner.wallet.apply_block_connected_to(block, height, older.block_id()));
            if !matches!(connected, Some(Ok(()))) {
                tracing::error!(%error, height, ?connected, "the wallet cannot connect a block");
            }
        }
        let unspent: HashSet<OutPoint> = inner.wallet.list_unspent().map(|coin| coin.outpoint).collect();
        let spent: Vec<_> = inner.wallet.list_locked_outpoints().filter(|coin| !unspent.contains(coin)).collect();
        for coin in spent {
            inner.wallet.unlock_outpoint(coin);
        }
        inner.bumping.retain(|coin| unspent.contains(coin));
        self.record(&mut inner);
        self.deposited(&mut inner, |deposits, address| deposits.connected(block, height, address));
    }

    fn filtered_block_connected(
        &self,
        _: &bitcoin::block::Header,
        _: &lightning::chain::transaction::TransactionData,
        _: u32,
    ) {
        // Our source of blocks never filters.
        tracing::error!("the wallet was given a filtered block");
    }

    fn blocks_disconnected(&self, _: BestBlock) {
        // The first block of the better fork connects to the fork's start and so replaces what stood above it.
    }
}

fn p2wpkh_utxo(outpoint: OutPoint, output: &bitcoin::TxOut) -> Option<Utxo> {
    let script = &output.script_pubkey;
    if !script.is_p2wpkh() {
        return None;
    }
    let hash = WPubkeyHash::from_slice(&script.as_bytes()[2..]).ok()?;
    Some(Utxo::new_v0_p2wpkh(outpoint, output.value, &hash))
}

/// Where LDK's keys send a channel's money: the wallet, once it is open. The keys exist before the wallet does, because
/// the wallet's descriptors come from the signer.
#[derive(Default)]
pub struct Destinations(OnceLock<Arc<Wallet>>);

impl Destinations {
    pub fn set(&self, wallet: Arc<Wallet>) {
        // Set once in a process's life: a process leads at most once.
        let _ = self.0.set(wallet);
    }

    pub fn script(&self) -> Option<ScriptBuf> {
        self.0.get().map(|wallet| wallet.own_script())
    }
}

#[cfg(test)]
pub(super) mod tests;
