//! Against LDK's own keys: what it derives and signs, we derive and sign.

mod sweeps;
mod wallet;

use bitcoin::{
    Amount, EcdsaSighashType, Network, OutPoint as BitcoinOutPoint, ScriptBuf, Sequence, Transaction, TxIn, TxOut,
    Txid, Witness,
    absolute::LockTime,
    hashes::Hash,
    secp256k1::{Message, PublicKey, SecretKey, ecdsa::Signature},
    sighash::SighashCache,
    transaction::Version,
};
use holdfast_proto::lightning::{CommitmentNumber, SpendableOutput};
use lightning::{
    chain::transaction::OutPoint,
    ln::{
        chan_utils::{
            ChannelPublicKeys, ChannelTransactionParameters, ClosingTransaction, CommitmentTransaction,
            CounterpartyChannelTransactionParameters, HTLCOutputInCommitment, HolderCommitmentTransaction,
            TxCreationKeys, build_htlc_transaction, get_htlc_redeemscript, get_keyed_anchor_redeemscript,
            get_revokeable_redeemscript, make_funding_redeemscript,
        },
        channel_keys::DelayedPaymentKey,
        msgs::UnsignedChannelAnnouncement,
    },
    sign::{
        ChannelDerivationParameters, ChannelSigner, DelayedPaymentOutputDescriptor, HTLCDescriptor, InMemorySigner,
        KeysManager, NodeSigner, OutputSpender, Recipient, SignerProvider, SpendableOutputDescriptor,
        StaticPaymentOutputDescriptor, ecdsa::EcdsaChannelSigner,
    },
    types::{features::ChannelTypeFeatures, payment::PaymentHash},
};
use proptest::prelude::*;
use zeroize::Zeroizing;

use super::*;
use crate::custody::NodeIdentity;

fn ours(seed: [u8; 32]) -> NodeKeys {
    NodeKeys::new(Zeroizing::new(seed), Network::Regtest).unwrap()
}

fn ldk(seed: [u8; 32]) -> KeysManager {
    KeysManager::new(&seed, 42, 7, true)
}

fn number(n: u64) -> CommitmentNumber {
    CommitmentNumber::new("n", n).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn channel_keys_are_those_of_ldk(seed: [u8; 32], keys_id: [u8; 32], parent: [u8; 32], n in 0..(1u64 << 48)) {
        let (ours, ldk) = (ours(seed).channel(&keys_id), ldk(seed).derive_channel_keys(&keys_id));
        let parent = Txid::from_byte_array(parent);
        prop_assert_eq!(ours.public_keys(None), ldk.pubkeys(secp()));
        prop_assert_eq!(ours.public_keys(Some(parent)).funding_pubkey, ldk.new_funding_pubkey(parent, secp()));
        let n = number(n);
        prop_assert_eq!(ours.per_commitment_point(n), ldk.get_per_commitment_point(n.to_ldk(), secp()).unwrap());
        prop_assert_eq!(*ours.per_commitment_secret(n), ldk.release_commitment_secret(n.to_ldk()).unwrap());
        // An imported node's channels from before LDK 0.2 pay to the older form of the payment key.
        let older = KeysManager::new(&seed, 42, 7, false).derive_channel_keys(&keys_id).pubkeys(secp());
        prop_assert!(ours.owns(&older, None) && ours.owns(&ldk.pubkeys(secp()), None));
        prop_assert!(!ours.owns(&ldk.pubkeys(secp()), Some(parent)));
    }

    #[test]
    fn node_keys_are_those_of_ldk(seed: [u8; 32]) {
        let (ours, ldk) = (ours(seed), ldk(seed));
        prop_assert_eq!(ours.destination_script(), ldk.get_destination_script([0; 32]).unwrap());
        prop_assert_eq!(ours.shutdown_script(), ldk.get_shutdown_scriptpubkey().unwrap().into_inner());
        let secrets = ours.replica_secrets();
        let expanded = lightning::ln::inbound_payment::ExpandedKey::new(*secrets.inbound_payment_key);
        prop_assert!(expanded == ldk.get_expanded_key());
        prop_assert_eq!(*secrets.peer_storage_key, ldk.get_peer_storage_key().inner);
        prop_assert_eq!(*secrets.receive_auth_key, ldk.get_receive_auth_key().0);

        let identity = SeedIdentity::new(&Zeroizing::new(seed)).unwrap();
        prop_assert_eq!(identity.public_key(), ldk.get_node_id(Recipient::Node).unwrap());
        let peer = SecretKey::from_slice(&[9; 32]).unwrap().public_key(secp());
        let shared = ldk.ecdh(Recipient::Node, &peer, None).unwrap();
        prop_assert_eq!(*identity.ecdh(&peer).unwrap(), shared.secret_bytes());
        let signature = secp().sign_ecdsa_recoverable(&Message::from_digest([3; 32]), &ldk.get_node_secret_key());
        prop_assert_eq!(identity.sign(&[3; 32]).unwrap(), signature);
    }
}

