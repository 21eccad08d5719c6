//! Every call, against LDK's own signer of the same seed: the same bytes where LDK's signatures are deterministic, else a
//! signature that verifies under LDK's key over LDK's script.

mod claims;
mod fixture;

use std::time::Duration;

use bitcoin::{
    Amount, EcdsaSighashType, Network, Script, TxOut, Txid, Witness,
    constants::ChainHash,
    hashes::{Hash, sha256, sha256d},
    secp256k1::{Message, PublicKey, Scalar, Secp256k1, SecretKey, ecdsa::Signature},
    sighash::SighashCache,
};
use lightning::{
    chain::transaction::OutPoint,
    ln::{
        chan_utils::{ClosingTransaction, get_revokeable_redeemscript},
        channel_keys::{DelayedPaymentKey, RevocationKey},
        msgs::{UnsignedChannelAnnouncement, UnsignedChannelUpdate, UnsignedGossipMessage, UnsignedNodeAnnouncement},
        script::ShutdownScript,
    },
    routing::gossip::{NodeAlias, NodeId},
    sign::{
        DelayedPaymentOutputDescriptor, KeysManager, NodeSigner, OutputSpender, Recipient, SignerProvider,
        SpendableOutputDescriptor, StaticPaymentOutputDescriptor, ecdsa::EcdsaChannelSigner,
    },
    types::{
        features::{ChannelFeatures, ChannelTypeFeatures, NodeFeatures},
        payment::PaymentSecret,
    },
    util::{message_signing, ser::Writeable},
};
use lightning_invoice::{Bolt11Invoice, Currency, InvoiceBuilder};

use crate::signer::{InProcess, keys};

use fixture::{Channel, DELAY, VALUE, both_types, ldk};

#[test]
fn commitments_get_the_bytes_that_ldk_gives() {
    both_types(|channel| channel.advance());
}

#[test]
fn a_cooperative_close_is_signed() {
    both_types(|channel| {
        channel.sign_counterparty(0);
        channel.validate_holder(0);
        let ours = ldk().get_shutdown_scriptpubkey().unwrap().into_inner();
        let theirs = KeysManager::new(&[9; 32], 0, 0, true).get_shutdown_scriptpubkey().unwrap().into_inner();
        let funding = channel.parameters.funding_outpoint.unwrap().into_bitcoin_outpoint();
        let closing = ClosingTransaction::new(500_000, 499_000, ours, theirs, funding);
        let sign = |signer: &dyn EcdsaChannelSigner| {
            signer.sign_closing_transaction(&channel.parameters, &closing, &channel.secp).unwrap()
        };
        assert_eq!(sign(&channel.remote), sign(&channel.local));
    });
}

