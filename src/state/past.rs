//! What happened: the store's changes from a revision on, for whoever follows it from there.
//!
//! ```
//! # use std::sync::Arc;
//! # use ordinal::{state::{Machine, MemoryStorage}, types::*};
//! # let mut machine = Machine::recover(Arc::new(MemoryStorage::default()), None, [], [])?;
//! let put = |value: &'static str| {
//!     Command::Put(Put { key: "a".into(), value: value.into(), ..Put::default() })
//! };
//! machine.apply(LogPosition::default(), [put("old"), put("new")])?;
//! machine.publish();
//!
//! let past = machine.view().past(Revision(3), Revision(3), 1 << 20)?;
//! assert_eq!(past.records[0].value, "new");
//! assert_eq!(past.next, Revision(4));
//! let before = past.previous(&past.records)?;
//! assert_eq!(before[0].as_ref().unwrap().value, "old");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use super::{
    generation::{Moment, Pin},
    records::{InMemory, Records},
    storage::{Record, StorageError},
    view::{ReadError, View},
};
use crate::types::{CommandError, RecordId, Revision};

/// A piece of the past: whole revisions. While it lives, what was there before them stays readable.
#[derive(Debug)]
pub struct Past {
    /// In order: puts, and the marks of deletions.
    pub records: Vec<Arc<Record>>,
    /// Where the next piece begins: everything that happened before this revision is in this one.
    pub next: Revision,
    pin: Pin,
}

impl View {
    /// What happened from revision `from` up to and including `to`, or the present one if that is
    /// less: about `bytes_max` of keys and values, whole revisions, one at least if there is any. May
    /// block on the disk.
    ///
    /// # Errors
    /// [`CommandError::Compacted`] if `from` is before the compacted revision.
    pub fn past(&self, from: Revision, to: Revision, bytes_max: usize) -> Result<Past, ReadError> {
        let pin = self.pin(|now| {
            if from < now.compacted {
                return Err(CommandError::Compacted);
            }
            // The revision before it, for what changes in it; but that may be compacted.
            Ok(now.compacted.max(Revision(from.0 - 1)))
        })?;
        let now = pin.now.revision.min(to);
        let records = pin.generation.storage.scan(from, now, bytes_max)?;
        let next = match records.last() {
            Some(last) if last.meta.id.main < now => last.meta.id.main.next(),
            _ => from.max(now.next()),
        };
        Ok(Past { records, next, pin })
    }

    /// What `key` was before `revision` changed it; `None` if it did not exist, or if that is
    /// compacted. Never blocks.
    ///
    /// # Errors
    /// [`StorageError::Missing`] if it is on disk.
    pub fn previous_in_memory(
        &self,
        key: &[u8],
        revision: Revision,
    ) -> Result<Option<Arc<Record>>, StorageError> {
        let before = Revision(revision.0 - 1);
        let seen = |now: Moment| {
            if before < now.compacted { Err(CommandError::Compacted) } else { Ok(before) }
        };
        let Ok(pin) = self.pin(seen) else { return Ok(None) };
        let Some(id) = pin.previous(key, before) else { return Ok(None) };
        Ok(Some(InMemory(&*pin.generation.storage).read(&[id])?.remove(0)))
    }
}

impl Past {
    /// What the keys of some records in here were before them: as [`View::previous_in_memory`] for
    /// each, as of when the piece was read. Those on disk are read together; may block.
    pub fn previous<R: AsRef<Record>>(
        &self,
        records: &[R],
    ) -> Result<Vec<Option<Arc<Record>>>, StorageError> {
        let ids = records.iter().map(|record| {
            let meta = &record.as_ref().meta;
            let before = Revision(meta.id.main.0 - 1);
            if before < self.pin.revision { None } else { self.pin.previous(&meta.key, before) }
        });
        let ids: Vec<Option<RecordId>> = ids.collect();
        let known: BTreeSet<RecordId> = ids.iter().copied().flatten().collect();
        let known: Vec<RecordId> = known.into_iter().collect();
        let read = self.pin.generation.storage.read(&known)?;
        let read: BTreeMap<RecordId, Arc<Record>> = known.into_iter().zip(read).collect();
        Ok(ids.into_iter().map(|id| read.get(&id?).cloned()).collect())
    }
}

impl Pin {
    fn previous(&self, key: &[u8], at: Revision) -> Option<RecordId> {
        self.generation.index.get(key, at).map(|version| version.id())
    }
}
