//! Adapts `storage` to the snapshot port of `raft`: neither layer knows the other.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::BoxFuture;

use crate::{
    fault::Fault,
    lane::Lanes,
    membership::DataDir,
    proto::peer,
    raft::{RecoveredState, Snapshot, SnapshotReceiver, SnapshotStore},
    state::StorageError,
    storage::{
        self, BlockStorage, IncomingSnapshot, SledTables, SnapshotRef, StorageMetrics,
        StorageOptions, StoreError, WalBounds,
    },
    types::{LogPosition, MemberId, Term},
    wal::Log,
};

/// The open storage of one member.
pub struct OpenStorage {
    store: BlockStorage,
    pub snapshots: Arc<dyn SnapshotStore>,
    /// The reason why the tables were rebuilt at start, if they were.
    pub rebuilt: Option<String>,
}

impl OpenStorage {
    /// Opens the storage and checks it against the open log.
    pub async fn open(
        dir: &DataDir,
        member: MemberId,
        cache_bytes: usize,
        log: &Log,
        lanes: Lanes,
        fault: Fault,
    ) -> Result<(OpenStorage, RecoveredState), StoreError> {
        let options =
            StorageOptions { cache_bytes, ..StorageOptions::new(dir.root().to_owned(), member) };
        let bounds = LogBounds { log: log.clone() };
        let disk = dir.disk().clone();
        let opened =
            BlockStorage::open(options, disk, Arc::new(SledTables), lanes, bounds, fault).await?;
        let snapshots = Snapshots { store: opened.store.clone() };
        let storage = OpenStorage {
            store: opened.store,
            snapshots: Arc::new(snapshots),
            rebuilt: opened.rebuilt,
        };
        Ok((storage, recovered(opened.recovered)))
    }

    pub fn metrics(&self) -> Arc<StorageMetrics> {
        self.store.metrics().clone()
    }

    pub async fn close(self) {
        if let Err(e) = self.store.close().await {
            tracing::error!(error = %e, "closing the storage failed");
        }
    }
}

/// The bounds of the WAL, against which the storage checks its tables.
struct LogBounds {
    log: Log,
}

impl WalBounds for LogBounds {
    fn first_index(&self) -> u64 {
        self.log.first_index()
    }

    fn last(&self) -> Option<LogPosition> {
        // The log was just opened, so all of it is durable.
        self.log.last()
    }

    fn term_at(&self, index: u64) -> Option<Term> {
        self.log.position_at(index).map(|position| position.term)
    }
}

fn recovered(from: storage::RecoveredState) -> RecoveredState {
    RecoveredState {
        storage: from.storage,
        position: from.position,
        tables: from.tables.into_iter().collect(),
        records: Box::new(from.records),
    }
}

fn failed(error: StoreError) -> StorageError {
    StorageError::Damaged(error.to_string().into())
}

/// Makes, serves and installs the snapshots of one store.
struct Snapshots {
    store: BlockStorage,
}

impl Snapshots {
    fn outgoing(&self, snapshot: SnapshotRef) -> Arc<dyn Snapshot> {
        Arc::new(OutgoingSnapshot { store: self.store.clone(), snapshot })
    }
}

impl SnapshotStore for Snapshots {
    fn set_durable_index(&self, index: u64) {
        self.store.set_durable(index);
    }

    fn room(&self) -> BoxFuture<'_, ()> {
        Box::pin(self.store.wait_for_room())
    }

    fn is_full(&self) -> bool {
        self.store.is_full()
    }

    fn flush(&self) -> BoxFuture<'_, Result<(), StorageError>> {
        Box::pin(async { self.store.flush().await.map(|_| ()).map_err(failed) })
    }

    fn take(&self) -> BoxFuture<'_, Result<Arc<dyn Snapshot>, StorageError>> {
        Box::pin(async {
            let snapshot = self.store.snapshot().await.map_err(failed)?;
            Ok(self.outgoing(snapshot))
        })
    }

    fn latest(&self) -> Option<Arc<dyn Snapshot>> {
        // Not cached: the storage may replace its snapshot, to free blocks.
        self.store.retained().map(|snapshot| self.outgoing(snapshot))
    }

    fn receive(
        &self,
        files: Vec<peer::SnapshotFile>,
    ) -> BoxFuture<'_, Result<Box<dyn SnapshotReceiver>, StorageError>> {
        let file = |f: peer::SnapshotFile| storage::SnapshotFile {
            name: f.name,
            bytes: f.bytes,
            crc: f.crc,
        };
        let files = files.into_iter().map(file).collect();
        Box::pin(async move {
            let incoming = self.store.receive(files).await.map_err(failed)?;
            Ok(Box::new(ReceivedSnapshot(incoming)) as Box<dyn SnapshotReceiver>)
        })
    }

    fn install(
        &self,
        incoming: Box<dyn SnapshotReceiver>,
    ) -> BoxFuture<'_, Result<RecoveredState, StorageError>> {
        Box::pin(async move {
            let Ok(received) = incoming.into_any().downcast::<ReceivedSnapshot>() else {
                unreachable!("only `receive` makes incoming snapshots")
            };
            let installed = self.store.install(received.0).await.map_err(failed)?;
            Ok(recovered(installed))
        })
    }
}

/// A snapshot to send.
struct OutgoingSnapshot {
    store: BlockStorage,
    snapshot: SnapshotRef,
}

impl Snapshot for OutgoingSnapshot {
    fn position(&self) -> LogPosition {
        self.snapshot.position()
    }

    fn membership(&self) -> Option<Bytes> {
        self.snapshot.membership()
    }

    fn files(&self) -> Vec<peer::SnapshotFile> {
        let file = |f: &storage::SnapshotFile| peer::SnapshotFile {
            name: f.name.clone(),
            bytes: f.bytes,
            crc: f.crc,
        };
        self.snapshot.files().iter().map(file).collect()
    }

    fn read(
        &self,
        file: usize,
        offset: u64,
        max_bytes: usize,
    ) -> BoxFuture<'_, Result<Bytes, StorageError>> {
        Box::pin(async move {
            self.store.read_chunk(&self.snapshot, file, offset, max_bytes).await.map_err(failed)
        })
    }
}

/// A snapshot that is being received.
struct ReceivedSnapshot(IncomingSnapshot);

impl SnapshotReceiver for ReceivedSnapshot {
    fn want(&self) -> Vec<u64> {
        self.0.wanted()
    }

    fn write(
        &mut self,
        file: usize,
        offset: u64,
        data: Bytes,
    ) -> BoxFuture<'_, Result<(), StorageError>> {
        Box::pin(async move { self.0.write(file, offset, data).await.map_err(failed) })
    }

    fn finish(&mut self) -> BoxFuture<'_, Result<(), StorageError>> {
        Box::pin(async move { self.0.finish().await.map(|_| ()).map_err(failed) })
    }

    fn into_any(self: Box<Self>) -> Box<dyn std::any::Any + Send> {
        self
    }
}
