//! Calls of the node as a whole: who it is, its term, what it signs with the identity key.

use std::str::FromStr;

use bitcoin::{
    ScriptBuf,
    blockdata::constants::ChainHash,
    hashes::{Hash, HashEngine, sha256d},
    secp256k1::ecdsa::RecoverableSignature,
};
use holdfast_proto::{
    error::Error,
    identity::Identity,
    lightning::parse,
    signer::v1::{self, sign_gossip_request::Message},
};
use lightning::{
    ln::msgs::{UnsignedChannelAnnouncement, UnsignedChannelUpdate, UnsignedNodeAnnouncement},
    routing::gossip::NodeId,
    util::ser::{LengthReadable, Writeable},
};
use lightning_invoice::SignedRawBolt11Invoice;

use super::{SignerCore, from_custody, network_name};
use crate::{
    keys::secp,
    rules::{Call, check_invoice},
};

/// As lnd and Core Lightning sign messages.
const MESSAGE_PREFIX: &[u8] = b"Lightning Signed Message:";

impl SignerCore {
    pub fn get_node_info(
        &self,
        caller: &Identity,
        _request: v1::GetNodeInfoRequest,
    ) -> Result<v1::GetNodeInfoResponse, Error> {
        self.answer(caller, Call::GetNodeInfo, |_| {
            Ok(v1::GetNodeInfoResponse {
                node_id: self.identity.public_key().serialize().to_vec(),
                network: network_name(self.network).into(),
                custody: self.custody.backend().into(),
                identity_in_token: self.custody.identity_in_token(),
                newest_term: self.guard.newest_term(),
                wallet_descriptor: self.keys.wallet().descriptor(),
                wallet_change_descriptor: self.keys.wallet().change_descriptor(),
                destination_script: self.keys.destination_script().into_bytes(),
                shutdown_script: self.keys.shutdown_script().into_bytes(),
                version: env!("CARGO_PKG_VERSION").into(),
                close_destinations: self.rules.destination_scripts().map(ScriptBuf::into_bytes).collect(),
                custody_unavailable: self.not_ready().unwrap_or_default(),
            })
        })
    }

    pub fn get_replica_secrets(
        &self,
        caller: &Identity,
        request: v1::GetReplicaSecretsRequest,
    ) -> Result<v1::GetReplicaSecretsResponse, Error> {
        self.answer(caller, Call::GetReplicaSecrets, |_| {
            self.guard.fence(caller, request.term)?;
            let secrets = self.keys.replica_secrets();
            Ok(v1::GetReplicaSecretsResponse {
                inbound_payment_key: secrets.inbound_payment_key.to_vec(),
                peer_storage_key: secrets.peer_storage_key.to_vec(),
                receive_auth_key: secrets.receive_auth_key.to_vec(),
            })
        })
    }

    pub fn announce_term(
        &self,
        caller: &Identity,
        request: v1::AnnounceTermRequest,
    ) -> Result<v1::AnnounceTermResponse, Error> {
        self.answer(caller, Call::AnnounceTerm, |subject| {
            subject.term = Some(request.term);
            Ok(v1::AnnounceTermResponse { newest_term: self.guard.announce(caller, request.term)? })
        })
    }

    pub fn ecdh(&self, caller: &Identity, request: v1::EcdhRequest) -> Result<v1::EcdhResponse, Error> {
        self.answer(caller, Call::Ecdh, |_| {
            self.guard.fence(caller, request.term)?;
            let mut point = parse::public_key("point", &request.point)?;
            if let Some(tweak) = &request.tweak {
                // (key * tweak) * point is key * (point * tweak), and the key may be where it cannot be multiplied.
                point = point
                    .mul_tweak(secp(), &parse::tweak("tweak", tweak)?)
                    .map_err(|error| Error::misuse("tweak", error.to_string()))?;
            }
            let shared = self.identity.ecdh(&point).map_err(from_custody)?;
            Ok(v1::EcdhResponse { shared_secret: shared.to_vec() })
        })
    }

    pub fn sign_invoice(
        &self,
        caller: &Identity,
        request: v1::SignInvoiceRequest,
    ) -> Result<v1::SignInvoiceResponse, Error> {
        self.answer(caller, Call::SignInvoice, |_| {
            self.guard.fence(caller, request.term)?;
            let (invoice, digest, _) = SignedRawBolt11Invoice::from_str(&request.invoice)
                .map_err(|error| Error::misuse("invoice", error.to_string()))?
                .into_parts();
            check_invoice(&self.rules, self.network, &self.identity.public_key(), &invoice)?;
            let (recovery_id, signature) = self.sign_with_identity(&digest)?.serialize_compact();
            Ok(v1::SignInvoiceResponse {
                signature: signature.to_vec(),
                // 0 to 3 by its type.
                recovery_id: recovery_id.to_i32() as u32,
            })
        })
    }

