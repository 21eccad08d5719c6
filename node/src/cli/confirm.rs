//! Asks before what cannot be taken back.

use std::io::{self, BufRead, IsTerminal, Write};

use super::{
    args::NodeCommand,
    channel_args::ChannelCommand,
    failure::{Exit, Failure},
};

/// Passes unless the command is one that must be confirmed and was not.
pub(super) fn confirm(command: &NodeCommand, json: bool) -> Result<(), Failure> {
    let NodeCommand::Channel(ChannelCommand::Close { channel, force: true, yes: false, .. }) = command else {
        return Ok(());
    };
    if json {
        return Err(refused("with --json nothing is asked"));
    }
    let (stdin, mut stderr) = (io::stdin(), io::stderr());
    if !stdin.is_terminal() || !stderr.is_terminal() {
        return Err(refused("there is no terminal to ask on"));
    }
    ask(channel, &mut stdin.lock(), &mut stderr)
}

fn refused(why: &str) -> Failure {
    Failure::new(Exit::Usage, format!("closing by force cannot be taken back, and {why}; nothing was done"))
        .hint("if it is meant, repeat it with --yes")
}

fn ask(channel: &str, answers: &mut impl BufRead, questions: &mut impl Write) -> Result<(), Failure> {
    let terminal = |error: io::Error| Failure::new(Exit::Io, format!("the terminal: {error}"));
    write!(
        questions,
        "Close channel {channel} by force?\n\
         It cannot be taken back. Our money comes home only after the channel's delay, HTLCs in flight are settled on \
         chain, and the fees are ours. `holdfast close` without --force asks the peer instead.\n\
         Type yes to go on: "
    )
    .and_then(|()| questions.flush())
    .map_err(terminal)?;
    let mut answer = String::new();
    answers.read_line(&mut answer).map_err(terminal)?;
    match answer.trim() {
        "yes" => Ok(()),
        _ => Err(Failure::new(Exit::Usage, "not confirmed; nothing was done")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_yes_is_yes() {
        for (answer, goes_on) in [("yes\n", true), (" yes \r\n", true), ("y\n", false), ("\n", false), ("", false)] {
            let mut asked = Vec::new();
            let done = ask("ab12", &mut answer.as_bytes(), &mut asked);
            assert_eq!(done.is_ok(), goes_on, "{answer:?}");
            assert!(String::from_utf8(asked).unwrap().contains("Close channel ab12 by force?"));
        }
    }
}
