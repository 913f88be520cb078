//! The port to a table engine.

use std::{collections::BTreeMap, fmt::Debug, path::Path};

use bytes::Bytes;

/// The new value of each key; `None` deletes it. A later change of the same key replaces the earlier.
pub type Batch = BTreeMap<Bytes, Option<Bytes>>;

/// An engine's error message. Tables that have failed must not be used any more.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{0}")]
pub struct TablesError(pub String);

/// Opens tables, one directory each.
pub trait TablesEngine: Debug + Send + Sync + 'static {
    /// Opens the tables in this existing directory. A new directory has empty tables. May block.
    fn open(&self, dir: &Path) -> Result<Box<dyn Tables>, TablesError>;

    /// The directory was removed.
    fn removed(&self, _dir: &Path) {}
}

/// Open tables. Dropping them without [`Tables::close`] is a crash.
pub trait Tables: Debug + Send {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, TablesError>;

    /// Applies all of the batch or, if the process dies, possibly nothing of it.
    fn apply(&mut self, batch: &Batch) -> Result<(), TablesError>;

    /// All entries, in key order.
    fn scan(&self) -> Result<Vec<(Bytes, Bytes)>, TablesError>;

    /// Bytes on disk.
    fn size(&self) -> Result<u64, TablesError>;

    /// Writes buffered data, and releases the directory.
    fn close(self: Box<Self>) -> Result<(), TablesError>;
}
