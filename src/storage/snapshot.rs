//! Snapshots. Each is one small file, `snapshots/{index}-{term}.snap`, which lists blocks that are on
//! disk already.
//!
//! ```text
//! magic (8)   "ordsnp", 0, version
//! count       of table entries
//! entry…      key, value: a dump of the tables, the manifest and the position among them
//! CRC-32      over all of the above
//! ```
//!
//! A [`SnapshotRef`] keeps its blocks on disk until it is dropped. The newest snapshot is retained, so
//! that lost tables can be rebuilt from it.

use std::{fmt, path::PathBuf, sync::Arc};

use bytes::Bytes;
use tokio::time::Instant;

use super::{
    block::Block,
    codec::{Decoder, put_bytes, put_varint},
    error::StoreError,
    generation::Entries,
    layout::Layout,
    metrics::StorageMetrics,
    open_blocks::OpenBlocks,
    table_contents::TableContents,
};
use crate::{
    disk::{File, Open},
    state::MEMBERSHIP_KEY,
    types::{LogPosition, Term},
};

const MAGIC: &[u8; 8] = b"ordsnp\x00\x01";
/// An entry has at least two lengths. Bounds the allocation for a decoded count.
const ENTRY_BYTES_MIN: usize = 2;

/// A file of a snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnapshotFile {
    pub name: String,
    pub bytes: u64,
    /// CRC-32 (IEEE) of the whole file.
    pub crc: u32,
}

/// A snapshot on this disk. None of its files is removed before all clones are dropped.
#[derive(Debug, Clone)]
pub struct SnapshotRef(Arc<OpenSnapshot>);

#[derive(Debug)]
struct OpenSnapshot {
    position: LogPosition,
    path: PathBuf,
    files: Vec<SnapshotFile>,
    file: Arc<dyn File>,
    blocks: Vec<Arc<Block>>,
    membership: Option<Bytes>,
}

/// A snapshot's file name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct SnapshotName {
    pub index: u64,
    pub term: Term,
}

impl From<LogPosition> for SnapshotName {
    fn from(LogPosition { term, index }: LogPosition) -> SnapshotName {
        SnapshotName { index, term }
    }
}

impl fmt::Display for SnapshotName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}-{:016x}.snap", self.index, self.term.0)
    }
}

impl SnapshotName {
    pub fn parse(name: &str) -> Option<SnapshotName> {
        let (index, term) = name.strip_suffix(".snap")?.split_once('-')?;
        let parsed = SnapshotName {
            index: u64::from_str_radix(index, 16).ok()?,
            term: Term(u64::from_str_radix(term, 16).ok()?),
        };
        (parsed.to_string() == name).then_some(parsed)
    }
}

impl SnapshotRef {
    /// The last entry whose effects are included.
    pub fn position(&self) -> LogPosition {
        self.0.position
    }

    /// The snapshot file first, then the blocks.
    pub fn files(&self) -> &[SnapshotFile] {
        &self.0.files
    }

    /// The membership as of the snapshot, in the state machine's encoding.
    pub fn membership(&self) -> Option<Bytes> {
        self.0.membership.clone()
    }

    pub(super) fn blocks(&self) -> &[Arc<Block>] {
        &self.0.blocks
    }

    pub(super) fn path(&self) -> &PathBuf {
        &self.0.path
    }

    /// Whether this is the only reference.
    pub(super) fn is_last(&self) -> bool {
        Arc::strong_count(&self.0) == 1
    }

    /// Reads at most `bytes_max` from `offset` of the file with this index. May block.
    pub(super) fn read(
        &self,
        file: usize,
        offset: u64,
        bytes_max: usize,
    ) -> Result<Bytes, StoreError> {
        let Some(facts) = self.0.files.get(file) else {
            return Err(StoreError::Refused(format!("the snapshot has no file {file}")));
        };
        let (path, open) = match file.checked_sub(1).and_then(|block| self.0.blocks.get(block)) {
            Some(block) => (block.path(), block.file()),
            None => (&*self.0.path, &self.0.file),
        };
        let left = usize::try_from(facts.bytes.saturating_sub(offset)).unwrap_or(usize::MAX);
        let mut bytes = vec![0; left.min(bytes_max)];
        open.read_exact_at(&mut bytes, offset).map_err(StoreError::io("read", path))?;
        Ok(bytes.into())
    }

    /// Writes a snapshot of these entries; `blocks` are those that the entries name.
    pub(super) fn save(
        layout: &Layout,
        position: LogPosition,
        entries: &Entries,
        blocks: Vec<Arc<Block>>,
        metrics: &StorageMetrics,
    ) -> Result<SnapshotRef, StoreError> {
        let bytes = encode(entries);
        let path = layout.snapshots().join(SnapshotName::from(position).to_string());
        let begun = Instant::now();
        layout.write_atomic(&path, &bytes)?;
        metrics.snapshot_sync.observe(begun.elapsed());
        SnapshotRef::with_blocks(layout, position, path, &bytes, blocks, entries)
    }

