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
//! let before = machine.view().previous(b"a", Revision(3))?.unwrap();
//! assert_eq!(before.value, "old");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use std::sync::Arc;

use super::{
    generation::{Moment, Pin},
    storage::{Record, StorageError},
    view::{ReadError, View},
};
use crate::types::{CommandError, Revision};

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
    /// compacted. May block on the disk.
    pub fn previous(
        &self,
        key: &[u8],
        revision: Revision,
    ) -> Result<Option<Arc<Record>>, StorageError> {
        let before = Revision(revision.0 - 1);
        let seen = |now: Moment| {
            if before < now.compacted { Err(CommandError::Compacted) } else { Ok(before) }
        };
        match self.pin(seen) {
            Ok(pin) => pin.previous(key, before),
            Err(_) => Ok(None),
        }
    }
}

impl Past {
    /// What `key` was before `revision` changed it: one of those in here. As [`View::previous`], and
    /// as of when the piece was read.
    pub fn previous(
        &self,
        key: &[u8],
        revision: Revision,
    ) -> Result<Option<Arc<Record>>, StorageError> {
        let before = Revision(revision.0 - 1);
        if before < self.pin.revision { Ok(None) } else { self.pin.previous(key, before) }
    }
}

impl Pin {
    fn previous(&self, key: &[u8], at: Revision) -> Result<Option<Arc<Record>>, StorageError> {
        let Some(version) = self.generation.index.get(key, at) else { return Ok(None) };
        let (id, storage) = (version.id(), &self.generation.storage);
        match storage.cached(id) {
            Some(record) => Ok(Some(record)),
            None => Ok(storage.read(&[id])?.pop()),
        }
    }
}
