//! The store in Postgres.
//!
//! - [`PgStore`] is the leader's: it commits batches while its term is the newest, and loads the node.
//! - [`PgReader`] answers queries, from any replica and any server, hot standbys included.
//! - The schema and what it means are in `migrations/`.

mod chunks;
mod commit;
mod config;
mod deposits;
mod events;
mod forwards;
mod known;
mod load;
pub(crate) mod migrate;
mod payments;
mod read;
mod rows;
pub(crate) mod session;

pub use commit::{NodeIdentity, PgStore, StoreStats};
pub use config::{PgConfig, PgConfigError, PgTls};
pub use events::{EventRow, EventSpan};
pub use forwards::{ForwardFilter, ForwardRow, ForwardTotals};
pub use payments::{KeyRow, OfferRow, PartRow, PaymentRow};
pub use read::{ChannelRow, ChannelState, LeaderRow, LeadershipView, PeerRow, PgReader, ReadError, TakeoverRow};
pub(crate) use rows::storable;

/// Why the leader's store cannot be opened or loaded. A server that is away is none of these: it is waited for.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("fenced: this replica's term {ours} is over, the newest is {newest}")]
    Fenced { ours: u64, newest: u64 },
    #[error("this database belongs to node {found} on {found_network}, not to {expected} on {expected_network}")]
    OtherNode { found: String, found_network: String, expected: String, expected_network: String },
    #[error("the database's schema is version {database}, newer than this program's {program}: run a newer program")]
    SchemaTooNew { database: i32, program: i32 },
    /// A part of an existing node is not there or not what was written. Nothing is made anew in its place.
    #[error("the stored node is damaged: {0}")]
    Damaged(String),
    #[error("the store does not understand the database: {0}")]
    Broken(String),
}

/// Postgres has no unsigned integers; a value beyond its range is a bug, never cut off.
pub(crate) fn to_bigint(name: &str, value: u64) -> Result<i64, String> {
    i64::try_from(value).map_err(|_| format!("{name} {value} is beyond 2^63 - 1"))
}

/// Of a column that a CHECK keeps from being negative.
pub(crate) fn from_bigint(value: i64) -> u64 {
    u64::try_from(value).unwrap_or(0)
}
