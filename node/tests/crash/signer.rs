//! Our node's keys in the signer as it is, rules and guard included, called in this process: what a correct node asks for is
//! never refused, whatever the order of crashes.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bitcoin::{
    Network, ScriptBuf,
    secp256k1::{
        PublicKey, Scalar,
        ecdh::SharedSecret,
        ecdsa::{RecoverableSignature, Signature},
        schnorr,
    },
};
use holdfast_proto::identity::{Identity, Role};
use holdfast_signer::{
    custody::{Custody, CustodyError, NodeIdentity, Seed},
    guard::{GuardStore, Name, StoreError, Write},
    keys::SeedIdentity,
    rules::RulesConfig,
    service::SignerCore,
};
use holdfast_signer_client::{
    Destinations, Error, Options, RemoteChannelSigner, RemoteKeys, Transport, for_each_call, v1,
};
use lightning::{
    ln::{inbound_payment::ExpandedKey, msgs::UnsignedGossipMessage, script::ShutdownScript},
    offers::invoice::UnsignedBolt12Invoice,
    sign::{EntropySource, NodeSigner, PeerStorageKey, ReceiveAuthKey, Recipient, SignerProvider},
};
use lightning_invoice::RawBolt11Invoice;

use crate::{node::Keys, rng::Rng};

/// A signer and what it was asked.
pub struct Signer {
    seed: [u8; 32],
    guard: Arc<Records>,
    core: Mutex<Arc<SignerCore>>,
    heard: Arc<Heard>,
}

/// What the signer answered, in all its lives.
#[derive(Default)]
pub struct Heard {
    pub calls: AtomicU64,
    /// Everything that was not done. Each is a fault: of a rule, or of the node.
    pub refusals: Mutex<Vec<String>>,
}

impl Signer {
    pub fn new(seed: [u8; 32]) -> Self {
        let guard = Arc::new(Records::default());
        let core = Mutex::new(start(seed, guard.clone()));
        Self { seed, guard, core, heard: Arc::default() }
    }

    pub fn heard(&self) -> Arc<Heard> {
        self.heard.clone()
    }

    /// The keys of one life of our node, whose term is one more than that of the last. The signer itself starts anew before
    /// every second, with nothing but its records.
    pub fn keys(&self, life: u64) -> Arc<SignerKeys> {
        let mut core = self.core.lock().unwrap();
        if life % 2 == 1 {
            *core = start(self.seed, self.guard.clone());
        }
        let caller = Identity::new("test", Role::Replica, "ours").unwrap();
        let term = life + 1;
        core.announce_term(&caller, v1::AnnounceTermRequest { term }).unwrap();
        let transport = Arc::new(InProcess { core: core.clone(), caller, heard: self.heard.clone() });
        let options = Options { deadline: Duration::from_secs(1), on_fatal: Arc::new(|fatal| panic!("{fatal}")) };
        let remote = RemoteKeys::over(transport, options, term, Destinations::Signer).unwrap();
        let entropy = u64::from_le_bytes(self.seed[..8].try_into().unwrap()) ^ term.rotate_left(32);
        Arc::new(SignerKeys { remote, entropy: Mutex::new(Rng::new(entropy)), last: Mutex::default() })
    }
}

fn start(seed: [u8; 32], guard: Arc<Records>) -> Arc<SignerCore> {
    let identity = Arc::new(SeedIdentity::new(&Seed::from(seed)).unwrap());
    let custody = Arc::new(Known { seed, identity });
    Arc::new(SignerCore::new(custody, Network::Regtest, guard, RulesConfig::default()).unwrap())
}

struct Known {
    seed: [u8; 32],
    identity: Arc<SeedIdentity>,
}

impl Custody for Known {
    fn backend(&self) -> &'static str {
        "test"
    }

    fn identity(&self) -> Arc<dyn NodeIdentity> {
        self.identity.clone()
    }

    fn identity_in_token(&self) -> bool {
        false
    }

    fn unseal(&self) -> Result<Seed, CustodyError> {
        Ok(self.seed.into())
    }

    fn self_test(&self) -> Result<(), CustodyError> {
        Ok(())
    }
}

/// The guard's records, without a disk.
#[derive(Default)]
struct Records(Mutex<BTreeMap<Name, (u64, Vec<u8>)>>);

