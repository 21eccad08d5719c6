//! What is remembered of a channel that is being recovered: one record each in the key-value space.

use std::collections::HashMap;

use bitcoin::{BlockHash, OutPoint, Transaction, Txid, consensus, secp256k1::PublicKey};
use holdfast_proto::{error::Error, node::v1};
use lightning::ln::types::ChannelId;
use serde::{Deserialize, Serialize};

use super::{
    super::{channel_backup::Entry, types::Sweeper},
    outputs::Closing,
};
use crate::store::KvKey;

/// Where the records stand, one for each channel under its id in hex.
pub const NAMESPACE: &str = "channel-recovery";

/// Confirmations that a closing transaction has before its outputs are swept: as LDK has it for channels that it knows.
pub const CONFIRMATIONS: u32 = 6;
/// Blocks after which what a close has become is looked at no more: no reorganisation is deeper.
pub const SETTLED_AFTER: u32 = 2016;
/// Blocks that are looked at again, in case the chain was reorganised since.
const REORGANISED: u32 = 24;

#[derive(Debug, thiserror::Error)]
#[error("the record of the recovery of channel {0} does not parse")]
pub struct RecoveryError(String);

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recovery {
    pub entry: Entry,
    pub added_ms: u64,
    /// No block below has to be looked at.
    pub from_height: u32,
    /// Whether the funding output was seen unspent.
    pub seen: bool,
    /// No block up to this one spends the funding output.
    pub unspent_through: Option<u32>,
    pub search: Option<Search>,
    pub close: Option<Close>,
    /// The closing transaction that a reorganisation took back, in hex.
    pub taken_back: Option<String>,
}

/// A search for the spend, from the chain's tip down.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Search {
    pub top: u32,
    /// The next block to look at.
    pub next: u32,
}

/// The transaction that closed the channel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Close {
    /// In hex.
    pub transaction: String,
    pub txid: Txid,
    pub height: u32,
    pub block: BlockHash,
    pub how: Closing,
    pub outputs: Vec<Ours>,
    /// Whether the sweeper has what it is to sweep, and the wallet what is its.
    pub given: bool,
}

/// An output of ours.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ours {
    pub vout: u32,
    pub value_sat: u64,
    pub takes: Takes,
    /// The transaction that took it, once that is in a block.
    pub sweep: Option<Txid>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Takes {
    Sweeper,
    /// It pays to the wallet.
    Wallet,
    /// It was spent when it was to be swept: by an earlier sweep.
    Nobody,
}

/// An entry of a backup that parses.
#[derive(Clone, Debug)]
pub struct Named {
    pub channel: ChannelId,
    pub peer: PublicKey,
    pub funding: OutPoint,
    pub keys_id: [u8; 32],
    pub entry: Entry,
}

/// Reads what the store held at load.
pub fn load(kv: &HashMap<KvKey, Vec<u8>>) -> Result<HashMap<ChannelId, Recovery>, RecoveryError> {
    let records = kv.iter().filter(|(key, _)| key.primary == NAMESPACE);
    let parsed = records.map(|(key, bytes)| {
        let wrong = || RecoveryError(key.key.clone());
        let id: [u8; 32] = hex::decode(&key.key).ok().and_then(|id| id.try_into().ok()).ok_or_else(wrong)?;
        let recovery: Recovery = serde_json::from_slice(bytes).map_err(|_| wrong())?;
        // What is parsed at each use was parsed when it was stored.
        recovery.named(ChannelId(id)).map_err(|_| wrong())?;
        Ok((ChannelId(id), recovery))
    });
    parsed.collect()
}

/// The entries of those records whose money is not all home: they belong into a backup still. What does not parse is left
/// out; the leader says so at its start.
pub fn unfinished(stored: Vec<(String, Vec<u8>)>) -> impl Iterator<Item = v1::ChannelBackupEntry> {
    stored.into_iter().filter_map(|(channel, bytes)| {
        let recovery: Recovery = serde_json::from_slice(&bytes).ok()?;
        (!recovery.is_home()).then(|| recovery.entry.into_message(channel))
    })
}

