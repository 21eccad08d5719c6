//! The file that holds a sealed seed: a header that anyone may read and nobody may change, and a ciphertext.
//!
//! The header says which node the seed belongs to and what unseals it. All of it is authenticated with the ciphertext, so
//! that a seed sealed for one network or node is never taken for another's.

use std::{io, path::Path};

use bitcoin::{Network, secp256k1::PublicKey};
use serde::{Deserialize, Serialize};

use super::{CustodyError, aws::KeyArn, files};

const VERSION: u32 = 1;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SealedSeed {
    pub header: Header,
    pub nonce: Vec<u8>,
    /// With the AEAD's tag at its end.
    pub ciphertext: Vec<u8>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    pub network: Network,
    pub node_id: PublicKey,
    pub lock: Lock,
}

/// What unseals the seed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Lock {
    /// XChaCha20-Poly1305 under a key that Argon2id (RFC 9106) makes from a passphrase.
    Passphrase(Argon2id),
    /// A key of a PKCS#11 token.
    Token(TokenKeys),
    /// XChaCha20-Poly1305 under a data key that a key of AWS KMS sealed.
    Kms(DataKey),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Argon2id {
    pub memory_kib: u32,
    pub passes: u32,
    pub lanes: u32,
    pub salt: [u8; 16],
}

/// A data key as KMS gave it. KMS binds it to the network and the node id (its encryption context).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DataKey {
    /// The key that sealed it, and that is asked to open it.
    pub key: KeyArn,
    pub data_key: Vec<u8>,
}

/// The CKA_IDs of the keys that `init` made in the token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TokenKeys {
    /// The node's key pair; none when the node key is a child of the seed.
    pub identity_id: Option<[u8; 16]>,
    pub seal_id: [u8; 16],
    pub cipher: TokenCipher,
}

/// How the token's key seals.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenCipher {
    /// AES-256-GCM, inside the token.
    AesGcm,
    /// XChaCha20-Poly1305 under a key made from an ECDH of the token's key with this point: for tokens without AES-GCM.
    Ecdh { ephemeral: PublicKey },
}

impl SealedSeed {
    /// Writes a new file; one that exists is never replaced.
    pub fn create(&self, path: &Path) -> Result<(), CustodyError> {
        let text = format!("{PREAMBLE}{}", toml::to_string(&Document::from(self)).map_err(|e| fail(path, e))?);
        files::create_durably(path, text.as_bytes()).map_err(|e| match e.kind() {
            io::ErrorKind::AlreadyExists => exists(path),
            _ => CustodyError::Unavailable(format!("sealed seed {}: {e}", path.display())),
        })
    }

    /// Reads the file, whatever it is for.
    pub fn read_any(path: &Path) -> Result<Self, CustodyError> {
        let bytes = files::read_private(path, "sealed seed")?;
        let text = std::str::from_utf8(&bytes).map_err(|e| fail(path, e))?;
        let document: Document = toml::from_str(text).map_err(|e| fail(path, e.message()))?;
        Self::try_from(document).map_err(|e| fail(path, e))
    }

    /// Reads the file and checks that it is for this network and node.
    pub fn read(path: &Path, network: Network, node_id: &PublicKey) -> Result<Self, CustodyError> {
        let sealed = Self::read_any(path)?;
        if sealed.header.network != network {
            return Err(fail(path, format!("is for network {}, not {network}", sealed.header.network)));
        }
        if sealed.header.node_id != *node_id {
            return Err(fail(path, format!("belongs to node {}, not {node_id}", sealed.header.node_id)));
        }
        Ok(sealed)
    }
}

/// Refuses a path where something already is, so that `init` stops before it makes any key.
pub fn refuse_existing(path: &Path) -> Result<(), CustodyError> {
    match path.symlink_metadata() {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(e) => Err(CustodyError::Unavailable(format!("sealed seed {}: {e}", path.display()))),
        Ok(_) => Err(exists(path)),
    }
}

impl Header {
    /// The associated data of the AEAD: every field of the header, each with its length before it.
    pub fn associated_data(&self) -> Vec<u8> {
        let mut data = Vec::new();
        let mut put = |field: &[u8]| {
            data.extend_from_slice(&(field.len() as u32).to_be_bytes());
            data.extend_from_slice(field);
        };
        put(b"holdfast sealed seed");
        put(&VERSION.to_be_bytes());
        put(self.network.to_string().as_bytes());
        put(&self.node_id.serialize());
        match &self.lock {
            Lock::Passphrase(kdf) => {
                put(b"passphrase");
                put(&kdf.memory_kib.to_be_bytes());
                put(&kdf.passes.to_be_bytes());
                put(&kdf.lanes.to_be_bytes());
                put(&kdf.salt);
            }
            Lock::Token(keys) => {
                put(b"token");
                put(keys.identity_id.as_ref().map_or(&[], |id| id.as_slice()));
                put(&keys.seal_id);
                put(keys.cipher.name().as_bytes());
                if let TokenCipher::Ecdh { ephemeral } = keys.cipher {
                    put(&ephemeral.serialize());
                }
            }
            Lock::Kms(kms) => {
                put(b"kms");
                put(kms.key.as_str().as_bytes());
                put(&kms.data_key);
            }
        }
        data
    }
}

