//! The wallet as an operator uses it, through the command line: every spend is checked and signed by the signer, waits for
//! its commit, and outlives the leader.

use std::process::{Command, Output};

use bitcoin::{Amount, Transaction, Txid};
use holdfast_local::{Deployment, Probe};
use holdfast_proto::node::v1;
use holdfast_softhsm_tests::{
    PROMPT, Scene,
    onchain::{mempool, outpoint},
};

const COIN_SAT: u64 = 1_000_000;

#[tokio::test(flavor = "multi_thread")]
async fn p2_p4_the_wallet_sends_bumps_labels_and_keeps_its_reserve() {
    let scene = Scene::of(Deployment::builder().replicas(2).counterparties(&["alice"]).durable(false)).await.unwrap();
    let alice = scene.alice();
    scene.fund_all(3, Amount::from_sat(COIN_SAT)).await.unwrap();

    // The descriptors are those of the addresses: an independent tool says so.
    let addresses = scene.ok(&["wallet", "addresses"]);
    assert_eq!(addresses["addresses"].as_array().unwrap().len(), 3);
    let descriptors = scene.ok(&["wallet", "descriptors"]);
    let last = addresses["addresses"][0].clone();
    let range = serde_json::json!([last["index"], last["index"]]);
    let derived = scene.bitcoind().rpc("deriveaddresses", &[descriptors["receive"].clone(), range]).await.unwrap();
    assert_eq!(derived[0], last["address"]);

    // A payment with a coin of our choice; the leader dies with it, and the next one has it as well.
    let coins = scene.utxos().await.unwrap();
    assert!(coins.len() == 3 && coins.iter().all(|coin| coin.amount_sat == COIN_SAT && coin.height.is_some()));
    let chosen = coins[1].outpoint.clone();
    let to = alice.new_address().await.unwrap();
    let sent = scene.ok(&[
        "wallet",
        "send",
        &to.to_string(),
        "200000sat",
        "--fee-rate",
        "2",
        "--utxo",
        &chosen,
        "--label",
        "to alice",
    ]);
    let first = scene.waiting(&sent["txid"]).await;
    assert_eq!(first.input.iter().map(|input| input.previous_output).collect::<Vec<_>>(), [outpoint(&chosen).unwrap()]);
    scene.take_over().await.unwrap();
    let change = scene.utxos().await.unwrap().into_iter().find(|coin| coin.is_change).unwrap();
    assert_eq!((change.label.as_str(), change.height), ("to alice", None));
    assert_eq!(change.amount_sat + 200_000 + sent["fee_sat"].as_u64().unwrap(), COIN_SAT);

    // A higher fee, by replacement.
    let bumped = scene.ok(&["wallet", "bump", sent["txid"].as_str().unwrap(), "--fee-rate", "10"]);
    assert_eq!(bumped["is_replacement"], true);
    let second = scene.waiting(&bumped["txid"]).await;
    assert_eq!(second.input[0].previous_output, first.input[0].previous_output);
    let fee = COIN_SAT - second.output.iter().map(|output| output.value.to_sat()).sum::<u64>();
    assert_eq!(bumped["fee_sat"], fee);
    let weight = second.weight().to_wu();
    assert!(4 * fee >= 10 * weight && 4 * fee < 11 * weight, "{fee} sat for {weight} WU");
    assert!(second.output.iter().any(|output| output.value.to_sat() == 200_000));
    assert!(!scene.bitcoind().mempool().await.unwrap().contains(&first.compute_txid()));
    scene.mine(1).await.unwrap();
    assert_eq!(scene.balance().await.unwrap().onchain_confirmed_sat, 3 * COIN_SAT - 200_000 - fee);

    // A funding transaction is not replaced: its txid is the channel. A child pays for it.
    let (_, mut client) = scene.leader().await.unwrap();
    let request = v1::OpenChannelRequest {
        node_id: alice.node_id().to_string(),
        address: alice.address(),
        capacity_sat: 500_000,
        ..Default::default()
    };
    client.open_channel(request).await.unwrap();
    let funding = async || {
        Ok(match mempool(scene.bitcoind()).await?.pop() {
            Some(tx) => Probe::Ready(tx),
            None => Probe::Waiting("an empty mempool".into()),
        })
    };
    let funding = scene.wait_for("the funding transaction", PROMPT, funding).await.unwrap();
    let child = scene.ok(&["wallet", "bump", &funding.compute_txid().to_string(), "--fee-rate", "20"]);
    assert_eq!(child["is_replacement"], false);
    let child = scene.waiting(&child["txid"]).await;
    assert_eq!(child.input[0].previous_output.txid, funding.compute_txid());
    assert_eq!(mempool(scene.bitcoind()).await.unwrap().len(), 2);
    scene.mine(6).await.unwrap();
    scene.channels_usable(1).await.unwrap();

    // What the signer's rules refuse is refused with the rule's name, and its coins are free again.
    let refused = scene.fails(&["wallet", "send", &to.to_string(), "1000sat", "--fee-rate", "2000"]);
    assert!(refused.contains("onchain-fee"), "{refused}");
    assert!(scene.utxos().await.unwrap().iter().all(|coin| !coin.is_promised));

    // The reserve for the open channel: neither a payment nor an opening may touch it, and "all" is all but that.
    let balance = scene.balance().await.unwrap();
    assert_eq!(balance.onchain_reserve_sat, 10_000);
    let too_much = format!("{}sat", balance.onchain_spendable_sat - 5_000);
    let refused = scene.fails(&["wallet", "send", &to.to_string(), &too_much]);
    assert!(refused.contains("keeps"), "{refused}");
    let too_much = balance.onchain_spendable_sat - 15_000;
    let refused = scene.fails(&["open", &alice.node_id().to_string(), &format!("{too_much}sat")]);
    assert!(refused.contains("reserve"), "{refused}");
    let all = scene.ok(&["wallet", "send-all", &to.to_string(), "--fee-rate", "1.5"]);
    let tx = scene.waiting(&all["txid"]).await;
    assert_eq!(tx.output.len(), 2);
    let left = scene.utxos().await.unwrap();
    assert_eq!(left.iter().map(|coin| coin.amount_sat).sum::<u64>(), 10_000);
    // Its fee comes out of what it pays.
    let bumped = scene.ok(&["wallet", "bump", all["txid"].as_str().unwrap(), "--fee-rate", "7.25"]);
    let again = scene.waiting(&bumped["txid"]).await;
    let paid = |tx: &Transaction| tx.output.iter().map(|output| output.value.to_sat()).max().unwrap();
    let extra = bumped["fee_sat"].as_u64().unwrap() - all["fee_sat"].as_u64().unwrap();
    assert_eq!(paid(&again) + extra, paid(&tx));
    scene.mine(1).await.unwrap();
    assert_eq!(scene.balance().await.unwrap().onchain_confirmed_sat, 10_000);

    // Names stay, and old blocks hold nothing that the wallet does not know.
    scene.ok(&["wallet", "label", last["address"].as_str().unwrap(), "the faucet"]);
    scene.take_over().await.unwrap();
    let labels = scene.ok(&["wallet", "labels"]).to_string();
    assert!(labels.contains("the faucet") && labels.contains("to alice"), "{labels}");
    let scanned = scene.ok(&["wallet", "rescan", "1"]);
    assert_eq!(scanned["found"], serde_json::json!([]));
    assert_eq!(scanned["to_height"], scene.bitcoind().height().await.unwrap());
}

