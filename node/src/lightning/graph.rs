//! The network graph as operators see it, a page at a time.

use std::str::FromStr;

use bitcoin::secp256k1::PublicKey;
use holdfast_proto::{error::Error, node::v1};
use lightning::routing::gossip::{
    ChannelInfo, ChannelUpdateInfo, NodeAnnouncementInfo, NodeId, NodeInfo, ReadOnlyNetworkGraph,
};

use super::{channels::scid_text, peers::MOST_ANNOUNCED};

/// Entries on a page unless the caller says otherwise, and at most: an answer stays below gRPC's limit of 4 MB.
const PAGE: usize = 100;
const LARGEST_PAGE: usize = 1000;

/// Where a page ends. Nodes come first, by id; then channels, by short channel id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cursor {
    Start,
    Node(NodeId),
    Channel(u64),
}

/// One page of the graph, or of what it knows of one node.
pub(super) fn describe(
    graph: &ReadOnlyNetworkGraph<'_>,
    request: &v1::DescribeGraphRequest,
) -> Result<v1::DescribeGraphResponse, Error> {
    let only = match request.node_id.as_str() {
        "" => None,
        text => Some(node_id(text)?),
    };
    if let Some(id) = only.filter(|id| graph.node(id).is_none()) {
        return Err(Error::misuse("node_id", format!("the graph knows no node {id}")));
    }
    let after = Cursor::parse(&request.after)?;
    let room = match usize::try_from(request.limit).unwrap_or(LARGEST_PAGE) {
        0 => PAGE,
        limit => limit.min(LARGEST_PAGE),
    };

    let wanted = |id: &NodeId| only.is_none_or(|only| only == *id);
    let node_ids = match after {
        Cursor::Start => smallest(graph.nodes().unordered_keys().copied().filter(wanted), room + 1),
        Cursor::Node(last) => {
            smallest(graph.nodes().unordered_keys().copied().filter(wanted).filter(|id| *id > last), room + 1)
        }
        Cursor::Channel(_) => Vec::new(),
    };
    let from = match after {
        Cursor::Channel(last) => Some(last),
        _ => None,
    };
    let later = |scid: &u64| from.is_none_or(|last| *scid > last);
    // One more than there is room for, to know whether there is more.
    let left = (room + 1).saturating_sub(node_ids.len());
    let scids = match only.and_then(|id| graph.node(&id)) {
        Some(node) => smallest(node.channels.iter().copied().filter(later), left),
        None => smallest(graph.channels().unordered_keys().copied().filter(later), left),
    };

    let more = node_ids.len() + scids.len() > room;
    let nodes: Vec<_> = node_ids.into_iter().take(room).collect();
    let channels: Vec<_> = scids.into_iter().take(room - nodes.len()).collect();
    let last = match (channels.last(), nodes.last()) {
        (Some(scid), _) => Cursor::Channel(*scid),
        (None, Some(id)) => Cursor::Node(*id),
        (None, None) => Cursor::Start,
    };
    Ok(v1::DescribeGraphResponse {
        nodes: nodes.iter().filter_map(|id| Some(node(id, graph.node(id)?))).collect(),
        channels: channels.iter().filter_map(|scid| Some(channel(*scid, graph.channel(*scid)?))).collect(),
        next: if more { last.to_string() } else { String::new() },
        node_count: count(graph.nodes().len()),
        channel_count: count(graph.channels().len()),
    })
}

/// Whether the graph can lead to the node, and how much of it there is.
pub(super) fn knows(graph: &ReadOnlyNetworkGraph<'_>, node: &PublicKey) -> bool {
    graph.node(&NodeId::from_pubkey(node)).is_some_and(|node| !node.channels.is_empty())
}

fn node(id: &NodeId, info: &NodeInfo) -> v1::GraphNode {
    let announced = info.announcement_info.as_ref();
    v1::GraphNode {
        node_id: id.to_string(),
        // Its display takes out what would play tricks with a terminal.
        alias: announced.map(|node| node.alias().to_string()).unwrap_or_default(),
        color: announced.map(|node| format!("#{}", hex::encode(node.rgb()))).unwrap_or_default(),
        addresses: announced.map(addresses).unwrap_or_default(),
        channels: count(info.channels.len()),
        updated_ms: announced.map_or(0, |node| u64::from(node.last_update()) * 1000),
    }
}

/// An announcement has room for thousands.
fn addresses(node: &NodeAnnouncementInfo) -> Vec<String> {
    node.addresses().iter().take(MOST_ANNOUNCED).map(ToString::to_string).collect()
}

