//! Why a command failed, and the exit code that says so: etcdctl's codes.

use std::io;

use crate::client::{ClientError, EndpointError, LeaseEnd};

/// Why a command failed. The text says what to do next where that is known.
#[derive(Debug, thiserror::Error)]
pub enum CtlError {
    /// The arguments do not make sense, alone or together.
    #[error("{0}")]
    BadArguments(String),
    /// A flag asks for what does not exist.
    #[error("{0}")]
    BadFeature(String),
    /// Standard input is not what the verb reads.
    #[error("{0}")]
    InvalidInput(String),
    /// A number or an address that is none.
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
    /// There is no answer about a lease.
    #[error("{0}")]
    LeaseAnswer(ClientError),
    /// A lease that is kept alive may have ended.
    #[error(transparent)]
    LeaseEnd(#[from] LeaseEnd),
    #[error("watch is canceled by the server")]
    WatchCanceled(String),
    #[error(
        "watch is canceled by the server: what happened from revision {from} on is compacted, and \
         the oldest revision that can still be watched is {compact_revision}. Go on with --rev \
         {compact_revision} and miss what is gone; or read the keys with kvctl get -w json, and \
         watch from the revision in its header + 1"
    )]
    WatchCompacted { from: i64, compact_revision: i64 },
    /// What is run for each event failed.
    #[error("{0}")]
    Command(String),
    /// The runtime cannot start, or standard output cannot be written.
    #[error("{0}")]
    Io(#[from] io::Error),
}

impl CtlError {
    /// What the process exits with.
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
pub(crate) mod exit {
    pub(crate) const OK: u8 = 0;
    pub(crate) const ERROR: u8 = 1;
    pub(crate) const BAD_CONNECTION: u8 = 2;
    pub(crate) const INVALID_INPUT: u8 = 3;
    pub(crate) const BAD_FEATURE: u8 = 4;
    pub(crate) const INTERRUPTED: u8 = 5;
    pub(crate) const IO: u8 = 6;
    pub(crate) const BAD_ARGUMENTS: u8 = 128;
    /// What a shell says of a process that SIGINT ended.
    pub(crate) const BY_CTRL_C: u8 = 130;
}
