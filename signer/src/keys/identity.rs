//! The node's identity as a child of the seed, for custody that has no token to keep it in.

use bitcoin::{
    Network,
    bip32::Xpriv,
    secp256k1::{Message, PublicKey, ecdh::SharedSecret as Ecdh, ecdsa::RecoverableSignature},
};
use zeroize::Zeroizing;

use super::{
    secp,
    secret::{ExtendedSecret, LockedKey},
};
use crate::custody::{CustodyError, NodeIdentity, Seed, SharedSecret};

/// m/0' of the seed, as LDK's `KeysManager` has it: an imported node keeps its id.
pub struct SeedIdentity {
    secret: LockedKey,
    public: PublicKey,
}

impl SeedIdentity {
    pub fn new(seed: &Seed) -> Result<Self, CustodyError> {
        // The network only changes how an extended key prints, which this one never does.
        let master = Xpriv::new_master(Network::Bitcoin, seed.as_slice())
            .map_err(|_| CustodyError::Wrong("the seed gives no BIP 32 master key".into()))?;
        let secret = ExtendedSecret::new(master).hardened(0).secret();
        let public = secret.public_key();
        Ok(Self { secret: secret.lock()?, public })
    }
}

impl NodeIdentity for SeedIdentity {
    fn public_key(&self) -> PublicKey {
        self.public
    }

    fn sign(&self, digest: &[u8; 32]) -> Result<RecoverableSignature, CustodyError> {
        let message = Message::from_digest(*digest);
        let signature = secp().sign_ecdsa_recoverable(&message, self.secret.open().expose());
        match secp().recover_ecdsa(&message, &signature) {
            Ok(signer) if signer == self.public => Ok(signature),
            _ => Err(CustodyError::Wrong("a fresh signature does not verify: faulty hardware?".into())),
        }
    }

    fn ecdh(&self, point: &PublicKey) -> Result<SharedSecret, CustodyError> {
        let mut shared = Ecdh::new(point, self.secret.open().expose());
        let bytes = Zeroizing::new(shared.secret_bytes());
        shared.non_secure_erase();
        Ok(bytes)
    }
}
