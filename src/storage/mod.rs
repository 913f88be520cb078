//! Stores the state machine's data: block files of MVCC records, and small ordered tables in sled.
//!
//! Records are stored in our own immutable files (`block`), in revision order. Mutable data is in the
//! `tables`: the state machine's entries, the manifest of the blocks, and the applied position, all
//! changed by one atomic batch. A `snapshot` is a dump of the tables, so it lists blocks that are on
//! disk already.
//!
//! ```text
//! submit ─→ pending (readable at once) ─→ state-writer lane ─→ blocks, fsync ─→ one batch
//!                      │ waits for the WAL's fsync                                  │
//! read ──→ cache, pending, blocks                       tables: manifest + changes + position
//! ```
//!
//! Invariants:
//! - The writer writes only entries that the WAL has synced, so replaying the log restores any loss.
//! - A block is durable before the tables name it. It is removed only when the tables, the retained
//!   snapshot and all readers have released it.
//! - The tables are used only after their checksum and their blocks were verified, and their position
//!   was found in the WAL; otherwise they are rebuilt from the snapshot (see `recovery`).
//! - The first disk error stops the member ([`Fault`](crate::fault::Fault)); nothing is retried.
//!
//! All files go through the [`Disk`](crate::disk::Disk) port, except those of sled, which does its own
//! I/O: simulations use `MemoryTables` instead.

mod block;
mod cache;
mod codec;
mod error;
mod generation;
mod incoming;
mod layout;
mod live_bytes;
mod manifest;
mod metrics;
mod open_blocks;
mod pending;
mod record_metas;
mod record_store;
mod recovered_state;
mod recovery;
mod schema;
mod sequence;
mod snapshot;
mod snapshot_io;
mod store;
mod table_contents;
mod tables;
mod waker;
mod writer;

#[cfg(test)]
mod tests;

pub use error::StoreError;
pub use incoming::IncomingSnapshot;
pub use metrics::StorageMetrics;
pub use recovered_state::RecoveredState;
pub use recovery::WalBounds;
pub use snapshot::{SnapshotFile, SnapshotRef};
#[cfg(test)]
pub use store::OpenedStore;
pub use store::{BlockStorage, StorageOptions};
pub use tables::SledTables;
#[cfg(test)]
pub use tables::{MemoryTables, TablesEngine};
