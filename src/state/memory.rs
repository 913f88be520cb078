//! The [`Storage`] port on maps, for tests and simulations. Only this value holds the data.
//!
//! It checks the contract of its callers: ids ascend across submissions, and no discarded record is
//! read again.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;

use super::storage::{
    Changes, Record, RecordMeta, ScanBatch, Storage, StorageError, StorageSize, TableChange,
};
use crate::types::{LogPosition, RecordId, Revision};

#[derive(Debug, Default)]
pub struct MemoryStorage {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default, Clone)]
struct Inner {
    position: Option<LogPosition>,
    records: BTreeMap<RecordId, Arc<Record>>,
    tables: BTreeMap<Bytes, Bytes>,
    last: Option<RecordId>,
    discarded: BTreeSet<RecordId>,
    /// Simulates that every value is on disk.
    cache_evicted: bool,
}

/// The input of a recovery.
#[derive(Debug, Clone, Default)]
pub struct MemoryContents {
    /// The last entry whose changes are included.
    pub position: Option<LogPosition>,
    pub tables: Vec<(Bytes, Bytes)>,
    /// In ascending order of id.
    pub records: Vec<RecordMeta>,
}

impl MemoryStorage {
    /// From now on no value is in memory: [`Storage::cached`] returns `None`.
    pub fn evict_cache(&self) {
        self.lock().cache_evicted = true;
    }

    /// Number of records discarded so far.
    pub fn discarded_count(&self) -> usize {
        self.lock().discarded.len()
    }

    pub fn contents(&self) -> MemoryContents {
        let inner = self.lock();
        MemoryContents {
            position: inner.position,
            tables: inner.tables.iter().map(|(key, value)| (key.clone(), value.clone())).collect(),
            records: inner.records.values().map(|record| record.meta.clone()).collect(),
        }
    }

    /// A copy of this storage.
    #[must_use]
    pub fn copied(&self) -> MemoryStorage {
        MemoryStorage { inner: Mutex::new(self.lock().clone()) }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn get(&self, id: RecordId) -> Result<Arc<Record>, StorageError> {
        assert!(!self.discarded.contains(&id), "record {id} is read after it was discarded");
        self.records.get(&id).cloned().ok_or(StorageError::Missing(id))
    }
}

impl Storage for MemoryStorage {
    fn submit(&self, changes: Changes) {
        let mut inner = self.lock();
        assert!(inner.position.is_none_or(|last| last <= changes.position), "positions ascend");
        inner.position = Some(changes.position);
        for record in changes.records {
            let id = record.meta.id;
            assert!(inner.last.is_none_or(|last| last < id), "record {id} is out of order");
            inner.last = Some(id);
            inner.records.insert(id, record);
        }
        for change in changes.tables {
            match change {
                TableChange::Put { key, value } => inner.tables.insert(key, value),
                TableChange::Delete { key } => inner.tables.remove(&key),
            };
        }
        for id in changes.discarded {
            let existed = inner.records.remove(&id).is_some();
            assert!(existed, "record {id} is discarded but does not exist");
            inner.discarded.insert(id);
        }
    }

    fn cached(&self, id: RecordId) -> Option<Arc<Record>> {
        let inner = self.lock();
        if inner.cache_evicted { None } else { inner.get(id).ok() }
    }

    fn read(&self, ids: &[RecordId]) -> Result<Vec<Arc<Record>>, StorageError> {
        assert!(ids.is_sorted(), "ids are read in ascending order");
        let inner = self.lock();
        ids.iter().map(|id| inner.get(*id)).collect()
    }

    fn scan(
        &self,
        from: Revision,
        to: Revision,
        bytes_max: usize,
    ) -> Result<Vec<Arc<Record>>, StorageError> {
        let inner = self.lock();
        let mut batch = ScanBatch::new(to, bytes_max);
        for record in inner.records.range(RecordId { main: from, sub: 0 }..).map(|(_, r)| r) {
            if !batch.push(record) {
                break;
            }
        }
        Ok(batch.records)
    }

    fn size(&self) -> StorageSize {
        let inner = self.lock();
        let records = inner.records.values().map(|record| record.bytes());
        let tables = inner.tables.iter().map(|(key, value)| key.len() + value.len());
        let bytes = records.chain(tables).sum::<usize>() as u64;
        StorageSize { total_bytes: bytes, live_bytes: bytes }
    }
}
