//! The state-writer lane: writes submitted changes to disk, in the order of submission.
//!
//! The records of a chunk go to synced block files first. Then one batch names the blocks, changes
//! the tables and advances the applied position.
//!
//! Invariants: the writer writes only entries that the WAL has synced; the tables never name a block
//! that is not durable; a file is removed only when the manifest, the retained snapshot and all
//! readers have released it. The first error stops the member: nothing is retried.

mod block_writer;
mod commit;
mod install;
mod lane;
mod message;
mod reclaim;
mod shared;
mod state_writer;

pub use lane::WriterLane;
pub use message::{WriterMessage, WriterWaker};
pub use shared::Shared;
pub use state_writer::StateWriter;
