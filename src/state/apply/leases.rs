//! Commands about leases.

use crate::{
    state::{
        error::ReadError, events::LeaseChange, leases::LeaseWithKeys, machine::StateMachine,
        schema::lease_page,
    },
    types::{CommandError, Lease, LeaseCheckpoint, LeaseId, LeaseRef, Reply, Revision, Term},
};

impl StateMachine {
    pub(super) fn lease_grant(&mut self, id: LeaseId, ttl: i64) -> Result<Reply, CommandError> {
        if id == LeaseId::default() {
            return Err(CommandError::LeaseNotFound);
        }
        if ttl > Lease::TTL_MAX {
            return Err(CommandError::LeaseTtlTooLarge);
        }
        if self.instance.leases.get(id).is_some() {
            return Err(CommandError::LeaseExists);
        }
        let lease = self.set_lease(Lease { id, ttl, ..Lease::default() });
        self.lease_changes.push(LeaseChange::Granted(lease));
        Ok(Reply::LeaseGrant { revision: self.meta.revision, ttl })
    }

    pub(super) fn lease_revoke(&mut self, id: LeaseId) -> Result<Reply, ReadError> {
        if !self.end_lease(id)? {
            return Err(CommandError::LeaseNotFound.into());
        }
        Ok(Reply::LeaseRevoke { revision: self.meta.revision })
    }

    pub(super) fn lease_expire(
        &mut self,
        entry_term: Term,
        decided_in: Term,
        leases: &[LeaseRef],
    ) -> Result<Reply, ReadError> {
        check_term(entry_term, decided_in)?;
        for lease in leases {
            if self.unchanged_lease(*lease).is_some() {
                self.end_lease(lease.id)?;
            }
        }
        Ok(Reply::LeasesUpdated)
    }

    pub(super) fn lease_checkpoint(
        &mut self,
        entry_term: Term,
        decided_in: Term,
        checkpoints: &[LeaseCheckpoint],
    ) -> Result<Reply, CommandError> {
        check_term(entry_term, decided_in)?;
        for LeaseCheckpoint { lease, remaining } in checkpoints {
            if let Some(lease) = self.unchanged_lease(*lease) {
                let lease = self.set_lease(Lease { remaining: *remaining, ..lease });
                self.lease_changes.push(LeaseChange::Changed(lease));
            }
        }
        Ok(Reply::LeasesUpdated)
    }

    pub(super) fn lease_renew(
        &mut self,
        entry_term: Term,
        decided_in: Term,
        leases: &[LeaseId],
    ) -> Result<Reply, CommandError> {
        check_term(entry_term, decided_in)?;
        for id in leases {
            if let Some(lease) = self.instance.leases.get(*id) {
                let lease = self.set_lease(Lease { remaining: 0, ..lease });
                self.lease_changes.push(LeaseChange::Changed(lease));
            }
        }
        Ok(Reply::LeasesUpdated)
    }

    /// The lease, if its epoch is still the named one.
    fn unchanged_lease(&self, LeaseRef { id, epoch }: LeaseRef) -> Option<Lease> {
        self.instance.leases.get(id).filter(|lease| lease.epoch == epoch)
    }

    /// Stores the lease with a new epoch.
    fn set_lease(&mut self, lease: Lease) -> Lease {
        self.meta.last_epoch += 1;
        let epoch = self.meta.last_epoch;
        if lease.epoch > 0 {
            self.lease_pages.insert(lease_page(lease.epoch));
        }
        self.lease_pages.insert(lease_page(epoch));
        let lease = Lease { epoch, ..lease };
        self.instance.leases.set(lease);
        lease
    }

    /// Deletes the lease, and its keys in one revision. False: there is no such lease.
    fn end_lease(&mut self, id: LeaseId) -> Result<bool, ReadError> {
        let ended = self.instance.leases.remove(id);
        let Some(LeaseWithKeys { lease, keys }) = ended else { return Ok(false) };
        self.lease_pages.insert(lease_page(lease.epoch));
        self.lease_changes.push(LeaseChange::Ended(id));
        let (_, ()): (Revision, ()) = self.write(|machine, new| {
            keys.into_iter().for_each(|key| machine.delete_key(new, key.into()));
            Ok(())
        })?;
        Ok(true)
    }
}

/// A deposed leader must not end or shorten a lease: its successor may have renewed it.
fn check_term(entry_term: Term, decided_in: Term) -> Result<(), CommandError> {
    if entry_term == decided_in { Ok(()) } else { Err(CommandError::StaleTerm) }
}
