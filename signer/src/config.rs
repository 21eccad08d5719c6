//! The signer's configuration: one TOML file, parsed whole before anything starts. Unknown keys are errors.

use std::{
    fs, io,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use bitcoin::Network;
use holdfast_proto::telemetry::TelemetryConfig;
use serde::{Deserialize, Deserializer, de::Error as _};

use crate::{
    custody::{
        aws::{AccountId, AwsAccess, KeyName, SecretName},
        pkcs11::TokenUri,
    },
    harden::confine::ConfinementConfig,
    rules::RulesConfig,
};

/// Every key with its meaning, as `holdfast-signer config` prints it.
pub const COMMENTED_DEFAULT: &str = include_str!("config.toml");

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SignerConfig {
    #[serde(deserialize_with = "network")]
    pub network: Network,
    /// The guard store, the recorded node id and, with a token, the sealed seed.
    pub data_dir: PathBuf,
    /// gRPC over mutual TLS.
    pub listen: SocketAddr,
    /// `/livez`, `/readyz` and `/metrics`, in the clear.
    pub health_listen: Option<SocketAddr>,
    /// By which names `/metrics` is asked for, besides addresses and `localhost`.
    #[serde(default)]
    pub health_names: Vec<String>,
    pub tls: TlsConfig,
    pub custody: CustodyConfig,
    #[serde(default)]
    pub rules: RulesConfig,
    #[serde(default)]
    pub telemetry: TelemetryConfig,
    /// What the running process may do beyond what it needs anyway.
    #[serde(default)]
    pub confinement: ConfinementConfig,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TlsConfig {
    pub certificate: PathBuf,
    pub key: PathBuf,
    pub ca: PathBuf,
}

/// The one backend that is used.
#[derive(Clone, Debug, Deserialize)]
#[serde(try_from = "CustodyTable")]
pub enum CustodyConfig {
    File(FileCustody),
    Pkcs11(Pkcs11Custody),
    AwsKms(AwsKmsCustody),
    AwsSecretsManager(AwsSecretsManagerCustody),
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileCustody {
    pub path: PathBuf,
    pub passphrase_file: PathBuf,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pkcs11Custody {
    /// The PKCS#11 library.
    pub module: PathBuf,
    pub token: TokenUri,
    pub pin_file: PathBuf,
    /// The objects are labelled `<label>-identity` and `<label>-seal`.
    #[serde(default = "default_label")]
    pub label: String,
    /// Sessions, and so calls in flight; the token's own limit applies as well.
    #[serde(default = "default_sessions")]
    pub sessions: u8,
    /// How long a caller waits for the token.
    #[serde(rename = "timeout_ms", default = "default_timeout", deserialize_with = "milliseconds")]
    pub timeout: Duration,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AwsKmsCustody {
    /// The key that seals the seed. An alias counts for `init` alone: afterwards it is the key that sealed.
    pub key: KeyName,
    /// Whose key it is. What makes keys demands to know it, from here or from the key's ARN.
    pub account: Option<AccountId>,
    pub region: Option<String>,
    pub profile: Option<String>,
    pub endpoint: Option<String>,
    /// How long a start waits for AWS, retries included.
    #[serde(rename = "timeout_ms", default = "default_aws_timeout", deserialize_with = "milliseconds")]
    pub timeout: Duration,
}

impl AwsKmsCustody {
    pub fn access(&self) -> AwsAccess {
        let Self { region, profile, endpoint, timeout, .. } = self.clone();
        AwsAccess { region, profile, endpoint, timeout }
    }

    /// The account whose key may seal a seed; else what to write.
    pub fn account(&self) -> Result<AccountId, String> {
        AccountId::of(self.key.as_str(), self.account.as_ref())
    }
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AwsSecretsManagerCustody {
    pub secret: SecretName,
    /// Whose secret it is. What writes one demands to know it, from here or from the secret's ARN.
    pub account: Option<AccountId>,
    /// The key that encrypts a secret that `init` makes; none is the account's own for Secrets Manager.
    pub kms_key: Option<KeyName>,
    pub region: Option<String>,
    pub profile: Option<String>,
    pub endpoint: Option<String>,
    /// How long a start waits for AWS, retries included.
    #[serde(rename = "timeout_ms", default = "default_aws_timeout", deserialize_with = "milliseconds")]
    pub timeout: Duration,
}

impl AwsSecretsManagerCustody {
    pub fn access(&self) -> AwsAccess {
        let Self { region, profile, endpoint, timeout, .. } = self.clone();
        AwsAccess { region, profile, endpoint, timeout }
    }

    /// The account that may be given a seed; else what to write.
    pub fn account(&self) -> Result<AccountId, String> {
        AccountId::of(self.secret.as_str(), self.account.as_ref())
    }
}

impl CustodyConfig {
    /// Whether keys may be made with it: in AWS it has to say in which account.
    pub fn check_for_making(&self) -> Result<(), String> {
        let (name, account) = match self {
            Self::File(_) | Self::Pkcs11(_) => return Ok(()),
            Self::AwsKms(kms) => ("aws-kms", kms.account()),
            Self::AwsSecretsManager(secret) => ("aws-secretsmanager", secret.account()),
        };
        account.map(drop).map_err(|why| format!("[custody.{name}] {why}"))
    }
}

#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("configuration {path}: {error}")]
    Read { path: PathBuf, error: io::Error },
    #[error("configuration {path}: {why}")]
    Parse { path: PathBuf, why: String },
}

impl SignerConfig {
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let text = fs::read_to_string(path).map_err(|error| ConfigError::Read { path: path.to_owned(), error })?;
        let directory = path.parent().unwrap_or(Path::new(""));
        Self::parse(&text, directory).map_err(|why| ConfigError::Parse { path: path.to_owned(), why })
    }

    /// Relative paths are resolved against `directory`, that of the configuration file.
    pub fn parse(text: &str, directory: &Path) -> Result<Self, String> {
        let mut config: Self = toml::from_str(text).map_err(|e| e.to_string().trim_end().to_owned())?;
        config.rules.check_network(config.network)?;
        config.paths_mut().into_iter().for_each(|path| *path = directory.join(&*path));
        Ok(config)
    }

    fn paths_mut(&mut self) -> Vec<&mut PathBuf> {
        let mut paths = vec![&mut self.data_dir, &mut self.tls.certificate, &mut self.tls.key, &mut self.tls.ca];
        match &mut self.custody {
            CustodyConfig::File(file) => paths.extend([&mut file.path, &mut file.passphrase_file]),
            CustodyConfig::Pkcs11(token) => {
                paths.push(&mut token.pin_file);
                // A bare library name is left to the dynamic linker.
                if token.module.components().count() > 1 {
                    paths.push(&mut token.module);
                }
            }
            CustodyConfig::AwsKms(_) | CustodyConfig::AwsSecretsManager(_) => {}
        }
        paths.extend(self.confinement.read_paths.iter_mut().chain(&mut self.confinement.write_paths));
        paths
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
enum BackendName {
    #[serde(rename = "file")]
    File,
    #[serde(rename = "pkcs11")]
    Pkcs11,
    #[serde(rename = "aws-kms")]
    AwsKms,
    #[serde(rename = "aws-secretsmanager")]
    AwsSecretsManager,
}

impl BackendName {
    fn as_str(self) -> &'static str {
        match self {
            Self::File => "file",
            Self::Pkcs11 => "pkcs11",
            Self::AwsKms => "aws-kms",
            Self::AwsSecretsManager => "aws-secretsmanager",
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CustodyTable {
    backend: BackendName,
    file: Option<FileCustody>,
    pkcs11: Option<Pkcs11Custody>,
    #[serde(rename = "aws-kms")]
    aws_kms: Option<AwsKmsCustody>,
    #[serde(rename = "aws-secretsmanager")]
    aws_secretsmanager: Option<AwsSecretsManagerCustody>,
}

impl TryFrom<CustodyTable> for CustodyConfig {
    type Error = String;

    fn try_from(table: CustodyTable) -> Result<Self, Self::Error> {
        let CustodyTable { backend, file, pkcs11, aws_kms, aws_secretsmanager } = table;
        let given = [
            (BackendName::File, file.is_some()),
            (BackendName::Pkcs11, pkcs11.is_some()),
            (BackendName::AwsKms, aws_kms.is_some()),
            (BackendName::AwsSecretsManager, aws_secretsmanager.is_some()),
        ];
        let name = backend.as_str();
        if let Some((idle, _)) = given.into_iter().find(|(table, given)| *given && *table != backend) {
            let idle = idle.as_str();
            return Err(format!("[custody.{idle}] does nothing with backend \"{name}\": remove it"));
        }
        let config = match backend {
            BackendName::File => file.map(Self::File),
            BackendName::Pkcs11 => pkcs11.map(Self::Pkcs11),
            BackendName::AwsKms => aws_kms.map(Self::AwsKms),
            BackendName::AwsSecretsManager => aws_secretsmanager.map(Self::AwsSecretsManager),
        };
        config.ok_or_else(|| format!("backend \"{name}\" needs the table [custody.{name}]"))
    }
}

fn network<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Network, D::Error> {
    let name = String::deserialize(deserializer)?;
    match name.parse() {
        Ok(network @ (Network::Bitcoin | Network::Testnet4 | Network::Signet | Network::Regtest)) => Ok(network),
        _ => Err(D::Error::custom(format!("network `{name}` is not one of bitcoin, testnet4, signet, regtest"))),
    }
}

fn milliseconds<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    match u32::deserialize(deserializer)? {
        0 => Err(D::Error::custom("a time of 0 ms would end every call before it begins")),
        ms => Ok(Duration::from_millis(ms.into())),
    }
}

fn default_label() -> String {
    "holdfast".into()
}

fn default_sessions() -> u8 {
    4
}

fn default_timeout() -> Duration {
    Duration::from_secs(5)
}

fn default_aws_timeout() -> Duration {
    Duration::from_secs(30)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<SignerConfig, String> {
        SignerConfig::parse(text, Path::new("/etc/holdfast"))
    }

    /// The default with every commented key in force: a line `#key = value` or `#[table]`, no space after the sign.
    fn with_all_keys() -> String {
        let uncomment = |line: &'static str| match line.strip_prefix('#') {
            Some(rest) if rest.starts_with(|c: char| c.is_ascii_lowercase() || c == '[') => rest,
            _ => line,
        };
        COMMENTED_DEFAULT.lines().map(uncomment).collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn the_printed_default_parses() {
        let config = parse(COMMENTED_DEFAULT).unwrap();
        assert_eq!(config.network, Network::Bitcoin);
        let CustodyConfig::Pkcs11(token) = config.custody else { panic!("the default is a token") };
        assert_eq!((token.sessions, token.timeout), (default_sessions(), default_timeout()));
        assert_eq!(token.label, default_label());
    }

    #[test]
    fn every_commented_key_of_the_default_is_known() {
        let all = with_all_keys();
        assert_ne!(all, COMMENTED_DEFAULT);
        // Every backend is shown, and only one may be configured.
        let backends = ["pkcs11", "file", "aws-kms", "aws-secretsmanager"];
        for backend in backends {
            let mut text = all.replace("backend = \"pkcs11\"", &format!("backend = \"{backend}\""));
            for other in backends.into_iter().filter(|other| *other != backend) {
                let start = text.find(&format!("[custody.{other}]")).unwrap();
                let end = start + text[start..].find("\n[").unwrap() + 1;
                text.replace_range(start..end, "");
            }
            let config = parse(&text).unwrap();
            assert_eq!(config.rules, RulesConfig::default(), "the limits shown are not the defaults");
            assert_eq!(config.confinement, ConfinementConfig::default(), "the confinement shown is not the default");
            match config.custody {
                CustodyConfig::AwsKms(kms) => assert_eq!(kms.timeout, default_aws_timeout()),
                CustodyConfig::AwsSecretsManager(secrets) => assert_eq!(secrets.timeout, default_aws_timeout()),
                CustodyConfig::File(_) | CustodyConfig::Pkcs11(_) => {}
            }
        }
    }

    #[test]
    fn unknown_keys_and_idle_tables_are_errors() {
        let with = |line: &str| parse(&format!("{line}\n{COMMENTED_DEFAULT}"));
        assert!(with("lisen = \"127.0.0.1:1\"").unwrap_err().contains("lisen"));
        let both = format!("{COMMENTED_DEFAULT}\n[custody.file]\npath = \"a\"\npassphrase_file = \"b\"\n");
        assert!(parse(&both).unwrap_err().contains("does nothing"));
        let other = COMMENTED_DEFAULT.replace("network = \"bitcoin\"", "network = \"testnet\"");
        assert!(parse(&other).unwrap_err().contains("testnet4"));
    }

    #[test]
    fn a_destination_is_an_address_of_the_signers_network() {
        let with = |address: &str| {
            parse(&format!("{COMMENTED_DEFAULT}\n[rules]\ndestinations = [\"{address}\"]\n"))
                .map(|config| config.rules.destination_scripts().count())
        };
        assert_eq!(with("bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t4"), Ok(1));
        let foreign = with("bcrt1qw508d6qejxtdg4y5r3zarvary0c5xw7kygt080").unwrap_err();
        assert!(foreign.contains("bcrt1qw508") && foreign.contains("not an address of bitcoin"), "{foreign}");
        assert!(with("nowhere").unwrap_err().contains("`nowhere` is not an address"));
    }

    #[test]
    fn relative_paths_start_at_the_configuration_file() {
        let text = COMMENTED_DEFAULT.replace("\"/var/lib/holdfast-signer\"", "\"data\"");
        assert_eq!(parse(&text).unwrap().data_dir, Path::new("/etc/holdfast/data"));
    }
}
