//! `holdfast-signer init`: makes the keys, the guard store and the record of the node id. Nothing else ever does.

use std::{
    fs, io,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
};

use holdfast_signer::{config::SignerConfig, custody, guard::EmbeddedStore, harden};

use super::{Exit, Failure, node_id};

pub fn run(config: &Path) -> Result<(), Failure> {
    let config = SignerConfig::load(config)?;
    harden::process().map_err(|e| Failure::new(Exit::Software, format!("hardening the process: {e}")))?;
    create_directory(&config.data_dir)?;
    // Before any key is made: a guard without keys can be made again, keys without a guard must not be used.
    for existing in [node_id::path(&config.data_dir), guard_path(&config.data_dir)] {
        match existing.symlink_metadata() {
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => return Err(cannot(&existing, e)),
            Ok(_) => return Err(cannot(&existing, "already exists; init never replaces anything")),
        }
    }
    let guard = guard_path(&config.data_dir);
    EmbeddedStore::create(&guard)?;
    let custody = custody::init(&config.custody, config.network, &config.data_dir).inspect_err(|_| {
        // It is empty, and the next init makes it again. The failure to tell is that of custody.
        let _ = fs::remove_file(&guard);
    })?;
    let id = custody.identity().public_key();
    custody.self_test().map_err(Failure::from).and_then(|()| node_id::record(&config.data_dir, &id)).map_err(|e| {
        e.and(format!(
            "keys of node {id} were made, and are of no use: remove them and {} to start over",
            guard.display()
        ))
    })?;
    println!("{id}");
    Ok(())
}

pub fn guard_path(data_dir: &Path) -> PathBuf {
    data_dir.join("guard.redb")
}

fn create_directory(path: &Path) -> Result<(), Failure> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(|e| cannot(path, e))
}

fn cannot(path: &Path, why: impl std::fmt::Display) -> Failure {
    Failure::new(Exit::CantCreate, format!("{}: {why}", path.display()))
}
