//! What is refused: plain functions over plain data, no IO, no clock.
//!
//! A rule refuses or is silent; there is no mode in which it warns. What depends on a channel's history is in
//! [`guard::machine`](crate::guard::machine), which speaks in the same names.

mod access;
mod closing;
mod funding;
mod invoice;
mod limits;
mod onchain;

use std::fmt;

use holdfast_proto::error::Error;

pub use access::{Call, authorise};
pub use closing::check_close_destination;
pub(crate) use funding::check_channel_type;
pub use funding::check_parameters;
pub use invoice::check_invoice;
pub use limits::{Blocks, RulesConfig};
pub use onchain::{Spend, SpentCoin, check_wallet_spend};

/// One named check. The kebab-case name is what errors, metrics, the audit log and the documents show.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Rule {
    /// A channel's keys are never set up twice with different parameters.
    ChannelIdReuse,
    /// Both `to_self_delay`s are within limits.
    ContestDelay,
    /// Static remote key or zero-fee anchors, nothing older.
    ChannelType,
    /// A splice, where splices are allowed at all, spends the funding output into a registered 2-of-2.
    FundingScript,
    /// Commitment 0 has no HTLCs.
    FirstCommitment,
    /// Counterparty numbers go up by one; at most two unrevoked; the previous one is revoked.
    CommitmentNumber,
    /// The same number again is the same content.
    CommitmentRepeat,
    /// A holder commitment counts only with the counterparty's signatures on it and on its HTLCs.
    HolderCountersigned,
    /// A revoked holder commitment is never signed.
    HolderRevoked,
    /// A secret is released only when a newer holder commitment is validated.
    RevokeOrder,
    /// What was signed for broadcast is never revoked, and nothing is after a close was signed.
    RevokeSigned,
    /// A cooperative close pays us where the node's own keys are, or where the signer's configuration says.
    CloseDestination,
    /// A signed close ends the channel: no commitment comes after it.
    CloseHtlcs,
    /// A wallet transaction spends segwit outputs of known value, and those of ours are proven.
    OnchainInputs,
    /// A wallet transaction's fee is within limits, in rate and in all.
    OnchainFee,
    /// Invoices carry our node id, our network and an expiry within limits.
    Invoice,
    /// Only the newest term acts.
    Term,
    /// Each call is open only to those it is meant for.
    Identity,
}

impl Rule {
    pub const ALL: [Self; 18] = [
        Self::ChannelIdReuse,
        Self::ContestDelay,
        Self::ChannelType,
        Self::FundingScript,
        Self::FirstCommitment,
        Self::CommitmentNumber,
        Self::CommitmentRepeat,
        Self::HolderCountersigned,
        Self::HolderRevoked,
        Self::RevokeOrder,
        Self::RevokeSigned,
        Self::CloseDestination,
        Self::CloseHtlcs,
        Self::OnchainInputs,
        Self::OnchainFee,
        Self::Invoice,
        Self::Term,
        Self::Identity,
    ];

    pub const fn name(self) -> &'static str {
        match self {
            Self::ChannelIdReuse => "channel-id-reuse",
            Self::ContestDelay => "contest-delay",
            Self::ChannelType => "channel-type",
            Self::FundingScript => "funding-script",
            Self::FirstCommitment => "first-commitment",
            Self::CommitmentNumber => "commitment-number",
            Self::CommitmentRepeat => "commitment-repeat",
            Self::HolderCountersigned => "holder-countersigned",
            Self::HolderRevoked => "holder-revoked",
            Self::RevokeOrder => "revoke-order",
            Self::RevokeSigned => "revoke-signed",
            Self::CloseDestination => "close-destination",
            Self::CloseHtlcs => "close-htlcs",
            Self::OnchainInputs => "onchain-inputs",
            Self::OnchainFee => "onchain-fee",
            Self::Invoice => "invoice",
            Self::Term => "term",
            Self::Identity => "identity",
        }
    }

    /// Refuses by this rule.
    pub fn refuse<T>(self, why: impl Into<String>) -> Result<T, Refusal> {
        Err(Refusal { rule: self, why: why.into() })
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A rule said no, and why.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{rule}: {why}")]
pub struct Refusal {
    pub rule: Rule,
    pub why: String,
}

impl From<Refusal> for Error {
    fn from(refusal: Refusal) -> Self {
        Self::refused(refusal.rule.name(), refusal.why)
    }
}
