//! `holdfast-signer`: holds a node's keys and signs what its rules allow.

mod commands;

use std::{path::PathBuf, process::ExitCode};

use clap::{CommandFactory, Parser, Subcommand};
use holdfast_proto::{manual::ManualCommand, telemetry::LogFormat};
use holdfast_signer::{config::COMMENTED_DEFAULT, custody::IdentityPlace, harden};

use self::commands::{Exit, Failure, backup, check, import, init, list, restore, rewrap, run, status, verify_share};

#[derive(Parser)]
#[command(name = "holdfast-signer", version, about = "Holds a Lightning node's keys and signs what its rules allow")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Make the keys, once, and print the node id
    #[command(after_help = "\
Example:
  holdfast-signer config > signer.toml     and edit it
  holdfast-signer init --config signer.toml

It makes the keys where the configuration says, the guard's empty record and the record of the node id; it replaces
nothing that is there.")]
    Init {
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
        /// Where the node key is to be; in the token unless the backend has none
        #[arg(long, value_name = "PLACE")]
        identity: Option<IdentityPlace>,
    },
    /// Make the keys of a node that ran on LDK elsewhere, from its seed or mnemonic
    Import(import::Args),
    /// Seal the same seed with another key, or behind another backend
    Rewrap(rewrap::Args),
    /// Write the seed, encrypted, into shares of which a few restore it
    Backup(backup::Args),
    /// Check shares of a backup, each by itself
    VerifyShare(verify_share::Args),
    /// Make the keys again from shares of a backup
    Restore(restore::Args),
    /// Prove that custody gives the recorded node, and that the guard's records are whole
    Check(check::Args),
    /// Show what the configuration and the data directory hold, without opening any key
    List(list::Args),
    /// Serve replicas
    #[command(after_help = "Example:\n  holdfast-signer run --config /etc/holdfast/signer.toml")]
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
    #[command(flatten)]
    Manual(ManualCommand),
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
    // Whatever the command is, and before it reads anything.
    harden::process().map_err(|e| Failure::new(Exit::Software, format!("hardening the process: {e}")))?;
    match command {
        Command::Init { config, identity } => init::run(&config, identity),
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
        Command::Manual(command) => command.run(Cli::command()).map_err(|e| Failure::new(Exit::CantCreate, e)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn completions_and_manual_know_every_command() {
        holdfast_proto::manual::covers_every_command(&Cli::command()).unwrap();
    }
}
