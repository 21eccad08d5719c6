//! `--expect-node-id`: a seed is placed only by someone who has seen which node it makes.

use std::{env, ffi::OsStr};

use bitcoin::{Network, secp256k1::PublicKey};

use super::{Exit, Failure};

/// Passes when `found` was expected. Without an expectation it prints the node id, and how to go on; nothing was made.
pub fn confirm(found: &PublicKey, network: Network, expected: Option<&PublicKey>) -> Result<(), Failure> {
    match expected {
        Some(expected) if expected == found => Ok(()),
        Some(expected) => {
            let why =
                format!("this is the seed of node {found}, not of {expected} that was expected; nothing was made");
            Err(Failure::new(Exit::DataError, why))
        }
        None => {
            println!("{found}");
            let again: Vec<_> = env::args_os().map(|word| quote(&word)).collect();
            let why = format!(
                "this is the seed of node {found}, on network {network}; nothing was made. If that is the node that you \
                 mean, confirm it:\n  {} --expect-node-id {found}",
                again.join(" ")
            );
            Err(Failure::new(Exit::Usage, why))
        }
    }
}

/// A word as a shell takes it.
fn quote(word: &OsStr) -> String {
    let word = word.to_string_lossy();
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=@%+,".contains(c);
    match !word.is_empty() && word.chars().all(plain) {
        true => word.into_owned(),
        false => format!("'{}'", word.replace('\'', r"'\''")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_quoted_as_shells_take_them() {
        for (word, quoted) in [
            ("signer.toml", "signer.toml"),
            ("", "''"),
            ("my file", "'my file'"),
            ("it's", r"'it'\''s'"),
            ("$x", "'$x'"),
        ] {
            assert_eq!(quote(OsStr::new(word)), quoted);
        }
    }
}
