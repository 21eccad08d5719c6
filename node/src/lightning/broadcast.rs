//! LDK's broadcaster: a transaction waits for a commit whose state already knows that it was handed over.

use std::sync::Arc;

use bitcoin::Transaction;
use lightning::chain::chaininterface::BroadcasterInterface;

use super::queue::CommitQueue;

/// Pushes transactions onto the commit queue; the commit loop hands them to the network after the commit.
///
/// Sent at once, a commitment broadcast before a crash would come back as an open channel, whose next payment revokes
/// the very state that is on its way into a block.
pub struct BufferedBroadcaster {
    queue: Arc<CommitQueue>,
}

impl BufferedBroadcaster {
    pub fn new(queue: Arc<CommitQueue>) -> Self {
        Self { queue }
    }
}

impl BroadcasterInterface for BufferedBroadcaster {
    fn broadcast_transactions(&self, transactions: &[&Transaction]) {
        if transactions.is_empty() {
            return;
        }
        let closings = transactions.iter().filter_map(|tx| self.queue.closings().record(tx));
        let mut pending = self.queue.pending();
        pending.closings.extend(closings);
        pending.packages.push(transactions.iter().map(|tx| (*tx).clone()).collect());
        drop(pending);
        self.queue.wake();
    }
}
