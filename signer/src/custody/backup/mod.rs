//! A backup of the seed in n shares, any k of which give it back and fewer say nothing about it.
//!
//! The seed is encrypted (XChaCha20-Poly1305) with a key that is made for this backup; the key is split by Shamir's secret
//! sharing, and each share carries the ciphertext as well. Each share is signed with the node key, so that anyone who
//! knows the node id can check one share alone: that it is of this node, and that not a bit of it was changed.
//!
//! - [`share`]: one share; [`text`]: the lines in which it is kept and printed.

mod share;
mod text;

use std::collections::BTreeMap;

use bitcoin::{Network, secp256k1::PublicKey};
use blahaj::Sharks;
use chacha20poly1305::{
    XChaCha20Poly1305,
    aead::{Aead, KeyInit, Payload},
};
use zeroize::Zeroizing;

pub use self::share::{Common, Share, ShareError};
use super::{Custody, CustodyError, NodeIdentity, Seed, random, same};
use crate::keys::SeedIdentity;

/// How many shares there are, and how many of them give the seed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plan {
    threshold: u8,
    shares: u8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{threshold} of {shares} shares: at least 2 have to be needed, and not more than there are")]
pub struct PlanError {
    threshold: u8,
    shares: u8,
}

impl Plan {
    pub fn new(threshold: u8, shares: u8) -> Result<Self, PlanError> {
        match threshold >= 2 && threshold <= shares {
            true => Ok(Self { threshold, shares }),
            // With a threshold of one every share would be the whole key.
            false => Err(PlanError { threshold, shares }),
        }
    }

    /// How many shares give the seed.
    pub fn threshold(&self) -> usize {
        self.threshold.into()
    }
}

/// Encrypts the seed that custody unseals, and splits the key. `made` is the time, in seconds since 1970.
pub fn split(custody: &dyn Custody, network: Network, plan: Plan, made: u64) -> Result<Vec<Share>, CustodyError> {
    let identity = custody.identity();
    let key: Zeroizing<[u8; 32]> = random()?;
    let mut common = Common {
        network,
        node_id: identity.public_key(),
        identity_in_token: custody.identity_in_token(),
        id: *random()?,
        made,
        threshold: plan.threshold,
        shares: plan.shares,
        nonce: *random()?,
        ciphertext: [0; 48],
    };
    let ciphertext = XChaCha20Poly1305::new((&*key).into())
        .encrypt(&common.nonce.into(), Payload { msg: custody.unseal()?.as_slice(), aad: &common.header() })
        .map_err(|_| CustodyError::Wrong("the seed could not be encrypted".into()))?;
    common.ciphertext =
        ciphertext.try_into().map_err(|_| CustodyError::Wrong("an encrypted seed has not 48 bytes".into()))?;
    let shares = Sharks(plan.threshold).dealer(key.as_slice()).take(plan.shares.into());
    shares.map(|share| Share::sign(&common, &share, &*identity)).collect()
}

fn shares(given: usize) -> String {
    match given {
        1 => "one share is given".into(),
        more => format!("{more} different shares are given"),
    }
}

/// Why shares give no seed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JoinError {
    #[error("no share is given")]
    None,
    #[error("{}, and {needed} are needed: look for {} more of backup {backup}", shares(*given), needed - given)]
    TooFew { given: usize, needed: usize, backup: String },
    #[error("share {index} is given twice: each counts once")]
    Twice { index: u8 },
    #[error("shares of two backups are mixed: {first} and {second}")]
    Mixed { first: String, second: String },
    #[error("the shares give no key that opens the backup")]
    DoesNotOpen,
    /// The node key was made in a token and is no child of the seed.
    #[error(
        "the identity of node {0} was made in a token and is not in this backup: the seed alone would be another node's. \
         Restore the token by its own means, and its sealed seed with it. If no token is left, --as-another-node brings back what \
         the seed holds (see docs/custody/keys.md)"
    )]
    IdentityInToken(PublicKey),
    #[error("the backup holds the seed of node {found}, not of {recorded}")]
    AnotherNode { recorded: Box<PublicKey>, found: Box<PublicKey> },
    #[error(transparent)]
    Custody(#[from] CustodyError),
}

/// The seed, from at least as many shares of one backup as it needs; checked to be that of the node it names.
pub fn join(shares: &[Share]) -> Result<Seed, JoinError> {
    let (seed, found) = join_as_another_node(shares)?;
    let common = shares.first().ok_or(JoinError::None)?.common();
    if common.identity_in_token {
        return Err(JoinError::IdentityInToken(common.node_id));
    }
    match found == common.node_id {
        true => Ok(seed),
        false => Err(JoinError::AnotherNode { recorded: common.node_id.into(), found: found.into() }),
    }
}

/// The seed, and the node id that it gives by itself: another one than the backup's, if that was made in a token. With it
/// go the wallet's coins and what is ours of channels that the peers closed, not the node.
pub fn join_as_another_node(shares: &[Share]) -> Result<(Seed, PublicKey), JoinError> {
    let seed = decrypt(shares)?;
    let found = SeedIdentity::new(&seed)?.public_key();
    Ok((seed, found))
}

/// Whether `shares` give back `seed`.
pub fn gives_back(shares: &[Share], seed: &Seed) -> Result<bool, JoinError> {
    Ok(same(&decrypt(shares)?, seed))
}

fn decrypt(shares: &[Share]) -> Result<Seed, JoinError> {
    let common = shares.first().ok_or(JoinError::None)?.common();
    let mut points = BTreeMap::new();
    for share in shares {
        if share.common() != common {
            return Err(JoinError::Mixed { first: common.to_string(), second: share.common().to_string() });
        }
        if points.insert(share.index(), share.point()).is_some() {
            return Err(JoinError::Twice { index: share.index() });
        }
    }
    let needed = usize::from(common.threshold);
    if points.len() < needed {
        return Err(JoinError::TooFew { given: points.len(), needed, backup: hex::encode(common.id) });
    }
    let key = Sharks(common.threshold).recover(points.values()).map_err(|_| JoinError::DoesNotOpen)?;
    let key = Zeroizing::new(key);
    let cipher = XChaCha20Poly1305::new_from_slice(&key).map_err(|_| JoinError::DoesNotOpen)?;
    let opened = cipher
        .decrypt(&common.nonce.into(), Payload { msg: &common.ciphertext, aad: &common.header() })
        .map(Zeroizing::new)
        .map_err(|_| JoinError::DoesNotOpen)?;
    let mut seed = Seed::default();
    match opened.len() == seed.len() {
        true => seed.copy_from_slice(&opened),
        false => return Err(JoinError::DoesNotOpen),
    }
    Ok(seed)
}

#[cfg(test)]
mod tests;
