//! Idempotency keys: a client that repeats a request under its key gets the same payment, also from another leader.
//!
//! The key is committed in the batch that begins the payment, so a leader either finds both or neither. Within one
//! leader, requests under the same key take turns until the first is committed. Postgres has the last word: a batch that
//! gives a key to a second payment is never written, and so nothing of it leaves the replica.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use bitcoin::hashes::{Hash, HashEngine, sha256};
use holdfast_proto::error::Error;
use tokio::sync::{Mutex as Turn, OwnedMutexGuard};

const MAX_BYTES: usize = 256;

/// A key, and the hash of what is asked for under it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key {
    pub key: String,
    pub request: [u8; 32],
}

impl Key {
    /// `asked` is what makes two requests the same: whom to pay and how much, not what it may cost or who waits how long.
    /// An empty key is none.
    pub fn parse(key: &str, asked: &[&[u8]]) -> Result<Option<Self>, Error> {
        if key.is_empty() {
            return Ok(None);
        }
        if key.len() > MAX_BYTES || key.contains('\0') {
            return Err(Error::misuse(
                "idempotency_key",
                format!("it is more than {MAX_BYTES} bytes, or has a NUL in it"),
            ));
        }
        let mut engine = sha256::Hash::engine();
        for part in asked {
            engine.input(&(part.len() as u64).to_be_bytes());
            engine.input(part);
        }
        Ok(Some(Self { key: key.to_owned(), request: sha256::Hash::from_engine(engine).to_byte_array() }))
    }
}

/// Whose turn it is, key by key.
#[derive(Default)]
pub struct Turns(Mutex<HashMap<String, Arc<Turn<()>>>>);

impl Turns {
    /// Waits until nobody else has this key in hand.
    pub async fn take(&self, key: &str) -> OwnedMutexGuard<()> {
        let turn = {
            let mut turns = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            // Only those that somebody holds or waits for are worth keeping.
            turns.retain(|_, turn| Arc::strong_count(turn) > 1);
            turns.entry(key.to_owned()).or_default().clone()
        };
        turn.lock_owned().await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_stands_for_one_request() {
        let key = |asked: &[&[u8]]| Key::parse("k", asked).unwrap().unwrap().request;
        assert_eq!(key(&[b"a", b"bc"]), key(&[b"a", b"bc"]));
        assert_ne!(key(&[b"a", b"bc"]), key(&[b"ab", b"c"]));
        assert_eq!(Key::parse("", &[]).unwrap(), None);
        assert!(Key::parse(&"k".repeat(257), &[]).is_err() && Key::parse("a\0", &[]).is_err());
    }

    #[tokio::test]
    async fn requests_under_one_key_take_turns() {
        let turns = Arc::new(Turns::default());
        let first = turns.take("a").await;
        let _other = turns.take("b").await;
        let second = tokio::spawn({
            let turns = turns.clone();
            async move { turns.take("a").await }
        });
        tokio::task::yield_now().await;
        assert!(!second.is_finished());
        drop(first);
        drop(second.await.unwrap());
        drop(turns.take("c").await);
        assert_eq!(turns.0.lock().unwrap().len(), 2, "keys that nobody holds are forgotten");
    }
}
