//! The program, confined, with SoftHSM.

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

const MODULE: &str = "/usr/lib/softhsm/libsofthsm2.so";

struct Site {
    directory: tempfile::TempDir,
    health: u16,
}

impl Site {
    fn with_token() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        let ca = at("ca");
        pki::init(&ca, "holdfast.test").unwrap();
        fs::create_dir(at("certificates")).unwrap();
        pki::issue(&ca, Role::Signer, "s", &at("certificates"), Duration::from_secs(3600)).unwrap();
        fs::create_dir_all(at("softhsm/tokens")).unwrap();
        fs::write(at("softhsm/softhsm2.conf"), format!("directories.tokendir = {}\n", at("softhsm/tokens").display()))
            .unwrap();
        private(&at("pin"), "648219");
        let health = free_port();
        let config = format!(
            "network = \"regtest\"\ndata_dir = \"data\"\nlisten = \"127.0.0.1:{}\"\n\
             health_listen = \"127.0.0.1:{health}\"\n\
             [tls]\ncertificate = \"certificates/signer-s.pem\"\nkey = \"certificates/signer-s.key\"\n\
             ca = \"certificates/ca.pem\"\n\
             [custody]\nbackend = \"pkcs11\"\n\
             [custody.pkcs11]\nmodule = \"{MODULE}\"\ntoken = \"pkcs11:token=t\"\npin_file = \"pin\"\n",
            free_port()
        );
        fs::write(at("signer.toml"), config).unwrap();
        let site = Self { directory, health };
        let args = ["--init-token", "--free", "--label", "t", "--pin", "648219", "--so-pin", "so-pin-1"];
        succeeds(site.command("softhsm2-util").args(args).output().unwrap());
        succeeds(site.signer("init").output().unwrap());
        site
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.env("SOFTHSM2_CONF", self.path("softhsm/softhsm2.conf")).current_dir(self.directory.path());
        command
    }

    fn signer(&self, command: &str) -> Command {
        let mut signer = self.command(env!("CARGO_BIN_EXE_holdfast-signer"));
        signer.args([command, "--config", "signer.toml"]);
        signer
    }

    fn run(&self) -> Running {
        let log = fs::File::create(self.path("log")).unwrap();
        let child = self.signer("run").stdout(Stdio::null()).stderr(log).spawn().unwrap();
        let mut running = Running(child);
        self.wait_until_ready(true, &mut running);
        running
    }

    fn wait_until_ready(&self, ready: bool, running: &mut Running) {
        let deadline = Instant::now() + Duration::from_secs(120);
        while self.ready() != Some(ready) {
            let log = || fs::read_to_string(self.path("log")).unwrap();
            assert!(running.0.try_wait().unwrap().is_none(), "the signer ended: {}", log());
            assert!(Instant::now() < deadline, "readiness is not {ready}: {}", log());
            thread::sleep(Duration::from_millis(50));
        }
    }

    fn ready(&self) -> Option<bool> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.health)).ok()?;
        write!(stream, "GET /readyz HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n").ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        Some(answer.starts_with("HTTP/1.1 200 "))
    }
}

struct Running(Child);

impl Running {
    fn proc(&self, file: &str) -> String {
        fs::read_to_string(format!("/proc/{}/{file}", self.0.id())).unwrap()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// P7 within the bounds: the ladder of reconnection needs nothing that is closed.
#[test]
fn a_confined_signer_finds_its_token_again() {
    let site = Site::with_token();
    let mut running = site.run();
    let (tokens, away) = (site.path("softhsm/tokens"), site.path("softhsm/away"));
    fs::rename(&tokens, &away).unwrap();
    site.wait_until_ready(false, &mut running);
    // Restored from a backup: other files of the same names.
    succeeds(Command::new("cp").arg("-a").args([&away, &tokens]).output().unwrap());
    fs::remove_dir_all(&away).unwrap();
    site.wait_until_ready(true, &mut running);
}

#[test]
fn every_thread_is_confined_and_the_keys_are_locked() {
    let site = Site::with_token();
    let running = site.run();
    let field = |status: &str, name: &str| {
        let value = status.lines().find_map(|line| line.strip_prefix(name)?.split_whitespace().next());
        value.unwrap_or_else(|| panic!("no {name} in {status}")).to_owned()
    };
    let threads: Vec<_> = fs::read_dir(format!("/proc/{}/task", running.0.id())).unwrap().map(Result::unwrap).collect();
    assert!(threads.len() > 3, "only {} threads", threads.len());
    for thread in threads {
        let status = fs::read_to_string(thread.path().join("status")).unwrap();
        // A filter of what may be called, and the one that closes the rest.
        let values = ["Seccomp:", "Seccomp_filters:", "NoNewPrivs:"].map(|name| field(&status, name));
        assert_eq!(values, ["2", "2", "1"], "{status}");
    }
    let locked: u64 = field(&running.proc("status"), "VmLck:").parse().unwrap();
    assert!(locked >= 32, "only {locked} kB are locked");
    let log = fs::read_to_string(site.path("log")).unwrap();
    assert!(log.contains("confined") && !log.contains("NOT CONFINED"), "{log}");
}

/// Without the right to lock memory, and with too little of it.
#[test]
fn keys_that_cannot_be_locked_are_not_loaded() {
    let site = Site::with_token();
    let mut command = site.command("setpriv");
    command.args(["--inh-caps=-all", "--bounding-set=-ipc_lock", "--", "prlimit", "--memlock=8192:8192", "--"]);
    let signer = site.signer("run");
    let output = command.arg(signer.get_program()).args(signer.get_args()).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(69), "{said}");
    assert!(said.contains("LimitMEMLOCK"), "{said}");
}

fn succeeds(output: Output) {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

fn private(path: &Path, content: &str) {
    use std::os::unix::fs::PermissionsExt;
    fs::write(path, content).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}
