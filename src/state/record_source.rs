//! Sources of records for a read: memory only, memory and disk, or both with the records of the
//! chunk that is being applied and has not been submitted to storage yet.

use std::sync::Arc;

use super::storage::{Record, Storage, StorageError};
use crate::types::RecordId;

/// A source of records.
pub trait RecordSource {
    /// These records, in the order of `ids`, which may be any order.
    fn read(&self, ids: &[RecordId]) -> Result<Vec<Arc<Record>>, StorageError>;
}

/// Never blocks: [`StorageError::Missing`] means that a value is on disk.
pub struct InMemory<'a>(pub &'a dyn Storage);

impl RecordSource for InMemory<'_> {
    fn read(&self, ids: &[RecordId]) -> Result<Vec<Arc<Record>>, StorageError> {
        ids.iter().map(|id| self.0.cached(*id).ok_or(StorageError::Missing(*id))).collect()
    }
}

/// May block.
pub struct OnDisk<'a>(pub &'a dyn Storage);

impl RecordSource for OnDisk<'_> {
    fn read(&self, ids: &[RecordId]) -> Result<Vec<Arc<Record>>, StorageError> {
        if ids.is_sorted() {
            return self.0.read(ids);
        }
        let mut order: Vec<usize> = (0..ids.len()).collect();
        order.sort_unstable_by_key(|at| ids[*at]);
        let ascending: Vec<RecordId> = order.iter().map(|at| ids[*at]).collect();
        let mut read: Vec<_> = order.into_iter().zip(self.0.read(&ascending)?).collect();
        read.sort_unstable_by_key(|(at, _)| *at);
        Ok(read.into_iter().map(|(_, record)| record).collect())
    }
}

/// The apply lane's source: records that are not submitted yet (ascending), then the storage.
pub struct WithUnsubmitted<'a> {
    pub unsubmitted: &'a [Arc<Record>],
    pub storage: &'a dyn Storage,
}

impl WithUnsubmitted<'_> {
    fn unsubmitted(&self, id: RecordId) -> Option<Arc<Record>> {
        let found = self.unsubmitted.binary_search_by_key(&id, |record| record.meta.id).ok()?;
        Some(self.unsubmitted[found].clone())
    }
}

impl RecordSource for WithUnsubmitted<'_> {
    fn read(&self, ids: &[RecordId]) -> Result<Vec<Arc<Record>>, StorageError> {
        let submitted: Vec<RecordId> =
            ids.iter().copied().filter(|id| self.unsubmitted(*id).is_none()).collect();
        let mut submitted = OnDisk(self.storage).read(&submitted)?.into_iter();
        ids.iter()
            .map(|id| self.unsubmitted(*id).or_else(|| submitted.next()))
            .zip(ids)
            .map(|(record, id)| record.ok_or(StorageError::Missing(*id)))
            .collect()
    }
}
