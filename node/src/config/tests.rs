//! What a configuration may say, and what it is told when it says something else.

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
    let text = COMMENTED_DEFAULT.replace("0.0.0.0:9736", "10.0.0.1:9736").replace("advertise = \"", "#advertise = \"");
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