/// A channel of ours with a counterparty on LDK's keys, and LDK's keys for our side too.
struct Fixture {
    node: NodeKeys,
    manager: KeysManager,
    ours: ChannelKeys,
    ldk: InMemorySigner,
    theirs: InMemorySigner,
    parameters: ChannelTransactionParameters,
}

const KEYS_ID: [u8; 32] = [5; 32];

fn fixture(anchors: bool) -> Fixture {
    let (node, manager) = (ours([1; 32]), ldk([1; 32]));
    let theirs = ldk([2; 32]).derive_channel_keys(&[6; 32]);
    let ours = node.channel(&KEYS_ID);
    let channel_type_features = match anchors {
        true => ChannelTypeFeatures::anchors_zero_htlc_fee_and_dependencies(),
        false => ChannelTypeFeatures::only_static_remote_key(),
    };
    let parameters = ChannelTransactionParameters {
        holder_pubkeys: ours.public_keys(None),
        holder_selected_contest_delay: 144,
        is_outbound_from_holder: true,
        counterparty_parameters: Some(CounterpartyChannelTransactionParameters {
            pubkeys: theirs.pubkeys(secp()),
            selected_contest_delay: 155,
        }),
        funding_outpoint: Some(OutPoint { txid: Txid::from_byte_array([8; 32]), index: 1 }),
        splice_parent_funding_txid: None,
        channel_type_features,
        channel_value_satoshis: 1_000_000,
    };
    let ldk = manager.derive_channel_keys(&KEYS_ID);
    Fixture { node, manager, ours, ldk, theirs, parameters }
}

impl Fixture {
    fn their_keys(&self) -> ChannelPublicKeys {
        self.theirs.pubkeys(secp())
    }

    fn htlcs() -> Vec<HTLCOutputInCommitment> {
        [(true, 20_000_000, 1), (false, 30_000_500, 2), (false, 20_000_000, 3)]
            .map(|(offered, amount_msat, hash)| HTLCOutputInCommitment {
                offered,
                amount_msat,
                cltv_expiry: 500 + u32::from(hash),
                payment_hash: PaymentHash([hash; 32]),
                transaction_output_index: None,
            })
            .to_vec()
    }

    fn commitment(&self, of_holder: bool) -> CommitmentTransaction {
        let directed = match of_holder {
            true => self.parameters.as_holder_broadcastable(),
            false => self.parameters.as_counterparty_broadcastable(),
        };
        let n = number(3);
        let point = match of_holder {
            true => self.ours.per_commitment_point(n),
            false => self.theirs.get_per_commitment_point(n.to_ldk(), secp()).unwrap(),
        };
        CommitmentTransaction::new(n.to_ldk(), &point, 400_000, 500_000, 1000, Self::htlcs(), &directed, secp())
    }

    /// The keys of the counterparty's commitment.
    fn keys(&self, point: &PublicKey) -> TxCreationKeys {
        TxCreationKeys::from_channel_static_keys(point, &self.their_keys(), &self.parameters.holder_pubkeys, secp())
    }
}

