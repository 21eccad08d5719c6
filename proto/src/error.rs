//! Errors by whose fault they are and what to do about them, carried in the details of a gRPC status.

use prost::Message;
use tonic::{Code, Status};

use crate::signer::v1::{self, error_detail::Detail};

/// Why a call did not do what it was asked, as both services say it and both clients read it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// A rule said no and will say no again.
    #[error("refused by rule {rule}: {why}")]
    Refused { rule: String, why: String },
    /// The caller no longer leads: `newest` is the term that does.
    #[error("stale term: the newest is {newest}")]
    StaleTerm { newest: u64 },
    /// Nothing was decided; asking again later may succeed.
    #[error("unavailable: {what}")]
    Unavailable { what: String, retry_after_ms: u32 },
    /// The request makes no sense; `field` is the path of what is wrong in it.
    #[error("misuse: {field}: {why}")]
    Misuse { field: String, why: String },
    /// The callee has a bug or a broken part that it cannot name better.
    #[error("internal error: {0}")]
    Internal(String),
}

impl Error {
    pub fn refused(rule: impl Into<String>, why: impl Into<String>) -> Self {
        Self::Refused { rule: rule.into(), why: why.into() }
    }

    pub fn unavailable(what: impl Into<String>) -> Self {
        Self::Unavailable { what: what.into(), retry_after_ms: 100 }
    }

    pub fn misuse(field: impl Into<String>, why: impl Into<String>) -> Self {
        Self::Misuse { field: field.into(), why: why.into() }
    }
}

impl From<Error> for Status {
    fn from(error: Error) -> Self {
        let message = error.to_string();
        let (code, detail) = match error {
            Error::Refused { rule, why } => {
                let code = match rule.as_str() {
                    "identity" | "paused" => Code::PermissionDenied,
                    _ => Code::FailedPrecondition,
                };
                (code, Detail::Refused(v1::Refused { rule, why }))
            }
            Error::StaleTerm { newest } => (Code::Aborted, Detail::StaleTerm(v1::StaleTerm { newest })),
            Error::Unavailable { what, retry_after_ms } => {
                (Code::Unavailable, Detail::Unavailable(v1::Unavailable { what, retry_after_ms }))
            }
            Error::Misuse { field, why } => (Code::InvalidArgument, Detail::Misuse(v1::Misuse { field, why })),
            Error::Internal(_) => return Status::internal(message),
        };
        let detail = v1::ErrorDetail { detail: Some(detail) };
        Status::with_details(code, message, detail.encode_to_vec().into())
    }
}

/// Reads the typed detail; a status without one counts as unavailable when its code says that nothing was decided
/// (a cut connection, a deadline), else as internal.
impl From<Status> for Error {
    fn from(status: Status) -> Self {
        match v1::ErrorDetail::decode(status.details()).ok().and_then(|d| d.detail) {
            Some(Detail::Refused(v1::Refused { rule, why })) => Self::Refused { rule, why },
            Some(Detail::StaleTerm(v1::StaleTerm { newest })) => Self::StaleTerm { newest },
            Some(Detail::Unavailable(v1::Unavailable { what, retry_after_ms })) => {
                Self::Unavailable { what, retry_after_ms }
            }
            Some(Detail::Misuse(v1::Misuse { field, why })) => Self::Misuse { field, why },
            // Not an answer: our own side of the connection says why there was none.
            None if std::error::Error::source(&status).is_some() => Self::unavailable(in_full(&status)),
            None => match status.code() {
                Code::Unavailable
                | Code::DeadlineExceeded
                | Code::Cancelled
                | Code::Unknown
                | Code::ResourceExhausted => Self::unavailable(in_full(&status)),
                _ => Self::Internal(in_full(&status)),
            },
        }
    }
}

/// With the innermost reason: all that a status says of a lost connection by itself is "transport error".
fn in_full(status: &Status) -> String {
    let mut text = format!("{}: {}", status.code(), status.message());
    let mut innermost = None;
    let mut next = std::error::Error::source(status);
    while let Some(error) = next {
        innermost = Some(error);
        next = error.source();
    }
    if let Some(reason) = innermost.map(ToString::to_string).filter(|reason| !text.contains(reason.as_str())) {
        text = format!("{text}: {reason}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_error_survives_the_wire() {
        let all = [
            Error::refused("revoke-signed", "commitment 7 was signed for broadcast"),
            Error::StaleTerm { newest: u64::MAX },
            Error::Unavailable { what: "token holdfast".into(), retry_after_ms: 7 },
            Error::misuse("commitment.number", "beyond 2^48 - 1"),
        ];
        for error in all {
            assert_eq!(Error::from(Status::from(error.clone())), error);
        }
    }

    #[test]
    fn a_cut_connection_is_unavailable_and_a_bug_is_not() {
        assert!(matches!(Error::from(Status::unavailable("tcp reset")), Error::Unavailable { .. }));
        assert!(matches!(Error::from(Status::internal("index out of range")), Error::Internal(_)));
    }

    #[test]
    fn what_our_side_of_the_connection_says_is_no_answer() {
        let mut status = Status::internal("h2 protocol error");
        status.set_source(std::sync::Arc::new(std::io::Error::other("GoAway")));
        assert!(matches!(Error::from(status), Error::Unavailable { .. }));
    }

    #[test]
    fn a_lost_connection_says_why_it_was_lost() {
        let reset = std::io::Error::other("reset by peer");
        let Error::Unavailable { what, .. } = Error::from(Status::from_error(Box::new(reset))) else { panic!() };
        assert!(what.contains("reset by peer"), "{what}");
    }
}
