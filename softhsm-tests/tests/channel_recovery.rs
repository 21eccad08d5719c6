//! All of Postgres is lost, and there is a backup of the channels: what was ours in them comes home, to the satoshi,
//! whoever leads, and whether a channel was closed before or after.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use anyhow::Result;
use bitcoin::{OutPoint, Transaction};
use holdfast_local::{Deployment, Probe};
use holdfast_proto::node::v1;
use holdfast_softhsm_tests::{PROMPT, Scene, onchain::outpoint};
use serde_json::Value;

#[tokio::test(flavor = "multi_thread")]
async fn p6_what_is_ours_in_channels_of_both_types_comes_home_after_all_of_postgres_is_lost() {
    let scene = scene().await;
    let file = export(&scene);
    let before = scene.balance().await.unwrap();
    let with_alice = scene.channel_with(scene.alice()).await.unwrap();
    let fundings = fundings(&scene).await.unwrap();

    // Nothing is lost yet: the channels are refused by name, and go on.
    let refused = cli(&scene, &["channel-backup", "recover", text(&file)]);
    assert_eq!(refused.status.code(), Some(65));
    assert_eq!(states(&json(&refused)), ["refused", "refused"]);
    assert!(
        said(&refused).contains(&with_alice.channel_id) && said(&refused).contains("the database has this channel")
    );
    scene.channels_usable(2).await.unwrap();
    scene.receive(scene.alice(), 1_000_000).await.unwrap();
    let before = v1::GetBalanceResponse { lightning_sat: before.lightning_sat + 1000, ..before };

    lose_everything(&scene).await;
    assert_eq!(scene.channels().await.unwrap().len(), 0);
    what_is_no_backup_of_ours_is_refused(&scene, &file);

    let begun = cli(&scene, &["channel-backup", "recover", text(&file)]);
    assert!(begun.status.success(), "{}", said(&begun));
    scene.take_over().await.unwrap();
    let mut closings = Vec::new();
    for funding in fundings {
        closings.push(scene.unconfirmed_spender("the peer's commitment", funding).await.unwrap());
    }
    // The file names them still, as long as nothing is home: a copy made now is no worse than the old one.
    assert_eq!(channels(&export_json(&scene)).len(), 2);

    // Found, and taken back before it counts.
    scene.mine(3).await.unwrap();
    reach(&scene, &["closed", "closed"]).await;
    scene.bitcoind().reorganise(6).await.unwrap();
    scene.synced().await.unwrap();
    reach(&scene, &["taken-back", "taken-back"]).await;
    scene.mine(1).await.unwrap();
    reach(&scene, &["closed", "closed"]).await;
    scene.mine(5).await.unwrap();
    reach_any(&scene, &["sweeping", "recovered"]).await;
    scene.take_over().await.unwrap();
    let recovered = async || {
        scene.mine(1).await?;
        let states = states_now(&scene);
        Ok(Probe::when(states == ["recovered", "recovered"], (), || format!("{states:?}")))
    };
    scene.wait_for("both outputs to be swept", PROMPT * 2, recovered).await.unwrap();
    scene.until_home(1, |balance| balance.onchain_confirmed_sat > 0).await.unwrap();

    // To the satoshi. We opened the channel with alice, so its commitment's fee was ours.
    let found: u64 = recoveries(&scene).iter().map(|channel| channel["ours_sat"].as_u64().unwrap()).sum();
    assert_eq!(found + fee(&with_alice, &closings[0]), before.lightning_sat);
    let home = scene.balance().await.unwrap();
    let fees = found - home.onchain_confirmed_sat;
    assert!(fees < 5_000, "{fees} sat of fees");
    println!("{found} sat found, {fees} sat of fees");

    // Again: nothing changes, and nothing is left to name. The coins of before are found as those of any lost wallet.
    let again = cli(&scene, &["channel-backup", "recover", text(&file)]);
    assert!(again.status.success(), "{}", said(&again));
    assert_eq!(states(&json(&again)), ["recovered", "recovered"]);
    assert_eq!(channels(&export_json(&scene)).len(), 0);
    let rescan = cli(&scene, &["wallet", "rescan", "0"]);
    assert!(rescan.status.success(), "{}", said(&rescan));
    let all = scene.balance().await.unwrap();
    assert_eq!(all.onchain_confirmed_sat, before.onchain_confirmed_sat + home.onchain_confirmed_sat);
}

/// One that we closed by force, whose output still waits out its delay, and one that the peer closed, both before anybody
/// knew of a recovery.
#[tokio::test(flavor = "multi_thread")]
async fn p6_channels_that_were_closed_before_the_loss_are_found_by_looking_back() {
    let scene = scene().await;
    let (alice, bob) = (scene.alice(), scene.bob());
    let file = export(&scene);
    let before = scene.balance().await.unwrap();
    let with_alice = scene.channel_with(alice).await.unwrap();
    let fundings = fundings(&scene).await.unwrap();
    let opened = scene.bitcoind().height().await.unwrap();
    let node_id = scene.node_id().await.unwrap();

    scene.force_close(&with_alice).await.unwrap();
    let ours = scene.unconfirmed_spender("our commitment", fundings[0]).await.unwrap();
    stop_replicas(&scene);
    bob.close_channel(bob.channels()[0].user_channel_id, node_id, true).await.unwrap();
    scene.unconfirmed_spender("bob's commitment", fundings[1]).await.unwrap();
    scene.bitcoind().mine(20).await.unwrap();
    scene.postgres().lose().await.unwrap();
    start_replicas(&scene).await;

    let from = opened.to_string();
    let begun = cli(&scene, &["channel-backup", "recover", text(&file), "--from-height", &from]);
    assert!(begun.status.success(), "{}", said(&begun));
    reach_any(&scene, &["sweeping", "recovered"]).await;
    let recovered = async || {
        scene.mine(8).await?;
        let states = states_now(&scene);
        Ok(Probe::when(states == ["recovered", "recovered"], (), || format!("{states:?}")))
    };
    scene.wait_for("both outputs to be swept", PROMPT * 4, recovered).await.unwrap();

    scene.bitcoind().reorganise(6).await.unwrap();
    scene.synced().await.unwrap();
    scene.wait_for("both outputs to be swept again", PROMPT * 2, recovered).await.unwrap();
    scene.until_home(1, |balance| balance.onchain_confirmed_sat > 0).await.unwrap();
    let found: u64 = recoveries(&scene).iter().map(|channel| channel["ours_sat"].as_u64().unwrap()).sum();
    assert_eq!(found + fee(&with_alice, &ours), before.lightning_sat);
    // Our child that brought our commitment into a block was the lost wallet's to pay.
    assert!(found - scene.balance().await.unwrap().onchain_confirmed_sat < 5_000);
}

