//! The seed in a file, sealed by a data key that only a key of AWS KMS opens.
//!
//! The seed itself never goes to AWS: KMS makes a data key, which seals the seed here, and hands it out again only to a
//! caller that may `kms:Decrypt` and says which network and node it is for (the encryption context). `init` calls
//! `GenerateDataKey` and `Decrypt`; a start calls `Decrypt`, once; after that KMS is not asked.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
};

use aws_sdk_kms::primitives::Blob;
use bitcoin::{Network, secp256k1::PublicKey};
use chacha20poly1305::{
    Key, XChaCha20Poly1305,
    aead::{Aead, KeyInit, Payload},
};
use zeroize::Zeroizing;

use super::{
    AccountId, KeyArn, KeyName, error,
    session::{self, Session},
};
use crate::{
    config::AwsKmsCustody,
    custody::{
        CustodyError, Seed, SeedOnly, random,
        sealed::{self, DataKey, Header, Lock, SealedSeed},
    },
};

const NAME: &str = "aws-kms";
const SERVICE: &str = "AWS KMS";
/// Of the encryption context. A later one means something else by the same names.
const CONTEXT_VERSION: &str = "1";

/// Opens the sealed seed and checks that it gives the node id that was recorded.
pub fn open(
    config: &AwsKmsCustody,
    network: Network,
    data_dir: &Path,
    node_id: &PublicKey,
) -> Result<SeedOnly, CustodyError> {
    let path = sealed_path(data_dir);
    let sealed = SealedSeed::read(&path, network, node_id)?;
    let Lock::Kms(lock) = &sealed.header.lock else {
        return Err(fail(&path, "is not sealed by a key of AWS KMS"));
    };
    let key = config.key.for_seed_of(&lock.key).ok_or_else(|| {
        let named = config.key.as_str();
        fail(&path, &format!("was sealed by KMS key {}, and the configuration names {named}", lock.key))
    })?;
    let context = encryption_context(network, node_id);
    let data_key = session::run(SERVICE, &config.access(), async |session| {
        session.check_region(&format!("KMS key {key}"), key.region())?;
        decrypt(session, &key, &lock.data_key, context).await
    })?;
    let seed = unseal(&sealed, &data_key, &path)?;
    let backend = SeedOnly::new(NAME, &seed)?;
    match backend.node_id() == *node_id {
        true => Ok(backend),
        false => Err(fail(&path, &format!("gives node id {}, not the recorded {node_id}", backend.node_id()))),
    }
}

/// Makes a fresh seed and seals it. Refuses when the file already exists.
pub fn init(config: &AwsKmsCustody, network: Network, data_dir: &Path) -> Result<SeedOnly, CustodyError> {
    import(config, network, data_dir, random()?)
}

/// Seals a seed that exists already. Refuses when the file already exists.
///
/// Nothing is written before KMS has shown that it opens again what it sealed.
pub fn import(config: &AwsKmsCustody, network: Network, data_dir: &Path, seed: Seed) -> Result<SeedOnly, CustodyError> {
    let path = sealed_path(data_dir);
    sealed::refuse_existing(&path)?;
    let account = config.account().map_err(CustodyError::Wrong)?;
    let backend = SeedOnly::new(NAME, &seed)?;
    let context = encryption_context(network, &backend.node_id());
    let (lock, data_key) = session::run(SERVICE, &config.access(), async |session| {
        if let KeyName::Arn(arn) = &config.key {
            session.check_region(&format!("KMS key {arn}"), arn.region())?;
        }
        let (lock, data_key) = generate(session, &config.key, &account, context.clone()).await?;
        match *decrypt(session, &lock.key, &lock.data_key, context).await? == *data_key {
            true => Ok((lock, data_key)),
            false => Err(CustodyError::Wrong(format!("KMS key {} does not give back what it sealed", lock.key))),
        }
    })?;
    let header = Header { network, node_id: backend.node_id(), lock: Lock::Kms(lock) };
    let nonce: Zeroizing<[u8; 24]> = random()?;
    let ciphertext = XChaCha20Poly1305::new(Key::from_slice(data_key.as_slice()))
        .encrypt(&(*nonce).into(), Payload { msg: seed.as_slice(), aad: &header.associated_data() })
        .map_err(|_| CustodyError::Wrong("the seed could not be encrypted".into()))?;
    SealedSeed { header, nonce: nonce.to_vec(), ciphertext }.create(&path)?;
    Ok(backend)
}

