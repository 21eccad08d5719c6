//! What we leave with our peers for the day on which the database is lost.

use std::fs;

use anyhow::Result;
use bitcoin::Amount;
use holdfast_local::{Client, Counterparty, Probe};
use holdfast_proto::node::v1;
use holdfast_softhsm_tests::{PROMPT, Scene};

const CAPACITY_SAT: u64 = 1_000_000;

async fn backup(scene: &Scene) -> Result<Vec<v1::ChannelBackupEntry>> {
    let ask = async |mut client: Client| client.export_channel_backup(v1::ExportChannelBackupRequest {}).await;
    let mut channels = scene.operator().ask("the channels' backup", PROMPT, ask).await?.channels;
    channels.sort_by(|a, b| a.channel_id.cmp(&b.channel_id));
    Ok(channels)
}

/// Waits until the node says that a peer holds its backup.
async fn held_by(scene: &Scene, by: &Counterparty) {
    let look = async || {
        let ask = async |mut client: Client| client.list_peers(v1::ListPeersRequest::default()).await;
        let peers = scene.operator().ask("our peers", PROMPT, ask).await?.peers;
        let peer = peers.iter().find(|peer| peer.node_id == by.node_id().to_string());
        Ok(Probe::when(peer.is_some_and(|peer| peer.holds_backup), (), || format!("{peer:?}")))
    };
    scene.wait_for(&format!("{} to hold our backup", by.name()), PROMPT, look).await.unwrap();
}

async fn connect(scene: &Scene, to: &Counterparty) {
    let request = v1::ConnectPeerRequest { node_id: to.node_id().to_string(), address: to.address() };
    let ask = async |mut client: Client| client.connect_peer(request.clone()).await;
    scene.operator().ask("a connection", PROMPT, ask).await.unwrap();
}

async fn restart_with(scene: &Scene, statements: &str) {
    for replica in scene.replicas() {
        replica.stop().unwrap();
    }
    scene.postgres().client().await.unwrap().batch_execute(statements).await.unwrap();
    for replica in scene.replicas() {
        scene.explain(replica.start().await).unwrap();
    }
}

/// One peer of an independent implementation's keeping is enough to know all channels again, also those with others.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_whose_database_is_gone_learns_its_channels_from_a_peer() {
    let scene = Scene::empty().await.unwrap();
    let (alice, bob) = (scene.alice(), scene.bob());
    scene.fund_all(1, Amount::from_sat(5_000_000)).await.unwrap();
    scene.open_channel_from(bob, CAPACITY_SAT).await.unwrap();
    // What alice is left with is made when her channel is there, so it names bob's as well.
    scene.open_channel_to(alice, CAPACITY_SAT).await.unwrap();
    held_by(&scene, bob).await;
    held_by(&scene, alice).await;
    let ours = backup(&scene).await.unwrap();
    assert_eq!(ours.len(), 2);
    assert!(ours.iter().all(|entry| entry.returned_by.is_empty()));

    // A node that lost nothing is given it back, and has nothing to say of it.
    restart_with(&scene, "SELECT").await;
    scene.channels_usable(2).await.unwrap();
    held_by(&scene, alice).await;
    assert_eq!(backup(&scene).await.unwrap(), ours);
    assert!(!says_so(&scene));

    restart_with(&scene, "DROP SCHEMA holdfast_public CASCADE; DROP SCHEMA holdfast CASCADE").await;
    assert!(backup(&scene).await.unwrap().is_empty());
    connect(&scene, alice).await;
    let all = async || {
        let entries = backup(&scene).await?;
        Ok(Probe::when(entries.len() == 2, entries.clone(), || format!("{entries:?}")))
    };
    let given_back = scene.wait_for("the channels to be known again", PROMPT, all).await.unwrap();
    for (was, is) in ours.iter().zip(&given_back) {
        assert_eq!(is.returned_by, alice.node_id().to_string());
        assert_eq!((&is.channel_id, &is.counterparty), (&was.channel_id, &was.counterparty));
        assert_eq!((&is.funding_outpoint, &is.channel_keys_id), (&was.funding_outpoint, &was.channel_keys_id));
        assert_eq!((is.capacity_sat, &is.channel_type), (was.capacity_sat, &was.channel_type));
        assert_eq!(is.written_ms, was.written_ms / 1000 * 1000);
        let at = if is.counterparty == alice.node_id().to_string() { alice.address() } else { bob.address() };
        assert!(is.addresses.contains(&at), "{is:?}");
    }
    assert!(says_so(&scene));

    // It is in the database now, whatever becomes of the peer.
    alice.halt().await.unwrap();
    restart_with(&scene, "SELECT").await;
    assert_eq!(backup(&scene).await.unwrap(), given_back);
}

fn says_so(scene: &Scene) -> bool {
    let logs = scene.replicas().iter().map(|replica| fs::read_to_string(replica.process().log()).unwrap_or_default());
    logs.into_iter().any(|log| log.contains("it names channels that this database does not know"))
}
