//! `[peers]`: the Lightning network (BOLT 8).

use std::net::SocketAddr;

use lightning::ln::msgs::SocketAddress;
use serde::{Deserialize, Deserializer, de::Error as _};

use crate::lightning::admission::Limits;

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PeersConfig {
    pub listen: SocketAddr,
    /// Where other nodes are told to connect.
    #[serde(deserialize_with = "socket_addresses")]
    pub announce: Vec<SocketAddress>,
    /// How many peers may be connected that came by themselves.
    pub max_inbound: usize,
    /// The same, from one address.
    pub max_inbound_per_address: usize,
    /// Whether our encrypted backup is left with peers.
    pub leave_backup: bool,
}

impl PeersConfig {
    pub fn limits(&self) -> Limits {
        Limits { in_all: self.max_inbound, from_one_address: self.max_inbound_per_address }
    }
}

impl Default for PeersConfig {
    fn default() -> Self {
        let listen = SocketAddr::from(([0, 0, 0, 0], 9735));
        Self { listen, announce: Vec::new(), max_inbound: 1000, max_inbound_per_address: 250, leave_backup: true }
    }
}

fn socket_addresses<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<SocketAddress>, D::Error> {
    Vec::<String>::deserialize(deserializer)?
        .into_iter()
        .map(|text| text.parse().map_err(|e| D::Error::custom(format!("announce: `{text}`: {e}"))))
        .collect()
}
