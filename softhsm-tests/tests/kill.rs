//! The leader is killed with `kill -9` while payments flow in all directions, again and again.

use std::time::{Duration, Instant};

use holdfast_local::Probe;
use holdfast_softhsm_tests::{PROMPT, Scene};

/// Enough for a test; `HOLDFAST_KILLS` says otherwise.
const KILLS: usize = 10;

#[tokio::test(flavor = "multi_thread")]
async fn p2_p5_p7_kill_dash_nine_under_load_loses_nothing_and_closes_nothing() {
    let scene = Scene::with_channels().await.unwrap();
    let node_id = scene.node_id().await.unwrap();
    let kills = std::env::var("HOLDFAST_KILLS").map_or(KILLS, |kills| kills.parse().unwrap());
    let promises: Vec<String> = {
        let mut promises = Vec::new();
        for number in 0..kills {
            promises.push(scene.invoice(1_000_000, &format!("paid after kill {number}")).await.unwrap().invoice);
        }
        promises
    };
    for (number, promise) in promises.iter().enumerate() {
        let mut stream = scene.stream().await.unwrap();
        let moment = Duration::from_millis(200 + getrandom::u64().unwrap() % 1800);
        tokio::time::sleep(moment).await;

        let (leader, _) = scene.leader().await.unwrap();
        let term = scene.info().await.unwrap().term;
        leader.kill().unwrap();
        let gap = stream.settles_after(&scene, Instant::now()).await.unwrap();
        let (_, summary) = stream.finish(&scene).await.unwrap();
        println!("kill {number} after {moment:?}: a payment begun after it settled in {gap:?}; {summary:?}");

        let info = scene.info().await.unwrap();
        assert_eq!(info.node_id, node_id.to_string());
        assert!(info.term > term, "a new term after {term}: {info:?}");
        assert_ne!(info.replica, leader.name());
        scene.settle(scene.alice(), promise).await.expect("the invoice made before the kill is paid after it");

        leader.start().await.unwrap();
        let stands_by = async || Ok(Probe::when(!leader.leads().await?, (), || "it leads".into()));
        scene.wait_for("the killed one to stand by", PROMPT, stands_by).await.unwrap();
    }
}
