//! Content-addressed chunks: a large value is stored in pieces named by their hash, so that a changed value costs the
//! pieces that changed and not all of it.
//!
//! The list of hashes is itself such a value, and is cut up in turn until what is left is small: a tree, whose root
//! stands in the manager's row.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use bitcoin::hashes::{Hash as _, sha256};
use fastcdc::v2020::FastCDC;

/// What is no longer than this is not cut. A row of this size still fits a page without TOAST.
const ROOT_MAX: usize = 1500;
const CHUNK_MIN: usize = 256;
const CHUNK_AVERAGE: usize = 1024;
/// Below the size at which Postgres moves a value out of its row.
const CHUNK_MAX: usize = 1900;
/// With 32 bytes for about a kilobyte a level, five levels hold more than any address space.
const DEPTH_MAX: i16 = 8;

pub(crate) type ChunkHash = [u8; 32];

/// A value cut up.
#[derive(Debug, Default)]
pub(crate) struct Tree {
    /// How often `root` is to be expanded.
    pub depth: i16,
    pub root: Vec<u8>,
    /// The pieces of the value, of the list of their hashes, and so on.
    levels: Vec<Vec<Piece>>,
}

#[derive(Clone, Debug)]
struct Piece {
    hash: ChunkHash,
    bytes: Arc<[u8]>,
}

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ChunkError {
    #[error("chunk {} is missing", hex::encode(.0))]
    Missing(ChunkHash),
    #[error("chunk {} holds other bytes than its name says", hex::encode(.0))]
    Altered(ChunkHash),
    #[error("a list of chunks of {0} bytes")]
    Ragged(usize),
    #[error("a tree of depth {0}")]
    Depth(i16),
}

/// Cuts a value up. `before`, the tree of a similar value, saves looking for what is the same: comparing is a hundred
/// times faster than hashing.
pub(crate) fn cut(value: &[u8], before: &Tree) -> Tree {
    let mut levels: Vec<Vec<Piece>> = Vec::new();
    let mut root = None;
    loop {
        let level = root.as_deref().unwrap_or(value);
        if level.len() <= ROOT_MAX {
            return Tree { depth: levels.len() as i16, root: level.to_vec(), levels };
        }
        let known = before.levels.get(levels.len()).map_or(&[][..], Vec::as_slice);
        let pieces = cut_level(level, known);
        root = Some(pieces.iter().flat_map(|piece| piece.hash).collect::<Vec<u8>>());
        levels.push(pieces);
    }
}

fn cut_level(level: &[u8], known: &[Piece]) -> Vec<Piece> {
    let chunker = FastCDC::new(level, CHUNK_MIN, CHUNK_AVERAGE, CHUNK_MAX);
    let mut places: Option<HashMap<&ChunkHash, usize>> = None;
    let mut pieces = Vec::with_capacity(known.len() + 8);
    let (mut at, mut next) = (0, 0);
    while let Some(rest) = level.get(at..).filter(|rest| !rest.is_empty()) {
        // The last piece ends with its value; any other ends where its content says, so it ends there again.
        let same = known.get(next).filter(|piece| next + 1 < known.len() && rest.starts_with(&piece.bytes));
        let piece = match same {
            Some(piece) => {
                next += 1;
                piece.clone()
            }
            None => {
                let (_, end) = chunker.cut(at, rest.len());
                let bytes = &level[at..end];
                let hash = hash(bytes);
                // Where the value has grown or shrunk, a piece that is known tells how far.
                let places = places.get_or_insert_with(|| {
                    known.iter().enumerate().map(|(place, piece)| (&piece.hash, place)).collect()
                });
                next = places.get(&hash).map_or(next, |place| *place) + 1;
                Piece { hash, bytes: bytes.into() }
            }
        };
        at += piece.bytes.len();
        pieces.push(piece);
    }
    pieces
}

/// Puts a value together again and checks every piece of it.
pub(crate) fn join(depth: i16, root: &[u8], chunks: &HashMap<ChunkHash, Vec<u8>>) -> Result<Vec<u8>, ChunkError> {
    if !(0..=DEPTH_MAX).contains(&depth) {
        return Err(ChunkError::Depth(depth));
    }
    let mut level = root.to_vec();
    for _ in 0..depth {
        let (hashes, []) = level.as_chunks::<32>() else {
            return Err(ChunkError::Ragged(level.len()));
        };
        let mut next = Vec::with_capacity(hashes.len() * CHUNK_AVERAGE);
        for name in hashes {
            let bytes = chunks.get(name).ok_or(ChunkError::Missing(*name))?;
            if hash(bytes) != *name {
                return Err(ChunkError::Altered(*name));
            }
            next.extend_from_slice(bytes);
        }
        level = next;
    }
    Ok(level)
}

/// What a database that holds the chunks of `stored` must gain and lose to hold exactly those of `tree`.
#[derive(Default)]
pub(crate) struct Difference {
    pub gained: HashMap<ChunkHash, Arc<[u8]>>,
    pub lost: Vec<ChunkHash>,
}

