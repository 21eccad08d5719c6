//! What is known of a channel's public side. All of it is a pure function of the seed, so it never goes stale.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
};

use bitcoin::{Txid, secp256k1::PublicKey};
use holdfast_proto::lightning::CommitmentNumber;
use lightning::{chain::transaction::OutPoint, ln::chan_utils::ChannelPublicKeys};

/// Points kept for one channel. LDK asks for the next one or two, and seldom for an old one.
const POINTS: usize = 64;

/// One channel's, shared by the signers that LDK makes of it (at least two).
#[derive(Default)]
pub(crate) struct Known {
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    public_keys: Option<ChannelPublicKeys>,
    points: BTreeMap<CommitmentNumber, PublicKey>,
    splice_keys: HashMap<Txid, PublicKey>,
    registered: HashSet<OutPoint>,
}

impl Known {
    pub(crate) fn public_keys(&self, fetch: impl FnOnce() -> ChannelPublicKeys) -> ChannelPublicKeys {
        if let Some(keys) = &self.lock().public_keys {
            return keys.clone();
        }
        let keys = fetch();
        self.lock().public_keys = Some(keys.clone());
        keys
    }

    pub(crate) fn splice_key(&self, parent: Txid, fetch: impl FnOnce() -> PublicKey) -> PublicKey {
        if let Some(key) = self.lock().splice_keys.get(&parent) {
            return *key;
        }
        let key = fetch();
        self.lock().splice_keys.insert(parent, key);
        key
    }

    pub(crate) fn point(&self, number: CommitmentNumber) -> Option<PublicKey> {
        self.lock().points.get(&number).copied()
    }

    /// Keeps a batch of consecutive points; the lowest numbers go first when there are too many.
    pub(crate) fn keep_points(&self, first: CommitmentNumber, points: &[PublicKey]) {
        let mut inner = self.lock();
        let mut number = Some(first);
        for point in points {
            let Some(at) = number else { break };
            inner.points.insert(at, *point);
            number = at.next();
        }
        while inner.points.len() > POINTS {
            inner.points.pop_first();
        }
    }

    pub(crate) fn is_registered(&self, funding: &OutPoint) -> bool {
        self.lock().registered.contains(funding)
    }

    pub(crate) fn set_registered(&self, funding: OutPoint) {
        self.lock().registered.insert(funding);
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Every change leaves the contents whole, so that a panic elsewhere does not spoil them.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// All channels', for as long as LDK holds a signer of them.
#[derive(Default)]
pub(crate) struct Channels {
    inner: Mutex<Directory>,
}

#[derive(Default)]
struct Directory {
    known: HashMap<[u8; 32], Weak<Known>>,
    sweep_at: usize,
}

impl Channels {
    pub(crate) fn of(&self, keys_id: [u8; 32]) -> Arc<Known> {
        let mut directory = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = directory.known.get(&keys_id).and_then(Weak::upgrade) {
            return known;
        }
        if directory.known.len() >= directory.sweep_at {
            directory.known.retain(|_, known| known.strong_count() > 0);
            directory.sweep_at = (2 * directory.known.len()).max(64);
        }
        let known = Arc::new(Known::default());
        directory.known.insert(keys_id, Arc::downgrade(&known));
        known
    }
}
