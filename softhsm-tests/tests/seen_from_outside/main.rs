//! What monitoring and operators see of a running deployment: metrics, the status page, dashboards, alerts,
//! traces.

mod browser;
mod collector;
mod metrics;
mod page;
mod prometheus;
mod traces;
mod trouble;

use std::{fs::OpenOptions, io::Write, path::Path};

use anyhow::Result;
use holdfast_local::{Probe, web};
use holdfast_softhsm_tests::{PROMPT, Scene};

/// One deployment for all of it: what each sees is another side of the same payments and the same takeover.
#[tokio::test(flavor = "multi_thread")]
async fn a_deployment_is_seen_from_outside_as_the_documents_say() {
    let scene = Scene::with_channels().await.unwrap();
    let collector = collector::Collector::start().await.unwrap();
    send_traces_to(&scene, &collector.endpoint).await.unwrap();

    let prometheus = scene.explain(prometheus::Prometheus::start(&scene)).unwrap();

    let alice = scene.alice();
    scene.pay(&alice.invoice(1_500_000, "seen from outside").await.unwrap()).await.unwrap();
    scene.receive(scene.bob(), 2_000_000).await.unwrap();
    scene.explain(traces::one_trace_covers_pay_commit_and_signer(&scene, &collector).await).unwrap();

    scene.explain(metrics::every_name_is_documented_and_every_documented_name_is_served(&scene).await).unwrap();
    scene.explain(metrics::figures_are_those_of_the_node(&scene).await).unwrap();
    scene.explain(page::leader_and_standby_show_the_same_cluster(&scene).await).unwrap();
    scene.explain(browser::looks_at_it(&scene).await).unwrap();
    if let Some(prometheus) = &prometheus {
        // With an HTLC in flight, which has a deadline.
        scene.hold(scene.bob(), alice, 31_000).await.unwrap();
        prometheus.has_data_for_everything(&scene).await.unwrap();
    }
    scene.explain(trouble::a_refusal_is_counted_and_pages(&scene, prometheus.as_ref()).await).unwrap();
    let told = trouble::a_signer_that_is_away_is_told_while_the_node_waits_for_it(&scene, prometheus.as_ref()).await;
    scene.explain(told).unwrap();
}

/// Writes the collector into the configurations, and starts everything again: the signer, the standby, the leader.
async fn send_traces_to(scene: &Scene, endpoint: &str) -> Result<()> {
    let table = format!("\n[telemetry]\notlp_endpoint = \"{endpoint}\"\n");
    let append = |file: &Path| -> Result<()> {
        OpenOptions::new().append(true).open(file)?.write_all(table.as_bytes())?;
        Ok(())
    };
    append(scene.signer().configuration())?;
    scene.signer().kill()?;
    scene.signer().start().await?;
    let standby = scene.standby().await?.name().to_owned();
    let (first, last): (Vec<_>, Vec<_>) = scene.replicas().iter().partition(|replica| replica.name() == standby);
    for replica in first.into_iter().chain(last) {
        append(replica.configuration())?;
        replica.stop()?;
        replica.start().await?;
    }
    // Whoever leads now has its peers again before anything is asked of it.
    scene
        .wait_for("channels to be usable after the restarts", PROMPT, async || {
            let info = scene.info().await?;
            Ok(Probe::when(info.usable_channels == 2, (), || format!("{info:?}")))
        })
        .await
}

/// What `path` of a health listener answers with status 200.
async fn get(address: &str, path: &str) -> Result<String> {
    let answer = web::get(address, path).await?;
    anyhow::ensure!(answer.status == 200, "{address}{path}: {} {}", answer.status, answer.body);
    Ok(answer.body)
}
