//! Seeds of other LDK programs.

use std::{fs, process::Command};

use bitcoin::{
    Network,
    bip32::Xpriv,
    secp256k1::{PublicKey, Secp256k1},
};
use holdfast_signer::{config::SignerConfig, custody, keys::NodeKeys};
use lightning::sign::{ChannelSigner, KeysManager, SignerProvider};

use crate::site::{Site, stderr, stdout};

const SEED: [u8; 32] = [0xa7; 32];
const WORDS: &str = "legal winner thank year wave sausage worth useful legal winner thank yellow";
/// BIP 39's second vector: the words with the passphrase TREZOR.
const ENTROPY: &str = "2e8905819b8723fe2c1d161860e5ee1830318dbf49a83bd451cfb8440c28bd6fa457fe1296106559a3c80937a1c1069be3a3a5bd38\
                       1ee6260e8d9739fce1f607";

fn ldk(seed: &[u8; 32]) -> KeysManager {
    KeysManager::new(seed, 0, 0, true)
}

fn node_id(seed: &[u8; 32]) -> PublicKey {
    ldk(seed).get_node_secret_key().public_key(&Secp256k1::new())
}

/// As ldk-node 0.7.1 has it (`build_with_store_internal`), in its own words.
fn ldk_node_seed(entropy: &[u8]) -> [u8; 32] {
    Xpriv::new_master(Network::Regtest, entropy).unwrap().private_key.secret_bytes()
}

#[test]
fn a_seed_is_placed_only_once_its_node_id_is_confirmed() {
    let site = Site::new();
    site.secret("seed.hex", hex::encode(SEED).as_bytes());
    let id = node_id(&SEED).to_string();
    let import = ["import", "--config", "file.toml", "--ldk-seed-file", "seed.hex"];
    let confirmed = [&import[..], &["--expect-node-id", &id]].concat();

    let asked = site.fails(&import, 64, "nothing was made");
    assert_eq!(stdout(&asked), id);
    assert!(!site.path("file").exists());
    let other = node_id(&[1; 32]).to_string();
    site.fails(&[&import[..], &["--expect-node-id", &other]].concat(), 65, &id);
    assert!(!site.path("file").exists());

    // The command that it says to repeat is one that a shell takes.
    let asked = stderr(&asked);
    let command = asked.lines().find(|line| line.contains("--expect-node-id")).unwrap();
    let made = Command::new("sh").args(["-c", command]).current_dir(site.path("")).output().unwrap();
    assert!(made.status.success() && stdout(&made) == id, "{command}: {}", stderr(&made));

    site.is_node("file", &id.parse().unwrap());
    assert_eq!(site.files_with(&[&SEED]), ["seed.hex"], "the seed in the clear");
    site.fails(&confirmed, 73, "never replaced");
    site.fails(&import, 73, "never replaced");
}

/// The id and all channel keys are those of LDK's `KeysManager` on ldk-node's seed.
#[test]
fn a_mnemonic_gives_the_keys_of_ldk_node() {
    let site = Site::new();
    let entropy = hex::decode(ENTROPY).unwrap();
    site.secret("words", format!("{WORDS}\n").as_bytes());
    site.secret("25th", b"TREZOR\n");
    site.secret("keys_seed", &entropy);
    site.secret("keys_seed.hex", ENTROPY.as_bytes());
    site.secret("ldk_seed", &ldk_node_seed(&entropy));
    let id = node_id(&ldk_node_seed(&entropy));
    let expect = id.to_string();
    for (name, origin) in [
        ("a", &["--mnemonic-file", "words", "--mnemonic-passphrase-file", "25th"][..]),
        ("b", &["--ldk-node-seed-file", "keys_seed"]),
        ("c", &["--ldk-node-seed-file", "keys_seed.hex"]),
        ("d", &["--ldk-seed-file", "ldk_seed"]),
    ] {
        site.file(name, name, "seed");
        let config = format!("{name}.toml");
        let args = [&["import", "--config", &config, "--expect-node-id", &expect][..], origin].concat();
        assert_eq!(site.ok(&args), expect);
        site.is_node(name, &id);
    }

    let config = SignerConfig::load(&site.path("a.toml")).unwrap();
    let custody = custody::open(&config.custody, config.network, &config.data_dir, &id).unwrap();
    let keys = NodeKeys::new(custody.unseal().unwrap(), config.network).unwrap();
    let ldk = ldk(&ldk_node_seed(&entropy));
    for channel in 0..64 {
        let keys_id = ldk.generate_channel_keys_id(channel % 2 == 0, channel);
        let theirs = ldk.derive_channel_signer(keys_id).pubkeys(&Secp256k1::new());
        assert_eq!(keys.channel(&keys_id).public_keys(None), theirs);
    }

    // Without its passphrase the same mnemonic is another node.
    site.file("e", "e", "seed");
    let bare = site.fails(&["import", "--config", "e.toml", "--mnemonic-file", "words"], 64, "nothing was made");
    assert_ne!(stdout(&bare), expect);
}

