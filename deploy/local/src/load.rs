//! Payments that keep flowing while replicas are killed, and an honest record of how each one ended.

use std::{
    fmt,
    str::FromStr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow, bail};
use bitcoin::{hashes::Hash, secp256k1::PublicKey};
use holdfast_proto::{
    error::Error,
    node::v1::{self, PaymentStatus},
};
use ldk_node::{lightning_invoice::Bolt11Invoice, lightning_types::payment::PaymentHash};
use tokio::{
    runtime::Handle,
    sync::mpsc,
    task::JoinSet,
    time::{sleep, timeout},
};

use crate::{
    counterparty::{Counterparty, Outcome},
    deployment::Deployment,
    operator::{Client, Operator, is_passing},
    wait::{Probe, wait_for},
};

/// A payment must have ended after this, whatever was killed meanwhile.
const END: Duration = Duration::from_secs(120);
/// A pause after a payment that could not begin, while channels are away.
const BACKOFF: Duration = Duration::from_millis(50);

/// Who pays or is paid.
#[derive(Clone)]
pub enum Party {
    Ours,
    Counterparty(Counterparty),
}

/// One that pays another, again and again.
#[derive(Clone, Debug)]
pub struct Lane {
    pub from: Party,
    pub to: Party,
    pub how: How,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    Invoice,
    Keysend,
}

/// A payment that was begun, and how it ended for the payer.
#[derive(Clone, Debug)]
pub struct Sent {
    pub from: String,
    pub to: String,
    pub hash: PaymentHash,
    pub amount_msat: u64,
    pub outcome: Outcome,
    pub began: Instant,
    pub ended: Instant,
}

/// Lanes at work.
pub struct Load {
    stop: Arc<AtomicBool>,
    lanes: JoinSet<Result<Vec<Sent>>>,
}

impl Load {
    /// Sets all lanes going. Each payment's end is also sent to `watcher`, as it comes.
    pub async fn start(
        deployment: &Deployment,
        lanes: Vec<Lane>,
        watcher: Option<mpsc::UnboundedSender<Sent>>,
    ) -> Result<Self> {
        let node_id = deployment.node_id().await?;
        let stop = Arc::new(AtomicBool::new(false));
        let mut set = JoinSet::new();
        for (number, lane) in lanes.into_iter().enumerate() {
            let payer = Payer { lane, number, node_id, operator: deployment.operator().clone() };
            let (stop, watcher, runtime) = (Arc::clone(&stop), watcher.clone(), Handle::current());
            // A thread a lane: async closures that borrow make futures that cannot move between threads.
            set.spawn_blocking(move || runtime.block_on(payer.run(stop, watcher)));
        }
        Ok(Self { stop, lanes: set })
    }

    /// Begins no more payments, waits for the ends of those under way, and gives them all.
    pub async fn finish(mut self) -> Result<Vec<Sent>> {
        self.stop.store(true, Ordering::Relaxed);
        let mut all = Vec::new();
        while let Some(lane) = self.lanes.join_next().await {
            all.extend(lane.context("a lane panicked")??);
        }
        all.sort_by_key(|sent| sent.began);
        Ok(all)
    }

    /// The first lane that gave up, if any did: they end only by `finish` or by an error.
    pub fn failed(&mut self) -> Option<anyhow::Error> {
        match self.lanes.try_join_next()? {
            Ok(Ok(_)) => Some(anyhow!("a lane ended by itself")),
            Ok(Err(error)) => Some(error),
            Err(error) => Some(error.into()),
        }
    }
}

impl Party {
    pub fn name(&self) -> &str {
        match self {
            Party::Ours => "ours",
            Party::Counterparty(counterparty) => counterparty.name(),
        }
    }
}

impl fmt::Debug for Party {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Every way a payment can take between our node and two others, keysend to us included.
pub fn all_directions(one: &Counterparty, other: &Counterparty) -> Vec<Lane> {
    let (one, other) = (Party::Counterparty(one.clone()), Party::Counterparty(other.clone()));
    let lane = |from: &Party, to: &Party, how| Lane { from: from.clone(), to: to.clone(), how };
    vec![
        lane(&Party::Ours, &one, How::Invoice),
        lane(&Party::Ours, &other, How::Invoice),
        lane(&one, &Party::Ours, How::Invoice),
        lane(&other, &Party::Ours, How::Keysend),
        lane(&one, &other, How::Invoice),
        lane(&other, &one, How::Invoice),
    ]
}

struct Payer {
    lane: Lane,
    number: usize,
    node_id: PublicKey,
    operator: Operator,
}

impl Payer {
    async fn run(self, stop: Arc<AtomicBool>, watcher: Option<mpsc::UnboundedSender<Sent>>) -> Result<Vec<Sent>> {
        let mut all = Vec::new();
        let mut round = 0;
        while !stop.load(Ordering::Relaxed) {
            // Amounts differ, so that a sum that is right by accident is unlikely.
            let amount_msat = 100_000 + 1_000 * (self.number as u64) + round % 997;
            round += 1;
            let Some(sent) = self.payment(amount_msat).await.with_context(|| format!("lane {:?}", self.lane))? else {
                sleep(BACKOFF).await;
                continue;
            };
            if let Outcome::Failed { .. } = sent.outcome {
                sleep(BACKOFF).await;
            }
            if let Some(watcher) = &watcher {
                // Who no longer watches misses nothing that `finish` will not tell.
                let _ = watcher.send(sent.clone());
            }
            all.push(sent);
        }
        Ok(all)
    }