impl Named {
    /// The error names the channel and the field.
    pub fn parse(wire: &v1::ChannelBackupEntry) -> Result<Self, Error> {
        let id: [u8; 32] = hex::decode(&wire.channel_id).ok().and_then(|id| id.try_into().ok()).ok_or_else(|| {
            Error::misuse("channels.channel_id", format!("{:?} is not 64 hex digits", wire.channel_id))
        })?;
        let channel = hex::encode(id);
        let wrong =
            |field: &str, why: &str| Error::misuse(format!("channels.{field}"), format!("of channel {channel}: {why}"));
        let peer = wire.counterparty.parse().map_err(|_| wrong("counterparty", "it is not a node id"))?;
        let funding: OutPoint =
            wire.funding_outpoint.parse().map_err(|_| wrong("funding_outpoint", "it is not of the form txid:vout"))?;
        if funding.vout > u32::from(u16::MAX) {
            return Err(wrong("funding_outpoint", "a funding output's number is at most 65535"));
        }
        let keys_id = hex::decode(&wire.channel_keys_id).ok().and_then(|id| id.try_into().ok());
        let keys_id: [u8; 32] = keys_id.ok_or_else(|| wrong("channel_keys_id", "it is not 64 hex digits"))?;
        if wire.capacity_sat == 0 || wire.capacity_sat > bitcoin::Amount::MAX_MONEY.to_sat() {
            return Err(wrong("capacity_sat", "there is no such channel"));
        }
        if !["anchors", "static-remote-key"].contains(&wire.channel_type.as_str()) {
            return Err(wrong("channel_type", "it is neither anchors nor static-remote-key"));
        }
        if wire.addresses.len() > 32 || wire.addresses.iter().any(|address| address.len() > 300) {
            return Err(wrong("addresses", "they are more, or longer, than a peer's can be"));
        }
        let entry = Entry {
            counterparty: wire.counterparty.clone(),
            addresses: wire.addresses.clone(),
            funding_outpoint: funding.to_string(),
            capacity_sat: wire.capacity_sat,
            channel_type: wire.channel_type.clone(),
            channel_keys_id: hex::encode(keys_id),
            written_ms: wire.written_ms,
            returned_by: Some(wire.returned_by.clone()).filter(|peer| !peer.is_empty()),
        };
        Ok(Self { channel: ChannelId(id), peer, funding, keys_id, entry })
    }
}

impl Recovery {
    pub fn new(entry: Entry, from_height: u32, now_ms: u64) -> Self {
        Self {
            entry,
            added_ms: now_ms,
            from_height,
            seen: false,
            unspent_through: None,
            search: None,
            close: None,
            taken_back: None,
        }
    }

    pub fn named(&self, channel: ChannelId) -> Result<Named, Error> {
        Named::parse(&self.entry.clone().into_message(hex::encode(channel.0)))
    }

    /// The lowest block that may spend the funding output.
    pub fn floor(&self) -> u32 {
        let looked = self.unspent_through.map_or(0, |height| height.saturating_sub(REORGANISED));
        self.from_height.max(looked)
    }

    /// A block of this height was looked at, and does not spend the funding output. `made` if it made it.
    pub fn looked_at(&mut self, height: u32, made: bool) {
        let floor = self.floor();
        let Some(search) = &mut self.search else { return };
        if made || height <= floor {
            self.unspent_through = Some(search.top);
            self.search = None;
        } else {
            search.next = height - 1;
        }
    }

    /// A reorganisation took the closing transaction back.
    pub fn take_back(&mut self) {
        if let Some(close) = self.close.take() {
            self.unspent_through = Some(close.height.saturating_sub(1));
            self.taken_back = Some(close.transaction);
        }
    }

    /// Nothing of it can change any more.
    pub fn is_settled(&self, height: u32) -> bool {
        self.is_home() && self.close.as_ref().is_some_and(|close| height >= close.height.saturating_add(SETTLED_AFTER))
    }

    /// All that was found is in the wallet.
    pub fn is_home(&self) -> bool {
        let home = |ours: &Ours| ours.takes != Takes::Sweeper || ours.sweep.is_some();
        self.close.as_ref().is_some_and(|close| close.given && close.outputs.iter().all(home))
    }

    /// Notes what the sweeper has brought into a block. Returns whether that is news.
    pub fn note_sweeps(&mut self, sweeper: &Sweeper) -> bool {
        use lightning::util::sweep::OutputSpendStatus::PendingThresholdConfirmations;
        let Some(close) = &mut self.close else { return false };
        let mut news = false;
        for tracked in sweeper.tracked_spendable_outputs() {
            let outpoint = tracked.descriptor.spendable_outpoint();
            if outpoint.txid != close.txid {
                continue;
            }
            let sweep = match &tracked.status {
                PendingThresholdConfirmations { latest_spending_tx, .. } => Some(latest_spending_tx.compute_txid()),
                _ => None,
            };
            if let Some(ours) = close.outputs.iter_mut().find(|ours| ours.vout == u32::from(outpoint.index)) {
                news |= ours.sweep != sweep;
                ours.sweep = sweep;
            }
        }
        news
    }
}

