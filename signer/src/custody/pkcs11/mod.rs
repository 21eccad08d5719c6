//! Custody in a PKCS#11 token: the node key is made in it and never leaves it; the seed is sealed by an AES key of it.
//!
//! - [`uri`]: which token; [`login`]: finding it and logging in, a wrong PIN once;
//! - [`module`]: the library, of which a process has one; [`worker`]: the threads that own the sessions, and the ladder
//!   by which they reconnect; [`queue`]: what callers want of them;
//! - [`probe`]: what the token can do; [`objects`]: the keys and what they have to be; [`provision`]: making them;
//! - [`identity`]: ECDSA; [`ecdh`], and [`batch`] for several at once; [`point`]: the arithmetic that gives ECDH its sign; [`seal`]: the seed.

mod batch;
mod ecdh;
mod error;
mod identity;
mod login;
mod module;
mod objects;
mod point;
mod probe;
mod provision;
mod queue;
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
    ecdh::Pace,
    error::CallError,
    identity::TokenIdentity,
    login::{Pin, find_token},
    module::Module,
    probe::Probe,
    provision::Plant,
    worker::{Access, Workers},
};
use super::{
    Custody, CustodyError, IdentityPlace, NodeIdentity, Seed, prove_identity, random,
    sealed::{Lock, SealedSeed},
};
use crate::{config::Pkcs11Custody, keys::SeedIdentity};

/// Making keys may take a token far longer than using them.
const INIT_TIMEOUT: Duration = Duration::from_secs(120);

pub struct Pkcs11Backend {
    workers: Arc<Workers>,
    identity: Arc<dyn NodeIdentity>,
    in_token: bool,
    sealed: SealedSeed,
}

impl Pkcs11Backend {
    /// Makes the keys and the sealed seed, and opens them. Refuses when any of them already exists. Where the node key
    /// is, is recorded in the sealed seed's header.
    pub fn init(
        config: &Pkcs11Custody,
        network: Network,
        data_dir: &Path,
        place: IdentityPlace,
    ) -> Result<Self, CustodyError> {
        let plant = match place {
            IdentityPlace::Token => Plant::Token,
            IdentityPlace::Sealed => Plant::Sealed(random()?),
        };
        Self::provision(config, network, data_dir, plant)
    }

    /// Seals a seed that exists already, of which the node key is a child.
    pub fn import(config: &Pkcs11Custody, network: Network, data_dir: &Path, seed: Seed) -> Result<Self, CustodyError> {
        Self::provision(config, network, data_dir, Plant::Sealed(seed))
    }

    fn provision(
        config: &Pkcs11Custody,
        network: Network,
        data_dir: &Path,
        plant: Plant,
    ) -> Result<Self, CustodyError> {
        let path = sealed_path(data_dir);
        let node_id = {
            let config = config.clone();
            let make = move |deadline| provision::provision(&config, network, &path, &plant, deadline);
            on_own_thread(INIT_TIMEOUT, make)?
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
            let why = format!("sealed seed {} is not sealed by a token", path.display());
            return Err(CustodyError::Wrong(why));
        };
        let access = Access {
            module: Module::of(&config.module),
            uri: config.token.clone(),
            pin: Pin::new(config.pin_file.clone()),
            label: config.label.clone(),
            ids,
            node_id: *node_id,
            connected: Arc::default(),
        };
        let workers = Arc::new(Workers::start(access, config.timeout)?);
        let uri = config.token.clone();
        let limit = workers.call(move |_, entered| {
            let (slot, token) = find_token(&entered.library, &uri)?;
            Probe::of(entered, slot)?.can_use(&ids)?;
            Ok(token.max_session_count())
        })?;
        let in_token = ids.identity_id.is_some();
        let identity: Arc<dyn NodeIdentity> = match in_token {
            true => {
                let sessions = sessions(config.sessions, limit);
                workers.add(sessions - 1)?;
                let pace = if sessions > 1 { ecdh::measure(&workers, node_id)? } else { Pace::OneAfterAnother };
                {
                    let workers = workers.clone();
                    Arc::new(TokenIdentity { workers, node_id: *node_id, pace, batches: Arc::default() })
                }
            }
            // All that is left to do for the token is to unseal, once.
            false => Arc::new(child_of(&unseal(&workers, &sealed)?, node_id, &path)?),
        };
        Ok(Self { workers, identity, in_token, sealed })
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
        self.in_token
    }

    fn unseal(&self) -> Result<Seed, CustodyError> {
        unseal(&self.workers, &self.sealed)
    }

    fn self_test(&self) -> Result<(), CustodyError> {
        prove_identity(&*self.identity)
    }
}

fn unseal(workers: &Workers, sealed: &SealedSeed) -> Result<Seed, CustodyError> {
    let sealed = sealed.clone();
    workers.call(move |connection, _| seal::unseal(&connection.session, connection.keys.seal, &sealed))
}

fn child_of(seed: &Seed, node_id: &PublicKey, path: &Path) -> Result<SeedIdentity, CustodyError> {
    let identity = SeedIdentity::new(seed)?;
    match identity.public_key() {
        found if found == *node_id => Ok(identity),
        found => {
            let why = format!("the seed in {} gives node id {found}, not the recorded {node_id}", path.display());
            Err(CustodyError::Wrong(why))
        }
    }
}

/// At least one; at most what the token allows, less one for an operator's tool.
fn sessions(wanted: u8, limit: Limit) -> usize {
    let most = match limit {
        Limit::Max(most) => most.saturating_sub(1),
        Limit::Infinite | Limit::Unavailable => u64::MAX,
    };
    // It is at most 255.
    u64::from(wanted).min(most).max(1) as usize
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_token_limits_the_sessions() {
        for (wanted, limit, sessions_used) in [
            (4, Limit::Infinite, 4),
            (4, Limit::Unavailable, 4),
            (4, Limit::Max(16), 4),
            (4, Limit::Max(3), 2),
            (4, Limit::Max(1), 1),
            (0, Limit::Infinite, 1),
        ] {
            assert_eq!(sessions(wanted, limit), sessions_used);
        }
    }
}
