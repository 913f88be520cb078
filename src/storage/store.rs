//! The handle to the store.

use std::{
    collections::BTreeSet,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError, Weak},
};

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};

use super::{
    block::Block,
    error::StoreError,
    incoming::{IncomingFiles, IncomingSnapshot},
    layout::Layout,
    live_bytes::LiveBytes,
    manifest::Manifest,
    metrics::StorageMetrics,
    pending::Pending,
    record_store::RecordStore,
    recovered_state::RecoveredState,
    recovery::{self, WalBounds},
    snapshot::{SnapshotFile, SnapshotRef},
    snapshot_io::{SnapshotIo, WeakSnapshotIo},
    table_contents::TableContents,
    tables::TablesEngine,
    writer::{Shared, StateWriter, WriterLane, WriterMessage, WriterWaker},
};
use crate::{
    disk::Disk,
    fault::Fault,
    lane::{Lane, Lanes},
    types::{LogPosition, MemberId},
};

/// The settings of a store.
#[derive(Debug, Clone)]
pub struct StorageOptions {
    /// The member's data directory.
    pub data: PathBuf,
    /// The member that names new blocks: an incarnation, never reused.
    pub member: MemberId,
    /// Values kept in memory (`--cache-size`).
    pub cache_bytes: usize,
    /// Bytes of pending changes above which applying must wait.
    pub pending_bytes_max: usize,
    /// Target size of a block file.
    pub block_bytes: usize,
}

impl StorageOptions {
    pub fn new(data: PathBuf, member: MemberId) -> StorageOptions {
        StorageOptions {
            data,
            member,
            cache_bytes: 64 << 20,
            pending_bytes_max: 64 << 20,
            block_bytes: 4 << 20,
        }
    }
}

/// An open store, and the state that it recovered.
#[derive(Debug)]
pub struct OpenedStore {
    pub store: BlockStorage,
    pub recovered: RecoveredState,
    /// The reason if the tables were rebuilt from a snapshot or from nothing.
    pub rebuilt: Option<String>,
}

/// The handle to one member's storage. Clones are the same store.
#[derive(Debug, Clone)]
pub struct BlockStorage(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    layout: Layout,
    shared: Arc<Shared>,
    pending_bytes_max: usize,
    receiving: Mutex<Weak<Mutex<IncomingFiles>>>,
    /// None after closing.
    running: Mutex<Option<Running>>,
}

#[derive(Debug)]
struct Running {
    writer: mpsc::UnboundedSender<WriterMessage>,
    writer_lane: Lane,
    io: SnapshotIo,
    io_lane: Lane,
}

impl BlockStorage {
    /// Opens the store, on a lane. Rebuilds damaged or unsuitable tables if possible.
    pub async fn open(
        options: StorageOptions,
        disk: Arc<dyn Disk>,
        tables: Arc<dyn TablesEngine>,
        lanes: Lanes,
        wal: impl WalBounds,
        fault: Fault,
    ) -> Result<OpenedStore, StoreError> {
        let layout = Layout::new(disk, options.data.clone());
        let (io, io_lane) = SnapshotIo::start(lanes)?;
        let durable = wal.last().map(|position| position.index);
        let (engine, files, member) = (tables.clone(), layout.clone(), options.member);
        let recover = move || recovery::recover(&files, &*engine, &wal, member);
        let recovery = io.downgrade().run(recover).await?;

        let (sender, inbox) = mpsc::unbounded_channel();
        let waker = Arc::new(WriterWaker(sender.downgrade()));
        let live = LiveBytes::new(recovery.record_bytes, &recovery.contents.state);
        let pending = Pending::new(options.block_bytes, durable, recovery.manifest.last(), live);
        let records = Arc::new(RecordStore::new(
            pending,
            recovery.manifest.open_blocks(),
            options.cache_bytes,
            waker.clone(),
            fault.clone(),
        ));
        let shared = Arc::new(Shared::new(records.clone(), recovery.snapshot.clone()));
        let TableContents { applied: position, state, .. } = recovery.contents;
        let writer = StateWriter {
            pending_deletion: only_in_snapshot(recovery.snapshot.as_ref(), &recovery.manifest),
            snapshots_pending_deletion: Vec::new(),
            layout: layout.clone(),
            engine: tables,
            block_bytes: options.block_bytes,
            cache_bytes: options.cache_bytes,
            fault,
            waker,
            shared: shared.clone(),
            records: records.clone(),
            tables: recovery.tables,
            manifest: recovery.manifest,
            applied: position,
            sequence: recovery.sequence,
        };
        let measured = move || writer.publish().map(|()| writer);
        let mut writer = WriterLane::new(io.downgrade().run(measured).await?);
        let writer_lane = lanes
            .start("state-writer", inbox, move |messages| writer.handle(messages))
            .map_err(|error| StoreError::Lane(error.to_string()))?;
        // Resumes the reclaiming of space that the last process did not finish.
        let _ = sender.send(WriterMessage::Wake);
        let running = Running { writer: sender, writer_lane, io, io_lane };
        let store = BlockStorage(Arc::new(Inner {
            layout,
            shared,
            pending_bytes_max: options.pending_bytes_max.max(options.block_bytes),
            receiving: Mutex::new(Weak::new()),
            running: Mutex::new(Some(running)),
        }));
        let recovered =
            RecoveredState { storage: records, position, tables: state, records: recovery.metas };
        Ok(OpenedStore { store, recovered, rebuilt: recovery.rebuilt })
    }