impl Close {
    pub fn transaction(&self) -> Option<Transaction> {
        consensus::deserialize(&hex::decode(&self.transaction).ok()?).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wire() -> v1::ChannelBackupEntry {
        v1::ChannelBackupEntry {
            channel_id: "cd".repeat(32),
            counterparty: "02eec7245d6b7d2ccb30380bfbe2a3648cd7a942653f5aa340edcea1f283686619".into(),
            addresses: vec!["peer.example:9735".into()],
            funding_outpoint: format!("{}:1", "ab".repeat(32)),
            capacity_sat: 100_000,
            channel_type: "anchors".into(),
            channel_keys_id: "11".repeat(32),
            written_ms: 5,
            returned_by: String::new(),
        }
    }

    fn recovery() -> Recovery {
        Recovery::new(Named::parse(&wire()).unwrap().entry, 0, 1)
    }

    #[test]
    fn an_entry_is_read_as_it_was_exported_and_a_wrong_one_is_named_with_its_field() {
        let named = Named::parse(&wire()).unwrap();
        assert_eq!(named.entry.clone().into_message("cd".repeat(32)), wire());
        assert_eq!((named.channel.0, named.keys_id, named.funding.vout), ([0xcd; 32], [0x11; 32], 1));
        type Change = fn(&mut v1::ChannelBackupEntry);
        let changes: [(&str, Change); 10] = [
            ("channel_id", |e| e.channel_id = "cd".into()),
            ("counterparty", |e| e.counterparty = "05".repeat(33)),
            ("funding_outpoint", |e| e.funding_outpoint = "ab:1".into()),
            ("funding_outpoint", |e| e.funding_outpoint = format!("{}:65536", "ab".repeat(32))),
            ("capacity_sat", |e| e.capacity_sat = 0),
            ("capacity_sat", |e| e.capacity_sat = u64::MAX),
            ("channel_type", |e| e.channel_type = "taproot".into()),
            ("channel_keys_id", |e| e.channel_keys_id = String::new()),
            ("addresses", |e| e.addresses = vec!["x".repeat(301)]),
            ("addresses", |e| e.addresses = vec![String::new(); 33]),
        ];
        for (wanted, change) in changes {
            let mut entry = wire();
            change(&mut entry);
            let Err(Error::Misuse { field, why }) = Named::parse(&entry) else { panic!("{wanted} was not refused") };
            assert_eq!(field, format!("channels.{wanted}"));
            assert!(wanted == "channel_id" || why.contains(&"cd".repeat(32)), "{why}");
        }
    }

    #[test]
    fn a_search_goes_down_to_where_nothing_can_be_and_the_next_one_is_short() {
        let mut recovery = Recovery { from_height: 90, search: Some(Search { top: 300, next: 300 }), ..recovery() };
        let mut looked = 0;
        while let Some(search) = recovery.search {
            looked += 1;
            recovery.looked_at(search.next, false);
        }
        assert_eq!((looked, recovery.unspent_through), (211, Some(300)));
        assert_eq!(recovery.floor(), 300 - REORGANISED);

        // The block that made the output ends it as well.
        recovery.search = Some(Search { top: 400, next: 400 });
        recovery.looked_at(400, true);
        assert_eq!((recovery.search, recovery.unspent_through), (None, Some(400)));
        let mut deep = Recovery { search: Some(Search { top: 1, next: 1 }), ..self::recovery() };
        deep.looked_at(1, false);
        deep.looked_at(0, false);
        assert_eq!(deep.unspent_through, Some(1));
    }

    #[test]
    fn what_is_stored_is_read_again_and_what_is_damaged_is_named() {
        let key = |name: &str| KvKey { primary: NAMESPACE.into(), secondary: String::new(), key: name.into() };
        let bytes = serde_json::to_vec(&recovery()).unwrap();
        let loaded = load(&HashMap::from([(key(&"cd".repeat(32)), bytes.clone())])).unwrap();
        assert_eq!(loaded, HashMap::from([(ChannelId([0xcd; 32]), recovery())]));
        for (name, bytes) in [("cd", bytes.clone()), (&*"cd".repeat(32), bytes[1..].to_vec())] {
            let error = load(&HashMap::from([(key(name), bytes)])).unwrap_err();
            assert!(error.to_string().contains(name), "{error}");
        }
    }

    #[test]
    fn a_backup_goes_on_to_name_what_is_not_home() {
        let close = |given| Close {
            transaction: String::new(),
            txid: "ab".repeat(32).parse().unwrap(),
            height: 7,
            block: "cd".repeat(32).parse().unwrap(),
            how: Closing::Commitment,
            outputs: vec![Ours { vout: 0, value_sat: 5, takes: Takes::Sweeper, sweep: None }],
            given,
        };
        let stored = |recovery: &Recovery| vec![("cd".repeat(32), serde_json::to_vec(recovery).unwrap())];
        let mut recovery = recovery();
        assert_eq!(unfinished(stored(&recovery)).collect::<Vec<_>>(), [wire()]);
        for given in [false, true] {
            recovery.close = Some(close(given));
            assert_eq!(unfinished(stored(&recovery)).count(), 1);
        }
        recovery.close.as_mut().unwrap().outputs[0].sweep = Some("ef".repeat(32).parse().unwrap());
        assert_eq!(unfinished(stored(&recovery)).count(), 0);
        assert!(
            recovery.is_home() && !recovery.is_settled(7 + SETTLED_AFTER - 1) && recovery.is_settled(7 + SETTLED_AFTER)
        );
        recovery.take_back();
        assert_eq!((recovery.close.is_none(), recovery.unspent_through), (true, Some(6)));
        assert_eq!(recovery.taken_back.as_deref(), Some(""));
    }
}
