//! Recent block headers, kept in memory so that a takeover asks bitcoind for as little as possible.

use std::collections::{BTreeMap, HashMap};

use bitcoin::{BlockHash, Network};
use lightning_block_sync::{
    BlockSource, BlockSourceError, BlockSourceResult, Cache,
    init::validate_best_block_header,
    poll::{ChainPoller, Poll, ValidatedBlockHeader},
};

/// As many headers as a monitor can be behind, and room for more.
const KEPT: u32 = 400;

/// The newest headers of the best chain and of stale forks.
#[derive(Default)]
pub struct HeaderCache {
    by_hash: HashMap<BlockHash, ValidatedBlockHeader>,
    by_height: BTreeMap<u32, Vec<BlockHash>>,
}

impl HeaderCache {
    /// Walks from the source's tip back to what is known (or as far as headers are kept). Returns the tip.
    pub async fn follow<S: BlockSource>(
        &mut self,
        source: &S,
        network: Network,
    ) -> BlockSourceResult<ValidatedBlockHeader> {
        let tip = validate_best_block_header(source).await?;
        let poller = ChainPoller::new(source, network);
        let mut new = vec![tip];
        // `new` starts with the tip and only grows.
        while let Some(last) = new.last().copied() {
            let floor = tip.height.saturating_sub(KEPT - 1);
            if last.height <= floor || self.by_hash.contains_key(&last.header.prev_blockhash) {
                break;
            }
            new.push(poller.look_up_previous_header(&last).await?);
        }
        for header in new.into_iter().rev() {
            self.insert(header);
        }
        Ok(tip)
    }

    /// The blocks from `tip` downwards, as far as their headers are known.
    pub fn ancestors(&self, tip: BlockHash) -> impl Iterator<Item = BlockHash> + '_ {
        let known = |hash: &BlockHash| self.by_hash.contains_key(hash);
        std::iter::successors(Some(tip), |hash| self.by_hash.get(hash).map(|header| header.header.prev_blockhash))
            .take_while(known)
    }

    fn insert(&mut self, header: ValidatedBlockHeader) {
        let hash = header.header.block_hash();
        if self.by_hash.insert(hash, header).is_none() {
            self.by_height.entry(header.height).or_default().push(hash);
        }
        let newest = self.by_height.last_key_value().map_or(0, |(height, _)| *height);
        while let Some(oldest) = self.by_height.first_entry() {
            if oldest.key() + KEPT > newest {
                break;
            }
            for hash in oldest.remove() {
                self.by_hash.remove(&hash);
            }
        }
    }
}

impl Cache for HeaderCache {
    fn look_up(&self, hash: &BlockHash) -> Option<&ValidatedBlockHeader> {
        self.by_hash.get(hash)
    }

    fn block_connected(&mut self, _: BlockHash, header: ValidatedBlockHeader) {
        self.insert(header);
    }

    fn block_disconnected(&mut self, hash: &BlockHash) -> Option<ValidatedBlockHeader> {
        // Kept: a listener that is still on the fork may have to be led off it. Age removes it.
        self.by_hash.get(hash).copied()
    }
}

/// The error in words; the type of the block source has none of its own.
pub fn explain(error: BlockSourceError) -> String {
    error.into_inner().to_string()
}

#[cfg(test)]
pub(super) mod tests {
    use std::sync::Mutex;

    use bitcoin::{
        Block, CompactTarget, TxMerkleNode,
        block::{Header, Version},
        constants::genesis_block,
        hashes::Hash,
    };
    use lightning_block_sync::{AsyncBlockSourceResult, BlockData, BlockHeaderData};

    use super::*;

    /// A regtest chain in memory that counts what it is asked for.
    pub struct Chain {
        pub blocks: Vec<Block>,
        pub headers_asked: Mutex<usize>,
        pub blocks_asked: Mutex<usize>,
    }

    impl Chain {
        pub fn new(height: u32) -> Self {
            let mut chain = Self {
                blocks: vec![genesis_block(Network::Regtest)],
                headers_asked: Mutex::default(),
                blocks_asked: Mutex::default(),
            };
            chain.grow(height, 0);
            chain
        }