    /// The records of the current state. A snapshot install replaces them.
    pub fn records(&self) -> Arc<RecordStore> {
        self.0.shared.records()
    }

    pub fn metrics(&self) -> &Arc<StorageMetrics> {
        &self.0.shared.metrics
    }

    /// The WAL has synced everything up to this entry, so the writer may write its changes. After a
    /// truncation of the WAL the caller must pass the lower index before new entries are appended.
    pub fn set_durable(&self, index: u64) {
        self.records().set_durable(index);
    }

    /// Waits until the queue has room for another chunk of changes, or the member stops.
    pub async fn wait_for_room(&self) {
        self.records().wait_for_room(self.0.pending_bytes_max).await;
    }

    /// Whether applying waits for room, so that proposals should be refused.
    pub fn is_full(&self) -> bool {
        self.records().is_full(self.0.pending_bytes_max)
    }

    /// Waits until everything submitted before is durable in the WAL and then written. Returns the
    /// applied position of the tables.
    pub async fn flush(&self) -> Result<Option<LogPosition>, StoreError> {
        self.request(WriterMessage::Flush).await
    }

    /// Takes a snapshot of everything submitted before, after it is durable in the WAL. The snapshot
    /// replaces the retained one.
    pub async fn snapshot(&self) -> Result<SnapshotRef, StoreError> {
        self.request(WriterMessage::Snapshot).await
    }

    /// The newest snapshot.
    pub fn retained(&self) -> Option<SnapshotRef> {
        self.0.shared.retained()
    }

    /// Reads at most `bytes_max` from `offset` of a snapshot's file, given by its index.
    pub async fn read_chunk(
        &self,
        snapshot: &SnapshotRef,
        file: usize,
        offset: u64,
        bytes_max: usize,
    ) -> Result<Bytes, StoreError> {
        let snapshot = snapshot.clone();
        self.io()?.run(move || snapshot.read(file, offset, bytes_max)).await
    }

    /// Prepares to receive a snapshot of these files. One at a time: refused while another
    /// [`IncomingSnapshot`] exists.
    pub async fn receive(&self, offer: Vec<SnapshotFile>) -> Result<IncomingSnapshot, StoreError> {
        let inner = self.0.clone();
        let io = self.io()?;
        let begin = move || {
            let mut receiving = inner.receiving.lock().unwrap_or_else(PoisonError::into_inner);
            if receiving.strong_count() > 0 {
                return Err(StoreError::Refused("another snapshot is being received".into()));
            }
            let mut local = inner.shared.records().blocks().to_vec();
            local.extend(inner.shared.retained().iter().flat_map(SnapshotRef::blocks).cloned());
            let incoming = IncomingFiles::begin(&inner.layout, offer, &local)?;
            let incoming = Arc::new(Mutex::new(incoming));
            *receiving = Arc::downgrade(&incoming);
            Ok(incoming)
        };
        let incoming = io.run(begin).await?;
        Ok(IncomingSnapshot::new(incoming, io, self.0.shared.metrics.clone()))
    }

    /// Replaces the state by a completely received snapshot. The caller must not submit changes
    /// meanwhile: submissions to the old records are dropped.
    pub async fn install(&self, incoming: IncomingSnapshot) -> Result<RecoveredState, StoreError> {
        let shared = incoming.shared();
        self.request(|reply| WriterMessage::Install(shared, reply)).await
    }

    /// Writes everything that is durable in the WAL, closes the tables and joins the lanes. The store
    /// must not be used afterwards.
    pub async fn close(&self) -> Result<(), StoreError> {
        let outcome = self.request(WriterMessage::Close).await;
        let running = self.0.running.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(Running { writer, writer_lane, io, io_lane }) = running {
            drop((writer, io));
            writer_lane.join().await;
            io_lane.join().await;
        }
        outcome
    }

    async fn request<T>(
        &self,
        message: impl FnOnce(oneshot::Sender<Result<T, StoreError>>) -> WriterMessage,
    ) -> Result<T, StoreError> {
        let (reply, outcome) = oneshot::channel();
        {
            let running = self.0.running.lock().unwrap_or_else(PoisonError::into_inner);
            let running = running.as_ref().ok_or(StoreError::Stopped)?;
            running.writer.send(message(reply)).map_err(|_| StoreError::Stopped)?;
        }
        outcome.await.map_err(|_| StoreError::Stopped)?
    }

    fn io(&self) -> Result<WeakSnapshotIo, StoreError> {
        let running = self.0.running.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(running.as_ref().ok_or(StoreError::Stopped)?.io.downgrade())
    }
}

/// Blocks that only the snapshot references.
fn only_in_snapshot(snapshot: Option<&SnapshotRef>, manifest: &Manifest) -> Vec<Arc<Block>> {
    let state: BTreeSet<_> =
        manifest.blocks().iter().map(|entry| entry.block.facts().name).collect();
    let blocks = snapshot.into_iter().flat_map(SnapshotRef::blocks);
    blocks.filter(|block| !state.contains(&block.facts().name)).cloned().collect()
}
