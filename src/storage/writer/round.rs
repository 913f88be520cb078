//! One round of writing, and snapshots between rounds.

use std::sync::{Arc, PoisonError, atomic::Ordering};

use bytes::Bytes;
use tokio::time::Instant;

use super::{StoreError, Writer, blocks::BlockWriter};
use crate::{
    state::{Changes, TableChange},
    storage::{schema, snapshot::SnapshotRef, tables::Batch},
    types::LogPosition,
};

impl Writer {
    /// Writes the next chunks if they are due: up to `target` if somebody waits for it. Says whether
    /// it did.
    pub(super) fn write_next(&mut self, target: Option<u64>) -> Result<bool, StoreError> {
        let chunks = {
            let mut pending = self.records.pending();
            pending.looked(target);
            if pending.is_due() { pending.next(target, 2 * self.block_bytes) } else { Vec::new() }
        };
        self.write(&chunks)?;
        Ok(!chunks.is_empty())
    }

    /// Writes the next chunks, due or not.
    pub(super) fn write_all_durable(&mut self) -> Result<(), StoreError> {
        let chunks = self.records.pending().next(None, usize::MAX);
        self.write(&chunks)
    }

    fn write(&mut self, chunks: &[Arc<Changes>]) -> Result<(), StoreError> {
        let Some(position) = chunks.last().map(|chunk| chunk.position) else { return Ok(()) };
        let begun = Instant::now();
        let mut blocks = BlockWriter::new(&self.layout, &mut self.sequence, self.block_bytes);
        for record in chunks.iter().flat_map(|chunk| &chunk.records) {
            blocks.push(record)?;
        }
        let mut batch = Batch::new();
        for block in blocks.finish()? {
            self.manifest.push(block, &mut batch);
        }
        let discarded = chunks.iter().flat_map(|chunk| chunk.discarded.iter().copied());
        self.manifest.mark_dead(discarded.collect(), &mut batch)?;
        for change in chunks.iter().flat_map(|chunk| &chunk.tables) {
            let (key, value) = match change {
                TableChange::Put { key, value } => (key, Some(value.clone())),
                TableChange::Delete { key } => (key, None),
            };
            assert!(schema::is_state_key(key), "key {key:?} is the storage's own");
            batch.insert(key.clone(), value);
        }
        batch.insert(Bytes::from_static(schema::APPLIED), Some(schema::position_value(position)));
        self.tables.commit(batch)?;
        self.shared.metrics.commit.observe(begun.elapsed());
        self.applied = Some(position);
        self.publish()?;
        self.records.written(chunks.len());
        Ok(())
    }

    /// Lets readers see the blocks as they are now, and measures them.
    pub(in crate::storage) fn publish(&self) -> Result<(), StoreError> {
        self.records.publish(self.manifest.open_blocks());
        let retained = self.shared.retained();
        let snapshot =
            retained.and_then(|snapshot| snapshot.files().first().map(|file| file.bytes));
        let doomed: u64 = self.doomed.iter().map(|block| block.facts().bytes).sum();
        let blocks: u64 = self.manifest.blocks().iter().map(|live| live.block.facts().bytes).sum();
        let live: u64 = self.manifest.blocks().iter().map(|live| live.live_bytes()).sum();
        let tables = self.tables.size()?;
        let total = blocks + doomed + tables + snapshot.unwrap_or_default();
        self.records.total_bytes.store(total, Ordering::Relaxed);
        self.records.live_bytes.store(live + tables, Ordering::Relaxed);
        Ok(())
    }

    /// A snapshot of exactly what is written.
    pub(super) fn take_snapshot(&mut self) -> Result<SnapshotRef, StoreError> {
        let position = self.applied.ok_or(StoreError::NothingYet)?;
        if let Some(newest) = self.shared.retained().filter(|last| last.position() == position) {
            return Ok(newest);
        }
        self.save_snapshot(position)
    }

    /// Replaces the snapshot of this position, if there is one: it may list other blocks.
    pub(super) fn save_snapshot(
        &mut self,
        position: LogPosition,
    ) -> Result<SnapshotRef, StoreError> {
        let begun = Instant::now();
        let entries = self.tables.dump()?;
        let blocks = self.manifest.open_blocks();
        let metrics = &self.shared.metrics;
        let snapshot = SnapshotRef::save(&self.layout, position, &entries, blocks, metrics)?;
        metrics.snapshot_save.observe(begun.elapsed());
        self.retain(snapshot.clone())?;
        Ok(snapshot)
    }

    /// Replaces the retained snapshot; older ones go once nobody holds them.
    pub(super) fn retain(&mut self, snapshot: SnapshotRef) -> Result<(), StoreError> {
        let before = {
            let mut retained = self.shared.retained.lock().unwrap_or_else(PoisonError::into_inner);
            retained.replace(snapshot)
        };
        self.doomed_snapshots.extend(before);
        self.sweep()
    }
}
