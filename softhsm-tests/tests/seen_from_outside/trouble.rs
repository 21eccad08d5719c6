//! Trouble is seen as well: a refusal by rule, and a signer that is away while LDK waits for it.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use holdfast_local::{
    Outcome, Probe,
    web::{self, metric},
};
use holdfast_proto::node::v1;
use holdfast_softhsm_tests::{PROMPT, Scene};

use super::{get, prometheus::Prometheus};

/// Dearer than the signer allows.
const FEERATE_SAT_PER_KVB: u64 = 5_000_000;
const SEEN: Duration = Duration::from_secs(30);

pub async fn a_refusal_is_counted_and_pages(scene: &Scene, prometheus: Option<&Prometheus>) -> Result<()> {
    let (_, mut client) = scene.leader().await?;
    let address = client.new_address(v1::NewAddressRequest {}).await?.into_inner().address;
    let request = v1::SendCoinsRequest {
        address,
        amount_sat: Some(100_000),
        feerate_sat_per_kvb: Some(FEERATE_SAT_PER_KVB),
        ..Default::default()
    };
    let refused = client.send_coins(request).await.err().context("the signer signed for a fee beyond its limit")?;
    ensure!(refused.message().contains("onchain-fee"), "{refused:?}");
    let text = get(&scene.signer().health(), "/metrics").await?;
    ensure!(metric(&text, "holdfast_signer_refusals_total{rule=\"onchain-fee\"}") == Some(1.0), "{text}");
    if let Some(prometheus) = prometheus {
        let firing = "ALERTS{alertname=\"HoldfastRefusals\",alertstate=\"firing\",rule=\"onchain-fee\"}";
        prometheus.answers(scene, "the alert of a refusal", firing).await?;
        let shown = prometheus.query_of("holdfast-signer.json", "Refusals by rule")?;
        prometheus.answers(scene, "the refusal on its panel", &format!("{shown} == 1 or {shown} > 1")).await?;
    }
    Ok(())
}

/// One payment of each direction waits inside LDK; everything that tells how things are answers, and tells it.
pub async fn a_signer_that_is_away_is_told_while_the_node_waits_for_it(
    scene: &Scene,
    prometheus: Option<&Prometheus>,
) -> Result<()> {
    let (alice, bob) = (scene.alice(), scene.bob());
    let (leader, mut client) = scene.leader().await?;
    let ours = scene.invoice(1_000_000, "while the signer is away").await?.invoice;
    let theirs = v1::PayInvoiceRequest { invoice: alice.invoice(1_000_000, "as well").await?, ..Default::default() };

    scene.signer().kill()?;
    let hash = bob.pay(&ours).await?;
    let paying = tokio::spawn(async move { client.pay_invoice(theirs).await });
    for replica in scene.replicas() {
        let (leads, health) = (replica.name() == leader.name(), replica.health());
        let told = async || {
            let (text, page) = (get(&health, "/metrics").await?, get(&health, "/").await?);
            let ready = web::get(&health, "/readyz").await?;
            let stuck = metric(&text, "holdfast_snapshot_age_seconds").unwrap_or(0.0) > 3.0;
            let told = metric(&text, "holdfast_part_up{part=\"signer\"}") == Some(0.0)
                && page.contains(if leads { "leads, and waits" } else { "cannot lead now" })
                && ready.status == 503
                && ready.body.contains("signer");
            Ok(Probe::when(told && stuck == leads, (), || format!("{}\n{text}\n{page}", ready.body)))
        };
        scene.wait_for(&format!("{} to tell that the signer is away", replica.name()), SEEN, told).await?;
    }
    if let Some(prometheus) = prometheus {
        for alert in ["HoldfastNoSigner", "HoldfastPartAway"] {
            prometheus.answers(scene, alert, &format!("ALERTS{{alertname=\"{alert}\"}}")).await?;
        }
    }
    scene.signer().start().await?;
    let outcome = scene.explain(bob.outcome(hash, PROMPT).await)?;
    ensure!(matches!(outcome, Outcome::Succeeded { .. }), "bob's payment: {outcome:?}");
    let paid = paying.await??.into_inner();
    ensure!(paid.status() == v1::PaymentStatus::Succeeded, "our payment: {paid:?}");
    Ok(())
}
