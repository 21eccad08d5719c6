//! LDK's key-value store over the commit queue: small records that are committed with whatever else is waiting.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use lightning::{io, util::persist::KVStoreSync};

use super::queue::CommitQueue;
use crate::store::{KvKey, KvWrite};

/// Reads its own writes at once; they are durable with the next commit.
pub struct BufferedKv {
    queue: Arc<CommitQueue>,
    records: Mutex<BTreeMap<KvKey, Vec<u8>>>,
}

impl BufferedKv {
    /// `records` is what the store held at load.
    pub fn new(queue: Arc<CommitQueue>, records: impl IntoIterator<Item = (KvKey, Vec<u8>)>) -> Self {
        Self { queue, records: Mutex::new(records.into_iter().collect()) }
    }

    fn records(&self) -> MutexGuard<'_, BTreeMap<KvKey, Vec<u8>>> {
        // Each change is a single insert or remove.
        self.records.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl KVStoreSync for BufferedKv {
    fn read(&self, primary: &str, secondary: &str, key: &str) -> Result<Vec<u8>, io::Error> {
        self.records()
            .get(&kv_key(primary, secondary, key))
            .cloned()
            .ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "no such record"))
    }

    fn write(&self, primary: &str, secondary: &str, key: &str, value: Vec<u8>) -> Result<(), io::Error> {
        let key = kv_key(primary, secondary, key);
        // Pushed under the lock, so that the store sees two writes of one key in the order in which readers here do.
        let mut records = self.records();
        records.insert(key.clone(), value.clone());
        self.queue.kv(KvWrite::Put { key, value });
        Ok(())
    }

    fn remove(&self, primary: &str, secondary: &str, key: &str, _lazy: bool) -> Result<(), io::Error> {
        let key = kv_key(primary, secondary, key);
        let mut records = self.records();
        if records.remove(&key).is_some() {
            self.queue.kv(KvWrite::Remove { key });
        }
        Ok(())
    }

    fn list(&self, primary: &str, secondary: &str) -> Result<Vec<String>, io::Error> {
        let first = kv_key(primary, secondary, "");
        let same = |key: &KvKey| key.primary == primary && key.secondary == secondary;
        Ok(self
            .records()
            .range(first..)
            .map(|(key, _)| key)
            .take_while(|key| same(key))
            .map(|key| key.key.clone())
            .collect())
    }
}

fn kv_key(primary: &str, secondary: &str, key: &str) -> KvKey {
    KvKey { primary: primary.to_owned(), secondary: secondary.to_owned(), key: key.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_space_lists_its_own_keys_only() {
        let kv = BufferedKv::new(Arc::default(), []);
        for (primary, secondary, key) in
            [("a", "", "1"), ("a", "x", "2"), ("a", "x", "3"), ("a", "y", "4"), ("b", "", "5")]
        {
            kv.write(primary, secondary, key, vec![]).unwrap();
        }
        assert_eq!(kv.list("a", "x").unwrap(), ["2", "3"]);
        assert_eq!(kv.list("a", "").unwrap(), ["1"]);
        kv.remove("a", "x", "2", false).unwrap();
        assert_eq!(kv.list("a", "x").unwrap(), ["3"]);
        assert_eq!(kv.read("a", "x", "2").unwrap_err().kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn every_change_is_queued_in_order() {
        let queue = Arc::<CommitQueue>::default();
        let kv = BufferedKv::new(queue.clone(), []);
        kv.write("a", "", "k", vec![1]).unwrap();
        kv.write("a", "", "k", vec![2]).unwrap();
        kv.remove("a", "", "k", false).unwrap();
        kv.remove("a", "", "never", false).unwrap();
        let key = kv_key("a", "", "k");
        let want = [
            KvWrite::Put { key: key.clone(), value: vec![1] },
            KvWrite::Put { key: key.clone(), value: vec![2] },
            KvWrite::Remove { key },
        ];
        assert_eq!(queue.pending().kv, want);
    }
}
