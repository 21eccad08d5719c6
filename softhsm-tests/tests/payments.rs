//! Money moves, both ways and through us, and channels end in an orderly manner.

use std::time::{Duration, Instant};

use holdfast_local::{Client, Outcome, Probe};
use holdfast_proto::node::v1;
use holdfast_softhsm_tests::{PROMPT, Scene};

#[tokio::test(flavor = "multi_thread")]
async fn p5_payments_both_ways_and_forwarded_settle_once_on_both_sides() {
    let scene = Scene::with_channels().await.unwrap();
    let alice = scene.alice();
    let info = scene.info().await.unwrap();
    assert_eq!((info.usable_channels, info.network.as_str()), (2, "regtest"));

    let stream = scene.stream().await.unwrap();
    tokio::time::sleep(Duration::from_secs(5)).await;
    let (sent, summary) = stream.finish(&scene).await.unwrap();
    let failed: Vec<_> = sent.iter().filter(|sent| matches!(sent.outcome, Outcome::Failed { .. })).collect();
    assert!(failed.is_empty(), "nothing was in the way: {failed:?}");
    for from in ["ours", "alice", "bob"] {
        assert!(
            sent.iter().any(|sent| sent.from == from) && sent.iter().any(|sent| sent.to == from),
            "{from}: {sent:?}"
        );
    }
    assert!(summary.fees_earned_msat > 0, "forwarding earns: {summary:?}");

    let payment = scene.keysend(alice, 123_456).await.unwrap();
    assert_eq!(payment.kind, "keysend");
    let preimage = hex::decode(&payment.preimage).unwrap();
    use bitcoin::hashes::{Hash, sha256};
    let hash = sha256::Hash::hash(&preimage).to_byte_array();
    assert_eq!(hex::encode(hash), payment.payment_hash, "the preimage is the receipt");
}

#[tokio::test(flavor = "multi_thread")]
async fn p2_an_invoice_is_paid_once_however_often_it_is_asked_for() {
    let scene = Scene::with_channels().await.unwrap();
    let alice = scene.alice();
    let invoice = alice.invoice(1_000_000, "once").await.unwrap();
    let before = scene.balances().await.unwrap();
    let pay = async || {
        let (_, mut client) = scene.leader().await.unwrap();
        let request = v1::PayInvoiceRequest { invoice: invoice.clone(), ..Default::default() };
        client.pay_invoice(request).await
    };
    let (one, other) = tokio::join!(pay(), pay());
    assert!(one.is_ok() || other.is_ok(), "{one:?} {other:?}");
    // The same again is either answered with the same payment or refused; it never pays again.
    let _ = pay().await;
    let paid = scene.payments().await.unwrap();
    let paid: Vec<_> = paid.iter().filter(|payment| payment.invoice == invoice).collect();
    assert_eq!(paid.len(), 1, "{paid:?}");
    let after = scene.balances().await.unwrap();
    assert_eq!(after.totals["alice"], before.totals["alice"] + 1_000_000);
}

#[tokio::test(flavor = "multi_thread")]
async fn p6_a_cooperative_close_pays_both_sides_and_nobody_waits() {
    let scene = Scene::with_channels().await.unwrap();
    let channels = scene.channels().await.unwrap();
    let funds = scene.balance().await.unwrap();
    for channel in &channels {
        let (_, mut client) = scene.leader().await.unwrap();
        let request = v1::CloseChannelRequest { channel_id: channel.channel_id.clone(), ..Default::default() };
        client.close_channel(request).await.unwrap();
    }
    let closes = async || {
        let mempool = scene.bitcoind().mempool().await?;
        Ok(Probe::when(mempool.len() == channels.len(), mempool.clone(), || format!("{mempool:?}")))
    };
    scene.wait_for("a closing transaction for each channel", PROMPT, closes).await.unwrap();
    scene.mine(6).await.unwrap();

    // A force-close would make our side wait for the contest delay; here the coins are in the wallet.
    let back = async || {
        let balance = scene.balance().await?;
        let home = balance.lightning_sat == 0 && balance.closing_sat == 0;
        let fees = 20_000;
        let right = balance.onchain_confirmed_sat + fees >= funds.onchain_confirmed_sat + funds.lightning_sat;
        Ok(Probe::when(home && right, (), || format!("{balance:?}, was {funds:?}")))
    };
    scene.wait_for("our coins to be in the wallet", PROMPT, back).await.unwrap();
    assert!(scene.channels().await.unwrap().is_empty());
    for counterparty in scene.counterparties() {
        let closed = counterparty.closed();
        assert!(closed.len() == 1 && !closed[0].to_lowercase().contains("force"), "{closed:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn p3_handover_passes_the_lead_and_fails_no_payment() {
    let scene = Scene::with_channels().await.unwrap();
    let (first, _) = scene.leader().await.unwrap();
    let mut stream = scene.stream().await.unwrap();
    tokio::time::sleep(Duration::from_secs(2)).await;

    let ask = async |mut client: Client| client.handover(v1::HandoverRequest {}).await;
    scene.operator().ask("a handover", PROMPT, ask).await.unwrap();
    let (second, _) = scene.leader().await.unwrap();
    assert_ne!(second.name(), first.name());
    stream.settles_after(&scene, Instant::now()).await.unwrap();
    let (sent, summary) = stream.finish(&scene).await.unwrap();
    let failed: Vec<_> = sent.iter().filter(|sent| matches!(sent.outcome, Outcome::Failed { .. })).collect();
    assert!(failed.is_empty(), "{summary:?}: {failed:?}");
}
