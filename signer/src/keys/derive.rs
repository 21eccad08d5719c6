//! From the seed to everything but the node's identity, which custody may hold elsewhere.

use std::sync::Arc;

use bitcoin::{
    Network, Script, ScriptBuf,
    bip32::Xpriv,
    hashes::{Hash, HashEngine, sha256},
    secp256k1::{PublicKey, SecretKey},
};
use lightning::sign::STATIC_PAYMENT_KEY_COUNT;
use zeroize::Zeroizing;

use super::{
    ChannelKeys, Secret, Wallet,
    channel::BaseKeys,
    secret::{ExtendedSecret, LockedExtended, LockedKey},
};
use crate::{
    custody::{CustodyError, Seed},
    harden::memory::Locked,
};

/// Hardened children of the seed's master key. Those below 1000 are LDK's (`KeysManager::new`); 84' is the wallet's.
mod child {
    pub(super) const DESTINATION: u32 = 1;
    pub(super) const SHUTDOWN: u32 = 2;
    pub(super) const CHANNELS: u32 = 3;
    pub(super) const INBOUND_PAYMENT: u32 = 5;
    pub(super) const PEER_STORAGE: u32 = 6;
    pub(super) const RECEIVE_AUTH: u32 = 7;
    pub(super) const STATIC_PAYMENT: u32 = 8;
    pub(super) const GUARD_RECORDS: u32 = 1000;
}

/// The seed and those of its children that last, in locked memory.
pub struct NodeKeys {
    channels: Arc<ChannelSecrets>,
    destination: LockedKey,
    destination_script: ScriptBuf,
    shutdown: LockedKey,
    shutdown_script: ScriptBuf,
    replica: ReplicaSecrets,
    guard_records: Locked<32>,
    wallet: Wallet,
}

/// What all channels' keys derive from.
pub(super) struct ChannelSecrets {
    seed: Locked<32>,
    channels: LockedExtended,
    static_payment: LockedExtended,
}

/// What LDK keeps in the replica's memory: none of these spends anything or speaks as the node.
pub struct ReplicaSecrets {
    pub inbound_payment_key: Locked<32>,
    pub peer_storage_key: Locked<32>,
    pub receive_auth_key: Locked<32>,
}

impl NodeKeys {
    pub fn new(seed: Seed, network: Network) -> Result<Self, CustodyError> {
        let master = ExtendedSecret::new(
            Xpriv::new_master(network, seed.as_slice())
                .map_err(|_| CustodyError::Wrong("the seed gives no BIP 32 master key".into()))?,
        );
        let bytes = |index| Locked::copy(&Zeroizing::new(master.hardened(index).secret().expose().secret_bytes()));
        let destination = master.hardened(child::DESTINATION).secret();
        let shutdown = master.hardened(child::SHUTDOWN).secret();
        Ok(Self {
            channels: Arc::new(ChannelSecrets {
                seed: Locked::copy(&seed)?,
                channels: master.hardened(child::CHANNELS).lock()?,
                static_payment: master.hardened(child::STATIC_PAYMENT).lock()?,
            }),
            destination_script: p2wpkh(&destination.public_key()),
            destination: destination.lock()?,
            shutdown_script: p2wpkh(&shutdown.public_key()),
            shutdown: shutdown.lock()?,
            replica: ReplicaSecrets {
                inbound_payment_key: bytes(child::INBOUND_PAYMENT)?,
                peer_storage_key: bytes(child::PEER_STORAGE)?,
                receive_auth_key: bytes(child::RECEIVE_AUTH)?,
            },
            guard_records: bytes(child::GUARD_RECORDS)?,
            wallet: Wallet::new(&master, network)?,
        })
    }

    pub fn replica_secrets(&self) -> &ReplicaSecrets {
        &self.replica
    }

    /// Authenticates the guard's records.
    pub fn guard_records_key(&self) -> Zeroizing<[u8; 32]> {
        Zeroizing::new(*self.guard_records)
    }

