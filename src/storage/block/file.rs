//! An open block file.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use bytes::Bytes;

use super::{
    format::{BlockFacts, DIRECTORY_ENTRY_BYTES, MAGIC, MAGIC_1, Page, TRAILER_BYTES},
    record::{MetaCursor, ValueLengths},
};
use crate::{
    disk::{Disk, File, Open},
    state::Record,
    storage::{codec::Decoder, error::StoreError},
    types::{MemberId, RecordId, Revision},
};

/// An open block. The page directory stays in memory (about 6 KiB for 4 MiB).
#[derive(Debug)]
pub struct Block {
    facts: BlockFacts,
    path: PathBuf,
    file: Arc<dyn File>,
    pages: Vec<Page>,
    footer: Footer,
    lengths: ValueLengths,
    record_bytes: u64,
}

#[derive(Debug, Clone, Copy)]
struct Footer {
    offset: u64,
    bytes: usize,
    pages: usize,
    crc: u32,
}

impl Footer {
    /// Mean length of a value. Pages repeat the content of the metas.
    fn value_bytes_mean(&self, records: u32) -> usize {
        let metas = self.bytes.saturating_sub(self.pages * DIRECTORY_ENTRY_BYTES);
        let pages = usize::try_from(self.offset).unwrap_or(usize::MAX);
        pages.saturating_sub(MAGIC.len() + metas) / (records.max(1) as usize)
    }
}

impl Block {
    /// Opens a block that the manifest or a snapshot names, and verifies everything except values.
    pub fn open(disk: &dyn Disk, dir: &Path, facts: BlockFacts) -> Result<Arc<Block>, StoreError> {
        let path = dir.join(facts.name.to_string());
        let file = disk.open(&path, Open::Read).map_err(StoreError::io("open", &path))?;
        Block::with_file(file, path, facts)
    }

    pub fn with_file(
        file: Arc<dyn File>,
        path: PathBuf,
        facts: BlockFacts,
    ) -> Result<Arc<Block>, StoreError> {
        let len = file.len().map_err(StoreError::io("stat", &path))?;
        if len != facts.bytes {
            return Err(StoreError::damaged(&path, len.min(facts.bytes), "wrong file length"));
        }
        let magic = read_at(&*file, &path, 0, MAGIC.len())?;
        if *magic != MAGIC[..] && *magic != MAGIC_1[..] {
            let newer = magic[..MAGIC.len() - 1] == MAGIC[..MAGIC.len() - 1];
            let problem = match newer {
                true => "written by a newer version of Ordinal: continue with that version",
                false => "not a block file",
            };
            return Err(StoreError::damaged(&path, 0, problem));
        }
        let footer = read_trailer(&*file, &path, &facts)?;
        let lengths = match *magic == MAGIC[..] {
            true => ValueLengths::Stored,
            false => ValueLengths::Estimated(footer.value_bytes_mean(facts.records)),
        };
        let pages = Vec::new();
        let mut block = Block { facts, path, file, pages, footer, lengths, record_bytes: 0 };
        let bytes = block.read_footer()?;
        block.pages = block.decode_directory(&bytes)?;
        block.record_bytes = block.check_metas(block.metas_of(&bytes))?;
        Ok(Arc::new(block))
    }

    fn metas_of(&self, footer: &Bytes) -> MetaCursor {
        let metas = footer.slice(self.footer.pages * DIRECTORY_ENTRY_BYTES..);
        MetaCursor::of_metas(metas, self.lengths)
    }

    /// Checks that the metas ascend and agree with the manifest. Returns the live bytes of the
    /// records.
    fn check_metas(&self, mut metas: MetaCursor) -> Result<u64, StoreError> {
        let wrong = || self.damaged(self.footer.offset, "wrong record metas in the footer");
        let (mut records, mut record_bytes) = (0, 0);
        let mut last = None;
        while !metas.is_done() {
            let (meta, bytes) = metas.sized_meta().ok_or_else(wrong)?;
            let id = meta.id;
            if last.is_some_and(|last| last >= id) {
                return Err(wrong());
            }
            records += 1;
            record_bytes += bytes;
            last = Some(id);
        }
        let expected = (self.facts.records, Some(self.facts.last));
        if (records, last) == expected { Ok(record_bytes) } else { Err(wrong()) }
    }

