//! Which channels peers may open with us, and what an operator can say when he opens or closes one.

use std::{
    fs::{self, OpenOptions},
    io::Write,
    path::Path,
    process::{Command, Output, Stdio},
};

use bitcoin::{Address, Amount, Transaction};
use holdfast_local::{Counterparty, Deployment, Probe};
use holdfast_softhsm_tests::{
    PROMPT, Scene,
    onchain::{mempool, outpoint},
};

const COIN: Amount = Amount::from_sat(2_000_000);
/// Of nobody here: where a treasury might be.
const TREASURY: &str = "bcrt1qw508d6qejxtdg4y5r3zarvary0c5xw7kygt080";

/// A stranger and a channel that is too small are refused, and are told why; a peer that is trusted pays us over its
/// channel before any block has it; who is merely known waits for the blocks.
#[tokio::test(flavor = "multi_thread")]
async fn peers_open_channels_as_the_policy_has_it_and_are_told_why_not() {
    let scene = stage(&["alice", "bob", "carol"]).await;
    let (alice, bob, carol) = (scene.alice(), scene.bob(), scene.counterparty("carol"));
    let replica = &scene.replicas()[0];
    let policy = format!(
        "[channels]\nmin_capacity_sat = 300000\nmax_channels = 2\nallowed_peers = [\"{}\"]\nzero_conf_peers = [\"{}\"]\n",
        bob.node_id(),
        alice.node_id()
    );
    append(replica.configuration(), &policy);
    replica.kill().unwrap();
    replica.start().await.unwrap();
    scene.fund_all(2, COIN).await.unwrap();
    let (ours, address) = (scene.node_id().await.unwrap(), replica.peer_address());
    let open = async |from: &Counterparty, sat| from.open_channel(ours, &address, sat, false).await.unwrap();
    let told = async |who: &Counterparty, why: &str| {
        let told = async || {
            let closed = who.closed();
            Ok(Probe::when(closed.iter().any(|reason| reason.contains(why)), (), || format!("{closed:?}")))
        };
        scene.wait_for("the reason of a refusal", PROMPT, told).await.unwrap();
    };

    open(carol, 500_000).await;
    told(carol, "channels are accepted from known peers only").await;
    open(bob, 200_000).await;
    told(bob, "channels of less than 300000 sat are not accepted").await;
    assert!(scene.channels().await.unwrap().is_empty());

    let height = scene.bitcoind().height().await.unwrap();
    open(bob, 400_000).await;
    open(alice, 400_000).await;
    let usable = async || {
        let with_alice = scene.channel_with(alice).await.is_ok_and(|channel| channel.is_usable);
        let hers = alice.channels().iter().any(|channel| channel.is_usable);
        Ok(Probe::when(with_alice && hers, (), || format!("ours: {with_alice}, hers: {hers}")))
    };
    scene.wait_for("the trusted peer's channel to be usable", PROMPT, usable).await.unwrap();
    scene.receive(alice, 20_000_000).await.unwrap();
    assert!(!scene.channel_with(bob).await.unwrap().is_ready, "bob is not trusted");
    assert_eq!(scene.bitcoind().height().await.unwrap(), height, "no block was needed");

    open(alice, 400_000).await;
    told(alice, "no more channels are accepted").await;
    let funded = async || {
        let waiting = scene.bitcoind().mempool().await?.len();
        Ok(Probe::when(waiting >= 2, (), || format!("{waiting} in the mempool")))
    };
    scene.wait_for("both funding transactions", PROMPT, funded).await.unwrap();
    scene.mine(6).await.unwrap();
    scene.channels_usable(2).await.unwrap();

    // One line each, which says more than the peer was told. This kind of peer asks once more, without anchors.
    let log = fs::read_to_string(replica.process().log()).unwrap();
    let refusals: Vec<_> = log.lines().filter(|line| line.contains("refused a channel")).collect();
    let reasons = [
        "the peer is not in channels.allowed_peers",
        "200000 sat are less than channels.min_capacity_sat = 300000",
        "there are channels.max_channels = 2 already",
    ];
    let of = |why: &str| refusals.iter().filter(|line| line.contains(why)).count();
    assert!(reasons.iter().all(|why| (1..=2).contains(&of(why))), "{refusals:#?}");
    assert_eq!(reasons.iter().map(|why| of(why)).sum::<usize>(), refusals.len(), "{refusals:#?}");
    assert!(!log.contains("Force-closing inbound channel request"), "LDK's line about it is one too many");
}

