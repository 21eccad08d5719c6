//! Which channels that peers want to open are accepted: a decision over plain data.

use std::{collections::BTreeSet, fmt};

use bitcoin::secp256k1::PublicKey;
use lightning::types::features::ChannelTypeFeatures;
use serde::{Deserialize, Deserializer, de::Error as _};

/// The `[channels]` of the configuration.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Acceptance {
    pub min_capacity_sat: u64,
    pub max_capacity_sat: u64,
    /// No channel is accepted while there are so many, whoever opened them.
    pub max_channels: u32,
    /// The same, of the channels with one peer.
    pub max_channels_per_peer: u32,
    /// What a peer may give us when it opens a channel (`push_msat`), in satoshi.
    pub max_push_sat: u64,
    /// How many channels of peers are accepted in an hour; see [`Pace`](super::pace::Pace).
    pub max_opens_per_hour: u32,
    /// The same, of one peer.
    pub max_opens_per_hour_per_peer: u32,
    pub accept_announced: bool,
    pub accept_unannounced: bool,
    /// Who may open channels; empty: anyone.
    #[serde(deserialize_with = "node_ids")]
    pub allowed_peers: BTreeSet<PublicKey>,
    /// Whose channels are used before they are confirmed: who could spend their funding output twice, and is trusted not
    /// to. They count as allowed.
    #[serde(deserialize_with = "node_ids")]
    pub zero_conf_peers: BTreeSet<PublicKey>,
}

impl Default for Acceptance {
    fn default() -> Self {
        Self {
            min_capacity_sat: 20_000,
            max_capacity_sat: 1_000_000_000,
            max_channels: 1000,
            max_channels_per_peer: 100,
            max_push_sat: 0,
            max_opens_per_hour: 60,
            max_opens_per_hour_per_peer: 10,
            accept_announced: true,
            accept_unannounced: true,
            allowed_peers: BTreeSet::new(),
            zero_conf_peers: BTreeSet::new(),
        }
    }
}

/// Reads an [`Acceptance`] that makes sense.
pub fn checked<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Acceptance, D::Error> {
    let read = Acceptance::deserialize(deserializer)?;
    let Acceptance { min_capacity_sat: min, max_capacity_sat: max, .. } = read;
    if min > max {
        return Err(D::Error::custom(format!("min_capacity_sat = {min} is more than max_capacity_sat = {max}")));
    }
    Ok(read)
}

/// A channel that a peer wants to open.
#[derive(Clone, Debug)]
pub struct Wanted {
    pub peer: PublicKey,
    pub capacity_sat: u64,
    /// What we are given from the start.
    pub push_msat: u64,
    pub is_announced: bool,
    pub kind: ChannelTypeFeatures,
}

/// What the node has when it is asked.
#[derive(Clone, Copy, Debug)]
pub struct Standing {
    pub channels: usize,
    pub channels_with_peer: usize,
    /// What the on-chain wallet can spend.
    pub spendable_sat: u64,
    /// What the wallet would have to keep with this channel.
    pub reserve_sat: u64,
}

/// How an accepted channel becomes usable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Confirmations {
    Awaited,
    /// It may be used at once.
    Zero,
}

/// Why a channel is not accepted. Displayed, it is for our log; what the peer may know is [`Refusal::told`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    Kind,
    Stranger,
    ZeroConf,
    TooSmall { capacity_sat: u64, min_sat: u64 },
    TooLarge { capacity_sat: u64, max_sat: u64 },
    Push { push_msat: u64, max_sat: u64 },
    Announced,
    Unannounced,
    TooMany { max: u32 },
    TooManyWithPeer { max: u32 },
    TooOften { max: u32 },
    TooOftenByPeer { max: u32 },
    Reserve { spendable_sat: u64, reserve_sat: u64 },
}

