//! A chain of blocks, which may be reorganised, and one mempool that keeps whatever came first.

use std::{
    collections::HashMap,
    mem,
    sync::{Arc, Mutex},
};

use bitcoin::{
    Amount, Block, BlockHash, Network, OutPoint, ScriptBuf, Sequence, Transaction, TxIn, TxMerkleNode, TxOut, Txid,
    Witness, absolute::LockTime, constants::genesis_block, hashes::Hash, relative, transaction::Version,
};
use lightning::chain::{BestBlock, chaininterface::BroadcasterInterface};

pub struct Chain {
    blocks: Vec<Block>,
    mempool: Vec<Transaction>,
    known: HashMap<Txid, Known>,
    spent: HashMap<OutPoint, Txid>,
    faucet: u32,
    /// The parents of the blocks that were undone, by the hash of each.
    undone: HashMap<BlockHash, BestBlock>,
    /// How often the chain was reorganised: what makes the blocks of each branch others.
    branch: u32,
}

struct Known {
    tx: Transaction,
    height: Option<u32>,
}

impl Chain {
    pub fn new() -> Self {
        let blocks = vec![genesis_block(Network::Regtest)];
        let undone = HashMap::new();
        Self { blocks, mempool: vec![], known: HashMap::new(), spent: HashMap::new(), faucet: 0, undone, branch: 0 }
    }

    pub fn height(&self) -> u32 {
        self.blocks.len() as u32 - 1
    }

    pub fn tip(&self) -> BestBlock {
        self.at(self.height())
    }

    fn at(&self, height: u32) -> BestBlock {
        BestBlock::new(self.hash(height), height)
    }

    /// The last block that a node whose tip is `tip` has in common with the chain.
    pub fn fork_point(&self, mut tip: BestBlock) -> BestBlock {
        while tip.height > self.height() || self.hash(tip.height) != tip.block_hash {
            tip = self.undone[&tip.block_hash];
        }
        tip
    }

    pub fn block(&self, height: u32) -> &Block {
        &self.blocks[height as usize]
    }

    pub fn hash(&self, height: u32) -> BlockHash {
        self.block(height).block_hash()
    }

    /// A transaction that pays `value` to `script` out of thin air. It still has to be submitted.
    pub fn fund(&mut self, script: ScriptBuf, value: Amount) -> Transaction {
        self.faucet += 1;
        let input = TxIn {
            previous_output: OutPoint { txid: faucet(), vout: self.faucet },
            script_sig: ScriptBuf::new(),
            sequence: Sequence::MAX,
            witness: Witness::from_slice(&[[1; 64]]),
        };
        let output = vec![TxOut { script_pubkey: script, value }];
        Transaction { version: Version::TWO, lock_time: LockTime::ZERO, input: vec![input], output }
    }

    /// Takes a transaction into the mempool, unless it is final only later or an input is unknown or spent.
    pub fn submit(&mut self, tx: &Transaction) -> bool {
        let txid = tx.compute_txid();
        if self.known.contains_key(&txid) {
            return true;
        }
        if !tx.input.iter().all(|input| self.spendable(tx, input)) {
            return false;
        }
        for input in &tx.input {
            self.spent.insert(input.previous_output, txid);
        }
        self.known.insert(txid, Known { tx: tx.clone(), height: None });
        self.mempool.push(tx.clone());
        true
    }

    fn spendable(&self, tx: &Transaction, input: &TxIn) -> bool {
        let next = self.height() + 1;
        if let LockTime::Blocks(height) = tx.lock_time
            && input.sequence != Sequence::MAX
            && height.to_consensus_u32() >= next
        {
            return false;
        }
        let parent = input.previous_output;
        if self.spent.contains_key(&parent) {
            return false;
        }
        if parent.txid == faucet() {
            return true;
        }
        let Some(known) = self.known.get(&parent.txid) else { return false };
        match input.sequence.to_relative_lock_time() {
            Some(relative::LockTime::Blocks(n)) if n.value() > 0 => {
                known.height.is_some_and(|height| height + u32::from(n.value()) <= next)
            }
            _ => true,
        }
    }

