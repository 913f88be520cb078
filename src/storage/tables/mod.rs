//! The small ordered tables: one flat map of bytes, changed only by atomic batches.
//!
//! There are two engines: [`SledTables`] on disk, and `MemoryTables` for simulations. Neither is
//! trusted: [`CheckedTables`] stores a checksum of the whole content with every batch, and verifies it
//! on opening.
//!
//! Invariant: after a crash the content is that after *some* batch, not necessarily the last one (sled
//! controls its own syncs). The checksum detects any other content.

mod checked;
mod engine;
#[cfg(test)]
mod memory;
mod sled;
#[cfg(test)]
mod tests;

pub use checked::CheckedTables;
pub use engine::{Batch, TablesEngine};
#[cfg(test)]
pub use memory::MemoryTables;
pub use sled::SledTables;
