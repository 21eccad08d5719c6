//! Between the words of the wire and the types of LDK and rust-bitcoin.
//!
//! Everything here that reads a message treats it as hostile: whatever LDK would panic on (a commitment number beyond
//! 48 bits, values that sum past the channel's, a channel type it computes differently) is `Error::Misuse` with the
//! path of the field instead. What comes out can be handed to LDK's builders.

mod channel;
mod commitment;
mod onchain;
pub mod parse;

#[cfg(test)]
mod tests;

pub use channel::{ChannelRef, channel_type_to_ldk, channel_type_to_wire, parameters_to_ldk, parameters_to_wire};
pub use channel::{public_keys_to_ldk, public_keys_to_wire};
pub use commitment::{CommitmentFields, CommitmentNumber, htlc_to_ldk, htlc_to_wire};
pub use commitment::{MAX_FEERATE_SAT_PER_KW, MAX_HTLCS};
pub use onchain::{SpendableOutput, closing_to_ldk, outpoint_to_wire, spendable_to_wire, tx_out_to_wire};
