//! Errors of commands, and their exit codes: etcdctl's.

use std::io;

use crate::client::{ClientError, EndpointError, LeaseEnd};

/// The text names the next step where it is known.
#[derive(Debug, thiserror::Error)]
pub enum CtlError {
    /// Invalid or contradicting arguments.
    #[error("{0}")]
    BadArguments(String),
    /// A flag requests a feature that the verb does not have.
    #[error("{0}")]
    BadFeature(String),
    /// Invalid standard input.
    #[error("{0}")]
    InvalidInput(String),
    /// Not a number, or not an address.
    #[error("{0}")]
    Malformed(String),
    #[error(transparent)]
    Client(#[from] ClientError),
    #[error(transparent)]
    Endpoint(#[from] EndpointError),
    /// `--cluster` needs the member list first.
    #[error("failed to fetch endpoints from the cluster's member list: {0}")]
    NoMemberList(ClientError),
    /// Granting or revoking a lease failed.
    #[error("{0}")]
    Lease(String),
    /// The call about a lease failed.
    #[error("{0}")]
    LeaseAnswer(ClientError),
    /// A lease that is kept alive may have ended.
    #[error(transparent)]
    LeaseEnd(#[from] LeaseEnd),
    #[error("watch is canceled by the server")]
    WatchCanceled(String),
    #[error(
        "watch is canceled by the server: revision {from} is compacted, and the oldest watchable \
         revision is {compact_revision}. Continue with --rev {compact_revision} and miss the events \
         before; or read the keys with kvctl get -w json, and watch from its header's revision + 1"
    )]
    WatchCompacted { from: i64, compact_revision: i64 },
    /// The command for an event failed.
    #[error("{0}")]
    Command(String),
    /// The runtime cannot start, or standard output cannot be written.
    #[error("{0}")]
    Io(#[from] io::Error),
}

impl CtlError {
    pub fn exit_code(&self) -> u8 {
        match self {
            CtlError::Malformed(_)
            | CtlError::Client(_)
            | CtlError::Endpoint(_)
            | CtlError::NoMemberList(_)
            | CtlError::Lease(_)
            | CtlError::LeaseEnd(_)
            | CtlError::Command(_) => exit::ERROR,
            CtlError::LeaseAnswer(_) => exit::BAD_CONNECTION,
            CtlError::WatchCanceled(_) | CtlError::WatchCompacted { .. } => exit::INTERRUPTED,
            CtlError::InvalidInput(_) => exit::INVALID_INPUT,
            CtlError::BadFeature(_) => exit::BAD_FEATURE,
            CtlError::Io(_) => exit::IO,
            CtlError::BadArguments(_) => exit::BAD_ARGUMENTS,
        }
    }
}

/// etcdctl's exit codes.
pub mod exit {
    pub const OK: u8 = 0;
    pub const ERROR: u8 = 1;
    pub const BAD_CONNECTION: u8 = 2;
    pub const INVALID_INPUT: u8 = 3;
    pub const BAD_FEATURE: u8 = 4;
    pub const INTERRUPTED: u8 = 5;
    pub const IO: u8 = 6;
    pub const BAD_ARGUMENTS: u8 = 128;
    /// A shell's exit code of a process that SIGINT ended.
    pub const BY_CTRL_C: u8 = 130;
}
