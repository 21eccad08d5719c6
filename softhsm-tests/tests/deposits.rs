//! A deposit is told of once at each step, whoever leads: seen, mined, confirmed, and taken back by a reorganisation.

use std::process::Command;

use bitcoin::{Address, Amount};
use holdfast_local::{Deployment, Probe};
use holdfast_proto::node::v1;
use holdfast_softhsm_tests::{PROMPT, Scene};
use serde_json::Value;

/// The configuration's default.
const CONFIRMATIONS: u32 = 6;

#[tokio::test(flavor = "multi_thread")]
async fn p2_p3_a_deposit_is_told_of_once_at_each_step_through_takeovers_and_a_reorganisation() {
    let builder = Deployment::builder().replicas(2).counterparties(&["alice"]).durable(false);
    let scene = Scene::of(builder).await.unwrap();
    let (_, mut client) = scene.leader().await.unwrap();
    let address = client.new_address(v1::NewAddressRequest {}).await.unwrap().into_inner().address;
    let label = v1::SetLabelRequest { reference: address.clone(), label: "customer 7".into() };
    client.set_label(label).await.unwrap();
    let to: Address = address.parse::<Address<_>>().unwrap().require_network(bitcoin::Network::Regtest).unwrap();

    let txid = scene.bitcoind().pay(&[(to, Amount::from_sat(123_456))]).await.unwrap();
    let mut story = vec!["seen 0".to_owned()];
    tells(&scene, &story).await;
    // The balance does not count it: its sender may take it back.
    assert_eq!(scene.balance().await.unwrap().onchain_pending_sat, 0);
    scene.take_over().await.unwrap();
    scene.mine(1).await.unwrap();
    story.push("mined 1".into());
    tells(&scene, &story).await;
    scene.take_over().await.unwrap();
    scene.mine(CONFIRMATIONS - 1).await.unwrap();
    story.push(format!("confirmed {CONFIRMATIONS}"));
    tells(&scene, &story).await;

    scene.bitcoind().reorganise(CONFIRMATIONS).await.unwrap();
    scene.synced().await.unwrap();
    story.push("taken-back 0".into());
    tells(&scene, &story).await;
    scene.take_over().await.unwrap();
    scene.mine(1).await.unwrap();
    story.push("mined 1".into());
    scene.mine(CONFIRMATIONS - 1).await.unwrap();
    story.push(format!("confirmed {CONFIRMATIONS}"));
    let told = tells(&scene, &story).await;
    scene.take_over().await.unwrap();
    scene.mine(2).await.unwrap();
    assert_eq!(tells(&scene, &story).await, told, "nothing is told again");

    for event in &told {
        let of = &event["subject"];
        assert!(of["outpoint"].as_str().unwrap().starts_with(&txid.to_string()), "{event}");
        let (to, sat, label) = (&of["address"], &of["amount_sat"], &of["label"]);
        assert_eq!((to, sat, label), (&address.clone().into(), &123_456.into(), &"customer 7".into()));
        assert_eq!(of["block_hash"].is_null(), of["confirmations"] == 0, "{event}");
    }
}

/// Waits until the log has told `story`, and no more than it: from its beginning on, by any replica.
async fn tells(scene: &Scene, story: &[String]) -> Vec<Value> {
    let told = scene.wait_for("the deposit's events", PROMPT, async || {
        let events = deposits(scene);
        let told: Vec<String> = events.iter().map(short).collect();
        assert!(told.len() <= story.len() && told[..] == story[..told.len()], "{told:?} instead of {story:?}");
        Ok(Probe::when(told == story, events, || format!("{told:?}")))
    });
    told.await.unwrap()
}

fn short(event: &Value) -> String {
    format!("{} {}", event["event"].as_str().unwrap(), event["subject"]["confirmations"])
}

/// What the log has. A stream has no end, so it is read for a moment; whoever waits looks again.
fn deposits(scene: &Scene) -> Vec<Value> {
    let read = || {
        let mut command = Command::new("timeout");
        command.arg("2").arg(&scene.programs().cli).arg("--config").arg(scene.operator().cli_configuration());
        command.args(["--json", "watch", "--from", "oldest", "--topic", "deposit"]).output().unwrap()
    };
    let output = tokio::task::block_in_place(read);
    let lines = String::from_utf8(output.stdout).unwrap();
    let lines = lines.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    lines.filter(|line| !line["event"].is_null()).collect()
}
