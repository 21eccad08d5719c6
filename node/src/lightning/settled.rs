//! Who waits for which payment, by its id.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::sync::watch;

/// Tells callers that a payment has come to its end in memory; whether that is durable they find out by
/// waiting for the next commit.
#[derive(Default)]
pub struct Settled(Mutex<HashMap<[u8; 32], watch::Sender<bool>>>);

impl Settled {
    /// Must be called before the payment is begun.
    pub fn watch(&self, payment_id: [u8; 32]) -> watch::Receiver<bool> {
        let mut waiting = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.retain(|_, sender| !sender.is_closed());
        waiting.entry(payment_id).or_insert_with(|| watch::Sender::new(false)).subscribe()
    }

    /// Until the payment is over, or `patience` is.
    pub async fn wait(mut over: watch::Receiver<bool>, patience: Duration) {
        let _ = tokio::time::timeout(patience, over.wait_for(|over| *over)).await;
    }

    pub fn notify(&self, payment_id: &[u8; 32]) {
        if let Some(sender) = self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(payment_id) {
            sender.send_replace(true);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn every_waiter_is_told_and_nobody_else() {
        let settled = Settled::default();
        let (mut a, mut b, c) = (settled.watch([1; 32]), settled.watch([1; 32]), settled.watch([2; 32]));
        settled.notify(&[1; 32]);
        assert!(*a.wait_for(|done| *done).await.unwrap());
        assert!(*b.wait_for(|done| *done).await.unwrap());
        assert!(!*c.borrow());
    }
}
