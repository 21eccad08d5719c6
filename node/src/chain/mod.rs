//! The chain as a replica sees it: bitcoind over RPC, fee rates, broadcasting, headers, and the watch-only wallet.
//!
//! Nothing in here treats an unreachable bitcoind as an error of the node: callers wait and ask again.

pub mod bitcoind;
pub mod blocks;
pub mod broadcast;
pub mod coins;
pub mod deposits;
pub mod fees;
pub mod headers;
pub mod journal;
pub mod spend;
pub mod wallet;

pub use bitcoind::{Bitcoind, BitcoindAuth};
pub use blocks::{BlockCache, CachedBlocks};
pub use broadcast::Outbox;
pub use fees::FeeEstimates;
pub use headers::HeaderCache;
pub use wallet::{Destinations, Wallet};
