//! The rows that the node writes of what its events say, by the functions that name them, and whether they are right in the
//! end: each forward, each part and each received payment once, however often LDK told of it and whoever led.

use std::collections::BTreeMap;

use holdfast_node::{
    lightning::{received, records},
    store::{Effect, batch::Direction},
};
use lightning::events::Event;

use super::{Fact, OURS, World};
use crate::node::Keys;

impl<K: Keys> World<K> {
    /// What our node writes of an event beside the payments themselves.
    pub(super) fn book(&mut self, event: &Event) {
        let queue = self.ours.queue.clone();
        match event {
            Event::PaymentForwarded {
                prev_channel_id: Some(incoming),
                next_channel_id: Some(outgoing),
                outbound_amount_forwarded_msat,
                total_fee_earned_msat,
                ..
            } => {
                let Some((channel, htlc_id)) = self.ours.node.manager.next_forwarded_htlc() else {
                    return self.violations.push(format!("a forward without its name: {event:?}"));
                };
                if channel != *incoming {
                    self.violations.push(format!("a forward with the name of another: {channel} and {event:?}"));
                }
                if total_fee_earned_msat.is_some() {
                    self.fresh.push(Fact::Counted);
                }
                self.figures.forwards_told += 1;
                queue.effect(Effect::Forward {
                    event_id: records::forward_id(channel, htlc_id),
                    incoming_channel: incoming.0,
                    outgoing_channel: outgoing.0,
                    amount_msat: *outbound_amount_forwarded_msat,
                    fee_msat: *total_fee_earned_msat,
                });
            }
            Event::PaymentClaimed { payment_hash, payment_id, htlcs, .. } => {
                let parts = received::parts(*payment_hash, *payment_id, htlcs);
                self.figures.received_told += 1;
                if self.ours.received.is_new(*payment_hash, &parts) {
                    self.fresh.push(Fact::News(*payment_hash));
                }
                parts.into_iter().for_each(|part| queue.effect(Effect::PaymentPart(part)));
            }
            Event::PaymentPathSuccessful { payment_id, path, hold_times, .. } => {
                self.figures.paths_told += 1;
                let name = records::succeeded_part_id(payment_id.0, path);
                let part = records::outbound_part(name, payment_id.0, path, hold_times, None, None);
                queue.effect(Effect::PaymentPart(part));
            }
            _ => {}
        }
    }

    pub fn check_books(&mut self) {
        let mut wrong = Vec::new();
        let mut sums: BTreeMap<([u8; 32], bool), u64> = BTreeMap::new();
        for part in self.store.parts.values() {
            *sums.entry((part.payment_id, part.direction == Direction::Outbound)).or_default() += part.amount_msat;
        }
        let mut forwarded = 0;
        for payment in &self.payments {
            let settled = !payment.lost && payment.claimed && payment.sent.is_some();
            let (hash, amount) = (payment.hash, payment.amount_msat);
            let of = |outbound| sums.get(&(hash.0, outbound)).copied().unwrap_or(0);
            let expected = |place| if settled && place == OURS { amount } else { 0 };
            for (outbound, place) in [(true, payment.sender), (false, payment.receiver)] {
                if of(outbound) != expected(place) {
                    wrong.push(format!("the parts of payment {hash} come to {} msat: {payment:?}", of(outbound)));
                }
            }
            let news = self.news.get(&hash.0).copied().unwrap_or(0);
            if news != u64::from(settled && payment.receiver == OURS) {
                wrong.push(format!("payment {hash} was counted {news} times: {payment:?}"));
            }
            if settled && payment.sender != OURS && payment.receiver != OURS {
                forwarded += payment.parts;
            }
        }
        let rows = self.store.forwards.len() as u64;
        if rows != forwarded {
            wrong.push(format!("{rows} forwards are written of {forwarded}"));
        }
        let with_fee = self.store.forwards.values().filter(|fee| fee.is_some()).count() as u64;
        if with_fee != self.counted {
            wrong.push(format!("{} forwards are counted, and {with_fee} have a fee", self.counted));
        }
        self.figures.forwards += rows;
        self.violations.append(&mut wrong);
    }
}
