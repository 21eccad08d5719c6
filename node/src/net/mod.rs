//! Connections to the world outside: direct, or through a SOCKS5 proxy, which is Tor.

pub mod fetch;

use std::{
    net::{IpAddr, Ipv6Addr},
    time::Duration,
};

use serde::{Deserialize, Deserializer, de::Error as _};
use tokio::net::{TcpStream, lookup_host};
use tokio_socks::tcp::Socks5Stream;

use crate::config::HostPort;

/// How long a connection may take to come up.
const DIRECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Tor may have to build a circuit first.
const PROXY_TIMEOUT: Duration = Duration::from_secs(60);

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TorConfig {
    /// Tor's SOCKS5 port. Without one, nothing goes through Tor.
    pub socks: Option<HostPort>,
    pub mode: TorMode,
}

/// What goes through the proxy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TorMode {
    /// What only Tor can reach.
    #[default]
    Onion,
    /// Every connection to a peer or to a server of gossip.
    All,
}

/// What a configuration may hold.
pub fn checked<'de, D: Deserializer<'de>>(deserializer: D) -> Result<TorConfig, D::Error> {
    let config = TorConfig::deserialize(deserializer)?;
    match (&config.socks, config.mode) {
        (None, TorMode::All) => {
            Err(D::Error::custom("[tor] mode = \"all\" needs socks: there is nothing to go through"))
        }
        _ => Ok(config),
    }
}

/// Makes connections as the configuration wants them.
#[derive(Clone, Debug, Default)]
pub struct Outbound {
    tor: TorConfig,
}

