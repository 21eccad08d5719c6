//! What must be true when everything has come to rest.

use lightning::ln::channel_state::ChannelDetails;

use crate::{
    node::Keys,
    world::{CloseOrder, ENDS, OURS, World},
};

/// Blocks enough for every timeout and delay of a channel that was closed by force.
const BLOCKS: u32 = 400;

impl<K: Keys> World<K> {
    /// Ends the run: no more crashes, all blocks that it takes, and then the reckoning.
    pub fn finish(&mut self) {
        self.quiesce();
        for _ in 0..BLOCKS {
            if self.at_rest() {
                break;
            }
            self.mine();
            self.ours.node.tick();
            for peer in &self.peers {
                peer.tick();
            }
            self.quiesce();
        }
        self.violations.append(&mut self.store.contradictions);
        self.check_payments();
        self.check_channels();
        self.check_balances();
        self.check_books();
        self.figures.commits = self.store.commits;
    }

    fn at_rest(&self) -> bool {
        let paid = self.payments.iter().all(|p| p.lost || p.failed || p.sent.is_some());
        let closed = self.channels.iter().all(|(id, channel)| {
            channel.ordered.is_none()
                || [OURS, channel.end]
                    .iter()
                    .all(|place| self.channels_of(*place).iter().all(|c| c.channel_id.0 != *id))
        });
        paid && closed && self.channels_of(OURS).iter().all(|c| c.is_channel_ready)
    }

    fn check_payments(&mut self) {
        for payment in self.payments.clone() {
            let hash = payment.hash;
            let mut wrong = |what: &str| self.violations.push(format!("payment {hash} {what}: {payment:?}"));
            match (payment.lost, payment.sent, payment.failed) {
                (true, None, false) if !payment.claimed => {}
                (true, ..) => wrong("was never accepted and yet happened"),
                (false, Some(_), false) if payment.claimed => self.figures.settled += 1,
                (false, None, true) if !payment.claimed => self.figures.failed += 1,
                (false, None, false) => wrong("is still open"),
                _ => wrong("ended differently on its two sides"),
            }
        }
    }

    fn check_channels(&mut self) {
        for (id, channel) in self.channels.clone() {
            let spender = self.chain.lock().unwrap().spender(&channel.funding).cloned();
            if !self.funded(&id) {
                continue;
            }
            self.figures.channels += 1;
            let name = hex::encode(id);
            let open = [OURS, channel.end].map(|place| self.channels_of(place).iter().any(|c| c.channel_id.0 == id));
            match (channel.ordered, spender) {
                (None, None) if open == [true, true] => {}
                (None, spender) => self.violations.push(format!("channel {name}: open {open:?}, spent by {spender:?}")),
                (Some(_), None) => {
                    self.violations.push(format!("channel {name} was to be closed and is open {open:?}"))
                }
                (Some(CloseOrder::Forced), Some(_)) => self.figures.forced += 1,
                (Some(CloseOrder::Cooperative), Some(tx)) => {
                    self.figures.cooperative += 1;
                    // A commitment hides its number in the locktime.
                    let commitment = tx.lock_time.to_consensus_u32() != 0;
                    if commitment {
                        self.violations
                            .push(format!("channel {name} was to be closed together and ended in a commitment"));
                    }
                }
            }
        }
    }

    /// What we hold on each link is what it began with, plus what came in, less what went out.
    fn check_balances(&mut self) {
        for end in ENDS {
            let mut channels = Vec::new();
            for (id, channel) in &self.channels {
                if channel.end == end && self.funded(id) {
                    channels.push((*id, channel.clone()));
                }
            }
            if channels.iter().any(|(_, c)| c.ordered == Some(CloseOrder::Forced)) {
                // Fees, dust and HTLCs settled on chain: only whole payments can be compared, and were.
                continue;
            }
            let (mut expected, mut found) = (0i128, 0i128);
            for (id, channel) in &channels {
                let ours =
                    if channel.funder == OURS { channel.capacity_msat - channel.push_msat } else { channel.push_msat };
                expected += i128::from(ours);
                let now = [OURS, end].map(|place| {
                    let live = self.channels_of(place).into_iter().find(|c| c.channel_id.0 == *id);
                    match live {
                        Some(details) => Some(balance_msat(&details)),
                        None => channel.closed.get(&place).copied(),
                    }
                });
                match now {
                    [Some(ours), Some(theirs)] if ours + theirs == channel.capacity_msat => found += i128::from(ours),
                    other => self.violations.push(format!(
                        "channel {} of {} msat holds {other:?}",
                        hex::encode(id),
                        channel.capacity_msat
                    )),
                }
            }
            for payment in &self.payments {
                let Some(fee) = payment.sent else { continue };
                if payment.sender == end {
                    expected += i128::from(payment.amount_msat + fee);
                } else if payment.receiver == end {
                    expected -= i128::from(payment.amount_msat);
                }
            }
            if expected != found {
                self.violations.push(format!("on the link to {end} we hold {found} msat and should hold {expected}"));
            }
        }
    }
}

/// What the node holds in an idle channel.
fn balance_msat(channel: &ChannelDetails) -> u64 {
    let anchors = channel.channel_type.as_ref().is_some_and(|kind| kind.supports_anchors_zero_fee_htlc_tx());
    // LDK leaves out the reserve and, for the funder, the two anchor outputs.
    let anchors = if anchors && channel.is_outbound { 2 * 330_000 } else { 0 };
    channel.outbound_capacity_msat + channel.unspendable_punishment_reserve.unwrap_or(0) * 1000 + anchors
}
