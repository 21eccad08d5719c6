//! The command line.

use std::{path::PathBuf, str::FromStr, time::Duration};

use clap::{Args as ClapArgs, Parser, Subcommand};
use holdfast_proto::identity::Role;

use super::{
    channel_args::ChannelCommand, forwards::ForwardsArgs, manual::ManualCommand, network_args::NetworkCommand,
    payment_args::PaymentCommand, wallet_args::WalletCommand, watch::WatchArgs,
};
use crate::config::HostPort;

/// Operate a Holdfast node.
///
/// Give it every replica; it finds the one that leads. Amounts carry their unit: 2500sat or 2500000msat.
#[derive(Debug, Parser)]
#[command(name = "holdfast", version, arg_required_else_help = true)]
pub(super) struct Args {
    #[command(flatten)]
    pub connection: ConnectionArgs,
    /// Print JSON instead of text; errors too, to stderr.
    #[arg(long, global = true)]
    pub json: bool,
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Clone, Debug, Default, ClapArgs)]
#[command(next_help_heading = "Connection")]
pub(super) struct ConnectionArgs {
    /// Operator API of a replica; may be given several times.
    #[arg(short, long = "endpoint", global = true, value_name = "HOST:PORT")]
    pub endpoints: Vec<HostPort>,
    /// Your certificate (role operator).
    #[arg(long, global = true, value_name = "FILE")]
    pub cert: Option<PathBuf>,
    /// Its key; nobody but you may be able to read it.
    #[arg(long, global = true, value_name = "FILE")]
    pub key: Option<PathBuf>,
    /// The authority's certificate.
    #[arg(long, global = true, value_name = "FILE")]
    pub ca: Option<PathBuf>,
    /// A file with endpoints, certificate, key and ca [default: ~/.config/holdfast/cli.toml, if there is one].
    #[arg(long, global = true, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// How long to look for a leader, and to wait for an answer that may be given up on: of what only looks, and of a new
    /// address, invoice or offer. What pays, opens, closes or sends is waited for until it is answered.
    #[arg(long, global = true, value_name = "TIME", default_value = "10s", value_parser = duration)]
    pub timeout: Option<Duration>,
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    #[command(flatten)]
    Node(NodeCommand),
    /// Say what an invoice, an offer or a refund holds. Asks no replica.
    Decode {
        /// BOLT 11 or BOLT 12.
        text: String,
    },
    /// Make and look at certificates.
    #[command(subcommand)]
    Pki(PkiCommand),
    /// Follow what happens: payments, channels, forwards, transactions, deposits, leaders.
    Watch(WatchArgs),
    #[command(flatten)]
    Manual(ManualCommand),
}

#[derive(Debug, Subcommand)]
pub(super) enum NodeCommand {
    /// The node in a few lines.
    Info,
    /// A new on-chain address to receive to.
    Address,
    /// On-chain and Lightning balances.
    Balance,
    /// The on-chain wallet.
    #[command(subcommand)]
    Wallet(WalletCommand),
    /// Connect to a peer, and keep connected.
    Connect {
        /// NODE_ID@HOST:PORT
        peer: PeerAddress,
    },
    /// Disconnect from a peer, and do not reconnect.
    Disconnect {
        /// 66 hex digits.
        node_id: NodeId,
    },
    #[command(flatten)]
    Channel(ChannelCommand),
    /// The channels.
    Channels,
    /// The peers.
    Peers,
    #[command(flatten)]
    Network(NetworkCommand),
    #[command(flatten)]
    Payment(PaymentCommand),
    /// HTLCs of others that were passed on, newest first, and what they earned in all.
    Forwards(ForwardsArgs),
    /// Who leads.
    Leader {
        #[command(subcommand)]
        command: Option<LeaderCommand>,
    },
    /// Let another replica lead, once what is in flight has been finished.
    Handover,
}

#[derive(Clone, Copy, Debug, Subcommand)]
pub(super) enum LeaderCommand {
    /// Which replica leads, which answer, and the latest takeovers (so does `leader` alone).
    Status,
}

