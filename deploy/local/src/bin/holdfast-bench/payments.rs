//! Payments a second through our node and through an ordinary one, and what ours costs in signer calls.
//!
//! The ordinary node is an `ldk-node` with its keys in its own process and its state in its own SQLite file. The payer
//! at the other end is of that kind too, the same one in both cases, and takes part in every figure.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use futures::future::try_join_all;
use holdfast_local::{Client, Counterparty, Outcome, web};
use holdfast_proto::node::v1::{self, PaymentStatus};
use serde::Serialize;
use tokio::time::sleep;

use crate::{histogram::Histograms, network::Network};

/// Above every dust limit, so that each payment has an HTLC to sign.
const AMOUNT_MSAT: u64 = 2_000_000;
/// A part of a run that does not count.
const WARM_UP: Duration = Duration::from_secs(2);
const DEADLINE: Duration = Duration::from_secs(60);
const CALLS: &str = "holdfast_signer_client_call_seconds";

/// One kind of traffic, on both nodes.
#[derive(Debug, Serialize)]
pub struct Comparison {
    pub direction: Direction,
    pub parallel: usize,
    pub ours: Rate,
    pub ordinary: Rate,
    /// Payments a second, ours to the ordinary node's.
    pub rate_ratio: f64,
    /// p99, ours to the ordinary node's.
    pub p99_ratio: f64,
    pub signer_calls: SignerCalls,
}

/// As the measured node sees it.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    Received,
    Sent,
}

#[derive(Clone, Copy, Debug, Serialize)]
pub struct Rate {
    pub payments: usize,
    pub per_second: f64,
    pub p50_ms: f64,
    pub p99_ms: f64,
}

/// As the replica's own metrics show them; quantiles are estimated from a histogram.
#[derive(Debug, Serialize)]
pub struct SignerCalls {
    pub all: Calls,
    pub by_call: Vec<Calls>,
}

#[derive(Debug, Serialize)]
pub struct Calls {
    pub call: String,
    pub per_payment: f64,
    pub mean_ms: f64,
    pub p50_ms: f64,
    pub p99_ms: f64,
}

/// Each kind of traffic through one node and then, before the next kind, through the other: both meet the machine in
/// about the same state.
pub async fn measure(network: &Network<'_>, time: Duration) -> Result<Vec<Comparison>> {
    let mut comparisons = Vec::new();
    for direction in [Direction::Received, Direction::Sent] {
        for parallel in [1, 8] {
            let lane = |measured| Lane { network, measured, direction };
            let ordinary = lane(Measured::Ordinary).run(parallel, time).await?;
            // The warm-up is among the calls counted, and so it is among the payments they are shared out to.
            let before = signer_calls(network).await?;
            let ours = lane(Measured::Ours).run(parallel, time).await?;
            let added = signer_calls(network).await?.since(&before);
            let (ordinary, (ours, made)) = (ordinary.0, ours);
            comparisons.push(Comparison {
                direction,
                parallel,
                rate_ratio: ours.per_second / ordinary.per_second,
                p99_ratio: ours.p99_ms / ordinary.p99_ms,
                ours,
                ordinary,
                signer_calls: SignerCalls::new(&added, made),
            });
        }
    }
    Ok(comparisons)
}

struct Lane<'a> {
    network: &'a Network<'a>,
    measured: Measured,
    direction: Direction,
}

#[derive(Clone, Copy)]
enum Measured {
    Ours,
    Ordinary,
}

impl Lane<'_> {
    /// The rate, and how many payments were made with the warm-up.
    async fn run(&self, parallel: usize, time: Duration) -> Result<(Rate, usize)> {
        let (_, client) = self.network.deployment.leader().await?;
        let begin = Instant::now();
        let from = begin + WARM_UP;
        let end = from + time;
        let lanes = (0..parallel).map(|_| async {
            let mut payments = Vec::new();
            while Instant::now() < end {
                let began = Instant::now();
                self.payment(client.clone()).await?;
                payments.push((began, Instant::now()));
            }
            anyhow::Ok(payments)
        });
        let payments: Vec<(Instant, Instant)> = try_join_all(lanes).await?.concat();
        // What ended within the time counts towards the rate.
        let counted = payments.iter().filter(|(_, ended)| (from..end).contains(ended));
        let mut latencies: Vec<Duration> = counted.map(|(began, ended)| *ended - *began).collect();
        latencies.sort();
        let at = |percent: usize| latencies.get(latencies.len() * percent / 100).map_or(f64::NAN, |d| millis(*d));
        let rate = Rate {
            payments: latencies.len(),
            per_second: latencies.len() as f64 / time.as_secs_f64(),
            p50_ms: at(50),
            p99_ms: at(99),
        };
        Ok((rate, payments.len()))
    }

    async fn payment(&self, mut client: Client) -> Result<()> {
        let (payer, ordinary) = (self.network.payer(), self.network.baseline());
        match (self.direction, self.measured) {
            (Direction::Received, Measured::Ours) => keysend(payer, self.network.ours).await,
            (Direction::Received, Measured::Ordinary) => keysend(payer, ordinary.node_id()).await,
            (Direction::Sent, Measured::Ordinary) => keysend(ordinary, payer.node_id()).await,
            (Direction::Sent, Measured::Ours) => {
                let node_id = payer.node_id().to_string();
                let request = v1::SendKeysendRequest { node_id, amount_msat: AMOUNT_MSAT, ..Default::default() };
                let payment = client.send_keysend(request).await?.into_inner();
                match payment.status() {
                    PaymentStatus::Succeeded => Ok(()),
                    _ => bail!("our payment did not succeed: {payment:?}"),
                }
            }
        }
    }
}

async fn keysend(from: &Counterparty, to: bitcoin::secp256k1::PublicKey) -> Result<()> {
    let hash = from.keysend(to, AMOUNT_MSAT).await?;
    let end = Instant::now() + DEADLINE;
    // `Counterparty::outcome` looks too rarely for this.
    while Instant::now() < end {
        match from.outcomes(hash).first() {
            Some(Outcome::Succeeded { .. }) => return Ok(()),
            Some(Outcome::Failed { reason }) => bail!("{}'s payment failed: {reason}", from.name()),
            None => sleep(Duration::from_millis(1)).await,
        }
    }
    bail!("{}'s payment did not end", from.name())
}

async fn signer_calls(network: &Network<'_>) -> Result<Histograms> {
    let (leader, _) = network.deployment.leader().await?;
    let text = web::get(&leader.health(), "/metrics").await?.body;
    Ok(Histograms::read(&text, CALLS, "call"))
}

impl SignerCalls {
    fn new(added: &Histograms, payments: usize) -> Self {
        let calls = |call: &str, histogram: &crate::histogram::Histogram| Calls {
            call: call.to_owned(),
            per_payment: histogram.count / payments as f64,
            mean_ms: histogram.sum / histogram.count * 1000.0,
            p50_ms: histogram.quantile(0.5) * 1000.0,
            p99_ms: histogram.quantile(0.99) * 1000.0,
        };
        let by_call = added.0.iter().map(|(call, histogram)| calls(call, histogram)).collect();
        Self { all: calls("all", &added.total()), by_call }
    }
}

fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}
