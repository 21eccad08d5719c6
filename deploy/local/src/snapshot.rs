//! A server of rapid gossip sync needs something to serve: what a counterparty knows of the graph, in its format.

use anyhow::{Context, Result};
use bitcoin::{Network, constants::ChainHash};
use ldk_node::lightning::{
    routing::gossip::{ChannelInfo, ChannelUpdateInfo, NodeId},
    util::ser::{BigSize, Writeable},
};

use crate::counterparty::Counterparty;

/// In a channel's flags: from node 2 to node 1, and not in use.
const BACKWARDS: u8 = 1;
const DISABLED: u8 = 2;
/// In an update's flags: every field follows, and none is as the defaults have it.
const ALL_FIELDS: u8 = 0b0111_1100;

/// All channels and policies that a counterparty knows, as a whole snapshot of version 1, made at `time` (seconds since the
/// Unix epoch).
pub fn snapshot(of: &Counterparty, time: u32) -> Result<Vec<u8>> {
    let graph = of.node().network_graph();
    let mut short_ids = graph.list_channels();
    short_ids.sort_unstable();
    let channels = short_ids.into_iter().filter_map(|id| Some((id, graph.channel(id)?)));
    let channels: Vec<(u64, ChannelInfo)> = channels.collect();
    let mut nodes: Vec<NodeId> =
        channels.iter().flat_map(|(_, channel)| [channel.node_one, channel.node_two]).collect();
    nodes.sort_unstable();
    nodes.dedup();

    let mut bytes = b"LDK\x01".to_vec();
    bytes.extend(ChainHash::using_genesis_block(Network::Regtest).as_bytes());
    bytes.extend(time.to_be_bytes());
    bytes.extend(u32::try_from(nodes.len())?.to_be_bytes());
    nodes.iter().for_each(|node| bytes.extend(node.as_slice()));

    bytes.extend(u32::try_from(channels.len())?.to_be_bytes());
    let mut previous = 0;
    for (id, channel) in &channels {
        bytes.extend(channel.features.encode());
        bytes.extend(BigSize(id - previous).encode());
        previous = *id;
        for node in [channel.node_one, channel.node_two] {
            let index = nodes.binary_search(&node).ok().context("a channel's end is among the nodes")?;
            bytes.extend(BigSize(index as u64).encode());
        }
    }

    let ways = channels.iter().flat_map(|(id, channel)| {
        let ways = [(0, channel.one_to_two.clone()), (BACKWARDS, channel.two_to_one.clone())];
        ways.into_iter().filter_map(|(direction, policy)| Some((*id, direction, policy?)))
    });
    let ways: Vec<(u64, u8, ChannelUpdateInfo)> = ways.collect();
    bytes.extend(u32::try_from(ways.len())?.to_be_bytes());
    // The defaults: CLTV delta, least amount, base fee, proportional fee, largest amount.
    bytes.extend([0; 2 + 8 + 4 + 4 + 8]);
    let mut previous = 0;
    for (id, direction, policy) in ways {
        bytes.extend(BigSize(id - previous).encode());
        previous = id;
        bytes.push(ALL_FIELDS | direction | if policy.enabled { 0 } else { DISABLED });
        bytes.extend(policy.cltv_expiry_delta.to_be_bytes());
        bytes.extend(policy.htlc_minimum_msat.to_be_bytes());
        bytes.extend(policy.fees.base_msat.to_be_bytes());
        bytes.extend(policy.fees.proportional_millionths.to_be_bytes());
        bytes.extend(policy.htlc_maximum_msat.to_be_bytes());
    }
    Ok(bytes)
}
