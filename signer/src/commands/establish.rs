//! What `init`, `import` and `restore` share: an empty data directory becomes that of a node, or stays as it was.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use bitcoin::secp256k1::PublicKey;
use holdfast_signer::{
    config::SignerConfig,
    custody::{self, Custody, CustodyError, Seed, describe},
    guard::EmbeddedStore,
    harden::confine::Plan,
};

use super::{Exit, Failure, directory::Directory, node_id};

/// Refuses a data directory that is a node's already, and a configuration that keys are not made with. Nothing is made, read or asked for before this.
pub fn refuse_existing(config: &SignerConfig) -> Result<(), Failure> {
    config.custody.check_for_making().map_err(|why| Failure::new(Exit::Config, why))?;
    for existing in [node_id::path(&config.data_dir), guard_path(&config.data_dir)] {
        match existing.symlink_metadata() {
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => return Err(cannot(&existing, e)),
            Ok(_) => return Err(cannot(&existing, "already exists; it belongs to a node, and is never replaced")),
        }
    }
    Ok(())
}

/// Makes the guard, then custody by `make`, and records the node id that this gives, once custody has proved itself. The process is
/// confined from here on, because a rule for the data directory needs one that is there.
pub fn establish(
    config: &SignerConfig,
    make: impl FnOnce() -> Result<Arc<dyn Custody>, CustodyError>,
) -> Result<PublicKey, Failure> {
    refuse_existing(config)?;
    let directory = Directory::make(&config.data_dir)?;
    let confined = directory.may_go(Plan::for_keys(config)?).apply()?;
    // Before any key: a guard without keys can be made again, keys without a guard must not be used.
    let guard = guard_path(&config.data_dir);
    EmbeddedStore::create(&guard)?;
    let custody = make().inspect_err(|_| {
        // It is empty, and the next attempt makes it again. The failure to tell is that of custody.
        let _ = fs::remove_file(&guard);
    })?;
    let id = custody.identity().public_key();
    let proved = custody.self_test().map_err(Failure::from).and_then(|()| Ok(confined.seal()?));
    proved.and_then(|()| node_id::record(&config.data_dir, &id)).map_err(|e| {
        e.and(format!(
            "keys of node {id} were made, and are of no use: remove them and {} to start over",
            guard.display()
        ))
    })?;
    directory.keep();
    Ok(id)
}

/// As `establish`, with a seed that exists already. What was written is read again, and has to give the same seed.
pub fn establish_with(config: &SignerConfig, seed: &Seed) -> Result<PublicKey, Failure> {
    establish(config, || {
        let custody = custody::import(&config.custody, config.network, &config.data_dir, seed.clone())?;
        match prove(config, &custody.identity().public_key(), seed) {
            Ok(()) => Ok(custody),
            Err(error) => {
                let made = describe::backend(&config.custody, &config.data_dir).holds.join(", ");
                let why = format!("{error}; what was made is of no use: remove {made}");
                Err(match error {
                    CustodyError::Unavailable(_) => CustodyError::Unavailable(why),
                    CustodyError::Wrong(_) => CustodyError::Wrong(why),
                })
            }
        }
    })
}

/// Opens what is configured as `run` will, and compares what it gives with `seed`.
pub fn prove(config: &SignerConfig, node_id: &PublicKey, seed: &Seed) -> Result<(), CustodyError> {
    let opened = custody::open(&config.custody, config.network, &config.data_dir, node_id)?;
    opened.self_test()?;
    let unsealed = opened.unseal()?;
    match custody::same(&unsealed, seed) {
        true => Ok(()),
        false => Err(CustodyError::Wrong("what was sealed does not unseal to the same seed".into())),
    }
}

pub fn guard_path(data_dir: &Path) -> PathBuf {
    data_dir.join("guard.redb")
}

pub fn cannot(path: &Path, why: impl std::fmt::Display) -> Failure {
    Failure::new(Exit::CantCreate, format!("{}: {why}", path.display()))
}
