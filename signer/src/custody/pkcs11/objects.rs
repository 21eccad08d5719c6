//! The two keys in the token: finding them, and checking that they are what they have to be.

use bitcoin::secp256k1::PublicKey;
use cryptoki::{
    mechanism::{MechanismInfo, MechanismType},
    object::{Attribute, AttributeType, KeyType, ObjectClass, ObjectHandle},
    session::Session,
    slot::Slot,
};

use super::{error::CallError, module::Entered, point};
use crate::custody::sealed::TokenKeys;

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
    pub identity: ObjectHandle,
    pub seal: ObjectHandle,
}

impl Keys {
    /// Finds both keys and checks them; the identity has to be `node_id`.
    pub fn find(session: &Session, label: &str, ids: &TokenKeys, node_id: &PublicKey) -> Result<Self, CallError> {
        let (identity_label, seal_label) = (identity_label(label), seal_label(label));
        let identity = find(session, ObjectClass::PRIVATE_KEY, "private key", &identity_label, &ids.identity_id)?;
        let public = find(session, ObjectClass::PUBLIC_KEY, "public key", &identity_label, &ids.identity_id)?;
        let seal = find(session, ObjectClass::SECRET_KEY, "secret key", &seal_label, &ids.seal_id)?;
        check_identity(session, identity, &identity_label)?;
        check_seal(session, seal, &seal_label)?;
        let found = public_key(session, public, &identity_label)?;
        if found != *node_id {
            let why = format!("the token's key {identity_label} is node {found}, not the recorded {node_id}");
            return Err(CallError::refused(why));
        }
        Ok(Self { identity, seal })
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

fn check_identity(session: &Session, key: ObjectHandle, label: &str) -> Result<(), CallError> {
    check(
        session,
        key,
        label,
        &[
            (Attribute::KeyType(KeyType::EC), "CKA_KEY_TYPE is not CKK_EC"),
            (Attribute::EcParams(SECP256K1.to_vec()), "CKA_EC_PARAMS is not secp256k1"),
            (Attribute::Sensitive(true), "CKA_SENSITIVE is not true"),
            (Attribute::Extractable(false), "CKA_EXTRACTABLE is not false"),
            (Attribute::Sign(true), "CKA_SIGN is not true"),
            (Attribute::Derive(true), "CKA_DERIVE is not true"),
        ],
    )
}

fn check_seal(session: &Session, key: ObjectHandle, label: &str) -> Result<(), CallError> {
    check(
        session,
        key,
        label,
        &[
            (Attribute::KeyType(KeyType::AES), "CKA_KEY_TYPE is not CKK_AES"),
            (Attribute::ValueLen(32.into()), "CKA_VALUE_LEN is not 32"),
            (Attribute::Sensitive(true), "CKA_SENSITIVE is not true"),
            (Attribute::Extractable(false), "CKA_EXTRACTABLE is not false"),
            (Attribute::Encrypt(true), "CKA_ENCRYPT is not true"),
            (Attribute::Decrypt(true), "CKA_DECRYPT is not true"),
        ],
    )
}

/// Everything that is wrong, in one message. What the token does not tell counts as wrong.
fn check(session: &Session, key: ObjectHandle, label: &str, wanted: &[(Attribute, &str)]) -> Result<(), CallError> {
    let types: Vec<_> = wanted.iter().map(|(attribute, _)| attribute.attribute_type()).collect();
    let told = session.get_attributes(key, &types)?;
    let wrong: Vec<_> = wanted.iter().filter(|(want, _)| !told.contains(want)).map(|(_, why)| *why).collect();
    match wrong.is_empty() {
        true => Ok(()),
        false => Err(CallError::refused(format!("the token's key {label} is not fit: {}", wrong.join(", ")))),
    }
}

/// What the token has to be able to do, so that what it lacks is said at start and not at the first payment.
pub fn check_mechanisms(entered: &Entered<'_>, slot: Slot, for_init: bool) -> Result<(), CallError> {
    type Can = fn(&MechanismInfo) -> bool;
    let always: [(&str, MechanismType, Can); 3] = [
        ("CKM_ECDSA (to sign as the node)", MechanismType::ECDSA, |m| m.sign()),
        ("CKM_ECDH1_DERIVE (to talk to peers)", MechanismType::ECDH1_DERIVE, |m| m.derive()),
        ("CKM_AES_GCM (to unseal the seed)", MechanismType::AES_GCM, |m| m.encrypt() && m.decrypt()),
    ];
    let making: [(&str, MechanismType, Can); 2] = [
        ("CKM_EC_KEY_PAIR_GEN (to make the node key)", MechanismType::ECC_KEY_PAIR_GEN, |m| m.generate_key_pair()),
        ("CKM_AES_KEY_GEN (to make the sealing key)", MechanismType::AES_KEY_GEN, |m| m.generate()),
    ];
    let known = entered.library.get_mechanism_list(slot)?;
    let wanted = always.into_iter().chain(making.into_iter().filter(|_| for_init));
    let lacks = |(_, mechanism, can): &(&str, MechanismType, Can)| {
        !known.contains(mechanism) || !entered.library.get_mechanism_info(slot, *mechanism).is_ok_and(|info| can(&info))
    };
    let lacking: Vec<_> = wanted.filter(lacks).map(|(name, ..)| name).collect();
    match lacking.is_empty() {
        true => Ok(()),
        false => Err(CallError::refused(format!("the token lacks {}", lacking.join(", ")))),
    }
}
