//! A real Tor network on this machine: our node sees and is seen by its peers through it alone, and fetches the graph through it.
//! `deploy/tor`'s files are what Tor and HAProxy run with.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use anyhow::{Result, ensure};
use bitcoin::Amount;
use holdfast_local::{
    Client, Counterparty, Deployment, Probe,
    haproxy::Haproxy,
    ports::Port,
    snapshot::snapshot,
    sockets::Watch,
    tor::{Forward, Tor, TorNetwork},
};
use holdfast_proto::node::v1;
use holdfast_softhsm_tests::Scene;
use ldk_node::lightning::routing::gossip::NodeId;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::{ServerConfig, pki_types::PrivateKeyDer};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};
use tokio_rustls::TlsAcceptor;

const NAMES: [&str; 4] = ["alice", "bob", "carol", "dave"];
const CAPACITY_SAT: u64 = 2_000_000;
const SMALL_MSAT: u64 = 5_000_000;
/// Circuits are built, descriptors are published and fetched, and who fails tries again.
const THROUGH_TOR: Duration = Duration::from_secs(120);

/// What stands between our node and the world.
struct Stage {
    network: TorNetwork,
    /// Where our peers come and by which we go out.
    ours: Tor,
    /// Alice's onion service, and bob's way out.
    theirs: Tor,
    /// A port that leads to our onion service.
    to_us: Forward,
    _haproxy: Haproxy,
    mirror: Mirror,
}

impl Stage {
    /// Everything that is not ours: Tor, HAProxy before the replicas, and a channel of which only the mirror will tell.
    async fn set(scene: &Scene) -> Result<Self> {
        alices_channel_is_announced(scene).await?;
        let began = Instant::now();
        let network = TorNetwork::start(scene.folder(), scene.logs()).await?;
        let agreed = began.elapsed();
        let door = Port::lease()?;
        let (alice, at_door) = (scene.alice().address(), door.address().to_string());
        let (ours, theirs) = tokio::try_join!(
            network.join("ours", |tor| tor.torrc(&at_door)),
            network.join("theirs", |tor| tor.torrc(&alice)),
        )?;
        println!("a consensus after {agreed:?}, circuits after {:?}", began.elapsed());
        let haproxy = Haproxy::start(scene, door).await?;
        let to_us = theirs.forward(&ours.onion()?).await?;
        let mirror = Mirror::start(scene).await?;
        Ok(Self { network, ours, theirs, to_us, _haproxy: haproxy, mirror })
    }

    /// Who may connect to peers and to the mirror.
    fn pids(&self) -> Vec<u32> {
        let mut pids = self.network.pids();
        pids.extend([&self.ours, &self.theirs].iter().filter_map(|tor| tor.process().pid()));
        pids
    }

    /// Has the replicas read a configuration by which nothing goes around Tor.
    async fn configure(&self, scene: &Scene) -> Result<()> {
        let (leader, _) = scene.leader().await?;
        let tables = format!(
            "[tor]\nsocks = \"{}\"\nmode = \"all\"\n[gossip]\nrapid_sync_url = \"https://{}\"\nrapid_sync_ca_file = \"{}\"\n",
            self.ours.socks(),
            self.mirror.address,
            self.mirror.ca_file.display()
        );
        for replica in scene.replicas() {
            let configured = fs::read_to_string(replica.configuration())?;
            let plain = format!("announce = [\"{}\"]", replica.peer_address());
            let onion = format!("announce = [\"{}\"]", self.ours.onion()?);
            fs::write(replica.configuration(), configured.replace(&plain, &onion) + &tables)?;
        }
        for replica in scene.replicas().iter().filter(|replica| replica.name() != leader.name()).chain([leader]) {
            replica.stop()?;
            replica.start().await?;
        }
        Ok(())
    }
}

