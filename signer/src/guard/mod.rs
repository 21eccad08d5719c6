//! The durable record of what was signed, validated and revoked, channel by channel.
//!
//! [`machine`] decides, over the plain data of [`state`]; a [`GuardStore`] keeps; [`Guard`] joins the two: it makes a
//! change durable before anyone learns of it. Channels proceed in parallel, and one flush carries many of them.

mod bytes;
mod embedded;
mod inspect;
pub mod machine;
mod record;
mod secrets;
pub mod state;
mod store;

#[cfg(test)]
mod tests;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard},
};

pub use bytes::{Bytes, Digest, Point, TxId};
pub use embedded::EmbeddedStore;
use holdfast_proto::{
    error::Error,
    identity::{Identity, Role},
};
pub use inspect::{Inspection, inspect};
use record::Sealer;
pub use record::TermState;
use serde::{Serialize, de::DeserializeOwned};
pub use store::{GuardStore, Name, StoreError, Write};
use zeroize::Zeroizing;

use self::{
    machine::{Request, Verdict, decide},
    state::ChannelState,
};

/// A takeover raises the term by one, and a signer misses only the takeovers that happened without it. Without a limit,
/// one call with the largest number would leave no term for any other replica, for ever.
const MAX_TERM_STEP: u64 = 1_000_000;

/// The guard of one node.
pub struct Guard {
    store: Arc<dyn GuardStore>,
    sealer: Sealer,
    term: RwLock<Kept<TermState>>,
    channels: RwLock<HashMap<[u8; 32], ChannelRecord>>,
}

/// Its lock is held while the channel's next state is decided and written, so that one channel's requests take turns.
type ChannelRecord = Arc<Mutex<Kept<ChannelState>>>;

/// A record in memory.
#[derive(Default)]
struct Kept<T> {
    version: u64,
    content: T,
    /// A write failed, so the store may hold the next version already: read it before anything else.
    uncertain: bool,
}

/// Held while a request of the newest term is answered; the term cannot rise meanwhile.
pub struct Fence<'a> {
    _term: RwLockReadGuard<'a, Kept<TermState>>,
}

impl Guard {
    /// Loads every record. One that is not authentic is an error.
    pub fn open(store: Arc<dyn GuardStore>, key: Zeroizing<[u8; 32]>) -> Result<Self, StoreError> {
        let sealer = Sealer::new(key)?;
        let mut term = Kept::default();
        let mut channels = HashMap::new();
        for (name, record) in store.load()? {
            match name {
                Name::Term => term = Kept::opened(&sealer, &name, &record)?,
                Name::Channel(keys_id) => {
                    let channel = Kept::opened(&sealer, &name, &record)?;
                    channels.insert(keys_id, Arc::new(Mutex::new(channel)));
                }
            }
        }
        Ok(Self { store, sealer, term: RwLock::new(term), channels: RwLock::new(channels) })
    }

    pub fn newest_term(&self) -> u64 {
        self.term.read().unwrap_or_else(PoisonError::into_inner).content.newest
    }

    pub fn channel_count(&self) -> usize {
        self.channels.read().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// Raises the newest term to `term`, for `replica` alone; durable when this returns. Waits for the requests of the
    /// old term that are being answered. The same replica may say so again.
    pub fn announce(&self, replica: &Identity, term: u64) -> Result<u64, Error> {
        if term == 0 {
            return Err(Error::misuse("term", "terms count from 1"));
        }
        let mut kept = self.term.write().unwrap_or_else(PoisonError::into_inner);
        kept.refresh(&*self.store, &self.sealer, &Name::Term)?;
        let announced_by = replica.to_string();
        let newest = kept.content.newest;
        if term == newest && kept.content.announced_by == announced_by {
            return Ok(newest);
        }
        if term <= newest {
            return Err(Error::StaleTerm { newest });
        }
        if term - newest > MAX_TERM_STEP {
            return Err(Error::misuse("term", format!("{term} is too far beyond the newest, {newest}")));
        }
        kept.put(&*self.store, &self.sealer, Name::Term, TermState { newest: term, announced_by })?;
        Ok(term)
    }

    /// Lets a request of the newest term pass, and no other. A replica's must be the one that announced it.
    pub fn fence(&self, caller: &Identity, term: u64) -> Result<Fence<'_>, Error> {
        let kept = self.term.read().unwrap_or_else(PoisonError::into_inner);
        let newest = kept.content.newest;
        if term == 0 || term > newest {
            return Err(Error::misuse("term", format!("{term} was never announced")));
        }
        let leads = caller.role != Role::Replica || caller.to_string() == kept.content.announced_by;
        if term < newest || !leads {
            return Err(Error::StaleTerm { newest });
        }
        Ok(Fence { _term: kept })
    }

