//! What the node knows of the network, whom it stays connected to, and what it writes down for the day on which the database
//! is lost.

use std::{collections::BTreeSet, fs, time::Duration};

use anyhow::Result;
use bitcoin::Amount;
use holdfast_local::{
    Client, Counterparty, Probe,
    process::{Launch, Process},
};
use holdfast_proto::node::v1;
use holdfast_softhsm_tests::{PROMPT, Scene};
use ldk_node::lightning::routing::gossip::NodeId;

const CAPACITY_SAT: u64 = 2_000_000;
const SMALL_MSAT: u64 = 5_000_000;
/// Gossip takes its time.
const GOSSIP: Duration = Duration::from_secs(90);

/// We have a channel with alice, alice one with bob; carol is connected and has none.
async fn chain() -> Scene {
    let builder = holdfast_local::Deployment::builder().replicas(2).counterparties(&["alice", "bob", "carol"]);
    let scene = Scene::of(builder.durable(false)).await.unwrap();
    let (alice, bob) = (scene.alice(), scene.bob());
    scene.fund_all(2, Amount::from_sat(5_000_000)).await.unwrap();
    scene.open_channel_to(alice, CAPACITY_SAT).await.unwrap();
    scene.open_channel_between(alice, bob, CAPACITY_SAT).await.unwrap();
    scene
}

fn route_to(payee: &Counterparty) -> v1::FindRouteRequest {
    v1::FindRouteRequest { node_id: payee.node_id().to_string(), amount_msat: SMALL_MSAT, ..Default::default() }
}

async fn graph(scene: &Scene) -> Result<v1::DescribeGraphResponse> {
    let ask = async |mut client: Client| client.describe_graph(v1::DescribeGraphRequest::default()).await;
    scene.operator().ask("the graph", PROMPT, ask).await
}

async fn backup(scene: &Scene) -> Result<Vec<v1::ChannelBackupEntry>> {
    let ask = async |mut client: Client| client.export_channel_backup(v1::ExportChannelBackupRequest {}).await;
    Ok(scene.operator().ask("the channels' backup", PROMPT, ask).await?.channels)
}

async fn peer(scene: &Scene, of: &Counterparty) -> Result<Option<v1::Peer>> {
    let ask = async |mut client: Client| client.list_peers(v1::ListPeersRequest::default()).await;
    let peers = scene.operator().ask("our peers", PROMPT, ask).await?.peers;
    Ok(peers.into_iter().find(|peer| peer.node_id == of.node_id().to_string()))
}

async fn connected(scene: &Scene, of: &Counterparty) -> Result<()> {
    let look = async || {
        let peer = peer(scene, of).await?;
        Ok(Probe::when(peer.as_ref().is_some_and(|peer| peer.connected), (), || format!("{peer:?}")))
    };
    scene.wait_for(&format!("{} to be connected", of.name()), PROMPT, look).await
}