fn sealed_path(data_dir: &Path) -> PathBuf {
    data_dir.join("seed.sealed")
}

/// What KMS binds the data key to, and shows in its audit log: a key policy may ask for each of it.
fn encryption_context(network: Network, node_id: &PublicKey) -> HashMap<String, String> {
    let pairs =
        [("network", network.to_string()), ("node-id", node_id.to_string()), ("version", CONTEXT_VERSION.to_owned())];
    pairs.map(|(name, value)| (name.to_owned(), value)).into()
}

/// A new data key: as KMS sealed it, and open. By a key of `account`, or not at all.
async fn generate(
    session: &Session,
    key: &KeyName,
    account: &AccountId,
    context: HashMap<String, String>,
) -> Result<(DataKey, Zeroizing<[u8; 32]>), CustodyError> {
    let request = session.kms().generate_data_key().key_id(key.as_str()).number_of_bytes(32);
    let mut made = request
        .set_encryption_context(Some(context))
        .send()
        .await
        .map_err(|e| error::kms("GenerateDataKey", key.as_str(), e))?;
    let open = data_key(key.as_str(), made.plaintext.take())?;
    let answer = |what: &str| CustodyError::Wrong(format!("KMS key {} was answered for without {what}", key.as_str()));
    let arn = made.key_id.take().ok_or_else(|| answer("its ARN"))?;
    account.check(&arn)?;
    let sealed = made.ciphertext_blob.take().ok_or_else(|| answer("a sealed data key"))?.into_inner();
    // Whatever the configuration calls it, this is the one key that is asked from now on.
    let key: KeyArn = arn.parse().map_err(CustodyError::Wrong)?;
    Ok((DataKey { key, data_key: sealed }, open))
}

async fn decrypt(
    session: &Session,
    key: &KeyArn,
    sealed: &[u8],
    context: HashMap<String, String>,
) -> Result<Zeroizing<[u8; 32]>, CustodyError> {
    let request = session.kms().decrypt().key_id(key.as_str()).ciphertext_blob(Blob::new(sealed));
    let mut opened = request
        .set_encryption_context(Some(context))
        .send()
        .await
        .map_err(|e| error::kms("Decrypt", key.as_str(), e))?;
    let data_key = data_key(key.as_str(), opened.plaintext.take())?;
    match opened.key_id.as_deref() == Some(key.as_str()) {
        true => Ok(data_key),
        false => {
            let other = opened.key_id.as_deref().unwrap_or("one without a name");
            Err(CustodyError::Wrong(format!("KMS key {key} was asked for, and {other} answered")))
        }
    }
}

/// Moves a key out of the SDK's answer, whose copy is overwritten.
fn data_key(key: &str, plaintext: Option<Blob>) -> Result<Zeroizing<[u8; 32]>, CustodyError> {
    let bytes = Zeroizing::new(plaintext.map(Blob::into_inner).unwrap_or_default());
    let mut data_key = Zeroizing::new([0; 32]);
    match bytes.len() == data_key.len() {
        true => data_key.copy_from_slice(&bytes),
        false => return Err(CustodyError::Wrong(format!("KMS key {key} gave a data key that has not 32 bytes"))),
    }
    Ok(data_key)
}

fn unseal(sealed: &SealedSeed, data_key: &[u8; 32], path: &Path) -> Result<Seed, CustodyError> {
    let nonce: [u8; 24] = sealed.nonce.as_slice().try_into().map_err(|_| fail(path, "has no nonce of 24 bytes"))?;
    let aad = sealed.header.associated_data();
    let opened = XChaCha20Poly1305::new(Key::from_slice(data_key))
        .decrypt(&nonce.into(), Payload { msg: &sealed.ciphertext, aad: &aad })
        .map(Zeroizing::new)
        .map_err(|_| fail(path, "does not open: the file was changed"))?;
    let mut seed = Seed::default();
    match opened.len() == seed.len() {
        true => seed.copy_from_slice(&opened),
        false => return Err(fail(path, "does not hold a seed of 32 bytes")),
    }
    Ok(seed)
}

fn fail(path: &Path, why: &str) -> CustodyError {
    CustodyError::Wrong(format!("sealed seed {} {why}", path.display()))
}
