//! What a channel's outputs are claimed with.

use bitcoin::{Amount, Transaction, absolute::LockTime, transaction::Version};
use lightning::{
    ln::{
        chan_utils::{
            get_htlc_redeemscript, get_keyed_anchor_redeemscript, get_revokeable_redeemscript,
            make_funding_redeemscript,
        },
        channel_keys::HtlcKey,
    },
    sign::{ChannelDerivationParameters, ChannelSigner, HTLCDescriptor, SignerProvider, ecdsa::EcdsaChannelSigner},
    types::features::ChannelTypeFeatures,
};

use super::fixture::{Channel, DELAY, FEERATE, PREIMAGE, VALUE, both_types, claim, ldk_number, output_paying};
use crate::signer::{InProcess, keys};

#[test]
fn a_broadcast_commitment_its_htlcs_and_its_anchor_are_signed() {
    both_types(|channel| {
        channel.advance();
        let commitment = channel.holder_commitment(1);
        let (secp, parameters) = (&channel.secp, &channel.parameters);
        let funding_key = parameters.holder_pubkeys.funding_pubkey;
        let signature = channel.remote.sign_holder_commitment(parameters, &commitment, secp).unwrap();
        let trusted = commitment.trust();
        let script = make_funding_redeemscript(&funding_key, &channel.their_parameters.holder_pubkeys.funding_pubkey);
        let sighash = trusted.built_transaction().get_sighash_all(&script, VALUE);
        secp.verify_ecdsa(&sighash, &signature, &funding_key).unwrap();

        for (htlc, counterparty_sig) in commitment.nondust_htlcs().iter().zip(&commitment.counterparty_htlc_sigs) {
            let anchors = parameters.channel_type_features.supports_anchors_zero_fee_htlc_tx();
            let descriptor = HTLCDescriptor {
                channel_derivation_parameters: ChannelDerivationParameters {
                    value_satoshis: VALUE,
                    keys_id: channel.keys_id,
                    transaction_parameters: parameters.clone(),
                },
                commitment_txid: trusted.txid(),
                per_commitment_number: commitment.commitment_number(),
                per_commitment_point: commitment.per_commitment_point(),
                feerate_per_kw: if anchors { 0 } else { FEERATE },
                htlc: htlc.clone(),
                preimage: (!htlc.offered).then_some(PREIMAGE),
                counterparty_sig: *counterparty_sig,
            };
            let second = Transaction {
                version: Version::TWO,
                lock_time: LockTime::from_consensus(if htlc.offered { htlc.cltv_expiry } else { 0 }),
                input: vec![descriptor.unsigned_tx_input()],
                output: vec![descriptor.tx_output(secp)],
            };
            let signature = channel.remote.sign_holder_htlc_transaction(&second, 0, &descriptor, secp).unwrap();
            let basepoint = &parameters.holder_pubkeys.htlc_basepoint;
            let key = HtlcKey::from_basepoint(secp, basepoint, &commitment.per_commitment_point()).to_public_key();
            let script = descriptor.witness_script(secp);
            channel.verify(&second, &script, htlc.to_bitcoin_amount().to_sat(), &signature, key);

            if anchors {
                let script = get_keyed_anchor_redeemscript(&funding_key);
                let (vout, value) = output_paying(&trusted.built_transaction().transaction, &script);
                let bump = claim(trusted.txid(), vout, 0, 0);
                let signature = channel.remote.sign_holder_keyed_anchor_input(parameters, &bump, 0, secp).unwrap();
                channel.verify(&bump, &script, value, &signature, funding_key);
            }
        }
        // P6: what was signed for broadcast is never revoked.
        assert_eq!(channel.remote.release_commitment_secret(ldk_number(1)), Err(()));
    });
}

