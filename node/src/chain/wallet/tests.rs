use bitcoin::{BlockHash, TxIn, TxOut, absolute::LockTime, blockdata::block, constants::genesis_block};
use lightning::util::persist::KVStoreSync;

use super::*;

pub(in crate::chain) const RECEIVE: &str = "wpkh([73c5da0a/84'/1'/0']tpubDC8msFGeGuwnKG9Upg7DM2b4DaRqg3CUZa5g8v2SRQ6K4NSkxUgd7HsL2XVWbVm39yBA4LAxysQAm397zwQSQoQgewGiYZqrA9DsP4zbQ1M/0/*)";
pub(in crate::chain) const CHANGE: &str = "wpkh([73c5da0a/84'/1'/0']tpubDC8msFGeGuwnKG9Upg7DM2b4DaRqg3CUZa5g8v2SRQ6K4NSkxUgd7HsL2XVWbVm39yBA4LAxysQAm397zwQSQoQgewGiYZqrA9DsP4zbQ1M/1/*)";

#[derive(Default)]
pub(in crate::chain) struct Memory(pub(in crate::chain) Mutex<HashMap<KvKey, Vec<u8>>>);

impl KVStoreSync for Memory {
    fn read(&self, _: &str, _: &str, _: &str) -> Result<Vec<u8>, lightning::io::Error> {
        Err(lightning::io::ErrorKind::NotFound.into())
    }
    fn write(&self, p: &str, s: &str, k: &str, v: Vec<u8>) -> Result<(), lightning::io::Error> {
        self.0.lock().unwrap().insert(KvKey { primary: p.into(), secondary: s.into(), key: k.into() }, v);
        Ok(())
    }
    fn remove(&self, p: &str, s: &str, k: &str, _: bool) -> Result<(), lightning::io::Error> {
        self.0.lock().unwrap().remove(&KvKey { primary: p.into(), secondary: s.into(), key: k.into() });
        Ok(())
    }
    fn list(&self, _: &str, _: &str) -> Result<Vec<String>, lightning::io::Error> {
        Ok(Vec::new())
    }
}

pub(in crate::chain) fn open(kv: &Arc<Memory>) -> Wallet {
    let genesis = genesis_block(Network::Regtest).block_hash();
    let birthday = BestBlock { block_hash: genesis, height: 0 };
    let loaded = kv.0.lock().unwrap().clone();
    Wallet::open(RECEIVE, CHANGE, Network::Regtest, &loaded, birthday, kv.clone()).unwrap()
}

pub(in crate::chain) fn pay(script: ScriptBuf, sat: u64, salt: u32) -> Transaction {
    Transaction {
        version: bitcoin::transaction::Version::TWO,
        lock_time: LockTime::from_consensus(salt),
        input: vec![TxIn {
            previous_output: OutPoint { txid: Txid::from_byte_array([7; 32]), vout: salt },
            ..Default::default()
        }],
        output: vec![TxOut { value: Amount::from_sat(sat), script_pubkey: script }],
    }
}

pub(in crate::chain) fn block(previous: BlockHash, nonce: u32, txdata: Vec<Transaction>) -> Block {
    let header = block::Header {
        version: block::Version::TWO,
        prev_blockhash: previous,
        merkle_root: bitcoin::TxMerkleNode::all_zeros(),
        time: 0,
        bits: bitcoin::CompactTarget::from_consensus(0),
        nonce,
    };
    Block { header, txdata }
}

#[test]
fn a_reloaded_wallet_knows_what_the_last_one_did() {
    let kv = Arc::new(Memory::default());
    let wallet = open(&kv);
    let first = wallet.new_address();
    let genesis = wallet.best_block().block_hash;
    wallet.block_connected(&block(genesis, 1, vec![pay(first.script_pubkey(), 50_000, 1)]), 1);
    assert_eq!(wallet.balance().confirmed_sat, 50_000);
    wallet.build_payment(first.script_pubkey(), Amount::from_sat(10_000), 250, 1, Amount::ZERO).unwrap();
    assert_eq!(wallet.balance().spendable_sat, 0);

    let again = open(&kv);
    assert_eq!(again.balance(), wallet.balance());
    assert_eq!(again.best_block(), wallet.best_block());
    assert_ne!(again.new_address(), first);
}

#[test]
fn addresses_that_nobody_pays_to_are_counted_from_the_last_that_somebody_did() {
    let wallet = open(&Arc::new(Memory::default()));
    assert_eq!(wallet.unpaid_in_a_row(), 0);
    let addresses: Vec<_> = (0..5).map(|_| wallet.new_address().script_pubkey()).collect();
    assert_eq!(wallet.unpaid_in_a_row(), 5);
    let genesis = wallet.best_block().block_hash;
    wallet.block_connected(&block(genesis, 1, vec![pay(addresses[2].clone(), 50_000, 1)]), 1);
    assert_eq!(wallet.unpaid_in_a_row(), 2);
    assert!(wallet.is_among_first(5, &addresses[4]) && !wallet.is_among_first(4, &addresses[4]));
    assert!(!wallet.is_among_first(5, &ScriptBuf::new()));
}

