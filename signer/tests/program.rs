//! The program as an operator and a service manager meet it: real processes, exit codes, signals.

use std::{
    fs,
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    thread,
    time::{Duration, Instant},
};

use holdfast_proto::{identity::Role, pki};
use rustix::process::{Pid, Signal, kill_process};

struct Site {
    directory: tempfile::TempDir,
    listen: u16,
    health: u16,
}

impl Site {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let ca = directory.path().join("ca");
        pki::init(&ca, "holdfast.test").unwrap();
        for (role, name) in [(Role::Signer, "s"), (Role::Operator, "o"), (Role::Replica, "r")] {
            pki::issue(&ca, role, name, directory.path(), Duration::from_secs(3600)).unwrap();
        }
        let passphrase = directory.path().join("passphrase");
        fs::write(&passphrase, "correct horse\n").unwrap();
        restrict(&passphrase);
        let (listen, health) = (free_port(), free_port());
        let config = format!(
            "network = \"regtest\"\ndata_dir = \"data\"\nlisten = \"127.0.0.1:{listen}\"\n\
             health_listen = \"127.0.0.1:{health}\"\n\
             [tls]\ncertificate = \"signer-s.pem\"\nkey = \"signer-s.key\"\nca = \"ca.pem\"\n\
             [custody]\nbackend = \"file\"\n\
             [custody.file]\npath = \"data/seed.sealed\"\npassphrase_file = \"passphrase\"\n"
        );
        fs::write(directory.path().join("signer.toml"), config).unwrap();
        Self { directory, listen, health }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_holdfast-signer"));
        command.args(args).current_dir(self.directory.path());
        command
    }

    fn output(&self, args: &[&str]) -> Output {
        self.command(args).output().unwrap()
    }

    fn init(&self) -> String {
        let init = self.output(&["init", "--config", "signer.toml"]);
        assert!(init.status.success(), "{}", stderr(&init));
        String::from_utf8(init.stdout).unwrap().trim().to_owned()
    }

    /// Runs the signer and waits until it is ready.
    fn run(&self) -> Running {
        let child = self.command(&["run", "--config", "signer.toml"]).stderr(Stdio::piped()).spawn().unwrap();
        let mut running = Running(child);
        let deadline = Instant::now() + Duration::from_secs(60);
        while self.get("/readyz").is_none_or(|(code, _)| code != 200) {
            assert!(running.0.try_wait().unwrap().is_none(), "the signer ended: {}", running.log());
            assert!(Instant::now() < deadline, "the signer is not ready");
            thread::sleep(Duration::from_millis(10));
        }
        running
    }

    fn status(&self, who: &str) -> Output {
        let endpoint = format!("127.0.0.1:{}", self.listen);
        let (cert, key) = (format!("{who}.pem"), format!("{who}.key"));
        let args = ["status", "--endpoint", &endpoint, "--cert", &cert, "--key", &key, "--ca", "ca.pem", "--json"];
        self.output(&args)
    }

    fn get(&self, path: &str) -> Option<(u16, String)> {
        self.get_by("localhost", path)
    }

    fn get_by(&self, host: &str, path: &str) -> Option<(u16, String)> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.health)).ok()?;
        write!(stream, "GET {path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n").ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        let (head, body) = answer.split_once("\r\n\r\n")?;
        Some((head.split(' ').nth(1)?.parse().ok()?, body.to_owned()))
    }
}

struct Running(Child);

impl Running {
    fn pid(&self) -> Pid {
        Pid::from_child(&self.0)
    }

