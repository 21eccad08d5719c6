//! HAProxy before the replicas, with the file that is in `deploy/tor`: it sends peers to the replica that leads.

use std::{fs, time::Duration};

use anyhow::Result;
use tokio::net::TcpStream;

use crate::{
    deployment::Deployment,
    ports::Port,
    process::{Launch, Process},
    tor::replaced,
    wait::{Probe, wait_for},
};

/// What is in `deploy/tor` for real machines.
const CONFIGURATION: &str = include_str!("../../tor/haproxy.cfg");
const START: Duration = Duration::from_secs(20);

#[derive(Debug)]
pub struct Haproxy {
    port: Port,
    process: Process,
}

impl Haproxy {
    /// Starts one at this port, with the file as it is but for the user, ports and addresses: on this machine, each replica has
    /// its health listener at a port of its own.
    pub async fn start(deployment: &Deployment, port: Port) -> Result<Self> {
        let mut configuration = replaced(CONFIGURATION, "bind 127.0.0.1:9735", &format!("bind {}", port.address()))?;
        // Only root could become another.
        configuration = replaced(&configuration, "    user haproxy\n    group haproxy\n", "")?;
        let servers = ["server replica-a 10.0.0.11:9735", "server replica-b 10.0.0.12:9735"];
        for (replica, from) in deployment.replicas().iter().zip(servers) {
            let health = replica.health();
            let (_, health) = health.rsplit_once(':').unwrap_or_default();
            let to = format!("server {} {} check port {health}", replica.name(), replica.peer_address());
            configuration = replaced(&configuration, from, &to)?;
        }
        let file = deployment.folder().join("haproxy.cfg");
        fs::write(&file, configuration)?;
        let launch = Launch::new("/usr/sbin/haproxy", ["-db", "-f", &file.display().to_string()]);
        let process = Process::new("haproxy", launch, deployment.logs());
        process.start()?;
        let listens = wait_for("haproxy to listen", START, async || {
            if !process.is_running() {
                return Ok(Probe::Hopeless(format!("it ended:\n{}", process.log_tail(10))));
            }
            TcpStream::connect(port.address()).await?;
            Ok(Probe::Ready(()))
        });
        listens.await?;
        Ok(Self { port, process })
    }

    /// `host:port` where peers come.
    pub fn address(&self) -> String {
        self.port.address().to_string()
    }

    pub fn process(&self) -> &Process {
        &self.process
    }
}