#[test]
fn coins_promised_to_a_channel_are_not_promised_twice() {
    let kv = Arc::new(Memory::default());
    let wallet = open(&kv);
    let to = wallet.new_address().script_pubkey();
    let genesis = wallet.best_block().block_hash;
    wallet.block_connected(&block(genesis, 1, vec![pay(to.clone(), 50_000, 1)]), 1);
    let psbt = wallet.build_payment(to.clone(), Amount::from_sat(10_000), 250, 1, Amount::ZERO).unwrap();
    assert!(wallet.build_payment(to.clone(), Amount::from_sat(10_000), 250, 1, Amount::ZERO).is_err());
    assert!(wallet.confirmed_coins().is_empty());
    wallet.release(&psbt.unsigned_tx);
    assert_eq!(wallet.confirmed_coins().len(), 1);
    wallet.build_payment(to, Amount::from_sat(10_000), 250, 1, Amount::ZERO).unwrap();
}

#[test]
fn a_reorganisation_takes_back_what_it_took() {
    let kv = Arc::new(Memory::default());
    let wallet = open(&kv);
    let to = wallet.new_address().script_pubkey();
    let genesis = wallet.best_block();
    let stale = block(genesis.block_hash, 1, vec![pay(to.clone(), 50_000, 1)]);
    wallet.block_connected(&stale, 1);
    wallet.blocks_disconnected(genesis);
    let better = block(genesis.block_hash, 2, vec![pay(to, 7_000, 2)]);
    wallet.block_connected(&better, 1);
    wallet.block_connected(&block(better.block_hash(), 3, vec![]), 2);
    assert_eq!(wallet.balance().confirmed_sat, 7_000);
    assert_eq!(wallet.best_block().height, 2);
}

#[test]
fn another_signers_wallet_is_refused() {
    let kv = Arc::new(Memory::default());
    open(&kv);
    let loaded = kv.0.lock().unwrap().clone();
    let birthday = BestBlock::from_network(Network::Regtest);
    let swapped = Wallet::open(CHANGE, RECEIVE, Network::Regtest, &loaded, birthday, kv.clone());
    assert!(matches!(swapped, Err(WalletError::Load(_))));
}

/// What a block pays its miner.
fn mined(script: ScriptBuf, sat: u64) -> Transaction {
    let mut tx = pay(script, sat, 0);
    tx.input[0].previous_output = OutPoint::null();
    tx
}

#[test]
fn what_was_mined_too_lately_is_pending_is_no_reserve_and_is_not_spent() {
    const MINED: u64 = 5_000_000_000;
    let wallet = open(&Arc::new(Memory::default()));
    let to = wallet.new_address().script_pubkey();
    let genesis = wallet.best_block().block_hash;
    let mined = mined(to.clone(), MINED);
    let coin = OutPoint { txid: mined.compute_txid(), vout: 0 };
    let mut last = block(genesis, 1, vec![mined, pay(to.clone(), 50_000, 1)]);
    wallet.block_connected(&last, 1);
    let early = Balance { confirmed_sat: 50_000, pending_sat: MINED, spendable_sat: 50_000 };
    assert_eq!(wallet.balance(), early);
    assert_eq!(wallet.confirmed_coins().len(), 1, "no fee is paid with it either");

    let send = |sat, coins: &[OutPoint], reserve, height| {
        let pays = Pays::Amount(to.clone(), Amount::from_sat(sat));
        let feerate = FeeRate::from_sat_per_vb(1).unwrap();
        wallet.build_spend(&Spend { pays, coins: coins.to_vec(), feerate, reserve: Amount::from_sat(reserve), height })
    };
    let elsewhere = ScriptBuf::new_p2wpkh(&WPubkeyHash::from_byte_array([9; 20]));
    let feerate_sat_per_kw = 250;
    let kept = Amount::from_sat(20_000);
    let all_but_change = Amount::from_sat(35_000);
    let refused = wallet.build_payment(elsewhere, all_but_change, feerate_sat_per_kw, 1, kept);
    assert!(matches!(refused, Err(WalletError::Reserve { .. })), "{refused:?}");
    assert!(matches!(send(10_000, &[coin], 0, 1), Err(WalletError::Coin(named, _)) if named == coin));

    for height in 2..=99 {
        last = block(last.block_hash(), height, vec![]);
        wallet.block_connected(&last, height);
        assert_eq!(wallet.balance(), early, "at {height}");
    }
    // The next block, a hundred after its own, may spend it.
    wallet.block_connected(&block(last.block_hash(), 100, vec![]), 100);
    let all = MINED + 50_000;
    assert_eq!(wallet.balance(), Balance { confirmed_sat: all, pending_sat: 0, spendable_sat: all });
    send(MINED - 1_000, &[coin], 20_000, 100).unwrap();
}
