//! Limits: configuration with safe defaults.

use bitcoin::{Address, Network, Script, ScriptBuf, address::NetworkUnchecked};
use serde::{Deserialize, Deserializer, de::Error as _};

/// The `[rules]` of the signer's configuration. Each limit is optional; an unknown name is an error.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RulesConfig {
    /// `contest-delay`: blocks that a counterparty which closes has to wait, and so the time we have to punish it.
    pub holder_contest_delay: Blocks,
    /// `contest-delay`: blocks that we may have to wait for our own money after a close.
    pub counterparty_contest_delay: Blocks,
    /// `funding-script`: whether a channel may be spliced. Holdfast's node never does; and the signer, which does not see
    /// the chain, cannot tell a splice that the peer agreed to from one that a compromised replica makes up.
    pub splices: bool,
    /// `onchain-fee`: the highest fee of a wallet transaction, in satoshi. What pays for a channel's close counts.
    pub onchain_max_fee_sat: u64,
    /// `onchain-fee`: the highest fee rate of a wallet transaction, in satoshi a virtual byte. What pays for a channel's
    /// close is exempt: it pays for more than itself.
    pub onchain_max_feerate_sat_per_vb: u64,
    /// `close-destination`: where a cooperative close may pay what is ours, beside the node's own scripts.
    #[serde(deserialize_with = "addresses")]
    pub destinations: Vec<Address<NetworkUnchecked>>,
    /// `invoice`: the longest expiry that an invoice may have.
    pub invoice_max_expiry_secs: u64,
}

/// A range of block counts, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Blocks {
    pub min: u16,
    pub max: u16,
}

impl Blocks {
    pub fn contains(self, blocks: u16) -> bool {
        (self.min..=self.max).contains(&blocks)
    }
}

impl Default for RulesConfig {
    fn default() -> Self {
        Self {
            holder_contest_delay: Blocks { min: 72, max: 2016 },
            counterparty_contest_delay: Blocks { min: 1, max: 2016 },
            splices: false,
            onchain_max_fee_sat: 5_000_000,
            onchain_max_feerate_sat_per_vb: 1000,
            destinations: Vec::new(),
            invoice_max_expiry_secs: 365 * 24 * 3600,
        }
    }
}

impl RulesConfig {
    /// An error names the destination that is on another network.
    pub fn check_network(&self, network: Network) -> Result<(), String> {
        match self.destinations.iter().find(|address| !address.is_valid_for_network(network)) {
            Some(address) => {
                Err(format!("rules.destinations: {} is not an address of {network}", address.assume_checked_ref()))
            }
            None => Ok(()),
        }
    }

    /// The scripts of the destinations.
    pub fn destination_scripts(&self) -> impl Iterator<Item = ScriptBuf> {
        self.destinations.iter().map(|address| address.assume_checked_ref().script_pubkey())
    }

    pub fn is_destination(&self, script: &Script) -> bool {
        self.destination_scripts().any(|destination| *destination == *script)
    }
}

fn addresses<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Address<NetworkUnchecked>>, D::Error> {
    let parse = |text: String| {
        text.parse().map_err(|error| D::Error::custom(format!("destinations: `{text}` is not an address: {error}")))
    };
    Vec::<String>::deserialize(deserializer)?.into_iter().map(parse).collect()
}
