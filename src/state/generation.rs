//! One life of the state: from a recovery to the next one. A snapshot install starts another, and
//! reads that began before it end on the old one.
//!
//! Invariants: what readers see of keys changes in [`Generation::publish`] only, all at once; a pinned
//! revision and all after it stay readable, because pruning never passes a pin, and no pin is taken
//! below the compacted revision.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock},
};

use bytes::Bytes;

use super::roster::Roster;
use super::{index::Index, leases::Leases, storage::Storage};
use crate::types::{CommandError, LogPosition, Revision};

pub(super) struct Generation {
    pub(super) index: Index,
    pub(super) leases: Leases,
    pub(super) storage: Arc<dyn Storage>,
    visible: Mutex<Visible>,
}

/// Under one lock, so that a pin is taken at the revision that was checked.
#[derive(Debug)]
struct Visible {
    shown: Shown,
    pruned: Revision,
    /// How many reads are under way at which revision. As many as the readers' bound allows.
    pins: BTreeMap<Revision, usize>,
}

/// What readers see besides keys.
#[derive(Debug, Clone)]
pub(super) struct Shown {
    pub(super) now: Moment,
    pub(super) applied: Option<LogPosition>,
    pub(super) membership: Option<Bytes>,
    pub(super) roster: Arc<Roster>,
}

/// Which revisions can be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Moment {
    /// The last one.
    pub(super) revision: Revision,
    /// The first one; below zero when nothing was compacted ever.
    pub(super) compacted: Revision,
}

impl Moment {
    /// Which revision a request for `revision` reads. Zero and less mean the present one.
    pub(super) fn resolve(&self, revision: Revision) -> Result<Revision, CommandError> {
        if revision > self.revision {
            return Err(CommandError::FutureRevision);
        }
        let revision = if revision <= Revision::ZERO { self.revision } else { revision };
        if revision < self.compacted { Err(CommandError::Compacted) } else { Ok(revision) }
    }
}

/// Keeps a revision and all after it readable while it lives.
pub(super) struct Pin {
    pub(super) generation: Arc<Generation>,
    /// When the pin was taken.
    pub(super) now: Moment,
    pub(super) revision: Revision,
}

impl Generation {
    /// `index` is pruned at the compacted revision.
    pub(super) fn new(
        index: Index,
        leases: Leases,
        storage: Arc<dyn Storage>,
        shown: Shown,
    ) -> Self {
        let pruned = shown.now.compacted;
        let visible = Visible { shown, pruned, pins: BTreeMap::new() };
        Generation { index, leases, storage, visible: Mutex::new(visible) }
    }

    pub(super) fn publish(&self, shown: Shown) {
        self.visible().shown = shown;
    }

    pub(super) fn shown(&self) -> Shown {
        self.visible().shown.clone()
    }

    pub(super) fn now(&self) -> Moment {
        self.visible().shown.now
    }

    pub(super) fn applied(&self) -> Option<LogPosition> {
        self.visible().shown.applied
    }

    /// Pins the revision that `choose` picks from those that can be read.
    pub(super) fn pin(
        self: &Arc<Self>,
        choose: impl FnOnce(Moment) -> Result<Revision, CommandError>,
    ) -> Result<Pin, CommandError> {
        let mut visible = self.visible();
        let now = visible.shown.now;
        let revision = choose(now)?;
        assert!(revision >= now.compacted, "a pin at {revision} would pin nothing");
        *visible.pins.entry(revision).or_default() += 1;
        Ok(Pin { generation: self.clone(), now, revision })
    }

    /// Up to where pruning is done, and up to where it may go now.
    pub(super) fn pruning(&self) -> (Revision, Revision) {
        let visible = self.visible();
        let pinned = visible.pins.keys().next().copied();
        let compacted = visible.shown.now.compacted;
        (visible.pruned, pinned.map_or(compacted, |pinned| pinned.min(compacted)))
    }

    /// How many reads are under way.
    pub(super) fn pins(&self) -> usize {
        self.visible().pins.values().sum()
    }

    pub(super) fn set_pruned(&self, revision: Revision) {
        self.visible().pruned = revision;
    }

    // Every change under this lock is one assignment, so a poisoned one is whole.
    fn visible(&self) -> MutexGuard<'_, Visible> {
        self.visible.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Pin {
    fn drop(&mut self) {
        let mut visible = self.generation.visible();
        if let Some(count) = visible.pins.get_mut(&self.revision) {
            *count -= 1;
            if *count == 0 {
                visible.pins.remove(&self.revision);
            }
        }
    }
}

/// The present generation, shared by the machine, which replaces it, and all views.
#[derive(Debug, Clone)]
pub(super) struct Current(Arc<RwLock<Arc<Generation>>>);

impl Current {
    pub(super) fn new(generation: Arc<Generation>) -> Current {
        Current(Arc::new(RwLock::new(generation)))
    }

    pub(super) fn get(&self) -> Arc<Generation> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn set(&self, generation: Arc<Generation>) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = generation;
    }
}

impl fmt::Debug for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Generation").field("visible", &self.visible).finish_non_exhaustive()
    }
}

impl fmt::Debug for Pin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pin").field("revision", &self.revision).finish_non_exhaustive()
    }
}
