//! `holdfast-signer check`: proves that what is configured is the node that is recorded.

use std::path::{Path, PathBuf};

use bitcoin::secp256k1::PublicKey;
use holdfast_signer::{
    config::SignerConfig,
    custody::{self, NodeIdentity},
    guard::{self, Inspection},
    harden::confine::Plan,
    keys::{NodeKeys, SeedIdentity},
};

use super::{Exit, Failure, establish::guard_path, node_id};

/// Nothing is written, and a signer that is running is not disturbed. A token's PIN is used once: a wrong one counts.
#[derive(clap::Args)]
#[command(after_help = "\
Example:
  holdfast-signer check --config signer.toml

It opens the configured custody as `run` does, unseals the seed, derives from it, signs and does an ECDH with the node
key, checks both against the recorded node id, and verifies every record of the guard unless a signer is running on it.")]
pub struct Args {
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub fn run(args: &Args) -> Result<(), Failure> {
    let config = SignerConfig::load(&args.config)?;
    let node_id = node_id::read(&config.data_dir)?;
    let confined = Plan::for_keys(&config)?.apply()?;
    let backend = prove_custody(&config, &node_id)?;
    confined.seal()?;
    let inspection = guard::inspect(&guard_path(&config.data_dir), backend.records_key)?;
    let guard = describe(&inspection, &config.data_dir);
    if args.json {
        let (state, channels, newest_term) = match inspection {
            Inspection::Verified { channels, newest_term } => ("verified", Some(channels), Some(newest_term)),
            Inspection::InUse => ("in use", None, None),
            Inspection::Unclean => ("not closed", None, None),
        };
        let report = serde_json::json!({
            "node_id": node_id.to_string(),
            "network": config.network.to_string(),
            "backend": backend.name,
            "identity_in_token": backend.identity_in_token,
            "custody": "proved",
            "guard": { "state": state, "channels": channels, "newest_term": newest_term },
        });
        println!("{report}");
    } else {
        let identity = if backend.identity_in_token { "made in the token" } else { "a child of the seed" };
        println!("node id     {node_id}");
        println!("network     {}", config.network);
        println!("backend     {}", backend.name);
        println!("node key    {identity}; a signature and an ECDH fit the node id");
        println!("seed        unsealed, keys derive from it");
        println!("guard       {guard}");
    }
    Ok(())
}

struct Proved {
    name: &'static str,
    identity_in_token: bool,
    records_key: zeroize::Zeroizing<[u8; 32]>,
}

fn prove_custody(config: &SignerConfig, node_id: &PublicKey) -> Result<Proved, Failure> {
    let wrong = |found: &PublicKey| {
        Failure::new(Exit::NoPermission, format!("custody gives node {found}, and {node_id} is recorded"))
    };
    let custody = custody::open(&config.custody, config.network, &config.data_dir, node_id)?;
    let found = custody.identity().public_key();
    if found != *node_id {
        return Err(wrong(&found));
    }
    custody.self_test()?;
    let seed = custody.unseal()?;
    if !custody.identity_in_token() {
        let found = SeedIdentity::new(&seed)?.public_key();
        if found != *node_id {
            return Err(wrong(&found));
        }
    }
    let keys = NodeKeys::new(seed, config.network)?;
    Ok(Proved {
        name: custody.backend(),
        identity_in_token: custody.identity_in_token(),
        records_key: keys.guard_records_key().clone(),
    })
}

fn describe(inspection: &Inspection, data_dir: &Path) -> String {
    let path = guard_path(data_dir);
    match inspection {
        Inspection::Verified { channels, newest_term } => {
            format!("{}: every record is authentic; {channels} channels, newest term {newest_term}", path.display())
        }
        Inspection::InUse => {
            format!("{}: NOT checked, a signer is running on it (ask it: holdfast-signer status)", path.display())
        }
        Inspection::Unclean => {
            format!(
                "{}: NOT checked, the signer did not end in order; its next start mends and checks it",
                path.display()
            )
        }
    }
}
