//! Keys are in the token and in the signer, and nowhere else: every byte of the replicas' memory, and every byte of
//! Postgres' files, is looked at. In the signer they are in locked pages that no core dump holds.

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
    // None of them lets anybody but root look into it.
    if rustix::process::geteuid().is_root() {
        look_into_memory(&scene, &replicas, leader.name());
    } else {
        may_skip("without root: the memory of signer and replicas");
    }
    scene.signer().kill().unwrap();
    let keys = Keys::of(&scene);
    scene.postgres().kill().unwrap();
    let files = files_below(&scene.folder().join("postgres"));
    let control = Needle { what: "a table's name", bytes: b"leadership_history".to_vec() };
    assert!(!found(&files, std::slice::from_ref(&control)).is_empty(), "the search does not find what is in Postgres");
    assert_eq!(found(&files, &keys.secret), Vec::<&str>::new(), "in Postgres' files");
}

/// What cannot be looked at here is a failure, unless whoever runs this says that it need not be looked at.
fn may_skip(what: &str) {
    let may = std::env::var_os("HOLDFAST_MAY_SKIP").is_some();
    assert!(may, "cannot look {what}; set HOLDFAST_MAY_SKIP=1 to pass without that");
    eprintln!("NOT LOOKED AT {what}");
}

/// Kills the signer.
fn look_into_memory(scene: &Scene, replicas: &[(&str, u32)], leader: &str) {
    let signer = scene.signer().process().pid().unwrap();
    let memory_of_signer = memory(signer);
    let dump_of_signer = core_dump(signer, scene.folder());
    let memory_of_replicas: Vec<(&str, Vec<Region>)> =
        replicas.iter().map(|(name, pid)| (*name, memory(*pid))).collect();
    scene.signer().kill().unwrap();
    let keys = Keys::of(scene);
    assert!(keys.channels >= 2, "both channels' keys are looked for");

    // The search finds what is there: the seed where it belongs, and in the leader what LDK keeps (SECURITY.md).
    let seed = keys.secret.first().unwrap();
    assert!(is_in(&memory_of_signer, seed), "the search does not even find the seed in the signer");
    let (_, memory_of_leader) = memory_of_replicas.iter().find(|(name, _)| *name == leader).unwrap();
    assert!(!found(memory_of_leader, &keys.kept_in_replica).is_empty(), "nor what LDK keeps in the leader");

    for (name, memory) in &memory_of_replicas {
        assert_eq!(found(memory, &keys.secret), Vec::<&str>::new(), "in the memory of {name}");
    }
    // In the signer what lasts is where it is never swapped and never dumped, and what passed has left nothing behind.
    let (locked, open): (Vec<_>, Vec<_>) = memory_of_signer.into_iter().partition(|region| region.has("lo"));
    assert_eq!(found(&open, &keys.secret), Vec::<&str>::new(), "in memory of the signer that is not locked");
    assert!(locked.iter().all(|region| region.has("dd")), "a locked region would be dumped");
    assert_eq!(
        found(&locked, &keys.secret[keys.of_node..]),
        Vec::<&str>::new(),
        "channels' keys are kept in the signer"
    );
    if let Some(dump) = dump_of_signer {
        let node_id = Needle { what: "the node's id", bytes: keys.node_id.to_vec() };
        assert!(is_in(&dump, &node_id), "the dump does not hold what the signer's memory holds");
        assert_eq!(found(&dump, &keys.secret), Vec::<&str>::new(), "in a core dump of the signer");
    }
}

/// What a debugger that root runs writes as a core dump; none where there is no debugger and there need not be one.
fn core_dump(pid: u32, folder: &Path) -> Option<Vec<Region>> {
    let prefix = folder.join("core");
    let output = match Command::new("gcore").arg("-o").arg(&prefix).arg(pid.to_string()).output() {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            may_skip("without gcore (of gdb): a core dump of the signer");
            return None;
        }
        output => output.unwrap(),
    };
    let said = String::from_utf8_lossy(&output.stderr);
    let bytes = fs::read(prefix.with_extension(pid.to_string())).unwrap_or_else(|error| panic!("{error}: {said}"));
    Some(vec![Region { flags: String::new(), bytes }])
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
    node_id: [u8; 33],
    /// The seed first; after so many of the node, those of the channels.
    secret: Vec<Needle>,
    of_node: usize,
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
        let pin = fs::read_to_string(scene.token().pin_file()).unwrap();
        secret.push(needle("the token's PIN", pin.trim().as_bytes().to_vec()));
        let of_node = secret.len();
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
        let node_id = hex::decode(node_id.trim()).unwrap().try_into().unwrap();
        Self { node_id, secret, of_node, kept_in_replica, channels }
    }
}

/// A part of a process' memory, or a file.
struct Region {
    /// As /proc/PID/smaps has them: `lo` locked, `dd` left out of core dumps.
    flags: String,
    bytes: Vec<u8>,
}

impl Region {
    fn has(&self, flag: &str) -> bool {
        self.flags.split(' ').any(|f| f == flag)
    }
}

/// Which needles are in the hay, as they are or as hex digits.
fn found<'a>(hay: &[Region], needles: &'a [Needle]) -> Vec<&'a str> {
    needles.iter().filter(|needle| is_in(hay, needle)).map(|needle| needle.what).collect()
}

fn is_in(hay: &[Region], needle: &Needle) -> bool {
    [needle.bytes.clone(), hex::encode(&needle.bytes).into_bytes()].iter().any(|bytes| {
        let finder = Finder::new(bytes);
        hay.iter().any(|straw| finder.find(&straw.bytes).is_some())
    })
}

/// Every readable region of a process' memory.
fn memory(pid: u32) -> Vec<Region> {
    let maps = fs::read_to_string(format!("/proc/{pid}/smaps")).expect("a running process");
    let memory =
        File::open(format!("/proc/{pid}/mem")).unwrap_or_else(|error| panic!("the memory of process {pid}: {error}"));
    let mut regions = Vec::new();
    let mut readable = None;
    for line in maps.lines() {
        let mut fields = line.split_whitespace();
        let first = fields.next().unwrap();
        if let Some((from, to)) = first.split_once('-') {
            let special = line.ends_with("[vvar]") || line.ends_with("[vsyscall]") || line.ends_with("[vvar_vclock]");
            let rights = fields.next().unwrap();
            let [from, to] = [from, to].map(|address| u64::from_str_radix(address, 16).unwrap());
            readable = (rights.starts_with('r') && !special).then_some(from..to);
        } else if first == "VmFlags:"
            && let Some(range) = readable.take()
        {
            let mut bytes = vec![0; usize::try_from(range.end - range.start).unwrap()];
            // A region may have gone since it was listed.
            if memory.read_exact_at(&mut bytes, range.start).is_ok() {
                let flags = line.strip_prefix("VmFlags:").unwrap().trim().to_owned();
                regions.push(Region { flags, bytes });
            }
        }
    }
    let total: usize = regions.iter().map(|region| region.bytes.len()).sum();
    assert!(total > 1_000_000, "a process has more memory than that");
    regions
}

fn files_below(folder: &Path) -> Vec<Region> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display())) {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_dir() {
            files.extend(files_below(&entry.path()));
        } else if let Ok(mut file) = File::open(entry.path()) {
            let mut bytes = Vec::new();
            file.read_to_end(&mut bytes).unwrap();
            files.push(Region { flags: String::new(), bytes });
        }
    }
    files
}
