//! Scans of the store's changes from a revision on, for followers that start there.
//!
//! ```text
//! let put = |value: &'static str| {
//!     Command::Put(Put { key: "a".into(), value: value.into(), ..Put::default() })
//! };
//! machine.apply(LogPosition::default(), [put("old"), put("new")])?;
//! machine.publish();
//!
//! let scan = machine.view().scan_changes(Revision(3), Revision(3), 1 << 20)?;
//! assert_eq!(scan.records[0].value, "new");
//! assert_eq!(scan.next, Revision(4));
//! let previous = scan.previous(&scan.records)?;
//! assert_eq!(previous[0].as_ref().unwrap().value, "old");
//! ```

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use super::{
    error::ReadError,
    instance::{ReadSnapshot, ReadableRevisions},
    record_source::{InMemory, RecordSource},
    storage::{Record, StorageError},
    view::View,
};
use crate::types::{CommandError, RecordId, Revision};

/// The changes of some whole revisions. Until it is dropped, the values before them stay readable.
#[derive(Debug)]
pub struct ChangeScan {
    /// Puts and tombstones, in order.
    pub records: Vec<Arc<Record>>,
    /// Where the next scan begins: this one has every change before this revision.
    pub next: Revision,
    snapshot: ReadSnapshot,
}

impl View {
    /// The changes from revision `from` up to and including `to` or the current revision, whichever
    /// is less: whole revisions of about `bytes_max` bytes of keys and values, and at least one
    /// revision if there is any. May block on the disk.
    ///
    /// # Errors
    /// [`CommandError::Compacted`] if `from` is before the compacted revision.
    pub fn scan_changes(
        &self,
        from: Revision,
        to: Revision,
        bytes_max: usize,
    ) -> Result<ChangeScan, ReadError> {
        let snapshot = self.snapshot(|readable| {
            if from < readable.compacted {
                return Err(CommandError::Compacted);
            }
            // The revision before `from`, for the previous values, unless it is compacted.
            Ok(readable.compacted.max(Revision(from.0 - 1)))
        })?;
        let end = snapshot.readable.revision.min(to);
        let records = snapshot.instance.storage.scan(from, end, bytes_max)?;
        let next = match records.last() {
            Some(last) if last.meta.id.main < end => last.meta.id.main.next(),
            _ => from.max(end.next()),
        };
        Ok(ChangeScan { records, next, snapshot })
    }

    /// The record of `key` before `revision` changed it; `None` if the key did not exist, or if its
    /// record is compacted. Never blocks.
    ///
    /// # Errors
    /// [`StorageError::Missing`] if the record is on disk.
    pub fn previous_in_memory(
        &self,
        key: &[u8],
        revision: Revision,
    ) -> Result<Option<Arc<Record>>, StorageError> {
        let before = Revision(revision.0 - 1);
        let choose = |readable: ReadableRevisions| {
            if before < readable.compacted { Err(CommandError::Compacted) } else { Ok(before) }
        };
        let Ok(snapshot) = self.snapshot(choose) else { return Ok(None) };
        let Some(id) = snapshot.record_of(key, before) else { return Ok(None) };
        Ok(Some(InMemory(&*snapshot.instance.storage).read(&[id])?.remove(0)))
    }
}

impl ChangeScan {
    /// The previous record of the key of each of these records, which must be in this scan: as
    /// [`View::previous_in_memory`] for each, at the time of the scan. Reads those on disk
    /// together; may block.
    pub fn previous<R: AsRef<Record>>(
        &self,
        records: &[R],
    ) -> Result<Vec<Option<Arc<Record>>>, StorageError> {
        let ids = records.iter().map(|record| {
            let meta = &record.as_ref().meta;
            let before = Revision(meta.id.main.0 - 1);
            let readable = before >= self.snapshot.revision;
            readable.then(|| self.snapshot.record_of(&meta.key, before)).flatten()
        });
        let ids: Vec<Option<RecordId>> = ids.collect();
        let distinct: BTreeSet<RecordId> = ids.iter().copied().flatten().collect();
        let distinct: Vec<RecordId> = distinct.into_iter().collect();
        let read = self.snapshot.instance.storage.read(&distinct)?;
        let read: BTreeMap<RecordId, Arc<Record>> = distinct.into_iter().zip(read).collect();
        Ok(ids.into_iter().map(|id| read.get(&id?).cloned()).collect())
    }
}
