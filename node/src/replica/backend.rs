//! What a replica answers operators and the status page.

use std::sync::{Arc, PoisonError};

use async_trait::async_trait;
use holdfast_proto::{error::Error, node::v1};

use super::{Replica, Role, network_name};
use crate::{
    api::{Backend, EventSource, Htlcs, NodeOps, Part, Watched},
    lightning::{
        channel_backup, peer_storage,
        records::{self, payment_message},
        recovery,
    },
    operators::Operators,
};

#[async_trait]
impl Backend for Replica {
    fn leading(&self) -> Option<Arc<dyn NodeOps>> {
        self.node().map(|node| node as Arc<dyn NodeOps>)
    }

    fn readiness(&self) -> Result<(), Vec<String>> {
        let health = self.health.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let named = [("postgres", health.postgres), ("signer", health.signer), ("bitcoind", health.bitcoind)];
        let away: Vec<String> = named.into_iter().filter_map(|(part, why)| Some(format!("{part}: {}", why?))).collect();
        if away.is_empty() { Ok(()) } else { Err(away) }
    }

    fn watched(&self) -> Watched {
        let health = self.health.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let away = [("postgres", health.postgres), ("signer", health.signer), ("bitcoind", health.bitcoind)];
        let parts = away.into_iter().zip(health.took).map(|((name, away), took)| Part { name, away, took });
        Watched {
            parts: parts.collect(),
            bitcoind_height: health.bitcoind_height,
            database_bytes: health.database_bytes,
            certificates_expire: Some(self.credentials.expires()),
        }
    }

    fn htlcs(&self) -> Option<Htlcs> {
        self.node().map(|node| node.htlcs())
    }

    async fn info(&self) -> Result<v1::GetInfoResponse, Error> {
        let mut info = v1::GetInfoResponse {
            network: network_name(self.config.network).into(),
            alias: self.config.alias.as_str().into(),
            version: env!("CARGO_PKG_VERSION").into(),
            replica: self.name.clone(),
            term: self.health.lock().unwrap_or_else(PoisonError::into_inner).term,
            ..Default::default()
        };
        let leading = match &*self.role.read().unwrap_or_else(PoisonError::into_inner) {
            Role::Leading { term, node } => Some((*term, node.clone())),
            Role::StandingBy => None,
        };
        match leading {
            Some((term, node)) => {
                info.is_leader = true;
                info.term = term;
                node.describe(&mut info);
            }
            None => {
                let node_id = *self.node_id.lock().unwrap_or_else(PoisonError::into_inner);
                info.node_id = node_id.map(hex::encode).unwrap_or_default();
            }
        }
        Ok(info)
    }

    async fn leader(&self) -> Result<v1::GetLeaderResponse, Error> {
        let view = self.reader.leadership(20).await?;
        let history = view.history.into_iter().map(|takeover| v1::Takeover {
            term: takeover.term,
            replica: takeover.replica,
            at_ms: takeover.at_ms,
            phases_us: takeover.phases_us.into_iter().collect(),
        });
        let (leader, api_address, since_ms) =
            view.leader.map(|leader| (leader.replica, leader.api_address, leader.since_ms)).unwrap_or_default();
        Ok(v1::GetLeaderResponse {
            term: view.term,
            is_this_replica: self.node().is_some(),
            leader,
            api_address,
            since_ms,
            history: history.collect(),
        })
    }

    async fn handover(&self) -> Result<v1::HandoverResponse, Error> {
        Ok(v1::HandoverResponse { term: self.hand_over().await? })
    }

    fn operators(&self) -> Arc<Operators> {
        self.operators.clone()
    }

    fn events(&self) -> Arc<dyn EventSource> {
        self.feed.clone()
    }

    async fn payment(&self, payment_hash: [u8; 32]) -> Result<Option<v1::Payment>, Error> {
        let Some(row) = self.reader.payment(payment_hash).await? else { return Ok(None) };
        let parts = self.reader.parts(row.payment_id, row.direction).await?;
        let parts = parts.into_iter().map(records::part_message).collect();
        Ok(Some(v1::Payment { parts, ..payment_message(row) }))
    }

    async fn payments(&self, limit: u32, before: Option<u64>) -> Result<Vec<v1::Payment>, Error> {
        Ok(self.reader.payments(limit, before).await?.into_iter().map(payment_message).collect())
    }

    async fn forwards(&self, request: v1::ListForwardsRequest) -> Result<v1::ListForwardsResponse, Error> {
        records::forwards(&self.reader, request).await
    }

    async fn channel_backup(&self) -> Result<v1::ChannelBackup, Error> {
        let Some((node_id, network)) = self.reader.node().await? else {
            return Err(Error::unavailable("the database belongs to no node yet"));
        };
        let mut stored = self.reader.records(channel_backup::NAMESPACE).await?;
        stored.extend(self.reader.records(peer_storage::NAMESPACE).await?);
        let channels = stored.into_iter().map(|(channel, bytes)| channel_backup::message(channel, &bytes));
        let mut channels: Vec<_> = channels.collect::<Result<_, _>>().map_err(Error::Internal)?;
        // Those that are being recovered are in no other list, unless a peer gave them back.
        for entry in recovery::unfinished(self.reader.records(recovery::NAMESPACE).await?) {
            if !channels.iter().any(|other: &v1::ChannelBackupEntry| other.channel_id == entry.channel_id) {
                channels.push(entry);
            }
        }
        Ok(v1::ChannelBackup { node_id: hex::encode(node_id), network, channels })
    }

    async fn offers(&self, limit: u32, before: Option<u64>) -> Result<Vec<v1::Offer>, Error> {
        Ok(self.reader.offers(limit, before).await?.into_iter().map(records::offer_message).collect())
    }
}