#[derive(Debug, Subcommand)]
pub(super) enum PkiCommand {
    /// Make a new authority for a trust domain.
    Init {
        /// Where ca.pem and ca.key go. Keep it offline.
        #[arg(long, value_name = "DIR")]
        dir: PathBuf,
        /// What all identities start with: spiffe://DOMAIN/...
        #[arg(long)]
        domain: String,
    },
    /// Issue certificates with the authority in --dir: OUT/ROLE-NAME.pem and .key, with ca.pem beside them.
    Issue {
        /// The authority's directory.
        #[arg(long, value_name = "DIR")]
        dir: PathBuf,
        /// Where the files go.
        #[arg(long, value_name = "DIR", default_value = ".")]
        out: PathBuf,
        /// How long they are valid.
        #[arg(long, default_value_t = 365, value_parser = clap::value_parser!(u32).range(1..))]
        days: u32,
        /// replica, signer, operator or front.
        role: Role,
        /// One or more; each gets a certificate of its own.
        #[arg(required = true)]
        names: Vec<String>,
    },
    /// Say what certificates hold.
    Show {
        #[arg(required = true, value_name = "FILE")]
        certificates: Vec<PathBuf>,
    },
}

/// An amount in millisatoshi, given with its unit: a bare number would be wrong by a thousand half of the time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Amount {
    pub msat: u64,
}

impl Amount {
    /// For what exists only in whole satoshi.
    pub fn whole_sat(self) -> Option<u64> {
        self.msat.is_multiple_of(1000).then_some(self.msat / 1000)
    }
}

impl FromStr for Amount {
    type Err = String;

    fn from_str(s: &str) -> Result<Self, String> {
        let split = s.find(|c: char| !c.is_ascii_digit()).unwrap_or(s.len());
        let (digits, unit) = s.split_at(split);
        let number: u64 = digits.parse().map_err(|_| "not an amount: say 2500sat or 2500000msat".to_owned())?;
        let msat = match unit {
            "msat" => Some(number),
            "sat" => number.checked_mul(1000),
            "" => return Err(format!("{number} of what? say {number}sat or {number}msat")),
            _ => return Err(format!("`{unit}` is not a unit: say sat or msat")),
        };
        msat.map(|msat| Self { msat }).ok_or_else(|| "more than there is".to_owned())
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct AmountOrAny(pub Option<Amount>);

impl FromStr for AmountOrAny {
    type Err = String;

    fn from_str(s: &str) -> Result<Self, String> {
        if s == "any" { Ok(Self(None)) } else { s.parse().map(|amount| Self(Some(amount))) }
    }
}

/// A node's public key: 66 hex digits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct NodeId(pub String);

impl FromStr for NodeId {
    type Err = String;

    fn from_str(s: &str) -> Result<Self, String> {
        match s.parse::<bitcoin::secp256k1::PublicKey>() {
            Ok(key) => Ok(Self(key.to_string())),
            Err(_) => Err("not a node id, which is 66 hex digits starting with 02 or 03".into()),
        }
    }
}

/// A node, and where it is if we are not connected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Peer {
    pub node_id: NodeId,
    pub address: Option<HostPort>,
}

impl FromStr for Peer {
    type Err = String;

    fn from_str(s: &str) -> Result<Self, String> {
        match s.split_once('@') {
            Some((node_id, address)) => Ok(Self { node_id: node_id.parse()?, address: Some(address.parse()?) }),
            None => Ok(Self { node_id: s.parse()?, address: None }),
        }
    }
}

/// A node and where it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct PeerAddress {
    pub node_id: NodeId,
    pub address: HostPort,
}

impl FromStr for PeerAddress {
    type Err = String;

    fn from_str(s: &str) -> Result<Self, String> {
        match s.parse()? {
            Peer { node_id, address: Some(address) } => Ok(Self { node_id, address }),
            Peer { address: None, .. } => Err("say where it is: NODE_ID@HOST:PORT".into()),
        }
    }
}

