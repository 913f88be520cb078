//! Leases, and the keys attached to each. When a lease ends is not decided here: the leader's lessor
//! keeps the time, and proposes its decisions.
//!
//! Every change of a lease gives it a new *epoch*; epochs are never reused. A decision about a lease
//! names the epoch that it was made on, and is void if the epoch has changed by the time the decision
//! is applied. So an expiry cannot end a lease that was renewed, or granted again, in between.
//!
//! Invariants: a key is attached to the lease that its newest version names, and to no other; that
//! lease exists. Leases have no revisions: readers see them after some whole command, at most one
//! chunk ahead of the keys.

use std::{
    collections::{BTreeMap, BTreeSet, btree_map::Entry},
    ops::Bound::{Excluded, Unbounded},
    sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
};

use bytes::Bytes;

use super::{
    index::Index,
    scan::WALK_KEYS,
    schema::{TableEntry, lease_page_epochs},
};
use crate::types::{KeyRange, Lease, LeaseId};

/// All leases, behind their lock. Only the apply lane writes.
#[derive(Debug)]
pub struct Leases {
    table: RwLock<LeaseTable>,
}

#[derive(Debug, Default)]
struct LeaseTable {
    granted: BTreeMap<LeaseId, LeaseWithKeys>,
    /// The same leases, in the order of their pages in the tables.
    by_epoch: BTreeMap<u64, Lease>,
}

#[derive(Debug)]
pub struct LeaseWithKeys {
    pub lease: Lease,
    pub keys: BTreeSet<Box<[u8]>>,
}

/// A key moves from one lease to another; zero is none.
#[derive(Debug)]
pub struct LeaseMove {
    pub key: Box<[u8]>,
    pub from: LeaseId,
    pub to: LeaseId,
}

impl Leases {
    /// From the leases in the tables and the attached keys in the index.
    pub fn recover(leases: Vec<Lease>, index: &Index) -> Leases {
        let mut table = LeaseTable::default();
        leases.into_iter().for_each(|lease| table.set(lease));
        let granted = &mut table.granted;
        let mut rest = Some(KeyRange::From(Bytes::new())).filter(|_| !granted.is_empty());
        while let Some(keys) = rest {
            rest = index.walk(&keys, WALK_KEYS, |key, history| {
                let alive = history.alive().filter(|alive| alive.lease != LeaseId::default());
                if let Some(granted) = alive.and_then(|alive| granted.get_mut(&alive.lease)) {
                    granted.keys.insert(key.into());
                }
            });
        }
        Leases { table: RwLock::new(table) }
    }

    pub fn get(&self, id: LeaseId) -> Option<Lease> {
        self.read().granted.get(&id).map(|granted| granted.lease)
    }

    /// All leases, in ascending order of id.
    pub fn all(&self) -> Vec<Lease> {
        self.read().granted.values().map(|granted| granted.lease).collect()
    }

    pub fn count(&self) -> usize {
        self.read().granted.len()
    }

    /// The lease, and its keys in ascending order. Copies the keys in portions, and releases the lock
    /// in between because the apply lane needs it; so keys may change meanwhile.
    pub fn with_keys(&self, id: LeaseId) -> Option<(Lease, Vec<Bytes>)> {
        let mut found = Vec::new();
        loop {
            let table = self.read();
            let LeaseWithKeys { lease, keys } = table.granted.get(&id)?;
            let after = found.last().map_or(Unbounded, |last: &Bytes| Excluded(&last[..]));
            let before = found.len();
            let next: Vec<_> = keys
                .range::<[u8], _>((after, Unbounded))
                .take(WALK_KEYS)
                .map(|key| Bytes::copy_from_slice(key))
                .collect();
            found.extend(next);
            if found.len() < before + WALK_KEYS {
                return Some((*lease, found));
            }
        }
    }

    /// Number of attached keys; zero also if there is no such lease.
    pub fn key_count(&self, id: LeaseId) -> usize {
        self.read().granted.get(&id).map_or(0, |granted| granted.keys.len())
    }

    /// Moves the keys of one command.
    pub fn move_keys(&self, moves: Vec<LeaseMove>) {
        if moves.is_empty() {
            return;
        }
        let granted = &mut self.write().granted;
        for LeaseMove { key, from, to } in moves {
            if let Some(from) = granted.get_mut(&from) {
                from.keys.remove(&key);
            }
            if let Some(to) = granted.get_mut(&to) {
                to.keys.insert(key);
            }
        }
    }

    /// Adds a lease, or changes it.
    pub fn set(&self, lease: Lease) {
        self.write().set(lease);
    }

    pub fn remove(&self, id: LeaseId) -> Option<LeaseWithKeys> {
        self.write().remove(id)
    }

    /// The current content of a page of the tables.
    pub fn page(&self, page: u64) -> TableEntry {
        let leases =
            self.read().by_epoch.range(lease_page_epochs(page)).map(|(_, lease)| *lease).collect();
        TableEntry::Leases { page, leases }
    }

    // A panic under the lock is one of the apply lane, which stops the member.
    fn read(&self) -> RwLockReadGuard<'_, LeaseTable> {
        self.table.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, LeaseTable> {
        self.table.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl LeaseTable {
    fn set(&mut self, lease: Lease) {
        match self.granted.entry(lease.id) {
            Entry::Vacant(vacant) => {
                vacant.insert(LeaseWithKeys { lease, keys: BTreeSet::new() });
            }
            Entry::Occupied(mut granted) => {
                self.by_epoch.remove(&granted.get().lease.epoch);
                granted.get_mut().lease = lease;
            }
        }
        self.by_epoch.insert(lease.epoch, lease);
    }

    fn remove(&mut self, id: LeaseId) -> Option<LeaseWithKeys> {
        let granted = self.granted.remove(&id)?;
        self.by_epoch.remove(&granted.lease.epoch);
        Some(granted)
    }
}
