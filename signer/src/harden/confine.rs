//! What a running signer may still do: derived from its configuration, widened by the table `[confinement]`, enforced by
//! the kernel. docs/hardening.md is the operator's page.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

use serde::Deserialize;

use super::{landlock, seccomp};

/// `[confinement]`: what a vendor's PKCS#11 library needs beyond what is allowed anyway.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ConfinementConfig {
    /// Refuse to start where the kernel cannot confine; else do what it can.
    pub require: bool,
    /// Files and folders (with all that is in them) that may be read.
    pub read_paths: Vec<PathBuf>,
    /// The same, to be read, written, made and removed.
    pub write_paths: Vec<PathBuf>,
    /// TCP ports of other machines. With any, other sockets of the internet are open as well, for names to be looked up.
    pub connect_ports: Vec<u16>,
    /// Whether programs may be started; only those in the system's folders and in `read_paths` can be.
    pub allow_exec: bool,
    /// Whether the kernel may be asked about devices and addresses (AF_NETLINK), as libraries for USB do.
    pub allow_netlink: bool,
}

impl Default for ConfinementConfig {
    fn default() -> Self {
        Self {
            require: true,
            read_paths: vec![],
            write_paths: vec![],
            connect_ports: vec![],
            allow_exec: false,
            allow_netlink: false,
        }
    }
}

/// Everything that stays open.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    pub require: bool,
    pub read: BTreeSet<PathBuf>,
    pub write: BTreeSet<PathBuf>,
    pub execute: BTreeSet<PathBuf>,
    /// Folders in which, at any depth, empty folders may be removed.
    pub remove_empty: BTreeSet<PathBuf>,
    pub bind_ports: BTreeSet<u16>,
    pub connect_ports: BTreeSet<u16>,
    /// Closed again with the rest.
    pub connect_ports_at_start: BTreeSet<u16>,
    pub allow_exec: bool,
    pub allow_netlink: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfineError {
    #[error(
        "this kernel cannot confine the process ({0}): Landlock with TCP rules is in Linux 6.7 and newer, when it is among \
         the security modules (`lsm=`); [confinement] require = false goes on with what there is"
    )]
    Landlock(String),
    #[error(
        "this kernel cannot filter system calls ({0}): it needs CONFIG_SECCOMP_FILTER; [confinement] require = false goes \
         on without"
    )]
    Seccomp(String),
    #[error("[confinement] {0}: there is no such file or folder")]
    Absent(PathBuf),
}

/// The process is confined but for what is closed once everything is open.
#[must_use]
pub struct Confined {
    plan: Plan,
    /// What the kernel could not do, where the configuration tolerates that.
    missing: Vec<ConfineError>,
}

impl Confined {
    /// Closes the rest, in all threads: sockets of the internet other than those that exist (where the plan has no ports to
    /// connect to), and memory that is both written and executed. Says in the log how confined the process is.
    pub fn seal(mut self) -> Result<(), ConfineError> {
        let sealed = seccomp::seal(&self.plan);
        self.take(sealed)?;
        for error in &self.missing {
            tracing::warn!(%error, "NOT CONFINED as it should be");
        }
        if self.missing.is_empty() {
            tracing::info!(connect_ports = ?self.plan.connect_ports, exec = self.plan.allow_exec, "confined");
        }
        Ok(())
    }

    fn take(&mut self, result: Result<(), ConfineError>) -> Result<(), ConfineError> {
        match result {
            Err(error) if !self.plan.require => self.missing.push(error),
            result => result?,
        }
        Ok(())
    }
}

