//! Custody in a file: the seed encrypted with a passphrase, the node identity a child of the seed.
//!
//! It protects a copied disk or backup, not a machine that runs the signer and can read the passphrase.

use std::path::Path;

use argon2::{Algorithm, Argon2, Block, Params, Version};
use bitcoin::{Network, secp256k1::PublicKey};
use chacha20poly1305::{
    XChaCha20Poly1305,
    aead::{Aead, KeyInit, Payload},
};
use zeroize::Zeroizing;

use super::{
    CustodyError, Seed, SeedOnly, files, random,
    sealed::{self, Argon2id, Header, Lock, SealedSeed},
};
use crate::{config::FileCustody, harden::memory::on_clean_stack};

const NAME: &str = "file";

/// What RFC 9106 section 4 recommends where memory is not plentiful: 64 MiB, three passes, four lanes.
const MEMORY_KIB: u32 = 64 * 1024;
const PASSES: u32 = 3;
const LANES: u32 = 4;
/// A header may ask for this much at most: it is used before it can be authenticated, and whoever can write the file must not
/// be able to take the machine's memory, or a start's time.
const MAX_MEMORY_KIB: u32 = 4 * MEMORY_KIB;
const MAX_PASSES: u32 = 16;
const MAX_LANES: u32 = 16;

/// Makes a fresh seed and seals it. Refuses when the file already exists.
pub fn init(config: &FileCustody, network: Network) -> Result<SeedOnly, CustodyError> {
    import(config, network, random()?)
}

/// Seals a seed that exists already. Refuses when the file already exists.
pub fn import(config: &FileCustody, network: Network, seed: Seed) -> Result<SeedOnly, CustodyError> {
    sealed::refuse_existing(&config.path)?;
    let passphrase = files::read_secret(&config.passphrase_file, "passphrase file")?;
    let backend = SeedOnly::new(NAME, &seed)?;
    drop(seed);
    let kdf = Argon2id { memory_kib: MEMORY_KIB, passes: PASSES, lanes: LANES, salt: *random()? };
    let header = Header { network, node_id: backend.node_id(), lock: Lock::Passphrase(kdf.clone()) };
    let nonce: Zeroizing<[u8; 24]> = random()?;
    let ciphertext = cipher(passphrase.as_str(), &kdf)?
        .encrypt(&(*nonce).into(), Payload { msg: backend.seed.as_slice(), aad: &header.associated_data() })
        .map_err(|_| CustodyError::Wrong("the seed could not be encrypted".into()))?;
    SealedSeed { header, nonce: nonce.to_vec(), ciphertext }.create(&config.path)?;
    Ok(backend)
}

/// Decrypts the seed and checks that it gives the node id that was recorded.
pub fn open(config: &FileCustody, network: Network, node_id: &PublicKey) -> Result<SeedOnly, CustodyError> {
    let sealed = SealedSeed::read(&config.path, network, node_id)?;
    let passphrase = files::read_secret(&config.passphrase_file, "passphrase file")?;
    let backend = SeedOnly::new(NAME, &unseal(&sealed, passphrase.as_str(), &config.path)?)?;
    if backend.node_id() != *node_id {
        return Err(CustodyError::Wrong(format!(
            "the seed in {} gives node id {}, not the recorded {node_id}",
            config.path.display(),
            backend.node_id(),
        )));
    }
    Ok(backend)
}

fn unseal(sealed: &SealedSeed, passphrase: &str, path: &Path) -> Result<Seed, CustodyError> {
    let fail = |why: &str| CustodyError::Wrong(format!("sealed seed {}: {why}", path.display()));
    let Lock::Passphrase(kdf) = &sealed.header.lock else {
        return Err(fail("is sealed by a token, not by a passphrase"));
    };
    let nonce: [u8; 24] = sealed.nonce.as_slice().try_into().map_err(|_| fail("its nonce has not 24 bytes"))?;
    let aad = sealed.header.associated_data();
    let opened = cipher(passphrase, kdf)?
        .decrypt(&nonce.into(), Payload { msg: &sealed.ciphertext, aad: &aad })
        .map(Zeroizing::new)
        .map_err(|_| fail("does not open: the passphrase is wrong, or the file was changed"))?;
    let mut seed = Seed::default();
    match opened.len() == seed.len() {
        true => seed.copy_from_slice(&opened),
        false => return Err(fail("does not hold a seed of 32 bytes")),
    }
    Ok(seed)
}

