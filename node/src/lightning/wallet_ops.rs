//! What operators do with the on-chain wallet. Every spend is a PSBT that the signer checks and signs, and leaves only
//! after the commit that knows of it (P2).

use std::str::FromStr;

use async_trait::async_trait;
use bdk_wallet::error::CreateTxError;
use bitcoin::{Address, Amount, FeeRate, OutPoint, Psbt, ScriptBuf, Transaction, Txid, hashes::Hash};
use holdfast_proto::{error::Error, node::v1};
use lightning::{chain::chaininterface::BroadcasterInterface, util::persist::KVStoreSync};
use lightning_block_sync::{BlockData, BlockSource};
use tokio::task::block_in_place;

use super::{claimable::left_in, keyed::Key, labels, node::LightningNode};
use crate::{
    chain::{Wallet, bitcoind::Sent, spend::Bump, wallet::WalletError},
    store::Effect,
};

/// The payments that operators ordered, by txid: those may be replaced, since nobody relies on their txid. The value is
/// the script that takes the surplus if all of it does, else empty.
const SENDS: &str = "sends";

/// What took the place of a transaction, by the txid of the one that was replaced.
pub(super) const REPLACED: &str = "replaced";

const BLOCKS_A_CALL: u32 = 144;

impl LightningNode {
    /// What the wallet keeps for the fees of closes: so much for each channel with anchors that is open, or closed and not
    /// yet resolved. One that its peer never funded has nothing to bring home.
    pub(super) fn reserve(&self) -> Amount {
        let open: Vec<_> = self.manager.list_channels().iter().map(|channel| channel.channel_id).collect();
        let needs = |id: &lightning::ln::types::ChannelId| {
            self.monitors.get_monitor(*id).is_ok_and(|monitor| {
                monitor.channel_type_features().requires_anchors_zero_fee_htlc_tx()
                    && (open.contains(id) || !left_in(&monitor).is_empty())
            })
        };
        let channels = self.monitors.list_monitors().iter().filter(|id| needs(id)).count() as u64;
        Amount::from_sat(channels.saturating_mul(self.wallet.reserve_per_channel_sat()))
    }

    /// Has the signer sign, and bitcoind say that it would take it.
    pub(super) async fn signed(
        &self,
        promise: &Promise<'_>,
        parent: Option<&Transaction>,
    ) -> Result<Transaction, Error> {
        let tx = block_in_place(|| self.signing_wallet.sign(promise.psbt.clone()))?;
        let unavailable = |error: std::io::Error| Error::unavailable(format!("bitcoind is away: {error}"));
        if let Some(parent) = parent
            && !self.bitcoind.in_mempool(parent.compute_txid()).await.map_err(unavailable)?
        {
            // Too cheap for a mempool by itself: only the package can be judged, and that by sending it.
            return Ok(tx);
        }
        match self.bitcoind.would_accept(&tx).await.map_err(unavailable)? {
            Sent::Accepted => Ok(tx),
            Sent::Rejected(why) => Err(Error::misuse("transaction", format!("bitcoind would not take it: {why}"))),
        }
    }

    /// Notes a signed transaction, hands it to the network once that is durable, and waits for that.
    pub(super) async fn publish(
        &self,
        promise: Promise<'_>,
        tx: &Transaction,
        how: Publishing<'_>,
        key: Option<Key>,
    ) -> Result<(), Error> {
        let Publishing { parent, replaces, drains } = how;
        promise.keep();
        let txid = tx.compute_txid();
        block_in_place(|| {
            self.queue.with_state(|| {
                if let Some(old) = replaces {
                    self.wallet.replaced(old);
                    self.kv.write(REPLACED, "", &old.to_string(), txid.to_string().into_bytes()).map_err(internal)?;
                }
                self.wallet.saw_unconfirmed(tx);
                if let Some(Key { key, request }) = key {
                    let payment_id = txid.to_byte_array();
                    self.queue.effect(Effect::PaymentKey { key, request, payment_id });
                }
                let drains = drains.map(|script| script.to_bytes()).unwrap_or_default();
                self.kv.write(SENDS, "", &txid.to_string(), drains).map_err(internal)?;
                match parent {
                    Some(parent) => self.broadcaster.broadcast_transactions(&[parent, tx]),
                    None => self.broadcaster.broadcast_transactions(&[tx]),
                }
                Ok::<_, Error>(())
            })
        })?;
        self.committed().await
    }

