//! Locations of the live entries on disk: one small reference per frame, in index order.

use std::{collections::VecDeque, ops::Range, sync::Arc};

use super::{format::Record, positions::next_index, segment::Segment};
use crate::types::{LogEntry, LogPosition};

/// One change that a frame made to the set of entries on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    Append {
        first: u64,
        end: u64,
    },
    /// Entries from `next` on are gone.
    Truncate {
        next: u64,
    },
    /// Entries before `first` are gone.
    Purge {
        first: u64,
    },
}

impl Effect {
    pub fn of(record: &Record) -> Option<Effect> {
        match record {
            Record::Entry(LogEntry { position: LogPosition { index, .. }, .. }) => {
                Some(Effect::Append { first: *index, end: index + 1 })
            }
            Record::TruncateAfter(position) => {
                Some(Effect::Truncate { next: next_index(*position) })
            }
            Record::Purge(position) => Some(Effect::Purge { first: position.index + 1 }),
            Record::Vote(_) | Record::Committed(_) => None,
        }
    }
}

/// A frame in a file.
#[derive(Debug, Clone)]
pub struct FrameLocation {
    pub segment: Arc<Segment>,
    pub offset: u64,
    pub bytes: u64,
}

/// A frame and the entries in it that are still part of the log, `first..end`.
#[derive(Debug, Clone)]
pub struct FrameRef {
    pub first: u64,
    pub end: u64,
    pub location: FrameLocation,
    /// The bytes of all frames that were written before it.
    log_offset: u64,
}

/// References to frames with contiguous entries, oldest first.
#[derive(Debug, Default)]
pub struct FrameIndex {
    frames: VecDeque<FrameRef>,
    /// The bytes of all frames so far.
    log_bytes: u64,
}

impl FrameIndex {
    /// Adds a frame that is on disk.
    pub fn add(&mut self, location: &FrameLocation, effects: &[Effect]) {
        for effect in effects {
            match *effect {
                Effect::Append { first, end } => self.append(location, first, end),
                Effect::Truncate { next } => self.truncate(next),
                Effect::Purge { first } => self.purge(first),
            }
        }
        self.log_bytes += location.bytes;
    }

    /// The frames that hold this range, in order, until about `bytes_max`; at least one.
    pub fn covering(&self, range: Range<u64>, bytes_max: usize) -> Vec<FrameRef> {
        let start = self.frames.partition_point(|frame| frame.end <= range.start);
        let mut bytes = 0;
        let wanted = self.frames.iter().skip(start);
        wanted
            .take_while(|frame| {
                let admitted = bytes == 0 || bytes < bytes_max as u64;
                bytes += frame.location.bytes;
                admitted && frame.first < range.end
            })
            .cloned()
            .collect()
    }

    /// Bytes of all frames from the one with the first entry after `index` on.
    pub fn bytes_since(&self, index: u64) -> u64 {
        let at = self.frames.partition_point(|frame| frame.end <= index.saturating_add(1));
        self.frames.get(at).map_or(0, |frame| self.log_bytes - frame.log_offset)
    }

    fn append(&mut self, location: &FrameLocation, first: u64, end: u64) {
        let log_offset = self.log_bytes;
        match self.frames.back_mut() {
            Some(last) if last.log_offset == log_offset => last.end = end,
            _ => self.frames.push_back(FrameRef {
                first,
                end,
                location: location.clone(),
                log_offset,
            }),
        }
    }

    fn truncate(&mut self, next: u64) {
        while self.frames.back().is_some_and(|frame| frame.first >= next) {
            self.frames.pop_back();
        }
        if let Some(frame) = self.frames.back_mut() {
            frame.end = frame.end.min(next);
        }
    }

    fn purge(&mut self, first: u64) {
        while self.frames.front().is_some_and(|frame| frame.end <= first) {
            self.frames.pop_front();
        }
        if let Some(frame) = self.frames.front_mut() {
            frame.first = frame.first.max(first);
        }
    }
}
