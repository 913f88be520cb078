//! Writes records to as many blocks as they need.

use std::{path::PathBuf, sync::Arc};

use crate::{
    state::Record,
    storage::{
        block::{Block, BlockBuilder},
        error::StoreError,
        layout::Layout,
        sequence::Sequence,
    },
};

/// Takes records in order, and closes a block when it has reached its target size.
#[derive(Debug)]
pub struct BlockWriter<'a> {
    layout: &'a Layout,
    dir: PathBuf,
    sequence: &'a mut Sequence,
    block_bytes: usize,
    open: BlockBuilder,
    done: Vec<Arc<Block>>,
}

impl<'a> BlockWriter<'a> {
    pub fn new(
        layout: &'a Layout,
        sequence: &'a mut Sequence,
        block_bytes: usize,
    ) -> BlockWriter<'a> {
        let dir = layout.blocks();
        let (open, done) = (BlockBuilder::default(), Vec::new());
        BlockWriter { layout, dir, sequence, block_bytes, open, done }
    }

    pub fn push(&mut self, record: &Record) -> Result<(), StoreError> {
        self.open.push(record);
        if self.open.bytes() >= self.block_bytes { self.close_block() } else { Ok(()) }
    }

    fn close_block(&mut self) -> Result<(), StoreError> {
        let block = std::mem::take(&mut self.open);
        let name = self.sequence.next(self.layout)?;
        self.done.push(block.write(&*self.layout.disk, &self.dir, name)?);
        Ok(())
    }

    /// The blocks; their contents and names are durable.
    pub fn finish(mut self) -> Result<Vec<Arc<Block>>, StoreError> {
        if !self.open.is_empty() {
            self.close_block()?;
        }
        if !self.done.is_empty() {
            self.layout.sync_dir(&self.dir)?;
        }
        Ok(self.done)
    }
}
