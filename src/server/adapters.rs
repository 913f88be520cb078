//! Fits `storage` to what `raft` asks for: neither knows the other.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::BoxFuture;

use crate::{
    fault::Fault,
    lane::Lanes,
    membership::DataDir,
    proto::peer,
    raft::{Incoming, Recovered, Snapshot, SnapshotStore},
    state::StorageError,
    storage::{
        self, BlockStorage, IncomingSnapshot, SledTables, SnapshotRef, StorageMetrics,
        StorageOptions, StoreError, WalBounds,
    },
    types::{LogPosition, MemberId, Term},
    wal::Log,
};

/// The storage of one member, as Raft takes it over.
pub(super) struct OpenStorage {
    store: BlockStorage,
    pub(super) snapshots: Arc<dyn SnapshotStore>,
    /// Why the tables were set aside at start, if they were.
    pub(super) rebuilt: Option<String>,
}

impl OpenStorage {
    /// Opens it against a log that is open already.
    pub(super) async fn open(
        dir: &DataDir,
        member: MemberId,
        cache_bytes: usize,
        log: &Log,
        lanes: Lanes,
        fault: Fault,
    ) -> Result<(OpenStorage, Recovered), StoreError> {
        let options =
            StorageOptions { cache_bytes, ..StorageOptions::new(dir.root().to_owned(), member) };
        let bounds = Bounds { log: log.clone() };
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

    pub(super) fn metrics(&self) -> Arc<StorageMetrics> {
        self.store.metrics().clone()
    }

    pub(super) async fn close(self) {
        if let Err(e) = self.store.close().await {
            tracing::error!(error = %e, "the storage ended badly");
        }
    }
}

/// What the WAL holds, for the storage to judge its tables by.
struct Bounds {
    log: Log,
}

impl WalBounds for Bounds {
    fn first_index(&self) -> u64 {
        self.log.first_index()
    }

    fn last(&self) -> Option<LogPosition> {
        // It was just opened: all of it is durable.
        self.log.last()
    }

    fn term_at(&self, index: u64) -> Option<Term> {
        self.log.position_at(index).map(|position| position.term)
    }
}

fn recovered(from: storage::Recovered) -> Recovered {
    Recovered {
        storage: from.storage,
        position: from.position,
        tables: from.tables.into_iter().collect(),
        records: Box::new(from.records),
    }
}

fn failed(error: StoreError) -> StorageError {
    StorageError::Damaged(error.to_string().into())
}

struct Snapshots {
    store: BlockStorage,
}

impl Snapshots {
    fn sent(&self, snapshot: SnapshotRef) -> Arc<dyn Snapshot> {
        Arc::new(Sent { store: self.store.clone(), snapshot })
    }
}

impl SnapshotStore for Snapshots {
    fn note_durable(&self, index: u64) {
        self.store.note_durable(index);
    }

    fn room(&self) -> BoxFuture<'_, ()> {
        Box::pin(self.store.room())
    }

    fn is_full(&self) -> bool {
        self.store.pressure()
    }

    fn flush(&self) -> BoxFuture<'_, Result<(), StorageError>> {
        Box::pin(async { self.store.flush().await.map(|_| ()).map_err(failed) })
    }

    fn take(&self) -> BoxFuture<'_, Result<Arc<dyn Snapshot>, StorageError>> {
        Box::pin(async {
            let snapshot = self.store.snapshot().await.map_err(failed)?;
            Ok(self.sent(snapshot))
        })
    }

    fn latest(&self) -> Option<Arc<dyn Snapshot>> {
        // Asked for anew each time: the storage may have replaced it by itself, to free blocks.
        self.store.retained().map(|snapshot| self.sent(snapshot))
    }

    fn receive(
        &self,
        files: Vec<peer::SnapshotFile>,
    ) -> BoxFuture<'_, Result<Box<dyn Incoming>, StorageError>> {
        let file = |f: peer::SnapshotFile| storage::SnapshotFile {
            name: f.name,
            bytes: f.bytes,
            crc: f.crc,
        };
        let files = files.into_iter().map(file).collect();
        Box::pin(async move {
            let incoming = self.store.receive(files).await.map_err(failed)?;
            Ok(Box::new(Received(incoming)) as Box<dyn Incoming>)
        })
    }

    fn install(
        &self,
        incoming: Box<dyn Incoming>,
    ) -> BoxFuture<'_, Result<Recovered, StorageError>> {
        Box::pin(async move {
            let Ok(received) = incoming.into_any().downcast::<Received>() else {
                unreachable!("only `receive` makes incoming snapshots")
            };
            let installed = self.store.install(received.0).await.map_err(failed)?;
            Ok(recovered(installed))
        })
    }
}

/// A snapshot that can be sent.
struct Sent {
    store: BlockStorage,
    snapshot: SnapshotRef,
}

impl Snapshot for Sent {
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

struct Received(IncomingSnapshot);

impl Incoming for Received {
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
