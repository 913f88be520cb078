//! The positions that the log holds: the term of every index, as runs of equal terms.
//!
//! Terms change rarely, so this stays small however long the log is.

use std::collections::VecDeque;

use crate::types::{LogPosition, Term};

/// The indexes `first..next`, their terms, and the position just before `first`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Positions {
    first: u64,
    next: u64,
    before: Option<LogPosition>,
    /// `(first index, term)`, ascending in both. The first run begins at `first`.
    runs: VecDeque<(u64, Term)>,
}

impl Positions {
    /// No entries; the next one follows this position.
    pub fn after(before: Option<LogPosition>) -> Positions {
        let first = next_index(before);
        Positions { first, next: first, before, runs: VecDeque::new() }
    }

    pub fn first(&self) -> u64 {
        self.first
    }

    /// One more than the last index; in an empty log its first index.
    pub fn next(&self) -> u64 {
        self.next
    }

    /// The last position; in an empty log the position that it was purged or truncated to.
    pub fn last(&self) -> Option<LogPosition> {
        match self.runs.back() {
            Some((_, term)) => Some(LogPosition { term: *term, index: self.next - 1 }),
            None => self.before,
        }
    }

    pub fn at(&self, index: u64) -> Option<LogPosition> {
        if index >= self.next {
            return None;
        }
        if index < self.first {
            return self.before.filter(|before| before.index == index);
        }
        let after = self.runs.partition_point(|(first, _)| *first <= index);
        let (_, term) = self.runs.get(after.checked_sub(1)?)?;
        Some(LogPosition { term: *term, index })
    }

    /// Adds the next position. The error names the problem.
    pub fn push(&mut self, position: LogPosition) -> Result<(), String> {
        let last = self.last();
        if position.index != self.next {
            return Err(format!("entry {} instead of entry {}", position.index, self.next));
        }
        if last.is_some_and(|last| last.term > position.term) {
            return Err(format!("the term decreases to {} at {}", position.term, position.index));
        }
        if self.runs.back().is_none_or(|(_, term)| *term != position.term) {
            self.runs.push_back((position.index, position.term));
        }
        self.next += 1;
        Ok(())
    }

    /// Drops all positions after `position`, which may lie before the first index.
    pub fn truncate_after(&mut self, position: Option<LogPosition>) {
        let next = next_index(position);
        if next <= self.first {
            *self = Positions::after(position);
            return;
        }
        while self.runs.back().is_some_and(|(first, _)| *first >= next) {
            self.runs.pop_back();
        }
        self.next = next;
    }

    /// Drops all positions up to `position`, which may lie beyond the end.
    pub fn purge(&mut self, position: LogPosition) {
        let first = position.index + 1;
        if first >= self.next {
            *self = Positions::after(Some(position));
            return;
        }
        if first <= self.first {
            return;
        }
        while self.runs.get(1).is_some_and(|(next_run, _)| *next_run <= first) {
            self.runs.pop_front();
        }
        if let Some(run) = self.runs.front_mut() {
            run.0 = first;
        }
        self.first = first;
        self.before = Some(position);
    }
}

/// The index that follows a position.
pub fn next_index(position: Option<LogPosition>) -> u64 {
    position.map_or(0, |position| position.index + 1)
}
