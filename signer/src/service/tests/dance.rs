//! A channel's life between two signers, and the questions asked twice.

use bitcoin::{
    consensus,
    secp256k1::{Message, ecdsa::Signature},
};
use holdfast_proto::lightning::parse;
use lightning::ln::chan_utils::{
    HTLCOutputInCommitment, build_htlc_transaction, get_htlc_redeemscript, make_funding_redeemscript,
};
use lightning::types::payment::PaymentHash;

use super::*;

#[test]
fn a_channel_lives_and_the_signatures_of_one_side_are_valid_to_the_other() {
    for channel_type in TYPES {
        let pair = Pair::open(channel_type);
        pair.round(1, 900_000, &[]);
        pair.round(2, 800_000, &[htlc(true, 60_000, 1), htlc(true, 40_000, 2)]);
        pair.round(3, 800_000, &[htlc(true, 40_000, 2), htlc(false, 30_000, 3), htlc(true, 40_000, 4)]);
        for number in 4..30 {
            pair.round(number, 800_000 - number, &[]);
        }
        let expected = v1::GetChannelStateResponse {
            known: true,
            counterparty_number: Some(29),
            counterparty_revoked: Some(28),
            holder_number: Some(29),
            holder_revoked: Some(28),
            holder_signed: None,
            close_signed: false,
            fundings: vec![],
        };
        assert_eq!((pair.opener.state(), pair.acceptor.state()), (expected.clone(), expected));
    }
}

#[test]
fn p5_the_same_question_gets_the_same_bytes_across_restarts_and_another_is_refused() {
    for channel_type in TYPES {
        let mut pair = Pair::open(channel_type);
        let htlcs = [htlc(true, 60_000, 1), htlc(false, 40_000, 2)];
        let theirs = pair.acceptor.commitment(1, 0, &htlcs);
        let first = pair.opener.sign(theirs.clone()).unwrap();
        for _ in 0..3 {
            pair.opener.restart();
            assert_eq!(pair.opener.sign(theirs.clone()).unwrap(), first);
        }
        // The order in which the HTLCs are listed says nothing; everything else does.
        let mut listed_otherwise = theirs.clone();
        listed_otherwise.htlcs.reverse();
        assert_eq!(pair.opener.sign(listed_otherwise).unwrap(), first);
        let other = |change: &dyn Fn(&mut v1::Commitment)| {
            let mut other = theirs.clone();
            change(&mut other);
            refused(pair.opener.sign(other))
        };
        assert_eq!(other(&|c| c.to_broadcaster_sat += 1), "commitment-repeat");
        assert_eq!(other(&|c| c.feerate_sat_per_kw += 1), "commitment-repeat");
        assert_eq!(other(&|c| c.htlcs[0].amount_msat += 1), "commitment-repeat");
        assert_eq!(other(&|c| c.htlcs[0].cltv_expiry += 1), "commitment-repeat");
        assert_eq!(other(&|c| drop(c.htlcs.pop())), "commitment-repeat");
        assert_eq!(other(&|c| c.per_commitment_point = pair.acceptor.point(9)), "commitment-number");

        pair.acceptor.validate(theirs.clone(), first.clone()).unwrap();
        pair.acceptor.validate(theirs.clone(), first).unwrap();
        let secret = pair.acceptor.release(0).unwrap();
        pair.acceptor.restart();
        assert_eq!(pair.acceptor.release(0).unwrap(), secret);
        pair.opener.hear(0, secret.clone()).unwrap();
        pair.opener.restart();
        pair.opener.hear(0, secret).unwrap();

        let broadcast = pair.acceptor.sign_holder(theirs.clone()).unwrap();
        pair.acceptor.restart();
        assert_eq!(pair.acceptor.sign_holder(theirs).unwrap(), broadcast);
    }
}