fn spend(previous_output: BitcoinOutPoint, sequence: Sequence) -> Transaction {
    Transaction {
        version: Version::TWO,
        lock_time: LockTime::ZERO,
        input: vec![TxIn { previous_output, script_sig: ScriptBuf::new(), sequence, witness: Witness::new() }],
        output: vec![TxOut { value: Amount::from_sat(9_000), script_pubkey: ScriptBuf::new_op_return([1; 4]) }],
    }
}

/// Both signatures are of input 0 with this script, amount and key; ours is the same every time.
fn assert_both(
    ours: impl Fn() -> Signature,
    ldk: Signature,
    transaction: &Transaction,
    script: &ScriptBuf,
    sat: u64,
    key: &PublicKey,
) {
    let sighash = SighashCache::new(transaction)
        .p2wsh_signature_hash(0, script, Amount::from_sat(sat), EcdsaSighashType::All)
        .unwrap();
    for signature in [ours(), ldk] {
        secp().verify_ecdsa(&Message::from(sighash), &signature, key).unwrap();
    }
    assert_eq!(ours(), ours());
    assert!(ours().serialize_compact()[0] < 0x80, "low R, for a witness of known size");
}

#[test]
fn commitments_and_closes_are_signed_as_ldk_signs_them() {
    for anchors in [false, true] {
        let f = fixture(anchors);
        let theirs = f.commitment(false);
        let signed = f.ours.sign_counterparty_commitment(&f.parameters, &theirs).unwrap();
        let expected = f.ldk.sign_counterparty_commitment(&f.parameters, &theirs, vec![], vec![], secp()).unwrap();
        assert_eq!((signed.commitment, signed.htlcs), expected);

        let closing = ClosingTransaction::new(
            600_000,
            399_000,
            ScriptBuf::new_op_return([1; 2]),
            ScriptBuf::new_op_return([2; 2]),
            f.parameters.funding_outpoint.unwrap().into_bitcoin_outpoint(),
        );
        assert_eq!(
            f.ours.sign_closing(&f.parameters, &closing).unwrap(),
            f.ldk.sign_closing_transaction(&f.parameters, &closing, secp()).unwrap()
        );

        let holder = f.commitment(true);
        let (their_signature, their_htlcs) = (expected.0, expected.1);
        let full = HolderCommitmentTransaction::new(
            holder.clone(),
            their_signature,
            their_htlcs,
            &f.ours.public_keys(None).funding_pubkey,
            &f.their_keys().funding_pubkey,
        );
        let script =
            make_funding_redeemscript(&f.parameters.holder_pubkeys.funding_pubkey, &f.their_keys().funding_pubkey);
        assert_both(
            || f.ours.sign_holder_commitment(&f.parameters, &holder).unwrap(),
            f.ldk.sign_holder_commitment(&f.parameters, &full, secp()).unwrap(),
            &holder.trust().built_transaction().transaction,
            &script,
            1_000_000,
            &f.parameters.holder_pubkeys.funding_pubkey,
        );

        let funding = f.parameters.funding_outpoint.unwrap().into_bitcoin_outpoint();
        let splice = spend(funding, Sequence::ZERO);
        assert_eq!(
            f.ours.sign_splice_input(&f.parameters, &splice, 0).unwrap(),
            f.ldk.sign_splice_shared_input(&f.parameters, &splice, 0, secp())
        );
        assert!(f.ours.sign_splice_input(&f.parameters, &spend(BitcoinOutPoint::null(), Sequence::ZERO), 0).is_err());
    }
}