/// A server of rapid gossip sync with what alice knows, and a certificate of an authority that only our replicas trust.
struct Mirror {
    /// `host:port`, a name that only Tor's exits know.
    address: String,
    port: u16,
    ca_file: PathBuf,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Mirror {
    async fn start(scene: &Scene) -> Result<Self> {
        let host = format!("rapidsync.{}", TorNetwork::DOMAIN);
        let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
        let body = snapshot(scene.alice(), u32::try_from(now)?)?;
        let (acceptor, ca_file) = certified(&host, scene.folder())?;
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let port = listener.local_addr()?.port();
        let asked = Arc::<Mutex<Vec<String>>>::default();
        let written = asked.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let reply = async {
                    let mut stream = acceptor.accept(stream).await?;
                    let mut request = Vec::new();
                    while !request.ends_with(b"\r\n\r\n") {
                        request.push(stream.read_u8().await?);
                    }
                    let line = String::from_utf8_lossy(&request);
                    written.lock().unwrap().push(line.split(' ').nth(1).unwrap_or_default().to_owned());
                    let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", body.len());
                    stream.write_all(&[head.as_bytes(), &body].concat()).await?;
                    stream.shutdown().await
                };
                // A client that goes away asks again.
                let _ = reply.await;
            }
        });
        Ok(Self { address: format!("{host}:{port}"), port, ca_file, asked })
    }
}

fn certified(host: &str, folder: &Path) -> Result<(TlsAcceptor, PathBuf)> {
    let (mut params, key) = (CertificateParams::default(), KeyPair::generate()?);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca_file = folder.join("mirror-ca.pem");
    fs::write(&ca_file, params.self_signed(&key)?.pem())?;
    let authority = Issuer::new(params, key);
    let key = KeyPair::generate()?;
    let leaf = CertificateParams::new([host.to_owned()])?.signed_by(&key, &authority)?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let key = PrivateKeyDer::try_from(key.serialize_der()).map_err(anyhow::Error::msg)?;
    let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    let config = config.with_no_client_auth().with_single_cert(vec![leaf.into()], key)?;
    Ok((TlsAcceptor::from(Arc::new(config)), ca_file))
}

async fn alices_channel_is_announced(scene: &Scene) -> Result<()> {
    let [alice, dave] = ["alice", "dave"].map(|name| scene.counterparty(name));
    alice.open_channel(dave.node_id(), &dave.address(), CAPACITY_SAT, true).await?;
    buried(scene, 0).await?;
    let ready = async || {
        let ready = [alice, dave].iter().all(|node| node.channels().iter().all(|channel| channel.is_usable));
        Ok(Probe::when(ready, (), || "not yet".into()))
    };
    scene.wait_for("alice's channel to be usable", THROUGH_TOR, ready).await?;
    // Six blocks at once can come before both are ready; they look again at the next one.
    scene.mine(1).await?;
    let announced = async || {
        let graph = alice.node().network_graph();
        let channels: Vec<_> = graph.list_channels().into_iter().filter_map(|id| graph.channel(id)).collect();
        let whole = channels.iter().any(|channel| channel.one_to_two.is_some() && channel.two_to_one.is_some());
        Ok(Probe::when(whole, (), || format!("{channels:?}")))
    };
    scene.wait_for("alice's channel in her graph", THROUGH_TOR, announced).await
}

fn port(address: &str) -> u16 {
    address.rsplit(':').next().and_then(|port| port.parse().ok()).expect("host:port")
}

async fn peer(scene: &Scene, of: &Counterparty) -> Result<Option<v1::Peer>> {
    let ask = async |mut client: Client| client.list_peers(v1::ListPeersRequest::default()).await;
    let peers = scene.operator().ask("our peers", THROUGH_TOR, ask).await?.peers;
    Ok(peers.into_iter().find(|peer| peer.node_id == of.node_id().to_string()))
}

async fn connected(scene: &Scene, of: &Counterparty) -> Result<v1::Peer> {
    let look = async || {
        let peer = peer(scene, of).await?;
        Ok(match peer {
            Some(peer) if peer.connected => Probe::Ready(peer),
            other => Probe::Waiting(format!("{other:?}")),
        })
    };
    scene.wait_for(&format!("{} to be connected", of.name()), THROUGH_TOR, look).await
}