impl Tree {
    pub fn difference(&self, stored: &HashSet<ChunkHash>) -> Difference {
        let pieces = || self.levels.iter().flatten();
        let gained = pieces().filter(|piece| !stored.contains(&piece.hash));
        let gained: HashMap<_, _> = gained.map(|piece| (piece.hash, piece.bytes.clone())).collect();
        let kept: HashSet<&ChunkHash> = pieces().map(|piece| &piece.hash).collect();
        let lost = stored.iter().filter(|hash| !kept.contains(hash)).copied().collect();
        Difference { gained, lost }
    }
}

fn hash(bytes: &[u8]) -> ChunkHash {
    sha256::Hash::hash(bytes).to_byte_array()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A manager-like value: one incompressible record of about 3.2 kB a channel.
    fn synthetic(channels: u64) -> Vec<u8> {
        let mut value = Vec::new();
        for channel in 0..channels {
            for block in 0..100u64 {
                value.extend_from_slice(&hash(&[channel.to_be_bytes(), block.to_be_bytes()].concat()));
            }
        }
        value
    }

    fn chunks(tree: &Tree) -> HashMap<ChunkHash, Vec<u8>> {
        tree.difference(&HashSet::new()).gained.into_iter().map(|(hash, bytes)| (hash, bytes.to_vec())).collect()
    }

    fn written(before: &Tree, after: &Tree) -> usize {
        let Difference { gained, lost } = after.difference(&chunks(before).into_keys().collect());
        gained.values().map(|bytes| 32 + bytes.len()).sum::<usize>() + 32 * lost.len() + after.root.len()
    }

    proptest! {
        #[test]
        fn a_value_survives_being_cut_and_changed(
            seed in any::<u64>(),
            length in 0usize..200_000,
            edits in prop::collection::vec((any::<prop::sample::Index>(), 0usize..500, 0usize..500), 0..4),
        ) {
            let mut value = synthetic(1 + length as u64 / 3200);
            value.truncate(length);
            value.iter_mut().zip(seed.to_be_bytes()).for_each(|(byte, with)| *byte ^= with);
            let mut tree = cut(&value, &Tree::default());
            prop_assert!(tree.root.len() <= ROOT_MAX);
            prop_assert_eq!(&join(tree.depth, &tree.root, &chunks(&tree)).unwrap(), &value);
            let mut stored: HashSet<_> = chunks(&tree).into_keys().collect();
            for (place, gone, come) in edits {
                let place = place.index(value.len() + 1);
                value.splice(place..(place + gone).min(value.len()), vec![come as u8; come]);
                tree = cut(&value, &tree);
                let Difference { gained, lost } = tree.difference(&stored);
                prop_assert!(gained.keys().all(|hash| stored.insert(*hash)));
                prop_assert!(lost.iter().all(|hash| stored.remove(hash)));
                prop_assert_eq!(&chunks(&tree).into_keys().collect::<HashSet<_>>(), &stored);
                prop_assert_eq!(&join(tree.depth, &tree.root, &chunks(&tree)).unwrap(), &value);
                let alone = cut(&value, &Tree::default());
                let common = chunks(&alone).keys().filter(|hash| stored.contains(*hash)).count();
                prop_assert!(common + 8 >= stored.len(), "{common} of {}", stored.len());
            }
        }

        #[test]
        fn a_missing_or_altered_chunk_is_noticed(pick in any::<prop::sample::Index>(), at in any::<prop::sample::Index>()) {
            let tree = cut(&synthetic(30), &Tree::default());
            let mut chunks = chunks(&tree);
            let name = **pick.get(&chunks.keys().collect::<Vec<_>>());
            let mut bytes = chunks.remove(&name).unwrap();
            prop_assert_eq!(join(tree.depth, &tree.root, &chunks), Err(ChunkError::Missing(name)));
            let at = at.index(bytes.len());
            bytes[at] ^= 1;
            chunks.insert(name, bytes);
            prop_assert_eq!(join(tree.depth, &tree.root, &chunks), Err(ChunkError::Altered(name)));
        }
    }

    #[test]
    fn the_empty_value_and_hostile_roots() {
        let empty = cut(&[], &Tree::default());
        assert_eq!((empty.depth, empty.root.len(), chunks(&empty).len()), (0, 0, 0));
        assert_eq!(join(1, &[0; 33], &HashMap::new()), Err(ChunkError::Ragged(33)));
        assert_eq!(join(-1, &[], &HashMap::new()), Err(ChunkError::Depth(-1)));
        assert_eq!(join(9, &[], &HashMap::new()), Err(ChunkError::Depth(9)));
    }

    #[test]
    fn a_changed_channel_costs_kilobytes_whatever_the_size() {
        for channels in [100, 1000] {
            let mut value = synthetic(channels);
            let begin = std::time::Instant::now();
            let before = cut(&value, &Tree::default());
            let first = begin.elapsed();
            // Two channels of a forward change in several places, and one grows by an HTLC.
            for channel in [channels as usize / 3, channels as usize / 2] {
                for at in [100, 900, 3000] {
                    value[channel * 3200 + at] ^= 1;
                }
            }
            value.splice(3200 * 7 + 500..3200 * 7 + 500, [9u8; 120]);
            let begin = std::time::Instant::now();
            let after = cut(&value, &before);
            let again = begin.elapsed();
            let cost = written(&before, &after);
            println!(
                "{channels} channels: {cost} of {} bytes written; cut in {first:?}, again in {again:?}",
                value.len()
            );
            assert!(cost < 24_000, "{cost}");
        }
    }
}
