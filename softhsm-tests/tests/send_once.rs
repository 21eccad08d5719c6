//! Coins that are sent under a key are sent once, and a transaction leaves for the network only after the commit that
//! holds it: also when the leader dies in between.

use std::process::{Child, Command, Output, Stdio};

use anyhow::Result;
use bitcoin::{Amount, Txid};
use holdfast_local::{Deployment, Probe};
use holdfast_proto::node::v1;
use holdfast_softhsm_tests::{PROMPT, Scene, onchain::mempool};
use serde_json::Value;

const KEY: &str = "rent-april";

async fn funded() -> Scene {
    let builder = Deployment::builder().replicas(2).counterparties(&["alice"]).durable(false);
    let scene = Scene::of(builder).await.unwrap();
    scene.fund_all(3, Amount::from_sat(1_000_000)).await.unwrap();
    scene
}

#[tokio::test(flavor = "multi_thread")]
async fn p2_coins_are_sent_once_under_a_key_also_over_a_takeover() {
    let scene = funded().await;
    let (to, other) = (address(&scene).await, address(&scene).await);
    let send = |address: &str, amount: &str| finish(begin(&scene, address, amount));

    let first = send(&to, "200000sat").unwrap();
    assert_eq!(send(&to, "200000sat").unwrap(), first, "asked for again, answered with the same");
    for (address, amount) in [(&to, "200001sat"), (&other, "200000sat")] {
        let refused = send(address, amount).unwrap_err();
        assert!(refused.contains("used for something else"), "{refused}");
    }
    // A key stands for one payment, whichever way it goes.
    let invoice = scene.alice().invoice(1000, "not this").await.unwrap();
    let pay = ["pay", invoice.as_str(), "--idempotency-key", KEY];
    let refused = finish(Ok(cli(&scene, &pay).spawn().unwrap())).unwrap_err();
    assert!(refused.contains("used for something else"), "{refused}");
    assert_eq!(waiting(&scene).await, [txid(&first)]);

    scene.take_over().await.unwrap();
    assert_eq!(send(&to, "200000sat").unwrap(), first, "the next leader answers with the same");
    assert_eq!(waiting(&scene).await, [txid(&first)]);
    // Should the network have lost it, the answer brings it back.
    scene.bitcoind().forget_mempool().await.unwrap();
    scene
        .wait_for("the transaction again", PROMPT, async || {
            send(&to, "200000sat").map_err(anyhow::Error::msg)?;
            Ok(Probe::when(mempool(scene.bitcoind()).await?.len() == 1, (), || "an empty mempool".into()))
        })
        .await
        .unwrap();
    scene.mine(1).await.unwrap();
    assert_eq!(send(&to, "200000sat").unwrap(), first, "also when it is in a block");
    assert_eq!(waiting(&scene).await, []);
    let spent = 200_000 + first["fee_sat"].as_u64().unwrap();
    assert_eq!(scene.balance().await.unwrap().onchain_confirmed_sat, 3_000_000 - spent);
}

#[tokio::test(flavor = "multi_thread")]
async fn p2_under_a_key_the_answer_is_the_transaction_that_stands_now_whatever_its_fee_was_raised_to() {
    let scene = funded().await;
    let to = address(&scene).await;
    let send = || finish(begin(&scene, &to, "200000sat")).unwrap();
    let bump = |txid: Txid, rate: &str| {
        let line = ["wallet", "bump", &txid.to_string(), "--fee-rate", rate];
        finish(Ok(cli(&scene, &line).spawn().unwrap())).unwrap()
    };
    let first = send();
    let raised = bump(txid(&first), "10");
    let stands = |answer: &Value, now: &Value| {
        assert_eq!((&answer["txid"], &answer["fee_sat"]), (&now["txid"], &now["fee_sat"]), "{answer}");
        assert_eq!(answer["first_txid"], first["txid"]);
        assert_eq!(answer["amount_sat"], 200_000);
    };
    stands(&send(), &raised);
    scene.take_over().await.unwrap();
    let again = bump(txid(&raised), "20");
    stands(&send(), &again);
    assert_eq!(waiting(&scene).await, [txid(&again)]);
    scene.take_over().await.unwrap();
    scene.mine(1).await.unwrap();
    stands(&send(), &again);
    assert_eq!(waiting(&scene).await, []);
}

