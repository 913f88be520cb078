//! The read side: published revisions, read concurrently with applying, one revision a read.
//!
//! A small read runs on the caller's thread, from memory: [`RangeRead::in_memory`] and
//! [`View::read_txn_in_memory`] never block and do a bounded amount of work. A read that they leave
//! unfinished is finished from the disk, on a read lane.
//!
//! Invariants: a read sees whole commands, at exactly one revision. That revision stays pinned until
//! the read is dropped, so pruning takes nothing from it. A snapshot install changes all *later*
//! reads, atomically.

use std::{fmt, sync::Arc};

use bytes::Bytes;

use super::{
    error::ReadError,
    evaluator::TxnEvaluator,
    hash::{self, KvHash},
    instance::{CurrentInstance, ReadSnapshot, ReadableRevisions, StateInstance},
    record_source::{InMemory, OnDisk, RecordSource},
    roster::Roster,
    scan::Scan,
    storage::{StorageError, StorageSize},
};
use crate::types::{
    CommandError, KeyRange, Lease, LeaseId, LogPosition, Range, RangeReply, Revision, Txn, TxnOp,
    TxnReply,
};

/// Maximum steps of a read on the caller's thread.
const IN_MEMORY_STEPS_MAX: usize = 16;

/// Reads the published state. Cheap to clone; may be used concurrently.
#[derive(Debug, Clone)]
pub struct View {
    current: CurrentInstance,
}

impl View {
    pub(super) fn new(current: CurrentInstance) -> View {
        View { current }
    }

    /// The store's current revision.
    pub fn revision(&self) -> Revision {
        self.current.get().readable().revision
    }

    /// Reads before this revision are refused. -1, as in etcd, if the store was never compacted.
    pub fn compacted(&self) -> Revision {
        self.current.get().readable().compacted
    }

    /// The index holds no version that a compaction up to this revision made obsolete.
    pub fn pruned(&self) -> Revision {
        self.current.get().prune_bounds().0
    }

    /// The last entry whose effects are visible. `None`: no entry yet.
    pub fn applied(&self) -> Option<LogPosition> {
        self.current.get().applied()
    }

    /// The membership, encoded by the Raft layer.
    pub fn membership(&self) -> Option<Bytes> {
        self.current.get().published().membership
    }

    /// The cluster's knowledge of its members, apart from Raft's membership.
    pub fn roster(&self) -> Arc<Roster> {
        self.current.get().published().roster
    }

    /// A lease as the last applied command left it.
    pub fn lease(&self, id: LeaseId) -> Option<Lease> {
        self.current.get().leases.get(id)
    }

    /// The lease, and the keys attached to it in ascending order.
    pub fn lease_with_keys(&self, id: LeaseId) -> Option<(Lease, Vec<Bytes>)> {
        self.current.get().leases.with_keys(id)
    }

    /// Number of keys attached to this lease.
    pub fn lease_key_count(&self, id: LeaseId) -> usize {
        self.current.get().leases.key_count(id)
    }

    /// All leases, in ascending order of id.
    pub fn leases(&self) -> Vec<Lease> {
        self.current.get().leases.all()
    }

    pub fn lease_count(&self) -> usize {
        self.current.get().leases.count()
    }

    /// Number of keys, including the effects of commands that are being applied.
    pub fn keys(&self) -> usize {
        self.current.get().index.alive()
    }

    /// Number of reads that hold a revision pinned.
    pub fn open_reads(&self) -> usize {
        self.current.get().open_reads()
    }

    /// Sizes of the storage.
    pub fn size(&self) -> StorageSize {
        self.current.get().storage.size()
    }

    /// Starts a range read at the revision that `range` names, or at the current one.
    pub fn range(&self, range: Range) -> Result<RangeRead, CommandError> {
        let snapshot = self.snapshot(|readable| readable.resolve(range.revision))?;
        let scan = Scan::new(range, snapshot.revision);
        Ok(RangeRead { scan, snapshot })
    }

    /// Evaluates a transaction without writes in either branch. May block on the disk.
    pub fn read_txn(&self, txn: &Txn) -> Result<(Revision, TxnReply), ReadError> {
        let snapshot = self.snapshot_of_all()?;
        evaluate(&snapshot, &OnDisk(&*snapshot.instance.storage), txn)
    }

