//! Where records lie. A store keeps bytes under names and compares versions; it knows nothing of what they mean.

use std::fmt;

use holdfast_proto::error::Error;

/// Durable records by name. Every call may block.
pub trait GuardStore: Send + Sync {
    /// Every record there is.
    fn load(&self) -> Result<Vec<(Name, Vec<u8>)>, StoreError>;
    fn get(&self, name: &Name) -> Result<Option<Vec<u8>>, StoreError>;
    /// Replaces version `previous` (0: none) of a record. It has survived a loss of power when this returns.
    /// After an error it may or may not have been written: read it again.
    fn put(&self, write: Write) -> Result<(), StoreError>;
}

/// One record to write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Write {
    pub name: Name,
    pub previous: u64,
    pub version: u64,
    pub record: Vec<u8>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Name {
    Term,
    /// By `channel_keys_id`.
    Channel([u8; 32]),
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    #[error("guard store: {0}")]
    Unavailable(String),
    /// The version to be replaced is not the one that is there.
    #[error("guard store: {name} has version {found}, not {expected}")]
    Conflict { name: Name, expected: u64, found: u64 },
    #[error("guard record {0}")]
    Damaged(String),
}

impl From<StoreError> for Error {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Unavailable(_) | StoreError::Conflict { .. } => Error::unavailable(error.to_string()),
            StoreError::Damaged(_) => Error::Internal(error.to_string()),
        }
    }
}

impl Name {
    /// The name as stores keep it.
    pub fn key(&self) -> Vec<u8> {
        match self {
            Self::Term => b"term".to_vec(),
            Self::Channel(keys_id) => [b"channel/".as_slice(), keys_id].concat(),
        }
    }

    pub fn from_key(key: &[u8]) -> Result<Self, StoreError> {
        if key == b"term" {
            return Ok(Self::Term);
        }
        key.strip_prefix(b"channel/")
            .and_then(|keys_id| keys_id.try_into().ok())
            .map(Self::Channel)
            .ok_or_else(|| StoreError::Damaged(format!("{}: has no such name", hex::encode(key))))
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Term => f.write_str("term"),
            Self::Channel(keys_id) => write!(f, "channel/{}", hex::encode(keys_id)),
        }
    }
}