const PREAMBLE: &str = "\
# The sealed seed of a Holdfast signer: all channel and wallet keys derive from it. Keep a copy in a second place.
# It is unsealed only by what is named below; each field is authenticated.

";

/// The file as it is written.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    version: u32,
    network: String,
    node_id: String,
    nonce: String,
    ciphertext: String,
    passphrase: Option<PassphraseTable>,
    token: Option<TokenTable>,
    kms: Option<KmsTable>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct PassphraseTable {
    kdf: String,
    cipher: String,
    memory_kib: u32,
    passes: u32,
    lanes: u32,
    salt: String,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct TokenTable {
    cipher: String,
    identity_id: Option<String>,
    seal_id: String,
    ephemeral: Option<String>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct KmsTable {
    cipher: String,
    key: String,
    data_key: String,
}

const KDF: &str = "argon2id";
const XCHACHA: &str = "xchacha20-poly1305";
const AES_GCM: &str = "aes-256-gcm";
const ECDH: &str = "ecdh-secp256k1-xchacha20-poly1305";

impl TokenCipher {
    fn name(&self) -> &'static str {
        match self {
            Self::AesGcm => AES_GCM,
            Self::Ecdh { .. } => ECDH,
        }
    }

    fn parse(name: &str, ephemeral: Option<&str>) -> Result<Self, String> {
        match (name, ephemeral) {
            (AES_GCM, None) => Ok(Self::AesGcm),
            (ECDH, Some(point)) => {
                let ephemeral = point.parse().map_err(|_| format!("ephemeral `{point}` is not a point"))?;
                Ok(Self::Ecdh { ephemeral })
            }
            (AES_GCM, Some(_)) => Err(format!("cipher {AES_GCM} has no field ephemeral")),
            (ECDH, None) => Err(format!("cipher {ECDH} needs the field ephemeral")),
            _ => Err(format!("cipher `{name}` is not known; this program reads {AES_GCM} and {ECDH}")),
        }
    }
}

impl From<&SealedSeed> for Document {
    fn from(sealed: &SealedSeed) -> Self {
        let (passphrase, token, kms) = match &sealed.header.lock {
            Lock::Passphrase(kdf) => {
                let table = PassphraseTable {
                    kdf: KDF.into(),
                    cipher: XCHACHA.into(),
                    memory_kib: kdf.memory_kib,
                    passes: kdf.passes,
                    lanes: kdf.lanes,
                    salt: hex::encode(kdf.salt),
                };
                (Some(table), None, None)
            }
            Lock::Token(keys) => {
                let table = TokenTable {
                    cipher: keys.cipher.name().into(),
                    identity_id: keys.identity_id.map(hex::encode),
                    seal_id: hex::encode(keys.seal_id),
                    ephemeral: match keys.cipher {
                        TokenCipher::AesGcm => None,
                        TokenCipher::Ecdh { ephemeral } => Some(ephemeral.to_string()),
                    },
                };
                (None, Some(table), None)
            }
            Lock::Kms(kms) => {
                let table =
                    KmsTable { cipher: XCHACHA.into(), key: kms.key.to_string(), data_key: hex::encode(&kms.data_key) };
                (None, None, Some(table))
            }
        };
        Self {
            version: VERSION,
            network: sealed.header.network.to_string(),
            node_id: sealed.header.node_id.to_string(),
            nonce: hex::encode(&sealed.nonce),
            ciphertext: hex::encode(&sealed.ciphertext),
            passphrase,
            token,
            kms,
        }
    }
}

impl TryFrom<Document> for SealedSeed {
    type Error = String;

    fn try_from(document: Document) -> Result<Self, String> {
        let Document { version, network, node_id, nonce, ciphertext, passphrase, token, kms } = document;
        if version != VERSION {
            return Err(format!("has version {version}; this program reads {VERSION}"));
        }
        let named = |field: &str, want: &str, got: &str| match got == want {
            true => Ok(()),
            false => Err(format!("{field} `{got}` is not known; this program reads {want}")),
        };
        let lock = match (passphrase, token, kms) {
            (Some(table), None, None) => {
                named("kdf", KDF, &table.kdf)?;
                named("cipher", XCHACHA, &table.cipher)?;
                let PassphraseTable { memory_kib, passes, lanes, .. } = table;
                Lock::Passphrase(Argon2id { memory_kib, passes, lanes, salt: array("salt", &table.salt)? })
            }
            (None, Some(table), None) => Lock::Token(TokenKeys {
                identity_id: table.identity_id.map(|id| array("identity_id", &id)).transpose()?,
                seal_id: array("seal_id", &table.seal_id)?,
                cipher: TokenCipher::parse(&table.cipher, table.ephemeral.as_deref())?,
            }),
            (None, None, Some(table)) => {
                named("cipher", XCHACHA, &table.cipher)?;
                Lock::Kms(DataKey { key: table.key.parse()?, data_key: bytes("data_key", &table.data_key)? })
            }
            _ => return Err("has to have one of the tables passphrase, token and kms".into()),
        };
        let network = network.parse().map_err(|_| format!("network `{network}` is not known"))?;
        let node_id = node_id.parse().map_err(|_| format!("node_id `{node_id}` is not a public key"))?;
        let header = Header { network, node_id, lock };
        Ok(Self { header, nonce: bytes("nonce", &nonce)?, ciphertext: bytes("ciphertext", &ciphertext)? })
    }
}

fn bytes(field: &str, text: &str) -> Result<Vec<u8>, String> {
    hex::decode(text).map_err(|e| format!("{field}: {e}"))
}

fn array<const N: usize>(field: &str, text: &str) -> Result<[u8; N], String> {
    bytes(field, text)?.try_into().map_err(|_| format!("{field} has to have {N} bytes"))
}

fn exists(path: &Path) -> CustodyError {
    CustodyError::Wrong(format!("sealed seed {} already exists, and is never replaced", path.display()))
}

fn fail(path: &Path, why: impl std::fmt::Display) -> CustodyError {
    CustodyError::Wrong(format!("sealed seed {}: {why}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn samples() -> [SealedSeed; 5] {
        let node_id = "0279be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798".parse().unwrap();
        let kdf = Argon2id { memory_kib: 65536, passes: 3, lanes: 4, salt: [7; 16] };
        let keys = TokenKeys { identity_id: Some([1; 16]), seal_id: [2; 16], cipher: TokenCipher::AesGcm };
        let ecdh = TokenKeys { cipher: TokenCipher::Ecdh { ephemeral: node_id }, ..keys };
        let child = TokenKeys { identity_id: None, ..keys };
        let key = "arn:aws:kms:eu-central-1:111122223333:key/1".parse().unwrap();
        let kms = DataKey { key, data_key: vec![5; 96] };
        let [keys, ecdh, child] = [keys, ecdh, child].map(Lock::Token);
        [Lock::Passphrase(kdf), keys, ecdh, child, Lock::Kms(kms)].map(|lock| SealedSeed {
            header: Header { network: Network::Regtest, node_id, lock },
            nonce: vec![3; 12],
            ciphertext: vec![4; 48],
        })
    }

    #[test]
    fn a_sealed_seed_survives_its_file() {
        for sealed in samples() {
            let directory = tempfile::tempdir().unwrap();
            let path = directory.path().join("seed.sealed");
            sealed.create(&path).unwrap();
            let node_id = sealed.header.node_id;
            assert_eq!(SealedSeed::read(&path, Network::Regtest, &node_id), Ok(sealed.clone()));
            assert!(matches!(SealedSeed::read(&path, Network::Bitcoin, &node_id), Err(CustodyError::Wrong(_))));
            let other = "02c6047f9441ed7d6d3045406e95c07cd85c778e4b8cef3ca7abac09b95c709ee5".parse().unwrap();
            assert!(matches!(SealedSeed::read(&path, Network::Regtest, &other), Err(CustodyError::Wrong(_))));
            assert!(matches!(sealed.create(&path), Err(CustodyError::Wrong(_))));
        }
    }

    #[test]
    fn each_field_of_the_header_is_authenticated() {
        for sealed in samples() {
            let header = sealed.header;
            let mut others = vec![Header { network: Network::Bitcoin, ..header.clone() }];
            others.push(Header { node_id: header.node_id.negate(&secp256k1::Secp256k1::new()), ..header.clone() });
            let changed: Vec<Lock> = match header.lock.clone() {
                Lock::Passphrase(kdf) => [
                    Argon2id { memory_kib: 8, ..kdf.clone() },
                    Argon2id { passes: 1, ..kdf.clone() },
                    Argon2id { lanes: 1, ..kdf.clone() },
                    Argon2id { salt: [8; 16], ..kdf },
                ]
                .map(Lock::Passphrase)
                .into(),
                Lock::Token(keys) => {
                    let ephemeral = header.node_id.negate(&secp256k1::Secp256k1::new());
                    [
                        TokenKeys { identity_id: Some([9; 16]), ..keys },
                        TokenKeys { identity_id: keys.identity_id.xor(Some([1; 16])), ..keys },
                        TokenKeys { seal_id: [9; 16], ..keys },
                        TokenKeys { cipher: TokenCipher::Ecdh { ephemeral }, ..keys },
                    ]
                    .map(Lock::Token)
                    .into()
                }
                Lock::Kms(kms) => {
                    let key = kms.key.to_string().replace("eu-central", "eu-west").parse().unwrap();
                    [DataKey { key, ..kms.clone() }, DataKey { data_key: vec![6; 96], ..kms }].map(Lock::Kms).into()
                }
            };
            others.extend(changed.into_iter().map(|lock| Header { lock, ..header.clone() }));
            for other in others {
                assert_ne!(other.associated_data(), header.associated_data());
            }
        }
    }
}
