//! Recent blocks in a standby's memory. A monitor is written whole only once in about fifty blocks, so a new leader has to
//! show the blocks since then to each; fetched one by one from bitcoind they would be most of a takeover.

use std::collections::HashMap;

use bitcoin::{Block, BlockHash};
use lightning_block_sync::{AsyncBlockSourceResult, BlockData, BlockHeaderData, BlockSource, BlockSourceResult};

use super::HeaderCache;

/// LDK writes each monitor whole at least this often.
const BLOCKS: usize = 60;
/// Full blocks of the main network; about half of [`BLOCKS`] fit, the newest ones.
const BYTES: usize = 64 << 20;
/// How many blocks one round may fetch, so that it stays short.
const A_ROUND: usize = 8;

/// The newest blocks of the best chain.
#[derive(Default)]
pub struct BlockCache {
    blocks: HashMap<BlockHash, (Block, usize)>,
}

impl BlockCache {
    /// Fetches what is missing of the blocks below `tip`, and forgets what is too old.
    pub async fn follow<S: BlockSource>(
        &mut self,
        source: &S,
        headers: &HeaderCache,
        tip: BlockHash,
    ) -> BlockSourceResult<()> {
        let (mut bytes, mut fetched) = (0, 0);
        let mut kept = HashMap::new();
        for hash in headers.ancestors(tip).take(BLOCKS) {
            let (block, size) = match self.blocks.remove(&hash) {
                Some(known) => known,
                None if fetched == A_ROUND => break,
                None => match source.get_block(&hash).await? {
                    BlockData::FullBlock(block) => {
                        fetched += 1;
                        let size = block.total_size();
                        (block, size)
                    }
                    BlockData::HeaderOnly(_) => break,
                },
            };
            bytes += size;
            kept.insert(hash, (block, size));
            if bytes > BYTES {
                break;
            }
        }
        self.blocks = kept;
        Ok(())
    }
}

/// A block source that asks `source` only for what the cache does not hold.
pub struct CachedBlocks<'a, S> {
    pub source: &'a S,
    pub cache: &'a BlockCache,
}

impl<S: BlockSource> BlockSource for CachedBlocks<'_, S> {
    fn get_header<'a>(
        &'a self,
        hash: &'a BlockHash,
        height: Option<u32>,
    ) -> AsyncBlockSourceResult<'a, BlockHeaderData> {
        self.source.get_header(hash, height)
    }

    fn get_block<'a>(&'a self, hash: &'a BlockHash) -> AsyncBlockSourceResult<'a, BlockData> {
        match self.cache.blocks.get(hash) {
            Some((block, _)) => Box::pin(async move { Ok(BlockData::FullBlock(block.clone())) }),
            None => self.source.get_block(hash),
        }
    }

    fn get_best_block(&self) -> AsyncBlockSourceResult<'_, (BlockHash, Option<u32>)> {
        self.source.get_best_block()
    }
}

#[cfg(test)]
mod tests {
    use bitcoin::Network;

    use super::{super::headers::tests::Chain, *};

    async fn warm(chain: &Chain, headers: &mut HeaderCache, blocks: &mut BlockCache) {
        headers.follow(chain, Network::Regtest).await.unwrap();
        blocks.follow(chain, headers, chain.tip()).await.unwrap();
    }

    #[tokio::test]
    async fn a_round_is_short_and_rounds_add_up() {
        let chain = Chain::new(100);
        let (mut headers, mut blocks) = (HeaderCache::default(), BlockCache::default());
        warm(&chain, &mut headers, &mut blocks).await;
        assert_eq!(blocks.blocks.len(), A_ROUND);
        for _ in 0..BLOCKS {
            warm(&chain, &mut headers, &mut blocks).await;
        }
        assert_eq!(blocks.blocks.len(), BLOCKS);
        assert_eq!(*chain.blocks_asked.lock().unwrap(), BLOCKS);
    }

    #[tokio::test]
    async fn what_is_cached_is_not_asked_for_and_the_rest_is() {
        let mut chain = Chain::new(5);
        let (mut headers, mut blocks) = (HeaderCache::default(), BlockCache::default());
        warm(&chain, &mut headers, &mut blocks).await;
        chain.grow(1, 0);
        let asked = *chain.blocks_asked.lock().unwrap();
        let cached = CachedBlocks { source: &chain, cache: &blocks };
        for block in &chain.blocks {
            let BlockData::FullBlock(got) = cached.get_block(&block.block_hash()).await.unwrap() else { panic!() };
            assert_eq!(got.block_hash(), block.block_hash());
        }
        assert_eq!(*chain.blocks_asked.lock().unwrap() - asked, 1);
    }

    #[tokio::test]
    async fn blocks_of_a_stale_fork_are_dropped() {
        let mut chain = Chain::new(5);
        let (mut headers, mut blocks) = (HeaderCache::default(), BlockCache::default());
        warm(&chain, &mut headers, &mut blocks).await;
        let stale = chain.tip();
        chain.blocks.truncate(5);
        chain.grow(3, 1);
        warm(&chain, &mut headers, &mut blocks).await;
        assert!(!blocks.blocks.contains_key(&stale));
        assert_eq!(blocks.blocks.len(), chain.blocks.len());
    }
}
