//! The signer process.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result};
use holdfast_proto::pki::Issued;
use rustix::process::Signal;

use crate::{
    files::{quoted, random_hex, write_secret},
    ports::Port,
    process::{Launch, Process},
    programs::Programs,
    softhsm::SoftHsm,
    wait::{Probe, wait_for},
    web,
};

const START: Duration = Duration::from_secs(60);

/// Where the signer's keys are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Custody {
    /// The node key in a SoftHSM token, the seed sealed by it.
    Pkcs11,
    /// An encrypted file.
    File,
}

#[derive(Debug)]
pub struct Signer {
    process: Process,
    endpoint: Port,
    health: Port,
    configuration: PathBuf,
    data: PathBuf,
}

impl Signer {
    /// Configures it in `<folder>/signer`, makes its keys, and starts it.
    pub(crate) async fn create(
        folder: &Path,
        logs: &Path,
        programs: &Programs,
        custody: Custody,
        token: &SoftHsm,
        identity: &Issued,
    ) -> Result<Self> {
        let home = folder.join("signer");
        let data = home.join("data");
        fs::create_dir_all(&data)?;
        let (endpoint, health) = (Port::lease()?, Port::lease()?);
        let custody = match custody {
            Custody::Pkcs11 => format!(
                "backend = \"pkcs11\"\n[custody.pkcs11]\nmodule = {}\ntoken = \"pkcs11:token={}\"\npin_file = {}\nlabel = \"holdfast\"\n",
                quoted(token.module()),
                SoftHsm::TOKEN,
                quoted(token.pin_file())
            ),
            Custody::File => {
                let passphrase = home.join("passphrase");
                write_secret(&passphrase, &random_hex())?;
                format!(
                    "backend = \"file\"\n[custody.file]\npath = {}\npassphrase_file = {}\n",
                    quoted(&home.join("seed.sealed")),
                    quoted(&passphrase)
                )
            }
        };
        let content = format!(
            "network = \"regtest\"\ndata_dir = {}\nlisten = \"{}\"\nhealth_listen = \"{}\"\n\
             [tls]\ncertificate = {}\nkey = {}\nca = {}\n[custody]\n{custody}",
            quoted(&data),
            endpoint.address(),
            health.address(),
            quoted(&identity.certificate),
            quoted(&identity.key),
            quoted(&identity.ca),
        );
        let configuration = home.join("signer.toml");
        fs::write(&configuration, content)?;

        let launch = |command: &str| {
            Launch::new(&programs.signer, [command, "--config", &configuration.display().to_string()])
                .env("SOFTHSM2_CONF", token.configuration().display().to_string())
        };
        launch("init").run().context("making the signer's keys")?;
        let process = Process::new("signer", launch("run"), logs);
        let signer = Self { process, endpoint, health, configuration, data };
        signer.start().await?;
        Ok(signer)
    }

    /// `host:port` of its gRPC.
    pub fn endpoint(&self) -> String {
        self.endpoint.address().to_string()
    }

    /// `host:port` of its health and metrics.
    pub fn health(&self) -> String {
        self.health.address().to_string()
    }

    pub fn configuration(&self) -> &Path {
        &self.configuration
    }

    /// Where the guard and the sealed seed are.
    pub fn data(&self) -> &Path {
        &self.data
    }

    pub fn process(&self) -> &Process {
        &self.process
    }

    pub async fn start(&self) -> Result<()> {
        self.process.start()?;
        wait_for("the signer to be ready", START, async || {
            if !self.process.is_running() {
                return Ok(Probe::Hopeless(format!("it ended:\n{}", self.process.log_tail(10))));
            }
            let status = web::get(&self.health(), "/readyz").await?.status;
            Ok(Probe::when(status == 200, (), || format!("/readyz says {status}")))
        })
        .await
    }

    pub fn kill(&self) -> Result<()> {
        self.process.kill()
    }

    pub(crate) fn stop(&self) -> Result<()> {
        self.process.stop(Signal::TERM, Duration::from_secs(10))
    }
}
