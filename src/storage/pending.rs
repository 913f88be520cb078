//! What was submitted and is not written to blocks and tables yet.
//!
//! The state machine pushes at one end, the state-writer lane takes from the other: never beyond
//! what the WAL holds durably. Bounded: who submits waits for room first, so at most one chunk more
//! than the limit is ever in here.

use std::{collections::VecDeque, sync::Arc};

use crate::{
    state::{Changes, Record, TableChange},
    types::{LogPosition, RecordId, Revision},
};

/// What a record, a table change and a chunk cost in memory, beside keys and values.
const OVERHEAD_BYTES: usize = 128;
/// A discarded record lets the lane work as if so many bytes had been written.
const DISCARD_BYTES: usize = 64;

#[derive(Debug)]
struct Chunk {
    changes: Arc<Changes>,
    bytes: usize,
    /// The last record submitted up to here.
    last: RecordId,
}

/// The queue between the state machine and its writer.
#[derive(Debug)]
pub(super) struct Pending {
    chunks: VecDeque<Chunk>,
    bytes: usize,
    /// How far the WAL is durable; none: not at all.
    durable: Option<u64>,
    /// How many chunks from the front that covers, and how heavy they are.
    durable_chunks: usize,
    durable_bytes: usize,
    /// So many durable bytes are worth a block.
    block_bytes: usize,
    /// Somebody waits until this index is written.
    target: Option<u64>,
    /// The lane was told, and did not look yet.
    told: bool,
    last: RecordId,
    closed: bool,
}

impl Pending {
    /// `last` is the last record that is in a block.
    pub(super) fn new(block_bytes: usize, durable: Option<u64>, last: RecordId) -> Pending {
        Pending {
            chunks: VecDeque::new(),
            bytes: 0,
            durable,
            durable_chunks: 0,
            durable_bytes: 0,
            block_bytes,
            target: None,
            told: false,
            last,
            closed: false,
        }
    }

    /// Bytes in memory.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn durable(&self) -> Option<u64> {
        self.durable
    }

    /// Where the last chunk brings the state.
    pub(super) fn last_position(&self) -> Option<LogPosition> {
        self.chunks.back().map(|chunk| chunk.changes.position)
    }

    /// Nothing is taken in any more: the state was replaced, or the store closed. What is here stays
    /// readable.
    pub(super) fn close(&mut self) {
        self.closed = true;
    }

    pub(super) fn is_full(&self, bytes_max: usize) -> bool {
        self.bytes >= bytes_max && !self.closed
    }

    /// Says whether the lane must be told.
    pub(super) fn push(&mut self, changes: Changes) -> bool {
        if self.closed {
            return false;
        }
        for record in &changes.records {
            let id = record.meta.id;
            assert!(id > self.last, "record {id} is submitted after {}", self.last);
            self.last = id;
        }
        let bytes = weight(&changes);
        self.chunks.push_back(Chunk { changes: Arc::new(changes), bytes, last: self.last });
        self.bytes += bytes;
        self.cover();
        self.must_tell()
    }

    /// Takes note of how far the WAL is durable: less than before after a truncation. Says whether
    /// the lane must be told.
    pub(super) fn set_durable(&mut self, index: u64) -> bool {
        if self.durable.is_some_and(|before| index < before) {
            (self.durable_chunks, self.durable_bytes) = (0, 0);
        }
        self.durable = Some(index);
        self.cover();
        self.must_tell()
    }

    fn cover(&mut self) {
        while let Some(chunk) = self.chunks.get(self.durable_chunks) {
            if self.durable.is_none_or(|durable| chunk.changes.position.index > durable) {
                break;
            }
            self.durable_chunks += 1;
            self.durable_bytes += chunk.bytes;
        }
    }

    /// Whether there is something for the lane to write.
    pub(super) fn is_due(&self) -> bool {
        let asked = self.target.is_some_and(|target| self.durable.is_some_and(|at| at >= target));
        asked || self.durable_bytes >= self.block_bytes
    }

    fn must_tell(&mut self) -> bool {
        let tell = self.is_due() && !self.told;
        self.told |= tell;
        tell
    }

    /// The lane looks: the next thing that becomes due is worth telling again. `target` is the first
    /// index that somebody waits for.
    pub(super) fn looked(&mut self, target: Option<u64>) {
        self.told = false;
        self.target = target;
    }

    /// The next chunks to write: durable, up to `target` if given, and as many as make
    /// about `bytes_max`. They stay readable here until [`Pending::written`].
    pub(super) fn next(&self, target: Option<u64>, bytes_max: usize) -> Vec<Arc<Changes>> {
        let mut bytes = 0;
        let durable = self.chunks.iter().take(self.durable_chunks);
        let wanted = durable.take_while(|chunk| {
            let fits = bytes < bytes_max;
            bytes += chunk.bytes;
            fits && target.is_none_or(|target| chunk.changes.position.index <= target)
        });
        wanted.map(|chunk| chunk.changes.clone()).collect()
    }

    /// The first `count` chunks are readable from blocks now.
    pub(super) fn written(&mut self, count: usize) {
        for chunk in self.chunks.drain(..count.min(self.chunks.len())) {
            self.bytes -= chunk.bytes;
            if self.durable_chunks > 0 {
                self.durable_chunks -= 1;
                self.durable_bytes -= chunk.bytes;
            }
        }
    }

    /// What is pending of the revisions from `from` on: the chunks that begin there, up to
    /// `bytes_max` of records. A chunk never ends within a revision.
    pub(super) fn since(&self, from: Revision, bytes_max: usize) -> Vec<Arc<Changes>> {
        let first = self.chunks.partition_point(|chunk| chunk.last.main < from);
        let mut bytes = 0;
        let wanted = self.chunks.range(first..).take_while(|chunk| {
            let fits = bytes < bytes_max;
            bytes += chunk.changes.records.iter().map(|record| record.bytes()).sum::<usize>();
            fits
        });
        wanted.map(|chunk| chunk.changes.clone()).collect()
    }

    pub(super) fn get(&self, id: RecordId) -> Option<Arc<Record>> {
        let at = self.chunks.partition_point(|chunk| chunk.last < id);
        let records = &self.chunks.get(at)?.changes.records;
        let found = records.binary_search_by_key(&id, |record| record.meta.id).ok()?;
        records.get(found).cloned()
    }
}

