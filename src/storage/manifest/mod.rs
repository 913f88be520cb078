//! Which blocks make up the state, and which of their records are dead.
//!
//! Blocks are in order and do not overlap. The manifest lives in memory and changes together with a
//! batch for the tables, which the caller commits; a failed commit stops the member, so the two
//! cannot part.

mod dead;
mod plan;

use std::{collections::BTreeSet, sync::Arc};

use super::{
    block::{Block, BlockName},
    error::StoreError,
    schema,
    tables::Batch,
};
use crate::types::RecordId;

pub(super) use dead::DeadSet;

/// So many ids are kept to find dead records in their blocks; beyond, they are read again.
const IDS_MAX: usize = 2_000_000;

/// A block that is part of the state.
#[derive(Debug)]
pub(super) struct Live {
    pub(super) block: Arc<Block>,
    pub(super) dead: DeadSet,
    /// The ids of its records, while a compaction asks for them.
    ids: Option<Vec<RecordId>>,
}

impl Live {
    pub(super) fn new(block: Arc<Block>, dead: DeadSet) -> Live {
        Live { block, dead, ids: None }
    }

    /// What the live records need: an estimate, as if all were of the same size. Zero only if there
    /// is none.
    pub(super) fn live_bytes(&self) -> u64 {
        let facts = self.block.facts();
        let live = u64::from(facts.records - self.dead.count());
        (facts.bytes * live).div_ceil(u64::from(facts.records.max(1)))
    }

    fn first(&self) -> RecordId {
        self.block.facts().first
    }

    fn last(&self) -> RecordId {
        self.block.facts().last
    }
}

/// The blocks of the state, in order.
#[derive(Debug, Default)]
pub(super) struct Manifest {
    blocks: Vec<Live>,
    ids_held: usize,
}

impl Manifest {
    /// From the blocks that the tables name. `None`: they overlap, which no manifest says.
    pub(super) fn new(mut blocks: Vec<Live>) -> Option<Manifest> {
        blocks.sort_by_key(Live::first);
        let ordered = blocks.is_sorted_by(|a, b| a.last() < b.first());
        ordered.then_some(Manifest { blocks, ids_held: 0 })
    }

    pub(super) fn blocks(&self) -> &[Live] {
        &self.blocks
    }

    pub(super) fn names(&self) -> impl Iterator<Item = BlockName> {
        self.blocks.iter().map(|live| live.block.facts().name)
    }

    /// The open blocks, for readers.
    pub(super) fn open_blocks(&self) -> Vec<Arc<Block>> {
        self.blocks.iter().map(|live| live.block.clone()).collect()
    }

    /// The last record that is in a block; zero if there is none.
    pub(super) fn last(&self) -> RecordId {
        self.blocks.last().map(Live::last).unwrap_or_default()
    }

    /// Adds a block after all others.
    pub(super) fn push(&mut self, block: Arc<Block>, batch: &mut Batch) {
        let after = self.blocks.last().is_none_or(|last| last.last() < block.facts().first);
        assert!(after, "block {} holds records that came before", block.facts().name);
        put_block(&block, batch);
        let dead = DeadSet::new(block.facts().records);
        self.blocks.push(Live::new(block, dead));
    }

    /// Puts `new` in the place of the `count` blocks from `at` on, whose live records it holds.
    /// Gives the blocks that are no longer part of the state.
    pub(super) fn replace(
        &mut self,
        at: usize,
        count: usize,
        new: Vec<Arc<Block>>,
        batch: &mut Batch,
    ) -> Vec<Arc<Block>> {
        for live in &self.blocks[at..at + count] {
            let name = live.block.facts().name;
            batch.insert(schema::block_key(name), None);
            for chunk in live.dead.chunks() {
                batch.insert(schema::dead_key(name, chunk), None);
            }
        }
        let new = new.into_iter().map(|block| {
            put_block(&block, batch);
            let dead = DeadSet::new(block.facts().records);
            Live::new(block, dead)
        });
        let old: Vec<Live> = self.blocks.splice(at..at + count, new).collect();
        self.ids_held -=
            old.iter().filter_map(|live| live.ids.as_ref()).map(Vec::len).sum::<usize>();
        old.into_iter().map(|live| live.block).collect()
    }

    /// Marks records as dead. Ids that are not there (any more), or dead already, are passed over.
    pub(super) fn mark_dead(
        &mut self,
        mut ids: Vec<RecordId>,
        batch: &mut Batch,
    ) -> Result<(), StoreError> {
        ids.sort_unstable();
        let mut ids = &ids[..];
        while let Some(first) = ids.first() {
            let at = self.blocks.partition_point(|live| live.last() < *first);
            let Some(live) = self.blocks.get(at) else { break };
            let (these, rest) = ids.split_at(ids.partition_point(|id| *id <= live.last()));
            self.mark_in(at, these, batch)?;
            ids = rest;
        }
        Ok(())
    }

    fn mark_in(
        &mut self,
        at: usize,
        dead: &[RecordId],
        batch: &mut Batch,
    ) -> Result<(), StoreError> {
        if self.ids_held > IDS_MAX {
            self.forget_ids();
        }
        let live = &mut self.blocks[at];
        if live.ids.is_none() {
            let ids: Vec<RecordId> = live.block.metas()?.map(|meta| meta.id).collect();
            self.ids_held += ids.len();
            live.ids = Some(ids);
        }
        let ids = live.ids.as_deref().unwrap_or_default();
        let ordinals = dead.iter().filter_map(|id| ids.binary_search(id).ok());
        let changed: BTreeSet<u32> = ordinals.filter_map(|at| live.dead.mark(at)).collect();
        let name = live.block.facts().name;
        for chunk in changed {
            batch.insert(schema::dead_key(name, chunk), Some(live.dead.chunk(chunk)));
        }
        Ok(())
    }

    /// Gives back the memory that marking took.
    pub(super) fn forget_ids(&mut self) {
        if self.ids_held > 0 {
            self.blocks.iter_mut().for_each(|live| live.ids = None);
            self.ids_held = 0;
        }
    }

    /// Which neighbours to rewrite next, if any: `(at, count)`.
    pub(super) fn plan(&self, block_bytes: u64) -> Option<(usize, usize)> {
        let load = |live: &Live| plan::Load {
            bytes: live.block.facts().bytes,
            live_bytes: live.live_bytes(),
        };
        plan::next(&self.blocks.iter().map(load).collect::<Vec<_>>(), block_bytes)
    }
}

fn put_block(block: &Block, batch: &mut Batch) {
    let facts = block.facts();
    batch.insert(schema::block_key(facts.name), Some(schema::block_value(facts)));
}
