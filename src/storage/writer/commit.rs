//! Commits chunks to blocks and tables, and takes snapshots in between.

use std::sync::{Arc, atomic::Ordering};

use bytes::Bytes;
use tokio::time::Instant;

use super::{block_writer::BlockWriter, state_writer::StateWriter};
use crate::{
    state::{Changes, TableChange},
    storage::{error::StoreError, schema, snapshot::SnapshotRef, tables::Batch},
    types::LogPosition,
};

impl StateWriter {
    /// Writes the next chunks if they are due: up to `target` if a caller waits for it. Returns
    /// whether there were any.
    pub fn write_next(&mut self, target: Option<u64>) -> Result<bool, StoreError> {
        let chunks = {
            let mut pending = self.records.pending();
            pending.rearm(target);
            if pending.is_due() { pending.next(target, 2 * self.block_bytes) } else { Vec::new() }
        };
        self.write(&chunks)?;
        Ok(!chunks.is_empty())
    }

    /// Writes all durable chunks, due or not.
    pub fn write_all_durable(&mut self) -> Result<(), StoreError> {
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
        let dead_bytes = self.manifest.mark_dead(discarded.collect(), &mut batch)?;
        for change in chunks.iter().flat_map(|chunk| &chunk.tables) {
            let (key, value) = match change {
                TableChange::Put { key, value } => (key, Some(value.clone())),
                TableChange::Delete { key } => (key, None),
            };
            assert!(schema::is_state_key(key), "key {key:?} is reserved for the storage");
            batch.insert(key.clone(), value);
        }
        batch.insert(Bytes::from_static(schema::APPLIED), Some(schema::position_value(position)));
        self.tables.commit(batch)?;
        self.shared.metrics.commit.observe(begun.elapsed());
        self.applied = Some(position);
        self.records.pending().remove_dead(dead_bytes);
        self.publish()?;
        self.records.written(chunks.len());
        Ok(())
    }

    /// Publishes the current blocks to readers, and measures the files.
    pub fn publish(&self) -> Result<(), StoreError> {
        self.records.publish(self.manifest.open_blocks());
        let retained = self.shared.retained();
        let snapshot =
            retained.and_then(|snapshot| snapshot.files().first().map(|file| file.bytes));
        let dead: u64 = self.pending_deletion.iter().map(|block| block.facts().bytes).sum();
        let entries = self.manifest.blocks().iter();
        let blocks: u64 = entries.map(|entry| entry.block.facts().bytes).sum();
        let tables = self.tables.size()?;
        let total = blocks + dead + tables + snapshot.unwrap_or_default();
        self.records.total_bytes.store(total, Ordering::Relaxed);
        Ok(())
    }

    /// A snapshot of exactly the written state.
    pub fn take_snapshot(&mut self) -> Result<SnapshotRef, StoreError> {
        let position = self.applied.ok_or(StoreError::NothingApplied)?;
        if let Some(newest) = self.shared.retained().filter(|last| last.position() == position) {
            return Ok(newest);
        }
        self.save_snapshot(position)
    }

    /// Replaces a snapshot of the same position, if there is one: it may list other blocks.
    pub fn save_snapshot(&mut self, position: LogPosition) -> Result<SnapshotRef, StoreError> {
        let begun = Instant::now();
        let entries = self.tables.dump()?;
        let blocks = self.manifest.open_blocks();
        let metrics = &self.shared.metrics;
        let snapshot = SnapshotRef::save(&self.layout, position, &entries, blocks, metrics)?;
        metrics.snapshot_save.observe(begun.elapsed());
        self.retain(snapshot.clone())?;
        Ok(snapshot)
    }

    /// Replaces the retained snapshot. Older ones are removed after their last reference is dropped.
    pub fn retain(&mut self, snapshot: SnapshotRef) -> Result<(), StoreError> {
        self.snapshots_pending_deletion.extend(self.shared.retain(snapshot));
        self.sweep()
    }
}
