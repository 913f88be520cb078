//! The parts of the Raft log, as stored in the WAL and exchanged by peers.

use bytes::Bytes;

use super::id::{MemberId, Term};

/// A position in the log. Two entries with the same position are the same entry (Raft, §5.3).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LogPosition {
    pub term: Term,
    /// Starts at 0: the entry that initializes the cluster.
    pub index: u64,
}

/// The content of an entry's `data`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum EntryKind {
    /// Nothing: a new leader's first entry.
    Blank = 0,
    /// An encoded `ordinal.peer.v1.CommandBatch`.
    Commands = 1,
    /// An encoded `ordinal.peer.v1.Membership`.
    Membership = 2,
}

/// One log entry. The proposing member encodes its bytes once; every log and every peer receives
/// exactly these bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogEntry {
    pub position: LogPosition,
    pub kind: EntryKind,
    pub data: Bytes,
}

/// A member's vote in a term; `committed` once a quorum granted it (the candidate leads).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Vote {
    pub term: Term,
    /// `None`: the term is known, but no vote was granted in it.
    pub voted_for: Option<MemberId>,
    pub committed: bool,
}

/// The durable state of Raft besides the entries.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct HardState {
    pub vote: Option<Vote>,
    /// The last position known to be committed. It may lag, because it is not synced on its own.
    pub committed: Option<LogPosition>,
    /// The last position that was purged from the front of the log; a snapshot covers it.
    pub purged: Option<LogPosition>,
}
