//! From `kill -9` of the leader to the first payment settled through the next one.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, Result, bail};
use bitcoin::secp256k1::PublicKey;
use holdfast_local::{Counterparty, Outcome, Probe};
use holdfast_proto::node::v1;
use serde::Serialize;
use tokio::time::sleep;

use crate::network::Network;

const AMOUNT_MSAT: u64 = 2_000_000;
const DEADLINE: Duration = Duration::from_secs(60);
/// Calm between a start and the next kill, so that no figure holds the end of the one before.
const CALM: Duration = Duration::from_secs(3);
/// The payer looks every millisecond, and begins another payment when the one before has failed or taken so long. More
/// at once would only wait for each other in the payer's node.
const PATIENCE: Duration = Duration::from_millis(500);

#[derive(Debug, Serialize)]
pub struct Takeovers {
    pub channels: usize,
    pub median_settled_ms: f64,
    pub kills: Vec<Kill>,
}

/// All times from the moment of the kill.
#[derive(Debug, Serialize)]
pub struct Kill {
    /// The next leader's term was in the store (by the store's clock; both are this machine's).
    pub term_raised_ms: f64,
    /// The payer's node had a channel with our node to pay through.
    pub first_channel_ms: f64,
    /// A payment begun after the kill had settled at the payer.
    pub settled_ms: f64,
    /// All channels could be used.
    pub all_channels_ms: f64,
    /// Payments begun until one had settled.
    pub attempts: usize,
    /// The phases of the takeover as the new leader recorded them.
    pub phases_us: BTreeMap<String, u64>,
}

pub async fn measure(network: &Network<'_>, channels: usize, kills: usize) -> Result<Takeovers> {
    let mut all = Vec::new();
    for _ in 0..kills {
        sleep(CALM).await;
        all.push(kill(network, channels).await?);
    }
    let mut settled: Vec<f64> = all.iter().map(|kill| kill.settled_ms).collect();
    settled.sort_by(f64::total_cmp);
    let median_settled_ms = settled.get(settled.len() / 2).copied().unwrap_or(f64::NAN);
    Ok(Takeovers { channels, median_settled_ms, kills: all })
}

async fn kill(network: &Network<'_>, channels: usize) -> Result<Kill> {
    let deployment = network.deployment;
    let (leader, _) = deployment.leader().await?;
    let wall = SystemTime::now();
    let killed = Instant::now();
    leader.kill()?;
    let (paid, all_channels) =
        tokio::try_join!(first_payment(network.payer(), network.ours), all_usable(network, channels))?;

    let (_, mut client) = deployment.leader().await?;
    let status = client.get_leader(v1::GetLeaderRequest {}).await?.into_inner();
    let takeover = status.history.into_iter().next().context("no takeover in the record")?;
    let wall_ms = u64::try_from(wall.duration_since(UNIX_EPOCH)?.as_millis())?;
    let since = |at: Instant| at.saturating_duration_since(killed).as_secs_f64() * 1000.0;
    let kill = Kill {
        term_raised_ms: takeover.at_ms.saturating_sub(wall_ms) as f64,
        first_channel_ms: since(paid.channel),
        settled_ms: since(paid.settled),
        all_channels_ms: since(all_channels),
        attempts: paid.attempts,
        phases_us: takeover.phases_us.into_iter().collect(),
    };

    leader.start().await?;
    let stands_by = async || Ok(Probe::when(!leader.leads().await?, (), || "it leads".into()));
    deployment.wait_for("the killed one to stand by", DEADLINE, stands_by).await?;
    network.usable().await?;
    Ok(kill)
}

struct Paid {
    channel: Instant,
    settled: Instant,
    attempts: usize,
}

/// The payer tries as soon as its own node would, and again and again.
async fn first_payment(payer: &Counterparty, ours: PublicKey) -> Result<Paid> {
    let end = Instant::now() + DEADLINE;
    let (mut pending, mut attempts, mut last) = (Vec::new(), 0, None::<Instant>);
    let (mut gone, mut channel) = (false, None);
    while Instant::now() < end {
        for &hash in &pending {
            if let Some(Outcome::Succeeded { .. }) = payer.outcomes(hash).first() {
                let settled = Instant::now();
                return Ok(Paid { channel: channel.unwrap_or(settled), settled, attempts });
            }
        }
        pending.retain(|&hash| payer.outcomes(hash).is_empty());
        let usable = payer.channels().iter().any(|c| c.is_usable && c.counterparty_node_id == ours);
        // For a moment the payer's node does not know yet that the old leader is gone.
        gone |= !usable;
        if gone && usable {
            channel.get_or_insert_with(Instant::now);
            if pending.is_empty() || last.is_none_or(|last| last.elapsed() >= PATIENCE) {
                last = Some(Instant::now());
                attempts += 1;
                // An error is an attempt that failed at once.
                pending.extend(payer.keysend(ours, AMOUNT_MSAT).await);
            }
        }
        sleep(Duration::from_millis(1)).await;
    }
    bail!("no payment settled within {DEADLINE:?} of the kill")
}

async fn all_usable(network: &Network<'_>, channels: usize) -> Result<Instant> {
    let end = Instant::now() + DEADLINE;
    let mut gone = false;
    while Instant::now() < end {
        let usable = network.usable_to_peers();
        gone |= usable < channels;
        if gone && usable == channels {
            return Ok(Instant::now());
        }
        sleep(Duration::from_millis(5)).await;
    }
    bail!("{} of {channels} channels were usable within {DEADLINE:?} of the kill", network.usable_to_peers())
}