#[test]
fn what_closed_channels_leave_is_swept() {
    let signer = InProcess::new();
    let keys = keys(&signer);
    for channel_type in
        [ChannelTypeFeatures::only_static_remote_key(), ChannelTypeFeatures::anchors_zero_htlc_fee_and_dependencies()]
    {
        let id = if channel_type.supports_anchors_zero_fee_htlc_tx() { 2 } else { 1 };
        let channel = Channel::new(&keys, id, channel_type);
        channel.advance();
        let secp = &channel.secp;
        let (theirs, ours) = (channel.counterparty_commitment(1), channel.holder_commitment(1));
        let (theirs, ours) = (theirs.trust(), ours.trust());
        let at = |txid, index: usize| OutPoint { txid, index: index as u16 };

        let point = ours.per_commitment_point();
        let revocation = &channel.their_parameters.holder_pubkeys.revocation_basepoint;
        let revocation_pubkey = RevocationKey::from_basepoint(secp, revocation, &point);
        let delayed = &channel.parameters.holder_pubkeys.delayed_payment_basepoint;
        let delayed = DelayedPaymentKey::from_basepoint(secp, delayed, &point);
        let script = get_revokeable_redeemscript(&revocation_pubkey, DELAY, &delayed);
        let our_outputs = &ours.built_transaction().transaction.output;
        let to_local = our_outputs.iter().position(|output| output.script_pubkey == script.to_p2wsh()).unwrap();
        let their_outputs = &theirs.built_transaction().transaction.output;
        let payment = lightning::ln::chan_utils::get_countersigner_payment_script(
            &channel.parameters.channel_type_features,
            &channel.parameters.holder_pubkeys.payment_point,
        );
        let to_remote = their_outputs.iter().position(|output| output.script_pubkey == payment).unwrap();

        let descriptors = [
            SpendableOutputDescriptor::DelayedPaymentOutput(DelayedPaymentOutputDescriptor {
                outpoint: at(ours.txid(), to_local),
                per_commitment_point: point,
                to_self_delay: DELAY,
                output: our_outputs[to_local].clone(),
                revocation_pubkey,
                channel_keys_id: channel.keys_id,
                channel_value_satoshis: VALUE,
                channel_transaction_parameters: Some(channel.parameters.clone()),
            }),
            SpendableOutputDescriptor::StaticPaymentOutput(StaticPaymentOutputDescriptor {
                outpoint: at(theirs.txid(), to_remote),
                output: their_outputs[to_remote].clone(),
                channel_keys_id: channel.keys_id,
                channel_value_satoshis: VALUE,
                channel_transaction_parameters: Some(channel.parameters.clone()),
            }),
            SpendableOutputDescriptor::StaticOutput {
                outpoint: at(Txid::from_byte_array([66; 32]), 3),
                output: TxOut {
                    value: Amount::from_sat(70_000),
                    script_pubkey: keys.get_destination_script([0; 32]).unwrap(),
                },
                channel_keys_id: None,
            },
        ];
        let descriptors: Vec<_> = descriptors.iter().collect();
        let sweep = |spender: &dyn OutputSpender| {
            let change = ldk().get_destination_script([0; 32]).unwrap();
            spender.spend_spendable_outputs(&descriptors, vec![], change, 253, None, secp).unwrap()
        };
        let (swept, expected) = (sweep(&keys), sweep(&ldk()));
        assert_eq!(swept.compute_txid(), expected.compute_txid());
        for (i, (swept_input, expected_input)) in swept.input.iter().zip(&expected.input).enumerate() {
            let (ours, ldks) = (&swept_input.witness, &expected_input.witness);
            assert_eq!(ours.iter().skip(1).collect::<Vec<_>>(), ldks.iter().skip(1).collect::<Vec<_>>());
            let of = |witness: &Witness| bitcoin::ecdsa::Signature::from_slice(&witness[0]).unwrap();
            // LDK's signature is salted; both are by the same key over the same digest if both verify.
            let output = match descriptors[i] {
                SpendableOutputDescriptor::DelayedPaymentOutput(of) => &of.output,
                SpendableOutputDescriptor::StaticPaymentOutput(of) => &of.output,
                SpendableOutputDescriptor::StaticOutput { output, .. } => output,
            };
            let mut cache = SighashCache::new(&swept);
            let sighash = if output.script_pubkey.is_p2wpkh() {
                cache.p2wpkh_signature_hash(i, &output.script_pubkey, output.value, EcdsaSighashType::All).unwrap()
            } else {
                let script = Script::from_bytes(ours.last().unwrap());
                assert_eq!(script.to_p2wsh(), output.script_pubkey);
                cache.p2wsh_signature_hash(i, script, output.value, EcdsaSighashType::All).unwrap()
            };
            let key = match descriptors[i] {
                SpendableOutputDescriptor::DelayedPaymentOutput(_) => delayed.to_public_key(),
                SpendableOutputDescriptor::StaticPaymentOutput(_) => channel.parameters.holder_pubkeys.payment_point,
                SpendableOutputDescriptor::StaticOutput { .. } => PublicKey::from_slice(&ours[1]).unwrap(),
            };
            let message = Message::from_digest(sighash.to_byte_array());
            for witness in [ours, ldks] {
                secp.verify_ecdsa(&message, &of(witness).signature, &key).unwrap();
            }
        }
    }
}

