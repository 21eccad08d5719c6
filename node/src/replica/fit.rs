//! Whether the parts that answer belong together: signer, database and bitcoind of one node on one network.

use bitcoin::constants::genesis_block;

use super::{RETRY, Replica, ReplicaError, network_name};
use crate::store::postgres::StoreError;

impl Replica {
    /// Returns when the parts that answer turn out not to belong together. What is away is asked again until it is there.
    pub(super) async fn misfit(&self) -> ReplicaError {
        let fits = async {
            self.must_be_our_chain().await?;
            let info = loop {
                match self.ask_signer().await {
                    Ok(info) => break info,
                    Err(_) => tokio::time::sleep(RETRY).await,
                }
            };
            self.must_be_our_network(&info.network)?;
            let node = loop {
                match self.reader.node().await {
                    // A new database becomes ours when we lead.
                    Ok(node) => break node,
                    Err(_) => tokio::time::sleep(RETRY).await,
                }
            };
            match node {
                Some((node_id, network)) if node_id != *info.node_id || network != info.network => {
                    Err(ReplicaError::Store(StoreError::OtherNode {
                        found: hex::encode(node_id),
                        found_network: network,
                        expected: hex::encode(&info.node_id),
                        expected_network: info.network,
                    }))
                }
                _ => Ok(()),
            }
        };
        match fits.await {
            Err(misfit) => misfit,
            Ok(()) => std::future::pending().await,
        }
    }

    pub(super) fn must_be_our_network(&self, signers: &str) -> Result<(), ReplicaError> {
        match signers == network_name(self.config.network) {
            true => Ok(()),
            false => Err(ReplicaError::SignerNetwork { signers: signers.to_owned(), ours: self.config.network }),
        }
    }

    pub(super) async fn must_be_our_chain(&self) -> Result<(), ReplicaError> {
        let ours = genesis_block(self.config.network).block_hash();
        loop {
            match self.bitcoind.genesis().await {
                Ok(genesis) if genesis == ours => return Ok(()),
                Ok(_) => return Err(ReplicaError::WrongChain(self.config.network)),
                Err(error) => {
                    // The log has it from the one who keeps us warm.
                    tracing::debug!(%error, "waiting for bitcoind");
                    tokio::time::sleep(RETRY).await;
                }
            }
        }
    }
}
