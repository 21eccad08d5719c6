//! Sweeps of what a closed channel left to us.

use bitcoin::{
    Amount, EcdsaSighashType, ScriptBuf, Transaction, Witness,
    hashes::Hash,
    secp256k1::{Message, PublicKey, ecdsa::Signature},
    sighash::SighashCache,
};
use holdfast_proto::{error::Error, lightning::SpendableOutput};
use lightning::ln::{
    chan_utils::{get_revokeable_redeemscript, get_to_countersigner_keyed_anchor_redeemscript},
    channel_keys::DelayedPaymentKey,
};

use super::{NodeKeys, Secret, channel::sign_p2wsh, derive::p2wpkh, sign::sign};

impl NodeKeys {
    /// The witness of the input of `transaction` that spends `output`. The output's script must be one that the keys
    /// named by it give: nothing else is signed.
    pub fn sign_spendable_output(
        &self,
        field: &str,
        output: &SpendableOutput,
        transaction: &Transaction,
    ) -> Result<Witness, Error> {
        let outpoint = output.outpoint().into_bitcoin_outpoint();
        let input = transaction
            .input
            .iter()
            .position(|input| input.previous_output == outpoint)
            .ok_or_else(|| Error::misuse(format!("{field}.outpoint"), "no input of the transaction spends it"))?;
        let not_ours = || Error::misuse(format!("{field}.output.script_pubkey"), "is not a script of ours");

        match output {
            SpendableOutput::Static { output, .. } => {
                let key = self.static_output_key(&output.script_pubkey).ok_or_else(not_ours)?;
                sign_p2wpkh(transaction, input, output.value, &key)
            }
            SpendableOutput::StaticPayment { channel_keys_id, output, channel_type, .. } => {
                let channel = self.channel(channel_keys_id);
                let anchors = channel_type.supports_anchors_zero_fee_htlc_tx();
                let script = |key: &PublicKey| get_to_countersigner_keyed_anchor_redeemscript(key);
                let script_pubkey = |key: &PublicKey| if anchors { script(key).to_p2wsh() } else { p2wpkh(key) };
                let key = channel
                    .payment_keys()
                    .into_iter()
                    .find(|key| script_pubkey(&key.public_key()) == output.script_pubkey)
                    .ok_or_else(not_ours)?;
                if !anchors {
                    return sign_p2wpkh(transaction, input, output.value, &key);
                }
                let script = script(&key.public_key());
                let signature = sign_p2wsh(transaction, input, &script, output.value, &key)?;
                Ok(Witness::from_slice(&[der(&signature), script.into_bytes()]))
            }
            SpendableOutput::DelayedPayment {
                channel_keys_id,
                output,
                per_commitment_point,
                to_self_delay,
                revocation_pubkey,
                ..
            } => {
                let key = self.channel(channel_keys_id).delayed_payment_key(per_commitment_point);
                let delayed = DelayedPaymentKey(key.public_key());
                let script = get_revokeable_redeemscript(revocation_pubkey, *to_self_delay, &delayed);
                if script.to_p2wsh() != output.script_pubkey {
                    return Err(not_ours());
                }
                if transaction.input[input].sequence.0 != u32::from(*to_self_delay) {
                    return Err(Error::misuse(format!("{field}.to_self_delay"), "is not the input's sequence"));
                }
                let signature = sign_p2wsh(transaction, input, &script, output.value, &key)?;
                // The empty element takes the branch that is not the revocation's (MINIMALIF).
                Ok(Witness::from_slice(&[der(&signature), vec![], script.into_bytes()]))
            }
        }
    }
}

fn sign_p2wpkh(transaction: &Transaction, input: usize, value: Amount, key: &Secret) -> Result<Witness, Error> {
    let public = key.public_key();
    let script: ScriptBuf = p2wpkh(&public);
    let sighash = SighashCache::new(transaction)
        .p2wpkh_signature_hash(input, &script, value, EcdsaSighashType::All)
        .map_err(|error| Error::misuse("transaction", error.to_string()))?;
    let signature = sign(&Message::from_digest(sighash.to_byte_array()), key, &public)?;
    Ok(Witness::from_slice(&[der(&signature), public.serialize().to_vec()]))
}

fn der(signature: &Signature) -> Vec<u8> {
    bitcoin::ecdsa::Signature::sighash_all(*signature).serialize().to_vec()
}
