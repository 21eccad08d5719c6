//! Which version of a secret is in use: a small file beside the guard, which holds nothing secret.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use bitcoin::{Network, secp256k1::PublicKey};
use serde::{Deserialize, Serialize};

use crate::custody::{CustodyError, files};

const VERSION: u32 = 1;

/// The version of the secret that gave this node's keys when it was last read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pin {
    pub secret_arn: String,
    pub version_id: String,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    version: u32,
    network: String,
    node_id: String,
    secret_arn: String,
    version_id: String,
}

const PREAMBLE: &str = "\
# Which version of the secret this signer uses. It is no secret, and is written anew when another version gives the same node.

";

pub fn path(data_dir: &Path) -> PathBuf {
    data_dir.join("secret.pinned")
}

fn wrong(path: &Path, why: &str) -> CustodyError {
    CustodyError::Wrong(format!("pinned version {}: {why}", path.display()))
}

fn read(path: &Path) -> Result<Option<Document>, CustodyError> {
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(CustodyError::Unavailable(format!("pinned version {}: {e}", path.display()))),
    };
    let document: Document = toml::from_str(&text).map_err(|e| wrong(path, e.message()))?;
    match document.version {
        VERSION => Ok(Some(document)),
        _ => Err(wrong(path, "is of a format that this program does not know")),
    }
}

impl Pin {
    /// As it lies there, without a look at whose it is. None when no version is pinned yet.
    pub fn show(data_dir: &Path) -> Result<Option<Self>, CustodyError> {
        let pinned = read(&path(data_dir))?;
        Ok(pinned.map(|Document { secret_arn, version_id, .. }| Self { secret_arn, version_id }))
    }

    /// None when no version is pinned yet; an error when the pin is another node's.
    pub fn read(data_dir: &Path, network: Network, node_id: &PublicKey) -> Result<Option<Self>, CustodyError> {
        let path = path(data_dir);
        let wrong = |why: &str| wrong(&path, why);
        let Some(document) = read(&path)? else { return Ok(None) };
        if document.network != network.to_string() {
            return Err(wrong(&format!("is for network {}, not {network}", document.network)));
        }
        if document.node_id != node_id.to_string() {
            return Err(wrong(&format!("belongs to node {}, not {node_id}", document.node_id)));
        }
        Ok(Some(Self { secret_arn: document.secret_arn, version_id: document.version_id }))
    }

    /// Durable when this returns. A pin that is there is replaced.
    pub fn write(&self, data_dir: &Path, network: Network, node_id: &PublicKey) -> Result<(), CustodyError> {
        let path = path(data_dir);
        let fail = |e: &dyn std::fmt::Display| {
            CustodyError::Unavailable(format!("pinned version {} cannot be written: {e}", path.display()))
        };
        let document = Document {
            version: VERSION,
            network: network.to_string(),
            node_id: node_id.to_string(),
            secret_arn: self.secret_arn.clone(),
            version_id: self.version_id.clone(),
        };
        let text = format!("{PREAMBLE}{}", toml::to_string(&document).map_err(|e| fail(&e))?);
        files::replace_durably(&path, text.as_bytes()).map_err(|e| fail(&e))
    }
}
