//! A static backup of the channels: what names each one and its peer, kept up to date beside the channels' own state.
//!
//! It holds no state that can grow old and no secret, so an old copy does no harm. docs/recovery.md says what it is good for.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    sync::{Arc, Mutex, PoisonError},
};

use bitcoin::{BlockHash, secp256k1::PublicKey};
use holdfast_proto::node::v1;
use holdfast_signer_client::{RemoteChannelSigner, RemoteKeys};
use lightning::{
    chain::channelmonitor::ChannelMonitor,
    ln::types::ChannelId,
    util::{
        persist::KVStoreSync,
        ser::{ReadableArgs, Writeable},
    },
};
use serde::{Deserialize, Serialize};

use super::{
    BufferedKv,
    payments::unix_now,
    peer_storage::{self, PeerStorage},
    peers::Dialer,
    recovery,
    resume::Recording,
    startup::ChannelKeys,
    types::{ChainMonitor, ChannelManager},
};

/// Where the entries stand in the key-value space, one for each channel under its id in hex.
pub const NAMESPACE: &str = "channel-backup";

/// Keeps an entry for each channel that has a monitor: until all its money is on chain.
pub struct ChannelBackups {
    pub manager: Arc<ChannelManager>,
    pub monitors: Arc<ChainMonitor>,
    pub dialer: Arc<Dialer>,
    pub keys: Arc<RemoteKeys>,
    pub kv: Arc<BufferedKv>,
    /// Of the channels that were there at the start, and those looked at since.
    pub keys_ids: Mutex<HashMap<ChannelId, [u8; 32]>>,
    /// Leaves them with peers.
    pub storage: Arc<PeerStorage>,
}

/// One channel, as it is stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    pub counterparty: String,
    pub addresses: Vec<String>,
    pub funding_outpoint: String,
    pub capacity_sat: u64,
    pub channel_type: String,
    pub channel_keys_id: String,
    pub written_ms: u64,
    /// Of an entry that only a peer knew: who gave it back. See [`peer_storage`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub returned_by: Option<String>,
}

impl Entry {
    pub fn into_message(self, channel_id: String) -> v1::ChannelBackupEntry {
        let Self { counterparty, addresses, funding_outpoint, capacity_sat, channel_type, channel_keys_id, .. } = self;
        v1::ChannelBackupEntry {
            channel_id,
            counterparty,
            addresses,
            funding_outpoint,
            capacity_sat,
            channel_type,
            channel_keys_id,
            written_ms: self.written_ms,
            returned_by: self.returned_by.unwrap_or_default(),
        }
    }
}

impl ChannelBackups {
    pub fn keys_ids(channels: &ChannelKeys) -> Mutex<HashMap<ChannelId, [u8; 32]>> {
        Mutex::new(channels.iter().copied().collect())
    }

    /// Writes what has changed, into the batch that is being made. To be called under the commit queue's mutex.
    pub fn refresh(&self) {
        let channels: HashMap<ChannelId, (u64, PublicKey)> = self
            .manager
            .list_channels()
            .into_iter()
            .map(|channel| (channel.channel_id, (channel.channel_value_satoshis, channel.counterparty.node_id)))
            .collect();
        let mut there = HashSet::new();
        let mut peers = BTreeSet::new();
        // What peers gave back is left with them again, as long as it is kept.
        let mut entries = self.returned();
        for channel_id in self.monitors.list_monitors() {
            let name = hex::encode(channel_id.0);
            let old = self.stored(NAMESPACE, &name);
            let open = channels.get(&channel_id);
            peers.extend(open.map(|(_, peer)| *peer));
            let entry = match (self.entry(channel_id, open.map(|(capacity_sat, _)| *capacity_sat), old.as_ref()), old) {
                (Some(entry), Some(old)) if !changed(&old, &entry) => Some(old),
                (Some(entry), _) => {
                    self.write(&name, &entry);
                    Some(entry)
                }
                (None, old) => old,
            };
            entries.extend(entry.map(|entry| (channel_id, entry)));
            there.insert(name);
        }
        // All its money is on chain, and the monitor is archived.
        for gone in self.kv.list(NAMESPACE, "").unwrap_or_default().into_iter().filter(|name| !there.contains(name)) {
            self.remove(NAMESPACE, &gone);
        }
        self.storage.changed(&entries, peers);
    }

    /// Whether a channel is one of ours, and its money not all on chain.
    pub fn knows(&self, channel_id: &ChannelId) -> bool {
        self.monitors.get_monitor(*channel_id).is_ok()
    }

    /// Whether a channel is being recovered, or was: from then on its record there stands for it.
    pub fn is_recovered(&self, name: &str) -> bool {
        self.kv.read(recovery::NAMESPACE, "", name).is_ok()
    }

    /// What peers gave back and the database did not know.
    fn returned(&self) -> BTreeMap<ChannelId, Entry> {
        let names = self.kv.list(peer_storage::NAMESPACE, "").unwrap_or_default();
        let (recovered, names): (Vec<_>, Vec<_>) = names.into_iter().partition(|name| self.is_recovered(name));
        for name in recovered {
            self.remove(peer_storage::NAMESPACE, &name);
        }
        let parsed = |name: &String| {
            let id = hex::decode(name).ok()?.try_into().ok()?;
            Some((ChannelId(id), self.stored(peer_storage::NAMESPACE, name)?))
        };
        names.iter().filter_map(parsed).collect()
    }

