//! When a deposit counts.

use serde::{Deserialize, Deserializer, de::Error};

/// A day of blocks. Deeper ones nobody undoes, and we do not look.
const DEEPEST: u32 = 144;

pub fn confirmations<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u32, D::Error> {
    match u32::deserialize(deserializer)? {
        depth @ 1..=DEEPEST => Ok(depth),
        other => Err(D::Error::custom(format!("deposit_confirmations is {other}, and goes from 1 to {DEEPEST}"))),
    }
}