/// An operator opens with a fee rate and a push, is kept from closing by force by accident and from closing to where
/// the signer does not know, and closes to where it does; the money arrives there.
#[tokio::test(flavor = "multi_thread")]
async fn p4_an_operator_opens_and_closes_with_care_and_to_where_the_signer_allows() {
    const CAPACITY_SAT: u64 = 1_000_000;
    let scene = stage(&["alice"]).await;
    let alice = scene.alice();
    scene.fund_all(1, COIN).await.unwrap();

    let peer = format!("{}@{}", alice.node_id(), alice.address());
    ok(&scene, &["open", &peer, "1000000sat", "--push", "50000sat", "--fee-rate", "7.5"]);
    let funding = async || {
        Ok(match mempool(scene.bitcoind()).await?.pop() {
            Some(tx) => Probe::Ready(tx),
            None => Probe::Waiting("an empty mempool".into()),
        })
    };
    let funding: Transaction = scene.wait_for("the funding transaction", PROMPT, funding).await.unwrap();
    let fee = COIN.to_sat() - funding.output.iter().map(|output| output.value.to_sat()).sum::<u64>();
    let weight = funding.weight().to_wu();
    assert!(2 * 4 * fee >= 15 * weight && 4 * fee < 8 * weight, "{fee} sat for {weight} WU");
    scene.mine(6).await.unwrap();
    scene.channels_usable(1).await.unwrap();
    // Of what was pushed.
    scene.receive(alice, 20_000_000).await.unwrap();

    let channel = scene.channel_with(alice).await.unwrap();
    let id = channel.channel_id.as_str();
    let refused = cli(&scene, &["close", id, "--force"]);
    assert_eq!(refused.status.code(), Some(64));
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(said.contains("no terminal to ask on") && said.contains("--yes"), "{said}");
    let refused = cli(&scene, &["--json", "close", id, "--force"]);
    assert_eq!(refused.status.code(), Some(64));

    // Neither we nor the peer can begin a splice, and its trying harms nothing.
    let refused = cli(&scene, &["splice-in", id, "100000sat"]);
    assert_eq!(refused.status.code(), Some(77));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("rule splicing"));
    let (node, ours, hers) = (alice.node(), scene.node_id().await.unwrap(), alice.channels().remove(0));
    let spliced =
        tokio::task::spawn_blocking(move || node.splice_out(&hers.user_channel_id, ours, &treasury(), 5000)).await;
    assert!(spliced.unwrap().is_err(), "we say that we do not splice");

    let refused = cli(&scene, &["close", id, "--to", TREASURY]);
    assert_eq!(refused.status.code(), Some(77));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("close-destination"));
    scene.receive(alice, 1_000_000).await.unwrap();

    append(scene.signer().configuration(), &format!("[rules]\ndestinations = [\"{TREASURY}\"]\n"));
    scene.signer().kill().unwrap();
    scene.signer().start().await.unwrap();
    let before = scene.balance().await.unwrap();
    ok(&scene, &["close", id, "--to", TREASURY]);
    let closing = scene.unconfirmed_spender("the close", outpoint(&channel.funding_outpoint).unwrap()).await.unwrap();
    let paid = closing.output.iter().find(|output| output.script_pubkey == treasury().script_pubkey());
    let paid = paid.expect("the treasury gets our part").value.to_sat();
    let fee = CAPACITY_SAT - closing.output.iter().map(|output| output.value.to_sat()).sum::<u64>();
    // Less what was pushed, and with what came back of it. Who opened pays the fee.
    assert_eq!(paid + fee, CAPACITY_SAT - 50_000 + 20_000 + 1_000);
    // What is not ours any more is not waited for, nor taken for ours.
    scene
        .until_home(6, |now| now.lightning_sat == 0 && now.onchain_confirmed_sat == before.onchain_confirmed_sat)
        .await
        .unwrap();
    let log = fs::read_to_string(scene.replicas()[0].process().log()).unwrap();
    let errors: Vec<_> = log.lines().filter(|line| line.contains(" ERROR ") && !line.contains("Coop Closed")).collect();
    assert!(errors.is_empty(), "{errors:#?}");
}

async fn stage(counterparties: &[&str]) -> Scene {
    Scene::of(Deployment::builder().replicas(1).counterparties(counterparties).durable(false)).await.unwrap()
}

fn treasury() -> Address {
    TREASURY.parse::<Address<_>>().unwrap().assume_checked()
}

fn append(configuration: &Path, table: &str) {
    let mut file = OpenOptions::new().append(true).open(configuration).unwrap();
    file.write_all(table.as_bytes()).unwrap();
}

/// The command line, with nobody at the terminal.
fn cli(scene: &Scene, line: &[&str]) -> Output {
    let mut command = Command::new(&scene.programs().cli);
    command.arg("--config").arg(scene.operator().cli_configuration()).args(["--timeout", "30s"]).args(line);
    command.stdin(Stdio::null()).output().unwrap()
}

fn ok(scene: &Scene, line: &[&str]) {
    let output = cli(scene, line);
    assert!(output.status.success(), "{line:?}: {}", String::from_utf8_lossy(&output.stderr));
}
