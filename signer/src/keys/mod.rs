//! Derivation from the seed, and signing with what was derived.
//!
//! Keys derive exactly as LDK's `KeysManager` derives them, so that a node that ran on it can be imported with its seed.
//! They are derived here, not there, for two reasons: `KeysManager` leaves copies of its secrets behind, and some of
//! its signatures are salted with randomness, while ours answer the same question with the same bytes (P5).
//! Every signature is RFC 6979 with low R, and verified before it leaves.

mod channel;
mod derive;
mod identity;
mod own_scripts;
mod secret;
mod sign;
mod spendable;
mod verify;
mod wallet;

#[cfg(test)]
mod tests;

pub use channel::{ChannelKeys, HolderHtlc, funding_output};
pub use derive::{NodeKeys, ReplicaSecrets};
pub use identity::SeedIdentity;
pub use secret::Secret;
pub use verify::{CommitmentSignatures, verify_holder_commitment};
pub use wallet::Wallet;

pub(crate) use sign::secp;
