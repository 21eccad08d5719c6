//! Where the database is and how to reach it: the `[postgres]` table of node.toml.

use std::net::IpAddr;
use std::path::PathBuf;

use serde::Deserialize;

/// A database that may be connected to: one that exists never sends a password or a state over an open network.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "RawPgConfig")]
pub struct PgConfig {
    /// A host name, an address, or the directory of a unix socket.
    pub host: String,
    pub port: u16,
    pub database: String,
    pub user: String,
    /// Holds the password and maybe a newline; read again for every connection.
    pub password_file: Option<PathBuf>,
    pub tls: PgTls,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PgTls {
    /// Only to a unix socket or a loopback address.
    Disable,
    /// The server's certificate must be for `host` and chain to a CA of this PEM file.
    Require { ca_file: PathBuf },
}

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum PgConfigError {
    #[error("postgres.tls = \"disable\" is only for a unix socket or a loopback address, not for {0}")]
    OpenNetwork(String),
    #[error("postgres.tls = \"require\" needs postgres.ca_file")]
    NoCa,
    #[error("postgres.host is a unix socket, which has no TLS: set postgres.tls = \"disable\"")]
    TlsOverSocket,
    #[error("postgres.{0} is empty")]
    Empty(&'static str),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawPgConfig {
    host: String,
    #[serde(default = "default_port")]
    port: u16,
    database: String,
    user: String,
    password_file: Option<PathBuf>,
    #[serde(default)]
    tls: TlsMode,
    ca_file: Option<PathBuf>,
}

#[derive(Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum TlsMode {
    Disable,
    #[default]
    Require,
}

fn default_port() -> u16 {
    5432
}

impl TryFrom<RawPgConfig> for PgConfig {
    type Error = PgConfigError;

    fn try_from(raw: RawPgConfig) -> Result<Self, PgConfigError> {
        for (name, value) in [("host", &raw.host), ("database", &raw.database), ("user", &raw.user)] {
            if value.is_empty() {
                return Err(PgConfigError::Empty(name));
            }
        }
        let socket = raw.host.starts_with('/');
        let tls = match (raw.tls, raw.ca_file) {
            (TlsMode::Disable, _) if socket || is_loopback(&raw.host) => PgTls::Disable,
            (TlsMode::Disable, _) => return Err(PgConfigError::OpenNetwork(raw.host)),
            (TlsMode::Require, _) if socket => return Err(PgConfigError::TlsOverSocket),
            (TlsMode::Require, Some(ca_file)) => PgTls::Require { ca_file },
            (TlsMode::Require, None) => return Err(PgConfigError::NoCa),
        };
        Ok(Self {
            host: raw.host,
            port: raw.port,
            database: raw.database,
            user: raw.user,
            password_file: raw.password_file,
            tls,
        })
    }
}

fn is_loopback(host: &str) -> bool {
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<PgConfig, String> {
        toml::from_str(text).map_err(|error: toml::de::Error| error.to_string())
    }

    fn with(host: &str, rest: &str) -> Result<PgConfig, String> {
        parse(&format!("host = \"{host}\"\ndatabase = \"holdfast\"\nuser = \"holdfast\"\n{rest}"))
    }

    #[test]
    fn tls_may_be_off_only_where_nobody_listens() {
        for host in ["/run/postgresql", "127.0.0.1", "127.9.9.9", "::1", "localhost"] {
            assert_eq!(with(host, "tls = \"disable\"").unwrap().tls, PgTls::Disable, "{host}");
        }
        for host in ["10.0.0.1", "db.example", "localhost.example", "0.0.0.0", "run/postgresql"] {
            assert!(with(host, "tls = \"disable\"").unwrap_err().contains("loopback"), "{host}");
        }
    }

    #[test]
    fn tls_is_on_unless_it_is_turned_off() {
        let required = PgTls::Require { ca_file: "ca.pem".into() };
        assert_eq!(with("db.example", "ca_file = \"ca.pem\"").unwrap().tls, required);
        assert!(with("127.0.0.1", "").unwrap_err().contains("ca_file"));
        assert!(with("/run/postgresql", "ca_file = \"ca.pem\"").unwrap_err().contains("unix socket"));
    }

    #[test]
    fn unknown_and_empty_keys_are_errors() {
        assert!(with("::1", "tls = \"disable\"\npassword = \"secret\"").unwrap_err().contains("password"));
        assert!(with("::1", "tls = \"prefer\"").is_err());
        assert!(with("", "tls = \"disable\"").unwrap_err().contains("postgres.host is empty"));
        assert_eq!(with("::1", "tls = \"disable\"").unwrap().port, 5432);
    }
}
