//! The end of the state machine's changes that watching holds: see [`EventSink`].
//!
//! It runs on the apply lane, so it only keeps references to the new records until the watch lane
//! takes them; while nobody watches not even that.
//!
//! Bounded ([`Limits::feed_bytes`]): what the lane did not take by then is dropped, and those who wait
//! for it read it from the history.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
};

use tokio::sync::mpsc;

use super::{hub::Command, limits::Limits};
use crate::{
    state::{EventSink, Published, Record},
    types::Revision,
};

/// Where the state machine tells what changes, and the watch lane hears of it.
#[derive(Debug)]
pub struct Feed {
    bytes_max: usize,
    ring: Mutex<Ring>,
    /// Weak: the lane ends when its owner lets go.
    lane: OnceLock<mpsc::WeakUnboundedSender<Command>>,
}

#[derive(Debug, Default)]
struct Ring {
    /// Somebody watches.
    active: bool,
    /// The lane was told that there is something, and did not take it yet.
    told: bool,
    chunks: VecDeque<Chunk>,
    bytes: usize,
    /// Before the chunks comes a gap up to this revision.
    lost: Option<Revision>,
}

#[derive(Debug)]
struct Chunk {
    revision: Revision,
    records: Vec<Arc<Record>>,
    bytes: usize,
}

/// What the lane takes at once.
#[derive(Debug)]
pub(super) enum News {
    /// All changes since the last news up to this revision.
    Records(Vec<Arc<Record>>, Revision),
    /// There were changes up to this revision, and they are not here.
    Lost(Revision),
}

impl Feed {
    pub fn new(limits: &Limits) -> Arc<Feed> {
        let bytes_max = limits.feed_bytes;
        Arc::new(Feed { bytes_max, ring: Mutex::default(), lane: OnceLock::new() })
    }

    pub(super) fn connect(&self, lane: mpsc::WeakUnboundedSender<Command>) {
        assert!(self.lane.set(lane).is_ok(), "a feed has one lane");
    }

    /// From now on changes are kept. What is published when this returns is not.
    pub(super) fn activate(&self) {
        self.ring().active = true;
    }

    pub(super) fn deactivate(&self) {
        let mut ring = self.ring();
        *ring = Ring { told: ring.told, ..Ring::default() };
    }

    /// The next changes: about `bytes_max`, whole chunks.
    pub(super) fn take(&self, bytes_max: usize) -> Option<News> {
        let mut ring = self.ring();
        if let Some(revision) = ring.lost.take() {
            return Some(News::Lost(revision));
        }
        let Some(mut chunk) = ring.chunks.pop_front() else {
            ring.told = false;
            return None;
        };
        while chunk.bytes < bytes_max
            && let Some(next) = ring.chunks.pop_front()
        {
            chunk.revision = next.revision;
            chunk.bytes += next.bytes;
            chunk.records.extend(next.records);
        }
        ring.bytes -= chunk.bytes;
        Some(News::Records(chunk.records, chunk.revision))
    }

    // Nothing can panic between two changes that belong together.
    fn ring(&self) -> MutexGuard<'_, Ring> {
        self.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell(&self, ring: &mut Ring) {
        if !ring.told
            && let Some(lane) = self.lane.get().and_then(mpsc::WeakUnboundedSender::upgrade)
        {
            ring.told = lane.send(Command::Published).is_ok();
        }
    }
}

impl EventSink for Feed {
    fn published(&self, changes: &Published<'_>) {
        if changes.records.is_empty() {
            return;
        }
        let mut ring = self.ring();
        if !ring.active {
            return;
        }
        let bytes = changes.records.iter().map(|record| record.bytes()).sum();
        ring.bytes += bytes;
        let (revision, records) = (changes.revision, changes.records.to_vec());
        ring.chunks.push_back(Chunk { revision, records, bytes });
        if ring.bytes > self.bytes_max {
            ring.drop_all(revision);
        }
        self.tell(&mut ring);
    }

    fn replaced(&self, revision: Revision, _compacted: Revision) {
        let mut ring = self.ring();
        if ring.active {
            ring.drop_all(revision);
            self.tell(&mut ring);
        }
    }
}

impl Ring {
    fn drop_all(&mut self, revision: Revision) {
        self.chunks.clear();
        self.bytes = 0;
        self.lost = Some(revision);
    }
}
