//! What tests of closed channels need: HTLCs that stay in flight, and a ledger of what happened on chain.

use std::collections::{HashMap, HashSet};

use anyhow::{Context, Result, ensure};
use bitcoin::{OutPoint, Transaction, TxOut, Txid, hashes::Hash};
use holdfast_local::{Bitcoind, Counterparty, Deployment, Probe, operator::Client};
use holdfast_proto::node::v1;
use ldk_node::lightning_types::payment::{PaymentHash, PaymentPreimage};

use crate::{PROMPT, Scene};

/// A payment that its receiver holds.
#[derive(Clone, Copy, Debug)]
pub struct Held {
    pub preimage: PaymentPreimage,
    pub hash: PaymentHash,
    pub amount_sat: u64,
}

impl Scene {
    /// `from` pays `to`, which neither claims nor fails.
    pub async fn hold(&self, from: &Counterparty, to: &Counterparty, amount_sat: u64) -> Result<Held> {
        let held = Held::new(amount_sat)?;
        let invoice = to.hold_invoice(amount_sat * 1000, held.hash).await?;
        from.pay(&invoice).await?;
        self.held_by(to, held).await
    }

    /// We pay `to`, which neither claims nor fails.
    pub async fn hold_ours(&self, to: &Counterparty, amount_sat: u64) -> Result<Held> {
        let held = Held::new(amount_sat)?;
        let invoice = to.hold_invoice(amount_sat * 1000, held.hash).await?;
        let (_, mut client) = self.leader().await?;
        let request = v1::PayInvoiceRequest { invoice, wait_ms: 1, ..Default::default() };
        self.explain(client.pay_invoice(request).await.map_err(Into::into))?;
        self.held_by(to, held).await
    }

    async fn held_by(&self, to: &Counterparty, held: Held) -> Result<Held> {
        let arrived = async || Ok(Probe::when(to.holds(held.hash), (), || format!("{:?}", to.events().last())));
        self.wait_for("a payment to be held", PROMPT, arrived).await?;
        Ok(held)
    }

    /// Waits until so many HTLCs are committed to in each of our channels.
    pub async fn in_flight(&self, htlcs: u32) -> Result<()> {
        let committed = async || {
            let channels = self.channels().await?;
            let pending: Vec<u32> = channels.iter().map(|channel| channel.pending_htlcs).collect();
            Ok(Probe::when(pending.iter().all(|pending| *pending == htlcs), (), || format!("{pending:?}")))
        };
        self.wait_for("HTLCs in flight", PROMPT, committed).await
    }

    pub async fn utxos(&self) -> Result<Vec<v1::Utxo>> {
        let ask = async |mut client: Client| client.list_utxos(v1::ListUtxosRequest::default()).await;
        Ok(self.explain(self.operator().ask("our coins", PROMPT, ask).await)?.utxos)
    }

    /// The channel of ours with `peer`.
    pub async fn channel_with(&self, peer: &Counterparty) -> Result<v1::Channel> {
        let peer = peer.node_id().to_string();
        let channels = self.channels().await?;
        channels.into_iter().find(|channel| channel.counterparty == peer).context("a channel with the peer")
    }

    /// Closes by force from our side. The answer comes after the commit.
    pub async fn force_close(&self, channel: &v1::Channel) -> Result<()> {
        let (_, mut client) = self.leader().await?;
        let channel_id = channel.channel_id.clone();
        let request = v1::CloseChannelRequest { channel_id, force: true, ..Default::default() };
        self.explain(client.close_channel(request).await.map_err(Into::into))?;
        Ok(())
    }

    /// Waits for a transaction in the mempool that spends `outpoint`, and gives it.
    pub async fn unconfirmed_spender(&self, what: &str, outpoint: OutPoint) -> Result<Transaction> {
        let spender = async || {
            let mempool = mempool(self.bitcoind()).await?;
            let found = mempool.iter().find(|tx| tx.input.iter().any(|input| input.previous_output == outpoint));
            Ok(match found {
                Some(tx) => Probe::Ready(tx.clone()),
                None => Probe::Waiting(format!("{} others", mempool.len())),
            })
        };
        self.wait_for(what, PROMPT, spender).await
    }

    /// Kills the leader (`kill -9`), waits until another one leads, and starts the killed one again.
    pub async fn take_over(&self) -> Result<()> {
        let (leader, _) = self.leader().await?;
        leader.kill()?;
        self.leader().await?;
        self.explain(leader.start().await)
    }

    /// Mines one block after another, `step` at a time, until nothing of ours is on its way and `enough` says so.
    pub async fn until_home(&self, step: u32, enough: impl Fn(&v1::GetBalanceResponse) -> bool) -> Result<()> {
        let home = async || {
            self.mine(step).await?;
            let balance = self.balance().await?;
            let home = balance.closing_sat == 0 && balance.onchain_pending_sat == 0 && enough(&balance);
            Ok(Probe::when(home, (), || format!("{balance:?}")))
        };
        self.wait_for("our coins to be in the wallet", PROMPT * 3, home).await
    }
}

