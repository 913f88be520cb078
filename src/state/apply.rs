//! Applying commands: each makes at most one revision, and none where nothing changes.
//!
//! What may refuse a command is checked before anything is changed, so a refusal has no effect.

use std::sync::Arc;

use bytes::Bytes;

use super::{
    generation::{Generation, Moment},
    history::Version,
    leases::Move,
    machine::{Machine, StateError},
    reader::{Path, Reader},
    records::{Applying, Records},
    roster::FOUNDERS_LAST,
    scan::WALK_KEYS,
    schema::TableEntry,
    storage::{Record, RecordMeta, StorageError},
    view::ReadError,
};
use crate::types::{
    Command, CommandError, DeleteRange, DeleteRangeReply, KeyValue, LeaseId, LogPosition, MemberId,
    OpReply, Put, PutReply, RecordId, Reply, Revision, Txn, TxnOp, TxnReply,
};

/// The revision that a command is making.
pub(super) struct Writing {
    revision: Revision,
    /// Changes so far, and the sub-revision of the next.
    changes: u32,
    /// Keys that change their lease.
    moves: Vec<Move>,
}

/// A key that is there.
struct Found {
    key: Bytes,
    id: RecordId,
    lease: LeaseId,
}

impl Machine {
    /// Applies an entry of commands. Answers each, in order. An error means that this member must
    /// stop; nothing may be published after it.
    pub fn apply(
        &mut self,
        position: LogPosition,
        commands: impl IntoIterator<Item = Command>,
    ) -> Result<Vec<Result<Reply, CommandError>>, StateError> {
        self.note(position);
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
            Command::Put(put) => {
                let records = self.records();
                let reader = self.reader(&records, self.meta.revision);
                reader.check_lease(put.lease)?;
                reader.check_previous(&put)?;
                let (revision, reply) =
                    self.write(|machine, writing| machine.put(writing, &put))?;
                Ok(Reply::Put { revision, reply })
            }
            Command::DeleteRange(delete) => {
                let (revision, reply) =
                    self.write(|machine, writing| machine.delete_range(writing, &delete))?;
                Ok(Reply::DeleteRange { revision, reply })
            }
            Command::Txn(txn) => {
                let (revision, reply) = self.txn(&txn)?;
                Ok(Reply::Txn { revision, reply })
            }
            Command::Compact(revision) => Ok(self.compact(revision)?),
            Command::Describe(attributes) => Ok(self.describe(attributes)),
            Command::AssignMember { nonce, .. } => Ok(self.assign_member(position, nonce)),
            Command::AdmitMember(member) => Ok(self.admit(member)?),
            Command::Desire(desired) => Ok(self.desire(desired)),
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

    /// Runs what changes keys, and answers the store's revision after it.
    pub(super) fn write<T>(
        &mut self,
        change: impl FnOnce(&mut Machine, &mut Writing) -> Result<T, ReadError>,
    ) -> Result<(Revision, T), ReadError> {
        let revision = self.meta.revision.next();
        let mut writing = Writing { revision, changes: 0, moves: Vec::new() };
        let reply = change(self, &mut writing)?;
        self.generation.leases.attach(writing.moves);
        if writing.changes > 0 {
            self.meta.revision = writing.revision;
        }
        Ok((self.meta.revision, reply))
    }

    /// A put that keeps the value or lease of a key that does not exist keeps nothing. That takes a
    /// transaction that deletes the key first, which the API refuses to propose.
    fn put(&mut self, writing: &mut Writing, put: &Put) -> Result<PutReply, ReadError> {
        let wants_previous = put.prev_kv || put.ignore_value || put.ignore_lease;
        let previous =
            if wants_previous { self.record_of(&put.key, writing.revision)? } else { None };
        let kept = previous.as_deref();
        let value =
            if put.ignore_value { kept.map_or(&[][..], |kept| &kept.value) } else { &put.value };
        let lease = if put.ignore_lease {
            kept.map_or_else(Default::default, |kept| kept.meta.lease)
        } else {
            put.lease
        };
        let (key, value) = owned(&put.key, value);
        let id = writing.next_id();
        let (version, left) = self.generation.index.put(&key, id, lease);
        writing.moves(&key, left, lease);
        self.changes.records.push(Arc::new(Record {
            meta: RecordMeta {
                id,
                key,
                create_revision: version.created,
                version: version.version,
                lease,
                tombstone: false,
            },
            value,
        }));
        let prev_kv = previous.filter(|_| put.prev_kv).map(|record| record.key_value());
        Ok(PutReply { prev_kv })
    }

    fn delete_range(
        &mut self,
        writing: &mut Writing,
        delete: &DeleteRange,
    ) -> Result<DeleteRangeReply, ReadError> {
        let mut reply = DeleteRangeReply::default();
        let mut rest = Some(delete.keys.clone());
        while let Some(keys) = rest {
            let mut found: Vec<Found> = Vec::new();
            rest = self.generation.index.walk(&keys, WALK_KEYS, |key, history| {
                if let Some(version) = history.at(writing.revision) {
                    let key = Bytes::copy_from_slice(key);
                    found.push(Found { key, id: version.id(), lease: version.lease });
                }
            });
            reply.deleted += found.len() as i64;
            if delete.prev_kv {
                reply.prev_kvs.extend(self.key_values(&found)?);
            }
            for Found { key, lease, .. } in found {
                writing.moves(&key, lease, LeaseId::default());
                self.delete(writing, key);
            }
        }
        Ok(reply)
    }

    pub(super) fn delete(&mut self, writing: &mut Writing, key: Bytes) {
        let id = writing.next_id();
        self.generation.index.append(&key, Version::tombstone(id));
        self.changes.records.push(Arc::new(Record {
            meta: RecordMeta {
                id,
                key,
                create_revision: Revision::ZERO,
                version: 0,
                lease: LeaseId::default(),
                tombstone: true,
            },
            value: Bytes::new(),
        }));
    }

    fn txn(&mut self, txn: &Txn) -> Result<(Revision, TxnReply), ReadError> {
        let records = self.records();
        let before = self.reader(&records, self.meta.revision);
        let path = before.path(txn)?;
        before.check(txn, &path)?;
        let (revision, mut reply) =
            self.write(|machine, writing| machine.execute(writing, txn, &path))?;
        reply.revision = revision;
        Ok((revision, reply))
    }

    fn execute(
        &mut self,
        writing: &mut Writing,
        txn: &Txn,
        path: &Path,
    ) -> Result<TxnReply, ReadError> {
        let mut responses = Vec::with_capacity(txn.success.len().max(txn.failure.len()));
        for (op, nested) in path.of(txn) {
            responses.push(match (op, nested) {
                (TxnOp::Range(range), _) => {
                    let records = self.records();
                    OpReply::Range(self.reader(&records, writing.revision).range(range)?)
                }
                (TxnOp::Put(put), _) => OpReply::Put(self.put(writing, put)?),
                (TxnOp::DeleteRange(delete), _) => {
                    OpReply::DeleteRange(self.delete_range(writing, delete)?)
                }
                (TxnOp::Txn(txn), Some(path)) => OpReply::Txn(self.execute(writing, txn, path)?),
                (TxnOp::Txn(_), None) => unreachable!("a path has a branch of each nested one"),
            });
        }
        let revision = if writing.changes > 0 { writing.revision } else { self.meta.revision };
        Ok(TxnReply { succeeded: path.succeeded, responses, revision })
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

    /// The id is the entry's index above [`FOUNDERS_LAST`], or the next after the last one that was
    /// assigned, if that is higher: several in one entry differ, and ids ascend for ever.
    fn assign_member(&mut self, position: LogPosition, nonce: u64) -> Reply {
        if let Some(member) = self.assignments.get(&nonce) {
            return Reply::Assigned(*member);
        }
        let next = self.meta.last_assigned.0 + 1;
        let member = MemberId(next.max(FOUNDERS_LAST.0 + position.index));
        self.meta.last_assigned = member;
        self.assignments.insert(nonce, member);
        self.changes.tables.push(TableEntry::Assignment { nonce, member }.put());
        Reply::Assigned(member)
    }

    fn record_of(&self, key: &[u8], at: Revision) -> Result<Option<Arc<Record>>, StorageError> {
        let Some(version) = self.generation.index.get(key, at) else { return Ok(None) };
        Ok(self.records().read(&[version.id()])?.pop())
    }

    fn key_values(&self, found: &[Found]) -> Result<Vec<KeyValue>, StorageError> {
        let ids: Vec<RecordId> = found.iter().map(|found| found.id).collect();
        Ok(self.records().read(&ids)?.iter().map(|record| record.key_value()).collect())
    }

    fn records(&self) -> Applying<'_> {
        Applying { pending: &self.changes.records, storage: &*self.generation.storage }
    }

    fn reader<'a>(&'a self, records: &'a dyn Records, present: Revision) -> Reader<'a> {
        let now = Moment { revision: self.meta.revision, compacted: self.meta.compacted };
        let Generation { index, leases, .. } = &*self.generation;
        Reader { index, leases, records, now, present }
    }
}

impl Writing {
    fn next_id(&mut self) -> RecordId {
        let id = RecordId { main: self.revision, sub: self.changes };
        self.changes += 1;
        id
    }

    fn moves(&mut self, key: &[u8], from: LeaseId, to: LeaseId) {
        if from != to {
            self.moves.push(Move { key: key.into(), from, to });
        }
    }
}

/// Copies, into one allocation of the right size: what a request brought points into the buffer that
/// it was received in, and would keep all of that.
fn owned(key: &[u8], value: &[u8]) -> (Bytes, Bytes) {
    let mut value = Bytes::from([key, value].concat());
    let key = value.split_to(key.len());
    (key, value)
}
