//! `holdfast-signer`: holds a node's keys and signs what its rules allow.

mod commands;

use std::{path::PathBuf, process::ExitCode};

use clap::{Parser, Subcommand};
use holdfast_proto::telemetry::LogFormat;
use holdfast_signer::config::COMMENTED_DEFAULT;

use self::commands::{Exit, Failure, init, run, status};

#[derive(Parser)]
#[command(name = "holdfast-signer", version, about = "Holds a Lightning node's keys and signs what its rules allow")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Make the keys, once, and print the node id
    Init {
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
    },
    /// Serve replicas
    Run {
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
        /// How log lines look on stderr, text or json; RUST_LOG filters them
        #[arg(long, value_name = "FORMAT", default_value = "text")]
        log_format: LogFormat,
    },
    /// Ask a running signer how it is
    Status(status::Args),
    /// Print the default configuration, every key explained
    Config,
}

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(e) => {
            // Nothing is left to do when even this cannot be printed.
            let _ = e.print();
            return ExitCode::from(if e.use_stderr() { Exit::Usage as u8 } else { 0 });
        }
    };
    match command(cli.command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("holdfast-signer: {failure}");
            ExitCode::from(&failure)
        }
    }
}

fn command(command: Command) -> Result<(), Failure> {
    match command {
        Command::Init { config } => init::run(&config),
        Command::Import(args) => import::run(args),
        Command::Rewrap(args) => rewrap::run(&args),
        Command::Backup(args) => backup::run(&args),
        Command::VerifyShare(args) => verify_share::run(&args),
        Command::Restore(args) => restore::run(&args),
        Command::Check(args) => check::run(&args),
        Command::List(args) => list::run(&args),
        Command::Run { config, log_format } => run::run(&config, log_format),
        Command::Status(args) => status::run(&args),
        Command::Config => {
            print!("{COMMENTED_DEFAULT}");
            Ok(())
        }
    }
}