#[test]
fn p6_what_was_signed_for_broadcast_is_never_revoked_and_what_was_revoked_never_signed() {
    let mut pair = Pair::open(v1::ChannelType::AnchorsZeroFeeHtlc);
    pair.round(1, 900_000, &[]);
    let opener = &pair.opener;
    assert_eq!(refused(opener.sign_holder(opener.commitment(0, 900_000, &[]))), "holder-revoked");
    let current = opener.commitment(1, 900_000, &[]);
    assert_eq!(refused(opener.sign_holder(opener.commitment(1, 900_001, &[]))), "holder-countersigned");
    let signature = opener.sign_holder(current.clone()).unwrap();

    let transaction = build(&pair.parameters, &current);
    let script = make_funding_redeemscript(
        &pair.parameters.holder_pubkeys.funding_pubkey,
        &pair.parameters.counterparty_pubkeys().unwrap().funding_pubkey,
    );
    let sighash = transaction.trust().built_transaction().get_sighash_all(&script, CHANNEL_SAT);
    let signature = parse::signature("signature", &signature).unwrap();
    secp().verify_ecdsa(&sighash, &signature, &pair.parameters.holder_pubkeys.funding_pubkey).unwrap();

    // The peer signs on, and the replica (of an old backup, say) wants to revoke what is already on its way.
    let next = pair.opener.commitment(2, 800_000, &[]);
    pair.opener.validate(next.clone(), pair.acceptor.sign(next).unwrap()).unwrap();
    assert_eq!(refused(pair.opener.release(1)), "revoke-signed");
    pair.opener.restart();
    assert_eq!(refused(pair.opener.release(1)), "revoke-signed");
    assert_eq!(pair.opener.state().holder_signed, Some(1));
}

#[test]
fn p6_a_splice_that_pays_no_funding_output_is_not_signed_though_its_txid_is_registered() {
    let mut pair = Pair::open(v1::ChannelType::AnchorsZeroFeeHtlc);
    pair.opener.core.rules.splices = true;
    pair.round(1, 900_000, &[]);
    let (opener, parent) = (&pair.opener, vec![7; 32]);
    let keys = v1::GetChannelPublicKeysRequest {
        term: 1,
        channel_keys_id: KEYS_ID.to_vec(),
        splice_parent_funding_txid: Some(parent.clone()),
    };
    let keys = opener.core.get_channel_public_keys(&opener.caller, keys).unwrap();
    let ours = parse::public_key("funding_pubkey", &keys.funding_pubkey).unwrap();
    let theirs = pair.parameters.counterparty_pubkeys().unwrap().funding_pubkey;
    let parameters = v1::ChannelParameters {
        holder_pubkeys: Some(keys),
        splice_parent_funding_txid: Some(parent),
        ..opener.parameters(&pair.acceptor, true, TYPES[1])
    };
    let register_and_sign = |transaction: &bitcoin::Transaction, vout| {
        let made = v1::OutPoint { txid: transaction.compute_txid().to_byte_array().to_vec(), vout };
        let register = v1::RegisterFundingRequest {
            term: 1,
            channel: Some(v1::ChannelRef { funding_outpoint: Some(made), ..opener.of.clone() }),
            parameters: Some(parameters.clone()),
        };
        opener.core.register_funding(&opener.caller, register).unwrap();
        let sign = v1::SignSpliceInputRequest {
            term: 1,
            channel: opener.channel(),
            transaction: consensus::serialize(transaction),
            input_index: 0,
        };
        opener.core.sign_splice_input(&opener.caller, sign).map(drop)
    };

    // A compromised replica would have its peer punish us for this one.
    let revoked = build(&pair.parameters, &opener.commitment(0, 900_000, &[]));
    let revoked = revoked.trust().built_transaction().transaction.clone();
    assert_eq!(refused(register_and_sign(&revoked, 0)), "funding-script");
    let unrecorded = build(&pair.parameters, &opener.commitment(1, 100_000, &[]));
    let unrecorded = unrecorded.trust().built_transaction().transaction.clone();
    assert_eq!(refused(register_and_sign(&unrecorded, 0)), "funding-script");

    let splice = |value, keys: [&bitcoin::secp256k1::PublicKey; 2]| bitcoin::Transaction {
        output: vec![
            bitcoin::TxOut { value: sat(1_000), script_pubkey: ScriptBuf::new_op_return([3; 4]) },
            bitcoin::TxOut { value: sat(value), script_pubkey: make_funding_redeemscript(keys[0], keys[1]).to_p2wsh() },
        ],
        ..revoked.clone()
    };
    assert_eq!(refused(register_and_sign(&splice(CHANNEL_SAT - 1, [&ours, &theirs]), 1)), "funding-script");
    assert_eq!(refused(register_and_sign(&splice(CHANNEL_SAT, [&theirs, &theirs]), 1)), "funding-script");
    let honest = splice(CHANNEL_SAT, [&ours, &theirs]);
    assert_eq!(refused(register_and_sign(&honest, 0)), "funding-script");
    register_and_sign(&honest, 1).unwrap();
}