#[test]
fn the_counterpartys_signatures_on_our_commitment_are_checked_one_by_one() {
    for anchors in [false, true] {
        let f = fixture(anchors);
        let holder = f.commitment(true);
        // The counterparty sees the same parameters from the other side.
        let mirrored = ChannelTransactionParameters {
            holder_pubkeys: f.their_keys(),
            holder_selected_contest_delay: 155,
            is_outbound_from_holder: false,
            counterparty_parameters: Some(CounterpartyChannelTransactionParameters {
                pubkeys: f.parameters.holder_pubkeys.clone(),
                selected_contest_delay: 144,
            }),
            ..f.parameters.clone()
        };
        let (commitment, htlcs) =
            f.theirs.sign_counterparty_commitment(&mirrored, &holder, vec![], vec![], secp()).unwrap();
        let good = CommitmentSignatures { commitment, htlcs };
        assert_eq!(verify_holder_commitment(&f.parameters, &holder, &good).unwrap(), Ok(()));

        let bad = CommitmentSignatures { commitment: good.htlcs[0], ..good.clone() };
        assert!(verify_holder_commitment(&f.parameters, &holder, &bad).unwrap().is_err());
        for i in 0..good.htlcs.len() {
            let mut bad = good.clone();
            bad.htlcs[i] = good.commitment;
            assert!(verify_holder_commitment(&f.parameters, &holder, &bad).unwrap().is_err(), "HTLC {i}");
        }
        let mut bad = good.clone();
        bad.htlcs.pop();
        assert!(verify_holder_commitment(&f.parameters, &holder, &bad).unwrap().is_err(), "one is missing");
    }
}

#[test]
fn claims_are_signed_with_the_scripts_and_keys_that_ldk_uses() {
    for anchors in [false, true] {
        let f = fixture(anchors);
        let secret = Secret::new(SecretKey::from_slice(&f.theirs.release_commitment_secret(77).unwrap()).unwrap());
        let point = secret.public_key();
        let keys = f.keys(&point);
        let channel_type = &f.parameters.channel_type_features;
        let transaction = spend(BitcoinOutPoint::new(Txid::from_byte_array([4; 32]), 2), Sequence::ZERO);
        let revocation = keys.revocation_key.to_public_key();

        assert_both(
            || f.ours.sign_justice(&f.parameters, &transaction, 0, Amount::from_sat(7_000), &secret, None).unwrap(),
            f.ldk.sign_justice_revoked_output(&f.parameters, &transaction, 0, 7_000, secret.expose(), secp()).unwrap(),
            &transaction,
            &get_revokeable_redeemscript(&keys.revocation_key, 144, &keys.broadcaster_delayed_payment_key),
            7_000,
            &revocation,
        );
        for htlc in Fixture::htlcs() {
            let script = get_htlc_redeemscript(&htlc, channel_type, &keys);
            let amount = Amount::from_sat(8_000);
            assert_both(
                || f.ours.sign_justice(&f.parameters, &transaction, 0, amount, &secret, Some(&htlc)).unwrap(),
                f.ldk
                    .sign_justice_revoked_htlc(&f.parameters, &transaction, 0, 8_000, secret.expose(), &htlc, secp())
                    .unwrap(),
                &transaction,
                &script,
                8_000,
                &revocation,
            );
            assert_both(
                || f.ours.sign_counterparty_htlc(&f.parameters, &transaction, 0, amount, &point, &htlc).unwrap(),
                f.ldk
                    .sign_counterparty_htlc_transaction(&f.parameters, &transaction, 0, 8_000, &point, &htlc, secp())
                    .unwrap(),
                &transaction,
                &script,
                8_000,
                &keys.countersignatory_htlc_key.to_public_key(),
            );
        }
        assert_both(
            || f.ours.sign_anchor(&f.parameters, &transaction, 0).unwrap(),
            f.ldk.sign_holder_keyed_anchor_input(&f.parameters, &transaction, 0, secp()).unwrap(),
            &transaction,
            &get_keyed_anchor_redeemscript(&f.parameters.holder_pubkeys.funding_pubkey),
            330,
            &f.parameters.holder_pubkeys.funding_pubkey,
        );
    }
}

