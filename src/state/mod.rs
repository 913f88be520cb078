//! The replicated state machine: etcd's MVCC model, applied command by command.
//!
//! Deterministic and synchronous: state + command → reply + changes. No clock, no randomness, no
//! async, no iteration over unordered maps; records are read and written through the [`Storage`] port.
//!
//! [`StateMachine`] writes, [`View`] reads:
//!
//! ```text
//! let storage = Arc::new(MemoryStorage::default());
//! let mut machine = StateMachine::recover(storage, None, [], [])?;
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
//! ```
//!
//! How it works: the [index] maps each key to the [history] of its versions, without values. A
//! command adds versions of one new revision. Readers read at a published revision, so they see all
//! of a command or nothing of it. An [instance] ties an index to its storage.

mod apply;
mod change_scan;
mod error;
mod evaluator;
mod events;
mod hash;
mod history;
mod index;
mod instance;
mod leases;
mod machine;
#[cfg(test)]
mod memory;
mod record_source;
mod recovery;
mod roster;
mod scan;
mod schema;
mod sort;
mod storage;
#[cfg(test)]
mod tests;
mod view;

pub use change_scan::ChangeScan;
pub use error::ReadError;
#[cfg(test)]
pub use error::StateError;
pub use events::{EventSink, LeaseChange, Published};
pub use machine::{Pruning, StateMachine};
#[cfg(test)]
pub use memory::{MemoryContents, MemoryStorage};
pub use schema::MEMBERSHIP_KEY;
pub use storage::{
    Changes, Record, RecordMeta, ScanBatch, Storage, StorageError, StorageSize, TableChange,
};
#[cfg(test)]
pub use view::RangeRead;
pub use view::{ReadProgress, View};
