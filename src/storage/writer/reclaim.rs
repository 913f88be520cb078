//! Giving back the space of dead records, a bounded amount at a time.

use std::sync::Arc;

use super::{StoreError, Writer, blocks::BlockWriter};
use crate::storage::{snapshot::SnapshotRef, tables::Batch};

impl Writer {
    /// Drops dead blocks or rewrites a few thin ones. Says whether there was something to do.
    pub(super) fn reclaim(&mut self) -> Result<bool, StoreError> {
        let Some((at, count)) = self.manifest.plan(self.block_bytes as u64) else {
            self.manifest.forget_ids();
            self.sweep()?;
            return Ok(false);
        };
        let mut blocks = BlockWriter::new(&self.layout, &mut self.sequence, self.block_bytes);
        for live in &self.manifest.blocks()[at..at + count] {
            if live.live_bytes() == 0 {
                continue;
            }
            let mut ordinal = 0;
            live.block.each_record(|record| {
                ordinal += 1;
                if live.dead.contains(ordinal - 1) { Ok(()) } else { blocks.push(record) }
            })?;
        }
        let new = blocks.finish()?;
        let mut batch = Batch::new();
        let old = self.manifest.replace(at, count, new, &mut batch);
        self.tables.commit(batch)?;
        self.doomed.extend(old);
        self.publish()?;
        self.sweep()?;
        Ok(true)
    }

    /// Removes files that nobody holds any more. Not synced: the next start would remove them too.
    pub(super) fn sweep(&mut self) -> Result<(), StoreError> {
        let (free, held): (Vec<_>, Vec<_>) =
            self.doomed_snapshots.drain(..).partition(SnapshotRef::is_last);
        self.doomed_snapshots = held;
        for snapshot in free {
            self.layout.remove(snapshot.path())?;
        }
        let (free, held): (Vec<_>, Vec<_>) =
            self.doomed.drain(..).partition(|block| Arc::strong_count(block) == 1);
        self.doomed = held;
        for block in &free {
            self.layout.remove(block.path())?;
        }
        if free.is_empty() { Ok(()) } else { self.publish() }
    }
}
