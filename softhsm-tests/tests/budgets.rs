//! What a payment may cost, what it is made of, and that a client who repeats it after a takeover does not pay twice.

use std::time::Duration;

use anyhow::Result;
use bitcoin::Amount;
use holdfast_local::{Client, Counterparty, Probe, wait::wait_for};
use holdfast_proto::{
    error::Error,
    node::v1::{self, PaymentStatus},
};
use holdfast_softhsm_tests::{PROMPT, Scene};
use ldk_node::{Event, lightning_types::payment::PaymentPreimage};

const CAPACITY_SAT: u64 = 2_000_000;
const SMALL_MSAT: u64 = 5_000_000;

/// We have two channels with alice, and alice one with bob: what we pay bob costs a fee, and what is more than one channel
/// lets through goes in parts.
async fn chain() -> Scene {
    let scene = Scene::empty().await.unwrap();
    let (alice, bob) = (scene.alice(), scene.bob());
    scene.fund_all(3, Amount::from_sat(5_000_000)).await.unwrap();
    for _ in 0..2 {
        scene.open_channel_to(alice, CAPACITY_SAT).await.unwrap();
    }
    scene.open_channel_between(alice, bob, CAPACITY_SAT).await.unwrap();
    // Our node knows of that channel by gossip alone.
    let (_, client) = scene.leader().await.unwrap();
    let reaches = async || {
        let request = v1::ProbeRequest {
            node_id: bob.node_id().to_string(),
            amount_msat: SMALL_MSAT,
            timeout_seconds: 5,
            ..Default::default()
        };
        let found = client.clone().probe(request).await?.into_inner();
        Ok(Probe::when(found.reachable, (), || format!("{found:?}")))
    };
    scene.wait_for("a way to bob", Duration::from_secs(90), reaches).await.unwrap();
    scene
}

