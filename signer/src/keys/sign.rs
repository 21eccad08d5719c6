//! One way to sign, for every key derived from the seed.

use bitcoin::secp256k1::{All, Message, PublicKey, Secp256k1, ecdsa::Signature};
use holdfast_proto::error::Error;

use super::Secret;

/// The one context of the process.
pub(crate) fn secp() -> &'static Secp256k1<All> {
    secp256k1::SECP256K1
}

/// Signs with RFC 6979 and low R (as LDK's `sign`), and verifies the result under `public`, the key's own public key:
/// a signature with a fault in it gives the key away.
pub(super) fn sign(message: &Message, key: &Secret, public: &PublicKey) -> Result<Signature, Error> {
    let signature = secp().sign_ecdsa_low_r(message, key.expose());
    secp()
        .verify_ecdsa(message, &signature, public)
        .map_err(|_| Error::Internal("a fresh signature does not verify: faulty hardware?".into()))?;
    Ok(signature)
}
