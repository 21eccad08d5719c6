//! A SoftHSM token of the deployment's own.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};

use crate::{files, process::Launch};

#[derive(Debug)]
pub struct SoftHsm {
    configuration: PathBuf,
    pin_file: PathBuf,
    module: PathBuf,
    tokens: PathBuf,
}

impl SoftHsm {
    pub const TOKEN: &str = "holdfast";

    /// Makes an empty token in `<folder>/softhsm`.
    pub(crate) fn create(folder: &Path) -> Result<Self> {
        let home = folder.join("softhsm");
        let tokens = home.join("tokens");
        fs::create_dir_all(&tokens)?;
        let configuration = home.join("softhsm2.conf");
        let content = format!(
            "directories.tokendir = {}\nobjectstore.backend = file\nlog.level = ERROR\nslots.removable = false\n",
            tokens.display()
        );
        fs::write(&configuration, content)?;
        let pin_file = home.join("pin");
        let pin = files::random_hex();
        files::write_secret(&pin_file, &pin)?;
        let token = Self { configuration, pin_file, module: module()?, tokens };
        Launch::new(
            "softhsm2-util",
            ["--init-token", "--free", "--label", Self::TOKEN, "--so-pin", &files::random_hex(), "--pin", &pin],
        )
        .env("SOFTHSM2_CONF", token.configuration.display().to_string())
        .run()
        .context("making a SoftHSM token")?;
        Ok(token)
    }

    /// What `SOFTHSM2_CONF` must say in a program that uses the token.
    pub fn configuration(&self) -> &Path {
        &self.configuration
    }

    pub fn pin_file(&self) -> &Path {
        &self.pin_file
    }

    /// The PKCS#11 library.
    pub fn module(&self) -> &Path {
        &self.module
    }

    /// The folder in which the token lives; without it the token is lost.
    pub fn tokens(&self) -> &Path {
        &self.tokens
    }
}

fn module() -> Result<PathBuf> {
    const PLACES: [&str; 3] = [
        "/usr/lib/softhsm/libsofthsm2.so",
        "/usr/lib/x86_64-linux-gnu/softhsm/libsofthsm2.so",
        "/usr/lib/aarch64-linux-gnu/softhsm/libsofthsm2.so",
    ];
    match PLACES.iter().find(|place| Path::new(place).exists()) {
        Some(place) => Ok(PathBuf::from(place)),
        None => bail!("no libsofthsm2.so found: run 'make system'"),
    }
}
