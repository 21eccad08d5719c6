//! One value of one field: each function names the field in its error and accepts nothing that is almost right.

use bitcoin::{
    Amount, ScriptBuf, Transaction, TxOut, Txid, Weight,
    hashes::Hash,
    secp256k1::{PublicKey, Scalar, SecretKey, ecdsa::Signature},
};
use lightning::{
    chain::transaction::OutPoint,
    types::payment::{PaymentHash, PaymentPreimage},
};

use crate::{error::Error, signer::v1};

/// Heights from here on would be read as times by nLockTime (BIP 65).
const LOCK_TIME_THRESHOLD: u32 = 500_000_000;

/// A sub-message that must be there.
pub fn required<'a, T>(field: &str, value: &'a Option<T>) -> Result<&'a T, Error> {
    value.as_ref().ok_or_else(|| Error::misuse(field, "is missing"))
}

pub fn array<const N: usize>(field: &str, bytes: &[u8]) -> Result<[u8; N], Error> {
    bytes.try_into().map_err(|_| Error::misuse(field, format!("has {} bytes instead of {N}", bytes.len())))
}

/// A compressed point on the curve.
pub fn public_key(field: &str, bytes: &[u8]) -> Result<PublicKey, Error> {
    let bytes: [u8; 33] = array(field, bytes)?;
    PublicKey::from_slice(&bytes).map_err(|_| Error::misuse(field, "is not a point of secp256k1"))
}

pub fn secret_key(field: &str, bytes: &[u8]) -> Result<SecretKey, Error> {
    if bytes.len() != 32 {
        return Err(Error::misuse(field, format!("has {} bytes instead of 32", bytes.len())));
    }
    SecretKey::from_slice(bytes).map_err(|_| Error::misuse(field, "is not a secret key of secp256k1"))
}

/// A number to multiply a key with: below the curve's order and not zero.
pub fn tweak(field: &str, bytes: &[u8]) -> Result<Scalar, Error> {
    let scalar = Scalar::from_be_bytes(array(field, bytes)?)
        .map_err(|_| Error::misuse(field, "is not below the order of secp256k1"))?;
    if scalar == Scalar::ZERO {
        return Err(Error::misuse(field, "is zero"));
    }
    Ok(scalar)
}

/// r || s, and s in the lower half as the contract asks.
pub fn signature(field: &str, bytes: &[u8]) -> Result<Signature, Error> {
    let bytes: [u8; 64] = array(field, bytes)?;
    let signature =
        Signature::from_compact(&bytes).map_err(|_| Error::misuse(field, "is not a signature: r or s is too large"))?;
    let mut low_s = signature;
    low_s.normalize_s();
    if low_s != signature {
        return Err(Error::misuse(field, "has a high s"));
    }
    Ok(signature)
}

pub fn signatures(field: &str, list: &[Vec<u8>]) -> Result<Vec<Signature>, Error> {
    list.iter().enumerate().map(|(i, bytes)| signature(&format!("{field}[{i}]"), bytes)).collect()
}

pub fn payment_hash(field: &str, bytes: &[u8]) -> Result<PaymentHash, Error> {
    array(field, bytes).map(PaymentHash)
}

pub fn preimages(field: &str, list: &[Vec<u8>]) -> Result<Vec<PaymentPreimage>, Error> {
    list.iter().enumerate().map(|(i, bytes)| array(&format!("{field}[{i}]"), bytes).map(PaymentPreimage)).collect()
}

pub fn txid(field: &str, bytes: &[u8]) -> Result<Txid, Error> {
    array(field, bytes).map(Txid::from_byte_array)
}

/// An outpoint whose index LDK can hold (BOLT 2 has 16 bits for it).
pub fn outpoint(field: &str, wire: &v1::OutPoint) -> Result<OutPoint, Error> {
    let index = u16::try_from(wire.vout).map_err(|_| Error::misuse(format!("{field}.vout"), "is beyond 65535"))?;
    Ok(OutPoint { txid: txid(&format!("{field}.txid"), &wire.txid)?, index })
}

/// An amount that can exist.
pub fn amount(field: &str, sat: u64) -> Result<Amount, Error> {
    let amount = Amount::from_sat(sat);
    if amount > Amount::MAX_MONEY {
        return Err(Error::misuse(field, "is more than there will ever be"));
    }
    Ok(amount)
}

/// A script that fits an output (BIP 16's and the interpreter's limit of 10,000 bytes).
pub fn script(field: &str, bytes: &[u8]) -> Result<ScriptBuf, Error> {
    if bytes.len() > 10_000 {
        return Err(Error::misuse(field, "is longer than 10000 bytes"));
    }
    Ok(ScriptBuf::from_bytes(bytes.to_vec()))
}

pub fn tx_out(field: &str, wire: &v1::TxOut) -> Result<TxOut, Error> {
    Ok(TxOut {
        value: amount(&format!("{field}.value_sat"), wire.value_sat)?,
        script_pubkey: script(&format!("{field}.script_pubkey"), &wire.script_pubkey)?,
    })
}

/// A block height, not a time.
pub fn block_height(field: &str, height: u32) -> Result<u32, Error> {
    if height >= LOCK_TIME_THRESHOLD {
        return Err(Error::misuse(field, "is a time and not a block height"));
    }
    Ok(height)
}

pub fn blocks(field: &str, count: u32) -> Result<u16, Error> {
    u16::try_from(count).map_err(|_| Error::misuse(field, "is beyond 65535 blocks"))
}

/// A transaction that a block could hold, with inputs, outputs and no more value than exists.
pub fn transaction(field: &str, bytes: &[u8]) -> Result<Transaction, Error> {
    let wrong = |why: &str| Error::misuse(field, why);
    let transaction: Transaction =
        bitcoin::consensus::deserialize(bytes).map_err(|_| wrong("is not a transaction in consensus encoding"))?;
    if transaction.input.is_empty() || transaction.output.is_empty() {
        return Err(wrong("has no inputs or no outputs"));
    }
    if transaction.weight() > Weight::MAX_BLOCK {
        return Err(wrong("is heavier than a block"));
    }
    let mut total = Amount::ZERO;
    for output in &transaction.output {
        total = total
            .checked_add(output.value)
            .filter(|total| *total <= Amount::MAX_MONEY)
            .ok_or_else(|| wrong("pays more than there will ever be"))?;
    }
    Ok(transaction)
}

/// The transaction and the index of one of its inputs.
pub fn transaction_input(
    field: &str,
    bytes: &[u8],
    index_field: &str,
    index: u32,
) -> Result<(Transaction, usize), Error> {
    let transaction = transaction(field, bytes)?;
    let input = index as usize;
    if input >= transaction.input.len() {
        return Err(Error::misuse(index_field, format!("the transaction has {} inputs", transaction.input.len())));
    }
    Ok((transaction, input))
}
