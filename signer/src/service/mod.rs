//! The signer's calls: authenticate, authorise, rules, guard, sign, audit.
//!
//! [`SignerCore`] answers every RPC of the contract as a plain method that may block; [`serve`] puts it on the network.

mod answer;
mod channel;
mod claims;
mod commitments;
mod door;
mod grpc;
mod metrics;
mod node;
mod self_test;
mod status;
mod wallet;

#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, RwLock},
    time::SystemTime,
};

use bitcoin::Network;
pub use grpc::serve;
use holdfast_proto::{error::Error, outage::Outage};

use self::{channel::Channel, metrics::Metrics, self_test::Readiness};
use crate::{
    custody::{Custody, CustodyError, NodeIdentity},
    guard::{Guard, GuardStore, StoreError},
    keys::NodeKeys,
    rules::{Call, RulesConfig},
};

/// Every call of the signer, without a network. Shared by threads; calls for different channels do not wait for each other.
pub struct SignerCore {
    custody: Arc<dyn Custody>,
    identity: Arc<dyn NodeIdentity>,
    network: Network,
    rules: RulesConfig,
    keys: NodeKeys,
    guard: Guard,
    channels: RwLock<HashMap<[u8; 32], Arc<Channel>>>,
    metrics: Metrics,
    readiness: Readiness,
    /// Calls that fail, so that each kind is told now and then.
    failing: Mutex<BTreeMap<Call, Outage>>,
}

/// Why the signer cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("custody: {0}")]
    Custody(#[from] CustodyError),
    #[error(transparent)]
    Guard(#[from] StoreError),
}

impl SignerCore {
    /// Unseals the seed, loads the guard's records and tests custody once; the result of that is the first readiness.
    pub fn new(
        custody: Arc<dyn Custody>,
        network: Network,
        guard: Arc<dyn GuardStore>,
        rules: RulesConfig,
    ) -> Result<Self, StartError> {
        let keys = NodeKeys::new(custody.unseal()?, network)?;
        let guard = Guard::open(guard, keys.guard_records_key().clone())?;
        if guard.newest_term() == 0 && guard.channel_count() > 0 {
            // No channel is recorded before a term is: the record was taken away, and an old leader could announce again.
            return Err(StoreError::Damaged("term: is gone".into()).into());
        }
        let core = Self {
            identity: custody.identity(),
            custody,
            network,
            rules,
            keys,
            guard,
            channels: RwLock::new(HashMap::new()),
            metrics: Metrics::new(),
            readiness: Readiness::default(),
            failing: Mutex::default(),
        };
        core.self_test();
        Ok(core)
    }

    /// The metrics in the text format of OpenMetrics. `certificates_expire` is the server's to know.
    pub fn metrics_text(&self, certificates_expire: SystemTime) -> String {
        let (term, channels) = (self.guard.newest_term(), self.guard.channel_count());
        self.metrics.text(term, channels, self.not_ready().is_none(), certificates_expire)
    }
}

fn from_custody(error: CustodyError) -> Error {
    match error {
        CustodyError::Unavailable(what) => Error::unavailable(what),
        CustodyError::Wrong(what) => Error::Internal(format!("custody: {what}")),
    }
}

fn network_name(network: Network) -> &'static str {
    match network {
        Network::Bitcoin => "bitcoin",
        Network::Testnet => "testnet",
        Network::Testnet4 => "testnet4",
        Network::Signet => "signet",
        Network::Regtest => "regtest",
    }
}
