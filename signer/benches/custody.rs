//! What a call to custody costs: signatures and ECDH a second, with 1 and 16 callers, for a file and for SoftHSM; the start;
//! and the token's own rate of derivations, of which an ECDH needs two, with the share of it that is reached.
//!
//! `cargo bench -p holdfast-signer --bench custody`

use std::{
    env, fs,
    hint::black_box,
    os::unix::{fs::PermissionsExt, process::CommandExt},
    path::{Path, PathBuf},
    process::Command,
    sync::Mutex,
    thread,
    time::{Duration, Instant},
};

use bitcoin::{
    Network,
    secp256k1::{PublicKey, Secp256k1, SecretKey},
};
use cryptoki::{
    context::Pkcs11,
    mechanism::{
        Mechanism,
        elliptic_curve::{EcKdf, Ecdh1DeriveParams},
    },
    object::{Attribute, AttributeType, KeyType, ObjectClass},
};
use holdfast_signer::{
    config::{CustodyConfig, FileCustody, Pkcs11Custody},
    custody,
};

const MODULE: &str = "/usr/lib/softhsm/libsofthsm2.so";
const PIN: &str = "648219";
const FOR: Duration = Duration::from_secs(3);

fn main() {
    // SoftHSM reads its environment once a process, so this one starts again with it set.
    let Some(directory) = env::var_os("HOLDFAST_BENCH_CUSTODY").map(PathBuf::from) else {
        let directory = env::temp_dir().join(format!("holdfast-bench-custody-{}", std::process::id()));
        fs::create_dir_all(directory.join("tokens")).unwrap();
        let conf = directory.join("softhsm2.conf");
        fs::write(&conf, format!("directories.tokendir = {}\n", directory.join("tokens").display())).unwrap();
        let program = env::current_exe().unwrap();
        let again = Command::new(program).env("SOFTHSM2_CONF", conf).env("HOLDFAST_BENCH_CUSTODY", directory).exec();
        panic!("{again}");
    };
    let created = Command::new("softhsm2-util")
        .args(["--init-token", "--free", "--label", "bench", "--pin", PIN, "--so-pin", "so-pin-1"])
        .output()
        .unwrap();
    assert!(created.status.success());
    let secret = |name: &str, content: &str| {
        let path = directory.join(name);
        fs::write(&path, content).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        path
    };
    let file =
        FileCustody { path: directory.join("seed.file"), passphrase_file: secret("passphrase", "correct horse") };
    let token = Pkcs11Custody {
        module: MODULE.into(),
        token: "pkcs11:token=bench".parse().unwrap(),
        pin_file: secret("pin", PIN),
        label: "holdfast".into(),
        sessions: 4,
        timeout: Duration::from_secs(5),
    };
    println!("{:<10}{:<12}{:>8}{:>12}{:>12}{:>12}", "backend", "call", "callers", "per second", "p50 us", "p99 us");
    backend("file", &CustodyConfig::File(file), &directory);
    let token = CustodyConfig::Pkcs11(token);
    backend("pkcs11", &token, &directory);
    against_raw_derivations(&token, &directory);
    fs::remove_dir_all(&directory).unwrap();
}

fn backend(name: &str, config: &CustodyConfig, data_dir: &Path) {
    let made = custody::init(config, Network::Regtest, data_dir).unwrap();
    let node_id = made.identity().public_key();
    drop(made);
    let started = Instant::now();
    let custody = custody::open(config, Network::Regtest, data_dir, &node_id).unwrap();
    custody.unseal().unwrap();
    custody.self_test().unwrap();
    println!("{name:<10}{:<12}{:>8}{:>12}{:>12.0}", "start", 1, "", started.elapsed().as_secs_f64() * 1e6);
    let identity = custody.identity();
    let point = point();
    for callers in [1, 16] {
        measure(name, "sign", callers, || identity.sign(&[7; 32]).unwrap());
        measure(name, "ecdh", callers, || identity.ecdh(&point).unwrap());
    }
}

fn measure<T>(name: &str, call: &str, callers: usize, work: impl Fn() -> T + Sync) {
    let times = Mutex::new(Vec::new());
    let started = Instant::now();
    thread::scope(|scope| {
        for _ in 0..callers {
            scope.spawn(|| {
                let mut own = Vec::new();
                while started.elapsed() < FOR {
                    let before = Instant::now();
                    black_box(work());
                    own.push(before.elapsed());
                }
                times.lock().unwrap().extend(own);
            });
        }
    });
    let mut times = times.into_inner().unwrap();
    times.sort_unstable();
    let rate = times.len() as f64 / started.elapsed().as_secs_f64();
    let at = |share: f64| times[((times.len() - 1) as f64 * share) as usize].as_secs_f64() * 1e6;
    println!("{name:<10}{call:<12}{callers:>8}{rate:>12.0}{:>12.0}{:>12.0}", at(0.5), at(0.99));
}

/// The token's own rate of derivations (one session: derive, read the value, destroy), and the share of it that ECDH reaches,
/// of which each needs two. The two take turns, so that what else the machine does weighs on both.
fn against_raw_derivations(config: &CustodyConfig, data_dir: &Path) {
    let recorded = fs::read_to_string(data_dir.join("seed.sealed")).unwrap();
    let node_id = recorded.lines().find_map(|line| line.strip_prefix("node_id = ")).unwrap().trim_matches('"').parse();
    let custody = custody::open(config, Network::Regtest, data_dir, &node_id.unwrap()).unwrap();
    let (identity, point) = (custody.identity(), point());

    let library = Pkcs11::new(MODULE).unwrap();
    let slot = library.get_slots_with_initialized_token().unwrap()[0];
    let session = library.open_ro_session(slot).unwrap();
    // The backend has logged the process in.
    let key = session.find_objects(&[Attribute::Class(ObjectClass::PRIVATE_KEY)]).unwrap()[0];
    let encoded = point.serialize_uncompressed();
    let derive = || {
        let mechanism = Mechanism::Ecdh1Derive(Ecdh1DeriveParams::new(EcKdf::null(), &encoded));
        let template = [
            Attribute::Token(false),
            Attribute::Class(ObjectClass::SECRET_KEY),
            Attribute::KeyType(KeyType::GENERIC_SECRET),
            Attribute::Sensitive(false),
            Attribute::Extractable(true),
            Attribute::ValueLen(32.into()),
        ];
        let derived = session.derive_key(&mechanism, key, &template).unwrap();
        session.get_attributes(derived, &[AttributeType::Value]).unwrap();
        session.destroy_object(derived).unwrap();
    };
    let run = |times: &mut Vec<Duration>, work: &dyn Fn()| {
        let started = Instant::now();
        while started.elapsed() < FOR / 20 {
            let before = Instant::now();
            work();
            times.push(before.elapsed());
        }
    };
    let (mut raw, mut ecdh) = (vec![], vec![]);
    for _ in 0..20 {
        run(&mut raw, &derive);
        run(&mut ecdh, &|| drop(black_box(identity.ecdh(&point).unwrap())));
    }
    let median = |times: &mut Vec<Duration>| {
        times.sort_unstable();
        times[times.len() / 2].as_secs_f64() * 1e6
    };
    let (raw, ecdh) = (median(&mut raw), median(&mut ecdh));
    println!("{:<10}{:<12}{:>8}{:>12.0}{raw:>12.0}", "pkcs11", "raw derive", 1, 1e6 / raw);
    println!("ECDH against raw derivations, by the medians of calls in turns: {:.2}", raw / ecdh);
}

fn point() -> PublicKey {
    SecretKey::from_slice(&[9; 32]).unwrap().public_key(&Secp256k1::new())
}
