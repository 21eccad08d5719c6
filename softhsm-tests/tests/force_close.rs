//! A channel that ends without the peer's consent still pays us out, and the leader may die meanwhile.

use holdfast_local::Probe;
use holdfast_proto::node::v1;
use holdfast_softhsm_tests::{PROMPT, Scene};

/// More than either side makes the other wait (to_self_delay).
const CONTEST_DELAY: u32 = 150;

#[tokio::test(flavor = "multi_thread")]
async fn p6_a_force_close_by_us_outlives_the_leader_and_comes_home() {
    let scene = Scene::with_channels().await.unwrap();
    let funds = scene.balance().await.unwrap();
    let channel = channel_with(&scene, "alice").await;
    let (leader, mut client) = scene.leader().await.unwrap();
    let request = v1::CloseChannelRequest { channel_id: channel, force: true, ..Default::default() };
    client.close_channel(request).await.unwrap();
    // The answer came after the commit: a new leader knows of the close and goes on with it.
    leader.kill().unwrap();
    comes_home(&scene, &funds).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn p6_a_force_close_by_the_peer_comes_home() {
    let scene = Scene::with_channels().await.unwrap();
    let funds = scene.balance().await.unwrap();
    let (alice, node_id) = (scene.alice(), scene.node_id().await.unwrap());
    alice.close_channel(alice.channels()[0].user_channel_id, node_id, true).await.unwrap();
    comes_home(&scene, &funds).await;
}

async fn channel_with(scene: &Scene, name: &str) -> String {
    let peer = scene.counterparty(name).node_id().to_string();
    let channels = scene.channels().await.unwrap();
    channels.into_iter().find(|channel| channel.counterparty == peer).unwrap().channel_id
}

/// Mines what the contest delay and the claims need, and waits until all but one channel's worth is in the wallet.
async fn comes_home(scene: &Scene, before: &v1::GetBalanceResponse) {
    let commitment = async || {
        let mempool = scene.bitcoind().mempool().await?;
        Ok(Probe::when(!mempool.is_empty(), (), || "an empty mempool".into()))
    };
    scene.wait_for("the commitment transaction", PROMPT, commitment).await.unwrap();
    scene.mine(6).await.unwrap();
    scene.mine(CONTEST_DELAY).await.unwrap();

    let fees_sat = 30_000;
    let total = |balance: &v1::GetBalanceResponse| balance.onchain_confirmed_sat + balance.lightning_sat;
    let home = async || {
        // Claims go out in their own time, and some only after others are buried.
        scene.mine(1).await?;
        let balance = scene.balance().await?;
        let arrived = balance.closing_sat == 0 && balance.onchain_pending_sat == 0;
        let all =
            arrived && total(&balance) + fees_sat >= total(before) && balance.lightning_sat < before.lightning_sat;
        Ok(Probe::when(all, (), || format!("{balance:?}, was {before:?}")))
    };
    scene.wait_for("our coins to be in the wallet", PROMPT * 2, home).await.unwrap();
    // The other channel is none the worse.
    assert_eq!(scene.channels().await.unwrap().len(), 1);
    scene.receive(scene.bob(), 1_000_000).await.unwrap();
}