        /// `fork` makes the new blocks different from others at their heights.
        pub fn grow(&mut self, by: u32, fork: u8) {
            for _ in 0..by {
                let previous = self.blocks.last().unwrap().header;
                let mut header = Header {
                    version: Version::TWO,
                    prev_blockhash: previous.block_hash(),
                    merkle_root: TxMerkleNode::from_byte_array([fork; 32]),
                    time: previous.time + 1,
                    bits: CompactTarget::from_consensus(0x207f_ffff),
                    nonce: 0,
                };
                while header.validate_pow(header.target()).is_err() {
                    header.nonce += 1;
                }
                self.blocks.push(Block { header, txdata: vec![] });
            }
        }

        pub fn tip(&self) -> BlockHash {
            self.blocks.last().unwrap().block_hash()
        }

        fn at(&self, hash: &BlockHash) -> Option<usize> {
            self.blocks.iter().position(|block| block.block_hash() == *hash)
        }
    }

    impl BlockSource for Chain {
        fn get_header<'a>(
            &'a self,
            hash: &'a BlockHash,
            _: Option<u32>,
        ) -> AsyncBlockSourceResult<'a, BlockHeaderData> {
            *self.headers_asked.lock().unwrap() += 1;
            Box::pin(async move {
                let at = self.at(hash).ok_or_else(|| BlockSourceError::transient("no such block"))?;
                let work = self.blocks[..=at].iter().map(|block| block.header.work());
                Ok(BlockHeaderData {
                    header: self.blocks[at].header,
                    height: at as u32,
                    chainwork: work.reduce(|all, work| all + work).unwrap(),
                })
            })
        }

        fn get_block<'a>(&'a self, hash: &'a BlockHash) -> AsyncBlockSourceResult<'a, BlockData> {
            *self.blocks_asked.lock().unwrap() += 1;
            Box::pin(async move {
                let at = self.at(hash).ok_or_else(|| BlockSourceError::transient("no such block"))?;
                Ok(BlockData::FullBlock(self.blocks[at].clone()))
            })
        }

        fn get_best_block(&self) -> AsyncBlockSourceResult<'_, (BlockHash, Option<u32>)> {
            Box::pin(async move { Ok((self.tip(), Some(self.blocks.len() as u32 - 1))) })
        }
    }

    #[tokio::test]
    async fn only_new_headers_are_asked_for() {
        let mut chain = Chain::new(100);
        let mut headers = HeaderCache::default();
        headers.follow(&chain, Network::Regtest).await.unwrap();
        let first = *chain.headers_asked.lock().unwrap();
        assert!(first >= 100, "{first}");
        chain.grow(2, 0);
        let tip = headers.follow(&chain, Network::Regtest).await.unwrap();
        assert_eq!(tip.height, 102);
        let second = *chain.headers_asked.lock().unwrap() - first;
        assert!(second <= 3, "{second}");
        assert_eq!(headers.ancestors(chain.tip()).count(), 103);
    }

    #[tokio::test]
    async fn a_stale_fork_is_still_known() {
        let mut chain = Chain::new(10);
        let mut headers = HeaderCache::default();
        headers.follow(&chain, Network::Regtest).await.unwrap();
        let stale = chain.tip();
        chain.blocks.truncate(9);
        chain.grow(5, 1);
        headers.follow(&chain, Network::Regtest).await.unwrap();
        assert!(headers.look_up(&stale).is_some());
        assert!(headers.ancestors(chain.tip()).all(|hash| hash != stale));
    }

    #[tokio::test]
    async fn old_headers_are_forgotten() {
        let chain = Chain::new(KEPT + 50);
        let mut headers = HeaderCache::default();
        headers.follow(&chain, Network::Regtest).await.unwrap();
        assert_eq!(headers.by_hash.len(), KEPT as usize);
        assert_eq!(headers.ancestors(chain.tip()).count(), KEPT as usize);
    }
}
