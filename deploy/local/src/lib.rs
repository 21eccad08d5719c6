//! A whole deployment of Holdfast on one machine, from an empty folder: Postgres, a bitcoind in regtest, a SoftHSM
//! token, a PKI, the signer, replicas, and independent Lightning nodes to deal with.
//!
//! The demo and the integration tests stand on it. Every port is chosen free, every log is kept in `<folder>/logs`,
//! and everything started here ends when the process that started it ends, even by `kill -9`.
//!
//! ```no_run
//! # async fn story() -> anyhow::Result<()> {
//! let deployment = holdfast_local::Deployment::builder().replicas(2).counterparties(&["alice"]).start().await?;
//! let (leader, _) = deployment.leader().await?;
//! leader.kill()?;
//! deployment.leader().await?; // the other one
//! # Ok(())
//! # }
//! ```

pub mod bitcoind;
pub mod books;
pub mod counterparty;
pub mod deployment;
mod files;
pub mod haproxy;
pub mod load;
pub mod operator;
mod ours;
pub mod ports;
pub mod postgres;
pub mod process;
pub mod programs;
pub mod replica;
pub mod signer;
pub mod snapshot;
pub mod sockets;
pub mod softhsm;
pub mod tor;
pub mod wait;
pub mod web;

pub use bitcoind::Bitcoind;
pub use counterparty::{Counterparty, Outcome};
pub use deployment::{Builder, Deployment};
pub use operator::{Client, Operator};
pub use replica::Replica;
pub use signer::{Custody, Signer};
pub use wait::Probe;
