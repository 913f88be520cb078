//! Opens blocks, each file at most once.

use std::{collections::BTreeMap, path::PathBuf, sync::Arc};

use super::{
    block::{Block, BlockFacts, BlockName},
    error::StoreError,
    layout::Layout,
};
use crate::disk::Disk;

/// The open blocks. A file is opened once, because the holder of the last reference may remove it.
#[derive(Debug)]
pub struct OpenBlocks<'a> {
    disk: &'a dyn Disk,
    dir: PathBuf,
    blocks: BTreeMap<BlockName, Arc<Block>>,
}

impl<'a> OpenBlocks<'a> {
    pub fn new(layout: &'a Layout, open: impl Iterator<Item = Arc<Block>>) -> OpenBlocks<'a> {
        let blocks = open.map(|block| (block.facts().name, block)).collect();
        OpenBlocks { disk: &*layout.disk, dir: layout.blocks(), blocks }
    }

    pub fn open(&mut self, facts: &BlockFacts) -> Result<Arc<Block>, StoreError> {
        if let Some(block) = self.blocks.get(&facts.name).filter(|block| block.facts() == facts) {
            return Ok(block.clone());
        }
        let block = Block::open(self.disk, &self.dir, facts.clone())?;
        self.blocks.insert(facts.name, block.clone());
        Ok(block)
    }
}
