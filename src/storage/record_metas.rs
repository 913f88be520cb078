//! Iterates over all live records without their values, for a recovery.

use super::{
    block::MetaCursor,
    error::StoreError,
    manifest::{DeadSet, Manifest},
};
use crate::state::RecordMeta;

/// The metas of all live records, in ascending order of id. Holds the footers of the blocks that are
/// not consumed yet.
#[derive(Debug, Default)]
pub struct RecordMetas {
    /// In descending order: the next block is the last.
    blocks: Vec<BlockMetas>,
}

#[derive(Debug)]
struct BlockMetas {
    metas: MetaCursor,
    dead: DeadSet,
    ordinal: usize,
}

impl RecordMetas {
    /// Reads the footers of all blocks.
    pub(super) fn read(manifest: &Manifest) -> Result<RecordMetas, StoreError> {
        let blocks = manifest.blocks().iter().rev().map(|entry| {
            let metas = entry.block.sized_metas()?;
            Ok(BlockMetas { metas, dead: entry.dead.clone(), ordinal: 0 })
        });
        Ok(RecordMetas { blocks: blocks.collect::<Result<_, StoreError>>()? })
    }
}

impl Iterator for BlockMetas {
    type Item = RecordMeta;

    fn next(&mut self) -> Option<RecordMeta> {
        loop {
            let (meta, _) = self.metas.next()?;
            self.ordinal += 1;
            if !self.dead.contains(self.ordinal - 1) {
                return Some(meta);
            }
        }
    }
}

impl Iterator for RecordMetas {
    type Item = RecordMeta;

    fn next(&mut self) -> Option<RecordMeta> {
        loop {
            if let Some(meta) = self.blocks.last_mut()?.next() {
                return Some(meta);
            }
            self.blocks.pop();
        }
    }
}
