//! Payments' rows beyond their status: parts, idempotency keys, offers, and payments without a hash.

use holdfast_node::store::batch::{Direction, PartHop, PaymentChange, PaymentKind, PaymentPart, PaymentStatus};
use holdfast_node::store::postgres::{KeyRow, PgReader, ReadError};
use holdfast_node::store::{Batch, CommitError, Effect, Store};

use crate::server::{Server, open};
use crate::store::{kv_key, payment, put};

fn batch(effects: Vec<Effect>) -> Batch {
    Batch { effects, ..Batch::default() }
}

fn key(name: &str, request: u8, payment: u8) -> Effect {
    Effect::PaymentKey { key: name.into(), request: [request; 32], payment_id: [payment; 32] }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_belongs_to_one_payment_and_a_batch_that_says_otherwise_is_not_written() {
    let server = Server::quick().await;
    let (_leadership, store) = open(&server.config()).await;
    let reader = PgReader::new(server.config());
    assert_eq!(reader.payment_key("a").await.unwrap(), None);
    let begun = Effect::Payment(payment(1, Direction::Outbound, PaymentStatus::Pending));
    store.commit(&batch(vec![begun, key("a", 7, 1), key("b", 7, 1)])).await.unwrap();
    // A repeat of the same says nothing new.
    store.commit(&batch(vec![key("a", 7, 1)])).await.unwrap();
    let row = KeyRow { request: [7; 32], payment_id: [1; 32] };
    assert_eq!(reader.payment_key("a").await.unwrap(), Some(row));
    assert_eq!(reader.payment_key("b").await.unwrap(), Some(row));

    for (request, id) in [(7, 2), (8, 1)] {
        let second = Effect::Payment(payment(2, Direction::Outbound, PaymentStatus::Pending));
        let twice = Batch { kv: vec![put("x", b"1")], ..batch(vec![second, key("a", request, id)]) };
        assert!(matches!(store.commit(&twice).await, Err(CommitError::Broken(_))));
    }
    assert_eq!(reader.payment_in([2; 32], Direction::Outbound).await.unwrap(), None);
    assert!(!store.load().await.unwrap().kv.contains_key(&kv_key("x")), "nothing of such a batch is there");
    assert_eq!(reader.payment_key("a").await.unwrap(), Some(row));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_payment_keeps_its_parts_and_what_was_noted_of_it() {
    let server = Server::quick().await;
    let (_leadership, store) = open(&server.config()).await;
    let reader = PgReader::new(server.config());
    let hop = PartHop { node_id: [3; 33], channel: "1x2x3".into(), fee_msat: 5 };
    let part = |name: u8, failure: Option<&str>| PaymentPart {
        part_id: [name; 32],
        payment_id: [1; 32],
        direction: Direction::Outbound,
        failure: failure.map(str::to_owned),
        channel: Some("1x2x3".into()),
        hops: vec![hop.clone()],
        amount_msat: 1000,
        fee_msat: 5,
        held_ms: Some(300),
        failed_channel: failure.map(|_| "4x5x6".into()),
    };
    let noted = PaymentChange {
        label: Some("rent".into()),
        metadata: Some(vec![1, 2]),
        cancel_height: Some(800_000),
        ..payment(1, Direction::Outbound, PaymentStatus::Pending)
    };
    let parts = vec![Effect::PaymentPart(part(1, Some("no\0way"))), Effect::PaymentPart(part(2, None))];
    store.commit(&batch(vec![Effect::Payment(noted)])).await.unwrap();
    store.commit(&batch(parts.clone())).await.unwrap();
    let row = reader.payment([1; 32]).await.unwrap().unwrap();
    store.commit(&batch(parts)).await.unwrap();
    let succeeded = Effect::Payment(payment(1, Direction::Outbound, PaymentStatus::Succeeded));
    store.commit(&batch(vec![succeeded])).await.unwrap();
    let after = reader.payment([1; 32]).await.unwrap().unwrap();
    assert_eq!((&after.label, &after.metadata, after.cancel_height), (&row.label, &row.metadata, row.cancel_height));
    assert_eq!((after.label.as_deref(), after.cancel_height), (Some("rent"), Some(800_000)));

    let found = reader.parts([1; 32], Direction::Outbound).await.unwrap();
    let [failed, succeeded] = &found[..] else { panic!("a repeat changed something: {found:?}") };
    assert_eq!((failed.succeeded, failed.failed_channel.as_deref()), (false, Some("4x5x6")));
    assert_eq!(failed.failure.as_deref(), Some("no\u{fffd}way"));
    assert_eq!((succeeded.succeeded, &succeeded.failure, &succeeded.hops), (true, &None, &vec![hop]));
    assert_eq!((succeeded.amount_msat, succeeded.fee_msat, succeeded.held_ms), (1000, 5, Some(300)));
    assert!(reader.parts([1; 32], Direction::Inbound).await.unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_offer_is_paid_before_its_hash_is_known_and_a_held_payment_waits() {
    use PaymentStatus::{Accepted, Failed, Pending, Succeeded};
    let server = Server::quick().await;
    let (_leadership, store) = open(&server.config()).await;
    let reader = PgReader::new(server.config());
    let offer = Effect::OfferCreated {
        offer_id: [9; 32],
        offer: "lno1ours".into(),
        amount_msat: None,
        description: "tea".into(),
        label: None,
        expires_at_s: Some(4_000_000_000),
    };
    let begun = PaymentChange {
        offer: Some("lno1theirs".into()),
        ..PaymentChange::new([1; 32], Direction::Outbound, PaymentKind::Offer, Pending)
    };
    store.commit(&batch(vec![offer.clone(), Effect::Payment(begun.clone())])).await.unwrap();
    let row = reader.payment([1; 32]).await.unwrap().expect("found by its id");
    assert_eq!((row.payment_hash, row.kind, row.offer.as_deref()), (None, PaymentKind::Offer, Some("lno1theirs")));
    let invoiced = PaymentChange { payment_hash: Some([2; 32]), invoice: Some("00".into()), offer: None, ..begun };
    store.commit(&batch(vec![Effect::Payment(invoiced)])).await.unwrap();
    let row = reader.payment([2; 32]).await.unwrap().expect("found by its hash");
    assert_eq!((row.payment_id, row.offer.as_deref()), ([1; 32], Some("lno1theirs")));

    // A payment for an offer of ours gets the offer by its id.
    let received = PaymentChange {
        offer_id: Some([9; 32]),
        payer_note: Some("for you".into()),
        ..PaymentChange::of_hash([3; 32], Direction::Inbound, PaymentKind::Offer, Succeeded)
    };
    let disabled = Effect::OfferDisabled { offer_id: [9; 32] };
    store.commit(&batch(vec![Effect::Payment(received), disabled.clone()])).await.unwrap();
    let row = reader.payment([3; 32]).await.unwrap().unwrap();
    assert_eq!((row.offer.as_deref(), row.payer_note.as_deref()), (Some("lno1ours"), Some("for you")));
    let before = reader.offers(10, None).await.unwrap();
    store.commit(&batch(vec![offer, disabled])).await.unwrap();
    assert_eq!(reader.offers(10, None).await.unwrap(), before, "changed by a repeat");
    assert_eq!((before[0].expires_ms, before[0].disabled_ms.is_some()), (Some(4_000_000_000_000), true));

    for (status, then) in [(Accepted, Accepted), (Failed, Failed), (Succeeded, Succeeded), (Accepted, Succeeded)] {
        store.commit(&batch(vec![Effect::Payment(payment(5, Direction::Inbound, status))])).await.unwrap();
        assert_eq!(reader.payment([5; 32]).await.unwrap().unwrap().status, then);
    }
}

/// A standby may lag: to it, what was just paid is still to be paid.
#[tokio::test(flavor = "multi_thread")]
async fn whether_something_is_paid_is_not_asked_of_a_hot_standby() {
    let mut server = Server::quick().await;
    let (leadership, store) = open(&server.config()).await;
    let (anybodys, leaders) = (PgReader::new(server.config()), PgReader::of_primary(server.config()));
    let paid = Effect::Payment(payment(1, Direction::Outbound, PaymentStatus::Succeeded));
    store.commit(&batch(vec![paid, key("a", 7, 1)])).await.unwrap();
    let row = leaders.payment_in([1; 32], Direction::Outbound).await.unwrap().unwrap();
    assert_eq!(row.status, PaymentStatus::Succeeded);
    drop((leadership, store));

    server.crash();
    server.write_for_postgres("data/standby.signal", "");
    server.launch().await;
    let recovers: bool = server.admin().await.query_one("SELECT pg_is_in_recovery()", &[]).await.unwrap().get(0);
    assert!(recovers, "no standby, so this test would show nothing");
    assert_eq!(anybodys.payment_in([1; 32], Direction::Outbound).await.unwrap(), Some(row));
    assert!(matches!(leaders.payment_in([1; 32], Direction::Outbound).await, Err(ReadError::Unavailable(_))));
    assert!(matches!(leaders.payment_key("a").await, Err(ReadError::Unavailable(_))));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_payment_that_ldk_tells_of_again_is_known_at_load_and_keeps_its_parts() {
    let server = Server::quick().await;
    let (_leadership, store) = open(&server.config()).await;
    let part = PaymentPart {
        part_id: [6; 32],
        payment_id: [1; 32],
        direction: Direction::Inbound,
        failure: None,
        channel: None,
        hops: Vec::new(),
        amount_msat: 1000,
        fee_msat: 0,
        held_ms: None,
        failed_channel: None,
    };
    let received = payment(1, Direction::Inbound, PaymentStatus::Succeeded);
    for _ in 0..2 {
        store.commit(&batch(vec![Effect::Payment(received.clone()), Effect::PaymentPart(part.clone())])).await.unwrap();
    }
    let others = [
        payment(2, Direction::Inbound, PaymentStatus::Pending),
        payment(3, Direction::Outbound, PaymentStatus::Succeeded),
    ];
    store.commit(&batch(others.into_iter().map(Effect::Payment).collect())).await.unwrap();
    let reader = PgReader::of_primary(server.config());
    assert_eq!(reader.received_parts(&[[1; 32], [2; 32], [3; 32], [9; 32]]).await.unwrap(), [[6; 32]]);
    assert!(reader.received_parts(&[[2; 32], [3; 32]]).await.unwrap().is_empty());
    let parts = "SELECT count(*) FROM holdfast_public.payment_parts";
    assert_eq!(server.admin().await.query_one(parts, &[]).await.unwrap().get::<_, i64>(0), 1);
}
