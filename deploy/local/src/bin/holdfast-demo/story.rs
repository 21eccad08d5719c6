//! Open, pay, receive, forward, kill, take over, count.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use bitcoin::Amount;
use holdfast_local::{
    Client, Counterparty, Deployment, Outcome,
    load::{Load, Sent, all_directions},
};
use holdfast_proto::node::v1;
use tokio::{
    sync::mpsc,
    time::{Instant as TokioInstant, timeout_at},
};

use crate::narrator::{detail, progress, progress_done, sat, say};

const CAPACITY_SAT: u64 = 2_000_000;
const FIRST_PAYMENT_MSAT: u64 = 150_000_000;
const DEADLINE: Duration = Duration::from_secs(60);

pub async fn tell(deployment: &Deployment, seconds: u64) -> Result<()> {
    let (alice, bob) = (deployment.counterparty("alice"), deployment.counterparty("bob"));
    introduce(deployment).await?;

    say("coins for everybody, and channels");
    deployment.fund_all(2, Amount::from_sat(3_000_000)).await?;
    for counterparty in [alice, bob] {
        deployment.open_channel_to(counterparty, CAPACITY_SAT).await?;
        detail(&format!("ours - {}: {}", counterparty.name(), sat(CAPACITY_SAT * 1000)));
    }

    say("we pay");
    for counterparty in [alice, bob] {
        let invoice = counterparty.invoice(FIRST_PAYMENT_MSAT, "a first payment").await?;
        let began = Instant::now();
        deployment.pay(&invoice).await?;
        detail(&format!("{} to {} in {}", sat(FIRST_PAYMENT_MSAT), counterparty.name(), millis(began.elapsed())));
    }

    deployment.balances().await?;

    say("we are paid");
    let invoice = deployment.invoice(25_000_000, "for a book").await?;
    detail(&paid(bob, &invoice.invoice, "bob pays us").await?);

    deployment.balances().await?;

    say("alice pays bob through us");
    deployment.route_known(alice, bob).await?;
    deployment.route_known(bob, alice).await?;
    detail(&paid(alice, &bob.invoice(5_000_000, "forwarded").await?, "alice pays bob").await?);

    let promise = deployment.invoice(42_000_000, "made before the kill").await?;
    say("an invoice for 42 000 sat, to be paid later; nobody pays it yet");

    let before = deployment.balances().await?;
    let node_id = deployment.node_id().await?;
    say("payments flow: we pay both, both pay us, and they pay each other through us");
    let (watcher, mut payments) = mpsc::unbounded_channel();
    let load = Load::start(deployment, all_directions(alice, bob), Some(watcher)).await?;
    let mut watched = Watched::default();
    watched.watch(&mut payments, Duration::from_secs(seconds)).await?;

    let (leader, _) = deployment.leader().await?;
    let (name, term) = (leader.name().to_owned(), deployment.info().await?.term);
    let wall = SystemTime::now();
    let killed = Instant::now();
    leader.kill()?;
    say(&format!("kill -9 {name}, the leader of term {term}, in mid-stream"));
    watched.watch_until_settled_after(&mut payments, killed).await?;
    watched.watch(&mut payments, Duration::from_secs(seconds)).await?;
    let takeover = deployment.leader().await?;
    say(&format!("{} leads; the stream went on", takeover.0.name()));
    print_timeline(takeover.1, &watched, killed, wall, &name).await?;

    say("no more new payments; waiting for those under way");
    let sent = load.finish().await?;
    let summary = deployment.check_books(&before, &sent).await?;
    ensure!(deployment.node_id().await? == node_id, "the node id changed");

    say("the invoice made before the kill is paid after it");
    detail(&paid(alice, &promise.invoice, "alice pays us").await?);
    say("the totals");
    let row = |what: &str, value: String| detail(&format!("{what:<44}{value:>20}"));
    row("payments settled", summary.succeeded.to_string());
    row("payments failed, with nothing moved", summary.failed.to_string());
    row("we received", sat(summary.received_msat));
    row("we sent", sat(summary.sent_msat));
    row("we paid in fees", sat(summary.fees_paid_msat));
    row("we earned in fees", sat(summary.fees_earned_msat));
    row("channels closed", "0".into());
    detail("every payment ended once and in the same way on both sides; all channels' balances moved by exactly");
    detail("these sums, to the millisatoshi, in our books and in those of alice and bob; the node id is the same");
    Ok(())
}

async fn introduce(deployment: &Deployment) -> Result<()> {
    let info = deployment.info().await?;
    say(&format!("our node is {}", info.node_id));
    detail(&format!(
        "led by {} in term {}; its keys are behind the signer, in a SoftHSM token",
        info.replica, info.term
    ));
    for counterparty in deployment.counterparties() {
        detail(&format!("{} is {}", counterparty.name(), counterparty.node_id()));
    }
    Ok(())
}

/// A counterparty pays, and what there is to say about it.
async fn paid(payer: &Counterparty, invoice: &str, what: &str) -> Result<String> {
    let began = Instant::now();
    let hash = payer.pay(invoice).await?;
    match payer.outcome(hash, DEADLINE).await? {
        Outcome::Succeeded { fee_msat } => {
            Ok(format!("{what}: settled in {}, fee {}", millis(began.elapsed()), sat(fee_msat)))
        }
        Outcome::Failed { reason } => anyhow::bail!("{what}: {reason}"),
    }
}

