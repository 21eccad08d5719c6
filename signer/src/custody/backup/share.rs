//! One share: what all shares of a backup have in common, one point of the split key, and the node's signature on both.

use std::fmt;

use bitcoin::{
    Network,
    hashes::{Hash, HashEngine, sha256},
    p2p::Magic,
    secp256k1::{Message, PublicKey, ecdsa::Signature},
};
use time::OffsetDateTime;
use zeroize::Zeroizing;

use super::text;
use crate::{
    custody::{CustodyError, NodeIdentity},
    keys::secp,
};

const VERSION: u8 = 1;
const HEADER: usize = 1 + 4 + 33 + 1 + 16 + 8 + 1 + 1 + 24;
const COMMON: usize = HEADER + 48;
const VALUE: usize = 32;
/// A share's bytes, signature and all.
pub(super) const LENGTH: usize = COMMON + 1 + VALUE + 64;

/// What every share of a backup says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Common {
    pub network: Network,
    pub node_id: PublicKey,
    /// Then the node key is not in the backup.
    pub identity_in_token: bool,
    pub id: [u8; 16],
    /// Seconds since 1970.
    pub made: u64,
    pub threshold: u8,
    pub shares: u8,
    pub nonce: [u8; 24],
    /// The seed, encrypted, with its tag.
    pub ciphertext: [u8; 48],
}

/// A share that is the node's, whole and unchanged: there is no other.
#[derive(Clone)]
pub struct Share {
    common: Common,
    index: u8,
    value: Zeroizing<[u8; VALUE]>,
    signature: Signature,
}

/// What is wrong with a text that should be a share.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ShareError {
    #[error("holds no line of a share: such lines begin with {}1", text::PREFIX)]
    NoLines,
    #[error("line {line} of the share has a slip of the pen: {why}")]
    Line { line: usize, why: String },
    #[error("line {0} of the share is missing, or was joined with another")]
    Missing(usize),
    #[error("line {0} of the share is there twice, with different content")]
    Contradiction(usize),
    #[error("was written by another version of the program ({0})")]
    Version(u8),
    #[error("is not a share: {0}")]
    Content(&'static str),
    #[error("was changed, or was not made by node {0}: its signature is not that node's")]
    NotAuthentic(PublicKey),
}

impl Common {
    /// All but the ciphertext, which is bound to it.
    pub(super) fn header(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(HEADER);
        bytes.push(VERSION);
        bytes.extend(self.network.magic().to_bytes());
        bytes.extend(self.node_id.serialize());
        bytes.push(self.identity_in_token.into());
        bytes.extend(self.id);
        bytes.extend(self.made.to_be_bytes());
        bytes.extend([self.threshold, self.shares]);
        bytes.extend(self.nonce);
        bytes
    }

    fn encode(&self) -> Vec<u8> {
        let mut bytes = self.header();
        bytes.extend(self.ciphertext);
        bytes
    }

    /// When it was made, as ISO 8601 has it, in UTC.
    pub fn date(&self) -> String {
        let seconds = i64::try_from(self.made).ok();
        match seconds.and_then(|seconds| OffsetDateTime::from_unix_timestamp(seconds).ok()) {
            Some(t) => format!("{}T{:02}:{:02}:{:02}Z", t.date(), t.hour(), t.minute(), t.second()),
            None => format!("{} s after 1970", self.made),
        }
    }
}

/// The backup by name, for messages.
impl fmt::Display for Common {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (node {}, {})", hex::encode(self.id), self.node_id, self.date())
    }
}

impl Share {
    /// Signs one point of the split key.
    pub(super) fn sign(
        common: &Common,
        point: &blahaj::Share,
        identity: &dyn NodeIdentity,
    ) -> Result<Self, CustodyError> {
        let point = Zeroizing::new(Vec::from(point));
        let wrong = || CustodyError::Wrong("a point of the split key has not 33 bytes".into());
        let (index, value) = point.split_first().ok_or_else(wrong)?;
        let value = Zeroizing::new(<[u8; VALUE]>::try_from(value).map_err(|_| wrong())?);
        let signature = identity.sign(&digest(common, *index, &value))?.to_standard();
        Ok(Self { common: common.clone(), index: *index, value, signature })
    }

    pub fn common(&self) -> &Common {
        &self.common
    }

    /// From 1 to the number of shares.
    pub fn index(&self) -> u8 {
        self.index
    }