fn cipher(passphrase: &str, kdf: &Argon2id) -> Result<XChaCha20Poly1305, CustodyError> {
    if kdf.memory_kib > MAX_MEMORY_KIB || kdf.passes > MAX_PASSES || kdf.lanes > MAX_LANES {
        return Err(CustodyError::Wrong(format!(
            "the sealed seed asks for {} KiB of memory, {} passes and {} lanes; at most {MAX_MEMORY_KIB} KiB, {MAX_PASSES} and \
             {MAX_LANES} are used: the file was changed",
            kdf.memory_kib, kdf.passes, kdf.lanes
        )));
    }
    let fail = |e: argon2::Error| CustodyError::Wrong(format!("argon2id parameters of the sealed seed: {e}"));
    let params = Params::new(kdf.memory_kib, kdf.passes, kdf.lanes, Some(32)).map_err(fail)?;
    let mut memory = Zeroizing::new(Vec::new());
    memory.try_reserve_exact(params.block_count()).map_err(|_| {
        CustodyError::Unavailable(format!("no {} KiB of memory for the passphrase's key derivation", kdf.memory_kib))
    })?;
    memory.resize(params.block_count(), Block::default());
    let mut key = Zeroizing::new([0; 32]);
    // Its hash takes the passphrase in by blocks, which it leaves on the stack.
    on_clean_stack(|| {
        let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
        let (passphrase, key, memory) = (passphrase.as_bytes(), key.as_mut_slice(), memory.as_mut_slice());
        argon2.hash_password_into_with_memory(passphrase, &kdf.salt, key, memory)
    })
    .map_err(fail)?;
    Ok(XChaCha20Poly1305::new((&*key).into()))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::custody::{Custody, file};

    struct Fixture {
        _directory: tempfile::TempDir,
        config: FileCustody,
    }

    fn fixture() -> Fixture {
        let directory = tempfile::tempdir().unwrap();
        let config = FileCustody {
            path: directory.path().join("seed.sealed"),
            passphrase_file: directory.path().join("passphrase"),
        };
        files::create_durably(&config.passphrase_file, b"correct horse\n").unwrap();
        Fixture { _directory: directory, config }
    }

    #[test]
    fn the_same_seed_and_identity_come_back() {
        let fixture = fixture();
        let made = file::init(&fixture.config, Network::Regtest).unwrap();
        let node_id = made.identity().public_key();
        let opened = file::open(&fixture.config, Network::Regtest, &node_id).unwrap();
        assert_eq!(*made.unseal().unwrap(), *opened.unseal().unwrap());
        assert_eq!(opened.identity().public_key(), node_id);
        let text = fs::read_to_string(&fixture.config.path).unwrap();
        assert!(!text.contains(&hex::encode(*made.unseal().unwrap())));
    }

    #[test]
    fn a_wrong_passphrase_and_a_changed_file_are_refused() {
        let fixture = fixture();
        let node_id = file::init(&fixture.config, Network::Regtest).unwrap().identity().public_key();
        let open = || file::open(&fixture.config, Network::Regtest, &node_id).map(|_| ());

        let good = fs::read_to_string(&fixture.config.path).unwrap();
        // Each hexadecimal and decimal field in turn; network and node id have checks of their own before.
        for field in ["nonce", "ciphertext", "memory_kib", "passes", "lanes", "salt"] {
            let line = good.lines().find(|line| line.starts_with(&format!("{field} ="))).unwrap();
            let at = line.rfind(|c: char| c.is_ascii_hexdigit()).unwrap();
            let digit = if &line[at..=at] == "4" { "5" } else { "4" };
            let changed = good.replace(line, &format!("{}{digit}{}", &line[..at], &line[at + 1..]));
            assert_ne!(changed, good);
            fs::write(&fixture.config.path, changed).unwrap();
            assert!(matches!(open(), Err(CustodyError::Wrong(_))), "{field}");
        }
        fs::write(&fixture.config.path, good.replace("regtest", "signet")).unwrap();
        let other_network = file::open(&fixture.config, Network::Signet, &node_id).map(|_| ());
        assert!(matches!(other_network, Err(CustodyError::Wrong(_))));

        fs::write(&fixture.config.path, good).unwrap();
        assert_eq!(open(), Ok(()));
        fs::write(&fixture.config.passphrase_file, "correct hearse\n").unwrap();
        assert!(open().unwrap_err().to_string().contains("the passphrase is wrong"));
    }

    #[test]
    fn absent_is_not_empty() {
        let fixture = fixture();
        let made = file::init(&fixture.config, Network::Regtest).unwrap();
        let node_id = made.identity().public_key();
        assert!(matches!(file::init(&fixture.config, Network::Regtest), Err(CustodyError::Wrong(_))));
        fs::remove_file(&fixture.config.path).unwrap();
        let gone = file::open(&fixture.config, Network::Regtest, &node_id).map(|_| ());
        assert!(matches!(gone, Err(CustodyError::Unavailable(_))));
        assert!(!fixture.config.path.exists());
    }

    /// The header is used before it can be authenticated.
    #[test]
    fn a_header_that_asks_for_too_much_is_refused_before_it_gets_it() {
        let fixture = fixture();
        let node_id = file::init(&fixture.config, Network::Regtest).unwrap().identity().public_key();
        let good = fs::read_to_string(&fixture.config.path).unwrap();
        for (field, value, hostile) in [
            ("memory_kib", "65536", "4294967295"),
            ("memory_kib", "65536", "262145"),
            ("passes", "3", "4294967295"),
            ("lanes", "4", "16777215"),
        ] {
            let (was, is) = (format!("{field} = {value}\n"), format!("{field} = {hostile}\n"));
            assert!(good.contains(&was), "{good}");
            fs::write(&fixture.config.path, good.replace(&was, &is)).unwrap();
            let refusal = file::open(&fixture.config, Network::Regtest, &node_id).err().unwrap().to_string();
            assert!(refusal.contains(hostile) && refusal.contains("at most"), "{refusal}");
        }
        for (field, value) in [("memory_kib", "65536"), ("passes", "3"), ("lanes", "4")] {
            fs::write(&fixture.config.path, good.replace(&format!("{field} = {value}\n"), &format!("{field} = 0\n")))
                .unwrap();
            assert!(matches!(file::open(&fixture.config, Network::Regtest, &node_id), Err(CustodyError::Wrong(_))));
        }
    }

    /// Nothing is sealed with a passphrase that others can read, or with none.
    #[test]
    fn a_weak_passphrase_file_makes_and_opens_nothing() {
        use std::os::unix::fs::PermissionsExt;
        let fixture = fixture();
        let passphrase = &fixture.config.passphrase_file;
        let init = || file::init(&fixture.config, Network::Regtest).map(|_| ());
        let mode = |mode| fs::set_permissions(passphrase, fs::Permissions::from_mode(mode)).unwrap();
        mode(0o644);
        assert!(init().unwrap_err().to_string().contains("chmod 600"));
        mode(0o600);
        for empty in ["", "\n"] {
            fs::write(passphrase, empty).unwrap();
            assert!(init().unwrap_err().to_string().contains("is empty"));
        }
        fs::remove_file(passphrase).unwrap();
        assert!(matches!(init(), Err(CustodyError::Unavailable(_))));
        assert!(!fixture.config.path.exists());

        files::create_durably(passphrase, b"correct horse\n").unwrap();
        let node_id = file::init(&fixture.config, Network::Regtest).unwrap().identity().public_key();
        let open = || file::open(&fixture.config, Network::Regtest, &node_id).map(|_| ());
        fs::set_permissions(&fixture.config.path, fs::Permissions::from_mode(0o644)).unwrap();
        assert!(open().unwrap_err().to_string().contains("chmod 600"));
        fs::set_permissions(&fixture.config.path, fs::Permissions::from_mode(0o600)).unwrap();
        mode(0o640);
        assert!(open().unwrap_err().to_string().contains("chmod 600"));
        mode(0o600);
        assert_eq!(open(), Ok(()));
    }

    #[test]
    fn an_imported_seed_is_the_one_that_comes_back() {
        let fixture = fixture();
        let seed = Zeroizing::new([7; 32]);
        let node_id = file::import(&fixture.config, Network::Regtest, seed.clone()).unwrap().identity().public_key();
        assert_eq!(*file::open(&fixture.config, Network::Regtest, &node_id).unwrap().unseal().unwrap(), *seed);
        let other = file::import(&fixture.config, Network::Regtest, Zeroizing::new([8; 32])).map(|_| ());
        assert!(matches!(other, Err(CustodyError::Wrong(_))));
        assert!(file::open(&fixture.config, Network::Regtest, &node_id).is_ok());
    }
}
