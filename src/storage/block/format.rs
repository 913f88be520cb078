//! Names, constants and facts of block files.

use std::fmt;

use crate::types::{MemberId, RecordId};

pub const MAGIC: &[u8; 8] = b"ordblk\x00\x02";
/// Version 1, which is still read and no longer written.
pub const MAGIC_1: &[u8; 8] = b"ordblk\x00\x01";
/// Size at which a page is closed. A large value makes a large page.
pub const PAGE_BYTES: usize = 16 * 1024;
pub const DIRECTORY_ENTRY_BYTES: usize = 24;
pub const TRAILER_BYTES: usize = 44;

/// A block file's name: the member that wrote it, and a sequence number of that member. Never reused.
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
    /// Parses the output of `Display`, and nothing else: names also come from peers.
    pub(in crate::storage) fn parse(name: &str) -> Option<BlockName> {
        let (member, sequence) = name.strip_suffix(".blk")?.split_once('-')?;
        let parsed = BlockName {
            member: MemberId(u64::from_str_radix(member, 16).ok()?),
            sequence: u32::from_str_radix(sequence, 16).ok()?,
        };
        (parsed.to_string() == name).then_some(parsed)
    }
}

/// The facts about a block in the manifest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlockFacts {
    pub name: BlockName,
    pub bytes: u64,
    /// CRC-32 of the whole file.
    pub crc: u32,
    pub records: u32,
    pub first: RecordId,
    pub last: RecordId,
}

/// The place of a page, and its first record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Page {
    pub first: RecordId,
    pub offset: u32,
    pub bytes: u32,
    pub crc: u32,
}
