//! Hold invoices: settled by another leader than the one that was paid, given back by the guard, cancelled.

use std::time::Duration;

use anyhow::Result;
use bitcoin::hashes::{Hash, sha256};
use holdfast_local::{Client, Counterparty, Outcome, Probe};
use holdfast_proto::node::v1::{self, PaymentStatus};
use holdfast_softhsm_tests::{PROMPT, Scene};
use ldk_node::lightning_types::payment::PaymentHash;

const AMOUNT_MSAT: u64 = 3_000_000;

#[tokio::test(flavor = "multi_thread")]
async fn p7_a_held_payment_survives_a_takeover_and_never_closes_a_channel() {
    let scene = Scene::with_channels().await.unwrap();
    let (alice, bob) = (scene.alice(), scene.bob());
    let before = scene.balances().await.unwrap();

    // Three hold invoices: for a hash of ours, for one that the node makes, and one that nobody will pay.
    let mut preimage = [0; 32];
    getrandom::fill(&mut preimage).unwrap();
    let hash = sha256::Hash::hash(&preimage).to_string();
    let settled = hold(&scene, &hash).await;
    assert_eq!(settled.payment_hash, hash);
    let guarded = hold(&scene, "").await;
    let unpaid = hold(&scene, "").await;

    let (to_settle, to_guard) = (pay(alice, &settled).await, pay(bob, &guarded).await);
    let first = status(&scene, &settled, PaymentStatus::Accepted).await.unwrap();
    let second = status(&scene, &guarded, PaymentStatus::Accepted).await.unwrap();
    assert!(first.cancel_height > 0 && first.preimage.is_empty(), "{first:?}");

    // The leader dies; the new one can still take the money.
    let (leader, _) = scene.leader().await.unwrap();
    leader.kill().unwrap();
    let request = v1::SettleInvoiceRequest { preimage: "00".repeat(32), payment_hash: String::new() };
    let refusal = ask_settle(&scene, request).await.unwrap_err();
    assert!(format!("{refusal:#}").contains("no hold invoice"), "{refusal:#}");
    let request = v1::SettleInvoiceRequest { payment_hash: hash.clone(), ..Default::default() };
    let refusal = ask_settle(&scene, request).await.unwrap_err();
    assert!(format!("{refusal:#}").contains("preimage"), "{refusal:#}");
    let request = v1::SettleInvoiceRequest { preimage: hex::encode(preimage), ..Default::default() };
    let payment = ask_settle(&scene, request.clone()).await.unwrap();
    assert_eq!((payment.status(), payment.amount_msat), (PaymentStatus::Succeeded, Some(AMOUNT_MSAT)), "{payment:?}");
    assert_eq!(payment.preimage, hex::encode(preimage));
    assert_eq!(ask_settle(&scene, request).await.unwrap(), payment, "settled twice is settled once");
    assert!(matches!(alice.outcome(to_settle, PROMPT).await.unwrap(), Outcome::Succeeded { .. }));
    leader.start().await.unwrap();

    // Nobody settles the other one: the guard gives it back in time, and no channel is closed for it.
    let height = scene.bitcoind().height().await.unwrap();
    let blocks = u64::from(second.cancel_height).saturating_sub(u64::from(height));
    scene.mine(u32::try_from(blocks).unwrap()).await.unwrap();
    let cancelled = status(&scene, &guarded, PaymentStatus::Failed).await.unwrap();
    assert!(cancelled.failure.contains("deadline"), "{cancelled:?}");
    let outcome = bob.outcome(to_guard, PROMPT).await.unwrap();
    assert!(matches!(outcome, Outcome::Failed { .. }), "{outcome:?}");
    let request = v1::SettleInvoiceRequest { payment_hash: guarded.payment_hash.clone(), ..Default::default() };
    assert!(ask_settle(&scene, request).await.is_err(), "too late");

    // The operator cancels the third before anybody pays; paying it is refused.
    let (_, mut client) = scene.leader().await.unwrap();
    let request = v1::CancelInvoiceRequest { payment_hash: unpaid.payment_hash.clone() };
    let payment = client.cancel_invoice(request).await.unwrap().into_inner();
    assert_eq!(payment.status(), PaymentStatus::Failed);
    let outcome = alice.outcome(pay(alice, &unpaid).await, PROMPT).await.unwrap();
    assert!(matches!(outcome, Outcome::Failed { .. }), "{outcome:?}");

    // One the node knows the preimage of is settled by its hash alone. Its metadata comes back from the payer.
    let own = v1::CreateInvoiceRequest { metadata: "c0ffee".into(), ..hold_request("") };
    let own = scene.leader().await.unwrap().1.create_invoice(own).await.unwrap().into_inner();
    let paid = pay(bob, &own).await;
    status(&scene, &own, PaymentStatus::Accepted).await.unwrap();
    let request = v1::SettleInvoiceRequest { payment_hash: own.payment_hash.clone(), ..Default::default() };
    let payment = ask_settle(&scene, request).await.unwrap();
    assert_eq!((payment.status(), payment.metadata.as_str()), (PaymentStatus::Succeeded, "c0ffee"), "{payment:?}");
    assert!(matches!(bob.outcome(paid, PROMPT).await.unwrap(), Outcome::Succeeded { .. }));

    let after = scene.balances().await.unwrap();
    assert_eq!(after.channels.len(), before.channels.len(), "no channel was closed");
    assert_eq!(after.totals["ours"], before.totals["ours"] + 2 * AMOUNT_MSAT);
    assert!(alice.closed().is_empty() && bob.closed().is_empty());
}

fn hold_request(payment_hash: &str) -> v1::CreateInvoiceRequest {
    v1::CreateInvoiceRequest {
        amount_msat: Some(AMOUNT_MSAT),
        description: "held".into(),
        hold: true,
        payment_hash: payment_hash.into(),
        final_cltv_delta: 60,
        ..Default::default()
    }
}

async fn hold(scene: &Scene, payment_hash: &str) -> v1::CreateInvoiceResponse {
    let (_, mut client) = scene.leader().await.unwrap();
    client.create_invoice(hold_request(payment_hash)).await.unwrap().into_inner()
}

async fn pay(from: &Counterparty, invoice: &v1::CreateInvoiceResponse) -> PaymentHash {
    from.pay(&invoice.invoice).await.unwrap()
}

async fn ask_settle(scene: &Scene, request: v1::SettleInvoiceRequest) -> Result<v1::Payment> {
    let ask = async |mut client: Client| client.settle_invoice(request.clone()).await;
    scene.operator().ask("settling", Duration::from_secs(60), ask).await
}

async fn status(scene: &Scene, invoice: &v1::CreateInvoiceResponse, status: PaymentStatus) -> Result<v1::Payment> {
    let look = async || {
        let ask = async |mut client: Client| {
            client.get_payment(v1::GetPaymentRequest { payment_hash: invoice.payment_hash.clone() }).await
        };
        let payment = scene.operator().ask("a payment", PROMPT, ask).await?;
        Ok(Probe::when(payment.status() == status, payment.clone(), || format!("{payment:?}")))
    };
    scene.wait_for(&format!("a payment to be {status:?}"), PROMPT, look).await
}
