//! The replicated state machine: etcd's MVCC model, applied command by command.
//!
//! Deterministic and synchronous: state + command → reply + changes. No clock, no randomness, no
//! async, no iteration over unordered maps; values come through the [`Storage`] port.

mod storage;

pub use storage::{Changes, Record, RecordMeta, Storage, StorageError, StorageSize, TableChange};