    /// The metas of all records, in order, with the live bytes of each. They were checked on opening.
    /// Reads the footer: metas do not stay in memory.
    pub fn sized_metas(&self) -> Result<MetaCursor, StoreError> {
        Ok(self.metas_of(&self.read_footer()?))
    }

    /// The live bytes of all records, including dead ones.
    pub fn record_bytes(&self) -> u64 {
        self.record_bytes
    }

    pub fn facts(&self) -> &BlockFacts {
        &self.facts
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn file(&self) -> &Arc<dyn File> {
        &self.file
    }

    fn damaged(&self, offset: u64, problem: &'static str) -> StoreError {
        StoreError::damaged(&self.path, offset, problem)
    }

    fn read_footer(&self) -> Result<Bytes, StoreError> {
        let bytes = read_at(&*self.file, &self.path, self.footer.offset, self.footer.bytes)?;
        if crc32fast::hash(&bytes) != self.footer.crc {
            return Err(self.damaged(self.footer.offset, "wrong checksum of the footer"));
        }
        Ok(bytes)
    }

    /// Checks that pages ascend and fill the file from the magic to the footer without a gap.
    fn decode_directory(&self, footer: &[u8]) -> Result<Vec<Page>, StoreError> {
        let wrong = || self.damaged(self.footer.offset, "wrong page directory");
        let mut decoder = Decoder::new(footer);
        let mut next = MAGIC.len() as u64;
        let mut pages: Vec<Page> = Vec::new();
        for _ in 0..self.footer.pages {
            let page = decode_page(&mut decoder).ok_or_else(wrong)?;
            let ascends = pages.last().is_none_or(|before| before.first < page.first);
            if u64::from(page.offset) != next || !ascends {
                return Err(wrong());
            }
            next += u64::from(page.bytes);
            pages.push(page);
        }
        let first = pages.first().map(|page| page.first);
        if next != self.footer.offset || first != Some(self.facts.first) {
            return Err(wrong());
        }
        Ok(pages)
    }

    /// Appends these records (ascending), which must all be in this block, to `out`. Reads each page
    /// once. `Ok(false)`: a record is missing.
    pub fn read(
        &self,
        mut ids: &[RecordId],
        out: &mut Vec<Arc<Record>>,
    ) -> Result<bool, StoreError> {
        while let Some(first) = ids.first() {
            let number = self.pages.partition_point(|page| page.first <= *first);
            let Some(page) = number.checked_sub(1).and_then(|number| self.pages.get(number)) else {
                return Ok(false);
            };
            let end = self.pages.get(number).map(|next| next.first);
            let here = end.map_or(ids.len(), |end| ids.partition_point(|id| *id < end));
            let (these, rest) = ids.split_at(here);
            if !self.read_from_page(page, these, out)? {
                return Ok(false);
            }
            ids = rest;
        }
        Ok(true)
    }

    fn read_from_page(
        &self,
        page: &Page,
        ids: &[RecordId],
        out: &mut Vec<Arc<Record>>,
    ) -> Result<bool, StoreError> {
        let mut wanted = ids.iter().peekable();
        self.each_in_page(page, |record| {
            if wanted.next_if(|id| **id == record.meta.id).is_some() {
                out.push(record);
            }
            wanted.peek().is_some()
        })?;
        Ok(wanted.peek().is_none())
    }

    /// Calls `each` with every record, in order, until it fails.
    pub fn each_record(
        &self,
        mut each: impl FnMut(&Record) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        for page in &self.pages {
            let mut outcome = Ok(());
            self.each_in_page(page, |record| {
                outcome = each(&record);
                outcome.is_ok()
            })?;
            outcome?;
        }
        Ok(())
    }

    /// Calls `each` with the records from `from` on, in order, until it returns false. Returns whether
    /// the scan reached the end.
    pub fn scan(
        &self,
        from: RecordId,
        mut each: impl FnMut(Arc<Record>) -> bool,
    ) -> Result<bool, StoreError> {
        let first = self.pages.partition_point(|page| page.first <= from).saturating_sub(1);
        let mut continues = true;
        for page in &self.pages[first..] {
            self.each_in_page(page, |record| {
                continues = record.meta.id < from || each(record);
                continues
            })?;
            if !continues {
                break;
            }
        }
        Ok(continues)
    }

    /// Reads and verifies a page, and calls `each` with its records until it returns false.
    fn each_in_page(
        &self,
        page: &Page,
        mut each: impl FnMut(Arc<Record>) -> bool,
    ) -> Result<(), StoreError> {
        let offset = u64::from(page.offset);
        let bytes = read_at(&*self.file, &self.path, offset, page.bytes as usize)?;
        if crc32fast::hash(&bytes) != page.crc {
            return Err(self.damaged(offset, "wrong checksum of the page"));
        }
        let mut cursor = MetaCursor::of_page(bytes);
        while !cursor.is_done() {
            let at = offset + cursor.position() as u64;
            let record = cursor.record().ok_or_else(|| self.damaged(at, "invalid record"))?;
            if !each(record) {
                break;
            }
        }
        Ok(())
    }
}

fn decode_page(decoder: &mut Decoder<'_>) -> Option<Page> {
    let main = Revision(decoder.u64()? as i64);
    let sub = decoder.u32()?;
    let (offset, bytes, crc) = (decoder.u32()?, decoder.u32()?, decoder.u32()?);
    Some(Page { first: RecordId { main, sub }, offset, bytes, crc })
}

fn read_trailer(file: &dyn File, path: &Path, facts: &BlockFacts) -> Result<Footer, StoreError> {
    let wrong = |at, problem| StoreError::damaged(path, at, problem);
    let Some(at) = facts.bytes.checked_sub((TRAILER_BYTES + MAGIC.len()) as u64) else {
        return Err(wrong(facts.bytes, "too short for a block"));
    };
    let at = at + MAGIC.len() as u64;
    let bytes = read_at(file, path, at, TRAILER_BYTES)?;
    let (body, crc) = bytes.split_at(TRAILER_BYTES - 4);
    if crc32fast::hash(body).to_be_bytes() != *crc {
        return Err(wrong(at, "wrong checksum of the trailer"));
    }
    let mut decoder = Decoder::new(body);
    let (Some(member), Some(sequence)) = (decoder.u64(), decoder.u32()) else {
        return Err(wrong(at, "the trailer is too short"));
    };
    if (MemberId(member), sequence) != (facts.name.member, facts.name.sequence) {
        return Err(wrong(at, "the trailer names another block"));
    }
    let mut word = || decoder.u32().unwrap_or_default();
    let (offset, bytes, pages, records, crc) = (word(), word(), word(), word(), word());
    let footer =
        Footer { offset: u64::from(offset), bytes: bytes as usize, pages: pages as usize, crc };
    let directory = footer.pages.checked_mul(DIRECTORY_ENTRY_BYTES);
    let fits = footer.offset + u64::from(bytes) == at
        && directory.is_some_and(|directory| directory <= footer.bytes);
    if !fits || records != facts.records {
        return Err(wrong(at, "the trailer contradicts the file or the manifest"));
    }
    Ok(footer)
}

fn read_at(file: &dyn File, path: &Path, offset: u64, len: usize) -> Result<Bytes, StoreError> {
    let mut buf = vec![0; len];
    file.read_exact_at(&mut buf, offset).map_err(|error| match error.kind() {
        io::ErrorKind::UnexpectedEof => StoreError::damaged(path, offset, "unexpected end of file"),
        _ => StoreError::io("read", path)(error),
    })?;
    Ok(buf.into())
}
