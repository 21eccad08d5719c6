//! Measures a deployment on this machine: takeovers, payments and signer calls. Not a test: nothing here is a limit.

mod histogram;
mod latency;
mod network;
mod payments;
mod report;
mod soak;
mod takeover;
mod usage;

use std::{path::PathBuf, process::ExitCode, time::Duration};

use anyhow::{Context, Result};
use clap::Parser;
use holdfast_local::Deployment;

use crate::{
    network::Network,
    report::{Machine, Report, load_average},
};

/// Measures Holdfast on this machine: payments and signer calls through one replica beside an ordinary node, then the
/// time from kill -9 of the leader to the next settled payment. With --soak: payments at a steady rate instead, and what
/// grows meanwhile, and takeovers after it.
#[derive(Debug, Parser)]
struct Arguments {
    /// Seconds of each run of payments.
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// Numbers of channels to be taken over, in rising order. With --soak the last one counts.
    #[arg(long, value_delimiter = ',', default_values_t = [1, 10, 100])]
    channels: Vec<usize>,
    /// Kills for each number of channels.
    #[arg(long, default_value_t = 3)]
    kills: usize,
    /// Minutes of payments at a steady rate, after one without any, and then takeovers; nothing else is measured then.
    #[arg(long, value_name = "MINUTES", conflicts_with = "seconds")]
    soak: Option<u64>,
    /// Payments a second in a soak.
    #[arg(long, value_name = "PAYMENTS_PER_SECOND", default_value_t = 50, requires = "soak",
          value_parser = clap::value_parser!(u32).range(1..))]
    rate: u32,
    /// Writes all figures to this file as JSON.
    #[arg(long)]
    json: Option<PathBuf>,
    /// What the reader of the figures should know of this run; kept with them.
    #[arg(long, default_value = "")]
    note: String,
    /// An empty folder for everything; a temporary one by default.
    #[arg(long)]
    folder: Option<PathBuf>,
}

#[tokio::main]
async fn main() -> ExitCode {
    match run(Arguments::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("\nthe benchmark failed: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(arguments: Arguments) -> Result<()> {
    let mut report = Report::new(Machine::here(arguments.note.clone())?);
    report.machine.print();
    let mut builder = Deployment::builder().replicas(2).counterparties(&network::NAMES);
    builder = builder.in_memory(&network::IN_MEMORY).node_tables(network::TABLES).progress(say);
    if let Some(folder) = &arguments.folder {
        builder = builder.folder(folder);
    }
    let deployment = builder.start().await?;
    let measured = measure(&deployment, &arguments, &mut report).await;
    // Half a report is worth having, and so are the logs of what went wrong.
    report.machine.load_after = load_average()?;
    if let Some(file) = &arguments.json {
        let json = serde_json::to_string_pretty(&report)?;
        std::fs::write(file, json).with_context(|| format!("writing {}", file.display()))?;
        say(&format!("all figures are in {}", file.display()));
    }
    deployment.explain(measured)
}

async fn measure(deployment: &Deployment, arguments: &Arguments, report: &mut Report) -> Result<()> {
    say("coins for everybody; one channel between the payer and our node, one between the payer and the ordinary node");
    let mut network = Network::set_up(deployment).await?;

    if let Some(minutes) = arguments.soak {
        let channels = *arguments.channels.last().context("a number of channels")?;
        say(&format!("{minutes} minutes of payments over {channels} channels, after opening them and a minute's rest"));
        let plan = soak::Plan { minutes, per_second: arguments.rate, channels };
        report.soak = Some(soak::run(&mut network, plan).await?);
        say("takeovers of channels with that past");
        let kills = takeover::measure(&network, channels, arguments.kills).await?;
        report::print_takeover(&kills);
        report.takeovers.push(kills);
        return Ok(());
    }

    say("payments: through our node, and the same through the ordinary one");
    let figures = payments::measure(&network, Duration::from_secs(arguments.seconds)).await?;
    report::print_payments(&figures);
    report.payments = figures;

    say("what operators wait for");
    report.latencies = latency::measure(deployment).await?;
    latency::print(&report.latencies);

    for &channels in &arguments.channels {
        say(&format!("takeover with {channels} channels"));
        network.open_until(channels).await?;
        let kills = takeover::measure(&network, channels, arguments.kills).await?;
        report::print_takeover(&kills);
        report.takeovers.push(kills);
    }
    Ok(())
}

fn say(step: &str) {
    println!("-- {step}");
}
