//! Transactions that an operator asks for: payments with coins of his choice, everything at once, and higher fees for what
//! is stuck.

use bdk_wallet::{KeychainKind, chain::ChainPosition};
use bitcoin::{
    Amount, FeeRate, OutPoint, Psbt, ScriptBuf, Transaction, Txid, Weight, absolute::LockTime,
    constants::WITNESS_SCALE_FACTOR,
};

use super::wallet::{Inner, Wallet, WalletError};

/// A payment out of the wallet.
#[derive(Clone, Debug)]
pub struct Spend {
    pub pays: Pays,
    /// These coins and no others; any when empty.
    pub coins: Vec<OutPoint>,
    pub feerate: FeeRate,
    /// What has to be left in the wallet.
    pub reserve: Amount,
    /// The chain's height.
    pub height: u32,
}

#[derive(Clone, Debug)]
pub enum Pays {
    Amount(ScriptBuf, Amount),
    /// All there is but the reserve; with coins chosen, all that they hold.
    Everything(ScriptBuf),
}

/// How the fee of a stuck transaction is raised.
#[derive(Clone, Debug)]
pub enum Bump {
    /// The same payments again with a higher fee (BIP 125).
    Replacement(Psbt),
    /// A transaction that spends an output of the stuck one and pays for both.
    Child(Psbt),
}

impl Bump {
    pub fn psbt(&self) -> &Psbt {
        match self {
            Self::Replacement(psbt) | Self::Child(psbt) => psbt,
        }
    }
}

/// Below this an output is not worth its place in a block (P2WPKH's dust limit is 294 satoshi).
const SMALLEST_OUTPUT: Amount = Amount::from_sat(1000);

impl Wallet {
    /// Builds an unsigned transaction, and promises its coins to it until [`Wallet::release`] or until it is seen.
    pub fn build_spend(&self, spend: &Spend) -> Result<Psbt, WalletError> {
        let mut inner = self.lock();
        check_coins(&inner, &spend.coins)?;
        let unspendable = inner.unspendable();
        // What stays behind when everything goes, as an output of its own.
        let kept = match spend.pays {
            Pays::Everything(_) if spend.reserve > Amount::ZERO => {
                let chosen =
                    |coin: &OutPoint| inner.wallet.get_utxo(*coin).map_or(Amount::ZERO, |coin| coin.txout.value);
                let chosen: Amount = spend.coins.iter().map(chosen).sum();
                let rest = if spend.coins.is_empty() { Amount::ZERO } else { inner.spendable() - chosen };
                let missing = spend.reserve.checked_sub(rest).unwrap_or(Amount::ZERO);
                (missing > Amount::ZERO).then(|| missing.max(SMALLEST_OUTPUT))
            }
            _ => None,
        };
        let kept = kept.map(|amount| {
            let address = inner.wallet.next_unused_address(KeychainKind::Internal);
            (address.script_pubkey(), amount)
        });
        let mut builder = inner.wallet.build_tx();
        builder
            .unspendable(unspendable)
            .fee_rate(spend.feerate)
            // Discourages miners from rewriting the last blocks for their fees.
            .nlocktime(LockTime::from_height(spend.height).unwrap_or(LockTime::ZERO));
        if !spend.coins.is_empty() {
            // The coins were looked up above.
            let _ = builder.add_utxos(&spend.coins).map(|builder| builder.manually_selected_only());
        }
        match &spend.pays {
            Pays::Amount(script, amount) => {
                builder.add_recipient(script.clone(), *amount);
            }
            Pays::Everything(script) => {
                if spend.coins.is_empty() {
                    builder.drain_wallet();
                }
                if let Some((own, amount)) = &kept {
                    builder.add_recipient(own.clone(), *amount);
                }
                builder.drain_to(script.clone());
            }
        }
        let psbt = builder.finish()?;
        let tx = &psbt.unsigned_tx;
        if let Pays::Everything(script) = &spend.pays
            && !tx.output.iter().any(|output| output.script_pubkey == *script)
        {
            return Err(WalletError::Reserve { left: inner.spendable(), reserve: spend.reserve });
        }
        inner.keeps(tx, spend.reserve)?;
        for input in &tx.input {
            inner.wallet.lock_outpoint(input.previous_output);
        }
        self.record(&mut inner);
        Ok(psbt)
    }