impl Plan {
    /// What every signer needs: the system's libraries, and nothing of its users'.
    pub fn new(config: &ConfinementConfig) -> Result<Self, ConfineError> {
        if let Some(absent) = config.read_paths.iter().chain(&config.write_paths).find(|path| !path.exists()) {
            return Err(ConfineError::Absent(absent.clone()));
        }
        let ConfinementConfig { require, allow_exec, allow_netlink, .. } = *config;
        let mut plan = Self { require, allow_exec, allow_netlink, ..Self::default() };
        config.connect_ports.iter().for_each(|port| plan.connect(*port));
        plan.read.extend(SYSTEM.map(PathBuf::from));
        plan.read.extend(config.read_paths.iter().cloned());
        plan.write.extend(["/dev/null".into()]);
        plan.write.extend(config.write_paths.iter().cloned());
        if plan.allow_exec {
            plan.execute.extend(SYSTEM_PROGRAMS.map(PathBuf::from));
            plan.execute.extend(config.read_paths.iter().cloned());
        }
        Ok(plan)
    }

    /// A TCP port of other machines, whose names may be looked up.
    pub fn connect(&mut self, port: u16) {
        self.connect_ports.insert(port);
        self.read.extend(NAME_LOOKUP.map(PathBuf::from));
    }

    /// The same, until everything is open.
    pub fn connect_at_start(&mut self, port: u16) {
        self.connect_ports_at_start.insert(port);
        self.read.extend(NAME_LOOKUP.map(PathBuf::from));
    }

    /// A file that may be replaced while the signer runs (a certificate, a PIN): its folder is what is opened, because a
    /// rule holds for the file that it was made for, not for the next one of its name.
    pub fn read_replaceable(&mut self, file: &Path) {
        self.read.insert(enclosing(file));
    }

    /// Restricts this thread and those that it will start: call it before any is. What it is to open afterwards has to be
    /// in the plan.
    pub fn apply(self) -> Result<Confined, ConfineError> {
        let (files, calls) = (landlock::apply(&self), seccomp::apply(&self));
        let mut confined = Confined { plan: self, missing: vec![] };
        confined.take(files)?;
        confined.take(calls)?;
        Ok(confined)
    }
}

/// Libraries, what the dynamic linker and OpenSSL read, time zones, randomness, and the process itself.
const SYSTEM: [&str; 13] = [
    "/usr/lib",
    "/usr/lib64",
    "/usr/local/lib",
    "/lib",
    "/lib64",
    "/etc/ld.so.cache",
    "/etc/ssl",
    "/etc/localtime",
    "/usr/share/zoneinfo",
    "/dev/urandom",
    "/dev/random",
    "/proc/self",
    "/sys/fs/cgroup",
];

const SYSTEM_PROGRAMS: [&str; 8] =
    ["/bin", "/sbin", "/usr/bin", "/usr/sbin", "/usr/lib", "/usr/lib64", "/lib", "/lib64"];

/// And the certificates of public authorities.
const NAME_LOOKUP: [&str; 10] = [
    "/etc/resolv.conf",
    "/run/systemd/resolve",
    "/etc/nsswitch.conf",
    "/etc/hosts",
    "/etc/host.conf",
    "/etc/gai.conf",
    "/etc/services",
    "/etc/ca-certificates",
    "/usr/share/ca-certificates",
    "/usr/local/share/ca-certificates",
];

/// The folder of `path`, when that is one of somebody's own; never the root.
pub(super) fn enclosing(path: &Path) -> PathBuf {
    // A bare name has a folder too. It stays as it is where there is no working directory any more.
    let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    match path.parent() {
        Some(parent) if parent.parent().is_some() => parent.to_owned(),
        _ => path,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Where Debian's /etc/ssl/certs links to: what is not read there is a warning at each start with AWS.
    #[test]
    fn who_connects_may_read_the_authorities_that_the_systems_folder_links_to() {
        let mut plan = Plan::new(&ConfinementConfig::default()).unwrap();
        plan.connect_at_start(443);
        for folder in ["/etc/ssl", "/usr/share/ca-certificates", "/usr/local/share/ca-certificates"] {
            assert!(plan.read.contains(Path::new(folder)), "{folder}");
        }
    }
}