async fn connect(scene: &Scene, to: &Counterparty, address: &str) -> Result<()> {
    let request = v1::ConnectPeerRequest { node_id: to.node_id().to_string(), address: address.to_owned() };
    let ask = async |mut client: Client| client.connect_peer(request.clone()).await;
    scene.explain(scene.operator().ask(&format!("{} at {address}", to.name()), THROUGH_TOR, ask).await)?;
    let peer = connected(scene, to).await?;
    ensure!(peer.address == address && !peer.inbound, "connected to {address}, and told of {peer:?}");
    Ok(())
}

/// Waits for a funding transaction, buries it, and waits until our channels are so many, and usable.
async fn buried(scene: &Scene, channels: usize) -> Result<()> {
    let funded = async || {
        let mempool = scene.bitcoind().mempool().await?;
        Ok(Probe::when(!mempool.is_empty(), (), || "an empty mempool".into()))
    };
    scene.wait_for("a funding transaction", THROUGH_TOR, funded).await?;
    scene.mine(6).await?;
    usable(scene, channels).await
}

/// Waits until we, and bob, can use our channels.
async fn usable(scene: &Scene, channels: usize) -> Result<()> {
    let usable = async || {
        let ours = scene.channels().await?;
        let usable = ours.iter().filter(|channel| channel.is_usable).count();
        let bobs = scene.bob().channels().iter().all(|channel| channel.is_usable);
        Ok(Probe::when(usable == channels && bobs, (), || format!("bob's: {bobs}, {ours:?}")))
    };
    scene.wait_for("our channels to be usable", THROUGH_TOR, usable).await
}

/// Bob dials our onion service until somebody there speaks as our node does.
async fn comes_to_us(scene: &Scene, stage: &Stage, bob: &Counterparty) -> Result<()> {
    let node_id = scene.node_id().await?;
    let came = async || {
        bob.connect(node_id, stage.to_us.address()).await?;
        let peer = peer(scene, bob).await?;
        Ok(Probe::when(peer.as_ref().is_some_and(|peer| peer.connected && peer.inbound), (), || format!("{peer:?}")))
    };
    scene.wait_for("bob to come through our onion service", THROUGH_TOR, came).await
}

#[tokio::test(flavor = "multi_thread")]
async fn peers_and_the_graph_come_through_tor_alone_and_peers_find_the_next_leader() {
    let scene = Scene::of(Deployment::builder().replicas(2).counterparties(&NAMES).durable(false)).await.unwrap();
    scene.fund_all(2, Amount::from_sat(5_000_000)).await.unwrap();
    let nodes @ [alice, bob, carol, _] = NAMES.map(|name| scene.counterparty(name));
    let stage = Arc::new(scene.explain(Stage::set(&scene).await).unwrap());
    let watch = {
        let ports = nodes.map(|node| port(&node.address()));
        let tors = stage.clone();
        Watch::start(ports.into_iter().chain([stage.mirror.port]).collect(), move || tors.pids())
    };
    stage.configure(&scene).await.unwrap();

    the_graph_comes_over_https_by_a_name_that_an_exit_knows(&scene, &stage).await;
    each_peer_is_reached_over_circuits_of_its_own(&scene, &stage).await;
    money_goes_out(&scene, &stage).await;
    a_peer_moves(&scene, &stage).await;
    money_comes_in(&scene, &stage).await;
    the_onion_service_leads_to_the_next_leader(&scene, &stage).await;
    tor_goes_away_and_comes_back(&scene, &stage).await;

    let seen = watch.seen();
    assert!(seen.others.is_empty(), "around Tor: {seen:?}");
    for node in [alice, carol] {
        assert!(seen.rightful.contains_key(&port(&node.address())), "{} was reached: {seen:?}", node.name());
    }
    for node in [alice, bob] {
        assert_eq!(node.closed(), Vec::<String>::new());
    }
}

