//! The state of the log in memory: all requested changes, and how many of them are durable.
//!
//! A request changes this state at once, so that its entries can be read at once. The writer settles
//! the request when it is on disk. In between, a truncation hides the entries on disk that it drops.

use std::{collections::VecDeque, ops::Range};

use super::{
    error::WalError,
    format::Record,
    frames::{Effect, FrameIndex, FrameLocation, FrameRef},
    positions::{Positions, next_index},
    tail::TailCache,
};
use crate::types::{HardState, LogEntry, LogPosition};

#[derive(Debug)]
pub struct State {
    hard: HardState,
    positions: Positions,
    tail: TailCache,
    tail_bytes_max: usize,
    /// Frames on disk. Lags behind `positions`.
    frames: FrameIndex,
    /// One more than the last index on disk.
    written_next: u64,
    /// One more than the last index on disk that no pending truncation drops.
    durable_next: u64,
    /// Number of requests so far.
    requests: u64,
    /// Length of all segments, as of the last frame.
    disk_bytes: u64,
    /// Pending truncations: the number of the request, and the next index that it leaves. Bounded by
    /// the requests in flight.
    truncations: VecDeque<(u64, u64)>,
}

/// The location of the entries of a read.
pub enum ReadPlan {
    Ready(Vec<LogEntry>),
    /// In these frames. The range is limited to entries that the frames must hold.
    Disk(Vec<FrameRef>, Range<u64>),
}

impl State {
    /// A log without entries that ends at `last`.
    pub fn after(last: Option<LogPosition>, hard: HardState, tail_bytes_max: usize) -> State {
        State {
            hard,
            positions: Positions::after(last),
            tail: TailCache::default(),
            tail_bytes_max,
            frames: FrameIndex::default(),
            written_next: next_index(last),
            durable_next: next_index(last),
            requests: 0,
            disk_bytes: 0,
            truncations: VecDeque::new(),
        }
    }

    pub fn hard(&self) -> HardState {
        self.hard
    }

    pub fn positions(&self) -> &Positions {
        &self.positions
    }

    pub fn durable(&self) -> Option<u64> {
        self.durable_next.checked_sub(1)
    }

    pub fn bytes_since(&self, index: u64) -> u64 {
        self.frames.bytes_since(index)
    }

    pub fn disk_bytes(&self) -> u64 {
        self.disk_bytes
    }

    pub fn set_disk_bytes(&mut self, bytes: u64) {
        self.disk_bytes = bytes;
    }

    pub fn requests(&self) -> u64 {
        self.requests
    }

    /// Ends a request: all changes applied since the last call. The writer counts requests in the same
    /// way.
    pub fn end_request(&mut self) {
        self.requests += 1;
    }

    /// Applies `record`. The error names the problem. Serves requests and recovery alike: recovery
    /// refuses exactly the changes that callers must not request.
    pub fn apply(&mut self, record: Record) -> Result<(), String> {
        match record {
            Record::Entry(entry) => {
                self.positions.push(entry.position)?;
                self.tail.push(entry);
            }
            Record::Vote(vote) => self.hard.vote = Some(vote),
            Record::Committed(position) => self.hard.committed = Some(position),
            Record::TruncateAfter(position) => self.truncate_after(position)?,
            Record::Purge(position) => self.purge(position)?,
        }
        Ok(())
    }

    fn truncate_after(&mut self, position: Option<LogPosition>) -> Result<(), String> {
        let next = next_index(position);
        let known = position.and_then(|position| self.positions.at(position.index));
        if next > self.positions.next() || known.is_some_and(|known| Some(known) != position) {
            return Err(format!("a truncation to {position:?}, which is not in the log"));
        }
        if next < next_index(self.hard.purged) {
            return Err(format!("a truncation to {position:?}, which was purged"));
        }
        self.positions.truncate_after(position);
        self.tail.truncate(next);
        self.truncations.push_back((self.requests, next));
        self.durable_next = self.durable_next.min(next);
        Ok(())
    }

    fn purge(&mut self, position: LogPosition) -> Result<(), String> {
        if self.hard.purged.is_some_and(|purged| purged.index >= position.index) {
            return Err(format!("a purge up to {position:?}, which was purged before"));
        }
        let known = self.positions.at(position.index);
        if known.is_some_and(|known| known != position) {
            return Err(format!("a purge up to {position:?}, where the log holds {known:?}"));
        }
        self.hard.purged = Some(position);
        self.positions.purge(position);
        self.tail.purge(position.index + 1);
        Ok(())
    }

