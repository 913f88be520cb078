//! The store as the layers above hold it.

use std::{
    collections::BTreeSet,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError, RwLock, Weak},
};

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};

use super::{
    block::Block,
    content::Content,
    error::StoreError,
    incoming::{Incoming, IncomingSnapshot},
    io::{Io, WeakIo},
    layout::Layout,
    manifest::Manifest,
    metrics::StorageMetrics,
    pending::Pending,
    records::Records,
    snapshot::{SnapshotFile, SnapshotRef},
    start::{self, WalBounds},
    tables::TablesEngine,
    writer::{Message, Recovered, Shared, Writer, WriterLane},
};
use crate::{
    disk::Disk,
    fault::Fault,
    lane::{Lane, Lanes},
    types::{LogPosition, MemberId},
};

/// What can be chosen.
#[derive(Debug, Clone)]
pub struct StorageOptions {
    /// The member's data directory.
    pub data: PathBuf,
    /// Whose blocks these are: an incarnation, never used again.
    pub member: MemberId,
    /// Values kept in memory (`--cache-size`).
    pub cache_bytes: usize,
    /// What may wait to be written before applying must wait.
    pub pending_bytes_max: usize,
    /// How large a block file should be.
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

/// What opening found.
#[derive(Debug)]
pub struct Opened {
    pub store: BlockStorage,
    pub recovered: Recovered,
    /// The newest snapshot that can be used.
    pub snapshot: Option<SnapshotRef>,
    /// Why the tables were rebuilt from a snapshot or from nothing, if they were.
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
    receiving: Mutex<Weak<Mutex<Incoming>>>,
    /// None once closed.
    running: Mutex<Option<Running>>,
}

#[derive(Debug)]
struct Running {
    writer: mpsc::UnboundedSender<Message>,
    writer_lane: Lane,
    io: Io,
    io_lane: Lane,
}

impl BlockStorage {
    /// Opens the store, on a lane. Damaged or unsuitable tables are rebuilt if that is possible.
    pub async fn open(
        options: StorageOptions,
        disk: Arc<dyn Disk>,
        tables: Arc<dyn TablesEngine>,
        lanes: Lanes,
        wal: impl WalBounds,
        fault: Fault,
    ) -> Result<Opened, StoreError> {
        let layout = Layout::new(disk, options.data.clone());
        let (io, io_lane) = Io::start(lanes)?;
        let durable = wal.last().map(|position| position.index);
        let (engine, place, member) = (tables.clone(), layout.clone(), options.member);
        let start =
            io.downgrade().run(move || start::start(&place, &*engine, &wal, member)).await?;

        let (sender, inbox) = mpsc::unbounded_channel();
        let pending = Pending::new(options.block_bytes, durable, start.manifest.last());
        let records = Arc::new(Records::new(
            pending,
            start.manifest.open_blocks(),
            options.cache_bytes,
            sender.downgrade(),
            fault.clone(),
        ));
        let shared = Arc::new(Shared {
            records: RwLock::new(records.clone()),
            retained: Mutex::new(start.snapshot.clone()),
            metrics: Arc::default(),
        });
        let Content { applied: position, state, .. } = start.content;
        let writer = Writer {
            doomed: only_in_snapshot(start.snapshot.as_ref(), &start.manifest),
            doomed_snapshots: Vec::new(),
            layout: layout.clone(),
            engine: tables,
            block_bytes: options.block_bytes,
            cache_bytes: options.cache_bytes,
            fault,
            again: sender.downgrade(),
            shared: shared.clone(),
            records: records.clone(),
            tables: start.tables,
            manifest: start.manifest,
            applied: position,
            sequence: start.sequence,
        };
        let measured = move || writer.publish().map(|()| writer);
        let mut writer = WriterLane::new(io.downgrade().run(measured).await?);
        let writer_lane = lanes
            .start("state-writer", inbox, move |messages| writer.handle(messages))
            .map_err(|error| StoreError::Lane(error.to_string()))?;
        // Goes on reclaiming where the last process ended.
        let _ = sender.send(Message::Look);
        let running = Running { writer: sender, writer_lane, io, io_lane };
        let store = BlockStorage(Arc::new(Inner {
            layout,
            shared,
            pending_bytes_max: options.pending_bytes_max.max(options.block_bytes),
            receiving: Mutex::new(Weak::new()),
            running: Mutex::new(Some(running)),
        }));
        let recovered =
            Recovered { storage: records, position, tables: state, records: start.metas };
        Ok(Opened { store, recovered, snapshot: start.snapshot, rebuilt: start.rebuilt })
    }

