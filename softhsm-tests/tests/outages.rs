//! Parts go away for a while and come back. Nothing closes, nothing is lost, and work goes on by itself.

use std::time::{Duration, Instant};

use anyhow::Result;
use holdfast_softhsm_tests::Scene;

#[tokio::test(flavor = "multi_thread")]
async fn p7_signer_outage_is_a_pause() {
    outage(async |scene, round| {
        scene.signer().kill()?;
        tokio::time::sleep(Duration::from_millis(500 * round)).await;
        scene.signer().start().await
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn p7_postgres_outage_is_a_pause() {
    outage(async |scene, round| {
        scene.postgres().kill()?;
        tokio::time::sleep(Duration::from_millis(500 * round)).await;
        scene.postgres().start().await?;
        // A leader that cannot tell whether it still leads ends, and is started again as by systemd.
        for replica in scene.replicas() {
            if replica.process().wait_exit(Duration::from_secs(3)).is_ok() {
                replica.process().start()?;
            }
        }
        Ok(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn p7_bitcoind_outage_is_a_pause() {
    outage(async |scene, round| {
        scene.bitcoind().stop()?;
        tokio::time::sleep(Duration::from_millis(500 * round)).await;
        scene.bitcoind().start().await?;
        scene.mine(1).await
    })
    .await;
}

/// Three outages under load, each longer than the one before. After each, payments settle again by themselves.
async fn outage(cause: impl AsyncFn(&Scene, u64) -> Result<()>) {
    let scene = Scene::with_channels().await.unwrap();
    for round in 1..=3 {
        let mut stream = scene.stream().await.unwrap();
        tokio::time::sleep(Duration::from_millis(700)).await;
        scene.explain(cause(&scene, round).await).unwrap();
        let pause = stream.settles_after(&scene, Instant::now()).await.unwrap();
        let (_, summary) = stream.finish(&scene).await.unwrap();
        println!("outage {round}: a payment settled {pause:?} after its end; {summary:?}");
    }
}
