//! SoftHSM for one test: its tokens in a directory of the test's own.
//!
//! SoftHSM finds its tokens through an environment variable when it is loaded, once a process. So each test runs itself
//! again in a child process that has the variable from the start.

use std::{
    env, fs,
    io::Write,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
};

use cryptoki::{
    context::{CInitializeArgs, CInitializeFlags, Pkcs11},
    session::{Session, UserType},
    types::AuthPin,
};
use holdfast_signer::config::{CustodyConfig, Pkcs11Custody};

use crate::suite::Subject;

pub const MODULE: &str = "/usr/lib/softhsm/libsofthsm2.so";
pub const PIN: &str = "648219";
const DIRECTORY: &str = "HOLDFAST_TEST_SOFTHSM";

/// Runs `body` in a child process in which SoftHSM has no tokens yet. `test` is the full name of the calling test.
pub fn in_its_own_process(test: &str, body: impl FnOnce(&SoftHsm)) {
    if let Some(hsm) = SoftHsm::of_this_process() {
        return body(&hsm);
    }
    let directory = tempfile::tempdir().unwrap();
    let tokens = directory.path().join("tokens");
    fs::create_dir(&tokens).unwrap();
    let conf = directory.path().join("softhsm2.conf");
    fs::write(&conf, format!("directories.tokendir = {}\nobjectstore.backend = file\n", tokens.display())).unwrap();
    let child = Command::new(env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture"])
        .env(DIRECTORY, directory.path())
        .env("SOFTHSM2_CONF", &conf)
        .output()
        .unwrap();
    let (stdout, stderr) = (String::from_utf8_lossy(&child.stdout), String::from_utf8_lossy(&child.stderr));
    assert!(child.status.success() && stdout.contains("1 passed"), "{test}: {}\n{stdout}\n{stderr}", child.status);
}

pub struct SoftHsm {
    directory: PathBuf,
}

impl SoftHsm {
    /// None in a process that was not started for it.
    pub fn of_this_process() -> Option<Self> {
        env::var_os(DIRECTORY).map(|directory| Self { directory: directory.into() })
    }

    pub fn tokens(&self) -> PathBuf {
        self.directory.join("tokens")
    }

    /// A file by which a test talks with the wrapper module, or with another process.
    pub fn signal(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// Commands the wrapper module (see `wrapper.c`) until `untell`.
    pub fn tell(&self, what: &str, content: &str) {
        fs::write(self.signal(what), content).unwrap();
    }

    pub fn untell(&self, what: &str) {
        fs::remove_file(self.signal(what)).unwrap();
    }

    /// What the wrapper module wrote down.
    pub fn told(&self, what: &str) -> String {
        fs::read_to_string(self.signal(what)).unwrap_or_default()
    }

    /// SoftHSM behind `wrapper.c`, compiled for this test.
    pub fn wrapper(&self) -> PathBuf {
        let library = self.directory.join("wrapper.so");
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/custody/wrapper.c");
        let compiler = Command::new("cc").args(["-shared", "-fPIC", "-O1", "-o"]).arg(&library).arg(source).output();
        let compiler = compiler.unwrap();
        assert!(compiler.status.success(), "{}", String::from_utf8_lossy(&compiler.stderr));
        library
    }

    /// A token behind the wrapper.
    pub fn wrapped_token(&self, label: &str) -> Token {
        let mut token = self.token(label);
        token.config.module = self.wrapper();
        token
    }

    /// A new token and a backend configured for it, without keys.
    pub fn token(&self, label: &str) -> Token {
        self.token_beside(label, label)
    }

    /// The same for a label that another token may have already; `name` is what tells the two apart here.
    pub fn token_beside(&self, label: &str, name: &str) -> Token {
        let created = Command::new("softhsm2-util")
            .args(["--init-token", "--free", "--label", label, "--pin", PIN, "--so-pin", "so-pin-1"])
            .output()
            .unwrap();
        assert!(created.status.success(), "{}", String::from_utf8_lossy(&created.stderr));
        let data_dir = self.directory.join(format!("data-{name}"));
        fs::create_dir(&data_dir).unwrap();
        write_private(&data_dir.join("pin"), PIN);
        self.existing(label, name)
    }

    /// A token that this or another process has made.
    pub fn existing(&self, label: &str, name: &str) -> Token {
        let data_dir = self.directory.join(format!("data-{name}"));
        let pin_file = data_dir.join("pin");
        let config = Pkcs11Custody {
            module: MODULE.into(),
            token: format!("pkcs11:token={label}").parse().unwrap(),
            pin_file,
            label: "holdfast".into(),
            sessions: 3,
            timeout: std::time::Duration::from_secs(20),
        };
        Token { label: label.to_owned(), config, data_dir, tokens: self.tokens() }
    }
}

pub struct Token {
    pub label: String,
    pub config: Pkcs11Custody,
    pub data_dir: PathBuf,
    tokens: PathBuf,
}

impl Token {
    /// Loses and restores the whole token directory.
    pub fn subject(&self) -> Subject {
        let (here, away) = (Arc::new(self.tokens.clone()), Arc::new(self.tokens.with_extension("away")));
        let (from, to) = (here.clone(), away.clone());
        Subject {
            config: CustodyConfig::Pkcs11(self.config.clone()),
            data_dir: self.data_dir.clone(),
            sealed: Some(self.data_dir.join("seed.sealed")),
            lose: Box::new(move || fs::rename(&*from, &*to).unwrap()),
            restore: Box::new(move || fs::rename(&*away, &*here).unwrap()),
        }
    }

    /// Of all tokens with this label.
    pub fn serials(&self) -> Vec<String> {
        let library = Pkcs11::new(&self.config.module).unwrap();
        let slots = library.get_slots_with_token().unwrap().into_iter();
        let infos = slots.map(|slot| library.get_token_info(slot).unwrap());
        infos.filter(|info| info.label() == self.label).map(|info| info.serial_number().to_owned()).collect()
    }

    /// A session of the test's own, logged in, in which it may do to the token what others do to tokens.
    pub fn session(&self) -> Session {
        let library = Pkcs11::new(MODULE).unwrap();
        // The backend under test has done it, unless it is in another process.
        let _ = library.initialize(CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK));
        let slot = library
            .get_slots_with_token()
            .unwrap()
            .into_iter()
            .find(|slot| library.get_token_info(*slot).unwrap().label() == self.label)
            .unwrap();
        let session = library.open_rw_session(slot).unwrap();
        match session.login(UserType::User, Some(&AuthPin::from(PIN))) {
            Ok(()) => {}
            Err(e) => assert!(e.to_string().contains("already logged into"), "{e}"),
        }
        session
    }
}

pub fn write_private(path: &Path, content: &str) {
    // What is there may be replaced: this is how a test changes a PIN file.
    let mut file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path).unwrap();
    file.write_all(content.as_bytes()).unwrap();
}
