//! A block of the manifest, and its dead records.

use std::sync::Arc;

use super::dead_set::DeadSet;
use crate::{
    storage::{block::Block, error::StoreError},
    types::RecordId,
};

/// A block that is part of the state.
#[derive(Debug)]
pub struct BlockEntry {
    pub block: Arc<Block>,
    pub dead: DeadSet,
    /// The ids of all records, while a compaction needs them.
    pub ids: Option<BlockIds>,
}

/// The records of a block, and the live bytes of each.
#[derive(Debug, Default)]
pub struct BlockIds {
    pub ids: Vec<RecordId>,
    pub bytes: Vec<u32>,
}

impl BlockIds {
    pub fn read(block: &Block) -> Result<BlockIds, StoreError> {
        let mut ids = BlockIds::default();
        for (meta, bytes) in block.sized_metas()? {
            ids.ids.push(meta.id);
            ids.bytes.push(u32::try_from(bytes).unwrap_or(u32::MAX));
        }
        Ok(ids)
    }
}

impl BlockEntry {
    pub fn new(block: Arc<Block>, dead: DeadSet) -> BlockEntry {
        BlockEntry { block, dead, ids: None }
    }

    /// The live part of the file: an estimate, as if all records had the same size. Zero only if no
    /// record is live.
    pub fn live_file_bytes(&self) -> u64 {
        let facts = self.block.facts();
        let live = u64::from(facts.records - self.dead.count());
        (facts.bytes * live).div_ceil(u64::from(facts.records.max(1)))
    }

    /// The live bytes of the records, as the quota counts them. Reads the footer if some are dead.
    pub fn record_bytes(&self) -> Result<u64, StoreError> {
        if self.dead.count() == 0 {
            return Ok(self.block.record_bytes());
        }
        let all = self.block.sized_metas()?.enumerate();
        let live = all.filter(|(ordinal, _)| !self.dead.contains(*ordinal));
        Ok(live.map(|(_, (_, bytes))| bytes).sum())
    }

    pub fn first(&self) -> RecordId {
        self.block.facts().first
    }

    pub fn last(&self) -> RecordId {
        self.block.facts().last
    }
}
