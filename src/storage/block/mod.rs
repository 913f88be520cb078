//! Block files: MVCC records in revision order, immutable once written.
//!
//! ```text
//! magic (8)                        "ordblk", 0, version
//! page…                            records: meta, value length, value
//! directory                        for each page: first id, offset, length, CRC-32
//! metas                            of every record: all but the value
//! trailer (44)                     name, sizes, CRC-32 of directory + metas, CRC-32 of the trailer
//! ```
//!
//! A meta is: revision as the difference to that of the record before it (the first of a page, and
//! of the metas, absolute), sub, flags, `revision - create_revision`, version, the lease if it has
//! one, key.
//!
//! Invariants: ids ascend through the file; every byte of it is covered by one of the checksums (or
//! is the magic), so that no flipped bit is ever returned as data; a page is read by one `pread` and
//! verified each time.

mod build;
mod file;
mod record;

use std::fmt;

use crate::types::{MemberId, RecordId};

pub(super) use build::BlockBuilder;
pub(super) use file::Block;
pub(super) use record::MetaCursor;

const MAGIC: &[u8; 8] = b"ordblk\x00\x01";
/// A page is closed once it holds so many bytes; one large value makes one large page.
const PAGE_BYTES: usize = 16 * 1024;
const DIRECTORY_ENTRY_BYTES: usize = 24;
const TRAILER_BYTES: usize = 44;

/// A block file's name: who wrote it, and its number among that member's blocks. Never used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BlockName {
    pub member: MemberId,
    pub sequence: u32,
}

impl fmt::Display for BlockName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}-{:08x}.blk", self.member.0, self.sequence)
    }
}

impl BlockName {
    /// Reads what `Display` wrote; anything else is not a block (names also come from peers).
    pub(super) fn parse(name: &str) -> Option<BlockName> {
        let (member, sequence) = name.strip_suffix(".blk")?.split_once('-')?;
        let parsed = BlockName {
            member: MemberId(u64::from_str_radix(member, 16).ok()?),
            sequence: u32::from_str_radix(sequence, 16).ok()?,
        };
        (parsed.to_string() == name).then_some(parsed)
    }
}

/// What the manifest knows of a block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct BlockFacts {
    pub(super) name: BlockName,
    pub(super) bytes: u64,
    /// CRC-32 of the whole file.
    pub(super) crc: u32,
    pub(super) records: u32,
    pub(super) first: RecordId,
    pub(super) last: RecordId,
}

/// Where a page is, and what its first record is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Page {
    first: RecordId,
    offset: u32,
    bytes: u32,
    crc: u32,
}

#[cfg(test)]
mod tests;