    pub(super) fn feerate(&self, field: &str, sat_per_kvb: Option<u64>) -> Result<FeeRate, Error> {
        // More would overflow nothing, but is nobody's wish.
        const HIGHEST: u64 = 10_000_000;
        match sat_per_kvb {
            None => Ok(FeeRate::from_sat_per_kwu(self.fees.funding().into())),
            Some(rate @ 100..=HIGHEST) => Ok(FeeRate::from_sat_per_kwu(rate.div_ceil(4))),
            Some(rate) => Err(Error::misuse(
                field,
                format!("{rate} sat/kvB is not between 100 and {HIGHEST} (0.1 to 10000 sat/vB)"),
            )),
        }
    }

    pub(super) fn address(&self, text: &str) -> Result<Address, Error> {
        let bad = |why: String| Error::misuse("address", why);
        let address = Address::from_str(text).map_err(|error| bad(format!("{text:?} is not an address: {error}")))?;
        let network = self.network;
        address.require_network(network).map_err(|_| bad(format!("{text} is not an address of {network}")))
    }
}

#[async_trait]
impl crate::api::WalletOps for LightningNode {
    async fn list_addresses(&self, request: v1::ListAddressesRequest) -> Result<v1::ListAddressesResponse, Error> {
        let given = self.wallet.addresses(request.change).into_iter().map(|given| {
            let address = given.address.to_string();
            v1::WalletAddress {
                label: labels::get(&*self.kv, labels::Kind::Address, &address).unwrap_or_default(),
                address,
                index: given.index,
                is_change: given.is_change,
                is_used: given.is_used,
                received_sat: given.received.to_sat(),
            }
        });
        Ok(v1::ListAddressesResponse { addresses: given.collect(), ..Default::default() })
    }

    async fn list_utxos(&self) -> Result<v1::ListUtxosResponse, Error> {
        let label = |outpoint: &OutPoint| {
            labels::get(&*self.kv, labels::Kind::Output, &outpoint.to_string())
                .or_else(|| labels::get(&*self.kv, labels::Kind::Transaction, &outpoint.txid.to_string()))
        };
        let utxos = self.wallet.coins().into_iter().map(|coin| v1::Utxo {
            outpoint: coin.outpoint.to_string(),
            amount_sat: coin.value.to_sat(),
            address: coin.address.map(|address| address.to_string()).unwrap_or_default(),
            height: coin.height,
            is_change: coin.is_change,
            is_promised: coin.is_promised,
            label: label(&coin.outpoint).unwrap_or_default(),
        });
        Ok(v1::ListUtxosResponse { utxos: utxos.collect(), ..Default::default() })
    }

    async fn send_coins(&self, request: v1::SendCoinsRequest) -> Result<v1::SendCoinsResponse, Error> {
        self.send_once(request).await
    }

    async fn bump_transaction(
        &self,
        request: v1::BumpTransactionRequest,
    ) -> Result<v1::BumpTransactionResponse, Error> {
        self.must_run()?;
        let txid = Txid::from_str(&request.txid).map_err(|_| Error::misuse("txid", "is not 64 hex digits"))?;
        let feerate = self.feerate("feerate_sat_per_kvb", Some(request.feerate_sat_per_kvb))?;
        let sent = self.kv.read(SENDS, "", &txid.to_string()).ok();
        let drains = sent.clone().filter(|script| !script.is_empty()).map(ScriptBuf::from_bytes);
        let bump = self.wallet.build_bump(txid, feerate, self.reserve(), sent.is_some(), drains.as_ref());
        let bump = bump.map_err(wallet_error)?;
        let promise = Promise::new(&self.wallet, bump.psbt().clone());
        let fee = promise.psbt.fee().map_err(internal)?;
        let (parent, replaces, drains) = match &bump {
            Bump::Replacement(_) => (None, Some(txid), drains),
            // What it pays to is its own only output: bumped again it gives of that.
            Bump::Child(psbt) => {
                let own = psbt.unsigned_tx.output.first().map(|output| output.script_pubkey.clone());
                (self.wallet.transaction(txid), None, own)
            }
        };
        let tx = self.signed(&promise, parent.as_ref()).await?;
        let new = tx.compute_txid();
        if let Some(label) = labels::get(&*self.kv, labels::Kind::Transaction, &txid.to_string()) {
            labels::set(&*self.kv, labels::Kind::Transaction, &new.to_string(), &label)?;
        }
        let how = Publishing { parent: parent.as_ref(), replaces, drains: drains.as_ref() };
        self.publish(promise, &tx, how, None).await?;
        tracing::info!(%txid, by = %new, fee_sat = fee.to_sat(), "raised the fee of a transaction");
        Ok(v1::BumpTransactionResponse {
            txid: new.to_string(),
            fee_sat: fee.to_sat(),
            is_replacement: replaces.is_some(),
        })
    }