/// A whole number with a unit: 500ms, 10s, 5m, 2h, 7d.
pub(super) fn duration(s: &str) -> Result<Duration, String> {
    let split = s.find(|c: char| !c.is_ascii_digit()).unwrap_or(s.len());
    let (digits, unit) = s.split_at(split);
    let number: u64 = digits.parse().map_err(|_| "not a time: say 10s, 5m or 2h".to_owned())?;
    let milliseconds = match unit {
        "ms" => 1,
        "s" => 1000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        "" => return Err(format!("{number} of what? say {number}s or {number}m")),
        _ => return Err(format!("`{unit}` is not a unit: say ms, s, m, h or d")),
    };
    number.checked_mul(milliseconds).map(Duration::from_millis).ok_or_else(|| "too long".to_owned())
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory, error::ErrorKind};

    use super::*;

    const NODE: &str = "02eec7245d6b7d2ccb30380bfbe2a3648cd7a942653f5aa340edcea1f283686619";

    fn parse(line: &str) -> Result<Args, clap::Error> {
        Args::try_parse_from(std::iter::once("holdfast").chain(line.split_whitespace()))
    }

    fn node(line: &str) -> NodeCommand {
        match parse(line).unwrap_or_else(|e| panic!("{line}: {e}")).command {
            Command::Node(command) => command,
            other => panic!("{line}: {other:?}"),
        }
    }

    #[test]
    fn the_command_line_is_well_formed() {
        Args::command().debug_assert();
    }

    #[test]
    fn every_command_parses() {
        for line in [
            "info",
            "address",
            "wallet utxos",
            "wallet addresses --change",
            "wallet send bcrt1qx 5000sat --fee-rate 1.5 --utxo 00ff:1 --utxo 00ff:2 --label rent",
            "wallet send-all bcrt1qx",
            "wallet bump 00ff --fee-rate 20",
            "wallet label bcrt1qx rent",
            "wallet labels",
            "wallet descriptors",
            "wallet rescan 800000",
            "balance",
            "channels",
            "peers",
            "describe-graph",
            "describe-graph --all --limit 5",
            &format!("describe-graph --node {NODE} --after node:02"),
            &format!("find-route {NODE} 5sat"),
            &format!("find-route {NODE} 5sat --max-fee 1sat --max-hops 3 --max-cltv-delta 100 --max-parts 1"),
            "channel-backup export",
            "channel-backup export --out backup.json",
            "channel-backup recover backup.json",
            "channel-backup recover backup.json --from-height 800000",
            "channel-backup status",
            "leader",
            "leader status",
            "handover",
            "payments",
            "payments --limit 5 --before 17",
            "payments 00ff",
            "forwards --limit 5 --before 17 --since 30d --until 2026-01-31 --channel 00ff",
            "close abcd",
            "policy abcd --base-fee 1sat --fee-ppm 100 --cltv-delta 80",
            "close abcd --force",
            "close abcd --force --yes",
            "close abcd --to bcrt1qx --fee-rate 1.5",
            "splice-in abcd 1000sat",
            "splice-out abcd 1000sat bcrt1qx",
            "invoice any",
            "invoice 2500sat coffee --expiry 10m",
            "pay lnbcrt1x --amount 1msat --max-fee 5sat --wait 500ms",
            "pay lno1x --amount 1sat --retry-for 5s --label rent --idempotency-key order-17 --note hello",
            "invoice any --hold --final-cltv-delta 288 --label x --metadata 00ff",
            &format!("invoice 5sat --hash {}", "ab".repeat(32)),
            &format!("settle {}", "ab".repeat(32)),
            &format!("settle --preimage {}", "ab".repeat(32)),
            &format!("cancel {}", "ab".repeat(32)),
            "offer create any coffee",
            "offer create 5sat coffee --expiry 7d --label shop",
            "offer list --limit 5",
            &format!("offer disable {}", "ab".repeat(32)),
            "refund create 5sat sorry --expiry 1d --max-fee 1sat --idempotency-key r-1",
            "refund claim lnr1x --wait 5s",
            "probe lnbcrt1x",
            &format!("probe {NODE} 5sat --max-fee 1sat --retry-for 5s"),
            &format!("connect {NODE}@127.0.0.1:9735"),
            &format!("disconnect {NODE}"),
            &format!("open {NODE} 1000000sat"),
            &format!("open {NODE}@host:9735 1000000sat --push 1000sat --public"),
            &format!("keysend {NODE} 10sat"),
        ] {
            node(line);
        }
        for line in [
            "pki init --dir d --domain example",
            "pki issue --dir d --out o replica a b",
            "pki issue --dir d --days 30 operator alice",
            "pki show a.pem b.pem",
        ] {
            assert!(matches!(parse(line).unwrap().command, Command::Pki(_)), "{line}");
        }
        for line in [
            "watch",
            "watch --from oldest --topic payment --topic leader",
            "watch --from 17 --count 3",
            "completions bash",
            "man --dir x",
        ] {
            parse(line).unwrap_or_else(|e| panic!("{line}: {e}"));
        }
    }

    #[test]
    fn options_may_stand_before_or_after_the_command() {
        for line in ["-e a:1 --endpoint b:2 --json info", "info -e a:1 --endpoint b:2 --json"] {
            let args = parse(line).unwrap();
            let endpoints: Vec<_> = args.connection.endpoints.iter().map(HostPort::as_str).collect();
            assert_eq!((endpoints, args.json), (vec!["a:1", "b:2"], true), "{line}");
        }
    }

    #[test]
    fn what_makes_no_sense_is_a_usage_error() {
        for line in [
            "frobnicate",
            "pay",
            "invoice",
            "invoice 2500",
            "invoice 1btc",
            "leader take",
            "payments 00ff --limit 5",
            "forwards --since yesterday",
            "pki issue --dir d root a",
            "pki issue --dir d replica",
            "pki issue --dir d --days 0 replica a",
            "info -e nowhere",
            "settle",
            "settle abcd",
            "offer create",
            "probe",
            "watch --from yesterday",
            "watch --count 0",
            "completions",
            "channel-backup",
            "channel-backup recover",
            "describe-graph --all --after x",
            "describe-graph --limit 1001",
            &format!("find-route {NODE}"),
            &format!("find-route {NODE} 5sat --max-hops 20"),
            "invoice 5sat --hash abcd",
            "info --timeout 10",
            "connect 02ab@host:1",
            &format!("connect {NODE}"),
            &format!("open {NODE} 1000000"),
            &format!("open {NODE} 1000000sat --max-htlcs 484"),
            &format!("open {NODE} 1000000sat --fee-rate 0"),
            "close abcd --yes",
            "close abcd --force --to bcrt1qx",
            &format!("keysend {NODE}"),
        ] {
            let error = parse(line).expect_err(line);
            assert!(error.use_stderr() && error.kind() != ErrorKind::DisplayHelp, "{line}");
        }
    }

    #[test]
    fn amounts_and_times_have_units() {
        let amount = |s: &str| s.parse::<Amount>();
        assert_eq!(amount("2500sat"), Ok(Amount { msat: 2_500_000 }));
        assert_eq!(amount("2500msat"), Ok(Amount { msat: 2500 }));
        assert_eq!(amount("2500sat").unwrap().whole_sat(), Some(2500));
        assert_eq!(amount("2500msat").unwrap().whole_sat(), None);
        assert!(amount("2500").unwrap_err().contains("2500sat or 2500msat"));
        for bad in
            ["", "sat", "-1sat", "1.5sat", "1 sat", "1btc", "18446744073709551615sat", "99999999999999999999msat"]
        {
            assert!(amount(bad).is_err(), "{bad}");
        }
        assert_eq!(duration("90s"), Ok(Duration::from_secs(90)));
        assert_eq!(duration("2h"), Ok(Duration::from_secs(7200)));
        for bad in ["", "s", "1", "1y", "1.5s", "18446744073709551615d"] {
            assert!(duration(bad).is_err(), "{bad}");
        }
    }
}
