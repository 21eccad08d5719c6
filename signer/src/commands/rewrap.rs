//! `holdfast-signer rewrap`: the same seed behind another sealing key, or another backend.

use std::path::{Path, PathBuf};

use holdfast_signer::{
    config::SignerConfig,
    custody::{self, CustodyError, NodeIdentity, Seed, describe},
    harden::confine::Plan,
    keys::SeedIdentity,
};

use super::{
    Exit, Failure,
    directory::Directory,
    establish::{guard_path, prove, refuse_existing},
    node_id,
};

/// The seed is in this process's memory only on its way; no file of it in the clear is ever made. Nothing of the source is
/// changed or removed.
#[derive(clap::Args)]
#[command(after_help = "\
Example, from a passphrase to AWS KMS:
  holdfast-signer rewrap --from file.toml --to kms.toml

Both configurations are whole ones, as `run` takes them. Where source and target keep the sealed seed at the same place
(data_dir/seed.sealed), give the target a data_dir of its own.
A node key that was made in a token cannot leave it: such a seed has no other place (docs/custody/keys.md).")]
pub struct Args {
    /// The configuration in force
    #[arg(long, alias = "config", value_name = "FILE")]
    from: PathBuf,
    /// The configuration to come
    #[arg(long, value_name = "FILE")]
    to: PathBuf,
}

pub fn run(args: &Args) -> Result<(), Failure> {
    let (from, to) = (SignerConfig::load(&args.from)?, SignerConfig::load(&args.to)?);
    if from.network != to.network {
        let why = format!(
            "{} is for network {}, {} for {}",
            args.from.display(),
            from.network,
            args.to.display(),
            to.network
        );
        return Err(Failure::new(Exit::Config, why));
    }
    to.custody.check_for_making().map_err(|why| Failure::new(Exit::Config, format!("{}: {why}", args.to.display())))?;
    let node_id = node_id::read(&from.data_dir)?;
    let own_directory = !same_directory(&from.data_dir, &to.data_dir);
    if own_directory {
        refuse_existing(&to)?;
    }
    let stays = || {
        let why = format!(
            "the key of node {node_id} was made in a token and cannot leave it, so its seed has no other place. A token is \
             cloned or backed up by its own means: see docs/custody/keys.md"
        );
        Failure::new(Exit::NoPermission, why)
    };
    // The header says so before anything is opened or made.
    let sealed = describe::backend(&from.custody, &from.data_dir).sealed.map(|path| describe::sealed(&path));
    if matches!(sealed, Some(describe::Sealed::Present(header)) if header.identity_in_token) {
        return Err(stays());
    }
    // A rule for a folder needs one that is there.
    let directory = Directory::make(&to.data_dir)?;
    let confined = directory.may_go(Plan::for_keys(&from)?.and(Plan::for_keys(&to)?)).apply()?;
    let source = custody::open(&from.custody, from.network, &from.data_dir, &node_id)?;
    source.self_test()?;
    if source.identity_in_token() {
        return Err(stays());
    }
    let seed: Seed = source.unseal()?;
    if SeedIdentity::new(&seed)?.public_key() != node_id {
        let why = format!("the seed of {} is not that of node {node_id}", args.from.display());
        return Err(CustodyError::Wrong(why).into());
    }
    let at_the_target =
        |e: Failure| e.and(format!("nothing of {} was changed, and it stays in force", args.from.display()));
    custody::import(&to.custody, to.network, &to.data_dir, seed.clone()).map_err(|e| at_the_target(e.into()))?;
    prove(&to, &node_id, &seed).map_err(|e| {
        let made = describe::backend(&to.custody, &to.data_dir).holds.join(", ");
        at_the_target(e.into()).and(format!("what was made at the target is of no use: remove {made}"))
    })?;
    confined.seal()?;
    if own_directory {
        node_id::record(&to.data_dir, &node_id).map_err(at_the_target)?;
    }
    directory.keep();
    println!("{node_id}");
    eprint!("{}", next_steps(args, &from, &to, own_directory));
    Ok(())
}

/// What is left to do by hand, in an order in which there is never a signer without its guard, nor two with one seed.
fn next_steps(args: &Args, from: &SignerConfig, to: &SignerConfig, own_directory: bool) -> String {
    let (source, target) =
        (describe::backend(&from.custody, &from.data_dir), describe::backend(&to.custody, &to.data_dir));
    let mut steps = vec![format!("stop the signer that runs with {}", args.from.display())];
    if own_directory {
        let (old, new) = (guard_path(&from.data_dir), guard_path(&to.data_dir));
        steps.push(format!(
            "move its guard, do not copy it: mv {} {}\n     (without it neither signer starts, and two copies would each sign what the other has revoked)",
            old.display(),
            new.display()
        ));
    }
    let to = args.to.display();
    steps.push(format!("holdfast-signer check --config {to}, then holdfast-signer run --config {to}"));
    steps.push(format!("when replicas work with it, retire the source: remove {}", source.holds.join("; ")));
    let steps: Vec<_> = (1..).zip(steps).map(|(number, step)| format!("  {number}. {step}\n")).collect();
    format!(
        "the seed is now sealed by backend {} as well, which gave it back and proved itself. The source is as it was:\n{}",
        target.name,
        steps.concat()
    )
}

fn same_directory(a: &Path, b: &Path) -> bool {
    match (a.canonicalize(), b.canonicalize()) {
        (Ok(a), Ok(b)) => a == b,
        // One that is not there yet is another.
        _ => false,
    }
}
