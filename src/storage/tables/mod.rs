//! The small ordered tables: one flat map of bytes, changed by atomic batches only.
//!
//! Two engines: [`SledTables`] on disk, and [`MemoryTables`] for simulations. Neither is believed:
//! [`CheckedTables`] keeps a checksum over the whole content in the same batch as every change, and
//! opening compares it with what is there.
//!
//! Invariant: after a crash the content is that after *some* batch, not necessarily the last one
//! (sled syncs when it likes); anything else is noticed by the checksum.

mod checked;
mod memory;
mod sled;

use std::{collections::BTreeMap, fmt::Debug, path::Path};

use bytes::Bytes;

pub(super) use checked::CheckedTables;
pub use memory::MemoryTables;
pub use sled::SledTables;

/// What a batch makes of each key: a value, or nothing. One change a key: the last one.
pub type Batch = BTreeMap<Bytes, Option<Bytes>>;

/// Why an engine failed, in its words. Tables that failed once must not be used any more.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{0}")]
pub struct TablesError(pub String);

/// Opens tables, one directory each.
pub trait TablesEngine: Debug + Send + Sync + 'static {
    /// Opens the tables in this directory, which exists; empty if it is new. May block.
    fn open(&self, dir: &Path) -> Result<Box<dyn Tables>, TablesError>;

    /// The directory was removed.
    fn removed(&self, _dir: &Path) {}
}

/// Open tables. Dropping them without [`Tables::close`] is a crash.
pub trait Tables: Debug + Send {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, TablesError>;

    /// All of the batch or, if the process dies, perhaps nothing of it.
    fn apply(&mut self, batch: &Batch) -> Result<(), TablesError>;

    /// Everything, in order of keys.
    fn scan(&self) -> Result<Vec<(Bytes, Bytes)>, TablesError>;

    /// Bytes on disk.
    fn size(&self) -> Result<u64, TablesError>;

    /// Writes what is still buffered, and lets go of the directory.
    fn close(self: Box<Self>) -> Result<(), TablesError>;
}

#[cfg(test)]
mod tests;
