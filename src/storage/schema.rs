//! The storage's own keys in the tables. Those of the state machine are in `state::schema`.
//!
//! ```text
//! 00 01                            format version
//! 00 02                            applied position: term, index
//! 00 03                            checksum over all other entries
//! 00 04 member sequence            a block of the manifest
//! 00 05 member sequence chunk      dead records of the block: 4096 bits
//! ```
//!
//! Keys from `10` on belong to the state machine. Numbers are big endian. Values must stay small: the
//! engine moves large ones to files that it does not sync.

use bytes::Bytes;

use super::{
    block::{BlockFacts, BlockName},
    codec::Decoder,
};
use crate::types::{LogPosition, MemberId, RecordId, Revision, Term};

/// The only format version that is written and read.
const FORMAT_VERSION: u8 = 1;

pub const FORMAT: &[u8] = &[0, 1];
pub const APPLIED: &[u8] = &[0, 2];
pub const CHECKSUM: &[u8] = &[0, 3];
const BLOCK: u8 = 4;
const DEAD: u8 = 5;

/// One of the storage's own entries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StorageEntry {
    Format {
        known: bool,
    },
    Applied(LogPosition),
    Checksum(u64),
    Block(BlockFacts),
    /// `chunk` counts from 0.
    Dead {
        block: BlockName,
        chunk: u32,
        bits: Bytes,
    },
}

/// Whether this key belongs to the state machine.
pub fn is_state_key(key: &[u8]) -> bool {
    key.first().is_some_and(|first| *first >= 0x10)
}

pub fn format_value() -> Bytes {
    Bytes::from_static(&[FORMAT_VERSION])
}

pub fn position_value(position: LogPosition) -> Bytes {
    [position.term.0.to_be_bytes(), position.index.to_be_bytes()].concat().into()
}

pub fn checksum_value(sum: u64) -> Bytes {
    sum.to_be_bytes().to_vec().into()
}

pub fn block_key(name: BlockName) -> Bytes {
    prefixed(BLOCK, name).into()
}

pub fn dead_key(name: BlockName, chunk: u32) -> Bytes {
    let mut key = prefixed(DEAD, name);
    key.extend_from_slice(&chunk.to_be_bytes());
    key.into()
}

fn prefixed(kind: u8, name: BlockName) -> Vec<u8> {
    let mut key = vec![0, kind];
    key.extend_from_slice(&name.member.0.to_be_bytes());
    key.extend_from_slice(&name.sequence.to_be_bytes());
    key
}

pub fn block_value(facts: &BlockFacts) -> Bytes {
    let mut value = Vec::with_capacity(40);
    value.extend_from_slice(&facts.bytes.to_be_bytes());
    value.extend_from_slice(&facts.crc.to_be_bytes());
    value.extend_from_slice(&facts.records.to_be_bytes());
    for id in [facts.first, facts.last] {
        value.extend_from_slice(&id.main.0.to_be_bytes());
        value.extend_from_slice(&id.sub.to_be_bytes());
    }
    value.into()
}

/// Decodes an entry below `00`. `None`: it is invalid.
pub fn decode(key: &[u8], value: &Bytes) -> Option<StorageEntry> {
    let mut key = Decoder::new(key);
    let mut decoder = Decoder::new(value);
    key.u8().filter(|prefix| *prefix == 0)?;
    let entry = match key.u8()? {
        1 => StorageEntry::Format { known: decoder.u8()? == FORMAT_VERSION },
        2 => {
            let term = Term(decoder.u64()?);
            StorageEntry::Applied(LogPosition { term, index: decoder.u64()? })
        }
        3 => StorageEntry::Checksum(decoder.u64()?),
        BLOCK => StorageEntry::Block(decode_facts(decode_name(&mut key)?, &mut decoder)?),
        DEAD => {
            let (block, chunk) = (decode_name(&mut key)?, key.u32()?);
            decoder.take(value.len())?;
            StorageEntry::Dead { block, chunk, bits: value.clone() }
        }
        _ => return None,
    };
    (key.is_done() && decoder.is_done()).then_some(entry)
}

fn decode_name(key: &mut Decoder<'_>) -> Option<BlockName> {
    Some(BlockName { member: MemberId(key.u64()?), sequence: key.u32()? })
}

fn decode_facts(name: BlockName, value: &mut Decoder<'_>) -> Option<BlockFacts> {
    let (bytes, crc, records) = (value.u64()?, value.u32()?, value.u32()?);
    let mut id = || Some(RecordId { main: Revision(value.u64()? as i64), sub: value.u32()? });
    Some(BlockFacts { name, bytes, crc, records, first: id()?, last: id()? })
}
