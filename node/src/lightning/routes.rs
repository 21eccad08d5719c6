//! Ways to a node, found but not taken.

use std::str::FromStr;

use bitcoin::secp256k1::PublicKey;
use holdfast_proto::{error::Error, node::v1};
use lightning::{
    ln::channel_state::ChannelDetails,
    routing::router::{InFlightHtlcs, Path, PaymentParameters, Route, RouteParameters, Router as _},
};

use super::{channels::scid_text, graph, limits, node::LightningNode, payments::KEYSEND_FINAL_CLTV_DELTA};

/// The longest way that fits into an onion, as LDK reckons.
const MOST_HOPS: u32 = 19;
/// BOLT 4's and LDK's limit for how long the money of a payment may be bound, in blocks.
const MOST_BLOCKS: u32 = 1008;
const MOST_PARTS: u32 = 10;

/// What a way must keep to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Wish {
    payee: PublicKey,
    amount_msat: u64,
    max_fee_msat: Option<u64>,
    max_hops: u32,
    max_cltv_delta: u32,
    max_parts: u32,
}

impl LightningNode {
    /// The way that a payment would take now, by the graph, our channels' balances and what the scorer has learned.
    pub(super) fn route_to(&self, request: &v1::FindRouteRequest) -> Result<v1::FindRouteResponse, Error> {
        let wish = Wish::of(request)?;
        if wish.payee == self.manager.get_our_node_id() {
            return Err(Error::misuse("node_id", "it is our own"));
        }
        let channels = self.manager.list_usable_channels();
        Ok(match self.try_route(&wish, &channels) {
            Ok(route) => found(&route),
            Err(why) => v1::FindRouteResponse { failure: self.why_none(&wish, &channels, why), ..Default::default() },
        })
    }

    fn try_route(&self, wish: &Wish, channels: &[ChannelDetails]) -> Result<Route, &'static str> {
        let first_hops: Vec<_> = channels.iter().collect();
        let inflight: InFlightHtlcs = self.manager.compute_inflight_htlcs();
        self.router.find_route(&self.manager.get_our_node_id(), &wish.params(), Some(&first_hops), inflight)
    }

    /// Finds out what stands in the way, by leaving out one limit after the other.
    fn why_none(&self, wish: &Wish, channels: &[ChannelDetails], why: &str) -> String {
        if channels.is_empty() {
            return "none of our channels is usable now: there is none, or no peer with one is connected".into();
        }
        let sendable: u64 = channels.iter().map(|channel| channel.next_outbound_htlc_limit_msat).sum();
        if sendable < wish.amount_msat {
            return format!("our channels can send {sendable} msat now, and {} msat are asked for", wish.amount_msat);
        }
        let is_peer = channels.iter().any(|channel| channel.counterparty.node_id == wish.payee);
        let nodes = {
            let graph = self.graph.read_only();
            (!is_peer && !graph::knows(&graph, &wish.payee)).then(|| graph.nodes().len())
        };
        if let Some(nodes) = nodes {
            return format!("none of the {nodes} nodes of the graph that have a public channel is this one");
        }
        if wish.max_fee_msat.is_some()
            && let Ok(route) = self.try_route(&Wish { max_fee_msat: None, ..*wish }, channels)
        {
            return format!("there is a way, but it costs {} msat", route.get_total_fees());
        }
        if wish.max_hops < MOST_HOPS
            && let Ok(route) = self.try_route(&Wish { max_hops: MOST_HOPS, ..*wish }, channels)
        {
            let hops = route.paths.iter().map(|path| path.hops.len()).max().unwrap_or_default();
            return format!("there is a way, but it takes {hops} hops");
        }
        if wish.max_cltv_delta < MOST_BLOCKS
            && let Ok(route) = self.try_route(&Wish { max_cltv_delta: MOST_BLOCKS, ..*wish }, channels)
        {
            let blocks = route.paths.iter().map(cltv_delta).max().unwrap_or_default();
            return format!("there is a way, but it may bind the money for {blocks} blocks");
        }
        if wish.max_parts < MOST_PARTS
            && let Ok(route) = self.try_route(&Wish { max_parts: MOST_PARTS, ..*wish }, channels)
        {
            return format!("there is a way, but it takes {} parts", route.paths.len());
        }
        let small = Wish { amount_msat: 1000, max_fee_msat: None, ..*wish };
        match wish.amount_msat > 1000 && self.try_route(&small, channels).is_ok() {
            true => format!("there is a way for a small amount, but no channels that carry so much ({why})"),
            false => format!("no way leads to the node ({why})"),
        }
    }
}

impl Wish {
    fn of(request: &v1::FindRouteRequest) -> Result<Self, Error> {
        let payee = PublicKey::from_str(&request.node_id).map_err(|e| Error::misuse("node_id", e.to_string()))?;
        if request.amount_msat == 0 {
            return Err(Error::misuse("amount_msat", "it is 0"));
        }
        limits::msat("amount_msat", request.amount_msat)?;
        limits::msat("max_fee_msat", request.max_fee_msat)?;
        let up_to = |field: &str, value: u32, least: u32, most: u32| match value {
            0 => Ok(most),
            value if value < least => Err(Error::misuse(field, format!("{value} is less than {least}"))),
            value if value > most => Err(Error::misuse(field, format!("{value} is more than {most}"))),
            value => Ok(value),
        };
        Ok(Self {
            payee,
            amount_msat: request.amount_msat,
            max_fee_msat: request.max_fee_msat,
            max_hops: up_to("max_hops", request.max_hops, 1, MOST_HOPS)?,
            max_cltv_delta: up_to("max_cltv_delta", request.max_cltv_delta, KEYSEND_FINAL_CLTV_DELTA, MOST_BLOCKS)?,
            max_parts: up_to("max_parts", request.max_parts, 1, MOST_PARTS)?,
        })
    }

