//! Shows Holdfast's main job on real parts: payments go on when the leading replica is killed in mid-stream.

mod narrator;
mod sandbox;
mod story;

use std::{path::PathBuf, process::ExitCode};

use clap::Parser;
use holdfast_local::Deployment;

use crate::narrator::say;

/// A whole Holdfast on this machine, and a payment stream that survives kill -9 of its leader.
#[derive(Parser)]
struct Arguments {
    /// Leave everything running afterwards, and print commands to try.
    #[arg(long)]
    keep: bool,
    /// An empty folder for everything; a temporary one by default.
    #[arg(long)]
    folder: Option<PathBuf>,
    /// Seconds of payments before and after the kill.
    #[arg(long, default_value_t = 5)]
    seconds: u64,
}

#[tokio::main]
async fn main() -> ExitCode {
    match run(Arguments::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("\nthe demo failed: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(arguments: Arguments) -> anyhow::Result<()> {
    say("setting up from an empty folder");
    let mut builder = Deployment::builder().replicas(2).counterparties(&["alice", "bob"]).progress(say);
    if let Some(folder) = arguments.folder {
        builder = builder.folder(folder);
    }
    let deployment = builder.start().await?;
    say(&format!("everything is in {}, logs in logs/", deployment.folder().display()));
    tokio::select! {
        told = story::tell(&deployment, arguments.seconds) => told?,
        _ = tokio::signal::ctrl_c() => return Ok(()),
    }
    if arguments.keep {
        sandbox::keep_running(&deployment).await?;
    }
    Ok(())
}
