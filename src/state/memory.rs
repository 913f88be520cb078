//! The [`Storage`] port over maps, for tests and simulations: nothing is durable but this value.
//!
//! It holds its users to the contract: ids ascend across submissions, and a record that was
//! discarded is never asked for again.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;

use super::storage::{
    Changes, Record, RecordMeta, Run, Storage, StorageError, StorageSize, TableChange,
};
use crate::types::{LogPosition, RecordId, Revision};

#[derive(Debug, Default)]
pub struct MemoryStorage {
    kept: Mutex<Kept>,
}

#[derive(Debug, Default, Clone)]
struct Kept {
    position: Option<LogPosition>,
    records: BTreeMap<RecordId, Arc<Record>>,
    tables: BTreeMap<Bytes, Bytes>,
    last: Option<RecordId>,
    discarded: BTreeSet<RecordId>,
    /// Pretends that every value is on disk.
    cold: bool,
}

/// What a recovery starts from.
#[derive(Debug, Clone, Default)]
pub struct Contents {
    /// The last entry whose changes are in it.
    pub position: Option<LogPosition>,
    pub tables: Vec<(Bytes, Bytes)>,
    /// In ascending order of id.
    pub records: Vec<RecordMeta>,
}

impl MemoryStorage {
    /// From now on no value is in memory: [`Storage::cached`] answers `None`.
    pub fn chill(&self) {
        self.kept().cold = true;
    }

    /// How many records were discarded so far.
    pub fn discarded_count(&self) -> usize {
        self.kept().discarded.len()
    }

    pub fn record_count(&self) -> usize {
        self.kept().records.len()
    }

    pub fn contents(&self) -> Contents {
        let kept = self.kept();
        Contents {
            position: kept.position,
            tables: kept.tables.iter().map(|(key, value)| (key.clone(), value.clone())).collect(),
            records: kept.records.values().map(|record| record.meta.clone()).collect(),
        }
    }

    /// Another storage with the same contents.
    #[must_use]
    pub fn copied(&self) -> MemoryStorage {
        MemoryStorage { kept: Mutex::new(self.kept().clone()) }
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Kept {
    fn get(&self, id: RecordId) -> Result<Arc<Record>, StorageError> {
        assert!(!self.discarded.contains(&id), "record {id} was discarded and is read again");
        self.records.get(&id).cloned().ok_or(StorageError::Missing(id))
    }
}

impl Storage for MemoryStorage {
    fn submit(&self, changes: Changes) {
        let mut kept = self.kept();
        assert!(kept.position.is_none_or(|last| last <= changes.position), "positions ascend");
        kept.position = Some(changes.position);
        for record in changes.records {
            let id = record.meta.id;
            assert!(kept.last.is_none_or(|last| last < id), "record {id} is out of order");
            kept.last = Some(id);
            kept.records.insert(id, record);
        }
        for change in changes.tables {
            match change {
                TableChange::Put { key, value } => kept.tables.insert(key, value),
                TableChange::Delete { key } => kept.tables.remove(&key),
            };
        }
        for id in changes.discarded {
            assert!(kept.records.remove(&id).is_some(), "record {id} is discarded without being");
            kept.discarded.insert(id);
        }
    }

    fn cached(&self, id: RecordId) -> Option<Arc<Record>> {
        let kept = self.kept();
        if kept.cold { None } else { kept.get(id).ok() }
    }

    fn read(&self, ids: &[RecordId]) -> Result<Vec<Arc<Record>>, StorageError> {
        assert!(ids.is_sorted(), "ids are read in ascending order");
        let kept = self.kept();
        ids.iter().map(|id| kept.get(*id)).collect()
    }

    fn scan(
        &self,
        from: Revision,
        to: Revision,
        bytes_max: usize,
    ) -> Result<Vec<Arc<Record>>, StorageError> {
        let kept = self.kept();
        let mut run = Run::new(to, bytes_max);
        for record in kept.records.range(RecordId { main: from, sub: 0 }..).map(|(_, r)| r) {
            if !run.take(record) {
                break;
            }
        }
        Ok(run.records)
    }

    fn size(&self) -> StorageSize {
        let kept = self.kept();
        let records = kept.records.values().map(|record| record.bytes());
        let tables = kept.tables.iter().map(|(key, value)| key.len() + value.len());
        let bytes = records.chain(tables).sum::<usize>() as u64;
        StorageSize { total_bytes: bytes, live_bytes: bytes }
    }
}
