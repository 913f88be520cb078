//! The feed: the [`EventSink`] that hands the state machine's changes to the watch lane.
//!
//! `published` runs on the apply lane, so it only stores references to the new records until the watch
//! lane takes them. Without watches it stores nothing.
//!
//! Bounded by [`Limits::feed_bytes`]: beyond, the feed drops all stored records and reports a gap, which
//! the watches read from the history.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
};

use tokio::sync::mpsc;

use super::{messages::HubMessage, options::Limits};
use crate::{
    state::{EventSink, Published, Record},
    types::Revision,
};

/// The queue of published changes between the state machine and the watch lane.
#[derive(Debug)]
pub struct Feed {
    bytes_max: usize,
    queue: Mutex<Queue>,
    /// Weak: the lane must end when its owner drops the sender.
    hub: OnceLock<mpsc::WeakUnboundedSender<HubMessage>>,
}

#[derive(Debug, Default)]
struct Queue {
    /// There are watches.
    active: bool,
    /// The hub has a [`HubMessage::Published`] and has not emptied the queue since.
    hub_notified: bool,
    chunks: VecDeque<Chunk>,
    bytes: usize,
    /// Changes up to this revision were dropped; they precede the chunks.
    gap: Option<Revision>,
}

#[derive(Debug)]
struct Chunk {
    revision: Revision,
    records: Vec<Arc<Record>>,
    bytes: usize,
}

/// The hub takes changes in these batches.
#[derive(Debug)]
pub enum FeedBatch {
    /// All changes since the previous batch, up to this revision.
    Records(Vec<Arc<Record>>, Revision),
    /// The feed dropped the changes up to this revision.
    Gap(Revision),
}

impl Feed {
    pub fn new(limits: &Limits) -> Arc<Feed> {
        let bytes_max = limits.feed_bytes;
        Arc::new(Feed { bytes_max, queue: Mutex::default(), hub: OnceLock::new() })
    }

    pub fn connect(&self, hub: mpsc::WeakUnboundedSender<HubMessage>) {
        assert!(self.hub.set(hub).is_ok(), "a feed has one watch lane");
    }

    /// Stores all changes that are published after this call returns.
    pub fn activate(&self) {
        self.queue().active = true;
    }

    pub fn deactivate(&self) {
        let mut queue = self.queue();
        *queue = Queue { hub_notified: queue.hub_notified, ..Queue::default() };
    }

    /// The next changes: whole chunks of about `bytes_max`.
    pub fn take(&self, bytes_max: usize) -> Option<FeedBatch> {
        let mut queue = self.queue();
        if let Some(revision) = queue.gap.take() {
            return Some(FeedBatch::Gap(revision));
        }
        let Some(mut chunk) = queue.chunks.pop_front() else {
            queue.hub_notified = false;
            return None;
        };
        while chunk.bytes < bytes_max
            && let Some(next) = queue.chunks.pop_front()
        {
            chunk.revision = next.revision;
            chunk.bytes += next.bytes;
            chunk.records.extend(next.records);
        }
        queue.bytes -= chunk.bytes;
        Some(FeedBatch::Records(chunk.records, chunk.revision))
    }

    // No code panics while the queue is inconsistent, so a poisoned lock is usable.
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn notify_hub(&self, queue: &mut Queue) {
        if !queue.hub_notified
            && let Some(hub) = self.hub.get().and_then(mpsc::WeakUnboundedSender::upgrade)
        {
            queue.hub_notified = hub.send(HubMessage::Published).is_ok();
        }
    }
}

impl EventSink for Feed {
    fn published(&self, changes: &Published<'_>) {
        if changes.records.is_empty() {
            return;
        }
        let mut queue = self.queue();
        if !queue.active {
            return;
        }
        let bytes = changes.records.iter().map(|record| record.bytes()).sum();
        queue.bytes += bytes;
        let (revision, records) = (changes.revision, changes.records.to_vec());
        queue.chunks.push_back(Chunk { revision, records, bytes });
        if queue.bytes > self.bytes_max {
            queue.drop_all(revision);
        }
        self.notify_hub(&mut queue);
    }

    fn replaced(&self, revision: Revision, _compacted: Revision) {
        let mut queue = self.queue();
        if queue.active {
            queue.drop_all(revision);
            self.notify_hub(&mut queue);
        }
    }
}

impl Queue {
    fn drop_all(&mut self, revision: Revision) {
        self.chunks.clear();
        self.bytes = 0;
        self.gap = Some(revision);
    }
}
