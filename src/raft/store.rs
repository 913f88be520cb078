//! The port through which Raft uses the storage, beyond records: the durability gate and snapshots.
//! The composition root adapts `storage` to it.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::BoxFuture;

use crate::{
    proto::peer::SnapshotFile,
    state::{RecordMeta, Storage, StorageError},
    types::LogPosition,
};

/// Everything a state machine is rebuilt from.
pub struct RecoveredState {
    /// Where the records are read from, and new ones submitted to.
    pub storage: Arc<dyn Storage>,
    /// The last applied entry; `None`: no entry was ever applied.
    pub position: Option<LogPosition>,
    /// The state's tables, sorted by key.
    pub tables: Vec<(Bytes, Bytes)>,
    /// All records, in ascending order of id.
    pub records: Box<dyn Iterator<Item = RecordMeta> + Send>,
}

impl std::fmt::Debug for RecoveredState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RecoveredState").field("position", &self.position).finish_non_exhaustive()
    }
}

/// The storage as Raft sees it.
pub trait SnapshotStore: Send + Sync + 'static {
    /// Reports that the WAL is durable up to this index. Changes that were applied up to it may be
    /// written.
    fn set_durable_index(&self, index: u64);
    /// Waits until there is room in memory for more changes.
    fn room(&self) -> BoxFuture<'_, ()>;
    /// Whether the write buffer is so full that the leader must reject proposals.
    fn is_full(&self) -> bool;
    /// Writes all submitted changes, once they are durable in the WAL. Otherwise small changes wait.
    fn flush(&self) -> BoxFuture<'_, Result<(), StorageError>>;
    /// Takes a snapshot of all submitted changes, and makes it durable. Waits for the WAL.
    fn take(&self) -> BoxFuture<'_, Result<Arc<dyn Snapshot>, StorageError>>;
    /// The newest durable snapshot.
    fn latest(&self) -> Option<Arc<dyn Snapshot>>;
    /// Begins to receive a snapshot that consists of these files, the snapshot file first.
    fn receive(
        &self,
        files: Vec<SnapshotFile>,
    ) -> BoxFuture<'_, Result<Box<dyn SnapshotReceiver>, StorageError>>;
    /// Replaces the whole state by a received snapshot.
    fn install(
        &self,
        incoming: Box<dyn SnapshotReceiver>,
    ) -> BoxFuture<'_, Result<RecoveredState, StorageError>>;
}

/// A durable snapshot. Its files stay while this value lives.
pub trait Snapshot: Send + Sync + 'static {
    fn position(&self) -> LogPosition;
    /// The membership as of `position`, encoded as in the state's tables.
    fn membership(&self) -> Option<Bytes>;
    fn files(&self) -> Vec<SnapshotFile>;
    /// Up to `max_bytes` of a file from `offset`.
    fn read(
        &self,
        file: usize,
        offset: u64,
        max_bytes: usize,
    ) -> BoxFuture<'_, Result<Bytes, StorageError>>;
}

/// A snapshot that is being received.
pub trait SnapshotReceiver: Send + Sync + 'static {
    /// For each file the offset of its first missing byte; the file's length if it is complete.
    fn want(&self) -> Vec<u64>;
    fn write(
        &mut self,
        file: usize,
        offset: u64,
        data: Bytes,
    ) -> BoxFuture<'_, Result<(), StorageError>>;
    /// Checks every file against its offer and makes it durable.
    fn finish(&mut self) -> BoxFuture<'_, Result<(), StorageError>>;
    /// Lets the adapter recover its own type.
    fn into_any(self: Box<Self>) -> Box<dyn std::any::Any + Send>;
}