    async fn set_label(&self, request: v1::SetLabelRequest) -> Result<v1::SetLabelResponse, Error> {
        self.must_run()?;
        let label = labels::check(&request.label)?;
        let (kind, reference) = match (Txid::from_str(&request.reference), OutPoint::from_str(&request.reference)) {
            (Ok(txid), _) => (labels::Kind::Transaction, txid.to_string()),
            (_, Ok(outpoint)) => (labels::Kind::Output, outpoint.to_string()),
            _ => (labels::Kind::Address, self.address(&request.reference)?.to_string()),
        };
        labels::set(&*self.kv, kind, &reference, label)?;
        self.committed().await?;
        Ok(v1::SetLabelResponse {})
    }

    async fn list_labels(&self) -> Result<v1::ListLabelsResponse, Error> {
        let label = |(kind, reference, label): (labels::Kind, String, String)| v1::Label {
            r#type: kind.name().into(),
            reference,
            label,
        };
        let labels = labels::all(&*self.kv).into_iter().map(label).collect();
        Ok(v1::ListLabelsResponse { labels, ..Default::default() })
    }

    async fn descriptors(&self) -> Result<v1::GetDescriptorsResponse, Error> {
        let [receive, change] = self.wallet.descriptors();
        let [next_receive, next_change] = self.wallet.next_indexes();
        Ok(v1::GetDescriptorsResponse { receive, change, next_receive, next_change })
    }

    async fn rescan(&self, request: v1::RescanWalletRequest) -> Result<v1::RescanWalletResponse, Error> {
        self.must_run()?;
        let tip_height = self.wallet.best_block().height;
        let count = if request.blocks == 0 { BLOCKS_A_CALL } else { request.blocks.min(BLOCKS_A_CALL) };
        let end = request.from_height.saturating_add(count).min(tip_height + 1);
        let mut found = Vec::new();
        for height in request.from_height..end {
            let away = |why: String| Error::unavailable(format!("block {height} cannot be had from bitcoind: {why}"));
            let hash = self.bitcoind.block_hash(height).await.map_err(|error| away(error.to_string()))?;
            let block = self
                .bitcoind
                .get_block(&hash)
                .await
                .map_err(|error| away(crate::chain::headers::explain(error).to_string()))?;
            let BlockData::FullBlock(block) = block else { return Err(away("only its header".into())) };
            let scanned = block_in_place(|| self.queue.with_state(|| self.wallet.scan(&block, height)));
            found.extend(scanned.map_err(wallet_error)?.iter().map(Txid::to_string));
        }
        self.committed().await?;
        Ok(v1::RescanWalletResponse { next_height: end.max(request.from_height), tip_height, found })
    }
}

/// What a transaction is to others.
#[derive(Default)]
pub(super) struct Publishing<'a> {
    /// It pays for this one as well.
    pub parent: Option<&'a Transaction>,
    pub replaces: Option<Txid>,
    /// The script that takes the surplus if all of it does.
    pub drains: Option<&'a ScriptBuf>,
}

/// A PSBT whose coins are promised to it until it is given up.
pub(super) struct Promise<'a> {
    wallet: &'a Wallet,
    pub psbt: Psbt,
    kept: bool,
}

impl<'a> Promise<'a> {
    pub fn new(wallet: &'a Wallet, psbt: Psbt) -> Self {
        Self { wallet, psbt, kept: false }
    }

    fn keep(mut self) {
        self.kept = true;
    }
}

impl Drop for Promise<'_> {
    fn drop(&mut self) {
        // Refused, or the caller went away: nobody may wait for these coins.
        if !self.kept {
            self.wallet.release(&self.psbt.unsigned_tx);
        }
    }
}

pub(super) fn wallet_error(error: WalletError) -> Error {
    let field = match &error {
        WalletError::Coin(..) => "utxos",
        WalletError::Bump(..) => "txid",
        WalletError::Reserve { .. } | WalletError::Build(_) => "amount_sat",
        WalletError::Reorganised(_) => return Error::unavailable(error.to_string()),
        _ => return Error::Internal(error.to_string()),
    };
    Error::misuse(field, not_built(&error).unwrap_or_else(|| error.to_string()))
}

/// What BDK says in its own words, in ours.
fn not_built(error: &WalletError) -> Option<String> {
    match error {
        WalletError::Build(CreateTxError::OutputBelowDustLimit(_)) => {
            Some("it is so little that the network would not pass it on (dust)".into())
        }
        WalletError::Build(CreateTxError::CoinSelection(short)) => Some(format!(
            "the coins that may be spent hold {} sat, and {} sat are needed with the fee",
            short.available.to_sat(),
            short.needed.to_sat()
        )),
        _ => None,
    }
}

pub(super) fn internal(error: impl std::fmt::Display) -> Error {
    Error::Internal(error.to_string())
}
