//! Which blocks are worth rewriting: a pure function.
//!
//! - A block without a live record is dropped, with its neighbours of that kind.
//! - A *thin* block (less than half of it lives) is rewritten, together with neighbours that are
//!   thin or small. So the disk holds at most about twice what lives.
//! - Small blocks, as flushes leave them, are joined once there are many side by side and none of
//!   them is half of the whole: so a record is joined only a few times in its life.
//!
//! One step reads at most two blocks' worth of bytes, or one block.

/// How full a block is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Load {
    pub(super) bytes: u64,
    pub(super) live_bytes: u64,
}

impl Load {
    fn is_thin(self) -> bool {
        self.live_bytes * 2 < self.bytes
    }
}

const JOIN_MIN: usize = 8;

/// The next run of blocks to rewrite, `(at, count)`; `block_bytes` is the size that blocks should
/// have.
pub(super) fn next(loads: &[Load], block_bytes: u64) -> Option<(usize, usize)> {
    let dead = |load: &Load| load.live_bytes == 0;
    if let Some(at) = loads.iter().position(dead) {
        return Some((at, loads[at..].iter().take_while(|load| dead(load)).count()));
    }
    if let Some(at) = loads.iter().position(|load| load.is_thin()) {
        let joins = |load: Load| load.is_thin() || load.live_bytes < block_bytes / 2;
        return Some((at, run(&loads[at..], block_bytes, joins).max(1)));
    }
    (0..loads.len()).find_map(|at| {
        let small = |load: Load| load.live_bytes < block_bytes / 2;
        let count = run(&loads[at..], block_bytes, small);
        let joined = &loads[at..at + count];
        let whole: u64 = joined.iter().map(|load| load.live_bytes).sum();
        let balanced = joined.iter().all(|load| load.live_bytes * 2 <= whole);
        (count >= JOIN_MIN && balanced).then_some((at, count))
    })
}

/// How many blocks from the first on may be rewritten as one.
fn run(loads: &[Load], block_bytes: u64, joins: impl Fn(Load) -> bool) -> usize {
    let (mut read, mut live) = (0, 0);
    let fits = |load: &&Load| {
        read += load.bytes;
        live += load.live_bytes;
        joins(**load) && read <= 2 * block_bytes && live <= block_bytes
    };
    loads.iter().take_while(fits).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    const BLOCK: u64 = 4096;

    fn loads(of: &[(u64, u64)]) -> Vec<Load> {
        of.iter()
            .map(|(bytes, live_bytes)| Load { bytes: *bytes, live_bytes: *live_bytes })
            .collect()
    }

    #[test]
    fn full_blocks_are_left_alone() {
        assert_eq!(next(&loads(&[(4096, 4096), (4096, 2048), (100, 100)]), BLOCK), None);
    }

    #[test]
    fn dead_blocks_go_first_and_together() {
        let blocks = loads(&[(4096, 10), (4096, 0), (4096, 0), (4096, 10)]);
        assert_eq!(next(&blocks, BLOCK), Some((1, 2)));
    }

    #[test]
    fn a_thin_block_takes_thin_neighbours_along_but_reads_a_bounded_amount() {
        let blocks = loads(&[(4096, 4096), (4096, 2000), (4096, 2000), (4096, 10)]);
        assert_eq!(next(&blocks, BLOCK), Some((1, 2)));
    }

    #[test]
    fn one_huge_thin_block_is_rewritten_alone() {
        assert_eq!(next(&loads(&[(1 << 20, 1000), (50, 50)]), BLOCK), Some((0, 1)));
    }

    #[test]
    fn small_blocks_are_joined_when_there_are_many_alike() {
        assert_eq!(next(&loads(&[(100, 100); 7]), BLOCK), None, "too few");
        assert_eq!(next(&loads(&[(100, 100); 9]), BLOCK), Some((0, 9)));
        let mut uneven = vec![(1900, 1900)];
        uneven.extend([(10, 10); 8]);
        assert_eq!(next(&loads(&uneven), BLOCK), Some((1, 8)), "the large one is not copied along");
    }
}
