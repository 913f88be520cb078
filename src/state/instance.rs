//! One instance of the state, from a recovery to the next. Installing a snapshot starts a new
//! instance; reads that began earlier finish on the old one.
//!
//! Invariants: only [`StateInstance::publish`] changes which revisions readers see, atomically. A
//! revision that a [`ReadSnapshot`] pins, and all later ones, stay readable: pruning stops at the
//! oldest pinned revision, and no read pins a compacted one.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock},
};

use bytes::Bytes;

use super::{index::Index, leases::Leases, roster::Roster, storage::Storage};
use crate::types::{CommandError, LogPosition, RecordId, Revision};

pub struct StateInstance {
    pub index: Index,
    pub leases: Leases,
    pub storage: Arc<dyn Storage>,
    visible: Mutex<Visible>,
}

/// Under one lock, so that a read pins exactly the revision that was checked.
#[derive(Debug)]
struct Visible {
    published: PublishedState,
    pruned: Revision,
    /// Number of open reads per revision. Bounded by the number of concurrent readers.
    pinned: BTreeMap<Revision, usize>,
}

/// The published state, except keys.
#[derive(Debug, Clone)]
pub struct PublishedState {
    pub readable: ReadableRevisions,
    pub applied: Option<LogPosition>,
    pub membership: Option<Bytes>,
    pub roster: Arc<Roster>,
}

/// The revisions that can be read, both bounds included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReadableRevisions {
    /// The store's current revision.
    pub revision: Revision,
    /// The oldest readable revision; negative if the store was never compacted.
    pub compacted: Revision,
}

impl ReadableRevisions {
    /// The revision at which a request for `revision` reads. Zero and less mean the current one.
    pub fn resolve(&self, revision: Revision) -> Result<Revision, CommandError> {
        if revision > self.revision {
            return Err(CommandError::FutureRevision);
        }
        let revision = if revision <= Revision::ZERO { self.revision } else { revision };
        if revision < self.compacted { Err(CommandError::Compacted) } else { Ok(revision) }
    }
}

/// Keeps its revision and all later ones readable until it is dropped.
pub struct ReadSnapshot {
    pub instance: Arc<StateInstance>,
    /// As of the creation of this snapshot.
    pub readable: ReadableRevisions,
    pub revision: Revision,
}

impl ReadSnapshot {
    /// The record of `key` at `revision`, which must not be older than the pinned one.
    pub fn record_of(&self, key: &[u8], revision: Revision) -> Option<RecordId> {
        self.instance.index.get(key, revision).map(|version| version.id())
    }
}

impl StateInstance {
    /// `index` is pruned at the compacted revision.
    pub fn new(
        index: Index,
        leases: Leases,
        storage: Arc<dyn Storage>,
        published: PublishedState,
    ) -> Self {
        let pruned = published.readable.compacted;
        let visible = Visible { published, pruned, pinned: BTreeMap::new() };
        StateInstance { index, leases, storage, visible: Mutex::new(visible) }
    }

    pub fn publish(&self, published: PublishedState) {
        self.visible().published = published;
    }

    pub fn published(&self) -> PublishedState {
        self.visible().published.clone()
    }

    pub fn readable(&self) -> ReadableRevisions {
        self.visible().published.readable
    }

    pub fn applied(&self) -> Option<LogPosition> {
        self.visible().published.applied
    }

    /// Pins the revision that `choose` selects from the readable ones.
    pub fn snapshot(
        self: &Arc<Self>,
        choose: impl FnOnce(ReadableRevisions) -> Result<Revision, CommandError>,
    ) -> Result<ReadSnapshot, CommandError> {
        let mut visible = self.visible();
        let readable = visible.published.readable;
        let revision = choose(readable)?;
        assert!(revision >= readable.compacted, "revision {revision} is compacted: cannot pin it");
        *visible.pinned.entry(revision).or_default() += 1;
        Ok(ReadSnapshot { instance: self.clone(), readable, revision })
    }

    /// The revision up to which the index is pruned, and the one up to which it may be pruned now.
    pub fn prune_bounds(&self) -> (Revision, Revision) {
        let visible = self.visible();
        let oldest_pinned = visible.pinned.keys().next().copied();
        let compacted = visible.published.readable.compacted;
        (visible.pruned, oldest_pinned.map_or(compacted, |pinned| pinned.min(compacted)))
    }

    pub fn open_reads(&self) -> usize {
        self.visible().pinned.values().sum()
    }

    pub fn set_pruned(&self, revision: Revision) {
        self.visible().pruned = revision;
    }

    // Every change under this lock is one assignment, so a poisoned value is consistent.
    fn visible(&self) -> MutexGuard<'_, Visible> {
        self.visible.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for ReadSnapshot {
    fn drop(&mut self) {
        let mut visible = self.instance.visible();
        if let Some(count) = visible.pinned.get_mut(&self.revision) {
            *count -= 1;
            if *count == 0 {
                visible.pinned.remove(&self.revision);
            }
        }
    }
}

/// The current instance, shared by all views and the state machine, which replaces it.
#[derive(Debug, Clone)]
pub struct CurrentInstance(Arc<RwLock<Arc<StateInstance>>>);

impl CurrentInstance {
    pub fn new(instance: Arc<StateInstance>) -> CurrentInstance {
        CurrentInstance(Arc::new(RwLock::new(instance)))
    }

    pub fn get(&self) -> Arc<StateInstance> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub fn set(&self, instance: Arc<StateInstance>) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = instance;
    }
}

impl fmt::Debug for StateInstance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StateInstance").field("visible", &self.visible).finish_non_exhaustive()
    }
}

impl fmt::Debug for ReadSnapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReadSnapshot").field("revision", &self.revision).finish_non_exhaustive()
    }
}
