//! Channels that end without consent while HTLCs are in flight both ways: every claim is signed by the signer, every coin
//! comes home, to the satoshi, and the leader may die at every stage.

use bitcoin::{OutPoint, Transaction};
use holdfast_local::{Deployment, Probe};
use holdfast_softhsm_tests::{
    PROMPT, Scene,
    onchain::{ANCHOR_SAT, Ledger, mempool, outpoint},
};

#[tokio::test(flavor = "multi_thread")]
async fn p6_closes_with_htlcs_in_flight_come_home_on_anchor_channels() {
    closes_with_htlcs_come_home(true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn p6_closes_with_htlcs_in_flight_come_home_on_static_remote_key_channels() {
    closes_with_htlcs_come_home(false).await;
}

/// We close the channel with alice, bob closes his with us. Through both go two payments in each direction, of which one
/// is claimed and the other runs out.
async fn closes_with_htlcs_come_home(anchors: bool) {
    let names = ["alice", "bob"];
    let builder = Deployment::builder().replicas(2).counterparties(&names).durable(false);
    let builder = if anchors { builder } else { builder.without_anchors(&names) };
    let scene = Scene::of(builder).await.unwrap().opened().await.unwrap();
    let (alice, bob) = (scene.alice(), scene.bob());
    let (with_alice, with_bob) = (scene.channel_with(alice).await.unwrap(), scene.channel_with(bob).await.unwrap());
    let kind = if anchors { "anchors" } else { "static-remote-key" };
    assert_eq!([&*with_alice.channel_type, &*with_bob.channel_type], [kind; 2]);
    let fundings = [&with_alice, &with_bob].map(|channel| outpoint(&channel.funding_outpoint).unwrap());
    let before = scene.balance().await.unwrap();
    let since = scene.bitcoind().height().await.unwrap();

    let claimed_by_bob = scene.hold(alice, bob, 21_000).await.unwrap();
    let claimed_by_alice = scene.hold(bob, alice, 31_000).await.unwrap();
    // With other expiries: LDK merges claims of the same one, and a debug assertion of its own trips over those
    // (`pending_claim_requests` in onchaintx.rs) when one of them is taken by the other side.
    scene.mine(1).await.unwrap();
    let lost_to_bob = scene.hold(alice, bob, 22_000).await.unwrap();
    let lost_to_alice = scene.hold(bob, alice, 32_000).await.unwrap();
    scene.in_flight(4).await.unwrap();

    // The commitments. The answer came after the commit: a new leader knows of the close and goes on with it.
    scene.force_close(&with_alice).await.unwrap();
    scene.take_over().await.unwrap();
    let node_id = scene.node_id().await.unwrap();
    bob.close_channel(bob.channels()[0].user_channel_id, node_id, true).await.unwrap();
    let ours = scene.unconfirmed_spender("our commitment", fundings[0]).await.unwrap();
    let theirs = scene.unconfirmed_spender("bob's commitment", fundings[1]).await.unwrap();
    if anchors {
        let bumped = async || Ok(Probe::when(child_of(&scene, &ours).await?, (), || "no child".into()));
        scene.wait_for("our wallet to pay for our commitment", PROMPT, bumped).await.unwrap();
    }
    scene.mine(1).await.unwrap();

    // Both receivers claim on chain; we learn the preimages there, and claim from the payers' channels.
    alice.claim(claimed_by_alice.preimage, claimed_by_alice.amount_sat * 1000).await.unwrap();
    bob.claim(claimed_by_bob.preimage, claimed_by_bob.amount_sat * 1000).await.unwrap();
    let to_alice = htlc(&ours, claimed_by_alice.amount_sat);
    let to_bob = htlc(&theirs, claimed_by_bob.amount_sat);
    scene.unconfirmed_spender("alice's claim", to_alice).await.unwrap();
    scene.unconfirmed_spender("bob's claim", to_bob).await.unwrap();
    scene.mine(1).await.unwrap();
    // What comes in carries our fee of one satoshi.
    let (from_alice, from_bob) =
        (htlc(&ours, claimed_by_bob.amount_sat + 1), htlc(&theirs, claimed_by_alice.amount_sat + 1));
    scene.unconfirmed_spender("our HTLC-success", from_alice).await.unwrap();
    scene.unconfirmed_spender("our claim with a preimage", from_bob).await.unwrap();
    scene.take_over().await.unwrap();
    scene.mine(1).await.unwrap();

    // The others run out, meanwhile the delayed outputs ripen and are swept.
    let lost_ours = htlc(&ours, lost_to_alice.amount_sat);
    let lost_theirs = htlc(&theirs, lost_to_bob.amount_sat);
    let mut killed = false;
    let timed_out = async || {
        scene.mine(8).await?;
        let left = [scene.bitcoind().is_unspent(lost_ours).await?, scene.bitcoind().is_unspent(lost_theirs).await?];
        let done = left.map(|left| !left);
        if done.contains(&true) && !std::mem::replace(&mut killed, true) {
            scene.take_over().await?;
        }
        Ok(Probe::when(done == [true; 2], (), || format!("{done:?}")))
    };
    scene.wait_for("our HTLC-timeouts", PROMPT * 4, timed_out).await.unwrap();
    scene.until_home(8, |balance| balance.lightning_sat == 0).await.unwrap();
    // The peers take what is theirs in their own time.
    let theirs_to_take = [
        htlc(&ours, lost_to_bob.amount_sat + 1),
        htlc(&ours, claimed_by_alice.amount_sat),
        htlc(&theirs, claimed_by_bob.amount_sat),
        htlc(&theirs, lost_to_alice.amount_sat + 1),
    ];
    let all_taken = async || {
        scene.mine(1).await?;
        for output in theirs_to_take {
            if scene.bitcoind().is_unspent(output).await? {
                return Ok(Probe::Waiting(format!("{output} is left")));
            }
        }
        Ok(Probe::Ready(()))
    };
    scene.wait_for("the peers' claims", PROMPT * 2, all_taken).await.unwrap();

    let after = scene.balance().await.unwrap();
    let coins = scene.utxos().await.unwrap();
    let ledger = Ledger::read(&scene, &[&ours, &theirs], &[], &coins, since).await.unwrap();
    let taken = |commitment: &Transaction| {
        let outputs = ledger.outputs(commitment);
        let sum = |anchor: bool| -> u64 {
            let ours = outputs.iter().filter(|(_, taker)| *taker == Some(true));
            ours.map(|(output, _)| output.value.to_sat()).filter(|value| (*value == ANCHOR_SAT) == anchor).sum()
        };
        (sum(false), sum(true))
    };
    for (commitment, amount_sat, is_ours) in [
        (&ours, claimed_by_bob.amount_sat + 1, true),
        (&ours, lost_to_bob.amount_sat + 1, false),
        (&ours, claimed_by_alice.amount_sat, false),
        (&ours, lost_to_alice.amount_sat, true),
        (&theirs, claimed_by_bob.amount_sat, false),
        (&theirs, lost_to_bob.amount_sat, true),
        (&theirs, claimed_by_alice.amount_sat + 1, true),
        (&theirs, lost_to_alice.amount_sat + 1, false),
    ] {
        let (_, took) = ledger.spender(htlc(commitment, amount_sat)).unwrap_or_else(|| panic!("{amount_sat} is left"));
        assert_eq!(took, is_ours, "{amount_sat} sat of {}", commitment.compute_txid());
    }

    // To the satoshi: our channels were worth what they were, and two fees more; we opened the one with alice, so we pay
    // for its commitment.
    let ((main_a, anchors_a), (main_b, anchors_b)) = (taken(&ours), taken(&theirs));
    let commitment_fee = ledger.fee(&ours).unwrap();
    // The balance of a channel leaves its anchors out.
    assert_eq!(main_a + main_b + commitment_fee, before.lightning_sat + 2);
    let fees = ledger.our_fees().unwrap();
    assert_eq!(
        after.onchain_confirmed_sat + fees,
        before.onchain_confirmed_sat + main_a + main_b + anchors_a + anchors_b,
    );
    assert!(fees < 60_000, "{fees} sat of fees");
    println!("{kind}: {fees} sat of fees, {commitment_fee} sat for our commitment");
}

/// The output of `amount_sat`.
fn htlc(commitment: &Transaction, amount_sat: u64) -> OutPoint {
    let vout = commitment.output.iter().position(|output| output.value.to_sat() == amount_sat);
    let vout = vout.unwrap_or_else(|| panic!("no output of {amount_sat} sat: {:?}", commitment.output));
    OutPoint { txid: commitment.compute_txid(), vout: vout as u32 }
}

/// Whether something in the mempool spends an output of `parent`.
async fn child_of(scene: &Scene, parent: &Transaction) -> anyhow::Result<bool> {
    let txid = parent.compute_txid();
    let mempool = mempool(scene.bitcoind()).await?;
    Ok(mempool.iter().any(|tx| tx.input.iter().any(|input| input.previous_output.txid == txid)))
}
