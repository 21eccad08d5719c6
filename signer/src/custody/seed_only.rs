//! What the backends that have nothing but a seed come to once it is open: the seed, and the node key that is its child.

use std::sync::Arc;

use bitcoin::secp256k1::PublicKey;
use zeroize::Zeroizing;

use super::{Custody, CustodyError, NodeIdentity, Seed, prove_identity};
use crate::{harden::memory::Locked, keys::SeedIdentity};

/// A seed that a backend gave, which is not asked again.
pub struct SeedOnly {
    backend: &'static str,
    pub(super) seed: Locked<32>,
    identity: Arc<SeedIdentity>,
}

impl SeedOnly {
    pub(super) fn new(backend: &'static str, seed: &Seed) -> Result<Self, CustodyError> {
        let identity = Arc::new(SeedIdentity::new(seed)?);
        Ok(Self { backend, seed: Locked::copy(seed)?, identity })
    }

    pub(super) fn node_id(&self) -> PublicKey {
        self.identity.public_key()
    }
}

impl Custody for SeedOnly {
    fn backend(&self) -> &'static str {
        self.backend
    }

    fn identity(&self) -> Arc<dyn NodeIdentity> {
        self.identity.clone()
    }

    fn identity_in_token(&self) -> bool {
        false
    }

    fn unseal(&self) -> Result<Seed, CustodyError> {
        Ok(Zeroizing::new(*self.seed))
    }

    fn self_test(&self) -> Result<(), CustodyError> {
        prove_identity(&*self.identity)
    }
}