#[test]
fn the_nodes_own_calls_are_ldks() {
    let signer = InProcess::new();
    let keys = keys(&signer);
    let local = ldk();
    let secp = Secp256k1::new();
    assert_eq!(keys.get_node_id(Recipient::Node), local.get_node_id(Recipient::Node));
    assert_eq!(keys.get_node_id(Recipient::PhantomNode), Err(()));
    assert!(keys.get_expanded_key() == local.get_expanded_key());
    assert!(keys.get_peer_storage_key() == local.get_peer_storage_key());
    assert!(keys.get_receive_auth_key() == local.get_receive_auth_key());
    assert_eq!(keys.get_destination_script([1; 32]), local.get_destination_script([1; 32]));
    let script = |script: Result<ShutdownScript, ()>| script.map(ShutdownScript::into_inner);
    assert_eq!(script(keys.get_shutdown_scriptpubkey()), script(local.get_shutdown_scriptpubkey()));

    let point = SecretKey::from_slice(&[5; 32]).unwrap().public_key(&secp);
    let tweak = Scalar::from_be_bytes([6; 32]).unwrap();
    for tweak in [None, Some(&tweak)] {
        let ecdh = |signer: &dyn NodeSigner| signer.ecdh(Recipient::Node, &point, tweak).unwrap();
        assert_eq!(ecdh(&keys), ecdh(&local));
    }

    let message = keys.sign_message(b"a message").unwrap();
    assert!(message_signing::verify(b"a message", &message, &keys.node_id()));

    let invoice = InvoiceBuilder::new(Currency::Regtest)
        .description("coffee".into())
        .payment_hash(sha256::Hash::hash(&[1]))
        .payment_secret(PaymentSecret([2; 32]))
        .amount_milli_satoshis(12_345)
        .duration_since_epoch(Duration::from_secs(1_700_000_000))
        .min_final_cltv_expiry_delta(42)
        .build_raw()
        .unwrap();
    let signed = invoice.clone().sign(|_| keys.sign_invoice(&invoice, Recipient::Node)).unwrap();
    assert_eq!(Bolt11Invoice::from_signed(signed).unwrap().recover_payee_pub_key(), keys.node_id());
}

#[test]
fn gossip_is_signed_with_both_keys() {
    let signer = InProcess::new();
    let keys = keys(&signer);
    let channel = Channel::new(&keys, 1, ChannelTypeFeatures::anchors_zero_htlc_fee_and_dependencies());
    let secp = &channel.secp;
    let verify = |message: &[u8], signature: &Signature, key: &PublicKey| {
        let digest = Message::from_digest(sha256d::Hash::hash(message).to_byte_array());
        secp.verify_ecdsa(&digest, signature, key).unwrap();
    };
    let peer = SecretKey::from_slice(&[3; 32]).unwrap().public_key(secp);
    let our_funding = channel.parameters.holder_pubkeys.funding_pubkey;
    let their_funding = channel.their_parameters.holder_pubkeys.funding_pubkey;
    let ours_first = NodeId::from_pubkey(&keys.node_id()) < NodeId::from_pubkey(&peer);
    let order = |ours: &PublicKey, theirs: &PublicKey| {
        let (one, two) = if ours_first { (ours, theirs) } else { (theirs, ours) };
        (NodeId::from_pubkey(one), NodeId::from_pubkey(two))
    };
    let ((node_id_1, node_id_2), (bitcoin_key_1, bitcoin_key_2)) =
        (order(&keys.node_id(), &peer), order(&our_funding, &their_funding));
    let chain_hash = ChainHash::using_genesis_block(Network::Regtest);
    let announcement = UnsignedChannelAnnouncement {
        features: ChannelFeatures::empty(),
        chain_hash,
        short_channel_id: 7,
        node_id_1,
        node_id_2,
        bitcoin_key_1,
        bitcoin_key_2,
        excess_data: vec![],
    };
    let signature =
        channel.remote.sign_channel_announcement_with_funding_key(&channel.parameters, &announcement, secp).unwrap();
    verify(&announcement.encode(), &signature, &our_funding);
    let signature = keys.sign_gossip_message(UnsignedGossipMessage::ChannelAnnouncement(&announcement)).unwrap();
    verify(&announcement.encode(), &signature, &keys.node_id());

    let update = UnsignedChannelUpdate {
        chain_hash,
        short_channel_id: 7,
        timestamp: 8,
        message_flags: 1,
        channel_flags: u8::from(!ours_first),
        cltv_expiry_delta: 72,
        htlc_minimum_msat: 1,
        htlc_maximum_msat: 900_000_000,
        fee_base_msat: 1_000,
        fee_proportional_millionths: 10,
        excess_data: vec![],
    };
    let signature = keys.sign_gossip_message(UnsignedGossipMessage::ChannelUpdate(&update)).unwrap();
    verify(&update.encode(), &signature, &keys.node_id());

    let node = UnsignedNodeAnnouncement {
        features: NodeFeatures::empty(),
        timestamp: 9,
        node_id: NodeId::from_pubkey(&keys.node_id()),
        rgb: [1, 2, 3],
        alias: NodeAlias([0; 32]),
        addresses: vec![],
        excess_address_data: vec![],
        excess_data: vec![],
    };
    let signature = keys.sign_gossip_message(UnsignedGossipMessage::NodeAnnouncement(&node)).unwrap();
    verify(&node.encode(), &signature, &keys.node_id());
}
