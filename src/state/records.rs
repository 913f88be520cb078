//! Where a read takes its records from: memory alone, the disk too, or also from what the chunk that
//! is being applied made and has not handed over yet.

use std::sync::Arc;

use super::storage::{Record, Storage, StorageError};
use crate::types::RecordId;

/// A source of records.
pub(super) trait Records {
    /// These records, in the order of `ids`, whatever that is.
    fn read(&self, ids: &[RecordId]) -> Result<Vec<Arc<Record>>, StorageError>;
}

/// Never blocks: [`StorageError::Missing`] means that a value is on disk.
pub(super) struct InMemory<'a>(pub(super) &'a dyn Storage);

impl Records for InMemory<'_> {
    fn read(&self, ids: &[RecordId]) -> Result<Vec<Arc<Record>>, StorageError> {
        ids.iter().map(|id| self.0.cached(*id).ok_or(StorageError::Missing(*id))).collect()
    }
}

/// May block.
pub(super) struct OnDisk<'a>(pub(super) &'a dyn Storage);

impl Records for OnDisk<'_> {
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

/// What the apply lane sees: records that are not submitted yet (ascending), and the storage.
pub(super) struct Applying<'a> {
    pub(super) pending: &'a [Arc<Record>],
    pub(super) storage: &'a dyn Storage,
}

impl Applying<'_> {
    fn pending(&self, id: RecordId) -> Option<Arc<Record>> {
        let found = self.pending.binary_search_by_key(&id, |record| record.meta.id).ok()?;
        Some(self.pending[found].clone())
    }
}

impl Records for Applying<'_> {
    fn read(&self, ids: &[RecordId]) -> Result<Vec<Arc<Record>>, StorageError> {
        let submitted: Vec<RecordId> =
            ids.iter().copied().filter(|id| self.pending(*id).is_none()).collect();
        let mut submitted = OnDisk(self.storage).read(&submitted)?.into_iter();
        ids.iter()
            .map(|id| self.pending(*id).or_else(|| submitted.next()))
            .zip(ids)
            .map(|(record, id)| record.ok_or(StorageError::Missing(*id)))
            .collect()
    }
}
