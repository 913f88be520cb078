//! The side that reads: what was published, at one revision a read, concurrently with applying.
//!
//! A small read is tried on the caller's thread, from memory, with [`RangeRead::in_memory`] or
//! [`View::read_txn_in_memory`]; they never block and do a bounded amount of work. What they leave
//! unfinished goes to a lane for reads and is finished there, from the disk.
//!
//! Invariants: a read sees whole commands only, and the state of exactly one revision; that revision
//! is pinned until the read is dropped, so compaction takes nothing away from it; a snapshot install
//! changes what *later* reads see, all at once.

use std::{fmt, sync::Arc};

use bytes::Bytes;

use super::{
    generation::{Current, Generation, Moment, Pin},
    hash::{self, KvHash},
    reader::Reader,
    records::{InMemory, OnDisk, Records},
    roster::Roster,
    scan::Scan,
    storage::{StorageError, StorageSize},
};
use crate::types::{
    CommandError, KeyRange, Lease, LeaseId, LogPosition, Range, RangeReply, Revision, Txn, TxnOp,
    TxnReply,
};

/// A read that needs more steps than this is not made on the caller's thread.
const IN_MEMORY_STEPS: usize = 16;

/// Reads what the machine published. Cheap to clone; may be used concurrently.
#[derive(Debug, Clone)]
pub struct View {
    current: Current,
}