#[test]
fn after_a_close_was_signed_nothing_is_revoked() {
    let pair = Pair::open(v1::ChannelType::AnchorsZeroFeeHtlc);
    let opener = &pair.opener;
    let next = opener.commitment(1, 800_000, &[]);
    opener.validate(next.clone(), pair.acceptor.sign(next).unwrap()).unwrap();
    let first = opener.close(700_000, 299_000).unwrap();
    // Other fees may be tried; the same close has the same signature.
    opener.close(690_000, 299_000).unwrap();
    assert_eq!(opener.close(700_000, 299_000).unwrap(), first);
    assert_eq!(misused(opener.close(700_000, 300_001)), "to_holder_sat");
    assert_eq!(refused(opener.release(0)), "revoke-signed");
    assert_eq!(refused(opener.sign(pair.acceptor.commitment(1, 100_000, &[]))), "close-htlcs");
    opener.sign(pair.acceptor.commitment(0, 0, &[])).unwrap();
    assert!(opener.state().close_signed);
}

#[test]
fn our_commitment_counts_only_with_the_counterpartys_signatures() {
    let pair = Pair::open(v1::ChannelType::StaticRemoteKey);
    let htlcs = [htlc(true, 60_000, 1), htlc(true, 40_000, 2)];
    let mine = pair.opener.commitment(1, 800_000, &htlcs);
    let good = pair.acceptor.sign(mine.clone()).unwrap();
    let swapped = v1::SignCounterpartyCommitmentResponse {
        htlc_signatures: good.htlc_signatures.iter().rev().cloned().collect(),
        ..good.clone()
    };
    assert_eq!(refused(pair.opener.validate(mine.clone(), swapped)), "holder-countersigned");
    let fewer = v1::SignCounterpartyCommitmentResponse { htlc_signatures: vec![], ..good.clone() };
    assert_eq!(refused(pair.opener.validate(mine.clone(), fewer)), "holder-countersigned");
    let mut other = mine.clone();
    other.to_broadcaster_sat += 1;
    assert_eq!(refused(pair.opener.validate(other, good.clone())), "holder-countersigned");
    assert_eq!(refused(pair.opener.release(0)), "revoke-order");
    pair.opener.validate(mine, good).unwrap();
    pair.opener.release(0).unwrap();
}

#[test]
fn a_first_commitment_that_nobody_signed_does_not_survive_registration() {
    let (opener, acceptor) = (Side::new(1), Side::new(2));
    opener.register(opener.parameters(&acceptor, true, TYPES[1])).unwrap();
    let theirs = acceptor.commitment(0, 0, &[]);
    let mut signed = opener.sign(theirs.clone()).unwrap();
    let good = signed.clone();
    signed.signature = Signature::from_compact(&[1; 64]).unwrap().serialize_compact().to_vec();
    acceptor.validate(theirs.clone(), signed).unwrap();
    let parameters = acceptor.parameters(&opener, false, TYPES[1]);
    assert_eq!(refused(acceptor.register(parameters.clone())), "holder-countersigned");
    acceptor.validate(theirs, good).unwrap();
    acceptor.register(parameters).unwrap();
}

