//! What Raft asks of the storage beyond records: durability gates and snapshots. A port; the
//! composition root adapts `storage` to it.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::BoxFuture;

use crate::{
    proto::peer::SnapshotFile,
    state::{RecordMeta, Storage, StorageError},
    types::LogPosition,
};

/// Everything a state machine is rebuilt from.
pub struct Recovered {
    /// Where the records are read from, and new ones submitted to.
    pub storage: Arc<dyn Storage>,
    /// The last entry that is in it; `None`: nothing was ever applied.
    pub position: Option<LogPosition>,
    /// The state's tables, sorted by key.
    pub tables: Vec<(Bytes, Bytes)>,
    /// All records, in ascending order of id.
    pub records: Box<dyn Iterator<Item = RecordMeta> + Send>,
}

impl std::fmt::Debug for Recovered {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Recovered").field("position", &self.position).finish_non_exhaustive()
    }
}

/// The storage as Raft sees it.
pub trait SnapshotStore: Send + Sync + 'static {
    /// The WAL is durable up to this index: what was applied up to it may be written.
    fn note_durable(&self, index: u64);
    /// Waits until there is room in memory for more changes.
    fn room(&self) -> BoxFuture<'_, ()>;
    /// So full that no new proposals should come.
    fn is_full(&self) -> bool;
    /// Writes all that was submitted, once it is durable in the WAL: small changes wait otherwise.
    fn flush(&self) -> BoxFuture<'_, Result<(), StorageError>>;
    /// Takes a snapshot of all that was submitted, and makes it durable. Waits for the WAL.
    fn take(&self) -> BoxFuture<'_, Result<Arc<dyn Snapshot>, StorageError>>;
    /// The newest durable snapshot.
    fn latest(&self) -> Option<Arc<dyn Snapshot>>;
    /// Begins to receive a snapshot made of these files: the snapshot file first.
    fn receive(
        &self,
        files: Vec<SnapshotFile>,
    ) -> BoxFuture<'_, Result<Box<dyn Incoming>, StorageError>>;
    /// Replaces everything by a received snapshot.
    fn install(
        &self,
        incoming: Box<dyn Incoming>,
    ) -> BoxFuture<'_, Result<Recovered, StorageError>>;
}

/// A durable snapshot. Its files stay while it is held.
pub trait Snapshot: Send + Sync + 'static {
    fn position(&self) -> LogPosition;
    /// The membership as of `position`, as the state's tables keep it.
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
pub trait Incoming: Send + Sync + 'static {
    /// For each file the offset from which it is still wanted; its length: not at all.
    fn want(&self) -> Vec<u64>;
    fn write(
        &mut self,
        file: usize,
        offset: u64,
        data: Bytes,
    ) -> BoxFuture<'_, Result<(), StorageError>>;
    /// Checks every file against its offer and makes it durable.
    fn finish(&mut self) -> BoxFuture<'_, Result<(), StorageError>>;
    /// For the adapter, to get back what it handed out.
    fn into_any(self: Box<Self>) -> Box<dyn std::any::Any + Send>;
}
