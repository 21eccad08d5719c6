//! What the transaction that closed a channel leaves to us, told from the channel's keys alone.

use bitcoin::{
    OutPoint, Script, ScriptBuf, Transaction, TxOut,
    secp256k1::{All, PublicKey, Secp256k1},
};
use holdfast_proto::lightning::CommitmentNumber;
use lightning::{
    chain::transaction::OutPoint as LdkOutPoint,
    ln::{
        chan_utils::{
            ChannelPublicKeys, ChannelTransactionParameters, get_commitment_transaction_number_obscure_factor,
            get_revokeable_redeemscript, get_to_countersigner_keyed_anchor_redeemscript,
        },
        channel_keys::{DelayedPaymentKey, RevocationKey},
    },
    sign::{DelayedPaymentOutputDescriptor, SpendableOutputDescriptor, StaticPaymentOutputDescriptor},
    types::features::ChannelTypeFeatures,
};
use serde::{Deserialize, Serialize};

/// What is known of the channel without any state.
pub struct Channel {
    pub keys_id: [u8; 32],
    pub funding: OutPoint,
    pub capacity_sat: u64,
    /// As the signer derives them.
    pub pubkeys: ChannelPublicKeys,
    /// As the signer's guard has recorded them for this funding output; it may have lost them too.
    pub recorded: Option<ChannelTransactionParameters>,
}

/// How a channel ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Closing {
    Cooperative,
    /// With a commitment. Whose it is shows only if something of ours is in it.
    Commitment,
    /// It was signed with other keys than those that the entry names.
    OtherKeys,
}

/// Whose keys an output of ours takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ours {
    /// The sweeper takes it, not before so many blocks after the transaction's.
    Sweep { descriptor: Box<SpendableOutputDescriptor>, after_blocks: u32 },
    /// It is the wallet's already.
    Wallet,
}

/// Who else than the channel's keys an output may belong to.
pub struct Owners<W, S> {
    pub wallet: W,
    /// The two scripts of LDK's `KeysManager`, which channels of an imported node may close to.
    pub signer: S,
}

/// How `closing`, which spends the channel's funding output, ended the channel, and its outputs that are ours. `point` gives
/// our per-commitment point of a number in LDK's count.
pub fn find<W, S>(
    channel: &Channel,
    closing: &Transaction,
    owners: &Owners<W, S>,
    point: impl FnOnce(u64) -> Option<PublicKey>,
) -> (Closing, Vec<(u32, TxOut, Ours)>)
where
    W: Fn(&ScriptBuf) -> bool,
    S: Fn(&Script) -> bool,
{
    let how = how(channel, closing);
    if how == Closing::OtherKeys {
        return (how, Vec::new());
    }
    let delayed = own_commitment(channel, closing, point);
    let txid = closing.compute_txid();
    let ours = (0..).zip(&closing.output).filter_map(|(vout, output): (u32, &TxOut)| {
        // A funding transaction's outputs are counted in sixteen bits, and a closing one has fewer.
        let outpoint = LdkOutPoint { txid, index: u16::try_from(vout).ok()? };
        let (descriptor, after_blocks) = if let Some(found) = channel.to_remote(outpoint, output) {
            (found, 0)
        } else if let Some(own) = delayed.as_ref().filter(|own| own.script == output.script_pubkey) {
            (channel.to_local(outpoint, output, own)?, own.delay.into())
        } else if (owners.wallet)(&output.script_pubkey) {
            return Some((vout, output.clone(), Ours::Wallet));
        } else if (owners.signer)(&output.script_pubkey) {
            let keys_id = Some(channel.keys_id);
            let output = output.clone();
            (SpendableOutputDescriptor::StaticOutput { outpoint, output, channel_keys_id: keys_id }, 0)
        } else {
            return None;
        };
        Some((vout, output.clone(), Ours::Sweep { descriptor: Box::new(descriptor), after_blocks }))
    });
    (how, ours.collect())
}

/// A channel's output is spent with the script of both funding keys in the witness (BOLT 3), and a commitment hides its
/// number in locktime and sequence.
fn how(channel: &Channel, closing: &Transaction) -> Closing {
    let spends = closing.input.iter().find(|input| input.previous_output == channel.funding);
    let recorded = channel.recorded.as_ref().map(|recorded| recorded.holder_pubkeys.funding_pubkey);
    let keys = [Some(channel.pubkeys.funding_pubkey), recorded];
    let script = spends.and_then(|input| input.witness.last()).unwrap_or_default();
    let is_ours = |key: PublicKey| script.windows(33).any(|bytes| bytes == key.serialize());
    if !keys.into_iter().flatten().any(is_ours) {
        return Closing::OtherKeys;
    }
    match spends.and_then(|input| obscured_number(closing, input.sequence.0)) {
        Some(_) => Closing::Commitment,
        None => Closing::Cooperative,
    }
}

fn obscured_number(tx: &Transaction, sequence: u32) -> Option<u64> {
    let lock_time = tx.lock_time.to_consensus_u32();
    let is_commitment = lock_time >> 24 == 0x20 && sequence >> 24 == 0x80;
    is_commitment.then_some(u64::from(sequence & 0xff_ffff) << 24 | u64::from(lock_time & 0xff_ffff))
}

