//! ECDH in the token: two derivations, because one gives x alone (see [`point::resolve`]).

use std::time::{Duration, Instant};

use bitcoin::secp256k1::{PublicKey, Secp256k1, SecretKey};
use cryptoki::{
    mechanism::{
        Mechanism,
        elliptic_curve::{EcKdf, Ecdh1DeriveParams},
    },
    object::{Attribute, AttributeType, KeyType, ObjectClass, ObjectHandle},
    session::Session,
};
use zeroize::Zeroizing;

use super::{
    error::CallError,
    identity::identity,
    point::{self, Plan, X},
    worker::Workers,
};
use crate::custody::{CustodyError, SharedSecret, random};

/// How the two derivations are issued.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pace {
    /// In one session: right where the library or the token does one thing at a time.
    OneAfterAnother,
    /// In two sessions: half the time where the token works on several calls at once.
    AtOnce,
}

/// SHA-256 of the compressed point `k * point`, where `shifted = point + G`.
pub fn shared(
    workers: &Workers,
    node_id: &PublicKey,
    point: PublicKey,
    shifted: PublicKey,
    pace: Pace,
) -> Result<SharedSecret, CustodyError> {
    if pace == Pace::AtOnce {
        let (x, shifted_x) = workers.call_both(
            move |connection, _| derive_x(&connection.session, identity(connection)?, &point),
            move |connection, _| derive_x(&connection.session, identity(connection)?, &shifted),
        )?;
        if let Some(product) = point::resolve(&x, &shifted_x, node_id) {
            return Ok(point::shared_secret(&product));
        }
        // One of the two was not the key's. What follows asks again, and reconnects if it stays so.
    }
    workers.call(move |connection, _| {
        both(&connection.session, identity(connection)?, &point, &shifted, &connection.node_id)
    })
}

/// Both derivations in one session.
pub fn both(
    session: &Session,
    key: ObjectHandle,
    point: &PublicKey,
    shifted: &PublicKey,
    node_id: &PublicKey,
) -> Result<SharedSecret, CallError> {
    let (x, shifted_x) = (derive_x(session, key, point)?, derive_x(session, key, shifted)?);
    let product = point::resolve(&x, &shifted_x, node_id)
        .ok_or_else(|| CallError::false_answer("the token derived with a key that is not the node's"))?;
    Ok(point::shared_secret(&product))
}

/// `CKM_ECDH1_DERIVE` with `CKD_NULL`: the x coordinate of the product (PKCS #11 v2.40, Current Mechanisms 2.3.8).
pub fn derive_x(session: &Session, key: ObjectHandle, point: &PublicKey) -> Result<X, CallError> {
    let encoded = point.serialize_uncompressed();
    let mechanism = Mechanism::Ecdh1Derive(Ecdh1DeriveParams::new(EcKdf::null(), &encoded));
    let template = [
        Attribute::Token(false),
        Attribute::Class(ObjectClass::SECRET_KEY),
        Attribute::KeyType(KeyType::GENERIC_SECRET),
        Attribute::Sensitive(false),
        Attribute::Extractable(true),
        Attribute::ValueLen(32.into()),
    ];
    let derived = session.derive_key(&mechanism, key, &template)?;
    let value = session.get_attributes(derived, &[AttributeType::Value]);
    session.destroy_object(derived)?;
    let value = value?.into_iter().find_map(|attribute| match attribute {
        Attribute::Value(bytes) => Some(Zeroizing::new(bytes)),
        _ => None,
    });
    let value = value.ok_or_else(|| CallError::refused("the token does not give the value of a derived secret"))?;
    let mut x = X::default();
    // Some tokens leave leading zeros out.
    match x.len().checked_sub(value.len()) {
        Some(zeros) => x[zeros..].copy_from_slice(&value),
        None => return Err(CallError::refused("the token derived more than an x coordinate")),
    }
    Ok(x)
}

/// A key that is used once.
pub fn fresh_key() -> Result<SecretKey, CustodyError> {
    loop {
        // All but one in 2^127 of the values are keys.
        if let Ok(key) = SecretKey::from_slice(random::<32>()?.as_slice()) {
            return Ok(key);
        }
    }
}

/// So many rounds of each pace are measured at least, because the machine may be busy with something else in one of them; at
/// most so many, and beyond the least none after this time.
const LEAST_ROUNDS: usize = 3;
const MOST_ROUNDS: usize = 8;
const PATIENCE: Duration = Duration::from_millis(600);

/// Measures both paces on this token, and takes two calls at once where that takes less than three quarters of the time.
/// Two sessions are needed for it.
pub fn measure(workers: &Workers, node_id: &PublicKey) -> Result<Pace, CustodyError> {
    let secp = Secp256k1::new();
    let started = Instant::now();
    let (mut single, mut double) = (Duration::MAX, Duration::MAX);
    for round in 0..=MOST_ROUNDS {
        let point = fresh_key()?.public_key(&secp);
        let Plan::Ask { shifted } = point::plan(&point, node_id) else { continue };
        let before = Instant::now();
        shared(workers, node_id, point, shifted, Pace::OneAfterAnother)?;
        let between = Instant::now();
        shared(workers, node_id, point, shifted, Pace::AtOnce)?;
        // The first round only warms up: sessions are still being opened.
        if round > 0 {
            single = single.min(between - before);
            double = double.min(between.elapsed());
        }
        if round >= LEAST_ROUNDS && started.elapsed() > PATIENCE {
            break;
        }
    }
    let pace = if double.as_secs_f64() < 0.75 * single.as_secs_f64() { Pace::AtOnce } else { Pace::OneAfterAnother };
    let (single, double) = (single.as_secs_f64() * 1e3, double.as_secs_f64() * 1e3);
    tracing::info!(?pace, one_after_another_ms = single, at_once_ms = double, "the pace of the token's ECDH");
    Ok(pace)
}
