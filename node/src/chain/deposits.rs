//! Coins that are sent to addresses of ours, from the first sight of them to the depth at which they count as confirmed.
//!
//! Plain state, no IO: transactions and blocks go in, and what changed comes out. The rows of the last commit are the state
//! to go on from, since each change is committed with the wallet's.

use std::collections::{BTreeMap, HashMap, btree_map::Entry};

use bitcoin::{Block, BlockHash, OutPoint, Script, Transaction, Txid, constants::COINBASE_MATURITY};

use crate::store::batch::{Deposit, Standing};

/// How many blocks a deposit is looked after once nothing more is expected of it. A reorganisation that goes deeper takes
/// it back from the wallet without a word here.
pub const LOOKED_AFTER: u32 = 288;

/// The deposits that may still change.
pub struct Deposits {
    depth: u32,
    open: BTreeMap<OutPoint, Open>,
}

struct Open {
    deposit: Deposit,
    /// What its transaction spends: by that it is known to be gone for good.
    spends: Vec<OutPoint>,
}

impl Open {
    fn stands(&mut self, standing: Standing, block: Option<(u32, BlockHash)>, confirmations: u32) -> Deposit {
        (self.deposit.standing, self.deposit.block, self.deposit.confirmations) = (standing, block, confirmations);
        self.deposit.clone()
    }

    /// What a block pays its miner cannot be spent before that, whoever relies on it sooner.
    fn depth(&self, depth: u32) -> u32 {
        if self.spends.iter().any(OutPoint::is_null) { depth.max(COINBASE_MATURITY) } else { depth }
    }
}

impl Deposits {
    /// A deposit is confirmed when so many blocks hold it, its own included.
    pub fn new(depth: u32) -> Self {
        Self { depth, open: BTreeMap::new() }
    }

    /// Goes on from what was committed. `transaction` is what the wallet knows.
    pub fn load(depth: u32, committed: Vec<Deposit>, transaction: impl Fn(Txid) -> Option<Transaction>) -> Self {
        let open = committed.into_iter().map(|deposit| {
            let spends = transaction(deposit.outpoint.txid).as_ref().map(spends).unwrap_or_default();
            (deposit.outpoint, Open { deposit, spends })
        });
        Self { depth, open: open.collect() }
    }

    /// A transaction that is in no block. `address` gives an address of ours for its script.
    pub fn saw(&mut self, tx: &Transaction, address: impl Fn(&Script) -> Option<String>) -> Vec<Deposit> {
        let mut changed = Vec::new();
        for (outpoint, new) in ours(tx, address) {
            match self.open.entry(outpoint) {
                Entry::Vacant(vacant) => changed.push(vacant.insert(new).deposit.clone()),
                // Of one that was seen by a leader before, and that the wallet does not have, this is not known.
                Entry::Occupied(mut known) => known.get_mut().spends = new.spends,
            }
        }
        changed
    }

    /// The next block of the best chain, which takes the place of those that stood there before.
    pub fn connected(
        &mut self,
        block: &Block,
        height: u32,
        address: impl Fn(&Script) -> Option<String>,
    ) -> Vec<Deposit> {
        let at = (height, block.block_hash());
        let mut changed = Vec::new();
        for open in self.open.values_mut() {
            if open.deposit.block.is_some_and(|other| other.0 >= height && other != at) {
                changed.push(open.stands(Standing::Unconfirmed, None, 0));
            }
        }
        self.mined(block, at, height, address, &mut changed);
        self.open.retain(|_, open| {
            let is_over = matches!(open.deposit.standing, Standing::Confirmed | Standing::Gone);
            !is_over || open.deposit.block.is_none_or(|(at, _)| at + LOOKED_AFTER > height)
        });
        changed
    }

    /// A block of the chain that is looked at once more, when the chain is at `tip`.
    pub fn scanned(
        &mut self,
        block: &Block,
        height: u32,
        tip: u32,
        address: impl Fn(&Script) -> Option<String>,
    ) -> Vec<Deposit> {
        let mut changed = Vec::new();
        self.mined(block, (height, block.block_hash()), tip, address, &mut changed);
        changed
    }

