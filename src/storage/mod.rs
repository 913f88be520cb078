//! Keeps what the state machine made: block files of MVCC records, and small ordered tables in sled.
//!
//! Bulk goes to immutable files of our own (`block`), in revision order. What changes goes to the
//! `tables`: those of the state machine, the manifest of the blocks, and the applied position, all
//! changed by one atomic batch. A `snapshot` is a dump of the tables, and thereby a list of blocks
//! that are on disk already.
//!
//! ```text
//! submit ─→ pending (readable at once) ─→ state-writer lane ─→ blocks, fsync ─→ one batch
//!                      │ waits for the WAL's fsync                                  │
//! read ──→ cache, pending, blocks                       tables: manifest + changes + position
//! ```
//!
//! What always holds:
//! - Nothing is written before the WAL holds it durably; so the log can always replace what is lost.
//! - A block is durable before the tables name it, and it is removed only when neither they, nor the
//!   retained snapshot, nor a reader holds it.
//! - The tables are believed only after their checksum and their blocks were verified, and their
//!   position was found in the WAL; else they are rebuilt from the snapshot (see `start`).
//! - The first error on disk stops the member ([`Fault`](crate::fault::Fault)); nothing is retried.
//!
//! All files go through the [`Disk`](crate::disk::Disk) port but those of sled, which does its own
//! I/O: simulations take [`MemoryTables`] in its place.

mod block;
mod cache;
mod codec;
mod content;
mod error;
mod generation;
mod incoming;
mod io;
mod layout;
mod manifest;
mod metrics;
mod pending;
mod records;
mod schema;
mod sequence;
mod snapshot;
mod start;
mod store;
mod tables;
mod writer;

#[cfg(test)]
mod tests;

pub use block::BlockName;
pub use content::RecordMetas;
pub use error::StoreError;
pub use incoming::IncomingSnapshot;
pub use metrics::StorageMetrics;
pub use records::Records;
pub use snapshot::{SnapshotFile, SnapshotRef};
pub use start::WalBounds;
pub use store::{BlockStorage, Opened, StorageOptions};
pub use tables::{Batch, MemoryTables, SledTables, Tables, TablesEngine, TablesError};
pub use writer::Recovered;