#[test]
fn htlcs_of_a_broadcast_commitment_are_claimed_from_both_sides() {
    for channel_type in TYPES {
        let pair = Pair::open(channel_type);
        let htlcs = [htlc(true, 60_000, 1), htlc(false, 40_000, 2)];
        pair.round(1, 700_000, &htlcs);
        let mine = pair.opener.commitment(1, 700_000, &htlcs);
        let commitment = build(&pair.parameters, &mine);
        let trusted = commitment.trust();
        let feerate = if channel_type == v1::ChannelType::AnchorsZeroFeeHtlc { 0 } else { 1000 };
        for of in commitment.nondust_htlcs() {
            let transaction = build_htlc_transaction(
                &trusted.txid(),
                feerate,
                144,
                of,
                &pair.parameters.channel_type_features,
                &trusted.keys().broadcaster_delayed_payment_key,
                &trusted.keys().revocation_key,
            );
            let wire = htlcs.iter().find(|htlc| htlc.payment_hash == of.payment_hash.0).unwrap();
            let holder = v1::SignHolderHtlcRequest {
                term: 1,
                channel: pair.opener.channel(),
                commitment_number: 1,
                commitment_txid: trusted.txid().to_byte_array().to_vec(),
                feerate_sat_per_kw: feerate,
                htlc: Some(wire.clone()),
                preimage: (!of.offered).then(|| vec![2; 32]),
                transaction: consensus::serialize(&transaction),
                input_index: 0,
            };
            let (opener, caller) = (&pair.opener.core, &pair.opener.caller);
            let signature = opener.sign_holder_htlc(caller, holder.clone()).unwrap().signature;
            assert_eq!(opener.sign_holder_htlc(caller, holder.clone()).unwrap().signature, signature);
            let script = get_htlc_redeemscript(of, &pair.parameters.channel_type_features, trusted.keys());
            let sighash = |transaction: &bitcoin::Transaction| {
                Message::from(
                    bitcoin::sighash::SighashCache::new(transaction)
                        .p2wsh_signature_hash(0, &script, of.to_bitcoin_amount(), bitcoin::EcdsaSighashType::All)
                        .unwrap(),
                )
            };
            let key = trusted.keys().broadcaster_htlc_key.to_public_key();
            let signature = parse::signature("signature", &signature).unwrap();
            secp().verify_ecdsa(&sighash(&transaction), &signature, &key).unwrap();

            let wrong = |change: &dyn Fn(&mut v1::SignHolderHtlcRequest)| {
                let mut wrong = holder.clone();
                change(&mut wrong);
                opener.sign_holder_htlc(caller, wrong)
            };
            assert_eq!(misused(wrong(&|r| r.input_index = 1)), "input_index");
            assert_eq!(misused(wrong(&|r| r.preimage = Some(vec![9; 32]))), "preimage");
            assert_eq!(misused(wrong(&|r| r.commitment_txid = vec![9; 32])), "input_index");
            assert_eq!(misused(wrong(&|r| r.htlc.as_mut().unwrap().amount_msat += 1000)), "transaction");
            let unknown = wrong(&|r| r.channel.as_mut().unwrap().channel_keys_id = vec![6; 32]);
            assert_eq!(misused(unknown), "channel.funding_outpoint");

            // The other side takes the same output directly.
            let spend = bitcoin::Transaction {
                output: vec![bitcoin::TxOut { value: sat(1_000), script_pubkey: ScriptBuf::new_op_return([3; 4]) }],
                ..transaction.clone()
            };
            let claim = v1::SignCounterpartyHtlcRequest {
                term: 1,
                channel: pair.acceptor.channel(),
                per_commitment_point: mine.per_commitment_point.clone(),
                htlc: Some(wire.clone()),
                amount_sat: wire.amount_msat / 1000,
                transaction: consensus::serialize(&spend),
                input_index: 0,
            };
            let (acceptor, caller) = (&pair.acceptor.core, &pair.acceptor.caller);
            let signature = acceptor.sign_counterparty_htlc(caller, claim.clone()).unwrap().signature;
            let signature = parse::signature("signature", &signature).unwrap();
            let key = trusted.keys().countersignatory_htlc_key.to_public_key();
            secp().verify_ecdsa(&sighash(&spend), &signature, &key).unwrap();
            let old = v1::SignCounterpartyHtlcRequest { per_commitment_point: pair.opener.point(0), ..claim };
            assert_eq!(refused(acceptor.sign_counterparty_htlc(caller, old)), "commitment-number");
        }
        assert_eq!(pair.opener.state().holder_signed, Some(1), "claiming counts as broadcasting");
    }
}

