//! What a peer gave back is held against the database: which of its channels are lost?

use std::{sync::Arc, time::Duration};

use bitcoin::secp256k1::PublicKey;
use lightning::util::persist::KVStoreSync;

use super::{NAMESPACE, Named, PeerStorage};
use crate::{
    lightning::{BufferedKv, CommitQueue, channel_backup::ChannelBackups},
    store::postgres::{PgReader, ReadError},
};

/// Between two questions to a database that is away.
const AGAIN: Duration = Duration::from_secs(1);

/// Keeps what the database should know and does not.
pub struct Judge {
    pub storage: Arc<PeerStorage>,
    /// Of the primary: it decides.
    pub reader: Arc<PgReader>,
    pub queue: Arc<CommitQueue>,
    pub kv: Arc<BufferedKv>,
    pub backups: Arc<ChannelBackups>,
}

impl Judge {
    /// Judges whatever is given back, until dropped.
    pub async fn run(self) {
        loop {
            self.storage.returned.notified().await;
            let unknown = self.storage.book().take_unknown();
            for (peer, channels) in unknown {
                self.judge(&peer, channels).await;
            }
        }
    }

    async fn judge(&self, peer: &PublicKey, channels: Vec<Named>) {
        let ids: Vec<[u8; 32]> = channels.iter().map(|(id, _)| id.0).collect();
        // A channel that was closed long ago is known, and a peer that gives back an old blob shows nothing new.
        let known = loop {
            match self.reader.known_channels(&ids).await {
                Ok(known) => break known,
                // Others say so.
                Err(ReadError::Unavailable(_)) => tokio::time::sleep(AGAIN).await,
                Err(error @ ReadError::Broken(_)) => {
                    tracing::error!(%error, %peer, "cannot look up what a peer gave back; it keeps it");
                    return;
                }
            }
        };
        let lost = channels.into_iter().filter(|(id, _)| !known.contains(&id.0)).collect();
        let kept = tokio::task::block_in_place(|| {
            self.queue.with_state(|| {
                let kept = self.keep(lost);
                if !kept.is_empty() {
                    self.backups.refresh();
                }
                kept
            })
        });
        if !kept.is_empty() {
            tracing::warn!(
                %peer,
                channels = kept.join(" "),
                "a peer gave our backup back, and it names channels that this database does not know: \
                 `holdfast channel-backup export` shows them, see docs/recovery.md"
            );
        }
        // Only then may what the peer holds be replaced. If nothing is committed any more, nothing is sent either.
        if self.queue.committed().await {
            self.storage.book().judged(peer);
        }
    }

    /// Writes what is new among the lost, and names it.
    fn keep(&self, lost: Vec<Named>) -> Vec<String> {
        let mut kept = Vec::new();
        for (id, entry) in lost {
            let name = hex::encode(id.0);
            // Another peer may have given it back meanwhile, or the channel have been opened.
            let is_kept = self.kv.read(NAMESPACE, "", &name).is_ok();
            if is_kept || self.backups.knows(&id) || self.backups.is_recovered(&name) {
                continue;
            }
            let written = serde_json::to_vec(&entry)
                .map_err(|error| error.to_string())
                .and_then(|bytes| self.kv.write(NAMESPACE, "", &name, bytes).map_err(|error| error.to_string()));
            match written {
                Ok(()) => kept.push(name),
                Err(error) => tracing::error!(error, "the commit buffer refused a channel that a peer gave back"),
            }
        }
        kept
    }
}
