//! Scenes that the integration tests begin with. The tests are in `tests/`, each named for the promise it holds.

pub mod onchain;

use std::{
    fs::File,
    ops::Deref,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow, bail};
use bitcoin::Amount;
use holdfast_local::{
    Builder, Counterparty, Deployment, Outcome, Probe,
    books::{Balances, Summary},
    load::{Load, Sent, all_directions},
};
use holdfast_proto::node::v1;
use tokio::{sync::mpsc, time::timeout};

/// A deployment with alice and bob, and the machine for itself: scenes on one machine take turns, because each
/// measures itself against deadlines.
#[derive(Debug)]
pub struct Scene {
    deployment: Deployment,
    _turn: File,
}

/// What a payment between nodes that are all there may take.
pub const PROMPT: Duration = Duration::from_secs(30);

impl Scene {
    /// An empty stage: no coins, no channels.
    pub async fn empty() -> Result<Self> {
        Self::of(Deployment::builder().replicas(2).counterparties(&["alice", "bob"]).durable(false)).await
    }

    /// As `builder` has it.
    pub async fn of(builder: Builder) -> Result<Self> {
        let turn = turn().await?;
        Ok(Self { deployment: builder.start().await?, _turn: turn })
    }

    /// One channel that we opened (with alice), one that was opened with us (by bob), everybody able to pay and to be
    /// paid, and alice and bob able to pay each other through us.
    pub async fn with_channels() -> Result<Self> {
        Self::empty().await?.opened().await
    }

    /// The same on a stage of one's own.
    pub async fn opened(self) -> Result<Self> {
        const CAPACITY_SAT: u64 = 2_000_000;
        const SHARE_MSAT: u64 = 150_000_000;
        let scene = self;
        let (alice, bob) = (scene.alice(), scene.bob());
        scene.fund_all(2, Amount::from_sat(5_000_000)).await?;
        scene.open_channel_to(alice, CAPACITY_SAT).await?;
        scene.open_channel_from(bob, CAPACITY_SAT).await?;
        // A counterparty of this kind takes no more than a tenth of a channel at once.
        for _ in 0..3 {
            scene.pay(&alice.invoice(SHARE_MSAT, "alice's share").await?).await?;
            scene.receive(bob, SHARE_MSAT).await?;
            scene.balances().await?;
        }
        scene.route_known(alice, bob).await?;
        scene.route_known(bob, alice).await?;
        Ok(scene)
    }

    pub fn alice(&self) -> &Counterparty {
        self.counterparty("alice")
    }

    pub fn bob(&self) -> &Counterparty {
        self.counterparty("bob")
    }

    /// A counterparty pays an invoice of ours.
    pub async fn receive(&self, from: &Counterparty, amount_msat: u64) -> Result<()> {
        let invoice = self.invoice(amount_msat, "a payment to us").await?;
        self.settle(from, &invoice.invoice).await
    }

    /// A counterparty pays an invoice of whomever, and the payment succeeds.
    pub async fn settle(&self, from: &Counterparty, invoice: &str) -> Result<()> {
        let hash = from.pay(invoice).await?;
        match self.explain(from.outcome(hash, PROMPT).await)? {
            Outcome::Succeeded { .. } => Ok(()),
            Outcome::Failed { reason } => self.explain(Err(anyhow!("{}'s payment failed: {reason}", from.name()))),
        }
    }

    /// A payment once the parts that succeeded come to all of it: the last HTLC is gone a moment after the preimage is there.
    pub async fn whole_payment(&self, id: &str) -> Result<v1::Payment> {
        let look = async || {
            let request = v1::GetPaymentRequest { payment_hash: id.into() };
            let payment = self.operator().replica(0).get_payment(request).await?.into_inner();
            let arrived: u64 = payment.parts.iter().filter(|part| part.succeeded).map(|part| part.amount_msat).sum();
            Ok(Probe::when(payment.amount_msat == Some(arrived), payment.clone(), || format!("{payment:?}")))
        };
        self.wait_for("all parts of a payment", PROMPT, look).await
    }

    /// Payments begin to flow in all directions.
    pub async fn stream(&self) -> Result<Stream> {
        let before = self.balances().await?;
        let (watcher, ends) = mpsc::unbounded_channel();
        let load = Load::start(self, all_directions(self.alice(), self.bob()), Some(watcher)).await?;
        Ok(Stream { before, load, ends })
    }
}

/// Payments in all directions, until `finish`.
pub struct Stream {
    before: Balances,
    load: Load,
    ends: mpsc::UnboundedReceiver<Sent>,
}

impl Stream {
    /// Waits until a payment has settled that began after `moment`, and gives the time from then to its settlement.
    pub async fn settles_after(&mut self, scene: &Scene, moment: Instant) -> Result<Duration> {
        let settled = async {
            while let Some(sent) = self.ends.recv().await {
                if sent.began > moment && matches!(sent.outcome, Outcome::Succeeded { .. }) {
                    return Ok(sent.ended - moment);
                }
            }
            bail!("a lane gave up")
        };
        let settled = timeout(Duration::from_secs(60), settled).await;
        let settled = settled.context("no payment settles").and_then(|settled| settled);
        scene.explain(settled.map_err(|error| self.load.failed().unwrap_or(error)))
    }

    /// Waits for the ends of all payments, and checks the books: each payment once, in the same way on both sides, the
    /// balances to the millisatoshi, no channel closed.
    pub async fn finish(self, scene: &Scene) -> Result<(Vec<Sent>, Summary)> {
        let sent = scene.explain(self.load.finish().await)?;
        let summary = scene.explain(scene.check_books(&self.before, &sent).await)?;
        Ok((sent, summary))
    }
}

impl Deref for Scene {
    type Target = Deployment;

    fn deref(&self) -> &Deployment {
        &self.deployment
    }
}

async fn turn() -> Result<File> {
    let path = std::env::temp_dir().join(format!("holdfast-turn-{}", rustix::process::geteuid().as_raw()));
    let file = File::options().create(true).truncate(false).write(true).open(path)?;
    tokio::task::spawn_blocking(move || file.lock().map(|()| file)).await?.context("waiting for a turn")
}