    fn params(&self) -> RouteParameters {
        let mut params = PaymentParameters::for_keysend(self.payee, KEYSEND_FINAL_CLTV_DELTA, self.max_parts > 1);
        // None is above its bound, which fits.
        params.max_path_length = u8::try_from(self.max_hops).unwrap_or(u8::MAX);
        params.max_path_count = u8::try_from(self.max_parts).unwrap_or(u8::MAX);
        params.max_total_cltv_expiry_delta = self.max_cltv_delta;
        let mut route = RouteParameters::from_payment_params_and_value(params, self.amount_msat);
        // LDK sets a limit of its own unless told otherwise.
        route.max_total_routing_fee_msat = self.max_fee_msat;
        route
    }
}

fn found(route: &Route) -> v1::FindRouteResponse {
    v1::FindRouteResponse {
        found: true,
        failure: String::new(),
        fee_msat: route.get_total_fees(),
        cltv_delta: route.paths.iter().map(cltv_delta).max().unwrap_or_default(),
        parts: route.paths.iter().map(part).collect(),
    }
}

fn part(path: &Path) -> v1::RoutePart {
    // What arrives over a channel is what its node keeps and all that goes on from there.
    let mut arrives: Vec<u64> = Vec::with_capacity(path.hops.len());
    for hop in path.hops.iter().rev() {
        arrives.push(arrives.last().copied().unwrap_or_default() + hop.fee_msat);
    }
    let last = path.hops.len().saturating_sub(1);
    let hops =
        path.hops.iter().zip(arrives.into_iter().rev()).enumerate().map(|(index, (hop, amount_msat))| v1::RouteHop {
            node_id: hop.pubkey.to_string(),
            channel: scid_text(hop.short_channel_id),
            amount_msat,
            fee_msat: if index == last { 0 } else { hop.fee_msat },
            cltv_delta: hop.cltv_expiry_delta,
        });
    v1::RoutePart {
        amount_msat: path.final_value_msat(),
        fee_msat: path.fee_msat(),
        cltv_delta: cltv_delta(path),
        hops: hops.collect(),
    }
}

fn cltv_delta(path: &Path) -> u32 {
    path.hops.iter().map(|hop| hop.cltv_expiry_delta).sum()
}

#[cfg(test)]
mod tests {
    use bitcoin::secp256k1::{Secp256k1, SecretKey};
    use lightning::{
        routing::router::RouteHop,
        types::features::{ChannelFeatures, NodeFeatures},
    };

    use super::*;

    fn key(number: u8) -> PublicKey {
        SecretKey::from_slice(&[number; 32]).unwrap().public_key(&Secp256k1::new())
    }

    #[test]
    fn what_is_asked_for_is_bounded_by_name() {
        let good = v1::FindRouteRequest { node_id: key(1).to_string(), amount_msat: 1, ..Default::default() };
        let wish = Wish::of(&good).unwrap();
        assert_eq!((wish.max_hops, wish.max_cltv_delta, wish.max_parts), (19, 1008, 10));
        assert_eq!(wish.params().max_total_routing_fee_msat, None);
        for (request, field) in [
            (v1::FindRouteRequest { node_id: "02".into(), ..good.clone() }, "node_id"),
            (v1::FindRouteRequest { amount_msat: 0, ..good.clone() }, "amount_msat"),
            (v1::FindRouteRequest { amount_msat: u64::MAX, ..good.clone() }, "amount_msat"),
            (v1::FindRouteRequest { max_fee_msat: Some(u64::MAX), ..good.clone() }, "max_fee_msat"),
            (v1::FindRouteRequest { max_hops: 20, ..good.clone() }, "max_hops"),
            (v1::FindRouteRequest { max_cltv_delta: 41, ..good.clone() }, "max_cltv_delta"),
            (v1::FindRouteRequest { max_cltv_delta: 1009, ..good.clone() }, "max_cltv_delta"),
            (v1::FindRouteRequest { max_parts: 11, ..good.clone() }, "max_parts"),
        ] {
            let Err(Error::Misuse { field: named, .. }) = Wish::of(&request) else { panic!("{request:?}") };
            assert_eq!(named, field);
        }
    }

    #[test]
    fn each_hop_says_what_arrives_and_what_it_keeps() {
        let hop = |number: u8, fee_msat: u64, cltv_expiry_delta: u32| RouteHop {
            pubkey: key(number),
            node_features: NodeFeatures::empty(),
            short_channel_id: u64::from(number) << 40,
            channel_features: ChannelFeatures::empty(),
            fee_msat,
            cltv_expiry_delta,
            maybe_announced_channel: true,
        };
        let path = Path { hops: vec![hop(1, 30, 40), hop(2, 20, 50), hop(3, 1000, 18)], blinded_tail: None };
        let answer = found(&Route { paths: vec![path], route_params: None });
        assert!(answer.found && answer.failure.is_empty());
        assert_eq!((answer.fee_msat, answer.cltv_delta), (50, 108));
        let [part] = &answer.parts[..] else { panic!("{answer:?}") };
        assert_eq!((part.amount_msat, part.fee_msat, part.cltv_delta), (1000, 50, 108));
        let hops: Vec<_> = part.hops.iter().map(|h| (h.channel.as_str(), h.amount_msat, h.fee_msat)).collect();
        assert_eq!(hops, [("1x0x0", 1050, 30), ("2x0x0", 1020, 20), ("3x0x0", 1000, 0)]);
    }
}