#[test]
fn htlcs_of_the_counterpartys_commitment_are_claimed() {
    both_types(|channel| {
        channel.advance();
        let (secp, parameters) = (&channel.secp, &channel.parameters);
        let commitment = channel.counterparty_commitment(1);
        let trusted = commitment.trust();
        let point = commitment.per_commitment_point();
        let anchors = parameters.channel_type_features.supports_anchors_zero_fee_htlc_tx();
        for htlc in commitment.nondust_htlcs() {
            let script = get_htlc_redeemscript(htlc, &parameters.channel_type_features, trusted.keys());
            let (vout, value) = output_paying(&trusted.built_transaction().transaction, &script);
            let locktime = if htlc.offered { 0 } else { htlc.cltv_expiry };
            let spend = claim(trusted.txid(), vout, u32::from(anchors), locktime);
            let signature = channel
                .remote
                .sign_counterparty_htlc_transaction(parameters, &spend, 0, value, &point, htlc, secp)
                .unwrap();
            let key = HtlcKey::from_basepoint(secp, &parameters.holder_pubkeys.htlc_basepoint, &point).to_public_key();
            channel.verify(&spend, &script, value, &signature, key);
        }
    });
}

#[test]
fn a_revoked_commitment_is_punished() {
    both_types(|channel| {
        channel.advance();
        // A third state, so that the revoked one has HTLCs.
        channel.validate_holder(2);
        channel.sign_counterparty(2);
        channel.remote.validate_counterparty_revocation(ldk_number(1), &channel.their_secret(1)).unwrap();

        let (secp, parameters) = (&channel.secp, &channel.parameters);
        let secret = channel.their_secret(1);
        let commitment = channel.counterparty_commitment(1);
        let trusted = commitment.trust();
        let keys = trusted.keys();
        let revocation = keys.revocation_key.to_public_key();
        let transaction = &trusted.built_transaction().transaction;

        let script = get_revokeable_redeemscript(&keys.revocation_key, DELAY, &keys.broadcaster_delayed_payment_key);
        let (vout, value) = output_paying(transaction, &script);
        let justice = claim(trusted.txid(), vout, 0xffff_fffd, 0);
        let signature =
            channel.remote.sign_justice_revoked_output(parameters, &justice, 0, value, &secret, secp).unwrap();
        channel.verify(&justice, &script, value, &signature, revocation);

        for htlc in commitment.nondust_htlcs() {
            let script = get_htlc_redeemscript(htlc, &parameters.channel_type_features, keys);
            let (vout, value) = output_paying(transaction, &script);
            let justice = claim(trusted.txid(), vout, 0xffff_fffd, 0);
            let signature =
                channel.remote.sign_justice_revoked_htlc(parameters, &justice, 0, value, &secret, htlc, secp).unwrap();
            channel.verify(&justice, &script, value, &signature, revocation);
        }
    });
}

/// LDK broadcasts a claim that waits again and again, and has it signed each time, by a signer that it derives anew.
#[test]
fn a_claim_that_is_asked_for_again_is_not_signed_again() {
    let signer = InProcess::new();
    let keys = keys(&signer);
    let channel = Channel::new(&keys, 1, ChannelTypeFeatures::only_static_remote_key());
    channel.advance();
    let (secp, parameters) = (&channel.secp, &channel.parameters);
    let ours = channel.holder_commitment(1);
    let theirs = channel.counterparty_commitment(1);
    let (trusted, point) = (theirs.trust(), theirs.per_commitment_point());
    let htlc = theirs.nondust_htlcs().iter().find(|htlc| htlc.offered).unwrap();
    let script = get_htlc_redeemscript(htlc, &parameters.channel_type_features, trusted.keys());
    let (vout, value) = output_paying(&trusted.built_transaction().transaction, &script);
    let claim = claim(trusted.txid(), vout, 0, 0);
    let mut dearer = claim.clone();
    dearer.output[0].value -= Amount::ONE_SAT;
    let sign = || {
        let remote = keys.derive_channel_signer(channel.keys_id);
        let claimed =
            |tx| remote.sign_counterparty_htlc_transaction(parameters, tx, 0, value, &point, htlc, secp).unwrap();
        [remote.sign_holder_commitment(parameters, &ours, secp).unwrap(), claimed(&claim), claimed(&dearer)]
    };
    signer.calls();
    let signatures = sign();
    assert_eq!(signer.calls(), ["sign_holder_commitment", "sign_counterparty_htlc", "sign_counterparty_htlc"]);
    assert_ne!(signatures[1], signatures[2]);
    assert_eq!(sign(), signatures);
    assert!(signer.calls().is_empty());
}
