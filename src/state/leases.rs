//! Leases, and which keys are attached to which. When one ends is not known here: the leader's lessor
//! keeps the time, and proposes what it saw.
//!
//! Every change of a lease gives it an *epoch* that was never used before. What was decided on a
//! lease names the epoch it was decided on, and is void if there is another one by the time it is
//! applied. So an expiry cannot end a lease that was renewed, or granted again, in between.
//!
//! Invariants: a key is attached to the lease that its newest version names, and to no other; that
//! lease exists. Leases have no revisions: a reader sees them as whole commands have left them, at
//! most one chunk ahead of the keys.

use std::{
    collections::{BTreeMap, BTreeSet, btree_map::Entry},
    ops::Bound::{Excluded, Unbounded},
    sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
};

use bytes::Bytes;

use super::{
    events::LeaseChange,
    index::Index,
    machine::Machine,
    scan::WALK_KEYS,
    schema::{TableEntry, lease_page, lease_page_epochs},
    view::ReadError,
};
use crate::types::{
    CommandError, KeyRange, Lease, LeaseAt, LeaseCheckpoint, LeaseId, Reply, Revision, Term,
};

/// All leases, behind their lock. Only the apply lane writes.
#[derive(Debug)]
pub(super) struct Leases {
    all: RwLock<All>,
}

#[derive(Debug, Default)]
struct All {
    granted: BTreeMap<LeaseId, Granted>,
    /// The same leases, in the order in which the tables keep them.
    by_epoch: BTreeMap<u64, Lease>,
}

#[derive(Debug)]
struct Granted {
    lease: Lease,
    keys: BTreeSet<Box<[u8]>>,
}

/// A key goes from one lease to another; zero is none.
#[derive(Debug)]
pub(super) struct Move {
    pub(super) key: Box<[u8]>,
    pub(super) from: LeaseId,
    pub(super) to: LeaseId,
}

impl Leases {
    /// What the tables know, and the keys that the index finds attached.
    pub(super) fn recover(leases: Vec<Lease>, index: &Index) -> Leases {
        let mut all = All::default();
        leases.into_iter().for_each(|lease| all.set(lease));
        let granted = &mut all.granted;
        let mut rest = Some(KeyRange::From(Bytes::new())).filter(|_| !granted.is_empty());
        while let Some(keys) = rest {
            rest = index.walk(&keys, WALK_KEYS, |key, history| {
                let alive = history.alive().filter(|alive| alive.lease != LeaseId::default());
                if let Some(granted) = alive.and_then(|alive| granted.get_mut(&alive.lease)) {
                    granted.keys.insert(key.into());
                }
            });
        }
        Leases { all: RwLock::new(all) }
    }

    pub(super) fn get(&self, id: LeaseId) -> Option<Lease> {
        self.read().granted.get(&id).map(|granted| granted.lease)
    }

    /// In ascending order of id.
    pub(super) fn all(&self) -> Vec<Lease> {
        self.read().granted.values().map(|granted| granted.lease).collect()
    }

    pub(super) fn count(&self) -> usize {
        self.read().granted.len()
    }

