//! A replica's configuration: one TOML file, parsed whole before anything starts. Unknown keys are errors.

use std::{
    fmt, fs, io,
    net::SocketAddr,
    path::{Path, PathBuf},
    str::FromStr,
    time::Duration,
};

use bitcoin::Network;
use holdfast_proto::telemetry::TelemetryConfig;
use serde::{Deserialize, Deserializer, de::Error as _};

use crate::{
    chain::BitcoindAuth,
    lightning::acceptance::{self, Acceptance},
    net::{self, TorConfig},
    operators::Operators,
    store::postgres::{PgConfig, PgTls},
};

mod deposits;
mod gossip;
mod peers;

pub use gossip::GossipConfig;
pub use peers::PeersConfig;

/// Every key with its meaning, as `holdfast-node config` prints it.
pub const COMMENTED_DEFAULT: &str = include_str!("config.toml");

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NodeConfig {
    #[serde(deserialize_with = "network")]
    pub network: Network,
    #[serde(default)]
    pub alias: Alias,
    #[serde(default)]
    pub color: Color,
    pub tls: TlsConfig,
    pub postgres: PgConfig,
    pub signer: SignerConfig,
    pub bitcoind: BitcoindConfig,
    #[serde(default)]
    pub wallet: WalletConfig,
    #[serde(default, deserialize_with = "acceptance::checked")]
    pub channels: Acceptance,
    #[serde(default)]
    pub peers: PeersConfig,
    #[serde(default, deserialize_with = "net::checked")]
    pub tor: TorConfig,
    #[serde(default)]
    pub gossip: GossipConfig,
    pub api: ApiConfig,
    pub health: Option<HealthConfig>,
    #[serde(default)]
    pub operators: Operators,
    #[serde(default)]
    pub events: EventsConfig,
    #[serde(default)]
    pub telemetry: TelemetryConfig,
}

impl NodeConfig {
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let text = fs::read_to_string(path).map_err(|error| ConfigError::Read { path: path.to_owned(), error })?;
        let directory = path.parent().unwrap_or(Path::new(""));
        Self::parse(&text, directory).map_err(|why| ConfigError::Parse { path: path.to_owned(), why })
    }

    /// Relative paths are resolved against `directory`, that of the configuration file.
    pub fn parse(text: &str, directory: &Path) -> Result<Self, String> {
        let mut config: Self = toml::from_str(text).map_err(|e| e.to_string().trim_end().to_owned())?;
        config.paths_mut().into_iter().for_each(|path| *path = directory.join(&*path));
        Ok(config)
    }

    fn paths_mut(&mut self) -> Vec<&mut PathBuf> {
        let mut paths = vec![&mut self.tls.certificate, &mut self.tls.key, &mut self.tls.ca];
        paths.extend(&mut self.postgres.password_file);
        if let PgTls::Require { ca_file } = &mut self.postgres.tls {
            paths.push(ca_file);
        }
        paths.push(match &mut self.bitcoind.auth {
            BitcoindAuth::Cookie(file) => file,
            BitcoindAuth::Password { file, .. } => file,
        });
        paths.extend(self.gossip.rapid_sync.iter_mut().flat_map(|source| &mut source.ca_file));
        paths
    }
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TlsConfig {
    pub certificate: PathBuf,
    pub key: PathBuf,
    pub ca: PathBuf,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SignerConfig {
    /// At least one.
    #[serde(deserialize_with = "one_endpoint")]
    pub endpoints: Vec<HostPort>,
    /// How long a call may wait for a signer before the process ends.
    #[serde(rename = "deadline_seconds", default = "default_signer_deadline", deserialize_with = "seconds")]
    pub deadline: Duration,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(try_from = "BitcoindTable")]
pub struct BitcoindConfig {
    pub url: HostPort,
    pub auth: BitcoindAuth,
}

/// The on-chain wallet.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct WalletConfig {
    /// Satoshi kept on chain for each channel with anchors, so that its commitment can be brought into a block when fees
    /// rise.
    pub reserve_per_channel_sat: u64,
    /// In how many blocks a deposit is told of as confirmed.
    #[serde(deserialize_with = "deposits::confirmations")]
    pub deposit_confirmations: u32,
}

impl Default for WalletConfig {
    fn default() -> Self {
        Self { reserve_per_channel_sat: 10_000, deposit_confirmations: 6 }
    }
}

/// The operators' gRPC.
#[derive(Clone, Debug, Deserialize)]
#[serde(try_from = "ApiTable")]
pub struct ApiConfig {
    pub listen: SocketAddr,
    /// Where operators and other replicas reach it.
    pub advertise: HostPort,
}

/// The log of what happened.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct EventsConfig {
    /// How long an event is kept.
    #[serde(rename = "keep_days", deserialize_with = "days")]
    pub keep: Duration,
}

impl Default for EventsConfig {
    fn default() -> Self {
        Self { keep: Duration::from_secs(30 * 86_400) }
    }
}

/// Health and metrics, over plain HTTP.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HealthConfig {
    pub listen: SocketAddr,
    /// By which names the status page and `/metrics` are asked for, besides addresses and `localhost`.
    #[serde(default)]
    pub names: Vec<String>,
}

/// A node's alias: at most 32 bytes of printable text (BOLT 7), padded with zeros on the wire.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Alias(String);

impl Alias {
    pub fn as_str(&self) -> &str {
        &self.0
    }

