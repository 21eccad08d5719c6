//! `init`: makes the keys in the token and seals a fresh seed with one of them.

use std::{path::Path, time::Instant};

use bitcoin::{Network, secp256k1::PublicKey};
use cryptoki::{
    mechanism::Mechanism,
    object::{Attribute, ObjectHandle},
    session::Session,
};

use super::{
    error::CallError,
    login::{Pin, find_token},
    module::Module,
    objects::{self, SECP256K1, check_mechanisms},
    seal::{seal, unseal},
};
use crate::{
    config::Pkcs11Custody,
    custody::{
        Seed, random,
        sealed::{self, Header, Lock, SealedSeed, TokenKeys},
    },
};

/// Makes all or nothing: on a failure, the keys made so far are destroyed again. Gives the node id.
pub fn provision(
    config: &Pkcs11Custody,
    network: Network,
    path: &Path,
    deadline: Instant,
) -> Result<PublicKey, CallError> {
    let fixed = |error| CallError { error, curable: false };
    sealed::refuse_existing(path).map_err(fixed)?;
    let module = Module::of(&config.module);
    let entered = module.enter(deadline)?;
    let (slot, token) = find_token(&entered.library, &config.token)?;
    check_mechanisms(&entered, slot, true)?;
    let session = entered.library.open_rw_session(slot)?;
    Pin::new(config.pin_file.clone()).log_in(&session, &token)?;
    let used = objects::labels_in_use(&session, &config.label)?;
    if !used.is_empty() {
        let why = format!("token {} already holds {}; init never replaces keys", token.label(), used.join(" and "));
        return Err(CallError::refused(why));
    }
    let mut made = vec![];
    let sealed = make(&session, &config.label, network, &mut made)
        .and_then(|sealed| sealed.create(path).map(|()| sealed).map_err(fixed));
    match sealed {
        Ok(sealed) => Ok(sealed.header.node_id),
        Err(mut failure) => {
            let left = made.into_iter().filter(|key| session.destroy_object(*key).is_err()).count();
            if left > 0 {
                let why =
                    format!("{}; {left} keys with the label {} are left in the token", failure.error, config.label);
                failure = CallError::refused(why);
            }
            Err(failure)
        }
    }
}

fn make(
    session: &Session,
    label: &str,
    network: Network,
    made: &mut Vec<ObjectHandle>,
) -> Result<SealedSeed, CallError> {
    let id = || random().map(|id| *id).map_err(CallError::away);
    let keys = TokenKeys { identity_id: id()?, seal_id: id()? };
    let (public, private) = make_identity(session, &objects::identity_label(label), &keys.identity_id)?;
    made.extend([public, private]);
    let seal_key = make_seal_key(session, &objects::seal_label(label), &keys.seal_id)?;
    made.push(seal_key);
    let node_id = objects::public_key(session, public, &objects::identity_label(label))?;

    let seed: Seed = random().map_err(CallError::away)?;
    let header = Header { network, node_id, lock: Lock::Token(keys) };
    let aad = header.associated_data();
    let (nonce, ciphertext) = seal(session, seal_key, &aad, &seed)?;
    if *unseal(session, seal_key, &aad, &nonce, &ciphertext)? != *seed {
        return Err(CallError::refused("what the token sealed does not open to the same seed"));
    }
    Ok(SealedSeed { header, nonce: nonce.to_vec(), ciphertext })
}

fn make_identity(session: &Session, label: &str, id: &[u8; 16]) -> Result<(ObjectHandle, ObjectHandle), CallError> {
    let public = [
        Attribute::Token(true),
        Attribute::Private(false),
        Attribute::EcParams(SECP256K1.to_vec()),
        Attribute::Verify(true),
        Attribute::Label(label.into()),
        Attribute::Id(id.to_vec()),
    ];
    let private = [
        Attribute::Token(true),
        Attribute::Private(true),
        Attribute::Sensitive(true),
        Attribute::Extractable(false),
        Attribute::Sign(true),
        Attribute::Derive(true),
        Attribute::Label(label.into()),
        Attribute::Id(id.to_vec()),
    ];
    Ok(session.generate_key_pair(&Mechanism::EccKeyPairGen, &public, &private)?)
}

fn make_seal_key(session: &Session, label: &str, id: &[u8; 16]) -> Result<ObjectHandle, CallError> {
    let template = [
        Attribute::Token(true),
        Attribute::Private(true),
        Attribute::Sensitive(true),
        Attribute::Extractable(false),
        Attribute::ValueLen(32.into()),
        Attribute::Encrypt(true),
        Attribute::Decrypt(true),
        Attribute::Label(label.into()),
        Attribute::Id(id.to_vec()),
    ];
    Ok(session.generate_key(&Mechanism::AesKeyGen, &template)?)
}
