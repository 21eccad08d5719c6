//! One file a command of `holdfast-signer`.

pub mod backup;
pub mod check;
mod confirm;
mod directory;
mod establish;
pub mod import;
pub mod init;
pub mod list;
mod node_id;
pub mod restore;
pub mod rewrap;
pub mod run;
pub mod status;
pub mod verify_share;

use std::{fmt, process::ExitCode};

use holdfast_proto::{error::Error, tls::TlsError};
use holdfast_signer::{config::ConfigError, custody::CustodyError, guard::StoreError};

/// How a command ends when it fails: a code as in sysexits.h, for service managers and scripts, and one line for people.
#[derive(Debug)]
pub struct Failure {
    exit: Exit,
    why: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    Usage = 64,
    DataError = 65,
    NoInput = 66,
    Unavailable = 69,
    Software = 70,
    CantCreate = 73,
    NoPermission = 77,
    Config = 78,
}

impl Failure {
    pub fn new(exit: Exit, why: impl fmt::Display) -> Self {
        Self { exit, why: why.to_string() }
    }

    /// The failure to read a file that was named on the command line.
    pub fn of_input(error: CustodyError) -> Self {
        match error {
            CustodyError::Unavailable(what) => Self::new(Exit::NoInput, what),
            CustodyError::Wrong(why) => Self::new(Exit::NoPermission, why),
        }
    }

    /// Adds what the reader has to know as well.
    pub fn and(self, more: impl fmt::Display) -> Self {
        Self { why: format!("{}; {more}", self.why), ..self }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.why)
    }
}

impl From<&Failure> for ExitCode {
    fn from(failure: &Failure) -> Self {
        Self::from(failure.exit as u8)
    }
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        let exit = match error {
            ConfigError::Read { .. } => Exit::NoInput,
            ConfigError::Parse { .. } => Exit::Config,
        };
        Self::new(exit, error)
    }
}

impl From<CustodyError> for Failure {
    fn from(error: CustodyError) -> Self {
        match error {
            CustodyError::Unavailable(what) => Self::new(Exit::Unavailable, format!("custody unavailable: {what}")),
            CustodyError::Wrong(why) => Self::new(Exit::NoPermission, format!("custody refused: {why}")),
        }
    }
}

impl From<TlsError> for Failure {
    fn from(error: TlsError) -> Self {
        Self::new(Exit::Config, error)
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        Self::new(Exit::Unavailable, error)
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let exit = match error {
            Error::Unavailable { .. } => Exit::Unavailable,
            Error::Refused { .. } | Error::StaleTerm { .. } => Exit::NoPermission,
            Error::Misuse { .. } | Error::Internal(_) => Exit::Software,
        };
        Self::new(exit, error)
    }
}
