//! Errors of a member's Raft, as its callers see them.

use super::{convert::InvalidMessage, timing::TimingError};
use crate::types::MemberRef;

/// Why Raft did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error(transparent)]
    Timing(#[from] TimingError),
    #[error("rebuilding the state: {0}")]
    State(String),
    #[error("replaying the log: {0}")]
    Replay(String),
    #[error("starting raft: {0}")]
    Raft(String),
    #[error("starting a lane: {0}")]
    Lane(#[from] std::io::Error),
}

/// Why a proposal was not applied, as far as this member knows.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProposeError {
    /// Certainly never appended. Names the leader, if known.
    #[error("not the leader")]
    NotLeader(Option<MemberRef>),
    /// The proposal may have been appended, and may be applied yet.
    #[error("outcome unknown: {0}")]
    Unknown(String),
}

/// Why the leader gave no read index.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReadIndexError {
    #[error("not the leader")]
    NotLeader(Option<MemberRef>),
    /// No majority answered.
    #[error("no quorum")]
    NoQuorum,
    #[error("raft has stopped")]
    Stopped,
}

/// Why a message of a peer was not handled.
#[derive(Debug, Clone, thiserror::Error)]
pub enum RpcError {
    #[error(transparent)]
    InvalidMessage(#[from] InvalidMessage),
    #[error("raft has stopped: {0}")]
    Stopped(String),
    #[error("snapshot: {0}")]
    Snapshot(String),
}
