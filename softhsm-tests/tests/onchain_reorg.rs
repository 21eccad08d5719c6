//! Six blocks are taken back at each stage of a channel's life on chain: nothing is lost, to the satoshi.

use anyhow::Result;
use bitcoin::{Amount, OutPoint, Transaction};
use holdfast_local::{Client, Counterparty, Deployment, Probe};
use holdfast_proto::node::v1::{self, PaymentStatus};
use holdfast_softhsm_tests::{
    PROMPT, Scene,
    onchain::{ANCHOR_SAT, Ledger, mempool, outpoint},
};

const SIX: u32 = 6;

#[tokio::test(flavor = "multi_thread")]
async fn p6_a_reorganisation_of_six_blocks_at_each_stage_loses_nothing() {
    reorganised(true, Htlc::TimesOut).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn p6_a_reorganisation_of_six_blocks_around_an_htlc_success_loses_nothing() {
    reorganised(true, Htlc::Succeeds).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn p6_a_reorganisation_of_six_blocks_loses_nothing_of_a_static_remote_key_channel() {
    reorganised(false, Htlc::Succeeds).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn p6_a_reorganisation_of_six_blocks_around_a_timeout_loses_nothing_of_a_static_remote_key_channel() {
    reorganised(false, Htlc::TimesOut).await;
}

/// What is in flight when the channel closes.
#[derive(Clone, Copy, PartialEq)]
enum Htlc {
    /// We pay, and nobody claims it.
    TimesOut,
    /// We are paid, and know the preimage.
    Succeeds,
}

const HTLC_SAT: u64 = 31_000;

async fn reorganised(anchors: bool, kind: Htlc) {
    let builder = Deployment::builder().replicas(2).counterparties(&["alice"]).durable(false);
    let builder = if anchors { builder } else { builder.without_anchors(&["alice"]) };
    let scene = Scene::of(builder).await.unwrap();
    let alice = scene.alice();
    scene.fund_all(2, Amount::from_sat(5_000_000)).await.unwrap();

    // The funding, one block short of the depth at which the channel would be ready.
    let (_, mut client) = scene.leader().await.unwrap();
    let request = v1::OpenChannelRequest {
        node_id: alice.node_id().to_string(),
        address: alice.address(),
        capacity_sat: 2_000_000,
        announce: true,
        ..Default::default()
    };
    client.open_channel(request).await.unwrap();
    let pending = async || {
        let mempool = scene.bitcoind().mempool().await?;
        Ok(Probe::when(mempool.len() == 1, (), || format!("{mempool:?}")))
    };
    scene.wait_for("the funding transaction", PROMPT, pending).await.unwrap();
    scene.mine(SIX - 1).await.unwrap();
    taken_back(&scene).await.unwrap();
    scene.mine(SIX).await.unwrap();
    scene.channels_usable(1).await.unwrap();
    scene.pay(&alice.invoice(150_000_000, "alice's share").await.unwrap()).await.unwrap();
    scene.balances().await.unwrap();
    let channel = scene.channel_with(alice).await.unwrap();
    let funding = outpoint(&channel.funding_outpoint).unwrap();
    let before = scene.balance().await.unwrap();
    let since = scene.bitcoind().height().await.unwrap();
    match kind {
        Htlc::TimesOut => drop(scene.hold_ours(alice, HTLC_SAT).await.unwrap()),
        Htlc::Succeeds => pays_and_is_gone(&scene, alice).await,
    }
    scene.in_flight(1).await.unwrap();

    // The commitment, deep enough for LDK to rely on it; the mempool forgets it, and the next block has us send it again.
    scene.force_close(&channel).await.unwrap();
    let commitment = scene.unconfirmed_spender("our commitment", funding).await.unwrap();
    scene.mine(SIX).await.unwrap();
    taken_back(&scene).await.unwrap();
    scene.bitcoind().forget_mempool().await.unwrap();
    scene.mine(1).await.unwrap();
    again(&scene, funding, &commitment).await;

    // The HTLC's second stage.
    let htlc = output(&commitment, HTLC_SAT);
    let second = spent_six_deep(&scene, "our HTLC transaction", htlc).await;
    taken_back(&scene).await.unwrap();
    scene.take_over().await.unwrap();
    again(&scene, htlc, &second).await;

    // The sweep of what it left, by whichever leader there is. That of our side of the commitment came before it.
    let at = second.input.iter().position(|input| input.previous_output == htlc).unwrap();
    let delayed = OutPoint { txid: second.compute_txid(), vout: at as u32 };
    spent_six_deep(&scene, "the sweep", delayed).await;
    taken_back(&scene).await.unwrap();
    scene.take_over().await.unwrap();
    scene.unconfirmed_spender("the sweep again", delayed).await.unwrap();
    scene.mine(SIX).await.unwrap();
    scene.until_home(8, |balance| balance.lightning_sat == 0).await.unwrap();

    let after = scene.balance().await.unwrap();
    let coins = scene.utxos().await.unwrap();
    let ledger = Ledger::read(&scene, &[&commitment], &[], &coins, since).await.unwrap();
    let taken = |anchor: bool| -> u64 {
        let all = ledger.outputs(&commitment).into_iter().filter(|(_, taker)| *taker == Some(true));
        all.map(|(output, _)| output.value.to_sat()).filter(|value| (*value == ANCHOR_SAT) == anchor).sum()
    };
    let commitment_fee = ledger.fee(&commitment).unwrap();
    let received = if kind == Htlc::Succeeds { HTLC_SAT } else { 0 };
    assert_eq!(taken(false) + commitment_fee, before.lightning_sat + received, "all that the channel held for us");
    let fees = ledger.our_fees().unwrap();
    assert_eq!(after.onchain_confirmed_sat + fees, before.onchain_confirmed_sat + taken(false) + taken(true));
    assert!(fees < 40_000, "{fees} sat of fees");
    println!("anchors: {anchors}; {fees} sat of fees");
}

/// Alice pays us and goes away before she could be told the preimage, which is known here.
async fn pays_and_is_gone(scene: &Scene, alice: &Counterparty) {
    let (_, mut client) = scene.leader().await.unwrap();
    let request = v1::CreateInvoiceRequest {
        amount_msat: Some(HTLC_SAT * 1000),
        description: "held".into(),
        hold: true,
        final_cltv_delta: 144,
        ..Default::default()
    };
    let invoice = client.create_invoice(request).await.unwrap().into_inner();
    alice.pay(&invoice.invoice).await.unwrap();
    let held = async || {
        let request = v1::GetPaymentRequest { payment_hash: invoice.payment_hash.clone() };
        let ask = async |mut client: Client| client.get_payment(request.clone()).await;
        let payment = scene.operator().ask("the payment", PROMPT, ask).await?;
        Ok(Probe::when(payment.status() == PaymentStatus::Accepted, (), || format!("{payment:?}")))
    };
    scene.wait_for("the payment to be held", PROMPT, held).await.unwrap();
    alice.halt().await.unwrap();
    let request = v1::SettleInvoiceRequest { payment_hash: invoice.payment_hash.clone(), ..Default::default() };
    let payment = client.settle_invoice(request).await.unwrap().into_inner();
    assert_eq!(payment.status(), PaymentStatus::Succeeded, "{payment:?}");
}

async fn taken_back(scene: &Scene) -> Result<()> {
    scene.bitcoind().reorganise(SIX).await?;
    scene.synced().await
}

/// What was taken back goes into blocks again.
async fn again(scene: &Scene, spent: OutPoint, tx: &Transaction) {
    let found = scene.unconfirmed_spender("what was taken back", spent).await.unwrap();
    assert_eq!(found.compute_txid(), tx.compute_txid());
    scene.mine(SIX).await.unwrap();
    assert!(!scene.bitcoind().is_unspent(spent).await.unwrap());
}

/// Mines until something could spend `outpoint` and did, six blocks deep.
async fn spent_six_deep(scene: &Scene, what: &str, outpoint: OutPoint) -> Transaction {
    let spends = |tx: &Transaction| tx.input.iter().any(|input| input.previous_output == outpoint);
    let buried = async || {
        let tip = scene.bitcoind().height().await?;
        for depth in 1..=SIX {
            let block = scene.bitcoind().block(tip + 1 - depth).await?;
            if let Some(tx) = block.txdata.into_iter().find(&spends) {
                scene.mine(SIX - depth).await?;
                return Ok(Probe::Ready(tx));
            }
        }
        // So few at once that none of them can bury it deeper.
        let ready = mempool(scene.bitcoind()).await?.iter().any(&spends);
        scene.mine(if ready { 1 } else { SIX }).await?;
        Ok(Probe::Waiting(format!("at height {tip}")))
    };
    scene.wait_for(what, PROMPT * 6, buried).await.unwrap()
}

fn output(tx: &Transaction, amount_sat: u64) -> OutPoint {
    let vout = tx.output.iter().position(|output| output.value.to_sat() == amount_sat);
    let vout = vout.unwrap_or_else(|| panic!("no output of {amount_sat} sat: {:?}", tx.output));
    OutPoint { txid: tx.compute_txid(), vout: vout as u32 }
}
