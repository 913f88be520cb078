//! Block files: MVCC records in revision order, immutable once written.
//!
//! ```text
//! magic (8)                        "ordblk", 0, version (2)
//! page…                            records: meta, value length, value
//! directory                        for each page: first id, offset, length, CRC-32
//! metas                            for every record: all but the value, and the value's length
//! trailer (44)                     name, sizes, CRC-32 of directory + metas, CRC-32 of the trailer
//! ```
//!
//! A meta is: the difference of the revision to the previous record's (absolute for the first record
//! of a page, and of the metas), sub, flags, `revision - create_revision`, version, the lease if there
//! is one, key. Metas of version 1 have no value length; it is estimated.
//!
//! Invariants: ids ascend through the file; every byte is covered by a checksum (or is the magic), so
//! that no flipped bit is ever returned as data; a page is read by one `pread`, and verified each time.

mod builder;
mod file;
mod format;
mod record;
#[cfg(test)]
mod tests;

pub use builder::BlockBuilder;
pub use file::Block;
pub use format::{BlockFacts, BlockName};
pub use record::MetaCursor;
