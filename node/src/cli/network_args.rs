//! The commands about the network, as they are typed.

use std::path::PathBuf;

use clap::Subcommand;

use super::args::{Amount, NodeId};

#[derive(Debug, Subcommand)]
pub(super) enum NetworkCommand {
    /// The network as the node knows it: nodes by id, then channels by short id.
    DescribeGraph {
        /// Only this node and its channels.
        #[arg(long, value_name = "NODE_ID")]
        node: Option<NodeId>,
        /// Entries on a page, at most 1000.
        #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=1000))]
        limit: u32,
        /// Go on where a page ended: its `next`.
        #[arg(long, value_name = "NEXT", default_value = "", hide_default_value = true)]
        after: String,
        /// All pages.
        #[arg(long, conflicts_with = "after")]
        all: bool,
    },
    /// The way that a payment would take now. Nothing is sent.
    FindRoute {
        /// Whom it is to reach: 66 hex digits.
        node_id: NodeId,
        /// What is to arrive, e.g. 2500sat.
        amount: Amount,
        /// For all hops together; without limit unless given.
        #[arg(long, value_name = "AMOUNT")]
        max_fee: Option<Amount>,
        /// Channels of each part's way.
        #[arg(long, value_name = "HOPS", default_value_t = 19, value_parser = clap::value_parser!(u32).range(1..=19))]
        max_hops: u32,
        /// Blocks for which the money may be bound.
        #[arg(long, value_name = "BLOCKS", default_value_t = 1008, value_parser = clap::value_parser!(u32).range(42..=1008))]
        max_cltv_delta: u32,
        /// Ways that the amount may be split over.
        #[arg(long, value_name = "PARTS", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=10))]
        max_parts: u32,
    },
    /// What names each channel and its peer, for the day on which the database is lost.
    #[command(subcommand)]
    ChannelBackup(ChannelBackupCommand),
}

#[derive(Debug, Subcommand)]
pub(super) enum ChannelBackupCommand {
    /// Print the backup as JSON, or write it to a file. It holds no secret.
    Export {
        /// Replaced whole, or not at all.
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
    },
    #[command(flatten)]
    Recovery(RecoveryCommand),
}

#[derive(Debug, Subcommand)]
pub(super) enum RecoveryCommand {
    /// After the loss of the whole database: get back what is left of the channels of a backup that the database does not
    /// know. Their peers are asked to close them, and what is ours is swept to the wallet. May be repeated.
    Recover {
        /// What `export` wrote.
        file: PathBuf,
        /// No block below is looked at: where the oldest of the channels was opened, or later [default: all may have to be].
        #[arg(long, value_name = "HEIGHT", default_value_t = 0, hide_default_value = true)]
        from_height: u32,
    },
    /// How far each recovery is.
    Status,
}
