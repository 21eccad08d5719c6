use bitcoin::{
    Amount, Sequence, TxIn, Witness, absolute::LockTime, hashes::Hash, secp256k1::SecretKey, transaction::Version,
};
use holdfast_proto::lightning::CommitmentFields;
use lightning::{
    ln::{
        chan_utils::{CounterpartyChannelTransactionParameters, make_funding_redeemscript},
        channel_keys::{DelayedPaymentBasepoint, HtlcBasepoint, RevocationBasepoint},
    },
    util::ser::{Readable, Writeable},
};

use super::*;

fn key(byte: u8) -> PublicKey {
    SecretKey::from_slice(&[byte; 32]).unwrap().public_key(&Secp256k1::new())
}

fn pubkeys(first: u8) -> ChannelPublicKeys {
    ChannelPublicKeys {
        funding_pubkey: key(first),
        revocation_basepoint: RevocationBasepoint(key(first + 1)),
        payment_point: key(first + 2),
        delayed_payment_basepoint: DelayedPaymentBasepoint(key(first + 3)),
        htlc_basepoint: HtlcBasepoint(key(first + 4)),
    }
}

fn types() -> [ChannelTypeFeatures; 2] {
    [ChannelTypeFeatures::anchors_zero_htlc_fee_and_dependencies(), ChannelTypeFeatures::only_static_remote_key()]
}

fn funding() -> LdkOutPoint {
    LdkOutPoint { txid: bitcoin::Txid::from_byte_array([7; 32]), index: 3 }
}

const POINT: u8 = 90;
const NUMBER: u64 = 5;

fn parameters(kind: &ChannelTypeFeatures, is_outbound: bool) -> ChannelTransactionParameters {
    ChannelTransactionParameters {
        holder_pubkeys: pubkeys(10),
        holder_selected_contest_delay: 144,
        is_outbound_from_holder: is_outbound,
        counterparty_parameters: Some(CounterpartyChannelTransactionParameters {
            pubkeys: pubkeys(20),
            selected_contest_delay: 720,
        }),
        funding_outpoint: Some(funding()),
        splice_parent_funding_txid: None,
        channel_type_features: kind.clone(),
        channel_value_satoshis: 1_000_000,
    }
}

/// All that a backup and the signer's derivation say, and what the guard adds if it remembers the channel.
fn channel(recorded: Option<ChannelTransactionParameters>) -> Channel {
    Channel {
        keys_id: [4; 32],
        funding: funding().into_bitcoin_outpoint(),
        capacity_sat: 1_000_000,
        pubkeys: pubkeys(10),
        recorded,
    }
}

/// As it is on chain: with the funding script in the witness.
fn broadcast(mut tx: Transaction) -> Transaction {
    let script = make_funding_redeemscript(&key(10), &key(20));
    tx.input[0].witness = Witness::from_slice(&[vec![], vec![1; 71], vec![2; 71], script.into_bytes()]);
    tx
}

/// The peer's commitment, or ours, with 300 000 sat for its owner and 600 000 for the other.
fn commitment(parameters: &ChannelTransactionParameters, ours: bool) -> Transaction {
    let fields = CommitmentFields {
        number: CommitmentNumber::new("n", NUMBER).unwrap(),
        per_commitment_point: key(POINT),
        to_broadcaster_sat: 300_000,
        to_countersignatory_sat: 600_000,
        feerate_sat_per_kw: 253,
        htlcs: vec![],
    };
    let directed = if ours { parameters.as_holder_broadcastable() } else { parameters.as_counterparty_broadcastable() };
    broadcast(fields.build(&directed, &Secp256k1::new()).unwrap().trust().built_transaction().transaction.clone())
}

fn search(channel: &Channel, tx: &Transaction) -> (Closing, Vec<(u32, TxOut, Ours)>) {
    let wallet = |script: &ScriptBuf| *script == wallets();
    let signer = |script: &Script| *script == *signers();
    let point = |number| (number == CommitmentNumber::new("n", NUMBER).unwrap().to_ldk()).then(|| key(POINT));
    find(channel, tx, &Owners { wallet, signer }, point)
}

fn wallets() -> ScriptBuf {
    ScriptBuf::new_p2wpkh(&bitcoin::CompressedPublicKey(key(60)).wpubkey_hash())
}

fn signers() -> ScriptBuf {
    ScriptBuf::new_p2wpkh(&bitcoin::CompressedPublicKey(key(61)).wpubkey_hash())
}

fn only(found: (Closing, Vec<(u32, TxOut, Ours)>)) -> (TxOut, SpendableOutputDescriptor, u32) {
    assert_eq!(found.0, Closing::Commitment);
    match <[_; 1]>::try_from(found.1).unwrap() {
        [(vout, output, Ours::Sweep { descriptor, after_blocks })] => {
            assert_eq!(u32::from(descriptor.spendable_outpoint().index), vout);
            (output, *descriptor, after_blocks)
        }
        other => panic!("{other:?}"),
    }
}