    /// The lease, and the keys attached to it in ascending order. In portions, between which others
    /// may change: the lock is the apply lane's too.
    pub(super) fn with_keys(&self, id: LeaseId) -> Option<(Lease, Vec<Bytes>)> {
        let mut found = Vec::new();
        loop {
            let all = self.read();
            let Granted { lease, keys } = all.granted.get(&id)?;
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

    /// How many keys are attached; zero also if there is no such lease.
    pub(super) fn key_count(&self, id: LeaseId) -> usize {
        self.read().granted.get(&id).map_or(0, |granted| granted.keys.len())
    }

    /// Moves keys, as one command did.
    pub(super) fn attach(&self, moves: Vec<Move>) {
        if moves.is_empty() {
            return;
        }
        let granted = &mut self.write().granted;
        for Move { key, from, to } in moves {
            if let Some(from) = granted.get_mut(&from) {
                from.keys.remove(&key);
            }
            if let Some(to) = granted.get_mut(&to) {
                to.keys.insert(key);
            }
        }
    }

    /// An entry of the tables, as it is now.
    pub(super) fn page(&self, page: u64) -> TableEntry {
        let leases =
            self.read().by_epoch.range(lease_page_epochs(page)).map(|(_, lease)| *lease).collect();
        TableEntry::Leases { page, leases }
    }

    // A panic under the lock is one of the apply lane, which ends the member.
    fn read(&self) -> RwLockReadGuard<'_, All> {
        self.all.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, All> {
        self.all.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl All {
    /// Adds a lease, or changes it.
    fn set(&mut self, lease: Lease) {
        match self.granted.entry(lease.id) {
            Entry::Vacant(vacant) => drop(vacant.insert(Granted { lease, keys: BTreeSet::new() })),
            Entry::Occupied(mut granted) => {
                self.by_epoch.remove(&granted.get().lease.epoch);
                granted.get_mut().lease = lease;
            }
        }
        self.by_epoch.insert(lease.epoch, lease);
    }

    fn remove(&mut self, id: LeaseId) -> Option<Granted> {
        let granted = self.granted.remove(&id)?;
        self.by_epoch.remove(&granted.lease.epoch);
        Some(granted)
    }
}

/// The commands.
impl Machine {
    pub(super) fn lease_grant(&mut self, id: LeaseId, ttl: i64) -> Result<Reply, CommandError> {
        if id == LeaseId::default() {
            return Err(CommandError::LeaseNotFound);
        }
        if ttl > Lease::TTL_MAX {
            return Err(CommandError::LeaseTtlTooLarge);
        }
        if self.generation.leases.get(id).is_some() {
            return Err(CommandError::LeaseExists);
        }
        let lease = self.lease_set(Lease { id, ttl, ..Lease::default() });
        self.lease_changes.push(LeaseChange::Granted(lease));
        Ok(Reply::LeaseGrant { revision: self.meta.revision, ttl })
    }

    pub(super) fn lease_revoke(&mut self, id: LeaseId) -> Result<Reply, ReadError> {
        if !self.lease_end(id)? {
            return Err(CommandError::LeaseNotFound.into());
        }
        Ok(Reply::LeaseRevoke { revision: self.meta.revision })
    }

    /// `now` is the term of the entry that this came in.
    pub(super) fn lease_expire(
        &mut self,
        now: Term,
        decided_in: Term,
        leases: &[LeaseAt],
    ) -> Result<Reply, ReadError> {
        check_term(now, decided_in)?;
        for lease in leases {
            if self.lease_as_it_was(*lease).is_some() {
                self.lease_end(lease.id)?;
            }
        }
        Ok(Reply::LeasesUpdated)
    }

    pub(super) fn lease_checkpoint(
        &mut self,
        now: Term,
        decided_in: Term,
        checkpoints: &[LeaseCheckpoint],
    ) -> Result<Reply, CommandError> {
        check_term(now, decided_in)?;
        for LeaseCheckpoint { lease, remaining } in checkpoints {
            if let Some(lease) = self.lease_as_it_was(*lease) {
                let lease = self.lease_set(Lease { remaining: *remaining, ..lease });
                self.lease_changes.push(LeaseChange::Changed(lease));
            }
        }
        Ok(Reply::LeasesUpdated)
    }

    pub(super) fn lease_renew(
        &mut self,
        now: Term,
        decided_in: Term,
        leases: &[LeaseId],
    ) -> Result<Reply, CommandError> {
        check_term(now, decided_in)?;
        for id in leases {
            if let Some(lease) = self.generation.leases.get(*id) {
                let lease = self.lease_set(Lease { remaining: 0, ..lease });
                self.lease_changes.push(LeaseChange::Changed(lease));
            }
        }
        Ok(Reply::LeasesUpdated)
    }

    fn lease_as_it_was(&self, LeaseAt { id, epoch }: LeaseAt) -> Option<Lease> {
        self.generation.leases.get(id).filter(|lease| lease.epoch == epoch)
    }

    /// Whatever the lease is to be, its epoch is a new one.
    fn lease_set(&mut self, lease: Lease) -> Lease {
        self.meta.last_epoch += 1;
        let epoch = self.meta.last_epoch;
        if lease.epoch > 0 {
            self.lease_pages.insert(lease_page(lease.epoch));
        }
        self.lease_pages.insert(lease_page(epoch));
        let lease = Lease { epoch, ..lease };
        self.generation.leases.write().set(lease);
        lease
    }

    /// Deletes the lease, and its keys in one revision. False: there is no such lease.
    fn lease_end(&mut self, id: LeaseId) -> Result<bool, ReadError> {
        let ended = self.generation.leases.write().remove(id);
        let Some(Granted { lease, keys }) = ended else { return Ok(false) };
        self.lease_pages.insert(lease_page(lease.epoch));
        self.lease_changes.push(LeaseChange::Gone(id));
        let (_, ()): (Revision, ()) = self.write(|machine, writing| {
            keys.into_iter().for_each(|key| machine.delete(writing, key.into()));
            Ok(())
        })?;
        Ok(true)
    }
}

/// A leader that was deposed since must not end or shorten a lease: its successor may have renewed it.
fn check_term(now: Term, decided_in: Term) -> Result<(), CommandError> {
    if now == decided_in { Ok(()) } else { Err(CommandError::OtherTerm) }
}
