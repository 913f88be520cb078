//! Puts, deletions and transactions.

use std::sync::Arc;

use bytes::Bytes;

use super::revision::NewRevision;
use crate::{
    state::{
        error::ReadError,
        evaluator::{TxnEvaluator, TxnPath},
        instance::{ReadableRevisions, StateInstance},
        machine::StateMachine,
        record_source::{RecordSource, WithUnsubmitted},
        scan::WALK_KEYS,
        storage::{Record, RecordMeta, StorageError},
    },
    types::{
        DeleteRange, DeleteRangeReply, KeyValue, LeaseId, OpReply, Put, PutReply, RecordId, Reply,
        Revision, Txn, TxnOp, TxnReply,
    },
};

/// An existing key that is to be deleted.
struct FoundKey {
    key: Bytes,
    id: RecordId,
    lease: LeaseId,
}

impl StateMachine {
    pub(super) fn put(&mut self, put: &Put) -> Result<Reply, ReadError> {
        let records = self.records();
        let before = self.evaluator(&records, self.meta.revision);
        before.check_lease(put.lease)?;
        before.check_previous(put)?;
        let (revision, reply) = self.write(|machine, new| machine.put_key(new, put))?;
        Ok(Reply::Put { revision, reply })
    }

    pub(super) fn delete_range(&mut self, delete: &DeleteRange) -> Result<Reply, ReadError> {
        let (revision, reply) = self.write(|machine, new| machine.delete_keys(new, delete))?;
        Ok(Reply::DeleteRange { revision, reply })
    }

    pub(super) fn txn(&mut self, txn: &Txn) -> Result<Reply, ReadError> {
        let records = self.records();
        let before = self.evaluator(&records, self.meta.revision);
        let path = before.path(txn)?;
        before.check(txn, &path)?;
        let (revision, reply) = self.write(|machine, new| machine.execute(new, txn, &path))?;
        Ok(Reply::Txn { revision, reply: TxnReply { revision, ..reply } })
    }

    /// If the key does not exist, there is no value or lease to keep. Only a transaction that deletes
    /// the key first gets here in that case, and the API refuses to propose one.
    fn put_key(&mut self, new: &mut NewRevision, put: &Put) -> Result<PutReply, ReadError> {
        let needs_previous = put.prev_kv || put.ignore_value || put.ignore_lease;
        let previous = if needs_previous { self.record_of(&put.key, new.revision)? } else { None };
        let kept = previous.as_deref();
        let value =
            if put.ignore_value { kept.map_or(&[][..], |kept| &kept.value) } else { &put.value };
        let lease = if put.ignore_lease {
            kept.map_or_else(Default::default, |kept| kept.meta.lease)
        } else {
            put.lease
        };
        let (key, value) = copy_together(&put.key, value);
        let id = new.next_id();
        let (version, previous_lease) = self.instance.index.put(&key, id, lease);
        new.move_key(&key, previous_lease, lease);
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

    fn delete_keys(
        &mut self,
        new: &mut NewRevision,
        delete: &DeleteRange,
    ) -> Result<DeleteRangeReply, ReadError> {
        let mut reply = DeleteRangeReply::default();
        let mut rest = Some(delete.keys.clone());
        while let Some(keys) = rest {
            let mut found: Vec<FoundKey> = Vec::new();
            rest = self.instance.index.walk(&keys, WALK_KEYS, |key, history| {
                if let Some(version) = history.at(new.revision) {
                    let key = Bytes::copy_from_slice(key);
                    found.push(FoundKey { key, id: version.id(), lease: version.lease });
                }
            });
            reply.deleted += found.len() as i64;
            if delete.prev_kv {
                reply.prev_kvs.extend(self.key_values(&found)?);
            }
            for FoundKey { key, lease, .. } in found {
                new.move_key(&key, lease, LeaseId::default());
                self.delete_key(new, key);
            }
        }
        Ok(reply)
    }

    fn execute(
        &mut self,
        new: &mut NewRevision,
        txn: &Txn,
        path: &TxnPath,
    ) -> Result<TxnReply, ReadError> {
        let mut responses = Vec::with_capacity(txn.success.len().max(txn.failure.len()));
        for (op, nested) in path.of(txn) {
            responses.push(match (op, nested) {
                (TxnOp::Range(range), _) => {
                    let records = self.records();
                    OpReply::Range(self.evaluator(&records, new.revision).range(range)?)
                }
                (TxnOp::Put(put), _) => OpReply::Put(self.put_key(new, put)?),
                (TxnOp::DeleteRange(delete), _) => {
                    OpReply::DeleteRange(self.delete_keys(new, delete)?)
                }
                (TxnOp::Txn(txn), Some(path)) => OpReply::Txn(self.execute(new, txn, path)?),
                (TxnOp::Txn(_), None) => unreachable!("a path has a branch for each nested one"),
            });
        }
        let revision = if new.has_changes() { new.revision } else { self.meta.revision };
        Ok(TxnReply { succeeded: path.succeeded, responses, revision })
    }

    fn record_of(&self, key: &[u8], at: Revision) -> Result<Option<Arc<Record>>, StorageError> {
        let Some(version) = self.instance.index.get(key, at) else { return Ok(None) };
        Ok(self.records().read(&[version.id()])?.pop())
    }

    fn key_values(&self, found: &[FoundKey]) -> Result<Vec<KeyValue>, StorageError> {
        let ids: Vec<RecordId> = found.iter().map(|found| found.id).collect();
        Ok(self.records().read(&ids)?.iter().map(|record| record.key_value()).collect())
    }

    fn records(&self) -> WithUnsubmitted<'_> {
        WithUnsubmitted { unsubmitted: &self.changes.records, storage: &*self.instance.storage }
    }

    fn evaluator<'a>(
        &'a self,
        records: &'a dyn RecordSource,
        current: Revision,
    ) -> TxnEvaluator<'a> {
        let readable =
            ReadableRevisions { revision: self.meta.revision, compacted: self.meta.compacted };
        let StateInstance { index, leases, .. } = &*self.instance;
        TxnEvaluator { index, leases, records, readable, current }
    }
}

/// Copies key and value into one allocation of their exact size. The slices of a request point into
/// its receive buffer, and would keep all of that buffer in memory.
fn copy_together(key: &[u8], value: &[u8]) -> (Bytes, Bytes) {
    let mut value = Bytes::from([key, value].concat());
    let key = value.split_to(key.len());
    (key, value)
}
