//! The replica: a Lightning node that keeps nothing on its own disk and no key in its own memory.
//!
//! One replica leads, the others stand by. What each part may touch:
//! - [`store`]: Postgres, in batches fenced by the leader's term;
//! - [`leader`]: who leads, and in which term;
//! - [`chain`]: bitcoind, fees, broadcasting, the watch-only wallet;
//! - [`lightning`]: all that touches LDK;
//! - [`net`]: connections to the world outside, direct or through Tor;
//! - [`api`]: operators' gRPC, health, metrics; [`cli`]: the command that calls it;
//! - [`replica`]: the life of one process, from standby to leader to its end.

pub mod api;
pub mod aside;
pub mod chain;
pub mod cli;
pub mod config;
mod feed;
pub mod leader;
pub mod lightning;
pub mod net;
pub mod operators;
pub mod replica;
pub mod store;
