//! What the signer remembers of one channel: one plain struct, changed in one place (`machine`).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{
    bytes::{Digest, Point, TxId},
    secrets::RevealedSecrets,
};

/// Everything the guard knows of a channel. The default is a channel that was never heard of.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChannelState {
    /// More than one only after a splice.
    pub fundings: Vec<Funding>,
    pub counterparty: Counterparty,
    pub holder: Holder,
    /// A closing transaction was signed.
    pub close_signed: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct FundingOutpoint {
    pub txid: TxId,
    pub vout: u16,
}

/// One funding output and the commitments of it that are not revoked, by number; of the counterparty's also the one
/// that it revoked last.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Funding {
    pub outpoint: FundingOutpoint,
    pub parameters: Parameters,
    pub counterparty: BTreeMap<u64, Commitment>,
    pub holder: BTreeMap<u64, Commitment>,
}

/// What was registered with a funding output.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Parameters {
    /// The registered message, as it was encoded.
    pub encoded: Vec<u8>,
    /// What may not change when the channel is spliced: all but the funding keys, the value and the parent.
    pub lasting: Digest,
    /// The funding transaction that a splice spent, when this output was made by one.
    pub parent: Option<TxId>,
}

/// A commitment by what it says and what it became.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Commitment {
    pub content: Digest,
    pub txid: TxId,
}

/// The counterparty's commitments, over all funding outputs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counterparty {
    /// Newest number signed.
    pub newest: Option<u64>,
    /// Newest number revoked.
    pub revoked: Option<u64>,
    /// Per-commitment points of the numbers that are signed and not revoked, and of the one that was revoked last.
    pub points: BTreeMap<u64, Point>,
    pub secrets: RevealedSecrets,
}

/// The holder's commitments, over all funding outputs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holder {
    /// Newest number validated.
    pub newest: Option<u64>,
    /// Newest number whose secret was released.
    pub revoked: Option<u64>,
    /// Lowest number signed for broadcast.
    pub signed: Option<u64>,
    /// A commitment that was shown before the parameters of its funding output: nothing depends on it yet.
    pub early: Option<Early>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Early {
    pub funding: FundingOutpoint,
    /// The message that showed it, as it was encoded.
    pub encoded: Vec<u8>,
}

impl ChannelState {
    pub fn funding(&self, outpoint: FundingOutpoint) -> Option<&Funding> {
        self.fundings.iter().find(|funding| funding.outpoint == outpoint)
    }

    pub(super) fn funding_mut(&mut self, outpoint: FundingOutpoint) -> Option<&mut Funding> {
        self.fundings.iter_mut().find(|funding| funding.outpoint == outpoint)
    }

    /// Whether anything was ever recorded of this channel.
    pub fn known(&self) -> bool {
        *self != Self::default()
    }
}
