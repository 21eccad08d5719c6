//! Which names a listener of plain HTTP answers to.
//!
//! A page of another site can point its own name at this listener's address (DNS rebinding); the reader's browser then takes what is
//! here for a part of that site and lets it read. It cannot help saying by which name it came.

use std::net::{IpAddr, SocketAddr};

/// Whether a request with this `Host` is meant for us: none at all (no browser leaves it out), an address, `localhost`, or one of
/// `names`, each with or without a port.
pub fn is_ours(host: Option<&[u8]>, names: &[String]) -> bool {
    let Some(host) = host else { return true };
    let Ok(host) = std::str::from_utf8(host) else { return false };
    let bare = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(host);
    if host.parse::<SocketAddr>().is_ok() || bare.parse::<IpAddr>().is_ok() {
        return true;
    }
    let name = host.rsplit_once(':').map_or(host, |(name, _port)| name);
    names.iter().map(String::as_str).chain(["localhost"]).any(|ours| ours.eq_ignore_ascii_case(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_our_own_names_are_ours() {
        let names = ["replica-a.example".to_owned()];
        let ours = |host: &str| is_ours(Some(host.as_bytes()), &names);
        for host in [
            "127.0.0.1",
            "127.0.0.1:9737",
            "10.0.0.1:80",
            "[::1]",
            "[::1]:9737",
            "localhost",
            "Localhost:9737",
            "replica-a.example:9737",
            "REPLICA-A.example",
        ] {
            assert!(ours(host), "{host}");
        }
        for host in [
            "",
            "evil.example",
            "evil.example:9737",
            "127.0.0.1.evil.example",
            "localhost.evil.example",
            "a@127.0.0.1:1",
        ] {
            assert!(!ours(host), "{host}");
        }
        assert!(is_ours(None, &[]) && !is_ours(Some(b"\xff"), &names) && !is_ours(Some(b"replica-a.example"), &[]));
    }
}
