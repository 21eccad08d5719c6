//! What went wrong, whose turn it is, and what to try.

use std::{fmt, process::ExitCode};

use holdfast_proto::{
    error::Error,
    tls::{ConnectError, ConnectFailure},
};
use tonic::Status;

/// Exit codes, those of `sysexits.h` where it has one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    Ok = 0,
    /// The payment failed, for good.
    PaymentFailed = 1,
    /// The command line makes no sense.
    Usage = 64,
    /// What was given is not what it must be: an unknown channel, a bad invoice.
    Data = 65,
    /// A file that is to be read is not there, or may not be read.
    NoInput = 66,
    /// No replica answers, or a part that it needs is away. Trying again later may help.
    Unavailable = 69,
    /// A bug.
    Software = 70,
    /// A file to be made exists already.
    CannotCreate = 73,
    Io = 74,
    /// Not known yet: the payment is still under way, or there is no answer.
    TryAgain = 75,
    /// The identity may not do this, or a rule of the signer refuses it.
    NoPermission = 77,
    /// A configuration file, certificate or key is wrong.
    Config = 78,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        ExitCode::from(exit as u8)
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Failure {
    pub exit: Exit,
    pub message: String,
    /// What the operator may do about it.
    pub hint: Option<String>,
}

impl Failure {
    pub fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self { exit, message: message.into(), hint: None }
    }

    pub fn hint(self, hint: impl Into<String>) -> Self {
        Self { hint: Some(hint.into()), ..self }
    }

    /// Of a connection that did not come to be because of a certificate, theirs or ours. `None` if it was something else.
    pub fn of_certificates(error: &ConnectError) -> Option<Self> {
        match &error.why {
            ConnectFailure::OurCertificate(_) | ConnectFailure::TheirCertificate(_) => Some(
                Self::new(Exit::Config, error.to_string())
                    .hint("`holdfast pki show <file>` says what a certificate holds and until when"),
            ),
            _ => None,
        }
    }

    /// Of a call that was answered with an error, or not at all.
    pub fn of_call(status: &Status, endpoint: &str, acts: bool) -> Self {
        if let Some(failure) = ConnectError::in_chain(status)
            .map(|error| ConnectError { endpoint: endpoint.to_owned(), ..error })
            .and_then(|error| Self::of_certificates(&error))
        {
            return failure;
        }
        let answered = !status.details().is_empty();
        match Error::from(status.clone()) {
            Error::Refused { rule, why } => Self::new(Exit::NoPermission, format!("refused by rule {rule}: {why}")),
            Error::Misuse { field, why } => Self::new(Exit::Data, format!("{field}: {why}")),
            Error::Unavailable { what, .. } if answered => Self::new(Exit::Unavailable, what),
            Error::StaleTerm { newest } => {
                Self::new(Exit::TryAgain, format!("{endpoint} lost the lead (the term is now {newest})"))
                    .hint("run the command again: it will find the new leader")
            }
            Error::Unavailable { what, .. } => {
                let failure = Self::new(
                    Exit::Unavailable,
                    format!("the connection to {endpoint} was lost before it answered: {what}"),
                );
                if acts {
                    failure.hint("it may have been done all the same: look (`holdfast payments`, `channels`) before you repeat it")
                } else {
                    failure.hint("run the command again")
                }
            }
            Error::Internal(why) => Self::new(Exit::Software, format!("{endpoint}: {why}"))
                .hint("this is a bug, or a broken part; the replica's log says more"),
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "error: {}", self.message)?;
        match &self.hint {
            Some(hint) => write!(f, "\n  {hint}"),
            None => Ok(()),
        }
    }
}
