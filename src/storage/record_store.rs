//! The records of one state, for the state machine's reads and submissions.
//!
//! A [`RecordStore`] is used from a recovery until a snapshot replaces the state. Open reads finish on
//! the old store, whose blocks stay open; later submissions to it are dropped.
//!
//! A record is in the pending queue or in a block. The writer publishes a block before it removes the
//! block's records from the queue, so readers look in the queue first, then in the blocks.

use std::sync::{
    Arc, Mutex, MutexGuard, PoisonError, RwLock,
    atomic::{AtomicU64, Ordering},
};

use tokio::sync::Notify;

use super::{
    block::Block,
    cache::{self, Cache},
    error::StoreError,
    pending::Pending,
    waker::WakeWriter,
};
use crate::{
    fault::Fault,
    state::{Changes, Record, ScanBatch, Storage, StorageError, StorageSize},
    types::{RecordId, Revision},
};

/// Larger reads are scans, which must not fill the cache.
const CACHED_READ_RECORDS_MAX: usize = 256;

/// Shared by the state machine, its readers and the writer.
#[derive(Debug)]
pub struct RecordStore {
    pending: Mutex<Pending>,
    blocks: RwLock<Arc<Vec<Arc<Block>>>>,
    cache: Cache,
    /// Notified when the queue shrinks or closes.
    room: Notify,
    /// Bytes of all files.
    pub(super) total_bytes: AtomicU64,
    writer: Arc<dyn WakeWriter>,
    fault: Fault,
}

impl RecordStore {
    pub(super) fn new(
        pending: Pending,
        blocks: Vec<Arc<Block>>,
        cache_bytes: usize,
        writer: Arc<dyn WakeWriter>,
        fault: Fault,
    ) -> RecordStore {
        RecordStore {
            pending: Mutex::new(pending),
            blocks: RwLock::new(Arc::new(blocks)),
            cache: Cache::new(cache_bytes),
            room: Notify::new(),
            total_bytes: AtomicU64::new(0),
            writer,
            fault,
        }
    }

    pub(super) fn pending(&self) -> MutexGuard<'_, Pending> {
        // A panic under this lock is a failed assertion, which stops the member.
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
            self.writer.wake();
        }
    }

    /// Drops later submissions, and releases the callers that wait for room.
    pub(super) fn close(&self) {
        self.pending().close();
        self.room.notify_waiters();
    }

    pub(super) fn is_full(&self, bytes_max: usize) -> bool {
        self.pending().is_full(bytes_max)
    }

    /// Waits until less than `bytes_max` is pending, or the member stops.
    pub(super) async fn wait_for_room(&self, bytes_max: usize) {
        loop {
            let changed = self.room.notified();
            if !self.is_full(bytes_max) || self.fault.is_stopped() {
                return;
            }
            tokio::select! {
                biased;
                () = changed => {}
                _ = self.fault.stopped() => {}
            }
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

    /// Adds the records of blocks, up to and without `end`. False: the batch is complete.
    fn scan_blocks(
        &self,
        from: Revision,
        end: Option<RecordId>,
        batch: &mut ScanBatch,
    ) -> Result<bool, StorageError> {
        let from = RecordId { main: from, sub: 0 };
        let blocks = self.blocks();
        let first = blocks.partition_point(|block| block.facts().last < from);
        for block in &blocks[first..] {
            let mut full = false;
            let each = |record: Arc<Record>| {
                let before_end = end.is_none_or(|end| record.meta.id < end);
                full = before_end && !batch.push(&record);
                before_end && !full
            };
            if !block.scan(from, each).map_err(|error| self.stop(error))? {
                return Ok(!full);
            }
        }
        Ok(true)
    }

    /// Stops the member: after one failed read its disk cannot be trusted any more.
    fn stop(&self, error: StoreError) -> StorageError {
        self.fault.stop(&error);
        error.into()
    }
}

impl Storage for RecordStore {
    fn submit(&self, changes: Changes) {
        for record in &changes.records {
            self.cache.insert(record.clone());
        }
        if self.pending().push(changes) {
            self.writer.wake();
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
            let cacheable = ids.len() <= CACHED_READ_RECORDS_MAX;
            let mut read = self.read_blocks(&missing)?.into_iter();
            for hole in found.iter_mut().filter(|record| record.is_none()) {
                *hole = read.next();
                if let Some(record) = hole.as_mut().filter(|_| cacheable) {
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
        // Queue first: a record that leaves it meanwhile is in a block by then.
        let pending = self.pending().since(from, bytes_max);
        let pending = pending.iter().flat_map(|changes| &changes.records);
        let mut pending = pending.skip_while(|record| record.meta.id.main < from).peekable();
        // The queue holds the newest records, so all older ones are in blocks.
        let end = pending.peek().map(|record| record.meta.id);
        let mut batch = ScanBatch::new(to, bytes_max);
        if self.scan_blocks(from, end, &mut batch)? {
            for record in pending {
                if !batch.push(record) {
                    break;
                }
            }
        }
        Ok(batch.records)
    }

    fn size(&self) -> StorageSize {
        let pending = self.pending();
        let total_bytes = self.total_bytes.load(Ordering::Relaxed) + pending.bytes() as u64;
        StorageSize { total_bytes, live_bytes: pending.live_bytes() }
    }
}