fn weight(changes: &Changes) -> usize {
    let records = changes.records.iter();
    let records = records.map(|record| record.meta.key.len() + record.value.len() + OVERHEAD_BYTES);
    let tables = changes.tables.iter().map(|change| match change {
        TableChange::Put { key, value } => key.len() + value.len() + OVERHEAD_BYTES,
        TableChange::Delete { key } => key.len() + OVERHEAD_BYTES,
    });
    let discarded = changes.discarded.len() * DISCARD_BYTES;
    OVERHEAD_BYTES + discarded + records.chain(tables).sum::<usize>()
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::types::Term;

    fn chunk(index: u64, value_bytes: usize) -> Changes {
        let key = Bytes::from_static(b"k");
        let value = vec![0; value_bytes].into();
        Changes {
            position: LogPosition { term: Term(1), index },
            tables: vec![TableChange::Put { key, value }],
            ..Changes::default()
        }
    }

    fn empty(durable: Option<u64>) -> Pending {
        Pending::new(1000, durable, RecordId::default())
    }

    fn indexes(chunks: &[Arc<Changes>]) -> Vec<u64> {
        chunks.iter().map(|chunk| chunk.position.index).collect()
    }

    #[test]
    fn nothing_is_written_that_the_wal_could_lose() {
        let mut pending = empty(Some(2));
        for index in 1..=4 {
            pending.push(chunk(index, 2000));
        }
        assert_eq!(indexes(&pending.next(None, usize::MAX)), [1, 2]);
        pending.set_durable(3);
        assert_eq!(indexes(&pending.next(None, usize::MAX)), [1, 2, 3]);
        pending.set_durable(1);
        assert_eq!(indexes(&pending.next(None, usize::MAX)), [1], "the WAL was truncated");
        pending.written(1);
        assert!(pending.next(None, usize::MAX).is_empty());
    }

    #[test]
    fn the_lane_is_told_once_for_each_time_it_looks() {
        let mut pending = empty(None);
        assert!(!pending.push(chunk(1, 2000)), "not durable");
        assert!(pending.set_durable(1));
        assert!(!pending.set_durable(1), "told already");
        pending.looked(None);
        pending.written(1);
        assert!(!pending.push(chunk(2, 10)) && !pending.set_durable(2), "too little");
        pending.looked(Some(3));
        assert!(!pending.push(chunk(3, 10)), "asked for, but not durable");
        assert!(pending.set_durable(3));
    }

    #[test]
    fn a_target_cuts_between_chunks() {
        let mut pending = empty(Some(9));
        for index in 1..=4 {
            pending.push(chunk(index, 10));
        }
        assert_eq!(indexes(&pending.next(Some(2), usize::MAX)), [1, 2]);
        assert_eq!(indexes(&pending.next(Some(4), 300)), [1, 2], "and a bound on bytes too");
    }
}
