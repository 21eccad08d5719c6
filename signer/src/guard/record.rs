//! Records as they lie in a store: versioned and authenticated.
//!
//! ```text
//! format (1) | version (8, big-endian) | content | HMAC-SHA-256 (32)
//! ```
//! The MAC's key derives from the seed; it covers the record's name and length-prefixed fields, so that a record can
//! be neither altered, nor moved to another channel, nor taken from another node.

use bitcoin::hashes::{Hash, HashEngine, Hmac, HmacEngine, sha256};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use zeroize::Zeroizing;

use super::store::{Name, StoreError};
use crate::harden::memory::Locked;

const FORMAT: u8 = 1;
const HEADER: usize = 1 + 8;
const MAC: usize = 32;

/// Who leads: the newest term, and which replica announced it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TermState {
    pub newest: u64,
    pub announced_by: String,
}

/// Seals and opens records with a key of the node's own.
pub struct Sealer(Locked<32>);

impl Sealer {
    pub fn new(key: Zeroizing<[u8; 32]>) -> Result<Self, StoreError> {
        Locked::copy(&key).map(Self).map_err(|error| StoreError::Unavailable(error.to_string()))
    }

    pub fn seal<T: Serialize>(&self, name: &Name, version: u64, content: &T) -> Result<Vec<u8>, StoreError> {
        let mut record = vec![FORMAT];
        record.extend(version.to_be_bytes());
        // Encoding into memory fails for no type that is stored here; if it ever did, nothing would be written.
        record = postcard::to_extend(content, record)
            .map_err(|error| StoreError::Damaged(format!("{name}: cannot be encoded: {error}")))?;
        let mac = self.mac(name, version, &record[HEADER..]);
        record.extend(mac.to_byte_array());
        Ok(record)
    }

    /// The record's version and content, if it is authentic.
    pub fn open<T: DeserializeOwned>(&self, name: &Name, record: &[u8]) -> Result<(u64, T), StoreError> {
        let damaged = |why: &str| StoreError::Damaged(format!("{name}: {why}"));
        let (format, rest) = record.split_first().ok_or_else(|| damaged("is empty"))?;
        if *format != FORMAT {
            return Err(damaged("was written by another version of the program"));
        }
        let (version, rest) = rest.split_first_chunk::<8>().ok_or_else(|| damaged("is cut short"))?;
        let (content, mac) = rest.split_last_chunk::<MAC>().ok_or_else(|| damaged("is cut short"))?;
        let version = u64::from_be_bytes(*version);
        // Comparing hashes leaks nothing of use: who can write to the store can only replay what it saw.
        if self.mac(name, version, content).to_byte_array() != *mac {
            return Err(damaged("is not authentic: altered, or of another seed"));
        }
        let (content, rest) = postcard::take_from_bytes(content).map_err(|error| damaged(&error.to_string()))?;
        if !rest.is_empty() {
            return Err(damaged("is followed by something"));
        }
        Ok((version, content))
    }

    fn mac(&self, name: &Name, version: u64, content: &[u8]) -> Hmac<sha256::Hash> {
        let mut engine = HmacEngine::<sha256::Hash>::new(self.0.as_slice());
        for field in [b"holdfast guard record".as_slice(), &name.key(), &version.to_be_bytes(), content] {
            engine.input(&(field.len() as u64).to_be_bytes());
            engine.input(field);
        }
        Hmac::from_engine(engine)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_sealed_opens() {
        let sealer = Sealer::new(Zeroizing::new([1; 32])).unwrap();
        let term = TermState { newest: 7, announced_by: "a".into() };
        let sealed = sealer.seal(&Name::Term, 3, &term).unwrap();
        assert_eq!(sealer.open::<TermState>(&Name::Term, &sealed).unwrap(), (3, term));

        for byte in 0..sealed.len() {
            let mut altered = sealed.clone();
            altered[byte] ^= 1;
            assert!(sealer.open::<TermState>(&Name::Term, &altered).is_err(), "byte {byte}");
        }
        for length in 0..sealed.len() {
            assert!(sealer.open::<TermState>(&Name::Term, &sealed[..length]).is_err(), "{length} bytes");
        }
        assert!(sealer.open::<TermState>(&Name::Channel([0; 32]), &sealed).is_err(), "another name");
        assert!(
            Sealer::new(Zeroizing::new([2; 32])).unwrap().open::<TermState>(&Name::Term, &sealed).is_err(),
            "another seed"
        );
    }
}
