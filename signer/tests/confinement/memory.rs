//! What opens the keys is gone from a signer's memory once they are open.

use std::{
    env,
    fs::{self, File},
    io::{BufRead, BufReader},
    os::unix::fs::FileExt,
    process::{Child, Stdio},
    thread,
};

use crate::commands::{PASSPHRASE, PIN, Site, succeeds};

const SIGNER: &str = env!("CARGO_BIN_EXE_holdfast-signer");

#[test]
fn a_running_signer_keeps_neither_passphrase_nor_pin() {
    if !rustix::process::geteuid().is_root() {
        let why = "cannot look into the signer's memory without root; set HOLDFAST_MAY_SKIP=1 to pass without that";
        assert!(env::var_os("HOLDFAST_MAY_SKIP").is_some(), "{why}");
        return eprintln!("NOT LOOKED AT the memory of a signer");
    }
    let site = Site::new();
    site.file("file");
    site.token("token");
    for (name, secret) in [("file", PASSPHRASE), ("token", PIN)] {
        let config = format!("{name}.toml");
        let id = succeeds(site.command(SIGNER, &["init", "--config", &config]).output().unwrap());
        let signer = Running::start(&site, &config);
        let memory = memory(signer.0.id());
        let is_in = |needle: &[u8]| memory.iter().any(|region| region.windows(needle.len()).any(|w| w == needle));
        assert!(is_in(&hex::decode(id).unwrap()), "the search does not find what is there: the node id");
        assert!(!is_in(secret.as_bytes()), "what opens {name} is still in memory");
    }
}

struct Running(Child);

impl Running {
    fn start(site: &Site, config: &str) -> Self {
        let mut command = site.command(SIGNER, &["run", "--config", config]);
        let mut running = Self(command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap());
        let mut log = BufReader::new(running.0.stderr.take().unwrap()).lines().map_while(Result::ok);
        let said: Vec<_> = log.by_ref().take_while(|line| !line.contains("signer is up")).collect();
        assert!(running.0.try_wait().unwrap().is_none(), "the signer ended: {said:#?}");
        // It may have more to say.
        thread::spawn(move || log.for_each(drop));
        running
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Every region that a process can read of itself.
fn memory(pid: u32) -> Vec<Vec<u8>> {
    let maps = fs::read_to_string(format!("/proc/{pid}/maps")).unwrap();
    let memory = File::open(format!("/proc/{pid}/mem")).unwrap();
    let regions = maps.lines().filter_map(|line| {
        let (range, rest) = line.split_once(' ')?;
        let (from, to) = range.split_once('-')?;
        let [from, to] = [from, to].map(|address| u64::from_str_radix(address, 16).unwrap());
        let mut bytes = vec![0; usize::try_from(to - from).unwrap()];
        // The kernel's own pages cannot be read, and a region may have gone since it was listed.
        (rest.starts_with('r') && memory.read_exact_at(&mut bytes, from).is_ok()).then_some(bytes)
    });
    regions.collect()
}
