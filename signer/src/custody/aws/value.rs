//! What a secret may hold: a seed as 32 bytes, as 64 hexadecimal digits, or in a document that says whose it is.

use std::fmt;

use bitcoin::{Network, secp256k1::PublicKey};
use serde::{Deserialize, Deserializer, de};
use zeroize::{Zeroize, Zeroizing};

use crate::custody::Seed;

const VERSION: u32 = 1;

/// A seed and, when the secret says it, what it is for.
pub struct Value {
    pub seed: Seed,
    pub network: Option<Network>,
    pub node_id: Option<PublicKey>,
}

impl Value {
    /// A binary secret is the seed itself, 32 bytes, or else text as below.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, String> {
        if bytes.len() == 32 {
            let mut seed = Seed::default();
            seed.copy_from_slice(bytes);
            return Ok(Self { seed, network: None, node_id: None });
        }
        // No error that quotes: the text may be a seed that was written down wrongly.
        Self::from_text(std::str::from_utf8(bytes).map_err(|_| FORMS.to_owned())?)
    }

    /// A string secret is 64 hexadecimal digits, or a JSON document with at least the field `seed`.
    pub fn from_text(text: &str) -> Result<Self, String> {
        let text = text.trim();
        if !text.starts_with('{') {
            let seed = SeedDigits::parse(text).ok_or(FORMS)?.0;
            return Ok(Self { seed, network: None, node_id: None });
        }
        // serde_json quotes what it did not expect, which may be a part of the seed: only the place is told.
        let document: Document = serde_json::from_str(text)
            .map_err(|e| format!("{FORMS}; its document is wrong at line {}, column {}", e.line(), e.column()))?;
        if document.version.unwrap_or(VERSION) != VERSION {
            return Err("is a document of a version that this program does not know".into());
        }
        let known = "is a document whose";
        let network = document.network.map(|name| name.parse().map_err(|_| format!("{known} network is not known")));
        let node_id = document.node_id.map(|id| id.parse().map_err(|_| format!("{known} node_id is not a node id")));
        Ok(Self { seed: document.seed.0, network: network.transpose()?, node_id: node_id.transpose()? })
    }

    /// The document that `init` and `import` write.
    pub fn document(network: Network, node_id: &PublicKey, seed: &Seed) -> Zeroizing<String> {
        let mut digits = Zeroizing::new([0; 64]);
        // Both lengths are fixed, and hexadecimal digits are ASCII.
        hex::encode_to_slice(seed.as_slice(), digits.as_mut_slice()).expect("64 digits for 32 bytes");
        let digits = std::str::from_utf8(digits.as_slice()).expect("digits are ASCII");
        // The whole capacity from the start: growing would leave unwiped copies behind.
        let mut text = Zeroizing::new(String::with_capacity(256));
        for part in ["{\"version\":1,\"network\":\"", &network.to_string(), "\",\"node_id\":\"", &node_id.to_string()] {
            text.push_str(part);
        }
        for part in ["\",\"seed\":\"", digits, "\"}"] {
            text.push_str(part);
        }
        text
    }
}

const FORMS: &str = "holds neither 32 bytes, nor 64 hexadecimal digits, nor a JSON document with the field seed";

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    version: Option<u32>,
    network: Option<String>,
    node_id: Option<String>,
    seed: SeedDigits,
}

struct SeedDigits(Seed);

impl SeedDigits {
    fn parse(digits: &str) -> Option<Self> {
        let mut seed = Seed::default();
        hex::decode_to_slice(digits, seed.as_mut_slice()).ok().map(|()| Self(seed))
    }
}

impl<'de> Deserialize<'de> for SeedDigits {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Digits;
        impl de::Visitor<'_> for Digits {
            type Value = SeedDigits;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("64 hexadecimal digits")
            }

            fn visit_str<E: de::Error>(self, digits: &str) -> Result<SeedDigits, E> {
                SeedDigits::parse(digits).ok_or_else(|| E::custom("not 64 hexadecimal digits"))
            }

            fn visit_string<E: de::Error>(self, mut digits: String) -> Result<SeedDigits, E> {
                let parsed = self.visit_str(&digits);
                digits.zeroize();
                parsed
            }
        }
        deserializer.deserialize_str(Digits)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIGITS: &str = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";
    const NODE: &str = "0279be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798";

    fn seed() -> Seed {
        Seed::new(std::array::from_fn(|i| i as u8))
    }

    #[test]
    fn every_form_gives_the_seed() {
        assert_eq!(*Value::from_bytes(seed().as_slice()).unwrap().seed, *seed());
        for text in [DIGITS, &DIGITS.to_uppercase(), &format!("{DIGITS}\n"), &format!("{{\"seed\": \"{DIGITS}\"}}")] {
            for value in [Value::from_text(text).unwrap(), Value::from_bytes(text.as_bytes()).unwrap()] {
                assert_eq!((*value.seed, value.network, value.node_id), (*seed(), None, None));
            }
        }
        let node_id = NODE.parse().unwrap();
        let document = Value::document(Network::Signet, &node_id, &seed());
        let value = Value::from_text(&document).unwrap();
        assert_eq!((*value.seed, value.network, value.node_id), (*seed(), Some(Network::Signet), Some(node_id)));
    }

    #[test]
    fn nothing_else_does_and_no_error_quotes_it() {
        let long = format!("{DIGITS}00");
        for text in [
            "",
            "seed",
            &DIGITS[..62],
            &long,
            "{}",
            &format!("{{\"seed\":\"{long}\"}}"),
            &format!("{{\"seed\":[\"{DIGITS}\"]}}"),
            &format!("{{\"seed\":\"{DIGITS}\",\"sed\":\"{DIGITS}\"}}"),
            &format!("{{\"version\":2,\"seed\":\"{DIGITS}\"}}"),
            &format!("{{\"network\":\"{DIGITS}\",\"seed\":\"{DIGITS}\"}}"),
            &format!("{{\"node_id\":\"{DIGITS}\",\"seed\":\"{DIGITS}\"}}"),
        ] {
            let why = Value::from_text(text).map(|_| ()).unwrap_err();
            assert!(!why.contains(&DIGITS[..8]), "{why}");
        }
        assert!(Value::from_bytes(&[0xff; 31]).is_err());
        assert!(Value::from_bytes(&[0xff; 33]).is_err());
    }
}
