//! LDK's signer traits over the Holdfast signer's gRPC: keys that are somewhere else.
//!
//! [`RemoteKeys`] stands where LDK's `KeysManager` would: it is an `EntropySource`, a `NodeSigner`, an `OutputSpender` and
//! a `SignerProvider` whose channel signers hold a channel's id and nothing secret. It works with any program built on
//! `lightning` 0.2; the example `invoice` is the smallest one.
//!
//! **What happens while the signer is away.** LDK calls its signers from synchronous code under its own locks, and an
//! `Err` means something else in every place: in some the channel waits, in some it is closed, in some LDK panics. So a
//! call blocks and is repeated until the signer answers; `Err` is only ever a rule's refusal. When the deadline passes, or
//! a newer term exists, [`ClientConfig::on_fatal`] is called, which must end the process: that loses nothing.
//!
//! **Whose thread.** The network runs on threads of its own, so calls may come from anywhere. From a worker of a
//! multi-threaded tokio runtime they go through `block_in_place`, so that other tasks move on.

mod channel;
mod ecdh;
mod grpc;
mod keys;
mod metrics;
mod points;
mod session;
mod signed;
mod transport;

pub use channel::RemoteChannelSigner;
pub use grpc::Grpc;
pub use keys::{DestinationSource, Destinations, RemoteKeys};
pub use metrics::Metrics;
pub use session::{ClientConfig, Fatal, Options, announce_term};
pub use transport::{EcdhAnswer, Transport};

pub use holdfast_proto::{error::Error, signer::v1, tls::Credentials};
