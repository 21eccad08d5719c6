//! The chain, as it comes to the nodes.

use lightning::chain::BestBlock;

use super::{ENDS, OURS, World};
use crate::node::Keys;

/// The deepest reorganisation: as many blocks as LDK waits for before it takes something for final.
const DEEPEST: u32 = 6;

impl<K: Keys> World<K> {
    pub fn mine(&mut self) {
        self.chain.lock().unwrap().mine();
        self.tell_of_blocks();
    }

    /// Other blocks take the place of the last ones. What was confirmed is so again, a little later.
    pub(super) fn reorganise(&mut self) {
        let deepest = DEEPEST.min(self.undoable());
        if deepest == 0 {
            return;
        }
        let depth = 1 + self.rng.below(u64::from(deepest)) as u32;
        self.figures.reorganisations += 1;
        self.figures.blocks_undone += u64::from(depth);
        self.our_parts.log.note(|| format!("--- {depth} blocks are undone"));
        let rng = &mut self.rng;
        self.chain.lock().unwrap().reorganise(depth, || !rng.one_in(3));
        self.tell_of_blocks();
    }

    /// How many blocks can be undone without a channel that is in use losing its funding transaction: then LDK closes it, as
    /// it says at `ChannelReady`, and rightly.
    fn undoable(&self) -> u32 {
        let chain = self.chain.lock().unwrap();
        let in_use = |id: &[u8; 32], end| {
            [OURS, end].iter().any(|place| {
                self.channels_of(*place).iter().any(|channel| {
                    let (needed, has) = (channel.confirmations_required, channel.confirmations);
                    channel.channel_id.0 == *id && has.unwrap_or(0) >= needed.unwrap_or(0)
                })
            })
        };
        let funded = self.channels.iter().filter(|(id, channel)| in_use(id, channel.end));
        let heights = funded.filter_map(|(_, channel)| chain.height_of(&channel.funding.txid));
        chain.height() - heights.max().unwrap_or(0)
    }

    /// The peers hear of it at once, ours perhaps later.
    fn tell_of_blocks(&mut self) {
        for (peer, place) in ENDS.into_iter().enumerate() {
            self.sync(place);
            self.settle_peer(peer);
        }
        if self.rng.one_in(2) {
            self.sync_ours();
        }
    }

    pub(super) fn sync_ours(&mut self) {
        self.sync(OURS);
    }

    fn sync(&mut self, place: usize) {
        loop {
            let tip = self.tips[place];
            let (fork, next) = {
                let chain = self.chain.lock().unwrap();
                let fork = chain.fork_point(tip);
                let next = (fork.height < chain.height()).then(|| chain.block(fork.height + 1).clone());
                (fork, next)
            };
            if fork != tip {
                match place {
                    OURS => self.ours.node.disconnect(fork),
                    _ => self.peers[place / 2].disconnect(fork),
                }
            }
            self.tips[place] = fork;
            let Some(block) = next else { return };
            let height = fork.height + 1;
            match place {
                OURS => self.ours.node.connect(&block, height),
                _ => self.peers[place / 2].connect(&block, height),
            }
            self.tips[place] = BestBlock::new(block.block_hash(), height);
        }
    }
}