    /// Builds what brings a stuck transaction into a block at `feerate`: its replacement if it is `replaceable` (it pays
    /// nobody who relies on its txid), else a child that pays for it. `drains` is where its surplus went if all of it did.
    pub fn build_bump(
        &self,
        txid: Txid,
        feerate: FeeRate,
        reserve: Amount,
        replaceable: bool,
        drains: Option<&ScriptBuf>,
    ) -> Result<Bump, WalletError> {
        let mut inner = self.lock();
        let stuck = stuck(&inner, txid)?;
        let bump = match replaceable {
            true => Bump::Replacement(replacement(&mut inner, &stuck, feerate, drains)?),
            false => Bump::Child(child(&mut inner, &stuck, feerate)?),
        };
        inner.keeps(&bump.psbt().unsigned_tx, reserve)?;
        for input in &bump.psbt().unsigned_tx.input {
            if inner.wallet.get_utxo(input.previous_output).is_some() {
                inner.wallet.lock_outpoint(input.previous_output);
            }
        }
        self.record(&mut inner);
        Ok(bump)
    }

    /// Forgets an unconfirmed transaction that another one replaces.
    pub fn replaced(&self, txid: Txid) {
        let mut inner = self.lock();
        let seen = match inner.wallet.get_tx(txid).map(|tx| tx.chain_position) {
            Some(ChainPosition::Unconfirmed { last_seen, .. }) => last_seen.unwrap_or(0),
            _ => return,
        };
        inner.wallet.apply_evicted_txs([(txid, seen + 1)]);
        self.record(&mut inner);
    }

    /// The fee of a transaction whose inputs the wallet knows.
    pub fn fee(&self, tx: &Transaction) -> Option<Amount> {
        self.lock().wallet.calculate_fee(tx).ok()
    }
}

fn check_coins(inner: &Inner, coins: &[OutPoint]) -> Result<(), WalletError> {
    for coin in coins {
        let refuse = |why| Err(WalletError::Coin(*coin, why));
        let Some(found) = inner.wallet.get_utxo(*coin) else { return refuse("is not in the wallet, or is spent") };
        if inner.wallet.is_outpoint_locked(*coin) {
            return refuse("is promised to a transaction that is not sent yet");
        }
        if inner.bumping.contains(coin) {
            return refuse("pays for a channel's close");
        }
        if !inner.is_mature(&found) {
            return refuse("was mined less than a hundred blocks ago, and cannot be spent yet");
        }
        if !found.chain_position.is_confirmed() && found.keychain == KeychainKind::External {
            return refuse("is not confirmed, and its sender may take it back");
        }
    }
    Ok(())
}

/// The transaction, if its fee can be raised at all.
fn stuck(inner: &Inner, txid: Txid) -> Result<Transaction, WalletError> {
    let refuse = |why: &str| Err(WalletError::Bump(txid, why.to_owned()));
    match inner.wallet.get_tx(txid) {
        None => refuse("is not the wallet's, or was replaced"),
        Some(tx) if tx.chain_position.is_confirmed() => refuse("is in a block already"),
        Some(tx) => Ok(tx.tx_node.tx.as_ref().clone()),
    }
}

