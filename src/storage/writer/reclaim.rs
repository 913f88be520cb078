//! Reclaims the space of dead records, a bounded amount at a time.

use std::{collections::BTreeSet, sync::Arc};

use super::{block_writer::BlockWriter, state_writer::StateWriter};
use crate::storage::{error::StoreError, snapshot, tables::Batch};

impl StateWriter {
    /// Drops dead blocks or rewrites a few thin ones. Returns whether there was work.
    pub fn reclaim(&mut self) -> Result<bool, StoreError> {
        let Some((at, count)) = self.manifest.plan(self.block_bytes as u64) else {
            self.manifest.release_ids();
            self.sweep()?;
            self.refresh_snapshot()?;
            return Ok(false);
        };
        let mut blocks = BlockWriter::new(&self.layout, &mut self.sequence, self.block_bytes);
        let mut counted_bytes = 0;
        for entry in &self.manifest.blocks()[at..at + count] {
            counted_bytes += entry.record_bytes()?;
            if entry.live_file_bytes() == 0 {
                continue;
            }
            let mut ordinal = 0;
            entry.block.each_record(|record| {
                ordinal += 1;
                if entry.dead.contains(ordinal - 1) { Ok(()) } else { blocks.push(record) }
            })?;
        }
        let new = blocks.finish()?;
        let exact_bytes = new.iter().map(|block| block.record_bytes()).sum();
        let mut batch = Batch::new();
        let old = self.manifest.replace(at, count, new, &mut batch);
        self.tables.commit(batch)?;
        self.pending_deletion.extend(old);
        self.records.pending().replace_rewritten(counted_bytes, exact_bytes);
        self.publish()?;
        self.sweep()?;
        Ok(true)
    }

    /// Takes a new snapshot if the retained one keeps many dead blocks on disk. Otherwise the space of
    /// a large compaction would be free only after the next snapshot due to the log's growth.
    fn refresh_snapshot(&mut self) -> Result<(), StoreError> {
        let (Some(retained), Some(position)) = (self.shared.retained(), self.applied) else {
            return Ok(());
        };
        let alive: BTreeSet<_> = self.manifest.names().collect();
        let kept = retained.blocks().iter().map(|block| block.facts());
        let kept: u64 =
            kept.filter(|facts| !alive.contains(&facts.name)).map(|facts| facts.bytes).sum();
        let live: u64 = self.manifest.blocks().iter().map(|entry| entry.live_file_bytes()).sum();
        drop(retained);
        if kept > live / 2 + 2 * self.block_bytes as u64 {
            self.save_snapshot(position)?;
        }
        Ok(())
    }

    /// Removes files without references. Does not sync: the next start would remove them too.
    pub fn sweep(&mut self) -> Result<(), StoreError> {
        self.snapshots_pending_deletion.retain(|snapshot| !snapshot.is_last());
        let retained = self.shared.retained();
        // Without a retained snapshot, a damaged one may be left, which is kept for inspection.
        if let Some(retained) = &retained {
            for name in snapshot::names(&self.layout)? {
                let path = self.layout.snapshots().join(name.to_string());
                let mut held = self.snapshots_pending_deletion.iter().chain([retained]);
                if !held.any(|snapshot| *snapshot.path() == path) {
                    self.layout.remove(&path)?;
                }
            }
        }
        let (free, held): (Vec<_>, Vec<_>) =
            self.pending_deletion.drain(..).partition(|block| Arc::strong_count(block) == 1);
        self.pending_deletion = held;
        for block in &free {
            self.layout.remove(block.path())?;
        }
        if free.is_empty() { Ok(()) } else { self.publish() }
    }
}
