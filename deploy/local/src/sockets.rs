//! Who on this machine has a TCP connection to a port, as the kernel tells (`/proc/net/tcp`).

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use anyhow::{Context, Result};
use tokio::task::JoinHandle;

/// Looks again and again at connections to some ports, and knows those that somebody else made than who may.
#[derive(Debug)]
pub struct Watch {
    seen: Arc<Mutex<Seen>>,
    looking: JoinHandle<()>,
}

/// What a watch has seen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// How many different connections were made by whom who may.
    pub rightful: BTreeMap<u16, BTreeSet<u64>>,
    /// Ports to which somebody else was connected, or what went wrong in looking.
    pub others: BTreeSet<String>,
}

impl Watch {
    /// Connections to `ports` may be made by this process and by those whose ids `rightful` gives.
    pub fn start(ports: BTreeSet<u16>, rightful: impl Fn() -> Vec<u32> + Send + 'static) -> Self {
        let seen = Arc::<Mutex<Seen>>::default();
        let written = seen.clone();
        let looking = tokio::spawn(async move {
            loop {
                let looked = look(&ports, &rightful, &mut written.lock().unwrap_or_else(PoisonError::into_inner));
                if let Err(error) = looked {
                    written.lock().unwrap_or_else(PoisonError::into_inner).others.insert(format!("{error:#}"));
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        });
        Self { seen, looking }
    }

    pub fn seen(&self) -> Seen {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.looking.abort();
    }
}

fn look(ports: &BTreeSet<u16>, rightful: &impl Fn() -> Vec<u32>, seen: &mut Seen) -> Result<()> {
    for (port, inode) in connections(ports)? {
        if seen.rightful.get(&port).is_some_and(|known| known.contains(&inode)) {
            continue;
        }
        if owners(&rightful())?.contains(&inode) {
            seen.rightful.entry(port).or_default().insert(inode);
        // One that has ended meanwhile tells nothing.
        } else if connections(ports)?.contains(&(port, inode)) && !owners(&rightful())?.contains(&inode) {
            seen.others.insert(format!("a connection to port {port}"));
        }
    }
    Ok(())
}

/// Established connections to these ports: port and inode.
fn connections(ports: &BTreeSet<u16>) -> Result<BTreeSet<(u16, u64)>> {
    const ESTABLISHED: &str = "01";
    let table = fs::read_to_string("/proc/net/tcp")?;
    let rows = table.lines().skip(1).map(|row| {
        let words: Vec<&str> = row.split_whitespace().collect();
        let [_, _, remote, state, _, _, _, _, _, inode, ..] = words[..] else { return Ok(None) };
        let port = remote.split(':').nth(1).and_then(|port| u16::from_str_radix(port, 16).ok());
        let port = port.with_context(|| format!("a row of /proc/net/tcp is {row}"))?;
        Ok((state == ESTABLISHED && ports.contains(&port)).then_some((port, inode.parse()?)))
    });
    rows.filter_map(Result::transpose).collect()
}

/// The sockets of this process and of these others.
fn owners(pids: &[u32]) -> Result<BTreeSet<u64>> {
    let folders = pids.iter().map(|pid| PathBuf::from(format!("/proc/{pid}/fd")));
    let mut sockets = BTreeSet::new();
    for folder in folders.chain([PathBuf::from("/proc/self/fd")]) {
        // One that has ended has no sockets; nor has a file that was closed a moment ago.
        let Ok(entries) = fs::read_dir(&folder) else { continue };
        for link in entries.flatten().filter_map(|entry| fs::read_link(entry.path()).ok()) {
            let inode = link.to_str().and_then(|link| link.strip_prefix("socket:[")?.strip_suffix(']'));
            sockets.extend(inode.and_then(|inode| inode.parse::<u64>().ok()));
        }
    }
    Ok(sockets)
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use tokio::{io::AsyncReadExt, net::TcpListener};

    use super::*;

    #[tokio::test(flavor = "multi_thread")]
    async fn our_own_connections_are_rightful_and_another_process_is_somebody_else() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let watch = Watch::start([port].into(), Vec::new);
        let ours = tokio::net::TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        wait(&watch, |seen| seen.rightful.values().flatten().count() == 1).await;
        assert!(watch.seen().others.is_empty(), "{:?}", watch.seen());

        let (mut first, _) = listener.accept().await.unwrap();
        let script = format!("exec 3<>/dev/tcp/127.0.0.1/{port}; cat <&3");
        let mut other = Command::new("bash").args(["-c", &script]).spawn().unwrap();
        let (second, _) = listener.accept().await.unwrap();
        wait(&watch, |seen| !seen.others.is_empty()).await;
        drop(second);
        other.wait().unwrap();
        drop(ours);
        assert_eq!(first.read(&mut [0]).await.unwrap(), 0);
    }

    async fn wait(watch: &Watch, done: impl Fn(&Seen) -> bool) {
        let end = std::time::Instant::now() + Duration::from_secs(20);
        while !done(&watch.seen()) {
            assert!(std::time::Instant::now() < end, "{:?}", watch.seen());
            tokio::task::yield_now().await;
        }
    }
}
