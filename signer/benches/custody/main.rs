//! What a call to custody costs: signatures and ECDH a second, with 1 and 16 callers, and a start, for each backend; and the
//! token's own rate of derivations, of which an ECDH needs two, with the share of it that is reached.
//!
//! `cargo bench -p holdfast-signer --bench custody`, or with others `make bench`. SoftHSM is the token, moto is AWS on this
//! machine: it says what the SDK costs, and nothing of Amazon's network. `HOLDFAST_BENCH_ONLY` names the backends to measure.

mod raw;
mod table;

// The tests of AWS use more of these two than the bench does.
#[allow(dead_code)]
#[path = "../../tests/custody/aws/http.rs"]
mod http;
#[allow(dead_code)]
#[path = "../../tests/custody/aws/moto.rs"]
mod moto;

use std::{
    env, fs,
    os::unix::{fs::PermissionsExt, process::CommandExt},
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use bitcoin::{
    Network,
    secp256k1::{PublicKey, Secp256k1, SecretKey},
};
use holdfast_signer::{
    config::{AwsKmsCustody, AwsSecretsManagerCustody, CustodyConfig, FileCustody, Pkcs11Custody},
    custody::{self, Custody},
};

use self::{moto::Moto, table::Times};

const MODULE: &str = "/usr/lib/softhsm/libsofthsm2.so";
const PIN: &str = "648219";
const STARTS: usize = 5;
const CALLERS: [usize; 2] = [1, 16];

fn main() {
    // SoftHSM and the SDK read the environment of their process, so this one starts again with it set.
    let Some(folder) = env::var_os("HOLDFAST_BENCH_CUSTODY").map(PathBuf::from) else { start_again() };
    let only = env::var("HOLDFAST_BENCH_ONLY").ok();
    let wanted = |backend: &str| only.as_ref().is_none_or(|names| names.split(',').any(|name| name == backend));
    table::head();
    if wanted("file") {
        let passphrase_file = private(&folder, "passphrase", "correct horse");
        let file = CustodyConfig::File(FileCustody { path: folder.join("seed.file"), passphrase_file });
        measure(&Subject::make("file", file, &folder));
    }
    if wanted("pkcs11") {
        let token = Subject::make("pkcs11", CustodyConfig::Pkcs11(softhsm(&folder)), &folder);
        measure(&token);
        raw::against_derivations(&token);
    }
    if wanted("aws") {
        let moto = Moto::start();
        for (name, config) in aws(&moto) {
            measure(&Subject::make(name, config, &folder));
        }
    }
    fs::remove_dir_all(&folder).unwrap();
}

fn start_again() -> ! {
    let folder = env::temp_dir().join(format!("holdfast-bench-custody-{}", std::process::id()));
    fs::create_dir_all(folder.join("tokens")).unwrap();
    let conf = folder.join("softhsm2.conf");
    fs::write(&conf, format!("directories.tokendir = {}\n", folder.join("tokens").display())).unwrap();
    let mut again = Command::new(env::current_exe().unwrap());
    env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("AWS_")).for_each(|(name, _)| {
        again.env_remove(name);
    });
    let keys = [("AWS_ACCESS_KEY_ID", "AKIATEST"), ("AWS_SECRET_ACCESS_KEY", "secret"), ("AWS_REGION", moto::REGION)];
    again.envs(keys).env("AWS_EC2_METADATA_DISABLED", "true").env("SOFTHSM2_CONF", conf);
    panic!("{}", again.env("HOLDFAST_BENCH_CUSTODY", folder).exec());
}

fn private(folder: &Path, name: &str, content: &str) -> PathBuf {
    let path = folder.join(name);
    fs::write(&path, content).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    path
}

fn softhsm(folder: &Path) -> Pkcs11Custody {
    let made = Command::new("softhsm2-util")
        .args(["--init-token", "--free", "--label", "bench", "--pin", PIN, "--so-pin", "so-pin-1"])
        .output()
        .unwrap();
    assert!(made.status.success());
    Pkcs11Custody {
        module: MODULE.into(),
        token: "pkcs11:token=bench".parse().unwrap(),
        pin_file: private(folder, "pin", PIN),
        label: "holdfast".into(),
        sessions: 4,
        timeout: Duration::from_secs(5),
    }
}

fn aws(moto: &Moto) -> [(&'static str, CustodyConfig); 2] {
    let (endpoint, timeout) = (Some(moto.url()), Duration::from_secs(60));
    let key = moto.key().try_into().unwrap();
    let account = Some(moto::ACCOUNT.to_owned().try_into().unwrap());
    let kms = AwsKmsCustody {
        key,
        account: account.clone(),
        region: None,
        profile: None,
        endpoint: endpoint.clone(),
        timeout,
    };
    let secret = "holdfast/bench".to_owned().try_into().unwrap();
    let (region, profile, kms_key) = (None, None, None);
    let secret = AwsSecretsManagerCustody { secret, account, kms_key, region, profile, endpoint, timeout };
    [("aws-kms", CustodyConfig::AwsKms(kms)), ("aws-secrets", CustodyConfig::AwsSecretsManager(secret))]
}

/// A backend whose keys are made.
struct Subject {
    name: &'static str,
    config: CustodyConfig,
    data_dir: PathBuf,
    node_id: PublicKey,
}

impl Subject {
    fn make(name: &'static str, config: CustodyConfig, folder: &Path) -> Self {
        let data_dir = folder.join(name);
        fs::create_dir(&data_dir).unwrap();
        let node_id = custody::init(&config, Network::Regtest, &data_dir).unwrap().identity().public_key();
        Self { name, config, data_dir, node_id }
    }

    fn open(&self) -> std::sync::Arc<dyn Custody> {
        custody::open(&self.config, Network::Regtest, &self.data_dir, &self.node_id).unwrap()
    }
}

fn measure(subject: &Subject) {
    let start = |_| {
        let before = Instant::now();
        let custody = subject.open();
        custody.unseal().unwrap();
        custody.self_test().unwrap();
        before.elapsed()
    };
    // Without a rate: a signer starts seldom.
    Times((0..STARTS).map(start).collect()).row(subject.name, "start", 1, None);
    let (custody, point) = (subject.open(), point());
    let identity = custody.identity();
    for callers in CALLERS {
        table::measure(subject.name, "sign", callers, |_| identity.sign(&[7; 32]).unwrap());
        table::measure(subject.name, "ecdh", callers, |_| identity.ecdh(&point).unwrap());
    }
}

fn point() -> PublicKey {
    SecretKey::from_slice(&[9; 32]).unwrap().public_key(&Secp256k1::new())
}
