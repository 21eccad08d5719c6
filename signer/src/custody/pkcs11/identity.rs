//! The node's identity in the token: ECDSA and ECDH happen inside it, and each answer is checked outside.

use std::sync::Arc;

use bitcoin::secp256k1::{
    Message, PublicKey,
    ecdsa::{RecoverableSignature, RecoveryId, Signature},
};
use cryptoki::{mechanism::Mechanism, object::ObjectHandle, session::Session};

use super::{
    batch::Batches,
    ecdh::{self, Pace},
    error::CallError,
    point::{self, Plan},
    worker::{Connection, Workers},
};
use crate::{
    custody::{CustodyError, NodeIdentity, SharedSecret},
    keys::secp,
};

pub struct TokenIdentity {
    pub workers: Arc<Workers>,
    pub node_id: PublicKey,
    pub pace: Pace,
    pub batches: Arc<Batches>,
}

impl NodeIdentity for TokenIdentity {
    fn public_key(&self) -> PublicKey {
        self.node_id
    }

    fn sign(&self, digest: &[u8; 32]) -> Result<RecoverableSignature, CustodyError> {
        let digest = *digest;
        self.workers
            .call(move |connection, _| sign(&connection.session, identity(connection)?, &digest, &connection.node_id))
    }

    fn ecdh(&self, point: &PublicKey) -> Result<SharedSecret, CustodyError> {
        match point::plan(point, &self.node_id) {
            Plan::Known(product) => Ok(point::shared_secret(&product)),
            Plan::Ask { .. } if self.pace == Pace::OneAfterAnother => self.batches.shared(&self.workers, *point),
            Plan::Ask { shifted } => ecdh::shared(&self.workers, &self.node_id, *point, shifted, self.pace),
        }
    }
}

/// The handle of the node's key.
pub fn identity(connection: &Connection) -> Result<ObjectHandle, CallError> {
    connection.keys.identity.ok_or_else(|| CallError::refused("this token does not hold the node key"))
}

/// ECDSA in the token; the signature is verified and made low-S.
pub fn sign(
    session: &Session,
    key: ObjectHandle,
    digest: &[u8; 32],
    node_id: &PublicKey,
) -> Result<RecoverableSignature, CallError> {
    let raw = session.sign(&Mechanism::Ecdsa, key, digest)?;
    recoverable(&raw, digest, node_id)
        .ok_or_else(|| CallError::false_answer("the token's signature is not by the node's key"))
}

/// r || s as PKCS#11 gives it, made low-S and verified, with the recovery id that leads to `node_id`.
fn recoverable(raw: &[u8], digest: &[u8; 32], node_id: &PublicKey) -> Option<RecoverableSignature> {
    let secp = secp();
    let message = Message::from_digest(*digest);
    let mut signature = Signature::from_compact(raw).ok()?;
    signature.normalize_s();
    secp.verify_ecdsa(&message, &signature, node_id).ok()?;
    let compact = signature.serialize_compact();
    let with_id = |id| RecoverableSignature::from_compact(&compact, RecoveryId::from_i32(id).ok()?).ok();
    let leads_home = |s: &RecoverableSignature| secp.recover_ecdsa(&message, s).is_ok_and(|key| key == *node_id);
    (0..4).filter_map(with_id).find(leads_home)
}

#[cfg(test)]
mod tests {
    use bitcoin::secp256k1::{Secp256k1, SecretKey};

    use super::*;

    #[test]
    fn signatures_are_normalised_and_checked() {
        let secp = Secp256k1::new();
        for byte in 1..=64u8 {
            let (key, digest) = (SecretKey::from_slice(&[byte; 32]).unwrap(), [byte ^ 0x55; 32]);
            let node_id = key.public_key(&secp);
            let low = secp.sign_ecdsa(&Message::from_digest(digest), &key).serialize_compact();
            let s = SecretKey::from_slice(&low[32..]).unwrap().negate().secret_bytes();
            let high = [&low[..32], &s].concat();
            for raw in [&low[..], &high] {
                let signature = recoverable(raw, &digest, &node_id).unwrap();
                assert_eq!(signature.serialize_compact().1, low);
                assert_eq!(secp.recover_ecdsa(&Message::from_digest(digest), &signature), Ok(node_id));
            }
            let stranger = SecretKey::from_slice(&[byte ^ 0x80; 32]).unwrap().public_key(&secp);
            assert!(recoverable(&low, &digest, &stranger).is_none());
            assert!(recoverable(&low, &[byte; 32], &node_id).is_none());
            assert!(recoverable(&low[1..], &digest, &node_id).is_none());
        }
    }
}
