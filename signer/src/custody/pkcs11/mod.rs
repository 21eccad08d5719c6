//! Custody in a PKCS#11 token: the node key is made in it and never leaves it; the seed is sealed by an AES key of it.
//!
//! - [`uri`]: which token; [`login`]: finding it and logging in, a wrong PIN once;
//! - [`module`]: the library, of which a process has one; [`worker`]: the threads that own the sessions, and the ladder
//!   by which they reconnect;
//! - [`objects`]: the keys and what they have to be; [`provision`]: making them;
//! - [`identity`]: ECDSA and ECDH; [`point`]: the arithmetic that gives ECDH its sign; [`seal`]: the seed.

mod error;
mod identity;
mod login;
mod module;
mod objects;
mod point;
mod provision;
mod seal;
mod uri;
mod worker;

use std::{
    path::{Path, PathBuf},
    sync::{Arc, mpsc},
    thread,
    time::{Duration, Instant},
};

use bitcoin::{Network, secp256k1::PublicKey};
use cryptoki::slot::Limit;

pub use self::uri::{TokenUri, UriError};
use self::{
    error::CallError,
    identity::TokenIdentity,
    login::{Pin, find_token},
    module::Module,
    worker::{Access, Workers},
};
use super::{
    Custody, CustodyError, NodeIdentity, Seed, prove_identity,
    sealed::{Lock, SealedSeed},
};
use crate::config::Pkcs11Custody;

/// Making keys may take a token far longer than using them.
const INIT_TIMEOUT: Duration = Duration::from_secs(120);

pub struct Pkcs11Backend {
    workers: Arc<Workers>,
    identity: Arc<TokenIdentity>,
    sealed: SealedSeed,
}

impl Pkcs11Backend {
    /// Makes the keys and the sealed seed, and opens them. Refuses when any of them already exists.
    pub fn init(config: &Pkcs11Custody, network: Network, data_dir: &Path) -> Result<Self, CustodyError> {
        let path = sealed_path(data_dir);
        let node_id = {
            let (config, path) = (config.clone(), path.clone());
            on_own_thread(INIT_TIMEOUT, move |deadline| provision::provision(&config, network, &path, deadline))?
        };
        Self::open(config, network, data_dir, &node_id)
    }

    /// Finds the keys, checks what they are and that the node key is `node_id`, and what the token can do.
    pub fn open(
        config: &Pkcs11Custody,
        network: Network,
        data_dir: &Path,
        node_id: &PublicKey,
    ) -> Result<Self, CustodyError> {
        let path = sealed_path(data_dir);
        let sealed = SealedSeed::read(&path, network, node_id)?;
        let Lock::Token(ids) = sealed.header.lock else {
            let why = format!("sealed seed {} is sealed by a passphrase, not by a token", path.display());
            return Err(CustodyError::Wrong(why));
        };
        let access = Access {
            module: Module::of(&config.module),
            uri: config.token.clone(),
            pin: Pin::new(config.pin_file.clone()),
            label: config.label.clone(),
            ids,
            node_id: *node_id,
        };
        let workers = Arc::new(Workers::start(access, config.timeout)?);
        let uri = config.token.clone();
        let limit = workers.call(move |_, entered| {
            let (slot, token) = find_token(&entered.library, &uri)?;
            objects::check_mechanisms(entered, slot, false)?;
            Ok(token.max_session_count())
        })?;
        let sessions = match limit {
            // One is left for an operator's tool.
            Limit::Max(most) => u64::from(config.sessions).min(most.saturating_sub(1)),
            Limit::Infinite | Limit::Unavailable => config.sessions.into(),
        };
        workers.add(usize::try_from(sessions.saturating_sub(1)).unwrap_or(0))?;
        let identity = Arc::new(TokenIdentity { workers: workers.clone(), node_id: *node_id });
        Ok(Self { workers, identity, sealed })
    }
}

impl Custody for Pkcs11Backend {
    fn backend(&self) -> &'static str {
        "pkcs11"
    }

    fn identity(&self) -> Arc<dyn NodeIdentity> {
        self.identity.clone()
    }

    fn identity_in_token(&self) -> bool {
        true
    }

    fn unseal(&self) -> Result<Seed, CustodyError> {
        let aad = self.sealed.header.associated_data();
        let ciphertext = self.sealed.ciphertext.clone();
        let nonce: [u8; 12] = self.sealed.nonce.as_slice().try_into().map_err(|_| {
            CustodyError::Wrong("the nonce of the sealed seed has not 12 bytes: the file was changed".into())
        })?;
        self.workers.call(move |connection, _| {
            seal::unseal(&connection.session, connection.keys.seal, &aad, &nonce, &ciphertext)
        })
    }

    fn self_test(&self) -> Result<(), CustodyError> {
        prove_identity(&*self.identity)
    }
}

fn sealed_path(data_dir: &Path) -> PathBuf {
    data_dir.join("seed.sealed")
}

/// Calls into a PKCS#11 library may hang, so even this one does not run on the caller's thread.
fn on_own_thread<T: Send + 'static>(
    timeout: Duration,
    work: impl FnOnce(Instant) -> Result<T, CallError> + Send + 'static,
) -> Result<T, CustodyError> {
    let (answer, answered) = mpsc::sync_channel(1);
    let deadline = Instant::now() + timeout;
    thread::Builder::new()
        .name("token-init".into())
        .spawn(move || {
            // Nobody waits any more when this fails.
            let _ = answer.send(work(deadline));
        })
        .map_err(|e| CustodyError::Unavailable(format!("no thread for the token: {e}")))?;
    match answered.recv_timeout(timeout) {
        Ok(result) => result.map_err(|failure| failure.error),
        Err(_) => Err(CustodyError::Unavailable(format!("the token did not answer within {} s", timeout.as_secs()))),
    }
}
