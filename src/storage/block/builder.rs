//! Builds a block from records.

use std::{path::Path, sync::Arc};

use super::{
    file::Block,
    format::{BlockFacts, BlockName, MAGIC, PAGE_BYTES, Page},
    record::{put_record, put_sized_meta},
};
use crate::{
    disk::{Disk, Open},
    state::Record,
    storage::error::StoreError,
    types::{RecordId, Revision},
};

/// A block that is being built, in memory.
#[derive(Debug)]
pub struct BlockBuilder {
    file: Vec<u8>,
    metas: Vec<u8>,
    pages: Vec<Page>,
    /// The start of the open page, and its first record. None: the next record begins a page.
    open: Option<(usize, RecordId)>,
    records: u32,
    first: RecordId,
    last: RecordId,
}

impl Default for BlockBuilder {
    fn default() -> Self {
        BlockBuilder {
            file: MAGIC.to_vec(),
            metas: Vec::new(),
            pages: Vec::new(),
            open: None,
            records: 0,
            first: RecordId::default(),
            last: RecordId::default(),
        }
    }
}

impl BlockBuilder {
    pub fn is_empty(&self) -> bool {
        self.records == 0
    }

    /// Approximate size of the file.
    pub fn bytes(&self) -> usize {
        self.file.len() + self.metas.len()
    }

    pub fn push(&mut self, record: &Record) {
        let id = record.meta.id;
        assert!(self.is_empty() || id > self.last, "record {id} after {}", self.last);
        if self.is_empty() {
            self.first = id;
        }
        let previous_main = if self.is_empty() { Revision::ZERO } else { self.last.main };
        put_sized_meta(&mut self.metas, record, previous_main);
        let (start, previous) = match self.open {
            Some((start, _)) => (start, previous_main),
            None => {
                self.open = Some((self.file.len(), id));
                (self.file.len(), Revision::ZERO)
            }
        };
        put_record(&mut self.file, record, previous);
        self.records += 1;
        self.last = id;
        if self.file.len() - start >= PAGE_BYTES {
            self.close_page();
        }
    }

    fn close_page(&mut self) {
        if let Some((start, first)) = self.open.take() {
            let page = self.file.get(start..).unwrap_or_default();
            self.pages.push(Page {
                first,
                offset: file_u32(start),
                bytes: file_u32(page.len()),
                crc: crc32fast::hash(page),
            });
        }
    }

    /// Writes the file and syncs it. Its name is durable only after the directory is synced too.
    pub fn write(
        mut self,
        disk: &dyn Disk,
        dir: &Path,
        name: BlockName,
    ) -> Result<Arc<Block>, StoreError> {
        self.close_page();
        let mut footer = Vec::with_capacity(self.metas.len() + self.pages.len() * 24);
        for page in &self.pages {
            footer.extend_from_slice(&page.first.main.0.to_be_bytes());
            for part in [page.first.sub, page.offset, page.bytes, page.crc] {
                footer.extend_from_slice(&part.to_be_bytes());
            }
        }
        footer.append(&mut self.metas);

        let mut trailer = Vec::new();
        trailer.extend_from_slice(&name.member.0.to_be_bytes());
        for part in [
            name.sequence,
            file_u32(self.file.len()),
            file_u32(footer.len()),
            file_u32(self.pages.len()),
            self.records,
            crc32fast::hash(&footer),
        ] {
            trailer.extend_from_slice(&part.to_be_bytes());
        }
        trailer.extend_from_slice(MAGIC);
        let crc = crc32fast::hash(&trailer);
        trailer.extend_from_slice(&crc.to_be_bytes());

        let mut bytes = self.file;
        bytes.append(&mut footer);
        bytes.append(&mut trailer);
        let facts = BlockFacts {
            name,
            bytes: bytes.len() as u64,
            crc: crc32fast::hash(&bytes),
            records: self.records,
            first: self.first,
            last: self.last,
        };
        let path = dir.join(name.to_string());
        let file = disk.open(&path, Open::CreateNew).map_err(StoreError::io("create", &path))?;
        file.write_all_at(&bytes, 0).map_err(StoreError::io("write", &path))?;
        file.sync_data().map_err(StoreError::io("sync", &path))?;
        // Opened and verified like any other block.
        Block::with_file(file, path, facts)
    }
}

/// A block is a few MiB plus at most one large record, far below 4 GiB.
fn file_u32(len: usize) -> u32 {
    u32::try_from(len).expect("a block is closed long before 4 GiB")
}