    pub fn wallet(&self) -> &Wallet {
        &self.wallet
    }

    /// Where LDK's `KeysManager` has swept closed channels to: known for imported nodes.
    pub fn destination_script(&self) -> ScriptBuf {
        self.destination_script.clone()
    }

    /// Where LDK's `KeysManager` has closed channels to: known for imported nodes.
    pub fn shutdown_script(&self) -> ScriptBuf {
        self.shutdown_script.clone()
    }

    /// Whether a script is the wallet's, or one of the two above.
    pub fn owns(&self, script: &Script) -> bool {
        *script == *self.destination_script || *script == *self.shutdown_script || self.wallet.owns(script)
    }

    /// The key of an output to one of the two scripts above.
    pub(super) fn static_output_key(&self, script: &ScriptBuf) -> Option<Secret> {
        let outputs = [(&self.destination_script, &self.destination), (&self.shutdown_script, &self.shutdown)];
        outputs.into_iter().find_map(|(ours, key)| (ours == script).then(|| key.open()))
    }

    /// The keys of the channel that `channel_keys_id` names, as `KeysManager::derive_channel_keys` makes them.
    pub fn channel(&self, channel_keys_id: &[u8; 32]) -> ChannelKeys {
        ChannelKeys::new(Arc::clone(&self.channels), *channel_keys_id)
    }
}

impl ChannelSecrets {
    /// The secret keys of one channel: a few microseconds, so that none has to be kept.
    pub(super) fn derive(&self, channel_keys_id: &[u8; 32]) -> Box<BaseKeys> {
        // LDK takes the index from the low half of the first eight bytes; the hash below makes the keys unique.
        let index =
            u32::from_be_bytes([channel_keys_id[4], channel_keys_id[5], channel_keys_id[6], channel_keys_id[7]]);
        let child = self.channels.hardened(index % (1 << 31));
        let channel_seed =
            hash(&[channel_keys_id, self.seed.as_slice(), Zeroizing::new(child.expose().secret_bytes()).as_slice()]);
        let commitment_seed = hash(&[channel_seed.as_slice(), b"commitment seed"]);
        let step =
            |previous: &Zeroizing<[u8; 32]>, info: &[u8]| hash(&[channel_seed.as_slice(), previous.as_slice(), info]);

        let funding = step(&commitment_seed, b"funding key");
        let revocation = step(&funding, b"revocation base key");
        let payment_v1 = step(&revocation, b"payment key");
        let delayed_payment = step(&payment_v1, b"delayed payment base key");
        let htlc = step(&delayed_payment, b"HTLC base key");

        let mut index = [0; 8];
        index.copy_from_slice(&commitment_seed[..8]);
        let index = u64::from_le_bytes(index) % u64::from(STATIC_PAYMENT_KEY_COUNT);
        Box::new(BaseKeys {
            funding: key(&funding),
            revocation: key(&revocation),
            // Fits: STATIC_PAYMENT_KEY_COUNT is a u16.
            payment: self.static_payment.hardened(index as u32),
            payment_v1: key(&payment_v1),
            delayed_payment: key(&delayed_payment),
            htlc: key(&htlc),
            commitment_seed,
        })
    }
}

pub(super) fn p2wpkh(key: &PublicKey) -> ScriptBuf {
    ScriptBuf::new_p2wpkh(&bitcoin::CompressedPublicKey(*key).wpubkey_hash())
}

fn hash(parts: &[&[u8]]) -> Zeroizing<[u8; 32]> {
    let mut engine = sha256::Hash::engine();
    for part in parts {
        engine.input(part);
    }
    Zeroizing::new(sha256::Hash::from_engine(engine).to_byte_array())
}

fn key(bytes: &Zeroizing<[u8; 32]>) -> Secret {
    // A SHA-256 is no valid key for one input in 2^127; LDK panics on it as well.
    Secret::new(SecretKey::from_slice(bytes.as_slice()).expect("a hash is a key but for one in 2^127"))
}
