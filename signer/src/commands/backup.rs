//! `holdfast-signer backup`: the seed, encrypted, in shares of which a few give it back.

use std::{
    fs,
    path::PathBuf,
    time::{SystemTime, UNIX_EPOCH},
};

use holdfast_signer::{
    config::SignerConfig,
    custody::{
        self,
        backup::{self, Plan, Share},
    },
    harden::confine,
};

use super::{Exit, Failure, directory::Directory, establish::cannot, node_id, restore};

/// The guard is not in it: a guard that is older than its node is worse than none.
#[derive(clap::Args)]
#[command(after_help = "\
Example, five shares of which any three restore the seed:
  holdfast-signer backup --config signer.toml --shares 5 --threshold 3 --out /media/usb

Bring the files to five places, then remove them here. Check one at any time with `holdfast-signer verify-share`. A
signer that is running goes on meanwhile.")]
pub struct Args {
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// How many shares to make, at most 255
    #[arg(long, value_name = "N")]
    shares: u8,
    /// How many of them restore the seed, at least 2
    #[arg(long, value_name = "K")]
    threshold: u8,
    /// The folder for the shares, a file each; files that exist are never replaced
    #[arg(long, value_name = "FOLDER")]
    out: PathBuf,
}

pub fn run(args: &Args) -> Result<(), Failure> {
    let plan = Plan::new(args.threshold, args.shares).map_err(|e| Failure::new(Exit::Usage, e))?;
    let config = SignerConfig::load(&args.config)?;
    let node_id = node_id::read(&config.data_dir)?;
    // A rule for a folder needs one that is there.
    let directory = Directory::make(&args.out)?;
    let mut allowed = directory.may_go(confine::Plan::for_keys(&config)?);
    allowed.write.insert(args.out.clone());
    let confined = allowed.apply()?;
    let custody = custody::open(&config.custody, config.network, &config.data_dir, &node_id)?;
    let made = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_err(|_| Failure::new(Exit::Software, "the clock is before 1970: set it"))?
        .as_secs();
    let shares = backup::split(&*custody, config.network, plan, made)?;
    confined.seal()?;
    let paths: Vec<_> = shares.iter().map(|share| args.out.join(file_name(share))).collect();
    let mut written = vec![];
    let proved = write(&shares, &paths, &mut written).and_then(|()| {
        let back = paths.iter().map(|path| restore::read(path)).collect::<Result<Vec<_>, _>>()?;
        prove(&back, plan, &custody.unseal()?)
    });
    if let Err(failure) = proved {
        let left: Vec<_> = written.iter().filter(|path| fs::remove_file(path).is_err()).collect();
        return Err(match left.is_empty() {
            true => failure.and("no share was left behind"),
            false => failure.and(format!("these shares are of no use and could not be removed: {left:?}")),
        });
    }
    directory.keep();
    paths.iter().for_each(|path| println!("{}", path.display()));
    if custody.identity_in_token() {
        eprintln!(
            "holdfast-signer: the key of node {node_id} was made in the token and is not in this backup. Back up the token \
             by its own means as well, and seed.sealed with it: see docs/custody/keys.md"
        );
    }
    Ok(())
}

/// The backup's own number is in the name, so that no two backups' shares are ever mixed up, or overwritten.
fn file_name(share: &Share) -> String {
    let common = share.common();
    format!("backup-{}-share-{}-of-{}.txt", hex::encode(&common.id[..4]), share.index(), common.shares)
}

fn write(shares: &[Share], paths: &[PathBuf], written: &mut Vec<PathBuf>) -> Result<(), Failure> {
    for (share, path) in shares.iter().zip(paths) {
        custody::create_private(path, share.to_text().as_bytes()).map_err(|e| cannot(path, e))?;
        written.push(path.clone());
    }
    Ok(())
}

/// Every share, as it was written, is part of a set that is just large enough and gives back the seed.
fn prove(shares: &[Share], plan: Plan, seed: &custody::Seed) -> Result<(), Failure> {
    for first in 0..shares.len() {
        let set: Vec<_> = shares.iter().cycle().skip(first).take(plan.threshold()).cloned().collect();
        if !backup::gives_back(&set, seed)? {
            return Err(Failure::new(Exit::Software, "the shares do not give back the seed"));
        }
    }
    Ok(())
}
