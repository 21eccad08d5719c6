//! A test's own AWS, and a process whose chain of credentials is the test's own.
//!
//! The SDK reads the environment of its process, so each test runs itself again in a child process that has nothing of this
//! machine's AWS settings and what the test gives it.

use std::{
    env,
    net::TcpListener,
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
    time::Duration,
};

use holdfast_signer::config::{AwsKmsCustody, AwsSecretsManagerCustody};

use crate::{
    moto::{self, ACCOUNT, Moto, REGION},
    proxy::Proxy,
};

const DIRECTORY: &str = "HOLDFAST_TEST_AWS";
const PORT: &str = "HOLDFAST_TEST_AWS_PORT";

/// Runs `body` in a child process, with a folder and a free port of its own, in the environment that `variables` makes of
/// both. `test` is the full name of the calling test.
pub fn in_its_own_process(
    test: &str,
    variables: impl FnOnce(&Path, u16) -> Vec<(&'static str, String)>,
    body: impl FnOnce(&Path, u16),
) {
    if let (Some(directory), Ok(port)) = (env::var_os(DIRECTORY), env::var(PORT)) {
        return body(Path::new(&directory), port.parse().unwrap());
    }
    let directory = tempfile::tempdir().unwrap();
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let mut child = Command::new(env::current_exe().unwrap());
    child.args(["--exact", test, "--nocapture"]);
    isolate(&mut child, directory.path());
    child.env(DIRECTORY, directory.path()).env(PORT, port.to_string());
    // Its home is another, in which moto is not installed.
    child.env("HOLDFAST_MOTO", moto::program());
    let child = child.envs(variables(directory.path(), port)).output().unwrap();
    let (stdout, stderr) = (String::from_utf8_lossy(&child.stdout), String::from_utf8_lossy(&child.stderr));
    assert!(child.status.success() && stdout.contains("1 passed"), "{test}: {}\n{stdout}\n{stderr}", child.status);
}

/// The same with access keys in the environment, with moto, and the proxy before it at the port.
pub fn with_aws(test: &str, body: impl FnOnce(&World)) {
    in_its_own_process(test, |_, _| keys(), |directory, port| body(&World::new(directory, port)));
}

pub fn keys() -> Vec<(&'static str, String)> {
    let keys = [("AWS_ACCESS_KEY_ID", "AKIATEST"), ("AWS_SECRET_ACCESS_KEY", "secret"), ("AWS_REGION", REGION)];
    keys.map(|(name, value)| (name, value.to_owned())).into()
}

/// Takes away what this machine or its user has set for AWS, and any way to an instance's metadata.
pub fn isolate(command: &mut Command, home: &Path) {
    for (name, _) in env::vars_os() {
        let text = name.to_string_lossy().to_uppercase();
        if text.starts_with("AWS_") || text.ends_with("_PROXY") {
            command.env_remove(name);
        }
    }
    command.env("HOME", home).env("AWS_EC2_METADATA_DISABLED", "true");
}

pub struct World {
    pub moto: Arc<Moto>,
    pub proxy: Arc<Proxy>,
    directory: PathBuf,
}

impl World {
    pub fn new(directory: &Path, port: u16) -> Self {
        Self::before(directory, Moto::start(), port)
    }

    /// The proxy at `port`, before a moto that runs.
    pub fn before(directory: &Path, moto: Moto, port: u16) -> Self {
        let proxy = Proxy::start(port, moto.port);
        Self { moto: Arc::new(moto), proxy: Arc::new(proxy), directory: directory.to_owned() }
    }

    pub fn directory(&self, name: &str) -> PathBuf {
        let directory = self.directory.join(name);
        std::fs::create_dir_all(&directory).unwrap();
        directory
    }

    pub fn kms(&self, key: &str) -> AwsKmsCustody {
        AwsKmsCustody {
            key: key.to_owned().try_into().unwrap(),
            account: Some(ACCOUNT.to_owned().try_into().unwrap()),
            region: None,
            profile: None,
            endpoint: Some(self.proxy.url()),
            timeout: Duration::from_secs(60),
        }
    }

    pub fn secret(&self, name: &str) -> AwsSecretsManagerCustody {
        AwsSecretsManagerCustody {
            secret: name.to_owned().try_into().unwrap(),
            account: Some(ACCOUNT.to_owned().try_into().unwrap()),
            kms_key: None,
            region: None,
            profile: None,
            endpoint: Some(self.proxy.url()),
            timeout: Duration::from_secs(60),
        }
    }
}
