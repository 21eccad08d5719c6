//! The command line, as far as it is about the on-chain wallet.

use std::str::FromStr;

use clap::Subcommand;

use super::args::Amount;

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum WalletCommand {
    /// The coins.
    Utxos,
    /// The addresses that were given out.
    Addresses {
        /// Those of change as well.
        #[arg(long)]
        change: bool,
    },
    /// Pay to an address.
    Send {
        address: String,
        amount: Amount,
        #[command(flatten)]
        how: How,
    },
    /// Pay all there is to an address, but for the reserve; with --utxo, all that those coins hold.
    SendAll {
        address: String,
        #[command(flatten)]
        how: How,
    },
    /// Raise the fee of an unconfirmed transaction: replace it where that is safe, else spend from it.
    Bump {
        txid: String,
        /// What it should come to, in sat/vB.
        #[arg(long, value_name = "SAT/VB")]
        fee_rate: FeeRate,
    },
    /// Name an address, a txid or a txid:vout. Without a name, remove it.
    Label {
        reference: String,
        #[arg(default_value = "")]
        label: String,
    },
    /// All names; `--json | jq -c '.labels[]'` makes lines that other wallets import (BIP 329).
    Labels,
    /// The watch-only descriptors, for other tools.
    Descriptors,
    /// Look at old blocks again, for transactions that the wallet missed.
    Rescan {
        /// The first block.
        from_height: u32,
    },
}

#[derive(Clone, Debug, clap::Args)]
pub(in crate::cli) struct How {
    /// In sat/vB [default: what bitcoind estimates for twelve blocks].
    #[arg(long, value_name = "SAT/VB")]
    pub fee_rate: Option<FeeRate>,
    /// Spend this coin and no others; may be given several times.
    #[arg(long = "utxo", value_name = "TXID:VOUT")]
    pub utxos: Vec<String>,
    /// A name for the transaction.
    #[arg(long, default_value = "")]
    pub label: String,
    /// Asked for again under this key, it is not sent again.
    #[arg(long, value_name = "KEY", default_value = "")]
    pub idempotency_key: String,
}

/// Satoshi a virtual byte, with at most three decimals.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::cli) struct FeeRate {
    pub sat_per_kvb: u64,
}

impl FromStr for FeeRate {
    type Err = String;

    fn from_str(s: &str) -> Result<Self, String> {
        let bad = || "not a fee rate: say 12 or 1.5 (sat/vB)".to_owned();
        let (whole, part) = s.split_once('.').unwrap_or((s, "0"));
        let digits = |s: &str| !s.is_empty() && s.chars().all(|c| c.is_ascii_digit());
        if !digits(whole) || !digits(part) || part.len() > 3 {
            return Err(bad());
        }
        let part: u64 = format!("{part:0<3}").parse().map_err(|_| bad())?;
        let rate = whole.parse::<u64>().ok().and_then(|whole| whole.checked_mul(1000)?.checked_add(part));
        match rate {
            None => Err(bad()),
            Some(0) => Err("a transaction without a fee is not relayed".into()),
            Some(sat_per_kvb) => Ok(Self { sat_per_kvb }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fee_rates_are_satoshi_a_virtual_byte() {
        let rate = |s: &str| s.parse::<FeeRate>().map(|rate| rate.sat_per_kvb);
        for (text, sat_per_kvb) in [("1", 1000), ("12", 12_000), ("1.5", 1500), ("0.25", 250), ("2.125", 2125)] {
            assert_eq!(rate(text), Ok(sat_per_kvb));
        }
        for bad in ["", "0", "-1", "1.", ".5", "1.2345", "x", "99999999999999999999"] {
            assert!(rate(bad).is_err(), "{bad}");
        }
    }
}
