//! Folders that a command makes for what it is about to write.

use std::{
    fs, io,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
};

use holdfast_signer::harden::confine::Plan;

use super::{Failure, establish::cannot};

/// A folder for its owner alone, and those above it that were missing. When the command fails with nothing in them, those
/// that it made are removed again: a folder of root's would be in the way of the service's user.
#[must_use]
pub struct Directory {
    /// The lowest first.
    made: Vec<PathBuf>,
}

impl Directory {
    /// Does nothing where `path` is a folder already.
    pub fn make(path: &Path) -> Result<Self, Failure> {
        let whole = std::path::absolute(path).map_err(|e| cannot(path, e))?;
        let missing =
            |folder: &&Path| matches!(folder.symlink_metadata(), Err(e) if e.kind() == io::ErrorKind::NotFound);
        let made = whole.ancestors().take_while(missing).map(Path::to_owned).collect();
        let directory = Self { made };
        fs::DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(|e| cannot(path, e))?;
        Ok(directory)
    }

    /// Lets a confined process remove what was made, while it is empty.
    pub fn may_go(&self, mut plan: Plan) -> Plan {
        plan.remove_empty.extend(self.made.last().and_then(|highest| highest.parent()).map(Path::to_owned));
        plan
    }

    /// What was made stays.
    pub fn keep(mut self) {
        self.made.clear();
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        // One that holds something stays, and so do those above it.
        let _ = self.made.iter().try_for_each(fs::remove_dir);
    }
}
