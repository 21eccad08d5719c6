//! Every call, against LDK's own signer of the same seed: the same bytes where LDK's signatures are deterministic, else a
//! signature that verifies under LDK's key over LDK's script.

use std::time::Duration;

use bitcoin::{
    Amount, EcdsaSighashType, Network, OutPoint as BitcoinOutPoint, Script, ScriptBuf, Sequence, Transaction, TxIn,
    TxOut, Txid, Witness,
    absolute::LockTime,
    constants::ChainHash,
    hashes::{Hash, sha256, sha256d},
    secp256k1::{All, Message, PublicKey, Scalar, Secp256k1, SecretKey, ecdsa::Signature},
    sighash::SighashCache,
    transaction::Version,
};
use holdfast_signer_client::{RemoteChannelSigner, RemoteKeys};
use lightning::{
    chain::transaction::OutPoint,
    ln::{
        chan_utils::{
            ChannelTransactionParameters, ClosingTransaction, CommitmentTransaction,
            CounterpartyChannelTransactionParameters, HTLCOutputInCommitment, HolderCommitmentTransaction,
            get_htlc_redeemscript, get_keyed_anchor_redeemscript, get_revokeable_redeemscript,
            make_funding_redeemscript,
        },
        channel_keys::{DelayedPaymentKey, HtlcKey, RevocationKey},
        msgs::{UnsignedChannelAnnouncement, UnsignedChannelUpdate, UnsignedGossipMessage, UnsignedNodeAnnouncement},
        script::ShutdownScript,
    },
    routing::gossip::{NodeAlias, NodeId},
    sign::{
        ChannelDerivationParameters, ChannelSigner, DelayedPaymentOutputDescriptor, HTLCDescriptor, InMemorySigner,
        KeysManager, NodeSigner, OutputSpender, Recipient, SignerProvider, SpendableOutputDescriptor,
        StaticPaymentOutputDescriptor, ecdsa::EcdsaChannelSigner,
    },
    types::{
        features::{ChannelFeatures, ChannelTypeFeatures, NodeFeatures},
        payment::{PaymentHash, PaymentPreimage, PaymentSecret},
    },
    util::{message_signing, ser::Writeable},
};
use lightning_invoice::{Bolt11Invoice, Currency, InvoiceBuilder};

use super::signer::{InProcess, SEED, keys};

const VALUE: u64 = 1_000_000;
const FEERATE: u32 = 1_000;
const DELAY: u16 = 144;
const PREIMAGE: PaymentPreimage = PaymentPreimage([8; 32]);

/// A channel of ours, as the remote signer and as LDK's signer of the same seed, and the counterparty's end of it.
struct Channel {
    secp: Secp256k1<All>,
    remote: RemoteChannelSigner,
    local: InMemorySigner,
    theirs: InMemorySigner,
    parameters: ChannelTransactionParameters,
    their_parameters: ChannelTransactionParameters,
    keys_id: [u8; 32],
}

impl Channel {
    fn new(keys: &RemoteKeys, id: u8, channel_type: ChannelTypeFeatures) -> Self {
        let secp = Secp256k1::new();
        let keys_id = [id; 32];
        let remote = keys.derive_channel_signer(keys_id);
        let local = ldk().derive_channel_signer(keys_id);
        let theirs = KeysManager::new(&[9; 32], 0, 0, true).derive_channel_signer([id; 32]);
        assert_eq!(remote.pubkeys(&secp), local.pubkeys(&secp));
        let funding = OutPoint { txid: Txid::from_byte_array([id; 32]), index: 1 };
        let parameters = |holder: &InMemorySigner, counterparty: &InMemorySigner, is_outbound_from_holder| {
            ChannelTransactionParameters {
                holder_pubkeys: holder.pubkeys(&secp),
                holder_selected_contest_delay: DELAY,
                is_outbound_from_holder,
                counterparty_parameters: Some(CounterpartyChannelTransactionParameters {
                    pubkeys: counterparty.pubkeys(&secp),
                    selected_contest_delay: DELAY,
                }),
                funding_outpoint: Some(funding),
                splice_parent_funding_txid: None,
                channel_type_features: channel_type.clone(),
                channel_value_satoshis: VALUE,
            }
        };
        let (parameters, their_parameters) = (parameters(&local, &theirs, true), parameters(&theirs, &local, false));
        Self { remote, local, theirs, parameters, their_parameters, keys_id, secp }
    }

    fn htlcs(&self, number: u64) -> Vec<HTLCOutputInCommitment> {
        let htlc = |offered, amount_msat, cltv_expiry| HTLCOutputInCommitment {
            offered,
            amount_msat,
            cltv_expiry,
            payment_hash: PaymentHash::from(PREIMAGE),
            transaction_output_index: None,
        };
        // The first commitment has none.
        if number == 0 { vec![] } else { vec![htlc(true, 30_000_000, 500), htlc(false, 20_000_999, 600)] }
    }