#[test]
fn holder_htlcs_are_signed_and_nothing_that_only_looks_like_one() {
    for anchors in [false, true] {
        let f = fixture(anchors);
        let commitment = f.commitment(true);
        let trusted = commitment.trust();
        let keys = trusted.keys();
        let feerate = if anchors { 0 } else { 1000 };
        for htlc in commitment.nondust_htlcs() {
            let transaction = build_htlc_transaction(
                &trusted.txid(),
                feerate,
                155,
                htlc,
                &f.parameters.channel_type_features,
                &keys.broadcaster_delayed_payment_key,
                &keys.revocation_key,
            );
            let sign = |transaction: &Transaction| {
                f.ours.sign_holder_htlc(
                    &f.parameters,
                    &HolderHtlc {
                        transaction,
                        input: 0,
                        number: number(3),
                        commitment_txid: trusted.txid(),
                        feerate_sat_per_kw: feerate,
                        htlc: HTLCOutputInCommitment { transaction_output_index: None, ..htlc.clone() },
                    },
                )
            };
            let descriptor = HTLCDescriptor {
                channel_derivation_parameters: ChannelDerivationParameters {
                    value_satoshis: 1_000_000,
                    keys_id: KEYS_ID,
                    transaction_parameters: f.parameters.clone(),
                },
                commitment_txid: trusted.txid(),
                per_commitment_number: number(3).to_ldk(),
                per_commitment_point: commitment.per_commitment_point(),
                feerate_per_kw: feerate,
                htlc: htlc.clone(),
                preimage: None,
                counterparty_sig: Signature::from_compact(&[1; 64]).unwrap(),
            };
            assert_both(
                || sign(&transaction).unwrap(),
                f.ldk.sign_holder_htlc_transaction(&transaction, 0, &descriptor, secp()).unwrap(),
                &transaction,
                &get_htlc_redeemscript(htlc, &f.parameters.channel_type_features, keys),
                htlc.to_bitcoin_amount().to_sat(),
                &keys.broadcaster_htlc_key.to_public_key(),
            );

            let altered = |change: &dyn Fn(&mut Transaction)| {
                let mut altered = transaction.clone();
                change(&mut altered);
                sign(&altered).is_err()
            };
            assert!(altered(&|tx| tx.output[0].value = Amount::from_sat(1)), "pays less");
            assert!(altered(&|tx| tx.output[0].script_pubkey = ScriptBuf::new_op_return([1; 4])), "pays elsewhere");
            assert!(altered(&|tx| tx.input[0].previous_output.txid = Txid::all_zeros()), "spends another");
            assert!(altered(&|tx| tx.output.clear()), "pays nothing");
            assert!(altered(&|tx| tx.input[0].sequence = Sequence(7)), "another sequence");
        }
    }
}

#[test]
fn announcements_are_signed_with_the_funding_key() {
    let f = fixture(true);
    let keys = [1, 2, 3, 4].map(|n| {
        lightning::routing::gossip::NodeId::from_pubkey(&SecretKey::from_slice(&[n; 32]).unwrap().public_key(secp()))
    });
    let announcement = UnsignedChannelAnnouncement {
        features: lightning::types::features::ChannelFeatures::empty(),
        chain_hash: bitcoin::blockdata::constants::ChainHash::REGTEST,
        short_channel_id: 9,
        node_id_1: keys[0],
        node_id_2: keys[1],
        bitcoin_key_1: keys[2],
        bitcoin_key_2: keys[3],
        excess_data: vec![],
    };
    let ours = f.ours.sign_announcement(&f.parameters, &announcement).unwrap();
    let message = Message::from_digest(
        bitcoin::hashes::sha256d::Hash::hash(&lightning::util::ser::Writeable::encode(&announcement)).to_byte_array(),
    );
    let ldk = f.ldk.sign_channel_announcement_with_funding_key(&f.parameters, &announcement, secp()).unwrap();
    for signature in [ours, ldk] {
        secp().verify_ecdsa(&message, &signature, &f.parameters.holder_pubkeys.funding_pubkey).unwrap();
    }
}
