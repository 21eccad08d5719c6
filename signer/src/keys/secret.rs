//! Containers of keys: those that last lie in locked memory, those that pass are overwritten.

use bitcoin::{
    Network,
    bip32::{ChainCode, ChildNumber, Fingerprint, Xpriv},
    hashes::{Hash, HashEngine, Hmac, HmacEngine, sha512},
    secp256k1::{PublicKey, Scalar, SecretKey},
};
use zeroize::Zeroizing;

use super::secp;
use crate::harden::memory::{Locked, MemoryError};

/// A secret key that is overwritten when it is dropped. It has no `Debug`, no `Clone` and no encoding. For the length of a
/// call; what lasts is a [`LockedKey`].
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

    pub(super) fn lock(&self) -> Result<LockedKey, MemoryError> {
        Locked::copy(&Zeroizing::new(self.0.secret_bytes())).map(LockedKey)
    }
}

impl Drop for Secret {
    fn drop(&mut self) {
        self.0.non_secure_erase();
    }
}

/// A secret key in locked memory.
pub(super) struct LockedKey(Locked<32>);

impl LockedKey {
    /// A copy for one use.
    pub(super) fn open(&self) -> Secret {
        secret(self.0.as_slice())
    }
}

/// A BIP 32 extended private key, overwritten when it is dropped.
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

    pub(super) fn lock(&self) -> Result<LockedExtended, MemoryError> {
        Locked::new(|bytes| {
            bytes[..32].copy_from_slice(self.0.chain_code.as_bytes());
            bytes[32..].copy_from_slice(Zeroizing::new(self.0.private_key.secret_bytes()).as_slice());
        })
        .map(LockedExtended)
    }
}

impl Drop for ExtendedSecret {
    fn drop(&mut self) {
        self.0.private_key.non_secure_erase();
    }
}

/// A BIP 32 extended private key in locked memory: the chain code, then the key.
pub(super) struct LockedExtended(Locked<64>);

impl LockedExtended {
    /// The key of the hardened child `index'`. It costs a few microseconds: unlike `Xpriv`, which also hashes the
    /// parent's public key, nothing is multiplied.
    pub(super) fn hardened(&self, index: u32) -> Secret {
        let (chain_code, key) = self.0.split_at(32);
        let mut engine = HmacEngine::<sha512::Hash>::new(chain_code);
        engine.input(&[0]);
        engine.input(key);
        engine.input(&(index | 1 << 31).to_be_bytes());
        let hash = Zeroizing::new(Hmac::from_engine(engine).to_byte_array());
        let tweak = secret(&hash[..32]);
        // As for `ExtendedSecret::child`.
        Secret::new(
            secret(key)
                .expose()
                .add_tweak(&Scalar::from(*tweak.expose()))
                .expect("a child key exists but for one index in 2^127"),
        )
    }

    /// A copy for one use, from which to derive; of what only printing shows (its network, its place in the tree) it
    /// knows nothing.
    pub(super) fn open(&self) -> ExtendedSecret {
        let (chain_code, key) = self.0.split_at(32);
        let chain_code: &[u8; 32] = chain_code.try_into().expect("the first half of 64 bytes");
        ExtendedSecret::new(Xpriv {
            network: Network::Bitcoin.into(),
            depth: 0,
            parent_fingerprint: Fingerprint::default(),
            child_number: ChildNumber::Normal { index: 0 },
            private_key: *secret(key).expose(),
            chain_code: ChainCode::from(*chain_code),
        })
    }
}

/// A key that was one when it was stored, or a hash.
fn secret(bytes: &[u8]) -> Secret {
    // A hash is a key but for one in 2^127; LDK panics on it as well.
    Secret::new(SecretKey::from_slice(bytes).expect("a hash is a key but for one in 2^127"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn children_of_a_locked_key_are_those_of_bip_32() {
        for seed in [[1; 32], [0xfe; 32]] {
            let master = ExtendedSecret::new(Xpriv::new_master(Network::Regtest, &seed).unwrap());
            let locked = master.lock().unwrap();
            for index in [0, 1, 84, (1 << 31) - 1] {
                assert_eq!(locked.hardened(index).expose(), master.hardened(index).secret().expose());
            }
            let path = [ChildNumber::Normal { index: 1 }, ChildNumber::Normal { index: 77 }];
            let [ours, theirs] = [locked.open(), master].map(|key| key.child(path[0]).child(path[1]).secret());
            assert_eq!(ours.expose(), theirs.expose());
        }
    }
}