/// What was seen of the stream.
#[derive(Default)]
struct Watched {
    sent: Vec<Sent>,
    settled: usize,
    failed: usize,
}

impl Watched {
    async fn watch(&mut self, payments: &mut mpsc::UnboundedReceiver<Sent>, time: Duration) -> Result<()> {
        let end = TokioInstant::now() + time;
        while let Ok(payment) = timeout_at(end, payments.recv()).await {
            self.note(payment.context("all lanes ended")?);
        }
        progress_done();
        detail(&format!("{} payments settled, {} failed so far", self.settled, self.failed));
        Ok(())
    }

    async fn watch_until_settled_after(
        &mut self,
        payments: &mut mpsc::UnboundedReceiver<Sent>,
        killed: Instant,
    ) -> Result<()> {
        let end = TokioInstant::now() + DEADLINE;
        while self.first_after(killed).is_none() {
            let payment = timeout_at(end, payments.recv()).await.context("no payment settled after the kill")?;
            self.note(payment.context("all lanes ended")?);
        }
        progress_done();
        Ok(())
    }

    fn note(&mut self, payment: Sent) {
        match payment.outcome {
            Outcome::Succeeded { .. } => self.settled += 1,
            Outcome::Failed { .. } => self.failed += 1,
        }
        progress(&format!("{} settled, {} failed; {} -> {}", self.settled, self.failed, payment.from, payment.to));
        self.sent.push(payment);
    }

    /// Began and settled after the kill, so through the new leader alone.
    fn first_after(&self, killed: Instant) -> Option<&Sent> {
        self.succeeded().filter(|sent| sent.began > killed).min_by_key(|sent| sent.ended)
    }

    /// Began before the kill and settled after it: its HTLCs outlived the leader.
    fn survivors(&self, killed: Instant) -> impl Iterator<Item = &Sent> {
        self.succeeded().filter(move |sent| sent.began < killed && sent.ended > killed)
    }

    fn last_before(&self, killed: Instant) -> Option<&Sent> {
        self.succeeded().filter(|sent| sent.ended <= killed).max_by_key(|sent| sent.ended)
    }

    fn succeeded(&self) -> impl Iterator<Item = &Sent> {
        self.sent.iter().filter(|sent| matches!(sent.outcome, Outcome::Succeeded { .. }))
    }
}

async fn print_timeline(
    mut leader: Client,
    watched: &Watched,
    killed: Instant,
    wall: SystemTime,
    name: &str,
) -> Result<()> {
    let status = leader.get_leader(v1::GetLeaderRequest {}).await?.into_inner();
    let takeover = status.history.first().context("no takeover in the record")?;
    let wall_ms = u64::try_from(wall.duration_since(UNIX_EPOCH)?.as_millis())?;
    let seconds = |at: Instant| at.saturating_duration_since(killed).as_secs_f64();
    let route = |sent: &Sent| format!("{} -> {}", sent.from, sent.to);

    let mut lines = vec![(0.0, format!("kill -9 {name}"))];
    lines.push((
        takeover.at_ms.saturating_sub(wall_ms) as f64 / 1000.0,
        format!("{} took the lead: term {}", takeover.replica, takeover.term),
    ));
    if let Some(last) = watched.last_before(killed) {
        let before = killed.saturating_duration_since(last.ended).as_secs_f64();
        lines.push((-before, format!("the last payment settled before the kill: {}", route(last))));
    }
    if let Some(survivor) = watched.survivors(killed).min_by_key(|sent| sent.ended) {
        lines.push((seconds(survivor.ended), format!("a payment under way at the kill settled: {}", route(survivor))));
    }
    let first = watched.first_after(killed).context("nothing settled after the kill")?;
    lines.push((seconds(first.ended), format!("the first payment begun after the kill settled: {}", route(first))));
    lines.sort_by(|a, b| a.0.total_cmp(&b.0));

    detail("");
    detail("seconds");
    for (at, what) in lines {
        detail(&format!("{at:+8.3}   {what}"));
    }
    let mut phases: Vec<(&String, &u64)> = takeover.phases_us.iter().collect();
    phases.sort_by_key(|(name, _)| *name);
    if !phases.is_empty() {
        detail("");
        detail("the takeover's phases, in milliseconds");
        for (phase, micros) in phases {
            detail(&format!("{:8.1}   {phase}", *micros as f64 / 1000.0));
        }
    }
    let resumed = watched.succeeded().filter(|sent| sent.ended > killed).map(|sent| sent.ended).min();
    if let (Some(last), Some(resumed)) = (watched.last_before(killed), resumed) {
        detail("");
        let gap = resumed.saturating_duration_since(last.ended);
        detail(&format!("the gap without a settled payment: {:.3} s", gap.as_secs_f64()));
    }
    detail("");
    Ok(())
}

fn millis(duration: Duration) -> String {
    format!("{} ms", duration.as_millis())
}
