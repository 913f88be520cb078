//! The dead records of a block: one bit per record, in chunks that are small enough for the tables.

use bytes::Bytes;

const CHUNK_BYTES: usize = 512;
const CHUNK_RECORDS: usize = CHUNK_BYTES * 8;

/// The dead records of one block, by their index in it.
#[derive(Debug, Clone)]
pub struct DeadSet {
    /// Whole chunks; empty while nothing is dead.
    bits: Vec<u8>,
    records: u32,
    count: u32,
}

impl DeadSet {
    pub fn new(records: u32) -> DeadSet {
        DeadSet { bits: Vec::new(), records, count: 0 }
    }

    /// Number of dead records.
    pub fn count(&self) -> u32 {
        self.count
    }

    pub fn contains(&self, ordinal: usize) -> bool {
        self.bits.get(ordinal / 8).is_some_and(|byte| byte & (1 << (ordinal % 8)) != 0)
    }

    /// Returns the changed chunk; `None` if the record was dead before.
    pub fn mark(&mut self, ordinal: usize) -> Option<u32> {
        assert!(ordinal < self.records as usize, "the block has no record {ordinal}");
        if self.contains(ordinal) {
            return None;
        }
        let chunk = ordinal / CHUNK_RECORDS;
        let end = (chunk + 1) * CHUNK_BYTES;
        if self.bits.len() < end {
            self.bits.resize(end, 0);
        }
        self.bits[ordinal / 8] |= 1 << (ordinal % 8);
        self.count += 1;
        u32::try_from(chunk).ok()
    }

    /// The chunks that have a dead record.
    pub fn chunks(&self) -> impl Iterator<Item = u32> {
        let chunks = self.bits.chunks(CHUNK_BYTES).enumerate();
        let used = chunks.filter(|(_, bits)| bits.iter().any(|byte| *byte != 0));
        used.filter_map(|(chunk, _)| u32::try_from(chunk).ok())
    }

    /// The table value of a chunk.
    pub fn chunk(&self, chunk: u32) -> Bytes {
        let start = chunk as usize * CHUNK_BYTES;
        Bytes::copy_from_slice(&self.bits[start..start + CHUNK_BYTES])
    }

    /// Loads a chunk from the tables. `None`: it cannot belong to this block.
    pub fn load(&mut self, chunk: u32, bits: &[u8]) -> Option<()> {
        let start = usize::try_from(chunk).ok()?.checked_mul(CHUNK_BYTES)?;
        let fits = start.checked_mul(8)? < self.records as usize && bits.len() == CHUNK_BYTES;
        if !fits {
            return None;
        }
        if self.bits.len() < start + CHUNK_BYTES {
            self.bits.resize(start + CHUNK_BYTES, 0);
        }
        self.bits[start..start + CHUNK_BYTES].copy_from_slice(bits);
        self.count += bits.iter().map(|byte| byte.count_ones()).sum::<u32>();
        (self.count <= self.records).then_some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dead_records_survive_the_way_through_the_tables() {
        let mut dead = DeadSet::new(10_000);
        let marked = [0, 1, 4095, 4096, 9_999];
        for ordinal in marked {
            assert!(dead.mark(ordinal).is_some());
            assert!(dead.mark(ordinal).is_none(), "it is dead already");
        }
        let mut loaded = DeadSet::new(10_000);
        for chunk in dead.chunks() {
            loaded.load(chunk, &dead.chunk(chunk)).unwrap();
        }
        assert_eq!(loaded.count(), 5);
        let found: Vec<_> = (0..10_000).filter(|ordinal| loaded.contains(*ordinal)).collect();
        assert_eq!(found, marked);
    }

    #[test]
    fn a_chunk_that_cannot_belong_to_the_block_is_refused() {
        let mut dead = DeadSet::new(100);
        assert!(dead.load(1, &[0; CHUNK_BYTES]).is_none(), "beyond its records");
        assert!(dead.load(0, &[0; 3]).is_none(), "too short");
        assert!(dead.load(0, &[0xff; CHUNK_BYTES]).is_none(), "more dead than there are");
    }
}