fn replacement(
    inner: &mut Inner,
    stuck: &Transaction,
    feerate: FeeRate,
    drains: Option<&ScriptBuf>,
) -> Result<Psbt, WalletError> {
    let txid = stuck.compute_txid();
    let refuse = |why: String| WalletError::Bump(txid, why);
    let spent = (0..stuck.output.len() as u32).find(|vout| {
        let outpoint = OutPoint { txid, vout: *vout };
        inner.wallet.tx_graph().outspends(outpoint).iter().any(|child| inner.wallet.get_tx(*child).is_some())
    });
    if spent.is_some() {
        return Err(refuse("has its change spent by another one: raise the fee of that one".into()));
    }
    let unspendable = inner.unspendable();
    let mut builder = inner.wallet.build_fee_bump(txid).map_err(|error| refuse(error.to_string()))?;
    builder.unspendable(unspendable).fee_rate(feerate).nlocktime(stuck.lock_time);
    if let Some(script) = drains {
        let others = stuck.output.iter().filter(|output| output.script_pubkey != *script);
        builder.set_recipients(others.map(|output| (output.script_pubkey.clone(), output.value)).collect());
        builder.drain_to(script.clone());
        builder.manually_selected_only();
    }
    Ok(builder.finish()?)
}

fn child(inner: &mut Inner, stuck: &Transaction, feerate: FeeRate) -> Result<Psbt, WalletError> {
    let txid = stuck.compute_txid();
    let refuse = |why: &str| WalletError::Bump(txid, why.to_owned());
    let own: Vec<OutPoint> = (0..stuck.output.len() as u32)
        .map(|vout| OutPoint { txid, vout })
        .filter(|outpoint| inner.wallet.get_utxo(*outpoint).is_some() && !inner.wallet.is_outpoint_locked(*outpoint))
        .collect();
    if own.is_empty() {
        return Err(refuse("cannot be replaced safely, and leaves the wallet no output to pay a fee with"));
    }
    let paid = inner.wallet.calculate_fee(stuck).map_err(|_| refuse("pays a fee that the wallet cannot know"))?;
    // One P2WPKH output, and P2WPKH inputs (BOLT 3's appendix has their weights).
    let weight = Weight::from_wu(42 + 31 * WITNESS_SCALE_FACTOR as u64 + 272 * own.len() as u64);
    let missing = (feerate * (stuck.weight() + weight)).checked_sub(paid).unwrap_or(Amount::ZERO);
    // A child that pays less than the least that is relayed would itself be stuck.
    let fee = missing.max(FeeRate::BROADCAST_MIN * weight);
    if missing == Amount::ZERO {
        return Err(refuse("pays that much already"));
    }
    let to = inner.wallet.next_unused_address(KeychainKind::Internal).script_pubkey();
    let mut builder = inner.wallet.build_tx();
    builder
        .add_utxos(&own)
        .map_err(|error| WalletError::Bump(txid, error.to_string()))?
        .manually_selected_only()
        .drain_to(to)
        .fee_absolute(fee);
    Ok(builder.finish()?)
}

#[cfg(test)]
mod tests {
    use std::{
        collections::{HashMap, HashSet},
        sync::Arc,
    };

    use bitcoin::{Network, WPubkeyHash, constants::genesis_block, hashes::Hash};
    use lightning::chain::{BestBlock, Listen};

    use super::{
        super::wallet::tests::{CHANGE, Memory, RECEIVE, block, open, pay},
        *,
    };

    const COIN: u64 = 100_000;

    /// A wallet with three confirmed coins, and those.
    fn funded() -> (Wallet, Vec<OutPoint>) {
        let wallet = open(&Arc::new(Memory::default()));
        let payments: Vec<_> = (0..3).map(|salt| pay(wallet.new_address().script_pubkey(), COIN, salt)).collect();
        let coins = payments.iter().map(|tx| OutPoint { txid: tx.compute_txid(), vout: 0 }).collect();
        wallet.block_connected(&block(wallet.best_block().block_hash, 1, payments), 1);
        (wallet, coins)
    }

    fn stranger() -> ScriptBuf {
        ScriptBuf::new_p2wpkh(&WPubkeyHash::from_byte_array([9; 20]))
    }

    fn spend(pays: Pays, coins: &[OutPoint], reserve: u64) -> Spend {
        let feerate = FeeRate::from_sat_per_vb(2).unwrap();
        Spend { pays, coins: coins.to_vec(), feerate, reserve: Amount::from_sat(reserve), height: 1 }
    }

    fn amount(sat: u64) -> Pays {
        Pays::Amount(stranger(), Amount::from_sat(sat))
    }