    pub fn to_bytes(&self) -> [u8; 32] {
        let mut bytes = [0; 32];
        bytes[..self.0.len()].copy_from_slice(self.0.as_bytes());
        bytes
    }
}

impl Default for Alias {
    fn default() -> Self {
        Self("holdfast".into())
    }
}

impl TryFrom<String> for Alias {
    type Error = &'static str;

    fn try_from(alias: String) -> Result<Self, Self::Error> {
        if alias.len() > 32 {
            return Err("alias is longer than 32 bytes");
        }
        if alias.chars().any(char::is_control) {
            return Err("alias holds a control character");
        }
        Ok(Self(alias))
    }
}

/// The colour in which other nodes show ours (BOLT 7): `#rrggbb`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Color([u8; 3]);

impl Color {
    pub fn to_bytes(self) -> [u8; 3] {
        self.0
    }
}

impl Default for Color {
    fn default() -> Self {
        Self([0x1f, 0x6f, 0x54])
    }
}

impl TryFrom<String> for Color {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let mut bytes = [0; 3];
        let digits = text.strip_prefix('#').map(|digits| hex::decode_to_slice(digits, &mut bytes));
        match digits {
            Some(Ok(())) => Ok(Self(bytes)),
            _ => Err(format!("color `{text}` is not of the form #rrggbb")),
        }
    }
}

/// A host name or address with a port; which machine that is, is asked at each connection.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Deserialize)]
#[serde(try_from = "String")]
pub struct HostPort(String);

impl HostPort {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for HostPort {
    type Err = String;

    fn from_str(s: &str) -> Result<Self, String> {
        let bad = || format!("`{s}` is not of the form host:port");
        let (host, port) = s.rsplit_once(':').ok_or_else(bad)?;
        let ambiguous = host.contains(':') && !(host.starts_with('[') && host.ends_with(']'));
        let odd = |c: char| c.is_whitespace() || c.is_control() || matches!(c, '/' | '@' | '?' | '#');
        if host.is_empty() || ambiguous || host.contains(odd) || !port.parse::<u16>().is_ok_and(|port| port != 0) {
            return Err(bad());
        }
        Ok(Self(s.to_owned()))
    }
}

impl TryFrom<String> for HostPort {
    type Error = String;

    fn try_from(s: String) -> Result<Self, String> {
        s.parse()
    }
}

#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("configuration {path}: {error}")]
    Read { path: PathBuf, error: io::Error },
    #[error("configuration {path}: {why}")]
    Parse { path: PathBuf, why: String },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct BitcoindTable {
    url: HostPort,
    cookie_file: Option<PathBuf>,
    user: Option<String>,
    password_file: Option<PathBuf>,
}

impl TryFrom<BitcoindTable> for BitcoindConfig {
    type Error = &'static str;

    fn try_from(table: BitcoindTable) -> Result<Self, Self::Error> {
        let auth = match (table.cookie_file, table.user, table.password_file) {
            (Some(cookie), None, None) => BitcoindAuth::Cookie(cookie),
            (None, Some(user), Some(file)) => BitcoindAuth::Password { user, file },
            _ => return Err("[bitcoind] needs either cookie_file, or user and password_file"),
        };
        Ok(Self { url: table.url, auth })
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ApiTable {
    listen: SocketAddr,
    advertise: Option<HostPort>,
}

impl TryFrom<ApiTable> for ApiConfig {
    type Error = &'static str;

    fn try_from(table: ApiTable) -> Result<Self, Self::Error> {
        let advertise = match table.advertise {
            Some(advertise) => advertise,
            None if table.listen.ip().is_unspecified() || table.listen.port() == 0 => {
                return Err("[api] needs advertise = \"host:port\": nobody can connect to what listen says");
            }
            None => HostPort(table.listen.to_string()),
        };
        Ok(Self { listen: table.listen, advertise })
    }
}

fn network<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Network, D::Error> {
    let name = String::deserialize(deserializer)?;
    match name.parse() {
        Ok(network @ (Network::Bitcoin | Network::Testnet4 | Network::Signet | Network::Regtest)) => Ok(network),
        _ => Err(D::Error::custom(format!("network `{name}` is not one of bitcoin, testnet4, signet, regtest"))),
    }
}

/// One, for now: the client could fail over between several, but signers that each have a guard of their own would
/// between them sign what neither would alone (P3, P6).
fn one_endpoint<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<HostPort>, D::Error> {
    let endpoints = Vec::<HostPort>::deserialize(deserializer)?;
    match endpoints.len() {
        0 => Err(D::Error::custom("endpoints is empty")),
        1 => Ok(endpoints),
        _ => Err(D::Error::custom(
            "endpoints names several signers, which is safe only for signers that share a guard store; \
             this version has none to share, so name one",
        )),
    }
}

fn seconds<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    match u32::deserialize(deserializer)? {
        0 => Err(D::Error::custom("a time of 0 seconds would end every call before it begins")),
        seconds => Ok(Duration::from_secs(seconds.into())),
    }
}

fn days<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    match u32::deserialize(deserializer)? {
        days @ 1..=36_500 => Ok(Duration::from_secs(u64::from(days) * 86_400)),
        days => Err(D::Error::custom(format!("keep_days is {days}, and must be from 1 to 36500"))),
    }
}

fn default_signer_deadline() -> Duration {
    Duration::from_secs(300)
}

#[cfg(test)]
mod tests;