/// Why a read gave no answer.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ReadError {
    /// Every member would refuse it.
    #[error(transparent)]
    Refused(#[from] CommandError),
    /// This member cannot read its disk; it must stop.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

impl View {
    pub(super) fn new(current: Current) -> View {
        View { current }
    }

    /// The revision of the store.
    pub fn revision(&self) -> Revision {
        self.current.get().now().revision
    }

    /// Reads before this revision are refused. -1 (as etcd says it) if nothing was compacted ever.
    pub fn compacted(&self) -> Revision {
        self.current.get().now().compacted
    }

    /// Nothing that a compaction up to this revision made superfluous is indexed any more.
    pub fn pruned(&self) -> Revision {
        self.current.get().pruning().0
    }

    /// The last entry whose effect is visible. `None`: none yet.
    pub fn applied(&self) -> Option<LogPosition> {
        self.current.get().applied()
    }

    /// The membership as the Raft layer stored it.
    pub fn membership(&self) -> Option<Bytes> {
        self.current.get().shown().membership
    }

    /// What is known of members beside the membership.
    pub fn roster(&self) -> Arc<Roster> {
        self.current.get().shown().roster
    }

    /// A lease as the last applied command left it.
    pub fn lease(&self, id: LeaseId) -> Option<Lease> {
        self.current.get().leases.get(id)
    }

    /// The lease, and the keys attached to it in ascending order.
    pub fn lease_with_keys(&self, id: LeaseId) -> Option<(Lease, Vec<Bytes>)> {
        self.current.get().leases.with_keys(id)
    }

    /// How many keys end with this lease.
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

    /// How many keys there are, give or take what is being applied.
    pub fn keys(&self) -> usize {
        self.current.get().index.alive()
    }

    /// How many reads are under way.
    pub fn reads_under_way(&self) -> usize {
        self.current.get().pins()
    }

    /// How much the storage keeps.
    pub fn size(&self) -> StorageSize {
        self.current.get().storage.size()
    }

    /// Starts a range read at the revision that it names, or the present one.
    pub fn range(&self, range: Range) -> Result<RangeRead, CommandError> {
        let pin = self.current.get().pin(|now| now.resolve(range.revision))?;
        let scan = Scan::new(range, pin.revision);
        Ok(RangeRead { scan, pin })
    }

    /// Evaluates a transaction that [`reads_only`]. May block on the disk.
    pub fn read_txn(&self, txn: &Txn) -> Result<(Revision, TxnReply), ReadError> {
        let pin = self.pin_all()?;
        evaluate(&pin, &OnDisk(&*pin.generation.storage), txn)
    }

    /// The same without blocking: `None` if it reads more than single keys or a value is on disk.
    pub fn read_txn_in_memory(&self, txn: &Txn) -> Result<Option<(Revision, TxnReply)>, ReadError> {
        if !names_single_keys(txn) {
            return Ok(None);
        }
        let pin = self.pin_all()?;
        match evaluate(&pin, &InMemory(&*pin.generation.storage), txn) {
            Ok(answer) => Ok(Some(answer)),
            Err(ReadError::Storage(StorageError::Missing(_))) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// A hash over all that can be read up to `revision` (zero: the present one). Blocks on the disk.
    pub fn hash_kv(&self, revision: Revision) -> Result<KvHash, ReadError> {
        let pin = self.pin_all()?;
        let revision = pin.now.resolve(revision)?;
        Ok(hash::hash_kv(&pin.generation, pin.now.compacted, revision)?)
    }

    /// Pins every revision that can be read.
    fn pin_all(&self) -> Result<Pin, CommandError> {
        self.pin(|now| Ok(now.compacted))
    }

    pub(super) fn pin(
        &self,
        choose: impl FnOnce(Moment) -> Result<Revision, CommandError>,
    ) -> Result<Pin, CommandError> {
        self.current.get().pin(choose)
    }
}

/// A range read under way. While it lives, its revision stays readable.
pub struct RangeRead {
    scan: Scan,
    pin: Pin,
}

/// What became of a read from memory.
#[derive(Debug)]
pub enum Attempt {
    /// The answer, and the revision the store had when the read began (the header's).
    Done(Revision, RangeReply),
    /// It needs the disk, or is too long for a thread that must not block: see
    /// [`RangeRead::finish`]. What was read so far is kept.
    Unfinished(Box<RangeRead>),
}

impl RangeRead {
    /// The revision the store had when the read began: the header's.
    pub fn revision(&self) -> Revision {
        self.pin.now.revision
    }

    /// Goes as far as memory and a bound on the work allow. Never blocks.
    pub fn in_memory(mut self) -> Result<Attempt, StorageError> {
        let Generation { index, storage, .. } = &*self.pin.generation;
        for _ in 0..IN_MEMORY_STEPS {
            match self.scan.step(index, &InMemory(&**storage)) {
                Ok(None) => {}
                Ok(Some(reply)) => return Ok(Attempt::Done(self.revision(), reply)),
                Err(StorageError::Missing(_)) => break,
                Err(error) => return Err(error),
            }
        }
        Ok(Attempt::Unfinished(Box::new(self)))
    }

    /// Reads the rest. May block on the disk.
    pub fn finish(self) -> Result<(Revision, RangeReply), StorageError> {
        let Generation { index, storage, .. } = &*self.pin.generation;
        let reply = self.scan.finish(index, &OnDisk(&**storage))?;
        Ok((self.pin.now.revision, reply))
    }
}

impl fmt::Debug for RangeRead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RangeRead").field("pin", &self.pin).finish_non_exhaustive()
    }
}

/// Whether a transaction changes nothing, whatever branch it takes, so that it need not go through
/// the log.
pub fn reads_only(txn: &Txn) -> bool {
    txn.success.iter().chain(&txn.failure).all(|op| match op {
        TxnOp::Range(_) => true,
        TxnOp::Put(_) | TxnOp::DeleteRange(_) => false,
        TxnOp::Txn(nested) => reads_only(nested),
    })
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
    pin: &Pin,
    records: &dyn Records,
    txn: &Txn,
) -> Result<(Revision, TxnReply), ReadError> {
    let now = pin.now;
    let Generation { index, leases, .. } = &*pin.generation;
    let reader = Reader { index, leases, records, now, present: now.revision };
    let path = reader.path(txn)?;
    reader.check(txn, &path)?;
    Ok((now.revision, reader.answer(txn, &path)?))
}