async fn the_graph_comes_over_https_by_a_name_that_an_exit_knows(scene: &Scene, stage: &Stage) {
    // The channel between alice and dave, which nobody has told our node of but the mirror.
    let ask = async |mut client: Client| client.describe_graph(v1::DescribeGraphRequest::default()).await;
    let known = async || {
        let graph = scene.operator().ask("the graph", THROUGH_TOR, ask).await?;
        let policies = graph.channels.iter().flat_map(|channel| [&channel.policy_1, &channel.policy_2]).flatten();
        let whole = (graph.nodes.len(), graph.channels.len(), policies.count()) == (2, 1, 2);
        Ok(Probe::when(whole, graph.clone(), || format!("{graph:?}")))
    };
    let graph = scene.wait_for("the graph from the mirror", THROUGH_TOR, known).await.unwrap();
    let ends: BTreeSet<_> = graph.nodes.into_iter().map(|node| node.node_id).collect();
    assert_eq!(ends, ["alice", "dave"].map(|name| scene.counterparty(name).node_id().to_string()).into());
    assert_eq!(stage.mirror.asked.lock().unwrap()[0], "/0");
    let asked = stage.network.names_asked_for();
    assert!(asked.contains(&format!("rapidsync.{}", TorNetwork::DOMAIN)), "{asked:?}");
}

async fn each_peer_is_reached_over_circuits_of_its_own(scene: &Scene, stage: &Stage) {
    let [alice, carol, dave] = ["alice", "carol", "dave"].map(|name| scene.counterparty(name));
    // By an onion address, a name and an address.
    let name = format!("carol.{}", TorNetwork::DOMAIN);
    connect(scene, alice, &stage.theirs.onion().unwrap()).await.unwrap();
    connect(scene, carol, &format!("{name}:{}", port(&carol.address()))).await.unwrap();
    connect(scene, dave, &dave.address()).await.unwrap();
    let asked = stage.network.names_asked_for();
    assert!(asked.contains(&name), "{asked:?}");

    // Tor writes down for whom it keeps a circuit apart from others.
    let users: BTreeSet<_> = stage.ours.circuits().await.unwrap().into_values().collect();
    let peers: BTreeSet<_> = [alice, carol, dave].map(|node| node.node_id().to_string()).into();
    assert!(users.is_superset(&peers), "{users:?} and {peers:?}");
    let streams = stage.ours.streams().await.unwrap();
    let circuits: BTreeSet<_> = streams.iter().collect();
    assert!(streams.len() >= peers.len() && circuits.len() == streams.len(), "{streams:?}");
}

/// Over a channel that goes through Tor, also along a way of which the mirror told.
async fn money_goes_out(scene: &Scene, stage: &Stage) {
    let [alice, dave] = ["alice", "dave"].map(|name| scene.counterparty(name));
    let (_, mut client) = scene.leader().await.unwrap();
    let request = v1::OpenChannelRequest {
        node_id: alice.node_id().to_string(),
        address: stage.theirs.onion().unwrap(),
        capacity_sat: CAPACITY_SAT,
        announce: true,
        ..Default::default()
    };
    client.open_channel(request).await.unwrap();
    buried(scene, 1).await.unwrap();
    scene.pay(&alice.invoice(SMALL_MSAT, "through Tor").await.unwrap()).await.unwrap();
    scene.pay(&dave.invoice(SMALL_MSAT, "through Tor and alice").await.unwrap()).await.unwrap();
}

/// A peer that moves: it is where the operator said last, and that is what he is shown.
async fn a_peer_moves(scene: &Scene, stage: &Stage) {
    let alice = scene.alice();
    let by_name = format!("alice.{}:{}", TorNetwork::DOMAIN, port(&alice.address()));
    for address in [by_name, stage.theirs.onion().unwrap()] {
        let (_, mut client) = scene.leader().await.unwrap();
        let request = v1::DisconnectPeerRequest { node_id: alice.node_id().to_string() };
        client.disconnect_peer(request).await.unwrap();
        connect(scene, alice, &address).await.unwrap();
    }
}

