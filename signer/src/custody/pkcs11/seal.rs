//! Sealing with an AES-256 key that never leaves the token: GCM, with the file's header as associated data.

use cryptoki::{
    mechanism::{Mechanism, aead::GcmParams},
    object::ObjectHandle,
    session::Session,
};
use zeroize::Zeroizing;

use super::error::CallError;
use crate::custody::{Seed, random};

const TAG_BITS: u64 = 128;

/// The nonce and the ciphertext with its tag.
pub fn seal(session: &Session, key: ObjectHandle, aad: &[u8], seed: &Seed) -> Result<([u8; 12], Vec<u8>), CallError> {
    let mut nonce: [u8; 12] = *random().map_err(CallError::away)?;
    let params = GcmParams::new(&mut nonce, aad, TAG_BITS.into())?;
    let ciphertext = session.encrypt(&Mechanism::AesGcm(params), key, seed.as_slice())?;
    // A token that insists on a nonce of its own (some do) has written it over ours.
    Ok((nonce, ciphertext))
}

/// The seed again. Tokens answer a tampered ciphertext with any of several errors, the same that they use when they
/// are away; what tells the two apart is whether the key works on something else at that moment.
pub fn unseal(
    session: &Session,
    key: ObjectHandle,
    aad: &[u8],
    nonce: &[u8; 12],
    ciphertext: &[u8],
) -> Result<Seed, CallError> {
    match decrypt(session, key, aad, nonce, ciphertext) {
        Ok(seed) => Ok(seed),
        Err(failure) => match works(session, key) {
            true => {
                Err(CallError::refused("the sealed seed does not open: another key sealed it, or the file was changed"))
            }
            false => Err(failure),
        },
    }
}

fn decrypt(
    session: &Session,
    key: ObjectHandle,
    aad: &[u8],
    nonce: &[u8; 12],
    ciphertext: &[u8],
) -> Result<Seed, CallError> {
    let mut nonce = *nonce;
    let params = GcmParams::new(&mut nonce, aad, TAG_BITS.into())?;
    let opened = Zeroizing::new(session.decrypt(&Mechanism::AesGcm(params), key, ciphertext)?);
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
    seal(session, key, aad, &sample)
        .and_then(|(nonce, ciphertext)| decrypt(session, key, aad, &nonce, &ciphertext))
        .is_ok_and(|opened| *opened == *sample)
}
