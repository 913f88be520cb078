//! The segments in use, oldest first, and which of them nobody needs any more.

use std::{collections::VecDeque, sync::Arc};

use super::{frames::Effect, segment::Segment};

#[derive(Debug, Default)]
pub(super) struct Segments {
    live: VecDeque<Live>,
}

#[derive(Debug)]
struct Live {
    segment: Arc<Segment>,
    /// One more than the last index of the entries in it that are still part of the log.
    end: u64,
}

impl Segments {
    /// The one that is written to. There is always one: recovery or creation pushed it.
    pub(super) fn active(&self) -> &Arc<Segment> {
        &self.live.back().expect("a log has a segment").segment
    }

    pub(super) fn push(&mut self, segment: Arc<Segment>) {
        self.live.push_back(Live { segment, end: 0 });
    }

    /// The bytes of all of them on disk.
    pub(super) fn bytes(&self) -> u64 {
        self.live.iter().map(|live| live.segment.header.segment_bytes).sum()
    }

    /// Takes over what a frame in the active segment did.
    pub(super) fn add(&mut self, effects: &[Effect]) {
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

    /// Gives up the oldest segments that hold no entry from `first` on. What else was in them
    /// (vote, purge, commit mark) the header of the next one carries.
    pub(super) fn take_purged(&mut self, first: u64) -> Vec<Arc<Segment>> {
        let mut purged = Vec::new();
        while self.live.len() > 1
            && let Some(live) = self.live.pop_front_if(|live| live.end <= first)
        {
            purged.push(live.segment);
        }
        purged
    }
}
