//! What is configured and what lies on the disk, without asking any backend for anything.

use std::{
    io,
    path::{Path, PathBuf},
};

use serde::Serialize;

use super::{
    aws::pin::Pin,
    sealed::{Lock, SealedSeed, TokenCipher},
};
use crate::config::CustodyConfig;

/// A name and a value, to be shown. None is a secret.
pub type Fact = (&'static str, String);

/// One backend as it is configured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backend {
    pub name: &'static str,
    pub facts: Vec<Fact>,
    /// The file with the sealed seed, where there is one.
    pub sealed: Option<PathBuf>,
    /// What holds the seed, or opens it: what is to be removed once the seed has moved elsewhere.
    pub holds: Vec<String>,
}

/// The sealed seed as it lies there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sealed {
    Absent,
    Unreadable(String),
    Present(Header),
}

/// What the sealed seed says of itself; only opening it proves that.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Header {
    pub network: String,
    pub node_id: String,
    /// True when the node key is in the token.
    pub identity_in_token: bool,
    pub lock: &'static str,
    #[serde(skip)]
    pub facts: Vec<Fact>,
}

pub fn backend(config: &CustodyConfig, data_dir: &Path) -> Backend {
    let in_data_dir = data_dir.join("seed.sealed");
    let mut facts = vec![];
    let mut say = |name, value: &dyn ToString| facts.push((name, value.to_string()));
    let (name, sealed, mut holds) = match config {
        CustodyConfig::File(file) => {
            say("passphrase file", &file.passphrase_file.display());
            let passphrase = format!("its passphrase, which {} holds", file.passphrase_file.display());
            ("file", Some(file.path.clone()), vec![passphrase])
        }
        CustodyConfig::Pkcs11(token) => {
            say("module", &token.module.display());
            say("token", &token.token);
            say("PIN file", &token.pin_file.display());
            say("label", &token.label);
            let key = format!("key {}-seal of token {}", token.label, token.token);
            ("pkcs11", Some(in_data_dir), vec![key])
        }
        CustodyConfig::AwsKms(kms) => {
            say("key", &kms.key.as_str());
            [("region", &kms.region), ("profile", &kms.profile), ("endpoint", &kms.endpoint)]
                .into_iter()
                .filter_map(|(name, value)| Some((name, value.as_ref()?)))
                .for_each(|(name, value)| say(name, value));
            let key = format!("KMS key {}, if nothing else is sealed by it", kms.key.as_str());
            ("aws-kms", Some(in_data_dir), vec![key])
        }
        CustodyConfig::AwsSecretsManager(secrets) => {
            say("secret", &secrets.secret.as_str());
            [("region", &secrets.region), ("profile", &secrets.profile), ("endpoint", &secrets.endpoint)]
                .into_iter()
                .filter_map(|(name, value)| Some((name, value.as_ref()?)))
                .for_each(|(name, value)| say(name, value));
            match Pin::show(data_dir) {
                Ok(Some(Pin { secret_arn, version_id })) => {
                    say("pinned secret", &secret_arn);
                    say("pinned version", &version_id);
                }
                Ok(None) => say("pinned version", &"none: it was not read yet"),
                Err(error) => say("pinned version", &format!("UNREADABLE: {error}")),
            }
            ("aws-secretsmanager", None, vec![format!("secret {}, all its versions", secrets.secret.as_str())])
        }
    };
    if let Some(sealed) = &sealed {
        holds.insert(0, sealed.display().to_string());
    }
    Backend { name, facts, sealed, holds }
}

pub fn sealed(path: &Path) -> Sealed {
    match path.symlink_metadata() {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Sealed::Absent,
        Err(e) => return Sealed::Unreadable(e.to_string()),
        Ok(_) => {}
    }
    let header = match SealedSeed::read_any(path) {
        Ok(sealed) => sealed.header,
        Err(error) => return Sealed::Unreadable(error.to_string()),
    };
    let mut facts = vec![];
    let mut say = |name, value: String| facts.push((name, value));
    let (lock, identity_in_token) = match &header.lock {
        Lock::Passphrase(kdf) => {
            say(
                "key derivation",
                format!("argon2id, {} KiB, {} passes, {} lanes", kdf.memory_kib, kdf.passes, kdf.lanes),
            );
            ("passphrase", false)
        }
        Lock::Token(keys) => {
            if let Some(id) = keys.identity_id {
                say("identity key id", hex::encode(id));
            }
            say("sealing key id", hex::encode(keys.seal_id));
            let cipher = match keys.cipher {
                TokenCipher::AesGcm => "AES-256-GCM in the token",
                TokenCipher::Ecdh { .. } => "ECDH in the token",
            };
            say("sealed by", cipher.into());
            ("token", keys.identity_id.is_some())
        }
        Lock::Kms(kms) => {
            say("sealing key", kms.key.to_string());
            ("kms", false)
        }
    };
    let (network, node_id) = (header.network.to_string(), header.node_id.to_string());
    Sealed::Present(Header { network, node_id, identity_in_token, lock, facts })
}
