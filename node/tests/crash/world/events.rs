//! What nodes say.

use std::collections::BTreeMap;

use bitcoin::{Amount, OutPoint};
use holdfast_node::store::{
    Effect,
    batch::{Direction, PaymentChange, PaymentKind, PaymentStatus},
};
use lightning::{
    events::{ClosureReason, Event},
    ln::types::ChannelId,
    types::payment::PaymentHash,
};

use super::{Channel, CloseOrder, ENDS, Fact, NAMES, OURS, Outcome, Payment, World};
use crate::node::Keys;

impl<K: Keys> World<K> {
    /// Ours says so to an operator only once it is committed; what a crash takes back was never said.
    pub(super) fn tell(&mut self, place: usize, hash: PaymentHash, outcome: Outcome) {
        match place {
            OURS => self.fresh.push(Fact::Ended(hash, outcome)),
            _ => self.ended(hash, outcome),
        }
    }

    pub(super) fn ended(&mut self, hash: PaymentHash, outcome: Outcome) {
        let payment = self.payment(hash);
        match outcome {
            Outcome::Sent(fee) => payment.sent = fee.or(payment.sent).or(Some(0)),
            Outcome::Failed => payment.failed = true,
            Outcome::Claimed => payment.claimed = true,
        }
        if payment.failed && payment.sent.is_some() {
            self.violations.push(format!("payment {hash} failed and was sent"));
        }
    }

    pub(super) fn handle(&mut self, place: usize, event: Event) {
        self.our_parts.log.note(|| format!("{} event {event:?}", NAMES[place]));
        if place == OURS {
            self.book(&event);
        }
        match event {
            Event::OpenChannelRequest { temporary_channel_id, counterparty_node_id, .. } => {
                let user_id = u128::from(self.rng.next());
                let (id, from) = (temporary_channel_id, counterparty_node_id);
                // Fails when the peer has gone meanwhile.
                let _ = match place {
                    OURS => self.ours.node.manager.accept_inbound_channel(&id, &from, user_id, None),
                    _ => self.peers[place / 2].manager.accept_inbound_channel(&id, &from, user_id, None),
                };
            }
            Event::FundingGenerationReady {
                temporary_channel_id,
                counterparty_node_id,
                channel_value_satoshis,
                output_script,
                user_channel_id,
            } => {
                let value = Amount::from_sat(channel_value_satoshis);
                let tx = self.chain.lock().unwrap().fund(output_script, value);
                let funding = OutPoint { txid: tx.compute_txid(), vout: 0 };
                let id = ChannelId::v1_from_funding_txid(funding.txid.as_ref(), 0);
                let end = *ENDS.iter().find(|end| **end == place || self.id(**end) == counterparty_node_id).unwrap();
                let channel = Channel {
                    end,
                    funder: place,
                    funding,
                    capacity_msat: channel_value_satoshis * 1000,
                    push_msat: self.pushes[&user_channel_id],
                    ordered: None,
                    closed: BTreeMap::new(),
                };
                // Fails when the peer has gone meanwhile.
                let done = match place {
                    OURS => self.ours.node.manager.funding_transaction_generated(
                        temporary_channel_id,
                        counterparty_node_id,
                        tx,
                    ),
                    _ => self.peers[place / 2].manager.funding_transaction_generated(
                        temporary_channel_id,
                        counterparty_node_id,
                        tx,
                    ),
                };
                if done.is_ok() {
                    self.channels.insert(id.0, channel);
                }
            }
            Event::PaymentClaimable { payment_hash, .. } => {
                let payment = self.payments.iter().find(|p| p.hash == payment_hash).unwrap().clone();
                match (place, payment.claim) {
                    (OURS, true) => self.ours.node.manager.claim_funds(payment.preimage),
                    (OURS, false) => self.ours.node.manager.fail_htlc_backwards(&payment_hash),
                    (_, true) => self.peers[place / 2].manager.claim_funds(payment.preimage),
                    (_, false) => self.peers[place / 2].manager.fail_htlc_backwards(&payment_hash),
                }
            }
            Event::PaymentClaimed { payment_hash, amount_msat, .. } => {
                let expected = self.payment(payment_hash).amount_msat;
                if expected != amount_msat {
                    self.violations.push(format!("claimed {amount_msat} of {expected} msat"));
                }
                self.tell(place, payment_hash, Outcome::Claimed);
                self.record(place, payment_hash.0, Direction::Inbound, PaymentStatus::Succeeded);
            }
            Event::PaymentSent { payment_hash, fee_paid_msat, .. } => {
                self.tell(place, payment_hash, Outcome::Sent(fee_paid_msat));
                self.record(place, payment_hash.0, Direction::Outbound, PaymentStatus::Succeeded);
            }
            Event::PaymentFailed { payment_id, .. } => {
                self.tell(place, PaymentHash(payment_id.0), Outcome::Failed);
                self.record(place, payment_id.0, Direction::Outbound, PaymentStatus::Failed);
            }
            Event::ChannelClosed { channel_id, reason, last_local_balance_msat, .. } => {
                self.check_close(place, channel_id, &reason);
                let balance = last_local_balance_msat.unwrap_or(0);
                if place == OURS {
                    self.fresh.push(Fact::Closed(channel_id, balance));
                } else if let Some(channel) = self.channels.get_mut(&channel_id.0) {
                    channel.closed.insert(place, balance);
                }
            }
            Event::BumpTransaction(bump) => match place {
                OURS => self.ours.node.bump(&bump),
                _ => self.peers[place / 2].bump(&bump),
            },
            _ => {}
        }
    }

