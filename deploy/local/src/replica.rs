//! A replica process.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::Result;
use holdfast_proto::pki::Issued;
use rustix::process::Signal;

use crate::{
    bitcoind::Bitcoind,
    files::quoted,
    ports::Port,
    postgres::Postgres,
    process::{Launch, Process},
    programs::Programs,
    wait::{Probe, wait_for},
    web,
};

const START: Duration = Duration::from_secs(60);

#[derive(Debug)]
pub struct Replica {
    name: String,
    process: Process,
    peers: Port,
    api: Port,
    health: Port,
    configuration: PathBuf,
}

/// What a replica needs to know of the others.
pub(crate) struct Setting<'a> {
    pub name: &'a str,
    pub folder: &'a Path,
    pub logs: &'a Path,
    pub programs: &'a Programs,
    pub identity: &'a Issued,
    pub postgres: &'a Postgres,
    pub bitcoind: &'a Bitcoind,
    pub signer_endpoint: &'a str,
    pub tables: &'a str,
}

impl Replica {
    /// Configures it in `<folder>/<name>`; `start` runs it.
    pub(crate) fn create(setting: &Setting<'_>) -> Result<Self> {
        let Setting { name, folder, logs, programs, identity, postgres, bitcoind, signer_endpoint, tables } = *setting;
        let home = folder.join(name);
        fs::create_dir(&home)?;
        let (peers, api, health) = (Port::lease()?, Port::lease()?, Port::lease()?);
        let content = format!(
            "network = \"regtest\"\nalias = \"holdfast\"\n\
             [tls]\ncertificate = {}\nkey = {}\nca = {}\n\
             [postgres]\nhost = \"127.0.0.1\"\nport = {}\ndatabase = \"{}\"\nuser = \"{}\"\npassword_file = {}\ntls = \"disable\"\n\
             [signer]\nendpoints = [\"{signer_endpoint}\"]\n\
             [bitcoind]\nurl = \"{}\"\ncookie_file = {}\n\
             [peers]\nlisten = \"{peers}\"\nannounce = [\"{peers}\"]\n\
             [api]\nlisten = \"{}\"\n\
             [health]\nlisten = \"{}\"\n{tables}",
            quoted(&identity.certificate),
            quoted(&identity.key),
            quoted(&identity.ca),
            postgres.port(),
            Postgres::DATABASE,
            Postgres::USER,
            quoted(postgres.password_file()),
            bitcoind.url(),
            quoted(&bitcoind.cookie_file()),
            api.address(),
            health.address(),
            peers = peers.address(),
        );
        let configuration = home.join("node.toml");
        fs::write(&configuration, content)?;
        let launch = Launch::new(&programs.node, ["run", "--config", &configuration.display().to_string()]);
        let process = Process::new(name, launch, logs);
        Ok(Self { name: name.to_owned(), process, peers, api, health, configuration })
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// `host:port` where Lightning peers reach it while it leads.
    pub fn peer_address(&self) -> String {
        self.peers.address().to_string()
    }

    /// `host:port` of its operator API.
    pub fn api(&self) -> String {
        self.api.address().to_string()
    }

    /// `host:port` of its health and metrics.
    pub fn health(&self) -> String {
        self.health.address().to_string()
    }

    pub fn configuration(&self) -> &Path {
        &self.configuration
    }

    pub fn process(&self) -> &Process {
        &self.process
    }

    /// Starts it and waits until it says that it is ready: leading, or standing by.
    pub async fn start(&self) -> Result<()> {
        self.process.start()?;
        self.ready().await
    }

    pub async fn ready(&self) -> Result<()> {
        wait_for(&format!("{} to be ready", self.name), START, async || {
            if !self.process.is_running() {
                return Ok(Probe::Hopeless(format!("it ended:\n{}", self.process.log_tail(10))));
            }
            let answer = web::get(&self.health(), "/readyz").await?;
            Ok(Probe::when(answer.status == 200, (), || format!("/readyz says {} {}", answer.status, answer.body)))
        })
        .await
    }

    /// Does it say of itself that it leads?
    pub async fn leads(&self) -> Result<bool> {
        Ok(web::get(&self.health(), "/leader").await?.status == 200)
    }

    /// `kill -9`.
    pub fn kill(&self) -> Result<()> {
        self.process.kill()
    }

    /// `kill -STOP`: what a long pause of the machine looks like from outside.
    pub fn freeze(&self) -> Result<()> {
        self.process.freeze()
    }

    pub fn thaw(&self) -> Result<()> {
        self.process.thaw()
    }

    /// `kill -TERM`, and time to finish.
    pub fn stop(&self) -> Result<()> {
        self.process.stop(Signal::TERM, Duration::from_secs(15))
    }
}
