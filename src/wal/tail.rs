//! The tail cache: decoded entries from the end of the log, which followers and the state machine read.

use std::{collections::VecDeque, ops::Range};

use crate::types::LogEntry;

/// Memory per entry, in addition to its data.
const ENTRY_OVERHEAD_BYTES: usize = size_of::<LogEntry>();

/// Contiguous entries up to the end of the log.
#[derive(Debug, Default)]
pub struct TailCache {
    entries: VecDeque<LogEntry>,
    bytes: usize,
}

impl TailCache {
    /// The index of the first cached entry.
    pub fn first(&self) -> Option<u64> {
        self.entries.front().map(|entry| entry.position.index)
    }

    pub fn push(&mut self, entry: LogEntry) {
        self.bytes += cost(&entry);
        self.entries.push_back(entry);
    }

    /// Drops all entries from `next` on.
    pub fn truncate(&mut self, next: u64) {
        while self.entries.back().is_some_and(|entry| entry.position.index >= next) {
            self.bytes -= self.entries.pop_back().as_ref().map_or(0, cost);
        }
    }

    /// Drops all entries before `first`.
    pub fn purge(&mut self, first: u64) {
        while self.first().is_some_and(|index| index < first) {
            self.pop_front();
        }
    }

    /// Drops the oldest entries down to `bytes_max`, but none that is not on disk.
    pub fn evict(&mut self, bytes_max: usize, durable_next: u64) {
        while self.bytes > bytes_max && self.first().is_some_and(|index| index < durable_next) {
            self.pop_front();
        }
    }

    /// The entries of a range that begins in the cache: at least one, then as many as fit.
    pub fn read(&self, range: Range<u64>, bytes_max: usize) -> Vec<LogEntry> {
        let Some(first) = self.first() else { return Vec::new() };
        let skipped = range.start.saturating_sub(first) as usize;
        let mut budget = ReadBudget::new(bytes_max);
        let wanted = self.entries.iter().skip(skipped);
        wanted
            .take_while(|entry| entry.position.index < range.end && budget.admits(entry))
            .cloned()
            .collect()
    }

    fn pop_front(&mut self) {
        self.bytes -= self.entries.pop_front().as_ref().map_or(0, cost);
    }
}

/// Bounds a read by bytes of data, but always admits the first entry.
#[derive(Debug)]
pub struct ReadBudget {
    bytes: usize,
    bytes_max: usize,
    first: bool,
}

impl ReadBudget {
    pub fn new(bytes_max: usize) -> ReadBudget {
        ReadBudget { bytes: 0, bytes_max, first: true }
    }

    pub fn admits(&mut self, entry: &LogEntry) -> bool {
        self.bytes = self.bytes.saturating_add(entry.data.len());
        std::mem::replace(&mut self.first, false) || self.bytes <= self.bytes_max
    }
}

fn cost(entry: &LogEntry) -> usize {
    ENTRY_OVERHEAD_BYTES + entry.data.len()
}
