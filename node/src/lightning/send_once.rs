//! Sending coins, once: under an idempotency key what is asked for again is answered with the transaction of the first
//! time, or with the one that has taken its place since, also by another leader.
//!
//! The key is committed in the batch that holds the transaction, so a leader either finds both or neither; see
//! [`super::keyed`].

use std::{str::FromStr, sync::Arc};

use bitcoin::{Amount, OutPoint, ScriptBuf, Transaction, Txid, consensus, hashes::Hash};
use holdfast_proto::{error::Error, node::v1};
use lightning::{chain::chaininterface::BroadcasterInterface, util::persist::KVStoreSync};

use super::{
    keyed::Key,
    labels, limits,
    node::LightningNode,
    wallet_ops::{Promise, Publishing, REPLACED, internal, wallet_error},
};
use crate::chain::spend::{Pays, Spend};

impl LightningNode {
    /// Whoever asked may go away: what has begun is seen through to its commit.
    pub(super) async fn send_once(&self, request: v1::SendCoinsRequest) -> Result<v1::SendCoinsResponse, Error> {
        self.must_run()?;
        let script = self.address(&request.address)?.script_pubkey();
        labels::check(&request.label)?;
        limits::sat("amount_sat", request.amount_sat)?;
        let key = key(&request, &script)?;
        let node = self.this.upgrade().ok_or_else(|| Error::unavailable("this replica no longer leads"))?;
        let turn = key.as_ref().map(|key| key.key.clone());
        self.turns.see_through(turn.as_deref(), sent(node, request, script, key)).await
    }

    /// What was sent under a key before. It is given to the network again, should it not have got there.
    fn sent_before(&self, first: Txid, script: &ScriptBuf) -> Result<v1::SendCoinsResponse, Error> {
        let replacement = |txid: Txid| {
            let by = self.kv.read(REPLACED, "", &txid.to_string()).ok()?;
            String::from_utf8(by).ok()?.parse().ok()
        };
        let txid = standing(first, replacement, |txid| self.wallet.knows(txid));
        let (tx, fee) = self.wallet.sent(txid).ok_or_else(|| {
            Error::Internal(format!("{txid} was sent under this key, and the wallet does not have it"))
        })?;
        if self.wallet.unconfirmed().iter().any(|waiting| waiting.compute_txid() == txid) {
            self.broadcaster.broadcast_transactions(&[&tx]);
        }
        let first_txid = if txid == first { String::new() } else { first.to_string() };
        Ok(v1::SendCoinsResponse { first_txid, ..answer(&tx, fee, script) })
    }
}

/// The transaction that stands now for the one that was sent first. Of several the last, unless a miner took one before it.
fn standing(first: Txid, replacement: impl Fn(Txid) -> Option<Txid>, stands: impl Fn(Txid) -> bool) -> Txid {
    let all: Vec<Txid> = std::iter::successors(Some(first), |txid| replacement(*txid)).collect();
    // If the wallet has none of them, nothing has taken the last one's place either.
    let last = all.last().copied().unwrap_or(first);
    all.into_iter().rev().find(|txid| stands(*txid)).unwrap_or(last)
}

/// What a key stands for: whom to pay and how much.
fn key(request: &v1::SendCoinsRequest, script: &ScriptBuf) -> Result<Option<Key>, Error> {
    let amount = request.amount_sat.map(u64::to_be_bytes);
    // All there is has no bytes, and so is no amount.
    let amount = amount.as_ref().map_or(&[][..], |amount| &amount[..]);
    Key::parse(&request.idempotency_key, &[b"onchain", script.as_bytes(), amount])
}

/// Returns when the transaction is durable.
async fn sent(
    node: Arc<LightningNode>,
    request: v1::SendCoinsRequest,
    script: ScriptBuf,
    key: Option<Key>,
) -> Result<v1::SendCoinsResponse, Error> {
    if let Some(txid) = node.paid_under(key.as_ref()).await? {
        return node.sent_before(Txid::from_byte_array(txid), &script);
    }
    let coin = |text: &String| {
        OutPoint::from_str(text).map_err(|_| Error::misuse("utxos", format!("{text:?} is not txid:vout")))
    };
    let spend = Spend {
        pays: match request.amount_sat {
            Some(amount) => Pays::Amount(script.clone(), Amount::from_sat(amount)),
            None => Pays::Everything(script.clone()),
        },
        coins: request.utxos.iter().map(coin).collect::<Result<_, _>>()?,
        feerate: node.feerate("feerate_sat_per_kvb", request.feerate_sat_per_kvb)?,
        reserve: node.reserve(),
        height: node.manager.current_best_block().height,
    };
    let promise = Promise::new(&node.wallet, node.wallet.build_spend(&spend).map_err(wallet_error)?);
    let fee = promise.psbt.fee().map_err(internal)?;
    let tx = node.signed(&promise, None).await?;
    // A handover may have begun meanwhile.
    node.must_run()?;
    labels::set(&*node.kv, labels::Kind::Transaction, &tx.compute_txid().to_string(), labels::check(&request.label)?)?;
    let drains = request.amount_sat.is_none().then_some(&script);
    node.publish(promise, &tx, Publishing { drains, ..Publishing::default() }, key).await?;
    Ok(answer(&tx, fee, &script))
}

fn answer(tx: &Transaction, fee: Amount, script: &ScriptBuf) -> v1::SendCoinsResponse {
    let paid = tx.output.iter().find(|output| output.script_pubkey == *script).map(|output| output.value);
    v1::SendCoinsResponse {
        txid: tx.compute_txid().to_string(),
        fee_sat: fee.to_sat(),
        amount_sat: paid.unwrap_or_default().to_sat(),
        transaction: consensus::serialize(tx),
        ..Default::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stands_is_the_last_replacement_or_the_one_that_was_mined() {
        let txid = |n: u8| Txid::from_byte_array([n; 32]);
        let replacement = |of: Txid| (of == txid(1)).then(|| txid(2)).or((of == txid(2)).then(|| txid(3)));
        assert_eq!(standing(txid(9), replacement, |_| true), txid(9));
        for stands in [1, 2, 3] {
            assert_eq!(standing(txid(1), replacement, |of| of == txid(stands)), txid(stands));
        }
        assert_eq!(standing(txid(1), replacement, |_| false), txid(3));
    }

    #[test]
    fn a_key_stands_for_whom_and_how_much_and_not_for_what_it_may_cost() {
        let asked = |address: &[u8], amount_sat, change: fn(&mut v1::SendCoinsRequest)| {
            let mut request =
                v1::SendCoinsRequest { amount_sat, idempotency_key: "rent-april".into(), ..Default::default() };
            change(&mut request);
            key(&request, &ScriptBuf::from(address.to_vec())).unwrap().map(|key| key.request)
        };
        let same = |_: &mut v1::SendCoinsRequest| {};
        let first = asked(b"a", Some(5), same);
        assert!(first.is_some());
        let cheaper = |request: &mut v1::SendCoinsRequest| {
            request.feerate_sat_per_kvb = Some(1000);
            request.label = "rent".into();
        };
        assert_eq!(asked(b"a", Some(5), cheaper), first);
        for other in [asked(b"b", Some(5), same), asked(b"a", Some(6), same), asked(b"a", None, same)] {
            assert_ne!(other, first);
        }
        assert_ne!(asked(b"a", None, same), asked(b"a", Some(0), same));
        assert_eq!(asked(b"a", Some(5), |request| request.idempotency_key.clear()), None);
    }
}
