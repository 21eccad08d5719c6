use bitcoin::{
    Amount, ScriptBuf, Txid,
    hashes::Hash,
    secp256k1::{PublicKey, Secp256k1, SecretKey},
};
use lightning::{
    chain::transaction::OutPoint,
    ln::{
        chan_utils::{
            ChannelPublicKeys, ChannelTransactionParameters, CommitmentTransaction,
            CounterpartyChannelTransactionParameters, HTLCOutputInCommitment, build_htlc_transaction,
        },
        channel_keys::{DelayedPaymentBasepoint, HtlcBasepoint, RevocationBasepoint},
    },
    types::{features::ChannelTypeFeatures, payment::PaymentHash},
};
use proptest::{collection::vec, prelude::*, strategy::ValueTree};
use prost::Message;

use super::*;
use crate::{error::Error, signer::v1};

fn key() -> impl Strategy<Value = PublicKey> {
    any::<[u8; 32]>().prop_filter_map("not a secret key", |bytes| {
        SecretKey::from_slice(&bytes).ok().map(|key| key.public_key(&Secp256k1::new()))
    })
}

fn keys() -> impl Strategy<Value = ChannelPublicKeys> {
    [key(), key(), key(), key(), key()].prop_map(|[funding, revocation, payment, delayed, htlc]| ChannelPublicKeys {
        funding_pubkey: funding,
        revocation_basepoint: RevocationBasepoint(revocation),
        payment_point: payment,
        delayed_payment_basepoint: DelayedPaymentBasepoint(delayed),
        htlc_basepoint: HtlcBasepoint(htlc),
    })
}

fn parameters() -> impl Strategy<Value = ChannelTransactionParameters> {
    let delays = (any::<u16>(), any::<u16>());
    (keys(), keys(), delays, any::<bool>(), any::<[u8; 32]>(), any::<u16>(), any::<Option<[u8; 32]>>(), any::<bool>())
        .prop_map(|(holder, counterparty, delays, outbound, txid, index, parent, anchors)| {
            ChannelTransactionParameters {
                holder_pubkeys: holder,
                holder_selected_contest_delay: delays.0,
                is_outbound_from_holder: outbound,
                counterparty_parameters: Some(CounterpartyChannelTransactionParameters {
                    pubkeys: counterparty,
                    selected_contest_delay: delays.1,
                }),
                funding_outpoint: Some(OutPoint { txid: Txid::from_byte_array(txid), index }),
                splice_parent_funding_txid: parent.map(Txid::from_byte_array),
                channel_type_features: if anchors {
                    ChannelTypeFeatures::anchors_zero_htlc_fee_and_dependencies()
                } else {
                    ChannelTypeFeatures::only_static_remote_key()
                },
                channel_value_satoshis: 10_000_000,
            }
        })
}

fn htlc() -> impl Strategy<Value = HTLCOutputInCommitment> {
    // Few values, so that outputs tie and the order of equals is tried too.
    (any::<bool>(), 600_000..600_003u64, 100..103u32, 0..3u8).prop_map(|(offered, amount_msat, cltv_expiry, hash)| {
        HTLCOutputInCommitment {
            offered,
            amount_msat: amount_msat * 10,
            cltv_expiry,
            payment_hash: PaymentHash([hash; 32]),
            transaction_output_index: None,
        }
    })
}

fn over_the_wire<M: Message + Default>(message: &M) -> M {
    M::decode(message.encode_to_vec().as_slice()).unwrap()
}

/// What the signer does with what the client sends, for one commitment.
fn rebuild(
    (funding, parameters): (OutPoint, v1::ChannelParameters),
    commitment: &v1::Commitment,
    holder_broadcasts: bool,
) -> Result<CommitmentTransaction, Error> {
    let parameters = parameters_to_ldk("parameters", &parameters, funding)?;
    let directed = if holder_broadcasts {
        parameters.as_holder_broadcastable()
    } else {
        parameters.as_counterparty_broadcastable()
    };
    let built = CommitmentFields::from_wire("commitment", commitment)?.build(&directed, &Secp256k1::new())?;
    for htlc in built.nondust_htlcs() {
        let trusted = built.trust();
        let keys = trusted.keys();
        build_htlc_transaction(
            &trusted.txid(),
            built.negotiated_feerate_per_kw(),
            directed.contest_delay(),
            htlc,
            directed.channel_type_features(),
            &keys.broadcaster_delayed_payment_key,
            &keys.revocation_key,
        );
    }
    Ok(built)
}

/// Numbers that hover around every limit.
fn edgy(limit: u64) -> impl Strategy<Value = u64> {
    prop_oneof![0..=limit, Just(limit), Just(limit.saturating_add(1)), Just(u64::MAX), any::<u64>()]
}

