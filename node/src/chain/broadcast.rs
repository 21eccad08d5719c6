//! The last step of a broadcast: transactions whose commit is done go to bitcoind, however long it is away.

use std::{sync::Arc, time::Duration};

use bitcoin::Transaction;
use tokio::sync::mpsc;

use super::{Bitcoind, bitcoind::Sent};

const RETRY: Duration = Duration::from_millis(500);

/// Takes packages of transactions and hands them to bitcoind in the background, in order.
#[derive(Clone)]
pub struct Outbox {
    queue: mpsc::UnboundedSender<Vec<Transaction>>,
}

impl Outbox {
    /// `sent` is told of each transaction that bitcoind took.
    pub fn start(bitcoind: Arc<Bitcoind>, sent: impl Fn(&Transaction) + Send + Sync + 'static) -> Self {
        let (queue, packages) = mpsc::unbounded_channel();
        tokio::spawn(deliver(bitcoind, packages, sent));
        Self { queue }
    }

    /// Never blocks. A package is a transaction alone, or a parent and the child that pays for it.
    pub fn send(&self, package: Vec<Transaction>) {
        // Fails only when the runtime is gone, and the process with it.
        let _ = self.queue.send(package);
    }
}

async fn deliver(
    bitcoind: Arc<Bitcoind>,
    mut packages: mpsc::UnboundedReceiver<Vec<Transaction>>,
    sent: impl Fn(&Transaction),
) {
    while let Some(package) = packages.recv().await {
        for (tx, outcome) in package.iter().zip(deliver_one(&bitcoind, &package).await) {
            let txid = tx.compute_txid();
            match outcome {
                Sent::Accepted => {
                    tracing::info!(%txid, "broadcast a transaction");
                    sent(tx);
                }
                // Not the last word: LDK hands over again what is still needed, at each block and timer.
                Sent::Rejected(why) => tracing::info!(%txid, why, "bitcoind did not take a transaction"),
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
