//! The write-ahead log: entries, vote, commit mark, truncations and purges of one Raft member.
//!
//! Invariants:
//! - Acknowledged changes survive any crash. [`Log::hard_state`] and the positions are durable right
//!   after [`Log::open`], too, even if the previous process died in the middle of a write.
//! - A damaged log is refused by file name and offset. Recovery only ever cuts the final frame, because
//!   it cannot distinguish a torn unacknowledged frame from a damaged acknowledged one.
//! - After a failed write or sync the log writes nothing more: the member stops
//!   ([`crate::fault::Fault`]).
//!
//! # On disk
//! ```text
//! wal/000000000000002a.wal     segment 42: always whole, its header always valid
//! wal/spare-3.tmp              preallocated file, becomes a segment by header, sync, rename
//!
//! segment  0     header: member, sequence, salt, previous salt, length, first batch number,
//!                last position and hard state so far, CRC                  (1 sector of 1 page)
//!          4096  frame: salt, batch number, payload length, payload CRC, header CRC | records
//!          …     next frame, on the next page boundary
//!          …     zeros up to the segment's length
//! ```
//! A frame is one group commit, and frame k+1 is written only after the sync of frame k. Records
//! are entries, votes, commit marks, truncations and purges, in the order of the requests.
//!
//! Frames begin on 4096-byte pages. A frame that shared a page, or a device's 4 KiB sector, with the
//! acknowledged frame before it would have that page written again, and a torn write could take the
//! old frame along. It costs no I/O: the kernel writes whole pages, and a whole page needs no read.
//!
//! # The end of the log
//! A frame is valid if it has the right CRCs of header and payload, the random salt of its segment and
//! the next batch number. The header of the following segment gives the end of a segment. In the last
//! segment, an invalid frame k may be followed by a valid *header* with this salt and a higher batch
//! number. Then frame k was once synced: the log is damaged and refused. Otherwise frame k is a torn
//! write, which recovery cuts, zeroes and syncs. A file is never shorter than its header's length, so
//! a truncated file is refused.
//!
//! Stale frames never come back: the log rewrites a page only after it was zeroed and synced.
//!
//! # Purpose of each sync
//! | call | effect of leaving it out | test in `tests/syncs.rs` |
//! |---|---|---|
//! | frame, `sync_data` | an acknowledged frame is lost | `frame_sync_keeps_acknowledged_frames` |
//! | new segment's header, `sync_data` before the rename | an undamaged log is refused | `header_sync_keeps_a_new_segment_readable` |
//! | new segment's name, `sync_dir` | acknowledged frames lose their file | `name_sync_keeps_the_file_of_acknowledged_frames` |
//! | open, `sync_data` of the final frame | reported state is lost | `open_sync_keeps_reported_state` |
//! | open, the same call, of the zeroed tail | a cut frame comes back | `open_sync_keeps_a_cut_frame_away` |
//! | open, `sync_dir` | a name that was only in the cache is lost | `open_name_sync_keeps_a_segment_that_was_being_made` |
//! | removal, `sync_dir` each | a gap in the sequence, refused | `removal_sync_keeps_the_sequence_whole` |
//! | zero-fill, `sync_data` | none for safety: the header's sync covers it. It spreads the writes of a segment into small steps between group commits, and detects a full disk early | – |

mod error;
mod format;
mod frames;
mod log;
mod metrics;
mod positions;
mod preallocation;
mod reader;
mod recovery;
mod segment;
mod segments;
mod state;
mod tail;
mod writer;

#[cfg(test)]
mod tests;
pub use error::WalError;
pub use log::Log;
pub use preallocation::DiskSpace;

use crate::{lane::Lanes, types::MemberId};

/// Settings of a log.
#[derive(Debug, Clone)]
pub struct WalOptions {
    /// The owner of the log. Segments of another member are refused.
    pub member: MemberId,
    /// Seed of the salts: random, and different at every start.
    pub salt_seed: u64,
    /// Length of a segment: at least two pages of 4096. A larger frame gets a larger segment.
    pub segment_bytes: u64,
    /// Approximate bytes of decoded entries that stay in memory, from the end of the log. Entries that
    /// are not durable yet always stay.
    pub tail_bytes: usize,
    pub lanes: Lanes,
}

impl WalOptions {
    /// Segments of 64 MiB, with 32 MiB of entries in memory.
    pub fn new(member: MemberId, salt_seed: u64, lanes: Lanes) -> WalOptions {
        WalOptions { member, salt_seed, segment_bytes: 64 << 20, tail_bytes: 32 << 20, lanes }
    }
}
