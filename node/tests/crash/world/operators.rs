//! What operators do.

use std::collections::BTreeSet;

use bitcoin::secp256k1::PublicKey;
use lightning::{
    ln::{
        channel_state::ChannelDetails,
        channelmanager::{PaymentId, RecipientOnionFields},
    },
    routing::router::{Path, Route, RouteHop},
    types::{
        features::{ChannelFeatures, NodeFeatures},
        payment::{PaymentHash, PaymentPreimage},
    },
};

use super::{CloseOrder, ENDS, Fact, OURS, Payment, World};
use crate::node::Keys;

/// What forwarding costs at our node: LDK's defaults.
const FORWARD_FEE_MSAT: u64 = 1000;
const FORWARD_DELTA: u32 = 72;
const FINAL_DELTA: u32 = 80;

impl<K: Keys> World<K> {
    pub(super) fn open(&mut self, link: usize, by_ours: bool) {
        if !self.links[link].connected {
            return;
        }
        let user_id = u128::from(self.rng.next());
        let capacity = 600_000 + self.rng.below(600_000);
        let push_msat = capacity * 300 + self.rng.below(100_000_000);
        self.pushes.insert(user_id, push_msat);
        let (peer, ours) = (&self.peers[link], &self.ours.node);
        // Refused when the peer is busy; then there is no channel.
        if by_ours {
            let queue = self.ours.queue.clone();
            let _ = queue.with_state(|| ours.manager.create_channel(peer.id, capacity, push_msat, user_id, None, None));
        } else {
            let _ = peer.manager.create_channel(ours.id, capacity, push_msat, user_id, None, None);
            self.settle_peer(link);
        }
    }

    /// Closes a channel, if enough would be left.
    pub(super) fn close(&mut self) {
        let link = self.rng.below(2) as usize;
        let by_ours = self.rng.one_in(2);
        let place = if by_ours { OURS } else { ENDS[link] };
        let other = self.id(if by_ours { ENDS[link] } else { OURS });
        let usable: Vec<_> = self
            .channels_of(place)
            .into_iter()
            .filter(|c| c.counterparty.node_id == other && c.is_channel_ready)
            .collect();
        if usable.len() < 2 {
            return;
        }
        let id = usable[self.rng.below(usable.len() as u64) as usize].channel_id;
        let order =
            if self.plan.force_closes && self.rng.one_in(3) { CloseOrder::Forced } else { CloseOrder::Cooperative };
        let manager = (&self.ours.node.manager, &self.peers[link].manager);
        let why = || "ordered".to_string();
        let done = match (by_ours, order) {
            (true, CloseOrder::Cooperative) => self.ours.queue.with_state(|| manager.0.close_channel(&id, &other)),
            (true, CloseOrder::Forced) => {
                self.ours.queue.with_state(|| manager.0.force_close_broadcasting_latest_txn(&id, &other, why()))
            }
            (false, CloseOrder::Cooperative) => manager.1.close_channel(&id, &other),
            (false, CloseOrder::Forced) => manager.1.force_close_broadcasting_latest_txn(&id, &other, why()),
        };
        if done.is_err() {
            return;
        }
        if by_ours {
            self.fresh.push(Fact::Order(id, order));
        } else {
            self.order(id, order);
            self.settle_peer(link);
        }
    }

    pub fn pay(&mut self) {
        let sender = self.rng.below(3) as usize;
        let receiver = (sender + 1 + self.rng.below(2) as usize) % 3;
        let amount_msat = match self.rng.below(3) {
            // An HTLC below the dust limit is lost to its receiver when the channel is closed by force.
            0 if !self.plan.force_closes => 1000 + self.rng.below(300_000),
            1 => 1_000_000 + self.rng.below(5_000_000),
            _ => 5_000_000 + self.rng.below(40_000_000),
        };
        let preimage = PaymentPreimage(self.rng.bytes());
        let hash = PaymentHash::from(preimage);
        let parts = if amount_msat > 1_000_000 && self.rng.one_in(4) { 2 } else { 1 };
        let Some(route) = self.route(sender, receiver, amount_msat, parts) else { return };
        let secret = {
            let manager = |place: usize| &self.peers[place / 2].manager;
            let year = 31_536_000;
            match receiver {
                OURS => self.ours.node.manager.create_inbound_payment_for_hash(hash, Some(amount_msat), year, None),
                place => manager(place).create_inbound_payment_for_hash(hash, Some(amount_msat), year, None),
            }
        };
        let onion = RecipientOnionFields::secret_only(secret.unwrap());
        let id = PaymentId(hash.0);
        let index = self.payments.len();
        let claim = !self.rng.one_in(8);
        self.payments.push(Payment {
            hash,
            preimage,
            sender,
            receiver,
            amount_msat,
            claim,
            accepted: sender != OURS,
            lost: false,
            sent: None,
            failed: false,
            claimed: false,
            parts: route.paths.len() as u64,
        });
        self.figures.payments += 1;
        if sender == OURS {
            let queue = self.ours.queue.clone();
            let done = queue.with_state(|| self.ours.node.manager.send_payment_with_route(route, hash, onion, id));
            done.unwrap();
            self.fresh.push(Fact::Pay(index));
        } else {
            self.peers[sender / 2].manager.send_payment_with_route(route, hash, onion, id).unwrap();
            self.settle_peer(sender / 2);
        }
    }

    pub(super) fn route(&mut self, sender: usize, receiver: usize, amount_msat: u64, parts: u64) -> Option<Route> {
        let mut paths = Vec::new();
        let mut used = BTreeSet::new();
        for part in 0..parts {
            let amount = amount_msat / parts + if part == 0 { amount_msat % parts } else { 0 };
            let forwarded = sender != OURS && receiver != OURS;
            let fee = if forwarded { FORWARD_FEE_MSAT } else { 0 };
            let next = if sender == OURS { receiver } else { OURS };
            let first = self.pick_channel(sender, next, amount + fee, &used)?;
            used.insert(first.channel_id.0);
            let mut hops = vec![hop(self.id(next), first.get_outbound_payment_scid()?, amount, FINAL_DELTA)];
            if forwarded {
                let second = self.pick_channel(OURS, receiver, amount, &used)?;
                used.insert(second.channel_id.0);
                hops[0].fee_msat = fee;
                hops[0].cltv_expiry_delta = FORWARD_DELTA;
                hops.push(hop(self.id(receiver), second.short_channel_id?, amount, FINAL_DELTA));
            }
            paths.push(Path { hops, blinded_tail: None });
        }
        Some(Route { paths, route_params: None })
    }

    pub(super) fn pick_channel(
        &mut self,
        from: usize,
        to: usize,
        msat: u64,
        not: &BTreeSet<[u8; 32]>,
    ) -> Option<ChannelDetails> {
        let to = self.id(to);
        let fits: Vec<_> = self
            .channels_of(from)
            .into_iter()
            .filter(|c| c.is_usable && c.counterparty.node_id == to && !not.contains(&c.channel_id.0))
            .filter(|c| (c.next_outbound_htlc_minimum_msat..=c.next_outbound_htlc_limit_msat).contains(&msat))
            .collect();
        self.rng.pick(&fits).cloned()
    }
}

fn hop(pubkey: PublicKey, short_channel_id: u64, fee_msat: u64, cltv_expiry_delta: u32) -> RouteHop {
    RouteHop {
        pubkey,
        node_features: NodeFeatures::empty(),
        short_channel_id,
        channel_features: ChannelFeatures::empty(),
        fee_msat,
        cltv_expiry_delta,
        maybe_announced_channel: false,
    }
}
