//! What the counterparty signs of ours: its signatures make a holder commitment worth something.

use bitcoin::{
    EcdsaSighashType,
    secp256k1::{Message, ecdsa::Signature},
    sighash::SighashCache,
};
use holdfast_proto::error::Error;
use lightning::ln::chan_utils::{
    ChannelTransactionParameters, CommitmentTransaction, DirectedChannelTransactionParameters, HTLCOutputInCommitment,
    build_htlc_transaction, get_htlc_redeemscript, make_funding_redeemscript,
};

use super::secp;

/// The signatures on a commitment transaction and, in the order of its outputs, on its HTLCs' second-level ones.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommitmentSignatures {
    pub commitment: Signature,
    pub htlcs: Vec<Signature>,
}

/// Whether the counterparty has signed the holder commitment and each of its HTLCs; if not, says what is wrong.
pub fn verify_holder_commitment(
    parameters: &ChannelTransactionParameters,
    commitment: &CommitmentTransaction,
    signatures: &CommitmentSignatures,
) -> Result<Result<(), String>, Error> {
    let directed = parameters.as_holder_broadcastable();
    let funding_key = directed.countersignatory_pubkeys().funding_pubkey;
    let script = make_funding_redeemscript(&directed.broadcaster_pubkeys().funding_pubkey, &funding_key);
    let trusted = commitment.trust();
    let sighash = trusted.built_transaction().get_sighash_all(&script, parameters.channel_value_satoshis);
    if secp().verify_ecdsa(&sighash, &signatures.commitment, &funding_key).is_err() {
        return Ok(Err("the counterparty's signature on the commitment is not valid".into()));
    }
    let htlcs = commitment.nondust_htlcs();
    if htlcs.len() != signatures.htlcs.len() {
        return Ok(Err(format!("{} HTLC signatures for {} HTLCs", signatures.htlcs.len(), htlcs.len())));
    }
    let htlc_key = trusted.keys().countersignatory_htlc_key.to_public_key();
    for (i, (htlc, signature)) in htlcs.iter().zip(&signatures.htlcs).enumerate() {
        let sighash = second_level_sighash(&directed, commitment, htlc)?;
        if secp().verify_ecdsa(&sighash, signature, &htlc_key).is_err() {
            return Ok(Err(format!("the counterparty's signature on HTLC {i} is not valid")));
        }
    }
    Ok(Ok(()))
}

/// What the party that does not own `commitment` signs for one of its HTLCs.
pub(super) fn second_level_sighash(
    directed: &DirectedChannelTransactionParameters,
    commitment: &CommitmentTransaction,
    htlc: &HTLCOutputInCommitment,
) -> Result<Message, Error> {
    let trusted = commitment.trust();
    let keys = trusted.keys();
    let channel_type = directed.channel_type_features();
    let transaction = build_htlc_transaction(
        &trusted.txid(),
        commitment.negotiated_feerate_per_kw(),
        directed.contest_delay(),
        htlc,
        channel_type,
        &keys.broadcaster_delayed_payment_key,
        &keys.revocation_key,
    );
    let script = get_htlc_redeemscript(htlc, channel_type, keys);
    // BOLT 3: with anchors others may add inputs and outputs, to pay the fee.
    let kind = if channel_type.supports_anchors_zero_fee_htlc_tx() {
        EcdsaSighashType::SinglePlusAnyoneCanPay
    } else {
        EcdsaSighashType::All
    };
    SighashCache::new(&transaction)
        .p2wsh_signature_hash(0, &script, htlc.to_bitcoin_amount(), kind)
        .map(Message::from)
        .map_err(|error| Error::Internal(error.to_string()))
}