    /// The same without blocking: `None` if the transaction reads more than single keys, or if a value
    /// is on disk.
    pub fn read_txn_in_memory(&self, txn: &Txn) -> Result<Option<(Revision, TxnReply)>, ReadError> {
        if !names_single_keys(txn) {
            return Ok(None);
        }
        let snapshot = self.snapshot_of_all()?;
        match evaluate(&snapshot, &InMemory(&*snapshot.instance.storage), txn) {
            Ok(answer) => Ok(Some(answer)),
            Err(ReadError::Storage(StorageError::Missing(_))) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// A hash of everything readable up to `revision` (zero: the current one). Blocks on the disk.
    pub fn hash_kv(&self, revision: Revision) -> Result<KvHash, ReadError> {
        let snapshot = self.snapshot_of_all()?;
        let readable = snapshot.readable;
        let revision = readable.resolve(revision)?;
        Ok(hash::hash_kv(&snapshot.instance, readable.compacted, revision)?)
    }

    /// Pins every readable revision.
    fn snapshot_of_all(&self) -> Result<ReadSnapshot, CommandError> {
        self.snapshot(|readable| Ok(readable.compacted))
    }

    pub(super) fn snapshot(
        &self,
        choose: impl FnOnce(ReadableRevisions) -> Result<Revision, CommandError>,
    ) -> Result<ReadSnapshot, CommandError> {
        self.current.get().snapshot(choose)
    }
}

/// A range read in progress. Until it is dropped, its revision stays readable.
pub struct RangeRead {
    scan: Scan,
    snapshot: ReadSnapshot,
}

/// The progress of a read from memory.
#[derive(Debug)]
pub enum ReadProgress {
    /// The store's revision at the start of the read, for the header, and the reply.
    Done(Revision, RangeReply),
    /// The read needs the disk, or takes too long for a thread that must not block: see
    /// [`RangeRead::finish`]. It continues where it stopped.
    Unfinished(Box<RangeRead>),
}

impl RangeRead {
    /// The store's revision at the start of the read, for the header.
    pub fn revision(&self) -> Revision {
        self.snapshot.readable.revision
    }

    /// Reads as far as memory and a bound on the work allow. Never blocks.
    pub fn in_memory(mut self) -> Result<ReadProgress, StorageError> {
        let StateInstance { index, storage, .. } = &*self.snapshot.instance;
        for _ in 0..IN_MEMORY_STEPS_MAX {
            match self.scan.step(index, &InMemory(&**storage)) {
                Ok(None) => {}
                Ok(Some(reply)) => return Ok(ReadProgress::Done(self.revision(), reply)),
                Err(StorageError::Missing(_)) => break,
                Err(error) => return Err(error),
            }
        }
        Ok(ReadProgress::Unfinished(Box::new(self)))
    }

    /// Reads the rest. May block on the disk.
    pub fn finish(self) -> Result<(Revision, RangeReply), StorageError> {
        let StateInstance { index, storage, .. } = &*self.snapshot.instance;
        let reply = self.scan.finish(index, &OnDisk(&**storage))?;
        Ok((self.snapshot.readable.revision, reply))
    }
}

impl fmt::Debug for RangeRead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RangeRead").field("snapshot", &self.snapshot).finish_non_exhaustive()
    }
}

fn names_single_keys(txn: &Txn) -> bool {
    let single = |keys: &KeyRange| matches!(keys, KeyRange::One(_));
    txn.compare.iter().all(|compare| single(&compare.keys))
        && txn.success.iter().chain(&txn.failure).all(|op| match op {
            TxnOp::Range(range) => single(&range.keys),
            TxnOp::Txn(nested) => names_single_keys(nested),
            TxnOp::Put(_) | TxnOp::DeleteRange(_) => false,
        })
}

fn evaluate(
    snapshot: &ReadSnapshot,
    records: &dyn RecordSource,
    txn: &Txn,
) -> Result<(Revision, TxnReply), ReadError> {
    let readable = snapshot.readable;
    let StateInstance { index, leases, .. } = &*snapshot.instance;
    let evaluator = TxnEvaluator { index, leases, records, readable, current: readable.revision };
    let path = evaluator.path(txn)?;
    evaluator.check(txn, &path)?;
    Ok((readable.revision, evaluator.reply(txn, &path)?))
}