    fn mined(
        &mut self,
        block: &Block,
        at: (u32, BlockHash),
        tip: u32,
        address: impl Fn(&Script) -> Option<String>,
        changed: &mut Vec<Deposit>,
    ) {
        let mut awaited: HashMap<OutPoint, Vec<OutPoint>> = HashMap::new();
        for (outpoint, open) in &self.open {
            if open.deposit.standing == Standing::Unconfirmed {
                open.spends.iter().for_each(|spent| awaited.entry(*spent).or_default().push(*outpoint));
            }
        }
        let confirmations = (tip + 1).saturating_sub(at.0);
        for tx in &block.txdata {
            for (outpoint, new) in ours(tx, &address) {
                let open = self.open.entry(outpoint).or_insert(new);
                if open.deposit.block != Some(at) {
                    changed.push(open.stands(Standing::Mined, Some(at), confirmations));
                }
            }
            for waiting in tx.input.iter().filter_map(|input| awaited.get(&input.previous_output)).flatten() {
                // What this transaction itself pays us is in the block by now.
                if let Some(open) = self.open.get_mut(waiting)
                    && open.deposit.standing == Standing::Unconfirmed
                {
                    changed.push(open.stands(Standing::Gone, Some(at), 0));
                }
            }
        }
        for open in self.open.values_mut() {
            let Some(block) = open.deposit.block.filter(|_| open.deposit.standing == Standing::Mined) else { continue };
            let confirmations = (tip + 1).saturating_sub(block.0);
            if confirmations >= open.depth(self.depth) {
                changed.push(open.stands(Standing::Confirmed, Some(block), confirmations));
            }
        }
    }
}

fn spends(tx: &Transaction) -> Vec<OutPoint> {
    tx.input.iter().map(|input| input.previous_output).collect()
}

/// What a transaction pays us, as not yet in a block.
fn ours(tx: &Transaction, address: impl Fn(&Script) -> Option<String>) -> Vec<(OutPoint, Open)> {
    let paid = (0..).zip(&tx.output);
    let mine: Vec<_> =
        paid.filter_map(|(vout, output)| Some((vout, output, address(&output.script_pubkey)?))).collect();
    if mine.is_empty() {
        // Nearly every transaction of a block: its hash is nobody's business.
        return Vec::new();
    }
    let txid = tx.compute_txid();
    let open = mine.into_iter().map(|(vout, output, address)| {
        let outpoint = OutPoint { txid, vout };
        let deposit = Deposit {
            outpoint,
            address,
            amount_sat: output.value.to_sat(),
            label: None,
            standing: Standing::Unconfirmed,
            block: None,
            confirmations: 0,
        };
        (outpoint, Open { deposit, spends: spends(tx) })
    });
    open.collect()
}

#[cfg(test)]
mod tests {
    use bitcoin::{Network, ScriptBuf, WPubkeyHash, constants::genesis_block, hashes::Hash};

    use super::{
        super::wallet::tests::{block, pay},
        Standing::*,
        *,
    };

    fn our_script() -> ScriptBuf {
        ScriptBuf::new_p2wpkh(&WPubkeyHash::from_byte_array([5; 20]))
    }

    fn address(script: &Script) -> Option<String> {
        (*script == *our_script()).then(|| "ours".into())
    }

    /// A chain that can fork, and what is told as it goes.
    struct Chain {
        deposits: Deposits,
        blocks: Vec<Block>,
        salt: u32,
    }

    impl Chain {
        fn new(depth: u32) -> Self {
            Self { deposits: Deposits::new(depth), blocks: vec![genesis_block(Network::Regtest)], salt: 0 }
        }

        fn mine(&mut self, txs: Vec<Transaction>) -> Vec<(u8, Standing, u32)> {
            self.salt += 1;
            let block = block(self.blocks.last().unwrap().block_hash(), self.salt, txs);
            let height = self.blocks.len() as u32;
            let told = self.deposits.connected(&block, height, address);
            self.blocks.push(block);
            short(told)
        }

        fn undo(&mut self, blocks: usize) {
            self.blocks.truncate(self.blocks.len() - blocks);
        }

        /// What another leader makes of what this one committed.
        fn takeover(&mut self) {
            let committed = self.deposits.open.values().map(|open| open.deposit.clone()).collect();
            let known: Vec<_> =
                self.deposits.open.values().map(|open| (open.deposit.outpoint, open.spends.clone())).collect();
            let transaction = |txid| {
                let (_, spends) = known.iter().find(|(outpoint, _)| outpoint.txid == txid)?;
                let mut tx = deposit(0);
                tx.input = spends
                    .iter()
                    .map(|spent| bitcoin::TxIn { previous_output: *spent, ..Default::default() })
                    .collect();
                Some(tx)
            };
            self.deposits = Deposits::load(self.deposits.depth, committed, transaction);
        }
    }