    fn entry(&self, channel_id: ChannelId, capacity_sat: Option<u64>, old: Option<&Entry>) -> Option<Entry> {
        let monitor = self.monitors.get_monitor(channel_id).ok()?;
        let peer = monitor.get_counterparty_node_id();
        let anchors = monitor.channel_type_features().supports_anchors_zero_fee_htlc_tx();
        let keys_id = self.keys_id(channel_id, &monitor)?;
        Some(Entry {
            counterparty: peer.to_string(),
            addresses: self.addresses(&peer, old),
            funding_outpoint: monitor.get_funding_txo().into_bitcoin_outpoint().to_string(),
            // A channel that is closing is not in the manager any more.
            capacity_sat: capacity_sat.or(old.map(|old| old.capacity_sat)).unwrap_or_default(),
            channel_type: if anchors { "anchors" } else { "static-remote-key" }.into(),
            channel_keys_id: hex::encode(keys_id),
            written_ms: unix_now() * 1000,
            returned_by: None,
        })
    }

    /// What is known now; what was known once is better than nothing.
    fn addresses(&self, peer: &PublicKey, old: Option<&Entry>) -> Vec<String> {
        let known = self.dialer.addresses(peer);
        match old {
            Some(old) if known.is_empty() => old.addresses.clone(),
            _ => known,
        }
    }

    /// LDK tells it to nobody but the signer, when a monitor is read.
    fn keys_id(&self, channel_id: ChannelId, monitor: &ChannelMonitor<RemoteChannelSigner>) -> Option<[u8; 32]> {
        // Each change is a single insert.
        let mut known = self.keys_ids.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(keys_id) = known.get(&channel_id) {
            return Some(*keys_id);
        }
        let bytes = monitor.encode();
        let recording = Recording::new(&self.keys);
        let read =
            <(BlockHash, ChannelMonitor<RemoteChannelSigner>)>::read(&mut bytes.as_slice(), (&*self.keys, &recording));
        match (read, recording.last()) {
            (Ok(_), Some(keys_id)) => {
                known.insert(channel_id, keys_id);
                Some(keys_id)
            }
            (read, _) => {
                tracing::error!(channel = %channel_id, error = ?read.err(), "a channel's monitor names no keys");
                None
            }
        }
    }

    fn stored(&self, namespace: &str, name: &str) -> Option<Entry> {
        serde_json::from_slice(&self.kv.read(namespace, "", name).ok()?).ok()
    }

    fn remove(&self, namespace: &str, name: &str) {
        if let Err(error) = self.kv.remove(namespace, "", name, false) {
            tracing::error!(%error, "the commit buffer refused to remove a channel's backup");
        }
    }

    fn write(&self, name: &str, entry: &Entry) {
        let written = serde_json::to_vec(entry)
            .map_err(|error| error.to_string())
            .and_then(|bytes| self.kv.write(NAMESPACE, "", name, bytes).map_err(|error| error.to_string()));
        if let Err(error) = written {
            tracing::error!(error, "the commit buffer refused a channel's backup");
        }
    }
}

/// Whether an entry says something new. The time alone is nothing new.
fn changed(old: &Entry, new: &Entry) -> bool {
    Entry { written_ms: old.written_ms, ..new.clone() } != *old
}

/// A stored entry for an operator. The error names the channel whose entry does not parse.
pub fn message(channel_id: String, stored: &[u8]) -> Result<v1::ChannelBackupEntry, String> {
    let entry: Entry =
        serde_json::from_slice(stored).map_err(|error| format!("the backup of channel {channel_id}: {error}"))?;
    Ok(entry.into_message(channel_id))
}

#[cfg(test)]
impl Entry {
    pub(super) fn example() -> Self {
        Self {
            counterparty: "02".repeat(33),
            addresses: vec!["peer.example:9735".into()],
            funding_outpoint: format!("{}:0", "ab".repeat(32)),
            capacity_sat: 100_000,
            channel_type: "anchors".into(),
            channel_keys_id: "cd".repeat(32),
            written_ms: 1,
            returned_by: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_alone_changes_nothing() {
        assert!(!changed(&Entry::example(), &Entry { written_ms: 2, ..Entry::example() }));
        assert!(changed(&Entry::example(), &Entry { funding_outpoint: "other".into(), ..Entry::example() }));
        assert!(changed(&Entry::example(), &Entry { addresses: vec![], ..Entry::example() }));
    }

    #[test]
    fn a_stored_entry_is_shown_whole_and_a_damaged_one_is_named() {
        let stored = serde_json::to_vec(&Entry::example()).unwrap();
        let shown = message("ee".repeat(32), &stored).unwrap();
        assert_eq!((shown.channel_id, shown.capacity_sat), ("ee".repeat(32), 100_000));
        assert_eq!(shown.channel_keys_id, "cd".repeat(32));
        assert!(message("ee".repeat(32), &stored[1..]).unwrap_err().contains(&"ee".repeat(32)));
    }
}