    pub(super) fn point(&self) -> blahaj::Share {
        let bytes = Zeroizing::new([&[self.index], self.value.as_slice()].concat());
        // It fails only with fewer than two bytes.
        blahaj::Share::try_from(bytes.as_slice()).expect("a point has 33 bytes")
    }

    /// The text that is kept and printed: what it is, for people, and the lines that `parse` reads.
    pub fn to_text(&self) -> Zeroizing<String> {
        let Common { node_id, network, threshold, shares, .. } = &self.common;
        let (index, backup, made) = (self.index, hex::encode(self.common.id), self.common.date());
        let identity = match self.common.identity_in_token {
            true => {
                "# The node key was made in a token and is NOT in this backup: it needs a backup of the token as well.\n"
            }
            false => "",
        };
        let about = format!(
            "# Share {index} of {shares} of a backup of a Holdfast node's seed. Any {threshold} shares restore it; fewer say nothing.\n\
             # Keep it apart from the others, on paper or offline. Lines that begin with # are for people only.\n\
             # node     {node_id}\n\
             # network  {network}\n\
             # backup   {backup}, made {made}\n{identity}\
             # check    holdfast-signer verify-share --expect-node-id {node_id} THIS-FILE\n\n"
        );
        let lines = text::encode(&self.encode());
        let mut text = Zeroizing::new(String::with_capacity(about.len() + lines.len()));
        text.push_str(&about);
        text.push_str(&lines);
        text
    }

    /// Reads a share, checks all of it and verifies the node's signature.
    pub fn parse(text: &str) -> Result<Self, ShareError> {
        let bytes = text::decode(text)?;
        Self::decode(&bytes)
    }

    fn encode(&self) -> Zeroizing<Vec<u8>> {
        let mut bytes = Zeroizing::new(Vec::with_capacity(LENGTH));
        bytes.extend(self.common.encode());
        bytes.push(self.index);
        bytes.extend(self.value.as_slice());
        bytes.extend(self.signature.serialize_compact());
        bytes
    }

    fn decode(bytes: &[u8; LENGTH]) -> Result<Self, ShareError> {
        let mut fields = Fields(bytes);
        let [version] = fields.take();
        if version != VERSION {
            return Err(ShareError::Version(version));
        }
        let magic = Magic::from_bytes(fields.take());
        let network = Network::from_magic(magic).ok_or(ShareError::Content("its network is not known"))?;
        let node_id = PublicKey::from_slice(&fields.take::<33>())
            .map_err(|_| ShareError::Content("its node id is not a public key"))?;
        let identity_in_token = match fields.take() {
            [0] => false,
            [1] => true,
            _ => return Err(ShareError::Content("it does not say where the node key is")),
        };
        let (id, made) = (fields.take(), u64::from_be_bytes(fields.take()));
        let [threshold, shares] = fields.take();
        let (nonce, ciphertext) = (fields.take(), fields.take());
        let [index] = fields.take();
        if !(2..=shares).contains(&threshold) || !(1..=shares).contains(&index) {
            return Err(ShareError::Content("its numbers do not fit each other"));
        }
        let value = Zeroizing::new(fields.take());
        let signature =
            Signature::from_compact(&fields.take::<64>()).map_err(|_| ShareError::Content("its signature is none"))?;
        let common = Common { network, node_id, identity_in_token, id, made, threshold, shares, nonce, ciphertext };
        let digest = Message::from_digest(digest(&common, index, &value));
        match secp().verify_ecdsa(&digest, &signature, &node_id) {
            Ok(()) => Ok(Self { common, index, value, signature }),
            Err(_) => Err(ShareError::NotAuthentic(node_id)),
        }
    }
}

/// What the node signs. No other thing that it signs (invoices, gossip, messages, transactions) hashes what begins so.
fn digest(common: &Common, index: u8, value: &[u8; VALUE]) -> [u8; 32] {
    let mut engine = sha256::Hash::engine();
    for field in [b"holdfast backup share".as_slice(), &common.encode(), &[index], value] {
        engine.input(&(field.len() as u64).to_be_bytes());
        engine.input(field);
    }
    sha256::Hash::from_engine(engine).to_byte_array()
}

/// Takes fields off the front of what is known to be long enough.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn take<const N: usize>(&mut self) -> [u8; N] {
        let (field, rest) = self.0.split_first_chunk().expect("the fields add up to a share's length");
        self.0 = rest;
        *field
    }
}

const _: () = assert!(LENGTH == 1 + 4 + 33 + 1 + 16 + 8 + 2 + 24 + 48 + 1 + 32 + 64);
