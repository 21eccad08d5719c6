//! What comes back is not always what went away: an old backup, a token that is not there.

use std::{fs, time::Duration};

use holdfast_local::{Probe, web};
use holdfast_softhsm_tests::{PROMPT, Scene};

#[tokio::test(flavor = "multi_thread")]
async fn p6_a_database_from_an_old_backup_closes_nothing_and_revokes_nothing() {
    let scene = Scene::with_channels().await.unwrap();
    let node_id = scene.node_id().await.unwrap();
    stop_replicas(&scene);
    let backup = scene.postgres().back_up().await.unwrap();
    start_replicas(&scene).await;
    scene.channels_usable(2).await.unwrap();
    let stream = scene.stream().await.unwrap();
    tokio::time::sleep(Duration::from_secs(2)).await;
    let (_, summary) = stream.finish(&scene).await.unwrap();
    assert!(summary.succeeded > 0, "the backup is older than something: {summary:?}");

    stop_replicas(&scene);
    scene.postgres().restore(&backup).await.unwrap();
    start_replicas(&scene).await;
    let says_so = async || {
        let said = scene.replicas().iter().any(|replica| {
            let log = fs::read_to_string(replica.process().log()).unwrap_or_default();
            log.contains("database behind signer")
        });
        Ok(Probe::when(said, (), || "it does not say that its database is behind".into()))
    };
    scene.wait_for("the replica to see that its database is old", PROMPT, says_so).await.unwrap();

    // It answers, it has the newest term of all, and it does not touch the channels; both peers are there to talk to.
    tokio::time::sleep(Duration::from_secs(3)).await;
    let info = scene.info().await.unwrap();
    assert_eq!(info.node_id, node_id.to_string());
    assert_eq!(info.usable_channels, 0, "a channel that the signer knows to be further is not run");
    assert_eq!(scene.channels().await.unwrap().len(), 2, "and it is not closed");
    assert!(scene.bitcoind().mempool().await.unwrap().is_empty(), "nothing was broadcast");
    for counterparty in scene.counterparties() {
        assert!(counterparty.closed().is_empty(), "{}: {:?}", counterparty.name(), counterparty.closed());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn p8_a_lost_token_is_not_an_empty_one() {
    let scene = Scene::with_channels().await.unwrap();
    let node_id = scene.node_id().await.unwrap();
    scene.signer().kill().unwrap();
    let tokens = scene.token().tokens();
    let elsewhere = tokens.with_extension("elsewhere");
    fs::rename(tokens, &elsewhere).unwrap();
    fs::create_dir(tokens).unwrap();

    let signer = scene.signer().process();
    signer.start().unwrap();
    // It may end with an error, or run and be unready; what it may not do is work, or make keys.
    let refused = async || {
        let ready = web::get(&scene.signer().health(), "/readyz").await.is_ok_and(|answer| answer.status == 200);
        assert!(!ready, "ready without its token");
        Ok(Probe::when(!signer.is_running(), (), || "it runs".into()))
    };
    let ended = holdfast_local::wait::wait_for("the signer to give up", Duration::from_secs(5), refused).await;
    if ended.is_ok() {
        assert!(!signer.exited().unwrap().unwrap().success());
    }
    let said = signer.log_tail(5);
    assert!(said.contains("token"), "it says what is missing: {said}");
    assert_eq!(fs::read_dir(tokens).unwrap().count(), 0, "nothing was made in place of what is missing");
    signer.kill().unwrap();

    fs::remove_dir(tokens).unwrap();
    fs::rename(&elsewhere, tokens).unwrap();
    scene.signer().start().await.unwrap();
    assert_eq!(scene.node_id().await.unwrap(), node_id);
    scene.receive(scene.alice(), 1_000_000).await.unwrap();
}

fn stop_replicas(scene: &Scene) {
    for replica in scene.replicas() {
        replica.stop().unwrap();
    }
}

async fn start_replicas(scene: &Scene) {
    for replica in scene.replicas() {
        scene.explain(replica.start().await).unwrap();
    }
}