    /// One payment to its end; `None` if it could not begin.
    async fn payment(&self, amount_msat: u64) -> Result<Option<Sent>> {
        let began = Instant::now();
        let ended = match (&self.lane.from, &self.lane.to, self.lane.how) {
            (Party::Ours, Party::Counterparty(to), How::Invoice) => {
                let invoice = to.invoice(amount_msat, "load").await?;
                self.ours(&invoice).await?
            }
            (Party::Counterparty(from), to, How::Invoice) => {
                let invoice = match to {
                    Party::Ours => self.invoice(amount_msat).await?,
                    Party::Counterparty(to) => to.invoice(amount_msat, "load").await?,
                };
                match from.pay(&invoice).await {
                    Ok(hash) => Some((hash, from.outcome(hash, END).await?)),
                    Err(_) => None,
                }
            }
            (Party::Counterparty(from), Party::Ours, How::Keysend) => {
                match from.keysend(self.node_id, amount_msat).await {
                    Ok(hash) => Some((hash, from.outcome(hash, END).await?)),
                    Err(_) => None,
                }
            }
            _ => bail!("there is no such lane"),
        };
        let (from, to) = (self.lane.from.name().to_owned(), self.lane.to.name().to_owned());
        Ok(ended.map(|(hash, outcome)| Sent { from, to, hash, amount_msat, outcome, began, ended: Instant::now() }))
    }

    async fn invoice(&self, amount_msat: u64) -> Result<String> {
        let ask = async |mut client: Client| {
            let request = v1::CreateInvoiceRequest {
                amount_msat: Some(amount_msat),
                description: "load".into(),
                ..Default::default()
            };
            client.create_invoice(request).await
        };
        Ok(self.operator.ask("an invoice of ours", END, ask).await?.invoice)
    }

    /// Our node pays. When the answer is lost, the payment's record tells what became of it, and where there is no
    /// record it never began and is asked for again.
    async fn ours(&self, invoice: &str) -> Result<Option<(PaymentHash, Outcome)>> {
        let parsed = Bolt11Invoice::from_str(invoice).map_err(|error| anyhow!("not an invoice: {error:?}"))?;
        let hash = PaymentHash(parsed.payment_hash().to_byte_array());
        let outcome = wait_for(&format!("our payment {hash} to end"), END, async || {
            let mut client = match self.operator.find_leader().await? {
                Probe::Ready((_, client)) => client,
                other => return Ok(other.map(|_| None)),
            };
            if let Some(payment) = record(&mut client, hash).await? {
                return Ok(end_of(&payment));
            }
            let request = v1::PayInvoiceRequest { invoice: invoice.to_owned(), wait_ms: 10_000, ..Default::default() };
            Ok(match timeout(Duration::from_secs(15), client.pay_invoice(request)).await {
                Ok(Ok(payment)) => end_of(&payment.into_inner()),
                Ok(Err(status)) if is_passing(&status) => Probe::Waiting(Error::from(status).to_string()),
                // It says no. A record of a payment that was begun nevertheless is found by the books.
                Ok(Err(_)) => Probe::Ready(None),
                Err(_) => Probe::Waiting("our node does not answer".into()),
            })
        })
        .await?;
        Ok(outcome.map(|outcome| (hash, outcome)))
    }
}

/// What our node knows of a payment; `None` if nothing.
async fn record(client: &mut Client, hash: PaymentHash) -> Result<Option<v1::Payment>> {
    let request = v1::GetPaymentRequest { payment_hash: hash.to_string() };
    match timeout(Duration::from_secs(5), client.get_payment(request)).await? {
        Ok(payment) => Ok(Some(payment.into_inner())),
        Err(status) if is_passing(&status) => Err(Error::from(status).into()),
        Err(_) => Ok(None),
    }
}

fn end_of(payment: &v1::Payment) -> Probe<Option<Outcome>> {
    match payment.status() {
        PaymentStatus::Succeeded => Probe::Ready(Some(Outcome::Succeeded { fee_msat: payment.fee_msat.unwrap_or(0) })),
        PaymentStatus::Failed => Probe::Ready(Some(Outcome::Failed { reason: payment.failure.clone() })),
        status => Probe::Waiting(format!("{status:?}")),
    }
}
