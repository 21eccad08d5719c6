//! What is refused before any channel's history matters, and what a failing store means.

use std::{
    str::FromStr,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use bitcoin::secp256k1::{
    PublicKey,
    ecdsa::{RecoverableSignature, RecoveryId},
};
use lightning::{
    ln::msgs::UnsignedNodeAnnouncement,
    routing::gossip::{NodeAlias, NodeId},
    types::{features::NodeFeatures, payment::PaymentSecret},
    util::{message_signing, ser::Writeable},
};
use lightning_invoice::{Bolt11Invoice, Currency, InvoiceBuilder, RawBolt11Invoice};
use v1::sign_gossip_request::Message as Gossip;

use super::*;
use crate::guard::{Name, StoreError, Write};

#[test]
fn a_channels_keys_are_set_up_once() {
    let (opener, acceptor) = (Side::new(1), Side::new(2));
    let good = opener.parameters(&acceptor, true, TYPES[1]);
    let changed = |change: &dyn Fn(&mut v1::ChannelParameters)| {
        let mut changed = good.clone();
        change(&mut changed);
        opener.register(changed)
    };
    assert_eq!(refused(changed(&|p| p.holder_selected_contest_delay = 5)), "contest-delay");
    assert_eq!(refused(changed(&|p| p.counterparty_selected_contest_delay = 5000)), "contest-delay");
    assert_eq!(refused(changed(&|p| p.channel_type = 0)), "channel-type");
    assert_eq!(misused(changed(&|p| p.holder_pubkeys = p.counterparty_pubkeys.clone())), "parameters.holder_pubkeys");
    opener.register(good.clone()).unwrap();
    opener.register(good.clone()).unwrap();
    assert_eq!(refused(changed(&|p| p.channel_value_sat += 1)), "channel-id-reuse");
    assert_eq!(refused(changed(&|p| p.is_outbound_from_holder = false)), "channel-id-reuse");
    let mut elsewhere = Side { of: opener.of.clone(), ..Side::over(1, Arc::clone(&opener.store)) };
    elsewhere.of.funding_outpoint = Some(v1::OutPoint { txid: vec![8; 32], vout: 0 });
    assert_eq!(refused(elsewhere.register(good)), "channel-id-reuse");
}

#[test]
fn narrower_limits_refuse_new_channels_and_let_old_ones_be_closed() {
    let mut pair = Pair::open(TYPES[1]);
    let parameters = pair.opener.parameters(&pair.acceptor, true, TYPES[1]);
    pair.opener.restart();
    pair.opener.core.rules.holder_contest_delay.min = 1000;
    pair.opener.register(parameters.clone()).unwrap();
    pair.opener.sign_holder(pair.opener.commitment(0, 900_000, &[])).unwrap();
    let mut fresh = Side::new(3);
    fresh.core.rules.holder_contest_delay.min = 1000;
    let parameters = v1::ChannelParameters { holder_pubkeys: Some(fresh.public_keys()), ..parameters };
    assert_eq!(refused(fresh.register(parameters)), "contest-delay");
}

#[test]
fn a_splice_that_nobody_asked_for_revokes_nothing() {
    let mut pair = Pair::open(TYPES[1]);
    // The peer of the made-up splice is the replica itself, so that it could countersign all it likes.
    let stranger = Side::new(9);
    let keys = |side: &Side| {
        let request = v1::GetChannelPublicKeysRequest {
            term: 1,
            channel_keys_id: KEYS_ID.to_vec(),
            splice_parent_funding_txid: Some(vec![7; 32]),
        };
        side.core.get_channel_public_keys(&side.caller, request).unwrap()
    };
    let theirs =
        v1::ChannelPublicKeys { funding_pubkey: keys(&stranger).funding_pubkey, ..pair.acceptor.public_keys() };
    let parameters = v1::ChannelParameters {
        holder_pubkeys: Some(keys(&pair.opener)),
        counterparty_pubkeys: Some(theirs),
        splice_parent_funding_txid: Some(vec![7; 32]),
        ..pair.opener.parameters(&pair.acceptor, true, TYPES[1])
    };
    pair.opener.of.funding_outpoint = Some(v1::OutPoint { txid: vec![66; 32], vout: 0 });
    assert_eq!(refused(pair.opener.register(parameters)), "funding-script");
    assert_eq!(refused(pair.opener.release(0)), "revoke-order");
}

#[test]
fn what_is_kept_before_it_can_be_checked_is_small() {
    let (opener, acceptor) = (Side::new(1), Side::new(2));
    opener.register(opener.parameters(&acceptor, true, TYPES[1])).unwrap();
    let good = opener.sign(acceptor.commitment(0, 0, &[])).unwrap();
    let many = v1::SignCounterpartyCommitmentResponse { htlc_signatures: vec![good.signature.clone()], ..good.clone() };
    assert_eq!(refused(acceptor.validate(acceptor.commitment(0, 0, &[]), many.clone())), "holder-countersigned");
    assert_eq!(
        refused(acceptor.validate(acceptor.commitment(0, 0, &[htlc(true, 1_000, 1)]), many)),
        "first-commitment"
    );
    assert!(!acceptor.state().known);
    acceptor.validate(acceptor.commitment(0, 0, &[]), good).unwrap();
}

#[test]
fn a_sweep_that_no_node_would_relay_is_not_signed() {
    let side = Side::new(1);
    let script = side.core.keys.destination_script();
    let sweep = |inputs: u32| {
        let transaction = bitcoin::Transaction {
            version: bitcoin::transaction::Version::TWO,
            lock_time: bitcoin::absolute::LockTime::ZERO,
            input: (0..inputs)
                .map(|vout| bitcoin::TxIn {
                    previous_output: bitcoin::OutPoint::new(Txid::from_byte_array([9; 32]), vout),
                    ..Default::default()
                })
                .collect(),
            output: vec![bitcoin::TxOut { value: sat(1_000), script_pubkey: script.clone() }],
        };
        let output = v1::StaticOutput {
            outpoint: Some(v1::OutPoint { txid: vec![9; 32], vout: 0 }),
            output: Some(v1::TxOut { value_sat: 2_000, script_pubkey: script.to_bytes() }),
        };
        let request = v1::SignSpendableOutputsRequest {
            term: 1,
            outputs: vec![v1::SpendableOutput { kind: Some(v1::spendable_output::Kind::Static(output)) }],
            transaction: bitcoin::consensus::serialize(&transaction),
        };
        side.core.sign_spendable_outputs(&side.caller, request)
    };
    assert_eq!(sweep(2_000).unwrap().witnesses.len(), 1);
    assert_eq!(misused(sweep(2_500)), "transaction");
}

#[test]
fn a_wallet_transaction_that_no_node_would_relay_is_not_looked_at() {
    let side = Side::new(1);
    let spend = |bytes: usize| {
        let transaction = bitcoin::Transaction {
            version: bitcoin::transaction::Version::TWO,
            lock_time: bitcoin::absolute::LockTime::ZERO,
            input: vec![bitcoin::TxIn::default()],
            output: vec![bitcoin::TxOut { value: sat(1_000), script_pubkey: ScriptBuf::from(vec![0x6a; bytes]) }],
        };
        let psbt = bitcoin::Psbt::from_unsigned_tx(transaction).unwrap().serialize();
        side.core.sign_wallet_psbt(&side.caller, v1::SignWalletPsbtRequest { term: 1, psbt })
    };
    // Looked at, it says nothing of what it spends.
    assert_eq!(refused(spend(99_000)), "onchain-inputs");
    assert_eq!(misused(spend(100_000)), "psbt");
}

/// A store from which somebody took the record of the term.
struct Termless(Arc<dyn GuardStore>);

impl GuardStore for Termless {
    fn load(&self) -> Result<Vec<(Name, Vec<u8>)>, StoreError> {
        Ok(self.0.load()?.into_iter().filter(|(name, _)| *name != Name::Term).collect())
    }

    fn get(&self, name: &Name) -> Result<Option<Vec<u8>>, StoreError> {
        self.0.get(name)
    }

    fn put(&self, write: Write) -> Result<(), StoreError> {
        self.0.put(write)
    }
}

#[test]
fn p8_a_term_that_is_gone_is_not_a_first_start() {
    let side = Side::new(1);
    let start = || {
        let identity = Arc::new(SeedIdentity::new(&Zeroizing::new([1; 32])).unwrap());
        let custody = Arc::new(TestCustody { seed: [1; 32], identity });
        let store = Arc::new(Termless(Arc::clone(&side.store)));
        SignerCore::new(custody, Network::Regtest, store, RulesConfig::default()).map(drop)
    };
    start().unwrap();
    side.register(side.parameters(&Side::new(2), true, TYPES[1])).unwrap();
    assert!(start().unwrap_err().to_string().contains("term: is gone"));
}

#[test]
fn identity_each_call_is_open_only_to_those_it_is_meant_for() {
    let side = Side::new(1);
    let ecdh = v1::EcdhRequest { term: 1, point: side.point(0), tweak: None };
    side.core.ecdh(&caller(Role::Front), ecdh.clone()).unwrap();
    assert_eq!(refused(side.core.ecdh(&caller(Role::Operator), ecdh.clone())), "identity");
    assert_eq!(refused(side.core.ecdh(&caller(Role::Signer), ecdh)), "identity");
    let operator = caller(Role::Operator);
    side.core.get_status(&operator, v1::GetStatusRequest {}).unwrap();
    assert_eq!(refused(side.core.get_status(&caller(Role::Front), v1::GetStatusRequest {})), "identity");
    let term = v1::AnnounceTermRequest { term: 9 };
    assert_eq!(refused(side.core.announce_term(&operator, term)), "identity");
    let status = side.core.status();
    assert!(status.ready);
    assert_eq!(status.refusals.get("identity"), Some(&4));
    assert!(
        side.core
            .metrics_text(std::time::SystemTime::now())
            .contains(r#"holdfast_signer_refusals_total{rule="identity"} 4"#)
    );
}

#[test]
fn p3_a_stale_replica_gets_nothing() {
    let pair = Pair::open(TYPES[1]);
    let newer = Identity::new("test", Role::Replica, "two").unwrap();
    pair.opener.core.announce_term(&newer, v1::AnnounceTermRequest { term: 2 }).unwrap();
    let stale = Error::StaleTerm { newest: 2 };
    assert_eq!(pair.opener.sign(pair.acceptor.commitment(1, 0, &[])), Err(stale.clone()));
    assert_eq!(pair.opener.release(0), Err(stale.clone()));
    assert_eq!(pair.opener.close(1, 1), Err(stale.clone()));
    let secrets = v1::GetReplicaSecretsRequest { term: 1 };
    assert_eq!(pair.opener.core.get_replica_secrets(&pair.opener.caller, secrets), Err(stale));
    assert_eq!(pair.opener.core.status().refusals.get("term"), Some(&4));
}

fn invoice(currency: Currency, expiry: u64, payee: Option<PublicKey>) -> RawBolt11Invoice {
    let builder = InvoiceBuilder::new(currency)
        .description("coffee".into())
        .payment_hash(sha256::Hash::hash(&[1; 32]))
        .payment_secret(PaymentSecret([2; 32]))
        .duration_since_epoch(Duration::from_secs(1_700_000_000))
        .min_final_cltv_expiry_delta(144)
        .expiry_time(Duration::from_secs(expiry))
        .amount_milli_satoshis(1_000);
    match payee {
        Some(payee) => builder.payee_pub_key(payee).build_raw().unwrap(),
        None => builder.build_raw().unwrap(),
    }
}

fn unsigned(invoice: RawBolt11Invoice) -> String {
    let zero = RecoverableSignature::from_compact(&[0; 64], RecoveryId::from_i32(0).unwrap()).unwrap();
    invoice.sign::<_, ()>(|_| Ok(zero)).unwrap().to_string()
}

#[test]
fn invoices_carry_our_node_our_network_and_a_sane_expiry() {
    let side = Side::new(1);
    let node_id = PublicKey::from_slice(&side.core.status().node_id).unwrap();
    let sign =
        |invoice| side.core.sign_invoice(&side.caller, v1::SignInvoiceRequest { term: 1, invoice: unsigned(invoice) });
    for payee in [None, Some(node_id)] {
        let raw = invoice(Currency::Regtest, 3600, payee);
        let signed = sign(raw.clone()).unwrap();
        assert_eq!(sign(raw.clone()).unwrap(), signed);
        let id = RecoveryId::from_i32(signed.recovery_id as i32).unwrap();
        let signature = RecoverableSignature::from_compact(&signed.signature, id).unwrap();
        let text = raw.sign::<_, ()>(|_| Ok(signature)).unwrap().to_string();
        assert_eq!(Bolt11Invoice::from_str(&text).unwrap().get_payee_pub_key(), node_id);
    }
    let other = PublicKey::from_slice(&side.point(0)).unwrap();
    assert_eq!(refused(sign(invoice(Currency::Bitcoin, 3600, None))), "invoice");
    assert_eq!(refused(sign(invoice(Currency::Regtest, 400 * 24 * 3600, None))), "invoice");
    assert_eq!(refused(sign(invoice(Currency::Regtest, 3600, Some(other)))), "invoice");
    let garbage = v1::SignInvoiceRequest { term: 1, invoice: "lnbcrt1".into() };
    assert_eq!(misused(side.core.sign_invoice(&side.caller, garbage)), "invoice");
}

#[test]
fn we_announce_ourselves_and_nobody_else() {
    let side = Side::new(1);
    let node_id = PublicKey::from_slice(&side.core.status().node_id).unwrap();
    let announcement = |node_id: PublicKey| {
        UnsignedNodeAnnouncement {
            features: NodeFeatures::empty(),
            timestamp: 1,
            node_id: NodeId::from_pubkey(&node_id),
            rgb: [0; 3],
            alias: NodeAlias([0; 32]),
            addresses: vec![],
            excess_address_data: vec![],
            excess_data: vec![],
        }
        .encode()
    };
    let sign = |bytes: Vec<u8>| {
        let message = Some(Gossip::NodeAnnouncement(bytes));
        side.core.sign_gossip(&side.caller, v1::SignGossipRequest { term: 1, message })
    };
    sign(announcement(node_id)).unwrap();
    assert_eq!(misused(sign(announcement(PublicKey::from_slice(&side.point(0)).unwrap()))), "node_announcement");
    let mut trailing = announcement(node_id);
    trailing.truncate(20);
    assert_eq!(misused(sign(trailing)), "node_announcement");
    assert_eq!(
        misused(side.core.sign_gossip(&side.caller, v1::SignGossipRequest { term: 1, message: None })),
        "message"
    );
}

#[test]
fn messages_are_signed_as_other_nodes_read_them() {
    let side = Side::new(1);
    let node_id = PublicKey::from_slice(&side.core.status().node_id).unwrap();
    for length in 0..70 {
        let message = vec![b'x'; length];
        let request = v1::SignMessageRequest { term: 1, message: message.clone() };
        let signature = side.core.sign_message(&side.caller, request).unwrap().signature;
        assert_eq!(message_signing::recover_pk(&message, &signature).unwrap(), node_id);
    }
}

#[test]
fn ecdh_with_a_tweak_is_ecdh_with_the_tweaked_key() {
    let side = Side::new(1);
    let peer = bitcoin::secp256k1::SecretKey::from_slice(&[77; 32]).unwrap();
    let tweak = bitcoin::secp256k1::Scalar::from_be_bytes([3; 32]).unwrap();
    let ask = |tweak: Option<Vec<u8>>| {
        let point = peer.public_key(secp()).serialize().to_vec();
        side.core.ecdh(&side.caller, v1::EcdhRequest { term: 1, point, tweak }).unwrap().shared_secret
    };
    let node_id = PublicKey::from_slice(&side.core.status().node_id).unwrap();
    let from_peer = |node: PublicKey| bitcoin::secp256k1::ecdh::SharedSecret::new(&node, &peer).secret_bytes().to_vec();
    assert_eq!(ask(None), from_peer(node_id));
    assert_eq!(ask(Some(vec![3; 32])), from_peer(node_id.mul_tweak(secp(), &tweak).unwrap()));
}

/// Custody never sees one: some tokens sign and derive with whatever they are given.
#[test]
fn ecdh_with_what_is_no_point_is_refused_at_the_entrance() {
    let side = Side::new(1);
    let good = side.point(0);
    let prefixed = |prefix: u8, x: &[u8]| [&[prefix], x].concat();
    let five = [&[0; 31][..], &[5]].concat();
    for (point, what) in [
        (prefixed(2, &five), "x = 5 has no y"),
        (prefixed(3, &five), "x = 5 has no y"),
        (prefixed(2, &[0xff; 32]), "x beyond the field"),
        (vec![0; 33], "infinity, padded"),
        (vec![0], "infinity"),
        (prefixed(4, &good[1..]), "half of an uncompressed point"),
        (PublicKey::from_slice(&good).unwrap().serialize_uncompressed().to_vec(), "uncompressed"),
        (good[..32].to_vec(), "too short"),
        (vec![], "nothing"),
    ] {
        let request = v1::EcdhRequest { term: 1, point, tweak: None };
        assert_eq!(misused(side.core.ecdh(&side.caller, request)), "point", "{what}");
    }
}

/// A store that can be told to lose what it is given.
struct Losing {
    inner: EmbeddedStore,
    losing: AtomicBool,
}

impl GuardStore for Losing {
    fn load(&self) -> Result<Vec<(Name, Vec<u8>)>, StoreError> {
        self.inner.load()
    }

    fn get(&self, name: &Name) -> Result<Option<Vec<u8>>, StoreError> {
        self.inner.get(name)
    }

    fn put(&self, write: Write) -> Result<(), StoreError> {
        match self.losing.load(Ordering::SeqCst) {
            true => Err(StoreError::Unavailable("disk full".into())),
            false => self.inner.put(write),
        }
    }
}

#[test]
fn p4_nothing_is_answered_that_could_not_be_recorded() {
    let pair = Pair::open(TYPES[1]);
    let store = Arc::new(Losing { inner: EmbeddedStore::in_memory().unwrap(), losing: AtomicBool::new(false) });
    let side = Side::over(1, Arc::clone(&store) as Arc<dyn GuardStore>);
    side.register(side.parameters(&pair.acceptor, true, TYPES[1])).unwrap();
    let mine = side.commitment(0, 900_000, &[]);
    let signed = pair.acceptor.sign(mine.clone()).unwrap();

    let unavailable =
        |result: Result<(), Error>| assert!(matches!(result, Err(Error::Unavailable { .. })), "{result:?}");
    store.losing.store(true, Ordering::SeqCst);
    unavailable(side.sign(pair.acceptor.commitment(0, 0, &[])).map(drop));
    unavailable(side.validate(mine.clone(), signed.clone()));
    unavailable(side.close(1, 1).map(drop));
    let term = v1::AnnounceTermRequest { term: 2 };
    unavailable(side.core.announce_term(&side.caller, term).map(drop));
    assert_eq!(side.state().counterparty_number, None);

    // When the disk is back, so is everything: other content may be signed, for none ever was.
    store.losing.store(false, Ordering::SeqCst);
    side.sign(pair.acceptor.commitment(0, 1, &[])).unwrap();
    side.validate(mine.clone(), signed).unwrap();
    store.losing.store(true, Ordering::SeqCst);
    unavailable(side.sign_holder(mine).map(drop));
}

/// A replica that was taken over does not close a channel to itself, and what it asked for left no trace.
#[test]
fn a_close_pays_only_ourselves_or_where_the_configuration_says() {
    let mut pair = Pair::open(TYPES[1]);
    let foreign = pair.acceptor.core.keys.shutdown_script();
    let close = |side: &Side, script: &ScriptBuf| side.close_to(script.clone(), 700_000, 299_000);
    assert_eq!(refused(close(&pair.opener, &foreign)), "close-destination");
    assert!(!pair.opener.state().close_signed);
    let named =
        |side: &Side| side.core.get_node_info(&side.caller, v1::GetNodeInfoRequest {}).unwrap().close_destinations;
    assert!(named(&pair.opener).is_empty());

    let address = bitcoin::Address::from_script(&foreign, Network::Regtest).unwrap().into_unchecked();
    pair.opener.core.rules.destinations.push(address);
    assert_eq!(named(&pair.opener), [foreign.to_bytes()]);
    close(&pair.opener, &foreign).unwrap();
    assert_eq!(refused(close(&pair.opener, &ScriptBuf::new_op_return([1; 4]))), "close-destination");
}