/// What the sweeper stores it has to read again: a record of it that does not parse would keep the node from starting.
fn survives_a_restart(descriptor: &SpendableOutputDescriptor) {
    let read = SpendableOutputDescriptor::read(&mut descriptor.encode().as_slice()).unwrap();
    assert_eq!(read, *descriptor);
}

#[test]
fn ours_in_the_peers_commitment_is_found_in_both_types_with_and_without_the_signers_record() {
    for kind in types() {
        for is_outbound in [false, true] {
            let parameters = parameters(&kind, is_outbound);
            let tx = commitment(&parameters, false);
            for recorded in [None, Some(parameters.clone())] {
                let (output, descriptor, after_blocks) = only(search(&channel(recorded), &tx));
                assert_eq!((output.value, after_blocks), (Amount::from_sat(600_000), 0));
                survives_a_restart(&descriptor);
                let SpendableOutputDescriptor::StaticPaymentOutput(of) = &descriptor else { panic!("{descriptor:?}") };
                assert_eq!(of.channel_keys_id, [4; 32]);
                let anchors = kind.supports_anchors_zero_fee_htlc_tx();
                assert_eq!(of.needs_csv_1_for_spend(), anchors);
                assert_eq!(
                    of.witness_script().map(|script| script.to_p2wsh()),
                    anchors.then_some(output.script_pubkey)
                );
            }
        }
    }
}

/// LDK derived the payment key otherwise before 0.2: the signer derives the newer, and its guard has what was registered.
#[test]
fn a_channel_with_the_older_payment_key_is_found_by_the_signers_record() {
    for kind in types() {
        let mut parameters = parameters(&kind, true);
        parameters.holder_pubkeys.payment_point = key(77);
        let tx = commitment(&parameters, false);
        let (_, descriptor, _) = only(search(&channel(Some(parameters)), &tx));
        survives_a_restart(&descriptor);
        assert_eq!(search(&channel(None), &tx), (Closing::Commitment, vec![]));
    }
}

#[test]
fn ours_in_our_own_commitment_is_found_if_the_signer_remembers_the_channel() {
    for kind in types() {
        for is_outbound in [false, true] {
            let parameters = parameters(&kind, is_outbound);
            let tx = commitment(&parameters, true);
            let (output, descriptor, after_blocks) = only(search(&channel(Some(parameters)), &tx));
            assert_eq!((output.value, after_blocks), (Amount::from_sat(300_000), 720));
            survives_a_restart(&descriptor);
            assert!(
                matches!(descriptor, SpendableOutputDescriptor::DelayedPaymentOutput(of) if of.to_self_delay == 720)
            );
            assert_eq!(search(&channel(None), &tx), (Closing::Commitment, vec![]));
        }
    }
}

#[test]
fn a_cooperative_close_pays_to_the_wallet_or_to_the_signers_scripts() {
    let pays = |value, script_pubkey| TxOut { value: Amount::from_sat(value), script_pubkey };
    let stranger = ScriptBuf::new_op_return([1; 4]);
    let tx = broadcast(Transaction {
        version: Version::TWO,
        lock_time: LockTime::ZERO,
        input: vec![TxIn {
            previous_output: funding().into_bitcoin_outpoint(),
            sequence: Sequence::MAX,
            ..Default::default()
        }],
        output: vec![pays(1, stranger), pays(2, wallets()), pays(3, signers())],
    });
    let (how, ours) = search(&channel(None), &tx);
    assert_eq!(how, Closing::Cooperative);
    assert_eq!(
        ours.iter().map(|(vout, output, _)| (*vout, output.value.to_sat())).collect::<Vec<_>>(),
        [(1, 2), (2, 3)]
    );
    assert_eq!(ours[0].2, Ours::Wallet);
    let Ours::Sweep { descriptor, .. } = &ours[1].2 else { panic!("{ours:?}") };
    assert!(matches!(**descriptor, SpendableOutputDescriptor::StaticOutput { .. }));
    survives_a_restart(descriptor);
}

#[test]
fn an_entry_with_other_keys_than_the_channels_is_known_as_such() {
    for kind in types() {
        let parameters = parameters(&kind, true);
        let others = Channel { pubkeys: pubkeys(30), ..channel(None) };
        assert_eq!(search(&others, &commitment(&parameters, false)), (Closing::OtherKeys, vec![]));
        let mut unsigned = commitment(&parameters, false);
        unsigned.input[0].witness = Witness::new();
        assert_eq!(search(&channel(None), &unsigned), (Closing::OtherKeys, vec![]));
    }
}
