//! The command line, as far as it changes channels.

use clap::Subcommand;

use super::{
    args::{Amount, Peer},
    wallet_args::FeeRate,
};

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum ChannelCommand {
    /// Open a channel, funded from the on-chain balance.
    Open {
        /// NODE_ID, or NODE_ID@HOST:PORT if not connected yet.
        peer: Peer,
        /// Size of the channel, e.g. 1000000sat.
        capacity: Amount,
        /// Given to the peer at once.
        #[arg(long, value_name = "AMOUNT", default_value = "0sat")]
        push: Amount,
        /// Announce the channel to the network.
        #[arg(long)]
        public: bool,
        /// Of the funding transaction, in sat/vB [default: what bitcoind estimates for twelve blocks].
        #[arg(long, value_name = "SAT/VB")]
        fee_rate: Option<FeeRate>,
        /// The smallest HTLC that the peer may send us [default: 1msat].
        #[arg(long, value_name = "AMOUNT")]
        min_htlc: Option<Amount>,
        /// How many HTLCs the peer may have in flight to us, at most 483 [default: 50].
        #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..=483))]
        max_htlcs: Option<u32>,
        /// How much of the capacity the peer may have in flight to us [default: 100].
        #[arg(long, value_name = "PERCENT", value_parser = clap::value_parser!(u32).range(1..=100))]
        max_in_flight: Option<u32>,
    },
    /// Close a channel, in agreement with the peer.
    Close {
        /// Channel id or user channel id.
        channel: String,
        /// Without the peer: broadcast our commitment, and wait out its delay. Asks first.
        #[arg(long, conflicts_with_all = ["to", "fee_rate"])]
        force: bool,
        /// Do not ask.
        #[arg(short, long, requires = "force")]
        yes: bool,
        /// Where our money goes [default: the wallet]. The signer must allow the address.
        #[arg(long, value_name = "ADDRESS")]
        to: Option<String>,
        /// Of the closing transaction, as far as it is ours to say, in sat/vB.
        #[arg(long, value_name = "SAT/VB")]
        fee_rate: Option<FeeRate>,
    },
    /// Add to a channel from the wallet. Refused in this release, with the reason.
    SpliceIn {
        /// Channel id or user channel id.
        channel: String,
        amount: Amount,
    },
    /// Pay on chain out of a channel. Refused in this release, with the reason.
    SpliceOut {
        /// Channel id or user channel id.
        channel: String,
        amount: Amount,
        /// Where it goes [default: the wallet].
        address: Option<String>,
    },
    /// Change what forwarding over a channel costs.
    Policy {
        /// Channel id or user channel id.
        channel: String,
        /// For each HTLC.
        #[arg(long, value_name = "AMOUNT")]
        base_fee: Option<Amount>,
        /// Of each million that it carries.
        #[arg(long, value_name = "MILLIONTHS")]
        fee_ppm: Option<u32>,
        /// Blocks between the HTLC that comes in and the one that goes out.
        #[arg(long, value_name = "BLOCKS")]
        cltv_delta: Option<u32>,
    },
}
