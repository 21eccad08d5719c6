//! A look at the embedded store that changes nothing, not even what an open for writing would.

use std::path::Path;

use redb::{Builder, DatabaseError, ReadableDatabase, ReadableTable};
use zeroize::Zeroizing;

use super::{
    embedded::RECORDS,
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

/// Verifies every record of the store at `path` under the node's key for them. None there is an error.
pub fn inspect(path: &Path, key: Zeroizing<[u8; 32]>) -> Result<Inspection, StoreError> {
    let unavailable = |error: redb::Error| StoreError::Unavailable(format!("{}: {error}", path.display()));
    let database = match Builder::new().open_read_only(path) {
        Ok(database) => database,
        Err(DatabaseError::DatabaseAlreadyOpen) => return Ok(Inspection::InUse),
        Err(DatabaseError::RepairAborted) => return Ok(Inspection::Unclean),
        Err(error) => return Err(unavailable(error.into())),
    };
    let sealer = Sealer::new(key)?;
    let read = || -> Result<Vec<(Vec<u8>, Vec<u8>)>, redb::Error> {
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
