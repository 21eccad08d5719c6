//! What a replica keeps, and the one way to keep it: batches, each committed whole or not at all.
//!
//! [`Batch`] is plain data. [`Store`] is what the commit loop needs of a store; Postgres is the real one, and the crash
//! harness has one in memory that can be cut off at every step.

pub mod batch;
pub mod measured;
pub mod postgres;

pub use batch::{Batch, Effect, KvKey, KvWrite, MonitorKey, MonitorWrite};

/// Why a batch was not committed. Everything else (a lost connection, a serialisation failure, a deadlock, a missing
/// synchronous standby) is retried inside the store until it is one of these.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CommitError {
    /// Another term leads. This process must stop before it writes, signs or sends anything more.
    #[error("fenced: this replica's term {ours} is over, the newest is {newest}")]
    Fenced { ours: u64, newest: u64 },
    /// The store can never take this batch (a schema of another version, a value out of range): a bug.
    #[error("the store refused a batch: {0}")]
    Broken(String),
}

/// Where batches go. `commit` returns only when the batch is durable (or can never be).
#[async_trait::async_trait]
pub trait Store: Send + Sync {
    async fn commit(&self, batch: &Batch) -> Result<(), CommitError>;
}

/// All that a replica needs to start its node, as of the last commit.
#[derive(Debug, Default)]
pub struct Loaded {
    /// The encoded `ChannelManager`; absent before the first commit of a new node.
    pub manager: Option<Vec<u8>>,
    pub monitors: Vec<LoadedMonitor>,
    /// Everything written with [`KvWrite`].
    pub kv: std::collections::HashMap<KvKey, Vec<u8>>,
    /// The deposits that may still change, and those of the last blocks.
    pub deposits: Vec<batch::Deposit>,
}

/// One channel's monitor: the last full encoding and the updates that came after it, in order.
#[derive(Debug)]
pub struct LoadedMonitor {
    pub key: MonitorKey,
    pub full: Vec<u8>,
    pub updates: Vec<(u64, Vec<u8>)>,
}