fn channel(scid: u64, info: &ChannelInfo) -> v1::GraphChannel {
    v1::GraphChannel {
        short_channel_id: scid_text(scid),
        node_1: info.node_one.to_string(),
        node_2: info.node_two.to_string(),
        capacity_sat: info.capacity_sats,
        policy_1: info.one_to_two.as_ref().map(policy),
        policy_2: info.two_to_one.as_ref().map(policy),
    }
}

fn policy(update: &ChannelUpdateInfo) -> v1::GraphPolicy {
    v1::GraphPolicy {
        is_enabled: update.enabled,
        base_fee_msat: update.fees.base_msat,
        fee_ppm: update.fees.proportional_millionths,
        cltv_delta: update.cltv_expiry_delta.into(),
        htlc_minimum_msat: update.htlc_minimum_msat,
        htlc_maximum_msat: update.htlc_maximum_msat,
        updated_ms: u64::from(update.last_update) * 1000,
    }
}

/// The `room` smallest in order, without sorting all there are.
fn smallest<T: Ord>(all: impl Iterator<Item = T>, room: usize) -> Vec<T> {
    let mut all: Vec<T> = all.collect();
    if room < all.len() {
        all.select_nth_unstable(room);
        all.truncate(room);
    }
    all.sort_unstable();
    all
}