impl GuardStore for Records {
    fn load(&self) -> Result<Vec<(Name, Vec<u8>)>, StoreError> {
        Ok(self.0.lock().unwrap().iter().map(|(name, (_, record))| (*name, record.clone())).collect())
    }

    fn get(&self, name: &Name) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(self.0.lock().unwrap().get(name).map(|(_, record)| record.clone()))
    }

    fn put(&self, write: Write) -> Result<(), StoreError> {
        let mut records = self.0.lock().unwrap();
        let found = records.get(&write.name).map_or(0, |(version, _)| *version);
        if found != write.previous {
            return Err(StoreError::Conflict { name: write.name, expected: write.previous, found });
        }
        records.insert(write.name, (write.version, write.record));
        Ok(())
    }
}

struct InProcess {
    core: Arc<SignerCore>,
    caller: Identity,
    heard: Arc<Heard>,
}

macro_rules! in_process {
    ($($call:ident($request:ident) -> $response:ident;)*) => {
        impl Transport for InProcess {
            $(fn $call(&self, request: v1::$request) -> Result<v1::$response, Error> {
                self.heard.calls.fetch_add(1, Ordering::Relaxed);
                let answer = self.core.$call(&self.caller, request);
                if let Err(error) = &answer {
                    self.heard.refusals.lock().unwrap().push(format!("{}: {error}", stringify!($call)));
                }
                answer
            })*
        }
    };
}

for_each_call!(in_process);

/// The client's keys, with entropy that a seed repeats.
pub struct SignerKeys {
    remote: RemoteKeys,
    entropy: Mutex<Rng>,
    /// The keys id of the signer that was handed out last.
    last: Mutex<Option<[u8; 32]>>,
}

impl Keys for SignerKeys {
    type Signer = RemoteChannelSigner;

    fn close_signed(&self) -> bool {
        let last = *self.last.lock().unwrap();
        last.is_some_and(|keys_id| self.remote.channel_state(keys_id).unwrap().close_signed)
    }
}

impl EntropySource for SignerKeys {
    fn get_secure_random_bytes(&self) -> [u8; 32] {
        self.entropy.lock().unwrap().bytes()
    }
}

impl SignerProvider for SignerKeys {
    type EcdsaSigner = RemoteChannelSigner;

    fn generate_channel_keys_id(&self, _inbound: bool, _user_channel_id: u128) -> [u8; 32] {
        self.get_secure_random_bytes()
    }

    fn derive_channel_signer(&self, channel_keys_id: [u8; 32]) -> RemoteChannelSigner {
        *self.last.lock().unwrap() = Some(channel_keys_id);
        self.remote.derive_channel_signer(channel_keys_id)
    }

    fn get_destination_script(&self, channel_keys_id: [u8; 32]) -> Result<ScriptBuf, ()> {
        self.remote.get_destination_script(channel_keys_id)
    }

    fn get_shutdown_scriptpubkey(&self) -> Result<ShutdownScript, ()> {
        self.remote.get_shutdown_scriptpubkey()
    }
}

impl NodeSigner for SignerKeys {
    fn get_expanded_key(&self) -> ExpandedKey {
        self.remote.get_expanded_key()
    }

    fn get_peer_storage_key(&self) -> PeerStorageKey {
        self.remote.get_peer_storage_key()
    }

    fn get_receive_auth_key(&self) -> ReceiveAuthKey {
        self.remote.get_receive_auth_key()
    }

    fn get_node_id(&self, recipient: Recipient) -> Result<PublicKey, ()> {
        self.remote.get_node_id(recipient)
    }

    fn ecdh(&self, recipient: Recipient, other_key: &PublicKey, tweak: Option<&Scalar>) -> Result<SharedSecret, ()> {
        self.remote.ecdh(recipient, other_key, tweak)
    }

    fn sign_invoice(&self, invoice: &RawBolt11Invoice, recipient: Recipient) -> Result<RecoverableSignature, ()> {
        self.remote.sign_invoice(invoice, recipient)
    }

    fn sign_bolt12_invoice(&self, invoice: &UnsignedBolt12Invoice) -> Result<schnorr::Signature, ()> {
        self.remote.sign_bolt12_invoice(invoice)
    }

    fn sign_gossip_message(&self, message: UnsignedGossipMessage) -> Result<Signature, ()> {
        self.remote.sign_gossip_message(message)
    }

    fn sign_message(&self, message: &[u8]) -> Result<String, ()> {
        self.remote.sign_message(message)
    }
}
