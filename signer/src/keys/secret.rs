//! Containers that overwrite what they held.

use bitcoin::{
    bip32::{ChildNumber, Xpriv},
    secp256k1::{PublicKey, SecretKey},
};

use super::secp;

/// A secret key that is overwritten when it is dropped. It has no `Debug`, no `Clone` and no encoding.
pub struct Secret(SecretKey);

impl Secret {
    pub fn new(key: SecretKey) -> Self {
        Self(key)
    }

    pub fn expose(&self) -> &SecretKey {
        &self.0
    }

    pub fn public_key(&self) -> PublicKey {
        self.0.public_key(secp())
    }
}

impl Drop for Secret {
    fn drop(&mut self) {
        self.0.non_secure_erase();
    }
}

/// A BIP 32 extended private key, overwritten likewise.
pub(super) struct ExtendedSecret(Xpriv);

impl ExtendedSecret {
    pub(super) fn new(key: Xpriv) -> Self {
        Self(key)
    }

    pub(super) fn expose(&self) -> &Xpriv {
        &self.0
    }

    pub(super) fn child(&self, child: ChildNumber) -> Self {
        // Deriving fails only when a SHA-512 hits one of 2^-127 of its values (BIP 32); LDK panics on it as well.
        Self(self.0.derive_priv(secp(), &[child]).expect("a child key exists but for one index in 2^127"))
    }

    /// The hardened child `index'`.
    pub(super) fn hardened(&self, index: u32) -> Self {
        self.child(ChildNumber::Hardened { index })
    }

    pub(super) fn secret(&self) -> Secret {
        Secret::new(self.0.private_key)
    }
}

impl Drop for ExtendedSecret {
    fn drop(&mut self) {
        self.0.private_key.non_secure_erase();
    }
}
