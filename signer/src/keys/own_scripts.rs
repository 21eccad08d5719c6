//! Which scripts are the wallet's, without being told where among them to look.

use std::{
    collections::HashSet,
    sync::{Mutex, PoisonError},
};

use bitcoin::{
    CompressedPublicKey, Script, WPubkeyHash,
    bip32::{ChildNumber, Xpub},
    hashes::Hash,
};

use super::secp;

/// Addresses of each branch that count as ours: more than a wallet gives out in its life, few enough that what is said
/// to be ours is found again by a wallet that is restored.
const WINDOW: u32 = 50_000;

/// The addresses of both branches of a BIP 84 account, derived as far as somebody asked.
pub(super) struct OwnScripts {
    branches: Vec<Xpub>,
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    hashes: HashSet<WPubkeyHash>,
    /// The first index that is not among them.
    next: u32,
}

impl OwnScripts {
    pub(super) fn new(account: &Xpub) -> Self {
        let branch = |index| account.ckd_pub(secp(), ChildNumber::Normal { index }).ok();
        Self { branches: [0, 1].into_iter().filter_map(branch).collect(), known: Mutex::default() }
    }

    /// Whether a script is P2WPKH of a key of the account. What is not has cost its derivations once: a second or two.
    pub(super) fn contains(&self, script: &Script) -> bool {
        if !script.is_p2wpkh() {
            return false;
        }
        let Ok(wanted) = WPubkeyHash::from_slice(&script.as_bytes()[2..]) else { return false };
        // Each change is a few inserts and one addition, in this order.
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        while !known.hashes.contains(&wanted) && known.next < WINDOW {
            let child = ChildNumber::Normal { index: known.next };
            // No key at an index has a probability of 2^-127.
            let keys = self.branches.iter().filter_map(|branch| branch.ckd_pub(secp(), child).ok());
            known.hashes.extend(keys.map(|key| CompressedPublicKey(key.public_key).wpubkey_hash()));
            known.next += 1;
        }
        known.hashes.contains(&wanted)
    }
}