    fn counterparty_commitment(&self, number: u64) -> CommitmentTransaction {
        let point = self.theirs.get_per_commitment_point(ldk_number(number), &self.secp).unwrap();
        self.commitment(number, &point, &self.parameters.as_counterparty_broadcastable())
    }

    fn holder_commitment(&self, number: u64) -> HolderCommitmentTransaction {
        let point = self.remote.get_per_commitment_point(ldk_number(number), &self.secp).unwrap();
        assert_eq!(point, self.local.get_per_commitment_point(ldk_number(number), &self.secp).unwrap());
        let built = self.commitment(number, &point, &self.parameters.as_holder_broadcastable());
        let (signature, htlc_signatures) = self
            .theirs
            .sign_counterparty_commitment(&self.their_parameters, &built, vec![], vec![], &self.secp)
            .unwrap();
        let funding = self.parameters.holder_pubkeys.funding_pubkey;
        let their_funding = self.their_parameters.holder_pubkeys.funding_pubkey;
        HolderCommitmentTransaction::new(built, signature, htlc_signatures, &funding, &their_funding)
    }

    fn commitment(
        &self,
        number: u64,
        point: &PublicKey,
        of: &lightning::ln::chan_utils::DirectedChannelTransactionParameters,
    ) -> CommitmentTransaction {
        let to = if number == 0 { 480_000 } else { 450_000 };
        CommitmentTransaction::new(ldk_number(number), point, to, to, FEERATE, self.htlcs(number), of, &self.secp)
    }

    /// Signs the counterparty's commitment `number`, and compares.
    fn sign_counterparty(&self, number: u64) {
        let built = self.counterparty_commitment(number);
        let sign = |signer: &dyn EcdsaChannelSigner| {
            signer.sign_counterparty_commitment(&self.parameters, &built, vec![], vec![PREIMAGE], &self.secp)
        };
        let signed = sign(&self.remote).unwrap();
        assert_eq!(signed, sign(&self.local).unwrap());
        assert_eq!(signed, sign(&self.remote).unwrap(), "the same question, the same answer");
    }

    fn validate_holder(&self, number: u64) {
        self.remote.validate_holder_commitment(&self.holder_commitment(number), vec![]).unwrap();
    }

    /// Two commitments on both sides, the first revoked.
    fn advance(&self) {
        self.sign_counterparty(0);
        self.validate_holder(0);
        self.validate_holder(1);
        let revoked = ldk_number(0);
        let secret = self.remote.release_commitment_secret(revoked).unwrap();
        assert_eq!(secret, self.local.release_commitment_secret(revoked).unwrap());
        self.sign_counterparty(1);
        self.remote.validate_counterparty_revocation(revoked, &self.their_secret(0)).unwrap();
    }

    fn their_secret(&self, number: u64) -> SecretKey {
        SecretKey::from_slice(&self.theirs.release_commitment_secret(ldk_number(number)).unwrap()).unwrap()
    }

    fn verify(&self, tx: &Transaction, script: &Script, value: u64, signature: &Signature, key: PublicKey) {
        let sighash = SighashCache::new(tx)
            .p2wsh_signature_hash(0, script, Amount::from_sat(value), EcdsaSighashType::All)
            .unwrap();
        self.secp.verify_ecdsa(&Message::from_digest(sighash.to_byte_array()), signature, &key).unwrap();
    }
}

fn ldk() -> KeysManager {
    KeysManager::new(&SEED, 0, 0, true)
}

fn ldk_number(number: u64) -> u64 {
    (1 << 48) - 1 - number
}

fn both_types(test: impl Fn(Channel)) {
    let signer = InProcess::new();
    let keys = keys(&signer);
    test(Channel::new(&keys, 1, ChannelTypeFeatures::only_static_remote_key()));
    test(Channel::new(&keys, 2, ChannelTypeFeatures::anchors_zero_htlc_fee_and_dependencies()));
}

/// Spends one output to some script, with a signature on another input already there, as LDK's claims may have.
fn claim(txid: Txid, vout: u32, sequence: u32, locktime: u32) -> Transaction {
    let input = |txid, vout, witness| TxIn {
        previous_output: BitcoinOutPoint { txid, vout },
        script_sig: ScriptBuf::new(),
        sequence: Sequence(sequence),
        witness,
    };
    Transaction {
        version: Version::TWO,
        lock_time: LockTime::from_consensus(locktime),
        input: vec![
            input(txid, vout, Witness::new()),
            input(Txid::from_byte_array([77; 32]), 0, Witness::from_slice(&[[1u8; 71]])),
        ],
        output: vec![TxOut {
            value: Amount::from_sat(10_000),
            script_pubkey: ldk().get_destination_script([0; 32]).unwrap(),
        }],
    }
}

fn output_paying(tx: &Transaction, script: &Script) -> (u32, u64) {
    let vout = tx.output.iter().position(|output| output.script_pubkey == script.to_p2wsh()).unwrap();
    (vout as u32, tx.output[vout].value.to_sat())
}

#[test]
fn commitments_get_the_bytes_that_ldk_gives() {
    both_types(|channel| channel.advance());
}

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
