//! `init` and `import`: makes the keys in the token and seals the seed with one of them.

use std::{path::Path, time::Instant};

use bitcoin::{
    Network,
    secp256k1::{PublicKey, Secp256k1},
};
use cryptoki::{
    error::{Error, RvError},
    mechanism::Mechanism,
    object::{Attribute, ObjectHandle},
    session::Session,
};

use super::{
    ecdh::{self, fresh_key},
    error::{CallError, name},
    identity,
    login::{Pin, find_token},
    module::Module,
    objects::{self, Keys, SECP256K1},
    point::{self, Plan},
    probe::{Probe, SealKind},
    seal::{seal_aes, seal_ecdh, unseal},
};
use crate::{
    config::Pkcs11Custody,
    custody::{
        NodeIdentity, Seed, random,
        sealed::{self, Header, Lock, SealedSeed, TokenCipher, TokenKeys},
    },
    keys::SeedIdentity,
};

/// What the token is to hold.
pub enum Plant {
    /// A node key made in it, and a fresh seed.
    Token,
    /// This seed, of which the node key is a child.
    Sealed(Seed),
}

/// Makes all or nothing: on a failure, the keys made so far are destroyed again. Gives the node id.
pub fn provision(
    config: &Pkcs11Custody,
    network: Network,
    path: &Path,
    plant: &Plant,
    deadline: Instant,
) -> Result<PublicKey, CallError> {
    sealed::refuse_existing(path)?;
    let module = Module::of(&config.module);
    let entered = module.enter(deadline)?;
    let (slot, token) = find_token(&entered.library, &config.token)?;
    let kind = Probe::of(&entered, slot)?.can_make(matches!(plant, Plant::Token))?;
    let session = entered.library.open_rw_session(slot)?;
    Pin::new(config.pin_file.clone()).log_in(&session, &token)?;
    let used = objects::labels_in_use(&session, &config.label)?;
    if !used.is_empty() {
        let why = format!("token {} already holds {}; init never replaces keys", token.label(), used.join(" and "));
        return Err(CallError::refused(why));
    }
    let mut maker = Maker { session: &session, label: &config.label, made: vec![] };
    let sealed = maker.make(network, plant, kind).and_then(|sealed| {
        // What the token made of the templates: a start would check it as well, with the keys already there.
        Keys::find(&session, &config.label, &keys_of(&sealed)?, &sealed.header.node_id)?;
        sealed.create(path)?;
        Ok(sealed)
    });
    match sealed {
        Ok(sealed) => Ok(sealed.header.node_id),
        Err(failure) => Err(maker.destroy(failure)),
    }
}

fn keys_of(sealed: &SealedSeed) -> Result<TokenKeys, CallError> {
    match sealed.header.lock {
        Lock::Token(keys) => Ok(keys),
        _ => Err(CallError::refused("the seed is not sealed by a token")),
    }
}

struct Maker<'a> {
    session: &'a Session,
    label: &'a str,
    made: Vec<ObjectHandle>,
}

