//! Seeds that other programs made: LDK's own, and what ldk-node derives one from.
//!
//! LDK's `KeysManager` takes 32 bytes. ldk-node has 64: those of its file `keys_seed`, or of a BIP 39 mnemonic. It makes a
//! BIP 32 master key of them and gives `KeysManager` the private key of that; its on-chain wallet derives from the
//! master key itself (m/84'), of which 32 bytes are only a half, so that wallet is no part of the seed.

use std::path::{Path, PathBuf};

use bip39::Mnemonic;
use bitcoin::{Network, bip32::Xpriv};
use zeroize::Zeroizing;

use super::{
    CustodyError, Seed,
    files::{self, SecretLine},
};

/// A file with a seed, or with what one derives from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// 32 bytes, as LDK's `KeysManager` takes them; binary or hexadecimal.
    Ldk(PathBuf),
    /// ldk-node's `keys_seed`: 64 bytes; binary or hexadecimal.
    LdkNode(PathBuf),
    /// The words of a BIP 39 mnemonic, as ldk-node takes it, and its passphrase if it has one.
    Mnemonic { words: PathBuf, passphrase: Option<PathBuf> },
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OriginError {
    #[error(transparent)]
    Read(#[from] CustodyError),
    #[error("{}: {why}", path.display())]
    Content { path: PathBuf, why: String },
}

impl Origin {
    pub fn read(&self) -> Result<Seed, OriginError> {
        let (path, seed) = match self {
            Self::Ldk(path) => (path, parse_ldk(&files::read_private(path, "seed")?)),
            Self::LdkNode(path) => (path, parse_ldk_node(&files::read_private(path, "seed")?)),
            Self::Mnemonic { words, passphrase } => {
                let passphrase = passphrase.as_deref().map(read_passphrase).transpose()?;
                let passphrase = passphrase.as_ref().map_or("", |passphrase| passphrase.as_str());
                let text = files::read_private(words, "mnemonic")?;
                let text = std::str::from_utf8(&text).map_err(|_| "is not UTF-8".to_owned());
                (words, text.and_then(|text| from_mnemonic(text, passphrase)))
            }
        };
        seed.map_err(|why| OriginError::Content { path: path.clone(), why })
    }
}

/// As ldk-node derives LDK's seed from its 64 bytes.
pub fn from_ldk_node(entropy: &[u8; 64]) -> Seed {
    // A SHA-512's half is no valid key for one input in 2^127; ldk-node does not start with such a one either. The network
    // only changes how an extended key prints.
    let mut master = Xpriv::new_master(Network::Bitcoin, entropy).expect("a hash is a key but for one in 2^127");
    let seed = Zeroizing::new(master.private_key.secret_bytes());
    master.private_key.non_secure_erase();
    seed
}

/// As ldk-node derives LDK's seed from a BIP 39 mnemonic (English, 12 to 24 words); the passphrase may be empty.
pub fn from_mnemonic(words: &str, passphrase: &str) -> Result<Seed, String> {
    // Never longer than what is given: growing would leave copies behind.
    let mut normal = Zeroizing::new(String::with_capacity(words.len()));
    for word in words.split_whitespace() {
        if !normal.is_empty() {
            normal.push(' ');
        }
        normal.push_str(word);
    }
    // Some write them in capitals; the list has none.
    normal.make_ascii_lowercase();
    let mnemonic = Mnemonic::parse(normal.as_str()).map_err(explain)?;
    Ok(from_ldk_node(&Zeroizing::new(mnemonic.to_seed(passphrase))))
}

/// Without the word itself: errors are printed and logged.
fn explain(error: bip39::Error) -> String {
    match error {
        bip39::Error::BadWordCount(count) => format!("has {count} words; a BIP 39 mnemonic has 12, 15, 18, 21 or 24"),
        bip39::Error::UnknownWord(index) => format!("word {} is not in BIP 39's English list", index + 1),
        bip39::Error::InvalidChecksum => "its checksum is wrong: a word is another, or the order is".into(),
        _ => "is not a BIP 39 mnemonic".into(),
    }
}

fn parse_ldk(content: &[u8]) -> Result<Seed, String> {
    match content.len() {
        64 if !is_hex(content) => Err("holds 64 bytes, not a seed of 32: is it ldk-node's keys_seed?".into()),
        _ => exactly(content),
    }
}

fn parse_ldk_node(content: &[u8]) -> Result<Seed, String> {
    exactly(content).map(|entropy| from_ldk_node(&entropy))
}

/// `N` bytes, as they are or in hexadecimal digits.
fn exactly<const N: usize>(content: &[u8]) -> Result<Zeroizing<[u8; N]>, String> {
    let mut bytes = Zeroizing::new([0; N]);
    let text = content.trim_ascii();
    // Digits only, and too few: those of a shorter secret, not bytes.
    if content.len() == N && !is_hex(content) {
        bytes.copy_from_slice(content);
    } else if !(text.len() == 2 * N && is_hex(text) && hex::decode_to_slice(text, bytes.as_mut_slice()).is_ok()) {
        return Err(format!("holds {} bytes; a seed here has {N}, or {} hexadecimal digits", content.len(), 2 * N));
    }
    if bytes.iter().all(|byte| *byte == 0) {
        return Err("holds nothing but zeros, which is no seed".into());
    }
    Ok(bytes)
}

fn is_hex(content: &[u8]) -> bool {
    content.iter().all(u8::is_ascii_hexdigit)
}

fn read_passphrase(path: &Path) -> Result<SecretLine, CustodyError> {
    files::read_secret(path, "mnemonic's passphrase file")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::SeedIdentity;

    const WORDS: &str = "legal winner thank year wave sausage worth useful legal winner thank yellow";

    /// The second vector of BIP 39, and BIP 32's derivation of it, step by step.
    #[test]
    fn a_mnemonic_is_the_private_key_of_its_master_key() {
        let entropy: [u8; 64] = hex::decode(
            "2e8905819b8723fe2c1d161860e5ee1830318dbf49a83bd451cfb8440c28bd6fa457fe1296106559a3c80937a1c1069be3a3a5bd381ee6\
             260e8d9739fce1f607",
        )
        .unwrap()
        .try_into()
        .unwrap();
        let seed = from_mnemonic(WORDS, "TREZOR").unwrap();
        assert_eq!(*seed, *from_ldk_node(&entropy));
        for network in [Network::Bitcoin, Network::Regtest] {
            let master = Xpriv::new_master(network, &entropy).unwrap();
            assert_eq!(*seed, master.private_key.secret_bytes());
        }
        assert_ne!(*seed, *from_mnemonic(WORDS, "").unwrap());
    }

    #[test]
    fn spaces_lines_and_capitals_do_not_matter() {
        let seed = from_mnemonic(WORDS, "").unwrap();
        let shaped = WORDS.replace(' ', " \n\t").to_uppercase() + "\n";
        assert_eq!(*from_mnemonic(&shaped, "").unwrap(), *seed);
    }

    #[test]
    fn a_wrong_mnemonic_is_explained_without_its_words() {
        for (words, says) in [
            (String::new(), "0 words"),
            (WORDS.replace(" yellow", ""), "11 words"),
            (WORDS.replace("thank", "thanx"), "word 3 "),
            (WORDS.replace("yellow", "legal"), "checksum"),
        ] {
            let why = from_mnemonic(&words, "").unwrap_err();
            assert!(why.contains(says), "{why}");
            assert!(!why.contains("thanx") && !why.contains("legal"), "{why}");
        }
    }

    #[test]
    fn seeds_are_bytes_or_digits_and_of_one_length() {
        let seed = parse_ldk(&[7; 32]).unwrap();
        assert_eq!(*seed, [7; 32]);
        assert_eq!(*parse_ldk("07".repeat(32).as_bytes()).unwrap(), [7; 32]);
        assert_eq!(*parse_ldk(("07".repeat(32) + "\n").as_bytes()).unwrap(), [7; 32]);
        assert_eq!(*parse_ldk_node(&[7; 64]).unwrap(), *from_ldk_node(&[7; 64]));
        assert_eq!(*parse_ldk_node("07".repeat(64).as_bytes()).unwrap(), *from_ldk_node(&[7; 64]));
        assert!(SeedIdentity::new(&seed).is_ok());
        assert!(parse_ldk(&[7; 64]).unwrap_err().contains("keys_seed"));
        for content in [&[][..], &[7; 31], &[7; 33], &[b'g'; 65], &[0; 32], &[b'0'; 64], &[b'7'; 32]] {
            assert!(parse_ldk(content).is_err(), "{content:?}");
        }
        assert!(parse_ldk_node(&[7; 32]).is_err() && parse_ldk_node(&[0; 64]).is_err());
    }
}
