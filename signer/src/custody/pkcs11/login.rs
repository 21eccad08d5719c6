//! Finding the token and logging in to it. A wrong PIN is tried once: tokens lock themselves after a few.

use std::{
    path::PathBuf,
    sync::{Mutex, PoisonError},
};

use cryptoki::{
    context::Pkcs11,
    error::{Error, RvError},
    session::{Session, SessionState, UserType},
    slot::{Slot, TokenInfo},
    types::AuthPin,
};

use super::{
    error::{CallError, name},
    uri::TokenUri,
};
use crate::{
    custody::files::{self, SecretLine},
    harden::memory::on_clean_stack,
};

/// The one slot whose token has this address.
pub fn find_token(library: &Pkcs11, uri: &TokenUri) -> Result<(Slot, TokenInfo), CallError> {
    // A slot that does not tell about its token is not the one; it may be someone else's and broken.
    let told = |slot| library.get_token_info(slot).ok().map(|info| (slot, info));
    let mut tokens: Vec<_> = library.get_slots_with_token()?.into_iter().filter_map(told).collect();
    tokens.retain(|(_, info)| uri.matches(info));
    match (tokens.pop(), tokens.len()) {
        (Some(token), 0) => Ok(token),
        (Some(_), others) => {
            Err(CallError::refused(format!("{} tokens have the address {uri}: add serial= to it", others + 1)))
        }
        (None, _) => Err(CallError::away(format!("no token has the address {uri}"))),
    }
}

pub struct Pin {
    file: PathBuf,
    /// What the token refused: not tried again, by any session, until the file says something else.
    refused: Mutex<Option<SecretLine>>,
}

impl Pin {
    pub fn new(file: PathBuf) -> Self {
        Self { file, refused: Mutex::new(None) }
    }

    /// Logs the process in to the token unless it already is. Login counts for all sessions of the process.
    pub fn log_in(&self, session: &Session, token: &TokenInfo) -> Result<(), CallError> {
        // Held throughout, so that a second session never tries the PIN that a first is about to see refused.
        let mut refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        let state = session.get_session_info()?.session_state();
        if !token.login_required() || matches!(state, SessionState::RoUser | SessionState::RwUser) {
            return Ok(());
        }
        let label = token.label();
        if token.user_pin_locked() {
            return Err(CallError::refused(format!("the PIN of token {label} is locked")));
        }
        if token.user_pin_final_try() {
            let why = "one wrong PIN more locks it; log in with another program first, so that the count starts anew";
            return Err(CallError::refused(format!("token {label} is not touched: {why}")));
        }
        let pin = files::read_secret(&self.file, "PIN file")?;
        if refused.as_ref().is_some_and(|refused| refused.as_str() == pin.as_str()) {
            let why = format!("it was refused before and is not tried again until {} changes", self.file.display());
            return Err(CallError::refused(format!("wrong PIN for token {label}: {why}")));
        }
        // What is given to the library is a copy of this call's own, overwritten after it; so is what the library leaves behind.
        match on_clean_stack(|| session.login(UserType::User, Some(&AuthPin::from(pin.as_str())))) {
            Ok(()) | Err(Error::Pkcs11(RvError::UserAlreadyLoggedIn, _)) => {
                *refused = None;
                Ok(())
            }
            Err(Error::Pkcs11(code, _)) if is_refusal(&code) => {
                *refused = Some(pin);
                let code = name(&code);
                Err(CallError::refused(format!("wrong PIN for token {label} ({code}); it is not tried again")))
            }
            Err(e) => Err(e.into()),
        }
    }
}

fn is_refusal(code: &RvError) -> bool {
    matches!(
        code,
        RvError::PinIncorrect
            | RvError::PinInvalid
            | RvError::PinLenRange
            | RvError::PinExpired
            | RvError::PinLocked
            | RvError::UserPinNotInitialized
    )
}
