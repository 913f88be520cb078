//! Fits `storage` to what `raft` asks for: neither knows the other.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use futures_util::future::BoxFuture;

use crate::{
    fault::Fault,
    lane::Lanes,
    membership::DataDir,
    proto::peer,
    raft::{Incoming, Recovered, Snapshot, SnapshotStore},
    state::{MEMBERSHIP_KEY, StorageError},
    storage::{
        self, BlockStorage, IncomingSnapshot, SledTables, SnapshotRef, StorageOptions, StoreError,
        WalBounds,
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
        let latest = match opened.snapshot {
            Some(snapshot) => Some(Sent::describe(&opened.store, snapshot, lanes).await?),
            None => None,
        };
        let snapshots =
            Snapshots { store: opened.store.clone(), latest: Mutex::new(latest), lanes };
        let storage = OpenStorage {
            store: opened.store,
            snapshots: Arc::new(snapshots),
            rebuilt: opened.rebuilt,
        };
        Ok((storage, recovered(opened.recovered)))
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
    latest: Mutex<Option<Arc<Sent>>>,
    lanes: Lanes,
}

impl Snapshots {
    fn keep(&self, snapshot: Option<Arc<Sent>>) {
        *self.latest.lock().unwrap_or_else(PoisonError::into_inner) = snapshot;
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

    fn take(&self) -> BoxFuture<'_, Result<Arc<dyn Snapshot>, StorageError>> {
        Box::pin(async {
            let snapshot = self.store.snapshot().await.map_err(failed)?;
            let sent = Sent::describe(&self.store, snapshot, self.lanes).await.map_err(failed)?;
            self.keep(Some(sent.clone()));
            Ok(sent as Arc<dyn Snapshot>)
        })
    }

    fn latest(&self) -> Option<Arc<dyn Snapshot>> {
        let latest = self.latest.lock().unwrap_or_else(PoisonError::into_inner);
        latest.clone().map(|sent| sent as Arc<dyn Snapshot>)
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
            let latest = match self.store.retained() {
                Some(snapshot) => {
                    Some(Sent::describe(&self.store, snapshot, self.lanes).await.map_err(failed)?)
                }
                None => None,
            };
            self.keep(latest);
            Ok(recovered(installed))
        })
    }
}

/// A snapshot that can be sent, with the membership that is in it.
struct Sent {
    store: BlockStorage,
    snapshot: SnapshotRef,
    membership: Option<Bytes>,
}

impl Sent {
    async fn describe(
        store: &BlockStorage,
        snapshot: SnapshotRef,
        lanes: Lanes,
    ) -> Result<Arc<Sent>, StoreError> {
        let read = snapshot.clone();
        let membership = lanes.run("snapshot", move || read.state_entry(MEMBERSHIP_KEY)).await;
        let membership = match membership {
            Ok(Some(entry)) => entry?,
            Ok(None) => return Err(StoreError::Stopped),
            Err(e) => return Err(StoreError::Lane(e.to_string())),
        };
        Ok(Arc::new(Sent { store: store.clone(), snapshot, membership }))
    }
}

impl Snapshot for Sent {
    fn position(&self) -> LogPosition {
        self.snapshot.position()
    }

    fn membership(&self) -> Option<Bytes> {
        self.membership.clone()
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