#[tokio::test(flavor = "multi_thread")]
async fn p2_a_send_leaves_after_its_commit_and_one_that_dies_before_it_never_does() {
    let scene = funded().await;
    let to = address(&scene).await;
    let mut postgres = scene.postgres().client().await.unwrap();

    // Nothing can be committed. The transaction is built, signed, and in the leader's wallet.
    let held = postgres.transaction().await.unwrap();
    held.execute("SELECT FROM holdfast.last_batch FOR UPDATE", &[]).await.unwrap();
    let asked = begin(&scene, &to, "200000sat").unwrap();
    let lost = built(&scene).await.unwrap();
    // A block comes, for which the wallet's unconfirmed transactions are given to the network again: not this one.
    scene.bitcoind().mine(1).await.unwrap();
    let height = scene.bitcoind().height().await.unwrap();
    scene
        .wait_for("the leader to see the block", PROMPT, async || {
            let (_, mut client) = scene.leader().await?;
            let info = client.get_info(v1::GetInfoRequest {}).await?.into_inner();
            Ok(Probe::when(info.block_height == height, (), || format!("{info:?}")))
        })
        .await
        .unwrap();
    assert_eq!(waiting(&scene).await, [], "broadcast before its commit");

    // The leader dies. The command finds the next one and repeats itself: that one knows of nothing, and sends.
    let (leader, _) = scene.leader().await.unwrap();
    leader.kill().unwrap();
    held.rollback().await.unwrap();
    let sent = finish(Ok(asked)).unwrap();
    assert_eq!(waiting(&scene).await, [txid(&sent)]);
    assert_eq!(finish(begin(&scene, &to, "200000sat")).unwrap(), sent);
    leader.start().await.unwrap();
    scene.mine(1).await.unwrap();
    assert_eq!(waiting(&scene).await, []);
    println!("{lost} was never committed and never left, {} was sent instead", txid(&sent));
    let spent = 200_000 + sent["fee_sat"].as_u64().unwrap();
    assert_eq!(scene.balance().await.unwrap().onchain_confirmed_sat, 3_000_000 - spent);
}

async fn address(scene: &Scene) -> String {
    scene.alice().new_address().await.unwrap().to_string()
}

/// The transaction that the leader's wallet holds unconfirmed, once there is one.
async fn built(scene: &Scene) -> Result<Txid> {
    scene
        .wait_for("the transaction in the leader's wallet", PROMPT, async || {
            let coins = scene.utxos().await?;
            let change = coins.iter().find(|coin| coin.is_change && coin.height.is_none());
            Ok(match change.and_then(|coin| coin.outpoint.split(':').next()?.parse().ok()) {
                Some(txid) => Probe::Ready(txid),
                None => Probe::Waiting(format!("{} coins", coins.len())),
            })
        })
        .await
}

async fn waiting(scene: &Scene) -> Vec<Txid> {
    mempool(scene.bitcoind()).await.unwrap().iter().map(|tx| tx.compute_txid()).collect()
}

fn txid(sent: &Value) -> Txid {
    sent["txid"].as_str().unwrap().parse().unwrap()
}

fn begin(scene: &Scene, address: &str, amount: &str) -> Result<Child> {
    Ok(cli(scene, &["wallet", "send", address, amount, "--fee-rate", "2", "--idempotency-key", KEY]).spawn()?)
}

fn cli(scene: &Scene, line: &[&str]) -> Command {
    let mut command = Command::new(&scene.programs().cli);
    command.arg("--config").arg(scene.operator().cli_configuration());
    command.args(["--json", "--timeout", "60s"]).args(line).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// What the command answers, or what it says is wrong.
fn finish(command: Result<Child>) -> Result<Value, String> {
    let run = || -> Result<Output> { Ok(command?.wait_with_output()?) };
    let output = tokio::task::block_in_place(run).map_err(|error| error.to_string())?;
    match output.status.success() {
        true => serde_json::from_slice(&output.stdout).map_err(|error| error.to_string()),
        false => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
    }
}
