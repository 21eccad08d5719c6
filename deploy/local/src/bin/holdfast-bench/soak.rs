//! Payments at a steady rate for minutes on end: what stays flat, and what grows by how much.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use holdfast_local::{Client, Counterparty, Outcome};
use holdfast_proto::node::v1::{self, PaymentStatus};
use serde::Serialize;
use tokio::{
    task::JoinSet,
    time::{MissedTickBehavior, interval, sleep},
};

use crate::{
    latency::percentile,
    network::Network,
    usage::{Database, Programs, Table, Used},
};

/// Above every dust limit, so that each payment has an HTLC to sign.
const AMOUNT_MSAT: u64 = 2_000_000;
const DEADLINE: Duration = Duration::from_secs(60);
/// Payments under way at which no more are begun: the machine, or a peer, does not keep up.
const MOST: usize = 200;

#[derive(Clone, Copy, Debug)]
pub struct Plan {
    pub minutes: u64,
    pub per_second: u32,
    pub channels: usize,
}

#[derive(Debug, Serialize)]
pub struct Soak {
    pub channels: usize,
    pub asked_per_second: u32,
    pub settled: usize,
    /// A minute without payments, then those with.
    pub minutes: Vec<Minute>,
    /// The database grew by so much for each channel opened.
    pub bytes_per_channel: i64,
    /// And by so much for a million payments, all of it and the rows of the payments alone.
    pub bytes_per_million_payments: i64,
    pub record_bytes_per_million_payments: i64,
    /// What the payments added, table by table.
    pub added: Database,
}

#[derive(Debug, Serialize)]
pub struct Minute {
    pub settled: usize,
    pub failed: usize,
    /// Not begun, because too many were under way.
    pub left_out: usize,
    pub p50_ms: f64,
    pub p99_ms: f64,
    pub programs: Programs,
    /// Within this minute.
    pub cpu_seconds: [f64; 3],
    pub database_bytes: i64,
    pub database_rows: i64,
}

/// How a payment ended: how long it took, or why it failed.
type Ended = Result<Duration>;

pub async fn run(network: &mut Network<'_>, plan: Plan) -> Result<Soak> {
    let deployment = network.deployment;
    let one = Database::look(deployment).await?;
    network.open_until(plan.channels).await?;
    let opened = Database::look(deployment).await?;
    let bytes_per_channel = opened.since(&one).bytes / i64::try_from(plan.channels.saturating_sub(1).max(1))?;

    let mut minutes = Vec::new();
    let mut before = Programs::look(deployment).await?;
    header();
    sleep(Duration::from_secs(60)).await;
    minutes.push(Minute::end(network, &mut before, Vec::new(), 0).await?);
    print("idle", &minutes[0]);

    let mut traffic = Traffic::new(network, plan.per_second).await?;
    for number in 1..=plan.minutes {
        let left_out = traffic.flow(Duration::from_secs(60)).await?;
        let minute = Minute::end(network, &mut before, std::mem::take(&mut traffic.ended), left_out).await?;
        print(&number.to_string(), &minute);
        minutes.push(minute);
    }
    traffic.finish().await?;

    let settled: usize = minutes.iter().map(|minute| minute.settled).sum::<usize>()
        + traffic.ended.iter().filter(|ended| ended.is_ok()).count();
    let added = Database::look(deployment).await?.since(&opened);
    let records = ["payments", "payment_parts", "events"].iter().filter_map(|name| added.tables.get(*name));
    let per_million = |bytes: i64| (bytes as f64 * 1e6 / settled.max(1) as f64) as i64;
    let soak = Soak {
        channels: plan.channels,
        asked_per_second: plan.per_second,
        settled,
        minutes,
        bytes_per_channel,
        bytes_per_million_payments: per_million(added.bytes),
        record_bytes_per_million_payments: per_million(records.map(|table| table.bytes).sum()),
        added,
    };
    summary(&soak);
    Ok(soak)
}

/// Payments by invoice, in turn received and sent, with each peer in turn.
struct Traffic {
    peers: Vec<Counterparty>,
    client: Client,
    every: Duration,
    next: usize,
    under_way: JoinSet<Ended>,
    ended: Vec<Ended>,
}

impl Traffic {
    async fn new(network: &Network<'_>, per_second: u32) -> Result<Self> {
        let (_, client) = network.deployment.leader().await?;
        let every =
            Duration::from_secs(1).checked_div(per_second).context("a rate of at least one payment a second")?;
        // A few channels do not reach all of them.
        let peers = network.peers().filter(|peer| network.usable_to(peer) > 0).cloned().collect();
        Ok(Self { peers, client, every, next: 0, under_way: JoinSet::new(), ended: Vec::new() })
    }

    /// Begins payments at the rate asked for, for `time`; gives how many had to be left out.
    async fn flow(&mut self, time: Duration) -> Result<usize> {
        let end = Instant::now() + time;
        let mut turn = interval(self.every);
        // What a busy moment held up is begun after it: the rate is one over the minute.
        turn.set_missed_tick_behavior(MissedTickBehavior::Burst);
        let mut left_out = 0;
        while Instant::now() < end {
            turn.tick().await;
            while let Some(ended) = self.under_way.try_join_next() {
                self.ended.push(ended?);
            }
            if self.under_way.len() >= MOST {
                left_out += 1;
                continue;
            }
            let peer = self.peers[self.next / 2 % self.peers.len()].clone();
            let client = self.client.clone();
            match self.next % 2 {
                0 => self.under_way.spawn(timed(receive(peer, client))),
                _ => self.under_way.spawn(timed(send(peer, client))),
            };
            self.next += 1;
        }
        Ok(left_out)
    }

