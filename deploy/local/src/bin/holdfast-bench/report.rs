//! The figures, for people and for programs.

use std::{collections::BTreeSet, env, fs, thread};

use anyhow::{Context, Result};
use serde::Serialize;

use crate::{
    latency::Latency,
    payments::{Comparison, Direction, Rate},
    soak::Soak,
    takeover::Takeovers,
};

#[derive(Debug, Serialize)]
pub struct Report {
    pub machine: Machine,
    pub payments: Vec<Comparison>,
    pub takeovers: Vec<Takeovers>,
    pub latencies: Vec<Latency>,
    pub soak: Option<Soak>,
}

/// What the figures are worth.
#[derive(Debug, Serialize)]
pub struct Machine {
    pub profile: String,
    pub cpus: usize,
    /// Over one, five and fifteen minutes, as the kernel gives it. Above the number of CPUs, others were at work here.
    pub load_before: String,
    pub load_after: String,
    pub note: String,
}

impl Report {
    pub fn new(machine: Machine) -> Self {
        Self { machine, payments: Vec::new(), takeovers: Vec::new(), latencies: Vec::new(), soak: None }
    }
}

impl Machine {
    pub fn here(note: String) -> Result<Self> {
        let exe = env::current_exe()?;
        let folder = exe.parent().and_then(|folder| folder.file_name()).context("the program's folder")?;
        let checks = if cfg!(debug_assertions) { "with debug assertions" } else { "without debug assertions" };
        let load = load_average()?;
        Ok(Self {
            profile: format!("{} ({checks})", folder.to_string_lossy()),
            cpus: thread::available_parallelism()?.get(),
            load_before: load.clone(),
            load_after: load,
            note,
        })
    }

    pub fn print(&self) {
        println!("profile {}, {} CPUs, load average {}", self.profile, self.cpus, self.load_before);
        if !self.note.is_empty() {
            println!("{}", self.note);
        }
        println!("everything runs on this one machine: our node, its database, its signer, and those it deals with");
    }
}

pub fn load_average() -> Result<String> {
    let load = fs::read_to_string("/proc/loadavg").context("the load average")?;
    Ok(load.split(' ').take(3).collect::<Vec<_>>().join(" "))
}

pub fn print_payments(figures: &[Comparison]) {
    println!(
        "\nPayments over one direct channel, each of 2 000 sat, without invoice. 'ours' is a replica with the signer"
    );
    println!(
        "(SoftHSM) over mutual TLS and a durable Postgres. 'ordinary' is an ldk-node in its place, with its keys in"
    );
    println!("its own process and its state in SQLite: it stands in for our own node without signer and database. The");
    println!(
        "payer at the other end is an ldk-node with its state in memory. Latency is the client's, from asking to settled.\n"
    );
    println!("direction  parallel  node        payments     /s      p50 ms      p99 ms");
    for figure in figures {
        let direction = name(figure.direction);
        for (node, rate) in [("ours", figure.ours), ("ordinary", figure.ordinary)] {
            let Rate { payments, per_second, p50_ms, p99_ms } = rate;
            println!(
                "{direction:<9}  {:>8}  {node:<9} {payments:>10} {per_second:>6.1} {p50_ms:>11.1} {p99_ms:>11.1}",
                figure.parallel
            );
        }
        let (rate, p99) = (figure.rate_ratio, figure.p99_ratio);
        println!("{:21}ratio: {rate:.2} of the ordinary node's payments a second, {p99:.2} times its p99", "");
    }
    println!(
        "\nSigner calls for each payment, as the replica's metrics show them; p50 and p99 estimated from histograms\n"
    );
    println!("direction  parallel  call                                      /payment   mean ms    p50 ms    p99 ms");
    for figure in figures {
        let calls = &figure.signer_calls;
        for call in calls.by_call.iter().chain([&calls.all]) {
            println!(
                "{:<9}  {:>8}  {:<40} {:>9.2} {:>9.2} {:>9.2} {:>9.2}",
                name(figure.direction),
                figure.parallel,
                call.call,
                call.per_payment,
                call.mean_ms,
                call.p50_ms,
                call.p99_ms
            );
        }
    }
    println!();
}

pub fn print_takeover(takeovers: &Takeovers) {
    let Takeovers { channels, median_settled_ms, kills } = takeovers;
    println!("\nkill -9 of the leader with {channels} channels; milliseconds from the kill, then of each phase\n");
    let row = |what: &str, values: Vec<f64>| {
        let values: String = values.iter().map(|value| format!("{value:>10.1}")).collect();
        println!("{what:<44}{values}");
    };
    row("the next leader's term is in the store", kills.iter().map(|kill| kill.term_raised_ms).collect());
    row("the payer can use a channel", kills.iter().map(|kill| kill.first_channel_ms).collect());
    row("a payment begun after the kill has settled", kills.iter().map(|kill| kill.settled_ms).collect());
    row("everybody can use all channels", kills.iter().map(|kill| kill.all_channels_ms).collect());
    let phases: BTreeSet<&String> = kills.iter().flat_map(|kill| kill.phases_us.keys()).collect();
    for phase in phases {
        let took = |micros: Option<&u64>| micros.map_or(0.0, |&micros| micros as f64 / 1000.0);
        row(&format!("  phase {phase}"), kills.iter().map(|kill| took(kill.phases_us.get(phase))).collect());
    }
    row("  all phases", kills.iter().map(|kill| kill.phases_us.values().sum::<u64>() as f64 / 1000.0).collect());
    println!("median, kill to settled: {median_settled_ms:.0} ms\n");
}

fn name(direction: Direction) -> &'static str {
    match direction {
        Direction::Received => "received",
        Direction::Sent => "sent",
    }
}