    fn deposit(salt: u32) -> Transaction {
        pay(our_script(), u64::from(salt), salt)
    }

    /// By the amount, which is the salt.
    fn short(told: Vec<Deposit>) -> Vec<(u8, Standing, u32)> {
        told.iter().map(|told| (told.amount_sat as u8, told.standing, told.confirmations)).collect()
    }

    #[test]
    fn a_deposit_is_seen_mined_and_confirmed_once_each_whoever_leads() {
        let mut chain = Chain::new(3);
        assert_eq!(short(chain.deposits.saw(&deposit(1), address)), [(1, Unconfirmed, 0)]);
        assert_eq!(chain.deposits.saw(&deposit(1), address), []);
        chain.takeover();
        assert_eq!(chain.mine(vec![deposit(2), deposit(1)]), [(2, Mined, 1), (1, Mined, 1)]);
        chain.takeover();
        // Told of again it is where it was.
        assert_eq!(chain.deposits.saw(&deposit(1), address), []);
        assert_eq!(chain.mine(vec![]), []);
        chain.takeover();
        let mut told = chain.mine(vec![]);
        told.sort();
        assert_eq!(told, [(1, Confirmed, 3), (2, Confirmed, 3)]);
        for _ in 0..LOOKED_AFTER {
            chain.takeover();
            assert_eq!(chain.mine(vec![]), []);
        }
        assert!(chain.deposits.open.is_empty(), "nothing is kept for ever");
    }

    #[test]
    fn one_block_may_be_enough() {
        let mut chain = Chain::new(1);
        assert_eq!(chain.mine(vec![deposit(1)]), [(1, Mined, 1), (1, Confirmed, 1)]);
    }

    #[test]
    fn what_a_block_pays_its_miner_counts_when_it_can_be_spent() {
        let mut chain = Chain::new(1);
        let mut coinbase = deposit(1);
        coinbase.input[0].previous_output = OutPoint::null();
        assert_eq!(chain.mine(vec![coinbase]), [(1, Mined, 1)]);
        for _ in 1..99 {
            assert_eq!(chain.mine(vec![]), []);
        }
        chain.takeover();
        assert_eq!(chain.mine(vec![]), [(1, Confirmed, 100)]);
    }

    #[test]
    fn a_reorganisation_takes_back_what_it_took_and_gives_it_again() {
        let mut chain = Chain::new(2);
        assert_eq!(chain.mine(vec![deposit(1)]), [(1, Mined, 1)]);
        assert_eq!(chain.mine(vec![deposit(2)]), [(2, Mined, 1), (1, Confirmed, 2)]);
        chain.undo(2);
        chain.takeover();
        let mut told = chain.mine(vec![]);
        told.sort();
        assert_eq!(told, [(1, Unconfirmed, 0), (2, Unconfirmed, 0)]);
        chain.takeover();
        assert_eq!(chain.mine(vec![deposit(1)]), [(1, Mined, 1)]);
        assert_eq!(chain.mine(vec![]), [(1, Confirmed, 2)]);
        // In the block that takes the place of its own it is mined once more.
        chain.undo(2);
        assert_eq!(chain.mine(vec![deposit(1)]), [(1, Unconfirmed, 0), (1, Mined, 1)]);
    }

    #[test]
    fn what_another_transaction_has_spent_is_gone_until_that_is_undone() {
        let mut chain = Chain::new(2);
        chain.mine(vec![deposit(1)]);
        chain.undo(1);
        let mut thief = deposit(1);
        thief.output[0].script_pubkey = ScriptBuf::new();
        assert_eq!(chain.mine(vec![]), [(1, Unconfirmed, 0)]);
        chain.takeover();
        assert_eq!(chain.mine(vec![thief]), [(1, Gone, 0)]);
        chain.undo(1);
        chain.takeover();
        assert_eq!(chain.mine(vec![]), [(1, Unconfirmed, 0)]);
        assert_eq!(chain.mine(vec![deposit(1)]), [(1, Mined, 1)]);
    }

    #[test]
    fn what_a_second_look_finds_is_as_deep_as_it_is() {
        let mut chain = Chain::new(2);
        let missed = block(BlockHash::all_zeros(), 9, vec![deposit(1)]);
        let told = short(chain.deposits.scanned(&missed, 5, 10, address));
        assert_eq!(told, [(1, Mined, 6), (1, Confirmed, 6)]);
        assert_eq!(chain.deposits.scanned(&missed, 5, 10, address), []);
    }
}