    async fn finish(&mut self) -> Result<()> {
        while let Some(ended) = self.under_way.join_next().await {
            self.ended.push(ended?);
        }
        Ok(())
    }
}

async fn timed(payment: impl Future<Output = Result<()>>) -> Ended {
    let began = Instant::now();
    payment.await.map(|()| began.elapsed())
}

async fn receive(peer: Counterparty, mut client: Client) -> Result<()> {
    let description = "soak".to_owned();
    let request = v1::CreateInvoiceRequest { amount_msat: Some(AMOUNT_MSAT), description, ..Default::default() };
    let invoice = client.create_invoice(request).await?.into_inner().invoice;
    let hash = peer.pay(&invoice).await?;
    let end = Instant::now() + DEADLINE;
    while Instant::now() < end {
        match peer.outcomes(hash).first() {
            Some(Outcome::Succeeded { .. }) => return Ok(()),
            Some(Outcome::Failed { reason }) => bail!("{}'s payment failed: {reason}", peer.name()),
            None => sleep(Duration::from_millis(5)).await,
        }
    }
    bail!("{}'s payment did not end", peer.name())
}

async fn send(peer: Counterparty, mut client: Client) -> Result<()> {
    let invoice = peer.invoice(AMOUNT_MSAT, "soak").await?;
    let payment = client.pay_invoice(v1::PayInvoiceRequest { invoice, ..Default::default() }).await?.into_inner();
    match payment.status() {
        PaymentStatus::Succeeded => Ok(()),
        status => bail!("our payment is {status:?}: {}", payment.failure),
    }
}

impl Minute {
    async fn end(network: &Network<'_>, before: &mut Programs, ended: Vec<Ended>, left_out: usize) -> Result<Self> {
        let programs = Programs::look(network.deployment).await?;
        let within = |now: Used, was: Used| now.cpu_seconds - was.cpu_seconds;
        let cpu_seconds = [
            within(programs.leader, before.leader),
            within(programs.standby, before.standby),
            within(programs.signer, before.signer),
        ];
        *before = programs;
        let database = Database::look(network.deployment).await?;
        let all = ended.len();
        if let Some(why) = ended.iter().find_map(|ended| ended.as_ref().err()) {
            println!("   a payment failed: {why:#}");
        }
        let mut times: Vec<Duration> = ended.into_iter().flatten().collect();
        times.sort();
        Ok(Self {
            settled: times.len(),
            failed: all - times.len(),
            left_out,
            p50_ms: percentile(&times, 50),
            p99_ms: percentile(&times, 99),
            programs,
            cpu_seconds,
            database_bytes: database.bytes,
            database_rows: database.rows(),
        })
    }
}

fn header() {
    println!(
        "\nEach minute: payments (half received, half sent, all by invoice), then memory in MB and processor seconds"
    );
    println!("of that minute for leader, standby and signer, then the database in MB and its rows\n");
    println!(
        "minute settled failed  left    p50 ms    p99 ms   leader   cpu  standby   cpu   signer   cpu  database     rows"
    );
}

fn print(name: &str, minute: &Minute) {
    let Minute { settled, failed, left_out, p50_ms, p99_ms, programs, cpu_seconds, .. } = minute;
    let of = |used: Used, cpu: f64| format!("{:>8.1} {cpu:>5.1}", megabytes(used.resident_bytes as f64));
    println!(
        "{name:>6} {settled:>7} {failed:>6} {left_out:>5} {p50_ms:>9.1} {p99_ms:>9.1} {} {} {} {:>9.1} {:>8}",
        of(programs.leader, cpu_seconds[0]),
        of(programs.standby, cpu_seconds[1]),
        of(programs.signer, cpu_seconds[2]),
        megabytes(minute.database_bytes as f64),
        minute.database_rows,
    );
}

fn summary(soak: &Soak) {
    println!("\n{} payments settled over {} channels. What they added to the database:\n", soak.settled, soak.channels);
    println!("{:<28} {:>10} {:>10}", "table", "rows", "MB");
    for (name, Table { rows, bytes }) in &soak.added.tables {
        println!("{name:<28} {rows:>10} {:>10.2}", megabytes(*bytes as f64));
    }
    println!(
        "{:<28} {:>10} {:>10.2}\n",
        "all, free space included",
        soak.added.rows(),
        megabytes(soak.added.bytes as f64)
    );
    println!("a channel: {} bytes", soak.bytes_per_channel);
    println!(
        "a million payments: {:.0} MB, of which {:.0} MB are the rows of the payments",
        megabytes(soak.bytes_per_million_payments as f64),
        megabytes(soak.record_bytes_per_million_payments as f64)
    );
}

fn megabytes(bytes: f64) -> f64 {
    bytes / 1e6
}
