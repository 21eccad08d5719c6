//! Free TCP ports that stay ours: from a range the kernel does not hand out by itself, each under a lock file that
//! other deployments on the machine respect, until the lease is dropped.

use std::{
    fs::{self, File, OpenOptions},
    net::{Ipv4Addr, SocketAddr, TcpListener},
    path::PathBuf,
};

use anyhow::{Context, Result, bail};

/// Below the kernel's usual ephemeral range (32768 and up), above most services.
const RANGE: std::ops::Range<u16> = 18_000..32_000;

/// A port of the loopback interface.
#[derive(Debug)]
pub struct Port {
    number: u16,
    _lock: File,
}

impl Port {
    /// Takes a free one.
    pub fn lease() -> Result<Self> {
        let locks = locks()?;
        let mut start = [0; 2];
        getrandom::fill(&mut start).context("the system's random numbers")?;
        let width = RANGE.end - RANGE.start;
        let start = u16::from_le_bytes(start) % width;
        for step in 0..width {
            let number = RANGE.start + (start + step) % width;
            let lock = OpenOptions::new()
                .create(true)
                .truncate(false)
                .write(true)
                .open(locks.join(number.to_string()))
                .context("opening a port's lock file")?;
            if lock.try_lock().is_ok() && TcpListener::bind((Ipv4Addr::LOCALHOST, number)).is_ok() {
                return Ok(Self { number, _lock: lock });
            }
        }
        bail!("no TCP port from {} to {} is free", RANGE.start, RANGE.end)
    }

    pub fn number(&self) -> u16 {
        self.number
    }

    pub fn address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.number).into()
    }
}

fn locks() -> Result<PathBuf> {
    let user = rustix::process::geteuid().as_raw();
    let folder = std::env::temp_dir().join(format!("holdfast-ports-{user}"));
    fs::create_dir_all(&folder).with_context(|| format!("making {}", folder.display()))?;
    Ok(folder)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn leased_ports_are_distinct_and_can_be_bound() {
        let ports: Vec<Port> = (0..50).map(|_| Port::lease().unwrap()).collect();
        let numbers: HashSet<u16> = ports.iter().map(Port::number).collect();
        assert_eq!(numbers.len(), ports.len());
        for port in &ports {
            TcpListener::bind(port.address()).unwrap();
        }
    }
}
