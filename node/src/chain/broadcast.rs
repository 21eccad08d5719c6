//! The last step of a broadcast: transactions whose commit is done go to bitcoind, however long it is away.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bitcoin::{Transaction, Txid};
use tokio::sync::mpsc;

use super::{Bitcoind, bitcoind::Sent};

const RETRY: Duration = Duration::from_millis(500);

/// Of so many transactions is remembered that the log has them already.
const TOLD_AT_MOST: usize = 10_000;

/// Takes packages of transactions and hands them to bitcoind in the background, in order.
#[derive(Clone)]
pub struct Outbox {
    queue: mpsc::UnboundedSender<Vec<Transaction>>,
    waiting: Waiting,
}

/// The packages that wait. The same is handed over again and again, at each block and timer; while bitcoind is away, or
/// blocks come fast, one of each is enough.
#[derive(Clone, Default)]
struct Waiting(Arc<Mutex<HashSet<Vec<Txid>>>>);

impl Waiting {
    fn packages(&self) -> MutexGuard<'_, HashSet<Vec<Txid>>> {
        // Each change is a single insert or remove.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn txids(package: &[Transaction]) -> Vec<Txid> {
    package.iter().map(Transaction::compute_txid).collect()
}

impl Outbox {
    /// `sent` is told of each transaction that bitcoind took.
    pub fn start(bitcoind: Arc<Bitcoind>, sent: impl Fn(&Transaction) + Send + Sync + 'static) -> Self {
        let (queue, packages) = mpsc::unbounded_channel();
        let waiting = Waiting::default();
        tokio::spawn(deliver(bitcoind, packages, waiting.clone(), sent));
        Self { queue, waiting }
    }

    /// Never blocks. A package is a transaction alone, or a parent and the child that pays for it.
    pub fn send(&self, package: Vec<Transaction>) {
        if self.waiting.packages().insert(txids(&package)) {
            // Fails only when the runtime is gone, and the process with it.
            let _ = self.queue.send(package);
        }
    }
}

async fn deliver(
    bitcoind: Arc<Bitcoind>,
    mut packages: mpsc::UnboundedReceiver<Vec<Transaction>>,
    waiting: Waiting,
    sent: impl Fn(&Transaction),
) {
    let mut told = HashSet::new();
    while let Some(package) = packages.recv().await {
        waiting.packages().remove(&txids(&package));
        if told.len() > TOLD_AT_MOST {
            told.clear();
        }
        for (tx, outcome) in package.iter().zip(deliver_one(&bitcoind, &package).await) {
            let txid = tx.compute_txid();
            match outcome {
                Sent::Accepted => {
                    match told.insert((txid, true)) {
                        true => tracing::info!(%txid, "broadcast a transaction"),
                        false => tracing::debug!(%txid, "bitcoind has a transaction already"),
                    }
                    sent(tx);
                }
                // Not the last word: LDK hands over again what is still needed, at each block and timer.
                Sent::Rejected(why) => match told.insert((txid, false)) {
                    true => tracing::info!(%txid, why, "bitcoind did not take a transaction"),
                    false => tracing::debug!(%txid, why, "bitcoind did not take a transaction again"),
                },
            }
        }
    }
}

async fn deliver_one(bitcoind: &Bitcoind, package: &[Transaction]) -> Vec<Sent> {
    if package.len() > 1 {
        match until_reached(|| bitcoind.send_package(package)).await {
            Sent::Accepted => return vec![Sent::Accepted; package.len()],
            // Often only because a part of it is confirmed already; one by one the rest still goes.
            Sent::Rejected(why) => tracing::debug!(why, "bitcoind did not take a package; sending one by one"),
        }
    }
    let mut outcomes = Vec::with_capacity(package.len());
    for tx in package {
        outcomes.push(until_reached(|| bitcoind.send(tx)).await);
    }
    outcomes
}

async fn until_reached<F>(mut attempt: impl FnMut() -> F) -> Sent
where
    F: Future<Output = std::io::Result<Sent>>,
{
    let mut told = false;
    loop {
        match attempt().await {
            Ok(sent) => return sent,
            Err(error) => {
                if !told {
                    tracing::warn!(%error, "bitcoind is away; broadcasts wait for it");
                    told = true;
                }
                tokio::time::sleep(RETRY).await;
            }
        }
    }
}
