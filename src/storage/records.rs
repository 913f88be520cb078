//! The records of one state, as the state machine reads and submits them.
//!
//! A state lives from its recovery until a snapshot replaces it: reads that began before end on the
//! old [`Records`], whose blocks stay open, and what is submitted to it then is dropped.
//!
//! A record is in the queue of what is pending, or in a block: the writer publishes a block before
//! it takes its records from the queue, and readers look in this order too.

use std::sync::{
    Arc, Mutex, MutexGuard, PoisonError, RwLock,
    atomic::{AtomicU64, Ordering},
};

use tokio::sync::{Notify, mpsc};

use super::{
    block::Block,
    cache::{self, Cache},
    error::StoreError,
    pending::Pending,
    writer::Message,
};
use crate::{
    fault::Fault,
    state::{Changes, Record, Run, Storage, StorageError, StorageSize},
    types::{RecordId, Revision},
};

/// Reads of more records than this do not fill the cache: they are scans.
const CACHED_READ_MAX: usize = 256;

/// Shared by the state machine, its readers and the writer.
#[derive(Debug)]
pub struct Records {
    pending: Mutex<Pending>,
    blocks: RwLock<Arc<Vec<Arc<Block>>>>,
    cache: Cache,
    /// Told when the queue became shorter.
    room: Notify,
    pub(super) total_bytes: AtomicU64,
    pub(super) live_bytes: AtomicU64,
    /// Weak: the lane ends when its owner lets go.
    writer: mpsc::WeakUnboundedSender<Message>,
    fault: Fault,
}

impl Records {
    pub(super) fn new(
        pending: Pending,
        blocks: Vec<Arc<Block>>,
        cache_bytes: usize,
        writer: mpsc::WeakUnboundedSender<Message>,
        fault: Fault,
    ) -> Records {
        Records {
            pending: Mutex::new(pending),
            blocks: RwLock::new(Arc::new(blocks)),
            cache: Cache::new(cache_bytes),
            room: Notify::new(),
            total_bytes: AtomicU64::new(0),
            live_bytes: AtomicU64::new(0),
            writer,
            fault,
        }
    }

    pub(super) fn pending(&self) -> MutexGuard<'_, Pending> {
        // What panics under it is an assertion that ends the member.
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn blocks(&self) -> Arc<Vec<Arc<Block>>> {
        self.blocks.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn publish(&self, blocks: Vec<Arc<Block>>) {
        *self.blocks.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(blocks);
    }

    pub(super) fn written(&self, chunks: usize) {
        self.pending().written(chunks);
        self.room.notify_waiters();
    }

    pub(super) fn set_durable(&self, index: u64) {
        if self.pending().set_durable(index) {
            self.tell();
        }
    }

    /// No more is taken in, and who waits for room gets it.
    pub(super) fn close(&self) {
        self.pending().close();
        self.room.notify_waiters();
    }

    pub(super) fn is_full(&self, bytes_max: usize) -> bool {
        self.pending().is_full(bytes_max)
    }

    /// Waits until less than `bytes_max` is pending, or the member stops.
    pub(super) async fn room(&self, bytes_max: usize) {
        loop {
            let told = self.room.notified();
            if !self.is_full(bytes_max) || self.fault.is_stopped() {
                return;
            }
            tokio::select! {
                biased;
                () = told => {}
                _ = self.fault.stopped() => {}
            }
        }
    }

    fn tell(&self) {
        if let Some(writer) = self.writer.upgrade() {
            // A lane that is gone has nothing to write any more.
            let _ = writer.send(Message::Look);
        }
    }

    /// Reads from blocks; `ids` ascend.
    fn read_blocks(&self, ids: &[RecordId]) -> Result<Vec<Arc<Record>>, StorageError> {
        let blocks = self.blocks();
        let mut records = Vec::with_capacity(ids.len());
        let mut rest = ids;
        while let Some(first) = rest.first() {
            let at = blocks.partition_point(|block| block.facts().last < *first);
            let block = blocks.get(at).ok_or(StorageError::Missing(*first))?;
            let last = block.facts().last;
            let (these, others) = rest.split_at(rest.partition_point(|id| *id <= last));
            if !block.read(these, &mut records).map_err(|error| self.stop(error))? {
                let missing = ids.get(records.len()).unwrap_or(first);
                return Err(StorageError::Missing(*missing));
            }
            rest = others;
        }
        Ok(records)
    }

    /// Takes records of blocks, up to and without `end`. False: `run` is full.
    fn scan_blocks(
        &self,
        from: Revision,
        end: Option<RecordId>,
        run: &mut Run,
    ) -> Result<bool, StorageError> {
        let from = RecordId { main: from, sub: 0 };
        let blocks = self.blocks();
        let first = blocks.partition_point(|block| block.facts().last < from);
        for block in &blocks[first..] {
            let mut full = false;
            let each = |record: Arc<Record>| {
                let before_end = end.is_none_or(|end| record.meta.id < end);
                full = before_end && !run.take(&record);
                before_end && !full
            };
            if !block.scan(from, each).map_err(|error| self.stop(error))? {
                return Ok(!full);
            }
        }
        Ok(true)
    }

    /// What cannot be read once cannot be trusted any more.
    fn stop(&self, error: StoreError) -> StorageError {
        self.fault.stop(&error);
        error.into()
    }
}

impl Storage for Records {
    fn submit(&self, changes: Changes) {
        for record in &changes.records {
            self.cache.insert(record.clone());
        }
        if self.pending().push(changes) {
            self.tell();
        }
    }

    fn cached(&self, id: RecordId) -> Option<Arc<Record>> {
        self.cache.get(id).or_else(|| self.pending().get(id))
    }

    fn read(&self, ids: &[RecordId]) -> Result<Vec<Arc<Record>>, StorageError> {
        let mut found: Vec<Option<Arc<Record>>> = ids.iter().map(|id| self.cached(*id)).collect();
        let holes = found.iter().zip(ids).filter(|(record, _)| record.is_none());
        let missing: Vec<RecordId> = holes.map(|(_, id)| *id).collect();
        if !missing.is_empty() {
            let keep = ids.len() <= CACHED_READ_MAX;
            let mut read = self.read_blocks(&missing)?.into_iter();
            for hole in found.iter_mut().filter(|record| record.is_none()) {
                *hole = read.next();
                if let Some(record) = hole.as_mut().filter(|_| keep) {
                    *record = cache::compact(record);
                    self.cache.insert(record.clone());
                }
            }
        }
        Ok(found.into_iter().flatten().collect())
    }

    fn scan(
        &self,
        from: Revision,
        to: Revision,
        bytes_max: usize,
    ) -> Result<Vec<Arc<Record>>, StorageError> {
        // In this order: what leaves the queue meanwhile is in a block by then.
        let pending = self.pending().since(from, bytes_max);
        let pending = pending.iter().flat_map(|changes| &changes.records);
        let mut pending = pending.skip_while(|record| record.meta.id.main < from).peekable();
        // The queue holds the newest records, so all before its first are in blocks.
        let end = pending.peek().map(|record| record.meta.id);
        let mut run = Run::new(to, bytes_max);
        if self.scan_blocks(from, end, &mut run)? {
            for record in pending {
                if !run.take(record) {
                    break;
                }
            }
        }
        Ok(run.records)
    }

    fn size(&self) -> StorageSize {
        let pending = self.pending().bytes() as u64;
        StorageSize {
            total_bytes: self.total_bytes.load(Ordering::Relaxed) + pending,
            live_bytes: self.live_bytes.load(Ordering::Relaxed) + pending,
        }
    }
}