/// Where a connection goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Target<'a> {
    Ip(IpAddr),
    Name(&'a str),
    Onion(&'a str),
}

impl Outbound {
    pub fn new(tor: TorConfig) -> Self {
        Self { tor }
    }

    /// Connects to `host:port`. Connections with different names for `isolation` share no circuit of Tor's. The error is
    /// why not, without the address.
    pub async fn connect(&self, address: &str, isolation: &str) -> Result<TcpStream, String> {
        let (target, port) = parse(address)?;
        match self.proxy_for(target)? {
            Some(proxy) => within(PROXY_TIMEOUT, through(proxy, target, port, isolation)).await,
            None => within(DIRECT_TIMEOUT, direct(target, port)).await,
        }
    }

    /// How long a connection to there may take until it can be used.
    pub fn patience(&self, address: &str) -> Duration {
        match parse(address).and_then(|(target, _)| self.proxy_for(target)) {
            Ok(Some(_)) => PROXY_TIMEOUT,
            _ => DIRECT_TIMEOUT,
        }
    }

    fn proxy_for(&self, target: Target<'_>) -> Result<Option<&HostPort>, String> {
        match (target, &self.tor.socks, self.tor.mode) {
            (Target::Onion(_), None, _) => Err("only Tor reaches it: [tor] socks is not configured".into()),
            (Target::Onion(_), Some(proxy), _) | (_, Some(proxy), TorMode::All) => Ok(Some(proxy)),
            _ => Ok(None),
        }
    }
}

/// Names are resolved here, and each of their addresses is tried.
async fn direct(target: Target<'_>, port: u16) -> Result<TcpStream, String> {
    let addresses: Vec<_> = match target {
        Target::Ip(ip) => vec![(ip, port).into()],
        Target::Name(name) | Target::Onion(name) => {
            lookup_host((name, port)).await.map_err(|error| error.to_string())?.collect()
        }
    };
    let mut last = "the name has no address".to_owned();
    for address in addresses {
        match TcpStream::connect(address).await {
            Ok(stream) => return Ok(stream),
            Err(error) => last = error.to_string(),
        }
    }
    Err(last)
}

/// Names go to the proxy as they are: it resolves them, and nobody here is asked.
async fn through(proxy: &HostPort, target: Target<'_>, port: u16, isolation: &str) -> Result<TcpStream, String> {
    let away = |error: std::io::Error| format!("the proxy {proxy} is away: {error}");
    let socket = TcpStream::connect(proxy.as_str()).await.map_err(away)?;
    // Tor keeps streams with different credentials on different circuits, and takes any; others ask for none.
    let connected = match target {
        Target::Ip(ip) => {
            Socks5Stream::connect_with_password_and_socket(socket, (ip, port), isolation, isolation).await
        }
        Target::Name(name) | Target::Onion(name) => {
            Socks5Stream::connect_with_password_and_socket(socket, (name, port), isolation, isolation).await
        }
    };
    connected.map(Socks5Stream::into_inner).map_err(|error| format!("through the proxy {proxy}: {error}"))
}

/// Whether this is an address to connect to; the error is why not.
pub fn check(address: &str) -> Result<(), String> {
    parse(address).map(drop)
}

async fn within<T>(limit: Duration, work: impl Future<Output = Result<T, String>>) -> Result<T, String> {
    tokio::time::timeout(limit, work).await.unwrap_or_else(|_| Err(format!("no answer within {limit:?}")))
}

fn parse(address: &str) -> Result<(Target<'_>, u16), String> {
    let bad = || format!("`{address}` is not of the form host:port");
    let (host, port) = address.rsplit_once(':').ok_or_else(bad)?;
    let port: u16 = port.parse().ok().filter(|port| *port != 0).ok_or_else(bad)?;
    if let Some(inside) = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        return inside.parse::<Ipv6Addr>().map(|ip| (Target::Ip(ip.into()), port)).map_err(|_| bad());
    }
    // A name of this length fits into a SOCKS request; nothing else in it could be mistaken for one.
    if host.is_empty() || host.len() > 255 || host.contains(|c: char| c.is_whitespace() || c.is_control() || c == ':') {
        return Err(bad());
    }
    if let Ok(ip) = host.parse() {
        return Ok((Target::Ip(ip), port));
    }
    let name = host.strip_suffix('.').unwrap_or(host);
    let is_onion = name.rsplit('.').next().is_some_and(|last| last.eq_ignore_ascii_case("onion"));
    Ok((if is_onion { Target::Onion(name) } else { Target::Name(host) }, port))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tor(mode: TorMode) -> Outbound {
        Outbound::new(TorConfig { socks: Some("127.0.0.1:9".parse().unwrap()), mode })
    }

    const ONION: &str = "vww6ybal4bd7szmgncyruucpgfkqahzddi37ktceo3ah7ngmcopnpyyd.onion";

    #[test]
    fn an_onion_address_is_known_in_every_spelling() {
        for host in [ONION.to_owned(), ONION.to_uppercase(), format!("{ONION}."), format!("www.{ONION}")] {
            let address = format!("{host}:9735");
            assert!(matches!(parse(&address), Ok((Target::Onion(_), 9735))), "{address}");
        }
        assert!(matches!(parse("onion.example:1"), Ok((Target::Name("onion.example"), 1))));
        assert!(matches!(parse("[::1]:1"), Ok((Target::Ip(IpAddr::V6(_)), 1))));
        assert!(matches!(parse("10.0.0.1:1"), Ok((Target::Ip(IpAddr::V4(_)), 1))));
        for bad in ["", ":1", "a", "a:0", "a:x", "::1:9735", "[a]:1", "a b:1", "a\n:1"] {
            assert!(parse(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn what_goes_through_tor_is_as_configured() {
        let onion = Target::Onion(ONION);
        let (none, some, all) = (Outbound::default(), tor(TorMode::Onion), tor(TorMode::All));
        assert!(none.proxy_for(onion).unwrap_err().contains("[tor] socks"));
        assert!(some.proxy_for(onion).unwrap().is_some() && all.proxy_for(onion).unwrap().is_some());
        for target in [Target::Name("peer.example"), Target::Ip([10, 0, 0, 1].into())] {
            assert!(none.proxy_for(target).unwrap().is_none());
            assert!(some.proxy_for(target).unwrap().is_none());
            assert!(all.proxy_for(target).unwrap().is_some());
        }
    }
}