    pub(super) fn payment(&mut self, hash: PaymentHash) -> &mut Payment {
        self.payments.iter_mut().find(|p| p.hash == hash).unwrap()
    }

    pub(super) fn record(&mut self, place: usize, payment_hash: [u8; 32], direction: Direction, status: PaymentStatus) {
        if place != OURS {
            return;
        }
        let change = PaymentChange::new(payment_hash, direction, PaymentKind::Bolt11, status);
        self.ours.queue.effect(Effect::Payment(change));
    }

    /// The order to close a channel, the ones that are not yet durable included.
    pub(super) fn ordered(&self, id: &ChannelId) -> Option<CloseOrder> {
        let durable = self.channels.get(&id.0).and_then(|channel| channel.ordered);
        let pending = self.fresh.iter().chain(&self.taken).filter_map(|fact| match fact {
            Fact::Order(other, order) if other == id => Some(*order),
            _ => None,
        });
        pending.chain(durable).max()
    }

    /// Whether a channel's funding transaction is on its way. One that never was is dropped without harm.
    pub fn funded(&self, id: &[u8; 32]) -> bool {
        self.channels.get(id).is_some_and(|channel| self.chain.lock().unwrap().knows(&channel.funding.txid))
    }

    pub(super) fn check_close(&mut self, place: usize, id: ChannelId, reason: &ClosureReason) {
        use ClosureReason::*;
        let fits = match self.ordered(&id) {
            Some(CloseOrder::Forced) => true,
            Some(CloseOrder::Cooperative) => matches!(
                reason,
                CounterpartyInitiatedCooperativeClosure | LocallyInitiatedCooperativeClosure | CommitmentTxConfirmed
            ),
            None => !self.funded(&id.0),
        };
        if *reason == CommitmentTxConfirmed && self.ordered(&id) == Some(CloseOrder::Cooperative) {
            self.figures.cooperative_seen_on_chain += 1;
        }
        if !fits {
            let ordered = self.ordered(&id);
            self.violations.push(format!("{} closed {id}, ordered {ordered:?}, because {reason:?}", NAMES[place]));
        }
    }

    /// Peers have no reason to complain about a channel that lives.
    pub(super) fn check_complaint(&mut self, id: &ChannelId, data: &str, to_ours: bool) {
        if self.funded(&id.0) && self.ordered(id).is_none() {
            let who = if to_ours { "a peer" } else { "our node" };
            self.violations.push(format!("{who} complains about {id}: {data}"));
        }
    }
}
