//! What a replica keeps warm, leading or not, and what it knows of the parts that are away.

use std::{
    sync::{Arc, PoisonError},
    time::{Duration, Instant},
};

use holdfast_signer_client::{Transport, v1 as signer_v1};

use super::{Replica, away};
use crate::chain::{Bitcoind, BlockCache, HeaderCache, headers::explain};

/// What a standby knows of the chain, so that a takeover need not ask.
#[derive(Default)]
pub(super) struct RecentChain {
    pub(super) headers: HeaderCache,
    pub(super) blocks: BlockCache,
}

/// Which parts are away, each with the reason.
#[derive(Clone, Debug, Default)]
pub(super) struct Health {
    pub(super) postgres: Option<String>,
    pub(super) signer: Option<String>,
    pub(super) bitcoind: Option<String>,
    /// How long each one's last answer took, in that order.
    pub(super) took: [Option<Duration>; 3],
    pub(super) bitcoind_height: Option<u32>,
    pub(super) database_bytes: Option<u64>,
    pub(super) term: u64,
}

/// How often a standby looks after its connections.
const WARM: Duration = Duration::from_secs(1);
/// In rounds of keeping warm.
const FEES_EVERY: u64 = 30;
/// As rarely as that: the server counts files for it.
const SIZE_EVERY: u64 = 60;

impl Replica {
    /// Keeps connections open, headers and fees fresh, and knows what is away.
    pub(super) async fn keep_warm(self: Arc<Self>) {
        let (mut round, told) = (0u64, away::Told::default());
        let bitcoind = self.bitcoind.another();
        loop {
            let (chain, signer, postgres, height) = tokio::join!(
                self.ask_bitcoind(&bitcoind, round),
                timed(self.ask_signer()),
                timed(self.reader.leadership(0)),
                timed(bitcoind.height())
            );
            let bytes = match round.is_multiple_of(SIZE_EVERY) {
                true => self.reader.database_bytes().await.ok(),
                false => None,
            };
            {
                let mut health = self.health.lock().unwrap_or_else(PoisonError::into_inner);
                health.took = [postgres.1, signer.1, height.1];
                let (signer, postgres) = (signer.0, postgres.0);
                health.bitcoind_height = height.0.ok();
                health.database_bytes = bytes.or(health.database_bytes);
                health.bitcoind = chain.err();
                health.signer = away::signer(signer);
                told.round(health.signer.as_deref(), health.bitcoind.as_deref());
                health.postgres = match postgres {
                    Ok(view) => {
                        health.term = view.term;
                        None
                    }
                    Err(error) => Some(away::postgres(error)),
                };
            }
            round += 1;
            tokio::time::sleep(WARM).await;
        }
    }

    async fn ask_bitcoind(&self, bitcoind: &Bitcoind, round: u64) -> Result<(), String> {
        let mut chain = self.chain.lock().await;
        // A leader's own loop follows the chain.
        if let Some(RecentChain { headers, blocks }) = &mut *chain {
            let tip = headers.follow(bitcoind, self.config.network).await.map_err(explain)?;
            blocks.follow(bitcoind, headers, tip.header.block_hash()).await.map_err(explain)?;
        }
        drop(chain);
        if round.is_multiple_of(FEES_EVERY) {
            self.fees.refresh(bitcoind).await.map_err(|e| e.to_string())?;
        }
        Ok(())
    }

    pub(super) async fn ask_signer(&self) -> Result<signer_v1::GetNodeInfoResponse, String> {
        let signer = self.signer.clone();
        let ask = move || signer.get_node_info(signer_v1::GetNodeInfoRequest {});
        let info = tokio::task::spawn_blocking(ask).await.map_err(|e| e.to_string())?.map_err(|e| e.to_string())?;
        let node_id = info.node_id.as_slice().try_into().map_err(|_| "the signer's node id is malformed".to_owned())?;
        *self.node_id.lock().unwrap_or_else(PoisonError::into_inner) = Some(node_id);
        Ok(info)
    }
}

/// An answer, and how long it took if it is one.
async fn timed<T, E>(question: impl Future<Output = Result<T, E>>) -> (Result<T, E>, Option<Duration>) {
    let asked = Instant::now();
    let answer = question.await;
    let took = answer.is_ok().then(|| asked.elapsed());
    (answer, took)
}