    /// Puts the whole mempool into a block.
    pub fn mine(&mut self) {
        self.mine_some(|| true);
    }

    /// Takes everything out of the mempool, as if it had never been sent.
    pub fn withhold(&mut self) -> Vec<Transaction> {
        let withheld = mem::take(&mut self.mempool);
        for tx in &withheld {
            self.known.remove(&tx.compute_txid());
            for input in &tx.input {
                self.spent.remove(&input.previous_output);
            }
        }
        withheld
    }

    /// Undoes the last `depth` blocks, and mines one more in their place. What was in them finds its way into the new ones, sooner
    /// or later, as `take` says; none of it is replaced by something else.
    pub fn reorganise(&mut self, depth: u32, mut take: impl FnMut() -> bool) {
        let kept = self.height() - depth;
        for height in kept + 1..=self.height() {
            self.undone.insert(self.hash(height), self.at(height - 1));
        }
        let undone: Vec<_> = self.blocks.drain(kept as usize + 1..).flat_map(|block| block.txdata).collect();
        for tx in &undone {
            if let Some(known) = self.known.get_mut(&tx.compute_txid()) {
                known.height = None;
            }
        }
        // Parents first, as before.
        let later = mem::replace(&mut self.mempool, undone);
        self.mempool.extend(later);
        self.branch += 1;
        (0..=depth).for_each(|_| self.mine_some(&mut take));
    }

    /// Whether a transaction may be in the next block: its parents are in one, and its locktimes are over.
    fn minable(&self, tx: &Transaction, next: u32) -> bool {
        let locked = |input: &TxIn| match tx.lock_time {
            LockTime::Blocks(height) => input.sequence != Sequence::MAX && height.to_consensus_u32() >= next,
            LockTime::Seconds(_) => false,
        };
        tx.input.iter().all(|input| {
            let parent = input.previous_output.txid;
            let waits = match input.sequence.to_relative_lock_time() {
                Some(relative::LockTime::Blocks(blocks)) => u32::from(blocks.value()),
                _ => 0,
            };
            let height =
                if parent == faucet() { Some(0) } else { self.known.get(&parent).and_then(|known| known.height) };
            !locked(input) && height.is_some_and(|height| height + waits <= next)
        })
    }

    fn mine_some(&mut self, mut take: impl FnMut() -> bool) {
        let height = self.height() + 1;
        let mut block = genesis_block(Network::Regtest);
        block.header.prev_blockhash = self.hash(self.height());
        block.header.time = 1_700_000_000 + height * 600;
        block.header.nonce = self.branch;
        block.header.merkle_root = TxMerkleNode::all_zeros();
        block.txdata.clear();
        for tx in mem::take(&mut self.mempool) {
            if self.minable(&tx, height) && take() {
                if let Some(known) = self.known.get_mut(&tx.compute_txid()) {
                    known.height = Some(height);
                }
                block.txdata.push(tx);
            } else {
                self.mempool.push(tx);
            }
        }
        self.blocks.push(block);
    }

    /// Whether a transaction is in the mempool or a block.
    pub fn knows(&self, txid: &Txid) -> bool {
        self.known.contains_key(txid)
    }

    pub fn height_of(&self, txid: &Txid) -> Option<u32> {
        self.known.get(txid).and_then(|known| known.height)
    }

    pub fn spender(&self, outpoint: &OutPoint) -> Option<&Transaction> {
        self.spent.get(outpoint).map(|txid| &self.known[txid].tx)
    }
}

fn faucet() -> Txid {
    Txid::from_byte_array([0xfa; 32])
}

/// A broadcaster that does not wait for anything.
pub struct Direct(pub Arc<Mutex<Chain>>);

impl BroadcasterInterface for Direct {
    fn broadcast_transactions(&self, transactions: &[&Transaction]) {
        let mut chain = self.0.lock().unwrap();
        for tx in transactions {
            chain.submit(tx);
        }
    }
}
