//! Sealing with a key that never leaves the token, with the file's header as associated data.
//!
//! - AES-256-GCM inside the token, where the token has it.
//! - Else ECIES with the token's private key: an ECDH inside the token gives a key (one-step KDF of NIST SP 800-56C with
//!   HMAC-SHA256), and XChaCha20-Poly1305 outside of it does the rest. Small tokens have ECDH and no AES-GCM.

use bitcoin::{
    hashes::{Hash, HashEngine, Hmac, HmacEngine, sha256},
    secp256k1::{PublicKey, Scalar, Secp256k1, SecretKey},
};
use chacha20poly1305::{
    XChaCha20Poly1305,
    aead::{Aead, KeyInit, Payload},
};
use cryptoki::{
    mechanism::{Mechanism, aead::GcmParams},
    object::ObjectHandle,
    session::Session,
};
use zeroize::Zeroizing;

use super::{ecdh::derive_x, error::CallError, point::X};
use crate::custody::{
    CustodyError, Seed, random,
    sealed::{Lock, SealedSeed, TokenCipher},
};

const TAG_BITS: u64 = 128;
/// The salt of the key derivation: what the key is for.
const PURPOSE: &[u8] = b"holdfast seed sealed by ECDH with a token's key";

/// With AES-GCM inside the token: the nonce and the ciphertext with its tag.
pub fn seal_aes(
    session: &Session,
    key: ObjectHandle,
    aad: &[u8],
    seed: &Seed,
) -> Result<(Vec<u8>, Vec<u8>), CallError> {
    let mut nonce: [u8; 12] = *random()?;
    let params = GcmParams::new(&mut nonce, aad, TAG_BITS.into())?;
    let ciphertext = session.encrypt(&Mechanism::AesGcm(params), key, seed.as_slice())?;
    // A token that insists on a nonce of its own (some do) has written it over ours.
    Ok((nonce.to_vec(), ciphertext))
}

/// To the token's public key; the header that `aad` stands for names the public key of `ephemeral`.
pub fn seal_ecdh(
    ephemeral: &SecretKey,
    to: &PublicKey,
    aad: &[u8],
    seed: &Seed,
) -> Result<(Vec<u8>, Vec<u8>), CustodyError> {
    let shared = to
        .mul_tweak(&Secp256k1::new(), &Scalar::from(*ephemeral))
        .map_err(|_| CustodyError::Wrong("an ephemeral key of zero".into()))?;
    let mut x = X::default();
    x.copy_from_slice(&shared.serialize()[1..]);
    let nonce: Zeroizing<[u8; 24]> = random()?;
    let ciphertext = cipher(&x, aad)
        .encrypt(&(*nonce).into(), Payload { msg: seed.as_slice(), aad })
        .map_err(|_| CustodyError::Wrong("the seed could not be encrypted".into()))?;
    Ok((nonce.to_vec(), ciphertext))
}

pub fn unseal(session: &Session, key: ObjectHandle, sealed: &SealedSeed) -> Result<Seed, CallError> {
    let aad = sealed.header.associated_data();
    match &sealed.header.lock {
        Lock::Token(keys) => match &keys.cipher {
            TokenCipher::AesGcm => unseal_aes(session, key, &aad, sealed),
            TokenCipher::Ecdh { ephemeral } => unseal_ecdh(session, key, ephemeral, &aad, sealed),
        },
        _ => Err(CallError::refused("the seed is not sealed by a token")),
    }
}

/// Tokens answer a tampered ciphertext with any of several errors, the same that they use when they are away; what tells
/// the two apart is whether the key works on something else at that moment.
fn unseal_aes(session: &Session, key: ObjectHandle, aad: &[u8], sealed: &SealedSeed) -> Result<Seed, CallError> {
    decrypt(session, key, aad, &sealed.nonce, &sealed.ciphertext).map_err(|failure| match works(session, key) {
        true => does_not_open(),
        false => failure,
    })
}

