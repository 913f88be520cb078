//! The segments of the log, oldest first, and the choice of those that a purge made removable.

use std::{collections::VecDeque, sync::Arc};

use super::{frames::Effect, segment::Segment};

#[derive(Debug, Default)]
pub struct Segments {
    live: VecDeque<LiveSegment>,
}

#[derive(Debug)]
struct LiveSegment {
    segment: Arc<Segment>,
    /// One more than the last index in it that is still part of the log.
    end: u64,
}

impl Segments {
    /// The segment that the writer appends to. Recovery or creation always pushes one.
    pub fn active(&self) -> &Arc<Segment> {
        &self.live.back().expect("a log has a segment").segment
    }

    pub fn push(&mut self, segment: Arc<Segment>) {
        self.live.push_back(LiveSegment { segment, end: 0 });
    }

    /// Bytes of all segments on disk.
    pub fn bytes(&self) -> u64 {
        self.live.iter().map(|live| live.segment.header.segment_bytes).sum()
    }

    /// Records the effects of a frame in the active segment.
    pub fn add(&mut self, effects: &[Effect]) {
        for effect in effects {
            match *effect {
                Effect::Append { end, .. } => {
                    if let Some(active) = self.live.back_mut() {
                        active.end = end;
                    }
                }
                Effect::Truncate { next } => {
                    for live in &mut self.live {
                        live.end = live.end.min(next);
                    }
                }
                Effect::Purge { .. } => {}
            }
        }
    }

    /// Removes and returns the oldest segments without an entry from `first` on. The header of the
    /// next segment carries their vote, purge and commit mark.
    pub fn take_purged(&mut self, first: u64) -> Vec<Arc<Segment>> {
        let mut purged = Vec::new();
        while self.live.len() > 1
            && let Some(live) = self.live.pop_front_if(|live| live.end <= first)
        {
            purged.push(live.segment);
        }
        purged
    }
}
