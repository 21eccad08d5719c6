//! What stands beneath Holdfast here, without Holdfast: two counterparties pay each other over real parts.

use std::time::Duration;

use bitcoin::Amount;
use holdfast_local::{Deployment, Outcome, Probe};

#[tokio::test(flavor = "multi_thread")]
async fn counterparties_pay_each_other_over_real_parts() {
    let builder = Deployment::builder().counterparties(&["alice", "bob"]).durable(false);
    let deployment = builder.infrastructure().await.unwrap();
    let one = deployment.postgres().client().await.unwrap().query_one("SELECT 1", &[]).await.unwrap();
    assert_eq!(one.get::<_, i32>(0), 1);

    let (alice, bob) = (deployment.counterparty("alice"), deployment.counterparty("bob"));
    let coins = [alice, bob].map(|node| async { (node.new_address().await.unwrap(), Amount::from_sat(5_000_000)) });
    let coins = futures::future::join_all(coins).await;
    deployment.bitcoind().pay(&coins).await.unwrap();
    deployment.mine(1).await.unwrap();

    alice.open_channel(bob.node_id(), &bob.address(), 1_000_000, true).await.unwrap();
    let mempool = async || {
        let mempool = deployment.bitcoind().mempool().await?;
        Ok(Probe::when(!mempool.is_empty(), (), || "an empty mempool".into()))
    };
    deployment.wait_for("the funding transaction", Duration::from_secs(30), mempool).await.unwrap();
    deployment.mine(6).await.unwrap();
    let usable = async || Ok(Probe::when(alice.channels()[0].is_usable, (), || format!("{:?}", alice.channels()[0])));
    deployment.wait_for("the channel", Duration::from_secs(30), usable).await.unwrap();

    let invoice = bob.invoice(123_456, "tea").await.unwrap();
    let hash = alice.pay(&invoice).await.unwrap();
    let outcome = alice.outcome(hash, Duration::from_secs(30)).await.unwrap();
    assert_eq!(outcome, Outcome::Succeeded { fee_msat: 0 });
    assert_eq!(bob.received_msat(hash), [123_456]);
}

#[tokio::test(flavor = "multi_thread")]
async fn postgres_keeps_what_was_committed_over_a_kill() {
    let deployment = Deployment::builder().infrastructure().await.unwrap();
    let postgres = deployment.postgres();
    postgres.client().await.unwrap().batch_execute("CREATE TABLE kept AS SELECT 7 AS seven").await.unwrap();
    postgres.kill().unwrap();
    assert!(postgres.client().await.is_err());
    postgres.start().await.unwrap();
    let row = postgres.client().await.unwrap().query_one("SELECT seven FROM kept", &[]).await.unwrap();
    assert_eq!(row.get::<_, i32>(0), 7);
}
