//! What a failed call to a token means.

use cryptoki::error::{Error, RvError};

use crate::custody::CustodyError;

/// A call that failed: what to say if it stays so, and whether a fresh connection may cure it.
#[derive(Clone, Debug)]
pub struct CallError {
    pub error: CustodyError,
    pub curable: bool,
}

impl CallError {
    /// The token is away, or seems to be.
    pub fn away(what: impl std::fmt::Display) -> Self {
        Self { error: CustodyError::Unavailable(what.to_string()), curable: true }
    }

    /// The token answered, and its answer is no.
    pub fn refused(what: impl std::fmt::Display) -> Self {
        Self { error: CustodyError::Wrong(what.to_string()), curable: false }
    }

    /// An answer that is not the key's. A stale handle gives one, so a fresh connection is tried first.
    pub fn false_answer(what: impl std::fmt::Display) -> Self {
        Self { error: CustodyError::Wrong(what.to_string()), curable: true }
    }
}

/// Most return values of a failing token say little (a lost one gives any of a dozen), so all but a few count as "away".
impl From<Error> for CallError {
    fn from(error: Error) -> Self {
        match &error {
            Error::Pkcs11(code, function) => match code {
                RvError::MechanismInvalid
                | RvError::KeyFunctionNotPermitted
                | RvError::KeyTypeInconsistent
                | RvError::KeySizeRange
                | RvError::CurveNotSupported
                | RvError::FunctionNotSupported => Self::refused(format!("{function}: {}", name(code))),
                _ => Self::away(format!("{function}: {}", name(code))),
            },
            Error::LibraryLoading(e) => Self::away(format!("the PKCS#11 library does not load: {e}")),
            _ => Self::away(error),
        }
    }
}

/// The return value's name; its own text is a paragraph of the specification.
pub fn name(code: &RvError) -> String {
    format!("{code:?}")
}
