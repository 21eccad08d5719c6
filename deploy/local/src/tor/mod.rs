//! A Tor network of the deployment's own: three directory authorities, which are exits as well, three relays, and as many
//! Tors that use them as somebody wants. All of it is on this machine, and no packet leaves it. Chutney, with which Tor
//! tests itself, is the model.

mod client;
mod names;

use std::{
    fs,
    fs::DirBuilder,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use futures::future::try_join_all;

use crate::{
    ports::Port,
    process::{Launch, Process},
    wait::{Probe, wait_for},
};

pub use client::{Forward, Tor};
use names::Names;

/// A vote takes a majority, and one of one is none.
const AUTHORITIES: usize = 3;
/// Beside the authorities, so that circuits of onion services find enough hops that are all different.
const RELAYS: usize = 3;
/// Elections come every few seconds, and about two are needed.
const CONSENSUS: Duration = Duration::from_secs(120);

/// For every Tor of the network, beside the names of the authorities. Who waits for a circuit that does not come is told so
/// after a quarter of a minute, in the place of two: the next try takes another.
const TESTING: &str = "\
TestingTorNetwork 1
SocksTimeout 15
AssumeReachable 1
PathsNeededToBuildCircuits 0.67
V3AuthNIntervalsValid 2
TestingDirAuthVoteGuard *
TestingDirAuthVoteHSDir *
TestingMinExitFlagThreshold 0
ShutdownWaitLength 0
DisableDebuggerAttachment 0
Log notice stdout
";

/// The first consensus as soon as Tor can make one; later ones less often, so that a busy machine misses none.
const AUTHORITY: &str = "\
AuthoritativeDirectory 1
V3AuthoritativeDirectory 1
ContactInfo nobody@holdfast.test
TestingV3AuthInitialVotingInterval 5
TestingV3AuthInitialVoteDelay 2
TestingV3AuthInitialDistDelay 2
V3AuthVotingInterval 20
V3AuthVoteDelay 4
V3AuthDistDelay 4
ExitRelay 1
ExitPolicy accept *:*
ServerDNSDetectHijacking 0
";

#[derive(Debug)]
pub struct TorNetwork {
    relays: Vec<Relay>,
    names: Names,
    folder: PathBuf,
    logs: PathBuf,
    defaults: PathBuf,
}

#[derive(Debug)]
struct Relay {
    name: String,
    home: PathBuf,
    port: Port,
    directory: Port,
    process: Process,
}

impl TorNetwork {
    /// Starts authorities and relays in `<folder>/tor`, and waits until all of them are in a consensus.
    pub async fn start(folder: &Path, logs: &Path) -> Result<Self> {
        let folder = folder.join("tor");
        fs::create_dir(&folder)?;
        let defaults = folder.join("network.torrc");
        let relays = (0..AUTHORITIES + RELAYS)
            .map(|number| Relay::create(number, &folder, logs, &defaults))
            .collect::<Result<Vec<_>>>()?;
        let (authorities, others) = relays.split_at(AUTHORITIES);
        let lines = try_join_all(authorities.iter().map(Relay::become_authority)).await?;
        fs::write(&defaults, format!("{TESTING}{}", lines.concat()))?;

        let names = Names::start().await?;
        let resolver = folder.join("resolv.conf");
        fs::write(&resolver, format!("nameserver {}\n", names.address()))?;
        for relay in authorities {
            relay.start(&format!(
                "DirPort {}\n{AUTHORITY}ServerDNSResolvConfFile {}\n",
                relay.directory.address(),
                resolver.display()
            ))?;
        }
        for relay in others {
            relay.start("ExitRelay 0\n")?;
        }
        let network = Self { relays, names, folder, logs: logs.to_owned(), defaults };
        network.agreed().await?;
        Ok(network)
    }

    /// A Tor of its own with this torrc, which `Tor::torrc` makes.
    pub async fn join(&self, name: &str, torrc: impl FnOnce(&Tor) -> Result<String>) -> Result<Tor> {
        Tor::join(self, name, torrc).await
    }

    /// The process ids of authorities and relays.
    pub fn pids(&self) -> Vec<u32> {
        self.relays.iter().filter_map(|relay| relay.process.pid()).collect()
    }

    /// The names for whose addresses the exits have asked. Each that ends in [`TorNetwork::DOMAIN`] is this machine; nobody
    /// but the exits knows of them.
    pub fn names_asked_for(&self) -> Vec<String> {
        self.names.asked_for()
    }

    /// The top of all names that the exits know.
    pub const DOMAIN: &str = names::DOMAIN;

    /// Waits for a consensus with all of them in it. Who asks earlier is told to ask again much later.
    async fn agreed(&self) -> Result<()> {
        let agreed = wait_for("a consensus of the Tor network", CONSENSUS, async || {
            for relay in &self.relays {
                if !relay.process.is_running() {
                    return Ok(Probe::Hopeless(format!("{} ended:\n{}", relay.name, relay.process.log_tail(5))));
                }
            }
            // The consensus may change while it is read: then the next look is the one that counts.
            for authority in &self.relays[..AUTHORITIES] {
                let consensus = fs::read_to_string(authority.home.join("cached-microdesc-consensus"))?;
                let running = consensus.lines().filter(|line| line.starts_with("s ") && line.contains(" Running "));
                let running = running.count();
                if running < self.relays.len() {
                    return Ok(Probe::Waiting(format!("{} of {} are in it", running, self.relays.len())));
                }
            }
            Ok(Probe::Ready(()))
        });
        agreed.await.with_context(|| self.relays[0].process.log_tail(10))
    }
}

impl Relay {
    fn create(number: usize, folder: &Path, logs: &Path, defaults: &Path) -> Result<Self> {
        let name = if number < AUTHORITIES { format!("authority{number}") } else { format!("relay{number}") };
        let home = folder.join(&name);
        private_folder(&home)?;
        let process = process(&format!("tor-{name}"), &home, logs, defaults, &[]);
        Ok(Self { name, home, port: Port::lease()?, directory: Port::lease()?, process })
    }

    fn start(&self, more: &str) -> Result<()> {
        let torrc = format!(
            "DataDirectory {}\nNickname {}\nAddress 127.0.0.1\nORPort {}\nSocksPort 0\n{more}",
            self.home.display(),
            self.name,
            self.port.address()
        );
        fs::write(self.home.join("torrc"), torrc)?;
        self.process.start()
    }

    /// Makes the keys of an authority; gives the line by which all others know it.
    async fn become_authority(&self) -> Result<String> {
        let keys = self.home.join("keys");
        private_folder(&keys)?;
        let file = |name: &str| keys.join(format!("authority_{name}")).display().to_string();
        let (directory, port) = (self.directory.address().to_string(), self.port.address().to_string());
        // The passphrase is for who takes the key away to a safe.
        let certify = format!(
            "echo unused | tor-gencert --create-identity-key --passphrase-fd 0 -a {directory} -i {} -s {} -c {}",
            file("identity_key"),
            file("signing_key"),
            file("certificate"),
        );
        let certify = Launch::new("sh", ["-c", &certify]);
        // It wants to know of an authority, and any will do.
        let identify = format!(
            "--list-fingerprint --quiet --ignore-missing-torrc --defaults-torrc /dev/null -f {home}/torrc \
             --DataDirectory {home} --Nickname {} --ORPort {port} --DirAuthority",
            self.name,
            home = self.home.display(),
        );
        let nobody = "127.0.0.1:1 ffffffffffffffffffffffffffffffffffffffff";
        let identify = Launch::new("tor", identify.split(' ').chain([nobody]));
        let (_, said) = tokio::try_join!(run(certify), run(identify))?;
        let (_, relay) =
            said.trim().split_once(' ').with_context(|| format!("tor --list-fingerprint says {said:?}"))?;
        let certificate = fs::read_to_string(file("certificate"))?;
        let authority = certificate.lines().find_map(|line| line.strip_prefix("fingerprint "));
        let authority = authority.context("tor-gencert made a certificate without a fingerprint")?;
        let (name, port) = (&self.name, self.port.number());
        Ok(format!("DirAuthority {name} orport={port} no-v2 v3ident={authority} {directory} {relay}\n"))
    }
}

/// Waits on a thread of its own: keys take their time.
async fn run(launch: Launch) -> Result<String> {
    tokio::task::spawn_blocking(move || launch.run()).await?
}

/// Tor with `<home>/torrc`, and what this machine's own Tor has by default left out.
fn process(name: &str, home: &Path, logs: &Path, defaults: &Path, more: &[&str]) -> Process {
    let torrc = home.join("torrc");
    let (defaults, torrc) = (defaults.display().to_string(), torrc.display().to_string());
    let arguments = ["--defaults-torrc", &defaults, "-f", &torrc].into_iter().chain(more.iter().copied());
    Process::new(name, Launch::new("tor", arguments), logs)
}

/// Tor wants its folders to be its own.
fn private_folder(path: &Path) -> Result<()> {
    DirBuilder::new().mode(0o700).create(path).with_context(|| format!("making {}", path.display()))
}

/// The text with another part in one place, which must be there.
pub(crate) fn replaced(text: &str, from: &str, to: &str) -> Result<String> {
    ensure!(text.matches(from).count() == 1, "`{from}` is not there just once:\n{text}");
    Ok(text.replace(from, to))
}
