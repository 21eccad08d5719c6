//! What is left with a peer: entries of the channels' backup in few bytes, sealed. Every blob is as long as every other.

use bitcoin::{
    Txid,
    hashes::{Hash, HashEngine, Hmac, HmacEngine, sha256},
    secp256k1::PublicKey,
};
use chacha20poly1305::{
    XChaCha20Poly1305,
    aead::{Aead, KeyInit, Payload},
};
use lightning::{chain::transaction::OutPoint, ln::types::ChannelId, sign::PeerStorageKey};
use zeroize::Zeroizing;

use crate::lightning::channel_backup::Entry;

/// The length of every blob, in bytes: what LDK takes from a peer. BOLT 1 allows 65531.
pub const BLOB: usize = 1024;
const NONCE: usize = 24;
const TAG: usize = 16;
const ROOM: usize = BLOB - NONCE - TAG;
const VERSION: u8 = 1;

/// The first byte of each channel: always `CHANNEL`, so that a zero is the end.
const CHANNEL: u8 = 0x80;
const ANCHORS: u8 = 1;
/// With the same peer as the one before; the first one, with the peer that keeps the blob.
const SAME_PEER: u8 = 2;
/// The channel's id does not follow from its funding output.
const OWN_ID: u8 = 4;

/// Longer ones are left out: the longest onion address has 68 characters.
const LONGEST_ADDRESS: usize = 100;

/// A channel's id and its entry.
pub type Named = (ChannelId, Entry);

/// The content of a blob: a version, where its keeper may be found, channels, and zeros to the end. The same channels give
/// the same bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packed(Vec<u8>);

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unreadable {
    #[error("it has {0} bytes and not {BLOB}")]
    Length(usize),
    #[error("it is not sealed with our key for this peer")]
    Seal,
    #[error("its content is of a version that this program does not know, or damaged: {0}")]
    Content(&'static str),
}

/// Seals and opens blobs.
pub struct Seal {
    cipher: XChaCha20Poly1305,
    node_id: PublicKey,
}

impl Seal {
    /// `key` is the signer's for this purpose, a child of the seed: it is there again when all else is lost.
    pub fn new(key: &PeerStorageKey, node_id: PublicKey) -> Self {
        let mut engine = HmacEngine::<sha256::Hash>::new(&key.inner);
        engine.input(b"holdfast peer storage 1");
        let key = Zeroizing::new(Hmac::from_engine(engine).to_byte_array());
        Self { cipher: XChaCha20Poly1305::new((&*key).into()), node_id }
    }

    /// `nonce` is random: then nobody without the key can tell the blob from random bytes.
    pub fn seal(&self, peer: &PublicKey, content: &Packed, nonce: [u8; NONCE]) -> Vec<u8> {
        let payload = Payload { msg: &content.0, aad: &self.bound_to(peer) };
        let sealed = self.cipher.encrypt((&nonce).into(), payload);
        // The cipher fails only beyond 256 GB.
        let sealed = sealed.expect("a kilobyte can be sealed");
        [&nonce[..], &sealed].concat()
    }

    pub fn open(&self, peer: &PublicKey, blob: &[u8]) -> Result<Packed, Unreadable> {
        if blob.len() != BLOB {
            return Err(Unreadable::Length(blob.len()));
        }
        let (nonce, sealed) = blob.split_at(NONCE);
        let payload = Payload { msg: sealed, aad: &self.bound_to(peer) };
        self.cipher.decrypt(nonce.into(), payload).map(Packed).map_err(|_| Unreadable::Seal)
    }

    /// Another node's blob does not open, nor one that another peer was given.
    fn bound_to(&self, peer: &PublicKey) -> [u8; 66] {
        let mut bound = [0; 66];
        bound[..33].copy_from_slice(&self.node_id.serialize());
        bound[33..].copy_from_slice(&peer.serialize());
        bound
    }
}

impl Packed {
    /// The channels with `peer`, and of the others as many as there is room for: others for each peer, so that together the
    /// peers hold more than one does.
    pub fn of(peer: &PublicKey, channels: &[Channel]) -> Self {
        let mut channels: Vec<&Channel> = channels.iter().collect();
        channels.sort_by_cached_key(|channel| (rank(peer, &channel.peer), channel.id));
        let mut packed = vec![VERSION];
        let own = channels.first().filter(|channel| channel.peer == *peer);
        put_address(&mut packed, own.map_or("", |channel| &channel.address));
        let mut before = *peer;
        for channel in channels {
            let bytes = channel.write(&before);
            if packed.len() + bytes.len() <= ROOM {
                packed.extend(bytes);
                before = channel.peer;
            }
        }
        packed.resize(ROOM, 0);
        Self(packed)
    }

    /// What stands in it, which `peer` gave back.
    pub fn channels(&self, peer: &PublicKey) -> Result<Vec<Named>, Unreadable> {
        let mut reader = Reader(&self.0);
        if reader.byte()? != VERSION {
            return Err(Unreadable::Content("the version"));
        }
        let mut channels: Vec<Named> = Vec::new();
        let (mut with, mut addresses) = (*peer, reader.addresses()?);
        while let Some(flags) = reader.next_channel()? {
            if flags & SAME_PEER == 0 {
                with = PublicKey::from_slice(reader.take(33)?).map_err(|_| Unreadable::Content("a node id"))?;
                addresses = reader.addresses()?;
            }
            let txid = Txid::from_byte_array(reader.array()?);
            let funding = OutPoint { txid, index: u16::from_be_bytes(reader.array()?) };
            let id = match flags & OWN_ID {
                0 => ChannelId::v1_from_funding_outpoint(funding),
                _ => ChannelId(reader.array()?),
            };
            let entry = Entry {
                counterparty: with.to_string(),
                addresses: addresses.clone(),
                funding_outpoint: funding.into_bitcoin_outpoint().to_string(),
                capacity_sat: u64::from_be_bytes(reader.array()?),
                channel_type: if flags & ANCHORS == 0 { "static-remote-key" } else { "anchors" }.into(),
                channel_keys_id: hex::encode(reader.take(32)?),
                written_ms: u64::from(u32::from_be_bytes(reader.array()?)) * 1000,
                returned_by: Some(peer.to_string()),
            };
            channels.push((id, entry));
        }
        Ok(channels)
    }
}

/// The peer's own channels come first; behind them each peer has an order of its own.
fn rank(peer: &PublicKey, other: &PublicKey) -> [u8; 32] {
    if peer == other {
        return [0; 32];
    }
    sha256::Hash::hash(&[peer.serialize(), other.serialize()].concat()).to_byte_array()
}

/// An entry that can be packed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Channel {
    pub id: ChannelId,
    peer: PublicKey,
    address: String,
    funding: OutPoint,
    capacity_sat: u64,
    anchors: bool,
    keys_id: [u8; 32],
    written_s: u32,
}

