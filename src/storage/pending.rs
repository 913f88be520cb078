//! The pending queue: changes that were submitted and are not in blocks and tables yet.
//!
//! The state machine pushes at one end, the state-writer lane takes from the other, up to the entry
//! that the WAL has synced. Bounded: submitters wait for room first, so the queue exceeds its limit by
//! at most one chunk.

use std::{collections::VecDeque, sync::Arc};

use super::live_bytes::LiveBytes;
use crate::{
    state::{Changes, Record, TableChange},
    types::{LogPosition, RecordId, Revision},
};

/// Memory of a record, a table change or a chunk, without keys and values.
const OVERHEAD_BYTES: usize = 128;
/// Weight of a discarded record, so that discards make a write due like records do.
const DISCARD_BYTES: usize = 64;

#[derive(Debug)]
struct Chunk {
    changes: Arc<Changes>,
    bytes: usize,
    /// The last record submitted up to this chunk.
    last: RecordId,
}

/// The queue between the state machine and its writer.
#[derive(Debug)]
pub struct Pending {
    chunks: VecDeque<Chunk>,
    bytes: usize,
    /// The last index that the WAL has synced; none: no entry.
    durable: Option<u64>,
    /// The chunks at the front that the synced WAL covers, and their weight.
    durable_chunks: usize,
    durable_bytes: usize,
    /// Weight of durable chunks that makes a write due.
    block_bytes: usize,
    /// A caller waits until this index is written.
    target: Option<u64>,
    /// The lane was woken and has not looked at the queue yet.
    woken: bool,
    last: RecordId,
    /// Of the whole state, including records in blocks.
    live: LiveBytes,
    closed: bool,
}

impl Pending {
    /// `last` is the last record in a block, `live` the size of the state with an empty queue.
    pub fn new(
        block_bytes: usize,
        durable: Option<u64>,
        last: RecordId,
        live: LiveBytes,
    ) -> Pending {
        Pending {
            chunks: VecDeque::new(),
            bytes: 0,
            durable,
            durable_chunks: 0,
            durable_bytes: 0,
            block_bytes,
            target: None,
            woken: false,
            last,
            live,
            closed: false,
        }
    }

    /// Bytes in memory.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Size of the live data, pending or in blocks.
    pub fn live_bytes(&self) -> u64 {
        self.live.total()
    }

    /// Subtracts records that were marked dead in their blocks.
    pub fn remove_dead(&mut self, bytes: u64) {
        self.live.remove_records(bytes);
    }

    /// Corrects the size of live records that were rewritten. In blocks of version 1 it was estimated;
    /// now it is exact.
    pub fn replace_rewritten(&mut self, counted_bytes: u64, exact_bytes: u64) {
        self.live.replace_records(counted_bytes, exact_bytes);
    }

    pub fn durable(&self) -> Option<u64> {
        self.durable
    }

    /// The position of the last chunk.
    pub fn last_position(&self) -> Option<LogPosition> {
        self.chunks.back().map(|chunk| chunk.changes.position)
    }

    /// Drops later chunks: the state was replaced, or the store closed. Queued chunks stay readable.
    pub fn close(&mut self) {
        self.closed = true;
    }

    pub fn is_full(&self, bytes_max: usize) -> bool {
        self.bytes >= bytes_max && !self.closed
    }

    /// Returns whether the lane must be woken.
    pub fn push(&mut self, changes: Changes) -> bool {
        if self.closed {
            return false;
        }
        for record in &changes.records {
            let id = record.meta.id;
            assert!(id > self.last, "record {id} is submitted after {}", self.last);
            self.last = id;
        }
        self.live.add(&changes);
        let bytes = weight(&changes);
        self.chunks.push_back(Chunk { changes: Arc::new(changes), bytes, last: self.last });
        self.bytes += bytes;
        self.advance_durable();
        self.take_wake()
    }

    /// Sets the last index that the WAL has synced. It decreases after a truncation. Returns whether
    /// the lane must be woken.
    pub fn set_durable(&mut self, index: u64) -> bool {
        if self.durable.is_some_and(|before| index < before) {
            (self.durable_chunks, self.durable_bytes) = (0, 0);
        }
        self.durable = Some(index);
        self.advance_durable();
        self.take_wake()
    }

    fn advance_durable(&mut self) {
        while let Some(chunk) = self.chunks.get(self.durable_chunks) {
            if self.durable.is_none_or(|durable| chunk.changes.position.index > durable) {
                break;
            }
            self.durable_chunks += 1;
            self.durable_bytes += chunk.bytes;
        }
    }

    /// Whether the lane must write now.
    pub fn is_due(&self) -> bool {
        let target_durable =
            self.target.is_some_and(|target| self.durable.is_some_and(|at| at >= target));
        target_durable || self.durable_bytes >= self.block_bytes
    }

    fn take_wake(&mut self) -> bool {
        let wake = self.is_due() && !self.woken;
        self.woken |= wake;
        wake
    }

    /// The lane looks at the queue now, so the next due write must wake it again. `target` is the first
    /// index that a caller waits for.
    pub fn rearm(&mut self, target: Option<u64>) {
        self.woken = false;
        self.target = target;
    }

    /// The next chunks to write: durable, up to `target` if given, of about `bytes_max` together. They
    /// stay readable here until [`Pending::written`].
    pub fn next(&self, target: Option<u64>, bytes_max: usize) -> Vec<Arc<Changes>> {
        let mut bytes = 0;
        let durable = self.chunks.iter().take(self.durable_chunks);
        let wanted = durable.take_while(|chunk| {
            let fits = bytes < bytes_max;
            bytes += chunk.bytes;
            fits && target.is_none_or(|target| chunk.changes.position.index <= target)
        });
        wanted.map(|chunk| chunk.changes.clone()).collect()
    }

    /// Removes the first `count` chunks: their records are readable from blocks now.
    pub fn written(&mut self, count: usize) {
        for chunk in self.chunks.drain(..count.min(self.chunks.len())) {
            self.bytes -= chunk.bytes;
            if self.durable_chunks > 0 {
                self.durable_chunks -= 1;
                self.durable_bytes -= chunk.bytes;
            }
        }
    }

    /// The pending chunks from revision `from` on, up to `bytes_max` of records. A chunk never ends
    /// within a revision.
    pub fn since(&self, from: Revision, bytes_max: usize) -> Vec<Arc<Changes>> {
        let first = self.chunks.partition_point(|chunk| chunk.last.main < from);
        let mut bytes = 0;
        let wanted = self.chunks.range(first..).take_while(|chunk| {
            let fits = bytes == 0 || bytes < bytes_max;
            bytes += chunk.changes.records.iter().map(|record| record.bytes()).sum::<usize>();
            fits
        });
        wanted.map(|chunk| chunk.changes.clone()).collect()
    }

    pub fn get(&self, id: RecordId) -> Option<Arc<Record>> {
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
        Pending::new(1000, durable, RecordId::default(), LiveBytes::default())
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
    fn the_lane_is_woken_once_per_look() {
        let mut pending = empty(None);
        assert!(!pending.push(chunk(1, 2000)), "not durable");
        assert!(pending.set_durable(1));
        assert!(!pending.set_durable(1), "woken already");
        pending.rearm(None);
        pending.written(1);
        assert!(!pending.push(chunk(2, 10)) && !pending.set_durable(2), "too little");
        pending.rearm(Some(3));
        assert!(!pending.push(chunk(3, 10)), "requested, but not durable");
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
