//! What a whole table dump says: where the state is, which blocks it is made of, and the tables of
//! the state machine.

use std::{collections::BTreeMap, path::PathBuf, sync::Arc};

use bytes::Bytes;

use super::{
    block::{Block, BlockFacts, BlockName, MetaCursor},
    error::StoreError,
    layout::Layout,
    manifest::{DeadSet, Live, Manifest},
    schema::{self, Entry},
};
use crate::{disk::Disk, state::RecordMeta, types::LogPosition};

/// A dump, understood.
#[derive(Debug, Default)]
pub(super) struct Content {
    pub(super) applied: Option<LogPosition>,
    pub(super) blocks: Vec<(BlockFacts, DeadSet)>,
    /// The state machine's entries, in order of keys.
    pub(super) state: Vec<(Bytes, Bytes)>,
}

impl Content {
    /// From entries in order of keys. `None`: no storage wrote this.
    pub(super) fn parse(entries: Vec<(Bytes, Bytes)>) -> Option<Content> {
        let mut content = Content::default();
        for (key, value) in entries {
            if schema::is_state_key(&key) {
                content.state.push((key, value));
                continue;
            }
            match schema::decode(&key, &value)? {
                Entry::Format { known: true } | Entry::Checksum(_) => {}
                Entry::Format { known: false } => return None,
                Entry::Applied(position) => content.applied = Some(position),
                Entry::Block(facts) => {
                    let dead = DeadSet::new(facts.records);
                    content.blocks.push((facts, dead));
                }
                // Keys are in order: all blocks came before.
                Entry::Dead { block, chunk, bits } => {
                    let at = content.blocks.binary_search_by_key(&block, |(facts, _)| facts.name);
                    content.blocks[at.ok()?].1.load(chunk, &bits)?;
                }
            }
        }
        Some(content)
    }

    /// Opens all blocks, and verifies all of them but the values.
    pub(super) fn open_blocks(
        &self,
        shelf: &mut Shelf<'_>,
    ) -> Result<(Manifest, RecordMetas), StoreError> {
        let mut blocks = Vec::with_capacity(self.blocks.len());
        for (facts, dead) in &self.blocks {
            blocks.push(Live::new(shelf.open(facts)?, dead.clone()));
        }
        let manifest = Manifest::new(blocks)
            .ok_or_else(|| StoreError::damaged(&shelf.dir, 0, "blocks of the manifest overlap"))?;
        let last_first = manifest.blocks().iter().rev();
        let blocks = last_first.map(|live| {
            Ok(BlockMetas { metas: live.block.metas()?, dead: live.dead.clone(), ordinal: 0 })
        });
        let metas = RecordMetas { blocks: blocks.collect::<Result<_, StoreError>>()? };
        Ok((manifest, metas))
    }
}

/// Blocks that are open. One file is opened once: who holds the last reference may remove it.
#[derive(Debug)]
pub(super) struct Shelf<'a> {
    disk: &'a dyn Disk,
    dir: PathBuf,
    blocks: BTreeMap<BlockName, Arc<Block>>,
}

impl<'a> Shelf<'a> {
    pub(super) fn new(layout: &'a Layout, open: impl Iterator<Item = Arc<Block>>) -> Shelf<'a> {
        let blocks = open.map(|block| (block.facts().name, block)).collect();
        Shelf { disk: &*layout.disk, dir: layout.blocks(), blocks }
    }

    pub(super) fn open(&mut self, facts: &BlockFacts) -> Result<Arc<Block>, StoreError> {
        if let Some(block) = self.blocks.get(&facts.name).filter(|block| block.facts() == facts) {
            return Ok(block.clone());
        }
        let block = Block::open(self.disk, &self.dir, facts.clone())?;
        self.blocks.insert(facts.name, block.clone());
        Ok(block)
    }
}

/// All live records without their values, in ascending order of id. Holds the footers that are not
/// walked yet.
#[derive(Debug, Default)]
pub struct RecordMetas {
    /// The next block is the last.
    blocks: Vec<BlockMetas>,
}

#[derive(Debug)]
struct BlockMetas {
    metas: MetaCursor,
    dead: DeadSet,
    ordinal: usize,
}

impl Iterator for BlockMetas {
    type Item = RecordMeta;

    fn next(&mut self) -> Option<RecordMeta> {
        loop {
            let meta = self.metas.next()?;
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
