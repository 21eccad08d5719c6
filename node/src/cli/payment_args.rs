//! The command line, as far as it is about payments.

use std::{str::FromStr, time::Duration};

use clap::{Args as ClapArgs, Subcommand};

use super::args::{Amount, AmountOrAny, NodeId, duration};

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum PaymentCommand {
    /// Make an invoice.
    Invoice {
        /// AMOUNT, or `any` to let the payer choose.
        amount: AmountOrAny,
        /// What it is for; the payer sees it.
        #[arg(default_value = "")]
        description: String,
        /// Until when it can be paid.
        #[arg(long, value_name = "TIME", default_value = "1h", value_parser = duration)]
        expiry: Duration,
        /// A note of yours, kept with the payment.
        #[arg(long, default_value = "")]
        label: String,
        /// When it is paid, wait for `settle` or `cancel`.
        #[arg(long)]
        hold: bool,
        /// As --hold, for the hash of a preimage that you will give to `settle`.
        #[arg(long)]
        hash: Option<Hash>,
        /// Blocks that the last hop must leave us [default for --hold: 144, a day].
        #[arg(long, value_name = "BLOCKS", default_value_t = 0, hide_default_value = true)]
        final_cltv_delta: u32,
        /// BOLT 11 payment metadata in hex; the payer sends it along.
        #[arg(long, value_name = "HEX", default_value = "")]
        metadata: String,
    },
    /// Take the money of a hold invoice that was paid.
    Settle {
        /// The invoice's payment hash; not needed with --preimage.
        #[arg(required_unless_present = "preimage")]
        hash: Option<Hash>,
        /// Needed if the invoice was made with --hash; `-` reads it from the standard input.
        #[arg(long, value_name = "HEX")]
        preimage: Option<String>,
    },
    /// Give the money of a hold invoice back, or let nobody pay it any more.
    Cancel {
        /// The invoice's payment hash.
        hash: Hash,
    },
    /// BOLT 12 offers: make, list, disable.
    #[command(subcommand)]
    Offer(OfferCommand),
    /// Pay a BOLT 11 invoice or a BOLT 12 offer.
    Pay {
        /// lnbc... or lno1...
        invoice: String,
        /// For an invoice or offer without an amount.
        #[arg(long)]
        amount: Option<Amount>,
        #[command(flatten)]
        limits: PayLimits,
        /// For an offer: what the payee is told.
        #[arg(long, default_value = "")]
        note: String,
    },
    /// Pay a node without an invoice.
    Keysend {
        /// 66 hex digits.
        node_id: NodeId,
        amount: Amount,
        #[command(flatten)]
        limits: PayLimits,
    },
    /// BOLT 12 refunds: offer one, or claim one.
    #[command(subcommand)]
    Refund(RefundCommand),
    /// Find out whether an amount can reach a node, and for what fee, without paying.
    Probe {
        /// NODE_ID or a BOLT 11 invoice.
        payee: Payee,
        /// For an invoice that names one, not needed.
        amount: Option<Amount>,
        /// A way that costs more counts as none.
        #[arg(long, value_name = "AMOUNT")]
        max_fee: Option<Amount>,
        /// Try other ways for this long.
        #[arg(long, value_name = "TIME", default_value = "30s", value_parser = duration)]
        retry_for: Duration,
    },
    /// Payments, newest first; or one of them, with its parts.
    Payments {
        /// Only the payment with this hash or id.
        #[arg(value_name = "HASH", conflicts_with_all = ["limit", "before"])]
        hash: Option<String>,
        #[arg(long, default_value_t = 20)]
        limit: u32,
        /// Go on below this sequence number.
        #[arg(long, value_name = "SEQUENCE")]
        before: Option<u64>,
    },
}

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum OfferCommand {
    /// Make an offer, which can be paid any number of times.
    Create {
        /// AMOUNT, or `any` to let the payer choose.
        amount: AmountOrAny,
        /// What it is for; payers see it.
        #[arg(default_value = "")]
        description: String,
        /// Until when it can be paid [default: without end].
        #[arg(long, value_name = "TIME", value_parser = duration)]
        expiry: Option<Duration>,
        /// A note of yours.
        #[arg(long, default_value = "")]
        label: String,
    },
    /// The offers that we made, newest first.
    List {
        #[arg(long, default_value_t = 20)]
        limit: u32,
        /// Go on below this sequence number.
        #[arg(long, value_name = "SEQUENCE")]
        before: Option<u64>,
    },
    /// Let nobody pay an offer any more.
    Disable {
        /// As `offer list` shows it.
        offer_id: Hash,
    },
}

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum RefundCommand {
    /// Offer money to whoever has the refund.
    Create {
        amount: Amount,
        /// What it is for; the payee sees it.
        #[arg(default_value = "")]
        description: String,
        /// Until when it can be claimed.
        #[arg(long, value_name = "TIME", default_value = "1d", value_parser = duration)]
        expiry: Duration,
        #[command(flatten)]
        budget: Budget,
    },
    /// Ask for the money of a refund.
    Claim {
        /// lnr1...
        refund: String,
        /// A note of yours, kept with the payment.
        #[arg(long, default_value = "")]
        label: String,
        /// Wait this long for the money; it may come later as well.
        #[arg(long, value_name = "TIME", default_value = "60s", value_parser = duration)]
        wait: Duration,
    },
}

#[derive(Clone, Debug, PartialEq, Eq, ClapArgs)]
pub(in crate::cli) struct PayLimits {
    #[command(flatten)]
    pub budget: Budget,
    /// Wait this long for the outcome; the payment goes on either way.
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = duration)]
    pub wait: Duration,
}

#[derive(Clone, Debug, PartialEq, Eq, ClapArgs)]
pub(in crate::cli) struct Budget {
    /// Pay at most this for routing [default: 1 % and 50sat].
    #[arg(long, value_name = "AMOUNT")]
    pub max_fee: Option<Amount>,
    /// Make no new attempt after this [default: 15s, for an offer 60s].
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub retry_for: Option<Duration>,
    /// A note of yours, kept with the payment.
    #[arg(long, default_value = "")]
    pub label: String,
    /// A word of yours for this one payment: asked for again under it, nothing is paid twice.
    #[arg(long, value_name = "KEY", default_value = "")]
    pub idempotency_key: String,
}

/// 64 hex digits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::cli) struct Hash(pub String);

impl FromStr for Hash {
    type Err = String;

    fn from_str(s: &str) -> Result<Self, String> {
        match s.len() == 64 && s.chars().all(|c| c.is_ascii_hexdigit()) {
            true => Ok(Self(s.to_ascii_lowercase())),
            false => Err("not 64 hex digits".into()),
        }
    }
}

/// Whom to probe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::cli) enum Payee {
    Node(NodeId),
    Invoice(String),
}

impl FromStr for Payee {
    type Err = String;

    fn from_str(s: &str) -> Result<Self, String> {
        match s.get(..2).map(str::to_ascii_lowercase).as_deref() {
            Some("ln") => Ok(Self::Invoice(s.to_owned())),
            _ => s.parse().map(Self::Node),
        }
    }
}
