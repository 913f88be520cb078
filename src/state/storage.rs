//! What the state machine asks of whatever keeps its records: a port, in the state machine's words.
//!
//! `storage` implements it with block files and tables, a `MemoryStorage` for tests with maps.

use std::sync::Arc;

use bytes::Bytes;

use crate::types::{KeyValue, LeaseId, LogPosition, RecordId, Revision};

/// One MVCC record, as it is kept: a version of a key, or the mark that it was deleted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    pub meta: RecordMeta,
    pub value: Bytes,
}

/// All of a record but its value: what the index is rebuilt from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordMeta {
    pub id: RecordId,
    pub key: Bytes,
    /// The revision that created the key; for a tombstone zero.
    pub create_revision: Revision,
    /// For a tombstone zero.
    pub version: i64,
    pub lease: LeaseId,
    pub tombstone: bool,
}

impl RecordMeta {
    /// There was no such key before.
    pub fn is_creation(&self) -> bool {
        !self.tombstone && self.create_revision == self.id.main
    }
}

impl Record {
    /// Bytes of key and value.
    pub fn bytes(&self) -> usize {
        self.meta.key.len() + self.value.len()
    }

    pub fn key_value(&self) -> KeyValue {
        KeyValue {
            key: self.meta.key.clone(),
            value: self.value.clone(),
            create_revision: self.meta.create_revision,
            mod_revision: self.meta.id.main,
            version: self.meta.version,
            lease: self.meta.lease,
        }
    }
}

/// A change to the small ordered tables. Keys are made by `state::schema` alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TableChange {
    Put { key: Bytes, value: Bytes },
    Delete { key: Bytes },
}

/// Everything that applying one chunk of entries changed. `position` is the last entry of it.
#[derive(Debug, Clone, Default)]
pub struct Changes {
    pub position: LogPosition,
    /// In ascending order of id, and above every id submitted before.
    pub records: Vec<Arc<Record>>,
    pub tables: Vec<TableChange>,
    /// Records that no revision at or after the compaction can see any more.
    ///
    /// Once durable they must not come back at a recovery: a deletion may be gone for good while the
    /// record that it hides still lies in some file, and alone that one would bring the key back.
    pub discarded: Vec<RecordId>,
}

/// Why a record could not be read.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StorageError {
    /// The disk lies or fails; the member must stop. Names file and offset.
    #[error("{0}")]
    Damaged(Arc<str>),
    /// Only from [`Storage::cached`]-like reads: the value is on disk.
    #[error("record {0} is not there")]
    Missing(RecordId),
}

/// Keeps records and tables.
pub trait Storage: Send + Sync + 'static {
    /// Takes over what a chunk of entries changed. Readable when this returns; durable later,
    /// never before the entries are durable in the WAL. Does not block.
    fn submit(&self, changes: Changes);

    /// The record if it is in memory.
    fn cached(&self, id: RecordId) -> Option<Arc<Record>>;

    /// Reads these records (ascending ids), in this order. May block on the disk. All must exist:
    /// the caller holds a pin that keeps compaction from them.
    fn read(&self, ids: &[RecordId]) -> Result<Vec<Arc<Record>>, StorageError>;

    /// All records of the revisions from `from` up to and including `to`, in order: as many whole
    /// revisions as make about `bytes_max` of keys and values, and one at least. May block on the
    /// disk. The caller holds a pin that keeps compaction from them.
    fn scan(
        &self,
        from: Revision,
        to: Revision,
        bytes_max: usize,
    ) -> Result<Vec<Arc<Record>>, StorageError>;

    /// Bytes on disk, and the part of them that live records and tables need.
    fn size(&self) -> StorageSize;
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct StorageSize {
    pub total_bytes: u64,
    pub live_bytes: u64,
}

/// Whole revisions of records, about so many bytes: what [`Storage::scan`] collects.
#[derive(Debug)]
pub struct Run {
    pub records: Vec<Arc<Record>>,
    bytes: usize,
    bytes_max: usize,
    to: Revision,
}

impl Run {
    pub fn new(to: Revision, bytes_max: usize) -> Run {
        Run { records: Vec::new(), bytes: 0, bytes_max, to }
    }

    /// Takes the next record, by id. False: no more; this one was not taken.
    pub fn take(&mut self, record: &Arc<Record>) -> bool {
        let revision = record.meta.id.main;
        let begins_one = self.records.last().is_some_and(|last| last.meta.id.main < revision);
        if revision > self.to || begins_one && self.bytes >= self.bytes_max {
            return false;
        }
        self.bytes += record.bytes();
        self.records.push(record.clone());
        true
    }
}
