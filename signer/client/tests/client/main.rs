//! `RemoteKeys` against the real signer: in process, and over gRPC and mutual TLS with the signer killed and restarted.

mod calls;
mod channel;
mod node;
mod outage;
mod signer;