    pub fn sign_gossip(
        &self,
        caller: &Identity,
        request: v1::SignGossipRequest,
    ) -> Result<v1::SignatureResponse, Error> {
        self.answer(caller, Call::SignGossip, |_| {
            self.guard.fence(caller, request.term)?;
            let message = parse::required("message", &request.message)?;
            let digest = match message {
                Message::ChannelAnnouncement(bytes) => {
                    let announcement = self.channel_announcement(bytes)?;
                    let us = NodeId::from_pubkey(&self.identity.public_key());
                    if ![announcement.node_id_1, announcement.node_id_2].contains(&us) {
                        return Err(Error::misuse("channel_announcement", "is of a channel of others"));
                    }
                    sha256d::Hash::hash(bytes)
                }
                Message::ChannelUpdate(bytes) => {
                    let update: UnsignedChannelUpdate = gossip("channel_update", bytes)?;
                    self.check_chain("channel_update", update.chain_hash)?;
                    sha256d::Hash::hash(bytes)
                }
                Message::NodeAnnouncement(bytes) => {
                    let announcement: UnsignedNodeAnnouncement = gossip("node_announcement", bytes)?;
                    if announcement.node_id != NodeId::from_pubkey(&self.identity.public_key()) {
                        return Err(Error::misuse("node_announcement", "is of another node"));
                    }
                    sha256d::Hash::hash(bytes)
                }
            };
            let signature = self.sign_with_identity(&digest.to_byte_array())?.to_standard();
            Ok(v1::SignatureResponse { signature: signature.serialize_compact().to_vec() })
        })
    }

    pub fn sign_message(
        &self,
        caller: &Identity,
        request: v1::SignMessageRequest,
    ) -> Result<v1::SignMessageResponse, Error> {
        self.answer(caller, Call::SignMessage, |_| {
            self.guard.fence(caller, request.term)?;
            let mut engine = sha256d::Hash::engine();
            engine.input(MESSAGE_PREFIX);
            engine.input(&request.message);
            let digest = sha256d::Hash::from_engine(engine).to_byte_array();
            let (recovery_id, signature) = self.sign_with_identity(&digest)?.serialize_compact();
            // As Bitcoin's signed messages: 27 for the recovery id, 4 for a compressed key. 0 to 3 by its type.
            let mut bytes = vec![31 + recovery_id.to_i32() as u8];
            bytes.extend(signature);
            Ok(v1::SignMessageResponse { signature: zbase32(&bytes) })
        })
    }

    fn sign_with_identity(&self, digest: &[u8; 32]) -> Result<RecoverableSignature, Error> {
        let signature = self.identity.sign(digest).map_err(from_custody)?;
        self.metrics.signed(1);
        Ok(signature)
    }

    pub(super) fn channel_announcement(&self, bytes: &[u8]) -> Result<UnsignedChannelAnnouncement, Error> {
        let announcement: UnsignedChannelAnnouncement = gossip("channel_announcement", bytes)?;
        self.check_chain("channel_announcement", announcement.chain_hash)?;
        Ok(announcement)
    }

    fn check_chain(&self, field: &str, chain: ChainHash) -> Result<(), Error> {
        if chain != ChainHash::using_genesis_block(self.network) {
            return Err(Error::misuse(field, format!("is not of {}", self.network)));
        }
        Ok(())
    }
}

/// A gossip message without type and signatures, if the bytes are its one encoding.
fn gossip<T: LengthReadable + Writeable>(field: &str, bytes: &[u8]) -> Result<T, Error> {
    let message = T::read_from_fixed_length_buffer(&mut &bytes[..])
        .map_err(|error| Error::misuse(field, format!("cannot be read: {error:?}")))?;
    if message.encode() != bytes {
        return Err(Error::misuse(field, "is not encoded as it should be"));
    }
    Ok(message)
}

/// Human-oriented base 32, without padding.
fn zbase32(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 32] = b"ybndrfg8ejkmcpqxot1uwisza345h769";
    let bit = |i: usize| bytes.get(i / 8).is_some_and(|byte| byte >> (7 - i % 8) & 1 == 1);
    (0..(bytes.len() * 8).div_ceil(5))
        .map(|digit| {
            let value = (0..5).fold(0, |value, i| value << 1 | usize::from(bit(digit * 5 + i)));
            char::from(ALPHABET[value])
        })
        .collect()
}
