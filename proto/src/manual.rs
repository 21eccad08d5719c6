//! What the three programs tell shells and readers about themselves, made from their parsers.

use std::{
    fs,
    io::{self, Write},
    path::PathBuf,
};

use clap::Command;
use clap_complete::Shell;

/// Two commands that each program has.
#[derive(Clone, Debug, clap::Subcommand)]
pub enum ManualCommand {
    /// Print what makes a shell complete this program's command line
    #[command(after_help = "\
Examples:
  holdfast completions bash > /usr/share/bash-completion/completions/holdfast
  holdfast completions zsh > /usr/share/zsh/site-functions/_holdfast
  holdfast completions fish > /usr/share/fish/vendor_completions.d/holdfast.fish")]
    Completions { shell: Shell },
    /// Write the manual: a page for the program and for each of its commands
    Man {
        /// Where the pages go; made if it is not there
        #[arg(long, value_name = "DIR")]
        dir: PathBuf,
    },
}

impl ManualCommand {
    /// `program` is the whole parser. The error names the file or stream that could not be written.
    pub fn run(&self, program: Command) -> io::Result<()> {
        let text = self.make(program)?;
        match io::stdout().write_all(&text) {
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(named("standard output", error)),
            _ => Ok(()),
        }
    }

    /// Writes what goes into files, and gives what goes to the standard output.
    fn make(&self, mut program: Command) -> io::Result<Vec<u8>> {
        let mut text = Vec::new();
        match self {
            Self::Completions { shell } => {
                let name = program.get_name().to_owned();
                clap_complete::generate(*shell, &mut program, name, &mut text);
            }
            Self::Man { dir } => {
                let written = fs::create_dir_all(dir).and_then(|()| clap_mangen::generate_to(program, dir));
                written.map_err(|error| named(&dir.display().to_string(), error))?;
            }
        }
        Ok(text)
    }
}

fn named(what: &str, error: io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{what}: {error}"))
}

/// For the test of each program: that its completions and its manual know every command that it has. The error names one
/// that they do not.
pub fn covers_every_command(program: &Command) -> io::Result<()> {
    let dir = std::env::temp_dir().join(format!("{}-man-{}", program.get_name(), std::process::id()));
    ManualCommand::Man { dir: dir.clone() }.make(program.clone())?;
    let mut scripts = Vec::new();
    for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
        let script = ManualCommand::Completions { shell }.make(program.clone())?;
        scripts.push((shell, String::from_utf8_lossy(&script).into_owned()));
    }
    let mut commands = Vec::new();
    commands_of(program, &[program.get_name()], &mut commands);
    for words in commands {
        let page = dir.join(format!("{}.1", words.join("-")));
        let text = fs::read_to_string(&page).map_err(|error| named(&page.display().to_string(), error))?;
        if !text.contains(".SH NAME") || !text.contains(".SH SYNOPSIS") {
            return Err(io::Error::other(format!("{} is no page of a manual", page.display())));
        }
        for (shell, script) in &scripts {
            if words.last().is_some_and(|word| !script.contains(word)) {
                return Err(io::Error::other(format!("the completions for {shell} do not know {}", words.join(" "))));
            }
        }
    }
    fs::remove_dir_all(&dir)
}

/// Every command as the words that call it, the program's name first.
fn commands_of<'a>(command: &'a Command, words: &[&'a str], all: &mut Vec<Vec<&'a str>>) {
    all.push(words.to_vec());
    for inner in command.get_subcommands() {
        commands_of(inner, &[words, &[inner.get_name()]].concat(), all);
    }
}
