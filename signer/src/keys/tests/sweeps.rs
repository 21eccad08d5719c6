//! What closed channels left, spent as LDK spends it.

use super::*;

#[test]
fn sweeps_spend_every_output_that_ldk_would_sweep() {
    for anchors in [false, true] {
        let f = fixture(anchors);
        let outpoint = |index| OutPoint { txid: Txid::from_byte_array([3; 32]), index };
        let output = |script_pubkey| TxOut { value: Amount::from_sat(50_000), script_pubkey };
        let point = f.ours.per_commitment_point(number(3));
        let holder =
            TxCreationKeys::from_channel_static_keys(&point, &f.parameters.holder_pubkeys, &f.their_keys(), secp());
        let to_self = get_revokeable_redeemscript(&holder.revocation_key, 155, &holder.broadcaster_delayed_payment_key);
        let to_remote = lightning::ln::chan_utils::get_countersigner_payment_script(
            &f.parameters.channel_type_features,
            &f.parameters.holder_pubkeys.payment_point,
        );
        let descriptors = [
            SpendableOutputDescriptor::DelayedPaymentOutput(DelayedPaymentOutputDescriptor {
                outpoint: outpoint(0),
                per_commitment_point: point,
                to_self_delay: 155,
                output: output(to_self.to_p2wsh()),
                revocation_pubkey: holder.revocation_key,
                channel_keys_id: KEYS_ID,
                channel_value_satoshis: 1_000_000,
                channel_transaction_parameters: Some(f.parameters.clone()),
            }),
            SpendableOutputDescriptor::StaticPaymentOutput(StaticPaymentOutputDescriptor {
                outpoint: outpoint(1),
                output: output(to_remote),
                channel_keys_id: KEYS_ID,
                channel_value_satoshis: 1_000_000,
                channel_transaction_parameters: Some(f.parameters.clone()),
            }),
            SpendableOutputDescriptor::StaticOutput {
                outpoint: outpoint(2),
                output: output(f.node.destination_script()),
                channel_keys_id: None,
            },
            SpendableOutputDescriptor::StaticOutput {
                outpoint: outpoint(3),
                output: output(f.node.shutdown_script()),
                channel_keys_id: None,
            },
        ];
        let by_ldk = f
            .manager
            .spend_spendable_outputs(
                &descriptors.iter().collect::<Vec<_>>(),
                vec![],
                ScriptBuf::new_op_return([1; 4]),
                1000,
                None,
                secp(),
            )
            .unwrap();
        for (i, descriptor) in descriptors.iter().enumerate() {
            let wire = holdfast_proto::lightning::spendable_to_wire(descriptor).unwrap();
            let output = SpendableOutput::from_wire("output", &wire).unwrap();
            let sign = || f.node.sign_spendable_output("output", &output, &by_ldk).unwrap();
            let (ours, ldk) = (sign(), &by_ldk.input[i].witness);
            assert_eq!(ours, sign());
            assert_eq!(ours.len(), ldk.len());
            // Only the signature differs: LDK's is salted.
            assert_eq!(ours.iter().skip(1).collect::<Vec<_>>(), ldk.iter().skip(1).collect::<Vec<_>>());
            let (key, sighash) = sighash_of(&f, i, &by_ldk, &output, anchors, &to_self);
            for witness in [&ours, ldk] {
                let signature = bitcoin::ecdsa::Signature::from_slice(&witness[0]).unwrap();
                secp().verify_ecdsa(&sighash, &signature.signature, &key).unwrap();
            }

            let mut foreign = wire.clone();
            if let Some(holdfast_proto::signer::v1::spendable_output::Kind::Static(kind)) = &mut foreign.kind {
                kind.output.as_mut().unwrap().script_pubkey = ScriptBuf::new_op_return([9; 4]).into_bytes();
                let foreign = SpendableOutput::from_wire("output", &foreign).unwrap();
                assert!(f.node.sign_spendable_output("output", &foreign, &by_ldk).is_err());
            }
        }
    }
}

fn sighash_of(
    f: &Fixture,
    i: usize,
    transaction: &Transaction,
    output: &SpendableOutput,
    anchors: bool,
    to_self: &ScriptBuf,
) -> (PublicKey, Message) {
    let mut cache = SighashCache::new(transaction);
    let value = output.output().value;
    let payment = f.parameters.holder_pubkeys.payment_point;
    let all = EcdsaSighashType::All;
    match output {
        SpendableOutput::DelayedPayment { per_commitment_point, .. } => {
            let key = DelayedPaymentKey::from_basepoint(
                secp(),
                &f.parameters.holder_pubkeys.delayed_payment_basepoint,
                per_commitment_point,
            );
            (key.to_public_key(), cache.p2wsh_signature_hash(i, to_self, value, all).unwrap().into())
        }
        SpendableOutput::StaticPayment { .. } if anchors => {
            let script = lightning::ln::chan_utils::get_to_countersigner_keyed_anchor_redeemscript(&payment);
            (payment, cache.p2wsh_signature_hash(i, &script, value, all).unwrap().into())
        }
        _ => {
            let key = match output {
                SpendableOutput::StaticPayment { .. } => payment,
                // The witness shows the key, and the script commits to it.
                _ => PublicKey::from_slice(&transaction.input[i].witness[1]).unwrap(),
            };
            assert_eq!(derive::p2wpkh(&key), output.output().script_pubkey);
            (key, cache.p2wpkh_signature_hash(i, &output.output().script_pubkey, value, all).unwrap().into())
        }
    }
}
