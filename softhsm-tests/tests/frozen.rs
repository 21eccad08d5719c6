//! A leader that stops for a while and comes back finds that it is nobody.

use std::{fs, time::Duration};

use holdfast_local::Probe;
use holdfast_softhsm_tests::{PROMPT, Scene};

#[tokio::test(flavor = "multi_thread")]
async fn p3_frozen_leader_is_fenced() {
    let scene = Scene::with_channels().await.unwrap();
    let stream = scene.stream().await.unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;

    let (old, _) = scene.leader().await.unwrap();
    let old_term = scene.info().await.unwrap().term;
    old.freeze().unwrap();
    let other = async || {
        let Probe::Ready((leader, _)) = scene.operator().find_leader().await? else {
            return Ok(Probe::Waiting("nobody leads".into()));
        };
        let name = scene.replicas()[leader].name();
        Ok(Probe::when(name != old.name(), (), || format!("{name} leads")))
    };
    scene.wait_for("the standby to lead", PROMPT, other).await.unwrap();
    let new_term = scene.info().await.unwrap().term;
    assert!(new_term > old_term);
    // Let the new one work before the old one wakes up in the middle of what it was doing.
    tokio::time::sleep(Duration::from_secs(1)).await;
    let records = records_of(&scene, old_term).await;
    let signed = signed_for(&scene, old.name());
    assert!(signed > 0, "the audit log shows what was signed for whom");

    old.thaw().unwrap();
    let ended = async || Ok(Probe::when(!old.process().is_running(), (), || "it runs".into()));
    scene.wait_for("the old leader to end", PROMPT, ended).await.unwrap();
    let exit = old.process().exited().unwrap().unwrap();
    assert!(!exit.success(), "a leader that lost its term does not end as if all were well");

    assert_eq!(records_of(&scene, old_term).await, records, "it wrote nothing");
    assert_eq!(signed_for(&scene, old.name()), signed, "the signer did nothing for it");
    // It sent nothing: nobody saw anything of it that did not fit, or a channel would be closed, and the books
    // would not balance.
    stream.finish(&scene).await.unwrap();
    assert_eq!(scene.info().await.unwrap().term, new_term, "nobody else took the lead");

    old.start().await.unwrap();
    assert!(!old.leads().await.unwrap(), "it stands by");
}

/// How many calls of a replica the signer has answered with what was asked.
fn signed_for(scene: &Scene, replica: &str) -> usize {
    let log = fs::read_to_string(scene.signer().process().log()).unwrap();
    let caller = format!("/replica/{replica} ");
    log.lines().filter(|line| line.contains("audit: done") && line.contains(&caller)).count()
}

/// What the database holds of a term's work.
async fn records_of(scene: &Scene, term: u64) -> Vec<(i64, i64)> {
    let client = scene.postgres().client().await.unwrap();
    let term = i64::try_from(term).unwrap();
    let rows = client.query("SELECT term, sequence FROM holdfast.last_batch WHERE term = $1", &[&term]).await.unwrap();
    rows.iter().map(|row| (row.get(0), row.get(1))).collect()
}
