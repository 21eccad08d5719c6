//! The `holdfast` command: what an operator types.
//!
//! It finds the leader among the replicas it was told of, does one thing, says what came of it, and exits with a code from
//! `sysexits.h` that says whose turn it is (see [`Exit`]).

mod args;
mod channel_args;
mod channels;
mod cluster;
mod commands;
mod confirm;
mod decode;
mod failure;
mod forwards;
mod json;
mod manual;
mod network;
mod network_args;
mod payment_args;
mod payments;
mod pki;
mod recovery;
mod settings;
#[cfg(test)]
mod tests;
mod text;
mod wallet;
mod wallet_args;
mod watch;

use std::{
    io::{self, Write},
    process::ExitCode,
};

use clap::{CommandFactory, FromArgMatches};
use serde_json::{Value, json};

use args::{Args, Command};
use cluster::Cluster;
pub use failure::Exit;
use failure::Failure;
use settings::Settings;

/// The whole program.
pub fn main() -> ExitCode {
    let args = match Args::command().try_get_matches().and_then(|matches| Args::from_arg_matches(&matches)) {
        Ok(args) => args,
        Err(error) => {
            // Nowhere is left to report that this cannot be written.
            let _ = error.print();
            return if error.use_stderr() { Exit::Usage.into() } else { Exit::Ok.into() };
        }
    };
    let json = args.json;
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return report(&Failure::new(Exit::Software, format!("cannot start: {error}")), json),
    };
    match runtime.block_on(run(args)) {
        Ok(output) => print(&output, json),
        Err(failure) => report(&failure, json),
    }
}

/// What a command came to: the same twice, for programs and for people.
#[derive(Debug)]
struct Output {
    json: Value,
    text: String,
    exit: Exit,
}

impl Output {
    fn ok(json: Value, text: impl Into<String>) -> Self {
        Self { json, text: text.into(), exit: Exit::Ok }
    }

    /// Of a command that has said all already.
    fn said() -> Self {
        Self { json: Value::Null, text: String::new(), exit: Exit::Ok }
    }
}

async fn run(args: Args) -> Result<Output, Failure> {
    match args.command {
        Command::Pki(command) => pki::run(command),
        Command::Decode { text } => decode::run(&text),
        Command::Node(command) => {
            confirm::confirm(&command, args.json)?;
            let settings = Settings::load(args.connection)?;
            commands::run(&Cluster::new(settings, !args.json), command).await
        }
        Command::Watch(command) => {
            let settings = Settings::load(args.connection)?;
            watch::run(&settings, &command, args.json, &mut io::stdout()).await.map(|()| Output::said())
        }
        Command::Manual(command) => manual::run(command).map(|()| Output::said()),
    }
}

fn print(output: &Output, json: bool) -> ExitCode {
    if output.json.is_null() {
        return output.exit.into();
    }
    let text = if json { format!("{:#}", output.json) } else { output.text.trim_end().to_owned() };
    match writeln!(io::stdout(), "{text}") {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Exit::Io.into(),
        _ => output.exit.into(),
    }
}

fn report(failure: &Failure, json: bool) -> ExitCode {
    let text = if json {
        let Failure { exit, message, hint } = failure;
        format!("{:#}", json!({ "error": { "exit_code": *exit as u8, "message": message, "hint": hint } }))
    } else {
        failure.to_string()
    };
    // Nowhere is left to report that this cannot be written.
    let _ = writeln!(io::stderr(), "{text}");
    failure.exit.into()
}