#[test]
fn bad_input_makes_nothing() {
    let site = Site::new();
    let import = |args: &[&str], code, says| {
        let output = site.fails(&[&["import", "--config", "file.toml"][..], args].concat(), code, says);
        assert!(!site.path("file").exists());
        stdout(&output) + &stderr(&output)
    };
    let seed = |content: &[u8], code, says| {
        site.secret("seed", content);
        import(&["--ldk-seed-file", "seed"], code, says)
    };
    import(&[], 64, "--ldk-seed-file");
    import(&["--ldk-seed-file", "a", "--mnemonic-file", "b"], 64, "cannot be used with");
    import(&["--ldk-seed-file", "a", "--mnemonic-passphrase-file", "b"], 64, "cannot be used with");
    import(&["--ldk-seed-file", "none"], 66, "none");
    import(&["--ldk-seed-file", "."], 77, "is not a regular file");
    seed(b"", 65, "holds 0 bytes");
    seed(&[7; 31], 65, "holds 31 bytes");
    seed(&[7; 64], 65, "keys_seed");
    seed(&[0; 32], 65, "zeros");
    seed(&[b'z'; 64], 65, "");
    seed(&vec![7; 1 << 20], 77, "too long");
    import(&["--ldk-seed-file", "seed", "--expect-node-id", "02ab"], 64, "--expect-node-id");

    site.secret("seed", &SEED);
    for mode in [0o644, 0o640, 0o602] {
        site.mode("seed", mode);
        import(&["--ldk-seed-file", "seed"], 77, "chmod 600");
    }
    site.mode("seed", 0o600);

    let words = |content: &str, code, says| {
        site.secret("words", content.as_bytes());
        import(&["--mnemonic-file", "words"], code, says)
    };
    words("", 65, "0 words");
    words(&WORDS.replace("yellow", "legal"), 65, "checksum");
    words(&WORDS.replace("wave", "wafe"), 65, "word 5");
    // What is said about a wrong mnemonic is not the mnemonic.
    assert!(!words(&WORDS.replace("wave", "wafe"), 65, "").contains("wafe"));
    site.secret("words", &[0xff; 40]);
    import(&["--mnemonic-file", "words"], 65, "UTF-8");
    site.secret("words", WORDS.as_bytes());
    site.secret("25th", b"\n");
    import(&["--mnemonic-file", "words", "--mnemonic-passphrase-file", "25th"], 77, "is empty");

    // A backend that cannot seal leaves nothing either.
    let id = node_id(&SEED).to_string();
    fs::remove_file(site.path("file.pass")).unwrap();
    let output = site.output(&["import", "--config", "file.toml", "--ldk-seed-file", "seed", "--expect-node-id", &id]);
    assert_eq!(output.status.code(), Some(69), "{}", stderr(&output));
    assert!(!site.path("file").exists());
}