impl Held {
    fn new(amount_sat: u64) -> Result<Self> {
        let mut preimage = [0; 32];
        getrandom::fill(&mut preimage)?;
        let preimage = PaymentPreimage(preimage);
        let hash = bitcoin::hashes::sha256::Hash::hash(&preimage.0).to_byte_array();
        Ok(Self { preimage, hash: PaymentHash(hash), amount_sat })
    }
}

pub async fn mempool(bitcoind: &Bitcoind) -> Result<Vec<Transaction>> {
    let mut all = Vec::new();
    for txid in bitcoind.mempool().await? {
        // It may be confirmed or replaced since it was listed.
        if let Ok(tx) = bitcoind.unconfirmed(txid).await {
            all.push(tx);
        }
    }
    Ok(all)
}

pub fn outpoint(text: &str) -> Result<OutPoint> {
    text.parse().with_context(|| format!("{text:?} is not an outpoint"))
}

/// Every transaction of the best chain, and which of them are ours.
pub struct Ledger {
    transactions: HashMap<Txid, (u32, Transaction)>,
    spenders: HashMap<OutPoint, Txid>,
    ours: HashSet<Txid>,
}

impl Ledger {
    /// What made our coins after block `since` is ours, and so is what those transactions spent: second-level
    /// transactions, parents of a change. Commitments are nobody's; `theirs` are second-level transactions of a peer.
    pub async fn read(
        deployment: &Deployment,
        commitments: &[&Transaction],
        theirs: &[&Transaction],
        coins: &[v1::Utxo],
        since: u32,
    ) -> Result<Self> {
        let bitcoind = deployment.bitcoind();
        let mut ledger = Self { transactions: HashMap::new(), spenders: HashMap::new(), ours: HashSet::new() };
        for height in 1..=bitcoind.height().await? {
            for tx in bitcoind.block(height).await?.txdata {
                let txid = tx.compute_txid();
                ledger.spenders.extend(tx.input.iter().map(|input| (input.previous_output, txid)));
                ledger.transactions.insert(txid, (height, tx));
            }
        }
        let others: HashSet<Txid> = commitments.iter().chain(theirs).map(|tx| tx.compute_txid()).collect();
        let unconfirmed: Vec<_> = coins.iter().filter(|coin| coin.height.is_none()).collect();
        ensure!(unconfirmed.is_empty(), "unconfirmed coins of ours: {unconfirmed:?}");
        let mut ahead = coins.iter().map(|coin| Ok(outpoint(&coin.outpoint)?.txid)).collect::<Result<Vec<_>>>()?;
        while let Some(txid) = ahead.pop() {
            let (height, tx) = ledger.transactions.get(&txid).context("one of our coins is on no block")?;
            if *height > since && !others.contains(&txid) && ledger.ours.insert(txid) {
                ahead.extend(tx.input.iter().map(|input| input.previous_output.txid));
            }
        }
        Ok(ledger)
    }

    /// The transaction that spent an output, and whether it is ours.
    pub fn spender(&self, outpoint: OutPoint) -> Option<(&Transaction, bool)> {
        let txid = self.spenders.get(&outpoint)?;
        Some((&self.transactions[txid].1, self.ours.contains(txid)))
    }

    /// What our transactions paid to miners, in satoshi.
    pub fn our_fees(&self) -> Result<u64> {
        self.ours.iter().map(|txid| self.fee(&self.transactions[txid].1)).sum()
    }

    pub fn fee(&self, tx: &Transaction) -> Result<u64> {
        let value = |outpoint: &OutPoint| -> Result<u64> {
            let (_, from) = self.transactions.get(&outpoint.txid).context("an input from before the chain")?;
            Ok(from.output[outpoint.vout as usize].value.to_sat())
        };
        let spent: u64 = tx.input.iter().map(|input| value(&input.previous_output)).sum::<Result<u64>>()?;
        let made: u64 = tx.output.iter().map(|output| output.value.to_sat()).sum();
        ensure!(spent >= made, "a transaction makes money");
        Ok(spent - made)
    }

    /// The outputs of a commitment, and who took them: we (`Some(true)`), another (`Some(false)`), or nobody.
    pub fn outputs(&self, commitment: &Transaction) -> Vec<(TxOut, Option<bool>)> {
        let txid = commitment.compute_txid();
        let taken = |vout| self.spender(OutPoint { txid, vout }).map(|(_, ours)| ours);
        (0..).zip(&commitment.output).map(|(vout, output)| (output.clone(), taken(vout))).collect()
    }
}

/// The value of an anchor (BOLT 3).
pub const ANCHOR_SAT: u64 = 330;
