//! A counterparty that publishes a state which it has revoked loses all of it, HTLCs included, even while our leader
//! dies, and even if the chain takes back the punishment.

use std::{fs, path::Path};

use bitcoin::{OutPoint, Transaction};
use holdfast_local::{Counterparty, Deployment, Outcome, Probe};
use holdfast_softhsm_tests::{
    PROMPT, Scene,
    onchain::{ANCHOR_SAT, Held, Ledger, outpoint},
};

#[tokio::test(flavor = "multi_thread")]
async fn p6_a_breach_with_htlcs_is_punished_while_leaders_die() {
    punished(true, Meanwhile::LeadersDie).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn p6_a_breach_with_htlcs_is_punished_on_a_static_remote_key_channel() {
    punished(false, Meanwhile::LeadersDie).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn p6_a_breach_stays_punished_when_six_blocks_are_taken_back() {
    punished(true, Meanwhile::BlocksAreTakenBack).await;
}

/// What happens while justice is done.
#[derive(Clone, Copy, PartialEq)]
enum Meanwhile {
    LeadersDie,
    /// First with the breach in them, then with the justice; and a leader dies between the two.
    BlocksAreTakenBack,
}

const SIX: u32 = 6;

/// Bob goes back to a state in which an HTLC is in flight in each direction, publishes it while we are away, and claims
/// the one that he can.
async fn punished(anchors: bool, meanwhile: Meanwhile) {
    let names = ["alice", "bob"];
    let builder = Deployment::builder().replicas(2).counterparties(&names).durable(false);
    let builder = if anchors { builder } else { builder.without_anchors(&names) };
    let scene = Scene::of(builder).await.unwrap().opened().await.unwrap();
    let (alice, bob) = (scene.alice(), scene.bob());
    let channel = scene.channel_with(bob).await.unwrap();
    let funding = outpoint(&channel.funding_outpoint).unwrap();
    let node_id = scene.node_id().await.unwrap();
    let from_bob = scene.hold(bob, alice, 31_000).await.unwrap();
    let to_bob = scene.hold(alice, bob, 21_000).await.unwrap();
    scene.in_flight(2).await.unwrap();

    let old = scene.folder().join("bob-of-old");
    bob.halt().await.unwrap();
    copy(bob.storage(), &old);
    bob.resume().await.unwrap();
    scene.channels_usable(2).await.unwrap();
    for (held, payer, payee) in [(from_bob, bob, alice), (to_bob, alice, bob)] {
        payee.claim(held.preimage, held.amount_sat * 1000).await.unwrap();
        succeeded(payer, &held).await;
    }
    scene.in_flight(0).await.unwrap();
    scene.pay(&bob.invoice(50_000_000, "what bob will lose").await.unwrap()).await.unwrap();
    scene.balances().await.unwrap();

    let before = scene.balance().await.unwrap();
    let since = scene.bitcoind().height().await.unwrap();
    for replica in scene.replicas() {
        replica.stop().unwrap();
    }
    bob.halt().await.unwrap();
    fs::remove_dir_all(bob.storage()).unwrap();
    copy(&old, bob.storage());
    bob.resume().await.unwrap();
    bob.close_channel(bob.channels()[0].user_channel_id, node_id, true).await.unwrap();
    let breach = scene.unconfirmed_spender("the breach", funding).await.unwrap();
    scene.bitcoind().mine(1).await.unwrap();
    bob.sync().await.unwrap();
    bob.claim(to_bob.preimage, to_bob.amount_sat * 1000).await.unwrap();
    let claimed = output(&breach, to_bob.amount_sat);
    let success = scene.unconfirmed_spender("bob's HTLC-success", claimed).await.unwrap();
    scene.bitcoind().mine(1).await.unwrap();

    for replica in scene.replicas() {
        replica.start().await.unwrap();
    }
    let offered = output(&breach, from_bob.amount_sat + 1);
    match meanwhile {
        Meanwhile::LeadersDie => {
            // Dead before it could do much, and dead with its first justice transaction in the mempool.
            scene.take_over().await.unwrap();
            scene.unconfirmed_spender("justice", offered).await.unwrap();
            scene.take_over().await.unwrap();
            scene.mine(1).await.unwrap();
        }
        Meanwhile::BlocksAreTakenBack => {
            // What he claimed stays as it is: he would replace it.
            bob.halt().await.unwrap();
            scene.unconfirmed_spender("justice", offered).await.unwrap();
            scene.mine(SIX - 2).await.unwrap();
            scene.bitcoind().reorganise(SIX).await.unwrap();
            scene.synced().await.unwrap();
            assert!(scene.bitcoind().is_unspent(funding).await.unwrap(), "the breach was taken back");
            scene.mine(1).await.unwrap();
            assert!(!scene.bitcoind().is_unspent(funding).await.unwrap(), "the breach is back");
            scene.take_over().await.unwrap();
            // It may stand in the block of the breach: both were in the mempool. Then no other may be mined, or six blocks
            // would not reach it.
            let punished = async || {
                if !scene.bitcoind().is_unspent(offered).await? {
                    return Ok(Probe::Ready(()));
                }
                scene.mine(1).await?;
                Ok(Probe::Waiting("not yet".into()))
            };
            scene.wait_for("justice again", PROMPT, punished).await.unwrap();
            scene.mine(SIX - 1).await.unwrap();
            scene.bitcoind().reorganise(SIX).await.unwrap();
            scene.synced().await.unwrap();
            scene.take_over().await.unwrap();
            scene.unconfirmed_spender("justice once more", offered).await.unwrap();
            scene.mine(1).await.unwrap();
        }
    }
    scene.until_home(3, |balance| balance.lightning_sat < before.lightning_sat).await.unwrap();

    let after = scene.balance().await.unwrap();
    let coins = scene.utxos().await.unwrap();
    let ledger = Ledger::read(&scene, &[&breach], &[&success], &coins, since).await.unwrap();
    let mut taken = 0;
    for (vout, (output, taker)) in (0..).zip(ledger.outputs(&breach)) {
        let value = output.value.to_sat();
        if value == ANCHOR_SAT && anchors {
            taken += if taker == Some(true) { value } else { 0 };
        } else if value == to_bob.amount_sat {
            // Bob took it one step further, and no more than that.
            let outpoint = OutPoint { txid: breach.compute_txid(), vout };
            assert_eq!(ledger.spender(outpoint).unwrap(), (&success, false));
            let at = success.input.iter().position(|input| input.previous_output == outpoint).unwrap();
            let delayed = OutPoint { txid: success.compute_txid(), vout: at as u32 };
            assert!(ledger.spender(delayed).is_some_and(|(_, ours)| ours), "what bob claimed is ours");
            taken += success.output[at].value.to_sat();
        } else {
            assert_eq!(taker, Some(true), "output {vout} of {value} sat");
            taken += value;
        }
    }
    let fees = ledger.our_fees().unwrap();
    assert_eq!(after.onchain_confirmed_sat + fees, before.onchain_confirmed_sat + taken);
    let commitment_fee = ledger.fee(&breach).unwrap();
    assert!(taken + commitment_fee + 5_000 > channel.capacity_sat, "all of the channel: {taken}");
    println!("{taken} sat of {} taken with {fees} sat of fees", channel.capacity_sat);

    // The other channel is none the worse.
    assert_eq!(scene.channels().await.unwrap().len(), 1);
    scene.receive(alice, 1_000_000).await.unwrap();
}

async fn succeeded(payer: &Counterparty, held: &Held) {
    let outcome = payer.outcome(held.hash, PROMPT).await.unwrap();
    assert!(matches!(outcome, Outcome::Succeeded { .. }), "{outcome:?}");
}

fn output(tx: &Transaction, amount_sat: u64) -> OutPoint {
    let vout = tx.output.iter().position(|output| output.value.to_sat() == amount_sat);
    let vout = vout.unwrap_or_else(|| panic!("no output of {amount_sat} sat: {:?}", tx.output));
    OutPoint { txid: tx.compute_txid(), vout: vout as u32 }
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}