    /// The records of the present state; a snapshot install replaces them.
    pub fn records(&self) -> Arc<Records> {
        self.0.shared.records()
    }

    pub fn metrics(&self) -> &Arc<StorageMetrics> {
        &self.0.shared.metrics
    }

    /// The WAL holds everything up to this entry durably: what they changed may be written. After a
    /// truncation of the WAL this must be told, with the lower index, before new entries are.
    pub fn note_durable(&self, index: u64) {
        self.records().set_durable(index);
    }

    /// Waits until there is room for another chunk of changes, or the member stops.
    pub async fn room(&self) {
        self.records().room(self.0.pending_bytes_max).await;
    }

    /// Whether proposals should be refused, because applying waits for room.
    pub fn pressure(&self) -> bool {
        self.records().is_full(self.0.pending_bytes_max)
    }

    /// Waits until everything that was submitted before is written (so first, that it is durable in
    /// the WAL); answers how far that is.
    pub async fn flush(&self) -> Result<Option<LogPosition>, StoreError> {
        self.ask(Message::Flush).await
    }

    /// Takes a snapshot of everything that was submitted before, once it is durable in the WAL. It
    /// replaces the retained one.
    pub async fn snapshot(&self) -> Result<SnapshotRef, StoreError> {
        self.ask(Message::Snapshot).await
    }

    /// The newest snapshot.
    pub fn retained(&self) -> Option<SnapshotRef> {
        self.0.shared.retained()
    }

    /// Reads at most `bytes_max` from `offset` of a snapshot's file, given by its number.
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

    /// Prepares to receive a snapshot that consists of these files. One at a time: refused while
    /// another [`IncomingSnapshot`] lives.
    pub async fn receive(&self, offer: Vec<SnapshotFile>) -> Result<IncomingSnapshot, StoreError> {
        let inner = self.0.clone();
        let io = self.io()?;
        let begin = move || {
            let mut receiving = inner.receiving.lock().unwrap_or_else(PoisonError::into_inner);
            if receiving.strong_count() > 0 {
                return Err(StoreError::Refused("another one is being received".into()));
            }
            let mut ours = inner.shared.records().blocks().to_vec();
            ours.extend(inner.shared.retained().iter().flat_map(SnapshotRef::blocks).cloned());
            let incoming = Incoming::begin(&inner.layout, offer, &ours)?;
            let incoming = Arc::new(Mutex::new(incoming));
            *receiving = Arc::downgrade(&incoming);
            Ok(incoming)
        };
        let incoming = io.run(begin).await?;
        Ok(IncomingSnapshot::new(incoming, io, self.0.shared.metrics.clone()))
    }

    /// Replaces the state by a snapshot that arrived and was finished. Submit nothing meanwhile:
    /// what is submitted to the old records is dropped.
    pub async fn install(&self, incoming: IncomingSnapshot) -> Result<Recovered, StoreError> {
        let shared = incoming.shared();
        self.ask(|reply| Message::Install(shared, reply)).await
    }

    /// Writes what is durable in the WAL, closes the tables and joins the lanes. The store must not
    /// be used any more.
    pub async fn close(&self) -> Result<(), StoreError> {
        let outcome = self.ask(Message::Close).await;
        let running = self.0.running.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(Running { writer, writer_lane, io, io_lane }) = running {
            drop((writer, io));
            writer_lane.join().await;
            io_lane.join().await;
        }
        outcome
    }

    async fn ask<T>(
        &self,
        message: impl FnOnce(oneshot::Sender<Result<T, StoreError>>) -> Message,
    ) -> Result<T, StoreError> {
        let (reply, outcome) = oneshot::channel();
        {
            let running = self.0.running.lock().unwrap_or_else(PoisonError::into_inner);
            let running = running.as_ref().ok_or(StoreError::Stopped)?;
            running.writer.send(message(reply)).map_err(|_| StoreError::Stopped)?;
        }
        outcome.await.map_err(|_| StoreError::Stopped)?
    }

    fn io(&self) -> Result<WeakIo, StoreError> {
        let running = self.0.running.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(running.as_ref().ok_or(StoreError::Stopped)?.io.downgrade())
    }
}

/// Blocks that stay only for the snapshot's sake.
fn only_in_snapshot(snapshot: Option<&SnapshotRef>, manifest: &Manifest) -> Vec<Arc<Block>> {
    let state: BTreeSet<_> = manifest.blocks().iter().map(|live| live.block.facts().name).collect();
    let blocks = snapshot.into_iter().flat_map(SnapshotRef::blocks);
    blocks.filter(|block| !state.contains(&block.facts().name)).cloned().collect()
}
