//! What the wallet knows, for people and watch-only tools: coins, addresses, descriptors; and a second look at old blocks.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};

use bdk_wallet::{
    KeychainKind, Update,
    chain::{BlockId, ChainPosition, ConfirmationBlockTime, TxUpdate},
};
use bitcoin::{Address, Amount, Block, OutPoint, Transaction, Txid};

use super::wallet::{Wallet, WalletError};

/// An unspent output.
#[derive(Clone, Debug)]
pub struct Coin {
    pub outpoint: OutPoint,
    pub value: Amount,
    pub address: Option<Address>,
    /// Where it was confirmed.
    pub height: Option<u32>,
    pub is_change: bool,
    /// Promised to a transaction that is not sent yet, or paying for a channel's close.
    pub is_promised: bool,
}

/// An address that was given out.
#[derive(Clone, Debug)]
pub struct Given {
    pub address: Address,
    pub index: u32,
    pub is_change: bool,
    /// All that it ever received, unconfirmed payments included.
    pub received: Amount,
    pub is_used: bool,
}

impl Wallet {
    /// All coins, the largest first.
    pub fn coins(&self) -> Vec<Coin> {
        let inner = self.lock();
        let network = inner.wallet.network();
        let mut coins: Vec<Coin> = inner
            .wallet
            .list_unspent()
            .map(|coin| Coin {
                outpoint: coin.outpoint,
                value: coin.txout.value,
                address: Address::from_script(&coin.txout.script_pubkey, network).ok(),
                height: match coin.chain_position {
                    ChainPosition::Confirmed { anchor, .. } => Some(anchor.block_id.height),
                    ChainPosition::Unconfirmed { .. } => None,
                },
                is_change: coin.keychain == KeychainKind::Internal,
                is_promised: inner.wallet.is_outpoint_locked(coin.outpoint) || inner.bumping.contains(&coin.outpoint),
            })
            .collect();
        coins.sort_by_key(|coin| (std::cmp::Reverse(coin.value), coin.outpoint));
        coins
    }

    /// A transaction that the wallet made, and the fee that it pays, also if another has taken its place since.
    pub fn sent(&self, txid: Txid) -> Option<(Transaction, Amount)> {
        let inner = self.lock();
        let tx = inner.wallet.tx_graph().get_tx(txid)?;
        let fee = inner.wallet.calculate_fee(&tx).ok()?;
        Some((tx.as_ref().clone(), fee))
    }

    /// The addresses that were given out, the newest first; those of change as well if `change`.
    pub fn addresses(&self, change: bool) -> Vec<Given> {
        let inner = self.lock();
        let mut received: HashMap<(KeychainKind, u32), Amount> = HashMap::new();
        for output in inner.wallet.list_output() {
            *received.entry((output.keychain, output.derivation_index)).or_default() += output.txout.value;
        }
        let mut all = Vec::new();
        for keychain in [KeychainKind::External, KeychainKind::Internal].into_iter().take(if change { 2 } else { 1 }) {
            let Some(last) = inner.wallet.derivation_index(keychain) else { continue };
            all.extend((0..=last).rev().map(|index| {
                let received = received.get(&(keychain, index)).copied();
                Given {
                    address: inner.wallet.peek_address(keychain, index).address,
                    index,
                    is_change: keychain == KeychainKind::Internal,
                    received: received.unwrap_or_default(),
                    is_used: received.is_some(),
                }
            }));
        }
        all
    }

    /// The watch-only descriptors with their checksums: of received coins, and of change.
    pub fn descriptors(&self) -> [String; 2] {
        let inner = self.lock();
        [KeychainKind::External, KeychainKind::Internal].map(|keychain| {
            // Made from the signer's, which hold no secret.
            inner.wallet.public_descriptor(keychain).to_string()
        })
    }

    /// For each descriptor the first index that was not given out yet.
    pub fn next_indexes(&self) -> [u32; 2] {
        let inner = self.lock();
        [KeychainKind::External, KeychainKind::Internal].map(|keychain| inner.wallet.next_derivation_index(keychain))
    }

    /// Looks once more at a block of the chain that the wallet is on, for transactions of its own that it missed. Gives
    /// those it did not know.
    pub fn scan(&self, block: &Block, height: u32) -> Result<Vec<Txid>, WalletError> {
        let mut inner = self.lock();
        let id = BlockId { height, hash: block.block_hash() };
        let tip = inner.wallet.latest_checkpoint();
        if height > tip.height() {
            return Ok(Vec::new());
        }
        if tip.get(height).is_some_and(|known| known.hash() != id.hash) {
            return Err(WalletError::Reorganised(height));
        }
        let mut fresh = Vec::new();
        let mut update = TxUpdate::<ConfirmationBlockTime>::default();
        let anchor = ConfirmationBlockTime { block_id: id, confirmation_time: u64::from(block.header.time) };
        let mut made: BTreeSet<OutPoint> = BTreeSet::new();
        for tx in &block.txdata {
            let txid = tx.compute_txid();
            let mut ours = false;
            for (vout, output) in (0..).zip(&tx.output) {
                if inner.wallet.is_mine(output.script_pubkey.clone()) {
                    made.insert(OutPoint { txid, vout });
                    ours = true;
                }
            }
            let spends =
                |outpoint: &OutPoint| made.contains(outpoint) || inner.wallet.spk_index().txout(*outpoint).is_some();
            ours |= tx.input.iter().any(|input| spends(&input.previous_output));
            if ours {
                if !inner.wallet.get_tx(txid).is_some_and(|known| known.chain_position.is_confirmed()) {
                    fresh.push(txid);
                }
                update.txs.push(Arc::new(tx.clone()));
                update.anchors.insert((anchor, txid));
            }
        }
        if !update.txs.is_empty() {
            let update = Update { chain: Some(tip.insert(id)), tx_update: update, ..Default::default() };
            inner.wallet.apply_update(update)?;
            self.record(&mut inner);
            let tip = inner.wallet.latest_checkpoint().height();
            self.deposited(&mut inner, |deposits, address| deposits.scanned(block, height, tip, address));
        }
        Ok(fresh)
    }
}
