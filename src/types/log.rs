//! What the Raft log is made of, as the WAL keeps it and peers exchange it.

use bytes::Bytes;

use super::{MemberId, Term};

/// A place in the log. Two entries with the same position are the same entry (Raft, §5.3).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LogPosition {
    pub term: Term,
    /// Starts at 0: the entry that initializes the cluster.
    pub index: u64,
}

/// What an entry's `data` holds.
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

/// One log entry. Its bytes are encoded once, by the member that proposes it, and then written to
/// every log and sent to every peer as they are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogEntry {
    pub position: LogPosition,
    pub kind: EntryKind,
    pub data: Bytes,
}

/// Whom a member voted for in which term; `committed` once a quorum granted it (the candidate leads).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Vote {
    pub term: Term,
    /// `None`: the term was seen, no vote was given in it.
    pub voted_for: Option<MemberId>,
    pub committed: bool,
}

/// What a member must remember besides the entries.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct HardState {
    pub vote: Option<Vote>,
    /// The last position known to be committed. May trail the truth: it is not synced on its own.
    pub committed: Option<LogPosition>,
    /// The last position that was dropped from the front of the log; a snapshot covers it.
    pub purged: Option<LogPosition>,
}
