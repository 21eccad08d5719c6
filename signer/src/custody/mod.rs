//! Where keys come from. One file a backend, one trait, one conformance suite for all.
//!
//! A backend gives two things: the node's identity (which may never leave a token) and the seed from which channel and
//! wallet keys derive (which lives in the signer's memory, zeroised, and nowhere else).

pub mod aws;
pub mod backup;
pub mod describe;
pub mod file;
mod files;
pub mod origin;
pub mod pkcs11;
mod sealed;
mod seed_only;

use std::{path::Path, sync::Arc};

use bitcoin::{
    Network,
    hashes::{Hash, sha256},
    secp256k1::{Message, PublicKey, Scalar, Secp256k1, SecretKey, ecdsa::RecoverableSignature},
};
use zeroize::Zeroizing;

pub use self::{
    files::{create_durably as create_private, read_private},
    seed_only::SeedOnly,
};
use crate::{config::CustodyConfig, harden::memory::MemoryError};

/// The channel and wallet seed: 32 bytes, as LDK's `KeysManager` takes it. For the length of a call: what keeps a seed
/// keeps it [`Locked`](crate::harden::memory::Locked).
pub type Seed = Zeroizing<[u8; 32]>;
/// SHA-256 of a compressed shared point (BOLT 4, BOLT 8).
pub type SharedSecret = Zeroizing<[u8; 32]>;

/// Opens the configured custody and checks that it gives `node_id`, the one that `init` recorded.
///
/// Nothing is ever made here: what is missing is an error (P8).
pub fn open(
    config: &CustodyConfig,
    network: Network,
    data_dir: &Path,
    node_id: &PublicKey,
) -> Result<Arc<dyn Custody>, CustodyError> {
    Ok(match config {
        CustodyConfig::File(config) => Arc::new(file::open(config, network, node_id)?),
        CustodyConfig::Pkcs11(config) => Arc::new(pkcs11::Pkcs11Backend::open(config, network, data_dir, node_id)?),
        CustodyConfig::AwsKms(config) => Arc::new(aws::kms::open(config, network, data_dir, node_id)?),
        CustodyConfig::AwsSecretsManager(config) => {
            Arc::new(aws::secrets_manager::open(config, network, data_dir, node_id)?)
        }
    })
}

/// Makes new keys, seals a fresh seed and opens what was made. Refuses when any of it already exists.
pub fn init(config: &CustodyConfig, network: Network, data_dir: &Path) -> Result<Arc<dyn Custody>, CustodyError> {
    let place = match config {
        CustodyConfig::Pkcs11(_) => IdentityPlace::Token,
        _ => IdentityPlace::Sealed,
    };
    init_with_identity(config, network, data_dir, place)
}

/// Where the node key is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum IdentityPlace {
    /// Made in the token, and never outside of it
    Token,
    /// A child of the sealed seed, for backends without a token and for tokens that cannot do ECDH
    Sealed,
}

/// `init` with a choice of where the node key is. What was chosen is part of the sealed seed's header.
pub fn init_with_identity(
    config: &CustodyConfig,
    network: Network,
    data_dir: &Path,
    place: IdentityPlace,
) -> Result<Arc<dyn Custody>, CustodyError> {
    if place == IdentityPlace::Token && !matches!(config, CustodyConfig::Pkcs11(_)) {
        let why = "only backend \"pkcs11\" has a token for the node key: use --identity sealed";
        return Err(CustodyError::Wrong(why.into()));
    }
    Ok(match config {
        CustodyConfig::File(config) => Arc::new(file::init(config, network)?),
        CustodyConfig::Pkcs11(config) => Arc::new(pkcs11::Pkcs11Backend::init(config, network, data_dir, place)?),
        CustodyConfig::AwsKms(config) => Arc::new(aws::kms::init(config, network, data_dir)?),
        CustodyConfig::AwsSecretsManager(config) => Arc::new(aws::secrets_manager::init(config, network, data_dir)?),
    })
}