fn unseal_ecdh(
    session: &Session,
    key: ObjectHandle,
    ephemeral: &PublicKey,
    aad: &[u8],
    sealed: &SealedSeed,
) -> Result<Seed, CallError> {
    let nonce: [u8; 24] = sealed.nonce.as_slice().try_into().map_err(|_| wrong_nonce(24))?;
    let x = derive_x(session, key, ephemeral)?;
    let opened = cipher(&x, aad).decrypt(&nonce.into(), Payload { msg: &sealed.ciphertext, aad });
    // A stale handle derives with another key, so a failure here is worth a fresh connection.
    seed(Zeroizing::new(opened.map_err(|_| CallError::false_answer(DOES_NOT_OPEN))?))
}

fn cipher(x: &X, aad: &[u8]) -> XChaCha20Poly1305 {
    let mut engine = HmacEngine::<sha256::Hash>::new(PURPOSE);
    engine.input(&1u32.to_be_bytes());
    engine.input(x.as_slice());
    engine.input(aad);
    let key = Zeroizing::new(Hmac::from_engine(engine).to_byte_array());
    XChaCha20Poly1305::new((&*key).into())
}

const DOES_NOT_OPEN: &str = "the sealed seed does not open: another key sealed it, or the file was changed";

fn does_not_open() -> CallError {
    CallError::refused(DOES_NOT_OPEN)
}

fn wrong_nonce(bytes: usize) -> CallError {
    CallError::refused(format!("the nonce of the sealed seed has not {bytes} bytes: the file was changed"))
}

fn decrypt(
    session: &Session,
    key: ObjectHandle,
    aad: &[u8],
    nonce: &[u8],
    ciphertext: &[u8],
) -> Result<Seed, CallError> {
    let mut nonce: [u8; 12] = nonce.try_into().map_err(|_| wrong_nonce(12))?;
    let params = GcmParams::new(&mut nonce, aad, TAG_BITS.into())?;
    seed(Zeroizing::new(session.decrypt(&Mechanism::AesGcm(params), key, ciphertext)?))
}

fn seed(opened: Zeroizing<Vec<u8>>) -> Result<Seed, CallError> {
    let mut seed = Seed::default();
    match opened.len() == seed.len() {
        true => seed.copy_from_slice(&opened),
        false => return Err(CallError::refused("the sealed seed does not hold 32 bytes")),
    }
    Ok(seed)
}

fn works(session: &Session, key: ObjectHandle) -> bool {
    let sample = Seed::default();
    let aad = b"holdfast: is the sealing key there?";
    seal_aes(session, key, aad, &sample)
        .and_then(|(nonce, ciphertext)| decrypt(session, key, aad, &nonce, &ciphertext))
        .is_ok_and(|opened| *opened == *sample)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The token's side is one derivation; what it gives is x of the product, whatever the sign.
    #[test]
    fn what_ecdh_seals_opens_with_the_other_side_alone() {
        let secp = Secp256k1::new();
        let key = |byte| SecretKey::from_slice(&[byte; 32]).unwrap();
        let (token, ephemeral, stranger) = (key(1), key(2), key(3));
        let seed = Seed::from([7; 32]);
        let (nonce, ciphertext) = seal_ecdh(&ephemeral, &token.public_key(&secp), b"header", &seed).unwrap();
        let open = |key: &SecretKey, aad: &[u8], ciphertext: &[u8]| {
            let product = ephemeral.public_key(&secp).mul_tweak(&secp, &Scalar::from(*key)).unwrap();
            let x = Zeroizing::new(product.serialize()[1..].try_into().unwrap());
            let nonce: [u8; 24] = nonce.as_slice().try_into().unwrap();
            cipher(&x, aad).decrypt(&nonce.into(), Payload { msg: ciphertext, aad }).ok()
        };
        assert_eq!(open(&token, b"header", &ciphertext).as_deref(), Some(&seed[..]));
        assert_eq!(open(&stranger, b"header", &ciphertext), None);
        assert_eq!(open(&token, b"Header", &ciphertext), None);
        assert_eq!(open(&token, b"header", &ciphertext[1..]), None);
    }
}
