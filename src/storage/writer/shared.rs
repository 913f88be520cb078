//! The part of the store that the writer lane shares with the store's handle.

use std::sync::{Arc, Mutex, PoisonError, RwLock};

use crate::storage::{metrics::StorageMetrics, record_store::RecordStore, snapshot::SnapshotRef};

#[derive(Debug)]
pub struct Shared {
    records: RwLock<Arc<RecordStore>>,
    retained: Mutex<Option<SnapshotRef>>,
    pub metrics: Arc<StorageMetrics>,
}

impl Shared {
    pub fn new(records: Arc<RecordStore>, retained: Option<SnapshotRef>) -> Shared {
        Shared {
            records: RwLock::new(records),
            retained: Mutex::new(retained),
            metrics: Arc::default(),
        }
    }

    /// The records of the current state.
    pub fn records(&self) -> Arc<RecordStore> {
        self.records.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub fn set_records(&self, records: Arc<RecordStore>) {
        *self.records.write().unwrap_or_else(PoisonError::into_inner) = records;
    }

    pub fn retained(&self) -> Option<SnapshotRef> {
        self.retained.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Returns the previously retained snapshot.
    pub fn retain(&self, snapshot: SnapshotRef) -> Option<SnapshotRef> {
        self.retained.lock().unwrap_or_else(PoisonError::into_inner).replace(snapshot)
    }
}
