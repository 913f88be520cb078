//! Chooses the blocks to rewrite: a pure function.
//!
//! - A block without live records is dropped, together with such neighbours.
//! - A *thin* block (less than half of it is live) is rewritten, together with neighbours that are
//!   thin or small. So the disk holds at most about twice the live data.
//! - Small blocks, as flushes leave them, are joined when many are side by side and none of them is
//!   half of the result. So each record is copied only a few times.
//!
//! One step reads at most two blocks' worth of bytes, or one block.

/// The size and live part of a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlockUsage {
    pub bytes: u64,
    pub live_bytes: u64,
}

impl BlockUsage {
    fn is_thin(self) -> bool {
        self.live_bytes * 2 < self.bytes
    }
}

/// Minimum number of small blocks to join.
const JOIN_BLOCKS_MIN: usize = 8;

/// The next run of blocks to rewrite, `(at, count)`; `block_bytes` is the target size of a block.
pub fn next(blocks: &[BlockUsage], block_bytes: u64) -> Option<(usize, usize)> {
    let dead = |block: &BlockUsage| block.live_bytes == 0;
    if let Some(at) = blocks.iter().position(dead) {
        return Some((at, blocks[at..].iter().take_while(|block| dead(block)).count()));
    }
    if let Some(at) = blocks.iter().position(|block| block.is_thin()) {
        let joins = |block: BlockUsage| block.is_thin() || block.live_bytes < block_bytes / 2;
        return Some((at, run(&blocks[at..], block_bytes, joins).max(1)));
    }
    (0..blocks.len()).find_map(|at| {
        let small = |block: BlockUsage| block.live_bytes < block_bytes / 2;
        let count = run(&blocks[at..], block_bytes, small);
        let joined = &blocks[at..at + count];
        let whole: u64 = joined.iter().map(|block| block.live_bytes).sum();
        let balanced = joined.iter().all(|block| block.live_bytes * 2 <= whole);
        (count >= JOIN_BLOCKS_MIN && balanced).then_some((at, count))
    })
}

/// The number of blocks, from the first on, that may be rewritten as one.
fn run(blocks: &[BlockUsage], block_bytes: u64, joins: impl Fn(BlockUsage) -> bool) -> usize {
    let (mut read, mut live) = (0, 0);
    let fits = |block: &&BlockUsage| {
        read += block.bytes;
        live += block.live_bytes;
        joins(**block) && read <= 2 * block_bytes && live <= block_bytes
    };
    blocks.iter().take_while(fits).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    const BLOCK: u64 = 4096;

    fn usages(of: &[(u64, u64)]) -> Vec<BlockUsage> {
        of.iter()
            .map(|(bytes, live_bytes)| BlockUsage { bytes: *bytes, live_bytes: *live_bytes })
            .collect()
    }

    #[test]
    fn full_blocks_are_left_alone() {
        assert_eq!(next(&usages(&[(4096, 4096), (4096, 2048), (100, 100)]), BLOCK), None);
    }

    #[test]
    fn dead_blocks_go_first_and_together() {
        let blocks = usages(&[(4096, 10), (4096, 0), (4096, 0), (4096, 10)]);
        assert_eq!(next(&blocks, BLOCK), Some((1, 2)));
    }

    #[test]
    fn a_thin_block_takes_thin_neighbours_along_but_reads_a_bounded_amount() {
        let blocks = usages(&[(4096, 4096), (4096, 2000), (4096, 2000), (4096, 10)]);
        assert_eq!(next(&blocks, BLOCK), Some((1, 2)));
    }

    #[test]
    fn one_huge_thin_block_is_rewritten_alone() {
        assert_eq!(next(&usages(&[(1 << 20, 1000), (50, 50)]), BLOCK), Some((0, 1)));
    }

    #[test]
    fn small_blocks_are_joined_when_there_are_many_alike() {
        assert_eq!(next(&usages(&[(100, 100); 7]), BLOCK), None, "too few");
        assert_eq!(next(&usages(&[(100, 100); 9]), BLOCK), Some((0, 9)));
        let mut uneven = vec![(1900, 1900)];
        uneven.extend([(10, 10); 8]);
        assert_eq!(
            next(&usages(&uneven), BLOCK),
            Some((1, 8)),
            "the large one is not copied along"
        );
    }
}