    fn log(&mut self) -> String {
        let mut log = String::new();
        self.0.stderr.take().unwrap().read_to_string(&mut log).unwrap();
        log
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn init_run_status_and_an_orderly_end() {
    let site = Site::new();
    let node_id = site.init();
    assert_eq!(fs::read_to_string(site.path("data/node_id")).unwrap().trim(), node_id);

    let mut running = site.run();
    let status = site.status("operator-o");
    assert!(status.status.success(), "{}", stderr(&status));
    let status: serde_json::Value = serde_json::from_slice(&status.stdout).unwrap();
    assert_eq!(status["node_id"], node_id);
    assert_eq!((&status["ready"], &status["custody"]), (&true.into(), &"file".into()));
    assert_eq!(site.get("/livez").unwrap().0, 200);
    assert!(site.get("/metrics").unwrap().1.contains("\nholdfast_signer_ready 1\n"));
    let rebound = |path| site.get_by("evil.example", path).unwrap().0;
    assert_eq!((rebound("/metrics"), rebound("/readyz"), rebound("/livez")), (421, 200, 200));

    kill_process(running.pid(), Signal::TERM).unwrap();
    let ended = running.0.wait().unwrap();
    let log = running.log();
    assert!(ended.success(), "{log}");
    assert!(log.contains(&node_id) && !log.contains("correct horse"), "{log}");
    let gone = site.status("operator-o");
    assert_eq!(gone.status.code(), Some(69), "{}", stderr(&gone));
}

#[test]
fn the_process_gives_up_dumps_and_privileges() {
    let site = Site::new();
    site.init();
    let running = site.run();
    let proc = |file| fs::read_to_string(format!("/proc/{}/{file}", running.pid().as_raw_nonzero())).unwrap();
    let limits = proc("limits");
    let core = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
    assert_eq!(core.split_whitespace().skip(4).take(2).collect::<Vec<_>>(), ["0", "0"]);
    let status = proc("status");
    assert!(status.lines().any(|line| line.split_whitespace().eq(["NoNewPrivs:", "1"])), "{status}");
}

/// P8: only `init` makes anything, and it never replaces.
#[test]
fn absent_is_not_empty_and_present_is_not_replaced() {
    let site = Site::new();
    let run = || site.output(&["run", "--config", "signer.toml"]);
    let init = || site.output(&["init", "--config", "signer.toml"]);

    fails(run(), 66, "run `holdfast-signer init` first");
    let node_id = site.init();
    for kept in ["data/node_id", "data/guard.redb", "data/seed.sealed"] {
        let away = site.path("away");
        fs::rename(site.path(kept), &away).unwrap();
        let code = if kept == "data/node_id" { 66 } else { 69 };
        fails(run(), code, kept);
        assert!(!site.path(kept).exists(), "run made {kept}");
        assert!(!init().status.success(), "init over what is there but {kept}");
        // A second init that went on would have left its own.
        let _ = fs::remove_file(site.path(kept));
        fs::rename(&away, site.path(kept)).unwrap();
    }
    fails(init(), 73, "never replaced");

    let other = "0279be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798";
    fs::write(site.path("data/node_id"), other).unwrap();
    fails(run(), 77, "belongs to node");
    fs::write(site.path("data/node_id"), node_id).unwrap();
    drop(site.run());
}

#[test]
fn mistakes_have_codes_and_one_line() {
    let site = Site::new();
    fails(site.output(&["run"]), 64, "--config");
    fails(site.output(&["run", "--config", "none.toml"]), 66, "none.toml");
    let good = fs::read_to_string(site.path("signer.toml")).unwrap();
    let with = |config: &str| {
        fs::write(site.path("signer.toml"), config).unwrap();
        site.output(&["run", "--config", "signer.toml"])
    };
    fails(with(&format!("lisen = 1\n{good}")), 78, "lisen");
    fails(with(&good.replace("signer-s", "replica-r")), 78, "needs one of role signer");
    fs::write(site.path("signer.toml"), &good).unwrap();
    site.init();
    fs::write(site.path("passphrase"), "wrong\n").unwrap();
    fails(with(&good), 77, "the passphrase is wrong");
    fs::write(site.path("passphrase"), "correct horse\n").unwrap();

    let occupied = TcpListener::bind(("127.0.0.1", site.listen)).unwrap();
    fails(with(&good), 69, "listening on");
    drop(occupied);

    let _running = site.run();
    // A signer's own certificate says nothing that opens an operator's call.
    let refused = site.status("signer-s");
    assert_eq!(refused.status.code(), Some(77), "{}", stderr(&refused));
}

fn fails(output: Output, code: i32, says: &str) {
    let stderr = stderr(&output);
    assert_eq!(output.status.code(), Some(code), "{stderr}");
    assert!(stderr.contains(says), "{says}: {stderr}");
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn restrict(path: &Path) {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}