#[test]
fn a_revoked_commitment_is_punished() {
    let pair = Pair::open(v1::ChannelType::AnchorsZeroFeeHtlc);
    let htlcs = [htlc(true, 60_000, 1)];
    pair.round(1, 700_000, &htlcs);
    let revoked = build(&pair.parameters, &pair.opener.commitment(1, 700_000, &htlcs));
    pair.round(2, 700_000, &[]);
    let secret = pair.opener.release(1).unwrap();
    let trusted = revoked.trust();
    let index = trusted.revokeable_output_index().unwrap() as u32;
    let spend = bitcoin::Transaction {
        version: bitcoin::transaction::Version::TWO,
        lock_time: bitcoin::absolute::LockTime::ZERO,
        input: vec![bitcoin::TxIn {
            previous_output: bitcoin::OutPoint::new(trusted.txid(), index),
            ..Default::default()
        }],
        output: vec![bitcoin::TxOut { value: sat(600_000), script_pubkey: ScriptBuf::new_op_return([3; 4]) }],
    };
    let justice = |htlc: Option<v1::Htlc>, amount_sat: u64| v1::SignJusticeRequest {
        term: 1,
        channel: pair.acceptor.channel(),
        per_commitment_secret: secret.clone(),
        amount_sat,
        htlc,
        transaction: consensus::serialize(&spend),
        input_index: 0,
    };
    let sign = |request| {
        let response = pair.acceptor.core.sign_justice(&pair.acceptor.caller, request).unwrap();
        parse::signature("signature", &response.signature).unwrap()
    };
    let key = trusted.keys().revocation_key.to_public_key();
    let verify = |script: &bitcoin::Script, amount, signature| {
        let sighash = bitcoin::sighash::SighashCache::new(&spend)
            .p2wsh_signature_hash(0, script, sat(amount), bitcoin::EcdsaSighashType::All)
            .unwrap();
        secp().verify_ecdsa(&Message::from(sighash), &signature, &key).unwrap();
    };
    let to_local = lightning::ln::chan_utils::get_revokeable_redeemscript(
        &trusted.keys().revocation_key,
        144,
        &trusted.keys().broadcaster_delayed_payment_key,
    );
    assert_eq!(trusted.built_transaction().transaction.output[index as usize].script_pubkey, to_local.to_p2wsh());
    verify(&to_local, 700_000, sign(justice(None, 700_000)));
    let htlc = HTLCOutputInCommitment {
        offered: true,
        amount_msat: 60_000_000,
        cltv_expiry: 500,
        payment_hash: PaymentHash(sha256::Hash::hash(&[1; 32]).to_byte_array()),
        transaction_output_index: None,
    };
    let script = get_htlc_redeemscript(&htlc, &pair.parameters.channel_type_features, trusted.keys());
    verify(&script, 60_000, sign(justice(Some(htlcs[0].clone()), 60_000)));
}

/// What a recovery without any state needs: public keys, delays and the type.
#[test]
fn what_was_registered_is_told_if_it_is_asked_for_also_after_a_restart() {
    for channel_type in TYPES {
        let mut pair = Pair::open(channel_type);
        pair.opener.restart();
        let request = v1::GetChannelStateRequest { channel_keys_id: KEYS_ID.to_vec(), with_parameters: true };
        let state = pair.opener.core.get_channel_state(&pair.opener.caller, request).unwrap();
        let registered = v1::RegisteredFunding {
            outpoint: pair.opener.channel().unwrap().funding_outpoint,
            parameters: Some(pair.opener.parameters(&pair.acceptor, true, channel_type)),
        };
        assert_eq!(state.fundings, [registered]);
        assert!(pair.opener.state().fundings.is_empty());
    }
}
