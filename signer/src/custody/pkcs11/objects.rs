//! The keys in the token: finding them, and checking that they are what they have to be.

use bitcoin::secp256k1::PublicKey;
use cryptoki::{
    object::{Attribute, AttributeType, KeyType, ObjectClass, ObjectHandle},
    session::Session,
};

use super::{error::CallError, point};
use crate::custody::sealed::{TokenCipher, TokenKeys};

/// DER of the object identifier 1.3.132.0.10, secp256k1 (SEC 2).
pub const SECP256K1: [u8; 7] = [0x06, 0x05, 0x2b, 0x81, 0x04, 0x00, 0x0a];

pub fn identity_label(label: &str) -> String {
    format!("{label}-identity")
}

pub fn seal_label(label: &str) -> String {
    format!("{label}-seal")
}

/// Handles of the keys, good for one session's generation.
#[derive(Clone, Copy)]
pub struct Keys {
    /// None when the node key is a child of the seed.
    pub identity: Option<ObjectHandle>,
    pub seal: ObjectHandle,
}

impl Keys {
    /// Finds the keys and checks them, at every connection; an identity in the token has to be `node_id`.
    pub fn find(session: &Session, label: &str, ids: &TokenKeys, node_id: &PublicKey) -> Result<Self, CallError> {
        let identity = match &ids.identity_id {
            Some(id) => Some(find_identity(session, &identity_label(label), id, node_id)?),
            None => None,
        };
        Ok(Self { identity, seal: find_seal(session, &seal_label(label), ids)? })
    }
}

fn find_identity(
    session: &Session,
    label: &str,
    id: &[u8; 16],
    node_id: &PublicKey,
) -> Result<ObjectHandle, CallError> {
    let private = find(session, ObjectClass::PRIVATE_KEY, "private key", label, id)?;
    let public = find(session, ObjectClass::PUBLIC_KEY, "public key", label, id)?;
    let usage = [(Attribute::Sign(true), "CKA_SIGN is not true"), (Attribute::Derive(true), "CKA_DERIVE is not true")];
    check(session, private, label, ec_key().into_iter().chain(usage))?;
    let found = public_key(session, public, label)?;
    match found == *node_id {
        true => Ok(private),
        false => {
            Err(CallError::refused(format!("the token's key {label} is node {found}, not the recorded {node_id}")))
        }
    }
}

fn find_seal(session: &Session, label: &str, ids: &TokenKeys) -> Result<ObjectHandle, CallError> {
    match ids.cipher {
        TokenCipher::AesGcm => {
            let key = find(session, ObjectClass::SECRET_KEY, "secret key", label, &ids.seal_id)?;
            let aes = [
                (Attribute::KeyType(KeyType::AES), "CKA_KEY_TYPE is not CKK_AES"),
                (Attribute::ValueLen(32.into()), "CKA_VALUE_LEN is not 32"),
                (Attribute::Encrypt(true), "CKA_ENCRYPT is not true"),
                (Attribute::Decrypt(true), "CKA_DECRYPT is not true"),
            ];
            check(session, key, label, aes)?;
            Ok(key)
        }
        TokenCipher::Ecdh { .. } => {
            let key = find(session, ObjectClass::PRIVATE_KEY, "private key", label, &ids.seal_id)?;
            let usage = [(Attribute::Derive(true), "CKA_DERIVE is not true")];
            check(session, key, label, ec_key().into_iter().chain(usage))?;
            Ok(key)
        }
    }
}

/// A missing key may be a token that is away: SoftHSM shows a lost token as an empty one.
fn find(
    session: &Session,
    class: ObjectClass,
    what: &str,
    label: &str,
    id: &[u8; 16],
) -> Result<ObjectHandle, CallError> {
    let template =
        [Attribute::Token(true), Attribute::Class(class), Attribute::Label(label.into()), Attribute::Id(id.to_vec())];
    match session.find_objects(&template)?.as_slice() {
        [handle] => Ok(*handle),
        [] => Err(CallError::away(format!("the token shows no {what} {label} with id {}", hex::encode(id)))),
        _ => Err(CallError::refused(format!("the token has more than one {what} {label} with one id"))),
    }
}

/// Any object that has one of our labels, whatever its kind.
pub fn labels_in_use(session: &Session, label: &str) -> Result<Vec<String>, CallError> {
    let mut used = vec![];
    for label in [identity_label(label), seal_label(label)] {
        if !session.find_objects(&[Attribute::Label(label.clone().into())])?.is_empty() {
            used.push(label);
        }
    }
    Ok(used)
}

pub fn public_key(session: &Session, key: ObjectHandle, label: &str) -> Result<PublicKey, CallError> {
    let attributes = session.get_attributes(key, &[AttributeType::EcPoint])?;
    let point = attributes.iter().find_map(|attribute| match attribute {
        Attribute::EcPoint(bytes) => point::decode(bytes),
        _ => None,
    });
    point.ok_or_else(|| CallError::refused(format!("the token's public key {label} has no point on secp256k1")))
}

type Wanted = (Attribute, &'static str);

fn ec_key() -> [Wanted; 2] {
    [
        (Attribute::KeyType(KeyType::EC), "CKA_KEY_TYPE is not CKK_EC"),
        (Attribute::EcParams(SECP256K1.to_vec()), "CKA_EC_PARAMS is not secp256k1"),
    ]
}

/// What every key of ours has to be: of no use without the PIN, and never to be had outside of the token.
fn guarded() -> [Wanted; 3] {
    [
        (Attribute::Private(true), "CKA_PRIVATE is not true"),
        (Attribute::Sensitive(true), "CKA_SENSITIVE is not true"),
        (Attribute::Extractable(false), "CKA_EXTRACTABLE is not false"),
    ]
}

/// Everything that is wrong, in one message. What the token does not tell counts as wrong.
fn check(
    session: &Session,
    key: ObjectHandle,
    label: &str,
    wanted: impl IntoIterator<Item = Wanted>,
) -> Result<(), CallError> {
    let wanted: Vec<_> = wanted.into_iter().chain(guarded()).collect();
    let types: Vec<_> = wanted.iter().map(|(attribute, _)| attribute.attribute_type()).collect();
    let told = session.get_attributes(key, &types)?;
    let wrong: Vec<_> = wanted.iter().filter(|(want, _)| !told.contains(want)).map(|(_, why)| *why).collect();
    match wrong.is_empty() {
        true => Ok(()),
        false => Err(CallError::refused(format!("the token's key {label} is not fit: {}", wrong.join(", ")))),
    }
}
