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

/// `holdfast.signer.v1`: what a replica asks of the signer, and the error detail of both services.
pub mod signer {
    #[allow(clippy::all, missing_docs)]
    pub mod v1 {
        tonic::include_proto!("holdfast.signer.v1");
    }
}

/// `holdfast.node.v1`: the operator's API.
pub mod node {
    #[allow(clippy::all, missing_docs)]
    pub mod v1 {
        tonic::include_proto!("holdfast.node.v1");
    }
}
