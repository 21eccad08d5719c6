//! A look at the embedded store that changes nothing, not even what an open for writing would.

use std::path::Path;

use redb::{Builder, DatabaseError, ReadableDatabase, ReadableTable};
use zeroize::Zeroizing;

use super::{
    embedded::{RECORDS, not_opened},
    record::{Sealer, TermState},
    state::ChannelState,
    store::{Name, StoreError},
};

/// What a look at the guard's store found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Inspection {
    /// Every record is authentic.
    Verified { channels: usize, newest_term: u64 },
    /// A signer is running on it: only that one can say what is in it.
    InUse,
    /// The signer did not end in an orderly way; its next start mends the file, and checks every record.
    Unclean,
}

/// A record's key, and the record.
type Entry = (Vec<u8>, Vec<u8>);

/// Verifies every record of the store at `path` under the node's key for them. None there is an error.
pub fn inspect(path: &Path, key: Zeroizing<[u8; 32]>) -> Result<Inspection, StoreError> {
    let unavailable = |error: redb::Error| StoreError::Unavailable(format!("{}: {error}", path.display()));
    let database = match Builder::new().open_read_only(path) {
        Ok(database) => database,
        Err(DatabaseError::DatabaseAlreadyOpen) => return Ok(Inspection::InUse),
        Err(DatabaseError::RepairAborted) => return Ok(Inspection::Unclean),
        Err(error) => return Err(not_opened(path, error)),
    };
    let sealer = Sealer::new(key)?;
    let read = || -> Result<Vec<Entry>, redb::Error> {
        let table = database.begin_read()?.open_table(RECORDS)?;
        let entries = table.iter()?.map(|entry| {
            let (key, value) = entry?;
            Ok((key.value().to_vec(), value.value().1.to_vec()))
        });
        entries.collect()
    };
    let (mut channels, mut newest_term) = (0, 0);
    for (key, record) in read().map_err(unavailable)? {
        match Name::from_key(&key)? {
            name @ Name::Term => newest_term = sealer.open::<TermState>(&name, &record)?.1.newest,
            name @ Name::Channel(_) => {
                sealer.open::<ChannelState>(&name, &record)?;
                channels += 1;
            }
        }
    }
    if newest_term == 0 && channels > 0 {
        // As at the signer's start.
        return Err(StoreError::Damaged("term: is gone".into()));
    }
    Ok(Inspection::Verified { channels, newest_term })
}

#[cfg(test)]
mod tests {
    use std::{fs, sync::Arc};

    use holdfast_proto::identity::{Identity, Role};

    use super::*;
    use crate::guard::{EmbeddedStore, Guard, GuardStore, Write};

    fn key(byte: u8) -> Zeroizing<[u8; 32]> {
        Zeroizing::new([byte; 32])
    }

    fn channel(store: &EmbeddedStore, byte: u8) {
        let name = Name::Channel([byte; 32]);
        let record = Sealer::new(key(7)).unwrap().seal(&name, 1, &ChannelState::default()).unwrap();
        store.put(Write { name, previous: 0, version: 1, record }).unwrap();
    }

    #[test]
    fn every_record_is_verified_under_the_nodes_key_and_nothing_is_written() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("guard.redb");
        let why = inspect(&path, key(7)).unwrap_err().to_string();
        assert!(why.contains("never put an old copy in its place"), "{why}");
        assert!(!path.exists());

        let store = EmbeddedStore::create(&path).unwrap();
        channel(&store, 1);
        channel(&store, 2);
        let guard = Guard::open(Arc::new(store), key(7)).unwrap();
        guard.announce(&Identity::new("test", Role::Replica, "a").unwrap(), 7).unwrap();
        assert_eq!(inspect(&path, key(7)), Ok(Inspection::InUse));
        drop(guard);

        let before = fs::read(&path).unwrap();
        assert_eq!(inspect(&path, key(7)), Ok(Inspection::Verified { channels: 2, newest_term: 7 }));
        assert!(matches!(inspect(&path, key(8)), Err(StoreError::Damaged(_))));
        assert!(before == fs::read(&path).unwrap());

        fs::write(&path, b"no store").unwrap();
        assert!(matches!(inspect(&path, key(7)), Err(StoreError::Unavailable(_))));
    }

    #[test]
    fn channels_without_a_term_are_damage() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("guard.redb");
        channel(&EmbeddedStore::create(&path).unwrap(), 1);
        assert_eq!(inspect(&path, key(7)), Err(StoreError::Damaged("term: is gone".into())));
    }
}
