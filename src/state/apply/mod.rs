//! Applying commands: each makes at most one revision, and none if it changes nothing.
//!
//! Every check runs before the first change, so a refused command has no effect.

mod kv;
mod leases;
mod members;
mod revision;

use super::{
    error::{ReadError, StateError},
    machine::StateMachine,
};
use crate::types::{Command, CommandError, LogPosition, Reply, Revision};

impl StateMachine {
    /// Applies an entry of commands, and returns a reply for each, in order. After an error the member
    /// must stop and must not publish.
    pub fn apply(
        &mut self,
        position: LogPosition,
        commands: impl IntoIterator<Item = Command>,
    ) -> Result<Vec<Result<Reply, CommandError>>, StateError> {
        self.advance_applied(position);
        commands
            .into_iter()
            .map(|command| match self.command(position, command) {
                Ok(reply) => Ok(Ok(reply)),
                Err(ReadError::Refused(refusal)) => Ok(Err(refusal)),
                Err(ReadError::Storage(error)) => Err(StateError::Storage(error)),
            })
            .collect()
    }

    fn command(&mut self, position: LogPosition, command: Command) -> Result<Reply, ReadError> {
        match command {
            Command::Put(put) => self.put(&put),
            Command::DeleteRange(delete) => self.delete_range(&delete),
            Command::Txn(txn) => self.txn(&txn),
            Command::Compact(revision) => Ok(self.compact(revision)?),
            Command::SetMemberAttributes(attributes) => Ok(self.set_member_attributes(attributes)),
            Command::AssignMember { nonce, .. } => Ok(self.assign_member(position, nonce)),
            Command::AdmitMember(member) => Ok(self.admit_member(member)?),
            Command::SetDesiredReplicas(desired) => Ok(self.set_desired_replicas(desired)),
            Command::LeaseGrant { id, ttl } => Ok(self.lease_grant(id, ttl)?),
            Command::LeaseRevoke(id) => self.lease_revoke(id),
            Command::LeaseExpire { term, leases } => {
                self.lease_expire(position.term, term, &leases)
            }
            Command::LeaseCheckpoint { term, checkpoints } => {
                Ok(self.lease_checkpoint(position.term, term, &checkpoints)?)
            }
            Command::LeaseRenew { term, leases } => {
                Ok(self.lease_renew(position.term, term, &leases)?)
            }
        }
    }

    fn compact(&mut self, revision: Revision) -> Result<Reply, CommandError> {
        if revision <= self.meta.compacted {
            return Err(CommandError::Compacted);
        }
        if revision > self.meta.revision {
            return Err(CommandError::FutureRevision);
        }
        self.meta.compacted = revision;
        Ok(Reply::Compact { revision: self.meta.revision })
    }
}
