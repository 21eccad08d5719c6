//! `[gossip]`: where the public graph comes from, beside the gossip of peers.

use std::path::PathBuf;

use serde::Deserialize;

use crate::net::fetch::{FetchUrl, Source};

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(try_from = "GossipTable")]
pub struct GossipConfig {
    pub rapid_sync: Option<Source>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct GossipTable {
    rapid_sync_url: Option<FetchUrl>,
    rapid_sync_ca_file: Option<PathBuf>,
}

impl TryFrom<GossipTable> for GossipConfig {
    type Error = &'static str;

    fn try_from(table: GossipTable) -> Result<Self, Self::Error> {
        let rapid_sync = match (table.rapid_sync_url, table.rapid_sync_ca_file) {
            (Some(url), Some(_)) if !url.is_tls() => {
                return Err("[gossip] rapid_sync_ca_file has no meaning with http, which knows no certificates");
            }
            (Some(url), ca_file) => Some(Source { url, ca_file }),
            (None, Some(_)) => return Err("[gossip] rapid_sync_ca_file needs rapid_sync_url"),
            (None, None) => None,
        };
        Ok(Self { rapid_sync })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn authorities_are_named_for_a_server_that_shows_a_certificate() {
        let parse = |text: &str| toml::from_str::<GossipConfig>(text).map_err(|error| error.to_string());
        let url = "rapid_sync_url = \"https://rapidsync.example\"\n";
        let ca_file = "rapid_sync_ca_file = \"ca.pem\"\n";
        assert_eq!(parse("").unwrap().rapid_sync, None);
        assert_eq!(parse(url).unwrap().rapid_sync.unwrap().ca_file, None);
        let both = parse(&format!("{url}{ca_file}")).unwrap().rapid_sync.unwrap();
        assert_eq!(both.ca_file, Some("ca.pem".into()));
        assert!(parse(ca_file).unwrap_err().contains("needs rapid_sync_url"));
        let plain = url.replace("https://rapidsync.example", "http://127.0.0.1");
        assert!(parse(&format!("{plain}{ca_file}")).unwrap_err().contains("knows no certificates"));
    }
}
