//! The manifest: the blocks of the state, and their dead records.
//!
//! Blocks are in order and do not overlap. The manifest is in memory and changes together with a batch
//! for the tables, which the caller commits. A failed commit stops the member, so the two cannot
//! diverge.

mod block_entry;
mod dead_set;
mod rewrite_plan;

use std::{collections::BTreeSet, sync::Arc};

use super::{
    block::{Block, BlockName},
    error::StoreError,
    schema,
    tables::Batch,
};
use crate::types::RecordId;

pub use block_entry::BlockEntry;
use block_entry::BlockIds;
pub use dead_set::DeadSet;

/// Maximum ids in memory for finding dead records in their blocks. Beyond it they are read again.
const IDS_MAX: usize = 2_000_000;

/// The blocks of the state, in order.
#[derive(Debug, Default)]
pub struct Manifest {
    blocks: Vec<BlockEntry>,
    ids_held: usize,
}

impl Manifest {
    /// From the blocks in the tables. `None`: they overlap.
    pub fn new(mut blocks: Vec<BlockEntry>) -> Option<Manifest> {
        blocks.sort_by_key(BlockEntry::first);
        let ordered = blocks.is_sorted_by(|a, b| a.last() < b.first());
        ordered.then_some(Manifest { blocks, ids_held: 0 })
    }

    pub fn blocks(&self) -> &[BlockEntry] {
        &self.blocks
    }

    /// The live bytes of all records. Reads the footers of blocks in which some are dead.
    pub fn record_bytes(&self) -> Result<u64, StoreError> {
        self.blocks.iter().map(BlockEntry::record_bytes).sum()
    }

    pub fn names(&self) -> impl Iterator<Item = BlockName> {
        self.blocks.iter().map(|entry| entry.block.facts().name)
    }

    /// The open blocks, for readers.
    pub fn open_blocks(&self) -> Vec<Arc<Block>> {
        self.blocks.iter().map(|entry| entry.block.clone()).collect()
    }

    /// The last record in a block; zero if there is none.
    pub fn last(&self) -> RecordId {
        self.blocks.last().map(BlockEntry::last).unwrap_or_default()
    }

    /// Adds a block after all others.
    pub fn push(&mut self, block: Arc<Block>, batch: &mut Batch) {
        let after = self.blocks.last().is_none_or(|last| last.last() < block.facts().first);
        assert!(
            after,
            "block {} has records that are not newer than the last block",
            block.facts().name
        );
        put_block(&block, batch);
        let dead = DeadSet::new(block.facts().records);
        self.blocks.push(BlockEntry::new(block, dead));
    }

    /// Replaces the `count` blocks from `at` on by `new`, which have their live records. Returns the
    /// replaced blocks.
    pub fn replace(
        &mut self,
        at: usize,
        count: usize,
        new: Vec<Arc<Block>>,
        batch: &mut Batch,
    ) -> Vec<Arc<Block>> {
        for entry in &self.blocks[at..at + count] {
            let name = entry.block.facts().name;
            batch.insert(schema::block_key(name), None);
            for chunk in entry.dead.chunks() {
                batch.insert(schema::dead_key(name, chunk), None);
            }
        }
        let new = new.into_iter().map(|block| {
            put_block(&block, batch);
            let dead = DeadSet::new(block.facts().records);
            BlockEntry::new(block, dead)
        });
        let old: Vec<BlockEntry> = self.blocks.splice(at..at + count, new).collect();
        self.ids_held -= old
            .iter()
            .filter_map(|entry| entry.ids.as_ref())
            .map(|ids| ids.ids.len())
            .sum::<usize>();
        old.into_iter().map(|entry| entry.block).collect()
    }

    /// Marks records as dead, and returns their live bytes. Skips ids that are missing or dead
    /// already.
    pub fn mark_dead(
        &mut self,
        mut ids: Vec<RecordId>,
        batch: &mut Batch,
    ) -> Result<u64, StoreError> {
        ids.sort_unstable();
        let mut ids = &ids[..];
        let mut dead_bytes = 0;
        while let Some(first) = ids.first() {
            let at = self.blocks.partition_point(|entry| entry.last() < *first);
            let Some(entry) = self.blocks.get(at) else { break };
            let (these, rest) = ids.split_at(ids.partition_point(|id| *id <= entry.last()));
            dead_bytes += self.mark_in(at, these, batch)?;
            ids = rest;
        }
        Ok(dead_bytes)
    }

    fn mark_in(
        &mut self,
        at: usize,
        dead: &[RecordId],
        batch: &mut Batch,
    ) -> Result<u64, StoreError> {
        if self.ids_held > IDS_MAX {
            self.release_ids();
        }
        let BlockEntry { block, dead: marks, ids } = &mut self.blocks[at];
        let ids = match ids {
            Some(ids) => ids,
            None => {
                let read = ids.insert(BlockIds::read(block)?);
                self.ids_held += read.ids.len();
                read
            }
        };
        let (mut changed, mut dead_bytes) = (BTreeSet::new(), 0);
        for at in dead.iter().filter_map(|id| ids.ids.binary_search(id).ok()) {
            if let Some(chunk) = marks.mark(at) {
                changed.insert(chunk);
                dead_bytes += u64::from(ids.bytes[at]);
            }
        }
        let name = block.facts().name;
        for chunk in changed {
            batch.insert(schema::dead_key(name, chunk), Some(marks.chunk(chunk)));
        }
        Ok(dead_bytes)
    }

    /// Frees the memory for marking.
    pub fn release_ids(&mut self) {
        if self.ids_held > 0 {
            self.blocks.iter_mut().for_each(|entry| entry.ids = None);
            self.ids_held = 0;
        }
    }

    /// The neighbouring blocks to rewrite next, if any: `(at, count)`.
    pub fn plan(&self, block_bytes: u64) -> Option<(usize, usize)> {
        let usage = |entry: &BlockEntry| rewrite_plan::BlockUsage {
            bytes: entry.block.facts().bytes,
            live_bytes: entry.live_file_bytes(),
        };
        rewrite_plan::next(&self.blocks.iter().map(usage).collect::<Vec<_>>(), block_bytes)
    }
}

fn put_block(block: &Block, batch: &mut Batch) {
    let facts = block.facts();
    batch.insert(schema::block_key(facts.name), Some(schema::block_value(facts)));
}
