//! What a watch-only wallet asks for is signed, and nothing else.

use bitcoin::{
    CompressedPublicKey, Psbt,
    bip32::{ChildNumber, DerivationPath, Xpub},
};

use super::*;

/// From the watch-only descriptor alone, as the replica's wallet would: the key, its origin and its script.
fn address(descriptor: &str, index: u32) -> (PublicKey, bitcoin::bip32::KeySource, ScriptBuf) {
    let inner = descriptor.strip_prefix("wpkh([").unwrap().strip_suffix("/*)").unwrap();
    let (origin, rest) = inner.split_once(']').unwrap();
    let (fingerprint, path) = origin.split_once('/').unwrap();
    let (xpub, branch) = rest.split_once('/').unwrap();
    let children = [branch.parse::<u32>().unwrap(), index].map(|index| ChildNumber::from_normal_idx(index).unwrap());
    let key = xpub.parse::<Xpub>().unwrap().derive_pub(secp(), &children).unwrap().public_key;
    let path = path.parse::<DerivationPath>().unwrap().extend(children);
    (key, (fingerprint.parse().unwrap(), path), ScriptBuf::new_p2wpkh(&CompressedPublicKey(key).wpubkey_hash()))
}

fn psbt(descriptors: &[&str]) -> Psbt {
    let mut transaction = spend(BitcoinOutPoint::null(), Sequence::ZERO);
    transaction.input = (0..descriptors.len() as u32)
        .map(|vout| spend(BitcoinOutPoint::new(Txid::from_byte_array([1; 32]), vout), Sequence::ZERO).input.remove(0))
        .collect();
    let mut psbt = Psbt::from_unsigned_tx(transaction).unwrap();
    for (input, descriptor) in psbt.inputs.iter_mut().zip(descriptors) {
        let (key, source, script_pubkey) = address(descriptor, 11);
        input.witness_utxo = Some(TxOut { value: Amount::from_sat(70_000), script_pubkey });
        input.bip32_derivation.insert(key, source);
    }
    psbt
}

#[test]
fn inputs_of_the_descriptors_are_signed_and_others_left_alone() {
    let (ours, other) = (ours([1; 32]), super::ours([2; 32]));
    let (receive, change) = (ours.wallet().descriptor(), ours.wallet().change_descriptor());
    assert!(receive.contains("/84'/1'/0']tpub") && receive.ends_with("/0/*)"), "{receive}");
    let mut psbt = psbt(&[&receive, &other.wallet().descriptor(), &change]);
    assert_eq!(ours.wallet().sign(&mut psbt).unwrap(), 2);
    assert!(psbt.inputs[1].partial_sigs.is_empty());
    let transaction = psbt.unsigned_tx.clone();
    for i in [0, 2] {
        let (key, signature) = psbt.inputs[i].partial_sigs.first_key_value().unwrap();
        let output = psbt.inputs[i].witness_utxo.clone().unwrap();
        let sighash = SighashCache::new(&transaction)
            .p2wpkh_signature_hash(i, &output.script_pubkey, output.value, EcdsaSighashType::All)
            .unwrap();
        secp().verify_ecdsa(&Message::from(sighash), &signature.signature, &key.inner).unwrap();
    }
}

/// Each would cost a derivation, and a request may hold a hundred thousand of them.
#[test]
fn only_one_derivation_of_an_input_is_followed() {
    let ours = ours([1; 32]);
    let descriptor = ours.wallet().descriptor();
    let sign = |liar: PublicKey| {
        let mut psbt = psbt(&[&descriptor]);
        let source = psbt.inputs[0].bip32_derivation.values().next().unwrap().clone();
        psbt.inputs[0].bip32_derivation.insert(liar, source);
        ours.wallet().sign(&mut psbt).unwrap()
    };
    let (key, ..) = address(&descriptor, 11);
    let others = (12..80).map(|index| address(&descriptor, index).0);
    let (before, after): (Vec<_>, Vec<_>) = others.partition(|other| *other < key);
    assert_eq!((sign(before[0]), sign(after[0])), (0, 1));
}

#[test]
fn what_does_not_fit_together_is_not_signed() {
    let ours = ours([1; 32]);
    let refused = |change: &dyn Fn(&mut Psbt)| {
        let mut psbt = psbt(&[&ours.wallet().descriptor()]);
        change(&mut psbt);
        ours.wallet().sign(&mut psbt).is_err()
    };
    assert!(!refused(&|_| {}));
    assert!(refused(&|psbt| psbt.inputs[0].witness_utxo = None), "no value");
    assert!(refused(&|psbt| psbt.inputs[0].sighash_type = Some(EcdsaSighashType::None.into())), "another sighash");
    assert!(
        refused(&|psbt| psbt.inputs[0].witness_utxo.as_mut().unwrap().script_pubkey = ScriptBuf::new()),
        "another script"
    );
    assert!(
        refused(&|psbt| psbt.inputs[0].non_witness_utxo = Some(spend(BitcoinOutPoint::null(), Sequence::ZERO))),
        "another transaction"
    );
}

#[test]
fn the_wallets_scripts_are_known_without_being_told_where_they_are() {
    let (ours, other) = (ours([1; 32]), super::ours([2; 32]));
    let [receive, change] = [ours.wallet().descriptor(), ours.wallet().change_descriptor()];
    for (descriptor, index) in [(&change, 700), (&receive, 3), (&receive, 701), (&change, 0)] {
        assert!(ours.owns(&address(descriptor, index).2), "{descriptor} {index}");
    }
    assert!(ours.owns(&ours.shutdown_script()) && ours.owns(&ours.destination_script()));
    let foreign = [
        other.shutdown_script(),
        address(&other.wallet().descriptor(), 0).2,
        address(&receive, 50_000).2,
        ScriptBuf::new_op_return([1; 4]),
        ScriptBuf::new(),
    ];
    for script in foreign {
        assert!(!ours.owns(&script), "{script}");
    }
    assert!(ours.owns(&address(&change, 49_999).2));
}
