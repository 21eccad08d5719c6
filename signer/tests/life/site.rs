//! A directory with configurations, and the program run in it.

use std::{
    fs,
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    thread,
    time::{Duration, Instant},
};

use bitcoin::secp256k1::PublicKey;
use holdfast_proto::{identity::Role, pki};

pub const PIN: &str = "648219";

pub struct Site {
    directory: tempfile::TempDir,
    /// What the program finds in its environment, besides SoftHSM's configuration.
    pub environment: Vec<(String, String)>,
}

impl Site {
    /// With `file.toml`, a configuration of the file backend without keys.
    pub fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let site = Self { directory, environment: vec![] };
        let ca = site.path("ca");
        pki::init(&ca, "holdfast.test").unwrap();
        pki::issue(&ca, Role::Signer, "s", site.directory.path(), Duration::from_secs(3600)).unwrap();
        site.file("file", "file", "file");
        site
    }

    /// The same with SoftHSM, and one empty token for each label.
    pub fn with_tokens(labels: &[&str]) -> Self {
        let site = Self::new();
        fs::create_dir(site.path("tokens")).unwrap();
        let conf = format!("directories.tokendir = {}\nobjectstore.backend = file\n", site.path("tokens").display());
        fs::write(site.path("softhsm2.conf"), conf).unwrap();
        site.secret("pin", PIN.as_bytes());
        for label in labels {
            let made = Command::new("softhsm2-util")
                .args(["--init-token", "--free", "--label", label, "--pin", PIN, "--so-pin", "so-pin-1"])
                .env("SOFTHSM2_CONF", site.path("softhsm2.conf"))
                .output()
                .unwrap();
            assert!(made.status.success(), "{}", stderr(&made));
        }
        site
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// A file that only its owner may read.
    pub fn secret(&self, name: &str, content: &[u8]) {
        let mut file =
            fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(self.path(name)).unwrap();
        file.write_all(content).unwrap();
    }

    pub fn mode(&self, name: &str, mode: u32) {
        fs::set_permissions(self.path(name), fs::Permissions::from_mode(mode)).unwrap();
    }

    /// `<name>.toml`: a file with a passphrase of its own, `<name>.pass`, in `data_dir`.
    pub fn file(&self, name: &str, data_dir: &str, sealed: &str) {
        self.secret(&format!("{name}.pass"), format!("the passphrase of {name}\n").as_bytes());
        let custody = format!(
            "backend = \"file\"\n[custody.file]\npath = \"{data_dir}/{sealed}.sealed\"\npassphrase_file = \"{name}.pass\"\n"
        );
        self.configure(name, data_dir, "regtest", &custody);
    }

    /// `<name>.toml`: a token.
    pub fn token(&self, name: &str, label: &str) {
        let custody = format!(
            "backend = \"pkcs11\"\n[custody.pkcs11]\nmodule = \"/usr/lib/softhsm/libsofthsm2.so\"\n\
             token = \"pkcs11:token={label}\"\npin_file = \"pin\"\n"
        );
        self.configure(name, name, "regtest", &custody);
    }

    pub fn configure(&self, name: &str, data_dir: &str, network: &str, custody: &str) {
        let text = format!(
            "network = \"{network}\"\ndata_dir = \"{data_dir}\"\nlisten = \"127.0.0.1:{}\"\nhealth_listen = \"127.0.0.1:{}\"\n\
             [tls]\ncertificate = \"signer-s.pem\"\nkey = \"signer-s.key\"\nca = \"ca.pem\"\n[custody]\n{custody}",
            free_port(),
            free_port(),
        );
        fs::write(self.path(&format!("{name}.toml")), text).unwrap();
    }

    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_holdfast-signer"));
        command.args(args).current_dir(self.directory.path()).env("SOFTHSM2_CONF", self.path("softhsm2.conf"));
        command.envs(self.environment.iter().cloned());
        command
    }

    pub fn output(&self, args: &[&str]) -> Output {
        self.command(args).output().unwrap()
    }

    /// What it printed, trimmed.
    #[track_caller]
    pub fn ok(&self, args: &[&str]) -> String {
        let output = self.output(args);
        assert!(output.status.success(), "{args:?}: {}", stderr(&output));
        stdout(&output)
    }

    /// It fails with `code`, says `says`, and leaves every file as it was.
    #[track_caller]
    pub fn fails(&self, args: &[&str], code: i32, says: &str) -> Output {
        let before = self.files();
        let output = self.output(args);
        let stderr = stderr(&output);
        assert_eq!(output.status.code(), Some(code), "{args:?}: {stderr}");
        assert!(stderr.contains(says), "{args:?} does not say {says:?}: {stderr}");
        assert!(!stderr.contains("panicked"), "{stderr}");
        assert!(before == self.files(), "{args:?} made or changed a file");
        output
    }

    #[track_caller]
    pub fn init(&self, name: &str) -> PublicKey {
        self.ok(&["init", "--config", &format!("{name}.toml")]).parse().unwrap()
    }

    /// `check` proves the configured custody to be this node's.
    #[track_caller]
    pub fn is_node(&self, name: &str, node_id: &PublicKey) {
        let report: serde_json::Value =
            serde_json::from_str(&self.ok(&["check", "--config", &format!("{name}.toml"), "--json"])).unwrap();
        assert_eq!(report["node_id"], node_id.to_string());
        assert_eq!((&report["custody"], &report["guard"]["state"]), (&"proved".into(), &"verified".into()));
    }

    /// Every file but SoftHSM's, by name, with its content.
    pub fn files(&self) -> Vec<(PathBuf, Vec<u8>)> {
        let mut files = vec![];
        collect(self.directory.path(), &mut files);
        files.retain(|(path, _)| !path.starts_with(self.path("tokens")));
        files.sort();
        files
    }

    /// The names of files that hold any of the secrets, as they are or in hexadecimal.
    pub fn files_with(&self, secrets: &[&[u8]]) -> Vec<String> {
        let needles: Vec<Vec<u8>> = secrets
            .iter()
            .flat_map(|secret| {
                [secret.to_vec(), hex::encode(secret).into_bytes(), hex::encode_upper(secret).into_bytes()]
            })
            .collect();
        let mut files = vec![];
        collect(self.directory.path(), &mut files);
        files
            .into_iter()
            .filter(|(_, content)| needles.iter().any(|needle| content.windows(needle.len()).any(|w| w == needle)))
            .map(|(path, _)| path.strip_prefix(self.directory.path()).unwrap().display().to_string())
            .collect()
    }

    /// Runs the signer and waits until it is ready.
    pub fn run(&self, name: &str) -> Running {
        let config = format!("{name}.toml");
        let text = fs::read_to_string(self.path(&config)).unwrap();
        let health =
            text.lines().find_map(|line| line.strip_prefix("health_listen = ")).unwrap().trim_matches('"').to_owned();
        let child = self.command(&["run", "--config", &config]).stderr(Stdio::piped()).spawn().unwrap();
        let mut running = Running(child);
        let deadline = Instant::now() + Duration::from_secs(120);
        while !ready(&health) {
            assert!(running.0.try_wait().unwrap().is_none(), "the signer ended: {}", running.log());
            assert!(Instant::now() < deadline, "the signer is not ready");
            thread::sleep(Duration::from_millis(10));
        }
        running
    }
}

pub struct Running(pub Child);

impl Running {
    fn log(&mut self) -> String {
        let mut log = String::new();
        self.0.stderr.take().unwrap().read_to_string(&mut log).unwrap();
        log
    }

    /// As a loss of power would.
    pub fn kill(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn ready(health: &str) -> bool {
    let ask = || -> std::io::Result<String> {
        let mut stream = TcpStream::connect(health)?;
        write!(stream, "GET /readyz HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    };
    ask().is_ok_and(|answer| answer.starts_with("HTTP/1.1 200"))
}

fn collect(directory: &Path, files: &mut Vec<(PathBuf, Vec<u8>)>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => collect(&path, files),
            false => files.push((path.clone(), fs::read(&path).unwrap())),
        }
    }
}

pub fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

pub fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}
