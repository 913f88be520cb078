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
    collections::{BTreeMap, BTreeSet},
    sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
};

use bytes::Bytes;

use super::{
    events::LeaseChange,
    index::Index,
    machine::Machine,
    scan::WALK_KEYS,
    schema::{TableEntry, lease_key},
    storage::TableChange,
    view::ReadError,
};
use crate::types::{
    CommandError, KeyRange, Lease, LeaseAt, LeaseCheckpoint, LeaseId, Reply, Revision, Term,
};

/// All leases, behind their lock. Only the apply lane writes.
#[derive(Debug, Default)]
pub(super) struct Leases {
    granted: RwLock<BTreeMap<LeaseId, Granted>>,
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
    pub(super) fn recover(leases: BTreeMap<LeaseId, Lease>, index: &Index) -> Leases {
        let granted = |(id, lease)| (id, Granted { lease, keys: BTreeSet::new() });
        let mut granted: BTreeMap<_, _> = leases.into_iter().map(granted).collect();
        let mut rest = Some(KeyRange::From(Bytes::new())).filter(|_| !granted.is_empty());
        while let Some(keys) = rest {
            rest = index.walk(&keys, WALK_KEYS, |key, history| {
                let alive = history.alive().filter(|alive| alive.lease != LeaseId::default());
                if let Some(granted) = alive.and_then(|alive| granted.get_mut(&alive.lease)) {
                    granted.keys.insert(key.into());
                }
            });
        }
        Leases { granted: RwLock::new(granted) }
    }

    pub(super) fn get(&self, id: LeaseId) -> Option<Lease> {
        self.read().get(&id).map(|granted| granted.lease)
    }

    /// In ascending order of id.
    pub(super) fn all(&self) -> Vec<Lease> {
        self.read().values().map(|granted| granted.lease).collect()
    }

    pub(super) fn count(&self) -> usize {
        self.read().len()
    }

    /// The lease, and the keys attached to it in ascending order.
    pub(super) fn with_keys(&self, id: LeaseId) -> Option<(Lease, Vec<Bytes>)> {
        let all = self.read();
        let Granted { lease, keys } = all.get(&id)?;
        Some((*lease, keys.iter().map(|key| Bytes::copy_from_slice(key)).collect()))
    }

    /// How many keys are attached; zero also if there is no such lease.
    pub(super) fn key_count(&self, id: LeaseId) -> usize {
        self.read().get(&id).map_or(0, |granted| granted.keys.len())
    }

    /// Moves keys, as one command did.
    pub(super) fn attach(&self, moves: Vec<Move>) {
        if moves.is_empty() {
            return;
        }
        let mut all = self.write();
        for Move { key, from, to } in moves {
            if let Some(from) = all.get_mut(&from) {
                from.keys.remove(&key);
            }
            if let Some(to) = all.get_mut(&to) {
                to.keys.insert(key);
            }
        }
    }

    /// Adds a lease, or changes it.
    fn set(&self, lease: Lease) {
        let mut all = self.write();
        all.entry(lease.id)
            .and_modify(|granted| granted.lease = lease)
            .or_insert_with(|| Granted { lease, keys: BTreeSet::new() });
    }

    fn remove(&self, id: LeaseId) -> Option<BTreeSet<Box<[u8]>>> {
        self.write().remove(&id).map(|granted| granted.keys)
    }

    // A panic under the lock is one of the apply lane, which ends the member.
    fn read(&self) -> RwLockReadGuard<'_, BTreeMap<LeaseId, Granted>> {
        self.granted.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, BTreeMap<LeaseId, Granted>> {
        self.granted.write().unwrap_or_else(PoisonError::into_inner)
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
        let lease = Lease { epoch: self.meta.last_epoch, ..lease };
        self.generation.leases.set(lease);
        self.changes.tables.push(TableEntry::Lease(lease).put());
        lease
    }

    /// Deletes the lease, and its keys in one revision. False: there is no such lease.
    fn lease_end(&mut self, id: LeaseId) -> Result<bool, ReadError> {
        let Some(keys) = self.generation.leases.remove(id) else { return Ok(false) };
        self.changes.tables.push(TableChange::Delete { key: lease_key(id) });
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
