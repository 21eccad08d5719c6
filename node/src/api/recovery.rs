//! Getting back what is left of channels whose state is lost.

use async_trait::async_trait;
use holdfast_proto::{error::Error, node::v1};

#[async_trait]
pub trait RecoveryOps: Send + Sync {
    /// Returns after the commit of what is to be recovered.
    async fn recover_channels(&self, request: v1::RecoverChannelsRequest)
    -> Result<v1::RecoverChannelsResponse, Error>;

    /// How far each recovery is, by channel id.
    async fn channel_recoveries(&self) -> Result<Vec<v1::ChannelRecovery>, Error>;
}

#[cfg(test)]
mod fake {
    use super::{super::testing::FakeNode, *};

    #[async_trait]
    impl RecoveryOps for FakeNode {
        /// Refuses channels that begin with `ee`.
        async fn recover_channels(&self, q: v1::RecoverChannelsRequest) -> Result<v1::RecoverChannelsResponse, Error> {
            self.note(format!("recover {} {} {} {}", q.node_id, q.network, q.channels.len(), q.from_height));
            let state = |id: &str| if id.starts_with("ee") { "refused" } else { "waiting" };
            let channels = q.channels.into_iter().map(|entry| v1::ChannelRecovery {
                state: state(&entry.channel_id).into(),
                detail: format!("of {} sat", entry.capacity_sat),
                channel_id: entry.channel_id,
                ..Default::default()
            });
            Ok(v1::RecoverChannelsResponse { channels: channels.collect() })
        }

        async fn channel_recoveries(&self) -> Result<Vec<v1::ChannelRecovery>, Error> {
            Ok(vec![v1::ChannelRecovery {
                channel_id: "cd".repeat(32),
                counterparty: "02".repeat(33),
                capacity_sat: 100_000,
                state: "recovered".into(),
                detail: "what was ours is in the wallet".into(),
                closing_txid: "ab".repeat(32),
                closing_height: 17,
                ours_sat: 60_000,
                ..Default::default()
            }])
        }
    }
}