#[tokio::test(flavor = "multi_thread")]
async fn p5_payments_keep_to_their_budget_go_in_parts_and_are_not_made_twice() {
    let scene = chain().await;
    let (alice, bob) = (scene.alice(), scene.bob());
    let (_, mut client) = scene.leader().await.unwrap();

    // A probe tells the fee, and that too much is too much.
    let probe =
        |amount_msat| v1::ProbeRequest { node_id: bob.node_id().to_string(), amount_msat, ..Default::default() };
    let found = client.probe(probe(SMALL_MSAT)).await.unwrap().into_inner();
    assert!(found.reachable && found.fee_msat > 0 && found.hops.len() == 2, "{found:?}");
    let too_much = client.probe(probe(3 * CAPACITY_SAT * 1000)).await.unwrap().into_inner();
    assert!(!too_much.reachable && !too_much.failure.is_empty(), "{too_much:?}");
    let nothing = v1::ProbeRequest { max_fee_msat: Some(0), ..probe(SMALL_MSAT) };
    assert!(!client.probe(nothing).await.unwrap().into_inner().reachable);

    // A payment that may cost nothing is not made; its row says so, also on the replica that stands by.
    let invoice = bob.invoice(SMALL_MSAT, "dear").await.unwrap();
    let request = v1::PayInvoiceRequest {
        invoice: invoice.clone(),
        max_fee_msat: Some(0),
        label: "too dear".into(),
        ..Default::default()
    };
    let failed = client.pay_invoice(request.clone()).await.unwrap().into_inner();
    assert_eq!((failed.status(), failed.failure.as_str()), (PaymentStatus::Failed, "RouteNotFound"), "{failed:?}");
    for index in 0..2 {
        let request = v1::GetPaymentRequest { payment_hash: failed.payment_hash.clone() };
        let row = scene.operator().replica(index).get_payment(request).await.unwrap().into_inner();
        assert_eq!((row.status(), row.label.as_str()), (PaymentStatus::Failed, "too dear"));
    }
    // With what the probe said it succeeds, and the row has the way it went.
    let request = v1::PayInvoiceRequest { max_fee_msat: Some(found.fee_msat), ..request };
    let paid = client.pay_invoice(request).await.unwrap().into_inner();
    assert_eq!((paid.status(), paid.fee_msat), (PaymentStatus::Succeeded, Some(found.fee_msat)), "{paid:?}");
    let row = scene.whole_payment(&paid.payment_hash).await.unwrap();
    let [part] = &row.parts[..] else { panic!("{row:?}") };
    assert!(part.succeeded && part.fee_msat == found.fee_msat, "{part:?}");
    assert_eq!(part.hops.last().unwrap().node_id, bob.node_id().to_string());

    // More than one channel lets through, both ways.
    let invoice = alice.invoice(300_000_000, "much").await.unwrap();
    let much = scene.pay(&invoice).await.unwrap();
    let row = scene.whole_payment(&much.payment_hash).await.unwrap();
    assert!(row.parts.iter().filter(|part| part.succeeded).count() > 1, "{row:?}");
    let us = scene.node_id().await.unwrap();
    let settled = async || {
        let channels = scene.channels().await?;
        let rest = channels.iter().all(|channel| channel.pending_htlcs == 0);
        let hers: Vec<_> = alice.channels().into_iter().filter(|channel| channel.counterparty_node_id == us).collect();
        let largest = hers.iter().map(|channel| channel.next_outbound_htlc_limit_msat).max().unwrap_or(0);
        let all: u64 = hers.iter().map(|channel| channel.next_outbound_htlc_limit_msat).sum();
        let back_msat = largest + (all - largest) / 2;
        Ok(Probe::when(rest && back_msat > largest, back_msat, || format!("{channels:?}")))
    };
    let back_msat = scene.wait_for("alice to have money in both channels", PROMPT, settled).await.unwrap();
    let ours = scene.invoice(back_msat, "much back").await.unwrap();
    scene.settle(alice, &ours.invoice).await.unwrap();
    let row = scene.whole_payment(&ours.payment_hash).await.unwrap();
    assert!(row.amount_msat == Some(back_msat) && row.parts.len() > 1, "{row:?}");

    // What we charge is changed while we run; alice hears of it, and later leaders keep it.
    let channel = scene.channels().await.unwrap()[0].clone();
    let policy = v1::SetChannelPolicyRequest {
        channel_id: channel.channel_id.clone(),
        base_fee_msat: Some(7),
        fee_ppm: Some(77),
        cltv_delta: Some(77),
    };
    assert_ne!((channel.base_fee_msat, channel.fee_ppm, channel.cltv_delta), (7, 77, 77));
    client.set_channel_policy(policy).await.unwrap();
    let heard = async || {
        let all = alice.channels();
        let ours = all.iter().find(|theirs| theirs.channel_id.to_string() == channel.channel_id);
        let heard = ours.is_some_and(|theirs| {
            theirs.counterparty_forwarding_info_fee_base_msat == Some(7)
                && theirs.counterparty_forwarding_info_fee_proportional_millionths == Some(77)
                && theirs.counterparty_forwarding_info_cltv_expiry_delta == Some(77)
        });
        Ok(Probe::when(heard, (), || format!("{ours:?}")))
    };
    scene.wait_for("alice to hear of our policy", PROMPT, heard).await.unwrap();

    // The leader dies while payments under keys are on their way; the client repeats them to the next one.
    let keysend = |round: u64| v1::SendKeysendRequest {
        node_id: alice.node_id().to_string(),
        amount_msat: 1_000_000 + round,
        idempotency_key: format!("round {round}"),
        ..Default::default()
    };
    let mut ends = Vec::new();
    for round in 0..3 {
        let (leader, client) = scene.leader().await.unwrap();
        let first = tokio::spawn({
            let mut client = client.clone();
            let request = keysend(round);
            async move { client.send_keysend(request).await }
        });
        // At any moment the first time; then when the beginning is committed, but most likely not yet answered.
        let mut committed = None;
        if round == 0 {
            tokio::time::sleep(Duration::from_millis(getrandom::u64().unwrap() % 60)).await;
        } else {
            let row = async || {
                let request = v1::ListPaymentsRequest { limit: 1, before: None };
                let newest = scene.operator().replica(0).list_payments(request).await?.into_inner().payments;
                let it = newest.into_iter().find(|payment| payment.amount_msat == Some(1_000_000 + round));
                Ok(it.map_or_else(|| Probe::Waiting("not yet".into()), |payment| Probe::Ready(payment.payment_hash)))
            };
            committed = Some(wait_for("the payment's row", PROMPT, row).await.unwrap());
        }
        leader.kill().unwrap();
        let answered = first.await.unwrap().is_ok();
        let ask = async |mut client: Client| client.send_keysend(keysend(round)).await;
        let payment = scene.operator().ask("the payment, asked for again", Duration::from_secs(90), ask).await.unwrap();
        let again = scene.operator().ask("and again", Duration::from_secs(90), ask).await.unwrap();
        assert_eq!(payment.payment_hash, again.payment_hash);
        assert!(committed.is_none_or(|hash| hash == payment.payment_hash), "another one than before: {payment:?}");
        println!("round {round}: the dead leader {}, then {payment:?}", if answered { "answered" } else { "did not" });
        // However it ends, alice gets it as often as its row says.
        let end = ended(&scene, &payment.payment_hash).await.unwrap();
        let expected = usize::from(end.status() == PaymentStatus::Succeeded);
        let counted = async || {
            let count = arrived(alice, round);
            Ok(Probe::when(count == expected, (), || format!("arrived {count} times, {end:?}")))
        };
        scene.wait_for("the payment at alice, once", PROMPT, counted).await.unwrap();
        ends.push(end);
        leader.start().await.unwrap();
    }
    // A second payment of any round would have come by now: nothing is under way any more.
    let settled = async || {
        let channels = scene.channels().await?;
        Ok(Probe::when(channels.iter().all(|channel| channel.pending_htlcs == 0), (), || format!("{channels:?}")))
    };
    scene.wait_for("all HTLCs to be gone", PROMPT, settled).await.unwrap();
    let request = v1::ListPaymentsRequest { limit: 1000, before: None };
    let (_, mut client) = scene.leader().await.unwrap();
    let all = client.list_payments(request).await.unwrap().into_inner().payments;
    for (round, end) in (0..).zip(&ends) {
        let rows: Vec<_> = all.iter().filter(|row| row.amount_msat == Some(1_000_000 + round)).collect();
        assert!(rows.len() == 1 && rows[0].payment_hash == end.payment_hash, "round {round}: {rows:?}");
        assert_eq!(rows[0].status(), end.status(), "round {round}");
        let expected = usize::from(end.status() == PaymentStatus::Succeeded);
        assert_eq!(arrived(alice, round), expected, "round {round}: {end:?}");
    }
    let channels = scene.channels().await.unwrap();
    let kept = channels.iter().find(|kept| kept.channel_id == channel.channel_id).unwrap();
    assert_eq!((kept.base_fee_msat, kept.fee_ppm, kept.cltv_delta), (7, 77, 77), "{kept:?}");
    let wrong = v1::SendKeysendRequest { amount_msat: 7, ..keysend(0) };
    let (_, mut client) = scene.leader().await.unwrap();
    let refusal = Error::from(client.send_keysend(wrong).await.unwrap_err());
    assert!(matches!(&refusal, Error::Misuse { field, .. } if field == "idempotency_key"), "{refusal}");
    assert!(alice.closed().is_empty());
}