    /// What is recorded of a channel.
    pub fn state(&self, keys_id: &[u8; 32]) -> Result<ChannelState, Error> {
        match self.channel(keys_id) {
            Some(channel) => Ok(self.current(&channel, keys_id)?.content.clone()),
            None => Ok(ChannelState::default()),
        }
    }

    /// Decides `request`, and makes what it changes durable. When this returns, the question may be answered.
    pub fn permit(&self, keys_id: &[u8; 32], request: &Request) -> Result<(), Error> {
        self.permit_with(keys_id, |_| Ok(request.clone()))
    }

    /// As `permit`, for a request that depends on what is recorded.
    pub fn permit_with(
        &self,
        keys_id: &[u8; 32],
        request: impl Fn(&ChannelState) -> Result<Request, Error>,
    ) -> Result<(), Error> {
        let channel = match self.channel(keys_id) {
            Some(channel) => channel,
            None => {
                // Only what is permitted makes a channel known: questions do not fill the memory.
                let unknown = ChannelState::default();
                if decide(&unknown, &request(&unknown)?)? == Verdict::Same {
                    return Ok(());
                }
                let mut channels = self.channels.write().unwrap_or_else(PoisonError::into_inner);
                Arc::clone(channels.entry(*keys_id).or_default())
            }
        };
        let mut kept = self.current(&channel, keys_id)?;
        match decide(&kept.content, &request(&kept.content)?)? {
            Verdict::Same => Ok(()),
            Verdict::Next(next) => Ok(kept.put(&*self.store, &self.sealer, Name::Channel(*keys_id), *next)?),
        }
    }

    fn channel(&self, keys_id: &[u8; 32]) -> Option<ChannelRecord> {
        self.channels.read().unwrap_or_else(PoisonError::into_inner).get(keys_id).cloned()
    }

    fn current<'a>(
        &self,
        channel: &'a Mutex<Kept<ChannelState>>,
        keys_id: &[u8; 32],
    ) -> Result<MutexGuard<'a, Kept<ChannelState>>, StoreError> {
        let mut kept = channel.lock().unwrap_or_else(PoisonError::into_inner);
        kept.refresh(&*self.store, &self.sealer, &Name::Channel(*keys_id))?;
        Ok(kept)
    }
}

impl<T: Serialize + DeserializeOwned + Default> Kept<T> {
    fn opened(sealer: &Sealer, name: &Name, record: &[u8]) -> Result<Self, StoreError> {
        let (version, content) = sealer.open(name, record)?;
        Ok(Self { version, content, uncertain: false })
    }

    /// Reads the record again if the last write failed.
    fn refresh(&mut self, store: &dyn GuardStore, sealer: &Sealer, name: &Name) -> Result<(), StoreError> {
        if self.uncertain {
            let known = self.version;
            *self = match store.get(name)? {
                Some(record) => match Self::opened(sealer, name, &record)? {
                    older if older.version < known => {
                        return Err(StoreError::Damaged(format!("{name}: went back to version {}", older.version)));
                    }
                    record => record,
                },
                None if self.version == 0 => Self::default(),
                None => return Err(StoreError::Damaged(format!("{name}: is gone"))),
            };
        }
        Ok(())
    }

    /// Makes `content` durable, then current. When that fails, what was current stays so.
    fn put(&mut self, store: &dyn GuardStore, sealer: &Sealer, name: Name, content: T) -> Result<(), StoreError> {
        let version = self.version + 1;
        let record = sealer.seal(&name, version, &content)?;
        self.uncertain = true;
        store.put(Write { name, previous: self.version, version, record })?;
        *self = Self { version, content, uncertain: false };
        Ok(())
    }
}
