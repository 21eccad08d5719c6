//! `holdfast-signer restore`: a node's seed from enough shares of a backup.

use std::path::{Path, PathBuf};

use bitcoin::secp256k1::PublicKey;
use holdfast_signer::{
    config::SignerConfig,
    custody::{
        self,
        backup::{self, JoinError, Share, ShareError},
    },
};

use super::{
    Exit, Failure,
    confirm::confirm,
    establish::{establish_with, refuse_existing},
};

/// The seed comes back; what the old signer's guard recorded does not. Channels that were open before cannot go on: read
/// docs/custody/keys.md.
#[derive(clap::Args)]
#[command(after_help = "\
Example, for a backup of which three shares are needed:
  holdfast-signer restore --config signer.toml --expect-node-id 02ab... a.share b.share c.share

Without --expect-node-id the node id is printed and nothing is made. The configuration may name another backend than
the one that was backed up. The shares have to be readable by you alone (chmod 600).")]
pub struct Args {
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// The node that you mean; without it the node id is printed and nothing is made
    #[arg(long, value_name = "ID")]
    expect_node_id: Option<PublicKey>,
    /// Restore the seed of a node whose key was made in a token that is lost: its coins come back, as another node's
    #[arg(long)]
    as_another_node: bool,
    /// Shares of one backup, as many as it needs or more
    #[arg(value_name = "SHARE", required = true)]
    shares: Vec<PathBuf>,
}

pub fn run(args: &Args) -> Result<(), Failure> {
    let config = SignerConfig::load(&args.config)?;
    refuse_existing(&config)?;
    let shares = args.shares.iter().map(|path| read(path)).collect::<Result<Vec<_>, _>>()?;
    let (seed, node_id) = match args.as_another_node {
        true => backup::join_as_another_node(&shares)?,
        // It is the seed of the node that the shares name.
        false => (backup::join(&shares)?, shares[0].common().node_id),
    };
    // There is one: no shares give no seed.
    let network = shares[0].common().network;
    if network != config.network {
        let why = format!("the backup is of a node on {network}, and the configuration is for {}", config.network);
        return Err(Failure::new(Exit::DataError, why));
    }
    confirm(&node_id, config.network, args.expect_node_id.as_ref())?;
    let id = establish_with(&config, &seed)?;
    println!("{id}");
    Ok(())
}

/// A share, checked; its signature is verified.
pub fn read(path: &Path) -> Result<Share, Failure> {
    let text = custody::read_private(path, "share").map_err(Failure::of_input)?;
    let bad = |why: &dyn std::fmt::Display| Failure::new(Exit::DataError, format!("share {}: {why}", path.display()));
    let text = std::str::from_utf8(&text).map_err(|_| bad(&"is not UTF-8"))?;
    Share::parse(text).map_err(|error: ShareError| bad(&error))
}

impl From<JoinError> for Failure {
    fn from(error: JoinError) -> Self {
        match error {
            JoinError::Custody(error) => error.into(),
            error => Self::new(Exit::DataError, error),
        }
    }
}