    fn with_blocks(
        layout: &Layout,
        position: LogPosition,
        path: PathBuf,
        bytes: &[u8],
        blocks: Vec<Arc<Block>>,
        entries: &Entries,
    ) -> Result<SnapshotRef, StoreError> {
        let membership = entries.iter().find(|(key, _)| key == MEMBERSHIP_KEY);
        let membership = membership.map(|(_, value)| Bytes::copy_from_slice(value));
        let file = layout.disk.open(&path, Open::Read).map_err(StoreError::io("open", &path))?;
        let snapshot = SnapshotFile {
            name: SnapshotName::from(position).to_string(),
            bytes: bytes.len() as u64,
            crc: crc32fast::hash(bytes),
        };
        let block = |block: &Arc<Block>| {
            let facts = block.facts();
            SnapshotFile { name: facts.name.to_string(), bytes: facts.bytes, crc: facts.crc }
        };
        let files = std::iter::once(snapshot).chain(blocks.iter().map(block)).collect();
        Ok(SnapshotRef(Arc::new(OpenSnapshot { position, path, files, file, blocks, membership })))
    }

    /// Opens a snapshot and its blocks, and verifies everything except values. Also returns its
    /// entries.
    pub(super) fn open(
        layout: &Layout,
        name: SnapshotName,
        open_blocks: &mut OpenBlocks<'_>,
    ) -> Result<(SnapshotRef, Entries), StoreError> {
        let path = layout.snapshots().join(name.to_string());
        let bytes = Bytes::from(layout.read(&path)?);
        let wrong = |problem| StoreError::damaged(&path, 0, problem);
        let entries = decode(&bytes).ok_or_else(|| wrong("wrong checksum of the snapshot"))?;
        let contents = TableContents::decode(entries.clone());
        let contents = contents.ok_or_else(|| wrong("the snapshot's content is invalid"))?;
        let position = contents.applied.filter(|position| SnapshotName::from(*position) == name);
        let position = position.ok_or_else(|| wrong("the name does not match the position"))?;
        let blocks = contents.blocks.iter().map(|(facts, _)| open_blocks.open(facts));
        let blocks = blocks.collect::<Result<_, _>>()?;
        let opened = SnapshotRef::with_blocks(layout, position, path, &bytes, blocks, &entries)?;
        Ok((opened, entries))
    }
}

fn encode(entries: &Entries) -> Vec<u8> {
    let mut bytes = MAGIC.to_vec();
    put_varint(&mut bytes, entries.len() as u64);
    for (key, value) in entries {
        put_bytes(&mut bytes, key);
        put_bytes(&mut bytes, value);
    }
    let crc = crc32fast::hash(&bytes);
    bytes.extend_from_slice(&crc.to_be_bytes());
    bytes
}

/// The entries of a snapshot file, in key order. `None`: it is damaged.
pub fn decode(bytes: &Bytes) -> Option<Entries> {
    let body = bytes.len().checked_sub(4).map(|end| bytes.slice(..end))?;
    if crc32fast::hash(&body).to_be_bytes() != bytes[body.len()..] {
        return None;
    }
    let mut decoder = Decoder::new(&body);
    decoder.take(MAGIC.len()).filter(|magic| magic == MAGIC)?;
    let count = usize::try_from(decoder.varint()?).ok()?;
    let mut entries = Entries::with_capacity(count.min(body.len() / ENTRY_BYTES_MIN));
    for _ in 0..count {
        let (key, value) = (decoder.bytes_span()?, decoder.bytes_span()?);
        entries.push((body.slice(key), body.slice(value)));
    }
    (decoder.is_done() && entries.is_sorted_by(|a, b| a.0 < b.0)).then_some(entries)
}

/// The names of all existing snapshots, newest first.
pub fn names(layout: &Layout) -> Result<Vec<SnapshotName>, StoreError> {
    let names = layout.list(&layout.snapshots())?;
    let mut names: Vec<_> = names.iter().filter_map(|name| SnapshotName::parse(name)).collect();
    names.sort_unstable();
    names.reverse();
    Ok(names)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn any_entries() -> impl Strategy<Value = Entries> {
        let bytes = || proptest::collection::vec(any::<u8>(), 0..30);
        proptest::collection::btree_map(bytes(), bytes(), 0..10).prop_map(|entries| {
            entries.into_iter().map(|(key, value)| (key.into(), value.into())).collect()
        })
    }

    proptest! {
        #[test]
        fn entries_come_back_and_any_flipped_bit_is_noticed(
            entries in any_entries(),
            at in any::<prop::sample::Index>(),
            bit in 0..8_u8,
        ) {
            let mut bytes = encode(&entries);
            prop_assert_eq!(decode(&bytes.clone().into()), Some(entries));
            let at = at.index(bytes.len());
            bytes[at] ^= 1_u8 << bit;
            prop_assert_eq!(decode(&bytes.into()), None);
        }

        #[test]
        fn nothing_with_a_right_checksum_makes_it_panic(
            body in proptest::collection::vec(any::<u8>(), 0..60),
            entries in any_entries(),
        ) {
            let mut bytes = [MAGIC.as_slice(), &body].concat();
            let crc = crc32fast::hash(&bytes);
            bytes.extend_from_slice(&crc.to_be_bytes());
            let _ = decode(&bytes.into()).map(TableContents::decode);
                // Valid keys with arbitrary values.
            let entries = entries.into_iter().map(|(key, value)| ([&[0, 4], &key[..]].concat().into(), value));
            let _ = TableContents::decode(entries.collect());
        }
    }

    #[test]
    fn only_well_formed_names_are_snapshot_names() {
        let name = SnapshotName { index: 19, term: Term(2) };
        assert_eq!(SnapshotName::parse(&name.to_string()), Some(name));
        for wrong in ["", "19-2.snap", "../0000000000000013-0000000000000002.snap", "x.tmp"] {
            assert_eq!(SnapshotName::parse(wrong), None);
        }
    }
}