impl Maker<'_> {
    fn make(&mut self, network: Network, plant: &Plant, kind: SealKind) -> Result<SealedSeed, CallError> {
        let (identity_id, node_id, seed) = match plant {
            Plant::Token => {
                let (id, node_id) = self.make_identity()?;
                (Some(id), node_id, random()?)
            }
            Plant::Sealed(seed) => (None, SeedIdentity::new(seed)?.public_key(), seed.clone()),
        };
        let seal_id = *random()?;
        let header =
            |cipher| Header { network, node_id, lock: Lock::Token(TokenKeys { identity_id, seal_id, cipher }) };
        let (key, sealed) = match kind {
            SealKind::AesGcm => {
                let key = self.make_aes(&seal_id)?;
                let header = header(TokenCipher::AesGcm);
                let (nonce, ciphertext) = seal_aes(self.session, key, &header.associated_data(), &seed)?;
                (key, SealedSeed { header, nonce, ciphertext })
            }
            SealKind::Ecdh => {
                let label = objects::seal_label(self.label);
                let (public, key) = self.make_pair(&label, &seal_id, &[Attribute::Derive(true)])?;
                let to = objects::public_key(self.session, public, &label)?;
                let ephemeral = fresh_key()?;
                let point = ephemeral.public_key(&Secp256k1::new());
                let header = header(TokenCipher::Ecdh { ephemeral: point });
                let (nonce, ciphertext) = seal_ecdh(&ephemeral, &to, &header.associated_data(), &seed)?;
                (key, SealedSeed { header, nonce, ciphertext })
            }
        };
        match *unseal(self.session, key, &sealed)? == *seed {
            true => Ok(sealed),
            false => Err(CallError::refused("what the token sealed does not open to the same seed")),
        }
    }

    /// A node key, which has signed and derived before anything is said of it.
    fn make_identity(&mut self) -> Result<([u8; 16], PublicKey), CallError> {
        let (id, label) = (*random()?, objects::identity_label(self.label));
        let (public, private) = self.make_pair(&label, &id, &[Attribute::Sign(true), Attribute::Derive(true)])?;
        let node_id = objects::public_key(self.session, public, &label)?;
        identity::sign(self.session, private, &*random()?, &node_id)?;
        let point = fresh_key()?.public_key(&Secp256k1::new());
        if let Plan::Ask { shifted } = point::plan(&point, &node_id) {
            ecdh::both(self.session, private, &point, &shifted, &node_id).map_err(|failure| {
                CallError::refused(format!(
                    "the token does not give the x coordinate of an ECDH (CKM_ECDH1_DERIVE with CKD_NULL), which the \
                     node key needs: {}; `init --identity sealed` keeps the node key in the sealed seed",
                    failure.what()
                ))
            })?;
        }
        Ok((id, node_id))
    }

    /// The public and the private key.
    fn make_pair(
        &mut self,
        label: &str,
        id: &[u8; 16],
        usage: &[Attribute],
    ) -> Result<(ObjectHandle, ObjectHandle), CallError> {
        let public = [
            Attribute::Token(true),
            Attribute::Private(false),
            Attribute::EcParams(SECP256K1.to_vec()),
            Attribute::Verify(true),
            Attribute::Label(label.into()),
            Attribute::Id(id.to_vec()),
        ];
        let private = [&guarded(label, id), usage].concat();
        let pair =
            self.session.generate_key_pair(&Mechanism::EccKeyPairGen, &public, &private).map_err(no_such_curve)?;
        self.made.extend([pair.0, pair.1]);
        Ok(pair)
    }

    fn make_aes(&mut self, id: &[u8; 16]) -> Result<ObjectHandle, CallError> {
        let usage = [Attribute::ValueLen(32.into()), Attribute::Encrypt(true), Attribute::Decrypt(true)];
        let template = [&guarded(&objects::seal_label(self.label), id), &usage[..]].concat();
        let key = self.session.generate_key(&Mechanism::AesKeyGen, &template)?;
        self.made.push(key);
        Ok(key)
    }

    /// Removes what was made, and says if that fails as well.
    fn destroy(self, failure: CallError) -> CallError {
        let left = self.made.into_iter().filter(|key| self.session.destroy_object(*key).is_err()).count();
        match left {
            0 => failure,
            _ => {
                let why =
                    format!("{}; {left} keys with the label {} are left in the token", failure.what(), self.label);
                CallError::refused(why)
            }
        }
    }
}

fn guarded(label: &str, id: &[u8; 16]) -> [Attribute; 6] {
    [
        Attribute::Token(true),
        Attribute::Private(true),
        Attribute::Sensitive(true),
        Attribute::Extractable(false),
        Attribute::Label(label.into()),
        Attribute::Id(id.to_vec()),
    ]
}

/// There is no asking a token for its curves; it shows when a key is made.
fn no_such_curve(error: Error) -> CallError {
    match error {
        Error::Pkcs11(code @ (RvError::CurveNotSupported | RvError::DomainParamsInvalid), _) => {
            CallError::refused(format!("the token makes no keys on secp256k1 ({})", name(&code)))
        }
        error => error.into(),
    }
}
