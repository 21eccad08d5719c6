//! Keys are in the token and in the signer, and nowhere else: every byte of the replicas' memory, and every byte of
//! Postgres' files, is looked at.

use std::{
    fs::{self, File},
    io::Read,
    os::unix::fs::FileExt,
    path::Path,
    process::Command,
};

use bitcoin::{Network, bip32::Xpriv, secp256k1::Secp256k1};
use holdfast_signer::{
    config::SignerConfig,
    custody,
    guard::{EmbeddedStore, GuardStore, Name},
};
use holdfast_softhsm_tests::Scene;
use ldk_node::lightning::sign::KeysManager;
use memchr::memmem::Finder;

#[tokio::test(flavor = "multi_thread")]
async fn p1_keys_stay() {
    let scene = Scene::with_channels().await.unwrap();
    let stream = scene.stream().await.unwrap();
    tokio::time::sleep(std::time::Duration::from_secs(2)).await;
    stream.finish(&scene).await.unwrap();

    let pid = |process: &holdfast_local::process::Process| process.pid().unwrap();
    let replicas: Vec<(&str, u32)> =
        scene.replicas().iter().map(|replica| (replica.name(), pid(replica.process()))).collect();
    let (leader, _) = scene.leader().await.unwrap();

    // What the signer is holding, read before it goes: the guard's file opens to one process at a time.
    // It lets nobody but root look into it.
    let is_root = rustix::process::geteuid().is_root();
    let memory_of_signer = is_root.then(|| memory(pid(scene.signer().process())));
    let memory_of_replicas: Vec<(&str, Vec<Vec<u8>>)> =
        replicas.iter().map(|(name, pid)| (*name, memory(*pid))).collect();
    scene.signer().kill().unwrap();
    let keys = Keys::of(&scene);
    assert!(keys.channels >= 2, "both channels' keys are looked for");

    // The search finds what is there: the seed where it belongs, and in the leader what LDK keeps (SECURITY.md).
    let seed = &keys.secret[..1];
    if let Some(memory) = memory_of_signer {
        assert!(!found(&memory, seed).is_empty(), "the search does not even find the seed in the signer");
    }
    let (_, memory_of_leader) = memory_of_replicas.iter().find(|(name, _)| *name == leader.name()).unwrap();
    assert!(!found(memory_of_leader, &keys.kept_in_replica).is_empty(), "nor what LDK keeps in the leader");

    for (name, memory) in &memory_of_replicas {
        assert_eq!(found(memory, &keys.secret), Vec::<&str>::new(), "in the memory of {name}");
    }
    scene.postgres().kill().unwrap();
    let files = files_below(&scene.folder().join("postgres"));
    let control = Needle { what: "a table's name", bytes: b"leadership_history".to_vec() };
    assert!(!found(&files, std::slice::from_ref(&control)).is_empty(), "the search does not find what is in Postgres");
    assert_eq!(found(&files, &keys.secret), Vec::<&str>::new(), "in Postgres' files");
}

/// A process of its own for what needs the token: SoftHSM finds it through an environment variable.
#[test]
#[ignore = "a part of p1_keys_stay"]
fn unseal() {
    let config = SignerConfig::load(Path::new(&std::env::var("HOLDFAST_TEST_SIGNER").unwrap())).unwrap();
    let node_id = std::env::var("HOLDFAST_TEST_NODE_ID").unwrap().parse().unwrap();
    let custody = custody::open(&config.custody, Network::Regtest, &config.data_dir, &node_id).unwrap();
    println!("\nseed {}", hex::encode(*custody.unseal().unwrap()));
}

struct Needle {
    what: &'static str,
    bytes: Vec<u8>,
}

struct Keys {
    /// The seed first.
    secret: Vec<Needle>,
    kept_in_replica: Vec<Needle>,
    channels: usize,
}

