//! The replicated state machine: etcd's MVCC model, applied command by command.
//!
//! Deterministic and synchronous: state + command → reply + changes. No clock, no randomness, no
//! async, no iteration over unordered maps; values come through the [`Storage`] port.
//!
//! The [`Machine`] writes, the [`View`] reads:
//!
//! ```
//! # use std::sync::Arc;
//! # use ordinal::{state::{Machine, MemoryStorage}, types::*};
//! let storage = Arc::new(MemoryStorage::default());
//! let mut machine = Machine::recover(storage, None, [], [])?;
//! let view = machine.view();
//!
//! let put = Put { key: "greeting".into(), value: "hello".into(), ..Put::default() };
//! let replies = machine.apply(LogPosition::default(), [Command::Put(put)])?;
//! assert!(replies[0].is_ok());
//! assert_eq!(view.revision(), Revision::EMPTY_STORE);
//!
//! machine.publish();
//! let (revision, reply) = view.range(Range::of(KeyRange::One("greeting".into())))?.finish()?;
//! assert_eq!(revision, Revision(2));
//! assert_eq!(reply.kvs[0].value, "hello");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! How it works: the [index] holds every key with the [history] of its versions, without values. A
//! command adds versions of one new revision to it; readers read at a revision that was published
//! and so see either all of a command or nothing. A [generation] ties an index to its storage.

mod apply;
mod events;
mod generation;
mod hash;
mod history;
mod index;
mod leases;
mod machine;
mod memory;
mod past;
mod reader;
mod records;
mod roster;
mod scan;
mod schema;
mod storage;
#[cfg(test)]
mod tests;
mod view;

pub use events::{EventSink, LeaseChange, Published};
pub use hash::KvHash;
pub use machine::{Machine, Pruning, StateError};
pub use memory::{Contents, MemoryStorage};
pub use past::Past;
pub use roster::Roster;
pub use schema::{MEMBERSHIP_KEY, SchemaError};
pub use storage::{
    Changes, Record, RecordMeta, Run, Storage, StorageError, StorageSize, TableChange,
};
pub use view::{Attempt, RangeRead, ReadError, View, reads_only};
