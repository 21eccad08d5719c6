//! Signatures of claims. LDK broadcasts what waits for its block again and again, and has it signed anew each time.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use bitcoin::{hashes::sha256, secp256k1::ecdsa::Signature};

/// Beyond so many all are forgotten, and asked for once more.
const KEPT: usize = 4096;

/// The signer's answers, by what was asked. It gives the same answer to the same request (P5) and cannot take back one that
/// it gave, so a claim that waits costs it one call and one record, and does not stand still while the signer is away.
#[derive(Default)]
pub(crate) struct Signed(Mutex<HashMap<sha256::Hash, Signature>>);

impl Signed {
    pub(crate) fn get(&self, request: &sha256::Hash) -> Option<Signature> {
        self.lock().get(request).copied()
    }

    pub(crate) fn keep(&self, request: sha256::Hash, signature: Signature) {
        let mut kept = self.lock();
        if kept.len() >= KEPT {
            kept.clear();
        }
        kept.insert(request, signature);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<sha256::Hash, Signature>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use bitcoin::hashes::Hash;

    use super::*;

    #[test]
    fn there_are_only_so_many() {
        let signed = Signed::default();
        let signature = Signature::from_compact(&[1; 64]).unwrap();
        let request = |n: usize| sha256::Hash::hash(&n.to_be_bytes());
        for n in 0..3 * KEPT {
            signed.keep(request(n), signature);
            assert_eq!(signed.get(&request(n)), Some(signature));
            assert!(signed.lock().len() <= KEPT);
        }
        assert_eq!(signed.get(&request(0)), None);
    }
}
