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
use tracing::Instrument;

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

    /// Does `work` when nobody else has this key in hand, and keeps it in hand until the work is done, also if whoever
    /// asked for it has gone away by then: dropping this future after the work has begun does not stop it.
    pub async fn see_through<T: Send + 'static>(
        &self,
        key: Option<&str>,
        work: impl Future<Output = Result<T, Error>> + Send + 'static,
    ) -> Result<T, Error> {
        let turn = match key {
            Some(key) => Some(self.take(key).await),
            None => None,
        };
        let whole = async move {
            let _turn = turn;
            work.await
        };
        let done = tokio::spawn(whole.in_current_span()).await;
        done.unwrap_or_else(|error| Err(Error::Internal(format!("a payment's beginning was cut short: {error}"))))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

    use super::{super::CommitQueue, *};

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
    /// A client that goes away while the store hangs must not let another in before the first payment is committed.
    #[tokio::test]
    async fn what_has_begun_keeps_its_turn_when_the_client_goes_away() {
        let (turns, queue) = (Arc::new(Turns::default()), Arc::new(CommitQueue::default()));
        let (begun, is_stored) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
        let ask = || {
            let (turns, queue) = (turns.clone(), queue.clone());
            let (begun, is_stored) = (begun.clone(), is_stored.clone());
            tokio::spawn(async move {
                let work = async move {
                    // A row that the store has says that there is nothing to begin.
                    if !is_stored.load(Ordering::SeqCst) {
                        begun.fetch_add(1, Ordering::SeqCst);
                        queue.committed().await;
                    }
                    Ok(())
                };
                turns.see_through(Some("a"), work).await
            })
        };
        let first = ask();
        while begun.load(Ordering::SeqCst) == 0 {
            tokio::task::yield_now().await;
        }
        first.abort();
        assert!(first.await.unwrap_err().is_cancelled());
        let second = ask();
        // Both wait for something that this test has not done yet.
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        assert_eq!((begun.load(Ordering::SeqCst), second.is_finished()), (1, false));
        is_stored.store(true, Ordering::SeqCst);
        queue.mark_committed(1);
        second.await.unwrap().unwrap();
        assert_eq!(begun.load(Ordering::SeqCst), 1, "a second payment was begun under the key");
    }
}