fn count(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

fn node_id(text: &str) -> Result<NodeId, Error> {
    let key = PublicKey::from_str(text).map_err(|e| Error::misuse("node_id", e.to_string()))?;
    Ok(NodeId::from_pubkey(&key))
}

impl Cursor {
    fn parse(text: &str) -> Result<Self, Error> {
        let bad = || Error::misuse("after", "is not what an answer gave as next");
        match text.split_once(':') {
            None if text.is_empty() => Ok(Self::Start),
            // Rapid gossip sync does not look whether an id is a key.
            Some(("node", id)) => {
                let mut bytes = [0; 33];
                hex::decode_to_slice(id, &mut bytes).map_err(|_| bad())?;
                NodeId::from_slice(&bytes).map(Self::Node).map_err(|_| bad())
            }
            Some(("channel", scid)) => {
                let parts: Vec<u64> = scid.split('x').map(str::parse).collect::<Result<_, _>>().map_err(|_| bad())?;
                match parts[..] {
                    [block, tx, out] if block < 1 << 24 && tx < 1 << 24 && out < 1 << 16 => {
                        Ok(Self::Channel(block << 40 | tx << 16 | out))
                    }
                    _ => Err(bad()),
                }
            }
            _ => Err(bad()),
        }
    }
}

impl std::fmt::Display for Cursor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Start => Ok(()),
            Self::Node(id) => write!(f, "node:{id}"),
            Self::Channel(scid) => write!(f, "channel:{}", scid_text(*scid)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, sync::Arc};

    use bitcoin::{
        Network,
        secp256k1::{Secp256k1, SecretKey},
    };
    use lightning::{ln::msgs::UnsignedChannelUpdate, routing::gossip::NetworkGraph, types::features::ChannelFeatures};

    use super::*;
    use crate::lightning::{logger::TracingLogger, types::Graph};

    fn key(number: u8) -> PublicKey {
        SecretKey::from_slice(&[number; 32]).unwrap().public_key(&Secp256k1::new())
    }

    /// A ring of `nodes` nodes; channel n leads from node n to the next.
    fn ring(nodes: u8) -> Graph {
        let graph: Graph = NetworkGraph::new(Network::Regtest, Arc::new(TracingLogger));
        let now = crate::lightning::payments::unix_now();
        for n in 1..=nodes {
            let (a, b) = (NodeId::from_pubkey(&key(n)), NodeId::from_pubkey(&key(n % nodes + 1)));
            let (one, two) = if a < b { (a, b) } else { (b, a) };
            let scid = u64::from(n) << 40 | 1 << 16;
            graph
                .add_channel_from_partial_announcement(scid, Some(1000), now, ChannelFeatures::empty(), one, two)
                .unwrap();
            let update = UnsignedChannelUpdate {
                chain_hash: graph.get_chain_hash(),
                short_channel_id: scid,
                timestamp: now as u32,
                message_flags: 1,
                channel_flags: 0,
                cltv_expiry_delta: 40,
                htlc_minimum_msat: 1,
                htlc_maximum_msat: 900_000,
                fee_base_msat: 1000,
                fee_proportional_millionths: 10,
                excess_data: Vec::new(),
            };
            graph.update_channel_unsigned(&update).unwrap();
        }
        graph
    }

    fn ask(graph: &Graph, node_id: String, limit: u32, after: &str) -> Result<v1::DescribeGraphResponse, Error> {
        describe(&graph.read_only(), &v1::DescribeGraphRequest { node_id, limit, after: after.into() })
    }

    #[test]
    fn pages_of_any_size_come_to_the_whole_graph_once() {
        let graph = ring(9);
        for limit in 1..=20 {
            let (mut nodes, mut channels, mut after, mut pages) = (Vec::new(), Vec::new(), String::new(), 0);
            loop {
                let page = ask(&graph, String::new(), limit, &after).unwrap();
                assert!(page.nodes.len() + page.channels.len() <= limit as usize);
                assert_eq!((page.node_count, page.channel_count), (9, 9));
                nodes.extend(page.nodes.into_iter().map(|node| node.node_id));
                channels.extend(page.channels.into_iter().map(|channel| channel.short_channel_id));
                after = page.next;
                pages += 1;
                if after.is_empty() {
                    break;
                }
            }
            assert_eq!(pages, 18_usize.div_ceil(limit as usize), "limit {limit}");
            assert!(nodes.is_sorted());
            assert_eq!(nodes.iter().collect::<BTreeSet<_>>().len(), 9);
            assert_eq!(channels, (1..=9).map(|n| format!("{n}x1x0")).collect::<Vec<_>>());
        }
    }

    #[test]
    fn one_node_is_shown_with_its_channels_and_their_policies() {
        let graph = ring(9);
        let page = ask(&graph, key(4).to_string(), 0, "").unwrap();
        assert_eq!(page.nodes.len(), 1);
        assert_eq!((page.nodes[0].node_id.as_str(), page.nodes[0].channels), (key(4).to_string().as_str(), 2));
        let scids: Vec<_> = page.channels.iter().map(|channel| channel.short_channel_id.as_str()).collect();
        assert_eq!(scids, ["3x1x0", "4x1x0"]);
        let policy = page.channels[0].policy_1.unwrap();
        assert!(policy.is_enabled && page.channels[0].policy_2.is_none());
        assert_eq!((policy.base_fee_msat, policy.fee_ppm, policy.cltv_delta), (1000, 10, 40));
        assert_eq!((page.channels[0].capacity_sat, policy.htlc_maximum_msat), (Some(1000), 900_000));
        assert!(page.next.is_empty());
        // The filter holds over pages as well.
        let first = ask(&graph, key(4).to_string(), 2, "").unwrap();
        let second = ask(&graph, key(4).to_string(), 2, &first.next).unwrap();
        assert_eq!((second.channels[0].short_channel_id.as_str(), second.next.as_str()), ("4x1x0", ""));
    }

    /// A server of rapid gossip sync may say that there are nodes whose ids are no keys.
    #[test]
    fn a_page_that_ends_at_a_made_up_node_goes_on() {
        let graph = ring(3);
        let made_up = [[5; 33], [6; 33]].map(|bytes| NodeId::from_slice(&bytes).unwrap());
        let now = crate::lightning::payments::unix_now();
        let [one, two] = made_up;
        graph.add_channel_from_partial_announcement(1, None, now, ChannelFeatures::empty(), one, two).unwrap();
        let first = ask(&graph, String::new(), 4, "").unwrap();
        assert_eq!(first.nodes[3].node_id, "05".repeat(33));
        let second = ask(&graph, String::new(), 4, &first.next).unwrap();
        assert_eq!(second.nodes[0].node_id, "06".repeat(33));
    }

    #[test]
    fn what_is_no_node_and_no_cursor_is_refused_by_name() {
        let graph = ring(3);
        let named = |refused: Result<v1::DescribeGraphResponse, Error>| match refused {
            Err(Error::Misuse { field, .. }) => field,
            other => panic!("{other:?}"),
        };
        assert_eq!(named(ask(&graph, "02ab".into(), 0, "")), "node_id");
        assert_eq!(named(ask(&graph, key(77).to_string(), 0, "")), "node_id");
        for after in ["x", "node:02", "channel:1x1", "channel:99999999x1x1", "channel:1x1x70000", "channel:-1x1x1"] {
            assert_eq!(named(ask(&graph, String::new(), 0, after)), "after", "{after}");
        }
    }
}