impl Acceptance {
    /// Whether a channel is accepted, and whether it may be used before it is confirmed.
    pub fn decide(&self, wanted: &Wanted, standing: &Standing) -> Result<Confirmations, Refusal> {
        let Wanted { peer, capacity_sat, push_msat, is_announced, ref kind } = *wanted;
        let anchors = kind.requires_anchors_zero_fee_htlc_tx();
        if !anchors && !kind.requires_static_remote_key() {
            return Err(Refusal::Kind);
        }
        let trusted = self.zero_conf_peers.contains(&peer);
        if !self.allowed_peers.is_empty() && !self.allowed_peers.contains(&peer) && !trusted {
            return Err(Refusal::Stranger);
        }
        if kind.requires_zero_conf() && !trusted {
            return Err(Refusal::ZeroConf);
        }
        if capacity_sat < self.min_capacity_sat {
            return Err(Refusal::TooSmall { capacity_sat, min_sat: self.min_capacity_sat });
        }
        if capacity_sat > self.max_capacity_sat {
            return Err(Refusal::TooLarge { capacity_sat, max_sat: self.max_capacity_sat });
        }
        // Money that may never be there: LDK keeps what it knows of such a channel for ever, whether or not its funding
        // is ever seen in a block.
        if push_msat > self.max_push_sat.saturating_mul(1000) && !trusted {
            return Err(Refusal::Push { push_msat, max_sat: self.max_push_sat });
        }
        match is_announced {
            true if !self.accept_announced => return Err(Refusal::Announced),
            false if !self.accept_unannounced => return Err(Refusal::Unannounced),
            _ => {}
        }
        if standing.channels >= self.max_channels as usize {
            return Err(Refusal::TooMany { max: self.max_channels });
        }
        if standing.channels_with_peer >= self.max_channels_per_peer as usize {
            return Err(Refusal::TooManyWithPeer { max: self.max_channels_per_peer });
        }
        let Standing { spendable_sat, reserve_sat, .. } = *standing;
        if anchors && spendable_sat < reserve_sat {
            return Err(Refusal::Reserve { spendable_sat, reserve_sat });
        }
        Ok(if trusted { Confirmations::Zero } else { Confirmations::Awaited })
    }
}

impl Refusal {
    /// What the peer is told: enough to do better, and nothing of what the node has.
    pub fn told(&self) -> String {
        match self {
            Self::Kind => "only channels of the types static-remote-key and anchors are accepted".into(),
            Self::Stranger => "channels are accepted from known peers only".into(),
            Self::ZeroConf => "channels that need no confirmation are accepted from trusted peers only".into(),
            Self::TooSmall { min_sat, .. } => format!("channels of less than {min_sat} sat are not accepted"),
            Self::TooLarge { max_sat, .. } => format!("channels of more than {max_sat} sat are not accepted"),
            Self::Push { max_sat: 0, .. } => "channels that push money to us are not accepted".into(),
            Self::Push { max_sat, .. } => format!("channels that push more than {max_sat} sat to us are not accepted"),
            Self::Announced => "announced channels are not accepted".into(),
            Self::Unannounced => "unannounced channels are not accepted".into(),
            Self::TooMany { .. } => "no more channels are accepted".into(),
            Self::TooManyWithPeer { max } => format!("no more than {max} channels with one peer are accepted"),
            Self::TooOften { .. } => "no more channels are accepted at present".into(),
            Self::TooOftenByPeer { max } => format!("no more than {max} channels of one peer are accepted in an hour"),
            Self::Reserve { .. } => "no more channels with anchors are accepted at present".into(),
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Kind => f.write_str("its type is neither static-remote-key nor anchors"),
            Self::Stranger => f.write_str("the peer is not in channels.allowed_peers"),
            Self::ZeroConf => {
                f.write_str("it would be used before it is confirmed, and the peer is not in channels.zero_conf_peers")
            }
            Self::TooSmall { capacity_sat, min_sat } => {
                write!(f, "{capacity_sat} sat are less than channels.min_capacity_sat = {min_sat}")
            }
            Self::TooLarge { capacity_sat, max_sat } => {
                write!(f, "{capacity_sat} sat are more than channels.max_capacity_sat = {max_sat}")
            }
            Self::Push { push_msat, max_sat } => {
                write!(f, "it pushes {push_msat} msat, which is more than channels.max_push_sat = {max_sat}")
            }
            Self::Announced => f.write_str("it is announced, and channels.accept_announced is false"),
            Self::Unannounced => f.write_str("it is not announced, and channels.accept_unannounced is false"),
            Self::TooMany { max } => write!(f, "there are channels.max_channels = {max} already"),
            Self::TooManyWithPeer { max } => {
                write!(f, "there are channels.max_channels_per_peer = {max} with the peer already")
            }
            Self::TooOften { max } => write!(f, "there were channels.max_opens_per_hour = {max} in an hour"),
            Self::TooOftenByPeer { max } => {
                write!(f, "there were channels.max_opens_per_hour_per_peer = {max} of the peer in an hour")
            }
            Self::Reserve { spendable_sat, reserve_sat } => write!(
                f,
                "the wallet can spend {spendable_sat} sat, and with it {reserve_sat} sat would be reserved for closes"
            ),
        }
    }
}

fn node_ids<'de, D: Deserializer<'de>>(deserializer: D) -> Result<BTreeSet<PublicKey>, D::Error> {
    let parse = |text: String| {
        text.parse().map_err(|_| D::Error::custom(format!("`{text}` is not a node id, which is 66 hex digits")))
    };
    Vec::<String>::deserialize(deserializer)?.into_iter().map(parse).collect()
}

#[cfg(test)]
mod tests;
