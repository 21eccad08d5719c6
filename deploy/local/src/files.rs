//! Files of a deployment: configuration, and secrets that only their owner may read.

use std::{fs::OpenOptions, io::Write, os::unix::fs::OpenOptionsExt, path::Path};

use anyhow::{Context, Result};

/// Makes a file that must not exist yet, readable by its owner only.
pub(crate) fn write_secret(path: &Path, content: &str) -> Result<()> {
    let write =
        || OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?.write_all(content.as_bytes());
    write().with_context(|| format!("writing {}", path.display()))
}

/// 128 random bits as hex digits.
pub(crate) fn random_hex() -> String {
    let mut bytes = [0; 16];
    // The operating system's generator does not fail on a machine that got this far; without it nothing is safe to go on.
    getrandom::fill(&mut bytes).expect("the system's random numbers");
    hex::encode(bytes)
}

/// A path as a TOML string.
pub(crate) fn quoted(path: &Path) -> String {
    toml::Value::String(path.display().to_string()).to_string()
}
