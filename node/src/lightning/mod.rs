//! All that touches LDK.
//!
//! The core is the commit loop ([`commit`]) and what it orders: monitor writes ([`persist`]), small records ([`kv`]),
//! transactions ([`broadcast`]) and messages ([`gate`]) are pushed onto one [`queue`], go to the store in one batch with
//! the manager, and take effect outside only after that. [`load`] is the way back after a crash, and [`closing`] is what
//! a cooperative close needs to survive one.

pub mod acceptance;
pub mod admission;
mod asked_invoices;
mod assemble;
mod background;
pub mod broadcast;
mod bucket;
pub mod channel_backup;
mod channels;
pub mod claimable;
mod closes;
pub mod closing;
pub mod commit;
pub mod events;
pub mod forwards;
pub mod funding;
pub mod gate;
pub mod gossip;
mod graph;
pub mod holds;
mod inbound;
mod invoices;
mod keyed;
pub mod kv;
mod labels;
mod limits;
pub mod load;
pub mod logger;
mod mempool;
mod messages;
pub mod metrics;
pub mod node;
mod node_ops;
pub mod offers;
pub mod onion_pace;
mod opens;
pub mod own_gossip;
mod pace;
pub mod payments;
pub mod peer_storage;
mod peering;
pub mod peers;
pub mod persist;
mod phases;
mod policies;
pub mod probes;
pub mod queue;
pub mod rapid_gossip;
pub mod received;
pub mod records;
pub mod recovery;
pub mod resume;
mod routes;
mod send_once;
pub mod settings;
pub mod settled;
mod settling;
mod shutdown;
pub mod signing_wallet;
mod splicing;
mod startup;
mod trace;
pub mod types;
mod wallet_ops;

pub use assemble::{Assembled, NodeCommitter, Parts, StartError};
pub use broadcast::BufferedBroadcaster;
pub use closing::ClosingWatch;
pub use commit::{Committer, LdkMachine, Machine, Taken};
pub use gate::{GateHooks, MessageGate};
pub use kv::BufferedKv;
pub use node::LightningNode;
pub use persist::BufferedPersister;
pub use phases::Phases;
pub use queue::CommitQueue;