impl Channel {
    /// None of an entry that is not as we write them.
    pub fn of(id: ChannelId, entry: &Entry) -> Option<Self> {
        let address = entry.addresses.iter().find(|address| address.len() <= LONGEST_ADDRESS);
        let funding: bitcoin::OutPoint = entry.funding_outpoint.parse().ok()?;
        Some(Self {
            id,
            peer: entry.counterparty.parse().ok()?,
            address: address.cloned().unwrap_or_default(),
            funding: OutPoint { txid: funding.txid, index: funding.vout.try_into().ok()? },
            capacity_sat: entry.capacity_sat,
            anchors: match entry.channel_type.as_str() {
                "anchors" => true,
                "static-remote-key" => false,
                _ => return None,
            },
            keys_id: hex::decode(&entry.channel_keys_id).ok()?.try_into().ok()?,
            written_s: u32::try_from(entry.written_ms / 1000).unwrap_or(u32::MAX),
        })
    }

    fn write(&self, before: &PublicKey) -> Vec<u8> {
        let own_id = self.id != ChannelId::v1_from_funding_outpoint(self.funding);
        let mut flags = CHANNEL;
        for (flag, set) in [(ANCHORS, self.anchors), (SAME_PEER, self.peer == *before), (OWN_ID, own_id)] {
            flags |= if set { flag } else { 0 };
        }
        let mut bytes = vec![flags];
        if self.peer != *before {
            bytes.extend(self.peer.serialize());
            put_address(&mut bytes, &self.address);
        }
        bytes.extend(self.funding.txid.to_byte_array());
        bytes.extend(self.funding.index.to_be_bytes());
        if own_id {
            bytes.extend(self.id.0);
        }
        bytes.extend(self.capacity_sat.to_be_bytes());
        bytes.extend(self.keys_id);
        bytes.extend(self.written_s.to_be_bytes());
        bytes
    }
}

fn put_address(bytes: &mut Vec<u8>, address: &str) {
    // At most LONGEST_ADDRESS.
    bytes.push(address.len() as u8);
    bytes.extend(address.as_bytes());
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    /// The flags of the next channel; none at the end.
    fn next_channel(&mut self) -> Result<Option<u8>, Unreadable> {
        match self.0.first() {
            None | Some(0) => Ok(None),
            Some(flags) if flags & !(ANCHORS | SAME_PEER | OWN_ID) == CHANNEL => self.byte().map(Some),
            Some(_) => Err(Unreadable::Content("a channel's kind")),
        }
    }

    fn addresses(&mut self) -> Result<Vec<String>, Unreadable> {
        let length = self.byte()?;
        let address = std::str::from_utf8(self.take(length.into())?).map_err(|_| Unreadable::Content("an address"))?;
        Ok(if address.is_empty() { Vec::new() } else { vec![address.to_owned()] })
    }

    fn byte(&mut self) -> Result<u8, Unreadable> {
        self.array().map(|[byte]| byte)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Unreadable> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N)?);
        Ok(array)
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8], Unreadable> {
        let (taken, rest) = self.0.split_at_checked(count).ok_or(Unreadable::Content("its end"))?;
        self.0 = rest;
        Ok(taken)
    }
}

#[cfg(test)]
mod tests;