impl Keys {
    /// The seed, what derives from it, and the keys of all channels that the guard knows.
    fn of(scene: &Scene) -> Self {
        let node_id = fs::read_to_string(scene.signer().data().join("node_id")).unwrap();
        let output = Command::new(std::env::current_exe().unwrap())
            .args(["--ignored", "--exact", "unseal", "--nocapture"])
            .env("SOFTHSM2_CONF", scene.token().configuration())
            .env("HOLDFAST_TEST_SIGNER", scene.signer().configuration())
            .env("HOLDFAST_TEST_NODE_ID", node_id.trim())
            .output()
            .unwrap();
        let said = String::from_utf8(output.stdout).unwrap();
        let seed = said.lines().find_map(|line| line.strip_prefix("seed "));
        let seed = seed.unwrap_or_else(|| panic!("{said}{}", String::from_utf8_lossy(&output.stderr)));
        let seed: [u8; 32] = hex::decode(seed.trim()).unwrap().try_into().unwrap();

        let secp = Secp256k1::new();
        let master = Xpriv::new_master(Network::Regtest, &seed).unwrap();
        let child = |path: &str| {
            let path: bitcoin::bip32::DerivationPath = path.parse().unwrap();
            master.derive_priv(&secp, &path).unwrap().private_key.secret_bytes().to_vec()
        };
        let needle = |what, bytes: Vec<u8>| Needle { what, bytes };
        let mut secret = vec![
            needle("the seed", seed.to_vec()),
            needle("the master key", child("m")),
            needle("a node key from the seed", child("m/0'")),
            needle("the destination key", child("m/1'")),
            needle("the shutdown key", child("m/2'")),
            needle("the channels' master key", child("m/3'")),
            needle("the wallet's account key", child("m/84'/1'/0'")),
            needle("the guard's key", child("m/1000'")),
        ];
        let kept_in_replica =
            vec![needle("the peer storage key", child("m/6'")), needle("the receive auth key", child("m/7'"))];

        let ldk = KeysManager::new(&seed, 0, 0, true);
        let guard = EmbeddedStore::open(&scene.signer().data().join("guard.redb")).unwrap();
        let mut channels = 0;
        for (name, _) in guard.load().unwrap() {
            let Name::Channel(keys_id) = name else { continue };
            channels += 1;
            let keys = ldk.derive_channel_keys(&keys_id);
            secret.extend([
                needle("a funding key", keys.funding_key(None).secret_bytes().to_vec()),
                needle("a revocation base key", keys.revocation_base_key.secret_bytes().to_vec()),
                needle("a delayed payment base key", keys.delayed_payment_base_key.secret_bytes().to_vec()),
                needle("an HTLC base key", keys.htlc_base_key.secret_bytes().to_vec()),
                needle("a commitment seed", keys.commitment_seed.to_vec()),
            ]);
        }
        Self { secret, kept_in_replica, channels }
    }
}

/// Which needles are in the hay, as they are or as hex digits.
fn found<'a>(hay: &[Vec<u8>], needles: &'a [Needle]) -> Vec<&'a str> {
    let is_in = |bytes: &[u8]| {
        let finder = Finder::new(bytes);
        hay.iter().any(|straw| finder.find(straw).is_some())
    };
    let there = needles.iter().filter(|needle| is_in(&needle.bytes) || is_in(hex::encode(&needle.bytes).as_bytes()));
    there.map(|needle| needle.what).collect()
}

/// Every readable region of a process' memory.
fn memory(pid: u32) -> Vec<Vec<u8>> {
    let maps = fs::read_to_string(format!("/proc/{pid}/maps")).expect("a running process");
    let memory =
        File::open(format!("/proc/{pid}/mem")).unwrap_or_else(|error| panic!("the memory of process {pid}: {error}"));
    let mut regions = Vec::new();
    for line in maps.lines() {
        let mut fields = line.split_whitespace();
        let (range, rights) = (fields.next().unwrap(), fields.next().unwrap());
        if !rights.starts_with('r') || line.ends_with("[vvar]") || line.ends_with("[vsyscall]") {
            continue;
        }
        let (from, to) = range.split_once('-').unwrap();
        let (from, to) = (u64::from_str_radix(from, 16).unwrap(), u64::from_str_radix(to, 16).unwrap());
        let mut bytes = vec![0; usize::try_from(to - from).unwrap()];
        // A region may have gone since it was listed.
        if memory.read_exact_at(&mut bytes, from).is_ok() {
            regions.push(bytes);
        }
    }
    assert!(regions.iter().map(Vec::len).sum::<usize>() > 1_000_000, "a process has more memory than that");
    regions
}

fn files_below(folder: &Path) -> Vec<Vec<u8>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display())) {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_dir() {
            files.extend(files_below(&entry.path()));
        } else if let Ok(mut file) = File::open(entry.path()) {
            let mut bytes = Vec::new();
            file.read_to_end(&mut bytes).unwrap();
            files.push(bytes);
        }
    }
    files
}