/// Through the onion service and HAProxy. Bob announces nothing, so nobody could go to him.
async fn money_comes_in(scene: &Scene, stage: &Stage) {
    let [alice, bob] = ["alice", "bob"].map(|name| scene.counterparty(name));
    comes_to_us(scene, stage, bob).await.unwrap();
    let node_id = scene.node_id().await.unwrap();
    bob.open_channel(node_id, stage.to_us.address(), CAPACITY_SAT, false).await.unwrap();
    buried(scene, 2).await.unwrap();
    scene.receive(bob, SMALL_MSAT).await.unwrap();

    // What we tell of ourselves is the onion address, and nothing else.
    let heard = async || {
        let graph = alice.node().network_graph();
        let node = graph.node(&NodeId::from_pubkey(&node_id)).and_then(|node| node.announcement_info);
        Ok(match node {
            Some(node) => Probe::Ready(node.addresses().iter().map(ToString::to_string).collect::<Vec<_>>()),
            None => Probe::Waiting("nothing".into()),
        })
    };
    let addresses = scene.wait_for("alice to hear of us", THROUGH_TOR, heard).await.unwrap();
    assert_eq!(addresses, [stage.ours.onion().unwrap()]);
}

async fn the_onion_service_leads_to_the_next_leader(scene: &Scene, stage: &Stage) {
    let [alice, bob] = ["alice", "bob"].map(|name| scene.counterparty(name));
    let (leader, _) = scene.leader().await.unwrap();
    let killed = Instant::now();
    leader.kill().unwrap();
    comes_to_us(scene, stage, bob).await.unwrap();
    println!("the onion service leads to the next leader after {:?}", killed.elapsed());
    usable(scene, 2).await.unwrap();
    scene.receive(bob, SMALL_MSAT).await.unwrap();
    connected(scene, alice).await.unwrap();
    println!("alice is connected to it after {:?}", killed.elapsed());
    scene.pay(&alice.invoice(SMALL_MSAT, "after a takeover").await.unwrap()).await.unwrap();
    leader.start().await.unwrap();
}

/// Nothing goes around it meanwhile. Bob is not waited for: his Tor may hold on to the old introduction points for minutes.
async fn tor_goes_away_and_comes_back(scene: &Scene, stage: &Stage) {
    let [alice, carol, dave] = ["alice", "carol", "dave"].map(|name| scene.counterparty(name));
    stage.ours.stop().unwrap();
    let gone = async || {
        let ask = async |mut client: Client| client.list_peers(v1::ListPeersRequest::default()).await;
        let peers = scene.operator().ask("our peers", THROUGH_TOR, ask).await?.peers;
        Ok(Probe::when(peers.iter().all(|peer| !peer.connected), (), || format!("{peers:?}")))
    };
    scene.wait_for("all connections to break", THROUGH_TOR, gone).await.unwrap();
    let (_, mut client) = scene.leader().await.unwrap();
    let request = v1::ConnectPeerRequest { node_id: dave.node_id().to_string(), address: dave.address() };
    let refused = client.connect_peer(request).await.unwrap_err();
    assert!(refused.message().contains("the proxy") && refused.message().contains("is away"), "{refused:?}");
    let back = Instant::now();
    stage.ours.start().await.unwrap();
    connected(scene, alice).await.unwrap();
    connected(scene, carol).await.unwrap();
    println!("the peers that we go to are back {:?} after Tor's start", back.elapsed());
    let resumed = async || {
        let ours = scene.channels().await?;
        let with_alice = ours.iter().find(|channel| channel.counterparty == alice.node_id().to_string());
        Ok(Probe::when(with_alice.is_some_and(|channel| channel.is_usable), (), || format!("{with_alice:?}")))
    };
    scene.wait_for("the channel with alice", THROUGH_TOR, resumed).await.unwrap();
    scene.pay(&alice.invoice(SMALL_MSAT, "after Tor was away").await.unwrap()).await.unwrap();
}
