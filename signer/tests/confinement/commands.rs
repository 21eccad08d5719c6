//! Commands that make, open or move keys are confined as `run` is. A spy in the token's library says how far.

use std::{
    fs,
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Command, Output},
    time::Duration,
};

use holdfast_proto::{identity::Role, pki};

/// Long enough to be looked for in memory.
pub const PIN: &str = "648219 and the rest of a PIN";
pub const PASSPHRASE: &str = "correct horse battery staple";

const BOUND: &str = "file=0 child=0 dumpable=0 core=0 privileges=0 filter=2";

pub struct Site {
    directory: tempfile::TempDir,
    elsewhere: tempfile::TempDir,
}

impl Site {
    pub fn new() -> Self {
        let (directory, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let site = Self { directory, elsewhere };
        fs::write(site.forbidden(), "a file of somebody's").unwrap();
        let ca = site.path("ca");
        pki::init(&ca, "holdfast.test").unwrap();
        pki::issue(&ca, Role::Signer, "s", site.directory.path(), Duration::from_secs(3600)).unwrap();
        fs::create_dir_all(site.path("softhsm/tokens")).unwrap();
        let conf = format!("directories.tokendir = {}\n", site.path("softhsm/tokens").display());
        fs::write(site.path("softhsm/softhsm2.conf"), conf).unwrap();
        site.private("pin", PIN.as_bytes());
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/confinement/spy.c");
        let library = site.path("softhsm-spy.so");
        succeeds(Command::new("cc").args(["-shared", "-fPIC", "-o"]).arg(library).arg(source).output().unwrap());
        let args = ["--init-token", "--free", "--label", "t", "--pin", PIN, "--so-pin", "so-pin-1"];
        succeeds(site.command("softhsm2-util", &args).output().unwrap());
        site
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn forbidden(&self) -> PathBuf {
        self.elsewhere.path().join("file")
    }

    fn private(&self, name: &str, content: &[u8]) {
        use std::os::unix::fs::PermissionsExt;
        fs::write(self.path(name), content).unwrap();
        fs::set_permissions(self.path(name), fs::Permissions::from_mode(0o600)).unwrap();
    }

    /// `<name>.toml`, with keys of its own in the token.
    pub fn token(&self, name: &str) {
        let custody = format!(
            "backend = \"pkcs11\"\n[custody.pkcs11]\nmodule = {:?}\ntoken = \"pkcs11:token=t\"\npin_file = \"pin\"\n\
             label = \"{name}\"\n",
            self.path("softhsm-spy.so")
        );
        self.configure(name, &custody);
    }

    /// `<name>.toml`, with a passphrase, and the sealed seed in a folder of its own.
    pub fn file(&self, name: &str) {
        self.private("passphrase", PASSPHRASE.as_bytes());
        fs::create_dir(self.path("sealed")).unwrap();
        let file = "backend = \"file\"\n[custody.file]\npath = \"sealed/seed\"\npassphrase_file = \"passphrase\"\n";
        self.configure(name, file);
    }

    fn configure(&self, name: &str, custody: &str) {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let text = format!(
            "network = \"regtest\"\ndata_dir = \"{name}\"\nlisten = \"127.0.0.1:{port}\"\n\
             [tls]\ncertificate = \"signer-s.pem\"\nkey = \"signer-s.key\"\nca = \"ca.pem\"\n[custody]\n{custody}"
        );
        fs::write(self.path(&format!("{name}.toml")), text).unwrap();
    }

    pub fn command(&self, program: &str, args: &[&str]) -> Command {
        let mut command = Command::new(program);
        command.args(args).current_dir(self.directory.path());
        command.env("SOFTHSM2_CONF", self.path("softhsm/softhsm2.conf"));
        command.env("HOLDFAST_TEST_FORBIDDEN", self.forbidden());
        command.env("HOLDFAST_TEST_VERDICT", self.verdict());
        command
    }

    /// In a folder that is open to a signer with SoftHSM.
    fn verdict(&self) -> PathBuf {
        self.path("softhsm/verdict")
    }

    /// The command succeeds, and the library that it loaded found itself confined.
    #[track_caller]
    fn confined(&self, args: &[&str]) -> String {
        let printed = succeeds(self.command(env!("CARGO_BIN_EXE_holdfast-signer"), args).output().unwrap());
        let verdict = fs::read_to_string(self.verdict()).unwrap_or_default();
        assert_eq!(verdict.trim(), BOUND, "{args:?}");
        fs::remove_file(self.verdict()).unwrap();
        printed
    }
}

#[track_caller]
pub fn succeeds(output: Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

#[test]
fn every_command_that_uses_keys_is_confined() {
    let site = Site::new();
    // What the spy would say of a process that gave nothing up.
    let free = site.command("softhsm2-util", &["--show-slots", "--module"]).arg(site.path("softhsm-spy.so")).output();
    succeeds(free.unwrap());
    assert!(fs::read_to_string(site.verdict()).unwrap().starts_with("file=1 child=1 dumpable=1"));
    fs::remove_file(site.verdict()).unwrap();

    ["made", "back", "old"].iter().for_each(|name| site.token(name));
    site.file("moved");
    let id = site.confined(&["init", "--config", "made.toml", "--identity", "sealed"]);
    site.confined(&["check", "--config", "made.toml"]);
    let backup = ["backup", "--config", "made.toml", "--shares", "2", "--threshold", "2", "--out", "shares"];
    let shares = site.confined(&backup);
    let mut restore = vec!["restore", "--config", "back.toml", "--expect-node-id", &id];
    restore.extend(shares.lines());
    assert_eq!(site.confined(&restore), id);
    assert_eq!(site.confined(&["rewrap", "--from", "made.toml", "--to", "moved.toml"]), id);
    assert!(site.path("sealed/seed").exists());

    site.private("ldk", &[7; 32]);
    let mut import = vec!["import", "--config", "old.toml", "--ldk-seed-file", "ldk"];
    let asked = site.command(env!("CARGO_BIN_EXE_holdfast-signer"), &import).output().unwrap();
    let imported = String::from_utf8(asked.stdout).unwrap();
    assert!(!site.verdict().exists() && !Path::new(&site.path("old")).exists(), "nothing is made or loaded yet");
    import.extend(["--expect-node-id", imported.trim()]);
    assert_eq!(site.confined(&import), imported.trim());
}
