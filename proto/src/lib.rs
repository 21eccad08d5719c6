//! The contract between Holdfast's parts: generated messages, typed errors, identities, mutual TLS.

pub mod error;
pub mod host;
pub mod identity;
pub mod lightning;
#[cfg(feature = "manual")]
pub mod manual;
pub mod outage;
pub mod pki;
mod redact;
pub mod strangers;
#[cfg(feature = "telemetry")]
pub mod telemetry;
pub mod tls;
pub mod trace;

use bitcoin::hashes::{Hash, HashEngine, sha256};
/// What all generated messages are.
pub use prost::Message;

/// `holdfast.signer.v1`: what a replica asks of the signer, and the error detail of both services.
pub mod signer {
    #[allow(clippy::all, missing_docs)]
    pub mod v1 {
        tonic::include_proto!("holdfast.signer.v1");
    }
}

/// SHA-256 of a call's name and of its request as it goes over the wire. The same call with the same request has the same.
pub fn call_digest(call: &str, request: &impl Message) -> sha256::Hash {
    let mut engine = sha256::Hash::engine();
    engine.input(sha256::Hash::hash(call.as_bytes()).as_byte_array());
    engine.input(&zeroize::Zeroizing::new(request.encode_to_vec()));
    sha256::Hash::from_engine(engine)
}

/// `holdfast.node.v1`: the operator's API.
pub mod node {
    #[allow(clippy::all, missing_docs)]
    pub mod v1 {
        tonic::include_proto!("holdfast.node.v1");
    }
}