/// The command line, and what it says.
trait Cli {
    fn cli(&self, line: &[&str]) -> Output;
    fn ok(&self, line: &[&str]) -> serde_json::Value;
    fn fails(&self, line: &[&str]) -> String;
    async fn waiting(&self, txid: &serde_json::Value) -> Transaction;
}

impl Cli for Scene {
    fn cli(&self, line: &[&str]) -> Output {
        let config = self.operator().cli_configuration();
        let mut command = Command::new(&self.programs().cli);
        command.arg("--config").arg(config).args(["--json", "--timeout", "30s"]).args(line);
        command.output().unwrap()
    }

    fn ok(&self, line: &[&str]) -> serde_json::Value {
        let output = self.cli(line);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{line:?}: {said}");
        serde_json::from_slice(&output.stdout).unwrap()
    }

    fn fails(&self, line: &[&str]) -> String {
        let output = self.cli(line);
        assert!(!output.status.success(), "{line:?}: {}", String::from_utf8_lossy(&output.stdout));
        String::from_utf8_lossy(&output.stderr).into_owned()
    }

    /// The transaction, once the mempool has it.
    async fn waiting(&self, txid: &serde_json::Value) -> Transaction {
        let txid: Txid = txid.as_str().unwrap().parse().unwrap();
        let there = async || Ok(Probe::Ready(self.bitcoind().unconfirmed(txid).await?));
        self.wait_for("a transaction in the mempool", PROMPT, there).await.unwrap()
    }
}
