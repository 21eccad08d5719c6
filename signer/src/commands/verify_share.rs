//! `holdfast-signer verify-share`: whether a share is what it says, each by itself, without the others.

use std::path::PathBuf;

use bitcoin::secp256k1::PublicKey;
use holdfast_signer::custody::backup::Share;

use super::{Exit, Failure, restore::read};

#[derive(clap::Args)]
#[command(after_help = "\
Example, a yearly look at one share:
  holdfast-signer verify-share --expect-node-id 02ab... backup-5f1c2a90-share-2-of-5.txt

It checks each line's checksum and the node's signature on the whole share. No key is asked for, and no other share.")]
pub struct Args {
    /// The node that the share has to be of. A forged share is signed by the node that it names: name yours
    #[arg(long, value_name = "ID")]
    expect_node_id: Option<PublicKey>,
    /// Print JSON, one line a share
    #[arg(long)]
    json: bool,
    #[arg(value_name = "SHARE", required = true)]
    shares: Vec<PathBuf>,
}

pub fn run(args: &Args) -> Result<(), Failure> {
    for path in &args.shares {
        let share = read(path)?;
        let node_id = share.common().node_id;
        if args.expect_node_id.is_some_and(|expected| expected != node_id) {
            let why = format!("share {}: is of node {node_id}, not of the one that was expected", path.display());
            return Err(Failure::new(Exit::DataError, why));
        }
        match args.json {
            true => println!("{}", json(&share)),
            false => println!("{}: {}", path.display(), line(&share)),
        }
    }
    Ok(())
}

fn line(share: &Share) -> String {
    let common = share.common();
    format!(
        "good: share {} of {} ({} needed) of backup {}, node {}, {}, {}",
        share.index(),
        common.shares,
        common.threshold,
        hex::encode(common.id),
        common.node_id,
        common.network,
        common.date()
    )
}

fn json(share: &Share) -> serde_json::Value {
    let common = share.common();
    serde_json::json!({
        "node_id": common.node_id.to_string(),
        "network": common.network.to_string(),
        "backup": hex::encode(common.id),
        "made": common.date(),
        "index": share.index(),
        "shares": common.shares,
        "threshold": common.threshold,
        "identity_in_token": common.identity_in_token,
    })
}