/// Its own HTLCs take more than half of what the only channel lets through, so there is no second route.
#[tokio::test(flavor = "multi_thread")]
async fn p5_a_payment_under_way_asked_for_again_is_joined_and_not_called_failed() {
    const HELD_MSAT: u64 = 150_000_000;
    let scene = Scene::empty().await.unwrap();
    let alice = scene.alice();
    scene.fund_all(1, Amount::from_sat(5_000_000)).await.unwrap();
    scene.open_channel_to(alice, CAPACITY_SAT).await.unwrap();
    let mut preimage = [0; 32];
    getrandom::fill(&mut preimage).unwrap();
    let preimage = PaymentPreimage(preimage);
    let invoice = alice.hold_invoice(HELD_MSAT, preimage.into()).await.unwrap();
    let (_, client) = scene.leader().await.unwrap();
    let pay = async |invoice: &str, wait_ms| {
        let request = v1::PayInvoiceRequest { invoice: invoice.into(), wait_ms, ..Default::default() };
        client.clone().pay_invoice(request).await.map(|answer| answer.into_inner())
    };
    let begun = pay(&invoice, 1).await.unwrap();
    assert_eq!(begun.status(), PaymentStatus::Pending, "{begun:?}");
    let held = async || Ok(Probe::when(alice.holds(preimage.into()), (), || "not there yet".into()));
    scene.wait_for("alice to hold the payment", PROMPT, held).await.unwrap();

    let first = {
        let (mut client, invoice) = (client.clone(), invoice.clone());
        tokio::spawn(async move { client.pay_invoice(v1::PayInvoiceRequest { invoice, ..Default::default() }).await })
    };
    let other = alice.invoice(HELD_MSAT, "no room for it").await.unwrap();
    let no_room = pay(&other, 1).await.unwrap();
    assert_eq!(no_room.failure, "RouteNotFound", "there is a second route, so this test would show nothing");
    for _ in 0..2 {
        let again = pay(&invoice, 100).await.unwrap();
        assert_eq!((again.status(), again.failure.as_str()), (PaymentStatus::Pending, ""), "{again:?}");
    }
    assert!(!first.is_finished(), "whoever waits was told of an end that is none");
    alice.claim(preimage, HELD_MSAT).await.unwrap();
    let first = first.await.unwrap().unwrap().into_inner();
    assert_eq!(first.status(), PaymentStatus::Succeeded, "{first:?}");
    let last = pay(&invoice, 0).await.unwrap();
    assert_eq!((last.status(), last.payment_hash), (PaymentStatus::Succeeded, first.payment_hash));
    assert_eq!(alice.received_msat(preimage.into()), [HELD_MSAT]);
}

/// How often alice has received the payment of a round.
fn arrived(alice: &Counterparty, round: u64) -> usize {
    let of_round = |event: &&Event| matches!(event, Event::PaymentReceived { amount_msat, .. } if *amount_msat == 1_000_000 + round);
    alice.events().iter().filter(of_round).count()
}

/// A payment once it is over.
async fn ended(scene: &Scene, id: &str) -> Result<v1::Payment> {
    let look = async || {
        let (_, mut client) = scene.leader().await?;
        let payment = client.get_payment(v1::GetPaymentRequest { payment_hash: id.into() }).await?.into_inner();
        let over = matches!(payment.status(), PaymentStatus::Succeeded | PaymentStatus::Failed);
        Ok(Probe::when(over, payment.clone(), || format!("{payment:?}")))
    };
    scene.wait_for("the end of a payment", Duration::from_secs(90), look).await
}
