//! Giving back the space of dead records, a bounded amount at a time.

use std::{collections::BTreeSet, sync::Arc};

use super::{StoreError, Writer, blocks::BlockWriter};
use crate::storage::{snapshot, tables::Batch};

impl Writer {
    /// Drops dead blocks or rewrites a few thin ones. Says whether there was something to do.
    pub(super) fn reclaim(&mut self) -> Result<bool, StoreError> {
        let Some((at, count)) = self.manifest.plan(self.block_bytes as u64) else {
            self.manifest.forget_ids();
            self.sweep()?;
            self.refresh_snapshot()?;
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

    /// Takes a new snapshot if the retained one keeps much on disk that is dead by now. Else the
    /// space of a large compaction would come back only with the next snapshot that the log's growth
    /// asks for.
    fn refresh_snapshot(&mut self) -> Result<(), StoreError> {
        let (Some(retained), Some(position)) = (self.shared.retained(), self.applied) else {
            return Ok(());
        };
        let alive: BTreeSet<_> = self.manifest.names().collect();
        let kept = retained.blocks().iter().map(|block| block.facts());
        let kept: u64 =
            kept.filter(|facts| !alive.contains(&facts.name)).map(|facts| facts.bytes).sum();
        let live: u64 = self.manifest.blocks().iter().map(|live| live.live_bytes()).sum();
        drop(retained);
        if kept > live / 2 + 2 * self.block_bytes as u64 {
            self.save_snapshot(position)?;
        }
        Ok(())
    }

    /// Removes files that nobody holds any more. Not synced: the next start would remove them too.
    pub(super) fn sweep(&mut self) -> Result<(), StoreError> {
        self.doomed_snapshots.retain(|snapshot| !snapshot.is_last());
        let retained = self.shared.retained();
        // None at first, perhaps beside one that was damaged, and that somebody may want to look at.
        if let Some(retained) = &retained {
            for name in snapshot::names(&self.layout)? {
                let path = self.layout.snapshots().join(name.to_string());
                let mut held = self.doomed_snapshots.iter().chain([retained]);
                if !held.any(|snapshot| *snapshot.path() == path) {
                    self.layout.remove(&path)?;
                }
            }
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
