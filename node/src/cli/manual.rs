//! `holdfast completions` and `holdfast man`.

use clap::CommandFactory;
pub(super) use holdfast_proto::manual::ManualCommand;

use super::{
    args::Args,
    failure::{Exit, Failure},
};

pub(super) fn run(command: ManualCommand) -> Result<(), Failure> {
    command.run(Args::command()).map_err(|error| Failure::new(Exit::Io, error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn completions_and_manual_know_every_command() {
        holdfast_proto::manual::covers_every_command(&Args::command()).unwrap();
    }
}
