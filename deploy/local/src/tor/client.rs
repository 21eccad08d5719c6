//! A Tor that relays for nobody: a way out, and an onion service.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result};
use rustix::process::Signal;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional},
    net::{TcpListener, UnixStream},
    task::JoinHandle,
};
use tokio_socks::tcp::Socks5Stream;

use super::{TorNetwork, private_folder, process, replaced};
use crate::{
    ports::Port,
    process::Process,
    wait::{Probe, wait_for},
};

/// What is in `deploy/tor` for real machines.
const TORRC: &str = include_str!("../../../tor/torrc");
/// Once there is a consensus it takes a few seconds.
const START: Duration = Duration::from_secs(90);

#[derive(Debug)]
pub struct Tor {
    name: String,
    home: PathBuf,
    socks: Port,
    process: Process,
}

/// A TCP port behind which is a place that only Tor reaches, for programs that know nothing of Tor.
#[derive(Debug)]
pub struct Forward {
    address: String,
    serving: JoinHandle<()>,
}

impl Tor {
    pub(super) async fn join(
        network: &TorNetwork,
        name: &str,
        torrc: impl FnOnce(&Self) -> Result<String>,
    ) -> Result<Self> {
        let home = network.folder.join(name);
        private_folder(&home)?;
        let (data, control) = (home.display().to_string(), control(&home));
        let more = ["--DataDirectory", &data, "--ControlSocket", &control];
        let process = process(&format!("tor-{name}"), &home, &network.logs, &network.defaults, &more);
        let tor = Self { name: name.to_owned(), home, socks: Port::lease()?, process };
        fs::write(tor.home.join("torrc"), torrc(&tor)?)?;
        tor.start().await?;
        Ok(tor)
    }

    /// `deploy/tor/torrc` as it is, but for its ports and its folder: peers go to `target`.
    pub fn torrc(&self, target: &str) -> Result<String> {
        let service = self.service().display().to_string();
        let torrc = replaced(TORRC, "SocksPort 127.0.0.1:9050", &format!("SocksPort {}", self.socks()))?;
        let torrc = replaced(&torrc, "HiddenServiceDir /var/lib/tor/holdfast", &format!("HiddenServiceDir {service}"))?;
        replaced(&torrc, "HiddenServicePort 9735 127.0.0.1:9735", &format!("HiddenServicePort 9735 {target}"))
    }

    /// Starts it, and waits until it can build circuits.
    pub async fn start(&self) -> Result<()> {
        self.process.start()?;
        wait_for(&format!("{} to be ready", self.process.name()), START, async || {
            if !self.process.is_running() {
                return Ok(Probe::Hopeless(format!("it ended:\n{}", self.process.log_tail(10))));
            }
            let answer = self.ask("status/bootstrap-phase").await?.concat();
            Ok(Probe::when(answer.contains("PROGRESS=100"), (), || answer))
        })
        .await
    }

    pub fn stop(&self) -> Result<()> {
        self.process.stop(Signal::TERM, Duration::from_secs(15))
    }

    pub fn process(&self) -> &Process {
        &self.process
    }

    /// `host:port` of its SOCKS5 port.
    pub fn socks(&self) -> String {
        self.socks.address().to_string()
    }

    /// `host:port` of its onion service.
    pub fn onion(&self) -> Result<String> {
        let file = self.service().join("hostname");
        let host = fs::read_to_string(&file).with_context(|| format!("reading {}", file.display()))?;
        Ok(format!("{}:9735", host.trim()))
    }

    /// The circuits that it has built for somebody who gave a name to its SOCKS port: that name by circuit.
    pub async fn circuits(&self) -> Result<BTreeMap<String, String>> {
        let lines = self.ask("circuit-status").await?;
        let circuits = lines.iter().filter_map(|line| {
            let (circuit, rest) = line.split_once(" BUILT ")?;
            let user = rest.split(' ').find_map(|word| word.strip_prefix("SOCKS_USERNAME="))?;
            Some((circuit.to_owned(), user.trim_matches('"').to_owned()))
        });
        Ok(circuits.collect())
    }

    /// For each stream that it carries now, on which circuit.
    pub async fn streams(&self) -> Result<Vec<String>> {
        let lines = self.ask("stream-status").await?;
        // StreamID, status, CircuitID, target.
        let circuits = lines.iter().filter_map(|line| line.split_once(" SUCCEEDED ")?.1.split(' ').next());
        Ok(circuits.map(str::to_owned).collect())
    }

    /// Opens a port here that leads through this Tor to `target`, with circuits of its own.
    pub async fn forward(&self, target: &str) -> Result<Forward> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?.to_string();
        let (socks, target, user) = (self.socks(), target.to_owned(), format!("forward-{address}"));
        let serving = tokio::spawn(async move {
            while let Ok((mut near, _)) = listener.accept().await {
                let (socks, target, user) = (socks.clone(), target.clone(), user.clone());
                tokio::spawn(async move {
                    let far = Socks5Stream::connect_with_password(socks.as_str(), target.as_str(), &user, &user).await;
                    // Who cannot get through sees his connection end, as he would without us.
                    if let Ok(mut far) = far {
                        let _ = copy_bidirectional(&mut near, &mut far).await;
                    }
                });
            }
        });
        Ok(Forward { address, serving })
    }

    fn service(&self) -> PathBuf {
        self.home.join("service")
    }

    /// `GETINFO` of one thing: its lines.
    async fn ask(&self, what: &str) -> Result<Vec<String>> {
        let mut stream = UnixStream::connect(control(&self.home)).await?;
        stream.write_all(format!("AUTHENTICATE\r\nGETINFO {what}\r\nQUIT\r\n").as_bytes()).await?;
        let mut said = String::new();
        stream.read_to_string(&mut said).await?;
        // `250-what=one line`, or `250+what=`, lines and a point.
        let answer = said.split_once(&format!("{what}=")).and_then(|(_, after)| after.split_once("250 OK"));
        let (lines, _) = answer.with_context(|| format!("{}'s control port says {said:?}", self.name))?;
        Ok(lines.lines().filter(|line| !matches!(*line, "" | ".")).map(str::to_owned).collect())
    }
}

fn control(home: &Path) -> String {
    home.join("control").display().to_string()
}

impl Forward {
    /// `host:port`.
    pub fn address(&self) -> &str {
        &self.address
    }
}

impl Drop for Forward {
    fn drop(&mut self) {
        self.serving.abort();
    }
}