fn edgy_u32(limit: u32) -> impl Strategy<Value = u32> {
    prop_oneof![0..=limit, Just(limit), Just(limit.saturating_add(1)), Just(u32::MAX), any::<u32>()]
}

fn edgy_bytes(len: usize) -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![vec(any::<u8>(), len), vec(any::<u8>(), 0..80)]
}

fn edgy_key() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![9 => key().prop_map(|key| key.serialize().to_vec()), 1 => edgy_bytes(33)]
}

fn hostile_commitment() -> impl Strategy<Value = v1::Commitment> {
    let htlc = (any::<bool>(), edgy(10_000_000_000), edgy_u32(499_999_999), vec(any::<u8>(), 32)).prop_map(
        |(offered, amount_msat, cltv_expiry, payment_hash)| v1::Htlc {
            offered,
            amount_msat,
            cltv_expiry,
            payment_hash,
        },
    );
    (edgy((1 << 48) - 1), edgy_key(), edgy(10_000_000), edgy(10_000_000), edgy_u32(10_000), vec(htlc, 0..6)).prop_map(
        |(number, per_commitment_point, to_broadcaster_sat, to_countersignatory_sat, feerate_sat_per_kw, htlcs)| {
            v1::Commitment {
                number,
                per_commitment_point,
                to_broadcaster_sat,
                to_countersignatory_sat,
                feerate_sat_per_kw,
                htlcs,
            }
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn what_is_rebuilt_is_what_was_described(
        parameters in parameters(), number in 0..=CommitmentNumber::MAX.get(), point in key(), to_us in 0..5_000_000u64,
        to_them in 0..4_000_000u64, feerate in 253..8_000u32, htlcs in vec(htlc(), 0..40), holder_broadcasts: bool,
    ) {
        let directed = if holder_broadcasts {
            parameters.as_holder_broadcastable()
        } else {
            parameters.as_counterparty_broadcastable()
        };
        let ldk = CommitmentTransaction::new(number, &point, to_us, to_them, feerate, htlcs, &directed, &Secp256k1::new());

        let wire = over_the_wire(&CommitmentFields::from_ldk(&ldk).unwrap().to_wire());
        prop_assert_eq!(wire.number, CommitmentNumber::MAX.get() - number);
        let (funding, wire_parameters) = parameters_to_wire(&parameters).unwrap();
        let wire_parameters = over_the_wire(&wire_parameters);
        prop_assert_eq!(&parameters_to_ldk("parameters", &wire_parameters, funding).unwrap(), &parameters);

        let rebuilt = rebuild((funding, wire_parameters), &wire, holder_broadcasts).unwrap();
        prop_assert_eq!(&rebuilt, &ldk);
        prop_assert_eq!(rebuilt.trust().txid(), ldk.trust().txid());
        prop_assert_eq!(rebuilt.nondust_htlcs(), ldk.nondust_htlcs());
    }

    #[test]
    fn hostile_commitments_never_panic(parameters in parameters(), commitment in hostile_commitment(), ours: bool) {
        let _ = rebuild(parameters_to_wire(&parameters).unwrap(), &commitment, ours);
    }

    #[test]
    fn hostile_parameters_never_panic(
        good in parameters(), point in key(), delay in edgy_u32(65_535), value in edgy(Amount::MAX_MONEY.to_sat()),
        channel_type in -1..4i32, bad_key in edgy_key(), vout in edgy_u32(65_535), txid in edgy_bytes(32),
    ) {
        let (_, mut wire) = parameters_to_wire(&good).unwrap();
        wire.counterparty_selected_contest_delay = delay;
        wire.channel_value_sat = value;
        wire.channel_type = channel_type;
        wire.counterparty_pubkeys.as_mut().unwrap().revocation_basepoint = bad_key;
        let Ok(funding) = parse::outpoint("funding", &v1::OutPoint { txid, vout }) else { return Ok(()) };
        let commitment = v1::Commitment {
            per_commitment_point: point.serialize().to_vec(), to_broadcaster_sat: value / 2, ..Default::default()
        };
        let _ = rebuild((funding, wire), &commitment, false);
    }

    #[test]
    fn garbage_never_panics(bytes in vec(any::<u8>(), 0..300), parameters in parameters()) {
        let _ = parse::transaction("transaction", &bytes);
        let _ = parse::signature("signature", &bytes);
        let _ = parse::public_key("key", &bytes);
        let _ = parse::tweak("tweak", &bytes);
        if let Ok(wire) = v1::SpendableOutput::decode(bytes.as_slice()) {
            let _ = SpendableOutput::from_wire("outputs[0]", &wire);
        }
        if let Ok(wire) = v1::ChannelRef::decode(bytes.as_slice()) {
            let _ = ChannelRef::from_wire("channel", &wire);
        }
        if let Ok(wire) = v1::SignClosingRequest::decode(bytes.as_slice()) {
            let _ = closing_to_ldk(&wire, &parameters);
        }
    }

    #[test]
    fn commitment_numbers_count_up_here_and_down_there(number in 0..=CommitmentNumber::MAX.get()) {
        let ours = CommitmentNumber::new("number", number).unwrap();
        prop_assert_eq!(CommitmentNumber::from_ldk(ours.to_ldk()).unwrap(), ours);
        prop_assert_eq!(ours.to_ldk(), (1 << 48) - 1 - number);
    }
}

fn field_of<T>(result: Result<T, Error>) -> String {
    match result {
        Err(Error::Misuse { field, .. }) => field,
        Err(other) => panic!("{other} is not misuse"),
        Ok(_) => panic!("accepted"),
    }
}

#[test]
fn the_error_names_the_field() {
    let point = SecretKey::from_slice(&[7; 32]).unwrap().public_key(&Secp256k1::new()).serialize().to_vec();
    let htlc = v1::Htlc { offered: true, amount_msat: 1_000_000, cltv_expiry: 9, payment_hash: vec![1; 32] };
    let good = v1::Commitment { per_commitment_point: point, htlcs: vec![htlc; 2], ..Default::default() };
    CommitmentFields::from_wire("commitment", &good).unwrap();

    let broken = |change: &dyn Fn(&mut v1::Commitment)| {
        let mut bad = good.clone();
        change(&mut bad);
        field_of(CommitmentFields::from_wire("commitment", &bad))
    };
    assert_eq!(broken(&|c| c.number = 1 << 48), "commitment.number");
    assert_eq!(broken(&|c| c.per_commitment_point[0] = 4), "commitment.per_commitment_point");
    assert_eq!(broken(&|c| c.htlcs = vec![c.htlcs[0].clone(); 967]), "commitment.htlcs");
    assert_eq!(broken(&|c| c.htlcs[1].payment_hash = vec![]), "commitment.htlcs[1].payment_hash");
    assert_eq!(broken(&|c| c.htlcs[1].cltv_expiry = 500_000_000), "commitment.htlcs[1].cltv_expiry");
    assert_eq!(broken(&|c| c.feerate_sat_per_kw = u32::MAX), "commitment.feerate_sat_per_kw");
}

#[test]
fn channel_types_that_ldk_computes_otherwise_have_no_name() {
    for features in [ChannelTypeFeatures::anchors_zero_fee_commitments(), ChannelTypeFeatures::empty()] {
        assert_eq!(field_of(channel_type_to_wire("channel_type", &features)), "channel_type");
    }
    let mut private = ChannelTypeFeatures::anchors_zero_htlc_fee_and_dependencies();
    private.set_scid_privacy_required();
    private.set_zero_conf_required();
    assert_eq!(channel_type_to_wire("channel_type", &private), Ok(v1::ChannelType::AnchorsZeroFeeHtlc));
    for unknown in [0, 3, -1] {
        assert_eq!(field_of(channel_type_to_ldk("channel_type", unknown)), "channel_type");
    }
}

#[test]
fn a_high_s_is_not_a_signature() {
    let secp = Secp256k1::new();
    let message = bitcoin::secp256k1::Message::from_digest([3; 32]);
    let low = secp.sign_ecdsa(&message, &SecretKey::from_slice(&[9; 32]).unwrap()).serialize_compact();
    parse::signature("signature", &low).unwrap();
    // n - s, byte by byte.
    let order = hex::decode("fffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364141").unwrap();
    let mut high = low;
    let mut borrow = 0i16;
    for i in (0..32).rev() {
        let difference = i16::from(order[i]) - i16::from(low[32 + i]) - borrow;
        borrow = i16::from(difference < 0);
        high[32 + i] = difference.rem_euclid(256) as u8;
    }
    assert_eq!(field_of(parse::signature("signature", &high)), "signature");
}

#[test]
fn a_closing_transaction_pays_no_more_than_the_channel_holds() {
    let parameters = parameters().new_tree(&mut proptest::test_runner::TestRunner::deterministic()).unwrap().current();
    let request = |to_holder_sat, to_counterparty_sat| v1::SignClosingRequest {
        to_holder_sat,
        to_counterparty_sat,
        to_holder_script: ScriptBuf::new_op_return([0; 4]).into_bytes(),
        ..Default::default()
    };
    closing_to_ldk(&request(9_000_000, 1_000_000), &parameters).unwrap();
    assert_eq!(field_of(closing_to_ldk(&request(9_000_000, 1_000_001), &parameters)), "to_holder_sat");
    assert_eq!(field_of(closing_to_ldk(&request(u64::MAX, 2), &parameters)), "to_holder_sat");
}
