//! The counterparty's per-commitment secrets, in the storage of BOLT 3.

use std::fmt;

use lightning::{
    ln::chan_utils::CounterpartyCommitmentSecrets,
    util::ser::{Readable, Writeable},
};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};

/// A slot of LDK's encoding: secret and index.
const SLOT: usize = 32 + 8;
const SLOTS: usize = 49;

/// Secrets that the counterparty revealed, checked to be of one chain. Numbers count up.
#[derive(Clone, PartialEq, Eq)]
pub struct RevealedSecrets(Box<CounterpartyCommitmentSecrets>);

impl RevealedSecrets {
    /// Adds the secret of commitment `number`; false when it does not belong to the chain.
    pub fn add(&mut self, number: u64, secret: [u8; 32]) -> bool {
        self.0.provide_secret(index(number), secret).is_ok()
    }

    pub fn get(&self, number: u64) -> Option<[u8; 32]> {
        self.0.get_secret(index(number))
    }
}

/// LDK counts down.
fn index(number: u64) -> u64 {
    ((1 << 48) - 1) - number
}

impl Default for RevealedSecrets {
    fn default() -> Self {
        Self(Box::new(CounterpartyCommitmentSecrets::new()))
    }
}

impl fmt::Debug for RevealedSecrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RevealedSecrets")
    }
}

// LDK's encoding is 49 slots of which a channel with n states uses log2(n): the unused end is cut off.
impl Serialize for RevealedSecrets {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let encoded = self.0.encode();
        let unused = RevealedSecrets::default().0.encode();
        let used = (0..SLOTS).rev().find(|slot| {
            let range = slot * SLOT..(slot + 1) * SLOT;
            encoded[range.clone()] != unused[range]
        });
        serializer.serialize_bytes(&encoded[..used.map_or(0, |slot| (slot + 1) * SLOT)])
    }
}

impl<'de> Deserialize<'de> for RevealedSecrets {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let used = <&[u8]>::deserialize(deserializer)?;
        let mut encoded = RevealedSecrets::default().0.encode();
        if used.len() > SLOTS * SLOT || used.len() % SLOT != 0 {
            return Err(D::Error::invalid_length(used.len(), &"whole slots"));
        }
        encoded[..used.len()].copy_from_slice(used);
        CounterpartyCommitmentSecrets::read(&mut encoded.as_slice())
            .map(|secrets| Self(Box::new(secrets)))
            .map_err(|error| D::Error::custom(format!("{error:?}")))
    }
}

#[cfg(test)]
mod tests {
    use lightning::ln::chan_utils::build_commitment_secret;

    use super::*;

    #[test]
    fn the_short_encoding_keeps_every_secret() {
        let seed = [7; 32];
        let mut secrets = RevealedSecrets::default();
        assert_eq!(postcard::to_allocvec(&secrets).unwrap().len(), 1);
        for number in 0..300 {
            assert!(secrets.add(number, build_commitment_secret(&seed, index(number))));
            let encoded = postcard::to_allocvec(&secrets).unwrap();
            assert!(encoded.len() < 10 * SLOT + 3, "{} bytes after {number}", encoded.len());
            let back: RevealedSecrets = postcard::from_bytes(&encoded).unwrap();
            assert!(back == secrets);
            assert_eq!(back.get(number / 2), Some(build_commitment_secret(&seed, index(number / 2))));
        }
        assert!(!secrets.add(300, [9; 32]) || !secrets.add(301, [9; 32]), "a foreign secret fits no chain");
    }
}
