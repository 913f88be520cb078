//! What the log is, in memory: everything that was asked for, and how much of it is durable.
//!
//! A request changes this state when it is made, so that it can be read back at once; the writer
//! settles it when it is on disk. Between the two, a truncation hides what is on disk behind it.

use std::{collections::VecDeque, ops::Range};

use super::{
    error::WalError,
    format::Record,
    frames::{Effect, FrameIndex, FramePlace, FrameRef},
    positions::{Positions, next_index},
    tail::Tail,
};
use crate::types::{HardState, LogEntry, LogPosition};

#[derive(Debug)]
pub(super) struct State {
    hard: HardState,
    positions: Positions,
    tail: Tail,
    tail_bytes_max: usize,
    /// As far as frames are on disk: this lags behind `positions`.
    frames: FrameIndex,
    /// One more than the last index on disk, by what frames did so far.
    written_next: u64,
    /// The same, but without what a truncation on its way will drop.
    durable_next: u64,
    /// How many requests were made.
    requests: u64,
    /// The length of all segments, as of the last frame.
    disk_bytes: u64,
    /// Truncations on their way: which request, and the next index it leaves. At most as many as
    /// there are requests in flight.
    truncations: VecDeque<(u64, u64)>,
}

/// Where a read finds its entries.
pub(super) enum ReadPlan {
    Ready(Vec<LogEntry>),
    /// In these frames; the range is cut to what they must hold.
    Disk(Vec<FrameRef>, Range<u64>),
}

impl State {
    /// A log that ends at `last`, with nothing before it at hand.
    pub(super) fn after(
        last: Option<LogPosition>,
        hard: HardState,
        tail_bytes_max: usize,
    ) -> State {
        State {
            hard,
            positions: Positions::after(last),
            tail: Tail::default(),
            tail_bytes_max,
            frames: FrameIndex::default(),
            written_next: next_index(last),
            durable_next: next_index(last),
            requests: 0,
            disk_bytes: 0,
            truncations: VecDeque::new(),
        }
    }

    pub(super) fn hard(&self) -> HardState {
        self.hard
    }

    pub(super) fn positions(&self) -> &Positions {
        &self.positions
    }

    pub(super) fn durable(&self) -> Option<u64> {
        self.durable_next.checked_sub(1)
    }

    pub(super) fn bytes_since(&self, index: u64) -> u64 {
        self.frames.bytes_since(index)
    }

    pub(super) fn disk_bytes(&self) -> u64 {
        self.disk_bytes
    }

    pub(super) fn set_disk_bytes(&mut self, bytes: u64) {
        self.disk_bytes = bytes;
    }

    pub(super) fn requests(&self) -> u64 {
        self.requests
    }

    /// What was applied since the last call is one request. The writer counts them too.
    pub(super) fn end_request(&mut self) {
        self.requests += 1;
    }

    /// Changes the state as `record` says, or says why that makes no sense. Used for requests and
    /// at recovery: what recovery refuses is what no caller may ask for.
    pub(super) fn apply(&mut self, record: Record) -> Result<(), String> {
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
            return Err(format!("a truncation to {position:?}, which the log does not hold"));
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

    /// A frame is durable, and with it the first `settled` requests.
    pub(super) fn settle(&mut self, settled: u64, place: &FramePlace, effects: &[Effect]) {
        self.frames.add(place, effects);
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

    /// Finds the entries of `range`, as many of its first as fit.
    pub(super) fn plan_read(
        &self,
        range: Range<u64>,
        bytes_max: usize,
    ) -> Result<ReadPlan, WalError> {
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
        // What the tail does not hold is on disk, and no truncation on its way concerns it.
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
            segment::Spare,
        },
    };

    fn somewhere() -> FramePlace {
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
        let spare = Spare::prepare(&disk, Path::new(""), 0, 2 * PAGE_BYTES).unwrap();
        let segment = Arc::new(spare.activate(&disk, Path::new(""), header).unwrap());
        FramePlace { segment, offset: PAGE_BYTES, bytes: PAGE_BYTES }
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

    /// The writer works request by request here, while more of them wait.
    #[test]
    fn what_a_truncation_on_its_way_replaces_is_neither_durable_nor_dropped_from_memory() {
        let (mut state, place) = (State::after(None, HardState::default(), 0), somewhere());
        let kept = LogPosition { term: Term(1), index: 4 };
        request(&mut state, entries(1, 0..10));
        request(&mut state, vec![Record::TruncateAfter(Some(kept))]);
        request(&mut state, entries(2, 5..20));
        let replaced = |state: &State| match state.plan_read(5..20, 1000).unwrap() {
            ReadPlan::Ready(read) => read.len(),
            ReadPlan::Disk(..) => 0,
        };

        state.settle(1, &place, &[Effect::Append { first: 0, end: 10 }]);
        assert_eq!((state.durable(), replaced(&state)), (Some(4), 15));
        state.settle(2, &place, &[Effect::Truncate { next: 5 }]);
        assert_eq!((state.durable(), replaced(&state)), (Some(4), 15));
        state.settle(3, &place, &[Effect::Append { first: 5, end: 20 }]);
        assert_eq!((state.durable(), replaced(&state)), (Some(19), 0));
    }

    #[test]
    fn the_impossible_is_refused() {
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
