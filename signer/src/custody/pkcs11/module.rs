//! A PKCS#11 library, of which a process has one instance whatever it does with it.
//!
//! Finalising and initialising it again is the only cure for some losses (SoftHSM reads its tokens only then), but it
//! ends every session of the process, and must not happen while a call is inside. So each call enters through here, and
//! a restart waits until nobody is inside. Handles from before a restart may mean something else after it: the
//! generation tells.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use cryptoki::{
    context::{CInitializeArgs, CInitializeFlags, Pkcs11},
    error::{Error, RvError},
};

use super::error::CallError;

/// Restarts are at least this far apart: each costs every session of the process.
const BETWEEN_RESTARTS: Duration = Duration::from_millis(300);

pub struct Module {
    path: PathBuf,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// Never unloaded once it is there: many libraries do not survive that.
    library: Option<Pkcs11>,
    initialized: bool,
    generation: u64,
    inside: usize,
    restarting: bool,
    last_restart: Option<Instant>,
}

/// Leave to call into the library, until it is dropped.
pub struct Entered<'a> {
    module: &'a Module,
    pub library: Pkcs11,
    pub generation: u64,
}

impl Module {
    /// The one instance for `path`. Nothing is loaded yet.
    pub fn of(path: &Path) -> Arc<Self> {
        static MODULES: Mutex<Vec<Arc<Module>>> = Mutex::new(Vec::new());
        let mut modules = lock(&MODULES);
        if let Some(module) = modules.iter().find(|module| module.path == path) {
            return module.clone();
        }
        let module = Self { path: path.to_owned(), state: Mutex::default(), changed: Condvar::new() };
        modules.push(Arc::new(module));
        modules[modules.len() - 1].clone()
    }

    /// Loads and initialises the library if that has not happened, and keeps it from being restarted.
    pub fn enter(&self, deadline: Instant) -> Result<Entered<'_>, CallError> {
        let mut state = self.wait_while(deadline, |state| state.restarting)?;
        let library = match &state.library {
            Some(library) => library.clone(),
            None => {
                let library = Pkcs11::new(&self.path).map_err(|e| self.named(e))?;
                state.library.insert(library).clone()
            }
        };
        if !state.initialized {
            initialize(&library).map_err(|e| self.not_started(e))?;
            state.initialized = true;
            state.generation += 1;
        }
        state.inside += 1;
        Ok(Entered { module: self, library, generation: state.generation })
    }

    /// Finalises the library, so that the next call initialises it again; does nothing when that has happened since
    /// `seen`. Gives up when somebody is still inside at the deadline: a call that hangs.
    pub fn restart(&self, seen: u64, deadline: Instant) -> Result<(), CallError> {
        let mut state = loop {
            let state = self.wait_while(deadline, |state| state.restarting)?;
            if state.generation != seen || !state.initialized {
                return Ok(());
            }
            let pause = state.last_restart.map(|last| BETWEEN_RESTARTS.saturating_sub(last.elapsed()));
            match pause.filter(|pause| !pause.is_zero()) {
                None => break state,
                Some(pause) if Instant::now() + pause < deadline => {
                    drop(self.changed.wait_timeout(state, pause).unwrap_or_else(PoisonError::into_inner));
                }
                Some(_) => return Err(CallError::away(format!("{} was just restarted", self.path.display()))),
            }
        };
        state.restarting = true;
        drop(state);
        let alone = self.wait_while(deadline, |state| state.inside > 0);
        let mut state = match alone {
            Ok(state) => state,
            Err(e) => {
                lock(&self.state).restarting = false;
                self.changed.notify_all();
                return Err(e);
            }
        };
        state.restarting = false;
        state.initialized = false;
        state.last_restart = Some(Instant::now());
        let finalized = match &state.library {
            Some(library) => library.clone().finalize(),
            None => Ok(()),
        };
        drop(state);
        self.changed.notify_all();
        match finalized {
            Ok(()) | Err(Error::Pkcs11(RvError::CryptokiNotInitialized, _)) => Ok(()),
            Err(e) => Err(self.named(e)),
        }
    }

    fn wait_while(&self, deadline: Instant, busy: impl Fn(&State) -> bool) -> Result<MutexGuard<'_, State>, CallError> {
        let left = deadline.saturating_duration_since(Instant::now());
        let waited = self.changed.wait_timeout_while(lock(&self.state), left, |state| busy(state));
        let (state, timeout) = waited.unwrap_or_else(PoisonError::into_inner);
        match timeout.timed_out() {
            true => Err(CallError::away(format!("a call into {} does not return", self.path.display()))),
            false => Ok(state),
        }
    }

    /// SoftHSM does not start without the folder of its tokens, and says no more than that something failed.
    fn not_started(&self, error: Error) -> CallError {
        match error {
            Error::Pkcs11(RvError::GeneralError, _) => CallError::away(format!(
                "{} does not start (C_Initialize: CKR_GENERAL_ERROR), so no token is there; with SoftHSM: is the folder \
                 there that its configuration names as directories.tokendir?",
                self.path.display()
            )),
            error => self.named(error),
        }
    }

    fn named(&self, error: Error) -> CallError {
        CallError::away(format!("{}: {}", self.path.display(), CallError::from(error).what()))
    }
}

impl Drop for Entered<'_> {
    fn drop(&mut self) {
        lock(&self.module.state).inside -= 1;
        self.module.changed.notify_all();
    }
}

fn initialize(library: &Pkcs11) -> Result<(), Error> {
    match library.initialize(CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK)) {
        Err(Error::Pkcs11(RvError::CryptokiAlreadyInitialized, _)) => Ok(()),
        result => result,
    }
}

/// The state stays right if a holder of the lock panicked: no step above leaves it half changed.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
