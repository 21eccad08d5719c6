//! What a failed call to a token means.

use cryptoki::error::{Error, RvError};

use crate::custody::CustodyError;

/// A call that failed: what to say if it stays so, and what may cure it.
#[derive(Clone, Debug)]
pub struct CallError {
    pub error: CustodyError,
    pub cure: Cure,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cure {
    /// A fresh connection may help.
    Reconnect,
    /// The token has no session left for this worker; one that has a session may do the work.
    AnotherWorker,
    /// None: asking again gives the same.
    None,
}

impl CallError {
    /// The token is away, or seems to be.
    pub fn away(what: impl std::fmt::Display) -> Self {
        Self { error: CustodyError::Unavailable(what.to_string()), cure: Cure::Reconnect }
    }

    /// The token answered, and its answer is no.
    pub fn refused(what: impl std::fmt::Display) -> Self {
        CustodyError::Wrong(what.to_string()).into()
    }

    /// An answer that is not the key's. A stale handle gives one, so a fresh connection is tried first.
    pub fn false_answer(what: impl std::fmt::Display) -> Self {
        Self { error: CustodyError::Wrong(what.to_string()), cure: Cure::Reconnect }
    }

    /// What failed, without the kind of failure.
    pub fn what(&self) -> &str {
        match &self.error {
            CustodyError::Unavailable(what) | CustodyError::Wrong(what) => what,
        }
    }
}

/// Something outside of the token: no connection cures it.
impl From<CustodyError> for CallError {
    fn from(error: CustodyError) -> Self {
        Self { error, cure: Cure::None }
    }
}

/// Most return values of a failing token say little (a lost one gives any of a dozen), so all but a few count as "away".
impl From<Error> for CallError {
    fn from(error: Error) -> Self {
        match &error {
            Error::Pkcs11(RvError::SessionCount, _) => {
                let what = "the token has no session left: others hold them, or its limit is lower than it says";
                Self { error: CustodyError::Unavailable(what.into()), cure: Cure::AnotherWorker }
            }
            Error::Pkcs11(code, function) if is_refusal(code) => Self::refused(format!("{function}: {}", name(code))),
            Error::Pkcs11(code, function) => Self::away(format!("{function}: {}", name(code))),
            Error::LibraryLoading(e) => Self::away(format!("the PKCS#11 library does not load: {e}")),
            _ => Self::away(error),
        }
    }
}

fn is_refusal(code: &RvError) -> bool {
    matches!(
        code,
        RvError::MechanismInvalid
            | RvError::MechanismParamInvalid
            | RvError::KeyFunctionNotPermitted
            | RvError::KeyTypeInconsistent
            | RvError::KeySizeRange
            | RvError::CurveNotSupported
            | RvError::DomainParamsInvalid
            | RvError::TemplateInconsistent
            | RvError::TemplateIncomplete
            | RvError::AttributeTypeInvalid
            | RvError::AttributeValueInvalid
            | RvError::FunctionNotSupported
    )
}

/// The return value's name; its own text is a paragraph of the specification.
pub fn name(code: &RvError) -> String {
    format!("{code:?}")
}
