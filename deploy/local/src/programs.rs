//! Where the programs under test are: beside this one, as cargo leaves them.

use std::{
    env,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};

/// The programs of Holdfast that a deployment runs.
#[derive(Clone, Debug)]
pub struct Programs {
    pub signer: PathBuf,
    pub node: PathBuf,
    pub cli: PathBuf,
}

impl Programs {
    /// Looks in the folder of the running program and, because tests lie in `deps/`, in the one above.
    pub fn find() -> Result<Self> {
        let exe = env::current_exe().context("the path of this program")?;
        let folders: Vec<&Path> = exe.ancestors().skip(1).take(2).collect();
        let find = |name: &str| {
            let found = folders.iter().map(|folder| folder.join(name)).find(|path| path.is_file());
            match found {
                Some(path) => Ok(path),
                None => bail!("{name} is not beside {}: run 'make build' (or cargo build --bins) first", exe.display()),
            }
        };
        Ok(Self { signer: find("holdfast-signer")?, node: find("holdfast-node")?, cli: find("holdfast")? })
    }
}
