//! The seed as a secret of AWS Secrets Manager, read once at start.
//!
//! Which version gave the keys is recorded in the data directory. Another version is used only when it gives the same node,
//! and is then recorded; nothing here ever rotates a seed, since that would be another node.

use std::path::Path;

use aws_sdk_secretsmanager::{error::ProvideErrorMetadata, primitives::Blob};
use bitcoin::{Network, secp256k1::PublicKey};
use serde::Deserialize;
use tracing::{info, instrument::WithSubscriber, subscriber::NoSubscriber};
use zeroize::Zeroizing;

use super::{
    AccountId, error,
    pin::{self, Pin},
    session::{self, Session},
    value::Value,
};
use crate::{
    config::AwsSecretsManagerCustody,
    custody::{CustodyError, Seed, SeedOnly, random},
};

const NAME: &str = "aws-secretsmanager";
const SERVICE: &str = "AWS Secrets Manager";
/// What a person sees beside the secret.
const DESCRIPTION: &str =
    "Seed of a Holdfast Lightning signer. Never rotate or delete it: its channels and funds hang on it.";

/// A secret by name or ARN.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct SecretName(String);

/// Reads the secret and checks that it gives the node id that was recorded.
pub fn open(
    config: &AwsSecretsManagerCustody,
    network: Network,
    data_dir: &Path,
    node_id: &PublicKey,
) -> Result<SeedOnly, CustodyError> {
    let pinned = Pin::read(data_dir, network, node_id)?;
    let secret = session::run(SERVICE, &config.access(), async |session| {
        config.secret.check_region(session)?;
        read(session, &config.secret, None).await
    })?;
    let backend = secret.backend_of(network, node_id).map_err(|why| refused(&secret.pin, pinned.as_ref(), &why))?;
    if pinned.as_ref() != Some(&secret.pin) {
        secret.pin.write(data_dir, network, node_id)?;
        let Pin { secret_arn, version_id } = &secret.pin;
        let before = pinned.as_ref().map(|pin| pin.version_id.as_str());
        info!(secret_arn, version_id, before, "this version of the secret is pinned from now on");
    }
    Ok(backend)
}

/// Makes a fresh seed and writes it to a secret that does not exist, or that holds nothing yet. Refuses any other.
pub fn init(config: &AwsSecretsManagerCustody, network: Network, data_dir: &Path) -> Result<SeedOnly, CustodyError> {
    place(config, network, data_dir, random()?, Found::Refused)
}

/// Writes a seed that exists already, likewise. A secret that holds this very seed is taken as it is.
pub fn import(
    config: &AwsSecretsManagerCustody,
    network: Network,
    data_dir: &Path,
    seed: Seed,
) -> Result<SeedOnly, CustodyError> {
    place(config, network, data_dir, seed, Found::Compared)
}

/// What becomes of a secret that holds something already. Neither writes to it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Found {
    Refused,
    Compared,
}

fn place(
    config: &AwsSecretsManagerCustody,
    network: Network,
    data_dir: &Path,
    seed: Seed,
    found: Found,
) -> Result<SeedOnly, CustodyError> {
    let pin = pin::path(data_dir);
    if pin.symlink_metadata().is_ok() {
        let why = format!("pinned version {} already exists; init never replaces one", pin.display());
        return Err(CustodyError::Wrong(why));
    }
    let account = config.account().map_err(CustodyError::Wrong)?;
    let backend = SeedOnly::new(NAME, &seed)?;
    let node_id = backend.node_id();
    let document = Value::document(network, &node_id, &seed);
    let secret = session::run(SERVICE, &config.access(), async |session| {
        config.secret.check_region(session)?;
        let written = write(session, config, &account, &document, found).await?;
        let read = read(session, &config.secret, written.as_deref()).await;
        read.map_err(|error| if written.is_some() { not_read_back(error) } else { error })
    })?;
    secret.backend_of(network, &node_id).map_err(|why| refused(&secret.pin, None, &why))?;
    secret.pin.write(data_dir, network, &node_id)?;
    Ok(backend)
}