    /// Records that a frame, and with it the first `settled` requests, is durable.
    pub fn settle(&mut self, settled: u64, location: &FrameLocation, effects: &[Effect]) {
        self.frames.add(location, effects);
        for effect in effects {
            self.written_next = match *effect {
                Effect::Append { end, .. } => end,
                Effect::Truncate { next } => next,
                Effect::Purge { first } => self.written_next.max(first),
            };
        }
        while self.truncations.front().is_some_and(|(request, _)| *request < settled) {
            self.truncations.pop_front();
        }
        let hidden = self.truncations.iter().map(|(_, next)| *next);
        self.durable_next = hidden.fold(self.written_next, u64::min);
        self.tail.evict(self.tail_bytes_max, self.durable_next);
    }

    /// Locates the entries of `range`, or of the prefix that fits `bytes_max`.
    pub fn plan_read(&self, range: Range<u64>, bytes_max: usize) -> Result<ReadPlan, WalError> {
        let (first, next) = (self.positions.first(), self.positions.next());
        if range.start >= range.end.min(next) {
            return Ok(ReadPlan::Ready(Vec::new()));
        }
        if range.start < first {
            return Err(WalError::Purged { index: range.start, first });
        }
        let tail_first = self.tail.first().unwrap_or(next);
        if range.start >= tail_first {
            return Ok(ReadPlan::Ready(self.tail.read(range, bytes_max)));
        }
        // Entries that are not in the tail cache are on disk, and no pending truncation drops them.
        let range = range.start..range.end.min(tail_first);
        Ok(ReadPlan::Disk(self.frames.covering(range.clone(), bytes_max), range))
    }
}

#[cfg(test)]
mod tests {
    use std::{path::Path, sync::Arc};

    use bytes::Bytes;

    use super::*;
    use crate::{
        disk::sim::SimDisk,
        types::{EntryKind, Term},
        wal::{
            format::{PAGE_BYTES, SegmentHeader},
            segment::PreallocatedFile,
        },
    };

    fn any_location() -> FrameLocation {
        let disk = SimDisk::new(1);
        let header = SegmentHeader {
            member: Default::default(),
            sequence: 1,
            salt: 1,
            salt_before: 0,
            segment_bytes: 0,
            first_batch: 1,
            last: None,
            hard: HardState::default(),
        };
        let spare = PreallocatedFile::prepare(&disk, Path::new(""), 0, 2 * PAGE_BYTES).unwrap();
        let segment = Arc::new(spare.activate(&disk, Path::new(""), header).unwrap());
        FrameLocation { segment, offset: PAGE_BYTES, bytes: PAGE_BYTES }
    }

    fn request(state: &mut State, records: Vec<Record>) {
        records.into_iter().for_each(|record| state.apply(record).unwrap());
        state.end_request();
    }

    fn entries(term: u64, range: Range<u64>) -> Vec<Record> {
        let entry = |index| LogEntry {
            position: LogPosition { term: Term(term), index },
            kind: EntryKind::Blank,
            data: Bytes::new(),
        };
        range.map(|index| Record::Entry(entry(index))).collect()
    }

    /// The writer settles request by request here, while more of them are pending.
    #[test]
    fn entries_behind_a_pending_truncation_are_neither_durable_nor_dropped_from_memory() {
        let (mut state, location) = (State::after(None, HardState::default(), 0), any_location());
        let kept = LogPosition { term: Term(1), index: 4 };
        request(&mut state, entries(1, 0..10));
        request(&mut state, vec![Record::TruncateAfter(Some(kept))]);
        request(&mut state, entries(2, 5..20));
        let replaced = |state: &State| match state.plan_read(5..20, 1000).unwrap() {
            ReadPlan::Ready(read) => read.len(),
            ReadPlan::Disk(..) => 0,
        };

        state.settle(1, &location, &[Effect::Append { first: 0, end: 10 }]);
        assert_eq!((state.durable(), replaced(&state)), (Some(4), 15));
        state.settle(2, &location, &[Effect::Truncate { next: 5 }]);
        assert_eq!((state.durable(), replaced(&state)), (Some(4), 15));
        state.settle(3, &location, &[Effect::Append { first: 5, end: 20 }]);
        assert_eq!((state.durable(), replaced(&state)), (Some(19), 0));
    }

    #[test]
    fn impossible_changes_are_refused() {
        let mut state = State::after(None, HardState::default(), 0);
        let at = |term, index| LogPosition { term: Term(term), index };
        request(&mut state, entries(2, 0..10));
        request(&mut state, vec![Record::Purge(at(2, 3))]);
        let mut refused = |record| assert!(state.apply(record).is_err());
        for gap in [9, 11] {
            refused(entries(2, gap..gap + 1).remove(0));
        }
        refused(entries(1, 10..11).remove(0));
        refused(Record::TruncateAfter(Some(at(1, 5))));
        refused(Record::TruncateAfter(Some(at(2, 10))));
        refused(Record::TruncateAfter(Some(at(2, 2))));
        refused(Record::TruncateAfter(None));
        refused(Record::Purge(at(2, 3)));
        refused(Record::Purge(at(1, 7)));
    }
}
