//! The commit loop and its end.

use lightning::ln::types::ChannelId;

use super::{CloseOrder, Fact, OURS, World};
use crate::{
    node::Keys,
    ours::{Ours, Step},
};

impl<K: Keys> World<K> {
    pub(super) fn commit_step(&mut self) -> Step {
        let step = self.ours.commit_step(&mut self.store);
        match step {
            Step::Took => self.taken.append(&mut self.fresh),
            Step::Nothing if self.ours.idle() => {
                self.taken.append(&mut self.fresh);
                self.commit_facts();
            }
            Step::Wrote => self.commit_facts(),
            Step::Nothing | Step::Acknowledged => {}
        }
        step
    }

    pub(super) fn commit_facts(&mut self) {
        for fact in std::mem::take(&mut self.taken) {
            match fact {
                Fact::Order(id, order) => self.order(id, order),
                Fact::Pay(index) => self.payments[index].accepted = true,
                Fact::Ended(hash, outcome) => self.ended(hash, outcome),
                Fact::News(hash) => *self.news.entry(hash.0).or_default() += 1,
                Fact::Counted => self.counted += 1,
                Fact::Closed(id, balance) => {
                    if let Some(channel) = self.channels.get_mut(&id.0) {
                        channel.closed.insert(OURS, balance);
                    }
                }
            }
        }
    }

    pub(super) fn order(&mut self, id: ChannelId, order: CloseOrder) {
        if let Some(channel) = self.channels.get_mut(&id.0) {
            channel.ordered = channel.ordered.max(Some(order));
        }
    }

    pub fn crash(&mut self) {
        self.figures.crashes += 1;
        self.our_parts.log.note(|| "--- crash".into());
        let mut unanswered = vec![];
        for fact in std::mem::take(&mut self.fresh).into_iter().chain(std::mem::take(&mut self.taken)) {
            match fact {
                Fact::Pay(index) => {
                    self.payments[index].lost = true;
                    self.figures.lost_before_commit += 1;
                }
                Fact::Order(id, CloseOrder::Forced) => unanswered.push(id),
                _ => {}
            }
        }
        for link in 0..2 {
            self.hang_up(link);
        }
        let updates_kept = 1 + self.rng.below(12) as u32;
        let keys = (self.make_keys)(self.figures.crashes);
        let ours = Ours::start(&self.our_parts, keys, &self.store, &self.chain, self.plan.order, updates_kept);
        match ours {
            Ok(ours) => self.ours = ours,
            Err(error) => panic!("our node does not load: {error}"),
        }
        self.tips[OURS] = self.chain.lock().unwrap().tip();
        unanswered.into_iter().for_each(|id| self.repeat(id));
    }

    /// Who ordered a close by force and had no answer orders it again. There is no other way on: for that close the signer has
    /// signed our commitment, and what was signed for broadcast it never revokes (`revoke-signed`), whatever became of it.
    fn repeat(&mut self, id: ChannelId) {
        let Some(channel) = self.channels_of(OURS).into_iter().find(|channel| channel.channel_id == id) else { return };
        let (manager, peer) = (&self.ours.node.manager, channel.counterparty.node_id);
        let why = || "ordered again".to_string();
        let close = || manager.force_close_broadcasting_latest_txn(&id, &peer, why());
        if self.ours.queue.with_state(close).is_ok() {
            self.figures.orders_repeated += 1;
            self.fresh.push(Fact::Order(id, CloseOrder::Forced));
        }
    }
}