/// With alice a channel with anchors, with bob one without.
async fn scene() -> Scene {
    let names = ["alice", "bob"];
    let builder = Deployment::builder().replicas(2).counterparties(&names).durable(false).without_anchors(&["bob"]);
    let scene = Scene::of(builder).await.unwrap().opened().await.unwrap();
    let (with_alice, with_bob) =
        (scene.channel_with(scene.alice()).await.unwrap(), scene.channel_with(scene.bob()).await.unwrap());
    assert_eq!([&*with_alice.channel_type, &*with_bob.channel_type], ["anchors", "static-remote-key"]);
    scene
}

async fn fundings(scene: &Scene) -> Result<[OutPoint; 2]> {
    let (with_alice, with_bob) = (scene.channel_with(scene.alice()).await?, scene.channel_with(scene.bob()).await?);
    Ok([outpoint(&with_alice.funding_outpoint)?, outpoint(&with_bob.funding_outpoint)?])
}

/// What a commitment left to the miners.
fn fee(channel: &v1::Channel, commitment: &Transaction) -> u64 {
    channel.capacity_sat - commitment.output.iter().map(|output| output.value.to_sat()).sum::<u64>()
}

async fn lose_everything(scene: &Scene) {
    stop_replicas(scene);
    scene.postgres().lose().await.unwrap();
    start_replicas(scene).await;
}

fn what_is_no_backup_of_ours_is_refused(scene: &Scene, file: &Path) {
    let backup = fs::read_to_string(file).unwrap();
    let wrong = file.with_extension("wrong");
    let parsed: Value = serde_json::from_str(&backup).unwrap();
    let change = |change: &dyn Fn(&mut Value)| {
        let mut changed = parsed.clone();
        change(&mut changed);
        changed.to_string()
    };
    for (content, says) in [
        (backup[1..].to_owned(), "no backup of channels"),
        (change(&|v| v["node_id"] = "02".repeat(33).into()), "recover it there"),
        (change(&|v| v["network"] = "bitcoin".into()), "this node is on regtest"),
        (change(&|v| v["channels"][1]["channel_keys_id"] = "11".into()), "channel_keys_id"),
        (change(&|v| v["channels"][1] = v["channels"][0].clone()), "twice"),
    ] {
        fs::write(&wrong, content).unwrap();
        let output = cli(scene, &["channel-backup", "recover", text(&wrong)]);
        assert_eq!(output.status.code(), Some(65), "{says}: {}", said(&output));
        assert!(said(&output).contains(says), "{says}: {}", said(&output));
    }
    assert_eq!(states_now(scene), [""; 0]);
}

async fn reach(scene: &Scene, states: &[&str; 2]) {
    let reached = async || {
        let now = states_now(scene);
        Ok(Probe::when(now == states, (), || format!("{now:?}")))
    };
    scene.wait_for(&format!("{states:?}"), PROMPT, reached).await.unwrap();
}

async fn reach_any(scene: &Scene, any: &[&str]) {
    let reached = async || {
        let now = states_now(scene);
        Ok(Probe::when(now.len() == 2 && now.iter().all(|state| any.contains(&state.as_str())), (), || {
            format!("{now:?}")
        }))
    };
    scene.wait_for(&format!("one of {any:?} each"), PROMPT, reached).await.unwrap();
}

fn states_now(scene: &Scene) -> Vec<String> {
    let channels = recoveries(scene);
    channels.iter().map(|channel| channel["state"].as_str().unwrap().to_owned()).collect()
}

fn recoveries(scene: &Scene) -> Vec<Value> {
    let output = cli(scene, &["channel-backup", "status"]);
    assert!(output.status.success(), "{}", said(&output));
    channels(&json(&output))
}

fn states(answer: &Value) -> Vec<String> {
    channels(answer).iter().map(|channel| channel["state"].as_str().unwrap().to_owned()).collect()
}

fn channels(answer: &Value) -> Vec<Value> {
    answer["channels"].as_array().unwrap().clone()
}

fn export(scene: &Scene) -> PathBuf {
    let file = scene.folder().join("channels.json");
    let output = cli(scene, &["channel-backup", "export", "--out", text(&file)]);
    assert!(output.status.success(), "{}", said(&output));
    file
}

fn export_json(scene: &Scene) -> Value {
    json(&cli(scene, &["channel-backup", "export"]))
}

fn cli(scene: &Scene, line: &[&str]) -> Output {
    let mut command = Command::new(&scene.programs().cli);
    command.arg("--config").arg(scene.operator().cli_configuration());
    command.args(["--json", "--timeout", "60s"]).args(line);
    tokio::task::block_in_place(|| command.output().unwrap())
}

fn json(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {}", said(output)))
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
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