/// A version of the secret, as it was read.
struct Secret {
    pin: Pin,
    value: Result<Value, String>,
}

impl Secret {
    /// The keys of `node_id`, or why this version does not give them.
    fn backend_of(&self, network: Network, node_id: &PublicKey) -> Result<SeedOnly, CustodyError> {
        let wrong = |why: String| Err(CustodyError::Wrong(why));
        let value = match &self.value {
            Ok(value) => value,
            Err(why) => return wrong(why.clone()),
        };
        if let Some(other) = value.network.filter(|other| *other != network) {
            return wrong(format!("is for network {other}, not {network}"));
        }
        if let Some(other) = value.node_id.filter(|other| other != node_id) {
            return wrong(format!("belongs to node {other}, not {node_id}"));
        }
        let backend = SeedOnly::new(NAME, &value.seed)?;
        match backend.node_id() == *node_id {
            true => Ok(backend),
            false => wrong(format!("gives node id {}, not {node_id}", backend.node_id())),
        }
    }
}

/// `version` by its id, or the current one.
async fn read(session: &Session, secret: &SecretName, version: Option<&str>) -> Result<Secret, CustodyError> {
    let request = session.secrets_manager().get_secret_value().secret_id(&secret.0);
    let mut got = request
        .set_version_id(version.map(str::to_owned))
        .send()
        .await
        .map_err(|e| error::secrets_manager("GetSecretValue", &secret.0, e))?;
    // Moved out of the SDK's answer, so that its copy is overwritten.
    let text = got.secret_string.take().map(Zeroizing::new);
    let bytes = got.secret_binary.take().map(|blob| Zeroizing::new(Blob::into_inner(blob)));
    let answer = |what: &str| CustodyError::Wrong(format!("secret {} was answered for without {what}", secret.0));
    let secret_arn = got.arn.take().ok_or_else(|| answer("its ARN"))?;
    let version_id = got.version_id.take().ok_or_else(|| answer("its version"))?;
    let value = match (text, bytes) {
        (Some(text), _) => Value::from_text(&text),
        (None, Some(bytes)) => Value::from_bytes(&bytes),
        (None, None) => return Err(answer("a value")),
    };
    Ok(Secret { pin: Pin { secret_arn, version_id }, value })
}

/// Writes the first value of the secret, and gives its version id; none when it has one that shall be compared.
///
/// The value leaves only when AWS has said that the secret is one of `account`: so a new one is made without it.
async fn write(
    session: &Session,
    config: &AwsSecretsManagerCustody,
    account: &AccountId,
    document: &str,
    found: Found,
) -> Result<Option<String>, CustodyError> {
    let (client, name) = (session.secrets_manager(), config.secret.0.as_str());
    let described = match client.describe_secret().secret_id(name).send().await {
        Ok(described) => described,
        Err(e) if e.code() == Some("ResourceNotFoundException") && config.secret.region().is_none() => {
            let request = client.create_secret().name(name).description(DESCRIPTION);
            let request = request.set_kms_key_id(config.kms_key.as_ref().map(|key| key.as_str().to_owned()));
            let made = request.send().await.map_err(|e| error::secrets_manager("CreateSecret", name, e))?;
            return put(session, name, account, made.arn, document).await.map(Some);
        }
        Err(e) => return Err(error::secrets_manager("DescribeSecret", name, e)),
    };
    account.check(described.arn.as_deref().unwrap_or_default())?;
    if described.deleted_date.is_some() {
        return Err(CustodyError::Unavailable(format!(
            "secret {name} is marked for deletion: restore it (aws secretsmanager restore-secret --secret-id {name}), \
             or choose another name"
        )));
    }
    // Who manages the account may have made it, and left the value to us.
    match (described.version_ids_to_stages.is_none_or(|versions| versions.is_empty()), found) {
        (false, Found::Compared) => Ok(None),
        (false, Found::Refused) => {
            Err(CustodyError::Wrong(format!("secret {name} already holds a value; init never replaces one")))
        }
        (true, _) => put(session, name, account, described.arn, document).await.map(Some),
    }
}

