//! BOLT 12 with an independent node: offers and refunds, paid both ways.

use std::{str::FromStr, time::Duration};

use anyhow::Result;
use holdfast_local::Probe;
use holdfast_proto::{
    error::Error,
    node::v1::{self, PaymentStatus},
};
use holdfast_softhsm_tests::{PROMPT, Scene};
use ldk_node::{
    Event,
    lightning::offers::{offer::Offer, refund::Refund},
};

#[tokio::test(flavor = "multi_thread")]
async fn p2_offers_and_refunds_are_paid_both_ways() {
    let scene = Scene::with_channels().await.unwrap();
    let alice = scene.alice();
    let (_, mut client) = scene.leader().await.unwrap();

    // Ours, which alice pays.
    let request = v1::CreateOfferRequest {
        amount_msat: Some(1_000_000),
        description: "tea".into(),
        label: "shop".into(),
        ..Default::default()
    };
    let ours = client.create_offer(request).await.unwrap().into_inner();
    let offer = Offer::from_str(&ours.offer).unwrap();
    assert!(!offer.paths().is_empty(), "an offer hides nobody without a blinded path");
    let pay = |offer: Offer, note: &'static str| {
        let node = alice.node().clone();
        tokio::task::spawn_blocking(move || node.bolt12_payment().send(&offer, None, Some(note.into()), None))
    };
    pay(offer.clone(), "two cups").await.unwrap().unwrap();
    let received = paid(&scene, |payment| payment.kind == "offer" && payment.direction == 1).await.unwrap();
    assert_eq!((received.amount_msat, received.offer.as_str()), (Some(1_000_000), ours.offer.as_str()));
    assert_eq!(received.payer_note, "two cups");
    scene.whole_payment(&received.payment_hash).await.unwrap();

    // Disabled, it is answered with an error.
    client.disable_offer(v1::DisableOfferRequest { offer_id: ours.offer_id.clone() }).await.unwrap();
    let id = pay(offer, "too late").await.unwrap().unwrap();
    let refused = async || {
        let events = alice.events();
        let failed = events.iter().any(|e| matches!(e, Event::PaymentFailed { payment_id: Some(of), .. } if *of == id));
        Ok(Probe::when(failed, (), || format!("{events:?}")))
    };
    scene.wait_for("alice's payment of a disabled offer to fail", PROMPT, refused).await.unwrap();
    let offers = client.list_offers(v1::ListOffersRequest::default()).await.unwrap().into_inner().offers;
    assert!(offers.len() == 1 && offers[0].disabled_ms > 0 && offers[0].label == "shop", "{offers:?}");

    // Alice's, which we pay: twice asked for under one key, once paid.
    let theirs = alice.node().bolt12_payment().receive(2_000_000, "cake", None, None).unwrap().to_string();
    let before = scene.balances().await.unwrap();
    let request = v1::PayInvoiceRequest {
        invoice: theirs.clone(),
        idempotency_key: "cake-1".into(),
        label: "a cake".into(),
        ..Default::default()
    };
    let (one, two) = {
        let (mut a, mut b) = (client.clone(), client.clone());
        tokio::join!(a.pay_invoice(request.clone()), b.pay_invoice(request.clone()))
    };
    let (one, two) = (one.unwrap().into_inner(), two.unwrap().into_inner());
    assert_eq!((one.status(), &one.payment_id), (PaymentStatus::Succeeded, &two.payment_id), "{one:?}");
    assert_eq!((one.kind.as_str(), &one.offer, one.label.as_str()), ("offer", &theirs, "a cake"));
    assert!(one.payment_id != one.payment_hash && !one.invoice.is_empty() && !one.preimage.is_empty(), "{one:?}");
    let one = scene.whole_payment(&one.payment_id).await.unwrap();
    assert!(one.parts.iter().all(|part| part.hops.len() == 1), "{one:?}");
    let after = scene.balances().await.unwrap();
    assert_eq!(after.totals["alice"], before.totals["alice"] + 2_000_000);
    let other = v1::PayInvoiceRequest { amount_msat: Some(3_000_000), ..request };
    let refusal = Error::from(client.pay_invoice(other).await.unwrap_err());
    assert!(matches!(&refusal, Error::Misuse { field, .. } if field == "idempotency_key"), "{refusal}");

    // A refund of ours, which alice claims.
    let request = v1::CreateRefundRequest { amount_msat: 500_000, description: "sorry".into(), ..Default::default() };
    let made = client.create_refund(request).await.unwrap().into_inner();
    assert_eq!(made.payment.as_ref().unwrap().status(), PaymentStatus::Pending);
    let refund = Refund::from_str(&made.refund).unwrap();
    let node = alice.node().clone();
    tokio::task::spawn_blocking(move || node.bolt12_payment().request_refund_payment(&refund)).await.unwrap().unwrap();
    let id = made.payment.unwrap().payment_id;
    let sent = paid(&scene, |payment| payment.payment_id == id).await.unwrap();
    assert_eq!((sent.kind.as_str(), sent.amount_msat), ("refund", Some(500_000)));

    // And alice's, which we claim.
    let node = alice.node().clone();
    let refund =
        tokio::task::spawn_blocking(move || node.bolt12_payment().initiate_refund(400_000, 3600, None, None, None));
    let refund = refund.await.unwrap().unwrap().to_string();
    let request = v1::ClaimRefundRequest { refund, label: "back".into(), wait_ms: 30_000 };
    let claimed = client.claim_refund(request).await.unwrap().into_inner();
    assert_eq!((claimed.status(), claimed.amount_msat), (PaymentStatus::Succeeded, Some(400_000)), "{claimed:?}");
    assert_eq!((claimed.kind.as_str(), claimed.label.as_str()), ("refund", "back"));
}

/// The first payment of this kind, once it has succeeded.
async fn paid(scene: &Scene, is_it: impl Fn(&v1::Payment) -> bool) -> Result<v1::Payment> {
    let found = async || {
        let payments = scene.payments().await?;
        let found = payments.iter().find(|payment| is_it(payment) && payment.status() == PaymentStatus::Succeeded);
        Ok(found.map_or_else(|| Probe::Waiting(format!("{payments:?}")), |payment| Probe::Ready(payment.clone())))
    };
    scene.wait_for("a payment", Duration::from_secs(60), found).await
}