/// The delayed output of our own commitment: one that we published before everything was lost.
struct Delayed {
    script: ScriptBuf,
    point: PublicKey,
    revocation: RevocationKey,
    delay: u16,
}

fn own_commitment(
    channel: &Channel,
    closing: &Transaction,
    point: impl FnOnce(u64) -> Option<PublicKey>,
) -> Option<Delayed> {
    let recorded = channel.recorded.as_ref()?;
    let theirs = recorded.counterparty_parameters.as_ref()?;
    let spends = closing.input.iter().find(|input| input.previous_output == channel.funding)?;
    let factor = get_commitment_transaction_number_obscure_factor(
        &recorded.holder_pubkeys.payment_point,
        &theirs.pubkeys.payment_point,
        recorded.is_outbound_from_holder,
    );
    let number = obscured_number(closing, spends.sequence.0)? ^ factor;
    let point = point(CommitmentNumber::new("commitment_number", number).ok()?.to_ldk())?;
    let secp: Secp256k1<All> = Secp256k1::new();
    let revocation = RevocationKey::from_basepoint(&secp, &theirs.pubkeys.revocation_basepoint, &point);
    let key = DelayedPaymentKey::from_basepoint(&secp, &recorded.holder_pubkeys.delayed_payment_basepoint, &point);
    let delay = theirs.selected_contest_delay;
    let script = get_revokeable_redeemscript(&revocation, delay, &key).to_p2wsh();
    Some(Delayed { script, point, revocation, delay })
}

impl Channel {
    /// What is ours in the peer's commitment.
    fn to_remote(&self, outpoint: LdkOutPoint, output: &TxOut) -> Option<SpendableOutputDescriptor> {
        // LDK derived the payment key otherwise before 0.2, and a node that was imported may have channels from then.
        let recorded = self.recorded.as_ref().map(|recorded| recorded.holder_pubkeys.payment_point);
        let points = [Some(self.pubkeys.payment_point), recorded];
        let types = [
            ChannelTypeFeatures::anchors_zero_htlc_fee_and_dependencies(),
            ChannelTypeFeatures::only_static_remote_key(),
        ];
        let candidates = points.into_iter().flatten().flat_map(|point| types.iter().map(move |kind| (point, kind)));
        let (point, kind) = candidates.into_iter().find(|(point, kind)| {
            to_remote_script(point, kind.supports_anchors_zero_fee_htlc_tx()) == output.script_pubkey
        })?;
        let parameters = ChannelTransactionParameters {
            holder_pubkeys: ChannelPublicKeys { payment_point: point, ..self.pubkeys.clone() },
            channel_type_features: kind.clone(),
            ..self.parameters()
        };
        Some(SpendableOutputDescriptor::StaticPaymentOutput(StaticPaymentOutputDescriptor {
            outpoint,
            output: output.clone(),
            channel_keys_id: self.keys_id,
            // Its reader insists that both are the same.
            channel_value_satoshis: parameters.channel_value_satoshis,
            channel_transaction_parameters: Some(parameters),
        }))
    }

    fn to_local(&self, outpoint: LdkOutPoint, output: &TxOut, own: &Delayed) -> Option<SpendableOutputDescriptor> {
        let parameters = self.recorded.clone()?;
        Some(SpendableOutputDescriptor::DelayedPaymentOutput(DelayedPaymentOutputDescriptor {
            outpoint,
            per_commitment_point: own.point,
            to_self_delay: own.delay,
            output: output.clone(),
            revocation_pubkey: own.revocation,
            channel_keys_id: self.keys_id,
            channel_value_satoshis: parameters.channel_value_satoshis,
            channel_transaction_parameters: Some(parameters),
        }))
    }

    /// As recorded, or as much of them as a spend of our side of the peer's commitment needs.
    fn parameters(&self) -> ChannelTransactionParameters {
        self.recorded.clone().unwrap_or_else(|| ChannelTransactionParameters {
            holder_pubkeys: self.pubkeys.clone(),
            holder_selected_contest_delay: 0,
            is_outbound_from_holder: false,
            counterparty_parameters: None,
            funding_outpoint: Some(LdkOutPoint {
                txid: self.funding.txid,
                // Parsed with the entry: see `record`.
                index: self.funding.vout as u16,
            }),
            splice_parent_funding_txid: None,
            channel_type_features: ChannelTypeFeatures::only_static_remote_key(),
            channel_value_satoshis: self.capacity_sat,
        })
    }
}

/// Our output of the peer's commitment (BOLT 3, `to_remote`).
fn to_remote_script(payment_point: &PublicKey, anchors: bool) -> ScriptBuf {
    match anchors {
        true => get_to_countersigner_keyed_anchor_redeemscript(payment_point).to_p2wsh(),
        false => ScriptBuf::new_p2wpkh(&bitcoin::CompressedPublicKey(*payment_point).wpubkey_hash()),
    }
}

#[cfg(test)]
mod tests;
