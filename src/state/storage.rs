//! The port to the storage of records, in the state machine's words.
//!
//! The `storage` module implements it with block files and tables, `MemoryStorage` with maps.

use std::sync::Arc;

use bytes::Bytes;

use crate::types::{KeyValue, LeaseId, LogPosition, RecordId, Revision};

/// One MVCC record: a version of a key, or a tombstone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    pub meta: RecordMeta,
    pub value: Bytes,
}

/// A record without its value. The index is rebuilt from these.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordMeta {
    pub id: RecordId,
    pub key: Bytes,
    /// The revision that created the key; zero in a tombstone.
    pub create_revision: Revision,
    /// Zero in a tombstone.
    pub version: i64,
    pub lease: LeaseId,
    pub tombstone: bool,
}

impl RecordMeta {
    /// Whether the key did not exist before this record.
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

/// A change of the small ordered tables. `state::schema` defines their keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TableChange {
    Put { key: Bytes, value: Bytes },
    Delete { key: Bytes },
}

/// All changes of one chunk of entries. `position` is the last entry of the chunk.
#[derive(Debug, Clone, Default)]
pub struct Changes {
    pub position: LogPosition,
    /// In ascending order of id, and above every id submitted before.
    pub records: Vec<Arc<Record>>,
    pub tables: Vec<TableChange>,
    /// Records that are invisible at the compacted revision and all later ones.
    ///
    /// Once durable they must not reappear at a recovery. Otherwise a put could come back whose
    /// tombstone is already gone, and with it the deleted key.
    pub discarded: Vec<RecordId>,
}

/// Why a record could not be read.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StorageError {
    /// The disk failed or returned wrong bytes; the member must stop. Names file and offset.
    #[error("{0}")]
    Damaged(Arc<str>),
    /// The record is not in memory, or does not exist.
    #[error("record {0} is missing")]
    Missing(RecordId),
}

/// Stores records and tables.
pub trait Storage: Send + Sync + 'static {
    /// Takes the changes of a chunk of entries. They are readable when this returns, and become
    /// durable later, after the WAL has synced the entries. Does not block.
    fn submit(&self, changes: Changes);

    /// The record if it is in memory.
    fn cached(&self, id: RecordId) -> Option<Arc<Record>>;

    /// Reads these records (ascending ids), in this order. May block on the disk. All must exist:
    /// the caller holds a read snapshot that protects them from compaction.
    fn read(&self, ids: &[RecordId]) -> Result<Vec<Arc<Record>>, StorageError>;

    /// The records of the revisions from `from` up to and including `to`, in order: whole revisions
    /// of about `bytes_max` bytes of keys and values, and at least one revision. May block on the
    /// disk. The caller holds a read snapshot that protects them from compaction.
    fn scan(
        &self,
        from: Revision,
        to: Revision,
        bytes_max: usize,
    ) -> Result<Vec<Arc<Record>>, StorageError>;

    /// Bytes on disk, and the share of them that live records and tables need.
    fn size(&self) -> StorageSize;
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct StorageSize {
    pub total_bytes: u64,
    pub live_bytes: u64,
}

/// Collects the result of [`Storage::scan`]: whole revisions, up to a limit on bytes.
#[derive(Debug)]
pub struct ScanBatch {
    pub records: Vec<Arc<Record>>,
    bytes: usize,
    bytes_max: usize,
    to: Revision,
}

impl ScanBatch {
    pub fn new(to: Revision, bytes_max: usize) -> ScanBatch {
        ScanBatch { records: Vec::new(), bytes: 0, bytes_max, to }
    }

    /// Adds the next record, in order of id. False: the batch is complete without it.
    pub fn push(&mut self, record: &Arc<Record>) -> bool {
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