    fn spent(psbt: &Psbt) -> HashSet<OutPoint> {
        psbt.unsigned_tx.input.iter().map(|input| input.previous_output).collect()
    }

    fn paid(psbt: &Psbt, script: &ScriptBuf) -> u64 {
        let of = psbt.unsigned_tx.output.iter().filter(|output| output.script_pubkey == *script);
        of.map(|output| output.value.to_sat()).sum()
    }

    #[test]
    fn chosen_coins_and_no_others_are_spent() {
        let (wallet, coins) = funded();
        let psbt = wallet.build_spend(&spend(amount(10_000), &coins[1..2], 0)).unwrap();
        assert_eq!(spent(&psbt), HashSet::from([coins[1]]));
        // It is promised now; and what is not there cannot be chosen.
        for coin in [coins[1], OutPoint { vout: 7, ..coins[0] }] {
            let refused = wallet.build_spend(&spend(amount(10_000), &[coin], 0)).unwrap_err();
            assert!(matches!(refused, WalletError::Coin(named, _) if named == coin), "{refused}");
        }
        let too_little = wallet.build_spend(&spend(amount(COIN), &coins[..1], 0));
        assert!(matches!(too_little, Err(WalletError::Build(_))));
    }

    #[test]
    fn the_reserve_stays_whatever_is_sent() {
        let (wallet, coins) = funded();
        let refused = wallet.build_spend(&spend(amount(3 * COIN - 20_000), &[], 20_000)).unwrap_err();
        assert!(matches!(refused, WalletError::Reserve { .. }), "{refused}");
        assert_eq!(wallet.balance().spendable_sat, 3 * COIN, "nothing is promised to what was refused");
        let psbt = wallet.build_spend(&spend(amount(3 * COIN - 21_000), &[], 20_000)).unwrap();
        wallet.release(&psbt.unsigned_tx);

        // "All" is all but the reserve, as far as coins that stay do not hold it already.
        let psbt = wallet.build_spend(&spend(Pays::Everything(stranger()), &[], 20_000)).unwrap();
        assert_eq!(spent(&psbt).len(), 3);
        assert_eq!(paid(&psbt, &stranger()) + psbt.fee().unwrap().to_sat(), 3 * COIN - 20_000);
        wallet.release(&psbt.unsigned_tx);
        let psbt = wallet.build_spend(&spend(Pays::Everything(stranger()), &coins[..2], 20_000)).unwrap();
        assert_eq!(paid(&psbt, &stranger()) + psbt.fee().unwrap().to_sat(), 2 * COIN);
        assert_eq!(psbt.unsigned_tx.output.len(), 1);
        wallet.release(&psbt.unsigned_tx);
        assert!(wallet.build_spend(&spend(Pays::Everything(stranger()), &[], 3 * COIN)).is_err());
    }

    #[test]
    fn a_scan_finds_what_was_missed_once() {
        let kv = Arc::new(Memory::default());
        let address = open(&Arc::new(Memory::default())).new_address();
        let genesis = genesis_block(Network::Regtest).block_hash();
        let missed = block(genesis, 1, vec![pay(address.script_pubkey(), COIN, 1)]);
        let tip = block(missed.block_hash(), 2, vec![]);
        let birthday = BestBlock { block_hash: tip.block_hash(), height: 2 };
        let wallet = Wallet::open(RECEIVE, CHANGE, Network::Regtest, &HashMap::new(), birthday, kv).unwrap();
        assert_eq!(wallet.balance().confirmed_sat, 0);
        assert_eq!(wallet.scan(&missed, 1).unwrap(), [missed.txdata[0].compute_txid()]);
        assert_eq!((wallet.balance().confirmed_sat, wallet.best_block()), (COIN, birthday));
        assert!(wallet.scan(&missed, 1).unwrap().is_empty(), "it is known now");
        assert!(wallet.scan(&missed, 3).unwrap().is_empty(), "above its own tip it does not look");
        assert!(matches!(wallet.scan(&missed, 2), Err(WalletError::Reorganised(2))));
        assert!(wallet.addresses(false)[0].is_used);
    }
}
