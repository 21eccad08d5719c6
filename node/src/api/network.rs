//! What the leader knows of the network.

use async_trait::async_trait;
use holdfast_proto::{error::Error, node::v1};

/// Questions only: nothing is sent, nothing changes.
#[async_trait]
pub trait NetworkOps: Send + Sync {
    async fn describe_graph(&self, request: v1::DescribeGraphRequest) -> Result<v1::DescribeGraphResponse, Error>;
    async fn find_route(&self, request: v1::FindRouteRequest) -> Result<v1::FindRouteResponse, Error>;
}

#[cfg(test)]
mod fake {
    use super::{super::testing::FakeNode, *};

    #[async_trait]
    impl NetworkOps for FakeNode {
        /// Three pages of one channel each.
        async fn describe_graph(&self, q: v1::DescribeGraphRequest) -> Result<v1::DescribeGraphResponse, Error> {
            self.note(format!("graph {} {} {}", q.node_id, q.limit, q.after));
            let page: u32 = q.after.parse().unwrap_or(0);
            let policy = v1::GraphPolicy { is_enabled: true, base_fee_msat: 1000, fee_ppm: 10, ..Default::default() };
            let channel = v1::GraphChannel {
                short_channel_id: format!("{page}x1x0"),
                node_1: "02".repeat(33),
                node_2: "03".repeat(33),
                capacity_sat: Some(70_000),
                policy_1: Some(policy),
                policy_2: None,
            };
            let node = v1::GraphNode { node_id: "02".repeat(33), alias: "alice".into(), ..Default::default() };
            Ok(v1::DescribeGraphResponse {
                nodes: if page == 0 { vec![node] } else { vec![] },
                channels: vec![channel],
                next: if page < 2 { (page + 1).to_string() } else { String::new() },
                node_count: 1,
                channel_count: 3,
            })
        }

        async fn find_route(&self, q: v1::FindRouteRequest) -> Result<v1::FindRouteResponse, Error> {
            self.note(format!(
                "route {} {} {:?} {} {} {}",
                q.node_id, q.amount_msat, q.max_fee_msat, q.max_hops, q.max_cltv_delta, q.max_parts
            ));
            if q.max_fee_msat == Some(0) {
                return Ok(v1::FindRouteResponse { failure: "it costs 7 msat".into(), ..Default::default() });
            }
            let hop = v1::RouteHop {
                node_id: q.node_id,
                channel: "1x2x3".into(),
                amount_msat: q.amount_msat,
                ..Default::default()
            };
            let part = v1::RoutePart { amount_msat: q.amount_msat, fee_msat: 7, cltv_delta: 80, hops: vec![hop] };
            Ok(v1::FindRouteResponse {
                found: true,
                fee_msat: 7,
                cltv_delta: 80,
                parts: vec![part],
                ..Default::default()
            })
        }
    }
}