/// Seals a seed that exists already (of another backend, another program or a backup) and opens what was made. Refuses
/// when anything is there, and where the node key is not a child of the seed.
pub fn import(
    config: &CustodyConfig,
    network: Network,
    data_dir: &Path,
    seed: Seed,
) -> Result<Arc<dyn Custody>, CustodyError> {
    Ok(match config {
        CustodyConfig::File(config) => Arc::new(file::import(config, network, seed)?),
        CustodyConfig::Pkcs11(config) => Arc::new(pkcs11::Pkcs11Backend::import(config, network, data_dir, seed)?),
        CustodyConfig::AwsKms(config) => Arc::new(aws::kms::import(config, network, data_dir, seed)?),
        CustodyConfig::AwsSecretsManager(config) => {
            Arc::new(aws::secrets_manager::import(config, network, data_dir, seed)?)
        }
    })
}

/// Why a backend could not do what it was asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CustodyError {
    /// The part that holds the keys cannot be reached now; it may come back. A token without the configured key is
    /// unavailable too, never empty (P8).
    #[error("unavailable: {0}")]
    Unavailable(String),
    /// What is there is not what was recorded or configured: wrong key, wrong attributes, tampered ciphertext, wrong PIN.
    #[error("{0}")]
    Wrong(String),
}

impl From<MemoryError> for CustodyError {
    fn from(error: MemoryError) -> Self {
        Self::Unavailable(error.to_string())
    }
}

/// The node's identity key, wherever it is. Calls may block for as long as the backend's deadline; they are made from
/// threads that may wait. Implementations verify each signature before they return it, and return it low-S.
pub trait NodeIdentity: Send + Sync {
    fn public_key(&self) -> PublicKey;
    /// ECDSA over a 32-byte digest. The recovery id lets a reader find the public key (BOLT 11, signed messages).
    fn sign(&self, digest: &[u8; 32]) -> Result<RecoverableSignature, CustodyError>;
    /// SHA-256 of the compressed point `node key * point`; `point` is on the curve by its type.
    fn ecdh(&self, point: &PublicKey) -> Result<SharedSecret, CustodyError>;
}

/// One backend, opened.
pub trait Custody: Send + Sync {
    /// `file`, `pkcs11`, `aws-kms` or `aws-secretsmanager`.
    fn backend(&self) -> &'static str;
    fn identity(&self) -> std::sync::Arc<dyn NodeIdentity>;
    /// True when the node key cannot leave its token.
    fn identity_in_token(&self) -> bool;
    /// The seed, unsealed. Called once at start.
    fn unseal(&self) -> Result<Seed, CustodyError>;
    /// Proves that the backend works now: a signature and an ECDH, checked against `public_key`.
    fn self_test(&self) -> Result<(), CustodyError>;
}

/// Signs a fresh digest and does an ECDH with a fresh key, and checks both against the identity's public key.
fn prove_identity(identity: &dyn NodeIdentity) -> Result<(), CustodyError> {
    let secp = Secp256k1::new();
    let node_id = identity.public_key();
    let digest: Zeroizing<[u8; 32]> = random()?;
    let signature = identity.sign(&digest)?;
    let message = Message::from_digest(*digest);
    if secp.recover_ecdsa(&message, &signature) != Ok(node_id) {
        return Err(CustodyError::Wrong(format!("self-test: the signature is not by {node_id}")));
    }
    let ours = loop {
        // All but one in 2^127 of the values are keys.
        if let Ok(key) = SecretKey::from_slice(random::<32>()?.as_slice()) {
            break key;
        }
    };
    // The other side of the same exchange: our fresh key times the node's public key.
    let shared = node_id
        .mul_tweak(&secp, &Scalar::from(ours))
        .map_err(|_| CustodyError::Wrong("self-test: a key of zero".into()))?;
    if *identity.ecdh(&ours.public_key(&secp))? != sha256::Hash::hash(&shared.serialize()).to_byte_array() {
        return Err(CustodyError::Wrong(format!("self-test: the shared secret is not that of {node_id}")));
    }
    Ok(())
}

/// Whether two seeds are one, in a time that does not depend on where they differ.
pub fn same(a: &Seed, b: &Seed) -> bool {
    a.iter().zip(b.iter()).fold(0, |different, (a, b)| different | (a ^ b)) == 0
}

/// Bytes from the kernel's generator.
fn random<const N: usize>() -> Result<Zeroizing<[u8; N]>, CustodyError> {
    let mut bytes = Zeroizing::new([0; N]);
    getrandom::fill(bytes.as_mut_slice())
        .map_err(|e| CustodyError::Unavailable(format!("the kernel's random generator: {e}")))?;
    Ok(bytes)
}
