//! Deposits that are in no block yet: a look at what came into bitcoind's mempool since the last one.
//!
//! The wallet does not have such coins and does not count them. That they come is told; see [`crate::chain::deposits`].

use std::{collections::HashSet, io, sync::Arc, time::Duration};

use bitcoin::Txid;
use tokio::{task::block_in_place, time::sleep};

use super::CommitQueue;
use crate::chain::{Bitcoind, Wallet};

/// How often it is looked at. Its list of txids is some megabytes where it is full, so then less often.
const OFTEN: Duration = Duration::from_secs(1);
const LESS_OFTEN: Duration = Duration::from_secs(10);
const FULL: usize = 5_000;
/// Transactions that are fetched in one look. The rest waits for the next.
const AT_ONCE: usize = 1_000;

/// Looks for as long as it is polled. What is there at the first look is fetched too, unless the mempool is full: then a
/// deposit in it is told of when it is mined.
pub(super) async fn watch(bitcoind: Arc<Bitcoind>, wallet: Arc<Wallet>, queue: Arc<CommitQueue>) {
    let mut known: Option<HashSet<Txid>> = None;
    loop {
        let pause = match look(&bitcoind, &wallet, &queue, &mut known).await {
            Ok(size) if size < FULL => OFTEN,
            Ok(_) => LESS_OFTEN,
            // Whoever follows the chain says so.
            Err(error) => {
                tracing::debug!(%error, "the mempool cannot be looked at");
                LESS_OFTEN
            }
        };
        sleep(pause).await;
    }
}

/// Says how many transactions there are.
async fn look(
    bitcoind: &Bitcoind,
    wallet: &Wallet,
    queue: &CommitQueue,
    known: &mut Option<HashSet<Txid>>,
) -> io::Result<usize> {
    let now: HashSet<Txid> = bitcoind.mempool().await?.into_iter().collect();
    let known = known.get_or_insert_with(|| if now.len() < FULL { HashSet::new() } else { now.clone() });
    known.retain(|txid| now.contains(txid));
    let new: Vec<Txid> = now.iter().filter(|txid| !known.contains(*txid)).take(AT_ONCE).copied().collect();
    for txid in new {
        if let Some(tx) = bitcoind.unconfirmed(txid).await? {
            block_in_place(|| queue.with_state(|| wallet.saw_deposit(&tx)));
        }
        known.insert(txid);
    }
    Ok(now.len())
}
