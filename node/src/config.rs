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
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<NodeConfig, String> {
        NodeConfig::parse(text, Path::new("/etc/holdfast"))
    }

    fn changed(from: &str, to: &str) -> Result<NodeConfig, String> {
        assert!(COMMENTED_DEFAULT.contains(from), "{from}");
        parse(&COMMENTED_DEFAULT.replace(from, to))
    }

    #[test]
    fn the_printed_default_parses() {
        let config = parse(COMMENTED_DEFAULT).unwrap();
        assert_eq!(config.network, Network::Bitcoin);
        assert_eq!(config.api.advertise.as_str(), "replica-a.example:9736");
        assert_eq!(config.bitcoind.auth, BitcoindAuth::Cookie("/var/lib/bitcoind/.cookie".into()));
    }

    /// A line `#key = value`, no space after the sign, is a key with its default.
    #[test]
    fn the_commented_keys_are_known_and_show_their_defaults() {
        let commented: Vec<&str> = COMMENTED_DEFAULT
            .lines()
            .filter(|line| line.strip_prefix('#').is_some_and(|l| l.starts_with(|c: char| c.is_ascii_lowercase())))
            .collect();
        assert!(commented.len() >= 8, "{commented:?}");
        let default = format!("{:?}", parse(COMMENTED_DEFAULT).unwrap());
        let mut exclusive = String::from(COMMENTED_DEFAULT);
        for line in commented {
            if line.starts_with("#user") || line.starts_with("#password_file") {
                exclusive = exclusive.replace(line, &line[1..]);
            } else {
                assert_eq!(format!("{:?}", changed(line, &line[1..]).unwrap()), default, "{line}");
            }
        }
        let config = parse(&exclusive.replace("cookie_file", "#cookie_file")).unwrap();
        assert!(matches!(config.bitcoind.auth, BitcoindAuth::Password { .. }));
        assert!(parse(&exclusive).unwrap_err().contains("either cookie_file, or user and password_file"));
    }

    #[test]
    fn unknown_keys_are_errors_in_every_table() {
        for table in [
            "[tls]",
            "[postgres]",
            "[signer]",
            "[bitcoind]",
            "[channels]",
            "[peers]",
            "[tor]",
            "[gossip]",
            "[api]",
            "[health]",
            "[operators]",
            "[events]",
            "[telemetry]",
        ] {
            let error = changed(table, &format!("{table}\nsurprise = 1")).unwrap_err();
            assert!(error.contains("surprise"), "{table}: {error}");
        }
        assert!(parse(&format!("surprise = 1\n{COMMENTED_DEFAULT}")).unwrap_err().contains("surprise"));
    }

    #[test]
    fn an_error_says_what_is_wrong() {
        for (from, to, says) in [
            ("\"bitcoin\"", "\"testnet\"", "testnet4"),
            ("[\"signer-1.example:9911\"]", "[]", "endpoints is empty"),
            ("[\"signer-1.example:9911\"]", "[\"a.example:1\", \"b.example:1\"]", "share a guard store"),
            ("signer-1.example:9911", "signer-1.example", "host:port"),
            ("#alias = \"holdfast\"", "alias = \"a name of more than thirty-two bytes\"", "32 bytes"),
            ("#max_capacity_sat = 1000000000", "max_capacity_sat = 100", "is more than max_capacity_sat"),
            ("#zero_conf_peers = []", "zero_conf_peers = [\"bob\"]", "`bob` is not a node id"),
            ("#color = \"#1f6f54\"", "color = \"green\"", "#rrggbb"),
            ("#announce = []", "announce = [\"nowhere\"]", "nowhere"),
            ("#mode = \"onion\"", "mode = \"all\"", "needs socks"),
            ("#mode = \"onion\"", "mode = \"none\"", "`onion` or `all`"),
            ("# rapid_sync_url = \"https", "rapid_sync_url = \"http", "unprotected"),
            ("# rapid_sync_ca_file", "rapid_sync_ca_file", "needs rapid_sync_url"),
            ("advertise = \"", "#advertise = \"", "[api] needs advertise"),
            ("#deadline_seconds = 300", "deadline_seconds = 0", "0 seconds"),
            ("#deposit_confirmations = 6", "deposit_confirmations = 0", "from 1 to 144"),
            ("#keep_days = 30", "keep_days = 0", "from 1 to 36500"),
            ("unlisted = \"admin\"", "unlisted = \"none\"", "lets nobody in"),
            ("unlisted = \"admin\"", "unlisted = \"root\"", "root"),
        ] {
            let error = changed(from, to).unwrap_err();
            assert!(error.contains(says), "{to}: {error}");
        }
        let error = NodeConfig::load(Path::new("/nowhere/node.toml")).unwrap_err().to_string();
        assert!(error.contains("/nowhere/node.toml"), "{error}");
    }

    #[test]
    fn an_api_on_one_address_is_advertised_there() {
        let config = changed("listen = \"0.0.0.0:9736\"\n", "listen = \"10.0.0.1:9736\"\n").unwrap();
        assert_eq!(config.api.advertise.as_str(), "replica-a.example:9736");
        let text =
            COMMENTED_DEFAULT.replace("0.0.0.0:9736", "10.0.0.1:9736").replace("advertise = \"", "#advertise = \"");
        assert_eq!(parse(&text).unwrap().api.advertise.as_str(), "10.0.0.1:9736");
    }

    #[test]
    fn relative_paths_start_at_the_configuration_file() {
        let config = parse(&COMMENTED_DEFAULT.replace("/etc/holdfast/", "").replace("/var/lib/bitcoind/", "")).unwrap();
        assert_eq!(config.tls.key, Path::new("/etc/holdfast/tls/replica-a.key"));
        assert_eq!(config.postgres.password_file.as_deref(), Some(Path::new("/etc/holdfast/postgres.password")));
        assert_eq!(config.postgres.tls, PgTls::Require { ca_file: "/etc/holdfast/tls/postgres-ca.pem".into() });
        assert_eq!(config.bitcoind.auth, BitcoindAuth::Cookie("/etc/holdfast/.cookie".into()));
    }

    #[test]
    fn a_host_and_port_is_just_that() {
        for good in ["127.0.0.1:1", "[::1]:9911", "signer-1.example:65535", "localhost:9911"] {
            assert_eq!(good.parse::<HostPort>().unwrap().to_string(), good);
        }
        for bad in ["", ":1", "a", "a:", "a:0", "a:65536", "::1:9911", "http://a:1", "a/b:1", "a b:1", "u@a:1"] {
            assert!(bad.parse::<HostPort>().is_err(), "{bad}");
        }
    }
}