/// Gives `document` to the secret that AWS named by `arn`, if it is one of `account`.
async fn put(
    session: &Session,
    name: &str,
    account: &AccountId,
    arn: Option<String>,
    document: &str,
) -> Result<String, CustodyError> {
    let arn = arn.unwrap_or_default();
    account.check(&arn)?;
    let request = session.secrets_manager().put_secret_value().secret_id(arn).secret_string(document);
    // The SDK's own trace shows the bodies of requests.
    let put = request.send().with_subscriber(NoSubscriber::new()).await;
    let put = put.map_err(|e| error::secrets_manager("PutSecretValue", name, e))?;
    put.version_id
        .ok_or_else(|| CustodyError::Wrong(format!("secret {name} was written and answered for without its version")))
}

fn refused(read: &Pin, pinned: Option<&Pin>, why: &CustodyError) -> CustodyError {
    let CustodyError::Wrong(why) = why else { return why.clone() };
    let Pin { secret_arn, version_id } = read;
    let back = match pinned {
        Some(pin) if pin.secret_arn == *secret_arn && pin.version_id != *version_id => format!(
            "; version {pinned} is the one in use: make it current again (aws secretsmanager \
             update-secret-version-stage --secret-id {secret_arn} --version-stage AWSCURRENT \
             --move-to-version-id {pinned} --remove-from-version-id {version_id})",
            pinned = pin.version_id
        ),
        Some(pin) if pin.secret_arn != *secret_arn => format!("; the secret in use was {}", pin.secret_arn),
        _ => String::new(),
    };
    CustodyError::Wrong(format!("secret {secret_arn}, version {version_id}: {why}{back}"))
}

fn not_read_back(error: CustodyError) -> CustodyError {
    let and = "; the secret was written and could not be read back: give the role what it lacks, remove the secret \
               and start over";
    match error {
        CustodyError::Unavailable(why) => CustodyError::Unavailable(why + and),
        CustodyError::Wrong(why) => CustodyError::Wrong(why + and),
    }
}

impl SecretName {
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// An ARN's region; none of a name.
    fn region(&self) -> Option<&str> {
        self.0.strip_prefix("arn:").and_then(|rest| rest.split(':').nth(2))
    }

    fn check_region(&self, session: &Session) -> Result<(), CustodyError> {
        match self.region() {
            Some(region) => session.check_region(&format!("secret {}", self.0), region),
            None => Ok(()),
        }
    }
}

impl TryFrom<String> for SecretName {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let name = match text.splitn(7, ':').collect::<Vec<_>>()[..] {
            ["arn", _, "secretsmanager", region, account, "secret", name]
                if !region.is_empty() && !account.is_empty() =>
            {
                name
            }
            [name] => name,
            _ => "",
        };
        // What Secrets Manager allows, and no more: the name is shown in errors.
        let allowed = |b: u8| b.is_ascii_alphanumeric() || b"/_+=.@-!".contains(&b);
        match !name.is_empty() && name.len() <= 512 && name.bytes().all(allowed) {
            true => Ok(Self(text)),
            false => Err(format!("`{text}` is neither the name nor the ARN of a secret")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_have_a_name_or_an_arn() {
        let arn = "arn:aws:secretsmanager:eu-central-1:111122223333:secret:holdfast/mainnet/seed-a1b2c3";
        assert_eq!(SecretName::try_from(arn.to_owned()).unwrap().region(), Some("eu-central-1"));
        assert_eq!(SecretName::try_from("holdfast/mainnet/seed".to_owned()).unwrap().region(), None);
        for wrong in ["", "two words", "arn:aws:secretsmanager", "arn:aws:kms:r:1:key/1", "a:b", "line\nbreak"] {
            assert!(SecretName::try_from(wrong.to_owned()).is_err(), "{wrong}");
        }
    }
}