/// Kills the leader and waits for the other to lead.
async fn take_over(scene: &Scene) {
    let term = scene.info().await.unwrap().term;
    let (leader, _) = scene.leader().await.unwrap();
    leader.kill().unwrap();
    let led = async || {
        let info = scene.info().await?;
        Ok(Probe::when(info.term > term, (), || format!("term {}", info.term)))
    };
    scene.wait_for("another leader", PROMPT, led).await.unwrap();
    leader.start().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_graph_is_shown_ways_are_found_and_a_takeover_starts_with_all_of_it() {
    let scene = chain().await;
    let (alice, bob) = (scene.alice(), scene.bob());
    let (_, mut client) = scene.leader().await.unwrap();
    let known = async || {
        let found = client.clone().find_route(route_to(bob)).await?.into_inner();
        Ok(Probe::when(found.found, found.clone(), || found.failure))
    };
    let found = scene.wait_for("a way to bob", GOSSIP, known).await.unwrap();
    let [part] = &found.parts[..] else { panic!("{found:?}") };
    let ends: Vec<_> = part.hops.iter().map(|hop| hop.node_id.clone()).collect();
    assert_eq!(ends, [alice.node_id().to_string(), bob.node_id().to_string()]);
    assert_eq!(part.hops[0].amount_msat, SMALL_MSAT + found.fee_msat);
    assert_eq!((part.hops[1].amount_msat, part.hops[0].fee_msat), (SMALL_MSAT, found.fee_msat));
    assert!(found.fee_msat > 0 && found.cltv_delta > 42, "{found:?}");

    // Each limit that is not kept is named.
    let unknown = "02eec7245d6b7d2ccb30380bfbe2a3648cd7a942653f5aa340edcea1f283686619";
    let base = route_to(bob);
    for (request, says) in [
        (v1::FindRouteRequest { max_fee_msat: Some(0), ..base.clone() }, format!("costs {} msat", found.fee_msat)),
        (v1::FindRouteRequest { max_hops: 1, ..base.clone() }, "takes 2 hops".into()),
        (v1::FindRouteRequest { max_cltv_delta: 42, ..base.clone() }, "blocks".into()),
        (v1::FindRouteRequest { amount_msat: 3_000_000_000, ..base.clone() }, "our channels can send".into()),
        (v1::FindRouteRequest { node_id: unknown.into(), ..base.clone() }, "of the graph".into()),
    ] {
        let none = client.find_route(request.clone()).await.unwrap().into_inner();
        assert!(!none.found && none.failure.contains(&says), "{says}: {none:?}");
    }

    // Both channels with all four policies, and what we said of ourselves.
    let us = scene.info().await.unwrap().node_id;
    let whole = async || {
        let graph = graph(&scene).await?;
        let policies = graph.channels.iter().flat_map(|channel| [&channel.policy_1, &channel.policy_2]).flatten();
        let announced = graph.nodes.iter().any(|node| node.node_id == us && node.alias == "holdfast");
        let all = graph.channels.len() == 2 && policies.count() == 4 && announced;
        Ok(Probe::when(all, graph.clone(), || format!("{graph:?}")))
    };
    let before = scene.wait_for("the whole graph", GOSSIP, whole).await.unwrap();
    let ours = scene.channels().await.unwrap().pop().unwrap();
    assert!(before.channels.iter().any(|channel| channel.short_channel_id == ours.short_channel_id));
    let request = v1::DescribeGraphRequest { node_id: bob.node_id().to_string(), ..Default::default() };
    let one = client.describe_graph(request).await.unwrap().into_inner();
    assert_eq!((one.nodes.len(), one.channels.len()), (1, 1));

    // What we say of ourselves is what alice heard.
    let info = scene.info().await.unwrap();
    let us = NodeId::from_pubkey(&info.node_id.parse().unwrap());
    let heard = async || {
        let graph = alice.node().network_graph();
        let node = graph.node(&us).and_then(|node| node.announcement_info);
        Ok(match node {
            Some(node) => Probe::Ready((node.alias().to_string(), node.rgb(), node.addresses().to_vec())),
            None => Probe::Waiting("nothing".into()),
        })
    };
    let (alias, color, addresses) = scene.wait_for("alice to hear of us", GOSSIP, heard).await.unwrap();
    assert_eq!((alias.as_str(), color), ("holdfast", [0x1f, 0x6f, 0x54]));
    let addresses: Vec<_> = addresses.iter().map(ToString::to_string).collect();
    assert_eq!(addresses, info.addresses);

    // Nobody is there to tell a new leader anything: what it knows, the old one wrote down.
    let stored = async || {
        let rows = scene.postgres().client().await?;
        let sql = "SELECT count(*) FROM holdfast.kv WHERE primary_namespace = 'gossip' AND key = 'graph' AND position($1 IN value) > 0";
        let bob_id = bob.node_id().serialize().to_vec();
        let found: i64 = rows.query_one(sql, &[&bob_id]).await?.get(0);
        Ok(Probe::when(found == 1, (), || "not yet".into()))
    };
    scene.wait_for("the graph to be stored", PROMPT, stored).await.unwrap();
    for counterparty in scene.counterparties() {
        counterparty.halt().await.unwrap();
    }
    take_over(&scene).await;
    let after = graph(&scene).await.unwrap();
    let names = |graph: &v1::DescribeGraphResponse| -> BTreeSet<String> {
        let channels = graph.channels.iter().map(|channel| channel.short_channel_id.clone());
        graph.nodes.iter().map(|node| node.node_id.clone()).chain(channels).collect()
    };
    assert_eq!(names(&after), names(&before));
}

#[tokio::test(flavor = "multi_thread")]
async fn peers_are_found_again_and_each_channel_is_written_down() {
    let scene = chain().await;
    let alice = scene.alice();
    let carol = scene.counterparty("carol");
    let (_, mut client) = scene.leader().await.unwrap();
    let request = v1::ConnectPeerRequest { node_id: carol.node_id().to_string(), address: carol.address() };
    client.connect_peer(request).await.unwrap();

    // The channel stands in the backup as it is, and nothing in it is a key.
    let ours = scene.channels().await.unwrap().pop().unwrap();
    let [entry] = &backup(&scene).await.unwrap()[..] else { panic!("not one entry") };
    assert_eq!(entry.channel_id, ours.channel_id);
    assert_eq!((&entry.counterparty, &entry.funding_outpoint), (&ours.counterparty, &ours.funding_outpoint));
    assert_eq!((entry.capacity_sat, entry.channel_type.as_str()), (CAPACITY_SAT, ours.channel_type.as_str()));
    assert!(entry.addresses.contains(&alice.address()), "{entry:?}");
    assert_eq!(entry.channel_keys_id.len(), 64);

    // One whose peer comes back, and all after a takeover: those with a channel, and those that an operator wants.
    carol.halt().await.unwrap();
    carol.resume().await.unwrap();
    connected(&scene, carol).await.unwrap();
    take_over(&scene).await;
    connected(&scene, carol).await.unwrap();
    connected(&scene, alice).await.unwrap();
    assert!(peer(&scene, carol).await.unwrap().unwrap().persistent);
    assert_eq!(backup(&scene).await.unwrap(), std::slice::from_ref(entry), "a takeover changes nothing in it");

    // Who is let go stays away, and the next leader knows it.
    let (_, mut client) = scene.leader().await.unwrap();
    client.disconnect_peer(v1::DisconnectPeerRequest { node_id: carol.node_id().to_string() }).await.unwrap();
    take_over(&scene).await;
    connected(&scene, alice).await.unwrap();
    let gone = peer(&scene, carol).await.unwrap();
    assert!(gone.as_ref().is_none_or(|peer| !peer.persistent), "{gone:?}");
}

/// Everything goes through a SOCKS5 proxy, names as they are.
#[tokio::test(flavor = "multi_thread")]
async fn a_replica_reaches_its_peers_through_a_proxy_and_says_when_it_is_away() {
    let scene = Scene::empty().await.unwrap();
    let alice = scene.alice();
    let proxy = holdfast_local::ports::Port::lease().unwrap();
    let (leader, _) = scene.leader().await.unwrap();
    let port = proxy.address().port().to_string();
    for replica in scene.replicas() {
        let configured = fs::read_to_string(replica.configuration()).unwrap();
        let tor = format!("[tor]\nsocks = \"127.0.0.1:{port}\"\nmode = \"all\"\n");
        fs::write(replica.configuration(), configured + &tor).unwrap();
    }
    // Both have to read it.
    for replica in scene.replicas().iter().filter(|replica| replica.name() != leader.name()).chain([leader]) {
        replica.stop().unwrap();
        replica.start().await.unwrap();
    }
    let (_, mut client) = scene.leader().await.unwrap();
    let address = alice.address().replace("127.0.0.1", "localhost");
    let request = v1::ConnectPeerRequest { node_id: alice.node_id().to_string(), address };
    let refused = client.connect_peer(request.clone()).await.unwrap_err();
    assert!(refused.message().contains("the proxy") && refused.message().contains("is away"), "{refused:?}");

    let launch = Launch::new("microsocks", ["-i", "127.0.0.1", "-p", &port]);
    let process = Process::new("microsocks", launch, scene.logs());
    process.start().unwrap();
    let ask = async |mut client: Client| client.connect_peer(request.clone()).await;
    scene.operator().ask("alice through the proxy", PROMPT, ask).await.unwrap();
    connected(&scene, alice).await.unwrap();
}
