//! The decoded content of the tables: the applied position, the manifest of the blocks, and the state
//! machine's entries.

use bytes::Bytes;

use super::{
    block::BlockFacts,
    error::StoreError,
    layout::Layout,
    manifest::{BlockEntry, DeadSet, Manifest},
    open_blocks::OpenBlocks,
    schema::{self, StorageEntry},
};
use crate::types::LogPosition;

/// A decoded dump of the tables.
#[derive(Debug, Default)]
pub struct TableContents {
    pub applied: Option<LogPosition>,
    pub blocks: Vec<(BlockFacts, DeadSet)>,
    /// The state machine's entries, in key order.
    pub state: Vec<(Bytes, Bytes)>,
}

impl TableContents {
    /// Decodes entries in key order. `None`: an entry is invalid or of an unknown format.
    pub fn decode(entries: Vec<(Bytes, Bytes)>) -> Option<TableContents> {
        let mut contents = TableContents::default();
        for (key, value) in entries {
            if schema::is_state_key(&key) {
                contents.state.push((key, value));
                continue;
            }
            match schema::decode(&key, &value)? {
                StorageEntry::Format { known: true } | StorageEntry::Checksum(_) => {}
                StorageEntry::Format { known: false } => return None,
                StorageEntry::Applied(position) => contents.applied = Some(position),
                StorageEntry::Block(facts) => {
                    let dead = DeadSet::new(facts.records);
                    contents.blocks.push((facts, dead));
                }
                // In key order all blocks precede their dead records.
                StorageEntry::Dead { block, chunk, bits } => {
                    let at = contents.blocks.binary_search_by_key(&block, |(facts, _)| facts.name);
                    contents.blocks[at.ok()?].1.load(chunk, &bits)?;
                }
            }
        }
        Some(contents)
    }

    /// Opens all blocks, and verifies everything in them except the values.
    pub fn open_manifest(
        &self,
        layout: &Layout,
        open_blocks: &mut OpenBlocks<'_>,
    ) -> Result<Manifest, StoreError> {
        let mut blocks = Vec::with_capacity(self.blocks.len());
        for (facts, dead) in &self.blocks {
            blocks.push(BlockEntry::new(open_blocks.open(facts)?, dead.clone()));
        }
        Manifest::new(blocks).ok_or_else(|| {
            StoreError::damaged(&layout.blocks(), 0, "blocks of the manifest overlap")
        })
    }
}
