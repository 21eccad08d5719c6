//! The node id that `init` records, so that keys of another node are never taken for this one's (P8).

use std::{
    fs,
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use bitcoin::secp256k1::PublicKey;

use super::{Exit, Failure};

pub fn path(data_dir: &Path) -> PathBuf {
    data_dir.join("node_id")
}

pub fn read(data_dir: &Path) -> Result<PublicKey, Failure> {
    let path = path(data_dir);
    let text = fs::read_to_string(&path).map_err(|e| match e.kind() {
        io::ErrorKind::NotFound => {
            let why = "no node id is recorded: run `holdfast-signer init` first, or restore this file";
            Failure::new(Exit::NoInput, format!("{}: {why}", path.display()))
        }
        _ => Failure::new(Exit::NoInput, format!("{}: {e}", path.display())),
    })?;
    text.trim().parse().map_err(|_| Failure::new(Exit::Config, format!("{}: not a node id", path.display())))
}

/// Durable when this returns; one that is recorded is never replaced.
pub fn record(data_dir: &Path, node_id: &PublicKey) -> Result<(), Failure> {
    let path = path(data_dir);
    let written = (|| {
        let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o644).open(&path)?;
        writeln!(file, "{node_id}")?;
        file.sync_all()?;
        fs::File::open(data_dir)?.sync_all()
    })();
    written.map_err(|e: io::Error| Failure::new(Exit::CantCreate, format!("{}: {e}", path.display())))
}
