//! The write-ahead log: entries, vote, commit mark, truncations and purges of one Raft member.
//!
//! What always holds:
//! - what a caller was told is done survives any crash; what [`Log::hard_state`] and the positions
//!   say right after [`Log::open`] is durable too, also if the process before died in mid-write;
//! - a damaged log is refused by name and offset. Only the final frame is ever cut, because a frame
//!   that was not acknowledged cannot be told from the last one that was;
//! - after a failed write or sync nothing is written any more: the member stops ([`crate::fault::Fault`]).
//!
//! # On disk
//! ```text
//! wal/000000000000002a.wal     segment 42: always whole, its header always valid
//! wal/spare-3.tmp              zero-filled ahead, becomes a segment by header, sync, rename
//!
//! segment  0     header: whose, which, salt, the salt before, length, first batch number,
//!                last position and hard state so far, CRC                  (1 sector of 1 page)
//!          4096  frame: salt, batch number, payload length, payload CRC, header CRC | records
//!          …     next frame, on the next page boundary
//!          …     zeros up to the segment's length
//! ```
//! A frame is one group commit, and frame k+1 is written only after the sync of frame k. Records
//! are entries, votes, commit marks, truncations and purges, in the order they were asked for.
//!
//! Frames begin on 4096-byte pages. A frame that shared a page, or a device's 4 KiB sector, with the
//! acknowledged frame before it would have that page written again, and a torn write could take the
//! old frame along. It costs no I/O: the kernel writes whole pages, and a whole page needs no read.
//!
//! # The end of the log
//! A frame is valid if its header and payload carry the right CRCs, its segment's random salt and
//! the batch number that is due. A segment that is not the last ends where the next one's header
//! says. In the last one, a bad frame k with the valid *header* of a higher batch number of this salt
//! behind it was once synced: damage, refused. With none, it is a torn write: it is cut, zeroed and
//! synced. A segment's file is never shorter than its header says, so a truncated one is refused.
//!
//! Nothing stale comes back: a page is written once, or again only after it was zeroed and synced.
//!
//! # Which sync is for what
//! | call | without it | test in `tests/syncs.rs` |
//! |---|---|---|
//! | frame, `sync_data` | an acknowledged frame is lost | `frame_sync_keeps_acknowledged_frames` |
//! | new segment's header, `sync_data` before the rename | an undamaged log is refused | `header_sync_keeps_a_new_segment_readable` |
//! | new segment's name, `sync_dir` | acknowledged frames lose their file | `name_sync_keeps_the_file_of_acknowledged_frames` |
//! | open, `sync_data` of the final frame | what recovery reported is lost | `open_sync_keeps_what_recovery_reported` |
//! | open, the same call, of the zeroed tail | a cut frame comes back | `open_sync_keeps_a_cut_frame_away` |
//! | open, `sync_dir` | a name that only the cache knew is lost | `open_name_sync_keeps_a_segment_that_was_being_made` |
//! | removal, `sync_dir` each | a gap in the sequence, refused | `removal_sync_keeps_the_sequence_whole` |
//! | zero-fill, `sync_data` | nothing is lost: the header's sync covers it. It is there so that the disk takes a segment in small steps between group commits, and so that a full disk shows early | – |

mod error;
mod format;
mod frames;
mod log;
mod metrics;
mod positions;
mod reader;
mod recovery;
mod segment;
mod segments;
mod state;
mod tail;
mod upkeep;
mod writer;

#[cfg(test)]
mod tests;
pub use error::WalError;
pub use log::Log;
pub use metrics::WalMetrics;
pub use upkeep::Space;

use crate::{lane::Lanes, types::MemberId};

/// How a log is kept.
#[derive(Debug, Clone)]
pub struct WalOptions {
    /// Whose log it is. Segments of another member are refused.
    pub member: MemberId,
    /// Random, another one at every start: it makes the salts.
    pub salt_seed: u64,
    /// The length of a segment: pages of 4096, two at least. A larger frame gets a larger segment.
    pub segment_bytes: u64,
    /// About so much of the end of the log stays in memory, decoded. What is not yet durable stays
    /// whatever its size.
    pub tail_bytes: usize,
    pub lanes: Lanes,
}

impl WalOptions {
    /// Segments of 64 MiB, 32 MiB in memory.
    pub fn new(member: MemberId, salt_seed: u64, lanes: Lanes) -> WalOptions {
        WalOptions { member, salt_seed, segment_bytes: 64 << 20, tail_bytes: 32 << 20, lanes }
    }
}
